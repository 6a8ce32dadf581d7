#ifndef AISLE_BASE_ULID_H
#define AISLE_BASE_ULID_H

#include <stdint.h>

#include "base/rng.h"

/* ULID: 48 bits of Unix milliseconds, 80 random bits, 26 Crockford base-32 characters; sorts by
 * time. Used as request ids. */
enum { ULID_TEXT_BYTES = 27 };
void ulid_make(int64_t unix_ms, struct rng *rng, char out[ULID_TEXT_BYTES]);

#endif
