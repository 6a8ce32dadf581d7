#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/sasrec_internal.h"
#include "embeddings/user_model_internal.h"

/* Weights of a SASRec model from its file to the form the forward pass multiplies with: one aligned
 * block, matrices turned to [in × out], so that no product has a transposed factor (which costs the
 * small products of a single user up to 40 % on AVX-512), and everything that is known when the
 * model is opened done here, in double: the attention's scale, the biases that cancel or can be
 * moved, the key and value of a padded position. Legend: d dimension, F feed-forward width. */

enum { LINE_FLOATS = 16 };

/* A block that is handed out in pieces of whole cache lines. */
struct packer {
    float *next;
    const float *end;
};

static float *take(struct packer *packer, size_t n)
{
    float *piece = packer->next;
    assert((size_t)(packer->end - piece) >= floats_of_lines(n));
    packer->next += floats_of_lines(n);
    return piece;
}

static const float *copy(struct packer *packer, const float *values, size_t n)
{
    assert(values != NULL);
    float *piece = take(packer, n);
    memcpy(piece, values, n * sizeof(*piece));
    return piece;
}

static struct kernel_norm pack_norm(struct packer *packer, const struct sasrec_norm *norm,
                                    const struct sasrec_settings *settings)
{
    return (struct kernel_norm){
        .weight = copy(packer, norm->weight, settings->dim),
        .bias = copy(packer, norm->bias, settings->dim),
        .epsilon = (float)settings->norm_epsilon,
    };
}

/* weight [n_out × n_in] to columns of out [n_in × ld], times scale. */
static void turn(const float *weight, size_t n_out, size_t n_in, double scale, float *out,
                 size_t ld)
{
    for (size_t o = 0; o < n_out; o++) {
        for (size_t i = 0; i < n_in; i++) {
            out[i * ld + o] = (float)((double)weight[o * n_in + i] * scale);
        }
    }
}

static const float *pack_turned(struct packer *packer, const float *weight, size_t n_out,
                                size_t n_in, double scale)
{
    float *piece = take(packer, n_out * n_in);
    turn(weight, n_out, n_in, scale, piece, n_out);
    return piece;
}

/* weight [d × d] times input [d], plus bias if there is one. */
static const float *pack_product(struct packer *packer, const float *weight, const float *input,
                                 const float *bias, size_t dim)
{
    float *piece = take(packer, dim);
    for (size_t o = 0; o < dim; o++) {
        double sum = bias != NULL ? (double)bias[o] : 0.0;
        for (size_t i = 0; i < dim; i++) {
            sum += (double)weight[o * dim + i] * (double)input[i];
        }
        piece[o] = (float)sum;
    }
    return piece;
}

static void pack_attention(struct packer *packer, const struct sasrec_block *block,
                           const struct sasrec_settings *settings, bool is_last,
                           struct sasrec_layer *layer)
{
    const size_t dim = settings->dim;
    const double scale = 1.0 / sqrt((double)dim / (double)settings->n_heads);
    if (is_last) {
        layer->query = pack_turned(packer, block->query.weight, dim, dim, scale);
        layer->key = copy(packer, block->key.weight, dim * dim);
        layer->value = pack_turned(packer, block->value.weight, dim, dim, 1.0);
    } else {
        float *piece = take(packer, 3 * dim * dim);
        turn(block->query.weight, dim, dim, scale, piece, 3 * dim);
        turn(block->key.weight, dim, dim, 1.0, piece + dim, 3 * dim);
        turn(block->value.weight, dim, dim, 1.0, piece + 2 * dim, 3 * dim);
        layer->query_key_value = piece;
    }
    float *query_bias = take(packer, dim);
    for (size_t c = 0; c < dim; c++) {
        query_bias[c] = (float)((double)block->query.bias[c] * scale);
    }
    layer->query_bias = query_bias;
    layer->output = pack_turned(packer, block->output.weight, dim, dim, 1.0);
    layer->output_bias =
        pack_product(packer, block->output.weight, block->value.bias, block->output.bias, dim);
}

