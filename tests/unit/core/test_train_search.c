#include "core/train_search.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"

/* Visitors walk around a ring of items, mostly one step at a time: easy to learn, by some settings
 * sooner than by others. */
enum { ITEMS = 30, SEQUENCES = 60, EVENTS = 8, SEED = 11 };

static struct event_log events;
static struct trainer_settings base, best;
static struct train_search_config config;
static struct train_search_report report, again;
static struct error err;
static char folder[64];
static volatile sig_atomic_t interrupted;

static void fill_log(size_t n_sequences, size_t n_items)
{
    struct rng rng;
    rng_init(&rng, SEED);
    events = (struct event_log){.n_sequences = n_sequences, .n_events = n_sequences * EVENTS};
    events.events = mem_alloc_array(events.n_events, sizeof(*events.events));
    events.offsets = mem_alloc_array(n_sequences + 1, sizeof(*events.offsets));
    assert_true(events.events != NULL && events.offsets != NULL);
    for (size_t s = 0; s < n_sequences; s++) {
        uint64_t item = rng_below(&rng, n_items);
        events.offsets[s] = s * EVENTS;
        for (size_t e = 0; e < EVENTS; e++) {
            item = (item + (rng_below(&rng, 10) == 0 ? 7 : 1)) % n_items;
            events.events[s * EVENTS + e] = (struct history_event){
                (uint32_t)item, EVENT_VIEW, (int64_t)(s * EVENTS + e) * 1000};
        }
    }
    events.offsets[n_sequences] = events.n_events;
}

static int set_up(void **state)
{
    (void)state;
    log_init(LOG_LEVEL_OFF, LOG_FORMAT_TEXT, 2);
    memset(&err, 0, sizeof(err));
    memset(&best, 0x5a, sizeof(best));
    interrupted = 0;
    (void)snprintf(folder, sizeof(folder), "/tmp/aisle-train-search-XXXXXX");
    assert_non_null(mkdtemp(folder));
    fill_log(SEQUENCES, ITEMS);
    assert_true(trainer_settings_default("sasrec", &base));
    base.dim = 16;
    base.learning_rate = 1e-3;
    base.dropout = 0.25;
    base.input_dropout = 0.5;
    base.normalised_scale = 0.0;
    base.average = 0.0;
    base.loss = (struct loss_settings){.kind = LOSS_FULL, .n_negatives = 1024, .gbce_t = 0.75};
    base.network.sasrec.n_heads = 2;
    base.network.sasrec.ffn_dim = 32;
    base.network.sasrec.n_blocks = 1;
    base.history_max = EVENTS;
    base.batch_events = 64;
    base.n_epochs = 40;
    base.n_threads = 1;
    base.interrupted = &interrupted;
    config = (struct train_search_config){.base = &base,
                                          .log = &events,
                                          .n_items = ITEMS,
                                          .budget_seconds = 1000.0,
                                          .folder = folder,
                                          .seed = 3};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    event_log_free(&events);
    return dir_remove(folder, NULL) == STATUS_OK ? 0 : -1;
}

static void give_plan(size_t n_candidates, size_t n_rungs, size_t first_epochs)
{
    config.n_candidates = n_candidates;
    config.n_rungs = n_rungs;
    config.first_epochs = first_epochs;
}

static void assert_nothing_left(void)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        n++;
    }
    (void)closedir(dir);
    assert_int_equal(n, 2); /* . and .. */
}

/* *best is as set_up left it. */
static void assert_best_untouched(void)
{
    struct trainer_settings fresh;
    memset(&fresh, 0x5a, sizeof(fresh));
    assert_memory_equal(&best, &fresh, sizeof(best));
}

static void assert_like_base(const struct trainer_settings *settings)
{
    assert_true(settings->learning_rate == base.learning_rate);
    assert_true(settings->dropout == base.dropout);
    assert_int_equal(settings->dim, base.dim);
    assert_int_equal(settings->batch_events, base.batch_events);
    assert_int_equal(settings->n_epochs, base.n_epochs);
}

/* ---- a given plan ---- */

