#include "embeddings/train/loss.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "gradient_check.h"

/* More events than a tile and a chunk, and neither a multiple. */
enum { EVENTS = 300, ITEMS = 23, DIM = 5, CHUNKS = 2, DRAWN_MAX = LOSS_CHUNK };
static const uint64_t SEED = 99;

/* A loss in double precision over the negatives that the code under test draws. */
struct problem {
    struct loss_settings settings;
    bool has_bias;
    size_t first, end; /* events that count */
    double hidden[EVENTS * DIM], items[ITEMS * DIM], bias[ITEMS];
    double counts[ITEMS];
    uint32_t targets[EVENTS];
    uint32_t drawn[CHUNKS][DRAWN_MAX];
    size_t n_drawn[CHUNKS];
    double log_q[CHUNKS][ITEMS];
};
static struct problem problem;
static float hidden[EVENTS * DIM];
static float items[ITEMS * DIM];
static float bias[ITEMS];
static float dhidden[EVENTS * DIM];
static float ditems[ITEMS * DIM];
static float dbias[ITEMS];
static unsigned char touched[ITEMS];

static double score(const struct problem *p, size_t event, size_t item)
{
    double sum = p->has_bias ? p->bias[item] : 0.0;
    for (size_t c = 0; c < DIM; c++) {
        sum += p->hidden[event * DIM + c] * p->items[item * DIM + c];
    }
    return sum;
}

static double naive_full(const struct problem *p, size_t event)
{
    double sum = 0.0;
    double mean = 0.0;
    for (size_t i = 0; i < ITEMS; i++) {
        const double s = score(p, event, i);
        sum += exp(s);
        mean += s / ITEMS;
    }
    const double smoothing = p->settings.label_smoothing;
    return log(sum) - (1.0 - smoothing) * score(p, event, p->targets[event]) - smoothing * mean;
}

static double naive_sampled(const struct problem *p, size_t event)
{
    const size_t chunk = event / LOSS_CHUNK;
    const double positive = score(p, event, p->targets[event]);
    double sum = exp(positive);
    for (size_t s = 0; s < p->n_drawn[chunk]; s++) {
        const uint32_t item = p->drawn[chunk][s];
        if (item != p->targets[event]) {
            sum += exp(score(p, event, item) - p->log_q[chunk][item]);
        }
    }
    return log(sum) - positive;
}

static double naive_gbce(const struct problem *p, size_t event)
{
    const size_t chunk = event / LOSS_CHUNK;
    const double alpha = (double)p->settings.n_negatives / (ITEMS - 1.0);
    const double beta = alpha * (p->settings.gbce_t * (1.0 - 1.0 / alpha) + 1.0 / alpha);
    double loss = beta * log1p(exp(-score(p, event, p->targets[event])));
    for (size_t s = 0; s < p->n_drawn[chunk]; s++) {
        const uint32_t item = p->drawn[chunk][s];
        loss += item != p->targets[event] ? log1p(exp(score(p, event, item))) : 0.0;
    }
    return loss;
}

static double naive_loss(const void *context)
{
    const struct problem *p = context;
    double sum = 0.0;
    for (size_t i = p->first; i < p->end; i++) {
        switch (p->settings.kind) {
        case LOSS_FULL:
            sum += naive_full(p, i);
            break;
        case LOSS_SAMPLED:
            sum += naive_sampled(p, i);
            break;
        default:
            sum += naive_gbce(p, i);
        }
    }
    return sum / EVENTS;
}

/* The negatives of each chunk: its own generator over counts^exponent, or its positives. */
static void draw_negatives(struct problem *p)
{
    const bool in_batch = p->settings.in_batch;
    const double exponent = in_batch ? 1.0 : p->settings.negative_exponent;
    double weights[ITEMS];
    double total = 0.0;
    struct alias_table table;
    for (size_t i = 0; i < ITEMS; i++) {
        weights[i] = p->counts[i] > 0.0 ? pow(p->counts[i], exponent) : 0.0;
        total += weights[i];
    }
    assert_int_equal(alias_table_init(&table, weights, ITEMS, NULL), STATUS_OK);
    for (size_t c = 0; c < CHUNKS; c++) {
        const size_t first = c * LOSS_CHUNK;
        const size_t n = EVENTS - first < LOSS_CHUNK ? EVENTS - first : LOSS_CHUNK;
        struct rng rng;
        rng_init(&rng, SEED + first);
        p->n_drawn[c] = in_batch ? n : p->settings.n_negatives;
        for (size_t s = 0; s < p->n_drawn[c]; s++) {
            p->drawn[c][s] = in_batch ? p->targets[first + s] : alias_table_draw(&table, &rng);
        }
        for (size_t i = 0; i < ITEMS; i++) {
            p->log_q[c][i] = p->settings.log_q && weights[i] > 0.0
                                 ? log((double)p->n_drawn[c] * weights[i] / total)
                                 : 0.0;
        }
    }
    alias_table_free(&table);
}

