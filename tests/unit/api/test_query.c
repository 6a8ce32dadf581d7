#include "api/query.h"

#include <string.h>

#include "api_test.h"

static enum status convert(const char *query, const struct query_subject *subject, struct buf *out,
                           struct error *err)
{
    buf_reset(out);
    return query_to_json(query, subject, out, err);
}

static const struct query_subject RELATED = {.scenario = "related", .item_id = "A \"1\""};
static const struct query_subject USER = {.scenario = "for_you", .user_id = "u"};

static void query_to_json_without_query_names_the_subject(void **state)
{
    struct buf out;
    (void)state;
    buf_init(&out, 4096);
    assert_int_equal(convert(NULL, &RELATED, &out, NULL), STATUS_OK);
    assert_string_equal(buf_text(&out), "{\"scenario\":\"related\",\"items\":[\"A \\\"1\\\"\"]}");
    assert_int_equal(convert("", &USER, &out, NULL), STATUS_OK);
    assert_string_equal(buf_text(&out), "{\"scenario\":\"for_you\",\"user_id\":\"u\"}");
    buf_free(&out);
}

static void query_to_json_parameters_become_members_and_a_filter(void **state)
{
    struct buf out;
    (void)state;
    buf_init(&out, 4096);
    assert_int_equal(convert("limit=5&user_id=u%2F1&category=Home+%3E+Light%C3%A9&price_max=9.5"
                             "&in_stock=true&fields=title,price&explain=1&exclude=a,b",
                             &RELATED, &out, NULL),
                     STATUS_OK);
    assert_string_equal(
        buf_text(&out),
        "{\"scenario\":\"related\",\"items\":[\"A \\\"1\\\"\"],\"limit\":5,\"user_id\":\"u/1\","
        "\"fields\":[\"title\",\"price\"],\"explain\":true,\"exclude\":[\"a\",\"b\"],\"filter\":{"
        "\"all\":["
        "{\"field\":\"category\",\"under\":\"Home > Light\xC3\xA9\"},"
        "{\"field\":\"price\",\"lte\":9.5},{\"field\":\"stock\",\"gt\":0}]}}");
    buf_free(&out);
}

static void query_to_json_empty_texts_count_as_not_given(void **state)
{
    struct buf out;
    (void)state;
    buf_init(&out, 4096);
    assert_int_equal(convert("session_id=&category=&&in_stock=false", &USER, &out, NULL),
                     STATUS_OK);
    assert_string_equal(buf_text(&out), "{\"scenario\":\"for_you\",\"user_id\":\"u\"}");
    buf_free(&out);
}

static void query_to_json_fault_names_its_parameter(void **state)
{
    static const struct {
        const char *query;
        const char *field;
    } faults[] = {
        {"limt=1", "limt"},
        {"limit=x", "limit"},
        {"limit=", "limit"},
        {"explain=", "explain"},
        {"limit=1&limit=2", "limit"},
        {"in_stock=maybe", "in_stock"},
        {"price_max=cheap", "price_max"},
        {"price_max=nan", "price_max"},
        {"category=%zz", "category"},
        {"category=%ff", "category"},
        {"category=%00", "category"},
        {"user_id=other", "user_id"},
        {"%zz=1", ""},
    };
    struct buf out;
    (void)state;
    buf_init(&out, 4096);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct error err = {0};
        enum status status = convert(faults[i].query, &USER, &out, &err);
        if (status != STATUS_INVALID || strcmp(err.field, faults[i].field) != 0) {
            fail_msg("%s: status %d, field \"%s\"", faults[i].query, status, err.field);
        }
    }
    buf_free(&out);
}

static void percent_decode_bounds_are_exact(void **state)
{
    char out[4];
    size_t len = 0;
    (void)state;
    assert_int_equal(percent_decode("a%2Fb", 5, PERCENT_PATH, out, sizeof(out), &len), STATUS_OK);
    assert_int_equal(len, 3);
    assert_string_equal(out, "a/b");
    assert_int_equal(percent_decode("a+b", 3, PERCENT_PATH, out, sizeof(out), &len), STATUS_OK);
    assert_string_equal(out, "a+b");
    assert_int_equal(percent_decode("abcd", 4, PERCENT_PATH, out, sizeof(out), &len), STATUS_LIMIT);
    assert_int_equal(percent_decode("%2", 2, PERCENT_PATH, out, sizeof(out), &len), STATUS_INVALID);
    assert_int_equal(percent_decode("%", 1, PERCENT_PATH, out, sizeof(out), &len), STATUS_INVALID);
    assert_int_equal(percent_decode("%41", 2, PERCENT_PATH, out, sizeof(out), &len),
                     STATUS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(query_to_json_without_query_names_the_subject),
        cmocka_unit_test(query_to_json_parameters_become_members_and_a_filter),
        cmocka_unit_test(query_to_json_empty_texts_count_as_not_given),
        cmocka_unit_test(query_to_json_fault_names_its_parameter),
        cmocka_unit_test(percent_decode_bounds_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
