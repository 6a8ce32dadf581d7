#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "store/history.h"
#include "store/history_internal.h"

/* Both implementations through the same tests, then what is each one's own. Redis tests start a
 * private redis-server in a temporary folder; without one they are left out, and the program says
 * so with exit code 77. */

enum { PATH_TEXT = 512, SEEN_MAX = 64, GUARD_S = 20 };

static char folder[PATH_TEXT];

/* --- a private server --- */

struct server {
    pid_t pid;
    int port; /* 0: Unix socket only */
    char socket[PATH_TEXT];
};

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

static bool server_start(struct server *server, const char *password)
{
    char port[16];
    int fds[2];
    snprintf(server->socket, sizeof(server->socket), "%.400s/redis.sock", folder);
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
               "--unixsocket", server->socket, "--save", "", "--dir", folder, "--requirepass",
               password != NULL ? password : "", (char *)NULL);
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

static void server_stop(struct server *server)
{
    if (server->pid <= 0)
        return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
    unlink(server->socket);
}

static int free_port(void)
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

static struct server shared;

/* One command on the shared server; an integer reply, or the number of elements. */
static long long redis_do(const char *format, ...)
{
    redisContext *context = redisConnectUnix(shared.socket);
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

struct seen {
    unsigned n_calls;
    enum status status;
    size_t n_items;
    size_t n_garbage;
    size_t n_accepted;
    size_t n_duplicates;
    uint64_t n_removed;
    int64_t at_us;
    char message[ERROR_MESSAGE_BYTES];
    char ids[SEEN_MAX][32];
    enum event_type types[SEEN_MAX];
    int64_t times[SEEN_MAX];
};

struct worker {
    struct event_base *base;
    struct event *guard;
    struct history_store *store;
    struct history *history;
    bool owns_store;
};

static void on_guard(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
    fail_msg("the loop waited for more than %d s", GUARD_S);
}

static void worker_open(struct worker *worker, struct history_store *store)
{
    struct timeval tv = {.tv_sec = GUARD_S};
    worker->base = event_base_new();
    worker->guard = evtimer_new(worker->base, on_guard, worker);
    assert_int_equal(event_add(worker->guard, &tv), 0);
    worker->store = store;
    worker->owns_store = false;
    assert_int_equal(history_open(store, worker->base, &worker->history, NULL), STATUS_OK);
}

static void worker_open_config(struct worker *worker, const struct history_config *config)
{
    struct history_store *store = NULL;
    struct error error = {.code = STATUS_OK};
    if (history_store_open(config, &store, &error) != STATUS_OK)
        fail_msg("%s", error.message);
    worker_open(worker, store);
    worker->owns_store = true;
}

static void worker_close_loop(struct worker *worker)
{
    event_free(worker->guard);
    event_base_free(worker->base);
    if (worker->owns_store)
        history_store_close(worker->store);
}

static void worker_close(struct worker *worker)
{
    history_close(worker->history);
    worker_close_loop(worker);
}

static void wait_calls(struct worker *worker, const struct seen *seen, unsigned n)
{
    while (seen->n_calls < n)
        assert_int_equal(event_base_loop(worker->base, EVLOOP_ONCE), 0);
}

static void copy_message(struct seen *seen, const char *message)
{
    snprintf(seen->message, sizeof(seen->message), "%s", message != NULL ? message : "");
}

static void on_fetch(void *context, const struct history_result *result)
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

static void on_append(void *context, const struct history_append_result *result)
{
    struct seen *seen = context;
    seen->n_calls++;
    seen->status = result->status;
    seen->n_accepted = result->n_accepted;
    seen->n_duplicates = result->n_duplicates;
    copy_message(seen, result->message);
}

static void on_erase(void *context, const struct history_erase_result *result)
{
    struct seen *seen = context;
    seen->n_calls++;
    seen->status = result->status;
    seen->n_removed = result->n_removed;
    copy_message(seen, result->message);
}

static int64_t in_ms(int64_t ms)
{
    return clock_monotonic_us() + ms * 1000;
}

static struct seen fetch(struct worker *worker, const char *user, size_t n_max)
{
    struct seen seen = {.n_calls = 0};
    assert_int_equal(
        history_fetch(worker->history, user, n_max, in_ms(10000), on_fetch, &seen, NULL),
        STATUS_OK);
    wait_calls(worker, &seen, 1);
    return seen;
}

static struct seen append(struct worker *worker, const struct history_event_in *events, size_t n)
{
    struct seen seen = {.n_calls = 0};
    assert_int_equal(history_append(worker->history, events, n, on_append, &seen, NULL), STATUS_OK);
    wait_calls(worker, &seen, 1);
    return seen;
}

static struct seen erase(struct worker *worker, const char *user)
{
    struct seen seen = {.n_calls = 0};
    assert_int_equal(history_erase(worker->history, user, on_erase, &seen, NULL), STATUS_OK);
    wait_calls(worker, &seen, 1);
    return seen;
}

static struct history_event_in event_of(const char *user, const char *item, int64_t time_ms)
{
    return (struct history_event_in){.user_id = user,
                                     .item_id = item,
                                     .type = EVENT_VIEW,
                                     .time_ms = time_ms,
                                     .value = (double)NAN};
}

static struct history_config config_of(const char *address)
{
    struct history_config config;
    history_config_default(&config);
    config.address = address;
    config.command_timeout_ms = 10000;
    config.connect_timeout_ms = 5000;
    return config;
}

static void sqlite_address(char out[PATH_TEXT], const char *name)
{
    snprintf(out, PATH_TEXT, "sqlite:%.400s/%s", folder, name);
}

static void redis_address(char out[PATH_TEXT])
{
    snprintf(out, PATH_TEXT, "redis+unix://%.400s", shared.socket);
}

/* A worker on an empty store of the kind in *state ("redis" or "sqlite"). */
static void worker_of(struct worker *worker, void **state, const char *name)
{
    char address[PATH_TEXT];
    if (strcmp(*state, "redis") == 0) {
        redis_do("FLUSHALL");
        redis_address(address);
    } else {
        sqlite_address(address, name);
    }
    struct history_config config = config_of(address);
    config.history_max = 5;
    worker_open_config(worker, &config);
    assert_string_equal(history_kind(worker->history), *state);
}

/* --- elements --- */

static void history_parse_element_timed_gives_parts(void **state)
{
    (void)state;
    struct history_item item;
    static const char TEXT[] = "1700000000123 cart lamp 7 gr\xc3\xbcn";
    assert_true(history_parse_element(TEXT, strlen(TEXT), &item));
    assert_int_equal(item.time_ms, 1700000000123);
    assert_int_equal(item.type, EVENT_CART);
    assert_int_equal(item.item_id_len, strlen("lamp 7 gr\xc3\xbcn"));
    assert_memory_equal(item.item_id, "lamp 7 gr\xc3\xbcn", item.item_id_len);
}

static void history_parse_element_other_is_bare_id(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {"lamp",        "123 foo bar", "123 view", "-5 view lamp",
                                        "x view lamp", "123  lamp",   " ",        "1 view "};
    for (size_t i = 0; i < sizeof(TEXTS) / sizeof(TEXTS[0]); i++) {
        struct history_item item;
        assert_true(history_parse_element(TEXTS[i], strlen(TEXTS[i]), &item));
        assert_int_equal(item.time_ms, EVENT_TIME_UNKNOWN);
        assert_int_equal(item.type, EVENT_VIEW);
        assert_ptr_equal(item.item_id, TEXTS[i]);
        assert_int_equal(item.item_id_len, strlen(TEXTS[i]));
    }
}

static void history_parse_element_garbage_is_refused(void **state)
{
    (void)state;
    char text[HISTORY_ELEMENT_MAX_BYTES + 2];
    struct history_item item = {.time_ms = 77};
    memset(text, 'a', sizeof(text));
    assert_false(history_parse_element("", 0, &item));
    assert_false(history_parse_element("a\xff", 2, &item));
    assert_false(history_parse_element("a\nb", 3, &item));
    assert_false(history_parse_element("a\0b", 3, &item));
    assert_false(history_parse_element(text, 129, &item));
    assert_false(history_parse_element(text, HISTORY_ELEMENT_MAX_BYTES + 1, &item));
    assert_int_equal(item.time_ms, 77);
    assert_true(history_parse_element(text, 128, &item));
    memcpy(text, "1 view ", 7);
    assert_true(history_parse_element(text, 7 + 128, &item));
    assert_int_equal(item.item_id_len, 128);
    assert_false(history_parse_element(text, 7 + 129, &item));
}

/* --- both --- */

static void history_append_then_fetch_gives_newest_first(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "roundtrip.db");
    struct history_event_in events[3] = {event_of("anna", "lamp", 1000),
                                         event_of("anna", "sofa 2", 3000),
                                         event_of("bert", "chair", 1500)};
    events[1].type = EVENT_PURCHASE;
    events[1].value = 99.5;
    events[1].event_id = "e1";
    events[1].request_id = "r1";
    events[1].session_id = "s1";
    struct seen seen = append(&worker, events, 3);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_accepted, 3);
    assert_int_equal(seen.n_duplicates, 0);
    events[0] = event_of("anna", "late", 2000);
    assert_int_equal(append(&worker, events, 1).status, STATUS_OK);
    seen = fetch(&worker, "anna", 10);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_items, 3);
    assert_string_equal(seen.ids[0], "late"); /* order of arrival */
    assert_string_equal(seen.ids[1], "sofa 2");
    assert_int_equal(seen.types[1], EVENT_PURCHASE);
    assert_int_equal(seen.times[1], 3000);
    assert_string_equal(seen.ids[2], "lamp");
    assert_int_equal(fetch(&worker, "bert", 10).n_items, 1);
    assert_int_equal(fetch(&worker, "nobody", 10).n_items, 0);
    assert_true(history_ready(worker.history));
    worker_close(&worker);
}

