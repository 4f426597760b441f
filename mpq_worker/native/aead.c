#include "aead.h"

#include <string.h>

size_t suite_key_size(enum suite suite) {
    return suite == AES_128_GCM ? 16 : suite == AES_256_GCM || suite == CHACHA20_POLY1305 ? 32 : 0;
}

int packet_key_set(struct packet_key *key, enum suite suite, const uint8_t *secret, const uint8_t iv[12], int sealing) {
    const EVP_CIPHER *cipher = suite == AES_128_GCM   ? EVP_aes_128_gcm()
                               : suite == AES_256_GCM ? EVP_aes_256_gcm()
                                                      : EVP_chacha20_poly1305();
    packet_key_clear(key);
    key->context = EVP_CIPHER_CTX_new();
    if (!key->context || EVP_CipherInit_ex(key->context, cipher, NULL, secret, iv, sealing) != 1) {
        packet_key_clear(key);
        return -1;
    }
    memcpy(key->iv, iv, 12);
    return 0;
}

int header_key_set(struct header_key *key, enum suite suite, const uint8_t *secret) {
    const EVP_CIPHER *cipher = suite == AES_128_GCM   ? EVP_aes_128_ecb()
                               : suite == AES_256_GCM ? EVP_aes_256_ecb()
                                                      : EVP_chacha20();
    header_key_clear(key);
    key->chacha = suite == CHACHA20_POLY1305;
    key->context = EVP_CIPHER_CTX_new();
    if (!key->context || EVP_EncryptInit_ex(key->context, cipher, NULL, secret, NULL) != 1) {
        header_key_clear(key);
        return -1;
    }
    EVP_CIPHER_CTX_set_padding(key->context, 0);
    return 0;
}

void packet_key_clear(struct packet_key *key) {
    EVP_CIPHER_CTX_free(key->context);
    memset(key, 0, sizeof *key);
}

void header_key_clear(struct header_key *key) {
    EVP_CIPHER_CTX_free(key->context);
    memset(key, 0, sizeof *key);
}

/* The initialisation vector and the packet number (RFC 9001 section 5.3). */
static void make_nonce(const struct packet_key *key, uint64_t number, uint8_t nonce[12]) {
    memcpy(nonce, key->iv, 12);
    for (int i = 11; i > 3; i--, number >>= 8)
        nonce[i] ^= (uint8_t)number;
}

int packet_seal(const struct packet_key *key, uint64_t number, const uint8_t *header, size_t header_length,
                uint8_t *data, size_t length) {
    EVP_CIPHER_CTX *context = key->context;
    uint8_t nonce[12];
    int n;
    make_nonce(key, number, nonce);
    int good = EVP_EncryptInit_ex(context, NULL, NULL, NULL, nonce) == 1 &&
               EVP_EncryptUpdate(context, NULL, &n, header, (int)header_length) == 1 &&
               EVP_EncryptUpdate(context, data, &n, data, (int)length) == 1 &&
               EVP_EncryptFinal_ex(context, data + length, &n) == 1 &&
               EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG, data + length) == 1;
    return good ? 0 : -1;
}

int packet_open(const struct packet_key *key, uint64_t number, const uint8_t *header, size_t header_length,
                const uint8_t *data, size_t length, uint8_t *out) {
    EVP_CIPHER_CTX *context = key->context;
    uint8_t nonce[12], end[TAG];
    int n;
    if (length < TAG)
        return -1;
    length -= TAG;
    make_nonce(key, number, nonce);
    int good = EVP_DecryptInit_ex(context, NULL, NULL, NULL, nonce) == 1 &&
               EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG, (void *)(data + length)) == 1 &&
               EVP_DecryptUpdate(context, NULL, &n, header, (int)header_length) == 1 &&
               EVP_DecryptUpdate(context, out, &n, data, (int)length) == 1 && EVP_DecryptFinal_ex(context, end, &n) == 1;
    return good ? 0 : -1;
}

int header_masks(const struct header_key *key, const uint8_t *samples, size_t count, uint8_t *masks) {
    static const uint8_t zeros[SAMPLE];
    int n;
    if (!key->chacha)
        return EVP_EncryptUpdate(key->context, masks, &n, samples, (int)(count * SAMPLE)) == 1 ? 0 : -1;
    for (size_t i = 0; i < count; i++) { /* the sample is counter and nonce (RFC 9001 section 5.4.4) */
        if (EVP_EncryptInit_ex(key->context, NULL, NULL, NULL, samples + i * SAMPLE) != 1 ||
            EVP_EncryptUpdate(key->context, masks + i * SAMPLE, &n, zeros, SAMPLE) != 1)
            return -1;
    }
    return 0;
}
