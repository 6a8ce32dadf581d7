#include "embeddings/safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"

enum { FILE_BYTES = 4096 };

static size_t make_file(unsigned char *out, const char *header, size_t n_data)
{
    const uint64_t length = strlen(header);
    assert_true(8 + length + n_data <= FILE_BYTES);
    memcpy(out, &length, 8);
    memcpy(out + 8, header, length);
    memset(out + 8 + length, 0, n_data);
    return 8 + (size_t)length + n_data;
}

static void temp_path(char out[64])
{
    (void)snprintf(out, 64, "/tmp/aisle-safetensors-XXXXXX");
    const int descriptor = mkstemp(out);
    assert_true(descriptor >= 0);
    (void)close(descriptor);
}

static const float matrix[6] = {1.0F, -2.0F, 3.5F, 0.0F, 65504.0F, 0.25F};

/* Writes a file with a tensor of each type. */
static void write_sample(const char *path)
{
    static const double doubles[2] = {0.5, -3.0};
    static const int64_t integers[1] = {7};
    static const uint16_t bfloats[3] = {0x3f80, 0xc000, 0x4060}; /* 1, -2, 3.5 */
    static uint16_t halves[6];
    half_from_floats(matrix, 6, halves);
    const struct tensor_to_write tensors[] = {
        {"matrix", TENSOR_F32, 2, {2, 3}, matrix}, {"doubles", TENSOR_F64, 1, {2}, doubles},
        {"scalar", TENSOR_I64, 0, {0}, integers},  {"halves", TENSOR_F16, 2, {3, 2}, halves},
        {"empty", TENSOR_F32, 2, {0, 4}, NULL},    {"a \"b\\c", TENSOR_BF16, 1, {3}, bfloats},
    };
    const struct metadata_entry metadata[] = {{"format", "pt"}, {"k\n", "ä"}};
    struct error err = {.code = STATUS_OK};
    assert_int_equal(safetensors_write(path, tensors, 6, metadata, 2, &err), STATUS_OK);
}

static void safetensors_write_then_open_gives_the_same(void **state)
{
    (void)state;
    char path[64];
    temp_path(path);
    write_sample(path);
    struct safetensors *file = NULL;
    struct error err = {.code = STATUS_OK};
    assert_int_equal(safetensors_open(path, &file, &err), STATUS_OK);
    assert_int_equal(safetensors_count(file), 6);
    assert_string_equal(safetensors_at(file, 0)->name, "matrix");
    assert_int_equal((uintptr_t)safetensors_at(file, 0)->data % 64, 0);
    assert_string_equal(safetensors_metadata(file, "format"), "pt");
    assert_string_equal(safetensors_metadata(file, "k\n"), "ä");
    assert_null(safetensors_metadata(file, "absent"));
    assert_null(safetensors_find(file, "absent"));
    assert_int_equal(safetensors_find(file, "empty")->n_bytes, 0);
    const struct tensor *scalar = safetensors_find(file, "scalar");
    assert_int_equal(scalar->rank, 0);
    assert_int_equal(scalar->n_values, 1);
    float out[6];
    assert_int_equal(safetensors_read_f32(file, "matrix", (uint64_t[]){2, 3}, 2, out, &err),
                     STATUS_OK);
    assert_memory_equal(out, matrix, sizeof(matrix));
    memset(out, 0, sizeof(out));
    assert_int_equal(safetensors_read_f32(file, "halves", (uint64_t[]){3, 2}, 2, out, &err),
                     STATUS_OK);
    assert_memory_equal(out, matrix, sizeof(matrix));
    assert_int_equal(safetensors_read_f32(file, "doubles", (uint64_t[]){2}, 1, out, &err),
                     STATUS_OK);
    assert_true(out[0] == 0.5F && out[1] == -3.0F);
    assert_int_equal(safetensors_read_f32(file, "a \"b\\c", (uint64_t[]){3}, 1, out, &err),
                     STATUS_OK);
    assert_true(out[0] == 1.0F && out[1] == -2.0F && out[2] == 3.5F);
    safetensors_close(file);
    (void)unlink(path);
}

