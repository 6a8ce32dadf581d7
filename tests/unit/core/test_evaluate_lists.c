#include "core/evaluate_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/rng.h"

enum { N = 1024, K = 50 };

static void fill(float *scores, size_t n_values, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t i = 0; i < N; i++) {
        scores[i] = (float)rng_below(&rng, n_values) - 3.0F;
    }
}

static void evaluate_count_every_size_equals_its_twin(void **state)
{
    float scores[N];
    float maxima[2][N / EVALUATE_BLOCK];
    (void)state;
    for (size_t n_values = 1; n_values < 2000; n_values = n_values * 3 + 1) {
        fill(scores, n_values, n_values);
        scores[N - 1] = -INFINITY;
        scores[70] = -INFINITY;
        for (size_t n = 0; n <= N; n += EVALUATE_BLOCK) {
            static const float wanted[] = {-INFINITY, -3.0F, 0.0F, 5.0F, INFINITY};
            for (size_t w = 0; w < 5; w++) {
                size_t count = evaluate_count(scores, n, wanted[w], maxima[0]);
                assert_int_equal(count, evaluate_count_naive(scores, n, wanted[w], maxima[1]));
                assert_memory_equal(maxima[0], maxima[1], n / EVALUATE_BLOCK * sizeof(float));
            }
        }
    }
}

static void evaluate_note_top_any_exclusion_equals_sorting(void **state)
{
    float scores[N];
    float maxima[N / EVALUATE_BLOCK];
    unsigned char marks[N] = {0};
    uint16_t best[N];
    struct evaluate_scored heap[K];
    struct evaluate_excluded excluded = {marks, NULL, 0};
    (void)state;
    for (uint64_t round = 0; round < 30; round++) {
        struct evaluate_top top = {best, heap, 1 + round * 7 % K};
        size_t n = N - round * 13;
        fill(scores, round % 3 == 0 ? 5 : 1000, round);
        for (size_t i = 0; i < N; i++) {
            marks[i] = round % 2 == 1 && scores[i] > 0.0F && i % 3 == 0;
        }
        memset(best, 0xff, sizeof(best));
        (void)evaluate_count(scores, N, 0.0F, maxima);
        evaluate_note_top(scores, n, maxima, &excluded, &top);
        for (size_t i = 0; i < n; i++) {
            size_t place = 1;
            for (size_t j = 0; j < n; j++) {
                place +=
                    marks[j] == 0 && (scores[j] > scores[i] || (scores[j] == scores[i] && j < i));
            }
            bool stands = marks[i] == 0 && place <= top.k;
            assert_int_equal(best[i], stands ? place : EVALUATE_PLACE_NONE);
        }
    }
}

static void evaluate_popularity_ties_get_the_last_place(void **state)
{
    static const double values[] = {3.0, 0.0, 7.0, 3.0, 0.0, 0.0};
    static const uint32_t order[] = {2, 0, 3, 1, 4, 5};
    static const uint32_t ranks[] = {3, 6, 1, 3, 6, 6};
    struct evaluate_popularity popularity;
    unsigned char marks[6] = {0, 0, 1, 1, 0, 1};
    uint32_t rows[] = {5, 3, 2};
    struct evaluate_excluded excluded = {marks, rows, 3};
    uint16_t best[6];
    struct evaluate_top top = {best, NULL, 2};
    (void)state;
    assert_int_equal(evaluate_popularity_init(values, 6, &popularity, NULL), STATUS_OK);
    assert_memory_equal(popularity.order, order, sizeof(order));
    assert_memory_equal(popularity.ranks, ranks, sizeof(ranks));
    assert_int_equal(evaluate_popularity_rank(&popularity, 0, &excluded), 1);
    assert_int_equal(evaluate_popularity_rank(&popularity, 1, &excluded), 3);
    memset(best, 0xff, sizeof(best));
    evaluate_popularity_note_top(&popularity, 6, &excluded, &top);
    assert_int_equal(best[0], 1);
    assert_int_equal(best[1], 2);
    assert_int_equal(best[2], EVALUATE_PLACE_NONE);
    assert_int_equal(best[4], EVALUATE_PLACE_NONE);
    evaluate_popularity_free(&popularity);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(evaluate_count_every_size_equals_its_twin),
        cmocka_unit_test(evaluate_note_top_any_exclusion_equals_sorting),
        cmocka_unit_test(evaluate_popularity_ties_get_the_last_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
