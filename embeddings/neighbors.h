#ifndef AISLE_EMBEDDINGS_NEIGHBORS_H
#define AISLE_EMBEDDINGS_NEIGHBORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/status.h"

/* Session neighbours: what other visitors looked at beside these items. Scores for items instead of
 * a user vector: a source of candidates beside the vector search, and a model in its own right.
 *  - vmis: VMIS-kNN (B. Kersbergen, O. Sprangers, S. Schelter, "Serenade", SIGMOD 2022);
 *  - vsknn, vstan: V-SKNN and V-STAN (M. Ludewig, N. Mauro, S. Latifi, D. Jannach, "Empirical
 *    analysis of session-based recommendation algorithms", UMUAI 2021; STAN: D. Garg et al.,
 *    SIGIR 2019);
 *  - sr, ar: sequential rules and association rules (M. Ludewig, D. Jannach, "Evaluation of
 *    session-based recommendation algorithms", UMUAI 2018).
 * Built from the sessions of the event log, kept in neighbors.safetensors of model folder and
 * release, rows numbered like the item vectors beside it. */
enum neighbors_kind {
    NEIGHBORS_VMIS,
    NEIGHBORS_VSKNN,
    NEIGHBORS_VSTAN,
    NEIGHBORS_SR,
    NEIGHBORS_AR,
    N_NEIGHBORS_KINDS
};
const char *neighbors_kind_name(enum neighbors_kind kind); /* "vmis" … */
bool neighbors_kind_parse(const char *text, enum neighbors_kind *out);

enum {
    NEIGHBORS_QUERY_MAX = 64,     /* newest events looked at, whatever the settings say */
    NEIGHBORS_SAMPLE_MAX = 50000, /* m */
    NEIGHBORS_K_MAX = 5000,
    NEIGHBORS_HITS_MAX = 2048, /* scored items that a query can bring */
};
struct neighbors_settings {
    enum neighbors_kind kind;
    size_t n_sampled;   /* m: newest sessions an item brings (vmis), newest sessions considered
                           (vsknn, vstan) */
    size_t n_neighbors; /* k */
    size_t n_last;      /* newest events of the query that count; 0: all (to NEIGHBORS_QUERY_MAX) */
    double idf;         /* weight of log(sessions / item's sessions); 0: none */
    /* vstan: decay of the query's positions (λ1), of the sessions' age in days (λ2), of the
     * distance in the neighbour from the matched item (λ3); 0: off */
    double lambda_query, lambda_age_days, lambda_distance;
    bool exclude_current; /* the newest event's item is not scored (as vmis is published) */
    size_t n_steps;       /* sr: distance counted; 20, quadratic weight 1/steps² as published */
    size_t n_pruned;      /* sr, ar: consequents kept an item; 20 */
};
/* Published settings: vmis m 1502, k 288, last 4, idf 1 (bol.com sample); vsknn m 5000, k 500,
 * idf 5; vstan m 5000, k 500; sr steps 20, pruned 20; ar pruned 20. */
void neighbors_settings_default(enum neighbors_kind kind, struct neighbors_settings *settings);
/* INVALID names the setting in err's field. */
enum status neighbors_settings_check(const struct neighbors_settings *settings,
                                     struct error *err) STATUS_CHECKED;

/* How scores of a release come together (kept beside the settings in the file). With is_primary the
 * neighbours' scores are the answer. Else, for item i of a query whose neighbour scores sum to S:
 *   score(i) = <user vector, item vector> + weight × log(1 + (score_i / S) / floor)
 * which adds evidence in log odds and needs no pass over the catalogue. weight 0: candidates only
 */
struct neighbors_blend {
    bool is_primary;
    double weight; /* ≥ 0 */
    double floor;  /* > 0; share of the neighbours' score that counts as one doubling, e.g. 1e-3 */
};
static inline double neighbors_blend_floor_default(void)
{
    return 1e-3;
}

/* File: safetensors with the settings as JSON in the metadata "aisle.neighbors". Sessions are
 * numbered by the time of their last event, then their order in the log, so that a number is a rank
 * of recency; an item's postings are its sessions, newest first, at most n_sampled.
 *   1. "postings.offsets" I64 [N + 1], "sessions.offsets" I64 [S + 1], "sessions.times" I64 [S] ms;
 *   2. "postings.sessions" I32, "sessions.items" I32 (each item of a session once, where it came
 *      first), "sessions.lengths" I32 [S] (events), "counts" I32 [N] sessions with the item;
 * for sr and ar instead "rules.offsets" I64 [N + 1], "rules.items" I32, "rules.scores" F32 (in the
 * order of scores, divided by the largest of the item).
 * Builds from sessions (log grouped by session, rows < n_items) and writes path atomically. Same
 * input → same bytes. INVALID: settings, no session with two different items; LIMIT; NOMEM; IO. */
enum status neighbors_build(const struct event_log *sessions, size_t n_items,
                            const struct neighbors_settings *settings,
                            const struct neighbors_blend *blend, const char *path,
                            struct error *err) STATUS_CHECKED;
/* Copies a file with rows renumbered: row r becomes to[r], or disappears when to[r] is UINT32_MAX.
 * n_from = rows of the file (MISMATCH otherwise), n_to = rows afterwards. FORMAT, IO, NOMEM. */
enum status neighbors_renumber(const char *from_path, const uint32_t *to, size_t n_from,
                               size_t n_to, const char *path, struct error *err) STATUS_CHECKED;

struct neighbors;           /* read-only, mapped, thread-safe */
struct neighbors_workspace; /* one thread's */

struct neighbors_info {
    struct neighbors_settings settings;
    struct neighbors_blend blend;
    size_t n_items, n_sessions;
};
/* Every offset, row and session number in the file is checked here: queries are bare. MISMATCH: not
 * n_items rows. FORMAT, UNSUPPORTED (newer version), NOT_FOUND, IO, NOMEM. */
enum status neighbors_open(const char *path, size_t n_items, struct neighbors **out,
                           struct error *err) STATUS_CHECKED;
/* The same over bytes in memory (borrowed while open); what the fuzzer calls. */
enum status neighbors_open_bytes(const void *bytes, size_t n_bytes, size_t n_items,
                                 struct neighbors **out, struct error *err) STATUS_CHECKED;
void neighbors_close(struct neighbors *neighbors);
struct neighbors_info neighbors_info(const struct neighbors *neighbors);

enum status neighbors_workspace_open(const struct neighbors *neighbors,
                                     struct neighbors_workspace **out,
                                     struct error *err) STATUS_CHECKED;
void neighbors_workspace_close(struct neighbors_workspace *workspace);

/* The best n_max (≤ NEIGHBORS_HITS_MAX) items for a history (newest first, as in user_model.h), in
 * descending order of score, ties by row; items of the history are scored like others unless
 * exclude_current. rows[n_max], scores[n_max]; *total = sum of all scored items' scores (0: none).
 * Returns how many (0: nothing known). now_ms for ages. Allocates nothing; deterministic. */
size_t neighbors_query(const struct neighbors *neighbors, struct neighbors_workspace *workspace,
                       const struct history_event *newest_first, size_t n_events, int64_t now_ms,
                       size_t n_max, uint32_t *rows, float *scores, double *total);

#endif
