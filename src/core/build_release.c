#include "core/build_release.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "core/build_internal.h"
#include "core/engine_internal.h"

/* `aisle build`: a list of steps, each of which leaves its result in struct build. All files are
 * written into a draft, which is opened as an engine and measured as it will serve; when it is
 * whole it becomes a release by one rename, is opened once more the way a server does, checksums
 * and probes included, and only then does the channel point to it. Whatever fails before that is
 * removed, and the channel is as it was.
 *
 * The index is built on queries of the user model, so vectors and model are written first. */

enum { RECALL_K = 100, FORCED_TRIES = 3 };
/* A second build with many threads need not give the same graph: the forced target lies a bit below
 * the recall that the first one reached, and further at each try. */
static const double FORCED_SLACK = 0.005;

void build_config_default(struct build_config *config)
{
    *config = (struct build_config){
        .index = "auto",
        .target_recall = 0.95,
        .channel = "stable",
        .vector_type = "auto",
    };
}

enum status build_path(const struct build *build, const char *name, char out[PATH_BYTES_MAX],
                       struct error *err)
{
    return path_join(out, build->draft.dir, name, err);
}

/* ---- steps ---- */

static enum status check_config(const struct build_config *config, struct error *err)
{
    if (config->items_path == NULL || config->model_dir == NULL || config->releases == NULL) {
        return error_set(err, STATUS_INVALID, "items, model folder and releases must be given");
    }
    if (strcmp(config->items_path, "-") == 0) {
        return error_set(err, STATUS_INVALID, "items are read twice and must be a file");
    }
    if (config->channel != NULL && !release_name_valid(config->channel)) {
        return error_set(err, STATUS_INVALID, "%.64s is no name for a channel", config->channel);
    }
    if (!(config->target_recall > 0.0 && config->target_recall <= 1.0)) {
        return error_set(err, STATUS_INVALID, "target recall %g is not within (0, 1]",
                         config->target_recall);
    }
    if (strcmp(config->vector_type, "auto") != 0 && strcmp(config->vector_type, "f32") != 0 &&
        strcmp(config->vector_type, "f16") != 0) {
        return error_set(err, STATUS_INVALID, "unknown vector type %.16s; known: auto, f32, f16",
                         config->vector_type);
    }
    return STATUS_OK;
}

static enum status read_folder(struct build *build, struct error *err)
{
    enum status status = model_folder_open(build->config->model_dir, &build->folder, err);
    if (status != STATUS_OK) {
        error_prefix(err, "model folder %.100s: ", build->config->model_dir);
    }
    return status;
}

static enum status open_draft(struct build *build, struct error *err)
{
    return release_draft_open(build->config->releases, &build->draft, err);
}

