#include "core/filter.h"

#include "core_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"

/* Four items A … D that differ in every column; D lacks a category, C almost everything. */
#define NONE ((double)NAN)
#define DAY_1 1600000000000.0
#define DAY_2 1600086400000.0

static const struct item_attribute A_ATTRIBUTES[] = {{"color", ATTRIBUTE_TEXT, "red", 0.0},
                                                     {"size", ATTRIBUTE_NUMBER, "1", 1.0},
                                                     {"eco", ATTRIBUTE_BOOL, "true", 1.0},
                                                     {"mixed", ATTRIBUTE_NUMBER, "12", 12.0}};
static const struct item_attribute B_ATTRIBUTES[] = {{"color", ATTRIBUTE_TEXT, "blue", 0.0},
                                                     {"size", ATTRIBUTE_NUMBER, "2", 2.0},
                                                     {"eco", ATTRIBUTE_BOOL, "false", 0.0}};
static const struct item_attribute D_ATTRIBUTES[] = {{"color", ATTRIBUTE_TEXT, "red", 0.0},
                                                     {"size", ATTRIBUTE_NUMBER, "3.5", 3.5},
                                                     {"mixed", ATTRIBUTE_TEXT, "XL", 0.0}};
static const struct item ITEMS[] = {
    {"A", "Lantern", "Home > Lighting > Lanterns", "Acme", NULL, NULL, NULL, 10.0, 5.0, DAY_1,
     A_ATTRIBUTES, 4},
    {"B", "Lamp", "Home > Lighting", "Zest", NULL, NULL, NULL, 20.0, 0.0, DAY_2, B_ATTRIBUTES, 3},
    {"C", "Odd", "Home > Lightings", NULL, NULL, NULL, NULL, NONE, NONE, NONE, NULL, 0},
    {"D", "Box", NULL, "Acme", NULL, NULL, NULL, 30.0, 1.0, DAY_2, D_ATTRIBUTES, 3},
};
static const double POPULARITY[] = {0.5, 0.25, 0.0, 0.25};

struct small_shop {
    char dir[64];
    char path[PATH_BYTES_MAX];
    struct catalog *catalog;
};

static int open_small(void **state)
{
    static struct small_shop shop;
    struct catalog_writer *writer = NULL;
    struct error err = {.message = ""};
    (void)snprintf(shop.dir, sizeof(shop.dir), "/tmp/aisle-filter-XXXXXX");
    if (mkdtemp(shop.dir) == NULL ||
        path_join(shop.path, shop.dir, "items.db", &err) != STATUS_OK ||
        catalog_writer_open(shop.path, &writer, &err) != STATUS_OK) {
        return -1;
    }
    for (size_t i = 0; i < 4; i++) {
        if (catalog_writer_add(writer, &ITEMS[i], POPULARITY[i], &err) != STATUS_OK) {
            return -1;
        }
    }
    *state = &shop;
    return catalog_writer_finish(writer, &err) == STATUS_OK &&
                   catalog_open(shop.path, &shop.catalog, &err) == STATUS_OK
               ? 0
               : -1;
}

static int close_small(void **state)
{
    struct small_shop *shop = *state;
    catalog_close(shop->catalog);
    return dir_remove(shop->dir, NULL) == STATUS_OK ? 0 : -1;
}

/* ---- what matches ---- */

struct expectation {
    const char *json;
    const char *ids; /* of the items that match */
};

static void expect_all(const struct small_shop *shop, const struct expectation *cases, size_t n)
{
    for (size_t c = 0; c < n; c++) {
        struct filter_rows rows;
        struct error err = {.message = ""};
        char ids[8] = "";
        size_t n_ids = 0;
        if (filter_compile(cases[c].json, strlen(cases[c].json), shop->catalog, &rows, &err) !=
            STATUS_OK) {
            fail_msg("%s: %s", cases[c].json, err.message);
        }
        for (uint32_t row = 0; row < 4; row++) {
            if (filter_match(&rows, row)) {
                ids[n_ids++] = (char)('A' + row);
            }
        }
        if (strcmp(ids, cases[c].ids) != 0 || rows.n_matching != n_ids || rows.n_rows != 4) {
            fail_msg("%s: \"%s\" (%zu), expected \"%s\"", cases[c].json, ids, rows.n_matching,
                     cases[c].ids);
        }
        filter_rows_free(&rows);
    }
}

