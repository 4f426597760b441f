/* Frames in packets that open: each is a byte that is added to the packet number, two of length, and the payload. What
 * gets to the TUN has an allowed source, can be cut into whole packets again, and is what was counted. */
#include "common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t packet[MAX_DATAGRAM];
    struct end end;
    double now = 1.0;
    uint64_t number = 0;
    end_begin(&end, 0);
    for (int i = 0; i < 20; i++) /* something to acknowledge */
        path_probe(&end.dp, end.path, 100, now);
    while (size >= 3) {
        size_t length = get16(data + 1);
        number += data[0];
        length = length > size - 3 ? size - 3 : length;
        length = length > 1600 ? 1600 : length;
        size_t sealed = seal(&end, number, data + 3, length, packet);
        unsigned foreign = end.dp.foreign_count;
        uint64_t before = end.path->opened, in = end.path->packets_in;
        datapath_datagrams(&end.dp, packet, sealed, 0, NULL, 0, now);
        if (end.dp.foreign_count > foreign) /* nothing of it was taken */
            CHECK(end.path->opened == before && end.path->packets_in == in);
        end.dp.foreign_count = end.dp.other_count = 0;
        data += 3 + length;
        size -= 3 + length;
        now += 0.001;
        datapath_flush(&end.dp, now);
        check_sent(&end.path->sent);
        CHECK(end.written_packets == end.path->packets_in && end.written_bytes == end.path->bytes_in);
    }
    end_end(&end);
    return 0;
}
