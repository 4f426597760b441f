#include "ip.h"

int ip_parse(const uint8_t *packet, size_t length, struct ip_view *view) {
    if (length < 20)
        return -1;
    view->version = packet[0] >> 4;
    if (view->version == 4) {
        view->header = (uint8_t)((packet[0] & 15) * 4);
        if (get16(packet + 2) != length || view->header < 20 || view->header > length)
            return -1;
        view->address_size = 4;
        view->protocol = packet[9];
        view->source = packet + 12;
        view->destination = packet + 16;
        return 0;
    }
    if (view->version != 6 || length < IP6_HEADER || get16(packet + 4) + (size_t)IP6_HEADER != length)
        return -1;
    view->header = IP6_HEADER;
    view->address_size = 16;
    view->protocol = packet[6];
    view->source = packet + 8;
    view->destination = packet + 24;
    return 0;
}

int ip_is_local(const struct ip_view *view) {
    const uint8_t *d = view->destination;
    if (view->version == 6)
        return d[0] == 0xff || (d[0] == 0xfe && (d[1] & 0xc0) == 0x80);
    return (d[0] & 0xf0) == 0xe0 || (d[0] == 169 && d[1] == 254);
}

uint64_t checksum_add(uint64_t sum, const uint8_t *data, size_t length) {
    uint64_t other = 0;
    while (length >= 32) {
        uint64_t w[4];
        memcpy(w, data, 32);
        sum += (w[0] & 0xffffffff) + (w[0] >> 32) + (w[1] & 0xffffffff) + (w[1] >> 32);
        other += (w[2] & 0xffffffff) + (w[2] >> 32) + (w[3] & 0xffffffff) + (w[3] >> 32);
        data += 32;
        length -= 32;
    }
    sum += other;
    while (length >= 2) {
        uint16_t w;
        memcpy(&w, data, 2);
        sum += w;
        data += 2;
        length -= 2;
    }
    if (length) {
        uint16_t w = 0;
        memcpy(&w, data, 1);
        sum += w;
    }
    return sum;
}

uint16_t checksum_fold(uint64_t sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

uint64_t checksum_pseudo(const struct ip_view *view, uint8_t protocol, size_t length) {
    uint8_t tail[8] = {0, 0, 0, 0, 0, 0, 0, protocol};
    put32(tail, (uint32_t)length);
    uint64_t sum = checksum_add(0, tail, sizeof tail);
    sum = checksum_add(sum, view->source, view->address_size);
    return checksum_add(sum, view->destination, view->address_size);
}
