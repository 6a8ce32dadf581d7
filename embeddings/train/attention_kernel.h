#ifndef AISLE_EMBEDDINGS_TRAIN_ATTENTION_KERNEL_H
#define AISLE_EMBEDDINGS_TRAIN_ATTENTION_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Causal multi-head attention over ragged sequences and its gradient, threads over sequences.
 * Legend: T events, d dimension, L history_max; sequence s has rows offsets[s] … offsets[s+1). */
struct attention_shape {
    size_t n_sequences;
    const uint32_t *offsets; /* [n_sequences + 1] */
    size_t dim, n_heads;
    size_t history_max; /* L */
};
/* query, key, value, context [T × d]; probabilities [T × heads × L]: of event i for events 0 … of
 * its sequence. */
void attention_forward(const struct attention_shape *shape, const float *query, const float *key,
                       const float *value, float *probabilities, float *context);
/* From the gradient of context: query, key and value become their own gradients. scratch: for each
 * thread of OpenMP attention_scratch_floats. */
void attention_backward(const struct attention_shape *shape, const float *dcontext, float *query,
                        float *key, float *value, float *probabilities, float *scratch);
size_t attention_scratch_floats(const struct attention_shape *shape);

/* y = activation(x), n components; and dy *= activation'(x). GELU is the exact one (erf) to 2e-7.
 */
void activation_forward(const float *x, size_t n, bool is_gelu, float *y);
void activation_backward(const float *x, size_t n, bool is_gelu, float *dy);

#endif