static void history_fetch_n_max_limits(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "limits.db");
    for (int i = 0; i < 8; i++) {
        char item[16];
        snprintf(item, sizeof(item), "i%d", i);
        struct history_event_in event = event_of("{u} \xc3\xbc", item, i);
        assert_int_equal(append(&worker, &event, 1).status, STATUS_OK);
    }
    struct seen seen = fetch(&worker, "{u} \xc3\xbc", 2);
    assert_int_equal(seen.n_items, 2);
    assert_string_equal(seen.ids[0], "i7");
    assert_string_equal(seen.ids[1], "i6");
    seen = fetch(&worker, "{u} \xc3\xbc", HISTORY_MAX_MAX);
    assert_int_equal(seen.n_items, 5); /* history_max */
    worker_close(&worker);
}

static void history_append_repeated_event_id_counts_once(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "dedup.db");
    struct history_event_in events[3] = {event_of("anna", "lamp", 1), event_of("anna", "sofa", 2),
                                         event_of("bert", "lamp", 3)};
    events[0].event_id = events[1].event_id = events[2].event_id = "same";
    struct seen seen = append(&worker, events, 3);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_accepted, 3);
    assert_int_equal(seen.n_duplicates, 1);
    seen = append(&worker, events, 1);
    assert_int_equal(seen.n_duplicates, 1);
    seen = fetch(&worker, "anna", 10);
    assert_int_equal(seen.n_items, 1);
    assert_string_equal(seen.ids[0], "lamp");
    worker_close(&worker);
}