static void pack_layer(struct packer *packer, const struct sasrec_block *block,
                       const struct sasrec_settings *settings, bool is_last,
                       struct sasrec_layer *layer)
{
    const size_t dim = settings->dim;
    const size_t ffn_dim = settings->ffn_dim;
    layer->attention_norm = pack_norm(packer, &block->attention_norm, settings);
    layer->ffn_norm = pack_norm(packer, &block->ffn_norm, settings);
    pack_attention(packer, block, settings, is_last, layer);
    layer->up = pack_turned(packer, block->up.weight, ffn_dim, dim, 1.0);
    layer->up_bias = copy(packer, block->up.bias, ffn_dim);
    layer->down = pack_turned(packer, block->down.weight, dim, ffn_dim, 1.0);
    layer->down_bias = copy(packer, block->down.bias, dim);
}

/* ---- padded positions, in double ---- */

static void norm_double(const struct sasrec_norm *norm, const struct sasrec_settings *settings,
                        const double *x, double *y)
{
    const size_t dim = settings->dim;
    double mean = 0.0;
    double variance = 0.0;
    for (size_t c = 0; c < dim; c++) {
        mean += x[c] / (double)dim;
    }
    for (size_t c = 0; c < dim; c++) {
        variance += (x[c] - mean) * (x[c] - mean) / (double)dim;
    }
    for (size_t c = 0; c < dim; c++) {
        y[c] = (x[c] - mean) / sqrt(variance + settings->norm_epsilon) * (double)norm->weight[c] +
               (double)norm->bias[c];
    }
}

static void linear_double(const struct sasrec_linear *linear, size_t n_out, size_t n_in,
                          const double *x, double *y)
{
    for (size_t o = 0; o < n_out; o++) {
        y[o] = (double)linear->bias[o];
        for (size_t i = 0; i < n_in; i++) {
            y[o] += (double)linear->weight[o * n_in + i] * x[i];
        }
    }
}

static void ffn_double(const struct sasrec_block *block, const struct sasrec_settings *settings,
                       const double *x, double *y)
{
    double hidden[SASREC_FFN_DIM_MAX];
    linear_double(&block->up, settings->ffn_dim, settings->dim, x, hidden);
    for (size_t i = 0; i < settings->ffn_dim; i++) {
        hidden[i] = settings->activation == SASREC_RELU
                        ? fmax(hidden[i], 0.0)
                        : 0.5 * hidden[i] * (1.0 + erf(hidden[i] / sqrt(2.0)));
    }
    linear_double(&block->down, settings->dim, settings->ffn_dim, hidden, y);
}

/* input[d] of keys and values of a padded position with state x[d]; then x is its state after the
 * block. It sees nothing but padded positions, all equal, so that it attends to its own value. */
static void pass_padding(const struct sasrec_block *block, const struct sasrec_settings *settings,
                         double *x, double *input)
{
    const size_t dim = settings->dim;
    double query[SASREC_DIM_MAX]; /* the input of the query */
    double value[SASREC_DIM_MAX];
    double sum[SASREC_DIM_MAX];
    double fed[SASREC_DIM_MAX];
    const bool post = settings->post_norm;
    const bool from_normed = settings->residual_normed && !post;
    memcpy(query, x, dim * sizeof(*query));
    if (!post) {
        norm_double(&block->attention_norm, settings, x, query);
    }
    memcpy(input, settings->norm_keys ? query : x, dim * sizeof(*input));
    linear_double(&block->value, dim, dim, input, value);
    linear_double(&block->output, dim, dim, value, sum);
    for (size_t c = 0; c < dim; c++) {
        sum[c] += from_normed ? query[c] : x[c];
    }
    norm_double(post ? &block->attention_norm : &block->ffn_norm, settings, sum, value);
    ffn_double(block, settings, value, fed);
    for (size_t c = 0; c < dim; c++) {
        x[c] = fed[c] + (post || from_normed ? value[c] : sum[c]);
    }
    if (post) {
        norm_double(&block->ffn_norm, settings, x, x);
    }
}

