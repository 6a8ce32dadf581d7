#include "embeddings/sasrec.h"

#include <assert.h>
#include <cblas.h>
#include <float.h>
#include <string.h>

#include "base/alloc.h"
#include "base/vectors.h"
#include "embeddings/kernels.h"
#include "embeddings/sasrec_internal.h"
#include "embeddings/user_model_internal.h"

/* The forward pass of SASRec; sasrec.h defines the network. Legend: T tokens (events) of a group of
 * users, U users of it, d dimension, F feed-forward width, L history_max, n events of one user.
 *
 * Ragged histories are packed without padding, oldest event first, so that the projections and the
 * feed-forward layer are one product over all tokens of a group. Users are taken in groups of at
 * most GROUP_TOKENS tokens (or one user), so that scratch memory stays in the second cache and does
 * not grow with the batch. Larger groups were measured and are slower: 16 users of 50 events, d 64,
 * F 64, take 39.6 µs each in groups of 64 tokens, 43.8 of 128, 46.4 of 1024 (AMD EPYC with AVX-512,
 * whose OpenBLAS 0.3.21 does small products without copying). Attention goes user by user and
 * head by head in blocks of query rows, each against the keys up to its last row only, which is
 * little more than the causal half of the work.
 *
 * In the last block only the newest event of a user is a query, so that no key or value is formed
 * at all: q · (K x_j) = (Kᵀ q) · x_j and Σ p_j V x_j = V Σ p_j x_j, two products of one row a user
 * in place of two over all of its tokens. Rejected: attention as one padded batched product (half
 * its work masked, and rows of other lengths in one call); keys and values kept between requests
 * (positions shift by one with each event). */

enum { GROUP_TOKENS = 64, GROUP_USERS = 128, QUERY_ROWS = 16, LINE_FLOATS = 16 };

struct span {
    size_t user;  /* in the batch */
    size_t first; /* its first token in the group */
    size_t n;     /* ≥ 1 */
};

/* A group of users and the scratch memory it is computed in. */
struct pass {
    const struct sasrec *model;
    const struct vectors *items;
    const struct history_batch *batch;
    struct span spans[GROUP_USERS];
    size_t n_spans, n_tokens;
    float *x, *normed;           /* [T × d] residual stream and what a norm made of it */
    float *wide;                 /* [T × max(3d, F)] */
    float *context, *product;    /* [T × d] */
    float *newest, *newest_norm; /* [U × d] rows of x and normed of the newest events */
    float *keys;                 /* [d / heads × scores_ld] keys of a head, turned */
    float *scores;               /* [QUERY_ROWS × scores_ld] */
    float *item;                 /* [D] */
    size_t scores_ld;
};

struct matrices {
    const float *a; /* [m × k] */
    const float *b; /* [k × n] */
    float *c;       /* [m × n] = a b */
    size_t lda, ldb, ldc;
    size_t m, n, k;
};

static void multiply(const struct matrices *p)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)p->m, (blasint)p->n,
                (blasint)p->k, 1.0F, p->a, (blasint)p->lda, p->b, (blasint)p->ldb, 0.0F, p->c,
                (blasint)p->ldc);
}

