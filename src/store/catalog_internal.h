#ifndef AISLE_STORE_CATALOG_INTERNAL_H
#define AISLE_STORE_CATALOG_INTERNAL_H

#include <stddef.h>

#include "base/status.h"
#include "store/catalog.h"

/* Shared by the writer and the reader of items.db. data/schema/items.sql describes the file. */

enum {
    CATALOG_APPLICATION_ID = 0x4149534c, /* "AISL" */
    CATALOG_SCHEMA_VERSION = 1,
    CATALOG_ATTRIBUTE_COLUMNS_MAX = 1024, /* each is 4 or 8 bytes an item in memory */
    CATALOG_TYPE_ID = 5,                  /* beside enum column_type: the column of ids */
    N_CATALOG_TYPES = 6,
    N_CATALOG_FIXED = 6,
    CATALOG_COLUMNS_MAX = CATALOG_ATTRIBUTE_COLUMNS_MAX + N_CATALOG_FIXED,
};
#define CATALOG_ATTRIBUTE_PREFIX "attributes."

/* Name of each enum column_type in the file, and of CATALOG_TYPE_ID. */
extern const char *const catalog_type_names[N_CATALOG_TYPES];

/* Columns that every catalogue has, in their order. */
enum catalog_fixed {
    FIXED_PRICE,
    FIXED_STOCK,
    FIXED_CATEGORY,
    FIXED_BRAND,
    FIXED_CREATED_AT,
    FIXED_POPULARITY,
};
struct catalog_fixed_column {
    const char *name;
    enum column_type type;
};
extern const struct catalog_fixed_column catalog_fixed_columns[N_CATALOG_FIXED];

struct sqlite3;
/* "PATH: <SQLite's message>" and the status that SQLite's result code stands for. */
enum status catalog_db_error(struct sqlite3 *db, int code, const char *path, struct error *err);
enum status catalog_db_exec(struct sqlite3 *db, const char *sql, const char *path,
                            struct error *err) STATUS_CHECKED;
/* Opens read-only and immutable, with the settings that suit a file that may be damaged. Gives; to
 * be closed with sqlite3_close. NOT_FOUND, PERMISSION, IO, FORMAT. */
enum status catalog_db_open(const char *path, struct sqlite3 **out,
                            struct error *err) STATUS_CHECKED;
/* Borrowed from the catalogue. */
const char *catalog_path(const struct catalog *catalog);
/* FORMAT, "PATH: damaged catalogue: …". */
enum status catalog_damaged(const char *path, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
