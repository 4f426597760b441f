/* From IP packets to sealed QUIC packets (RFC 9000 section 17.3, RFC 9001 section 5, RFC 9221):
 *
 *   first byte | connection ID | number (4) | [DATAGRAM with length]* | ACK? or DATAGRAM without length | tag
 *
 * A packet that fills what is left goes without a length, so that full-sized ones are all alike and leave in one
 * UDP_SEGMENT send; small ones share a QUIC packet. Packets are sealed per batch, their header masks made in one call. */
#include <string.h>

#include "datapath.h"
#include "frames.h"

enum { SMALLEST_FRAME = 32, ACK_ROOM = 40, ACK_LARGEST = 1024, CONTEXT_IP = 0 };
static const double QUANTUM = 0.0005; /* the pacer sleeps no shorter, in seconds */
static const double BURST = 0.001;    /* what may leave at once, in seconds of the rate */
static const double DEPTH = 0.002;    /* what the pacer saves up */

static size_t header_length(const struct path *path) { return 1 + path->cid_length + NUMBER_LENGTH; }

static size_t room(const struct datapath *dp) {
    return dp->building->payload - TAG - (size_t)(dp->open_at - dp->open);
}

static int window_open(const struct path *path) {
    return path->sent.bytes + path->elsewhere + path->payload <= path->window && sent_has_room(&path->sent);
}

static void refill(struct path *path, double now) {
    if (path->rate > 0 && now > path->refilled) {
        double depth = path->rate * DEPTH, least = 10.0 * (double)path->payload;
        path->tokens += (now - path->refilled) * path->rate;
        if (path->tokens > (depth > least ? depth : least))
            path->tokens = depth > least ? depth : least;
    }
    path->refilled = now;
}

static int may_send(const struct path *path) { return window_open(path) && (path->rate <= 0 || path->tokens > 0); }

/* Come back when the pacer has something to spend; if it is the window that is closed, an ACK will. */
static void wait(struct datapath *dp, struct path *path, double now) {
    if (path->pace_at == 0 && path_waits(path) && window_open(path) && path->rate > 0) {
        double pause = -path->tokens / path->rate;
        path->pace_at = now + (pause > QUANTUM ? pause : QUANTUM);
        datapath_note(dp, path, 0);
    }
}

static void begin_packet(struct datapath *dp, struct path *path, double now) {
    if (dp->building != path || dp->built_count == BATCH_PACKETS || dp->out_used + path->payload > BATCH_BYTES) {
        batch_seal(dp);
        if (dp->built_count == BATCH_PACKETS || dp->out_used + path->payload > BATCH_BYTES)
            dp->transmit(dp);
    }
    uint8_t *p = dp->out + dp->out_used;
    dp->building = path;
    dp->open = p;
    dp->open_eliciting = dp->open_full = 0;
    *p++ = (uint8_t)(0x40 | path->send_phase << 2 | (NUMBER_LENGTH - 1));
    memcpy(p, path->cid, path->cid_length);
    p[path->cid_length] = (uint8_t)(path->sent.next >> 24);
    p[path->cid_length + 1] = (uint8_t)(path->sent.next >> 16);
    p[path->cid_length + 2] = (uint8_t)(path->sent.next >> 8);
    p[path->cid_length + 3] = (uint8_t)path->sent.next;
    dp->open_at = p + path->cid_length + NUMBER_LENGTH;
}

/* What the peer still has to be told goes along, if there is room. */
static void append_ack(struct datapath *dp, double now) {
    struct path *path = dp->building;
    size_t space = dp->open_full ? 0 : room(dp);
    if (!path->unacked || space < ACK_ROOM)
        return;
    double delay = (now - path->largest_at) * 1e6 / (1 << ACK_DELAY_EXPONENT);
    uint64_t encoded = delay > 0 ? (uint64_t)delay : 0;
    size_t length = received_ack(&path->received, encoded, dp->open_at, space < ACK_LARGEST ? space : ACK_LARGEST);
    if (!length)
        return;
    dp->open_at += length;
    double rate = path->unacked / (now - path->ack_sent > 1e-4 ? now - path->ack_sent : 1e-4), every = rate * path->ack_delay / 2;
    path->ack_every = every < 2 ? 2 : every > ACK_EVERY_MAX ? ACK_EVERY_MAX : (unsigned)every;
    path->ack_sent = now;
    path->unacked = 0;
    path->ack_gap = 0;
    path->ack_at = 0;
}

