#include "core/evaluate_report.h"

#include "core_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"

/* Releases with neighbours, several releases, and what is printed of them. `later` has fewer items
 * than `shop`, under the same ids but with other vectors. */

static struct core_fixture shop, later;
enum { SESSIONS = 120, SESSION_EVENTS = 4, CASES = 60, PREFIX = 3 };

static int open_shops(void **state)
{
    (void)state;
    core_fixture_open(&shop, 211, "Flat", 41);
    core_fixture_open(&later, 150, "Flat", 43);
    return 0;
}

static int close_shops(void **state)
{
    (void)state;
    core_fixture_close(&shop);
    core_fixture_close(&later);
    return 0;
}

static const char *write_file(const char *name, const char *text, char path[PATH_BYTES_MAX])
{
    assert_int_equal(path_join(path, shop.dir, name, NULL), STATUS_OK);
    assert_int_equal(file_write_atomic(path, text, strlen(text), NULL), STATUS_OK);
    return path;
}

/* ---- neighbours ---- */

struct neighbor_case {
    uint32_t prefix[PREFIX]; /* oldest first */
    uint32_t next;
};

static struct neighbors *make_neighbors(const struct neighbors_blend *blend)
{
    static struct history_event events[SESSIONS * SESSION_EVENTS];
    static uint64_t offsets[SESSIONS + 1];
    char path[PATH_BYTES_MAX];
    struct neighbors_settings settings;
    struct neighbors *neighbors = NULL;
    struct error err = {.message = ""};
    for (size_t i = 0; i < (size_t)SESSIONS * SESSION_EVENTS; i++) {
        /* Sessions of items close to each other; those from 180 on have none. */
        size_t session = i / SESSION_EVENTS;
        events[i] =
            (struct history_event){(uint32_t)((session * 17 + i % SESSION_EVENTS * 3) % 180),
                                   EVENT_VIEW, SHOP_START_MS + (int64_t)i * 1000};
        offsets[session + 1] = i + 1;
    }
    struct event_log log = {.events = events,
                            .offsets = offsets,
                            .n_sequences = SESSIONS,
                            .n_events = (size_t)SESSIONS * SESSION_EVENTS};
    neighbors_settings_default(NEIGHBORS_VMIS, &settings);
    (void)write_file("neighbors.safetensors", "", path);
    if (neighbors_build(&log, shop.n, &settings, blend, path, &err) != STATUS_OK ||
        neighbors_open(path, shop.n, &neighbors, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return neighbors;
}

static const char *write_cases(struct neighbor_case *cases, char path[PATH_BYTES_MAX])
{
    struct buf text;
    buf_init(&text, 1 << 20);
    for (size_t c = 0; c < CASES; c++) {
        for (size_t i = 0; i < PREFIX; i++) {
            cases[c].prefix[i] = (uint32_t)((c * 17 + i * 3) % 180);
            buf_printf(&text, "I%u ", cases[c].prefix[i]);
        }
        cases[c].next = (uint32_t)((c * 17 + 9 + c % 4 * 50) % shop.n);
        buf_printf(&text, "\tI%u\n", cases[c].next);
    }
    (void)write_file("cases.tsv", buf_text(&text), path);
    buf_free(&text);
    return path;
}

/* share[N] of the neighbours' score, -1 for items without one; scores of the vector. */
static void naive_case(const struct engine *engine, const struct neighbor_case *c, double *share,
                       double *vector)
{
    struct neighbors_workspace *workspace;
    struct history_event history[PREFIX];
    uint32_t rows[NEIGHBORS_HITS_MAX];
    float scores[NEIGHBORS_HITS_MAX];
    struct decay_settings settings;
    double user[SHOP_DIM] = {0.0};
    double norm = 0.0;
    double total;
    decay_settings_default(&settings);
    for (size_t i = 0; i < PREFIX; i++) {
        history[i] =
            (struct history_event){c->prefix[PREFIX - 1 - i], EVENT_VIEW, EVENT_TIME_UNKNOWN};
        for (size_t d = 0; d < SHOP_DIM; d++) {
            user[d] += pow(settings.position_decay, (double)i) *
                       (double)shop.vectors[(size_t)history[i].row * SHOP_DIM + d];
        }
    }
    for (size_t d = 0; d < SHOP_DIM; d++) {
        norm += user[d] * user[d];
    }
    assert_int_equal(neighbors_workspace_open(engine->neighbors, &workspace, NULL), STATUS_OK);
    size_t n = neighbors_query(engine->neighbors, workspace, history, PREFIX, EVENT_TIME_UNKNOWN,
                               NEIGHBORS_HITS_MAX, rows, scores, &total);
    neighbors_workspace_close(workspace);
    for (size_t row = 0; row < shop.n; row++) {
        share[row] = -1.0;
        vector[row] = 0.0;
        for (size_t d = 0; d < SHOP_DIM; d++) {
            vector[row] += user[d] / sqrt(norm) * (double)shop.vectors[row * SHOP_DIM + d];
        }
    }
    for (size_t i = 0; i < n; i++) {
        share[rows[i]] = (double)scores[i] / total;
    }
}

static size_t naive_rank(const double *scores, const struct neighbor_case *c, bool exclude)
{
    size_t rank = 1;
    for (uint32_t row = 0; row < shop.n; row++) {
        bool hidden = false;
        for (size_t i = 0; exclude && i < PREFIX; i++) {
            hidden = hidden || c->prefix[i] == row;
        }
        rank += row != c->next && !hidden && scores[row] >= scores[c->next];
    }
    return rank;
}

static double hit_rate(const struct engine *engine, const struct neighbor_case *cases,
                       enum evaluate_row row, bool exclude, size_t k)
{
    const struct neighbors_blend blend = neighbors_info(engine->neighbors).blend;
    double hits = 0.0;
    for (size_t c = 0; c < CASES; c++) {
        double share[256] = {0.0};
        double scores[256];
        naive_case(engine, &cases[c], share, scores);
        bool found = row != EVALUATE_NEIGHBORS || share[cases[c].next] >= 0.0;
        for (size_t i = 0; i < shop.n; i++) {
            if (row == EVALUATE_NEIGHBORS) {
                scores[i] = share[i];
            } else if (row == EVALUATE_BLEND && share[i] > 0.0) {
                scores[i] += blend.weight * log1p(share[i] / blend.floor);
            }
        }
        hits += found && naive_rank(scores, &cases[c], exclude) <= k;
    }
    return hits / CASES;
}

static struct evaluate_result evaluate(const struct evaluate_config *config,
                                       const struct engine *engine)
{
    struct evaluate_result result = {.n = 0};
    struct evaluation *evaluation;
    struct error err = {.message = ""};
    if (evaluation_open(config, &evaluation, &err) != STATUS_OK ||
        evaluation_add(evaluation, engine, &result, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    evaluation_close(evaluation);
    return result;
}

/* At the default cutoffs. */
static void expect_row(const struct engine *engine, const struct neighbor_case *cases,
                       const struct evaluate_result *result, int seen, enum evaluate_row row)
{
    static const size_t cutoffs[] = {5, 10, 20};
    for (size_t k = 0; k < 3; k++) {
        double expected = hit_rate(engine, cases, row, seen == EVALUATE_SEEN_EXCLUDED, cutoffs[k]);
        double found = result->metrics[seen][row].hr[k];
        if (fabs(found - expected) > 1e-9) {
            fail_msg("row %d seen %d k %zu: %g, expected %g", row, seen, k, found, expected);
        }
    }
}

static void evaluation_add_blend_rows_equal_the_definition(void **state)
{
    static struct neighbor_case cases[CASES];
    const struct neighbors_blend blend = {.weight = 0.3, .floor = 1e-2};
    char path[PATH_BYTES_MAX];
    struct engine engine = *shop.engine;
    struct evaluate_config config;
    (void)state;
    engine.neighbors = make_neighbors(&blend);
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_PAIRS;
    config.seen[EVALUATE_SEEN_EXCLUDED] = true;
    config.pairs_path = write_cases(cases, path);
    struct evaluate_result result = evaluate(&config, &engine);
    assert_int_equal(result.served, EVALUATE_BLEND);
    assert_int_equal(result.n_empty, 0);
    for (int seen = 0; seen < N_EVALUATE_SEEN; seen++) {
        for (int row = EVALUATE_VECTOR; row <= EVALUATE_BLEND; row++) {
            assert_true(result.has_row[row]);
            expect_row(&engine, cases, &result, seen, (enum evaluate_row)row);
        }
    }
    const struct evaluate_metrics *metrics = result.metrics[0];
    assert_true(metrics[EVALUATE_NEIGHBORS].hr[2] > 0.0 && metrics[EVALUATE_NEIGHBORS].hr[2] < 1.0);
    assert_true(metrics[EVALUATE_BLEND].mrr[2] != metrics[EVALUATE_VECTOR].mrr[2]);
    neighbors_close(engine.neighbors);
}

static void evaluation_add_primary_neighbours_serve_alone(void **state)
{
    static struct neighbor_case cases[CASES];
    const struct neighbors_blend blends[] = {{.is_primary = true, .weight = 1.0, .floor = 1e-3},
                                             {.weight = 0.0, .floor = 1e-3}};
    char path[PATH_BYTES_MAX];
    struct evaluate_config config;
    (void)state;
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_PAIRS;
    config.n_cutoffs = 1;
    config.cutoffs[0] = EVALUATE_CUTOFF_MAX; /* only what is not found misses */
    config.pairs_path = write_cases(cases, path);
    for (size_t b = 0; b < 2; b++) {
        struct engine engine = *shop.engine;
        engine.neighbors = make_neighbors(&blends[b]);
        struct evaluate_result result = evaluate(&config, &engine);
        assert_int_equal(result.served, b == 0 ? EVALUATE_NEIGHBORS : EVALUATE_VECTOR);
        assert_false(result.has_row[EVALUATE_BLEND]);
        assert_true(result.has_row[EVALUATE_NEIGHBORS]);
        double expected = hit_rate(&engine, cases, EVALUATE_NEIGHBORS, false, shop.n);
        if (!(expected > 0.05 && expected < 0.95)) {
            fail_msg("%g", expected);
        }
        assert_true(fabs(result.metrics[0][EVALUATE_NEIGHBORS].hr[0] - expected) < 1e-9);
        config.n_negatives = 20;
        result = evaluate(&config, &engine);
        assert_true(fabs(result.metrics[0][EVALUATE_NEIGHBORS].hr[0] - expected) < 1e-9);
        config.n_negatives = 0;
        neighbors_close(engine.neighbors);
    }
}

/* ---- several releases ---- */

static void fill_pairs(struct buf *text, size_t n)
{
    buf_init(text, 1 << 20);
    for (size_t p = 0; p < n; p++) {
        buf_printf(text, "I%zu I%zu\tI%zu\n", p * 7 % 211, p * 13 % 200, p * 17 % 211);
    }
}

static void evaluation_compare_releases_of_other_catalogues_is_paired(void **state)
{
    char path[PATH_BYTES_MAX];
    char out[PATH_BYTES_MAX];
    struct buf text;
    struct evaluate_config config;
    struct evaluate_result results[3];
    struct evaluate_comparison comparison;
    struct evaluate_comparison untouched = {.base = 77};
    struct evaluation *evaluation;
    const struct engine *engines[] = {shop.engine, later.engine, shop.engine};
    (void)state;
    fill_pairs(&text, 400);
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_PAIRS;
    config.seen[EVALUATE_SEEN_EXCLUDED] = true;
    config.pairs_path = write_file("pairs.tsv", buf_text(&text), path);
    buf_free(&text);
    assert_int_equal(evaluation_open(&config, &evaluation, NULL), STATUS_OK);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(evaluation_add(evaluation, engines[i], &results[i], NULL), STATUS_OK);
    }
    assert_int_equal(results[0].n_unknown, 0);
    assert_in_range(results[1].n_unknown, 60, 180);
    assert_int_equal(results[1].n, 400);
    assert_memory_equal(&results[0].metrics, &results[2].metrics, sizeof(results[0].metrics));
    assert_int_equal(
        evaluation_compare(evaluation, EVALUATE_SEEN_EXCLUDED, 0, 1, &comparison, NULL), STATUS_OK);
    double expected =
        results[1].metrics[1][EVALUATE_VECTOR].hr[2] - results[0].metrics[1][EVALUATE_VECTOR].hr[2];
    assert_true(fabs(comparison.hr.estimate - expected) < 1e-12);
    assert_true(comparison.hr.low <= expected && expected <= comparison.hr.high);
    assert_true(comparison.mrr.low < comparison.mrr.high);
    assert_int_equal(comparison.n_users, 400);
    assert_int_equal(comparison.cutoff, 20);
    assert_int_equal(evaluation_compare(evaluation, EVALUATE_SEEN_RANKED, 0, 2, &comparison, NULL),
                     STATUS_OK);
    assert_true(comparison.ndcg.low == 0.0 && comparison.ndcg.high == 0.0);
    assert_int_equal(evaluation_compare(evaluation, EVALUATE_SEEN_RANKED, 0, 3, &untouched, NULL),
                     STATUS_INVALID);
    assert_int_equal(untouched.base, 77);
    struct buf ranks;
    buf_init(&ranks, 1 << 20);
    assert_int_equal(evaluation_write_ranks(evaluation, write_file("r.tsv", "", out), NULL),
                     STATUS_OK);
    assert_int_equal(file_read(out, &ranks, NULL), STATUS_OK);
    static const char head[] = "user\tn_prefix\tnext_item\trank\tpopularity_rank\trank_without_seen"
                               "\tpopularity_rank_without_seen\trank_2\tpopularity_rank_2"
                               "\trank_without_seen_2\tpopularity_rank_without_seen_2\trank_3";
    assert_memory_equal(ranks.data, head, strlen(head));
    buf_free(&ranks);
    evaluation_close(evaluation);
}

/* ---- what was popular lately ---- */

static void evaluation_add_recent_popularity_counts_the_last_days(void **state)
{
    /* The last event is at day 10: of two days, what is later than day 8 counts. */
    static const char events[] = "user_id,item_id,timestamp\n"
                                 "a,I5,2023-01-08T00:00:00Z\nb,I5,2023-01-08T00:00:00Z\n"
                                 "c,I5,2023-01-07T00:00:00Z\na,I6,2023-01-10T00:00:00Z\n"
                                 "a,I7,2023-01-08T00:00:00.001Z\nb,I7,2023-01-09T00:00:00Z\n"
                                 "a,unheard-of,2023-01-09T00:00:00Z\n";
    char events_path[PATH_BYTES_MAX];
    char path[PATH_BYTES_MAX];
    struct evaluate_config config;
    (void)state;
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_PAIRS;
    config.n_cutoffs = 2;
    config.cutoffs[0] = 1;
    config.cutoffs[1] = 2;
    config.popularity_days = 2;
    config.popularity_events_path = write_file("before.csv", events, events_path);
    config.pairs_path = write_file("recent.tsv", "I1\tI7\nI1\tI6\nI1\tI5\nI1\tI1\n", path);
    struct evaluate_result result = evaluate(&config, shop.engine);
    const struct evaluate_metrics *metrics = &result.metrics[0][EVALUATE_RECENT];
    assert_true(result.has_row[EVALUATE_RECENT]);
    assert_true(fabs(metrics->hr[0] - 0.25) < 1e-12);
    assert_true(fabs(metrics->hr[1] - 0.5) < 1e-12);
    assert_true(fabs(metrics->mrr[1] - 0.375) < 1e-12);
    assert_true(fabs(metrics->coverage[1] - 2.0 / 211.0) < 1e-12);
    config.popularity_days = 3;
    result = evaluate(&config, shop.engine);
    /* I5 and I7 twice each: both at place 2. */
    assert_true(fabs(result.metrics[0][EVALUATE_RECENT].hr[0]) < 1e-12);
    assert_true(fabs(result.metrics[0][EVALUATE_RECENT].hr[1] - 0.5) < 1e-12);
}

/* ---- reports ---- */

static void expect_text(struct buf *text, const char *const *parts, size_t n)
{
    assert_int_equal(text->status, STATUS_OK);
    for (size_t i = 0; i < n; i++) {
        if (strstr(buf_text(text), parts[i]) == NULL) {
            fail_msg("%s is not in %s", parts[i], buf_text(text));
        }
    }
}

static void evaluate_report_says_how_each_figure_was_made(void **state)
{
    static const char *const in_json[] = {"\"protocol\":\"time-split\"",
                                          "\"since\":\"2023-11-14T22:13:20.000Z\"",
                                          "\"ranking\":\"100 sampled negatives\"",
                                          "\"coverage@5\":null",
                                          "\"seen_items\":\"ranked\"",
                                          "\"without_seen\":{\"seen_items\":\"excluded\"",
                                          "\"recall@5\":0.5",
                                          "\"rows\":{\"popularity\":{\"metrics\"",
                                          "\"comparisons\":[{\"base\"",
                                          "\"ci\":[-0.25,0.5]",
                                          "\"user_us\":{\"p50\":12.5,\"p90\":80,\"n\":40}"};
    static const char *const in_table[] = {
        "time-split, 100 sampled negatives, items already seen ranked like others",
        "time-split, 100 sampled negatives, items already seen not ranked",
        "for comparison with figures made the same way only",
        "recall is hr",
        "12.5 µs",
        "2 minus 1, 95 % interval of 2000 bootstrap resamples of 9 users",
        "(-0.2500 to +0.5000)"};
    static const char *const paths[] = {"a", "b"};
    static struct evaluate_result results[2];
    static struct evaluate_comparison comparisons[N_EVALUATE_SEEN];
    struct evaluate_config config;
    struct buf text;
    (void)state;
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_TIME_SPLIT;
    config.since_ms = SHOP_START_MS;
    config.n_negatives = 100;
    config.seen[EVALUATE_SEEN_EXCLUDED] = true;
    for (size_t i = 0; i < 2; i++) {
        results[i].has_row[EVALUATE_VECTOR] = results[i].has_row[EVALUATE_POPULARITY] = true;
        results[i].metrics[0][EVALUATE_VECTOR].hr[0] = 0.5;
        results[i].metrics[0][EVALUATE_VECTOR].coverage[0] = (double)NAN;
        results[i].user_p50_us = 12.5;
        results[i].user_p90_us = 80.0;
        results[i].n_timed = 40;
        comparisons[i] = (struct evaluate_comparison){
            .other = 1, .cutoff = 20, .n_users = 9, .n_resamples = 2000, .hr = {0.1, -0.25, 0.5}};
    }
    struct evaluate_report report = {&config, results, paths, 2, comparisons};
    buf_init(&text, 1 << 20);
    evaluate_report_json(&report, &text);
    expect_text(&text, in_json, sizeof(in_json) / sizeof(in_json[0]));
    buf_reset(&text);
    evaluate_report_table(&report, &text);
    expect_text(&text, in_table, sizeof(in_table) / sizeof(in_table[0]));
    buf_reset(&text);
    config.n_negatives = 0;
    report.n_releases = 1;
    evaluate_report_json(&report, &text);
    static const char full[] = "\"ranking\":\"full catalogue\"";
    assert_non_null(strstr(buf_text(&text), full));
    assert_null(strstr(buf_text(&text), "comparisons"));
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(evaluation_add_blend_rows_equal_the_definition),
        cmocka_unit_test(evaluation_add_primary_neighbours_serve_alone),
        cmocka_unit_test(evaluation_compare_releases_of_other_catalogues_is_paired),
        cmocka_unit_test(evaluation_add_recent_popularity_counts_the_last_days),
        cmocka_unit_test(evaluate_report_says_how_each_figure_was_made),
    };
    return cmocka_run_group_tests(tests, open_shops, close_shops);
}
