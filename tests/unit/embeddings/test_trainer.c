#include "embeddings/train/trainer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "embeddings/safetensors.h"
#include "embeddings/user_model.h"

static char folder[] = "/tmp/aisle-trainer-XXXXXX";
static char checkpoint_path[PATH_BYTES_MAX];
static char model_path[PATH_BYTES_MAX];

static int make_folder(void **state)
{
    (void)state;
    log_init(LOG_LEVEL_WARN, LOG_FORMAT_TEXT, 2);
    if (mkdtemp(folder) == NULL ||
        path_join(checkpoint_path, folder, "checkpoint.safetensors", NULL) != STATUS_OK ||
        path_join(model_path, folder, "model.safetensors", NULL) != STATUS_OK) {
        return -1;
    }
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return dir_remove(folder, NULL) == STATUS_OK ? 0 : -1;
}

/* ---- data ---- */

/* Visitors walk round a ring of items, one step an event, from anywhere: the next item follows from
 * the last. The last item of the table has no event. */
enum { ITEMS = 40, SEQUENCES = 90, EVENTS_MAX = SEQUENCES * 12 };
static struct history_event events[EVENTS_MAX];
static uint64_t offsets[SEQUENCES + 1];

static struct event_log make_ring(void)
{
    struct rng rng;
    rng_init(&rng, 17);
    size_t n = 0;
    for (size_t s = 0; s < SEQUENCES; s++) {
        const size_t length = 3 + rng_below(&rng, 9);
        const size_t start = rng_below(&rng, ITEMS - 1);
        for (size_t i = 0; i < length; i++) {
            events[n++] = (struct history_event){(uint32_t)((start + i) % (ITEMS - 1)),
                                                 (enum event_type)(i % N_EVENT_TYPES),
                                                 (int64_t)(s * 1000 + i) * 1000};
        }
        offsets[s + 1] = n;
    }
    return (struct event_log){
        .events = events, .offsets = offsets, .n_sequences = SEQUENCES, .n_events = n};
}

static struct trainer_settings small_settings(void)
{
    struct trainer_settings settings;
    assert_true(trainer_settings_default("sasrec", &settings));
    settings.dim = 16;
    settings.history_max = 8;
    settings.network.sasrec.n_blocks = 1;
    settings.network.sasrec.ffn_dim = 32;
    settings.loss.n_negatives = 20;
    settings.n_epochs = 3;
    settings.batch_events = 64;
    settings.learning_rate = 5e-3;
    settings.dropout = 0.1;
    settings.input_dropout = 0.1;
    settings.drop_events = 0.0;
    settings.average = 0.0;
    settings.n_threads = 1;
    settings.fingerprint = "test";
    settings.checkpoint_seconds = 1e9;
    return settings;
}

/* ---- what a training leaves ---- */

struct outcome {
    float *vectors;
    size_t n_vectors;
    struct buf model;
    struct trainer_curve curve;
};

static void take_outcome(struct trainer *trainer, size_t n_items, struct outcome *out)
{
    out->n_vectors = n_items * trainer_item_dim(trainer);
    out->vectors = mem_alloc_array(out->n_vectors, sizeof(float));
    assert_non_null(out->vectors);
    trainer_item_vectors(trainer, out->vectors);
    assert_int_equal(trainer_write_model(trainer, model_path, NULL), STATUS_OK);
    buf_init(&out->model, 1 << 24);
    assert_int_equal(file_read(model_path, &out->model, NULL), STATUS_OK);
    out->curve = *trainer_curve(trainer);
}

static enum status run(struct trainer *trainer, bool refit, struct error *err)
{
    const enum status status = trainer_run(trainer, err);
    return status == STATUS_OK && refit ? trainer_refit(trainer, err) : status;
}

static void train_all(const struct trainer_settings *settings, const struct event_log *log,
                      size_t n_items, bool refit, struct outcome *out)
{
    struct trainer *trainer;
    struct error error = {.message = ""};
    enum status status = trainer_open(settings, log, n_items, &trainer, &error);
    if (status != STATUS_OK) {
        fail_msg("%s", error.message);
    }
    status = run(trainer, refit, &error);
    if (status != STATUS_OK) {
        fail_msg("%s", error.message);
    }
    take_outcome(trainer, n_items, out);
    trainer_close(trainer);
}

static void train(const struct trainer_settings *settings, const struct event_log *log,
                  size_t n_items, struct outcome *out)
{
    train_all(settings, log, n_items, false, out);
}

