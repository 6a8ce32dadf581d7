/* Counting and bounding open connections. evhttp of libevent 2.1 has no limit and tells nobody when
 * a connection ends before its first request, so each connection's bufferevent is made here and
 * held by one more reference; a sweep lets go of those that evhttp has dropped (giving back our
 * reference was then giving back the last one). The bufferevent closes its socket itself, so a
 * number of a socket cannot come back while one is still held; evhttp has shut such a socket down
 * already.
 *
 * Sweeps come with every tick and after as many new connections as there are old ones, so their
 * cost a connection is constant. What is over the limit is accepted and shut down at once: left in
 * the backlog, it would wait for an answer that does not come.
 *
 * evhttp answers some requests itself, in HTML: malformed lines and headers, headers or announced
 * bodies over the limit, unknown methods. Its pages are replaced by problem documents on their way
 * out: it puts head and page into the connection's buffer before any of it is sent. What remains
 * its own: answers to HEAD and to HTTP/0.9, and silence where it closes without one. */
#include "api/api_internal.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>

#include "api/encode.h"
#include "base/alloc.h"

enum { CONNECTIONS_FIRST = 256, PROBLEM_BYTES_MAX = 1024 };

static void count(struct worker *worker)
{
    metric_set(&worker->metrics.connections, worker->n_connections);
}

void connections_close_doomed(struct worker *worker)
{
    size_t first = worker->n_connections - worker->n_doomed;
    for (size_t i = first; i < worker->n_connections; i++) {
        evutil_socket_t socket = bufferevent_getfd(worker->connections[i]);
        if (socket >= 0) {
            (void)shutdown(socket, SHUT_RDWR); /* evhttp reads the end and lets go */
        }
    }
    worker->n_doomed = 0;
}

void connections_sweep(struct worker *worker)
{
    size_t kept = 0;
    connections_close_doomed(worker);
    for (size_t i = 0; i < worker->n_connections; i++) {
        struct bufferevent *connection = worker->connections[i];
        if (bufferevent_decref(connection) == 0) { /* not the last reference: evhttp has one */
            bufferevent_incref(connection);
            worker->connections[kept++] = connection;
        }
    }
    worker->n_connections = kept;
    worker->n_since_sweep = 0;
    count(worker);
}

static bool make_room(struct worker *worker)
{
    if (worker->n_connections < worker->connections_cap) {
        return true;
    }
    size_t cap = worker->connections_cap == 0 ? CONNECTIONS_FIRST : worker->connections_cap * 2;
    struct bufferevent **grown =
        mem_realloc_array(worker->connections, cap, sizeof(struct bufferevent *));
    if (grown == NULL) {
        return false;
    }
    worker->connections = grown;
    worker->connections_cap = cap;
    return true;
}

static const char *problem_detail(int http_status)
{
    switch (http_status) {
    case 413:
        return "the body or the headers are larger than this service takes";
    case 501:
        return "this method is not known here";
    default:
        return "this is not a well-formed HTTP request";
    }
}

/* The answer in the place of evhttp's, which has begun with "HTTP/1.x NNN". */
static void replace_page(struct evbuffer *output, const char *start)
{
    const char *digits = start + strlen("HTTP/1.1 ");
    int http_status = (digits[0] - '0') * 100 + (digits[1] - '0') * 10 + (digits[2] - '0');
    struct json_writer json;
    struct buf body;
    buf_init(&body, PROBLEM_BYTES_MAX);
    json_writer_init(&json, &body);
    encode_problem(&json, NULL, &(struct problem){http_status, problem_detail(http_status), NULL});
    if (body.status == STATUS_OK && evbuffer_unfreeze(output, 1) == 0) {
        (void)evbuffer_drain(output, evbuffer_get_length(output));
        (void)evbuffer_freeze(output, 1);
        (void)evbuffer_add_printf(output,
                                  "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\n"
                                  "Connection: close\r\nContent-Length: %zu\r\n\r\n%s",
                                  http_status, http_status_phrase(http_status), body.len,
                                  buf_text(&body));
    }
    buf_free(&body);
}

/* Called by libevent when the output buffer has changed. */
static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *context)
{
    static const char page[] = "<HTML><HEAD>";
    static const char head[] = "HTTP/1.";
    char start[sizeof("HTTP/1.1 400")];
    char added[sizeof(page) - 1];
    struct evbuffer_ptr at;
    (void)context;
    if (info->n_added < sizeof(added) || info->orig_size == 0 || info->n_deleted != 0 ||
        evbuffer_ptr_set(output, &at, info->orig_size, EVBUFFER_PTR_SET) != 0 ||
        evbuffer_copyout_from(output, &at, added, sizeof(added)) != (ev_ssize_t)sizeof(added) ||
        memcmp(added, page, sizeof(added)) != 0) {
        return;
    }
    if (evbuffer_copyout(output, start, sizeof(start) - 1) == (ev_ssize_t)sizeof(start) - 1 &&
        memcmp(start, head, sizeof(head) - 1) == 0) {
        replace_page(output, start);
    }
}

struct bufferevent *connection_new(struct event_base *base, void *context)
{
    struct worker *worker = context;
    if (worker->n_since_sweep > CONNECTIONS_FIRST &&
        worker->n_since_sweep > worker->n_connections / 2) {
        connections_sweep(worker);
    }
    if (worker->n_connections == worker->server->config.connections_max) {
        connections_sweep(worker);
    }
    struct bufferevent *connection = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    if (connection != NULL) {
        (void)evbuffer_add_cb(bufferevent_get_output(connection), on_output, NULL);
    }
    if (connection == NULL || !make_room(worker)) {
        return connection; /* uncounted; without memory evhttp refuses it itself */
    }
    bufferevent_incref(connection);
    worker->connections[worker->n_connections++] = connection;
    worker->n_since_sweep++;
    if (worker->n_connections > worker->server->config.connections_max) {
        worker->n_doomed++;
        metric_add(&worker->metrics.connections_refused, 1);
        event_active(worker->close_event, EV_TIMEOUT, 0);
    }
    count(worker);
    return connection;
}

void connections_free(struct worker *worker)
{
    for (size_t i = 0; i < worker->n_connections; i++) {
        (void)bufferevent_decref(worker->connections[i]);
    }
    mem_free(worker->connections);
}
