#include "base/vectors.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

/* Legend: D components a row; tables are N × D row-major. Data may lie at any address (a mapped
 * file's table starts where its header ends), so every load is unaligned-safe.
 *
 * Three routes: the portable one, and on x86-64 kernels for AVX2 with FMA and F16C, compiled by
 * function attribute and chosen at run time, so that one binary serves every machine without
 * -march. Rows of candidates lie anywhere in a table much larger than the caches, which makes
 * waiting for memory the cost: the kernels ask for rows PREFETCH_ROWS ahead.
 * Rejected: AVX-512 variants, since one row is a few cache lines and the arithmetic is not what the
 * loop waits for; target_clones, since the F16C conversions need intrinsics anyway.
 *
 * Half precision is IEEE 754 binary16, to nearest, ties to even, as VCVTPS2PH does it, including
 * that NaNs keep their upper payload bits and become quiet; both routes give equal bits. */

enum { PREFETCH_ROWS = 6, PREFETCH_BYTES_MAX = 1024, CACHE_LINE_BYTES = 64, LANES = 8, BLOCK = 32 };

static size_t component_bytes(const struct vectors *vectors)
{
    return vectors->type == VECTOR_F16 ? sizeof(uint16_t) : sizeof(float);
}

static const unsigned char *row_at(const struct vectors *vectors, size_t row)
{
    return (const unsigned char *)vectors->data + row * vectors->dim * component_bytes(vectors);
}

static float load_float(const void *values, size_t i)
{
    float value = 0.0F;
    memcpy(&value, (const unsigned char *)values + i * sizeof value, sizeof value);
    return value;
}

static float load_half(const void *halves, size_t i)
{
    uint16_t half = 0;
    memcpy(&half, (const unsigned char *)halves + i * sizeof half, sizeof half);
    return half_to_float(half);
}

uint16_t half_from_float(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = (bits >> 16) & 0x8000U;
    uint32_t magnitude = bits & 0x7fffffffU;
    if (magnitude > 0x7f800000U) {
        return (uint16_t)(sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU));
    }
    if (magnitude >= 0x477ff000U) { /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7c00U);
    }
    uint32_t half = 0;
    uint32_t rest = 0;    /* what the shift drops */
    uint32_t halfway = 0; /* half of the last place kept */
    if (magnitude >= 0x38800000U) {
        half = (magnitude - 0x38000000U) >> 13;
        rest = magnitude & 0x1fffU;
        halfway = 0x1000U;
    } else if (magnitude >= 0x33000000U) { /* subnormal: multiples of 2^-24, from 2^-25 on */
        uint32_t shift = 126 - (magnitude >> 23);
        uint32_t mantissa = (magnitude & 0x7fffffU) | 0x800000U;
        half = mantissa >> shift;
        rest = mantissa & ((1U << shift) - 1);
        halfway = 1U << (shift - 1);
    }
    if (rest > halfway || (rest == halfway && rest != 0 && (half & 1U) != 0)) {
        half++; /* a carry into the exponent is the right result */
    }
    return (uint16_t)(sign | half);
}

float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000U) << 16;
    uint32_t exponent = (half >> 10) & 0x1fU;
    uint32_t mantissa = half & 0x3ffU;
    uint32_t bits = 0;
    float value = 0.0F;
    if (exponent == 0) {
        value = (float)mantissa * 0x1.0p-24F; /* exact */
        memcpy(&bits, &value, sizeof bits);
        bits |= sign;
    } else if (exponent == 0x1f) {
        bits = sign | 0x7f800000U | (mantissa << 13) | (mantissa != 0 ? 0x400000U : 0U);
    } else {
        bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
    }
    memcpy(&value, &bits, sizeof value);
    return value;
}

#if defined(__x86_64__)

#define AVX2_KERNEL __attribute__((target("avx2,fma,f16c")))

/* CPUID traps in virtual machines, so its answer is kept: 0 not asked, 1 no, 2 yes. */
static bool have_avx2(void)
{
    static atomic_int known;
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer == 0) {
        unsigned eax = 0;
        unsigned ebx = 0;
        unsigned ecx = 0;
        unsigned edx = 0;
        bool yes = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
        answer = yes ? 2 : 1;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == 2;
}

AVX2_KERNEL static float sum_of_lanes(__m256 lanes)
{
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    sum = _mm_add_ss(sum, _mm_movehdup_ps(sum));
    return _mm_cvtss_f32(sum);
}

AVX2_KERNEL static __m256 load_floats(const unsigned char *row, size_t i)
{
    const void *at = row + i * sizeof(float);
    return _mm256_loadu_ps((const float *)at);
}

