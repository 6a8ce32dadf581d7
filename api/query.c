#include "api/query.h"

#include <string.h>

#include "base/json_write.h"
#include "base/parse.h"

/* A parameter of the GET forms: how its text becomes a JSON value. */
enum parameter_kind {
    PARAMETER_TEXT,
    PARAMETER_NUMBER, /* copied as it is, once it proves to be a number */
    PARAMETER_BOOL,
    PARAMETER_LIST, /* comma-separated texts */
    PARAMETER_UNDER,
    PARAMETER_AT_MOST,
    PARAMETER_IN_STOCK,
};

struct parameter {
    const char *name;
    enum parameter_kind kind;
};

static const struct parameter PARAMETERS[] = {
    {"limit", PARAMETER_NUMBER},      {"user_id", PARAMETER_TEXT},
    {"session_id", PARAMETER_TEXT},   {"after", PARAMETER_TEXT},
    {"exclude_seen", PARAMETER_TEXT}, {"consent", PARAMETER_BOOL},
    {"diversity", PARAMETER_NUMBER},  {"profile", PARAMETER_TEXT},
    {"fields", PARAMETER_LIST},       {"explain", PARAMETER_BOOL},
    {"timeout_ms", PARAMETER_NUMBER}, {"category", PARAMETER_UNDER},
    {"price_max", PARAMETER_AT_MOST}, {"in_stock", PARAMETER_IN_STOCK},
    {"exclude", PARAMETER_LIST},
};
enum { N_PARAMETERS = sizeof(PARAMETERS) / sizeof(PARAMETERS[0]), FILTER_BYTES_MAX = 1 << 15 };

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

enum status percent_decode(const char *text, size_t len, enum percent_kind kind, char *out,
                           size_t out_size, size_t *out_len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 2 < len ? hex_digit(text[i + 1]) : -1;
            int low = i + 2 < len ? hex_digit(text[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return STATUS_INVALID;
            }
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && kind == PERCENT_QUERY) {
            c = ' ';
        }
        if (n + 1 >= out_size) {
            return STATUS_LIMIT;
        }
        out[n++] = c;
    }
    out[n] = '\0';
    *out_len = n;
    return utf8_valid(out, n) ? STATUS_OK : STATUS_INVALID;
}

/* Two objects written side by side: the request and the conditions of its filter. */
struct query_writer {
    struct json_writer request;
    struct json_writer conditions;
    struct error *err;
};

static enum status bad_value(const struct query_writer *writer, const char *name, const char *what)
{
    return error_set_field(writer->err, STATUS_INVALID, name, "%s must be %s", name, what);
}

static void condition_begins(struct json_writer *json, const char *field)
{
    json_begin_object(json, NULL);
    json_string(json, "field", field);
}

static void write_list(struct json_writer *json, const char *name, const char *value)
{
    json_begin_array(json, name);
    while (value != NULL) {
        const char *comma = strchr(value, ',');
        size_t len = comma != NULL ? (size_t)(comma - value) : strlen(value);
        json_string_n(json, NULL, value, len);
        value = comma != NULL ? comma + 1 : NULL;
    }
    json_end_array(json);
}

static enum status write_parameter(struct query_writer *writer, const struct parameter *parameter,
                                   const char *value, size_t len)
{
    struct json_writer *json = &writer->request;
    struct json_writer *conditions = &writer->conditions;
    double number = 0.0;
    bool flag = false;
    const char *name = parameter->name;
    switch (parameter->kind) {
    case PARAMETER_TEXT:
        json_string_n(json, name, value, len);
        return STATUS_OK;
    case PARAMETER_LIST:
        write_list(json, name, value);
        return STATUS_OK;
    case PARAMETER_UNDER:
        condition_begins(conditions, "category");
        json_string_n(conditions, "under", value, len);
        json_end_object(conditions);
        return STATUS_OK;
    case PARAMETER_NUMBER:
    case PARAMETER_AT_MOST:
        if (!parse_double(value, len, &number)) {
            return bad_value(writer, name, "a number");
        }
        if (parameter->kind == PARAMETER_NUMBER) {
            json_double(json, name, number);
            return STATUS_OK;
        }
        condition_begins(conditions, "price");
        json_double(conditions, "lte", number);
        json_end_object(conditions);
        return STATUS_OK;
    case PARAMETER_BOOL:
    case PARAMETER_IN_STOCK:
        if (!parse_bool(value, len, &flag)) {
            return bad_value(writer, name, "true or false");
        }
        if (parameter->kind == PARAMETER_BOOL) {
            json_bool(json, name, flag);
        } else if (flag) {
            condition_begins(conditions, "stock");
            json_int(conditions, "gt", 0);
            json_end_object(conditions);
        }
        return STATUS_OK;
    }
    return STATUS_OK;
}

