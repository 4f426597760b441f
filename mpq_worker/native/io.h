/* The data path's system calls: a TUN with virtio header, UDP with segmentation and receive offload. */
#ifndef MPQ_IO_H
#define MPQ_IO_H

#include "datapath.h"

enum { RECEIVE_MESSAGES = 8 };

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
    struct features features;
    int faults; /* errors that the socket reported; whoever polls it may have to begin anew */
    uint8_t *frame;    /* one from the TUN */
    uint8_t *received; /* RECEIVE_MESSAGES of MAX_DATAGRAM */
    uint8_t remotes[RECEIVE_MESSAGES][MAX_REMOTE]; /* the sender's address, then the one it contacted */
};

/* 0, or -1 without memory. From now on `dp` writes to descriptors. */
int io_begin(struct io *io, struct datapath *dp);
void io_end(struct io *io);

/* Uses a TUN and asks for its offloads. 0, or -errno if it is no TUN that we can use. */
int io_use_tun(struct io *io, int fd);

/* Takes a TUN's offloads away. Whether its packets have a virtio header, or -errno. */
int io_plain_tun(int fd);

/* Uses a socket and asks for its offloads. */
void io_use_udp(struct io *io, int fd);

/* Reads at most `frames` frames and `bytes` bytes, and no more once a site's path waits. 0, or -errno. */
int io_read_tun(struct io *io, int frames, size_t bytes, double now);

/* Reads one round of messages. How many there were, or -errno of an error that the socket reports. */
int io_read_udp(struct io *io, double now);

#endif
