#include "core/recommend_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/parse.h"

static char long_id[ID_BYTES_MAX + 2];
static const char *many_ids[REQUEST_EXCLUDE_MAX + 1];

static int make_ids(void **state)
{
    (void)state;
    memset(long_id, 'x', ID_BYTES_MAX + 1);
    for (size_t i = 0; i < REQUEST_EXCLUDE_MAX + 1; i++) {
        many_ids[i] = "a";
    }
    return 0;
}

static void expect(const struct recommend_request *request, const char *field)
{
    struct error err = {.message = ""};
    enum status status = recommend_request_check(request, &err);
    assert_int_equal(status, field == NULL ? STATUS_OK : STATUS_INVALID);
    assert_string_equal(err.field, field == NULL ? "" : field);
    assert_int_equal(recommend_request_check(request, NULL), status);
}

static void recommend_request_init_is_a_valid_request(void **state)
{
    struct recommend_request request;
    (void)state;
    recommend_request_init(&request);
    assert_int_equal(request.limit, LIMIT_DEFAULT);
    assert_int_equal(request.exclude_seen, EXCLUDE_SEEN_PURCHASED);
    assert_true(isnan(request.diversity));
    expect(&request, NULL);
}

static void recommend_request_check_limit_and_timeout_hold_at_their_ends(void **state)
{
    struct recommend_request request;
    (void)state;
    recommend_request_init(&request);
    request.limit = 0;
    expect(&request, "limit");
    request.limit = LIMIT_MAX;
    expect(&request, NULL);
    request.limit = LIMIT_MAX + 1;
    expect(&request, "limit");
    request.candidates = many_ids; /* a page of candidates may be longer */
    request.n_candidates = SCORE_CANDIDATES_MAX;
    request.limit = SCORE_CANDIDATES_MAX;
    expect(&request, NULL);
    request.limit = SCORE_CANDIDATES_MAX + 1;
    expect(&request, "limit");
    request.limit = 1;
    request.timeout_ms = TIMEOUT_MS_MAX;
    expect(&request, NULL);
    request.timeout_ms = TIMEOUT_MS_MAX + 1;
    expect(&request, "timeout_ms");
    request.timeout_ms = 0;
    expect(&request, "timeout_ms");
}

static void recommend_request_check_diversity_is_a_share(void **state)
{
    static const double good[] = {0.0, 1.0};
    static const double bad[] = {-0.001, 1.001, HUGE_VAL};
    struct recommend_request request;
    (void)state;
    recommend_request_init(&request);
    for (size_t i = 0; i < 2; i++) {
        request.diversity = good[i];
        expect(&request, NULL);
    }
    for (size_t i = 0; i < 3; i++) {
        request.diversity = bad[i];
        expect(&request, "diversity");
    }
}

static void recommend_request_check_ids_are_bounded(void **state)
{
    struct recommend_request request;
    const char *id = long_id;
    (void)state;
    recommend_request_init(&request);
    request.items = &id;
    request.n_items = 1;
    expect(&request, "items");
    long_id[ID_BYTES_MAX] = '\0';
    expect(&request, NULL);
    request.user_id = "";
    expect(&request, "user_id");
    request.user_id = "a\nb";
    expect(&request, "user_id");
    request.user_id = long_id;
    expect(&request, NULL);
    long_id[ID_BYTES_MAX] = 'x';
    expect(&request, "user_id");
    request.user_id = NULL;
    request.n_items = 0;
    request.session_id = long_id;
    expect(&request, "session_id");
    request.session_id = "\xff";
    expect(&request, "session_id");
}

static void recommend_request_check_lists_are_bounded(void **state)
{
    struct recommend_request request;
    (void)state;
    recommend_request_init(&request);
    request.items = many_ids;
    request.n_items = REQUEST_ITEMS_MAX;
    expect(&request, NULL);
    request.n_items = REQUEST_ITEMS_MAX + 1;
    expect(&request, "items");
    request.n_items = 0;
    request.exclude = many_ids;
    request.n_exclude = REQUEST_EXCLUDE_MAX;
    expect(&request, NULL);
    request.n_exclude = REQUEST_EXCLUDE_MAX + 1;
    expect(&request, "exclude");
    request.n_exclude = 0;
    request.candidates = many_ids;
    request.n_candidates = SCORE_CANDIDATES_MAX + 1;
    expect(&request, "items");
}

static void recommend_request_check_related_and_cart_need_items(void **state)
{
    struct recommend_request request;
    (void)state;
    recommend_request_init(&request);
    for (int scenario = 0; scenario < N_SCENARIOS; scenario++) {
        request.scenario = (enum scenario)scenario;
        bool needs = scenario == SCENARIO_RELATED || scenario == SCENARIO_CART;
        request.n_items = 0;
        expect(&request, needs ? "items" : NULL);
        request.items = many_ids;
        request.n_items = 1;
        expect(&request, NULL);
    }
}

static void names_parse_back(void **state)
{
    static const char *const seen[] = {"none", "viewed", "purchased"};
    static const char *const fields[] = {"title", "category",  "brand", "price",      "currency",
                                         "stock", "image_url", "url",   "created_at", "attributes"};
    enum scenario scenario = SCENARIO_CART;
    enum exclude_seen exclude_seen = EXCLUDE_SEEN_NONE;
    unsigned all = 0;
    (void)state;
    for (int i = 0; i < N_SCENARIOS; i++) {
        assert_true(scenario_parse(scenario_name((enum scenario)i), &scenario));
        assert_int_equal(scenario, i);
    }
    assert_false(scenario_parse("home", &scenario));
    assert_int_equal(scenario, N_SCENARIOS - 1);
    for (int i = 0; i < 3; i++) {
        assert_true(exclude_seen_parse(seen[i], &exclude_seen));
        assert_int_equal(exclude_seen, i);
    }
    assert_false(exclude_seen_parse("", &exclude_seen));
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        unsigned field = item_field_parse(fields[i]);
        assert_int_not_equal(field, 0);
        assert_int_equal(all & field, 0);
        all |= field;
    }
    assert_int_equal(all, FIELDS_ALL);
    assert_int_equal(item_field_parse("id"), 0);
    assert_string_equal(source_name(SOURCE_POPULAR), "popular");
    assert_string_equal(degraded_name(DEGRADED_DEADLINE), "deadline");
    assert_string_equal(stage_name(STAGE_RETRIEVE), "retrieve");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recommend_request_init_is_a_valid_request),
        cmocka_unit_test(recommend_request_check_limit_and_timeout_hold_at_their_ends),
        cmocka_unit_test(recommend_request_check_diversity_is_a_share),
        cmocka_unit_test(recommend_request_check_ids_are_bounded),
        cmocka_unit_test(recommend_request_check_lists_are_bounded),
        cmocka_unit_test(recommend_request_check_related_and_cart_need_items),
        cmocka_unit_test(names_parse_back),
    };
    return cmocka_run_group_tests(tests, make_ids, NULL);
}
