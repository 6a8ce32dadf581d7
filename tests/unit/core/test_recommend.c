#include "core/recommend.h"

#include "core_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"

static struct core_fixture shop;
static struct history_item history_items[300];

static int open_shop(void **state)
{
    (void)state;
    core_fixture_open(&shop, 300, "Flat", 5);
    return 0;
}

static int close_shop(void **state)
{
    (void)state;
    core_fixture_close(&shop);
    return 0;
}

static struct recommend_request request_of(enum scenario scenario)
{
    struct recommend_request request;
    recommend_request_init(&request);
    request.scenario = scenario;
    request.timeout_ms = TIMEOUT_MS_MAX;
    request.profile = "plain";
    return request;
}

static struct recommend_answer run(const struct recommend_request *request, const uint32_t *rows,
                                   size_t n, enum event_type type)
{
    static struct recommend_job job;
    struct history_result history = core_fixture_history(&shop, rows, n, type, history_items);
    core_fixture_recommend(&shop, &job, request, n > 0 ? &history : NULL);
    return job.answer;
}

static bool has_row(const struct recommend_answer *answer, uint32_t row)
{
    for (size_t i = 0; i < answer->n_items; i++) {
        if (answer->items[i].row == row) {
            return true;
        }
    }
    return false;
}

static float dot(uint32_t a, uint32_t b)
{
    float score = 0.0F;
    vectors_dot(&shop.engine->vectors, shop.vectors + a * shop.dim, &b, 1, &score);
    return score;
}

/* ---- scenarios ---- */

static void recommend_one_for_you_ranks_by_similarity_and_describes(void **state)
{
    static const uint32_t rows[] = {17};
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    (void)state;
    struct recommend_answer answer = run(&request, rows, 1, EVENT_VIEW);
    assert_int_equal(answer.n_items, LIMIT_DEFAULT);
    assert_int_equal(answer.n_history, 1);
    assert_int_equal(answer.degraded, 0);
    assert_int_equal(strlen(answer.request_id), ULID_TEXT_BYTES - 1);
    assert_string_equal(answer.release, shop.engine->manifest.version);
    assert_string_equal(answer.profile->name, "plain");
    assert_int_equal(answer.items[0].row, 17); /* viewed, not bought: it may come back */
    for (size_t i = 0; i < answer.n_items; i++) {
        const struct recommend_item *item = &answer.items[i];
        const struct shop_item *expected = &shop.items[item->row];
        assert_int_equal(item->sources, SOURCE_VECTOR);
        assert_true(fabsf(item->score - dot(17, item->row)) < 1e-5F);
        assert_true(i == 0 || item->score <= answer.items[i - 1].score);
        assert_string_equal(item->id, expected->id);
        assert_string_equal(item->metadata.title, expected->title);
        assert_true(isnan(expected->price) ? isnan(item->metadata.price)
                                           : item->metadata.price == expected->price);
        assert_string_equal(item->metadata.currency, "GBP");
    }
}

static void recommend_one_related_gives_neighbours_of_the_item_only(void **state)
{
    static const uint32_t rows[] = {200, 201, 202};
    const char *items[] = {"I42"};
    struct recommend_request request = request_of(SCENARIO_RELATED);
    request.items = items;
    request.n_items = 1;
    (void)state;
    struct recommend_answer answer = run(&request, rows, 3, EVENT_PURCHASE);
    assert_int_equal(answer.n_items, LIMIT_DEFAULT);
    assert_int_equal(answer.n_history, 1);
    assert_false(has_row(&answer, 42));
    for (size_t i = 0; i < 3; i++) {
        assert_false(has_row(&answer, rows[i])); /* bought */
    }
    for (size_t i = 0; i < answer.n_items; i++) {
        assert_true(fabsf(answer.items[i].score - dot(42, answer.items[i].row)) < 1e-5F);
    }
    for (uint32_t row = 0; row < shop.n; row++) {
        bool may = row != 42 && (row < 200 || row > 202);
        if (may && dot(42, row) > answer.items[answer.n_items - 1].score + 1e-5F) {
            assert_true(has_row(&answer, row));
        }
    }
}

