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
 * Legend: K candidates, D dimension. */
#include "core/recommend_internal.h"

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

/* features[f] = weight × feature, so that they add up to the score. A feature of no weight is not
 * even looked at. */
static void score_candidates(struct recommender *recommender, const struct recommend_job *job)
{
    const double *weights = job->profile->weights;
    const float *popularity = recommender->engine->popularity;
    const double *stock = weights[FEATURE_IN_STOCK] != 0.0 ? recommender->stock : NULL;
    const double *created_at = weights[FEATURE_FRESHNESS] != 0.0 ? recommender->created_at : NULL;
    for (size_t i = 0; i < recommender->n_candidates; i++) {
        struct candidate *candidate = &recommender->candidates[i];
        if (i + PREFETCH_AHEAD < recommender->n_candidates) {
            uint32_t ahead = recommender->candidates[i + PREFETCH_AHEAD].row;
            __builtin_prefetch(&popularity[ahead]);
            __builtin_prefetch(stock != NULL ? &stock[ahead] : NULL);
            __builtin_prefetch(created_at != NULL ? &created_at[ahead] : NULL);
        }
        uint32_t row = candidate->row;
        double features[N_FEATURES];
        features[FEATURE_SIMILARITY] = (double)candidate->similarity;
        features[FEATURE_POPULARITY] = (double)popularity[row];
        features[FEATURE_FRESHNESS] = created_at != NULL ? freshness_of(created_at[row], job) : 0.0;
        features[FEATURE_IN_STOCK] = stock != NULL && stock[row] <= 0.0 ? 0.0 : 1.0;
        double score = 0.0;
        for (int f = 0; f < N_FEATURES; f++) {
            double part = weights[f] * features[f];
            candidate->features[f] = (float)part;
            score += part;
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

/* Candidates that diversity chooses from: the best by score, as many as make a difference. */
enum { DIVERSE_POOL_MIN = 200, DIVERSE_POOL_SHARE = 2 };

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

/* candidates, in order of score, → the picked ones in candidates[0 .. limit). The vectors of the
 * pool lie in candidate_vectors[pool × D]; similarities[i] is candidate i's largest similarity to a
 * picked one; candidate_rows holds the candidates that are left, in order of score, so that ties go
 * to the better one. */
static void pick_diverse(struct recommender *recommender, double diversity, size_t limit)
{
    size_t pool = limit * DIVERSE_POOL_SHARE;
    pool = pool > DIVERSE_POOL_MIN ? pool : DIVERSE_POOL_MIN;
    pool = pool < recommender->n_candidates ? pool : recommender->n_candidates;
    size_t dim = recommender->dim;
    uint32_t *rest = recommender->candidate_rows;
    const struct vectors vectors = {recommender->candidate_vectors, pool, dim, VECTOR_F32};
    for (size_t i = 0; i < pool; i++) {
        vectors_row(&recommender->engine->vectors, recommender->candidates[i].row,
                    recommender->candidate_vectors + i * dim);
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

size_t ranking_because(struct recommender *recommender, const struct recommend_job *job,
                       uint32_t row, uint32_t because[BECAUSE_MAX])
{
    float *vector = recommender->queries;
    float best[BECAUSE_MAX];
    size_t n = 0;
    vectors_row(&recommender->engine->vectors, row, vector);
    for (size_t e = 0; e < job->answer.n_history; e++) {
        uint32_t event_row = job->events[e].row;
        bool known = false;
        for (size_t i = 0; i < n; i++) {
            known = known || because[i] == event_row;
        }
        float similarity = 0.0F;
        vectors_dot(&recommender->engine->vectors, vector, &event_row, 1, &similarity);
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
