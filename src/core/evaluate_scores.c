/* A release's ranks of some cases: histories → user vectors and neighbours → scores → ranks.
 *
 * Scores of a batch of 64 users with all items are one product of matrices (BLAS, one thread: the
 * threads are ours). Measured at 43,000 items of 64 dimensions on one core of an AMD EPYC: 4.6 s
 * for 60,858 users, against 33 s for a loop over 16 users at a time that the compiler vectorised.
 * Every product has the same shape, missing users and items being zeros, so that a score depends
 * neither on the thread nor on where a batch ends, and no edge kernel of BLAS gives two items with
 * one vector two scores, which would hide a tie.
 *
 * The rows are made one from another in the same memory: the vector's scores are ranked, then the
 * neighbours' share is added for the items that have one, and they are ranked again. A neighbour
 * ranking alone scores some items only; an item without a score counts as not found, at a place
 * beyond the catalogue's end, although serving fills its answers up with other items.
 *
 * For the model, times of a case are shifted so that its next event lies at REFERENCE_MS: a batch
 * has one clock, and each case must see the ages that it had. Neighbours, which have times
 * themselves, are asked one case at a time, with the true ones.
 *
 * Legend: N items, P the same padded, D dimension, B cases of a batch, H events of a history. */
#include "core/evaluate_internal.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/hash.h"

static const int64_t REFERENCE_MS = (int64_t)1 << 50;

struct evaluate_scorer {
    const struct evaluate_ranking *ranking;
    struct user_model_workspace *workspace; /* of B users */
    struct neighbors_workspace *neighbors;  /* NULL: the release has none */
    size_t events_max;                      /* H: what model and neighbours look at */
    struct history_event *events;           /* [B × H] newest first */
    uint32_t *offsets;                      /* [B + 1] */
    float *embedded;                        /* [B × D] */
    float *scores;                          /* [B × P] */
    float *maxima;                          /* [P / EVALUATE_BLOCK] */
    uint32_t *hit_rows;                     /* [NEIGHBORS_HITS_MAX], falling scores */
    float *hit_scores;
    size_t n_hits;
    double hit_total;
    float *neighbor_scores;                             /* [P] -INFINITY without a score */
    struct evaluate_excluded excluded[N_EVALUATE_SEEN]; /* of the case; [RANKED] is empty */
    uint32_t *negatives;                                /* rows, of the case */
    struct rng rng;
    uint16_t *best[N_EVALUATE_SEEN][N_EVALUATE_ROWS];
    struct evaluate_scored *heap; /* [k_max] */
};

/* ---- memory ---- */

void evaluate_scorer_close(struct evaluate_scorer *scorer)
{
    if (scorer == NULL) {
        return;
    }
    user_model_workspace_close(scorer->workspace);
    if (scorer->neighbors != NULL) {
        neighbors_workspace_close(scorer->neighbors);
    }
    mem_free(scorer->events);
    mem_free(scorer->offsets);
    mem_free(scorer->embedded);
    mem_free(scorer->scores);
    mem_free(scorer->maxima);
    mem_free(scorer->hit_rows);
    mem_free(scorer->hit_scores);
    mem_free(scorer->neighbor_scores);
    mem_free(scorer->excluded[EVALUATE_SEEN_RANKED].marks);
    mem_free(scorer->excluded[EVALUATE_SEEN_EXCLUDED].marks);
    mem_free(scorer->excluded[EVALUATE_SEEN_EXCLUDED].rows);
    mem_free(scorer->negatives);
    mem_free(scorer->heap);
    for (size_t i = 0; i < (size_t)N_EVALUATE_SEEN * N_EVALUATE_ROWS; i++) {
        mem_free(scorer->best[i / N_EVALUATE_ROWS][i % N_EVALUATE_ROWS]);
    }
    mem_free(scorer);
}

static bool allocate_best(const struct evaluate_ranking *r, struct evaluate_scorer *scorer)
{
    for (size_t i = 0; i < (size_t)N_EVALUATE_SEEN * N_EVALUATE_ROWS; i++) {
        size_t seen = i / N_EVALUATE_ROWS;
        size_t row = i % N_EVALUATE_ROWS;
        if (r->config->n_negatives > 0 || r->out->ranks[seen][row] == NULL) {
            continue;
        }
        scorer->best[seen][row] = mem_alloc_array(r->n_items, sizeof(uint16_t));
        if (scorer->best[seen][row] == NULL) {
            return false;
        }
        memset(scorer->best[seen][row], 0xff, r->n_items * sizeof(uint16_t));
    }
    return true;
}

