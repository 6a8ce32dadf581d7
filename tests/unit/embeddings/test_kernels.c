#include "embeddings/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"

/* Every kernel against its naive twin on odd sizes and at every alignment of a float. What lies
 * behind a result must stay as it was. */
enum { ROWS_MAX = 21, DIM_MAX = 130, N = ROWS_MAX * DIM_MAX + 64 };
static const size_t dims[] = {1, 2, 3, 4, 7, 12, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100, 128, 129};
static const size_t row_counts[] = {0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 20};
enum {
    N_DIMS = sizeof(dims) / sizeof(dims[0]),
    N_ROW_COUNTS = sizeof(row_counts) / sizeof(row_counts[0])
};

static float a[N], b[N], weight[N], bias[N], fast[N], naive[N], fast_too[N], naive_too[N];

static void fill(float *values, size_t n, double scale, struct rng *rng)
{
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)(scale * rng_normal(rng));
    }
}

static void fill_all(uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    fill(a, N, 2.0, &rng);
    fill(b, N, 2.0, &rng);
    fill(weight, N, 1.0, &rng);
    fill(bias, N, 1.0, &rng);
    fill(fast, N, 1.0, &rng);
    memcpy(naive, fast, sizeof(naive));
    memcpy(fast_too, fast, sizeof(naive));
    memcpy(naive_too, fast, sizeof(naive));
}

static void assert_same(const float *got, const float *wanted, double tolerance)
{
    double largest = 1.0;
    for (size_t i = 0; i < N; i++) {
        largest = fmax(largest, fabs((double)wanted[i]));
    }
    for (size_t i = 0; i < N; i++) {
        if (!(fabs((double)got[i] - (double)wanted[i]) <= tolerance * largest)) {
            fail_msg("value %zu is %.9g, wanted %.9g", i, (double)got[i], (double)wanted[i]);
        }
    }
}

/* Calls check with every size and an alignment that changes along. */
static void for_sizes(void (*check)(size_t n_rows, size_t dim, size_t shift))
{
    size_t shift = 0;
    for (size_t d = 0; d < N_DIMS; d++) {
        for (size_t r = 0; r < N_ROW_COUNTS; r++) {
            fill_all(d * 100 + r);
            check(row_counts[r], dims[d], shift);
            shift = (shift + 1) % 16;
        }
    }
}

static void check_norm(size_t n_rows, size_t dim, size_t shift)
{
    const struct kernel_norm norm = {weight + shift, bias + shift, 1e-5F};
    kernel_norm_rows(a + shift, n_rows, dim, &norm, fast + shift);
    kernel_norm_rows_naive(a + shift, n_rows, dim, &norm, naive + shift);
    assert_same(fast, naive, 3e-6);
    memcpy(fast, naive, sizeof(fast));
    kernel_norm_rows(fast + shift, n_rows, dim, &norm, fast + shift); /* in place */
    kernel_norm_rows_naive(naive + shift, n_rows, dim, &norm, naive + shift);
    assert_same(fast, naive, 3e-5); /* of two values nearly alike, their difference is rounding */
}

static void norm_rows_any_size_matches_naive(void **state)
{
    (void)state;
    for_sizes(check_norm);
}

static void norm_rows_far_from_zero_keeps_digits(void **state)
{
    (void)state;
    fill_all(1);
    for (size_t i = 0; i < 64; i++) {
        a[i] += 4096.0F;
    }
    const struct kernel_norm norm = {weight, bias, 1e-8F};
    kernel_norm_rows(a, 1, 64, &norm, fast);
    kernel_norm_rows_naive(a, 1, 64, &norm, naive);
    assert_same(fast, naive, 5e-4); /* a's own last place is 2^-12 */
}

