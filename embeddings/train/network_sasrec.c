/* SASRec with its gradient; the forward pass as embeddings/sasrec.h defines it, over all positions.
 *
 * A batch is packed without padding: every product is one pass over the T events of all sequences,
 * and only attention looks at sequences, one by one. Probabilities of attention are kept for the
 * way back (T × L × heads floats at most); recomputing them was slower for the short histories of
 * shops. Dropout masks are functions of a seed, not stored.
 *
 * attend_padding is for weights from elsewhere and is refused here: padding teaches nothing.
 *
 * Legend: T events of a batch, d dimension, F feed-forward width, L history_max, n events of a
 * sequence. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/sasrec.h"
#include "embeddings/train/attention_kernel.h"
#include "embeddings/train/kernels.h"
#include "embeddings/train/network.h"
#include "embeddings/train/parameters.h"

/* Places in the list of parameters; a block's own count from its first. */
enum { BLOCK_PARAMETERS = 16, GLOBAL_PARAMETERS_MAX = 7 };
enum block_parameter {
    ATTENTION_NORM_WEIGHT,
    ATTENTION_NORM_BIAS,
    QUERY_WEIGHT,
    QUERY_BIAS,
    KEY_WEIGHT,
    KEY_BIAS,
    VALUE_WEIGHT,
    VALUE_BIAS,
    OUTPUT_WEIGHT,
    OUTPUT_BIAS,
    FFN_NORM_WEIGHT,
    FFN_NORM_BIAS,
    UP_WEIGHT,
    UP_BIAS,
    DOWN_WEIGHT,
    DOWN_BIAS,
};

/* Activations of a block, kept for backward. */
struct block {
    struct network_parameter *parameters; /* [BLOCK_PARAMETERS] */
    float *x;                             /* [T × d] input */
    float *a;                             /* [T × d] norm_a(x); post-norm: norm_a(x + attention) */
    float *a_normed, *a_inverse;          /* [T × d], [T] */
    float *query, *key, *value;           /* [T × d] */
    float *probabilities;                 /* [T × L × heads] */
    float *context;                       /* [T × d] */
    float *y;                             /* [T × d] what norm_f takes; post-norm: y + ffn */
    float *f;                             /* [T × d] input of up: norm_f(y); post-norm: a */
    float *f_normed, *f_inverse;
    float *up, *active; /* [T × F] before and after activation */
};

struct network {
    struct sasrec_settings settings;
    struct parameter_set parameters;
    struct network_parameter *positions, *types, *gaps;
    struct network_parameter *embedding_norm, *final_norm; /* weight, then bias */
    struct block blocks[SASREC_BLOCKS_MAX];
    size_t tokens_max;
    float *activations; /* one block of memory */
    float *x0;          /* [T × d] before embedding_norm */
    float *x0_normed, *x0_inverse;
    float *last; /* [T × d] output of the last block */
    float *last_normed, *last_inverse;
    float *hidden;
    float *scratch[4];        /* [T × max(d, F)] */
    float *attention_scratch; /* of all threads */
};

/* ---- memory ---- */

