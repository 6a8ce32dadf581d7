#include "store/history_sqlite_internal.h"

#include <errno.h>
#include <event2/event.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/parse.h"

/* The embedded history: one SQLite file for a laptop, a test or one small shop.
 *
 * One table is both each user's history (index by user, newest first) and the stream (order of id).
 * Reading is a short index scan on the worker's own connection, done at once in the loop: WAL mode
 * lets it go on beside the writer. Writing is the writer thread's (history_sqlite_writer.c). A
 * thread for reads was rejected: handing over costs more than the read.
 *
 * A file is taken only if it is empty or carries our application id and a version we know; a
 * foreign database is left exactly as it was, including its journal mode. The text of the schema is
 * here, because the program must not depend on installed files; data/schema/history.sql is its
 * readable copy, compared by a test. */

enum { APPLICATION_ID = 1097429832, SCHEMA_VERSION = 1 };
enum { WRITE_BUSY_MS = 5000, READ_BUSY_MS = 20 };

const char HISTORY_SQLITE_SCHEMA[] =
    "PRAGMA application_id = 1097429832;\n"
    "PRAGMA user_version = 1;\n"
    "CREATE TABLE events (\n"
    "    id INTEGER PRIMARY KEY AUTOINCREMENT,\n"
    "    user_id TEXT NOT NULL,\n"
    "    item_id TEXT NOT NULL,\n"
    "    type INTEGER NOT NULL CHECK (type BETWEEN 0 AND 3),\n"
    "    time_ms INTEGER NOT NULL,\n"
    "    received_ms INTEGER NOT NULL,\n"
    "    value REAL,\n"
    "    event_id TEXT,\n"
    "    request_id TEXT,\n"
    "    session_id TEXT\n"
    ");\n"
    "CREATE INDEX events_by_user ON events (user_id, id DESC);\n"
    "CREATE UNIQUE INDEX events_once ON events (user_id, event_id) WHERE event_id IS NOT NULL;\n";

static const char FETCH_SQL[] =
    "SELECT item_id, type, time_ms FROM events"
    " WHERE user_id = ?1 AND received_ms >= ?2 ORDER BY id DESC LIMIT ?3";

struct sqlite_store {
    struct history_store base;
    char *path;
    int64_t ttl_ms;
    struct sqlite_writer writer;
};

struct sqlite_history {
    struct history base;
    struct sqlite_store *store;
    sqlite3 *db;
    sqlite3_stmt *fetch;
    struct event *wake;
    struct sqlite_mailbox *mailbox;
    struct sqlite_job *flying; /* with the writer or in the mailbox */
    bool closing;
};

static struct sqlite_history *sqlite_of(struct history *history)
{
    return (struct sqlite_history *)history;
}

/* --- the file --- */

static enum status read_number(sqlite3 *db, const char *sql, int64_t *out, struct error *err)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code == SQLITE_ROW)
        *out = sqlite3_column_int64(statement, 0);
    enum status status =
        code == SQLITE_ROW ? STATUS_OK : sqlite_fault(db, code, "reading the history file", err);
    sqlite3_finalize(statement);
    return status;
}

/* Whose file it is; is_new for an empty one. */
static enum status check_file(sqlite3 *db, bool *is_new, struct error *err)
{
    int64_t id = 0;
    int64_t version = 0;
    int64_t n_objects = 0;
    enum status status = read_number(db, "SELECT count(*) FROM sqlite_master", &n_objects, err);
    if (status == STATUS_OK)
        status = read_number(db, "PRAGMA application_id", &id, err);
    if (status == STATUS_OK)
        status = read_number(db, "PRAGMA user_version", &version, err);
    if (status != STATUS_OK)
        return status;
    *is_new = id == 0 && version == 0 && n_objects == 0;
    if (*is_new)
        return STATUS_OK;
    if (id != APPLICATION_ID)
        return error_set(err, STATUS_FORMAT, "not a history file of this program");
    if (version > SCHEMA_VERSION)
        return error_set(err, STATUS_FORMAT,
                         "a history file of version %lld, newer than this program's %d",
                         (long long)version, SCHEMA_VERSION);
    if (version != SCHEMA_VERSION)
        return error_set(err, STATUS_FORMAT, "a history file of unknown version %lld",
                         (long long)version);
    return STATUS_OK;
}

static enum status run_sql(sqlite3 *db, const char *sql, const char *what, struct error *err)
{
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? STATUS_OK : sqlite_fault(db, code, what, err);
}

