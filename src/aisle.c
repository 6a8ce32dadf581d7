/* libaisle's public face: a release, sessions and plain C values over core's pipeline. Everything
 * here translates; what it promises stands in aisle.h. */
#include "aisle.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/events.h"
#include "core/engine.h"
#include "core/profile.h"
#include "core/recommend.h"

enum {
    SESSION_BLOCK_BYTES = 64 << 10,
    SESSION_MAX_BYTES = 16 << 20,
    /* Nobody waits on a socket here: a library call has all the time it needs. */
    SESSION_TIMEOUT_MS = TIMEOUT_MS_MAX,
};

struct aisle {
    struct engine *engine;
    struct profile_set profiles;
};

struct aisle_session {
    const struct aisle *aisle;
    struct recommender *recommender;
    struct arena arena;
    struct aisle_answer answer;
    char request_id[ULID_TEXT_BYTES];
};

static int translate(enum status status, const struct error *from, struct aisle_error *to)
{
    if (to != NULL && status != STATUS_OK) {
        to->code = (int)status;
        (void)snprintf(to->message, sizeof(to->message), "%s", from->message);
        (void)snprintf(to->field, sizeof(to->field), "%s", from->field);
    }
    return (int)status;
}

int aisle_open(const char *release_dir, struct aisle **out, struct aisle_error *error)
{
    struct error err = {STATUS_OK, "", ""};
    *out = NULL;
    struct aisle *aisle = mem_calloc(1, sizeof(*aisle));
    if (aisle == NULL) {
        return translate(STATUS_NOMEM, &(struct error){STATUS_NOMEM, "out of memory", ""}, error);
    }
    struct engine_config config = {.release_dir = release_dir};
    enum status status = engine_open(&config, &aisle->engine, &err);
    if (status == STATUS_OK) {
        status = profile_set_load(NULL, &aisle->profiles, &err);
    }
    if (status != STATUS_OK) {
        aisle_close(aisle);
        return translate(status, &err, error);
    }
    *out = aisle;
    return AISLE_OK;
}

void aisle_close(struct aisle *aisle)
{
    if (aisle != NULL) {
        profile_set_free(&aisle->profiles);
        engine_close(aisle->engine);
        mem_free(aisle);
    }
}

const char *aisle_release_version(const struct aisle *aisle)
{
    return aisle->engine->manifest.version;
}

uint64_t aisle_n_items(const struct aisle *aisle)
{
    return aisle->engine->manifest.n_items;
}

int aisle_session_open(const struct aisle *aisle, struct aisle_session **out,
                       struct aisle_error *error)
{
    struct error err = {STATUS_OK, "", ""};
    *out = NULL;
    struct aisle_session *session = mem_calloc(1, sizeof(*session));
    if (session == NULL) {
        return translate(STATUS_NOMEM, &(struct error){STATUS_NOMEM, "out of memory", ""}, error);
    }
    session->aisle = aisle;
    arena_init(&session->arena, SESSION_BLOCK_BYTES, SESSION_MAX_BYTES);
    struct recommender_config config = {
        .engine = aisle->engine,
        .profiles = &aisle->profiles,
        .batch_max = 1,
        .seed = (uint64_t)clock_monotonic_ns(),
    };
    enum status status = recommender_open(&config, &session->recommender, &err);
    if (status != STATUS_OK) {
        aisle_session_close(session);
        return translate(status, &err, error);
    }
    *out = session;
    return AISLE_OK;
}

void aisle_session_close(struct aisle_session *session)
{
    if (session != NULL) {
        recommender_close(session->recommender);
        arena_free(&session->arena);
        mem_free(session);
    }
}

static enum status make_request(const struct aisle_request *from, struct recommend_request *to,
                                struct error *err)
{
    recommend_request_init(to);
    to->timeout_ms = SESSION_TIMEOUT_MS;
    to->items = from->items;
    to->n_items = from->n_items;
    to->limit = from->limit != 0 ? from->limit : LIMIT_DEFAULT;
    to->filter_json = from->filter_json;
    to->filter_json_len = from->filter_json != NULL ? strlen(from->filter_json) : 0;
    to->explain = from->explain;
    if (from->scenario != NULL && !scenario_parse(from->scenario, &to->scenario)) {
        return error_set_field(err, STATUS_INVALID, "scenario", "unknown scenario %.64s",
                               from->scenario);
    }
    if (from->exclude_seen != NULL && !exclude_seen_parse(from->exclude_seen, &to->exclude_seen)) {
        return error_set_field(err, STATUS_INVALID, "exclude_seen",
                               "must be none, viewed or purchased");
    }
    return STATUS_OK;
}

