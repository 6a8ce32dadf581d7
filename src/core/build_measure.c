#include "core/build_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "core/profile.h"
#include "core/recommend.h"

/* What the manifest reports of a release: times of a forward pass, of the neighbours and of a whole
 * request on this machine, one at a time, and the distributions that monitoring later compares live
 * traffic with. Times are taken through the draft opened as an engine, by the code that serves. */

enum {
    MEASURED_REQUESTS_MAX = 500,
    WARM_UP_REQUESTS = 10, /* pages of the mapped files are read by the first ones */
    ARENA_BLOCK_BYTES = 1 << 16,
    ARENA_MAX_BYTES = 64 << 20,
    CPU_LINE_BYTES_MAX = 1 << 16,
    REPORT_MAX_BYTES = 1 << 20,
    REQUEST_TIMEOUT_MS = 1000, /* so that no stage is left out */
};

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

void build_sort(double *values, size_t n)
{
    if (n > 1) {
        qsort(values, n, sizeof(*values), compare_doubles);
    }
}

double build_percentile(const double *sorted, size_t n, double share)
{
    size_t rank = (size_t)(share * (double)n + 0.999999);
    rank = rank < 1 ? 1 : rank;
    return n == 0 ? 0.0 : sorted[(rank < n ? rank : n) - 1];
}

static size_t n_measured(const struct build *build)
{
    size_t n = build->histories.n;
    return n < MEASURED_REQUESTS_MAX ? n : MEASURED_REQUESTS_MAX;
}

static enum status measure_embed(struct build *build, double *times_us, float *vector,
                                 struct error *err)
{
    struct user_model_workspace *workspace = NULL;
    size_t n = n_measured(build);
    enum status status = user_model_workspace_open(build->engine->model, 1, &workspace, err);
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < n; i++) {
        struct probe_history history = history_set_at(&build->histories, i);
        uint32_t offsets[2] = {0, (uint32_t)history.n_events};
        struct history_batch batch = {1, offsets, history.events, history.now_ms};
        int64_t start_ns = clock_monotonic_ns();
        user_model_embed(build->engine->model, workspace, &batch, vector);
        times_us[i] = (double)(clock_monotonic_ns() - start_ns) / 1000.0;
    }
    user_model_workspace_close(workspace);
    build_sort(times_us, n);
    build->result->embed_p50_us = build_percentile(times_us, n, 0.5);
    build->result->embed_p99_us = build_percentile(times_us, n, 0.99);
    return STATUS_OK;
}

/* One request as it comes from a history store; *time_us is the whole of it. */
static enum status time_request(struct build *build, struct recommender *recommender,
                                struct arena *arena, size_t i, double *time_us, struct error *err)
{
    struct history_item items[HISTORY_FETCH_MAX];
    struct probe_history history = history_set_at(&build->histories, i);
    for (size_t e = 0; e < history.n_events; e++) {
        items[e] = (struct history_item){.type = history.events[e].type,
                                         .time_ms = history.events[e].time_ms};
        items[e].item_id =
            catalog_id(build->engine->catalog, history.events[e].row, &items[e].item_id_len);
    }
    struct history_result result = {STATUS_OK, items, history.n_events, 0};
    struct recommend_request request;
    recommend_request_init(&request);
    request.user_id = "measured";
    request.timeout_ms = REQUEST_TIMEOUT_MS;
    struct recommend_job job = {.request = &request, .arena = arena};
    int64_t start_ns = clock_monotonic_ns();
    enum status status = recommend_one(recommender, &job, &result, err);
    *time_us = (double)(clock_monotonic_ns() - start_ns) / 1000.0;
    arena_reset(arena);
    return status;
}

static enum status time_requests(struct build *build, struct recommender *recommender,
                                 double *times_us, struct error *err)
{
    struct arena arena;
    size_t n = n_measured(build);
    double ignored_us = 0.0;
    enum status status = STATUS_OK;
    arena_init(&arena, ARENA_BLOCK_BYTES, ARENA_MAX_BYTES);
    for (size_t i = 0; i < n && i < WARM_UP_REQUESTS && status == STATUS_OK; i++) {
        status = time_request(build, recommender, &arena, i, &ignored_us, err);
    }
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        status = time_request(build, recommender, &arena, i, &times_us[i], err);
    }
    arena_free(&arena);
    build_sort(times_us, n);
    build->result->request_p50_us = build_percentile(times_us, n, 0.5);
    build->result->request_p99_us = build_percentile(times_us, n, 0.99);
    return status;
}

