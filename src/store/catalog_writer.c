#include "store/catalog.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/json_write.h"
#include "base/parse.h"
#include "store/catalog_internal.h"

/* Items → items.db. Rows of table `items` are written as they come, in one transaction without a
 * journal: the file lies in a release's temporary folder, and a crash throws it away as a whole.
 *
 * Columns are gathered in memory and written at the end. An attribute's type is known only when all
 * rows were seen ("12" may be followed by "XL"), so every attribute is gathered as codes into a
 * dictionary of the texts as written, with the set of types met: all numbers or all bools become a
 * column of numbers, made from the dictionary, anything else stays a column of texts. Rejected: a
 * second pass over the item file.
 *
 * The same items give the same bytes: no time, no random number, no order of a hash table. */

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "columns are written as they lie");
static_assert(sizeof(double) == 8, "columns hold float64");

static const char CREATE_SQL[] = "CREATE TABLE items (\n"
                                 "    row INTEGER PRIMARY KEY,\n"
                                 "    texts BLOB NOT NULL\n"
                                 ");\n"
                                 "CREATE TABLE columns (\n"
                                 "    position INTEGER PRIMARY KEY,\n"
                                 "    name TEXT NOT NULL,\n"
                                 "    type TEXT NOT NULL,\n"
                                 "    data BLOB NOT NULL,\n"
                                 "    dictionary BLOB\n"
                                 ");\n";

enum {
    ROWS_MIN = 1024,
    COLUMNS_MIN = 32,
    TEXTS_MAX_BYTES = 32 << 20,
    /* SQLite's limit for a row is 10^9; the rest is for the other cells of the row. */
    BLOB_MAX_BYTES = 999000000,
};

struct gathered {
    char *name;
    enum column_type type; /* of a fixed column */
    unsigned types_met;    /* of an attribute: bits of enum attribute_type */
    double *numbers;       /* fixed columns of numbers and times */
    uint32_t *codes;       /* all others */
    struct idmap *dictionary;
    size_t n; /* rows that are set; those up to the writer's n are missing values */
    size_t cap;
};

struct catalog_writer {
    char *path;
    sqlite3 *db;
    sqlite3_stmt *insert;
    struct idmap *ids;
    struct idmap *attribute_names; /* number: column N_CATALOG_FIXED + it */
    struct gathered *columns;
    size_t n_columns;
    size_t columns_cap;
    struct buf texts;   /* of the item being added */
    enum status broken; /* not OK: an add failed half way, so nothing can follow */
};

static enum status fail_nomem(struct error *err)
{
    return error_set(err, STATUS_NOMEM, "no memory to write the catalogue");
}

static enum status db_error(const struct catalog_writer *writer, int code, struct error *err)
{
    return catalog_db_error(writer->db, code, writer->path, err);
}

/* ---- columns in memory ---- */

static enum status add_column(struct catalog_writer *writer, const char *prefix, const char *name,
                              enum column_type type, struct error *err)
{
    if (writer->n_columns == writer->columns_cap) {
        size_t cap = writer->columns_cap == 0 ? COLUMNS_MIN : 2 * writer->columns_cap;
        struct gathered *columns = mem_realloc_array(writer->columns, cap, sizeof(*columns));
        if (columns == NULL)
            return fail_nomem(err);
        writer->columns = columns;
        writer->columns_cap = cap;
    }
    struct gathered *column = &writer->columns[writer->n_columns];
    *column = (struct gathered){.type = type};
    size_t prefix_len = strlen(prefix);
    size_t name_len = strlen(name);
    column->name = mem_alloc(prefix_len + name_len + 1);
    if (column->name == NULL)
        return fail_nomem(err);
    memcpy(column->name, prefix, prefix_len);
    memcpy(column->name + prefix_len, name, name_len + 1);
    if (type == COLUMN_TEXT || type == COLUMN_CATEGORY) {
        enum status status = idmap_open(0, &column->dictionary, err);
        if (status != STATUS_OK) {
            mem_free(column->name);
            return status;
        }
    }
    writer->n_columns++;
    return STATUS_OK;
}

