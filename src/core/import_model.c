#include "core/import_model.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/json_write.h"
#include "core/model_folder.h"
#include "core/model_folder_write.h"
#include "embeddings/npy.h"
#include "embeddings/user_model.h"

/* Weights trained elsewhere become a model folder in four steps: read ids and tensors by the
 * layout, write the folder beside its place, open it the way `aisle build` will, rename it. The
 * third step is what turns a fault of ours, or settings that the forward pass refuses, into an
 * error now instead of a folder that does not build. */

enum { REPORT_MAX_BYTES = 1 << 20 };

struct importing {
    const struct import_model_config *config;
    struct import_model_result *result;
    struct model_folder_writer writer;
    struct idmap *ids;
    struct safetensors *weights;
    struct safetensors *vectors_file;
    struct npy npy;
    struct vectors vectors; /* of config->vectors_path */
    struct layout_model model;
    char weights_sha256[SHA256_HEX_BYTES];
    char vectors_sha256[SHA256_HEX_BYTES]; /* "" without */
};

/* Puts the file before a message that does not begin with it already. */
static enum status blame(enum status status, const char *path, struct error *err)
{
    if (status != STATUS_OK && err != NULL && strstr(err->message, path) == NULL) {
        error_prefix(err, "%.120s: ", path);
    }
    return status;
}

static enum status check_config(struct importing *import, struct error *err)
{
    const struct import_model_config *config = import->config;
    if (config->layout == NULL || config->weights_path == NULL || config->item_ids_path == NULL ||
        config->out_dir == NULL) {
        return error_set(err, STATUS_INVALID,
                         "layout, weights, item ids and an output folder must be given");
    }
    return model_folder_writer_check(&import->writer, config->out_dir, err);
}

static enum status read_ids(struct importing *import, struct error *err)
{
    const char *path = import->config->item_ids_path;
    const enum status status = model_ids_read(path, &import->ids, err);
    if (status == STATUS_OK && idmap_size(import->ids) == 0) {
        return error_set(err, STATUS_INVALID, "%.120s has no item ids", path);
    }
    return blame(status, path, err);
}