#define EXPECT_ALL(state, cases) expect_all(*(state), cases, sizeof(cases) / sizeof((cases)[0]))

static void filter_compile_numbers_match_by_every_operator(void **state)
{
    static const struct expectation cases[] = {
        {"{\"field\":\"price\",\"eq\":20}", "B"},
        {"{\"field\":\"price\",\"ne\":20}", "ACD"},
        {"{\"field\":\"price\",\"in\":[30,10,11]}", "AD"},
        {"{\"field\":\"price\",\"in\":[]}", ""},
        {"{\"field\":\"price\",\"lt\":20}", "A"},
        {"{\"field\":\"price\",\"lte\":20}", "AB"},
        {"{\"field\":\"price\",\"gt\":20}", "D"},
        {"{\"field\":\"price\",\"gte\":20}", "BD"},
        {"{\"field\":\"price\",\"exists\":true}", "ABD"},
        {"{\"field\":\"price\",\"exists\":false}", "C"},
        {"{\"field\":\"stock\",\"gt\":0}", "AD"},
        {"{\"field\":\"stock\",\"gte\":-1e308}", "ABD"},
        {"{\"field\":\"popularity\",\"gte\":0.25}", "ABD"},
        {"{\"field\":\"popularity\",\"exists\":true}", "ABCD"},
        {"{\"field\":\"attributes.size\",\"gt\":1.5}", "BD"},
        {"{\"field\":\"attributes.size\",\"eq\":3.5}", "D"},
        {"{\"field\":\"attributes.size\",\"eq\":\"2\"}", ""},
        {"{\"field\":\"attributes.size\",\"ne\":\"2\"}", "ABCD"},
        {"{\"field\":\"attributes.size\",\"lt\":\"2\"}", ""},
        {"{\"field\":\"attributes.size\",\"in\":[\"x\",2]}", "B"},
    };
    EXPECT_ALL(state, cases);
}

static void filter_compile_times_and_bools_match_by_every_operator(void **state)
{
    static const struct expectation cases[] = {
        {"{\"field\":\"created_at\",\"eq\":1600000000000}", "A"},
        {"{\"field\":\"created_at\",\"gt\":\"2020-09-13T12:26:40Z\"}", "BD"},
        {"{\"field\":\"created_at\",\"gte\":\"2020-09-13T12:26:40Z\"}", "ABD"},
        {"{\"field\":\"created_at\",\"lt\":\"2020-09-14\"}", "A"},
        {"{\"field\":\"created_at\",\"in\":[1600086400000]}", "BD"},
        {"{\"field\":\"created_at\",\"ne\":1600086400000}", "AC"},
        {"{\"field\":\"created_at\",\"exists\":false}", "C"},
        {"{\"field\":\"attributes.eco\",\"eq\":true}", "A"},
        {"{\"field\":\"attributes.eco\",\"eq\":false}", "B"},
        {"{\"field\":\"attributes.eco\",\"ne\":true}", "BCD"},
        {"{\"field\":\"attributes.eco\",\"in\":[true,false]}", "AB"},
        {"{\"field\":\"attributes.eco\",\"exists\":true}", "AB"},
    };
    EXPECT_ALL(state, cases);
}

static void filter_compile_texts_match_by_every_operator(void **state)
{
    static const struct expectation cases[] = {
        {"{\"field\":\"brand\",\"eq\":\"Acme\"}", "AD"},
        {"{\"field\":\"brand\",\"eq\":\"acme\"}", ""},
        {"{\"field\":\"brand\",\"ne\":\"Acme\"}", "BC"},
        {"{\"field\":\"brand\",\"in\":[\"Zest\",\"Acme\"]}", "ABD"},
        {"{\"field\":\"brand\",\"exists\":false}", "C"},
        {"{\"field\":\"category\",\"eq\":\"Home > Lighting\"}", "B"},
        {"{\"field\":\"category\",\"eq\":\"Home>Lighting\"}", "B"},
        {"{\"field\":\"category\",\"under\":\"Home > Lighting\"}", "AB"},
        {"{\"field\":\"category\",\"under\":\" Home>Lighting \"}", "AB"},
        {"{\"field\":\"category\",\"under\":\"Home\"}", "ABC"},
        {"{\"field\":\"category\",\"under\":\"Hom\"}", ""},
        {"{\"field\":\"category\",\"exists\":true}", "ABC"},
        {"{\"field\":\"id\",\"eq\":\"C\"}", "C"},
        {"{\"field\":\"id\",\"ne\":\"C\"}", "ABD"},
        {"{\"field\":\"id\",\"in\":[\"D\",\"nobody\",\"A\"]}", "AD"},
        {"{\"field\":\"attributes.color\",\"in\":[\"red\",\"green\"]}", "AD"},
        {"{\"field\":\"attributes.color\",\"eq\":1}", ""},
        {"{\"field\":\"attributes.color\",\"gt\":\"a\"}", ""},
        {"{\"field\":\"attributes.mixed\",\"eq\":\"12\"}", "A"},
        {"{\"field\":\"attributes.mixed\",\"exists\":true}", "AD"},
    };
    EXPECT_ALL(state, cases);
}

