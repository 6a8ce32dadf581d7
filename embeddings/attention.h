#ifndef AISLE_EMBEDDINGS_ATTENTION_H
#define AISLE_EMBEDDINGS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>

#include "base/events.h"
#include "base/status.h"

/* Attention pooling: a light user model, one attention step over the history with learned recency
 * (after the short-term/long-term split of Q. Liu et al., "STAMP", KDD 2018; dot-product form
 * here). Legend: d hidden dimension, D dimension of the item vectors, L history_max.
 *
 * Events newest first, j = 0 … n - 1, v_j = input_scale × item_vector[row_j][0..d):
 *   a_j = (query v_0) · v_j / √d + recency[j] + type[t_j];   w = softmax(a)
 *   h = mix (Σ w_j v_j) + newest v_0 + bias
 *   user vector = [h / |h| × output_scale (0: h as it is); 1 if has_bias; zeros up to D]
 * Cost: three d × d products and two passes over the history, whatever its length. */
enum { ATTENTION_DIM_MAX = 1024, ATTENTION_HISTORY_MAX = 1000 };
struct attention_settings {
    size_t dim;      /* d */
    size_t item_dim; /* D ≥ d + has_bias */
    size_t history_max;
    double input_scale;
    double output_scale; /* 0: not normalised */
    bool has_bias;
};
/* d = D = 64, 50 events, input_scale 1. */
void attention_settings_default(struct attention_settings *settings);
/* INVALID names the setting in err's field. */
enum status attention_settings_check(const struct attention_settings *settings,
                                     struct error *err) STATUS_CHECKED;
struct attention_weights { /* borrowed, float32, row-major [out × in] */
    const float *query;    /* query.weight [d × d] */
    const float *recency;  /* recency [L] */
    const float *types;    /* types [N_EVENT_TYPES] */
    const float *mix;      /* mix.weight [d × d] */
    const float *newest;   /* newest.weight [d × d] */
    const float *bias;     /* bias [d] */
};
/* As sasrec_model_write, architecture "attention". */
enum status attention_model_write(const char *path, const struct attention_settings *settings,
                                  const struct attention_weights *weights,
                                  struct error *err) STATUS_CHECKED;

#endif
