#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/parse.h"
#include "store/table_internal.h"

/* Danger: event files are large exports of what strangers did; user and item ids in them are text
 * that visitors may have chosen.
 * Inputs: the bytes of a file. A '{' at its start makes it JSON Lines, anything else CSV.
 * Path: table_open_bytes → libcsv | cJSON → event_reader_next, to the end or the first fault.
 * Besides not crashing, every event that comes out keeps its promises. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_event(const struct event_record *event)
{
    if (!id_valid(event->user_id, strlen(event->user_id)) ||
        !id_valid(event->item_id, strlen(event->item_id)) || event->time_ms < 0 ||
        (unsigned)event->type >= N_EVENT_TYPES)
        abort();
    if (event->session_id != NULL && !id_valid(event->session_id, strlen(event->session_id)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct table *table = NULL;
    struct event_reader *reader = NULL;
    struct error err = {.code = STATUS_OK};
    enum status status = table_open_bytes(data, size, "events", '\0', &table, &err);
    if (status == STATUS_OK)
        status = event_reader_open_table(table, &reader, &err);
    while (status == STATUS_OK) {
        struct event_record event;
        status = event_reader_next(reader, &event, &err);
        if (status == STATUS_OK)
            check_event(&event);
    }
    if (status != STATUS_NOT_FOUND && (err.code != status || err.message[0] == '\0'))
        abort();
    event_reader_close(reader);
    return 0;
}
