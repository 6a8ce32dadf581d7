#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "core/histories.h"
#include "core/recommend.h"

enum { USERS = 50, LONG_HISTORY = 1000 };

/* User u has u events, of rows 0, 1, …, at u, u + 1, … ms. */
static void make_log(struct event_log *log)
{
    *log = (struct event_log){.n_sequences = USERS};
    log->offsets = mem_calloc(USERS + 1, sizeof(*log->offsets));
    log->events = mem_calloc(USERS * USERS, sizeof(*log->events));
    assert_non_null(log->offsets);
    assert_non_null(log->events);
    for (size_t u = 0; u < USERS; u++) {
        for (size_t e = 0; e < u; e++) {
            log->events[log->n_events++] =
                (struct history_event){(uint32_t)e, EVENT_VIEW, (int64_t)(u + e)};
        }
        log->offsets[u + 1] = log->n_events;
    }
}

static void history_set_sample_holds_the_last_event_out(void **state)
{
    (void)state;
    struct event_log log;
    struct history_set set = {.n = 0};
    make_log(&log);
    assert_int_equal(history_set_sample(&set, &log, 1000, 3, NULL), STATUS_OK);
    assert_int_equal(set.n, USERS - 2); /* users 0 and 1 have too few */
    for (size_t i = 0; i < set.n; i++) {
        struct probe_history history = history_set_at(&set, i);
        size_t u = history.n_events + 1;
        assert_int_equal(history.now_ms, 2 * u - 1);
        assert_int_equal(history.events[0].row, u - 2);
        assert_int_equal(history.events[history.n_events - 1].row, 0);
    }
    history_set_free(&set);
    event_log_free(&log);
}

static void history_set_sample_one_seed_draws_the_same_users(void **state)
{
    (void)state;
    struct event_log log;
    struct history_set a = {.n = 0};
    struct history_set b = {.n = 0};
    struct history_set c = {.n = 0};
    make_log(&log);
    assert_int_equal(history_set_sample(&a, &log, 20, 3, NULL), STATUS_OK);
    assert_int_equal(history_set_sample(&b, &log, 20, 3, NULL), STATUS_OK);
    assert_int_equal(history_set_sample(&c, &log, 20, 4, NULL), STATUS_OK);
    assert_int_equal(a.n, 20);
    size_t n_different = 0;
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(a.spans[i].n, b.spans[i].n);
        n_different += a.spans[i].n != c.spans[i].n ? 1 : 0;
    }
    assert_true(n_different > 0);
    history_set_free(&a);
    history_set_free(&b);
    history_set_free(&c);
    event_log_free(&log);
}

static void history_set_sample_long_history_keeps_the_newest(void **state)
{
    (void)state;
    struct history_event events[LONG_HISTORY];
    uint64_t offsets[] = {0, LONG_HISTORY};
    struct event_log log = {.events = events, .offsets = offsets, .n_sequences = 1};
    struct history_set set = {.n = 0};
    for (size_t e = 0; e < LONG_HISTORY; e++) {
        events[e] = (struct history_event){(uint32_t)e, EVENT_CART, (int64_t)e};
    }
    assert_int_equal(history_set_sample(&set, &log, 1, 1, NULL), STATUS_OK);
    struct probe_history history = history_set_at(&set, 0);
    assert_int_equal(history.n_events, HISTORY_FETCH_MAX);
    assert_int_equal(history.events[0].row, LONG_HISTORY - 2);
    assert_int_equal(history.events[HISTORY_FETCH_MAX - 1].row,
                     LONG_HISTORY - 1 - HISTORY_FETCH_MAX);
    history_set_free(&set);
}

static void history_set_add_out_of_memory_changes_nothing(void **state)
{
    (void)state;
    struct history_set set = {.n = 0};
    const struct history_event event = {1, EVENT_VIEW, 5};
    for (int64_t nth = 1; nth <= 2; nth++) {
        mem_fail_nth(nth);
        assert_int_equal(history_set_add(&set, &event, 1, 9, NULL), STATUS_NOMEM);
        mem_fail_nth(0);
        assert_int_equal(set.n, 0);
        assert_int_equal(set.n_events, 0);
        history_set_free(&set);
    }
    assert_int_equal(history_set_add(&set, &event, 1, 9, NULL), STATUS_OK);
    assert_int_equal(history_set_at(&set, 0).now_ms, 9);
    history_set_free(&set);
}

static void histories_read_what_was_written_is_the_same(void **state)
{
    (void)state;
    char dir[] = "/tmp/aisle-histories-XXXXXX";
    char path[PATH_BYTES_MAX];
    struct idmap *map = NULL;
    struct history_set set = {.n = 0};
    struct history_set read = {.n = 0};
    struct history_counts counts = {0, 0};
    uint32_t row = 0;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(path_join(path, dir, "histories.jsonl", NULL), STATUS_OK);
    assert_int_equal(idmap_open(0, &map, NULL), STATUS_OK);
    assert_int_equal(idmap_add(map, "a \"quoted\" \\ id", 15, &row), STATUS_OK);
    assert_int_equal(idmap_add(map, "\xc3\xa9", 2, &row), STATUS_OK);
    const struct history_event events[] = {{1, EVENT_PURCHASE, 1700000000123},
                                           {0, EVENT_CLICK, EVENT_TIME_UNKNOWN}};
    assert_int_equal(history_set_add(&set, events, 2, 1700000000999, NULL), STATUS_OK);
    assert_int_equal(history_set_add(&set, events, 1, 0, NULL), STATUS_OK);
    struct row_names names = {.map = map};
    assert_int_equal(histories_write(path, &set, &names, NULL), STATUS_OK);
    assert_int_equal(histories_read(path, &names, 10, &read, &counts, NULL), STATUS_OK);
    assert_int_equal(read.n, 2);
    assert_int_equal(counts.n_events, 3);
    assert_int_equal(counts.n_unknown_item, 0);
    struct probe_history first = history_set_at(&read, 0);
    assert_int_equal(first.n_events, 2);
    assert_int_equal(first.now_ms, 1700000000999);
    for (size_t e = 0; e < 2; e++) {
        assert_int_equal(first.events[e].row, events[e].row);
        assert_int_equal(first.events[e].type, events[e].type);
        assert_int_equal(first.events[e].time_ms, events[e].time_ms);
    }
    history_set_clear(&read);
    assert_int_equal(histories_read(path, &names, 1, &read, &counts, NULL), STATUS_OK);
    assert_int_equal(read.n, 1);
    history_set_free(&read);
    history_set_free(&set);
    idmap_close(map);
    assert_int_equal(dir_remove(dir, NULL), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(history_set_sample_holds_the_last_event_out),
        cmocka_unit_test(history_set_sample_one_seed_draws_the_same_users),
        cmocka_unit_test(history_set_sample_long_history_keeps_the_newest),
        cmocka_unit_test(history_set_add_out_of_memory_changes_nothing),
        cmocka_unit_test(histories_read_what_was_written_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