static void free_outcome(struct outcome *outcome)
{
    mem_free(outcome->vectors);
    buf_free(&outcome->model);
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->n_vectors, b->n_vectors);
    assert_memory_equal(a->vectors, b->vectors, a->n_vectors * sizeof(float));
    assert_int_equal(a->model.len, b->model.len);
    assert_memory_equal(a->model.data, b->model.data, a->model.len);
    assert_int_equal(a->curve.n, b->curve.n);
    assert_int_equal(a->curve.best, b->curve.best);
    assert_int_equal(a->curve.n_steps, b->curve.n_steps);
    assert_int_equal(a->curve.n_cases, b->curve.n_cases);
    for (size_t i = 0; i < a->curve.n; i++) {
        struct trainer_point x = a->curve.points[i];
        struct trainer_point y = b->curve.points[i];
        x.seconds = y.seconds;
        assert_memory_equal(&x, &y, sizeof(x));
    }
}

/* ---- learning ---- */

static void run_ring_is_learned_by_every_loss(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    for (int kind = 0; kind < N_LOSS_KINDS; kind++) {
        for (int normalised = 0; normalised < 2; normalised++) {
            struct trainer_settings settings = small_settings();
            settings.loss.kind = (enum loss_kind)kind;
            settings.n_epochs =
                kind == LOSS_GBCE ? 120 : 30; /* it first learns that most is wrong */
            settings.learning_rate = kind == LOSS_GBCE ? 1e-2 : 5e-3;
            settings.patience = 0;
            settings.normalised_scale = normalised != 0 ? 12.0 : 0.0;
            settings.item_bias = kind == LOSS_FULL;
            struct outcome outcome;
            train(&settings, &log, ITEMS, &outcome);
            const struct trainer_curve *curve = &outcome.curve;
            const struct trainer_point *best = &curve->points[curve->best];
            print_message("%s, normalised %d: loss %.3f to %.3f, nDCG@10 %.3f at epoch %u\n",
                          loss_kind_name(settings.loss.kind), normalised,
                          (double)curve->points[0].loss, (double)best->loss, (double)best->ndcg10,
                          best->epoch);
            assert_true(best->ndcg10 > (kind == LOSS_GBCE ? 0.7F : 0.95F));
            assert_true(best->hr10 >= best->ndcg10 && best->hr20 >= best->hr10);
            assert_true(best->mrr20 <= best->hr20 && best->hr20 <= 1.0F);
            assert_true(best->loss < curve->points[0].loss);
            assert_int_equal(curve->n, settings.n_epochs);
            assert_int_equal(curve->n_cases, SEQUENCES);
            free_outcome(&outcome);
        }
    }
}

static void run_patience_stops_early_and_keeps_best(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    struct trainer_settings settings = small_settings();
    settings.n_epochs = 60;
    settings.patience = 2;
    struct outcome outcome;
    train(&settings, &log, ITEMS, &outcome);
    assert_true(outcome.curve.n < 60);
    assert_int_equal(outcome.curve.n, outcome.curve.best + 1 + 2);
    for (size_t i = 0; i < outcome.curve.n; i++) {
        assert_true(outcome.curve.points[i].ndcg10 <=
                    outcome.curve.points[outcome.curve.best].ndcg10);
    }
    free_outcome(&outcome);
}

static void run_no_validation_trains_all_epochs_once(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    struct trainer_settings settings = small_settings();
    settings.data.validation = VALIDATE_NONE;
    struct outcome once;
    struct outcome refitted;
    train(&settings, &log, ITEMS, &once);
    train_all(&settings, &log, ITEMS, true, &refitted); /* nothing was held out: nothing to do */
    assert_int_equal(once.curve.n, 3);
    assert_int_equal(once.curve.best, once.curve.n);
    assert_int_equal(once.curve.n_cases, 0);
    assert_true(isnan(once.curve.points[0].ndcg10));
    assert_memory_equal(once.vectors, refitted.vectors, once.n_vectors * sizeof(float));
    assert_int_equal(once.curve.n_steps, refitted.curve.n_steps);
    free_outcome(&once);
    free_outcome(&refitted);
}

