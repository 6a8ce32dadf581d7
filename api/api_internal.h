#ifndef AISLE_API_INTERNAL_H
#define AISLE_API_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "api/decode.h"
#include "api/metrics.h"
#include "api/paging.h"
#include "api/routes.h"
#include "api/server.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/parse.h"
#include "store/catalog.h"

/* Shared by the files of this folder. Three objects: a worker (one thread, one loop), an exchange
 * (an HTTP request under way) and a task (a recommendation under way; a batch has many). Exchanges
 * and tasks are recycled with their arenas, so that a warmed-up worker allocates nothing of ours.
 */

struct evbuffer;
struct event;
struct event_base;
struct evhttp;
struct evhttp_bound_socket;
struct evhttp_connection;
struct evhttp_request;
struct bufferevent;
struct batch;
struct worker;

enum {
    IN_FLIGHT_MAX = 1024, /* exchanges of a worker under way; beyond: 503 */
    /* Batches of a worker under way; beyond: 503. One of a thousand requests for 200 items each is
     * an answer of 60 MB. */
    BATCHES_MAX = 8,
    BATCH_ANSWER_MAX_BYTES = 64 << 20, /* one batch's answer; beyond: 413 */
    /* Bytes of batch answers that a worker holds, being made or waiting for slow readers: with more
     * than the first no new batch begins, at the second the growing ones end with a 503. */
    BATCH_BYTES_REFUSE = 64 << 20,
    BATCH_BYTES_MAX = 192 << 20,
    BATCH_RUN_MAX = 16,    /* elements of batches in one run: their deadlines count from it */
    TURN_BUDGET_US = 5000, /* of work in one turn of the loop, before the sockets come again */
    BATCH_BODY_MAX_BYTES = 8 << 20,
    ARENA_BLOCK_BYTES = 64 << 10,
    ARENA_MAX_BYTES = 8 << 20,
    OUT_MAX_BYTES = 64 << 20,
    HISTORY_CALL_TIMEOUT_MS = 2000, /* of GET /v1/users/{id}/history */
};

struct server {
    struct server_config config;
    char *listen; /* owned copies of the configuration's texts */
    char *token;
    char url[96];
    bool is_loopback;
    uint64_t release_hash;
    struct paging *paging;
    int *sockets; /* [n_workers], -1 once a worker has it */
    struct worker **workers;
    const struct metrics **metrics; /* [n_workers] */
    size_t n_workers;
    size_t n_started; /* threads */
};

struct exchange {
    struct exchange *next; /* in the worker's free list or the list of those under way */
    struct exchange *previous;
    struct worker *worker;
    struct evhttp_request *http; /* NULL: nobody waits for the answer any more */
    const struct route *route;
    int64_t start_us;
    char id[ID_BYTES_MAX + 1]; /* {id} of the path */
    const char *query;         /* or NULL */
    const char *body;          /* contiguous; valid while http is */
    size_t body_len;
    struct arena arena;
    struct batch *batch; /* of POST /v1/recommendations/batch; arena */
    struct exchange *next_waiting;
};

typedef void task_done_fn(struct task *task);
struct task {
    struct task *next; /* in the free list or the list of ready ones */
    struct worker *worker;
    struct exchange *exchange;
    task_done_fn *done; /* called once, when status is set */
    struct arena arena;
    struct decoded_request decoded;
    struct recommend_job job;
    int64_t history_start_ns;
    bool is_element; /* of a batch */
    enum status status;
    struct error error;
};

struct task_list {
    struct task *first;
    struct task *last;
    size_t n;
};

struct worker {
    struct server *server;
    size_t number;
    pthread_t thread;
    struct event_base *base;
    struct evhttp *http;
    struct evhttp_bound_socket *listener;
    struct history *history;
    struct recommender *recommender;
    struct catalog_reader *reader;
    struct event *run_event;   /* tasks are ready */
    struct event *wake_event;  /* the server stops */
    struct event *tick_event;  /* housekeeping */
    struct event *close_event; /* connections over the limit are to be closed */
    int wake_fd;
    atomic_bool stopping; /* set by server_stop */
    _Atomic int64_t stop_deadline_us;
    bool draining;
    size_t quiet_ticks;
    struct bufferevent **connections; /* [n_connections], each with a reference of ours */
    size_t n_connections;
    size_t connections_cap;
    size_t n_doomed;      /* the last ones of connections are over the limit */
    size_t n_since_sweep; /* new ones */
    size_t n_writing;     /* answers not yet wholly written */
    struct exchange *free_exchanges;
    struct exchange *active; /* list of those under way */
    size_t n_active;
    size_t n_batches; /* of these */
    struct task *free_tasks;
    struct task_list ready;          /* visitors' */
    struct task_list ready_elements; /* batches' */
    size_t run_max;                  /* jobs in a run, so that it keeps to its budget */
    struct exchange *waiting_first;  /* batches whose next slice is to begin; by next_waiting */
    struct exchange *waiting_last;
    bool slice_is_running;     /* of one of the batches */
    struct exchange *encoding; /* the batch whose slice is being written */
    size_t batch_bytes;        /* of batch answers, until they are written to their sockets */
    int64_t warned_us;         /* when the last failure was logged */
    size_t n_unlogged;         /* failures since */
    bool history_is_missed;    /* its loss has been logged */
    int ticks_without_history;
    struct buf out;    /* of the answer being written */
    struct buf timing; /* of its Server-Timing header */
    struct metrics metrics;
};

