#ifndef AISLE_API_SERVER_H
#define AISLE_API_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "core/engine.h"
#include "core/profile.h"
#include "store/history.h"

/* The HTTP service: N workers, each with its own event loop, its own listening socket on the same
 * port (SO_REUSEPORT), its own history connection, recommender and counters; a request never
 * changes thread. What arrives together is scored together: requests whose history is there are
 * collected while the loop turns and go through one recommend_run. */
struct server_config {
    const char *listen; /* "127.0.0.1:8080", "[::1]:0", port 0: any free one */
    size_t n_workers;   /* 0: one per core */
    const char *token;  /* bearer token of what writes or administers; NULL: none */
    int64_t default_timeout_ms;
    size_t body_max_bytes;
    size_t connections_max; /* open connections a worker */
    int64_t idle_timeout_s;
    bool demo;                          /* GET / answers with the demonstration page */
    const struct engine *engine;        /* borrowed */
    const struct profile_set *profiles; /* borrowed */
    struct history_store *history;      /* borrowed */
};
enum {
    BODY_MAX_BYTES_DEFAULT = 1 << 20,
    HEADERS_MAX_BYTES = 16 << 10,
    JSON_DEPTH_MAX = 24, /* a filter's 16 levels inside a request */
    CONNECTIONS_MAX_DEFAULT = 10000,
    IDLE_TIMEOUT_S_DEFAULT = 60,
};
void server_config_default(struct server_config *config);

struct server;
/* Binds all sockets and starts the workers; refuses a non-loopback address without a token
 * (PERMISSION). */
enum status server_start(const struct server_config *config, struct server **out,
                         struct error *err) STATUS_CHECKED;
/* "http://127.0.0.1:8080", with the real port; borrowed. */
const char *server_url(const struct server *server);
/* Stops accepting, finishes what is under way (at most grace_ms), joins the workers, frees. */
void server_stop(struct server *server, int64_t grace_ms);

#endif
