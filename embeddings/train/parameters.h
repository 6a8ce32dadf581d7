#ifndef AISLE_EMBEDDINGS_TRAIN_PARAMETERS_H
#define AISLE_EMBEDDINGS_TRAIN_PARAMETERS_H

#include "embeddings/train/network.h"

/* The weights of a network and their gradients, each in one block of memory. Parameters are first
 * all added, then allocated at once (values and gradients zero). */
enum { PARAMETERS_MAX = 160 };
struct parameter_set {
    struct network_parameter items[PARAMETERS_MAX];
    size_t n;
    float *values, *gradients; /* [n_floats] */
    size_t n_floats;
};
/* [n_rows × n_columns]; the place stays valid. At most PARAMETERS_MAX (asserted). */
struct network_parameter *parameter_add(struct parameter_set *set, const char *name, size_t n_rows,
                                        size_t n_columns, bool is_decayed);
enum status parameter_set_allocate(struct parameter_set *set, struct error *err) STATUS_CHECKED;
void parameter_set_free(struct parameter_set *set); /* a zeroed struct is legal */

/* Hands out pieces of one allocation for activations, each from a cache line on; with base NULL it
 * only counts, and the pieces are NULL. */
struct carver {
    float *base;
    size_t used; /* floats */
};
float *carve(struct carver *carver, size_t n);

#endif
