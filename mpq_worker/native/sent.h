/* Packets that are in flight: a ring by packet number, acknowledgement and loss (RFC 9002 sections 5, 6), and the
 * delivery rate samples that congestion control wants (draft-cheng-iccrg-delivery-rate-estimation). */
#ifndef MPQ_SENT_H
#define MPQ_SENT_H

#include <stddef.h>
#include <stdint.h>

enum { SAFE_SIZE = 1200 }; /* what every path of QUIC carries (RFC 9000 section 14) */
enum owner { LOOP, PYTHON, PROBE }; /* Python is told of the fate of all but the first; the loss of a probe is none */
enum { SENT_MIN = 256, SENT_MAX = 16384, REORDER_MIN = 3, REORDER_MAX = 4096, SENT_NOTES = 128 };

/* What was known of the path when a packet left. */
struct token {
    double sent_time, delivered_time, first_sent_time;
    uint64_t delivered;
    int app_limited; /* the sender had no more to send then */
};

struct sent_packet {
    struct token token;
    uint32_t size;
    uint8_t state, owner;
};

/* What acknowledgements have said since the last `sent_take`. */
struct ack_summary {
    uint64_t acked, acked_bytes, lost, lost_bytes;
    uint64_t spurious; /* of those lost earlier that arrived after all */
    int64_t newest;    /* highest number newly acknowledged; -1: none */
    struct token token; /* of that packet */
    double rtt, delay; /* where the largest acknowledged is new, else rtt is 0; the delay that the peer reports */
    double loss_time;  /* when the next packet is lost by time; 0: none waits */
};

struct sent {
    struct sent_packet *ring;
    uint64_t mask;
    uint64_t floor, oldest, next; /* ring holds [floor, next); nothing below `oldest` is in flight */
    int64_t largest_acked, sampled; /* `sampled`: highest number that gave an RTT */
    uint64_t bytes, packets; /* in flight */
    uint64_t delivered;
    double delivered_time, first_sent_time;
    uint64_t notes[SENT_NOTES]; /* fates of Python's packets: number << 1 | acknowledged */
    unsigned note_count;
    uint64_t count; /* packets that were ever in flight */
    double last;    /* when one last left */
    int64_t large_acked;  /* highest number acknowledged of a packet above SAFE_SIZE; -1: none */
    unsigned large_lost;  /* packets above SAFE_SIZE and that number that were lost */
    uint64_t threshold; /* packets of reordering that are no loss; grows when a loss proves spurious */
    struct ack_summary summary;
};

/* Numbers below `next` were sent by others. 0, or -1 without memory. */
int sent_begin(struct sent *s, uint64_t next, uint64_t delivered, double now);
void sent_end(struct sent *s);

/* Whether another packet can be remembered. */
int sent_has_room(const struct sent *s);

/* The next number was used for a packet of `size` bytes; 0: one that is not counted in flight. */
void sent_add(struct sent *s, uint32_t size, double now, int app_limited, enum owner owner);

/* Python used `number`, and those below it for nothing. */
void sent_elsewhere(struct sent *s, uint64_t number, uint32_t size, double now);

/* A range of an ACK frame, both ends inclusive, which the caller gives newest first; `next` bounds what is valid. */
void sent_acked(struct sent *s, uint64_t low, uint64_t high, double now);

/* After the ranges of a frame: RTT and loss. `delay` is the peer's, `loss_delay` how long a packet may be late. */
void sent_settle(struct sent *s, uint64_t largest, double delay, double loss_delay, double now);

/* Loss by time alone. */
void sent_detect_loss(struct sent *s, double loss_delay, double now);

/* The summary, which begins anew. */
struct ack_summary sent_take(struct sent *s);

#endif
