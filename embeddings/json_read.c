#include "embeddings/json_read.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/parse.h"

/* cJSON is lenient where a file that nobody vouches for must not be: it takes every byte up to 32
 * for a blank, "01" for a number, keeps equal names, ends a string at an escaped NUL, and builds
 * its tree before anybody can count it. So the text is walked once before (nesting, number of
 * values, characters and numbers by RFC 8259), which also bounds what cJSON will allocate, and the
 * tree's names are compared after. The walk leaves the order of tokens to cJSON, which is strict
 * there. Writing a whole parser instead was rejected: the tree and its escapes are the larger
 * part. */

enum { DEPTH_MAX = 64, FEW_MEMBERS = 16 };
#define WHOLE_NUMBER_END 9007199254740992.0 /* 2^53 */

struct json_doc {
    cJSON *root;
};

struct scan {
    const char *text;
    size_t len;
    size_t pos;
    size_t depth;
    size_t n_values;
    const struct json_limits *limits;
    struct error *err;
};

static enum status scan_fault(struct scan *scan, const char *what)
{
    return error_set(scan->err, STATUS_FORMAT, "JSON: %s at byte %zu", what, scan->pos);
}

/* At an opening quote; leaves the position behind the closing one. cJSON checks the escapes. */
static enum status scan_string(struct scan *scan)
{
    for (scan->pos++; scan->pos < scan->len; scan->pos++) {
        const unsigned char c = (unsigned char)scan->text[scan->pos];
        if (c == '"') {
            scan->pos++;
            return STATUS_OK;
        }
        if (c < 0x20) {
            return scan_fault(scan, "control character in a string");
        }
        if (c == '\\') {
            if (scan->len - scan->pos > 5 && memcmp(scan->text + scan->pos, "\\u0000", 6) == 0) {
                return scan_fault(scan, "NUL character in a string");
            }
            scan->pos++; /* the escaped character cannot close the string */
        }
    }
    return scan_fault(scan, "unfinished string");
}

static size_t scan_digits(struct scan *scan)
{
    const size_t first = scan->pos;
    while (scan->pos < scan->len && scan->text[scan->pos] >= '0' && scan->text[scan->pos] <= '9') {
        scan->pos++;
    }
    return scan->pos - first;
}

static bool scan_one_of(struct scan *scan, const char *characters)
{
    if (scan->pos < scan->len && scan->text[scan->pos] != '\0' &&
        strchr(characters, scan->text[scan->pos]) != NULL) {
        scan->pos++;
        return true;
    }
    return false;
}

/* RFC 8259, section 6. */
static enum status scan_number(struct scan *scan)
{
    (void)scan_one_of(scan, "-");
    const bool zero = scan->pos < scan->len && scan->text[scan->pos] == '0';
    const size_t n_whole = scan_digits(scan);
    bool good = n_whole == 1 || (n_whole > 1 && !zero);
    if (scan_one_of(scan, ".")) {
        good = good && scan_digits(scan) > 0;
    }
    if (scan_one_of(scan, "eE")) {
        (void)scan_one_of(scan, "+-");
        good = good && scan_digits(scan) > 0;
    }
    return good ? STATUS_OK : scan_fault(scan, "malformed number");
}

/* One step over whatever starts at the position. */
static enum status scan_token(struct scan *scan)
{
    const char c = scan->text[scan->pos];
    if (c == '"') {
        return scan_string(scan);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return scan_number(scan);
    }
    if (c == '{' || c == '[') {
        scan->n_values++; /* its first value; each comma announces one more */
        if (++scan->depth > scan->limits->depth_max) {
            return error_set(scan->err, STATUS_LIMIT, "JSON: nested deeper than %zu",
                             scan->limits->depth_max);
        }
    } else if (c == '}' || c == ']') {
        if (scan->depth == 0) {
            return scan_fault(scan, "bracket without its partner");
        }
        scan->depth--;
    } else if (c == ',') {
        scan->n_values++;
    } else if (c == '\0' || strchr(": \t\r\ntruefalsn", c) == NULL) {
        return scan_fault(scan, "unexpected character");
    }
    scan->pos++;
    return STATUS_OK;
}

static enum status scan_text(struct scan *scan)
{
    assert(scan->limits->depth_max <= DEPTH_MAX);
    while (scan->pos < scan->len) {
        const enum status status = scan_token(scan);
        if (status != STATUS_OK) {
            return status;
        }
        if (scan->n_values > scan->limits->n_values_max) {
            return error_set(scan->err, STATUS_LIMIT, "JSON: more than %zu values",
                             scan->limits->n_values_max);
        }
    }
    if (scan->depth != 0) {
        return scan_fault(scan, "unfinished object or array");
    }
    return STATUS_OK;
}

static int compare_names(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;
    return strcmp(*left, *right);
}

static enum status duplicate_found(const char *name, struct error *err)
{
    return error_set(err, STATUS_FORMAT, "JSON: name \"%.64s\" stands twice in an object", name);
}

static enum status refuse_equal_names_of_few(const cJSON *object, struct error *err)
{
    for (const cJSON *a = object->child; a != NULL; a = a->next) {
        for (const cJSON *b = a->next; b != NULL; b = b->next) {
            if (strcmp(a->string, b->string) == 0) {
                return duplicate_found(a->string, err);
            }
        }
    }
    return STATUS_OK;
}

