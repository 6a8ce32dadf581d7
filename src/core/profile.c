/* Ranking profiles: small JSON files that a shop's team edits by hand. Strict, because a misspelt
 * weight that is silently ignored is a ranking that nobody asked for.
 *
 *   {"weights": {"similarity": 1.0, "neighbors": 1.0}, "freshness_half_life_days": 30,
 *    "diversity": 0.0, "candidates": 200, "neighbor_candidates": 200} */
#include "core/profile.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json_scan.h"

enum { PROFILE_DEPTH_MAX = 16 };
enum { CANDIDATES_DEFAULT = 200, CANDIDATES_MIN = 1, CANDIDATES_LIMIT = 2000 };
enum { NEIGHBOR_CANDIDATES_DEFAULT = 200, NEIGHBOR_CANDIDATES_LIMIT = 2000 };
static const double WEIGHT_LIMIT = 1e6;
static const double HALF_LIFE_DAYS_MAX = 36500.0;

static const char *const FEATURE_NAMES[N_FEATURES] = {"similarity", "popularity", "freshness",
                                                      "in_stock", "neighbors"};

const char *feature_name(enum feature feature)
{
    return FEATURE_NAMES[feature];
}

void profile_default(struct profile *profile)
{
    static const char name[] = "default";
    memset(profile, 0, sizeof(*profile));
    memcpy(profile->name, name, sizeof(name));
    memcpy(profile->hash, "builtin", sizeof("builtin"));
    profile->weights[FEATURE_SIMILARITY] = 1.0;
    profile->weights[FEATURE_NEIGHBORS] = 1.0;
    profile->neighbor_candidates = NEIGHBOR_CANDIDATES_DEFAULT;
    profile->freshness_half_life_days = 30.0;
    profile->candidates = CANDIDATES_DEFAULT;
}

static enum status fail(struct error *err, const char *path, const char *message)
{
    return error_set_field(err, STATUS_INVALID, path, "%s: %s", path, message);
}

static enum status read_number(const cJSON *json, const char *path, double low, double high,
                               double *out, struct error *err)
{
    if (!cJSON_IsNumber(json) || !(json->valuedouble >= low && json->valuedouble <= high)) {
        return error_set_field(err, STATUS_INVALID, path, "%s: must be a number from %g to %g",
                               path, low, high);
    }
    *out = json->valuedouble;
    return STATUS_OK;
}

static enum status read_count(const cJSON *member, const char *name, double min, double max,
                              size_t *out, struct error *err)
{
    double count = 0.0;
    enum status status = read_number(member, name, min, max, &count, err);
    if (status == STATUS_OK && count != floor(count)) {
        return fail(err, name, "must be a whole number");
    }
    *out = status == STATUS_OK ? (size_t)count : *out;
    return status;
}

