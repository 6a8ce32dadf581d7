/* evhttp's side of a request. Who owns the evhttp_request is the delicate part:
 * - From the handler's call to evhttp_send_reply it is ours to answer, and the connection does not
 *   read (so a client that hangs up meanwhile is noticed when the answer is written).
 * - If evhttp gives the connection up meanwhile for another reason, it calls the close callback.
 * Has it taken the request off the connection (the request's connection is NULL), then the request
 * is left to us and answering it frees it; otherwise evhttp frees it, and we forget it.
 * - After evhttp_send_reply it is evhttp's; the exchange goes back to the pool at once, and only a
 *   counter remembers that an answer is being written, for a clean end.
 * So an exchange outlives its client, and what waits for history or storage holds the exchange,
 * never the evhttp_request. */
#include "api/api_internal.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/encode.h"
#include "api/query.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/parse.h"

enum { HEADER_BYTES_MAX = 1024, WARN_INTERVAL_US = 1000000 };

/* ---- pool ---- */

static struct exchange *exchange_take(struct worker *worker)
{
    struct exchange *exchange = worker->free_exchanges;
    if (exchange != NULL) {
        worker->free_exchanges = exchange->next;
    } else {
        exchange = mem_calloc(1, sizeof(*exchange));
        if (exchange == NULL) {
            return NULL;
        }
        arena_init(&exchange->arena, ARENA_BLOCK_BYTES, ARENA_MAX_BYTES);
    }
    exchange->worker = worker;
    exchange->route = NULL;
    exchange->batch = NULL;
    exchange->id[0] = '\0';
    exchange->previous = NULL;
    exchange->next = worker->active;
    if (worker->active != NULL) {
        worker->active->previous = exchange;
    }
    worker->active = exchange;
    worker->n_active++;
    metric_set(&worker->metrics.in_flight, worker->n_active);
    return exchange;
}

void exchange_drop(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    if (exchange->batch != NULL) {
        worker->n_batches--;
        batch_free(exchange->batch);
        exchange->batch = NULL;
    }
    if (exchange->http != NULL && evhttp_request_get_connection(exchange->http) == NULL) {
        evhttp_request_free(exchange->http);
    }
    exchange->http = NULL;
    if (exchange->previous != NULL) {
        exchange->previous->next = exchange->next;
    } else {
        worker->active = exchange->next;
    }
    if (exchange->next != NULL) {
        exchange->next->previous = exchange->previous;
    }
    worker->n_active--;
    metric_set(&worker->metrics.in_flight, worker->n_active);
    arena_reset(&exchange->arena);
    exchange->next = worker->free_exchanges;
    worker->free_exchanges = exchange;
}

void exchanges_free(struct worker *worker)
{
    while (worker->active != NULL) {
        exchange_drop(worker->active);
    }
    while (worker->free_exchanges != NULL) {
        struct exchange *exchange = worker->free_exchanges;
        worker->free_exchanges = exchange->next;
        arena_free(&exchange->arena);
        mem_free(exchange);
    }
}

bool exchange_is_waited(const struct exchange *exchange)
{
    return exchange->http != NULL && evhttp_request_get_connection(exchange->http) != NULL;
}

/* ---- evhttp's callbacks ---- */

static void on_close_active(struct evhttp_connection *connection, void *context)
{
    struct exchange *exchange = context;
    (void)connection;
    if (exchange->http != NULL && evhttp_request_get_connection(exchange->http) != NULL) {
        exchange->http = NULL;
    }
}

static void on_close_writing(struct evhttp_connection *connection, void *context)
{
    struct worker *worker = context;
    (void)connection;
    worker->n_writing--;
}

static void on_close_writing_batch(struct evhttp_connection *connection, void *context)
{
    struct batch_bill *bill = context;
    on_close_writing(connection, bill->worker);
    batch_bill_free(bill);
}

static void on_written(struct evhttp_request *http, void *context)
{
    struct worker *worker = context;
    worker->n_writing--;
    evhttp_connection_set_closecb(evhttp_request_get_connection(http), NULL, NULL);
}

static void on_written_batch(struct evhttp_request *http, void *context)
{
    struct batch_bill *bill = context;
    on_written(http, bill->worker);
    batch_bill_free(bill);
}

/* ---- replies ---- */

void reply_header(struct exchange *exchange, const char *name, const char *value)
{
    if (exchange_is_waited(exchange)) {
        (void)evhttp_add_header(evhttp_request_get_output_headers(exchange->http), name, value);
    }
}

/* Failures come in floods: one line a second, with the number of those that were left out. */
static void reply_log(const struct exchange *exchange, const struct reply *reply, int64_t us)
{
    struct worker *worker = exchange->worker;
    const char *endpoint = exchange->route != NULL ? exchange->route->endpoint : "none";
    if (reply->http_status >= 500) {
        int64_t now_us = clock_monotonic_us();
        if (worker->warned_us != 0 && now_us - worker->warned_us < WARN_INTERVAL_US) {
            worker->n_unlogged++;
            return;
        }
        LOG_WARN("request failed", LOG_S("endpoint", endpoint), LOG_I("status", reply->http_status),
                 LOG_S("reason", reply->reason != NULL ? reply->reason : ""), LOG_I("us", us),
                 LOG_I("unlogged", worker->n_unlogged));
        worker->warned_us = now_us;
        worker->n_unlogged = 0;
    } else {
        LOG_DEBUG("request", LOG_S("endpoint", endpoint), LOG_I("status", reply->http_status),
                  LOG_I("us", us));
    }
}