/* Pairwise for the many small objects, sorted for the large ones. */
static enum status refuse_equal_names(const cJSON *object, struct error *err)
{
    const size_t n = (size_t)cJSON_GetArraySize(object);
    if (n <= FEW_MEMBERS) {
        return refuse_equal_names_of_few(object, err);
    }
    const char **names = mem_alloc_array(n, sizeof(*names));
    if (names == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for %zu names", n);
    }
    size_t i = 0;
    for (const cJSON *member = object->child; member != NULL; member = member->next) {
        names[i++] = member->string;
    }
    qsort(names, n, sizeof(*names), compare_names);
    enum status status = STATUS_OK;
    for (i = 1; i < n && status == STATUS_OK; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            status = duplicate_found(names[i], err);
        }
    }
    mem_free(names);
    return status;
}

/* Names and numbers of the whole tree; recursion is bounded by depth_max. */
static enum status check_tree(const cJSON *value, struct error *err)
{
    if (cJSON_IsNumber(value) && !isfinite(value->valuedouble)) {
        return error_set(err, STATUS_FORMAT, "JSON: number out of range");
    }
    if (cJSON_IsObject(value)) {
        const enum status status = refuse_equal_names(value, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    for (const cJSON *child = value->child; child != NULL; child = child->next) {
        const enum status status = check_tree(child, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

enum status json_doc_open(const char *text, size_t len, const struct json_limits *limits,
                          struct json_doc **out, struct error *err)
{
    *out = NULL;
    struct scan scan = {.text = text, .len = len, .limits = limits, .err = err};
    if (!utf8_valid(text, len)) {
        return error_set(err, STATUS_FORMAT, "JSON: invalid UTF-8");
    }
    enum status status = scan_text(&scan);
    if (status != STATUS_OK) {
        return status;
    }
    struct json_doc *doc = mem_alloc(sizeof(*doc));
    if (doc == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a JSON document");
    }
    const char *end = NULL;
    doc->root = cJSON_ParseWithLengthOpts(text, len, &end, 0);
    if (doc->root == NULL) {
        status = error_set(err, STATUS_FORMAT, "JSON: syntax error");
        goto fail_parse;
    }
    for (; end < text + len; end++) {
        if (strchr(" \t\r\n", *end) == NULL) {
            status = error_set(err, STATUS_FORMAT, "JSON: text after the value");
            goto fail_tree;
        }
    }
    status = check_tree(doc->root, err);
    if (status != STATUS_OK) {
        goto fail_tree;
    }
    *out = doc;
    return STATUS_OK;

fail_tree:
    cJSON_Delete(doc->root);
fail_parse:
    mem_free(doc);
    return status;
}

void json_doc_close(struct json_doc *doc)
{
    if (doc != NULL) {
        cJSON_Delete(doc->root);
        mem_free(doc);
    }
}

/* struct json_value is cJSON under a name of ours: the only two places that know. */
static const struct json_value *as_value(const cJSON *item)
{
    return (const struct json_value *)item;
}

static const cJSON *as_item(const struct json_value *value)
{
    return (const cJSON *)(const void *)value;
}

const struct json_value *json_root(const struct json_doc *doc)
{
    return as_value(doc->root);
}

enum json_kind json_kind(const struct json_value *value)
{
    const cJSON *item = as_item(value);
    if (cJSON_IsObject(item)) {
        return JSON_OBJECT;
    }
    if (cJSON_IsArray(item)) {
        return JSON_ARRAY;
    }
    if (cJSON_IsString(item)) {
        return JSON_STRING;
    }
    if (cJSON_IsNumber(item)) {
        return JSON_NUMBER;
    }
    return cJSON_IsBool(item) ? JSON_BOOL : JSON_NULL;
}

const struct json_value *json_first(const struct json_value *value)
{
    return as_value(as_item(value)->child);
}

const struct json_value *json_next(const struct json_value *value)
{
    return as_value(as_item(value)->next);
}

const char *json_name(const struct json_value *value)
{
    const char *name = as_item(value)->string;
    return name != NULL ? name : "";
}

const struct json_value *json_member(const struct json_value *object, const char *name)
{
    return as_value(cJSON_GetObjectItemCaseSensitive(as_item(object), name));
}

const char *json_text(const struct json_value *value)
{
    assert(json_kind(value) == JSON_STRING);
    return as_item(value)->valuestring;
}

double json_number(const struct json_value *value)
{
    assert(json_kind(value) == JSON_NUMBER);
    return as_item(value)->valuedouble;
}

bool json_whole_number(const struct json_value *value, uint64_t *out)
{
    if (json_kind(value) != JSON_NUMBER) {
        return false;
    }
    const double number = json_number(value);
    if (!(number >= 0.0) || number >= WHOLE_NUMBER_END || number != floor(number)) {
        return false;
    }
    *out = (uint64_t)number;
    return true;
}

bool json_bool_value(const struct json_value *value, bool *out)
{
    if (json_kind(value) != JSON_BOOL) {
        return false;
    }
    *out = cJSON_IsTrue(as_item(value)) != 0;
    return true;
}
