#include "store/table_internal.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/parse.h"

/* One line of a JSON Lines file → fields.
 *
 * cJSON builds the tree, after a scan of the bytes that does what cJSON does not: it bounds the
 * nesting (cJSON recurses), refuses \u0000 (cJSON would end the string there), and notes where each
 * number stands. cJSON keeps numbers as doubles, which would silently change an id such as
 * 9007199254740993; the tree is walked in the order of the text, so the n-th number met is the n-th
 * one noted, and its source text is the field's text. */

#define ATTRIBUTES_MEMBER "attributes"
#define ATTRIBUTES_PREFIX "attributes."
enum { NUMBERS_MIN = 64 };

struct span {
    const char *text;
    size_t len;
};

struct json_line {
    cJSON *tree;          /* of the line read last */
    struct span *numbers; /* in the order of the text */
    size_t n_numbers;
    size_t numbers_cap;
    size_t next_number;
};

/* Where the members of an object go. */
struct members {
    struct json_line *json;
    struct arena *arena;
    struct table_field *fields;
    size_t n;
    struct error *err;
};

enum status json_line_open(struct json_line **out)
{
    *out = mem_calloc(1, sizeof(**out));
    return *out != NULL ? STATUS_OK : STATUS_NOMEM;
}

void json_line_close(struct json_line *json)
{
    if (json == NULL)
        return;
    cJSON_Delete(json->tree);
    mem_free(json->numbers);
    mem_free(json);
}

static enum status note_number(struct json_line *json, const char *text, size_t len,
                               struct error *err)
{
    if (json->n_numbers == json->numbers_cap) {
        size_t cap = json->numbers_cap == 0 ? NUMBERS_MIN : 2 * json->numbers_cap;
        struct span *numbers = mem_realloc_array(json->numbers, cap, sizeof(*numbers));
        if (numbers == NULL)
            return error_set(err, STATUS_NOMEM, "no memory for a line");
        json->numbers = numbers;
        json->numbers_cap = cap;
    }
    json->numbers[json->n_numbers++] = (struct span){text, len};
    return STATUS_OK;
}

/* Bytes of the string literal at text, with its quotes; 0 when it does not end or holds \u0000. */
static size_t string_length(const char *text, size_t len, struct error *err)
{
    size_t at = 1;
    while (at < len && text[at] != '"') {
        if (text[at] == '\\' && len - at >= 6 && memcmp(text + at, "\\u0000", 6) == 0) {
            (void)error_set(err, STATUS_INVALID, "a string holds a NUL character");
            return 0;
        }
        at += text[at] == '\\' ? 2 : 1;
    }
    if (at >= len) {
        (void)error_set(err, STATUS_INVALID, "not valid JSON: a string does not end");
        return 0;
    }
    return at + 1;
}

static size_t number_length(const char *text, size_t len)
{
    size_t n = 1;
    while (n < len && ((text[n] >= '0' && text[n] <= '9') || strchr("+-.eE", text[n]) != NULL))
        n++;
    return n;
}