static struct loss *make(const struct loss_settings *settings, bool has_bias)
{
    struct rng rng;
    rng_init(&rng, 3);
    memset(&problem, 0, sizeof(problem));
    problem.settings = *settings;
    problem.has_bias = has_bias;
    problem.end = EVENTS;
    fill_normal(hidden, problem.hidden, EVENTS * DIM, 1);
    fill_normal(items, problem.items, ITEMS * DIM, 2);
    fill_normal(bias, problem.bias, ITEMS, 4);
    for (size_t i = 0; i < EVENTS; i++) {
        problem.targets[i] = (uint32_t)rng_below(&rng, ITEMS - 1);
        problem.counts[problem.targets[i]] += 1.0; /* the last item has none */
    }
    draw_negatives(&problem);
    struct loss *loss;
    assert_int_equal(loss_open(settings, problem.counts, ITEMS, DIM, &loss, NULL), STATUS_OK);
    return loss;
}

static double compute(struct loss *loss)
{
    const struct loss_batch batch = {
        EVENTS, hidden, problem.targets, items, problem.has_bias ? bias : NULL, SEED};
    const struct loss_gradients out = {dhidden, ditems, problem.has_bias ? dbias : NULL, touched};
    memset(dhidden, 0x7f, sizeof(dhidden));
    memset(ditems, 0, sizeof(ditems));
    memset(dbias, 0, sizeof(dbias));
    memset(touched, 0, sizeof(touched));
    return loss_compute(loss, &batch, &out);
}

/* A hidden vector has a part in the loss of its own event alone. */
static double hidden_error(void)
{
    double worst = 0.0;
    for (size_t i = 0; i < EVENTS; i++) {
        problem.first = i;
        problem.end = i + 1;
        worst = fmax(worst, gradient_error(naive_loss, &problem, problem.hidden + i * DIM,
                                           dhidden + i * DIM, DIM, 0.1 / EVENTS));
    }
    problem.first = 0;
    problem.end = EVENTS;
    return worst;
}

static void check(const char *name, const struct loss_settings *settings, bool has_bias)
{
    struct loss *loss = make(settings, has_bias);
    const double value = compute(loss);
    const double wanted = naive_loss(&problem);
    const double error_hidden = hidden_error();
    const double error_items =
        gradient_error(naive_loss, &problem, problem.items, ditems, ITEMS * DIM, 1e-6);
    const double error_bias =
        has_bias ? gradient_error(naive_loss, &problem, problem.bias, dbias, ITEMS, 1e-6) : 0.0;
    print_message("%s%s: loss %.6f, hidden %.1e, items %.1e, bias %.1e\n", name,
                  has_bias ? " with bias" : "", value, error_hidden, error_items, error_bias);
    assert_true(fabs(value - wanted) < 1e-5 * fmax(1.0, wanted));
    assert_true(error_hidden < 1e-4 && error_items < 1e-4 && error_bias < 1e-4);
    loss_close(loss);
}

static void loss_compute_full_matches_naive(void **state)
{
    (void)state;
    struct loss_settings settings = {.kind = LOSS_FULL};
    check("full", &settings, false);
    settings.label_smoothing = 0.1;
    check("full, smoothed", &settings, true);
}

static void loss_compute_sampled_matches_naive(void **state)
{
    (void)state;
    struct loss_settings settings = {.kind = LOSS_SAMPLED, .n_negatives = 12};
    check("sampled, uniform", &settings, false);
    settings.log_q = true;
    settings.negative_exponent = 0.75;
    check("sampled, by popularity, corrected", &settings, true);
    settings.in_batch = true;
    check("sampled, in batch, corrected", &settings, true);
    settings.log_q = false;
    check("sampled, in batch", &settings, false);
}

/* log_q belongs to the sampled softmax and changes nothing here. */
static void loss_compute_gbce_matches_naive(void **state)
{
    (void)state;
    struct loss_settings settings = {.kind = LOSS_GBCE, .n_negatives = 12, .gbce_t = 0.75};
    check("gbce", &settings, false);
    settings.log_q = true;
    check("gbce", &settings, true);
    settings.n_negatives = 80; /* more than a block, not a multiple of one */
    check("gbce, 80 negatives", &settings, false);
}

