#include "index/index_internal.h"

#include <math.h>

/* Exact top-K by inner product. Legend: B queries, D components, K results, N rows.
 *
 * The best K so far are a heap with the worst on top, kept in the caller's scores and rows, so that
 * nothing is allocated; most rows are turned away by one comparison with the top. At the end the
 * heap is sorted in place, best first. Scores come from vectors_dot in blocks that stay in the L2
 * cache, and with several queries a block is compared with all of them before the next is read.
 * Rejected: a matrix product (BLAS), whose sums depend on the number of queries, so that the same
 * query could get different scores alone and in a batch; a reservoir with partial selection, which
 * needs memory beyond K and gains nothing at K of some hundreds, where reading the rows is the
 * cost.
 *
 * Order: higher score first, then the smaller row. A score that is not a number (finite vectors can
 * overflow) counts as -inf and displaces nothing. */

enum { BLOCK_ROWS_MAX = 256, BLOCK_ROWS_MIN = 16, BLOCK_BYTES = 128 * 1024 };

/* The heap of one query: scores[k], rows[k], the first `size` in use. */
struct top {
    float *scores;
    int64_t *rows;
    size_t size;
    size_t k;
};

static bool worse(float a_score, int64_t a_row, float b_score, int64_t b_row)
{
    return a_score < b_score || (a_score == b_score && a_row > b_row);
}

/* Puts the entry where it belongs below `hole`, in a heap of `size`. */
static void sift_down(struct top *top, size_t size, size_t hole, float score, int64_t row)
{
    for (;;) {
        size_t child = 2 * hole + 1;
        if (child >= size) {
            break;
        }
        if (child + 1 < size && worse(top->scores[child + 1], top->rows[child + 1],
                                      top->scores[child], top->rows[child])) {
            child++;
        }
        if (!worse(top->scores[child], top->rows[child], score, row)) {
            break;
        }
        top->scores[hole] = top->scores[child];
        top->rows[hole] = top->rows[child];
        hole = child;
    }
    top->scores[hole] = score;
    top->rows[hole] = row;
}

static void push(struct top *top, float score, int64_t row)
{
    size_t hole = top->size++;
    while (hole > 0) {
        size_t parent = (hole - 1) / 2;
        if (!worse(score, row, top->scores[parent], top->rows[parent])) {
            break;
        }
        top->scores[hole] = top->scores[parent];
        top->rows[hole] = top->rows[parent];
        hole = parent;
    }
    top->scores[hole] = score;
    top->rows[hole] = row;
}

static void offer(struct top *top, const float *scores, const uint32_t *rows, size_t n)
{
    size_t i = 0;
    for (; i < n && top->size < top->k; i++) {
        push(top, isnan(scores[i]) ? -INFINITY : scores[i], rows[i]);
    }
    for (; i < n; i++) {
        float score = scores[i];
        if (score >= top->scores[0] && worse(top->scores[0], top->rows[0], score, rows[i])) {
            sift_down(top, top->k, 0, score, rows[i]);
        }
    }
}

/* Best first, then padding to K. */
static void finish(struct top *top)
{
    for (size_t size = top->size; size > 1; size--) {
        float score = top->scores[size - 1];
        int64_t row = top->rows[size - 1];
        top->scores[size - 1] = top->scores[0];
        top->rows[size - 1] = top->rows[0];
        sift_down(top, size - 1, 0, score, row);
    }
    for (size_t i = top->size; i < top->k; i++) {
        top->scores[i] = -INFINITY;
        top->rows[i] = VECTOR_INDEX_NO_ROW;
    }
}

static size_t block_rows(size_t dim)
{
    size_t n = BLOCK_BYTES / (dim * sizeof(float));
    if (n > BLOCK_ROWS_MAX) {
        return BLOCK_ROWS_MAX;
    }
    return n < BLOCK_ROWS_MIN ? BLOCK_ROWS_MIN : n;
}

