/* GRU4Rec with its gradient, by back-propagation through time over whole sequences.
 *
 * As in the forward pass of serving, products with the inputs are one call a layer over all events
 * of the batch, and those with the states one call a step over the sequences that still have one
 * (they are ordered by length, longest first). Backward runs the steps the other way, collects the
 * gradients of both products event by event, and makes the weights' gradients of them at once.
 *
 * Legend: T events of the batch, S sequences, d inputs, h hidden dimension. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/gru4rec.h"
#include "embeddings/gru4rec_internal.h"
#include "embeddings/gru4rec_kernel.h"
#include "embeddings/train/kernels.h"
#include "embeddings/train/network.h"
#include "embeddings/train/parameters.h"
#include "embeddings/user_model_internal.h"

struct layer {
    struct network_parameter *parameters; /* GRU4REC_INPUT_WEIGHT … */
    float *x;                             /* [T × in] inputs, dropped out; layer 0: the batch's */
    float *input_gates;                   /* [T × 3h] products with the inputs */
    float *hidden_n;                      /* [T × h] W_hn s + b_hn */
    float *r, *z, *n;                     /* [T × h] */
    float *before, *state;                /* [T × h] */
};

struct network {
    struct gru4rec_settings settings;
    struct parameter_set parameters;
    struct layer layers[GRU4REC_LAYERS_MAX];
    struct network_parameter *output; /* weight, then bias; NULL: none */
    size_t tokens_max;
    float *memory;
    float *hidden;      /* [T × d] of the output layer */
    float *states;      /* [S × h] by length */
    float *gates;       /* [S × 3h] */
    float *gate_inputs; /* [T × 3h] gradients of the products with the inputs */
    float *gate_hidden; /* [T × 3h] and with the states */
    float *step_hidden; /* [S × 3h] of one step */
    float *gradient[2]; /* [T × max(d, h)] */
    uint32_t *order;    /* [S] sequences, longest first */
    uint32_t *counts;   /* [tokens_max + 2] scratch of ordering */
};

static size_t widest(const struct gru4rec_settings *s)
{
    return s->dim > s->hidden_dim ? s->dim : s->hidden_dim;
}

static void carve_all(struct carver *carver, size_t t, struct network *net)
{
    const struct gru4rec_settings *s = &net->settings;
    size_t th = t * s->hidden_dim;
    for (size_t l = 0; l < s->n_layers; l++) {
        struct layer *layer = &net->layers[l];
        float **const states[] = {&layer->hidden_n, &layer->r,      &layer->z,
                                  &layer->n,        &layer->before, &layer->state};
        layer->x = carve(carver, t * widest(s));
        layer->input_gates = carve(carver, 3 * th);
        for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
            *states[i] = carve(carver, th);
        }
    }
    float **const gates[] = {&net->gates, &net->gate_inputs, &net->gate_hidden, &net->step_hidden};
    for (size_t i = 0; i < sizeof(gates) / sizeof(gates[0]); i++) {
        *gates[i] = carve(carver, 3 * th);
    }
    net->hidden = carve(carver, t * s->dim);
    net->states = carve(carver, th);
    net->gradient[0] = carve(carver, t * widest(s));
    net->gradient[1] = carve(carver, t * widest(s));
}

static size_t gru4rec_bytes(const struct network_config *config)
{
    const struct gru4rec_settings *settings = config->settings;
    struct network net = {.settings = *settings};
    struct model_tensor tensors[GRU4REC_TENSORS_MAX];
    size_t n_weights = 0;
    if (config->tokens_max > (size_t)1 << 24 ||
        gru4rec_settings_check(settings, NULL) != STATUS_OK) {
        return SIZE_MAX;
    }
    for (size_t i = gru4rec_tensors(settings, tensors); i-- > 0;) {
        n_weights += model_tensor_values(&tensors[i]);
    }
    struct carver carver = {NULL, 0};
    carve_all(&carver, config->tokens_max, &net);
    return (carver.used + 2 * n_weights) * sizeof(float) +
           (config->sequences_max + config->tokens_max + 3) * sizeof(uint32_t) + sizeof(net);
}

static void gru4rec_close(struct network *net)
{
    if (net != NULL) {
        parameter_set_free(&net->parameters);
        mem_free(net->memory);
        mem_free(net->order);
        mem_free(net->counts);
        mem_free(net);
    }
}

