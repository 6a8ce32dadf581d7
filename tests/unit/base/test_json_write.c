#include "base/json_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

static struct buf out;
static struct json_writer json;

static void start(void)
{
    buf_reset(&out);
    json_writer_init(&json, &out);
}

static int set_up(void **state)
{
    (void)state;
    buf_init(&out, 1 << 20);
    start();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    buf_free(&out);
    return 0;
}

static const char *double_text(double value)
{
    start();
    json_double(&json, NULL, value);
    return buf_text(&out);
}

static const char *float_text(float value)
{
    start();
    json_float(&json, NULL, value);
    return buf_text(&out);
}

static const char *string_text(const char *text, size_t len)
{
    start();
    json_string_n(&json, NULL, text, len);
    return buf_text(&out);
}

static void json_writer_nested_places_commas(void **state)
{
    (void)state;
    json_begin_object(&json, NULL);
    json_string(&json, "a", "x");
    json_begin_array(&json, "list");
    json_int(&json, NULL, 1);
    json_begin_object(&json, NULL);
    json_end_object(&json);
    json_begin_array(&json, NULL);
    json_end_array(&json);
    json_null(&json, NULL);
    json_end_array(&json);
    json_bool(&json, "t", true);
    json_bool(&json, "f", false);
    json_raw(&json, "raw", "{\"r\":1}", 7);
    json_double(&json, "q\"k", 0.5);
    json_end_object(&json);
    assert_string_equal(buf_text(&out), "{\"a\":\"x\",\"list\":[1,{},[],null],\"t\":true,"
                                        "\"f\":false,\"raw\":{\"r\":1},\"q\\\"k\":0.5}");
}

static void json_writer_deepest_level_works(void **state)
{
    (void)state;
    for (int i = 0; i < JSON_WRITE_DEPTH_MAX; i++)
        json_begin_array(&json, NULL);
    json_int(&json, NULL, 1);
    json_int(&json, NULL, 2);
    for (int i = 0; i < JSON_WRITE_DEPTH_MAX; i++)
        json_end_array(&json);
    assert_int_equal(out.len, 2 * JSON_WRITE_DEPTH_MAX + 3);
    assert_int_equal(json.depth, 0);
}

static void json_string_special_bytes_are_escaped(void **state)
{
    (void)state;
    assert_string_equal(string_text("", 0), "\"\"");
    assert_string_equal(string_text("a\"b\\c/d", 7), "\"a\\\"b\\\\c/d\"");
    assert_string_equal(string_text("\b\f\n\r\t", 5), "\"\\b\\f\\n\\r\\t\"");
    assert_string_equal(string_text("x\0\x01\x1f\x7fy", 6), "\"x\\u0000\\u0001\\u001f\\u007fy\"");
    assert_string_equal(string_text("Gr\xc3\xbc\xc3\x9f"
                                    "e \xf0\x9f\x98\x80",
                                    12),
                        "\"Gr\xc3\xbc\xc3\x9f"
                        "e \xf0\x9f\x98\x80\"");
}

static void json_string_damaged_utf8_is_replaced(void **state)
{
    (void)state;
    assert_string_equal(string_text("a\xff"
                                    "b",
                                    3),
                        "\"a\xef\xbf\xbd"
                        "b\"");
    assert_string_equal(string_text("\xc3", 1), "\"\xef\xbf\xbd\"");
    assert_string_equal(string_text("\xc0\xaf", 2), "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    assert_string_equal(string_text("\xed\xa0\x80"
                                    "x",
                                    4),
                        "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx\"");
}

static void json_int_limits_are_exact(void **state)
{
    (void)state;
    json_begin_array(&json, NULL);
    json_int(&json, NULL, INT64_MIN);
    json_int(&json, NULL, INT64_MAX);
    json_int(&json, NULL, 0);
    json_int(&json, NULL, -1);
    json_end_array(&json);
    assert_string_equal(buf_text(&out), "[-9223372036854775808,9223372036854775807,0,-1]");
}

