#include "api/decode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api_test.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/parse.h"

enum { TEST_TIMEOUT_MS = 77 };

static enum status decode(const char *text, enum body_kind kind, struct arena *arena,
                          struct decoded_request *out, struct error *err)
{
    struct decode_input input = {text, strlen(text), kind, TEST_TIMEOUT_MS};
    return decode_request(&input, arena, out, err);
}

static const char FULL[] =
    "{\"scenario\":\"cart\",\"user_id\":\"u\\u00e9\",\"session_id\":\"s7\",\"items\":[\"A\",\"B\"],"
    "\"limit\":200,\"filter\":{ \"field\" : \"price\", \"lte\" : 50.5 },\"exclude\":[\"C\"],"
    "\"exclude_seen\":\"viewed\",\"consent\":false,\"after\":\"01J\",\"diversity\":0.25,"
    "\"profile\":\"p\",\"fields\":[\"title\",\"price\"],\"explain\":true,\"timeout_ms\":10000}";

static int set_up(void **state)
{
    static struct arena arena;
    decode_init();
    arena_init(&arena, 4096, 1 << 20);
    *state = &arena;
    return 0;
}

static int tear_down(void **state)
{
    arena_free(*state);
    return 0;
}

static void decode_request_every_member_arrives(void **state)
{
    struct decoded_request decoded;
    struct error err = {0};
    assert_int_equal(decode(FULL, BODY_RECOMMEND, *state, &decoded, &err), STATUS_OK);
    const struct recommend_request *request = &decoded.request;
    assert_int_equal(request->scenario, SCENARIO_CART);
    assert_string_equal(request->user_id, "u\xC3\xA9");
    assert_string_equal(request->session_id, "s7");
    assert_int_equal(request->n_items, 2);
    assert_string_equal(request->items[1], "B");
    assert_int_equal(request->limit, 200);
    assert_string_equal(request->filter_json, "{\"field\":\"price\",\"lte\":50.5}");
    assert_int_equal(request->filter_json_len, strlen(request->filter_json));
    assert_int_equal(request->n_exclude, 1);
    assert_string_equal(request->exclude[0], "C");
    assert_int_equal(request->exclude_seen, EXCLUDE_SEEN_VIEWED);
    assert_true(request->no_consent);
    assert_string_equal(decoded.after, "01J");
    assert_true(fabs(request->diversity - 0.25) < 1e-12);
    assert_string_equal(request->profile, "p");
    assert_int_equal(request->fields, FIELD_TITLE | FIELD_PRICE);
    assert_true(request->explain);
    assert_int_equal(request->timeout_ms, 10000);
    assert_null(request->candidates);
}

static void decode_request_empty_object_has_defaults(void **state)
{
    struct decoded_request decoded;
    assert_int_equal(decode("{}", BODY_RECOMMEND, *state, &decoded, NULL), STATUS_OK);
    assert_int_equal(decoded.request.scenario, SCENARIO_FOR_YOU);
    assert_int_equal(decoded.request.limit, LIMIT_DEFAULT);
    assert_int_equal(decoded.request.timeout_ms, TEST_TIMEOUT_MS);
    assert_int_equal(decoded.request.exclude_seen, EXCLUDE_SEEN_PURCHASED);
    assert_int_equal(decoded.request.fields, FIELDS_ALL);
    assert_true(isnan(decoded.request.diversity));
    assert_false(decoded.request.no_consent);
    assert_null(decoded.request.user_id);
    assert_null(decoded.after);
}

struct fault {
    const char *text;
    const char *field;
};

static const struct fault FAULTS[] = {
    {"{\"limt\":1}", "limt"},
    {"{\"user_id\":\"a\",\"user_id\":\"a\"}", "user_id"},
    {"{\"user_id\":1}", "user_id"},
    {"{\"user_id\":null}", "user_id"},
    {"{\"user_id\":\"\"}", "user_id"},
    {"{\"user_id\":\"a\\nb\"}", "user_id"},
    {"{\"session_id\":[]}", "session_id"},
    {"{\"scenario\":\"home\"}", "scenario"},
    {"{\"scenario\":3}", "scenario"},
    {"{\"items\":\"A\"}", "items"},
    {"{\"items\":[\"A\",1]}", "items[1]"},
    {"{\"items\":[\"A\",\"\"]}", "items[1]"},
    {"{\"limit\":0}", "limit"},
    {"{\"limit\":201}", "limit"},
    {"{\"limit\":-1}", "limit"},
    {"{\"limit\":2.5}", "limit"},
    {"{\"limit\":\"20\"}", "limit"},
    {"{\"limit\":1e999}", "limit"},
    {"{\"limit\":true}", "limit"},
    {"{\"filter\":[]}", "filter"},
    {"{\"filter\":\"x\"}", "filter"},
    {"{\"exclude\":{}}", "exclude"},
    {"{\"exclude\":[null]}", "exclude[0]"},
    {"{\"exclude_seen\":\"all\"}", "exclude_seen"},
    {"{\"exclude_seen\":false}", "exclude_seen"},
    {"{\"consent\":\"no\"}", "consent"},
    {"{\"consent\":0}", "consent"},
    {"{\"after\":5}", "after"},
    {"{\"diversity\":1.01}", "diversity"},
    {"{\"diversity\":-0.1}", "diversity"},
    {"{\"diversity\":\"x\"}", "diversity"},
    {"{\"profile\":false}", "profile"},
    {"{\"fields\":\"title\"}", "fields"},
    {"{\"fields\":[\"titel\"]}", "fields"},
    {"{\"fields\":[1]}", "fields"},
    {"{\"explain\":\"true\"}", "explain"},
    {"{\"timeout_ms\":0}", "timeout_ms"},
    {"{\"timeout_ms\":10001}", "timeout_ms"},
    {"[]", ""},
    {"", ""},
    {"{\"a\"", ""},
    {"{} x", ""},
    {"{}\n{}", ""},
};

