#include "store/event_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "store/table_internal.h"

static enum status open_text(const char *name, const char *text, struct event_reader **out,
                             struct error *err)
{
    *out = NULL;
    struct table *table = NULL;
    enum status status = table_open_bytes(text, strlen(text), name, '\0', &table, err);
    return status == STATUS_OK ? event_reader_open_table(table, out, err) : status;
}

static enum status read_all(const char *name, const char *text, size_t *n, struct error *err)
{
    struct event_reader *reader = NULL;
    *n = 0;
    enum status status = open_text(name, text, &reader, err);
    assert_true(status == STATUS_OK || reader == NULL);
    while (status == STATUS_OK) {
        struct event_record event = {.time_ms = 77};
        status = event_reader_next(reader, &event, err);
        if (status == STATUS_OK)
            (*n)++;
        else
            assert_int_equal(event.time_ms, 77);
    }
    event_reader_close(reader);
    return status;
}

static void event_reader_next_csv_gives_columns(void **state)
{
    (void)state;
    struct event_reader *reader = NULL;
    struct event_record event;
    assert_int_equal(open_text("e.csv",
                               "other,user_id,item_id,timestamp,type,session_id,value\n"
                               "x,u1,A,2024-01-01T00:00:00Z,purchase,s1,9.5\r\n"
                               ",u2,B,1704067200,,,\n",
                               &reader, NULL),
                     STATUS_OK);
    assert_int_equal(event_reader_next(reader, &event, NULL), STATUS_OK);
    assert_string_equal(event.user_id, "u1");
    assert_string_equal(event.item_id, "A");
    assert_string_equal(event.session_id, "s1");
    assert_int_equal(event.time_ms, INT64_C(1704067200000));
    assert_int_equal(event.type, EVENT_PURCHASE);
    assert_true(event.value == 9.5);
    assert_int_equal(event_reader_line(reader), 2);
    assert_int_equal(event_reader_next(reader, &event, NULL), STATUS_OK);
    assert_null(event.session_id);
    assert_int_equal(event.time_ms, INT64_C(1704067200000));
    assert_int_equal(event.type, EVENT_VIEW);
    assert_true(isnan(event.value));
    assert_int_equal(event_reader_line(reader), 3);
    struct error err = {.code = STATUS_OK, .message = "untouched"};
    assert_int_equal(event_reader_next(reader, &event, &err), STATUS_NOT_FOUND);
    assert_string_equal(err.message, "untouched");
    event_reader_close(reader);
}

static void event_reader_next_json_gives_members(void **state)
{
    (void)state;
    struct event_reader *reader = NULL;
    struct event_record event;
    assert_int_equal(open_text("events",
                               "{\"user_id\":7,\"item_id\":\"A\",\"timestamp\":1704067200123,"
                               "\"type\":\"cart\",\"value\":2,\"page\":\"x\"}\n",
                               &reader, NULL),
                     STATUS_OK);
    assert_int_equal(event_reader_next(reader, &event, NULL), STATUS_OK);
    assert_string_equal(event.user_id, "7");
    assert_int_equal(event.time_ms, INT64_C(1704067200123));
    assert_int_equal(event.type, EVENT_CART);
    assert_true(event.value == 2);
    event_reader_close(reader);
}

static void event_reader_next_faults_name_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *text;
        const char *field;
        const char *message;
    } CASES[] = {
        {"e.csv", "user_id,item_id\n", "timestamp",
         "e.csv:1: timestamp: the header has no such column"},
        {"e.csv", "user_id,item_id,timestamp\n,A,1\n", "user_id", "e.csv:2: user_id: missing"},
        {"e.csv", "user_id,item_id,timestamp\nu,,1\n", "item_id", "e.csv:2: item_id: missing"},
        {"e.csv", "user_id,item_id,timestamp\nu,A,1\nu,A\n", "timestamp",
         "e.csv:3: timestamp: missing"},
        {"e.csv", "user_id,item_id,timestamp\nu,A,soon\n", "timestamp",
         "e.csv:2: timestamp: \"soon\" is not a time from 1970 on (RFC 3339, Unix seconds or "
         "milliseconds)"},
        {"e.csv", "user_id,item_id,timestamp\nu,A,1969-12-31T23:59:59.999Z\n", "timestamp",
         "e.csv:2: timestamp: \"1969-12-31T23:59:59.999Z\" is not a time from 1970 on (RFC 3339, "
         "Unix seconds or milliseconds)"},
        {"e.csv", "user_id,item_id,timestamp,type\nu,A,1,look\n", "type",
         "e.csv:2: type: \"look\" is not an event type (view, cart, purchase, click)"},
        {"e.csv", "user_id,item_id,timestamp,session_id\nu,A,1,\"s\n\"\n", "session_id",
         "e.csv:2: session_id: \"s\n\" is not an id of 1 to 128 bytes"},
        {"e.csv", "user_id,item_id,timestamp,value\nu,A,1,inf\n", "value",
         "e.csv:2: value: \"inf\" is not a number"},
        {"e.jsonl", "{\"user_id\":\"u\",\"item_id\":\"A\",\"timestamp\":1,\"value\":\"5\"}",
         "value", "e.jsonl:1: value: \"5\" is not a number"},
        {"e.jsonl", "{\"item_id\":\"A\",\"timestamp\":1}", "user_id",
         "e.jsonl:1: user_id: missing"},
    };
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct error err = {.code = STATUS_OK};
        size_t n = 0;
        assert_int_equal(read_all(CASES[i].name, CASES[i].text, &n, &err), STATUS_INVALID);
        assert_string_equal(err.message, CASES[i].message);
        assert_string_equal(err.field, CASES[i].field);
    }
}

static void event_reader_open_without_memory_is_nomem(void **state)
{
    (void)state;
    for (int64_t nth = 1;; nth++) {
        assert_true(nth < 1000);
        struct error err = {.code = STATUS_OK};
        size_t n = 0;
        mem_fail_nth(nth);
        enum status status =
            read_all("e.csv", "user_id,item_id,timestamp\nu,A,1\nu,B,2\n", &n, &err);
        mem_fail_nth(0);
        if (status == STATUS_NOT_FOUND) {
            assert_int_equal(n, 2);
            break;
        }
        assert_int_equal(status, STATUS_NOMEM);
        assert_int_equal(err.code, STATUS_NOMEM);
    }
}

static void event_reader_open_absent_file_is_not_found(void **state)
{
    (void)state;
    struct event_reader *reader = NULL;
    assert_int_equal(event_reader_open("/nonexistent/e.csv", &reader, NULL), STATUS_NOT_FOUND);
    assert_null(reader);
    event_reader_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(event_reader_next_csv_gives_columns),
        cmocka_unit_test(event_reader_next_json_gives_members),
        cmocka_unit_test(event_reader_next_faults_name_line_and_column),
        cmocka_unit_test(event_reader_open_without_memory_is_nomem),
        cmocka_unit_test(event_reader_open_absent_file_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
