/* The forward pass of GRU4Rec (embeddings/gru4rec.h), batched over ragged histories.
 *
 * The products with the inputs of all steps of all users are one BLAS call a layer; the products
 * with the state are one call a step. For that users are ordered by length, longest first, so that
 * those who still have a step are a prefix of the state matrix and no row is computed in vain.
 * Users come in groups of at most GROUP_TOKENS events, so that scratch memory does not grow with
 * the batch.
 *
 * A shop's visitor comes back with one event more: gru4rec_step goes on from a kept state.
 *
 * Legend: B users of a group, T events of a group, d inputs, h hidden dimension. */
#include "embeddings/gru4rec.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/vectors.h"
#include "embeddings/gru4rec_internal.h"
#include "embeddings/gru4rec_kernel.h"
#include "embeddings/user_model_internal.h"

enum { GROUP_TOKENS = 1024, LINE_FLOATS = 16 };

struct gru4rec {
    struct gru4rec_settings settings;
    struct gru4rec_weights weights; /* views into values */
    float *values;
    size_t tokens_max;
};

/* ---- opening ---- */

static void place_weights(struct gru4rec *model, const float *const *data, size_t n)
{
    for (size_t i = 0; i < model->settings.n_layers; i++) {
        const float *const *layer = data + i * GRU4REC_LAYER_TENSORS;
        model->weights.layers[i] = (struct gru4rec_layer){
            .input_weight = layer[GRU4REC_INPUT_WEIGHT],
            .input_bias = layer[GRU4REC_INPUT_BIAS],
            .hidden_weight = layer[GRU4REC_HIDDEN_WEIGHT],
            .hidden_bias = layer[GRU4REC_HIDDEN_BIAS],
        };
    }
    if (model->settings.has_output) {
        model->weights.output_weight = data[n - 2];
        model->weights.output_bias = data[n - 1];
    }
}

static enum status read_weights(struct gru4rec *model, const struct safetensors *file,
                                struct error *err)
{
    struct model_tensor tensors[GRU4REC_TENSORS_MAX];
    const float *data[GRU4REC_TENSORS_MAX] = {NULL};
    size_t n = gru4rec_tensors(&model->settings, tensors);
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        total += floats_of_lines(model_tensor_values(&tensors[i]));
    }
    model->values = mem_alloc_vectors(total, sizeof(float));
    if (model->values == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a user model");
    }
    float *at = model->values;
    for (size_t i = 0; i < n; i++) {
        enum status status = model_tensor_read(file, &tensors[i], at, err);
        if (status != STATUS_OK) {
            return status;
        }
        data[i] = at;
        at += floats_of_lines(model_tensor_values(&tensors[i]));
    }
    place_weights(model, data, n);
    return STATUS_OK;
}

static void gru4rec_close(void *parameters)
{
    struct gru4rec *model = parameters;
    mem_free(model->values);
    mem_free(model);
}

static enum status gru4rec_open(const struct user_model_source *source, void **parameters,
                                size_t *history_max, struct error *err)
{
    struct gru4rec *model = mem_calloc(1, sizeof(*model));
    if (model == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a user model");
    }
    gru4rec_settings_default(&model->settings);
    enum status status =
        model_settings_read(&gru4rec_format, source->settings, &model->settings, err);
    if (status == STATUS_OK) {
        status = gru4rec_settings_check_as(&model->settings, STATUS_FORMAT, err);
    }
    if (status == STATUS_OK) {
        status = read_weights(model, source->file, err);
    }
    if (status != STATUS_OK) {
        gru4rec_close(model);
        return status;
    }
    size_t length = model->settings.history_max;
    model->tokens_max = length > GROUP_TOKENS ? length : GROUP_TOKENS;
    *parameters = model;
    *history_max = length;
    return STATUS_OK;
}

/* ---- workspace ---- */

struct scratch {
    float *row;    /* [D] an item vector */
    float *inputs; /* [T × max(d, h)] of a layer, later its states */
    float *gates;  /* [T × 3h] products with the inputs */
    float *state;  /* [B × h] users by length */
    float *hidden; /* [B × 3h] products with the state */
    float *output; /* [B × d] */
};

static size_t widest(const struct gru4rec_settings *s)
{
    return s->dim > s->hidden_dim ? s->dim : s->hidden_dim;
}

