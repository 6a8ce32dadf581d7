#ifndef AISLE_CORE_BUILD_RELEASE_H
#define AISLE_CORE_BUILD_RELEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "core/engine.h"

/* From an item file and a model folder to a published release (design.md section 4).
 *
 * Model folder, as `aisle train` and `aisle import-model` write it:
 *   item_ids.txt         one id a line; line r is row r of the vectors
 *   vectors.safetensors  tensor "item_vectors" [N × D] (F32 or F16), optional "item_counts" [N]
 * F32: events an item; or vectors.npy model.safetensors    user model weights and settings
 *   neighbors.safetensors  optional: session neighbours (embeddings/neighbors.h)
 *   histories.jsonl      optional: sampled histories for recall queries and probes, a line each:
 *                        {"now_ms": …, "history": [["SKU1", "view", ms], …]} newest first
 *   training.json        optional: settings, data fingerprint, curves, for the manifest
 *
 * Rows of the release are the items of the item file, in its order. An item that the model has no
 * vector for gets the mean of its category's vectors (the nearest ancestor that has some), halved,
 * so that it can be found but does not crowd out items that are known; without any, zero. Vectors
 * of items that the file no longer has are dropped; both are counted and reported. */
struct build_config {
    const char *items_path;
    const char *model_dir;
    const char *releases;
    const char *events_path; /* NULL: popularity and histories of the model folder */
    const char *index;       /* "auto" or a FAISS factory string */
    double target_recall;    /* default 0.95 */
    const char *channel;     /* default "stable"; NULL: publish to none */
    bool force;              /* publish in spite of missed gates */
    size_t n_threads;        /* 0: all */
    uint64_t seed;
    const char *vector_type; /* "auto", "f32", "f16"; auto: f16 over F16_MIN_ITEMS items */
};
enum { F16_MIN_ITEMS = 200000, RECALL_QUERIES = 1000 };

struct build_result {
    char version[RELEASE_VERSION_BYTES];
    char dir[4096];
    uint64_t n_items;
    uint64_t n_without_vector;
    uint64_t n_vectors_dropped;
    struct vector_index_measured index;
    double embed_p50_us, embed_p99_us;
    double neighbors_p50_us, neighbors_p99_us; /* 0: the release has none */
    double request_p50_us, request_p99_us;
    double seconds;
};
void build_config_default(struct build_config *config);
/* On failure nothing is published and no file of ours is left. Leaves the calling thread as
 * vector_index_single_thread does. */
enum status build_release(const struct build_config *config, struct build_result *result,
                          struct error *err) STATUS_CHECKED;

#endif
