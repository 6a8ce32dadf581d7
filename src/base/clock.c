#include "base/clock.h"

#include <time.h>

/* Calendar dates are computed here and not by gmtime_r, which takes a lock of the C library shared
 * by all threads. The arithmetic counts years from 1 March, so that the leap day is the last day of
 * a year, and splits days into 400-year eras of 146097 days. */

enum { MS_PER_SECOND = 1000, SECONDS_PER_DAY = 86400, DAYS_PER_ERA = 146097 };

/* RFC 3339 has four digits for the year: 0000-01-01T00:00:00.000Z … 9999-12-31T23:59:59.999Z. */
#define TIME_MIN_MS INT64_C(-62167219200000)
#define TIME_MAX_MS INT64_C(253402300799999)

struct civil_time {
    unsigned year, month, day, hour, minute, second, ms;
};

static int64_t read_clock_ns(clockid_t id)
{
    struct timespec now = {0};
    (void)clock_gettime(id, &now);
    return (int64_t)now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t clock_monotonic_us(void)
{
    return read_clock_ns(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_monotonic_ns(void)
{
    return read_clock_ns(CLOCK_MONOTONIC);
}

int64_t clock_thread_cpu_ns(void)
{
    return read_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

int64_t clock_unix_ms(void)
{
    return read_clock_ns(CLOCK_REALTIME) / 1000000;
}

/* Times outside the four-digit years are moved to the nearest representable one. */
static struct civil_time civil_from_unix_ms(int64_t unix_ms)
{
    if (unix_ms < TIME_MIN_MS)
        unix_ms = TIME_MIN_MS;
    if (unix_ms > TIME_MAX_MS)
        unix_ms = TIME_MAX_MS;
    /* Counted from 0000-03-01 minus one era: never negative, so divisions round down. */
    uint64_t since_era = (uint64_t)(unix_ms - TIME_MIN_MS);
    uint64_t ms_of_day = since_era % ((uint64_t)SECONDS_PER_DAY * MS_PER_SECOND);
    unsigned days = (unsigned)(since_era / ((uint64_t)SECONDS_PER_DAY * MS_PER_SECOND));
    days += DAYS_PER_ERA - 60; /* from 1 March of the year -400; 31 + 29 days before it in year 0 */
    unsigned era = days / DAYS_PER_ERA;
    unsigned day_of_era = days % DAYS_PER_ERA;
    unsigned year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned shifted_month = (5 * day_of_year + 2) / 153; /* 0 = March */
    unsigned month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
    unsigned seconds = (unsigned)(ms_of_day / MS_PER_SECOND);
    return (struct civil_time){
        .year = year_of_era + era * 400 + (month <= 2 ? 1 : 0) - 400,
        .month = month,
        .day = day_of_year - (153 * shifted_month + 2) / 5 + 1,
        .hour = seconds / 3600,
        .minute = seconds / 60 % 60,
        .second = seconds % 60,
        .ms = (unsigned)(ms_of_day % MS_PER_SECOND),
    };
}

static char *put_digits(char *at, unsigned value, int n)
{
    for (int i = n - 1; i >= 0; i--) {
        at[i] = (char)('0' + value % 10);
        value /= 10;
    }
    return at + n;
}

void time_format_rfc3339(int64_t unix_ms, char out[TIME_TEXT_BYTES])
{
    struct civil_time t = civil_from_unix_ms(unix_ms);
    char *at = put_digits(out, t.year, 4);
    *at++ = '-';
    at = put_digits(at, t.month, 2);
    *at++ = '-';
    at = put_digits(at, t.day, 2);
    *at++ = 'T';
    at = put_digits(at, t.hour, 2);
    *at++ = ':';
    at = put_digits(at, t.minute, 2);
    *at++ = ':';
    at = put_digits(at, t.second, 2);
    *at++ = '.';
    at = put_digits(at, t.ms, 3);
    *at++ = 'Z';
    *at = '\0';
}

void time_format_compact(int64_t unix_ms, char out[TIME_TEXT_BYTES])
{
    struct civil_time t = civil_from_unix_ms(unix_ms);
    char *at = put_digits(out, t.year, 4);
    at = put_digits(at, t.month, 2);
    at = put_digits(at, t.day, 2);
    *at++ = 'T';
    at = put_digits(at, t.hour, 2);
    at = put_digits(at, t.minute, 2);
    at = put_digits(at, t.second, 2);
    *at++ = 'Z';
    *at = '\0';
}
