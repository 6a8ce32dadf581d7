#include "api/decode.h"

#include <math.h>
#include <string.h>

#include "api_test.h"
#include "base/alloc.h"
#include "base/buf.h"

#define NOW_MS INT64_C(1795600000000)

static enum status decode(const char *text, struct arena *arena, struct decoded_events *out,
                          struct error *err)
{
    return decode_events(text, strlen(text), NOW_MS, arena, out, err);
}

static int set_up(void **state)
{
    static struct arena arena;
    decode_init();
    arena_init(&arena, 4096, 8 << 20);
    *state = &arena;
    return 0;
}

static int tear_down(void **state)
{
    arena_free(*state);
    return 0;
}

static const char FULL[] =
    "{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"purchase\",\"timestamp\":"
    "\"2026-11-24T10:15:00Z\",\"value\":9.5,\"request_id\":\"r\",\"event_id\":\"e\","
    "\"session_id\":\"s\"}";

static void decode_events_every_member_arrives(void **state)
{
    struct decoded_events decoded;
    assert_int_equal(decode(FULL, *state, &decoded, NULL), STATUS_OK);
    assert_int_equal(decoded.n_events, 1);
    const struct history_event_in *event = &decoded.events[0];
    assert_string_equal(event->user_id, "u");
    assert_string_equal(event->item_id, "i");
    assert_int_equal(event->type, EVENT_PURCHASE);
    assert_int_equal(event->time_ms, INT64_C(1795515300000));
    assert_true(fabs(event->value - 9.5) < 1e-12);
    assert_string_equal(event->request_id, "r");
    assert_string_equal(event->event_id, "e");
    assert_string_equal(event->session_id, "s");
}

static void decode_events_missing_timestamp_is_now_and_a_number_is_milliseconds(void **state)
{
    struct decoded_events decoded;
    assert_int_equal(decode("[{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\"},"
                            "{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\","
                            "\"timestamp\":100000000000}]",
                            *state, &decoded, NULL),
                     STATUS_OK);
    assert_int_equal(decoded.n_events, 2);
    assert_int_equal(decoded.events[0].time_ms, NOW_MS);
    assert_true(isnan(decoded.events[0].value));
    assert_null(decoded.events[0].event_id);
    assert_int_equal(decoded.events[1].time_ms, INT64_C(100000000000));
}

static void decode_events_lines_are_told_by_content(void **state)
{
    struct decoded_events decoded;
    struct buf text;
    buf_init(&text, 4096);
    buf_printf(&text, "%s\n%s\r\n\n%s", FULL, FULL, FULL);
    assert_int_equal(decode(buf_text(&text), *state, &decoded, NULL), STATUS_OK);
    assert_int_equal(decoded.n_events, 3);
    buf_free(&text);
}

static void decode_events_fault_names_index_and_field(void **state)
{
    static const struct {
        const char *text;
        const char *field;
    } faults[] = {
        {"{\"item_id\":\"i\",\"type\":\"view\"}", "user_id"},
        {"{\"user_id\":\"u\",\"type\":\"view\"}", "item_id"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\"}", "type"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"buy\"}", "type"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\",\"x\":1}", "x"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\",\"type\":\"view\"}", "type"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\",\"timestamp\":\"today\"}",
         "timestamp"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\",\"timestamp\":-1}", "timestamp"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\",\"timestamp\":1.5}", "timestamp"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\",\"timestamp\":true}", "timestamp"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\",\"timestamp\":99999999999}",
         "timestamp"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\",\"timestamp\":9000000000000}",
         "timestamp"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\","
         "\"timestamp\":\"2999-01-01T00:00:00Z\"}",
         "timestamp"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\",\"value\":1e999}", "value"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\",\"event_id\":\"\"}", "event_id"},
        {"[{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\"},{\"user_id\":\"u\"}]",
         "[1].item_id"},
        {"[1]", "[0]"},
        {"{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\"}\n{\"user_id\":7}", "[1].user_id"},
        {"[]", ""},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct decoded_events decoded;
        struct error err = {0};
        enum status status = decode(faults[i].text, *state, &decoded, &err);
        if (status != STATUS_INVALID || strcmp(err.field, faults[i].field) != 0) {
            fail_msg("%s: status %d, field \"%s\"", faults[i].text, status, err.field);
        }
        assert_int_equal(decoded.n_events, 0);
        arena_reset(*state);
    }
}

static void decode_events_at_limit_are_ok_and_past_it_are_limit(void **state)
{
    struct decoded_events decoded;
    struct error err = {0};
    struct buf text;
    buf_init(&text, 2 << 20);
    for (int i = 0; i < HISTORY_APPEND_MAX; i++) {
        buf_append_text(&text, "{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\"}\n");
    }
    assert_int_equal(decode(buf_text(&text), *state, &decoded, &err), STATUS_OK);
    assert_int_equal(decoded.n_events, HISTORY_APPEND_MAX);
    buf_append_text(&text, "{\"user_id\":\"u\",\"item_id\":\"i\",\"type\":\"view\"}\n");
    arena_reset(*state);
    assert_int_equal(decode(buf_text(&text), *state, &decoded, &err), STATUS_LIMIT);
    buf_free(&text);
}

static void decode_events_out_of_memory_is_nomem_until_it_fits(void **state)
{
    int64_t n = 0;
    enum status status = STATUS_NOMEM;
    (void)state;
    while (status == STATUS_NOMEM) {
        struct arena arena;
        struct decoded_events decoded;
        struct error err = {0};
        arena_init(&arena, 64, 1 << 20);
        mem_fail_nth(++n);
        status = decode(FULL, &arena, &decoded, &err);
        mem_fail_nth(0);
        arena_free(&arena);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(decode_events_every_member_arrives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            decode_events_missing_timestamp_is_now_and_a_number_is_milliseconds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decode_events_lines_are_told_by_content, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decode_events_fault_names_index_and_field, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(decode_events_at_limit_are_ok_and_past_it_are_limit, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(decode_events_out_of_memory_is_nomem_until_it_fits, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
