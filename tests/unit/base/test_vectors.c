#include "base/vectors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"

enum { SEED = 7, N_ROWS = 40, DIM_LARGEST = 4096 };

static uint32_t bits_of(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value = 0.0F;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The half's value by its definition, in double. */
static double half_by_definition(uint16_t half)
{
    int exponent = (half >> 10) & 31;
    double mantissa = half & 1023;
    double magnitude =
        exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024.0 + mantissa, exponent - 25);
    return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

static void half_to_float_all_halves_are_exact(void **state)
{
    (void)state;
    for (uint32_t h = 0; h <= UINT16_MAX; h++) {
        float value = half_to_float((uint16_t)h);
        if (((h >> 10) & 31) < 31) {
            assert_true((double)value == half_by_definition((uint16_t)h));
            assert_true((signbit(value) != 0) == (h >= 0x8000));
        } else if ((h & 1023) == 0) {
            assert_true(isinf(value) && (value < 0.0F) == (h >= 0x8000));
        } else {
            assert_true(isnan(value));
        }
    }
}

static void half_from_float_all_halves_come_back(void **state)
{
    (void)state;
    for (uint32_t h = 0; h <= UINT16_MAX; h++) {
        bool is_nan = ((h >> 10) & 31) == 31 && (h & 1023) != 0;
        uint32_t expected = is_nan ? h | 0x200 : h; /* NaNs become quiet */
        assert_int_equal(half_from_float(half_to_float((uint16_t)h)), expected);
    }
}

static void half_from_float_between_halves_rounds_to_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float low = half_to_float((uint16_t)h);
        float high = half_to_float((uint16_t)(h + 1));
        float middle = low + (high - low) / 2; /* exact */
        uint32_t even = (h & 1) == 0 ? h : h + 1;
        assert_int_equal(half_from_float(middle), even);
        assert_int_equal(half_from_float(nextafterf(middle, 0.0F)), h);
        assert_int_equal(half_from_float(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(half_from_float(-middle), even | 0x8000);
    }
}

static void half_from_float_edges_are_right(void **state)
{
    (void)state;
    assert_int_equal(half_from_float(65504.0F), 0x7bff);
    assert_int_equal(half_from_float(nextafterf(65520.0F, 0.0F)), 0x7bff);
    assert_int_equal(half_from_float(65520.0F), 0x7c00);
    assert_int_equal(half_from_float(3e38F), 0x7c00);
    assert_int_equal(half_from_float(-INFINITY), 0xfc00);
    assert_int_equal(half_from_float(0x1.0p-24F), 0x0001);
    assert_int_equal(half_from_float(0x1.0p-25F), 0x0000);
    assert_int_equal(half_from_float(-0x1.0p-25F), 0x8000);
    assert_int_equal(half_from_float(0x1.000002p-25F), 0x0001);
    assert_int_equal(half_from_float(1e-40F), 0x0000);
    assert_int_equal(half_from_float(-0.0F), 0x8000);
    assert_int_equal(half_from_float(NAN) & 0x7e00, 0x7e00);
}

static void half_arrays_agree_with_single_conversions(void **state)
{
    (void)state;
    enum { N = 65536 };
    uint16_t *halves = mem_alloc_array(N, sizeof *halves);
    float *floats = mem_alloc_array(N, sizeof *floats);
    struct rng rng;
    rng_init(&rng, SEED);
    assert_non_null(halves);
    assert_non_null(floats);
    for (uint32_t h = 0; h < N; h++) {
        halves[h] = (uint16_t)h;
    }
    half_to_floats(halves, N, floats);
    for (uint32_t h = 0; h < N; h++) {
        assert_true(bits_of(floats[h]) == bits_of(half_to_float((uint16_t)h)));
    }
    for (int round = 0; round < 16; round++) {
        for (size_t i = 0; i < N; i++) {
            uint32_t bits = (uint32_t)rng_next(&rng);
            if (i % 2 == 0) { /* near the halves' range, where rounding happens */
                bits = (bits & 0x87ffffffU) | 0x30000000U;
            }
            floats[i] = float_of(bits);
        }
        half_from_floats(floats, N, halves);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(halves[i], half_from_float(floats[i]));
        }
    }
    mem_free(halves);
    mem_free(floats);
}

static void half_arrays_of_odd_length_write_no_further(void **state)
{
    (void)state;
    for (size_t n = 0; n <= 19; n++) {
        float floats[24];
        uint16_t halves[24];
        for (size_t i = 0; i < 24; i++) {
            floats[i] = (float)i + 0.5F;
            halves[i] = 0xabcd;
        }
        half_from_floats(floats, n, halves);
        for (size_t i = 0; i < 24; i++) {
            assert_int_equal(halves[i], i < n ? half_from_float((float)i + 0.5F) : 0xabcd);
            floats[i] = -1.0F;
        }
        half_to_floats(halves, n, floats);
        for (size_t i = 0; i < 24; i++) {
            assert_true(floats[i] == (i < n ? (float)i + 0.5F : -1.0F));
        }
    }
}

/* A table of N_ROWS × dim that starts `offset` bytes behind an aligned address. */
static unsigned char *make_table(struct vectors *vectors, size_t dim, enum vector_type type,
                                 size_t offset)
{
    size_t n = N_ROWS * dim;
    size_t size = type == VECTOR_F16 ? sizeof(uint16_t) : sizeof(float);
    /* Ends with the block, so that a read past the last row is seen by a sanitizer. */
    unsigned char *block = mem_alloc(n * size + offset);
    struct rng rng;
    assert_non_null(block);
    rng_init(&rng, SEED + dim);
    for (size_t i = 0; i < n; i++) {
        float value = (float)rng_normal(&rng);
        uint16_t half = half_from_float(value);
        const void *from = type == VECTOR_F16 ? (const void *)&half : (const void *)&value;
        memcpy(block + offset + i * size, from, size);
    }
    *vectors = (struct vectors){.data = block + offset, .n = N_ROWS, .dim = dim, .type = type};
    return block;
}

