#ifndef AISLE_EMBEDDINGS_TRAIN_LOSS_H
#define AISLE_EMBEDDINGS_TRAIN_LOSS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/status.h"

/* Losses of next-item prediction over hidden vectors, with their gradients.
 *  - full: softmax cross-entropy over the whole catalogue, with label smoothing;
 *  - sampled: softmax over the positive and S shared negatives. With log_q, a negative's logit is
 *    corrected by -log(S q) (Y. Bengio, J.-S. Senécal, 2003/2008), which makes the sum an unbiased
 *    estimate of the full one; the positive is always there and is therefore not corrected, unlike
 * in the usual form, where it is treated as sampled too;
 *  - gbce: binary cross-entropy over the positive and S negatives with the positive's probability
 *    raised to β (A. Petrov, C. Macdonald, "gSASRec", RecSys 2023, section 4): β = α (t (1 - 1/α) +
 *    1/α), α = S / (N - 1).
 * Negatives are drawn anew for every LOSS_CHUNK events and shared by them: uniformly, by
 * popularity^x, or they are the chunk's own positives (in-batch).
 * Legend: T events, d dimension, N items, S negatives. */
enum loss_kind { LOSS_FULL, LOSS_SAMPLED, LOSS_GBCE, N_LOSS_KINDS };
const char *loss_kind_name(enum loss_kind kind); /* "full", "sampled", "gbce" */
bool loss_kind_parse(const char *text, enum loss_kind *out);

enum { LOSS_CHUNK = 256, LOSS_NEGATIVES_MAX = 65536 };
struct loss_settings {
    enum loss_kind kind;
    double label_smoothing;   /* full only; 0 … 1 */
    size_t n_negatives;       /* S; sampled and gbce */
    bool in_batch;            /* sampled: the chunk's positives instead */
    double negative_exponent; /* 0: uniform; 1: popularity */
    bool log_q;
    double gbce_t; /* 0 … 1, calibration */
};

struct loss; /* scratch of one trainer */
/* counts[N]: events an item, for the negatives' distribution (borrowed for the call). */
enum status loss_open(const struct loss_settings *settings, const double *counts, size_t n_items,
                      size_t dim, struct loss **out, struct error *err) STATUS_CHECKED;
void loss_close(struct loss *loss);
size_t loss_bytes(const struct loss_settings *settings, size_t n_items, size_t dim);

struct loss_batch {
    size_t n;                /* T */
    const float *hidden;     /* [T × d] */
    const uint32_t *targets; /* [T] */
    const float *items;      /* [N × d] */
    const float *bias;       /* [N] or NULL */
    uint64_t seed;           /* of the negatives */
};
struct loss_gradients {
    float *hidden; /* [T × d], written: of the mean loss */
    float *items;  /* [N × d], added to */
    float *bias;   /* [N], added to; NULL without bias */
    /* Rows of items touched, a flag each, set where not zero; NULL: not wanted. full sets none. */
    unsigned char *touched;
};
/* Mean loss of an event. Same bits for any number of threads. */
double loss_compute(struct loss *loss, const struct loss_batch *batch,
                    const struct loss_gradients *out);

#endif
