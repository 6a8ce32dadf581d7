#ifndef AISLE_CORE_PROFILE_H
#define AISLE_CORE_PROFILE_H

#include <stddef.h>

#include "base/status.h"

/* A linear ranking profile, data/profiles/NAME.json: weights over named features, and defaults. The
 * score of a candidate is the sum of weight × feature.
 *
 * Similarity and neighbors together are the model's score, the one that offline evaluation
 * measures. Its scale is the model's: -1 … 1 for `decay` over unit vectors, any real number (log
 * odds, some units between good and bad) for neighbours and for models trained with a softmax.
 * Weights of the other features are to be chosen for that scale. What the features are where there
 * is no user vector, or where neighbours are the model: core/ranking.c. */
enum feature {
    FEATURE_SIMILARITY, /* inner product of user and item vector */
    FEATURE_POPULARITY, /* log-scaled share of recent events, 0 … 1 */
    FEATURE_FRESHNESS,  /* 0.5^(age / half life), 0 where created_at is missing */
    FEATURE_IN_STOCK,   /* 1 in stock or stock unknown, 0 out of stock */
    FEATURE_NEIGHBORS,  /* evidence of session neighbours, weighed when the model was trained */
    N_FEATURES
};
const char *feature_name(enum feature feature);

enum { PROFILE_NAME_BYTES = 64, PROFILES_MAX = 64, PROFILE_MAX_BYTES = 1 << 20 };

struct profile {
    char name[PROFILE_NAME_BYTES];
    char hash[17]; /* of the file's text, hex */
    double weights[N_FEATURES];
    double freshness_half_life_days;
    double diversity;           /* 0 … 1, default of a request's */
    size_t candidates;          /* retrieved before filters and ranking; default 200 */
    size_t neighbor_candidates; /* more items that session neighbours may bring; default 200,
                                   0: neighbours are not asked */
};

/* The profile that is used when a shop has none: similarity 1, neighbors 1, so that the order is
 * the model's own, the one that was evaluated. */
void profile_default(struct profile *profile);
/* Weights that are not named are 0, but that of neighbors: it is then similarity's, as both are
 * parts of the model's score. INVALID names member and path; unknown members and features, NaN,
 * out-of-range are refused. */
enum status profile_parse(const char *json, size_t len, const char *name, struct profile *out,
                          struct error *err) STATUS_CHECKED;

struct profile_set {
    struct profile *profiles; /* [n]; "default" is always there */
    size_t n;
};
/* Every *.json of a folder (name = file name); NULL or absent folder: the default alone. */
enum status profile_set_load(const char *dir, struct profile_set *out,
                             struct error *err) STATUS_CHECKED;
const struct profile *profile_find(const struct profile_set *set, const char *name);
void profile_set_free(struct profile_set *set);

#endif