static void recommend_one_cart_uses_the_cart_and_leaves_it_out(void **state)
{
    const char *items[] = {"I3", "I4", "nobody"};
    struct recommend_request request = request_of(SCENARIO_CART);
    request.items = items;
    request.n_items = 3;
    (void)state;
    struct recommend_answer answer = run(&request, NULL, 0, EVENT_VIEW);
    assert_int_equal(answer.n_items, LIMIT_DEFAULT);
    assert_int_equal(answer.n_history, 2);
    assert_int_equal(answer.n_ignored, 1);
    assert_string_equal(answer.ignored[0], "nobody");
    assert_false(has_row(&answer, 3));
    assert_false(has_row(&answer, 4));
    assert_int_equal(answer.items[0].sources, SOURCE_VECTOR);
}

static void expect_popular(const struct recommend_answer *answer)
{
    assert_true(answer->n_items > 0);
    for (size_t i = 0; i < answer->n_items; i++) {
        assert_int_equal(answer->items[i].sources, SOURCE_POPULAR);
        assert_true(i == 0 || shop.engine->popularity[answer->items[i].row] <=
                                  shop.engine->popularity[answer->items[i - 1].row]);
    }
}

static void recommend_one_popular_orders_by_popularity(void **state)
{
    static const uint32_t rows[] = {1, 2};
    struct recommend_request request = request_of(SCENARIO_POPULAR);
    request.profile = NULL;
    request.limit = LIMIT_MAX;
    (void)state;
    struct recommend_answer answer = run(&request, rows, 2, EVENT_PURCHASE);
    expect_popular(&answer);
    assert_int_equal(answer.n_items, LIMIT_MAX);
    assert_int_equal(answer.n_history, 0);
    assert_int_equal(answer.items[0].row, catalog_by_popularity(shop.engine->catalog)[0]);
    assert_false(has_row(&answer, 1));
    assert_false(has_row(&answer, 2));
}

static void recommend_one_unknown_visitor_gets_popular_items_that_pass(void **state)
{
    static const char filter[] = "{\"field\":\"stock\",\"gt\":0}";
    const char *items[] = {"nobody"};
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    request.profile = "default";
    request.items = items;
    request.n_items = 1;
    request.filter_json = filter;
    request.filter_json_len = strlen(filter);
    (void)state;
    struct recommend_answer answer = run(&request, NULL, 0, EVENT_VIEW);
    expect_popular(&answer);
    assert_int_equal(answer.n_items, LIMIT_DEFAULT);
    assert_int_equal(answer.n_history, 0);
    assert_int_equal(answer.n_ignored, 1);
    assert_int_equal(answer.degraded, 0);
    for (size_t i = 0; i < answer.n_items; i++) {
        assert_true(shop.items[answer.items[i].row].stock > 0.0);
    }
}

/* ---- history and exclusions ---- */

static void recommend_one_exclude_seen_follows_the_kind_of_event(void **state)
{
    static const uint32_t rows[] = {17};
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    (void)state;
    for (int seen = EXCLUDE_SEEN_NONE; seen <= EXCLUDE_SEEN_PURCHASED; seen++) {
        for (int type = 0; type < N_EVENT_TYPES; type++) {
            request.exclude_seen = (enum exclude_seen)seen;
            struct recommend_answer answer = run(&request, rows, 1, (enum event_type)type);
            bool excluded = seen == EXCLUDE_SEEN_VIEWED ||
                            (seen == EXCLUDE_SEEN_PURCHASED && type == EVENT_PURCHASE);
            assert_int_equal(answer.items[0].row == 17, !excluded);
            assert_int_equal(has_row(&answer, 17), !excluded);
            assert_int_equal(answer.n_items, LIMIT_DEFAULT);
        }
    }
}

