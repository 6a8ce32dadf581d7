/* Session neighbours in serving: scores against a walk over all items by the definition
 * (neighbors.h), with unit vectors and with long ones; what serves where a part is missing. */
#include "core/recommend_internal.h"

#include "core_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"

enum { ITEMS = 700, EVENTS_MAX = 6, EXCLUDED_MAX = 9, ROUNDS = 60 };

/* What is expected of a history, item by item. */
struct expected {
    float dots[ITEMS];
    float raw[ITEMS];   /* the neighbours' own score, 0: none */
    float blend[ITEMS]; /* what they add */
    size_t n_hits;
};

struct scored_row {
    double score;
    uint32_t row;
};

static int compare_rows(const void *a, const void *b)
{
    const struct scored_row *x = a;
    const struct scored_row *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return (x->row > y->row) - (x->row < y->row);
}

static void open_shop(struct core_fixture *shop, const struct neighbors_blend *blend,
                      double length_max, size_t n_zero)
{
    struct core_fixture_config config = {
        .n_items = ITEMS,
        .index_factory = "Flat",
        .seed = 71,
        .length_max = length_max,
        .n_zero = n_zero,
        .blend = blend,
    };
    core_fixture_open_with(shop, &config);
    assert_non_null(shop->engine->neighbors);
}

static void embed(const struct core_fixture *shop, const struct history_event *events, size_t n,
                  int64_t now_ms, float *out)
{
    struct user_model_workspace *workspace = NULL;
    uint32_t offsets[] = {0, (uint32_t)n};
    struct history_batch batch = {1, offsets, events, now_ms};
    assert_int_equal(user_model_workspace_open(shop->engine->model, 1, &workspace, NULL),
                     STATUS_OK);
    user_model_embed(shop->engine->model, workspace, &batch, out);
    user_model_workspace_close(workspace);
}

static void expect_of(const struct core_fixture *shop, const uint32_t *history, size_t n,
                      struct expected *out)
{
    static uint32_t rows[NEIGHBORS_HITS_MAX];
    static float scores[NEIGHBORS_HITS_MAX];
    struct history_event events[EVENTS_MAX];
    float user_vector[SHOP_DIM];
    struct neighbors_workspace *workspace = NULL;
    const struct neighbors *neighbors = shop->engine->neighbors;
    const struct neighbors_blend blend = neighbors_info(neighbors).blend;
    int64_t now_ms = clock_unix_ms();
    double total = 0.0;
    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < n; i++) {
        events[i] =
            (struct history_event){history[i], EVENT_VIEW, now_ms - (int64_t)i * SHOP_DAY_MS / 4};
    }
    embed(shop, events, n, now_ms, user_vector);
    for (uint32_t row = 0; row < ITEMS; row++) {
        vectors_dot(&shop->engine->vectors, user_vector, &row, 1, &out->dots[row]);
    }
    assert_int_equal(neighbors_workspace_open(neighbors, &workspace, NULL), STATUS_OK);
    out->n_hits = neighbors_query(neighbors, workspace, events, n, now_ms, NEIGHBORS_HITS_MAX, rows,
                                  scores, &total);
    neighbors_workspace_close(workspace);
    for (size_t i = 0; i < out->n_hits; i++) {
        out->raw[rows[i]] = scores[i];
        out->blend[rows[i]] =
            (float)(blend.weight * log1p((double)scores[i] / total / blend.floor));
    }
}

static struct recommend_request request_of(const char *profile, size_t limit)
{
    struct recommend_request request;
    recommend_request_init(&request);
    request.profile = profile;
    request.limit = limit;
    request.exclude_seen = EXCLUDE_SEEN_NONE;
    request.timeout_ms = TIMEOUT_MS_MAX;
    request.fields = 0;
    request.explain = true;
    return request;
}

static struct recommend_answer run(struct core_fixture *shop,
                                   const struct recommend_request *request, const uint32_t *rows,
                                   size_t n)
{
    static struct recommend_job job;
    struct history_item items[EVENTS_MAX];
    struct history_result history = core_fixture_history(shop, rows, n, EVENT_VIEW, items);
    core_fixture_recommend(shop, &job, request, &history);
    return job.answer;
}

