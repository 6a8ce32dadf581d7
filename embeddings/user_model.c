#include "embeddings/user_model.h"

#include <assert.h>
#include <float.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/user_model_internal.h"

/* Opens a model file, finds its architecture in a table and forwards to it. The file names the
 * architecture, not the caller: a release that carries another model needs no other configuration.
 * Checks that every architecture needs (settings' version, dimension against the item vectors)
 * stand here once. */

static const struct user_model_architecture *const architectures[] = {
    &user_model_decay, &user_model_sasrec, &user_model_gru4rec, &user_model_attention};

static const struct json_limits settings_limits = {.n_values_max = 1024, .depth_max = 8};

struct user_model {
    const struct user_model_architecture *architecture;
    struct safetensors *file;
    struct json_doc *settings;
    const char *settings_json; /* in file */
    struct vectors items;      /* data borrowed */
    void *parameters;
    size_t history_max;
};

struct user_model_workspace {
    const struct user_model *model;
    size_t n_users_max;
    float *scratch;
};

static enum status find_architecture(struct user_model *model, struct error *err)
{
    const char *name = safetensors_metadata(model->file, USER_MODEL_METADATA_ARCHITECTURE);
    model->settings_json = safetensors_metadata(model->file, USER_MODEL_METADATA_SETTINGS);
    if (name == NULL || model->settings_json == NULL) {
        return error_set(err, STATUS_FORMAT, "not a user model: no metadata %s and %s",
                         USER_MODEL_METADATA_ARCHITECTURE, USER_MODEL_METADATA_SETTINGS);
    }
    for (size_t i = 0; i < sizeof(architectures) / sizeof(architectures[0]); i++) {
        if (strcmp(architectures[i]->name, name) == 0) {
            model->architecture = architectures[i];
            return STATUS_OK;
        }
    }
    return error_set(err, STATUS_UNSUPPORTED, "unknown model architecture \"%.64s\"", name);
}

static enum status read_settings(struct user_model *model, struct error *err)
{
    const enum status status = json_doc_open(model->settings_json, strlen(model->settings_json),
                                             &settings_limits, &model->settings, err);
    if (status != STATUS_OK) {
        error_prefix(err, "model settings: ");
        return status == STATUS_LIMIT ? STATUS_FORMAT : status;
    }
    const struct json_value *settings = json_root(model->settings);
    const struct json_value *version_value = json_member(settings, "version");
    const struct json_value *dim_value = json_member(settings, "dim");
    uint64_t version = 0;
    uint64_t dim = 0;
    if (json_kind(settings) != JSON_OBJECT || version_value == NULL || dim_value == NULL ||
        !json_whole_number(version_value, &version) || version == 0 ||
        !json_whole_number(dim_value, &dim)) {
        return error_set(err, STATUS_FORMAT, "model settings: no whole numbers version and dim");
    }
    if (version > model->architecture->settings_version) {
        return error_set(err, STATUS_UNSUPPORTED,
                         "settings of \"%s\" have version %llu, this program knows up to %llu",
                         model->architecture->name, (unsigned long long)version,
                         (unsigned long long)model->architecture->settings_version);
    }
    if (dim != model->items.dim) {
        return error_set(err, STATUS_MISMATCH,
                         "the model has dimension %llu, the item vectors have %zu",
                         (unsigned long long)dim, model->items.dim);
    }
    return STATUS_OK;
}

static enum status open_parts(struct user_model *model, const char *path, struct error *err)
{
    enum status status = safetensors_open(path, &model->file, err);
    if (status != STATUS_OK) {
        return status; /* names the path itself */
    }
    status = find_architecture(model, err);
    if (status == STATUS_OK) {
        status = read_settings(model, err);
    }
    if (status == STATUS_OK) {
        const struct user_model_source source = {
            .file = model->file, .settings = json_root(model->settings), .items = &model->items};
        status = model->architecture->open(&source, &model->parameters, &model->history_max, err);
    }
    if (status != STATUS_OK) {
        error_prefix(err, "%s: ", path);
    }
    return status;
}

enum status user_model_open(const char *path, const struct vectors *items, struct user_model **out,
                            struct error *err)
{
    *out = NULL;
    struct user_model *model = mem_calloc(1, sizeof(*model));
    if (model == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a user model");
    }
    model->items = *items;
    const enum status status = open_parts(model, path, err);
    if (status != STATUS_OK) {
        user_model_close(model);
        return status;
    }
    *out = model;
    return STATUS_OK;
}

void user_model_close(struct user_model *model)
{
    if (model == NULL) {
        return;
    }
    if (model->parameters != NULL) {
        model->architecture->close(model->parameters);
    }
    json_doc_close(model->settings);
    safetensors_close(model->file);
    mem_free(model);
}

struct user_model_info user_model_info(const struct user_model *model)
{
    return (struct user_model_info){
        .architecture = model->architecture->name,
        .dim = model->items.dim,
        .history_max = model->history_max,
        .settings_json = model->settings_json,
    };
}

enum status user_model_workspace_open(const struct user_model *model, size_t n_users_max,
                                      struct user_model_workspace **out, struct error *err)
{
    *out = NULL;
    size_t n_floats = 0;
    if (!model->architecture->workspace_floats(model->parameters, model->items.dim, n_users_max,
                                               &n_floats)) {
        return error_set(err, STATUS_LIMIT, "a batch of %zu users is too large", n_users_max);
    }
    struct user_model_workspace *workspace = mem_calloc(1, sizeof(*workspace));
    if (workspace == NULL) {
        goto fail_workspace;
    }
    workspace->scratch = mem_alloc_vectors(n_floats, sizeof(float));
    if (workspace->scratch == NULL) {
        goto fail_scratch;
    }
    workspace->model = model;
    workspace->n_users_max = n_users_max;
    *out = workspace;
    return STATUS_OK;

fail_scratch:
    mem_free(workspace);
fail_workspace:
    return error_set(err, STATUS_NOMEM, "out of memory for a workspace of %zu users", n_users_max);
}

void user_model_workspace_close(struct user_model_workspace *workspace)
{
    if (workspace != NULL) {
        mem_free(workspace->scratch);
        mem_free(workspace);
    }
}

void user_model_embed(const struct user_model *model, struct user_model_workspace *workspace,
                      const struct history_batch *batch, float *out)
{
    assert(workspace->model == model);
    assert(batch->n_users <= workspace->n_users_max);
    model->architecture->embed(model->parameters, &model->items, workspace->scratch, batch, out);
}

size_t user_model_state_floats(const struct user_model *model)
{
    return model->architecture->state_floats != NULL
               ? model->architecture->state_floats(model->parameters)
               : 0;
}

void user_model_advance(const struct user_model *model, struct user_model_workspace *workspace,
                        const struct history_event *event, float *state, float *out)
{
    assert(workspace->model == model);
    assert(model->architecture->advance != NULL);
    model->architecture->advance(model->parameters, &model->items, workspace->scratch, event, state,
                                 out);
}

void user_vector_write(const struct user_vector_shape *shape, const float *hidden, float *out)
{
    float scale = 1.0F;
    if (shape->output_scale > 0.0) {
        const float norm = vector_norm(hidden, shape->dim);
        scale = norm < FLT_MIN ? 0.0F : (float)shape->output_scale / norm;
    }
    for (size_t c = 0; c < shape->dim; c++) {
        out[c] = hidden[c] * scale;
    }
    memset(out + shape->dim, 0, (shape->item_dim - shape->dim) * sizeof(*out));
    if (shape->has_bias) {
        out[shape->dim] = 1.0F;
    }
}
