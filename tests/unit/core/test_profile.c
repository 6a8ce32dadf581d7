#include "core/profile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

static enum status parse(const char *json, struct profile *out, struct error *err)
{
    return profile_parse(json, strlen(json), "test", out, err);
}

static void profile_parse_full_profile_is_read(void **state)
{
    struct profile profile;
    struct error err = {.message = ""};
    (void)state;
    assert_int_equal(
        parse("{\"description\": \"x\", \"weights\": {\"similarity\": 0.5, \"in_stock\": "
              "-2, \"freshness\": 1e6}, \"freshness_half_life_days\": 7, "
              "\"diversity\": 1, \"candidates\": 2000, \"neighbor_candidates\": 0}\n",
              &profile, &err),
        STATUS_OK);
    assert_string_equal(profile.name, "test");
    assert_int_equal(strlen(profile.hash), 16);
    assert_true(profile.weights[FEATURE_SIMILARITY] == 0.5);
    assert_true(profile.weights[FEATURE_POPULARITY] == 0.0);
    assert_true(profile.weights[FEATURE_FRESHNESS] == 1e6);
    assert_true(profile.weights[FEATURE_IN_STOCK] == -2.0);
    assert_true(profile.freshness_half_life_days == 7.0);
    assert_true(profile.diversity == 1.0);
    assert_int_equal(profile.candidates, 2000);
    assert_int_equal(profile.neighbor_candidates, 0);
}

static void profile_parse_neighbors_weigh_as_similarity_unless_said(void **state)
{
    static const struct {
        const char *json;
        double weight;
    } cases[] = {
        {"{}", 1.0},
        {"{\"weights\": {\"similarity\": 0.5}}", 0.5},
        {"{\"weights\": {\"popularity\": 1}}", 0.0},
        {"{\"weights\": {\"similarity\": 1, \"neighbors\": 0}}", 0.0},
        {"{\"weights\": {\"neighbors\": 2, \"similarity\": 1}}", 2.0},
    };
    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct profile profile;
        assert_int_equal(parse(cases[c].json, &profile, NULL), STATUS_OK);
        assert_true(profile.weights[FEATURE_NEIGHBORS] == cases[c].weight);
        assert_int_equal(profile.neighbor_candidates, 200);
    }
}

static void profile_parse_empty_object_is_the_default(void **state)
{
    struct profile profile;
    struct profile other;
    (void)state;
    profile_default(&other);
    assert_int_equal(parse("{}", &profile, NULL), STATUS_OK);
    assert_memory_equal(profile.weights, other.weights, sizeof(other.weights));
    assert_int_equal(profile.candidates, other.candidates);
    assert_string_equal(other.name, "default");
}

static void profile_parse_hash_follows_the_text(void **state)
{
    struct profile a;
    struct profile b;
    (void)state;
    assert_int_equal(parse("{\"diversity\": 0.1}", &a, NULL), STATUS_OK);
    assert_int_equal(parse("{\"diversity\": 0.2}", &b, NULL), STATUS_OK);
    assert_string_not_equal(a.hash, b.hash);
}

