#include "base/json_write.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"

/* Answers of the server are written straight into the reply's buffer; a tree of cJSON nodes would
 * cost an allocation a value. Strings are scanned for the few bytes that need care (RFC 8259,
 * section 7) and copied in runs between them.
 *
 * Numbers: the wanted text is the shortest that reads back. Integers and values with few decimals
 * (prices, rounded scores, most floats) are found by trying 0, 1, 2 … decimals: m = round(v·10^k)
 * is right if m/10^k is v again. m below 2^53 and 10^k up to 10^22 are exact doubles and a division
 * rounds correctly, so the quotient is what a reader gets for the decimal text. What is left goes
 * through printf and strtod with growing precision, ten times slower. */

static const double POWERS[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
enum { N_POWERS = sizeof(POWERS) / sizeof(POWERS[0]), NUMBER_TEXT_BYTES = 40 };
static const double EXACT_MAX = 9007199254740992.0; /* 2^53 */
static const double FIXED_MIN = 1e-5;               /* below, exponent notation is shorter */
static const double INTEGER_MAX = 1e15;

void json_writer_init(struct json_writer *json, struct buf *out)
{
    *json = (struct json_writer){.out = out};
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c != '"' && c != '\\' && c < 0x7f;
}

/* DEL need not be escaped, but nobody wants it on a terminal. */
static void write_escape(struct buf *out, unsigned char c)
{
    static const char HEX[] = "0123456789abcdef";
    static const char LETTERS[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f',
                                   ['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\'};
    if (c < sizeof(LETTERS) && LETTERS[c] != '\0') {
        const char text[2] = {'\\', LETTERS[c]};
        buf_append(out, text, sizeof(text));
        return;
    }
    const char text[6] = {'\\', 'u', '0', '0', HEX[c >> 4], HEX[c & 15]};
    buf_append(out, text, sizeof(text));
}

static void write_text(struct buf *out, const char *text, size_t len)
{
    buf_append_char(out, '"');
    size_t start = 0;
    size_t at = 0;
    while (at < len) {
        unsigned char c = (unsigned char)text[at];
        size_t n = is_plain(c) ? 1 : c >= 0x80 ? utf8_sequence(text + at, len - at) : 0;
        if (n > 0) {
            at += n;
            continue;
        }
        buf_append(out, text + start, at - start);
        if (c >= 0x80)
            buf_append(out, "\xef\xbf\xbd", 3);
        else
            write_escape(out, c);
        at++;
        start = at;
    }
    buf_append(out, text + start, len - start);
    buf_append_char(out, '"');
}

static void begin_value(struct json_writer *json, const char *key)
{
    if (json->has_member[json->depth])
        buf_append_char(json->out, ',');
    json->has_member[json->depth] = true;
    if (key != NULL) {
        write_text(json->out, key, strlen(key));
        buf_append_char(json->out, ':');
    }
}

static void open_level(struct json_writer *json, const char *key, char bracket)
{
    begin_value(json, key);
    assert(json->depth < JSON_WRITE_DEPTH_MAX);
    json->depth++;
    json->has_member[json->depth] = false;
    buf_append_char(json->out, bracket);
}

static void close_level(struct json_writer *json, char bracket)
{
    assert(json->depth > 0);
    json->depth--;
    buf_append_char(json->out, bracket);
}

void json_begin_object(struct json_writer *json, const char *key)
{
    open_level(json, key, '{');
}

void json_end_object(struct json_writer *json)
{
    close_level(json, '}');
}

void json_begin_array(struct json_writer *json, const char *key)
{
    open_level(json, key, '[');
}

void json_end_array(struct json_writer *json)
{
    close_level(json, ']');
}

void json_string(struct json_writer *json, const char *key, const char *text)
{
    json_string_n(json, key, text, strlen(text));
}

void json_string_n(struct json_writer *json, const char *key, const char *text, size_t len)
{
    begin_value(json, key);
    write_text(json->out, text, len);
}

/* magnitude / 10^n_decimals, the last decimal not 0. */
static void write_decimal(struct buf *out, bool negative, uint64_t magnitude, unsigned n_decimals)
{
    char text[NUMBER_TEXT_BYTES];
    size_t at = sizeof(text);
    for (unsigned n = 0; n <= n_decimals || magnitude > 0; n++) {
        if (n == n_decimals && n > 0)
            text[--at] = '.';
        text[--at] = (char)('0' + magnitude % 10);
        magnitude /= 10;
    }
    if (negative)
        text[--at] = '-';
    buf_append(out, text + at, sizeof(text) - at);
}

void json_int(struct json_writer *json, const char *key, int64_t value)
{
    begin_value(json, key);
    write_decimal(json->out, value < 0, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 0);
}

/* True if the decimal text whose nearest double is `quotient` reads back as magnitude. For a float
 * a quotient in the middle of two floats is refused: the text may lie on either side of it. */
static bool reads_back(double quotient, double magnitude, bool is_float)
{
    if (!is_float)
        return quotient == magnitude;
    uint64_t bits = 0;
    memcpy(&bits, &quotient, sizeof(bits));
    bool in_the_middle = (bits & 0x1fffffff) == 0x10000000;
    return !in_the_middle && (double)(float)quotient == magnitude;
}

static bool write_fixed(struct buf *out, double value, bool is_float)
{
    double magnitude = fabs(value);
    if (magnitude < FIXED_MIN || magnitude >= INTEGER_MAX)
        return false;
    for (unsigned k = 0; k < N_POWERS; k++) {
        double scaled = magnitude * POWERS[k] + 0.5;
        if (scaled >= EXACT_MAX)
            return false;
        uint64_t digits = (uint64_t)scaled;
        if (reads_back((double)digits / POWERS[k], magnitude, is_float)) {
            write_decimal(out, signbit(value) != 0, digits, k);
            return true;
        }
    }
    return false;
}

static void write_number(struct buf *out, double value, bool is_float)
{
    if (!isfinite(value)) {
        buf_append(out, "null", 4);
        return;
    }
    if (value == 0.0) {
        buf_append_text(out, signbit(value) != 0 ? "-0" : "0");
        return;
    }
    if (write_fixed(out, value, is_float))
        return;
    /* DIG digits always survive being written and read, so nothing shorter is missed by starting
     * there, but for subnormal values, which hold fewer. */
    int precision = is_float ? FLT_DIG : DBL_DIG;
    int last = is_float ? FLT_DECIMAL_DIG : DBL_DECIMAL_DIG;
    if (fabs(value) < (is_float ? (double)FLT_MIN : DBL_MIN))
        precision = 1;
    char text[NUMBER_TEXT_BYTES];
    for (; precision <= last; precision++) {
        (void)snprintf(text, sizeof(text), "%.*g", precision, value);
        double back = is_float ? (double)strtof(text, NULL) : strtod(text, NULL);
        if (back == value)
            break;
    }
    buf_append_text(out, text);
}

void json_double(struct json_writer *json, const char *key, double value)
{
    begin_value(json, key);
    write_number(json->out, value, false);
}

void json_float(struct json_writer *json, const char *key, float value)
{
    begin_value(json, key);
    write_number(json->out, (double)value, true);
}

void json_bool(struct json_writer *json, const char *key, bool value)
{
    begin_value(json, key);
    buf_append_text(json->out, value ? "true" : "false");
}

void json_null(struct json_writer *json, const char *key)
{
    begin_value(json, key);
    buf_append(json->out, "null", 4);
}

void json_raw(struct json_writer *json, const char *key, const char *text, size_t len)
{
    begin_value(json, key);
    buf_append(json->out, text, len);
}
