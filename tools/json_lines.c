/* Free-form reports of a manifest, readable. What trainers write is theirs and changes; so nothing
 * here knows a name, only shapes. The one that is worth a table is a curve: several number arrays
 * of one length. Long tables show rows at equal distances, and always the first and the last. */
#include "json_lines.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "embeddings/json_read.h"

enum {
    VALUES_MAX = 1 << 18,
    DEPTH_MAX = 32,
    INDENT = 2,
    CELL_WIDTH = 10,
    TABLE_ROWS_MAX = 16,
    TABLE_COLUMNS_MAX = 12,
    ELEMENTS_MAX = 20, /* of an array that is not of numbers */
    NUMBERS_SHOWN = 8, /* an array of up to so many numbers is printed whole */
};

static void indent_to(struct buf *out, unsigned depth)
{
    for (unsigned i = 0; i < depth * INDENT; i++) {
        buf_append_char(out, ' ');
    }
}

static size_t count(const struct json_value *value)
{
    size_t n = 0;
    for (const struct json_value *v = json_first(value); v != NULL; v = json_next(v)) {
        n++;
    }
    return n;
}

static const struct json_value *element(const struct json_value *array, size_t i)
{
    const struct json_value *value = json_first(array);
    while (i-- > 0) {
        value = json_next(value);
    }
    return value;
}

static void append_number(struct buf *out, double number)
{
    if (number == floor(number) && fabs(number) < 1e15) {
        buf_printf(out, "%.0f", number);
    } else {
        buf_printf(out, "%.6g", number);
    }
}

static bool is_number_array(const struct json_value *value)
{
    if (json_kind(value) != JSON_ARRAY || json_first(value) == NULL) {
        return false;
    }
    for (const struct json_value *v = json_first(value); v != NULL; v = json_next(v)) {
        if (json_kind(v) != JSON_NUMBER) {
            return false;
        }
    }
    return true;
}

static bool is_table(const struct json_value *value)
{
    size_t n_columns = 0;
    if (json_kind(value) != JSON_OBJECT) {
        return false;
    }
    for (const struct json_value *v = json_first(value); v != NULL; v = json_next(v)) {
        if (!is_number_array(v) || count(v) != count(json_first(value))) {
            return false;
        }
        n_columns++;
    }
    return n_columns >= 2 && n_columns <= TABLE_COLUMNS_MAX;
}

static void append_cell(struct buf *out, double number)
{
    struct buf cell;
    buf_init(&cell, 64);
    append_number(&cell, number);
    buf_printf(out, " %*s", CELL_WIDTH, buf_text(&cell));
    buf_free(&cell);
}

static void append_table(struct buf *out, const struct json_value *table, unsigned depth)
{
    size_t n_rows = count(json_first(table));
    size_t n_shown = n_rows < TABLE_ROWS_MAX ? n_rows : TABLE_ROWS_MAX;
    indent_to(out, depth);
    for (const struct json_value *v = json_first(table); v != NULL; v = json_next(v)) {
        buf_printf(out, " %*.24s", CELL_WIDTH, json_name(v));
    }
    buf_append_char(out, '\n');
    for (size_t i = 0; i < n_shown; i++) {
        size_t row = n_shown > 1 ? i * (n_rows - 1) / (n_shown - 1) : 0;
        indent_to(out, depth);
        for (const struct json_value *v = json_first(table); v != NULL; v = json_next(v)) {
            append_cell(out, json_number(element(v, row)));
        }
        buf_append_char(out, '\n');
    }
    if (n_shown < n_rows) {
        indent_to(out, depth);
        buf_printf(out, "  (%zu of %zu rows)\n", n_shown, n_rows);
    }
}

static void append_numbers(struct buf *out, const struct json_value *array)
{
    size_t n = count(array);
    double low = HUGE_VAL;
    double high = -HUGE_VAL;
    double last = 0.0;
    for (const struct json_value *v = json_first(array); v != NULL; v = json_next(v)) {
        last = json_number(v);
        low = fmin(low, last);
        high = fmax(high, last);
        if (n <= NUMBERS_SHOWN) {
            buf_append_text(out, v == json_first(array) ? "" : ", ");
            append_number(out, last);
        }
    }
    if (n > NUMBERS_SHOWN) {
        buf_printf(out, "%zu numbers, first ", n);
        append_number(out, json_number(json_first(array)));
        buf_append_text(out, ", last ");
        append_number(out, last);
        buf_append_text(out, ", from ");
        append_number(out, low);
        buf_append_text(out, " to ");
        append_number(out, high);
    }
}

/* A value that fits behind its name. */
static void append_scalar(struct buf *out, const struct json_value *value)
{
    bool is_true = false;
    if (json_kind(value) == JSON_STRING) {
        buf_append_text(out, json_text(value));
    } else if (json_kind(value) == JSON_NUMBER) {
        append_number(out, json_number(value));
    } else if (json_bool_value(value, &is_true)) {
        buf_append_text(out, is_true ? "yes" : "no");
    } else if (is_number_array(value)) {
        append_numbers(out, value);
    } else {
        buf_append_text(out, json_kind(value) == JSON_NULL ? "none" : "empty");
    }
    buf_append_char(out, '\n');
}

static void append_members(struct buf *out, const struct json_value *value, const char *skip,
                           unsigned depth)
{
    size_t n = 0;
    bool is_array = json_kind(value) == JSON_ARRAY;
    for (const struct json_value *v = json_first(value); v != NULL; v = json_next(v)) {
        if (skip != NULL && strcmp(json_name(v), skip) == 0) {
            continue;
        }
        indent_to(out, depth);
        if (is_array && n == ELEMENTS_MAX) {
            buf_printf(out, "… %zu in all\n", count(value));
            return;
        }
        n++;
        if (is_array) {
            buf_printf(out, "%zu:", n);
        } else {
            buf_printf(out, "%s:", json_name(v));
        }
        bool is_block = (json_kind(v) == JSON_OBJECT || json_kind(v) == JSON_ARRAY) &&
                        json_first(v) != NULL && !is_number_array(v);
        buf_append_char(out, is_block ? '\n' : ' ');
        if (!is_block) {
            append_scalar(out, v);
        } else if (is_table(v)) {
            append_table(out, v, depth + 1);
        } else {
            append_members(out, v, NULL, depth + 1);
        }
    }
}

enum status json_lines(const char *text, const char *skip, struct buf *out, struct error *err)
{
    const struct json_limits limits = {VALUES_MAX, DEPTH_MAX};
    struct json_doc *doc = NULL;
    enum status status = json_doc_open(text, strlen(text), &limits, &doc, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (json_kind(json_root(doc)) == JSON_OBJECT) {
        append_members(out, json_root(doc), skip, 1);
    } else {
        status = error_set(err, STATUS_FORMAT, "not a JSON object");
    }
    json_doc_close(doc);
    return status;
}
