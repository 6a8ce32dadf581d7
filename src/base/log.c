#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json_write.h"

/* A line is built on the stack and given to one write(2): no lock, no allocation, no mixing of
 * lines. In text format a value that is not plain is written as a JSON string, so that a newline or
 * quote in it cannot forge another line or key. A line has a ceiling of LINE_BYTES: long values are
 * cut, fields that do not fit are left out whole, and the line then says truncated=true. */

enum { LINE_BYTES = 4096, VALUE_BYTES_MAX = 512, TAIL_BYTES = 32 };
/* A value grows sixfold at most (\u0001), so the head of a line always fits. */
_Static_assert(6 * VALUE_BYTES_MAX + 128 < LINE_BYTES - TAIL_BYTES, "message fits in a line");
static const int64_t TERMINAL_INTERVAL_US = 100000;
static const int64_t PLAIN_INTERVAL_US = 5000000;

static atomic_int log_level_now = LOG_LEVEL_INFO;
static atomic_int log_format_now = LOG_FORMAT_TEXT;
static atomic_int log_descriptor = STDERR_FILENO;

static const char *const LEVEL_NAMES[] = {"debug", "info", "warn", "error", "off"};
static const char *const FORMAT_NAMES[] = {"text", "json"};

void log_init(enum log_level level, enum log_format format, int descriptor)
{
    atomic_store_explicit(&log_level_now, (int)level, memory_order_relaxed);
    atomic_store_explicit(&log_format_now, (int)format, memory_order_relaxed);
    atomic_store_explicit(&log_descriptor, descriptor, memory_order_relaxed);
}

