/* The data path's system calls: a TUN with virtio header, UDP with segmentation and receive offload, and one descriptor
 * that is readable when a wake-up is due.
 *
 *   io_wake: epoll → UDP → open → TUN        what came leaves, acknowledgements and the pacer's turn included; Python is
 *                  → TUN → seal → UDP        asked only if there is something that it has to decide
 *
 * The clock is read after what comes is read, and before what leaves is sent: a round trip is never taken for shorter. */
#ifndef MPQ_IO_H
#define MPQ_IO_H

#include "datapath.h"

enum { RECEIVE_MESSAGES = 8 };
enum { TUN_FRAMES = 64, TUN_BYTES = 262144 }; /* of a wake-up, so that control and heartbeats are never starved */
enum { QUEUE_LOW = 32768 };                   /* a site's TUN is read while less waits in its one queue */

/* What the kernel was found to support. */
struct features {
    int vnet;        /* the TUN has a virtio header before each packet */
    int tso, uso;    /* the TUN gives and takes TCP, UDP super-packets */
    int udp_segment; /* one send of several datagrams */
    int udp_gro;     /* one receipt of several datagrams */
};

struct io {
    struct datapath *dp;
    int tun, udp;
    int poll;                 /* epoll of the two and of `timer`, which is set to `timer_at` (0: it is not) */
    int timer;
    double timer_at;
    int may_read, reading;    /* the TUN, as Python says; as it is */
    struct features features;
    uint8_t *frame;    /* one from the TUN */
    uint8_t *received; /* RECEIVE_MESSAGES of MAX_DATAGRAM */
    uint8_t remotes[RECEIVE_MESSAGES][MAX_REMOTE]; /* the sender's address, then the one it contacted */
};

/* 0, or -1 without memory or descriptors. From now on `dp` writes to descriptors. */
int io_begin(struct io *io, struct datapath *dp);
void io_end(struct io *io);

/* Uses a TUN and asks for its offloads. 0, or -errno if it is no TUN that we can use. */
int io_use_tun(struct io *io, int fd);

/* Takes a TUN's offloads away. Whether its packets have a virtio header, or -errno. */
int io_plain_tun(int fd);

/* Uses a socket and asks for its offloads. */
void io_use_udp(struct io *io, int fd);

/* Whether the TUN is ours to read. */
void io_may_read(struct io *io, int may_read);

/* Call when `poll` is readable. 1 if Python has something to look at, and then to call `io_flush`: until it has looked, the
 * timer would be due at once. 0 if not; -errno if the TUN is gone. */
int io_wake(struct io *io);

/* Sends and writes what is due, then sees to timer and TUN. */
void io_flush(struct io *io);

#endif
