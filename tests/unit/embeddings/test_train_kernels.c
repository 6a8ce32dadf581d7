#include "embeddings/train/kernels.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "embeddings/train/adamw.h"
#include "embeddings/train/attention_kernel.h"
#include "embeddings/vector_math.h"
#include "gradient_check.h"

static const double TOLERANCE = 1e-4;

static void assert_small(const char *name, double error, double limit)
{
    print_message("%s: %.1e\n", name, error);
    assert_true(error <= limit);
}

/* ---- linear ---- */

/* More rows and outputs than the kernels' blocks, none a multiple of them. */
enum { ROWS = 150, IN = 5, OUT = 37 };
struct linear_problem {
    double x[ROWS * IN], weight[OUT * IN], bias[OUT], dy[ROWS * OUT];
};

static double linear_value(const struct linear_problem *p, size_t i, size_t o)
{
    double y = p->bias[o];
    for (size_t k = 0; k < IN; k++) {
        y += p->x[i * IN + k] * p->weight[o * IN + k];
    }
    return y;
}

static double linear_loss(const void *problem)
{
    const struct linear_problem *p = problem;
    double loss = 0.0;
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t o = 0; o < OUT; o++) {
            loss += p->dy[i * OUT + o] * linear_value(p, i, o);
        }
    }
    return loss;
}

static void linear_backward_odd_sizes_matches_differences(void **state)
{
    (void)state;
    static struct linear_problem p;
    static float x[ROWS * IN];
    static float weight[OUT * IN];
    static float bias[OUT];
    static float dy[ROWS * OUT];
    static float y[ROWS * OUT];
    static float dx[ROWS * IN];
    float dweight[OUT * IN] = {0.0F};
    float dbias[OUT] = {0.0F};
    fill_normal(x, p.x, ROWS * IN, 1);
    fill_normal(weight, p.weight, OUT * IN, 2);
    fill_normal(bias, p.bias, OUT, 3);
    fill_normal(dy, p.dy, ROWS * OUT, 4);
    linear_forward(x, weight, bias, ROWS, IN, OUT, y);
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t o = 0; o < OUT; o++) {
            assert_true(fabs((double)y[i * OUT + o] - linear_value(&p, i, o)) < 1e-5);
        }
    }
    const struct linear_gradients out = {dweight, dbias, dx, false};
    linear_backward(x, weight, dy, ROWS, IN, OUT, &out);
    assert_small("x", gradient_error(linear_loss, &p, p.x, dx, ROWS * IN, 1e-6), TOLERANCE);
    assert_small("weight", gradient_error(linear_loss, &p, p.weight, dweight, OUT * IN, 1e-6),
                 TOLERANCE);
    assert_small("bias", gradient_error(linear_loss, &p, p.bias, dbias, OUT, 1e-6), TOLERANCE);
}

static void linear_backward_called_twice_adds_where_told(void **state)
{
    (void)state;
    static float x[ROWS * IN];
    static float weight[OUT * IN];
    static float dy[ROWS * OUT];
    static float once[ROWS * IN];
    static float twice[ROWS * IN];
    float dweight[OUT * IN] = {0.0F};
    float dweight_twice[OUT * IN] = {0.0F};
    fill_normal(x, NULL, ROWS * IN, 1);
    fill_normal(weight, NULL, OUT * IN, 2);
    fill_normal(dy, NULL, ROWS * OUT, 4);
    memset(once, 0x7f, sizeof(once)); /* written, whatever was there */
    const struct linear_gradients first = {dweight, NULL, once, false};
    linear_backward(x, weight, dy, ROWS, IN, OUT, &first);
    for (int i = 0; i < 2; i++) {
        const struct linear_gradients again = {dweight_twice, NULL, twice, i > 0};
        linear_backward(x, weight, dy, ROWS, IN, OUT, &again);
    }
    for (size_t i = 0; i < ROWS * IN; i++) {
        assert_true(fabsf(twice[i] - 2.0F * once[i]) <= 1e-4F);
    }
    for (size_t i = 0; i < OUT * IN; i++) {
        assert_true(fabsf(dweight_twice[i] - 2.0F * dweight[i]) <= 1e-3F);
    }
    const struct linear_gradients only_x = {NULL, NULL, twice, false};
    linear_backward(x, weight, dy, ROWS, IN, OUT, &only_x);
    assert_memory_equal(twice, once, sizeof(once));
}

