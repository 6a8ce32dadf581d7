/* Attention of training. Histories of shops are short (5 to 50 events), so a sequence's scores are
 * made by plain loops over heads' slices, which vectorise over components; products by BLAS start
 * to pay at hundreds of events. In backward the gradients of query, key and value are collected in
 * a thread's own rows and replace what they were computed from: nothing else needs them then.
 *
 * Legend: n events of a sequence, e = d / heads components of a head. */
#include "embeddings/train/attention_kernel.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "embeddings/vector_math.h"

enum { ACTIVATION_BLOCK = 8192, PARALLEL_MIN = 65536 };

/* One head of one sequence: rows are d apart. */
struct head {
    size_t n, dim, width, stride; /* width: of the head; stride: of a row of probabilities */
    float scale;
};

CPU_VARIANTS
static void head_forward(const struct head *head, const float *query, const float *key,
                         const float *value, float *probabilities, float *context)
{
    for (size_t i = 0; i < head->n; i++) {
        const float *q = query + i * head->dim;
        float *p = probabilities + i * head->stride;
        float largest = -INFINITY;
        for (size_t j = 0; j <= i; j++) {
            const float *k = key + j * head->dim;
            float dot = 0.0F;
#pragma omp simd reduction(+ : dot)
            for (size_t c = 0; c < head->width; c++) {
                dot += q[c] * k[c];
            }
            p[j] = dot * head->scale;
            largest = p[j] > largest ? p[j] : largest;
        }
        float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
        for (size_t j = 0; j <= i; j++) {
            float e = exp_fast(p[j] - largest);
            p[j] = e;
            sum += e;
        }
        float inverse = 1.0F / sum;
        float *out = context + i * head->dim;
        for (size_t c = 0; c < head->width; c++) {
            out[c] = 0.0F;
        }
        for (size_t j = 0; j <= i; j++) {
            const float *v = value + j * head->dim;
            float weight = p[j] * inverse;
            p[j] = weight;
#pragma omp simd
            for (size_t c = 0; c < head->width; c++) {
                out[c] += weight * v[c];
            }
        }
    }
}

/* dq, dk, dv: rows of the head alone, width apart, zero at the start. */
CPU_VARIANTS
/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static void head_backward(const struct head *head, const float *dcontext, const float *query,
                          const float *key, const float *value, float *probabilities, float *dq,
                          float *dk, float *dv)
{
    size_t width = head->width;
    for (size_t i = 0; i < head->n; i++) {
        const float *dout = dcontext + i * head->dim;
        const float *q = query + i * head->dim;
        float *p = probabilities + i * head->stride;
        float mean = 0.0F; /* Σ p dp */
        for (size_t j = 0; j <= i; j++) {
            const float *v = value + j * head->dim;
            float *dvj = dv + j * width;
            float dp = 0.0F;
            float weight = p[j];
#pragma omp simd reduction(+ : dp)
            for (size_t c = 0; c < width; c++) {
                dp += dout[c] * v[c];
                dvj[c] += weight * dout[c];
            }
            mean += weight * dp;
        }
        for (size_t j = 0; j <= i; j++) {
            const float *v = value + j * head->dim;
            const float *k = key + j * head->dim;
            float *dkj = dk + j * width;
            float *dqi = dq + i * width;
            float dp = 0.0F;
#pragma omp simd reduction(+ : dp)
            for (size_t c = 0; c < width; c++) {
                dp += dout[c] * v[c];
            }
            float ds = p[j] * (dp - mean) * head->scale;
#pragma omp simd
            for (size_t c = 0; c < width; c++) {
                dkj[c] += ds * q[c];
                dqi[c] += ds * k[c];
            }
        }
    }
}

static struct head head_of(const struct attention_shape *shape, size_t n)
{
    size_t width = shape->dim / shape->n_heads;
    return (struct head){n, shape->dim, width, shape->n_heads * shape->history_max,
                         (float)(1.0 / sqrt((double)width))};
}

