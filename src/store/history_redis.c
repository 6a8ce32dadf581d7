#include "store/history_redis_internal.h"

#include <hiredis/hiredis.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"

/* The history in Redis: which commands make a fetch and an append, and what their replies
 * mean (an erasure: history_redis_erase.c). Connection and time are history_redis_connection.c's.
 *
 * An event is written by one server-side script, so that its parts happen together or not at all.
 * It looks at the types of all three keys and at the event id before it writes, and its first write
 * is the XADD, the only one that can still be refused (out of memory, read-only replica, a stream
 * at its last id); MULTI/EXEC was rejected, because it carries on after a failing command and
 * cannot decide on the event id. The script is sent by its SHA-1 as the server reported it at
 * connect; a server that forgot it (SCRIPT FLUSH) gets the text again.
 *
 * LPUSH puts events in the order of their arrival: an event that arrives late counts as new. */

/* KEYS: list, event ids, stream.
 * ARGV: element, list length, ttl in s, event id or "", now in ms, ids kept, stream length, stream
 * fields… → 1 stored, 0 repeated event id. */
const char HISTORY_REDIS_SCRIPT[] =
    "local function wrong(key, kind)\n"
    "  local found = redis.call('TYPE', key)['ok']\n"
    "  return found ~= 'none' and found ~= kind\n"
    "end\n"
    "if wrong(KEYS[1], 'list') or wrong(KEYS[2], 'zset') or wrong(KEYS[3], 'stream') then\n"
    "  return redis.error_reply('WRONGTYPE a key of the history holds another kind of value')\n"
    "end\n"
    "if ARGV[4] ~= '' and redis.call('ZSCORE', KEYS[2], ARGV[4]) then return 0 end\n"
    "redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], '*', unpack(ARGV, 8))\n"
    "redis.call('LPUSH', KEYS[1], ARGV[1])\n"
    "redis.call('LTRIM', KEYS[1], 0, ARGV[2] - 1)\n"
    "if ARGV[4] ~= '' then\n"
    "  redis.call('ZADD', KEYS[2], ARGV[5], ARGV[4])\n"
    "  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -ARGV[6] - 1)\n"
    "end\n"
    "if ARGV[3] ~= '0' then\n"
    "  redis.call('EXPIRE', KEYS[1], ARGV[3])\n"
    "  redis.call('EXPIRE', KEYS[2], ARGV[3])\n"
    "end\n"
    "return 1\n";

enum { KEY_MAX_BYTES = 64 * 1024 };

static const char KEY_PATTERN_DEFAULT[] = "aisle:{%u}:history";
static const char KEY_PREFIX_DEFAULT[] = "aisle:";

static struct redis_history *redis_of(struct history *history)
{
    return (struct redis_history *)history;
}

enum status redis_reply_status(const redisReply *reply)
{
    return strncmp(reply->str, "WRONGTYPE", 9) == 0 ? STATUS_MISMATCH : STATUS_UNAVAILABLE;
}

/* --- keys and arguments --- */

static void key_list(struct buf *key, const struct redis_store *store, const char *user_id)
{
    const char *at = store->key_pattern;
    for (const char *hit = strstr(at, "%u"); hit != NULL; hit = strstr(at, "%u")) {
        buf_append(key, at, (size_t)(hit - at));
        buf_append_text(key, user_id);
        at = hit + 2;
    }
    buf_append_text(key, at);
}

static void key_ids(struct buf *key, const struct redis_store *store, const char *user_id)
{
    buf_append_text(key, store->key_prefix);
    buf_append_char(key, '{');
    buf_append_text(key, user_id);
    buf_append_text(key, "}:events");
}

void redis_key_stream(struct buf *key, const struct redis_store *store)
{
    buf_append_text(key, store->key_prefix);
    buf_append_text(key, "events");
}

enum status redis_make_keys(struct redis_history *history, const char *user_id,
                            struct redis_user_keys *keys, struct error *err)
{
    struct buf *key = &history->key;
    buf_reset(key);
    key_list(key, history->store, user_id);
    keys->list_len = key->len;
    key_ids(key, history->store, user_id);
    keys->ids_len = key->len - keys->list_len;
    redis_key_stream(key, history->store);
    keys->stream_len = key->len - keys->list_len - keys->ids_len;
    if (key->status != STATUS_OK)
        return error_set(err, key->status, "the keys of a user: %s", status_text(key->status));
    return STATUS_OK;
}