static enum status make_parameters(struct network *net, uint64_t seed, struct error *err)
{
    struct model_tensor tensors[GRU4REC_TENSORS_MAX];
    size_t n = gru4rec_tensors(&net->settings, tensors);
    for (size_t i = 0; i < n; i++) {
        bool is_matrix = tensors[i].rank == 2;
        struct network_parameter *added =
            parameter_add(&net->parameters, tensors[i].name, is_matrix ? tensors[i].shape[0] : 1,
                          is_matrix ? tensors[i].shape[1] : tensors[i].shape[0], is_matrix);
        if (i % GRU4REC_LAYER_TENSORS == 0 && i / GRU4REC_LAYER_TENSORS < net->settings.n_layers) {
            net->layers[i / GRU4REC_LAYER_TENSORS].parameters = added;
        }
        if (net->settings.has_output && i == n - 2) {
            net->output = added;
        }
    }
    enum status status = parameter_set_allocate(&net->parameters, err);
    for (size_t i = 0; status == STATUS_OK && i < n; i++) {
        struct network_parameter *p = &net->parameters.items[i];
        if (p->is_decayed) { /* Glorot, each gate a matrix of its own */
            double n_gates = i + 2 == n && net->output != NULL ? 1.0 : 3.0;
            /* NOLINTNEXTLINE(bugprone-integer-division) divides evenly */
            double fans = (double)p->n_rows / n_gates + (double)(p->n / p->n_rows);
            weights_uniform(p->value, p->n, sqrt(6.0 / fans), seed + i);
        }
    }
    return status;
}