static void linear_forward_no_bias_is_product(void **state)
{
    (void)state;
    const float x[] = {1.0F, 2.0F, 3.0F, -1.0F};
    const float weight[] = {2.0F, 0.5F};
    float y[2];
    linear_forward(x, weight, NULL, 2, 2, 1, y);
    assert_true(y[0] == 3.0F && y[1] == 5.5F);
    linear_forward(x, weight, NULL, 0, 2, 1, y);
    assert_true(y[0] == 3.0F);
}

/* ---- layer norm ---- */

enum { NORM_ROWS = 9, DIM = 13 };
static const double EPSILON = 1e-5;
struct norm_problem {
    double x[NORM_ROWS * DIM], weight[DIM], bias[DIM], dy[NORM_ROWS * DIM];
};

static double norm_value(const struct norm_problem *p, size_t i, size_t d)
{
    const double *row = p->x + i * DIM;
    double mean = 0.0;
    double variance = 0.0;
    for (size_t c = 0; c < DIM; c++) {
        mean += row[c] / DIM;
    }
    for (size_t c = 0; c < DIM; c++) {
        variance += (row[c] - mean) * (row[c] - mean) / DIM;
    }
    return (row[d] - mean) / sqrt(variance + EPSILON) * p->weight[d] + p->bias[d];
}

static double norm_loss(const void *problem)
{
    const struct norm_problem *p = problem;
    double loss = 0.0;
    for (size_t i = 0; i < NORM_ROWS; i++) {
        for (size_t d = 0; d < DIM; d++) {
            loss += p->dy[i * DIM + d] * norm_value(p, i, d);
        }
    }
    return loss;
}

static void norm_backward_any_rows_matches_differences(void **state)
{
    (void)state;
    static struct norm_problem p;
    float x[NORM_ROWS * DIM];
    float weight[DIM];
    float bias[DIM];
    float dy[NORM_ROWS * DIM];
    float y[NORM_ROWS * DIM];
    float normed[NORM_ROWS * DIM];
    float inverse[NORM_ROWS];
    fill_normal(x, p.x, NORM_ROWS * DIM, 1);
    fill_normal(weight, p.weight, DIM, 2);
    fill_normal(bias, p.bias, DIM, 3);
    fill_normal(dy, p.dy, NORM_ROWS * DIM, 4);
    norm_forward(x, weight, bias, EPSILON, NORM_ROWS, DIM, y, normed, inverse);
    for (size_t i = 0; i < NORM_ROWS * DIM; i++) {
        assert_true(fabs((double)y[i] - norm_value(&p, i / DIM, i % DIM)) < 1e-5);
    }
    float dx[NORM_ROWS * DIM];
    float dweight[DIM] = {0.0F};
    float dbias[DIM] = {0.0F};
    for (size_t i = 0; i < NORM_ROWS * DIM; i++) {
        dx[i] = 1.0F; /* added to */
    }
    norm_backward(dy, weight, normed, inverse, NORM_ROWS, DIM, dx, dweight, dbias);
    for (size_t i = 0; i < NORM_ROWS * DIM; i++) {
        dx[i] -= 1.0F;
    }
    assert_small("x", gradient_error(norm_loss, &p, p.x, dx, NORM_ROWS * DIM, 1e-6), TOLERANCE);
    assert_small("weight", gradient_error(norm_loss, &p, p.weight, dweight, DIM, 1e-6), TOLERANCE);
    assert_small("bias", gradient_error(norm_loss, &p, p.bias, dbias, DIM, 1e-6), TOLERANCE);
}

/* ---- attention ---- */

enum { A_DIM = 12, A_HISTORY = 7, A_SEQUENCES = 4, A_EVENTS = 13 };
static const uint32_t A_OFFSETS[A_SEQUENCES + 1] = {0, 1, 5, 6, A_EVENTS};
struct attention_problem {
    size_t n_heads;
    double query[A_EVENTS * A_DIM], key[A_EVENTS * A_DIM], value[A_EVENTS * A_DIM];
    double dcontext[A_EVENTS * A_DIM];
};

/* Context of one head of event i of a sequence that begins at first. */
static void naive_attend(const struct attention_problem *p, size_t first, size_t i, size_t h,
                         double *context)
{
    const size_t width = A_DIM / p->n_heads;
    double weights[A_HISTORY];
    double sum = 0.0;
    for (size_t j = first; j <= i; j++) {
        double dot = 0.0;
        for (size_t c = h * width; c < (h + 1) * width; c++) {
            dot += p->query[i * A_DIM + c] * p->key[j * A_DIM + c];
        }
        weights[j - first] = exp(dot / sqrt((double)width));
        sum += weights[j - first];
    }
    for (size_t c = 0; c < width; c++) {
        context[c] = 0.0;
        for (size_t j = first; j <= i; j++) {
            context[c] += weights[j - first] / sum * p->value[j * A_DIM + h * width + c];
        }
    }
}

