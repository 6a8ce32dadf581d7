#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "store/table_internal.h"

/* Danger: an item file comes from a shop's export; it is untrusted text of any size, and its
 * quotes, nesting, numbers and times are read by hand-written scanners and two libraries. Inputs:
 * the bytes of a file. A '{' at its start makes it JSON Lines, anything else CSV. Path:
 * table_open_bytes → libcsv | cJSON → item_reader_next, to the end or the first fault. Besides not
 * crashing, every item that comes out keeps its promises. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_item(const struct item *item)
{
    if (!id_valid(item->id, strlen(item->id)) || item->title == NULL || item->title[0] == '\0' ||
        strlen(item->title) > ITEM_TEXT_MAX_BYTES || item->n_attributes > ITEM_ATTRIBUTES_MAX ||
        isinf(item->price) || item->price < 0)
        abort();
    for (size_t i = 0; i < item->n_attributes; i++) {
        const struct item_attribute *attribute = &item->attributes[i];
        if (!utf8_valid(attribute->text, strlen(attribute->text)) ||
            isnan(attribute->number) != (attribute->type == ATTRIBUTE_TEXT))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct table *table = NULL;
    struct item_reader *reader = NULL;
    struct error err = {.code = STATUS_OK};
    enum status status = table_open_bytes(data, size, "items", '\0', &table, &err);
    if (status == STATUS_OK)
        status = item_reader_open_table(table, &reader, &err);
    while (status == STATUS_OK) {
        struct item item;
        status = item_reader_next(reader, &item, &err);
        if (status == STATUS_OK)
            check_item(&item);
    }
    if (status != STATUS_NOT_FOUND && (err.code != status || err.message[0] == '\0'))
        abort();
    item_reader_close(reader);
    return 0;
}
