#include "embeddings/user_model.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/json_write.h"
#include "embeddings/user_model_internal.h"

/* The `decay` model: the user vector is the weighted mean of the history's item vectors,
 *   weight = type_weight × 0.5^(age / half_life) × position_decay^position,
 * scaled to unit length. Legend: B users, H used events of a history, D dimension.
 *
 * Scaling to unit length makes a factor common to all weights of a history irrelevant. So weights
 * are formed as powers of two whose largest exponent is first brought to 0 (as a softmax does with
 * its maximum): the heaviest event weighs 1, and a history that is ten years old gives the same
 * vector as it gave when it was new, where the formula read literally would underflow to 0/0. Ages
 * below zero (clocks differ) count as zero, an unknown time as no age.
 *
 * A running mean updated with each event was rejected: it cannot leave out events, and the history
 * is in hand anyway. */

enum { SETTINGS_VERSION = 1, HISTORY_MAX = 1000, SETTINGS_BYTES_MAX = 4096 };

struct decay {
    size_t history_max;
    double log2_position_decay;             /* ≤ 0 */
    double half_life_ms;                    /* infinite: no decay by age */
    double log2_type_weight[N_EVENT_TYPES]; /* -HUGE_VAL: events of this type do not count */
};

void decay_settings_default(struct decay_settings *settings)
{
    *settings = (struct decay_settings){
        .history_max = 50,
        .half_life_ms = 7.0 * 24 * 3600 * 1000,
        .position_decay = 0.7,
        .type_weights =
            {
                [EVENT_VIEW] = 1.0,
                [EVENT_CART] = 3.0,
                [EVENT_PURCHASE] = 2.0,
                [EVENT_CLICK] = 1.0,
            },
    };
}

static enum status check_settings(const struct decay_settings *settings, enum status code,
                                  struct error *err)
{
    if (settings->history_max < 1 || settings->history_max > HISTORY_MAX) {
        return error_set_field(err, code, "history_max", "history_max must be within 1 and %d",
                               HISTORY_MAX);
    }
    if (!(settings->half_life_ms > 0.0)) {
        return error_set_field(err, code, "half_life_ms", "half_life_ms must be above 0");
    }
    if (!(settings->position_decay > 0.0 && settings->position_decay <= 1.0)) {
        return error_set_field(err, code, "position_decay",
                               "position_decay must be above 0 and at most 1");
    }
    for (int t = 0; t < N_EVENT_TYPES; t++) {
        if (!(settings->type_weights[t] >= 0.0 && isfinite(settings->type_weights[t]))) {
            return error_set_field(err, code, "type_weights", "weight of %s must be 0 or above",
                                   event_type_name((enum event_type)t));
        }
    }
    return STATUS_OK;
}

static bool read_number(const struct json_value *value, double *out)
{
    if (json_kind(value) != JSON_NUMBER) {
        return false;
    }
    *out = json_number(value);
    return true;
}

static bool read_type_weights(const struct json_value *value, double *weights)
{
    if (json_kind(value) != JSON_OBJECT) {
        return false;
    }
    for (const struct json_value *v = json_first(value); v != NULL; v = json_next(v)) {
        const char *name = json_name(v);
        enum event_type type = EVENT_VIEW;
        if (!event_type_parse(name, strlen(name), &type) || !read_number(v, &weights[type])) {
            return false;
        }
    }
    return true;
}

/* Settings not named keep their defaults; unknown ones are refused, as they would be ignored. */
static enum status read_settings(const struct json_value *object, struct decay_settings *settings,
                                 struct error *err)
{
    decay_settings_default(settings);
    for (const struct json_value *v = json_first(object); v != NULL; v = json_next(v)) {
        const char *name = json_name(v);
        bool good = false;
        if (strcmp(name, "version") == 0 || strcmp(name, "dim") == 0) {
            good = true; /* checked by the caller */
        } else if (strcmp(name, "history_max") == 0) {
            uint64_t number = 0;
            good = json_whole_number(v, &number);
            settings->history_max = (size_t)number;
        } else if (strcmp(name, "half_life_ms") == 0) {
            settings->half_life_ms = HUGE_VAL;
            good = json_kind(v) == JSON_NULL || read_number(v, &settings->half_life_ms);
        } else if (strcmp(name, "position_decay") == 0) {
            good = read_number(v, &settings->position_decay);
        } else if (strcmp(name, "type_weights") == 0) {
            good = read_type_weights(v, settings->type_weights);
        }
        if (!good) {
            return error_set_field(err, STATUS_FORMAT, name,
                                   "model settings: \"%.64s\" is unknown or malformed", name);
        }
    }
    return check_settings(settings, STATUS_FORMAT, err);
}