static void safetensors_write_same_input_gives_same_bytes(void **state)
{
    (void)state;
    char paths[2][64];
    struct buf contents[2];
    for (int i = 0; i < 2; i++) {
        temp_path(paths[i]);
        write_sample(paths[i]);
        buf_init(&contents[i], FILE_BYTES);
        assert_int_equal(file_read(paths[i], &contents[i], NULL), STATUS_OK);
        (void)unlink(paths[i]);
    }
    assert_int_equal(contents[0].len, contents[1].len);
    assert_memory_equal(contents[0].data, contents[1].data, contents[0].len);
    buf_free(&contents[0]);
    buf_free(&contents[1]);
}

static void safetensors_write_bad_input_writes_nothing(void **state)
{
    (void)state;
    char path[64];
    temp_path(path);
    (void)unlink(path);
    const struct tensor_to_write good = {"a", TENSOR_F32, 2, {2, 3}, matrix};
    struct tensor_to_write tensors[2] = {good, good};
    assert_int_equal(safetensors_write(path, tensors, 2, NULL, 0, NULL), STATUS_INVALID);
    tensors[0].name = "__metadata__";
    assert_int_equal(safetensors_write(path, tensors, 1, NULL, 0, NULL), STATUS_INVALID);
    tensors[0] = good;
    tensors[0].rank = SAFETENSORS_RANK_MAX + 1;
    assert_int_equal(safetensors_write(path, tensors, 1, NULL, 0, NULL), STATUS_INVALID);
    tensors[0] = good;
    tensors[0].shape[0] = UINT64_MAX / 8;
    assert_int_equal(safetensors_write(path, tensors, 1, NULL, 0, NULL), STATUS_INVALID);
    const struct metadata_entry metadata[] = {{"k", "1"}, {"k", "2"}};
    assert_int_equal(safetensors_write(path, &good, 1, metadata, 2, NULL), STATUS_INVALID);
    assert_false(file_exists(path));
    struct error err;
    assert_int_equal(safetensors_write("/nonexistent/x", &good, 1, NULL, 0, &err),
                     STATUS_NOT_FOUND);
    assert_int_equal(err.code, STATUS_NOT_FOUND);
}

