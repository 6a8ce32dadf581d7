#include "base/parse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Strict readers of text from requests, files and options. Integers and times are read by hand:
 * strtol skips blanks, takes a sign where none is meant and needs a NUL. Doubles go through strtod,
 * because correct rounding is long to write, but only after their grammar has been checked here, so
 * that hexadecimal, "inf" and "nan" never reach it; the program stays in the C locale, whose
 * decimal point is the full stop. */

enum { DOUBLE_TEXT_MAX = 127 };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool parse_uint64(const char *text, size_t len, uint64_t *out)
{
    if (len == 0)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(text[i]) || __builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            return false;
    }
    *out = value;
    return true;
}

bool parse_int64(const char *text, size_t len, int64_t *out)
{
    if (len == 0)
        return false;
    bool negative = text[0] == '-';
    size_t sign = negative ? 1 : 0;
    uint64_t magnitude = 0;
    if (!parse_uint64(text + sign, len - sign, &magnitude))
        return false;
    if (magnitude > (uint64_t)INT64_MAX + sign)
        return false;
    if (negative)
        *out = magnitude == 0 ? 0 : -(int64_t)(magnitude - 1) - 1;
    else
        *out = (int64_t)magnitude;
    return true;
}

static size_t skip_digits(const char *text, size_t len, size_t at)
{
    while (at < len && is_digit(text[at]))
        at++;
    return at;
}

/* -? (digits (. digits?)? | . digits) ([eE] [+-]? digits)? */
static bool is_decimal(const char *text, size_t len)
{
    size_t start = len > 0 && text[0] == '-' ? 1 : 0;
    size_t at = skip_digits(text, len, start);
    size_t n_digits = at - start;
    if (at < len && text[at] == '.') {
        start = at + 1;
        at = skip_digits(text, len, start);
        n_digits += at - start;
    }
    if (n_digits == 0)
        return false;
    if (at < len && (text[at] == 'e' || text[at] == 'E')) {
        at++;
        if (at < len && (text[at] == '+' || text[at] == '-'))
            at++;
        start = at;
        at = skip_digits(text, len, start);
        if (at == start)
            return false;
    }
    return at == len;
}

bool parse_double(const char *text, size_t len, double *out)
{
    if (len > DOUBLE_TEXT_MAX || !is_decimal(text, len))
        return false;
    char copy[DOUBLE_TEXT_MAX + 1];
    memcpy(copy, text, len);
    copy[len] = '\0';
    double value = strtod(copy, NULL);
    if (!isfinite(value))
        return false;
    *out = value;
    return true;
}

bool parse_bool(const char *text, size_t len, bool *out)
{
    static const struct {
        const char *word;
        bool value;
    } WORDS[] = {
        {"true", true}, {"false", false}, {"1", true},  {"0", false},
        {"yes", true},  {"no", false},    {"on", true}, {"off", false},
    };
    for (size_t i = 0; i < sizeof(WORDS) / sizeof(WORDS[0]); i++) {
        if (strlen(WORDS[i].word) == len && memcmp(WORDS[i].word, text, len) == 0) {
            *out = WORDS[i].value;
            return true;
        }
    }
    return false;
}

/* What of a text is still unread. */
struct cursor {
    const char *at;
    size_t left;
};

static bool take_char(struct cursor *cursor, const char *choices)
{
    if (cursor->left == 0 || cursor->at[0] == '\0' || strchr(choices, cursor->at[0]) == NULL)
        return false;
    cursor->at++;
    cursor->left--;
    return true;
}

/* Exactly n digits with min ≤ value ≤ max. */
static bool take_number(struct cursor *cursor, size_t n, int min, int max, int *out)
{
    if (cursor->left < n)
        return false;
    int value = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_digit(cursor->at[i]))
            return false;
        value = value * 10 + (cursor->at[i] - '0');
    }
    if (value < min || value > max)
        return false;
    cursor->at += n;
    cursor->left -= n;
    *out = value;
    return true;
}

/* Days from 1970-01-01 of a date of the years 0–9999. Years count from 1 March, so that the leap
 * day is the last of its year. */
static int64_t days_from_date(int year, int month, int day)
{
    int shifted_year = year + 400 - (month <= 2 ? 1 : 0);
    int shifted_month = month > 2 ? month - 3 : month + 9;
    int days = 365 * shifted_year + shifted_year / 4 - shifted_year / 100 + shifted_year / 400;
    days += (153 * shifted_month + 2) / 5 + day - 1;
    return (int64_t)days - 719468 - 146097;
}

