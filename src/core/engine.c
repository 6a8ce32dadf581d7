#include "core/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "core/engine_internal.h"
#include "store/release.h"

/* A release as one set. The parts are opened in the order in which each is needed by the next, each
 * is compared with the manifest and with those before it, and at last the probes are replayed: they
 * catch what no checksum can, a set whose files are whole but do not belong together, or a machine
 * whose arithmetic gives something else than was measured at the build.
 *
 * The folder's path is resolved first: a channel is a link that may be pointed elsewhere while the
 * parts are opened, and a set of two releases must never serve.
 *
 * The popularity feature is log1p(share × N) / log1p(largest share × N), N items: share × N is how
 * many times as popular an item is as the average one, so the feature does not depend on how many
 * events were counted, and the logarithm keeps a few best-sellers from flattening all others. */

static enum status open_catalog(struct engine *engine, const char *path, struct error *err)
{
    enum status status = catalog_open(path, &engine->catalog, err);
    if (status != STATUS_OK) {
        return status;
    }
    size_t n = catalog_size(engine->catalog);
    if (n != engine->manifest.n_items) {
        return error_set(err, STATUS_MISMATCH, "%zu items, the manifest says %llu", n,
                         (unsigned long long)engine->manifest.n_items);
    }
    return STATUS_OK;
}

