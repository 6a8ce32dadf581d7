#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "history_fixture.h"
#include "store/history.h"
#include "store/history_internal.h"

/* What is the embedded history's own: whose file it is, what a kill leaves, and the limits of the
 * writer's queue and of the stream. */

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
    snprintf(path, sizeof(path), "%.400s/%s", fixture_folder, name);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static enum status open_status(const char *name, struct error *error)
{
    char address[PATH_TEXT];
    fixture_sqlite_address(address, name);
    struct history_config config = fixture_config_of(address);
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
    snprintf(path, sizeof(path), "%.400s/foreign.db", fixture_folder);
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
    snprintf(path, sizeof(path), "%.400s/noise.db", fixture_folder);
    assert_int_equal(file_write_atomic(path, NOISE, sizeof(NOISE), NULL), STATUS_OK);
    assert_int_equal(open_status("noise.db", &error), STATUS_FORMAT);
    snprintf(path, sizeof(path), "%.400s/folder.db", fixture_folder);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(open_status("folder.db", &error), STATUS_IO);
    assert_int_equal(open_status("absent/x.db", &error), STATUS_IO);
    assert_non_null(strstr(error.message, "absent/x.db"));
}

static void history_store_open_again_finds_events(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    fixture_sqlite_address(address, "again.db");
    struct history_config config = fixture_config_of(address);
    for (size_t i = 1; i <= 3; i++) {
        struct worker worker;
        fixture_worker_open_config(&worker, &config);
        struct history_event_in event = fixture_event_of("anna", "lamp", (int64_t)i);
        assert_int_equal(fixture_append(&worker, &event, 1).status, STATUS_OK);
        assert_int_equal(fixture_fetch(&worker, "anna", 10).n_items, i);
        fixture_worker_close(&worker);
    }
}

/* A process that dies right after the acknowledgement has lost nothing. */
static void history_append_acknowledged_survives_kill(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    int fds[2];
    fixture_sqlite_address(address, "killed.db");
    struct history_config config = fixture_config_of(address);
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct worker worker;
        fixture_worker_open_config(&worker, &config);
        struct history_event_in event = fixture_event_of("anna", "lamp", 1);
        for (;;) {
            if (fixture_append(&worker, &event, 1).status != STATUS_OK ||
                write(fds[1], "x", 1) != 1)
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
    fixture_worker_open_config(&worker, &config);
    struct seen seen = fixture_fetch(&worker, "anna", HISTORY_MAX_MAX);
    assert_true(seen.n_items == n || seen.n_items == n + 1);
    fixture_worker_close(&worker);
}

static void history_append_failing_commit_stores_nothing(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    fixture_sqlite_address(address, "readonly.db");
    struct history_config config = fixture_config_of(address);
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    make_db("readonly.db", "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN new.item_id = 'bad'"
                           " BEGIN SELECT raise(FAIL, 'no room'); END");
    struct history_event_in events[2] = {fixture_event_of("anna", "lamp", 1),
                                         fixture_event_of("anna", "bad", 2)};
    struct seen seen = fixture_append(&worker, events, 2);
    assert_int_equal(seen.status, STATUS_UNAVAILABLE);
    assert_int_equal(seen.n_accepted, 0);
    assert_non_null(strstr(seen.message, "no room"));
    assert_int_equal(fixture_fetch(&worker, "anna", 5).n_items, 0);
    assert_int_equal(fixture_append(&worker, events, 1).status, STATUS_OK);
    assert_int_equal(fixture_fetch(&worker, "anna", 5).n_items, 1);
    fixture_worker_close(&worker);
}

static void history_append_over_stream_max_prunes_oldest(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    fixture_sqlite_address(address, "prune.db");
    struct history_config config = fixture_config_of(address);
    config.stream_max = 100;
    config.history_max = HISTORY_MAX_MAX;
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    enum { N = 3000 };
    struct history_event_in *events = mem_calloc(N, sizeof(*events));
    for (int i = 0; i < N; i++)
        events[i] = fixture_event_of(i < N / 2 ? "old" : "new", "lamp", i);
    assert_int_equal(fixture_append(&worker, events, N).status, STATUS_OK);
    /* The pruning is behind the acknowledgement; the next write is behind the pruning. */
    assert_int_equal(fixture_append(&worker, events, 1).status, STATUS_OK);
    assert_int_equal(fixture_fetch(&worker, "new", HISTORY_MAX_MAX).n_items, 100);
    assert_int_equal(fixture_fetch(&worker, "old", HISTORY_MAX_MAX).n_items, 1);
    mem_free(events);
    fixture_worker_close(&worker);
}

/* Whether any of the history's files holds a text. */
static bool files_hold(const char *name, const char *text)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    bool holds = false;
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        char path[PATH_TEXT + 8];
        struct buf bytes;
        buf_init(&bytes, 16 << 20);
        snprintf(path, sizeof(path), "%.400s/%s%s", fixture_folder, name, suffixes[i]);
        if (file_exists(path)) {
            assert_int_equal(file_read(path, &bytes, NULL), STATUS_OK);
            holds = holds ||
                    (bytes.len > 0 && memmem(bytes.data, bytes.len, text, strlen(text)) != NULL);
        }
        buf_free(&bytes);
    }
    return holds;
}