/* Sets the rows from column->n to row - 1 to "missing" and makes room for one more. */
static enum status pad(struct gathered *column, size_t row, struct error *err)
{
    if (row >= column->cap) {
        size_t cap = column->cap == 0 ? ROWS_MIN : 2 * column->cap;
        cap = cap > row ? cap : row + 1;
        if (column->dictionary == NULL) {
            double *numbers = mem_realloc_array(column->numbers, cap, sizeof(*numbers));
            if (numbers == NULL)
                return fail_nomem(err);
            column->numbers = numbers;
        } else {
            uint32_t *codes = mem_realloc_array(column->codes, cap, sizeof(*codes));
            if (codes == NULL)
                return fail_nomem(err);
            column->codes = codes;
        }
        column->cap = cap;
    }
    for (; column->n < row; column->n++) {
        if (column->dictionary == NULL)
            column->numbers[column->n] = (double)NAN;
        else
            column->codes[column->n] = 0;
    }
    return STATUS_OK;
}

/* NaN: missing, always with the same bits. */
static enum status put_number(struct gathered *column, size_t row, double number, struct error *err)
{
    enum status status = pad(column, row, err);
    if (status != STATUS_OK)
        return status;
    column->numbers[column->n++] = isnan(number) ? (double)NAN : number;
    return STATUS_OK;
}

static enum status put_text(struct gathered *column, size_t row, const char *text,
                            struct error *err)
{
    if (text == NULL)
        return STATUS_OK;
    enum status status = pad(column, row, err);
    if (status != STATUS_OK)
        return status;
    uint32_t number = 0;
    status = idmap_add(column->dictionary, text, strlen(text), &number);
    if (status != STATUS_OK && status != STATUS_EXISTS)
        return error_set_field(err, status, column->name, "column %.60s: %s of texts", column->name,
                               status_text(status));
    column->codes[column->n++] = number + 1;
    return STATUS_OK;
}

static enum status put_attribute(struct catalog_writer *writer, size_t row,
                                 const struct item_attribute *attribute, struct error *err)
{
    uint32_t number = idmap_find(writer->attribute_names, attribute->name, strlen(attribute->name));
    if (number == IDMAP_NONE) {
        if (idmap_size(writer->attribute_names) == CATALOG_ATTRIBUTE_COLUMNS_MAX)
            return error_set_field(err, STATUS_LIMIT, attribute->name,
                                   "more than %d attributes with \"%.60s\"",
                                   CATALOG_ATTRIBUTE_COLUMNS_MAX, attribute->name);
        enum status status =
            add_column(writer, CATALOG_ATTRIBUTE_PREFIX, attribute->name, COLUMN_TEXT, err);
        if (status != STATUS_OK)
            return status;
        status =
            idmap_add(writer->attribute_names, attribute->name, strlen(attribute->name), &number);
        if (status != STATUS_OK)
            return fail_nomem(err);
    }
    struct gathered *column = &writer->columns[N_CATALOG_FIXED + number];
    column->types_met |= 1U << attribute->type;
    return put_text(column, row, attribute->text, err);
}

static enum status put_columns(struct catalog_writer *writer, size_t row, const struct item *item,
                               double popularity, struct error *err)
{
    const double numbers[N_CATALOG_FIXED] = {
        [FIXED_PRICE] = item->price,
        [FIXED_STOCK] = item->stock,
        [FIXED_CREATED_AT] = item->created_at_ms,
        [FIXED_POPULARITY] = popularity,
    };
    const char *const texts[N_CATALOG_FIXED] = {
        [FIXED_CATEGORY] = item->category,
        [FIXED_BRAND] = item->brand,
    };
    enum status status = STATUS_OK;
    for (size_t i = 0; i < N_CATALOG_FIXED && status == STATUS_OK; i++) {
        struct gathered *column = &writer->columns[i];
        status = column->dictionary == NULL ? put_number(column, row, numbers[i], err)
                                            : put_text(column, row, texts[i], err);
    }
    for (size_t i = 0; i < item->n_attributes && status == STATUS_OK; i++)
        status = put_attribute(writer, row, &item->attributes[i], err);
    return status;
}

/* ---- adding ---- */

