#include "base/json_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static enum status scan_text(const char *text, struct json_scan *scan, struct json_span *spans,
                             size_t spans_max)
{
    *scan = (struct json_scan){.text = text,
                               .len = strlen(text),
                               .depth_max = 4,
                               .values_max = 16,
                               .spans = spans,
                               .spans_max = spans_max};
    struct error err = {0};
    enum status status = json_scan(scan, &err);
    assert_int_equal(status, err.code);
    return status;
}

static void json_scan_valid_text_is_ok(void **state)
{
    static const char *const texts[] = {
        "{}",
        "[]",
        " [ ] \n",
        "{\"a\":1,\"b\":[true,false,null,-0.5e+10,\"x\"]}",
        "[[[[1]]]]",
        "[\"\\u00e9\\ud83d\\ude00\\n\\\"\\/\"]",
        "[0,-0,1.5,1E5]",
        "[{},[],{\"a\":{}}]",
        "{\"\":\"\xC3\xA9\"}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct json_scan scan;
        assert_int_equal(scan_text(texts[i], &scan, NULL, 0), STATUS_OK);
    }
}

static void json_scan_malformed_text_is_invalid(void **state)
{
    static const char *const texts[] = {"",
                                        "  ",
                                        "1",
                                        "\"a\"",
                                        "null",
                                        "{",
                                        "[",
                                        "]",
                                        "{]",
                                        "[}",
                                        "[1,]",
                                        "[,1]",
                                        "[1 2]",
                                        "{\"a\"}",
                                        "{\"a\":}",
                                        "{\"a\":1,}",
                                        "{a:1}",
                                        "{1:2}",
                                        "[01]",
                                        "[1.]",
                                        "[.5]",
                                        "[+1]",
                                        "[1e]",
                                        "[-]",
                                        "[\"a]",
                                        "[\"\\x\"]",
                                        "[\"\\u12\"]",
                                        "[\"\\u0000\"]",
                                        "[\"\\ud800\"]",
                                        "[\"\\ud800\\u0041\"]",
                                        "[\"\\udc00\"]",
                                        "[\"\t\"]",
                                        "[tru]",
                                        "[nulll]",
                                        "[NaN]",
                                        "{}x",
                                        "[]{}",
                                        "{} {}",
                                        "['a']",
                                        "[\"\xC0\x80\"]",
                                        "[\"\xFF\"]",
                                        "[\"\\",
                                        "[\"\\u",
                                        "{\"a\":1 \"b\":2}",
                                        "/**/[]"};
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct json_scan scan;
        if (scan_text(texts[i], &scan, NULL, 0) != STATUS_INVALID) {
            fail_msg("taken for valid: %s", texts[i]);
        }
    }
}

static void json_scan_depth_at_limit_is_ok_and_past_it_is_limit(void **state)
{
    struct json_scan scan;
    (void)state;
    assert_int_equal(scan_text("[{\"a\":[{}]}]", &scan, NULL, 0), STATUS_OK);
    assert_int_equal(scan_text("[{\"a\":[{\"b\":[]}]}]", &scan, NULL, 0), STATUS_LIMIT);
}

static void json_scan_values_at_limit_are_ok_and_past_it_are_limit(void **state)
{
    struct json_scan scan;
    (void)state;
    assert_int_equal(scan_text("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]", &scan, NULL, 0), STATUS_OK);
    assert_int_equal(scan_text("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", &scan, NULL, 0),
                     STATUS_LIMIT);
}

static void json_scan_array_gives_its_elements(void **state)
{
    static const char text[] = "[ {\"a\":[1,2]} , 7,\"x\",[]]";
    struct json_scan scan;
    struct json_span spans[4];
    (void)state;
    assert_int_equal(scan_text(text, &scan, spans, 4), STATUS_OK);
    assert_int_equal(scan.shape, JSON_SHAPE_ARRAY);
    assert_int_equal(scan.n_spans, 4);
    static const char *const expected[] = {"{\"a\":[1,2]}", "7", "\"x\"", "[]"};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(spans[i].len, strlen(expected[i]));
        assert_memory_equal(text + spans[i].offset, expected[i], spans[i].len);
    }
    assert_int_equal(scan_text(text, &scan, spans, 3), STATUS_LIMIT);
}

static void json_scan_lines_give_their_objects(void **state)
{
    static const char text[] = "{\"a\":1}\r\n\n{\"b\":{}}\n";
    struct json_scan scan;
    struct json_span spans[2];
    (void)state;
    assert_int_equal(scan_text(text, &scan, spans, 2), STATUS_OK);
    assert_int_equal(scan.shape, JSON_SHAPE_LINES);
    assert_int_equal(scan.n_spans, 2);
    assert_memory_equal(text + spans[1].offset, "{\"b\":{}}", spans[1].len);
    assert_int_equal(scan_text("{}\n[]", &scan, spans, 2), STATUS_INVALID);
    assert_int_equal(scan_text("{\"a\":1}", &scan, spans, 2), STATUS_OK);
    assert_int_equal(scan.shape, JSON_SHAPE_OBJECT);
    assert_int_equal(scan.n_spans, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_scan_valid_text_is_ok),
        cmocka_unit_test(json_scan_malformed_text_is_invalid),
        cmocka_unit_test(json_scan_depth_at_limit_is_ok_and_past_it_is_limit),
        cmocka_unit_test(json_scan_values_at_limit_are_ok_and_past_it_are_limit),
        cmocka_unit_test(json_scan_array_gives_its_elements),
        cmocka_unit_test(json_scan_lines_give_their_objects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
