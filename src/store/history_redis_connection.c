#include "store/history_redis_internal.h"

#include <arpa/inet.h>
#include <assert.h>
#include <event2/event.h>
#include <fcntl.h>
#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"

/* One pipelined Redis connection for one worker, and everything about time.
 *
 * hiredis 0.14 has no timeouts in its asynchronous interface and frees a context in the midst of
 * its own callbacks. Two rules keep this safe: (1) hiredis' callbacks only take note; a connection
 * is dropped from our timer alone, when hiredis is not on the stack; (2) a call ends exactly once,
 * by its reply, its deadline, or the NULL reply with which hiredis flushes a dying context, and is
 * freed only after hiredis has let go of the last pointer to it.
 *
 * One timer serves all: the deadlines of calls (binary heap), the connect timeout (which covers
 * AUTH, SELECT and SCRIPT LOAD, so a server that accepts and is silent counts as not connected),
 * the watchdog (commands are waiting and no answer came for a command timeout) and the back-off. It
 * is re-armed only for an earlier time, thus mostly not at all. A libevent timer for each call was
 * rejected: an allocation and two heap operations a request for a time that hardly ever comes.
 *
 * While the first attempt of a process is under way calls are queued behind the handshake; later
 * attempts refuse calls, because a request has a fallback and should take it at once. */

enum { BACKOFF_FIRST_US = 50 * 1000, BACKOFF_MAX_US = 5 * 1000 * 1000 };
enum { HEAP_FIRST_CAP = 64 };

static void schedule(struct redis_history *history);

/* --- deadlines: binary heap over redis_call.deadline_us, places kept in the calls --- */

static void heap_put(struct redis_history *history, struct redis_call *call, size_t at)
{
    history->heap[at] = call;
    call->heap_at = at;
}

static void heap_rise(struct redis_history *history, struct redis_call *call, size_t at)
{
    while (at > 0 && history->heap[(at - 1) / 2]->deadline_us > call->deadline_us) {
        heap_put(history, history->heap[(at - 1) / 2], at);
        at = (at - 1) / 2;
    }
    heap_put(history, call, at);
}

static void heap_sink(struct redis_history *history, struct redis_call *call, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= history->heap_n)
            break;
        if (child + 1 < history->heap_n &&
            history->heap[child + 1]->deadline_us < history->heap[child]->deadline_us)
            child++;
        if (history->heap[child]->deadline_us >= call->deadline_us)
            break;
        heap_put(history, history->heap[child], at);
        at = child;
    }
    heap_put(history, call, at);
}

static void heap_remove(struct redis_history *history, struct redis_call *call)
{
    size_t at = call->heap_at;
    call->heap_at = SIZE_MAX;
    struct redis_call *last = history->heap[--history->heap_n];
    if (last == call)
        return;
    heap_sink(history, last, at);
    heap_rise(history, last, last->heap_at);
}

enum status redis_call_start(struct redis_call *call, struct error *err)
{
    struct redis_history *history = call->history;
    if (history->heap_n == history->heap_cap) {
        size_t cap = history->heap_cap == 0 ? HEAP_FIRST_CAP : 2 * history->heap_cap;
        struct redis_call **heap =
            mem_realloc_array(history->heap, cap, sizeof(struct redis_call *));
        if (heap == NULL)
            return error_set(err, STATUS_NOMEM, "out of memory");
        history->heap = heap;
        history->heap_cap = cap;
    }
    heap_rise(history, call, history->heap_n++);
    schedule(history);
    return STATUS_OK;
}

void redis_call_extend(struct redis_call *call, int64_t deadline_us)
{
    assert(!call->ended && deadline_us >= call->deadline_us);
    call->deadline_us = deadline_us;
    heap_sink(call->history, call, call->heap_at);
}

void redis_call_end(struct redis_call *call)
{
    assert(!call->ended);
    call->ended = true;
    heap_remove(call->history, call);
}

