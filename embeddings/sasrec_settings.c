#include "embeddings/sasrec.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/json_write.h"
#include "base/vectors.h"
#include "embeddings/safetensors.h"
#include "embeddings/sasrec_internal.h"
#include "embeddings/user_model_internal.h"

/* Settings and file of the SASRec model; the network itself is sasrec.c.
 *
 * Two tables carry everything: one row a setting (its name in JSON, its place in the struct, its
 * range), read by the checker, the reader and the writer, and one row a tensor (its name, shape and
 * place among the weights), read by the writer here and by the opener. So a setting cannot be
 * written and not read, and a tensor's shape stands once. */

enum { SETTINGS_BYTES_MAX = 4096, PREFIX_BYTES = 40 };

enum setting_kind { SETTING_SIZE, SETTING_NUMBER, SETTING_BOOL };

struct setting {
    const char *name;
    enum setting_kind kind;
    size_t offset;
    double min, max; /* of sizes and numbers */
};

#define SETTING_SIZE_ROW(name, member, min, max)                                                   \
    {                                                                                              \
        name, SETTING_SIZE, offsetof(struct sasrec_settings, member), min, max                     \
    }
#define SETTING_NUMBER_ROW(name, member, min, max)                                                 \
    {                                                                                              \
        name, SETTING_NUMBER, offsetof(struct sasrec_settings, member), min, max                   \
    }
#define SETTING_BOOL_ROW(name, member)                                                             \
    {                                                                                              \
        name, SETTING_BOOL, offsetof(struct sasrec_settings, member), 0.0, 1.0                     \
    }

/* Numbers have to survive as floats, hence their ends. */
static const struct setting rows[] = {
    SETTING_SIZE_ROW("dim", item_dim, VECTOR_DIM_MIN, VECTOR_DIM_MAX),
    SETTING_SIZE_ROW("hidden_dim", dim, 1, SASREC_DIM_MAX),
    SETTING_SIZE_ROW("n_blocks", n_blocks, 1, SASREC_BLOCKS_MAX),
    SETTING_SIZE_ROW("n_heads", n_heads, 1, SASREC_DIM_MAX),
    SETTING_SIZE_ROW("ffn_dim", ffn_dim, 1, SASREC_FFN_DIM_MAX),
    SETTING_SIZE_ROW("history_max", history_max, 1, SASREC_HISTORY_MAX),
    SETTING_NUMBER_ROW("norm_epsilon", norm_epsilon, 1e-30, 1.0),
    SETTING_NUMBER_ROW("input_scale", input_scale, 1e-6, 1e6),
    SETTING_NUMBER_ROW("output_scale", output_scale, 0.0, 1e6),
    SETTING_BOOL_ROW("post_norm", post_norm),
    SETTING_BOOL_ROW("norm_keys", norm_keys),
    SETTING_BOOL_ROW("residual_normed", residual_normed),
    SETTING_BOOL_ROW("positions_right", positions_right),
    SETTING_BOOL_ROW("attend_padding", attend_padding),
    SETTING_BOOL_ROW("has_embedding_norm", has_embedding_norm),
    SETTING_BOOL_ROW("has_final_norm", has_final_norm),
    SETTING_BOOL_ROW("has_bias", has_bias),
    SETTING_BOOL_ROW("has_types", has_types),
    SETTING_SIZE_ROW("n_gap_buckets", n_gap_buckets, 0, SASREC_GAP_BUCKETS_MAX),
};
enum { N_ROWS = sizeof(rows) / sizeof(rows[0]) };

static const char *const activation_names[] = {[SASREC_RELU] = "relu", [SASREC_GELU] = "gelu"};
enum { N_ACTIVATIONS = sizeof(activation_names) / sizeof(activation_names[0]) };

void sasrec_settings_default(struct sasrec_settings *settings)
{
    *settings = (struct sasrec_settings){
        .dim = 64,
        .item_dim = 64,
        .n_blocks = 2,
        .n_heads = 1,
        .ffn_dim = 64,
        .history_max = 50,
        .activation = SASREC_RELU,
        .norm_epsilon = 1e-8,
        .input_scale = 1.0,
        .norm_keys = true,
        .has_final_norm = true,
    };
}

static const void *row_place(const struct sasrec_settings *settings, const struct setting *row)
{
    return (const char *)settings + row->offset;
}