static void send_body(struct exchange *exchange, const struct reply *reply)
{
    struct evhttp_request *http = exchange->http;
    struct evbuffer *output = evhttp_request_get_output_buffer(http);
    size_t n_bytes = reply->buffer != NULL ? evbuffer_get_length(reply->buffer) : reply->n_bytes;
    int http_status = reply->http_status;
    if (evhttp_request_get_command(http) == EVHTTP_REQ_HEAD) {
        char length[32];
        (void)snprintf(length, sizeof(length), "%zu", n_bytes);
        reply_header(exchange, "Content-Length", length);
        n_bytes = 0;
    }
    if (n_bytes > 0 && (reply->buffer != NULL ? evbuffer_add_buffer(output, reply->buffer)
                                              : evbuffer_add(output, reply->body, n_bytes)) != 0) {
        http_status = 503; /* no memory for the body */
    }
    evhttp_send_reply(http, http_status, http_status_phrase(http_status), NULL);
}

void reply_send(struct exchange *exchange, const struct reply *reply)
{
    struct worker *worker = exchange->worker;
    int64_t us = clock_monotonic_us() - exchange->start_us;
    size_t endpoint = exchange->route != NULL ? (size_t)(exchange->route - ROUTES) : N_ROUTES;
    metrics_count_request(&worker->metrics, endpoint, reply->http_status, us * 1000);
    reply_log(exchange, reply, us);
    if (exchange_is_waited(exchange)) {
        struct evhttp_connection *connection = evhttp_request_get_connection(exchange->http);
        if (reply->http_status != 204 && reply->http_status != 304) {
            reply_header(exchange, "Content-Type",
                         reply->content_type != NULL ? reply->content_type : "application/json");
        }
        reply_header(exchange, "Cache-Control",
                     reply->cache_control != NULL ? reply->cache_control : "no-store");
        reply_header(exchange, "X-Content-Type-Options", "nosniff");
        if (worker->draining) {
            reply_header(exchange, "Connection", "close");
        }
        worker->n_writing++;
        struct batch_bill *bill = exchange->batch != NULL ? batch_take_bill(exchange->batch) : NULL;
        if (bill != NULL) {
            evhttp_connection_set_closecb(connection, on_close_writing_batch, bill);
            evhttp_request_set_on_complete_cb(exchange->http, on_written_batch, bill);
        } else {
            evhttp_connection_set_closecb(connection, on_close_writing, worker);
            evhttp_request_set_on_complete_cb(exchange->http, on_written, worker);
        }
        send_body(exchange, reply);
        exchange->http = NULL;
    }
    exchange_drop(exchange);
}

void reply_out(struct exchange *exchange, int http_status)
{
    struct buf *out = &exchange->worker->out;
    if (out->status != STATUS_OK) {
        /* LIMIT is ours here, not the client's. */
        bool is_large = out->status == STATUS_LIMIT;
        reply_problem(exchange, is_large ? 500 : http_status_of(out->status), NULL,
                      is_large ? "the answer is too large" : "out of memory");
        return;
    }
    reply_send(exchange,
               &(struct reply){.http_status = http_status, .body = out->data, .n_bytes = out->len});
}

static void send_problem(struct exchange *exchange, const struct problem *problem)
{
    struct buf *out = &exchange->worker->out;
    struct json_writer json;
    buf_reset(out);
    json_writer_init(&json, out);
    encode_problem(&json, NULL, problem);
    if (problem->http_status == 503) {
        reply_header(exchange, "Retry-After", "1");
    }
    bool written = out->status == STATUS_OK;
    reply_send(exchange, &(struct reply){.http_status = problem->http_status,
                                         .content_type = "application/problem+json",
                                         .body = written ? out->data : NULL,
                                         .n_bytes = written ? out->len : 0,
                                         .reason = problem->detail});
}

void reply_problem(struct exchange *exchange, int http_status, const char *field,
                   const char *format, ...)
{
    char detail[ERROR_MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    send_problem(exchange, &(struct problem){http_status, detail, field});
}

void reply_error(struct exchange *exchange, const struct error *err)
{
    send_problem(exchange, &(struct problem){http_status_of(err->code), err->message, err->field});
}

/* ---- the way in ---- */

static enum http_method method_of(struct evhttp_request *http)
{
    static const struct {
        enum evhttp_cmd_type command;
        enum http_method method;
    } rows[] = {{EVHTTP_REQ_GET, METHOD_GET},        {EVHTTP_REQ_POST, METHOD_POST},
                {EVHTTP_REQ_PUT, METHOD_PUT},        {EVHTTP_REQ_PATCH, METHOD_PATCH},
                {EVHTTP_REQ_DELETE, METHOD_DELETE},  {EVHTTP_REQ_HEAD, METHOD_HEAD},
                {EVHTTP_REQ_OPTIONS, METHOD_OPTIONS}};
    enum evhttp_cmd_type command = evhttp_request_get_command(http);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].command == command) {
            return rows[i].method;
        }
    }
    return METHOD_OTHER;
}

