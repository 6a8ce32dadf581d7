#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/parse.h"
#include "store/history.h"

/* Danger: elements of a user's list in Redis are written by other programs too; a wrong length or
 * an id that is no valid text would travel into look-ups and JSON answers.
 * Inputs: the bytes of one element.
 * Path: history_parse_element → parse_int64, event_type_parse, id_valid. Whatever is accepted must
 * lie within the input, be a valid id and a known type. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A copy of the exact size: reading past the end is seen. */
    char *text = mem_alloc(size > 0 ? size : 1);
    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    struct history_item item;
    if (history_parse_element(text, size, &item)) {
        bool inside = item.item_id >= text && item.item_id + item.item_id_len == text + size;
        if (!inside || !id_valid(item.item_id, item.item_id_len) ||
            (unsigned)item.type >= N_EVENT_TYPES || item.time_ms < EVENT_TIME_UNKNOWN)
            abort();
    }
    mem_free(text);
    return 0;
}
