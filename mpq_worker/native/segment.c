#include "segment.h"

#include "ip.h"

enum { TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_CWR = 0x80 };

int segments_begin(struct segments *s, const struct vnet *vnet, const uint8_t *packet, size_t length) {
    struct ip_view ip;
    memset(s, 0, sizeof *s);
    s->packet = packet;
    s->length = length;
    if (ip_parse(packet, length, &ip) < 0)
        return -1;
    s->version = ip.version;
    size_t transport = vnet->csum_start;
    if (vnet->flags & VNET_NEEDS_CSUM) {
        s->checksum = transport + vnet->csum_offset;
        if (transport < ip.header || s->checksum + 2 > length)
            return -1;
    }
    unsigned gso = vnet->gso_type & (unsigned)~GSO_ECN;
    if (gso == GSO_NONE) {
        s->transport = transport;
        return 0;
    }
    s->tcp = gso != GSO_UDP_L4;
    int fits = gso == GSO_UDP_L4 || ip.version == (gso == GSO_TCP4 ? 4 : 6);
    if (!fits || !s->checksum || vnet->gso_size == 0 || (ip.version == 4 && transport != ip.header))
        return -1;
    if (transport + (s->tcp ? TCP_HEADER : UDP_HEADER) > length || vnet->csum_offset != (s->tcp ? 16 : 6))
        return -1;
    s->transport = transport;
    s->header = transport + (s->tcp ? (packet[transport + 12] >> 4) * 4u : UDP_HEADER);
    if (s->header < transport + (s->tcp ? TCP_HEADER : UDP_HEADER) || s->header >= length)
        return -1;
    s->size = vnet->gso_size;
    uint16_t partial, whole;
    uint8_t bytes[2];
    memcpy(&partial, packet + s->checksum, 2);
    put16(bytes, length - transport);
    memcpy(&whole, bytes, 2);
    s->partial = (uint64_t)partial + (uint16_t)~whole;
    return 0;
}

size_t segments_peek(const struct segments *s) {
    if (!s->header)
        return s->index ? 0 : s->length;
    size_t left = s->length - s->header - s->offset;
    return left ? s->header + (left < s->size ? left : s->size) : 0;
}

size_t segments_left(const struct segments *s) {
    if (!s->header)
        return !s->index;
    return (s->length - s->header - s->offset + s->size - 1) / s->size;
}

void segments_skip(struct segments *s) {
    if (s->header)
        s->offset += segments_peek(s) - s->header;
    s->index++;
}

static void whole(const struct segments *s, uint8_t *out) {
    memcpy(out, s->packet, s->length);
    if (s->checksum) { /* the field holds the sum of the pseudo-header already */
        uint16_t sum = (uint16_t)~checksum_fold(checksum_add(0, out + s->transport, s->length - s->transport));
        put_checksum(out + s->checksum, sum ? sum : 0xffff);
    }
}

/* Fields that differ from one segment to the next. */
static void adjust(const struct segments *s, uint8_t *out, size_t length) {
    if (s->version == 4) {
        put16(out + 2, length);
        put16(out + 4, get16(out + 4) + (size_t)s->index);
        memset(out + 10, 0, 2);
        put_checksum(out + 10, (uint16_t)~checksum_fold(checksum_add(0, out, s->transport)));
    } else {
        put16(out + 4, length - IP6_HEADER);
    }
    uint8_t *transport = out + s->transport;
    if (s->tcp) {
        int last = s->header + s->offset + (length - s->header) == s->length;
        put32(transport + 4, get32(transport + 4) + (uint32_t)s->offset);
        transport[13] &= (uint8_t) ~((last ? 0 : TCP_FIN | TCP_PSH) | (s->index ? TCP_CWR : 0));
    } else {
        put16(transport + 4, length - s->transport);
    }
}

void segments_next(struct segments *s, uint8_t *out) {
    if (!s->header) {
        whole(s, out);
        segments_skip(s);
        return;
    }
    size_t length = segments_peek(s), payload = length - s->header;
    memcpy(out, s->packet, s->header);
    memcpy(out + s->header, s->packet + s->header + s->offset, payload);
    adjust(s, out, length);
    uint8_t bytes[2];
    put16(bytes, length - s->transport);
    memset(out + s->checksum, 0, 2);
    uint64_t sum = checksum_add(s->partial, bytes, 2);
    uint16_t check = (uint16_t)~checksum_fold(checksum_add(sum, out + s->transport, length - s->transport));
    put_checksum(out + s->checksum, check ? check : 0xffff);
    segments_skip(s);
}
