/* What does a whole request cost over the bare search? bench_pipeline RELEASE_DIR [N_REQUESTS]:
 * CPU time of one request through the pipeline (decay model, k = 20, metadata from SQLite), one at
 * a time on one thread, over the CPU time of FAISS' own search call with the same query, the same
 * k and the same parameters. Both are taken in turns in small rounds, so that a noisy machine is
 * noisy for both; the ratio is the median over rounds. One JSON line on stdout. */
#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/index_io_c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/parse.h"
#include "bench_shop.h"
#include "core/recommend.h"

enum { ROUNDS = 20, K_SHOWN = 20 };

struct bench {
    struct engine *engine;
    struct profile_set profiles;
    struct recommender *recommender;
    struct arena arena;
    FaissIndex *bare;
    size_t k;
    struct user_model_workspace *workspace;
    float *query;
    float *distances;
    idx_t *labels;
};

static void die(const char *what, const struct error *error)
{
    (void)fprintf(stderr, "bench_pipeline: %s: %s\n", what, error != NULL ? error->message : "");
    exit(1);
}

static void open_bare(struct bench *bench)
{
    char path[PATH_BYTES_MAX];
    FaissParameterSpace *space = NULL;
    const char *parameters = bench->engine->manifest.index_parameters;
    if (path_join(path, bench->engine->dir, "index.faiss", NULL) != STATUS_OK ||
        faiss_read_index_fname(path, 0, &bench->bare) != 0 ||
        faiss_ParameterSpace_new(&space) != 0 ||
        (parameters[0] != '\0' &&
         faiss_ParameterSpace_set_index_parameters(space, bench->bare, parameters) != 0)) {
        die("opening the index by itself", NULL);
    }
    faiss_ParameterSpace_free(space);
}

static void open_bench(struct bench *bench, const char *dir)
{
    struct error error;
    struct engine_config engine_config = {.release_dir = dir};
    if (engine_open(&engine_config, &bench->engine, &error) != STATUS_OK) {
        die("release", &error);
    }
    if (profile_set_load(NULL, &bench->profiles, &error) != STATUS_OK) {
        die("profiles", &error);
    }
    struct recommender_config config = {
        .engine = bench->engine, .profiles = &bench->profiles, .batch_max = 1, .seed = 1};
    if (recommender_open(&config, &bench->recommender, &error) != STATUS_OK ||
        user_model_workspace_open(bench->engine->model, 1, &bench->workspace, &error) !=
            STATUS_OK) {
        die("worker", &error);
    }
    arena_init(&bench->arena, 64 << 10, 8 << 20);
    bench->k = profile_find(&bench->profiles, "default")->candidates;
    bench->query = mem_alloc_array(bench->engine->vectors.dim, sizeof(float));
    bench->distances = mem_alloc_array(bench->k, sizeof(float));
    bench->labels = mem_alloc_array(bench->k, sizeof(idx_t));
    if (bench->query == NULL || bench->distances == NULL || bench->labels == NULL) {
        die("memory", NULL);
    }
    vector_index_single_thread();
    open_bare(bench);
}

static int64_t run_pipeline(struct bench *bench, uint64_t first, size_t n, int64_t *stage_ns)
{
    int64_t total = 0;
    int64_t now_ms = clock_unix_ms();
    for (uint64_t user = first; user < first + n; user++) {
        struct history_event events[BENCH_HISTORY];
        struct history_item items[BENCH_HISTORY];
        char ids[BENCH_HISTORY][BENCH_ID_BYTES];
        bench_shop_history(bench->engine->vectors.n, user, now_ms, events);
        for (size_t e = 0; e < BENCH_HISTORY; e++) {
            bench_shop_id(events[e].row, ids[e]);
            items[e] = (struct history_item){ids[e], strlen(ids[e]), EVENT_VIEW, events[e].time_ms};
        }
        struct history_result history = {
            .status = STATUS_OK, .items = items, .n_items = BENCH_HISTORY};
        struct recommend_request request;
        recommend_request_init(&request);
        request.limit = K_SHOWN;
        request.user_id = "u";
        request.timeout_ms = TIMEOUT_MS_MAX;
        arena_reset(&bench->arena);
        struct recommend_job job = {.request = &request, .arena = &bench->arena};
        struct error error;
        int64_t start = clock_thread_cpu_ns();
        if (recommend_one(bench->recommender, &job, &history, &error) != STATUS_OK) {
            die("request", &error);
        }
        total += clock_thread_cpu_ns() - start;
        if (job.answer.n_items != K_SHOWN || job.answer.degraded != 0) {
            die("an answer is short or degraded", NULL);
        }
        for (int s = 0; s < N_STAGES; s++) {
            stage_ns[s] += job.answer.stage_ns[s];
        }
    }
    return total;
}