static bool allocate(const struct evaluate_ranking *r, struct evaluate_scorer *scorer)
{
    struct evaluate_excluded *ranked = &scorer->excluded[EVALUATE_SEEN_RANKED];
    struct evaluate_excluded *excluded = &scorer->excluded[EVALUATE_SEEN_EXCLUDED];
    scorer->events = mem_alloc_array(r->n_batch * scorer->events_max, sizeof(*scorer->events));
    scorer->offsets = mem_alloc_array(r->n_batch + 1, sizeof(uint32_t));
    scorer->embedded = mem_alloc_vectors(r->n_batch * r->dim, sizeof(float));
    scorer->scores = mem_alloc_vectors(r->n_batch * r->n_padded, sizeof(float));
    scorer->maxima = mem_alloc_array(r->n_padded / EVALUATE_BLOCK, sizeof(float));
    scorer->hit_rows = mem_alloc_array(NEIGHBORS_HITS_MAX, sizeof(uint32_t));
    scorer->hit_scores = mem_alloc_array(NEIGHBORS_HITS_MAX, sizeof(float));
    scorer->neighbor_scores = mem_alloc_vectors(r->n_padded, sizeof(float));
    scorer->negatives = mem_alloc_array(r->config->n_negatives, sizeof(uint32_t));
    scorer->heap = mem_alloc_array(r->k_max, sizeof(*scorer->heap));
    ranked->marks = mem_calloc(r->n_items, 1);
    excluded->marks = mem_calloc(r->n_items, 1);
    excluded->rows = mem_alloc_array(r->n_items, sizeof(uint32_t));
    if (scorer->events == NULL || scorer->offsets == NULL || scorer->embedded == NULL ||
        scorer->scores == NULL || scorer->maxima == NULL || scorer->hit_rows == NULL ||
        scorer->hit_scores == NULL || scorer->neighbor_scores == NULL ||
        scorer->negatives == NULL || scorer->heap == NULL || ranked->marks == NULL ||
        excluded->marks == NULL || excluded->rows == NULL) {
        return false;
    }
    for (size_t i = 0; i < r->n_padded; i++) {
        scorer->neighbor_scores[i] = -INFINITY;
    }
    return allocate_best(r, scorer);
}

enum status evaluate_scorer_open(const struct evaluate_ranking *ranking,
                                 struct evaluate_scorer **out, struct error *err)
{
    *out = NULL;
    struct evaluate_scorer *scorer = mem_calloc(1, sizeof(*scorer));
    if (scorer == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of an evaluation");
    }
    scorer->ranking = ranking;
    scorer->events_max = ranking->history_max;
    enum status status = user_model_workspace_open(ranking->engine->model, ranking->n_batch,
                                                   &scorer->workspace, err);
    if (status == STATUS_OK && ranking->engine->neighbors != NULL) {
        if (scorer->events_max < NEIGHBORS_QUERY_MAX) {
            scorer->events_max = NEIGHBORS_QUERY_MAX;
        }
        status = neighbors_workspace_open(ranking->engine->neighbors, &scorer->neighbors, err);
    }
    if (status == STATUS_OK && !allocate(ranking, scorer)) {
        status = error_set(err, STATUS_NOMEM, "memory of an evaluation");
    }
    if (status != STATUS_OK) {
        evaluate_scorer_close(scorer);
        return status;
    }
    *out = scorer;
    return STATUS_OK;
}

const uint16_t *evaluate_scorer_best(const struct evaluate_scorer *scorer, enum evaluate_seen seen,
                                     enum evaluate_row row)
{
    return scorer->best[seen][row];
}

/* ---- histories → user vectors, neighbours ---- */

static int64_t shifted_time(const struct evaluate_case *c, int64_t time_ms)
{
    int64_t age;
    if (c->time_ms == EVENT_TIME_UNKNOWN || time_ms == EVENT_TIME_UNKNOWN ||
        __builtin_sub_overflow(c->time_ms, time_ms, &age) || age < 0 || age > REFERENCE_MS) {
        return EVENT_TIME_UNKNOWN;
    }
    return REFERENCE_MS - age;
}

/* The newest events of the prefix whose items the release knows. */
static size_t take_history(const struct evaluate_scorer *scorer, const struct evaluate_case *c,
                           struct history_event *out)
{
    const struct evaluate_ranking *r = scorer->ranking;
    const struct history_event *prefix = r->cases->log.events + c->first;
    size_t n = 0;
    for (size_t i = c->n_prefix; i-- > 0 && n < scorer->events_max;) {
        uint32_t row = r->rows[prefix[i].row];
        if (row != IDMAP_NONE) {
            out[n++] =
                (struct history_event){row, prefix[i].type, shifted_time(c, prefix[i].time_ms)};
        }
    }
    return n;
}

