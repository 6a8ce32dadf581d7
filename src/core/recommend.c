/* The pipeline of one request: history → user vector → candidates → filter → score → metadata.
 *
 * recommend_run answers all requests that are ready together: one forward pass of the user model
 * over their ragged histories and one search for all of them, because both cost less per user in a
 * batch; what differs between requests (filter, exclusions, ranking, metadata) is done one by one.
 * Session neighbours are asked for each request of its own: their work is proportional to the
 * sessions that share its items, and nothing of it is shared between visitors.
 * A request whose history did not arrive, and a visitor whom nobody knows, are answered from what
 * the request itself says, else by popularity; the answer names what was degraded. */
#include "core/recommend.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "core/recommend_internal.h"

/* Share of the time allowed that may pass waiting for history; the rest is for answering. */
static const double HISTORY_TIME_SHARE = 0.6;

/* ---- a worker's scratch memory ---- */

static const double *number_column(const struct catalog *catalog, const char *name)
{
    const struct catalog_column *column = catalog_column(catalog, name);
    return column != NULL ? column->numbers : NULL;
}

static bool alloc_scratch(struct recommender *r, size_t n_items)
{
    size_t history_max = REQUEST_ITEMS_MAX + HISTORY_FETCH_MAX;
    r->events = mem_alloc_array(r->batch_max * history_max, sizeof(*r->events));
    r->offsets = mem_alloc_array(r->batch_max + 1, sizeof(*r->offsets));
    r->embedded = mem_alloc_vectors(r->batch_max * r->dim, sizeof(float));
    r->user_vectors = mem_alloc_vectors(r->batch_max * r->dim, sizeof(float));
    r->queries = mem_alloc_vectors(r->batch_max * r->dim, sizeof(float));
    r->batch_scores = mem_alloc_array(r->batch_max * BATCH_SEARCH_K_MAX, sizeof(float));
    r->batch_rows = mem_alloc_array(r->batch_max * BATCH_SEARCH_K_MAX, sizeof(int64_t));
    r->scores = mem_alloc_array(SEARCH_K_MAX, sizeof(float));
    r->rows = mem_alloc_array(SEARCH_K_MAX, sizeof(int64_t));
    r->marks = mem_calloc((n_items + 63) / 64 + 1, sizeof(uint64_t));
    r->candidates = mem_alloc_array(CANDIDATES_MAX, sizeof(*r->candidates));
    r->picked = mem_alloc_array(SCORE_CANDIDATES_MAX, sizeof(*r->picked));
    r->similarities = mem_alloc_array(CANDIDATES_MAX, sizeof(float));
    r->candidate_rows = mem_alloc_array(CANDIDATES_MAX, sizeof(uint32_t));
    r->candidate_vectors = mem_alloc_vectors(DIVERSE_POOL_MAX * r->dim, sizeof(float));
    return r->events != NULL && r->offsets != NULL && r->embedded != NULL &&
           r->user_vectors != NULL && r->queries != NULL && r->batch_scores != NULL &&
           r->batch_rows != NULL && r->scores != NULL && r->rows != NULL && r->marks != NULL &&
           r->candidates != NULL && r->picked != NULL && r->similarities != NULL &&
           r->candidate_rows != NULL && r->candidate_vectors != NULL;
}

static enum status open_neighbors(struct recommender *r, struct error *err)
{
    r->blend = neighbors_info(r->engine->neighbors).blend;
    r->neighbor_rows = mem_alloc_array(NEIGHBORS_HITS_MAX, sizeof(*r->neighbor_rows));
    r->neighbor_scores = mem_alloc_array(NEIGHBORS_HITS_MAX, sizeof(*r->neighbor_scores));
    r->neighbor_slots = mem_alloc_array(NEIGHBOR_SLOTS, sizeof(*r->neighbor_slots));
    if (r->neighbor_rows == NULL || r->neighbor_scores == NULL || r->neighbor_slots == NULL) {
        return error_set(err, STATUS_NOMEM, "a worker's scratch memory");
    }
    return neighbors_workspace_open(r->engine->neighbors, &r->neighbors, err);
}