static enum status measure_requests(struct build *build, double *times_us, struct error *err)
{
    struct profile_set profiles = {NULL, 0};
    struct recommender *recommender = NULL;
    enum status status = profile_set_load(NULL, &profiles, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct recommender_config config = {
        .engine = build->engine,
        .profiles = &profiles,
        .batch_max = 1,
        .seed = build->config->seed,
    };
    status = recommender_open(&config, &recommender, err);
    if (status == STATUS_OK) {
        status = time_requests(build, recommender, times_us, err);
    }
    recommender_close(recommender);
    profile_set_free(&profiles);
    return status;
}

enum status build_measure(struct build *build, struct error *err)
{
    double *times_us = mem_alloc_array(MEASURED_REQUESTS_MAX, sizeof(*times_us));
    float *vector = mem_alloc_vectors(build->vectors.dim, sizeof(*vector));
    enum status status = STATUS_OK;
    if (times_us == NULL || vector == NULL) {
        status = error_set(err, STATUS_NOMEM, "measuring: no memory");
        goto out;
    }
    status = measure_embed(build, times_us, vector, err);
    if (status == STATUS_OK && build->engine->neighbors != NULL) {
        size_t n = n_measured(build);
        status = build_time_neighbors(build, n, times_us, err);
        build->result->neighbors_p50_us = build_percentile(times_us, n, 0.5);
        build->result->neighbors_p99_us = build_percentile(times_us, n, 0.99);
    }
    if (status == STATUS_OK) {
        status = measure_requests(build, times_us, err);
    }
out:
    mem_free(vector);
    mem_free(times_us);
    return status;
}

/* ---- reports ---- */

/* "model name : AMD …" of /proc/cpuinfo. */
static void write_machine(struct json_writer *json)
{
    struct line_reader *reader = NULL;
    const char *line = NULL;
    size_t len = 0;
    bool found = false;
    if (line_reader_open("/proc/cpuinfo", CPU_LINE_BYTES_MAX, &reader, NULL) == STATUS_OK) {
        while (!found && line_reader_next(reader, &line, &len, NULL) == STATUS_OK) {
            const char *colon = strchr(line, ':');
            found = strncmp(line, "model name", strlen("model name")) == 0 && colon != NULL;
            if (found) {
                json_string(json, "machine", colon + 1 + strspn(colon + 1, " "));
            }
        }
        line_reader_close(reader);
    }
    if (!found) {
        json_string(json, "machine", "unknown");
    }
}

static void write_measured(struct json_writer *json, const struct build *build,
                           double build_seconds)
{
    const struct build_result *result = build->result;
    const struct vector_index_measured *index = &result->index;
    json_begin_object(json, NULL);
    json_double(json, "recall", index->recall);
    json_double(json, "recall_worst", index->recall_worst);
    json_int(json, "recall_k", (int64_t)index->recall_k);
    json_int(json, "n_queries", (int64_t)index->n_queries);
    json_double(json, "search_p50_us", index->search_p50_us);
    json_double(json, "search_p99_us", index->search_p99_us);
    json_double(json, "embed_p50_us", result->embed_p50_us);
    json_double(json, "embed_p99_us", result->embed_p99_us);
    if (build->engine->neighbors != NULL) {
        json_double(json, "neighbors_p50_us", result->neighbors_p50_us);
        json_double(json, "neighbors_p99_us", result->neighbors_p99_us);
    }
    json_double(json, "request_p50_us", result->request_p50_us);
    json_double(json, "request_p99_us", result->request_p99_us);
    json_int(json, "index_bytes", (int64_t)index->file_bytes);
    json_int(json, "n_without_vector", (int64_t)result->n_without_vector);
    json_int(json, "n_vectors_dropped", (int64_t)result->n_vectors_dropped);
    write_machine(json);
    json_double(json, "index_seconds", index->build_seconds);
    json_double(json, "build_seconds", build_seconds);
    json_end_object(json);
}

static void write_distribution(struct json_writer *json, const char *key, double *values, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += values[i];
    }
    build_sort(values, n);
    json_begin_object(json, key);
    json_double(json, "mean", n > 0 ? sum / (double)n : 0.0);
    json_double(json, "p10", build_percentile(values, n, 0.1));
    json_double(json, "p50", build_percentile(values, n, 0.5));
    json_double(json, "p90", build_percentile(values, n, 0.9));
    json_double(json, "p99", build_percentile(values, n, 0.99));
    json_end_object(json);
}

