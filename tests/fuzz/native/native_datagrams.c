/* UDP payloads of anybody: two bytes of segment size, one that says where the connection's ID is put, then the payload.
 * Each datagram is opened, dropped and counted, or left to Python as it came. */
#include "common.h"

static uint64_t dropped(const struct datapath *dp) {
    uint64_t sum = 0;
    for (int i = 0; i < DROPS; i++)
        sum += dp->drops[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t copy[MAX_DATAGRAM];
    if (size < 4 || size > MAX_DATAGRAM)
        return 0;
    struct end end;
    end_begin(&end, 1);
    size_t segment = get16(data), length = size - 3;
    memcpy(copy, data + 3, length);
    size_t step = segment ? segment : length;
    for (size_t at = 0; data[2] & 1 && at + 1 + CID_LENGTH <= length; at += step)
        memcpy(copy + at + 1, CID, CID_LENGTH);
    size_t datagrams = segment && segment < length ? (length + segment - 1) / segment : 1;
    datapath_datagrams(&end.dp, copy, length, segment, NULL, 0, 1.0);
    for (unsigned i = 0; i < end.dp.foreign_count; i++) {
        const struct foreign *f = &end.dp.foreign[i];
        CHECK(f->data >= copy && f->data + f->length <= copy + length);
    }
    CHECK(end.path->opened == 0);
    CHECK(end.dp.foreign_count + dropped(&end.dp) == datagrams);
    datapath_flush(&end.dp, 1.0);
    CHECK(end.written_packets == 0);
    end_end(&end);
    return 0;
}
