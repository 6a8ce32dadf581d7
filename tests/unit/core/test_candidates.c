/* Filters and exclusions against a walk over all items, singly and in batches: if `limit` items
 * pass, `limit` items come back, and with an exact index the best ones in the exact order. */
#include "core/recommend_internal.h"

#include "core_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"

enum { BIG = 24000, EVENTS_MAX = 8, EXCLUDED_MAX = 12 };
static const float TOLERANCE = 2e-5F;

struct scored_row {
    float score;
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

/* The user vector of a job, made anew from its history. */
static void embed(const struct core_fixture *shop, const uint32_t *rows, size_t n, float *out)
{
    struct user_model_workspace *workspace;
    struct history_event events[EVENTS_MAX];
    uint32_t offsets[] = {0, (uint32_t)n};
    int64_t now_ms = clock_unix_ms();
    for (size_t i = 0; i < n; i++) {
        events[i] =
            (struct history_event){rows[i], EVENT_VIEW, now_ms - (int64_t)i * SHOP_DAY_MS / 4};
    }
    struct history_batch batch = {1, offsets, events, now_ms};
    assert_int_equal(user_model_workspace_open(shop->engine->model, 1, &workspace, NULL),
                     STATUS_OK);
    user_model_embed(shop->engine->model, workspace, &batch, out);
    user_model_workspace_close(workspace);
}

/* All rows that pass, best first; returns how many. */
static size_t walk(const struct core_fixture *shop, const float *user_vector, const bool *passes,
                   struct scored_row *out)
{
    size_t n = 0;
    for (uint32_t row = 0; row < shop->n; row++) {
        if (passes[row]) {
            vectors_dot(&shop->engine->vectors, user_vector, &row, 1, &out[n].score);
            out[n++].row = row;
        }
    }
    qsort(out, n, sizeof(*out), compare_rows);
    return n;
}

/* Scores in the same order; items too, where scores are far enough apart to tell. */
static void expect_best(const struct recommend_answer *answer, const struct scored_row *best,
                        size_t n_best, size_t limit, const char *what)
{
    size_t n = n_best < limit ? n_best : limit;
    if (answer->n_items != n) {
        fail_msg("%s: %zu items, expected %zu", what, answer->n_items, n);
    }
    for (size_t i = 0; i < n; i++) {
        bool apart = (i == 0 || best[i - 1].score - best[i].score > TOLERANCE) &&
                     (i + 1 == n_best || best[i].score - best[i + 1].score > TOLERANCE);
        if (fabsf(answer->items[i].score - best[i].score) > TOLERANCE ||
            (apart && answer->items[i].row != best[i].row)) {
            fail_msg("%s: place %zu: row %u (%.7f), expected row %u (%.7f)", what, i,
                     answer->items[i].row, (double)answer->items[i].score, best[i].row,
                     (double)best[i].score);
        }
    }
}

static struct recommend_request plain_request(size_t limit, const struct buf *filter)
{
    struct recommend_request request;
    recommend_request_init(&request);
    request.profile = "plain";
    request.limit = limit;
    request.exclude_seen = EXCLUDE_SEEN_NONE;
    request.timeout_ms = TIMEOUT_MS_MAX;
    request.fields = 0;
    request.filter_json = filter != NULL ? filter->data : NULL;
    request.filter_json_len = filter != NULL ? filter->len : 0;
    return request;
}

/* ---- random filters over a small catalogue ---- */

static void random_case(struct core_fixture *shop, struct buf *json, bool *passes,
                        struct scored_row *best)
{
    const char *exclude[EXCLUDED_MAX];
    uint32_t rows[EVENTS_MAX];
    struct history_item items[EVENTS_MAX];
    float user_vector[SHOP_DIM];
    struct recommend_job job;
    bool filtered = rng_below(&shop->rng, 10) > 0;
    size_t n_exclude = (size_t)rng_below(&shop->rng, EXCLUDED_MAX + 1);
    size_t n_events = 1 + (size_t)rng_below(&shop->rng, EVENTS_MAX);
    buf_reset(json);
    memset(passes, 1, shop->n * sizeof(*passes));
    if (filtered) {
        core_fixture_random_filter(shop, json, passes);
    }
    struct recommend_request request =
        plain_request(1 + (size_t)rng_below(&shop->rng, LIMIT_MAX), filtered ? json : NULL);
    for (size_t i = 0; i < n_exclude; i++) {
        size_t row = (size_t)rng_below(&shop->rng, shop->n);
        exclude[i] = shop->items[row].id;
        passes[row] = false;
    }
    request.exclude = exclude;
    request.n_exclude = n_exclude;
    bool hide_seen = rng_below(&shop->rng, 2) == 0;
    request.exclude_seen = hide_seen ? EXCLUDE_SEEN_VIEWED : EXCLUDE_SEEN_NONE;
    for (size_t i = 0; i < n_events; i++) {
        rows[i] = (uint32_t)rng_below(&shop->rng, shop->n);
        passes[rows[i]] = passes[rows[i]] && !hide_seen;
    }
    struct history_result history = core_fixture_history(shop, rows, n_events, EVENT_VIEW, items);
    core_fixture_recommend(shop, &job, &request, &history);
    embed(shop, rows, n_events, user_vector);
    size_t n_best = walk(shop, user_vector, passes, best);
    expect_best(&job.answer, best, n_best, request.limit, filtered ? buf_text(json) : "no filter");
}

static void recommend_one_random_filters_answer_as_a_walk_over_all_items(void **state)
{
    (void)state;
    struct buf json;
    buf_init(&json, 1 << 20);
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct core_fixture shop;
        core_fixture_open(&shop, 64 * seed * seed + 3, "Flat", seed);
        bool *passes = mem_calloc(shop.n, sizeof(*passes));
        struct scored_row *best = mem_alloc_array(shop.n, sizeof(*best));
        assert_true(passes != NULL && best != NULL);
        for (int round = 0; round < 100; round++) {
            random_case(&shop, &json, passes, best);
        }
        mem_free(best);
        mem_free(passes);
        core_fixture_close(&shop);
    }
    buf_free(&json);
}