static void embed(struct evaluate_scorer *scorer, size_t first, size_t n)
{
    const struct evaluate_ranking *r = scorer->ranking;
    scorer->offsets[0] = 0;
    for (size_t b = 0; b < n; b++) {
        size_t n_events =
            take_history(scorer, &r->cases->cases[first + b], scorer->events + scorer->offsets[b]);
        scorer->offsets[b + 1] = scorer->offsets[b] + (uint32_t)n_events;
    }
    struct history_batch batch = {n, scorer->offsets, scorer->events, REFERENCE_MS};
    user_model_embed(r->engine->model, scorer->workspace, &batch, scorer->embedded);
    memset(scorer->embedded + n * r->dim, 0, (r->n_batch - n) * r->dim * sizeof(float));
}

/* scores[B × P] = embedded[B × D] · items[P × D]ᵀ; what is behind the catalogue gets -INFINITY. */
static void score(struct evaluate_scorer *scorer)
{
    const struct evaluate_ranking *r = scorer->ranking;
    int dim = (int)r->dim;
    int n_padded = (int)r->n_padded;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)r->n_batch, n_padded, dim, 1.0F,
                scorer->embedded, dim, r->items, dim, 0.0F, scorer->scores, n_padded);
    for (size_t b = 0; b < r->n_batch; b++) {
        for (size_t i = r->n_items; i < r->n_padded; i++) {
            scorer->scores[b * r->n_padded + i] = -INFINITY;
        }
    }
}

/* events: of take_history for case c; they get their true times back. */
static void ask_neighbors(struct evaluate_scorer *scorer, const struct evaluate_case *c,
                          struct history_event *events, size_t n_events)
{
    scorer->n_hits = 0;
    scorer->hit_total = 0.0;
    if (scorer->neighbors == NULL) {
        return;
    }
    for (size_t i = 0; i < n_events; i++) {
        if (events[i].time_ms != EVENT_TIME_UNKNOWN) {
            events[i].time_ms += c->time_ms - REFERENCE_MS;
        }
    }
    scorer->n_hits = neighbors_query(scorer->ranking->engine->neighbors, scorer->neighbors, events,
                                     n_events, c->time_ms, NEIGHBORS_HITS_MAX, scorer->hit_rows,
                                     scorer->hit_scores, &scorer->hit_total);
}

/* ---- one case ---- */

static void exclude(struct evaluate_scorer *scorer, const struct history_event *events, size_t n,
                    uint32_t except)
{
    struct evaluate_excluded *excluded = &scorer->excluded[EVALUATE_SEEN_EXCLUDED];
    for (size_t i = 0; i < n; i++) {
        uint32_t row = scorer->ranking->rows[events[i].row];
        if (row != IDMAP_NONE && row != except && excluded->marks[row] == 0) {
            excluded->marks[row] = 1;
            excluded->rows[excluded->n++] = row;
        }
    }
}

static void exclude_nothing(struct evaluate_scorer *scorer)
{
    struct evaluate_excluded *excluded = &scorer->excluded[EVALUATE_SEEN_EXCLUDED];
    for (; excluded->n > 0; excluded->n--) {
        excluded->marks[excluded->rows[excluded->n - 1]] = 0;
    }
}

/* False: the user has events of all items. The draw depends on seed and case alone. */
static bool draw_negatives(struct evaluate_scorer *scorer, size_t at)
{
    const struct evaluate_ranking *r = scorer->ranking;
    const struct evaluate_cases *cases = r->cases;
    const struct evaluate_case *c = &cases->cases[at];
    const struct evaluate_excluded *excluded = &scorer->excluded[EVALUATE_SEEN_EXCLUDED];
    const struct history_event next = {c->next, EVENT_VIEW, EVENT_TIME_UNKNOWN};
    uint64_t first = c->first;
    uint64_t end = c->first + c->n_prefix;
    if (cases->user_offsets != NULL) {
        first = cases->user_offsets[c->user];
        end = cases->user_offsets[c->user + 1];
    }
    exclude(scorer, cases->log.events + first, (size_t)(end - first), IDMAP_NONE);
    exclude(scorer, &next, 1, IDMAP_NONE);
    bool possible = excluded->n < r->n_items;
    uint64_t number = at;
    rng_init(&scorer->rng, hash_bytes(&number, sizeof(number), r->config->seed));
    for (size_t i = 0; possible && i < r->config->n_negatives;) {
        uint32_t row = (uint32_t)rng_below(&scorer->rng, r->n_items);
        scorer->negatives[i] = row;
        i += excluded->marks[row] == 0;
    }
    exclude_nothing(scorer);
    return possible;
}