static void extend_runs(struct datapath *dp, struct path *path, size_t size) {
    struct run *run = dp->run_count ? &dp->runs[dp->run_count - 1] : NULL;
    size_t burst = GSO_BYTES;
    if (path->rate > 0 && path->rate * BURST < (double)burst)
        burst = path->rate * BURST > 2.0 * (double)path->payload ? (size_t)(path->rate * BURST) : 2 * path->payload;
    if (run && run->path == path && size <= run->segment && run->length % run->segment == 0 &&
        run->length + size <= burst && run->length / run->segment < GSO_SEGMENTS) {
        run->length += size;
        return;
    }
    dp->runs[dp->run_count++] = (struct run){path, dp->out_used, size, size};
}

static void close_packet(struct datapath *dp, enum owner owner, double now) {
    struct path *path = dp->building;
    if (!dp->open)
        return;
    append_ack(dp, now);
    size_t length = (size_t)(dp->open_at - dp->open), size = length + TAG;
    if (length == header_length(path)) { /* there was nothing to acknowledge */
        dp->open = dp->open_at = NULL;
        path->unacked = 0;
        path->ack_at = 0;
        return;
    }
    if (path->sent.bytes + path->elsewhere + 2 * path->payload >= path->window)
        path->window_filled = 1;
    if (dp->open_eliciting && !path->sent.packets)
        datapath_note(dp, path, EVENT_FLIGHT);
    dp->built[dp->built_count++] = (struct built){dp->out_used, length, path->sent.next};
    sent_add(&path->sent, dp->open_eliciting ? (uint32_t)size : 0, now, !path_waits(path), owner);
    extend_runs(dp, path, size);
    dp->out_used += size;
    dp->open = dp->open_at = NULL;
    if (dp->open_eliciting) /* acknowledgements are not paced, nor does anything wait for them (RFC 9002 section 7.7) */
        path->tokens -= (double)size;
    if (dp->open_eliciting && path->asked == 0)
        path->asked = now;
}

/* Header protection of `count` <= MASK_BATCH sealed packets (RFC 9001 section 5.4). */
static int protect(struct datapath *dp, const struct path *path, const struct built *built, size_t count) {
    uint8_t samples[MASK_BATCH * SAMPLE], masks[MASK_BATCH * SAMPLE];
    size_t number_at = 1 + path->cid_length;
    for (size_t i = 0; i < count; i++)
        memcpy(samples + i * SAMPLE, dp->out + built[i].offset + number_at + 4, SAMPLE);
    if (header_masks(&path->send_header, samples, count, masks) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        uint8_t *packet = dp->out + built[i].offset;
        const uint8_t *mask = masks + i * SAMPLE;
        packet[0] ^= mask[0] & 0x1f;
        for (int k = 0; k < NUMBER_LENGTH; k++)
            packet[number_at + (size_t)k] ^= mask[1 + k];
    }
    return 0;
}

void batch_seal(struct datapath *dp) {
    struct path *path = dp->building;
    close_packet(dp, LOOP, dp->now);
    unsigned first = dp->sealed_count, count = dp->built_count - first;
    dp->sealed_count = dp->built_count;
    dp->building = NULL;
    for (unsigned i = 0; i < count; i++) {
        const struct built *built = &dp->built[first + i];
        uint8_t *packet = dp->out + built->offset;
        size_t header = header_length(path);
        if (packet_seal(&path->send, built->number, packet, header, packet + header, built->length - header) < 0) {
            memset(packet, 0, built->length + TAG); /* never in clear */
            dp->drops[DROP_SOCKET]++;
        }
        path->sealed++;
    }
    for (unsigned i = 0; i < count; i += MASK_BATCH) {
        size_t some = count - i < MASK_BATCH ? count - i : MASK_BATCH;
        if (protect(dp, path, &dp->built[first + i], some) < 0)
            dp->drops[DROP_SOCKET] += some;
    }
}