static enum status make_history(struct aisle_session *session, const struct aisle_request *from,
                                struct history_result *to, struct error *err)
{
    size_t n = from->n_history < HISTORY_FETCH_MAX ? from->n_history : HISTORY_FETCH_MAX;
    struct history_item *items = arena_alloc_array(&session->arena, n + 1, sizeof(*items));
    if (items == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of one request");
    }
    for (size_t i = 0; i < n; i++) {
        const struct aisle_event *event = &from->history[i];
        enum event_type type = EVENT_VIEW;
        if (event->item_id == NULL) {
            return error_set_field(err, STATUS_INVALID, "history", "event %zu has no item", i);
        }
        if (event->type != NULL && !event_type_parse(event->type, strlen(event->type), &type)) {
            return error_set_field(err, STATUS_INVALID, "history", "event %zu: unknown type %.32s",
                                   i, event->type);
        }
        items[i] =
            (struct history_item){event->item_id, strlen(event->item_id), type, event->time_ms};
    }
    *to = (struct history_result){.status = STATUS_OK, .items = items, .n_items = n};
    return STATUS_OK;
}

static const char *source_text(unsigned sources)
{
    static const enum source ORDER[] = {SOURCE_VECTOR, SOURCE_NEIGHBORS, SOURCE_REQUEST};
    for (size_t i = 0; i < sizeof(ORDER) / sizeof(ORDER[0]); i++) {
        if ((sources & ORDER[i]) != 0) {
            return source_name(ORDER[i]);
        }
    }
    return source_name(SOURCE_POPULAR);
}

static enum status make_answer(struct aisle_session *session, const struct recommend_job *job,
                               struct error *err)
{
    const struct recommend_answer *from = &job->answer;
    struct aisle_item *items =
        arena_alloc_array(&session->arena, from->n_items + 1, sizeof(*items));
    if (items == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of one answer");
    }
    for (size_t i = 0; i < from->n_items; i++) {
        const struct recommend_item *item = &from->items[i];
        const struct item_metadata *metadata = &item->metadata;
        items[i] = (struct aisle_item){
            .id = item->id,
            .score = (double)item->score,
            .title = metadata->title,
            .category = metadata->category,
            .brand = metadata->brand,
            .currency = metadata->currency,
            .url = metadata->url,
            .image_url = metadata->image_url,
            .price = metadata->price,
            .stock = metadata->stock,
            .attributes_json = metadata->attributes_json,
            .source = source_text(item->sources),
            .similarity =
                job->request->explain ? (double)item->features[FEATURE_SIMILARITY] : (double)NAN,
            .because = item->n_because > 0 ? item->because[0] : NULL,
        };
    }
    memcpy(session->request_id, from->request_id, sizeof(session->request_id));
    session->answer = (struct aisle_answer){
        .request_id = session->request_id,
        .release = from->release,
        .items = items,
        .n_items = from->n_items,
        .n_history_used = from->n_history,
        .n_history_unknown = from->n_history_unknown,
    };
    return STATUS_OK;
}

int aisle_recommend(struct aisle_session *session, const struct aisle_request *request,
                    const struct aisle_answer **answer, struct aisle_error *error)
{
    struct error err = {STATUS_OK, "", ""};
    struct recommend_request core_request;
    struct history_result history;
    *answer = NULL;
    arena_reset(&session->arena);
    struct recommend_job job = {.request = &core_request, .arena = &session->arena};
    enum status status = make_request(request, &core_request, &err);
    if (status == STATUS_OK) {
        status = make_history(session, request, &history, &err);
    }
    if (status == STATUS_OK) {
        status = recommend_one(session->recommender, &job, &history, &err);
    }
    if (status == STATUS_OK) {
        status = make_answer(session, &job, &err);
    }
    if (status == STATUS_OK) {
        *answer = &session->answer;
    }
    return translate(status, &err, error);
}
