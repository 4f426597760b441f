/* A virtio header that may lie, and a packet: refused, or cut into whole packets that have all of its payload; and all
 * that leaves fits the path. */
#include "common.h"

static void cut(const struct vnet *vnet, const uint8_t *packet, size_t length) {
    static uint8_t out[MAX_DATAGRAM];
    struct segments s;
    struct ip_view ip;
    size_t size, payload = 0, pieces = 0;
    if (segments_begin(&s, vnet, packet, length) < 0)
        return;
    size_t expected = segments_left(&s), header = s.header;
    while ((size = segments_peek(&s))) {
        CHECK(size <= length && pieces < expected);
        segments_next(&s, out);
        CHECK(ip_parse(out, size, &ip) == 0);
        CHECK(size > header && !(header && memcmp(out + header, packet + header + payload, size - header)));
        payload += size - header;
        pieces++;
    }
    CHECK(pieces == expected && payload == length - header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t packet[MAX_DATAGRAM];
    struct vnet vnet;
    if (size < VNET_HEADER + 1 || size - VNET_HEADER > MAX_DATAGRAM)
        return 0;
    memcpy(&vnet, data, VNET_HEADER);
    size_t length = size - VNET_HEADER;
    memcpy(packet, data + VNET_HEADER, length);
    /* a length that is right, lest most inputs end there */
    if (length >= 20 && packet[0] >> 4 == 4)
        put16(packet + 2, length);
    else if (length >= 40 && packet[0] >> 4 == 6)
        put16(packet + 4, length - 40);
    cut(&vnet, packet, length);
    struct end end;
    end_begin(&end, 1);
    end.path->window = 20000; /* some has to wait */
    datapath_frame(&end.dp, &vnet, packet, length, 1.0);
    datapath_flush(&end.dp, 1.0);
    CHECK(end.sent_bytes <= end.sent_packets * end.path->payload);
    CHECK(end.path->sent.bytes <= end.path->window);
    end_end(&end);
    return 0;
}