static void history_calls_invalid_arguments_are_refused(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "invalid.db");
    struct seen seen = {.n_calls = 0};
    struct error error;
    struct history_event_in events[2] = {event_of("anna", "lamp", 1), event_of("anna", "", 2)};
    struct history *history = worker.history;
    assert_int_equal(history_append(history, events, 2, on_append, &seen, &error), STATUS_INVALID);
    assert_string_equal(error.field, "item_id");
    assert_int_equal(history_append(history, events, 0, on_append, &seen, NULL), STATUS_INVALID);
    assert_int_equal(
        history_append(history, events, HISTORY_APPEND_MAX + 1, on_append, &seen, NULL),
        STATUS_INVALID);
    events[0].time_ms = -1;
    assert_int_equal(history_append(history, events, 1, on_append, &seen, NULL), STATUS_INVALID);
    events[0].time_ms = 1;
    events[0].value = (double)INFINITY;
    assert_int_equal(history_append(history, events, 1, on_append, &seen, NULL), STATUS_INVALID);
    assert_int_equal(history_fetch(history, "", 5, in_ms(1000), on_fetch, &seen, NULL),
                     STATUS_INVALID);
    assert_int_equal(history_fetch(history, "anna", 0, in_ms(1000), on_fetch, &seen, NULL),
                     STATUS_INVALID);
    assert_int_equal(history_erase(history, "a\n", on_erase, &seen, NULL), STATUS_INVALID);
    assert_int_equal(fetch(&worker, "anna", 5).n_items, 0);
    assert_int_equal(seen.n_calls, 0);
    worker_close(&worker);
}

static void history_append_ten_thousand_all_are_stored(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "many.db");
    struct history_event_in *events = mem_calloc(HISTORY_APPEND_MAX, sizeof(*events));
    char(*ids)[16] = mem_calloc(HISTORY_APPEND_MAX, sizeof(*ids));
    for (int i = 0; i < HISTORY_APPEND_MAX; i++) {
        snprintf(ids[i], sizeof(ids[i]), "e%d", i);
        events[i] = event_of(i % 2 == 0 ? "even" : "odd", ids[i], i);
        events[i].event_id = ids[i];
    }
    struct seen seen = append(&worker, events, HISTORY_APPEND_MAX);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_accepted, HISTORY_APPEND_MAX);
    seen = fetch(&worker, "odd", 1);
    assert_string_equal(seen.ids[0], "e9999");
    mem_free(ids);
    mem_free(events);
    worker_close(&worker);
}

static void history_erase_removes_all_of_one_user(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "erase.db");
    enum { N = 1200 }; /* more than two pieces of the scan */
    struct history_event_in events[N];
    for (int i = 0; i < N; i++) {
        events[i] = event_of(i % 3 == 0 ? "anna" : "bert", "lamp", i);
        events[i].event_id = i == 0 ? "e" : NULL;
    }
    assert_int_equal(append(&worker, events, N).status, STATUS_OK);
    struct seen seen = erase(&worker, "anna");
    assert_int_equal(seen.status, STATUS_OK);
    bool is_redis = strcmp(*state, "redis") == 0;
    assert_int_equal(seen.n_removed, is_redis ? N / 3 + 2 : N / 3);
    assert_int_equal(fetch(&worker, "anna", 5).n_items, 0);
    assert_int_equal(fetch(&worker, "bert", 5).n_items, 5);
    if (is_redis)
        assert_int_equal(redis_do("XLEN aisle:events"), N - N / 3);
    assert_int_equal(erase(&worker, "anna").n_removed, 0);
    assert_int_equal(append(&worker, events, 1).n_duplicates, 0); /* its id is forgotten too */
    worker_close(&worker);
}

static void history_close_in_flight_calls_end_once(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "close.db");
    struct seen appended = {.n_calls = 0};
    struct seen erased = {.n_calls = 0};
    struct history_event_in event = event_of("anna", "lamp", 1);
    for (int i = 0; i < 10; i++)
        assert_int_equal(history_append(worker.history, &event, 1, on_append, &appended, NULL),
                         STATUS_OK);
    assert_int_equal(history_erase(worker.history, "bert", on_erase, &erased, NULL), STATUS_OK);
    history_close(worker.history);
    assert_int_equal(appended.n_calls, 10);
    assert_int_equal(erased.n_calls, 1);
    worker_close_loop(&worker);
    assert_int_equal(appended.n_calls, 10);
}

static void history_open_out_of_memory_leaves_nothing(void **state)
{
    char address[PATH_TEXT];
    if (strcmp(*state, "redis") == 0)
        redis_address(address);
    else
        sqlite_address(address, "oom.db");
    struct history_config config = config_of(address);
    config.password = NULL;
    struct event_base *base = event_base_new();
    bool done = false;
    for (int nth = 1; !done && nth < 100; nth++) {
        struct history_store *store = NULL;
        struct history *history = NULL;
        mem_fail_nth(nth);
        enum status status = history_store_open(&config, &store, NULL);
        if (status == STATUS_OK)
            status = history_open(store, base, &history, NULL);
        mem_fail_nth(0);
        done = status == STATUS_OK;
        if (!done) {
            assert_int_equal(status, STATUS_NOMEM);
            assert_null(history);
        }
        history_close(history);
        history_store_close(store);
    }
    assert_true(done);
    event_base_free(base);
}

static void history_calls_out_of_memory_change_nothing(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "oomcalls.db");
    struct history_event_in event = event_of("anna", "lamp", 1);
    struct seen seen = {.n_calls = 0};
    unsigned n_good = 0;
    (void)fetch(&worker, "bert", 1); /* connected */
    for (int nth = 1; nth < 20; nth++) {
        mem_fail_nth(nth);
        enum status status = history_append(worker.history, &event, 1, on_append, &seen, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        n_good += status == STATUS_OK ? 1 : 0;
        wait_calls(&worker, &seen, n_good);
        if (status == STATUS_OK)
            break;
    }
    assert_int_equal(n_good, 1);
    assert_int_equal(fetch(&worker, "anna", 5).n_items, 1);
    for (int nth = 1; nth < 20 && n_good < 2; nth++) {
        mem_fail_nth(nth);
        enum status status =
            history_fetch(worker.history, "anna", 200, in_ms(5000), on_fetch, &seen, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        n_good += status == STATUS_OK ? 1 : 0;
        wait_calls(&worker, &seen, n_good);
    }
    assert_int_equal(seen.n_calls, 2);
    for (int nth = 1; nth < 20 && n_good < 3; nth++) {
        mem_fail_nth(nth);
        enum status status = history_erase(worker.history, "anna", on_erase, &seen, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        n_good += status == STATUS_OK ? 1 : 0;
        wait_calls(&worker, &seen, n_good);
    }
    assert_int_equal(seen.n_calls, 3);
    worker_close(&worker);
}

enum { THREAD_EVENTS = 200 };

static void *thread_main(void *argument)
{
    struct worker worker;
    struct seen seen = {.n_calls = 0};
    worker_open(&worker, argument);
    for (unsigned i = 0; i < THREAD_EVENTS; i++) {
        struct history_event_in event = event_of("shared", "lamp", i);
        if (history_append(worker.history, &event, 1, on_append, &seen, NULL) != STATUS_OK)
            break;
        if (i % 8 == 7)
            wait_calls(&worker, &seen, i + 1);
    }
    wait_calls(&worker, &seen, THREAD_EVENTS);
    worker_close(&worker);
    return seen.n_calls == THREAD_EVENTS && seen.status == STATUS_OK ? argument : NULL;
}

static void history_two_workers_share_a_store(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "threads.db");
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, worker.store), 0);
    for (int i = 0; i < 2; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        assert_non_null(result);
    }
    struct seen seen = erase(&worker, "shared");
    bool is_redis = strcmp(*state, "redis") == 0;
    assert_int_equal(seen.n_removed, 2 * THREAD_EVENTS + (is_redis ? 1 : 0));
    worker_close(&worker);
}

