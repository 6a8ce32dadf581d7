#ifndef AISLE_BASE_PARSE_H
#define AISLE_BASE_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Strict readers: the whole of text[0..len) must be the value; no blanks, no locale, no partial
 * match. On false *out is unchanged. text needs no NUL. */
bool parse_int64(const char *text, size_t len, int64_t *out);
bool parse_uint64(const char *text, size_t len, uint64_t *out);
/* Decimal notation, finite values only (refuses NaN, Inf, hexadecimal). */
bool parse_double(const char *text, size_t len, double *out);
/* "true"/"false"/"1"/"0"/"yes"/"no"/"on"/"off". */
bool parse_bool(const char *text, size_t len, bool *out);
/* RFC 3339 ("2011-12-09T12:50:00Z", offset, fraction; also with a blank for the T, and without a
 * zone, which means UTC; a bare date is midnight) or an integer. An integer of at least 10^11 in
 * magnitude is Unix milliseconds, a smaller one Unix seconds. */
bool parse_time_ms(const char *text, size_t len, int64_t *unix_ms);
/* RFC 3629: no overlong forms, surrogates or values over U+10FFFF. NUL bytes are refused. */
bool utf8_valid(const char *text, size_t len);
/* Bytes of the one valid UTF-8 character that text[0..len) starts with: 1–4, 0 if it is damaged. */
size_t utf8_sequence(const char *text, size_t len);
/* "30s", "15m", "2h", "250ms", plain seconds → milliseconds. */
bool parse_duration_ms(const char *text, size_t len, int64_t *out_ms);

/* Ids of items, users, sessions, events: 1–128 bytes of valid UTF-8 without control characters. */
enum { ID_BYTES_MAX = 128 };
bool id_valid(const char *text, size_t len);

#endif
