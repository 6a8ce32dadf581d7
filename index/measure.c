#include "index/index_internal.h"

#include <math.h>
#include <stdlib.h>

#include <omp.h>

#include "base/alloc.h"
#include "base/clock.h"

/* Recall and time of an index. The exact scan of all queries is the costly part, so it is done once
 * for all settings tried, GROUP queries to a pass over the vectors, groups in parallel. Only the
 * K-th best score of each query is kept: vectors_dot gives a row the same score in any company, so
 * "scores at least that" is exact, and among items with equal vectors any choice counts. */

enum { GROUP = 16 };

/* Scratch of each thread, each part [n_threads × n]. */
struct scratch {
    float *scores;
    int64_t *rows;
    size_t n;
};

static enum status no_memory(struct error *err)
{
    return error_set(err, STATUS_NOMEM, "out of memory measuring an index");
}

/* False: out of memory, nothing to free. */
static bool scratch_init(struct scratch *scratch, size_t n)
{
    size_t n_threads = (size_t)omp_get_max_threads();
    scratch->n = n;
    scratch->scores = mem_alloc_array(n_threads * n, sizeof *scratch->scores);
    scratch->rows = mem_alloc_array(n_threads * n, sizeof *scratch->rows);
    if (scratch->scores == NULL || scratch->rows == NULL) {
        mem_free(scratch->scores);
        mem_free(scratch->rows);
        return false;
    }
    return true;
}

static void scratch_free(struct scratch *scratch)
{
    mem_free(scratch->scores);
    mem_free(scratch->rows);
}

/* The calling thread's part. */
static struct vector_hits scratch_hits(const struct scratch *scratch)
{
    size_t at = (size_t)omp_get_thread_num() * scratch->n;
    return (struct vector_hits){scratch->scores + at, scratch->rows + at};
}

/* Query q alone. */
static struct vector_query query_at(const struct index_reference *reference, size_t q)
{
    return (struct vector_query){reference->queries + q * reference->vectors->dim, 1, reference->k};
}

static void scan_group(struct index_reference *reference, size_t group,
                       const struct scratch *scratch)
{
    size_t dim = reference->vectors->dim;
    size_t k = reference->k;
    size_t first = group * GROUP;
    size_t n = reference->n_queries - first < GROUP ? reference->n_queries - first : GROUP;
    struct vector_query query = {reference->queries + first * dim, n, k};
    struct vector_hits hits = scratch_hits(scratch);
    index_scan_queries(reference->vectors, &query, &hits);
    for (size_t q = 0; q < n; q++) {
        reference->kth_scores[first + q] = hits.scores[q * k + k - 1];
    }
}

enum status index_reference_init(struct index_reference *reference, const struct vectors *vectors,
                                 const struct vector_query *query, struct error *err)
{
    *reference = (struct index_reference){.vectors = vectors,
                                          .queries = query->vectors,
                                          .n_queries = query->n,
                                          .k = query->k < vectors->n ? query->k : vectors->n};
    float *kth_scores = mem_alloc_array(query->n, sizeof *kth_scores);
    if (kth_scores == NULL) {
        return no_memory(err);
    }
    struct scratch scratch;
    if (!scratch_init(&scratch, GROUP * reference->k)) {
        mem_free(kth_scores);
        return no_memory(err);
    }
    reference->kth_scores = kth_scores;
    size_t n_groups = (query->n + GROUP - 1) / GROUP;
#pragma omp parallel for schedule(dynamic)
    for (size_t group = 0; group < n_groups; group++) {
        scan_group(reference, group, &scratch);
    }
    scratch_free(&scratch);
    return STATUS_OK;
}

void index_reference_free(struct index_reference *reference)
{
    mem_free(reference->kth_scores);
    reference->kth_scores = NULL;
}

/* Share of the exact answer that was found. */
static double recall_of(const struct index_reference *reference, size_t q, const int64_t *rows)
{
    const float *query = reference->queries + q * reference->vectors->dim;
    size_t found = 0;
    for (size_t i = 0; i < reference->k && rows[i] >= 0; i++) {
        uint32_t row = (uint32_t)rows[i];
        float score = 0.0F;
        vectors_dot(reference->vectors, query, &row, 1, &score);
        found += score >= reference->kth_scores[q];
    }
    return (double)found / (double)reference->k;
}