static uint32_t rank_among_negatives(const struct evaluate_scorer *scorer, const float *scores,
                                     uint32_t target)
{
    uint32_t rank = 1;
    for (size_t i = 0; i < scorer->ranking->config->n_negatives; i++) {
        rank += scores[scorer->negatives[i]] >= scores[target];
    }
    return rank;
}

static struct evaluate_top top_of(const struct evaluate_scorer *scorer, size_t seen,
                                  enum evaluate_row row)
{
    return (struct evaluate_top){scorer->best[seen][row], scorer->heap, scorer->ranking->k_max};
}

static void rank_popularity(struct evaluate_scorer *scorer, size_t at, enum evaluate_row row)
{
    const struct evaluate_ranking *r = scorer->ranking;
    const struct evaluate_popularity *popularity =
        row == EVALUATE_RECENT ? &r->recent : &r->popularity;
    uint32_t target = r->rows[r->cases->cases[at].next];
    for (size_t seen = 0; seen < N_EVALUATE_SEEN; seen++) {
        uint32_t *ranks = r->out->ranks[seen][row];
        struct evaluate_top top = top_of(scorer, seen, row);
        if (ranks == NULL) {
            continue;
        }
        evaluate_popularity_note_top(popularity, r->n_items, &scorer->excluded[seen], &top);
        if (target == IDMAP_NONE) {
            ranks[at] = 0;
        } else if (r->config->n_negatives == 0) {
            ranks[at] = evaluate_popularity_rank(popularity, target, &scorer->excluded[seen]);
        } else {
            ranks[at] = 1;
            for (size_t i = 0; i < r->config->n_negatives; i++) {
                ranks[at] += popularity->ranks[scorer->negatives[i]] <= popularity->ranks[target];
            }
        }
    }
}

/* Ranks by scores[P]: all of the catalogue has one. */
static void rank_scores(struct evaluate_scorer *scorer, size_t at, enum evaluate_row row,
                        const float *scores)
{
    const struct evaluate_ranking *r = scorer->ranking;
    uint32_t target = r->rows[r->cases->cases[at].next];
    float wanted = target != IDMAP_NONE ? scores[target] : INFINITY;
    size_t count = 0;
    if (r->config->n_negatives == 0) {
        count = evaluate_count(scores, r->n_padded, wanted, scorer->maxima);
    }
    for (size_t seen = 0; seen < N_EVALUATE_SEEN; seen++) {
        const struct evaluate_excluded *excluded = &scorer->excluded[seen];
        uint32_t *ranks = r->out->ranks[seen][row];
        struct evaluate_top top = top_of(scorer, seen, row);
        if (ranks == NULL) {
            continue;
        }
        evaluate_note_top(scores, r->n_items, scorer->maxima, excluded, &top);
        if (target == IDMAP_NONE) {
            ranks[at] = 0;
        } else if (r->config->n_negatives > 0) {
            ranks[at] = rank_among_negatives(scorer, scores, target);
        } else {
            size_t n_before = 0;
            for (size_t i = 0; i < excluded->n; i++) {
                n_before += scores[excluded->rows[i]] >= wanted;
            }
            ranks[at] = (uint32_t)(count - n_before);
        }
    }
}

/* Ranks by the neighbours alone: an item without a score is not found, in a place beyond the
 * catalogue's end and every cutoff. */
static void rank_neighbors(struct evaluate_scorer *scorer, size_t at)
{
    const struct evaluate_ranking *r = scorer->ranking;
    uint32_t target = r->rows[r->cases->cases[at].next];
    float wanted = target != IDMAP_NONE ? scorer->neighbor_scores[target] : -INFINITY;
    for (size_t seen = 0; seen < N_EVALUATE_SEEN; seen++) {
        const struct evaluate_excluded *excluded = &scorer->excluded[seen];
        uint32_t *ranks = r->out->ranks[seen][EVALUATE_NEIGHBORS];
        uint16_t *best = scorer->best[seen][EVALUATE_NEIGHBORS];
        uint32_t rank = 0;
        size_t place = 0;
        if (ranks == NULL) {
            continue;
        }
        for (size_t i = 0; i < scorer->n_hits; i++) {
            uint32_t row = scorer->hit_rows[i];
            if (excluded->marks[row] != 0) {
                continue;
            }
            rank += scorer->hit_scores[i] >= wanted;
            if (best != NULL && ++place <= r->k_max && place < best[row]) {
                best[row] = (uint16_t)place;
            }
        }
        if (target == IDMAP_NONE) {
            ranks[at] = 0;
        } else if (isinf(wanted)) {
            ranks[at] = (uint32_t)r->n_items + EVALUATE_CUTOFF_MAX;
        } else if (r->config->n_negatives > 0) {
            ranks[at] = rank_among_negatives(scorer, scorer->neighbor_scores, target);
        } else {
            ranks[at] = rank;
        }
    }
}

