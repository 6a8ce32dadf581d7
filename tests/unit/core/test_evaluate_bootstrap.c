#include "core/evaluate_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/alloc.h"

enum { CASES = 4000, RESAMPLES = 2000, PER_USER = 8 };

static void expect_within(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance)) {
        fail_msg("%.6f, expected %.6f ± %.6f", value, expected, tolerance);
    }
}

/* Values of ±1, of which a share s is +1: mean 2s − 1, its standard error
 * sqrt((1 − mean²) / n), where n is the number of what is drawn. */
static void check_signs(size_t per_user, double share, struct evaluate_difference *out)
{
    static double sums[2 * CASES];
    static uint32_t counts[CASES];
    size_t n_users = CASES / per_user;
    for (size_t u = 0; u < n_users; u++) {
        double sign = (double)u < share * (double)n_users ? 1.0 : -1.0;
        sums[2 * u] = sign * (double)per_user; /* all cases of a user are alike */
        sums[2 * u + 1] = (double)per_user;
        counts[u] = (uint32_t)per_user;
    }
    struct bootstrap_sample sample = {sums, counts, n_users, 2};
    assert_int_equal(bootstrap_intervals(&sample, RESAMPLES, 5, 2, out, NULL), STATUS_OK);
    double mean = 2.0 * share - 1.0;
    double half = 1.959964 * sqrt((1.0 - mean * mean) / (double)n_users);
    expect_within(out[0].estimate, mean, 1e-9);
    expect_within(out[0].low, mean - half, 0.12 * half);
    expect_within(out[0].high, mean + half, 0.12 * half);
    /* What does not vary has no interval. */
    expect_within(out[1].estimate, 1.0, 1e-12);
    expect_within(out[1].low, 1.0, 1e-12);
    expect_within(out[1].high, 1.0, 1e-12);
}

static void bootstrap_intervals_of_signs_equal_the_closed_form(void **state)
{
    struct evaluate_difference out[2];
    (void)state;
    check_signs(1, 0.5, out);
    check_signs(1, 0.8, out);
}

static void bootstrap_intervals_users_are_drawn_whole(void **state)
{
    struct evaluate_difference alone[2];
    struct evaluate_difference grouped[2];
    (void)state;
    check_signs(1, 0.5, alone);
    check_signs(PER_USER, 0.5, grouped);
    double ratio = (grouped[0].high - grouped[0].low) / (alone[0].high - alone[0].low);
    expect_within(ratio, sqrt((double)PER_USER), 0.3);
}

static void bootstrap_intervals_threads_do_not_change_a_bit(void **state)
{
    static const double sums[] = {1.0, -2.0, 0.5, 4.0, 0.0};
    static const uint32_t counts[] = {1, 3, 1, 2, 5};
    struct bootstrap_sample sample = {sums, counts, 5, 1};
    struct evaluate_difference one;
    struct evaluate_difference three;
    struct evaluate_difference other;
    (void)state;
    assert_int_equal(bootstrap_intervals(&sample, 501, 9, 1, &one, NULL), STATUS_OK);
    assert_int_equal(bootstrap_intervals(&sample, 501, 9, 3, &three, NULL), STATUS_OK);
    assert_int_equal(bootstrap_intervals(&sample, 501, 10, 1, &other, NULL), STATUS_OK);
    assert_memory_equal(&one, &three, sizeof(one));
    expect_within(one.estimate, 3.5 / 12.0, 1e-12);
    assert_true(one.low < one.estimate && one.estimate < one.high);
    assert_true(one.low != other.low || one.high != other.high);
    mem_fail_nth(1);
    assert_int_equal(bootstrap_intervals(&sample, 501, 9, 1, &other, NULL), STATUS_NOMEM);
    mem_fail_nth(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bootstrap_intervals_of_signs_equal_the_closed_form),
        cmocka_unit_test(bootstrap_intervals_users_are_drawn_whole),
        cmocka_unit_test(bootstrap_intervals_threads_do_not_change_a_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
