/* Offline evaluation: each case's next item is ranked among all items of the catalogue.
 *
 * Sampled negatives reorder models (W. Krichene, S. Rendle, "On Sampled Metrics for Item
 * Recommendation", KDD 2020), so that they are there for comparison with older papers only, and
 * every score is computed. Cases are read once, by item id; each release then ranks them, so that
 * only one release is open at a time and comparisons are paired case by case. Threads take batches
 * of cases and write each case's ranks into its own place; metrics are summed from there in order,
 * and best places of the top lists are joined by their minimum: nothing depends on the threads.
 *
 * The time of a user is measured afterwards, alone, in one thread and one by one, as a request
 * would meet it; on batches it is a fraction of that. */
#include "core/evaluate_offline.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "core/evaluate_internal.h"

enum {
    BATCH = 64,
    BATCH_LARGE = 16, /* of catalogues over ITEMS_LARGE: bounds a thread's scores */
    ITEMS_LARGE = 1 << 18,
    BATCHES_PER_THREAD = 16, /* between two lines of progress */
    TIMED_MAX = 2000,
};

static const char *const PROTOCOL_NAMES[] = {
    [PROTOCOL_LEAVE_LAST_OUT] = "leave-last-out",
    [PROTOCOL_EVERY_POSITION] = "every-position",
    [PROTOCOL_TIME_SPLIT] = "time-split",
    [PROTOCOL_PAIRS] = "pairs",
};
enum { N_PROTOCOLS = sizeof(PROTOCOL_NAMES) / sizeof(PROTOCOL_NAMES[0]) };

void evaluate_config_default(struct evaluate_config *config)
{
    *config = (struct evaluate_config){.protocol = PROTOCOL_LEAVE_LAST_OUT,
                                       .cutoffs = {5, 10, 20},
                                       .n_cutoffs = 3,
                                       .seen = {true, false},
                                       .seed = 1,
                                       .popularity_days = 7};
}

const char *evaluate_protocol_name(enum evaluate_protocol protocol)
{
    return PROTOCOL_NAMES[protocol];
}

bool evaluate_protocol_parse(const char *text, enum evaluate_protocol *out)
{
    for (int i = 0; i < N_PROTOCOLS; i++) {
        if (strcmp(text, PROTOCOL_NAMES[i]) == 0) {
            *out = (enum evaluate_protocol)i;
            return true;
        }
    }
    return false;
}

static enum status check_config(const struct evaluate_config *config, struct error *err)
{
    if (config->n_cutoffs < 1 || config->n_cutoffs > EVALUATE_CUTOFFS_MAX) {
        return error_set(err, STATUS_INVALID, "%zu cutoffs, must be 1 to %d", config->n_cutoffs,
                         EVALUATE_CUTOFFS_MAX);
    }
    for (size_t k = 0; k < config->n_cutoffs; k++) {
        size_t before = k > 0 ? config->cutoffs[k - 1] : 0;
        if (config->cutoffs[k] <= before || config->cutoffs[k] > EVALUATE_CUTOFF_MAX) {
            return error_set(err, STATUS_INVALID, "cutoffs must rise, from 1 to %d",
                             EVALUATE_CUTOFF_MAX);
        }
    }
    if (!config->seen[EVALUATE_SEEN_RANKED] && !config->seen[EVALUATE_SEEN_EXCLUDED]) {
        return error_set(err, STATUS_INVALID, "neither with nor without seen items");
    }
    if (config->n_negatives > EVALUATE_NEGATIVES_MAX) {
        return error_set(err, STATUS_INVALID, "%zu negatives, must be up to %d",
                         config->n_negatives, EVALUATE_NEGATIVES_MAX);
    }
    if (config->popularity_events_path != NULL &&
        (config->popularity_days < 1 || config->popularity_days > EVALUATE_DAYS_MAX)) {
        return error_set(err, STATUS_INVALID, "%zu days of popularity, must be 1 to %d",
                         config->popularity_days, EVALUATE_DAYS_MAX);
    }
    return STATUS_OK;
}

