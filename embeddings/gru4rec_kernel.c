#include "embeddings/gru4rec_kernel.h"

#include "embeddings/vector_math.h"

static inline float sigmoid_fast(float x)
{
    float e = exp_fast(x < 0.0F ? x : -x); /* e^-|x| */
    return (x < 0.0F ? e : 1.0F) / (1.0F + e);
}

/* Where x is small the quotient would lose its digits: a polynomial there. */
static inline float tanh_fast(float x)
{
    float a = x < 0.0F ? -x : x;
    float e = exp_fast(-2.0F * a);
    float large = (1.0F - e) / (1.0F + e);
    float square = x * x;
    float small =
        a * (1.0F - square * (1.0F / 3.0F - square * (2.0F / 15.0F - square * (17.0F / 315.0F))));
    float t = a < 0.15F ? small : large;
    return x < 0.0F ? -t : t;
}

CPU_VARIANTS
void gru4rec_gates(const float *restrict input, const float *restrict hidden, size_t h,
                   float *restrict state)
{
#pragma omp simd
    for (size_t c = 0; c < h; c++) {
        float r = sigmoid_fast(input[c] + hidden[c]);
        float z = sigmoid_fast(input[h + c] + hidden[h + c]);
        float n = tanh_fast(input[2 * h + c] + r * hidden[2 * h + c]);
        state[c] = n + z * (state[c] - n);
    }
}

CPU_VARIANTS
/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
void gru4rec_gates_keep(const float *restrict input, const float *restrict hidden, size_t h,
                        float *restrict state, float *restrict r, float *restrict z,
                        float *restrict n)
{
#pragma omp simd
    for (size_t c = 0; c < h; c++) {
        r[c] = sigmoid_fast(input[c] + hidden[c]);
        z[c] = sigmoid_fast(input[h + c] + hidden[h + c]);
        n[c] = tanh_fast(input[2 * h + c] + r[c] * hidden[2 * h + c]);
        state[c] = n[c] + z[c] * (state[c] - n[c]);
    }
}
