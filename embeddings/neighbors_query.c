/* Queries of session neighbours.
 *
 * The three neighbour methods share their first half, VMIS-kNN's (B. Kersbergen et al., "Serenade",
 * SIGMOD 2022, algorithm 2): from the newest event back, walk its item's sessions from the newest
 * back; keep the n_sampled newest sessions that share an item, with a heap whose top is the oldest
 * of them; once it is full and a session is older than its top, all that follow are, and the walk
 * ends. Then the n_neighbors most similar (the newer first among equals), then their items' scores.
 *   vmis:  similarity Σ (L - p) / U; weight of the match 1 - 0.1 (p + 1); idf × log(S / count)
 *   vsknn: similarity Σ ((L - p) / L)² / U; weight 1 / (p + 1); factor 1 + idf × log(S / count)
 *   vstan: similarity Σ exp(-p / λ1) / √(U × length) × exp(-age / λ2); item's weight
 *          exp(-distance from the matched item / λ3); factor 1 + idf × log(S / count)
 * with L events of the query, U different items of it, p places before the newest (the newest match
 * counts). A session's similarity is kept in a dense array of which the touched places are undone
 * afterwards: 8 bytes a session and a thread buy freedom from hashing.
 *
 * Legend: N items, S sessions. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/neighbors_internal.h"

struct scored {
    double score;
    uint32_t row; /* item, or session */
};

struct neighbors_workspace {
    double *similarity;       /* [S] 0: not considered */
    int32_t *heap;            /* [n_sampled] sessions, the oldest on top */
    struct scored *neighbors; /* [n_neighbors] heap, the least similar on top */
    double *scores;           /* [N] */
    uint8_t *is_scored;       /* [N] */
    uint32_t *touched;        /* [N] */
    struct scored *top;       /* [NEIGHBORS_HITS_MAX] */
};

void neighbors_workspace_close(struct neighbors_workspace *workspace)
{
    if (workspace == NULL) {
        return;
    }
    mem_free(workspace->similarity);
    mem_free(workspace->heap);
    mem_free(workspace->neighbors);
    mem_free(workspace->scores);
    mem_free(workspace->is_scored);
    mem_free(workspace->touched);
    mem_free(workspace->top);
    mem_free(workspace);
}

enum status neighbors_workspace_open(const struct neighbors *neighbors,
                                     struct neighbors_workspace **out, struct error *err)
{
    *out = NULL;
    const struct neighbors_info *info = &neighbors->info;
    struct neighbors_workspace *w = mem_calloc(1, sizeof(*w));
    if (w == NULL) {
        return error_set(err, STATUS_NOMEM, "neighbours: no memory");
    }
    w->similarity = mem_calloc(info->n_sessions + 1, sizeof(*w->similarity));
    w->heap = mem_alloc_array(info->settings.n_sampled, sizeof(*w->heap));
    w->neighbors = mem_alloc_array(info->settings.n_neighbors, sizeof(*w->neighbors));
    w->scores = mem_calloc(info->n_items + 1, sizeof(*w->scores));
    w->is_scored = mem_calloc(info->n_items + 1, sizeof(*w->is_scored));
    w->touched = mem_alloc_array(info->n_items + 1, sizeof(*w->touched));
    w->top = mem_alloc_array(NEIGHBORS_HITS_MAX, sizeof(*w->top));
    if (w->similarity == NULL || w->heap == NULL || w->neighbors == NULL || w->scores == NULL ||
        w->is_scored == NULL || w->touched == NULL || w->top == NULL) {
        neighbors_workspace_close(w);
        return error_set(err, STATUS_NOMEM, "neighbours of %zu items: no memory", info->n_items);
    }
    *out = w;
    return STATUS_OK;
}

/* The events of the query that count. */
struct query {
    uint32_t items[NEIGHBORS_QUERY_MAX]; /* different ones, newest first */
    size_t places[NEIGHBORS_QUERY_MAX];  /* p of each: events before the newest */
    double weights[NEIGHBORS_QUERY_MAX]; /* in a session's similarity */
    size_t n, length;                    /* U, L */
    int64_t now_ms;
};

static double query_weight(const struct neighbors_settings *s, const struct query *q, size_t place)
{
    double left = (double)(q->length - place);
    switch (s->kind) {
    case NEIGHBORS_VMIS:
        return left / (double)q->n;
    case NEIGHBORS_VSKNN:
        return left / (double)q->length * left / (double)q->length / (double)q->n;
    default:
        return s->lambda_query > 0.0 ? exp(-(double)place / s->lambda_query) : 1.0;
    }
}

static void read_query(const struct neighbors *neighbors, const struct history_event *events,
                       size_t n, int64_t now_ms, struct query *q)
{
    const struct neighbors_settings *s = &neighbors->info.settings;
    size_t limit = s->n_last > 0 ? s->n_last : NEIGHBORS_QUERY_MAX;
    q->length = n < limit ? n : limit;
    q->n = 0;
    q->now_ms = now_ms;
    for (size_t p = 0; p < q->length; p++) {
        bool known = false;
        for (size_t i = 0; i < q->n; i++) {
            known = known || q->items[i] == events[p].row;
        }
        if (!known) {
            q->items[q->n] = events[p].row;
            q->places[q->n++] = p;
        }
    }
    for (size_t i = 0; i < q->n; i++) {
        /* Above 0, however far back: 0 means a session that is not considered. */
        q->weights[i] = fmax(query_weight(s, q, q->places[i]), DBL_MIN);
    }
}