static void history_erase_leaves_no_trace_in_any_file(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    fixture_sqlite_address(address, "trace.db");
    struct history_config config = fixture_config_of(address);
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    struct history_event_in event = fixture_event_of("forget-me-wholly", "lamp", 1);
    assert_int_equal(fixture_append(&worker, &event, 1).status, STATUS_OK);
    assert_int_equal(fixture_fetch(&worker, "forget-me-wholly", 5).n_items, 1);
    assert_true(files_hold("trace.db", "forget-me-wholly"));
    assert_int_equal(fixture_erase(&worker, "forget-me-wholly").n_removed, 1);
    assert_false(files_hold("trace.db", "forget-me-wholly"));
    fixture_worker_close(&worker);
}

static void history_store_open_after_a_restart_prunes_with_the_first_write(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    fixture_sqlite_address(address, "quiet.db");
    struct history_config config = fixture_config_of(address);
    config.stream_max = 2;
    struct history_event_in event = fixture_event_of("anna", "lamp", 1);
    struct worker worker;
    for (int i = 0; i < 6; i++) {
        fixture_worker_open_config(&worker, &config);
        assert_int_equal(fixture_append(&worker, &event, 1).status, STATUS_OK);
        fixture_worker_close(&worker);
    }
    fixture_worker_open_config(&worker, &config);
    assert_int_equal(fixture_fetch(&worker, "anna", HISTORY_MAX_MAX).n_items, 2);
    fixture_worker_close(&worker);
}

static void history_fetch_expired_event_is_not_given(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    fixture_sqlite_address(address, "ttl.db");
    struct history_config config = fixture_config_of(address);
    config.ttl_s = 3600;
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    struct history_event_in events[2] = {fixture_event_of("anna", "lamp", 1),
                                         fixture_event_of("anna", "sofa", 2)};
    assert_int_equal(fixture_append(&worker, events, 2).status, STATUS_OK);
    make_db("ttl.db", "UPDATE events SET received_ms = received_ms - 3601000 WHERE id = 1");
    struct seen seen = fixture_fetch(&worker, "anna", 5);
    assert_int_equal(seen.n_items, 1);
    assert_string_equal(seen.ids[0], "sofa");
    fixture_worker_close(&worker);
}

static void history_append_full_queue_is_unavailable(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    fixture_sqlite_address(address, "queue.db");
    struct history_config config = fixture_config_of(address);
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    /* Another connection holds the write lock: the queue can only fill. */
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(strchr(address, ':') + 1, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    struct history_event_in *events = mem_calloc(HISTORY_APPEND_MAX, sizeof(*events));
    for (int i = 0; i < HISTORY_APPEND_MAX; i++)
        events[i] = fixture_event_of("anna", "lamp", i);
    struct seen seen = {.n_calls = 0};
    unsigned n_taken = 0;
    while (history_append(worker.history, events, HISTORY_APPEND_MAX, fixture_on_append, &seen,
                          NULL) == STATUS_OK)
        n_taken++;
    assert_true(n_taken >= 10 && n_taken <= 12);
    assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    fixture_wait_calls(&worker, &seen, n_taken);
    assert_int_equal(seen.status, STATUS_OK);
    mem_free(events);
    fixture_worker_close(&worker);
}

int main(void)
{
    static char kind_embedded[] = "sqlite";
    const struct CMUnitTest embedded[] = {
        cmocka_unit_test_prestate(history_sqlite_schema_equals_the_file, kind_embedded),
        cmocka_unit_test_prestate(history_store_open_foreign_file_is_refused_unchanged,
                                  kind_embedded),
        cmocka_unit_test_prestate(history_store_open_damaged_or_no_file_is_refused, kind_embedded),
        cmocka_unit_test_prestate(history_store_open_again_finds_events, kind_embedded),
        cmocka_unit_test_prestate(history_append_acknowledged_survives_kill, kind_embedded),
        cmocka_unit_test_prestate(history_append_failing_commit_stores_nothing, kind_embedded),
        cmocka_unit_test_prestate(history_append_over_stream_max_prunes_oldest, kind_embedded),
        cmocka_unit_test_prestate(history_erase_leaves_no_trace_in_any_file, kind_embedded),
        cmocka_unit_test_prestate(history_store_open_after_a_restart_prunes_with_the_first_write,
                                  kind_embedded),
        cmocka_unit_test_prestate(history_fetch_expired_event_is_not_given, kind_embedded),
        cmocka_unit_test_prestate(history_append_full_queue_is_unavailable, kind_embedded),
    };
    if (!fixture_setup())
        return 1;
    return fixture_teardown(cmocka_run_group_tests_name("embedded", embedded, NULL, NULL));
}
