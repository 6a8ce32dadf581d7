/* Session neighbours in `aisle train`: building them, and how much they count beside a model.
 *
 * The blend is tuned on the held-out events that stopped the training, with neighbours built from
 * the other events: built from all, they would know the answers. For every case the scores of all
 * items are one product; a grid of weights and floors then costs one comparison an item and pair,
 * plus the few items that the neighbours name.
 *
 * Legend: N items, D dimension, C cases of a block, H items that the neighbours name. */
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "core/model_folder.h"
#include "core/training_internal.h"

enum { CASES_MAX = 4000, BLOCK = 16, CUTOFF = 20 };
static const double WEIGHTS[] = {0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0, 4.0};
static const double FLOORS[] = {1e-4, 1e-3, 1e-2, 5e-2};
enum {
    N_WEIGHTS = sizeof(WEIGHTS) / sizeof(WEIGHTS[0]),
    N_FLOORS = sizeof(FLOORS) / sizeof(FLOORS[0]),
    SESSION_GAP_MINUTES = 30,
};

static void apply(double override, size_t *size, double *number)
{
    if (override >= 0.0 && size != NULL) {
        *size = (size_t) override;
    }
    if (override >= 0.0 && number != NULL) {
        *number = override;
    }
}

enum status train_neighbors_check(struct training *training, struct error *err)
{
    const struct train_config *config = training->config;
    const struct train_overrides *o = &config->overrides;
    enum neighbors_kind kind = NEIGHBORS_VMIS;
    /* Weight 1 until held-out events say otherwise; a model without any keeps it. */
    training->blend =
        (struct neighbors_blend){.weight = 1.0, .floor = neighbors_blend_floor_default()};
    if (neighbors_kind_parse(config->model, &kind)) {
        training->blend.is_primary = true;
    } else if (o->neighbors == NULL || strcmp(o->neighbors, "none") == 0) {
        return STATUS_OK;
    } else if (!neighbors_kind_parse(o->neighbors, &kind)) {
        return error_set_field(err, STATUS_INVALID, "--neighbors",
                               "--neighbors: none, vmis, vsknn, vstan, sr or ar, not %.32s",
                               o->neighbors);
    }
    struct neighbors_settings *s = &training->neighbors;
    training->has_neighbors = true;
    neighbors_settings_default(kind, s);
    /* Published vmis never repeats the item just seen. Beside a model it may: the model knows when.
     */
    s->exclude_current = s->exclude_current && training->blend.is_primary;
    apply(o->neighbors_sampled, &s->n_sampled, NULL);
    apply(o->neighbors_k, &s->n_neighbors, NULL);
    apply(o->neighbors_last, &s->n_last, NULL);
    apply(o->neighbors_idf, NULL, &s->idf);
    apply(o->lambda_query, NULL, &s->lambda_query);
    apply(o->lambda_age_days, NULL, &s->lambda_age_days);
    apply(o->lambda_distance, NULL, &s->lambda_distance);
    return neighbors_settings_check(s, err);
}

/* ---- building ---- */

/* Sessions of the events file, without events at or after their user's time in until (NULL: all).
 * Where cutting at gaps leaves most events alone (times that are only an order), whole users are
 * the sessions. */
static enum status load_sessions(struct training *training, const int64_t *until,
                                 struct event_log *out, struct error *err)
{
    struct event_log_config config = {
        .path = training->config->events_path,
        .items = training->rows,
        .grouping = EVENTS_BY_SESSION,
        .session_gap_ms = (int64_t)SESSION_GAP_MINUTES * 60 * 1000,
    };
    struct event_log_counts counts;
    enum status status = event_log_load(&config, out, &counts, NULL, err);
    if (status == STATUS_OK && out->n_sequences > out->n_events / 4 * 3) {
        event_log_free(out);
        *out = (struct event_log){.n_events = 0};
        config.grouping = EVENTS_BY_USER;
        status = event_log_load(&config, out, &counts, NULL, err);
    }
    if (status != STATUS_OK || until == NULL || out->users == NULL) {
        return status;
    }
    size_t n = 0;
    size_t begin = 0;
    for (size_t s = 0; s < out->n_sequences; s++) {
        size_t end = out->offsets[s + 1];
        for (size_t e = begin; e < end; e++) {
            if (out->events[e].time_ms < until[out->users[s]]) {
                out->events[n++] = out->events[e];
            }
        }
        begin = end;
        out->offsets[s + 1] = n;
    }
    out->n_events = n;
    return STATUS_OK;
}

static enum status build_file(struct training *training, const int64_t *until, const char *path,
                              struct error *err)
{
    struct event_log sessions = {.n_events = 0};
    enum status status = load_sessions(training, until, &sessions, err);
    if (status == STATUS_OK) {
        status = neighbors_build(&sessions, training->result->n_items, &training->neighbors,
                                 &training->blend, path, err);
    }
    event_log_free(&sessions);
    return status;
}

