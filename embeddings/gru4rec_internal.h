#ifndef AISLE_EMBEDDINGS_GRU4REC_INTERNAL_H
#define AISLE_EMBEDDINGS_GRU4REC_INTERNAL_H

#include <stddef.h>

#include "embeddings/gru4rec.h"
#include "embeddings/model_file.h"

/* Shared by the forward pass, the writer and the trainer of gru4rec. */
extern const struct model_format gru4rec_format;

enum {
    GRU4REC_INPUT_WEIGHT, /* tensors of a layer, in order */
    GRU4REC_INPUT_BIAS,
    GRU4REC_HIDDEN_WEIGHT,
    GRU4REC_HIDDEN_BIAS,
    GRU4REC_LAYER_TENSORS,
    GRU4REC_TENSORS_MAX = GRU4REC_LAYERS_MAX * GRU4REC_LAYER_TENSORS + 2,
};
/* Names and shapes of a model's tensors, layer by layer, then weight and bias of the output layer
 * if there is one; returns how many. */
size_t gru4rec_tensors(const struct gru4rec_settings *settings,
                       struct model_tensor tensors[GRU4REC_TENSORS_MAX]);
/* gru4rec_settings_check with another code (FORMAT for files). */
enum status gru4rec_settings_check_as(const struct gru4rec_settings *settings, enum status code,
                                      struct error *err) STATUS_CHECKED;

#endif