static void recommend_one_excluded_ids_never_come(void **state)
{
    static const uint32_t rows[] = {17};
    const char *exclude[] = {"I17", "nobody", "I17", "I18"};
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    request.exclude = exclude;
    request.n_exclude = 4;
    request.limit = LIMIT_MAX;
    (void)state;
    struct recommend_answer answer = run(&request, rows, 1, EVENT_VIEW);
    assert_int_equal(answer.n_items, LIMIT_MAX);
    assert_int_equal(answer.n_ignored, 0);
    assert_false(has_row(&answer, 17));
    assert_false(has_row(&answer, 18));
    request.n_exclude = 0; /* nothing of it stays for the next request */
    answer = run(&request, rows, 1, EVENT_VIEW);
    assert_int_equal(answer.items[0].row, 17);
}

static void recommend_one_unknown_events_are_dropped_and_counted(void **state)
{
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    struct recommend_job job;
    static const uint32_t rows[] = {9, 8};
    struct history_result history = core_fixture_history(&shop, rows, 2, EVENT_VIEW, history_items);
    history_items[1].item_id = "gone";
    history_items[1].item_id_len = 4;
    (void)state;
    core_fixture_recommend(&shop, &job, &request, &history);
    assert_int_equal(job.answer.n_history, 1);
    assert_int_equal(job.answer.n_history_unknown, 1);
    assert_int_equal(job.answer.items[0].row, 9);
}

static void recommend_one_long_history_is_cut_at_its_maximum(void **state)
{
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    uint32_t rows[250];
    for (uint32_t i = 0; i < 250; i++) {
        rows[i] = i;
    }
    request.exclude_seen = EXCLUDE_SEEN_VIEWED;
    request.limit = LIMIT_MAX;
    (void)state;
    struct recommend_answer answer = run(&request, rows, 250, EVENT_VIEW);
    assert_int_equal(answer.n_history, HISTORY_FETCH_MAX);
    assert_int_equal(answer.n_items, shop.n - HISTORY_FETCH_MAX); /* all that is left */
    assert_true(has_row(&answer, 299));
    assert_false(has_row(&answer, 199));
}

static void recommend_one_late_history_is_named_and_answered_without(void **state)
{
    static const enum status late[] = {STATUS_TIMEOUT, STATUS_UNAVAILABLE, STATUS_MISMATCH};
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    const char *items[] = {"I42"};
    struct recommend_job job;
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct history_result history = {.status = late[i]};
        core_fixture_recommend(&shop, &job, &request, &history);
        assert_int_equal(job.answer.degraded, DEGRADED_HISTORY);
        assert_int_equal(job.answer.items[0].sources, SOURCE_POPULAR);
        request.items = items;
        request.n_items = 1;
        core_fixture_recommend(&shop, &job, &request, &history);
        assert_int_equal(job.answer.degraded, DEGRADED_HISTORY);
        assert_int_equal(job.answer.items[0].sources, SOURCE_VECTOR);
        request.n_items = 0;
    }
}

static void recommend_one_without_consent_does_not_use_history(void **state)
{
    static const uint32_t rows[] = {17};
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    request.user_id = "u";
    request.no_consent = true;
    (void)state;
    struct recommend_answer answer = run(&request, rows, 1, EVENT_VIEW);
    assert_int_equal(answer.n_history, 0);
    assert_int_equal(answer.degraded, 0);
    assert_int_equal(answer.items[0].sources, SOURCE_POPULAR);
}

static void recommend_begin_wants_history_when_it_is_of_use(void **state)
{
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    struct recommend_job job;
    (void)state;
    for (int c = 0; c < 5; c++) {
        request.user_id = c == 0 ? NULL : "u";
        request.no_consent = c == 1;
        request.scenario = c >= 3 ? SCENARIO_POPULAR : SCENARIO_FOR_YOU;
        request.exclude_seen = c == 4 ? EXCLUDE_SEEN_NONE : EXCLUDE_SEEN_PURCHASED;
        core_fixture_job(&shop, &job, &request);
        assert_int_equal(recommend_begin(shop.recommender, &job, 1000, NULL), STATUS_OK);
        assert_int_equal(job.wants_history, c == 2 || c == 3);
        assert_int_equal(job.deadline_us, 1000 + TIMEOUT_MS_MAX * 1000);
        assert_true(job.history_deadline_us > 1000 && job.history_deadline_us < job.deadline_us);
    }
}

