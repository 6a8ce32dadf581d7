#include "core/evaluate_offline.h"

#include "core_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/hash.h"

static struct core_fixture shop;

static int open_shop(void **state)
{
    (void)state;
    core_fixture_open(&shop, 211, "Flat", 41);
    return 0;
}

static int close_shop(void **state)
{
    (void)state;
    core_fixture_close(&shop);
    return 0;
}

static const char *write_file(const char *name, const char *text, char path[PATH_BYTES_MAX])
{
    assert_int_equal(path_join(path, shop.dir, name, NULL), STATUS_OK);
    assert_int_equal(file_write_atomic(path, text, strlen(text), NULL), STATUS_OK);
    return path;
}

/* Evaluates by an engine; ranks go to ranks_path unless it is NULL. */
static struct evaluate_result evaluate_engine(const struct evaluate_config *config,
                                              const struct engine *engine, const char *ranks_path)
{
    struct evaluate_result result = {.n = 0};
    struct evaluation *evaluation;
    struct error err = {.message = ""};
    enum status status = evaluation_open(config, &evaluation, &err);
    if (status == STATUS_OK) {
        status = evaluation_add(evaluation, engine, &result, &err);
    }
    if (status == STATUS_OK && ranks_path != NULL) {
        status = evaluation_write_ranks(evaluation, ranks_path, &err);
    }
    evaluation_close(evaluation);
    if (status != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return result;
}

static struct evaluate_result evaluate(const struct evaluate_config *config)
{
    return evaluate_engine(config, shop.engine, NULL);
}

static enum status evaluate_status(const struct evaluate_config *config,
                                   struct evaluate_result *result, struct error *err)
{
    struct evaluation *evaluation;
    enum status status = evaluation_open(config, &evaluation, err);
    if (status == STATUS_OK) {
        status = evaluation_add(evaluation, shop.engine, result, err);
        evaluation_close(evaluation);
    } else {
        assert_null(evaluation);
    }
    return status;
}

/* ---- the definition, case by case, over pairs ---- */

enum { PAIRS = 150, PREFIX_MAX = 6 };

struct pair {
    uint32_t prefix[PREFIX_MAX]; /* oldest first */
    size_t n;
    uint32_t next;
};

static void make_pairs(struct pair *pairs, struct buf *text)
{
    for (size_t p = 0; p < PAIRS; p++) {
        struct pair *pair = &pairs[p];
        pair->n = (size_t)rng_below(&shop.rng, PREFIX_MAX + 1);
        pair->next = (uint32_t)rng_below(&shop.rng, shop.n);
        for (size_t i = 0; i < pair->n; i++) {
            bool again = rng_below(&shop.rng, 5) == 0;
            pair->prefix[i] = again ? pair->next : (uint32_t)rng_below(&shop.rng, shop.n);
            buf_printf(text, "%s%s", i > 0 ? " " : "", shop.items[pair->prefix[i]].id);
        }
        buf_printf(text, "\t%s\n", shop.items[pair->next].id);
    }
}

static void naive_scores(const struct pair *pair, double *scores)
{
    struct decay_settings settings;
    double user[SHOP_DIM] = {0.0};
    decay_settings_default(&settings);
    for (size_t i = 0; i < pair->n; i++) {
        double weight = pow(settings.position_decay, (double)(pair->n - 1 - i));
        for (size_t d = 0; d < SHOP_DIM; d++) {
            user[d] += weight * (double)shop.vectors[pair->prefix[i] * shop.dim + d];
        }
    }
    for (size_t row = 0; row < shop.n; row++) {
        scores[row] = pair->n > 0 ? 0.0 : shop.items[row].popularity;
        for (size_t d = 0; d < SHOP_DIM; d++) {
            scores[row] += user[d] * (double)shop.vectors[row * SHOP_DIM + d];
        }
    }
}

static bool in_prefix(const struct pair *pair, uint32_t row)
{
    for (size_t i = 0; i < pair->n; i++) {
        if (pair->prefix[i] == row) {
            return true;
        }
    }
    return false;
}

static size_t naive_rank(const struct pair *pair, const double *scores, bool exclude, bool *top,
                         size_t k)
{
    size_t rank = 1;
    for (uint32_t row = 0; row < shop.n; row++) {
        size_t place = 1;
        if (exclude && in_prefix(pair, row) && row != pair->next) {
            continue;
        }
        rank += row != pair->next && scores[row] >= scores[pair->next];
        for (uint32_t other = 0; other < shop.n; other++) {
            bool hidden = exclude && in_prefix(pair, other) && other != pair->next;
            place += !hidden &&
                     (scores[other] > scores[row] || (scores[other] == scores[row] && other < row));
        }
        top[row] = top[row] || place <= k;
    }
    return rank;
}

static void expect_near(double a, double b)
{
    if (!(fabs(a - b) < 1e-12)) {
        fail_msg("%.17g, expected %.17g", a, b);
    }
}

static void naive_metrics(const struct pair *pairs, bool by_popularity, bool exclude, size_t k,
                          double expected[4])
{
    double scores[256];
    bool top[256] = {false};
    memset(expected, 0, 4 * sizeof(*expected));
    for (size_t p = 0; p < PAIRS; p++) {
        if (by_popularity) {
            for (size_t row = 0; row < shop.n; row++) {
                scores[row] = shop.items[row].popularity;
            }
        } else {
            naive_scores(&pairs[p], scores);
        }
        double rank = (double)naive_rank(&pairs[p], scores, exclude, top, k);
        if (rank <= (double)k) {
            expected[0] += 1.0 / PAIRS;
            expected[1] += 1.0 / rank / PAIRS;
            expected[2] += 1.0 / log2(1.0 + rank) / PAIRS;
        }
    }
    for (size_t row = 0; row < shop.n; row++) {
        expected[3] += top[row] ? 1.0 / (double)shop.n : 0.0;
    }
}

static void evaluate_offline_pairs_equal_the_definition(void **state)
{
    static struct pair pairs[PAIRS];
    char path[PATH_BYTES_MAX];
    struct buf text;
    struct evaluate_config config;
    (void)state;
    buf_init(&text, 1 << 20);
    make_pairs(pairs, &text);
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_PAIRS;
    config.pairs_path = write_file("pairs.tsv", buf_text(&text), path);
    config.seen[EVALUATE_SEEN_EXCLUDED] = true;
    struct evaluate_result result = evaluate(&config);
    assert_int_equal(result.n, PAIRS);
    assert_int_equal(result.n_unknown, 0);
    assert_in_range(result.n_empty, 5, 60);
    assert_int_equal(result.served, EVALUATE_VECTOR);
    for (int exclude = 0; exclude < 2; exclude++) {
        for (size_t k = 0; k < 3; k++) {
            for (int baseline = 0; baseline < 2; baseline++) {
                const struct evaluate_metrics *metrics =
                    &result.metrics[exclude][baseline ? EVALUATE_POPULARITY : EVALUATE_VECTOR];
                double expected[4];
                naive_metrics(pairs, baseline == 1, exclude == 1, config.cutoffs[k], expected);
                expect_near(metrics->hr[k], expected[0]);
                expect_near(metrics->mrr[k], expected[1]);
                expect_near(metrics->ndcg[k], expected[2]);
                expect_near(metrics->coverage[k], expected[3]);
            }
        }
        assert_true(result.metrics[exclude][EVALUATE_VECTOR].hr[2] > 0.0);
        assert_true(result.metrics[exclude][EVALUATE_POPULARITY].hr[2] > 0.0);
    }
    buf_free(&text);
}

/* ---- event files ---- */

static const char EVENTS[] = "user_id,item_id,timestamp,type,session_id\n"
                             "u1,I1,1700000000,view,s1\n"
                             "u1,I2,1700000100,view,s1\n"
                             "u1,gone,1700000200,view,s1\n"
                             "u1,I4,1700000300,purchase,s2\n"
                             "u2,I5,1700000000,view,s3\n"
                             "u3,gone,1700000000,view,s4\n"
                             "u3,I7,1700000050,view,s4\n"
                             "u4,I8,1700000400,view,s5\n"
                             "u4,lost,1700000500,view,s5\n";

static void expect_per_user(const char *path, const char *const *expected, size_t n)
{
    struct line_reader *reader;
    const char *line;
    size_t len;
    assert_int_equal(line_reader_open(path, 1 << 16, &reader, NULL), STATUS_OK);
    assert_int_equal(line_reader_next(reader, &line, &len, NULL), STATUS_OK);
    assert_string_equal(line, "user\tn_prefix\tnext_item\trank\tpopularity_rank");
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(line_reader_next(reader, &line, &len, NULL), STATUS_OK);
        assert_memory_equal(line, expected[i], strlen(expected[i]));
        bool unknown = strstr(line, "gone\t") != NULL || strstr(line, "lost\t") != NULL;
        assert_int_equal(unknown, line[len - 1] == '\t');
    }
    assert_int_equal(line_reader_next(reader, &line, &len, NULL), STATUS_NOT_FOUND);
    line_reader_close(reader);
}

