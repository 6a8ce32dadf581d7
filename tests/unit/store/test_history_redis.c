#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "history_fixture.h"
#include "store/history.h"

/* What is the Redis history's own: keys, foreign values, passwords, and a server that is silent,
 * late, killed or gone. Exit code 77 without a redis-server. */

static void history_fetch_foreign_elements_are_bare_or_garbage(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "");
    char large[HISTORY_ELEMENT_MAX_BYTES + 1];
    memset(large, 'x', sizeof(large));
    fixture_redis_do("RPUSH %s %b %s %b %s", "aisle:{anna}:history", "bad\xff", (size_t)4, "lamp",
                     large, sizeof(large), "5 click sofa");
    struct seen seen = fixture_fetch(&worker, "anna", 10);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_items, 2);
    assert_int_equal(seen.n_garbage, 2);
    assert_string_equal(seen.ids[0], "lamp");
    assert_int_equal(seen.times[0], EVENT_TIME_UNKNOWN);
    assert_string_equal(seen.ids[1], "sofa");
    assert_int_equal(seen.types[1], EVENT_CLICK);
    fixture_worker_close(&worker);
}

static void history_calls_wrong_type_of_key_write_nothing(void **state)
{
    static const char *const KEYS[] = {"aisle:{anna}:history", "aisle:{anna}:events"};
    for (size_t i = 0; i < 2; i++) {
        struct worker worker;
        fixture_worker_of(&worker, state, "");
        struct history_event_in event = fixture_event_of("bert", "lamp", 1);
        assert_int_equal(fixture_append(&worker, &event, 1).status, STATUS_OK);
        fixture_redis_do("SET %s x", KEYS[i]);
        event.user_id = "anna";
        event.event_id = "e1";
        struct seen seen = fixture_append(&worker, &event, 1);
        assert_int_equal(seen.status, STATUS_MISMATCH);
        assert_int_equal(seen.n_accepted, 0);
        assert_non_null(strstr(seen.message, "WRONGTYPE"));
        assert_int_equal(fixture_redis_do("XLEN aisle:events"), 1);
        assert_int_equal(fixture_redis_do("DBSIZE"), 3);
        seen = fixture_fetch(&worker, "anna", 5);
        assert_int_equal(seen.status, i == 0 ? STATUS_MISMATCH : STATUS_OK);
        assert_int_equal(seen.n_items, 0);
        fixture_worker_close(&worker);
    }
}

static void history_append_wrong_type_of_stream_writes_nothing(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "");
    fixture_redis_do("SET aisle:events x");
    struct history_event_in event = fixture_event_of("anna", "lamp", 1);
    assert_int_equal(fixture_append(&worker, &event, 1).status, STATUS_MISMATCH);
    assert_int_equal(fixture_redis_do("DBSIZE"), 1);
    assert_int_equal(fixture_erase(&worker, "anna").status, STATUS_MISMATCH);
    fixture_worker_close(&worker);
}

static void history_append_full_server_writes_nothing(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "");
    struct history_event_in event = fixture_event_of("anna", "lamp", 1);
    event.event_id = "e1";
    (void)fixture_fetch(&worker, "anna", 1);
    fixture_redis_do("CONFIG SET maxmemory 1");
    struct seen seen = fixture_append(&worker, &event, 1);
    fixture_redis_do("CONFIG SET maxmemory 0");
    assert_int_equal(seen.status, STATUS_UNAVAILABLE);
    assert_int_equal(fixture_redis_do("DBSIZE"), 0);
    assert_int_equal(fixture_append(&worker, &event, 1).n_duplicates, 0);
    fixture_worker_close(&worker);
}

static void history_append_keys_have_limits_and_ttl(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "");
    struct history_event_in events[20];
    char ids[20][16];
    for (int i = 0; i < 20; i++) {
        snprintf(ids[i], sizeof(ids[i]), "e%d", i);
        events[i] = fixture_event_of("anna", "lamp", i);
        events[i].event_id = ids[i];
    }
    assert_int_equal(fixture_append(&worker, events, 20).status, STATUS_OK);
    assert_int_equal(fixture_redis_do("LLEN %s", "aisle:{anna}:history"), 5);
    assert_int_equal(fixture_redis_do("ZCARD %s", "aisle:{anna}:events"), 20);
    assert_int_equal(fixture_redis_do("XLEN aisle:events"), 20);
    assert_true(fixture_redis_do("TTL %s", "aisle:{anna}:history") > 0);
    assert_true(fixture_redis_do("TTL %s", "aisle:{anna}:events") > 0);
    assert_int_equal(fixture_redis_do("TTL aisle:events"), -1);
    fixture_worker_close(&worker);
}

