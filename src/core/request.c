/* Names of the request's enumerations and the checks of its plain values, the same for HTTP and for
 * libaisle. */
#include "core/recommend_internal.h"

#include <math.h>
#include <string.h>

#include "base/parse.h"

static const char *const SCENARIO_NAMES[N_SCENARIOS] = {"for_you", "related", "cart", "popular"};
static const char *const STAGE_NAMES[N_STAGES] = {"parse", "history",  "embed", "retrieve",
                                                  "rank",  "describe", "answer"};
static const char *const FIELD_NAMES[] = {"title",      "category",  "brand",     "price",
                                          "currency",   "stock",     "image_url", "url",
                                          "created_at", "attributes"};

const char *scenario_name(enum scenario scenario)
{
    return SCENARIO_NAMES[scenario];
}

bool scenario_parse(const char *text, enum scenario *out)
{
    for (int i = 0; i < N_SCENARIOS; i++) {
        if (strcmp(text, SCENARIO_NAMES[i]) == 0) {
            *out = (enum scenario)i;
            return true;
        }
    }
    return false;
}

bool exclude_seen_parse(const char *text, enum exclude_seen *out)
{
    static const char *const names[] = {"none", "viewed", "purchased"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum exclude_seen)i;
            return true;
        }
    }
    return false;
}

unsigned item_field_parse(const char *text)
{
    for (unsigned i = 0; i < sizeof(FIELD_NAMES) / sizeof(FIELD_NAMES[0]); i++) {
        if (strcmp(text, FIELD_NAMES[i]) == 0) {
            return 1U << i;
        }
    }
    return 0;
}

const char *stage_name(enum stage stage)
{
    return STAGE_NAMES[stage];
}

const char *source_name(enum source source)
{
    switch (source) {
    case SOURCE_VECTOR:
        return "vector";
    case SOURCE_POPULAR:
        return "popular";
    case SOURCE_REQUEST:
        return "request";
    case SOURCE_NEIGHBORS:
        return "neighbors";
    }
    return "unknown";
}

const char *degraded_name(enum degraded degraded)
{
    switch (degraded) {
    case DEGRADED_HISTORY:
        return "history";
    case DEGRADED_METADATA:
        return "metadata";
    case DEGRADED_DEADLINE:
        return "deadline";
    }
    return "unknown";
}

void recommend_request_init(struct recommend_request *request)
{
    memset(request, 0, sizeof(*request));
    request->scenario = SCENARIO_FOR_YOU;
    request->limit = LIMIT_DEFAULT;
    request->exclude_seen = EXCLUDE_SEEN_PURCHASED;
    request->diversity = (double)NAN;
    request->fields = FIELDS_ALL;
    request->timeout_ms = TIMEOUT_MS_DEFAULT;
}

static enum status check_id(const char *id, const char *field, struct error *err)
{
    if (id == NULL || !id_valid(id, strnlen(id, ID_BYTES_MAX + 1))) {
        return error_set_field(err, STATUS_INVALID, field,
                               "an id is 1 to %d bytes of UTF-8 without control characters",
                               ID_BYTES_MAX);
    }
    return STATUS_OK;
}

static enum status check_ids(const char *const *ids, size_t n, size_t n_max, const char *field,
                             struct error *err)
{
    if (n > n_max) {
        return error_set_field(err, STATUS_INVALID, field, "%zu ids, at most %zu are allowed", n,
                               n_max);
    }
    for (size_t i = 0; i < n; i++) {
        enum status status = check_id(ids[i], field, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status check_numbers(const struct recommend_request *request, struct error *err)
{
    int limit_max = request->candidates != NULL ? (int)SCORE_CANDIDATES_MAX : (int)LIMIT_MAX;
    if (request->limit < LIMIT_MIN || request->limit > (size_t)limit_max) {
        return error_set_field(err, STATUS_INVALID, "limit", "limit must be %d to %d", LIMIT_MIN,
                               limit_max);
    }
    if (request->n_exclude_rows > REQUEST_EXCLUDE_ROWS_MAX) {
        return error_set_field(err, STATUS_INVALID, "exclude", "more than %d rows are excluded",
                               REQUEST_EXCLUDE_ROWS_MAX);
    }
    if (request->timeout_ms < TIMEOUT_MS_MIN || request->timeout_ms > TIMEOUT_MS_MAX) {
        return error_set_field(err, STATUS_INVALID, "timeout_ms", "timeout_ms must be %d to %d",
                               TIMEOUT_MS_MIN, TIMEOUT_MS_MAX);
    }
    if (!isnan(request->diversity) && !(request->diversity >= 0.0 && request->diversity <= 1.0)) {
        return error_set_field(err, STATUS_INVALID, "diversity", "diversity must be 0 to 1");
    }
    bool needs_items = request->scenario == SCENARIO_RELATED || request->scenario == SCENARIO_CART;
    if (needs_items && request->n_items == 0) {
        return error_set_field(err, STATUS_INVALID, "items", "scenario %s needs items",
                               scenario_name(request->scenario));
    }
    return STATUS_OK;
}

enum status recommend_request_check(const struct recommend_request *request, struct error *err)
{
    enum status status = check_numbers(request, err);
    if (status == STATUS_OK && request->user_id != NULL) {
        status = check_id(request->user_id, "user_id", err);
    }
    if (status == STATUS_OK && request->session_id != NULL) {
        status = check_id(request->session_id, "session_id", err);
    }
    if (status == STATUS_OK) {
        status = check_ids(request->items, request->n_items, REQUEST_ITEMS_MAX, "items", err);
    }
    if (status == STATUS_OK) {
        status =
            check_ids(request->exclude, request->n_exclude, REQUEST_EXCLUDE_MAX, "exclude", err);
    }
    if (status == STATUS_OK) {
        status = check_ids(request->candidates, request->n_candidates, SCORE_CANDIDATES_MAX,
                           "items", err);
    }
    return status;
}
