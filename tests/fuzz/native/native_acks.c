/* Packets leave, time passes, and acknowledgements of any ranges come: the books balance at every step. */
#include "common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct sent s;
    struct ack_reader ack;
    uint64_t low, high, acked = 0, lost = 0, spurious = 0;
    double now = 1.0;
    CHECK(sent_begin(&s, size ? data[0] : 0, 0, now) == 0);
    for (const uint8_t *p = data + !!size, *end = data + size; p < end;) {
        unsigned what = *p++;
        if (what & 0x80) { /* an ACK frame of `what & 0x7f` bytes */
            size_t length = what & 0x7f, left = (size_t)(end - p);
            struct frame frame = {FRAME_ACK, p, length < left ? length : left};
            p += frame.length;
            if (ack_begin(&ack, &frame) == 0 && ack.largest < s.next) {
                while (ack_next(&ack, &low, &high) > 0)
                    sent_acked(&s, low, high, now);
                sent_settle(&s, ack.largest, 0.0, 0.05, now);
            }
        } else if (what & 0x40) { /* time */
            now += (what & 0x3f) / 100.0;
            sent_detect_loss(&s, 0.05, now);
        } else if (what & 0x20) { /* Python sends */
            sent_elsewhere(&s, s.next + (what & 7), 100, now);
            s.note_count = 0;
        } else {
            for (unsigned i = 0; i < (1u << (what & 15)) && sent_has_room(&s); i++)
                sent_add(&s, what & 16 ? 0 : 100 + (uint32_t)i % 50, now, 0, 0);
        }
        struct ack_summary summary = sent_take(&s);
        acked += summary.acked;
        lost += summary.lost;
        spurious += summary.spurious;
        CHECK(summary.newest < (int64_t)s.next && summary.rtt >= 0);
        CHECK(lost >= spurious && acked + lost - spurious + s.packets <= s.count);
    }
    check_sent(&s);
    sent_end(&s);
    return 0;
}
