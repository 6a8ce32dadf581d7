/* Paired bootstrap of means over cases that come in groups (B. Efron, R. Tibshirani, "An
 * Introduction to the Bootstrap", 1993, sections 8.6 and 13.3; groups drawn whole: A. Davison,
 * D. Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).
 *
 * Cases of one user are alike, so that drawing cases one by one would give intervals too narrow:
 * users are drawn, each with all its cases, and the mean of a draw is the sum of its differences
 * over the number of its cases. Both releases see the same draw, since only differences enter.
 * Percentile intervals: BCa was left out, as its jackknife changes little for means of thousands of
 * users. Each draw has a generator of its own, seeded by its number, so that the threads that share
 * them do not show. */
#include "core/evaluate_internal.h"

#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/hash.h"

static const double TAIL = 0.025; /* on either side of 95 % */

static int by_number(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;
    return (*x > *y) - (*x < *y);
}

/* Between the two nearest of sorted[n] (R. Hyndman, Y. Fan, "Sample Quantiles", 1996, type 7). */
static double quantile(const double *sorted, size_t n, double share)
{
    double at = share * (double)(n - 1);
    size_t below = (size_t)at;
    size_t above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

/* means[metric × n_resamples + draw] */
static void draw(const struct bootstrap_sample *sample, uint64_t seed, uint64_t number,
                 size_t n_resamples, double *means)
{
    struct rng rng;
    double sums[BOOTSTRAP_METRICS_MAX] = {0.0};
    uint64_t n_cases = 0;
    rng_init(&rng, hash_bytes(&number, sizeof(number), seed));
    for (size_t i = 0; i < sample->n_groups; i++) {
        size_t group = (size_t)rng_below(&rng, sample->n_groups);
        n_cases += sample->counts[group];
        for (size_t m = 0; m < sample->n_metrics; m++) {
            sums[m] += sample->sums[group * sample->n_metrics + m];
        }
    }
    for (size_t m = 0; m < sample->n_metrics; m++) {
        means[m * n_resamples + number] = sums[m] / (double)n_cases;
    }
}

enum status bootstrap_intervals(const struct bootstrap_sample *sample, size_t n_resamples,
                                uint64_t seed, size_t n_threads, struct evaluate_difference *out,
                                struct error *err)
{
    double *means = mem_alloc_array(sample->n_metrics * n_resamples, sizeof(double));
    if (means == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of %zu resamples", n_resamples);
    }
#pragma omp parallel for schedule(static) num_threads((int)n_threads)
    for (uint64_t number = 0; number < n_resamples; number++) {
        draw(sample, seed, number, n_resamples, means);
    }
    for (size_t m = 0; m < sample->n_metrics; m++) {
        double *sorted = means + m * n_resamples;
        double sum = 0.0;
        double n_cases = 0.0;
        for (size_t group = 0; group < sample->n_groups; group++) {
            sum += sample->sums[group * sample->n_metrics + m];
            n_cases += (double)sample->counts[group];
        }
        qsort(sorted, n_resamples, sizeof(*sorted), by_number);
        out[m] = (struct evaluate_difference){sum / n_cases, quantile(sorted, n_resamples, TAIL),
                                              quantile(sorted, n_resamples, 1.0 - TAIL)};
    }
    mem_free(means);
    return STATUS_OK;
}
