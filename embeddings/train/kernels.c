/* Kernels of training. Parallelism is over fixed blocks of rows, each one a BLAS call of one
 * thread: a block's product has the same bits whoever computes it, so that results do not depend on
 * the number of threads, and no second pool of threads (BLAS' own) competes with OpenMP's for the
 * cores. A weight gradient, which sums over all rows of a batch, is split over its own rows
 * instead, so that no two threads add to one place and no partial sums need merging.
 *
 * Callers set BLAS to one thread (training_threads). */
#include "embeddings/train/kernels.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "embeddings/vector_math.h"

enum {
    ROW_BLOCK = 128, /* rows of x a product takes at once */
    OUT_BLOCK = 32,  /* rows of a weight gradient */
    ELEMENT_BLOCK = 16384,
    PARALLEL_MIN = 32768, /* elements from which a second thread pays */
};

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
void linear_forward(const float *x, const float *weight, const float *bias, size_t n_rows,
                    size_t n_in, size_t n_out, float *y)
{
    size_t n_blocks = (n_rows + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel for schedule(dynamic, 1) if (n_blocks > 1)
    for (size_t block = 0; block < n_blocks; block++) {
        size_t first = block * ROW_BLOCK;
        size_t n = min_size(ROW_BLOCK, n_rows - first);
        float *out = y + first * n_out;
        if (bias != NULL) {
            for (size_t i = 0; i < n; i++) {
                memcpy(out + i * n_out, bias, n_out * sizeof(float));
            }
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)n_out, (int)n_in, 1.0F,
                    x + first * n_in, (int)n_in, weight, (int)n_in, bias != NULL ? 1.0F : 0.0F, out,
                    (int)n_out);
    }
}

static void add_columns(const float *dy, size_t n_rows, size_t n_out, size_t first, size_t n,
                        float *bias)
{
    for (size_t i = 0; i < n_rows; i++) {
        const float *row = dy + i * n_out + first;
#pragma omp simd
        for (size_t o = 0; o < n; o++) {
            bias[first + o] += row[o];
        }
    }
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
void linear_backward(const float *x, const float *weight, const float *dy, size_t n_rows,
                     size_t n_in, size_t n_out, const struct linear_gradients *out)
{
    if (n_rows == 0) {
        return;
    }
    size_t n_weight = out->weight != NULL ? (n_out + OUT_BLOCK - 1) / OUT_BLOCK : 0;
    size_t n_x = out->x != NULL ? (n_rows + ROW_BLOCK - 1) / ROW_BLOCK : 0;
#pragma omp parallel for schedule(dynamic, 1) if (n_weight + n_x > 1)
    for (size_t block = 0; block < n_weight + n_x; block++) {
        if (block < n_weight) {
            size_t first = block * OUT_BLOCK;
            size_t n = min_size(OUT_BLOCK, n_out - first);
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n, (int)n_in, (int)n_rows,
                        1.0F, dy + first, (int)n_out, x, (int)n_in, 1.0F,
                        out->weight + first * n_in, (int)n_in);
            if (out->bias != NULL) {
                add_columns(dy, n_rows, n_out, first, n, out->bias);
            }
        } else {
            size_t first = (block - n_weight) * ROW_BLOCK;
            size_t n = min_size(ROW_BLOCK, n_rows - first);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)n_in, (int)n_out,
                        1.0F, dy + first * n_out, (int)n_out, weight, (int)n_in,
                        out->accumulate ? 1.0F : 0.0F, out->x + first * n_in, (int)n_in);
        }
    }
}