static void check_residual(size_t n_rows, size_t dim, size_t shift)
{
    const struct kernel_norm norm = {weight + shift, bias, 1e-5F};
    struct kernel_residual residual = {.a = a + shift,
                                       .product = b + shift,
                                       .bias = bias + shift,
                                       .sum = fast + shift,
                                       .norm = &norm,
                                       .normed = fast_too + shift};
    kernel_residual_rows(&residual, n_rows, dim);
    residual.sum = naive + shift;
    residual.normed = naive_too + shift;
    kernel_residual_rows_naive(&residual, n_rows, dim);
    assert_same(fast, naive, 1e-6);
    assert_same(fast_too, naive_too, 3e-6);
    residual.norm = NULL;
    residual.a = fast + shift;
    residual.sum = fast + shift; /* in place */
    kernel_residual_rows(&residual, n_rows, dim);
    residual.a = naive + shift;
    residual.sum = naive + shift;
    kernel_residual_rows_naive(&residual, n_rows, dim);
    assert_same(fast, naive, 1e-6);
    assert_same(fast_too, naive_too, 3e-6);
}

static void residual_rows_any_size_matches_naive(void **state)
{
    (void)state;
    for_sizes(check_residual);
}

static void check_bias(size_t n_rows, size_t dim, size_t shift)
{
    if (n_rows > 0 && dim > 1) {
        kernel_bias_rows(fast + shift, dim, n_rows, dim - 1, bias + shift);
        kernel_bias_rows_naive(naive + shift, dim, n_rows, dim - 1, bias + shift);
        assert_same(fast, naive, 1e-6);
    }
    kernel_bias_relu_rows(fast + shift, n_rows, dim, bias + shift);
    kernel_bias_relu_rows_naive(naive + shift, n_rows, dim, bias + shift);
    assert_same(fast, naive, 1e-6);
    kernel_bias_gelu_rows(fast + shift, n_rows, dim, bias + shift);
    kernel_bias_gelu_rows_naive(naive + shift, n_rows, dim, bias + shift);
    assert_same(fast, naive, 1e-6);
    kernel_scaled_sum(a + shift, 1.7F, b + shift, dim, fast_too + shift);
    kernel_scaled_sum_naive(a + shift, 1.7F, b + shift, dim, naive_too + shift);
    assert_same(fast_too, naive_too, 1e-6);
}

static void bias_activation_any_size_match_naive(void **state)
{
    (void)state;
    for_sizes(check_bias);
}

static void gelu_whole_range_errs_under_a_millionth(void **state)
{
    (void)state;
    const float no_bias[1] = {0.0F};
    double worst = 0.0;
    for (int i = -400000; i <= 400000; i++) {
        const float v = (float)i * 5e-5F;
        float got = v;
        kernel_bias_gelu_rows(&got, 1, 1, no_bias);
        const double wanted = (double)v * 0.5 * erfc(-(double)v / sqrt(2.0));
        /* Absolute, but for large v: one unit in its last place. */
        worst = fmax(worst, fabs((double)got - wanted) / fmax(1.0, fabs((double)v)));
    }
    print_message("gelu: largest error %.3g\n", worst);
    assert_true(worst < 2.5e-7);
    float ends[2] = {-1e30F, 1e30F};
    const float no_biases[2] = {0.0F, 0.0F};
    kernel_bias_gelu_rows(ends, 1, 2, no_biases);
    assert_true(ends[0] == 0.0F || fabsf(ends[0]) < 1e-6F);
    assert_true(ends[1] == 1e30F);
}

static void exp_whole_range_errs_under_two_units(void **state)
{
    (void)state;
    enum { STEP = 1024 };
    double worst = 0.0;
    for (int i = -87 * STEP * 16; i < 88 * STEP * 16; i += STEP) {
        float got[STEP];
        for (int j = 0; j < STEP; j++) {
            got[j] = (float)(i + j) / (STEP * 16.0F);
        }
        float x[STEP];
        memcpy(x, got, sizeof(x));
        kernel_exp(got, STEP);
        for (int j = 0; j < STEP; j++) {
            const double wanted = exp((double)x[j]);
            const double unit = ldexp(1.0, ilogb(wanted) - 23);
            worst = fmax(worst, fabs((double)got[j] - wanted) / unit);
        }
    }
    print_message("exp: largest error %.3g units in the last place\n", worst);
    assert_true(worst < 2.0);
    float low[3] = {-87.5F, -1e30F, -INFINITY};
    kernel_exp(low, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_true(low[i] >= 0.0F && low[i] < 2e-38F);
    }
}

