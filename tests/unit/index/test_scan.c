#include "index_fixture.h"

/* The naive twin: sorts all candidates by insertion. */
static void scan_naive(const struct vectors *vectors, const float *query,
                       const uint32_t *candidates, size_t n, size_t k, float *scores, int64_t *rows)
{
    for (size_t i = 0; i < k; i++) {
        scores[i] = -INFINITY;
        rows[i] = VECTOR_INDEX_NO_ROW;
    }
    for (size_t i = 0; i < n; i++) {
        float score = 0.0F;
        int64_t row = candidates[i];
        vectors_dot(vectors, query, candidates + i, 1, &score);
        for (size_t at = 0; at < k; at++) {
            if (rows[at] < 0 || score > scores[at] || (score == scores[at] && row < rows[at])) {
                float score_out = scores[at];
                int64_t row_out = rows[at];
                scores[at] = score;
                rows[at] = row;
                score = score_out;
                row = row_out;
                if (row < 0) {
                    break;
                }
            }
        }
    }
}

/* Coarse values, so that many scores are equal. */
static void fill(struct rng *rng, float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)rng_below(rng, 5) - 2.0F;
    }
}

enum { N_MAX = 1300, DIM_MAX = 67, K_MAX = 1500 };

static void compare_with_naive(size_t n, size_t dim, size_t k, enum vector_type type)
{
    static float data[N_MAX * DIM_MAX + 1];
    static uint16_t halves[N_MAX * DIM_MAX + 1];
    static float query[DIM_MAX];
    static float scores[K_MAX + 1];
    static float scores_naive[K_MAX];
    static int64_t rows[K_MAX + 1];
    static int64_t rows_naive[K_MAX];
    static uint32_t candidates[N_MAX];
    struct error err = {.message = ""};
    struct rng rng;
    rng_init(&rng, n * 1000 + dim);
    fill(&rng, data, n * dim);
    fill(&rng, query, dim);
    half_from_floats(data, n * dim, halves + 1);
    struct vectors vectors = {type == VECTOR_F16 ? (const void *)(halves + 1) : data, n, dim, type};
    for (size_t i = 0; i < n; i++) {
        candidates[i] = (uint32_t)i;
    }
    scores[k] = 4711.0F;
    rows[k] = 4711;

    scan_naive(&vectors, query, candidates, n, k, scores_naive, rows_naive);
    assert_int_equal(vector_scan_all(&vectors, &(struct vector_query){query, 1, k},
                                     &(struct vector_hits){scores, rows}, &err),
                     STATUS_OK);
    assert_memory_equal(rows, rows_naive, k * sizeof *rows);
    assert_memory_equal(scores, scores_naive, k * sizeof *scores);

    size_t n_candidates = 0; /* every second or so, shuffled */
    for (size_t i = 0; i < n; i++) {
        if (rng_below(&rng, 2) == 0) {
            size_t at = (size_t)rng_below(&rng, n_candidates + 1);
            candidates[n_candidates++] = candidates[at];
            candidates[at] = (uint32_t)i;
        }
    }
    scan_naive(&vectors, query, candidates, n_candidates, k, scores_naive, rows_naive);
    assert_int_equal(vector_scan_rows(&vectors, candidates, n_candidates,
                                      &(struct vector_query){query, 1, k},
                                      &(struct vector_hits){scores, rows}, &err),
                     STATUS_OK);
    assert_memory_equal(rows, rows_naive, k * sizeof *rows);
    assert_memory_equal(scores, scores_naive, k * sizeof *scores);
    assert_true(scores[k] == 4711.0F && rows[k] == 4711);
}

static void vector_scan_odd_sizes_equals_naive(void **state)
{
    (void)state;
    static const size_t ns[] = {0, 1, 2, 255, 256, 257, 1300};
    static const size_t dims[] = {1, 7, 8, 63, 64, 67};
    static const size_t ks[] = {1, 2, 20, 256, 1500};
    for (size_t i = 0; i < sizeof ns / sizeof ns[0]; i++) {
        for (size_t j = 0; j < sizeof dims / sizeof dims[0]; j++) {
            for (size_t l = 0; l < sizeof ks / sizeof ks[0]; l++) {
                compare_with_naive(ns[i], dims[j], ks[l], VECTOR_F32);
                compare_with_naive(ns[i], dims[j], ks[l], VECTOR_F16);
            }
        }
    }
}

