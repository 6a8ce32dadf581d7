#include "base/events.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/alloc.h"

static void event_type_names_read_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N_EVENT_TYPES; i++) {
        const char *name = event_type_name((enum event_type)i);
        enum event_type type = N_EVENT_TYPES;
        assert_true(event_type_parse(name, strlen(name), &type));
        assert_int_equal(type, i);
    }
    assert_string_equal(event_type_name(EVENT_PURCHASE), "purchase");
    assert_string_equal(event_type_name(N_EVENT_TYPES), "unknown");
}

static void event_type_parse_other_word_changes_nothing(void **state)
{
    (void)state;
    static const char *const BAD[] = {"", "View", "views", "vie", "unknown", "buy"};
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        enum event_type type = EVENT_CLICK;
        assert_false(event_type_parse(BAD[i], strlen(BAD[i]), &type));
        assert_int_equal(type, EVENT_CLICK);
    }
}

static void event_log_free_zeroes_the_struct(void **state)
{
    (void)state;
    struct event_log log = {
        .events = mem_calloc(2, sizeof(struct history_event)),
        .offsets = mem_calloc(2, sizeof(uint64_t)),
        .users = mem_calloc(1, sizeof(uint32_t)),
        .n_sequences = 1,
        .n_events = 2,
        .n_users = 1,
    };
    event_log_free(&log);
    assert_null(log.events);
    assert_null(log.offsets);
    assert_null(log.users);
    assert_int_equal(log.n_events, 0);
    event_log_free(&log);
    event_log_free(NULL);
}

static void history_event_stays_small(void **state)
{
    (void)state;
    assert_int_equal(sizeof(struct history_event), 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(event_type_names_read_back),
        cmocka_unit_test(event_type_parse_other_word_changes_nothing),
        cmocka_unit_test(event_log_free_zeroes_the_struct),
        cmocka_unit_test(history_event_stays_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