/* NOLINTNEXTLINE(readability-function-cognitive-complexity) a plain list */
static enum status define_parameters(struct network *net, struct error *err)
{
    const struct sasrec_settings *s = &net->settings;
    struct parameter_set *set = &net->parameters;
    size_t d = s->dim;
    net->positions = parameter_add(set, "positions", s->history_max, d, false);
    net->types = s->has_types ? parameter_add(set, "types", N_EVENT_TYPES, d, false) : NULL;
    net->gaps =
        s->n_gap_buckets > 0 ? parameter_add(set, "gaps", s->n_gap_buckets, d, false) : NULL;
    if (s->has_embedding_norm) {
        net->embedding_norm = parameter_add(set, "embedding_norm.weight", 1, d, false);
        (void)parameter_add(set, "embedding_norm.bias", 1, d, false);
    }
    static const struct {
        const char *name;
        bool is_matrix, is_up, is_down;
    } SHAPES[BLOCK_PARAMETERS] = {
        {"attention_norm.weight", false, false, false},
        {"attention_norm.bias", false, false, false},
        {"attention.query.weight", true, false, false},
        {"attention.query.bias", false, false, false},
        {"attention.key.weight", true, false, false},
        {"attention.key.bias", false, false, false},
        {"attention.value.weight", true, false, false},
        {"attention.value.bias", false, false, false},
        {"attention.output.weight", true, false, false},
        {"attention.output.bias", false, false, false},
        {"ffn_norm.weight", false, false, false},
        {"ffn_norm.bias", false, false, false},
        {"ffn.up.weight", true, true, false},
        {"ffn.up.bias", false, true, false},
        {"ffn.down.weight", true, false, true},
        {"ffn.down.bias", false, false, false},
    };
    for (size_t b = 0; b < s->n_blocks; b++) {
        for (size_t p = 0; p < BLOCK_PARAMETERS; p++) {
            char name[64];
            (void)snprintf(name, sizeof(name), "blocks.%zu.%s", b, SHAPES[p].name);
            size_t n_rows = SHAPES[p].is_matrix ? (SHAPES[p].is_up ? s->ffn_dim : d) : 1;
            size_t n_columns = SHAPES[p].is_matrix ? (SHAPES[p].is_down ? s->ffn_dim : d)
                                                   : (SHAPES[p].is_up ? s->ffn_dim : d);
            struct network_parameter *added =
                parameter_add(set, name, n_rows, n_columns, SHAPES[p].is_matrix);
            if (p == 0) {
                net->blocks[b].parameters = added;
            }
        }
    }
    if (s->has_final_norm) {
        net->final_norm = parameter_add(set, "final_norm.weight", 1, d, false);
        (void)parameter_add(set, "final_norm.bias", 1, d, false);
    }
    return parameter_set_allocate(set, err);
}

static void initialise(struct network *net, uint64_t seed)
{
    for (size_t i = 0; i < net->parameters.n; i++) {
        struct network_parameter *p = &net->parameters.items[i];
        bool is_norm = strstr(p->name, "norm.weight") != NULL;
        if (is_norm) {
            weights_fill(p->value, p->n, 1.0F);
        } else if (p->is_decayed) { /* Glorot */
            /* NOLINTNEXTLINE(bugprone-integer-division) divides evenly */
            double fans = (double)p->n_rows + (double)(p->n / p->n_rows);
            weights_uniform(p->value, p->n, sqrt(6.0 / fans), seed + i);
        } else if (p->n_rows > 1) { /* positions, types, gaps */
            weights_normal(p->value, p->n, 0.02, seed + i);
        }
    }
}

static void carve_block(struct carver *carver, const struct sasrec_settings *s, size_t tokens,
                        struct block *block)
{
    size_t td = tokens * s->dim;
    float **const rows[] = {&block->x,   &block->a,       &block->a_normed, &block->query,
                            &block->key, &block->value,   &block->context,  &block->y,
                            &block->f,   &block->f_normed};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        *rows[i] = carve(carver, td);
    }
    block->a_inverse = carve(carver, tokens);
    block->f_inverse = carve(carver, tokens);
    block->probabilities = carve(carver, tokens * s->history_max * s->n_heads);
    block->up = carve(carver, tokens * s->ffn_dim);
    block->active = carve(carver, tokens * s->ffn_dim);
}