/* --- Redis --- */

static void history_fetch_foreign_elements_are_bare_or_garbage(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "");
    char large[HISTORY_ELEMENT_MAX_BYTES + 1];
    memset(large, 'x', sizeof(large));
    redis_do("RPUSH %s %b %s %b %s", "aisle:{anna}:history", "bad\xff", (size_t)4, "lamp", large,
             sizeof(large), "5 click sofa");
    struct seen seen = fetch(&worker, "anna", 10);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_items, 2);
    assert_int_equal(seen.n_garbage, 2);
    assert_string_equal(seen.ids[0], "lamp");
    assert_int_equal(seen.times[0], EVENT_TIME_UNKNOWN);
    assert_string_equal(seen.ids[1], "sofa");
    assert_int_equal(seen.types[1], EVENT_CLICK);
    worker_close(&worker);
}

static void history_calls_wrong_type_of_key_write_nothing(void **state)
{
    static const char *const KEYS[] = {"aisle:{anna}:history", "aisle:{anna}:events"};
    for (size_t i = 0; i < 2; i++) {
        struct worker worker;
        worker_of(&worker, state, "");
        struct history_event_in event = event_of("bert", "lamp", 1);
        assert_int_equal(append(&worker, &event, 1).status, STATUS_OK);
        redis_do("SET %s x", KEYS[i]);
        event.user_id = "anna";
        event.event_id = "e1";
        struct seen seen = append(&worker, &event, 1);
        assert_int_equal(seen.status, STATUS_MISMATCH);
        assert_int_equal(seen.n_accepted, 0);
        assert_non_null(strstr(seen.message, "WRONGTYPE"));
        assert_int_equal(redis_do("XLEN aisle:events"), 1);
        assert_int_equal(redis_do("DBSIZE"), 3);
        seen = fetch(&worker, "anna", 5);
        assert_int_equal(seen.status, i == 0 ? STATUS_MISMATCH : STATUS_OK);
        assert_int_equal(seen.n_items, 0);
        worker_close(&worker);
    }
}

static void history_append_wrong_type_of_stream_writes_nothing(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "");
    redis_do("SET aisle:events x");
    struct history_event_in event = event_of("anna", "lamp", 1);
    assert_int_equal(append(&worker, &event, 1).status, STATUS_MISMATCH);
    assert_int_equal(redis_do("DBSIZE"), 1);
    assert_int_equal(erase(&worker, "anna").status, STATUS_MISMATCH);
    worker_close(&worker);
}

static void history_append_full_server_writes_nothing(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "");
    struct history_event_in event = event_of("anna", "lamp", 1);
    event.event_id = "e1";
    (void)fetch(&worker, "anna", 1);
    redis_do("CONFIG SET maxmemory 1");
    struct seen seen = append(&worker, &event, 1);
    redis_do("CONFIG SET maxmemory 0");
    assert_int_equal(seen.status, STATUS_UNAVAILABLE);
    assert_int_equal(redis_do("DBSIZE"), 0);
    assert_int_equal(append(&worker, &event, 1).n_duplicates, 0);
    worker_close(&worker);
}

static void history_append_keys_have_limits_and_ttl(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "");
    struct history_event_in events[20];
    char ids[20][16];
    for (int i = 0; i < 20; i++) {
        snprintf(ids[i], sizeof(ids[i]), "e%d", i);
        events[i] = event_of("anna", "lamp", i);
        events[i].event_id = ids[i];
    }
    assert_int_equal(append(&worker, events, 20).status, STATUS_OK);
    assert_int_equal(redis_do("LLEN %s", "aisle:{anna}:history"), 5);
    assert_int_equal(redis_do("ZCARD %s", "aisle:{anna}:events"), 20);
    assert_int_equal(redis_do("XLEN aisle:events"), 20);
    assert_true(redis_do("TTL %s", "aisle:{anna}:history") > 0);
    assert_true(redis_do("TTL %s", "aisle:{anna}:events") > 0);
    assert_int_equal(redis_do("TTL aisle:events"), -1);
    worker_close(&worker);
}

static void history_append_forgotten_script_is_sent_again(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "");
    struct history_event_in events[2] = {event_of("anna", "lamp", 1), event_of("anna", "sofa", 2)};
    assert_int_equal(append(&worker, events, 2).status, STATUS_OK);
    redis_do("SCRIPT FLUSH");
    struct seen seen = append(&worker, events, 2);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_accepted, 2);
    seen = fetch(&worker, "anna", 5);
    assert_int_equal(seen.n_items, 4);
    assert_string_equal(seen.ids[0], "sofa");
    worker_close(&worker);
}

