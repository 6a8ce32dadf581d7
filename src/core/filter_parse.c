/* Filter text → parse tree. Strict: a misspelt member or a value of the wrong kind is an error that
 * names its path, because a filter that silently matches everything shows a shop's visitors what
 * they must not see. */
#include "core/filter_internal.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json_scan.h"
#include "base/parse.h"

/* Each filter level is an object inside an array inside an object. */
enum { JSON_LEVELS_MAX = 2 * FILTER_DEPTH_MAX + 4 };

static const char *const OP_NAMES[N_FILTER_OPS] = {"eq", "ne",  "in",     "lt",   "lte",
                                                   "gt", "gte", "exists", "under"};

struct parser {
    struct arena *arena;
    struct error *err;
    size_t n_conditions;
    size_t n_values;
    char path[ERROR_FIELD_BYTES];
};

static enum status parse_node(struct parser *parser, const cJSON *json, size_t depth,
                              struct filter_node **out);

static enum status fail(struct parser *parser, enum status code, const char *message)
{
    return error_set_field(parser->err, code, parser->path, "%s: %s", parser->path, message);
}

static enum status fail_nomem(struct parser *parser)
{
    return error_set(parser->err, STATUS_NOMEM, "memory of a filter");
}

/* Puts ".name", or "[index]" where there is no name, behind the path; returns the length to cut it
 * back to. */
static size_t path_push(struct parser *parser, const char *name, int index)
{
    size_t len = strlen(parser->path);
    size_t room = sizeof(parser->path) - len;
    if (name == NULL) {
        (void)snprintf(parser->path + len, room, "[%d]", index);
    } else {
        (void)snprintf(parser->path + len, room, ".%s", name);
    }
    return len;
}

static bool find_op(const char *name, enum filter_op *op)
{
    for (int i = 0; i < N_FILTER_OPS; i++) {
        if (strcmp(name, OP_NAMES[i]) == 0) {
            *op = (enum filter_op)i;
            return true;
        }
    }
    return false;
}

enum field_kind { FIELD_OF_TEXT, FIELD_OF_NUMBER, FIELD_OF_TIME, FIELD_OF_ANY, FIELD_UNKNOWN };

static enum field_kind field_kind(const char *field)
{
    static const struct {
        const char *name;
        enum field_kind kind;
    } fields[] = {{"id", FIELD_OF_TEXT},        {"category", FIELD_OF_TEXT},
                  {"brand", FIELD_OF_TEXT},     {"price", FIELD_OF_NUMBER},
                  {"stock", FIELD_OF_NUMBER},   {"popularity", FIELD_OF_NUMBER},
                  {"created_at", FIELD_OF_TIME}};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (strcmp(field, fields[i].name) == 0) {
            return fields[i].kind;
        }
    }
    static const char prefix[] = "attributes.";
    bool attribute = strncmp(field, prefix, sizeof(prefix) - 1) == 0 && field[sizeof(prefix) - 1];
    return attribute ? FIELD_OF_ANY : FIELD_UNKNOWN;
}

static enum status parse_value(struct parser *parser, const cJSON *json, enum field_kind kind,
                               struct filter_value *out)
{
    if (++parser->n_values > FILTER_VALUES_MAX) {
        return fail(parser, STATUS_LIMIT, "too many values");
    }
    if (cJSON_IsString(json)) {
        size_t len = strlen(json->valuestring);
        int64_t time_ms;
        if (kind == FIELD_OF_TIME && parse_time_ms(json->valuestring, len, &time_ms)) {
            *out = (struct filter_value){FILTER_NUMBER, NULL, (double)time_ms};
            return STATUS_OK;
        }
        if (kind == FIELD_OF_NUMBER || kind == FIELD_OF_TIME) {
            return fail(parser, STATUS_INVALID,
                        kind == FIELD_OF_TIME ? "must be a time" : "must be a number");
        }
        out->type = FILTER_TEXT;
        out->number = 0.0;
        out->text = arena_strndup(parser->arena, json->valuestring, len);
        return out->text != NULL ? STATUS_OK : fail_nomem(parser);
    }
    if (kind == FIELD_OF_TEXT) {
        return fail(parser, STATUS_INVALID, "must be a string");
    }
    if (cJSON_IsNumber(json) && isfinite(json->valuedouble)) {
        *out = (struct filter_value){FILTER_NUMBER, NULL, json->valuedouble};
        return STATUS_OK;
    }
    if (cJSON_IsBool(json) && kind == FIELD_OF_ANY) {
        *out = (struct filter_value){FILTER_BOOL, NULL, cJSON_IsTrue(json) ? 1.0 : 0.0};
        return STATUS_OK;
    }
    return fail(parser, STATUS_INVALID,
                kind == FIELD_OF_ANY ? "must be a string, a number or a boolean"
                                     : "must be a number");
}