static void naive_attention(const struct attention_problem *p, double *context)
{
    for (size_t s = 0; s < A_SEQUENCES; s++) {
        for (size_t i = A_OFFSETS[s]; i < A_OFFSETS[s + 1]; i++) {
            for (size_t h = 0; h < p->n_heads; h++) {
                naive_attend(p, A_OFFSETS[s], i, h, context + i * A_DIM + h * (A_DIM / p->n_heads));
            }
        }
    }
}

static double attention_loss(const void *problem)
{
    const struct attention_problem *p = problem;
    double context[A_EVENTS * A_DIM];
    naive_attention(p, context);
    double loss = 0.0;
    for (size_t i = 0; i < A_EVENTS * A_DIM; i++) {
        loss += p->dcontext[i] * context[i];
    }
    return loss;
}

static void check_attention(size_t n_heads)
{
    static struct attention_problem p;
    static float query[A_EVENTS * A_DIM];
    static float key[A_EVENTS * A_DIM];
    static float value[A_EVENTS * A_DIM];
    static float dcontext[A_EVENTS * A_DIM];
    static float context[A_EVENTS * A_DIM];
    static float probabilities[A_EVENTS * 4 * A_HISTORY];
    static double wanted[A_EVENTS * A_DIM];
    static float scratch[64 * 3 * A_HISTORY * A_DIM];
    p.n_heads = n_heads;
    fill_normal(query, p.query, A_EVENTS * A_DIM, 1);
    fill_normal(key, p.key, A_EVENTS * A_DIM, 2);
    fill_normal(value, p.value, A_EVENTS * A_DIM, 3);
    fill_normal(dcontext, p.dcontext, A_EVENTS * A_DIM, 4);
    const struct attention_shape shape = {A_SEQUENCES, A_OFFSETS, A_DIM, n_heads, A_HISTORY};
    assert_true((size_t)omp_get_max_threads() * attention_scratch_floats(&shape) <=
                sizeof(scratch) / sizeof(scratch[0]));
    attention_forward(&shape, query, key, value, probabilities, context);
    naive_attention(&p, wanted);
    for (size_t i = 0; i < A_EVENTS * A_DIM; i++) {
        assert_true(fabs((double)context[i] - wanted[i]) < 1e-5);
    }
    attention_backward(&shape, dcontext, query, key, value, probabilities, scratch);
    const size_t n = A_EVENTS * A_DIM;
    assert_small("query", gradient_error(attention_loss, &p, p.query, query, n, 1e-6), TOLERANCE);
    assert_small("key", gradient_error(attention_loss, &p, p.key, key, n, 1e-6), TOLERANCE);
    assert_small("value", gradient_error(attention_loss, &p, p.value, value, n, 1e-6), TOLERANCE);
}

static void attention_backward_ragged_matches_differences(void **state)
{
    (void)state;
    for (size_t n_heads = 1; n_heads <= 4; n_heads *= 2) {
        check_attention(n_heads);
    }
}

/* ---- activations ---- */

enum { N_ACTIVATED = 1201 };
struct activation_problem {
    bool is_gelu;
    double x[N_ACTIVATED], dy[N_ACTIVATED];
};

static double activated(const struct activation_problem *p, size_t i)
{
    const double x = p->x[i];
    return p->is_gelu ? 0.5 * x * (1.0 + erf(x / sqrt(2.0))) : fmax(x, 0.0);
}

static double activation_loss(const void *problem)
{
    const struct activation_problem *p = problem;
    double loss = 0.0;
    for (size_t i = 0; i < N_ACTIVATED; i++) {
        loss += p->dy[i] * activated(p, i);
    }
    return loss;
}

static void activation_backward_relu_and_gelu_match_differences(void **state)
{
    (void)state;
    static struct activation_problem p;
    static float x[N_ACTIVATED];
    static float y[N_ACTIVATED];
    static float dy[N_ACTIVATED];
    for (int is_gelu = 0; is_gelu < 2; is_gelu++) {
        p.is_gelu = is_gelu != 0;
        fill_normal(dy, p.dy, N_ACTIVATED, 1);
        for (size_t i = 0; i < N_ACTIVATED; i++) {
            x[i] = (float)i * 0.02F - 12.003F; /* misses ReLU's kink by more than a step */
            p.x[i] = (double)x[i];
        }
        activation_forward(x, N_ACTIVATED, p.is_gelu, y);
        double worst = 0.0;
        for (size_t i = 0; i < N_ACTIVATED; i++) {
            worst = fmax(worst, fabs((double)y[i] - activated(&p, i)) / fmax(1.0, fabs(p.x[i])));
        }
        assert_small(p.is_gelu ? "gelu" : "relu", worst, 3e-7);
        activation_backward(x, N_ACTIVATED, p.is_gelu, dy);
        assert_small("gradient", gradient_error(activation_loss, &p, p.x, dy, N_ACTIVATED, 1e-6),
                     1e-5);
    }
}