static void filter_compile_unknown_attribute_matches_nothing_but_ne_and_absent(void **state)
{
    static const struct expectation cases[] = {
        {"{\"field\":\"attributes.nope\",\"eq\":\"x\"}", ""},
        {"{\"field\":\"attributes.nope\",\"in\":[1,2]}", ""},
        {"{\"field\":\"attributes.nope\",\"lt\":1}", ""},
        {"{\"field\":\"attributes.nope\",\"exists\":true}", ""},
        {"{\"field\":\"attributes.nope\",\"ne\":\"x\"}", "ABCD"},
        {"{\"field\":\"attributes.nope\",\"exists\":false}", "ABCD"},
    };
    EXPECT_ALL(state, cases);
}

static void filter_compile_nested_filters_combine(void **state)
{
    static const struct expectation cases[] = {
        {"{\"all\":[]}", "ABCD"},
        {"{\"any\":[]}", ""},
        {"{\"not\":{\"any\":[]}}", "ABCD"},
        {"{\"all\":[{\"field\":\"price\",\"lte\":20},{\"field\":\"stock\",\"gt\":0}]}", "A"},
        {"{\"any\":[{\"field\":\"price\",\"gt\":20},{\"field\":\"id\",\"eq\":\"C\"}]}", "CD"},
        {"{\"not\":{\"field\":\"price\",\"lte\":20}}", "CD"},
        {" {\"all\":[{\"not\":{\"field\":\"brand\",\"eq\":\"Zest\"}},{\"any\":[{\"field\":"
         "\"price\","
         "\"lt\":15},{\"all\":[{\"field\":\"price\",\"exists\":false}]}]}]} \n",
         "AC"},
        {"{\"eq\":\"Acme\",\"field\":\"brand\"}", "AD"},
    };
    EXPECT_ALL(state, cases);
}

static void filter_compile_random_filters_match_as_a_walk_over_the_items(void **state)
{
    (void)state;
    struct core_fixture shop;
    struct buf json;
    core_fixture_open(&shop, 259, "Flat", 11);
    bool *expected = mem_calloc(shop.n, sizeof(*expected));
    assert_non_null(expected);
    buf_init(&json, 1 << 20);
    for (int round = 0; round < 500; round++) {
        struct filter_rows rows;
        struct error err = {.message = ""};
        size_t n_expected = 0;
        buf_reset(&json);
        core_fixture_random_filter(&shop, &json, expected);
        if (filter_compile(buf_text(&json), json.len, shop.engine->catalog, &rows, &err) !=
            STATUS_OK) {
            fail_msg("%s: %s", buf_text(&json), err.message);
        }
        for (uint32_t row = 0; row < shop.n; row++) {
            n_expected += expected[row];
            if (filter_match(&rows, row) != expected[row]) {
                fail_msg("%s: row %u", buf_text(&json), row);
            }
        }
        assert_int_equal(rows.n_matching, n_expected);
        filter_rows_free(&rows);
    }
    buf_free(&json);
    mem_free(expected);
    core_fixture_close(&shop);
}

/* ---- mistakes ---- */

struct mistake {
    const char *json;
    const char *field;
};