/* Scores in the same order, items where scores are far enough apart to tell. */
static void expect_best(const struct recommend_answer *answer, struct scored_row *all, size_t n_all,
                        size_t limit)
{
    qsort(all, n_all, sizeof(*all), compare_rows);
    size_t n = n_all < limit ? n_all : limit;
    assert_int_equal(answer->n_items, n);
    for (size_t i = 0; i < n; i++) {
        double tolerance = 1e-5 * fmax(1.0, fabs(all[i].score));
        bool apart = (i == 0 || all[i - 1].score - all[i].score > tolerance) &&
                     (i + 1 == n_all || all[i].score - all[i + 1].score > tolerance);
        if (fabs((double)answer->items[i].score - all[i].score) > tolerance ||
            (apart && answer->items[i].row != all[i].row)) {
            fail_msg("place %zu: row %u (%.7f), expected row %u (%.7f)", i, answer->items[i].row,
                     (double)answer->items[i].score, all[i].row, all[i].score);
        }
    }
}

static size_t draw_history(struct core_fixture *shop, uint32_t *rows)
{
    size_t n = 1 + (size_t)rng_below(&shop->rng, EVENTS_MAX);
    for (size_t i = 0; i < n; i++) {
        rows[i] = (uint32_t)rng_below(&shop->rng, shop->n);
    }
    return n;
}

/* One random request over all candidates: filter, exclusions, history. Returns how many items the
 * neighbours know. */
static size_t blended_case(struct core_fixture *shop, struct buf *filter)
{
    static struct expected expected;
    struct scored_row all[ITEMS];
    bool passes[ITEMS];
    const char *exclude[EXCLUDED_MAX];
    uint32_t rows[EVENTS_MAX];
    size_t n = draw_history(shop, rows);
    size_t n_all = 0;
    struct recommend_request request =
        request_of("all", 1 + (size_t)rng_below(&shop->rng, LIMIT_MAX));
    buf_reset(filter);
    memset(passes, 1, sizeof(passes));
    if (rng_below(&shop->rng, 3) > 0) {
        core_fixture_random_filter(shop, filter, passes);
        request.filter_json = filter->data;
        request.filter_json_len = filter->len;
    }
    for (size_t i = 0; i < EXCLUDED_MAX; i++) {
        size_t row = (size_t)rng_below(&shop->rng, shop->n);
        exclude[i] = shop->items[row].id;
        passes[row] = false;
    }
    request.exclude = exclude;
    request.n_exclude = EXCLUDED_MAX;
    struct recommend_answer answer = run(shop, &request, rows, n);
    expect_of(shop, rows, n, &expected);
    for (uint32_t row = 0; row < ITEMS; row++) {
        if (passes[row]) {
            all[n_all++] =
                (struct scored_row){(double)expected.dots[row] + (double)expected.blend[row], row};
        }
    }
    expect_best(&answer, all, n_all, request.limit);
    for (size_t i = 0; i < answer.n_items; i++) {
        const struct recommend_item *item = &answer.items[i];
        bool is_known = expected.blend[item->row] > 0.0F;
        assert_int_equal(item->sources, SOURCE_VECTOR | (is_known ? SOURCE_NEIGHBORS : 0U));
        assert_true(fabsf(item->features[FEATURE_NEIGHBORS] - expected.blend[item->row]) < 1e-5F);
        assert_true(fabsf(item->features[FEATURE_SIMILARITY] - expected.dots[item->row]) < 1e-4F);
        assert_true(item->features[FEATURE_POPULARITY] == 0.0F);
    }
    return expected.n_hits;
}

static void recommend_one_blended_scores_are_those_of_the_definition(void **state)
{
    static const double lengths[] = {0.0, 40.0};
    const struct neighbors_blend blend = {.weight = 0.4, .floor = 1e-2};
    struct buf filter;
    (void)state;
    buf_init(&filter, 1 << 20);
    for (size_t l = 0; l < 2; l++) {
        struct core_fixture shop;
        size_t n_known = 0;
        open_shop(&shop, &blend, lengths[l], 0);
        for (int round = 0; round < ROUNDS; round++) {
            n_known += blended_case(&shop, &filter);
        }
        assert_true(n_known > ROUNDS);
        core_fixture_close(&shop);
    }
    buf_free(&filter);
}

