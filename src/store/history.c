#include "store/history.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/parse.h"
#include "store/history_internal.h"

/* What both implementations of the history have in common: the choice between them by the address'
 * scheme, the checks of arguments (so that an implementation sees valid ids and bounded counts
 * only) and the grammar of a list element. An implementation is a table of functions; a store and a
 * handle start with a pointer to it. A compile-time choice was rejected: one binary serves a laptop
 * without a server and a shop with one. */

enum { TTL_DAYS_DEFAULT = 90, STREAM_MAX_DEFAULT = 1000000 };
enum { CONNECT_TIMEOUT_MS_DEFAULT = 1000, COMMAND_TIMEOUT_MS_DEFAULT = 2000 };

static const char SQLITE_SCHEME[] = "sqlite:";
static const char REDIS_SCHEME[] = "redis";

void history_config_default(struct history_config *config)
{
    *config = (struct history_config){
        .history_max = HISTORY_MAX_DEFAULT,
        .ttl_s = INT64_C(86400) * TTL_DAYS_DEFAULT,
        .stream_max = STREAM_MAX_DEFAULT,
        .connect_timeout_ms = CONNECT_TIMEOUT_MS_DEFAULT,
        .command_timeout_ms = COMMAND_TIMEOUT_MS_DEFAULT,
    };
}

static enum status config_check(const struct history_config *config, struct error *err)
{
    /* A limit far above any use keeps products of milliseconds and seconds clear of overflow. */
    const int64_t SECONDS_MAX = INT64_C(100) * 366 * 86400;
    const int64_t TIMEOUT_MS_MAX = 3600000;
    if (config->address == NULL)
        return error_set(err, STATUS_INVALID, "history: no address");
    if (config->history_max < 1 || config->history_max > HISTORY_MAX_MAX)
        return error_set(err, STATUS_INVALID, "history: %zu events a user are not in 1–%d",
                         config->history_max, HISTORY_MAX_MAX);
    if (config->stream_max < 1 || config->stream_max > INT64_MAX / 2)
        return error_set(err, STATUS_INVALID, "history: the stream must keep at least one event");
    if (config->ttl_s < 0 || config->ttl_s > SECONDS_MAX)
        return error_set(err, STATUS_INVALID, "history: time to live out of range");
    if (config->connect_timeout_ms < 1 || config->connect_timeout_ms > TIMEOUT_MS_MAX ||
        config->command_timeout_ms < 1 || config->command_timeout_ms > TIMEOUT_MS_MAX)
        return error_set(err, STATUS_INVALID, "history: timeout not in 1 ms – 1 h");
    return STATUS_OK;
}

enum status history_store_open(const struct history_config *config, struct history_store **out,
                               struct error *err)
{
    *out = NULL;
    enum status status = config_check(config, err);
    if (status != STATUS_OK)
        return status;
    if (strncmp(config->address, SQLITE_SCHEME, sizeof(SQLITE_SCHEME) - 1) == 0)
        return history_sqlite_store_open(config, out, err);
    if (strncmp(config->address, REDIS_SCHEME, sizeof(REDIS_SCHEME) - 1) == 0)
        return history_redis_store_open(config, out, err);
    return error_set(err, STATUS_INVALID,
                     "history address is none of sqlite:FILE, redis://HOST:PORT[/DB], "
                     "redis+unix://PATH");
}

void history_store_close(struct history_store *store)
{
    if (store != NULL)
        store->backend->store_close(store);
}

enum status history_open(struct history_store *store, struct event_base *base, struct history **out,
                         struct error *err)
{
    *out = NULL;
    return store->backend->open(store, base, out, err);
}

void history_close(struct history *history)
{
    if (history != NULL)
        history->backend->close(history);
}

bool history_ready(const struct history *history)
{
    return history->backend->ready(history);
}

const char *history_kind(const struct history *history)
{
    return history->backend->kind;
}

static bool text_id_valid(const char *id)
{
    return id != NULL && id_valid(id, strnlen(id, ID_BYTES_MAX + 1));
}

enum status history_fetch(struct history *history, const struct history_query *query,
                          history_fetch_fn *callback, void *context, struct error *err)
{
    if (!text_id_valid(query->user_id))
        return error_set_field(err, STATUS_INVALID, "user_id", "not an id of 1–%d bytes",
                               ID_BYTES_MAX);
    if (query->n_max < 1 || query->n_max > HISTORY_MAX_MAX)
        return error_set(err, STATUS_INVALID, "%zu events of a history are not in 1–%d",
                         query->n_max, HISTORY_MAX_MAX);
    struct history_fetch_call call = {*query, callback, context};
    return history->backend->fetch(history, &call, err);
}

