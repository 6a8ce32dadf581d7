/* Danger: filters come from anybody who can send a request: deep nesting, huge lists, texts that
 * are no JSON; and a filter that matches too much shows visitors what they must not see. Inputs:
 * the JSON text of a filter; corpus/filter holds one of every kind, and damaged ones. Code path:
 * filter_check, then filter_compile against a catalogue of 70 items (more than one word of bits)
 * with every type of column. Both agree on what is valid; bits and count agree; and the negation of
 * a filter matches the other items. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "core/filter.h"
#include "store/catalog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { N_ITEMS = 70 };
static struct catalog *catalog;

static void must(enum status status, const char *what)
{
    if (status != STATUS_OK) {
        (void)fprintf(stderr, "%s: %s\n", what, status_text(status));
        abort();
    }
}

static void add_item(struct catalog_writer *writer, int i)
{
    static const char *const categories[] = {"Home", "Home > Lighting", "Garden > Tools", NULL};
    static const char *const brands[] = {"Acme", "Zest", NULL};
    char id[16];
    char size[16];
    (void)snprintf(id, sizeof id, "I%d", i);
    (void)snprintf(size, sizeof size, "%d", i % 7);
    const struct item_attribute attributes[] = {
        {"color", ATTRIBUTE_TEXT, i % 2 == 0 ? "red" : "blue", 0.0},
        {"size", ATTRIBUTE_NUMBER, size, (double)(i % 7)},
        {"eco", ATTRIBUTE_BOOL, i % 3 == 0 ? "true" : "false", i % 3 == 0 ? 1.0 : 0.0},
    };
    const struct item item = {
        .id = id,
        .title = id,
        .category = categories[i % 4],
        .brand = brands[i % 3],
        .price = i % 5 == 0 ? (double)NAN : (double)i,
        .stock = (double)(i % 4),
        .created_at_ms = 1600000000000.0 + (double)i * 86400000.0,
        .attributes = attributes,
        .n_attributes = (size_t)(i % 4),
    };
    must(catalog_writer_add(writer, &item, 1.0 / (double)(i + 1), NULL), id);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char dir[] = "/tmp/aisle-fuzz-filter-XXXXXX";
    char path[PATH_BYTES_MAX];
    struct catalog_writer *writer = NULL;
    (void)argc;
    (void)argv;
    if (mkdtemp(dir) == NULL) {
        abort();
    }
    must(path_join(path, dir, "items.db", NULL), "path");
    must(catalog_writer_open(path, &writer, NULL), path);
    for (int i = 0; i < N_ITEMS; i++) {
        add_item(writer, i);
    }
    must(catalog_writer_finish(writer, NULL), path);
    must(catalog_open(path, &catalog, NULL), path);
    must(dir_remove(dir, NULL), dir); /* columns are in memory; no metadata is read */
    return 0;
}

static void check_rows(const struct filter_rows *rows)
{
    size_t n = 0;
    for (uint32_t row = 0; row < N_ITEMS; row++) {
        n += filter_match(rows, row);
    }
    if (rows->n_rows != N_ITEMS || rows->n_matching != n || rows->bits[1] >> (N_ITEMS - 64) != 0) {
        abort();
    }
}

/* {"not": FILTER} matches what FILTER does not, unless it is one level or a few bytes too much. */
static void check_negation(const char *json, size_t len, const struct filter_rows *rows)
{
    struct filter_rows others;
    struct error err;
    char *negated = mem_alloc(len + sizeof "{\"not\":}");
    if (negated == NULL) {
        return;
    }
    memcpy(negated, "{\"not\":", 7);
    memcpy(negated + 7, json, len);
    negated[7 + len] = '}';
    enum status status = filter_compile(negated, len + 8, catalog, &others, &err);
    mem_free(negated);
    if (status != STATUS_OK) {
        if (status != STATUS_LIMIT && status != STATUS_INVALID) {
            abort();
        }
        return;
    }
    for (uint32_t row = 0; row < N_ITEMS; row++) {
        if (filter_match(rows, row) == filter_match(&others, row)) {
            abort();
        }
    }
    filter_rows_free(&others);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *json = (const char *)data;
    struct filter_rows rows;
    struct error err = {.message = ""};
    enum status checked = filter_check(json, size, &err);
    if (checked != STATUS_OK && (err.code != checked || err.field[0] == '\0')) {
        abort();
    }
    if (filter_compile(json, size, catalog, &rows, NULL) != checked) {
        abort();
    }
    if (checked == STATUS_OK) {
        check_rows(&rows);
        check_negation(json, size, &rows);
        filter_rows_free(&rows);
    }
    return 0;
}
