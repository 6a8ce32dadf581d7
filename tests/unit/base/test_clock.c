#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"

static void time_format_known_times_match(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } CASES[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {951782400123, "2000-02-29T00:00:00.123Z"},
        {951868800000, "2000-03-01T00:00:00.000Z"},
        {1795515300123, "2026-11-24T10:15:00.123Z"},
        {4107542399999, "2100-02-28T23:59:59.999Z"},
        {4107542400000, "2100-03-01T00:00:00.000Z"},
        {-62167219200000, "0000-01-01T00:00:00.000Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
        {INT64_MIN, "0000-01-01T00:00:00.000Z"},
        {INT64_MAX, "9999-12-31T23:59:59.999Z"},
    };
    char out[TIME_TEXT_BYTES];
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        time_format_rfc3339(CASES[i].ms, out);
        assert_string_equal(out, CASES[i].text);
    }
    time_format_compact(1795515300123, out);
    assert_string_equal(out, "20261124T101500Z");
}

static void time_format_random_times_match_the_c_library(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 7);
    for (int i = 0; i < 20000; i++) {
        time_t seconds = (time_t)rng_below(&rng, 315569520000) - 62167219200;
        struct tm tm;
        assert_non_null(gmtime_r(&seconds, &tm));
        char want[TIME_TEXT_BYTES];
        assert_true(strftime(want, sizeof(want), "%m-%dT%H:%M:%S.000Z", &tm) > 0);
        char out[TIME_TEXT_BYTES];
        time_format_rfc3339((int64_t)seconds * 1000, out);
        int year =
            (out[0] - '0') * 1000 + (out[1] - '0') * 100 + (out[2] - '0') * 10 + out[3] - '0';
        assert_int_equal(year, tm.tm_year + 1900);
        assert_string_equal(out + 5, want);
    }
}

static void clock_monotonic_never_goes_back(void **state)
{
    (void)state;
    int64_t before_us = clock_monotonic_us();
    int64_t before_ns = clock_monotonic_ns();
    int64_t cpu_ns = clock_thread_cpu_ns();
    assert_true(before_ns / 1000 - before_us >= 0);
    for (int i = 0; i < 1000; i++) {
        int64_t now_ns = clock_monotonic_ns();
        assert_true(now_ns >= before_ns);
        before_ns = now_ns;
    }
    assert_true(clock_thread_cpu_ns() > cpu_ns);
    assert_true(clock_monotonic_us() >= before_us);
    int64_t difference = clock_unix_ms() - (int64_t)time(NULL) * 1000;
    assert_in_range(difference + 2000, 0, 4000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_format_known_times_match),
        cmocka_unit_test(time_format_random_times_match_the_c_library),
        cmocka_unit_test(clock_monotonic_never_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
