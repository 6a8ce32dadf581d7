#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "base/alloc.h"

enum { SEED = 42, N_DRAWS = 200000 };

static void rng_next_of_known_state_follows_reference(void **state)
{
    (void)state;
    /* From state 1, 2, 3, 4 the generator's definition gives these by hand. */
    struct rng rng = {{1, 2, 3, 4}};
    assert_true(rng_next(&rng) == 11520);
    assert_true(rng_next(&rng) == 0);
    assert_true(rng_next(&rng) == 1509978240);
}

static void rng_init_seeds_by_splitmix64(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 0);
    assert_true(rng.state[0] == UINT64_C(0xe220a8397b1dcdaf)); /* splitmix64's first from 0 */
    struct rng same;
    struct rng other;
    rng_init(&rng, SEED);
    rng_init(&same, SEED);
    rng_init(&other, SEED + 1);
    uint64_t first = rng_next(&rng);
    assert_true(first == rng_next(&same));
    assert_true(first != rng_next(&other));
}

static void rng_below_is_uniform_and_in_range(void **state)
{
    (void)state;
    struct rng rng;
    unsigned counts[7] = {0};
    rng_init(&rng, SEED);
    for (int i = 0; i < N_DRAWS; i++) {
        uint64_t x = rng_below(&rng, 7);
        assert_true(x < 7);
        counts[x]++;
    }
    double chi_square = 0.0;
    for (int k = 0; k < 7; k++) {
        double d = counts[k] - N_DRAWS / 7.0;
        chi_square += d * d / (N_DRAWS / 7.0);
    }
    assert_true(chi_square < 22.5); /* 6 degrees of freedom, p = 0.001 */
    assert_true(rng_below(&rng, 1) == 0);
    for (int i = 0; i < 1000; i++) {
        assert_true(rng_below(&rng, UINT64_MAX / 3 * 2 + 5) < UINT64_MAX / 3 * 2 + 5);
    }
}

static void rng_double_and_float_stay_in_unit_interval(void **state)
{
    (void)state;
    struct rng rng;
    double sum = 0.0;
    rng_init(&rng, SEED);
    for (int i = 0; i < N_DRAWS; i++) {
        double x = rng_double(&rng);
        float y = rng_float(&rng);
        assert_true(x >= 0.0 && x < 1.0);
        assert_true(y >= 0.0F && y < 1.0F);
        sum += x + (double)y;
    }
    assert_true(fabs(sum / (2.0 * N_DRAWS) - 0.5) < 0.003);
}

static void rng_normal_has_moments_of_the_standard_normal(void **state)
{
    (void)state;
    struct rng rng;
    double sum = 0.0;
    double square = 0.0;
    double fourth = 0.0;
    rng_init(&rng, SEED);
    for (int i = 0; i < N_DRAWS; i++) {
        double x = rng_normal(&rng);
        sum += x;
        square += x * x;
        fourth += x * x * x * x;
    }
    assert_true(fabs(sum / N_DRAWS) < 0.01);
    assert_true(fabs(square / N_DRAWS - 1.0) < 0.02);
    assert_true(fabs(fourth / N_DRAWS - 3.0) < 0.15);
}

static void alias_table_draw_follows_weights(void **state)
{
    (void)state;
    static const double weights[] = {1.0, 0.0, 3.0, 0.5, 10.0, 0.0, 5.5};
    enum { N = sizeof weights / sizeof *weights };
    struct alias_table table;
    struct rng rng;
    unsigned counts[N] = {0};
    rng_init(&rng, SEED);
    assert_int_equal(alias_table_init(&table, weights, N, NULL), STATUS_OK);
    for (int i = 0; i < N_DRAWS; i++) {
        uint32_t k = alias_table_draw(&table, &rng);
        assert_true(k < N);
        counts[k]++;
    }
    for (int k = 0; k < N; k++) {
        double p = weights[k] / 20.0;
        double sigma = sqrt(p * (1.0 - p) / N_DRAWS);
        assert_true(fabs((double)counts[k] / N_DRAWS - p) <= 4.0 * sigma);
    }
    assert_int_equal(counts[1], 0);
    assert_int_equal(counts[5], 0);
    alias_table_free(&table);
    alias_table_free(NULL);
}