static void call_fail(struct redis_call *call, enum status status, const char *message)
{
    redis_call_end(call);
    call->history->n_callbacks++;
    call->on_fail(call, status, message);
    call->history->n_callbacks--;
}

static void call_release(struct redis_call *call)
{
    if (call->ended && call->n_pending == 0)
        call->free(call);
}

/* --- the timer --- */

static int64_t earliest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t next_time(const struct redis_history *history)
{
    int64_t next = history->heap_n > 0 ? history->heap[0]->deadline_us : INT64_MAX;
    if (history->drop_wanted)
        return 0;
    switch (history->state) {
    case REDIS_STATE_DOWN:
        return earliest(next, history->reconnect_us);
    case REDIS_STATE_CONNECTING:
        return earliest(next, history->connect_deadline_us);
    case REDIS_STATE_READY:
        break;
    }
    if (history->n_unanswered > 0)
        next = earliest(next, history->progress_us + history->store->command_timeout_us);
    return next;
}

static void schedule(struct redis_history *history)
{
    int64_t next = next_time(history);
    if (history->closing || next >= history->timer_us)
        return;
    int64_t wait = next - clock_monotonic_us();
    if (wait < 0)
        wait = 0;
    struct timeval tv = {.tv_sec = (time_t)(wait / 1000000),
                         .tv_usec = (suseconds_t)(wait % 1000000)};
    if (event_add(history->timer, &tv) == 0)
        history->timer_us = next;
}

/* --- the connection's life --- */

/* The connection is gone or the attempt failed; hiredis frees the context, or the caller does. */
static void connection_lost(struct redis_history *history, const char *why)
{
    if (history->state == REDIS_STATE_DOWN)
        return;
    if (history->state == REDIS_STATE_READY || history->backoff_us == 0)
        history->backoff_us = BACKOFF_FIRST_US;
    else
        history->backoff_us = earliest(2 * history->backoff_us, BACKOFF_MAX_US);
    /* Between half of it and all of it: workers and processes should not come back in step. */
    int64_t half = history->backoff_us / 2;
    int64_t jitter = (int64_t)rng_below(&history->rng, (uint64_t)half + 1);
    history->reconnect_us = clock_monotonic_us() + half + jitter;
    /* A refused handshake is the reason, also where the server then closes the connection itself.
     */
    if (!history->drop_wanted)
        (void)snprintf(history->message, sizeof(history->message), "Redis is not available: %s",
                       why);
    history->context = NULL;
    history->state = REDIS_STATE_DOWN;
    history->had_result = true;
    history->drop_wanted = false;
    history->n_unanswered = 0;
    history->script_sha[0] = '\0';
    schedule(history);
}

/* Never from inside hiredis. */
static void connection_drop(struct redis_history *history, const char *why)
{
    struct redisAsyncContext *context = history->context;
    redis_resolve_cancel(history->resolution);
    history->resolution = NULL;
    connection_lost(history, why);
    if (context != NULL)
        redisAsyncFree(context); /* answers all pending commands with NULL */
}

static void on_connect(const redisAsyncContext *context, int status)
{
    struct redis_history *history = context->data;
    if (status != REDIS_OK && history->context == context)
        connection_lost(history,
                        context->c.errstr[0] != '\0' ? context->c.errstr : "connection refused");
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
    (void)status;
    struct redis_history *history = context->data;
    if (history->context == context)
        connection_lost(history,
                        context->c.errstr[0] != '\0' ? context->c.errstr : "connection closed");
}

/* Bookkeeping for any reply; false for the NULL of a dying context. */
static bool note_reply(struct redis_history *history, const redisAsyncContext *context,
                       const void *reply)
{
    if (reply == NULL) {
        if (history->context == context)
            connection_lost(history,
                            context->c.errstr[0] != '\0' ? context->c.errstr : "connection closed");
        return false;
    }
    history->n_unanswered--;
    history->progress_us = clock_monotonic_us();
    return true;
}

static void handshake_failed(struct redis_history *history, const char *why)
{
    (void)snprintf(history->message, sizeof(history->message), "Redis refused: %s", why);
    history->drop_wanted = true;
    schedule(history);
}

