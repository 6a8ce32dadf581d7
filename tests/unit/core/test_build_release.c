#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "core/build_release.h"
#include "core/histories.h"
#include "core/model_folder.h"
#include "store/release.h"
#include "tiny_shop.h"

static struct tiny_shop shop;
static struct build_config config;
static struct build_result result;
static struct error err;

static int setup(void **state)
{
    (void)state;
    tiny_shop_make(&shop);
    memset(&err, 0, sizeof(err));
    assert_int_equal(tiny_shop_train(&shop, &err), STATUS_OK);
    tiny_shop_build_config(&shop, &config);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tiny_shop_remove(&shop);
    return 0;
}

static size_t n_releases(void)
{
    char path[160];
    (void)snprintf(path, sizeof(path), "%s/releases", shop.releases);
    return test_count_entries(path);
}

/* Nothing but what `n` published releases leave: no draft, no stray release. */
static void assert_published(size_t n)
{
    assert_int_equal(n_releases(), n);
    size_t n_entries = test_count_entries(shop.releases);
    assert_true(n_entries == 0 || n_entries == 2);
}

static void assert_built(void)
{
    if (build_release(&config, &result, &err) != STATUS_OK) {
        fail_msg("not built: %s", err.message);
    }
}

/* Builds, expects that failure and that nothing was published. */
static void assert_refused(enum status expected, const char *message_part)
{
    assert_int_equal(build_release(&config, &result, &err), expected);
    if (strstr(err.message, message_part) == NULL) {
        fail_msg("message \"%s\" lacks \"%s\"", err.message, message_part);
    }
    assert_string_equal(result.version, "");
    assert_published(0);
}

/* A model folder of n items "A", "B", … in place of the trained one, dimension dim. */
static void write_folder(const char *const *ids, const float *vectors, size_t n, size_t dim)
{
    char path[PATH_BYTES_MAX];
    struct decay_settings settings;
    struct buf text;
    const struct tensor_to_write tensor = {MODEL_TENSOR_VECTORS, TENSOR_F32, 2, {n, dim}, vectors};
    assert_int_equal(dir_remove(shop.model, NULL), STATUS_OK);
    assert_int_equal(dir_make(shop.model, NULL), STATUS_OK);
    buf_init(&text, 1 << 20);
    for (size_t i = 0; i < n; i++) {
        buf_printf(&text, "%s\n", ids[i]);
    }
    test_write(shop.model, MODEL_FILE_ITEM_IDS, text.data, text.len);
    buf_free(&text);
    assert_int_equal(path_join(path, shop.model, MODEL_FILE_VECTORS, NULL), STATUS_OK);
    assert_int_equal(safetensors_write(path, &tensor, 1, NULL, 0, NULL), STATUS_OK);
    decay_settings_default(&settings);
    assert_int_equal(path_join(path, shop.model, MODEL_FILE_WEIGHTS, NULL), STATUS_OK);
    assert_int_equal(decay_model_write(path, dim, &settings, NULL), STATUS_OK);
}

static struct engine *open_channel(const char *channel)
{
    char dir[PATH_BYTES_MAX];
    struct engine *engine = NULL;
    assert_int_equal(channel_resolve(shop.releases, channel, dir, &err), STATUS_OK);
    struct engine_config engine_config = {.release_dir = dir};
    assert_int_equal(engine_open(&engine_config, &engine, &err), STATUS_OK);
    return engine;
}