/* A diverged training must show. */
static void activation_forward_nan_stays_nan(void **state)
{
    (void)state;
    const float x[2] = {NAN, 1.0F};
    float y[2];
    for (int is_gelu = 0; is_gelu < 2; is_gelu++) {
        activation_forward(x, 2, is_gelu != 0, y);
        assert_true(isnan(y[0]) && y[1] > 0.8F);
    }
}

static void exp_fast_whole_range_is_close(void **state)
{
    (void)state;
    double worst = 0.0;
    for (int i = -86999; i <= 87000; i++) {
        const float x = (float)i * 1e-3F;
        const double wanted = exp((double)x);
        worst = fmax(worst, fabs((double)exp_fast(x) - wanted) / wanted);
    }
    assert_small("exp_fast", worst, 3e-7);
    assert_true(exp_fast(-1000.0F) < 1e-37F);
    assert_true(exp_fast(-INFINITY) < 1e-37F);
    assert_true(isnan(exp_fast(NAN)));
}

/* ---- dropout ---- */

enum { N_DROPPED = 100003 };

static void dropout_apply_same_seed_is_its_own_derivative(void **state)
{
    (void)state;
    static float mask[N_DROPPED];
    static float x[N_DROPPED];
    static float dropped[N_DROPPED];
    const double rate = 0.3;
    size_t n_kept = 0;
    fill_normal(x, NULL, N_DROPPED, 5);
    for (size_t i = 0; i < N_DROPPED; i++) {
        mask[i] = 1.0F;
    }
    memcpy(dropped, x, sizeof(x));
    dropout_apply(mask, N_DROPPED, rate, 77);
    dropout_apply(dropped, N_DROPPED, rate, 77);
    for (size_t i = 0; i < N_DROPPED; i++) {
        assert_true(mask[i] == 0.0F || fabsf(mask[i] - 1.0F / 0.7F) < 1e-6F);
        assert_true(dropped[i] == x[i] * mask[i]); /* linear, with the mask as its derivative */
        n_kept += mask[i] != 0.0F ? 1 : 0;
    }
    /* Within 4 deviations of a binomial distribution. */
    const double expected = (1.0 - rate) * N_DROPPED;
    assert_true(fabs((double)n_kept - expected) < 4.0 * sqrt(expected * rate));
}

static void dropout_apply_other_seed_is_independent(void **state)
{
    (void)state;
    static float first[N_DROPPED];
    static float second[N_DROPPED];
    for (uint64_t other = 78; other < 81; other++) {
        size_t n_both = 0;
        for (size_t i = 0; i < N_DROPPED; i++) {
            first[i] = 1.0F;
            second[i] = 1.0F;
        }
        dropout_apply(first, N_DROPPED, 0.5, 77);
        dropout_apply(second, N_DROPPED, 0.5, other);
        for (size_t i = 0; i < N_DROPPED; i++) {
            n_both += first[i] != 0.0F && second[i] != 0.0F ? 1 : 0;
        }
        assert_true(fabs((double)n_both / N_DROPPED - 0.25) < 0.006);
    }
}

static void dropout_apply_rate_zero_changes_nothing(void **state)
{
    (void)state;
    const float kept[3] = {1.0F, -2.0F, 3.0F};
    float x[3] = {1.0F, -2.0F, 3.0F};
    dropout_apply(x, 3, 0.0, 1);
    assert_memory_equal(x, kept, sizeof(kept));
}

/* ---- AdamW ---- */

enum { N_WEIGHTS = 24, ROW = 4 };