static enum status check_text(const char *name, const char *text, struct error *err)
{
    if (text == NULL)
        return STATUS_OK;
    size_t len = strlen(text);
    if (len > ITEM_TEXT_MAX_BYTES || !utf8_valid(text, len))
        return error_set_field(err, STATUS_INVALID, name,
                               "%.40s: longer than %d bytes or not valid UTF-8", name,
                               ITEM_TEXT_MAX_BYTES);
    return STATUS_OK;
}

static enum status check_attributes(const struct item *item, struct error *err)
{
    if (item->n_attributes > ITEM_ATTRIBUTES_MAX)
        return error_set(err, STATUS_LIMIT, "more than %d attributes", ITEM_ATTRIBUTES_MAX);
    for (size_t i = 0; i < item->n_attributes; i++) {
        const struct item_attribute *attribute = &item->attributes[i];
        const char *name = attribute->name;
        if (name == NULL || !id_valid(name, strlen(name)))
            return error_set(err, STATUS_INVALID, "attribute %zu has no valid name", i + 1);
        for (size_t j = 0; j < i; j++) {
            if (strcmp(item->attributes[j].name, name) == 0)
                return error_set_field(err, STATUS_INVALID, name, "%.40s: named twice", name);
        }
        const char *text = attribute->text;
        double number = 0;
        bool flag = false;
        bool good = text != NULL;
        if (good && attribute->type == ATTRIBUTE_NUMBER)
            good = parse_double(text, strlen(text), &number);
        if (good && attribute->type == ATTRIBUTE_BOOL)
            good = parse_bool(text, strlen(text), &flag);
        if (!good)
            return error_set_field(err, STATUS_INVALID, name, "%.40s: no value of its type", name);
        enum status status = check_text(name, text, err);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status check_item(const struct item *item, double popularity, struct error *err)
{
    if (item->id == NULL || !id_valid(item->id, strlen(item->id)))
        return error_set_field(err, STATUS_INVALID, "id", "id: missing or not an id");
    if (item->title == NULL)
        return error_set_field(err, STATUS_INVALID, "title", "title: missing");
    if (!isfinite(popularity) || popularity < 0)
        return error_set_field(err, STATUS_INVALID, "popularity", "popularity: not a share");
    if (isinf(item->price) || item->price < 0)
        return error_set_field(err, STATUS_INVALID, "price", "price: infinite or negative");
    if (isinf(item->stock) || isinf(item->created_at_ms))
        return error_set(err, STATUS_INVALID, "stock or created_at: infinite");
    const struct {
        const char *name;
        const char *text;
    } texts[] = {
        {"title", item->title},       {"category", item->category},   {"brand", item->brand},
        {"currency", item->currency}, {"image_url", item->image_url}, {"url", item->url},
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        enum status status = check_text(texts[i].name, texts[i].text, err);
        if (status != STATUS_OK)
            return status;
    }
    return check_attributes(item, err);
}

/* The object behind what writer->texts holds; nothing when there are no attributes. */
static void write_attributes(struct catalog_writer *writer, const struct item *item)
{
    if (item->n_attributes == 0)
        return;
    struct json_writer json;
    json_writer_init(&json, &writer->texts);
    json_begin_object(&json, NULL);
    for (size_t i = 0; i < item->n_attributes; i++) {
        const struct item_attribute *attribute = &item->attributes[i];
        if (attribute->type == ATTRIBUTE_NUMBER)
            json_double(&json, attribute->name, attribute->number);
        else if (attribute->type == ATTRIBUTE_BOOL)
            json_bool(&json, attribute->name, attribute->number != 0);
        else
            json_string(&json, attribute->name, attribute->text);
    }
    json_end_object(&json);
}

/* writer->texts gets the cell of one item, as data/schema/items.sql describes it. */
static enum status write_texts(struct catalog_writer *writer, const struct item *item,
                               struct error *err)
{
    const char *const texts[] = {item->title, item->currency, item->image_url, item->url};
    buf_reset(&writer->texts);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i] != NULL)
            buf_append_text(&writer->texts, texts[i]);
        buf_append_char(&writer->texts, '\0');
    }
    write_attributes(writer, item);
    buf_append_char(&writer->texts, '\0');
    if (writer->texts.status != STATUS_OK)
        return error_set(err, writer->texts.status, "texts of an item: %s",
                         status_text(writer->texts.status));
    return STATUS_OK;
}

