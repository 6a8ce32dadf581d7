#ifndef AISLE_EMBEDDINGS_TRAIN_ADAMW_H
#define AISLE_EMBEDDINGS_TRAIN_ADAMW_H

#include <stddef.h>
#include <stdint.h>

/* AdamW (I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2)
 * over n weights. gradient is multiplied by scale (of clipping) and set to zero on the way. Bias
 * corrections come from step (1 for the first), also for rows that are updated now and then only.
 */
struct adamw {
    double rate, beta1, beta2, epsilon, decay; /* decay: per unit of rate */
    double scale;
    uint64_t step;
};
void adamw_update(const struct adamw *adamw, float *weights, float *gradient, float *mean,
                  float *square, size_t n);
/* The same for some rows [n_rows] of tables of dim columns. */
void adamw_update_rows(const struct adamw *adamw, float *weights, float *gradient, float *mean,
                       float *square, size_t dim, const uint32_t *rows, size_t n_rows);
/* Σ x² in double, in a fixed order whatever the number of threads. */
double squared_norm(const float *x, size_t n);
/* The same over some rows [n_rows] of a table of dim columns. */
double squared_norm_rows(const float *table, size_t dim, const uint32_t *rows, size_t n_rows);

#endif
