#include "store/catalog.h"

#include <math.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/parse.h"
#include "store/catalog_internal.h"

/* items.db → memory.
 *
 * Columns are copied out of SQLite at open and then belong to us: filters and ranking read millions
 * of values a second, which a B-tree with a row lookup each would not serve. The connection that
 * loads is closed again. immutable=1 spares locks and checks for change: a release's files are
 * never changed.
 *
 * The file may be damaged: what SQLite does not notice (it has no checksums) is checked here before
 * use: lengths against the number of ids, codes against the dictionary, texts and numbers. */

enum {
    READER_CACHE_KIB = 2048,
    COLUMN_NAME_MAX_BYTES = sizeof(CATALOG_ATTRIBUTE_PREFIX) + ID_BYTES_MAX,
    URI_MAX_BYTES = 3 * PATH_BYTES_MAX + 64,
};

const char *const catalog_type_names[N_CATALOG_TYPES] = {
    [COLUMN_NUMBER] = "number", [COLUMN_BOOL] = "bool",         [COLUMN_TIME] = "time",
    [COLUMN_TEXT] = "text",     [COLUMN_CATEGORY] = "category", [CATALOG_TYPE_ID] = "id",
};

const struct catalog_fixed_column catalog_fixed_columns[N_CATALOG_FIXED] = {
    [FIXED_PRICE] = {"price", COLUMN_NUMBER},
    [FIXED_STOCK] = {"stock", COLUMN_NUMBER},
    [FIXED_CATEGORY] = {"category", COLUMN_CATEGORY},
    [FIXED_BRAND] = {"brand", COLUMN_TEXT},
    [FIXED_CREATED_AT] = {"created_at", COLUMN_TIME},
    [FIXED_POPULARITY] = {"popularity", COLUMN_NUMBER},
};

/* What a column owns; struct catalog_column shows it as const. */
struct column_memory {
    double *numbers;
    uint32_t *codes;
    struct idmap *dictionary;
};

struct catalog {
    char *path;
    size_t n;
    struct idmap *ids;
    struct idmap *names; /* of the columns */
    struct catalog_column *columns;
    struct column_memory *memory;
    size_t n_columns;
    size_t columns_cap;
    uint32_t *by_popularity;
};

/* ---- SQLite ---- */

static enum status status_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return STATUS_NOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
    case SQLITE_SCHEMA:
    case SQLITE_ERROR: /* a table or column that is not there */
    case SQLITE_MISMATCH:
        return STATUS_FORMAT;
    case SQLITE_IOERR:
    case SQLITE_FULL:
    case SQLITE_CANTOPEN:
        return STATUS_IO;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return STATUS_PERMISSION;
    case SQLITE_TOOBIG:
        return STATUS_LIMIT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return STATUS_UNAVAILABLE;
    default:
        return STATUS_INTERNAL;
    }
}

enum status catalog_db_error(sqlite3 *db, int code, const char *path, struct error *err)
{
    return error_set(err, status_of(code), "%.120s: %.100s", path,
                     db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(code));
}

enum status catalog_db_exec(sqlite3 *db, const char *sql, const char *path, struct error *err)
{
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? STATUS_OK : catalog_db_error(db, code, path, err);
}

static enum status fail_nomem(struct error *err)
{
    return error_set(err, STATUS_NOMEM, "no memory for the catalogue");
}

/* "file:///a/b%20c?mode=ro&immutable=1". The empty authority lets a path start with two slashes. */
static enum status make_uri(const char *path, struct buf *uri, struct error *err)
{
    buf_append_text(uri, path[0] == '/' ? "file://" : "file:");
    for (const char *at = path; *at != '\0'; at++) {
        char c = *at;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("/._-~", c) != NULL;
        if (plain)
            buf_append_char(uri, c);
        else
            buf_printf(uri, "%%%02X", (unsigned)(unsigned char)c);
    }
    buf_append_text(uri, "?mode=ro&immutable=1");
    if (uri->status != STATUS_OK)
        return error_set(err, uri->status, "%.120s: %s", path, status_text(uri->status));
    return STATUS_OK;
}