static void safetensors_write_that_fails_keeps_the_file(void **state)
{
    static float many[4096];
    const struct tensor_to_write large = {"large", TENSOR_F32, 1, {4096}, many};
    char path[64];
    struct rlimit before;
    (void)state;
    temp_path(path);
    write_sample(path);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    const struct rlimit small = {4096, before.rlim_max};
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const enum status status = safetensors_write(path, &large, 1, NULL, 0, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(status, STATUS_IO);
    struct safetensors *file = NULL;
    assert_int_equal(safetensors_open(path, &file, NULL), STATUS_OK);
    assert_non_null(safetensors_find(file, "matrix"));
    safetensors_close(file);
    (void)unlink(path);
}

static void safetensors_write_out_of_memory_is_reported(void **state)
{
    (void)state;
    char path[64];
    temp_path(path);
    (void)unlink(path);
    const struct tensor_to_write tensor = {"a", TENSOR_F32, 2, {2, 3}, matrix};
    enum status status = STATUS_NOMEM;
    int n = 0;
    while (status != STATUS_OK) {
        assert_false(file_exists(path));
        mem_fail_nth(++n);
        status = safetensors_write(path, &tensor, 1, NULL, 0, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
    }
    assert_true(n > 2);
    (void)unlink(path);
}

#define T(name, shape, begin, end)                                                                 \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void safetensors_open_bytes_good_headers_are_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        size_t n_tensors;
    } cases[] = {
        {"{}", 0, 0},
        {"{}   \n", 0, 0},
        {"{\"__metadata__\":{}}", 0, 0},
        {"{" T("b", "[1]", "4", "8") "," T("a", "[1]", "0", "4") "}", 8, 2},
        {"{" T("z", "[0]", "4", "4") "," T("b", "[1]", "4", "8") "," T("a", "[]", "0", "4") "}", 8,
         3},
        {"{" T("a", "[1,1,1,1,1,1,1,1]", "0", "4") "}", 4, 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned char bytes[FILE_BYTES];
        const size_t n = make_file(bytes, cases[i].header, cases[i].n_data);
        struct safetensors *file = NULL;
        struct error err = {.message = ""};
        if (safetensors_open_bytes(bytes, n, &file, &err) != STATUS_OK) {
            fail_msg("case %zu: %s", i, err.message);
        }
        assert_int_equal(safetensors_count(file), cases[i].n_tensors);
        safetensors_close(file);
    }
}

static void safetensors_open_bytes_bad_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
    } cases[] = {
        {"", 0},
        {" {}", 0},
        {"[]", 0},
        {"{}x", 0},
        {"{}", 1},                                                          /* orphan data */
        {"{" T("a", "[1]", "0", "4") "," T("a", "[1]", "4", "8") "}", 8},   /* twice */
        {"{" T("a", "[1]", "0", "4") "," T("b", "[1]", "0", "4") "}", 4},   /* overlap */
        {"{" T("a", "[2]", "0", "8") "," T("b", "[1]", "4", "8") "}", 8},   /* overlap */
        {"{" T("a", "[1]", "0", "4") "," T("b", "[1]", "8", "12") "}", 12}, /* hole */
        {"{" T("a", "[1]", "4", "8") "}", 8},                               /* hole */
        {"{" T("a", "[0]", "2", "2") "," T("b", "[1]", "0", "4") "}", 4},   /* inside */
        {"{" T("a", "[1]", "0", "4") "}", 3},                               /* outside */
        {"{" T("a", "[2]", "0", "4") "}", 4},                               /* size */
        {"{" T("a", "[1]", "4", "0") "}", 4},                               /* reversed */
        {"{" T("a", "[-1]", "0", "4") "}", 4},
        {"{" T("a", "[1.5]", "0", "4") "}", 4},
        {"{" T("a", "[\"1\"]", "0", "4") "}", 4},
        {"{" T("a", "1", "0", "4") "}", 4},
        {"{" T("a", "[[1]]", "0", "4") "}", 4},
        {"{" T("a", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4},
        {"{" T("a", "[4294967296,4294967296]", "0", "0") "}", 0}, /* overflow */
        {"{" T("a", "[4611686018427387904]", "0", "0") "}", 0},   /* overflow */
        {"{" T("a", "[9007199254740993]", "0", "0") "}", 0},
        {"{" T("a", "[1]", "0", "4,5") "}", 5},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4},
        {"{\"a\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
        {"{\"a\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
        {"{\"a\":1}", 0},
        {"{\"__metadata__\":1}", 0},
        {"{\"__metadata__\":{\"a\":1}}", 0},
        {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"1\"}}", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned char bytes[FILE_BYTES];
        const size_t n = make_file(bytes, cases[i].header, cases[i].n_data);
        struct safetensors *file = NULL;
        struct error err = {.code = STATUS_OK};
        if (safetensors_open_bytes(bytes, n, &file, &err) != STATUS_FORMAT) {
            fail_msg("case %zu: %s", i, cases[i].header);
        }
        assert_int_equal(err.code, STATUS_FORMAT);
        assert_null(file);
    }
}

static void safetensors_open_bytes_bad_lengths_are_refused(void **state)
{
    (void)state;
    unsigned char bytes[FILE_BYTES];
    const size_t n = make_file(bytes, "{" T("a", "[1]", "0", "4") "}", 4);
    struct safetensors *file = NULL;
    for (size_t cut = 0; cut < n; cut++) {
        assert_int_equal(safetensors_open_bytes(bytes, cut, &file, NULL), STATUS_FORMAT);
        assert_null(file);
    }
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7, 100000001, FILE_BYTES, 0};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        memcpy(bytes, &lengths[i], 8);
        assert_int_equal(safetensors_open_bytes(bytes, n, &file, NULL), STATUS_FORMAT);
        assert_null(file);
    }
}