/* Value of a size or number row. */
static double row_value(const struct sasrec_settings *settings, const struct setting *row)
{
    if (row->kind == SETTING_SIZE) {
        size_t size = 0;
        memcpy(&size, row_place(settings, row), sizeof(size));
        return (double)size;
    }
    double number = 0.0;
    memcpy(&number, row_place(settings, row), sizeof(number));
    return number;
}

static bool row_bool(const struct sasrec_settings *settings, const struct setting *row)
{
    bool truth = false;
    memcpy(&truth, row_place(settings, row), sizeof(truth));
    return truth;
}

static enum status check(const struct sasrec_settings *settings, enum status code,
                         struct error *err)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        if (rows[i].kind == SETTING_BOOL) {
            continue;
        }
        const double value = row_value(settings, &rows[i]);
        if (!(value >= rows[i].min && value <= rows[i].max)) {
            return error_set_field(err, code, rows[i].name, "%s must be within %g and %g",
                                   rows[i].name, rows[i].min, rows[i].max);
        }
    }
    if ((unsigned)settings->activation >= N_ACTIVATIONS) {
        return error_set_field(err, code, "activation", "unknown activation");
    }
    if (settings->dim % settings->n_heads != 0) {
        return error_set_field(err, code, "n_heads", "hidden_dim %zu is not a multiple of n_heads",
                               settings->dim);
    }
    if (settings->item_dim < settings->dim + (settings->has_bias ? 1 : 0)) {
        return error_set_field(err, code, "dim", "dim must be at least hidden_dim%s",
                               settings->has_bias ? " + 1 (has_bias)" : "");
    }
    if (settings->attend_padding && !settings->positions_right) {
        return error_set_field(err, code, "attend_padding", "attend_padding needs positions_right");
    }
    return STATUS_OK;
}

enum status sasrec_settings_check(const struct sasrec_settings *settings, struct error *err)
{
    return check(settings, STATUS_INVALID, err);
}

static bool read_activation(const struct json_value *value, enum sasrec_activation *out)
{
    for (int a = 0; json_kind(value) == JSON_STRING && a < N_ACTIVATIONS; a++) {
        if (strcmp(json_text(value), activation_names[a]) == 0) {
            *out = (enum sasrec_activation)a;
            return true;
        }
    }
    return false;
}

static bool read_row(const struct json_value *value, const struct setting *row,
                     struct sasrec_settings *settings)
{
    char *place = (char *)settings + row->offset;
    if (row->kind == SETTING_SIZE) {
        uint64_t number = 0;
        if (!json_whole_number(value, &number)) {
            return false;
        }
        const size_t size = (size_t)number;
        memcpy(place, &size, sizeof(size));
    } else if (row->kind == SETTING_NUMBER) {
        if (json_kind(value) != JSON_NUMBER) {
            return false;
        }
        const double number = json_number(value);
        memcpy(place, &number, sizeof(number));
    } else {
        bool truth = false;
        if (!json_bool_value(value, &truth)) {
            return false;
        }
        memcpy(place, &truth, sizeof(truth));
    }
    return true;
}

static bool read_member(const struct json_value *value, struct sasrec_settings *settings)
{
    const char *name = json_name(value);
    if (strcmp(name, "version") == 0) {
        return true;
    }
    if (strcmp(name, "activation") == 0) {
        return read_activation(value, &settings->activation);
    }
    for (size_t i = 0; i < N_ROWS; i++) {
        if (strcmp(name, rows[i].name) == 0) {
            return read_row(value, &rows[i], settings);
        }
    }
    return false;
}

enum status sasrec_settings_read(const struct json_value *object, struct sasrec_settings *settings,
                                 struct error *err)
{
    sasrec_settings_default(settings);
    for (const struct json_value *v = json_first(object); v != NULL; v = json_next(v)) {
        if (!read_member(v, settings)) {
            return error_set_field(err, STATUS_FORMAT, json_name(v),
                                   "model settings: \"%.64s\" is unknown or malformed",
                                   json_name(v));
        }
    }
    return check(settings, STATUS_FORMAT, err);
}

static void write_settings(struct buf *out, const struct sasrec_settings *settings)
{
    struct json_writer json;
    json_writer_init(&json, out);
    json_begin_object(&json, NULL);
    json_int(&json, "version", SASREC_SETTINGS_VERSION);
    for (size_t i = 0; i < N_ROWS; i++) {
        if (rows[i].kind == SETTING_SIZE) {
            json_int(&json, rows[i].name, (int64_t)row_value(settings, &rows[i]));
        } else if (rows[i].kind == SETTING_NUMBER) {
            json_double(&json, rows[i].name, row_value(settings, &rows[i]));
        } else {
            json_bool(&json, rows[i].name, row_bool(settings, &rows[i]));
        }
    }
    json_string(&json, "activation", activation_names[settings->activation]);
    json_end_object(&json);
}