enum status catalog_db_open(const char *path, sqlite3 **out, struct error *err)
{
    *out = NULL;
    struct stat info;
    if (stat(path, &info) != 0)
        return error_set_errno(err, "opening %.120s", path);
    struct buf uri;
    buf_init(&uri, URI_MAX_BYTES);
    sqlite3 *db = NULL;
    enum status status = make_uri(path, &uri, err);
    if (status == STATUS_OK) {
        int code =
            sqlite3_open_v2(buf_text(&uri), &db,
                            SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, NULL);
        if (code != SQLITE_OK)
            status = catalog_db_error(db, code, path, err);
    }
    if (status == STATUS_OK) {
        char settings[160];
        (void)sqlite3_snprintf((int)sizeof(settings), settings,
                               "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;"
                               "PRAGMA mmap_size=0; PRAGMA cache_size=-%d;",
                               READER_CACHE_KIB);
        status = catalog_db_exec(db, settings, path, err);
    }
    buf_free(&uri);
    if (status != STATUS_OK) {
        (void)sqlite3_close(db);
        return status;
    }
    *out = db;
    return STATUS_OK;
}

/* ---- loading ---- */

struct loading {
    struct catalog *catalog;
    sqlite3 *db;
    struct error *err;
};

/* Bytes of a cell, borrowed from the statement until its next step. */
struct blob {
    const char *bytes;
    size_t n_bytes;
    bool is_null;
};

#define DAMAGED(loading, ...) catalog_damaged((loading)->catalog->path, (loading)->err, __VA_ARGS__)

enum status catalog_damaged(const char *path, struct error *err, const char *format, ...)
{
    char message[160];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return error_set(err, STATUS_FORMAT, "%.80s: damaged catalogue: %s", path, message);
}

/* The one value of a query that gives one row; NULL gives *is_null. */
static enum status query_int(const struct loading *loading, const char *sql, int64_t *value,
                             bool *is_null)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(loading->db, sql, -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    enum status status = STATUS_OK;
    if (code == SQLITE_ROW) {
        *value = sqlite3_column_int64(statement, 0);
        *is_null = sqlite3_column_type(statement, 0) == SQLITE_NULL;
    } else {
        status = catalog_db_error(loading->db, code, loading->catalog->path, loading->err);
    }
    (void)sqlite3_finalize(statement);
    return status;
}

static enum status check_header(const struct loading *loading)
{
    int64_t id = 0;
    int64_t version = 0;
    bool is_null = false;
    enum status status = query_int(loading, "PRAGMA application_id", &id, &is_null);
    if (status == STATUS_OK)
        status = query_int(loading, "PRAGMA user_version", &version, &is_null);
    if (status != STATUS_OK)
        return status;
    if (id != CATALOG_APPLICATION_ID)
        return error_set(loading->err, STATUS_FORMAT, "%.120s: not a catalogue",
                         loading->catalog->path);
    if (version > CATALOG_SCHEMA_VERSION)
        return error_set(loading->err, STATUS_UNSUPPORTED,
                         "%.120s: schema version %lld is newer than %d, which this program reads",
                         loading->catalog->path, (long long)version, CATALOG_SCHEMA_VERSION);
    if (version < 1)
        return DAMAGED(loading, "schema version %lld", (long long)version);
    return STATUS_OK;
}

