#ifndef AISLE_CORE_ENGINE_H
#define AISLE_CORE_ENGINE_H

#include <stdbool.h>

#include "base/status.h"
#include "base/vectors.h"
#include "embeddings/neighbors.h"
#include "embeddings/safetensors.h"
#include "embeddings/user_model.h"
#include "index/vector_index.h"
#include "store/catalog.h"
#include "store/manifest.h"

/* A release, open: catalogue, vectors, user model and index as one read-only set that carries one
 * version. Shared by all workers; replaced as a whole. */
struct engine {
    char dir[4096];
    struct manifest manifest;
    struct catalog *catalog;
    struct safetensors *vector_file;
    struct vectors vectors;
    struct user_model *model;
    struct vector_index *index;
    struct neighbors *neighbors; /* session neighbours, NULL: the release has none */
    float *popularity;           /* [n] feature: log-scaled to 0 … 1 */
};

struct engine_config {
    const char *release_dir;
    bool skip_checksums; /* the caller has just verified or written them */
    bool skip_probes;    /* the builder, which is making them */
};

/* Verifies checksums, opens the parts, checks that they belong together, replays the probes. The
 * message says which part failed and why; *out is NULL then. */
enum status engine_open(const struct engine_config *config, struct engine **out,
                        struct error *err) STATUS_CHECKED;
void engine_close(struct engine *engine);

/* Probes: histories with the user vector and top items that the build computed.
 * A line of probes.jsonl: {"now_ms": …, "history": [["SKU1", "view", ms], …] (newest first),
 * "vector": [D floats], "top": [["SKU9", score], …]}, and with session neighbours what they answer,
 * too: "neighbors": [["SKU7", score], …], at most PROBE_TOP. */
enum {
    PROBES_DEFAULT = 32,
    PROBE_TOP = 10,
    PROBE_LINE_MAX_BYTES = 1 << 20,
};
#define PROBE_VECTOR_TOLERANCE 1e-4
#define PROBE_SCORE_TOLERANCE 1e-4

struct probe_history {
    const struct history_event *events; /* newest first */
    size_t n_events;
    int64_t now_ms;
};
enum status probes_write(const struct engine *engine, const char *path,
                         const struct probe_history *histories, size_t n,
                         struct error *err) STATUS_CHECKED;
/* MISMATCH names the probe's line and what differs. */
enum status probes_replay(const struct engine *engine, const char *path,
                          struct error *err) STATUS_CHECKED;

#endif