static void carve_all(struct carver *carver, const struct sasrec_settings *s, size_t tokens,
                      struct network *net)
{
    size_t td = tokens * s->dim;
    size_t widest = tokens * (s->dim > s->ffn_dim ? s->dim : s->ffn_dim);
    for (size_t b = 0; b < s->n_blocks; b++) {
        carve_block(carver, s, tokens, &net->blocks[b]);
    }
    float **const rows[] = {&net->x0, &net->x0_normed, &net->last, &net->last_normed, &net->hidden};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        *rows[i] = carve(carver, td);
    }
    net->x0_inverse = carve(carver, tokens);
    net->last_inverse = carve(carver, tokens);
    for (size_t i = 0; i < sizeof(net->scratch) / sizeof(net->scratch[0]); i++) {
        net->scratch[i] = carve(carver, widest);
    }
    net->attention_scratch =
        carve(carver, 3 * s->history_max * s->dim * (size_t)omp_get_max_threads());
}

static size_t sasrec_bytes(const struct network_config *config)
{
    const struct sasrec_settings *s = config->settings;
    struct network net = {.tokens_max = 0};
    struct carver carver = {NULL, 0};
    if (config->tokens_max > (size_t)1 << 24) {
        return SIZE_MAX;
    }
    carve_all(&carver, s, config->tokens_max, &net);
    size_t block_floats = 4 * s->dim * s->dim + 2 * s->dim * s->ffn_dim + 9 * s->dim + s->ffn_dim;
    return (carver.used + 2 * (s->n_blocks * block_floats + s->history_max * s->dim)) *
           sizeof(float);
}

static void sasrec_close(struct network *net)
{
    if (net != NULL) {
        parameter_set_free(&net->parameters);
        mem_free(net->activations);
        mem_free(net);
    }
}

static enum status sasrec_open(const struct network_config *config, struct network **out,
                               struct error *err)
{
    *out = NULL;
    const struct sasrec_settings *settings = config->settings;
    enum status status = sasrec_settings_check(settings, err);
    if (status == STATUS_OK && settings->attend_padding) {
        status = error_set_field(err, STATUS_INVALID, "attend_padding",
                                 "attend_padding cannot be trained");
    }
    if (status != STATUS_OK) {
        return status;
    }
    struct network *net = mem_calloc(1, sizeof(*net));
    if (net == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a network");
    }
    net->settings = *settings;
    net->tokens_max = config->tokens_max;
    status = define_parameters(net, err);
    if (status == STATUS_OK) {
        struct carver carver = {NULL, 0};
        carve_all(&carver, settings, config->tokens_max, net);
        net->activations = mem_alloc_vectors(carver.used, sizeof(float));
        if (net->activations == NULL) {
            status = error_set(err, STATUS_NOMEM, "activations of %zu events: no memory",
                               config->tokens_max);
        } else {
            carver = (struct carver){net->activations, 0};
            carve_all(&carver, settings, config->tokens_max, net);
            initialise(net, config->seed);
        }
    }
    if (status != STATUS_OK) {
        sasrec_close(net);
        return status;
    }
    *out = net;
    return STATUS_OK;
}

static size_t sasrec_n_parameters(const struct network *net)
{
    return net->parameters.n;
}

static struct network_parameter *sasrec_parameter(struct network *net, size_t i)
{
    return &net->parameters.items[i];
}

/* ---- forward ---- */

enum dropout_site { DROP_ATTENTION, DROP_ACTIVE, DROP_FFN, DROP_SITES };

static uint64_t site_seed(const struct network_batch *batch, size_t block, enum dropout_site site)
{
    return batch->dropout_seed * 0x9e3779b97f4a7c15ULL + block * DROP_SITES + (uint64_t)site + 1;
}

static size_t position_of(const struct sasrec_settings *s, size_t n, size_t j)
{
    return s->positions_right ? s->history_max - n + j : j;
}

static size_t gap_of(const struct sasrec_settings *s, const struct history_event *events, size_t i,
                     size_t first)
{
    int64_t before = i > first ? events[i - 1].time_ms : EVENT_TIME_UNKNOWN;
    return sasrec_gap_bucket(s, before, events[i].time_ms);
}