enum status train_neighbors_write(struct training *training, struct error *err)
{
    char path[PATH_BYTES_MAX];
    if (!training->has_neighbors) {
        return STATUS_OK;
    }
    enum status status = training_path(training, MODEL_FILE_NEIGHBORS, path, err);
    return status == STATUS_OK ? build_file(training, NULL, path, err) : status;
}

/* ---- tuning ---- */

struct tuning {
    struct training *training;
    struct neighbors *neighbors;
    const struct sequence_data *data;
    const float *items; /* [N × D] */
    size_t n_items, dim, n_cases;
    size_t per_batch;
    double ndcg[N_FLOORS][N_WEIGHTS];
};

/* One thread's. */
struct tuner {
    struct neighbors_workspace *workspace;
    struct history_event *events;
    float *scores; /* [C × N] */
    uint32_t rows[NEIGHBORS_HITS_MAX];
    float hits[NEIGHBORS_HITS_MAX];
    double ndcg[N_FLOORS][N_WEIGHTS];
};

/* First held-out time of each user, gives; NULL: no memory. */
static int64_t *held_out_times(const struct training *training)
{
    const struct event_log *log = &training->log;
    const struct sequence_data_settings *data = &training->sequence.data;
    int64_t *until = mem_alloc_array(log->n_users + 1, sizeof(*until));
    if (until == NULL) {
        return NULL;
    }
    for (size_t u = 0; u < log->n_users; u++) {
        until[u] = INT64_MAX;
    }
    int64_t split_ms = trainer_data(training->trainer)->split_ms;
    for (size_t s = 0; s < log->n_sequences && log->users != NULL; s++) {
        uint64_t first = log->offsets[s];
        uint64_t end = log->offsets[s + 1];
        int64_t *mine = &until[log->users[s]];
        if (data->validation == VALIDATE_TIME_SPLIT) {
            *mine = split_ms;
        } else if (end - first >= 3 && log->events[end - 1].time_ms < *mine) {
            *mine = log->events[end - 1].time_ms;
        }
    }
    return until;
}

static size_t newest_first(const struct tuning *t, const struct sequence_case *c,
                           struct history_event *out)
{
    size_t n = (size_t)(c->next - c->first);
    n = n < NEIGHBORS_QUERY_MAX ? n : NEIGHBORS_QUERY_MAX;
    for (size_t i = 0; i < n; i++) {
        out[i] = t->data->log->events[c->next - 1 - i];
    }
    return n;
}

/* nDCG of the case at every point of the grid. scores [N] are the model's. */
static void score_case(const struct tuning *t, struct tuner *tuner, const struct sequence_case *c,
                       const float *scores)
{
    const struct history_event *next = &t->data->log->events[c->next];
    size_t n_events = newest_first(t, c, tuner->events);
    double total = 0.0;
    size_t n_hits =
        neighbors_query(t->neighbors, tuner->workspace, tuner->events, n_events, next->time_ms,
                        NEIGHBORS_HITS_MAX, tuner->rows, tuner->hits, &total);
    double mine = 0.0; /* share of the wanted item */
    for (size_t h = 0; h < n_hits; h++) {
        mine = tuner->rows[h] == next->row ? (double)tuner->hits[h] / total : mine;
    }
    for (size_t f = 0; f < N_FLOORS; f++) {
        for (size_t w = 0; w < N_WEIGHTS; w++) {
            float wanted = scores[next->row] + (float)(WEIGHTS[w] * log1p(mine / FLOORS[f]));
            uint32_t rank = 0;
#pragma omp simd reduction(+ : rank)
            for (size_t i = 0; i < t->n_items; i++) {
                rank += scores[i] >= wanted ? 1U : 0U;
            }
            for (size_t h = 0; h < n_hits; h++) {
                float base = scores[tuner->rows[h]];
                float with =
                    base + (float)(WEIGHTS[w] * log1p((double)tuner->hits[h] / total / FLOORS[f]));
                rank += base < wanted && with >= wanted ? 1U : 0U;
            }
            tuner->ndcg[f][w] += rank <= CUTOFF ? 1.0 / log2(1.0 + (double)rank) : 0.0;
        }
    }
}

static void tune_batch(const struct tuning *t, struct tuner *tuners, const float *users,
                       size_t first, size_t n)
{
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t begin = 0; begin < n; begin += BLOCK) {
        struct tuner *tuner = &tuners[omp_get_thread_num()];
        size_t n_block = n - begin < BLOCK ? n - begin : BLOCK;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n_block, (int)t->n_items,
                    (int)t->dim, 1.0F, users + begin * t->dim, (int)t->dim, t->items, (int)t->dim,
                    0.0F, tuner->scores, (int)t->n_items);
        for (size_t i = 0; i < n_block; i++) {
            score_case(t, tuner, &t->data->cases[first + begin + i],
                       tuner->scores + i * t->n_items);
        }
    }
}