enum status index_measure_recall(const struct vector_index *index,
                                 const struct index_reference *reference, double *mean,
                                 double *worst, struct error *err)
{
    struct scratch scratch;
    if (!scratch_init(&scratch, reference->k)) {
        return no_memory(err);
    }
    enum status first = STATUS_OK;
    double sum = 0.0;
    double least = 1.0;
    double *recalls = mem_alloc_array(reference->n_queries, sizeof *recalls);
    if (recalls == NULL) {
        scratch_free(&scratch);
        return no_memory(err);
    }
#pragma omp parallel for schedule(dynamic, 4)
    for (size_t q = 0; q < reference->n_queries; q++) {
        struct vector_query query = query_at(reference, q);
        struct vector_hits hits = scratch_hits(&scratch);
        struct error own = {.code = STATUS_OK};
        enum status status = vector_index_search(index, &query, &hits, &own);
        recalls[q] = status == STATUS_OK ? recall_of(reference, q, hits.rows) : 0.0;
        if (status != STATUS_OK) {
#pragma omp critical(aisle_index_measure)
            if (first == STATUS_OK) {
                first = error_set(err, status, "%s", own.message);
            }
        }
    }
    for (size_t q = 0; q < reference->n_queries; q++) { /* in order: the same sum every time */
        sum += recalls[q];
        least = recalls[q] < least ? recalls[q] : least;
    }
    mem_free(recalls);
    scratch_free(&scratch);
    if (first == STATUS_OK) {
        *mean = sum / (double)reference->n_queries;
        *worst = least;
    }
    return first;
}

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Nearest-rank percentile of sorted times, in µs. */
static double percentile_us(const int64_t *times_ns, size_t n, double share)
{
    size_t rank = (size_t)ceil(share * (double)n);
    return (double)times_ns[rank > 0 ? rank - 1 : 0] / 1000.0;
}

static enum status time_queries(const struct vector_index *index,
                                const struct index_reference *reference, struct scratch *scratch,
                                int64_t *times_ns, struct error *err)
{
    struct vector_hits hits = {scratch->scores, scratch->rows};
    enum status status = STATUS_OK;
    for (size_t pass = 0; pass < 2 && status == STATUS_OK; pass++) {
        for (size_t q = 0; q < reference->n_queries && status == STATUS_OK; q++) {
            struct vector_query query = query_at(reference, q);
            int64_t start_ns = clock_monotonic_ns();
            status = vector_index_search(index, &query, &hits, err);
            times_ns[q] = clock_monotonic_ns() - start_ns;
        }
    }
    return status;
}

enum status index_measure_time(const struct vector_index *index,
                               const struct index_reference *reference, double *p50_us,
                               double *p99_us, struct error *err)
{
    size_t n = reference->n_queries;
    struct scratch scratch;
    if (!scratch_init(&scratch, reference->k)) {
        return no_memory(err);
    }
    int64_t *times_ns = mem_alloc_array(n, sizeof *times_ns);
    if (times_ns == NULL) {
        scratch_free(&scratch);
        return no_memory(err);
    }
    int threads_before = omp_get_max_threads();
    omp_set_num_threads(1); /* this thread's setting only */
    enum status status = time_queries(index, reference, &scratch, times_ns, err);
    omp_set_num_threads(threads_before);
    if (status == STATUS_OK) {
        qsort(times_ns, n, sizeof *times_ns, compare_times);
        *p50_us = percentile_us(times_ns, n, 0.50);
        *p99_us = percentile_us(times_ns, n, 0.99);
    }
    mem_free(times_ns);
    scratch_free(&scratch);
    return status;
}

enum status vector_index_recall(const struct vector_index *index, const struct vectors *vectors,
                                const struct vector_query *query, double *mean, double *worst,
                                struct error *err)
{
    struct vector_index_info info = vector_index_info(index);
    if (vectors->n != info.n || vectors->dim != info.dim || vectors->n == 0) {
        return error_set(err, STATUS_MISMATCH,
                         "%zu vectors of dimension %zu, an index of %zu of %zu", vectors->n,
                         vectors->dim, info.n, info.dim);
    }
    if (query->n == 0 || query->k < 1 || query->k > SEARCH_K_MAX) {
        return error_set(err, STATUS_INVALID, "%zu queries with k %zu (1..%d)", query->n, query->k,
                         (int)SEARCH_K_MAX);
    }
    size_t bad = floats_first_not_finite(query->vectors, query->n * vectors->dim);
    if (bad != query->n * vectors->dim) {
        return error_set(err, STATUS_INVALID, "query %zu is not finite", bad / vectors->dim);
    }
    struct index_reference reference;
    enum status status = index_reference_init(&reference, vectors, query, err);
    if (reference.kth_scores == NULL) {
        return status;
    }
    status = index_measure_recall(index, &reference, mean, worst, err);
    index_reference_free(&reference);
    return status;
}
