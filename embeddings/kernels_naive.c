#include "embeddings/kernels.h"

#include <math.h>

/* The naive twins of kernels.c, which the tests hold the fast ones against. */

void kernel_norm_rows_naive(const float *x, size_t n_rows, size_t dim,
                            const struct kernel_norm *norm, float *out)
{
    for (size_t t = 0; t < n_rows; t++) {
        const float *row = x + t * dim;
        double mean = 0.0;
        double variance = 0.0;
        for (size_t c = 0; c < dim; c++) {
            mean += (double)row[c] / (double)dim;
        }
        for (size_t c = 0; c < dim; c++) {
            const double centred = (double)row[c] - mean;
            variance += centred * centred / (double)dim;
        }
        for (size_t c = 0; c < dim; c++) {
            const double normed = ((double)row[c] - mean) / sqrt(variance + (double)norm->epsilon);
            out[t * dim + c] = (float)(normed * (double)norm->weight[c] + (double)norm->bias[c]);
        }
    }
}

void kernel_residual_rows_naive(const struct kernel_residual *residual, size_t n_rows, size_t dim)
{
    for (size_t i = 0; i < n_rows * dim; i++) {
        residual->sum[i] = residual->a[i] + residual->product[i] + residual->bias[i % dim];
    }
    if (residual->norm != NULL) {
        kernel_norm_rows_naive(residual->sum, n_rows, dim, residual->norm, residual->normed);
    }
}

void kernel_scaled_sum_naive(const float *a, float scale, const float *b, size_t dim, float *out)
{
    for (size_t c = 0; c < dim; c++) {
        out[c] = (float)((double)scale * (double)a[c] + (double)b[c]);
    }
}

void kernel_bias_rows_naive(float *x, size_t ld, size_t n_rows, size_t dim, const float *bias)
{
    for (size_t t = 0; t < n_rows; t++) {
        for (size_t c = 0; c < dim; c++) {
            x[t * ld + c] += bias[c];
        }
    }
}

void kernel_bias_relu_rows_naive(float *x, size_t n_rows, size_t dim, const float *bias)
{
    for (size_t i = 0; i < n_rows * dim; i++) {
        x[i] = fmaxf(x[i] + bias[i % dim], 0.0F);
    }
}

void kernel_bias_gelu_rows_naive(float *x, size_t n_rows, size_t dim, const float *bias)
{
    for (size_t i = 0; i < n_rows * dim; i++) {
        const double value = (double)(x[i] + bias[i % dim]);
        x[i] = (float)(0.5 * value * (1.0 + erf(value / sqrt(2.0))));
    }
}

void kernel_softmax_causal_naive(float *scores, const struct kernel_causal *shape)
{
    for (size_t r = 0; r < shape->n_rows; r++) {
        float *row = scores + r * shape->ld;
        const size_t n = shape->first + r;
        double largest = (double)row[0];
        double sum = 0.0;
        for (size_t c = 0; c < n; c++) {
            largest = fmax(largest, (double)row[c]);
        }
        for (size_t c = 0; c < n; c++) {
            sum += (c == 0 ? (double)shape->first_weight : 1.0) * exp((double)row[c] - largest);
        }
        for (size_t c = 0; c < shape->width; c++) {
            const double weight = c == 0 ? (double)shape->first_weight : 1.0;
            row[c] = c < n ? (float)(weight * exp((double)row[c] - largest) / sum) : 0.0F;
        }
    }
}

void kernel_exp_naive(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)exp(fmax((double)x[i], -87.0));
    }
}

void kernel_dot_rows_naive(const float *rows, size_t ld, size_t n_rows, size_t dim,
                           const float *query, float *out)
{
    for (size_t t = 0; t < n_rows; t++) {
        double sum = 0.0;
        for (size_t c = 0; c < dim; c++) {
            sum += (double)rows[t * ld + c] * (double)query[c];
        }
        out[t] = (float)sum;
    }
}

void kernel_weighted_rows_naive(const float *rows, size_t ld, size_t n_rows, size_t dim,
                                const float *weights, float *out)
{
    for (size_t c = 0; c < dim; c++) {
        double sum = 0.0;
        for (size_t t = 0; t < n_rows; t++) {
            sum += (double)weights[t] * (double)rows[t * ld + c];
        }
        out[c] = (float)sum;
    }
}

void kernel_transpose_naive(const float *x, size_t ld, size_t n_rows, size_t dim, float *out,
                            size_t ld_out)
{
    for (size_t t = 0; t < n_rows; t++) {
        for (size_t c = 0; c < dim; c++) {
            out[c * ld_out + t] = x[t * ld + c];
        }
    }
}
