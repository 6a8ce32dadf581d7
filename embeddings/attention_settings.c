#include "embeddings/attention.h"

#include "base/vectors.h"
#include "embeddings/attention_internal.h"

/* Settings and file of attention: one table of settings, one list of tensors. */

#define SCALE_MAX 1e6

#define SETTING(member, json_key, setting_kind, least, most)                                       \
    {                                                                                              \
        .name = #member, .key = (json_key), .kind = (setting_kind),                                \
        .offset = offsetof(struct attention_settings, member), .min = (least), .max = (most)       \
    }

/* "dim" of a file is always the item vectors' dimension. */
static const struct setting settings_table[] = {
    SETTING(item_dim, "dim", SETTING_SIZE, VECTOR_DIM_MIN, VECTOR_DIM_MAX),
    SETTING(dim, "hidden_dim", SETTING_SIZE, 1, ATTENTION_DIM_MAX),
    SETTING(history_max, "history_max", SETTING_SIZE, 1, ATTENTION_HISTORY_MAX),
    SETTING(input_scale, "input_scale", SETTING_REAL, -SCALE_MAX, SCALE_MAX),
    SETTING(output_scale, "output_scale", SETTING_REAL, 0, SCALE_MAX),
    SETTING(has_bias, "has_bias", SETTING_FLAG, 0, 1),
};

const struct model_format attention_format = {
    .architecture = "attention",
    .settings_version = 1,
    .settings = settings_table,
    .n_settings = sizeof(settings_table) / sizeof(settings_table[0]),
};

void attention_settings_default(struct attention_settings *settings)
{
    *settings = (struct attention_settings){
        .dim = 64, .item_dim = 64, .history_max = 50, .input_scale = 1.0};
}

enum status attention_settings_check_as(const struct attention_settings *settings, enum status code,
                                        struct error *err)
{
    const enum status status = model_settings_check(&attention_format, settings, code, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (settings->item_dim < settings->dim + (settings->has_bias ? 1 : 0)) {
        return error_set_field(err, code, code == STATUS_INVALID ? "item_dim" : "dim",
                               "item vectors of %zu components cannot hold %zu%s",
                               settings->item_dim, settings->dim,
                               settings->has_bias ? " and a bias" : "");
    }
    return STATUS_OK;
}

enum status attention_settings_check(const struct attention_settings *settings, struct error *err)
{
    return attention_settings_check_as(settings, STATUS_INVALID, err);
}

void attention_tensors(const struct attention_settings *settings,
                       struct model_tensor tensors[ATTENTION_TENSORS])
{
    const size_t d = settings->dim;
    model_tensor_matrix(&tensors[ATTENTION_QUERY], "query.weight", d, d);
    model_tensor_vector(&tensors[ATTENTION_RECENCY], "recency", settings->history_max);
    model_tensor_vector(&tensors[ATTENTION_TYPES], "types", N_EVENT_TYPES);
    model_tensor_matrix(&tensors[ATTENTION_MIX], "mix.weight", d, d);
    model_tensor_matrix(&tensors[ATTENTION_NEWEST], "newest.weight", d, d);
    model_tensor_vector(&tensors[ATTENTION_BIAS], "bias", d);
}

enum status attention_model_write(const char *path, const struct attention_settings *settings,
                                  const struct attention_weights *weights, struct error *err)
{
    const enum status status = attention_settings_check(settings, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct model_tensor tensors[ATTENTION_TENSORS];
    attention_tensors(settings, tensors);
    const float *const data[ATTENTION_TENSORS] = {
        [ATTENTION_QUERY] = weights->query,   [ATTENTION_RECENCY] = weights->recency,
        [ATTENTION_TYPES] = weights->types,   [ATTENTION_MIX] = weights->mix,
        [ATTENTION_NEWEST] = weights->newest, [ATTENTION_BIAS] = weights->bias,
    };
    return model_file_write(path, &attention_format, settings, tensors, data, ATTENTION_TENSORS,
                            err);
}