/* A row that has nothing to go by: popularity answers. */
static void rank_empty(struct evaluate_scorer *scorer, size_t at, enum evaluate_row row)
{
    rank_popularity(scorer, at, row);
    if (row == scorer->ranking->out->served) {
        scorer->ranking->out->without_answer[at] = 1;
    }
}

static void rank_with_neighbors(struct evaluate_scorer *scorer, size_t at, size_t b,
                                bool has_vector)
{
    const struct evaluate_ranking *r = scorer->ranking;
    float *scores = scorer->scores + b * r->n_padded;
    size_t n_events = scorer->offsets[b + 1] - scorer->offsets[b];
    ask_neighbors(scorer, &r->cases->cases[at], scorer->events + scorer->offsets[b], n_events);
    for (size_t i = 0; i < scorer->n_hits; i++) {
        scorer->neighbor_scores[scorer->hit_rows[i]] = scorer->hit_scores[i];
    }
    if (n_events > 0) {
        rank_neighbors(scorer, at);
    } else {
        rank_empty(scorer, at, EVALUATE_NEIGHBORS);
    }
    if (r->out->served == EVALUATE_BLEND) {
        for (size_t i = 0; i < scorer->n_hits && scorer->hit_total > 0.0; i++) {
            double share = (double)scorer->hit_scores[i] / scorer->hit_total;
            scores[scorer->hit_rows[i]] += (float)(r->blend.weight * log1p(share / r->blend.floor));
        }
        if (has_vector || scorer->n_hits > 0) {
            rank_scores(scorer, at, EVALUATE_BLEND, scores);
        } else {
            rank_empty(scorer, at, EVALUATE_BLEND);
        }
    }
    for (size_t i = 0; i < scorer->n_hits; i++) {
        scorer->neighbor_scores[scorer->hit_rows[i]] = -INFINITY;
    }
}

static void rank_case(struct evaluate_scorer *scorer, size_t at, size_t b)
{
    const struct evaluate_ranking *r = scorer->ranking;
    const struct evaluate_case *c = &r->cases->cases[at];
    bool has_vector = vector_norm(scorer->embedded + b * r->dim, r->dim) > 0.0F;
    if (r->config->seen[EVALUATE_SEEN_EXCLUDED]) {
        exclude(scorer, r->cases->log.events + c->first, c->n_prefix, r->rows[c->next]);
    }
    rank_popularity(scorer, at, EVALUATE_POPULARITY);
    rank_popularity(scorer, at, EVALUATE_RECENT);
    if (has_vector) {
        rank_scores(scorer, at, EVALUATE_VECTOR, scorer->scores + b * r->n_padded);
    } else {
        rank_empty(scorer, at, EVALUATE_VECTOR);
    }
    if (scorer->neighbors != NULL) {
        rank_with_neighbors(scorer, at, b, has_vector);
    }
    exclude_nothing(scorer);
}

bool evaluate_scorer_rank(struct evaluate_scorer *scorer, size_t first, size_t n,
                          size_t *first_fault)
{
    embed(scorer, first, n);
    score(scorer);
    for (size_t b = 0; b < n; b++) {
        if (scorer->ranking->config->n_negatives > 0 && !draw_negatives(scorer, first + b)) {
            *first_fault = first + b;
            return false;
        }
        rank_case(scorer, first + b, b);
    }
    return true;
}

void evaluate_scorer_time(struct evaluate_scorer *scorer, size_t step, size_t n, double *us)
{
    const struct evaluate_ranking *r = scorer->ranking;
    for (size_t i = 0; i < n; i++) {
        const struct evaluate_case *c = &r->cases->cases[i * step];
        size_t n_events = take_history(scorer, c, scorer->events);
        const uint32_t offsets[] = {0, (uint32_t)n_events};
        struct history_batch batch = {1, offsets, scorer->events, REFERENCE_MS};
        int64_t start_ns = clock_monotonic_ns();
        user_model_embed(r->engine->model, scorer->workspace, &batch, scorer->embedded);
        ask_neighbors(scorer, c, scorer->events, n_events);
        us[i] = (double)(clock_monotonic_ns() - start_ns) / 1e3;
    }
}
