#ifndef AISLE_CORE_EVALUATE_OFFLINE_H
#define AISLE_CORE_EVALUATE_OFFLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "core/engine.h"

/* Offline evaluation over the full catalogue: for each case (a prefix and its next item) the user
 * model's vector is scored against all items exactly, and the rank of the next item counts the
 * items with a higher or an equal score (ties broken against us). Popularity of the release is the
 * baseline row. Metrics: HR@k, MRR@k, nDCG@k (one relevant item: nDCG = 1 / log2(1 + rank)),
 * coverage@k: share of the catalogue that stands in some top k. */
enum evaluate_protocol {
    PROTOCOL_LEAVE_LAST_OUT, /* a user's last event, from all before it */
    PROTOCOL_EVERY_POSITION, /* each event of a session after its first, from those before it */
    PROTOCOL_PAIRS,          /* a file of prefix TAB next item */
};
enum { EVALUATE_CUTOFFS_MAX = 8, EVALUATE_CUTOFF_MAX = 1000 };

struct evaluate_config {
    const char *events_path; /* or NULL with pairs_path */
    const char *pairs_path;
    enum evaluate_protocol protocol;
    size_t cutoffs[EVALUATE_CUTOFFS_MAX]; /* ascending, to EVALUATE_CUTOFF_MAX; 5, 10, 20 */
    size_t n_cutoffs;
    bool exclude_history; /* items of the prefix are not ranked (the next item always is) */
    /* TSV with a header: user (pairs: line), n_prefix, next_item, rank, popularity_rank (ranks
     * empty when the catalogue does not know the next item); or NULL. */
    const char *per_user_path;
    size_t n_threads; /* 0: all */
    bool show_progress;
};

struct evaluate_metrics {
    double hr[EVALUATE_CUTOFFS_MAX], mrr[EVALUATE_CUTOFFS_MAX], ndcg[EVALUATE_CUTOFFS_MAX];
    double coverage[EVALUATE_CUTOFFS_MAX];
};
struct evaluate_result {
    uint64_t n;         /* cases */
    uint64_t n_unknown; /* cases whose next item is not in the catalogue: count as missed */
    uint64_t n_empty;   /* cases without a user vector (no known item before): popularity answers */
    struct evaluate_metrics model, popularity;
    bool has_parts; /* neighbours take part: vector and neighbors are each part alone */
    struct evaluate_metrics vector, neighbors;
    double seconds;
};
void evaluate_config_default(struct evaluate_config *config);
const char *evaluate_protocol_name(enum evaluate_protocol protocol);
bool evaluate_protocol_parse(const char *text, enum evaluate_protocol *out);
/* The same numbers whatever the number of threads. INVALID: no case in the file, faults in it (file
 * and line), cutoffs out of bounds; IO, NOMEM. *result is untouched on failure. */
enum status evaluate_offline(const struct engine *engine, const struct evaluate_config *config,
                             struct evaluate_result *result, struct error *err) STATUS_CHECKED;

#endif