static enum status gru4rec_open(const struct network_config *config, struct network **out,
                                struct error *err)
{
    *out = NULL;
    const struct gru4rec_settings *settings = config->settings;
    enum status status = gru4rec_settings_check(settings, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct network *net = mem_calloc(1, sizeof(*net));
    if (net == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a network");
    }
    net->settings = *settings;
    net->tokens_max = config->tokens_max;
    status = make_parameters(net, config->seed, err);
    if (status == STATUS_OK) {
        struct carver carver = {NULL, 0};
        carve_all(&carver, config->tokens_max, net);
        net->memory = mem_alloc_vectors(carver.used, sizeof(float));
        net->order = mem_alloc_array(config->sequences_max + 1, sizeof(*net->order));
        net->counts = mem_alloc_array(config->tokens_max + 2, sizeof(*net->counts));
        if (net->memory == NULL || net->order == NULL || net->counts == NULL) {
            status = error_set(err, STATUS_NOMEM, "activations of %zu events: no memory",
                               config->tokens_max);
        }
    }
    if (status != STATUS_OK) {
        gru4rec_close(net);
        return status;
    }
    struct carver carver = {net->memory, 0};
    carve_all(&carver, config->tokens_max, net);
    *out = net;
    return STATUS_OK;
}

static size_t gru4rec_n_parameters(const struct network *net)
{
    return net->parameters.n;
}

static struct network_parameter *gru4rec_parameter(struct network *net, size_t i)
{
    return &net->parameters.items[i];
}

/* ---- forward ---- */

static size_t length_of(const struct network_batch *batch, size_t s)
{
    return batch->offsets[s + 1] - batch->offsets[s];
}

/* Sequences by length, longest first: a counting sort. Returns the largest length. */
static size_t order_sequences(struct network *net, const struct network_batch *batch)
{
    size_t longest = 0;
    for (size_t s = 0; s < batch->n_sequences; s++) {
        longest = length_of(batch, s) > longest ? length_of(batch, s) : longest;
    }
    memset(net->counts, 0, (longest + 2) * sizeof(*net->counts));
    for (size_t s = 0; s < batch->n_sequences; s++) {
        net->counts[longest - length_of(batch, s) + 1]++;
    }
    for (size_t i = 0; i < longest; i++) {
        net->counts[i + 1] += net->counts[i];
    }
    for (size_t s = 0; s < batch->n_sequences; s++) {
        net->order[net->counts[longest - length_of(batch, s)]++] = (uint32_t)s;
    }
    return longest;
}

/* How many of the ordered sequences have a step. */
static size_t active_at(const struct network *net, const struct network_batch *batch, size_t step)
{
    size_t low = 0;
    size_t high = batch->n_sequences;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (length_of(batch, net->order[middle]) > step) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void forward_layer(struct network *net, size_t l, const struct network_batch *batch,
                          size_t n_steps)
{
    struct layer *layer = &net->layers[l];
    const struct network_parameter *p = layer->parameters;
    size_t h = net->settings.hidden_dim;
    size_t n_in = l == 0 ? net->settings.dim : h;
    size_t t = batch->offsets[batch->n_sequences];
    linear_forward(layer->x, p[GRU4REC_INPUT_WEIGHT].value, p[GRU4REC_INPUT_BIAS].value, t, n_in,
                   3 * h, layer->input_gates);
    memset(net->states, 0, batch->n_sequences * h * sizeof(float));
    for (size_t step = 0; step < n_steps; step++) {
        size_t n = active_at(net, batch, step);
        linear_forward(net->states, p[GRU4REC_HIDDEN_WEIGHT].value, p[GRU4REC_HIDDEN_BIAS].value, n,
                       h, 3 * h, net->gates);
        for (size_t a = 0; a < n; a++) {
            size_t token = batch->offsets[net->order[a]] + step;
            float *state = net->states + a * h;
            const float *gates = net->gates + a * 3 * h;
            memcpy(layer->before + token * h, state, h * sizeof(float));
            memcpy(layer->hidden_n + token * h, gates + 2 * h, h * sizeof(float));
            gru4rec_gates_keep(layer->input_gates + token * 3 * h, gates, h, state,
                               layer->r + token * h, layer->z + token * h, layer->n + token * h);
            memcpy(layer->state + token * h, state, h * sizeof(float));
        }
    }
}

static uint64_t layer_seed(const struct network_batch *batch, size_t layer)
{
    return batch->dropout_seed * 0x9e3779b97f4a7c15ULL + layer;
}

static const float *gru4rec_forward(struct network *net, const struct network_batch *batch)
{
    const struct gru4rec_settings *s = &net->settings;
    size_t t = batch->offsets[batch->n_sequences];
    size_t n_steps = order_sequences(net, batch);
    memcpy(net->layers[0].x, batch->inputs, t * s->dim * sizeof(float));
    for (size_t l = 0; l < s->n_layers; l++) {
        if (l > 0) {
            memcpy(net->layers[l].x, net->layers[l - 1].state, t * s->hidden_dim * sizeof(float));
            dropout_apply(net->layers[l].x, t * s->hidden_dim, batch->dropout,
                          layer_seed(batch, l));
        }
        forward_layer(net, l, batch, n_steps);
    }
    const float *states = net->layers[s->n_layers - 1].state;
    if (net->output == NULL) {
        return states;
    }
    linear_forward(states, net->output[0].value, net->output[1].value, t, s->hidden_dim, s->dim,
                   net->hidden);
    return net->hidden;
}

/* ---- backward ---- */

/* One event: gradient of the state after it → of both products [3h each] and, in carry, of the
 * state before it (without what comes through the product). */
static void step_gradient(const struct layer *layer, size_t token, size_t h, float *carry,
                          float *dinput, float *dhidden)
{
    const float *r = layer->r + token * h;
    const float *z = layer->z + token * h;
    const float *n = layer->n + token * h;
    const float *before = layer->before + token * h;
    const float *hidden_n = layer->hidden_n + token * h;
#pragma omp simd
    for (size_t c = 0; c < h; c++) {
        float ds = carry[c];
        float dn = ds * (1.0F - z[c]) * (1.0F - n[c] * n[c]);
        float dz = ds * (before[c] - n[c]) * z[c] * (1.0F - z[c]);
        float dr = dn * hidden_n[c] * r[c] * (1.0F - r[c]);
        dinput[c] = dr;
        dinput[h + c] = dz;
        dinput[2 * h + c] = dn;
        dhidden[c] = dr;
        dhidden[h + c] = dz;
        dhidden[2 * h + c] = dn * r[c];
        carry[c] = ds * z[c];
    }
}

static void add_row(float *restrict out, const float *restrict x, size_t n)
{
#pragma omp simd
    for (size_t c = 0; c < n; c++) {
        out[c] += x[c];
    }
}

/* dstates [T × h]: gradient of the layer's states; writes that of its inputs. */
static void backward_layer(struct network *net, size_t l, const struct network_batch *batch,
                           size_t n_steps, const float *dstates, float *dx)
{
    struct layer *layer = &net->layers[l];
    struct network_parameter *p = layer->parameters;
    size_t h = net->settings.hidden_dim;
    size_t n_in = l == 0 ? net->settings.dim : h;
    size_t t = batch->offsets[batch->n_sequences];
    float *carry = net->states; /* [S × h] */
    memset(carry, 0, batch->n_sequences * h * sizeof(float));
    for (size_t step = n_steps; step-- > 0;) {
        size_t n = active_at(net, batch, step);
        for (size_t a = 0; a < n; a++) {
            size_t token = batch->offsets[net->order[a]] + step;
            add_row(carry + a * h, dstates + token * h, h);
            step_gradient(layer, token, h, carry + a * h, net->gate_inputs + token * 3 * h,
                          net->step_hidden + a * 3 * h);
            memcpy(net->gate_hidden + token * 3 * h, net->step_hidden + a * 3 * h,
                   3 * h * sizeof(float));
        }
        const struct linear_gradients through = {.x = carry, .accumulate = true};
        linear_backward(carry, p[GRU4REC_HIDDEN_WEIGHT].value, net->step_hidden, n, h, 3 * h,
                        &through);
    }
    const struct linear_gradients of_hidden = {.weight = p[GRU4REC_HIDDEN_WEIGHT].gradient,
                                               .bias = p[GRU4REC_HIDDEN_BIAS].gradient};
    linear_backward(layer->before, p[GRU4REC_HIDDEN_WEIGHT].value, net->gate_hidden, t, h, 3 * h,
                    &of_hidden);
    const struct linear_gradients of_input = {.weight = p[GRU4REC_INPUT_WEIGHT].gradient,
                                              .bias = p[GRU4REC_INPUT_BIAS].gradient,
                                              .x = dx};
    linear_backward(layer->x, p[GRU4REC_INPUT_WEIGHT].value, net->gate_inputs, t, n_in, 3 * h,
                    &of_input);
}

static void gru4rec_backward(struct network *net, const struct network_batch *batch,
                             float *hidden_gradient, float *input_gradient)
{
    const struct gru4rec_settings *s = &net->settings;
    size_t t = batch->offsets[batch->n_sequences];
    size_t h = s->hidden_dim;
    size_t n_steps = order_sequences(net, batch);
    const float *dstates = hidden_gradient;
    if (net->output != NULL) {
        const struct linear_gradients out = {.weight = net->output[0].gradient,
                                             .bias = net->output[1].gradient,
                                             .x = net->gradient[0]};
        linear_backward(net->layers[s->n_layers - 1].state, net->output[0].value, hidden_gradient,
                        t, h, s->dim, &out);
        dstates = net->gradient[0];
    }
    for (size_t l = s->n_layers; l-- > 0;) {
        float *dx = l == 0 ? input_gradient : net->gradient[l % 2];
        if (dx == dstates) {
            dx = net->gradient[1 - l % 2];
        }
        backward_layer(net, l, batch, n_steps, dstates, dx);
        if (l > 0) {
            dropout_apply(dx, t * h, batch->dropout, layer_seed(batch, l));
        }
        dstates = dx;
    }
}

static enum status gru4rec_write(const struct network *net, const char *path, size_t item_dim,
                                 struct error *err)
{
    struct gru4rec_settings settings = net->settings;
    struct gru4rec_weights weights = {.output_weight = NULL};
    settings.item_dim = item_dim;
    for (size_t l = 0; l < settings.n_layers; l++) {
        const struct network_parameter *p = net->layers[l].parameters;
        weights.layers[l] =
            (struct gru4rec_layer){p[GRU4REC_INPUT_WEIGHT].value, p[GRU4REC_INPUT_BIAS].value,
                                   p[GRU4REC_HIDDEN_WEIGHT].value, p[GRU4REC_HIDDEN_BIAS].value};
    }
    if (net->output != NULL) {
        weights.output_weight = net->output[0].value;
        weights.output_bias = net->output[1].value;
    }
    return gru4rec_model_write(path, &settings, &weights, err);
}

const struct network_architecture network_gru4rec = {
    .name = "gru4rec",
    .open = gru4rec_open,
    .close = gru4rec_close,
    .n_parameters = gru4rec_n_parameters,
    .parameter = gru4rec_parameter,
    .forward = gru4rec_forward,
    .backward = gru4rec_backward,
    .write = gru4rec_write,
    .bytes = gru4rec_bytes,
};
