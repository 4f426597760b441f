#include "table.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_SIZE = 64 };

struct key key_make(const uint8_t *bytes, size_t size, unsigned prefix) {
    struct key key = {.size = (uint8_t)size, .prefix = (uint8_t)prefix};
    memcpy(key.bytes, bytes, prefix / 8);
    if (prefix % 8)
        key.bytes[prefix / 8] = (uint8_t)(bytes[prefix / 8] & 0xff << (8 - prefix % 8));
    return key;
}

/* Keys are ours (connection IDs are random) or the administrator's: nobody else can make them collide. */
static size_t hash(const struct key *key) {
    uint64_t a, b;
    memcpy(&a, key->bytes, 8);
    memcpy(&b, key->bytes + 8, 8);
    a = (a ^ ((uint64_t)key->size << 8 | key->prefix)) * 0x9e3779b97f4a7c15u;
    a ^= a >> 32;
    a = (a ^ b) * 0xd6e8feb86659fd93u;
    return (size_t)(a ^ a >> 32);
}

static int equal(const struct key *a, const struct key *b) {
    return a->size == b->size && a->prefix == b->prefix && !memcmp(a->bytes, b->bytes, sizeof a->bytes);
}

/* Where a key is, or where it would go. */
static size_t place(const struct table *t, const struct key *key) {
    size_t i = hash(key) & t->mask;
    while (t->entries[i].value && !equal(&t->entries[i].key, key))
        i = (i + 1) & t->mask;
    return i;
}

static int grow(struct table *t) {
    struct table bigger = {.mask = t->entries ? 2 * t->mask + 1 : FIRST_SIZE - 1, .used = t->used};
    bigger.entries = calloc(bigger.mask + 1, sizeof *bigger.entries);
    if (!bigger.entries)
        return -1;
    for (size_t i = 0; t->entries && i <= t->mask; i++)
        if (t->entries[i].value)
            bigger.entries[place(&bigger, &t->entries[i].key)] = t->entries[i];
    free(t->entries);
    *t = bigger;
    return 0;
}

int table_set(struct table *t, const struct key *key, void *value) {
    if ((!t->entries || t->used * 2 > t->mask) && grow(t) < 0)
        return -1;
    struct entry *entry = &t->entries[place(t, key)];
    t->used += !entry->value;
    entry->key = *key;
    entry->value = value;
    return 0;
}

void *table_find(const struct table *t, const struct key *key) {
    return t->entries ? t->entries[place(t, key)].value : NULL;
}

void table_remove(struct table *t, const struct key *key) {
    if (!t->entries)
        return;
    size_t hole = place(t, key);
    if (!t->entries[hole].value)
        return;
    t->used--;
    t->entries[hole].value = NULL;
    for (size_t i = (hole + 1) & t->mask; t->entries[i].value; i = (i + 1) & t->mask) { /* close the gap behind it */
        struct entry moved = t->entries[i];
        t->entries[i].value = NULL;
        t->entries[place(t, &moved.key)] = moved;
    }
}

void table_end(struct table *t) {
    free(t->entries);
    memset(t, 0, sizeof *t);
}