void redis_put_bytes(struct redis_command *command, const char *bytes, size_t len)
{
    command->texts[command->n] = bytes;
    command->lengths[command->n++] = len;
}

void redis_put(struct redis_command *command, const char *text)
{
    redis_put_bytes(command, text, strlen(text));
}

void redis_put_int(struct redis_command *command, int64_t number)
{
    char *text = command->numbers[command->n_numbers++];
    (void)snprintf(text, REDIS_NUMBER_BYTES, "%lld", (long long)number);
    redis_put(command, text);
}

bool redis_command_send(struct redis_command *command, struct redis_part *part)
{
    struct redis_arguments arguments = {command->n, command->texts, command->lengths};
    return redis_send(part, &arguments);
}

/* --- fetch --- */

struct redis_fetch {
    struct redis_call call;
    struct redis_part part;
    size_t n_max;
    history_fetch_fn *callback;
    void *context;
};

static struct redis_fetch *fetch_of(struct redis_call *call)
{
    return (struct redis_fetch *)call;
}

void redis_call_free(struct redis_call *call)
{
    mem_free(call);
}

static void fetch_fail(struct redis_call *call, enum status status, const char *message)
{
    (void)message;
    struct history_result result = {.status = status};
    fetch_of(call)->callback(fetch_of(call)->context, &result);
}

static void fetch_reply(struct redis_part *part, const redisReply *reply)
{
    struct redis_fetch *fetch = fetch_of(part->call);
    struct history_item *items = part->call->history->items;
    struct history_result result = {.status = STATUS_OK, .items = items};
    if (reply->type == REDIS_REPLY_ERROR)
        result.status = redis_reply_status(reply);
    else if (reply->type != REDIS_REPLY_ARRAY)
        result.status = STATUS_UNAVAILABLE;
    size_t n = result.status == STATUS_OK ? reply->elements : 0;
    for (size_t i = 0; i < n && result.n_items < fetch->n_max; i++) {
        const redisReply *element = reply->element[i];
        if (element->type == REDIS_REPLY_STRING &&
            history_parse_element(element->str, element->len, &items[result.n_items]))
            result.n_items++;
        else
            result.n_garbage++;
    }
    redis_call_end(part->call);
    fetch->callback(fetch->context, &result);
}