/* NUL-terminated texts, packed → map. Each is valid and there once. */
static enum status load_texts(const struct loading *loading, const struct blob *blob, bool are_ids,
                              struct idmap **out)
{
    *out = NULL;
    if (blob->n_bytes > 0 && blob->bytes[blob->n_bytes - 1] != '\0')
        return DAMAGED(loading, "the last text does not end");
    size_t n = 0;
    for (size_t i = 0; i < blob->n_bytes; i++)
        n += blob->bytes[i] == '\0';
    struct idmap *map = NULL;
    enum status status = idmap_open(n, &map, loading->err);
    const char *at = blob->bytes;
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        size_t len = strlen(at);
        uint32_t row = 0;
        if (are_ids ? !id_valid(at, len) : !utf8_valid(at, len))
            status = DAMAGED(loading, "text %zu is not valid", i);
        else
            status = idmap_add(map, at, len, &row);
        if (status == STATUS_EXISTS)
            status = DAMAGED(loading, "text %zu is also text %u", i, (unsigned)row);
        else if (status == STATUS_NOMEM || status == STATUS_LIMIT)
            (void)error_set(loading->err, status, "ids of the catalogue: %s", status_text(status));
        at += len + 1;
    }
    if (status != STATUS_OK) {
        idmap_close(map);
        return status;
    }
    *out = map;
    return STATUS_OK;
}

static enum status load_codes(const struct loading *loading, const struct blob *data,
                              const struct blob *dictionary, struct column_memory *memory)
{
    size_t n = loading->catalog->n;
    if (data->n_bytes != n * sizeof(*memory->codes) || dictionary->is_null)
        return DAMAGED(loading, "a column of texts has %zu bytes for %zu items", data->n_bytes, n);
    enum status status = load_texts(loading, dictionary, false, &memory->dictionary);
    if (status != STATUS_OK)
        return status;
    memory->codes = mem_alloc_array(n, sizeof(*memory->codes));
    if (memory->codes == NULL)
        return fail_nomem(loading->err);
    if (n > 0)
        memcpy(memory->codes, data->bytes, data->n_bytes);
    size_t n_texts = idmap_size(memory->dictionary);
    for (size_t i = 0; i < n; i++) {
        if (memory->codes[i] > n_texts)
            return DAMAGED(loading, "row %zu has code %u of %zu", i, (unsigned)memory->codes[i],
                           n_texts);
    }
    return STATUS_OK;
}

static enum status load_numbers(const struct loading *loading, const struct blob *data,
                                const struct blob *dictionary, enum column_type type,
                                struct column_memory *memory)
{
    size_t n = loading->catalog->n;
    if (data->n_bytes != n * sizeof(*memory->numbers) || !dictionary->is_null)
        return DAMAGED(loading, "a column of numbers has %zu bytes for %zu items", data->n_bytes,
                       n);
    memory->numbers = mem_alloc_array(n, sizeof(*memory->numbers));
    if (memory->numbers == NULL)
        return fail_nomem(loading->err);
    if (n > 0)
        memcpy(memory->numbers, data->bytes, data->n_bytes);
    for (size_t i = 0; i < n; i++) {
        double number = memory->numbers[i];
        bool is_bool = isnan(number) || number == 0 || number == 1;
        if (isinf(number) || (type == COLUMN_BOOL && !is_bool))
            return DAMAGED(loading, "row %zu has an impossible number", i);
    }
    return STATUS_OK;
}

static int find_type(const char *name)
{
    int type = 0;
    while (type < N_CATALOG_TYPES && strcmp(catalog_type_names[type], name) != 0)
        type++;
    return type;
}

static enum status grow_columns(const struct loading *loading)
{
    struct catalog *catalog = loading->catalog;
    if (catalog->n_columns < catalog->columns_cap)
        return STATUS_OK;
    size_t cap = catalog->columns_cap == 0 ? (size_t)2 * N_CATALOG_FIXED : 2 * catalog->columns_cap;
    struct catalog_column *columns = mem_realloc_array(catalog->columns, cap, sizeof(*columns));
    if (columns == NULL)
        return fail_nomem(loading->err);
    catalog->columns = columns;
    struct column_memory *memory = mem_realloc_array(catalog->memory, cap, sizeof(*memory));
    if (memory == NULL)
        return fail_nomem(loading->err);
    catalog->memory = memory;
    catalog->columns_cap = cap;
    return STATUS_OK;
}