bool log_level_parse(const char *text, enum log_level *out)
{
    for (int i = LOG_LEVEL_DEBUG; i <= LOG_LEVEL_OFF; i++) {
        if (strcmp(text, LEVEL_NAMES[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

bool log_format_parse(const char *text, enum log_format *out)
{
    for (int i = LOG_FORMAT_TEXT; i <= LOG_FORMAT_JSON; i++) {
        if (strcmp(text, FORMAT_NAMES[i]) == 0) {
            *out = (enum log_format)i;
            return true;
        }
    }
    return false;
}

bool log_enabled(enum log_level level)
{
    return level != LOG_LEVEL_OFF &&
           (int)level >= atomic_load_explicit(&log_level_now, memory_order_relaxed);
}

/* Whole bytes of text within the ceiling, not ending inside a UTF-8 character. */
static size_t cut_len(const char *text)
{
    size_t len = strnlen(text, VALUE_BYTES_MAX + 1);
    if (len <= VALUE_BYTES_MAX)
        return len;
    len = VALUE_BYTES_MAX;
    while (len > VALUE_BYTES_MAX - 4 && ((unsigned char)text[len] & 0xc0) == 0x80)
        len--;
    return len;
}

static bool is_plain_word(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c >= 0x7f)
            return false;
    }
    return len > 0;
}

static void write_value(struct json_writer *json, const char *key, const struct log_field *field)
{
    switch (field->type) {
    case LOG_FIELD_TEXT:
        if (field->value.text == NULL)
            json_null(json, key);
        else
            json_string_n(json, key, field->value.text, cut_len(field->value.text));
        break;
    case LOG_FIELD_INT:
        json_int(json, key, field->value.integer);
        break;
    case LOG_FIELD_DOUBLE:
        json_double(json, key, field->value.number);
        break;
    }
}

/* " key=value" */
static void write_pair(struct buf *line, const struct log_field *field)
{
    buf_append_char(line, ' ');
    buf_append_text(line, field->key);
    buf_append_char(line, '=');
    if (field->type == LOG_FIELD_TEXT && field->value.text != NULL) {
        size_t len = cut_len(field->value.text);
        if (is_plain_word(field->value.text, len)) {
            buf_append(line, field->value.text, len);
            return;
        }
    }
    struct json_writer json;
    json_writer_init(&json, line);
    write_value(&json, NULL, field);
}

static void write_all(int descriptor, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(descriptor, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody to tell */
        text += n;
        len -= (size_t)n;
    }
}

/* Opens the room kept for what ends a line, also after a field that did not fit. */
static void open_tail(struct buf *line)
{
    line->status = STATUS_OK;
    line->cap += TAIL_BYTES - 1; /* one byte stays for the newline */
    line->max_bytes += TAIL_BYTES - 1;
}

static void build_text(struct buf *line, const struct log_field *head,
                       const struct log_field *fields, unsigned long n_fields)
{
    struct json_writer json;
    json_writer_init(&json, line);
    buf_printf(line, "ts=%s level=%s msg=", head[0].value.text, head[1].value.text);
    write_value(&json, NULL, &head[2]);
    for (unsigned long i = 0; i < n_fields; i++) {
        size_t len = line->len;
        write_pair(line, &fields[i]);
        if (line->status == STATUS_OK)
            continue;
        line->len = len;
        open_tail(line);
        buf_append_text(line, " truncated=true");
        return;
    }
}

static void build_json(struct buf *line, const struct log_field *head,
                       const struct log_field *fields, unsigned long n_fields)
{
    struct json_writer json;
    json_writer_init(&json, line);
    json_begin_object(&json, NULL);
    for (unsigned long i = 0; i < 3; i++)
        write_value(&json, head[i].key, &head[i]);
    bool truncated = false;
    for (unsigned long i = 0; i < n_fields && !truncated; i++) {
        size_t len = line->len;
        write_value(&json, fields[i].key, &fields[i]);
        if (line->status != STATUS_OK) {
            line->len = len;
            truncated = true;
        }
    }
    open_tail(line);
    if (truncated)
        json_bool(&json, "truncated", true);
    json_end_object(&json);
}

void log_write(enum log_level level, const char *message, const struct log_field *fields,
               unsigned long n_fields)
{
    if (!log_enabled(level))
        return;
    int saved_errno = errno;
    char ts[TIME_TEXT_BYTES];
    time_format_rfc3339(clock_unix_ms(), ts);
    const struct log_field head[] = {LOG_S("ts", ts), LOG_S("level", LEVEL_NAMES[level]),
                                     LOG_S("msg", message)};
    /* The capacity is the ceiling already, so the buffer never reallocates the array. */
    char memory[LINE_BYTES];
    struct buf line = {
        .data = memory, .cap = LINE_BYTES - TAIL_BYTES, .max_bytes = LINE_BYTES - TAIL_BYTES - 1};
    if (atomic_load_explicit(&log_format_now, memory_order_relaxed) == LOG_FORMAT_JSON)
        build_json(&line, head, fields, n_fields);
    else
        build_text(&line, head, fields, n_fields);
    memory[line.len] = '\n';
    write_all(atomic_load_explicit(&log_descriptor, memory_order_relaxed), memory, line.len + 1);
    errno = saved_errno;
}

struct progress_line {
    const char *what;
    const char *detail; /* or NULL */
    uint64_t done;
    uint64_t total; /* 0 = unknown */
    double seconds;
};

static void draw(const struct progress_line *shown, const char *start, const char *end)
{
    char text[512];
    struct buf line = {.data = text, .cap = sizeof(text), .max_bytes = sizeof(text) - 1};
    double rate = shown->seconds > 0 ? (double)shown->done / shown->seconds : 0;
    buf_printf(&line, "%s%.100s: %" PRIu64, start, shown->what, shown->done);
    if (shown->total > 0)
        buf_printf(&line, "/%" PRIu64 " (%.1f%%)", shown->total,
                   100.0 * (double)shown->done / (double)shown->total);
    buf_printf(&line, " %.4g/s", rate);
    if (shown->total > shown->done && rate > 0)
        buf_printf(&line, " eta=%.0fs", (double)(shown->total - shown->done) / rate);
    else
        buf_printf(&line, " in %.1fs", shown->seconds);
    if (shown->detail != NULL)
        buf_printf(&line, " %.250s", shown->detail);
    buf_append_text(&line, end);
    write_all(STDERR_FILENO, line.data, line.len);
}

static double seconds_since(int64_t start_us, int64_t now_us)
{
    return start_us == 0 ? 0 : (double)(now_us - start_us) / 1e6;
}

void progress_show(struct progress *progress, const char *what, uint64_t done, uint64_t total,
                   const char *detail)
{
    int64_t now_us = clock_monotonic_us();
    if (progress->start_us == 0) {
        progress->start_us = now_us;
        progress->last_us = now_us;
        return;
    }
    if (now_us - progress->last_us < TERMINAL_INTERVAL_US)
        return;
    bool terminal = isatty(STDERR_FILENO) != 0;
    if (!terminal && now_us - progress->last_us < PLAIN_INTERVAL_US)
        return;
    progress->last_us = now_us;
    progress->drawn = true;
    const struct progress_line shown = {what, detail, done, total,
                                        seconds_since(progress->start_us, now_us)};
    draw(&shown, terminal ? "\r\033[K" : "", terminal ? "" : "\n");
}

void progress_end(struct progress *progress, const char *what, uint64_t done, const char *detail)
{
    const struct progress_line shown = {what, detail, done, 0,
                                        seconds_since(progress->start_us, clock_monotonic_us())};
    bool redraw = progress->drawn && isatty(STDERR_FILENO) != 0;
    draw(&shown, redraw ? "\r\033[K" : "", "\n");
    *progress = (struct progress){0};
}