static void item_vectors_normalised_with_bias_are_laid_out_as_served(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    struct trainer_settings settings = small_settings();
    settings.normalised_scale = 10.0;
    settings.item_bias = true;
    struct outcome outcome;
    train(&settings, &log, ITEMS, &outcome);
    const size_t dim = outcome.n_vectors / ITEMS;
    assert_int_equal(dim, 24);
    double biases = 0.0;
    for (size_t i = 0; i < ITEMS; i++) {
        const float *row = outcome.vectors + i * dim;
        double squares = 0.0;
        for (size_t c = 0; c < 16; c++) {
            squares += (double)row[c] * (double)row[c];
        }
        biases += fabs((double)row[16]);
        assert_true(fabs(squares - (i == ITEMS - 1 ? 0.0 : 1.0)) < 1e-5);
        for (size_t c = i == ITEMS - 1 ? 0 : 17; c < dim; c++) {
            assert_true(row[c] == 0.0F);
        }
    }
    assert_true(biases > 0.0);
    free_outcome(&outcome);
}

/* User vectors of the written model for the prefixes of the held-out events, newest first. */
static void serve_cases(const struct vectors *items, const struct sequence_data *data, size_t n,
                        float *users)
{
    struct user_model *model;
    struct user_model_workspace *workspace;
    struct error error;
    if (user_model_open(model_path, items, &model, &error) != STATUS_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(user_model_workspace_open(model, 1, &workspace, NULL), STATUS_OK);
    for (size_t i = 0; i < n; i++) {
        struct history_event history[8];
        const struct sequence_case *c = &data->cases[i];
        const uint32_t ends[] = {0, (uint32_t)(c->next - c->first)};
        assert_true(ends[1] <= 8);
        for (size_t j = 0; j < ends[1]; j++) {
            history[j] = events[c->next - 1 - j];
        }
        const struct history_batch batch = {1, ends, history, 0};
        user_model_embed(model, workspace, &batch, users + i * items->dim);
    }
    user_model_workspace_close(workspace);
    user_model_close(model);
}

static void write_model_is_served_as_trained(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    for (int normalised = 0; normalised < 2; normalised++) {
        struct trainer_settings settings = small_settings();
        struct trainer *trainer;
        struct outcome outcome;
        float trained[8 * 24];
        float served[8 * 24];
        settings.network.sasrec.has_types = true;
        settings.network.sasrec.n_gap_buckets = 12;
        settings.normalised_scale = normalised != 0 ? 10.0 : 0.0;
        settings.item_bias = true;
        assert_int_equal(trainer_open(&settings, &log, ITEMS, &trainer, NULL), STATUS_OK);
        assert_int_equal(trainer_run(trainer, NULL), STATUS_OK);
        take_outcome(trainer, ITEMS, &outcome);
        const struct vectors items = {
            .data = outcome.vectors, .n = ITEMS, .dim = trainer_item_dim(trainer)};
        trainer_users(trainer, 0, 8, trained);
        serve_cases(&items, trainer_data(trainer), 8, served);
        for (size_t i = 0; i < 8 * items.dim; i++) {
            assert_true(fabsf(trained[i] - served[i]) < 2e-5F * fmaxf(1.0F, fabsf(trained[i])));
        }
        free_outcome(&outcome);
        trainer_close(trainer);
    }
}

/* ---- determinism ---- */

/* Large enough for every loop that threads share. */
enum { WIDE_ITEMS = 1500, WIDE_SEQUENCES = 260, WIDE_LENGTH = 10 };
static struct history_event wide_events[WIDE_SEQUENCES * WIDE_LENGTH];
static uint64_t wide_offsets[WIDE_SEQUENCES + 1];

static struct event_log make_wide(void)
{
    struct rng rng;
    rng_init(&rng, 23);
    for (size_t s = 0; s < WIDE_SEQUENCES; s++) {
        for (size_t i = 0; i < WIDE_LENGTH; i++) {
            wide_events[s * WIDE_LENGTH + i] =
                (struct history_event){(uint32_t)rng_below(&rng, WIDE_ITEMS), EVENT_VIEW,
                                       (int64_t)rng_below(&rng, 1 << 20)};
        }
        wide_offsets[s + 1] = (s + 1) * WIDE_LENGTH;
    }
    return (struct event_log){.events = wide_events,
                              .offsets = wide_offsets,
                              .n_sequences = WIDE_SEQUENCES,
                              .n_events = WIDE_SEQUENCES * WIDE_LENGTH};
}

static void run_any_threads_gives_same_bytes(void **state)
{
    (void)state;
    const struct event_log log = make_wide();
    for (int kind = 0; kind < N_LOSS_KINDS; kind++) {
        struct trainer_settings settings = small_settings();
        settings.loss.kind = (enum loss_kind)kind;
        settings.loss.negative_exponent = 0.5;
        settings.dim = 48;
        settings.batch_events = 1100;
        settings.n_epochs = 1;
        settings.network.sasrec.ffn_dim = 96;
        settings.normalised_scale = kind == LOSS_GBCE ? 0.0 : 15.0;
        settings.average = 0.9;
        settings.item_bias = kind != LOSS_FULL;
        struct outcome outcomes[3];
        for (size_t i = 0; i < 3; i++) {
            settings.n_threads = i + 1;
            train(&settings, &log, WIDE_ITEMS, &outcomes[i]);
        }
        assert_same(&outcomes[0], &outcomes[1]);
        assert_same(&outcomes[0], &outcomes[2]);
        struct outcome other;
        settings.seed++;
        train(&settings, &log, WIDE_ITEMS, &other);
        assert_memory_not_equal(other.vectors, outcomes[0].vectors,
                                other.n_vectors * sizeof(float));
        free_outcome(&other);
        for (size_t i = 0; i < 3; i++) {
            free_outcome(&outcomes[i]);
        }
    }
}

/* ---- stopping and going on ---- */

/* Trains with stops at the given steps, each time in a new trainer; *n_refit: stops of the refit.
 */
struct pieces {
    uint64_t stops[5]; /* steps */
    size_t n_stops;
    bool refit;
    size_t n_refit; /* stops during the refit, counted */
};

static void train_in_pieces(struct trainer_settings settings, const struct event_log *log,
                            struct pieces *pieces, struct outcome *out)
{
    const uint64_t *stops = pieces->stops;
    const size_t n_stops = pieces->n_stops;
    settings.checkpoint_path = checkpoint_path;
    for (size_t i = 0; i <= n_stops; i++) {
        struct trainer *trainer;
        settings.stop_after_steps = i < n_stops ? stops[i] : 0;
        assert_int_equal(trainer_open(&settings, log, ITEMS, &trainer, NULL), STATUS_OK);
        assert_int_equal(run(trainer, pieces->refit, NULL),
                         i < n_stops ? STATUS_UNAVAILABLE : STATUS_OK);
        if (i == n_stops) {
            take_outcome(trainer, ITEMS, out);
        }
        trainer_close(trainer);
        struct safetensors *file;
        assert_int_equal(safetensors_open(checkpoint_path, &file, NULL), STATUS_OK);
        int64_t counters[8];
        memcpy(counters, safetensors_find(file, "state")->data, sizeof(counters));
        assert_true(i == n_stops || counters[0] == (int64_t)stops[i]);
        pieces->n_refit += i < n_stops && counters[6] == 1 ? 1 : 0;
        safetensors_close(file);
    }
    assert_int_equal(remove(checkpoint_path), 0);
}

static void check_resume(const char *name, const struct trainer_settings *settings, bool refit)
{
    const struct event_log log = make_ring();
    struct outcome whole;
    struct outcome resumed;
    struct outcome first;
    train_all(settings, &log, ITEMS, refit, &whole);
    train(settings, &log, ITEMS, &first);
    const uint64_t n_first = first.curve.n_steps;
    /* Stops in the first epoch and later, and, with refit, two among steps that only the second
     * training reaches: it has more events. */
    struct pieces pieces = {.stops = {1, n_first / 3, n_first / 2, n_first + 1, n_first + 2},
                            .n_stops = refit ? 5 : 3,
                            .refit = refit};
    print_message("%s: %u steps, of the refit %u\n", name, (unsigned)n_first,
                  (unsigned)whole.curve.n_steps);
    assert_true(!refit || whole.curve.n_steps > n_first + 2);
    train_in_pieces(*settings, &log, &pieces, &resumed);
    assert_int_equal(pieces.n_refit, refit ? 2 : 0);
    assert_same(&whole, &resumed);
    free_outcome(&whole);
    free_outcome(&resumed);
    free_outcome(&first);
}

static void run_stopped_and_resumed_gives_same_bytes(void **state)
{
    (void)state;
    struct trainer_settings settings = small_settings();
    check_resume("plain", &settings, false);
    settings.drop_events = 0.2;
    settings.item_bias = true;
    settings.normalised_scale = 12.0;
    settings.average = 0.95;
    check_resume("drop, bias, normalised, average", &settings, false);
    settings.loss.kind = LOSS_SAMPLED;
    settings.loss.negative_exponent = 0.5;
    check_resume("sampled", &settings, false);
    settings.data.validation = VALIDATE_NONE;
    check_resume("without validation", &settings, false);
}

static void run_stopped_during_refit_gives_same_bytes(void **state)
{
    (void)state;
    struct trainer_settings settings = small_settings();
    settings.n_epochs = 4;
    settings.batch_events = 48;
    check_resume("refit", &settings, true);
    settings.average = 0.95;
    settings.item_bias = true;
    settings.normalised_scale = 12.0;
    settings.loss.kind = LOSS_GBCE;
    check_resume("refit, gbce, average", &settings, true);
}

/* A signal stops it as a number of steps does; without a place for a checkpoint too. */
static void run_interrupted_is_unavailable(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    static volatile sig_atomic_t interrupted = 1;
    struct trainer_settings settings = small_settings();
    settings.interrupted = &interrupted;
    for (int with_path = 0; with_path < 2; with_path++) {
        struct trainer *trainer;
        struct error error;
        settings.checkpoint_path = with_path != 0 ? checkpoint_path : NULL;
        assert_int_equal(trainer_open(&settings, &log, ITEMS, &trainer, NULL), STATUS_OK);
        assert_int_equal(trainer_run(trainer, &error), STATUS_UNAVAILABLE);
        assert_int_equal(file_exists(checkpoint_path), with_path);
        trainer_close(trainer);
    }
    assert_int_equal(remove(checkpoint_path), 0);
}

/* A training that is killed: its last regular checkpoint is as good as one of a stop. */
static void run_regular_checkpoint_resumes_to_same_bytes(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    struct trainer_settings settings = small_settings();
    struct outcome whole;
    struct outcome again;
    train(&settings, &log, ITEMS, &whole);
    settings.checkpoint_path = checkpoint_path;
    settings.checkpoint_seconds = 0.0;
    train(&settings, &log, ITEMS, &again);
    assert_same(&whole, &again);
    free_outcome(&again);
    train(&settings, &log, ITEMS, &again); /* from the checkpoint of the last step */
    assert_same(&whole, &again);
    free_outcome(&again);
    free_outcome(&whole);
    assert_int_equal(remove(checkpoint_path), 0);
}

/* ---- checkpoints that do not fit ---- */

static struct buf write_checkpoint(const struct event_log *log, bool refitting)
{
    struct trainer_settings settings = small_settings();
    struct trainer *trainer;
    struct buf bytes;
    settings.checkpoint_path = checkpoint_path;
    settings.n_epochs = 4;
    settings.batch_events = 48;
    settings.stop_after_steps = refitting ? 0 : 20;
    settings.checkpoint_seconds = refitting ? 0.0 : 1e9;
    assert_int_equal(trainer_open(&settings, log, ITEMS, &trainer, NULL), STATUS_OK);
    assert_int_equal(run(trainer, refitting, NULL), refitting ? STATUS_OK : STATUS_UNAVAILABLE);
    trainer_close(trainer);
    buf_init(&bytes, 1 << 24);
    assert_int_equal(file_read(checkpoint_path, &bytes, NULL), STATUS_OK);
    return bytes;
}

static enum status run_from_checkpoint(const struct event_log *log, const char *fingerprint,
                                       size_t dim)
{
    struct trainer_settings settings = small_settings();
    struct trainer *trainer;
    settings.checkpoint_path = checkpoint_path;
    settings.fingerprint = fingerprint;
    settings.dim = dim;
    settings.n_epochs = 4;
    settings.batch_events = 48;
    assert_int_equal(trainer_open(&settings, log, ITEMS, &trainer, NULL), STATUS_OK);
    struct error error = {.message = ""};
    const enum status status = run(trainer, true, &error);
    assert_int_equal(error.code, status);
    trainer_close(trainer);
    return status;
}

static void assert_checkpoint_is(const struct buf *wanted)
{
    struct buf bytes;
    buf_init(&bytes, 1 << 24);
    assert_int_equal(file_read(checkpoint_path, &bytes, NULL), STATUS_OK);
    assert_int_equal(bytes.len, wanted->len);
    assert_memory_equal(bytes.data, wanted->data, wanted->len);
    buf_free(&bytes);
}

static void run_checkpoint_of_other_settings_is_refused_untouched(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    struct buf kept = write_checkpoint(&log, false);
    assert_int_equal(run_from_checkpoint(&log, "other", 16), STATUS_MISMATCH);
    assert_checkpoint_is(&kept);
    /* The same fingerprint by mistake, other sizes. */
    assert_int_equal(run_from_checkpoint(&log, "test", 24), STATUS_FORMAT);
    assert_checkpoint_is(&kept);
    buf_free(&kept);
    assert_int_equal(remove(checkpoint_path), 0);
}

static void run_damaged_checkpoint_is_format_error(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    struct buf kept = write_checkpoint(&log, false);
    const size_t lengths[] = {0, 7, 100, kept.len / 2, kept.len - 1};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        assert_int_equal(file_write_atomic(checkpoint_path, kept.data, lengths[i], NULL),
                         STATUS_OK);
        assert_int_equal(run_from_checkpoint(&log, "test", 16), STATUS_FORMAT);
    }
    buf_free(&kept);
    assert_int_equal(remove(checkpoint_path), 0);
}

