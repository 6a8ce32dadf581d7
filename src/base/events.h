#ifndef AISLE_BASE_EVENTS_H
#define AISLE_BASE_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* What a visitor did, shared by history, models and training. Order is part of file formats. */
enum event_type {
    EVENT_VIEW = 0,
    EVENT_CART = 1,
    EVENT_PURCHASE = 2,
    EVENT_CLICK = 3,
    N_EVENT_TYPES = 4,
};
const char *event_type_name(enum event_type type);
bool event_type_parse(const char *text, size_t len, enum event_type *out);

enum { EVENT_TIME_UNKNOWN = -1 };

/* One event of a history with its item already known as a row. */
struct history_event {
    uint32_t row;
    enum event_type type;
    int64_t time_ms; /* Unix; EVENT_TIME_UNKNOWN if not known */
};

/* Events of many users for training and evaluation, compressed by sequence: events of sequence s
 * are events[offsets[s] .. offsets[s+1]), oldest first. A sequence is a session where sessions are
 * known, else all events of a user. */
struct event_log {
    struct history_event *events;
    uint64_t *offsets; /* n_sequences + 1 */
    uint32_t *users;   /* user number of each sequence, or NULL */
    size_t n_sequences;
    size_t n_events;
    size_t n_users;
};
/* Frees the arrays; a zeroed struct is legal. */
void event_log_free(struct event_log *log);

#endif