/* 4 by vector, 2 more by neighbours; each with what both say of it. */
static void recommend_one_neighbours_bring_items_of_their_own(void **state)
{
    const struct neighbors_blend blend = {.weight = 0.4, .floor = 1e-2};
    static struct expected expected;
    struct core_fixture shop;
    size_t n_both = 0;
    (void)state;
    open_shop(&shop, &blend, 0.0, 0);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t rows[EVENTS_MAX];
        size_t n = draw_history(&shop, rows);
        struct recommend_request request = request_of("few", 2);
        struct recommend_answer answer = run(&shop, &request, rows, n);
        expect_of(&shop, rows, n, &expected);
        assert_int_equal(answer.n_items, 2);
        assert_int_equal(shop.recommender->n_candidates, 6);
        for (size_t i = 0; i < 6; i++) {
            const struct candidate *candidate = &shop.recommender->candidates[i];
            size_t n_closer = 0;
            for (size_t row = 0; row < ITEMS; row++) {
                n_closer += expected.dots[row] > expected.dots[candidate->row];
            }
            bool by_vector = (candidate->sources & SOURCE_VECTOR) != 0;
            bool by_neighbors = (candidate->sources & SOURCE_NEIGHBORS) != 0;
            assert_int_equal(by_vector, n_closer < 4);
            assert_int_equal(by_neighbors, expected.blend[candidate->row] > 0.0F);
            assert_true(by_vector || by_neighbors);
            assert_true(fabsf(candidate->score - expected.dots[candidate->row] -
                              expected.blend[candidate->row]) < 1e-5F);
            n_both += by_vector && by_neighbors;
        }
    }
    assert_true(n_both > 0);
    core_fixture_close(&shop);
}

static void recommend_one_profile_without_neighbours_does_not_ask_them(void **state)
{
    static const struct neighbors_blend blends[] = {{.weight = 3.0, .floor = 1e-3},
                                                    {.is_primary = true, .floor = 1e-3}};
    static struct expected expected;
    static const uint32_t rows[] = {100, 101};
    (void)state;
    for (size_t b = 0; b < 2; b++) {
        struct core_fixture shop;
        open_shop(&shop, &blends[b], 0.0, 0);
        struct recommend_request request = request_of("alone", 50);
        struct recommend_answer answer = run(&shop, &request, rows, 2);
        expect_of(&shop, rows, 2, &expected);
        assert_int_equal(answer.n_items, 50);
        for (size_t i = 0; i < answer.n_items; i++) {
            const struct recommend_item *item = &answer.items[i];
            assert_int_equal(item->sources, SOURCE_VECTOR);
            assert_true(item->features[FEATURE_NEIGHBORS] == 0.0F);
            assert_true(fabsf(item->score - expected.dots[item->row]) < 1e-5F);
        }
        core_fixture_close(&shop);
    }
}

/* ---- neighbours are the model ---- */

static void expect_published(const struct recommend_answer *answer, const struct expected *expected)
{
    for (size_t i = 0; i < answer->n_items; i++) {
        const struct recommend_item *item = &answer->items[i];
        if (i < expected->n_hits) {
            assert_true(item->score == expected->raw[item->row]); /* to the bit */
            assert_true(item->features[FEATURE_SIMILARITY] == 0.0F);
        } else {
            assert_true(item->score >= -1.0F && item->score <= 0.0F);
            assert_int_equal(item->sources, SOURCE_VECTOR);
        }
    }
}

static void recommend_one_primary_neighbours_score_as_published(void **state)
{
    static const double lengths[] = {0.0, 40.0};
    const struct neighbors_blend blend = {.is_primary = true, .floor = 1e-3};
    static struct expected expected;
    (void)state;
    for (size_t l = 0; l < 2; l++) {
        struct core_fixture shop;
        size_t n_mixed = 0; /* answers of both kinds of items */
        open_shop(&shop, &blend, lengths[l], 0);
        for (int round = 0; round < ROUNDS; round++) {
            struct scored_row all[ITEMS];
            uint32_t rows[EVENTS_MAX];
            size_t n = draw_history(&shop, rows);
            struct recommend_request request = request_of("all", LIMIT_MAX);
            struct recommend_answer answer = run(&shop, &request, rows, n);
            expect_of(&shop, rows, n, &expected);
            for (uint32_t row = 0; row < ITEMS; row++) {
                double behind = 1.0 / (1.0 + exp(-(double)expected.dots[row])) - 1.0;
                bool is_known = expected.raw[row] > 0.0F;
                all[row] = (struct scored_row){is_known ? (double)expected.raw[row] : behind, row};
            }
            expect_best(&answer, all, ITEMS, LIMIT_MAX);
            expect_published(&answer, &expected);
            n_mixed += expected.n_hits > 0 && expected.n_hits < LIMIT_MAX;
        }
        assert_true(n_mixed > ROUNDS / 2);
        core_fixture_close(&shop);
    }
}

