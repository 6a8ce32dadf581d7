/* Bodies of POST /v1/recommendations and /v1/score → struct recommend_request. One table of members
 * for both: a row says which body may have it. The query parameters of the GET forms come the same
 * way (query.c writes them as a JSON object), so that there is one set of checks and messages.
 *
 * The filter is handed on as text: core compiles and caches filters by their text, and checks them.
 * It is printed again from the tree, which makes the text canonical in its white space, so that the
 * same filter from two clients is one entry of the cache. */
#include "api/decode_internal.h"

#include <stdio.h>
#include <string.h>

#include "api/server.h"
#include "base/json_scan.h"

static struct decoded_request *target(struct decoder *decoder)
{
    return decoder->target;
}

static enum status read_scenario(struct decoder *decoder, const char *name, const cJSON *value)
{
    if (!cJSON_IsString(value) ||
        !scenario_parse(value->valuestring, &target(decoder)->request.scenario)) {
        return error_set_field(decoder->err, STATUS_INVALID, name,
                               "%s must be for_you, related, cart or popular", name);
    }
    return STATUS_OK;
}

static enum status read_user_id(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_id(decoder, name, value, &target(decoder)->request.user_id);
}

static enum status read_session_id(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_id(decoder, name, value, &target(decoder)->request.session_id);
}

struct id_list {
    const char *const *ids;
    size_t n;
};

static enum status read_ids(struct decoder *decoder, const char *name, const cJSON *value,
                            size_t n_max, struct id_list *out)
{
    if (!cJSON_IsArray(value)) {
        return error_set_field(decoder->err, STATUS_INVALID, name, "%s must be an array of ids",
                               name);
    }
    size_t n = (size_t)cJSON_GetArraySize(value);
    if (n > n_max) {
        return error_set_field(decoder->err, STATUS_INVALID, name,
                               "%s has %zu ids, at most %zu are allowed", name, n, n_max);
    }
    const char **ids = arena_alloc_array(decoder->arena, n + 1, sizeof(*ids));
    if (ids == NULL) {
        return error_set(decoder->err, STATUS_NOMEM, "memory of one request");
    }
    size_t i = 0;
    const cJSON *element = NULL;
    cJSON_ArrayForEach (element, value) {
        char field[ERROR_FIELD_BYTES];
        (void)snprintf(field, sizeof(field), "%s[%zu]", name, i);
        enum status status = decode_id(decoder, field, element, &ids[i]);
        if (status != STATUS_OK) {
            return status;
        }
        i++;
    }
    *out = (struct id_list){ids, n};
    return STATUS_OK;
}

static enum status read_items(struct decoder *decoder, const char *name, const cJSON *value)
{
    struct recommend_request *request = &target(decoder)->request;
    struct id_list list = {0};
    bool is_score = decoder->kind == BODY_SCORE;
    enum status status =
        read_ids(decoder, name, value, is_score ? SCORE_CANDIDATES_MAX : REQUEST_ITEMS_MAX, &list);
    if (is_score) {
        request->candidates = list.ids;
        request->n_candidates = list.n;
        request->limit = list.n;
    } else {
        request->items = list.ids;
        request->n_items = list.n;
    }
    return status;
}

static enum status read_exclude(struct decoder *decoder, const char *name, const cJSON *value)
{
    struct id_list list = {0};
    enum status status = read_ids(decoder, name, value, REQUEST_EXCLUDE_MAX, &list);
    target(decoder)->request.exclude = list.ids;
    target(decoder)->request.n_exclude = list.n;
    return status;
}

static enum status read_limit(struct decoder *decoder, const char *name, const cJSON *value)
{
    int64_t limit = 0;
    enum status status =
        decode_integer(decoder, name, value, (struct decode_range){LIMIT_MIN, LIMIT_MAX}, &limit);
    if (status == STATUS_OK) {
        target(decoder)->request.limit = (size_t)limit;
    }
    return status;
}

static enum status read_filter(struct decoder *decoder, const char *name, const cJSON *value)
{
    if (!cJSON_IsObject(value)) {
        return error_set_field(decoder->err, STATUS_INVALID, name, "%s must be an object", name);
    }
    char *text = cJSON_PrintUnformatted(value);
    if (text == NULL) {
        return error_set(decoder->err, STATUS_NOMEM, "memory of one request");
    }
    size_t len = strlen(text);
    const char *copy = arena_strndup(decoder->arena, text, len);
    cJSON_free(text);
    if (copy == NULL) {
        return error_set(decoder->err, STATUS_NOMEM, "memory of one request");
    }
    target(decoder)->request.filter_json = copy;
    target(decoder)->request.filter_json_len = len;
    return STATUS_OK;
}

