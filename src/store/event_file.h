#ifndef AISLE_STORE_EVENT_FILE_H
#define AISLE_STORE_EVENT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/idmap.h"
#include "base/status.h"

/* Event files (contract "Event files"): CSV or JSON Lines, user_id, item_id, timestamp required;
 * type (default view), session_id, value known; other columns are ignored. Errors name file, line
 * and column. */
struct event_record {
    const char *user_id;
    const char *item_id;
    const char *session_id; /* or NULL */
    int64_t time_ms;
    enum event_type type;
    double value; /* NAN where absent */
};

struct event_reader;
enum status event_reader_open(const char *path, struct event_reader **out,
                              struct error *err) STATUS_CHECKED;
/* OK and *event (borrowed until the next call), or NOT_FOUND at the end (err untouched). */
enum status event_reader_next(struct event_reader *reader, struct event_record *event,
                              struct error *err) STATUS_CHECKED;
uint64_t event_reader_line(const struct event_reader *reader);
void event_reader_close(struct event_reader *reader);

/* How events are cut into sequences. */
enum event_grouping {
    EVENTS_BY_USER,    /* one sequence a user */
    EVENTS_BY_SESSION, /* by session_id where given, else user's events cut at gaps */
};

struct event_log_config {
    const char *path;
    const struct idmap *items; /* id → row; events of other items are dropped and counted */
    enum event_grouping grouping;
    int64_t session_gap_ms; /* default 30 minutes */
};

struct event_log_counts {
    uint64_t n_read;
    uint64_t n_unknown_item;
    int64_t first_ms, last_ms;
};

/* Loads a file, sorts each sequence by time (stable: equal times keep file order), 24 bytes or less
 * an event. *users (optional, gives; idmap_close): user number → id. Sequences are ordered by user
 * number, then time. */
enum status event_log_load(const struct event_log_config *config, struct event_log *out,
                           struct event_log_counts *counts, struct idmap **users,
                           struct error *err) STATUS_CHECKED;

#endif
