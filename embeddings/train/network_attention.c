/* Attention pooling with its gradient: after every event j of a sequence the user vector as it
 * would be then, from the events 0 … j.
 *
 * Products over all events are BLAS calls; the pooling itself is one pass a pair of events, whose
 * weights are kept for the way back (T × L floats).
 *
 * Legend: T events of the batch, d dimension, L history_max, n events of a sequence. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/attention.h"
#include "embeddings/attention_internal.h"
#include "embeddings/train/kernels.h"
#include "embeddings/train/network.h"
#include "embeddings/train/parameters.h"
#include "embeddings/user_model_internal.h"
#include "embeddings/vector_math.h"

struct network {
    struct attention_settings settings;
    struct parameter_set parameters; /* ATTENTION_QUERY … */
    size_t tokens_max;
    float *memory;
    float *query, *pooled, *hidden;    /* [T × d] */
    float *weights;                    /* [T × L]: of event j for the events 0 … j */
    float *dquery, *dpooled, *dscores; /* [T × d], [T × d], [L] */
};

static size_t activation_floats(const struct attention_settings *s, size_t t)
{
    return 5 * floats_of_lines(t * s->dim) + floats_of_lines(t * s->history_max) +
           floats_of_lines(s->history_max);
}

static size_t attention_bytes(const struct network_config *config)
{
    const struct attention_settings *s = config->settings;
    struct model_tensor tensors[ATTENTION_TENSORS];
    size_t n_weights = 0;
    if (config->tokens_max > (size_t)1 << 24 || attention_settings_check(s, NULL) != STATUS_OK) {
        return SIZE_MAX;
    }
    attention_tensors(s, tensors);
    for (size_t i = 0; i < ATTENTION_TENSORS; i++) {
        n_weights += model_tensor_values(&tensors[i]);
    }
    return (activation_floats(s, config->tokens_max) + 2 * n_weights) * sizeof(float) +
           sizeof(struct network);
}

static void attention_close(struct network *net)
{
    if (net != NULL) {
        parameter_set_free(&net->parameters);
        mem_free(net->memory);
        mem_free(net);
    }
}

/* Near the mean of the history plus the newest event, from which it learns. */
static void initialise(struct network *net, uint64_t seed)
{
    struct network_parameter *items = net->parameters.items;
    size_t d = net->settings.dim;
    double limit = 0.1 / sqrt((double)d);
    weights_uniform(items[ATTENTION_QUERY].value, d * d, limit, seed);
    weights_uniform(items[ATTENTION_MIX].value, d * d, limit, seed + 1);
    weights_uniform(items[ATTENTION_NEWEST].value, d * d, limit, seed + 2);
    for (size_t c = 0; c < d; c++) {
        items[ATTENTION_MIX].value[c * d + c] += 1.0F;
        items[ATTENTION_NEWEST].value[c * d + c] += 1.0F;
    }
}