static void train_search_given_plan_keeps_thirds(void **state)
{
    (void)state;
    give_plan(9, 3, 1);
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_OK);
    assert_int_equal(report.n, 9);
    assert_int_equal(report.n_rungs, 3);
    assert_false(report.too_short);
    assert_false(report.out_of_time);
    size_t at_rung[4] = {0}; /* of variations */
    for (size_t i = 0; i < report.n; i++) {
        const struct train_search_row *row = &report.rows[i];
        assert_false(row->failed);
        assert_true(row->seconds > 0.0);
        assert_true(row->ndcg10 >= 0.0 && row->ndcg10 <= 1.0);
        assert_true(row->ndcg10 <= report.rows[report.best].ndcg10);
        assert_true(row->n_rungs >= 1 && row->n_rungs <= 3);
        static const size_t EPOCHS[] = {0, 1, 3, 9};
        assert_int_equal(row->n_epochs, EPOCHS[row->n_rungs]);
        at_rung[row->n_rungs] += i > 0 ? 1 : 0;
    }
    /* Three go on, then one; base goes on beside them if it is not one of these. */
    size_t third = at_rung[2] + at_rung[3];
    assert_true(third == 2 || third == 3);
    assert_true(at_rung[3] <= 1);
    assert_int_equal(report.rows[0].n_rungs, 3);
    assert_int_equal(report.rows[report.best].n_rungs, 3);
    assert_memory_equal(&best, &report.rows[report.best].settings, sizeof(best));
    assert_int_equal(best.n_epochs, base.n_epochs);
    assert_null(best.checkpoint_path);
    assert_nothing_left();
}

static void train_search_same_seed_and_plan_give_the_same_answer(void **state)
{
    (void)state;
    struct trainer_settings second;
    give_plan(6, 2, 2);
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_OK);
    assert_int_equal(train_search(&config, &second, &again, &err), STATUS_OK);
    assert_int_equal(report.best, again.best);
    for (size_t i = 0; i < report.n; i++) {
        assert_true(report.rows[i].ndcg10 == again.rows[i].ndcg10);
        assert_int_equal(report.rows[i].n_epochs, again.rows[i].n_epochs);
        assert_true(report.rows[i].settings.learning_rate == again.rows[i].settings.learning_rate);
    }
    config.seed = 4;
    assert_int_equal(train_search(&config, &second, &again, &err), STATUS_OK);
    assert_true(report.rows[1].settings.learning_rate != again.rows[1].settings.learning_rate);
    assert_like_base(&again.rows[0].settings);
}

/* What a candidate learned before a pause is what it would have learned in one go. */
static void train_search_paused_candidate_equals_an_unbroken_training(void **state)
{
    (void)state;
    give_plan(1, 3, 1);
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_OK);
    assert_int_equal(report.rows[0].n_epochs, 9);
    struct trainer *trainer = NULL;
    struct trainer_settings whole = base;
    whole.n_epochs = 9;
    whole.patience = 0;
    assert_int_equal(trainer_open(&whole, &events, ITEMS, &trainer, &err), STATUS_OK);
    assert_int_equal(trainer_run(trainer, &err), STATUS_OK);
    const struct trainer_curve *curve = trainer_curve(trainer);
    assert_true((double)curve->points[curve->best].ndcg10 == report.rows[0].ndcg10);
    trainer_close(trainer);
}

static void train_search_better_settings_are_found(void **state)
{
    (void)state;
    give_plan(6, 2, 3);
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_OK);
    assert_true(report.best > 0);
    assert_true(report.rows[report.best].ndcg10 > report.rows[0].ndcg10);
    assert_true(best.learning_rate != base.learning_rate);
}

/* With one item every settings rank it first: equals do not displace base. */
static void train_search_nothing_better_keeps_base(void **state)
{
    (void)state;
    event_log_free(&events);
    fill_log(SEQUENCES, 1);
    config.n_items = 1;
    give_plan(6, 2, 1);
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_OK);
    assert_int_equal(report.best, 0);
    assert_true(report.rows[0].ndcg10 == 1.0);
    assert_int_equal(report.rows[0].n_rungs, 2);
    assert_like_base(&best);
}

static void train_search_variations_stay_in_range(void **state)
{
    (void)state;
    give_plan(TRAIN_SEARCH_CANDIDATES_MAX, 1, 1);
    base.loss.kind = LOSS_SAMPLED;
    base.loss.n_negatives = 8;
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_OK);
    bool has[3] = {false};
    for (size_t i = 0; i < report.n; i++) {
        const struct trainer_settings *s = &report.rows[i].settings;
        assert_false(report.rows[i].failed);
        double factor = s->learning_rate / base.learning_rate;
        assert_true(factor >= 0.25 && factor <= 4.0);
        assert_true(s->dropout >= 0.0 && s->dropout <= 0.6);
        assert_true(s->input_dropout >= 0.0 && s->input_dropout <= 0.6);
        assert_true(s->dim % (s->network.sasrec.n_heads * 8) == 0);
        assert_true(s->dim == 16 || s->dim == 32);
        assert_int_equal(s->network.sasrec.ffn_dim, 2 * s->dim);
        assert_true(s->network.sasrec.n_blocks >= 1 && s->network.sasrec.n_blocks <= 3);
        assert_true(s->batch_events >= 32 && s->batch_events <= 128);
        assert_true(s->normalised_scale == 0.0 ||
                    (s->normalised_scale >= 8.0 && s->normalised_scale <= 24.0));
        assert_true(s->loss.n_negatives >= 4 && s->loss.n_negatives <= 16);
        assert_true(s->average == 0.0 || s->average == 0.999);
        has[0] = has[0] || s->dim != base.dim;
        has[1] = has[1] || s->normalised_scale != base.normalised_scale;
        has[2] = has[2] || s->loss.n_negatives != base.loss.n_negatives;
    }
    assert_true(has[0] && has[1] && has[2]);
}

