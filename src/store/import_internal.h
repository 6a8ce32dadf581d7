#ifndef AISLE_STORE_IMPORT_INTERNAL_H
#define AISLE_STORE_IMPORT_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/idmap.h"
#include "base/log.h"
#include "base/status.h"
#include "store/csv_write.h"
#include "store/import.h"

/* Shared by import*.c: a reader for each format, one sink. */

/* What a source tells of an item; texts owned, NULL where unknown, price NAN. */
struct import_item {
    char *title;
    char *category;
    char *brand;
    char *currency;
    int64_t category_time_ms; /* of sources whose items change */
    double price;
};

struct import_sink {
    struct import_counts *counts;
    const char *out_dir;
    struct csv_writer events;
    struct idmap *item_ids, *user_ids, *session_ids;
    struct import_item *items; /* by number in item_ids */
    size_t items_cap;
    uint64_t n_made_up_times;
    struct progress progress;
};

enum status import_sink_open(const char *out_dir, struct import_counts *counts,
                             struct import_sink *out, struct error *err) STATUS_CHECKED;
/* Writes items.csv and puts both files in place. The sink is closed in any case. INVALID when there
 * was no event. */
enum status import_sink_finish(struct import_sink *sink, struct error *err) STATUS_CHECKED;
void import_sink_abandon(struct import_sink *sink);

/* Counts a row read, and shows progress. */
void import_count_row(struct import_sink *sink);
/* Counts a row dropped; reason is a literal. */
void import_drop(struct import_sink *sink, const char *reason);
/* The next made-up time: a fixed day's start, then a second an event. */
int64_t import_made_up_time(struct import_sink *sink);

struct import_event {
    const char *user, *item, *session; /* session may be NULL */
    int64_t time_ms;
    enum event_type type;
    double value; /* NAN where absent */
};
/* Writes an event and counts its item, user and session; *row (optional): the item's number, or
 * IDMAP_NONE when the event was dropped for an id that cannot be one. */
enum status import_add_event(struct import_sink *sink, const struct import_event *event,
                             uint32_t *row, struct error *err) STATUS_CHECKED;
/* Sets a text of an item unless it is set; "" is no text. */
enum status import_set_text(char **slot, const char *text, struct error *err) STATUS_CHECKED;

/* ---- one function a format: reads one file ---- */
enum status import_online_retail(struct import_sink *sink, const struct import_config *config,
                                 struct error *err) STATUS_CHECKED;
enum status import_retailrocket(struct import_sink *sink, const struct import_config *config,
                                struct error *err) STATUS_CHECKED;
enum status import_sequences(struct import_sink *sink, const struct import_config *config,
                             struct error *err) STATUS_CHECKED;
enum status import_sessions(struct import_sink *sink, const struct import_config *config,
                            struct error *err) STATUS_CHECKED;
enum status import_clicks(struct import_sink *sink, const struct import_config *config,
                          struct error *err) STATUS_CHECKED;
enum status import_generic(struct import_sink *sink, const struct import_config *config,
                           struct error *err) STATUS_CHECKED;

/* Tables whose columns mean something. */
enum import_field {
    IMPORT_USER,
    IMPORT_ITEM,
    IMPORT_TIME,
    IMPORT_TYPE,
    IMPORT_SESSION,
    IMPORT_VALUE,
    IMPORT_TITLE,
    IMPORT_CATEGORY,
    IMPORT_BRAND,
    IMPORT_PRICE,
    IMPORT_CURRENCY,
    N_IMPORT_FIELDS,
};
struct import_mapping {
    const char *columns[N_IMPORT_FIELDS]; /* NULL: not there */
    char separator;                       /* as table_open takes it */
};
enum status import_table(struct import_sink *sink, const char *path,
                         const struct import_mapping *mapping, struct error *err) STATUS_CHECKED;
enum status import_session_file(struct import_sink *sink, const char *path,
                                struct error *err) STATUS_CHECKED;

#endif
