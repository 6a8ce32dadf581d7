#ifndef AISLE_EMBEDDINGS_TRAIN_NETWORK_H
#define AISLE_EMBEDDINGS_TRAIN_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/rng.h"
#include "base/status.h"

/* What an architecture is to the trainer: a differentiable function from the embedded events of a
 * batch to one hidden vector an event (the user vector as it would be after that event, before
 * scaling and bias). Items' own vectors, losses and the optimiser are the trainer's; a network owns
 * the rest of the weights.
 *
 * A batch is ragged: sequence s has the events offsets[s] … offsets[s+1) - 1, oldest first, at most
 * history_max. T = offsets[n_sequences] events in all; matrices are row-major [T × d].
 * Everything is float32; sums over a batch are made in a fixed order for a fixed number of threads.
 */
struct network_batch {
    size_t n_sequences;
    const uint32_t *offsets;            /* [n_sequences + 1] */
    const struct history_event *events; /* [T], oldest first; rows, types, times */
    const float *inputs;   /* [T × d] embedded items, already scaled (and dropped out) */
    double dropout;        /* 0: none (validation) */
    uint64_t dropout_seed; /* of this step; the same masks in forward and backward */
};

/* One named tensor of weights, its gradient beside it. Weights are kept by the network; the trainer
 * updates values in place, and reads and writes them by name in checkpoints. */
struct network_parameter {
    char name[64]; /* as in the architecture's native layout, e.g. "blocks.0.ffn.up.weight" */
    float *value, *gradient;
    size_t n;
    size_t n_rows;   /* leading dimension, for initialisation and export */
    bool is_decayed; /* weight decay applies: matrices, not biases, norms or positions */
};

struct network_config {
    size_t dim;        /* d */
    size_t tokens_max; /* T */
    size_t sequences_max;
    uint64_t seed;        /* of the initial weights */
    const void *settings; /* of the architecture: struct sasrec_settings, … */
};

struct network; /* an architecture's own */
struct network_architecture {
    const char *name;
    /* Allocates weights (initialised from the seed), gradients (zero) and activations. */
    enum status (*open)(const struct network_config *config, struct network **out,
                        struct error *err);
    void (*close)(struct network *network);
    size_t (*n_parameters)(const struct network *network);
    struct network_parameter *(*parameter)(struct network *network, size_t i);
    /* hidden[T × d] and the activations that backward needs, kept by the network until the next
     * forward. */
    const float *(*forward)(struct network *network, const struct network_batch *batch);
    /* From the gradient of hidden [T × d] (may be overwritten): adds to the parameters' gradients
     * and writes the gradient of the inputs [T × d]. batch: as in the last forward. */
    void (*backward)(struct network *network, const struct network_batch *batch,
                     float *hidden_gradient, float *input_gradient);
    /* Writes the weights as a model.safetensors that user_model_open reads. output_scale and
     * has_bias, item_dim: the trainer's (see struct sasrec_settings). */
    enum status (*write)(const struct network *network, const char *path, size_t item_dim,
                         struct error *err);
    /* Bytes that open would allocate; SIZE_MAX when it overflows. */
    size_t (*bytes)(const struct network_config *config);
};
extern const struct network_architecture network_sasrec;
extern const struct network_architecture network_gru4rec;
extern const struct network_architecture network_attention;

#endif
