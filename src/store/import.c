#include "store/import.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/parse.h"
#include "store/import_internal.h"

/* Importing: a reader for each format feeds one sink. Events are written as they are read (a file
 * of tens of millions of lines needs no memory for them); items are kept, one small record each,
 * and written at the end, since a source may tell an item's title or price in any line. Rows that
 * are no use are dropped and counted by reason, so that the sums can be checked against the source.
 */

enum { PROGRESS_EVERY = 4096 };
static const char PROGRESS_TITLE[] = "importing";
static const int64_t MADE_UP_BEGIN_MS = 1577836800000; /* 2020-01-01T00:00:00Z */
static const int64_t MADE_UP_STEP_MS = 1000;

static const struct {
    const char *name;
    enum status (*run)(struct import_sink *sink, const struct import_config *config,
                       struct error *err);
} FORMATS[] = {
    {"online-retail", import_online_retail},
    {"retailrocket", import_retailrocket},
    {"sequences", import_sequences},
    {"sessions", import_sessions},
    {"clicks", import_clicks},
    {"generic", import_generic},
};
enum { N_FORMATS = sizeof FORMATS / sizeof FORMATS[0] };

/* ---- the sink ---- */

static enum status no_memory(struct error *err)
{
    return error_set(err, STATUS_NOMEM, "importing: no memory");
}

void import_sink_abandon(struct import_sink *sink)
{
    if (sink->progress.drawn) {
        progress_end(&sink->progress, PROGRESS_TITLE, sink->counts->n_rows, NULL);
    }
    for (size_t i = 0; i < sink->items_cap; i++) {
        mem_free(sink->items[i].title);
        mem_free(sink->items[i].category);
        mem_free(sink->items[i].brand);
        mem_free(sink->items[i].currency);
    }
    mem_free(sink->items);
    idmap_close(sink->item_ids);
    idmap_close(sink->user_ids);
    idmap_close(sink->session_ids);
    csv_writer_abandon(&sink->events);
    memset(sink, 0, sizeof *sink);
    sink->events.file.fd = -1;
}

enum status import_sink_open(const char *out_dir, struct import_counts *counts,
                             struct import_sink *out, struct error *err)
{
    char path[PATH_BYTES_MAX];
    memset(out, 0, sizeof *out);
    out->events.file.fd = -1;
    out->out_dir = out_dir;
    out->counts = counts;
    struct idmap **maps[] = {&out->item_ids, &out->user_ids, &out->session_ids};
    enum status status = dir_make(out_dir, err);
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; status == STATUS_OK && i < sizeof maps / sizeof maps[0]; i++) {
        status = idmap_open(0, maps[i], err);
    }
    if (status == STATUS_OK) {
        status = path_join(path, out_dir, "events.csv", err);
    }
    if (status == STATUS_OK) {
        status = csv_writer_open(&out->events, path,
                                 "user_id,item_id,timestamp,type,session_id,value", err);
    }
    if (status != STATUS_OK) {
        import_sink_abandon(out);
    }
    return status;
}

void import_count_row(struct import_sink *sink)
{
    sink->counts->n_rows++;
    if (sink->counts->n_rows % PROGRESS_EVERY == 0) {
        progress_show(&sink->progress, PROGRESS_TITLE, sink->counts->n_rows, 0, NULL);
    }
}

void import_drop(struct import_sink *sink, const char *reason)
{
    struct import_counts *counts = sink->counts;
    size_t i = 0;
    while (i < counts->n_drop_reasons && strcmp(counts->dropped[i].reason, reason) != 0) {
        i++;
    }
    if (i == counts->n_drop_reasons) {
        if (i == IMPORT_DROPS_MAX) {
            return;
        }
        counts->dropped[i].reason = reason;
        counts->n_drop_reasons++;
    }
    counts->dropped[i].n++;
}

int64_t import_made_up_time(struct import_sink *sink)
{
    return MADE_UP_BEGIN_MS + (int64_t)sink->n_made_up_times++ * MADE_UP_STEP_MS;
}

/* Adds id if it is new. */
static enum status count_id(struct idmap *map, const char *id, uint32_t *row, struct error *err)
{
    enum status status = idmap_add(map, id, strlen(id), row);
    if (status == STATUS_OK || status == STATUS_EXISTS) {
        return STATUS_OK;
    }
    return error_set(err, status, "importing \"%.60s\": %s", id, status_text(status));
}

static enum status make_room(struct import_sink *sink, uint32_t row, struct error *err)
{
    if (row < sink->items_cap) {
        return STATUS_OK;
    }
    size_t cap = sink->items_cap * 2 + 256;
    struct import_item *grown = mem_realloc_array(sink->items, cap, sizeof *grown);
    if (grown == NULL) {
        return no_memory(err);
    }
    for (size_t i = sink->items_cap; i < cap; i++) {
        memset(&grown[i], 0, sizeof grown[i]);
        grown[i].category_time_ms = INT64_MIN;
        grown[i].price = (double)NAN;
    }
    sink->items = grown;
    sink->items_cap = cap;
    return STATUS_OK;
}

