#include "embeddings/kernels.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "embeddings/vector_math.h"

/* Kernels between the matrix products of a forward pass. Legend: T rows, d columns.
 *
 * The products of a transformer of width 64 run near the machine's peak, so that what lies between
 * them is what a forward pass can lose time with: every pass over a row is fused with its
 * neighbours (residual, bias and norm are one; softmax is three passes over a row in the first
 * cache). Loops are plain C, written to be vectorised; target_clones gives each an AVX-512, an AVX2
 * and a plain version in one binary. Rejected: intrinsics, three times the text for no measurable
 * gain here; libm's vector functions, which need -ffast-math.
 *
 * exp: 2^k e^r with |r| ≤ ln 2 / 2, e^r by a polynomial fitted for least largest relative error
 * (3e-9 before rounding). erfc(z) for z ≥ 0: e^(-z²) P(t) with t = 1 / (1 + 0.4 z), the form of C.
 * Hastings, "Approximations for Digital Computers", 1955, with coefficients of degree 6 of our own
 * fit (1.4e-8). GELU is written as max(v, 0) - |v| erfc(|v| / √2) / 2, which loses no digits on
 * either side, where v (1 + erf) / 2 cancels for negative v. */

#define INLINE static inline __attribute__((always_inline))

enum { COLUMNS = 64, LANES = 16, ROWS = 4 };

INLINE float exp_one(float x)
{
    /* Added to a float, this leaves the nearest whole number k, plus the exponent's bias of 127, in
     * the low bits; taken away again, k itself. */
    const float round_and_bias = 12582912.0F + 127.0F;
    const float clamped = x < -87.0F ? -87.0F : x;
    const float shifted = clamped * 1.44269504F + round_and_bias;
    const float k = shifted - round_and_bias;
    float r = clamped - k * 0.693145752F; /* ln 2 in two parts, the first exact when multiplied */
    r -= k * 1.42860677e-6F;
    float p = 0.00138143182F;
    p = p * r + 0.00836885162F;
    p = p * r + 0.0416684002F;
    p = p * r + 0.166665196F;
    p = p * r + 0.49999994F;
    p = p * r * r + r + 1.0F;
    uint32_t bits = 0;
    memcpy(&bits, &shifted, sizeof(bits));
    bits <<= 23;
    float power = 0.0F;
    memcpy(&power, &bits, sizeof(power));
    return p * power;
}

INLINE float gelu_one(float v)
{
    const float z = fabsf(v) * 0.707106781F;
    const float t = 1.0F / (1.0F + 0.4F * z);
    float p = -0.204071432F;
    p = p * t + 0.724829853F;
    p = p * t - 0.396539062F;
    p = p * t + 0.489071876F;
    p = p * t + 0.153447494F;
    p = p * t + 0.233261198F;
    const float complement = p * t * exp_one(-z * z);
    return (v > 0.0F ? v : 0.0F) - 0.5F * fabsf(v) * complement;
}

/* Four floats as one value, for what moves them across: gcc makes poor work of it from loops. Wider
 * ones would be cut up for the plainest CPU before the variants are made. */
typedef float quad __attribute__((vector_size(16)));

INLINE quad load_quad(const float *from)
{
    quad q;
    memcpy(&q, from, sizeof(q));
    return q;
}

INLINE void store_quad(float *to, quad q)
{
    memcpy(to, &q, sizeof(q));
}