/* ---- the newest sessions that share an item ---- */

static void oldest_down(int32_t *heap, size_t n)
{
    size_t root = 0;
    for (;;) {
        size_t oldest = root;
        for (size_t child = 2 * root + 1; child <= 2 * root + 2 && child < n; child++) {
            oldest = heap[child] < heap[oldest] ? child : oldest;
        }
        if (oldest == root) {
            return;
        }
        int32_t swap = heap[root];
        heap[root] = heap[oldest];
        heap[oldest] = swap;
        root = oldest;
    }
}

static void oldest_push(int32_t *heap, size_t n, int32_t session)
{
    size_t at = n;
    while (at > 0 && heap[(at - 1) / 2] > session) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = session;
}

static size_t sample_sessions(const struct neighbors *neighbors, struct neighbors_workspace *w,
                              const struct query *q)
{
    const struct neighbors_tables *t = &neighbors->tables;
    size_t n_max = neighbors->info.settings.n_sampled;
    size_t n = 0;
    for (size_t i = 0; i < q->n; i++) {
        double weight = q->weights[i];
        for (int64_t p = t->posting_offsets[q->items[i]]; p < t->posting_offsets[q->items[i] + 1];
             p++) {
            int32_t session = t->postings[p];
            if (w->similarity[session] > 0.0) {
                w->similarity[session] += weight;
            } else if (n < n_max) {
                w->similarity[session] = weight;
                oldest_push(w->heap, n++, session);
            } else if (session > w->heap[0]) {
                w->similarity[w->heap[0]] = 0.0;
                w->similarity[session] = weight;
                w->heap[0] = session;
                oldest_down(w->heap, n);
            } else {
                break; /* the rest is older still */
            }
        }
    }
    return n;
}

/* ---- the most similar of them ---- */

static bool is_less(struct scored a, struct scored b)
{
    return a.score < b.score || (a.score == b.score && a.row < b.row);
}

static void least_down(struct scored *heap, size_t n)
{
    size_t root = 0;
    for (;;) {
        size_t least = root;
        for (size_t child = 2 * root + 1; child <= 2 * root + 2 && child < n; child++) {
            least = is_less(heap[child], heap[least]) ? child : least;
        }
        if (least == root) {
            return;
        }
        struct scored swap = heap[root];
        heap[root] = heap[least];
        heap[least] = swap;
        root = least;
    }
}