/* ---- broad filters over a catalogue too large to scan ---- */

/* A filter that most rows pass, but none of the n_hidden best. */
static void hide_best(const struct core_fixture *shop, const struct scored_row *best,
                      size_t n_hidden, struct buf *json)
{
    buf_reset(json);
    buf_append_text(json, "{\"not\":{\"field\":\"id\",\"in\":[");
    for (size_t i = 0; i < n_hidden; i++) {
        buf_printf(json, "%s\"%s\"", i > 0 ? "," : "", shop->items[best[i].row].id);
    }
    buf_append_text(json, "]}}");
    assert_int_equal(json->status, STATUS_OK);
}

struct broad {
    struct core_fixture shop;
    struct scored_row *best;
    bool *passes;
    struct buf json;
    struct history_item items[1];
    struct history_result history;
};

static void open_broad(struct broad *broad, const char *factory)
{
    static const uint32_t rows[] = {77};
    float user_vector[SHOP_DIM];
    core_fixture_open(&broad->shop, BIG, factory, 3);
    broad->best = mem_alloc_array(BIG, sizeof(*broad->best));
    broad->passes = mem_calloc(BIG, sizeof(*broad->passes));
    assert_true(broad->best != NULL && broad->passes != NULL);
    for (size_t row = 0; row < BIG; row++) {
        broad->passes[row] = true;
    }
    buf_init(&broad->json, 1 << 20);
    embed(&broad->shop, rows, 1, user_vector);
    assert_int_equal(walk(&broad->shop, user_vector, broad->passes, broad->best), BIG);
    broad->history = core_fixture_history(&broad->shop, rows, 1, EVENT_VIEW, broad->items);
}

static void close_broad(struct broad *broad)
{
    buf_free(&broad->json);
    mem_free(broad->passes);
    mem_free(broad->best);
    core_fixture_close(&broad->shop);
}

static void recommend_one_broad_filters_search_further_until_limit_pass(void **state)
{
    static const size_t hidden[] = {0, 10, 190, 300, 1000, 3000, 3900};
    struct broad broad;
    struct recommend_job job;
    (void)state;
    open_broad(&broad, "Flat");
    assert_string_equal(vector_index_info(broad.shop.engine->index).factory, "Flat");
    for (size_t c = 0; c < sizeof(hidden) / sizeof(hidden[0]); c++) {
        hide_best(&broad.shop, broad.best, hidden[c], &broad.json);
        for (size_t limit = 1; limit <= LIMIT_MAX; limit += 199) {
            struct recommend_request request = plain_request(limit, &broad.json);
            core_fixture_recommend(&broad.shop, &job, &request, &broad.history);
            expect_best(&job.answer, broad.best + hidden[c], BIG - hidden[c], limit, "broad");
        }
    }
    close_broad(&broad);
}