/* q[i][j] ↔ q[j][i] */
INLINE void turn_quads(quad q[4])
{
    const quad low01 = __builtin_shufflevector(q[0], q[1], 0, 4, 1, 5);
    const quad low23 = __builtin_shufflevector(q[2], q[3], 0, 4, 1, 5);
    const quad high01 = __builtin_shufflevector(q[0], q[1], 2, 6, 3, 7);
    const quad high23 = __builtin_shufflevector(q[2], q[3], 2, 6, 3, 7);
    q[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
    q[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
    q[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
    q[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}

INLINE quad quarter_sums(const float lanes[LANES])
{
    return (load_quad(lanes) + load_quad(lanes + 4)) +
           (load_quad(lanes + 8) + load_quad(lanes + 12));
}

INLINE float lane_sum(const float lanes[LANES])
{
    const quad q = quarter_sums(lanes);
    return (q[0] + q[2]) + (q[1] + q[3]);
}

/* The sums of ROWS rows' lanes, all at once. */
INLINE quad row_sums(float lanes[ROWS][LANES])
{
    quad q[ROWS];
    for (size_t r = 0; r < ROWS; r++) {
        q[r] = quarter_sums(lanes[r]);
    }
    turn_quads(q);
    return (q[0] + q[1]) + (q[2] + q[3]);
}

INLINE float lane_max(const float lanes[LANES])
{
    float largest[4];
    for (size_t l = 0; l < 4; l++) {
        const float a = lanes[l] > lanes[l + 4] ? lanes[l] : lanes[l + 4];
        const float b = lanes[l + 8] > lanes[l + 12] ? lanes[l + 8] : lanes[l + 12];
        largest[l] = a > b ? a : b;
    }
    const float even = largest[0] > largest[2] ? largest[0] : largest[2];
    const float odd = largest[1] > largest[3] ? largest[1] : largest[3];
    return even > odd ? even : odd;
}

/* lanes[l] = Σ x[c] over the columns c with c mod LANES = l. */
INLINE void add_up(const float *row, size_t dim, float lanes[LANES])
{
    const size_t whole = dim / LANES * LANES;
    float sums[LANES] = {0.0F};
    for (size_t c = 0; c < whole; c += LANES) {
#pragma omp simd
        for (size_t l = 0; l < LANES; l++) {
            sums[l] += row[c + l];
        }
    }
    for (size_t c = whole; c < dim; c++) {
        sums[c - whole] += row[c];
    }
    memcpy(lanes, sums, sizeof(sums));
}

/* The same of (x[c] - centre)². */
INLINE void add_up_squares(const float *row, size_t dim, float centre, float lanes[LANES])
{
    const size_t whole = dim / LANES * LANES;
    float sums[LANES] = {0.0F};
    for (size_t c = 0; c < whole; c += LANES) {
#pragma omp simd
        for (size_t l = 0; l < LANES; l++) {
            const float centred = row[c + l] - centre;
            sums[l] += centred * centred;
        }
    }
    for (size_t c = whole; c < dim; c++) {
        sums[c - whole] += (row[c] - centre) * (row[c] - centre);
    }
    memcpy(lanes, sums, sizeof(sums));
}

/* The row of a residual connection that begins at `at`, and the lanes of its sum. */
INLINE void add_residual(const struct kernel_residual *residual, size_t at, size_t dim,
                         float lanes[LANES])
{
    const size_t whole = dim / LANES * LANES;
    const float *a = residual->a + at;
    const float *product = residual->product + at;
    const float *bias = residual->bias;
    float *sum = residual->sum + at;
    float sums[LANES] = {0.0F};
    for (size_t c = 0; c < whole; c += LANES) {
#pragma omp simd
        for (size_t l = 0; l < LANES; l++) {
            const float value = a[c + l] + product[c + l] + bias[c + l];
            sum[c + l] = value;
            sums[l] += value;
        }
    }
    for (size_t c = whole; c < dim; c++) {
        sum[c] = a[c] + product[c] + bias[c];
        sums[c - whole] += sum[c];
    }
    memcpy(lanes, sums, sizeof(sums));
}

/* ROWS rows at a time (n ≤ ROWS of them there), step by step: their sums are independent, so that
 * the adding up of lanes, the square root and the division are one operation for all. Two passes
 * for the moments: a mean of squares less a square of the mean would cancel. lanes: of the rows'
 * sums. */
INLINE void norm_rows(const float *x, size_t n, size_t dim, float lanes[ROWS][LANES],
                      const struct kernel_norm *norm, float *out)
{
    const float *weight = norm->weight;
    const float *bias = norm->bias;
    float mean[ROWS];
    float scale[ROWS];
    store_quad(mean, row_sums(lanes) / (float)dim);
    for (size_t r = 0; r < n; r++) {
        add_up_squares(x + r * dim, dim, mean[r], lanes[r]);
    }
    store_quad(scale, row_sums(lanes) / (float)dim + norm->epsilon);
    for (size_t r = 0; r < ROWS; r++) {
        scale[r] = 1.0F / sqrtf(scale[r]);
    }
    for (size_t r = 0; r < n; r++) {
        const float *row = x + r * dim;
        float *out_row = out + r * dim;
        const float centre = mean[r];
        const float factor = scale[r];
#pragma omp simd
        for (size_t c = 0; c < dim; c++) {
            out_row[c] = (row[c] - centre) * factor * weight[c] + bias[c];
        }
    }
}

INLINE void all_norm_rows(const float *x, size_t n_rows, size_t dim, const struct kernel_norm *norm,
                          float *out)
{
    for (size_t t = 0; t < n_rows; t += ROWS) {
        const size_t n = n_rows - t < ROWS ? n_rows - t : ROWS;
        float lanes[ROWS][LANES] = {{0.0F}};
        for (size_t r = 0; r < n; r++) {
            add_up(x + (t + r) * dim, dim, lanes[r]);
        }
        norm_rows(x + t * dim, n, dim, lanes, norm, out + t * dim);
    }
}

/* What a multiple of LANES is known to be needs no code for a rest. */
CPU_VARIANTS void kernel_norm_rows(const float *x, size_t n_rows, size_t dim,
                                   const struct kernel_norm *norm, float *out)
{
    if (dim % LANES == 0) {
        all_norm_rows(x, n_rows, dim / LANES * LANES, norm, out);
    } else {
        all_norm_rows(x, n_rows, dim, norm, out);
    }
}

INLINE void all_residual_rows(const struct kernel_residual *residual, size_t n_rows, size_t dim)
{
    for (size_t t = 0; t < n_rows; t += ROWS) {
        const size_t n = n_rows - t < ROWS ? n_rows - t : ROWS;
        float lanes[ROWS][LANES] = {{0.0F}};
        for (size_t r = 0; r < n; r++) {
            add_residual(residual, (t + r) * dim, dim, lanes[r]);
        }
        if (residual->norm != NULL) {
            norm_rows(residual->sum + t * dim, n, dim, lanes, residual->norm,
                      residual->normed + t * dim);
        }
    }
}

CPU_VARIANTS void kernel_residual_rows(const struct kernel_residual *residual, size_t n_rows,
                                       size_t dim)
{
    if (dim % LANES == 0) {
        all_residual_rows(residual, n_rows, dim / LANES * LANES);
    } else {
        all_residual_rows(residual, n_rows, dim);
    }
}

CPU_VARIANTS void kernel_scaled_sum(const float *a, float scale, const float *b, size_t dim,
                                    float *out)
{
#pragma omp simd
    for (size_t c = 0; c < dim; c++) {
        out[c] = scale * a[c] + b[c];
    }
}

CPU_VARIANTS void kernel_bias_rows(float *x, size_t ld, size_t n_rows, size_t dim,
                                   const float *bias)
{
    for (size_t t = 0; t < n_rows; t++) {
        float *row = x + t * ld;
#pragma omp simd
        for (size_t c = 0; c < dim; c++) {
            row[c] += bias[c];
        }
    }
}

CPU_VARIANTS void kernel_bias_relu_rows(float *x, size_t n_rows, size_t dim, const float *bias)
{
    for (size_t t = 0; t < n_rows; t++) {
        float *row = x + t * dim;
#pragma omp simd
        for (size_t c = 0; c < dim; c++) {
            const float value = row[c] + bias[c];
            row[c] = value > 0.0F ? value : 0.0F;
        }
    }
}

CPU_VARIANTS void kernel_bias_gelu_rows(float *x, size_t n_rows, size_t dim, const float *bias)
{
    for (size_t t = 0; t < n_rows; t++) {
        float *row = x + t * dim;
#pragma omp simd
        for (size_t c = 0; c < dim; c++) {
            row[c] = gelu_one(row[c] + bias[c]);
        }
    }
}

/* The largest of n scores; behind them, up to a whole vector, the least number is put. */
INLINE float mask_and_max(float *row, size_t n)
{
    const size_t whole = n / LANES * LANES;
    const uint32_t rest = (uint32_t)(n - whole);
    float lanes[LANES];
    for (size_t l = 0; l < LANES; l++) {
        lanes[l] = -FLT_MAX;
    }
    for (size_t c = 0; c < whole; c += LANES) {
#pragma omp simd
        for (size_t l = 0; l < LANES; l++) {
            lanes[l] = row[c + l] > lanes[l] ? row[c + l] : lanes[l];
        }
    }
    if (rest > 0) {
#pragma omp simd
        for (uint32_t l = 0; l < LANES; l++) {
            row[whole + l] = l < rest ? row[whole + l] : -FLT_MAX;
            lanes[l] = row[whole + l] > lanes[l] ? row[whole + l] : lanes[l];
        }
    }
    return lane_max(lanes);
}

/* Whole vectors only, the last of them masked: a loop's scalar rest, of another length in every
 * row, would cost more than all of its vectors. */
INLINE void softmax_row(float *row, size_t n, size_t width, float first_weight)
{
    const float largest = mask_and_max(row, n);
    const size_t end = (n + LANES - 1) / LANES * LANES;
    float lanes[LANES] = {0.0F};
    for (size_t c = 0; c < end; c += LANES) {
#pragma omp simd
        for (size_t l = 0; l < LANES; l++) {
            const float power = row[c + l] == -FLT_MAX ? 0.0F : exp_one(row[c + l] - largest);
            row[c + l] = power;
            lanes[l] += power;
        }
    }
    const float inverse = 1.0F / (lane_sum(lanes) + row[0] * (first_weight - 1.0F));
    row[0] *= first_weight;
    for (size_t c = 0; c < end; c += LANES) {
#pragma omp simd
        for (size_t l = 0; l < LANES; l++) {
            row[c + l] *= inverse;
        }
    }
    for (size_t c = end; c < width; c += LANES) {
#pragma omp simd
        for (size_t l = 0; l < LANES; l++) {
            row[c + l] = 0.0F;
        }
    }
}

CPU_VARIANTS void kernel_softmax_causal(float *scores, const struct kernel_causal *shape)
{
    for (size_t r = 0; r < shape->n_rows; r++) {
        softmax_row(scores + r * shape->ld, shape->first + r, shape->width, shape->first_weight);
    }
}

CPU_VARIANTS void kernel_exp(float *x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        x[i] = exp_one(x[i]);
    }
}

CPU_VARIANTS void kernel_dot_rows(const float *rows, size_t ld, size_t n_rows, size_t dim,
                                  const float *query, float *out)
{
    for (size_t t = 0; t < n_rows; t++) {
        const float *row = rows + t * ld;
        float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
        for (size_t c = 0; c < dim; c++) {
            sum += row[c] * query[c];
        }
        out[t] = sum;
    }
}

/* A strip of columns at a time, so that its sums stay in registers over all rows. */
CPU_VARIANTS void kernel_weighted_rows(const float *rows, size_t ld, size_t n_rows, size_t dim,
                                       const float *weights, float *out)
{
    size_t first = 0;
    for (; first + COLUMNS <= dim; first += COLUMNS) {
        float sums[COLUMNS] = {0.0F};
        for (size_t t = 0; t < n_rows; t++) {
            const float *row = rows + t * ld + first;
            const float weight = weights[t];
#pragma omp simd
            for (size_t c = 0; c < COLUMNS; c++) {
                sums[c] += weight * row[c];
            }
        }
        memcpy(out + first, sums, sizeof(sums));
    }
    memset(out + first, 0, (dim - first) * sizeof(*out));
    for (size_t t = 0; t < n_rows; t++) {
        const float *row = rows + t * ld;
#pragma omp simd
        for (size_t c = first; c < dim; c++) {
            out[c] += weights[t] * row[c];
        }
    }
}

CPU_VARIANTS void kernel_transpose(const float *x, size_t ld, size_t n_rows, size_t dim, float *out,
                                   size_t ld_out)
{
    const size_t whole_rows = n_rows / 4 * 4;
    const size_t whole_dim = dim / 4 * 4;
    for (size_t t = 0; t < whole_rows; t += 4) {
        for (size_t c = 0; c < whole_dim; c += 4) {
            quad q[4];
            for (size_t i = 0; i < 4; i++) {
                q[i] = load_quad(x + (t + i) * ld + c);
            }
            turn_quads(q);
            for (size_t i = 0; i < 4; i++) {
                store_quad(out + (c + i) * ld_out + t, q[i]);
            }
        }
    }
    for (size_t t = 0; t < n_rows; t++) {
        for (size_t c = t < whole_rows ? whole_dim : 0; c < dim; c++) {
            out[c * ld_out + t] = x[t * ld + c];
        }
    }
}
