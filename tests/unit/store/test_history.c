#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <event2/event.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "history_fixture.h"
#include "store/history.h"

/* The contract of history.h: both implementations through the same tests. Without a redis-server
 * the embedded one is tested all the same, and the program says with exit code 77 that some were
 * left out. */

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
    fixture_worker_of(&worker, state, "roundtrip.db");
    struct history_event_in events[3] = {fixture_event_of("anna", "lamp", 1000),
                                         fixture_event_of("anna", "sofa 2", 3000),
                                         fixture_event_of("bert", "chair", 1500)};
    events[1].type = EVENT_PURCHASE;
    events[1].value = 99.5;
    events[1].event_id = "e1";
    events[1].request_id = "r1";
    events[1].session_id = "s1";
    struct seen seen = fixture_append(&worker, events, 3);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_accepted, 3);
    assert_int_equal(seen.n_duplicates, 0);
    events[0] = fixture_event_of("anna", "late", 2000);
    assert_int_equal(fixture_append(&worker, events, 1).status, STATUS_OK);
    seen = fixture_fetch(&worker, "anna", 10);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_items, 3);
    assert_string_equal(seen.ids[0], "late"); /* order of arrival */
    assert_string_equal(seen.ids[1], "sofa 2");
    assert_int_equal(seen.types[1], EVENT_PURCHASE);
    assert_int_equal(seen.times[1], 3000);
    assert_string_equal(seen.ids[2], "lamp");
    assert_int_equal(fixture_fetch(&worker, "bert", 10).n_items, 1);
    assert_int_equal(fixture_fetch(&worker, "nobody", 10).n_items, 0);
    assert_true(history_ready(worker.history));
    fixture_worker_close(&worker);
}

static void history_fetch_n_max_limits(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "limits.db");
    for (int i = 0; i < 8; i++) {
        char item[16];
        snprintf(item, sizeof(item), "i%d", i);
        struct history_event_in event = fixture_event_of("{u} \xc3\xbc", item, i);
        assert_int_equal(fixture_append(&worker, &event, 1).status, STATUS_OK);
    }
    struct seen seen = fixture_fetch(&worker, "{u} \xc3\xbc", 2);
    assert_int_equal(seen.n_items, 2);
    assert_string_equal(seen.ids[0], "i7");
    assert_string_equal(seen.ids[1], "i6");
    seen = fixture_fetch(&worker, "{u} \xc3\xbc", HISTORY_MAX_MAX);
    /* Redis cuts the list to history_max; the embedded file keeps what its stream keeps. */
    bool cuts = strcmp(history_kind(worker.history), "redis") == 0;
    assert_int_equal(seen.n_items, cuts ? 5 : 8);
    fixture_worker_close(&worker);
}

static void history_append_repeated_event_id_counts_once(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "dedup.db");
    struct history_event_in events[3] = {fixture_event_of("anna", "lamp", 1),
                                         fixture_event_of("anna", "sofa", 2),
                                         fixture_event_of("bert", "lamp", 3)};
    events[0].event_id = events[1].event_id = events[2].event_id = "same";
    struct seen seen = fixture_append(&worker, events, 3);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_accepted, 3);
    assert_int_equal(seen.n_duplicates, 1);
    seen = fixture_append(&worker, events, 1);
    assert_int_equal(seen.n_duplicates, 1);
    seen = fixture_fetch(&worker, "anna", 10);
    assert_int_equal(seen.n_items, 1);
    assert_string_equal(seen.ids[0], "lamp");
    fixture_worker_close(&worker);
}

static void history_calls_invalid_arguments_are_refused(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "invalid.db");
    struct seen seen = {.n_calls = 0};
    struct error error;
    struct history_event_in events[2] = {fixture_event_of("anna", "lamp", 1),
                                         fixture_event_of("anna", "", 2)};
    struct history *history = worker.history;
    assert_int_equal(history_append(history, events, 2, fixture_on_append, &seen, &error),
                     STATUS_INVALID);
    assert_string_equal(error.field, "item_id");
    assert_int_equal(history_append(history, events, 0, fixture_on_append, &seen, NULL),
                     STATUS_INVALID);
    assert_int_equal(
        history_append(history, events, HISTORY_APPEND_MAX + 1, fixture_on_append, &seen, NULL),
        STATUS_INVALID);
    events[0].time_ms = -1;
    assert_int_equal(history_append(history, events, 1, fixture_on_append, &seen, NULL),
                     STATUS_INVALID);
    events[0].time_ms = 1;
    events[0].value = (double)INFINITY;
    assert_int_equal(history_append(history, events, 1, fixture_on_append, &seen, NULL),
                     STATUS_INVALID);
    assert_int_equal(history_fetch(history, &(struct history_query){"", 5, fixture_in_ms(1000)},
                                   fixture_on_fetch, &seen, NULL),
                     STATUS_INVALID);
    assert_int_equal(history_fetch(history, &(struct history_query){"anna", 0, fixture_in_ms(1000)},
                                   fixture_on_fetch, &seen, NULL),
                     STATUS_INVALID);
    assert_int_equal(history_erase(history, "a\n", fixture_on_erase, &seen, NULL), STATUS_INVALID);
    assert_int_equal(fixture_fetch(&worker, "anna", 5).n_items, 0);
    assert_int_equal(seen.n_calls, 0);
    fixture_worker_close(&worker);
}

