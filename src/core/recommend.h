#ifndef AISLE_CORE_RECOMMEND_H
#define AISLE_CORE_RECOMMEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/events.h"
#include "base/status.h"
#include "base/ulid.h"
#include "core/engine.h"
#include "core/profile.h"
#include "store/history.h"

/* One request: history → user vector → candidates → filter → score → metadata. The only file that
 * knows the whole pipeline; it reads like section 1 of the design. */

enum scenario { SCENARIO_FOR_YOU, SCENARIO_RELATED, SCENARIO_CART, SCENARIO_POPULAR, N_SCENARIOS };
const char *scenario_name(enum scenario scenario);
bool scenario_parse(const char *text, enum scenario *out);

enum exclude_seen { EXCLUDE_SEEN_NONE, EXCLUDE_SEEN_VIEWED, EXCLUDE_SEEN_PURCHASED };
bool exclude_seen_parse(const char *text, enum exclude_seen *out);

/* Metadata an answer can carry, as bits. */
enum item_field {
    FIELD_TITLE = 1 << 0,
    FIELD_CATEGORY = 1 << 1,
    FIELD_BRAND = 1 << 2,
    FIELD_PRICE = 1 << 3,
    FIELD_CURRENCY = 1 << 4,
    FIELD_STOCK = 1 << 5,
    FIELD_IMAGE_URL = 1 << 6,
    FIELD_URL = 1 << 7,
    FIELD_CREATED_AT = 1 << 8,
    FIELD_ATTRIBUTES = 1 << 9,
    FIELDS_ALL = (1 << 10) - 1,
};
/* 0 when there is no such field. */
unsigned item_field_parse(const char *text);

/* Where a candidate came from, as bits. */
enum source { SOURCE_VECTOR = 1, SOURCE_POPULAR = 2, SOURCE_REQUEST = 4, SOURCE_NEIGHBORS = 8 };
/* What was degraded, as bits. */
enum degraded { DEGRADED_HISTORY = 1, DEGRADED_METADATA = 2, DEGRADED_DEADLINE = 4 };
const char *source_name(enum source source);
const char *degraded_name(enum degraded degraded);

enum {
    LIMIT_DEFAULT = 20,
    LIMIT_MIN = 1,
    LIMIT_MAX = 200,
    REQUEST_ITEMS_MAX = 200, /* context items */
    REQUEST_EXCLUDE_MAX = 1000,
    REQUEST_EXCLUDE_ROWS_MAX = 20000,
    SCORE_CANDIDATES_MAX = 1000,
    TIMEOUT_MS_DEFAULT = 50,
    TIMEOUT_MS_MIN = 1,
    TIMEOUT_MS_MAX = 10000,
    HISTORY_FETCH_MAX = 200, /* events asked of the history store for one request */
    BECAUSE_MAX = 3,
    RECOMMEND_BATCH_MAX = 64,
};

/* A request in plain C values; everything borrowed for the life of the job. Ids are checked here
 * again (cheap), so that libaisle's callers meet the same errors as HTTP's. */
struct recommend_request {
    enum scenario scenario;
    const char *user_id;    /* NULL: anonymous */
    const char *session_id; /* NULL: none */
    const char *const *items;
    size_t n_items;
    const char *const *exclude;
    size_t n_exclude;
    const uint32_t *exclude_rows; /* the same as rows, e.g. of an answer's earlier pages */
    size_t n_exclude_rows;
    const char *const
        *candidates; /* score these and nothing else (POST /v1/score); NULL: retrieve */
    size_t n_candidates;
    size_t limit;
    const char *filter_json; /* NULL: none */
    size_t filter_json_len;
    enum exclude_seen exclude_seen;
    bool no_consent;
    double diversity;    /* NAN: the profile's */
    const char *profile; /* NULL: "default" */
    unsigned fields;     /* FIELD_… bits */
    bool explain;
    int64_t timeout_ms;
};
/* for_you, limit 20, exclude purchased, all fields, default timeout. */
void recommend_request_init(struct recommend_request *request);

