#ifndef AISLE_BASE_RNG_H
#define AISLE_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* xoshiro256** seeded by splitmix64 (Blackman & Vigna, Scrambled Linear Pseudorandom Number
 * Generators, 2021). Same seed → same numbers on every machine. Not for secrets. */
struct rng {
    uint64_t state[4];
};

void rng_init(struct rng *rng, uint64_t seed);
uint64_t rng_next(struct rng *rng);
/* Uniform in [0, n), without modulo bias; n > 0. */
uint64_t rng_below(struct rng *rng, uint64_t n);
/* Uniform in [0, 1). */
double rng_double(struct rng *rng);
float rng_float(struct rng *rng);
/* Standard normal. */
double rng_normal(struct rng *rng);

/* Weighted sampling in O(1): Walker's alias table (Vose 1991). weights[n] finite, ≥ 0, sum > 0. */
struct alias_table {
    float *threshold;
    uint32_t *alias;
    size_t n;
};
enum status alias_table_init(struct alias_table *table, const double *weights, size_t n,
                             struct error *err) STATUS_CHECKED;
uint32_t alias_table_draw(const struct alias_table *table, struct rng *rng);
void alias_table_free(struct alias_table *table);

#endif
