/* Which packet numbers came: replay window and the source of ACK frames (RFC 9000 sections 12.3, 13.2). */
#ifndef MPQ_RECEIVED_H
#define MPQ_RECEIVED_H

#include <stddef.h>
#include <stdint.h>

enum { RECEIVED_WINDOW = 16384 };

struct received {
    uint64_t bits[RECEIVED_WINDOW / 64]; /* by number modulo the window */
    int64_t largest;                     /* -1: none yet */
};

void received_begin(struct received *r);

/* Whether a packet came before, or is too old to be told from one that did. */
int received_has(const struct received *r, uint64_t number);

/* 1 if the packet leaves a gap behind the largest before it, or fills one; else 0. */
int received_add(struct received *r, uint64_t number);

/* Writes an ACK frame of as many ranges as `room` takes, newest first; `delay` is as encoded. Returns its length,
 * 0 if there is nothing to acknowledge or no room. */
size_t received_ack(const struct received *r, uint64_t delay, uint8_t *out, size_t room);

#endif
