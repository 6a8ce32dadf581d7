#include "embeddings/train/item2vec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "base/vectors.h"

enum { CLUSTER = 20, N_ITEMS = 2 * CLUSTER + 2, N_SEQUENCES = 600, LENGTH = 8, DIM = 13 };
/* Items of no event, and of none but lonely ones. */
enum { UNSEEN = 2 * CLUSTER, LONELY = 2 * CLUSTER + 1 };

/* Sequences that stay within one of two groups of items, and one sequence of a single event. */
static struct event_log make_log(void)
{
    struct event_log log = {.n_sequences = N_SEQUENCES + 1,
                            .n_events = (size_t)N_SEQUENCES * LENGTH + 1};
    struct rng rng;
    rng_init(&rng, 11);
    log.events = mem_calloc(log.n_events, sizeof(*log.events));
    log.offsets = mem_calloc(log.n_sequences + 1, sizeof(*log.offsets));
    assert_non_null(log.events);
    assert_non_null(log.offsets);
    for (size_t s = 0; s < N_SEQUENCES; s++) {
        for (size_t i = 0; i < LENGTH; i++) {
            log.events[s * LENGTH + i].row =
                (uint32_t)(rng_below(&rng, CLUSTER) + (s % 2) * CLUSTER);
        }
        log.offsets[s + 1] = (s + 1) * LENGTH;
    }
    log.events[log.n_events - 1].row = LONELY;
    log.offsets[N_SEQUENCES + 1] = log.n_events;
    return log;
}

static struct item2vec_settings small_settings(void)
{
    struct item2vec_settings settings;
    item2vec_settings_default(&settings);
    settings.dim = DIM;
    settings.n_epochs = 15;
    settings.n_threads = 1;
    settings.subsample = 0.0;
    return settings;
}

static double cosine(const float *a, const float *b)
{
    double sum = 0.0;
    for (size_t d = 0; d < DIM; d++) {
        sum += (double)a[d] * (double)b[d];
    }
    return sum;
}

static void assert_clusters_apart(const float *vectors)
{
    double within = 0.0;
    double between = 0.0;
    size_t n_within = 0;
    size_t n_between = 0;
    for (size_t i = 0; i < 2 * CLUSTER; i++) {
        for (size_t j = i + 1; j < 2 * CLUSTER; j++) {
            const double c = cosine(vectors + i * DIM, vectors + j * DIM);
            if ((i < CLUSTER) == (j < CLUSTER)) {
                within += c;
                n_within++;
            } else {
                between += c;
                n_between++;
            }
        }
    }
    within /= (double)n_within;
    between /= (double)n_between;
    print_message("mean cosine within %.3f, between %.3f\n", within, between);
    assert_true(within > between + 0.5);
}

static void assert_norms(const float *vectors)
{
    for (size_t i = 0; i < N_ITEMS; i++) {
        const double norm = sqrt(cosine(vectors + i * DIM, vectors + i * DIM));
        assert_true(fabs(norm - (i < 2 * CLUSTER ? 1.0 : 0.0)) < 1e-5);
    }
}

static void item2vec_train_two_clusters_separates_them(void **state)
{
    (void)state;
    struct event_log log = make_log();
    static float vectors[N_ITEMS * DIM];
    for (size_t window = 0; window <= 5; window += 5) {
        for (size_t threads = 1; threads <= 3; threads += 2) {
            struct item2vec_settings settings = small_settings();
            settings.window = window;
            settings.n_threads = threads;
            memset(vectors, 0x7f, sizeof(vectors));
            assert_int_equal(item2vec_train(&log, N_ITEMS, &settings, vectors, NULL), STATUS_OK);
            assert_norms(vectors);
            assert_clusters_apart(vectors);
        }
    }
    event_log_free(&log);
}

/* Few items, many pairs of each: where plain gradient steps of this size grow without bound. */
static void item2vec_train_large_learning_rate_stays_finite(void **state)
{
    (void)state;
    struct event_log log = make_log();
    static float vectors[N_ITEMS * DIM];
    for (double rate = 0.3; rate < 11.0; rate *= 5.0) {
        struct item2vec_settings settings = small_settings();
        settings.learning_rate = rate;
        settings.window = 0;
        settings.n_epochs = 40;
        assert_int_equal(item2vec_train(&log, N_ITEMS, &settings, vectors, NULL), STATUS_OK);
        assert_norms(vectors);
    }
    event_log_free(&log);
}

