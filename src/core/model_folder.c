#include "core/model_folder.h"

#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/alloc.h"
#include "base/parse.h"
#include "embeddings/neighbors.h"
#include "embeddings/user_model.h"

/* Reads what a trainer left, ours or another one's. All of it is checked here, before the hours
 * that building an index may take: ids against vectors, weights against vectors, numbers for NaN.
 */

enum status model_ids_read(const char *path, struct idmap **ids, struct error *err)
{
    struct line_reader *reader = NULL;
    const char *line = NULL;
    size_t len = 0;
    uint32_t row = 0;
    enum status status = idmap_open(0, ids, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = line_reader_open(path, ID_BYTES_MAX, &reader, err);
    if (status != STATUS_OK) {
        return status;
    }
    for (;;) {
        status = line_reader_next(reader, &line, &len, err);
        if (status != STATUS_OK) {
            break;
        }
        unsigned long long number = (unsigned long long)line_reader_number(reader);
        if (!id_valid(line, len)) {
            status = error_set(err, STATUS_FORMAT, "line %llu is no item id", number);
            break;
        }
        status = idmap_add(*ids, line, len, &row);
        if (status == STATUS_EXISTS) {
            status = error_set(err, STATUS_FORMAT, "item %.64s stands in lines %llu and %llu", line,
                               (unsigned long long)row + 1, number);
        } else if (status != STATUS_OK) {
            (void)error_set(err, status, "line %llu: %s", number, status_text(status));
        }
        if (status != STATUS_OK) {
            break;
        }
    }
    line_reader_close(reader);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static enum status read_ids(const char *path, struct model_folder *folder, struct error *err)
{
    return model_ids_read(path, &folder->ids, err);
}

static enum status check_ids(const struct model_folder *folder, struct error *err)
{
    size_t n_ids = idmap_size(folder->ids);
    if (n_ids != folder->vectors.n) {
        return error_set(err, STATUS_MISMATCH, "%zu vectors, but %s has %zu ids", folder->vectors.n,
                         MODEL_FILE_ITEM_IDS, n_ids);
    }
    return STATUS_OK;
}

static enum status read_counts(struct model_folder *folder, struct error *err)
{
    const uint64_t shape[] = {folder->vectors.n};
    if (safetensors_find(folder->file, MODEL_TENSOR_COUNTS) == NULL) {
        return STATUS_OK;
    }
    folder->counts = mem_alloc_array(folder->vectors.n, sizeof(*folder->counts));
    if (folder->counts == NULL) {
        return error_set(err, STATUS_NOMEM, "counts of %zu items", folder->vectors.n);
    }
    enum status status =
        safetensors_read_f32(folder->file, MODEL_TENSOR_COUNTS, shape, 1, folder->counts, err);
    for (size_t i = 0; i < folder->vectors.n && status == STATUS_OK; i++) {
        if (folder->counts[i] < 0.0F) {
            status =
                error_set(err, STATUS_INVALID, "%s: value %zu is negative", MODEL_TENSOR_COUNTS, i);
        }
    }
    return status;
}

static enum status read_vectors(const char *path, struct model_folder *folder, struct error *err)
{
    enum status status = safetensors_open(path, &folder->file, err);
    if (status == STATUS_OK) {
        status = safetensors_vectors(folder->file, MODEL_TENSOR_VECTORS, &folder->vectors, err);
    }
    if (status == STATUS_OK) {
        status = check_ids(folder, err);
    }
    return status == STATUS_OK ? read_counts(folder, err) : status;
}

static enum status read_npy(const char *path, struct model_folder *folder, struct error *err)
{
    enum status status = npy_open(path, &folder->npy, err);
    if (status != STATUS_OK) {
        return status;
    }
    folder->vectors = folder->npy.vectors;
    return check_ids(folder, err);
}

static enum status read_weights(const char *path, struct model_folder *folder, struct error *err)
{
    struct user_model *model = NULL;
    enum status status = user_model_open(path, &folder->vectors, &model, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct user_model_info info = user_model_info(model);
    (void)snprintf(folder->architecture, sizeof(folder->architecture), "%s", info.architecture);
    folder->settings_json = mem_strdup(info.settings_json);
    user_model_close(model);
    return folder->settings_json != NULL
               ? STATUS_OK
               : error_set(err, STATUS_NOMEM, "settings of the user model");
}

/* The JSON library's text as one of ours; NULL: no memory. */
static char *print_object(const cJSON *object)
{
    char *printed = cJSON_PrintUnformatted(object);
    if (printed == NULL) {
        return NULL;
    }
    char *copy = mem_strdup(printed);
    cJSON_free(printed);
    return copy;
}

static enum status parse_training(struct buf *text, struct model_folder *folder, struct error *err)
{
    cJSON *tree = cJSON_ParseWithLength(buf_text(text), text->len);
    if (!cJSON_IsObject(tree)) {
        cJSON_Delete(tree);
        return error_set(err, STATUS_FORMAT, "not a JSON object");
    }
    const cJSON *quality = cJSON_GetObjectItemCaseSensitive(tree, "quality");
    folder->training_json = print_object(tree);
    bool failed = folder->training_json == NULL;
    if (cJSON_IsObject(quality)) {
        folder->quality_json = print_object(quality);
        failed = failed || folder->quality_json == NULL;
    }
    cJSON_Delete(tree);
    return failed ? error_set(err, STATUS_NOMEM, "no memory") : STATUS_OK;
}

static enum status read_training(const char *path, struct model_folder *folder, struct error *err)
{
    struct buf text;
    buf_init(&text, MODEL_TRAINING_MAX_BYTES);
    enum status status = file_read(path, &text, err);
    if (status == STATUS_OK) {
        status = parse_training(&text, folder, err);
    }
    buf_free(&text);
    return status;
}

/* Looked at only: the build copies the file with the rows of its release. */
static enum status read_neighbors(const char *path, struct model_folder *folder, struct error *err)
{
    struct neighbors *neighbors = NULL;
    enum status status = neighbors_open(path, folder->vectors.n, &neighbors, err);
    folder->has_neighbors = status == STATUS_OK;
    neighbors_close(neighbors);
    return status;
}

struct model_file {
    const char *name;
    enum status (*read)(const char *path, struct model_folder *folder, struct error *err);
    bool is_optional;
};

static bool folder_has(const char *dir, const char *name)
{
    char path[PATH_BYTES_MAX];
    return path_join(path, dir, name, NULL) == STATUS_OK && file_exists(path);
}

enum status model_folder_open(const char *dir, struct model_folder *out, struct error *err)
{
    *out = (struct model_folder){.ids = NULL};
    bool has_npy = !folder_has(dir, MODEL_FILE_VECTORS) && folder_has(dir, MODEL_FILE_VECTORS_NPY);
    const struct model_file files[] = {
        {MODEL_FILE_ITEM_IDS, read_ids, false},
        {has_npy ? MODEL_FILE_VECTORS_NPY : MODEL_FILE_VECTORS, has_npy ? read_npy : read_vectors,
         false},
        {MODEL_FILE_WEIGHTS, read_weights, false},
        {MODEL_FILE_NEIGHBORS, read_neighbors, true},
        {MODEL_FILE_TRAINING, read_training, true},
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[PATH_BYTES_MAX];
        enum status status = path_join(path, dir, files[i].name, err);
        if (status == STATUS_OK && files[i].is_optional && !file_exists(path)) {
            continue;
        }
        if (status == STATUS_OK) {
            status = files[i].read(path, out, err);
        }
        if (status != STATUS_OK) {
            if (err != NULL && strstr(err->message, files[i].name) != err->message) {
                error_prefix(err, "%s: ", files[i].name);
            }
            return status;
        }
    }
    return STATUS_OK;
}

void model_folder_close(struct model_folder *folder)
{
    npy_close(&folder->npy);
    safetensors_close(folder->file);
    idmap_close(folder->ids);
    mem_free(folder->counts);
    mem_free(folder->settings_json);
    mem_free(folder->training_json);
    mem_free(folder->quality_json);
    *folder = (struct model_folder){.ids = NULL};
}

bool model_folder_is_one(const char *dir)
{
    return folder_has(dir, MODEL_FILE_TRAINING) && folder_has(dir, MODEL_FILE_WEIGHTS);
}
