#ifndef AISLE_EMBEDDINGS_KERNELS_H
#define AISLE_EMBEDDINGS_KERNELS_H

#include <stddef.h>

/* What a forward pass does between its matrix products, float32, row-major. Bare: dimensions and
 * finiteness are the caller's matter. No kernel allocates; all are thread-safe. Each has a twin
 * *_naive that says the same in plain loops, sums in double; they agree within a few
 * roundings of the largest term (kernel_transpose bit for bit).
 * Legend: T rows, d columns. Outputs may be the very array of an input where that is said. */

/* Affine layer normalisation: (x - mean) / √(variance + epsilon) ∘ weight + bias. */
struct kernel_norm {
    const float *weight, *bias; /* [d] */
    float epsilon;
};
/* out[T × d] = norm of every row of x[T × d]; out may be x. */
void kernel_norm_rows(const float *x, size_t n_rows, size_t dim, const struct kernel_norm *norm,
                      float *out);
void kernel_norm_rows_naive(const float *x, size_t n_rows, size_t dim,
                            const struct kernel_norm *norm, float *out);

/* A residual connection with what surrounds it: sum = a + product + bias, then normed = its norm.
 */
struct kernel_residual {
    const float *a, *product;       /* [T × d] */
    const float *bias;              /* [d] */
    float *sum;                     /* [T × d], may be a or product */
    const struct kernel_norm *norm; /* or NULL: no norm */
    float *normed;                  /* [T × d], may be a, product or sum; unused without norm */
};
void kernel_residual_rows(const struct kernel_residual *residual, size_t n_rows, size_t dim);
void kernel_residual_rows_naive(const struct kernel_residual *residual, size_t n_rows, size_t dim);

/* out[d] = scale × a + b. */
void kernel_scaled_sum(const float *a, float scale, const float *b, size_t dim, float *out);
void kernel_scaled_sum_naive(const float *a, float scale, const float *b, size_t dim, float *out);

/* x[T × d], rows ld apart, += bias[d]. */
void kernel_bias_rows(float *x, size_t ld, size_t n_rows, size_t dim, const float *bias);
void kernel_bias_rows_naive(float *x, size_t ld, size_t n_rows, size_t dim, const float *bias);

/* x[T × d] = max(x + bias, 0), and the exact GELU: v Φ(v) of v = x + bias, within 1e-6 absolute. */
void kernel_bias_relu_rows(float *x, size_t n_rows, size_t dim, const float *bias);
void kernel_bias_relu_rows_naive(float *x, size_t n_rows, size_t dim, const float *bias);
void kernel_bias_gelu_rows(float *x, size_t n_rows, size_t dim, const float *bias);
void kernel_bias_gelu_rows_naive(float *x, size_t n_rows, size_t dim, const float *bias);

/* Causal softmax of a block of score rows, ld apart: row r keeps its first `first + r` columns
 * (≥ 1), the others up to `width` become 0; ld is a multiple of 16, of which the row is written as
 * far as whole sixteens go. Column 0 counts first_weight times: 1, or how many
 * equal columns it stands for; it comes out multiplied by that too. */
struct kernel_causal {
    size_t ld, n_rows, first, width;
    float first_weight; /* ≥ 1 */
};
void kernel_softmax_causal(float *scores, const struct kernel_causal *shape);
void kernel_softmax_causal_naive(float *scores, const struct kernel_causal *shape);

/* e^x in place for x ≤ 88, within 2 units in the last place; under -87 as at -87 (1.6e-38). */
void kernel_exp(float *x, size_t n);
void kernel_exp_naive(float *x, size_t n);

/* out[T] = rows[T × d] · query[d]; rows are ld apart. */
void kernel_dot_rows(const float *rows, size_t ld, size_t n_rows, size_t dim, const float *query,
                     float *out);
void kernel_dot_rows_naive(const float *rows, size_t ld, size_t n_rows, size_t dim,
                           const float *query, float *out);
/* out[d] = Σ weights[t] rows[t][·]; zeros for T = 0. */
void kernel_weighted_rows(const float *rows, size_t ld, size_t n_rows, size_t dim,
                          const float *weights, float *out);
void kernel_weighted_rows_naive(const float *rows, size_t ld, size_t n_rows, size_t dim,
                                const float *weights, float *out);

/* out[d × T] (rows ld_out apart) = transposed x[T × d] (rows ld apart). */
void kernel_transpose(const float *x, size_t ld, size_t n_rows, size_t dim, float *out,
                      size_t ld_out);
void kernel_transpose_naive(const float *x, size_t ld, size_t n_rows, size_t dim, float *out,
                            size_t ld_out);

#endif