static void recommend_one_many_exclusions_search_further_until_limit_pass(void **state)
{
    const char *exclude[REQUEST_EXCLUDE_MAX];
    struct broad broad;
    struct recommend_job job;
    (void)state;
    open_broad(&broad, "Flat");
    for (size_t i = 0; i < REQUEST_EXCLUDE_MAX; i++) {
        exclude[i] = broad.shop.items[broad.best[i].row].id;
    }
    struct recommend_request request = plain_request(LIMIT_MAX, NULL);
    request.exclude = exclude;
    request.n_exclude = REQUEST_EXCLUDE_MAX;
    core_fixture_recommend(&broad.shop, &job, &request, &broad.history);
    expect_best(&job.answer, broad.best + REQUEST_EXCLUDE_MAX, BIG - REQUEST_EXCLUDE_MAX, LIMIT_MAX,
                "excluded");
    close_broad(&broad);
}

/* An index that visits a part of its lists runs out of results before the filter does. */
static void recommend_one_inexact_index_still_brings_limit_items(void **state)
{
    struct broad broad;
    struct recommend_job job;
    (void)state;
    open_broad(&broad, "IVF64,Flat");
    assert_false(vector_index_info(broad.shop.engine->index).exact);
    hide_best(&broad.shop, broad.best, 3900, &broad.json);
    struct recommend_request request = plain_request(LIMIT_MAX, &broad.json);
    core_fixture_recommend(&broad.shop, &job, &request, &broad.history);
    assert_int_equal(job.answer.n_items, LIMIT_MAX);
    for (size_t i = 0; i < LIMIT_MAX; i++) {
        for (size_t h = 0; h < 3900; h++) {
            assert_int_not_equal(job.answer.items[i].row, broad.best[h].row);
        }
    }
    close_broad(&broad);
}

/* ---- batches ---- */

struct batch {
    struct recommend_request requests[SHOP_BATCH];
    struct recommend_job jobs[SHOP_BATCH];
    struct recommend_job *pointers[SHOP_BATCH];
    struct history_item items[SHOP_BATCH][EVENTS_MAX];
    struct history_result histories[SHOP_BATCH];
};

static const char *const PAGE[] = {"I7"};
static const char *const FILTERS[] = {"{\"field\":\"price\",\"gte\":0}",
                                      "{\"field\":\"stock\",\"gt\":2}", "{\"any\":[]}"};

/* Eight different requests: visitors, a page, a cart, nobody, a page of candidates. */
static void make_batch(struct core_fixture *shop, struct batch *batch)
{
    static const char *const candidates[] = {"I1", "I2", "I3"};
    static const enum scenario scenarios[SHOP_BATCH] = {
        [4] = SCENARIO_RELATED, [5] = SCENARIO_CART, [6] = SCENARIO_POPULAR};
    for (uint32_t b = 0; b < SHOP_BATCH; b++) {
        struct recommend_request *request = &batch->requests[b];
        uint32_t rows[EVENTS_MAX];
        for (uint32_t i = 0; i < EVENTS_MAX; i++) {
            rows[i] = (b * 31 + i * 5) % (uint32_t)shop->n;
        }
        *request = plain_request(10 + b, NULL);
        request->profile = b % 2 == 0 ? "mixed" : "plain";
        request->explain = true;
        request->scenario = scenarios[b];
        batch->histories[b] = core_fixture_history(shop, rows, 1 + b, EVENT_VIEW, batch->items[b]);
    }
    for (size_t b = 0; b < 3; b++) {
        batch->requests[b].filter_json = FILTERS[b];
        batch->requests[b].filter_json_len = strlen(FILTERS[b]);
    }
    batch->requests[3].limit = 150;
    for (size_t b = 4; b < 6; b++) {
        batch->requests[b].items = PAGE;
        batch->requests[b].n_items = 1;
    }
    batch->requests[7].candidates = candidates;
    batch->requests[7].n_candidates = 3;
}

static void begin_batch(struct core_fixture *shop, struct batch *batch)
{
    arena_reset(&shop->arena);
    for (size_t b = 0; b < SHOP_BATCH; b++) {
        struct recommend_job *job = &batch->jobs[b];
        *job = (struct recommend_job){.request = &batch->requests[b], .arena = &shop->arena};
        batch->pointers[b] = job;
        assert_int_equal(recommend_begin(shop->recommender, job, clock_monotonic_us(), NULL),
                         STATUS_OK);
        recommend_set_history(shop->recommender, job, &batch->histories[b]);
    }
}