static void evaluate_offline_leave_last_out_takes_each_users_last_event(void **state)
{
    static const char *const expected[] = {"u1\t3\tI4\t", "u3\t1\tI7\t", "u4\t1\tlost\t"};
    char path[PATH_BYTES_MAX];
    char out[PATH_BYTES_MAX];
    struct evaluate_config config;
    (void)state;
    evaluate_config_default(&config);
    config.events_path = write_file("events.csv", EVENTS, path);
    struct evaluate_result result =
        evaluate_engine(&config, shop.engine, write_file("users.tsv", "", out));
    assert_int_equal(result.n, 3);
    assert_int_equal(result.n_unknown, 1);
    assert_int_equal(result.n_empty, 1); /* u3: nothing known before I7 */
    expect_per_user(out, expected, 3);
}

static void evaluate_offline_every_position_takes_each_session(void **state)
{
    static const char *const expected[] = {"u1\t1\tI2\t", "u1\t2\tgone\t", "u3\t1\tI7\t",
                                           "u4\t1\tlost\t"};
    char path[PATH_BYTES_MAX];
    char out[PATH_BYTES_MAX];
    struct evaluate_config config;
    (void)state;
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_EVERY_POSITION;
    config.events_path = write_file("events.csv", EVENTS, path);
    struct evaluate_result result =
        evaluate_engine(&config, shop.engine, write_file("users.tsv", "", out));
    assert_int_equal(result.n, 4);
    assert_int_equal(result.n_unknown, 2);
    expect_per_user(out, expected, 4);
}

