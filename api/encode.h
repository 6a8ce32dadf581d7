#ifndef AISLE_API_ENCODE_H
#define AISLE_API_ENCODE_H

#include <stddef.h>

#include "base/buf.h"
#include "base/json_write.h"
#include "base/status.h"
#include "core/recommend.h"
#include "store/manifest.h"

/* Answers → JSON. Failures stick in the writer's buf. */

/* One answer of the contract, as a value of an object (key) or array (NULL). */
void encode_answer(struct json_writer *json, const char *key,
                   const struct recommend_request *request, const struct recommend_answer *answer);
/* Members of an item's metadata, those that are there, into the open object. */
void encode_metadata(struct json_writer *json, const struct item_metadata *metadata);

/* application/problem+json. */
struct problem {
    int http_status;
    const char *detail;
    const char *field; /* NULL or "": none is at fault */
};
void encode_problem(struct json_writer *json, const char *key, const struct problem *problem);
/* The one map from our statuses to HTTP's. */
int http_status_of(enum status status);
/* Reason phrase, also a problem's title. */
const char *http_status_phrase(int http_status);

/* "parse;dur=0.021, history;dur=1.204": milliseconds of the stages that took any time. */
void encode_server_timing(struct buf *out, const int64_t stage_ns[N_STAGES]);

/* What serves: version, sizes, model, index with its measured figures. */
struct release_description {
    const struct manifest *manifest;
    const char *index_factory;
    const char *index_search_parameters;
    bool index_exact;
};
void encode_release(struct json_writer *json, const struct release_description *release);

#endif