static void add_row(float *restrict out, const float *restrict row, size_t dim)
{
#pragma omp simd
    for (size_t c = 0; c < dim; c++) {
        out[c] += row[c];
    }
}

static void add_all(float *restrict out, const float *restrict x, size_t n)
{
#pragma omp parallel for simd schedule(static) if (n > 65536)
    for (size_t i = 0; i < n; i++) {
        out[i] += x[i];
    }
}

static void embed_positions(struct network *net, const struct network_batch *batch, float *x)
{
    const struct sasrec_settings *s = &net->settings;
    size_t d = s->dim;
    for (size_t q = 0; q < batch->n_sequences; q++) {
        size_t first = batch->offsets[q];
        size_t n = batch->offsets[q + 1] - first;
        for (size_t j = 0; j < n; j++) {
            size_t i = first + j;
            memcpy(x + i * d, batch->inputs + i * d, d * sizeof(float));
            add_row(x + i * d, net->positions->value + position_of(s, n, j) * d, d);
            if (net->types != NULL) {
                add_row(x + i * d, net->types->value + (size_t)batch->events[i].type * d, d);
            }
            if (net->gaps != NULL) {
                add_row(x + i * d, net->gaps->value + gap_of(s, batch->events, i, first) * d, d);
            }
        }
    }
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static void norm(const struct network *net, const struct network_parameter *p, const float *x,
                 size_t n, float *y, float *normed, float *inverse)
{
    norm_forward(x, p[0].value, p[1].value, net->settings.norm_epsilon, n, net->settings.dim, y,
                 normed, inverse);
}

static void project(const struct network_parameter *p, const float *x, size_t n_rows, size_t n_in,
                    size_t n_out, float *y)
{
    linear_forward(x, p[0].value, p[1].value, n_rows, n_in, n_out, y);
}

static void attend(const struct network *net, struct block *block,
                   const struct network_batch *batch, const float *query_input,
                   const float *key_input)
{
    const struct sasrec_settings *s = &net->settings;
    size_t t = batch->offsets[batch->n_sequences];
    const struct network_parameter *p = block->parameters;
    project(p + QUERY_WEIGHT, query_input, t, s->dim, s->dim, block->query);
    project(p + KEY_WEIGHT, key_input, t, s->dim, s->dim, block->key);
    project(p + VALUE_WEIGHT, key_input, t, s->dim, s->dim, block->value);
    const struct attention_shape shape = {batch->n_sequences, batch->offsets, s->dim, s->n_heads,
                                          s->history_max};
    attention_forward(&shape, block->query, block->key, block->value, block->probabilities,
                      block->context);
}

/* active = activation(up f), out = drop(down(drop(active))) */
static void feed_forward(const struct network *net, struct block *block,
                         const struct network_batch *batch, size_t b, float *out)
{
    const struct sasrec_settings *s = &net->settings;
    size_t t = batch->offsets[batch->n_sequences];
    const struct network_parameter *p = block->parameters;
    project(p + UP_WEIGHT, block->f, t, s->dim, s->ffn_dim, block->up);
    activation_forward(block->up, t * s->ffn_dim, s->activation == SASREC_GELU, block->active);
    dropout_apply(block->active, t * s->ffn_dim, batch->dropout, site_seed(batch, b, DROP_ACTIVE));
    project(p + DOWN_WEIGHT, block->active, t, s->ffn_dim, s->dim, out);
    dropout_apply(out, t * s->dim, batch->dropout, site_seed(batch, b, DROP_FFN));
}

static void forward_block(struct network *net, const struct network_batch *batch, size_t b,
                          float *out)
{
    const struct sasrec_settings *s = &net->settings;
    struct block *block = &net->blocks[b];
    const struct network_parameter *p = block->parameters;
    size_t t = batch->offsets[batch->n_sequences];
    size_t td = t * s->dim;
    float *attention = net->scratch[0];
    if (s->post_norm) {
        attend(net, block, batch, block->x, block->x);
    } else {
        norm(net, p + ATTENTION_NORM_WEIGHT, block->x, t, block->a, block->a_normed,
             block->a_inverse);
        attend(net, block, batch, block->a, s->norm_keys ? block->a : block->x);
    }
    project(p + OUTPUT_WEIGHT, block->context, t, s->dim, s->dim, attention);
    dropout_apply(attention, td, batch->dropout, site_seed(batch, b, DROP_ATTENTION));
    if (s->post_norm) {
        add_all(attention, block->x, td);
        norm(net, p + ATTENTION_NORM_WEIGHT, attention, t, block->a, block->a_normed,
             block->a_inverse);
        memcpy(block->f, block->a, td * sizeof(float));
        feed_forward(net, block, batch, b, block->y);
        add_all(block->y, block->a, td);
        norm(net, p + FFN_NORM_WEIGHT, block->y, t, out, block->f_normed, block->f_inverse);
        return;
    }
    memcpy(block->y, s->residual_normed ? block->a : block->x, td * sizeof(float));
    add_all(block->y, attention, td);
    norm(net, p + FFN_NORM_WEIGHT, block->y, t, block->f, block->f_normed, block->f_inverse);
    feed_forward(net, block, batch, b, out);
    add_all(out, s->residual_normed ? block->f : block->y, td);
}

static const float *sasrec_forward(struct network *net, const struct network_batch *batch)
{
    const struct sasrec_settings *s = &net->settings;
    size_t t = batch->offsets[batch->n_sequences];
    float *first = net->blocks[0].x;
    if (s->has_embedding_norm) {
        embed_positions(net, batch, net->x0);
        norm(net, net->embedding_norm, net->x0, t, first, net->x0_normed, net->x0_inverse);
    } else {
        embed_positions(net, batch, first);
    }
    for (size_t b = 0; b < s->n_blocks; b++) {
        forward_block(net, batch, b, b + 1 < s->n_blocks ? net->blocks[b + 1].x : net->last);
    }
    if (!s->has_final_norm) {
        return net->last;
    }
    norm(net, net->final_norm, net->last, t, net->hidden, net->last_normed, net->last_inverse);
    return net->hidden;
}

/* ---- backward ---- */

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static void norm_gradient(struct network *net, struct network_parameter *p, const float *dy,
                          const float *normed, const float *inverse, size_t n, float *dx)
{
    norm_backward(dy, p[0].value, normed, inverse, n, net->settings.dim, dx, p[0].gradient,
                  p[1].gradient);
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static void project_gradient(struct network_parameter *p, const float *x, const float *dy,
                             size_t n_rows, size_t n_in, size_t n_out, float *dx, bool accumulate)
{
    const struct linear_gradients out = {p[0].gradient, p[1].gradient, dx, accumulate};
    linear_backward(x, p[0].value, dy, n_rows, n_in, n_out, &out);
}

/* From the gradient of feed_forward's output (destroyed): df (written). */
static void feed_forward_gradient(struct network *net, struct block *block,
                                  const struct network_batch *batch, size_t b, float *dout,
                                  float *df)
{
    const struct sasrec_settings *s = &net->settings;
    size_t t = batch->offsets[batch->n_sequences];
    struct network_parameter *p = block->parameters;
    float *dactive = net->scratch[3];
    dropout_apply(dout, t * s->dim, batch->dropout, site_seed(batch, b, DROP_FFN));
    project_gradient(p + DOWN_WEIGHT, block->active, dout, t, s->ffn_dim, s->dim, dactive, false);
    dropout_apply(dactive, t * s->ffn_dim, batch->dropout, site_seed(batch, b, DROP_ACTIVE));
    activation_backward(block->up, t * s->ffn_dim, s->activation == SASREC_GELU, dactive);
    project_gradient(p + UP_WEIGHT, block->f, dactive, t, s->dim, s->ffn_dim, df, false);
}

/* From the gradient of the attention's output (destroyed): dquery_input += and dkey_input += (the
 * two may be one). */
/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static void attend_gradient(struct network *net, struct block *block,
                            const struct network_batch *batch, size_t b, float *dout,
                            const float *query_input, const float *key_input, float *dquery_input,
                            float *dkey_input)
{
    const struct sasrec_settings *s = &net->settings;
    size_t t = batch->offsets[batch->n_sequences];
    size_t d = s->dim;
    struct network_parameter *p = block->parameters;
    float *dcontext = net->scratch[3];
    dropout_apply(dout, t * d, batch->dropout, site_seed(batch, b, DROP_ATTENTION));
    project_gradient(p + OUTPUT_WEIGHT, block->context, dout, t, d, d, dcontext, false);
    const struct attention_shape shape = {batch->n_sequences, batch->offsets, d, s->n_heads,
                                          s->history_max};
    /* query, key and value are replaced by their gradients. */
    attention_backward(&shape, dcontext, block->query, block->key, block->value,
                       block->probabilities, net->attention_scratch);
    project_gradient(p + QUERY_WEIGHT, query_input, block->query, t, d, d, dquery_input, true);
    project_gradient(p + KEY_WEIGHT, key_input, block->key, t, d, d, dkey_input, true);
    project_gradient(p + VALUE_WEIGHT, key_input, block->value, t, d, d, dkey_input, true);
}

/* dout [T × d] (destroyed) → dx [T × d] (written; another place) */
static void backward_block(struct network *net, const struct network_batch *batch, size_t b,
                           float *dout, float *dx)
{
    const struct sasrec_settings *s = &net->settings;
    struct block *block = &net->blocks[b];
    struct network_parameter *p = block->parameters;
    size_t t = batch->offsets[batch->n_sequences];
    size_t td = t * s->dim;
    float *dy = net->scratch[0];
    float *df = net->scratch[1];
    if (s->post_norm) {
        memset(dy, 0, td * sizeof(float)); /* of y + ffn(y) */
        norm_gradient(net, p + FFN_NORM_WEIGHT, dout, block->f_normed, block->f_inverse, t, dy);
        memcpy(dout, dy, td * sizeof(float));
        feed_forward_gradient(net, block, batch, b, dy, df);
        add_all(df, dout, td); /* of a */
        memset(dy, 0, td * sizeof(float));
        norm_gradient(net, p + ATTENTION_NORM_WEIGHT, df, block->a_normed, block->a_inverse, t, dy);
        memcpy(dx, dy, td * sizeof(float)); /* residual */
        attend_gradient(net, block, batch, b, dy, block->x, block->x, dx, dx);
        return;
    }
    memcpy(dy, dout, td * sizeof(float));
    feed_forward_gradient(net, block, batch, b, dy, df);
    if (s->residual_normed) {
        add_all(df, dout, td);
        memset(dy, 0, td * sizeof(float));
    } else {
        memcpy(dy, dout, td * sizeof(float));
    }
    norm_gradient(net, p + FFN_NORM_WEIGHT, df, block->f_normed, block->f_inverse, t, dy);
    float *da = df; /* of norm_a(x) */
    if (s->residual_normed) {
        memcpy(da, dy, td * sizeof(float));
        memset(dx, 0, td * sizeof(float));
    } else {
        memset(da, 0, td * sizeof(float));
        memcpy(dx, dy, td * sizeof(float));
    }
    attend_gradient(net, block, batch, b, dy, block->a, s->norm_keys ? block->a : block->x, da,
                    s->norm_keys ? da : dx);
    norm_gradient(net, p + ATTENTION_NORM_WEIGHT, da, block->a_normed, block->a_inverse, t, dx);
}

static void positions_gradient(struct network *net, const struct network_batch *batch,
                               const float *dx)
{
    const struct sasrec_settings *s = &net->settings;
    size_t d = s->dim;
    for (size_t q = 0; q < batch->n_sequences; q++) {
        size_t first = batch->offsets[q];
        size_t n = batch->offsets[q + 1] - first;
        for (size_t j = 0; j < n; j++) {
            size_t i = first + j;
            add_row(net->positions->gradient + position_of(s, n, j) * d, dx + i * d, d);
            if (net->types != NULL) {
                add_row(net->types->gradient + (size_t)batch->events[i].type * d, dx + i * d, d);
            }
            if (net->gaps != NULL) {
                add_row(net->gaps->gradient + gap_of(s, batch->events, i, first) * d, dx + i * d,
                        d);
            }
        }
    }
}

static void sasrec_backward(struct network *net, const struct network_batch *batch,
                            float *hidden_gradient, float *input_gradient)
{
    const struct sasrec_settings *s = &net->settings;
    size_t t = batch->offsets[batch->n_sequences];
    size_t td = t * s->dim;
    float *dout = net->scratch[2];
    if (s->has_final_norm) {
        memset(dout, 0, td * sizeof(float));
        norm_gradient(net, net->final_norm, hidden_gradient, net->last_normed, net->last_inverse, t,
                      dout);
    } else {
        memcpy(dout, hidden_gradient, td * sizeof(float));
    }
    for (size_t b = s->n_blocks; b-- > 0;) {
        backward_block(net, batch, b, dout, input_gradient);
        memcpy(dout, input_gradient, td * sizeof(float));
    }
    if (s->has_embedding_norm) {
        memset(input_gradient, 0, td * sizeof(float));
        norm_gradient(net, net->embedding_norm, dout, net->x0_normed, net->x0_inverse, t,
                      input_gradient);
    }
    positions_gradient(net, batch, input_gradient);
}

/* ---- writing ---- */

static struct sasrec_norm norm_weights(const struct network_parameter *p)
{
    return (struct sasrec_norm){p[0].value, p[1].value};
}

static struct sasrec_linear linear_weights(const struct network_parameter *p)
{
    return (struct sasrec_linear){p[0].value, p[1].value};
}

static enum status sasrec_write(const struct network *net, const char *path, size_t item_dim,
                                struct error *err)
{
    struct sasrec_settings settings = net->settings;
    struct sasrec_weights weights = {
        .positions = net->positions->value,
        .types = net->types != NULL ? net->types->value : NULL,
        .gaps = net->gaps != NULL ? net->gaps->value : NULL,
    };
    settings.item_dim = item_dim;
    if (settings.has_embedding_norm) {
        weights.embedding_norm = norm_weights(net->embedding_norm);
    }
    if (settings.has_final_norm) {
        weights.final_norm = norm_weights(net->final_norm);
    }
    for (size_t b = 0; b < settings.n_blocks; b++) {
        const struct network_parameter *p = net->blocks[b].parameters;
        weights.blocks[b] = (struct sasrec_block){
            .attention_norm = norm_weights(p + ATTENTION_NORM_WEIGHT),
            .query = linear_weights(p + QUERY_WEIGHT),
            .key = linear_weights(p + KEY_WEIGHT),
            .value = linear_weights(p + VALUE_WEIGHT),
            .output = linear_weights(p + OUTPUT_WEIGHT),
            .ffn_norm = norm_weights(p + FFN_NORM_WEIGHT),
            .up = linear_weights(p + UP_WEIGHT),
            .down = linear_weights(p + DOWN_WEIGHT),
        };
    }
    return sasrec_model_write(path, &settings, &weights, err);
}

const struct network_architecture network_sasrec = {
    .name = "sasrec",
    .open = sasrec_open,
    .close = sasrec_close,
    .n_parameters = sasrec_n_parameters,
    .parameter = sasrec_parameter,
    .forward = sasrec_forward,
    .backward = sasrec_backward,
    .write = sasrec_write,
    .bytes = sasrec_bytes,
};
