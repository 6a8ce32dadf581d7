#ifndef AISLE_CORE_IMPORT_MODEL_H
#define AISLE_CORE_IMPORT_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "embeddings/layouts.h"

/* `aisle import-model`: weights trained elsewhere → model folder (core/model_folder.h). */
struct import_model_config {
    const char *layout; /* LAYOUT_NAMES */
    const char *weights_path;
    const char *item_ids_path; /* an id a line, the first one that of the first real item's row */
    const char *out_dir;
    const char *vectors_path; /* aisle only: item vectors in a file of their own, .npy or
                                 safetensors with the tensor item_vectors; or NULL */
    const char *activation;   /* as in struct layout_config, like the next two */
    size_t n_heads;
    size_t history_max;
};
struct import_model_result {
    uint64_t n_items;
    size_t dim;
    size_t history_max;
    char architecture[32];
    size_t n_unused; /* tensors of the file that the layout has no place for */
    char notes[LAYOUT_NOTES_BYTES];
};

/* Statuses as layout_read, model_folder_open and the writing; messages begin with the file at
 * fault. What was written is opened once as a build would, before it gets its name. On failure the
 * old folder stays and nothing of ours is left. */
enum status import_model(const struct import_model_config *config,
                         struct import_model_result *result, struct error *err) STATUS_CHECKED;

#endif
