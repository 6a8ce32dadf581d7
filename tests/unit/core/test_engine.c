#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "core/engine.h"
#include "core/histories.h"
#include "core/model_folder.h"
#include "store/release.h"
#include "tiny_shop.h"

static struct tiny_shop shop;
static char released[PATH_BYTES_MAX]; /* the release as built */
static char copied[160];              /* a copy to damage */
static struct error err;

static int build_once(void **state)
{
    (void)state;
    struct build_config config;
    struct build_result result;
    tiny_shop_make(&shop);
    assert_int_equal(tiny_shop_train(&shop, &err), STATUS_OK);
    tiny_shop_add_neighbors(&shop, TINY_ITEMS);
    tiny_shop_build_config(&shop, &config);
    config.index = "IVF8,Flat";
    if (build_release(&config, &result, &err) != STATUS_OK) {
        fail_msg("not built: %s", err.message);
    }
    (void)snprintf(released, sizeof(released), "%s", result.dir);
    (void)snprintf(copied, sizeof(copied), "%s/copy", shop.dir);
    return 0;
}

static int remove_shop(void **state)
{
    (void)state;
    tiny_shop_remove(&shop);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    memset(&err, 0, sizeof(err));
    assert_int_equal(dir_remove(copied, NULL), STATUS_OK);
    test_copy_folder(released, copied);
    return 0;
}

static enum status open_copy(bool skip_checksums, bool skip_probes)
{
    struct engine_config config = {copied, skip_checksums, skip_probes};
    struct engine *engine = NULL;
    enum status status = engine_open(&config, &engine, &err);
    assert_true((status == STATUS_OK) == (engine != NULL));
    engine_close(engine);
    return status;
}

static void assert_message(const char *part)
{
    if (strstr(err.message, part) == NULL) {
        fail_msg("message \"%s\" lacks \"%s\"", err.message, part);
    }
}

static void engine_open_release_gives_parts_that_agree(void **state)
{
    (void)state;
    struct engine_config config = {.release_dir = copied};
    struct engine *engine = NULL;
    float largest = 0.0F;
    assert_int_equal(engine_open(&config, &engine, &err), STATUS_OK);
    assert_int_equal(catalog_size(engine->catalog), TINY_ITEMS);
    assert_int_equal(engine->vectors.n, TINY_ITEMS);
    assert_int_equal(vector_index_info(engine->index).n, TINY_ITEMS);
    assert_string_equal(vector_index_info(engine->index).factory, "IVF8,Flat");
    assert_int_equal(user_model_info(engine->model).dim, TINY_DIM);
    assert_int_equal(neighbors_info(engine->neighbors).n_items, TINY_ITEMS);
    for (size_t row = 0; row < TINY_ITEMS; row++) {
        assert_true(engine->popularity[row] >= 0.0F && engine->popularity[row] <= 1.0F);
        largest = engine->popularity[row] > largest ? engine->popularity[row] : largest;
    }
    assert_true(largest == 1.0F);
    assert_true(engine->popularity[TINY_ITEMS - 1] == 0.0F);
    engine_close(engine);
}

static void engine_open_channel_link_is_resolved(void **state)
{
    (void)state;
    char link[160];
    (void)snprintf(link, sizeof(link), "%s/channels/stable", shop.releases);
    struct engine_config config = {.release_dir = link};
    struct engine *engine = NULL;
    assert_int_equal(engine_open(&config, &engine, &err), STATUS_OK);
    assert_string_equal(engine->dir, released);
    engine_close(engine);
}

static void engine_open_absent_folder_is_not_found(void **state)
{
    (void)state;
    assert_int_equal(dir_remove(copied, NULL), STATUS_OK);
    assert_int_equal(open_copy(false, false), STATUS_NOT_FOUND);
    assert_message(copied);
}

