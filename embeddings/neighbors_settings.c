#include <math.h>
#include <string.h>

#include "base/json_write.h"
#include "embeddings/neighbors_internal.h"

static const char *const KIND_NAMES[N_NEIGHBORS_KINDS] = {"vmis", "vsknn", "vstan", "sr", "ar"};

const char *neighbors_kind_name(enum neighbors_kind kind)
{
    return KIND_NAMES[kind];
}

bool neighbors_kind_parse(const char *text, enum neighbors_kind *out)
{
    for (int i = 0; i < N_NEIGHBORS_KINDS; i++) {
        if (strcmp(text, KIND_NAMES[i]) == 0) {
            *out = (enum neighbors_kind)i;
            return true;
        }
    }
    return false;
}

bool neighbors_has_rules(enum neighbors_kind kind)
{
    return kind == NEIGHBORS_SR || kind == NEIGHBORS_AR;
}

void neighbors_settings_default(enum neighbors_kind kind, struct neighbors_settings *settings)
{
    *settings = (struct neighbors_settings){
        .kind = kind,
        .n_sampled = 5000,
        .n_neighbors = 500,
        .n_steps = 20,
        .n_pruned = 20,
    };
    if (kind == NEIGHBORS_VMIS) {
        settings->n_sampled = 1502;
        settings->n_neighbors = 288;
        settings->n_last = 4;
        settings->idf = 1.0;
        settings->exclude_current = true;
    } else if (kind == NEIGHBORS_VSKNN) {
        settings->idf = 5.0;
    } else if (kind == NEIGHBORS_VSTAN) {
        settings->idf = 1.0;
        settings->lambda_query = 3.0;
        settings->lambda_age_days = 60.0;
        settings->lambda_distance = 2.0;
    }
}

enum status neighbors_settings_check(const struct neighbors_settings *s, struct error *err)
{
    if (s->n_sampled < 1 || s->n_sampled > NEIGHBORS_SAMPLE_MAX) {
        return error_set_field(err, STATUS_INVALID, "n_sampled",
                               "neighbours: n_sampled must be within 1 and %d",
                               NEIGHBORS_SAMPLE_MAX);
    }
    if (s->n_neighbors < 1 || s->n_neighbors > NEIGHBORS_K_MAX) {
        return error_set_field(err, STATUS_INVALID, "n_neighbors",
                               "neighbours: n_neighbors must be within 1 and %d", NEIGHBORS_K_MAX);
    }
    if (s->n_last > NEIGHBORS_QUERY_MAX) {
        return error_set_field(err, STATUS_INVALID, "n_last",
                               "neighbours: n_last must be within 0 and %d", NEIGHBORS_QUERY_MAX);
    }
    if (s->n_steps < 1 || s->n_steps > 1000 || s->n_pruned < 1 ||
        s->n_pruned > NEIGHBORS_HITS_MAX) {
        return error_set_field(err, STATUS_INVALID, "n_steps",
                               "neighbours: n_steps must be within 1 and 1000, n_pruned within 1 "
                               "and %d",
                               NEIGHBORS_HITS_MAX);
    }
    const double numbers[] = {s->idf, s->lambda_query, s->lambda_age_days, s->lambda_distance};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (!(numbers[i] >= 0.0 && isfinite(numbers[i]))) {
            return error_set_field(err, STATUS_INVALID, "idf",
                                   "neighbours: idf and lambdas must be 0 or above");
        }
    }
    return STATUS_OK;
}

