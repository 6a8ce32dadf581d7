#ifndef AISLE_CORE_EVALUATE_OFFLINE_H
#define AISLE_CORE_EVALUATE_OFFLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "core/engine.h"

/* Offline evaluation of one or several releases on the same cases. A case is a prefix of a user's
 * events and the item that came next; that item's rank counts the items with a higher or an equal
 * score (ties are broken against us), among the whole catalogue or, to compare with older papers,
 * among some random items. Metrics at cutoff k: HR, MRR, nDCG (one relevant item: nDCG =
 * 1 / log2(1 + rank); Recall = HR) and coverage: the share of the catalogue that stands in some top
 * k. Cases are by item id: an item that a release does not know is missed by it. */
enum evaluate_protocol {
    PROTOCOL_LEAVE_LAST_OUT, /* a user's last event, from all before it */
    PROTOCOL_EVERY_POSITION, /* each event of a session after its first, from those before it */
    PROTOCOL_TIME_SPLIT,     /* each event after since_ms, from all of its user before it */
    PROTOCOL_PAIRS,          /* a file of prefix TAB next item */
};
/* What becomes of the prefix' items; the next item is always ranked. */
enum evaluate_seen {
    EVALUATE_SEEN_RANKED,   /* they are ranked like others */
    EVALUATE_SEEN_EXCLUDED, /* they are not ranked */
    N_EVALUATE_SEEN
};
/* What can rank. Blend: the formula of embeddings/neighbors.h over all items. Where there is
 * nothing to go by, as no item of the prefix is known, popularity answers in the place of each. */
enum evaluate_row {
    EVALUATE_VECTOR,     /* the user vector's inner products */
    EVALUATE_NEIGHBORS,  /* neighbours' scores; an item without one ranks beyond the catalogue's end
                          */
    EVALUATE_BLEND,      /* both */
    EVALUATE_POPULARITY, /* the release's popularity */
    EVALUATE_RECENT,     /* counts of the last days of popularity_events_path */
    N_EVALUATE_ROWS
};
enum {
    EVALUATE_CUTOFFS_MAX = 8,
    EVALUATE_CUTOFF_MAX = 1000,
    EVALUATE_RELEASES_MAX = 16,
    EVALUATE_NEGATIVES_MAX = 100000,
    EVALUATE_DAYS_MAX = 3650,
    EVALUATE_RESAMPLES = 2000, /* of the bootstrap */
};

struct evaluate_config {
    const char *events_path; /* or NULL with pairs_path */
    const char *pairs_path;
    enum evaluate_protocol protocol;
    int64_t since_ms;                     /* time-split: cases are events later than this */
    size_t cutoffs[EVALUATE_CUTOFFS_MAX]; /* ascending, to EVALUATE_CUTOFF_MAX; 5, 10, 20 */
    size_t n_cutoffs;
    bool seen[N_EVALUATE_SEEN]; /* which variants to measure, at least one; EVALUATE_SEEN_RANKED */
    /* 0: the whole catalogue. Else the next item is ranked among so many items that its user has
     * no event of, drawn uniformly with replacement as in the code of W. Kang, J. McAuley,
     * "Self-Attentive Sequential Recommendation", ICDM 2018. No coverage is measured then. */
    size_t n_negatives;
    uint64_t seed;                      /* of the negatives and the bootstrap; 1 */
    const char *popularity_events_path; /* or NULL: no row EVALUATE_RECENT */
    size_t popularity_days; /* before that file's last event, 1 to EVALUATE_DAYS_MAX; 7 */
    size_t n_threads;       /* 0: all */
    bool show_progress;
};
void evaluate_config_default(struct evaluate_config *config);
const char *evaluate_protocol_name(enum evaluate_protocol protocol);
bool evaluate_protocol_parse(const char *text, enum evaluate_protocol *out);

struct evaluate_metrics {
    double hr[EVALUATE_CUTOFFS_MAX], mrr[EVALUATE_CUTOFFS_MAX], ndcg[EVALUATE_CUTOFFS_MAX];
    double coverage[EVALUATE_CUTOFFS_MAX]; /* NAN with negatives */
};
struct evaluate_result {
    char version[RELEASE_VERSION_BYTES];
    char architecture[32];
    size_t n_items;
    uint64_t n;         /* cases */
    uint64_t n_unknown; /* cases whose next item is not in the catalogue: count as missed */
    uint64_t n_empty;   /* cases for which what serves had nothing to go by: popularity answered */
    enum evaluate_row served; /* the row that is what the release serves */
    bool has_row[N_EVALUATE_ROWS];
    struct evaluate_metrics metrics[N_EVALUATE_SEEN][N_EVALUATE_ROWS]; /* 0 where not measured */
    /* µs to embed one user and to ask for its neighbours: batch of one, one thread, over n_timed
     * cases spread evenly. */
    double user_p50_us, user_p90_us;
    size_t n_timed;
    double seconds;
};

/* The cases and, release by release, their ranks. One thread uses it; it starts its own. */
struct evaluation;

/* Reads the files. Borrows config and its texts until evaluation_close. INVALID: settings, no case
 * in the file, a fault in it (file and line); NOT_FOUND, IO, FORMAT, NOMEM. */
enum status evaluation_open(const struct evaluate_config *config, struct evaluation **out,
                            struct error *err) STATUS_CHECKED;
void evaluation_close(struct evaluation *evaluation);
/* Ranks all cases by a release, which may be closed afterwards. The same numbers whatever the
 * number of threads. INVALID: a user has events of the whole catalogue, so that no negative can be
 * drawn; LIMIT: over EVALUATE_RELEASES_MAX; NOMEM. On failure *result is untouched and the
 * evaluation is as before. */
enum status evaluation_add(struct evaluation *evaluation, const struct engine *engine,
                           struct evaluate_result *result, struct error *err) STATUS_CHECKED;

/* What release `other` serves minus what release `base` serves (numbers in the order they were
 * added), at the largest cutoff, with 95 % percentile intervals of a paired bootstrap that draws
 * users with all their cases (pairs: each line is a user). Coverage is left out: it is no mean over
 * cases, and a resample, which repeats some, covers less. */
struct evaluate_difference {
    double estimate, low, high;
};
struct evaluate_comparison {
    size_t base, other, cutoff, n_users, n_resamples;
    struct evaluate_difference hr, mrr, ndcg;
};
enum status evaluation_compare(const struct evaluation *evaluation, enum evaluate_seen seen,
                               size_t base, size_t other, struct evaluate_comparison *out,
                               struct error *err) STATUS_CHECKED;

/* TSV with a header: user (pairs: line), n_prefix, next_item; then for each release rank (of what
 * it serves), popularity_rank, and vector_rank, neighbors_rank, recent_popularity_rank where there
 * are such rows. With both variants those without seen items follow as rank_without_seen …; the
 * second release's names end in _2. Ranks are empty when the catalogue does not know the item. */
enum status evaluation_write_ranks(const struct evaluation *evaluation, const char *path,
                                   struct error *err) STATUS_CHECKED;

#endif
