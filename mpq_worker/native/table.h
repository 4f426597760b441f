/* A hash table from short keys to paths: connection IDs, inner addresses, prefixes. */
#ifndef MPQ_TABLE_H
#define MPQ_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct key {
    uint8_t bytes[16];
    uint8_t size;   /* bytes that count: 4 or 16 for an address, 8 for a connection ID */
    uint8_t prefix; /* bits that count of an address */
};

struct entry {
    struct key key;
    void *value; /* NULL: free */
};

struct table {
    struct entry *entries;
    size_t mask, used;
};

/* A key of the first `prefix` bits of `bytes`; what lies beyond does not count. */
struct key key_make(const uint8_t *bytes, size_t size, unsigned prefix);

/* 0, or -1 without memory. */
int table_set(struct table *t, const struct key *key, void *value);
void table_remove(struct table *t, const struct key *key);
void *table_find(const struct table *t, const struct key *key);
void table_end(struct table *t);

#endif