static void check_dot(size_t dim, enum vector_type type, size_t offset)
{
    struct vectors vectors;
    unsigned char *block = make_table(&vectors, dim, type, offset);
    float *query = mem_alloc_array(dim, sizeof *query);
    float *row = mem_alloc_array(dim, sizeof *row);
    struct rng rng;
    uint32_t rows[N_ROWS + 3];
    float scores[N_ROWS + 4];
    float naive[N_ROWS + 3];
    rng_init(&rng, SEED);
    assert_non_null(query);
    assert_non_null(row);
    for (size_t d = 0; d < dim; d++) {
        query[d] = (float)rng_normal(&rng);
    }
    for (size_t i = 0; i < N_ROWS + 3; i++) {
        rows[i] = i == 0 ? N_ROWS - 1 : (uint32_t)rng_below(&rng, N_ROWS);
    }
    scores[N_ROWS + 3] = 123.0F;
    vectors_dot(&vectors, query, rows, N_ROWS + 3, scores);
    vectors_dot_naive(&vectors, query, rows, N_ROWS + 3, naive);
    assert_true(scores[N_ROWS + 3] == 123.0F);
    for (size_t i = 0; i < N_ROWS + 3; i++) {
        double exact = 0.0;
        double magnitude = 0.0;
        vectors_row(&vectors, rows[i], row);
        for (size_t d = 0; d < dim; d++) {
            exact += (double)query[d] * (double)row[d];
            magnitude += fabs((double)query[d] * (double)row[d]);
        }
        double tolerance = magnitude * (double)dim * 0x1.0p-24 + 1e-12;
        assert_true(fabs((double)scores[i] - exact) <= tolerance);
        assert_true(fabs((double)naive[i] - exact) <= tolerance);
    }
    mem_free(row);
    mem_free(query);
    mem_free(block);
}

static void vectors_dot_odd_sizes_agree_with_naive(void **state)
{
    (void)state;
    static const size_t dims[] = {1,  2,  3,  7,  8,  9,  15,  16,         17,
                                  31, 32, 33, 63, 64, 65, 511, DIM_LARGEST};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        for (size_t offset = 0; offset < 4; offset++) {
            check_dot(dims[i], VECTOR_F32, offset);
            check_dot(dims[i], VECTOR_F16, offset);
        }
    }
}

static void vectors_dot_no_rows_writes_nothing(void **state)
{
    (void)state;
    static const float data[] = {1.0F, 2.0F};
    static const float query[] = {1.0F, 1.0F};
    struct vectors vectors = {data, 1, 2, VECTOR_F32};
    float score = 9.0F;
    vectors_dot(&vectors, query, NULL, 0, &score);
    assert_true(score == 9.0F);
    uint32_t row = 0;
    vectors_dot(&vectors, query, &row, 1, &score);
    assert_true(score == 3.0F);
}

static void vectors_rows_copy_the_range(void **state)
{
    (void)state;
    static const enum vector_type types[] = {VECTOR_F32, VECTOR_F16};
    for (size_t t = 0; t < 2; t++) {
        enum { DIM = 9 };
        struct vectors vectors;
        unsigned char *block = make_table(&vectors, DIM, types[t], 1);
        float range[3 * DIM];
        float row[DIM];
        vectors_rows(&vectors, N_ROWS - 3, 3, range);
        for (size_t i = 0; i < 3; i++) {
            vectors_row(&vectors, N_ROWS - 3 + i, row);
            assert_memory_equal(row, range + i * DIM, sizeof row);
        }
        row[0] = 77.0F;
        vectors_rows(&vectors, N_ROWS, 0, row);
        assert_true(row[0] == 77.0F);
        mem_free(block);
    }
}

static void floats_first_not_finite_finds_the_first(void **state)
{
    (void)state;
    float values[] = {1.0F, -0.0F, 3e38F, 1e-40F, NAN, INFINITY};
    assert_int_equal(floats_first_not_finite(values, 6), 4);
    assert_int_equal(floats_first_not_finite(values, 4), 4);
    values[1] = -INFINITY;
    assert_int_equal(floats_first_not_finite(values, 6), 1);
    assert_int_equal(floats_first_not_finite(values, 0), 0);
}

static void vector_norm_does_not_overflow_in_between(void **state)
{
    (void)state;
    static const float plain[] = {3.0F, 4.0F};
    static const float large[] = {3e30F, 4e30F};
    assert_true(vector_norm(plain, 2) == 5.0F);
    assert_true(fabsf(vector_norm(large, 2) / 5e30F - 1.0F) < 1e-6F);
    assert_true(vector_norm(plain, 0) == 0.0F);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_to_float_all_halves_are_exact),
        cmocka_unit_test(half_from_float_all_halves_come_back),
        cmocka_unit_test(half_from_float_between_halves_rounds_to_even),
        cmocka_unit_test(half_from_float_edges_are_right),
        cmocka_unit_test(half_arrays_agree_with_single_conversions),
        cmocka_unit_test(half_arrays_of_odd_length_write_no_further),
        cmocka_unit_test(vectors_dot_odd_sizes_agree_with_naive),
        cmocka_unit_test(vectors_dot_no_rows_writes_nothing),
        cmocka_unit_test(vectors_rows_copy_the_range),
        cmocka_unit_test(floats_first_not_finite_finds_the_first),
        cmocka_unit_test(vector_norm_does_not_overflow_in_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
