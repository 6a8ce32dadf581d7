#ifndef AISLE_CORE_MODEL_FOLDER_H
#define AISLE_CORE_MODEL_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/file.h"
#include "base/idmap.h"
#include "base/vectors.h"
#include "embeddings/npy.h"
#include "embeddings/safetensors.h"

/* The model folder (its files: core/build_release.h). */
#define MODEL_FILE_ITEM_IDS "item_ids.txt"
#define MODEL_FILE_VECTORS "vectors.safetensors"
#define MODEL_FILE_VECTORS_NPY "vectors.npy"
#define MODEL_FILE_WEIGHTS "model.safetensors"
#define MODEL_FILE_HISTORIES "histories.jsonl"
#define MODEL_FILE_TRAINING "training.json"
#define MODEL_FILE_CURVE "training.svg"
#define MODEL_FILE_NEIGHBORS "neighbors.safetensors"
#define MODEL_TENSOR_VECTORS "item_vectors"
#define MODEL_TENSOR_COUNTS "item_counts"

enum { MODEL_TRAINING_MAX_BYTES = 4 << 20 };

struct model_folder {
    struct idmap *ids;        /* item id → row of vectors */
    struct vectors vectors;   /* [N × D], finite */
    float *counts;            /* [N] events an item, ≥ 0; NULL: the folder has none */
    char architecture[32];    /* of model.safetensors */
    char *settings_json;      /* its settings */
    bool has_neighbors;       /* neighbors.safetensors is there and whole */
    char *training_json;      /* an object, or NULL */
    char *quality_json;       /* its member "quality", an object, or NULL */
    struct safetensors *file; /* what vectors are borrowed from: this or npy */
    struct npy npy;
};

/* Reads and checks all but the histories. Messages begin with the file's name. NOT_FOUND, FORMAT,
 * INVALID (NaN), MISMATCH: number of ids, or the weights' dimension, is not the vectors'. Free in
 * any case. */
enum status model_folder_open(const char *dir, struct model_folder *out,
                              struct error *err) STATUS_CHECKED;
/* A zeroed struct is legal. */
void model_folder_close(struct model_folder *folder);

/* Reads item_ids.txt or a file like it: id → line. FORMAT: an empty line, a line that is no id, an
 * id twice, each with the line's number. *ids is to be closed in any case. */
enum status model_ids_read(const char *path, struct idmap **ids, struct error *err) STATUS_CHECKED;

/* Whether dir is one that `aisle train` wrote, so that it may replace it. */
bool model_folder_is_one(const char *dir);

#endif
