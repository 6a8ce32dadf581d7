#include "index_fixture.h"

#include <pthread.h>

enum { N = 8000, DIM = 32, N_QUERIES = 100, K = 20 };

static struct fixture fixture;

static int setup(void **state)
{
    (void)state;
    fixture_init(&fixture, N, DIM, N_QUERIES);
    vector_index_single_thread();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_free(&fixture);
    return 0;
}

/* Builds, opens, proves which index answers, and compares it with exact search. */
static void compare_with_exact(const char *factory, bool exact)
{
    struct vector_index_measured measured;
    struct vector_index *index = fixture_index(&fixture, factory, &measured, false);
    struct vector_index_info info = vector_index_info(index);
    struct error err;
    double mean = 0.0;
    double worst = 0.0;
    assert_string_equal(info.factory, factory);
    assert_string_equal(measured.factory, factory);
    assert_string_equal(info.search_parameters, measured.search_parameters);
    assert_int_equal(info.n, N);
    assert_int_equal(info.dim, DIM);
    assert_int_equal(info.exact, exact);
    assert_int_equal(vector_index_recall(index, &fixture.vectors,
                                         &(struct vector_query){fixture.queries, N_QUERIES, K},
                                         &mean, &worst, &err),
                     STATUS_OK);
    print_message("%s with \"%s\": recall@%d %.4f, worst %.4f, p50 %.1f us\n", factory,
                  info.search_parameters, (int)K, mean, worst, measured.search_p50_us);
    assert_true(mean >= 0.9);
    assert_true(mean == measured.recall && worst == measured.recall_worst);
    assert_true(!exact || (mean == 1.0 && worst == 1.0));
    vector_index_close(index);
}

static void vector_index_search_flat_is_exact(void **state)
{
    (void)state;
    compare_with_exact("Flat", true);
}

static void vector_index_search_ivf_reaches_recall(void **state)
{
    (void)state;
    compare_with_exact("IVF64,Flat", false);
    compare_with_exact("IVF64,SQfp16", false);
    compare_with_exact("IVF64,SQ8", false);
    compare_with_exact("IVF64_HNSW16,SQfp16", false);
}

static void vector_index_search_hnsw_reaches_recall(void **state)
{
    (void)state;
    compare_with_exact("HNSW16", false);
    compare_with_exact("HNSW32,SQfp16", false);
}

static void vector_index_search_refined_reaches_recall(void **state)
{
    (void)state;
    compare_with_exact("IVF64,PQ16x4fs,RFlat", false);
    compare_with_exact("IVF64,PQ8,RFlat", false);
}