static enum status reserve_items(struct redis_history *history, size_t n, struct error *err)
{
    if (n <= history->items_cap)
        return STATUS_OK;
    struct history_item *items = mem_realloc_array(history->items, n, sizeof(*items));
    if (items == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    history->items = items;
    history->items_cap = n;
    return STATUS_OK;
}

enum status redis_call_refuse(struct redis_call *call, struct error *err)
{
    redis_call_end(call);
    return error_set(err, STATUS_UNAVAILABLE, "the command could not be sent to Redis");
}

static enum status redis_fetch_start(struct history *base, const struct history_fetch_call *asked,
                                     struct error *err)
{
    struct redis_history *history = redis_of(base);
    enum status status = redis_connection_check(history, err);
    if (status == STATUS_OK)
        status = reserve_items(history, asked->query.n_max, err);
    if (status != STATUS_OK)
        return status;
    struct redis_fetch *fetch = mem_alloc(sizeof(*fetch));
    if (fetch == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    *fetch = (struct redis_fetch){
        .call = {.history = history,
                 .on_reply = fetch_reply,
                 .on_fail = fetch_fail,
                 .free = redis_call_free,
                 .deadline_us = asked->query.deadline_us},
        .part = {.call = &fetch->call},
        .n_max = asked->query.n_max,
        .callback = asked->callback,
        .context = asked->context,
    };
    buf_reset(&history->key);
    key_list(&history->key, history->store, asked->query.user_id);
    status = history->key.status;
    if (status != STATUS_OK)
        error_set(err, status, "the key of a user: %s", status_text(status));
    else
        status = redis_call_start(&fetch->call, err);
    if (status != STATUS_OK)
        goto fail;
    struct redis_command command = {.n = 0};
    redis_put(&command, "LRANGE");
    redis_put_bytes(&command, history->key.data, history->key.len);
    redis_put(&command, "0");
    redis_put_int(&command, (int64_t)asked->query.n_max - 1);
    if (redis_command_send(&command, &fetch->part))
        return STATUS_OK;
    status = redis_call_refuse(&fetch->call, err);
fail:
    mem_free(fetch);
    return status;
}

/* --- append --- */

struct redis_append {
    struct redis_call call;
    history_append_fn *callback;
    void *context;
    struct history_event_in *events;
    struct history_append_result result;
    size_t n_left; /* events not answered */
    char message[ERROR_MESSAGE_BYTES];
    struct redis_part parts[];
};

static struct redis_append *append_of(struct redis_call *call)
{
    return (struct redis_append *)call;
}

static void append_free(struct redis_call *call)
{
    mem_free(append_of(call)->events);
    mem_free(call);
}

static void append_note_failure(struct redis_append *append, enum status status,
                                const char *message)
{
    if (append->result.status != STATUS_OK)
        return;
    append->result.status = status;
    (void)snprintf(append->message, sizeof(append->message), "%s", message);
    append->result.message = append->message;
}

static void append_fail(struct redis_call *call, enum status status, const char *message)
{
    struct redis_append *append = append_of(call);
    append_note_failure(append, status, message);
    append->callback(append->context, &append->result);
}

static void put_field(struct redis_command *command, const char *name, const char *value)
{
    if (value == NULL)
        return;
    redis_put(command, name);
    redis_put(command, value);
}

/* The text instead of its SHA-1 also makes the server remember the script. */
static bool send_event(struct redis_part *part, bool with_text)
{
    struct redis_history *history = part->call->history;
    const struct redis_store *store = history->store;
    const struct history_event_in *event = &append_of(part->call)->events[part->index];
    struct redis_user_keys keys;
    if (redis_make_keys(history, event->user_id, &keys, NULL) != STATUS_OK)
        return false;
    bool by_sha = !with_text && history->script_sha[0] != '\0';
    const char *type = event_type_name(event->type);
    char element[HISTORY_ELEMENT_MAX_BYTES];
    char value[REDIS_NUMBER_BYTES];
    (void)snprintf(element, sizeof(element), "%lld %s %s", (long long)event->time_ms, type,
                   event->item_id);
    (void)snprintf(value, sizeof(value), "%.17g", event->value);
    struct redis_command command = {.n = 0};
    redis_put(&command, by_sha ? "EVALSHA" : "EVAL");
    redis_put(&command, by_sha ? history->script_sha : HISTORY_REDIS_SCRIPT);
    redis_put(&command, "3");
    redis_put_bytes(&command, history->key.data, keys.list_len);
    redis_put_bytes(&command, history->key.data + keys.list_len, keys.ids_len);
    redis_put_bytes(&command, history->key.data + keys.list_len + keys.ids_len, keys.stream_len);
    redis_put(&command, element);
    redis_put_int(&command, (int64_t)store->history_max);
    redis_put_int(&command, store->ttl_s);
    redis_put(&command, event->event_id != NULL ? event->event_id : "");
    redis_put_int(&command, clock_unix_ms());
    redis_put_int(&command, HISTORY_EVENT_IDS_MAX);
    redis_put_int(&command, (int64_t)store->stream_max);
    put_field(&command, "user_id", event->user_id);
    put_field(&command, "item_id", event->item_id);
    put_field(&command, "type", type);
    redis_put(&command, "timestamp");
    redis_put_int(&command, event->time_ms);
    put_field(&command, "value", isnan(event->value) ? NULL : value);
    put_field(&command, "event_id", event->event_id);
    put_field(&command, "request_id", event->request_id);
    put_field(&command, "session_id", event->session_id);
    return redis_command_send(&command, part);
}

static void append_reply(struct redis_part *part, const redisReply *reply)
{
    struct redis_append *append = append_of(part->call);
    if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "NOSCRIPT", 8) == 0 &&
        send_event(part, true))
        return;
    if (reply->type == REDIS_REPLY_INTEGER) {
        append->result.n_accepted++;
        if (reply->integer == 0)
            append->result.n_duplicates++;
    } else {
        bool error = reply->type == REDIS_REPLY_ERROR;
        append_note_failure(append, error ? redis_reply_status(reply) : STATUS_UNAVAILABLE,
                            error ? reply->str : "Redis gave an unknown answer");
    }
    if (--append->n_left > 0)
        return;
    redis_call_end(part->call);
    append->callback(append->context, &append->result);
}

