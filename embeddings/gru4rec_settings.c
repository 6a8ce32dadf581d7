#include "embeddings/gru4rec.h"

#include <stdio.h>

#include "base/vectors.h"
#include "embeddings/gru4rec_internal.h"

/* Settings and file of gru4rec: one table of settings, one list of tensors. */

#define SCALE_MAX 1e6

#define SETTING(member, json_key, setting_kind, least, most)                                       \
    {                                                                                              \
        .name = #member, .key = (json_key), .kind = (setting_kind),                                \
        .offset = offsetof(struct gru4rec_settings, member), .min = (least), .max = (most)         \
    }

/* "dim" of a file is always the item vectors' dimension. */
static const struct setting settings_table[] = {
    SETTING(item_dim, "dim", SETTING_SIZE, VECTOR_DIM_MIN, VECTOR_DIM_MAX),
    SETTING(dim, "input_dim", SETTING_SIZE, 1, GRU4REC_DIM_MAX),
    SETTING(hidden_dim, "hidden_dim", SETTING_SIZE, 1, GRU4REC_DIM_MAX),
    SETTING(n_layers, "n_layers", SETTING_SIZE, 1, GRU4REC_LAYERS_MAX),
    SETTING(history_max, "history_max", SETTING_SIZE, 1, GRU4REC_HISTORY_MAX),
    SETTING(input_scale, "input_scale", SETTING_REAL, -SCALE_MAX, SCALE_MAX),
    SETTING(output_scale, "output_scale", SETTING_REAL, 0, SCALE_MAX),
    SETTING(has_output, "has_output", SETTING_FLAG, 0, 1),
    SETTING(has_bias, "has_bias", SETTING_FLAG, 0, 1),
};

const struct model_format gru4rec_format = {
    .architecture = "gru4rec",
    .settings_version = 1,
    .settings = settings_table,
    .n_settings = sizeof(settings_table) / sizeof(settings_table[0]),
};

void gru4rec_settings_default(struct gru4rec_settings *settings)
{
    *settings = (struct gru4rec_settings){
        .dim = 64,
        .hidden_dim = 64,
        .item_dim = 64,
        .n_layers = 1,
        .history_max = 50,
        .input_scale = 1.0,
    };
}

enum status gru4rec_settings_check_as(const struct gru4rec_settings *settings, enum status code,
                                      struct error *err)
{
    const enum status status = model_settings_check(&gru4rec_format, settings, code, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (settings->item_dim < settings->dim + (settings->has_bias ? 1 : 0)) {
        return error_set_field(err, code, code == STATUS_INVALID ? "item_dim" : "dim",
                               "item vectors of %zu components cannot hold %zu%s",
                               settings->item_dim, settings->dim,
                               settings->has_bias ? " and a bias" : "");
    }
    if (!settings->has_output && settings->hidden_dim != settings->dim) {
        return error_set_field(err, code, "hidden_dim",
                               "without an output layer hidden_dim must be %zu", settings->dim);
    }
    return STATUS_OK;
}

enum status gru4rec_settings_check(const struct gru4rec_settings *settings, struct error *err)
{
    return gru4rec_settings_check_as(settings, STATUS_INVALID, err);
}

size_t gru4rec_tensors(const struct gru4rec_settings *settings,
                       struct model_tensor tensors[GRU4REC_TENSORS_MAX])
{
    const size_t h = settings->hidden_dim;
    size_t n = 0;
    for (size_t layer = 0; layer < settings->n_layers; layer++) {
        static const char *const names[GRU4REC_LAYER_TENSORS] = {
            [GRU4REC_INPUT_WEIGHT] = "input.weight",
            [GRU4REC_INPUT_BIAS] = "input.bias",
            [GRU4REC_HIDDEN_WEIGHT] = "hidden.weight",
            [GRU4REC_HIDDEN_BIAS] = "hidden.bias",
        };
        const size_t n_inputs = layer == 0 ? settings->dim : h;
        for (int i = 0; i < GRU4REC_LAYER_TENSORS; i++) {
            char name[MODEL_TENSOR_NAME_BYTES];
            (void)snprintf(name, sizeof(name), "layers.%zu.%s", layer, names[i]);
            if (i == GRU4REC_INPUT_WEIGHT || i == GRU4REC_HIDDEN_WEIGHT) {
                model_tensor_matrix(&tensors[n++], name, 3 * h,
                                    i == GRU4REC_INPUT_WEIGHT ? n_inputs : h);
            } else {
                model_tensor_vector(&tensors[n++], name, 3 * h);
            }
        }
    }
    if (settings->has_output) {
        model_tensor_matrix(&tensors[n++], "output.weight", settings->dim, h);
        model_tensor_vector(&tensors[n++], "output.bias", settings->dim);
    }
    return n;
}

enum status gru4rec_model_write(const char *path, const struct gru4rec_settings *settings,
                                const struct gru4rec_weights *weights, struct error *err)
{
    const enum status status = gru4rec_settings_check(settings, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct model_tensor tensors[GRU4REC_TENSORS_MAX];
    const float *data[GRU4REC_TENSORS_MAX] = {NULL};
    const size_t n = gru4rec_tensors(settings, tensors);
    for (size_t i = 0; i < settings->n_layers; i++) {
        const float **layer = data + i * GRU4REC_LAYER_TENSORS;
        layer[GRU4REC_INPUT_WEIGHT] = weights->layers[i].input_weight;
        layer[GRU4REC_INPUT_BIAS] = weights->layers[i].input_bias;
        layer[GRU4REC_HIDDEN_WEIGHT] = weights->layers[i].hidden_weight;
        layer[GRU4REC_HIDDEN_BIAS] = weights->layers[i].hidden_bias;
    }
    if (settings->has_output) {
        data[n - 2] = weights->output_weight;
        data[n - 1] = weights->output_bias;
    }
    return model_file_write(path, &gru4rec_format, settings, tensors, data, n, err);
}
