/* A worker: one thread with its own event loop, listening socket, history connection, recommender
 * and counters. Everything it owns is opened in the thread that starts the server, so that a fault
 * is reported there; from then on only its own thread touches it. The exceptions are the two
 * atomics and the eventfd by which the server says that it stops, and the counters. */
#include "api/api_internal.h"

#include <event2/event.h>
#include <event2/http.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    TICK_MS = 250,
    DRAIN_TICK_MS = 5,
    QUIET_TICKS = 4, /* with nothing under way or being written, before a draining worker ends */
    TIMING_BYTES_MAX = 1024,
    MISSED_TICKS = 5, /* without the history store, before that is worth a line */
    RUN_FIRST = 8,
};

static const int METHODS = EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT |
                           EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH |
                           EVHTTP_REQ_TRACE | EVHTTP_REQ_CONNECT;

static void set_tick(struct worker *worker, long ms)
{
    const struct timeval interval = {ms / 1000, ms % 1000 * 1000};
    (void)event_add(worker->tick_event, &interval);
}

static void start_draining(struct worker *worker)
{
    worker->draining = true;
    if (worker->listener != NULL) {
        evhttp_del_accept_socket(worker->http, worker->listener);
        worker->listener = NULL;
    }
    set_tick(worker, DRAIN_TICK_MS);
}

static void on_wake(evutil_socket_t fd, short what, void *context)
{
    struct worker *worker = context;
    uint64_t value = 0;
    (void)what;
    if (read(fd, &value, sizeof(value)) == (ssize_t)sizeof(value) &&
        atomic_load(&worker->stopping) && !worker->draining) {
        start_draining(worker);
    }
}

/* One line when the history store cannot be reached, one when it is back. */
static void watch_history(struct worker *worker)
{
    bool is_ready = history_ready(worker->history);
    worker->ticks_without_history = is_ready ? 0 : worker->ticks_without_history + 1;
    if (!is_ready && !worker->history_is_missed && worker->ticks_without_history >= MISSED_TICKS &&
        !worker->draining) {
        worker->history_is_missed = true;
        LOG_WARN("the history store cannot be reached", LOG_I("worker", worker->number),
                 LOG_S("history", history_kind(worker->history)));
    } else if (is_ready && worker->history_is_missed) {
        worker->history_is_missed = false;
        LOG_WARN("the history store is back", LOG_I("worker", worker->number),
                 LOG_S("history", history_kind(worker->history)));
    }
}

static void on_tick(evutil_socket_t fd, short what, void *context)
{
    struct worker *worker = context;
    (void)fd;
    (void)what;
    connections_sweep(worker);
    watch_history(worker);
    if (!worker->draining) {
        set_tick(worker, TICK_MS);
        return;
    }
    bool is_quiet = worker->n_active == 0 && worker->n_writing == 0;
    worker->quiet_ticks = is_quiet ? worker->quiet_ticks + 1 : 0;
    if (worker->quiet_ticks >= QUIET_TICKS ||
        clock_monotonic_us() > atomic_load(&worker->stop_deadline_us)) {
        (void)event_base_loopbreak(worker->base);
        return;
    }
    set_tick(worker, DRAIN_TICK_MS);
}

static void on_run(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    tasks_run(context);
}

static void on_close_doomed(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    connections_close_doomed(context);
}

static bool open_events(struct worker *worker)
{
    worker->run_event = event_new(worker->base, -1, 0, on_run, worker);
    worker->tick_event = event_new(worker->base, -1, 0, on_tick, worker);
    worker->close_event = event_new(worker->base, -1, 0, on_close_doomed, worker);
    worker->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (worker->wake_fd >= 0) {
        worker->wake_event =
            event_new(worker->base, worker->wake_fd, EV_READ | EV_PERSIST, on_wake, worker);
    }
    return worker->run_event != NULL && worker->tick_event != NULL && worker->close_event != NULL &&
           worker->wake_event != NULL && event_add(worker->wake_event, NULL) == 0;
}

