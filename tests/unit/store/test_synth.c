#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/idmap.h"
#include "base/parse.h"
#include "store/synth.h"
#include "store/table.h"

struct place {
    char root[64];
    char out[PATH_BYTES_MAX];
    char items[PATH_BYTES_MAX];
    char events[PATH_BYTES_MAX];
};

static int make_place(void **state)
{
    struct place *place = mem_calloc(1, sizeof *place);
    if (place == NULL) {
        return -1;
    }
    (void)snprintf(place->root, sizeof place->root, "/tmp/aisle-synth-XXXXXX");
    if (mkdtemp(place->root) == NULL ||
        path_join(place->out, place->root, "shop", NULL) != STATUS_OK ||
        path_join(place->items, place->out, "items.csv", NULL) != STATUS_OK ||
        path_join(place->events, place->out, "events.csv", NULL) != STATUS_OK) {
        return -1;
    }
    *state = place;
    return 0;
}

static int remove_place(void **state)
{
    struct place *place = *state;
    enum status status = dir_remove(place->root, NULL);
    mem_free(place);
    return status == STATUS_OK ? 0 : -1;
}

static struct synth_config small_config(const struct place *place)
{
    struct synth_config config;
    synth_config_default(&config);
    config.out_dir = place->out;
    config.vocabulary_dir = AISLE_TEST_DATA "/vocabulary";
    config.n_items = 600;
    config.n_users = 500;
    config.n_events = 12000;
    return config;
}

static void run(const struct synth_config *config)
{
    struct error err = {0};
    enum status status = synth_run(config, &err);
    if (status != STATUS_OK) {
        print_error("%s\n", err.message);
    }
    assert_int_equal(status, STATUS_OK);
}

static double number(const struct table_record *record, const char *name)
{
    double value = 0.0;
    const struct table_field *field = table_find(record, name);
    assert_non_null(field);
    assert_true(parse_double(field->text, field->len, &value));
    return value;
}

/* Item ids → rows. */
static struct idmap *read_ids(const char *path)
{
    struct table *table = NULL;
    struct table_record record;
    struct idmap *ids = NULL;
    uint32_t row = 0;
    assert_int_equal(idmap_open(0, &ids, NULL), STATUS_OK);
    assert_int_equal(table_open(path, ',', &table, NULL), STATUS_OK);
    while (table_next(table, &record, NULL) == STATUS_OK) {
        const struct table_field *id = table_find(&record, "id");
        assert_non_null(id);
        assert_int_equal(idmap_add(ids, id->text, id->len, &row), STATUS_OK);
    }
    table_close(table);
    return ids;
}

static void synth_run_items_are_complete_and_plausible(void **state)
{
    const struct place *place = *state;
    const struct synth_config config = small_config(place);
    struct table *table = NULL;
    struct table_record record;
    size_t n = 0;
    size_t n_sold_out = 0;
    run(&config);
    struct idmap *ids = read_ids(place->items);
    assert_int_equal(idmap_size(ids), config.n_items);
    idmap_close(ids);
    assert_int_equal(table_open(place->items, ',', &table, NULL), STATUS_OK);
    while (table_next(table, &record, NULL) == STATUS_OK) {
        int64_t created = 0;
        const struct table_field *at = table_find(&record, "created_at");
        n++;
        assert_true(number(&record, "price") >= 0.99);
        assert_true(number(&record, "rating") >= 2.5 && number(&record, "rating") <= 5.0);
        n_sold_out += number(&record, "stock") < 1.0 ? 1 : 0;
        assert_non_null(table_find(&record, "title"));
        assert_non_null(table_find(&record, "brand"));
        assert_non_null(table_find(&record, "material"));
        assert_non_null(strstr(table_find(&record, "category")->text, " > "));
        assert_non_null(at);
        assert_true(parse_time_ms(at->text, at->len, &created));
        assert_true(created <= config.end_time_ms);
    }
    table_close(table);
    assert_int_equal(n, config.n_items);
    assert_in_range(n_sold_out, n / 100, n / 12); /* about 4 % */
}

static void synth_run_events_are_as_many_as_wanted_sorted_and_of_known_items(void **state)
{
    const struct place *place = *state;
    const struct synth_config config = small_config(place);
    struct table *table = NULL;
    struct table_record record;
    size_t n = 0;
    size_t n_bought = 0;
    double before = 0.0;
    run(&config);
    struct idmap *ids = read_ids(place->items);
    assert_int_equal(table_open(place->events, ',', &table, NULL), STATUS_OK);
    while (table_next(table, &record, NULL) == STATUS_OK) {
        const struct table_field *id = table_find(&record, "item_id");
        double time = number(&record, "timestamp");
        assert_int_not_equal(idmap_find(ids, id->text, id->len), IDMAP_NONE);
        assert_true(time >= before);
        assert_true(time < (double)config.end_time_ms);
        n_bought += strcmp(table_find(&record, "type")->text, "purchase") == 0 ? 1 : 0;
        before = time;
        n++;
    }
    table_close(table);
    idmap_close(ids);
    assert_int_equal(n, config.n_events);
    assert_in_range(n_bought, n / 100, n / 10);
}

