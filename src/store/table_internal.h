#ifndef AISLE_STORE_TABLE_INTERNAL_H
#define AISLE_STORE_TABLE_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"
#include "store/event_file.h"
#include "store/items.h"
#include "store/table.h"

/* Shared by the readers of item and event files, their tests and their fuzz targets. */

/* Like table_open on bytes in memory (borrowed until table_close). name stands for the path: in
 * messages, and its ending decides the kind. */
enum status table_open_bytes(const void *bytes, size_t n_bytes, const char *name, char separator,
                             struct table **out, struct error *err) STATUS_CHECKED;

/* Names of a CSV header, borrowed; NULL for JSON Lines, where every record has its own. */
const char *const *table_columns(const struct table *table, size_t *n);

/* "PATH:LINE: column: message" and the field; column may be NULL. A long path is shown by its end,
 * so that the message itself always fits. Returns status. */
enum status table_fail(const struct table *table, uint64_t line, const char *column,
                       struct error *err, enum status status, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* Readers over a table that is open already; they take it, also on failure. */
enum status item_reader_open_table(struct table *table, struct item_reader **out,
                                   struct error *err) STATUS_CHECKED;
enum status event_reader_open_table(struct table *table, struct event_reader **out,
                                    struct error *err) STATUS_CHECKED;

/* ---- one line of JSON Lines ---- */
struct json_line;
enum status json_line_open(struct json_line **out) STATUS_CHECKED; /* OK or NOMEM */
void json_line_close(struct json_line *json);
/* Where a line's members go: the caller's arena and its fields[TABLE_COLUMNS_MAX]. */
struct json_fields {
    struct arena *arena;
    struct table_field *fields;
    size_t n; /* filled; 0 after a failure */
};
/* Members of the object in line[0..len). Texts are borrowed from json and the arena until the next
 * call. Errors: INVALID, LIMIT, NOMEM, with the member's name as the error's field and no file or
 * line in the message. */
enum status json_line_parse(struct json_line *json, const char *line, size_t len,
                            struct json_fields *out, struct error *err) STATUS_CHECKED;

#endif