enum status evaluation_open(const struct evaluate_config *config, struct evaluation **out,
                            struct error *err)
{
    *out = NULL;
    enum status status = check_config(config, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct evaluation *evaluation = mem_calloc(1, sizeof(*evaluation));
    if (evaluation == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of an evaluation");
    }
    evaluation->config = config;
    evaluation->n_threads =
        config->n_threads != 0 ? config->n_threads : (size_t)omp_get_max_threads();
    status = evaluate_cases_load(config, &evaluation->cases, err);
    if (status == STATUS_OK && config->popularity_events_path != NULL) {
        status = evaluate_counts_load(config->popularity_events_path, config->popularity_days,
                                      &evaluation->recent, err);
    }
    if (status != STATUS_OK) {
        evaluation_close(evaluation);
        return status;
    }
    *out = evaluation;
    return STATUS_OK;
}

static void ranks_free(struct evaluate_ranks *ranks)
{
    for (size_t i = 0; i < (size_t)N_EVALUATE_SEEN * N_EVALUATE_ROWS; i++) {
        mem_free(ranks->ranks[i / N_EVALUATE_ROWS][i % N_EVALUATE_ROWS]);
    }
    mem_free(ranks->without_answer);
    memset(ranks, 0, sizeof(*ranks));
}

void evaluation_close(struct evaluation *evaluation)
{
    if (evaluation == NULL) {
        return;
    }
    for (size_t i = 0; i < evaluation->n_releases; i++) {
        ranks_free(&evaluation->releases[i]);
    }
    evaluate_cases_free(&evaluation->cases);
    evaluate_counts_free(&evaluation->recent);
    mem_free(evaluation);
}

/* ---- one release ---- */

static enum status no_memory(struct error *err)
{
    return error_set(err, STATUS_NOMEM, "memory of an evaluation");
}

static enum status ranks_init(const struct evaluation *evaluation, const struct evaluate_ranking *r,
                              struct error *err)
{
    bool blended = r->engine->neighbors != NULL && !r->blend.is_primary && r->blend.weight > 0.0;
    const bool has_row[N_EVALUATE_ROWS] = {
        [EVALUATE_VECTOR] = true,
        [EVALUATE_NEIGHBORS] = r->engine->neighbors != NULL,
        [EVALUATE_BLEND] = blended,
        [EVALUATE_POPULARITY] = true,
        [EVALUATE_RECENT] = evaluation->config->popularity_events_path != NULL,
    };
    r->out->served = EVALUATE_VECTOR;
    if (r->engine->neighbors != NULL && r->blend.is_primary) {
        r->out->served = EVALUATE_NEIGHBORS;
    } else if (blended) {
        r->out->served = EVALUATE_BLEND;
    }
    r->out->without_answer = mem_calloc(r->cases->n, 1);
    if (r->out->without_answer == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < (size_t)N_EVALUATE_SEEN * N_EVALUATE_ROWS; i++) {
        size_t seen = i / N_EVALUATE_ROWS;
        size_t row = i % N_EVALUATE_ROWS;
        if (!evaluation->config->seen[seen] || !has_row[row]) {
            continue;
        }
        r->out->ranks[seen][row] = mem_calloc(r->cases->n, sizeof(uint32_t));
        if (r->out->ranks[seen][row] == NULL) {
            return no_memory(err);
        }
    }
    return STATUS_OK;
}

static enum status recent_init(const struct evaluation *evaluation, struct evaluate_ranking *r,
                               struct error *err)
{
    const struct evaluate_counts *recent = &evaluation->recent;
    double *counts = mem_calloc(r->n_items, sizeof(*counts));
    if (counts == NULL) {
        return no_memory(err);
    }
    for (uint32_t item = 0; item < idmap_size(recent->items); item++) {
        size_t len;
        const char *id = idmap_id(recent->items, item, &len);
        uint32_t row = catalog_row(r->engine->catalog, id, len);
        if (row != IDMAP_NONE) {
            counts[row] = recent->counts[item];
        }
    }
    enum status status = evaluate_popularity_init(counts, r->n_items, &r->recent, err);
    mem_free(counts);
    return status;
}

static void ranking_free(struct evaluate_ranking *r)
{
    mem_free(r->rows);
    mem_free(r->items);
    evaluate_popularity_free(&r->popularity);
    evaluate_popularity_free(&r->recent);
}

static enum status ranking_init(const struct evaluation *evaluation, struct evaluate_ranking *r,
                                struct error *err)
{
    const struct vectors *vectors = &r->engine->vectors;
    size_t n_known = idmap_size(r->cases->items);
    r->n_items = vectors->n;
    r->n_padded = (r->n_items + EVALUATE_BLOCK - 1) / EVALUATE_BLOCK * EVALUATE_BLOCK;
    r->dim = vectors->dim;
    r->n_batch = r->n_items > ITEMS_LARGE ? BATCH_LARGE : BATCH;
    r->k_max = r->config->cutoffs[r->config->n_cutoffs - 1];
    r->history_max = user_model_info(r->engine->model).history_max;
    if (r->engine->neighbors != NULL) {
        r->blend = neighbors_info(r->engine->neighbors).blend;
    }
    r->rows = mem_alloc_array(n_known, sizeof(uint32_t));
    r->items = mem_alloc_vectors(r->n_padded * r->dim, sizeof(float));
    if (r->rows == NULL || r->items == NULL) {
        return no_memory(err);
    }
    for (uint32_t item = 0; item < n_known; item++) {
        size_t len;
        const char *id = idmap_id(r->cases->items, item, &len);
        r->rows[item] = catalog_row(r->engine->catalog, id, len);
    }
    vectors_rows(vectors, 0, r->n_items, r->items);
    memset(r->items + r->n_items * r->dim, 0, (r->n_padded - r->n_items) * r->dim * sizeof(float));
    enum status status = evaluate_popularity_init(
        catalog_column(r->engine->catalog, "popularity")->numbers, r->n_items, &r->popularity, err);
    if (status == STATUS_OK && r->config->popularity_events_path != NULL) {
        status = recent_init(evaluation, r, err);
    }
    return status == STATUS_OK ? ranks_init(evaluation, r, err) : status;
}

/* The first case (in their order) of which no negative can be drawn, or the number of cases. */
static size_t rank_all(const struct evaluate_ranking *r, struct evaluate_scorer **scorers,
                       size_t n_threads)
{
    struct progress progress = {0};
    size_t n = r->cases->n;
    size_t n_batches = (n + r->n_batch - 1) / r->n_batch;
    size_t n_round = n_threads * BATCHES_PER_THREAD;
    size_t fault = n;
    for (size_t first = 0; first < n_batches && fault == n; first += n_round) {
        size_t end = n_batches - first < n_round ? n_batches : first + n_round;
#pragma omp parallel for schedule(dynamic) num_threads((int)n_threads) reduction(min : fault)
        for (size_t batch = first; batch < end; batch++) {
            size_t begin = batch * r->n_batch;
            size_t n_cases = n - begin < r->n_batch ? n - begin : r->n_batch;
            size_t at = n;
            if (!evaluate_scorer_rank(scorers[omp_get_thread_num()], begin, n_cases, &at) &&
                at < fault) {
                fault = at;
            }
        }
        if (r->config->show_progress) {
            size_t done = end * r->n_batch < n ? end * r->n_batch : n;
            progress_show(&progress, "evaluating", done, n, NULL);
        }
    }
    if (r->config->show_progress) {
        progress_end(&progress, "evaluating", n, NULL);
    }
    return fault;
}

static enum status no_negatives(const struct evaluate_cases *cases, size_t at, struct error *err)
{
    const struct evaluate_case *c = &cases->cases[at];
    if (cases->users == NULL) {
        return error_set(err, STATUS_INVALID,
                         "line %u holds every item of the catalogue: no negatives for it", c->user);
    }
    return error_set(err, STATUS_INVALID,
                     "user %s has events of every item of the catalogue: no negatives for it",
                     idmap_id(cases->users, c->user, NULL));
}

static void sum_metrics(const struct evaluate_config *config, const uint32_t *ranks, size_t n,
                        struct evaluate_metrics *out)
{
    for (size_t k = 0; k < config->n_cutoffs; k++) {
        double hits = 0.0;
        for (size_t i = 0; i < n; i++) {
            if (ranks[i] == 0 || ranks[i] > config->cutoffs[k]) {
                continue;
            }
            hits += 1.0;
            out->mrr[k] += 1.0 / (double)ranks[i];
            out->ndcg[k] += 1.0 / log2(1.0 + (double)ranks[i]);
        }
        out->hr[k] = hits / (double)n;
        out->mrr[k] /= (double)n;
        out->ndcg[k] /= (double)n;
        out->coverage[k] = (double)NAN;
    }
}

static void measure_coverage(const struct evaluate_ranking *r,
                             struct evaluate_scorer *const *scorers, size_t n_scorers, size_t seen,
                             enum evaluate_row row, double *coverage)
{
    const uint32_t n_items = (uint32_t)r->n_items;
    for (size_t k = 0; k < r->config->n_cutoffs; k++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < n_items; i++) {
            bool stands = false;
            for (size_t t = 0; t < n_scorers && !stands; t++) {
                const uint16_t *best =
                    evaluate_scorer_best(scorers[t], (enum evaluate_seen)seen, row);
                stands = best[i] <= r->config->cutoffs[k];
            }
            n += stands ? 1 : 0;
        }
        coverage[k] = (double)n / (double)n_items;
    }
}

