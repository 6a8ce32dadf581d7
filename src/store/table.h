#ifndef AISLE_STORE_TABLE_H
#define AISLE_STORE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Records of a CSV file with a header (RFC 4180, through libcsv; separator comma, or tab for .tsv
 * and by choice) or of a JSON Lines file (cJSON), one at a time, in one shape: named text values.
 * The kind follows the name (.csv, .tsv, .jsonl, .ndjson, .json); else the first byte ('{' is JSON
 * Lines). JSON numbers keep their text; true/false become "true"/"false"; null and empty CSV cells
 * are absent; the members of an object "attributes" become fields of their own names prefixed
 * "attributes."; arrays and other objects are refused by name. All errors name file and line. A
 * UTF-8 byte order mark is skipped; invalid UTF-8 is INVALID, and so is a line over
 * TABLE_LINE_MAX, a CSV record with more cells than the header, an unterminated quote, a column
 * named twice, an empty file. */
enum { TABLE_LINE_MAX_BYTES = 1 << 20, TABLE_COLUMNS_MAX = 512, TABLE_JSON_DEPTH_MAX = 8 };

struct table_field {
    const char *name;
    const char *text; /* NUL-terminated */
    size_t len;
    bool quoted; /* a JSON string (never a number), or a CSV cell: false */
};

struct table_record {
    const struct table_field *fields; /* absent values left out */
    size_t n_fields;
    uint64_t line;
};

struct table;

/* separator 0: by the name. */
enum status table_open(const char *path, char separator, struct table **out,
                       struct error *err) STATUS_CHECKED;
/* OK and *record (borrowed until the next call), or NOT_FOUND at the end (err untouched). */
enum status table_next(struct table *table, struct table_record *record,
                       struct error *err) STATUS_CHECKED;
/* Opens path and hands over each record in turn; the first failure of either ends it. */
typedef enum status table_record_fn(void *context, const struct table_record *record,
                                    struct error *err);
enum status table_each(const char *path, char separator, table_record_fn *take, void *context,
                       struct error *err) STATUS_CHECKED;
const char *table_path(const struct table *table);
void table_close(struct table *table);
/* Text of a field or NULL. */
const struct table_field *table_find(const struct table_record *record, const char *name);

#endif