/* ---- mistakes, deadline ---- */

static void recommend_begin_mistakes_name_their_field(void **state)
{
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    struct recommend_job job;
    struct error err = {.message = ""};
    (void)state;
    request.profile = "nope";
    core_fixture_job(&shop, &job, &request);
    assert_int_equal(recommend_begin(shop.recommender, &job, 0, &err), STATUS_INVALID);
    assert_string_equal(err.field, "profile");
    request.profile = NULL;
    request.filter_json = "{\"field\":\"price\",\"lt\":\"x\"}";
    request.filter_json_len = strlen(request.filter_json);
    core_fixture_job(&shop, &job, &request);
    assert_int_equal(recommend_begin(shop.recommender, &job, 0, &err), STATUS_INVALID);
    assert_string_equal(err.field, "filter.lt");
    request.filter_json = NULL;
    request.limit = 0;
    assert_int_equal(recommend_one(shop.recommender, &job, NULL, &err), STATUS_INVALID);
    assert_string_equal(err.field, "limit");
    assert_int_equal(job.answer.n_items, 0);
}

static void recommend_run_after_the_deadline_leaves_out_what_is_optional(void **state)
{
    struct recommend_request request = request_of(SCENARIO_RELATED);
    const char *items[] = {"I42"};
    struct recommend_job job;
    request.items = items;
    request.n_items = 1;
    request.explain = true;
    request.diversity = 0.9;
    request.timeout_ms = 50;
    (void)state;
    core_fixture_job(&shop, &job, &request);
    assert_int_equal(recommend_begin(shop.recommender, &job, clock_monotonic_us() - 1000000, NULL),
                     STATUS_OK);
    struct recommend_job *jobs[] = {&job};
    recommend_run(shop.recommender, jobs, 1);
    assert_int_equal(job.status, STATUS_OK);
    assert_int_equal(job.answer.degraded, DEGRADED_DEADLINE);
    assert_int_equal(job.answer.n_items, LIMIT_DEFAULT);
    for (size_t i = 0; i < job.answer.n_items; i++) {
        assert_int_equal(job.answer.items[i].n_because, 0);
        assert_non_null(job.answer.items[i].metadata.title);
        assert_true(i == 0 || job.answer.items[i].score <= job.answer.items[i - 1].score);
    }
}

/* ---- ranking, explanation, metadata ---- */

static void recommend_one_explained_features_add_up_to_the_score(void **state)
{
    static const uint32_t rows[] = {10, 20, 30, 40};
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    request.profile = "mixed";
    request.explain = true;
    (void)state;
    struct recommend_answer answer = run(&request, rows, 4, EVENT_CART);
    for (size_t i = 0; i < answer.n_items; i++) {
        const struct recommend_item *item = &answer.items[i];
        float sum = 0.0F;
        for (int f = 0; f < N_FEATURES; f++) {
            sum += item->features[f];
        }
        assert_true(fabsf(sum - item->score) < 1e-5F);
        bool in_stock = !(shop.items[item->row].stock <= 0.0);
        assert_true(item->features[FEATURE_IN_STOCK] == (in_stock ? 0.5F : 0.0F));
        if (isnan(shop.items[item->row].created_at_ms)) {
            assert_true(item->features[FEATURE_FRESHNESS] == 0.0F);
        }
        assert_in_range(item->n_because, 1, BECAUSE_MAX);
        for (size_t b = 0; b < item->n_because; b++) {
            const char *id = item->because[b];
            assert_string_not_equal(id, item->id);
            assert_true(strcmp(id, "I10") == 0 || strcmp(id, "I20") == 0 ||
                        strcmp(id, "I30") == 0 || strcmp(id, "I40") == 0);
        }
    }
}