static void build_release_tiny_shop_is_published_and_opens(void **state)
{
    (void)state;
    config.events_path = shop.events;
    assert_built();
    assert_int_equal(result.n_items, TINY_ITEMS);
    assert_true(result.n_without_vector >= TINY_NEW);
    assert_int_equal(result.n_vectors_dropped, 0);
    assert_true(result.index.recall == 1.0); /* exact, at this size */
    assert_int_equal(result.index.recall_k, 100);
    assert_int_equal(result.index.n_queries, 120); /* each user once */
    assert_true(result.embed_p50_us > 0.0 && result.embed_p99_us >= result.embed_p50_us);
    assert_true(result.request_p50_us > 0.0 && result.request_p99_us >= result.request_p50_us);

    struct engine *engine = open_channel("stable");
    assert_string_equal(engine->manifest.version, result.version);
    assert_string_equal(engine->dir, result.dir);
    assert_string_equal(engine->manifest.architecture, "decay");
    assert_string_equal(engine->manifest.index_factory, "Flat");
    assert_non_null(strstr(engine->manifest.measured_json, "\"recall\""));
    assert_non_null(strstr(engine->manifest.measured_json, "\"request_p99_us\""));
    assert_non_null(strstr(engine->manifest.training_json, "\"seed\""));
    assert_non_null(strstr(engine->manifest.drift_baseline_json, "\"history_length\""));
    assert_null(engine->manifest.quality_json);
    engine_close(engine);
    assert_published(1);
}

static void build_release_one_thread_and_seed_gives_the_same_bytes(void **state)
{
    (void)state;
    static const char *const FILES[] = {RELEASE_FILE_VECTORS, RELEASE_FILE_MODEL,
                                        RELEASE_FILE_INDEX, RELEASE_FILE_PROBES};
    char first[PATH_BYTES_MAX];
    config.index = "IVF8,SQfp16";
    assert_built();
    (void)snprintf(first, sizeof(first), "%s", result.dir);
    assert_built();
    assert_string_not_equal(first, result.dir);
    for (size_t i = 0; i < sizeof(FILES) / sizeof(FILES[0]); i++) {
        assert_true(test_same_file(first, result.dir, FILES[i]));
    }
    assert_published(2);
}

static void build_release_new_items_get_half_their_category_mean(void **state)
{
    (void)state;
    static const char *const IDS[] = {"A", "B", "GONE", "C"};
    static const float VECTORS[] = {1, 0, 0, 1, 9, 9, 0, 0}; /* C has never had an event */
    float row[2];
    test_write_text(shop.dir, "items.csv",
                    "id,title,category\nA,a,Home > Light\nB,b,Home > Light > Lanterns\n"
                    "C,c,Home > Light > Lanterns\nD,d,Home > Light > Candles\nE,e,Garden\n"
                    "F,f,\n");
    write_folder(IDS, VECTORS, 4, 2);
    assert_built();
    assert_int_equal(result.n_items, 6);
    assert_int_equal(result.n_without_vector, 4);
    assert_int_equal(result.n_vectors_dropped, 1);
    struct engine *engine = open_channel("stable");
    static const float EXPECTED[6][2] = {
        {1, 0}, {0, 1}, {0, 0.5F} /* Lanterns */, {0.25F, 0.25F} /* Light */, {0, 0}, {0, 0}};
    for (size_t i = 0; i < 6; i++) {
        vectors_row(&engine->vectors, i, row);
        assert_true(row[0] == EXPECTED[i][0] && row[1] == EXPECTED[i][1]);
        assert_true(engine->popularity[i] == 0.0F); /* no events, no counts */
    }
    engine_close(engine);
}

static void build_release_popularity_follows_the_events(void **state)
{
    (void)state;
    config.events_path = shop.events;
    test_write_text(shop.dir, "events.csv",
                    "user_id,item_id,timestamp\nu1,SKU001,1700000000\nu1,SKU002,1700000001\n"
                    "u2,SKU002,1700000002\nu2,SKU002,1700000003\n");
    assert_built();
    struct engine *engine = open_channel("stable");
    double one = log1p(0.25 * TINY_ITEMS) / log1p(0.75 * TINY_ITEMS);
    assert_true(engine->popularity[0] == 0.0F);
    assert_true(fabs((double)engine->popularity[1] - one) < 1e-6);
    assert_true(engine->popularity[2] == 1.0F);
    assert_int_equal(catalog_by_popularity(engine->catalog)[0], 2);
    engine_close(engine);
}

