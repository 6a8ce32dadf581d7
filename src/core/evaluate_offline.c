/* Offline evaluation: each case's next item is ranked among all items of the catalogue.
 *
 * Sampled negatives are rejected: they reorder models (W. Krichene, S. Rendle, "On Sampled Metrics
 * for Item Recommendation", KDD 2020), so every score is computed. Cases are embedded 64 at a time
 * by the model's own batched pass; scores come from a tile of 16 users × all items, whose inner
 * loop runs over users: it vectorises without reordering any sum, so that a score does not depend
 * on the tile or the thread it was made in. A rank is a count of scores, not a sort; only the top
 * of each list (for coverage) is selected, with a heap. Threads take chunks of cases and write each
 * case's ranks into its own place; metrics are summed from there in order.
 *
 * Times of a case are shifted so that its next event lies at REFERENCE_MS: a batch has one clock,
 * and each case must see the ages that it had.
 *
 * Legend: N items, D dimension, B cases of a chunk, G users of a tile, K the largest cutoff. */
#include "core/evaluate_offline.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "core/evaluate_internal.h"

enum {
    CHUNK = 64,             /* B */
    TILE = 16,              /* G */
    CHUNKS_PER_THREAD = 16, /* between two lines of progress */
};
enum { MARK_NONE, MARK_EXCLUDED, MARK_COUNTED };
static const int64_t REFERENCE_MS = (int64_t)1 << 50;
static const size_t PER_USER_MAX_BYTES = (size_t)1 << 32;

static const char *const PROTOCOL_NAMES[] = {"leave-last-out", "every-position", "pairs"};
enum { N_PROTOCOLS = sizeof(PROTOCOL_NAMES) / sizeof(PROTOCOL_NAMES[0]) };

