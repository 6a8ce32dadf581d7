#ifndef AISLE_BASE_VECTORS_H
#define AISLE_BASE_VECTORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* A table of item vectors, N × D row-major, as it lies in a mapped file. Item vectors are stored as
 * float32, or as float16 in large releases (half the memory; an error of at most 2^-11 relative per
 * component). Borrowed: whoever mapped the file keeps it mapped. */
enum vector_type { VECTOR_F32, VECTOR_F16 };

struct vectors {
    const void *data;
    size_t n;   /* rows */
    size_t dim; /* components a row */
    enum vector_type type;
};

enum { VECTOR_DIM_MIN = 1, VECTOR_DIM_MAX = 4096 };

/* Copies row (< n) to out[dim] as float32. */
void vectors_row(const struct vectors *vectors, size_t row, float *out);
/* Copies rows[first .. first+count) to out[count × dim] as float32. */
void vectors_rows(const struct vectors *vectors, size_t first, size_t count, float *out);
/* Inner products of query[dim] with the given rows: scores[n_rows]. Sums in float32, several
 * accumulators; vectors_dot_naive is its twin. */
void vectors_dot(const struct vectors *vectors, const float *query, const uint32_t *rows,
                 size_t n_rows, float *scores);
void vectors_dot_naive(const struct vectors *vectors, const float *query, const uint32_t *rows,
                       size_t n_rows, float *scores);

/* float ↔ IEEE 754 half, round to nearest even; conversion of arrays. */
uint16_t half_from_float(float value);
float half_to_float(uint16_t half);
void half_from_floats(const float *values, size_t n, uint16_t *out);
void half_to_floats(const uint16_t *values, size_t n, float *out);

/* The one helper that refuses NaN and infinities: index of the first non-finite value or n. */
size_t floats_first_not_finite(const float *values, size_t n);
float vector_norm(const float *vector, size_t dim);

#endif