static struct blob blob_at(sqlite3_stmt *statement, int column)
{
    const void *bytes = sqlite3_column_blob(statement, column);
    int n_bytes = sqlite3_column_bytes(statement, column);
    return (struct blob){
        .bytes = bytes != NULL ? bytes : "",
        .n_bytes = bytes != NULL && n_bytes > 0 ? (size_t)n_bytes : 0,
        .is_null = sqlite3_column_type(statement, column) == SQLITE_NULL,
    };
}

/* A text cell, NUL-terminated; NULL when it is none or not valid. */
static const char *text_at(sqlite3_stmt *statement, int column, size_t max_bytes)
{
    if (sqlite3_column_type(statement, column) != SQLITE_TEXT)
        return NULL;
    const char *text = (const char *)sqlite3_column_text(statement, column);
    int len = sqlite3_column_bytes(statement, column);
    if (text == NULL || len <= 0 || (size_t)len > max_bytes || !utf8_valid(text, (size_t)len))
        return NULL;
    return text;
}

/* Makes the next column's place; from then on catalog_close frees what memory holds. */
static enum status new_column(const struct loading *loading, const char *name,
                              enum column_type type, struct column_memory **memory)
{
    struct catalog *catalog = loading->catalog;
    if (catalog->n_columns == CATALOG_COLUMNS_MAX)
        return DAMAGED(loading, "more than %d columns", CATALOG_COLUMNS_MAX);
    enum status status = grow_columns(loading);
    if (status != STATUS_OK)
        return status;
    uint32_t index = 0;
    status = idmap_add(catalog->names, name, strlen(name), &index);
    if (status == STATUS_EXISTS)
        return DAMAGED(loading, "column %.60s is there twice", name);
    if (status != STATUS_OK)
        return fail_nomem(loading->err);
    *memory = &catalog->memory[catalog->n_columns];
    **memory = (struct column_memory){.numbers = NULL};
    catalog->columns[catalog->n_columns] = (struct catalog_column){.type = type};
    catalog->n_columns++;
    return STATUS_OK;
}

static enum status load_column(const struct loading *loading, sqlite3_stmt *statement)
{
    struct catalog *catalog = loading->catalog;
    const char *name = text_at(statement, 0, COLUMN_NAME_MAX_BYTES);
    const char *type_name = text_at(statement, 1, COLUMN_NAME_MAX_BYTES);
    struct blob data = blob_at(statement, 2);
    struct blob dictionary = blob_at(statement, 3);
    if (sqlite3_errcode(loading->db) == SQLITE_NOMEM)
        return fail_nomem(loading->err);
    if (name == NULL || type_name == NULL)
        return DAMAGED(loading, "column %zu has no valid name or type", catalog->n_columns);
    if (sqlite3_column_type(statement, 2) != SQLITE_BLOB ||
        (!dictionary.is_null && sqlite3_column_type(statement, 3) != SQLITE_BLOB))
        return DAMAGED(loading, "column %.60s holds something else than blobs", name);
    int type = find_type(type_name);
    if (catalog->ids == NULL) {
        if (type != CATALOG_TYPE_ID)
            return DAMAGED(loading, "the first column is not the ids");
        enum status status = load_texts(loading, &data, true, &catalog->ids);
        catalog->n = status == STATUS_OK ? idmap_size(catalog->ids) : 0;
        return status;
    }
    if (type >= CATALOG_TYPE_ID)
        return DAMAGED(loading, "column %.60s has an unknown type", name);
    struct column_memory *memory = NULL;
    enum status status = new_column(loading, name, (enum column_type)type, &memory);
    if (memory == NULL)
        return status;
    if (type == COLUMN_TEXT || type == COLUMN_CATEGORY)
        return load_codes(loading, &data, &dictionary, memory);
    return load_numbers(loading, &data, &dictionary, (enum column_type)type, memory);
}