static int bind_text(sqlite3_stmt *statement, int index, const char *text)
{
    return text == NULL ? sqlite3_bind_null(statement, index)
                        : sqlite3_bind_text(statement, index, text, -1, SQLITE_STATIC);
}

/* Steps a statement that returns no row, and makes it ready for the next time. */
static enum status run(const struct catalog_writer *writer, sqlite3_stmt *statement,
                       struct error *err)
{
    int code = sqlite3_step(statement);
    enum status status = code == SQLITE_DONE ? STATUS_OK : db_error(writer, code, err);
    (void)sqlite3_reset(statement);
    return status;
}

static enum status insert_row(struct catalog_writer *writer, size_t row, struct error *err)
{
    int code = sqlite3_bind_int64(writer->insert, 1, (sqlite3_int64)row);
    if (code == SQLITE_OK)
        code = sqlite3_bind_blob64(writer->insert, 2, writer->texts.data, writer->texts.len,
                                   SQLITE_STATIC);
    if (code != SQLITE_OK)
        return db_error(writer, code, err);
    return run(writer, writer->insert, err);
}

enum status catalog_writer_add(struct catalog_writer *writer, const struct item *item,
                               double popularity, struct error *err)
{
    if (writer->broken != STATUS_OK)
        return error_set(err, writer->broken, "an earlier item could not be written");
    enum status status = check_item(item, popularity, err);
    if (status != STATUS_OK)
        return status;
    size_t id_len = strlen(item->id);
    if (idmap_find(writer->ids, item->id, id_len) != IDMAP_NONE)
        return error_set_field(err, STATUS_EXISTS, "id", "id: \"%.128s\" is there already",
                               item->id);
    size_t row = idmap_size(writer->ids);
    status = write_texts(writer, item, err);
    if (status == STATUS_OK)
        status = insert_row(writer, row, err);
    if (status == STATUS_OK)
        status = put_columns(writer, row, item, popularity, err);
    if (status == STATUS_OK) {
        uint32_t number = 0;
        status = idmap_add(writer->ids, item->id, id_len, &number);
        if (status != STATUS_OK)
            (void)error_set(err, status, "ids: %s", status_text(status));
    }
    writer->broken = status;
    return status;
}

/* ---- finishing ---- */

struct blob {
    const void *bytes; /* NULL: SQL NULL */
    size_t n_bytes;
};

/* The ids of a map lie NUL-terminated one after another. */
static struct blob blob_of(const struct idmap *map)
{
    size_t n = idmap_size(map);
    if (n == 0)
        return (struct blob){.bytes = "", .n_bytes = 0};
    size_t last_len = 0;
    const char *first = idmap_id(map, 0, NULL);
    const char *last = idmap_id(map, (uint32_t)(n - 1), &last_len);
    return (struct blob){.bytes = first, .n_bytes = (size_t)(last - first) + last_len + 1};
}

static enum status write_column(const struct catalog_writer *writer, sqlite3_stmt *statement,
                                const char *name, int type, const struct blob blobs[2],
                                struct error *err)
{
    if (blobs[0].n_bytes > BLOB_MAX_BYTES || blobs[1].n_bytes > BLOB_MAX_BYTES - blobs[0].n_bytes)
        return error_set_field(err, STATUS_LIMIT, name, "%s: column %.60s is larger than %d bytes",
                               writer->path, name, BLOB_MAX_BYTES);
    int code = bind_text(statement, 1, name);
    if (code == SQLITE_OK)
        code = bind_text(statement, 2, catalog_type_names[type]);
    for (int i = 0; i < 2 && code == SQLITE_OK; i++)
        code = blobs[i].bytes == NULL ? sqlite3_bind_null(statement, 3 + i)
                                      : sqlite3_bind_blob64(statement, 3 + i, blobs[i].bytes,
                                                            blobs[i].n_bytes, SQLITE_STATIC);
    if (code != SQLITE_OK)
        return db_error(writer, code, err);
    return run(writer, statement, err);
}

