#include "store/event_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/rng.h"

static char path[] = "/tmp/aisle-events-XXXXXX";

static int make_path(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_events(const char *text)
{
    struct error err = {.code = STATUS_OK};
    if (file_write_atomic(path, text, strlen(text), &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

/* Ids "A", "B", "C" … are the rows 0, 1, 2 … */
static struct idmap *make_items(size_t n)
{
    struct idmap *items = NULL;
    assert_int_equal(idmap_open(n, &items, NULL), STATUS_OK);
    for (size_t i = 0; i < n; i++) {
        uint32_t row = 0;
        char id = (char)('A' + (int)i);
        assert_int_equal(idmap_add(items, &id, 1, &row), STATUS_OK);
    }
    return items;
}

/* "0:ABC 1:A" : user number and items of each sequence. */
static void describe(const struct event_log *log, char *out, size_t cap)
{
    size_t len = 0;
    out[0] = '\0';
    for (size_t s = 0; s < log->n_sequences; s++) {
        len += (size_t)snprintf(out + len, cap - len, "%s%u:", s > 0 ? " " : "",
                                (unsigned)log->users[s]);
        for (uint64_t i = log->offsets[s]; i < log->offsets[s + 1]; i++)
            len +=
                (size_t)snprintf(out + len, cap - len, "%c", (char)('A' + (int)log->events[i].row));
    }
}

static void expect_log(enum event_grouping grouping, int64_t gap_ms, const char *expected)
{
    struct idmap *items = make_items(5);
    struct event_log_config config = {
        .path = path, .items = items, .grouping = grouping, .session_gap_ms = gap_ms};
    struct event_log log;
    struct error err = {.code = STATUS_OK};
    char text[512];
    if (event_log_load(&config, &log, NULL, NULL, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    describe(&log, text, sizeof(text));
    assert_string_equal(text, expected);
    event_log_free(&log);
    idmap_close(items);
}

static void event_log_load_by_user_sorts_by_time(void **state)
{
    (void)state;
    write_events("user_id,item_id,timestamp,type,session_id\n"
                 "u,C,3000,view,s2\nv,A,5000,cart,\nu,A,1000,view,s1\nu,X,1500,view,s1\n"
                 "u,B,2000,purchase,s1\nw,Y,1,view,\n");
    struct idmap *items = make_items(5);
    struct event_log_config config = {.path = path, .items = items, .grouping = EVENTS_BY_USER};
    struct event_log log;
    struct event_log_counts counts;
    struct idmap *users = NULL;
    char text[64];
    assert_int_equal(event_log_load(&config, &log, &counts, &users, NULL), STATUS_OK);
    describe(&log, text, sizeof(text));
    assert_string_equal(text, "0:ABC 1:A");
    assert_int_equal(log.n_events, 4);
    assert_int_equal(log.n_users, 2);
    assert_int_equal(log.events[1].type, EVENT_PURCHASE);
    assert_int_equal(log.events[1].time_ms, 2000000);
    assert_int_equal(log.events[3].type, EVENT_CART);
    assert_int_equal(counts.n_read, 6);
    assert_int_equal(counts.n_unknown_item, 2);
    assert_int_equal(counts.first_ms, 1000000);
    assert_int_equal(counts.last_ms, 5000000);
    assert_int_equal(idmap_size(users), 2);
    assert_string_equal(idmap_id(users, 0, NULL), "u");
    assert_string_equal(idmap_id(users, 1, NULL), "v");
    idmap_close(users);
    event_log_free(&log);
    idmap_close(items);
}

static void event_log_load_equal_times_keep_file_order(void **state)
{
    (void)state;
    write_events("user_id,item_id,timestamp\nu,D,5\nu,B,5\nu,C,5\nu,A,4\nu,E,5\n");
    expect_log(EVENTS_BY_USER, 0, "0:ADBCE");
}

static void event_log_load_by_session_groups_ids(void **state)
{
    (void)state;
    /* Overlapping sessions of one user; another user's session of the same name. */
    write_events("user_id,item_id,timestamp,session_id\n"
                 "u,A,10,s1\nu,B,20,s2\nv,E,5,s1\nu,C,30,s1\nu,D,40,s2\n");
    expect_log(EVENTS_BY_SESSION, 0, "0:AC 0:BD 1:E");
}

static void event_log_load_by_session_cuts_at_gaps(void **state)
{
    (void)state;
    /* The default is 30 minutes: 1800 s later is the same session, 1801 s is not. */
    write_events("user_id,item_id,timestamp,session_id\n"
                 "u,A,1000,\nu,B,2800,\nu,C,4601,\nu,D,4700,s\nu,E,6401,\nv,A,6402,\n");
    expect_log(EVENTS_BY_SESSION, 0, "0:AB 0:CE 0:D 1:A");
    expect_log(EVENTS_BY_SESSION, 100000, "0:A 0:B 0:C 0:D 0:E 1:A");
    expect_log(EVENTS_BY_USER, 0, "0:ABCDE 1:A");
}

static void event_log_load_no_known_item_is_empty(void **state)
{
    (void)state;
    write_events("user_id,item_id,timestamp\nu,X,5\n");
    struct idmap *items = make_items(1);
    struct event_log_config config = {.path = path, .items = items};
    struct event_log log;
    struct event_log_counts counts;
    struct idmap *users = NULL;
    assert_int_equal(event_log_load(&config, &log, &counts, &users, NULL), STATUS_OK);
    assert_int_equal(log.n_sequences, 0);
    assert_int_equal(log.offsets[0], 0);
    assert_int_equal(counts.n_unknown_item, 1);
    assert_int_equal(counts.first_ms, EVENT_TIME_UNKNOWN);
    assert_int_equal(idmap_size(users), 0);
    idmap_close(users);
    event_log_free(&log);
    idmap_close(items);
}

static int compare_times(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

static void event_log_load_many_shuffled_events_are_sorted(void **state)
{
    (void)state;
    enum { N = 20000, N_USERS = 37, LINE_BYTES = 48 };
    char *text = mem_alloc((size_t)N * LINE_BYTES + 64);
    int64_t *times = mem_alloc_array(N, sizeof(*times));
    assert_true(text != NULL && times != NULL);
    size_t len = (size_t)snprintf(text, 64, "user_id,item_id,timestamp\n");
    struct rng rng;
    rng_init(&rng, 5);
    for (size_t i = 0; i < N; i++) {
        times[i] = INT64_C(1700000000000) + (int64_t)rng_below(&rng, 5000);
        len += (size_t)snprintf(text + len, LINE_BYTES, "u%u,A,%lld\n",
                                (unsigned)rng_below(&rng, N_USERS), (long long)times[i]);
    }
    write_events(text);
    struct idmap *items = make_items(1);
    struct event_log_config config = {.path = path, .items = items};
    struct event_log log;
    assert_int_equal(event_log_load(&config, &log, NULL, NULL, NULL), STATUS_OK);
    assert_int_equal(log.n_events, N);
    assert_int_equal(log.n_sequences, N_USERS);
    assert_int_equal(log.offsets[N_USERS], N);
    for (size_t s = 0; s < log.n_sequences; s++) {
        assert_int_equal(log.users[s], s);
        for (uint64_t i = log.offsets[s] + 1; i < log.offsets[s + 1]; i++)
            assert_true(log.events[i - 1].time_ms <= log.events[i].time_ms);
    }
    /* Nothing was lost: the times are the same multiset. */
    int64_t *got = mem_alloc_array(N, sizeof(*got));
    assert_non_null(got);
    for (size_t i = 0; i < N; i++)
        got[i] = log.events[i].time_ms;
    qsort(got, N, sizeof(*got), compare_times);
    qsort(times, N, sizeof(*times), compare_times);
    assert_memory_equal(got, times, N * sizeof(*got));
    event_log_free(&log);
    idmap_close(items);
    mem_free(got);
    mem_free(times);
    mem_free(text);
}

static void event_log_load_fault_leaves_nothing(void **state)
{
    (void)state;
    write_events("user_id,item_id,timestamp\nu,A,5\nu,A,soon\n");
    struct idmap *items = make_items(1);
    struct event_log_config config = {.path = path, .items = items};
    struct event_log log;
    struct event_log_counts counts = {.n_read = 77};
    struct idmap *users = NULL;
    struct error err = {.code = STATUS_OK};
    assert_int_equal(event_log_load(&config, &log, &counts, &users, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, ":3: timestamp: "));
    assert_null(log.events);
    assert_int_equal(log.n_events, 0);
    assert_int_equal(counts.n_read, 77);
    assert_null(users);
    config.path = "/nonexistent/events.csv";
    assert_int_equal(event_log_load(&config, &log, &counts, &users, &err), STATUS_NOT_FOUND);
    idmap_close(items);
}

static void event_log_load_without_memory_is_nomem(void **state)
{
    (void)state;
    write_events("user_id,item_id,timestamp,session_id\nu,A,5,s\nv,A,6,\n");
    struct idmap *items = make_items(1);
    struct event_log_config config = {.path = path, .items = items, .grouping = EVENTS_BY_SESSION};
    for (int64_t nth = 1;; nth++) {
        assert_true(nth < 1000);
        struct event_log log;
        struct idmap *users = NULL;
        struct error err = {.code = STATUS_OK};
        mem_fail_nth(nth);
        enum status status = event_log_load(&config, &log, NULL, &users, &err);
        mem_fail_nth(0);
        if (status == STATUS_OK) {
            assert_int_equal(log.n_sequences, 2);
            event_log_free(&log);
            idmap_close(users);
            break;
        }
        assert_int_equal(status, STATUS_NOMEM);
        assert_int_equal(err.code, STATUS_NOMEM);
        assert_null(log.events);
        assert_null(users);
    }
    idmap_close(items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(event_log_load_by_user_sorts_by_time),
        cmocka_unit_test(event_log_load_equal_times_keep_file_order),
        cmocka_unit_test(event_log_load_by_session_groups_ids),
        cmocka_unit_test(event_log_load_by_session_cuts_at_gaps),
        cmocka_unit_test(event_log_load_no_known_item_is_empty),
        cmocka_unit_test(event_log_load_many_shuffled_events_are_sorted),
        cmocka_unit_test(event_log_load_fault_leaves_nothing),
        cmocka_unit_test(event_log_load_without_memory_is_nomem),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