/* ---- worker.c, connections.c ---- */
enum status worker_open(struct server *server, size_t number, int socket, struct worker **out,
                        struct error *err) STATUS_CHECKED;
void *worker_main(void *context); /* a thread's, of a worker */
void worker_close(struct worker *worker);
/* A bufferevent for a new connection of the worker that context is, counted. */
struct bufferevent *connection_new(struct event_base *base, void *context);
/* Gives back what closed connections left, updates the count. */
void connections_sweep(struct worker *worker);
void connections_close_doomed(struct worker *worker);
void connections_free(struct worker *worker);

/* ---- exchange.c: evhttp's side of a request ---- */
/* evhttp's callback for every request; context is the worker. */
void exchange_begin(struct evhttp_request *http, void *context);
/* Adds a header to the answer; must come before the reply. */
void reply_header(struct exchange *exchange, const char *name, const char *value);
struct reply {
    int http_status;
    const char *content_type;  /* NULL: application/json */
    const char *cache_control; /* NULL: no-store */
    const void *body;
    size_t n_bytes;
    struct evbuffer *buffer; /* instead of body; drained */
    const char *reason;      /* of a failure, for the log; or NULL */
};
/* Sends the answer and ends the exchange: it must not be touched afterwards. */
void reply_send(struct exchange *exchange, const struct reply *reply);
/* Sends the worker's out buffer as JSON; 500 if writing it failed. */
void reply_out(struct exchange *exchange, int http_status);
void reply_problem(struct exchange *exchange, int http_status, const char *field,
                   const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The problem of a failed call. */
void reply_error(struct exchange *exchange, const struct error *err);
/* Whether anybody still waits for the answer. */
bool exchange_is_waited(const struct exchange *exchange);
/* Ends an exchange without an answer. */
void exchange_drop(struct exchange *exchange);
void exchanges_free(struct worker *worker);

/* ---- tasks.c: a recommendation's way ---- */
/* NULL: no memory. */
struct task *task_new(struct exchange *exchange, task_done_fn *done);
void task_free(struct task *task);
/* From a decoded request to `done`, possibly before it returns: begin, history, batch. */
void task_start(struct task *task, int64_t start_us);
/* Remembers what an answer showed, for its next page, and counts it. */
void task_answered(struct task *task);
/* Runs all that is ready. */
void tasks_run(struct worker *worker);
/* Lets run_event come once this turn of the loop has read all its sockets. */
void tasks_schedule(struct worker *worker);
/* Ends the ready ones with UNAVAILABLE, at the end of a worker. */
void tasks_cancel(struct worker *worker);
void tasks_free(struct worker *worker);

/* ---- batch_route.c ---- */
/* Writes a portion of the slice that has run, or begins the next one of the batch that has waited
 * longest, unless one is running. */
void batches_continue(struct worker *worker);
void batch_free(struct batch *batch);
/* Of an answer's bytes, from their making to their writing. The reply takes it from the batch. */
struct batch_bill {
    struct worker *worker;
    size_t n_bytes;
};
struct batch_bill *batch_take_bill(struct batch *batch);
void batch_bill_free(struct batch_bill *bill);

/* ---- listen.c ---- */
struct listen_address {
    char text[96]; /* as URL: "http://127.0.0.1:8080" */
    bool is_loopback;
};
/* Binds n sockets to "ADDR:PORT" or "[ADDR]:PORT"; with port 0 all get the same free one. INVALID
 * for a malformed address; errors of the system name it. On failure none is left open. */
enum status listen_bind(const char *address, int *sockets, size_t n, struct listen_address *out,
                        struct error *err) STATUS_CHECKED;
enum status listen_is_loopback(const char *address, bool *out, struct error *err) STATUS_CHECKED;

#endif
