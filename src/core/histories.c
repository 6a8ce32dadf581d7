#include "core/histories.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/rng.h"
#include "core/recommend.h"

enum {
    LINE_VALUES_MAX = 1 << 16, /* a vector of VECTOR_DIM_MAX, a history of HISTORY_FETCH_MAX */
    LINE_DEPTH_MAX = 4,
    FIRST_CAPACITY = 64,
    EVENT_PARTS = 3, /* item, type, time */
};
#define HISTORIES_FILE_MAX_BYTES ((size_t)1 << 30)
static const double EXACT_INTEGER_MAX = 9007199254740992.0; /* 2^53 */

void history_set_free(struct history_set *set)
{
    mem_free(set->events);
    mem_free(set->spans);
    *set = (struct history_set){.n = 0};
}

void history_set_clear(struct history_set *set)
{
    set->n = 0;
    set->n_events = 0;
}

struct probe_history history_set_at(const struct history_set *set, size_t i)
{
    const struct history_span *span = &set->spans[i];
    return (struct probe_history){set->events + span->first, span->n, span->now_ms};
}

static size_t grown(size_t cap, size_t wanted)
{
    cap = cap < FIRST_CAPACITY ? FIRST_CAPACITY : cap;
    while (cap < wanted) {
        cap *= 2;
    }
    return cap;
}

static enum status reserve(struct history_set *set, size_t n_events, struct error *err)
{
    size_t wanted = set->n_events + n_events;
    if (wanted > set->events_cap) {
        size_t cap = grown(set->events_cap, wanted);
        struct history_event *events = mem_realloc_array(set->events, cap, sizeof(*events));
        if (events == NULL) {
            return error_set(err, STATUS_NOMEM, "histories: no memory");
        }
        set->events = events;
        set->events_cap = cap;
    }
    if (set->n + 1 > set->spans_cap) {
        size_t cap = grown(set->spans_cap, set->n + 1);
        struct history_span *spans = mem_realloc_array(set->spans, cap, sizeof(*spans));
        if (spans == NULL) {
            return error_set(err, STATUS_NOMEM, "histories: no memory");
        }
        set->spans = spans;
        set->spans_cap = cap;
    }
    return STATUS_OK;
}

enum status history_set_add(struct history_set *set, const struct history_event *newest_first,
                            size_t n_events, int64_t now_ms, struct error *err)
{
    enum status status = reserve(set, n_events, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (n_events > 0) {
        memcpy(set->events + set->n_events, newest_first, n_events * sizeof(*newest_first));
    }
    set->spans[set->n++] = (struct history_span){set->n_events, n_events, now_ms};
    set->n_events += n_events;
    return STATUS_OK;
}

/* All but the last event of a sequence, reversed. */
static enum status add_sequence(struct history_set *set, const struct event_log *log,
                                size_t sequence, struct error *err)
{
    struct history_event reversed[HISTORY_FETCH_MAX];
    uint64_t first = log->offsets[sequence];
    uint64_t last = log->offsets[sequence + 1] - 1;
    size_t n = last - first < HISTORY_FETCH_MAX ? (size_t)(last - first) : HISTORY_FETCH_MAX;
    for (size_t i = 0; i < n; i++) {
        reversed[i] = log->events[last - 1 - i];
    }
    return history_set_add(set, reversed, n, log->events[last].time_ms, err);
}

enum status history_set_sample(struct history_set *set, const struct event_log *log, size_t n_max,
                               uint64_t seed, struct error *err)
{
    size_t *eligible = mem_alloc_array(log->n_sequences, sizeof(*eligible));
    if (eligible == NULL) {
        return error_set(err, STATUS_NOMEM, "sampling histories: no memory");
    }
    size_t n = 0;
    for (size_t s = 0; s < log->n_sequences; s++) {
        if (log->offsets[s + 1] - log->offsets[s] >= 2) {
            eligible[n++] = s;
        }
    }
    struct rng rng;
    rng_init(&rng, seed);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < n && i < n_max && status == STATUS_OK; i++) {
        size_t drawn = i + (size_t)rng_below(&rng, n - i);
        size_t sequence = eligible[drawn];
        eligible[drawn] = eligible[i];
        status = add_sequence(set, log, sequence, err);
    }
    mem_free(eligible);
    return status;
}

/* ---- text ---- */

const char *row_name(const struct row_names *names, uint32_t row, size_t *len)
{
    return names->catalog != NULL ? catalog_id(names->catalog, row, len)
                                  : idmap_id(names->map, row, len);
}

static uint32_t find_row(const struct row_names *names, const char *id)
{
    size_t len = strlen(id);
    return names->catalog != NULL ? catalog_row(names->catalog, id, len)
                                  : idmap_find(names->map, id, len);
}

void history_encode(struct json_writer *json, const struct probe_history *history,
                    const struct row_names *names)
{
    json_int(json, "now_ms", history->now_ms);
    json_begin_array(json, "history");
    for (size_t i = 0; i < history->n_events; i++) {
        const struct history_event *event = &history->events[i];
        size_t len = 0;
        const char *id = row_name(names, event->row, &len);
        json_begin_array(json, NULL);
        json_string_n(json, NULL, id, len);
        json_string(json, NULL, event_type_name(event->type));
        if (event->time_ms == EVENT_TIME_UNKNOWN) {
            json_null(json, NULL);
        } else {
            json_int(json, NULL, event->time_ms);
        }
        json_end_array(json);
    }
    json_end_array(json);
}

