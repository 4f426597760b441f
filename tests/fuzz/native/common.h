/* What the native fuzz targets share: one end of a connection whose keys are known, and what comes out of it.
 *
 * A target is `LLVMFuzzerTestOneInput`; it aborts where its invariant does not hold. */
#ifndef MPQ_FUZZ_COMMON_H
#define MPQ_FUZZ_COMMON_H

#include <stdio.h>
#include <stdlib.h>

#include "datapath.h"
#include "frames.h"

#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition)) {                                                   \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);   \
            abort();                                                          \
        }                                                                     \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct end {
    struct datapath dp;
    struct path *path;
    size_t sent_packets, sent_bytes;    /* UDP payloads */
    size_t written_packets, written_bytes; /* IP packets for the TUN, cut again */
};

static const uint8_t KEY[16] = "sixteen bytes ..", IV[12] = "twelve bytes";
static const uint8_t CID[CID_LENGTH] = "eight...";

static void count_sent(struct datapath *dp) {
    struct end *end = dp->context;
    for (unsigned i = 0; i < dp->run_count; i++) {
        const struct run *run = &dp->runs[i];
        CHECK(run->segment && run->length && run->offset + run->length <= dp->out_used);
        CHECK((run->length + run->segment - 1) / run->segment <= GSO_SEGMENTS && run->length <= GSO_BYTES);
        end->sent_packets += (run->length + run->segment - 1) / run->segment;
        end->sent_bytes += run->length;
    }
    datapath_sent(dp);
}

static void count_written(void *context, const struct vnet *vnet, const struct iovec *parts, int count) {
    static uint8_t frame[MAX_DATAGRAM * 2], out[MAX_DATAGRAM];
    struct end *end = context;
    struct segments s;
    struct ip_view ip;
    size_t length = 0, size;
    for (int i = 0; i < count; i++) {
        memcpy(frame + length, parts[i].iov_base, parts[i].iov_len);
        length += parts[i].iov_len;
    }
    CHECK(segments_begin(&s, vnet, frame, length) == 0);
    while ((size = segments_peek(&s))) {
        segments_next(&s, out);
        CHECK(ip_parse(out, size, &ip) == 0);
        end->written_packets++;
        end->written_bytes += size;
    }
}

static void end_begin(struct end *end, int any_source) {
    static const struct limits limits = {1400, 131072, 0.005, 0.1};
    memset(end, 0, sizeof *end);
    CHECK(datapath_begin(&end->dp, !any_source, count_sent, count_written, end) == 0);
    end->dp.coalescer.tcp = end->dp.coalescer.udp = 1;
    struct path *path = end->path = path_new(NULL, &limits, 0, 0, 1.0);
    CHECK(path);
    path->suite = AES_128_GCM;
    CHECK(header_key_set(&path->send_header, path->suite, KEY) == 0);
    CHECK(header_key_set(&path->receive_header, path->suite, KEY) == 0);
    CHECK(packet_key_set(&path->send, path->suite, KEY, IV, 1) == 0);
    CHECK(packet_key_set(&path->current, path->suite, KEY, IV, 0) == 0);
    path->window = 1 << 20;
    path->ack_delay = 0.001;
    path->pto = path->loss_delay = 0.05;
    path->any_source = any_source;
    if (!any_source) { /* 10.0.0.0/8 */
        uint8_t ten[4] = {10};
        path->allowed = malloc(sizeof *path->allowed);
        *path->allowed = key_make(ten, 4, 8);
        path->allowed_count = 1;
    }
    struct key key = key_make(CID, CID_LENGTH, 8 * CID_LENGTH);
    CHECK(table_set(&end->dp.paths, &key, path) == 0);
    end->dp.only = path;
}

/* The books of what is in flight are those of the ring. */
static void check_sent(const struct sent *s) {
    uint64_t packets = 0, bytes = 0;
    CHECK(s->floor <= s->oldest && s->oldest <= s->next && s->next - s->floor <= s->mask + 1);
    for (uint64_t n = s->floor; n < s->next; n++) {
        const struct sent_packet *p = &s->ring[n & s->mask];
        int in_flight = p->state == 1;
        CHECK(!in_flight || n >= s->oldest);
        packets += (uint64_t)in_flight;
        bytes += in_flight ? p->size : 0;
    }
    CHECK(packets == s->packets && bytes == s->bytes);
}

static void end_end(struct end *end) {
    check_sent(&end->path->sent);
    datapath_forget(&end->dp, end->path);
    path_free(end->path);
    datapath_end(&end->dp);
}

/* A packet for the end with `payload` in it, as its peer would seal it. Returns its length. */
static inline size_t seal(struct end *end, uint64_t number, const uint8_t *payload, size_t length, uint8_t *packet) {
    uint8_t mask[SAMPLE], *p = packet;
    const struct packet_key *key = &end->path->send;
    *p++ = 0x43;
    memcpy(p, CID, CID_LENGTH);
    put32(p + CID_LENGTH, (uint32_t)number);
    p += CID_LENGTH + 4;
    memcpy(p, payload, length);
    CHECK(packet_seal(key, number, packet, 1 + CID_LENGTH + 4, p, length) == 0);
    CHECK(header_masks(&end->path->send_header, p, 1, mask) == 0);
    packet[0] ^= mask[0] & 0x1f;
    for (int i = 0; i < 4; i++)
        packet[1 + CID_LENGTH + i] ^= mask[1 + i];
    return 1 + CID_LENGTH + 4 + length + TAG;
}

#endif
