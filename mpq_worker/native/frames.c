#include "frames.h"

uint8_t *varint_write(uint8_t *p, uint64_t value) {
    int size = value < 0x40 ? 1 : value < 0x4000 ? 2 : value < 0x40000000 ? 4 : 8;
    for (int i = size - 1; i >= 0; i--, value >>= 8)
        p[i] = (uint8_t)value;
    p[0] |= (uint8_t)(size == 1 ? 0 : size == 2 ? 0x40 : size == 4 ? 0x80 : 0xc0);
    return p + size;
}

const uint8_t *varint_read(const uint8_t *p, const uint8_t *end, uint64_t *value) {
    if (p >= end)
        return NULL;
    int size = 1 << (*p >> 6);
    if (end - p < size)
        return NULL;
    *value = *p & 0x3f;
    for (int i = 1; i < size; i++)
        *value = *value << 8 | p[i];
    return p + size;
}

int ack_begin(struct ack_reader *r, const struct frame *frame) {
    r->end = frame->data + frame->length;
    if (!(r->p = varint_read(frame->data, r->end, &r->largest)) || !(r->p = varint_read(r->p, r->end, &r->delay)) ||
        !(r->p = varint_read(r->p, r->end, &r->left)))
        return -1;
    r->left++; /* the first range is not counted */
    r->first = 1;
    return 0;
}

int ack_next(struct ack_reader *r, uint64_t *low, uint64_t *high) {
    uint64_t gap, length;
    if (!r->left)
        return 0;
    if (r->first) {
        *high = r->largest;
        r->first = 0;
    } else {
        if (!(r->p = varint_read(r->p, r->end, &gap)) || gap + 2 > r->low)
            return -1;
        *high = r->low - gap - 2;
    }
    if (!(r->p = varint_read(r->p, r->end, &length)) || length > *high)
        return -1;
    r->low = *low = *high - length;
    r->left--;
    return 1;
}

static const uint8_t *ack_read(const uint8_t *p, const uint8_t *end, struct frame *frame) {
    struct ack_reader reader;
    uint64_t low, high;
    int more;
    frame->data = p;
    frame->length = (size_t)(end - p);
    if (ack_begin(&reader, frame) < 0)
        return NULL;
    while ((more = ack_next(&reader, &low, &high)) > 0) {
    }
    frame->length = more < 0 ? 0 : (size_t)(reader.p - p);
    return more < 0 ? NULL : reader.p;
}

const uint8_t *frame_read(const uint8_t *p, const uint8_t *end, struct frame *frame) {
    uint64_t length;
    frame->type = *p++;
    frame->data = p;
    frame->length = 0;
    switch (frame->type) {
    case FRAME_PADDING:
        while (p < end && *p == FRAME_PADDING)
            p++;
        return p;
    case FRAME_PING:
        return p;
    case FRAME_ACK:
        return ack_read(p, end, frame);
    case FRAME_DATAGRAM:
        frame->length = (size_t)(end - p);
        return end;
    case FRAME_DATAGRAM_LENGTH:
        if (!(p = varint_read(p, end, &length)) || length > (uint64_t)(end - p))
            return NULL;
        frame->data = p;
        frame->length = (size_t)length;
        return p + length;
    default:
        return NULL;
    }
}
