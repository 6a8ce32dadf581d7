#include "store/history_sqlite_internal.h"

#include <errno.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

/* The writer thread of the embedded history: group commit.
 *
 * With synchronous = FULL a commit waits for the disk, so one commit an event would make the disk's
 * latency the limit of the service. Workers therefore queue their writes, and this thread commits
 * whatever has gathered while the last commit was under way: an idle service has no added wait, a
 * busy one a few commits with thousands of events. A batch succeeds or fails as a whole, and only
 * then is anybody told, so nothing is acknowledged that a power cut could take away, and nothing is
 * half accepted.
 *
 * Results go to the mailbox of the worker that asked, an eventfd wakes its loop. A worker that has
 * gone leaves the mailbox behind until the last of its jobs is done. */

enum { PRUNE_ROWS = 2000, PRUNE_EVERY_EVENTS = 1000 };

static const char INSERT_SQL[] =
    "INSERT INTO events (user_id, item_id, type, time_ms, received_ms, value, event_id, request_id,"
    " session_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
    " ON CONFLICT (user_id, event_id) WHERE event_id IS NOT NULL DO NOTHING";
static const char ERASE_SQL[] = "DELETE FROM events WHERE user_id = ?1";
/* Rows are in the order of their arrival, so what is too old is found at the front. */
static const char PRUNE_SQL[] =
    "DELETE FROM events WHERE id IN (SELECT id FROM (SELECT id, received_ms FROM events ORDER BY id"
    " LIMIT ?3) WHERE id <= (SELECT max(id) FROM events) - ?1 OR received_ms < ?2)";

enum status sqlite_fault(sqlite3 *db, int code, const char *what, struct error *err)
{
    enum status status = STATUS_IO;
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        status = STATUS_NOMEM;
        break;
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        status = STATUS_FORMAT;
        break;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
        status = STATUS_PERMISSION;
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        status = STATUS_UNAVAILABLE;
        break;
    default:
        break;
    }
    const char *text = db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(code);
    return error_set(err, status, "%s: %s", what, text);
}

void sqlite_job_free(struct sqlite_job *job)
{
    mem_free(job->events);
    mem_free(job);
}

void sqlite_mailbox_release(struct sqlite_mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->lock);
    bool is_last = --mailbox->n_owners == 0;
    pthread_mutex_unlock(&mailbox->lock);
    if (!is_last)
        return;
    for (struct sqlite_job *job = mailbox->done_first; job != NULL;) {
        struct sqlite_job *next = job->next;
        sqlite_job_free(job);
        job = next;
    }
    close(mailbox->wake_fd);
    pthread_mutex_destroy(&mailbox->lock);
    mem_free(mailbox);
}