static void choose(struct tuning *t, const struct tuner *tuners, size_t n_threads)
{
    struct neighbors_blend *blend = &t->training->blend;
    double best = -1.0;
    for (size_t f = 0; f < N_FLOORS; f++) {
        for (size_t w = 0; w < N_WEIGHTS; w++) {
            double sum = 0.0;
            for (size_t i = 0; i < n_threads; i++) {
                sum += tuners[i].ndcg[f][w];
            }
            t->ndcg[f][w] = sum / (double)t->n_cases;
            if (t->ndcg[f][w] > best) {
                best = t->ndcg[f][w];
                blend->weight = WEIGHTS[w];
                blend->floor = FLOORS[f];
            }
        }
    }
    LOG_INFO("blend", LOG_S("neighbors", neighbors_kind_name(t->training->neighbors.kind)),
             LOG_F("weight", blend->weight), LOG_F("floor", blend->floor), LOG_F("ndcg20", best),
             LOG_F("ndcg20_alone", t->ndcg[0][0]), LOG_I("cases", t->n_cases));
}

static enum status tune_cases(struct tuning *t, struct tuner *tuners, size_t n_threads,
                              struct error *err)
{
    float *users = mem_alloc_vectors(t->per_batch * t->dim, sizeof(float));
    enum status status = STATUS_OK;
    for (size_t i = 0; i < n_threads && status == STATUS_OK; i++) {
        status = neighbors_workspace_open(t->neighbors, &tuners[i].workspace, err);
        tuners[i].scores = mem_alloc_vectors(BLOCK * t->n_items, sizeof(float));
        tuners[i].events = mem_alloc_array(NEIGHBORS_QUERY_MAX, sizeof(struct history_event));
        if (status == STATUS_OK && (tuners[i].scores == NULL || tuners[i].events == NULL)) {
            status = error_set(err, STATUS_NOMEM, "scores of %zu items: no memory", t->n_items);
        }
    }
    if (status == STATUS_OK && users == NULL) {
        status = error_set(err, STATUS_NOMEM, "user vectors: no memory");
    }
    for (size_t first = 0; status == STATUS_OK && first < t->n_cases; first += t->per_batch) {
        size_t n = t->n_cases - first < t->per_batch ? t->n_cases - first : t->per_batch;
        trainer_users(t->training->trainer, first, n, users);
        tune_batch(t, tuners, users, first, n);
    }
    if (status == STATUS_OK) {
        choose(t, tuners, n_threads);
    }
    for (size_t i = 0; i < n_threads; i++) {
        neighbors_workspace_close(tuners[i].workspace);
        mem_free(tuners[i].scores);
        mem_free(tuners[i].events);
    }
    mem_free(users);
    return status;
}

static enum status tune_with(struct training *training, struct neighbors *neighbors,
                             struct error *err)
{
    size_t n_threads = (size_t)omp_get_max_threads();
    struct tuning t = {
        .training = training,
        .neighbors = neighbors,
        .data = trainer_data(training->trainer),
        .n_items = training->result->n_items,
        .dim = trainer_item_dim(training->trainer),
        .per_batch = training->sequence.batch_events / training->sequence.history_max,
    };
    t.n_cases = t.data->n_cases < CASES_MAX ? t.data->n_cases : CASES_MAX;
    float *items = mem_alloc_vectors(t.n_items * t.dim, sizeof(float));
    struct tuner *tuners = mem_calloc(n_threads, sizeof(*tuners));
    enum status status = STATUS_OK;
    if (items == NULL || tuners == NULL) {
        status = error_set(err, STATUS_NOMEM, "tuning neighbours: no memory");
    } else {
        trainer_item_vectors(training->trainer, items);
        t.items = items;
        status = tune_cases(&t, tuners, n_threads, err);
    }
    mem_free(items);
    mem_free(tuners);
    return status;
}

enum status train_neighbors_tune(struct training *training, struct error *err)
{
    char path[PATH_BYTES_MAX];
    struct neighbors *neighbors = NULL;
    if (trainer_data(training->trainer)->n_cases == 0) {
        return STATUS_OK;
    }
    int64_t *until = held_out_times(training);
    if (until == NULL) {
        return error_set(err, STATUS_NOMEM, "times of %zu users: no memory", training->log.n_users);
    }
    enum status status = training_path(training, MODEL_FILE_NEIGHBORS, path, err);
    if (status == STATUS_OK) {
        status = build_file(training, until, path, err);
    }
    mem_free(until);
    if (status == STATUS_OK) {
        status = neighbors_open(path, training->result->n_items, &neighbors, err);
    }
    if (status == STATUS_OK) {
        status = tune_with(training, neighbors, err);
    }
    neighbors_close(neighbors);
    return status;
}

void train_neighbors_encode(const struct training *training, struct json_writer *json)
{
    const struct neighbors_settings *s = &training->neighbors;
    if (!training->has_neighbors) {
        return;
    }
    json_begin_object(json, "neighbors");
    json_string(json, "kind", neighbors_kind_name(s->kind));
    json_bool(json, "is_primary", training->blend.is_primary);
    json_double(json, "blend_weight", training->blend.weight);
    json_double(json, "blend_floor", training->blend.floor);
    json_end_object(json);
}
