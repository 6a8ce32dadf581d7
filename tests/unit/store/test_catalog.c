#include "store/catalog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/rng.h"
#include "store/catalog_internal.h"

#define NONE ((double)NAN)

/* The name has what a URI must escape. */
static char dir[] = "/tmp/aisle-catalog-XXXXXX";
static char path[128];
static char copy_path[128];

static int make_dir(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    (void)snprintf(path, sizeof(path), "%s/a b?c#d%%41é.db", dir);
    (void)snprintf(copy_path, sizeof(copy_path), "%s/copy.db", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return dir_remove(dir, NULL) == STATUS_OK ? 0 : -1;
}

static const struct item_attribute LAMP_ATTRIBUTES[] = {
    {"size", ATTRIBUTE_NUMBER, "40.0", 40},
    {"eco", ATTRIBUTE_BOOL, "true", 1},
    {"mixed", ATTRIBUTE_NUMBER, "12", 12},
    {"colour", ATTRIBUTE_TEXT, "red \"x\"", NONE},
};
static const struct item_attribute CHAIR_ATTRIBUTES[] = {
    {"mixed", ATTRIBUTE_BOOL, "false", 0},
    {"eco", ATTRIBUTE_BOOL, "false", 0},
};

static const struct item ITEMS[] = {
    {.id = "A",
     .title = "Lamp",
     .category = "Home > Lighting",
     .brand = "Lux",
     .currency = "GBP",
     .image_url = "i.jpg",
     .url = "u.html",
     .price = 12.5,
     .stock = 3,
     .created_at_ms = 1704067200000.0,
     .attributes = LAMP_ATTRIBUTES,
     .n_attributes = 4},
    {.id = "B", .title = "Bare", .price = NONE, .stock = NONE, .created_at_ms = NONE},
    {.id = "Ç",
     .title = "Chair",
     .category = "Home > Lighting",
     .brand = "",
     .price = 0,
     .stock = -1,
     .created_at_ms = NONE,
     .attributes = CHAIR_ATTRIBUTES,
     .n_attributes = 2},
};
static const double POPULARITY[] = {0.25, 0.5, 0.25};
enum { N_ITEMS = 3 };

static struct catalog_writer *start_catalog(const char *at)
{
    struct catalog_writer *writer = NULL;
    struct error err = {.code = STATUS_OK};
    (void)unlink(at);
    if (catalog_writer_open(at, &writer, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return writer;
}

static void write_catalog(const char *at)
{
    struct catalog_writer *writer = start_catalog(at);
    struct error err = {.code = STATUS_OK};
    for (size_t i = 0; i < N_ITEMS; i++)
        assert_int_equal(catalog_writer_add(writer, &ITEMS[i], POPULARITY[i], &err), STATUS_OK);
    if (catalog_writer_finish(writer, &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static struct catalog *open_catalog(const char *at)
{
    struct catalog *catalog = NULL;
    struct error err = {.code = STATUS_OK};
    if (catalog_open(at, &catalog, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return catalog;
}

static void expect_numbers(const struct catalog *catalog, const char *name, enum column_type type,
                           double a, double b, double c)
{
    const struct catalog_column *column = catalog_column(catalog, name);
    const double expected[] = {a, b, c};
    assert_non_null(column);
    assert_string_equal(column->name, name);
    assert_int_equal(column->type, type);
    assert_null(column->codes);
    for (size_t i = 0; i < N_ITEMS; i++)
        assert_true(isnan(expected[i]) ? isnan(column->numbers[i])
                                       : column->numbers[i] == expected[i]);
}

static void expect_texts(const struct catalog *catalog, const char *name, enum column_type type,
                         const char *a, const char *b, const char *c)
{
    const struct catalog_column *column = catalog_column(catalog, name);
    const char *const expected[] = {a, b, c};
    assert_non_null(column);
    assert_int_equal(column->type, type);
    assert_null(column->numbers);
    for (size_t i = 0; i < N_ITEMS; i++) {
        if (expected[i] == NULL)
            assert_int_equal(column->codes[i], 0);
        else
            assert_string_equal(idmap_id(column->dictionary, column->codes[i] - 1, NULL),
                                expected[i]);
    }
}

static void catalog_open_written_columns_come_back(void **state)
{
    (void)state;
    write_catalog(path);
    struct catalog *catalog = open_catalog(path);
    assert_int_equal(catalog_size(catalog), N_ITEMS);
    assert_int_equal(catalog_row(catalog, "B", 1), 1);
    assert_int_equal(catalog_row(catalog, "nope", 4), IDMAP_NONE);
    size_t len = 0;
    assert_string_equal(catalog_id(catalog, 2, &len), "Ç");
    assert_int_equal(len, 2);
    expect_numbers(catalog, "price", COLUMN_NUMBER, 12.5, NONE, 0);
    expect_numbers(catalog, "stock", COLUMN_NUMBER, 3, NONE, -1);
    expect_numbers(catalog, "created_at", COLUMN_TIME, 1704067200000.0, NONE, NONE);
    expect_numbers(catalog, "popularity", COLUMN_NUMBER, 0.25, 0.5, 0.25);
    expect_texts(catalog, "category", COLUMN_CATEGORY, "Home > Lighting", NULL, "Home > Lighting");
    expect_texts(catalog, "brand", COLUMN_TEXT, "Lux", NULL, "");
    expect_numbers(catalog, "attributes.size", COLUMN_NUMBER, 40, NONE, NONE);
    expect_numbers(catalog, "attributes.eco", COLUMN_BOOL, 1, NONE, 0);
    expect_texts(catalog, "attributes.mixed", COLUMN_TEXT, "12", NULL, "false");
    expect_texts(catalog, "attributes.colour", COLUMN_TEXT, "red \"x\"", NULL, NULL);
    assert_null(catalog_column(catalog, "colour"));
    assert_int_equal(catalog_n_columns(catalog), 10);
    assert_string_equal(catalog_column_at(catalog, 0)->name, "price");
    assert_string_equal(catalog_column_at(catalog, 9)->name, "attributes.colour");
    assert_null(catalog_column_at(catalog, 10));
    const uint32_t expected[] = {1, 0, 2};
    assert_memory_equal(catalog_by_popularity(catalog), expected, sizeof(expected));
    assert_true(catalog_bytes(catalog) > 300);
    catalog_close(catalog);
}

static void catalog_read_gives_metadata(void **state)
{
    (void)state;
    write_catalog(path);
    struct catalog *catalog = open_catalog(path);
    struct catalog_reader *reader = NULL;
    struct item_metadata item;
    assert_int_equal(catalog_reader_open(catalog, &reader, NULL), STATUS_OK);
    assert_int_equal(catalog_read(reader, 0, &item, NULL), STATUS_OK);
    assert_string_equal(item.title, "Lamp");
    assert_string_equal(item.category, "Home > Lighting");
    assert_string_equal(item.brand, "Lux");
    assert_string_equal(item.currency, "GBP");
    assert_string_equal(item.image_url, "i.jpg");
    assert_string_equal(item.url, "u.html");
    assert_string_equal(item.attributes_json,
                        "{\"size\":40,\"eco\":true,\"mixed\":12,\"colour\":\"red \\\"x\\\"\"}");
    assert_true(item.price == 12.5 && item.stock == 3 && item.created_at_ms == 1704067200000.0);
    assert_int_equal(catalog_read(reader, 1, &item, NULL), STATUS_OK);
    assert_string_equal(item.title, "Bare");
    assert_null(item.category);
    assert_null(item.attributes_json);
    assert_true(isnan(item.price) && isnan(item.stock) && isnan(item.created_at_ms));
    struct error err = {.code = STATUS_OK};
    assert_int_equal(catalog_read(reader, 3, &item, &err), STATUS_NOT_FOUND);
    assert_string_equal(item.title, "Bare");
    assert_int_equal(catalog_read(reader, 2, &item, &err), STATUS_OK);
    assert_string_equal(item.title, "Chair");
    catalog_reader_close(reader);
    catalog_close(catalog);
}

static void read_whole(const char *at, struct buf *out)
{
    buf_init(out, 64 << 20);
    assert_int_equal(file_read(at, out, NULL), STATUS_OK);
}

static void catalog_writer_finish_same_items_give_same_bytes(void **state)
{
    (void)state;
    struct buf first;
    struct buf second;
    write_catalog(path);
    read_whole(path, &first);
    write_catalog(path);
    read_whole(path, &second);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    buf_free(&first);
    buf_free(&second);
}

/* The CREATE statements of a database, one after another. */
static void schema_of(sqlite3 *db, char *out, size_t cap)
{
    sqlite3_stmt *statement = NULL;
    size_t len = 0;
    assert_int_equal(
        sqlite3_prepare_v2(db, "SELECT sql FROM sqlite_master ORDER BY name", -1, &statement, NULL),
        SQLITE_OK);
    while (sqlite3_step(statement) == SQLITE_ROW)
        len += (size_t)snprintf(out + len, cap - len, "%s;\n",
                                (const char *)sqlite3_column_text(statement, 0));
    (void)sqlite3_finalize(statement);
}

static void catalog_writer_open_schema_is_the_documented_one(void **state)
{
    (void)state;
    write_catalog(copy_path);
    sqlite3 *written = NULL;
    sqlite3 *documented = NULL;
    struct buf sql;
    read_whole(AISLE_TEST_DATA "/schema/items.sql", &sql);
    assert_int_equal(sqlite3_open(copy_path, &written), SQLITE_OK);
    assert_int_equal(sqlite3_open(":memory:", &documented), SQLITE_OK);
    assert_int_equal(sqlite3_exec(documented, buf_text(&sql), NULL, NULL, NULL), SQLITE_OK);
    char a[2048] = "";
    char b[2048] = "";
    schema_of(written, a, sizeof(a));
    schema_of(documented, b, sizeof(b));
    assert_true(strlen(a) > 200);
    assert_string_equal(a, b);
    (void)sqlite3_close(written);
    (void)sqlite3_close(documented);
    buf_free(&sql);
}

static void catalog_writer_add_refused_item_changes_nothing(void **state)
{
    (void)state;
    struct catalog_writer *writer = start_catalog(path);
    struct error err = {.code = STATUS_OK};
    struct item item = ITEMS[0];
    assert_int_equal(catalog_writer_add(writer, &item, 0, &err), STATUS_OK);
    assert_int_equal(catalog_writer_add(writer, &item, 0, &err), STATUS_EXISTS);
    assert_string_equal(err.field, "id");
    item.id = "B";
    assert_int_equal(catalog_writer_add(writer, &item, NONE, &err), STATUS_INVALID);
    assert_int_equal(catalog_writer_add(writer, &item, -1, &err), STATUS_INVALID);
    item.title = NULL;
    assert_int_equal(catalog_writer_add(writer, &item, 0, &err), STATUS_INVALID);
    item.title = "\xff";
    assert_int_equal(catalog_writer_add(writer, &item, 0, &err), STATUS_INVALID);
    assert_string_equal(err.field, "title");
    item.title = "T";
    item.price = -1;
    assert_int_equal(catalog_writer_add(writer, &item, 0, &err), STATUS_INVALID);
    item.price = 1;
    struct item_attribute attributes[] = {{"x", ATTRIBUTE_NUMBER, "abc", 1},
                                          {"x", ATTRIBUTE_TEXT, "abc", NONE}};
    item.attributes = attributes;
    item.n_attributes = 1;
    assert_int_equal(catalog_writer_add(writer, &item, 0, &err), STATUS_INVALID);
    attributes[0].type = ATTRIBUTE_TEXT;
    item.n_attributes = 2;
    assert_int_equal(catalog_writer_add(writer, &item, 0, &err), STATUS_INVALID);
    item.n_attributes = 1;
    assert_int_equal(catalog_writer_add(writer, &item, 0, &err), STATUS_OK);
    assert_int_equal(catalog_writer_finish(writer, &err), STATUS_OK);
    struct catalog *catalog = open_catalog(path);
    assert_int_equal(catalog_size(catalog), 2);
    assert_int_equal(catalog_n_columns(catalog), 11);
    catalog_close(catalog);
}

static void catalog_writer_add_number_of_attributes_is_limited(void **state)
{
    (void)state;
    struct catalog_writer *writer = start_catalog(path);
    struct error err = {.code = STATUS_OK};
    enum status status = STATUS_OK;
    char id[16];
    char name[16];
    int n = 0;
    for (; n <= CATALOG_ATTRIBUTE_COLUMNS_MAX && status == STATUS_OK; n++) {
        (void)snprintf(id, sizeof(id), "I%d", n);
        (void)snprintf(name, sizeof(name), "a%d", n);
        struct item_attribute attribute = {name, ATTRIBUTE_TEXT, "x", NONE};
        struct item item = {.id = id, .title = "T", .attributes = &attribute, .n_attributes = 1};
        status = catalog_writer_add(writer, &item, 0, &err);
    }
    assert_int_equal(n, CATALOG_ATTRIBUTE_COLUMNS_MAX + 1);
    assert_int_equal(status, STATUS_LIMIT);
    assert_string_equal(err.field, name);
    /* The writer is broken now, and says so; nothing is left behind. */
    assert_int_equal(catalog_writer_add(writer, &ITEMS[0], 0, &err), STATUS_LIMIT);
    assert_int_equal(catalog_writer_finish(writer, &err), STATUS_LIMIT);
    assert_false(file_exists(path));
}

static void catalog_writer_finish_no_items_gives_empty_catalogue(void **state)
{
    (void)state;
    struct catalog_writer *writer = start_catalog(path);
    assert_int_equal(catalog_writer_finish(writer, NULL), STATUS_OK);
    struct catalog *catalog = open_catalog(path);
    assert_int_equal(catalog_size(catalog), 0);
    assert_int_equal(catalog_n_columns(catalog), N_CATALOG_FIXED);
    catalog_close(catalog);
}

static void catalog_writer_abandon_removes_the_file(void **state)
{
    (void)state;
    struct catalog_writer *writer = start_catalog(path);
    assert_true(file_exists(path));
    struct catalog_writer *second = NULL;
    struct error err = {.code = STATUS_OK};
    assert_int_equal(catalog_writer_open(path, &second, &err), STATUS_EXISTS);
    assert_null(second);
    assert_true(file_exists(path));
    catalog_writer_abandon(writer);
    assert_false(file_exists(path));
    catalog_writer_abandon(NULL);
    assert_int_not_equal(catalog_writer_open("/nonexistent/x.db", &second, &err), STATUS_OK);
    assert_null(second);
}

/* A good catalogue that one statement then changes. */
static void expect_refused(const char *sql, enum status expected, const char *message)
{
    write_catalog(copy_path);
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(copy_path, &db), SQLITE_OK);
    char *problem = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &problem) != SQLITE_OK)
        fail_msg("%s", problem);
    (void)sqlite3_close(db);
    struct catalog *catalog = NULL;
    struct error err = {.code = STATUS_OK};
    assert_int_equal(catalog_open(copy_path, &catalog, &err), expected);
    assert_null(catalog);
    if (strstr(err.message, message) == NULL)
        fail_msg("\"%s\" does not hold \"%s\"", err.message, message);
}

static void catalog_open_what_does_not_add_up_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        enum status status;
        const char *message;
    } CASES[] = {
        {"PRAGMA application_id=1", STATUS_FORMAT, "not a catalogue"},
        {"PRAGMA user_version=2", STATUS_UNSUPPORTED, "newer than 1"},
        {"PRAGMA user_version=0", STATUS_FORMAT, "schema version 0"},
        {"DROP TABLE columns", STATUS_FORMAT, "no such table: columns"},
        {"DROP TABLE items", STATUS_FORMAT, "no such table: items"},
        {"DELETE FROM columns", STATUS_FORMAT, "no columns"},
        {"DELETE FROM columns WHERE name='id'", STATUS_FORMAT, "first column is not the ids"},
        {"DELETE FROM columns WHERE name='brand'", STATUS_FORMAT, "no column brand of type text"},
        {"UPDATE columns SET type='number', data=zeroblob(24), dictionary=NULL WHERE name='brand'",
         STATUS_FORMAT, "no column brand of type text"},
        {"UPDATE columns SET type='vector' WHERE name='price'", STATUS_FORMAT, "unknown type"},
        {"UPDATE columns SET name='stock' WHERE name='price'", STATUS_FORMAT, "there twice"},
        {"UPDATE columns SET name=x'00ff' WHERE name='price'", STATUS_FORMAT, "no valid name"},
        {"UPDATE columns SET data=zeroblob(23) WHERE name='price'", STATUS_FORMAT, "23 bytes"},
        {"UPDATE columns SET data=zeroblob(16) WHERE name='brand'", STATUS_FORMAT, "16 bytes"},
        {"UPDATE columns SET data=x'000000000000000003000000' WHERE name='brand'", STATUS_FORMAT,
         "row 2 has code 3 of 2"},
        {"UPDATE columns SET dictionary=NULL WHERE name='brand'", STATUS_FORMAT, "of texts"},
        {"UPDATE columns SET dictionary=x'41' WHERE name='brand'", STATUS_FORMAT, "does not end"},
        {"UPDATE columns SET dictionary=x'41004100' WHERE name='brand'", STATUS_FORMAT,
         "text 1 is also text 0"},
        {"UPDATE columns SET dictionary=x'4100ff00' WHERE name='brand'", STATUS_FORMAT,
         "text 1 is not valid"},
        {"UPDATE columns SET data=x'410041004200' WHERE name='id'", STATUS_FORMAT, "also text 0"},
        {"UPDATE columns SET data=x'41000042' WHERE name='id'", STATUS_FORMAT, "does not end"},
        {"UPDATE columns SET data=x'4100004300' WHERE name='id'", STATUS_FORMAT,
         "text 1 is not valid"},
        {"UPDATE columns SET data=x'000000000000f07f00000000000000000000000000000000' WHERE "
         "name='price'",
         STATUS_FORMAT, "row 0 has an impossible number"},
        {"UPDATE columns SET data=zeroblob(25) WHERE name='popularity'", STATUS_FORMAT,
         "25 bytes for 3 items"},
        {"UPDATE columns SET data='texts' WHERE name='brand'", STATUS_FORMAT,
         "column brand holds something else than blobs"},
        {"UPDATE columns SET dictionary=7 WHERE name='brand'", STATUS_FORMAT,
         "column brand holds something else than blobs"},
        {"UPDATE columns SET data=(SELECT data FROM columns WHERE name='created_at') WHERE "
         "name='popularity'",
         STATUS_FORMAT, "row 1 has no popularity"},
        {"UPDATE columns SET data=(SELECT data FROM columns WHERE name='price') WHERE "
         "name='attributes.eco'",
         STATUS_FORMAT, "row 0 has an impossible number"},
        {"DELETE FROM items WHERE row=2", STATUS_FORMAT, "3 ids, but the items end at row 1"},
        {"DELETE FROM items WHERE row=0", STATUS_FORMAT, "3 ids"},
        {"DELETE FROM items", STATUS_FORMAT, "3 ids"},
    };
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++)
        expect_refused(CASES[i].sql, CASES[i].status, CASES[i].message);
}

static void catalog_read_damaged_row_is_refused(void **state)
{
    (void)state;
    write_catalog(copy_path);
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(copy_path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "UPDATE items SET texts=x'ff0000000000' WHERE row=0;"
                                  "DELETE FROM items WHERE row=1",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    (void)sqlite3_close(db);
    struct catalog *catalog = open_catalog(copy_path);
    struct catalog_reader *reader = NULL;
    struct item_metadata item = {.price = 77};
    struct error err = {.code = STATUS_OK};
    assert_int_equal(catalog_reader_open(catalog, &reader, &err), STATUS_OK);
    assert_int_equal(catalog_read(reader, 0, &item, &err), STATUS_FORMAT);
    assert_int_equal(catalog_read(reader, 1, &item, &err), STATUS_NOT_FOUND);
    assert_true(item.price == 77);
    assert_int_equal(catalog_read(reader, 2, &item, &err), STATUS_OK);
    catalog_reader_close(reader);
    catalog_close(catalog);
}

static void catalog_open_other_files_are_refused(void **state)
{
    (void)state;
    struct catalog *catalog = NULL;
    struct error err = {.code = STATUS_OK};
    (void)unlink(copy_path);
    assert_int_equal(catalog_open(copy_path, &catalog, &err), STATUS_NOT_FOUND);
    assert_int_equal(file_write_atomic(copy_path, "", 0, NULL), STATUS_OK);
    assert_int_equal(catalog_open(copy_path, &catalog, &err), STATUS_FORMAT);
    char text[8192];
    memset(text, 'x', sizeof(text));
    assert_int_equal(file_write_atomic(copy_path, text, sizeof(text), NULL), STATUS_OK);
    assert_int_equal(catalog_open(copy_path, &catalog, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.message, "not a database"));
    assert_null(catalog);
    catalog_close(NULL);
    catalog_reader_close(NULL);
}

/* Whatever opens is read in whole. */
static void use_damaged(const char *at)
{
    struct catalog *catalog = NULL;
    struct error err = {.code = STATUS_OK};
    enum status status = catalog_open(at, &catalog, &err);
    if (status != STATUS_OK) {
        assert_null(catalog);
        assert_int_equal(err.code, status);
        return;
    }
    struct catalog_reader *reader = NULL;
    status = catalog_reader_open(catalog, &reader, &err);
    for (size_t row = 0; status == STATUS_OK && row < catalog_size(catalog); row++) {
        struct item_metadata item;
        (void)!catalog_read(reader, (uint32_t)row, &item, &err);
    }
    catalog_reader_close(reader);
    catalog_close(catalog);
}

static void catalog_open_damaged_bytes_never_crash(void **state)
{
    (void)state;
    struct buf good;
    struct rng rng;
    write_catalog(path);
    read_whole(path, &good);
    rng_init(&rng, 11);
    char *bytes = mem_alloc(good.len);
    assert_non_null(bytes);
    for (int round = 0; round < 300; round++) {
        memcpy(bytes, good.data, good.len);
        size_t len = round % 10 == 0 ? (size_t)rng_below(&rng, good.len) : good.len;
        for (int change = 0; change < 1 + round % 8; change++)
            bytes[rng_below(&rng, good.len)] = (char)rng_below(&rng, 256);
        FILE *file = fopen(copy_path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(bytes, 1, len, file), len);
        assert_int_equal(fclose(file), 0);
        use_damaged(copy_path);
    }
    mem_free(bytes);
    buf_free(&good);
}

static void catalog_open_without_memory_is_nomem(void **state)
{
    (void)state;
    write_catalog(path);
    for (int64_t nth = 1;; nth++) {
        assert_true(nth < 1000);
        struct catalog *catalog = NULL;
        struct catalog_reader *reader = NULL;
        struct error err = {.code = STATUS_OK};
        mem_fail_nth(nth);
        enum status status = catalog_open(path, &catalog, &err);
        assert_true((status == STATUS_OK) == (catalog != NULL));
        if (status == STATUS_OK) {
            status = catalog_reader_open(catalog, &reader, &err);
            assert_true((status == STATUS_OK) == (reader != NULL));
        }
        mem_fail_nth(0);
        catalog_reader_close(reader);
        catalog_close(catalog);
        if (status == STATUS_OK)
            break;
        assert_int_equal(status, STATUS_NOMEM);
        assert_int_equal(err.code, STATUS_NOMEM);
    }
}

static void catalog_writer_without_memory_leaves_no_file(void **state)
{
    (void)state;
    (void)unlink(path);
    for (int64_t nth = 1;; nth++) {
        assert_true(nth < 2000);
        struct catalog_writer *writer = NULL;
        struct error err = {.code = STATUS_OK};
        mem_fail_nth(nth);
        enum status status = catalog_writer_open(path, &writer, &err);
        assert_true((status == STATUS_OK) == (writer != NULL));
        for (size_t i = 0; i < N_ITEMS && status == STATUS_OK; i++)
            status = catalog_writer_add(writer, &ITEMS[i], POPULARITY[i], &err);
        if (writer != NULL) {
            enum status finished = catalog_writer_finish(writer, &err);
            assert_true(status == STATUS_OK || finished == status);
            status = finished;
        }
        mem_fail_nth(0);
        if (status == STATUS_OK)
            break;
        assert_int_equal(status, STATUS_NOMEM);
        assert_false(file_exists(path));
    }
    assert_true(file_exists(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(catalog_open_written_columns_come_back),
        cmocka_unit_test(catalog_read_gives_metadata),
        cmocka_unit_test(catalog_writer_finish_same_items_give_same_bytes),
        cmocka_unit_test(catalog_writer_open_schema_is_the_documented_one),
        cmocka_unit_test(catalog_writer_add_refused_item_changes_nothing),
        cmocka_unit_test(catalog_writer_add_number_of_attributes_is_limited),
        cmocka_unit_test(catalog_writer_finish_no_items_gives_empty_catalogue),
        cmocka_unit_test(catalog_writer_abandon_removes_the_file),
        cmocka_unit_test(catalog_open_what_does_not_add_up_is_refused),
        cmocka_unit_test(catalog_read_damaged_row_is_refused),
        cmocka_unit_test(catalog_open_other_files_are_refused),
        cmocka_unit_test(catalog_open_damaged_bytes_never_crash),
        cmocka_unit_test(catalog_open_without_memory_is_nomem),
        cmocka_unit_test(catalog_writer_without_memory_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
