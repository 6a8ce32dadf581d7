#ifndef AISLE_CORE_RECOMMEND_INTERNAL_H
#define AISLE_CORE_RECOMMEND_INTERNAL_H

#include "base/rng.h"
#include "core/filter.h"
#include "core/recommend.h"

/* Shared by recommend.c (the pipeline), candidates.c (retrieval and filters) and ranking.c.
 * Legend: B jobs in a batch, D dimension, K candidates of one job. */

enum {
    CANDIDATES_MAX = 4096, /* K: of one job, before ranking; what follows and neighbours' items */
    VECTOR_CANDIDATES_MAX = 2048, /* of these, found by vector or popularity */
    BATCH_SEARCH_K_MAX = 1024, /* K of the batched search; a job that needs more searches alone */
    NEIGHBOR_SLOTS_LOG2 = 13,
    NEIGHBOR_SLOTS = 1 << NEIGHBOR_SLOTS_LOG2, /* four times NEIGHBORS_HITS_MAX */
    /* Diversity chooses from the best by score, as many as make a difference. */
    DIVERSE_POOL_MIN = 200,
    DIVERSE_POOL_SHARE = 2, /* times what is shown */
    DIVERSE_POOL_MAX = DIVERSE_POOL_SHARE * LIMIT_MAX,
    FILTER_CACHE_MAX_BYTES = 16 << 20,
    /* A filter that leaves at most this many rows, or 1 row in SCAN_SHARE, is scanned exactly. */
    SCAN_ROWS_MIN = 20000,
    SCAN_SHARE = 50,
};

struct candidate {
    uint32_t row;
    unsigned sources;
    float similarity;
    float neighbors; /* feature: evidence of session neighbours, or their score; 0: none */
    float score;
    float features[N_FEATURES];
};

struct recommender {
    const struct engine *engine;
    const struct profile_set *profiles;
    size_t batch_max;
    size_t dim;
    struct rng rng;
    struct catalog_reader *reader;
    struct filter_cache *filters;
    struct user_model_workspace *workspace;
    struct neighbors_workspace *neighbors; /* NULL: the release has none */
    struct neighbors_blend blend;
    uint32_t *neighbor_rows;  /* [NEIGHBORS_HITS_MAX] what they know for the job, best first */
    float *neighbor_scores;   /* [NEIGHBORS_HITS_MAX] as the feature */
    size_t n_neighbors;       /* 0: nothing, or not asked */
    uint16_t *neighbor_slots; /* [NEIGHBOR_SLOTS] row → 1 + its place in neighbor_rows, hashed */
    const double *stock;      /* columns, NULL when the catalogue has none */
    const double *created_at;

    struct history_event *events; /* [B × history_max] */
    uint32_t *offsets;            /* [B + 1] */
    float *embedded;              /* [B × D], in the order of embedding */
    float *user_vectors;          /* [B × D], in the order of jobs */
    float *queries;               /* [B × D], of the batched search */
    float *batch_scores;          /* [B × BATCH_SEARCH_K_MAX] */
    int64_t *batch_rows;
    float *scores; /* [SEARCH_K_MAX], of a search of one job */
    int64_t *rows;
    uint32_t *scan_rows;          /* [n items], rows of a filter to scan; made when first needed */
    uint64_t *marks;              /* bit a row: excluded or already a candidate of this job */
    struct candidate *candidates; /* [CANDIDATES_MAX] of the job being ranked */
    size_t n_candidates;
    struct candidate *picked; /* [SCORE_CANDIDATES_MAX] scratch of diversity */
    float *similarities;      /* [CANDIDATES_MAX] scratch */
    uint32_t *candidate_rows; /* [CANDIDATES_MAX] scratch */
    float *candidate_vectors; /* [DIVERSE_POOL_MAX × D] scratch of diversity */
};

/* INVALID names the field at fault. */
enum status recommend_request_check(const struct recommend_request *request,
                                    struct error *err) STATUS_CHECKED;

/* Marks of the rows a job must not show. */
void candidates_mark_excluded(struct recommender *recommender, const struct recommend_job *job);
void candidates_clear_marks(struct recommender *recommender, const struct recommend_job *job);

/* Asks session neighbours about the history that answers the job. None are known when the release
 * has no neighbours, or the profile wants none. */
void candidates_ask_neighbors(struct recommender *recommender, const struct recommend_job *job);

/* How many results the batched search should bring for a job; 0: the job does not take part. */
size_t candidates_search_k(const struct recommender *recommender, const struct recommend_job *job,
                           const struct filter_rows *filter);

/* Fills recommender->candidates for a job. found_*: the batched search's results for it (k may be
 * 0). Searches again with growing k, then exactly, until `limit` rows pass filter and exclusions or
 * no more exist; then neighbours' items join and, where there is no user vector, popular items fill
 * up. */
struct found_rows {
    const int64_t *rows;
    const float *scores;
    size_t k;
};
enum status candidates_collect(struct recommender *recommender, const struct recommend_job *job,
                               const struct filter_rows *filter, const float *user_vector,
                               const struct found_rows *found, struct error *err) STATUS_CHECKED;
/* The request's own candidates (POST /v1/score). */
void candidates_collect_given(struct recommender *recommender, const struct recommend_job *job,
                              const struct filter_rows *filter, const float *user_vector);

/* Features and scores of recommender->candidates, best first in candidates[0 .. n). At most `limit`
 * are put in order; diversity > 0 picks by maximal marginal relevance. Returns how many. */
size_t ranking_order(struct recommender *recommender, const struct recommend_job *job,
                     double diversity, size_t limit);
/* The events behind the user vector that pulled an item most: rows into because[BECAUSE_MAX]. */
size_t ranking_because(struct recommender *recommender, const struct recommend_job *job,
                       uint32_t row, uint32_t because[BECAUSE_MAX]);

#endif
