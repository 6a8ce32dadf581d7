#include "store/history_redis_internal.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/parse.h"

/* Erasing a user from Redis: the two keys, then the entries of the stream.
 *
 * The stream is ordered by time and knows no users, so it is scanned from its start in pieces, each
 * a short command, the next one sent upon the reply: neither the server nor the loop stalls on a
 * stream of a million entries, and other calls go between. A server-side script over the whole
 * stream was rejected: it would block the server for everybody. An index of a user's entries was
 * rejected too: it would cost each write for the sake of a rare erasure. */

enum { ERASE_PIECE = 500 };

enum erase_step { ERASE_KEYS, ERASE_SCAN, ERASE_ENTRIES };

struct redis_erase {
    struct redis_call call;
    struct redis_part part;
    history_erase_fn *callback;
    void *context;
    struct history_erase_result result;
    enum erase_step step;
    bool is_last;     /* the piece just scanned */
    uint64_t next_ms; /* id of the stream from which the scan goes on */
    uint64_t next_sequence;
    char user_id[ID_BYTES_MAX + 1];
};

static struct redis_erase *erase_of(struct redis_call *call)
{
    return (struct redis_erase *)call;
}

static void erase_fail(struct redis_call *call, enum status status, const char *message)
{
    struct redis_erase *erase = erase_of(call);
    erase->result.status = status;
    erase->result.message = message;
    erase->callback(erase->context, &erase->result);
}

static void erase_end(struct redis_erase *erase, enum status status, const char *message)
{
    redis_call_end(&erase->call);
    erase_fail(&erase->call, status, message);
}

static bool send_scan(struct redis_erase *erase)
{
    struct redis_history *history = erase->call.history;
    struct redis_command command = {.n = 0};
    char from[2 * REDIS_NUMBER_BYTES];
    (void)snprintf(from, sizeof(from), "%llu-%llu", (unsigned long long)erase->next_ms,
                   (unsigned long long)erase->next_sequence);
    buf_reset(&history->key);
    redis_key_stream(&history->key, history->store);
    if (history->key.status != STATUS_OK)
        return false;
    redis_put(&command, "XRANGE");
    redis_put_bytes(&command, history->key.data, history->key.len);
    redis_put(&command, from);
    redis_put(&command, "+");
    redis_put(&command, "COUNT");
    redis_put_int(&command, ERASE_PIECE);
    erase->step = ERASE_SCAN;
    return redis_command_send(&command, &erase->part);
}

/* Whether an entry [id, [field, value, …]] is the user's. */
static bool entry_matches(const redisReply *entry, const char *user_id)
{
    const redisReply *fields = entry->element[1];
    size_t user_len = strlen(user_id);
    for (size_t i = 0; i + 1 < fields->elements; i += 2) {
        const redisReply *name = fields->element[i];
        const redisReply *value = fields->element[i + 1];
        if (name->type == REDIS_REPLY_STRING && strcmp(name->str, "user_id") == 0 &&
            value->type == REDIS_REPLY_STRING && value->len == user_len &&
            memcmp(value->str, user_id, user_len) == 0)
            return true;
    }
    return false;
}

static bool entry_valid(const redisReply *entry)
{
    return entry->type == REDIS_REPLY_ARRAY && entry->elements == 2 &&
           entry->element[0]->type == REDIS_REPLY_STRING;
}

static bool advance_past(struct redis_erase *erase, const redisReply *id)
{
    const char *dash = memchr(id->str, '-', id->len);
    if (dash == NULL || !parse_uint64(id->str, (size_t)(dash - id->str), &erase->next_ms) ||
        !parse_uint64(dash + 1, (size_t)(id->str + id->len - dash - 1), &erase->next_sequence))
        return false;
    if (erase->next_sequence++ == UINT64_MAX && erase->next_ms++ == UINT64_MAX)
        erase->is_last = true;
    return true;
}