static void build_release_f16_and_npy_are_served(void **state)
{
    (void)state;
    static const char *const IDS[] = {"SKU000", "SKU001"};
    static const float VECTORS[] = {0.5F, 0.25F, -1.0F, 2.0F};
    /* NumPy's header of 128 bytes, version 1.0 */
    unsigned char npy[128 + sizeof(VECTORS)];
    char path[PATH_BYTES_MAX];
    float row[2];
    write_folder(IDS, VECTORS, 2, 2);
    assert_int_equal(path_join(path, shop.model, MODEL_FILE_VECTORS, NULL), STATUS_OK);
    assert_int_equal(remove(path), 0);
    memset(npy, ' ', 128);
    memcpy(npy, "\x93NUMPY\x01\x00\x76\x00", 10);
    static const char HEADER[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }";
    memcpy(npy + 10, HEADER, sizeof(HEADER) - 1);
    npy[127] = '\n';
    memcpy(npy + 128, VECTORS, sizeof(VECTORS));
    test_write(shop.model, MODEL_FILE_VECTORS_NPY, npy, sizeof(npy));
    test_write_text(shop.dir, "items.csv", "id,title\nSKU001,b\nSKU000,a\n");
    config.vector_type = "f16";
    config.channel = "candidate";
    assert_built();
    struct engine *engine = open_channel("candidate");
    assert_int_equal(engine->vectors.type, VECTOR_F16);
    assert_string_equal(engine->manifest.vector_type, "F16");
    vectors_row(&engine->vectors, 0, row);
    assert_true(row[0] == -1.0F && row[1] == 2.0F);
    engine_close(engine);
}

/* Sessions of A, B and GONE in that order, C and D; ids of the folder: A, B, GONE, C, D. */
static void write_sessions(void)
{
    struct history_event events[10];
    const uint32_t rows[] = {0, 1, 2, 0, 1, 2, 3, 4, 3, 4};
    uint64_t offsets[] = {0, 3, 6, 8, 10};
    const struct event_log log = {
        .events = events, .offsets = offsets, .n_sequences = 4, .n_events = 10};
    const struct neighbors_blend blend = {.weight = 0.7, .floor = 2e-3};
    struct neighbors_settings settings;
    char path[PATH_BYTES_MAX];
    for (size_t i = 0; i < 10; i++) {
        events[i] = (struct history_event){rows[i], EVENT_VIEW, 1000 * (int64_t)i};
    }
    neighbors_settings_default(NEIGHBORS_VSKNN, &settings);
    assert_int_equal(path_join(path, shop.model, MODEL_FILE_NEIGHBORS, NULL), STATUS_OK);
    assert_int_equal(neighbors_build(&log, 5, &settings, &blend, path, NULL), STATUS_OK);
}

static const char *const SESSION_IDS[] = {"A", "B", "GONE", "C", "D"};
static const float SESSION_VECTORS[] = {1, 0, 0, 1, 9, 9, 0.5F, 0.5F, 0.5F, -0.5F};