static bool gru4rec_workspace_floats(const void *parameters, size_t dim, size_t n_users_max,
                                     size_t *out)
{
    const struct gru4rec *model = parameters;
    const struct gru4rec_settings *s = &model->settings;
    size_t t = model->tokens_max;
    (void)n_users_max; /* users are taken in groups */
    *out = floats_of_lines(dim) + floats_of_lines(t * widest(s)) +
           floats_of_lines(t * 3 * s->hidden_dim) + floats_of_lines(t * s->hidden_dim) +
           floats_of_lines(t * 3 * s->hidden_dim) + floats_of_lines(t * s->dim);
    return true;
}

static struct scratch lay_out(const struct gru4rec *model, size_t item_dim, float *base)
{
    const struct gru4rec_settings *s = &model->settings;
    size_t t = model->tokens_max;
    struct scratch scratch;
    scratch.row = base;
    scratch.inputs = scratch.row + floats_of_lines(item_dim);
    scratch.gates = scratch.inputs + floats_of_lines(t * widest(s));
    scratch.state = scratch.gates + floats_of_lines(t * 3 * s->hidden_dim);
    scratch.hidden = scratch.state + floats_of_lines(t * s->hidden_dim);
    scratch.output = scratch.hidden + floats_of_lines(t * 3 * s->hidden_dim);
    return scratch;
}

/* ---- one group ---- */

struct group {
    size_t n_users, n_tokens;
    uint32_t users[GROUP_TOKENS];  /* of the batch, longest history first */
    uint32_t first[GROUP_TOKENS];  /* row of a user's oldest event */
    uint32_t length[GROUP_TOKENS]; /* events of a user */
};

/* y [n × out] = x weightᵀ + bias */
/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static void product(const float *x, const float *weight, const float *bias, size_t n, size_t n_in,
                    size_t n_out, float *y)
{
    for (size_t i = 0; i < n; i++) {
        memcpy(y + i * n_out, bias, n_out * sizeof(float));
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)n_out, (int)n_in, 1.0F, x,
                (int)n_in, weight, (int)n_in, 1.0F, y, (int)n_out);
}

/* inputs → states of one layer; `state` ends as each user's last. keep: all states are wanted as
 * the next layer's inputs. */
static void run_layer(const struct gru4rec *model, size_t layer, const struct group *group,
                      const struct scratch *scratch, bool keep)
{
    const struct gru4rec_layer *w = &model->weights.layers[layer];
    size_t h = model->settings.hidden_dim;
    size_t n_in = layer == 0 ? model->settings.dim : h;
    size_t n_active = group->n_users;
    product(scratch->inputs, w->input_weight, w->input_bias, group->n_tokens, n_in, 3 * h,
            scratch->gates);
    memset(scratch->state, 0, group->n_users * h * sizeof(float));
    for (size_t step = 0; n_active > 0; step++) {
        while (n_active > 0 && group->length[n_active - 1] <= step) {
            n_active--;
        }
        product(scratch->state, w->hidden_weight, w->hidden_bias, n_active, h, 3 * h,
                scratch->hidden);
        for (size_t u = 0; u < n_active; u++) {
            size_t token = group->first[u] + step;
            gru4rec_gates(scratch->gates + token * 3 * h, scratch->hidden + u * 3 * h, h,
                          scratch->state + u * h);
            if (keep) {
                memcpy(scratch->inputs + token * h, scratch->state + u * h, h * sizeof(float));
            }
        }
    }
}

static struct user_vector_shape shape_of(const struct gru4rec_settings *s, size_t item_dim)
{
    return (struct user_vector_shape){s->dim, item_dim, s->output_scale, s->has_bias};
}

static void embed_history(const struct gru4rec *model, const struct vectors *items,
                          const struct history_event *newest, size_t n, float *row, float *x)
{
    const struct gru4rec_settings *s = &model->settings;
    float scale = (float)s->input_scale;
    for (size_t j = 0; j < n; j++) {
        vectors_row(items, newest[n - 1 - j].row, row);
        for (size_t c = 0; c < s->dim; c++) {
            x[j * s->dim + c] = scale * row[c];
        }
    }
}

