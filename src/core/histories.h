#ifndef AISLE_CORE_HISTORIES_H
#define AISLE_CORE_HISTORIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/idmap.h"
#include "base/json_write.h"
#include "core/engine.h"
#include "embeddings/json_read.h"

/* Sampled browsing histories, for recall queries, probes and the drift baseline, and their text:
 * "now_ms": 1700000000000, "history": [["SKU1", "view", 1699999999000], …], newest first, null for
 * an unknown time. */
struct history_span {
    size_t first;
    size_t n;
    int64_t now_ms; /* when the user asks */
};
struct history_set {
    struct history_event *events; /* of all histories, each newest first */
    size_t n_events;
    size_t events_cap;
    struct history_span *spans;
    size_t n;
    size_t spans_cap;
};
/* A zeroed struct is an empty set, and may be freed. */
void history_set_free(struct history_set *set);
void history_set_clear(struct history_set *set);
struct probe_history history_set_at(const struct history_set *set, size_t i);
/* Copies the events. NOMEM leaves the set as it was. */
enum status history_set_add(struct history_set *set, const struct history_event *newest_first,
                            size_t n_events, int64_t now_ms, struct error *err) STATUS_CHECKED;

/* Adds histories of up to n_max users with at least two events, drawn by seed, in drawn order. The
 * last event is held out: a history is what was known at its time, the newest HISTORY_FETCH_MAX
 * events, as in serving. log is grouped by user. */
enum status history_set_sample(struct history_set *set, const struct event_log *log, size_t n_max,
                               uint64_t seed, struct error *err) STATUS_CHECKED;

/* Ids of rows: of a catalogue or of a map under construction. */
struct row_names {
    const struct catalog *catalog; /* or NULL: */
    const struct idmap *map;
};
const char *row_name(const struct row_names *names, uint32_t row, size_t *len);

/* histories.jsonl. Reading: unknown items are dropped and counted, histories without a known item
 * are dropped; FORMAT names file and line. */
struct history_counts {
    uint64_t n_events;
    uint64_t n_unknown_item;
};
enum status histories_write(const char *path, const struct history_set *set,
                            const struct row_names *names, struct error *err) STATUS_CHECKED;
enum status histories_read(const char *path, const struct row_names *names, size_t n_max,
                           struct history_set *set, struct history_counts *counts,
                           struct error *err) STATUS_CHECKED;

/* One line's members "now_ms" and "history". Reading adds the history to set, even if it is empty;
 * FORMAT tells what is wrong. */
void history_encode(struct json_writer *json, const struct probe_history *history,
                    const struct row_names *names);
enum status history_decode(const struct json_value *line, const struct row_names *names,
                           struct history_set *set, struct history_counts *counts,
                           struct error *err) STATUS_CHECKED;
/* A line of a .jsonl file as an object. FORMAT. */
enum status history_line_open(const char *line, size_t len, struct json_doc **out,
                              struct error *err) STATUS_CHECKED;

#endif
