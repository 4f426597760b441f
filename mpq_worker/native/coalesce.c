#include "coalesce.h"

enum { TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_ACK = 0x10, TCP_ECE = 0x40 };
enum kind { UNKNOWN, ALONE, JOINS }; /* no flow can be told; of a flow, but not to be joined; may be joined */

void coalesce_begin(struct coalescer *c, emit_fn *emit, void *context) {
    memset(c, 0, sizeof *c);
    c->emit = emit;
    c->context = context;
    for (int i = 0; i < COALESCE_FLOWS; i++)
        c->order[i] = &c->bunches[i];
}

/* Fills `b` with the packet as the first of its kind. */
static enum kind classify(struct bunch *b, uint8_t *packet, size_t length, const struct ip_view *ip,
                          const struct coalescer *c) {
    int tcp = ip->protocol == PROTO_TCP;
    if (!(tcp ? c->tcp : ip->protocol == PROTO_UDP && c->udp))
        return UNKNOWN;
    if (ip->version == 4 && (get16(packet + 6) & 0x3fff)) /* a fragment */
        return UNKNOWN;
    size_t transport = ip->header, header = transport + (tcp ? TCP_HEADER : UDP_HEADER);
    if (header > length)
        return UNKNOWN;
    b->ip = *ip;
    b->head = packet;
    b->transport = transport;
    b->length = length;
    b->closed = 0;
    const uint8_t *t = packet + transport;
    if (tcp) {
        header = transport + (t[12] >> 4) * 4u;
        if (header < transport + TCP_HEADER || header > length)
            return ALONE;
        if ((t[13] & (uint8_t) ~(TCP_FIN | TCP_PSH | TCP_ECE)) != TCP_ACK || get16(t + 18))
            return ALONE;
        b->closed = t[13] & (TCP_FIN | TCP_PSH);
    } else if (get16(t + 6) == 0 || get16(t + 4) != length - transport) {
        return ALONE;
    }
    if (header == length || (ip->version == 4 && transport != 20))
        return ALONE;
    if (ip->version == 4 && checksum_fold(checksum_add(0, packet, transport)) != 0xffff)
        return ALONE;
    uint64_t sum = checksum_pseudo(ip, ip->protocol, length - transport);
    if (checksum_fold(checksum_add(sum, t, length - transport)) != 0xffff)
        return ALONE;
    b->header = header;
    b->size = length - header;
    b->next_sequence = tcp ? get32(t + 4) + (uint32_t)b->size : 0;
    b->parts[0] = (struct iovec){packet, length};
    b->count = 1;
    return JOINS;
}

static int same_flow(const struct bunch *a, const struct bunch *b) {
    return a->ip.version == b->ip.version && a->ip.protocol == b->ip.protocol &&
           !memcmp(a->ip.source, b->ip.source, 2u * a->ip.address_size) &&
           !memcmp(a->head + a->transport, b->head + b->transport, 4);
}

/* Whether the kernel, cutting `a` with `b` behind it, would make `b` again. */
static int follows(const struct bunch *a, const struct bunch *b) {
    const uint8_t *p = a->head, *q = b->head;
    if (a->closed || a->header != b->header || b->size > a->size || a->count == COALESCE_PARTS ||
        a->length + b->size > COALESCE_MAX)
        return 0;
    if (a->ip.version == 4) {
        uint16_t identification = (uint16_t)(get16(p + 4) + a->count);
        if (p[1] != q[1] || memcmp(p + 6, q + 6, 3) || identification != get16(q + 4))
            return 0;
    } else if (memcmp(p, q, 4) || p[7] != q[7]) {
        return 0;
    }
    if (a->ip.protocol == PROTO_UDP)
        return 1;
    p += a->transport;
    q += b->transport;
    /* acknowledgement, data offset, window and options are equal; of the flags, all but FIN and PSH */
    return a->next_sequence == get32(q + 4) && !memcmp(p + 8, q + 8, 5) && !((p[13] ^ q[13]) & ~(TCP_FIN | TCP_PSH)) &&
           !memcmp(p + 14, q + 14, 2) &&
           !memcmp(p + TCP_HEADER, q + TCP_HEADER, a->header - a->transport - TCP_HEADER);
}

static void join(struct bunch *a, const struct bunch *b) {
    a->parts[a->count++] = (struct iovec){b->head + b->header, b->size};
    a->length += b->size;
    a->next_sequence = b->next_sequence;
    a->closed = b->closed || b->size < a->size;
    if (a->ip.protocol == PROTO_TCP) /* FIN and PSH: the kernel gives them to the last segment */
        a->head[a->transport + 13] |= b->head[b->transport + 13];
}

static void emit(struct coalescer *c, struct bunch *b) {
    struct vnet vnet = {0};
    if (b->count > 1) {
        int tcp = b->ip.protocol == PROTO_TCP;
        vnet.flags = VNET_NEEDS_CSUM;
        vnet.gso_type = !tcp ? GSO_UDP_L4 : b->ip.version == 4 ? GSO_TCP4 : GSO_TCP6;
        vnet.header = (uint16_t)b->header;
        vnet.gso_size = (uint16_t)b->size;
        vnet.csum_start = (uint16_t)b->transport;
        vnet.csum_offset = tcp ? 16 : 6;
        if (b->ip.version == 4) {
            put16(b->head + 2, b->length);
            memset(b->head + 10, 0, 2);
            put_checksum(b->head + 10, (uint16_t)~checksum_fold(checksum_add(0, b->head, b->transport)));
        } else {
            put16(b->head + 4, b->length - IP6_HEADER);
        }
        if (!tcp)
            put16(b->head + b->transport + 4, b->length - b->transport);
        uint64_t sum = checksum_pseudo(&b->ip, b->ip.protocol, b->length - b->transport);
        put_checksum(b->head + b->transport + vnet.csum_offset, checksum_fold(sum));
    }
    c->emit(c->context, &vnet, b->parts, b->count);
}

/* Emits the bunch at `index` and makes it the last of the free ones, behind those in use in order of their beginnings. */
static void release(struct coalescer *c, int index) {
    struct bunch *b = c->order[index];
    emit(c, b);
    memmove(&c->order[index], &c->order[index + 1], sizeof c->order[0] * (size_t)(COALESCE_FLOWS - index - 1));
    c->order[COALESCE_FLOWS - 1] = b;
    c->used--;
}

void coalesce_flush(struct coalescer *c) {
    for (int i = 0; i < c->used; i++)
        emit(c, c->order[i]);
    c->used = 0;
}

void coalesce_add(struct coalescer *c, uint8_t *packet, size_t length, const struct ip_view *ip) {
    if (c->used == COALESCE_FLOWS)
        release(c, 0);
    struct bunch *b = c->order[c->used];
    enum kind kind = classify(b, packet, length, ip, c);
    if (kind == UNKNOWN) { /* it may be of any flow */
        coalesce_flush(c);
    } else {
        for (int i = 0; i < c->used; i++) {
            if (!same_flow(c->order[i], b))
                continue;
            if (kind == JOINS && follows(c->order[i], b)) {
                join(c->order[i], b);
                return;
            }
            release(c, i);
            break;
        }
    }
    if (kind == JOINS) {
        c->used++;
        return;
    }
    struct vnet plain = {0};
    struct iovec part = {packet, length};
    c->emit(c->context, &plain, &part, 1);
}
