/* Ranking: one score a candidate from named features × the profile's weights, then order.
 *
 * Diversity is maximal marginal relevance (J. Carbonell, J. Goldstein, "The Use of MMR,
 * Diversity-Based Reranking for Reordering Documents and Producing Summaries", SIGIR 1998): items
 * are picked one by one, each the one with the largest (1 - d) × relevance - d × its largest
 * similarity to what is picked already. Relevance is the score scaled to 0 … 1 over the candidates,
 * because d would otherwise mean something else in every profile. The similarities of all
 * candidates to the item picked last are one pass, so that a list of L from K candidates costs
 * L × K inner products.
 *
 * Vectors are brought to unit length for that: lengths of trained vectors differ, and how different
 * two items are must not depend on them.
 *
 * The features follow from what is known of the visitor:
 *  - a user vector: similarity is the inner product, neighbors what neighbours add to it;
 *  - no user vector, but neighbours: neighbors; popular items fill up behind, popularity - 1 (which
 *    is in -1 … 0) standing in for their similarity;
 *  - neither: popularity stands in for similarity;
 *  - neighbours are the release's model (blend.is_primary): neighbors is their own score, so that
 *    with the default profile an item has exactly the score that the published method gives it;
 *    what they do not score fills up behind: its similarity is brought to -1 … 0 by the logistic
 *    function - 1, which keeps the order.
 *
 * Legend: K candidates, D dimension. */
#include "core/recommend_internal.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const double MS_PER_DAY = 86400000.0;

static double freshness_of(double created_at_ms, const struct recommend_job *job)
{
    if (isnan(created_at_ms)) {
        return 0.0;
    }
    double age_days = ((double)job->now_ms - created_at_ms) / MS_PER_DAY;
    return exp2(-fmax(age_days, 0.0) / job->profile->freshness_half_life_days);
}

/* Columns are read at random rows: the misses overlap when they are asked for ahead. */
enum { PREFETCH_AHEAD = 16 };

/* What the features of the model are made of, the same for all candidates of a job. */
struct model_features {
    bool has_vector;
    bool has_neighbors;
    bool by_neighbors; /* they are the model */
};

static struct model_features model_features_of(const struct recommender *recommender,
                                               const struct recommend_job *job)
{
    return (struct model_features){
        .has_vector = job->has_vector,
        .has_neighbors = recommender->n_neighbors > 0,
        .by_neighbors = recommender->neighbors != NULL && recommender->blend.is_primary &&
                        job->profile->neighbor_candidates > 0 &&
                        job->profile->weights[FEATURE_NEIGHBORS] != 0.0,
    };
}

static double similarity_of(const struct model_features *model, const struct candidate *candidate)
{
    double similarity = (double)candidate->similarity;
    if (!model->by_neighbors) {
        return similarity;
    }
    if (candidate->neighbors > 0.0F || !model->has_vector) {
        return 0.0;
    }
    return -1.0 / (1.0 + exp(similarity)); /* logistic - 1, exact for large values, too */
}

/* What stands in for similarity where there is no user vector. */
static double stand_in_of(const struct model_features *model, const struct candidate *candidate,
                          double popularity)
{
    if (model->has_vector || candidate->neighbors > 0.0F) {
        return 0.0;
    }
    return model->has_neighbors ? popularity - 1.0 : popularity;
}

/* features[f] = weight × feature, so that they add up to the score. A feature of no weight is not
 * even looked at. */
