#include "store/manifest.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json_scan.h"
#include "base/json_write.h"
#include "base/parse.h"
#include "base/vectors.h"
#include "store/release.h"

/* manifest.json: what a release consists of and what was measured when it was built.
 *
 * Reading is strict, because everything that a server loads hangs on it: every known member's type
 * and range is checked, names of files may not leave the release's folder, a member or file given
 * twice is refused. Members that this version does not know are passed over: fields may be added
 * without a new format version. json_scan sees the text first; cJSON takes the first of two equal
 * members, so equal names are looked for after.
 *
 * Writing encodes compactly, reads the result back with the same strict reader (what we write, we
 * can open), and prints it with one member a line for people. The format is a JSON object:
 *   format_version, version, created_at, n_items, dim, vector_type,
 *   model {architecture, settings}, index {factory, parameters},
 *   measured, training, quality, drift_baseline (objects, optional),
 *   files [{name, bytes, sha256}] */

enum { MANIFEST_DEPTH_MAX = 24, MANIFEST_MEMBERS_MAX = 256 };
static const double N_ITEMS_MAX = 4294967294.0; /* rows are 32 bits, one value means "none" */
static const double EXACT_INTEGER_MAX = 9007199254740992.0; /* 2^53: exact in a JSON number */
static const char *const VECTOR_TYPES[] = {"F32", "F16"};

void manifest_init(struct manifest *manifest)
{
    memset(manifest, 0, sizeof *manifest);
    manifest->format_version = MANIFEST_FORMAT_VERSION;
}

void manifest_free(struct manifest *manifest)
{
    if (manifest == NULL) {
        return;
    }
    mem_free(manifest->model_settings_json);
    mem_free(manifest->measured_json);
    mem_free(manifest->training_json);
    mem_free(manifest->quality_json);
    mem_free(manifest->drift_baseline_json);
    manifest_init(manifest);
}

/* ---- checks on values ---- */

static enum status fault(struct error *err, const char *member, const char *what)
{
    return error_set_field(err, STATUS_FORMAT, member, "manifest: \"%s\" %s", member, what);
}

static bool file_name_valid(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len >= MANIFEST_NAME_BYTES || name[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c == '/' || c == '\\' || c < 0x20 || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool sha256_valid(const char *hex)
{
    return strlen(hex) == SHA256_HEX_BYTES - 1 &&
           strspn(hex, "0123456789abcdef") == SHA256_HEX_BYTES - 1;
}

/* Refuses an object with a name twice or with absurdly many members, which also bounds the time of
 * this quadratic search. where names the object. */
static enum status check_members(const cJSON *object, const char *where, struct error *err)
{
    const cJSON *member = NULL;
    if (cJSON_GetArraySize(object) > MANIFEST_MEMBERS_MAX) {
        return error_set_field(err, STATUS_FORMAT, where, "manifest: %s has over %d members", where,
                               MANIFEST_MEMBERS_MAX);
    }
    cJSON_ArrayForEach (member, object) {
        for (const cJSON *other = member->next; other != NULL; other = other->next) {
            if (strcmp(member->string, other->string) == 0) {
                return error_set_field(err, STATUS_FORMAT, member->string,
                                       "manifest: %s gives \"%.60s\" twice", where, member->string);
            }
        }
    }
    return STATUS_OK;
}

/* ---- typed members ---- */

static enum status get_text(const cJSON *object, const char *name, const char *path, char *out,
                            size_t out_bytes, struct error *err)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, name);
    if (member == NULL) {
        return fault(err, path, "is missing");
    }
    if (!cJSON_IsString(member)) {
        return fault(err, path, "is not a string");
    }
    size_t len = strlen(member->valuestring);
    if (len >= out_bytes) {
        return fault(err, path, "is too long");
    }
    memcpy(out, member->valuestring, len + 1);
    return STATUS_OK;
}

static enum status get_integer(const cJSON *object, const char *name, const char *path,
                               double max_value, uint64_t *out, struct error *err)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, name);
    if (member == NULL) {
        return fault(err, path, "is missing");
    }
    double value = member->valuedouble;
    if (!cJSON_IsNumber(member) || !(value >= 0.0) || value != floor(value)) {
        return fault(err, path, "is not a whole number");
    }
    if (value > max_value) {
        return fault(err, path, "is out of range");
    }
    *out = (uint64_t)value;
    return STATUS_OK;
}