static void exp_any_size_matches_naive(void **state)
{
    (void)state;
    for (size_t n = 0; n < 70; n++) {
        fill_all(n);
        kernel_exp(fast + n % 5, n);
        kernel_exp_naive(naive + n % 5, n);
        assert_same(fast, naive, 2.5e-7);
    }
}

static void softmax_causal_any_size_matches_naive(void **state)
{
    (void)state;
    enum { LD = 80 };
    for (size_t n_rows = 1; n_rows <= 16; n_rows++) {
        for (size_t first = 1; first + n_rows <= LD; first += 3) {
            const struct kernel_causal shape = {LD, n_rows, first, first + n_rows - 1,
                                                first % 2 == 0 ? 1.0F : 37.0F};
            fill_all(first);
            memcpy(fast, a, sizeof(fast));
            memcpy(naive, a, sizeof(naive));
            kernel_softmax_causal(fast, &shape);
            kernel_softmax_causal_naive(naive, &shape);
            for (size_t r = 0; r < n_rows; r++) { /* behind width is the kernel's to write */
                memcpy(fast + r * LD + shape.width, naive + r * LD + shape.width,
                       (LD - shape.width) * sizeof(float));
            }
            assert_same(fast, naive, 1e-6);
        }
    }
}

static void softmax_causal_extreme_scores_stay_finite(void **state)
{
    (void)state;
    float row[32] = {[3] = 3e38F, [4] = -3e38F, [5] = 3e38F, [20] = NAN};
    kernel_softmax_causal(row, &(struct kernel_causal){32, 1, 20, 25, 5.0F});
    assert_true(fabsf(row[3] - 0.5F) < 1e-6F && fabsf(row[5] - 0.5F) < 1e-6F);
    for (size_t c = 0; c < 25; c++) {
        assert_true(c == 3 || c == 5 || (row[c] >= 0.0F && row[c] < 1e-30F));
    }
}

static void check_rows(size_t n_rows, size_t dim, size_t shift)
{
    kernel_dot_rows(a + shift, dim, n_rows, dim, b + shift, fast + shift);
    kernel_dot_rows_naive(a + shift, dim, n_rows, dim, b + shift, naive + shift);
    assert_same(fast, naive, 1e-5); /* a hundred terms of either sign */
    kernel_weighted_rows(a + shift, dim, n_rows, dim, weight + shift, fast_too + shift);
    kernel_weighted_rows_naive(a + shift, dim, n_rows, dim, weight + shift, naive_too + shift);
    assert_same(fast_too, naive_too, 1e-5);
}

static void dot_and_weighted_rows_any_size_match_naive(void **state)
{
    (void)state;
    for_sizes(check_rows);
}

static void check_transpose(size_t n_rows, size_t dim, size_t shift)
{
    kernel_transpose(a + shift, dim, n_rows, dim, fast + shift, ROWS_MAX);
    kernel_transpose_naive(a + shift, dim, n_rows, dim, naive + shift, ROWS_MAX);
    assert_memory_equal(fast, naive, sizeof(fast));
}

static void transpose_any_size_matches_naive(void **state)
{
    (void)state;
    for_sizes(check_transpose);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_rows_any_size_matches_naive),
        cmocka_unit_test(norm_rows_far_from_zero_keeps_digits),
        cmocka_unit_test(residual_rows_any_size_matches_naive),
        cmocka_unit_test(bias_activation_any_size_match_naive),
        cmocka_unit_test(gelu_whole_range_errs_under_a_millionth),
        cmocka_unit_test(exp_whole_range_errs_under_two_units),
        cmocka_unit_test(exp_any_size_matches_naive),
        cmocka_unit_test(softmax_causal_any_size_matches_naive),
        cmocka_unit_test(softmax_causal_extreme_scores_stay_finite),
        cmocka_unit_test(dot_and_weighted_rows_any_size_match_naive),
        cmocka_unit_test(transpose_any_size_matches_naive),
    };
    return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
