#ifndef AISLE_H
#define AISLE_H

/* libaisle: scoring without a server. Open a release, hand over a visitor's history, get ranked
 * items. For an edge box, an nginx module, a batch job. Thread rules: an `aisle` handle is
 * read-only and may be shared; an `aisle_session` is one thread's. Functions return AISLE_OK (0) or
 * a negative code and describe the failure in *error (optional, may be NULL). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define AISLE_API __attribute__((visibility("default")))
#else
#define AISLE_API
#endif

#define AISLE_OK 0

struct aisle_error {
    int code; /* negative; stable within a major version */
    char message[256];
    char field[64]; /* request field at fault, or "" */
};

struct aisle;
struct aisle_session;

/* Opens a release folder: verifies checksums, replays its probes. *out is NULL on failure; free
 * with aisle_close. */
AISLE_API int aisle_open(const char *release_dir, struct aisle **out, struct aisle_error *error);
/* After its sessions are closed. NULL is legal. */
AISLE_API void aisle_close(struct aisle *aisle);
/* Borrowed from the handle. */
AISLE_API const char *aisle_release_version(const struct aisle *aisle);
AISLE_API uint64_t aisle_n_items(const struct aisle *aisle);

/* Scratch memory of one thread; borrows the handle. Free with aisle_session_close. */
AISLE_API int aisle_session_open(const struct aisle *aisle, struct aisle_session **out,
                                 struct aisle_error *error);
AISLE_API void aisle_session_close(struct aisle_session *session);

struct aisle_event {
    const char *item_id;
    const char *type; /* "view", "cart", "purchase", "click"; NULL: view */
    int64_t time_ms;  /* Unix; -1: unknown */
};

struct aisle_request {
    const char *scenario;              /* "for_you" (NULL), "related", "cart", "popular" */
    const struct aisle_event *history; /* newest first */
    size_t n_history;
    const char *const *items; /* context: the page's item, the cart's items */
    size_t n_items;
    const char *filter_json;  /* the HTTP contract's filter, or NULL */
    size_t limit;             /* 1 … 200; 0: 20 */
    const char *exclude_seen; /* "none", "viewed", "purchased"; NULL: purchased */
    bool explain;
};

struct aisle_item {
    const char *id;
    double score;
    const char *title; /* texts NULL where absent */
    const char *category;
    const char *brand;
    const char *currency;
    const char *url;
    const char *image_url;
    double price;                /* NAN where absent */
    double stock;                /* NAN where absent */
    const char *attributes_json; /* or NULL */
    const char *source;          /* "vector", "neighbors", "popular" */
    double similarity;           /* with explain, else NAN */
    const char *because;         /* with explain: the history item that pulled most, or NULL */
};

struct aisle_answer {
    const char *request_id;
    const char *release;
    const struct aisle_item *items;
    size_t n_items;
    size_t n_history_used;
    size_t n_history_unknown; /* events of items that the release does not know */
};

/* Ranks. The answer is borrowed from the session, valid until its next call. */
AISLE_API int aisle_recommend(struct aisle_session *session, const struct aisle_request *request,
                              const struct aisle_answer **answer, struct aisle_error *error);

#ifdef __cplusplus
}
#endif

#endif