static void history_store_open_config_keys_and_database_are_used(void **state)
{
    (void)state;
    char address[PATH_TEXT + 8];
    redis_do("FLUSHALL");
    snprintf(address, sizeof(address), "redis+unix://%.400s?db=3", shared.socket);
    struct history_config config = config_of(address);
    config.key_pattern = "shop:%u:seen";
    config.key_prefix = "shop:";
    config.ttl_s = 0;
    struct worker worker;
    worker_open_config(&worker, &config);
    struct history_event_in event = event_of("anna", "lamp", 1);
    event.event_id = "e";
    assert_int_equal(append(&worker, &event, 1).status, STATUS_OK);
    assert_int_equal(redis_do("DBSIZE"), 0);
    redis_do("SWAPDB 0 3");
    assert_int_equal(redis_do("TTL shop:anna:seen"), -1);
    assert_int_equal(redis_do("XLEN shop:events"), 1);
    assert_int_equal(redis_do("ZCARD %s", "shop:{anna}:events"), 1);
    worker_close(&worker);
}

static void history_store_open_bad_address_is_invalid(void **state)
{
    (void)state;
    static const char *const ADDRESSES[] = {
        "",
        "http://x",
        "redis:",
        "redis://",
        "redis://:pw@",
        "redis://h:0",
        "redis://h:65536",
        "redis://h:1x",
        "redis://h/x",
        "redis://h/-1",
        "redis://[::1",
        "redis://[::1]x",
        "redis://pw@h:1",
        "redis://:%zz@h:1",
        "redis://:%4@h:1",
        "redis+unix://",
        "redis+unix:///a?x=1",
        "redis+unix:///a?db=",
        "rediss://h:1",
        "sqlite:",
    };
    for (size_t i = 0; i < sizeof(ADDRESSES) / sizeof(ADDRESSES[0]); i++) {
        struct history_config config = config_of(ADDRESSES[i]);
        struct history_store *store = NULL;
        if (history_store_open(&config, &store, NULL) != STATUS_INVALID)
            fail_msg("%s", ADDRESSES[i]);
        assert_null(store);
    }
    struct history_config config = config_of("redis://127.0.0.1:1");
    struct history_store *store = NULL;
    config.key_pattern = "no user";
    assert_int_equal(history_store_open(&config, &store, NULL), STATUS_INVALID);
    config.key_pattern = NULL;
    config.history_max = HISTORY_MAX_MAX + 1;
    assert_int_equal(history_store_open(&config, &store, NULL), STATUS_INVALID);
}

static void history_open_password_over_tcp(void **state)
{
    (void)state;
    struct server server = {.port = 0};
    char address[PATH_TEXT];
    server_stop(&shared);
    /* Another process may take the port between: try some. */
    for (int i = 0; i < 5 && server.pid <= 0; i++) {
        server.port = free_port();
        (void)server_start(&server, "s e:c");
    }
    assert_true(server.pid > 0);
    struct history_event_in event = event_of("anna", "lamp", 1);
    for (size_t i = 0; i < 2; i++) {
        if (i == 0)
            snprintf(address, sizeof(address), "redis://:s%%20e%%3ac@127.0.0.1:%d/1", server.port);
        else
            snprintf(address, sizeof(address), "redis://default:s%%20e%%3Ac@localhost:%d",
                     server.port);
        struct history_config config = config_of(address);
        struct worker worker;
        worker_open_config(&worker, &config);
        assert_int_equal(append(&worker, &event, 1).status, STATUS_OK);
        assert_int_equal(fetch(&worker, "anna", 3).n_items, 1);
        worker_close(&worker);
    }
    snprintf(address, sizeof(address), "redis://:s%%20e%%3ac@127.0.0.1:%d", server.port);
    struct history_config config = config_of(address);
    config.password = "wrong";
    struct worker worker;
    worker_open_config(&worker, &config);
    struct seen seen = append(&worker, &event, 1);
    assert_int_equal(seen.status, STATUS_UNAVAILABLE);
    assert_false(history_ready(worker.history));
    struct error error = {.code = STATUS_OK};
    while (history_append(worker.history, &event, 1, on_append, &seen, &error) == STATUS_OK)
        assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0);
    if (strstr(error.message, "WRONGPASS") == NULL) /* and not that the server hung up */
        fail_msg("%s", error.message);
    worker_close(&worker);
    server_stop(&server);
    assert_true(server_start(&shared, NULL));
}

static void history_fetch_killed_server_fails_then_recovers(void **state)
{
    struct worker worker;
    worker_of(&worker, state, "");
    struct history_event_in event = event_of("anna", "lamp", 1);
    struct seen seen = {.n_calls = 0};
    assert_int_equal(append(&worker, &event, 1).status, STATUS_OK);
    kill(shared.pid, SIGSTOP);
    assert_int_equal(history_fetch(worker.history, "anna", 5, in_ms(10000), on_fetch, &seen, NULL),
                     STATUS_OK);
    server_stop(&shared);
    wait_calls(&worker, &seen, 1);
    assert_int_equal(seen.status, STATUS_UNAVAILABLE);
    struct error error = {.code = STATUS_OK};
    assert_false(history_ready(worker.history));
    assert_int_equal(
        history_fetch(worker.history, "anna", 5, in_ms(10000), on_fetch, &seen, &error),
        STATUS_UNAVAILABLE);
    assert_true(error.message[0] != '\0');
    assert_int_equal(history_append(worker.history, &event, 1, on_append, &seen, NULL),
                     STATUS_UNAVAILABLE);
    assert_true(server_start(&shared, NULL));
    while (!history_ready(worker.history))
        assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0);
    assert_int_equal(append(&worker, &event, 1).status, STATUS_OK);
    assert_int_equal(fetch(&worker, "anna", 5).n_items, 1);
    assert_int_equal(seen.n_calls, 1);
    worker_close(&worker);
}