/* At the limit and one past it; also shows that the checks are not quadratic. */
static void safetensors_open_bytes_tensors_at_and_over_limit(void **state)
{
    (void)state;
    for (size_t n = SAFETENSORS_TENSORS_MAX; n <= SAFETENSORS_TENSORS_MAX + 1; n++) {
        struct buf bytes;
        buf_init(&bytes, 16 << 20);
        uint64_t length = 0;
        buf_append(&bytes, &length, 8);
        for (size_t i = 0; i < n; i++) {
            buf_printf(&bytes,
                       "%c\"t%zu\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}",
                       i == 0 ? '{' : ',', i, n - 1 - i, n - i);
        }
        buf_append_char(&bytes, '}');
        length = bytes.len - 8;
        for (size_t i = 0; i < n; i++) {
            buf_append_char(&bytes, 'x');
        }
        assert_int_equal(bytes.status, STATUS_OK);
        memcpy(bytes.data, &length, 8);
        struct safetensors *file = NULL;
        const enum status status = safetensors_open_bytes(bytes.data, bytes.len, &file, NULL);
        if (n == SAFETENSORS_TENSORS_MAX) {
            assert_int_equal(status, STATUS_OK);
            assert_non_null(safetensors_find(file, "t777"));
            assert_string_equal(safetensors_at(file, n - 1)->name, "t0");
        } else {
            assert_int_equal(status, STATUS_FORMAT);
            assert_null(file);
        }
        safetensors_close(file);
        buf_free(&bytes);
    }
}

static void safetensors_read_f32_wrong_tensor_is_refused(void **state)
{
    (void)state;
    static const float bad[2] = {1.0F, INFINITY};
    static const double huge[1] = {1e300};
    static const int32_t integers[2] = {1, 2};
    const struct tensor_to_write tensors[] = {
        {"huge", TENSOR_F64, 1, {1}, huge},
        {"bad", TENSOR_F32, 1, {2}, bad},
        {"integers", TENSOR_I32, 1, {2}, integers},
    };
    char path[64];
    temp_path(path);
    assert_int_equal(safetensors_write(path, tensors, 3, NULL, 0, NULL), STATUS_OK);
    struct safetensors *file = NULL;
    assert_int_equal(safetensors_open(path, &file, NULL), STATUS_OK);
    float out[4];
    struct error err;
    const uint64_t two[2] = {2, 1};
    const uint64_t one[1] = {1};
    assert_int_equal(safetensors_read_f32(file, "no", two, 1, out, &err), STATUS_NOT_FOUND);
    assert_int_equal(safetensors_read_f32(file, "bad", two, 1, out, &err), STATUS_INVALID);
    assert_int_equal(safetensors_read_f32(file, "bad", two, 2, out, &err), STATUS_MISMATCH);
    assert_int_equal(safetensors_read_f32(file, "bad", one, 1, out, &err), STATUS_MISMATCH);
    assert_non_null(strstr(err.message, "shape 2, wanted 1"));
    assert_int_equal(safetensors_read_f32(file, "bad", NULL, 0, out, &err), STATUS_MISMATCH);
    assert_int_equal(safetensors_read_f32(file, "huge", one, 1, out, &err), STATUS_INVALID);
    assert_int_equal(safetensors_read_f32(file, "integers", two, 1, out, &err), STATUS_MISMATCH);
    assert_non_null(strstr(err.message, "I32"));
    safetensors_close(file);
    (void)unlink(path);
}

