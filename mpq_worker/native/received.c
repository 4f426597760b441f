#include "received.h"

#include <string.h>

#include "frames.h"

void received_begin(struct received *r) {
    memset(r, 0, sizeof *r);
    r->largest = -1;
}

static int test(const struct received *r, uint64_t number) {
    return (int)(r->bits[number % RECEIVED_WINDOW / 64] >> (number % 64) & 1);
}

int received_has(const struct received *r, uint64_t number) {
    if ((int64_t)number > r->largest)
        return 0;
    return (uint64_t)r->largest - number >= RECEIVED_WINDOW || test(r, number);
}

/* Forgets the numbers a window below `from` ... `to`. */
static void clear(struct received *r, uint64_t from, uint64_t to) {
    if (to - from >= RECEIVED_WINDOW - 1) {
        memset(r->bits, 0, sizeof r->bits);
        return;
    }
    for (uint64_t n = from; n <= to;) {
        uint64_t *word = &r->bits[n % RECEIVED_WINDOW / 64];
        if (n % 64 == 0 && to - n >= 63) {
            *word = 0;
            n += 64;
        } else {
            *word &= ~((uint64_t)1 << (n % 64));
            n++;
        }
    }
}

int received_add(struct received *r, uint64_t number) {
    int64_t before = r->largest;
    int gap = (int64_t)number != before + 1;
    if ((int64_t)number > before) {
        clear(r, (uint64_t)(before + 1), number);
        r->largest = (int64_t)number;
    }
    r->bits[number % RECEIVED_WINDOW / 64] |= (uint64_t)1 << (number % 64);
    return gap;
}

/* The end, towards zero, of the run of `value` that begins at `number`: the first number below that differs, or `floor` - 1. */
static int64_t run(const struct received *r, int64_t number, int64_t floor, int value) {
    while (number >= floor) {
        uint64_t word = r->bits[(uint64_t)number % RECEIVED_WINDOW / 64];
        if (!value)
            word = ~word;
        int bit = (int)(number % 64);
        uint64_t differs = ~word << (63 - bit); /* the highest set bit is the nearest number that differs */
        if (differs) {
            number -= __builtin_clzll(differs);
            break;
        }
        number -= bit + 1;
    }
    return number < floor ? floor - 1 : number;
}

size_t received_ack(const struct received *r, uint64_t delay, uint8_t *out, size_t room) {
    uint8_t *p = out, *end = out + room;
    if (r->largest < 0 || room < 1 + 8 + 8 + 2 + 8)
        return 0;
    int64_t floor = r->largest - (RECEIVED_WINDOW - 1) < 0 ? 0 : r->largest - (RECEIVED_WINDOW - 1);
    int64_t high = r->largest, low = run(r, high, floor, 1) + 1;
    *p++ = FRAME_ACK;
    p = varint_write(p, (uint64_t)high);
    p = varint_write(p, delay);
    uint8_t *count = p; /* always two bytes */
    p = varint_write(p + 2, (uint64_t)(high - low));
    uint64_t ranges = 0;
    while (end - p >= 16 && low > floor) {
        high = run(r, low - 1, floor, 0);
        if (high < floor)
            break;
        p = varint_write(p, (uint64_t)(low - high - 2));
        low = run(r, high, floor, 1) + 1;
        p = varint_write(p, (uint64_t)(high - low));
        ranges++;
    }
    count[0] = (uint8_t)(0x40 | ranges >> 8);
    count[1] = (uint8_t)ranges;
    return (size_t)(p - out);
}