static void filter_check_mistakes_name_their_path(void **state)
{
    static const struct mistake cases[] = {
        {"", "filter"},
        {"[]", "filter"},
        {"{", "filter"},
        {"{} x", "filter"},
        {"{\"field\":\"price\",\"lt\":1}}", "filter"},
        {"{}", "filter"},
        {"null", "filter"},
        {"{\"field\":3,\"eq\":1}", "filter"},
        {"{\"field\":\"title\",\"eq\":\"x\"}", "filter"},
        {"{\"field\":\"attributes.\",\"eq\":\"x\"}", "filter"},
        {"{\"field\":\"price\"}", "filter"},
        {"{\"field\":\"price\",\"less\":1}", "filter.less"},
        {"{\"field\":\"price\",\"lt\":1,\"gt\":0}", "filter.gt"},
        {"{\"field\":\"price\",\"field\":\"stock\",\"gt\":0}", "filter.field"},
        {"{\"field\":\"price\",\"lt\":\"1\"}", "filter.lt"},
        {"{\"field\":\"price\",\"lt\":null}", "filter.lt"},
        {"{\"field\":\"price\",\"lt\":1e999}", "filter.lt"},
        {"{\"field\":\"price\",\"eq\":true}", "filter.eq"},
        {"{\"field\":\"price\",\"in\":3}", "filter.in"},
        {"{\"field\":\"price\",\"in\":[1,\"x\"]}", "filter.in[1]"},
        {"{\"field\":\"price\",\"exists\":1}", "filter.exists"},
        {"{\"field\":\"price\",\"under\":\"x\"}", "filter.under"},
        {"{\"field\":\"brand\",\"lt\":\"x\"}", "filter.lt"},
        {"{\"field\":\"brand\",\"eq\":3}", "filter.eq"},
        {"{\"field\":\"id\",\"exists\":true}", "filter.exists"},
        {"{\"field\":\"created_at\",\"gt\":\"soon\"}", "filter.gt"},
        {"{\"field\":\"attributes.a\",\"eq\":{}}", "filter.eq"},
        {"{\"all\":{}}", "filter.all"},
        {"{\"all\":[],\"any\":[]}", "filter.any"},
        {"{\"not\":[]}", "filter.not"},
        {"{\"all\":[{\"field\":\"price\",\"lt\":1},{\"any\":[{\"field\":\"price\",\"lt\":\"x\"}]}]"
         "}",
         "filter.all[1].any[0].lt"},
        {"{\"field\":\"brand\",\"eq\":\"\xff\"}", "filter"},
    };
    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct error err = {.message = ""};
        enum status status = filter_check(cases[c].json, strlen(cases[c].json), &err);
        if (status != STATUS_INVALID || strcmp(err.field, cases[c].field) != 0 ||
            err.message[0] == '\0') {
            fail_msg("%s: %s, field \"%s\"", cases[c].json, status_text(status), err.field);
        }
        assert_int_equal(filter_check(cases[c].json, strlen(cases[c].json), NULL), STATUS_INVALID);
    }
}

static void filter_compile_mistake_gives_nothing(void **state)
{
    static const char json[] = "{\"field\":\"price\",\"lt\":\"x\"}";
    const struct small_shop *shop = *state;
    struct filter_rows rows = {(uint64_t *)1, 1, 1};
    assert_int_equal(filter_compile(json, strlen(json), shop->catalog, &rows, NULL),
                     STATUS_INVALID);
    assert_null(rows.bits);
    assert_int_equal(rows.n_matching, 0);
}

/* ---- limits ---- */

static enum status check_text(struct buf *json, struct error *err)
{
    assert_int_equal(json->status, STATUS_OK);
    return filter_check(buf_text(json), json->len, err);
}

static void repeat(struct buf *json, const char *text, int n)
{
    for (int i = 0; i < n; i++) {
        buf_append_text(json, text);
    }
}

static void filter_check_limits_hold_at_and_one_past(void **state)
{
    static const char condition[] = "{\"field\":\"price\",\"lt\":1}";
    struct buf json;
    struct error err = {.message = ""};
    (void)state;
    buf_init(&json, 1 << 20);
    for (int past = 0; past < 2; past++) {
        enum status expected = past ? STATUS_LIMIT : STATUS_OK;
        buf_reset(&json); /* depth, through arrays and through `not` */
        repeat(&json, "{\"all\":[", FILTER_DEPTH_MAX - 1 + past);
        buf_append_text(&json, condition);
        repeat(&json, "]}", FILTER_DEPTH_MAX - 1 + past);
        assert_int_equal(check_text(&json, &err), expected);
        buf_reset(&json);
        repeat(&json, "{\"not\":", FILTER_DEPTH_MAX - 1 + past);
        buf_append_text(&json, condition);
        repeat(&json, "}", FILTER_DEPTH_MAX - 1 + past);
        assert_int_equal(check_text(&json, &err), expected);
        buf_reset(&json); /* conditions */
        buf_printf(&json, "{\"all\":[%s", condition);
        for (int i = 1; i < FILTER_CONDITIONS_MAX + past; i++) {
            buf_printf(&json, ",%s", condition);
        }
        buf_append_text(&json, "]}");
        assert_int_equal(check_text(&json, &err), expected);
        buf_reset(&json); /* values */
        buf_append_text(&json, "{\"field\":\"price\",\"in\":[0");
        repeat(&json, ",1", FILTER_VALUES_MAX - 1 + past);
        buf_append_text(&json, "]}");
        assert_int_equal(check_text(&json, &err), expected);
        buf_reset(&json); /* bytes */
        buf_append_text(&json, condition);
        repeat(&json, " ", FILTER_TEXT_MAX_BYTES - (int)json.len + past);
        assert_int_equal(check_text(&json, &err), expected);
    }
    buf_free(&json);
}