/* ---- no user vector ---- */

static void recommend_one_without_vector_neighbours_serve(void **state)
{
    static const struct neighbors_blend blends[] = {{.weight = 0.4, .floor = 1e-2},
                                                    {.weight = 0.0, .floor = 1e-2},
                                                    {.is_primary = true, .floor = 1e-2}};
    static const uint32_t rows[] = {ITEMS - 2, ITEMS - 5};
    static struct expected expected;
    (void)state;
    for (size_t b = 0; b < 3; b++) {
        struct core_fixture shop;
        open_shop(&shop, &blends[b], 0.0, 60);
        struct recommend_request request = request_of("default", LIMIT_MAX);
        struct recommend_answer answer = run(&shop, &request, rows, 2);
        expect_of(&shop, rows, 2, &expected);
        size_t n_known = expected.n_hits;
        assert_true(n_known > 1 && n_known < LIMIT_MAX);
        assert_int_equal(answer.n_items, LIMIT_MAX);
        assert_int_equal(answer.n_history, 2);
        for (size_t i = 0; i < answer.n_items; i++) {
            const struct recommend_item *item = &answer.items[i];
            bool is_known = expected.raw[item->row] > 0.0F;
            assert_int_equal(is_known, i < n_known);
            assert_int_equal(item->sources, is_known ? SOURCE_NEIGHBORS : SOURCE_POPULAR);
            assert_true(is_known ? item->score > 0.0F : item->score <= 0.0F);
            if (i > 0 && i != n_known) {
                uint32_t before = answer.items[i - 1].row;
                const float *popularity = shop.engine->popularity;
                assert_true(is_known ? expected.raw[before] >= expected.raw[item->row]
                                     : popularity[before] >= popularity[item->row]);
            }
        }
        core_fixture_close(&shop);
    }
}

static void recommend_one_popular_scenario_asks_no_neighbours(void **state)
{
    const struct neighbors_blend blend = {.weight = 1.0, .floor = 1e-2};
    static const uint32_t rows[] = {100, 101};
    struct core_fixture shop;
    (void)state;
    open_shop(&shop, &blend, 0.0, 0);
    /* The request before leaves nothing behind. */
    struct recommend_request request = request_of("default", 20);
    (void)run(&shop, &request, rows, 2);
    request.scenario = SCENARIO_POPULAR;
    struct recommend_answer answer = run(&shop, &request, rows, 2);
    assert_int_equal(answer.n_items, 20);
    for (size_t i = 0; i < answer.n_items; i++) {
        const struct recommend_item *item = &answer.items[i];
        assert_int_equal(item->sources, SOURCE_POPULAR);
        assert_true(item->score == shop.engine->popularity[item->row]);
        assert_true(item->features[FEATURE_NEIGHBORS] == 0.0F);
    }
    core_fixture_close(&shop);
}

/* A page about one item: what its visitors looked at, whatever this visitor did before. */
static void recommend_one_related_asks_for_the_item_of_the_page(void **state)
{
    const struct neighbors_blend blend = {.weight = 1.0, .floor = 1e-2};
    static const uint32_t stored[] = {400, 401};
    static const uint32_t page[] = {100};
    const char *items[] = {"I100"};
    static struct expected expected;
    struct core_fixture shop;
    (void)state;
    open_shop(&shop, &blend, 0.0, 0);
    struct recommend_request request = request_of("all", LIMIT_MAX);
    request.scenario = SCENARIO_RELATED;
    request.items = items;
    request.n_items = 1;
    struct recommend_answer answer = run(&shop, &request, stored, 2);
    expect_of(&shop, page, 1, &expected);
    assert_true(expected.n_hits > 1);
    assert_true(answer.items[0].features[FEATURE_NEIGHBORS] > 0.0F);
    for (size_t i = 0; i < answer.n_items; i++) {
        uint32_t row = answer.items[i].row;
        assert_int_not_equal(row, 100);
        assert_true(fabsf(answer.items[i].features[FEATURE_NEIGHBORS] - expected.blend[row]) <
                    1e-5F);
    }
    core_fixture_close(&shop);
}

