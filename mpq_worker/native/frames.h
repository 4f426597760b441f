/* The frames that the data path understands: PADDING, PING, ACK, DATAGRAM (RFC 9000 section 19, RFC 9221). */
#ifndef MPQ_FRAMES_H
#define MPQ_FRAMES_H

#include <stddef.h>
#include <stdint.h>

enum { FRAME_PADDING = 0, FRAME_PING = 1, FRAME_ACK = 2, FRAME_DATAGRAM = 0x30, FRAME_DATAGRAM_LENGTH = 0x31 };

struct frame {
    uint8_t type;
    const uint8_t *data; /* of a DATAGRAM its payload; of an ACK what follows the type */
    size_t length;
};

/* Writes a variable-length integer below 2^62 (RFC 9000 section 16); returns the end of it. */
uint8_t *varint_write(uint8_t *p, uint64_t value);

/* Reads one; returns the end of it, or NULL if it is cut short. */
const uint8_t *varint_read(const uint8_t *p, const uint8_t *end, uint64_t *value);

/* Reads the frame at `p`, runs of PADDING as one; returns the end of it, or NULL if it is none that we understand. */
const uint8_t *frame_read(const uint8_t *p, const uint8_t *end, struct frame *frame);

/* Ranges of an ACK frame, newest first. */
struct ack_reader {
    const uint8_t *p, *end;
    uint64_t largest, delay, left, low;
    int first;
};

/* 0, or -1 if it is cut short. */
int ack_begin(struct ack_reader *reader, const struct frame *frame);

/* 1 and the next range, both ends inclusive; 0 at the end; -1 if it is cut short or a number would be negative. */
int ack_next(struct ack_reader *reader, uint64_t *low, uint64_t *high);

#endif