/* Ages count from the case, not from today or from the file's end. */
static void evaluate_offline_distant_times_give_the_same_numbers(void **state)
{
    char path[PATH_BYTES_MAX];
    struct evaluate_result results[2];
    struct evaluate_config config;
    (void)state;
    evaluate_config_default(&config);
    for (int shift = 0; shift < 2; shift++) {
        struct buf text;
        buf_init(&text, 1 << 20);
        buf_append_text(&text, "user_id,item_id,timestamp\n");
        for (int e = 0; e < 600; e++) {
            int64_t user_shift = shift * (int64_t)(e / 6) * 40 * SHOP_DAY_MS;
            buf_printf(&text, "u%d,I%d,%lld\n", e / 6, e * 37 % 211,
                       (long long)(SHOP_START_MS + user_shift + e * SHOP_DAY_MS));
        }
        config.events_path = write_file("shifted.csv", buf_text(&text), path);
        results[shift] = evaluate(&config);
        buf_free(&text);
    }
    assert_int_equal(results[0].n, 100);
    assert_memory_equal(&results[0].metrics, &results[1].metrics, sizeof(results[0].metrics));
}

static void evaluate_offline_threads_do_not_change_a_bit(void **state)
{
    char path[PATH_BYTES_MAX];
    struct buf text;
    struct evaluate_config config;
    struct evaluate_result first = {0};
    (void)state;
    buf_init(&text, 1 << 20);
    for (int p = 0; p < 1500; p++) {
        buf_printf(&text, "I%d I%d I%d\tI%d\n", p % 211, p * 7 % 211, p * 13 % 200, p * 17 % 211);
    }
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_PAIRS;
    config.seen[EVALUATE_SEEN_EXCLUDED] = true;
    config.pairs_path = write_file("many.tsv", buf_text(&text), path);
    for (size_t n_threads = 1; n_threads <= 5; n_threads++) {
        config.n_threads = n_threads;
        struct evaluate_result result = evaluate(&config);
        if (n_threads == 1) {
            first = result;
        }
        assert_int_equal(result.n, 1500);
        assert_memory_equal(&result.metrics, &first.metrics, sizeof(first.metrics));
    }
    buf_free(&text);
}