static void search_all(const struct vector_index *index, size_t k, float *scores, int64_t *rows)
{
    struct error err = {.message = ""};
    if (vector_index_search(index, &(struct vector_query){fixture.queries, N_QUERIES, k},
                            &(struct vector_hits){scores, rows}, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

/* One by one, since FAISS sums in another order when it has many queries at once. */
static void search_each(const struct vector_index *index, size_t k, float *scores, int64_t *rows)
{
    struct error err;
    for (size_t q = 0; q < N_QUERIES; q++) {
        assert_int_equal(
            vector_index_search(index, &(struct vector_query){fixture.queries + q * DIM, 1, k},
                                &(struct vector_hits){scores + q * k, rows + q * k}, &err),
            STATUS_OK);
    }
}

static void vector_index_search_mapped_equals_read(void **state)
{
    (void)state;
    static const char *const factories[] = {"IVF64,Flat",       "IVF64,SQfp16",         "IVF64,PQ8",
                                            "IVF64_HNSW16,SQ8", "IVF64,PQ16x4fs,RFlat", "HNSW16"};
    static float scores[2][N_QUERIES * K];
    static int64_t rows[2][N_QUERIES * K];
    for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
        for (size_t map = 0; map < 2; map++) {
            char path[PATH_BYTES_MAX];
            struct vector_index_measured measured;
            struct vector_index *index = NULL;
            struct error err = {.message = ""};
            struct vector_index_build_config config = fixture_config(&fixture, factories[i]);
            config.target_recall = 0.3;
            fixture_path(&fixture, "mapped.faiss", path);
            if (map == 0) {
                assert_int_equal(vector_index_build(&config, path, &measured, &err), STATUS_OK);
            }
            struct vector_index_config open_config = {
                path, &fixture.vectors, i < 4 ? "nprobe=5" : measured.search_parameters, map == 1};
            assert_int_equal(vector_index_open(&open_config, &index, &err), STATUS_OK);
            search_each(index, K, scores[map], rows[map]);
            vector_index_close(index);
        }
        assert_memory_equal(scores[0], scores[1], sizeof scores[0]);
        assert_memory_equal(rows[0], rows[1], sizeof rows[0]);
    }
}

static void vector_index_search_results_are_ordered_and_padded(void **state)
{
    (void)state;
    static const char *const factories[] = {"Flat", "IVF16,SQfp16", "IVF16,PQ8x4fs,RFlat",
                                            "HNSW16"};
    enum { FEW = 300, K_OVER = 500 };
    static float scores[K_OVER];
    static int64_t rows[K_OVER];
    struct fixture few = fixture;
    few.vectors.n = FEW;
    for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
        struct vector_index_measured measured;
        struct vector_index *index = fixture_index(&few, factories[i], &measured, false);
        struct error err;
        bool seen[FEW] = {false};
        size_t n = 0;
        assert_int_equal(vector_index_search(index,
                                             &(struct vector_query){fixture.queries, 1, K_OVER},
                                             &(struct vector_hits){scores, rows}, &err),
                         STATUS_OK);
        for (; n < K_OVER && rows[n] != VECTOR_INDEX_NO_ROW; n++) {
            assert_in_range(rows[n], 0, FEW - 1);
            assert_false(seen[rows[n]]);
            seen[rows[n]] = true;
            assert_true(n == 0 || scores[n] <= scores[n - 1]);
        }
        assert_in_range(n, K, FEW);
        assert_true(i != 0 || n == FEW);
        for (; n < K_OVER; n++) {
            assert_int_equal(rows[n], VECTOR_INDEX_NO_ROW);
            assert_true(isinf(scores[n]) && scores[n] < 0);
        }
        vector_index_close(index);
    }
}

static void vector_index_search_largest_k_answers(void **state)
{
    (void)state;
    static const char *const factories[] = {"Flat", "IVF64,SQfp16", "IVF64,PQ16x4fs,RFlat",
                                            "HNSW16"};
    float *scores = mem_alloc_array(SEARCH_K_MAX, sizeof *scores);
    int64_t *rows = mem_alloc_array(SEARCH_K_MAX, sizeof *rows);
    assert_true(scores != NULL && rows != NULL);
    for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
        struct vector_index_measured measured;
        struct vector_index *index = fixture_index(&fixture, factories[i], &measured, false);
        struct error err;
        assert_int_equal(
            vector_index_search(index, &(struct vector_query){fixture.queries, 1, SEARCH_K_MAX},
                                &(struct vector_hits){scores, rows}, &err),
            STATUS_OK);
        assert_true(rows[K] >= 0);
        assert_int_equal(rows[SEARCH_K_MAX - 1], VECTOR_INDEX_NO_ROW);
        vector_index_close(index);
    }
    mem_free(scores);
    mem_free(rows);
}

static void vector_index_search_bad_arguments_are_invalid(void **state)
{
    (void)state;
    static const char *const factories[] = {"Flat", "IVF64,SQfp16", "HNSW16"};
    for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
        struct vector_index_measured measured;
        struct vector_index *index = fixture_index(&fixture, factories[i], &measured, i == 1);
        struct error err;
        float scores[2] = {7, 7};
        int64_t rows[2] = {7, 7};
        float bad[2 * DIM] = {0};
        static const float values[] = {NAN, INFINITY, -INFINITY};
        for (size_t j = 0; j < sizeof values / sizeof values[0]; j++) {
            bad[2 * DIM - 1] = values[j];
            assert_int_equal(vector_index_search(index, &(struct vector_query){bad, 2, 1},
                                                 &(struct vector_hits){scores, rows}, &err),
                             STATUS_INVALID);
            assert_non_null(strstr(err.message, "query 1"));
        }
        const float *good = fixture.queries;
        assert_int_equal(vector_index_search(index, &(struct vector_query){good, 1, 0},
                                             &(struct vector_hits){scores, rows}, &err),
                         STATUS_INVALID);
        assert_int_equal(vector_index_search(index,
                                             &(struct vector_query){good, 1, SEARCH_K_MAX + 1},
                                             &(struct vector_hits){scores, rows}, &err),
                         STATUS_INVALID);
        assert_int_equal(vector_index_search(index, &(struct vector_query){good, 0, 1},
                                             &(struct vector_hits){scores, rows}, &err),
                         STATUS_INVALID);
        assert_int_equal(vector_index_search(index,
                                             &(struct vector_query){good, SEARCH_BATCH_MAX + 1, 1},
                                             &(struct vector_hits){scores, rows}, NULL),
                         STATUS_INVALID);
        assert_true(scores[0] == 7.0F && rows[0] == 7);
        vector_index_close(index);
    }
}

