#include "path.h"

#include <stdlib.h>
#include <string.h>

enum { OVERHEAD = 1 + NUMBER_LENGTH + 2 + TAG }; /* and the connection ID: first byte, number, frame type, context, tag */

struct path *path_new(void *owner, const struct limits *limits, uint64_t next, uint64_t delivered, double now) {
    struct path *path = calloc(1, sizeof *path);
    if (!path)
        return NULL;
    path->owner = owner;
    path->index = -1;
    path->first = -1;
    path->ack_every = 2;
    path->heard = path->refilled = path->ack_sent = now;
    received_begin(&path->received);
    queue_begin(&path->queue, limits->queue_bytes, limits->inner_mtu, limits->target, limits->interval);
    path->cid_length = CID_LENGTH;
    path_set_mtu(path, limits->inner_mtu);
    if (sent_begin(&path->sent, next, delivered, now) < 0) {
        free(path);
        return NULL;
    }
    return path;
}

void path_free(struct path *path) {
    packet_key_clear(&path->send);
    packet_key_clear(&path->current);
    packet_key_clear(&path->next);
    packet_key_clear(&path->previous);
    header_key_clear(&path->send_header);
    header_key_clear(&path->receive_header);
    queue_end(&path->queue);
    sent_end(&path->sent);
    free(path->allowed);
    free(path);
}

void path_set_mtu(struct path *path, size_t inner_mtu) {
    path->inner_mtu = inner_mtu;
    path->payload = inner_mtu + path->cid_length + OVERHEAD;
}