/* ---- ties ---- */

static void evaluate_offline_equal_items_count_before_the_next_one(void **state)
{
    char path[PATH_BYTES_MAX];
    struct evaluate_config config;
    struct engine engine = *shop.engine;
    (void)state;
    float *same = mem_alloc_array(shop.n * shop.dim, sizeof(*same));
    assert_non_null(same);
    for (size_t i = 0; i < shop.n * shop.dim; i++) {
        same[i] = shop.vectors[i % shop.dim];
    }
    engine.vectors.data = same;
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_PAIRS;
    config.seen[EVALUATE_SEEN_EXCLUDED] = true;
    config.pairs_path = write_file("ties.tsv", "I1 I2 I1\tI3\nI0\tI210\nI9 I8\tI8\n", path);
    config.n_cutoffs = 1;
    static const size_t ranks[2][3] = {{211, 211, 211}, {209, 210, 210}};
    for (int seen = 0; seen < N_EVALUATE_SEEN; seen++) {
        for (size_t k = 205; k <= 212; k++) {
            double expected = 0.0;
            config.cutoffs[0] = k;
            struct evaluate_result result = evaluate_engine(&config, &engine, NULL);
            for (size_t i = 0; i < 3; i++) {
                expected += ranks[seen][i] <= k ? 1.0 / 3.0 : 0.0;
            }
            expect_near(result.metrics[seen][EVALUATE_VECTOR].hr[0], expected);
        }
    }
    mem_free(same);
}

/* ---- sampled negatives ---- */

static bool user_has(const struct pair *pair, uint32_t row)
{
    return row == pair->next || in_prefix(pair, row);
}

/* Rank among n draws of the documented generator: one a case, seeded by its number. */
static size_t sampled_rank(const struct pair *pair, uint64_t number, const double *scores, size_t n)
{
    struct rng rng;
    size_t rank = 1;
    rng_init(&rng, hash_bytes(&number, sizeof(number), 7));
    for (size_t i = 0; i < n;) {
        uint32_t row = (uint32_t)rng_below(&rng, shop.n);
        if (!user_has(pair, row)) {
            rank += scores[row] >= scores[pair->next];
            i++;
        }
    }
    return rank;
}

static void evaluate_offline_negatives_equal_the_definition(void **state)
{
    static struct pair pairs[PAIRS];
    char path[PATH_BYTES_MAX];
    struct buf text;
    struct evaluate_config config;
    double hr[2] = {0.0};
    double ndcg[2] = {0.0};
    (void)state;
    buf_init(&text, 1 << 20);
    make_pairs(pairs, &text);
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_PAIRS;
    config.n_negatives = 100;
    config.seed = 7;
    config.pairs_path = write_file("pairs.tsv", buf_text(&text), path);
    struct evaluate_result result = evaluate(&config);
    for (size_t p = 0; p < PAIRS; p++) {
        double scores[256];
        for (int baseline = 0; baseline < 2; baseline++) {
            naive_scores(&pairs[p], scores);
            for (size_t row = 0; baseline == 1 && row < shop.n; row++) {
                scores[row] = shop.items[row].popularity;
            }
            double rank = (double)sampled_rank(&pairs[p], p, scores, 100);
            hr[baseline] += rank <= 10.0 ? 1.0 / PAIRS : 0.0;
            ndcg[baseline] += rank <= 10.0 ? 1.0 / log2(1.0 + rank) / PAIRS : 0.0;
        }
    }
    for (int baseline = 0; baseline < 2; baseline++) {
        const struct evaluate_metrics *metrics =
            &result.metrics[0][baseline ? EVALUATE_POPULARITY : EVALUATE_VECTOR];
        expect_near(metrics->hr[1], hr[baseline]);
        expect_near(metrics->ndcg[1], ndcg[baseline]);
        assert_true(isnan(metrics->coverage[1]));
    }
    config.n_threads = 3;
    struct evaluate_result again = evaluate(&config);
    assert_memory_equal(&again.metrics, &result.metrics, sizeof(result.metrics));
    config.seed = 8;
    again = evaluate(&config);
    assert_true(again.metrics[0][EVALUATE_VECTOR].mrr[2] !=
                result.metrics[0][EVALUATE_VECTOR].mrr[2]);
    buf_free(&text);
}