/* ---- by the budget ---- */

static void train_search_budget_decides_plan_and_end(void **state)
{
    (void)state;
    config.budget_seconds = 2.5;
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_OK);
    assert_false(report.too_short);
    assert_true(report.epoch_seconds > 0.0);
    assert_true(report.n >= 2 && report.n <= TRAIN_SEARCH_CANDIDATES_MAX);
    assert_true(report.n_rungs >= 2);
    /* A second of slack for a machine that has other things to do. */
    assert_true(report.seconds <= 1.1 * TRAIN_SEARCH_SHARE * 2.5 + 1.0);
    assert_true(report.rows[0].n_epochs >= 1);
    assert_nothing_left();
}

static void train_search_short_budget_gives_base_and_says_so(void **state)
{
    (void)state;
    config.budget_seconds = 1e-5;
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_OK);
    assert_true(report.too_short);
    assert_int_equal(report.n, 1);
    assert_int_equal(report.n_rungs, 0);
    assert_int_equal(report.best, 0);
    assert_like_base(&best);
    assert_nothing_left();
}

static void train_search_few_epochs_give_base_and_say_so(void **state)
{
    (void)state;
    base.n_epochs = 2; /* no room for a second rung */
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_OK);
    assert_true(report.too_short);
    assert_like_base(&best);
}

static void train_search_out_of_time_gives_the_best_so_far(void **state)
{
    (void)state;
    config.budget_seconds = 0.5;
    give_plan(TRAIN_SEARCH_CANDIDATES_MAX, 4, 30);
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_OK);
    assert_true(report.out_of_time);
    for (size_t i = 0; i < report.n; i++) {
        assert_false(report.rows[i].ndcg10 > report.rows[report.best].ndcg10);
    }
    assert_nothing_left();
}

/* ---- ends before its time ---- */

static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

static void train_search_interrupted_leaves_nothing(void **state)
{
    (void)state;
    interrupted = 1;
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_UNAVAILABLE);
    assert_int_equal(err.code, STATUS_UNAVAILABLE);
    assert_best_untouched();
    assert_nothing_left();

    interrupted = 0;
    give_plan(TRAIN_SEARCH_CANDIDATES_MAX, 4, 30); /* minutes */
    const struct sigaction action = {.sa_handler = interrupt};
    struct sigaction old;
    const struct itimerval soon = {.it_value = {.tv_usec = 200000}};
    assert_int_equal(sigaction(SIGALRM, &action, &old), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &soon, NULL), 0);
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_UNAVAILABLE);
    assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
    assert_true(report.seconds < 30.0);
    assert_best_untouched();
    assert_nothing_left();
}

static void train_search_unusable_folder_is_an_error(void **state)
{
    (void)state;
    char path[128];
    give_plan(2, 2, 1);
    (void)snprintf(path, sizeof(path), "%s/file", folder);
    assert_int_equal(file_write_atomic(path, "x", 1, NULL), STATUS_OK);
    config.folder = path;
    assert_true(train_search(&config, &best, &report, &err) != STATUS_OK);
    assert_best_untouched();
    assert_true(file_exists(path));
    if (geteuid() != 0) { /* nothing is forbidden to root */
        (void)snprintf(path, sizeof(path), "%s/closed", folder);
        assert_int_equal(mkdir(path, 0500), 0);
        assert_int_equal(train_search(&config, &best, &report, &err), STATUS_PERMISSION);
        assert_best_untouched();
    }
}

static void train_search_leftovers_of_a_killed_search_are_removed(void **state)
{
    (void)state;
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/.aisle-search", folder);
    assert_int_equal(dir_make(path, NULL), STATUS_OK);
    (void)snprintf(path, sizeof(path), "%s/.aisle-search/candidate-0", folder);
    assert_int_equal(file_write_atomic(path, "damaged", 7, NULL), STATUS_OK);
    give_plan(2, 2, 1);
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_OK);
    assert_nothing_left();
}

