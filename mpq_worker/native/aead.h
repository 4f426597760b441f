/* QUIC packet protection (RFC 9001 section 5) with libcrypto: AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305. */
#ifndef MPQ_AEAD_H
#define MPQ_AEAD_H

#include <openssl/evp.h>
#include <stddef.h>
#include <stdint.h>

enum suite { AES_128_GCM = 0x1301, AES_256_GCM = 0x1302, CHACHA20_POLY1305 = 0x1303 }; /* RFC 8446 B.4 */
enum { TAG = 16, SAMPLE = 16, MASK_BATCH = 64 };

/* One direction's key of one phase; `context` is NULL while there is none. */
struct packet_key {
    EVP_CIPHER_CTX *context;
    uint8_t iv[12];
};

struct header_key {
    EVP_CIPHER_CTX *context;
    int chacha;
};

/* Bytes of key of a suite, 0 if it is not one of ours. */
size_t suite_key_size(enum suite suite);

/* Replaces what `key` holds. 0, or -1 if libcrypto refuses. */
int packet_key_set(struct packet_key *key, enum suite suite, const uint8_t *secret, const uint8_t iv[12], int sealing);
int header_key_set(struct header_key *key, enum suite suite, const uint8_t *secret);
void packet_key_clear(struct packet_key *key);
void header_key_clear(struct header_key *key);

/* Encrypts `length` bytes in place and writes the tag behind them. 0, or -1. */
int packet_seal(const struct packet_key *key, uint64_t number, const uint8_t *header, size_t header_length,
                uint8_t *data, size_t length);

/* Decrypts `length` bytes, tag included, into `out`. 0 if the tag is right, else -1. */
int packet_open(const struct packet_key *key, uint64_t number, const uint8_t *header, size_t header_length,
                const uint8_t *data, size_t length, uint8_t *out);

/* A 16-byte mask, of which QUIC uses 5, for each of `count` <= MASK_BATCH 16-byte samples. 0, or -1. */
int header_masks(const struct header_key *key, const uint8_t *samples, size_t count, uint8_t *masks);

#endif