static void history_append_forgotten_script_is_sent_again(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "");
    struct history_event_in events[2] = {fixture_event_of("anna", "lamp", 1),
                                         fixture_event_of("anna", "sofa", 2)};
    assert_int_equal(fixture_append(&worker, events, 2).status, STATUS_OK);
    fixture_redis_do("SCRIPT FLUSH");
    struct seen seen = fixture_append(&worker, events, 2);
    assert_int_equal(seen.status, STATUS_OK);
    assert_int_equal(seen.n_accepted, 2);
    seen = fixture_fetch(&worker, "anna", 5);
    assert_int_equal(seen.n_items, 4);
    assert_string_equal(seen.ids[0], "sofa");
    fixture_worker_close(&worker);
}

static void history_store_open_config_keys_and_database_are_used(void **state)
{
    (void)state;
    char address[PATH_TEXT + 8];
    fixture_redis_do("FLUSHALL");
    snprintf(address, sizeof(address), "redis+unix://%.400s?db=3", fixture_server.socket);
    struct history_config config = fixture_config_of(address);
    config.key_pattern = "shop:%u:seen";
    config.key_prefix = "shop:";
    config.ttl_s = 0;
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    struct history_event_in event = fixture_event_of("anna", "lamp", 1);
    event.event_id = "e";
    assert_int_equal(fixture_append(&worker, &event, 1).status, STATUS_OK);
    assert_int_equal(fixture_redis_do("DBSIZE"), 0);
    fixture_redis_do("SWAPDB 0 3");
    assert_int_equal(fixture_redis_do("TTL shop:anna:seen"), -1);
    assert_int_equal(fixture_redis_do("XLEN shop:events"), 1);
    assert_int_equal(fixture_redis_do("ZCARD %s", "shop:{anna}:events"), 1);
    fixture_worker_close(&worker);
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
        struct history_config config = fixture_config_of(ADDRESSES[i]);
        struct history_store *store = NULL;
        if (history_store_open(&config, &store, NULL) != STATUS_INVALID)
            fail_msg("%s", ADDRESSES[i]);
        assert_null(store);
    }
    struct history_config config = fixture_config_of("redis://127.0.0.1:1");
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
    fixture_server_stop(&fixture_server);
    /* Another process may take the port between: try some. */
    for (int i = 0; i < 5 && server.pid <= 0; i++) {
        server.port = fixture_free_port();
        (void)fixture_server_start(&server, "s e:c");
    }
    assert_true(server.pid > 0);
    struct history_event_in event = fixture_event_of("anna", "lamp", 1);
    for (size_t i = 0; i < 2; i++) {
        if (i == 0)
            snprintf(address, sizeof(address), "redis://:s%%20e%%3ac@127.0.0.1:%d/1", server.port);
        else
            snprintf(address, sizeof(address), "redis://default:s%%20e%%3Ac@localhost:%d",
                     server.port);
        struct history_config config = fixture_config_of(address);
        struct worker worker;
        fixture_worker_open_config(&worker, &config);
        assert_int_equal(fixture_append(&worker, &event, 1).status, STATUS_OK);
        assert_int_equal(fixture_fetch(&worker, "anna", 3).n_items, 1);
        fixture_worker_close(&worker);
    }
    snprintf(address, sizeof(address), "redis://:s%%20e%%3ac@127.0.0.1:%d", server.port);
    struct history_config config = fixture_config_of(address);
    config.password = "wrong";
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    struct seen seen = fixture_append(&worker, &event, 1);
    assert_int_equal(seen.status, STATUS_UNAVAILABLE);
    assert_false(history_ready(worker.history));
    struct error error = {.code = STATUS_OK};
    while (history_append(worker.history, &event, 1, fixture_on_append, &seen, &error) == STATUS_OK)
        assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0);
    if (strstr(error.message, "WRONGPASS") == NULL) /* and not that the server hung up */
        fail_msg("%s", error.message);
    fixture_worker_close(&worker);
    fixture_server_stop(&server);
    assert_true(fixture_server_start(&fixture_server, NULL));
}