static enum status parse_value_list(struct parser *parser, const cJSON *json, enum field_kind kind,
                                    struct filter_node *node)
{
    if (!cJSON_IsArray(json)) {
        return fail(parser, STATUS_INVALID, "must be an array");
    }
    size_t n = (size_t)cJSON_GetArraySize(json);
    node->values = arena_alloc_array(parser->arena, n + 1, sizeof(*node->values));
    if (node->values == NULL) {
        return fail_nomem(parser);
    }
    const cJSON *element;
    cJSON_ArrayForEach (element, json) {
        size_t len = path_push(parser, NULL, (int)node->n_values);
        enum status status = parse_value(parser, element, kind, &node->values[node->n_values]);
        if (status != STATUS_OK) {
            return status;
        }
        parser->path[len] = '\0';
        node->n_values++;
    }
    return STATUS_OK;
}

static enum status check_op(struct parser *parser, const struct filter_node *node,
                            enum field_kind kind)
{
    bool orders = node->op >= FILTER_LT && node->op <= FILTER_GTE;
    if (orders && kind == FIELD_OF_TEXT) {
        return fail(parser, STATUS_INVALID, "compares numbers and times only");
    }
    if (node->op == FILTER_UNDER && strcmp(node->field, "category") != 0) {
        return fail(parser, STATUS_INVALID, "is for category");
    }
    if (strcmp(node->field, "id") == 0 && node->op == FILTER_EXISTS) {
        return fail(parser, STATUS_INVALID, "every item has an id");
    }
    return STATUS_OK;
}

static enum status parse_operand(struct parser *parser, const cJSON *json, enum field_kind kind,
                                 struct filter_node *node)
{
    enum status status = check_op(parser, node, kind);
    if (status != STATUS_OK) {
        return status;
    }
    if (node->op == FILTER_IN) {
        return parse_value_list(parser, json, kind, node);
    }
    node->values = arena_alloc(parser->arena, sizeof(*node->values));
    if (node->values == NULL) {
        return fail_nomem(parser);
    }
    node->n_values = 1;
    if (node->op == FILTER_EXISTS) {
        if (!cJSON_IsBool(json)) {
            return fail(parser, STATUS_INVALID, "must be true or false");
        }
        node->values[0] = (struct filter_value){FILTER_BOOL, NULL, cJSON_IsTrue(json) ? 1.0 : 0.0};
        return STATUS_OK;
    }
    return parse_value(parser, json, kind, &node->values[0]);
}

static enum status parse_condition(struct parser *parser, const cJSON *json,
                                   struct filter_node *node)
{
    const cJSON *field = cJSON_GetObjectItemCaseSensitive(json, "field");
    if (!cJSON_IsString(field)) {
        return fail(parser, STATUS_INVALID,
                    "a filter has all, any or not, or a field with one comparison");
    }
    enum field_kind kind = field_kind(field->valuestring);
    if (kind == FIELD_UNKNOWN) {
        return fail(parser, STATUS_INVALID, "there is no such field");
    }
    if (++parser->n_conditions > FILTER_CONDITIONS_MAX) {
        return fail(parser, STATUS_LIMIT, "too many conditions");
    }
    node->kind = FILTER_CONDITION;
    node->field = arena_strndup(parser->arena, field->valuestring, strlen(field->valuestring));
    if (node->field == NULL) {
        return fail_nomem(parser);
    }
    size_t n_ops = 0;
    const cJSON *member;
    cJSON_ArrayForEach (member, json) {
        if (member == field) {
            continue;
        }
        size_t len = path_push(parser, member->string, 0);
        if (!find_op(member->string, &node->op)) {
            return fail(parser, STATUS_INVALID, "unknown comparison");
        }
        if (++n_ops > 1) {
            return fail(parser, STATUS_INVALID, "one comparison a condition");
        }
        enum status status = parse_operand(parser, member, kind, node);
        if (status != STATUS_OK) {
            return status;
        }
        parser->path[len] = '\0';
    }
    return n_ops == 1 ? STATUS_OK : fail(parser, STATUS_INVALID, "a comparison is missing");
}

