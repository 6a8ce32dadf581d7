/* Sequence models of `aisle train`: settings from defaults and overrides, training, refit.
 *
 * One table carries the settings: a row names a setting as the manifest shows it, its place in
 * struct trainer_settings and the override that sets it, so that none can be settable and not
 * recorded. The fingerprint of a checkpoint is made of the same record and of the events' hash.
 *
 * Order: train with a held-out part until that stops improving; tune how much the neighbours count
 * on the same part; then train anew on everything for as many epochs, because the newest events,
 * which were held out, say most about what comes next. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "core/model_folder.h"
#include "core/train_curve.h"
#include "core/training_internal.h"

enum setting_kind { SETTING_SIZE, SETTING_NUMBER, SETTING_BOOL };
enum setting_owner { OF_ALL, OF_SASREC, OF_GRU4REC };

struct setting_row {
    const char *name;
    enum setting_kind kind;
    enum setting_owner owner;
    size_t offset;   /* in struct trainer_settings */
    size_t override; /* in struct train_overrides */
};

#define ROW(name, kind, owner, member, override)                                                   \
    {                                                                                              \
        name, kind, owner, offsetof(struct trainer_settings, member),                              \
            offsetof(struct train_overrides, override)                                             \
    }
static const struct setting_row ROWS[] = {
    ROW("history_max", SETTING_SIZE, OF_ALL, history_max, history_max),
    ROW("learning_rate", SETTING_NUMBER, OF_ALL, learning_rate, learning_rate),
    ROW("batch_events", SETTING_SIZE, OF_ALL, batch_events, batch_events),
    ROW("warmup", SETTING_NUMBER, OF_ALL, warmup, warmup),
    ROW("final_rate", SETTING_NUMBER, OF_ALL, final_rate, final_rate),
    ROW("weight_decay", SETTING_NUMBER, OF_ALL, weight_decay, weight_decay),
    ROW("item_weight_decay", SETTING_NUMBER, OF_ALL, item_weight_decay, item_weight_decay),
    ROW("dropout", SETTING_NUMBER, OF_ALL, dropout, dropout),
    ROW("input_dropout", SETTING_NUMBER, OF_ALL, input_dropout, input_dropout),
    ROW("drop_events", SETTING_NUMBER, OF_ALL, drop_events, drop_events),
    ROW("clip_norm", SETTING_NUMBER, OF_ALL, clip_norm, clip_norm),
    ROW("average", SETTING_NUMBER, OF_ALL, average, average),
    ROW("cosine_scale", SETTING_NUMBER, OF_ALL, normalised_scale, cosine_scale),
    ROW("item_bias", SETTING_BOOL, OF_ALL, item_bias, item_bias),
    ROW("initial_deviation", SETTING_NUMBER, OF_ALL, initial_deviation, initial_deviation),
    ROW("patience", SETTING_SIZE, OF_ALL, patience, patience),
    ROW("negatives", SETTING_SIZE, OF_ALL, loss.n_negatives, negatives),
    ROW("in_batch", SETTING_BOOL, OF_ALL, loss.in_batch, in_batch),
    ROW("negative_exponent", SETTING_NUMBER, OF_ALL, loss.negative_exponent, negative_exponent),
    ROW("log_q", SETTING_BOOL, OF_ALL, loss.log_q, log_q),
    ROW("gbce_t", SETTING_NUMBER, OF_ALL, loss.gbce_t, gbce_t),
    ROW("label_smoothing", SETTING_NUMBER, OF_ALL, loss.label_smoothing, label_smoothing),
    ROW("validation_share", SETTING_NUMBER, OF_ALL, data.share, validation_share),
    ROW("validation_cases", SETTING_SIZE, OF_ALL, data.cases_max, validation_cases),
    ROW("exclude_history", SETTING_BOOL, OF_ALL, exclude_history, exclude_history),
    ROW("blocks", SETTING_SIZE, OF_SASREC, network.sasrec.n_blocks, blocks),
    ROW("heads", SETTING_SIZE, OF_SASREC, network.sasrec.n_heads, heads),
    ROW("ffn_dim", SETTING_SIZE, OF_SASREC, network.sasrec.ffn_dim, ffn_dim),
    ROW("post_norm", SETTING_BOOL, OF_SASREC, network.sasrec.post_norm, post_norm),
    ROW("embedding_norm", SETTING_BOOL, OF_SASREC, network.sasrec.has_embedding_norm,
        embedding_norm),
    ROW("event_types", SETTING_BOOL, OF_SASREC, network.sasrec.has_types, event_types),
    ROW("gap_buckets", SETTING_SIZE, OF_SASREC, network.sasrec.n_gap_buckets, gap_buckets),
    ROW("layers", SETTING_SIZE, OF_GRU4REC, network.gru4rec.n_layers, layers),
    ROW("hidden_dim", SETTING_SIZE, OF_GRU4REC, network.gru4rec.hidden_dim, hidden_dim),
};
#undef ROW
enum { N_ROWS = sizeof(ROWS) / sizeof(ROWS[0]) };

