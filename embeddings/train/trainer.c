/* The loop of training: epochs of shuffled windows, validation after each, early stopping, a second
 * pass over everything if wanted, checkpoints between.
 *
 * Everything that a checkpoint must hold lies in one block of memory beside the network's weights:
 * tables as they are, AdamW's moments, the running average, the best weights so far.
 *
 * Legend: N items, d dimension, T events of a batch. */
#include "embeddings/train/trainer.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "embeddings/train/kernels.h"
#include "embeddings/train/trainer_internal.h"

extern void openblas_set_num_threads(int n_threads);

/* ---- settings ---- */

static void default_network(struct trainer_settings *settings)
{
    if (settings->architecture == &network_sasrec) {
        sasrec_settings_default(&settings->network.sasrec);
        settings->network.sasrec.n_heads = 2;
        settings->network.sasrec.ffn_dim = 4 * settings->dim;
        settings->network.sasrec.activation = SASREC_GELU;
        settings->network.sasrec.has_embedding_norm = true;
        settings->network.sasrec.norm_epsilon = 1e-12;
    } else if (settings->architecture == &network_gru4rec) {
        gru4rec_settings_default(&settings->network.gru4rec);
    } else {
        attention_settings_default(&settings->network.attention);
    }
}

bool trainer_settings_default(const char *architecture, struct trainer_settings *settings)
{
    static const struct network_architecture *const KNOWN[] = {&network_sasrec, &network_gru4rec,
                                                               &network_attention};
    *settings = (struct trainer_settings){
        .dim = 64,
        .history_max = 50,
        .loss = {.kind = LOSS_SAMPLED,
                 .n_negatives = 2048,
                 .negative_exponent = 0.5,
                 .log_q = true,
                 .gbce_t = 0.75},
        .data = {.validation = VALIDATE_LEAVE_LAST, .share = 0.1, .cases_max = 10000},
        .n_epochs = 60,
        .patience = 10,
        .batch_events = 1024,
        .learning_rate = 1e-3,
        .warmup = 0.02,
        .final_rate = 0.1,
        .weight_decay = 0.01,
        .dropout = 0.3,
        .input_dropout = 0.5,
        .clip_norm = 5.0,
        .initial_deviation = 0.02,
        .normalised_scale = 14.0,
        .average = 0.998,
        .seed = 1,
        .checkpoint_seconds = 60.0,
    };
    for (size_t i = 0; i < sizeof(KNOWN) / sizeof(KNOWN[0]); i++) {
        if (strcmp(KNOWN[i]->name, architecture) == 0) {
            settings->architecture = KNOWN[i];
            default_network(settings);
            return true;
        }
    }
    return false;
}

static enum status check_range(const char *name, double value, double min, double max,
                               struct error *err)
{
    if (value >= min && value <= max) {
        return STATUS_OK;
    }
    return error_set_field(err, STATUS_INVALID, name, "%s must be within %g and %g", name, min,
                           max);
}