static void history_fetch_killed_server_fails_then_recovers(void **state)
{
    struct worker worker;
    fixture_worker_of(&worker, state, "");
    struct history_event_in event = fixture_event_of("anna", "lamp", 1);
    struct seen seen = {.n_calls = 0};
    assert_int_equal(fixture_append(&worker, &event, 1).status, STATUS_OK);
    kill(fixture_server.pid, SIGSTOP);
    assert_int_equal(history_fetch(worker.history,
                                   &(struct history_query){"anna", 5, fixture_in_ms(10000)},
                                   fixture_on_fetch, &seen, NULL),
                     STATUS_OK);
    fixture_server_stop(&fixture_server);
    fixture_wait_calls(&worker, &seen, 1);
    assert_int_equal(seen.status, STATUS_UNAVAILABLE);
    struct error error = {.code = STATUS_OK};
    assert_false(history_ready(worker.history));
    assert_int_equal(history_fetch(worker.history,
                                   &(struct history_query){"anna", 5, fixture_in_ms(10000)},
                                   fixture_on_fetch, &seen, &error),
                     STATUS_UNAVAILABLE);
    assert_true(error.message[0] != '\0');
    assert_int_equal(history_append(worker.history, &event, 1, fixture_on_append, &seen, NULL),
                     STATUS_UNAVAILABLE);
    assert_true(fixture_server_start(&fixture_server, NULL));
    while (!history_ready(worker.history))
        assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0);
    assert_int_equal(fixture_append(&worker, &event, 1).status, STATUS_OK);
    assert_int_equal(fixture_fetch(&worker, "anna", 5).n_items, 1);
    assert_int_equal(seen.n_calls, 1);
    fixture_worker_close(&worker);
}

static void history_fetch_named_host_is_looked_up_again(void **state)
{
    (void)state;
    struct server server = {.port = 0};
    char address[PATH_TEXT];
    fixture_server_stop(&fixture_server);
    for (int i = 0; i < 5 && server.pid <= 0; i++) {
        server.port = fixture_free_port();
        (void)fixture_server_start(&server, NULL);
    }
    assert_true(server.pid > 0);
    snprintf(address, sizeof(address), "redis://localhost:%d", server.port);
    struct history_config config = fixture_config_of(address);
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    assert_int_equal(fixture_fetch(&worker, "anna", 5).status, STATUS_OK);
    fixture_server_stop(&server);
    while (history_ready(worker.history))
        assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0);
    assert_true(fixture_server_start(&server, NULL));
    while (!history_ready(worker.history))
        assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0);
    assert_int_equal(fixture_fetch(&worker, "anna", 5).status, STATUS_OK);
    fixture_worker_close(&worker);
    fixture_server_stop(&server);
    assert_true(fixture_server_start(&fixture_server, NULL));
}

static void history_open_unknown_host_is_unavailable(void **state)
{
    (void)state;
    struct history_config config = fixture_config_of("redis://no-such-host.invalid:6379");
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    struct seen seen = {.n_calls = 0};
    struct error error = {.code = STATUS_OK};
    assert_int_equal(history_fetch(worker.history,
                                   &(struct history_query){"anna", 5, fixture_in_ms(50)},
                                   fixture_on_fetch, &seen, &error),
                     STATUS_UNAVAILABLE);
    assert_non_null(strstr(error.message, "no-such-host.invalid"));
    assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0); /* a look-up on its thread */
    fixture_worker_close(&worker);
}

static void history_fetch_stopped_server_is_late_then_dropped(void **state)
{
    (void)state;
    char address[PATH_TEXT];
    fixture_redis_address(address);
    fixture_redis_do("FLUSHALL");
    struct history_config config = fixture_config_of(address);
    config.command_timeout_ms = 300;
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    struct history_event_in event = fixture_event_of("anna", "lamp", 1);
    assert_int_equal(fixture_append(&worker, &event, 1).status, STATUS_OK);
    kill(fixture_server.pid, SIGSTOP);
    struct seen late = {.n_calls = 0};
    struct seen later = {.n_calls = 0};
    int64_t deadline_us = fixture_in_ms(60);
    assert_int_equal(history_fetch(worker.history,
                                   &(struct history_query){"anna", 5, deadline_us + 40000},
                                   fixture_on_fetch, &later, NULL),
                     STATUS_OK);
    assert_int_equal(history_fetch(worker.history, &(struct history_query){"anna", 5, deadline_us},
                                   fixture_on_fetch, &late, NULL),
                     STATUS_OK);
    fixture_wait_calls(&worker, &late, 1);
    assert_int_equal(late.status, STATUS_TIMEOUT);
    assert_true(late.at_us >= deadline_us);
    assert_int_equal(later.n_calls, 0);
    fixture_wait_calls(&worker, &later, 1);
    assert_int_equal(later.status, STATUS_TIMEOUT);
    assert_true(later.at_us >= deadline_us + 40000);
    /* Its late reply is dropped, and the connection is good still. */
    kill(fixture_server.pid, SIGCONT);
    assert_int_equal(fixture_fetch(&worker, "anna", 5).n_items, 1);
    assert_int_equal(late.n_calls, 1);
    kill(fixture_server.pid, SIGSTOP);
    assert_int_equal(history_fetch(worker.history,
                                   &(struct history_query){"anna", 5, fixture_in_ms(10000)},
                                   fixture_on_fetch, &late, NULL),
                     STATUS_OK);
    fixture_wait_calls(&worker, &late, 2); /* the watchdog, long before the deadline */
    assert_int_equal(late.status, STATUS_UNAVAILABLE);
    assert_false(history_ready(worker.history));
    kill(fixture_server.pid, SIGCONT);
    while (!history_ready(worker.history))
        assert_int_equal(event_base_loop(worker.base, EVLOOP_ONCE), 0);
    fixture_worker_close(&worker);
}

