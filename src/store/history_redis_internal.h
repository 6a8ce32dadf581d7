#ifndef AISLE_STORE_HISTORY_REDIS_INTERNAL_H
#define AISLE_STORE_HISTORY_REDIS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/rng.h"
#include "base/status.h"
#include "store/history_internal.h"

/* Shared by history_redis.c (what is asked of Redis) and history_redis_connection.c (how: one
 * connection a worker, deadlines, reconnection). hiredis' types stay in the two. */

struct redisAsyncContext;
struct redisReply;
struct event;

struct redis_store {
    struct history_store base;
    char *host; /* or NULL for a Unix socket at path */
    char *path;
    char *user;
    char *password;
    char *key_pattern;
    char *key_prefix;
    int port;
    int64_t database;
    size_t history_max;
    size_t stream_max;
    int64_t ttl_s;
    int64_t connect_timeout_us;
    int64_t command_timeout_us;
};

struct redis_call;
struct redis_resolution;

/* One command under way; index tells the call which of its commands it was. */
struct redis_part {
    struct redis_call *call;
    size_t index;
};

/* A call lives until it has ended (its callback ran) and none of its commands is unanswered:
 * hiredis still holds pointers to the parts of a call that timed out. */
struct redis_call {
    struct redis_history *history;
    /* Sees each answer while the call has not ended; reply is never NULL. */
    void (*on_reply)(struct redis_part *part, const struct redisReply *reply);
    /* Runs the user's callback with a failure; redis_call_end was called before. */
    void (*on_fail)(struct redis_call *call, enum status status, const char *message);
    void (*free)(struct redis_call *call);
    int64_t deadline_us;
    size_t heap_at;   /* place in history->heap, SIZE_MAX: not there */
    size_t n_pending; /* commands sent and not answered */
    bool ended;
};

/* Names of hosts. The first look-up of a process waits (redis_resolve_now); the ones on
 * reconnection go through a thread, because getaddrinfo cannot be asked without waiting and the
 * loop must not wait. */
enum { REDIS_NUMERIC_BYTES = 64 };
enum status redis_resolve_now(const char *host, char numeric[REDIS_NUMERIC_BYTES],
                              struct error *err) STATUS_CHECKED;
/* numeric is NULL when the name is not known; the resolution has ended and freed itself then. */
typedef void redis_resolve_fn(void *context, const char *numeric, const char *message);
enum status redis_resolve_start(const char *host, struct event_base *loop,
                                redis_resolve_fn *callback, void *context,
                                struct redis_resolution **out, struct error *err) STATUS_CHECKED;
/* The callback will not run; NULL is legal. */
void redis_resolve_cancel(struct redis_resolution *resolution);

enum redis_state { REDIS_STATE_DOWN, REDIS_STATE_CONNECTING, REDIS_STATE_READY };
enum { SCRIPT_SHA_BYTES = 40 };

struct redis_history {
    struct history base;
    const struct redis_store *store;
    struct event_base *loop;
    struct event *timer; /* the only timer: deadlines, watchdog, connect timeout, back-off */
    int64_t timer_us;    /* when it will fire; INT64_MAX: not armed */
    struct redisAsyncContext *context;   /* NULL while down */
    struct redis_resolution *resolution; /* NULL unless a name is being looked up */
    enum redis_state state;
    bool had_result;  /* the first connection attempt has ended, well or badly */
    bool drop_wanted; /* by a reply; done from the timer, never inside hiredis */
    bool closing;
    unsigned n_callbacks; /* depth of user callbacks on the stack */
    size_t n_unanswered;
    int64_t progress_us; /* last answer, or first command after an idle time */
    int64_t connect_deadline_us;
    int64_t reconnect_us;
    int64_t backoff_us;
    struct rng rng;
    char script_sha[SCRIPT_SHA_BYTES + 1]; /* "" until the server has told it */
    char message[ERROR_MESSAGE_BYTES];     /* why it is down */
    char numeric[REDIS_NUMERIC_BYTES];     /* the host's address */
    struct redis_call **heap;              /* unanswered calls, earliest deadline first */
    size_t heap_n;
    size_t heap_cap;
    struct buf key;             /* scratch */
    struct history_item *items; /* scratch for one reply */
    size_t items_cap;
};

struct redis_arguments {
    int n;
    const char **texts;
    size_t *lengths;
};

/* Arguments of one command, with room for the texts of its numbers. */
enum { REDIS_ARGUMENTS_MAX = 32, REDIS_NUMBERS_MAX = 8, REDIS_NUMBER_BYTES = 32 };
struct redis_command {
    const char *texts[REDIS_ARGUMENTS_MAX];
    size_t lengths[REDIS_ARGUMENTS_MAX];
    char numbers[REDIS_NUMBERS_MAX][REDIS_NUMBER_BYTES];
    int n;
    int n_numbers;
};

/* The three keys of a user one after the other in history->key. */
struct redis_user_keys {
    size_t list_len;
    size_t ids_len;
    size_t stream_len;
};

extern const char HISTORY_REDIS_SCRIPT[];

/* history_redis.c: arguments (borrowed until the command is sent), keys, and what calls share. */
void redis_put_bytes(struct redis_command *command, const char *bytes, size_t len);
void redis_put(struct redis_command *command, const char *text);
void redis_put_int(struct redis_command *command, int64_t number);
bool redis_command_send(struct redis_command *command, struct redis_part *part);
enum status redis_make_keys(struct redis_history *history, const char *user_id,
                            struct redis_user_keys *keys, struct error *err) STATUS_CHECKED;
/* Appends to key; its status tells of a failure. */
void redis_key_stream(struct buf *key, const struct redis_store *store);
/* Of an error reply: MISMATCH for WRONGTYPE, else UNAVAILABLE. */
enum status redis_reply_status(const struct redisReply *reply);
/* Ends a call whose first command could not be queued, as if it had never been. */
enum status redis_call_refuse(struct redis_call *call, struct error *err);
void redis_call_free(struct redis_call *call);

/* history_redis_erase.c */
enum status redis_erase_start(struct history *base, const struct history_erase_call *asked,
                              struct error *err);

/* Parses a redis:// or redis+unix:// address into host/port/path/user/password/database. INVALID,
 * NOMEM; what was set is freed by the caller's store close. */
enum status redis_address_parse(const char *address, struct redis_store *store,
                                struct error *err) STATUS_CHECKED;

enum status redis_connection_open(struct redis_history *history, struct error *err) STATUS_CHECKED;
/* Ends all calls with UNAVAILABLE. */
void redis_connection_close(struct redis_history *history);
/* OK when a command can be sent: connected, or the first attempt is not over. */
enum status redis_connection_check(const struct redis_history *history,
                                   struct error *err) STATUS_CHECKED;
/* Enters the call's deadline; NOMEM. */
enum status redis_call_start(struct redis_call *call, struct error *err) STATUS_CHECKED;
/* Moves the deadline of a call that goes on. */
void redis_call_extend(struct redis_call *call, int64_t deadline_us);
/* Before the user's callback: takes the deadline out. */
void redis_call_end(struct redis_call *call);
/* Queues one command; false when it could not be (then part gets no reply). */
bool redis_send(struct redis_part *part, const struct redis_arguments *arguments);

#endif