static void on_handshake(redisAsyncContext *context, void *reply_pointer, void *private_data)
{
    (void)private_data;
    struct redis_history *history = context->data;
    if (!note_reply(history, context, reply_pointer) || history->drop_wanted)
        return;
    const redisReply *reply = reply_pointer;
    if (reply->type == REDIS_REPLY_ERROR)
        handshake_failed(history, reply->str);
}

/* The last of the handshake. A server that refuses SCRIPT to this user still takes EVAL. */
static void on_script_loaded(redisAsyncContext *context, void *reply_pointer, void *private_data)
{
    (void)private_data;
    struct redis_history *history = context->data;
    if (!note_reply(history, context, reply_pointer) || history->drop_wanted)
        return;
    const redisReply *reply = reply_pointer;
    if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "NOPERM", 6) != 0) {
        handshake_failed(history, reply->str);
        return;
    }
    if (reply->type == REDIS_REPLY_STRING && reply->len == SCRIPT_SHA_BYTES)
        memcpy(history->script_sha, reply->str, SCRIPT_SHA_BYTES + 1);
    history->state = REDIS_STATE_READY;
    history->had_result = true;
    history->backoff_us = 0;
    schedule(history);
}

static bool handshake_send(struct redis_history *history, redisCallbackFn *callback, int n,
                           const char **texts)
{
    if (redisAsyncCommandArgv(history->context, callback, NULL, n, texts, NULL) != REDIS_OK)
        return false;
    history->n_unanswered++;
    return true;
}

static bool handshake(struct redis_history *history)
{
    const struct redis_store *store = history->store;
    char database[24];
    (void)snprintf(database, sizeof(database), "%lld", (long long)store->database);
    const char *auth[] = {"AUTH", store->password, NULL};
    const char *select[] = {"SELECT", database};
    const char *load[] = {"SCRIPT", "LOAD", HISTORY_REDIS_SCRIPT};
    if (store->user != NULL) {
        auth[1] = store->user;
        auth[2] = store->password;
    }
    if (store->password != NULL &&
        !handshake_send(history, on_handshake, store->user != NULL ? 3 : 2, auth))
        return false;
    if (store->database != 0 && !handshake_send(history, on_handshake, 2, select))
        return false;
    return handshake_send(history, on_script_loaded, 3, load);
}

static void connection_attempt(struct redis_history *history)
{
    const struct redis_store *store = history->store;
    redisAsyncContext *context = store->path != NULL
                                     ? redisAsyncConnectUnix(store->path)
                                     : redisAsyncConnect(history->numeric, store->port);
    if (context == NULL) {
        connection_lost(history, "out of memory");
        return;
    }
    context->data = history;
    if (context->err != 0) {
        connection_lost(history, context->errstr);
        redisAsyncFree(context);
        return;
    }
    int flags = fcntl(context->c.fd, F_GETFD);
    if (flags >= 0)
        (void)fcntl(context->c.fd, F_SETFD, flags | FD_CLOEXEC);
    history->context = context;
    redisAsyncSetConnectCallback(context, on_connect);
    redisAsyncSetDisconnectCallback(context, on_disconnect);
    if (redisLibeventAttach(context, history->loop) != REDIS_OK || !handshake(history))
        connection_drop(history, "out of memory");
}

static void on_resolved(void *pointer, const char *numeric, const char *message)
{
    struct redis_history *history = pointer;
    history->resolution = NULL;
    if (numeric == NULL) {
        connection_lost(history, message);
        return;
    }
    (void)snprintf(history->numeric, sizeof(history->numeric), "%s", numeric);
    connection_attempt(history);
}