static void set_up_http(struct worker *worker)
{
    const struct server_config *config = &worker->server->config;
    size_t body_max = config->body_max_bytes;
    if (body_max < BATCH_BODY_MAX_BYTES) {
        body_max = BATCH_BODY_MAX_BYTES;
    }
    evhttp_set_allowed_methods(worker->http, (ev_uint16_t)METHODS);
    evhttp_set_max_headers_size(worker->http, HEADERS_MAX_BYTES);
    evhttp_set_max_body_size(worker->http, (ev_ssize_t)body_max);
    evhttp_set_timeout(worker->http, (int)config->idle_timeout_s);
    evhttp_set_default_content_type(worker->http, NULL);
    evhttp_set_bevcb(worker->http, connection_new, worker);
    evhttp_set_gencb(worker->http, exchange_begin, worker);
}

static enum status open_loop(struct worker *worker, int socket, struct error *err)
{
    worker->base = event_base_new();
    worker->http = worker->base != NULL ? evhttp_new(worker->base) : NULL;
    if (worker->http == NULL || !open_events(worker)) {
        return error_set(err, STATUS_NOMEM, "making an event loop");
    }
    set_up_http(worker);
    set_tick(worker, TICK_MS);
    worker->listener = evhttp_accept_socket_with_handle(worker->http, socket);
    if (worker->listener == NULL) {
        return error_set(err, STATUS_NOMEM, "making a listener");
    }
    return STATUS_OK;
}

static enum status open_core(struct worker *worker, struct error *err)
{
    const struct server_config *config = &worker->server->config;
    uint64_t seed = (uint64_t)clock_monotonic_ns() ^ (uint64_t)clock_unix_ms() << 20 ^
                    (uint64_t)getpid() << 44 ^ (uint64_t)worker->number << 56;
    struct recommender_config recommender = {.engine = config->engine,
                                             .profiles = config->profiles,
                                             .batch_max = RECOMMEND_BATCH_MAX,
                                             .seed = seed};
    enum status status = recommender_open(&recommender, &worker->recommender, err);
    if (status == STATUS_OK) {
        status = catalog_reader_open(config->engine->catalog, &worker->reader, err);
    }
    if (status == STATUS_OK) {
        status = history_open(config->history, worker->base, &worker->history, err);
    }
    return status;
}

enum status worker_open(struct server *server, size_t number, int socket, struct worker **out,
                        struct error *err)
{
    *out = NULL;
    struct worker *worker = mem_calloc(1, sizeof(*worker));
    if (worker == NULL) {
        (void)close(socket);
        return error_set(err, STATUS_NOMEM, "memory of a worker");
    }
    worker->server = server;
    worker->number = number;
    worker->wake_fd = -1;
    worker->run_max = RUN_FIRST;
    buf_init(&worker->out, OUT_MAX_BYTES);
    buf_init(&worker->timing, TIMING_BYTES_MAX);
    enum status status = open_loop(worker, socket, err);
    if (worker->listener == NULL) {
        (void)close(socket); /* otherwise the listener's */
    }
    if (status == STATUS_OK) {
        status = open_core(worker, err);
    }
    if (status != STATUS_OK) {
        worker_close(worker);
        return status;
    }
    *out = worker;
    return STATUS_OK;
}

void *worker_main(void *context)
{
    struct worker *worker = context;
    vector_index_single_thread();
    if (event_base_loop(worker->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0) {
        LOG_ERROR("a worker's event loop failed", LOG_I("worker", worker->number));
    }
    return NULL;
}

static void free_event(struct event *event)
{
    if (event != NULL) {
        event_free(event);
    }
}

/* The history ends its calls first, whose answers still need the exchanges; evhttp drops the
 * connections then, which tells the exchanges that are left. */
void worker_close(struct worker *worker)
{
    if (worker == NULL) {
        return;
    }
    history_close(worker->history);
    tasks_cancel(worker);
    if (worker->http != NULL) {
        evhttp_free(worker->http);
    }
    connections_free(worker);
    exchanges_free(worker);
    tasks_free(worker);
    free_event(worker->run_event);
    free_event(worker->tick_event);
    free_event(worker->close_event);
    free_event(worker->wake_event);
    if (worker->base != NULL) {
        event_base_free(worker->base);
    }
    if (worker->wake_fd >= 0) {
        (void)close(worker->wake_fd);
    }
    catalog_reader_close(worker->reader);
    recommender_close(worker->recommender);
    buf_free(&worker->timing);
    buf_free(&worker->out);
    mem_free(worker);
}