/* A user's later events are no negatives either, and one who has seen all leaves none. */
static void evaluate_offline_negatives_leave_out_all_events_of_the_user(void **state)
{
    char path[PATH_BYTES_MAX];
    struct buf text;
    struct evaluate_config config;
    struct evaluate_result result = {.n = 99};
    struct error err = {.message = ""};
    (void)state;
    for (int left = 1; left >= 0; left--) {
        buf_init(&text, 1 << 20);
        buf_append_text(&text, "user_id,item_id,timestamp\n");
        for (size_t i = 0; i < shop.n - (size_t)left; i++) {
            buf_printf(&text, "u,I%zu,%zu\n", i, 1700000000 + i);
        }
        evaluate_config_default(&config);
        config.protocol = PROTOCOL_TIME_SPLIT;
        config.since_ms = INT64_C(1700000000000) + 1000 * ((int64_t)shop.n - left - 2);
        config.n_negatives = 5;
        config.events_path = write_file("all.csv", buf_text(&text), path);
        buf_free(&text);
        if (left == 1) {
            /* Only the least popular item is left, five times. */
            result = evaluate(&config);
            assert_int_equal(result.n, 1);
            double rank = 1.0 / result.metrics[0][EVALUATE_POPULARITY].mrr[1];
            assert_true(fabs(rank - 1.0) < 1e-9 || fabs(rank - 6.0) < 1e-9);
        }
    }
    result.n = 99;
    assert_int_equal(evaluate_status(&config, &result, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "user u has events of every item"));
    assert_int_equal(result.n, 99);
}

/* ---- time split ---- */

static void evaluate_offline_time_split_takes_events_after_the_moment(void **state)
{
    static const char *const expected[] = {"u1\t2\tgone\t", "u1\t3\tI4\t", "u4\t0\tI8\t",
                                           "u4\t1\tlost\t"};
    char path[PATH_BYTES_MAX];
    char out[PATH_BYTES_MAX];
    struct evaluate_config config;
    struct error err = {.message = ""};
    (void)state;
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_TIME_SPLIT;
    config.events_path = write_file("events.csv", EVENTS, path);
    config.since_ms = INT64_C(1700000100000); /* of u1's I2, which is not after it */
    struct evaluate_result result =
        evaluate_engine(&config, shop.engine, write_file("users.tsv", "", out));
    assert_int_equal(result.n, 4);
    assert_int_equal(result.n_unknown, 2);
    assert_int_equal(result.n_empty, 1); /* u4's first */
    expect_per_user(out, expected, 4);
    config.since_ms--;
    assert_int_equal(evaluate(&config).n, 5);
    config.since_ms = INT64_C(1700000499999);
    assert_int_equal(evaluate(&config).n, 1);
    config.since_ms++;
    assert_int_equal(evaluate_status(&config, &result, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "no event after 2023-11-14T22:21:40.000Z"));
}

