#include "store/items.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/parse.h"
#include "store/table_internal.h"

static enum status open_text(const char *name, const char *text, struct item_reader **out,
                             struct error *err)
{
    *out = NULL;
    struct table *table = NULL;
    enum status status = table_open_bytes(text, strlen(text), name, '\0', &table, err);
    return status == STATUS_OK ? item_reader_open_table(table, out, err) : status;
}

/* Reads to the end or to the first failure; the last item read stays in *item. */
static enum status read_all(const char *name, const char *text, size_t *n, struct error *err)
{
    struct item_reader *reader = NULL;
    struct item item;
    *n = 0;
    enum status status = open_text(name, text, &reader, err);
    assert_true(status == STATUS_OK || reader == NULL);
    while (status == STATUS_OK) {
        status = item_reader_next(reader, &item, err);
        *n += status == STATUS_OK;
    }
    item_reader_close(reader);
    return status;
}

static void expect_invalid(const char *name, const char *text, const char *field,
                           const char *message)
{
    struct error err = {.code = STATUS_OK};
    size_t n = 0;
    assert_int_equal(read_all(name, text, &n, &err), STATUS_INVALID);
    if (strcmp(err.message, message) != 0)
        fail_msg("\"%s\" is not \"%s\"", err.message, message);
    assert_string_equal(err.field, field);
}

static void item_reader_next_csv_gives_all_columns(void **state)
{
    (void)state;
    static const char TEXT[] =
        "id,title,category,brand,price,currency,stock,image_url,url,created_at,attributes.colour,"
        "size,eco,empty\n"
        "A,Lamp,Home>Lighting  >\tLanterns,Lux,12.50,GBP,-3,i.jpg,u.html,2024-01-01,red,40,true,\n"
        "B,\"Two\nlines\",,,,,,,,,1,big,false,\n";
    struct item_reader *reader = NULL;
    struct item item;
    assert_int_equal(open_text("i.csv", TEXT, &reader, NULL), STATUS_OK);
    assert_int_equal(item_reader_next(reader, &item, NULL), STATUS_OK);
    assert_string_equal(item.id, "A");
    assert_string_equal(item.title, "Lamp");
    assert_string_equal(item.category, "Home > Lighting > Lanterns");
    assert_string_equal(item.brand, "Lux");
    assert_string_equal(item.currency, "GBP");
    assert_string_equal(item.image_url, "i.jpg");
    assert_string_equal(item.url, "u.html");
    assert_true(item.price == 12.5 && item.stock == -3);
    assert_true(item.created_at_ms == 1704067200000.0);
    assert_int_equal(item.n_attributes, 3);
    assert_string_equal(item.attributes[0].name, "colour");
    assert_int_equal(item.attributes[0].type, ATTRIBUTE_TEXT);
    assert_string_equal(item.attributes[1].name, "size");
    assert_int_equal(item.attributes[1].type, ATTRIBUTE_NUMBER);
    assert_true(item.attributes[1].number == 40);
    assert_string_equal(item.attributes[1].text, "40");
    assert_int_equal(item.attributes[2].type, ATTRIBUTE_BOOL);
    assert_true(item.attributes[2].number == 1);

    assert_int_equal(item_reader_next(reader, &item, NULL), STATUS_OK);
    assert_string_equal(item.title, "Two\nlines");
    assert_null(item.category);
    assert_null(item.url);
    assert_true(isnan(item.price) && isnan(item.stock) && isnan(item.created_at_ms));
    assert_int_equal(item.attributes[0].type, ATTRIBUTE_NUMBER);
    assert_true(item.attributes[2].number == 0);

    struct error err = {.code = STATUS_OK, .message = "untouched"};
    assert_int_equal(item_reader_next(reader, &item, &err), STATUS_NOT_FOUND);
    assert_string_equal(err.message, "untouched");
    item_reader_close(reader);
}

static void item_reader_next_json_types_attributes(void **state)
{
    (void)state;
    struct item_reader *reader = NULL;
    struct item item;
    assert_int_equal(open_text("i.jsonl",
                               "{\"id\":42,\"title\":\"T\",\"brand\":\"\",\"price\":-0,"
                               "\"created_at\":1704067200,\"attributes\":{\"title\":\"12\"},"
                               "\"n\":1.5,\"b\":false}",
                               &reader, NULL),
                     STATUS_OK);
    assert_int_equal(item_reader_next(reader, &item, NULL), STATUS_OK);
    assert_string_equal(item.id, "42");
    assert_string_equal(item.title, "T");
    assert_null(item.brand);
    assert_true(item.price == 0 && !signbit(item.price));
    assert_true(item.created_at_ms == 1704067200000.0);
    assert_int_equal(item.n_attributes, 3);
    assert_string_equal(item.attributes[0].name, "title");
    assert_int_equal(item.attributes[0].type, ATTRIBUTE_TEXT);
    assert_int_equal(item.attributes[1].type, ATTRIBUTE_NUMBER);
    assert_int_equal(item.attributes[2].type, ATTRIBUTE_BOOL);
    item_reader_close(reader);
}