/* An empty heap in query q's part of the hits. */
static struct top top_of(const struct vector_query *query, const struct vector_hits *hits, size_t q)
{
    return (struct top){hits->scores + q * query->k, hits->rows + q * query->k, 0, query->k};
}

void index_scan_queries(const struct vectors *vectors, const struct vector_query *query,
                        const struct vector_hits *hits)
{
    size_t k = query->k;
    uint32_t block[BLOCK_ROWS_MAX];
    float block_scores[BLOCK_ROWS_MAX];
    size_t step = block_rows(vectors->dim);
    size_t size = 0; /* of each query's heap: they fill alike */
    for (size_t first = 0; first < vectors->n; first += step) {
        size_t n = vectors->n - first < step ? vectors->n - first : step;
        for (size_t i = 0; i < n; i++) {
            block[i] = (uint32_t)(first + i);
        }
        for (size_t q = 0; q < query->n; q++) {
            struct top top = top_of(query, hits, q);
            top.size = size;
            vectors_dot(vectors, query->vectors + q * vectors->dim, block, n, block_scores);
            offer(&top, block_scores, block, n);
        }
        size = k - size < n ? k : size + n;
    }
    for (size_t q = 0; q < query->n; q++) {
        struct top top = top_of(query, hits, q);
        top.size = size;
        finish(&top);
    }
}

enum status index_query_check(const struct vector_query *query, size_t dim, struct error *err)
{
    if (query->k < 1 || query->k > SEARCH_K_MAX) {
        return error_set(err, STATUS_INVALID, "k is %zu, not within 1..%d", query->k,
                         (int)SEARCH_K_MAX);
    }
    if (query->n < 1 || query->n > SEARCH_BATCH_MAX) {
        return error_set(err, STATUS_INVALID, "%zu queries at once, not within 1..%d", query->n,
                         (int)SEARCH_BATCH_MAX);
    }
    if (dim < VECTOR_DIM_MIN || dim > VECTOR_DIM_MAX) {
        return error_set(err, STATUS_INVALID, "dimension is %zu, not within %d..%d", dim,
                         (int)VECTOR_DIM_MIN, (int)VECTOR_DIM_MAX);
    }
    size_t bad = floats_first_not_finite(query->vectors, query->n * dim);
    if (bad != query->n * dim) {
        return error_set(err, STATUS_INVALID, "component %zu of query %zu is not finite", bad % dim,
                         bad / dim);
    }
    return STATUS_OK;
}

enum status vector_scan_all(const struct vectors *vectors, const struct vector_query *query,
                            const struct vector_hits *hits, struct error *err)
{
    enum status status = index_query_check(query, vectors->dim, err);
    if (status != STATUS_OK) {
        return status;
    }
    index_scan_queries(vectors, query, hits);
    return STATUS_OK;
}

enum status vector_scan_rows(const struct vectors *vectors, const uint32_t *candidates,
                             size_t n_candidates, const struct vector_query *query,
                             const struct vector_hits *hits, struct error *err)
{
    enum status status = index_query_check(query, vectors->dim, err);
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < n_candidates; i++) {
        if (candidates[i] >= vectors->n) {
            return error_set(err, STATUS_INVALID, "candidate row %u of %zu rows",
                             (unsigned)candidates[i], vectors->n);
        }
    }
    float block_scores[BLOCK_ROWS_MAX];
    for (size_t q = 0; q < query->n; q++) {
        struct top top = top_of(query, hits, q);
        for (size_t first = 0; first < n_candidates; first += BLOCK_ROWS_MAX) {
            size_t left = n_candidates - first;
            size_t n = left < BLOCK_ROWS_MAX ? left : BLOCK_ROWS_MAX;
            vectors_dot(vectors, query->vectors + q * vectors->dim, candidates + first, n,
                        block_scores);
            offer(&top, block_scores, candidates + first, n);
        }
        finish(&top);
    }
    return STATUS_OK;
}