static void train_search_wrong_config_is_refused(void **state)
{
    (void)state;
    const double budgets[] = {0.0, -1.0, (double)NAN, (double)INFINITY};
    for (size_t i = 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
        config.budget_seconds = budgets[i];
        assert_int_equal(train_search(&config, &best, &report, &err), STATUS_INVALID);
        assert_string_equal(err.field, "budget");
    }
    config.budget_seconds = 100.0;
    give_plan(3, 0, 1);
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_INVALID);
    assert_string_equal(err.field, "plan");
    give_plan(TRAIN_SEARCH_CANDIDATES_MAX + 1, 1, 1);
    assert_int_equal(train_search(&config, &best, &report, NULL), STATUS_INVALID);
    give_plan(0, 0, 0);
    base.data.validation = VALIDATE_NONE;
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_INVALID);
    assert_string_equal(err.field, "validation");
    base.data.validation = VALIDATE_LEAVE_LAST;
    base.learning_rate = -1.0;
    assert_int_equal(train_search(&config, &best, &report, &err), STATUS_INVALID);
    assert_string_equal(err.field, "learning_rate");
    assert_best_untouched();
    assert_nothing_left();
}

static void train_search_out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    enum status status = STATUS_NOMEM;
    int n = 0;
    event_log_free(&events);
    fill_log(4, ITEMS);
    give_plan(3, 2, 1);
    while (status == STATUS_NOMEM) {
        mem_fail_nth(++n);
        status = train_search(&config, &best, &report, &err);
        mem_fail_nth(0);
        if (status == STATUS_NOMEM) {
            assert_best_untouched();
        }
        assert_nothing_left();
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 20);
}

/* ---- the report ---- */

static void train_search_json_tells_every_candidate(void **state)
{
    (void)state;
    struct buf out;
    struct json_writer json;
    buf_init(&out, 1 << 16);
    memset(&report, 0, sizeof(report));
    report.n = 2;
    report.best = 1;
    report.n_rungs = 2;
    report.first_epochs = 3;
    report.epoch_seconds = 0.5;
    report.seconds = 12.5;
    base.network.sasrec.n_blocks = 2;
    report.rows[0] = (struct train_search_row){
        .settings = base, .n_epochs = 3, .n_rungs = 1, .ndcg10 = 0.25, .seconds = 1.5};
    report.rows[1] = (struct train_search_row){
        .settings = base, .ndcg10 = (double)NAN, .seconds = 0.5, .failed = true};
    report.rows[1].settings.loss.kind = LOSS_GBCE;
    json_writer_init(&json, &out);
    json_begin_object(&json, NULL);
    train_search_json(&report, &json);
    json_end_object(&json);
    assert_string_equal(
        buf_text(&out),
        "{\"search\":{\"rungs\":2,\"first_epochs\":3,\"epoch_seconds\":0.5,\"seconds\":12.5,"
        "\"too_short\":false,\"out_of_time\":false,\"best\":1,\"candidates\":["
        "{\"learning_rate\":0.001,\"dropout\":0.25,\"input_dropout\":0.5,\"dim\":16,\"blocks\":2,"
        "\"batch_events\":64,\"cosine_scale\":0,\"label_smoothing\":0,\"average\":0,\"rungs\":1,"
        "\"epochs\":3,\"ndcg@10\":0.25,\"seconds\":1.5,\"failed\":false},"
        "{\"learning_rate\":0.001,\"dropout\":0.25,\"input_dropout\":0.5,\"dim\":16,\"blocks\":2,"
        "\"batch_events\":64,\"cosine_scale\":0,\"negatives\":1024,\"average\":0,\"rungs\":0,"
        "\"epochs\":0,\"ndcg@10\":null,\"seconds\":0.5,\"failed\":true}]}}");
    buf_free(&out);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(train_search_given_plan_keeps_thirds),
        TEST(train_search_same_seed_and_plan_give_the_same_answer),
        TEST(train_search_paused_candidate_equals_an_unbroken_training),
        TEST(train_search_better_settings_are_found),
        TEST(train_search_nothing_better_keeps_base),
        TEST(train_search_variations_stay_in_range),
        TEST(train_search_budget_decides_plan_and_end),
        TEST(train_search_short_budget_gives_base_and_says_so),
        TEST(train_search_few_epochs_give_base_and_say_so),
        TEST(train_search_out_of_time_gives_the_best_so_far),
        TEST(train_search_interrupted_leaves_nothing),
        TEST(train_search_unusable_folder_is_an_error),
        TEST(train_search_leftovers_of_a_killed_search_are_removed),
        TEST(train_search_wrong_config_is_refused),
        TEST(train_search_out_of_memory_leaves_nothing),
        TEST(train_search_json_tells_every_candidate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