static void evaluate_offline_events_of_one_moment_keep_the_files_order(void **state)
{
    static const char *const expected[] = {"u\t3\tI4\t", "v\t1\tI2\t"};
    char path[PATH_BYTES_MAX];
    char out[PATH_BYTES_MAX];
    struct evaluate_config config;
    (void)state;
    evaluate_config_default(&config);
    config.events_path = write_file("same.csv",
                                    "user_id,item_id,timestamp\nu,I3,1700000000\nv,I9,1700000000\n"
                                    "u,I1,1700000000\nv,I2,1700000000\nu,I2,1700000000\n"
                                    "u,I4,1700000000\n",
                                    path);
    struct evaluate_result result =
        evaluate_engine(&config, shop.engine, write_file("users.tsv", "", out));
    assert_int_equal(result.n, 2);
    expect_per_user(out, expected, 2);
}

/* ---- mistakes ---- */

static void evaluate_offline_mistakes_are_named_and_change_nothing(void **state)
{
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"", "nothing to evaluate"},
        {"\n\n", "nothing to evaluate"},
        {"I1 I2\tI3\nI1 I2 I3\n", ":2: no tab"},
        {"I1\t\n", ":1: an item id"},
        {"I1\tI\x01\n", ":1: an item id"},
    };
    char path[PATH_BYTES_MAX];
    struct evaluate_config config;
    struct evaluate_result result = {.n = 99};
    (void)state;
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_PAIRS;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct error err = {.message = ""};
        config.pairs_path = write_file("bad.tsv", cases[c].text, path);
        assert_int_equal(evaluate_status(&config, &result, &err), STATUS_INVALID);
        if (strstr(err.message, cases[c].message) == NULL) {
            fail_msg("%s", err.message);
        }
        assert_int_equal(result.n, 99);
    }
    config.protocol = PROTOCOL_LEAVE_LAST_OUT;
    static const char *const files[] = {"", "user_id,item_id,timestamp\n",
                                        "user_id,item_id,timestamp\nu,I1,1700000000\n"};
    for (size_t c = 0; c < 3; c++) {
        config.events_path = write_file("bad.csv", files[c], path);
        assert_int_not_equal(evaluate_status(&config, &result, NULL), STATUS_OK);
        config.popularity_events_path = c < 2 ? path : NULL;
        assert_int_not_equal(evaluate_status(&config, &result, NULL), STATUS_OK);
        assert_int_equal(result.n, 99);
    }
    config.popularity_events_path = NULL;
    config.protocol = PROTOCOL_PAIRS;
    config.pairs_path = "/nowhere/at/all";
    assert_int_equal(evaluate_status(&config, &result, NULL), STATUS_NOT_FOUND);
    config.pairs_path = NULL;
    assert_int_equal(evaluate_status(&config, &result, NULL), STATUS_INVALID);
}

static void evaluate_offline_settings_are_bounded(void **state)
{
    char path[PATH_BYTES_MAX];
    struct evaluate_config config;
    struct evaluate_result result;
    (void)state;
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_PAIRS;
    config.pairs_path = write_file("one.tsv", "I1\tI2\n", path);
    config.n_cutoffs = 1;
    config.cutoffs[0] = EVALUATE_CUTOFF_MAX;
    assert_int_equal(evaluate_status(&config, &result, NULL), STATUS_OK);
    expect_near(result.metrics[0][EVALUATE_VECTOR].hr[0], 1.0);
    expect_near(result.metrics[0][EVALUATE_VECTOR].coverage[0], 1.0);
    config.cutoffs[0] = EVALUATE_CUTOFF_MAX + 1;
    assert_int_equal(evaluate_status(&config, &result, NULL), STATUS_INVALID);
    config.cutoffs[0] = 0;
    assert_int_equal(evaluate_status(&config, &result, NULL), STATUS_INVALID);
    config.n_cutoffs = 2;
    config.cutoffs[0] = config.cutoffs[1] = 5;
    assert_int_equal(evaluate_status(&config, &result, NULL), STATUS_INVALID);
    config.n_cutoffs = 0;
    assert_int_equal(evaluate_status(&config, &result, NULL), STATUS_INVALID);
    evaluate_config_default(&config);
    config.protocol = PROTOCOL_PAIRS;
    config.pairs_path = path;
    config.n_negatives = EVALUATE_NEGATIVES_MAX;
    assert_int_equal(evaluate_status(&config, &result, NULL), STATUS_OK);
    config.n_negatives++;
    assert_int_equal(evaluate_status(&config, &result, NULL), STATUS_INVALID);
    config.n_negatives = 0;
    config.seen[EVALUATE_SEEN_RANKED] = false;
    assert_int_equal(evaluate_status(&config, &result, NULL), STATUS_INVALID);
    config.seen[EVALUATE_SEEN_EXCLUDED] = true;
    config.popularity_events_path = path;
    config.popularity_days = EVALUATE_DAYS_MAX + 1;
    assert_int_equal(evaluate_status(&config, &result, NULL), STATUS_INVALID);
}