static enum status build_index(struct build *build, struct error *err)
{
    char path[PATH_BYTES_MAX];
    struct vector_index_measured *measured = &build->result->index;
    struct vector_index_build_config config = {
        .vectors = &build->vectors,
        .factory = build->config->index,
        .queries = build->queries,
        .n_queries = build->histories.n,
        .recall_k = RECALL_K,
        .target_recall = build->config->target_recall,
        .n_threads = build->config->n_threads,
        .seed = build->config->seed,
        .show_progress = log_enabled(LOG_LEVEL_INFO),
    };
    enum status status = build_path(build, RELEASE_FILE_INDEX, path, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = vector_index_build(&config, path, measured, err);
    for (int i = 1; i <= FORCED_TRIES && status == STATUS_LIMIT && build->config->force; i++) {
        double reached = measured->recall - i * FORCED_SLACK;
        LOG_WARN("recall misses its target, forced", LOG_F("target", build->config->target_recall),
                 LOG_F("recall", measured->recall));
        config.target_recall = reached > FORCED_SLACK ? reached : FORCED_SLACK;
        status = vector_index_build(&config, path, measured, err);
    }
    return status;
}

static void fill_manifest(struct build *build)
{
    struct manifest *manifest = &build->manifest;
    const struct vector_index_measured *index = &build->result->index;
    manifest->n_items = build->vectors.n;
    manifest->dim = build->vectors.dim;
    (void)snprintf(manifest->vector_type, sizeof(manifest->vector_type), "%s",
                   build->vectors.type == VECTOR_F16 ? "F16" : "F32");
    (void)snprintf(manifest->architecture, sizeof(manifest->architecture), "%s",
                   build->folder.architecture);
    (void)snprintf(manifest->index_factory, sizeof(manifest->index_factory), "%s", index->factory);
    (void)snprintf(manifest->index_parameters, sizeof(manifest->index_parameters), "%s",
                   index->search_parameters);
}

static enum status open_engine(struct build *build, struct error *err)
{
    fill_manifest(build);
    /* From here on it works as a server's worker does: one thread a request. */
    vector_index_single_thread();
    return engine_open_draft(build->draft.dir, &build->manifest, &build->engine, err);
}

static enum status write_probes(struct build *build, struct error *err)
{
    char path[PATH_BYTES_MAX];
    struct probe_history probes[PROBES_DEFAULT];
    size_t n = 0;
    for (; n < PROBES_DEFAULT && n < build->histories.n; n++) {
        probes[n] = history_set_at(&build->histories, n);
    }
    enum status status = build_path(build, RELEASE_FILE_PROBES, path, err);
    return status == STATUS_OK ? probes_write(build->engine, path, probes, n, err) : status;
}

/* Draft → release; closes what is open of the draft first. */
static enum status commit(struct build *build, struct error *err)
{
    struct build_result *result = build->result;
    engine_close(build->engine);
    build->engine = NULL;
    enum status status = release_draft_commit(&build->draft, &build->manifest, err);
    if (status != STATUS_OK) {
        return status;
    }
    (void)snprintf(result->version, sizeof(result->version), "%s", build->manifest.version);
    status = release_dir(build->config->releases, result->version, result->dir, err);
    build->is_committed = status == STATUS_OK;
    return status;
}

static enum status check_release(struct build *build, struct error *err)
{
    struct engine_config config = {.release_dir = build->result->dir};
    struct engine *engine = NULL;
    enum status status = engine_open(&config, &engine, err);
    engine_close(engine);
    return status;
}

static enum status publish(struct build *build, struct error *err)
{
    const struct build_config *config = build->config;
    return config->channel != NULL
               ? channel_set(config->releases, config->channel, build->result->version, err)
               : STATUS_OK;
}

struct step {
    const char *what;
    enum status (*run)(struct build *build, struct error *err);
};

static const struct step STEPS[] = {
    {"reading the model folder", read_folder},
    {"reading items", build_read_items},
    {"reading events", build_read_events},
    {"opening a draft", open_draft},
    {"writing the catalogue", build_write_catalog},
    {"writing vectors and model", build_write_vectors},
    {"writing neighbours", build_write_neighbors},
    {"making queries from histories", build_make_queries},
    {"building and tuning the index", build_index},
    {"opening the draft", open_engine},
    {"writing probes", write_probes},
    {"measuring requests", build_measure},
    {"writing reports", build_describe},
    {"committing the release", commit},
    {"verifying the release", check_release},
    {"publishing", publish},
};

static void build_free(struct build *build)
{
    engine_close(build->engine);
    user_model_close(build->model);
    safetensors_close(build->vector_file);
    mem_free(build->queries);
    history_set_free(&build->histories);
    model_folder_close(&build->folder);
    build_free_items(build);
    manifest_free(&build->manifest);
}

/* After a failure: nothing of ours stays. What cannot be removed is left to the next build. */
static void undo(struct build *build)
{
    if (build->is_committed && dir_remove(build->result->dir, NULL) != STATUS_OK) {
        LOG_WARN("release of a failed build stays", LOG_S("dir", build->result->dir));
    }
    release_draft_abandon(&build->draft);
    build->result->version[0] = '\0';
    build->result->dir[0] = '\0';
}

enum status build_release(const struct build_config *config, struct build_result *result,
                          struct error *err)
{
    *result = (struct build_result){.n_items = 0};
    struct build build = {.config = config, .result = result, .start_us = clock_monotonic_us()};
    manifest_init(&build.manifest);
    enum status status = check_config(config, err);
    size_t n_steps = sizeof(STEPS) / sizeof(STEPS[0]);
    for (size_t i = 0; i < n_steps && status == STATUS_OK; i++) {
        LOG_INFO("build", LOG_I("step", i + 1), LOG_I("of", n_steps),
                 LOG_S("doing", STEPS[i].what));
        status = STEPS[i].run(&build, err);
    }
    result->seconds = (double)(clock_monotonic_us() - build.start_us) / 1e6;
    if (status != STATUS_OK) {
        undo(&build);
    }
    build_free(&build);
    return status;
}
