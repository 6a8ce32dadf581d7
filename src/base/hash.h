#ifndef AISLE_BASE_HASH_H
#define AISLE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* XXH3-64 (libxxhash). Stable over versions and machines; not for secrets. */
uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed);

enum { SHA256_BYTES = 32, SHA256_HEX_BYTES = 65 };
/* SHA-256 (libsodium) of a file's content as lower-case hex with NUL, and its size. */
enum status hash_file_sha256(const char *path, char hex[SHA256_HEX_BYTES], uint64_t *n_bytes,
                             struct error *err) STATUS_CHECKED;
void hash_sha256_hex(const void *bytes, size_t n, char hex[SHA256_HEX_BYTES]);

/* Constant-time comparison of two secrets, over their hashes, so that lengths do not show either.
 */
int secret_equal(const char *a, size_t a_len, const char *b, size_t b_len);

#endif
