/* The forward pass of attention pooling (embeddings/attention.h): three d × d products a batch of
 * users and two passes over each history. Users come in groups of GROUP_USERS, so that scratch
 * memory does not grow with the batch.
 *
 * Legend: B users of a group, d dimension, n events of a history. */
#include "embeddings/attention.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/vectors.h"
#include "embeddings/attention_internal.h"
#include "embeddings/user_model_internal.h"
#include "embeddings/vector_math.h"

enum { GROUP_USERS = 64, LINE_FLOATS = 16 };

struct attention {
    struct attention_settings settings;
    struct attention_weights weights; /* views into values */
    float *values;
};

static enum status read_weights(struct attention *model, const struct safetensors *file,
                                struct error *err)
{
    struct model_tensor tensors[ATTENTION_TENSORS];
    const float **const places[ATTENTION_TENSORS] = {
        [ATTENTION_QUERY] = &model->weights.query,   [ATTENTION_RECENCY] = &model->weights.recency,
        [ATTENTION_TYPES] = &model->weights.types,   [ATTENTION_MIX] = &model->weights.mix,
        [ATTENTION_NEWEST] = &model->weights.newest, [ATTENTION_BIAS] = &model->weights.bias,
    };
    size_t total = 0;
    attention_tensors(&model->settings, tensors);
    for (size_t i = 0; i < ATTENTION_TENSORS; i++) {
        total += floats_of_lines(model_tensor_values(&tensors[i]));
    }
    model->values = mem_alloc_vectors(total, sizeof(float));
    if (model->values == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a user model");
    }
    float *at = model->values;
    for (size_t i = 0; i < ATTENTION_TENSORS; i++) {
        enum status status = model_tensor_read(file, &tensors[i], at, err);
        if (status != STATUS_OK) {
            return status;
        }
        *places[i] = at;
        at += floats_of_lines(model_tensor_values(&tensors[i]));
    }
    return STATUS_OK;
}

static void attention_close(void *parameters)
{
    struct attention *model = parameters;
    mem_free(model->values);
    mem_free(model);
}

static enum status attention_open(const struct user_model_source *source, void **parameters,
                                  size_t *history_max, struct error *err)
{
    struct attention *model = mem_calloc(1, sizeof(*model));
    if (model == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a user model");
    }
    attention_settings_default(&model->settings);
    enum status status =
        model_settings_read(&attention_format, source->settings, &model->settings, err);
    if (status == STATUS_OK) {
        status = attention_settings_check_as(&model->settings, STATUS_FORMAT, err);
    }
    if (status == STATUS_OK) {
        status = read_weights(model, source->file, err);
    }
    if (status != STATUS_OK) {
        attention_close(model);
        return status;
    }
    *parameters = model;
    *history_max = model->settings.history_max;
    return STATUS_OK;
}

struct scratch {
    float *row;     /* [D] */
    float *events;  /* [L × d] of one history, newest first */
    float *weights; /* [L] */
    float *newest;  /* [B × d] */
    float *query;   /* [B × d] */
    float *pooled;  /* [B × d] */
    float *hidden;  /* [B × d] */
};

static bool attention_workspace_floats(const void *parameters, size_t dim, size_t n_users_max,
                                       size_t *out)
{
    const struct attention *model = parameters;
    const struct attention_settings *s = &model->settings;
    (void)n_users_max; /* users are taken in groups */
    *out = floats_of_lines(dim) + floats_of_lines(s->history_max * s->dim) +
           floats_of_lines(s->history_max) + 4 * floats_of_lines(GROUP_USERS * s->dim);
    return true;
}

static struct scratch lay_out(const struct attention *model, size_t item_dim, float *base)
{
    const struct attention_settings *s = &model->settings;
    size_t n_group = floats_of_lines(GROUP_USERS * s->dim);
    struct scratch scratch;
    scratch.row = base;
    scratch.events = scratch.row + floats_of_lines(item_dim);
    scratch.weights = scratch.events + floats_of_lines(s->history_max * s->dim);
    scratch.newest = scratch.weights + floats_of_lines(s->history_max);
    scratch.query = scratch.newest + n_group;
    scratch.pooled = scratch.query + n_group;
    scratch.hidden = scratch.pooled + n_group;
    return scratch;
}