static void engine_open_any_flipped_bit_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const FILES[] = {RELEASE_FILE_ITEMS,     RELEASE_FILE_VECTORS,
                                        RELEASE_FILE_MODEL,     RELEASE_FILE_INDEX,
                                        RELEASE_FILE_NEIGHBORS, RELEASE_FILE_PROBES};
    for (size_t i = 0; i < sizeof(FILES) / sizeof(FILES[0]); i++) {
        struct buf bytes;
        test_read(released, FILES[i], &bytes);
        const size_t places[] = {0, bytes.len / 2, bytes.len - 1};
        for (size_t p = 0; p < 3; p++) {
            bytes.data[places[p]] ^= 4;
            test_write(copied, FILES[i], bytes.data, bytes.len);
            assert_int_equal(open_copy(false, false), STATUS_MISMATCH);
            assert_message(FILES[i]);
            bytes.data[places[p]] ^= 4;
        }
        test_write(copied, FILES[i], bytes.data, bytes.len);
        buf_free(&bytes);
        assert_int_equal(open_copy(false, false), STATUS_OK);
    }
}

static void engine_open_missing_file_is_refused_by_name(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    assert_int_equal(path_join(path, copied, RELEASE_FILE_PROBES, NULL), STATUS_OK);
    assert_int_equal(remove(path), 0);
    assert_int_equal(open_copy(true, false), STATUS_NOT_FOUND);
    assert_message(RELEASE_FILE_PROBES);
    assert_int_equal(open_copy(true, true), STATUS_OK);
    assert_int_equal(path_join(path, copied, RELEASE_FILE_MANIFEST, NULL), STATUS_OK);
    assert_int_equal(remove(path), 0);
    assert_int_equal(open_copy(true, true), STATUS_NOT_FOUND);
    assert_message(RELEASE_FILE_MANIFEST);
}

/* Replaces the first `from` behind `after` in a file of the copy. */
static void edit(const char *name, const char *after, const char *from, const char *to)
{
    struct buf text;
    struct buf changed;
    test_read(copied, name, &text);
    const char *start = strstr(buf_text(&text), after);
    assert_non_null(start);
    const char *found = strstr(start, from);
    assert_non_null(found);
    buf_init(&changed, 1 << 26);
    buf_append(&changed, text.data, (size_t)(found - text.data));
    buf_append_text(&changed, to);
    buf_append_text(&changed, found + strlen(from));
    test_write(copied, name, changed.data, changed.len);
    buf_free(&changed);
    buf_free(&text);
}

static void probes_replay_changed_score_is_a_mismatch(void **state)
{
    (void)state;
    edit(RELEASE_FILE_PROBES, "\"top\":", "0.", "0.0");
    assert_int_equal(open_copy(true, false), STATUS_MISMATCH);
    assert_message("probes.jsonl: line 1: score 1 of the top items");
    assert_int_equal(open_copy(false, false), STATUS_MISMATCH);
}

static void probes_replay_changed_vector_is_a_mismatch(void **state)
{
    (void)state;
    edit(RELEASE_FILE_PROBES, "\"vector\":", "0.", "2.");
    assert_int_equal(open_copy(true, false), STATUS_MISMATCH);
    assert_message("line 1: component 0 of the user vector");
}

static void probes_replay_changed_item_is_a_mismatch(void **state)
{
    (void)state;
    edit(RELEASE_FILE_PROBES, "\"top\":", "\"SKU", "\"GKU");
    assert_int_equal(open_copy(true, false), STATUS_MISMATCH);
    assert_message("is not in the catalogue");
    setup(NULL);
    edit(RELEASE_FILE_PROBES, "\"top\":", "\"SKU", "\"SKU299\",\"SKU");
    assert_int_equal(open_copy(true, false), STATUS_FORMAT);
    assert_message("entry 1 of \"top\"");
}

static void probes_replay_changed_neighbour_is_a_mismatch(void **state)
{
    (void)state;
    edit(RELEASE_FILE_PROBES, "\"neighbors\":[[", ",", ",9");
    assert_int_equal(open_copy(true, false), STATUS_MISMATCH);
    assert_message("probes.jsonl: line ");
    assert_message("score 1 of the neighbors items");
    setup(NULL);
    edit(RELEASE_FILE_PROBES, "\"neighbors\":[[", "\"SKU", "\"GKU");
    assert_int_equal(open_copy(true, false), STATUS_MISMATCH);
    assert_message("is not in the catalogue");
    setup(NULL);
    edit(RELEASE_FILE_PROBES, "\"neighbors\":[[", "\"neighbors\"", "\"nobody\"");
    assert_int_equal(open_copy(true, false), STATUS_FORMAT);
    assert_message("\"neighbors\" is no array");
}