static void vector_index_search_does_not_allocate(void **state)
{
    (void)state;
    static const char *const factories[] = {"Flat", "IVF64,SQfp16", "HNSW16"};
    float scores[K];
    int64_t rows[K];
    for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
        struct vector_index_measured measured;
        struct vector_index *index = fixture_index(&fixture, factories[i], &measured, i == 1);
        struct error err;
        uint64_t before = mem_count();
        assert_int_equal(vector_index_search(index, &(struct vector_query){fixture.queries, 1, K},
                                             &(struct vector_hits){scores, rows}, &err),
                         STATUS_OK);
        assert_int_equal(mem_count(), before);
        vector_index_close(index);
    }
}

struct worker {
    const struct vector_index *index;
    float scores[N_QUERIES * K];
    int64_t rows[N_QUERIES * K];
    enum status status;
};

static void *work(void *argument)
{
    struct worker *worker = argument;
    vector_index_single_thread();
    worker->status =
        vector_index_search(worker->index, &(struct vector_query){fixture.queries, N_QUERIES, K},
                            &(struct vector_hits){worker->scores, worker->rows}, NULL);
    return NULL;
}

static void vector_index_search_many_threads_agree(void **state)
{
    (void)state;
    static const char *const factories[] = {"IVF64,SQfp16", "IVF64,SQfp16", "HNSW16",
                                            "IVF64,PQ16x4fs,RFlat"};
    enum { THREADS = 4 };
    static struct worker workers[THREADS];
    static float scores[N_QUERIES * K];
    static int64_t rows[N_QUERIES * K];
    for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
        struct vector_index_measured measured;
        struct vector_index *index = fixture_index(&fixture, factories[i], &measured, i == 1);
        pthread_t threads[THREADS];
        search_all(index, K, scores, rows);
        for (size_t t = 0; t < THREADS; t++) {
            workers[t] = (struct worker){.index = index};
            assert_int_equal(pthread_create(&threads[t], NULL, work, &workers[t]), 0);
        }
        for (size_t t = 0; t < THREADS; t++) {
            assert_int_equal(pthread_join(threads[t], NULL), 0);
            assert_int_equal(workers[t].status, STATUS_OK);
            assert_memory_equal(workers[t].rows, rows, sizeof rows);
            assert_memory_equal(workers[t].scores, scores, sizeof scores);
        }
        vector_index_close(index);
    }
}

/* Opens path against vectors and expects a failure that leaves *out NULL. */
static void expect_refusal(const char *path, const struct vectors *vectors, const char *parameters,
                           enum status wanted)
{
    struct vector_index_config config = {path, vectors, parameters, false};
    struct vector_index *index = (struct vector_index *)&config; /* any non-null value */
    struct error err = {.code = STATUS_OK, .message = ""};
    assert_int_equal(vector_index_open(&config, &index, &err), wanted);
    assert_null(index);
    assert_int_equal(err.code, wanted);
    assert_true(err.message[0] != '\0');
}

