/* What visitors did: taking it in, reading it back, erasing it. Each call to the history store ends
 * in exactly one callback, which answers; the exchange lives until then whatever the client does.
 */
#include "api/api_internal.h"

#include "api/encode.h"
#include "base/clock.h"

static void reply_store_failure(struct exchange *exchange, enum status status, const char *message)
{
    struct error err = {0};
    (void)error_set(&err, status, "history store: %s",
                    message != NULL ? message : status_text(status));
    reply_error(exchange, &err);
}

static void on_appended(void *context, const struct history_append_result *result)
{
    struct exchange *exchange = context;
    struct worker *worker = exchange->worker;
    if (result->status != STATUS_OK) {
        reply_store_failure(exchange, result->status, result->message);
        return;
    }
    metric_add(&worker->metrics.events_accepted, result->n_accepted);
    metric_add(&worker->metrics.events_duplicate, result->n_duplicates);
    struct json_writer json;
    buf_reset(&worker->out);
    json_writer_init(&json, &worker->out);
    json_begin_object(&json, NULL);
    json_int(&json, "accepted", (int64_t)result->n_accepted);
    if (result->n_duplicates > 0) {
        json_int(&json, "duplicates", (int64_t)result->n_duplicates);
    }
    json_end_object(&json);
    reply_out(exchange, 202);
}

void route_events(struct exchange *exchange)
{
    struct error err = {0};
    struct decoded_events decoded;
    enum status status = decode_events(exchange->body, exchange->body_len, clock_unix_ms(),
                                       &exchange->arena, &decoded, &err);
    if (status == STATUS_OK) {
        status = history_append(exchange->worker->history, decoded.events, decoded.n_events,
                                on_appended, exchange, &err);
    }
    if (status != STATUS_OK) {
        err.code = status;
        reply_error(exchange, &err);
    }
}

static void on_history(void *context, const struct history_result *result)
{
    struct exchange *exchange = context;
    struct worker *worker = exchange->worker;
    if (result->status != STATUS_OK) {
        reply_store_failure(exchange, result->status, NULL);
        return;
    }
    metric_add(&worker->metrics.history_garbage, result->n_garbage);
    struct json_writer json;
    buf_reset(&worker->out);
    json_writer_init(&json, &worker->out);
    json_begin_object(&json, NULL);
    json_string(&json, "user_id", exchange->id);
    json_begin_array(&json, "events");
    for (size_t i = 0; i < result->n_items; i++) {
        const struct history_item *item = &result->items[i];
        json_begin_object(&json, NULL);
        json_string_n(&json, "item_id", item->item_id, item->item_id_len);
        json_string(&json, "type", event_type_name(item->type));
        if (item->time_ms != EVENT_TIME_UNKNOWN) {
            char text[TIME_TEXT_BYTES];
            time_format_rfc3339(item->time_ms, text);
            json_string(&json, "timestamp", text);
        }
        json_end_object(&json);
    }
    json_end_array(&json);
    json_end_object(&json);
    reply_out(exchange, 200);
}

void route_user_history(struct exchange *exchange)
{
    struct error err = {0};
    int64_t deadline_us = exchange->start_us + INT64_C(1000) * HISTORY_CALL_TIMEOUT_MS;
    struct history_query query = {exchange->id, HISTORY_MAX_MAX, deadline_us};
    enum status status =
        history_fetch(exchange->worker->history, &query, on_history, exchange, &err);
    if (status != STATUS_OK) {
        err.code = status;
        reply_error(exchange, &err);
    }
}

static void on_erased(void *context, const struct history_erase_result *result)
{
    struct exchange *exchange = context;
    struct worker *worker = exchange->worker;
    if (result->status != STATUS_OK) {
        reply_store_failure(exchange, result->status, result->message);
        return;
    }
    struct json_writer json;
    buf_reset(&worker->out);
    json_writer_init(&json, &worker->out);
    json_begin_object(&json, NULL);
    json_int(&json, "erased", (int64_t)result->n_removed);
    json_end_object(&json);
    reply_out(exchange, 200);
}

void route_user_erase(struct exchange *exchange)
{
    struct error err = {0};
    enum status status =
        history_erase(exchange->worker->history, exchange->id, on_erased, exchange, &err);
    if (status != STATUS_OK) {
        err.code = status;
        reply_error(exchange, &err);
    }
}