static bool take_date(struct cursor *cursor, int64_t *days)
{
    static const int LENGTHS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = 0;
    int month = 0;
    int day = 0;
    if (!take_number(cursor, 4, 0, 9999, &year) || !take_char(cursor, "-") ||
        !take_number(cursor, 2, 1, 12, &month) || !take_char(cursor, "-") ||
        !take_number(cursor, 2, 1, 31, &day))
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > LENGTHS[month - 1] + (month == 2 && leap ? 1 : 0))
        return false;
    *days = days_from_date(year, month, day);
    return true;
}

/* "12:50:00.123"; a leap second (60) counts as the second after it, digits below ms are cut. */
static bool take_time_of_day(struct cursor *cursor, int64_t *ms)
{
    int hour = 0;
    int minute = 0;
    int second = 0;
    if (!take_number(cursor, 2, 0, 23, &hour) || !take_char(cursor, ":") ||
        !take_number(cursor, 2, 0, 59, &minute) || !take_char(cursor, ":") ||
        !take_number(cursor, 2, 0, 60, &second))
        return false;
    int64_t fraction = 0;
    if (take_char(cursor, ".")) {
        int64_t unit = 100;
        if (cursor->left == 0 || !is_digit(cursor->at[0]))
            return false;
        while (cursor->left > 0 && is_digit(cursor->at[0])) {
            fraction += unit * (cursor->at[0] - '0');
            unit /= 10;
            cursor->at++;
            cursor->left--;
        }
    }
    *ms = ((hour * 60 + minute) * INT64_C(60) + second) * 1000 + fraction;
    return true;
}

/* Offset from UTC; nothing left means UTC. */
static bool take_zone(struct cursor *cursor, int64_t *ms)
{
    *ms = 0;
    if (cursor->left == 0 || take_char(cursor, "Zz"))
        return true;
    bool west = cursor->at[0] == '-';
    int hour = 0;
    int minute = 0;
    if (!take_char(cursor, "+-") || !take_number(cursor, 2, 0, 23, &hour) ||
        !take_char(cursor, ":") || !take_number(cursor, 2, 0, 59, &minute))
        return false;
    *ms = (hour * 60 + minute) * INT64_C(60000) * (west ? -1 : 1);
    return true;
}

bool parse_time_ms(const char *text, size_t len, int64_t *unix_ms)
{
    const int64_t SMALLEST_MS = INT64_C(100000000000);
    int64_t number = 0;
    if (parse_int64(text, len, &number)) {
        bool is_ms = number >= SMALLEST_MS || number <= -SMALLEST_MS;
        *unix_ms = is_ms ? number : number * 1000;
        return true;
    }
    struct cursor cursor = {text, len};
    int64_t days = 0;
    int64_t ms_of_day = 0;
    int64_t zone_ms = 0;
    if (!take_date(&cursor, &days))
        return false;
    if (cursor.left > 0 && (!take_char(&cursor, "Tt ") || !take_time_of_day(&cursor, &ms_of_day) ||
                            !take_zone(&cursor, &zone_ms)))
        return false;
    if (cursor.left > 0)
        return false;
    *unix_ms = days * INT64_C(86400000) + ms_of_day - zone_ms;
    return true;
}

/* The second byte's bounds shut out overlong forms, surrogates and values over U+10FFFF (RFC 3629,
 * section 4). */
size_t utf8_sequence(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    if (len == 0)
        return 0;
    if (s[0] < 0x80)
        return 1;
    size_t n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] < 0xc2 || s[0] > 0xf4 || len < n)
        return 0;
    unsigned low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    return n;
}

bool utf8_valid(const char *text, size_t len)
{
    size_t at = 0;
    while (at < len) {
        size_t n = utf8_sequence(text + at, len - at);
        if (n == 0 || text[at] == '\0')
            return false;
        at += n;
    }
    return true;
}

bool parse_duration_ms(const char *text, size_t len, int64_t *out_ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } UNITS[] = {{"", 1000}, {"s", 1000}, {"ms", 1}, {"m", 60000}, {"h", 3600000}};
    size_t n_digits = skip_digits(text, len, 0);
    int64_t number = 0;
    if (!parse_int64(text, n_digits, &number))
        return false;
    const char *unit = text + n_digits;
    size_t unit_len = len - n_digits;
    for (size_t i = 0; i < sizeof(UNITS) / sizeof(UNITS[0]); i++) {
        if (strlen(UNITS[i].unit) != unit_len || memcmp(UNITS[i].unit, unit, unit_len) != 0)
            continue;
        int64_t ms = 0;
        if (__builtin_mul_overflow(number, UNITS[i].ms, &ms))
            return false;
        *out_ms = ms;
        return true;
    }
    return false;
}

bool id_valid(const char *text, size_t len)
{
    if (len == 0 || len > ID_BYTES_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    }
    return utf8_valid(text, len);
}