/* Writes the checkpoint with one counter changed. */
static void damage_counter(const struct buf *kept, size_t counter, int64_t value)
{
    struct safetensors *file;
    char *bytes = mem_alloc(kept->len);
    assert_non_null(bytes);
    memcpy(bytes, kept->data, kept->len);
    assert_int_equal(safetensors_open_bytes(bytes, kept->len, &file, NULL), STATUS_OK);
    const size_t at =
        (size_t)((const char *)safetensors_find(file, "state")->data - bytes) + counter * 8;
    safetensors_close(file);
    memcpy(bytes + at, &value, sizeof(value));
    assert_int_equal(file_write_atomic(checkpoint_path, bytes, kept->len, NULL), STATUS_OK);
    mem_free(bytes);
}

static void run_checkpoint_with_absurd_counters_is_format_error(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    for (int refitting = 0; refitting < 2; refitting++) {
        struct buf kept = write_checkpoint(&log, refitting != 0);
        for (size_t counter = 0; counter < 8; counter++) {
            damage_counter(&kept, counter, -1);
            assert_int_equal(run_from_checkpoint(&log, "test", 16), STATUS_FORMAT);
            damage_counter(&kept, counter, INT64_MAX - 5);
            assert_int_equal(run_from_checkpoint(&log, "test", 16), STATUS_FORMAT);
        }
        damage_counter(&kept, 2, 100000); /* windows */
        assert_int_equal(run_from_checkpoint(&log, "test", 16), STATUS_FORMAT);
        damage_counter(&kept, 5, 4000); /* the best point */
        assert_int_equal(run_from_checkpoint(&log, "test", 16), STATUS_FORMAT);
        buf_free(&kept);
        assert_int_equal(remove(checkpoint_path), 0);
    }
}