static void profile_parse_mistakes_are_named(void **state)
{
    static const struct {
        const char *json;
        const char *field;
    } cases[] = {
        {"", ""},
        {"[]", ""},
        {"{} x", ""},
        {"{\"diversity\": \xff}", ""},
        {"{\"diversty\": 0.3}", "diversty"},
        {"{\"description\": 3}", "description"},
        {"{\"diversity\": 1.01}", "diversity"},
        {"{\"diversity\": -0.01}", "diversity"},
        {"{\"diversity\": \"0.3\"}", "diversity"},
        {"{\"candidates\": 0}", "candidates"},
        {"{\"candidates\": 2001}", "candidates"},
        {"{\"candidates\": 1.5}", "candidates"},
        {"{\"neighbor_candidates\": -1}", "neighbor_candidates"},
        {"{\"neighbor_candidates\": 2001}", "neighbor_candidates"},
        {"{\"neighbor_candidates\": 0.5}", "neighbor_candidates"},
        {"{\"freshness_half_life_days\": 0}", "freshness_half_life_days"},
        {"{\"freshness_half_life_days\": 36501}", "freshness_half_life_days"},
        {"{\"weights\": []}", "weights"},
        {"{\"weights\": {\"similarty\": 1}}", "weights.similarty"},
        {"{\"weights\": {\"similarity\": 1000001}}", "weights.similarity"},
        {"{\"weights\": {\"similarity\": NaN}}", ""},
        {"{\"weights\": {\"similarity\": 1, \"similarity\": 2}}", "weights.similarity"},
    };
    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct profile profile;
        struct error err = {.message = ""};
        enum status status = parse(cases[c].json, &profile, &err);
        if (status != STATUS_INVALID || strcmp(err.field, cases[c].field) != 0 ||
            strstr(err.message, "test") == NULL) {
            fail_msg("%s: %s, field \"%s\": %s", cases[c].json, status_text(status), err.field,
                     err.message);
        }
    }
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[PATH_BYTES_MAX];
    assert_int_equal(path_join(path, dir, name, NULL), STATUS_OK);
    assert_int_equal(file_write_atomic(path, text, strlen(text), NULL), STATUS_OK);
}

static void profile_set_load_reads_every_profile_of_a_folder(void **state)
{
    char dir[] = "/tmp/aisle-profiles-XXXXXX";
    struct profile_set set;
    struct error err = {.message = ""};
    (void)state;
    assert_non_null(mkdtemp(dir));
    write_text(dir, "zeta.json", "{\"diversity\": 0.5}");
    write_text(dir, "default.json", "{\"candidates\": 77}");
    write_text(dir, "notes.txt", "no profile");
    write_text(dir, ".hidden.json", "no profile");
    assert_int_equal(profile_set_load(dir, &set, &err), STATUS_OK);
    assert_int_equal(set.n, 2);
    assert_int_equal(profile_find(&set, "default")->candidates, 77);
    assert_true(profile_find(&set, "zeta")->diversity == 0.5);
    assert_null(profile_find(&set, "alpha"));
    profile_set_free(&set);
    write_text(dir, "bad.json", "{\"diversity\": 2}");
    assert_int_equal(profile_set_load(dir, &set, &err), STATUS_INVALID);
    assert_string_equal(err.field, "diversity");
    assert_non_null(strstr(err.message, "bad"));
    assert_null(set.profiles);
    assert_int_equal(dir_remove(dir, NULL), STATUS_OK);
}

static void profile_set_load_without_folder_is_the_default_alone(void **state)
{
    struct profile_set set;
    (void)state;
    assert_int_equal(profile_set_load(NULL, &set, NULL), STATUS_OK);
    assert_int_equal(set.n, 1);
    assert_non_null(profile_find(&set, "default"));
    profile_set_free(&set);
    assert_int_equal(profile_set_load("/nowhere/at/all", &set, NULL), STATUS_OK);
    assert_int_equal(set.n, 1);
    profile_set_free(&set);
}

static void profile_set_load_committed_profiles_are_valid(void **state)
{
    struct profile_set set;
    struct error err = {.message = ""};
    (void)state;
    if (profile_set_load(AISLE_TEST_DATA "/profiles", &set, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_true(set.n >= 3);
    assert_non_null(profile_find(&set, "discovery"));
    profile_set_free(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(profile_parse_full_profile_is_read),
        cmocka_unit_test(profile_parse_empty_object_is_the_default),
        cmocka_unit_test(profile_parse_neighbors_weigh_as_similarity_unless_said),
        cmocka_unit_test(profile_parse_hash_follows_the_text),
        cmocka_unit_test(profile_parse_mistakes_are_named),
        cmocka_unit_test(profile_set_load_reads_every_profile_of_a_folder),
        cmocka_unit_test(profile_set_load_without_folder_is_the_default_alone),
        cmocka_unit_test(profile_set_load_committed_profiles_are_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
