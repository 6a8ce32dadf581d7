#ifndef AISLE_EMBEDDINGS_USER_MODEL_INTERNAL_H
#define AISLE_EMBEDDINGS_USER_MODEL_INTERNAL_H

#include <stdbool.h>

#include "embeddings/json_read.h"
#include "embeddings/safetensors.h"
#include "embeddings/user_model.h"

/* What an architecture is to user_model.c. A new one is one more row of its table.
 *
 * Metadata of model.safetensors: "aisle.architecture", the name below, and "aisle.settings", a JSON
 * object with "version", "dim" and what the architecture needs besides. */
#define USER_MODEL_METADATA_ARCHITECTURE "aisle.architecture"
#define USER_MODEL_METADATA_SETTINGS "aisle.settings"

/* What open may read. file and settings stay open as long as the model: weights may be viewed in
 * place. */
struct user_model_source {
    const struct safetensors *file;
    const struct json_value *settings; /* object; version and dim are checked already */
    const struct vectors *items;
};

struct user_model_architecture {
    const char *name;
    uint64_t settings_version; /* newest version understood; older ones are too */
    /* Reads settings and weights to *parameters (given to close) and sets *history_max. */
    enum status (*open)(const struct user_model_source *source, void **parameters,
                        size_t *history_max, struct error *err);
    void (*close)(void *parameters);
    /* Floats of scratch memory for batches of up to n_users_max; false when that overflows. */
    bool (*workspace_floats)(const void *parameters, size_t dim, size_t n_users_max, size_t *out);
    /* As user_model_embed; scratch is 64-byte aligned. */
    void (*embed)(const void *parameters, const struct vectors *items, float *scratch,
                  const struct history_batch *batch, float *out);
    /* Architectures that can go on from a kept state (NULL otherwise): its floats, and one event
     * more: state [state_floats], zero before the first, is updated; out [D] is the user vector. */
    size_t (*state_floats)(const void *parameters);
    void (*advance)(const void *parameters, const struct vectors *items, float *scratch,
                    const struct history_event *event, float *state, float *out);
};

/* How a hidden vector becomes a user vector: the first dim components, of length output_scale (0:
 * as they are), then 1 with has_bias, then zeros up to item_dim. A zero vector stays zero. */
struct user_vector_shape {
    size_t dim, item_dim;
    double output_scale;
    bool has_bias;
};
void user_vector_write(const struct user_vector_shape *shape, const float *hidden, float *out);

/* Floats that n take in scratch memory whose pieces begin at cache lines. */
static inline size_t floats_of_lines(size_t n)
{
    return (n + 15) / 16 * 16;
}

extern const struct user_model_architecture user_model_decay;
extern const struct user_model_architecture user_model_sasrec;
extern const struct user_model_architecture user_model_gru4rec;
extern const struct user_model_architecture user_model_attention;

#endif
