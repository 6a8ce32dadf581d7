#include "history_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"

enum { GUARD_S = 20 };

char fixture_folder[PATH_TEXT];
struct server fixture_server;

bool fixture_setup(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(fixture_folder, sizeof(fixture_folder), "%.300s/aisle-history-XXXXXX",
             parent != NULL ? parent : "/tmp");
    (void)signal(SIGPIPE, SIG_IGN);
    return mkdtemp(fixture_folder) != NULL;
}

int fixture_teardown(int result)
{
    fixture_server_stop(&fixture_server);
    return dir_remove(fixture_folder, NULL) == STATUS_OK ? result : 1;
}

/* --- a private server --- */

/* Until it says that it is ready. */
static bool wait_ready(int fd)
{
    char text[8192];
    size_t n = 0;
    while (n + 1 < sizeof(text)) {
        ssize_t got = read(fd, text + n, sizeof(text) - 1 - n);
        if (got <= 0)
            return false;
        n += (size_t)got;
        text[n] = '\0';
        if (strstr(text, "eady to accept connections") != NULL)
            return true;
    }
    return false;
}

bool fixture_server_start(struct server *server, const char *password)
{
    char port[16];
    int fds[2];
    snprintf(server->socket, sizeof(server->socket), "%.400s/redis.sock", fixture_folder);
    snprintf(port, sizeof(port), "%d", server->port);
    if (pipe(fds) != 0)
        return false;
    server->pid = fork();
    if (server->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failing test leaves no server behind */
        dup2(fds[1], 1);
        close(fds[0]);
        close(fds[1]);
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1",
               "--unixsocket", server->socket, "--save", "", "--dir", fixture_folder,
               "--requirepass", password != NULL ? password : "", (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    bool ready = wait_ready(fds[0]);
    close(fds[0]);
    if (!ready) {
        waitpid(server->pid, NULL, 0);
        server->pid = 0;
    }
    return ready;
}

void fixture_server_stop(struct server *server)
{
    if (server->pid <= 0)
        return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
    unlink(server->socket);
}

int fixture_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* One command on the shared server; an integer reply, or the number of elements. */
long long fixture_redis_do(const char *format, ...)
{
    redisContext *context = redisConnectUnix(fixture_server.socket);
    assert_non_null(context);
    assert_int_equal(context->err, 0);
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = redisvCommand(context, format, arguments);
    va_end(arguments);
    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_ERROR)
        fail_msg("%s", reply->str);
    long long n = reply->type == REDIS_REPLY_INTEGER ? reply->integer : (long long)reply->elements;
    freeReplyObject(reply);
    redisFree(context);
    return n;
}

/* --- a worker --- */

static void on_guard(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
    fail_msg("the loop waited for more than %d s", GUARD_S);
}

void fixture_worker_open(struct worker *worker, struct history_store *store)
{
    struct timeval tv = {.tv_sec = GUARD_S};
    worker->base = event_base_new();
    worker->guard = evtimer_new(worker->base, on_guard, worker);
    assert_int_equal(event_add(worker->guard, &tv), 0);
    worker->store = store;
    worker->owns_store = false;
    assert_int_equal(history_open(store, worker->base, &worker->history, NULL), STATUS_OK);
}

void fixture_worker_open_config(struct worker *worker, const struct history_config *config)
{
    struct history_store *store = NULL;
    struct error error = {.code = STATUS_OK};
    if (history_store_open(config, &store, &error) != STATUS_OK)
        fail_msg("%s", error.message);
    fixture_worker_open(worker, store);
    worker->owns_store = true;
}

void fixture_worker_close_loop(struct worker *worker)
{
    event_free(worker->guard);
    event_base_free(worker->base);
    if (worker->owns_store)
        history_store_close(worker->store);
}

void fixture_worker_close(struct worker *worker)
{
    history_close(worker->history);
    fixture_worker_close_loop(worker);
}

void fixture_wait_calls(struct worker *worker, const struct seen *seen, unsigned n)
{
    while (seen->n_calls < n)
        assert_int_equal(event_base_loop(worker->base, EVLOOP_ONCE), 0);
}

static void copy_message(struct seen *seen, const char *message)
{
    snprintf(seen->message, sizeof(seen->message), "%s", message != NULL ? message : "");
}

void fixture_on_fetch(void *context, const struct history_result *result)
{
    struct seen *seen = context;
    seen->n_calls++;
    seen->at_us = clock_monotonic_us();
    seen->status = result->status;
    seen->n_items = result->n_items;
    seen->n_garbage = result->n_garbage;
    for (size_t i = 0; i < result->n_items && i < SEEN_MAX; i++) {
        const struct history_item *item = &result->items[i];
        snprintf(seen->ids[i], sizeof(seen->ids[i]), "%.*s", (int)item->item_id_len, item->item_id);
        seen->types[i] = item->type;
        seen->times[i] = item->time_ms;
    }
}

void fixture_on_append(void *context, const struct history_append_result *result)
{
    struct seen *seen = context;
    seen->n_calls++;
    seen->status = result->status;
    seen->n_accepted = result->n_accepted;
    seen->n_duplicates = result->n_duplicates;
    copy_message(seen, result->message);
}

void fixture_on_erase(void *context, const struct history_erase_result *result)
{
    struct seen *seen = context;
    seen->n_calls++;
    seen->status = result->status;
    seen->n_removed = result->n_removed;
    copy_message(seen, result->message);
}

int64_t fixture_in_ms(int64_t ms)
{
    return clock_monotonic_us() + ms * 1000;
}

struct seen fixture_fetch(struct worker *worker, const char *user, size_t n_max)
{
    struct seen seen = {.n_calls = 0};
    assert_int_equal(history_fetch(worker->history,
                                   &(struct history_query){user, n_max, fixture_in_ms(10000)},
                                   fixture_on_fetch, &seen, NULL),
                     STATUS_OK);
    fixture_wait_calls(worker, &seen, 1);
    return seen;
}

struct seen fixture_append(struct worker *worker, const struct history_event_in *events, size_t n)
{
    struct seen seen = {.n_calls = 0};
    assert_int_equal(history_append(worker->history, events, n, fixture_on_append, &seen, NULL),
                     STATUS_OK);
    fixture_wait_calls(worker, &seen, 1);
    return seen;
}

struct seen fixture_erase(struct worker *worker, const char *user)
{
    struct seen seen = {.n_calls = 0};
    assert_int_equal(history_erase(worker->history, user, fixture_on_erase, &seen, NULL),
                     STATUS_OK);
    fixture_wait_calls(worker, &seen, 1);
    return seen;
}

struct history_event_in fixture_event_of(const char *user, const char *item, int64_t time_ms)
{
    return (struct history_event_in){.user_id = user,
                                     .item_id = item,
                                     .type = EVENT_VIEW,
                                     .time_ms = time_ms,
                                     .value = (double)NAN};
}

struct history_config fixture_config_of(const char *address)
{
    struct history_config config;
    history_config_default(&config);
    config.address = address;
    config.command_timeout_ms = 10000;
    config.connect_timeout_ms = 5000;
    return config;
}

void fixture_sqlite_address(char out[PATH_TEXT], const char *name)
{
    snprintf(out, PATH_TEXT, "sqlite:%.400s/%s", fixture_folder, name);
}

void fixture_redis_address(char out[PATH_TEXT])
{
    snprintf(out, PATH_TEXT, "redis+unix://%.400s", fixture_server.socket);
}

/* A worker on an empty store of the kind in *state ("redis" or "sqlite"). */
void fixture_worker_of(struct worker *worker, void **state, const char *name)
{
    char address[PATH_TEXT];
    if (strcmp(*state, "redis") == 0) {
        fixture_redis_do("FLUSHALL");
        fixture_redis_address(address);
    } else {
        fixture_sqlite_address(address, name);
    }
    struct history_config config = fixture_config_of(address);
    config.history_max = 5;
    fixture_worker_open_config(worker, &config);
    assert_string_equal(history_kind(worker->history), *state);
}
