#include "core/train_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "core/histories.h"
#include "core/model_folder.h"
#include "core/training_internal.h"
#include "embeddings/user_model.h"
#include "store/items.h"

/* `aisle train`: items + events → model folder. item2vec learns from sessions (what is looked at
 * together in one visit), sequence models from whole users or sessions, and histories for the build
 * are sampled from whole users; events are therefore loaded more than once, one after the other,
 * instead of being held twice.
 *
 * The folder is written beside its place and renamed, so that a killed training leaves the old
 * model. One thread and one seed give the same bytes, but for the time taken in training.json. */

enum {
    TRAIN_HISTORIES_MAX = 2000,
    SESSION_GAP_MINUTES = 30,
    TRAIN_TABLES = 2, /* input and output vectors */
    TEXT_MAX_BYTES = 1 << 20,
};

void train_config_default(struct train_config *config)
{
    struct item2vec_settings settings;
    item2vec_settings_default(&settings);
    *config = (struct train_config){.model = "decay", .dim = settings.dim, .seed = settings.seed};
    /* All numbers of the overrides lie before its names. */
    double *numbers = (double *)&config->overrides;
    for (size_t i = 0; i < offsetof(struct train_overrides, loss) / sizeof(double); i++) {
        numbers[i] = -1.0;
    }
}

/* ---- checks before any work ---- */

static bool is_known_model(const char *model)
{
    struct trainer_settings sequence;
    enum neighbors_kind kind;
    return strcmp(model, "decay") == 0 || trainer_settings_default(model, &sequence) ||
           neighbors_kind_parse(model, &kind);
}

static enum status check_config(struct training *training, struct error *err)
{
    const struct train_config *config = training->config;
    if (config->items_path == NULL || config->events_path == NULL || config->out_dir == NULL ||
        config->out_dir[0] == '\0') {
        return error_set(err, STATUS_INVALID, "items, events and an output folder must be given");
    }
    if (strcmp(config->events_path, "-") == 0) {
        return error_set(err, STATUS_INVALID, "events are read twice and must be a file");
    }
    if (config->model == NULL || !is_known_model(config->model)) {
        return error_set_field(err, STATUS_INVALID, "--model",
                               "--model: unknown model %.32s; known: decay, sasrec, gru4rec, "
                               "attention, vmis, vsknn, vstan, sr, ar",
                               config->model != NULL ? config->model : "");
    }
    item2vec_settings_default(&training->item2vec);
    training->item2vec.dim = config->dim;
    if (config->n_epochs != 0) {
        training->item2vec.n_epochs = config->n_epochs;
    }
    training->item2vec.n_threads = config->n_threads;
    training->item2vec.seed = config->seed;
    training->item2vec.show_progress = log_enabled(LOG_LEVEL_INFO);
    training->dim = config->dim;
    training->grouping = EVENTS_BY_SESSION;
    enum status status = train_neighbors_check(training, err);
    struct trainer_settings probe;
    if (status == STATUS_OK && config->budget_seconds > 0.0 &&
        !trainer_settings_default(config->model, &probe)) {
        return error_set_field(err, STATUS_INVALID, "--budget",
                               "--budget: only sequence models have settings to search");
    }
    training->is_sequence = trainer_settings_default(config->model, &probe);
    if (status == STATUS_OK && training->is_sequence) {
        status = train_sequence_check(training, err);
    }
    return status;
}

static enum status check_out(struct training *training, struct error *err)
{
    enum status status =
        model_folder_writer_check(&training->writer, training->config->out_dir, err);
    if (status != STATUS_OK) {
        return status;
    }
    int n = snprintf(training->checkpoint, sizeof(training->checkpoint), "%s.checkpoint",
                     training->writer.out);
    if (n < 0 || (size_t)n >= sizeof(training->checkpoint)) {
        return error_set(err, STATUS_LIMIT, "the path of the output folder is too long");
    }
    return STATUS_OK;
}

/* ---- reading ---- */

static enum status read_items(struct training *training, struct error *err)
{
    const char *path = training->config->items_path;
    struct item_reader *reader = NULL;
    struct item item;
    enum status status = idmap_open(0, &training->rows, err);
    if (status == STATUS_OK) {
        status = item_reader_open(path, &reader, err);
    }
    while (status == STATUS_OK) {
        uint32_t row = 0;
        status = item_reader_next(reader, &item, err);
        if (status == STATUS_NOT_FOUND) {
            status = STATUS_OK;
            break;
        }
        if (status == STATUS_OK) {
            status = idmap_add(training->rows, item.id, strlen(item.id), &row);
            if (status != STATUS_OK) {
                (void)error_set(err, status, "%s: item %.64s: %s", path, item.id,
                                status_text(status));
            }
        }
    }
    item_reader_close(reader);
    training->result->n_items = status == STATUS_OK ? idmap_size(training->rows) : 0;
    if (status == STATUS_OK && training->result->n_items == 0) {
        status = error_set(err, STATUS_INVALID, "%s has no items", path);
    }
    return status;
}

