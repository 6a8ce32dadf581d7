/* Bodies of POST /v1/events: one event, an array, or NDJSON. json_scan finds the elements; each is
 * then parsed alone, so a body of ten thousand events needs the tree of one. */
#include "api/decode_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/server.h"
#include "base/json_scan.h"
#include "base/parse.h"

/* 9999-12-31T23:59:59.999Z, the last that RFC 3339 can write. */
static const double TIME_MS_MAX = 253402300799999.0;
static const int64_t TIME_NUMBER_MIN_MS = INT64_C(100000000000);
static const int64_t TIME_AHEAD_MAX_MS = INT64_C(86400000);
enum { TIME_TEXT_MAX_BYTES = 64 };

static struct history_event_in *target(struct decoder *decoder)
{
    return decoder->target;
}

static enum status read_user_id(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_id(decoder, name, value, &target(decoder)->user_id);
}

static enum status read_item_id(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_id(decoder, name, value, &target(decoder)->item_id);
}

static enum status read_event_id(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_id(decoder, name, value, &target(decoder)->event_id);
}

static enum status read_request_id(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_id(decoder, name, value, &target(decoder)->request_id);
}

static enum status read_session_id(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_id(decoder, name, value, &target(decoder)->session_id);
}

static enum status read_type(struct decoder *decoder, const char *name, const cJSON *value)
{
    if (!cJSON_IsString(value) ||
        !event_type_parse(value->valuestring, strlen(value->valuestring), &target(decoder)->type)) {
        return error_set_field(decoder->err, STATUS_INVALID, name,
                               "%s must be view, cart, purchase or click", name);
    }
    return STATUS_OK;
}

/* A clock may be a little ahead; a day is a mistake, and would be the newest event for a day. */
static enum status check_timestamp(const struct decoder *decoder, const char *name, int64_t time_ms)
{
    if (time_ms > decoder->now_ms + TIME_AHEAD_MAX_MS) {
        return error_set_field(decoder->err, STATUS_INVALID, name,
                               "%s is more than a day in the future", name);
    }
    return STATUS_OK;
}

/* A number is Unix milliseconds: one that would be before 1973 is taken for seconds and refused. A
 * text is RFC 3339. */
static enum status read_timestamp(struct decoder *decoder, const char *name, const cJSON *value)
{
    if (cJSON_IsNumber(value)) {
        enum status status =
            decode_integer(decoder, name, value, (struct decode_range){0.0, TIME_MS_MAX},
                           &target(decoder)->time_ms);
        if (status == STATUS_OK && target(decoder)->time_ms < TIME_NUMBER_MIN_MS) {
            return error_set_field(decoder->err, STATUS_INVALID, name,
                                   "%s must be Unix milliseconds; this looks like seconds", name);
        }
        return status == STATUS_OK ? check_timestamp(decoder, name, target(decoder)->time_ms)
                                   : status;
    }
    int64_t time_ms = -1;
    size_t len = cJSON_IsString(value) ? strnlen(value->valuestring, TIME_TEXT_MAX_BYTES) : 0;
    if (len == 0 || memchr(value->valuestring, '-', len) == NULL ||
        !parse_time_ms(value->valuestring, len, &time_ms) || time_ms < 0 ||
        (double)time_ms > TIME_MS_MAX) {
        return error_set_field(decoder->err, STATUS_INVALID, name,
                               "%s must be RFC 3339 or Unix milliseconds, not before 1970", name);
    }
    target(decoder)->time_ms = time_ms;
    return check_timestamp(decoder, name, time_ms);
}

static enum status read_value(struct decoder *decoder, const char *name, const cJSON *value)
{
    const double VALUE_MAX = 1e15;
    return decode_number(decoder, name, value, (struct decode_range){-VALUE_MAX, VALUE_MAX},
                         &target(decoder)->value);
}

static const struct decoder_member MEMBERS[] = {
    {"user_id", 0, read_user_id},   {"item_id", 0, read_item_id},
    {"type", 0, read_type},         {"timestamp", 0, read_timestamp},
    {"value", 0, read_value},       {"request_id", 0, read_request_id},
    {"event_id", 0, read_event_id}, {"session_id", 0, read_session_id},
};

static enum status check_complete(const struct history_event_in *event, const cJSON *tree,
                                  struct error *err)
{
    const char *missing = NULL;
    if (event->user_id == NULL) {
        missing = "user_id";
    } else if (event->item_id == NULL) {
        missing = "item_id";
    } else if (cJSON_GetObjectItemCaseSensitive(tree, "type") == NULL) {
        missing = "type";
    }
    return missing == NULL
               ? STATUS_OK
               : error_set_field(err, STATUS_INVALID, missing, "%s is missing", missing);
}

static enum status decode_event(const char *text, size_t len, struct arena *arena,
                                struct history_event_in *out, struct error *err)
{
    cJSON *tree = cJSON_ParseWithLength(text, len);
    if (tree == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of one request");
    }
    struct decoder decoder = {arena, out, 0, err, out->time_ms};
    enum status status =
        decode_object(&decoder, tree, MEMBERS, sizeof(MEMBERS) / sizeof(MEMBERS[0]));
    if (status == STATUS_OK) {
        status = check_complete(out, tree, err);
    }
    cJSON_Delete(tree);
    return status;
}

/* Says which of several events is at fault. */
static void name_element(struct error *err, size_t index)
{
    if (err == NULL || err->code != STATUS_INVALID) {
        return;
    }
    char field[ERROR_FIELD_BYTES];
    int n = snprintf(field, sizeof(field), "[%zu]", index);
    if (err->field[0] != '\0') {
        (void)snprintf(field + n, sizeof(field) - (size_t)n, ".%.32s", err->field);
    }
    memcpy(err->field, field, sizeof(field));
    error_prefix(err, "event [%zu]: ", index);
}

enum status decode_events(const char *text, size_t len, int64_t now_ms, struct arena *arena,
                          struct decoded_events *out, struct error *err)
{
    *out = (struct decoded_events){0};
    /* An element takes at least two bytes. */
    size_t spans_max = len / 2 + 1 < HISTORY_APPEND_MAX ? len / 2 + 1 : HISTORY_APPEND_MAX;
    struct json_span *spans = arena_alloc_array(arena, spans_max, sizeof(*spans));
    if (spans == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of one request");
    }
    struct json_scan scan = {.text = text,
                             .len = len,
                             .depth_max = JSON_DEPTH_MAX,
                             .values_max = JSON_VALUES_MAX,
                             .spans = spans,
                             .spans_max = spans_max};
    enum status status = json_scan(&scan, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (scan.n_spans == 0) {
        return error_set(err, STATUS_INVALID, "no events in the body");
    }
    struct history_event_in *events = arena_calloc(arena, scan.n_spans, sizeof(*events));
    if (events == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of one request");
    }
    for (size_t i = 0; i < scan.n_spans; i++) {
        events[i].time_ms = now_ms;
        events[i].value = (double)NAN;
        status = decode_event(text + spans[i].offset, spans[i].len, arena, &events[i], err);
        if (status != STATUS_OK) {
            if (scan.shape != JSON_SHAPE_OBJECT) {
                name_element(err, i);
            }
            return status;
        }
    }
    *out = (struct decoded_events){events, scan.n_spans};
    return STATUS_OK;
}
