/* From a UDP payload to IP packets: header protection, key, replay, frames (RFC 9001 section 5, RFC 9000 section 12).
 *
 * A packet with any frame but PADDING, PING, ACK and DATAGRAM, or from another address, is Python's: nothing of it is
 * taken, and its bytes were not touched. */
#include <openssl/crypto.h>
#include <string.h>

#include "datapath.h"
#include "frames.h"

enum { CONTEXT_IP = 0, RESERVED_BITS = 0x18, PHASE_BIT = 4, KEPT_PTOS = 3 };

/* The full number (RFC 9000 appendix A.3). */
static uint64_t decode_number(uint64_t truncated, unsigned bits, uint64_t expected) {
    uint64_t window = (uint64_t)1 << bits, half = window / 2;
    uint64_t number = (expected & ~(window - 1)) | truncated;
    if (number + half <= expected && number < ((uint64_t)1 << 62) - window)
        return number + window;
    if (number > expected + half && number >= window)
        return number - window;
    return number;
}

/* The key for a packet (RFC 9001 section 6.5); NULL where it is gone or not known yet. */
static const struct packet_key *choose(const struct path *path, int phase, uint64_t number, double now) {
    const struct packet_key *key = &path->next;
    if (phase == path->receive_phase)
        key = &path->current;
    else if ((int64_t)number < path->phase_start)
        key = now <= path->previous_until ? &path->previous : NULL;
    return key && key->context ? key : NULL;
}

void path_advance(struct datapath *dp, struct path *path, uint64_t number, double now) {
    packet_key_clear(&path->previous);
    path->previous = path->current;
    path->current = path->next;
    memset(&path->next, 0, sizeof path->next);
    path->previous_until = now + KEPT_PTOS * path->pto;
    path->receive_phase ^= 1;
    path->phase_start = (int64_t)number;
    datapath_note(dp, path, EVENT_PHASE);
}

/* 1 if all frames are ours to handle. A second ACK in one packet is not: the work would be the peer's to choose. */
static int understand(const struct path *path, const uint8_t *p, const uint8_t *end) {
    struct frame frame;
    struct ack_reader ack;
    int acks = 0;
    if (p == end)
        return 0;
    while (p < end) {
        if (!(p = frame_read(p, end, &frame)))
            return 0;
        if (frame.type == FRAME_ACK && (acks++ || ack_begin(&ack, &frame) < 0 || ack.largest >= path->sent.next))
            return 0;
    }
    return 1;
}

static void take_ack(struct datapath *dp, struct path *path, const struct frame *frame, double now) {
    struct ack_reader ack;
    uint64_t low, high;
    if (ack_begin(&ack, frame) < 0)
        return;
    while (ack_next(&ack, &low, &high) > 0 && high >= path->sent.floor)
        sent_acked(&path->sent, low, high, now);
    double delay = ack.delay < 1 << 24 ? (double)(ack.delay << ACK_DELAY_EXPONENT) / 1e6 : 1.0;
    sent_settle(&path->sent, ack.largest, delay, path->loss_delay, now);
    datapath_note(dp, path, EVENT_ACK);
}

static int source_allowed(const struct path *path, const struct ip_view *ip) {
    for (size_t i = 0; i < path->allowed_count; i++) {
        const struct key *allowed = &path->allowed[i];
        if (allowed->size != ip->address_size)
            continue;
        struct key source = key_make(ip->source, ip->address_size, allowed->prefix);
        if (!memcmp(source.bytes, allowed->bytes, sizeof source.bytes))
            return 1;
    }
    return path->any_source;
}

static void deliver(struct datapath *dp, struct path *path, uint8_t *packet, size_t length) {
    struct ip_view ip;
    if (!path->any_source && !path->allowed_count) {
        dp->drops[DROP_UNAUTHENTICATED]++;
    } else if (ip_parse(packet, length, &ip) < 0) {
        dp->drops[DROP_NOT_IP]++;
    } else if (!source_allowed(path, &ip)) {
        dp->drops[DROP_SOURCE]++;
        if (!path->foreign_told) {
            path->foreign_told = 1;
            path->foreign_size = ip.address_size;
            memcpy(path->foreign_source, ip.source, ip.address_size);
            datapath_note(dp, path, EVENT_SOURCE);
        }
    } else {
        path->packets_in++;
        path->bytes_in += length;
        dp->packets_in++;
        dp->bytes_in += length;
        coalesce_add(&dp->coalescer, packet, length, &ip);
    }
}