static void history_fetch_silent_server_times_out_at_deadline(void **state)
{
    (void)state;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char address[PATH_TEXT];
    snprintf(name.sun_path, sizeof(name.sun_path), "%.80s/silent.sock", fixture_folder);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    assert_int_equal(listen(fd, 8), 0);
    snprintf(address, sizeof(address), "redis+unix://%.100s", name.sun_path);
    struct history_config config = fixture_config_of(address);
    config.connect_timeout_ms = 250;
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    struct seen seen = {.n_calls = 0};
    struct seen other = {.n_calls = 0};
    int64_t deadline_us = fixture_in_ms(50);
    assert_int_equal(history_fetch(worker.history, &(struct history_query){"anna", 5, deadline_us},
                                   fixture_on_fetch, &seen, NULL),
                     STATUS_OK);
    assert_int_equal(history_fetch(worker.history,
                                   &(struct history_query){"anna", 5, fixture_in_ms(9000)},
                                   fixture_on_fetch, &other, NULL),
                     STATUS_OK);
    fixture_wait_calls(&worker, &seen, 1);
    assert_int_equal(seen.status, STATUS_TIMEOUT);
    assert_true(seen.at_us >= deadline_us);
    fixture_wait_calls(&worker, &other, 1); /* the connect timeout */
    assert_int_equal(other.status, STATUS_UNAVAILABLE);
    assert_int_equal(history_fetch(worker.history,
                                   &(struct history_query){"anna", 5, fixture_in_ms(50)},
                                   fixture_on_fetch, &seen, NULL),
                     STATUS_UNAVAILABLE);
    assert_int_equal(seen.n_calls, 1);
    fixture_worker_close(&worker);
    close(fd);
}

static void history_fetch_absent_server_is_unavailable(void **state)
{
    (void)state;
    struct history_config config = fixture_config_of("redis+unix:///nonexistent/redis.sock");
    struct worker worker;
    fixture_worker_open_config(&worker, &config);
    struct seen seen = {.n_calls = 0};
    struct error error = {.code = STATUS_OK};
    assert_int_equal(history_fetch(worker.history,
                                   &(struct history_query){"anna", 5, fixture_in_ms(50)},
                                   fixture_on_fetch, &seen, &error),
                     STATUS_UNAVAILABLE);
    assert_non_null(strstr(error.message, "No such file"));
    assert_int_equal(seen.n_calls, 0);
    fixture_worker_close(&worker);
}

int main(void)
{
    static char kind_redis[] = "redis";
    const struct CMUnitTest redis[] = {
        cmocka_unit_test_prestate(history_fetch_foreign_elements_are_bare_or_garbage, kind_redis),
        cmocka_unit_test_prestate(history_calls_wrong_type_of_key_write_nothing, kind_redis),
        cmocka_unit_test_prestate(history_append_wrong_type_of_stream_writes_nothing, kind_redis),
        cmocka_unit_test_prestate(history_append_full_server_writes_nothing, kind_redis),
        cmocka_unit_test_prestate(history_append_keys_have_limits_and_ttl, kind_redis),
        cmocka_unit_test_prestate(history_append_forgotten_script_is_sent_again, kind_redis),
        cmocka_unit_test_prestate(history_store_open_config_keys_and_database_are_used, kind_redis),
        cmocka_unit_test_prestate(history_store_open_bad_address_is_invalid, kind_redis),
        cmocka_unit_test_prestate(history_open_password_over_tcp, kind_redis),
        cmocka_unit_test_prestate(history_fetch_killed_server_fails_then_recovers, kind_redis),
        cmocka_unit_test_prestate(history_fetch_named_host_is_looked_up_again, kind_redis),
        cmocka_unit_test_prestate(history_open_unknown_host_is_unavailable, kind_redis),
        cmocka_unit_test_prestate(history_fetch_stopped_server_is_late_then_dropped, kind_redis),
        cmocka_unit_test_prestate(history_fetch_silent_server_times_out_at_deadline, kind_redis),
        cmocka_unit_test_prestate(history_fetch_absent_server_is_unavailable, kind_redis),
    };
    if (!fixture_setup())
        return 1;
    if (!fixture_server_start(&fixture_server, NULL))
        return fixture_teardown(SKIPPED);
    return fixture_teardown(cmocka_run_group_tests_name("redis", redis, NULL, NULL));
}
