/* Cuts a super-packet from a TUN into the IP packets it stands for (TSO, USO), and completes checksums.
 *
 *   struct segments s;
 *   if (segments_begin(&s, &vnet, packet, length) == 0)
 *       while ((size = segments_peek(&s)))
 *           segments_next(&s, out);                  // out has room for `size` bytes
 *
 * The header before the packet is what the kernel says of it (virtio 1.2, 5.1.6); it is checked, not believed. */
#ifndef MPQ_SEGMENT_H
#define MPQ_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

enum { VNET_HEADER = 10, VNET_NEEDS_CSUM = 1 };
enum { GSO_NONE = 0, GSO_TCP4 = 1, GSO_TCP6 = 4, GSO_UDP_L4 = 5, GSO_ECN = 0x80 };

/* struct virtio_net_hdr, in the byte order of the host. */
struct vnet {
    uint8_t flags, gso_type;
    uint16_t header, gso_size, csum_start, csum_offset;
};

struct segments {
    const uint8_t *packet;
    size_t length;   /* of the whole */
    size_t header;   /* bytes that lead each segment; 0: the packet goes as it is, in one */
    size_t size;     /* payload of each segment but the last */
    size_t offset;   /* payload that has been taken */
    size_t transport;
    size_t checksum; /* offset of the checksum to complete; 0: none */
    uint64_t partial; /* sum of the pseudo-header without its length */
    uint8_t version, tcp;
    uint16_t index;
};

/* 0, or -1 if the header and the packet do not fit together. `packet` has to stay where it is. */
int segments_begin(struct segments *s, const struct vnet *vnet, const uint8_t *packet, size_t length);

/* Bytes of the next packet; 0 at the end. */
size_t segments_peek(const struct segments *s);

/* Writes the next packet. */
void segments_next(struct segments *s, uint8_t *out);

/* Leaves the next packet out. */
void segments_skip(struct segments *s);

/* How many are left. */
size_t segments_left(const struct segments *s);

#endif
