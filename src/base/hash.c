#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"

enum { READ_BYTES = 1 << 20 };

_Static_assert(SHA256_BYTES == crypto_hash_sha256_BYTES, "SHA-256 is 32 bytes");
_Static_assert(SHA256_HEX_BYTES == 2 * SHA256_BYTES + 1, "two digits a byte and a NUL");

static pthread_once_t sodium_ready = PTHREAD_ONCE_INIT;

static int sodium_state;

/* A failure (no source of randomness) does not touch hashing in memory or comparison. */
static void start_sodium(void)
{
    sodium_state = sodium_init();
}

uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes, n, seed);
}

enum status hash_file_sha256(const char *path, char hex[SHA256_HEX_BYTES], uint64_t *n_bytes,
                             struct error *err)
{
    unsigned char digest[SHA256_BYTES];
    crypto_hash_sha256_state state;
    uint64_t total = 0;
    (void)pthread_once(&sodium_ready, start_sodium);
    if (sodium_state < 0) {
        return error_set(err, STATUS_INTERNAL, "libsodium does not start");
    }
    unsigned char *chunk = mem_alloc(READ_BYTES);
    if (chunk == NULL) {
        return error_set(err, STATUS_NOMEM, "no memory to hash %s", path);
    }
    enum status status = STATUS_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        status = error_set_errno(err, "opening %s", path);
        goto free_chunk;
    }
    crypto_hash_sha256_init(&state);
    for (;;) {
        ssize_t n = read(fd, chunk, READ_BYTES);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            status = error_set_errno(err, "reading %s", path);
            goto close_file;
        }
        if (n == 0) {
            break;
        }
        crypto_hash_sha256_update(&state, chunk, (unsigned long long)n);
        total += (uint64_t)n;
    }
    crypto_hash_sha256_final(&state, digest);
    (void)sodium_bin2hex(hex, SHA256_HEX_BYTES, digest, sizeof digest);
    *n_bytes = total;

close_file:
    (void)close(fd);
free_chunk:
    mem_free(chunk);
    return status;
}

void hash_sha256_hex(const void *bytes, size_t n, char hex[SHA256_HEX_BYTES])
{
    unsigned char digest[SHA256_BYTES];
    (void)pthread_once(&sodium_ready, start_sodium);
    crypto_hash_sha256(digest, bytes, n);
    (void)sodium_bin2hex(hex, SHA256_HEX_BYTES, digest, sizeof digest);
}

int secret_equal(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned char a_digest[SHA256_BYTES];
    unsigned char b_digest[SHA256_BYTES];
    (void)pthread_once(&sodium_ready, start_sodium);
    crypto_hash_sha256(a_digest, (const unsigned char *)a, a_len);
    crypto_hash_sha256(b_digest, (const unsigned char *)b, b_len);
    return sodium_memcmp(a_digest, b_digest, SHA256_BYTES) == 0;
}