size_t sasrec_gap_bucket(const struct sasrec_settings *settings, int64_t before_ms, int64_t time_ms)
{
    if (settings->n_gap_buckets == 0 || before_ms == EVENT_TIME_UNKNOWN ||
        time_ms == EVENT_TIME_UNKNOWN) {
        return 0;
    }
    /* Clocks that run backwards are no gap. Times before 1970 keep the difference in range. */
    const uint64_t gap_ms = time_ms > before_ms ? (uint64_t)time_ms - (uint64_t)before_ms : 0;
    size_t bucket = 1;
    for (uint64_t left = (1 + gap_ms / 1000) >> 1; left > 0; left >>= 1) {
        bucket++;
    }
    return bucket < settings->n_gap_buckets ? bucket : settings->n_gap_buckets - 1;
}

/* The list of tensors while it is made. */
struct tensor_list {
    struct sasrec_tensor *tensors;
    size_t n;
};

/* cols 0: a vector. prefix and name make "prefix.name". */
static void add_tensor(struct tensor_list *list, const char *prefix, const char *name,
                       const uint64_t shape[2], size_t offset)
{
    assert(list->n < SASREC_TENSORS_MAX);
    struct sasrec_tensor *tensor = &list->tensors[list->n++];
    *tensor = (struct sasrec_tensor){
        .rank = shape[1] > 0 ? 2 : 1,
        .shape = {shape[0], shape[1]},
        .n_values = (size_t)(shape[0] * (shape[1] > 0 ? shape[1] : 1)),
        .offset = offset,
    };
    const int len = snprintf(tensor->name, sizeof(tensor->name), "%s%s%s", prefix,
                             prefix[0] != '\0' ? "." : "", name);
    assert(len > 0 && (size_t)len < sizeof(tensor->name));
    (void)len;
}

static void add_norm(struct tensor_list *list, const char *prefix, size_t dim, size_t offset)
{
    const uint64_t shape[2] = {dim, 0};
    add_tensor(list, prefix, "weight", shape, offset + offsetof(struct sasrec_norm, weight));
    add_tensor(list, prefix, "bias", shape, offset + offsetof(struct sasrec_norm, bias));
}

static void add_linear(struct tensor_list *list, const char *prefix, size_t n_out, size_t n_in,
                       size_t offset)
{
    const uint64_t weight_shape[2] = {n_out, n_in};
    const uint64_t bias_shape[2] = {n_out, 0};
    add_tensor(list, prefix, "weight", weight_shape,
               offset + offsetof(struct sasrec_linear, weight));
    add_tensor(list, prefix, "bias", bias_shape, offset + offsetof(struct sasrec_linear, bias));
}

struct block_part {
    const char *name;
    size_t offset;
};

static void add_block(struct tensor_list *list, const struct sasrec_settings *settings,
                      size_t block)
{
    static const struct block_part parts[] = {
        {"attention.query", offsetof(struct sasrec_block, query)},
        {"attention.key", offsetof(struct sasrec_block, key)},
        {"attention.value", offsetof(struct sasrec_block, value)},
        {"attention.output", offsetof(struct sasrec_block, output)},
    };
    const size_t base =
        offsetof(struct sasrec_weights, blocks) + block * sizeof(struct sasrec_block);
    const size_t dim = settings->dim;
    const unsigned number = (unsigned)block;
    char prefix[PREFIX_BYTES];
    (void)snprintf(prefix, sizeof(prefix), "blocks.%u.attention_norm", number);
    add_norm(list, prefix, dim, base + offsetof(struct sasrec_block, attention_norm));
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        (void)snprintf(prefix, sizeof(prefix), "blocks.%u.%s", number, parts[i].name);
        add_linear(list, prefix, dim, dim, base + parts[i].offset);
    }
    (void)snprintf(prefix, sizeof(prefix), "blocks.%u.ffn_norm", number);
    add_norm(list, prefix, dim, base + offsetof(struct sasrec_block, ffn_norm));
    (void)snprintf(prefix, sizeof(prefix), "blocks.%u.ffn.up", number);
    add_linear(list, prefix, settings->ffn_dim, dim, base + offsetof(struct sasrec_block, up));
    (void)snprintf(prefix, sizeof(prefix), "blocks.%u.ffn.down", number);
    add_linear(list, prefix, dim, settings->ffn_dim, base + offsetof(struct sasrec_block, down));
}