static void take_datagram(struct datapath *dp, struct path *path, const struct frame *frame) {
    if (frame->length == 0)
        dp->drops[DROP_EMPTY]++;
    else if (frame->data[0] == CONTEXT_IP)
        deliver(dp, path, (uint8_t *)frame->data + 1, frame->length - 1); /* it lies in our own buffer */
    else if (frame->length > MAX_MESSAGE)
        dp->drops[DROP_UNKNOWN_CONTEXT]++;
    else if (dp->other_count == MAX_OTHER)
        dp->drops[DROP_LIMIT]++;
    else {
        struct other *other = &dp->other[dp->other_count++];
        other->path = path;
        other->length = frame->length;
        memcpy(other->data, frame->data, frame->length);
    }
}

static void record(struct datapath *dp, struct path *path, uint64_t number, int eliciting, double now) {
    if ((int64_t)number > path->received.largest)
        path->largest_at = now;
    int gap = received_add(&path->received, number);
    path->opened++;
    if (path->first < 0)
        path->first = (int64_t)number;
    path->heard = now;
    path->asked = 0;
    if (!eliciting)
        return;
    path->ack_gap |= gap;
    if (!path->unacked++) {
        path->ack_at = now + path->ack_delay;
        datapath_note(dp, path, 0);
    }
}

int path_open(struct datapath *dp, struct path *path, const uint8_t *data, size_t length, const uint8_t *mask,
              const uint8_t *remote, size_t remote_length, double now) {
    uint8_t header[1 + CID_LENGTH + NUMBER_LENGTH];
    header[0] = data[0] ^ (mask[0] & 0x1f);
    size_t number_length = (header[0] & 3) + 1u, header_length = 1 + CID_LENGTH + number_length;
    memcpy(header + 1, data + 1, CID_LENGTH + number_length);
    uint64_t number = 0;
    for (size_t i = 0; i < number_length; i++) {
        header[1 + CID_LENGTH + i] ^= mask[1 + i];
        number = number << 8 | header[1 + CID_LENGTH + i];
    }
    number = decode_number(number, 8 * (unsigned)number_length, (uint64_t)(path->received.largest + 1));
    const struct packet_key *key = choose(path, (header[0] & PHASE_BIT) != 0, number, now);
    if (!key)
        return 0;
    if (dp->plain_used + length > PLAIN_BYTES) {
        coalesce_flush(&dp->coalescer);
        dp->plain_used = 0;
    }
    uint8_t *plain = dp->plain + dp->plain_used;
    if (packet_open(key, number, header, header_length, data + header_length, length - header_length, plain) < 0) {
        path->failed++;
        if (path->has_reset_token && !CRYPTO_memcmp(data + length - RESET_TOKEN, path->reset_token, RESET_TOKEN))
            return 0;
        dp->drops[DROP_UNOPENED]++;
        return 1;
    }
    if (received_has(&path->received, number)) { /* only now: a guessed number must not show by time, RFC 9001 9.5 */
        dp->drops[DROP_DUPLICATE]++;
        return 1;
    }
    const uint8_t *p = plain, *end = plain + length - header_length - TAG;
    int elsewhere = path->remote_length && (remote_length != path->remote_length || memcmp(remote, path->remote, remote_length));
    if (elsewhere || (header[0] & RESERVED_BITS) || !understand(path, p, end))
        return 0;
    if (key == &path->next)
        path_advance(dp, path, number, now);
    dp->plain_used += length;
    int eliciting = 0;
    struct frame frame;
    while (p < end) {
        p = frame_read(p, end, &frame);
        eliciting |= frame.type != FRAME_PADDING && frame.type != FRAME_ACK;
        if (frame.type == FRAME_ACK)
            take_ack(dp, path, &frame, now);
        else if (frame.type == FRAME_DATAGRAM || frame.type == FRAME_DATAGRAM_LENGTH)
            take_datagram(dp, path, &frame);
    }
    record(dp, path, number, eliciting, now);
    return 1;
}