static void item_reader_open_missing_column_is_invalid(void **state)
{
    (void)state;
    expect_invalid("i.csv", "id,name\nA,b\n", "title",
                   "i.csv:1: title: the header has no such column");
    expect_invalid("i.csv", "title\nA\n", "id", "i.csv:1: id: the header has no such column");
    expect_invalid("i.csv", "id,title,x,attributes.x\n", "attributes.x",
                   "i.csv:1: attributes.x: the attribute is also there without its prefix");
}

static void item_reader_next_faulty_values_are_invalid(void **state)
{
    (void)state;
    expect_invalid("i.csv", "id,title\n,x\n", "id", "i.csv:2: id: missing");
    expect_invalid("i.csv", "id,title\nA,\n", "title", "i.csv:2: title: missing");
    expect_invalid("i.jsonl", "{\"id\":\"A\",\"title\":\"\"}", "title",
                   "i.jsonl:1: title: missing");
    expect_invalid("i.csv", "id,title\n\"A\nB\",x\n", "id",
                   "i.csv:2: id: not an id of 1 to 128 bytes without control characters");
    expect_invalid("i.jsonl", "{\"id\":\"\",\"title\":\"x\"}", "id",
                   "i.jsonl:1: id: not an id of 1 to 128 bytes without control characters");
    expect_invalid("i.csv", "id,title,price\nA,x,1\nB,x,-0.01\n", "price",
                   "i.csv:3: price: a negative price");
    expect_invalid("i.csv", "id,title,price\nA,x,nan\n", "price",
                   "i.csv:2: price: \"nan\" is not a number");
    expect_invalid("i.csv", "id,title,stock\nA,x,12 pieces\n", "stock",
                   "i.csv:2: stock: \"12 pieces\" is not a number");
    expect_invalid("i.jsonl", "{\"id\":\"A\",\"title\":\"x\",\"price\":\"5\"}", "price",
                   "i.jsonl:1: price: a text where a number is wanted");
    expect_invalid("i.csv", "id,title,created_at\nA,x,yesterday\n", "created_at",
                   "i.csv:2: created_at: \"yesterday\" is not a time");
    expect_invalid("i.csv", "id,title,category\nA,x,Home > > Lamps\n", "category",
                   "i.csv:2: category: part 2 of the path is empty");
    expect_invalid("i.csv", "id,title,category\nA,x,Home >\n", "category",
                   "i.csv:2: category: part 2 of the path is empty");
    expect_invalid("i.csv", "id,title,attributes.\nA,x,y\n", "attributes.",
                   "i.csv:2: attributes.: not an attribute name of 1 to 128 bytes");
    expect_invalid("i.jsonl", "{\"id\":\"A\",\"title\":\"x\",\"c\":1,\"attributes\":{\"c\":2}}",
                   "attributes.c",
                   "i.jsonl:1: attributes.c: the attribute is also there without its prefix");
}

static void item_reader_next_repeated_id_names_both_lines(void **state)
{
    (void)state;
    expect_invalid("i.csv", "id,title\nA,\"x\ny\"\nB,x\n\nA,z\n", "id",
                   "i.csv:6: id: \"A\" is already on line 2");
}

static void item_reader_next_text_length_is_limited(void **state)
{
    (void)state;
    static char text[ITEM_TEXT_MAX_BYTES + 64];
    struct error err = {.code = STATUS_OK};
    size_t n = 0;
    for (size_t over = 0; over < 2; over++) {
        size_t len = (size_t)snprintf(text, sizeof(text), "id,title\nA,");
        memset(text + len, 'x', ITEM_TEXT_MAX_BYTES + over);
        text[len + ITEM_TEXT_MAX_BYTES + over] = '\0';
        assert_int_equal(read_all("i.csv", text, &n, &err),
                         over == 0 ? STATUS_NOT_FOUND : STATUS_INVALID);
        assert_int_equal(n, 1 - over);
    }
    assert_string_equal(err.message, "i.csv:2: title: longer than 65536 bytes");
    /* The blanks that normalising adds count. */
    size_t len = (size_t)snprintf(text, sizeof(text), "id,title,category\nA,x,a>");
    memset(text + len, 'x', ITEM_TEXT_MAX_BYTES - 3);
    text[len + ITEM_TEXT_MAX_BYTES - 3] = '\0';
    assert_int_equal(read_all("i.csv", text, &n, &err), STATUS_INVALID);
    assert_string_equal(err.message, "i.csv:2: category: longer than 65536 bytes");
}

