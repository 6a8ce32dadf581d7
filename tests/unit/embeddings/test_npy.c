#include "embeddings/npy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILE_BYTES = 512 };

/* Builds a file as NumPy lays it out: header padded so that data begin at a multiple of 64. */
static size_t make_file(unsigned char *out, unsigned version, const char *dictionary,
                        const void *data, size_t n_data)
{
    const size_t prefix = version == 1 ? 10 : 12;
    const size_t text_len = strlen(dictionary);
    const size_t end = (prefix + text_len + 1 + 63) / 64 * 64;
    assert_true(end + n_data <= FILE_BYTES);
    memset(out, ' ', end);
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (unsigned char)version;
    out[7] = 0;
    const size_t length = end - prefix;
    out[8] = (unsigned char)(length & 0xff);
    out[9] = (unsigned char)(length >> 8);
    if (version != 1) {
        out[10] = out[11] = 0;
    }
    memcpy(out + prefix, dictionary, text_len);
    out[end - 1] = '\n';
    memcpy(out + end, data, n_data);
    return end + n_data;
}

static const float six[6] = {1.0F, 2.0F, 3.0F, -4.0F, 5.5F, 0.0F};

static void npy_parse_float32_of_each_version_gives_view(void **state)
{
    (void)state;
    static const char *const dictionaries[] = {
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
        "{\"shape\":(2,3,),\"descr\":\"<f4\",\"fortran_order\":False}",
    };
    for (unsigned version = 1; version <= 3; version++) {
        for (size_t d = 0; d < 2; d++) {
            _Alignas(64) unsigned char file[FILE_BYTES];
            const size_t n = make_file(file, version, dictionaries[d], six, sizeof(six));
            struct vectors vectors;
            struct error err = {.code = STATUS_OK};
            assert_int_equal(npy_parse(file, n, &vectors, &err), STATUS_OK);
            assert_int_equal(vectors.n, 2);
            assert_int_equal(vectors.dim, 3);
            assert_int_equal(vectors.type, VECTOR_F32);
            assert_memory_equal(vectors.data, six, sizeof(six));
        }
    }
}

static void npy_parse_float16_gives_view(void **state)
{
    (void)state;
    _Alignas(64) unsigned char file[FILE_BYTES];
    uint16_t halves[6];
    half_from_floats(six, 6, halves);
    const size_t n = make_file(
        file, 1, "{'descr': '<f2', 'fortran_order': False, 'shape': (6, 1), }", halves, 12);
    struct vectors vectors;
    assert_int_equal(npy_parse(file, n, &vectors, NULL), STATUS_OK);
    float row = 0.0F;
    vectors_row(&vectors, 4, &row);
    assert_true(row == 5.5F);
}

static void npy_parse_other_files_are_refused(void **state)
{
    (void)state;
    static const char *const dictionaries[] = {
        "",
        "{",
        "{}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 0), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387910, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 3), }",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '<f4', 'shape': (2, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'more': 1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } x",
    };
    for (size_t i = 0; i < sizeof(dictionaries) / sizeof(dictionaries[0]); i++) {
        _Alignas(64) unsigned char file[FILE_BYTES];
        const size_t n = make_file(file, 1, dictionaries[i], six, sizeof(six));
        struct vectors vectors;
        struct error err = {.code = STATUS_OK};
        const enum status status = npy_parse(file, n, &vectors, &err);
        if (status != STATUS_FORMAT) {
            fail_msg("case %zu: %s", i, dictionaries[i]);
        }
        assert_int_equal(err.code, STATUS_FORMAT);
        assert_null(vectors.data);
    }
}

static void npy_parse_cut_file_is_refused(void **state)
{
    (void)state;
    _Alignas(64) unsigned char file[FILE_BYTES];
    const size_t n = make_file(
        file, 2, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", six, sizeof(six));
    for (size_t cut = 0; cut < n; cut++) {
        struct vectors vectors;
        assert_int_equal(npy_parse(file, cut, &vectors, NULL), STATUS_FORMAT);
    }
}

static void npy_parse_not_finite_is_invalid(void **state)
{
    (void)state;
    float bad[6];
    memcpy(bad, six, sizeof(bad));
    bad[4] = NAN;
    _Alignas(64) unsigned char file[FILE_BYTES];
    const size_t n = make_file(
        file, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", bad, sizeof(bad));
    struct vectors vectors;
    struct error err;
    assert_int_equal(npy_parse(file, n, &vectors, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "row 1"));
    assert_null(vectors.data);
}

static void npy_open_maps_file_and_names_a_bad_one(void **state)
{
    (void)state;
    char path[] = "/tmp/aisle-npy-XXXXXX";
    const int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    unsigned char file[FILE_BYTES];
    const size_t n = make_file(
        file, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", six, sizeof(six));
    assert_int_equal(write(descriptor, file, n), n);
    struct npy npy;
    assert_int_equal(npy_open(path, &npy, NULL), STATUS_OK);
    assert_memory_equal(npy.vectors.data, six, sizeof(six));
    npy_close(&npy);
    assert_null(npy.vectors.data);
    assert_int_equal(ftruncate(descriptor, (off_t)n - 1), 0);
    struct error err;
    assert_int_equal(npy_open(path, &npy, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.message, path));
    npy_close(&npy);
    (void)close(descriptor);
    (void)unlink(path);
    assert_int_equal(npy_open(path, &npy, &err), STATUS_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(npy_parse_float32_of_each_version_gives_view),
        cmocka_unit_test(npy_parse_float16_gives_view),
        cmocka_unit_test(npy_parse_other_files_are_refused),
        cmocka_unit_test(npy_parse_cut_file_is_refused),
        cmocka_unit_test(npy_parse_not_finite_is_invalid),
        cmocka_unit_test(npy_open_maps_file_and_names_a_bad_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
