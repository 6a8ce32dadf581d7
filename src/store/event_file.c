#include "store/event_file.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/parse.h"
#include "store/table_internal.h"

/* A table's records → events. One pass over a record's fields: a column is compared with the six
 * known names, unknown ones are passed over. */

struct event_reader {
    struct table *table;
    uint64_t line;
};

enum known { KNOWN_USER, KNOWN_ITEM, KNOWN_TIME, KNOWN_TYPE, KNOWN_SESSION, KNOWN_VALUE, N_KNOWN };
enum { N_REQUIRED = KNOWN_TIME + 1 };

static const char *const KNOWN_NAMES[N_KNOWN] = {"user_id", "item_id",    "timestamp",
                                                 "type",    "session_id", "value"};

static enum status check_columns(const struct table *table, struct error *err)
{
    size_t n = 0;
    const char *const *names = table_columns(table, &n);
    if (names == NULL)
        return STATUS_OK;
    for (size_t i = 0; i < N_REQUIRED; i++) {
        size_t at = 0;
        while (at < n && strcmp(names[at], KNOWN_NAMES[i]) != 0)
            at++;
        if (at == n)
            return table_fail(table, 1, KNOWN_NAMES[i], err, STATUS_INVALID,
                              "the header has no such column");
    }
    return STATUS_OK;
}

enum status event_reader_open_table(struct table *table, struct event_reader **out,
                                    struct error *err)
{
    *out = NULL;
    enum status status = check_columns(table, err);
    struct event_reader *reader = status == STATUS_OK ? mem_calloc(1, sizeof(*reader)) : NULL;
    if (reader == NULL) {
        table_close(table);
        return status == STATUS_OK ? error_set(err, STATUS_NOMEM, "no memory to read events")
                                   : status;
    }
    reader->table = table;
    *out = reader;
    return STATUS_OK;
}

enum status event_reader_open(const char *path, struct event_reader **out, struct error *err)
{
    *out = NULL;
    struct table *table = NULL;
    enum status status = table_open(path, '\0', &table, err);
    return status == STATUS_OK ? event_reader_open_table(table, out, err) : status;
}

/* False: the field is not what its column holds. Times before 1970 are typing errors, and -1 would
 * be EVENT_TIME_UNKNOWN. */
static bool set_field(enum known known, const struct table_field *field, struct event_record *event)
{
    switch (known) {
    case KNOWN_USER:
        event->user_id = field->text;
        return id_valid(field->text, field->len);
    case KNOWN_ITEM:
        event->item_id = field->text;
        return id_valid(field->text, field->len);
    case KNOWN_SESSION:
        event->session_id = field->text;
        return id_valid(field->text, field->len);
    case KNOWN_TIME:
        return parse_time_ms(field->text, field->len, &event->time_ms) && event->time_ms >= 0;
    case KNOWN_TYPE:
        return event_type_parse(field->text, field->len, &event->type);
    case KNOWN_VALUE:
        return !field->quoted && parse_double(field->text, field->len, &event->value);
    case N_KNOWN:
        break;
    }
    return true;
}

static enum known find_known(const char *name)
{
    size_t i = 0;
    while (i < N_KNOWN && strcmp(KNOWN_NAMES[i], name) != 0)
        i++;
    return (enum known)i;
}

enum status event_reader_next(struct event_reader *reader, struct event_record *event,
                              struct error *err)
{
    static const char *const EXPECTED[N_KNOWN] = {
        "an id of 1 to 128 bytes",
        "an id of 1 to 128 bytes",
        "a time from 1970 on (RFC 3339, Unix seconds or milliseconds)",
        "an event type (view, cart, purchase, click)",
        "an id of 1 to 128 bytes",
        "a number",
    };
    struct table_record record;
    enum status status = table_next(reader->table, &record, err);
    if (status != STATUS_OK)
        return status;
    reader->line = record.line;
    struct event_record read = {
        .time_ms = EVENT_TIME_UNKNOWN, .type = EVENT_VIEW, .value = (double)NAN};
    for (size_t i = 0; i < record.n_fields; i++) {
        const struct table_field *field = &record.fields[i];
        enum known known = find_known(field->name);
        if (!set_field(known, field, &read))
            return table_fail(reader->table, record.line, field->name, err, STATUS_INVALID,
                              "\"%.40s\" is not %s", field->text, EXPECTED[known]);
    }
    enum known missing = read.user_id == NULL                 ? KNOWN_USER
                         : read.item_id == NULL               ? KNOWN_ITEM
                         : read.time_ms == EVENT_TIME_UNKNOWN ? KNOWN_TIME
                                                              : N_KNOWN;
    if (missing != N_KNOWN)
        return table_fail(reader->table, record.line, KNOWN_NAMES[missing], err, STATUS_INVALID,
                          "missing");
    *event = read;
    return STATUS_OK;
}

uint64_t event_reader_line(const struct event_reader *reader)
{
    return reader->line;
}

void event_reader_close(struct event_reader *reader)
{
    if (reader == NULL)
        return;
    table_close(reader->table);
    mem_free(reader);
}