static void hash_files(const struct place *place, char items[SHA256_HEX_BYTES],
                       char events[SHA256_HEX_BYTES])
{
    uint64_t n_bytes = 0;
    assert_int_equal(hash_file_sha256(place->items, items, &n_bytes, NULL), STATUS_OK);
    assert_int_equal(hash_file_sha256(place->events, events, &n_bytes, NULL), STATUS_OK);
}

static void synth_run_same_seed_gives_same_bytes_and_another_does_not(void **state)
{
    const struct place *place = *state;
    struct synth_config config = small_config(place);
    char items[3][SHA256_HEX_BYTES];
    char events[3][SHA256_HEX_BYTES];
    run(&config);
    hash_files(place, items[0], events[0]);
    run(&config);
    hash_files(place, items[1], events[1]);
    config.seed = 2;
    run(&config);
    hash_files(place, items[2], events[2]);
    assert_string_equal(items[0], items[1]);
    assert_string_equal(events[0], events[1]);
    assert_string_not_equal(items[0], items[2]);
    assert_string_not_equal(events[0], events[2]);
}

static void synth_run_smallest_sizes_work(void **state)
{
    const struct place *place = *state;
    static const size_t sizes[][3] = {{1, 1, 0}, {1, 1, 1}, {1, 3, 50}, {2, 1, 7}, {120, 40, 39}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct synth_config config = small_config(place);
        struct table *table = NULL;
        struct table_record record;
        size_t n = 0;
        config.n_items = sizes[i][0];
        config.n_users = sizes[i][1];
        config.n_events = sizes[i][2];
        config.n_days = 1;
        run(&config);
        struct idmap *ids = read_ids(place->items);
        assert_int_equal(idmap_size(ids), sizes[i][0]);
        idmap_close(ids);
        assert_int_equal(table_open(place->events, ',', &table, NULL), STATUS_OK);
        while (table_next(table, &record, NULL) == STATUS_OK) {
            n++;
        }
        table_close(table);
        assert_int_equal(n, sizes[i][2]);
    }
}