static enum status attention_open(const struct network_config *config, struct network **out,
                                  struct error *err)
{
    *out = NULL;
    const struct attention_settings *settings = config->settings;
    enum status status = attention_settings_check(settings, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct network *net = mem_calloc(1, sizeof(*net));
    if (net == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a network");
    }
    struct model_tensor tensors[ATTENTION_TENSORS];
    size_t t = config->tokens_max;
    net->settings = *settings;
    net->tokens_max = t;
    attention_tensors(settings, tensors);
    for (size_t i = 0; i < ATTENTION_TENSORS; i++) {
        bool is_matrix = tensors[i].rank == 2;
        (void)parameter_add(&net->parameters, tensors[i].name, is_matrix ? tensors[i].shape[0] : 1,
                            is_matrix ? tensors[i].shape[1] : tensors[i].shape[0], is_matrix);
    }
    status = parameter_set_allocate(&net->parameters, err);
    if (status == STATUS_OK) {
        net->memory = mem_alloc_vectors(activation_floats(settings, t), sizeof(float));
        status = net->memory != NULL
                     ? STATUS_OK
                     : error_set(err, STATUS_NOMEM, "activations of %zu events: no memory", t);
    }
    if (status != STATUS_OK) {
        attention_close(net);
        return status;
    }
    size_t td = floats_of_lines(t * settings->dim);
    net->query = net->memory;
    net->pooled = net->query + td;
    net->hidden = net->pooled + td;
    net->dquery = net->hidden + td;
    net->dpooled = net->dquery + td;
    net->weights = net->dpooled + td;
    net->dscores = net->weights + floats_of_lines(t * settings->history_max);
    initialise(net, config->seed);
    *out = net;
    return STATUS_OK;
}

static size_t attention_n_parameters(const struct network *net)
{
    return net->parameters.n;
}

static struct network_parameter *attention_parameter(struct network *net, size_t i)
{
    return &net->parameters.items[i];
}

static float dot(const float *a, const float *b, size_t n)
{
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (size_t c = 0; c < n; c++) {
        sum += a[c] * b[c];
    }
    return sum;
}

static void add_scaled(float *restrict out, const float *restrict x, float scale, size_t n)
{
#pragma omp simd
    for (size_t c = 0; c < n; c++) {
        out[c] += scale * x[c];
    }
}

/* ---- forward ---- */

/* weights [j + 1] and pooled [d] after event j of the sequence that begins at first. */
static void pool(struct network *net, const struct network_batch *batch, size_t first, size_t j)
{
    size_t d = net->settings.dim;
    size_t token = first + j;
    float scale = 1.0F / sqrtf((float)d);
    const float *recency = net->parameters.items[ATTENTION_RECENCY].value;
    const float *types = net->parameters.items[ATTENTION_TYPES].value;
    float *weights = net->weights + token * net->settings.history_max;
    float *pooled = net->pooled + token * d;
    float largest = -INFINITY;
    for (size_t i = 0; i <= j; i++) {
        weights[i] = dot(net->query + token * d, batch->inputs + (first + i) * d, d) * scale +
                     recency[j - i] + types[batch->events[first + i].type];
        largest = fmaxf(largest, weights[i]);
    }
    float sum = 0.0F;
    for (size_t i = 0; i <= j; i++) {
        weights[i] = exp_fast(weights[i] - largest);
        sum += weights[i];
    }
    memset(pooled, 0, d * sizeof(float));
    for (size_t i = 0; i <= j; i++) {
        weights[i] /= sum;
        add_scaled(pooled, batch->inputs + (first + i) * d, weights[i], d);
    }
}

static const float *attention_forward(struct network *net, const struct network_batch *batch)
{
    const struct network_parameter *items = net->parameters.items;
    size_t d = net->settings.dim;
    size_t t = batch->offsets[batch->n_sequences];
    linear_forward(batch->inputs, items[ATTENTION_QUERY].value, NULL, t, d, d, net->query);
#pragma omp parallel for schedule(dynamic, 16)
    for (size_t s = 0; s < batch->n_sequences; s++) {
        size_t first = batch->offsets[s];
        for (size_t j = 0; first + j < batch->offsets[s + 1]; j++) {
            pool(net, batch, first, j);
        }
    }
    linear_forward(net->pooled, items[ATTENTION_MIX].value, items[ATTENTION_BIAS].value, t, d, d,
                   net->hidden);
    linear_forward(batch->inputs, items[ATTENTION_NEWEST].value, NULL, t, d, d, net->dpooled);
#pragma omp parallel for simd schedule(static) if (t * d > 65536)
    for (size_t i = 0; i < t * d; i++) {
        net->hidden[i] += net->dpooled[i];
    }
    return net->hidden;
}

/* ---- backward ---- */

static void pool_gradient(struct network *net, const struct network_batch *batch, size_t first,
                          size_t j, float *dinputs)
{
    size_t d = net->settings.dim;
    size_t token = first + j;
    float scale = 1.0F / sqrtf((float)d);
    const float *weights = net->weights + token * net->settings.history_max;
    const float *dpooled = net->dpooled + token * d;
    float mean = 0.0F; /* Σ w dw */
    for (size_t i = 0; i <= j; i++) {
        net->dscores[i] = dot(dpooled, batch->inputs + (first + i) * d, d);
        mean += weights[i] * net->dscores[i];
    }
    float *dquery = net->dquery + token * d;
    memset(dquery, 0, d * sizeof(float));
    for (size_t i = 0; i <= j; i++) {
        float ds = weights[i] * (net->dscores[i] - mean);
        add_scaled(dinputs + (first + i) * d, dpooled, weights[i], d);
        add_scaled(dinputs + (first + i) * d, net->query + token * d, ds * scale, d);
        add_scaled(dquery, batch->inputs + (first + i) * d, ds * scale, d);
        net->parameters.items[ATTENTION_RECENCY].gradient[j - i] += ds;
        net->parameters.items[ATTENTION_TYPES].gradient[batch->events[first + i].type] += ds;
    }
}

static void attention_backward(struct network *net, const struct network_batch *batch,
                               float *hidden_gradient, float *input_gradient)
{
    struct network_parameter *items = net->parameters.items;
    size_t d = net->settings.dim;
    size_t t = batch->offsets[batch->n_sequences];
    const struct linear_gradients of_mix = {.weight = items[ATTENTION_MIX].gradient,
                                            .bias = items[ATTENTION_BIAS].gradient,
                                            .x = net->dpooled};
    const struct linear_gradients of_newest = {.weight = items[ATTENTION_NEWEST].gradient,
                                               .x = input_gradient};
    linear_backward(net->pooled, items[ATTENTION_MIX].value, hidden_gradient, t, d, d, &of_mix);
    linear_backward(batch->inputs, items[ATTENTION_NEWEST].value, hidden_gradient, t, d, d,
                    &of_newest);
    for (size_t s = 0; s < batch->n_sequences; s++) {
        size_t first = batch->offsets[s];
        for (size_t j = 0; first + j < batch->offsets[s + 1]; j++) {
            pool_gradient(net, batch, first, j, input_gradient);
        }
    }
    const struct linear_gradients of_query = {
        .weight = items[ATTENTION_QUERY].gradient, .x = input_gradient, .accumulate = true};
    linear_backward(batch->inputs, items[ATTENTION_QUERY].value, net->dquery, t, d, d, &of_query);
}

static enum status attention_write(const struct network *net, const char *path, size_t item_dim,
                                   struct error *err)
{
    struct attention_settings settings = net->settings;
    const struct network_parameter *items = net->parameters.items;
    const struct attention_weights weights = {
        .query = items[ATTENTION_QUERY].value,
        .recency = items[ATTENTION_RECENCY].value,
        .types = items[ATTENTION_TYPES].value,
        .mix = items[ATTENTION_MIX].value,
        .newest = items[ATTENTION_NEWEST].value,
        .bias = items[ATTENTION_BIAS].value,
    };
    settings.item_dim = item_dim;
    return attention_model_write(path, &settings, &weights, err);
}

const struct network_architecture network_attention = {
    .name = "attention",
    .open = attention_open,
    .close = attention_close,
    .n_parameters = attention_n_parameters,
    .parameter = attention_parameter,
    .forward = attention_forward,
    .backward = attention_backward,
    .write = attention_write,
    .bytes = attention_bytes,
};