static void history_fetch_named_host_is_looked_up_again(void **state)
{
    (void)state;
    struct server server = {.port = 0};
    char address[PATH_TEXT];
    server_stop(&shared);
    for (int i = 0; i < 5 && server.pid <= 0; i++) {
        server.port = free_port();
        (void)server_start(&server, NULL);
    }
    assert_true(server.pid > 0);
    snprintf(address, sizeof(address), "redis://localhost:%d", server.port);
    struct history_config config = config_of(address);
    struct worker worker;
    worker_open_config(&worker, &config);
    assert_int_equal(fetch(&worker, "anna", 5).status, STATUS_OK);
    server_stop(&server);
    while (history_ready(worker.history))
        assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0);
    assert_true(server_start(&server, NULL));
    while (!history_ready(worker.history))
        assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0);
    assert_int_equal(fetch(&worker, "anna", 5).status, STATUS_OK);
    worker_close(&worker);
    server_stop(&server);
    assert_true(server_start(&shared, NULL));
}

static void history_open_unknown_host_is_unavailable(void **state)
{
    (void)state;
    struct history_config config = config_of("redis://no-such-host.invalid:6379");
    struct worker worker;
    worker_open_config(&worker, &config);
    struct seen seen = {.n_calls = 0};
    struct error error = {.code = STATUS_OK};
    assert_int_equal(history_fetch(worker.history, "anna", 5, in_ms(50), on_fetch, &seen, &error),
                     STATUS_UNAVAILABLE);
    assert_non_null(strstr(error.message, "no-such-host.invalid"));
    assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0); /* a look-up on its thread */
    worker_close(&worker);
}

static void history_fetch_stopped_server_is_late_then_dropped(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    redis_address(address);
    redis_do("FLUSHALL");
    struct history_config config = config_of(address);
    config.command_timeout_ms = 300;
    struct worker worker;
    worker_open_config(&worker, &config);
    struct history_event_in event = event_of("anna", "lamp", 1);
    assert_int_equal(append(&worker, &event, 1).status, STATUS_OK);
    kill(shared.pid, SIGSTOP);
    struct seen late = {.n_calls = 0};
    struct seen later = {.n_calls = 0};
    int64_t deadline_us = in_ms(60);
    assert_int_equal(
        history_fetch(worker.history, "anna", 5, deadline_us + 40000, on_fetch, &later, NULL),
        STATUS_OK);
    assert_int_equal(history_fetch(worker.history, "anna", 5, deadline_us, on_fetch, &late, NULL),
                     STATUS_OK);
    wait_calls(&worker, &late, 1);
    assert_int_equal(late.status, STATUS_TIMEOUT);
    assert_true(late.at_us >= deadline_us);
    assert_int_equal(later.n_calls, 0);
    wait_calls(&worker, &later, 1);
    assert_int_equal(later.status, STATUS_TIMEOUT);
    assert_true(later.at_us >= deadline_us + 40000);
    /* Its late reply is dropped, and the connection is good still. */
    kill(shared.pid, SIGCONT);
    assert_int_equal(fetch(&worker, "anna", 5).n_items, 1);
    assert_int_equal(late.n_calls, 1);
    kill(shared.pid, SIGSTOP);
    assert_int_equal(history_fetch(worker.history, "anna", 5, in_ms(10000), on_fetch, &late, NULL),
                     STATUS_OK);
    wait_calls(&worker, &late, 2); /* the watchdog, long before the deadline */
    assert_int_equal(late.status, STATUS_UNAVAILABLE);
    assert_false(history_ready(worker.history));
    kill(shared.pid, SIGCONT);
    while (!history_ready(worker.history))
        assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0);
    worker_close(&worker);
}

static void history_fetch_silent_server_times_out_at_deadline(void **state)
{
    (void)state;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char address[PATH_TEXT];
    snprintf(name.sun_path, sizeof(name.sun_path), "%.80s/silent.sock", folder);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    assert_int_equal(listen(fd, 8), 0);
    snprintf(address, sizeof(address), "redis+unix://%.100s", name.sun_path);
    struct history_config config = config_of(address);
    config.connect_timeout_ms = 250;
    struct worker worker;
    worker_open_config(&worker, &config);
    struct seen seen = {.n_calls = 0};
    struct seen other = {.n_calls = 0};
    int64_t deadline_us = in_ms(50);
    assert_int_equal(history_fetch(worker.history, "anna", 5, deadline_us, on_fetch, &seen, NULL),
                     STATUS_OK);
    assert_int_equal(history_fetch(worker.history, "anna", 5, in_ms(9000), on_fetch, &other, NULL),
                     STATUS_OK);
    wait_calls(&worker, &seen, 1);
    assert_int_equal(seen.status, STATUS_TIMEOUT);
    assert_true(seen.at_us >= deadline_us);
    wait_calls(&worker, &other, 1); /* the connect timeout */
    assert_int_equal(other.status, STATUS_UNAVAILABLE);
    assert_int_equal(history_fetch(worker.history, "anna", 5, in_ms(50), on_fetch, &seen, NULL),
                     STATUS_UNAVAILABLE);
    assert_int_equal(seen.n_calls, 1);
    worker_close(&worker);
    close(fd);
}

static void history_fetch_absent_server_is_unavailable(void **state)
{
    (void)state;
    struct history_config config = config_of("redis+unix:///nonexistent/redis.sock");
    struct worker worker;
    worker_open_config(&worker, &config);
    struct seen seen = {.n_calls = 0};
    struct error error = {.code = STATUS_OK};
    assert_int_equal(history_fetch(worker.history, "anna", 5, in_ms(50), on_fetch, &seen, &error),
                     STATUS_UNAVAILABLE);
    assert_non_null(strstr(error.message, "No such file"));
    assert_int_equal(seen.n_calls, 0);
    worker_close(&worker);
}

/* --- the embedded file --- */

static void history_sqlite_schema_equals_the_file(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, 65536);
    assert_int_equal(file_read(AISLE_TEST_DATA "/schema/history.sql", &text, NULL), STATUS_OK);
    assert_string_equal(buf_text(&text), HISTORY_SQLITE_SCHEMA);
    buf_free(&text);
}