static void json_double_common_values_are_short(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } CASES[] = {
        {0.0, "0"},
        {-0.0, "-0"},
        {1.0, "1"},
        {100.0, "100"},
        {12.5, "12.5"},
        {0.1, "0.1"},
        {-0.25, "-0.25"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1234567.891, "1234567.891"},
        {0.00001, "0.00001"},
        {9.99, "9.99"},
        {1.0 / 3, "0.3333333333333333"},
        {999999999999999.0, "999999999999999"},
        {1e300, "1e+300"},
        {5e-324, "5e-324"},
        {DBL_MAX, "1.7976931348623157e+308"},
    };
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++)
        assert_string_equal(double_text(CASES[i].value), CASES[i].text);
    assert_string_equal(double_text((double)NAN), "null");
    assert_string_equal(double_text((double)INFINITY), "null");
    assert_string_equal(double_text(-(double)INFINITY), "null");
}

static void json_float_common_values_are_short(void **state)
{
    (void)state;
    assert_string_equal(float_text(0.1f), "0.1");
    assert_string_equal(float_text(12.5f), "12.5");
    assert_string_equal(float_text(-19.99f), "-19.99");
    assert_string_equal(float_text(16777216.0f), "16777216");
    assert_string_equal(float_text(0.8731234f), "0.8731234");
    assert_string_equal(float_text(1e-7f), "1e-07");
    assert_string_equal(float_text(NAN), "null");
}

static void json_double_random_bits_read_back(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 42);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = rng_next(&rng);
        double value = 0;
        memcpy(&value, &bits, sizeof(value));
        if (i % 2 == 0)
            value = ((double)bits / 18446744073709551616.0 - 0.5) * pow(10.0, i % 19);
        if (isfinite(value))
            assert_true(strtod(double_text(value), NULL) == value);
    }
}

static void json_float_random_bits_read_back_shortest(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 43);
    for (int i = 0; i < 20000; i++) {
        uint32_t bits = (uint32_t)(rng_next(&rng) >> 32);
        float value = 0;
        memcpy(&value, &bits, sizeof(value));
        if (i % 2 == 0)
            value = ((float)bits / 4294967296.0f - 0.5f) * powf(10.0f, (float)(i % 9));
        if (!isfinite(value))
            continue;
        const char *text = float_text(value);
        assert_true(strtof(text, NULL) == value);
        size_t n_digits = 0;
        for (const char *at = text; *at != '\0' && *at != 'e'; at++) {
            if (*at >= '0' && *at <= '9' && (n_digits > 0 || *at != '0'))
                n_digits++;
        }
        assert_true(n_digits <= 9 || fabsf(value) >= 1e9f);
    }
}

static void json_writer_full_buffer_sticks(void **state)
{
    (void)state;
    struct buf small;
    buf_init(&small, 4);
    struct json_writer writer;
    json_writer_init(&writer, &small);
    json_begin_object(&writer, NULL);
    json_string(&writer, "key", "value");
    json_end_object(&writer);
    assert_int_equal(small.status, STATUS_LIMIT);
    assert_true(small.len <= 4);
    assert_string_equal(buf_text(&small), "");
    buf_free(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(json_writer_nested_places_commas, set_up, tear_down),
        cmocka_unit_test_setup_teardown(json_writer_deepest_level_works, set_up, tear_down),
        cmocka_unit_test_setup_teardown(json_string_special_bytes_are_escaped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(json_string_damaged_utf8_is_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(json_int_limits_are_exact, set_up, tear_down),
        cmocka_unit_test_setup_teardown(json_double_common_values_are_short, set_up, tear_down),
        cmocka_unit_test_setup_teardown(json_float_common_values_are_short, set_up, tear_down),
        cmocka_unit_test_setup_teardown(json_double_random_bits_read_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(json_float_random_bits_read_back_shortest, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(json_writer_full_buffer_sticks, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
