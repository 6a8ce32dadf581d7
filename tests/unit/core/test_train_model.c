#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/model_folder.h"
#include "core/train_model.h"
#include "tiny_shop.h"

static struct tiny_shop shop;
static struct train_config config;
static struct train_result result;
static struct error err;

static int setup(void **state)
{
    (void)state;
    tiny_shop_make(&shop);
    train_config_default(&config);
    config.items_path = shop.items;
    config.events_path = shop.events;
    config.out_dir = shop.model;
    config.dim = TINY_DIM;
    config.n_epochs = 8;
    config.n_threads = 1;
    config.seed = 1;
    memset(&err, 0, sizeof(err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tiny_shop_remove(&shop);
    return 0;
}

static void train_model_tiny_shop_writes_a_model_folder(void **state)
{
    (void)state;
    struct model_folder folder;
    size_t len = 0;
    assert_int_equal(train_model(&config, &result, &err), STATUS_OK);
    assert_int_equal(result.n_items, TINY_ITEMS);
    assert_int_equal(result.n_unknown_item, 1);
    assert_int_equal(result.n_events, 120 * 2 * 9);
    assert_true(result.n_items_with_events <= TINY_ITEMS - TINY_NEW);
    assert_int_equal(result.n_sequences, 120 * 2);

    assert_int_equal(model_folder_open(shop.model, &folder, &err), STATUS_OK);
    assert_int_equal(folder.vectors.n, TINY_ITEMS);
    assert_int_equal(folder.vectors.dim, TINY_DIM);
    assert_string_equal(idmap_id(folder.ids, 17, &len), "SKU017");
    assert_string_equal(folder.architecture, "decay");
    assert_non_null(strstr(folder.training_json, "\"sha256\":"));
    double total = 0.0;
    for (size_t i = 0; i < folder.vectors.n; i++) {
        total += (double)folder.counts[i];
    }
    assert_true(total == (double)result.n_events);
    model_folder_close(&folder);
    /* model, items.csv, events.csv: no temporary folder is left */
    assert_int_equal(test_count_entries(shop.dir), 3);
}

static void train_model_tiny_shop_learns_its_rooms(void **state)
{
    (void)state;
    struct model_folder folder;
    float a[TINY_DIM];
    float b[TINY_DIM];
    double within = 0.0;
    double between = 0.0;
    config.n_epochs = 20;
    assert_int_equal(train_model(&config, &result, &err), STATUS_OK);
    assert_int_equal(model_folder_open(shop.model, &folder, &err), STATUS_OK);
    for (size_t room = 0; room < TINY_CLUSTERS; room++) {
        vectors_row(&folder.vectors, room, a);
        vectors_row(&folder.vectors, room + TINY_CLUSTERS, b);
        for (size_t d = 0; d < TINY_DIM; d++) {
            within += (double)(a[d] * b[d]) / TINY_CLUSTERS;
        }
        vectors_row(&folder.vectors, (room + 1) % TINY_CLUSTERS, b);
        for (size_t d = 0; d < TINY_DIM; d++) {
            between += (double)(a[d] * b[d]) / TINY_CLUSTERS;
        }
    }
    model_folder_close(&folder);
    print_message("cosine within a room %.3f, between rooms %.3f\n", within, between);
    assert_true(within > between + 0.1);
}

static void train_model_one_thread_and_one_seed_gives_the_same_bytes(void **state)
{
    (void)state;
    static const char *const FILES[] = {MODEL_FILE_ITEM_IDS, MODEL_FILE_VECTORS, MODEL_FILE_WEIGHTS,
                                        MODEL_FILE_HISTORIES};
    char second[160];
    (void)snprintf(second, sizeof(second), "%s/second/", shop.dir);
    assert_int_equal(train_model(&config, &result, &err), STATUS_OK);
    config.out_dir = second;
    assert_int_equal(train_model(&config, &result, &err), STATUS_OK);
    for (size_t i = 0; i < sizeof(FILES) / sizeof(FILES[0]); i++) {
        assert_true(test_same_file(shop.model, second, FILES[i]));
    }
    config.seed = 2;
    assert_int_equal(train_model(&config, &result, &err), STATUS_OK);
    assert_false(test_same_file(shop.model, second, MODEL_FILE_VECTORS));
}

static void train_model_existing_model_is_replaced(void **state)
{
    (void)state;
    assert_int_equal(train_model(&config, &result, &err), STATUS_OK);
    test_write_text(shop.model, "old", "x");
    assert_int_equal(train_model(&config, &result, &err), STATUS_OK);
    assert_int_equal(test_count_entries(shop.model), 5);
    assert_int_equal(test_count_entries(shop.dir), 3);
}

static void train_model_existing_other_folder_is_refused(void **state)
{
    (void)state;
    struct buf text;
    assert_int_equal(dir_make(shop.model, NULL), STATUS_OK);
    test_write_text(shop.model, "letters", "dear");
    assert_int_equal(train_model(&config, &result, &err), STATUS_EXISTS);
    assert_non_null(strstr(err.message, shop.model));
    test_read(shop.model, "letters", &text);
    assert_string_equal(buf_text(&text), "dear");
    buf_free(&text);
    assert_int_equal(test_count_entries(shop.model), 1);
    assert_int_equal(test_count_entries(shop.dir), 3);
}

static void train_model_failure_keeps_the_old_model(void **state)
{
    (void)state;
    char copy[160];
    (void)snprintf(copy, sizeof(copy), "%s/copy", shop.dir);
    assert_int_equal(train_model(&config, &result, &err), STATUS_OK);
    test_copy_folder(shop.model, copy);
    config.dim = 100000;
    assert_int_equal(train_model(&config, &result, &err), STATUS_INVALID);
    assert_true(test_same_file(shop.model, copy, MODEL_FILE_TRAINING));
    assert_int_equal(test_count_entries(shop.dir), 4);
}

static void train_model_unknown_model_is_invalid(void **state)
{
    (void)state;
    config.model = "oracle";
    assert_int_equal(train_model(&config, &result, &err), STATUS_INVALID);
    assert_string_equal(err.message, "--model: unknown model oracle; known: decay, sasrec, "
                                     "gru4rec, attention, vmis, vsknn, vstan, sr, ar");
    assert_int_equal(test_count_entries(shop.model), 0);
}

static void train_model_missing_events_are_not_found(void **state)
{
    (void)state;
    config.events_path = "/nonexistent/events.csv";
    assert_int_equal(train_model(&config, &result, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/events.csv"));
    assert_int_equal(test_count_entries(shop.dir), 2);
}

static void train_model_events_of_another_shop_are_invalid(void **state)
{
    (void)state;
    test_write_text(shop.dir, "events.csv",
                    "user_id,item_id,timestamp\nu1,X1,1700000000\nu1,X2,1700000060\n");
    assert_int_equal(train_model(&config, &result, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "no event is of an item"));
    assert_int_equal(test_count_entries(shop.dir), 2);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(train_model_tiny_shop_writes_a_model_folder),
        CASE(train_model_tiny_shop_learns_its_rooms),
        CASE(train_model_one_thread_and_one_seed_gives_the_same_bytes),
        CASE(train_model_existing_model_is_replaced),
        CASE(train_model_existing_other_folder_is_refused),
        CASE(train_model_failure_keeps_the_old_model),
        CASE(train_model_unknown_model_is_invalid),
        CASE(train_model_missing_events_are_not_found),
        CASE(train_model_events_of_another_shop_are_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
