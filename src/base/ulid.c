#include "base/ulid.h"

static const char CROCKFORD[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/* The low 5·n bits of value, most significant first. */
static void encode(uint64_t value, int n, char *out)
{
    for (int i = n - 1; i >= 0; i--) {
        out[i] = CROCKFORD[value & 31];
        value >>= 5;
    }
}

void ulid_make(int64_t unix_ms, struct rng *rng, char out[ULID_TEXT_BYTES])
{
    uint64_t time = unix_ms < 0 ? 0 : (uint64_t)unix_ms & ((UINT64_C(1) << 48) - 1);
    encode(time, 10, out);
    /* 80 random bits as two halves of 40; the upper bits are a generator's best. */
    encode(rng_next(rng) >> 24, 8, out + 10);
    encode(rng_next(rng) >> 24, 8, out + 18);
    out[ULID_TEXT_BYTES - 1] = '\0';
}