static void index_scan_queries_batch_equals_single(void **state)
{
    (void)state;
    enum { N = 3000, DIM = 24, B = 5, K = 33 };
    struct fixture fixture;
    static float scores[B * K];
    static int64_t rows[B * K];
    float one_scores[K];
    int64_t one_rows[K];
    struct error err;
    fixture_init(&fixture, N, DIM, B);
    index_scan_queries(&fixture.vectors, &(struct vector_query){fixture.queries, B, K},
                       &(struct vector_hits){scores, rows});
    for (size_t q = 0; q < B; q++) {
        assert_int_equal(vector_scan_all(&fixture.vectors,
                                         &(struct vector_query){fixture.queries + q * DIM, 1, K},
                                         &(struct vector_hits){one_scores, one_rows}, &err),
                         STATUS_OK);
        assert_memory_equal(one_scores, scores + q * K, sizeof one_scores);
        assert_memory_equal(one_rows, rows + q * K, sizeof one_rows);
    }
    fixture_free(&fixture);
}

static void vector_scan_rows_batch_equals_single(void **state)
{
    (void)state;
    enum { N = 600, DIM = 24, B = 3, K = 33, CANDIDATES = 300 };
    struct fixture fixture;
    uint32_t candidates[CANDIDATES];
    static float scores[B * K];
    static int64_t rows[B * K];
    float one_scores[K];
    int64_t one_rows[K];
    struct error err;
    fixture_init(&fixture, N, DIM, B);
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        candidates[i] = 2 * i;
    }
    assert_int_equal(vector_scan_rows(&fixture.vectors, candidates, CANDIDATES,
                                      &(struct vector_query){fixture.queries, B, K},
                                      &(struct vector_hits){scores, rows}, &err),
                     STATUS_OK);
    for (size_t q = 0; q < B; q++) {
        assert_int_equal(vector_scan_rows(&fixture.vectors, candidates, CANDIDATES,
                                          &(struct vector_query){fixture.queries + q * DIM, 1, K},
                                          &(struct vector_hits){one_scores, one_rows}, &err),
                         STATUS_OK);
        assert_memory_equal(one_scores, scores + q * K, sizeof one_scores);
        assert_memory_equal(one_rows, rows + q * K, sizeof one_rows);
    }
    fixture_free(&fixture);
}

static void vector_scan_bad_arguments_are_invalid(void **state)
{
    (void)state;
    float data[4] = {1, 2, 3, 4};
    float query[2] = {1, 1};
    float bad_query[2] = {1, NAN};
    float scores[2] = {7, 7};
    int64_t rows[2] = {7, 7};
    uint32_t candidates[2] = {0, 2};
    struct vectors vectors = {data, 2, 2, VECTOR_F32};
    struct error err;
    assert_int_equal(vector_scan_all(&vectors, &(struct vector_query){query, 1, 0},
                                     &(struct vector_hits){scores, rows}, &err),
                     STATUS_INVALID);
    assert_int_equal(vector_scan_all(&vectors, &(struct vector_query){query, 1, SEARCH_K_MAX + 1},
                                     &(struct vector_hits){scores, rows}, &err),
                     STATUS_INVALID);
    assert_int_equal(vector_scan_all(&vectors, &(struct vector_query){query, 0, 1},
                                     &(struct vector_hits){scores, rows}, &err),
                     STATUS_INVALID);
    assert_int_equal(vector_scan_all(&vectors, &(struct vector_query){bad_query, 1, 2},
                                     &(struct vector_hits){scores, rows}, &err),
                     STATUS_INVALID);
    assert_int_equal(vector_scan_rows(&vectors, candidates, 2, &(struct vector_query){query, 1, 2},
                                      &(struct vector_hits){scores, rows}, &err),
                     STATUS_INVALID);
    assert_true(scores[0] == 7.0F && rows[0] == 7 && rows[1] == 7);
    assert_int_equal(vector_scan_rows(&vectors, candidates, 1, &(struct vector_query){query, 1, 2},
                                      &(struct vector_hits){scores, rows}, NULL),
                     STATUS_OK);
    assert_true(rows[0] == 0 && rows[1] == VECTOR_INDEX_NO_ROW && isinf(scores[1]));
}

static void vector_scan_all_allocates_nothing(void **state)
{
    (void)state;
    float data[4] = {1, 2, 3, 4};
    float scores[2];
    int64_t rows[2];
    struct vectors vectors = {data, 2, 2, VECTOR_F32};
    struct error err;
    uint64_t before = mem_count();
    assert_int_equal(vector_scan_all(&vectors, &(struct vector_query){data, 1, 2},
                                     &(struct vector_hits){scores, rows}, &err),
                     STATUS_OK);
    assert_int_equal(mem_count(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vector_scan_odd_sizes_equals_naive),
        cmocka_unit_test(index_scan_queries_batch_equals_single),
        cmocka_unit_test(vector_scan_rows_batch_equals_single),
        cmocka_unit_test(vector_scan_bad_arguments_are_invalid),
        cmocka_unit_test(vector_scan_all_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