enum status import_add_event(struct import_sink *sink, const struct import_event *event,
                             uint32_t *row, struct error *err)
{
    uint32_t item = IDMAP_NONE;
    uint32_t other = IDMAP_NONE;
    const char *session = event->session;
    if (row != NULL) {
        *row = IDMAP_NONE;
    }
    if (!id_valid(event->item, strlen(event->item)) ||
        !id_valid(event->user, strlen(event->user)) ||
        (session != NULL && !id_valid(session, strlen(session)))) {
        import_drop(sink, "invalid id");
        return STATUS_OK;
    }
    enum status status = count_id(sink->item_ids, event->item, &item, err);
    if (status == STATUS_OK) {
        status = make_room(sink, item, err);
    }
    if (status == STATUS_OK) {
        status = count_id(sink->user_ids, event->user, &other, err);
    }
    if (status == STATUS_OK && session != NULL) {
        status = count_id(sink->session_ids, session, &other, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (row != NULL) {
        *row = item;
    }
    csv_text(&sink->events, event->user);
    csv_text(&sink->events, event->item);
    csv_int(&sink->events, event->time_ms);
    csv_text(&sink->events, event_type_name(event->type));
    csv_text(&sink->events, session);
    csv_fixed(&sink->events, event->value, 2);
    csv_end_row(&sink->events);
    sink->counts->n_events++;
    return STATUS_OK;
}

enum status import_set_text(char **slot, const char *text, struct error *err)
{
    if (*slot != NULL || text == NULL || text[0] == '\0') {
        return STATUS_OK;
    }
    *slot = mem_strdup(text);
    return *slot != NULL ? STATUS_OK : no_memory(err);
}

static void write_item(const struct import_sink *sink, uint32_t row, struct csv_writer *csv)
{
    static const char prefix[] = "Item ";
    const struct import_item *item = &sink->items[row];
    char made_up[sizeof prefix + ID_BYTES_MAX];
    size_t len = 0;
    const char *id = idmap_id(sink->item_ids, row, &len);
    csv_text_n(csv, id, len);
    if (item->title != NULL) {
        csv_text(csv, item->title);
    } else {
        memcpy(made_up, prefix, sizeof prefix - 1);
        memcpy(made_up + sizeof prefix - 1, id, len);
        csv_text_n(csv, made_up, sizeof prefix - 1 + len);
    }
    csv_text(csv, item->category);
    csv_text(csv, item->brand);
    csv_fixed(csv, item->price, 2);
    csv_text(csv, item->currency);
    csv_end_row(csv);
}

static enum status write_items(const struct import_sink *sink, struct error *err)
{
    char path[PATH_BYTES_MAX];
    struct csv_writer csv;
    enum status status = path_join(path, sink->out_dir, "items.csv", err);
    if (status == STATUS_OK) {
        status = csv_writer_open(&csv, path, "id,title,category,brand,price,currency", err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    for (uint32_t row = 0; row < idmap_size(sink->item_ids); row++) {
        write_item(sink, row, &csv);
    }
    return csv_writer_finish(&csv, err);
}

enum status import_sink_finish(struct import_sink *sink, struct error *err)
{
    struct import_counts *counts = sink->counts;
    enum status status = STATUS_OK;
    counts->n_items = idmap_size(sink->item_ids);
    counts->n_users = idmap_size(sink->user_ids);
    counts->n_sessions = idmap_size(sink->session_ids);
    if (counts->n_events == 0) {
        status = error_set(err, STATUS_INVALID, "no event in %llu rows%s%s",
                           (unsigned long long)counts->n_rows,
                           counts->n_drop_reasons > 0 ? "; the first reason: " : "",
                           counts->n_drop_reasons > 0 ? counts->dropped[0].reason : "");
    }
    if (status == STATUS_OK) {
        status = write_items(sink, err);
    }
    if (status == STATUS_OK) {
        status = csv_writer_finish(&sink->events, err);
    }
    if (status == STATUS_OK) {
        progress_end(&sink->progress, PROGRESS_TITLE, counts->n_rows, NULL);
    }
    import_sink_abandon(sink);
    return status;
}

/* ---- the entry ---- */

static enum status unknown_format(const char *format, struct error *err)
{
    struct buf names;
    buf_init(&names, ERROR_MESSAGE_BYTES);
    for (size_t i = 0; i < N_FORMATS; i++) {
        buf_printf(&names, "%s%s", i > 0 ? ", " : "", FORMATS[i].name);
    }
    enum status status = error_set_field(err, STATUS_INVALID, "--from",
                                         "--from: unknown format \"%.40s\"; there are: %s", format,
                                         buf_text(&names));
    buf_free(&names);
    return status;
}

enum status import_run(const struct import_config *config, struct import_counts *counts,
                       struct error *err)
{
    struct import_sink sink;
    size_t i = 0;
    memset(counts, 0, sizeof *counts);
    while (i < N_FORMATS && strcmp(FORMATS[i].name, config->format) != 0) {
        i++;
    }
    if (i == N_FORMATS) {
        return unknown_format(config->format, err);
    }
    if (config->n_paths == 0) {
        return error_set(err, STATUS_INVALID, "no file to import");
    }
    enum status status = import_sink_open(config->out_dir, counts, &sink, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = FORMATS[i].run(&sink, config, err);
    if (status != STATUS_OK) {
        import_sink_abandon(&sink);
        return status;
    }
    return import_sink_finish(&sink, err);
}