static void engine_open_neighbours_that_are_not_listed_do_not_serve(void **state)
{
    (void)state;
    struct engine_config config = {copied, true, true};
    struct engine *engine = NULL;
    edit(RELEASE_FILE_MANIFEST, "\"files\"", RELEASE_FILE_NEIGHBORS, "other.safetensors");
    assert_int_equal(engine_open(&config, &engine, &err), STATUS_OK);
    assert_null(engine->neighbors);
    engine_close(engine);
    assert_int_equal(open_copy(true, false), STATUS_MISMATCH);
    assert_message("line 1: the build had session neighbours, the release has none");
}

static void engine_open_unusable_neighbours_are_refused_by_name(void **state)
{
    (void)state;
    struct buf bytes;
    test_read(released, RELEASE_FILE_NEIGHBORS, &bytes);
    test_write(copied, RELEASE_FILE_NEIGHBORS, bytes.data, bytes.len / 2);
    buf_free(&bytes);
    assert_int_equal(open_copy(true, true), STATUS_FORMAT);
    assert_message(RELEASE_FILE_NEIGHBORS);
    tiny_shop_add_neighbors(&shop, TINY_ITEMS - 1);
    test_read(shop.model, MODEL_FILE_NEIGHBORS, &bytes);
    test_write(copied, RELEASE_FILE_NEIGHBORS, bytes.data, bytes.len);
    buf_free(&bytes);
    assert_int_equal(open_copy(true, true), STATUS_MISMATCH);
    assert_message(RELEASE_FILE_NEIGHBORS);
}

/* As every release before neighbours: no file, no member in its probes. */
static void engine_open_release_without_neighbours_opens(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    struct history_event event = {7, EVENT_VIEW, EVENT_TIME_UNKNOWN};
    struct probe_history history = {&event, 1, 0};
    struct engine_config config = {copied, true, true};
    struct engine *engine = NULL;
    struct buf probes;
    edit(RELEASE_FILE_MANIFEST, "\"files\"", RELEASE_FILE_NEIGHBORS, "other.safetensors");
    assert_int_equal(engine_open(&config, &engine, &err), STATUS_OK);
    assert_int_equal(path_join(path, copied, RELEASE_FILE_PROBES, NULL), STATUS_OK);
    assert_int_equal(probes_write(engine, path, &history, 1, &err), STATUS_OK);
    engine_close(engine);
    test_read(copied, RELEASE_FILE_PROBES, &probes);
    assert_null(strstr(buf_text(&probes), "neighbors"));
    buf_free(&probes);
    assert_int_equal(open_copy(true, false), STATUS_OK);
}

/* Puts the ids of the top items to out, quoted. */
static void top_ids(char out[PROBE_TOP][9])
{
    struct buf text;
    test_read(copied, RELEASE_FILE_PROBES, &text);
    const char *item = strstr(buf_text(&text), "\"top\":");
    assert_non_null(item);
    for (size_t i = 0; i < PROBE_TOP; i++) {
        item = strstr(item + 1, "\"SKU");
        assert_non_null(item);
        (void)snprintf(out[i], 9, "%s", item);
    }
    buf_free(&text);
}

/* The first probe's top item becomes its last one's: known, but with another score. */
static void probes_replay_item_of_another_score_is_a_mismatch(void **state)
{
    (void)state;
    char ids[PROBE_TOP][9];
    top_ids(ids);
    edit(RELEASE_FILE_PROBES, "\"top\":", ids[0], ids[PROBE_TOP - 1]);
    assert_int_equal(open_copy(true, false), STATUS_MISMATCH);
    assert_message("line 1: top item 1 is");
}