static void build_release_neighbours_get_the_rows_of_the_release(void **state)
{
    (void)state;
    static const char *const ROWS[] = {"NEW", "D", "C", "B", "A"};
    static const char *const PARTNERS[] = {NULL, "C", "D", "A", "B"};
    struct neighbors_workspace *workspace = NULL;
    test_write_text(shop.dir, "items.csv", "id,title\nNEW,n\nD,d\nC,c\nB,b\nA,a\n");
    write_folder(SESSION_IDS, SESSION_VECTORS, 5, 2);
    write_sessions();
    assert_built();
    assert_true(result.neighbors_p50_us > 0.0 &&
                result.neighbors_p99_us >= result.neighbors_p50_us);
    struct engine *engine = open_channel("stable");
    assert_non_null(engine->neighbors);
    struct neighbors_info info = neighbors_info(engine->neighbors);
    assert_int_equal(info.settings.kind, NEIGHBORS_VSKNN);
    assert_int_equal(info.n_items, 5);
    assert_true(info.blend.weight == 0.7 && info.blend.floor == 2e-3);
    assert_int_equal(neighbors_workspace_open(engine->neighbors, &workspace, NULL), STATUS_OK);
    for (uint32_t row = 0; row < 5; row++) {
        uint32_t rows[5];
        float scores[5];
        double total = 0.0;
        const struct history_event event = {row, EVENT_VIEW, EVENT_TIME_UNKNOWN};
        assert_string_equal(catalog_id(engine->catalog, row, NULL), ROWS[row]);
        size_t n =
            neighbors_query(engine->neighbors, workspace, &event, 1, 0, 5, rows, scores, &total);
        assert_int_equal(n, PARTNERS[row] == NULL ? 0 : 2); /* itself, and one beside it */
        bool found = PARTNERS[row] == NULL;
        for (size_t i = 0; i < n; i++) {
            found = found || strcmp(catalog_id(engine->catalog, rows[i], NULL), PARTNERS[row]) == 0;
        }
        assert_true(found);
    }
    neighbors_workspace_close(workspace);
    bool is_listed = false;
    for (size_t i = 0; i < engine->manifest.n_files; i++) {
        is_listed =
            is_listed || strcmp(engine->manifest.files[i].name, RELEASE_FILE_NEIGHBORS) == 0;
    }
    assert_true(is_listed);
    assert_non_null(strstr(engine->manifest.measured_json, "\"neighbors_p99_us\""));
    assert_non_null(strstr(engine->manifest.model_settings_json, "\"kind\":\"vsknn\""));
    assert_non_null(strstr(engine->manifest.model_settings_json, "\"position_decay\""));
    engine_close(engine);
}

static void build_release_without_neighbours_measures_none(void **state)
{
    (void)state;
    assert_built();
    assert_true(result.neighbors_p99_us == 0.0);
    struct engine *engine = open_channel("stable");
    assert_null(engine->neighbors);
    assert_null(strstr(engine->manifest.measured_json, "neighbors"));
    assert_null(strstr(engine->manifest.model_settings_json, "neighbors"));
    engine_close(engine);
}

static void build_release_unusable_neighbours_are_refused_by_name(void **state)
{
    (void)state;
    struct buf bytes;
    tiny_shop_add_neighbors(&shop, TINY_ITEMS - 1);
    assert_refused(STATUS_MISMATCH, "neighbors.safetensors");
    tiny_shop_add_neighbors(&shop, TINY_ITEMS);
    test_read(shop.model, MODEL_FILE_NEIGHBORS, &bytes);
    test_write(shop.model, MODEL_FILE_NEIGHBORS, bytes.data, bytes.len / 2);
    buf_free(&bytes);
    assert_refused(STATUS_FORMAT, "neighbors.safetensors");
}

/* Vectors as a softmax leaves them: long, of different lengths, a bias in the last component that
 * is below zero for most. */
static void build_release_vectors_of_any_length_are_built_and_served(void **state)
{
    (void)state;
    enum { N = TINY_ITEMS - TINY_NEW, DIM = 8 };
    static char text[N][8];
    static const char *ids[N];
    static float vectors[N * DIM];
    static const char *const INDEXES[] = {"auto", "IVF8,Flat", "HNSW16"};
    struct rng rng;
    rng_init(&rng, 3);
    for (size_t i = 0; i < N; i++) {
        (void)snprintf(text[i], sizeof(text[i]), "SKU%03zu", i);
        ids[i] = text[i];
        for (size_t d = 0; d + 1 < DIM; d++) {
            vectors[i * DIM + d] = (float)(rng_normal(&rng) * (1.0 + (double)(i % 40)));
        }
        vectors[i * DIM + DIM - 1] = (float)(rng_normal(&rng) * 5.0 - 10.0);
    }
    write_folder(ids, vectors, N, DIM);
    for (size_t c = 0; c < 3; c++) {
        config.index = INDEXES[c];
        config.vector_type = c == 1 ? "f16" : "auto";
        assert_built();
        assert_true(result.index.recall >= 0.95);
        assert_int_equal(result.n_without_vector, TINY_NEW);
        engine_close(open_channel("stable"));
    }
}

