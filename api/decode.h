#ifndef AISLE_API_DECODE_H
#define AISLE_API_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "core/recommend.h"
#include "store/history.h"

/* Request bodies → plain C values. Pure functions of their bytes (and the clock for events without
 * one); fuzzed. */

enum { BATCH_REQUESTS_MAX = 1000 };

/* Makes cJSON allocate through base/alloc. Once, before threads start. */
void decode_init(void);

/* Which body it is. */
enum body_kind { BODY_RECOMMEND = 1, BODY_SCORE = 2 };

struct decoded_request {
    struct recommend_request request; /* texts and arrays in the arena */
    const char *after;                /* request_id of the page before, or NULL */
};

/* One JSON object text[0..len) → *out, everything in arena. The defaults of *out's timeout come
 * from default_timeout_ms. Errors: INVALID with err->field naming what is at fault (unknown member,
 * duplicate member, wrong type, out of range, not an id), LIMIT (too deep, too many values), NOMEM.
 */
struct decode_input {
    const char *text;
    size_t len;
    enum body_kind kind;
    int64_t default_timeout_ms;
};
enum status decode_request(const struct decode_input *input, struct arena *arena,
                           struct decoded_request *out, struct error *err) STATUS_CHECKED;

struct decoded_events {
    struct history_event_in *events; /* arena */
    size_t n_events;                 /* 1 … HISTORY_APPEND_MAX */
};
/* One event, an array of events, or NDJSON; told apart by content. All are checked before anything
 * is returned; err->field is "item_id" for one event, "[3].item_id" for the fourth of several.
 * now_ms stands where a timestamp is missing. */
enum status decode_events(const char *text, size_t len, int64_t now_ms, struct arena *arena,
                          struct decoded_events *out, struct error *err) STATUS_CHECKED;

#endif