static bool row_applies(const struct trainer_settings *settings, const struct setting_row *row)
{
    return row->owner == OF_ALL ||
           (row->owner == OF_SASREC && settings->architecture == &network_sasrec) ||
           (row->owner == OF_GRU4REC && settings->architecture == &network_gru4rec);
}

static double row_override(const struct train_overrides *overrides, const struct setting_row *row)
{
    double value = 0.0;
    memcpy(&value, (const char *)overrides + row->override, sizeof(value));
    return value;
}

static double row_value(const struct trainer_settings *settings, const struct setting_row *row)
{
    const char *place = (const char *)settings + row->offset;
    if (row->kind == SETTING_SIZE) {
        size_t size = 0;
        memcpy(&size, place, sizeof(size));
        return (double)size;
    }
    if (row->kind == SETTING_BOOL) {
        bool truth = false;
        memcpy(&truth, place, sizeof(truth));
        return truth ? 1.0 : 0.0;
    }
    double number = 0.0;
    memcpy(&number, place, sizeof(number));
    return number;
}

static void row_set(struct trainer_settings *settings, const struct setting_row *row, double value)
{
    char *place = (char *)settings + row->offset;
    if (row->kind == SETTING_SIZE) {
        size_t size = (size_t)value;
        memcpy(place, &size, sizeof(size));
    } else if (row->kind == SETTING_BOOL) {
        bool truth = value != 0.0;
        memcpy(place, &truth, sizeof(truth));
    } else {
        memcpy(place, &value, sizeof(value));
    }
}

static enum status apply_numbers(struct training *training, struct error *err)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        double value = row_override(&training->config->overrides, &ROWS[i]);
        if (!(value >= 0.0)) {
            continue;
        }
        if (!row_applies(&training->sequence, &ROWS[i])) {
            return error_set_field(err, STATUS_INVALID, ROWS[i].name, "%s is no setting of %s",
                                   ROWS[i].name, training->config->model);
        }
        row_set(&training->sequence, &ROWS[i], value);
    }
    return STATUS_OK;
}

static enum status apply_names(struct training *training, struct error *err)
{
    const struct train_overrides *overrides = &training->config->overrides;
    struct trainer_settings *settings = &training->sequence;
    if (overrides->loss != NULL && !loss_kind_parse(overrides->loss, &settings->loss.kind)) {
        return error_set_field(err, STATUS_INVALID, "--loss",
                               "--loss: unknown loss %.32s; known: full, sampled, gbce",
                               overrides->loss);
    }
    training->grouping = EVENTS_BY_USER;
    if (overrides->sequences != NULL && strcmp(overrides->sequences, "session") == 0) {
        training->grouping = EVENTS_BY_SESSION;
        settings->data.validation = VALIDATE_TIME_SPLIT;
    } else if (overrides->sequences != NULL && strcmp(overrides->sequences, "user") != 0) {
        return error_set_field(err, STATUS_INVALID, "--sequences",
                               "--sequences: user or session, not %.32s", overrides->sequences);
    }
    if (overrides->validation != NULL &&
        !sequence_validation_parse(overrides->validation, &settings->data.validation)) {
        return error_set_field(err, STATUS_INVALID, "--validation",
                               "--validation: none, leave-last or time-split, not %.32s",
                               overrides->validation);
    }
    return STATUS_OK;
}