static void item2vec_train_one_thread_is_deterministic(void **state)
{
    (void)state;
    struct event_log log = make_log();
    struct item2vec_settings settings = small_settings();
    settings.n_epochs = 2;
    settings.subsample = 1e-3;
    static float first[N_ITEMS * DIM];
    static float second[N_ITEMS * DIM];
    assert_int_equal(item2vec_train(&log, N_ITEMS, &settings, first, NULL), STATUS_OK);
    assert_int_equal(item2vec_train(&log, N_ITEMS, &settings, second, NULL), STATUS_OK);
    assert_memory_equal(first, second, sizeof(first));
    settings.seed++;
    assert_int_equal(item2vec_train(&log, N_ITEMS, &settings, second, NULL), STATUS_OK);
    assert_memory_not_equal(first, second, sizeof(first));
    event_log_free(&log);
}

/* Longer than a segment, with an odd rest of one event; a run of one item is no context. */
static void item2vec_train_long_and_uniform_sequences_are_handled(void **state)
{
    (void)state;
    enum { LONG = 2 * 8192 + 1 };
    struct history_event *events = mem_calloc(LONG, sizeof(*events));
    assert_non_null(events);
    uint64_t offsets[2] = {0, LONG};
    const struct event_log log = {
        .events = events, .offsets = offsets, .n_sequences = 1, .n_events = LONG};
    static float vectors[3 * DIM];
    struct item2vec_settings settings = small_settings();
    settings.n_epochs = 1;
    for (settings.window = 0; settings.window <= 3; settings.window += 3) {
        memset(events, 0, LONG * sizeof(*events));
        assert_int_equal(item2vec_train(&log, 3, &settings, vectors, NULL), STATUS_OK);
        for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
            assert_true(vectors[i] == 0.0F); /* nothing to learn from one item alone */
        }
        for (size_t i = 0; i < LONG; i++) {
            events[i].row = (uint32_t)(i % 3);
        }
        assert_int_equal(item2vec_train(&log, 3, &settings, vectors, NULL), STATUS_OK);
        assert_true(fabs(cosine(vectors, vectors) - 1.0) < 1e-5);
    }
    mem_free(events);
}

static void item2vec_train_bad_input_is_invalid_and_leaves_vectors(void **state)
{
    (void)state;
    struct history_event events[2] = {{.row = 0}, {.row = 1}};
    uint64_t lonely[3] = {0, 1, 2};
    uint64_t pair[2] = {0, 2};
    struct event_log log = {.events = events, .offsets = lonely, .n_sequences = 2, .n_events = 2};
    float vectors[2 * DIM] = {42.0F};
    struct error err;
    struct item2vec_settings settings = small_settings();
    assert_int_equal(item2vec_train(&log, 2, &settings, vectors, &err), STATUS_INVALID);
    log = (struct event_log){.events = events, .offsets = pair, .n_sequences = 1, .n_events = 2};
    for (int i = 0; i < 8; i++) {
        settings = small_settings();
        switch (i) {
        case 0:
            settings.dim = 0;
            break;
        case 1:
            settings.dim = 1025;
            break;
        case 2:
            settings.n_epochs = 0;
            break;
        case 3:
            settings.n_negatives = 0;
            break;
        case 4:
            settings.negative_exponent = (double)NAN;
            break;
        case 5:
            settings.subsample = -0.1;
            break;
        case 6:
            settings.learning_rate = 0.0;
            break;
        default:
            settings.n_threads = SIZE_MAX;
            break;
        }
        err.field[0] = '\0';
        assert_int_equal(item2vec_train(&log, 2, &settings, vectors, &err), STATUS_INVALID);
        assert_true(err.field[0] != '\0');
    }
    assert_true(vectors[0] == 42.0F);
    settings = small_settings();
    assert_int_equal(item2vec_train(&log, 2, &settings, vectors, &err), STATUS_OK);
}

static void item2vec_train_out_of_memory_is_reported(void **state)
{
    (void)state;
    struct history_event events[2] = {{.row = 0}, {.row = 1}};
    uint64_t offsets[2] = {0, 2};
    const struct event_log log = {
        .events = events, .offsets = offsets, .n_sequences = 1, .n_events = 2};
    float vectors[2 * DIM] = {42.0F};
    struct item2vec_settings settings = small_settings();
    enum status status = STATUS_NOMEM;
    int n = 0;
    while (status != STATUS_OK) {
        assert_true(vectors[0] == 42.0F);
        mem_fail_nth(++n);
        struct error err = {.code = STATUS_OK};
        status = item2vec_train(&log, 2, &settings, vectors, &err);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        assert_int_equal(err.code, status);
    }
    assert_true(n > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(item2vec_train_two_clusters_separates_them),
        cmocka_unit_test(item2vec_train_large_learning_rate_stays_finite),
        cmocka_unit_test(item2vec_train_one_thread_is_deterministic),
        cmocka_unit_test(item2vec_train_long_and_uniform_sequences_are_handled),
        cmocka_unit_test(item2vec_train_bad_input_is_invalid_and_leaves_vectors),
        cmocka_unit_test(item2vec_train_out_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