CPU_VARIANTS
/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static float norm_row(const float *restrict row, const float *restrict weight,
                      const float *restrict bias, double epsilon, size_t dim, float *restrict y,
                      float *restrict normed)
{
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (size_t d = 0; d < dim; d++) {
        sum += row[d];
    }
    float mean = sum / (float)dim;
    float squares = 0.0F;
#pragma omp simd reduction(+ : squares)
    for (size_t d = 0; d < dim; d++) {
        squares += (row[d] - mean) * (row[d] - mean);
    }
    float scale = (float)(1.0 / sqrt((double)squares / (double)dim + epsilon));
#pragma omp simd
    for (size_t d = 0; d < dim; d++) {
        float value = (row[d] - mean) * scale;
        normed[d] = value;
        y[d] = value * weight[d] + bias[d];
    }
    return scale;
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
void norm_forward(const float *x, const float *weight, const float *bias, double epsilon,
                  size_t n_rows, size_t dim, float *y, float *normed, float *inverse)
{
#pragma omp parallel for schedule(static) if (n_rows * dim > PARALLEL_MIN)
    for (size_t i = 0; i < n_rows; i++) {
        inverse[i] =
            norm_row(x + i * dim, weight, bias, epsilon, dim, y + i * dim, normed + i * dim);
    }
}

CPU_VARIANTS
static void norm_input_gradient(const float *dy, const float *weight, const float *normed,
                                float inverse, size_t dim, float *dx)
{
    float sum = 0.0F;
    float dot = 0.0F;
#pragma omp simd reduction(+ : sum, dot)
    for (size_t d = 0; d < dim; d++) {
        float g = dy[d] * weight[d];
        sum += g;
        dot += g * normed[d];
    }
    sum /= (float)dim;
    dot /= (float)dim;
#pragma omp simd
    for (size_t d = 0; d < dim; d++) {
        dx[d] += inverse * (dy[d] * weight[d] - sum - normed[d] * dot);
    }
}

CPU_VARIANTS
static void norm_weight_gradient(const float *restrict dy, const float *restrict normed,
                                 size_t n_rows, size_t dim, float *restrict weight_gradient,
                                 float *restrict bias_gradient)
{
    for (size_t i = 0; i < n_rows; i++) {
#pragma omp simd
        for (size_t d = 0; d < dim; d++) {
            weight_gradient[d] += dy[i * dim + d] * normed[i * dim + d];
            bias_gradient[d] += dy[i * dim + d];
        }
    }
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
void norm_backward(const float *dy, const float *weight, const float *normed, const float *inverse,
                   size_t n_rows, size_t dim, float *dx, float *weight_gradient,
                   float *bias_gradient)
{
#pragma omp parallel for schedule(static) if (n_rows * dim > PARALLEL_MIN)
    for (size_t i = 0; i < n_rows; i++) {
        norm_input_gradient(dy + i * dim, weight, normed + i * dim, inverse[i], dim, dx + i * dim);
    }
    norm_weight_gradient(dy, normed, n_rows, dim, weight_gradient, bias_gradient);
}

/* A 32-bit finaliser (full avalanche) of counter and seed: a mask needs no state and no memory. */
static inline uint32_t mixed(uint32_t counter, uint32_t low, uint32_t high)
{
    uint32_t h = counter * 0x9e3779b9U + low;
    h ^= h >> 16;
    h *= 0x7feb352dU;
    h ^= (h >> 15) + high;
    h *= 0x846ca68bU;
    h ^= h >> 16;
    return h;
}

/* Components first … end - 1 of x; a mask is two products, which only wide registers make cheap. */
CPU_VARIANTS
static void dropout_block(float *x, size_t first, size_t end, uint32_t threshold, float scale,
                          uint64_t seed)
{
    uint32_t low = (uint32_t)seed;
    uint32_t high = (uint32_t)(seed >> 32);
#pragma omp simd
    for (size_t i = first; i < end; i++) {
        float keep = mixed((uint32_t)i, low, high) >= threshold ? scale : 0.0F;
        x[i] *= keep;
    }
}

void dropout_apply(float *x, size_t n, double rate, uint64_t seed)
{
    if (rate <= 0.0) {
        return;
    }
    uint32_t threshold = (uint32_t)(rate * 4294967296.0);
    float scale = (float)(1.0 / (1.0 - rate));
    size_t n_blocks = (n + ELEMENT_BLOCK - 1) / ELEMENT_BLOCK;
#pragma omp parallel for schedule(static) if (n_blocks > 2)
    for (size_t block = 0; block < n_blocks; block++) {
        size_t first = block * ELEMENT_BLOCK;
        dropout_block(x, first, min_size(first + ELEMENT_BLOCK, n), threshold, scale, seed);
    }
}

void weights_uniform(float *weights, size_t n, double limit, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        weights[i] = (float)((2.0 * rng_double(&rng) - 1.0) * limit);
    }
}

void weights_normal(float *weights, size_t n, double deviation, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        weights[i] = (float)(rng_normal(&rng) * deviation);
    }
}

void weights_fill(float *weights, size_t n, float value)
{
    for (size_t i = 0; i < n; i++) {
        weights[i] = value;
    }
}
