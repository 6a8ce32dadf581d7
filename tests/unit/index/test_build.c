#include "index_fixture.h"

enum { N = 6000, DIM = 32, N_QUERIES = 60 };

static struct fixture fixture;

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

static void assert_no_file(const char *path)
{
    char partial[PATH_BYTES_MAX + 16];
    snprintf(partial, sizeof partial, "%s.partial", path);
    assert_false(file_exists(path));
    assert_false(file_exists(partial));
}

static void vector_index_build_one_thread_gives_same_bytes(void **state)
{
    (void)state;
    static const char *const factories[] = {"Flat", "IVF64,SQfp16", "HNSW16",
                                            "IVF64,PQ16x4fs,RFlat"};
    for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
        struct buf bytes[2];
        for (size_t round = 0; round < 2; round++) {
            char path[PATH_BYTES_MAX];
            struct vector_index_measured measured;
            struct error err;
            struct vector_index_build_config config = fixture_config(&fixture, factories[i]);
            fixture_path(&fixture, "same.faiss", path);
            assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_OK);
            fixture_read(path, &bytes[round]);
            assert_int_equal(measured.file_bytes, bytes[round].len);
            assert_true(measured.build_seconds > 0.0);
            assert_true(measured.search_p50_us > 0.0);
            assert_true(measured.search_p99_us >= measured.search_p50_us);
            assert_int_equal(measured.n_queries, N_QUERIES);
            assert_int_equal(measured.recall_k, 20);
        }
        assert_int_equal(bytes[0].len, bytes[1].len);
        assert_memory_equal(bytes[0].data, bytes[1].data, bytes[0].len);
        buf_free(&bytes[0]);
        buf_free(&bytes[1]);
    }
}

static void vector_index_build_unreachable_target_is_limit(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    struct vector_index_measured measured;
    struct error err = {.message = ""};
    struct vector_index_build_config config = fixture_config(&fixture, "IVF16,PQ4");
    config.target_recall = 0.999;
    fixture_path(&fixture, "limit.faiss", path);
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_LIMIT);
    assert_true(measured.recall > 0.05 && measured.recall < 0.999);
    assert_string_equal(measured.factory, "IVF16,PQ4");
    assert_true(measured.search_parameters[0] != '\0' && measured.n_queries == N_QUERIES);
    char figure[32];
    snprintf(figure, sizeof figure, "%.4f", measured.recall);
    assert_non_null(strstr(err.message, figure));
    assert_no_file(path);
}

static void vector_index_build_failure_keeps_the_old_file(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    struct vector_index_measured measured;
    struct error err;
    struct buf bytes;
    struct vector_index_build_config config = fixture_config(&fixture, "IVF16,PQ4");
    config.target_recall = 1.0;
    fixture_path(&fixture, "old.faiss", path);
    assert_int_equal(file_write_atomic(path, "old", 3, &err), STATUS_OK);
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_LIMIT);
    fixture_read(path, &bytes);
    assert_string_equal(buf_text(&bytes), "old");
    buf_free(&bytes);
}

static void vector_index_build_bad_config_is_invalid(void **state)
{
    (void)state;
    static const char *const factories[] = {
        "", "Flatt", "IVF8(Index7),Flat", "IVF64,PQ5x4fs", "IVF6001,Flat", "PCA16,IVF64,Flat"};
    char path[PATH_BYTES_MAX];
    struct vector_index_measured measured;
    struct error err;
    fixture_path(&fixture, "invalid.faiss", path);
    for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
        struct vector_index_build_config config = fixture_config(&fixture, factories[i]);
        assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_INVALID);
    }
    struct vectors vectors = fixture.vectors;
    struct vector_index_build_config config = fixture_config(&fixture, "Flat");
    config.vectors = &vectors;
    config.target_recall = 1.01;
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_INVALID);
    config.target_recall = (double)NAN;
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_INVALID);
    config.target_recall = 0.9;
    config.recall_k = SEARCH_K_MAX + 1;
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_INVALID);
    config.recall_k = 20;
    config.n_queries = 0;
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_INVALID);
    config.n_queries = N_QUERIES;
    vectors.n = 0;
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_INVALID);
    vectors.n = 200;
    config.factory = "IVF64,PQ16"; /* 256 centroids a part */
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_INVALID);
    assert_no_file(path);
}

static void vector_index_build_not_finite_is_invalid(void **state)
{
    (void)state;
    static const char *const factories[] = {"Flat", "IVF64,Flat", "HNSW16"};
    char path[PATH_BYTES_MAX];
    struct vector_index_measured measured;
    struct error err;
    float before = fixture.data[4711 * DIM + 5];
    fixture_path(&fixture, "nan.faiss", path);
    fixture.data[4711 * DIM + 5] = NAN;
    for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
        struct vector_index_build_config config = fixture_config(&fixture, factories[i]);
        assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_INVALID);
        assert_no_file(path);
    }
    fixture.data[4711 * DIM + 5] = before;
    before = fixture.queries[0];
    fixture.queries[0] = INFINITY;
    struct vector_index_build_config config = fixture_config(&fixture, "Flat");
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_INVALID);
    fixture.queries[0] = before;
    assert_no_file(path);
}

static void vector_index_build_unwritable_path_fails(void **state)
{
    (void)state;
    struct vector_index_measured measured;
    struct error err;
    struct vector_index_build_config config = fixture_config(&fixture, "Flat");
    assert_int_equal(vector_index_build(&config, "/nonexistent/x.faiss", &measured, &err),
                     STATUS_IO);
}