/* A. Petrov, C. Macdonald, RecSys 2023: t = 0 is plain BCE, t = 1 has β = α. */
static void loss_compute_gbce_calibration_is_as_published(void **state)
{
    (void)state;
    double positives[2];
    for (int t = 0; t < 2; t++) {
        const struct loss_settings settings = {
            .kind = LOSS_GBCE, .n_negatives = 4, .gbce_t = (double)t};
        struct loss *loss = make(&settings, false);
        positives[t] = compute(loss);
        for (size_t i = 0; i < EVENTS; i++) {
            for (size_t s = 0; s < 4; s++) {
                const uint32_t item = problem.drawn[i / LOSS_CHUNK][s];
                positives[t] -= item != problem.targets[i]
                                    ? log1p(exp(score(&problem, i, item))) / EVENTS
                                    : 0.0;
            }
        }
        loss_close(loss);
    }
    const double alpha = 4.0 / (ITEMS - 1.0);
    assert_true(fabs(positives[1] / positives[0] - alpha) < 1e-4);
}

/* Many negatives with their correction: the sum over the catalogue, up to chance. */
static void loss_compute_sampled_many_negatives_is_close_to_full(void **state)
{
    (void)state;
    const struct loss_settings full = {.kind = LOSS_FULL};
    struct loss *loss = make(&full, true);
    problem.counts[ITEMS - 1] = 3.0;
    const double wanted = compute(loss);
    float full_hidden[EVENTS * DIM];
    memcpy(full_hidden, dhidden, sizeof(dhidden));
    loss_close(loss);
    const struct loss_settings sampled = {
        .kind = LOSS_SAMPLED, .n_negatives = 20000, .negative_exponent = 0.5, .log_q = true};
    assert_int_equal(loss_open(&sampled, problem.counts, ITEMS, DIM, &loss, NULL), STATUS_OK);
    const double value = compute(loss);
    double difference = 0.0;
    double norm = 0.0;
    for (size_t i = 0; i < EVENTS * DIM; i++) {
        difference += pow((double)(dhidden[i] - full_hidden[i]), 2.0);
        norm += pow((double)full_hidden[i], 2.0);
    }
    print_message("full %.5f, sampled %.5f, gradient %.4f apart\n", wanted, value,
                  sqrt(difference / norm));
    assert_true(fabs(value - wanted) < 0.01);
    assert_true(difference < 0.03 * 0.03 * norm);
    loss_close(loss);
}

static void loss_compute_hits_only_do_not_count(void **state)
{
    (void)state;
    for (int kind = LOSS_SAMPLED; kind <= LOSS_GBCE; kind++) {
        const struct loss_settings settings = {
            .kind = (enum loss_kind)kind, .n_negatives = 7, .gbce_t = 0.0, .log_q = true};
        struct loss *loss = make(&settings, false);
        double counts[ITEMS] = {0.0};
        loss_close(loss);
        counts[3] = 5.0;
        assert_int_equal(loss_open(&settings, counts, ITEMS, DIM, &loss, NULL), STATUS_OK);
        double wanted = 0.0;
        for (size_t i = 0; i < EVENTS; i++) {
            problem.targets[i] = 3;
            wanted += kind == LOSS_GBCE ? log1p(exp(-score(&problem, i, 3))) / EVENTS : 0.0;
        }
        assert_true(fabs(compute(loss) - wanted) < 1e-6);
        for (size_t i = 0; i < EVENTS * DIM && kind == LOSS_SAMPLED; i++) {
            assert_true(dhidden[i] == 0.0F);
        }
        loss_close(loss);
    }
}

static void loss_compute_touched_is_rows_with_gradients(void **state)
{
    (void)state;
    const struct loss_settings settings = {.kind = LOSS_SAMPLED, .n_negatives = 3};
    struct loss *loss = make(&settings, false);
    (void)compute(loss);
    bool wanted[ITEMS] = {false};
    for (size_t i = 0; i < EVENTS; i++) {
        wanted[problem.targets[i]] = true;
    }
    for (size_t c = 0; c < CHUNKS; c++) {
        for (size_t s = 0; s < 3; s++) {
            wanted[problem.drawn[c][s]] = true;
        }
    }
    for (size_t i = 0; i < ITEMS; i++) {
        assert_int_equal(touched[i] != 0, wanted[i]);
    }
    assert_false(wanted[ITEMS - 1]);
    loss_close(loss);
}

/* Scores whose exponentials overflow a float. */
static void loss_compute_huge_scores_stays_finite(void **state)
{
    (void)state;
    for (int kind = LOSS_FULL; kind < N_LOSS_KINDS; kind++) {
        const struct loss_settings settings = {
            .kind = (enum loss_kind)kind, .n_negatives = 70, .gbce_t = 0.5};
        struct loss *loss = make(&settings, true);
        for (size_t i = 0; i < EVENTS * DIM; i++) {
            hidden[i] *= 300.0F;
            problem.hidden[i] *= 300.0;
        }
        const double value = compute(loss);
        assert_true(isfinite(value) && value > 10.0);
        for (size_t i = 0; i < EVENTS * DIM; i++) {
            assert_true(isfinite(dhidden[i]));
        }
        hidden[7] = NAN;
        assert_true(isnan(compute(loss)));
        loss_close(loss);
    }
}

