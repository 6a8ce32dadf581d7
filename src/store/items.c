#include "store/items.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/idmap.h"
#include "base/parse.h"
#include "store/table_internal.h"

/* A table's records → items. Columns are known by one table of names (KNOWN); every other one is
 * an attribute, whether the file calls it "colour" or "attributes.colour".
 *
 * Ids are kept to the end of the file to find repeated ones: about 15 bytes an id beside the id,
 * and 8 for its line. Rejected: leaving that to the catalogue, which does not know lines. */

#define ATTRIBUTES_PREFIX "attributes."
enum {
    TEXT_ARENA_BLOCK_BYTES = 4096,
    TEXT_ARENA_MAX_BYTES = 1 << 20,
    IDS_EXPECTED = 4096,
};

struct item_reader {
    struct table *table;
    struct idmap *ids;
    uint64_t *lines; /* of each id */
    size_t lines_cap;
    struct arena arena; /* normalised texts of one item */
    struct item_attribute attributes[ITEM_ATTRIBUTES_MAX];
};

enum known_kind { KNOWN_ID, KNOWN_TEXT, KNOWN_CATEGORY, KNOWN_NUMBER, KNOWN_PRICE, KNOWN_TIME };

struct known {
    const char *name;
    enum known_kind kind;
    size_t offset; /* in struct item */
};

static const struct known KNOWN[] = {
    {"id", KNOWN_ID, offsetof(struct item, id)},
    {"title", KNOWN_TEXT, offsetof(struct item, title)},
    {"category", KNOWN_CATEGORY, offsetof(struct item, category)},
    {"brand", KNOWN_TEXT, offsetof(struct item, brand)},
    {"price", KNOWN_PRICE, offsetof(struct item, price)},
    {"currency", KNOWN_TEXT, offsetof(struct item, currency)},
    {"stock", KNOWN_NUMBER, offsetof(struct item, stock)},
    {"image_url", KNOWN_TEXT, offsetof(struct item, image_url)},
    {"url", KNOWN_TEXT, offsetof(struct item, url)},
    {"created_at", KNOWN_TIME, offsetof(struct item, created_at_ms)},
};

/* One record on its way to an item. */
struct reading {
    struct item_reader *reader;
    const struct table_record *record;
    struct item *item;
    struct error *err;
};

static const struct known *find_known(const char *name)
{
    for (size_t i = 0; i < sizeof(KNOWN) / sizeof(KNOWN[0]); i++) {
        if (strcmp(KNOWN[i].name, name) == 0)
            return &KNOWN[i];
    }
    return NULL;
}

static const char *attribute_name(const char *column)
{
    size_t len = strlen(ATTRIBUTES_PREFIX);
    return strncmp(column, ATTRIBUTES_PREFIX, len) == 0 ? column + len : column;
}

#define FAIL(reading, column, ...)                                                                 \
    table_fail((reading)->reader->table, (reading)->record->line, (column), (reading)->err,        \
               STATUS_INVALID, __VA_ARGS__)

