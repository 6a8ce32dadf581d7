#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/parse.h"
#include "store/import_internal.h"
#include "store/table.h"

/* The Retailrocket data set, by each file's first line: events.csv, item_properties_part*.csv (of
 * which the category is used; titles and brands are hashed there), or session files that others
 * made of it. Properties are read last, whatever the order of the arguments: they are for items
 * that events name. */

enum kind { KIND_EVENTS, KIND_PROPERTIES, KIND_SESSIONS };
enum { FIRST_LINE_MAX_BYTES = 16 << 20, CATEGORY_BYTES = 64 };

static enum status find_kind(const char *path, enum kind *out, struct error *err)
{
    struct line_reader *reader = NULL;
    const char *line = NULL;
    size_t len = 0;
    enum status status = line_reader_open(path, FIRST_LINE_MAX_BYTES, &reader, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = line_reader_next(reader, &line, &len, err);
    if (status == STATUS_OK) {
        *out = KIND_SESSIONS;
        if (strncmp(line, "timestamp,visitorid", strlen("timestamp,visitorid")) == 0) {
            *out = KIND_EVENTS;
        } else if (strncmp(line, "timestamp,itemid", strlen("timestamp,itemid")) == 0) {
            *out = KIND_PROPERTIES;
        }
    } else if (status == STATUS_NOT_FOUND) {
        status = error_set(err, STATUS_INVALID, "%s is empty", path);
    }
    line_reader_close(reader);
    return status;
}

/* Keeps the newest category of an item. */
static enum status add_property(void *context, const struct table_record *record, struct error *err)
{
    struct import_sink *sink = context;
    const struct table_field *time = table_find(record, "timestamp");
    const struct table_field *id = table_find(record, "itemid");
    const struct table_field *property = table_find(record, "property");
    const struct table_field *value = table_find(record, "value");
    char category[CATEGORY_BYTES];
    int64_t time_ms = 0;
    if (time == NULL || id == NULL || property == NULL || value == NULL ||
        strcmp(property->text, "categoryid") != 0 ||
        !parse_time_ms(time->text, time->len, &time_ms)) {
        return STATUS_OK;
    }
    uint32_t row = idmap_find(sink->item_ids, id->text, id->len);
    if (row == IDMAP_NONE || sink->items[row].category_time_ms > time_ms) {
        return STATUS_OK;
    }
    struct import_item *item = &sink->items[row];
    char *before = item->category;
    (void)snprintf(category, sizeof category, "Category %.40s", value->text);
    item->category = NULL;
    enum status status = import_set_text(&item->category, category, err);
    if (status != STATUS_OK) {
        item->category = before;
        return status;
    }
    mem_free(before);
    item->category_time_ms = time_ms;
    return STATUS_OK;
}

static enum status import_one(struct import_sink *sink, const char *path, bool properties,
                              struct error *err)
{
    static const struct import_mapping mapping = {
        .columns =
            {
                [IMPORT_USER] = "visitorid",
                [IMPORT_ITEM] = "itemid",
                [IMPORT_TIME] = "timestamp",
                [IMPORT_TYPE] = "event",
            },
        .separator = ',',
    };
    enum kind kind = KIND_SESSIONS;
    enum status status = find_kind(path, &kind, err);
    if (status != STATUS_OK || properties != (kind == KIND_PROPERTIES)) {
        return status;
    }
    switch (kind) {
    case KIND_EVENTS:
        return import_table(sink, path, &mapping, err);
    case KIND_PROPERTIES:
        return table_each(path, ',', add_property, sink, err);
    case KIND_SESSIONS:
        break;
    }
    return import_session_file(sink, path, err);
}

enum status import_retailrocket(struct import_sink *sink, const struct import_config *config,
                                struct error *err)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < config->n_paths; i++) {
        status = import_one(sink, config->paths[i], false, err);
    }
    for (size_t i = 0; status == STATUS_OK && i < config->n_paths; i++) {
        status = import_one(sink, config->paths[i], true, err);
    }
    return status;
}
