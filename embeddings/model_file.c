#include "embeddings/model_file.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/buf.h"
#include "base/json_write.h"
#include "base/vectors.h"
#include "embeddings/user_model_internal.h"

/* A model's settings are a plain struct; one table of its members (name, key, kind, range) is what
 * checks, reads and writes them, so that the three cannot drift apart. Likewise one list of tensors
 * with names and shapes serves the writer, the reader and the trainer.
 *
 * Rejected: a generic tree of settings kept beside the struct; the forward pass would look up names
 * where it now reads a member. */

enum { SETTINGS_BYTES_MAX = 4096 };

static size_t size_at(const void *settings, const struct setting *setting)
{
    size_t value = 0;
    memcpy(&value, (const char *)settings + setting->offset, sizeof(value));
    return value;
}

static double real_at(const void *settings, const struct setting *setting)
{
    double value = 0.0;
    memcpy(&value, (const char *)settings + setting->offset, sizeof(value));
    return value;
}

static bool flag_at(const void *settings, const struct setting *setting)
{
    bool value = false;
    memcpy(&value, (const char *)settings + setting->offset, sizeof(value));
    return value;
}

enum status model_settings_check(const struct model_format *format, const void *settings,
                                 enum status code, struct error *err)
{
    for (size_t i = 0; i < format->n_settings; i++) {
        const struct setting *setting = &format->settings[i];
        if (setting->kind == SETTING_FLAG) {
            continue;
        }
        const double value = setting->kind == SETTING_SIZE ? (double)size_at(settings, setting)
                                                           : real_at(settings, setting);
        if (!(value >= setting->min && value <= setting->max)) { /* a NaN is refused too */
            const char *name = code == STATUS_INVALID ? setting->name : setting->key;
            return error_set_field(err, code, name, "%s must be within %g and %g", name,
                                   setting->min, setting->max);
        }
    }
    return STATUS_OK;
}

static bool read_setting(const struct json_value *value, const struct setting *setting,
                         void *settings)
{
    char *member = (char *)settings + setting->offset;
    uint64_t whole = 0;
    bool flag = false;
    double real = 0.0;
    switch (setting->kind) {
    case SETTING_SIZE:
        if (!json_whole_number(value, &whole)) {
            return false;
        }
        memcpy(member, &(size_t){whole}, sizeof(size_t));
        return true;
    case SETTING_REAL:
        if (json_kind(value) != JSON_NUMBER) {
            return false;
        }
        real = json_number(value);
        memcpy(member, &real, sizeof(real));
        return true;
    case SETTING_FLAG:
        if (!json_bool_value(value, &flag)) {
            return false;
        }
        memcpy(member, &flag, sizeof(flag));
        return true;
    }
    return false;
}

enum status model_settings_read(const struct model_format *format, const struct json_value *object,
                                void *settings, struct error *err)
{
    for (const struct json_value *v = json_first(object); v != NULL; v = json_next(v)) {
        const char *key = json_name(v);
        bool is_good = strcmp(key, "version") == 0;
        for (size_t i = 0; i < format->n_settings && !is_good; i++) {
            is_good = strcmp(key, format->settings[i].key) == 0 &&
                      read_setting(v, &format->settings[i], settings);
        }
        if (!is_good) {
            return error_set_field(err, STATUS_FORMAT, key,
                                   "model settings: \"%.64s\" is unknown or malformed", key);
        }
    }
    return STATUS_OK;
}

size_t model_tensor_values(const struct model_tensor *tensor)
{
    return tensor->rank == 1 ? tensor->shape[0] : tensor->shape[0] * tensor->shape[1];
}

static void tensor_name(struct model_tensor *tensor, const char *name)
{
    const size_t len = strlen(name);
    assert(len < sizeof(tensor->name));
    memcpy(tensor->name, name, len + 1);
}

void model_tensor_vector(struct model_tensor *tensor, const char *name, size_t n)
{
    *tensor = (struct model_tensor){.rank = 1, .shape = {n, 0}};
    tensor_name(tensor, name);
}

void model_tensor_matrix(struct model_tensor *tensor, const char *name, size_t n_rows,
                         size_t n_columns)
{
    *tensor = (struct model_tensor){.rank = 2, .shape = {n_rows, n_columns}};
    tensor_name(tensor, name);
}

enum status model_tensor_read(const struct safetensors *file, const struct model_tensor *tensor,
                              float *out, struct error *err)
{
    const uint64_t shape[2] = {tensor->shape[0], tensor->shape[1]};
    return safetensors_read_f32(file, tensor->name, shape, tensor->rank, out, err);
}

static void write_settings(struct buf *out, const struct model_format *format, const void *settings)
{
    struct json_writer json;
    json_writer_init(&json, out);
    json_begin_object(&json, NULL);
    json_int(&json, "version", (int64_t)format->settings_version);
    for (size_t i = 0; i < format->n_settings; i++) {
        const struct setting *setting = &format->settings[i];
        switch (setting->kind) {
        case SETTING_SIZE:
            json_int(&json, setting->key, (int64_t)size_at(settings, setting));
            break;
        case SETTING_REAL:
            json_double(&json, setting->key, real_at(settings, setting));
            break;
        case SETTING_FLAG:
            json_bool(&json, setting->key, flag_at(settings, setting));
            break;
        }
    }
    json_end_object(&json);
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
enum status model_file_write(const char *path, const struct model_format *format,
                             const void *settings, const struct model_tensor *tensors,
                             const float *const *data, size_t n, struct error *err)
{
    struct tensor_to_write to_write[MODEL_TENSORS_MAX];
    assert(n <= MODEL_TENSORS_MAX);
    for (size_t i = 0; i < n; i++) {
        const size_t n_values = model_tensor_values(&tensors[i]);
        const size_t bad = floats_first_not_finite(data[i], n_values);
        if (bad < n_values) {
            return error_set_field(err, STATUS_INVALID, tensors[i].name,
                                   "weight %zu of %s is not finite", bad, tensors[i].name);
        }
        to_write[i] = (struct tensor_to_write){.name = tensors[i].name,
                                               .type = TENSOR_F32,
                                               .rank = tensors[i].rank,
                                               .shape = {tensors[i].shape[0], tensors[i].shape[1]},
                                               .data = data[i]};
    }
    struct buf text;
    buf_init(&text, SETTINGS_BYTES_MAX);
    write_settings(&text, format, settings);
    enum status status = text.status;
    if (status != STATUS_OK) {
        error_set(err, status, "model settings: %s", status_text(status));
    } else {
        const struct metadata_entry metadata[] = {
            {USER_MODEL_METADATA_ARCHITECTURE, format->architecture},
            {USER_MODEL_METADATA_SETTINGS, buf_text(&text)},
        };
        status = safetensors_write(path, to_write, n, metadata, 2, err);
    }
    buf_free(&text);
    return status;
}
