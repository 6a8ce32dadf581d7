#include "core/build_internal.h"

#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "store/event_file.h"

/* Histories to measure with. Queries of users are not distributed like items, so recall that was
 * tuned on item vectors promises nothing; histories come from the events given, else from those
 * that the trainer left, else (a model from elsewhere, a new shop) each is one item. */

/* ---- events → popularity and histories ---- */

static void count_events(struct build *build, const struct event_log *log)
{
    for (size_t e = 0; e < log->n_events; e++) {
        build->popularity[log->events[e].row] += 1.0;
    }
}

static enum status load_events(struct build *build, struct error *err)
{
    struct event_log_config config = {
        .path = build->config->events_path,
        .items = build->rows,
        .grouping = EVENTS_BY_USER,
    };
    struct event_log log;
    struct event_log_counts counts;
    enum status status = event_log_load(&config, &log, &counts, NULL, err);
    if (status != STATUS_OK) {
        return status;
    }
    build->n_events_seen = counts.n_read;
    build->n_events_unknown = counts.n_unknown_item;
    count_events(build, &log);
    status = history_set_sample(&build->histories, &log, RECALL_QUERIES, build->config->seed, err);
    event_log_free(&log);
    return status;
}

static void take_counts(struct build *build)
{
    const struct model_folder *folder = &build->folder;
    for (uint32_t row = 0; folder->counts != NULL && row < idmap_size(build->rows); row++) {
        size_t len = 0;
        const char *id = idmap_id(build->rows, row, &len);
        uint32_t from = idmap_find(folder->ids, id, len);
        build->popularity[row] = from != IDMAP_NONE ? (double)folder->counts[from] : 0.0;
    }
}

enum status build_read_events(struct build *build, struct error *err)
{
    size_t n = idmap_size(build->rows);
    build->popularity = mem_calloc(n, sizeof(*build->popularity));
    if (build->popularity == NULL) {
        return error_set(err, STATUS_NOMEM, "popularity of %zu items: no memory", n);
    }
    if (build->config->events_path != NULL) {
        enum status status = load_events(build, err);
        if (status != STATUS_OK) {
            return status;
        }
    } else {
        take_counts(build);
    }
    double total = 0.0;
    for (size_t row = 0; row < n; row++) {
        total += build->popularity[row];
    }
    for (size_t row = 0; row < n && total > 0.0; row++) {
        build->popularity[row] /= total;
    }
    return STATUS_OK;
}

/* ---- histories → queries ---- */

static enum status read_folder_histories(struct build *build, struct error *err)
{
    char path[PATH_BYTES_MAX];
    struct row_names names = {.map = build->rows};
    struct history_counts counts = {0, 0};
    enum status status = path_join(path, build->config->model_dir, MODEL_FILE_HISTORIES, err);
    if (status != STATUS_OK || !file_exists(path)) {
        return status;
    }
    status = histories_read(path, &names, RECALL_QUERIES, &build->histories, &counts, err);
    build->n_events_seen = counts.n_events;
    build->n_events_unknown = counts.n_unknown_item;
    return status;
}

/* Rows whose vector is not zero, gives (mem_free); NULL: no memory. */
static uint32_t *rows_with_vector(const struct build *build, size_t *n_rows)
{
    const struct vectors *vectors = &build->vectors;
    uint32_t *rows = mem_alloc_array(vectors->n, sizeof(*rows));
    float *vector = mem_alloc_array(vectors->dim, sizeof(*vector));
    *n_rows = 0;
    for (size_t row = 0; rows != NULL && vector != NULL && row < vectors->n; row++) {
        vectors_row(vectors, row, vector);
        if (vector_norm(vector, vectors->dim) > 0.0F) {
            rows[(*n_rows)++] = (uint32_t)row;
        }
    }
    if (vector == NULL) {
        mem_free(rows);
        rows = NULL;
    }
    mem_free(vector);
    return rows;
}

static enum status make_item_histories(struct build *build, struct error *err)
{
    size_t n = 0;
    uint32_t *rows = rows_with_vector(build, &n);
    if (rows == NULL) {
        return error_set(err, STATUS_NOMEM, "making histories: no memory");
    }
    struct rng rng;
    rng_init(&rng, build->config->seed);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < n && i < RECALL_QUERIES && status == STATUS_OK; i++) {
        size_t drawn = i + (size_t)rng_below(&rng, n - i);
        struct history_event event = {rows[drawn], EVENT_VIEW, EVENT_TIME_UNKNOWN};
        rows[drawn] = rows[i];
        status = history_set_add(&build->histories, &event, 1, 0, err);
    }
    mem_free(rows);
    return status;
}

/* Histories → queries, one user at a time as each has its own "now". Users whose vector is zero
 * (their items have none) are dropped: such are answered by popularity, not by a search. */
static enum status embed(struct build *build, struct error *err)
{
    struct history_set *set = &build->histories;
    size_t dim = build->vectors.dim;
    struct user_model_workspace *workspace = NULL;
    mem_free(build->queries);
    build->queries = mem_alloc_vectors(set->n * dim, sizeof(float));
    if (build->queries == NULL) {
        return error_set(err, STATUS_NOMEM, "vectors of %zu users: no memory", set->n);
    }
    enum status status = user_model_workspace_open(build->model, 1, &workspace, err);
    if (status != STATUS_OK) {
        return status;
    }
    size_t n_kept = 0;
    for (size_t i = 0; i < set->n; i++) {
        struct probe_history history = history_set_at(set, i);
        uint32_t offsets[2] = {0, (uint32_t)history.n_events};
        struct history_batch batch = {1, offsets, history.events, history.now_ms};
        float *query = build->queries + n_kept * dim;
        user_model_embed(build->model, workspace, &batch, query);
        if (vector_norm(query, dim) > 0.0F) {
            set->spans[n_kept++] = set->spans[i];
        }
    }
    set->n = n_kept;
    user_model_workspace_close(workspace);
    return STATUS_OK;
}

enum status build_make_queries(struct build *build, struct error *err)
{
    enum status status = embed(build, err);
    if (status == STATUS_OK && build->histories.n == 0 && build->config->events_path == NULL) {
        history_set_clear(&build->histories);
        status = read_folder_histories(build, err);
        if (status == STATUS_OK) {
            status = embed(build, err);
        }
    }
    if (status == STATUS_OK && build->histories.n == 0) {
        history_set_clear(&build->histories);
        status = make_item_histories(build, err);
        if (status == STATUS_OK) {
            status = embed(build, err);
        }
    }
    if (status == STATUS_OK && build->histories.n == 0) {
        status = error_set(err, STATUS_INVALID,
                           "the user model gives a zero vector for every "
                           "history: do its settings ignore views?");
    }
    return status;
}
