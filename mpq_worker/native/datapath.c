#include "datapath.h"

#include <stdlib.h>
#include <string.h>

static const double TELL_DELAY = 0.002; /* below it a model of the path has nothing new to say, and Python takes its time */

int datapath_begin(struct datapath *dp, int hub, transmit_fn *transmit, emit_fn *emit, void *context) {
    memset(dp, 0, sizeof *dp);
    dp->hub = hub;
    dp->transmit = transmit;
    dp->context = context;
    coalesce_begin(&dp->coalescer, emit, context);
    dp->out = malloc(BATCH_BYTES + MAX_DATAGRAM);
    dp->plain = malloc(PLAIN_BYTES + MAX_DATAGRAM);
    if (dp->out && dp->plain)
        return 0;
    datapath_end(dp);
    return -1;
}

void datapath_end(struct datapath *dp) {
    free(dp->out);
    free(dp->plain);
    free(dp->busy);
    table_end(&dp->paths);
    table_end(&dp->routes);
    memset(dp, 0, sizeof *dp);
}

void datapath_sent(struct datapath *dp) {
    dp->out_used = 0;
    dp->built_count = dp->sealed_count = dp->run_count = 0;
}

/* When Python is to be told of what `path` has for it; 0: nothing. A window that nobody fills has time. */
static double tell_at(const struct path *path) {
    int soon = path->window_filled || path_waits(path) || path->tell_delay < TELL_DELAY;
    return path->event_at == 0 ? 0 : path->event_at + (soon ? TELL_DELAY : path->tell_delay);
}

void datapath_note(struct datapath *dp, struct path *path, unsigned events) {
    path->events |= events;
    if (events & (EVENT_PHASE | EVENT_SOURCE))
        dp->attention = 1;
    else if (events && path->event_at == 0)
        path->event_at = dp->now;
    if (path->index >= 0)
        return;
    if (dp->busy_count == dp->busy_size) {
        int size = dp->busy_size ? 2 * dp->busy_size : 16;
        struct path **busy = realloc(dp->busy, (size_t)size * sizeof *busy);
        if (!busy)
            return; /* its next packet tries again */
        dp->busy = busy;
        dp->busy_size = size;
    }
    path->index = dp->busy_count;
    dp->busy[dp->busy_count++] = path;
}

static void make_idle(struct datapath *dp, struct path *path) {
    struct path *last = dp->busy[--dp->busy_count];
    dp->busy[path->index] = last;
    last->index = path->index;
    path->index = -1;
}

/* Takes away what still points to `path`. A removal moves the entries behind it, so a place is looked at until it is clean. */
static void purge(struct datapath *dp, const struct path *path) {
    for (size_t i = 0; dp->paths.entries && i <= dp->paths.mask; i++)
        while (dp->paths.entries[i].value == path) {
            struct key key = dp->paths.entries[i].key;
            table_remove(&dp->paths, &key);
        }
    for (size_t i = 0; dp->routes.entries && i <= dp->routes.mask; i++)
        while (dp->routes.entries[i].value == path) {
            struct key key = dp->routes.entries[i].key;
            datapath_route(dp, &key, NULL);
        }
}

void datapath_forget(struct datapath *dp, struct path *path) {
    unsigned kept = 0;
    purge(dp, path);
    batch_seal(dp);
    dp->transmit(dp); /* what it still had to say */
    if (path->index >= 0)
        make_idle(dp, path);
    if (dp->only == path)
        dp->only = NULL;
    for (unsigned i = 0; i < dp->other_count; i++)
        if (dp->other[i].path != path)
            dp->other[kept++] = dp->other[i];
    dp->other_count = kept;
    dp->gone_full += queue_packets(&path->queue) + path->queue.full_drops;
    dp->gone_codel += path->queue.codel_drops;
}

int datapath_route(struct datapath *dp, const struct key *key, struct path *path) {
    unsigned *count = &dp->prefixes[key->size == 16][key->prefix];
    int known = table_find(&dp->routes, key) != NULL;
    if (!path) {
        table_remove(&dp->routes, key);
        *count -= (unsigned)known;
        return 0;
    }
    if (table_set(&dp->routes, key, path) < 0)
        return -1;
    *count += !known;
    return 0;
}

/* The longest prefix that has the destination. */
static struct path *route(const struct datapath *dp, const struct ip_view *ip) {
    if (dp->only)
        return dp->only;
    for (int bits = ip->address_size * 8; bits >= 0; bits--) {
        if (!dp->prefixes[ip->version == 6][bits])
            continue;
        struct key key = key_make(ip->destination, ip->address_size, (unsigned)bits);
        struct path *path = table_find(&dp->routes, &key);
        if (path)
            return path;
    }
    return NULL;
}

static void refuse_size(struct datapath *dp, struct segments *s, size_t size, size_t mtu) {
    dp->drops[DROP_TOO_BIG] += segments_left(s);
    if (dp->too_big_count == MAX_TOO_BIG)
        return;
    struct too_big *note = &dp->too_big[dp->too_big_count++];
    uint8_t packet[MAX_DATAGRAM];
    segments_next(s, packet);
    note->length = size < QUOTED ? size : QUOTED;
    memcpy(note->data, packet, note->length);
    note->mtu = mtu;
}