static void adamw_update_three_steps_match_the_formula(void **state)
{
    (void)state;
    double weights[N_WEIGHTS];
    double mean[N_WEIGHTS] = {0.0};
    double square[N_WEIGHTS] = {0.0};
    float weights32[N_WEIGHTS];
    float mean32[N_WEIGHTS] = {0.0F};
    float square32[N_WEIGHTS] = {0.0F};
    fill_normal(weights32, weights, N_WEIGHTS, 1);
    for (uint64_t step = 1; step <= 3; step++) {
        float gradient[N_WEIGHTS];
        double gradient64[N_WEIGHTS];
        fill_normal(gradient, gradient64, N_WEIGHTS, 10 + step);
        const struct adamw adamw = {0.05, 0.9, 0.98, 1e-8, 0.2, 0.5, step};
        adamw_update(&adamw, weights32, gradient, mean32, square32, N_WEIGHTS);
        for (size_t i = 0; i < N_WEIGHTS; i++) {
            const double g = 0.5 * gradient64[i];
            mean[i] = 0.9 * mean[i] + 0.1 * g;
            square[i] = 0.98 * square[i] + 0.02 * g * g;
            const double m = mean[i] / (1.0 - pow(0.9, (double)step));
            const double v = square[i] / (1.0 - pow(0.98, (double)step));
            weights[i] = weights[i] * (1.0 - 0.05 * 0.2) - 0.05 * m / (sqrt(v) + 1e-8);
            assert_true(fabs((double)weights32[i] - weights[i]) < 1e-5);
            assert_true(gradient[i] == 0.0F);
        }
    }
}

static void adamw_update_rows_some_rows_leaves_others(void **state)
{
    (void)state;
    const uint32_t rows[] = {4, 1};
    float all[3][N_WEIGHTS] = {{0.0F}};
    float some[3][N_WEIGHTS] = {{0.0F}};
    float gradient[N_WEIGHTS];
    float gradient_some[N_WEIGHTS];
    fill_normal(all[0], NULL, N_WEIGHTS, 1);
    fill_normal(gradient, NULL, N_WEIGHTS, 2);
    memcpy(some, all, sizeof(all));
    memcpy(gradient_some, gradient, sizeof(gradient));
    const float before[N_WEIGHTS] = {0.0F};
    const struct adamw adamw = {0.05, 0.9, 0.98, 1e-8, 0.2, 1.0, 1};
    double squares = 0.0;
    for (size_t i = 0; i < 2 * ROW; i++) {
        const float g = gradient[rows[i / ROW] * ROW + i % ROW];
        squares += (double)g * (double)g;
    }
    assert_true(fabs(squared_norm_rows(gradient, ROW, rows, 2) - squares) < 1e-9);
    adamw_update_rows(&adamw, some[0], gradient_some, some[1], some[2], ROW, rows, 2);
    for (size_t i = 0; i < N_WEIGHTS; i++) {
        const bool is_updated = i / ROW == 4 || i / ROW == 1;
        assert_true((some[0][i] != all[0][i]) == is_updated);
        assert_true((gradient_some[i] == 0.0F) == is_updated);
    }
    adamw_update(&adamw, all[0], gradient, all[1], all[2], N_WEIGHTS);
    for (size_t r = 0; r < 2; r++) {
        for (size_t t = 0; t < 3; t++) {
            assert_memory_equal(some[t] + rows[r] * ROW, all[t] + rows[r] * ROW,
                                ROW * sizeof(float));
        }
    }
    assert_memory_equal(some[1], before, ROW * sizeof(float));
}

static void squared_norm_any_threads_is_same_bits(void **state)
{
    (void)state;
    static float x[200001];
    double wanted = 0.0;
    fill_normal(x, NULL, 200001, 3);
    for (size_t i = 0; i < 200001; i++) {
        wanted += (double)x[i] * (double)x[i];
    }
    const int n_threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const double one = squared_norm(x, 200001);
    omp_set_num_threads(3);
    const double three = squared_norm(x, 200001);
    omp_set_num_threads(n_threads);
    assert_memory_equal(&one, &three, sizeof(one));
    assert_true(fabs(one - wanted) < 1e-9 * wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_backward_odd_sizes_matches_differences),
        cmocka_unit_test(linear_backward_called_twice_adds_where_told),
        cmocka_unit_test(linear_forward_no_bias_is_product),
        cmocka_unit_test(norm_backward_any_rows_matches_differences),
        cmocka_unit_test(attention_backward_ragged_matches_differences),
        cmocka_unit_test(activation_backward_relu_and_gelu_match_differences),
        cmocka_unit_test(activation_forward_nan_stays_nan),
        cmocka_unit_test(exp_fast_whole_range_is_close),
        cmocka_unit_test(dropout_apply_same_seed_is_its_own_derivative),
        cmocka_unit_test(dropout_apply_other_seed_is_independent),
        cmocka_unit_test(dropout_apply_rate_zero_changes_nothing),
        cmocka_unit_test(adamw_update_three_steps_match_the_formula),
        cmocka_unit_test(adamw_update_rows_some_rows_leaves_others),
        cmocka_unit_test(squared_norm_any_threads_is_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