static void vector_index_build_half_precision_without_queries_builds(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    struct vector_index_measured measured;
    struct vector_index *index = NULL;
    struct error err = {.message = ""};
    float score = 0.0F;
    int64_t row = 0;
    uint16_t *halves = mem_alloc_array((size_t)N * DIM, sizeof *halves);
    assert_non_null(halves);
    half_from_floats(fixture.data, (size_t)N * DIM, halves);
    struct vectors vectors = {halves, N, DIM, VECTOR_F16};
    struct vector_index_build_config config = fixture_config(&fixture, "IVF64,SQfp16");
    config.vectors = &vectors;
    config.queries = NULL;
    config.n_queries = 0;
    config.recall_k = 0;
    config.n_threads = 2;
    fixture_path(&fixture, "half.faiss", path);
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_OK);
    assert_int_equal(measured.n_queries, 1000);
    assert_int_equal(measured.recall_k, 100);
    assert_true(measured.recall >= 0.9);
    struct vector_index_config open_config = {path, &vectors, measured.search_parameters, false};
    assert_int_equal(vector_index_open(&open_config, &index, &err), STATUS_OK);
    assert_int_equal(vector_index_search(index, &(struct vector_query){fixture.data, 1, 1},
                                         &(struct vector_hits){&score, &row}, &err),
                     STATUS_OK);
    assert_int_equal(row, 0); /* a unit vector's nearest is itself */
    assert_true(fabsf(score - 1.0F) < 0.01F);
    vector_index_close(index);
    mem_free(halves);
}

static void vector_index_build_auto_small_is_exact(void **state)
{
    (void)state;
    struct vector_index_measured measured;
    struct vector_index *index = NULL;
    char path[PATH_BYTES_MAX];
    struct error err;
    struct vector_index_build_config config = fixture_config(&fixture, "auto");
    fixture_path(&fixture, "auto.faiss", path);
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_OK);
    assert_string_equal(measured.factory, "Flat");
    assert_true(measured.recall == 1.0);
    struct vector_index_config open_config = {path, &fixture.vectors, "", true};
    assert_int_equal(vector_index_open(&open_config, &index, &err), STATUS_OK);
    assert_true(vector_index_info(index).exact);
    vector_index_close(index);
}

/* Fewer items than the recall's K, down to one. */
static void vector_index_build_tiny_builds(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 19};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct vector_index_measured measured;
        char path[PATH_BYTES_MAX];
        struct error err = {.message = ""};
        struct vectors vectors = fixture.vectors;
        vectors.n = sizes[i];
        struct vector_index_build_config config = fixture_config(&fixture, "auto");
        config.vectors = &vectors;
        fixture_path(&fixture, "tiny.faiss", path);
        assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_OK);
        assert_true(measured.recall == 1.0);
        assert_int_equal(measured.recall_k, sizes[i]);
        config.factory = "HNSW8";
        assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_OK);
    }
}

/* Equal vectors: whichever of them is found counts. */
static void vector_index_build_equal_vectors_reach_full_recall(void **state)
{
    (void)state;
    enum { COPIES = 2000, SMALL = 8 };
    static float data[COPIES * SMALL];
    struct vector_index_measured measured;
    char path[PATH_BYTES_MAX];
    struct error err = {.message = ""};
    for (size_t i = 0; i < COPIES; i++) {
        memcpy(data + i * SMALL, fixture.data + i % 4 * DIM, SMALL * sizeof *data);
    }
    struct vectors vectors = {data, COPIES, SMALL, VECTOR_F32};
    struct vector_index_build_config config = fixture_config(&fixture, "IVF4,Flat");
    config.vectors = &vectors;
    config.queries = NULL;
    config.target_recall = 1.0;
    fixture_path(&fixture, "equal.faiss", path);
    assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_OK);
    assert_true(measured.recall == 1.0 && measured.recall_worst == 1.0);
}

static void vector_index_build_out_of_memory_leaves_no_file(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    struct vector_index_measured measured;
    struct error err;
    struct vectors vectors = fixture.vectors;
    vectors.n = 500;
    struct vector_index_build_config config = fixture_config(&fixture, "IVF4,SQfp16");
    config.vectors = &vectors;
    config.queries = NULL;
    fixture_path(&fixture, "nomem.faiss", path);
    for (int64_t nth = 1;; nth++) {
        mem_fail_nth(nth);
        enum status status = vector_index_build(&config, path, &measured, &err);
        mem_fail_nth(0);
        if (status == STATUS_OK) {
            assert_true(nth > 5);
            break;
        }
        assert_int_equal(status, STATUS_NOMEM);
        assert_no_file(path);
    }
    assert_true(file_exists(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vector_index_build_one_thread_gives_same_bytes),
        cmocka_unit_test(vector_index_build_unreachable_target_is_limit),
        cmocka_unit_test(vector_index_build_failure_keeps_the_old_file),
        cmocka_unit_test(vector_index_build_bad_config_is_invalid),
        cmocka_unit_test(vector_index_build_not_finite_is_invalid),
        cmocka_unit_test(vector_index_build_unwritable_path_fails),
        cmocka_unit_test(vector_index_build_half_precision_without_queries_builds),
        cmocka_unit_test(vector_index_build_auto_small_is_exact),
        cmocka_unit_test(vector_index_build_tiny_builds),
        cmocka_unit_test(vector_index_build_equal_vectors_reach_full_recall),
        cmocka_unit_test(vector_index_build_out_of_memory_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
