/* Packet numbers come, each two bytes and a step: a number counts once, and an ACK frame tells of these and no others. */
#include "common.h"

enum { SPACE = 1 << 17 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t came[SPACE], out[2048];
    struct received r;
    struct frame frame;
    struct ack_reader ack;
    uint64_t low, high, base = 0;
    received_begin(&r);
    memset(came, 0, sizeof came);
    for (size_t i = 0; i + 3 <= size; i += 3) {
        uint64_t number = (base + get16(data + i)) % SPACE;
        base = data[i + 2] & 1 ? number : base;
        if (received_has(&r, number)) {
            CHECK(came[number] || number + RECEIVED_WINDOW <= (uint64_t)r.largest);
            continue;
        }
        CHECK(!came[number]);
        received_add(&r, number);
        came[number] = 1;
        CHECK(received_has(&r, number));
    }
    size_t room = size ? 27 + data[0] * 7u : 27, length = received_ack(&r, 5, out, room);
    CHECK(length <= room);
    if (length) {
        CHECK(frame_read(out, out + length, &frame) == out + length && frame.type == FRAME_ACK);
        CHECK(ack_begin(&ack, &frame) == 0 && ack.largest == (uint64_t)r.largest && ack.delay == 5);
        uint64_t below = SPACE;
        while (ack_next(&ack, &low, &high) > 0) {
            for (uint64_t n = high + 1; n < below; n++)
                CHECK(!came[n] || n > (uint64_t)r.largest);
            for (uint64_t n = low; n <= high; n++)
                CHECK(came[n]);
            below = low;
        }
    }
    return 0;
}