static void probes_replay_unknown_history_item_is_a_mismatch(void **state)
{
    (void)state;
    edit(RELEASE_FILE_PROBES, "\"history\":", "\"SKU", "\"GKU");
    assert_int_equal(open_copy(true, false), STATUS_MISMATCH);
    assert_message("line 1: the history has items");
}

static void probes_replay_malformed_lines_name_their_number(void **state)
{
    (void)state;
    static const char *const LINES[] = {
        "{",
        "[]",
        "",
        "{\"now_ms\": \"x\", \"history\": []}",
        "{\"now_ms\": 0.5, \"history\": []}",
        "{\"now_ms\": 1}",
        "{\"now_ms\": 1, \"history\": {}}",
        "{\"now_ms\": 1, \"history\": [3]}",
        "{\"now_ms\": 1, \"history\": [[\"SKU001\", \"stole\", 1]]}",
        "{\"now_ms\": 1, \"history\": [[\"SKU001\", \"view\", true]]}",
        "{\"now_ms\": 1, \"history\": [[\"SKU001\", \"view\", 1, 2]]}",
        "{\"now_ms\": 1, \"history\": [[\"SKU001\", \"view\", 1]]}",
        "{\"now_ms\": 1, \"history\": [[\"SKU001\", \"view\", 1]], \"vector\": [null]}",
    };
    struct buf probes;
    test_read(released, RELEASE_FILE_PROBES, &probes);
    size_t n_first = (size_t)(strchr(buf_text(&probes), '\n') - probes.data) + 1;
    for (size_t i = 0; i < sizeof(LINES) / sizeof(LINES[0]); i++) {
        struct buf text;
        buf_init(&text, 1 << 20);
        buf_append(&text, probes.data, n_first);
        buf_append_text(&text, LINES[i]);
        buf_append_char(&text, '\n');
        test_write(copied, RELEASE_FILE_PROBES, text.data, text.len);
        buf_free(&text);
        assert_int_equal(open_copy(true, false), STATUS_FORMAT);
        assert_message("probes.jsonl: line 2: ");
    }
    buf_free(&probes);
    test_write(copied, RELEASE_FILE_PROBES, "", 0);
    assert_int_equal(open_copy(true, false), STATUS_FORMAT);
    assert_message("probes.jsonl: no probes");
}

/* The user vector of an item without a vector is zero: all items tie. */
static void probes_replay_items_of_equal_score_may_change_places(void **state)
{
    (void)state;
    struct engine_config config = {.release_dir = copied};
    struct engine *engine = NULL;
    char path[PATH_BYTES_MAX];
    char ids[PROBE_TOP][9];
    struct history_event event = {TINY_ITEMS - 1, EVENT_VIEW, EVENT_TIME_UNKNOWN};
    struct probe_history history = {&event, 1, 0};
    assert_int_equal(engine_open(&config, &engine, &err), STATUS_OK);
    assert_int_equal(path_join(path, copied, RELEASE_FILE_PROBES, NULL), STATUS_OK);
    assert_int_equal(probes_write(engine, path, &history, 1, &err), STATUS_OK);
    assert_int_equal(probes_replay(engine, path, &err), STATUS_OK);
    top_ids(ids);
    edit(RELEASE_FILE_PROBES, "\"top\":", ids[0], "\"other\"");
    edit(RELEASE_FILE_PROBES, "\"top\":", ids[1], ids[0]);
    assert_int_equal(probes_replay(engine, path, &err), STATUS_MISMATCH);
    edit(RELEASE_FILE_PROBES, "\"top\":", "\"other\"", ids[1]);
    assert_int_equal(probes_replay(engine, path, &err), STATUS_OK);
    engine_close(engine);
}

static void engine_open_files_of_another_release_are_refused(void **state)
{
    (void)state;
    struct build_config config;
    struct build_result result;
    struct buf bytes;
    tiny_shop_build_config(&shop, &config);
    /* The same shop, its events in another order of popularity: other vectors. */
    assert_int_equal(tiny_shop_train(&shop, &err), STATUS_OK);
    config.index = "IVF16,Flat";
    config.channel = "candidate";
    if (build_release(&config, &result, &err) != STATUS_OK) {
        fail_msg("not built: %s", err.message);
    }
    test_read(result.dir, RELEASE_FILE_INDEX, &bytes);
    test_write(copied, RELEASE_FILE_INDEX, bytes.data, bytes.len);
    buf_free(&bytes);
    assert_int_equal(open_copy(true, true), STATUS_MISMATCH);
    assert_message("index.faiss: an index IVF16,Flat, the manifest says IVF8,Flat");
}

