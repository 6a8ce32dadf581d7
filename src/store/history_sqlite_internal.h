#ifndef AISLE_STORE_HISTORY_SQLITE_INTERNAL_H
#define AISLE_STORE_HISTORY_SQLITE_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/parse.h"
#include "base/status.h"
#include "store/history_internal.h"

/* Shared by history_sqlite.c (store, worker's side) and history_sqlite_writer.c (the thread). */

struct sqlite3;
struct sqlite3_stmt;
struct event;

enum { SQLITE_QUEUE_EVENTS_MAX = 100000, SQLITE_BATCH_EVENTS = 4096 };

struct sqlite_job;

/* What the writer thread needs to tell a worker; outlives the worker's handle while jobs of its are
 * queued. */
struct sqlite_mailbox {
    pthread_mutex_t lock;
    struct sqlite_job *done_first; /* in the order of completion */
    struct sqlite_job *done_last;
    size_t n_owners; /* the handle, and each job the writer holds */
    int wake_fd;
};

/* One write. The writer's fields are its own from queueing to completion, the loop's always the
 * loop's. */
struct sqlite_job {
    /* writer */
    struct sqlite_job *next;
    struct sqlite_mailbox *mailbox;
    struct history_event_in *events; /* NULL: erase user_id */
    size_t n_events;
    enum status status;
    size_t n_duplicates;
    uint64_t n_removed;
    char message[ERROR_MESSAGE_BYTES];
    char user_id[ID_BYTES_MAX + 1];
    /* loop */
    struct sqlite_job *flying_previous;
    struct sqlite_job *flying_next;
    history_append_fn *on_append;
    history_erase_fn *on_erase;
    void *context;
};

struct sqlite_writer {
    struct sqlite3 *db;
    struct sqlite3_stmt *insert;
    struct sqlite3_stmt *erase;
    struct sqlite3_stmt *prune;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct sqlite_job *first;
    struct sqlite_job *last;
    size_t n_queued_events; /* an erasure counts as one */
    bool stopping;
    size_t stream_max;
    int64_t ttl_ms;       /* 0: none */
    size_t n_since_prune; /* events */
    bool log_holds_erased;
};

/* Takes db on success. */
enum status sqlite_writer_start(struct sqlite_writer *writer, struct sqlite3 *db,
                                const struct history_config *config,
                                struct error *err) STATUS_CHECKED;
/* Writes what is queued, ends the thread, closes db. */
void sqlite_writer_stop(struct sqlite_writer *writer);
/* Takes the job on OK; UNAVAILABLE when the queue is full. */
enum status sqlite_writer_push(struct sqlite_writer *writer, struct sqlite_job *job,
                               struct error *err) STATUS_CHECKED;

void sqlite_job_free(struct sqlite_job *job);
/* Drops one owner; the last frees mailbox and jobs in it. */
void sqlite_mailbox_release(struct sqlite_mailbox *mailbox);

/* A status for SQLite's code, with its text. */
enum status sqlite_fault(struct sqlite3 *db, int code, const char *what, struct error *err);

#endif
