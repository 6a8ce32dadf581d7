#ifndef AISLE_EMBEDDINGS_SASREC_INTERNAL_H
#define AISLE_EMBEDDINGS_SASREC_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "embeddings/json_read.h"
#include "embeddings/kernels.h"
#include "embeddings/safetensors.h"
#include "embeddings/sasrec.h"

/* What the files of the SASRec model share: its settings in JSON, its list of tensors, and its
 * weights as the forward pass wants them. */

enum {
    SASREC_SETTINGS_VERSION = 1,
    SASREC_NAME_BYTES = 48,
    SASREC_TENSORS_MAX = 7 + 16 * SASREC_BLOCKS_MAX,
};
#define SASREC_ARCHITECTURE "sasrec"

/* One tensor of the native layout. */
struct sasrec_tensor {
    char name[SASREC_NAME_BYTES];
    size_t rank;
    uint64_t shape[2];
    size_t n_values;
    size_t offset; /* of its const float * in struct sasrec_weights */
};
/* Every tensor that valid settings call for, in the order of the file; returns how many. */
size_t sasrec_tensors(const struct sasrec_settings *settings,
                      struct sasrec_tensor tensors[SASREC_TENSORS_MAX]);
/* Where *weights keeps the address of a tensor. */
const float **sasrec_tensor_slot(struct sasrec_weights *weights,
                                 const struct sasrec_tensor *tensor);
const float *sasrec_tensor_values(const struct sasrec_weights *weights,
                                  const struct sasrec_tensor *tensor);

/* Settings not named keep their defaults, "version" is the caller's to check; FORMAT for what is
 * unknown, malformed or out of range. */
enum status sasrec_settings_read(const struct json_value *object, struct sasrec_settings *settings,
                                 struct error *err) STATUS_CHECKED;

/* Weights of a block, packed for products x W with W [in × out]; d, F as in sasrec.h. The scale of
 * the attention is in query and its bias; a key's bias is nowhere, since it adds the same to all
 * scores of a query, which a softmax does not see; the values' bias is in output_bias, since a
 * softmax sums to one. */
struct sasrec_layer {
    struct kernel_norm attention_norm, ffn_norm;
    /* All blocks but the last: [d × 3d], columns of query, key, value side by side. */
    const float *query_key_value;
    /* The last block: query and value [d × d] as [in × out], key as it was, [out × in]. */
    const float *query, *key, *value;
    const float *query_bias;           /* [d] */
    const float *output, *output_bias; /* [d × d], [d] */
    const float *up, *up_bias;         /* [d × F], [F] */
    const float *down, *down_bias;     /* [F × d], [d] */
    /* With attend_padding: what a padded position gives to key and value, and its key and value;
     * NULL where that is the zero vector. */
    const float *pad_input, *pad_key, *pad_value; /* [d] */
};

struct sasrec {
    struct sasrec_settings settings;
    const float *positions, *types, *gaps; /* [L × d], [N_EVENT_TYPES × d], [n_gap_buckets × d] */
    struct kernel_norm embedding_norm, final_norm;
    struct sasrec_layer layers[SASREC_BLOCKS_MAX];
    float *memory; /* what all the pointers point into */
};
/* Reads the tensors settings call for and packs them. NOT_FOUND, MISMATCH, INVALID as
 * safetensors_read_f32; NOMEM. *model is for sasrec_parameters_free in any case. */
enum status sasrec_parameters_read(const struct safetensors *file,
                                   const struct sasrec_settings *settings, struct sasrec *model,
                                   struct error *err) STATUS_CHECKED;
void sasrec_parameters_free(struct sasrec *model);

#endif