/* ---- failing ---- */

static void run_diverging_is_reported_and_leaves_nothing(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    for (int kind = 0; kind < N_LOSS_KINDS; kind++) {
        struct trainer_settings settings = small_settings();
        struct trainer *trainer;
        struct error error;
        settings.loss.kind = (enum loss_kind)kind;
        settings.learning_rate = 10.0;
        settings.warmup = 0.0;
        settings.weight_decay = 100.0;
        settings.item_weight_decay = 100.0;
        settings.n_epochs = 30;
        settings.patience = 0;
        settings.checkpoint_path = checkpoint_path;
        assert_int_equal(trainer_open(&settings, &log, ITEMS, &trainer, NULL), STATUS_OK);
        assert_int_equal(trainer_run(trainer, &error), STATUS_INVALID);
        assert_non_null(strstr(error.message, "learning rate"));
        assert_false(file_exists(checkpoint_path));
        trainer_close(trainer);
    }
}

static void run_checkpoint_that_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    struct trainer_settings settings = small_settings();
    struct trainer *trainer;
    settings.checkpoint_path = "/nonexistent/folder/checkpoint";
    settings.stop_after_steps = 2;
    assert_int_equal(trainer_open(&settings, &log, ITEMS, &trainer, NULL), STATUS_OK);
    const enum status status = trainer_run(trainer, NULL);
    assert_true(status != STATUS_OK && status != STATUS_UNAVAILABLE);
    trainer_close(trainer);
}