static void recommend_one_related_explains_with_the_items_of_the_page(void **state)
{
    static const uint32_t rows[] = {10, 20, 30};
    const char *items[] = {"I42"};
    struct recommend_request request = request_of(SCENARIO_RELATED);
    request.items = items;
    request.n_items = 1;
    request.explain = true;
    (void)state;
    struct recommend_answer answer = run(&request, rows, 3, EVENT_VIEW);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(answer.items[i].n_because, 1);
        assert_string_equal(answer.items[i].because[0], "I42");
    }
}

static void recommend_one_diversity_changes_the_order_and_loses_nothing(void **state)
{
    static const uint32_t rows[] = {17};
    uint32_t before[LIMIT_MAX] = {0};
    static const char filter[] = "{\"field\":\"attributes.size\",\"lt\":3}";
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    request.filter_json = filter;
    request.filter_json_len = strlen(filter);
    request.limit = LIMIT_MAX;
    request.diversity = 0.0;
    (void)state;
    struct recommend_answer answer = run(&request, rows, 1, EVENT_VIEW);
    size_t n = answer.n_items;
    size_t n_moved = 0;
    assert_in_range(n, 20, LIMIT_MAX - 1); /* all that pass */
    for (size_t i = 0; i < n; i++) {
        before[i] = answer.items[i].row;
    }
    request.diversity = 0.7;
    answer = run(&request, rows, 1, EVENT_VIEW);
    assert_int_equal(answer.n_items, n);
    assert_int_equal(answer.items[0].row, before[0]);
    for (size_t i = 0; i < n; i++) {
        assert_true(has_row(&answer, before[i]));
        n_moved += answer.items[i].row != before[i];
    }
    assert_true(n_moved > n / 4);
}

static void recommend_one_fields_limit_the_metadata(void **state)
{
    struct recommend_request request = request_of(SCENARIO_POPULAR);
    (void)state;
    request.fields = FIELD_PRICE | FIELD_ATTRIBUTES;
    struct recommend_answer answer = run(&request, NULL, 0, EVENT_VIEW);
    for (size_t i = 0; i < answer.n_items; i++) {
        const struct item_metadata *metadata = &answer.items[i].metadata;
        const struct shop_item *item = &shop.items[answer.items[i].row];
        assert_null(metadata->title);
        assert_null(metadata->category);
        assert_true(isnan(metadata->stock) && isnan(metadata->created_at_ms));
        assert_true(isnan(item->price) || metadata->price == item->price);
        bool has_attributes = item->color != NULL || !isnan(item->size) || !isnan(item->eco);
        assert_int_equal(metadata->attributes_json != NULL, has_attributes);
    }
    request.fields = 0;
    answer = run(&request, NULL, 0, EVENT_VIEW);
    assert_null(answer.items[0].metadata.title);
    assert_true(isnan(answer.items[0].metadata.price));
}

/* ---- given candidates ---- */

static void recommend_one_given_candidates_are_ranked_and_nothing_else(void **state)
{
    static const uint32_t rows[] = {17};
    const char *candidates[] = {"I5", "I17", "nobody", "I100", "I5", "I250"};
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    request.candidates = candidates;
    request.n_candidates = 6;
    request.limit = SCORE_CANDIDATES_MAX;
    (void)state;
    struct recommend_answer answer = run(&request, rows, 1, EVENT_PURCHASE);
    assert_int_equal(answer.n_items, 4);
    assert_int_equal(answer.n_ignored, 1);
    assert_string_equal(answer.ignored[0], "nobody");
    assert_int_equal(answer.items[0].row, 17); /* bought, and still on the page */
    for (size_t i = 0; i < answer.n_items; i++) {
        assert_int_equal(answer.items[i].sources, SOURCE_REQUEST);
        assert_true(fabsf(answer.items[i].score - dot(17, answer.items[i].row)) < 1e-5F);
        assert_true(i == 0 || answer.items[i].score <= answer.items[i - 1].score);
    }
    request.limit = 2;
    answer = run(&request, rows, 1, EVENT_VIEW);
    assert_int_equal(answer.n_items, 2);
    answer = run(&request, NULL, 0, EVENT_VIEW); /* nobody known: popularity orders them */
    assert_int_equal(answer.n_items, 2);
    request.filter_json = "{\"field\":\"id\",\"ne\":\"I17\"}";
    request.filter_json_len = strlen(request.filter_json);
    answer = run(&request, rows, 1, EVENT_VIEW);
    assert_false(has_row(&answer, 17));
}