/* A column of texts that are all numbers (or all bools) → numbers[column->n], gives. */
static enum status numbers_from_texts(const struct gathered *column, bool are_bools, double **out,
                                      struct error *err)
{
    size_t n_texts = idmap_size(column->dictionary);
    double *values = mem_alloc_array(n_texts + 1, sizeof(*values));
    double *numbers = mem_alloc_array(column->n, sizeof(*numbers));
    *out = numbers;
    if (values == NULL || numbers == NULL) {
        mem_free(values);
        mem_free(numbers);
        *out = NULL;
        return fail_nomem(err);
    }
    values[0] = (double)NAN;
    for (size_t i = 0; i < n_texts; i++) {
        size_t len = 0;
        const char *text = idmap_id(column->dictionary, (uint32_t)i, &len);
        bool flag = false;
        /* Both were checked when the item was added. */
        if (are_bools) {
            (void)parse_bool(text, len, &flag);
            values[i + 1] = flag ? 1 : 0;
        } else {
            (void)parse_double(text, len, &values[i + 1]);
        }
    }
    for (size_t i = 0; i < column->n; i++)
        numbers[i] = values[column->codes[i]];
    mem_free(values);
    return STATUS_OK;
}

static enum status write_gathered(const struct catalog_writer *writer, sqlite3_stmt *statement,
                                  const struct gathered *column, struct error *err)
{
    enum column_type type = column->type;
    double *numbers = NULL;
    bool are_bools = column->types_met == 1U << ATTRIBUTE_BOOL;
    if (are_bools || column->types_met == 1U << ATTRIBUTE_NUMBER) {
        type = are_bools ? COLUMN_BOOL : COLUMN_NUMBER;
        enum status status = numbers_from_texts(column, are_bools, &numbers, err);
        if (status != STATUS_OK)
            return status;
    }
    const double *written = numbers != NULL ? numbers : column->numbers;
    struct blob blobs[2] = {{.bytes = ""}, {.bytes = NULL}};
    if (numbers != NULL || column->dictionary == NULL) {
        if (column->n > 0)
            blobs[0] = (struct blob){written, column->n * sizeof(*written)};
    } else {
        if (column->n > 0)
            blobs[0] = (struct blob){column->codes, column->n * sizeof(*column->codes)};
        blobs[1] = blob_of(column->dictionary);
    }
    enum status status = write_column(writer, statement, column->name, (int)type, blobs, err);
    mem_free(numbers);
    return status;
}

static enum status write_columns(struct catalog_writer *writer, struct error *err)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(
        writer->db, "INSERT INTO columns (name, type, data, dictionary) VALUES (?1, ?2, ?3, ?4)",
        -1, &statement, NULL);
    if (code != SQLITE_OK)
        return db_error(writer, code, err);
    size_t n = idmap_size(writer->ids);
    struct blob ids[2] = {blob_of(writer->ids), {.bytes = NULL}};
    enum status status = write_column(writer, statement, "id", CATALOG_TYPE_ID, ids, err);
    for (size_t i = 0; i < writer->n_columns && status == STATUS_OK; i++) {
        struct gathered *column = &writer->columns[i];
        if (n > 0)
            status = pad(column, n, err);
        if (status == STATUS_OK)
            status = write_gathered(writer, statement, column, err);
    }
    (void)sqlite3_finalize(statement);
    return status;
}

static void free_memory(struct catalog_writer *writer)
{
    for (size_t i = 0; i < writer->n_columns; i++) {
        mem_free(writer->columns[i].name);
        mem_free(writer->columns[i].numbers);
        mem_free(writer->columns[i].codes);
        idmap_close(writer->columns[i].dictionary);
    }
    mem_free(writer->columns);
    idmap_close(writer->ids);
    idmap_close(writer->attribute_names);
    buf_free(&writer->texts);
    writer->columns = NULL;
    writer->n_columns = 0;
    writer->ids = NULL;
    writer->attribute_names = NULL;
}

static enum status close_db(struct catalog_writer *writer, struct error *err)
{
    (void)sqlite3_finalize(writer->insert);
    writer->insert = NULL;
    int code = sqlite3_close(writer->db);
    enum status status = code == SQLITE_OK ? STATUS_OK : db_error(writer, code, err);
    writer->db = NULL;
    return status;
}

