#include "embeddings/train/adamw.h"

#include <math.h>
#include <omp.h>

#include "embeddings/vector_math.h"

enum { BLOCK = 16384, PARALLEL_MIN = 65536, NORM_BLOCKS_MAX = 4096 };

struct factors {
    float beta1, beta2, epsilon, scale;
    float rate;   /* with the first moment's correction */
    float square; /* √ of the second moment's correction, inverted */
    float keep;   /* 1 - rate × decay */
};

static struct factors factors_of(const struct adamw *a)
{
    double step = (double)a->step;
    return (struct factors){
        .beta1 = (float)a->beta1,
        .beta2 = (float)a->beta2,
        .epsilon = (float)a->epsilon,
        .scale = (float)a->scale,
        .rate = (float)(a->rate / (1.0 - pow(a->beta1, step))),
        .square = (float)(1.0 / sqrt(1.0 - pow(a->beta2, step))),
        .keep = (float)(1.0 - a->rate * a->decay),
    };
}

CPU_VARIANTS
static void update(const struct factors *f, float *restrict weights, float *restrict gradient,
                   float *restrict mean, float *restrict square, size_t n)
{
    const struct factors k = *f;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float g = gradient[i] * k.scale;
        float m = k.beta1 * mean[i] + (1.0F - k.beta1) * g;
        float v = k.beta2 * square[i] + (1.0F - k.beta2) * g * g;
        mean[i] = m;
        square[i] = v;
        gradient[i] = 0.0F;
        weights[i] = weights[i] * k.keep - k.rate * m / (__builtin_sqrtf(v) * k.square + k.epsilon);
    }
}

void adamw_update(const struct adamw *adamw, float *weights, float *gradient, float *mean,
                  float *square, size_t n)
{
    const struct factors f = factors_of(adamw);
    size_t n_blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (size_t b = 0; b < n_blocks; b++) {
        size_t first = b * BLOCK;
        size_t n_block = n - first < BLOCK ? n - first : BLOCK;
        update(&f, weights + first, gradient + first, mean + first, square + first, n_block);
    }
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
void adamw_update_rows(const struct adamw *adamw, float *weights, float *gradient, float *mean,
                       float *square, size_t dim, const uint32_t *rows, size_t n_rows)
{
    const struct factors f = factors_of(adamw);
#pragma omp parallel for schedule(static) if (n_rows * dim > PARALLEL_MIN)
    for (size_t r = 0; r < n_rows; r++) {
        size_t at = rows[r] * dim;
        update(&f, weights + at, gradient + at, mean + at, square + at, dim);
    }
}

CPU_VARIANTS
static double block_norm(const float *x, size_t n)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sum;
}

double squared_norm(const float *x, size_t n)
{
    double parts[NORM_BLOCKS_MAX];
    size_t size = BLOCK;
    while ((n + size - 1) / size > NORM_BLOCKS_MAX) {
        size *= 2;
    }
    size_t n_blocks = (n + size - 1) / size;
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (size_t b = 0; b < n_blocks; b++) {
        size_t first = b * size;
        parts[b] = block_norm(x + first, n - first < size ? n - first : size);
    }
    double sum = 0.0;
    for (size_t b = 0; b < n_blocks; b++) {
        sum += parts[b];
    }
    return sum;
}

double squared_norm_rows(const float *table, size_t dim, const uint32_t *rows, size_t n_rows)
{
    double sum = 0.0;
    for (size_t r = 0; r < n_rows; r++) {
        sum += block_norm(table + rows[r] * dim, dim);
    }
    return sum;
}