/* ---- memory ---- */

static void recommend_one_warmed_up_allocates_nothing(void **state)
{
    static const char filter[] = "{\"field\":\"price\",\"lt\":50}";
    uint32_t rows[40];
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    request.filter_json = filter;
    request.filter_json_len = strlen(filter);
    request.explain = true;
    request.diversity = 0.3;
    request.exclude_seen = EXCLUDE_SEEN_VIEWED;
    (void)state;
    uint64_t n_allocations = 0;
    for (uint32_t round = 0; round < 101; round++) {
        for (uint32_t i = 0; i < 40; i++) {
            rows[i] = (round * 7 + i * 3) % 300;
        }
        request.scenario = round % 2 == 0 ? SCENARIO_FOR_YOU : SCENARIO_POPULAR;
        (void)run(&request, rows, 40, EVENT_VIEW);
        if (round == 0) {
            n_allocations = mem_count();
        }
    }
    assert_int_equal(mem_count(), n_allocations);
}

static enum status open_and_recommend(const struct recommend_request *request,
                                      const struct history_result *history, size_t *n_items)
{
    struct recommender_config config = {shop.engine, &shop.profiles, 2, 1};
    struct recommender *recommender = NULL;
    struct arena arena;
    struct error err = {.message = ""};
    arena_init(&arena, 1 << 10, 1 << 20);
    struct recommend_job job = {.request = request, .arena = &arena};
    enum status status = recommender_open(&config, &recommender, &err);
    assert_true(status == STATUS_OK || recommender == NULL);
    if (status == STATUS_OK) {
        status = recommend_one(recommender, &job, history, &err);
        *n_items = job.answer.n_items;
        /* Metadata that found no memory are missing, and said to be. */
        if (status == STATUS_OK && job.answer.degraded == DEGRADED_METADATA) {
            status = STATUS_NOMEM;
        }
    }
    recommender_close(recommender);
    arena_free(&arena);
    return status;
}

static void recommender_open_and_recommend_without_memory_say_so(void **state)
{
    static const char filter[] = "{\"all\":[{\"field\":\"price\",\"lt\":70}]}";
    static const uint32_t rows[] = {1, 2, 3};
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    struct history_result history = core_fixture_history(&shop, rows, 3, EVENT_VIEW, history_items);
    request.filter_json = filter;
    request.filter_json_len = strlen(filter);
    request.explain = true;
    (void)state;
    enum status status = STATUS_NOMEM;
    size_t n_items = 0;
    int64_t n = 0;
    while (status == STATUS_NOMEM && n < 500) {
        mem_fail_nth(++n);
        status = open_and_recommend(&request, &history, &n_items);
        mem_fail_nth(0);
    }
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(n_items, LIMIT_DEFAULT);
    assert_true(n > 20);
}

static void recommender_open_batch_out_of_bounds_is_invalid(void **state)
{
    struct recommender_config config = {shop.engine, &shop.profiles, 0, 1};
    struct recommender *recommender = (struct recommender *)1;
    (void)state;
    assert_int_equal(recommender_open(&config, &recommender, NULL), STATUS_INVALID);
    assert_null(recommender);
    config.batch_max = RECOMMEND_BATCH_MAX + 1;
    assert_int_equal(recommender_open(&config, &recommender, NULL), STATUS_INVALID);
    recommender_close(NULL);
}