static enum status read_exclude_seen(struct decoder *decoder, const char *name, const cJSON *value)
{
    if (!cJSON_IsString(value) ||
        !exclude_seen_parse(value->valuestring, &target(decoder)->request.exclude_seen)) {
        return error_set_field(decoder->err, STATUS_INVALID, name,
                               "%s must be none, viewed or purchased", name);
    }
    return STATUS_OK;
}

static enum status read_consent(struct decoder *decoder, const char *name, const cJSON *value)
{
    bool consent = true;
    enum status status = decode_bool(decoder, name, value, &consent);
    target(decoder)->request.no_consent = !consent;
    return status;
}

static enum status read_after(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_id(decoder, name, value, &target(decoder)->after);
}

static enum status read_diversity(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_number(decoder, name, value, (struct decode_range){0.0, 1.0},
                         &target(decoder)->request.diversity);
}

static enum status read_profile(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_id(decoder, name, value, &target(decoder)->request.profile);
}

/* "attributes.colour", as filters call it, asks for the attributes. */
static unsigned field_of(const char *name)
{
    static const char prefix[] = "attributes.";
    const size_t len = sizeof(prefix) - 1;
    if (strncmp(name, prefix, len) == 0 && name[len] != '\0') {
        return FIELD_ATTRIBUTES;
    }
    return item_field_parse(name);
}

static enum status read_fields(struct decoder *decoder, const char *name, const cJSON *value)
{
    unsigned fields = 0;
    const cJSON *element = NULL;
    if (!cJSON_IsArray(value)) {
        return error_set_field(decoder->err, STATUS_INVALID, name, "%s must be an array of names",
                               name);
    }
    cJSON_ArrayForEach (element, value) {
        bool is_text = cJSON_IsString(element);
        if (is_text && strcmp(element->valuestring, "id") == 0) {
            continue; /* always there */
        }
        unsigned field = is_text ? field_of(element->valuestring) : 0;
        if (field == 0) {
            return error_set_field(decoder->err, STATUS_INVALID, name,
                                   "%s has something that is no metadata field: %.60s", name,
                                   is_text ? element->valuestring : "not a text");
        }
        fields |= field;
    }
    target(decoder)->request.fields = fields;
    return STATUS_OK;
}

static enum status read_explain(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_bool(decoder, name, value, &target(decoder)->request.explain);
}

static enum status read_timeout_ms(struct decoder *decoder, const char *name, const cJSON *value)
{
    return decode_integer(decoder, name, value,
                          (struct decode_range){TIMEOUT_MS_MIN, TIMEOUT_MS_MAX},
                          &target(decoder)->request.timeout_ms);
}

static const struct decoder_member MEMBERS[] = {
    {"scenario", BODY_RECOMMEND, read_scenario},
    {"user_id", 0, read_user_id},
    {"session_id", 0, read_session_id},
    {"items", 0, read_items},
    {"limit", BODY_RECOMMEND, read_limit},
    {"filter", BODY_RECOMMEND, read_filter},
    {"exclude", BODY_RECOMMEND, read_exclude},
    {"exclude_seen", BODY_RECOMMEND, read_exclude_seen},
    {"consent", 0, read_consent},
    {"after", BODY_RECOMMEND, read_after},
    {"diversity", BODY_RECOMMEND, read_diversity},
    {"profile", 0, read_profile},
    {"fields", 0, read_fields},
    {"explain", 0, read_explain},
    {"timeout_ms", 0, read_timeout_ms},
};

enum status decode_request(const struct decode_input *input, struct arena *arena,
                           struct decoded_request *out, struct error *err)
{
    *out = (struct decoded_request){0};
    recommend_request_init(&out->request);
    out->request.timeout_ms = input->default_timeout_ms;
    struct json_scan scan = {.text = input->text,
                             .len = input->len,
                             .depth_max = JSON_DEPTH_MAX,
                             .values_max = JSON_VALUES_MAX};
    enum status status = json_scan(&scan, err);
    if (status != STATUS_OK) {
        return status;
    }
    cJSON *tree = cJSON_ParseWithLength(input->text, input->len);
    if (tree == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of one request");
    }
    struct decoder decoder = {arena, out, input->kind, err, 0};
    status = decode_object(&decoder, tree, MEMBERS, sizeof(MEMBERS) / sizeof(MEMBERS[0]));
    cJSON_Delete(tree);
    if (status == STATUS_OK && input->kind == BODY_SCORE && out->request.n_candidates == 0) {
        status = error_set_field(err, STATUS_INVALID, "items", "items must be 1 to %d ids",
                                 SCORE_CANDIDATES_MAX);
    }
    return status;
}