static void vector_index_open_unfit_file_is_refused(void **state)
{
    (void)state;
    static const char *const factories[] = {"Flat", "IVF64,SQfp16", "HNSW16",
                                            "IVF64,PQ16x4fs,RFlat"};
    for (size_t i = 0; i < sizeof factories / sizeof factories[0]; i++) {
        char path[PATH_BYTES_MAX];
        char damaged[PATH_BYTES_MAX];
        struct buf bytes;
        struct error err;
        struct vector_index_measured measured;
        struct vectors other = fixture.vectors;
        vector_index_close(fixture_index(&fixture, factories[i], &measured, false));
        fixture_path(&fixture, "index.faiss", path);
        fixture_path(&fixture, "damaged.faiss", damaged);

        other.n = N - 1;
        expect_refusal(path, &other, "", STATUS_MISMATCH);
        other = fixture.vectors;
        other.dim = DIM / 2;
        expect_refusal(path, &other, "", STATUS_MISMATCH);
        expect_refusal(path, &fixture.vectors, "nprobe=0", STATUS_INVALID);
        expect_refusal(path, &fixture.vectors, "speed=9", STATUS_INVALID);

        fixture_read(path, &bytes);
        assert_int_equal(file_write_atomic(damaged, bytes.data, bytes.len - 1, &err), STATUS_OK);
        expect_refusal(damaged, &fixture.vectors, "", STATUS_FORMAT);
        bytes.data[10] ^= 1; /* ntotal */
        assert_int_equal(file_write_atomic(damaged, bytes.data, bytes.len, &err), STATUS_OK);
        expect_refusal(damaged, &fixture.vectors, "", STATUS_FORMAT);
        bytes.data[10] ^= 1;
        bytes.data[33] ^= 1; /* metric */
        assert_int_equal(file_write_atomic(damaged, bytes.data, bytes.len, &err), STATUS_OK);
        expect_refusal(damaged, &fixture.vectors, "", STATUS_UNSUPPORTED);
        memcpy(bytes.data, "IxHe", 4);
        assert_int_equal(file_write_atomic(damaged, bytes.data, bytes.len, &err), STATUS_OK);
        expect_refusal(damaged, &fixture.vectors, "", STATUS_UNSUPPORTED);
        assert_int_equal(file_write_atomic(damaged, "", 0, &err), STATUS_OK);
        expect_refusal(damaged, &fixture.vectors, "", STATUS_FORMAT);
        buf_free(&bytes);
    }
    expect_refusal("/nonexistent/index.faiss", &fixture.vectors, "", STATUS_NOT_FOUND);
}

static void vector_index_open_out_of_memory_is_reported(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    struct vector_index_measured measured;
    vector_index_close(fixture_index(&fixture, "IVF64,SQfp16", &measured, false));
    fixture_path(&fixture, "index.faiss", path);
    struct vector_index_config config = {path, &fixture.vectors, "nprobe=4", false};
    for (int64_t nth = 1;; nth++) {
        struct vector_index *index = NULL;
        struct error err;
        mem_fail_nth(nth);
        enum status status = vector_index_open(&config, &index, &err);
        mem_fail_nth(0);
        if (status == STATUS_OK) {
            assert_true(nth > 1);
            vector_index_close(index);
            break;
        }
        assert_int_equal(status, STATUS_NOMEM);
        assert_null(index);
    }
}

static void vector_index_recall_bad_arguments_are_refused(void **state)
{
    (void)state;
    struct vector_index_measured measured;
    struct vector_index *index = fixture_index(&fixture, "Flat", &measured, false);
    struct vectors other = fixture.vectors;
    struct error err;
    double mean = 7.0;
    double worst = 7.0;
    other.n--;
    assert_int_equal(vector_index_recall(index, &other,
                                         &(struct vector_query){fixture.queries, 1, 1}, &mean,
                                         &worst, &err),
                     STATUS_MISMATCH);
    assert_int_equal(vector_index_recall(index, &fixture.vectors,
                                         &(struct vector_query){fixture.queries, 0, 1}, &mean,
                                         &worst, &err),
                     STATUS_INVALID);
    assert_int_equal(vector_index_recall(index, &fixture.vectors,
                                         &(struct vector_query){fixture.queries, 1, 0}, &mean,
                                         &worst, &err),
                     STATUS_INVALID);
    assert_true(mean == 7.0 && worst == 7.0);
    vector_index_close(index);
    vector_index_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vector_index_search_flat_is_exact),
        cmocka_unit_test(vector_index_search_ivf_reaches_recall),
        cmocka_unit_test(vector_index_search_hnsw_reaches_recall),
        cmocka_unit_test(vector_index_search_refined_reaches_recall),
        cmocka_unit_test(vector_index_search_mapped_equals_read),
        cmocka_unit_test(vector_index_search_results_are_ordered_and_padded),
        cmocka_unit_test(vector_index_search_largest_k_answers),
        cmocka_unit_test(vector_index_search_bad_arguments_are_invalid),
        cmocka_unit_test(vector_index_search_does_not_allocate),
        cmocka_unit_test(vector_index_search_many_threads_agree),
        cmocka_unit_test(vector_index_open_unfit_file_is_refused),
        cmocka_unit_test(vector_index_open_out_of_memory_is_reported),
        cmocka_unit_test(vector_index_recall_bad_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
