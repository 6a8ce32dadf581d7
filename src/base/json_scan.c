/* A strict, iterative JSON checker. cJSON, which makes the trees, is lenient where files
 * and requests must not be (control characters and "\u0000" in strings, invalid UTF-8, numbers such
 * as "01", garbage after the value) and recurses; what passed here it parses without surprises, and
 * a tree that cannot be made then is out of memory and nothing else.
 *
 * One pass, no recursion: the kind of each open bracket lies in a small stack bounded by depth_max.
 * Rejected: checking cJSON's tree afterwards (the memory is spent by then, and a NUL in a string is
 * invisible) and a SAX parser of our own for everything (twice the code of the decoders). */
#include "base/json_scan.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/parse.h"

enum { DEPTH_CEILING = 64 };

struct scanner {
    struct json_scan *scan;
    size_t at;
    size_t depth;
    size_t n_values;
    size_t span_depth; /* values that begin at this depth are elements */
    size_t span_start;
    bool is_object[DEPTH_CEILING];
    struct error *err;
};

static enum status fail(const struct scanner *s, const char *what)
{
    if (s->at >= s->scan->len) {
        return error_set(s->err, STATUS_INVALID, "not JSON: the text ends too early");
    }
    return error_set(s->err, STATUS_INVALID, "not JSON: %s at byte %zu", what, s->at);
}

/* The byte at the position, or -1 at the end. */
static int peek(const struct scanner *s)
{
    return s->at < s->scan->len ? (unsigned char)s->scan->text[s->at] : -1;
}

static void skip_space(struct scanner *s)
{
    int c = peek(s);
    while (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        s->at++;
        c = peek(s);
    }
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

/* Four hexadecimal digits at text, or -1. */
static int32_t hex4(const char *text)
{
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char c = text[i];
        int digit;
        if (is_digit(c)) {
            digit = c - '0';
        } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
            digit = (c | 0x20) - 'a' + 10;
        } else {
            return -1;
        }
        value = value * 16 + digit;
    }
    return value;
}

/* What follows "\u": a character other than NUL, with its second half where it needs one. */
static enum status scan_unicode_escape(struct scanner *s)
{
    size_t left = s->scan->len - s->at;
    const char *text = s->scan->text + s->at;
    int32_t unit = left >= 4 ? hex4(text) : -1;
    if (unit <= 0 || (unit >= 0xDC00 && unit <= 0xDFFF)) {
        return fail(s, "bad \\u escape");
    }
    s->at += 4;
    if (unit < 0xD800 || unit > 0xDBFF) {
        return STATUS_OK;
    }
    int32_t second = left >= 10 && text[4] == '\\' && text[5] == 'u' ? hex4(text + 6) : -1;
    if (second < 0xDC00 || second > 0xDFFF) {
        return fail(s, "half a surrogate pair");
    }
    s->at += 6;
    return STATUS_OK;
}

static enum status scan_string(struct scanner *s)
{
    s->at++; /* the quote */
    for (;;) {
        int c = peek(s);
        if (c < 0x20) {
            return fail(s, "control character in a string");
        }
        s->at++;
        if (c == '"') {
            return STATUS_OK;
        }
        if (c != '\\') {
            continue;
        }
        c = peek(s);
        if (c < 0 || strchr("\"\\/bfnrtu", c) == NULL) {
            return fail(s, "bad escape");
        }
        s->at++;
        if (c == 'u') {
            enum status status = scan_unicode_escape(s);
            if (status != STATUS_OK) {
                return status;
            }
        }
    }
}

static bool scan_digits(struct scanner *s)
{
    size_t start = s->at;
    while (is_digit(peek(s))) {
        s->at++;
    }
    return s->at > start;
}

static enum status scan_number(struct scanner *s)
{
    if (peek(s) == '-') {
        s->at++;
    }
    if (peek(s) == '0') {
        s->at++;
    } else if (!scan_digits(s)) {
        return fail(s, "bad number");
    }
    if (peek(s) == '.') {
        s->at++;
        if (!scan_digits(s)) {
            return fail(s, "bad number");
        }
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-') {
            s->at++;
        }
        if (!scan_digits(s)) {
            return fail(s, "bad number");
        }
    }
    return STATUS_OK;
}

static enum status scan_word(struct scanner *s)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if (s->scan->len - s->at >= n && memcmp(s->scan->text + s->at, words[i], n) == 0) {
            s->at += n;
            return STATUS_OK;
        }
    }
    return fail(s, "unexpected character");
}