static void measure_rows(const struct evaluate_ranking *r, struct evaluate_scorer *const *scorers,
                         size_t n_scorers, struct evaluate_result *result)
{
    for (size_t i = 0; i < (size_t)N_EVALUATE_SEEN * N_EVALUATE_ROWS; i++) {
        size_t seen = i / N_EVALUATE_ROWS;
        enum evaluate_row row = (enum evaluate_row)(i % N_EVALUATE_ROWS);
        const uint32_t *ranks = r->out->ranks[seen][row];
        struct evaluate_metrics *metrics = &result->metrics[seen][row];
        if (ranks == NULL) {
            continue;
        }
        result->has_row[row] = true;
        sum_metrics(r->config, ranks, r->cases->n, metrics);
        if (r->config->n_negatives == 0) {
            measure_coverage(r, scorers, n_scorers, seen, row, metrics->coverage);
        }
    }
}

static int by_number(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;
    return (*x > *y) - (*x < *y);
}

static enum status measure_time(const struct evaluate_ranking *r, struct evaluate_scorer *scorer,
                                struct evaluate_result *result, struct error *err)
{
    size_t step = (r->cases->n + TIMED_MAX - 1) / TIMED_MAX;
    size_t n = (r->cases->n + step - 1) / step;
    double *us = mem_alloc_array(n, sizeof(*us));
    if (us == NULL) {
        return no_memory(err);
    }
    evaluate_scorer_time(scorer, step, n, us);
    qsort(us, n, sizeof(*us), by_number);
    result->n_timed = n;
    result->user_p50_us = us[n / 2];
    result->user_p90_us = us[n * 9 / 10];
    mem_free(us);
    return STATUS_OK;
}

