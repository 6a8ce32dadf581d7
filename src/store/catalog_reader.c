#include "store/catalog.h"

#include <math.h>
#include <sqlite3.h>
#include <string.h>

#include "base/alloc.h"
#include "base/idmap.h"
#include "base/parse.h"
#include "store/catalog_internal.h"

/* Single rows of items.db, for the items of an answer. A reader has a connection of its own, since
 * a connection belongs to one thread, and one statement, prepared once. Texts are SQLite's and live
 * until the statement is reset; that is put off to the next read, so they need no copy. The page
 * cache is small: rows that are wanted often are in the kernel's page cache anyway.
 *
 * What the catalogue has in memory as columns (category, brand, price, stock, created_at) is taken
 * from there, which halves the columns that SQLite decodes. One read transaction stays open for the
 * reader's life: otherwise every look-up begins with a second pread, of the file's change counter.
 * The file is immutable, so nothing is held up by that. */

struct catalog_reader {
    const struct catalog *catalog;
    sqlite3 *db;
    sqlite3_stmt *select;
    const struct catalog_column *category;
    const struct catalog_column *brand;
    const struct catalog_column *price;
    const struct catalog_column *stock;
    const struct catalog_column *created_at;
};

enum status catalog_reader_open(const struct catalog *catalog, struct catalog_reader **out,
                                struct error *err)
{
    *out = NULL;
    struct catalog_reader *reader = mem_calloc(1, sizeof(*reader));
    if (reader == NULL)
        return error_set(err, STATUS_NOMEM, "no memory to read an item");
    reader->catalog = catalog;
    enum status status = catalog_db_open(catalog_path(catalog), &reader->db, err);
    reader->category = catalog_column(catalog, "category");
    reader->brand = catalog_column(catalog, "brand");
    reader->price = catalog_column(catalog, "price");
    reader->stock = catalog_column(catalog, "stock");
    reader->created_at = catalog_column(catalog, "created_at");
    if (status == STATUS_OK) {
        int code = sqlite3_exec(reader->db, "BEGIN", NULL, NULL, NULL);
        if (code == SQLITE_OK)
            code = sqlite3_prepare_v3(reader->db, "SELECT texts FROM items WHERE row = ?1", -1,
                                      SQLITE_PREPARE_PERSISTENT, &reader->select, NULL);
        if (code != SQLITE_OK)
            status = catalog_db_error(reader->db, code, catalog_path(catalog), err);
    }
    if (status != STATUS_OK) {
        catalog_reader_close(reader);
        return status;
    }
    *out = reader;
    return STATUS_OK;
}

void catalog_reader_close(struct catalog_reader *reader)
{
    if (reader == NULL)
        return;
    (void)sqlite3_finalize(reader->select);
    (void)sqlite3_close(reader->db);
    mem_free(reader);
}

static const char *text_in_memory(const struct catalog_column *column, uint32_t row)
{
    bool known = column != NULL && column->codes[row] != 0;
    return known ? idmap_id(column->dictionary, column->codes[row] - 1, NULL) : NULL;
}

static double number_in_memory(const struct catalog_column *column, uint32_t row)
{
    return column != NULL ? column->numbers[row] : (double)NAN;
}

/* The cell's texts, each ended by a NUL, in the order of data/schema/items.sql. */
static enum status read_row(const struct catalog_reader *reader, struct item_metadata *out,
                            struct error *err)
{
    const char **const texts[] = {&out->title, &out->currency, &out->image_url, &out->url,
                                  &out->attributes_json};
    enum { N_TEXTS = sizeof(texts) / sizeof(texts[0]) };
    const char *text = sqlite3_column_blob(reader->select, 0);
    const char *end = text != NULL ? text + sqlite3_column_bytes(reader->select, 0) : NULL;
    size_t n = 0;
    for (; n < N_TEXTS && text < end; n++) {
        const char *nul = memchr(text, '\0', (size_t)(end - text));
        if (nul == NULL || !utf8_valid(text, (size_t)(nul - text)))
            break;
        *texts[n] = nul > text ? text : NULL;
        text = nul + 1;
    }
    if (n != N_TEXTS || text != end || out->title == NULL)
        return catalog_damaged(catalog_path(reader->catalog), err, "an item's texts are damaged");
    return STATUS_OK;
}

void catalog_read_columns(const struct catalog_reader *reader, uint32_t row,
                          struct item_metadata *out)
{
    *out = (struct item_metadata){
        .category = text_in_memory(reader->category, row),
        .brand = text_in_memory(reader->brand, row),
        .price = number_in_memory(reader->price, row),
        .stock = number_in_memory(reader->stock, row),
        .created_at_ms = number_in_memory(reader->created_at, row),
    };
}

static void prefetch_column(const struct catalog_column *column, uint32_t row)
{
    if (column != NULL) {
        const void *cell = column->numbers != NULL ? (const void *)&column->numbers[row]
                                                   : (const void *)&column->codes[row];
        __builtin_prefetch(cell);
    }
}

void catalog_prefetch(const struct catalog_reader *reader, uint32_t row)
{
    prefetch_column(reader->category, row);
    prefetch_column(reader->brand, row);
    prefetch_column(reader->price, row);
    prefetch_column(reader->stock, row);
    prefetch_column(reader->created_at, row);
    __builtin_prefetch(catalog_id(reader->catalog, row, NULL));
}

enum status catalog_read(struct catalog_reader *reader, uint32_t row, struct item_metadata *out,
                         struct error *err)
{
    const char *path = catalog_path(reader->catalog);
    if (row >= catalog_size(reader->catalog))
        return error_set(err, STATUS_NOT_FOUND, "no row %u in the catalogue", (unsigned)row);
    /* Reset here rather than after the last read, which would end the texts' life. */
    (void)sqlite3_reset(reader->select);
    int code = sqlite3_bind_int64(reader->select, 1, row);
    if (code == SQLITE_OK)
        code = sqlite3_step(reader->select);
    if (code == SQLITE_DONE)
        return error_set(err, STATUS_NOT_FOUND, "%.120s: row %u is missing", path, (unsigned)row);
    struct item_metadata read;
    catalog_read_columns(reader, row, &read);
    enum status status = code == SQLITE_ROW ? read_row(reader, &read, err)
                                            : catalog_db_error(reader->db, code, path, err);
    if (status == STATUS_OK)
        *out = read;
    else
        (void)sqlite3_reset(reader->select);
    return status;
}
