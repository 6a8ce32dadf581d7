#include "index_fixture.h"

enum { N = 3000, DIM = 16, N_QUERIES = 20 };

static struct fixture fixture;

static const char *const factories[] = {"Flat",           "IVF16,Flat",          "IVF16,SQfp16",
                                        "IVF16,SQ8",      "IVF16,SQ4",           "IVF16,SQ6",
                                        "IVF16,PQ8",      "IVF16,PQ4x6",         "IVF16,PQ8x4fs",
                                        "IVF16,PQ7x4fsr", "IVF16,PQ8x4fs,RFlat", "IVF16_HNSW8,SQ8",
                                        "HNSW8",          "HNSW8,SQfp16",        "HNSW8,SQ8"};
enum { N_FACTORIES = sizeof factories / sizeof factories[0] };

static int setup(void **state)
{
    (void)state;
    fixture_init(&fixture, N, DIM, N_QUERIES);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_free(&fixture);
    return 0;
}

/* Bytes of an index over the first n vectors. dim of PQ7 is 14: its vectors are cut from the
 * table's floats, which need not be meaningful. */
static void make_bytes(const char *factory, size_t n, struct buf *bytes, size_t *dim)
{
    char path[PATH_BYTES_MAX];
    struct error err = {.message = ""};
    struct vector_index_measured measured;
    *dim = strstr(factory, "PQ7") != NULL ? 14 : DIM;
    struct vectors vectors = {fixture.data, n, *dim, VECTOR_F32};
    struct vector_index_build_config config = fixture_config(&fixture, factory);
    config.vectors = &vectors;
    config.target_recall = 0.01;
    fixture_path(&fixture, "file.faiss", path);
    if (vector_index_build(&config, path, &measured, &err) != STATUS_OK) {
        fail_msg("%s: %s", factory, err.message);
    }
    fixture_read(path, bytes);
}

static enum status check(const void *bytes, size_t n, struct error *err)
{
    struct index_file_info info = {.n = 4711};
    enum status status = index_file_check(bytes, n, &info, err);
    if (status != STATUS_OK) {
        assert_int_equal(info.n, 4711);
    }
    return status;
}

static void index_file_check_written_files_names_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FACTORIES; i++) {
        struct buf bytes;
        struct index_file_info info;
        struct error err = {.message = ""};
        char name[INDEX_NAME_BYTES];
        size_t dim = 0;
        make_bytes(factories[i], N, &bytes, &dim);
        if (index_file_check((const uint8_t *)bytes.data, bytes.len, &info, &err) != STATUS_OK) {
            fail_msg("%s: %s", factories[i], err.message);
        }
        index_kind_name(&info.kind, name);
        assert_string_equal(name, factories[i]);
        assert_int_equal(info.n, N);
        assert_int_equal(info.dim, dim);
        buf_free(&bytes);
    }
}

/* Every shorter length, on memory of just that length so that a read too far is seen. */
static void index_file_check_cut_short_is_format(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FACTORIES; i++) {
        struct buf bytes;
        size_t dim = 0;
        make_bytes(factories[i], 300, &bytes, &dim);
        size_t step = bytes.len / 500 + 1;
        for (size_t n = 0; n < bytes.len; n += n < 600 ? 1 : step) {
            struct error err = {.message = ""};
            uint8_t *copy = mem_alloc(n);
            assert_non_null(copy);
            memcpy(copy, bytes.data, n);
            assert_int_equal(check(copy, n, &err), STATUS_FORMAT);
            assert_true(err.message[0] != '\0');
            mem_free(copy);
        }
        buf_append_char(&bytes, 'x');
        assert_int_equal(check(bytes.data, bytes.len, NULL), STATUS_FORMAT);
        buf_free(&bytes);
    }
}

/* Changes anywhere in the first bytes and among the lengths are refused or make another legal file;
 * either way nothing is read outside (the sanitizers' business). */
static void index_file_check_changed_bytes_are_safe(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FACTORIES; i++) {
        struct buf bytes;
        struct rng rng;
        size_t dim = 0;
        size_t refused = 0;
        rng_init(&rng, i);
        make_bytes(factories[i], 300, &bytes, &dim);
        uint8_t *data = (uint8_t *)bytes.data;
        for (size_t at = 0; at < 37; at++) { /* the header */
            uint8_t before = data[at];
            data[at] = (uint8_t)(before ^ 0x81);
            enum status status = check(data, bytes.len, NULL);
            refused += status == STATUS_FORMAT || status == STATUS_UNSUPPORTED;
            data[at] = before;
        }
        assert_int_equal(refused, 37 - 16); /* all but the unused numbers */
        for (size_t round = 0; round < 3000; round++) {
            size_t at = (size_t)rng_below(&rng, bytes.len);
            uint8_t before = data[at];
            data[at] = (uint8_t)rng_next(&rng);
            (void)!check(data, bytes.len, NULL);
            data[at] = before;
        }
        assert_int_equal(check(data, bytes.len, NULL), STATUS_OK);
        buf_free(&bytes);
    }
}

static void index_file_check_unknown_kind_is_named(void **state)
{
    (void)state;
    struct buf bytes;
    size_t dim = 0;
    struct error err = {.message = ""};
    make_bytes("Flat", 300, &bytes, &dim);
    memcpy(bytes.data, "IxF2", 4);
    assert_int_equal(check(bytes.data, bytes.len, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "IxF2"));
    memcpy(bytes.data, "I\x01\x80\n", 4);
    assert_int_equal(check(bytes.data, bytes.len, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "\"I???\""));
    buf_free(&bytes);
}

static void index_file_check_other_metric_is_unsupported(void **state)
{
    (void)state;
    struct buf bytes;
    size_t dim = 0;
    struct error err = {.message = ""};
    make_bytes("IVF16,Flat", 300, &bytes, &dim);
    bytes.data[33] = 1; /* L2 */
    assert_int_equal(check(bytes.data, bytes.len, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "metric 1"));
    buf_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_file_check_written_files_names_them),
        cmocka_unit_test(index_file_check_cut_short_is_format),
        cmocka_unit_test(index_file_check_changed_bytes_are_safe),
        cmocka_unit_test(index_file_check_unknown_kind_is_named),
        cmocka_unit_test(index_file_check_other_metric_is_unsupported),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
