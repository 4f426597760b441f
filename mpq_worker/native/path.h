/* One connection's 1-RTT packets: keys, numbers, windows, queue. Policy (what the window is, when keys change) is Python's.
 *
 * `path_receive.c` opens packets, `path_send.c` builds them; `datapath.h` has what all paths of a worker share. */
#ifndef MPQ_PATH_H
#define MPQ_PATH_H

#include <stdint.h>

#include "aead.h"
#include "queue.h"
#include "received.h"
#include "sent.h"
#include "table.h"

enum { CID_LENGTH = 8, MAX_CID = 20, MAX_REMOTE = 48, MAX_MESSAGES = 8, MAX_MESSAGE = 64, NUMBER_LENGTH = 4 };
enum { ACK_EVERY_MAX = 256, ACK_DELAY_EXPONENT = 3, RESET_TOKEN = 16 };

/* What Python is told of a path. */
enum event {
    EVENT_ACK = 1,     /* `sent.summary` has news */
    EVENT_PHASE = 2,   /* the peer's next key is in use */
    EVENT_SOURCE = 4,  /* first packet with a foreign inner source, which is in `foreign_source` */
    EVENT_FLIGHT = 8,  /* something is in flight where nothing was */
};

struct path {
    void *owner; /* Python's object */
    int index;   /* among the busy ones; -1: idle */
    unsigned events;
    double event_at;   /* when the first of them came; 0: there is none */
    double tell_delay; /* how long Python need not be told while nothing waits for it */

    enum suite suite;
    struct header_key send_header, receive_header;
    struct packet_key send, current, next, previous;
    int send_phase, receive_phase;
    int64_t phase_start; /* first number seen of the peer's current phase */
    double previous_until;
    uint64_t sealed; /* packets under the current send key */
    uint8_t reset_token[RESET_TOKEN];
    int has_reset_token;

    uint8_t cid[MAX_CID]; /* of the peer */
    size_t cid_length;
    uint8_t remote[MAX_REMOTE]; /* where packets come from and go to; empty on a connected socket */
    size_t remote_length;

    struct received received;
    uint64_t opened, failed;
    int64_t first;           /* number of the first packet that opened */
    double heard, asked;     /* when a packet last opened; when something left after that, 0 if nothing did */
    unsigned unacked, ack_every;
    int ack_gap;
    double ack_at, ack_sent, largest_at, ack_delay; /* due (0: nothing to say); last; when the largest came; longest wait */

    struct sent sent;
    uint64_t elsewhere; /* bytes in flight that Python sent */
    uint64_t window;
    double rate, tokens, refilled, pace_at; /* bytes per second (0: not paced), bytes, time, due (0: not waiting) */
    double pto, loss_delay;
    int window_filled; /* since Python last asked */

    struct queue queue;
    uint8_t messages[MAX_MESSAGES][MAX_MESSAGE]; /* payloads other than IP packets; they go first */
    uint8_t message_length[MAX_MESSAGES];
    unsigned message_count;
    size_t inner_mtu;
    size_t payload; /* largest UDP payload */

    struct key *allowed; /* inner sources that may come from here */
    size_t allowed_count;
    int any_source;
    int foreign_told;
    uint8_t foreign_source[16];
    size_t foreign_size;
    uint64_t packets_in, bytes_in, packets_out, bytes_out; /* IP packets */
};

struct limits {
    size_t inner_mtu, queue_bytes;
    double target, interval;
};

/* NULL without memory. `next` is the next packet number to use. */
struct path *path_new(void *owner, const struct limits *limits, uint64_t next, uint64_t delivered, double now);
void path_free(struct path *path);

/* Sizes follow from the inner MTU. */
void path_set_mtu(struct path *path, size_t inner_mtu);

/* Whether packets wait for window or pacer. */
static inline int path_waits(const struct path *path) { return path->queue.head || path->message_count; }

#endif