static void post(struct sqlite_job *job)
{
    struct sqlite_mailbox *mailbox = job->mailbox;
    job->next = NULL;
    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->done_last != NULL)
        mailbox->done_last->next = job;
    else
        mailbox->done_first = job;
    mailbox->done_last = job;
    pthread_mutex_unlock(&mailbox->lock);
    uint64_t one = 1;
    while (write(mailbox->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        continue;
    sqlite_mailbox_release(mailbox);
}

static int bind_text(sqlite3_stmt *statement, int at, const char *text)
{
    return text != NULL ? sqlite3_bind_text(statement, at, text, -1, SQLITE_STATIC)
                        : sqlite3_bind_null(statement, at);
}

/* One row; the first code that is not good. */
static int insert_event(struct sqlite_writer *writer, const struct history_event_in *event,
                        int64_t now_ms)
{
    sqlite3_stmt *insert = writer->insert;
    int faults = bind_text(insert, 1, event->user_id) | bind_text(insert, 2, event->item_id) |
                 sqlite3_bind_int(insert, 3, (int)event->type) |
                 sqlite3_bind_int64(insert, 4, event->time_ms) |
                 sqlite3_bind_int64(insert, 5, now_ms) |
                 (isnan(event->value) ? sqlite3_bind_null(insert, 6)
                                      : sqlite3_bind_double(insert, 6, event->value)) |
                 bind_text(insert, 7, event->event_id) | bind_text(insert, 8, event->request_id) |
                 bind_text(insert, 9, event->session_id);
    int code = faults == SQLITE_OK ? sqlite3_step(insert) : SQLITE_NOMEM;
    sqlite3_reset(insert);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int run_job(struct sqlite_writer *writer, struct sqlite_job *job, int64_t now_ms)
{
    if (job->events == NULL) {
        int code = bind_text(writer->erase, 1, job->user_id);
        if (code == SQLITE_OK)
            code = sqlite3_step(writer->erase);
        sqlite3_reset(writer->erase);
        if (code != SQLITE_DONE)
            return code;
        job->n_removed = (uint64_t)sqlite3_changes(writer->db);
        return SQLITE_OK;
    }
    for (size_t i = 0; i < job->n_events; i++) {
        int code = insert_event(writer, &job->events[i], now_ms);
        if (code != SQLITE_OK)
            return code;
        if (sqlite3_changes(writer->db) == 0)
            job->n_duplicates++;
    }
    return SQLITE_OK;
}

static int run_batch(struct sqlite_writer *writer, struct sqlite_job *batch)
{
    int64_t now_ms = clock_unix_ms();
    int code = sqlite3_exec(writer->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    for (struct sqlite_job *job = batch; job != NULL && code == SQLITE_OK; job = job->next)
        code = run_job(writer, job, now_ms);
    if (code == SQLITE_OK)
        code = sqlite3_exec(writer->db, "COMMIT", NULL, NULL, NULL);
    return code;
}

/* Erased rows are overwritten in the file (secure_delete), but earlier pages of the log still hold
 * them. Emptied before the erasure is acknowledged; a reader in the way puts that off to the next
 * batch. */
static void empty_log_of_erased(struct sqlite_writer *writer, const struct sqlite_job *batch)
{
    for (; batch != NULL; batch = batch->next)
        writer->log_holds_erased = writer->log_holds_erased || batch->events == NULL;
    if (writer->log_holds_erased &&
        sqlite3_wal_checkpoint_v2(writer->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) ==
            SQLITE_OK)
        writer->log_holds_erased = false;
}

/* Commits the batch and tells; the failure of one is the failure of all. */
static void write_batch(struct sqlite_writer *writer, struct sqlite_job *batch)
{
    struct error error = {.code = STATUS_OK};
    int code = run_batch(writer, batch);
    if (code != SQLITE_OK) {
        sqlite_fault(writer->db, code, "writing the history", &error);
        /* A full disk may have rolled back already. */
        if (sqlite3_get_autocommit(writer->db) == 0)
            (void)sqlite3_exec(writer->db, "ROLLBACK", NULL, NULL, NULL);
    } else {
        empty_log_of_erased(writer, batch);
    }
    while (batch != NULL) {
        struct sqlite_job *job = batch;
        batch = job->next;
        writer->n_since_prune += job->n_events;
        if (code != SQLITE_OK) {
            job->status = STATUS_UNAVAILABLE;
            job->n_duplicates = 0;
            job->n_removed = 0;
            (void)snprintf(job->message, sizeof(job->message), "%s", error.message);
        }
        post(job);
    }
}

/* Keeps the stream near its length. Each run may take more rows than came since the last, and is
 * bounded, so that it holds the lock shortly. A failure is left to the next run. */
static void prune(struct sqlite_writer *writer)
{
    while (writer->n_since_prune >= PRUNE_EVERY_EVENTS) {
        writer->n_since_prune -= PRUNE_EVERY_EVENTS;
        int64_t oldest_ms = writer->ttl_ms > 0 ? clock_unix_ms() - writer->ttl_ms : INT64_MIN;
        sqlite3_bind_int64(writer->prune, 1, (int64_t)writer->stream_max);
        sqlite3_bind_int64(writer->prune, 2, oldest_ms);
        sqlite3_bind_int(writer->prune, 3, PRUNE_ROWS);
        (void)sqlite3_step(writer->prune);
        sqlite3_reset(writer->prune);
    }
}

/* What a job counts for in the queue and in a batch. */
static size_t cost_of(const struct sqlite_job *job)
{
    return job->events != NULL ? job->n_events : 1;
}

/* Some thousand events from the front of the queue; the lock is held. */
static struct sqlite_job *take_batch(struct sqlite_writer *writer)
{
    struct sqlite_job *batch = writer->first;
    struct sqlite_job *last = batch;
    size_t n = cost_of(batch);
    while (last->next != NULL && n + cost_of(last->next) <= SQLITE_BATCH_EVENTS) {
        last = last->next;
        n += cost_of(last);
    }
    writer->first = last->next;
    if (writer->first == NULL)
        writer->last = NULL;
    last->next = NULL;
    writer->n_queued_events -= n;
    return batch;
}

static void *writer_main(void *argument)
{
    struct sqlite_writer *writer = argument;
    pthread_mutex_lock(&writer->lock);
    for (;;) {
        while (writer->first == NULL && !writer->stopping)
            pthread_cond_wait(&writer->wake, &writer->lock);
        if (writer->first == NULL)
            break;
        struct sqlite_job *batch = take_batch(writer);
        pthread_mutex_unlock(&writer->lock);
        write_batch(writer, batch);
        prune(writer);
        pthread_mutex_lock(&writer->lock);
    }
    pthread_mutex_unlock(&writer->lock);
    return NULL;
}

enum status sqlite_writer_push(struct sqlite_writer *writer, struct sqlite_job *job,
                               struct error *err)
{
    pthread_mutex_lock(&writer->lock);
    bool full = writer->n_queued_events + cost_of(job) > SQLITE_QUEUE_EVENTS_MAX;
    if (!full) {
        job->next = NULL;
        if (writer->last != NULL)
            writer->last->next = job;
        else
            writer->first = job;
        writer->last = job;
        writer->n_queued_events += cost_of(job);
        pthread_cond_signal(&writer->wake);
    }
    pthread_mutex_unlock(&writer->lock);
    return full ? error_set(err, STATUS_UNAVAILABLE, "%d events wait to be written already",
                            SQLITE_QUEUE_EVENTS_MAX)
                : STATUS_OK;
}

static void finalize_all(struct sqlite_writer *writer)
{
    sqlite3_finalize(writer->insert);
    sqlite3_finalize(writer->erase);
    sqlite3_finalize(writer->prune);
}

enum status sqlite_writer_start(struct sqlite_writer *writer, sqlite3 *db,
                                const struct history_config *config, struct error *err)
{
    *writer = (struct sqlite_writer){
        .db = db,
        .stream_max = config->stream_max,
        .ttl_ms = config->ttl_s * 1000,
        /* Due at once: a quiet shop may be restarted before it has seen that many events. */
        .n_since_prune = PRUNE_EVERY_EVENTS};
    int code = sqlite3_prepare_v2(db, INSERT_SQL, -1, &writer->insert, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_prepare_v2(db, ERASE_SQL, -1, &writer->erase, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_prepare_v2(db, PRUNE_SQL, -1, &writer->prune, NULL);
    if (code != SQLITE_OK) {
        enum status status = sqlite_fault(db, code, "preparing to write the history", err);
        finalize_all(writer);
        return status;
    }
    pthread_mutex_init(&writer->lock, NULL);
    pthread_cond_init(&writer->wake, NULL);
    errno = pthread_create(&writer->thread, NULL, writer_main, writer);
    if (errno != 0) {
        enum status status = error_set_errno(err, "starting the history's writer");
        pthread_cond_destroy(&writer->wake);
        pthread_mutex_destroy(&writer->lock);
        finalize_all(writer);
        return status;
    }
    return STATUS_OK;
}

void sqlite_writer_stop(struct sqlite_writer *writer)
{
    pthread_mutex_lock(&writer->lock);
    writer->stopping = true;
    pthread_cond_signal(&writer->wake);
    pthread_mutex_unlock(&writer->lock);
    pthread_join(writer->thread, NULL);
    pthread_cond_destroy(&writer->wake);
    pthread_mutex_destroy(&writer->lock);
    finalize_all(writer);
    sqlite3_close(writer->db);
}