/* The keys and values that padded positions have in every block. */
static void pack_padding(struct packer *packer, const struct sasrec_weights *weights,
                         struct sasrec *model)
{
    const struct sasrec_settings *settings = &model->settings;
    const size_t dim = settings->dim;
    double x[SASREC_DIM_MAX] = {0};
    double input[SASREC_DIM_MAX];
    for (size_t i = 0; i < settings->n_blocks; i++) {
        const struct sasrec_block *block = &weights->blocks[i];
        struct sasrec_layer *layer = &model->layers[i];
        bool is_zero = true;
        pass_padding(block, settings, x, input);
        float *piece = take(packer, dim);
        for (size_t c = 0; c < dim; c++) {
            piece[c] = (float)input[c];
            is_zero = is_zero && piece[c] == 0.0F;
        }
        if (!is_zero) {
            layer->pad_input = piece;
            layer->pad_key = pack_product(packer, block->key.weight, piece, NULL, dim);
            layer->pad_value = pack_product(packer, block->value.weight, piece, NULL, dim);
        }
    }
}

static void pack(struct packer *packer, const struct sasrec_weights *weights, struct sasrec *model)
{
    const struct sasrec_settings *settings = &model->settings;
    const size_t dim = settings->dim;
    model->positions = copy(packer, weights->positions, settings->history_max * dim);
    if (settings->has_types) {
        model->types = copy(packer, weights->types, N_EVENT_TYPES * dim);
    }
    if (settings->n_gap_buckets > 0) {
        model->gaps = copy(packer, weights->gaps, settings->n_gap_buckets * dim);
    }
    if (settings->has_embedding_norm) {
        model->embedding_norm = pack_norm(packer, &weights->embedding_norm, settings);
    }
    for (size_t i = 0; i < settings->n_blocks; i++) {
        pack_layer(packer, &weights->blocks[i], settings, i + 1 == settings->n_blocks,
                   &model->layers[i]);
    }
    if (settings->attend_padding) {
        pack_padding(packer, weights, model);
    }
    if (settings->has_final_norm) {
        model->final_norm = pack_norm(packer, &weights->final_norm, settings);
    }
}

/* Every packed piece is a tensor or several, except the inputs, keys and values of padded
 * positions. */
static size_t floats_needed(const struct sasrec_settings *settings,
                            const struct sasrec_tensor *tensors, size_t n)
{
    size_t n_floats = settings->n_blocks * 3 * floats_of_lines(settings->dim);
    for (size_t i = 0; i < n; i++) {
        n_floats += floats_of_lines(tensors[i].n_values);
    }
    return n_floats;
}

enum status sasrec_parameters_read(const struct safetensors *file,
                                   const struct sasrec_settings *settings, struct sasrec *model,
                                   struct error *err)
{
    struct sasrec_tensor tensors[SASREC_TENSORS_MAX];
    const size_t n = sasrec_tensors(settings, tensors);
    const size_t n_floats = floats_needed(settings, tensors, n);
    struct sasrec_weights weights = {.positions = NULL};
    enum status status = STATUS_OK;
    model->settings = *settings;
    float *raw = mem_alloc_vectors(n_floats, sizeof(*raw));
    model->memory = mem_alloc_vectors(n_floats, sizeof(*model->memory));
    if (raw == NULL || model->memory == NULL) {
        status = error_set(err, STATUS_NOMEM, "out of memory for the weights of a user model");
    }
    struct packer reader = {raw, raw + n_floats};
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        float *values = take(&reader, tensors[i].n_values);
        *sasrec_tensor_slot(&weights, &tensors[i]) = values;
        status = safetensors_read_f32(file, tensors[i].name, tensors[i].shape, tensors[i].rank,
                                      values, err);
    }
    if (status == STATUS_OK) {
        struct packer packer = {model->memory, model->memory + n_floats};
        pack(&packer, &weights, model);
    }
    mem_free(raw);
    return status;
}

void sasrec_parameters_free(struct sasrec *model)
{
    mem_free(model->memory);
    model->memory = NULL;
}