static void build_release_histories_of_the_folder_become_queries(void **state)
{
    (void)state;
    test_write_text(shop.model, MODEL_FILE_HISTORIES,
                    "{\"now_ms\": 1700000000000, \"history\": [[\"SKU001\", \"view\", null], "
                    "[\"GONE\", \"cart\", 1699999999000]]}\n"
                    "{\"now_ms\": 1700000000000, \"history\": [[\"GONE\", \"view\", null]]}\n");
    assert_built();
    assert_int_equal(result.index.n_queries, 1);
    struct engine *engine = open_channel("stable");
    /* 2 of 3 events are of items that the shop does not have */
    assert_non_null(strstr(engine->manifest.drift_baseline_json, "0.66666"));
    engine_close(engine);
}

static void build_release_damaged_histories_name_the_line(void **state)
{
    (void)state;
    test_write_text(shop.model, MODEL_FILE_HISTORIES,
                    "{\"now_ms\": 1, \"history\": []}\n{\"now_ms\": 1, \"history\": [[\"A\"]]}\n");
    assert_refused(STATUS_FORMAT, "histories.jsonl line 2: event 1");
}

static void build_release_nan_vector_is_refused(void **state)
{
    (void)state;
    static const char *const IDS[] = {"SKU000", "SKU001"};
    static const float VECTORS[] = {0.5F, 0.25F, NAN, 2.0F};
    write_folder(IDS, VECTORS, 2, 2);
    assert_refused(STATUS_INVALID, "vectors.safetensors");
}

static void build_release_duplicate_ids_name_both_lines(void **state)
{
    (void)state;
    static const char *const IDS[] = {"SKU000", "SKU001", "SKU000"};
    static const float VECTORS[] = {1, 2, 3, 4, 5, 6};
    write_folder(IDS, VECTORS, 3, 2);
    assert_refused(STATUS_FORMAT, "item_ids.txt: item SKU000 stands in lines 1 and 3");
}

static void build_release_fewer_ids_than_vectors_is_a_mismatch(void **state)
{
    (void)state;
    static const char *const IDS[] = {"SKU000", "SKU001", "SKU002"};
    static const float VECTORS[] = {1, 2, 3, 4, 5, 6};
    write_folder(IDS, VECTORS, 3, 2);
    test_write_text(shop.model, MODEL_FILE_ITEM_IDS, "SKU000\nSKU001\n");
    assert_refused(STATUS_MISMATCH, "3 vectors, but item_ids.txt has 2 ids");
}

static void build_release_model_of_another_dimension_is_a_mismatch(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    struct decay_settings settings;
    decay_settings_default(&settings);
    assert_int_equal(path_join(path, shop.model, MODEL_FILE_WEIGHTS, NULL), STATUS_OK);
    assert_int_equal(decay_model_write(path, TINY_DIM + 1, &settings, NULL), STATUS_OK);
    assert_refused(STATUS_MISMATCH, "model.safetensors");
}

static void build_release_model_of_another_shop_is_a_mismatch(void **state)
{
    (void)state;
    static const char *const IDS[] = {"OTHER1", "OTHER2"};
    static const float VECTORS[] = {1, 2, 3, 4};
    write_folder(IDS, VECTORS, 2, 2);
    assert_refused(STATUS_MISMATCH, "the model knows none of the 300 items");
    static const char *const ONE[] = {"SKU000", "OTHER2"};
    write_folder(ONE, VECTORS, 2, 2);
    assert_int_equal(build_release(&config, &result, &err), STATUS_MISMATCH);
    config.force = true;
    assert_built();
    assert_int_equal(result.n_without_vector, TINY_ITEMS - 1);
}