static enum status fail_nomem(const struct reading *reading)
{
    return table_fail(reading->reader->table, reading->record->line, NULL, reading->err,
                      STATUS_NOMEM, "no memory for an item");
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* "A>B" → "A > B": every part trimmed, none empty. */
static enum status set_category(const struct reading *reading, const struct table_field *field)
{
    size_t n_marks = 0;
    for (size_t i = 0; i < field->len; i++)
        n_marks += field->text[i] == '>';
    char *path = arena_alloc(&reading->reader->arena, field->len + 2 * n_marks + 1);
    if (path == NULL)
        return fail_nomem(reading);
    const char *at = field->text;
    const char *end = field->text + field->len;
    size_t len = 0;
    for (size_t part = 0; part <= n_marks; part++) {
        const char *mark = memchr(at, '>', (size_t)(end - at));
        const char *stop = mark != NULL ? mark : end;
        const char *next = stop + 1;
        while (at < stop && is_space(*at))
            at++;
        while (stop > at && is_space(stop[-1]))
            stop--;
        if (at == stop)
            return FAIL(reading, field->name, "part %zu of the path is empty", part + 1);
        if (part > 0) {
            memcpy(path + len, " > ", 3);
            len += 3;
        }
        memcpy(path + len, at, (size_t)(stop - at));
        len += (size_t)(stop - at);
        at = next;
    }
    path[len] = '\0';
    if (len > ITEM_TEXT_MAX_BYTES)
        return FAIL(reading, field->name, "longer than %d bytes", ITEM_TEXT_MAX_BYTES);
    reading->item->category = path;
    return STATUS_OK;
}

static enum status read_number(const struct reading *reading, const struct table_field *field,
                               double *out)
{
    if (field->quoted)
        return FAIL(reading, field->name, "a text where a number is wanted");
    if (!parse_double(field->text, field->len, out))
        return FAIL(reading, field->name, "\"%.40s\" is not a number", field->text);
    *out += 0.0; /* -0 → 0 */
    return STATUS_OK;
}

static enum status set_number(const struct reading *reading, const struct known *known,
                              const struct table_field *field, double *out)
{
    if (known->kind == KNOWN_TIME) {
        int64_t unix_ms = 0;
        if (!parse_time_ms(field->text, field->len, &unix_ms))
            return FAIL(reading, field->name, "\"%.40s\" is not a time", field->text);
        *out = (double)unix_ms;
        return STATUS_OK;
    }
    enum status status = read_number(reading, field, out);
    if (status == STATUS_OK && known->kind == KNOWN_PRICE && *out < 0)
        return FAIL(reading, field->name, "a negative price");
    return status;
}

static enum status set_known(const struct reading *reading, const struct known *known,
                             const struct table_field *field)
{
    void *slot = (char *)reading->item + known->offset;
    if (known->kind == KNOWN_ID && !id_valid(field->text, field->len))
        return FAIL(reading, field->name,
                    field->len > ID_BYTES_MAX ? "longer than %d bytes"
                                              : "not an id of 1 to %d bytes without control "
                                                "characters",
                    ID_BYTES_MAX);
    if (field->len == 0)
        return STATUS_OK;
    if (known->kind == KNOWN_ID || known->kind == KNOWN_TEXT) {
        *(const char **)slot = field->text;
        return STATUS_OK;
    }
    if (known->kind == KNOWN_CATEGORY)
        return set_category(reading, field);
    return set_number(reading, known, field, slot);
}

static void type_attribute(const struct table_field *field, struct item_attribute *attribute)
{
    attribute->text = field->text;
    attribute->type = ATTRIBUTE_TEXT;
    attribute->number = (double)NAN;
    if (field->quoted)
        return;
    if (parse_double(field->text, field->len, &attribute->number)) {
        attribute->type = ATTRIBUTE_NUMBER;
    } else if (strcmp(field->text, "true") == 0 || strcmp(field->text, "false") == 0) {
        attribute->type = ATTRIBUTE_BOOL;
        attribute->number = field->text[0] == 't' ? 1 : 0;
    }
}

static enum status add_attribute(const struct reading *reading, const struct table_field *field)
{
    struct item *item = reading->item;
    const char *name = attribute_name(field->name);
    if (!id_valid(name, strlen(name)))
        return FAIL(reading, field->name, "not an attribute name of 1 to %d bytes", ID_BYTES_MAX);
    if (name != field->name && find_known(name) == NULL && table_find(reading->record, name))
        return FAIL(reading, field->name, "the attribute is also there without its prefix");
    if (item->n_attributes == ITEM_ATTRIBUTES_MAX)
        return table_fail(reading->reader->table, reading->record->line, field->name, reading->err,
                          STATUS_LIMIT, "more than %d attributes", ITEM_ATTRIBUTES_MAX);
    struct item_attribute *attribute = &reading->reader->attributes[item->n_attributes++];
    attribute->name = name;
    type_attribute(field, attribute);
    return STATUS_OK;
}

static enum status set_field(const struct reading *reading, const struct table_field *field)
{
    if (field->len > ITEM_TEXT_MAX_BYTES)
        return FAIL(reading, field->name, "longer than %d bytes", ITEM_TEXT_MAX_BYTES);
    const struct known *known = find_known(field->name);
    return known != NULL ? set_known(reading, known, field) : add_attribute(reading, field);
}

/* Remembers the id, or refuses it when an earlier line has it. */
static enum status note_id(const struct reading *reading)
{
    struct item_reader *reader = reading->reader;
    const char *id = reading->item->id;
    size_t n = idmap_size(reader->ids);
    if (n == reader->lines_cap) {
        size_t cap = 2 * reader->lines_cap;
        uint64_t *lines = mem_realloc_array(reader->lines, cap, sizeof(*lines));
        if (lines == NULL)
            return fail_nomem(reading);
        reader->lines = lines;
        reader->lines_cap = cap;
    }
    uint32_t row = 0;
    enum status status = idmap_add(reader->ids, id, strlen(id), &row);
    if (status == STATUS_EXISTS)
        return FAIL(reading, "id", "\"%.128s\" is already on line %" PRIu64, id,
                    reader->lines[row]);
    if (status != STATUS_OK)
        return table_fail(reader->table, reading->record->line, "id", reading->err, status, "%s",
                          status_text(status));
    reader->lines[row] = reading->record->line;
    return STATUS_OK;
}

enum status item_reader_next(struct item_reader *reader, struct item *item, struct error *err)
{
    struct table_record record;
    enum status status = table_next(reader->table, &record, err);
    if (status != STATUS_OK)
        return status;
    arena_reset(&reader->arena);
    struct item read = {.price = (double)NAN, .stock = (double)NAN, .created_at_ms = (double)NAN};
    struct reading reading = {.reader = reader, .record = &record, .item = &read, .err = err};
    for (size_t i = 0; i < record.n_fields; i++) {
        status = set_field(&reading, &record.fields[i]);
        if (status != STATUS_OK)
            return status;
    }
    if (read.id == NULL)
        return FAIL(&reading, "id", "missing");
    if (read.title == NULL)
        return FAIL(&reading, "title", "missing");
    status = note_id(&reading);
    if (status != STATUS_OK)
        return status;
    read.attributes = reader->attributes;
    *item = read;
    return STATUS_OK;
}

/* A CSV header shows at once what can never become items. */
static enum status check_columns(const struct table *table, struct error *err)
{
    static const char *const REQUIRED[] = {"id", "title"};
    size_t n = 0;
    const char *const *names = table_columns(table, &n);
    if (names == NULL)
        return STATUS_OK;
    for (size_t i = 0; i < sizeof(REQUIRED) / sizeof(REQUIRED[0]); i++) {
        size_t at = 0;
        while (at < n && strcmp(names[at], REQUIRED[i]) != 0)
            at++;
        if (at == n)
            return table_fail(table, 1, REQUIRED[i], err, STATUS_INVALID,
                              "the header has no such column");
    }
    for (size_t i = 0; i < n; i++) {
        const char *name = attribute_name(names[i]);
        for (size_t j = 0; name != names[i] && find_known(name) == NULL && j < n; j++) {
            if (strcmp(names[j], name) == 0)
                return table_fail(table, 1, names[i], err, STATUS_INVALID,
                                  "the attribute is also there without its prefix");
        }
    }
    return STATUS_OK;
}

enum status item_reader_open_table(struct table *table, struct item_reader **out, struct error *err)
{
    *out = NULL;
    struct item_reader *reader = NULL;
    enum status status = check_columns(table, err);
    if (status != STATUS_OK)
        goto fail_reader;
    status = error_set(err, STATUS_NOMEM, "no memory to read items");
    reader = mem_calloc(1, sizeof(*reader));
    if (reader == NULL)
        goto fail_reader;
    arena_init(&reader->arena, TEXT_ARENA_BLOCK_BYTES, TEXT_ARENA_MAX_BYTES);
    reader->lines_cap = IDS_EXPECTED;
    reader->lines = mem_alloc_array(reader->lines_cap, sizeof(*reader->lines));
    if (reader->lines == NULL)
        goto fail_lines;
    status = idmap_open(IDS_EXPECTED, &reader->ids, err);
    if (status != STATUS_OK)
        goto fail_ids;
    reader->table = table;
    *out = reader;
    return STATUS_OK;

fail_ids:
    mem_free(reader->lines);
fail_lines:
    mem_free(reader);
fail_reader:
    table_close(table);
    return status;
}

enum status item_reader_open(const char *path, struct item_reader **out, struct error *err)
{
    *out = NULL;
    struct table *table = NULL;
    enum status status = table_open(path, '\0', &table, err);
    return status == STATUS_OK ? item_reader_open_table(table, out, err) : status;
}

void item_reader_close(struct item_reader *reader)
{
    if (reader == NULL)
        return;
    arena_free(&reader->arena);
    idmap_close(reader->ids);
    mem_free(reader->lines);
    table_close(reader->table);
    mem_free(reader);
}