enum status recommender_open(const struct recommender_config *config, struct recommender **out,
                             struct error *err)
{
    *out = NULL;
    if (config->batch_max < 1 || config->batch_max > RECOMMEND_BATCH_MAX) {
        return error_set(err, STATUS_INVALID, "batch of %zu, must be 1 to %d", config->batch_max,
                         RECOMMEND_BATCH_MAX);
    }
    struct recommender *r = mem_calloc(1, sizeof(*r));
    if (r == NULL) {
        return error_set(err, STATUS_NOMEM, "a worker's scratch memory");
    }
    const struct engine *engine = config->engine;
    r->engine = engine;
    r->profiles = config->profiles;
    r->batch_max = config->batch_max;
    r->dim = engine->vectors.dim;
    r->stock = number_column(engine->catalog, "stock");
    r->created_at = number_column(engine->catalog, "created_at");
    rng_init(&r->rng, config->seed);
    enum status status = STATUS_OK;
    if (!alloc_scratch(r, engine->vectors.n)) {
        status = error_set(err, STATUS_NOMEM, "a worker's scratch memory");
    }
    if (status == STATUS_OK) {
        status = catalog_reader_open(engine->catalog, &r->reader, err);
    }
    if (status == STATUS_OK) {
        status = filter_cache_open(engine->catalog, FILTER_CACHE_MAX_BYTES, &r->filters, err);
    }
    if (status == STATUS_OK) {
        status = user_model_workspace_open(engine->model, r->batch_max, &r->workspace, err);
    }
    if (status == STATUS_OK && engine->neighbors != NULL) {
        status = open_neighbors(r, err);
    }
    if (status != STATUS_OK) {
        recommender_close(r);
        return status;
    }
    *out = r;
    return STATUS_OK;
}

void recommender_close(struct recommender *r)
{
    if (r == NULL) {
        return;
    }
    neighbors_workspace_close(r->neighbors);
    mem_free(r->neighbor_slots);
    mem_free(r->neighbor_scores);
    mem_free(r->neighbor_rows);
    user_model_workspace_close(r->workspace);
    filter_cache_close(r->filters);
    catalog_reader_close(r->reader);
    mem_free(r->candidate_vectors);
    mem_free(r->candidate_rows);
    mem_free(r->similarities);
    mem_free(r->picked);
    mem_free(r->candidates);
    mem_free(r->marks);
    mem_free(r->scan_rows);
    mem_free(r->rows);
    mem_free(r->scores);
    mem_free(r->batch_rows);
    mem_free(r->batch_scores);
    mem_free(r->queries);
    mem_free(r->user_vectors);
    mem_free(r->embedded);
    mem_free(r->offsets);
    mem_free(r->events);
    mem_free(r);
}

/* ---- begin: check the request, resolve its ids ---- */

static uint32_t find_row(const struct recommender *r, const char *id)
{
    return catalog_row(r->engine->catalog, id, strlen(id));
}

/* Ids → rows; the unknown ones are kept for the answer's `ignored`. */
static void resolve_items(struct recommender *r, struct recommend_job *job)
{
    const struct recommend_request *request = job->request;
    for (size_t i = 0; i < request->n_items; i++) {
        uint32_t row = find_row(r, request->items[i]);
        if (row == IDMAP_NONE) {
            job->answer.ignored[job->answer.n_ignored++] = request->items[i];
            continue;
        }
        enum event_type type = request->scenario == SCENARIO_CART ? EVENT_CART : EVENT_VIEW;
        job->events[job->n_events++] = (struct history_event){row, type, job->now_ms};
        job->excluded[job->n_excluded++] = row;
    }
    job->n_request_events = job->n_events;
    for (size_t i = 0; i < request->n_candidates; i++) {
        uint32_t row = find_row(r, request->candidates[i]);
        if (row == IDMAP_NONE) {
            job->answer.ignored[job->answer.n_ignored++] = request->candidates[i];
        } else {
            job->candidate_rows[job->n_candidate_rows++] = row;
        }
    }
    for (size_t i = 0; i < request->n_exclude; i++) {
        uint32_t row = find_row(r, request->exclude[i]);
        if (row != IDMAP_NONE) {
            job->excluded[job->n_excluded++] = row;
        }
    }
    for (size_t i = 0; i < request->n_exclude_rows; i++) {
        if (request->exclude_rows[i] < r->engine->vectors.n) {
            job->excluded[job->n_excluded++] = request->exclude_rows[i];
        }
    }
}