static void filter_check_deep_nesting_is_refused_before_recursion(void **state)
{
    struct buf json;
    struct error err = {.message = ""};
    (void)state;
    buf_init(&json, 1 << 20);
    repeat(&json, "[", FILTER_TEXT_MAX_BYTES);
    assert_int_equal(check_text(&json, &err), STATUS_INVALID);
    assert_string_equal(err.field, "filter");
    buf_free(&json);
}

static void filter_compile_without_memory_says_so(void **state)
{
    static const char json[] =
        "{\"all\":[{\"field\":\"category\",\"under\":\"Home\"},{\"not\":{\"field\":\"attributes."
        "color\",\"in\":[\"red\",\"blue\"]}},{\"field\":\"price\",\"in\":[1,2]}]}";
    const struct small_shop *shop = *state;
    enum status status = STATUS_NOMEM;
    struct filter_rows rows;
    int64_t n = 0;
    while (status == STATUS_NOMEM && n < 100) {
        mem_fail_nth(++n);
        status = filter_compile(json, strlen(json), shop->catalog, &rows, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || rows.bits == NULL);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 4);
    filter_rows_free(&rows);
}

/* ---- cache ---- */

static const char *price_filter(char out[64], int price)
{
    (void)snprintf(out, 64, "{\"field\":\"price\",\"lte\":%d}", price);
    return out;
}

static const struct filter_rows *get(struct filter_cache *cache, int price)
{
    char json[64];
    const struct filter_rows *rows = NULL;
    price_filter(json, price);
    assert_int_equal(filter_cache_get(cache, json, strlen(json), &rows, NULL), STATUS_OK);
    assert_non_null(rows);
    return rows;
}

static void filter_cache_get_known_text_compiles_once(void **state)
{
    const struct small_shop *shop = *state;
    struct filter_cache *cache;
    assert_int_equal(filter_cache_open(shop->catalog, 1 << 20, &cache, NULL), STATUS_OK);
    const struct filter_rows *first = get(cache, 10);
    assert_int_equal(first->n_matching, 1);
    filter_cache_next_epoch(cache);
    uint64_t n_allocations = mem_count();
    assert_ptr_equal(get(cache, 10), first);
    assert_int_equal(mem_count(), n_allocations);
    filter_cache_close(cache);
}

static void filter_cache_get_full_cache_drops_the_longest_unused(void **state)
{
    const struct small_shop *shop = *state;
    struct filter_cache *cache;
    assert_int_equal(filter_cache_open(shop->catalog, 3 * 600, &cache, NULL), STATUS_OK);
    (void)get(cache, 10);
    (void)get(cache, 20);
    (void)get(cache, 30);
    filter_cache_next_epoch(cache);
    (void)get(cache, 10); /* used again: 20 is the oldest now */
    filter_cache_next_epoch(cache);
    (void)get(cache, 31);
    uint64_t n_allocations = mem_count();
    (void)get(cache, 10);
    (void)get(cache, 30);
    assert_int_equal(mem_count(), n_allocations);
    (void)get(cache, 20);
    assert_true(mem_count() > n_allocations);
    filter_cache_close(cache);
}

