#ifndef AISLE_STORE_HISTORY_H
#define AISLE_STORE_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/status.h"

struct event_base; /* libevent */

/* What visitors did lately, and the stream of it: one interface, two implementations.
 *
 * Redis (hiredis' async API on the worker's loop, pipelined): a LIST `aisle:{<user>}:history`,
 * newest first, elements `<unix ms> <type> <item id>`; a bare item id counts as a view of unknown
 * time. Writing is one server-side script an event (so that the parts happen together or not at
 * all): refuse a repeated event_id (sorted set `aisle:{<user>}:events`, the newest
 * HISTORY_EVENT_IDS_MAX ids), LPUSH, LTRIM, EXPIRE, XADD to `aisle:events`.
 *
 * Embedded: one SQLite file (WAL, synchronous FULL). Reads on the worker's own connection; writes
 * go through one writer thread for the process, which commits what has queued up together (group
 * commit) and then tells each worker's loop.
 *
 * A `history_store` is the process' (thread-safe); a `history` is one worker's and lives on its
 * event loop's thread. Calls never block the loop. If a call returns OK its callback runs exactly
 * once (possibly before the call returns), also after a timeout or at history_close; if it returns
 * anything else the callback never runs. */

struct history_config {
    const char *address;        /* sqlite:FILE | redis://[USER:PASSWORD@]HOST:PORT[/DB] |
                                   redis+unix://PATH[?db=N] */
    const char *password;       /* Redis AUTH, overrides the address'; or NULL */
    const char *key_pattern;    /* of the LIST; "%u" is the user id; NULL: "aisle:{%u}:history" */
    const char *key_prefix;     /* of everything else of ours; NULL: "aisle:" */
    size_t history_max;         /* events a user's list keeps (Redis, LTRIM); default 200 */
    int64_t ttl_s;              /* of a user's keys; default 90 days; 0: none */
    size_t stream_max;          /* entries kept in the stream, about; default 1,000,000 */
    int64_t connect_timeout_ms; /* default 1000 */
    int64_t command_timeout_ms; /* of a write; default 2000. Reads carry their own deadline. */
};
enum {
    HISTORY_MAX_DEFAULT = 200,
    HISTORY_MAX_MAX = 10000,
    HISTORY_EVENT_IDS_MAX = 1000,
    HISTORY_APPEND_MAX = 10000, /* events in one append */
    HISTORY_ELEMENT_MAX_BYTES = 512,
};
void history_config_default(struct history_config *config);

struct history_store;
/* Checks the address (INVALID), opens or creates the SQLite file (IO, FORMAT: not ours or newer);
 * a Redis that does not answer is no error here. */
enum status history_store_open(const struct history_config *config, struct history_store **out,
                               struct error *err) STATUS_CHECKED;
/* After all its `history` handles are closed. Waits for queued writes. */
void history_store_close(struct history_store *store);

struct history;
enum status history_open(struct history_store *store, struct event_base *base, struct history **out,
                         struct error *err) STATUS_CHECKED;
/* Ends calls in flight with UNAVAILABLE, then frees. Not from inside one of its callbacks. */
void history_close(struct history *history);
/* Whether calls have a chance: Redis is connected (embedded: always). For readiness. */
bool history_ready(const struct history *history);
const char *history_kind(const struct history *history); /* "redis" or "sqlite" */

struct history_item {
    const char *item_id; /* not NUL-terminated; valid UTF-8 of 1–128 bytes */
    size_t item_id_len;
    enum event_type type;
    int64_t time_ms; /* or EVENT_TIME_UNKNOWN */
};

struct history_result {
    enum status status;               /* OK; TIMEOUT, UNAVAILABLE; MISMATCH: the key is no list */
    const struct history_item *items; /* newest first; borrowed for the callback */
    size_t n_items;
    size_t n_garbage; /* elements that are no history elements: skipped */
};
typedef void history_fetch_fn(void *context, const struct history_result *result);

struct history_query {
    const char *user_id; /* borrowed for the call */
    size_t n_max;        /* 1 to HISTORY_MAX_MAX */
    int64_t deadline_us; /* monotonic */
};

/* The newest n_max events of user_id. The callback comes by deadline_us at the latest,
 * within the loop's timer precision, then with TIMEOUT. Errors: INVALID, NOMEM, UNAVAILABLE (not
 * connected, and reconnection is backing off: fails at once rather than waiting). */
enum status history_fetch(struct history *history, const struct history_query *query,
                          history_fetch_fn *callback, void *context,
                          struct error *err) STATUS_CHECKED;

struct history_event_in {
    const char *user_id;
    const char *item_id;
    const char *event_id;   /* or NULL */
    const char *request_id; /* or NULL */
    const char *session_id; /* or NULL */
    enum event_type type;
    int64_t time_ms;
    double value; /* NAN where absent */
};
struct history_append_result {
    enum status status;  /* OK: all are durable; else at least one is not: say so, callers retry */
    size_t n_accepted;   /* new ones and repeated ones alike */
    size_t n_duplicates; /* of these, repeated event_ids */
    const char *message; /* for a failure; borrowed */
};
typedef void history_append_fn(void *context, const struct history_append_result *result);

/* Stores events in the given order (copied before it returns). */
enum status history_append(struct history *history, const struct history_event_in *events,
                           size_t n_events, history_append_fn *callback, void *context,
                           struct error *err) STATUS_CHECKED;

struct history_erase_result {
    enum status status;
    const char *message; /* for a failure; borrowed */
    uint64_t n_removed;  /* keys or rows, and stream entries */
};
typedef void history_erase_fn(void *context, const struct history_erase_result *result);
/* Removes all that is stored of a user: list, event ids, entries of the stream (scanned in pieces,
 * so that neither the server nor the loop stalls). */
enum status history_erase(struct history *history, const char *user_id, history_erase_fn *callback,
                          void *context, struct error *err) STATUS_CHECKED;

/* One history element → its parts; false for garbage. Pure; fuzzed. text needs no NUL. */
bool history_parse_element(const char *text, size_t len, struct history_item *out);

#endif