void attention_forward(const struct attention_shape *shape, const float *query, const float *key,
                       const float *value, float *probabilities, float *context)
{
#pragma omp parallel for schedule(dynamic, 8)
    for (size_t s = 0; s < shape->n_sequences; s++) {
        size_t first = shape->offsets[s];
        struct head head = head_of(shape, shape->offsets[s + 1] - first);
        for (size_t h = 0; h < shape->n_heads; h++) {
            size_t at = first * shape->dim + h * head.width;
            head_forward(&head, query + at, key + at, value + at,
                         probabilities + first * head.stride + h * shape->history_max,
                         context + at);
        }
    }
}

/* Rows of the gradients back into the places of what they belong to. */
static void scatter(const struct head *head, const float *rows, float *out)
{
    for (size_t i = 0; i < head->n; i++) {
        memcpy(out + i * head->dim, rows + i * head->width, head->width * sizeof(float));
    }
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static void sequence_backward(const struct attention_shape *shape, size_t s, const float *dcontext,
                              float *query, float *key, float *value, float *probabilities,
                              float *rows)
{
    size_t first = shape->offsets[s];
    struct head head = head_of(shape, shape->offsets[s + 1] - first);
    size_t size = head.n * head.width;
    for (size_t h = 0; h < shape->n_heads; h++) {
        size_t at = first * shape->dim + h * head.width;
        memset(rows, 0, 3 * size * sizeof(float));
        head_backward(&head, dcontext + at, query + at, key + at, value + at,
                      probabilities + first * head.stride + h * shape->history_max, rows,
                      rows + size, rows + 2 * size);
        scatter(&head, rows, query + at);
        scatter(&head, rows + size, key + at);
        scatter(&head, rows + 2 * size, value + at);
    }
}

size_t attention_scratch_floats(const struct attention_shape *shape)
{
    return 3 * shape->history_max * (shape->dim / shape->n_heads);
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
void attention_backward(const struct attention_shape *shape, const float *dcontext, float *query,
                        float *key, float *value, float *probabilities, float *scratch)
{
    size_t n_scratch = attention_scratch_floats(shape);
#pragma omp parallel for schedule(dynamic, 8)
    for (size_t s = 0; s < shape->n_sequences; s++) {
        sequence_backward(shape, s, dcontext, query, key, value, probabilities,
                          scratch + (size_t)omp_get_thread_num() * n_scratch);
    }
}

CPU_VARIANTS
static void gelu(const float *restrict x, size_t n, float *restrict y)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float density;
        y[i] = x[i] * normal_share(x[i], &density);
    }
}

CPU_VARIANTS
static void gelu_gradient(const float *restrict x, size_t n, float *restrict dy)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float density;
        float share = normal_share(x[i], &density);
        dy[i] *= share + x[i] * density;
    }
}

static size_t activation_block(size_t n, size_t block)
{
    size_t rest = n - block * ACTIVATION_BLOCK;
    return rest < ACTIVATION_BLOCK ? rest : ACTIVATION_BLOCK;
}

void activation_forward(const float *x, size_t n, bool is_gelu, float *y)
{
    size_t n_blocks = (n + ACTIVATION_BLOCK - 1) / ACTIVATION_BLOCK;
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (size_t b = 0; b < n_blocks; b++) {
        size_t first = b * ACTIVATION_BLOCK;
        size_t n_block = activation_block(n, b);
        if (is_gelu) {
            gelu(x + first, n_block, y + first);
            continue;
        }
        for (size_t i = first; i < first + n_block; i++) {
            y[i] = x[i] < 0.0F ? 0.0F : x[i]; /* a NaN stays one */
        }
    }
}

void activation_backward(const float *x, size_t n, bool is_gelu, float *dy)
{
    size_t n_blocks = (n + ACTIVATION_BLOCK - 1) / ACTIVATION_BLOCK;
#pragma omp parallel for schedule(static) if (n > PARALLEL_MIN)
    for (size_t b = 0; b < n_blocks; b++) {
        size_t first = b * ACTIVATION_BLOCK;
        size_t n_block = activation_block(n, b);
        if (is_gelu) {
            gelu_gradient(x + first, n_block, dy + first);
            continue;
        }
        for (size_t i = first; i < first + n_block; i++) {
            dy[i] *= x[i] > 0.0F ? 1.0F : 0.0F;
        }
    }
}
