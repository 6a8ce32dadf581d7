#ifndef AISLE_EMBEDDINGS_GRU4REC_H
#define AISLE_EMBEDDINGS_GRU4REC_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* GRU4Rec (B. Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR
 * 2016; B. Hidasi, A. Karatzoglou, "Recurrent Neural Networks with Top-k Gains for Session-based
 * Recommendations", CIKM 2018) in the form of its authors' own implementation: a GRU over the item
 * vectors, tied to the output ("constrained embedding"), user vector = final hidden state.
 * Legend: d input dimension, h hidden dimension, D dimension of the item vectors.
 *
 * Layer (gates in PyTorch's order r, z, n; x = input, s = state before):
 *   r = σ(W_ir x + b_ir + W_hr s + b_hr);  z = σ(W_iz x + b_iz + W_hz s + b_hz)
 *   n = tanh(W_in x + b_in + r ∘ (W_hn s + b_hn));  s' = (1 - z) ∘ n + z ∘ s
 * Input of layer 0: input_scale × item_vector[row][0..d). The state begins at zero with the oldest
 * of the newest history_max events.
 *   o = output(s) if has_output (a linear layer [d × h]), else s (h = d)
 *   user vector = [o / |o| × output_scale (0: o as it is); 1 if has_bias; zeros up to D] */
enum { GRU4REC_LAYERS_MAX = 4, GRU4REC_DIM_MAX = 1024, GRU4REC_HISTORY_MAX = 1000 };
struct gru4rec_settings {
    size_t dim;        /* d */
    size_t hidden_dim; /* h */
    size_t item_dim;   /* D ≥ d + has_bias */
    size_t n_layers;
    size_t history_max;
    double input_scale;
    double output_scale; /* 0: not normalised */
    bool has_output;
    bool has_bias;
};
/* d = h = D = 64, 1 layer, 50 events, input_scale 1. */
void gru4rec_settings_default(struct gru4rec_settings *settings);
/* INVALID names the setting in err's field. */
enum status gru4rec_settings_check(const struct gru4rec_settings *settings,
                                   struct error *err) STATUS_CHECKED;

/* Weights, float32, row-major [out × in], gates r, z, n one below the other. Borrowed. */
struct gru4rec_layer {
    const float *input_weight;  /* layers.I.input.weight [3h × d or h] */
    const float *input_bias;    /* layers.I.input.bias [3h] */
    const float *hidden_weight; /* layers.I.hidden.weight [3h × h] */
    const float *hidden_bias;   /* layers.I.hidden.bias [3h] */
};
struct gru4rec_weights {
    struct gru4rec_layer layers[GRU4REC_LAYERS_MAX];
    const float *output_weight, *output_bias; /* output.weight [d × h], output.bias [d], or NULL */
};
/* As sasrec_model_write, architecture "gru4rec". */
enum status gru4rec_model_write(const char *path, const struct gru4rec_settings *settings,
                                const struct gru4rec_weights *weights,
                                struct error *err) STATUS_CHECKED;

#endif
