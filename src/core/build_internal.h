#ifndef AISLE_CORE_BUILD_INTERNAL_H
#define AISLE_CORE_BUILD_INTERNAL_H

#include "base/arena.h"
#include "base/idmap.h"
#include "core/build_release.h"
#include "core/histories.h"
#include "core/model_folder.h"
#include "store/release.h"

/* A build under way; shared by the files build_*.c. Legend: N items, D dimension, Q queries. */

/* Distinct category paths with their ancestors, numbered parents first. */
struct categories {
    struct idmap *paths;
    uint32_t *parents; /* number of the parent path, IDMAP_NONE: a root */
    size_t cap;
};

struct build {
    const struct build_config *config;
    struct build_result *result;
    int64_t start_us;

    struct idmap *rows;    /* item id → row of the release */
    uint32_t *category_of; /* [N] number in categories, IDMAP_NONE: none */
    struct categories categories;
    struct model_folder folder;
    double *popularity; /* [N] share of events */

    struct history_set histories; /* those with a user vector */
    float *queries;               /* [Q × D] their vectors */
    uint64_t n_events_seen;       /* of what histories were taken from */
    uint64_t n_events_unknown;    /* of these, of items that the shop does not have */

    struct release_draft draft;
    struct safetensors *vector_file; /* the draft's */
    struct vectors vectors;
    struct user_model *model;
    struct engine *engine; /* the draft, open */
    struct manifest manifest;
    bool is_committed;
};

/* build_items.c: the item file and the model's vectors, row by row of the release. */
enum status build_read_items(struct build *build, struct error *err) STATUS_CHECKED;
enum status build_write_catalog(struct build *build, struct error *err) STATUS_CHECKED;
/* vectors.safetensors and model.safetensors of the draft; opens them. */
enum status build_write_vectors(struct build *build, struct error *err) STATUS_CHECKED;
void build_free_items(struct build *build);

/* build_neighbors.c: neighbors.safetensors of the draft, if the folder has one. */
enum status build_write_neighbors(struct build *build, struct error *err) STATUS_CHECKED;
/* Times of queries of the draft's neighbours for the n first histories; times_us[n] is scratch,
 * left sorted. */
enum status build_time_neighbors(struct build *build, size_t n, double *times_us,
                                 struct error *err) STATUS_CHECKED;
/* The manifest's settings of the model: the user model's and, where there are some, a member
 * "neighbors" with the neighbours' settings. Gives *out (mem_free). */
enum status build_settings_json(const struct build *build, char **out,
                                struct error *err) STATUS_CHECKED;

/* build_histories.c: events → popularity and histories; histories → queries. */
enum status build_read_events(struct build *build, struct error *err) STATUS_CHECKED;
enum status build_make_queries(struct build *build, struct error *err) STATUS_CHECKED;

/* build_measure.c: what the manifest says was measured. */
enum status build_measure(struct build *build, struct error *err) STATUS_CHECKED;
enum status build_describe(struct build *build, struct error *err) STATUS_CHECKED;
void build_sort(double *values, size_t n);
/* Nearest-rank percentile of sorted values; 0 of none. */
double build_percentile(const double *sorted, size_t n, double share);

/* Path of a file of the draft. */
enum status build_path(const struct build *build, const char *name, char out[PATH_BYTES_MAX],
                       struct error *err) STATUS_CHECKED;

#endif
