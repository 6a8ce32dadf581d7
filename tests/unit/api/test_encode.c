#include "api/encode.h"

#include <math.h>
#include <string.h>

#include "api_test.h"

static void encode_problem_has_the_members_of_the_rfc(void **state)
{
    struct buf out;
    struct json_writer json;
    (void)state;
    buf_init(&out, 4096);
    json_writer_init(&json, &out);
    encode_problem(&json, NULL, &(struct problem){400, "bad \"x\"", "limit"});
    assert_string_equal(buf_text(&out), "{\"type\":\"about:blank\",\"title\":\"Bad Request\","
                                        "\"status\":400,\"detail\":\"bad \\\"x\\\"\","
                                        "\"field\":\"limit\"}");
    buf_reset(&out);
    json_writer_init(&json, &out);
    encode_problem(&json, NULL, &(struct problem){503, "busy", ""});
    assert_string_equal(buf_text(&out), "{\"type\":\"about:blank\",\"title\":\"Service "
                                        "Unavailable\",\"status\":503,\"detail\":\"busy\"}");
    buf_free(&out);
}

static void http_status_of_every_status_is_in_its_class(void **state)
{
    (void)state;
#define CHECK(name, value, text)                                                                   \
    do {                                                                                           \
        int http_status = http_status_of(STATUS_##name);                                           \
        assert_true((value) == 0 ? http_status == 200 : http_status >= 400);                       \
        assert_string_not_equal(http_status_phrase(http_status), "Error");                         \
    } while (0);
    STATUS_MAP(CHECK)
#undef CHECK
    assert_int_equal(http_status_of(STATUS_INVALID), 400);
    assert_int_equal(http_status_of(STATUS_NOT_FOUND), 404);
    assert_int_equal(http_status_of(STATUS_UNAVAILABLE), 503);
    assert_int_equal(http_status_of((enum status) - 99), 500);
}

static void encode_answer_leaves_out_what_is_absent(void **state)
{
    struct recommend_request request;
    struct buf out;
    struct json_writer json;
    const char *ignored[] = {"X"};
    struct recommend_item item = {
        .score = 0.5F,
        .sources = SOURCE_VECTOR | SOURCE_POPULAR,
        .id = "A",
        .metadata = {.title = "T",
                     .attributes_json = "{\"size\":\"L\"}",
                     .price = 2.5,
                     .stock = (double)NAN,
                     .created_at_ms = 0.0},
        .because = {"B"},
        .n_because = 1,
    };
    struct recommend_answer answer = {.request_id = "R",
                                      .release = "V",
                                      .items = &item,
                                      .n_items = 1,
                                      .ignored = ignored,
                                      .n_ignored = 1,
                                      .degraded = DEGRADED_HISTORY | DEGRADED_METADATA};
    (void)state;
    item.features[FEATURE_SIMILARITY] = 0.5F;
    recommend_request_init(&request);
    request.explain = true;
    buf_init(&out, 4096);
    json_writer_init(&json, &out);
    encode_answer(&json, NULL, &request, &answer);
    assert_string_equal(
        buf_text(&out),
        "{\"request_id\":\"R\",\"release\":\"V\",\"scenario\":\"for_you\",\"experiments\":[],"
        "\"degraded\":[\"history\",\"metadata\"],\"ignored\":[\"X\"],\"items\":[{\"id\":\"A\","
        "\"score\":0.5,\"title\":\"T\",\"price\":2.5,\"created_at\":\"1970-01-01T00:00:00.000Z\","
        "\"attributes\":{\"size\":\"L\"},\"sources\":[\"vector\",\"popular\"],\"explanation\":"
        "{\"because\":[\"B\"],\"features\":{\"similarity\":0.5,\"popularity\":0,\"freshness\":0,"
        "\"in_stock\":0,\"neighbors\":0}}}]}");
    buf_reset(&out);
    answer.degraded = DEGRADED_DEADLINE;
    json_writer_init(&json, &out);
    encode_answer(&json, NULL, &request, &answer);
    assert_null(strstr(buf_text(&out), "explanation"));
    buf_free(&out);
}

static void encode_server_timing_names_the_stages_that_took_time(void **state)
{
    int64_t stage_ns[N_STAGES] = {0};
    struct buf out;
    (void)state;
    stage_ns[STAGE_PARSE] = 21400;
    stage_ns[STAGE_HISTORY] = 1204000;
    buf_init(&out, 256);
    encode_server_timing(&out, stage_ns);
    assert_string_equal(buf_text(&out), "parse;dur=0.021, history;dur=1.204");
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encode_problem_has_the_members_of_the_rfc),
        cmocka_unit_test(http_status_of_every_status_is_in_its_class),
        cmocka_unit_test(encode_answer_leaves_out_what_is_absent),
        cmocka_unit_test(encode_server_timing_names_the_stages_that_took_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