void neighbors_settings_encode(const struct neighbors_info *info, struct buf *out)
{
    const struct neighbors_settings *s = &info->settings;
    struct json_writer json;
    json_writer_init(&json, out);
    json_begin_object(&json, NULL);
    json_int(&json, "version", NEIGHBORS_VERSION);
    json_string(&json, "kind", neighbors_kind_name(s->kind));
    json_int(&json, "n_sampled", (int64_t)s->n_sampled);
    json_int(&json, "n_neighbors", (int64_t)s->n_neighbors);
    json_int(&json, "n_last", (int64_t)s->n_last);
    json_double(&json, "idf", s->idf);
    json_double(&json, "lambda_query", s->lambda_query);
    json_double(&json, "lambda_age_days", s->lambda_age_days);
    json_double(&json, "lambda_distance", s->lambda_distance);
    json_bool(&json, "exclude_current", s->exclude_current);
    json_int(&json, "n_steps", (int64_t)s->n_steps);
    json_int(&json, "n_pruned", (int64_t)s->n_pruned);
    json_bool(&json, "is_primary", info->blend.is_primary);
    json_double(&json, "blend_weight", info->blend.weight);
    json_double(&json, "blend_floor", info->blend.floor);
    json_int(&json, "n_items", (int64_t)info->n_items);
    json_int(&json, "n_sessions", (int64_t)info->n_sessions);
    json_end_object(&json);
}

static bool read_size(const struct json_value *object, const char *name, size_t *out)
{
    const struct json_value *value = json_member(object, name);
    uint64_t number = 0;
    if (value == NULL || !json_whole_number(value, &number)) {
        return false;
    }
    *out = (size_t)number;
    return true;
}

static bool read_double(const struct json_value *object, const char *name, double *out)
{
    const struct json_value *value = json_member(object, name);
    if (value == NULL || json_kind(value) != JSON_NUMBER) {
        return false;
    }
    *out = json_number(value);
    return true;
}

static bool read_flag(const struct json_value *object, const char *name, bool *out)
{
    const struct json_value *value = json_member(object, name);
    return value != NULL && json_bool_value(value, out);
}

static bool decode_members(const struct json_value *object, struct neighbors_info *info)
{
    struct neighbors_settings *s = &info->settings;
    const struct json_value *kind = json_member(object, "kind");
    return kind != NULL && json_kind(kind) == JSON_STRING &&
           neighbors_kind_parse(json_text(kind), &s->kind) &&
           read_size(object, "n_sampled", &s->n_sampled) &&
           read_size(object, "n_neighbors", &s->n_neighbors) &&
           read_size(object, "n_last", &s->n_last) && read_double(object, "idf", &s->idf) &&
           read_double(object, "lambda_query", &s->lambda_query) &&
           read_double(object, "lambda_age_days", &s->lambda_age_days) &&
           read_double(object, "lambda_distance", &s->lambda_distance) &&
           read_flag(object, "exclude_current", &s->exclude_current) &&
           read_size(object, "n_steps", &s->n_steps) &&
           read_size(object, "n_pruned", &s->n_pruned) &&
           read_flag(object, "is_primary", &info->blend.is_primary) &&
           read_double(object, "blend_weight", &info->blend.weight) &&
           read_double(object, "blend_floor", &info->blend.floor) &&
           read_size(object, "n_items", &info->n_items) &&
           read_size(object, "n_sessions", &info->n_sessions) && info->blend.weight >= 0.0 &&
           info->blend.floor > 0.0;
}

enum status neighbors_settings_decode(const char *text, struct neighbors_info *info,
                                      struct error *err)
{
    static const struct json_limits limits = {.n_values_max = 64, .depth_max = 2};
    struct json_doc *doc = NULL;
    enum status status = json_doc_open(text, strlen(text), &limits, &doc, err);
    if (status != STATUS_OK) {
        return status == STATUS_NOMEM ? status : STATUS_FORMAT;
    }
    size_t version = 0;
    const struct json_value *root = json_root(doc);
    if (json_kind(root) != JSON_OBJECT || !read_size(root, "version", &version) || version == 0) {
        status = error_set(err, STATUS_FORMAT, "neighbours: no settings");
    } else if (version > NEIGHBORS_VERSION) {
        status =
            error_set(err, STATUS_UNSUPPORTED, "neighbours: version %zu, this program knows %d",
                      version, NEIGHBORS_VERSION);
    } else if (!decode_members(root, info)) {
        status = error_set(err, STATUS_FORMAT, "neighbours: settings missing or malformed");
    } else {
        status = neighbors_settings_check(&info->settings, err);
        status = status == STATUS_OK ? status : STATUS_FORMAT;
    }
    json_doc_close(doc);
    return status;
}
