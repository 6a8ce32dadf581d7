#ifndef AISLE_TEST_HISTORY_FIXTURE_H
#define AISLE_TEST_HISTORY_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/events.h"
#include "base/status.h"
#include "store/history.h"

/* What the tests of the history share: a private redis-server in a temporary folder, and a worker
 * (loop, store, handle) whose calls are waited for. Failures end the test (cmocka). */

enum { PATH_TEXT = 512, SEEN_MAX = 64, SKIPPED = 77 };

struct server {
    pid_t pid;
    int port; /* 0: Unix socket only */
    char socket[PATH_TEXT];
};

/* What the last callback said, and how many there were. */
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

extern char fixture_folder[PATH_TEXT];
extern struct server fixture_server; /* the one that tests talk to unless they start their own */

/* Makes the folder; false when the tests cannot run. */
bool fixture_setup(void);
/* Stops the server, removes the folder; result, or 1 when that failed. */
int fixture_teardown(int result);

/* On server->port (0: none) and a Unix socket in the folder; false without redis-server, or when
 * the port is taken. */
bool fixture_server_start(struct server *server, const char *password);
void fixture_server_stop(struct server *server);
int fixture_free_port(void);
/* One command on fixture_server; an integer reply, or the number of elements. */
long long fixture_redis_do(const char *format, ...);

void fixture_worker_open(struct worker *worker, struct history_store *store);
void fixture_worker_open_config(struct worker *worker, const struct history_config *config);
void fixture_worker_close(struct worker *worker);
/* All but the handle, which the test has closed. */
void fixture_worker_close_loop(struct worker *worker);
/* On an empty store of the kind in *state ("redis" or "sqlite"), which keeps 5 events a user. */
void fixture_worker_of(struct worker *worker, void **state, const char *name);
/* Until there were n callbacks. */
void fixture_wait_calls(struct worker *worker, const struct seen *seen, unsigned n);
void fixture_on_fetch(void *context, const struct history_result *result);
void fixture_on_append(void *context, const struct history_append_result *result);
void fixture_on_erase(void *context, const struct history_erase_result *result);
int64_t fixture_in_ms(int64_t ms);

/* A call that must be accepted, and its result. */
struct seen fixture_fetch(struct worker *worker, const char *user, size_t n_max);
struct seen fixture_append(struct worker *worker, const struct history_event_in *events, size_t n);
struct seen fixture_erase(struct worker *worker, const char *user);

struct history_event_in fixture_event_of(const char *user, const char *item, int64_t time_ms);
struct history_config fixture_config_of(const char *address);
void fixture_sqlite_address(char out[PATH_TEXT], const char *name);
void fixture_redis_address(char out[PATH_TEXT]);

#endif