static void alias_table_draw_never_gives_weight_zero(void **state)
{
    (void)state;
    enum { N = 1000 };
    double weights[N];
    struct alias_table table;
    struct rng rng;
    rng_init(&rng, SEED);
    for (size_t i = 0; i < N; i++) {
        weights[i] = i % 3 == 0 ? 0.0 : 0.1 * (double)(i % 7 + 1);
    }
    assert_int_equal(alias_table_init(&table, weights, N, NULL), STATUS_OK);
    double share[N] = {0};
    for (size_t i = 0; i < N; i++) {
        share[i] += (double)table.threshold[i];
        share[table.alias[i]] += 1.0 - (double)table.threshold[i];
    }
    double sum = 0.0;
    for (size_t i = 0; i < N; i++) {
        sum += weights[i];
    }
    for (size_t i = 0; i < N; i++) {
        assert_true(fabs(share[i] - weights[i] / sum * N) < 1e-5);
        assert_true(weights[i] > 0.0 || share[i] == 0.0);
    }
    for (int i = 0; i < N_DRAWS; i++) {
        assert_true(weights[alias_table_draw(&table, &rng)] > 0.0);
    }
    alias_table_free(&table);
}

static void alias_table_init_huge_weights_do_not_overflow(void **state)
{
    (void)state;
    static const double weights[] = {1e308, 1e308, 1e308};
    struct alias_table table;
    assert_int_equal(alias_table_init(&table, weights, 3, NULL), STATUS_OK);
    for (size_t i = 0; i < 3; i++) {
        assert_true(table.alias[i] == i || table.threshold[i] > 0.999F);
    }
    alias_table_free(&table);
}

static void alias_table_init_bad_weights_are_invalid(void **state)
{
    (void)state;
    static const double bad[][2] = {
        {0.0, 0.0}, {1.0, -1.0}, {1.0, (double)NAN}, {(double)INFINITY, 1.0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct alias_table table;
        struct error err = {0};
        assert_int_equal(alias_table_init(&table, bad[i], 2, &err), STATUS_INVALID);
        assert_null(table.threshold);
        assert_null(table.alias);
        assert_int_equal(table.n, 0);
        assert_int_equal(err.code, STATUS_INVALID);
    }
    struct alias_table table;
    assert_int_equal(alias_table_init(&table, bad[0], 0, NULL), STATUS_INVALID);
}

static void alias_table_init_without_memory_is_nomem(void **state)
{
    (void)state;
    static const double weights[] = {1.0, 2.0};
    struct alias_table table;
    enum status status = STATUS_NOMEM;
    int64_t n = 0;
    while (status == STATUS_NOMEM) {
        mem_fail_nth(++n);
        status = alias_table_init(&table, weights, 2, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || (table.threshold == NULL && table.n == 0));
    }
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(n, 5);
    alias_table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rng_next_of_known_state_follows_reference),
        cmocka_unit_test(rng_init_seeds_by_splitmix64),
        cmocka_unit_test(rng_below_is_uniform_and_in_range),
        cmocka_unit_test(rng_double_and_float_stay_in_unit_interval),
        cmocka_unit_test(rng_normal_has_moments_of_the_standard_normal),
        cmocka_unit_test(alias_table_draw_follows_weights),
        cmocka_unit_test(alias_table_draw_never_gives_weight_zero),
        cmocka_unit_test(alias_table_init_huge_weights_do_not_overflow),
        cmocka_unit_test(alias_table_init_bad_weights_are_invalid),
        cmocka_unit_test(alias_table_init_without_memory_is_nomem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