/* Dense row-major matrices. */
static void multiply_dense(const float *a, const float *b, float *c, size_t m, size_t n, size_t k)
{
    multiply(&(struct matrices){a, b, c, k, n, n, m, n, k});
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t tokens_max(const struct sasrec *model, size_t n_users_max)
{
    const size_t history_max = model->settings.history_max;
    const size_t group = larger(history_max, GROUP_TOKENS);
    return n_users_max > group / history_max ? group : n_users_max * history_max;
}

/* The next n floats of scratch memory; only counts when there is none yet. */
static float *take(float *scratch, size_t *used, size_t n)
{
    float *piece = scratch != NULL ? scratch + *used : NULL;
    *used += (n + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
    return piece;
}

static size_t lay_out(struct pass *pass, size_t item_dim, size_t n_users_max, float *scratch)
{
    const struct sasrec_settings *settings = &pass->model->settings;
    const size_t dim = settings->dim;
    const size_t tokens = tokens_max(pass->model, n_users_max);
    const size_t users = smaller(n_users_max, GROUP_USERS);
    size_t used = 0;
    pass->scores_ld = (settings->history_max + 1 + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
    pass->x = take(scratch, &used, tokens * dim);
    pass->normed = take(scratch, &used, tokens * dim);
    pass->wide = take(scratch, &used, tokens * larger(3 * dim, settings->ffn_dim));
    pass->context = take(scratch, &used, tokens * dim);
    pass->product = take(scratch, &used, tokens * dim);
    pass->newest = take(scratch, &used, users * dim);
    pass->newest_norm = take(scratch, &used, users * dim);
    pass->keys = take(scratch, &used, dim / settings->n_heads * pass->scores_ld);
    pass->scores = take(scratch, &used, QUERY_ROWS * pass->scores_ld);
    pass->item = take(scratch, &used, item_dim);
    return used;
}

static bool sasrec_workspace_floats(const void *parameters, size_t dim, size_t n_users_max,
                                    size_t *out)
{
    struct pass pass = {.model = parameters};
    *out = lay_out(&pass, dim, n_users_max, NULL);
    return true;
}

static size_t events_used(const struct sasrec *model, const struct history_batch *batch, size_t b)
{
    return smaller(batch->offsets[b + 1] - batch->offsets[b], model->settings.history_max);
}

/* Fills the group with users from `next` on; returns the first that is for another group. */
static size_t gather_group(struct pass *pass, size_t next, size_t n_tokens_max)
{
    pass->n_spans = 0;
    pass->n_tokens = 0;
    while (next < pass->batch->n_users && pass->n_spans < GROUP_USERS) {
        const size_t n = events_used(pass->model, pass->batch, next);
        if (pass->n_tokens + n > n_tokens_max) {
            break;
        }
        if (n > 0) {
            pass->spans[pass->n_spans++] = (struct span){next, pass->n_tokens, n};
            pass->n_tokens += n;
        }
        next++;
    }
    return next;
}

/* Rows are anywhere in a large table: asked for all at once, their misses overlap. */
static void prefetch_items(const struct pass *pass, const struct span *span)
{
    enum { CACHE_LINE_BYTES = 64 };
    const struct vectors *items = pass->items;
    const struct history_event *events = pass->batch->events + pass->batch->offsets[span->user];
    const size_t value_bytes = items->type == VECTOR_F32 ? sizeof(float) : sizeof(uint16_t);
    const size_t used_bytes = pass->model->settings.dim * value_bytes;
    for (size_t i = 0; i < span->n; i++) {
        const char *row =
            (const char *)items->data + (size_t)events[i].row * items->dim * value_bytes;
        for (size_t offset = 0; offset < used_bytes; offset += CACHE_LINE_BYTES) {
            __builtin_prefetch(row + offset);
        }
    }
}

/* Events come newest first; the network reads from the oldest on. */
static void embed_events(struct pass *pass, const struct span *span)
{
    const struct sasrec *model = pass->model;
    const struct sasrec_settings *settings = &model->settings;
    const size_t dim = settings->dim;
    const struct vectors *items = pass->items;
    const struct history_event *events = pass->batch->events + pass->batch->offsets[span->user];
    const float *positions =
        model->positions +
        (settings->positions_right ? (settings->history_max - span->n) * dim : 0);
    for (size_t j = 0; j < span->n; j++) {
        const size_t i = span->n - 1 - j;
        float *x = pass->x + (span->first + j) * dim;
        assert(events[i].row < items->n && (unsigned)events[i].type < N_EVENT_TYPES);
        const float *item = pass->item;
        if (items->type == VECTOR_F32) {
            item = (const float *)items->data + (size_t)events[i].row * items->dim;
        } else {
            vectors_row(items, events[i].row, pass->item);
        }
        kernel_scaled_sum(item, (float)settings->input_scale, positions + j * dim, dim, x);
        if (model->types != NULL) {
            kernel_bias_rows(x, dim, 1, dim, model->types + (size_t)events[i].type * dim);
        }
        if (model->gaps != NULL) {
            const int64_t before = j > 0 ? events[i + 1].time_ms : EVENT_TIME_UNKNOWN;
            const size_t bucket = sasrec_gap_bucket(settings, before, events[i].time_ms);
            kernel_bias_rows(x, dim, 1, dim, model->gaps + bucket * dim);
        }
    }
}

static void embed_group(struct pass *pass)
{
    const struct sasrec *model = pass->model;
    const size_t dim = model->settings.dim;
    for (size_t s = 0; s < pass->n_spans; s++) {
        prefetch_items(pass, &pass->spans[s]);
    }
    for (size_t s = 0; s < pass->n_spans; s++) {
        embed_events(pass, &pass->spans[s]);
    }
    if (model->settings.has_embedding_norm) {
        kernel_norm_rows(pass->x, pass->n_tokens, dim, &model->embedding_norm, pass->x);
    }
    if (!model->settings.post_norm) {
        kernel_norm_rows(pass->x, pass->n_tokens, dim, &model->layers[0].attention_norm,
                         pass->normed);
    }
}

/* What queries, and what keys and values are made of. */
static float *query_input(const struct pass *pass)
{
    return pass->model->settings.post_norm ? pass->x : pass->normed;
}

static float *key_input(const struct pass *pass)
{
    return pass->model->settings.norm_keys ? query_input(pass) : pass->x;
}

/* How many padded positions stand before a user's events. */
static size_t padding(const struct pass *pass, const struct span *span)
{
    const struct sasrec_settings *settings = &pass->model->settings;
    return settings->attend_padding ? settings->history_max - span->n : 0;
}

/* Causal attention of one head of one user from queries, keys and values in pass->wide. Padded
 * positions are equal, so that they are one column, the first, that counts many times. */
static void attend(struct pass *pass, const struct sasrec_layer *layer, const struct span *span,
                   size_t head)
{
    const size_t dim = pass->model->settings.dim;
    const size_t head_dim = dim / pass->model->settings.n_heads;
    const size_t n_padded = padding(pass, span);
    const size_t pad = n_padded > 0 ? 1 : 0;
    const size_t ld = pass->scores_ld;
    const float *query = pass->wide + span->first * 3 * dim + head * head_dim;
    const float *key = query + dim;
    const float *value = query + 2 * dim;
    float *context = pass->context + span->first * dim + head * head_dim;
    kernel_transpose(key, 3 * dim, span->n, head_dim, pass->keys + pad, ld);
    for (size_t c = 0; pad > 0 && c < head_dim; c++) {
        pass->keys[c * ld] = layer->pad_key != NULL ? layer->pad_key[head * head_dim + c] : 0.0F;
    }
    for (size_t first = 0; first < span->n; first += QUERY_ROWS) {
        const size_t n_rows = smaller(QUERY_ROWS, span->n - first);
        const size_t width = pad + first + n_rows;
        multiply(&(struct matrices){query + first * 3 * dim, pass->keys, pass->scores, 3 * dim, ld,
                                    ld, n_rows, width, head_dim});
        kernel_softmax_causal(pass->scores,
                              &(struct kernel_causal){ld, n_rows, pad + first + 1, width,
                                                      pad > 0 ? (float)n_padded : 1.0F});
        multiply(&(struct matrices){pass->scores + pad, value, context + first * dim, ld, 3 * dim,
                                    dim, n_rows, head_dim, width - pad});
        if (pad > 0 && layer->pad_value != NULL) {
            cblas_sger(CblasRowMajor, (blasint)n_rows, (blasint)head_dim, 1.0F, pass->scores,
                       (blasint)ld, layer->pad_value + head * head_dim, 1, context + first * dim,
                       (blasint)dim);
        }
    }
}

/* What follows attention in a block, for n_rows rows: its output layer, the feed-forward layer, the
 * residual connections and norms. x and normed come and go as in struct pass; `next` is the norm
 * that is to make normed from the new x (pre-norm). */
static void finish_block(const struct pass *pass, const struct sasrec_layer *layer,
                         const struct kernel_norm *next, size_t n_rows, float *x, float *normed)
{
    const struct sasrec_settings *settings = &pass->model->settings;
    const size_t dim = settings->dim;
    const bool post = settings->post_norm;
    float *ffn_input = post ? x : normed;
    struct kernel_residual residual = {
        .a = settings->residual_normed ? ffn_input : x,
        .product = pass->product,
        .bias = layer->output_bias,
        .sum = x,
        .norm = post ? &layer->attention_norm : &layer->ffn_norm,
        .normed = ffn_input,
    };
    multiply_dense(pass->context, layer->output, pass->product, n_rows, dim, dim);
    kernel_residual_rows(&residual, n_rows, dim);
    multiply_dense(ffn_input, layer->up, pass->wide, n_rows, settings->ffn_dim, dim);
    if (settings->activation == SASREC_RELU) {
        kernel_bias_relu_rows(pass->wide, n_rows, settings->ffn_dim, layer->up_bias);
    } else {
        kernel_bias_gelu_rows(pass->wide, n_rows, settings->ffn_dim, layer->up_bias);
    }
    multiply_dense(pass->wide, layer->down, pass->product, n_rows, dim, settings->ffn_dim);
    residual.bias = layer->down_bias;
    residual.norm = post ? &layer->ffn_norm : next;
    kernel_residual_rows(&residual, n_rows, dim);
}

static void inner_block(struct pass *pass, const struct sasrec_layer *layer,
                        const struct kernel_norm *next)
{
    const size_t dim = pass->model->settings.dim;
    const float *queries = query_input(pass);
    const float *keys = key_input(pass);
    struct matrices p = {queries, layer->query_key_value, pass->wide, dim, 3 * dim,
                         3 * dim, pass->n_tokens,         3 * dim,    dim};
    if (keys != queries) {
        p.n = dim;
        multiply(&p);
        p = (struct matrices){keys,
                              layer->query_key_value + dim,
                              pass->wide + dim,
                              dim,
                              3 * dim,
                              3 * dim,
                              pass->n_tokens,
                              2 * dim,
                              dim};
    }
    multiply(&p);
    kernel_bias_rows(pass->wide, 3 * dim, pass->n_tokens, dim, layer->query_bias);
    for (size_t s = 0; s < pass->n_spans; s++) {
        for (size_t head = 0; head < pass->model->settings.n_heads; head++) {
            attend(pass, layer, &pass->spans[s], head);
        }
    }
    finish_block(pass, layer, next, pass->n_tokens, pass->x, pass->normed);
}

/* mean[d] = what one query attends to: the mean of the inputs of a user's keys, weighted by the
 * softmax of their inner products with absorbed[d]. */
static void attend_newest(struct pass *pass, const struct sasrec_layer *layer,
                          const struct span *span, const float *absorbed, float *mean)
{
    const size_t dim = pass->model->settings.dim;
    const float *inputs = key_input(pass) + span->first * dim;
    const size_t n_padded = padding(pass, span);
    const size_t pad = n_padded > 0 ? 1 : 0;
    float *scores = pass->scores;
    if (pad > 0) {
        scores[0] = 0.0F;
        if (layer->pad_input != NULL) {
            kernel_dot_rows(layer->pad_input, dim, 1, dim, absorbed, scores);
        }
    }
    kernel_dot_rows(inputs, dim, span->n, dim, absorbed, scores + pad);
    kernel_softmax_causal(scores,
                          &(struct kernel_causal){pass->scores_ld, 1, pad + span->n, pad + span->n,
                                                  pad > 0 ? (float)n_padded : 1.0F});
    kernel_weighted_rows(inputs, dim, span->n, dim, scores + pad, mean);
    if (pad > 0 && layer->pad_input != NULL) {
        kernel_scaled_sum(layer->pad_input, scores[0], mean, dim, mean);
    }
}

static void last_block(struct pass *pass, const struct sasrec_layer *layer,
                       const struct kernel_norm *next)
{
    const struct sasrec_settings *settings = &pass->model->settings;
    const size_t dim = settings->dim;
    const size_t head_dim = dim / settings->n_heads;
    const size_t n = pass->n_spans;
    float *query = pass->wide;              /* [U × d] */
    float *absorbed = pass->wide + n * dim; /* [U × d] of one head */
    float *mean = absorbed + n * dim;       /* [U × d] of one head */
    for (size_t s = 0; s < n; s++) {
        const size_t token = pass->spans[s].first + pass->spans[s].n - 1;
        memcpy(pass->newest + s * dim, pass->x + token * dim, dim * sizeof(float));
        memcpy(pass->newest_norm + s * dim, pass->normed + token * dim,
               settings->post_norm ? 0 : dim * sizeof(float));
    }
    multiply_dense(settings->post_norm ? pass->newest : pass->newest_norm, layer->query, query, n,
                   dim, dim);
    kernel_bias_rows(query, dim, n, dim, layer->query_bias);
    for (size_t head = 0; head < settings->n_heads; head++) {
        multiply(&(struct matrices){query + head * head_dim, layer->key + head * head_dim * dim,
                                    absorbed, dim, dim, dim, n, dim, head_dim});
        for (size_t s = 0; s < n; s++) {
            attend_newest(pass, layer, &pass->spans[s], absorbed + s * dim, mean + s * dim);
        }
        multiply(&(struct matrices){mean, layer->value + head * head_dim,
                                    pass->context + head * head_dim, dim, dim, dim, n, head_dim,
                                    dim});
    }
    finish_block(pass, layer, next, n, pass->newest, pass->newest_norm);
}

static void embed_users(struct pass *pass, float *out)
{
    const struct sasrec *model = pass->model;
    const struct sasrec_settings *settings = &model->settings;
    const size_t n_blocks = settings->n_blocks;
    const struct kernel_norm *final_norm = settings->has_final_norm ? &model->final_norm : NULL;
    embed_group(pass);
    for (size_t i = 0; i + 1 < n_blocks; i++) {
        inner_block(pass, &model->layers[i], &model->layers[i + 1].attention_norm);
    }
    last_block(pass, &model->layers[n_blocks - 1], final_norm);
    const float *hidden = pass->newest;
    if (final_norm != NULL) {
        hidden = pass->newest_norm;
        if (settings->post_norm) {
            kernel_norm_rows(pass->newest, pass->n_spans, settings->dim, final_norm,
                             pass->newest_norm);
        }
    }
    const struct user_vector_shape shape = {settings->dim, pass->items->dim, settings->output_scale,
                                            settings->has_bias};
    for (size_t s = 0; s < pass->n_spans; s++) {
        user_vector_write(&shape, hidden + s * settings->dim,
                          out + pass->spans[s].user * pass->items->dim);
    }
}

static void sasrec_embed(const void *parameters, const struct vectors *items, float *scratch,
                         const struct history_batch *batch, float *out)
{
    struct pass pass;
    pass.model = parameters;
    pass.items = items;
    pass.batch = batch;
    (void)lay_out(&pass, items->dim, batch->n_users, scratch);
    memset(out, 0, batch->n_users * items->dim * sizeof(*out));
    const size_t n_tokens_max = tokens_max(pass.model, batch->n_users);
    for (size_t next = 0; next < batch->n_users;) {
        next = gather_group(&pass, next, n_tokens_max);
        if (pass.n_spans > 0) {
            embed_users(&pass, out);
        }
    }
}

static void sasrec_close(void *parameters)
{
    sasrec_parameters_free(parameters);
    mem_free(parameters);
}

static enum status sasrec_open(const struct user_model_source *source, void **parameters,
                               size_t *history_max, struct error *err)
{
    struct sasrec_settings settings;
    enum status status = sasrec_settings_read(source->settings, &settings, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct sasrec *model = mem_calloc(1, sizeof(*model));
    if (model == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a user model");
    }
    status = sasrec_parameters_read(source->file, &settings, model, err);
    if (status != STATUS_OK) {
        sasrec_close(model);
        return status;
    }
    *parameters = model;
    *history_max = settings.history_max;
    return STATUS_OK;
}

const struct user_model_architecture user_model_sasrec = {
    .name = SASREC_ARCHITECTURE,
    .settings_version = SASREC_SETTINGS_VERSION,
    .open = sasrec_open,
    .close = sasrec_close,
    .workspace_floats = sasrec_workspace_floats,
    .embed = sasrec_embed,
};