static void build_release_missing_events_are_not_found(void **state)
{
    (void)state;
    config.events_path = "/nonexistent/events.csv";
    assert_refused(STATUS_NOT_FOUND, "/nonexistent/events.csv");
}

static void build_release_missing_model_folder_is_not_found(void **state)
{
    (void)state;
    config.model_dir = "/nonexistent/model";
    assert_refused(STATUS_NOT_FOUND, "/nonexistent/model");
}

static void build_release_bad_settings_are_invalid(void **state)
{
    (void)state;
    config.channel = "../stable";
    assert_refused(STATUS_INVALID, "channel");
    config.channel = "stable";
    config.target_recall = 1.5;
    assert_refused(STATUS_INVALID, "recall");
    config.target_recall = 0.9;
    config.vector_type = "f8";
    assert_refused(STATUS_INVALID, "known: auto, f32, f16");
    config.vector_type = "auto";
    config.index = "Magic";
    assert_refused(STATUS_INVALID, "Magic");
}

static void build_release_unreachable_recall_is_refused_unless_forced(void **state)
{
    (void)state;
    config.index = "IVF4,SQ4";
    config.target_recall = 1.0;
    assert_refused(STATUS_LIMIT, "recall@100");
    config.force = true;
    assert_built();
    assert_true(result.index.recall < 1.0 && result.index.recall > 0.1);
    assert_published(1);
}

static void build_release_failure_leaves_the_channel(void **state)
{
    (void)state;
    char before[PATH_BYTES_MAX];
    char after[PATH_BYTES_MAX];
    assert_built();
    assert_int_equal(channel_resolve(shop.releases, "stable", before, &err), STATUS_OK);
    config.index = "IVF4,SQ4";
    config.target_recall = 1.0;
    assert_int_equal(build_release(&config, &result, &err), STATUS_LIMIT);
    assert_int_equal(channel_resolve(shop.releases, "stable", after, &err), STATUS_OK);
    assert_string_equal(before, after);
    assert_published(1);
    engine_close(open_channel("stable"));
}

static void build_release_channel_that_cannot_be_set_removes_the_release(void **state)
{
    (void)state;
    char path[160];
    /* A folder is in the way of the channel's link. */
    (void)snprintf(path, sizeof(path), "%s/channels/stable/full", shop.releases);
    assert_int_equal(dir_make(path, NULL), STATUS_OK);
    assert_int_not_equal(build_release(&config, &result, &err), STATUS_OK);
    assert_published(0);
    config.channel = NULL;
    assert_built();
    assert_published(1);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(build_release_tiny_shop_is_published_and_opens),
        CASE(build_release_one_thread_and_seed_gives_the_same_bytes),
        CASE(build_release_new_items_get_half_their_category_mean),
        CASE(build_release_popularity_follows_the_events),
        CASE(build_release_f16_and_npy_are_served),
        CASE(build_release_neighbours_get_the_rows_of_the_release),
        CASE(build_release_without_neighbours_measures_none),
        CASE(build_release_unusable_neighbours_are_refused_by_name),
        CASE(build_release_vectors_of_any_length_are_built_and_served),
        CASE(build_release_histories_of_the_folder_become_queries),
        CASE(build_release_damaged_histories_name_the_line),
        CASE(build_release_nan_vector_is_refused),
        CASE(build_release_duplicate_ids_name_both_lines),
        CASE(build_release_fewer_ids_than_vectors_is_a_mismatch),
        CASE(build_release_model_of_another_dimension_is_a_mismatch),
        CASE(build_release_model_of_another_shop_is_a_mismatch),
        CASE(build_release_missing_events_are_not_found),
        CASE(build_release_missing_model_folder_is_not_found),
        CASE(build_release_bad_settings_are_invalid),
        CASE(build_release_unreachable_recall_is_refused_unless_forced),
        CASE(build_release_failure_leaves_the_channel),
        CASE(build_release_channel_that_cannot_be_set_removes_the_release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