enum status training_load_events(struct training *training, enum event_grouping grouping,
                                 struct error *err)
{
    struct event_log_config config = {
        .path = training->config->events_path,
        .items = training->rows,
        .grouping = grouping,
        .session_gap_ms = (int64_t)SESSION_GAP_MINUTES * 60 * 1000,
    };
    if (training->is_loaded && training->loaded == grouping) {
        return STATUS_OK;
    }
    event_log_free(&training->log);
    training->log = (struct event_log){.n_events = 0};
    enum status status = event_log_load(&config, &training->log, &training->counts, NULL, err);
    training->is_loaded = status == STATUS_OK;
    training->loaded = grouping;
    return status;
}

static enum status read_sessions(struct training *training, struct error *err)
{
    struct train_result *result = training->result;
    uint64_t n_bytes = 0;
    enum status status =
        hash_file_sha256(training->config->events_path, training->fingerprint, &n_bytes, err);
    if (status == STATUS_OK) {
        status = training_load_events(training, training->grouping, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    result->n_events = training->log.n_events;
    result->n_unknown_item = training->counts.n_unknown_item;
    result->n_sequences = training->log.n_sequences;
    if (result->n_events == 0) {
        return error_set(err, STATUS_INVALID, "%s: no event is of an item of %s",
                         training->config->events_path, training->config->items_path);
    }
    return STATUS_OK;
}

static enum status count_items(struct training *training, struct error *err)
{
    size_t n = idmap_size(training->rows);
    training->item_counts = mem_calloc(n, sizeof(*training->item_counts));
    if (training->item_counts == NULL) {
        return error_set(err, STATUS_NOMEM, "counts of %zu items: no memory", n);
    }
    for (size_t e = 0; e < training->log.n_events; e++) {
        training->item_counts[training->log.events[e].row] += 1.0F;
    }
    for (size_t row = 0; row < n; row++) {
        training->result->n_items_with_events += training->item_counts[row] > 0.0F ? 1 : 0;
    }
    return STATUS_OK;
}

/* ---- learning ---- */

static enum status learn(struct training *training, struct error *err)
{
    if (training->is_sequence) {
        return train_sequence_learn(training, err);
    }
    size_t n = idmap_size(training->rows);
    size_t dim = training->item2vec.dim;
    double bytes = (double)n * (double)dim * sizeof(float) * (TRAIN_TABLES + 1) +
                   (double)training->log.n_events * sizeof(struct history_event) +
                   (double)idmap_bytes(training->rows);
    LOG_INFO("train", LOG_I("items", n), LOG_I("events", training->log.n_events),
             LOG_I("sessions", training->log.n_sequences), LOG_I("dim", dim),
             LOG_I("epochs", training->item2vec.n_epochs), LOG_F("memory_mb", bytes / 1e6));
    if (dim == 0 || n > SIZE_MAX / sizeof(double) / dim) {
        return error_set(err, STATUS_INVALID, "%zu items of dimension %zu", n, dim);
    }
    training->vectors = mem_calloc(n * dim, sizeof(*training->vectors));
    if (training->vectors == NULL) {
        return error_set(err, STATUS_NOMEM, "vectors of %zu items: no memory", n);
    }
    return item2vec_train(&training->log, n, &training->item2vec, training->vectors, err);
}

/* ---- writing ---- */

enum status training_path(const struct training *training, const char *name,
                          char out[PATH_BYTES_MAX], struct error *err)
{
    return model_folder_writer_path(&training->writer, name, out, err);
}

static enum status make_temporary(struct training *training, struct error *err)
{
    return model_folder_writer_begin(&training->writer, err);
}

static enum status write_vectors(struct training *training, struct error *err)
{
    const struct vectors vectors = {training->vectors, idmap_size(training->rows), training->dim,
                                    VECTOR_F32};
    return model_folder_writer_vectors(&training->writer, &vectors, training->item_counts, err);
}

static enum status write_ids(struct training *training, struct error *err)
{
    return model_folder_writer_ids(&training->writer, training->rows, err);
}

static enum status write_weights(struct training *training, struct error *err)
{
    char path[PATH_BYTES_MAX];
    struct decay_settings settings;
    decay_settings_default(&settings);
    enum status status = training_path(training, MODEL_FILE_WEIGHTS, path, err);
    if (status == STATUS_OK) {
        status = training->is_sequence ? trainer_write_model(training->trainer, path, err)
                                       : decay_model_write(path, training->dim, &settings, err);
    }
    return status;
}

static enum status write_histories(struct training *training, struct error *err)
{
    char path[PATH_BYTES_MAX];
    struct history_set set = {.n = 0};
    struct row_names names = {.map = training->rows};
    enum status status = training_path(training, MODEL_FILE_HISTORIES, path, err);
    if (status == STATUS_OK) {
        status = training_load_events(training, EVENTS_BY_USER, err);
    }
    if (status == STATUS_OK) {
        status = history_set_sample(&set, &training->log, TRAIN_HISTORIES_MAX,
                                    training->config->seed, err);
    }
    if (status == STATUS_OK) {
        status = histories_write(path, &set, &names, err);
    }
    history_set_free(&set);
    return status;
}

static void encode_item2vec(const struct training *training, struct json_writer *json)
{
    const struct item2vec_settings *settings = &training->item2vec;
    json_string(json, "item_vectors", "item2vec");
    json_begin_object(json, "settings");
    json_int(json, "dim", (int64_t)settings->dim);
    json_int(json, "epochs", (int64_t)settings->n_epochs);
    json_int(json, "window", (int64_t)settings->window);
    json_int(json, "negatives", (int64_t)settings->n_negatives);
    json_double(json, "negative_exponent", settings->negative_exponent);
    json_double(json, "subsample", settings->subsample);
    json_double(json, "learning_rate", settings->learning_rate);
    json_int(json, "threads", (int64_t)settings->n_threads);
    json_int(json, "seed", (int64_t)settings->seed);
    json_end_object(json);
}

static void encode_report(const struct training *training, struct buf *text)
{
    const struct train_result *result = training->result;
    struct json_writer json;
    json_writer_init(&json, text);
    json_begin_object(&json, NULL);
    json_string(&json, "model", training->config->model);
    if (training->is_sequence) {
        train_sequence_encode(training, &json);
    } else {
        encode_item2vec(training, &json);
    }
    train_neighbors_encode(training, &json);
    json_begin_object(&json, "data");
    json_int(&json, "n_items", (int64_t)result->n_items);
    json_int(&json, "n_items_with_events", (int64_t)result->n_items_with_events);
    json_int(&json, "n_events", (int64_t)result->n_events);
    json_int(&json, "n_unknown_item", (int64_t)result->n_unknown_item);
    json_int(&json, "n_sequences", (int64_t)result->n_sequences);
    json_int(&json, "first_ms", training->counts.first_ms);
    json_int(&json, "last_ms", training->counts.last_ms);
    json_string(&json, "sha256", training->fingerprint);
    json_end_object(&json);
    json_double(&json, "seconds", result->seconds);
    json_end_object(&json);
    buf_append_char(text, '\n');
}

static enum status write_report(struct training *training, struct error *err)
{
    struct buf text;
    training->result->seconds = (double)(clock_monotonic_us() - training->start_us) / 1e6;
    buf_init(&text, TEXT_MAX_BYTES);
    encode_report(training, &text);
    enum status status =
        model_folder_writer_text(&training->writer, MODEL_FILE_TRAINING, &text, err);
    buf_free(&text);
    return status;
}

static enum status put_in_place(struct training *training, struct error *err)
{
    enum status status = model_folder_writer_commit(&training->writer, err);
    if (status == STATUS_OK && training->is_sequence && unlink(training->checkpoint) != 0 &&
        file_exists(training->checkpoint)) {
        LOG_WARN("the checkpoint stays", LOG_S("path", training->checkpoint));
    }
    return status;
}

static enum status draw_curve(struct training *training, struct error *err)
{
    return train_sequence_draw(training, err);
}

typedef enum status training_step(struct training *training, struct error *err);

static training_step *const STEPS[] = {
    check_config,   check_out,       read_items, read_sessions, count_items,
    make_temporary, learn,           write_ids,  write_vectors, train_neighbors_write,
    write_weights,  write_histories, draw_curve, write_report,  put_in_place,
};

enum status train_model(const struct train_config *config, struct train_result *result,
                        struct error *err)
{
    *result = (struct train_result){
        .ndcg10 = (double)NAN, .hr10 = (double)NAN, .hr20 = (double)NAN, .mrr20 = (double)NAN};
    struct training training = {
        .config = config, .result = result, .start_us = clock_monotonic_us()};
    enum status status = STATUS_OK;
    for (size_t i = 0; i < sizeof(STEPS) / sizeof(STEPS[0]) && status == STATUS_OK; i++) {
        status = STEPS[i](&training, err);
    }
    model_folder_writer_abandon(&training.writer);
    result->dim = training.dim;
    result->blend_weight =
        training.has_neighbors && !training.blend.is_primary ? training.blend.weight : 0.0;
    trainer_close(training.trainer);
    mem_free(training.search);
    mem_free(training.vectors);
    mem_free(training.item_counts);
    event_log_free(&training.log);
    idmap_close(training.rows);
    return status;
}