void evaluate_config_default(struct evaluate_config *config)
{
    *config = (struct evaluate_config){
        .protocol = PROTOCOL_LEAVE_LAST_OUT, .cutoffs = {5, 10, 20}, .n_cutoffs = 3};
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

/* What all threads share. */
struct evaluation {
    const struct engine *engine;
    const struct evaluate_config *config;
    const struct evaluate_cases *cases;
    size_t n_items, dim, k_max, history_max;
    float *items;             /* [N × D] */
    const double *popularity; /* [N] */
    const uint32_t *by_popularity;
    uint32_t *popularity_ranks;              /* [N] 1 + other items at least as popular */
    uint32_t *ranks, *baseline_ranks;        /* [cases]; 0: unknown next item */
    uint32_t *vector_ranks, *neighbor_ranks; /* [cases] of a blend's parts; NULL: no neighbours */
    struct neighbors_blend blend;
    unsigned char *without_vector; /* [cases] */
};

struct scored {
    float score;
    uint32_t row;
};

/* What one thread needs. */
struct scorer {
    struct user_model_workspace *workspace;
    struct neighbors_workspace *neighbors;
    uint32_t *hit_rows; /* [NEIGHBORS_HITS_MAX] */
    float *hit_scores;
    struct history_event *events; /* [B × history_max] */
    uint32_t offsets[CHUNK + 1];
    float *embedded;                /* [B × D] */
    float *tile;                    /* [D × G] */
    float *scores;                  /* [G × N] */
    struct scored *top;             /* [K] heap, the worst on top */
    unsigned char *marks;           /* [N] MARK_… */
    uint16_t *best, *baseline_best; /* [N] best place in any top list, UINT16_MAX: in none */
};

/* ---- memory ---- */

static void scorer_free(struct scorer *scorer)
{
    user_model_workspace_close(scorer->workspace);
    neighbors_workspace_close(scorer->neighbors);
    mem_free(scorer->hit_rows);
    mem_free(scorer->hit_scores);
    mem_free(scorer->events);
    mem_free(scorer->embedded);
    mem_free(scorer->tile);
    mem_free(scorer->scores);
    mem_free(scorer->top);
    mem_free(scorer->marks);
    mem_free(scorer->best);
    mem_free(scorer->baseline_best);
}

static enum status scorer_init(const struct evaluation *e, struct scorer *scorer, struct error *err)
{
    size_t n = e->n_items;
    enum status status =
        user_model_workspace_open(e->engine->model, CHUNK, &scorer->workspace, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (e->engine->neighbors != NULL) {
        status = neighbors_workspace_open(e->engine->neighbors, &scorer->neighbors, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    scorer->hit_rows = mem_alloc_array(NEIGHBORS_HITS_MAX, sizeof(*scorer->hit_rows));
    scorer->hit_scores = mem_alloc_array(NEIGHBORS_HITS_MAX, sizeof(*scorer->hit_scores));
    scorer->events = mem_alloc_array(CHUNK * e->history_max, sizeof(*scorer->events));
    scorer->embedded = mem_alloc_vectors(CHUNK * e->dim, sizeof(float));
    scorer->tile = mem_alloc_vectors(TILE * e->dim, sizeof(float));
    scorer->scores = mem_alloc_vectors(TILE * n, sizeof(float));
    scorer->top = mem_alloc_array(e->k_max, sizeof(*scorer->top));
    scorer->marks = mem_calloc(n, 1);
    scorer->best = mem_alloc_array(n, sizeof(uint16_t));
    scorer->baseline_best = mem_alloc_array(n, sizeof(uint16_t));
    if (scorer->hit_rows == NULL || scorer->hit_scores == NULL || scorer->events == NULL ||
        scorer->embedded == NULL || scorer->tile == NULL || scorer->scores == NULL ||
        scorer->top == NULL || scorer->marks == NULL || scorer->best == NULL ||
        scorer->baseline_best == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of an evaluation");
    }
    memset(scorer->best, 0xff, n * sizeof(uint16_t));
    memset(scorer->baseline_best, 0xff, n * sizeof(uint16_t));
    return STATUS_OK;
}

static void evaluation_free(struct evaluation *e)
{
    mem_free(e->items);
    mem_free(e->popularity_ranks);
    mem_free(e->ranks);
    mem_free(e->baseline_ranks);
    mem_free(e->vector_ranks);
    mem_free(e->neighbor_ranks);
    mem_free(e->without_vector);
}

static enum status evaluation_init(struct evaluation *e, struct error *err)
{
    e->n_items = e->engine->vectors.n;
    e->dim = e->engine->vectors.dim;
    e->k_max = e->config->cutoffs[e->config->n_cutoffs - 1];
    e->history_max = user_model_info(e->engine->model).history_max;
    e->popularity = catalog_column(e->engine->catalog, "popularity")->numbers;
    e->by_popularity = catalog_by_popularity(e->engine->catalog);
    e->items = mem_alloc_vectors(e->n_items * e->dim, sizeof(float));
    e->popularity_ranks = mem_alloc_array(e->n_items, sizeof(uint32_t));
    e->ranks = mem_calloc(e->cases->n, sizeof(uint32_t));
    e->baseline_ranks = mem_calloc(e->cases->n, sizeof(uint32_t));
    e->without_vector = mem_calloc(e->cases->n, 1);
    if (e->engine->neighbors != NULL) {
        e->blend = neighbors_info(e->engine->neighbors).blend;
        e->vector_ranks = mem_calloc(e->cases->n, sizeof(uint32_t));
        e->neighbor_ranks = mem_calloc(e->cases->n, sizeof(uint32_t));
        if (e->vector_ranks == NULL || e->neighbor_ranks == NULL) {
            return error_set(err, STATUS_NOMEM, "memory of an evaluation");
        }
    }
    if (e->items == NULL || e->popularity_ranks == NULL || e->ranks == NULL ||
        e->baseline_ranks == NULL || e->without_vector == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of an evaluation");
    }
    vectors_rows(&e->engine->vectors, 0, e->n_items, e->items);
    /* Equally popular items all get the last place among them: ties are broken against us. */
    for (size_t end = e->n_items; end > 0;) {
        size_t first = end - 1;
        double popularity = e->popularity[e->by_popularity[first]];
        while (first > 0 && e->popularity[e->by_popularity[first - 1]] == popularity) {
            first--;
        }
        for (size_t i = first; i < end; i++) {
            e->popularity_ranks[e->by_popularity[i]] = (uint32_t)end;
        }
        end = first;
    }
    return STATUS_OK;
}

/* ---- one chunk: histories → user vectors ---- */

static int64_t shifted_time(const struct evaluate_case *c, int64_t time_ms)
{
    int64_t age;
    if (c->time_ms == EVENT_TIME_UNKNOWN || time_ms == EVENT_TIME_UNKNOWN ||
        __builtin_sub_overflow(c->time_ms, time_ms, &age) || age < 0 || age > REFERENCE_MS) {
        return EVENT_TIME_UNKNOWN;
    }
    return REFERENCE_MS - age;
}

static void embed_chunk(const struct evaluation *e, struct scorer *scorer, size_t first, size_t n)
{
    uint32_t n_events = 0;
    scorer->offsets[0] = 0;
    for (size_t b = 0; b < n; b++) {
        const struct evaluate_case *c = &e->cases->cases[first + b];
        const struct history_event *prefix = e->cases->log.events + c->first;
        uint32_t end = n_events + (uint32_t)e->history_max;
        for (size_t i = c->n_prefix; i-- > 0 && n_events < end;) {
            if (prefix[i].row < e->n_items) {
                scorer->events[n_events++] = (struct history_event){
                    prefix[i].row, prefix[i].type, shifted_time(c, prefix[i].time_ms)};
            }
        }
        scorer->offsets[b + 1] = n_events;
    }
    struct history_batch batch = {n, scorer->offsets, scorer->events, REFERENCE_MS};
    user_model_embed(e->engine->model, scorer->workspace, &batch, scorer->embedded);
}

/* scores[g × N + i] = <user g, item i>; tile is [D × G], so that the loop over users is contiguous.
 */
static void score_tile(const struct evaluation *e, const float *tile, float *scores)
{
    for (size_t i = 0; i < e->n_items; i++) {
        float sums[TILE] = {0.0F};
        const float *item = e->items + i * e->dim;
        for (size_t d = 0; d < e->dim; d++) {
            for (size_t g = 0; g < TILE; g++) {
                sums[g] += item[d] * tile[d * TILE + g];
            }
        }
        for (size_t g = 0; g < TILE; g++) {
            scores[g * e->n_items + i] = sums[g];
        }
    }
}

/* ---- one case: rank of the next item, top list ---- */

/* Higher score first, then smaller row, as the service orders. */
static bool comes_before(struct scored a, struct scored b)
{
    return a.score > b.score || (a.score == b.score && a.row < b.row);
}

static void sift_down(struct scored *heap, size_t n)
{
    size_t root = 0;
    for (;;) {
        size_t worst = root;
        for (size_t child = 2 * root + 1; child <= 2 * root + 2 && child < n; child++) {
            if (comes_before(heap[worst], heap[child])) {
                worst = child;
            }
        }
        if (worst == root) {
            return;
        }
        struct scored swap = heap[root];
        heap[root] = heap[worst];
        heap[worst] = swap;
        root = worst;
    }
}

static void push(struct scored *heap, size_t n, struct scored value)
{
    size_t at = n;
    while (at > 0 && comes_before(heap[(at - 1) / 2], value)) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = value;
}

static void note_place(uint16_t *best, uint32_t row, size_t place)
{
    if (place < best[row]) {
        best[row] = (uint16_t)place;
    }
}

/* Places 1 … K of the best scores; excluded rows have -INFINITY. */
static void note_top(const struct evaluation *e, struct scorer *scorer, const float *scores)
{
    struct scored *top = scorer->top;
    size_t n = 0;
    for (size_t i = 0; i < e->n_items; i++) {
        struct scored value = {scores[i], (uint32_t)i};
        if (isinf(value.score)) {
            continue;
        }
        if (n < e->k_max) {
            push(top, n++, value);
        } else if (comes_before(value, top[0])) {
            top[0] = value;
            sift_down(top, n);
        }
    }
    for (; n > 0; n--) {
        note_place(scorer->best, top[0].row, n);
        top[0] = top[n - 1];
        sift_down(top, n - 1);
    }
}

/* Marks what the lists leave out: the prefix' items, but never the next one. */
static void mark_excluded(const struct evaluation *e, struct scorer *scorer,
                          const struct evaluate_case *c, unsigned char value)
{
    const struct history_event *prefix = e->cases->log.events + c->first;
    for (size_t i = 0; e->config->exclude_history && i < c->n_prefix; i++) {
        if (prefix[i].row < e->n_items && prefix[i].row != c->next) {
            scorer->marks[prefix[i].row] = value;
        }
    }
}

static void hide_excluded(const struct evaluation *e, const struct scorer *scorer,
                          const struct evaluate_case *c, float *scores)
{
    const struct history_event *prefix = e->cases->log.events + c->first;
    for (size_t i = 0; e->config->exclude_history && i < c->n_prefix; i++) {
        if (prefix[i].row < e->n_items && scorer->marks[prefix[i].row] != MARK_NONE) {
            scores[prefix[i].row] = -INFINITY;
        }
    }
}

/* 1 + other items that score at least as much; an item without any score is last. */
static uint32_t rank_among(const struct evaluation *e, const struct evaluate_case *c,
                           const float *scores)
{
    if (c->next >= e->n_items) {
        return 0;
    }
    float wanted = scores[c->next];
    uint32_t rank = 0;
    for (size_t i = 0; i < e->n_items; i++) {
        rank += scores[i] >= wanted;
    }
    return rank;
}

static uint32_t rank_by_model(const struct evaluation *e, struct scorer *scorer,
                              const struct evaluate_case *c, float *scores)
{
    note_top(e, scorer, scores);
    return rank_among(e, c, scores);
}

/* The neighbours' items for a case's prefix, newest first, with their scores' sum. */
static size_t ask_neighbors(const struct evaluation *e, struct scorer *scorer,
                            const struct evaluate_case *c, double *total)
{
    struct history_event events[NEIGHBORS_QUERY_MAX];
    const struct history_event *prefix = e->cases->log.events + c->first;
    size_t n = 0;
    for (size_t i = c->n_prefix; i-- > 0 && n < NEIGHBORS_QUERY_MAX;) {
        if (prefix[i].row < e->n_items) {
            events[n++] = prefix[i];
        }
    }
    return neighbors_query(e->engine->neighbors, scorer->neighbors, events, n, c->time_ms,
                           NEIGHBORS_HITS_MAX, scorer->hit_rows, scorer->hit_scores, total);
}

/* Rank by the neighbours alone; what they do not name is not found. */
static uint32_t rank_by_neighbors(const struct evaluation *e, const struct scorer *scorer,
                                  const struct evaluate_case *c, size_t n_hits)
{
    uint32_t rank = 0;
    float wanted = 0.0F;
    for (size_t h = 0; h < n_hits; h++) {
        wanted = scorer->hit_rows[h] == c->next ? scorer->hit_scores[h] : wanted;
    }
    if (c->next >= e->n_items || wanted <= 0.0F) {
        return c->next >= e->n_items ? 0 : (uint32_t)e->n_items;
    }
    for (size_t h = 0; h < n_hits; h++) {
        rank += scorer->hit_scores[h] >= wanted && scorer->marks[scorer->hit_rows[h]] == MARK_NONE;
    }
    return rank;
}

/* Adds the neighbours' evidence to the model's scores, as serving does; where they are the model,
 * their scores take the place of all others. */
static void blend_scores(const struct evaluation *e, const struct scorer *scorer, size_t n_hits,
                         double total, float *scores)
{
    for (size_t i = 0; e->blend.is_primary && i < e->n_items; i++) {
        scores[i] = -INFINITY;
    }
    for (size_t h = 0; h < n_hits; h++) {
        uint32_t row = scorer->hit_rows[h];
        double score = (double)scorer->hit_scores[h];
        if (scorer->marks[row] != MARK_NONE) {
            continue;
        }
        if (e->blend.is_primary) {
            scores[row] = (float)score;
        } else {
            scores[row] += (float)(e->blend.weight * log1p(score / total / e->blend.floor));
        }
    }
}

/* Rank by popularity alone, its top list noted in best. */
static uint32_t rank_by_popularity(const struct evaluation *e, struct scorer *scorer,
                                   const struct evaluate_case *c, uint16_t *best)
{
    size_t place = 0;
    for (size_t i = 0; i < e->n_items && place < e->k_max; i++) {
        if (scorer->marks[e->by_popularity[i]] == MARK_NONE) {
            note_place(best, e->by_popularity[i], ++place);
        }
    }
    if (c->next >= e->n_items) {
        return 0;
    }
    /* Excluded items that stand before the next one or beside it fall out; marks count each once.
     */
    uint32_t rank = e->popularity_ranks[c->next];
    const struct history_event *prefix = e->cases->log.events + c->first;
    for (size_t i = 0; e->config->exclude_history && i < c->n_prefix; i++) {
        uint32_t row = prefix[i].row;
        if (row < e->n_items && scorer->marks[row] == MARK_EXCLUDED) {
            scorer->marks[row] = MARK_COUNTED;
            rank -= e->popularity[row] >= e->popularity[c->next];
        }
    }
    return rank;
}

/* Ranks by what serves and, where neighbours take part, by each part alone. */
static void rank_with_neighbors(const struct evaluation *e, struct scorer *scorer, size_t at,
                                bool has_vector, float *scores)
{
    const struct evaluate_case *c = &e->cases->cases[at];
    double total = 0.0;
    size_t n_hits = ask_neighbors(e, scorer, c, &total);
    if (!has_vector) {
        memset(scores, 0, e->n_items * sizeof(*scores));
        hide_excluded(e, scorer, c, scores);
    }
    e->vector_ranks[at] = rank_among(e, c, scores);
    e->neighbor_ranks[at] = rank_by_neighbors(e, scorer, c, n_hits);
    blend_scores(e, scorer, n_hits, total, scores);
    e->ranks[at] = rank_by_model(e, scorer, c, scores);
}

static void rank_case(const struct evaluation *e, struct scorer *scorer, size_t at,
                      const float *user_vector, float *scores)
{
    const struct evaluate_case *c = &e->cases->cases[at];
    bool has_vector = vector_norm(user_vector, e->dim) > 0.0F;
    mark_excluded(e, scorer, c, MARK_EXCLUDED);
    e->baseline_ranks[at] = rank_by_popularity(e, scorer, c, scorer->baseline_best);
    mark_excluded(e, scorer, c, MARK_EXCLUDED); /* again: counting changes the marks */
    hide_excluded(e, scorer, c, scores);
    if (e->engine->neighbors != NULL) {
        rank_with_neighbors(e, scorer, at, has_vector, scores);
    } else if (has_vector) {
        e->ranks[at] = rank_by_model(e, scorer, c, scores);
    } else {
        e->ranks[at] = rank_by_popularity(e, scorer, c, scorer->best);
    }
    e->without_vector[at] = has_vector ? 0 : 1;
    mark_excluded(e, scorer, c, MARK_NONE);
}

static void rank_chunk(const struct evaluation *e, struct scorer *scorer, size_t chunk)
{
    size_t first = chunk * CHUNK;
    size_t n = e->cases->n - first < CHUNK ? e->cases->n - first : CHUNK;
    embed_chunk(e, scorer, first, n);
    for (size_t begin = 0; begin < n; begin += TILE) {
        size_t n_tile = n - begin < TILE ? n - begin : TILE;
        memset(scorer->tile, 0, TILE * e->dim * sizeof(float));
        for (size_t g = 0; g < n_tile; g++) {
            for (size_t d = 0; d < e->dim; d++) {
                scorer->tile[d * TILE + g] = scorer->embedded[(begin + g) * e->dim + d];
            }
        }
        score_tile(e, scorer->tile, scorer->scores);
        for (size_t g = 0; g < n_tile; g++) {
            rank_case(e, scorer, first + begin + g, scorer->embedded + (begin + g) * e->dim,
                      scorer->scores + g * e->n_items);
        }
    }
}

/* ---- all cases ---- */

static void rank_all(const struct evaluation *e, struct scorer *scorers, size_t n_threads)
{
    struct progress progress = {0};
    size_t n_chunks = (e->cases->n + CHUNK - 1) / CHUNK;
    size_t n_round = n_threads * CHUNKS_PER_THREAD;
    for (size_t first = 0; first < n_chunks; first += n_round) {
        size_t end = n_chunks - first < n_round ? n_chunks : first + n_round;
#pragma omp parallel for schedule(dynamic) num_threads((int)n_threads)
        for (size_t chunk = first; chunk < end; chunk++) {
            rank_chunk(e, &scorers[omp_get_thread_num()], chunk);
        }
        if (e->config->show_progress) {
            size_t done = end * CHUNK < e->cases->n ? end * CHUNK : e->cases->n;
            progress_show(&progress, "evaluating", done, e->cases->n, NULL);
        }
    }
    if (e->config->show_progress) {
        progress_end(&progress, "evaluating", e->cases->n, NULL);
    }
}

static void sum_metrics(const struct evaluation *e, const uint32_t *ranks,
                        struct evaluate_metrics *out)
{
    double n = (double)e->cases->n;
    for (size_t k = 0; k < e->config->n_cutoffs; k++) {
        double hits = 0.0;
        double reciprocal = 0.0;
        double gain = 0.0;
        for (size_t i = 0; i < e->cases->n; i++) {
            if (ranks[i] >= 1 && ranks[i] <= e->config->cutoffs[k]) {
                hits += 1.0;
                reciprocal += 1.0 / (double)ranks[i];
                gain += 1.0 / log2(1.0 + (double)ranks[i]);
            }
        }
        out->hr[k] = hits / n;
        out->mrr[k] = reciprocal / n;
        out->ndcg[k] = gain / n;
    }
}

static void measure_coverage(const struct evaluation *e, const struct scorer *scorers,
                             size_t n_scorers, struct evaluate_result *result)
{
    for (size_t k = 0; k < e->config->n_cutoffs; k++) {
        uint64_t n_model = 0;
        uint64_t n_baseline = 0;
        for (size_t i = 0; i < e->n_items; i++) {
            bool by_model = false;
            bool by_baseline = false;
            for (size_t t = 0; t < n_scorers; t++) {
                by_model = by_model || scorers[t].best[i] <= e->config->cutoffs[k];
                by_baseline = by_baseline || scorers[t].baseline_best[i] <= e->config->cutoffs[k];
            }
            n_model += by_model;
            n_baseline += by_baseline;
        }
        result->model.coverage[k] = (double)n_model / (double)e->n_items;
        result->popularity.coverage[k] = (double)n_baseline / (double)e->n_items;
    }
}

static void count_cases(const struct evaluation *e, struct evaluate_result *result)
{
    result->n = e->cases->n;
    for (size_t i = 0; i < e->cases->n; i++) {
        result->n_unknown += e->cases->cases[i].next >= e->n_items;
        result->n_empty += e->without_vector[i];
    }
}

static void print_rank(struct buf *text, uint32_t rank, char end)
{
    if (rank > 0) {
        buf_printf(text, "%u", rank);
    }
    buf_append_char(text, end);
}

static enum status write_per_user(const struct evaluation *e, struct error *err)
{
    struct buf text;
    buf_init(&text, PER_USER_MAX_BYTES);
    buf_append_text(&text, "user\tn_prefix\tnext_item\trank\tpopularity_rank\n");
    for (size_t i = 0; i < e->cases->n; i++) {
        const struct evaluate_case *c = &e->cases->cases[i];
        if (e->cases->users != NULL) {
            buf_append_text(&text, idmap_id(e->cases->users, c->user, NULL));
        } else {
            buf_printf(&text, "%u", c->user);
        }
        buf_printf(&text, "\t%u\t%s\t", c->n_prefix, idmap_id(e->cases->items, c->next, NULL));
        print_rank(&text, e->ranks[i], '\t');
        print_rank(&text, e->baseline_ranks[i], '\n');
    }
    enum status status = text.status;
    if (status != STATUS_OK) {
        status = error_set(err, status, "text of %s", e->config->per_user_path);
    } else {
        status = file_write_atomic(e->config->per_user_path, text.data, text.len, err);
    }
    buf_free(&text);
    return status;
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
    return STATUS_OK;
}

static enum status evaluate_with(struct evaluation *e, struct scorer *scorers, size_t n_threads,
                                 struct evaluate_result *result, struct error *err)
{
    enum status status = evaluation_init(e, err);
    for (size_t t = 0; status == STATUS_OK && t < n_threads; t++) {
        status = scorer_init(e, &scorers[t], err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    rank_all(e, scorers, n_threads);
    if (e->config->per_user_path != NULL) {
        status = write_per_user(e, err);
    }
    if (status == STATUS_OK) {
        count_cases(e, result);
        sum_metrics(e, e->ranks, &result->model);
        sum_metrics(e, e->baseline_ranks, &result->popularity);
        result->has_parts = e->engine->neighbors != NULL;
        if (result->has_parts) {
            sum_metrics(e, e->vector_ranks, &result->vector);
            sum_metrics(e, e->neighbor_ranks, &result->neighbors);
        }
        measure_coverage(e, scorers, n_threads, result);
    }
    return status;
}

enum status evaluate_offline(const struct engine *engine, const struct evaluate_config *config,
                             struct evaluate_result *result, struct error *err)
{
    int64_t start_us = clock_monotonic_us();
    struct evaluate_cases cases;
    struct evaluate_result made = {0};
    enum status status = check_config(config, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = evaluate_cases_load(engine, config, &cases, err);
    struct evaluation e = {.engine = engine, .config = config, .cases = &cases};
    size_t n_threads = config->n_threads != 0 ? config->n_threads : (size_t)omp_get_max_threads();
    struct scorer *scorers = NULL;
    if (status == STATUS_OK) {
        scorers = mem_calloc(n_threads, sizeof(*scorers));
        status = scorers != NULL ? evaluate_with(&e, scorers, n_threads, &made, err)
                                 : error_set(err, STATUS_NOMEM, "memory of an evaluation");
    }
    for (size_t t = 0; scorers != NULL && t < n_threads; t++) {
        scorer_free(&scorers[t]);
    }
    mem_free(scorers);
    evaluation_free(&e);
    evaluate_cases_free(&cases);
    if (status == STATUS_OK) {
        made.seconds = (double)(clock_monotonic_us() - start_us) / 1e6;
        *result = made;
    }
    return status;
}