static void decode_request_fault_names_its_field(void **state)
{
    for (size_t i = 0; i < sizeof(FAULTS) / sizeof(FAULTS[0]); i++) {
        struct decoded_request decoded;
        struct error err = {0};
        enum status status = decode(FAULTS[i].text, BODY_RECOMMEND, *state, &decoded, &err);
        if (status != STATUS_INVALID || strcmp(err.field, FAULTS[i].field) != 0) {
            fail_msg("%s: status %d, field \"%s\"", FAULTS[i].text, status, err.field);
        }
        assert_true(err.message[0] != '\0');
        arena_reset(*state);
    }
}

static void decode_request_id_of_128_bytes_is_ok_and_of_129_is_invalid(void **state)
{
    struct decoded_request decoded;
    struct error err = {0};
    char id[ID_BYTES_MAX + 2];
    char text[256];
    memset(id, 'x', sizeof(id));
    id[ID_BYTES_MAX] = '\0';
    (void)snprintf(text, sizeof(text), "{\"user_id\":\"%s\"}", id);
    assert_int_equal(decode(text, BODY_RECOMMEND, *state, &decoded, &err), STATUS_OK);
    (void)snprintf(text, sizeof(text), "{\"user_id\":\"%sx\"}", id);
    assert_int_equal(decode(text, BODY_RECOMMEND, *state, &decoded, &err), STATUS_INVALID);
    assert_string_equal(err.field, "user_id");
}

static void list_of(struct buf *out, const char *name, size_t n)
{
    buf_reset(out);
    buf_printf(out, "{\"%s\":[", name);
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "%s\"i%zu\"", i > 0 ? "," : "", i);
    }
    buf_append_text(out, "]}");
}

static void decode_request_lists_at_their_limit_are_ok_and_past_it_are_invalid(void **state)
{
    static const struct {
        const char *name;
        enum body_kind kind;
        size_t n_max;
    } rows[] = {{"items", BODY_RECOMMEND, REQUEST_ITEMS_MAX},
                {"exclude", BODY_RECOMMEND, REQUEST_EXCLUDE_MAX},
                {"items", BODY_SCORE, SCORE_CANDIDATES_MAX}};
    struct buf text;
    buf_init(&text, 1 << 20);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct decoded_request decoded;
        struct error err = {0};
        list_of(&text, rows[i].name, rows[i].n_max);
        assert_int_equal(decode(buf_text(&text), rows[i].kind, *state, &decoded, &err), STATUS_OK);
        list_of(&text, rows[i].name, rows[i].n_max + 1);
        assert_int_equal(decode(buf_text(&text), rows[i].kind, *state, &decoded, &err),
                         STATUS_INVALID);
        assert_string_equal(err.field, rows[i].name);
        arena_reset(*state);
    }
    buf_free(&text);
}

static void decode_request_too_deep_is_limit(void **state)
{
    struct decoded_request decoded;
    struct error err = {0};
    struct buf text;
    buf_init(&text, 1 << 20);
    buf_append_text(&text, "{\"filter\":");
    for (int i = 0; i < 100000; i++) {
        buf_append_text(&text, "{\"not\":");
    }
    assert_int_equal(decode(buf_text(&text), BODY_RECOMMEND, *state, &decoded, &err), STATUS_LIMIT);
    buf_free(&text);
}

static void decode_request_score_takes_candidates_only(void **state)
{
    struct decoded_request decoded;
    struct error err = {0};
    assert_int_equal(decode("{\"user_id\":\"u\",\"items\":[\"A\",\"B\",\"C\"],\"explain\":true}",
                            BODY_SCORE, *state, &decoded, &err),
                     STATUS_OK);
    assert_int_equal(decoded.request.n_candidates, 3);
    assert_int_equal(decoded.request.limit, 3);
    assert_int_equal(decoded.request.n_items, 0);
    assert_int_equal(decode("{\"user_id\":\"u\"}", BODY_SCORE, *state, &decoded, &err),
                     STATUS_INVALID);
    assert_string_equal(err.field, "items");
    assert_int_equal(decode("{\"items\":[]}", BODY_SCORE, *state, &decoded, &err), STATUS_INVALID);
    assert_string_equal(err.field, "items");
    assert_int_equal(decode("{\"items\":[\"A\"],\"limit\":1}", BODY_SCORE, *state, &decoded, &err),
                     STATUS_INVALID);
    assert_string_equal(err.field, "limit");
}

static void decode_request_out_of_memory_is_nomem_until_it_fits(void **state)
{
    int64_t n = 0;
    enum status status = STATUS_NOMEM;
    (void)state;
    while (status == STATUS_NOMEM) {
        struct arena arena;
        struct decoded_request decoded;
        struct error err = {0};
        arena_init(&arena, 64, 1 << 20);
        mem_fail_nth(++n);
        status = decode(FULL, BODY_RECOMMEND, &arena, &decoded, &err);
        mem_fail_nth(0);
        assert_int_equal(err.code, status);
        arena_free(&arena);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(decode_request_every_member_arrives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decode_request_empty_object_has_defaults, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(decode_request_fault_names_its_field, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decode_request_id_of_128_bytes_is_ok_and_of_129_is_invalid,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            decode_request_lists_at_their_limit_are_ok_and_past_it_are_invalid, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decode_request_too_deep_is_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decode_request_score_takes_candidates_only, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(decode_request_out_of_memory_is_nomem_until_it_fits, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