static void history_append_ten_thousand_all_are_stored(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "many.db");
    struct history_event_in *events = mem_calloc(HISTORY_APPEND_MAX, sizeof(*events));
    char(*ids)[16] = mem_calloc(HISTORY_APPEND_MAX, sizeof(*ids));
    for (int i = 0; i < HISTORY_APPEND_MAX; i++) {
        snprintf(ids[i], sizeof(ids[i]), "e%d", i);
        events[i] = fixture_event_of(i % 2 == 0 ? "even" : "odd", ids[i], i);
        events[i].event_id = ids[i];
    }
    struct seen seen = fixture_append(&worker, events, HISTORY_APPEND_MAX);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_accepted, HISTORY_APPEND_MAX);
    seen = fixture_fetch(&worker, "odd", 1);
    assert_string_equal(seen.ids[0], "e9999");
    mem_free(ids);
    mem_free(events);
    fixture_worker_close(&worker);
}

static void history_erase_removes_all_of_one_user(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "erase.db");
    enum { N = 1200 }; /* more than two pieces of the scan */
    struct history_event_in events[N];
    for (int i = 0; i < N; i++) {
        events[i] = fixture_event_of(i % 3 == 0 ? "anna" : "bert", "lamp", i);
        events[i].event_id = i == 0 ? "e" : NULL;
    }
    assert_int_equal(fixture_append(&worker, events, N).status, STATUS_OK);
    struct seen seen = fixture_erase(&worker, "anna");
    assert_int_equal(seen.status, STATUS_OK);
    bool is_redis = strcmp(*state, "redis") == 0;
    assert_int_equal(seen.n_removed, is_redis ? N / 3 + 2 : N / 3);
    assert_int_equal(fixture_fetch(&worker, "anna", 5).n_items, 0);
    assert_int_equal(fixture_fetch(&worker, "bert", 5).n_items, 5);
    if (is_redis)
        assert_int_equal(fixture_redis_do("XLEN aisle:events"), N - N / 3);
    assert_int_equal(fixture_erase(&worker, "anna").n_removed, 0);
    assert_int_equal(fixture_append(&worker, events, 1).n_duplicates,
                     0); /* its id is forgotten too */
    fixture_worker_close(&worker);
}

static void history_close_in_flight_calls_end_once(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "close.db");
    struct seen appended = {.n_calls = 0};
    struct seen erased = {.n_calls = 0};
    struct history_event_in event = fixture_event_of("anna", "lamp", 1);
    for (int i = 0; i < 10; i++)
        assert_int_equal(
            history_append(worker.history, &event, 1, fixture_on_append, &appended, NULL),
            STATUS_OK);
    assert_int_equal(history_erase(worker.history, "bert", fixture_on_erase, &erased, NULL),
                     STATUS_OK);
    history_close(worker.history);
    assert_int_equal(appended.n_calls, 10);
    assert_int_equal(erased.n_calls, 1);
    fixture_worker_close_loop(&worker);
    assert_int_equal(appended.n_calls, 10);
}

