#include "core/import_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "core/model_folder.h"
#include "embeddings/safetensors.h"
#include "tiny_shop.h"

/* Folders from the small models of tests/golden and from native ones made here; the layouts
 * themselves are tested in tests/unit/embeddings/test_layouts.c. */
enum { ITEMS = 12, DIM = 8 };
static const char IDS[] = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n";
static const char SETTINGS[] = "{\"version\":1,\"dim\":2}";

static char dir[64];
static char ids_path[96];
static char out_dir[96];
static char weights_path[96];
static struct import_model_config config;
static struct import_model_result result;
static struct error err;

static int setup(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/aisle-import-XXXXXX");
    if (mkdtemp(dir) == NULL) {
        return -1;
    }
    (void)snprintf(ids_path, sizeof(ids_path), "%s/ids.txt", dir);
    (void)snprintf(out_dir, sizeof(out_dir), "%s/model", dir);
    (void)snprintf(weights_path, sizeof(weights_path), "%s/weights.safetensors", dir);
    test_write_text(dir, "ids.txt", IDS);
    test_write_text(dir, "weights.safetensors", "not one");
    config = (struct import_model_config){
        .layout = "s3rec",
        .weights_path = AISLE_TEST_GOLDEN "/layout_s3rec.safetensors",
        .item_ids_path = ids_path,
        .out_dir = out_dir,
    };
    memset(&err, 0, sizeof(err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return dir_remove(dir, NULL) == STATUS_OK ? 0 : -1;
}

static void assert_fails(enum status wanted, const char *text)
{
    memset(&err, 0, sizeof(err));
    const enum status status = import_model(&config, &result, &err);
    if (status != wanted || strstr(err.message, text) == NULL) {
        fail_msg("status %d, \"%s\"; wanted %d with \"%s\"", status, err.message, wanted, text);
    }
    assert_int_equal(err.code, wanted);
    assert_int_equal(result.n_items, 0);
    assert_int_equal(test_count_entries(dir), 2); /* ids.txt and weights: no folder of any kind */
}

/* A native file of a decay model over two items of two components. */
static void write_native(const float *vectors)
{
    const struct tensor_to_write items = {"item_vectors", TENSOR_F32, 2, {2, 2}, vectors};
    const struct metadata_entry metadata[] = {{"aisle.architecture", "decay"},
                                              {"aisle.settings", SETTINGS}};
    assert_int_equal(
        safetensors_write(weights_path, &items, vectors != NULL ? 1 : 0, metadata, 2, &err),
        STATUS_OK);
    test_write_text(dir, "ids.txt", "a\nb\n");
    config.layout = "aisle";
    config.weights_path = weights_path;
}

static void import_model_golden_file_writes_a_model_folder(void **state)
{
    (void)state;
    struct model_folder folder;
    size_t len = 0;
    assert_int_equal(import_model(&config, &result, &err), STATUS_OK);
    assert_int_equal(result.n_items, ITEMS);
    assert_int_equal(result.dim, DIM);
    assert_int_equal(result.history_max, 6);
    assert_string_equal(result.architecture, "sasrec");
    assert_int_equal(result.n_unused, 2);
    assert_non_null(strstr(result.notes, "golden.users"));
    assert_int_equal(model_folder_open(out_dir, &folder, &err), STATUS_OK);
    assert_int_equal(folder.vectors.n, ITEMS);
    assert_string_equal(idmap_id(folder.ids, 11, &len), "l");
    assert_null(folder.counts);
    assert_non_null(strstr(folder.training_json, "\"imported_from\":\"s3rec\""));
    assert_non_null(strstr(folder.training_json, "layout_s3rec.safetensors"));
    assert_non_null(strstr(folder.training_json, "\"weights_sha256\":\""));
    model_folder_close(&folder);
    assert_int_equal(test_count_entries(out_dir), 4);
    assert_int_equal(test_count_entries(dir), 3);
}

static void import_model_same_input_gives_the_same_bytes(void **state)
{
    (void)state;
    static const char *const FILES[] = {MODEL_FILE_ITEM_IDS, MODEL_FILE_VECTORS, MODEL_FILE_WEIGHTS,
                                        MODEL_FILE_TRAINING};
    char second[96];
    (void)snprintf(second, sizeof(second), "%s/second//", dir);
    assert_int_equal(import_model(&config, &result, &err), STATUS_OK);
    config.out_dir = second;
    assert_int_equal(import_model(&config, &result, &err), STATUS_OK);
    for (size_t i = 0; i < sizeof(FILES) / sizeof(FILES[0]); i++) {
        assert_true(test_same_file(out_dir, second, FILES[i]));
    }
}

static void import_model_folder_there_is_replaced_only_if_it_is_a_model(void **state)
{
    (void)state;
    struct buf text;
    assert_int_equal(import_model(&config, &result, &err), STATUS_OK);
    test_write_text(out_dir, "old", "x");
    assert_int_equal(import_model(&config, &result, &err), STATUS_OK);
    assert_int_equal(test_count_entries(out_dir), 4);
    assert_int_equal(dir_remove(out_dir, &err), STATUS_OK);
    assert_int_equal(dir_make(out_dir, &err), STATUS_OK);
    test_write_text(out_dir, "letters", "dear");
    assert_int_equal(import_model(&config, &result, &err), STATUS_EXISTS);
    assert_non_null(strstr(err.message, out_dir));
    test_read(out_dir, "letters", &text);
    assert_string_equal(buf_text(&text), "dear");
    buf_free(&text);
    assert_int_equal(test_count_entries(dir), 3);
}

static void import_model_failure_keeps_the_old_model(void **state)
{
    (void)state;
    char copy[96];
    (void)snprintf(copy, sizeof(copy), "%s/copy", dir);
    assert_int_equal(import_model(&config, &result, &err), STATUS_OK);
    test_copy_folder(out_dir, copy);
    config.n_heads = 3;
    assert_int_equal(import_model(&config, &result, &err), STATUS_INVALID);
    assert_string_equal(err.field, "--heads");
    assert_true(test_same_file(out_dir, copy, MODEL_FILE_TRAINING));
    assert_true(test_same_file(out_dir, copy, MODEL_FILE_WEIGHTS));
    assert_int_equal(test_count_entries(dir), 4);
}

static void import_model_bad_ids_are_named_with_file_and_line(void **state)
{
    (void)state;
    const struct {
        const char *ids;
        enum status status;
        const char *text;
    } cases[] = {
        {"", STATUS_INVALID, "ids.txt has no item ids"},
        {"a\n\nc\n", STATUS_FORMAT, "ids.txt: line 2 is no item id"},
        {"a\nb\na\n", STATUS_FORMAT, "ids.txt: item a stands in lines 1 and 3"},
        {"a\nb\x01\n", STATUS_FORMAT, "ids.txt: line 2 is no item id"},
        {"a\nb\n", STATUS_MISMATCH,
         "layout_s3rec.safetensors: tensor \"item_embeddings.weight\" has 14 rows; 2 item ids and"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_write_text(dir, "ids.txt", cases[i].ids);
        assert_fails(cases[i].status, cases[i].text);
    }
    config.item_ids_path = "/nowhere/ids.txt";
    assert_fails(STATUS_NOT_FOUND, "/nowhere/ids.txt");
}

static void import_model_bad_weights_are_named(void **state)
{
    (void)state;
    config.weights_path = "/nowhere/weights.safetensors";
    assert_fails(STATUS_NOT_FOUND, "/nowhere/weights.safetensors");
    config.weights_path = weights_path;
    assert_fails(STATUS_FORMAT, weights_path);
    config.weights_path = AISLE_TEST_GOLDEN "/layout_recbole_sasrec.safetensors";
    assert_fails(STATUS_NOT_FOUND, "no tensor \"item_embeddings.weight\", which layout s3rec has");
    config.layout = "bert";
    assert_fails(STATUS_INVALID, "--layout: bert is not known");
    assert_string_equal(err.field, "--layout");
}

static void import_model_native_file_is_taken_over(void **state)
{
    (void)state;
    struct model_folder folder;
    static const float vectors[] = {1, 2, 3, 4};
    write_native(vectors);
    assert_int_equal(import_model(&config, &result, &err), STATUS_OK);
    assert_string_equal(result.architecture, "decay");
    assert_int_equal(model_folder_open(out_dir, &folder, &err), STATUS_OK);
    assert_memory_equal(folder.vectors.data, vectors, sizeof(vectors));
    model_folder_close(&folder);
}

static void import_model_native_file_that_does_not_open_leaves_nothing(void **state)
{
    (void)state;
    static const float vectors[] = {1, 2, 3, 4};
    static const float broken[] = {1, 2, NAN, 4};
    const struct tensor_to_write items = {"item_vectors", TENSOR_F32, 2, {2, 2}, vectors};
    const struct metadata_entry metadata[] = {{"aisle.architecture", "sasrec"},
                                              {"aisle.settings", SETTINGS}};
    write_native(broken);
    assert_fails(STATUS_INVALID, "row 1 holds a NaN");
    assert_int_equal(safetensors_write(weights_path, &items, 1, metadata, 2, &err), STATUS_OK);
    assert_int_not_equal(import_model(&config, &result, &err), STATUS_OK);
    assert_non_null(strstr(err.message, MODEL_FILE_WEIGHTS));
    assert_int_equal(test_count_entries(dir), 2);
}

static void import_model_vectors_of_their_own_file_are_taken(void **state)
{
    (void)state;
    static const float vectors[] = {5, 6, 7, 8};
    const struct tensor_to_write items = {"item_vectors", TENSOR_F32, 2, {2, 2}, vectors};
    const struct tensor_to_write other = {"vectors", TENSOR_F32, 2, {2, 2}, vectors};
    struct model_folder folder;
    char vectors_path[96];
    (void)snprintf(vectors_path, sizeof(vectors_path), "%s/ids.txt.safetensors", dir);
    write_native(NULL);
    assert_fails(STATUS_NOT_FOUND, "item_vectors");
    assert_int_equal(safetensors_write(vectors_path, &other, 1, NULL, 0, &err), STATUS_OK);
    config.vectors_path = vectors_path;
    assert_int_equal(import_model(&config, &result, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, vectors_path));
    assert_int_equal(safetensors_write(vectors_path, &items, 1, NULL, 0, &err), STATUS_OK);
    assert_int_equal(import_model(&config, &result, &err), STATUS_OK);
    assert_int_equal(model_folder_open(out_dir, &folder, &err), STATUS_OK);
    assert_memory_equal(folder.vectors.data, vectors, sizeof(vectors));
    assert_non_null(strstr(folder.training_json, "\"vectors_sha256\":\""));
    model_folder_close(&folder);
}

static void import_model_vectors_as_npy_are_taken(void **state)
{
    (void)state;
    /* NumPy's format, version 1: magic, length of the header (118), header, values. */
    char bytes[128 + 4 * sizeof(float)] = "\x93NUMPY\x01\x00\x76\x00"; /* the rest is blanks */
    static const char header[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }";
    static const float vectors[] = {5, 6, 7, 8};
    struct model_folder folder;
    char vectors_path[96];
    memset(bytes + 10, ' ', 118);
    memcpy(bytes + 10, header, sizeof(header) - 1);
    bytes[127] = '\n';
    memcpy(bytes + 128, vectors, sizeof(vectors));
    test_write(dir, "v.npy", bytes, sizeof(bytes));
    (void)snprintf(vectors_path, sizeof(vectors_path), "%s/v.npy", dir);
    write_native(NULL);
    config.vectors_path = vectors_path;
    assert_int_equal(import_model(&config, &result, &err), STATUS_OK);
    assert_int_equal(model_folder_open(out_dir, &folder, &err), STATUS_OK);
    assert_memory_equal(folder.vectors.data, vectors, sizeof(vectors));
    model_folder_close(&folder);
}

static void import_model_out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    enum status status = STATUS_NOMEM;
    int64_t n = 0;
    while (status == STATUS_NOMEM) {
        mem_fail_nth(++n);
        status = import_model(&config, &result, &err);
        mem_fail_nth(0);
        if (status == STATUS_NOMEM) {
            assert_int_equal(result.n_items, 0);
            assert_int_equal(test_count_entries(dir), 2);
        }
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 20);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(import_model_golden_file_writes_a_model_folder),
        TEST(import_model_same_input_gives_the_same_bytes),
        TEST(import_model_folder_there_is_replaced_only_if_it_is_a_model),
        TEST(import_model_failure_keeps_the_old_model),
        TEST(import_model_bad_ids_are_named_with_file_and_line),
        TEST(import_model_bad_weights_are_named),
        TEST(import_model_native_file_is_taken_over),
        TEST(import_model_native_file_that_does_not_open_leaves_nothing),
        TEST(import_model_vectors_of_their_own_file_are_taken),
        TEST(import_model_vectors_as_npy_are_taken),
        TEST(import_model_out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
