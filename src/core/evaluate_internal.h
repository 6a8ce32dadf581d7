#ifndef AISLE_CORE_EVALUATE_INTERNAL_H
#define AISLE_CORE_EVALUATE_INTERNAL_H

#include "base/events.h"
#include "base/idmap.h"
#include "base/rng.h"
#include "core/evaluate_offline.h"

/* Shared by the files of offline evaluation: evaluate_cases.c (files → cases), evaluate_lists.c
 * (one ranking of the catalogue), evaluate_scores.c (a release's ranks of some cases),
 * evaluate_offline.c (the whole), evaluate_bootstrap.c and evaluate_compare.c. */

/* ---- cases, of no release ---- */

struct evaluate_case {
    uint64_t first;    /* the prefix is events[first .. first + n_prefix), oldest first */
    uint32_t n_prefix; /* events before the next one */
    uint32_t next;     /* the item to be found */
    uint32_t user;     /* number in `users`; pairs: line of the file */
    int64_t time_ms;   /* of the next event, or EVENT_TIME_UNKNOWN */
};

struct evaluate_cases {
    struct idmap *items;    /* those of the file; rows of events are numbers in it */
    struct idmap *users;    /* NULL for pairs */
    uint64_t *user_offsets; /* [users + 1] first event of each user in log; NULL for pairs */
    struct event_log log;
    struct evaluate_case *cases; /* those of a user stand together */
    size_t n;
};

/* INVALID: no case in the file, or file, line and what is wrong there. Free in every case. */
enum status evaluate_cases_load(const struct evaluate_config *config, struct evaluate_cases *out,
                                struct error *err) STATUS_CHECKED;
void evaluate_cases_free(struct evaluate_cases *cases);

/* How often each item was met in the last days of an event file. Free in every case. */
struct evaluate_counts {
    struct idmap *items;
    double *counts; /* [items] */
    size_t cap;
};
enum status evaluate_counts_load(const char *path, size_t n_days, struct evaluate_counts *out,
                                 struct error *err) STATUS_CHECKED;
void evaluate_counts_free(struct evaluate_counts *counts);

/* ---- one ranking of a catalogue of N items ---- */

enum { EVALUATE_BLOCK = 64, EVALUATE_PLACE_NONE = UINT16_MAX };

struct evaluate_scored {
    float score;
    uint32_t row;
};
/* What a list leaves out. marks[N] is 1 for each of rows[n] and 0 elsewhere. */
struct evaluate_excluded {
    unsigned char *marks;
    uint32_t *rows;
    size_t n;
};
/* Where the places of the first k are noted: best[N] is the smallest place of a row so far,
 * EVALUATE_PLACE_NONE for none. NULL best: nothing is noted. heap[k] is scratch. */
struct evaluate_top {
    uint16_t *best;
    struct evaluate_scored *heap;
    size_t k;
};

/* How many of scores[n] are ≥ wanted; maxima[n / EVALUATE_BLOCK] get each block's largest. n is a
 * multiple of EVALUATE_BLOCK. _naive is its twin. */
size_t evaluate_count(const float *scores, size_t n, float wanted, float *maxima);
size_t evaluate_count_naive(const float *scores, size_t n, float wanted, float *maxima);
/* Notes places 1 … k of scores[n] (higher first, then smaller row) without the excluded;
 * maxima are of evaluate_count, or larger. */
void evaluate_note_top(const float *scores, size_t n, const float *maxima,
                       const struct evaluate_excluded *excluded, const struct evaluate_top *top);

/* Rows by falling popularity, and 1 + the number of other items at least as popular: [N] each. */
struct evaluate_popularity {
    uint32_t *order, *ranks;
};
/* *out is freed by evaluate_popularity_free in every case. */
enum status evaluate_popularity_init(const double *values, size_t n,
                                     struct evaluate_popularity *out,
                                     struct error *err) STATUS_CHECKED;
void evaluate_popularity_free(struct evaluate_popularity *popularity);
/* Rank of row without the excluded, of which it is none. */
uint32_t evaluate_popularity_rank(const struct evaluate_popularity *popularity, uint32_t row,
                                  const struct evaluate_excluded *excluded);
void evaluate_popularity_note_top(const struct evaluate_popularity *popularity, size_t n,
                                  const struct evaluate_excluded *excluded,
                                  const struct evaluate_top *top);

/* ---- a release under evaluation: what all threads share ---- */

struct evaluate_ranks {
    uint32_t *ranks[N_EVALUATE_SEEN][N_EVALUATE_ROWS]; /* [cases], 0: unknown next item; or NULL */
    unsigned char *without_answer;                     /* [cases] */
    enum evaluate_row served;
};

struct evaluate_ranking {
    const struct engine *engine;
    const struct evaluate_config *config;
    const struct evaluate_cases *cases;
    struct evaluate_ranks *out;
    size_t n_items, n_padded, dim, k_max, history_max; /* n_padded: a multiple of EVALUATE_BLOCK */
    size_t n_batch; /* cases of a batch, one product of matrices */
    uint32_t *rows; /* [items of the file] → row, IDMAP_NONE: not in the catalogue */
    float *items;   /* [n_padded × D], zero behind the catalogue */
    struct neighbors_blend blend;
    struct evaluate_popularity popularity, recent; /* recent is empty without such a row */
};

/* What one thread needs. */
struct evaluate_scorer;
enum status evaluate_scorer_open(const struct evaluate_ranking *ranking,
                                 struct evaluate_scorer **out, struct error *err) STATUS_CHECKED;
void evaluate_scorer_close(struct evaluate_scorer *scorer);
/* Ranks cases first … first + n ≤ n_batch and writes their places of ranking->out. False: a user
 * has events of all items, *first_fault is that case; some ranks are unwritten then. */
bool evaluate_scorer_rank(struct evaluate_scorer *scorer, size_t first, size_t n,
                          size_t *first_fault);
/* Best places so far: [N], NULL when not noted. */
const uint16_t *evaluate_scorer_best(const struct evaluate_scorer *scorer, enum evaluate_seen seen,
                                     enum evaluate_row row);
/* us[n]: microseconds for the vector and the neighbours of one user, for cases 0, step, 2 step … */
void evaluate_scorer_time(struct evaluate_scorer *scorer, size_t step, size_t n, double *us);

/* ---- the whole ---- */

struct evaluation {
    const struct evaluate_config *config;
    size_t n_threads;
    struct evaluate_cases cases;
    struct evaluate_counts recent;
    struct evaluate_ranks releases[EVALUATE_RELEASES_MAX];
    size_t n_releases;
};

/* ---- bootstrap ---- */

enum { BOOTSTRAP_METRICS_MAX = 4 };
/* Differences summed by group (user) and how many cases each has. */
struct bootstrap_sample {
    const double *sums;     /* [n_groups × n_metrics] */
    const uint32_t *counts; /* [n_groups], sum > 0 */
    size_t n_groups, n_metrics;
};
/* Mean over cases of each metric with its 95 % percentile interval over n_resamples draws of groups
 * with replacement: out[n_metrics]. Depends on the seed, not on the number of threads. NOMEM. */
enum status bootstrap_intervals(const struct bootstrap_sample *sample, size_t n_resamples,
                                uint64_t seed, size_t n_threads, struct evaluate_difference *out,
                                struct error *err) STATUS_CHECKED;

#endif