static void history_open_out_of_memory_leaves_nothing(void **state)
{
    char address[PATH_TEXT];
    if (strcmp(*state, "redis") == 0)
        fixture_redis_address(address);
    else
        fixture_sqlite_address(address, "oom.db");
    struct history_config config = fixture_config_of(address);
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
    fixture_worker_of(&worker, state, "oomcalls.db");
    struct history_event_in event = fixture_event_of("anna", "lamp", 1);
    struct seen seen = {.n_calls = 0};
    unsigned n_good = 0;
    (void)fixture_fetch(&worker, "bert", 1); /* connected */
    for (int nth = 1; nth < 20; nth++) {
        mem_fail_nth(nth);
        enum status status =
            history_append(worker.history, &event, 1, fixture_on_append, &seen, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        n_good += status == STATUS_OK ? 1 : 0;
        fixture_wait_calls(&worker, &seen, n_good);
        if (status == STATUS_OK)
            break;
    }
    assert_int_equal(n_good, 1);
    assert_int_equal(fixture_fetch(&worker, "anna", 5).n_items, 1);
    for (int nth = 1; nth < 20 && n_good < 2; nth++) {
        mem_fail_nth(nth);
        enum status status =
            history_fetch(worker.history, &(struct history_query){"anna", 200, fixture_in_ms(5000)},
                          fixture_on_fetch, &seen, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        n_good += status == STATUS_OK ? 1 : 0;
        fixture_wait_calls(&worker, &seen, n_good);
    }
    assert_int_equal(seen.n_calls, 2);
    for (int nth = 1; nth < 20 && n_good < 3; nth++) {
        mem_fail_nth(nth);
        enum status status = history_erase(worker.history, "anna", fixture_on_erase, &seen, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        n_good += status == STATUS_OK ? 1 : 0;
        fixture_wait_calls(&worker, &seen, n_good);
    }
    assert_int_equal(seen.n_calls, 3);
    fixture_worker_close(&worker);
}

enum { THREAD_EVENTS = 200 };

static void *thread_main(void *argument)
{
    struct worker worker;
    struct seen seen = {.n_calls = 0};
    fixture_worker_open(&worker, argument);
    for (unsigned i = 0; i < THREAD_EVENTS; i++) {
        struct history_event_in event = fixture_event_of("shared", "lamp", i);
        if (history_append(worker.history, &event, 1, fixture_on_append, &seen, NULL) != STATUS_OK)
            break;
        if (i % 8 == 7)
            fixture_wait_calls(&worker, &seen, i + 1);
    }
    fixture_wait_calls(&worker, &seen, THREAD_EVENTS);
    fixture_worker_close(&worker);
    return seen.n_calls == THREAD_EVENTS && seen.status == STATUS_OK ? argument : NULL;
}

static void history_two_workers_share_a_store(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "threads.db");
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, worker.store), 0);
    for (int i = 0; i < 2; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        assert_non_null(result);
    }
    struct seen seen = fixture_erase(&worker, "shared");
    bool is_redis = strcmp(*state, "redis") == 0;
    assert_int_equal(seen.n_removed, 2 * THREAD_EVENTS + (is_redis ? 1 : 0));
    fixture_worker_close(&worker);
}

int main(void)
{
    static char kind_embedded[] = "sqlite";
    static char kind_redis[] = "redis";
    const struct CMUnitTest elements[] = {
        cmocka_unit_test(history_parse_element_timed_gives_parts),
        cmocka_unit_test(history_parse_element_other_is_bare_id),
        cmocka_unit_test(history_parse_element_garbage_is_refused),
    };
    const struct CMUnitTest embedded[] = {
        cmocka_unit_test_prestate(history_append_then_fetch_gives_newest_first, kind_embedded),
        cmocka_unit_test_prestate(history_fetch_n_max_limits, kind_embedded),
        cmocka_unit_test_prestate(history_append_repeated_event_id_counts_once, kind_embedded),
        cmocka_unit_test_prestate(history_calls_invalid_arguments_are_refused, kind_embedded),
        cmocka_unit_test_prestate(history_append_ten_thousand_all_are_stored, kind_embedded),
        cmocka_unit_test_prestate(history_erase_removes_all_of_one_user, kind_embedded),
        cmocka_unit_test_prestate(history_close_in_flight_calls_end_once, kind_embedded),
        cmocka_unit_test_prestate(history_open_out_of_memory_leaves_nothing, kind_embedded),
        cmocka_unit_test_prestate(history_calls_out_of_memory_change_nothing, kind_embedded),
        cmocka_unit_test_prestate(history_two_workers_share_a_store, kind_embedded),
    };
    const struct CMUnitTest redis[] = {
        cmocka_unit_test_prestate(history_append_then_fetch_gives_newest_first, kind_redis),
        cmocka_unit_test_prestate(history_fetch_n_max_limits, kind_redis),
        cmocka_unit_test_prestate(history_append_repeated_event_id_counts_once, kind_redis),
        cmocka_unit_test_prestate(history_calls_invalid_arguments_are_refused, kind_redis),
        cmocka_unit_test_prestate(history_append_ten_thousand_all_are_stored, kind_redis),
        cmocka_unit_test_prestate(history_erase_removes_all_of_one_user, kind_redis),
        cmocka_unit_test_prestate(history_close_in_flight_calls_end_once, kind_redis),
        cmocka_unit_test_prestate(history_open_out_of_memory_leaves_nothing, kind_redis),
        cmocka_unit_test_prestate(history_calls_out_of_memory_change_nothing, kind_redis),
        cmocka_unit_test_prestate(history_two_workers_share_a_store, kind_redis),
    };
    if (!fixture_setup())
        return 1;
    int n_failed = cmocka_run_group_tests_name("elements", elements, NULL, NULL);
    n_failed += cmocka_run_group_tests_name("embedded", embedded, NULL, NULL);
    bool have_redis = fixture_server_start(&fixture_server, NULL);
    if (have_redis)
        n_failed += cmocka_run_group_tests_name("redis", redis, NULL, NULL);
    return fixture_teardown(n_failed == 0 && !have_redis ? SKIPPED : n_failed);
}