static bool has_token(const struct exchange *exchange, const char *token)
{
    static const char scheme[] = "Bearer ";
    const size_t scheme_len = sizeof(scheme) - 1;
    const char *header =
        evhttp_find_header(evhttp_request_get_input_headers(exchange->http), "Authorization");
    if (header == NULL || strncasecmp(header, scheme, scheme_len) != 0) {
        return false;
    }
    const char *given = header + scheme_len;
    given += strspn(given, " ");
    return secret_equal(given, strlen(given), token, strlen(token)) != 0;
}

static bool is_allowed(const struct exchange *exchange)
{
    const struct server *server = exchange->worker->server;
    /* The page itself holds nothing of the shop, and is where a person types the token. */
    if (server->token == NULL || (exchange->route->flags & (ROUTE_HEALTH | ROUTE_PAGE)) != 0) {
        return true;
    }
    bool needs_token = !server->is_loopback || (exchange->route->flags & ROUTE_TOKEN) != 0;
    return !needs_token || has_token(exchange, server->token);
}

static bool take_id(struct exchange *exchange, const struct route_match *match)
{
    size_t len = 0;
    if (match->id == NULL) {
        return true;
    }
    return percent_decode(match->id, match->id_len, PERCENT_PATH, exchange->id,
                          sizeof(exchange->id), &len) == STATUS_OK &&
           id_valid(exchange->id, len);
}

/* Makes the body one piece of memory; false: no memory. */
static bool take_body(struct exchange *exchange)
{
    struct evbuffer *input = evhttp_request_get_input_buffer(exchange->http);
    exchange->body_len = evbuffer_get_length(input);
    exchange->body = "";
    if (exchange->body_len > 0) {
        exchange->body = (const char *)evbuffer_pullup(input, -1);
    }
    return exchange->body != NULL;
}

static void dispatch(struct exchange *exchange, const struct route_match *match)
{
    const struct route *route = match->route;
    const struct server *server = exchange->worker->server;
    size_t body_max = server->config.body_max_bytes;
    if ((route->flags & ROUTE_BIG) != 0 && body_max < BATCH_BODY_MAX_BYTES) {
        body_max = BATCH_BODY_MAX_BYTES;
    }
    bool is_health = (route->flags & ROUTE_HEALTH) != 0;
    if (exchange->worker->n_active > IN_FLIGHT_MAX && !is_health) {
        metric_add(&exchange->worker->metrics.requests_refused, 1);
        reply_problem(exchange, 503, NULL, "too many requests under way, try again");
    } else if (!is_allowed(exchange)) {
        reply_header(exchange, "WWW-Authenticate", "Bearer realm=\"aisle\"");
        reply_problem(exchange, 401, NULL, "this needs the header Authorization: Bearer TOKEN");
    } else if (evbuffer_get_length(evhttp_request_get_input_buffer(exchange->http)) > body_max) {
        reply_problem(exchange, 413, NULL, "the body is larger than %zu bytes", body_max);
    } else if (!take_id(exchange, match)) {
        reply_problem(exchange, 400, "id", "the id in the path must be 1 to %d bytes of UTF-8",
                      ID_BYTES_MAX);
    } else if (!take_body(exchange)) {
        reply_problem(exchange, 503, NULL, "out of memory");
    } else {
        route->handler(exchange);
    }
}

void exchange_begin(struct evhttp_request *http, void *context)
{
    struct worker *worker = context;
    struct exchange *exchange = exchange_take(worker);
    if (exchange == NULL) {
        evhttp_send_error(http, 503, NULL);
        return;
    }
    exchange->http = http;
    exchange->start_us = clock_monotonic_us();
    evhttp_connection_set_closecb(evhttp_request_get_connection(http), on_close_active, exchange);
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(http);
    const char *path = uri != NULL ? evhttp_uri_get_path(uri) : NULL;
    exchange->query = uri != NULL ? evhttp_uri_get_query(uri) : NULL;
    enum http_method method = method_of(http);
    struct route_match match =
        route_find(method, path != NULL ? path : "", worker->server->config.demo);
    exchange->route = match.route;
    char allowed[HEADER_BYTES_MAX];
    route_allowed_text(match.allowed, allowed, sizeof(allowed));
    if (match.route != NULL) {
        dispatch(exchange, &match);
    } else if (match.allowed == 0) {
        reply_problem(exchange, 404, NULL,
                      "there is nothing at this path; /openapi.json lists what there is");
    } else if (method == METHOD_OPTIONS) {
        reply_header(exchange, "Allow", allowed);
        reply_send(exchange, &(struct reply){.http_status = 204});
    } else {
        reply_header(exchange, "Allow", allowed);
        reply_problem(exchange, 405, NULL, "this path takes %s", allowed);
    }
}