static void least_push(struct scored *heap, size_t n, struct scored value)
{
    size_t at = n;
    while (at > 0 && is_less(value, heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = value;
}

static double finished_similarity(const struct neighbors *neighbors, const struct query *q,
                                  int32_t session, double sum)
{
    static const double MS_PER_DAY = 86400000.0;
    const struct neighbors_tables *t = &neighbors->tables;
    const struct neighbors_settings *s = &neighbors->info.settings;
    if (s->kind != NEIGHBORS_VSTAN) {
        return sum;
    }
    double distinct = (double)(t->session_offsets[session + 1] - t->session_offsets[session]);
    sum /= sqrt((double)q->n * distinct);
    if (s->lambda_age_days > 0.0 && q->now_ms != EVENT_TIME_UNKNOWN &&
        t->session_times[session] != EVENT_TIME_UNKNOWN) {
        double age = (double)(q->now_ms - t->session_times[session]) / MS_PER_DAY;
        sum *= exp(-fmax(age, 0.0) / s->lambda_age_days);
    }
    return sum;
}

/* Undoes the similarities on the way. */
static size_t choose_neighbors(const struct neighbors *neighbors, struct neighbors_workspace *w,
                               const struct query *q, size_t n_sampled)
{
    size_t n_max = neighbors->info.settings.n_neighbors;
    size_t n = 0;
    for (size_t i = 0; i < n_sampled; i++) {
        int32_t session = w->heap[i];
        struct scored one = {finished_similarity(neighbors, q, session, w->similarity[session]),
                             (uint32_t)session};
        w->similarity[session] = 0.0;
        if (n < n_max) {
            least_push(w->neighbors, n++, one);
        } else if (is_less(w->neighbors[0], one)) {
            w->neighbors[0] = one;
            least_down(w->neighbors, n);
        }
    }
    return n;
}

/* ---- their items ---- */

/* Place in the session's items of the query's newest item that it has; *place: p of it. */
static size_t find_match(const struct neighbors_tables *t, const struct query *q, size_t session,
                         size_t *place)
{
    const int32_t *items = t->session_items + t->session_offsets[session];
    size_t n = (size_t)(t->session_offsets[session + 1] - t->session_offsets[session]);
    for (size_t i = 0; i < q->n; i++) {
        for (size_t j = 0; j < n; j++) {
            if ((uint32_t)items[j] == q->items[i]) {
                *place = q->places[i];
                return j;
            }
        }
    }
    *place = 0; /* only in damaged files */
    return 0;
}

static double match_weight(const struct neighbors_settings *s, size_t place)
{
    switch (s->kind) {
    case NEIGHBORS_VMIS:
        return place + 1 < 10 ? 1.0 - 0.1 * (double)(place + 1) : 0.0;
    case NEIGHBORS_VSKNN:
        return 1.0 / (double)(place + 1);
    default:
        return 1.0;
    }
}

static double item_factor(const struct neighbors *neighbors, size_t item)
{
    const struct neighbors_settings *s = &neighbors->info.settings;
    if (s->idf <= 0.0 || neighbors->tables.counts[item] <= 0) {
        return 1.0;
    }
    double idf =
        s->idf * log((double)neighbors->info.n_sessions / (double)neighbors->tables.counts[item]);
    return s->kind == NEIGHBORS_VMIS ? idf : 1.0 + idf;
}

static size_t score_items(const struct neighbors *neighbors, struct neighbors_workspace *w,
                          const struct query *q, size_t n_neighbors)
{
    const struct neighbors_tables *t = &neighbors->tables;
    const struct neighbors_settings *s = &neighbors->info.settings;
    size_t n_touched = 0;
    for (size_t i = 0; i < n_neighbors; i++) {
        size_t session = w->neighbors[i].row;
        size_t place = 0;
        size_t match = find_match(t, q, session, &place);
        double weight = w->neighbors[i].score * match_weight(s, place);
        bool by_distance = s->kind == NEIGHBORS_VSTAN && s->lambda_distance > 0.0;
        int64_t first = t->session_offsets[session];
        for (int64_t e = first; e < t->session_offsets[session + 1]; e++) {
            uint32_t item = (uint32_t)t->session_items[e];
            double mine = weight;
            if (by_distance) {
                double distance = fabs((double)(e - first) - (double)match);
                mine *= exp(-distance / s->lambda_distance);
            }
            if (w->is_scored[item] == 0) {
                w->is_scored[item] = 1;
                w->touched[n_touched++] = item;
            }
            w->scores[item] += mine;
        }
    }
    return n_touched;
}

/* The best n_max of the touched items in order; undoes their scores. */
static size_t take_best(const struct neighbors *neighbors, struct neighbors_workspace *w,
                        size_t n_touched, uint32_t hidden, size_t n_max, double *total)
{
    size_t n = 0;
    *total = 0.0;
    for (size_t i = 0; i < n_touched; i++) {
        uint32_t item = w->touched[i];
        double score = w->scores[item] * item_factor(neighbors, item);
        w->scores[item] = 0.0;
        w->is_scored[item] = 0;
        if (!(score > 0.0) || item == hidden) {
            continue;
        }
        *total += score;
        /* Among equals the smaller row is better: rows are compared upside down. */
        struct scored one = {score, UINT32_MAX - item};
        if (n < n_max) {
            least_push(w->top, n++, one);
        } else if (is_less(w->top[0], one)) {
            w->top[0] = one;
            least_down(w->top, n);
        }
    }
    return n;
}

static size_t query_rules(const struct neighbors *neighbors, uint32_t item, size_t n_max,
                          uint32_t *rows, float *scores, double *total)
{
    const struct neighbors_tables *t = &neighbors->tables;
    size_t n = 0;
    *total = 0.0;
    for (int64_t r = t->rule_offsets[item]; r < t->rule_offsets[item + 1]; r++) {
        *total += (double)t->rule_scores[r];
        if (n < n_max) {
            rows[n] = (uint32_t)t->rule_items[r];
            scores[n++] = t->rule_scores[r];
        }
    }
    return n;
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
size_t neighbors_query(const struct neighbors *neighbors, struct neighbors_workspace *w,
                       const struct history_event *newest_first, size_t n_events, int64_t now_ms,
                       size_t n_max, uint32_t *rows, float *scores, double *total)
{
    *total = 0.0;
    if (n_events == 0 || n_max == 0) {
        return 0;
    }
    n_max = n_max < NEIGHBORS_HITS_MAX ? n_max : NEIGHBORS_HITS_MAX;
    if (neighbors_has_rules(neighbors->info.settings.kind)) {
        return query_rules(neighbors, newest_first[0].row, n_max, rows, scores, total);
    }
    struct query q;
    read_query(neighbors, newest_first, n_events, now_ms, &q);
    size_t n_sampled = sample_sessions(neighbors, w, &q);
    size_t n_neighbors = choose_neighbors(neighbors, w, &q, n_sampled);
    size_t n_touched = score_items(neighbors, w, &q, n_neighbors);
    uint32_t hidden = neighbors->info.settings.exclude_current ? q.items[0] : UINT32_MAX;
    size_t n = take_best(neighbors, w, n_touched, hidden, n_max, total);
    size_t left = n;
    while (left > 0) {
        left--;
        rows[left] = UINT32_MAX - w->top[0].row;
        scores[left] = (float)w->top[0].score;
        w->top[0] = w->top[left];
        least_down(w->top, left);
    }
    return n;
}