static bool is_numeric(const char *host)
{
    struct in6_addr address;
    return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

static void connection_start(struct redis_history *history)
{
    const struct redis_store *store = history->store;
    struct error error;
    history->state = REDIS_STATE_CONNECTING;
    history->connect_deadline_us = clock_monotonic_us() + store->connect_timeout_us;
    if (store->host == NULL || is_numeric(store->host)) {
        (void)snprintf(history->numeric, sizeof(history->numeric), "%s",
                       store->host != NULL ? store->host : "");
        connection_attempt(history);
    } else if (!history->had_result) {
        if (redis_resolve_now(store->host, history->numeric, &error) == STATUS_OK)
            connection_attempt(history);
        else
            connection_lost(history, error.message);
    } else if (redis_resolve_start(store->host, history->loop, on_resolved, history,
                                   &history->resolution, &error) != STATUS_OK) {
        connection_lost(history, error.message);
    }
    schedule(history);
}

static void expire_calls(struct redis_history *history, int64_t now_us)
{
    while (history->heap_n > 0 && history->heap[0]->deadline_us <= now_us) {
        struct redis_call *call = history->heap[0];
        call_fail(call, STATUS_TIMEOUT, "Redis did not answer in time");
        call_release(call);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *pointer)
{
    (void)fd;
    (void)what;
    struct redis_history *history = pointer;
    history->timer_us = INT64_MAX;
    int64_t now_us = clock_monotonic_us();
    expire_calls(history, now_us);
    if (history->drop_wanted) {
        connection_drop(history, "refused");
    } else if (history->state == REDIS_STATE_CONNECTING && now_us >= history->connect_deadline_us) {
        connection_drop(history, "connecting timed out");
    } else if (history->state == REDIS_STATE_READY && history->n_unanswered > 0 &&
               now_us >= history->progress_us + history->store->command_timeout_us) {
        connection_drop(history, "it no longer answers");
    }
    if (history->state == REDIS_STATE_DOWN && now_us >= history->reconnect_us)
        connection_start(history);
    schedule(history);
}

enum status redis_connection_open(struct redis_history *history, struct error *err)
{
    history->timer = evtimer_new(history->loop, on_timer, history);
    if (history->timer == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    history->timer_us = INT64_MAX;
    /* Jitter must differ between workers and processes, not be repeatable. */
    rng_init(&history->rng, (uint64_t)clock_monotonic_ns());
    connection_start(history);
    return STATUS_OK;
}

void redis_connection_close(struct redis_history *history)
{
    /* Inside a callback hiredis would put off freeing until after our memory is gone. */
    assert(history->n_callbacks == 0);
    history->closing = true;
    connection_drop(history, "closing");
    assert(history->heap_n == 0);
    event_free(history->timer);
    mem_free(history->heap);
}

enum status redis_connection_check(const struct redis_history *history, struct error *err)
{
    if (history->closing)
        return error_set(err, STATUS_UNAVAILABLE, "the history is being closed");
    if (history->state == REDIS_STATE_READY || (history->context != NULL && !history->had_result))
        return STATUS_OK;
    return error_set(err, STATUS_UNAVAILABLE, "%s", history->message);
}

static void on_reply(redisAsyncContext *context, void *reply_pointer, void *private_data)
{
    struct redis_part *part = private_data;
    struct redis_call *call = part->call;
    struct redis_history *history = call->history;
    bool alive = note_reply(history, context, reply_pointer);
    call->n_pending--;
    if (!call->ended) {
        if (alive) {
            const redisReply *reply = reply_pointer;
            history->n_callbacks++;
            call->on_reply(part, reply);
            history->n_callbacks--;
        } else {
            call_fail(call, STATUS_UNAVAILABLE, history->message);
        }
    }
    call_release(call);
}

bool redis_send(struct redis_part *part, const struct redis_arguments *arguments)
{
    struct redis_call *call = part->call;
    struct redis_history *history = call->history;
    if (history->context == NULL ||
        redisAsyncCommandArgv(history->context, on_reply, part, arguments->n, arguments->texts,
                              arguments->lengths) != REDIS_OK)
        return false;
    call->n_pending++;
    if (history->n_unanswered++ == 0) {
        history->progress_us = clock_monotonic_us();
        schedule(history);
    }
    return true;
}