static enum status scan(struct json_line *json, const char *line, size_t len, struct error *err)
{
    size_t depth = 0;
    size_t at = 0;
    json->n_numbers = 0;
    while (at < len) {
        char c = line[at];
        size_t n = 1;
        if (c == '"') {
            n = string_length(line + at, len - at, err);
            if (n == 0)
                return STATUS_INVALID;
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            n = number_length(line + at, len - at);
            enum status status = note_number(json, line + at, n, err);
            if (status != STATUS_OK)
                return status;
        } else if (c == '{' || c == '[') {
            if (++depth > TABLE_JSON_DEPTH_MAX)
                return error_set(err, STATUS_INVALID, "nested deeper than %d levels",
                                 TABLE_JSON_DEPTH_MAX);
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
        at += n;
    }
    return STATUS_OK;
}

static enum status put_field(struct members *members, const char *name,
                             const struct table_field *value)
{
    if (members->n == TABLE_COLUMNS_MAX)
        return error_set_field(members->err, STATUS_LIMIT, name, "more than %d members",
                               TABLE_COLUMNS_MAX);
    members->fields[members->n] = *value;
    members->fields[members->n].name = name;
    members->n++;
    return STATUS_OK;
}

static enum status put_number(struct members *members, const char *name)
{
    const struct span *number = &members->json->numbers[members->json->next_number++];
    double value = 0;
    if (!parse_double(number->text, number->len, &value))
        return error_set_field(members->err, STATUS_INVALID, name,
                               "%.40s: the number is malformed or out of range", name);
    const char *text = arena_strndup(members->arena, number->text, number->len);
    if (text == NULL)
        return error_set(members->err, STATUS_NOMEM, "no memory for a line");
    struct table_field field = {.text = text, .len = number->len};
    return put_field(members, name, &field);
}

static enum status put_value(struct members *members, const char *name, const cJSON *value)
{
    if (cJSON_IsNull(value))
        return STATUS_OK;
    if (cJSON_IsNumber(value))
        return put_number(members, name);
    if (cJSON_IsString(value)) {
        struct table_field field = {
            .text = value->valuestring, .len = strlen(value->valuestring), .quoted = true};
        return put_field(members, name, &field);
    }
    if (cJSON_IsBool(value)) {
        const char *text = cJSON_IsTrue(value) ? "true" : "false";
        struct table_field field = {.text = text, .len = strlen(text)};
        return put_field(members, name, &field);
    }
    return error_set_field(members->err, STATUS_INVALID, name,
                           "%.40s: %s cannot be a value; write a text, a number or a bool", name,
                           cJSON_IsArray(value) ? "an array" : "an object");
}

static const char *prefixed_name(struct arena *arena, const char *name)
{
    size_t n_bytes = sizeof(ATTRIBUTES_PREFIX) + strlen(name);
    char *joined = arena_alloc(arena, n_bytes);
    if (joined != NULL)
        (void)snprintf(joined, n_bytes, "%s%s", ATTRIBUTES_PREFIX, name);
    return joined;
}

static enum status put_attributes(struct members *members, const cJSON *object)
{
    const cJSON *member = NULL;
    cJSON_ArrayForEach (member, object) {
        const char *name = prefixed_name(members->arena, member->string);
        if (name == NULL)
            return error_set(members->err, STATUS_NOMEM, "no memory for a line");
        enum status status = put_value(members, name, member);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* A member named twice is refused even when one of the two is null. */
static enum status check_names(const cJSON *object, struct error *err)
{
    size_t n = 0;
    for (const cJSON *member = object->child; member != NULL; member = member->next) {
        if (++n > TABLE_COLUMNS_MAX)
            return error_set_field(err, STATUS_LIMIT, member->string, "more than %d members",
                                   TABLE_COLUMNS_MAX);
        if (member->string[0] == '\0')
            return error_set(err, STATUS_INVALID, "a member's name is empty");
        for (const cJSON *other = object->child; other != member; other = other->next) {
            if (strcmp(other->string, member->string) == 0)
                return error_set_field(err, STATUS_INVALID, member->string, "%.40s: named twice",
                                       member->string);
        }
    }
    return STATUS_OK;
}

static enum status put_members(struct members *members, const cJSON *object)
{
    enum status status = check_names(object, members->err);
    const cJSON *nested = NULL;
    for (const cJSON *member = object->child; status == STATUS_OK && member != NULL;
         member = member->next) {
        if (cJSON_IsObject(member) && strcmp(member->string, ATTRIBUTES_MEMBER) == 0) {
            nested = member;
            status = check_names(nested, members->err);
            if (status == STATUS_OK)
                status = put_attributes(members, nested);
        } else {
            status = put_value(members, member->string, member);
        }
    }
    if (status != STATUS_OK || nested == NULL)
        return status;
    /* {"attributes": {"x": 1}, "attributes.x": 2} */
    size_t prefix_len = strlen(ATTRIBUTES_PREFIX);
    for (const cJSON *member = object->child; member != NULL; member = member->next) {
        if (strncmp(member->string, ATTRIBUTES_PREFIX, prefix_len) == 0 &&
            cJSON_GetObjectItemCaseSensitive(nested, member->string + prefix_len) != NULL)
            return error_set_field(members->err, STATUS_INVALID, member->string,
                                   "%.40s: named twice", member->string);
    }
    return STATUS_OK;
}

static bool is_blank(const char *text, const char *end)
{
    while (text < end && strchr(" \t\r", *text) != NULL && *text != '\0')
        text++;
    return text == end;
}

enum status json_line_parse(struct json_line *json, const char *line, size_t len,
                            struct json_fields *out, struct error *err)
{
    out->n = 0;
    cJSON_Delete(json->tree);
    json->tree = NULL;
    json->next_number = 0;
    enum status status = scan(json, line, len, err);
    if (status != STATUS_OK)
        return status;
    const char *end = NULL;
    json->tree = cJSON_ParseWithLengthOpts(line, len, &end, false);
    if (json->tree == NULL)
        return error_set(err, STATUS_INVALID, "not valid JSON near byte %zu",
                         end != NULL && end >= line ? (size_t)(end - line) + 1 : (size_t)1);
    if (!is_blank(end, line + len))
        return error_set(err, STATUS_INVALID, "more than one JSON value in a line, at byte %zu",
                         (size_t)(end - line) + 1);
    if (!cJSON_IsObject(json->tree))
        return error_set(err, STATUS_INVALID, "not a JSON object");
    struct members members = {.json = json, .arena = out->arena, .fields = out->fields, .err = err};
    status = put_members(&members, json->tree);
    if (status == STATUS_OK)
        out->n = members.n;
    return status;
}
