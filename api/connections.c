/* Counting and bounding open connections. evhttp of libevent 2.1 has no limit and tells nobody when
 * a connection ends before its first request, so each connection's bufferevent is made here and
 * held by one more reference; a sweep lets go of those that evhttp has dropped (giving back our
 * reference was then giving back the last one). The bufferevent closes its socket itself, so a
 * number of a socket cannot come back while one is still held; evhttp has shut such a socket down
 * already.
 *
 * Sweeps come with every tick and after as many new connections as there are old ones, so their
 * cost a connection is constant. What is over the limit is accepted and shut down at once: left in
 * the backlog, it would wait for an answer that does not come. */
#include "api/api_internal.h"

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <sys/socket.h>

#include "base/alloc.h"

enum { CONNECTIONS_FIRST = 256 };

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
