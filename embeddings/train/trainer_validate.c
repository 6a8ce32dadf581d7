/* Validation: the held-out events ranked among all items, ties against us. Prefixes go through the
 * network packed like a training batch; scores of BLOCK cases are one product a thread.
 *
 * Legend: N items, d dimension. */
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/train/trainer_internal.h"

enum { BLOCK = 32, TOP_NDCG = 10, TOP_HIT = 20 };

struct validation {
    float *users;  /* [tokens_max × d] of the batch's cases */
    float *scores; /* [threads × BLOCK × N] */
    uint32_t *ranks;
};

/* Hides the prefix' items, except the one to be found. */
static void hide_history(const struct trainer *trainer, size_t sequence, uint32_t target,
                         float *scores)
{
    const struct sequence_batch *batch = &trainer->batch;
    for (size_t i = batch->offsets[sequence];
         trainer->settings.exclude_history && i < batch->offsets[sequence + 1]; i++) {
        if (batch->events[i].row != target) {
            scores[batch->events[i].row] = -INFINITY;
        }
    }
}

static uint32_t rank_of(const struct trainer *trainer, size_t sequence, float *scores)
{
    uint32_t target = trainer->batch.targets[sequence];
    size_t n = trainer->n_items;
    for (size_t i = 0; trainer->now.bias != NULL && i < n; i++) {
        scores[i] += trainer->now.bias[i];
    }
    hide_history(trainer, sequence, target, scores);
    float wanted = scores[target];
    uint32_t rank = 0;
#pragma omp simd reduction(+ : rank)
    for (size_t i = 0; i < n; i++) {
        rank += scores[i] < wanted ? 0U : 1U; /* a NaN is against us too */
    }
    return rank;
}

static void rank_batch(const struct trainer *trainer, const struct validation *v)
{
    size_t n = trainer->n_items;
    size_t dim = trainer->dim;
    size_t n_cases = trainer->batch.n_sequences;
    size_t n_blocks = (n_cases + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t block = 0; block < n_blocks; block++) {
        size_t first = block * BLOCK;
        size_t n_block = n_cases - first < BLOCK ? n_cases - first : BLOCK;
        float *scores = v->scores + (size_t)omp_get_thread_num() * BLOCK * n;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n_block, (int)n, (int)dim, 1.0F,
                    v->users + first * dim, (int)dim, trainer->rows, (int)dim, 0.0F, scores,
                    (int)n);
        for (size_t i = 0; i < n_block; i++) {
            v->ranks[first + i] = rank_of(trainer, first + i, scores + i * n);
        }
    }
}

/* The newest position's hidden vector of each case of the batch, scaled as in serving. */
static void take_users(struct trainer *trainer, float *users, size_t stride)
{
    const struct sequence_batch *batch = &trainer->batch;
    size_t dim = trainer->dim;
    trainer_embed(trainer);
    const struct network_batch network_batch = {
        .n_sequences = batch->n_sequences,
        .offsets = batch->offsets,
        .events = batch->events,
        .inputs = trainer->inputs,
    };
    const float *hidden = trainer->settings.architecture->forward(trainer->network, &network_batch);
    double scale = trainer->settings.normalised_scale;
    for (size_t s = 0; s < batch->n_sequences; s++) {
        const float *h = hidden + (batch->offsets[s + 1] - 1) * dim;
        float factor = 1.0F;
        if (scale > 0.0) {
            factor = (float)(scale / sqrt(squared_norm(h, dim) + 1e-12));
        }
        for (size_t c = 0; c < dim; c++) {
            users[s * stride + c] = h[c] * factor;
        }
    }
}

void trainer_users(struct trainer *trainer, size_t first, size_t n, float *users)
{
    struct sequence_data some = trainer->data;
    size_t item_dim = trainer_item_dim(trainer);
    some.n_cases = first + n;
    (void)sequence_batch_fill_cases(&trainer->batch, &some, first);
    memset(users, 0, n * item_dim * sizeof(float));
    take_users(trainer, users, item_dim);
    for (size_t i = 0; trainer->now.bias != NULL && i < n; i++) {
        users[i * item_dim + trainer->dim] = 1.0F;
    }
}

enum status trainer_validate(struct trainer *trainer, struct trainer_point *point,
                             struct error *err)
{
    size_t n = trainer->data.n_cases;
    double ndcg10 = 0.0;
    double hr10 = 0.0;
    double hr20 = 0.0;
    double mrr20 = 0.0;
    struct validation v = {
        .users = trainer->hidden_gradient, /* free between steps */
        .scores = mem_alloc_vectors((size_t)omp_get_max_threads() * BLOCK * trainer->n_items,
                                    sizeof(float)),
        .ranks = mem_alloc_array(trainer->batch.tokens_max, sizeof(uint32_t)),
    };
    if (v.scores == NULL || v.ranks == NULL) {
        mem_free(v.scores);
        mem_free(v.ranks);
        return error_set(err, STATUS_NOMEM, "scores of %zu items: no memory", trainer->n_items);
    }
    for (size_t at = 0; at < n;) {
        at = sequence_batch_fill_cases(&trainer->batch, &trainer->data, at);
        take_users(trainer, v.users, trainer->dim);
        rank_batch(trainer, &v);
        for (size_t i = 0; i < trainer->batch.n_sequences; i++) {
            double rank = (double)v.ranks[i];
            hr10 += rank <= TOP_NDCG ? 1.0 : 0.0;
            ndcg10 += rank <= TOP_NDCG ? 1.0 / log2(1.0 + rank) : 0.0;
            hr20 += rank <= TOP_HIT ? 1.0 : 0.0;
            mrr20 += rank <= TOP_HIT ? 1.0 / rank : 0.0;
        }
    }
    mem_free(v.scores);
    mem_free(v.ranks);
    point->ndcg10 = (float)(ndcg10 / (double)n);
    point->hr10 = (float)(hr10 / (double)n);
    point->hr20 = (float)(hr20 / (double)n);
    point->mrr20 = (float)(mrr20 / (double)n);
    return STATUS_OK;
}