static const char *event_fault(const struct history_event_in *event)
{
    if (!text_id_valid(event->user_id))
        return "user_id";
    if (!text_id_valid(event->item_id))
        return "item_id";
    if (event->event_id != NULL && !text_id_valid(event->event_id))
        return "event_id";
    if (event->request_id != NULL && !text_id_valid(event->request_id))
        return "request_id";
    if (event->session_id != NULL && !text_id_valid(event->session_id))
        return "session_id";
    if ((unsigned)event->type >= N_EVENT_TYPES)
        return "type";
    if (event->time_ms < 0)
        return "timestamp";
    if (isinf(event->value))
        return "value";
    return NULL;
}

enum status history_append(struct history *history, const struct history_event_in *events,
                           size_t n_events, history_append_fn *callback, void *context,
                           struct error *err)
{
    if (n_events < 1 || n_events > HISTORY_APPEND_MAX)
        return error_set(err, STATUS_INVALID, "%zu events at once are not in 1–%d", n_events,
                         HISTORY_APPEND_MAX);
    for (size_t i = 0; i < n_events; i++) {
        const char *fault = event_fault(&events[i]);
        if (fault != NULL)
            return error_set_field(err, STATUS_INVALID, fault, "event %zu: bad %s", i + 1, fault);
    }
    struct history_append_call call = {events, n_events, callback, context};
    return history->backend->append(history, &call, err);
}

enum status history_erase(struct history *history, const char *user_id, history_erase_fn *callback,
                          void *context, struct error *err)
{
    if (!text_id_valid(user_id))
        return error_set_field(err, STATUS_INVALID, "user_id", "not an id of 1–%d bytes",
                               ID_BYTES_MAX);
    struct history_erase_call call = {user_id, callback, context};
    return history->backend->erase(history, &call, err);
}

/* "<unix ms> <type> <item id>": the id is all after the second blank, blanks included. */
static bool parse_timed(const char *text, size_t len, struct history_item *out)
{
    const char *end = text + len;
    const char *type = memchr(text, ' ', len);
    if (type == NULL)
        return false;
    type++;
    const char *id = memchr(type, ' ', (size_t)(end - type));
    if (id == NULL)
        return false;
    id++;
    struct history_item item = {.item_id = id, .item_id_len = (size_t)(end - id)};
    if (!parse_int64(text, (size_t)(type - 1 - text), &item.time_ms) || text[0] == '-' ||
        !event_type_parse(type, (size_t)(id - 1 - type), &item.type) ||
        !id_valid(id, item.item_id_len))
        return false;
    *out = item;
    return true;
}

/* The timed form wins: a bare id that happens to read "123 view x" is taken for an event. Anything
 * else that is a valid id is a bare id, and the rest is garbage. */
bool history_parse_element(const char *text, size_t len, struct history_item *out)
{
    if (len == 0 || len > HISTORY_ELEMENT_MAX_BYTES)
        return false;
    if (parse_timed(text, len, out))
        return true;
    if (!id_valid(text, len))
        return false;
    *out = (struct history_item){
        .item_id = text, .item_id_len = len, .type = EVENT_VIEW, .time_ms = EVENT_TIME_UNKNOWN};
    return true;
}

static size_t text_size(const char *text)
{
    return text == NULL ? 0 : strlen(text) + 1;
}

static const char *put_text(char **to, const char *text)
{
    if (text == NULL)
        return NULL;
    size_t size = strlen(text) + 1;
    char *copy = memcpy(*to, text, size);
    *to += size;
    return copy;
}

struct history_event_in *history_events_copy(const struct history_event_in *events, size_t n)
{
    /* n ≤ HISTORY_APPEND_MAX and ids ≤ ID_BYTES_MAX: the sum cannot overflow. */
    size_t n_bytes = n * sizeof(*events);
    for (size_t i = 0; i < n; i++)
        n_bytes += text_size(events[i].user_id) + text_size(events[i].item_id) +
                   text_size(events[i].event_id) + text_size(events[i].request_id) +
                   text_size(events[i].session_id);
    struct history_event_in *copy = mem_alloc(n_bytes);
    if (copy == NULL)
        return NULL;
    char *to = (char *)(copy + n);
    for (size_t i = 0; i < n; i++) {
        copy[i] = events[i];
        copy[i].user_id = put_text(&to, events[i].user_id);
        copy[i].item_id = put_text(&to, events[i].item_id);
        copy[i].event_id = put_text(&to, events[i].event_id);
        copy[i].request_id = put_text(&to, events[i].request_id);
        copy[i].session_id = put_text(&to, events[i].session_id);
    }
    return copy;
}