size_t sasrec_tensors(const struct sasrec_settings *settings,
                      struct sasrec_tensor tensors[SASREC_TENSORS_MAX])
{
    struct tensor_list list = {tensors, 0};
    const uint64_t positions[2] = {settings->history_max, settings->dim};
    const uint64_t types[2] = {N_EVENT_TYPES, settings->dim};
    const uint64_t gaps[2] = {settings->n_gap_buckets, settings->dim};
    add_tensor(&list, "", "positions", positions, offsetof(struct sasrec_weights, positions));
    if (settings->has_types) {
        add_tensor(&list, "", "types", types, offsetof(struct sasrec_weights, types));
    }
    if (settings->n_gap_buckets > 0) {
        add_tensor(&list, "", "gaps", gaps, offsetof(struct sasrec_weights, gaps));
    }
    if (settings->has_embedding_norm) {
        add_norm(&list, "embedding_norm", settings->dim,
                 offsetof(struct sasrec_weights, embedding_norm));
    }
    for (size_t block = 0; block < settings->n_blocks; block++) {
        add_block(&list, settings, block);
    }
    if (settings->has_final_norm) {
        add_norm(&list, "final_norm", settings->dim, offsetof(struct sasrec_weights, final_norm));
    }
    return list.n;
}

const float **sasrec_tensor_slot(struct sasrec_weights *weights, const struct sasrec_tensor *tensor)
{
    void *slot = (char *)weights + tensor->offset;
    return slot;
}

const float *sasrec_tensor_values(const struct sasrec_weights *weights,
                                  const struct sasrec_tensor *tensor)
{
    const float *values = NULL;
    memcpy(&values, (const char *)weights + tensor->offset, sizeof(values));
    return values;
}

static enum status check_weights(const struct sasrec_weights *weights,
                                 const struct sasrec_tensor *tensors, size_t n, struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        const float *values = sasrec_tensor_values(weights, &tensors[i]);
        if (values == NULL) {
            return error_set_field(err, STATUS_INVALID, tensors[i].name, "weight %s is missing",
                                   tensors[i].name);
        }
        const size_t bad = floats_first_not_finite(values, tensors[i].n_values);
        if (bad < tensors[i].n_values) {
            return error_set_field(err, STATUS_INVALID, tensors[i].name,
                                   "weight %s: value %zu is not finite", tensors[i].name, bad);
        }
    }
    return STATUS_OK;
}

static enum status write_file(const char *path, const struct sasrec_weights *weights,
                              const struct sasrec_tensor *tensors, size_t n, const char *settings,
                              struct error *err)
{
    struct tensor_to_write to_write[SASREC_TENSORS_MAX];
    for (size_t i = 0; i < n; i++) {
        to_write[i] = (struct tensor_to_write){
            .name = tensors[i].name,
            .type = TENSOR_F32,
            .rank = tensors[i].rank,
            .shape = {tensors[i].shape[0], tensors[i].shape[1]},
            .data = sasrec_tensor_values(weights, &tensors[i]),
        };
    }
    const struct metadata_entry metadata[] = {
        {USER_MODEL_METADATA_ARCHITECTURE, SASREC_ARCHITECTURE},
        {USER_MODEL_METADATA_SETTINGS, settings},
    };
    return safetensors_write(path, to_write, n, metadata, 2, err);
}

enum status sasrec_model_write(const char *path, const struct sasrec_settings *settings,
                               const struct sasrec_weights *weights, struct error *err)
{
    struct sasrec_tensor tensors[SASREC_TENSORS_MAX];
    enum status status = check(settings, STATUS_INVALID, err);
    if (status != STATUS_OK) {
        return status;
    }
    const size_t n = sasrec_tensors(settings, tensors);
    status = check_weights(weights, tensors, n, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct buf text;
    buf_init(&text, SETTINGS_BYTES_MAX);
    write_settings(&text, settings);
    if (text.status != STATUS_OK) {
        status = error_set(err, text.status, "model settings: %s", status_text(text.status));
    } else {
        status = write_file(path, weights, tensors, n, buf_text(&text), err);
    }
    buf_free(&text);
    return status;
}