static enum status parse_children(struct parser *parser, const cJSON *json, size_t depth,
                                  struct filter_node *node)
{
    if (!cJSON_IsArray(json)) {
        return fail(parser, STATUS_INVALID, "must be an array of filters");
    }
    size_t n = (size_t)cJSON_GetArraySize(json);
    node->children = arena_alloc_array(parser->arena, n + 1, sizeof(struct filter_node *));
    if (node->children == NULL) {
        return fail_nomem(parser);
    }
    const cJSON *element;
    cJSON_ArrayForEach (element, json) {
        size_t len = path_push(parser, NULL, (int)node->n_children);
        enum status status =
            parse_node(parser, element, depth + 1, &node->children[node->n_children]);
        if (status != STATUS_OK) {
            return status;
        }
        parser->path[len] = '\0';
        node->n_children++;
    }
    return STATUS_OK;
}

static enum status parse_not(struct parser *parser, const cJSON *json, size_t depth,
                             struct filter_node *node)
{
    node->children = arena_alloc(parser->arena, sizeof(struct filter_node *));
    if (node->children == NULL) {
        return fail_nomem(parser);
    }
    node->n_children = 1;
    return parse_node(parser, json, depth + 1, &node->children[0]);
}

static enum status parse_node(struct parser *parser, const cJSON *json, size_t depth,
                              struct filter_node **out)
{
    if (!cJSON_IsObject(json)) {
        return fail(parser, STATUS_INVALID, "must be an object");
    }
    if (depth > FILTER_DEPTH_MAX) {
        return fail(parser, STATUS_LIMIT, "nested too deep");
    }
    struct filter_node *node = arena_calloc(parser->arena, 1, sizeof(*node));
    if (node == NULL) {
        return fail_nomem(parser);
    }
    *out = node;
    const cJSON *first = json->child;
    const char *name = first != NULL ? first->string : "";
    bool is_all = strcmp(name, "all") == 0;
    bool is_any = strcmp(name, "any") == 0;
    bool is_not = strcmp(name, "not") == 0;
    if (!is_all && !is_any && !is_not) {
        return parse_condition(parser, json, node);
    }
    if (first->next != NULL) {
        (void)path_push(parser, first->next->string, 0);
        return fail(parser, STATUS_INVALID, "stands beside all, any or not");
    }
    node->kind = is_all ? FILTER_ALL : is_any ? FILTER_ANY : FILTER_NOT;
    size_t len = path_push(parser, name, 0);
    enum status status =
        is_not ? parse_not(parser, first, depth, node) : parse_children(parser, first, depth, node);
    if (status == STATUS_OK) {
        parser->path[len] = '\0';
    }
    return status;
}

enum status filter_parse(const char *json, size_t len, struct arena *arena,
                         struct filter_node **out, struct error *err)
{
    struct parser parser = {.arena = arena, .err = err, .path = "filter"};
    *out = NULL;
    if (len > FILTER_TEXT_MAX_BYTES) {
        return fail(&parser, STATUS_LIMIT, "the filter's text is too long");
    }
    struct json_scan scan = {
        .text = json, .len = len, .depth_max = JSON_LEVELS_MAX, .values_max = JSON_VALUES_MAX};
    struct error reason;
    if (json_scan(&scan, &reason) != STATUS_OK) {
        return fail(&parser, STATUS_INVALID, reason.message);
    }
    cJSON *root = cJSON_ParseWithLength(json, len);
    enum status status = root != NULL ? parse_node(&parser, root, 1, out) : fail_nomem(&parser);
    cJSON_Delete(root);
    return status;
}