static void evaluate_offline_without_memory_says_so(void **state)
{
    char pairs[PATH_BYTES_MAX];
    char events[PATH_BYTES_MAX];
    struct evaluate_result result;
    (void)state;
    for (int from_events = 0; from_events < 2; from_events++) {
        struct evaluate_config config;
        uint64_t n_failed = 0;
        uint64_t n_used = UINT64_MAX;
        evaluate_config_default(&config);
        config.protocol = from_events ? PROTOCOL_LEAVE_LAST_OUT : PROTOCOL_PAIRS;
        config.pairs_path = write_file("one.tsv", "I1 I2\tI3\n", pairs);
        config.events_path = write_file("events.csv", EVENTS, events);
        config.n_threads = 2;
        config.popularity_events_path = config.events_path;
        /* To the last allocation: a reader may get by with less memory than it asked for. */
        for (uint64_t n = 1; n <= n_used; n++) {
            uint64_t before = mem_count();
            mem_fail_nth((int64_t)n);
            enum status status = evaluate_status(&config, &result, NULL);
            mem_fail_nth(0);
            assert_true(status == STATUS_OK || status == STATUS_NOMEM);
            n_failed += status == STATUS_NOMEM;
            n_used = status == STATUS_OK ? mem_count() - before : n_used;
        }
        assert_true(n_failed > 30);
    }
}

static void evaluate_protocol_names_parse_back(void **state)
{
    enum evaluate_protocol protocol = PROTOCOL_PAIRS;
    (void)state;
    for (int i = PROTOCOL_LEAVE_LAST_OUT; i <= PROTOCOL_PAIRS; i++) {
        assert_true(
            evaluate_protocol_parse(evaluate_protocol_name((enum evaluate_protocol)i), &protocol));
        assert_int_equal(protocol, i);
    }
    assert_false(evaluate_protocol_parse("leave", &protocol));
    assert_int_equal(protocol, PROTOCOL_PAIRS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(evaluate_offline_pairs_equal_the_definition),
        cmocka_unit_test(evaluate_offline_leave_last_out_takes_each_users_last_event),
        cmocka_unit_test(evaluate_offline_every_position_takes_each_session),
        cmocka_unit_test(evaluate_offline_distant_times_give_the_same_numbers),
        cmocka_unit_test(evaluate_offline_threads_do_not_change_a_bit),
        cmocka_unit_test(evaluate_offline_equal_items_count_before_the_next_one),
        cmocka_unit_test(evaluate_offline_negatives_equal_the_definition),
        cmocka_unit_test(evaluate_offline_negatives_leave_out_all_events_of_the_user),
        cmocka_unit_test(evaluate_offline_time_split_takes_events_after_the_moment),
        cmocka_unit_test(evaluate_offline_events_of_one_moment_keep_the_files_order),
        cmocka_unit_test(evaluate_offline_mistakes_are_named_and_change_nothing),
        cmocka_unit_test(evaluate_offline_settings_are_bounded),
        cmocka_unit_test(evaluate_offline_without_memory_says_so),
        cmocka_unit_test(evaluate_protocol_names_parse_back),
    };
    return cmocka_run_group_tests(tests, open_shop, close_shop);
}