static enum status scan_key(struct scanner *s)
{
    skip_space(s);
    if (peek(s) != '"') {
        return fail(s, "expected a key");
    }
    enum status status = scan_string(s);
    if (status != STATUS_OK) {
        return status;
    }
    skip_space(s);
    if (peek(s) != ':') {
        return fail(s, "expected ':'");
    }
    s->at++;
    return STATUS_OK;
}

static enum status value_begins(struct scanner *s)
{
    if (++s->n_values > s->scan->values_max) {
        return error_set(s->err, STATUS_LIMIT, "more than %zu JSON values", s->scan->values_max);
    }
    if (s->depth == s->span_depth) {
        s->span_start = s->at;
    }
    return STATUS_OK;
}

static enum status value_ended(struct scanner *s)
{
    struct json_scan *scan = s->scan;
    if (s->depth != s->span_depth || scan->spans_max == 0) {
        return STATUS_OK;
    }
    if (scan->n_spans == scan->spans_max) {
        return error_set(s->err, STATUS_LIMIT, "more than %zu elements", scan->spans_max);
    }
    scan->spans[scan->n_spans++] = (struct json_span){s->span_start, s->at - s->span_start};
    return STATUS_OK;
}

static enum status open_bracket(struct scanner *s, bool *is_empty)
{
    if (s->depth == s->scan->depth_max || s->depth == DEPTH_CEILING) {
        return error_set(s->err, STATUS_LIMIT, "JSON nested deeper than %zu levels",
                         s->scan->depth_max);
    }
    bool is_object = peek(s) == '{';
    s->is_object[s->depth++] = is_object;
    s->at++;
    skip_space(s);
    *is_empty = peek(s) == (is_object ? '}' : ']');
    return is_object && !*is_empty ? scan_key(s) : STATUS_OK;
}

/* One value's beginning: a scalar whole (*is_whole), or an opening bracket. */
static enum status scan_begin(struct scanner *s, bool *is_whole)
{
    skip_space(s);
    enum status status = value_begins(s);
    if (status != STATUS_OK) {
        return status;
    }
    *is_whole = true;
    int c = peek(s);
    if (c == '{' || c == '[') {
        return open_bracket(s, is_whole);
    }
    if (c == '"') {
        status = scan_string(s);
    } else if (c == '-' || is_digit(c)) {
        status = scan_number(s);
    } else {
        status = scan_word(s);
    }
    return status == STATUS_OK ? value_ended(s) : status;
}

/* After a value: closes what ends here; *more says that another value follows. */
static enum status scan_end(struct scanner *s, bool *more)
{
    *more = false;
    while (s->depth > 0) {
        skip_space(s);
        bool is_object = s->is_object[s->depth - 1];
        int c = peek(s);
        if (c == ',') {
            s->at++;
            *more = true;
            return is_object ? scan_key(s) : STATUS_OK;
        }
        if (c != (is_object ? '}' : ']')) {
            return fail(s, "expected ',' or a closing bracket");
        }
        s->at++;
        s->depth--;
        enum status status = value_ended(s);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status scan_top_value(struct scanner *s)
{
    bool more = true;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && more) {
        bool is_whole = false;
        status = scan_begin(s, &is_whole);
        if (status == STATUS_OK && is_whole) {
            status = scan_end(s, &more);
        }
    }
    return status;
}

enum status json_scan(struct json_scan *scan, struct error *err)
{
    struct scanner s = {.scan = scan, .err = err};
    scan->n_spans = 0;
    if (!utf8_valid(scan->text, scan->len)) {
        return error_set(err, STATUS_INVALID, "not valid UTF-8");
    }
    skip_space(&s);
    if (s.at == scan->len) {
        return error_set(err, STATUS_INVALID, "empty, JSON expected");
    }
    if (peek(&s) != '{' && peek(&s) != '[') {
        return error_set(err, STATUS_INVALID, "not a JSON object or array");
    }
    scan->shape = peek(&s) == '[' ? JSON_SHAPE_ARRAY : JSON_SHAPE_OBJECT;
    s.span_depth = scan->shape == JSON_SHAPE_ARRAY ? 1 : 0;
    enum status status = scan_top_value(&s);
    skip_space(&s);
    while (status == STATUS_OK && s.at < scan->len) {
        if (scan->shape == JSON_SHAPE_ARRAY || scan->spans_max == 0 || peek(&s) != '{') {
            return fail(&s, "something after the value");
        }
        scan->shape = JSON_SHAPE_LINES;
        status = scan_top_value(&s);
        skip_space(&s);
    }
    return status;
}
