#include "api/encode.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"

struct status_row {
    enum status status;
    int http_status;
};

/* LIMIT is a body that asks for too much (a filter's depth, too many ids): bad input, unlike a body
 * of too many bytes, which is answered 413 before anything is read from it. */
static const struct status_row STATUS_ROWS[] = {
    {STATUS_OK, 200},          {STATUS_INVALID, 400},   {STATUS_LIMIT, 400},
    {STATUS_PERMISSION, 403},  {STATUS_NOT_FOUND, 404}, {STATUS_EXISTS, 409},
    {STATUS_UNSUPPORTED, 501}, {STATUS_TIMEOUT, 503},   {STATUS_UNAVAILABLE, 503},
    {STATUS_NOMEM, 503},       {STATUS_IO, 500},        {STATUS_FORMAT, 500},
    {STATUS_MISMATCH, 500},    {STATUS_INTERNAL, 500},
};

struct phrase_row {
    int http_status;
    const char *phrase;
};

static const struct phrase_row PHRASES[] = {
    {200, "OK"},
    {202, "Accepted"},
    {204, "No Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
};

int http_status_of(enum status status)
{
    for (size_t i = 0; i < sizeof(STATUS_ROWS) / sizeof(STATUS_ROWS[0]); i++) {
        if (STATUS_ROWS[i].status == status) {
            return STATUS_ROWS[i].http_status;
        }
    }
    return 500;
}

const char *http_status_phrase(int http_status)
{
    for (size_t i = 0; i < sizeof(PHRASES) / sizeof(PHRASES[0]); i++) {
        if (PHRASES[i].http_status == http_status) {
            return PHRASES[i].phrase;
        }
    }
    return "Error";
}

void encode_problem(struct json_writer *json, const char *key, const struct problem *problem)
{
    json_begin_object(json, key);
    json_string(json, "type", "about:blank");
    json_string(json, "title", http_status_phrase(problem->http_status));
    json_int(json, "status", problem->http_status);
    json_string(json, "detail", problem->detail);
    if (problem->field != NULL && problem->field[0] != '\0') {
        json_string(json, "field", problem->field);
    }
    json_end_object(json);
}

static void text_if(struct json_writer *json, const char *key, const char *text)
{
    if (text != NULL) {
        json_string(json, key, text);
    }
}

static void number_if(struct json_writer *json, const char *key, double number)
{
    if (!isnan(number)) {
        json_double(json, key, number);
    }
}

static void time_text(struct json_writer *json, const char *key, int64_t unix_ms)
{
    char text[TIME_TEXT_BYTES];
    time_format_rfc3339(unix_ms, text);
    json_string(json, key, text);
}

void encode_metadata(struct json_writer *json, const struct item_metadata *metadata)
{
    text_if(json, "title", metadata->title);
    text_if(json, "category", metadata->category);
    text_if(json, "brand", metadata->brand);
    number_if(json, "price", metadata->price);
    text_if(json, "currency", metadata->currency);
    number_if(json, "stock", metadata->stock);
    text_if(json, "image_url", metadata->image_url);
    text_if(json, "url", metadata->url);
    if (!isnan(metadata->created_at_ms)) {
        time_text(json, "created_at", (int64_t)metadata->created_at_ms);
    }
    if (metadata->attributes_json != NULL) {
        json_raw(json, "attributes", metadata->attributes_json, strlen(metadata->attributes_json));
    }
}

/* Features come as weight × feature, so they add up to the score. */
static void encode_explanation(struct json_writer *json, const struct recommend_item *item)
{
    json_begin_object(json, "explanation");
    json_begin_array(json, "because");
    for (size_t i = 0; i < item->n_because; i++) {
        json_string(json, NULL, item->because[i]);
    }
    json_end_array(json);
    json_begin_object(json, "features");
    for (int f = 0; f < N_FEATURES; f++) {
        json_float(json, feature_name((enum feature)f), item->features[f]);
    }
    json_end_object(json);
    json_end_object(json);
}

static void encode_item(struct json_writer *json, const struct recommend_item *item, bool explain)
{
    static const enum source sources[] = {SOURCE_VECTOR, SOURCE_NEIGHBORS, SOURCE_POPULAR,
                                          SOURCE_REQUEST};
    json_begin_object(json, NULL);
    json_string(json, "id", item->id);
    json_float(json, "score", item->score);
    encode_metadata(json, &item->metadata);
    json_begin_array(json, "sources");
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
        if ((item->sources & (unsigned)sources[i]) != 0) {
            json_string(json, NULL, source_name(sources[i]));
        }
    }
    json_end_array(json);
    if (explain) {
        encode_explanation(json, item);
    }
    json_end_object(json);
}

void encode_answer(struct json_writer *json, const char *key,
                   const struct recommend_request *request, const struct recommend_answer *answer)
{
    static const enum degraded parts[] = {DEGRADED_HISTORY, DEGRADED_METADATA, DEGRADED_DEADLINE};
    /* What came too late was not explained. */
    bool explain = request->explain && (answer->degraded & DEGRADED_DEADLINE) == 0;
    json_begin_object(json, key);
    json_string(json, "request_id", answer->request_id);
    json_string(json, "release", answer->release);
    json_string(json, "scenario", scenario_name(request->scenario));
    json_begin_array(json, "experiments");
    json_end_array(json);
    json_begin_array(json, "degraded");
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if ((answer->degraded & (unsigned)parts[i]) != 0) {
            json_string(json, NULL, degraded_name(parts[i]));
        }
    }
    json_end_array(json);
    json_begin_array(json, "ignored");
    for (size_t i = 0; i < answer->n_ignored; i++) {
        json_string(json, NULL, answer->ignored[i]);
    }
    json_end_array(json);
    json_begin_array(json, "items");
    for (size_t i = 0; i < answer->n_items; i++) {
        encode_item(json, &answer->items[i], explain);
    }
    json_end_array(json);
    json_end_object(json);
}

void encode_server_timing(struct buf *out, const int64_t stage_ns[N_STAGES])
{
    const double NS_PER_MS = 1e6;
    for (int s = 0; s < N_STAGES; s++) {
        if (stage_ns[s] > 0) {
            buf_printf(out, "%s%s;dur=%.3f", out->len > 0 ? ", " : "", stage_name((enum stage)s),
                       (double)stage_ns[s] / NS_PER_MS);
        }
    }
}

static void json_if(struct json_writer *json, const char *key, const char *text)
{
    if (text != NULL) {
        json_raw(json, key, text, strlen(text));
    }
}

void encode_release(struct json_writer *json, const struct release_description *release)
{
    const struct manifest *manifest = release->manifest;
    json_begin_object(json, NULL);
    json_string(json, "version", manifest->version);
    time_text(json, "created_at", manifest->created_at_ms);
    json_int(json, "n_items", (int64_t)manifest->n_items);
    json_int(json, "dim", (int64_t)manifest->dim);
    json_string(json, "vector_type", manifest->vector_type);
    json_begin_object(json, "model");
    json_string(json, "architecture", manifest->architecture);
    json_if(json, "settings", manifest->model_settings_json);
    json_end_object(json);
    json_begin_object(json, "index");
    json_string(json, "factory", release->index_factory);
    json_string(json, "search_parameters", release->index_search_parameters);
    json_bool(json, "exact", release->index_exact);
    json_if(json, "measured", manifest->measured_json);
    json_end_object(json);
    json_if(json, "training", manifest->training_json);
    json_if(json, "quality", manifest->quality_json);
    json_end_object(json);
}