/* Reads the finished file as a server would. */
static enum status check_file(const char *path, size_t n, struct error *err)
{
    struct catalog *catalog = NULL;
    enum status status = catalog_open(path, &catalog, err);
    if (status == STATUS_OK && catalog_size(catalog) != n)
        status = error_set(err, STATUS_INTERNAL, "%s: %zu items were written, %zu are there", path,
                           n, catalog_size(catalog));
    catalog_close(catalog);
    return status;
}

enum status catalog_writer_finish(struct catalog_writer *writer, struct error *err)
{
    enum status status = writer->broken;
    size_t n = idmap_size(writer->ids);
    if (status != STATUS_OK)
        (void)error_set(err, status, "an earlier item could not be written");
    else
        status = write_columns(writer, err);
    if (status == STATUS_OK)
        status = catalog_db_exec(writer->db, "COMMIT", writer->path, err);
    if (status == STATUS_OK)
        status = close_db(writer, err);
    free_memory(writer);
    if (status == STATUS_OK)
        status = check_file(writer->path, n, err);
    if (status == STATUS_OK)
        status = file_fsync(writer->path, err);
    if (status != STATUS_OK) {
        catalog_writer_abandon(writer);
        return status;
    }
    mem_free(writer->path);
    mem_free(writer);
    return STATUS_OK;
}

void catalog_writer_abandon(struct catalog_writer *writer)
{
    if (writer == NULL)
        return;
    if (writer->db != NULL)
        (void)close_db(writer, NULL);
    free_memory(writer);
    (void)unlink(writer->path);
    mem_free(writer->path);
    mem_free(writer);
}

/* ---- opening ---- */

static enum status open_db(struct catalog_writer *writer, struct error *err)
{
    int code =
        sqlite3_open_v2(writer->path, &writer->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK)
        return db_error(writer, code, err);
    char settings[256];
    (void)sqlite3_snprintf((int)sizeof(settings), settings,
                           "PRAGMA page_size=4096; PRAGMA journal_mode=OFF;"
                           "PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE;"
                           "PRAGMA application_id=%d; PRAGMA user_version=%d; BEGIN;",
                           CATALOG_APPLICATION_ID, CATALOG_SCHEMA_VERSION);
    enum status status = catalog_db_exec(writer->db, settings, writer->path, err);
    if (status == STATUS_OK)
        status = catalog_db_exec(writer->db, CREATE_SQL, writer->path, err);
    if (status != STATUS_OK)
        return status;
    code = sqlite3_prepare_v2(writer->db, "INSERT INTO items VALUES (?1, ?2)", -1, &writer->insert,
                              NULL);
    return code == SQLITE_OK ? STATUS_OK : db_error(writer, code, err);
}

static enum status open_memory(struct catalog_writer *writer, struct error *err)
{
    enum status status = idmap_open(0, &writer->ids, err);
    if (status == STATUS_OK)
        status = idmap_open(0, &writer->attribute_names, err);
    for (size_t i = 0; i < N_CATALOG_FIXED && status == STATUS_OK; i++)
        status = add_column(writer, "", catalog_fixed_columns[i].name,
                            catalog_fixed_columns[i].type, err);
    return status;
}

enum status catalog_writer_open(const char *path, struct catalog_writer **out, struct error *err)
{
    *out = NULL;
    if (file_exists(path))
        return error_set(err, STATUS_EXISTS, "%s: is there already", path);
    struct catalog_writer *writer = mem_calloc(1, sizeof(*writer));
    if (writer == NULL)
        return fail_nomem(err);
    buf_init(&writer->texts, TEXTS_MAX_BYTES);
    writer->path = mem_strdup(path);
    if (writer->path == NULL) {
        mem_free(writer);
        return fail_nomem(err);
    }
    enum status status = open_memory(writer, err);
    if (status == STATUS_OK)
        status = open_db(writer, err);
    if (status != STATUS_OK) {
        catalog_writer_abandon(writer);
        return status;
    }
    *out = writer;
    return STATUS_OK;
}