static void item_reader_next_id_length_is_limited(void **state)
{
    (void)state;
    char text[ID_BYTES_MAX + 64];
    struct error err = {.code = STATUS_OK};
    size_t n = 0;
    for (int over = 0; over < 2; over++) {
        (void)snprintf(text, sizeof(text), "id,title\n%0*d,x\n", ID_BYTES_MAX + over, 1);
        assert_int_equal(read_all("i.csv", text, &n, &err),
                         over == 0 ? STATUS_NOT_FOUND : STATUS_INVALID);
    }
    assert_string_equal(err.message, "i.csv:2: id: longer than 128 bytes");
}

static void item_reader_next_number_of_attributes_is_limited(void **state)
{
    (void)state;
    char text[ITEM_ATTRIBUTES_MAX * 16];
    struct error err = {.code = STATUS_OK};
    size_t n = 0;
    for (size_t n_attributes = ITEM_ATTRIBUTES_MAX; n_attributes <= ITEM_ATTRIBUTES_MAX + 1;
         n_attributes++) {
        size_t len = (size_t)snprintf(text, sizeof(text), "{\"id\":\"A\",\"title\":\"x\"");
        for (size_t i = 0; i < n_attributes; i++)
            len += (size_t)snprintf(text + len, sizeof(text) - len, ",\"a%zu\":1", i);
        (void)snprintf(text + len, sizeof(text) - len, "}");
        assert_int_equal(read_all("i.jsonl", text, &n, &err),
                         n_attributes == ITEM_ATTRIBUTES_MAX ? STATUS_NOT_FOUND : STATUS_LIMIT);
    }
    assert_string_equal(err.message, "i.jsonl:1: a256: more than 256 attributes");
}

static void item_reader_next_many_ids_are_told_apart(void **state)
{
    (void)state;
    enum { N = 10000 };
    char *text = mem_alloc((size_t)N * 16 + 32);
    assert_non_null(text);
    size_t len = (size_t)snprintf(text, 32, "id,title\n");
    for (int i = 0; i < N; i++)
        len += (size_t)snprintf(text + len, 16, "I%d,x\n", i);
    size_t n = 0;
    assert_int_equal(read_all("i.csv", text, &n, NULL), STATUS_NOT_FOUND);
    assert_int_equal(n, N);
    (void)snprintf(text + len, 16, "I%d,x\n", N - 1);
    struct error err = {.code = STATUS_OK};
    assert_int_equal(read_all("i.csv", text, &n, &err), STATUS_INVALID);
    assert_string_equal(err.message, "i.csv:10002: id: \"I9999\" is already on line 10001");
    mem_free(text);
}

static void item_reader_open_without_memory_is_nomem(void **state)
{
    (void)state;
    for (int64_t nth = 1;; nth++) {
        assert_true(nth < 1000);
        struct error err = {.code = STATUS_OK};
        size_t n = 0;
        mem_fail_nth(nth);
        enum status status = read_all("i.csv", "id,title,category\nA,x,a>b\nB,y,c\n", &n, &err);
        mem_fail_nth(0);
        if (status == STATUS_NOT_FOUND) {
            assert_int_equal(n, 2);
            break;
        }
        assert_int_equal(status, STATUS_NOMEM);
        assert_int_equal(err.code, STATUS_NOMEM);
    }
}

static void item_reader_open_absent_file_is_not_found(void **state)
{
    (void)state;
    struct item_reader *reader = NULL;
    assert_int_equal(item_reader_open("/nonexistent/items.csv", &reader, NULL), STATUS_NOT_FOUND);
    assert_null(reader);
    item_reader_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(item_reader_next_csv_gives_all_columns),
        cmocka_unit_test(item_reader_next_json_types_attributes),
        cmocka_unit_test(item_reader_open_missing_column_is_invalid),
        cmocka_unit_test(item_reader_next_faulty_values_are_invalid),
        cmocka_unit_test(item_reader_next_repeated_id_names_both_lines),
        cmocka_unit_test(item_reader_next_text_length_is_limited),
        cmocka_unit_test(item_reader_next_id_length_is_limited),
        cmocka_unit_test(item_reader_next_number_of_attributes_is_limited),
        cmocka_unit_test(item_reader_next_many_ids_are_told_apart),
        cmocka_unit_test(item_reader_open_without_memory_is_nomem),
        cmocka_unit_test(item_reader_open_absent_file_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