/* Final states [n × h] → o [n × d]; where there is no output layer they are the same. */
static const float *outputs(const struct gru4rec *model, const float *states, size_t n, float *out)
{
    const struct gru4rec_settings *s = &model->settings;
    if (!s->has_output) {
        return states;
    }
    product(states, model->weights.output_weight, model->weights.output_bias, n, s->hidden_dim,
            s->dim, out);
    return out;
}

static size_t used_events(const struct gru4rec *model, const struct history_batch *batch, size_t u)
{
    size_t n = batch->offsets[u + 1] - batch->offsets[u];
    return n < model->settings.history_max ? n : model->settings.history_max;
}

/* Puts a user where its length belongs. */
static void insert_user(struct group *group, uint32_t user, size_t length)
{
    size_t at = group->n_users++;
    while (at > 0 && group->length[at - 1] < length) {
        group->users[at] = group->users[at - 1];
        group->first[at] = group->first[at - 1];
        group->length[at] = group->length[at - 1];
        at--;
    }
    group->users[at] = user;
    group->first[at] = (uint32_t)group->n_tokens;
    group->length[at] = (uint32_t)length;
    group->n_tokens += length;
}

static void gru4rec_embed(const void *parameters, const struct vectors *items,
                          float *scratch_floats, const struct history_batch *batch, float *out)
{
    const struct gru4rec *model = parameters;
    const struct gru4rec_settings *s = &model->settings;
    const struct scratch scratch = lay_out(model, items->dim, scratch_floats);
    struct group group;
    for (size_t user = 0; user < batch->n_users;) {
        group.n_users = 0;
        group.n_tokens = 0;
        for (; user < batch->n_users; user++) {
            size_t n = used_events(model, batch, user);
            if (group.n_tokens + n > model->tokens_max || group.n_users == GROUP_TOKENS) {
                break;
            }
            if (n == 0) {
                memset(out + user * items->dim, 0, items->dim * sizeof(float));
                continue;
            }
            embed_history(model, items, batch->events + batch->offsets[user], n, scratch.row,
                          scratch.inputs + group.n_tokens * s->dim);
            insert_user(&group, (uint32_t)user, n);
        }
        for (size_t layer = 0; layer < s->n_layers && group.n_users > 0; layer++) {
            run_layer(model, layer, &group, &scratch, layer + 1 < s->n_layers);
        }
        const float *o = outputs(model, scratch.state, group.n_users, scratch.output);
        const struct user_vector_shape shape = shape_of(s, items->dim);
        for (size_t u = 0; u < group.n_users; u++) {
            user_vector_write(&shape, o + u * s->dim, out + group.users[u] * items->dim);
        }
    }
}

/* ---- one step from a kept state ---- */

static size_t gru4rec_state_floats(const void *parameters)
{
    const struct gru4rec *model = parameters;
    return model->settings.n_layers * model->settings.hidden_dim;
}

static void gru4rec_advance(const void *parameters, const struct vectors *items,
                            float *scratch_floats, const struct history_event *event, float *state,
                            float *out)
{
    const struct gru4rec *model = parameters;
    const struct gru4rec_settings *s = &model->settings;
    const struct scratch scratch = lay_out(model, items->dim, scratch_floats);
    size_t h = s->hidden_dim;
    const float *input = scratch.inputs;
    embed_history(model, items, event, 1, scratch.row, scratch.inputs);
    for (size_t layer = 0; layer < s->n_layers; layer++) {
        const struct gru4rec_layer *w = &model->weights.layers[layer];
        float *mine = state + layer * h;
        product(input, w->input_weight, w->input_bias, 1, layer == 0 ? s->dim : h, 3 * h,
                scratch.gates);
        product(mine, w->hidden_weight, w->hidden_bias, 1, h, 3 * h, scratch.hidden);
        gru4rec_gates(scratch.gates, scratch.hidden, h, mine);
        input = mine;
    }
    const struct user_vector_shape shape = shape_of(s, items->dim);
    user_vector_write(&shape, outputs(model, input, 1, scratch.output), out);
}

const struct user_model_architecture user_model_gru4rec = {
    .name = "gru4rec",
    .settings_version = 1,
    .open = gru4rec_open,
    .close = gru4rec_close,
    .workspace_floats = gru4rec_workspace_floats,
    .embed = gru4rec_embed,
    .state_floats = gru4rec_state_floats,
    .advance = gru4rec_advance,
};