static void score_candidates(struct recommender *recommender, const struct recommend_job *job)
{
    const double *weights = job->profile->weights;
    const float *popularity = recommender->engine->popularity;
    const double *stock = weights[FEATURE_IN_STOCK] != 0.0 ? recommender->stock : NULL;
    const double *created_at = weights[FEATURE_FRESHNESS] != 0.0 ? recommender->created_at : NULL;
    const struct model_features model = model_features_of(recommender, job);
    for (size_t i = 0; i < recommender->n_candidates; i++) {
        struct candidate *candidate = &recommender->candidates[i];
        if (i + PREFETCH_AHEAD < recommender->n_candidates) {
            uint32_t ahead = recommender->candidates[i + PREFETCH_AHEAD].row;
            __builtin_prefetch(&popularity[ahead]);
            __builtin_prefetch(stock != NULL ? &stock[ahead] : NULL);
            __builtin_prefetch(created_at != NULL ? &created_at[ahead] : NULL);
        }
        uint32_t row = candidate->row;
        double popular = (double)popularity[row];
        double parts[N_FEATURES];
        parts[FEATURE_SIMILARITY] = weights[FEATURE_SIMILARITY] * similarity_of(&model, candidate);
        parts[FEATURE_POPULARITY] =
            weights[FEATURE_POPULARITY] * popular +
            weights[FEATURE_SIMILARITY] * stand_in_of(&model, candidate, popular);
        parts[FEATURE_FRESHNESS] =
            created_at != NULL ? weights[FEATURE_FRESHNESS] * freshness_of(created_at[row], job)
                               : 0.0;
        parts[FEATURE_IN_STOCK] =
            stock != NULL && stock[row] <= 0.0 ? 0.0 : weights[FEATURE_IN_STOCK];
        parts[FEATURE_NEIGHBORS] = weights[FEATURE_NEIGHBORS] * (double)candidate->neighbors;
        double score = 0.0;
        for (int f = 0; f < N_FEATURES; f++) {
            candidate->features[f] = (float)parts[f];
            score += parts[f];
        }
        candidate->score = (float)score;
    }
}

/* Higher score first; ties by row, so that equal input gives equal answers. */
static bool comes_before(const struct candidate *a, const struct candidate *b)
{
    return a->score > b->score || (a->score == b->score && a->row < b->row);
}

static void swap_candidates(struct candidate *a, struct candidate *b)
{
    struct candidate c = *a;
    *a = *b;
    *b = c;
}

/* candidates[root ..) as a heap whose top is the worst of the first n. */
static void sift_down(struct candidate *heap, size_t root, size_t n)
{
    for (;;) {
        size_t worst = root;
        for (size_t child = 2 * root + 1; child <= 2 * root + 2 && child < n; child++) {
            if (comes_before(&heap[worst], &heap[child])) {
                worst = child;
            }
        }
        if (worst == root) {
            return;
        }
        swap_candidates(&heap[root], &heap[worst]);
        root = worst;
    }
}

/* Puts the best `limit` of n first, in order: a heap of the best, then a heap sort of it. */
static void partial_sort(struct candidate *candidates, size_t n, size_t limit)
{
    for (size_t i = limit / 2; i-- > 0;) {
        sift_down(candidates, i, limit);
    }
    for (size_t i = limit; i < n; i++) {
        if (comes_before(&candidates[i], &candidates[0])) {
            swap_candidates(&candidates[0], &candidates[i]);
            sift_down(candidates, 0, limit);
        }
    }
    for (size_t i = limit; i-- > 1;) {
        swap_candidates(&candidates[0], &candidates[i]);
        sift_down(candidates, 0, i);
    }
}

/* The index into rest[n] of the candidate with the largest marginal relevance. */
static size_t most_relevant(const struct recommender *recommender, double diversity, size_t pool,
                            const uint32_t *rest, size_t n)
{
    const struct candidate *candidates = recommender->candidates;
    double top = (double)candidates[0].score;
    double range = top - (double)candidates[pool - 1].score;
    size_t best = 0;
    double best_value = -HUGE_VAL;
    for (size_t i = 0; i < n; i++) {
        double below = top - (double)candidates[rest[i]].score;
        double relevance = range > 0.0 ? 1.0 - below / range : 1.0;
        double closest = (double)recommender->similarities[rest[i]];
        double value = (1.0 - diversity) * relevance - diversity * closest;
        if (value > best_value) {
            best_value = value;
            best = i;
        }
    }
    return best;
}

static void scale_to_unit(float *vector, size_t dim)
{
    float norm = vector_norm(vector, dim);
    for (size_t d = 0; norm > 0.0F && d < dim; d++) {
        vector[d] /= norm;
    }
}

/* candidates, in order of score, → the picked ones in candidates[0 .. limit). The vectors of the
 * pool lie in candidate_vectors[pool × D], of unit length; similarities[i] is candidate i's largest
 * similarity to a picked one; candidate_rows holds the candidates that are left, in order of score,
 * so that ties go to the better one. */
