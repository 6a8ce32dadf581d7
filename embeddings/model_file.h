#ifndef AISLE_EMBEDDINGS_MODEL_FILE_H
#define AISLE_EMBEDDINGS_MODEL_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "embeddings/json_read.h"
#include "embeddings/safetensors.h"

/* Settings and weights of a user model's file, for architectures that describe theirs in tables.
 * Shared by the files of this folder and its trainers only. */

enum setting_kind {
    SETTING_SIZE, /* size_t, a whole number in JSON */
    SETTING_REAL, /* double */
    SETTING_FLAG, /* bool */
};
struct setting {
    const char *name; /* of the struct's member, for errors of callers in C */
    const char *key;  /* in JSON */
    enum setting_kind kind;
    size_t offset;   /* of the member */
    double min, max; /* both allowed; not for flags */
};
struct model_format {
    const char *architecture;
    uint64_t settings_version;
    const struct setting *settings;
    size_t n_settings;
};

/* Ranges by the table; code is INVALID for callers (naming the member), FORMAT for files (naming
 * the key). Numbers that are not finite are refused. */
enum status model_settings_check(const struct model_format *format, const void *settings,
                                 enum status code, struct error *err) STATUS_CHECKED;
/* Members of a JSON object over defaults that are there already; "version" is passed over (checked
 * by the caller), unknown members are refused, as they would be ignored. FORMAT names the key. */
enum status model_settings_read(const struct model_format *format, const struct json_value *object,
                                void *settings, struct error *err) STATUS_CHECKED;

enum { MODEL_TENSOR_NAME_BYTES = 48 };
struct model_tensor {
    char name[MODEL_TENSOR_NAME_BYTES];
    size_t rank; /* 1: shape[0] is the length; 2: rows and columns */
    size_t shape[2];
};
size_t model_tensor_values(const struct model_tensor *tensor);
void model_tensor_vector(struct model_tensor *tensor, const char *name, size_t n);
void model_tensor_matrix(struct model_tensor *tensor, const char *name, size_t n_rows,
                         size_t n_columns);
/* As safetensors_read_f32. */
enum status model_tensor_read(const struct safetensors *file, const struct model_tensor *tensor,
                              float *out, struct error *err) STATUS_CHECKED;
/* Writes the file atomically; data[i] are the values of tensors[i] (n ≤ MODEL_TENSORS_MAX,
 * asserted). INVALID: a value that is not finite, its tensor named; PERMISSION, IO, NOMEM. */
enum { MODEL_TENSORS_MAX = 32 };
enum status model_file_write(const char *path, const struct model_format *format,
                             const void *settings, const struct model_tensor *tensors,
                             const float *const *data, size_t n, struct error *err) STATUS_CHECKED;

#endif
