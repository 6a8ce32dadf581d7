#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/decode.h"
#include "api/query.h"
#include "api/server.h"
#include "base/json_scan.h"
#include "base/parse.h"

/* Danger: bodies and query strings come from anybody who reaches the port. Nesting must not exhaust
 * the stack, a small body must not become a large tree, and what is decoded must hold what the rest
 * relies on: valid ids, counts within their limits, no text with a NUL inside.
 * Inputs: the first byte chooses the kind (r request, s score, e events, q query string, b batch),
 * the rest is its bytes. Path: json_scan, decode_request, decode_events, query_to_json, cJSON. */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ARENA_BLOCK = 4096, ARENA_MAX = 8 << 20, NOW_MS = 1000000 };

static void check(int holds)
{
    if (!holds) {
        abort();
    }
}

static void check_ids(const char *const *ids, size_t n, size_t n_max)
{
    check(n <= n_max);
    for (size_t i = 0; i < n; i++) {
        check(id_valid(ids[i], strlen(ids[i])));
    }
}

static void try_request(const char *text, size_t len, enum body_kind kind, struct arena *arena)
{
    struct decoded_request decoded;
    struct error err;
    struct decode_input input = {text, len, kind, TIMEOUT_MS_DEFAULT};
    if (decode_request(&input, arena, &decoded, &err) != STATUS_OK) {
        check(err.message[0] != '\0');
        return;
    }
    const struct recommend_request *request = &decoded.request;
    check_ids(request->items, request->n_items, REQUEST_ITEMS_MAX);
    check_ids(request->exclude, request->n_exclude, REQUEST_EXCLUDE_MAX);
    check_ids(request->candidates, request->n_candidates, SCORE_CANDIDATES_MAX);
    check(kind != BODY_SCORE || request->n_candidates > 0);
    check(request->filter_json == NULL || strlen(request->filter_json) == request->filter_json_len);
    check(request->timeout_ms >= TIMEOUT_MS_MIN && request->timeout_ms <= TIMEOUT_MS_MAX);
}

static void try_events(const char *text, size_t len, struct arena *arena)
{
    struct decoded_events decoded;
    struct error err;
    if (decode_events(text, len, NOW_MS, arena, &decoded, &err) != STATUS_OK) {
        return;
    }
    check(decoded.n_events >= 1 && decoded.n_events <= HISTORY_APPEND_MAX);
    for (size_t i = 0; i < decoded.n_events; i++) {
        const struct history_event_in *event = &decoded.events[i];
        check_ids(&event->user_id, 1, 1);
        check_ids(&event->item_id, 1, 1);
        check(event->time_ms >= 0);
    }
}

static void try_query(const char *text, size_t len, struct arena *arena)
{
    static const struct query_subject subject = {.scenario = "related", .item_id = "i"};
    struct error err;
    struct buf json;
    const char *query = arena_strndup(arena, text, len);
    if (query == NULL) {
        return;
    }
    buf_init(&json, 1 << 20);
    if (query_to_json(query, &subject, &json, &err) == STATUS_OK) {
        try_request(json.data, json.len, BODY_RECOMMEND, arena);
        struct json_scan scan = {
            .text = json.data, .len = json.len, .depth_max = JSON_DEPTH_MAX, .values_max = 4096};
        check(json_scan(&scan, &err) != STATUS_INVALID);
    }
    buf_free(&json);
}

static void try_batch(const char *text, size_t len, struct arena *arena)
{
    struct json_span spans[8];
    struct error err;
    struct json_scan scan = {.text = text,
                             .len = len,
                             .depth_max = JSON_DEPTH_MAX,
                             .values_max = 4096,
                             .spans = spans,
                             .spans_max = sizeof(spans) / sizeof(spans[0])};
    if (json_scan(&scan, &err) != STATUS_OK) {
        return;
    }
    for (size_t i = 0; i < scan.n_spans; i++) {
        check(spans[i].offset + spans[i].len <= len && spans[i].len > 0);
        try_request(text + spans[i].offset, spans[i].len, BODY_RECOMMEND, arena);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    decode_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    if (size == 0) {
        return 0;
    }
    const char *text = (const char *)data + 1;
    arena_init(&arena, ARENA_BLOCK, ARENA_MAX);
    switch (data[0]) {
    case 'r':
        try_request(text, size - 1, BODY_RECOMMEND, &arena);
        break;
    case 's':
        try_request(text, size - 1, BODY_SCORE, &arena);
        break;
    case 'e':
        try_events(text, size - 1, &arena);
        break;
    case 'q':
        try_query(text, size - 1, &arena);
        break;
    default:
        try_batch(text, size - 1, &arena);
        break;
    }
    arena_free(&arena);
    return 0;
}