static void pick_diverse(struct recommender *recommender, double diversity, size_t limit)
{
    size_t pool = limit * DIVERSE_POOL_SHARE;
    pool = pool > DIVERSE_POOL_MIN ? pool : DIVERSE_POOL_MIN;
    pool = pool < recommender->n_candidates ? pool : recommender->n_candidates;
    assert(pool <= DIVERSE_POOL_MAX);
    size_t dim = recommender->dim;
    uint32_t *rest = recommender->candidate_rows;
    const struct vectors vectors = {recommender->candidate_vectors, pool, dim, VECTOR_F32};
    for (size_t i = 0; i < pool; i++) {
        float *vector = recommender->candidate_vectors + i * dim;
        vectors_row(&recommender->engine->vectors, recommender->candidates[i].row, vector);
        scale_to_unit(vector, dim);
        recommender->similarities[i] = 0.0F;
        rest[i] = (uint32_t)i;
    }
    size_t n = pool;
    for (size_t picked = 0; picked < limit; picked++) {
        size_t best = most_relevant(recommender, diversity, pool, rest, n);
        uint32_t chosen = rest[best];
        recommender->picked[picked] = recommender->candidates[chosen];
        memmove(&rest[best], &rest[best + 1], (n - best - 1) * sizeof(*rest));
        n--;
        float *to_chosen = recommender->scores; /* free by now: of a search of one job */
        vectors_dot(&vectors, recommender->candidate_vectors + chosen * dim, rest, n, to_chosen);
        for (size_t i = 0; i < n; i++) {
            float *closest = &recommender->similarities[rest[i]];
            *closest = fmaxf(*closest, to_chosen[i]);
        }
    }
    memcpy(recommender->candidates, recommender->picked, limit * sizeof(*recommender->picked));
}

size_t ranking_order(struct recommender *recommender, const struct recommend_job *job,
                     double diversity, size_t limit)
{
    score_candidates(recommender, job);
    size_t n = recommender->n_candidates;
    if (limit > n) {
        limit = n;
    }
    if (diversity > 0.0 && limit > 1) {
        partial_sort(recommender->candidates, n, n);
        pick_diverse(recommender, diversity, limit);
    } else {
        partial_sort(recommender->candidates, n, limit);
    }
    return limit;
}

/* Cosine of the vector in queries[D] and a row's; the row's vector passes through embedded[D]. */
static float cosine_to(struct recommender *recommender, uint32_t row)
{
    const struct vectors one = {recommender->queries, 1, recommender->dim, VECTOR_F32};
    const uint32_t first = 0;
    float cosine = 0.0F;
    vectors_row(&recommender->engine->vectors, row, recommender->embedded);
    scale_to_unit(recommender->embedded, recommender->dim);
    vectors_dot(&one, recommender->embedded, &first, 1, &cosine);
    return cosine;
}

size_t ranking_because(struct recommender *recommender, const struct recommend_job *job,
                       uint32_t row, uint32_t because[BECAUSE_MAX])
{
    float *vector = recommender->queries;
    float best[BECAUSE_MAX];
    size_t n = 0;
    vectors_row(&recommender->engine->vectors, row, vector);
    scale_to_unit(vector, recommender->dim);
    for (size_t e = 0; e < job->answer.n_history; e++) {
        uint32_t event_row = job->events[e].row;
        bool known = false;
        for (size_t i = 0; i < n; i++) {
            known = known || because[i] == event_row;
        }
        float similarity = cosine_to(recommender, event_row);
        if (known || event_row == row || similarity <= 0.0F) {
            continue;
        }
        size_t at = n < BECAUSE_MAX ? n++ : BECAUSE_MAX;
        for (; at > 0 && best[at - 1] < similarity; at--) {
            if (at < BECAUSE_MAX) {
                best[at] = best[at - 1];
                because[at] = because[at - 1];
            }
        }
        if (at < BECAUSE_MAX) {
            best[at] = similarity;
            because[at] = event_row;
        }
    }
    return n;
}