static enum status alloc_job(struct recommend_job *job, struct error *err)
{
    const struct recommend_request *request = job->request;
    size_t n_events = request->n_items + HISTORY_FETCH_MAX;
    size_t n_excluded =
        request->n_items + request->n_exclude + request->n_exclude_rows + HISTORY_FETCH_MAX;
    job->events = arena_alloc_array(job->arena, n_events, sizeof(*job->events));
    job->excluded = arena_alloc_array(job->arena, n_excluded, sizeof(*job->excluded));
    job->candidate_rows =
        arena_alloc_array(job->arena, request->n_candidates + 1, sizeof(*job->candidate_rows));
    job->answer.ignored = arena_alloc_array(
        job->arena, request->n_items + request->n_candidates + 1, sizeof(*job->answer.ignored));
    if (job->events == NULL || job->excluded == NULL || job->candidate_rows == NULL ||
        job->answer.ignored == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of one request");
    }
    return STATUS_OK;
}

static bool needs_history(const struct recommend_request *request)
{
    return request->user_id != NULL && !request->no_consent &&
           (request->scenario != SCENARIO_POPULAR || request->exclude_seen != EXCLUDE_SEEN_NONE);
}

enum status recommend_begin(struct recommender *r, struct recommend_job *job, int64_t start_us,
                            struct error *err)
{
    const struct recommend_request *request = job->request;
    enum status status = recommend_request_check(request, err);
    if (status != STATUS_OK) {
        return status;
    }
    const char *profile = request->profile != NULL ? request->profile : "default";
    job->profile = profile_find(r->profiles, profile);
    if (job->profile == NULL) {
        return error_set_field(err, STATUS_INVALID, "profile", "there is no ranking profile %.64s",
                               profile);
    }
    if (request->filter_json != NULL) {
        /* A mistake is to be known before anything is fetched; compiled when the request runs. */
        status =
            filter_cache_check(r->filters, request->filter_json, request->filter_json_len, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    status = alloc_job(job, err);
    if (status != STATUS_OK) {
        return status;
    }
    job->now_ms = clock_unix_ms();
    job->deadline_us = start_us + request->timeout_ms * 1000;
    job->history_deadline_us =
        start_us + (int64_t)((double)request->timeout_ms * 1000.0 * HISTORY_TIME_SHARE);
    job->wants_history = needs_history(request);
    ulid_make(job->now_ms, &r->rng, job->answer.request_id);
    job->answer.release = r->engine->manifest.version;
    job->answer.profile = job->profile;
    resolve_items(r, job);
    return STATUS_OK;
}

/* ---- history ---- */

static bool excludes(enum exclude_seen exclude_seen, enum event_type type)
{
    return exclude_seen == EXCLUDE_SEEN_VIEWED ||
           (exclude_seen == EXCLUDE_SEEN_PURCHASED && type == EVENT_PURCHASE);
}

void recommend_set_history(struct recommender *r, struct recommend_job *job,
                           const struct history_result *result)
{
    if (job->request->no_consent) {
        return; /* whoever fetched it: it is not to be used */
    }
    if (result->status != STATUS_OK) {
        job->answer.degraded |= DEGRADED_HISTORY;
        return;
    }
    const char *ids[HISTORY_FETCH_MAX] = {NULL};
    size_t lens[HISTORY_FETCH_MAX] = {0};
    uint32_t rows[HISTORY_FETCH_MAX] = {0};
    size_t n = result->n_items < HISTORY_FETCH_MAX ? result->n_items : HISTORY_FETCH_MAX;
    for (size_t i = 0; i < n; i++) {
        ids[i] = result->items[i].item_id;
        lens[i] = result->items[i].item_id_len;
    }
    catalog_rows(r->engine->catalog, ids, lens, n, rows);
    /* A search page's candidates are ranked whether seen or not. */
    bool may_exclude = job->request->candidates == NULL;
    for (size_t i = 0; i < n; i++) {
        const struct history_item *item = &result->items[i];
        uint32_t row = rows[i];
        if (row == IDMAP_NONE) {
            job->answer.n_history_unknown++;
            continue;
        }
        job->events[job->n_events++] = (struct history_event){row, item->type, item->time_ms};
        if (may_exclude && excludes(job->request->exclude_seen, item->type)) {
            job->excluded[job->n_excluded++] = row;
        }
    }
}

/* ---- run: the stages ---- */

static bool is_ready(const struct recommend_job *job)
{
    return job->status == STATUS_OK;
}

/* Events that make the user vector: of a related or cart request only the request's own. */
static size_t embedded_events(const struct recommend_job *job)
{
    switch (job->request->scenario) {
    case SCENARIO_POPULAR:
        return 0;
    case SCENARIO_RELATED:
    case SCENARIO_CART:
        return job->n_request_events;
    default:
        return job->n_events;
    }
}

/* The neighbours of the items themselves: their mean vector, unit length. */
static void mean_of_items(const struct recommender *r, const struct recommend_job *job, float *out)
{
    float *row = r->queries;
    memset(out, 0, r->dim * sizeof(float));
    for (size_t e = 0; e < job->n_request_events; e++) {
        vectors_row(&r->engine->vectors, job->events[e].row, row);
        for (size_t d = 0; d < r->dim; d++) {
            out[d] += row[d];
        }
    }
    float norm = vector_norm(out, r->dim);
    for (size_t d = 0; norm > 0.0F && d < r->dim; d++) {
        out[d] /= norm;
    }
}

/* Histories → user_vectors[B × D]; has_vector says whose is of use. */
static void stage_embed(struct recommender *r, struct recommend_job *const *jobs, size_t n)
{
    size_t job_of[RECOMMEND_BATCH_MAX];
    struct history_batch batch = {0, r->offsets, r->events, clock_unix_ms()};
    uint32_t n_events = 0;
    r->offsets[0] = 0;
    for (size_t b = 0; b < n; b++) {
        struct recommend_job *job = jobs[b];
        float *user_vector = r->user_vectors + b * r->dim;
        size_t n_used = is_ready(job) ? embedded_events(job) : 0;
        job->answer.n_history = n_used;
        memset(user_vector, 0, r->dim * sizeof(float));
        if (n_used > 0 && job->request->scenario == SCENARIO_RELATED) {
            mean_of_items(r, job, user_vector);
        } else if (n_used > 0) {
            memcpy(r->events + n_events, job->events, n_used * sizeof(*r->events));
            n_events += (uint32_t)n_used;
            job_of[batch.n_users++] = b;
            r->offsets[batch.n_users] = n_events;
        }
    }
    if (batch.n_users > 0) {
        user_model_embed(r->engine->model, r->workspace, &batch, r->embedded);
    }
    for (size_t i = 0; i < batch.n_users; i++) {
        memcpy(r->user_vectors + job_of[i] * r->dim, r->embedded + i * r->dim,
               r->dim * sizeof(float));
    }
    for (size_t b = 0; b < n; b++) {
        jobs[b]->has_vector = vector_norm(r->user_vectors + b * r->dim, r->dim) > 0.0F;
    }
}

static const struct filter_rows *filter_of(struct recommender *r, struct recommend_job *job)
{
    const struct filter_rows *filter = NULL;
    if (is_ready(job) && job->request->filter_json != NULL) {
        job->status = filter_cache_get(r->filters, job->request->filter_json,
                                       job->request->filter_json_len, &filter, &job->error);
    }
    return filter;
}

struct batch_search {
    const struct filter_rows *filters[RECOMMEND_BATCH_MAX];
    struct found_rows found[RECOMMEND_BATCH_MAX];
};

/* One search for all that take part, with the largest k that any of them needs; each gets its own k
 * of the results, so that an answer does not depend on what else is in the batch. */
static void stage_retrieve(struct recommender *r, struct recommend_job *const *jobs, size_t n,
                           struct batch_search *search)
{
    size_t job_of[RECOMMEND_BATCH_MAX];
    size_t k_of[RECOMMEND_BATCH_MAX];
    size_t n_queries = 0;
    size_t k_max = 0;
    for (size_t b = 0; b < n; b++) {
        search->filters[b] = filter_of(r, jobs[b]);
        search->found[b] = (struct found_rows){NULL, NULL, 0};
        size_t k = is_ready(jobs[b]) ? candidates_search_k(r, jobs[b], search->filters[b]) : 0;
        if (k > 0) {
            memcpy(r->queries + n_queries * r->dim, r->user_vectors + b * r->dim,
                   r->dim * sizeof(float));
            k_of[n_queries] = k;
            job_of[n_queries++] = b;
            k_max = k > k_max ? k : k_max;
        }
    }
    if (n_queries == 0) {
        return;
    }
    struct error error;
    struct vector_query query = {r->queries, n_queries, k_max};
    struct vector_hits hits = {r->batch_scores, r->batch_rows};
    enum status status = vector_index_search(r->engine->index, &query, &hits, &error);
    for (size_t i = 0; i < n_queries; i++) {
        size_t b = job_of[i];
        if (status != STATUS_OK) {
            jobs[b]->status = status;
            jobs[b]->error = error;
            continue;
        }
        search->found[b] =
            (struct found_rows){r->batch_rows + i * k_max, r->batch_scores + i * k_max, k_of[i]};
    }
}

static const char *keep(struct recommend_job *job, const char *text, bool *failed)
{
    if (text == NULL) {
        return NULL;
    }
    const char *copy = arena_strndup(job->arena, text, strlen(text));
    *failed = *failed || copy == NULL;
    return copy;
}

/* Fields that are in the database only, not in memory as columns. */
enum {
    STORED_FIELDS = FIELD_TITLE | FIELD_CURRENCY | FIELD_IMAGE_URL | FIELD_URL | FIELD_ATTRIBUTES
};

/* Reads one item's metadata into the answer, of what the request wants. */
static bool describe_item(struct recommender *r, struct recommend_job *job,
                          struct recommend_item *item)
{
    struct item_metadata row;
    unsigned fields = job->request->fields;
    item->metadata = (struct item_metadata){
        .price = (double)NAN, .stock = (double)NAN, .created_at_ms = (double)NAN};
    if (fields == 0) {
        return true;
    }
    if ((fields & STORED_FIELDS) == 0) {
        catalog_read_columns(r->reader, item->row, &row);
    } else if (catalog_read(r->reader, item->row, &row, NULL) != STATUS_OK) {
        return false;
    }
    bool failed = false;
    struct item_metadata *out = &item->metadata;
    out->title = keep(job, fields & FIELD_TITLE ? row.title : NULL, &failed);
    out->category = keep(job, fields & FIELD_CATEGORY ? row.category : NULL, &failed);
    out->brand = keep(job, fields & FIELD_BRAND ? row.brand : NULL, &failed);
    out->currency = keep(job, fields & FIELD_CURRENCY ? row.currency : NULL, &failed);
    out->image_url = keep(job, fields & FIELD_IMAGE_URL ? row.image_url : NULL, &failed);
    out->url = keep(job, fields & FIELD_URL ? row.url : NULL, &failed);
    out->attributes_json =
        keep(job, fields & FIELD_ATTRIBUTES ? row.attributes_json : NULL, &failed);
    out->price = fields & FIELD_PRICE ? row.price : (double)NAN;
    out->stock = fields & FIELD_STOCK ? row.stock : (double)NAN;
    out->created_at_ms = fields & FIELD_CREATED_AT ? row.created_at_ms : (double)NAN;
    return !failed;
}

static void explain_item(struct recommender *r, struct recommend_job *job,
                         const struct candidate *candidate, struct recommend_item *item)
{
    uint32_t because[BECAUSE_MAX] = {0};
    memcpy(item->features, candidate->features, sizeof(item->features));
    if (job->has_vector) {
        item->n_because = ranking_because(r, job, item->row, because);
    }
    for (size_t i = 0; i < item->n_because; i++) {
        item->because[i] = catalog_id(r->engine->catalog, because[i], NULL);
    }
}

static void stage_describe(struct recommender *r, struct recommend_job *job, size_t n_shown)
{
    struct recommend_answer *answer = &job->answer;
    answer->items = arena_calloc(job->arena, n_shown + 1, sizeof(*answer->items));
    if (answer->items == NULL) {
        job->status = error_set(&job->error, STATUS_NOMEM, "memory of one answer");
        return;
    }
    for (size_t i = 0; i < n_shown; i++) {
        catalog_prefetch(r->reader, r->candidates[i].row);
    }
    for (size_t i = 0; i < n_shown; i++) {
        const struct candidate *candidate = &r->candidates[i];
        struct recommend_item *item = &answer->items[i];
        item->row = candidate->row;
        item->score = candidate->score;
        item->sources = candidate->sources;
        item->id = catalog_id(r->engine->catalog, candidate->row, NULL);
        if (!describe_item(r, job, item)) {
            answer->degraded |= DEGRADED_METADATA;
        }
        if (job->request->explain && (answer->degraded & DEGRADED_DEADLINE) == 0) {
            explain_item(r, job, candidate, item);
        }
    }
    answer->n_items = n_shown;
}

/* What is left to do for one job once the batch has its search results. */
static void finish_job(struct recommender *r, struct recommend_job *job,
                       const struct filter_rows *filter, const float *user_vector,
                       const struct found_rows *found)
{
    const struct recommend_request *request = job->request;
    int64_t *stage_ns = job->answer.stage_ns;
    int64_t start = clock_monotonic_ns();
    double diversity = isnan(request->diversity) ? job->profile->diversity : request->diversity;
    if (request->candidates != NULL) {
        diversity = 0.0; /* a list to be ranked is ranked by score */
    }
    if (start / 1000 > job->deadline_us) {
        /* Too late already: what is optional is left out. */
        job->answer.degraded |= DEGRADED_DEADLINE;
        diversity = 0.0;
    }
    candidates_ask_neighbors(r, job);
    candidates_mark_excluded(r, job);
    if (request->candidates != NULL) {
        candidates_collect_given(r, job, filter, user_vector);
    } else {
        job->status = candidates_collect(r, job, filter, user_vector, found, &job->error);
    }
    candidates_clear_marks(r, job);
    int64_t collected = clock_monotonic_ns();
    stage_ns[STAGE_RETRIEVE] += collected - start;
    if (job->status != STATUS_OK) {
        return;
    }
    size_t n_shown = ranking_order(r, job, diversity, request->limit);
    int64_t ranked = clock_monotonic_ns();
    stage_ns[STAGE_RANK] += ranked - collected;
    stage_describe(r, job, n_shown);
    stage_ns[STAGE_DESCRIBE] += clock_monotonic_ns() - ranked;
}

static void add_share(struct recommend_job *const *jobs, size_t n, enum stage stage, int64_t ns)
{
    for (size_t b = 0; b < n; b++) {
        jobs[b]->answer.stage_ns[stage] += ns / (int64_t)n;
    }
}

void recommend_run(struct recommender *r, struct recommend_job *const *jobs, size_t n)
{
    if (n == 0) {
        return;
    }
    struct batch_search search;
    filter_cache_next_epoch(r->filters);
    int64_t start = clock_monotonic_ns();
    stage_embed(r, jobs, n);
    int64_t embedded = clock_monotonic_ns();
    add_share(jobs, n, STAGE_EMBED, embedded - start);
    stage_retrieve(r, jobs, n, &search);
    add_share(jobs, n, STAGE_RETRIEVE, clock_monotonic_ns() - embedded);
    for (size_t b = 0; b < n; b++) {
        if (is_ready(jobs[b])) {
            finish_job(r, jobs[b], search.filters[b], r->user_vectors + b * r->dim,
                       &search.found[b]);
        }
    }
}

enum status recommend_one(struct recommender *r, struct recommend_job *job,
                          const struct history_result *history, struct error *err)
{
    enum status status = recommend_begin(r, job, clock_monotonic_us(), err);
    if (status != STATUS_OK) {
        return status;
    }
    if (history != NULL) {
        recommend_set_history(r, job, history);
    }
    recommend_run(r, &job, 1);
    if (job->status != STATUS_OK && err != NULL) {
        *err = job->error;
    }
    return job->status;
}