static enum status open_vectors(struct engine *engine, const char *path, struct error *err)
{
    const struct manifest *manifest = &engine->manifest;
    enum status status = safetensors_open(path, &engine->vector_file, err);
    if (status == STATUS_OK) {
        status = safetensors_vectors(engine->vector_file, "item_vectors", &engine->vectors, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    const struct vectors *vectors = &engine->vectors;
    const char *type = vectors->type == VECTOR_F16 ? "F16" : "F32";
    if (vectors->n != manifest->n_items || vectors->dim != manifest->dim ||
        strcmp(type, manifest->vector_type) != 0) {
        return error_set(err, STATUS_MISMATCH,
                         "%zu %s vectors of dimension %zu, the manifest says %llu %s of %llu",
                         vectors->n, type, vectors->dim, (unsigned long long)manifest->n_items,
                         manifest->vector_type, (unsigned long long)manifest->dim);
    }
    return STATUS_OK;
}

static enum status open_model(struct engine *engine, const char *path, struct error *err)
{
    enum status status = user_model_open(path, &engine->vectors, &engine->model, err);
    if (status != STATUS_OK) {
        return status;
    }
    const char *architecture = user_model_info(engine->model).architecture;
    if (strcmp(architecture, engine->manifest.architecture) != 0) {
        return error_set(err, STATUS_MISMATCH, "a %s model, the manifest says %s", architecture,
                         engine->manifest.architecture);
    }
    return STATUS_OK;
}

static enum status open_index(struct engine *engine, const char *path, struct error *err)
{
    struct vector_index_config config = {
        .path = path,
        .vectors = &engine->vectors,
        .search_parameters = engine->manifest.index_parameters,
        .memory_map = true,
    };
    enum status status = vector_index_open(&config, &engine->index, err);
    if (status != STATUS_OK) {
        return status;
    }
    const char *factory = vector_index_info(engine->index).factory;
    if (strcmp(factory, engine->manifest.index_factory) != 0) {
        return error_set(err, STATUS_MISMATCH, "an index %s, the manifest says %s", factory,
                         engine->manifest.index_factory);
    }
    return STATUS_OK;
}

struct part {
    const char *name;
    enum status (*open)(struct engine *engine, const char *path, struct error *err);
};

static const struct part PARTS[] = {
    {RELEASE_FILE_ITEMS, open_catalog},
    {RELEASE_FILE_VECTORS, open_vectors},
    {RELEASE_FILE_MODEL, open_model},
    {RELEASE_FILE_INDEX, open_index},
};

static void name_part(struct error *err, const char *name)
{
    if (err != NULL && strstr(err->message, name) == NULL) {
        error_prefix(err, "%s: ", name);
    }
}

/* The one part that a release may lack. A file that the manifest does not list is not the
 * release's: nobody vouches for it. A draft has no list yet. */
static enum status open_neighbors(struct engine *engine, struct error *err)
{
    char path[PATH_BYTES_MAX];
    const struct manifest *manifest = &engine->manifest;
    enum status status = path_join(path, engine->dir, RELEASE_FILE_NEIGHBORS, err);
    if (status != STATUS_OK) {
        return status;
    }
    bool is_there = manifest->n_files == 0 && file_exists(path);
    for (size_t i = 0; i < manifest->n_files; i++) {
        is_there = is_there || strcmp(manifest->files[i].name, RELEASE_FILE_NEIGHBORS) == 0;
    }
    if (is_there) {
        status = neighbors_open(path, engine->vectors.n, &engine->neighbors, err);
    }
    if (status != STATUS_OK) {
        name_part(err, RELEASE_FILE_NEIGHBORS);
    }
    return status;
}

static enum status make_popularity(struct engine *engine, struct error *err)
{
    size_t n = engine->vectors.n;
    const struct catalog_column *column = catalog_column(engine->catalog, "popularity");
    engine->popularity = mem_calloc(n, sizeof(*engine->popularity));
    if (engine->popularity == NULL) {
        return error_set(err, STATUS_NOMEM, "%s: popularity of %zu items", RELEASE_FILE_ITEMS, n);
    }
    if (column == NULL || column->numbers == NULL) {
        return STATUS_OK;
    }
    double largest = 0.0;
    for (size_t row = 0; row < n; row++) {
        largest = fmax(largest, column->numbers[row]);
    }
    for (size_t row = 0; row < n; row++) {
        double share = column->numbers[row];
        if (share > 0.0) { /* false for NaN, too */
            engine->popularity[row] =
                (float)(log1p(share * (double)n) / log1p(largest * (double)n));
        }
    }
    return STATUS_OK;
}

static enum status open_parts(struct engine *engine, struct error *err)
{
    char path[PATH_BYTES_MAX];
    for (size_t i = 0; i < sizeof(PARTS) / sizeof(PARTS[0]); i++) {
        enum status status = path_join(path, engine->dir, PARTS[i].name, err);
        if (status == STATUS_OK) {
            status = PARTS[i].open(engine, path, err);
        }
        if (status != STATUS_OK) {
            name_part(err, PARTS[i].name);
            return status;
        }
    }
    enum status status = open_neighbors(engine, err);
    return status == STATUS_OK ? make_popularity(engine, err) : status;
}

static enum status replay(const struct engine *engine, struct error *err)
{
    char path[PATH_BYTES_MAX];
    enum status status = path_join(path, engine->dir, RELEASE_FILE_PROBES, err);
    if (status == STATUS_OK) {
        status = probes_replay(engine, path, err);
    }
    if (status != STATUS_OK) {
        name_part(err, RELEASE_FILE_PROBES);
    }
    return status;
}

static enum status read_manifest(struct engine *engine, bool verify, struct error *err)
{
    char path[PATH_BYTES_MAX];
    if (verify) {
        return release_verify(engine->dir, &engine->manifest, err);
    }
    enum status status = path_join(path, engine->dir, RELEASE_FILE_MANIFEST, err);
    return status == STATUS_OK ? manifest_read(path, &engine->manifest, err) : status;
}

static enum status engine_new(const char *dir, struct engine **out, struct error *err)
{
    char resolved[PATH_BYTES_MAX];
    if (realpath(dir, resolved) == NULL) {
        return error_set_errno(err, "opening release %s", dir);
    }
    struct engine *engine = mem_calloc(1, sizeof(*engine));
    if (engine == NULL) {
        return error_set(err, STATUS_NOMEM, "opening release %s", dir);
    }
    (void)snprintf(engine->dir, sizeof(engine->dir), "%s", resolved);
    manifest_init(&engine->manifest);
    *out = engine;
    return STATUS_OK;
}

enum status engine_open(const struct engine_config *config, struct engine **out, struct error *err)
{
    struct engine *engine = NULL;
    *out = NULL;
    enum status status = engine_new(config->release_dir, &engine, err);
    if (engine == NULL) {
        return status;
    }
    status = read_manifest(engine, !config->skip_checksums, err);
    if (status == STATUS_OK) {
        status = open_parts(engine, err);
    }
    if (status == STATUS_OK && !config->skip_probes) {
        status = replay(engine, err);
    }
    if (status != STATUS_OK) {
        engine_close(engine);
        return status;
    }
    *out = engine;
    return STATUS_OK;
}

enum status engine_open_draft(const char *dir, const struct manifest *manifest, struct engine **out,
                              struct error *err)
{
    struct engine *engine = NULL;
    *out = NULL;
    enum status status = engine_new(dir, &engine, err);
    if (engine == NULL) {
        return status;
    }
    engine->manifest = *manifest;
    engine->manifest.model_settings_json = NULL;
    engine->manifest.measured_json = NULL;
    engine->manifest.training_json = NULL;
    engine->manifest.quality_json = NULL;
    engine->manifest.drift_baseline_json = NULL;
    status = open_parts(engine, err);
    if (status != STATUS_OK) {
        engine_close(engine);
        return status;
    }
    *out = engine;
    return STATUS_OK;
}

void engine_close(struct engine *engine)
{
    if (engine == NULL) {
        return;
    }
    mem_free(engine->popularity);
    neighbors_close(engine->neighbors);
    vector_index_close(engine->index);
    user_model_close(engine->model);
    safetensors_close(engine->vector_file);
    catalog_close(engine->catalog);
    manifest_free(&engine->manifest);
    mem_free(engine);
}
