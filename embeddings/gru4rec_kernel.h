#ifndef AISLE_EMBEDDINGS_GRU4REC_KERNEL_H
#define AISLE_EMBEDDINGS_GRU4REC_KERNEL_H

#include <stddef.h>

/* One step of one user: products with input and state [3h each, gates r, z, n, biases added] and
 * the state before → the state after, in place. */
void gru4rec_gates(const float *input, const float *hidden, size_t h, float *state);
/* The same, keeping r, z, n [h each] for a backward pass. */
void gru4rec_gates_keep(const float *input, const float *hidden, size_t h, float *state, float *r,
                        float *z, float *n);

#endif
