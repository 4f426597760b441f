/* What the data path reads of IP packets (RFC 791, RFC 8200) and the Internet checksum (RFC 1071). */
#ifndef MPQ_IP_H
#define MPQ_IP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { PROTO_TCP = 6, PROTO_UDP = 17, IP6_HEADER = 40, TCP_HEADER = 20, UDP_HEADER = 8 };

struct ip_view {
    const uint8_t *source, *destination;
    uint8_t version;       /* 4 or 6 */
    uint8_t address_size;  /* 4 or 16 */
    uint8_t protocol;      /* of the payload; for IPv6 the first next header */
    uint8_t header;        /* bytes before the payload; for IPv6 the fixed header */
};

/* 0 if `packet` is one whole IP packet whose header tells its true length, else -1. */
int ip_parse(const uint8_t *packet, size_t length, struct ip_view *view);

/* Multicast and link-local destinations: the host's own talk, which no tunnel carries. */
int ip_is_local(const struct ip_view *view);

/* Adds bytes to a running sum; every part but the last has to be of even length. */
uint64_t checksum_add(uint64_t sum, const uint8_t *data, size_t length);

/* Folds a running sum to 16 bits, in the byte order of the packet; not complemented. */
uint16_t checksum_fold(uint64_t sum);

/* The sum of the TCP or UDP pseudo-header over `length` bytes of transport header and payload. */
uint64_t checksum_pseudo(const struct ip_view *view, uint8_t protocol, size_t length);

static inline uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline void put16(uint8_t *p, size_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void put32(uint8_t *p, uint32_t v) {
    put16(p, v >> 16);
    put16(p + 2, v);
}

/* A folded sum as it stands in a packet. */
static inline void put_checksum(uint8_t *p, uint16_t sum) { memcpy(p, &sum, 2); }

#endif
