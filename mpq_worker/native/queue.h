/* A path's send queue: frames as they came from the TUN, bounded in bytes, CoDel at the head (RFC 8289). */
#ifndef MPQ_QUEUE_H
#define MPQ_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "segment.h"

struct item {
    struct item *next;
    double since;
    size_t length;
    struct segments segments; /* into `data` */
    uint8_t data[];
};

struct queue {
    struct item *head, **tail;
    size_t bytes, limit, mtu;
    double target, interval;
    uint64_t full_drops, codel_drops; /* packets */
    double first_above, drop_next;    /* 0: not above */
    uint32_t count, last_count;
    int dropping;
};

void queue_begin(struct queue *q, size_t limit, size_t mtu, double target, double interval);
void queue_end(struct queue *q);

/* Appends a copy of what is left of `s`, or drops and counts it. */
void queue_push(struct queue *q, const struct segments *s, double since);

/* The head, after CoDel has dropped what it must, packet by packet; NULL if the queue is empty. */
struct item *queue_head(struct queue *q, double now);

/* Packets in it. */
size_t queue_packets(const struct queue *q);

/* Puts all that is in `from` before what is in `to`. */
void queue_move(struct queue *from, struct queue *to);

/* Takes the head away. */
void queue_pop(struct queue *q);

#endif
