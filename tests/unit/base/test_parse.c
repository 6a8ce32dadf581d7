#include "base/parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/clock.h"
#include "base/rng.h"

static void parse_int64_limits_are_exact(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } GOOD[] = {{"0", 0},
                {"-0", 0},
                {"-1", -1},
                {"007", 7},
                {"9223372036854775807", INT64_MAX},
                {"-9223372036854775808", INT64_MIN}};
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++) {
        int64_t value = 99;
        assert_true(parse_int64(GOOD[i].text, strlen(GOOD[i].text), &value));
        assert_true(value == GOOD[i].value);
    }
}

static void parse_int64_anything_else_changes_nothing(void **state)
{
    (void)state;
    static const char *const BAD[] = {"",
                                      "-",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1x",
                                      "0x1",
                                      "1.0",
                                      "--1",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "99999999999999999999999"};
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        int64_t value = 99;
        assert_false(parse_int64(BAD[i], strlen(BAD[i]), &value));
        assert_int_equal(value, 99);
    }
    int64_t value = 99;
    assert_false(parse_int64("1\0", 2, &value));
    assert_false(parse_int64(NULL, 0, &value));
    assert_true(parse_int64("12345", 3, &value));
    assert_int_equal(value, 123);
}

static void parse_uint64_limits_are_exact(void **state)
{
    (void)state;
    uint64_t value = 99;
    assert_false(parse_uint64("18446744073709551616", 20, &value));
    assert_false(parse_uint64("-1", 2, &value));
    assert_false(parse_uint64("", 0, &value));
    assert_int_equal(value, 99);
    assert_true(parse_uint64("18446744073709551615", 20, &value));
    assert_true(value == UINT64_MAX);
}

static void parse_double_decimal_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double value;
    } GOOD[] = {{"0", 0},
                {"-1.5", -1.5},
                {"1e3", 1000},
                {"1E-2", 0.01},
                {".5", 0.5},
                {"5.", 5},
                {"0.1", 0.1},
                {"1e+2", 100},
                {"-0", 0},
                {"1e-400", 0},
                {"0.1000000000000000055511151231257827021181583404541015625", 0.1}};
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++) {
        double value = 99;
        assert_true(parse_double(GOOD[i].text, strlen(GOOD[i].text), &value));
        assert_true(value == GOOD[i].value);
    }
}

static void parse_double_anything_else_changes_nothing(void **state)
{
    (void)state;
    static const char *const BAD[] = {"",      ".",     "-",        "+1",    " 1",  "1 ",  "e5",
                                      "1e",    "1e+",   "1,5",      "0x1p3", "nan", "inf", "-inf",
                                      "1e999", "1.2.3", "infinity", "1d",    "--1"};
    double value = 99;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_false(parse_double(BAD[i], strlen(BAD[i]), &value));
    char digits[200];
    memset(digits, '1', sizeof(digits));
    assert_false(parse_double(digits, 128, &value));
    assert_true(value == 99);
    assert_true(parse_double(digits, 127, &value));
    assert_true(value > 1e126);
}

static void parse_bool_words_only(void **state)
{
    (void)state;
    static const char *const YES[] = {"true", "1", "yes", "on"};
    static const char *const NO[] = {"false", "0", "no", "off"};
    static const char *const BAD[] = {"", "True", "y", "tru", "truex", "2"};
    for (size_t i = 0; i < 4; i++) {
        bool value = false;
        assert_true(parse_bool(YES[i], strlen(YES[i]), &value));
        assert_true(value);
        assert_true(parse_bool(NO[i], strlen(NO[i]), &value));
        assert_false(value);
    }
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        bool value = true;
        assert_false(parse_bool(BAD[i], strlen(BAD[i]), &value));
        assert_true(value);
    }
}

static void parse_time_ms_forms_agree(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } GOOD[] = {
        {"2011-12-09T12:50:00Z", 1323435000000},
        {"2011-12-09 12:50:00", 1323435000000},
        {"2011-12-09t12:50:00z", 1323435000000},
        {"2011-12-09T13:50:00+01:00", 1323435000000},
        {"2011-12-09T07:20:00.5-05:30", 1323435000500},
        {"2011-12-09T12:50:00.1239999999999999999999Z", 1323435000123},
        {"2011-12-09", 1323388800000},
        {"1970-01-01T00:00:00Z", 0},
        {"1969-12-31T23:59:59.999Z", -1},
        {"2016-12-31T23:59:60Z", 1483228800000},
        {"2000-02-29", 951782400000},
        {"0000-01-01", -62167219200000},
        {"9999-12-31T23:59:59.999Z", 253402300799999},
        {"1323435000", 1323435000000},
        {"1323435000123", 1323435000123},
        {"99999999999", 99999999999000},
        {"100000000000", 100000000000},
        {"-100000000000", -100000000000},
        {"-5", -5000},
    };
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++) {
        int64_t ms = 7;
        assert_true(parse_time_ms(GOOD[i].text, strlen(GOOD[i].text), &ms));
        assert_true(ms == GOOD[i].ms);
    }
}