static void read_event(const struct attention *model, const struct vectors *items, uint32_t row,
                       float *buffer, float *out)
{
    float scale = (float)model->settings.input_scale;
    vectors_row(items, row, buffer);
    for (size_t c = 0; c < model->settings.dim; c++) {
        out[c] = scale * buffer[c];
    }
}

/* pooled [d] of one history by its query [d]. */
/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static void pool(const struct attention *model, const struct vectors *items,
                 const struct history_event *events, size_t n, const struct scratch *scratch,
                 const float *query, float *pooled)
{
    size_t d = model->settings.dim;
    float scale = 1.0F / sqrtf((float)d);
    float largest = -INFINITY;
    for (size_t j = 0; j < n; j++) {
        float *v = scratch->events + j * d;
        read_event(model, items, events[j].row, scratch->row, v);
        float dot = 0.0F;
#pragma omp simd reduction(+ : dot)
        for (size_t c = 0; c < d; c++) {
            dot += query[c] * v[c];
        }
        scratch->weights[j] =
            dot * scale + model->weights.recency[j] + model->weights.types[events[j].type];
        largest = fmaxf(largest, scratch->weights[j]);
    }
    float sum = 0.0F;
    for (size_t j = 0; j < n; j++) {
        scratch->weights[j] = exp_fast(scratch->weights[j] - largest);
        sum += scratch->weights[j];
    }
    memset(pooled, 0, d * sizeof(float));
    for (size_t j = 0; j < n; j++) {
        const float *v = scratch->events + j * d;
        float weight = scratch->weights[j] / sum;
#pragma omp simd
        for (size_t c = 0; c < d; c++) {
            pooled[c] += weight * v[c];
        }
    }
}

static void product(const float *x, const float *weight, size_t n, size_t d, float beta, float *y)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)d, (int)d, 1.0F, x, (int)d,
                weight, (int)d, beta, y, (int)d);
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static void run_group(const struct attention *model, const struct vectors *items,
                      const struct scratch *scratch, const struct history_batch *batch,
                      const uint32_t *users, size_t n, float *out)
{
    const struct attention_settings *s = &model->settings;
    size_t d = s->dim;
    for (size_t u = 0; u < n; u++) {
        read_event(model, items, batch->events[batch->offsets[users[u]]].row, scratch->row,
                   scratch->newest + u * d);
        memcpy(scratch->hidden + u * d, model->weights.bias, d * sizeof(float));
    }
    product(scratch->newest, model->weights.query, n, d, 0.0F, scratch->query);
    for (size_t u = 0; u < n; u++) {
        size_t first = batch->offsets[users[u]];
        size_t length = batch->offsets[users[u] + 1] - first;
        length = length < s->history_max ? length : s->history_max;
        pool(model, items, batch->events + first, length, scratch, scratch->query + u * d,
             scratch->pooled + u * d);
    }
    product(scratch->pooled, model->weights.mix, n, d, 1.0F, scratch->hidden);
    product(scratch->newest, model->weights.newest, n, d, 1.0F, scratch->hidden);
    const struct user_vector_shape shape = {d, items->dim, s->output_scale, s->has_bias};
    for (size_t u = 0; u < n; u++) {
        user_vector_write(&shape, scratch->hidden + u * d, out + users[u] * items->dim);
    }
}

static void attention_embed(const void *parameters, const struct vectors *items,
                            float *scratch_floats, const struct history_batch *batch, float *out)
{
    const struct attention *model = parameters;
    const struct scratch scratch = lay_out(model, items->dim, scratch_floats);
    uint32_t users[GROUP_USERS];
    size_t n = 0;
    for (size_t user = 0; user < batch->n_users; user++) {
        if (batch->offsets[user + 1] == batch->offsets[user]) {
            memset(out + user * items->dim, 0, items->dim * sizeof(float));
        } else {
            users[n++] = (uint32_t)user;
        }
        if (n == GROUP_USERS) {
            run_group(model, items, &scratch, batch, users, n, out);
            n = 0;
        }
    }
    if (n > 0) {
        run_group(model, items, &scratch, batch, users, n, out);
    }
}

const struct user_model_architecture user_model_attention = {
    .name = "attention",
    .settings_version = 1,
    .open = attention_open,
    .close = attention_close,
    .workspace_floats = attention_workspace_floats,
    .embed = attention_embed,
};
