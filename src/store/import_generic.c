#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"
#include "store/import_internal.h"
#include "store/table.h"

/* Event tables with a header: the fields' columns come from a mapping, either the user's (generic)
 * or a known one (clicks, Retailrocket's events). A column that the file lacks is an error, as it
 * means a wrong mapping; a cell that is missing or malformed drops its row, as logs have such rows.
 */

static const char *const FIELD_NAMES[N_IMPORT_FIELDS] = {
    [IMPORT_USER] = "user_id", [IMPORT_ITEM] = "item_id",       [IMPORT_TIME] = "timestamp",
    [IMPORT_TYPE] = "type",    [IMPORT_SESSION] = "session_id", [IMPORT_VALUE] = "value",
    [IMPORT_TITLE] = "title",  [IMPORT_CATEGORY] = "category",  [IMPORT_BRAND] = "brand",
    [IMPORT_PRICE] = "price",  [IMPORT_CURRENCY] = "currency",
};

/* What other systems call our event types. */
static const struct {
    const char *word;
    enum event_type type;
} TYPE_WORDS[] = {
    {"addtocart", EVENT_CART},    {"add_to_cart", EVENT_CART}, {"transaction", EVENT_PURCHASE},
    {"buy", EVENT_PURCHASE},      {"order", EVENT_PURCHASE},   {"pageview", EVENT_VIEW},
    {"product_view", EVENT_VIEW},
};

static bool parse_type(const char *text, enum event_type *out)
{
    if (event_type_parse(text, strlen(text), out)) {
        return true;
    }
    for (size_t i = 0; i < sizeof TYPE_WORDS / sizeof TYPE_WORDS[0]; i++) {
        if (strcmp(text, TYPE_WORDS[i].word) == 0) {
            *out = TYPE_WORDS[i].type;
            return true;
        }
    }
    return false;
}

/* Times as base/parse.h reads them, and Unix seconds with a fraction. */
static bool parse_time(const char *text, int64_t *out_ms)
{
    double seconds = 0.0;
    if (parse_time_ms(text, strlen(text), out_ms)) {
        return true;
    }
    if (!parse_double(text, strlen(text), &seconds) || fabs(seconds) > 1e11) {
        return false;
    }
    *out_ms = (int64_t)llround(seconds * 1000.0);
    return true;
}

static double number_or_nan(const char *text)
{
    double value = (double)NAN;
    return text != NULL && parse_double(text, strlen(text), &value) ? value : (double)NAN;
}

static enum status set_item(struct import_item *item, const char *const *cells, struct error *err)
{
    const double price = number_or_nan(cells[IMPORT_PRICE]);
    enum status status = import_set_text(&item->title, cells[IMPORT_TITLE], err);
    if (status == STATUS_OK) {
        status = import_set_text(&item->category, cells[IMPORT_CATEGORY], err);
    }
    if (status == STATUS_OK) {
        status = import_set_text(&item->brand, cells[IMPORT_BRAND], err);
    }
    if (status == STATUS_OK) {
        status = import_set_text(&item->currency, cells[IMPORT_CURRENCY], err);
    }
    if (price >= 0.0) {
        item->price = price;
    }
    return status;
}

static enum status add_row(struct import_sink *sink, const char *const *cells, struct error *err)
{
    struct import_event event = {
        .user = cells[IMPORT_USER],
        .item = cells[IMPORT_ITEM],
        .session = cells[IMPORT_SESSION],
        .type = EVENT_VIEW,
        .value = number_or_nan(cells[IMPORT_VALUE]),
    };
    uint32_t row = IDMAP_NONE;
    if (event.user == NULL || event.item == NULL || cells[IMPORT_TIME] == NULL) {
        import_drop(sink, "missing user, item or time");
        return STATUS_OK;
    }
    if (!parse_time(cells[IMPORT_TIME], &event.time_ms)) {
        import_drop(sink, "not a time");
        return STATUS_OK;
    }
    if (cells[IMPORT_TYPE] != NULL && !parse_type(cells[IMPORT_TYPE], &event.type)) {
        import_drop(sink, "unknown event type");
        return STATUS_OK;
    }
    enum status status = import_add_event(sink, &event, &row, err);
    return status == STATUS_OK && row != IDMAP_NONE ? set_item(&sink->items[row], cells, err)
                                                    : status;
}