static void parse_time_ms_anything_else_changes_nothing(void **state)
{
    (void)state;
    static const char *const BAD[] = {"",
                                      "x",
                                      "2011-12",
                                      "2011-13-01",
                                      "2011-00-01",
                                      "2011-02-29",
                                      "2100-02-29",
                                      "2011-04-31",
                                      "2011-12-00",
                                      "2011-12-09T",
                                      "2011-12-09T24:00:00Z",
                                      "2011-12-09T12:60:00Z",
                                      "2011-12-09T12:50:61Z",
                                      "2011-12-09T12:50",
                                      "2011-12-09T12:50:00.",
                                      "2011-12-09T12:50:00.Z",
                                      "2011-12-09T12:50:00Zx",
                                      "2011-12-09T12:50:00+1:00",
                                      "2011-12-09T12:50:00+24:00",
                                      "2011-12-09T12:50:00+01:60",
                                      "2011-12-09T12:50:00 Z",
                                      "2011-12-09Z",
                                      "11-12-09",
                                      "1.5",
                                      "99999999999999999999",
                                      "2011/12/09",
                                      " 2011-12-09"};
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        int64_t ms = 7;
        assert_false(parse_time_ms(BAD[i], strlen(BAD[i]), &ms));
        assert_int_equal(ms, 7);
    }
    int64_t ms = 7;
    assert_false(parse_time_ms("2011-12-09\0", 11, &ms));
    assert_int_equal(ms, 7);
}

static void parse_time_ms_reads_what_clock_writes(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 11);
    for (int i = 0; i < 20000; i++) {
        int64_t want = (int64_t)rng_below(&rng, 315569520000000) - 62167219200000;
        char text[TIME_TEXT_BYTES];
        time_format_rfc3339(want, text);
        int64_t ms = 0;
        assert_true(parse_time_ms(text, strlen(text), &ms));
        assert_true(ms == want);
    }
}

static void utf8_valid_follows_rfc_3629(void **state)
{
    (void)state;
    static const char *const GOOD[] = {"",
                                       "plain",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xef\xbf\xbf",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const BAD[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf5\x80\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xff",
                                      "a\xc3",
                                      "\xe2\x82",
                                      "\xf0\x9f\x98",
                                      "\xc3(",
                                      "\xe2(\xa1",
                                      "\xe2\x82("};
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++)
        assert_true(utf8_valid(GOOD[i], strlen(GOOD[i])));
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_false(utf8_valid(BAD[i], strlen(BAD[i])));
    assert_false(utf8_valid("a\0b", 3));
    assert_int_equal(utf8_sequence("\xe2\x82\xac", 3), 3);
    assert_int_equal(utf8_sequence("\xe2\x82\xac", 2), 0);
    assert_int_equal(utf8_sequence("", 0), 0);
}

static void parse_duration_ms_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } GOOD[] = {{"30s", 30000}, {"15m", 900000}, {"2h", 7200000},
                {"250ms", 250}, {"5", 5000},     {"0", 0}};
    static const char *const BAD[] = {"",
                                      "s",
                                      "-1s",
                                      "1.5s",
                                      "1 s",
                                      "1d",
                                      "1msx",
                                      "1S",
                                      "9223372036854775807s",
                                      "99999999999999999999ms"};
    for (size_t i = 0; i < sizeof(GOOD) / sizeof(GOOD[0]); i++) {
        int64_t ms = 7;
        assert_true(parse_duration_ms(GOOD[i].text, strlen(GOOD[i].text), &ms));
        assert_int_equal(ms, GOOD[i].ms);
    }
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        int64_t ms = 7;
        assert_false(parse_duration_ms(BAD[i], strlen(BAD[i]), &ms));
        assert_int_equal(ms, 7);
    }
}

static void id_valid_limits(void **state)
{
    (void)state;
    char id[ID_BYTES_MAX + 1];
    memset(id, 'a', sizeof(id));
    assert_false(id_valid(id, 0));
    assert_true(id_valid(id, 1));
    assert_true(id_valid(id, ID_BYTES_MAX));
    assert_false(id_valid(id, ID_BYTES_MAX + 1));
    assert_true(id_valid("sku 1/\xc3\xa4", 8));
    assert_false(id_valid("a\nb", 3));
    assert_false(id_valid("a\x7f", 2));
    assert_false(id_valid("a\0b", 3));
    assert_false(id_valid("\xff", 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_int64_limits_are_exact),
        cmocka_unit_test(parse_int64_anything_else_changes_nothing),
        cmocka_unit_test(parse_uint64_limits_are_exact),
        cmocka_unit_test(parse_double_decimal_is_read),
        cmocka_unit_test(parse_double_anything_else_changes_nothing),
        cmocka_unit_test(parse_bool_words_only),
        cmocka_unit_test(parse_time_ms_forms_agree),
        cmocka_unit_test(parse_time_ms_anything_else_changes_nothing),
        cmocka_unit_test(parse_time_ms_reads_what_clock_writes),
        cmocka_unit_test(utf8_valid_follows_rfc_3629),
        cmocka_unit_test(parse_duration_ms_units),
        cmocka_unit_test(id_valid_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