static void filter_cache_get_results_of_one_epoch_stay_as_they_are(void **state)
{
    const struct small_shop *shop = *state;
    struct filter_cache *cache;
    const struct filter_rows *held[40];
    assert_int_equal(filter_cache_open(shop->catalog, 3 * 600, &cache, NULL), STATUS_OK);
    for (int round = 0; round < 3; round++) {
        filter_cache_next_epoch(cache);
        for (int i = 0; i < 40; i++) {
            held[i] = get(cache, i);
        }
        for (int i = 0; i < 40; i++) {
            assert_int_equal(held[i]->n_matching, i >= 30 ? 3 : i >= 20 ? 2 : i >= 10 ? 1 : 0);
            assert_ptr_equal(held[i], get(cache, i));
        }
    }
    /* Beyond its bytes for one epoch only: the next has room for the usual number again. */
    filter_cache_next_epoch(cache);
    uint64_t n_allocations = mem_count();
    (void)get(cache, 0);
    assert_true(mem_count() > n_allocations);
    filter_cache_close(cache);
}

static void filter_cache_get_more_filters_than_places_is_limit(void **state)
{
    const struct small_shop *shop = *state;
    struct filter_cache *cache;
    const struct filter_rows *rows = NULL;
    struct error err = {.message = ""};
    char json[64];
    assert_int_equal(filter_cache_open(shop->catalog, 1 << 20, &cache, NULL), STATUS_OK);
    for (int i = 0; i < 256; i++) {
        (void)get(cache, i);
    }
    price_filter(json, 256);
    assert_int_equal(filter_cache_get(cache, json, strlen(json), &rows, &err), STATUS_LIMIT);
    assert_null(rows);
    filter_cache_next_epoch(cache);
    assert_int_equal(get(cache, 256)->n_matching, 3);
    filter_cache_close(cache);
}

static void filter_cache_check_knows_what_compiles(void **state)
{
    const struct small_shop *shop = *state;
    struct filter_cache *cache;
    struct error err = {.message = ""};
    const struct filter_rows *rows;
    assert_int_equal(filter_cache_open(shop->catalog, 1 << 20, &cache, NULL), STATUS_OK);
    assert_int_equal(filter_cache_check(cache, "{\"all\":[]}", 10, &err), STATUS_OK);
    assert_int_equal(filter_cache_get(cache, "{\"all\":[]}", 10, &rows, &err), STATUS_OK);
    assert_int_equal(filter_cache_check(cache, "{\"all\":[]}", 10, &err), STATUS_OK);
    assert_int_equal(filter_cache_check(cache, "{\"all\":[]}", 9, &err), STATUS_INVALID);
    assert_int_equal(filter_cache_get(cache, "{\"all\":1}", 9, &rows, &err), STATUS_INVALID);
    assert_string_equal(err.field, "filter.all");
    filter_cache_close(cache);
    filter_cache_close(NULL);
}

static void filter_check_nul_in_a_string_is_refused(void **state)
{
    /* As plain text it would be cut there and match another brand. */
    static const char json[] = "{\"field\":\"brand\",\"eq\":\"Oak\\u0000Field\"}";
    struct error err = {.code = STATUS_OK};
    (void)state;
    assert_int_equal(filter_check(json, strlen(json), &err), STATUS_INVALID);
    assert_string_equal(err.field, "filter");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filter_check_nul_in_a_string_is_refused),
        cmocka_unit_test(filter_compile_numbers_match_by_every_operator),
        cmocka_unit_test(filter_compile_times_and_bools_match_by_every_operator),
        cmocka_unit_test(filter_compile_texts_match_by_every_operator),
        cmocka_unit_test(filter_compile_unknown_attribute_matches_nothing_but_ne_and_absent),
        cmocka_unit_test(filter_compile_nested_filters_combine),
        cmocka_unit_test(filter_compile_random_filters_match_as_a_walk_over_the_items),
        cmocka_unit_test(filter_check_mistakes_name_their_path),
        cmocka_unit_test(filter_compile_mistake_gives_nothing),
        cmocka_unit_test(filter_check_limits_hold_at_and_one_past),
        cmocka_unit_test(filter_check_deep_nesting_is_refused_before_recursion),
        cmocka_unit_test(filter_compile_without_memory_says_so),
        cmocka_unit_test(filter_cache_get_known_text_compiles_once),
        cmocka_unit_test(filter_cache_get_full_cache_drops_the_longest_unused),
        cmocka_unit_test(filter_cache_get_results_of_one_epoch_stay_as_they_are),
        cmocka_unit_test(filter_cache_get_more_filters_than_places_is_limit),
        cmocka_unit_test(filter_cache_check_knows_what_compiles),
    };
    return cmocka_run_group_tests(tests, open_small, close_small);
}