AVX2_KERNEL static __m256 load_halves(const unsigned char *row, size_t i)
{
    const void *at = row + i * sizeof(uint16_t);
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at));
}

/* The last n < LANES components, zeros behind them. */
AVX2_KERNEL static __m256 load_last_floats(const void *values, size_t n)
{
    float last[LANES] = {0};
    memcpy(last, values, n * sizeof *last);
    return _mm256_loadu_ps(last);
}

AVX2_KERNEL static __m256 load_last_halves(const void *halves, size_t n)
{
    uint16_t last[LANES] = {0};
    memcpy(last, halves, n * sizeof *last);
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)last));
}

AVX2_KERNEL static float dot_f32_avx2(const float *query, const unsigned char *row, size_t dim)
{
    __m256 sum0 = _mm256_setzero_ps();
    __m256 sum1 = _mm256_setzero_ps();
    __m256 sum2 = _mm256_setzero_ps();
    __m256 sum3 = _mm256_setzero_ps();
    size_t d = 0;
    for (; d + BLOCK <= dim; d += BLOCK) {
        sum0 = _mm256_fmadd_ps(_mm256_loadu_ps(query + d), load_floats(row, d), sum0);
        sum1 = _mm256_fmadd_ps(_mm256_loadu_ps(query + d + 8), load_floats(row, d + 8), sum1);
        sum2 = _mm256_fmadd_ps(_mm256_loadu_ps(query + d + 16), load_floats(row, d + 16), sum2);
        sum3 = _mm256_fmadd_ps(_mm256_loadu_ps(query + d + 24), load_floats(row, d + 24), sum3);
    }
    for (; d + LANES <= dim; d += LANES) {
        sum0 = _mm256_fmadd_ps(_mm256_loadu_ps(query + d), load_floats(row, d), sum0);
    }
    if (d < dim) {
        sum1 = _mm256_fmadd_ps(load_last_floats(query + d, dim - d),
                               load_last_floats(row + d * sizeof(float), dim - d), sum1);
    }
    return sum_of_lanes(_mm256_add_ps(_mm256_add_ps(sum0, sum1), _mm256_add_ps(sum2, sum3)));
}

AVX2_KERNEL static float dot_f16_avx2(const float *query, const unsigned char *row, size_t dim)
{
    __m256 sum0 = _mm256_setzero_ps();
    __m256 sum1 = _mm256_setzero_ps();
    __m256 sum2 = _mm256_setzero_ps();
    __m256 sum3 = _mm256_setzero_ps();
    size_t d = 0;
    for (; d + BLOCK <= dim; d += BLOCK) {
        sum0 = _mm256_fmadd_ps(_mm256_loadu_ps(query + d), load_halves(row, d), sum0);
        sum1 = _mm256_fmadd_ps(_mm256_loadu_ps(query + d + 8), load_halves(row, d + 8), sum1);
        sum2 = _mm256_fmadd_ps(_mm256_loadu_ps(query + d + 16), load_halves(row, d + 16), sum2);
        sum3 = _mm256_fmadd_ps(_mm256_loadu_ps(query + d + 24), load_halves(row, d + 24), sum3);
    }
    for (; d + LANES <= dim; d += LANES) {
        sum0 = _mm256_fmadd_ps(_mm256_loadu_ps(query + d), load_halves(row, d), sum0);
    }
    if (d < dim) {
        sum1 = _mm256_fmadd_ps(load_last_floats(query + d, dim - d),
                               load_last_halves(row + d * sizeof(uint16_t), dim - d), sum1);
    }
    return sum_of_lanes(_mm256_add_ps(_mm256_add_ps(sum0, sum1), _mm256_add_ps(sum2, sum3)));
}

AVX2_KERNEL static void halves_to_floats_avx2(const unsigned char *halves, size_t n, float *out)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        _mm256_storeu_ps(out + i, load_halves(halves, i));
    }
    if (i < n) {
        float last[LANES];
        _mm256_storeu_ps(last, load_last_halves(halves + i * sizeof(uint16_t), n - i));
        memcpy(out + i, last, (n - i) * sizeof *out);
    }
}

AVX2_KERNEL static void floats_to_halves_avx2(const float *values, size_t n, uint16_t *out)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(out + i), halves);
    }
    if (i < n) {
        uint16_t last[LANES];
        __m128i halves =
            _mm256_cvtps_ph(load_last_floats(values + i, n - i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)last, halves);
        memcpy(out + i, last, (n - i) * sizeof *out);
    }
}

#endif

