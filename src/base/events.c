#include "base/events.h"

#include <string.h>

#include "base/alloc.h"

static const char *const EVENT_NAMES[N_EVENT_TYPES] = {
    [EVENT_VIEW] = "view",
    [EVENT_CART] = "cart",
    [EVENT_PURCHASE] = "purchase",
    [EVENT_CLICK] = "click",
};

const char *event_type_name(enum event_type type)
{
    return (unsigned)type < N_EVENT_TYPES ? EVENT_NAMES[type] : "unknown";
}

bool event_type_parse(const char *text, size_t len, enum event_type *out)
{
    for (unsigned i = 0; i < N_EVENT_TYPES; i++) {
        if (strlen(EVENT_NAMES[i]) == len && memcmp(EVENT_NAMES[i], text, len) == 0) {
            *out = (enum event_type)i;
            return true;
        }
    }
    return false;
}

void event_log_free(struct event_log *log)
{
    if (log == NULL)
        return;
    mem_free(log->events);
    mem_free(log->offsets);
    mem_free(log->users);
    *log = (struct event_log){0};
}
