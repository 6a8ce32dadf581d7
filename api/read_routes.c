/* What only reads: an item, the release, health, metrics, the description of the interface and the
 * demonstration page. */
#include "api/api_internal.h"

#include <event2/http.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/assets.h"
#include "api/encode.h"
#include "base/hash.h"

enum { ETAG_BYTES = 24 };

/* If-None-Match: "*", or a list of tags, weak ones as good as strong ones. Our tags are of a fixed
 * length between quotes, so finding one in the list is finding its text. */
static bool is_known(const struct exchange *exchange, const char *etag)
{
    const char *header =
        exchange_is_waited(exchange)
            ? evhttp_find_header(evhttp_request_get_input_headers(exchange->http), "If-None-Match")
            : NULL;
    return header != NULL && (strcmp(header, "*") == 0 || strstr(header, etag) != NULL);
}

void route_item(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    const struct engine *engine = worker->server->config.engine;
    struct buf *out = &worker->out;
    struct item_metadata metadata;
    struct error err = {0};
    uint32_t row = catalog_row(engine->catalog, exchange->id, strlen(exchange->id));
    if (row == IDMAP_NONE) {
        reply_problem(exchange, 404, "id", "the catalogue has no such item");
        return;
    }
    if (catalog_read(worker->reader, row, &metadata, &err) != STATUS_OK) {
        reply_error(exchange, &err);
        return;
    }
    struct json_writer json;
    buf_reset(out);
    json_writer_init(&json, out);
    json_begin_object(&json, NULL);
    json_string(&json, "id", exchange->id);
    encode_metadata(&json, &metadata);
    json_end_object(&json);
    if (out->status != STATUS_OK) {
        reply_out(exchange, 200); /* the problem */
        return;
    }
    char etag[ETAG_BYTES];
    (void)snprintf(etag, sizeof(etag), "\"%016" PRIx64 "\"", hash_bytes(out->data, out->len, 0));
    reply_header(exchange, "ETag", etag);
    if (is_known(exchange, etag)) {
        reply_send(exchange, &(struct reply){.http_status = 304, .cache_control = "no-cache"});
        return;
    }
    reply_send(exchange, &(struct reply){.http_status = 200,
                                         .cache_control = "no-cache",
                                         .body = out->data,
                                         .n_bytes = out->len});
}

void route_release(struct exchange *exchange)
{
    const struct engine *engine = exchange->worker->server->config.engine;
    struct vector_index_info info = vector_index_info(engine->index);
    struct release_description release = {&engine->manifest, info.factory, info.search_parameters,
                                          info.exact};
    struct json_writer json;
    buf_reset(&exchange->worker->out);
    json_writer_init(&json, &exchange->worker->out);
    encode_release(&json, &release);
    reply_out(exchange, 200);
}

void route_healthz(struct exchange *exchange)
{
    static const char body[] = "{\"status\":\"alive\"}";
    reply_send(exchange,
               &(struct reply){.http_status = 200, .body = body, .n_bytes = sizeof(body) - 1});
}

void route_readyz(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    bool history_is_ready = history_ready(worker->history);
    bool is_ready = history_is_ready && !worker->draining;
    struct json_writer json;
    buf_reset(&worker->out);
    json_writer_init(&json, &worker->out);
    json_begin_object(&json, NULL);
    json_bool(&json, "ready", is_ready);
    json_string(&json, "release", worker->server->config.engine->manifest.version);
    json_string(&json, "history", history_kind(worker->history));
    json_begin_array(&json, "reasons");
    if (!history_is_ready) {
        json_string(&json, NULL, "the history store cannot be reached");
    }
    if (worker->draining) {
        json_string(&json, NULL, "the service ends");
    }
    json_end_array(&json);
    json_end_object(&json);
    reply_out(exchange, is_ready ? 200 : 503);
}

void route_metrics(struct exchange *exchange)
{
    struct server *server = exchange->worker->server;
    struct buf *out = &exchange->worker->out;
    const char *endpoints[METRIC_ENDPOINTS_MAX];
    for (size_t i = 0; i < N_ROUTES; i++) {
        endpoints[i] = ROUTES[i].endpoint;
    }
    endpoints[N_ROUTES] = "none";
    buf_reset(out);
    metrics_write(out,
                  &(struct metrics_scrape){server->metrics, server->n_workers, endpoints,
                                           N_ROUTES + 1, server->config.engine->manifest.version});
    if (out->status != STATUS_OK) {
        reply_out(exchange, 200); /* the problem */
        return;
    }
    reply_send(exchange, &(struct reply){.http_status = 200,
                                         .content_type = "text/plain; version=0.0.4",
                                         .body = out->data,
                                         .n_bytes = out->len});
}

static void reply_asset(struct exchange *exchange, const struct asset *asset,
                        const char *content_type)
{
    reply_header(exchange, "Content-Security-Policy",
                 "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'");
    reply_send(exchange, &(struct reply){.http_status = 200,
                                         .content_type = content_type,
                                         .cache_control = "no-cache",
                                         .body = asset->bytes,
                                         .n_bytes = asset->n_bytes});
}

void route_openapi(struct exchange *exchange)
{
    reply_asset(exchange, &ASSET_OPENAPI_JSON, "application/json");
}

void route_page(struct exchange *exchange)
{
    reply_asset(exchange, &ASSET_SHOP_HTML, "text/html; charset=utf-8");
}

void route_page_style(struct exchange *exchange)
{
    reply_asset(exchange, &ASSET_SHOP_CSS, "text/css; charset=utf-8");
}

void route_page_script(struct exchange *exchange)
{
    reply_asset(exchange, &ASSET_SHOP_JS, "text/javascript; charset=utf-8");
}
