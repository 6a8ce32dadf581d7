#include "core/build_internal.h"

#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"

/* Session neighbours of the model folder → release. The file is copied with the rows of the release
 * in place of the folder's; items that the shop no longer has disappear from its sessions. How long
 * a query takes is measured through the open draft, on the histories that measure everything else,
 * as many hits deep as serving asks. The settings come into the manifest beside the user model's:
 * whoever reads a release's score must be able to find what it is the sum of. */

enum { SETTINGS_MAX_BYTES = 1 << 20 };

/* Row of the release of each row of the folder, UINT32_MAX where the shop no longer has the item;
 * gives (mem_free), NULL: no memory. */
static uint32_t *map_rows(const struct build *build)
{
    size_t n = idmap_size(build->folder.ids);
    uint32_t *to = mem_alloc_array(n, sizeof(*to));
    for (uint32_t row = 0; to != NULL && row < n; row++) {
        size_t len = 0;
        const char *id = idmap_id(build->folder.ids, row, &len);
        uint32_t found = idmap_find(build->rows, id, len);
        to[row] = found != IDMAP_NONE ? found : UINT32_MAX;
    }
    return to;
}

enum status build_write_neighbors(struct build *build, struct error *err)
{
    char from_path[PATH_BYTES_MAX];
    char to_path[PATH_BYTES_MAX];
    if (!build->folder.has_neighbors) {
        return STATUS_OK;
    }
    enum status status = path_join(from_path, build->config->model_dir, MODEL_FILE_NEIGHBORS, err);
    if (status == STATUS_OK) {
        status = build_path(build, RELEASE_FILE_NEIGHBORS, to_path, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    size_t n_from = idmap_size(build->folder.ids);
    uint32_t *to = map_rows(build);
    if (to == NULL) {
        return error_set(err, STATUS_NOMEM, "rows of %zu items: no memory", n_from);
    }
    status = neighbors_renumber(from_path, to, n_from, idmap_size(build->rows), to_path, err);
    mem_free(to);
    return status;
}

enum status build_time_neighbors(struct build *build, size_t n, double *times_us, struct error *err)
{
    const struct neighbors *neighbors = build->engine->neighbors;
    struct neighbors_workspace *workspace = NULL;
    double total = 0.0;
    uint32_t *rows = mem_alloc_array(NEIGHBORS_HITS_MAX, sizeof(*rows));
    float *scores = mem_alloc_array(NEIGHBORS_HITS_MAX, sizeof(*scores));
    enum status status = STATUS_OK;
    if (rows == NULL || scores == NULL) {
        status = error_set(err, STATUS_NOMEM, "measuring neighbours: no memory");
        goto out;
    }
    status = neighbors_workspace_open(neighbors, &workspace, err);
    if (status != STATUS_OK) {
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        struct probe_history history = history_set_at(&build->histories, i);
        int64_t start_ns = clock_monotonic_ns();
        (void)neighbors_query(neighbors, workspace, history.events, history.n_events,
                              history.now_ms, NEIGHBORS_HITS_MAX, rows, scores, &total);
        times_us[i] = (double)(clock_monotonic_ns() - start_ns) / 1000.0;
    }
    build_sort(times_us, n);
out:
    neighbors_workspace_close(workspace);
    mem_free(scores);
    mem_free(rows);
    return status;
}

static void write_settings(struct json_writer *json, const struct neighbors_info *info)
{
    const struct neighbors_settings *settings = &info->settings;
    json_begin_object(json, NULL);
    json_string(json, "kind", neighbors_kind_name(settings->kind));
    json_int(json, "n_sessions", (int64_t)info->n_sessions);
    json_int(json, "n_sampled", (int64_t)settings->n_sampled);
    json_int(json, "n_neighbors", (int64_t)settings->n_neighbors);
    json_int(json, "n_last", (int64_t)settings->n_last);
    json_double(json, "idf", settings->idf);
    json_double(json, "lambda_query", settings->lambda_query);
    json_double(json, "lambda_age_days", settings->lambda_age_days);
    json_double(json, "lambda_distance", settings->lambda_distance);
    json_bool(json, "exclude_current", settings->exclude_current);
    json_int(json, "n_steps", (int64_t)settings->n_steps);
    json_int(json, "n_pruned", (int64_t)settings->n_pruned);
    json_begin_object(json, "blend");
    json_bool(json, "is_primary", info->blend.is_primary);
    json_double(json, "weight", info->blend.weight);
    json_double(json, "floor", info->blend.floor);
    json_end_object(json);
    json_end_object(json);
}

/* Appends an object without its closing brace, and a comma if it has members. */
static void open_object(struct buf *text, const char *object)
{
    const char *end = strrchr(object, '}');
    size_t len = end != NULL ? (size_t)(end - object) : 0;
    buf_append(text, object, len);
    if (len > strspn(object, "{ \t\r\n")) {
        buf_append_char(text, ',');
    }
}

enum status build_settings_json(const struct build *build, char **out, struct error *err)
{
    struct buf text;
    buf_init(&text, SETTINGS_MAX_BYTES);
    if (build->engine->neighbors == NULL) {
        buf_append_text(&text, build->folder.settings_json);
    } else {
        struct neighbors_info info = neighbors_info(build->engine->neighbors);
        struct json_writer json;
        open_object(&text, build->folder.settings_json);
        buf_append_text(&text, "\"neighbors\":");
        json_writer_init(&json, &text);
        write_settings(&json, &info);
        buf_append_char(&text, '}');
    }
    *out = text.status == STATUS_OK ? mem_strdup(buf_text(&text)) : NULL;
    buf_free(&text);
    return *out != NULL ? STATUS_OK
                        : error_set(err, STATUS_NOMEM, "settings of the model: no memory");
}