static void engine_open_manifest_of_other_numbers_is_a_mismatch(void **state)
{
    (void)state;
    edit(RELEASE_FILE_MANIFEST, "\"n_items\"", "300", "301");
    assert_int_equal(open_copy(true, true), STATUS_MISMATCH);
    assert_message("items.db: 300 items, the manifest says 301");
    setup(NULL);
    edit(RELEASE_FILE_MANIFEST, "\"dim\"", "16", "17");
    assert_int_equal(open_copy(true, true), STATUS_MISMATCH);
    assert_message("vectors.safetensors: 300 F32 vectors of dimension 16");
}

static void engine_open_model_of_another_dimension_is_a_mismatch(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    struct decay_settings settings;
    decay_settings_default(&settings);
    assert_int_equal(path_join(path, copied, RELEASE_FILE_MODEL, NULL), STATUS_OK);
    assert_int_equal(decay_model_write(path, TINY_DIM - 1, &settings, NULL), STATUS_OK);
    assert_int_equal(open_copy(true, true), STATUS_MISMATCH);
    assert_message(RELEASE_FILE_MODEL);
}

static void engine_open_changed_model_settings_are_caught_by_probes(void **state)
{
    (void)state;
    char path[PATH_BYTES_MAX];
    struct decay_settings settings;
    decay_settings_default(&settings);
    settings.position_decay = 0.5;
    assert_int_equal(path_join(path, copied, RELEASE_FILE_MODEL, NULL), STATUS_OK);
    assert_int_equal(decay_model_write(path, TINY_DIM, &settings, NULL), STATUS_OK);
    assert_int_equal(open_copy(true, true), STATUS_OK);
    assert_int_equal(open_copy(true, false), STATUS_MISMATCH);
    assert_message("of the user vector");
}

static void engine_open_out_of_memory_is_nomem_and_leaks_nothing(void **state)
{
    (void)state;
    int64_t n = 1;
    enum status status = STATUS_NOMEM;
    for (; status != STATUS_OK && n < 100000; n++) {
        mem_fail_nth(n);
        status = open_copy(false, false);
        mem_fail_nth(0);
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_NOMEM);
        }
    }
    print_message("opened after %lld failed allocations\n", (long long)n - 2);
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 10);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        CASE(engine_open_release_gives_parts_that_agree),
        CASE(engine_open_channel_link_is_resolved),
        CASE(engine_open_absent_folder_is_not_found),
        CASE(engine_open_any_flipped_bit_is_refused_by_name),
        CASE(engine_open_missing_file_is_refused_by_name),
        CASE(probes_replay_changed_score_is_a_mismatch),
        CASE(probes_replay_changed_vector_is_a_mismatch),
        CASE(probes_replay_changed_item_is_a_mismatch),
        CASE(probes_replay_changed_neighbour_is_a_mismatch),
        CASE(engine_open_neighbours_that_are_not_listed_do_not_serve),
        CASE(engine_open_unusable_neighbours_are_refused_by_name),
        CASE(engine_open_release_without_neighbours_opens),
        CASE(probes_replay_item_of_another_score_is_a_mismatch),
        CASE(probes_replay_unknown_history_item_is_a_mismatch),
        CASE(probes_replay_malformed_lines_name_their_number),
        CASE(probes_replay_items_of_equal_score_may_change_places),
        CASE(engine_open_files_of_another_release_are_refused),
        CASE(engine_open_manifest_of_other_numbers_is_a_mismatch),
        CASE(engine_open_model_of_another_dimension_is_a_mismatch),
        CASE(engine_open_changed_model_settings_are_caught_by_probes),
        CASE(engine_open_out_of_memory_is_nomem_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, build_once, remove_shop);
}