static void expect_same_answer(const struct recommend_answer *a, const struct recommend_answer *b)
{
    assert_int_equal(a->n_items, b->n_items);
    assert_int_equal(a->degraded, b->degraded);
    assert_int_equal(a->n_history, b->n_history);
    for (size_t i = 0; i < a->n_items; i++) {
        assert_true(fabsf(a->items[i].score - b->items[i].score) < TOLERANCE);
        assert_int_equal(a->items[i].row, b->items[i].row);
        assert_int_equal(a->items[i].sources, b->items[i].sources);
        assert_int_equal(a->items[i].n_because, b->items[i].n_because);
    }
}

static void expect_one_by_one(struct core_fixture *shop, struct batch *batch, size_t except)
{
    struct arena arena;
    arena_init(&arena, 64 << 10, 16 << 20);
    for (size_t b = 0; b < SHOP_BATCH; b++) {
        if (b == except) {
            continue;
        }
        struct recommend_job job = {.request = &batch->requests[b], .arena = &arena};
        assert_int_equal(batch->jobs[b].status, STATUS_OK);
        assert_int_equal(recommend_one(shop->recommender, &job, &batch->histories[b], NULL),
                         STATUS_OK);
        expect_same_answer(&batch->jobs[b].answer, &job.answer);
    }
    arena_free(&arena);
}

static void recommend_run_batch_answers_as_one_by_one(void **state)
{
    static const size_t sizes[] = {500, BIG};
    (void)state;
    for (size_t s = 0; s < 2; s++) {
        struct core_fixture shop;
        struct batch batch;
        core_fixture_open(&shop, sizes[s], "Flat", 21);
        make_batch(&shop, &batch);
        begin_batch(&shop, &batch);
        recommend_run(shop.recommender, batch.pointers, SHOP_BATCH);
        assert_int_equal(batch.jobs[2].answer.n_items, 0); /* its filter lets nothing pass */
        assert_int_equal(batch.jobs[3].answer.n_items, 150);
        expect_one_by_one(&shop, &batch, SHOP_BATCH);
        core_fixture_close(&shop);
    }
}

static void recommend_run_failing_job_leaves_the_others_alone(void **state)
{
    struct core_fixture shop;
    struct batch batch;
    (void)state;
    core_fixture_open(&shop, 500, "Flat", 22);
    make_batch(&shop, &batch);
    begin_batch(&shop, &batch);
    mem_fail_nth(1); /* of the run's first allocation: the first filter's */
    recommend_run(shop.recommender, batch.pointers, SHOP_BATCH);
    mem_fail_nth(0);
    assert_int_equal(batch.jobs[0].status, STATUS_NOMEM);
    assert_int_equal(batch.jobs[0].error.code, STATUS_NOMEM);
    assert_int_equal(batch.jobs[0].answer.n_items, 0);
    expect_one_by_one(&shop, &batch, 0);
    core_fixture_close(&shop);
}

static void recommend_run_failure_leaves_no_marks_behind(void **state)
{
    struct core_fixture shop;
    struct batch batch;
    struct recommend_job job;
    (void)state;
    core_fixture_open(&shop, 500, "Flat", 23);
    make_batch(&shop, &batch);
    for (int64_t n = 1; n < 12; n++) {
        begin_batch(&shop, &batch);
        mem_fail_nth(n);
        recommend_run(shop.recommender, batch.pointers, SHOP_BATCH);
        mem_fail_nth(0);
        for (size_t word = 0; word < (shop.n + 63) / 64; word++) {
            assert_int_equal(shop.recommender->marks[word], 0);
        }
        core_fixture_recommend(&shop, &job, &batch.requests[3], &batch.histories[3]);
        assert_int_equal(job.answer.n_items, 150);
    }
    core_fixture_close(&shop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recommend_one_random_filters_answer_as_a_walk_over_all_items),
        cmocka_unit_test(recommend_one_broad_filters_search_further_until_limit_pass),
        cmocka_unit_test(recommend_one_many_exclusions_search_further_until_limit_pass),
        cmocka_unit_test(recommend_one_inexact_index_still_brings_limit_items),
        cmocka_unit_test(recommend_run_batch_answers_as_one_by_one),
        cmocka_unit_test(recommend_run_failing_job_leaves_the_others_alone),
        cmocka_unit_test(recommend_run_failure_leaves_no_marks_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