static enum status check_columns(const char *path, const struct import_mapping *mapping,
                                 const bool *found, struct error *err)
{
    for (size_t f = 0; f < N_IMPORT_FIELDS; f++) {
        if (mapping->columns[f] != NULL && !found[f]) {
            return error_set_field(err, STATUS_INVALID, mapping->columns[f],
                                   "%s: no value in a column \"%.60s\" (for %s)", path,
                                   mapping->columns[f], FIELD_NAMES[f]);
        }
    }
    return STATUS_OK;
}

enum status import_table(struct import_sink *sink, const char *path,
                         const struct import_mapping *mapping, struct error *err)
{
    struct table *table = NULL;
    struct table_record record;
    bool found[N_IMPORT_FIELDS] = {false};
    bool any = false;
    enum status status = table_open(path, mapping->separator, &table, err);
    if (status != STATUS_OK) {
        return status;
    }
    for (;;) {
        const char *cells[N_IMPORT_FIELDS] = {NULL};
        status = table_next(table, &record, err);
        if (status != STATUS_OK) {
            break;
        }
        for (size_t f = 0; f < N_IMPORT_FIELDS; f++) {
            const struct table_field *field =
                mapping->columns[f] != NULL ? table_find(&record, mapping->columns[f]) : NULL;
            cells[f] = field != NULL ? field->text : NULL;
            found[f] = found[f] || field != NULL;
        }
        any = true;
        import_count_row(sink);
        status = add_row(sink, cells, err);
        if (status != STATUS_OK) {
            break;
        }
    }
    if (status == STATUS_NOT_FOUND) {
        status = any ? check_columns(path, mapping, found, err) : STATUS_OK;
    }
    table_close(table);
    return status;
}

static enum status import_tables(struct import_sink *sink, const struct import_config *config,
                                 const struct import_mapping *mapping, struct error *err)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < config->n_paths; i++) {
        status = import_table(sink, config->paths[i], mapping, err);
    }
    return status;
}

enum status import_clicks(struct import_sink *sink, const struct import_config *config,
                          struct error *err)
{
    static const struct import_mapping mapping = {
        .columns =
            {
                [IMPORT_USER] = "SessionId",
                [IMPORT_SESSION] = "SessionId",
                [IMPORT_ITEM] = "ItemId",
                [IMPORT_TIME] = "Time",
            },
        .separator = '\t',
    };
    return import_tables(sink, config, &mapping, err);
}

/* "user_id=COLUMN" or "user_id=COLUMN,item_id=COLUMN,…" into the mapping; the names are copied into
 * the space at *at. */
static enum status add_pairs(const char *text, struct import_mapping *mapping, char **at,
                             struct error *err)
{
    while (*text != '\0') {
        size_t len = strcspn(text, ",");
        size_t name_len = strcspn(text, "=");
        size_t f = 0;
        if (name_len >= len || name_len + 1 == len) {
            return error_set(err, STATUS_INVALID, "--map \"%.80s\": not FIELD=COLUMN", text);
        }
        while (f < N_IMPORT_FIELDS && (strlen(FIELD_NAMES[f]) != name_len ||
                                       memcmp(FIELD_NAMES[f], text, name_len) != 0)) {
            f++;
        }
        if (f == N_IMPORT_FIELDS) {
            return error_set(err, STATUS_INVALID,
                             "--map \"%.80s\": fields are user_id, item_id, timestamp, type, "
                             "session_id, value, title, category, brand, price, currency",
                             text);
        }
        size_t column_len = len - name_len - 1;
        memcpy(*at, text + name_len + 1, column_len);
        (*at)[column_len] = '\0';
        mapping->columns[f] = *at;
        *at += column_len + 1;
        text += len + (text[len] == ',' ? 1 : 0);
    }
    return STATUS_OK;
}

enum status import_generic(struct import_sink *sink, const struct import_config *config,
                           struct error *err)
{
    enum { MAP_BYTES_MAX = 8192 };
    struct import_mapping mapping = {
        .columns =
            {
                [IMPORT_USER] = FIELD_NAMES[IMPORT_USER],
                [IMPORT_ITEM] = FIELD_NAMES[IMPORT_ITEM],
                [IMPORT_TIME] = FIELD_NAMES[IMPORT_TIME],
            },
    };
    char space[MAP_BYTES_MAX];
    char *at = space;
    size_t n = config->map != NULL ? config->map->n : 0;
    for (size_t i = 0; i < n; i++) {
        const char *text = config->map->values[i];
        if (strlen(text) >= sizeof space - (size_t)(at - space)) {
            return error_set(err, STATUS_LIMIT, "--map: over %d bytes", MAP_BYTES_MAX);
        }
        enum status status = add_pairs(text, &mapping, &at, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return import_tables(sink, config, &mapping, err);
}
