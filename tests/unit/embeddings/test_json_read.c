#include "embeddings/json_read.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"

static const struct json_limits limits = {.n_values_max = 64, .depth_max = 4};

static enum status open_text(const char *text, struct json_doc **out, struct error *err)
{
    return json_doc_open(text, strlen(text), &limits, out, err);
}

static void json_doc_open_good_text_gives_values(void **state)
{
    (void)state;
    struct json_doc *doc = NULL;
    struct error err;
    assert_int_equal(
        open_text(" {\"a\": 1.5, \"b\": [true, null], \"c\": \"x\\u00e9\", \"d\": {}}\n ", &doc,
                  &err),
        STATUS_OK);
    const struct json_value *root = json_root(doc);
    assert_int_equal(json_kind(root), JSON_OBJECT);
    assert_true(json_number(json_member(root, "a")) == 1.5);
    const struct json_value *first = json_first(json_member(root, "b"));
    assert_int_equal(json_kind(first), JSON_BOOL);
    assert_string_equal(json_name(first), "");
    assert_int_equal(json_kind(json_next(first)), JSON_NULL);
    assert_null(json_next(json_next(first)));
    assert_string_equal(json_text(json_member(root, "c")), "x\xc3\xa9");
    assert_null(json_first(json_member(root, "d")));
    assert_null(json_member(root, "A"));
    json_doc_close(doc);
}

static void json_doc_open_bad_text_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum status status;
    } cases[] = {
        {"", STATUS_FORMAT},
        {"{", STATUS_FORMAT},
        {"}", STATUS_FORMAT},
        {"{\"a\":1}}", STATUS_FORMAT},
        {"{\"a\":1} x", STATUS_FORMAT},
        {"{\"a\":1}{\"a\":1}", STATUS_FORMAT},
        {"{\"a\":1,}", STATUS_FORMAT},
        {"{\"a\":01}", STATUS_FORMAT},
        {"{\"a\":-}", STATUS_FORMAT},
        {"{\"a\":1.}", STATUS_FORMAT},
        {"{\"a\":.5}", STATUS_FORMAT},
        {"{\"a\":1e}", STATUS_FORMAT},
        {"{\"a\":1e999}", STATUS_FORMAT},
        {"{\"a\":NaN}", STATUS_FORMAT},
        {"{\"a\":1,\"a\":2}", STATUS_FORMAT},
        {"{\"a\":1,\"\\u0061\":2}", STATUS_FORMAT},
        {"{\"a\\u0000b\":1}", STATUS_FORMAT},
        {"{\"a\tb\":1}", STATUS_FORMAT},
        {"{\"a\":\v1}", STATUS_FORMAT},
        {"{\"a", STATUS_FORMAT},
        {"{\"a\\", STATUS_FORMAT},
        {"{\"\xc3\":1}", STATUS_FORMAT},
        {"\xef\xbb\xbf{}", STATUS_FORMAT},
        {"[[[[[]]]]]", STATUS_LIMIT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct json_doc *doc = NULL;
        struct error err = {.code = STATUS_OK};
        const enum status status = open_text(cases[i].text, &doc, &err);
        if (status != cases[i].status) {
            fail_msg("case %zu: %s: %s", i, cases[i].text, status_text(status));
        }
        assert_null(doc);
        assert_int_equal(err.code, status);
    }
}

static void json_doc_open_escaped_backslash_before_u0000_is_accepted(void **state)
{
    (void)state;
    struct json_doc *doc = NULL;
    assert_int_equal(open_text("[\"\\\\u0000\"]", &doc, NULL), STATUS_OK);
    assert_string_equal(json_text(json_first(json_root(doc))), "\\u0000");
    json_doc_close(doc);
}

static void json_doc_open_nul_byte_is_refused(void **state)
{
    (void)state;
    struct json_doc *doc = NULL;
    assert_int_equal(json_doc_open("{}\0", 3, &limits, &doc, NULL), STATUS_FORMAT);
    assert_null(doc);
}

static void json_doc_open_values_at_and_over_limit(void **state)
{
    (void)state;
    char text[512];
    struct json_doc *doc = NULL;
    for (size_t n = limits.n_values_max; n <= limits.n_values_max + 1; n++) {
        size_t len = 0;
        text[len++] = '[';
        for (size_t i = 0; i < n; i++) {
            text[len++] = '0';
            text[len++] = i + 1 < n ? ',' : ']';
        }
        const enum status status = json_doc_open(text, len, &limits, &doc, NULL);
        assert_int_equal(status, n == limits.n_values_max ? STATUS_OK : STATUS_LIMIT);
        json_doc_close(doc);
    }
}

/* More members than are compared pairwise. */
static void json_doc_open_duplicate_among_many_is_refused(void **state)
{
    (void)state;
    for (int duplicate = 0; duplicate < 2; duplicate++) {
        char text[1024] = "{";
        size_t len = 1;
        for (int i = 0; i < 40; i++) {
            const int number = duplicate && i == 39 ? 3 : i;
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s\"n%d\":0", i > 0 ? "," : "",
                                    number);
        }
        text[len++] = '}';
        struct json_doc *doc = NULL;
        assert_int_equal(json_doc_open(text, len, &limits, &doc, NULL),
                         duplicate ? STATUS_FORMAT : STATUS_OK);
        json_doc_close(doc);
        if (!duplicate) {
            mem_fail_nth(2); /* the table of names */
            assert_int_equal(json_doc_open(text, len, &limits, &doc, NULL), STATUS_NOMEM);
            mem_fail_nth(0);
            assert_null(doc);
        }
    }
}

static void json_whole_number_bounds(void **state)
{
    (void)state;
    struct json_doc *doc = NULL;
    assert_int_equal(
        open_text("[0, 9007199254740991, 9007199254740992, -1, 0.5, \"1\", 1e3]", &doc, NULL),
        STATUS_OK);
    static const struct {
        bool good;
        uint64_t value;
    } expected[] = {
        {true, 0},   {true, 9007199254740991U}, {false, 0}, {false, 0}, {false, 0}, {false, 0},
        {true, 1000}};
    const struct json_value *value = json_first(json_root(doc));
    for (size_t i = 0; i < 7; i++, value = json_next(value)) {
        uint64_t number = 77;
        assert_int_equal(json_whole_number(value, &number), expected[i].good);
        assert_int_equal(number, expected[i].good ? expected[i].value : 77);
    }
    json_doc_close(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_doc_open_good_text_gives_values),
        cmocka_unit_test(json_doc_open_bad_text_is_refused),
        cmocka_unit_test(json_doc_open_escaped_backslash_before_u0000_is_accepted),
        cmocka_unit_test(json_doc_open_nul_byte_is_refused),
        cmocka_unit_test(json_doc_open_values_at_and_over_limit),
        cmocka_unit_test(json_doc_open_duplicate_among_many_is_refused),
        cmocka_unit_test(json_whole_number_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