static enum status read_weights(const cJSON *json, struct profile *profile, struct error *err)
{
    if (!cJSON_IsObject(json)) {
        return fail(err, "weights", "must be an object");
    }
    bool given[N_FEATURES] = {false};
    memset(profile->weights, 0, sizeof(profile->weights));
    const cJSON *member;
    cJSON_ArrayForEach (member, json) {
        char path[ERROR_FIELD_BYTES];
        (void)snprintf(path, sizeof(path), "weights.%s", member->string);
        int feature = 0;
        while (feature < N_FEATURES && strcmp(member->string, FEATURE_NAMES[feature]) != 0) {
            feature++;
        }
        if (feature == N_FEATURES) {
            return fail(err, path, "there is no such feature");
        }
        if (given[feature]) {
            return fail(err, path, "given twice");
        }
        given[feature] = true;
        enum status status =
            read_number(member, path, -WEIGHT_LIMIT, WEIGHT_LIMIT, &profile->weights[feature], err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    if (!given[FEATURE_NEIGHBORS]) {
        profile->weights[FEATURE_NEIGHBORS] = profile->weights[FEATURE_SIMILARITY];
    }
    return STATUS_OK;
}

static enum status read_member(const cJSON *member, struct profile *profile, struct error *err)
{
    const char *name = member->string;
    if (strcmp(name, "weights") == 0) {
        return read_weights(member, profile, err);
    }
    if (strcmp(name, "freshness_half_life_days") == 0) {
        return read_number(member, name, 1e-3, HALF_LIFE_DAYS_MAX,
                           &profile->freshness_half_life_days, err);
    }
    if (strcmp(name, "diversity") == 0) {
        return read_number(member, name, 0.0, 1.0, &profile->diversity, err);
    }
    if (strcmp(name, "candidates") == 0) {
        return read_count(member, name, CANDIDATES_MIN, CANDIDATES_LIMIT, &profile->candidates,
                          err);
    }
    if (strcmp(name, "neighbor_candidates") == 0) {
        return read_count(member, name, 0, NEIGHBOR_CANDIDATES_LIMIT, &profile->neighbor_candidates,
                          err);
    }
    if (strcmp(name, "description") == 0) {
        return cJSON_IsString(member) ? STATUS_OK : fail(err, name, "must be a string");
    }
    return fail(err, name, "unknown member");
}

enum status profile_parse(const char *json, size_t len, const char *name, struct profile *out,
                          struct error *err)
{
    profile_default(out);
    if (len > PROFILE_MAX_BYTES) {
        return error_set(err, STATUS_INVALID, "profile %s: over %d bytes", name, PROFILE_MAX_BYTES);
    }
    struct json_scan scan = {
        .text = json, .len = len, .depth_max = PROFILE_DEPTH_MAX, .values_max = JSON_VALUES_MAX};
    enum status status = json_scan(&scan, err);
    if (status == STATUS_OK && scan.shape != JSON_SHAPE_OBJECT) {
        status = error_set(err, STATUS_INVALID, "not a JSON object");
    }
    if (status != STATUS_OK) {
        error_prefix(err, "profile %s: ", name);
        return status;
    }
    cJSON *root = cJSON_ParseWithLength(json, len);
    if (root == NULL) {
        return error_set(err, STATUS_NOMEM, "profile %s: out of memory", name);
    }
    const cJSON *member;
    cJSON_ArrayForEach (member, root) {
        if (status == STATUS_OK) {
            status = read_member(member, out, err);
            if (status != STATUS_OK) {
                error_prefix(err, "profile %s: ", name);
            }
        }
    }
    cJSON_Delete(root);
    (void)snprintf(out->name, sizeof(out->name), "%s", name);
    (void)snprintf(out->hash, sizeof(out->hash), "%016llx",
                   (unsigned long long)hash_bytes(json, len, 0));
    return status;
}

static enum status load_file(const char *dir, const char *file, struct profile *out,
                             struct error *err)
{
    char path[PATH_BYTES_MAX];
    char name[PROFILE_NAME_BYTES];
    size_t len = strlen(file) - strlen(".json");
    if (len == 0 || len >= sizeof(name)) {
        return error_set(err, STATUS_INVALID, "profile file %.100s: name too long", file);
    }
    memcpy(name, file, len);
    name[len] = '\0';
    enum status status = path_join(path, dir, file, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct buf text;
    buf_init(&text, PROFILE_MAX_BYTES);
    status = file_read(path, &text, err);
    if (status == STATUS_OK) {
        status = profile_parse(buf_text(&text), text.len, name, out, err);
    }
    buf_free(&text);
    return status;
}

static bool is_profile_file(const char *name)
{
    size_t len = strlen(name);
    return name[0] != '.' && len > 5 && strcmp(name + len - 5, ".json") == 0 &&
           strstr(name, ".schema.") == NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct profile *)a)->name, ((const struct profile *)b)->name);
}

/* The file's profile replaces the built-in one of the same name. */
static enum status add_file(struct profile_set *set, const char *dir, const char *file,
                            struct error *err)
{
    struct profile profile;
    enum status status = load_file(dir, file, &profile, err);
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < set->n; i++) {
        if (strcmp(set->profiles[i].name, profile.name) == 0) {
            set->profiles[i] = profile;
            return STATUS_OK;
        }
    }
    if (set->n == PROFILES_MAX) {
        return error_set(err, STATUS_LIMIT, "more than %d profiles in %s", PROFILES_MAX, dir);
    }
    set->profiles[set->n++] = profile;
    return STATUS_OK;
}

enum status profile_set_load(const char *dir, struct profile_set *out, struct error *err)
{
    out->n = 0;
    out->profiles = mem_calloc(PROFILES_MAX, sizeof(*out->profiles));
    if (out->profiles == NULL) {
        return error_set(err, STATUS_NOMEM, "ranking profiles");
    }
    profile_default(&out->profiles[out->n++]);
    DIR *folder = dir != NULL ? opendir(dir) : NULL;
    if (folder == NULL) {
        if (dir == NULL || errno == ENOENT) {
            return STATUS_OK;
        }
        enum status status = error_set_errno(err, "opening %s", dir);
        profile_set_free(out);
        return status;
    }
    enum status status = STATUS_OK;
    const struct dirent *entry;
    while (status == STATUS_OK) {
        /* Safe in glibc: no other thread has this stream. NOLINTNEXTLINE(concurrency-mt-unsafe) */
        entry = readdir(folder);
        if (entry == NULL) {
            break;
        }
        if (is_profile_file(entry->d_name)) {
            status = add_file(out, dir, entry->d_name, err);
        }
    }
    (void)closedir(folder);
    if (status != STATUS_OK) {
        profile_set_free(out);
        return status;
    }
    qsort(out->profiles, out->n, sizeof(*out->profiles), compare_names);
    return STATUS_OK;
}

const struct profile *profile_find(const struct profile_set *set, const char *name)
{
    for (size_t i = 0; i < set->n; i++) {
        if (strcmp(set->profiles[i].name, name) == 0) {
            return &set->profiles[i];
        }
    }
    return NULL;
}

void profile_set_free(struct profile_set *set)
{
    mem_free(set->profiles);
    *set = (struct profile_set){NULL, 0};
}
