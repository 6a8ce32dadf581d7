#include "base/rng.h"

#include <assert.h>
#include <math.h>

#include "base/alloc.h"

/* xoshiro256**: D. Blackman, S. Vigna, Scrambled Linear Pseudorandom Number Generators, ACM TOMS
 * 47(4), 2021; its state is filled by splitmix64 (G. Steele, D. Lea, C. Flood, Fast Splittable
 * Pseudorandom Number Generators, OOPSLA 2014), which never gives four zeros.
 * Bounded integers: D. Lemire, Fast Random Integer Generation in an Interval, ACM TOMACS 29(1),
 * 2019. Normal numbers: G. Marsaglia, T. Bray, A Convenient Method for Generating Normal Variables,
 * SIAM Review 6(3), 1964; the second number of each pair is dropped, so that the state stays the
 * four words and a draw does not depend on how many were drawn before it.
 * Weighted draws: M. Vose, A Linear Algorithm for Generating Random Numbers with a Given
 * Distribution, IEEE TSE 17(9), 1991. A departure: rounding may leave columns over at the end; Vose
 * makes them full, here one of weight zero hands its whole column to the heaviest instead, so that
 * weight zero is never drawn. */

__extension__ typedef unsigned __int128 wide;

static uint64_t rotate_left(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

void rng_init(struct rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        seed += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        rng->state[i] = z ^ (z >> 31);
    }
}

uint64_t rng_next(struct rng *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *rng, uint64_t n)
{
    assert(n > 0);
    wide product = (wide)rng_next(rng) * n;
    if ((uint64_t)product < n) {
        uint64_t rejected_below = (UINT64_MAX - n + 1) % n; /* 2^64 mod n */
        while ((uint64_t)product < rejected_below) {
            product = (wide)rng_next(rng) * n;
        }
    }
    return (uint64_t)(product >> 64);
}

double rng_double(struct rng *rng)
{
    return (double)(rng_next(rng) >> 11) * 0x1.0p-53;
}

float rng_float(struct rng *rng)
{
    return (float)(rng_next(rng) >> 40) * 0x1.0p-24F;
}

double rng_normal(struct rng *rng)
{
    double x = 0.0;
    double square = 0.0;
    do {
        x = 2.0 * rng_double(rng) - 1.0;
        double y = 2.0 * rng_double(rng) - 1.0;
        square = x * x + y * y;
    } while (square >= 1.0 || square == 0.0);
    return x * sqrt(-2.0 * log(square) / square);
}

/* Checks the weights and finds the heaviest. */
static enum status check_weights(const double *weights, size_t n, size_t *heaviest,
                                 struct error *err)
{
    if (n == 0 || n > UINT32_MAX) {
        return error_set(err, STATUS_INVALID, "%zu weights: must be 1 to 2^32-1", n);
    }
    *heaviest = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(weights[i]) || weights[i] < 0.0) {
            return error_set(err, STATUS_INVALID, "weight %zu is negative or not finite", i);
        }
        if (weights[i] > weights[*heaviest]) {
            *heaviest = i;
        }
    }
    if (weights[*heaviest] <= 0.0) {
        return error_set(err, STATUS_INVALID, "all %zu weights are zero", n);
    }
    return STATUS_OK;
}

/* Columns of height under 1 are stacked at the front of `work`, the others at its back; each small
 * one is filled up by a large one, which then goes where its rest belongs. */
static void fill_table(struct alias_table *table, double *height, uint32_t *work)
{
    size_t n = table->n;
    size_t n_small = 0;
    size_t n_large = 0;
    for (size_t i = 0; i < n; i++) {
        if (height[i] < 1.0) {
            work[n_small++] = (uint32_t)i;
        } else {
            work[n - ++n_large] = (uint32_t)i;
        }
    }
    while (n_small > 0 && n_large > 0) {
        uint32_t small = work[--n_small];
        uint32_t large = work[n - n_large--];
        table->threshold[small] = (float)height[small];
        table->alias[small] = large;
        height[large] = (height[large] + height[small]) - 1.0;
        if (height[large] < 1.0) {
            work[n_small++] = large;
        } else {
            work[n - ++n_large] = large;
        }
    }
}

enum status alias_table_init(struct alias_table *table, const double *weights, size_t n,
                             struct error *err)
{
    size_t heaviest = 0;
    *table = (struct alias_table){0};
    enum status status = check_weights(weights, n, &heaviest, err);
    if (status != STATUS_OK) {
        return status;
    }
    double *height = mem_alloc_array(n, sizeof *height);
    uint32_t *work = mem_alloc_array(n, sizeof *work);
    table->threshold = mem_alloc_array(n, sizeof *table->threshold);
    table->alias = mem_alloc_array(n, sizeof *table->alias);
    if (height == NULL || work == NULL || table->threshold == NULL || table->alias == NULL) {
        alias_table_free(table);
        status = error_set(err, STATUS_NOMEM, "no memory for an alias table of %zu weights", n);
        goto out;
    }
    table->n = n;
    /* Divided by the largest first: a sum of huge weights must not overflow. */
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += weights[i] / weights[heaviest];
    }
    for (size_t i = 0; i < n; i++) {
        height[i] = weights[i] / weights[heaviest] / sum * (double)n;
        table->threshold[i] = weights[i] > 0.0 ? 1.0F : 0.0F;
        table->alias[i] = (uint32_t)(weights[i] > 0.0 ? i : heaviest);
    }
    fill_table(table, height, work);

out:
    mem_free(height);
    mem_free(work);
    return status;
}

uint32_t alias_table_draw(const struct alias_table *table, struct rng *rng)
{
    size_t column = (size_t)rng_below(rng, table->n);
    return rng_float(rng) < table->threshold[column] ? (uint32_t)column : table->alias[column];
}

void alias_table_free(struct alias_table *table)
{
    if (table == NULL) {
        return;
    }
    mem_free(table->threshold);
    mem_free(table->alias);
    *table = (struct alias_table){0};
}