static void describe(const struct evaluate_ranking *r, struct evaluate_result *result)
{
    (void)snprintf(result->version, sizeof(result->version), "%s", r->engine->manifest.version);
    (void)snprintf(result->architecture, sizeof(result->architecture), "%s",
                   user_model_info(r->engine->model).architecture);
    result->n_items = r->n_items;
    result->served = r->out->served;
    result->n = r->cases->n;
    for (size_t i = 0; i < r->cases->n; i++) {
        result->n_unknown += r->rows[r->cases->cases[i].next] == IDMAP_NONE;
        result->n_empty += r->out->without_answer[i];
    }
}

static enum status rank_release(const struct evaluation *evaluation, struct evaluate_ranking *r,
                                struct evaluate_scorer **scorers, struct evaluate_result *result,
                                struct error *err)
{
    size_t n_threads = evaluation->n_threads;
    enum status status = ranking_init(evaluation, r, err);
    for (size_t t = 0; status == STATUS_OK && t < n_threads; t++) {
        status = evaluate_scorer_open(r, &scorers[t], err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    size_t fault = rank_all(r, scorers, n_threads);
    if (fault < r->cases->n) {
        return no_negatives(r->cases, fault, err);
    }
    describe(r, result);
    measure_rows(r, scorers, n_threads, result);
    return measure_time(r, scorers[0], result, err);
}

enum status evaluation_add(struct evaluation *evaluation, const struct engine *engine,
                           struct evaluate_result *result, struct error *err)
{
    int64_t start_us = clock_monotonic_us();
    if (evaluation->n_releases == EVALUATE_RELEASES_MAX) {
        return error_set(err, STATUS_LIMIT, "more than %d releases", EVALUATE_RELEASES_MAX);
    }
    struct evaluate_ranks *ranks = &evaluation->releases[evaluation->n_releases];
    struct evaluate_ranking ranking = {
        .engine = engine, .config = evaluation->config, .cases = &evaluation->cases, .out = ranks};
    struct evaluate_result made = {0};
    struct evaluate_scorer **scorers =
        mem_calloc(evaluation->n_threads, sizeof(struct evaluate_scorer *));
    if (scorers == NULL) {
        return no_memory(err);
    }
    int blas_threads = openblas_get_num_threads();
    openblas_set_num_threads(1); /* the threads are ours */
    enum status status = rank_release(evaluation, &ranking, scorers, &made, err);
    openblas_set_num_threads(blas_threads);
    for (size_t t = 0; t < evaluation->n_threads; t++) {
        evaluate_scorer_close(scorers[t]);
    }
    mem_free(scorers);
    ranking_free(&ranking);
    if (status != STATUS_OK) {
        ranks_free(ranks);
        return status;
    }
    evaluation->n_releases++;
    made.seconds = (double)(clock_monotonic_us() - start_us) / 1e6;
    *result = made;
    return STATUS_OK;
}
