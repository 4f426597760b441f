#include "queue.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void queue_begin(struct queue *q, size_t limit, size_t mtu, double target, double interval) {
    memset(q, 0, sizeof *q);
    q->tail = &q->head;
    q->limit = limit;
    q->mtu = mtu;
    q->target = target;
    q->interval = interval;
}

void queue_end(struct queue *q) {
    while (q->head)
        queue_pop(q);
}

void queue_push(struct queue *q, const struct segments *s, double since) {
    struct item *item = NULL;
    if (q->bytes + s->length <= q->limit || !q->head) /* one super-packet always fits */
        item = malloc(sizeof *item + s->length);
    if (!item) {
        q->full_drops += segments_left(s);
        return;
    }
    item->next = NULL;
    item->since = since;
    item->length = s->length;
    item->segments = *s;
    memcpy(item->data, s->packet, s->length);
    item->segments.packet = item->data;
    *q->tail = item;
    q->tail = &item->next;
    q->bytes += s->length;
}

size_t queue_packets(const struct queue *q) {
    size_t packets = 0;
    for (const struct item *item = q->head; item; item = item->next)
        packets += segments_left(&item->segments);
    return packets;
}

void queue_move(struct queue *from, struct queue *to) {
    if (!from->head)
        return;
    *from->tail = to->head;
    if (!to->head)
        to->tail = from->tail;
    to->head = from->head;
    to->bytes += from->bytes;
    from->head = NULL;
    from->tail = &from->head;
    from->bytes = 0;
}

void queue_pop(struct queue *q) {
    struct item *item = q->head;
    q->head = item->next;
    if (!q->head)
        q->tail = &q->head;
    q->bytes -= item->length;
    free(item);
}

/* One packet, which may be a segment of a larger one. */
static void drop(struct queue *q) {
    q->codel_drops++;
    segments_skip(&q->head->segments);
    if (!segments_peek(&q->head->segments))
        queue_pop(q);
}

static double control_law(const struct queue *q, double t) { return t + q->interval / sqrt(q->count); }

/* Whether the head has been above target for a whole interval. */
static int may_drop(struct queue *q, double now) {
    if (!q->head || now - q->head->since < q->target || q->bytes - q->head->length <= q->mtu) {
        q->first_above = 0;
        return 0;
    }
    if (!q->first_above) {
        q->first_above = now + q->interval;
        return 0;
    }
    return now >= q->first_above;
}

struct item *queue_head(struct queue *q, double now) {
    int above = may_drop(q, now);
    if (q->dropping) {
        if (!above)
            q->dropping = 0;
        while (q->dropping && now >= q->drop_next) {
            drop(q);
            q->count++;
            if (may_drop(q, now))
                q->drop_next = control_law(q, q->drop_next);
            else
                q->dropping = 0;
        }
    } else if (above) {
        drop(q);
        q->dropping = 1;
        uint32_t delta = q->count - q->last_count;
        q->count = delta > 1 && now - q->drop_next < 16 * q->interval ? delta : 1;
        q->drop_next = control_law(q, now);
        q->last_count = q->count;
    }
    return q->head;
}