void datapath_frame(struct datapath *dp, const struct vnet *vnet, const uint8_t *packet, size_t length, double now) {
    struct segments s;
    struct ip_view ip;
    dp->now = now;
    if (segments_begin(&s, vnet, packet, length) < 0 || ip_parse(packet, length, &ip) < 0) {
        dp->drops[DROP_NOT_IP]++;
        return;
    }
    if (ip_is_local(&ip)) {
        dp->drops[DROP_LOCAL] += segments_left(&s);
        return;
    }
    struct path *path = route(dp, &ip);
    size_t size = segments_peek(&s);
    if (!path) {
        dp->drops[DROP_NO_PATH] += segments_left(&s);
    } else if (size > path->inner_mtu) {
        refuse_size(dp, &s, size, path->inner_mtu);
    } else if (path->queue.head || !path_put(dp, path, &s, now)) {
        queue_push(&path->queue, &s, now);
        datapath_note(dp, path, 0);
    }
}

static void refer(struct datapath *dp, const uint8_t *data, size_t length, const uint8_t *remote, size_t remote_length) {
    if (dp->foreign_count == MAX_FOREIGN)
        dp->drops[DROP_LIMIT]++;
    else
        dp->foreign[dp->foreign_count++] = (struct foreign){data, length, remote, remote_length};
}

/* The path of a 1-RTT packet of ours; NULL if it is something else. */
static struct path *path_of(const struct datapath *dp, const uint8_t *data, size_t length) {
    if (length < 1 + CID_LENGTH + NUMBER_LENGTH + SAMPLE || (data[0] & 0xc0) != 0x40)
        return NULL;
    struct key key = key_make(data + 1, CID_LENGTH, 8 * CID_LENGTH);
    return table_find(&dp->paths, &key);
}

/* `count` packets of one path. */
static void open_all(struct datapath *dp, struct path *path, const uint8_t *data, const size_t *at, const size_t *size,
                     size_t count, const uint8_t *remote, size_t remote_length, double now) {
    uint8_t samples[MASK_BATCH * SAMPLE], masks[MASK_BATCH * SAMPLE];
    for (size_t i = 0; i < count; i++)
        memcpy(samples + i * SAMPLE, data + at[i] + 1 + CID_LENGTH + NUMBER_LENGTH, SAMPLE);
    int failed = count && header_masks(&path->receive_header, samples, count, masks) < 0;
    for (size_t i = 0; i < count; i++)
        if (failed || !path_open(dp, path, data + at[i], size[i], masks + i * SAMPLE, remote, remote_length, now))
            refer(dp, data + at[i], size[i], remote, remote_length);
}

void datapath_datagrams(struct datapath *dp, const uint8_t *data, size_t length, size_t segment, const uint8_t *remote,
                        size_t remote_length, double now) {
    size_t at[MASK_BATCH], size[MASK_BATCH], count = 0;
    struct path *path = NULL;
    dp->now = now;
    if (segment == 0 || segment > length)
        segment = length;
    for (size_t offset = 0; offset < length; offset += segment) {
        size_t piece = length - offset < segment ? length - offset : segment;
        struct path *its = path_of(dp, data + offset, piece);
        if (count && (its != path || count == MASK_BATCH)) {
            open_all(dp, path, data, at, size, count, remote, remote_length, now);
            count = 0;
        }
        if (!its) {
            refer(dp, data + offset, piece, remote, remote_length);
            continue;
        }
        path = its;
        at[count] = offset;
        size[count++] = piece;
    }
    if (count)
        open_all(dp, path, data, at, size, count, remote, remote_length, now);
}

void datapath_flush(struct datapath *dp, double now) {
    dp->now = now;
    for (int i = dp->busy_count - 1; i >= 0; i--) {
        struct path *path = dp->busy[i];
        if (!path_waits(path))
            path->pace_at = 0;
        else if (path->message_count || now >= path->pace_at)
            path_pump(dp, path, now);
        if (path->unacked && (path->unacked >= path->ack_every || path->ack_gap || now >= path->ack_at))
            path_acknowledge(dp, path, now);
        if (path->event_at != 0 && now >= tell_at(path))
            dp->attention = 1;
        if (!path->events && path->ack_at == 0 && path->pace_at == 0)
            make_idle(dp, path);
    }
    coalesce_flush(&dp->coalescer);
    dp->plain_used = 0;
    batch_seal(dp);
    dp->transmit(dp);
}

double datapath_deadline(const struct datapath *dp) {
    double deadline = 0;
    for (int i = 0; i < dp->busy_count; i++) {
        const double due[] = {dp->busy[i]->ack_at, dp->busy[i]->pace_at, tell_at(dp->busy[i])};
        for (int k = 0; k < 3; k++)
            if (due[k] != 0 && (deadline == 0 || due[k] < deadline))
                deadline = due[k];
    }
    return deadline;
}

int datapath_asks(const struct datapath *dp) {
    return dp->attention || dp->foreign_count || dp->other_count || dp->too_big_count;
}
