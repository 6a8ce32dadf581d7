#ifndef AISLE_STORE_CATALOG_H
#define AISLE_STORE_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/idmap.h"
#include "base/status.h"
#include "store/items.h"

/* The catalogue of a release: items.db (SQLite). Row r of everything is FAISS id r. Table `items`
 * holds display metadata, read for the winners only; table `columns` holds ids, ranking and filter
 * columns as packed arrays, which are copied into memory at open. Schema: data/schema/items.sql. */

/* ---- writing, offline ---- */
struct catalog_writer;
enum status catalog_writer_open(const char *path, struct catalog_writer **out,
                                struct error *err) STATUS_CHECKED;
/* Adds the next row. popularity: share of recent events, ≥ 0. EXISTS: the id is there already. */
enum status catalog_writer_add(struct catalog_writer *writer, const struct item *item,
                               double popularity, struct error *err) STATUS_CHECKED;
/* Writes the columns, commits, checks and closes the database; the writer is closed in any case.
 * The file is fsynced. */
enum status catalog_writer_finish(struct catalog_writer *writer, struct error *err) STATUS_CHECKED;
/* Abandons: closes and deletes the file. NULL is legal. */
void catalog_writer_abandon(struct catalog_writer *writer);

/* ---- reading ---- */
struct catalog; /* read-only, thread-safe */

enum column_type { COLUMN_NUMBER, COLUMN_BOOL, COLUMN_TIME, COLUMN_TEXT, COLUMN_CATEGORY };

/* A column in memory. Numbers (bool as 0/1, time as Unix ms): numbers[n], NAN where missing. Texts:
 * codes[n], 0 where missing, else code c stands for idmap_id(dictionary, c - 1). */
struct catalog_column {
    const char *name; /* "price", "stock", "category", "brand", "created_at", "popularity",
                         "attributes.NAME" */
    enum column_type type;
    const double *numbers;
    const uint32_t *codes;
    const struct idmap *dictionary;
};

/* Opens read-only and immutable. FORMAT for anything that does not add up (lengths, codes, ids). */
enum status catalog_open(const char *path, struct catalog **out, struct error *err) STATUS_CHECKED;
void catalog_close(struct catalog *catalog);
size_t catalog_size(const struct catalog *catalog);
/* IDMAP_NONE when unknown. O(1). */
uint32_t catalog_row(const struct catalog *catalog, const char *id, size_t len);
/* rows[i] of n ids at once, cheaper in a large catalogue (see idmap_find_many). */
void catalog_rows(const struct catalog *catalog, const char *const *ids, const size_t *lens,
                  size_t n, uint32_t *rows);
const char *catalog_id(const struct catalog *catalog, uint32_t row, size_t *len);
/* NULL when there is no such column. */
const struct catalog_column *catalog_column(const struct catalog *catalog, const char *name);
size_t catalog_n_columns(const struct catalog *catalog);
const struct catalog_column *catalog_column_at(const struct catalog *catalog, size_t i);
/* Rows by falling popularity, ties by row: [n]. */
const uint32_t *catalog_by_popularity(const struct catalog *catalog);
/* Memory held, bytes. */
size_t catalog_bytes(const struct catalog *catalog);

/* ---- metadata, one reader a thread ---- */
struct catalog_reader;

struct item_metadata {
    const char *title; /* texts NULL where absent; borrowed until the next read */
    const char *category;
    const char *brand;
    const char *currency;
    const char *image_url;
    const char *url;
    const char *attributes_json; /* "{…}" or NULL */
    double price;                /* NAN where absent */
    double stock;
    double created_at_ms;
};

/* A read-only immutable connection with its prepared statement; borrows the catalogue. */
enum status catalog_reader_open(const struct catalog *catalog, struct catalog_reader **out,
                                struct error *err) STATUS_CHECKED;
void catalog_reader_close(struct catalog_reader *reader);
/* NOT_FOUND for a row that is not there; IO, FORMAT. Texts are valid UTF-8. */
enum status catalog_read(struct catalog_reader *reader, uint32_t row, struct item_metadata *out,
                         struct error *err) STATUS_CHECKED;

/* The part of it that is in memory (category, brand, price, stock, created_at); the other texts are
 * NULL. row < catalog_size. */
void catalog_read_columns(const struct catalog_reader *reader, uint32_t row,
                          struct item_metadata *out);
/* Asks the processor for the columns and the id of a row that is about to be read. */
void catalog_prefetch(const struct catalog_reader *reader, uint32_t row);

#endif