static const struct parameter *find_parameter(const char *name)
{
    for (size_t i = 0; i < N_PARAMETERS; i++) {
        if (strcmp(PARAMETERS[i].name, name) == 0) {
            return &PARAMETERS[i];
        }
    }
    return NULL;
}

static enum status read_pair(struct query_writer *writer, const struct query_subject *subject,
                             const char *pair, size_t len, uint32_t *seen)
{
    char name[ERROR_FIELD_BYTES];
    char value[QUERY_VALUE_MAX_BYTES + 1];
    size_t name_len = 0;
    size_t value_len = 0;
    const char *equals = memchr(pair, '=', len);
    size_t raw_name_len = equals != NULL ? (size_t)(equals - pair) : len;
    if (percent_decode(pair, raw_name_len, PERCENT_QUERY, name, sizeof(name), &name_len) !=
        STATUS_OK) {
        return error_set(writer->err, STATUS_INVALID, "a query parameter has a malformed name");
    }
    const struct parameter *parameter = find_parameter(name);
    if (parameter == NULL || (subject->user_id != NULL && strcmp(name, "user_id") == 0)) {
        return error_set_field(writer->err, STATUS_INVALID, name, "unknown query parameter \"%s\"",
                               name);
    }
    size_t raw_value_len = equals != NULL ? len - raw_name_len - 1 : 0;
    if (percent_decode(pair + len - raw_value_len, raw_value_len, PERCENT_QUERY, value,
                       sizeof(value), &value_len) != STATUS_OK) {
        return bad_value(writer, name, "percent-encoded UTF-8 of a reasonable length");
    }
    uint32_t bit = UINT32_C(1) << (parameter - PARAMETERS);
    if ((*seen & bit) != 0) {
        return error_set_field(writer->err, STATUS_INVALID, name, "repeated query parameter \"%s\"",
                               name);
    }
    *seen |= bit;
    /* A form sends its empty conditions along; an empty limit is a client's mistake. */
    bool may_be_empty = parameter->kind != PARAMETER_NUMBER && parameter->kind != PARAMETER_BOOL;
    return value_len == 0 && may_be_empty ? STATUS_OK
                                          : write_parameter(writer, parameter, value, value_len);
}

static enum status read_pairs(struct query_writer *writer, const struct query_subject *subject,
                              const char *query)
{
    uint32_t seen = 0;
    while (query != NULL) {
        size_t len = strcspn(query, "&");
        if (len > 0) {
            enum status status = read_pair(writer, subject, query, len, &seen);
            if (status != STATUS_OK) {
                return status;
            }
        }
        query = query[len] == '&' ? query + len + 1 : NULL;
    }
    return STATUS_OK;
}

enum status query_to_json(const char *query, const struct query_subject *subject, struct buf *out,
                          struct error *err)
{
    struct query_writer writer = {.err = err};
    struct buf filter;
    buf_init(&filter, FILTER_BYTES_MAX);
    json_writer_init(&writer.request, out);
    json_writer_init(&writer.conditions, &filter);
    json_begin_object(&writer.request, NULL);
    json_string(&writer.request, "scenario", subject->scenario);
    if (subject->user_id != NULL) {
        json_string(&writer.request, "user_id", subject->user_id);
    }
    if (subject->item_id != NULL) {
        json_begin_array(&writer.request, "items");
        json_string(&writer.request, NULL, subject->item_id);
        json_end_array(&writer.request);
    }
    json_begin_array(&writer.conditions, NULL);
    size_t empty_len = filter.len;
    enum status status = read_pairs(&writer, subject, query);
    bool has_conditions = filter.len > empty_len;
    json_end_array(&writer.conditions);
    if (has_conditions && filter.status == STATUS_OK) {
        json_begin_object(&writer.request, "filter");
        json_raw(&writer.request, "all", filter.data, filter.len);
        json_end_object(&writer.request);
    }
    json_end_object(&writer.request);
    if (status == STATUS_OK && (filter.status != STATUS_OK || out->status != STATUS_OK)) {
        status = error_set(err, filter.status != STATUS_OK ? filter.status : out->status,
                           "query string: %s", status_text(STATUS_LIMIT));
    }
    buf_free(&filter);
    return status;
}