static int compare_rows(const void *a, const void *b)
{
    const uint32_t *x = a;
    const uint32_t *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Views of a session in order: the share whose next view is the most frequent follower of the
 * present one, against the share of the most popular item. */
static void synth_run_next_views_depend_on_the_last_far_more_than_on_popularity(void **state)
{
    enum { N_ITEMS = 300, PAIRS_MAX = 40000 };
    const struct place *place = *state;
    struct synth_config config = small_config(place);
    struct table *table = NULL;
    struct table_record record;
    struct idmap *sessions = NULL;
    config.n_items = N_ITEMS;
    config.n_events = PAIRS_MAX;
    run(&config);
    struct idmap *ids = read_ids(place->items);
    uint32_t *pairs = mem_calloc(PAIRS_MAX, sizeof *pairs);
    uint32_t *last = mem_calloc(PAIRS_MAX, sizeof *last);
    uint32_t views[N_ITEMS] = {0};
    size_t n_pairs = 0;
    assert_non_null(pairs);
    assert_non_null(last);
    assert_int_equal(idmap_open(0, &sessions, NULL), STATUS_OK);
    assert_int_equal(table_open(place->events, ',', &table, NULL), STATUS_OK);
    while (table_next(table, &record, NULL) == STATUS_OK) {
        const struct table_field *id = table_find(&record, "item_id");
        const struct table_field *session = table_find(&record, "session_id");
        uint32_t number_of_session = 0;
        if (strcmp(table_find(&record, "type")->text, "view") != 0) {
            continue;
        }
        uint32_t row = idmap_find(ids, id->text, id->len);
        views[row]++;
        if (idmap_add(sessions, session->text, session->len, &number_of_session) == STATUS_EXISTS) {
            pairs[n_pairs++] = last[number_of_session] * N_ITEMS + row;
        }
        last[number_of_session] = row;
    }
    qsort(pairs, n_pairs, sizeof *pairs, compare_rows);
    size_t by_follower = 0;
    size_t best = 0;
    for (size_t i = 0, run_length = 0; i < n_pairs; i++) {
        run_length = i > 0 && pairs[i] == pairs[i - 1] ? run_length + 1 : 1;
        best = run_length > best ? run_length : best;
        if (i + 1 == n_pairs || pairs[i + 1] / N_ITEMS != pairs[i] / N_ITEMS) {
            by_follower += best;
            best = 0;
        }
    }
    size_t most_popular = 0;
    for (size_t i = 0; i < N_ITEMS; i++) {
        most_popular = views[i] > most_popular ? views[i] : most_popular;
    }
    assert_true(n_pairs > 10000);
    assert_true(by_follower > 5 * most_popular);
    table_close(table);
    idmap_close(sessions);
    idmap_close(ids);
    mem_free(last);
    mem_free(pairs);
}

static void synth_run_bad_settings_are_named_and_nothing_is_written(void **state)
{
    const struct place *place = *state;
    struct synth_config config = small_config(place);
    struct error err;
    config.n_items = 0;
    assert_int_equal(synth_run(&config, &err), STATUS_INVALID);
    assert_string_equal(err.field, "items");
    config = small_config(place);
    config.n_items = (size_t)SYNTH_ITEMS_MAX + 1;
    assert_int_equal(synth_run(&config, &err), STATUS_INVALID);
    config = small_config(place);
    config.n_days = 0;
    assert_int_equal(synth_run(&config, &err), STATUS_INVALID);
    assert_string_equal(err.field, "days");
    config = small_config(place);
    config.vocabulary_dir = "/nonexistent";
    assert_int_equal(synth_run(&config, &err), STATUS_NOT_FOUND);
    assert_false(file_exists(place->out));
}

static void synth_run_faulty_vocabulary_is_refused(void **state)
{
    const struct place *place = *state;
    static const struct {
        const char *text;
        const char *field;
    } cases[] = {
        {"{\"currency\": 1}", "currency"},
        {"{\"currency\": \"GBP\", \"collections\": []}", "collections"},
        {"{\"currency\": \"GBP\", \"collections\": [\"A\"], \"departments\": []}", "departments"},
        {"{\"currency\": \"GBP\", \"collections\": [\"A\"], \"departments\": [{\"name\": \"H\", "
         "\"adjectives\": [\"a\"], \"materials\": [\"m\"], \"brands\": [\"b\"], \"colours\": [], "
         "\"categories\": [{\"code\": \"LONG\", \"path\": \"p\"}]}]}",
         "code"},
        {"{\"currency\": \"GBP\", \"collections\": [\"A\"], \"departments\": [{\"name\": \"H\", "
         "\"adjectives\": [\"a\"], \"materials\": [\"m\"], \"brands\": [\"b\"], \"colours\": [], "
         "\"categories\": [{\"code\": \"ABC\", \"path\": \"p\", \"price\": [1, 0], \"weight\": 1, "
         "\"nouns\": [\"n\"], \"goes_with\": [\"XYZ\"]}]}]}",
         "goes_with"},
    };
    struct synth_config config = small_config(place);
    char path[PATH_BYTES_MAX];
    struct error err;
    config.vocabulary_dir = place->root;
    assert_int_equal(path_join(path, place->root, "shop.json", NULL), STATUS_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(file_write_atomic(path, cases[i].text, strlen(cases[i].text), NULL),
                         STATUS_OK);
        assert_int_equal(synth_run(&config, &err), STATUS_FORMAT);
        assert_string_equal(err.field, cases[i].field);
    }
    assert_false(file_exists(place->out));
}

static void synth_run_out_of_memory_is_clean(void **state)
{
    const struct place *place = *state;
    struct synth_config config = small_config(place);
    enum status status = STATUS_NOMEM;
    config.n_items = 20;
    config.n_users = 3;
    config.n_events = 30;
    for (int n = 1; status != STATUS_OK; n++) {
        mem_fail_nth(n);
        status = synth_run(&config, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        assert_true(n < 5000);
    }
}

int main(void)
{
#define WITH_PLACE(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)
    const struct CMUnitTest tests[] = {
        WITH_PLACE(synth_run_items_are_complete_and_plausible),
        WITH_PLACE(synth_run_events_are_as_many_as_wanted_sorted_and_of_known_items),
        WITH_PLACE(synth_run_same_seed_gives_same_bytes_and_another_does_not),
        WITH_PLACE(synth_run_smallest_sizes_work),
        WITH_PLACE(synth_run_next_views_depend_on_the_last_far_more_than_on_popularity),
        WITH_PLACE(synth_run_bad_settings_are_named_and_nothing_is_written),
        WITH_PLACE(synth_run_faulty_vocabulary_is_refused),
        WITH_PLACE(synth_run_out_of_memory_is_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