static void safetensors_vectors_views_or_refuses(void **state)
{
    (void)state;
    static const float bad[2] = {1.0F, NAN};
    static const uint16_t bad_halves[2] = {0x3c00, 0xfc00};
    static const uint16_t halves[2] = {0x3c00, 0x4000};
    const struct tensor_to_write tensors[] = {
        {"matrix", TENSOR_F32, 2, {3, 2}, matrix},
        {"bad", TENSOR_F32, 2, {2, 1}, bad},
        {"flat", TENSOR_F32, 1, {6}, matrix},
        {"empty", TENSOR_F32, 2, {3, 0}, NULL},
        {"halves", TENSOR_F16, 2, {1, 2}, halves},
        {"bad_halves", TENSOR_F16, 2, {1, 2}, bad_halves},
        {"b", TENSOR_BF16, 2, {1, 2}, halves},
        {"byte", TENSOR_U8, 1, {1}, halves},
        {"unaligned", TENSOR_F32, 2, {3, 2}, matrix},
    };
    char path[64];
    temp_path(path);
    assert_int_equal(safetensors_write(path, tensors, 9, NULL, 0, NULL), STATUS_OK);
    struct safetensors *file = NULL;
    assert_int_equal(safetensors_open(path, &file, NULL), STATUS_OK);
    struct vectors vectors = {.n = 77};
    assert_int_equal(safetensors_vectors(file, "no", &vectors, NULL), STATUS_NOT_FOUND);
    assert_int_equal(safetensors_vectors(file, "flat", &vectors, NULL), STATUS_MISMATCH);
    assert_int_equal(safetensors_vectors(file, "b", &vectors, NULL), STATUS_MISMATCH);
    assert_int_equal(safetensors_vectors(file, "empty", &vectors, NULL), STATUS_FORMAT);
    assert_int_equal(safetensors_vectors(file, "unaligned", &vectors, NULL), STATUS_FORMAT);
    assert_int_equal(safetensors_vectors(file, "bad_halves", &vectors, NULL), STATUS_INVALID);
    struct error err;
    assert_int_equal(safetensors_vectors(file, "bad", &vectors, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "row 1"));
    assert_int_equal(vectors.n, 77);
    assert_int_equal(safetensors_vectors(file, "matrix", &vectors, NULL), STATUS_OK);
    assert_int_equal(vectors.n, 3);
    assert_int_equal(vectors.dim, 2);
    assert_memory_equal(vectors.data, matrix, sizeof(matrix));
    /* read_f32 does not care for alignment */
    float out[6];
    assert_int_equal(safetensors_read_f32(file, "unaligned", (uint64_t[]){3, 2}, 2, out, NULL),
                     STATUS_OK);
    assert_memory_equal(out, matrix, sizeof(matrix));
    assert_int_equal(safetensors_vectors(file, "halves", &vectors, NULL), STATUS_OK);
    assert_int_equal(vectors.type, VECTOR_F16);
    safetensors_close(file);
    (void)unlink(path);
}

static void safetensors_open_out_of_memory_is_reported(void **state)
{
    (void)state;
    char path[64];
    temp_path(path);
    write_sample(path);
    enum status status = STATUS_NOMEM;
    int n = 0;
    while (status != STATUS_OK) {
        struct safetensors *file = NULL;
        mem_fail_nth(++n);
        status = safetensors_open(path, &file, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        assert_true((file != NULL) == (status == STATUS_OK));
        safetensors_close(file);
    }
    assert_true(n > 3);
    (void)unlink(path);
    struct safetensors *file = NULL;
    assert_int_equal(safetensors_open(path, &file, NULL), STATUS_NOT_FOUND);
    assert_null(file);
    safetensors_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_write_then_open_gives_the_same),
        cmocka_unit_test(safetensors_write_same_input_gives_same_bytes),
        cmocka_unit_test(safetensors_write_bad_input_writes_nothing),
        cmocka_unit_test(safetensors_write_that_fails_keeps_the_file),
        cmocka_unit_test(safetensors_write_out_of_memory_is_reported),
        cmocka_unit_test(safetensors_open_bytes_good_headers_are_accepted),
        cmocka_unit_test(safetensors_open_bytes_bad_headers_are_refused),
        cmocka_unit_test(safetensors_open_bytes_bad_lengths_are_refused),
        cmocka_unit_test(safetensors_open_bytes_tensors_at_and_over_limit),
        cmocka_unit_test(safetensors_read_f32_wrong_tensor_is_refused),
        cmocka_unit_test(safetensors_vectors_views_or_refuses),
        cmocka_unit_test(safetensors_open_out_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