/* Puts one DATAGRAM frame of a context byte and `size` bytes more into the open packet; returns where these go. */
static uint8_t *append(struct datapath *dp, uint8_t context, size_t size) {
    dp->open_eliciting = 1;
    dp->open_full = room(dp) < 4 + size + SMALLEST_FRAME;
    uint8_t *p = dp->open_at;
    *p++ = dp->open_full ? FRAME_DATAGRAM : FRAME_DATAGRAM_LENGTH;
    if (!dp->open_full)
        p = varint_write(p, 1 + size);
    *p++ = context;
    dp->open_at = p + size;
    return p;
}

int path_put(struct datapath *dp, struct path *path, struct segments *s, double now) {
    size_t size;
    refill(path, now);
    while ((size = segments_peek(s))) {
        if (size > path->inner_mtu) {
            segments_skip(s);
            dp->drops[DROP_TOO_BIG]++;
            continue;
        }
        int fits = dp->open && dp->building == path && !dp->open_full && room(dp) >= 2 + size;
        if (!fits) {
            close_packet(dp, LOOP, now);
            if (!may_send(path))
                return 0;
            begin_packet(dp, path, now);
        }
        segments_next(s, append(dp, CONTEXT_IP, size));
        path->packets_out++;
        path->bytes_out += size;
        dp->packets_out++;
        dp->bytes_out += size;
    }
    return 1;
}

static void put_messages(struct datapath *dp, struct path *path, double now) {
    for (unsigned i = 0; i < path->message_count; i++) {
        size_t size = path->message_length[i];
        if (!(dp->open && dp->building == path && !dp->open_full && room(dp) >= 4 + size)) {
            close_packet(dp, LOOP, now);
            begin_packet(dp, path, now);
        }
        memcpy(append(dp, path->messages[i][0], size - 1), path->messages[i] + 1, size - 1);
    }
    path->message_count = 0;
}

void path_pump(struct datapath *dp, struct path *path, double now) {
    struct item *item;
    path->pace_at = 0;
    refill(path, now);
    put_messages(dp, path, now);
    while (may_send(path) && (item = queue_head(&path->queue, now))) {
        if (!path_put(dp, path, &item->segments, now))
            break;
        queue_pop(&path->queue);
    }
    wait(dp, path, now);
}

void path_acknowledge(struct datapath *dp, struct path *path, double now) {
    if (path->unacked) {
        close_packet(dp, LOOP, now);
        begin_packet(dp, path, now);
        close_packet(dp, LOOP, now);
    }
}

int64_t path_probe(struct datapath *dp, struct path *path, size_t size, double now) {
    if (!sent_has_room(&path->sent) || size > MAX_DATAGRAM)
        return -1;
    close_packet(dp, LOOP, now);
    size_t payload = path->payload;
    double tokens = path->tokens; /* what a probe takes is nobody's */
    path->payload = size;         /* for begin_packet to make room */
    begin_packet(dp, path, now);
    path->payload = payload;
    size_t padding = size - TAG - (size_t)(dp->open_at - dp->open);
    memset(dp->open_at, FRAME_PADDING, padding);
    dp->open_at[0] = FRAME_PING;
    dp->open_at += padding;
    dp->open_eliciting = dp->open_full = 1;
    int64_t number = (int64_t)path->sent.next;
    close_packet(dp, PROBE, now);
    begin_packet(dp, path, now); /* what is acknowledged after it tells that it was lost */
    *dp->open_at++ = FRAME_PING;
    dp->open_eliciting = dp->open_full = 1;
    close_packet(dp, LOOP, now);
    path->tokens = tokens;
    return number;
}