enum status history_line_open(const char *line, size_t len, struct json_doc **out,
                              struct error *err)
{
    struct json_limits limits = {LINE_VALUES_MAX, LINE_DEPTH_MAX};
    enum status status = json_doc_open(line, len, &limits, out, err);
    if (status == STATUS_OK && json_kind(json_root(*out)) != JSON_OBJECT) {
        json_doc_close(*out);
        *out = NULL;
        status = error_set(err, STATUS_FORMAT, "not a JSON object");
    }
    return status;
}

static bool read_time(const struct json_value *value, int64_t *out)
{
    if (value == NULL || json_kind(value) != JSON_NUMBER) {
        return false;
    }
    double number = json_number(value);
    if (!(fabs(number) <= EXACT_INTEGER_MAX) || floor(number) != number) {
        return false;
    }
    *out = (int64_t)number;
    return true;
}

/* ["SKU1", "view", ms or null]; false: it is something else. */
static bool read_event(const struct json_value *value, const struct row_names *names,
                       struct history_event *out)
{
    const struct json_value *parts[EVENT_PARTS] = {NULL};
    size_t n = 0;
    if (json_kind(value) != JSON_ARRAY) {
        return false;
    }
    for (const struct json_value *v = json_first(value); v != NULL; v = json_next(v)) {
        if (n == EVENT_PARTS) {
            return false;
        }
        parts[n++] = v;
    }
    if (n != EVENT_PARTS || json_kind(parts[0]) != JSON_STRING ||
        json_kind(parts[1]) != JSON_STRING) {
        return false;
    }
    const char *type = json_text(parts[1]);
    out->row = find_row(names, json_text(parts[0]));
    out->time_ms = EVENT_TIME_UNKNOWN;
    return event_type_parse(type, strlen(type), &out->type) &&
           (json_kind(parts[2]) == JSON_NULL || read_time(parts[2], &out->time_ms));
}

enum status history_decode(const struct json_value *line, const struct row_names *names,
                           struct history_set *set, struct history_counts *counts,
                           struct error *err)
{
    struct history_event events[HISTORY_FETCH_MAX];
    int64_t now_ms = 0;
    size_t n = 0;
    size_t position = 0;
    const struct json_value *history = json_member(line, "history");
    if (!read_time(json_member(line, "now_ms"), &now_ms)) {
        return error_set(err, STATUS_FORMAT, "\"now_ms\" is no time in Unix milliseconds");
    }
    if (history == NULL || json_kind(history) != JSON_ARRAY) {
        return error_set(err, STATUS_FORMAT, "\"history\" is no array");
    }
    for (const struct json_value *v = json_first(history); v != NULL; v = json_next(v)) {
        struct history_event event;
        position++;
        if (!read_event(v, names, &event)) {
            return error_set(err, STATUS_FORMAT,
                             "event %zu of \"history\" is not [item, type, time]", position);
        }
        counts->n_events++;
        if (event.row == IDMAP_NONE) {
            counts->n_unknown_item++;
        } else if (n < HISTORY_FETCH_MAX) {
            events[n++] = event;
        }
    }
    return history_set_add(set, events, n, now_ms, err);
}

enum status histories_write(const char *path, const struct history_set *set,
                            const struct row_names *names, struct error *err)
{
    struct buf text;
    struct json_writer json;
    buf_init(&text, HISTORIES_FILE_MAX_BYTES);
    for (size_t i = 0; i < set->n; i++) {
        struct probe_history history = history_set_at(set, i);
        json_writer_init(&json, &text);
        json_begin_object(&json, NULL);
        history_encode(&json, &history, names);
        json_end_object(&json);
        buf_append_char(&text, '\n');
    }
    enum status status = text.status;
    if (status != STATUS_OK) {
        (void)error_set(err, status, "writing %s: %s", path, status_text(status));
    } else {
        status = file_write_atomic(path, buf_text(&text), text.len, err);
    }
    buf_free(&text);
    return status;
}

static enum status read_line(const char *line, size_t len, const struct row_names *names,
                             struct history_set *set, struct history_counts *counts,
                             struct error *err)
{
    struct json_doc *doc = NULL;
    enum status status = history_line_open(line, len, &doc, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = history_decode(json_root(doc), names, set, counts, err);
    json_doc_close(doc);
    if (status == STATUS_OK && set->spans[set->n - 1].n == 0) {
        set->n--;
    }
    return status;
}

enum status histories_read(const char *path, const struct row_names *names, size_t n_max,
                           struct history_set *set, struct history_counts *counts,
                           struct error *err)
{
    struct line_reader *reader = NULL;
    const char *line = NULL;
    size_t len = 0;
    enum status status = line_reader_open(path, PROBE_LINE_MAX_BYTES, &reader, err);
    if (status != STATUS_OK) {
        return status;
    }
    while (set->n < n_max) {
        status = line_reader_next(reader, &line, &len, err);
        if (status != STATUS_OK) {
            break;
        }
        status = read_line(line, len, names, set, counts, err);
        if (status != STATUS_OK) {
            error_prefix(err, "%s line %llu: ", path,
                         (unsigned long long)line_reader_number(reader));
            break;
        }
    }
    line_reader_close(reader);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}