static enum status redis_append_start(struct history *base, const struct history_append_call *asked,
                                      struct error *err)
{
    struct redis_history *history = redis_of(base);
    enum status status = redis_connection_check(history, err);
    if (status != STATUS_OK)
        return status;
    struct redis_append *append =
        mem_calloc(1, sizeof(*append) + asked->n_events * sizeof(append->parts[0]));
    if (append == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    append->call = (struct redis_call){
        .history = history,
        .on_reply = append_reply,
        .on_fail = append_fail,
        .free = append_free,
        .deadline_us = clock_monotonic_us() + history->store->command_timeout_us,
    };
    append->callback = asked->callback;
    append->context = asked->context;
    append->events = history_events_copy(asked->events, asked->n_events);
    if (append->events == NULL) {
        status = error_set(err, STATUS_NOMEM, "out of memory");
        goto fail;
    }
    status = redis_call_start(&append->call, err);
    if (status != STATUS_OK)
        goto fail;
    for (size_t i = 0; i < asked->n_events; i++) {
        append->parts[i] = (struct redis_part){&append->call, i};
        if (!send_event(&append->parts[i], false))
            break;
        append->n_left++;
    }
    /* What was sent may happen: then the callback tells that the rest did not. */
    if (append->n_left == 0) {
        status = redis_call_refuse(&append->call, err);
        goto fail;
    }
    if (append->n_left < asked->n_events)
        append_note_failure(append, STATUS_UNAVAILABLE, "not all events could be sent to Redis");
    return STATUS_OK;

fail:
    append_free(&append->call);
    return status;
}

/* --- handles --- */

static void redis_close(struct history *base)
{
    struct redis_history *history = redis_of(base);
    redis_connection_close(history);
    buf_free(&history->key);
    mem_free(history->items);
    mem_free(history);
}

static bool redis_ready(const struct history *base)
{
    return ((const struct redis_history *)base)->state == REDIS_STATE_READY;
}

static enum status redis_open(struct history_store *store, struct event_base *loop,
                              struct history **out, struct error *err)
{
    struct redis_history *history = mem_calloc(1, sizeof(*history));
    if (history == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    history->base.backend = store->backend;
    history->store = (const struct redis_store *)store;
    history->loop = loop;
    buf_init(&history->key, KEY_MAX_BYTES);
    enum status status = redis_connection_open(history, err);
    if (status != STATUS_OK) {
        mem_free(history);
        return status;
    }
    *out = &history->base;
    return STATUS_OK;
}

static void redis_store_close(struct history_store *base)
{
    struct redis_store *store = (struct redis_store *)base;
    mem_free(store->host);
    mem_free(store->path);
    mem_free(store->user);
    mem_free(store->password);
    mem_free(store->key_pattern);
    mem_free(store->key_prefix);
    mem_free(store);
}

static const struct history_backend REDIS_BACKEND = {
    .kind = "redis",
    .store_close = redis_store_close,
    .open = redis_open,
    .close = redis_close,
    .ready = redis_ready,
    .fetch = redis_fetch_start,
    .append = redis_append_start,
    .erase = redis_erase_start,
};

static enum status keys_init(const struct history_config *config, struct redis_store *store,
                             struct error *err)
{
    const char *pattern = config->key_pattern != NULL ? config->key_pattern : KEY_PATTERN_DEFAULT;
    const char *prefix = config->key_prefix != NULL ? config->key_prefix : KEY_PREFIX_DEFAULT;
    if (strstr(pattern, "%u") == NULL)
        return error_set(err, STATUS_INVALID, "the key pattern \"%s\" has no %%u", pattern);
    store->key_pattern = mem_strdup(pattern);
    store->key_prefix = mem_strdup(prefix);
    if (store->key_pattern == NULL || store->key_prefix == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    return STATUS_OK;
}

enum status history_redis_store_open(const struct history_config *config,
                                     struct history_store **out, struct error *err)
{
    struct redis_store *store = mem_calloc(1, sizeof(*store));
    if (store == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    store->base.backend = &REDIS_BACKEND;
    store->history_max = config->history_max;
    store->stream_max = config->stream_max;
    store->ttl_s = config->ttl_s;
    store->connect_timeout_us = config->connect_timeout_ms * 1000;
    store->command_timeout_us = config->command_timeout_ms * 1000;
    enum status status = redis_address_parse(config->address, store, err);
    if (status == STATUS_OK)
        status = keys_init(config, store, err);
    if (status == STATUS_OK && config->password != NULL) {
        mem_free(store->password);
        store->password = mem_strdup(config->password);
        if (store->password == NULL)
            status = error_set(err, STATUS_NOMEM, "out of memory");
    }
    if (status != STATUS_OK) {
        redis_store_close(&store->base);
        return status;
    }
    *out = &store->base;
    return STATUS_OK;
}