static enum status load_columns(const struct loading *loading)
{
    struct catalog *catalog = loading->catalog;
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(
        loading->db, "SELECT name, type, data, dictionary FROM columns ORDER BY position", -1,
        &statement, NULL);
    if (code != SQLITE_OK)
        return catalog_db_error(loading->db, code, catalog->path, loading->err);
    enum status status = idmap_open(0, &catalog->names, loading->err);
    while (status == STATUS_OK) {
        code = sqlite3_step(statement);
        if (code == SQLITE_DONE)
            break;
        status = code == SQLITE_ROW
                     ? load_column(loading, statement)
                     : catalog_db_error(loading->db, code, catalog->path, loading->err);
    }
    (void)sqlite3_finalize(statement);
    if (status == STATUS_OK && catalog->ids == NULL)
        status = DAMAGED(loading, "no columns");
    for (size_t i = 0; i < catalog->n_columns && status == STATUS_OK; i++) {
        catalog->columns[i].name = idmap_id(catalog->names, (uint32_t)i, NULL);
        catalog->columns[i].numbers = catalog->memory[i].numbers;
        catalog->columns[i].codes = catalog->memory[i].codes;
        catalog->columns[i].dictionary = catalog->memory[i].dictionary;
    }
    return status;
}

/* Gives the popularity column's numbers. */
static enum status check_fixed(const struct loading *loading, const double **popularity)
{
    for (size_t i = 0; i < N_CATALOG_FIXED; i++) {
        const struct catalog_fixed_column *fixed = &catalog_fixed_columns[i];
        const struct catalog_column *column = catalog_column(loading->catalog, fixed->name);
        if (column == NULL || column->type != fixed->type)
            return DAMAGED(loading, "no column %s of type %s", fixed->name,
                           catalog_type_names[fixed->type]);
        if (i == FIXED_POPULARITY)
            *popularity = column->numbers;
    }
    return STATUS_OK;
}

/* Table `items` has the rows 0 .. n-1. Only its ends are looked at; a hole shows when it is read.
 */
static enum status check_rows(const struct loading *loading)
{
    int64_t first = 0;
    int64_t last = 0;
    bool is_empty = false;
    enum status status = query_int(loading, "SELECT min(row) FROM items", &first, &is_empty);
    if (status == STATUS_OK)
        status = query_int(loading, "SELECT max(row) FROM items", &last, &is_empty);
    if (status != STATUS_OK)
        return status;
    size_t n = loading->catalog->n;
    if (is_empty ? n != 0 : first != 0 || last < 0 || (uint64_t)last + 1 != n)
        return DAMAGED(loading, "%zu ids, but the items end at row %lld", n, (long long)last);
    return STATUS_OK;
}

struct ranked {
    double popularity;
    uint32_t row;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *left = a;
    const struct ranked *right = b;
    if (left->popularity != right->popularity)
        return left->popularity > right->popularity ? -1 : 1;
    return (left->row > right->row) - (left->row < right->row);
}

static enum status sort_by_popularity(const struct loading *loading, const double *popularity)
{
    struct catalog *catalog = loading->catalog;
    size_t n = catalog->n;
    if (popularity == NULL)
        return DAMAGED(loading, "no numbers of popularity");
    for (size_t i = 0; i < n; i++) {
        if (isnan(popularity[i]) || popularity[i] < 0)
            return DAMAGED(loading, "row %zu has no popularity", i);
    }
    struct ranked *ranked = mem_alloc_array(n, sizeof(*ranked));
    catalog->by_popularity = mem_alloc_array(n, sizeof(*catalog->by_popularity));
    if (ranked == NULL || catalog->by_popularity == NULL) {
        mem_free(ranked);
        return fail_nomem(loading->err);
    }
    for (size_t i = 0; i < n; i++)
        ranked[i] = (struct ranked){popularity[i], (uint32_t)i};
    qsort(ranked, n, sizeof(*ranked), compare_ranked);
    for (size_t i = 0; i < n; i++)
        catalog->by_popularity[i] = ranked[i].row;
    mem_free(ranked);
    return STATUS_OK;
}