static float dot_f32_portable(const float *query, const unsigned char *row, size_t dim)
{
    float sums[4] = {0};
    size_t d = 0;
    for (; d + 4 <= dim; d += 4) {
        for (size_t k = 0; k < 4; k++) {
            sums[k] += query[d + k] * load_float(row, d + k);
        }
    }
    for (; d < dim; d++) {
        sums[0] += query[d] * load_float(row, d);
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static float dot_f16_portable(const float *query, const unsigned char *row, size_t dim)
{
    float sums[4] = {0};
    size_t d = 0;
    for (; d + 4 <= dim; d += 4) {
        for (size_t k = 0; k < 4; k++) {
            sums[k] += query[d + k] * load_half(row, d + k);
        }
    }
    for (; d < dim; d++) {
        sums[0] += query[d] * load_half(row, d);
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static void halves_to_floats(const unsigned char *halves, size_t n, float *out)
{
#if defined(__x86_64__)
    if (have_avx2()) {
        halves_to_floats_avx2(halves, n, out);
        return;
    }
#endif
    for (size_t i = 0; i < n; i++) {
        out[i] = load_half(halves, i);
    }
}

void half_to_floats(const uint16_t *values, size_t n, float *out)
{
    halves_to_floats((const unsigned char *)values, n, out);
}

void half_from_floats(const float *values, size_t n, uint16_t *out)
{
#if defined(__x86_64__)
    if (have_avx2()) {
        floats_to_halves_avx2(values, n, out);
        return;
    }
#endif
    for (size_t i = 0; i < n; i++) {
        out[i] = half_from_float(values[i]);
    }
}

void vectors_row(const struct vectors *vectors, size_t row, float *out)
{
    vectors_rows(vectors, row, 1, out);
}

void vectors_rows(const struct vectors *vectors, size_t first, size_t count, float *out)
{
    assert(first <= vectors->n && count <= vectors->n - first);
    size_t n = count * vectors->dim;
    if (n == 0) {
        return;
    }
    if (vectors->type == VECTOR_F16) {
        halves_to_floats(row_at(vectors, first), n, out);
    } else {
        memcpy(out, row_at(vectors, first), n * sizeof *out);
    }
}

typedef float dot_kernel(const float *query, const unsigned char *row, size_t dim);

static dot_kernel *choose_kernel(enum vector_type type)
{
#if defined(__x86_64__)
    if (have_avx2()) {
        return type == VECTOR_F16 ? dot_f16_avx2 : dot_f32_avx2;
    }
#endif
    return type == VECTOR_F16 ? dot_f16_portable : dot_f32_portable;
}

void vectors_dot(const struct vectors *vectors, const float *query, const uint32_t *rows,
                 size_t n_rows, float *scores)
{
    dot_kernel *kernel = choose_kernel(vectors->type);
    size_t prefetch_bytes = vectors->dim * component_bytes(vectors);
    if (prefetch_bytes > PREFETCH_BYTES_MAX) {
        prefetch_bytes = PREFETCH_BYTES_MAX; /* the hardware's streamer does the rest of a row */
    }
    for (size_t i = 0; i < n_rows; i++) {
        if (n_rows - i > PREFETCH_ROWS) {
            const unsigned char *ahead = row_at(vectors, rows[i + PREFETCH_ROWS]);
            for (size_t at = 0; at < prefetch_bytes; at += CACHE_LINE_BYTES) {
                __builtin_prefetch(ahead + at, 0, 0);
            }
        }
        assert(rows[i] < vectors->n);
        scores[i] = kernel(query, row_at(vectors, rows[i]), vectors->dim);
    }
}

void vectors_dot_naive(const struct vectors *vectors, const float *query, const uint32_t *rows,
                       size_t n_rows, float *scores)
{
    for (size_t i = 0; i < n_rows; i++) {
        const unsigned char *row = row_at(vectors, rows[i]);
        float sum = 0.0F;
        for (size_t d = 0; d < vectors->dim; d++) {
            sum +=
                query[d] * (vectors->type == VECTOR_F16 ? load_half(row, d) : load_float(row, d));
        }
        scores[i] = sum;
    }
}

size_t floats_first_not_finite(const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = 0;
        memcpy(&bits, values + i, sizeof bits);
        if ((bits & 0x7f800000U) == 0x7f800000U) {
            return i;
        }
    }
    return n;
}

float vector_norm(const float *vector, size_t dim)
{
    double sum = 0.0;
    for (size_t d = 0; d < dim; d++) {
        sum += (double)vector[d] * (double)vector[d];
    }
    return (float)sqrt(sum);
}