struct recommend_item {
    uint32_t row;
    float score;
    unsigned sources;
    const char *id;
    struct item_metadata metadata; /* texts in the job's arena; only the wanted fields are set */
    float features[N_FEATURES];    /* with explain */
    const char *because[BECAUSE_MAX];
    size_t n_because;
};

/* Stages timed for Server-Timing and metrics. */
enum stage {
    STAGE_PARSE,
    STAGE_HISTORY,
    STAGE_EMBED,
    STAGE_RETRIEVE,
    STAGE_RANK,
    STAGE_DESCRIBE,
    STAGE_ANSWER,
    N_STAGES
};
const char *stage_name(enum stage stage);

struct recommend_answer {
    char request_id[ULID_TEXT_BYTES];
    const char *release; /* borrowed from the engine */
    const struct profile *profile;
    struct recommend_item *items; /* arena */
    size_t n_items;
    const char **ignored; /* ids of the request that the catalogue does not know; arena */
    size_t n_ignored;
    unsigned degraded;          /* DEGRADED_… bits */
    size_t n_history;           /* events used */
    size_t n_history_unknown;   /* events of unknown items, dropped */
    int64_t stage_ns[N_STAGES]; /* a batched stage counts each request's share */
};

/* One request under way. Zero-initialise, give it an arena, then begin → (history) → run. Owned by
 * one worker. */
struct recommend_job {
    const struct recommend_request *request;
    struct arena *arena; /* everything of the job lives here; borrowed */
    struct recommend_answer answer;
    int64_t deadline_us;         /* monotonic; set by begin */
    int64_t history_deadline_us; /* set by begin: leaves time to answer without history */
    bool wants_history;          /* set by begin: fetch it, then call recommend_set_history */
    enum status status;          /* of the run */
    struct error error;
    /* internal */
    const struct profile *profile;
    struct history_event *events; /* newest first: request items, then stored history */
    size_t n_events;
    size_t n_request_events;
    uint32_t *excluded; /* rows never shown */
    size_t n_excluded;
    uint32_t *candidate_rows; /* of request.candidates that are known */
    size_t n_candidate_rows;
    int64_t now_ms;  /* Unix */
    bool has_vector; /* a user vector was made: else neighbours or popularity answer */
};

struct recommender; /* one worker's: scratch memory, metadata reader, filter cache */

struct recommender_config {
    const struct engine *engine;        /* borrowed */
    const struct profile_set *profiles; /* borrowed */
    size_t batch_max;                   /* 1 … RECOMMEND_BATCH_MAX */
    uint64_t seed;                      /* of request ids */
};
enum status recommender_open(const struct recommender_config *config, struct recommender **out,
                             struct error *err) STATUS_CHECKED;
void recommender_close(struct recommender *recommender);

/* Checks the request (INVALID with the field), makes its id, resolves ids to rows, compiles the
 * filter. start_us: when the request arrived (monotonic); its deadline counts from there. */
enum status recommend_begin(struct recommender *recommender, struct recommend_job *job,
                            int64_t start_us, struct error *err) STATUS_CHECKED;
/* Adds stored history, or marks the answer degraded when result says it is not to be had. */
void recommend_set_history(struct recommender *recommender, struct recommend_job *job,
                           const struct history_result *result);
/* Answers all jobs that are ready in one batch: one forward pass, one search. n ≤ batch_max. Each
 * job's status tells how it went. */
void recommend_run(struct recommender *recommender, struct recommend_job *const *jobs, size_t n);

/* The three in one for callers that hold the history themselves (libaisle, evaluation). history is
 * newest first, may be NULL. */
enum status recommend_one(struct recommender *recommender, struct recommend_job *job,
                          const struct history_result *history, struct error *err) STATUS_CHECKED;

#endif