static enum status check_settings(const struct trainer_settings *s, struct error *err)
{
    const struct {
        const char *name;
        double value, min, max;
    } ranges[] = {
        {"dim", (double)s->dim, 2, SASREC_DIM_MAX},
        {"history_max", (double)s->history_max, 1, SASREC_HISTORY_MAX},
        {"epochs", (double)s->n_epochs, 1, TRAINER_CURVE_MAX},
        {"batch_events", (double)s->batch_events, (double)s->history_max, 1 << 20},
        {"learning_rate", s->learning_rate, 1e-8, 10.0},
        {"warmup", s->warmup, 0.0, 1.0},
        {"final_rate", s->final_rate, 0.0, 1.0},
        {"weight_decay", s->weight_decay, 0.0, 100.0},
        {"item_weight_decay", s->item_weight_decay, 0.0, 100.0},
        {"dropout", s->dropout, 0.0, 0.95},
        {"input_dropout", s->input_dropout, 0.0, 0.95},
        {"drop_events", s->drop_events, 0.0, 0.95},
        {"clip_norm", s->clip_norm, 0.0, 1e9},
        {"average", s->average, 0.0, 0.999999},
        {"normalised_scale", s->normalised_scale, 0.0, 1000.0},
        {"initial_deviation", s->initial_deviation, 1e-6, 10.0},
        {"validation_share", s->data.share, 0.001, 0.9},
    };
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        enum status status =
            check_range(ranges[i].name, ranges[i].value, ranges[i].min, ranges[i].max, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

size_t trainer_item_dim(const struct trainer *trainer)
{
    /* With biases the vectors grow by one line of 8, so that rows stay aligned. */
    return trainer->settings.item_bias ? (trainer->dim + 1 + 7) / 8 * 8 : trainer->dim;
}

static double network_input_scale(const struct trainer_settings *s)
{
    return s->normalised_scale > 0.0 ? sqrt((double)s->dim) : 1.0;
}

/* What the trainer decides of the network's settings. */
static const void *complete_network(struct trainer_settings *s)
{
    if (s->architecture == &network_sasrec) {
        struct sasrec_settings *n = &s->network.sasrec;
        n->dim = s->dim;
        n->item_dim = s->dim + (s->item_bias ? 1 : 0);
        n->history_max = s->history_max;
        n->input_scale = network_input_scale(s);
        n->output_scale = s->normalised_scale;
        n->has_bias = s->item_bias;
        return n;
    }
    if (s->architecture == &network_gru4rec) {
        struct gru4rec_settings *n = &s->network.gru4rec;
        n->dim = s->dim;
        n->item_dim = s->dim + (s->item_bias ? 1 : 0);
        n->history_max = s->history_max;
        n->input_scale = network_input_scale(s);
        n->output_scale = s->normalised_scale;
        n->has_bias = s->item_bias;
        n->hidden_dim = n->has_output ? n->hidden_dim : s->dim;
        return n;
    }
    struct attention_settings *n = &s->network.attention;
    n->dim = s->dim;
    n->item_dim = s->dim + (s->item_bias ? 1 : 0);
    n->history_max = s->history_max;
    n->input_scale = network_input_scale(s);
    n->output_scale = s->normalised_scale;
    n->has_bias = s->item_bias;
    return n;
}

/* ---- memory ---- */

static size_t weights_floats(const struct trainer *trainer, bool with_network)
{
    size_t n = trainer->n_items * trainer->dim;
    n += trainer->settings.item_bias ? trainer->n_items : 0;
    return n + (with_network ? trainer->n_network : 0);
}

static float *place_weights(const struct trainer *trainer, float *at, bool with_network,
                            struct weights *out)
{
    out->items = at;
    at += trainer->n_items * trainer->dim;
    if (trainer->settings.item_bias) {
        out->bias = at;
        at += trainer->n_items;
    }
    if (with_network) {
        out->network = at;
        at += trainer->n_network;
    }
    return at;
}

static enum status allocate_tables(struct trainer *trainer, struct error *err)
{
    size_t n_sets = trainer->settings.average > 0.0 ? 4 : 3;
    size_t n_rows = trainer->n_items;
    size_t n_table = n_rows * trainer->dim;
    trainer->n_memory = weights_floats(trainer, false) + n_sets * weights_floats(trainer, true);
    trainer->memory = mem_calloc(trainer->n_memory, sizeof(float));
    trainer->item_gradient = mem_calloc(n_table, sizeof(float));
    if (trainer->memory == NULL || trainer->item_gradient == NULL) {
        goto no_memory;
    }
    float *at = place_weights(trainer, trainer->memory, false, &trainer->now);
    at = place_weights(trainer, at, true, &trainer->mean);
    at = place_weights(trainer, at, true, &trainer->square);
    at = place_weights(trainer, at, true, &trainer->best);
    if (n_sets == 4) {
        (void)place_weights(trainer, at, true, &trainer->average);
    }
    trainer->rows = trainer->now.items;
    if (trainer->settings.normalised_scale > 0.0) {
        trainer->rows = mem_alloc_vectors(n_table, sizeof(float));
    }
    if (trainer->settings.item_bias) {
        trainer->bias_gradient = mem_calloc(n_rows, sizeof(float));
    }
    if (trainer->settings.loss.kind != LOSS_FULL) {
        trainer->touched = mem_calloc(n_rows, 1);
        trainer->touched_rows = mem_alloc_array(n_rows, sizeof(uint32_t));
    }
    if (trainer->rows == NULL || (trainer->settings.item_bias && trainer->bias_gradient == NULL) ||
        (trainer->settings.loss.kind != LOSS_FULL &&
         (trainer->touched == NULL || trainer->touched_rows == NULL))) {
        goto no_memory;
    }
    return STATUS_OK;
no_memory:
    return error_set(err, STATUS_NOMEM, "vectors of %zu items of dimension %zu: no memory", n_rows,
                     trainer->dim);
}

static enum status allocate_batch(struct trainer *trainer, struct error *err)
{
    size_t n = trainer->settings.batch_events * trainer->dim;
    enum status status = sequence_batch_open(trainer->settings.batch_events, &trainer->batch, err);
    if (status != STATUS_OK) {
        return status;
    }
    trainer->inputs = mem_alloc_vectors(n, sizeof(float));
    trainer->input_gradient = mem_alloc_vectors(n, sizeof(float));
    trainer->hidden = mem_alloc_vectors(n, sizeof(float));
    trainer->hidden_gradient = mem_alloc_vectors(n, sizeof(float));
    trainer->inverse = mem_alloc_vectors(trainer->settings.batch_events, sizeof(float));
    if (trainer->inputs == NULL || trainer->input_gradient == NULL || trainer->hidden == NULL ||
        trainer->hidden_gradient == NULL || trainer->inverse == NULL) {
        return error_set(err, STATUS_NOMEM, "a batch of %zu events: no memory",
                         trainer->settings.batch_events);
    }
    return STATUS_OK;
}

double trainer_bytes(const struct trainer_settings *settings, size_t n_items)
{
    struct trainer_settings s = *settings;
    const struct network_config config = {s.dim, s.batch_events, s.batch_events, s.seed,
                                          complete_network(&s)};
    double table = (double)n_items * (double)(s.dim + (s.item_bias ? 1 : 0)) * sizeof(float);
    double n_tables = 5.0 + (s.average > 0.0 ? 1.0 : 0.0) + (s.normalised_scale > 0.0 ? 1.0 : 0.0);
    double n_threads = (double)(s.n_threads != 0 ? s.n_threads : (size_t)omp_get_num_procs());
    return n_tables * table + (double)s.architecture->bytes(&config) +
           (double)loss_bytes(&s.loss, n_items, s.dim) +
           4.0 * (double)s.batch_events * (double)s.dim * sizeof(float) +
           n_threads * 32.0 * (double)n_items * sizeof(float);
}

void trainer_close(struct trainer *trainer)
{
    if (trainer == NULL) {
        return;
    }
    if (trainer->network != NULL) {
        trainer->settings.architecture->close(trainer->network);
    }
    loss_close(trainer->loss);
    sequence_data_free(&trainer->data);
    sequence_batch_free(&trainer->batch);
    if (trainer->rows != trainer->now.items) {
        mem_free(trainer->rows);
    }
    void *const blocks[] = {
        trainer->memory,          trainer->item_gradient, trainer->bias_gradient,  trainer->touched,
        trainer->touched_rows,    trainer->inputs,        trainer->input_gradient, trainer->hidden,
        trainer->hidden_gradient, trainer->inverse,       trainer->order};
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        mem_free(blocks[i]);
    }
    mem_free(trainer);
}

/* ---- one training: data, weights, loss ---- */

static void set_weights(struct trainer *trainer)
{
    memset(trainer->memory, 0, trainer->n_memory * sizeof(float));
    weights_normal(trainer->now.items, trainer->n_items * trainer->dim,
                   trainer->settings.initial_deviation, trainer_seed(trainer, SEED_ITEMS, 0));
    trainer_refresh_rows(trainer);
    if (trainer->average.items != NULL) {
        trainer_copy(trainer, &trainer->average);
    }
    trainer->step = 0;
    trainer->epoch = 0;
    trainer->at = 0;
    trainer->epoch_loss = 0.0;
    trainer->epoch_targets = 0;
    trainer->best_ndcg = -1.0;
    trainer->epochs_since_best = 0;
}

static size_t count_steps(const struct trainer *trainer)
{
    size_t per_epoch = 0;
    size_t n = trainer->settings.batch_events;
    for (size_t w = 0; w < trainer->data.n_windows; w++) {
        size_t size = trainer->data.windows[w].n - 1;
        if (n + size > trainer->settings.batch_events) {
            per_epoch++;
            n = 0;
        }
        n += size;
    }
    return per_epoch * trainer->settings.n_epochs;
}

static enum status open_data(struct trainer *trainer, struct error *err)
{
    struct trainer_settings *s = &trainer->settings;
    sequence_data_free(&trainer->data);
    loss_close(trainer->loss);
    trainer->loss = NULL;
    mem_free(trainer->order);
    trainer->order = NULL;
    enum status status =
        sequence_data_open(trainer->log, trainer->n_items, &s->data, &trainer->data, err);
    if (status == STATUS_OK) {
        status = loss_open(&s->loss, trainer->data.counts, trainer->n_items, trainer->dim,
                           &trainer->loss, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    trainer->order = mem_alloc_array(trainer->data.n_windows, sizeof(*trainer->order));
    if (trainer->order == NULL) {
        return error_set(err, STATUS_NOMEM, "order of %zu windows: no memory",
                         trainer->data.n_windows);
    }
    trainer->n_steps = count_steps(trainer);
    return STATUS_OK;
}

static enum status open_network(struct trainer *trainer, struct error *err)
{
    struct trainer_settings *s = &trainer->settings;
    const struct network_config config = {s->dim, s->batch_events, s->batch_events,
                                          trainer_seed(trainer, SEED_NETWORK, 0),
                                          complete_network(s)};
    if (trainer->network != NULL) {
        s->architecture->close(trainer->network);
        trainer->network = NULL;
    }
    enum status status = s->architecture->open(&config, &trainer->network, err);
    if (status != STATUS_OK) {
        return status;
    }
    trainer->n_network = 0;
    for (size_t p = 0; p < s->architecture->n_parameters(trainer->network); p++) {
        trainer->n_network += s->architecture->parameter(trainer->network, p)->n;
    }
    return STATUS_OK;
}

enum status trainer_open(const struct trainer_settings *settings, const struct event_log *log,
                         size_t n_items, struct trainer **out, struct error *err)
{
    *out = NULL;
    enum status status = check_settings(settings, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct trainer *trainer = mem_calloc(1, sizeof(*trainer));
    if (trainer == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a trainer");
    }
    trainer->settings = *settings;
    trainer->settings.data.inputs_max = settings->history_max;
    trainer->settings.data.seed = settings->seed;
    trainer->log = log;
    trainer->n_items = n_items;
    trainer->dim = settings->dim;
    if (settings->n_threads != 0) {
        omp_set_num_threads((int)settings->n_threads);
    }
    openblas_set_num_threads(1); /* see kernels.c */
    status = open_data(trainer, err);
    if (status == STATUS_OK) {
        status = open_network(trainer, err);
    }
    if (status == STATUS_OK) {
        status = allocate_tables(trainer, err);
    }
    if (status == STATUS_OK) {
        status = allocate_batch(trainer, err);
    }
    if (status != STATUS_OK) {
        trainer_close(trainer);
        return status;
    }
    set_weights(trainer);
    *out = trainer;
    return STATUS_OK;
}

/* ---- the loop ---- */

static double rate_at(const struct trainer *trainer)
{
    const struct trainer_settings *s = &trainer->settings;
    double done = ((double)trainer->step + 1.0) / (double)(trainer->n_steps + 1);
    if (done < s->warmup) {
        return s->learning_rate * done / s->warmup;
    }
    double phase = fmin((done - s->warmup) / fmax(1.0 - s->warmup, 1e-9), 1.0);
    return s->learning_rate *
           (s->final_rate + (1.0 - s->final_rate) * 0.5 * (1.0 + cos(phase * M_PI)));
}

static void shuffle(struct trainer *trainer)
{
    size_t n = trainer->data.n_windows;
    struct rng rng;
    rng_init(&rng, trainer_seed(trainer, SEED_ORDER, trainer->epoch));
    for (size_t i = 0; i < n; i++) {
        trainer->order[i] = (uint32_t)i;
    }
    for (size_t i = n; i-- > 1;) {
        size_t j = (size_t)rng_below(&rng, i + 1);
        uint32_t swap = trainer->order[i];
        trainer->order[i] = trainer->order[j];
        trainer->order[j] = swap;
    }
}

static bool is_interrupted(const struct trainer *trainer)
{
    const struct trainer_settings *s = &trainer->settings;
    return (s->interrupted != NULL && *s->interrupted != 0) ||
           (s->stop_after_steps != 0 && trainer->step >= s->stop_after_steps) ||
           (s->stop_after_epochs != 0 && trainer->epoch >= s->stop_after_epochs) ||
           (s->stop_after_seconds > 0.0 &&
            (double)(clock_monotonic_us() - trainer->start_us) / 1e6 >= s->stop_after_seconds);
}

static double seconds_so_far(const struct trainer *trainer)
{
    return trainer->seconds_before + (double)(clock_monotonic_us() - trainer->start_us) / 1e6;
}

static void show(struct trainer *trainer)
{
    if (!trainer->settings.show_progress) {
        return;
    }
    char detail[128];
    int n = snprintf(
        detail, sizeof(detail), "epoch=%zu/%zu loss=%.4f", trainer->epoch + 1,
        trainer->settings.n_epochs,
        trainer->epoch_targets > 0 ? trainer->epoch_loss / (double)trainer->epoch_targets : 0.0);
    if (trainer->best_ndcg >= 0.0 && n > 0 && (size_t)n < sizeof(detail)) {
        (void)snprintf(detail + n, sizeof(detail) - (size_t)n, " best_ndcg@10=%.4f",
                       trainer->best_ndcg);
    }
    uint64_t total = trainer->data.n_targets * trainer->settings.n_epochs;
    uint64_t done = trainer->data.n_targets * trainer->epoch + trainer->epoch_targets;
    progress_show(&trainer->progress, trainer->refitting ? "refitting" : "training", done, total,
                  detail);
}

/* Steps of the epoch under way. */
static enum status run_epoch(struct trainer *trainer, struct error *err)
{
    const struct trainer_settings *s = &trainer->settings;
    shuffle(trainer);
    while (trainer->at < trainer->data.n_windows) {
        if (is_interrupted(trainer)) {
            return error_set(err, STATUS_UNAVAILABLE, "interrupted at step %llu",
                             (unsigned long long)trainer->step);
        }
        double rate = rate_at(trainer);
        trainer->at =
            sequence_batch_fill(&trainer->batch, &trainer->data, trainer->order, trainer->at,
                                s->drop_events, trainer_seed(trainer, SEED_BATCH, trainer->step));
        double loss = trainer_step(trainer, rate);
        if (!isfinite(loss)) {
            return error_set(err, STATUS_INVALID,
                             "the loss is not finite at step %llu: try a smaller learning rate",
                             (unsigned long long)trainer->step);
        }
        trainer->epoch_loss += loss * (double)trainer->batch.n_tokens;
        trainer->epoch_targets += trainer->batch.n_tokens;
        show(trainer);
        if (s->checkpoint_path != NULL &&
            (double)(clock_monotonic_us() - trainer->checkpoint_us) / 1e6 > s->checkpoint_seconds) {
            enum status status = trainer_checkpoint_write(trainer, err);
            if (status != STATUS_OK) {
                return status;
            }
        }
    }
    return STATUS_OK;
}

static void log_point(const struct trainer *trainer, const struct trainer_point *point)
{
    LOG_INFO(trainer->refitting ? "refit epoch" : "epoch", LOG_I("epoch", point->epoch),
             LOG_F("loss", (double)point->loss), LOG_F("ndcg10", (double)point->ndcg10),
             LOG_F("hr10", (double)point->hr10), LOG_F("hr20", (double)point->hr20),
             LOG_F("mrr20", (double)point->mrr20), LOG_F("seconds", (double)point->seconds));
}

static bool is_done(const struct trainer *trainer)
{
    const struct trainer_settings *s = &trainer->settings;
    if (s->seconds_max > 0.0 && trainer->epoch > 0 && seconds_so_far(trainer) >= s->seconds_max) {
        return true;
    }
    return trainer->epoch >= s->n_epochs || (trainer->data.n_cases > 0 && s->patience > 0 &&
                                             trainer->epochs_since_best >= s->patience);
}

/* Validates, remembers the best, adds a point to the curve; *done: it is time to stop. */
static enum status end_epoch(struct trainer *trainer, bool *done, struct error *err)
{
    struct trainer_point point = {
        .epoch = (uint32_t)trainer->epoch + 1,
        .loss = (float)(trainer->epoch_loss / (double)trainer->epoch_targets),
        .learning_rate = (float)rate_at(trainer),
        .ndcg10 = NAN,
        .hr10 = NAN,
        .hr20 = NAN,
        .mrr20 = NAN,
    };
    bool averaged = trainer->average.items != NULL;
    if (averaged) {
        trainer_swap(trainer, &trainer->average);
    }
    enum status status = STATUS_OK;
    if (trainer->data.n_cases > 0) {
        status = trainer_validate(trainer, &point, err);
    }
    bool is_best = trainer->data.n_cases == 0 || (double)point.ndcg10 > trainer->best_ndcg;
    if (status == STATUS_OK && is_best) {
        trainer_copy(trainer, &trainer->best);
        trainer->best_ndcg = (double)point.ndcg10;
        trainer->epochs_since_best = 0;
    } else {
        trainer->epochs_since_best++;
    }
    if (averaged) {
        trainer_swap(trainer, &trainer->average);
    }
    point.seconds = (float)seconds_so_far(trainer);
    if (!trainer->refitting) {
        trainer->curve.best = is_best ? trainer->curve.n : trainer->curve.best;
        trainer->curve.points[trainer->curve.n++] = point;
        if (trainer->data.n_cases == 0) {
            trainer->curve.best = trainer->curve.n;
        }
    }
    log_point(trainer, &point);
    trainer->epoch++;
    trainer->at = 0;
    trainer->epoch_loss = 0.0;
    trainer->epoch_targets = 0;
    *done = is_done(trainer);
    return status;
}

static enum status run_epochs(struct trainer *trainer, struct error *err)
{
    bool done = is_done(trainer);
    enum status status = STATUS_OK;
    while (status == STATUS_OK && !done) {
        status = run_epoch(trainer, err);
        if (status == STATUS_OK) {
            status = end_epoch(trainer, &done, err);
        }
    }
    return status;
}

/* From new weights on all events, for as many epochs as were best, along the rates of those. */
enum status trainer_begin_refit(struct trainer *trainer, struct error *err)
{
    size_t n_steps = trainer->n_steps;
    size_t n_epochs = trainer->settings.n_epochs;
    trainer->refitting = true;
    trainer->settings.data.validation = VALIDATE_NONE;
    enum status status = open_data(trainer, err);
    if (status == STATUS_OK) {
        status = open_network(trainer, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    set_weights(trainer);
    size_t n_best = trainer->curve.points[trainer->curve.best].epoch;
    trainer->n_steps = n_steps > trainer->n_steps ? n_steps : trainer->n_steps;
    trainer->settings.n_epochs = n_best < n_epochs ? n_best : n_epochs;
    return STATUS_OK;
}

/* What ends a run, good or bad. */
static enum status end_run(struct trainer *trainer, enum status status, struct error *err)
{
    if (trainer->settings.show_progress) {
        progress_end(&trainer->progress, "training", trainer->step, NULL);
    }
    if (status == STATUS_UNAVAILABLE && trainer->settings.checkpoint_path != NULL) {
        enum status written = trainer_checkpoint_write(trainer, err);
        if (written != STATUS_OK) {
            return written;
        }
    }
    if (status == STATUS_OK) {
        trainer->curve.n_targets = trainer->data.n_targets;
        trainer->curve.n_steps = trainer->step;
        trainer->curve.seconds = seconds_so_far(trainer);
        trainer_swap(trainer, &trainer->best); /* the best weights are the ones in use now */
    }
    return status;
}

enum status trainer_run(struct trainer *trainer, struct error *err)
{
    trainer->start_us = clock_monotonic_us();
    trainer->checkpoint_us = trainer->start_us;
    enum status status = STATUS_NOT_FOUND;
    if (trainer->settings.checkpoint_path != NULL) {
        status = trainer_checkpoint_read(trainer, err);
    }
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        return status;
    }
    if (trainer->refitting) {
        return STATUS_OK;
    }
    trainer->curve.n_cases = trainer->data.n_cases;
    return end_run(trainer, run_epochs(trainer, err), err);
}

enum status trainer_refit(struct trainer *trainer, struct error *err)
{
    enum status status = STATUS_OK;
    if (!trainer->refitting && trainer->data.n_cases == 0) {
        return STATUS_OK; /* nothing was held out */
    }
    if (!trainer->refitting) {
        trainer->seconds_before = seconds_so_far(trainer);
        trainer->start_us = clock_monotonic_us();
        status = trainer_begin_refit(trainer, err);
    }
    if (status == STATUS_OK) {
        status = run_epochs(trainer, err);
    }
    return end_run(trainer, status, err);
}

bool trainer_is_refitting(const struct trainer *trainer)
{
    return trainer->refitting;
}

double *trainer_notes(struct trainer *trainer)
{
    return trainer->notes;
}

const struct sequence_data *trainer_data(const struct trainer *trainer)
{
    return &trainer->data;
}

/* ---- results ---- */

const struct trainer_curve *trainer_curve(const struct trainer *trainer)
{
    return &trainer->curve;
}

void trainer_item_vectors(const struct trainer *trainer, float *out)
{
    size_t item_dim = trainer_item_dim(trainer);
    memset(out, 0, trainer->n_items * item_dim * sizeof(float));
    for (size_t i = 0; i < trainer->n_items; i++) {
        if (trainer->data.counts[i] <= 0.0) {
            continue; /* never trained: `aisle build` finds it a vector */
        }
        memcpy(out + i * item_dim, trainer->rows + i * trainer->dim, trainer->dim * sizeof(float));
        if (trainer->now.bias != NULL) {
            out[i * item_dim + trainer->dim] = trainer->now.bias[i];
        }
    }
}

enum status trainer_write_model(const struct trainer *trainer, const char *path, struct error *err)
{
    return trainer->settings.architecture->write(trainer->network, path, trainer_item_dim(trainer),
                                                 err);
}