enum status train_sequence_check(struct training *training, struct error *err)
{
    const struct train_config *config = training->config;
    struct trainer_settings *settings = &training->sequence;
    if (!trainer_settings_default(config->model, settings)) {
        return error_set_field(err, STATUS_INVALID, "--model", "--model: unknown model %.32s",
                               config->model);
    }
    settings->dim = config->dim;
    settings->n_epochs = config->n_epochs != 0 ? config->n_epochs : settings->n_epochs;
    settings->n_threads = config->n_threads;
    settings->seed = config->seed;
    settings->show_progress = log_enabled(LOG_LEVEL_INFO);
    settings->interrupted = config->interrupted;
    if (settings->architecture == &network_sasrec) {
        settings->network.sasrec.ffn_dim = 4 * settings->dim;
    }
    enum status status = apply_numbers(training, err);
    if (status == STATUS_OK) {
        status = apply_names(training, err);
    }
    training->refit = config->overrides.refit > 0.0;
    if (status == STATUS_OK && training->refit && settings->data.validation == VALIDATE_NONE) {
        status = error_set_field(err, STATUS_INVALID, "--refit",
                                 "--refit needs a validation that says for how long");
    }
    return status;
}

static void encode_settings(const struct training *training, struct json_writer *json)
{
    const struct trainer_settings *settings = &training->sequence;
    json_int(json, "dim", (int64_t)settings->dim);
    json_int(json, "epochs_max", (int64_t)settings->n_epochs);
    json_string(json, "loss", loss_kind_name(settings->loss.kind));
    json_string(json, "validation", sequence_validation_name(settings->data.validation));
    json_string(json, "sequences", training->grouping == EVENTS_BY_USER ? "user" : "session");
    json_bool(json, "refit", training->refit);
    json_int(json, "seed", (int64_t)settings->seed);
    for (size_t i = 0; i < N_ROWS; i++) {
        double value = row_value(settings, &ROWS[i]);
        if (!row_applies(settings, &ROWS[i])) {
            continue;
        }
        if (ROWS[i].kind == SETTING_SIZE) {
            json_int(json, ROWS[i].name, (int64_t)value);
        } else if (ROWS[i].kind == SETTING_BOOL) {
            json_bool(json, ROWS[i].name, value != 0.0);
        } else {
            json_double(json, ROWS[i].name, value);
        }
    }
}

static enum status make_fingerprint(struct training *training, struct error *err)
{
    struct buf text;
    struct json_writer json;
    buf_init(&text, 1 << 16);
    json_writer_init(&json, &text);
    json_begin_object(&json, NULL);
    json_string(&json, "events", training->fingerprint);
    json_int(&json, "items", (int64_t)training->result->n_items);
    encode_settings(training, &json);
    json_end_object(&json);
    enum status status = text.status;
    if (status == STATUS_OK) {
        hash_sha256_hex(text.data, text.len, training->settings_hash);
    } else {
        (void)error_set(err, status, "settings: %s", status_text(status));
    }
    buf_free(&text);
    return status;
}

static void take_metrics(struct training *training)
{
    const struct trainer_curve *curve = trainer_curve(training->trainer);
    struct train_result *result = training->result;
    result->n_validation = curve->n_cases;
    if (curve->best < curve->n) {
        const struct trainer_point *best = &curve->points[curve->best];
        result->best_epoch = best->epoch;
        result->ndcg10 = (double)best->ndcg10;
        result->hr10 = (double)best->hr10;
        result->hr20 = (double)best->hr20;
        result->mrr20 = (double)best->mrr20;
    }
}

static enum status run(struct training *training, struct error *err)
{
    struct trainer *trainer = training->trainer;
    enum status status = trainer_run(trainer, err);
    if (status != STATUS_OK) {
        return status;
    }
    double *notes = trainer_notes(trainer);
    if (trainer_is_refitting(trainer)) {
        training->blend.weight = notes[0]; /* tuned before the interruption */
        training->blend.floor = notes[1];
    } else if (training->has_neighbors) {
        status = train_neighbors_tune(training, err);
    }
    notes[0] = training->blend.weight;
    notes[1] = training->blend.floor;
    if (status == STATUS_OK && training->refit) {
        status = trainer_refit(trainer, err);
    }
    return status;
}