static void recommend_one_given_candidates_get_their_evidence(void **state)
{
    const struct neighbors_blend blend = {.weight = 0.5, .floor = 1e-2};
    static const uint32_t rows[] = {100, 103};
    const char *candidates[] = {"I99", "I100", "I105", "I300", "I500", "I112"};
    static struct expected expected;
    struct core_fixture shop;
    size_t n_known = 0;
    (void)state;
    open_shop(&shop, &blend, 20.0, 0);
    struct recommend_request request = request_of("plain", SCORE_CANDIDATES_MAX);
    request.candidates = candidates;
    request.n_candidates = 6;
    struct recommend_answer answer = run(&shop, &request, rows, 2);
    expect_of(&shop, rows, 2, &expected);
    assert_int_equal(answer.n_items, 6);
    for (size_t i = 0; i < 6; i++) {
        const struct recommend_item *item = &answer.items[i];
        assert_int_equal(item->sources, SOURCE_REQUEST);
        assert_true(fabsf(item->score - expected.dots[item->row] - expected.blend[item->row]) <
                    1e-4F);
        assert_true(i == 0 || item->score <= answer.items[i - 1].score);
        n_known += expected.blend[item->row] > 0.0F;
    }
    assert_true(n_known > 0 && n_known < 6);
    core_fixture_close(&shop);
}

/* ---- memory ---- */

static void recommend_one_with_neighbours_warmed_up_allocates_nothing(void **state)
{
    const struct neighbors_blend blend = {.weight = 0.5, .floor = 1e-2};
    struct core_fixture shop;
    uint64_t n_allocations = 0;
    (void)state;
    open_shop(&shop, &blend, 0.0, 60);
    struct recommend_request request = request_of("default", 20);
    for (uint32_t round = 0; round < 101; round++) {
        uint32_t rows[EVENTS_MAX];
        for (uint32_t i = 0; i < EVENTS_MAX; i++) {
            rows[i] = (round * 7 + i * 3) % ITEMS;
        }
        (void)run(&shop, &request, rows, EVENTS_MAX);
        if (round == 0) {
            n_allocations = mem_count();
        }
    }
    assert_int_equal(mem_count(), n_allocations);
    core_fixture_close(&shop);
}

static void recommender_open_with_neighbours_without_memory_leaks_nothing(void **state)
{
    const struct neighbors_blend blend = {.weight = 0.5, .floor = 1e-2};
    struct core_fixture shop;
    enum status status = STATUS_NOMEM;
    int64_t n = 0;
    (void)state;
    open_shop(&shop, &blend, 0.0, 0);
    struct recommender_config config = {shop.engine, &shop.profiles, 2, 1};
    while (status == STATUS_NOMEM && n < 500) {
        struct recommender *recommender = NULL;
        mem_fail_nth(++n);
        status = recommender_open(&config, &recommender, NULL);
        mem_fail_nth(0);
        assert_int_equal(status == STATUS_OK, recommender != NULL);
        recommender_close(recommender);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 25);
    core_fixture_close(&shop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recommend_one_blended_scores_are_those_of_the_definition),
        cmocka_unit_test(recommend_one_neighbours_bring_items_of_their_own),
        cmocka_unit_test(recommend_one_profile_without_neighbours_does_not_ask_them),
        cmocka_unit_test(recommend_one_primary_neighbours_score_as_published),
        cmocka_unit_test(recommend_one_without_vector_neighbours_serve),
        cmocka_unit_test(recommend_one_popular_scenario_asks_no_neighbours),
        cmocka_unit_test(recommend_one_related_asks_for_the_item_of_the_page),
        cmocka_unit_test(recommend_one_given_candidates_get_their_evidence),
        cmocka_unit_test(recommend_one_with_neighbours_warmed_up_allocates_nothing),
        cmocka_unit_test(recommender_open_with_neighbours_without_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