static void make_db(const char *name, const char *sql)
{
    char path[PATH_TEXT];
    sqlite3 *db = NULL;
    snprintf(path, sizeof(path), "%.400s/%s", folder, name);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static enum status open_status(const char *name, struct error *error)
{
    char address[PATH_TEXT];
    sqlite_address(address, name);
    struct history_config config = config_of(address);
    struct history_store *store = NULL;
    enum status status = history_store_open(&config, &store, error);
    history_store_close(store);
    return status;
}

static void history_store_open_foreign_file_is_refused_unchanged(void **state)
{
    (void)state;
    struct error error;
    struct buf before;
    struct buf after;
    char path[PATH_TEXT];
    snprintf(path, sizeof(path), "%.400s/foreign.db", folder);
    make_db("foreign.db", "CREATE TABLE mine (x)");
    buf_init(&before, 1 << 20);
    buf_init(&after, 1 << 20);
    assert_int_equal(file_read(path, &before, NULL), STATUS_OK);
    assert_int_equal(open_status("foreign.db", &error), STATUS_FORMAT);
    assert_non_null(strstr(error.message, "foreign.db"));
    assert_int_equal(file_read(path, &after, NULL), STATUS_OK);
    assert_int_equal(before.len, after.len);
    assert_memory_equal(before.data, after.data, before.len);
    buf_free(&before);
    buf_free(&after);
    make_db("newer.db", "PRAGMA application_id = 1097429832; PRAGMA user_version = 2");
    assert_int_equal(open_status("newer.db", &error), STATUS_FORMAT);
    assert_non_null(strstr(error.message, "newer"));
    make_db("older.db", "PRAGMA application_id = 1097429832");
    assert_int_equal(open_status("older.db", &error), STATUS_FORMAT);
}

static void history_store_open_damaged_or_no_file_is_refused(void **state)
{
    (void)state;
    struct error error;
    char path[PATH_TEXT];
    static const char NOISE[] = "this is no database, whatever its name says; it is a text file.";
    snprintf(path, sizeof(path), "%.400s/noise.db", folder);
    assert_int_equal(file_write_atomic(path, NOISE, sizeof(NOISE), NULL), STATUS_OK);
    assert_int_equal(open_status("noise.db", &error), STATUS_FORMAT);
    snprintf(path, sizeof(path), "%.400s/folder.db", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(open_status("folder.db", &error), STATUS_IO);
    assert_int_equal(open_status("absent/x.db", &error), STATUS_IO);
    assert_non_null(strstr(error.message, "absent/x.db"));
}

static void history_store_open_again_finds_events(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    sqlite_address(address, "again.db");
    struct history_config config = config_of(address);
    for (size_t i = 1; i <= 3; i++) {
        struct worker worker;
        worker_open_config(&worker, &config);
        struct history_event_in event = event_of("anna", "lamp", (int64_t)i);
        assert_int_equal(append(&worker, &event, 1).status, STATUS_OK);
        assert_int_equal(fetch(&worker, "anna", 10).n_items, i);
        worker_close(&worker);
    }
}

/* A process that dies right after the acknowledgement has lost nothing. */
static void history_append_acknowledged_survives_kill(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    int fds[2];
    sqlite_address(address, "killed.db");
    struct history_config config = config_of(address);
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct worker worker;
        worker_open_config(&worker, &config);
        struct history_event_in event = event_of("anna", "lamp", 1);
        for (;;) {
            if (append(&worker, &event, 1).status != STATUS_OK || write(fds[1], "x", 1) != 1)
                _exit(1);
        }
    }
    close(fds[1]);
    char acknowledged[50];
    size_t n = 0;
    while (n < sizeof(acknowledged)) {
        ssize_t got = read(fds[0], acknowledged, sizeof(acknowledged) - n);
        assert_true(got > 0);
        n += (size_t)got;
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    for (ssize_t got = 1; got > 0; n += (size_t)(got > 0 ? got : 0))
        got = read(fds[0], acknowledged, sizeof(acknowledged));
    close(fds[0]);
    struct worker worker;
    config.history_max = HISTORY_MAX_MAX;
    worker_open_config(&worker, &config);
    struct seen seen = fetch(&worker, "anna", HISTORY_MAX_MAX);
    assert_true(seen.n_items == n || seen.n_items == n + 1);
    worker_close(&worker);
}

static void history_append_failing_commit_stores_nothing(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    sqlite_address(address, "readonly.db");
    struct history_config config = config_of(address);
    struct worker worker;
    worker_open_config(&worker, &config);
    make_db("readonly.db", "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN new.item_id = 'bad'"
                           " BEGIN SELECT raise(FAIL, 'no room'); END");
    struct history_event_in events[2] = {event_of("anna", "lamp", 1), event_of("anna", "bad", 2)};
    struct seen seen = append(&worker, events, 2);
    assert_int_equal(seen.status, STATUS_UNAVAILABLE);
    assert_int_equal(seen.n_accepted, 0);
    assert_non_null(strstr(seen.message, "no room"));
    assert_int_equal(fetch(&worker, "anna", 5).n_items, 0);
    assert_int_equal(append(&worker, events, 1).status, STATUS_OK);
    assert_int_equal(fetch(&worker, "anna", 5).n_items, 1);
    worker_close(&worker);
}

static void history_append_over_stream_max_prunes_oldest(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    sqlite_address(address, "prune.db");
    struct history_config config = config_of(address);
    config.stream_max = 100;
    config.history_max = HISTORY_MAX_MAX;
    struct worker worker;
    worker_open_config(&worker, &config);
    enum { N = 3000 };
    struct history_event_in *events = mem_calloc(N, sizeof(*events));
    for (int i = 0; i < N; i++)
        events[i] = event_of(i < N / 2 ? "old" : "new", "lamp", i);
    assert_int_equal(append(&worker, events, N).status, STATUS_OK);
    /* The pruning is behind the acknowledgement; the next write is behind the pruning. */
    assert_int_equal(append(&worker, events, 1).status, STATUS_OK);
    assert_int_equal(fetch(&worker, "new", HISTORY_MAX_MAX).n_items, 100);
    assert_int_equal(fetch(&worker, "old", HISTORY_MAX_MAX).n_items, 1);
    mem_free(events);
    worker_close(&worker);
}

static void history_fetch_expired_event_is_not_given(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    sqlite_address(address, "ttl.db");
    struct history_config config = config_of(address);
    config.ttl_s = 3600;
    struct worker worker;
    worker_open_config(&worker, &config);
    struct history_event_in events[2] = {event_of("anna", "lamp", 1), event_of("anna", "sofa", 2)};
    assert_int_equal(append(&worker, events, 2).status, STATUS_OK);
    make_db("ttl.db", "UPDATE events SET received_ms = received_ms - 3601000 WHERE id = 1");
    struct seen seen = fetch(&worker, "anna", 5);
    assert_int_equal(seen.n_items, 1);
    assert_string_equal(seen.ids[0], "sofa");
    worker_close(&worker);
}

static void history_append_full_queue_is_unavailable(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    sqlite_address(address, "queue.db");
    struct history_config config = config_of(address);
    struct worker worker;
    worker_open_config(&worker, &config);
    /* Another connection holds the write lock: the queue can only fill. */
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(strchr(address, ':') + 1, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    struct history_event_in *events = mem_calloc(HISTORY_APPEND_MAX, sizeof(*events));
    for (int i = 0; i < HISTORY_APPEND_MAX; i++)
        events[i] = event_of("anna", "lamp", i);
    struct seen seen = {.n_calls = 0};
    unsigned n_taken = 0;
    while (history_append(worker.history, events, HISTORY_APPEND_MAX, on_append, &seen, NULL) ==
           STATUS_OK)
        n_taken++;
    assert_true(n_taken >= 10 && n_taken <= 12);
    assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    wait_calls(&worker, &seen, n_taken);
    assert_int_equal(seen.status, STATUS_OK);
    mem_free(events);
    worker_close(&worker);
}

#define SQLITE_TEST(test) cmocka_unit_test_prestate(test, sqlite_kind)
#define REDIS_TEST(test) cmocka_unit_test_prestate(test, redis_kind)

static int run_all(void)
{
    static char sqlite_kind[] = "sqlite";
    static char redis_kind[] = "redis";
    const struct CMUnitTest embedded[] = {
        cmocka_unit_test(history_parse_element_timed_gives_parts),
        cmocka_unit_test(history_parse_element_other_is_bare_id),
        cmocka_unit_test(history_parse_element_garbage_is_refused),
        SQLITE_TEST(history_append_then_fetch_gives_newest_first),
        SQLITE_TEST(history_fetch_n_max_limits),
        SQLITE_TEST(history_append_repeated_event_id_counts_once),
        SQLITE_TEST(history_calls_invalid_arguments_are_refused),
        SQLITE_TEST(history_append_ten_thousand_all_are_stored),
        SQLITE_TEST(history_erase_removes_all_of_one_user),
        SQLITE_TEST(history_close_in_flight_calls_end_once),
        SQLITE_TEST(history_open_out_of_memory_leaves_nothing),
        SQLITE_TEST(history_calls_out_of_memory_change_nothing),
        SQLITE_TEST(history_two_workers_share_a_store),
        SQLITE_TEST(history_sqlite_schema_equals_the_file),
        SQLITE_TEST(history_store_open_foreign_file_is_refused_unchanged),
        SQLITE_TEST(history_store_open_damaged_or_no_file_is_refused),
        SQLITE_TEST(history_store_open_again_finds_events),
        SQLITE_TEST(history_append_acknowledged_survives_kill),
        SQLITE_TEST(history_append_failing_commit_stores_nothing),
        SQLITE_TEST(history_append_over_stream_max_prunes_oldest),
        SQLITE_TEST(history_fetch_expired_event_is_not_given),
        SQLITE_TEST(history_append_full_queue_is_unavailable),
    };
    const struct CMUnitTest redis[] = {
        REDIS_TEST(history_append_then_fetch_gives_newest_first),
        REDIS_TEST(history_fetch_n_max_limits),
        REDIS_TEST(history_append_repeated_event_id_counts_once),
        REDIS_TEST(history_calls_invalid_arguments_are_refused),
        REDIS_TEST(history_append_ten_thousand_all_are_stored),
        REDIS_TEST(history_erase_removes_all_of_one_user),
        REDIS_TEST(history_close_in_flight_calls_end_once),
        REDIS_TEST(history_open_out_of_memory_leaves_nothing),
        REDIS_TEST(history_calls_out_of_memory_change_nothing),
        REDIS_TEST(history_two_workers_share_a_store),
        REDIS_TEST(history_fetch_foreign_elements_are_bare_or_garbage),
        REDIS_TEST(history_calls_wrong_type_of_key_write_nothing),
        REDIS_TEST(history_append_wrong_type_of_stream_writes_nothing),
        REDIS_TEST(history_append_full_server_writes_nothing),
        REDIS_TEST(history_append_keys_have_limits_and_ttl),
        REDIS_TEST(history_append_forgotten_script_is_sent_again),
        REDIS_TEST(history_store_open_config_keys_and_database_are_used),
        REDIS_TEST(history_store_open_bad_address_is_invalid),
        REDIS_TEST(history_open_password_over_tcp),
        REDIS_TEST(history_fetch_killed_server_fails_then_recovers),
        REDIS_TEST(history_fetch_named_host_is_looked_up_again),
        REDIS_TEST(history_open_unknown_host_is_unavailable),
        REDIS_TEST(history_fetch_stopped_server_is_late_then_dropped),
        REDIS_TEST(history_fetch_silent_server_times_out_at_deadline),
        REDIS_TEST(history_fetch_absent_server_is_unavailable),
    };
    int n_failed = cmocka_run_group_tests_name("embedded", embedded, NULL, NULL);
    if (!server_start(&shared, NULL))
        return n_failed > 0 ? n_failed : 77;
    n_failed += cmocka_run_group_tests_name("redis", redis, NULL, NULL);
    server_stop(&shared);
    return n_failed;
}

int main(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%.300s/aisle-history-XXXXXX",
             parent != NULL ? parent : "/tmp");
    if (mkdtemp(folder) == NULL)
        return 1;
    (void)signal(SIGPIPE, SIG_IGN);
    int result = run_all();
    return dir_remove(folder, NULL) == STATUS_OK ? result : 1;
}