static void write_event_types(struct json_writer *json, const struct history_set *set)
{
    uint64_t counts[N_EVENT_TYPES] = {0};
    uint64_t total = 0;
    for (size_t i = 0; i < set->n; i++) {
        struct probe_history history = history_set_at(set, i);
        for (size_t e = 0; e < history.n_events; e++) {
            counts[history.events[e].type]++;
            total++;
        }
    }
    json_begin_object(json, "event_types");
    for (int type = 0; type < N_EVENT_TYPES; type++) {
        json_double(json, event_type_name((enum event_type)type),
                    total > 0 ? (double)counts[type] / (double)total : 0.0);
    }
    json_end_object(json);
}

static void write_drift_baseline(struct json_writer *json, const struct build *build,
                                 double *values)
{
    const struct history_set *set = &build->histories;
    size_t dim = build->vectors.dim;
    json_begin_object(json, NULL);
    json_int(json, "n_histories", (int64_t)set->n);
    for (size_t i = 0; i < set->n; i++) {
        values[i] = (double)set->spans[i].n;
    }
    write_distribution(json, "history_length", values, set->n);
    write_event_types(json, set);
    json_double(json, "unknown_item_rate",
                build->n_events_seen > 0
                    ? (double)build->n_events_unknown / (double)build->n_events_seen
                    : 0.0);
    for (size_t i = 0; i < set->n; i++) {
        values[i] = (double)vector_norm(build->queries + i * dim, dim);
    }
    write_distribution(json, "user_vector_norm", values, set->n);
    json_end_object(json);
}

static enum status keep(struct buf *text, char **out, struct error *err)
{
    *out = text->status == STATUS_OK ? mem_strdup(buf_text(text)) : NULL;
    buf_reset(text);
    return *out != NULL ? STATUS_OK : error_set(err, STATUS_NOMEM, "writing reports: no memory");
}

static enum status copy_text(const char *text, char **out, struct error *err)
{
    *out = text != NULL ? mem_strdup(text) : NULL;
    return text == NULL || *out != NULL
               ? STATUS_OK
               : error_set(err, STATUS_NOMEM, "writing reports: no memory");
}

enum status build_describe(struct build *build, struct error *err)
{
    struct buf text;
    struct json_writer json;
    struct manifest *manifest = &build->manifest;
    const struct model_folder *folder = &build->folder;
    double *values = mem_alloc_array(build->histories.n, sizeof(*values));
    if (values == NULL) {
        return error_set(err, STATUS_NOMEM, "writing reports: no memory");
    }
    buf_init(&text, REPORT_MAX_BYTES);
    json_writer_init(&json, &text);
    write_measured(&json, build, (double)(clock_monotonic_us() - build->start_us) / 1e6);
    enum status status = keep(&text, &manifest->measured_json, err);
    if (status == STATUS_OK) {
        json_writer_init(&json, &text);
        write_drift_baseline(&json, build, values);
        status = keep(&text, &manifest->drift_baseline_json, err);
    }
    if (status == STATUS_OK) {
        status = build_settings_json(build, &manifest->model_settings_json, err);
    }
    if (status == STATUS_OK) {
        status = copy_text(folder->training_json, &manifest->training_json, err);
    }
    if (status == STATUS_OK) {
        status = copy_text(folder->quality_json, &manifest->quality_json, err);
    }
    buf_free(&text);
    mem_free(values);
    return status;
}
