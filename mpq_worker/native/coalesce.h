/* Joins consecutive TCP segments and UDP datagrams of one flow into super-packets for the TUN: what the kernel's GRO does.
 *
 * Only what the kernel can cut again into the very same packets is joined: equal headers, consecutive IPv4
 * identifications, checksums that are right. Order within a flow stays. Packets stay where they are until they are
 * emitted, and the first one's headers are rewritten in place. */
#ifndef MPQ_COALESCE_H
#define MPQ_COALESCE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "ip.h"
#include "segment.h"

enum { COALESCE_FLOWS = 8, COALESCE_PARTS = 64, COALESCE_MAX = 65535 };

/* Takes one packet, in `count` parts, and what to say of it. */
typedef void emit_fn(void *context, const struct vnet *vnet, const struct iovec *parts, int count);

struct bunch {
    struct iovec parts[COALESCE_PARTS];
    int count;
    struct ip_view ip;
    uint8_t *head;
    size_t header;    /* bytes of IP and transport header */
    size_t transport; /* offset of the latter */
    size_t size;      /* payload of all but the last */
    size_t length;    /* of the whole */
    uint32_t next_sequence;
    int closed;
};

struct coalescer {
    struct bunch bunches[COALESCE_FLOWS];
    struct bunch *order[COALESCE_FLOWS];
    int used;
    emit_fn *emit;
    void *context;
    int tcp, udp; /* whether the kernel takes such super-packets; at first it takes none */
};

void coalesce_begin(struct coalescer *c, emit_fn *emit, void *context);

/* A whole IP packet as `ip_parse` saw it. */
void coalesce_add(struct coalescer *c, uint8_t *packet, size_t length, const struct ip_view *ip);

/* Emits all that is held. */
void coalesce_flush(struct coalescer *c);

#endif
