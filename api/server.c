#include "api/server.h"

#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "api/api_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

enum { WORKERS_MAX = 256 };

void server_config_default(struct server_config *config)
{
    *config = (struct server_config){
        .listen = "127.0.0.1:8080",
        .default_timeout_ms = TIMEOUT_MS_DEFAULT,
        .body_max_bytes = BODY_MAX_BYTES_DEFAULT,
        .connections_max = CONNECTIONS_MAX_DEFAULT,
        .idle_timeout_s = IDLE_TIMEOUT_S_DEFAULT,
    };
}

static enum status copy_config(struct server *server, const struct server_config *config,
                               struct error *err)
{
    server->config = *config;
    server->listen = mem_strdup(config->listen);
    server->token = config->token != NULL ? mem_strdup(config->token) : NULL;
    if (server->listen == NULL || (config->token != NULL && server->token == NULL)) {
        return error_set(err, STATUS_NOMEM, "memory of the server");
    }
    server->config.listen = server->listen;
    server->config.token = server->token;
    server->n_workers = config->n_workers != 0 ? config->n_workers : (size_t)get_nprocs();
    if (server->n_workers > WORKERS_MAX) {
        return error_set(err, STATUS_INVALID, "%zu workers, at most %d", server->n_workers,
                         WORKERS_MAX);
    }
    if (config->token != NULL && config->token[0] == '\0') {
        return error_set(err, STATUS_INVALID, "the token is empty");
    }
    const char *version = config->engine->manifest.version;
    server->release_hash = hash_bytes(version, strlen(version), 0);
    return STATUS_OK;
}

static enum status allocate(struct server *server, struct error *err)
{
    server->sockets = mem_alloc_array(server->n_workers, sizeof(*server->sockets));
    server->workers = mem_calloc(server->n_workers, sizeof(struct worker *));
    server->metrics = mem_calloc(server->n_workers, sizeof(const struct metrics *));
    for (size_t i = 0; server->sockets != NULL && i < server->n_workers; i++) {
        server->sockets[i] = -1;
    }
    if (server->sockets == NULL || server->workers == NULL || server->metrics == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of the server");
    }
    return paging_open(&server->paging, err);
}

static enum status bind_sockets(struct server *server, struct error *err)
{
    struct listen_address address;
    enum status status = listen_is_loopback(server->listen, &server->is_loopback, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (!server->is_loopback && server->token == NULL) {
        return error_set(err, STATUS_PERMISSION,
                         "%s is open to other machines: that needs a token (--token)",
                         server->listen);
    }
    status = listen_bind(server->listen, server->sockets, server->n_workers, &address, err);
    if (status == STATUS_OK) {
        (void)snprintf(server->url, sizeof(server->url), "%s", address.text);
    }
    return status;
}

static enum status start_workers(struct server *server, struct error *err)
{
    for (size_t i = 0; i < server->n_workers; i++) {
        int socket = server->sockets[i];
        server->sockets[i] = -1;
        enum status status = worker_open(server, i, socket, &server->workers[i], err);
        if (status != STATUS_OK) {
            return status;
        }
        server->metrics[i] = &server->workers[i]->metrics;
    }
    for (size_t i = 0; i < server->n_workers; i++) {
        struct worker *worker = server->workers[i];
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
            return error_set(err, STATUS_UNAVAILABLE, "starting a worker's thread");
        }
        server->n_started++;
    }
    return STATUS_OK;
}

enum status server_start(const struct server_config *config, struct server **out, struct error *err)
{
    *out = NULL;
    struct server *server = mem_calloc(1, sizeof(*server));
    if (server == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of the server");
    }
    decode_init();
    enum status status = copy_config(server, config, err);
    if (status == STATUS_OK) {
        status = allocate(server, err);
    }
    if (status == STATUS_OK) {
        status = bind_sockets(server, err);
    }
    if (status == STATUS_OK) {
        status = start_workers(server, err);
    }
    if (status != STATUS_OK) {
        server_stop(server, 0);
        return status;
    }
    LOG_INFO("listening", LOG_S("url", server->url), LOG_I("workers", server->n_workers),
             LOG_S("release", config->engine->manifest.version),
             LOG_S("history", history_kind(server->workers[0]->history)));
    *out = server;
    return STATUS_OK;
}

const char *server_url(const struct server *server)
{
    return server->url;
}

static void tell_to_stop(struct worker *worker, int64_t deadline_us)
{
    const uint64_t one = 1;
    atomic_store(&worker->stop_deadline_us, deadline_us);
    atomic_store(&worker->stopping, true);
    if (write(worker->wake_fd, &one, sizeof(one)) != (ssize_t)sizeof(one)) {
        LOG_ERROR("a worker cannot be told to stop", LOG_I("worker", worker->number));
    }
}

void server_stop(struct server *server, int64_t grace_ms)
{
    if (server == NULL) {
        return;
    }
    int64_t deadline_us = clock_monotonic_us() + grace_ms * 1000;
    for (size_t i = 0; i < server->n_started; i++) {
        tell_to_stop(server->workers[i], deadline_us);
    }
    for (size_t i = 0; i < server->n_started; i++) {
        (void)pthread_join(server->workers[i]->thread, NULL);
    }
    for (size_t i = 0; server->workers != NULL && i < server->n_workers; i++) {
        worker_close(server->workers[i]);
        if (server->sockets != NULL && server->sockets[i] >= 0) {
            (void)close(server->sockets[i]);
        }
    }
    paging_close(server->paging);
    mem_free(server->metrics);
    mem_free(server->workers);
    mem_free(server->sockets);
    mem_free(server->token);
    mem_free(server->listen);
    mem_free(server);
}
