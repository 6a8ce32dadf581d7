#ifndef AISLE_EMBEDDINGS_SASREC_H
#define AISLE_EMBEDDINGS_SASREC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/status.h"

/* SASRec (W.-C. Kang, J. McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018), a causal
 * transformer over the history, in its original pre-norm form and in the post-norm form of
 * BERT-style encoders. Shared by the forward pass, the trainer and the importers.
 * Legend: d hidden dimension, D dimension of the item vectors, L history_max, F feed-forward width.
 *
 * One user, events oldest first, j = 0 … n - 1 (n ≤ L):
 *   x_j = input_scale × item_vector[row_j][0..d) + position[p(j)] (+ type[t_j]) (+ gap[g_j])
 *         p(j) = j, or L - n + j with positions_right; embedding_norm, if there, is applied to x.
 *   pre-norm block:   q = norm_a(x); k, v from x, or from q with norm_keys
 *                     y = (residual_normed ? q : x) + attention(q, k, v)
 *                     z = norm_f(y);  x' = (residual_normed ? z : y) + ffn(z)
 *   post-norm block:  y = norm_a(x + attention(x, x, x));  x' = norm_f(y + ffn(y))
 *   ffn(z) = down(activation(up(z))); attention with n_heads heads, scale 1 / √(d / n_heads)
 *   h = x of the newest event; final_norm, if there, is applied to it.
 *   user vector = [h / |h| × output_scale (0: h as it is); 1 if has_bias; zeros up to D]
 * With attend_padding the sequence is padded on the left to L with positions whose x is zero at the
 * input of the first block; they pass through all blocks as any other and take part as keys and
 * values (what the widespread PyTorch version does: its attention has no padding mask). */
enum sasrec_activation { SASREC_RELU, SASREC_GELU };
enum {
    SASREC_BLOCKS_MAX = 8,
    SASREC_DIM_MAX = 1024,
    SASREC_HISTORY_MAX = 1000,
    SASREC_GAP_BUCKETS_MAX = 64,
    SASREC_FFN_DIM_MAX = 4096,
};
struct sasrec_settings {
    size_t dim;      /* d, a multiple of n_heads */
    size_t item_dim; /* D ≥ d + has_bias */
    size_t n_blocks; /* 1 … SASREC_BLOCKS_MAX */
    size_t n_heads;
    size_t ffn_dim;     /* F, 1 … SASREC_FFN_DIM_MAX */
    size_t history_max; /* L */
    enum sasrec_activation activation;
    double norm_epsilon;
    double input_scale;
    double output_scale; /* 0: not normalised */
    bool post_norm;
    bool norm_keys;       /* pre-norm only: keys and values from the normalised input too */
    bool residual_normed; /* pre-norm only: residuals from the normalised inputs (original form) */
    bool positions_right;
    bool attend_padding; /* needs positions_right */
    bool has_embedding_norm;
    bool has_final_norm;
    bool has_bias;
    bool has_types;       /* an embedding per event type */
    size_t n_gap_buckets; /* 0: none. Bucket of the time to the event before: 0 unknown or first,
                             else 1 + floor(log2(1 + seconds)), at most n - 1 */
};
/* d 64 of D 64, 2 blocks, 1 head, F 64, L 50, ReLU, pre-norm with norm_keys, final norm, epsilon
 * 1e-8, input_scale 1. */
void sasrec_settings_default(struct sasrec_settings *settings);
/* INVALID names the setting in err's field, by its name in the file: as the member, but d is
 * hidden_dim there and D is dim. */
enum status sasrec_settings_check(const struct sasrec_settings *settings,
                                  struct error *err) STATUS_CHECKED;

/* Weights, float32, row-major; matrices are [out × in] as PyTorch stores them. Borrowed. The native
 * layout's tensor name stands beside each. */
struct sasrec_linear {
    const float *weight, *bias; /* NAME.weight [out × in], NAME.bias [out] */
};
struct sasrec_norm {
    const float *weight, *bias; /* NAME.weight [d], NAME.bias [d] */
};
struct sasrec_block {
    struct sasrec_norm attention_norm;              /* blocks.I.attention_norm */
    struct sasrec_linear query, key, value, output; /* blocks.I.attention.query … [d × d] */
    struct sasrec_norm ffn_norm;                    /* blocks.I.ffn_norm */
    struct sasrec_linear up, down;                  /* blocks.I.ffn.up [F × d], .down [d × F] */
};
struct sasrec_weights {
    const float *positions;            /* positions [L × d] */
    const float *types;                /* types [N_EVENT_TYPES × d] or NULL */
    const float *gaps;                 /* gaps [n_gap_buckets × d] or NULL */
    struct sasrec_norm embedding_norm; /* embedding_norm, if there */
    struct sasrec_block blocks[SASREC_BLOCKS_MAX];
    struct sasrec_norm final_norm; /* final_norm, if there */
};
/* Writes a model.safetensors of architecture "sasrec" (atomically). INVALID: settings out of range
 * or a weight that is not finite (named); IO, NOMEM. Same input → same bytes. */
enum status sasrec_model_write(const char *path, const struct sasrec_settings *settings,
                               const struct sasrec_weights *weights,
                               struct error *err) STATUS_CHECKED;
/* Gap bucket of an event, given the event before it (EVENT_TIME_UNKNOWN: first or unknown). */
size_t sasrec_gap_bucket(const struct sasrec_settings *settings, int64_t before_ms,
                         int64_t time_ms);

#endif