static enum status decay_open(const struct user_model_source *source, void **parameters,
                              size_t *history_max, struct error *err)
{
    struct decay_settings settings;
    const enum status status = read_settings(source->settings, &settings, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct decay *decay = mem_alloc(sizeof(*decay));
    if (decay == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a user model");
    }
    decay->history_max = settings.history_max;
    decay->log2_position_decay = log2(settings.position_decay);
    decay->half_life_ms = settings.half_life_ms;
    for (int t = 0; t < N_EVENT_TYPES; t++) {
        const double weight = settings.type_weights[t];
        decay->log2_type_weight[t] = weight > 0.0 ? log2(weight) : -HUGE_VAL;
    }
    *parameters = decay;
    *history_max = settings.history_max;
    return STATUS_OK;
}

/* One row [D] and the exponents of one history [history_max]; users are computed one by one. */
static bool decay_workspace_floats(const void *parameters, size_t dim, size_t n_users_max,
                                   size_t *out)
{
    const struct decay *decay = parameters;
    (void)n_users_max;
    *out = floats_of_lines(dim) + floats_of_lines(decay->history_max);
    return true;
}

/* log2 of an event's weight. */
static double weight_exponent(const struct decay *decay, const struct history_event *event,
                              size_t position, int64_t now_ms)
{
    assert((unsigned)event->type < N_EVENT_TYPES);
    double exponent =
        decay->log2_type_weight[event->type] + (double)position * decay->log2_position_decay;
    if (event->time_ms != EVENT_TIME_UNKNOWN) {
        const double age_ms = (double)now_ms - (double)event->time_ms;
        exponent -= fmax(age_ms, 0.0) / decay->half_life_ms;
    }
    return exponent;
}

/* Weights of H events, the largest 1; false when no event counts. */
static bool event_weights(const struct decay *decay, const struct history_event *events, size_t n,
                          int64_t now_ms, float *weights)
{
    double largest = -HUGE_VAL;
    for (size_t i = 0; i < n; i++) {
        largest = fmax(largest, weight_exponent(decay, &events[i], i, now_ms));
    }
    if (!isfinite(largest)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        weights[i] = (float)exp2(weight_exponent(decay, &events[i], i, now_ms) - largest);
    }
    return true;
}

/* out[D] += weight × row[D] */
static void add_row(float *restrict out, const float *restrict row, float weight, size_t dim)
{
    for (size_t d = 0; d < dim; d++) {
        out[d] += weight * row[d];
    }
}

static void scale_to_unit(float *out, size_t dim)
{
    const float norm = vector_norm(out, dim);
    if (norm < FLT_MIN) {
        memset(out, 0, dim * sizeof(*out)); /* items that cancel each other have no direction */
        return;
    }
    for (size_t d = 0; d < dim; d++) {
        out[d] /= norm;
    }
}

static void prefetch_row(const struct vectors *items, size_t row)
{
    enum { CACHE_LINE_BYTES = 64 };
    const size_t row_bytes = items->dim * (items->type == VECTOR_F32 ? 4 : 2);
    const char *first = (const char *)items->data + row * row_bytes;
    for (size_t offset = 0; offset < row_bytes; offset += CACHE_LINE_BYTES) {
        __builtin_prefetch(first + offset);
    }
}

static void decay_embed(const void *parameters, const struct vectors *items, float *scratch,
                        const struct history_batch *batch, float *out)
{
    const struct decay *decay = parameters;
    const size_t dim = items->dim;
    float *row_space = scratch;
    float *weights = scratch + floats_of_lines(dim);
    memset(out, 0, batch->n_users * dim * sizeof(*out));
    for (size_t b = 0; b < batch->n_users; b++) {
        const struct history_event *events = batch->events + batch->offsets[b];
        size_t n = batch->offsets[b + 1] - batch->offsets[b];
        n = n < decay->history_max ? n : decay->history_max;
        float *user = out + b * dim;
        if (!event_weights(decay, events, n, batch->now_ms, weights)) {
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            /* Rows are anywhere in a large table: asked for all at once, their misses overlap. */
            prefetch_row(items, events[i].row);
        }
        for (size_t i = 0; i < n; i++) {
            assert(events[i].row < items->n);
            const float *row = row_space;
            if (items->type == VECTOR_F32) {
                row = (const float *)items->data + events[i].row * dim;
            } else {
                vectors_row(items, events[i].row, row_space);
            }
            add_row(user, row, weights[i], dim);
        }
        scale_to_unit(user, dim);
    }
}

const struct user_model_architecture user_model_decay = {
    .name = "decay",
    .settings_version = SETTINGS_VERSION,
    .open = decay_open,
    .close = mem_free,
    .workspace_floats = decay_workspace_floats,
    .embed = decay_embed,
};

static void write_settings(struct buf *out, size_t dim, const struct decay_settings *settings)
{
    struct json_writer json;
    json_writer_init(&json, out);
    json_begin_object(&json, NULL);
    json_int(&json, "version", SETTINGS_VERSION);
    json_int(&json, "dim", (int64_t)dim);
    json_int(&json, "history_max", (int64_t)settings->history_max);
    json_double(&json, "half_life_ms", settings->half_life_ms); /* infinity becomes null */
    json_double(&json, "position_decay", settings->position_decay);
    json_begin_object(&json, "type_weights");
    for (int t = 0; t < N_EVENT_TYPES; t++) {
        json_double(&json, event_type_name((enum event_type)t), settings->type_weights[t]);
    }
    json_end_object(&json);
    json_end_object(&json);
}

enum status decay_model_write(const char *path, size_t dim, const struct decay_settings *settings,
                              struct error *err)
{
    enum status status = check_settings(settings, STATUS_INVALID, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (dim < VECTOR_DIM_MIN || dim > VECTOR_DIM_MAX) {
        return error_set_field(err, STATUS_INVALID, "dim", "dim must be within %d and %d",
                               VECTOR_DIM_MIN, VECTOR_DIM_MAX);
    }
    struct buf text;
    buf_init(&text, SETTINGS_BYTES_MAX);
    write_settings(&text, dim, settings);
    if (text.status != STATUS_OK) {
        status = error_set(err, text.status, "model settings: %s", status_text(text.status));
    } else {
        const struct metadata_entry metadata[] = {
            {USER_MODEL_METADATA_ARCHITECTURE, user_model_decay.name},
            {USER_MODEL_METADATA_SETTINGS, buf_text(&text)},
        };
        status = safetensors_write(path, NULL, 0, metadata, 2, err);
    }
    buf_free(&text);
    return status;
}