/* An optional object, kept as text. */
static enum status get_object_text(const cJSON *object, const char *name, const char *path,
                                   char **out, struct error *err)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, name);
    if (member == NULL || cJSON_IsNull(member)) {
        return STATUS_OK;
    }
    if (!cJSON_IsObject(member)) {
        return fault(err, path, "is not an object");
    }
    char *printed = cJSON_PrintUnformatted(member);
    if (printed == NULL) {
        return error_set(err, STATUS_NOMEM, "manifest: no memory");
    }
    *out = mem_strdup(printed);
    cJSON_free(printed);
    return *out != NULL ? STATUS_OK : error_set(err, STATUS_NOMEM, "manifest: no memory");
}

static enum status get_object(const cJSON *object, const char *name, const cJSON **out,
                              struct error *err)
{
    *out = cJSON_GetObjectItemCaseSensitive(object, name);
    if (*out == NULL) {
        return fault(err, name, "is missing");
    }
    if (!cJSON_IsObject(*out)) {
        return fault(err, name, "is not an object");
    }
    return check_members(*out, name, err);
}

static enum status get_file(const cJSON *entry, size_t i, struct manifest *out, struct error *err)
{
    char path[ERROR_FIELD_BYTES];
    struct manifest_file *file = &out->files[i];
    (void)snprintf(path, sizeof path, "files[%zu]", i);
    if (!cJSON_IsObject(entry)) {
        return fault(err, path, "is not an object");
    }
    enum status status = check_members(entry, path, err);
    if (status != STATUS_OK) {
        return status;
    }
    (void)snprintf(path, sizeof path, "files[%zu].name", i);
    status = get_text(entry, "name", path, file->name, sizeof file->name, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (!file_name_valid(file->name)) {
        return fault(err, path, "is not a plain file name");
    }
    for (size_t k = 0; k < i; k++) {
        if (strcmp(out->files[k].name, file->name) == 0) {
            return fault(err, path, "names a file a second time");
        }
    }
    (void)snprintf(path, sizeof path, "files[%zu].bytes", i);
    status = get_integer(entry, "bytes", path, EXACT_INTEGER_MAX, &file->n_bytes, err);
    if (status != STATUS_OK) {
        return status;
    }
    (void)snprintf(path, sizeof path, "files[%zu].sha256", i);
    status = get_text(entry, "sha256", path, file->sha256, sizeof file->sha256, err);
    if (status != STATUS_OK) {
        return status;
    }
    return sha256_valid(file->sha256) ? STATUS_OK
                                      : fault(err, path, "is not 64 lower-case hex digits");
}

static enum status get_files(const cJSON *root, struct manifest *out, struct error *err)
{
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(root, "files");
    const cJSON *entry = NULL;
    if (files == NULL) {
        return fault(err, "files", "is missing");
    }
    if (!cJSON_IsArray(files)) {
        return fault(err, "files", "is not an array");
    }
    cJSON_ArrayForEach (entry, files) {
        if (out->n_files == MANIFEST_FILES_MAX) {
            return fault(err, "files", "has too many entries");
        }
        enum status status = get_file(entry, out->n_files, out, err);
        if (status != STATUS_OK) {
            return status;
        }
        out->n_files++;
    }
    return STATUS_OK;
}

static enum status get_version(const cJSON *root, struct manifest *out, struct error *err)
{
    uint64_t format_version = 0;
    enum status status = get_integer(root, "format_version", "format_version", EXACT_INTEGER_MAX,
                                     &format_version, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (format_version > MANIFEST_FORMAT_VERSION) {
        return error_set_field(err, STATUS_UNSUPPORTED, "format_version",
                               "manifest: format version %llu is newer than this program's (%d)",
                               (unsigned long long)format_version, MANIFEST_FORMAT_VERSION);
    }
    if (format_version == 0) {
        return fault(err, "format_version", "is out of range");
    }
    out->format_version = (int)format_version;
    status = get_text(root, "version", "version", out->version, sizeof out->version, err);
    if (status == STATUS_OK && !release_name_valid(out->version)) {
        status = fault(err, "version", "is not a valid name");
    }
    return status;
}

static enum status get_created_at(const cJSON *root, struct manifest *out, struct error *err)
{
    char text[TIME_TEXT_BYTES];
    enum status status = get_text(root, "created_at", "created_at", text, sizeof text, err);
    if (status != STATUS_OK) {
        return status;
    }
    return parse_time_ms(text, strlen(text), &out->created_at_ms)
               ? STATUS_OK
               : fault(err, "created_at", "is not a time");
}

static enum status get_shape(const cJSON *root, struct manifest *out, struct error *err)
{
    enum status status = get_integer(root, "n_items", "n_items", N_ITEMS_MAX, &out->n_items, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = get_integer(root, "dim", "dim", VECTOR_DIM_MAX, &out->dim, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (out->dim < VECTOR_DIM_MIN) {
        return fault(err, "dim", "is out of range");
    }
    status = get_text(root, "vector_type", "vector_type", out->vector_type, sizeof out->vector_type,
                      err);
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < sizeof VECTOR_TYPES / sizeof VECTOR_TYPES[0]; i++) {
        if (strcmp(out->vector_type, VECTOR_TYPES[i]) == 0) {
            return STATUS_OK;
        }
    }
    return fault(err, "vector_type", "is neither F32 nor F16");
}

static enum status get_parts(const cJSON *root, struct manifest *out, struct error *err)
{
    const cJSON *model = NULL;
    const cJSON *index = NULL;
    enum status status = get_object(root, "model", &model, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = get_text(model, "architecture", "model.architecture", out->architecture,
                      sizeof out->architecture, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = get_object_text(model, "settings", "model.settings", &out->model_settings_json, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = get_object(root, "index", &index, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = get_text(index, "factory", "index.factory", out->index_factory,
                      sizeof out->index_factory, err);
    if (status != STATUS_OK) {
        return status;
    }
    return get_text(index, "parameters", "index.parameters", out->index_parameters,
                    sizeof out->index_parameters, err);
}

static enum status get_reports(const cJSON *root, struct manifest *out, struct error *err)
{
    const struct {
        const char *name;
        char **slot;
    } reports[] = {
        {"measured", &out->measured_json},
        {"training", &out->training_json},
        {"quality", &out->quality_json},
        {"drift_baseline", &out->drift_baseline_json},
    };
    for (size_t i = 0; i < sizeof reports / sizeof reports[0]; i++) {
        enum status status =
            get_object_text(root, reports[i].name, reports[i].name, reports[i].slot, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status get_all(const cJSON *root, struct manifest *out, struct error *err)
{
    enum status (*const steps[])(const cJSON *, struct manifest *, struct error *) = {
        get_version, get_created_at, get_shape, get_parts, get_reports, get_files,
    };
    if (!cJSON_IsObject(root)) {
        return error_set(err, STATUS_FORMAT, "manifest: not a JSON object");
    }
    enum status status = check_members(root, "the top level", err);
    for (size_t i = 0; status == STATUS_OK && i < sizeof steps / sizeof steps[0]; i++) {
        status = steps[i](root, out, err);
    }
    return status;
}

enum status manifest_parse(const char *text, size_t len, struct manifest *out, struct error *err)
{
    manifest_init(out);
    if (len > MANIFEST_MAX_BYTES) {
        return error_set(err, STATUS_LIMIT, "manifest: over %d bytes", MANIFEST_MAX_BYTES);
    }
    struct json_scan scan = {
        .text = text, .len = len, .depth_max = MANIFEST_DEPTH_MAX, .values_max = JSON_VALUES_MAX};
    struct error reason;
    if (json_scan(&scan, &reason) != STATUS_OK) {
        return error_set(err, STATUS_FORMAT, "manifest: %s", reason.message);
    }
    cJSON *root = cJSON_ParseWithLength(text, len);
    if (root == NULL) {
        return error_set(err, STATUS_NOMEM, "manifest: out of memory");
    }
    enum status status = get_all(root, out, err);
    cJSON_Delete(root);
    if (status != STATUS_OK) {
        manifest_free(out);
    }
    return status;
}

enum status manifest_read(const char *path, struct manifest *out, struct error *err)
{
    struct buf text;
    manifest_init(out);
    buf_init(&text, MANIFEST_MAX_BYTES);
    enum status status = file_read(path, &text, err);
    if (status == STATUS_OK) {
        status = manifest_parse(buf_text(&text), text.len, out, err);
        if (status != STATUS_OK) {
            error_prefix(err, "%s: ", path);
        }
    }
    buf_free(&text);
    return status;
}

/* ---- writing ---- */

static void put_object_text(struct json_writer *json, const char *name, const char *text)
{
    if (text != NULL) {
        json_raw(json, name, text, strlen(text));
    }
}

static void encode(const struct manifest *manifest, struct buf *out)
{
    struct json_writer json;
    char created_at[TIME_TEXT_BYTES];
    time_format_rfc3339(manifest->created_at_ms, created_at);
    json_writer_init(&json, out);
    json_begin_object(&json, NULL);
    json_int(&json, "format_version", manifest->format_version);
    json_string(&json, "version", manifest->version);
    json_string(&json, "created_at", created_at);
    json_int(&json, "n_items", (int64_t)manifest->n_items);
    json_int(&json, "dim", (int64_t)manifest->dim);
    json_string(&json, "vector_type", manifest->vector_type);
    json_begin_object(&json, "model");
    json_string(&json, "architecture", manifest->architecture);
    put_object_text(&json, "settings", manifest->model_settings_json);
    json_end_object(&json);
    json_begin_object(&json, "index");
    json_string(&json, "factory", manifest->index_factory);
    json_string(&json, "parameters", manifest->index_parameters);
    json_end_object(&json);
    put_object_text(&json, "measured", manifest->measured_json);
    put_object_text(&json, "training", manifest->training_json);
    put_object_text(&json, "quality", manifest->quality_json);
    put_object_text(&json, "drift_baseline", manifest->drift_baseline_json);
    json_begin_array(&json, "files");
    for (size_t i = 0; i < manifest->n_files; i++) {
        json_begin_object(&json, NULL);
        json_string(&json, "name", manifest->files[i].name);
        json_int(&json, "bytes", (int64_t)manifest->files[i].n_bytes);
        json_string(&json, "sha256", manifest->files[i].sha256);
        json_end_object(&json);
    }
    json_end_array(&json);
    json_end_object(&json);
}

static enum status check_readable(struct buf *text, struct error *err)
{
    struct manifest copy;
    enum status status = manifest_parse(buf_text(text), text->len, &copy, err);
    manifest_free(&copy);
    if (status == STATUS_FORMAT || status == STATUS_UNSUPPORTED) {
        error_prefix(err, "refusing to write a manifest that could not be read: ");
        if (err != NULL) {
            err->code = STATUS_INVALID;
        }
        return STATUS_INVALID;
    }
    return status;
}

enum status manifest_write(const char *path, const struct manifest *manifest, struct error *err)
{
    struct buf text;
    cJSON *tree = NULL;
    char *printed = NULL;
    buf_init(&text, MANIFEST_MAX_BYTES);
    encode(manifest, &text);
    enum status status = text.status;
    if (status != STATUS_OK) {
        (void)error_set(err, status, "manifest: %s", status_text(status));
        goto out;
    }
    status = check_readable(&text, err);
    if (status != STATUS_OK) {
        goto out;
    }
    tree = cJSON_ParseWithLength(buf_text(&text), text.len);
    printed = tree != NULL ? cJSON_Print(tree) : NULL;
    if (printed == NULL) {
        status = error_set(err, STATUS_NOMEM, "manifest: no memory");
        goto out;
    }
    buf_reset(&text);
    buf_append_text(&text, printed);
    buf_append_char(&text, '\n');
    status = text.status;
    if (status != STATUS_OK) {
        (void)error_set(err, status, "manifest: %s", status_text(status));
        goto out;
    }
    status = file_write_atomic(path, text.data, text.len, err);

out:
    if (printed != NULL) {
        cJSON_free(printed);
    }
    cJSON_Delete(tree);
    buf_free(&text);
    return status;
}
