#include "sent.h"

#include <stdlib.h>
#include <string.h>

enum { REMEMBERED = 2048 }; /* settled packets that may still prove not to be lost */
enum state { NOT_COUNTED, IN_FLIGHT, LOST, ACKED };

static struct sent_packet *at(const struct sent *s, uint64_t number) { return &s->ring[number & s->mask]; }

static void summary_begin(struct sent *s) {
    double loss_time = s->summary.loss_time;
    memset(&s->summary, 0, sizeof s->summary);
    s->summary.newest = -1;
    s->summary.loss_time = loss_time;
}

int sent_begin(struct sent *s, uint64_t next, uint64_t delivered, double now) {
    memset(s, 0, sizeof *s);
    s->ring = calloc(SENT_MIN, sizeof *s->ring);
    if (!s->ring)
        return -1;
    s->mask = SENT_MIN - 1;
    s->floor = s->oldest = s->next = next;
    s->largest_acked = s->large_acked = s->sampled = -1;
    s->delivered = delivered;
    s->delivered_time = s->first_sent_time = now;
    s->threshold = REORDER_MIN;
    summary_begin(s);
    return 0;
}

void sent_end(struct sent *s) {
    free(s->ring);
    s->ring = NULL;
}

int sent_has_room(const struct sent *s) { return s->next - s->oldest < SENT_MAX; }

/* Room for one more: by forgetting what is settled, by a ring of twice the size, at last by giving the oldest up. */
static void make_room(struct sent *s) {
    uint64_t capacity = s->mask + 1;
    if (s->oldest - s->floor >= capacity / 2 || (capacity == SENT_MAX && s->next - s->floor == capacity))
        s->floor = s->oldest;
    if (s->next - s->floor < capacity)
        return;
    struct sent_packet *ring = capacity < SENT_MAX ? calloc(2 * capacity, sizeof *ring) : NULL;
    if (ring) {
        uint64_t mask = 2 * capacity - 1;
        for (uint64_t n = s->floor; n < s->next; n++)
            ring[n & mask] = *at(s, n);
        free(s->ring);
        s->ring = ring;
        s->mask = mask;
        return;
    }
    struct sent_packet *p = at(s, s->floor);
    if (p->state == IN_FLIGHT) {
        s->bytes -= p->size;
        s->packets--;
    }
    s->floor++;
    if (s->oldest < s->floor)
        s->oldest = s->floor;
}

void sent_add(struct sent *s, uint32_t size, double now, int app_limited, enum owner owner) {
    make_room(s);
    struct sent_packet *p = at(s, s->next++);
    p->size = size;
    p->state = size ? IN_FLIGHT : NOT_COUNTED;
    p->owner = (uint8_t)owner;
    if (!size)
        return;
    if (!s->packets)
        s->delivered_time = s->first_sent_time = now;
    p->token = (struct token){now, s->delivered_time, s->first_sent_time, s->delivered, app_limited};
    s->bytes += size;
    s->packets++;
    s->count++;
    s->last = now;
}

void sent_elsewhere(struct sent *s, uint64_t number, uint32_t size, double now) {
    while (s->next < number)
        sent_add(s, 0, 0, 0, LOOP);
    if (s->next == number)
        sent_add(s, size, now, 1, PYTHON);
}

/* Python is told of `number`, if it asks; with so many untold it learns by `oldest` that it is settled. One place is the
 * probe's: there is one at a time. */
static void note(struct sent *s, const struct sent_packet *p, uint64_t number, int acknowledged) {
    if (p->owner != LOOP && s->note_count < SENT_NOTES - (p->owner != PROBE))
        s->notes[s->note_count++] = number << 1 | (unsigned)acknowledged;
}

static void acknowledge(struct sent *s, uint64_t number, double now) {
    struct sent_packet *p = at(s, number);
    struct ack_summary *a = &s->summary;
    if (p->state == LOST) {
        uint64_t distance = (uint64_t)s->largest_acked > number ? (uint64_t)s->largest_acked - number : 0;
        if (distance >= s->threshold)
            s->threshold = distance < REORDER_MAX ? distance + 1 : REORDER_MAX;
        a->spurious++;
    } else if (p->state == IN_FLIGHT) {
        s->bytes -= p->size;
        s->packets--;
    } else {
        return;
    }
    note(s, p, number, 1);
    p->state = ACKED;
    if (p->size > SAFE_SIZE && (int64_t)number > s->large_acked) {
        s->large_acked = (int64_t)number;
        s->large_lost = 0;
    }
    s->delivered += p->size;
    s->delivered_time = now;
    a->acked++;
    a->acked_bytes += p->size;
    if ((int64_t)number > a->newest) {
        a->newest = (int64_t)number;
        a->token = p->token;
        s->first_sent_time = p->token.sent_time;
    }
}

void sent_acked(struct sent *s, uint64_t low, uint64_t high, double now) {
    if (low < s->floor)
        low = s->floor;
    for (uint64_t n = low; n <= high && n < s->next; n++)
        acknowledge(s, n, now);
}

void sent_settle(struct sent *s, uint64_t largest, double delay, double loss_delay, double now) {
    if ((int64_t)largest > s->largest_acked)
        s->largest_acked = (int64_t)largest;
    if (s->summary.newest == (int64_t)largest && (int64_t)largest > s->sampled) {
        s->sampled = (int64_t)largest;
        s->summary.rtt = now - s->summary.token.sent_time;
        s->summary.delay = delay;
    }
    sent_detect_loss(s, loss_delay, now);
}

void sent_detect_loss(struct sent *s, double loss_delay, double now) {
    struct ack_summary *a = &s->summary;
    a->loss_time = 0;
    for (uint64_t n = s->oldest; n < s->next && (int64_t)n <= s->largest_acked; n++) {
        struct sent_packet *p = at(s, n);
        if (p->state == IN_FLIGHT) {
            if (n + s->threshold > (uint64_t)s->largest_acked && p->token.sent_time + loss_delay > now) {
                a->loss_time = p->token.sent_time + loss_delay; /* those behind it are younger */
                break;
            }
            note(s, p, n, 0);
            p->state = LOST;
            s->bytes -= p->size;
            s->packets--;
            s->large_lost += p->size > SAFE_SIZE && (int64_t)n > s->large_acked;
            a->lost += p->owner != PROBE;
            a->lost_bytes += p->owner != PROBE ? p->size : 0;
        }
        s->oldest = n + 1;
    }
    if (s->oldest - s->floor > REMEMBERED)
        s->floor = s->oldest - REMEMBERED;
    while (s->floor < s->oldest && at(s, s->floor)->state != LOST)
        s->floor++;
}

struct ack_summary sent_take(struct sent *s) {
    struct ack_summary a = s->summary;
    summary_begin(s);
    return a;
}