/* Looked at again under the lock: another process may be creating the same file. */
static enum status create_schema(sqlite3 *db, struct error *err)
{
    bool is_new = false;
    enum status status = run_sql(db, "BEGIN IMMEDIATE", "creating the history file", err);
    if (status != STATUS_OK)
        return status;
    status = check_file(db, &is_new, err);
    if (status == STATUS_OK && is_new)
        status = run_sql(db, HISTORY_SQLITE_SCHEMA, "creating the history file", err);
    if (status == STATUS_OK)
        status = run_sql(db, "COMMIT", "creating the history file", err);
    if (status != STATUS_OK && sqlite3_get_autocommit(db) == 0)
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

static enum status open_file(const char *path, int flags, int busy_ms, sqlite3 **out,
                             struct error *err)
{
    int code = sqlite3_open_v2(path, out, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_busy_timeout(*out, busy_ms);
    if (code == SQLITE_OK)
        return STATUS_OK;
    enum status status = sqlite_fault(*out, code, "opening the history file", err);
    sqlite3_close(*out);
    *out = NULL;
    return status;
}

static enum status prepare_file(sqlite3 *db, struct error *err)
{
    bool is_new = false;
    enum status status = check_file(db, &is_new, err);
    if (status != STATUS_OK)
        return status;
    if (sqlite3_db_readonly(db, "main") == 1)
        return error_set(err, STATUS_PERMISSION, "no permission to write the history file");
    status = run_sql(db,
                     "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                     "PRAGMA secure_delete = ON",
                     "preparing the history file", err);
    return status == STATUS_OK && is_new ? create_schema(db, err) : status;
}

/* --- calls --- */

struct fetched {
    struct history_item *items;
    char *texts;
    size_t n;
    size_t n_garbage;
};

static int fetch_rows(sqlite3_stmt *statement, size_t n_max, struct fetched *fetched)
{
    int code = sqlite3_step(statement);
    for (; code == SQLITE_ROW && fetched->n < n_max; code = sqlite3_step(statement)) {
        const void *id = sqlite3_column_blob(statement, 0);
        size_t len = (size_t)sqlite3_column_bytes(statement, 0);
        int type = sqlite3_column_int(statement, 1);
        if (id == NULL || !id_valid(id, len) || (unsigned)type >= N_EVENT_TYPES) {
            fetched->n_garbage++;
            continue;
        }
        char *copy = fetched->texts + fetched->n * ID_BYTES_MAX;
        memcpy(copy, id, len);
        fetched->items[fetched->n++] =
            (struct history_item){.item_id = copy,
                                  .item_id_len = len,
                                  .type = (enum event_type)type,
                                  .time_ms = sqlite3_column_int64(statement, 2)};
    }
    return code;
}

static enum status sqlite_fetch_start(struct history *base, const struct history_fetch_call *asked,
                                      struct error *err)
{
    struct sqlite_history *history = sqlite_of(base);
    const struct sqlite_store *store = history->store;
    if (history->closing)
        return error_set(err, STATUS_UNAVAILABLE, "the history is being closed");
    size_t n_max = asked->query.n_max;
    struct fetched fetched = {
        .items = mem_alloc_array(n_max, sizeof(struct history_item)),
        .texts = mem_alloc_array(n_max, ID_BYTES_MAX),
    };
    if (fetched.items == NULL || fetched.texts == NULL) {
        mem_free(fetched.items);
        mem_free(fetched.texts);
        return error_set(err, STATUS_NOMEM, "out of memory");
    }
    int64_t oldest_ms = store->ttl_ms > 0 ? clock_unix_ms() - store->ttl_ms : INT64_MIN;
    int faults = sqlite3_bind_text(history->fetch, 1, asked->query.user_id, -1, SQLITE_STATIC) |
                 sqlite3_bind_int64(history->fetch, 2, oldest_ms) |
                 sqlite3_bind_int64(history->fetch, 3, (int64_t)n_max);
    int code = faults == SQLITE_OK ? fetch_rows(history->fetch, n_max, &fetched) : SQLITE_NOMEM;
    sqlite3_reset(history->fetch);
    /* Rows do not depend on time limits: a read that came to be late is still the answer. */
    struct history_result result = {.status = STATUS_UNAVAILABLE};
    if (code == SQLITE_DONE || code == SQLITE_ROW)
        result = (struct history_result){.status = STATUS_OK,
                                         .items = fetched.items,
                                         .n_items = fetched.n,
                                         .n_garbage = fetched.n_garbage};
    asked->callback(asked->context, &result);
    mem_free(fetched.items);
    mem_free(fetched.texts);
    return STATUS_OK;
}

static void flying_remove(struct sqlite_history *history, struct sqlite_job *job)
{
    if (job->flying_previous != NULL)
        job->flying_previous->flying_next = job->flying_next;
    else
        history->flying = job->flying_next;
    if (job->flying_next != NULL)
        job->flying_next->flying_previous = job->flying_previous;
}

/* Hands the job to the writer, or frees it. */
static enum status job_start(struct sqlite_history *history, struct sqlite_job *job,
                             struct error *err)
{
    job->mailbox = history->mailbox;
    pthread_mutex_lock(&history->mailbox->lock);
    history->mailbox->n_owners++;
    pthread_mutex_unlock(&history->mailbox->lock);
    /* Entered before it is pushed: afterwards the writer may be done with it at any time. */
    job->flying_next = history->flying;
    if (job->flying_next != NULL)
        job->flying_next->flying_previous = job;
    history->flying = job;
    enum status status = sqlite_writer_push(&history->store->writer, job, err);
    if (status != STATUS_OK) {
        flying_remove(history, job);
        sqlite_mailbox_release(history->mailbox);
        sqlite_job_free(job);
    }
    return status;
}

static enum status sqlite_append_start(struct history *base,
                                       const struct history_append_call *asked, struct error *err)
{
    struct sqlite_history *history = sqlite_of(base);
    if (history->closing)
        return error_set(err, STATUS_UNAVAILABLE, "the history is being closed");
    struct sqlite_job *job = mem_calloc(1, sizeof(*job));
    if (job == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    job->events = history_events_copy(asked->events, asked->n_events);
    if (job->events == NULL) {
        sqlite_job_free(job);
        return error_set(err, STATUS_NOMEM, "out of memory");
    }
    job->n_events = asked->n_events;
    job->on_append = asked->callback;
    job->context = asked->context;
    return job_start(history, job, err);
}

static enum status sqlite_erase_start(struct history *base, const struct history_erase_call *asked,
                                      struct error *err)
{
    struct sqlite_history *history = sqlite_of(base);
    if (history->closing)
        return error_set(err, STATUS_UNAVAILABLE, "the history is being closed");
    struct sqlite_job *job = mem_calloc(1, sizeof(*job));
    if (job == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    memcpy(job->user_id, asked->user_id, strlen(asked->user_id) + 1);
    job->on_erase = asked->callback;
    job->context = asked->context;
    return job_start(history, job, err);
}

static void job_tell(const struct sqlite_job *job, enum status status, const char *message)
{
    bool good = status == STATUS_OK;
    if (job->on_append != NULL) {
        struct history_append_result result = {.status = status, .message = good ? NULL : message};
        if (good) {
            result.n_accepted = job->n_events;
            result.n_duplicates = job->n_duplicates;
        }
        job->on_append(job->context, &result);
    } else {
        struct history_erase_result result = {.status = status, .message = good ? NULL : message};
        if (good)
            result.n_removed = job->n_removed;
        job->on_erase(job->context, &result);
    }
}

static void deliver(struct sqlite_history *history)
{
    struct sqlite_mailbox *mailbox = history->mailbox;
    pthread_mutex_lock(&mailbox->lock);
    struct sqlite_job *job = mailbox->done_first;
    mailbox->done_first = NULL;
    mailbox->done_last = NULL;
    pthread_mutex_unlock(&mailbox->lock);
    while (job != NULL) {
        struct sqlite_job *next = job->next;
        flying_remove(history, job);
        job_tell(job, job->status, job->message);
        sqlite_job_free(job);
        job = next;
    }
}

static void on_wake(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    uint64_t n = 0;
    if (read((int)fd, &n, sizeof(n)) == (ssize_t)sizeof(n))
        deliver(context);
}

/* --- handles --- */

static void handle_free(struct sqlite_history *history)
{
    if (history->wake != NULL)
        event_free(history->wake);
    if (history->mailbox != NULL)
        sqlite_mailbox_release(history->mailbox);
    sqlite3_finalize(history->fetch);
    sqlite3_close(history->db);
    mem_free(history);
}

static void sqlite_close(struct history *base)
{
    struct sqlite_history *history = sqlite_of(base);
    history->closing = true;
    deliver(history);
    /* The writer may finish these at any time, but leaves them in the mailbox, which is held. */
    for (const struct sqlite_job *job = history->flying; job != NULL; job = job->flying_next)
        job_tell(job, STATUS_UNAVAILABLE, "the history is being closed");
    handle_free(history);
}

static bool sqlite_ready(const struct history *history)
{
    (void)history;
    return true;
}

static struct sqlite_mailbox *mailbox_new(struct error *err)
{
    struct sqlite_mailbox *mailbox = mem_calloc(1, sizeof(*mailbox));
    if (mailbox == NULL) {
        error_set(err, STATUS_NOMEM, "out of memory");
        return NULL;
    }
    mailbox->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (mailbox->wake_fd < 0) {
        error_set_errno(err, "eventfd");
        mem_free(mailbox);
        return NULL;
    }
    pthread_mutex_init(&mailbox->lock, NULL);
    mailbox->n_owners = 1;
    return mailbox;
}

static enum status handle_init(struct sqlite_history *history, struct event_base *loop,
                               struct error *err)
{
    struct error error = {.code = STATUS_OK};
    enum status status =
        open_file(history->store->path, SQLITE_OPEN_READWRITE, READ_BUSY_MS, &history->db, err);
    if (status == STATUS_OK)
        status = run_sql(history->db, "PRAGMA query_only = ON", "opening the history file", err);
    if (status != STATUS_OK)
        return status;
    int code = sqlite3_prepare_v3(history->db, FETCH_SQL, -1, SQLITE_PREPARE_PERSISTENT,
                                  &history->fetch, NULL);
    if (code != SQLITE_OK)
        return sqlite_fault(history->db, code, "preparing to read the history", err);
    history->mailbox = mailbox_new(&error);
    if (history->mailbox == NULL)
        return error_set(err, error.code, "%s", error.message);
    history->wake =
        event_new(loop, history->mailbox->wake_fd, EV_READ | EV_PERSIST, on_wake, history);
    if (history->wake == NULL || event_add(history->wake, NULL) != 0)
        return error_set(err, STATUS_NOMEM, "out of memory");
    return STATUS_OK;
}

static enum status sqlite_open(struct history_store *store, struct event_base *loop,
                               struct history **out, struct error *err)
{
    struct sqlite_history *history = mem_calloc(1, sizeof(*history));
    if (history == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    history->base.backend = store->backend;
    history->store = (struct sqlite_store *)store;
    enum status status = handle_init(history, loop, err);
    if (status != STATUS_OK) {
        handle_free(history);
        return status;
    }
    *out = &history->base;
    return STATUS_OK;
}

static void sqlite_store_close(struct history_store *base)
{
    struct sqlite_store *store = (struct sqlite_store *)base;
    sqlite_writer_stop(&store->writer);
    mem_free(store->path);
    mem_free(store);
}

static const struct history_backend SQLITE_BACKEND = {
    .kind = "sqlite",
    .store_close = sqlite_store_close,
    .open = sqlite_open,
    .close = sqlite_close,
    .ready = sqlite_ready,
    .fetch = sqlite_fetch_start,
    .append = sqlite_append_start,
    .erase = sqlite_erase_start,
};

enum status history_sqlite_store_open(const struct history_config *config,
                                      struct history_store **out, struct error *err)
{
    const char *path = strchr(config->address, ':') + 1;
    if (path[0] == '\0')
        return error_set(err, STATUS_INVALID, "history address sqlite: has no file");
    struct sqlite_store *store = mem_calloc(1, sizeof(*store));
    if (store == NULL)
        return error_set(err, STATUS_NOMEM, "out of memory");
    store->base.backend = &SQLITE_BACKEND;
    store->ttl_ms = config->ttl_s * 1000;
    store->path = mem_strdup(path);
    enum status status =
        store->path != NULL ? STATUS_OK : error_set(err, STATUS_NOMEM, "out of memory");
    sqlite3 *db = NULL;
    if (status == STATUS_OK)
        status =
            open_file(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, WRITE_BUSY_MS, &db, err);
    if (status == STATUS_OK)
        status = prepare_file(db, err);
    if (status == STATUS_OK)
        status = sqlite_writer_start(&store->writer, db, config, err);
    if (status == STATUS_OK) {
        *out = &store->base;
        return STATUS_OK;
    }
    error_prefix(err, "history %s: ", path);
    sqlite3_close(db);
    mem_free(store->path);
    mem_free(store);
    return status;
}