static void open_bad_settings_names_the_setting(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    for (int i = 0; i < 6; i++) {
        static const char *const FIELDS[] = {"dim",     "batch_events", "learning_rate",
                                             "dropout", "average",      "label_smoothing"};
        struct trainer_settings settings = small_settings();
        struct trainer *trainer = (struct trainer *)(uintptr_t)1;
        struct error error;
        switch (i) {
        case 0:
            settings.dim = 1;
            break;
        case 1:
            settings.batch_events = settings.history_max - 1;
            break;
        case 2:
            settings.learning_rate = (double)NAN;
            break;
        case 3:
            settings.dropout = 0.99;
            break;
        case 4:
            settings.average = 1.0;
            break;
        default:
            settings.loss.label_smoothing = -0.1;
        }
        assert_int_equal(trainer_open(&settings, &log, ITEMS, &trainer, &error), STATUS_INVALID);
        assert_null(trainer);
        assert_string_equal(error.field, FIELDS[i]);
    }
    struct trainer_settings settings;
    assert_false(trainer_settings_default("markov", &settings));
}

static void open_out_of_memory_fails_cleanly(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    struct trainer_settings settings = small_settings();
    settings.loss.kind = LOSS_SAMPLED;
    settings.item_bias = true;
    settings.normalised_scale = 10.0;
    settings.average = 0.9;
    enum status status = STATUS_NOMEM;
    int64_t nth = 1;
    for (; status != STATUS_OK; nth++) {
        struct trainer *trainer;
        mem_fail_nth(nth);
        status = trainer_open(&settings, &log, ITEMS, &trainer, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        assert_int_equal(trainer != NULL, status == STATUS_OK);
        trainer_close(trainer);
    }
    assert_true(nth > 20);
}

/* Validation, refit and checkpoints allocate too. */
static void run_out_of_memory_fails_cleanly(void **state)
{
    (void)state;
    const struct event_log log = make_ring();
    struct trainer_settings settings = small_settings();
    settings.n_epochs = 1;
    settings.checkpoint_path = checkpoint_path;
    settings.checkpoint_seconds = 0.0;
    enum status status = STATUS_NOMEM;
    int64_t nth = 1;
    for (; status != STATUS_OK; nth += nth < 12 ? 1 : 3) {
        struct trainer *trainer;
        assert_int_equal(trainer_open(&settings, &log, ITEMS, &trainer, NULL), STATUS_OK);
        mem_fail_nth(nth);
        status = run(trainer, true, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        trainer_close(trainer);
        (void)remove(checkpoint_path);
    }
    assert_true(nth > 6);
}

static void bytes_grows_with_what_is_wanted(void **state)
{
    (void)state;
    struct trainer_settings settings = small_settings();
    const double plain = trainer_bytes(&settings, ITEMS);
    assert_true(plain > 5 * ITEMS * 16 * sizeof(float));
    settings.average = 0.9;
    const double averaged = trainer_bytes(&settings, ITEMS);
    assert_int_equal(averaged - plain, ITEMS * 16 * sizeof(float));
    assert_true(trainer_bytes(&settings, 10 * ITEMS) > 5 * averaged / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_ring_is_learned_by_every_loss),
        cmocka_unit_test(run_patience_stops_early_and_keeps_best),
        cmocka_unit_test(run_no_validation_trains_all_epochs_once),
        cmocka_unit_test(item_vectors_normalised_with_bias_are_laid_out_as_served),
        cmocka_unit_test(write_model_is_served_as_trained),
        cmocka_unit_test(run_any_threads_gives_same_bytes),
        cmocka_unit_test(run_stopped_and_resumed_gives_same_bytes),
        cmocka_unit_test(run_stopped_during_refit_gives_same_bytes),
        cmocka_unit_test(run_interrupted_is_unavailable),
        cmocka_unit_test(run_regular_checkpoint_resumes_to_same_bytes),
        cmocka_unit_test(run_checkpoint_of_other_settings_is_refused_untouched),
        cmocka_unit_test(run_damaged_checkpoint_is_format_error),
        cmocka_unit_test(run_checkpoint_with_absurd_counters_is_format_error),
        cmocka_unit_test(run_diverging_is_reported_and_leaves_nothing),
        cmocka_unit_test(run_checkpoint_that_cannot_be_written_is_an_error),
        cmocka_unit_test(open_bad_settings_names_the_setting),
        cmocka_unit_test(open_out_of_memory_fails_cleanly),
        cmocka_unit_test(run_out_of_memory_fails_cleanly),
        cmocka_unit_test(bytes_grows_with_what_is_wanted),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
