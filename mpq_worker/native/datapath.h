/* What the paths of a worker share: who is reached by which connection ID and inner address, the batch that is being
 * built, the packets on their way to the TUN. No system call is made here: see `io.h`.
 *
 *   datapath_frame      a frame from the TUN     →  route, queue or build
 *   datapath_datagrams  UDP payloads             →  open, walk the frames, coalesce
 *   datapath_flush      what is due: paced packets, acknowledgements; both batches go out */
#ifndef MPQ_DATAPATH_H
#define MPQ_DATAPATH_H

#include "coalesce.h"
#include "path.h"
#include "table.h"

enum { BATCH_BYTES = 262144, BATCH_PACKETS = 192, PLAIN_BYTES = 262144, MAX_DATAGRAM = 65536 };
enum { MAX_FOREIGN = 64, MAX_OTHER = 64, MAX_TOO_BIG = 8, QUOTED = 1280, GSO_SEGMENTS = 64, GSO_BYTES = 65000 };

/* The same order as Python's list of DropReasons. */
enum drop {
    DROP_NOT_IP, DROP_LOCAL, DROP_TOO_BIG, DROP_NO_PATH, DROP_SOCKET, DROP_DUPLICATE, DROP_UNOPENED, DROP_EMPTY,
    DROP_UNKNOWN_CONTEXT, DROP_SOURCE, DROP_UNAUTHENTICATED, DROP_TUN, DROP_LIMIT, DROPS
};

/* A UDP payload that Python has to look at; `data` is the caller's. */
struct foreign {
    const uint8_t *data;
    size_t length;
    const uint8_t *remote;
    size_t remote_length;
};

/* A DATAGRAM payload that is no IP packet. */
struct other {
    struct path *path;
    uint8_t data[MAX_MESSAGE];
    size_t length;
};

/* The head of a packet from the TUN that is larger than its path takes. */
struct too_big {
    uint8_t data[QUOTED];
    size_t length;
    size_t mtu;
};

struct built {
    size_t offset, length; /* without the tag */
    uint64_t number;
};

/* One run of packets of a path: all are `segment` long but the last, which may be shorter. */
struct run {
    struct path *path;
    size_t offset, length, segment;
};

/* Takes all runs of a batch. */
struct datapath;
typedef void transmit_fn(struct datapath *dp);

struct datapath {
    struct table paths;   /* by connection ID of ours */
    struct table routes;  /* by inner destination */
    struct path *only;    /* a site's one path; NULL: ask the routes */
    unsigned prefixes[2][129]; /* how many routes there are of each length, IPv4 and IPv6 */
    int hub;

    struct path **busy; /* those with events, deadlines or acknowledgements to send */
    int busy_count, busy_size;

    uint8_t *out; /* the batch that is being built */
    size_t out_used;
    struct built built[BATCH_PACKETS];
    unsigned built_count, sealed_count;
    struct run runs[BATCH_PACKETS];
    unsigned run_count;
    struct path *building; /* whose packet is open or not sealed */
    uint8_t *open, *open_at; /* the open packet and the end of what is in it; NULL: none */
    int open_eliciting, open_full;
    transmit_fn *transmit;

    uint8_t *plain; /* decrypted packets on their way to the TUN */
    size_t plain_used;
    struct coalescer coalescer;

    struct foreign foreign[MAX_FOREIGN];
    unsigned foreign_count;
    struct other other[MAX_OTHER];
    unsigned other_count;
    struct too_big too_big[MAX_TOO_BIG];
    unsigned too_big_count;

    uint64_t drops[DROPS];
    uint64_t gone_full, gone_codel; /* of queues that are no more */
    uint64_t packets_in, bytes_in, packets_out, bytes_out;
    double now;    /* of the call that is under way */
    int attention; /* a path has something to tell Python by now */
    void *context; /* of transmit and emit */
};

/* 0, or -1 without memory. */
int datapath_begin(struct datapath *dp, int hub, transmit_fn *transmit, emit_fn *emit, void *context);
void datapath_end(struct datapath *dp);

/* The batch is empty again: `transmit` ends with it. */
void datapath_sent(struct datapath *dp);

/* A frame from the TUN. */
void datapath_frame(struct datapath *dp, const struct vnet *vnet, const uint8_t *packet, size_t length, double now);

/* UDP payloads that came in one piece from one address, each `segment` long but the last. */
void datapath_datagrams(struct datapath *dp, const uint8_t *data, size_t length, size_t segment, const uint8_t *remote,
                        size_t remote_length, double now);

void datapath_flush(struct datapath *dp, double now);

/* When `datapath_flush` has something to do, or a path to tell Python; 0: never. */
double datapath_deadline(const struct datapath *dp);

/* Whether there is something that Python has to look at now. */
int datapath_asks(const struct datapath *dp);

/* `path` has a deadline or something for Python: of keys and sources it is told at once, of the rest
 * after `tell_delay`, or after TELL_DELAY where the window is filled. */
void datapath_note(struct datapath *dp, struct path *path, unsigned events);

/* Nothing points to `path` any more: no connection ID, no route, no event. */
void datapath_forget(struct datapath *dp, struct path *path);

/* 0, or -1 without memory. `path` NULL: take the route away. */
int datapath_route(struct datapath *dp, const struct key *key, struct path *path);

/* path_send.c: what may leave of `s` goes into the batch; 1 if that is all of it. */
int path_put(struct datapath *dp, struct path *path, struct segments *s, double now);
/* Messages and the queue, as far as window and pacer go. */
void path_pump(struct datapath *dp, struct path *path, double now);
/* An acknowledgement, in a packet of its own. */
void path_acknowledge(struct datapath *dp, struct path *path, double now);
/* A packet of PING and PADDING, `size` bytes of UDP payload, and a small one behind it. Returns the number of the
 * former, -1 if it cannot be. */
int64_t path_probe(struct datapath *dp, struct path *path, size_t size, double now);
/* The peer sends under its next key, from `number` on. Python derives the one after it. */
void path_advance(struct datapath *dp, struct path *path, uint64_t number, double now);
/* Closes and seals what is being built. */
void batch_seal(struct datapath *dp);

/* path_receive.c: one packet with its header mask. 1 if it is done with; 0 if Python has to look at it. */
int path_open(struct datapath *dp, struct path *path, const uint8_t *data, size_t length, const uint8_t *mask,
              const uint8_t *remote, size_t remote_length, double now);

#endif