enum status catalog_open(const char *path, struct catalog **out, struct error *err)
{
    *out = NULL;
    struct catalog *catalog = mem_calloc(1, sizeof(*catalog));
    if (catalog == NULL)
        return fail_nomem(err);
    struct loading loading = {.catalog = catalog, .err = err};
    const double *popularity = NULL;
    catalog->path = mem_strdup(path);
    enum status status = catalog->path != NULL ? STATUS_OK : fail_nomem(err);
    if (status == STATUS_OK)
        status = catalog_db_open(path, &loading.db, err);
    if (status == STATUS_OK)
        status = check_header(&loading);
    if (status == STATUS_OK)
        status = load_columns(&loading);
    if (status == STATUS_OK)
        status = check_fixed(&loading, &popularity);
    if (status == STATUS_OK)
        status = check_rows(&loading);
    if (status == STATUS_OK)
        status = sort_by_popularity(&loading, popularity);
    (void)sqlite3_close(loading.db);
    if (status != STATUS_OK) {
        catalog_close(catalog);
        return status;
    }
    *out = catalog;
    return STATUS_OK;
}

void catalog_close(struct catalog *catalog)
{
    if (catalog == NULL)
        return;
    for (size_t i = 0; i < catalog->n_columns; i++) {
        mem_free(catalog->memory[i].numbers);
        mem_free(catalog->memory[i].codes);
        idmap_close(catalog->memory[i].dictionary);
    }
    mem_free(catalog->columns);
    mem_free(catalog->memory);
    mem_free(catalog->by_popularity);
    idmap_close(catalog->names);
    idmap_close(catalog->ids);
    mem_free(catalog->path);
    mem_free(catalog);
}

/* ---- in memory ---- */

const char *catalog_path(const struct catalog *catalog)
{
    return catalog->path;
}

size_t catalog_size(const struct catalog *catalog)
{
    return catalog->n;
}

uint32_t catalog_row(const struct catalog *catalog, const char *id, size_t len)
{
    return idmap_find(catalog->ids, id, len);
}

void catalog_rows(const struct catalog *catalog, const char *const *ids, const size_t *lens,
                  size_t n, uint32_t *rows)
{
    idmap_find_many(catalog->ids, ids, lens, n, rows);
}

const char *catalog_id(const struct catalog *catalog, uint32_t row, size_t *len)
{
    return idmap_id(catalog->ids, row, len);
}

const struct catalog_column *catalog_column(const struct catalog *catalog, const char *name)
{
    uint32_t index = idmap_find(catalog->names, name, strlen(name));
    return index == IDMAP_NONE ? NULL : &catalog->columns[index];
}

size_t catalog_n_columns(const struct catalog *catalog)
{
    return catalog->n_columns;
}

const struct catalog_column *catalog_column_at(const struct catalog *catalog, size_t i)
{
    return i < catalog->n_columns ? &catalog->columns[i] : NULL;
}

const uint32_t *catalog_by_popularity(const struct catalog *catalog)
{
    return catalog->by_popularity;
}

size_t catalog_bytes(const struct catalog *catalog)
{
    size_t n_bytes = sizeof(*catalog) + idmap_bytes(catalog->ids) + idmap_bytes(catalog->names);
    n_bytes += catalog->columns_cap * (sizeof(*catalog->columns) + sizeof(*catalog->memory));
    n_bytes += catalog->n * sizeof(*catalog->by_popularity);
    for (size_t i = 0; i < catalog->n_columns; i++) {
        const struct column_memory *memory = &catalog->memory[i];
        if (memory->numbers != NULL)
            n_bytes += catalog->n * sizeof(*memory->numbers);
        else
            n_bytes += catalog->n * sizeof(*memory->codes) + idmap_bytes(memory->dictionary);
    }
    return n_bytes;
}