static bool ends_with(const char *text, const char *end)
{
    const size_t len = strlen(text);
    const size_t end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static enum status open_vectors(struct importing *import, struct error *err)
{
    const char *path = import->config->vectors_path;
    uint64_t n_bytes = 0;
    if (path == NULL) {
        return STATUS_OK;
    }
    enum status status = STATUS_OK;
    if (ends_with(path, ".npy")) {
        status = npy_open(path, &import->npy, err);
        import->vectors = import->npy.vectors;
    } else {
        status = safetensors_open(path, &import->vectors_file, err);
        if (status == STATUS_OK) {
            status = safetensors_vectors(import->vectors_file, MODEL_TENSOR_VECTORS,
                                         &import->vectors, err);
        }
    }
    if (status == STATUS_OK) {
        status = hash_file_sha256(path, import->vectors_sha256, &n_bytes, err);
    }
    return blame(status, path, err);
}

static enum status read_weights(struct importing *import, struct error *err)
{
    const struct import_model_config *config = import->config;
    const struct layout_config layout = {
        .layout = config->layout,
        .n_items = idmap_size(import->ids),
        .n_heads = config->n_heads,
        .activation = config->activation,
        .history_max = config->history_max,
        .vectors = config->vectors_path != NULL ? &import->vectors : NULL,
    };
    struct error fault = {.message = ""};
    uint64_t n_bytes = 0;
    enum status status =
        hash_file_sha256(config->weights_path, import->weights_sha256, &n_bytes, &fault);
    if (status == STATUS_OK) {
        status = safetensors_open(config->weights_path, &import->weights, &fault);
    }
    if (status == STATUS_OK) {
        status = layout_read(import->weights, &layout, &import->model, &fault);
    }
    if (status != STATUS_OK && fault.field[0] != '-') { /* a flag at fault is not the file's */
        (void)blame(status, config->weights_path, &fault);
    }
    if (status != STATUS_OK && err != NULL) {
        *err = fault;
    }
    return status;
}

/* ---- writing ---- */

static void encode_report(const struct importing *import, struct buf *text)
{
    const struct import_model_config *config = import->config;
    struct json_writer json;
    json_writer_init(&json, text);
    json_begin_object(&json, NULL);
    json_string(&json, "imported_from", config->layout);
    json_string(&json, "weights", config->weights_path);
    json_string(&json, "weights_sha256", import->weights_sha256);
    if (config->vectors_path != NULL) {
        json_string(&json, "vectors", config->vectors_path);
        json_string(&json, "vectors_sha256", import->vectors_sha256);
    }
    json_int(&json, "n_items", (int64_t)import->model.vectors.n);
    json_int(&json, "dim", (int64_t)import->model.vectors.dim);
    if (import->model.notes[0] != '\0') {
        json_string(&json, "notes", import->model.notes);
    }
    json_end_object(&json);
    buf_append_char(text, '\n');
}

static enum status write_report(struct importing *import, struct error *err)
{
    struct buf text;
    buf_init(&text, REPORT_MAX_BYTES);
    encode_report(import, &text);
    const enum status status =
        model_folder_writer_text(&import->writer, MODEL_FILE_TRAINING, &text, err);
    buf_free(&text);
    return status;
}

static enum status write_weights(struct importing *import, struct error *err)
{
    char path[PATH_BYTES_MAX];
    const enum status status =
        model_folder_writer_path(&import->writer, MODEL_FILE_WEIGHTS, path, err);
    return status == STATUS_OK ? layout_model_write(path, &import->model, err) : status;
}

static enum status write_folder(struct importing *import, struct error *err)
{
    enum status status = model_folder_writer_begin(&import->writer, err);
    if (status == STATUS_OK) {
        status = model_folder_writer_ids(&import->writer, import->ids, err);
    }
    if (status == STATUS_OK) {
        status = model_folder_writer_vectors(&import->writer, &import->model.vectors, NULL, err);
    }
    if (status == STATUS_OK) {
        status = write_weights(import, err);
    }
    return status == STATUS_OK ? write_report(import, err) : status;
}

/* As a build will open it. */
static enum status open_folder(struct importing *import, struct error *err)
{
    char path[PATH_BYTES_MAX];
    struct model_folder folder;
    struct user_model *model = NULL;
    struct import_model_result *result = import->result;
    enum status status = model_folder_open(import->writer.temporary, &folder, err);
    if (status == STATUS_OK) {
        status = model_folder_writer_path(&import->writer, MODEL_FILE_WEIGHTS, path, err);
    }
    if (status == STATUS_OK) {
        status = user_model_open(path, &folder.vectors, &model, err);
    }
    if (status == STATUS_OK) {
        const struct user_model_info info = user_model_info(model);
        result->n_items = folder.vectors.n;
        result->dim = folder.vectors.dim;
        result->history_max = info.history_max;
        result->n_unused = import->model.n_unused;
        (void)snprintf(result->architecture, sizeof(result->architecture), "%s", info.architecture);
        memcpy(result->notes, import->model.notes, sizeof(result->notes));
        user_model_close(model);
    }
    model_folder_close(&folder);
    return status;
}

static enum status commit(struct importing *import, struct error *err)
{
    return model_folder_writer_commit(&import->writer, err);
}

typedef enum status import_step(struct importing *import, struct error *err);

static import_step *const STEPS[] = {
    check_config, read_ids, open_vectors, read_weights, write_folder, open_folder, commit,
};

enum status import_model(const struct import_model_config *config,
                         struct import_model_result *result, struct error *err)
{
    struct importing import = {.config = config, .result = result};
    enum status status = STATUS_OK;
    *result = (struct import_model_result){.n_items = 0};
    for (size_t i = 0; i < sizeof(STEPS) / sizeof(STEPS[0]) && status == STATUS_OK; i++) {
        status = STEPS[i](&import, err);
    }
    model_folder_writer_abandon(&import.writer);
    if (status != STATUS_OK) {
        *result = (struct import_model_result){.n_items = 0};
    }
    layout_model_free(&import.model);
    safetensors_close(import.weights);
    safetensors_close(import.vectors_file);
    npy_close(&import.npy);
    idmap_close(import.ids);
    return status;
}
