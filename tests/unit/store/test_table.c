#include "store/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "store/table_internal.h"

static struct table *open_text(const char *name, const char *text)
{
    struct table *table = NULL;
    struct error err = {.code = STATUS_OK};
    enum status status = table_open_bytes(text, strlen(text), name, '\0', &table, &err);
    if (status != STATUS_OK)
        fail_msg("%s", err.message);
    return table;
}

static void expect_record(struct table *table, uint64_t line, size_t n_fields)
{
    struct table_record record;
    struct error err = {.code = STATUS_OK};
    if (table_next(table, &record, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_int_equal(record.line, line);
    assert_int_equal(record.n_fields, n_fields);
}

static void expect_field(const struct table_record *record, const char *name, const char *text,
                         bool quoted)
{
    const struct table_field *field = table_find(record, name);
    assert_non_null(field);
    assert_string_equal(field->text, text);
    assert_int_equal(field->len, strlen(text));
    assert_int_equal(field->quoted, quoted);
}

static void expect_end(struct table *table)
{
    struct table_record record = {.line = 77};
    struct error err = {.code = STATUS_OK, .message = "untouched"};
    assert_int_equal(table_next(table, &record, &err), STATUS_NOT_FOUND);
    assert_string_equal(err.message, "untouched");
    assert_int_equal(record.line, 77);
    table_close(table);
}

/* Opening or one of the records fails with the status and a message that holds the text. */
static void expect_failure(const char *name, const char *bytes, size_t n_bytes, enum status status,
                           const char *message)
{
    struct table *table = NULL;
    struct error err = {.code = STATUS_OK};
    struct table_record record = {.line = 77};
    enum status got = table_open_bytes(bytes, n_bytes, name, '\0', &table, &err);
    assert_true(got == STATUS_OK || table == NULL);
    while (got == STATUS_OK) {
        record.line = 77;
        got = table_next(table, &record, &err);
    }
    table_close(table);
    assert_int_equal(got, status);
    assert_int_equal(err.code, status);
    assert_int_equal(record.line, 77);
    if (strstr(err.message, message) == NULL)
        fail_msg("\"%s\" does not hold \"%s\"", err.message, message);
}

static void expect_text_failure(const char *name, const char *text, const char *message)
{
    expect_failure(name, text, strlen(text), STATUS_INVALID, message);
}

static void table_next_csv_gives_named_cells(void **state)
{
    (void)state;
    struct table *table = open_text("a.csv", "id,title,price\nA,\"Lamp, \"\"big\"\"\",3\n"
                                             "B, plain text ,\n");
    struct table_record record;
    size_t n_columns = 0;
    assert_string_equal(table_columns(table, &n_columns)[2], "price");
    assert_int_equal(n_columns, 3);
    assert_int_equal(table_next(table, &record, NULL), STATUS_OK);
    assert_int_equal(record.n_fields, 3);
    expect_field(&record, "title", "Lamp, \"big\"", false);
    assert_int_equal(table_next(table, &record, NULL), STATUS_OK);
    assert_int_equal(record.n_fields, 2);
    expect_field(&record, "title", "plain text", false);
    assert_null(table_find(&record, "price"));
    expect_end(table);
}

static void table_next_crlf_mark_and_no_last_newline_are_read(void **state)
{
    (void)state;
    struct table *table = open_text("a.csv", "\xef\xbb\xbfid,title\r\nA,B\r\n\r\nC,D");
    struct table_record record;
    assert_int_equal(table_next(table, &record, NULL), STATUS_OK);
    expect_field(&record, "id", "A", false);
    expect_field(&record, "title", "B", false);
    assert_int_equal(record.line, 2);
    expect_record(table, 4, 2);
    expect_end(table);
}

static void table_next_quoted_newlines_keep_line_numbers(void **state)
{
    (void)state;
    struct table *table =
        open_text("a.csv", "id,title\nA,\"one\ntwo\r\n\nthree\"\n\n\nB,x\nC,\"\n\"\nD,y\n");
    struct table_record record;
    assert_int_equal(table_next(table, &record, NULL), STATUS_OK);
    expect_field(&record, "title", "one\ntwo\r\n\nthree", false);
    assert_int_equal(record.line, 2);
    expect_record(table, 8, 2);
    expect_record(table, 9, 2);
    expect_record(table, 11, 2);
    expect_end(table);
}

static void table_next_fewer_cells_than_columns_are_absent(void **state)
{
    (void)state;
    struct table *table = open_text("a.csv", "a,b,c\n1\n,,\n");
    expect_record(table, 2, 1);
    expect_record(table, 3, 0);
    expect_end(table);
}

static void table_open_tsv_separates_by_tab(void **state)
{
    (void)state;
    struct table *table = open_text("a.TSV", "id\ttitle\tx\nA\tone, two\t3\n\t\t\n");
    struct table_record record;
    assert_int_equal(table_next(table, &record, NULL), STATUS_OK);
    expect_field(&record, "title", "one, two", false);
    expect_record(table, 3, 0);
    expect_end(table);
}

static void table_open_given_separator_is_used(void **state)
{
    (void)state;
    static const char TEXT[] = "{a;b\n1;2,5\n";
    struct table *table = NULL;
    struct table_record record;
    assert_int_equal(table_open_bytes(TEXT, strlen(TEXT), "x.json", ';', &table, NULL), STATUS_OK);
    assert_int_equal(table_next(table, &record, NULL), STATUS_OK);
    expect_field(&record, "{a", "1", false);
    expect_field(&record, "b", "2,5", false);
    expect_end(table);
}

static void table_next_json_gives_members(void **state)
{
    (void)state;
    struct table *table =
        open_text("unnamed", "{\"id\":9007199254740993,\"title\":\"L\\u00e4mp \\\"x\\\"\","
                             "\"price\":1.50,\"sale\":true,\"old\":false,\"none\":null,"
                             "\"attributes\":{\"size\":1e2,\"colour\":\"red\"},\"n\":-7}\r\n"
                             "  \n{ \"id\" : \"B\" } ");
    struct table_record record;
    size_t n_columns = 1;
    assert_null(table_columns(table, &n_columns));
    assert_int_equal(table_next(table, &record, NULL), STATUS_OK);
    assert_int_equal(record.n_fields, 8);
    expect_field(&record, "id", "9007199254740993", false);
    expect_field(&record, "title", "Lämp \"x\"", true);
    expect_field(&record, "price", "1.50", false);
    expect_field(&record, "sale", "true", false);
    expect_field(&record, "old", "false", false);
    expect_field(&record, "attributes.size", "1e2", false);
    expect_field(&record, "attributes.colour", "red", true);
    expect_field(&record, "n", "-7", false);
    expect_record(table, 3, 1);
    expect_end(table);
}

static void table_next_faulty_csv_is_invalid(void **state)
{
    (void)state;
    expect_text_failure("a.csv", "", "a.csv: the file is empty");
    expect_text_failure("a.csv", "\xef\xbb\xbf", "the file is empty");
    expect_text_failure("a.csv", "\n \n", "the file is empty");
    expect_text_failure("a.csv", "id,,x\n", "a.csv:1: column 2 has no name");
    expect_text_failure("a.csv", "\nid,x,id\n", "a.csv:2: id: the column is named twice");
    expect_text_failure("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv:3: more cells than the header");
    expect_text_failure("a.csv", "a,b\n1,x\"y\n", "a.csv:2: a misplaced quote at byte 4");
    expect_text_failure("a.csv", "a,b\n1,\"x\"y\n", "a.csv:2: a misplaced quote");
    expect_text_failure("a.csv", "a,b\n1,2\n3,\"x\ny\n", "a.csv:3: a quote that is opened here");
    expect_text_failure("a.csv", "a,b\n1,2\n\xff,2\n", "a.csv:3: the line is not valid UTF-8");
    expect_text_failure("a.csv", "a,b\n1,2\r3,4\n", "a.csv:2: a carriage return within");
    expect_failure("a.csv", "a,b\n1,\0\n", 8, STATUS_INVALID, "a.csv:2: the line is not valid");
}

static void table_next_faulty_json_is_invalid(void **state)
{
    (void)state;
    expect_text_failure("a.jsonl", "", "a.jsonl: the file is empty");
    expect_text_failure("a.jsonl", "{}\n{\"a\":1,}\n", "a.jsonl:2: not valid JSON");
    expect_text_failure("a.jsonl", "{} {}\n", "a.jsonl:1: more than one JSON value");
    expect_text_failure("a.jsonl", "{}x\n", "a.jsonl:1: more than one JSON value");
    expect_text_failure("a.jsonl", "[1]\n", "a.jsonl:1: not a JSON object");
    expect_text_failure("a.jsonl", "{\"a\":1,\"a\":null}", "a: named twice");
    expect_text_failure("a.jsonl", "{\"\":1}", "name is empty");
    expect_text_failure("a.jsonl", "{\"a\":[1]}", "a: an array cannot be a value");
    expect_text_failure("a.jsonl", "{\"a\":{\"b\":1}}", "a: an object cannot be a value");
    expect_text_failure("a.jsonl", "{\"attributes\":{\"b\":{}}}", "attributes.b: an object");
    expect_text_failure("a.jsonl", "{\"attributes\":{\"b\":1,\"b\":2}}", "b: named twice");
    expect_text_failure("a.jsonl", "{\"attributes\":{\"b\":1},\"attributes.b\":2}",
                        "attributes.b: named twice");
    expect_text_failure("a.jsonl", "{\"a\":\"x\\u0000y\"}", "a string holds a NUL");
    expect_text_failure("a.jsonl", "{\"a\":\"x", "a string does not end");
    expect_text_failure("a.jsonl", "{\"a\":1e999}", "a: the number is malformed or out of range");
    expect_text_failure("a.jsonl", "{\"a\":\"\\ud800\"}", "not valid JSON");
    expect_text_failure("a.json", "{\"a\":\"\xc3\"}", "a.json:1: the line is not valid UTF-8");
}

static void table_next_json_depth_is_limited(void **state)
{
    (void)state;
    char text[64];
    (void)snprintf(text, sizeof(text), "{\"a\":%.*s%.*s}", TABLE_JSON_DEPTH_MAX - 1, "[[[[[[[[[[",
                   TABLE_JSON_DEPTH_MAX - 1, "]]]]]]]]]]");
    expect_text_failure("a.jsonl", text, "a: an array");
    (void)snprintf(text, sizeof(text), "{\"a\":%.*s%.*s}", TABLE_JSON_DEPTH_MAX, "[[[[[[[[[[",
                   TABLE_JSON_DEPTH_MAX, "]]]]]]]]]]");
    expect_text_failure("a.jsonl", text, "nested deeper than 8 levels");
}

static char *repeated(const char *head, char c, size_t n, const char *tail)
{
    size_t head_len = strlen(head);
    size_t tail_len = strlen(tail);
    char *text = mem_alloc(head_len + n + tail_len + 1);
    assert_non_null(text);
    memcpy(text, head, head_len);
    memset(text + head_len, c, n);
    memcpy(text + head_len + n, tail, tail_len + 1);
    return text;
}

static void table_next_line_length_is_limited(void **state)
{
    (void)state;
    char *text = repeated("a\n", 'x', TABLE_LINE_MAX_BYTES, "\r\ny\n");
    struct table *table = open_text("a.csv", text);
    struct table_record record;
    assert_int_equal(table_next(table, &record, NULL), STATUS_OK);
    assert_int_equal(record.fields[0].len, TABLE_LINE_MAX_BYTES);
    expect_record(table, 3, 1);
    expect_end(table);
    mem_free(text);

    text = repeated("a\n", 'x', TABLE_LINE_MAX_BYTES + 1, "\ny\n");
    expect_text_failure("a.csv", text, "a.csv:2: the line is longer than 1048576 bytes");
    mem_free(text);
    text = repeated("a\n", 'x', 3 * TABLE_LINE_MAX_BYTES, "");
    expect_text_failure("a.csv", text, "a.csv:2: the line is longer");
    mem_free(text);
    text = repeated("a\n\"x\n", 'x', TABLE_LINE_MAX_BYTES - 2, "\"\n");
    expect_text_failure("a.csv", text, "a.csv:2: the record is longer");
    mem_free(text);
    text = repeated("{\"a\":\"", 'x', TABLE_LINE_MAX_BYTES - 8, "\"}\n");
    table = open_text("a.jsonl", text);
    expect_record(table, 1, 1);
    expect_end(table);
    mem_free(text);
    text = repeated("{\"a\":\"", 'x', TABLE_LINE_MAX_BYTES - 7, "\"}\n");
    expect_text_failure("a.jsonl", text, "a.jsonl:1: the line is longer");
    mem_free(text);
}

static void table_open_number_of_columns_is_limited(void **state)
{
    (void)state;
    for (size_t n = TABLE_COLUMNS_MAX; n <= TABLE_COLUMNS_MAX + 1; n++) {
        char csv[TABLE_COLUMNS_MAX * 8 + 64];
        char json[TABLE_COLUMNS_MAX * 12 + 64];
        size_t csv_len = 0;
        size_t json_len = 0;
        for (size_t i = 0; i < n; i++) {
            csv_len += (size_t)snprintf(csv + csv_len, sizeof(csv) - csv_len, "%sc%zu",
                                        i > 0 ? "," : "", i);
            json_len += (size_t)snprintf(json + json_len, sizeof(json) - json_len, "%s\"c%zu\":1",
                                         i > 0 ? "," : "{", i);
        }
        json[json_len++] = '}';
        if (n == TABLE_COLUMNS_MAX) {
            struct table *table = NULL;
            assert_int_equal(table_open_bytes(csv, csv_len, "a.csv", 0, &table, NULL), STATUS_OK);
            expect_end(table);
            assert_int_equal(table_open_bytes(json, json_len, "a.json", 0, &table, NULL),
                             STATUS_OK);
            expect_record(table, 1, TABLE_COLUMNS_MAX);
            expect_end(table);
        } else {
            expect_failure("a.csv", csv, csv_len, STATUS_LIMIT, "a.csv:1: more columns");
            expect_failure("a.json", json, json_len, STATUS_LIMIT, "more than 512 members");
        }
    }
}

static void table_fail_long_path_shows_its_end(void **state)
{
    (void)state;
    char *name = repeated("/", 'd', 400, "/end.csv");
    expect_text_failure(name, "a,b\n1,2,3\n", "d/end.csv:2: more cells than the header");
    mem_free(name);
}

static void table_open_reads_files(void **state)
{
    (void)state;
    char path[] = "/tmp/aisle-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "a,b\n1,2\n", 8), 8);
    (void)close(fd);
    struct table *table = NULL;
    assert_int_equal(table_open(path, '\0', &table, NULL), STATUS_OK);
    assert_string_equal(table_path(table), path);
    expect_record(table, 2, 2);
    expect_end(table);
    (void)unlink(path);
    struct error err = {.code = STATUS_OK};
    assert_int_equal(table_open(path, '\0', &table, &err), STATUS_NOT_FOUND);
    assert_null(table);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(table_open("/tmp", '\0', &table, &err), STATUS_IO);
    assert_null(table);
}

static void table_next_long_file_crosses_blocks(void **state)
{
    (void)state;
    enum { N = 40000, LINE_BYTES = 24 };
    char *text = mem_alloc((size_t)N * LINE_BYTES + 8);
    assert_non_null(text);
    size_t len = (size_t)snprintf(text, 8, "a,b\n");
    for (int i = 0; i < N; i++)
        len += (size_t)snprintf(text + len, LINE_BYTES, "%d,\"x%d\"\n", i, i);
    struct table *table = NULL;
    assert_int_equal(table_open_bytes(text, len, "a.csv", '\0', &table, NULL), STATUS_OK);
    for (int i = 0; i < N; i++) {
        struct table_record record;
        char expected[LINE_BYTES];
        assert_int_equal(table_next(table, &record, NULL), STATUS_OK);
        (void)snprintf(expected, sizeof(expected), "x%d", i);
        assert_string_equal(record.fields[1].text, expected);
        assert_int_equal(record.line, i + 2);
    }
    expect_end(table);
    mem_free(text);
}

static void read_all_without_memory(const char *name, const char *text)
{
    for (int64_t nth = 1;; nth++) {
        assert_true(nth < 1000);
        struct table *table = NULL;
        struct error err = {.code = STATUS_OK};
        mem_fail_nth(nth);
        enum status status = table_open_bytes(text, strlen(text), name, '\0', &table, &err);
        assert_true(status == STATUS_OK || table == NULL);
        while (status == STATUS_OK) {
            struct table_record record;
            status = table_next(table, &record, &err);
        }
        mem_fail_nth(0);
        table_close(table);
        if (status == STATUS_NOT_FOUND)
            break;
        assert_int_equal(status, STATUS_NOMEM);
        assert_int_equal(err.code, STATUS_NOMEM);
    }
}

static void table_next_without_memory_is_nomem(void **state)
{
    (void)state;
    char *long_cell = repeated("a,b\n1,\"two\nlines\"\n", 'x', 100000, ",y");
    read_all_without_memory("a.csv", long_cell);
    mem_free(long_cell);
    read_all_without_memory("a.jsonl", "{\"a\":1,\"attributes\":{\"b\":2}}\n{\"a\":\"x\"}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_next_csv_gives_named_cells),
        cmocka_unit_test(table_next_crlf_mark_and_no_last_newline_are_read),
        cmocka_unit_test(table_next_quoted_newlines_keep_line_numbers),
        cmocka_unit_test(table_next_fewer_cells_than_columns_are_absent),
        cmocka_unit_test(table_open_tsv_separates_by_tab),
        cmocka_unit_test(table_open_given_separator_is_used),
        cmocka_unit_test(table_next_json_gives_members),
        cmocka_unit_test(table_next_faulty_csv_is_invalid),
        cmocka_unit_test(table_next_faulty_json_is_invalid),
        cmocka_unit_test(table_next_json_depth_is_limited),
        cmocka_unit_test(table_next_line_length_is_limited),
        cmocka_unit_test(table_open_number_of_columns_is_limited),
        cmocka_unit_test(table_fail_long_path_shows_its_end),
        cmocka_unit_test(table_open_reads_files),
        cmocka_unit_test(table_next_long_file_crosses_blocks),
        cmocka_unit_test(table_next_without_memory_is_nomem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