/* Settings by successive halving; what is left of the budget is for the training. */
static enum status search(struct training *training, struct error *err)
{
    double budget = training->config->budget_seconds;
    if (budget <= 0.0) {
        return STATUS_OK;
    }
    const struct train_search_config config = {
        .base = &training->sequence,
        .log = &training->log,
        .n_items = training->result->n_items,
        .budget_seconds = budget,
        .folder = training->writer.temporary,
        .seed = training->config->seed,
    };
    struct trainer_settings best;
    training->search = mem_calloc(1, sizeof(*training->search));
    if (training->search == NULL) {
        return error_set(err, STATUS_NOMEM, "a search of settings: no memory");
    }
    int64_t start_us = clock_monotonic_us();
    enum status status = train_search(&config, &best, training->search, err);
    if (status == STATUS_OK) {
        double spent = (double)(clock_monotonic_us() - start_us) / 1e6;
        /* A refit takes as long again. */
        double left = (budget - spent) / (training->refit ? 2.0 : 1.0);
        training->sequence = best;
        training->sequence.seconds_max = left > 1.0 ? left : 1.0;
    }
    return status;
}

enum status train_sequence_learn(struct training *training, struct error *err)
{
    struct trainer_settings *settings = &training->sequence;
    size_t n = training->result->n_items;
    enum status status = search(training, err);
    if (status == STATUS_OK) {
        status = make_fingerprint(training, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    settings->fingerprint = training->settings_hash;
    settings->checkpoint_path = training->checkpoint;
    /* A search may end elsewhere the next time: it has nothing to go on from. */
    bool begin_anew = training->config->begin_anew || training->config->budget_seconds > 0.0;
    if (begin_anew && unlink(training->checkpoint) != 0 && file_exists(training->checkpoint)) {
        return error_set_errno(err, "removing %s", training->checkpoint);
    }
    double bytes = trainer_bytes(settings, n) +
                   (double)training->log.n_events * sizeof(struct history_event) +
                   (double)idmap_bytes(training->rows);
    LOG_INFO("training", LOG_S("model", training->config->model), LOG_I("items", n),
             LOG_I("events", training->log.n_events), LOG_I("dim", settings->dim),
             LOG_I("epochs_max", settings->n_epochs), LOG_F("memory_mb", bytes / 1e6),
             LOG_S("checkpoint", training->checkpoint));
    status = trainer_open(settings, &training->log, n, &training->trainer, err);
    if (status == STATUS_OK) {
        status = run(training, err);
    }
    if (status == STATUS_UNAVAILABLE) {
        error_prefix(err, "the same command goes on from %.100s: ", training->checkpoint);
    }
    if (status != STATUS_OK) {
        return status;
    }
    take_metrics(training);
    training->dim = trainer_item_dim(training->trainer);
    training->vectors = mem_alloc_vectors(n * training->dim, sizeof(float));
    if (training->vectors == NULL) {
        return error_set(err, STATUS_NOMEM, "vectors of %zu items: no memory", n);
    }
    trainer_item_vectors(training->trainer, training->vectors);
    return STATUS_OK;
}

void train_sequence_encode(const struct training *training, struct json_writer *json)
{
    const struct trainer_curve *curve = trainer_curve(training->trainer);
    json_begin_object(json, "settings");
    encode_settings(training, json);
    json_end_object(json);
    json_int(json, "steps", (int64_t)curve->n_steps);
    json_double(json, "training_seconds", curve->seconds);
    train_curve_json(curve, json);
    if (training->search != NULL) {
        train_search_json(training->search, json);
    }
    if (curve->best < curve->n && curve->n_cases > 0) {
        const struct trainer_point *best = &curve->points[curve->best];
        json_begin_object(json, "quality");
        json_string(json, "protocol", sequence_validation_name(training->sequence.data.validation));
        json_string(json, "ranking", "full catalogue, held-out events");
        json_int(json, "n", (int64_t)curve->n_cases);
        json_float(json, "ndcg@10", best->ndcg10);
        json_float(json, "hr@10", best->hr10);
        json_float(json, "hr@20", best->hr20);
        json_float(json, "mrr@20", best->mrr20);
        json_end_object(json);
    }
}

enum status train_sequence_draw(const struct training *training, struct error *err)
{
    char title[128];
    struct buf text;
    if (!training->is_sequence) {
        return STATUS_OK;
    }
    buf_init(&text, 1 << 20);
    (void)snprintf(title, sizeof(title), "Training of %s", training->config->model);
    enum status status = train_curve_svg(trainer_curve(training->trainer), title, &text, err);
    if (status == STATUS_OK) {
        status = model_folder_writer_text(&training->writer, MODEL_FILE_CURVE, &text, err);
    }
    buf_free(&text);
    return status;
}