/* Deletes the user's entries of the piece; without any, the scan goes on or ends. */
static bool erase_piece(struct redis_erase *erase, const redisReply *reply)
{
    struct redis_history *history = erase->call.history;
    const char *texts[ERASE_PIECE + 2];
    size_t lengths[ERASE_PIECE + 2];
    struct redis_arguments arguments = {2, texts, lengths};
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements > ERASE_PIECE)
        return false;
    erase->is_last = reply->elements < ERASE_PIECE;
    for (size_t i = 0; i < reply->elements; i++) {
        const redisReply *entry = reply->element[i];
        if (!entry_valid(entry) || !advance_past(erase, entry->element[0]))
            return false;
        if (!entry_matches(entry, erase->user_id))
            continue;
        texts[arguments.n] = entry->element[0]->str;
        lengths[arguments.n++] = entry->element[0]->len;
    }
    if (arguments.n == 2) {
        if (!erase->is_last)
            return send_scan(erase);
        erase_end(erase, STATUS_OK, NULL);
        return true;
    }
    buf_reset(&history->key);
    redis_key_stream(&history->key, history->store);
    if (history->key.status != STATUS_OK)
        return false;
    texts[0] = "XDEL";
    lengths[0] = 4;
    texts[1] = history->key.data;
    lengths[1] = history->key.len;
    erase->step = ERASE_ENTRIES;
    return redis_send(&erase->part, &arguments);
}

static void erase_reply(struct redis_part *part, const redisReply *reply)
{
    struct redis_erase *erase = erase_of(part->call);
    if (reply->type == REDIS_REPLY_ERROR) {
        erase_end(erase, redis_reply_status(reply), reply->str);
        return;
    }
    /* The time limit is each command's, as the stream may be long. */
    redis_call_extend(part->call,
                      clock_monotonic_us() + part->call->history->store->command_timeout_us);
    bool good = true;
    if (erase->step == ERASE_SCAN) {
        good = erase_piece(erase, reply);
    } else {
        if (reply->type == REDIS_REPLY_INTEGER && reply->integer > 0)
            erase->result.n_removed += (uint64_t)reply->integer;
        if (erase->step == ERASE_ENTRIES && erase->is_last)
            erase_end(erase, STATUS_OK, NULL);
        else
            good = send_scan(erase);
    }
    if (!good)
        erase_end(erase, STATUS_UNAVAILABLE, "the erasure could not go on: not all is removed");
}

enum status redis_erase_start(struct history *base, const struct history_erase_call *asked,
                              struct error *err)
{
    struct redis_history *history = (struct redis_history *)base;
    struct redis_user_keys keys;
    enum status status = redis_connection_check(history, err);
    if (status == STATUS_OK)
        status = redis_make_keys(history, asked->user_id, &keys, err);
    if (status != STATUS_OK)
        return status;
    struct redis_erase *erase = mem_calloc(1, sizeof(*erase));
    if (erase == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    erase->call = (struct redis_call){
        .history = history,
        .on_reply = erase_reply,
        .on_fail = erase_fail,
        .free = redis_call_free,
        .deadline_us = clock_monotonic_us() + history->store->command_timeout_us,
    };
    erase->part.call = &erase->call;
    erase->callback = asked->callback;
    erase->context = asked->context;
    memcpy(erase->user_id, asked->user_id, strlen(asked->user_id) + 1);
    status = redis_call_start(&erase->call, err);
    if (status != STATUS_OK)
        goto fail;
    struct redis_command command = {.n = 0};
    redis_put(&command, "DEL");
    redis_put_bytes(&command, history->key.data, keys.list_len);
    redis_put_bytes(&command, history->key.data + keys.list_len, keys.ids_len);
    if (redis_command_send(&command, &erase->part))
        return STATUS_OK;
    status = redis_call_refuse(&erase->call, err);
fail:
    mem_free(erase);
    return status;
}
