#ifndef AISLE_EMBEDDINGS_TRAIN_KERNELS_H
#define AISLE_EMBEDDINGS_TRAIN_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Kernels of training with their gradients. Row-major float32; products run on all of BLAS'
 * threads, the rest over OpenMP with a fixed split, so that a fixed number of threads gives the
 * same bits. Legend: T rows (events of a batch), I inputs, O outputs, d dimension. */

/* y[T × O] = x[T × I] weightᵀ + bias; weight [O × I], bias [O] or NULL. */
void linear_forward(const float *x, const float *weight, const float *bias, size_t n_rows,
                    size_t n_in, size_t n_out, float *y);
/* weight_gradient += dyᵀ x, bias_gradient += Σ dy (or NULL); dx = dy weight (or NULL), or dx +=
 * with accumulate. */
struct linear_gradients {
    float *weight, *bias; /* added to; may be NULL */
    float *x;             /* written; may be NULL */
    bool accumulate;      /* x is added to */
};
void linear_backward(const float *x, const float *weight, const float *dy, size_t n_rows,
                     size_t n_in, size_t n_out, const struct linear_gradients *out);

/* y = (x - mean) / √(variance + epsilon) ∘ weight + bias by row; normed [T × d] and inverse [T] are
 * kept for backward. */
void norm_forward(const float *x, const float *weight, const float *bias, double epsilon,
                  size_t n_rows, size_t dim, float *y, float *normed, float *inverse);
/* dx += gradient of x; weight_gradient, bias_gradient += . */
void norm_backward(const float *dy, const float *weight, const float *normed, const float *inverse,
                   size_t n_rows, size_t dim, float *dx, float *weight_gradient,
                   float *bias_gradient);

/* Inverted dropout in place by a counter-based generator: component i is kept when its hash under
 * seed says so, then scaled by 1 / (1 - rate). The same call on a gradient is its derivative. */
void dropout_apply(float *x, size_t n, double rate, uint64_t seed);

/* Uniform in ±limit from a seed, for initial weights. */
void weights_uniform(float *weights, size_t n, double limit, uint64_t seed);
void weights_normal(float *weights, size_t n, double deviation, uint64_t seed);
void weights_fill(float *weights, size_t n, float value);

#endif