static int64_t run_bare(struct bench *bench, uint64_t first, size_t n)
{
    int64_t total = 0;
    int64_t now_ms = clock_unix_ms();
    for (uint64_t user = first; user < first + n; user++) {
        struct history_event events[BENCH_HISTORY];
        const uint32_t offsets[2] = {0, BENCH_HISTORY};
        struct history_batch batch = {1, offsets, events, now_ms};
        bench_shop_history(bench->engine->vectors.n, user, now_ms, events);
        user_model_embed(bench->engine->model, bench->workspace, &batch, bench->query);
        int64_t start = clock_thread_cpu_ns();
        if (faiss_Index_search(bench->bare, 1, bench->query, (idx_t)bench->k, bench->distances,
                               bench->labels) != 0) {
            die("bare search", NULL);
        }
        total += clock_thread_cpu_ns() - start;
    }
    return total;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    uint64_t n_requests = 20000;
    struct bench bench = {0};
    if (argc < 2 || argc > 3 ||
        (argc == 3 && !parse_uint64(argv[2], strlen(argv[2]), &n_requests)) ||
        n_requests < ROUNDS) {
        (void)fprintf(stderr, "usage: bench_pipeline RELEASE_DIR [N_REQUESTS]\n");
        return 2;
    }
    open_bench(&bench, argv[1]);
    size_t n = n_requests / ROUNDS;
    int64_t stage_ns[N_STAGES] = {0};
    double ratios[ROUNDS];
    double pipeline_us[ROUNDS];
    double bare_us[ROUNDS];
    (void)run_bare(&bench, 0, n);
    (void)run_pipeline(&bench, 0, n, stage_ns);
    memset(stage_ns, 0, sizeof(stage_ns));
    for (size_t r = 0; r < ROUNDS; r++) {
        uint64_t first = (r + 1) * n;
        bare_us[r] = (double)run_bare(&bench, first, n) / 1e3 / (double)n;
        pipeline_us[r] = (double)run_pipeline(&bench, first, n, stage_ns) / 1e3 / (double)n;
        ratios[r] = pipeline_us[r] / bare_us[r];
    }
    qsort(ratios, ROUNDS, sizeof(double), compare_doubles);
    qsort(pipeline_us, ROUNDS, sizeof(double), compare_doubles);
    qsort(bare_us, ROUNDS, sizeof(double), compare_doubles);
    const struct manifest *manifest = &bench.engine->manifest;
    (void)printf(
        "{\"bench\": \"pipeline\", %s, \"n_items\": %zu, \"dim\": %zu, \"history\": %d, "
        "\"k\": %d, \"index\": \"%s\", \"parameters\": \"%s\", \"measured\": %s, "
        "\"pipeline_us\": %.1f, \"bare_search_us\": %.1f, \"ratio\": %.3f, \"stages_us\": {",
        bench_machine(), bench.engine->vectors.n, bench.engine->vectors.dim, BENCH_HISTORY, K_SHOWN,
        manifest->index_factory, manifest->index_parameters,
        manifest->measured_json != NULL ? manifest->measured_json : "null", pipeline_us[ROUNDS / 2],
        bare_us[ROUNDS / 2], ratios[ROUNDS / 2]);
    for (int s = 0; s < N_STAGES; s++) {
        (void)printf("%s\"%s\": %.1f", s > 0 ? ", " : "", stage_name((enum stage)s),
                     (double)stage_ns[s] / 1e3 / (double)(n * ROUNDS));
    }
    (void)printf("}}\n");
    return 0;
}