static void recommend_one_excluded_rows_never_come(void **state)
{
    static const uint32_t rows[] = {17};
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    uint32_t shown[LIMIT_DEFAULT];
    (void)state;
    struct recommend_answer first = run(&request, rows, 1, EVENT_VIEW);
    assert_int_equal(first.n_items, LIMIT_DEFAULT);
    for (size_t i = 0; i < first.n_items; i++) {
        shown[i] = first.items[i].row;
    }
    request.exclude_rows = shown;
    request.n_exclude_rows = LIMIT_DEFAULT;
    struct recommend_answer second = run(&request, rows, 1, EVENT_VIEW);
    assert_int_equal(second.n_items, LIMIT_DEFAULT);
    for (size_t i = 0; i < LIMIT_DEFAULT; i++) {
        assert_false(has_row(&second, shown[i]));
    }
}

static void recommend_one_given_candidates_stay_in_order_of_score(void **state)
{
    static const uint32_t rows[] = {17, 40};
    const char *items[] = {"I1", "I2", "I3", "I17", "I18", "I40", "I41", "I99", "I120"};
    enum { N_ITEMS = sizeof(items) / sizeof(items[0]) };
    struct recommend_request request = request_of(SCENARIO_FOR_YOU);
    request.candidates = items;
    request.n_candidates = N_ITEMS;
    request.limit = N_ITEMS;
    request.diversity = 0.9;
    (void)state;
    struct recommend_answer answer = run(&request, rows, 2, EVENT_VIEW);
    assert_int_equal(answer.n_items, N_ITEMS);
    for (size_t i = 1; i < answer.n_items; i++) {
        assert_true(answer.items[i].score <= answer.items[i - 1].score);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recommend_one_for_you_ranks_by_similarity_and_describes),
        cmocka_unit_test(recommend_one_related_gives_neighbours_of_the_item_only),
        cmocka_unit_test(recommend_one_cart_uses_the_cart_and_leaves_it_out),
        cmocka_unit_test(recommend_one_popular_orders_by_popularity),
        cmocka_unit_test(recommend_one_unknown_visitor_gets_popular_items_that_pass),
        cmocka_unit_test(recommend_one_exclude_seen_follows_the_kind_of_event),
        cmocka_unit_test(recommend_one_excluded_ids_never_come),
        cmocka_unit_test(recommend_one_unknown_events_are_dropped_and_counted),
        cmocka_unit_test(recommend_one_long_history_is_cut_at_its_maximum),
        cmocka_unit_test(recommend_one_late_history_is_named_and_answered_without),
        cmocka_unit_test(recommend_one_without_consent_does_not_use_history),
        cmocka_unit_test(recommend_begin_wants_history_when_it_is_of_use),
        cmocka_unit_test(recommend_begin_mistakes_name_their_field),
        cmocka_unit_test(recommend_run_after_the_deadline_leaves_out_what_is_optional),
        cmocka_unit_test(recommend_one_explained_features_add_up_to_the_score),
        cmocka_unit_test(recommend_one_related_explains_with_the_items_of_the_page),
        cmocka_unit_test(recommend_one_diversity_changes_the_order_and_loses_nothing),
        cmocka_unit_test(recommend_one_fields_limit_the_metadata),
        cmocka_unit_test(recommend_one_given_candidates_are_ranked_and_nothing_else),
        cmocka_unit_test(recommend_one_excluded_rows_never_come),
        cmocka_unit_test(recommend_one_given_candidates_stay_in_order_of_score),
        cmocka_unit_test(recommend_one_warmed_up_allocates_nothing),
        cmocka_unit_test(recommender_open_and_recommend_without_memory_say_so),
        cmocka_unit_test(recommender_open_batch_out_of_bounds_is_invalid),
    };
    return cmocka_run_group_tests(tests, open_shop, close_shop);
}