static void loss_compute_any_threads_gives_same_bits(void **state)
{
    (void)state;
    const int n_threads = omp_get_max_threads();
    for (int kind = LOSS_FULL; kind < N_LOSS_KINDS; kind++) {
        const struct loss_settings settings = {
            .kind = (enum loss_kind)kind, .n_negatives = 12, .gbce_t = 0.5, .log_q = true};
        static float kept[EVENTS * DIM + ITEMS * DIM + ITEMS];
        double values[2];
        for (int threads = 1; threads <= 3; threads += 2) {
            omp_set_num_threads(threads);
            struct loss *loss = make(&settings, true);
            values[threads / 2] = compute(loss);
            loss_close(loss);
            if (threads == 1) {
                memcpy(kept, dhidden, sizeof(dhidden));
                memcpy(kept + EVENTS * DIM, ditems, sizeof(ditems));
                memcpy(kept + EVENTS * DIM + ITEMS * DIM, dbias, sizeof(dbias));
            }
        }
        assert_memory_equal(&values[0], &values[1], sizeof(values[0]));
        assert_memory_equal(kept, dhidden, sizeof(dhidden));
        assert_memory_equal(kept + EVENTS * DIM, ditems, sizeof(ditems));
        assert_memory_equal(kept + EVENTS * DIM + ITEMS * DIM, dbias, sizeof(dbias));
    }
    omp_set_num_threads(n_threads);
}

static void loss_open_bad_settings_names_the_setting(void **state)
{
    (void)state;
    const struct {
        struct loss_settings settings;
        const char *field;
    } cases[] = {
        {{.kind = LOSS_FULL, .label_smoothing = 1.0}, "label_smoothing"},
        {{.kind = LOSS_FULL, .label_smoothing = (double)NAN}, "label_smoothing"},
        {{.kind = LOSS_SAMPLED, .n_negatives = 0}, "negatives"},
        {{.kind = LOSS_GBCE, .n_negatives = LOSS_NEGATIVES_MAX + 1}, "negatives"},
        {{.kind = LOSS_GBCE, .n_negatives = 5, .gbce_t = 1.5}, "gbce_t"},
    };
    const double counts[ITEMS] = {1.0};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct loss *loss = (struct loss *)(uintptr_t)1;
        struct error error;
        assert_int_equal(loss_open(&cases[i].settings, counts, ITEMS, DIM, &loss, &error),
                         STATUS_INVALID);
        assert_null(loss);
        assert_string_equal(error.field, cases[i].field);
    }
}

static void loss_open_out_of_memory_fails_cleanly(void **state)
{
    (void)state;
    const double counts[ITEMS] = {1.0, 2.0};
    for (int kind = LOSS_FULL; kind < N_LOSS_KINDS; kind++) {
        const struct loss_settings settings = {.kind = (enum loss_kind)kind, .n_negatives = 5};
        enum status status = STATUS_NOMEM;
        int64_t nth = 1;
        for (; status != STATUS_OK; nth++) {
            struct loss *loss;
            mem_fail_nth(nth);
            status = loss_open(&settings, counts, ITEMS, DIM, &loss, NULL);
            mem_fail_nth(0);
            assert_true(status == STATUS_OK || status == STATUS_NOMEM);
            assert_int_equal(loss != NULL, status == STATUS_OK);
            loss_close(loss);
        }
        assert_true(nth > 3);
    }
}

static void loss_kind_parse_every_name_round_trips(void **state)
{
    (void)state;
    enum loss_kind kind;
    for (int i = 0; i < N_LOSS_KINDS; i++) {
        assert_true(loss_kind_parse(loss_kind_name((enum loss_kind)i), &kind));
        assert_int_equal(kind, i);
    }
    assert_false(loss_kind_parse("Full", &kind));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_compute_full_matches_naive),
        cmocka_unit_test(loss_compute_sampled_matches_naive),
        cmocka_unit_test(loss_compute_gbce_matches_naive),
        cmocka_unit_test(loss_compute_gbce_calibration_is_as_published),
        cmocka_unit_test(loss_compute_sampled_many_negatives_is_close_to_full),
        cmocka_unit_test(loss_compute_hits_only_do_not_count),
        cmocka_unit_test(loss_compute_touched_is_rows_with_gradients),
        cmocka_unit_test(loss_compute_huge_scores_stays_finite),
        cmocka_unit_test(loss_compute_any_threads_gives_same_bits),
        cmocka_unit_test(loss_open_bad_settings_names_the_setting),
        cmocka_unit_test(loss_open_out_of_memory_fails_cleanly),
        cmocka_unit_test(loss_kind_parse_every_name_round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
