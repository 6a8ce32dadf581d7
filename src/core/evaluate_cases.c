/* Files → cases of an offline evaluation: a prefix and the item that came next.
 *
 * Items that the catalogue does not know must not vanish: a next item that no release could have
 * shown is a miss, and leaving such cases out would flatter a stale release. Therefore the unknown
 * ids of the file are numbered behind the catalogue's rows before the events are loaded, which
 * costs a second reading of the file and spares a second loader. A user (or session) with a single
 * event makes no case: nothing came before it. */
#include "core/evaluate_internal.h"

#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/parse.h"
#include "store/event_file.h"

enum { PAIRS_LINE_MAX_BYTES = 1 << 20, PAIRS_GROWTH_MIN = 1024 };

static enum status copy_catalogue_ids(const struct engine *engine, struct evaluate_cases *out,
                                      struct error *err)
{
    size_t n = catalog_size(engine->catalog);
    enum status status = idmap_open(n, &out->items, err);
    for (uint32_t row = 0; status == STATUS_OK && row < n; row++) {
        size_t len;
        uint32_t same;
        const char *id = catalog_id(engine->catalog, row, &len);
        status = idmap_add(out->items, id, len, &same);
        if (status != STATUS_OK) {
            return error_set(err, status, "numbering the catalogue's items");
        }
    }
    out->n_items = (uint32_t)n;
    return status;
}

static enum status number_item(struct evaluate_cases *out, const char *id, size_t len,
                               uint32_t *row, struct error *err)
{
    enum status status = idmap_add(out->items, id, len, row);
    if (status != STATUS_OK && status != STATUS_EXISTS) {
        return error_set(err, status, "numbering the items of the file");
    }
    return STATUS_OK;
}

/* ---- event files ---- */

static enum status number_event_items(const char *path, struct evaluate_cases *out,
                                      struct error *err)
{
    struct event_reader *reader;
    struct event_record event;
    enum status status = event_reader_open(path, &reader, err);
    if (status != STATUS_OK) {
        return status;
    }
    for (;;) {
        status = event_reader_next(reader, &event, err);
        if (status != STATUS_OK) {
            break;
        }
        uint32_t row;
        status = number_item(out, event.item_id, strlen(event.item_id), &row, err);
        if (status != STATUS_OK) {
            break;
        }
    }
    event_reader_close(reader);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static void add_case(struct evaluate_cases *out, size_t sequence, uint64_t position)
{
    const struct event_log *log = &out->log;
    uint64_t first = log->offsets[sequence];
    const struct history_event *next = &log->events[position];
    out->cases[out->n++] = (struct evaluate_case){
        .first = first,
        .n_prefix = (uint32_t)(position - first),
        .next = next->row,
        .user = log->users != NULL ? log->users[sequence] : (uint32_t)sequence,
        .time_ms = next->time_ms,
    };
}

static enum status load_events(const struct evaluate_config *config, struct evaluate_cases *out,
                               struct error *err)
{
    bool last_only = config->protocol == PROTOCOL_LEAVE_LAST_OUT;
    enum status status = number_event_items(config->events_path, out, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct event_log_config log_config = {
        .path = config->events_path,
        .items = out->items,
        .grouping = last_only ? EVENTS_BY_USER : EVENTS_BY_SESSION,
        .session_gap_ms = (int64_t)30 * 60 * 1000,
    };
    struct event_log_counts counts;
    status = event_log_load(&log_config, &out->log, &counts, &out->users, err);
    if (status != STATUS_OK) {
        return status;
    }
    out->cases = mem_alloc_array(out->log.n_events + 1, sizeof(*out->cases));
    if (out->cases == NULL) {
        return error_set(err, STATUS_NOMEM, "cases of the evaluation");
    }
    for (size_t s = 0; s < out->log.n_sequences; s++) {
        uint64_t first = out->log.offsets[s];
        uint64_t end = out->log.offsets[s + 1];
        if (end - first < 2) {
            continue;
        }
        for (uint64_t position = last_only ? end - 1 : first + 1; position < end; position++) {
            add_case(out, s, position);
        }
    }
    return STATUS_OK;
}

/* ---- pairs ---- */

/* Room for one more element in an array of n; grows by half. */
static enum status grow(void **array, size_t n, size_t *capacity, size_t size, struct error *err)
{
    if (n < *capacity) {
        return STATUS_OK;
    }
    size_t wanted = *capacity + *capacity / 2 + PAIRS_GROWTH_MIN;
    void *larger = mem_realloc_array(*array, wanted, size);
    if (larger == NULL) {
        return error_set(err, STATUS_NOMEM, "cases of the evaluation");
    }
    *array = larger;
    *capacity = wanted;
    return STATUS_OK;
}

struct pairs {
    const char *path;
    struct line_reader *reader;
    struct evaluate_cases *out;
    size_t event_capacity;
    size_t case_capacity;
};

static enum status line_fault(const struct pairs *pairs, const char *what, struct error *err)
{
    return error_set(err, STATUS_INVALID, "%s:%llu: %s", pairs->path,
                     (unsigned long long)line_reader_number(pairs->reader), what);
}

static enum status pairs_item(struct pairs *pairs, const char *id, size_t len, uint32_t *row,
                              struct error *err)
{
    if (!id_valid(id, len)) {
        return line_fault(pairs, "an item id is 1 to 128 bytes of UTF-8", err);
    }
    return number_item(pairs->out, id, len, row, err);
}

static enum status pairs_prefix(struct pairs *pairs, const char *text, const char *end,
                                struct error *err)
{
    struct event_log *log = &pairs->out->log;
    while (text < end) {
        if (*text == ' ') {
            text++;
            continue;
        }
        const char *blank = memchr(text, ' ', (size_t)(end - text));
        size_t len = (size_t)((blank != NULL ? blank : end) - text);
        void *events = log->events;
        enum status status =
            grow(&events, log->n_events, &pairs->event_capacity, sizeof(*log->events), err);
        log->events = events;
        uint32_t row = IDMAP_NONE;
        if (status == STATUS_OK) {
            status = pairs_item(pairs, text, len, &row, err);
        }
        if (status != STATUS_OK) {
            return status;
        }
        log->events[log->n_events++] = (struct history_event){row, EVENT_VIEW, EVENT_TIME_UNKNOWN};
        text += len;
    }
    return STATUS_OK;
}

static enum status pairs_line(struct pairs *pairs, const char *line, size_t len, struct error *err)
{
    struct evaluate_cases *out = pairs->out;
    const char *end = line + len;
    const char *tab = memchr(line, '\t', len);
    if (tab == NULL) {
        return line_fault(pairs, "no tab between the prefix and the next item", err);
    }
    void *cases = out->cases;
    enum status status = grow(&cases, out->n, &pairs->case_capacity, sizeof(*out->cases), err);
    out->cases = cases;
    if (status != STATUS_OK) {
        return status;
    }
    uint64_t first = out->log.n_events;
    uint32_t next = IDMAP_NONE;
    status = pairs_prefix(pairs, line, tab, err);
    if (status == STATUS_OK) {
        status = pairs_item(pairs, tab + 1, (size_t)(end - tab - 1), &next, err);
    }
    if (status == STATUS_OK) {
        out->cases[out->n++] = (struct evaluate_case){
            .first = first,
            .n_prefix = (uint32_t)(out->log.n_events - first),
            .next = next,
            .user = (uint32_t)line_reader_number(pairs->reader),
            .time_ms = EVENT_TIME_UNKNOWN,
        };
    }
    return status;
}

static enum status load_pairs(const struct evaluate_config *config, struct evaluate_cases *out,
                              struct error *err)
{
    struct pairs pairs = {.path = config->pairs_path, .out = out};
    enum status status =
        line_reader_open(config->pairs_path, PAIRS_LINE_MAX_BYTES, &pairs.reader, err);
    if (status != STATUS_OK) {
        return status;
    }
    for (;;) {
        const char *line;
        size_t len;
        status = line_reader_next(pairs.reader, &line, &len, err);
        if (status != STATUS_OK) {
            break;
        }
        status = len > 0 ? pairs_line(&pairs, line, len, err) : STATUS_OK;
        if (status != STATUS_OK) {
            break;
        }
    }
    line_reader_close(pairs.reader);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

enum status evaluate_cases_load(const struct engine *engine, const struct evaluate_config *config,
                                struct evaluate_cases *out, struct error *err)
{
    bool from_pairs = config->protocol == PROTOCOL_PAIRS;
    const char *path = from_pairs ? config->pairs_path : config->events_path;
    memset(out, 0, sizeof(*out));
    if (path == NULL) {
        return error_set(err, STATUS_INVALID, "protocol %s needs %s",
                         evaluate_protocol_name(config->protocol),
                         from_pairs ? "a file of pairs" : "an event file");
    }
    enum status status = copy_catalogue_ids(engine, out, err);
    if (status == STATUS_OK) {
        status = from_pairs ? load_pairs(config, out, err) : load_events(config, out, err);
    }
    if (status == STATUS_OK && out->n == 0) {
        status = error_set(err, STATUS_INVALID, "%s: there is nothing to evaluate in it", path);
    }
    return status;
}

void evaluate_cases_free(struct evaluate_cases *cases)
{
    mem_free(cases->cases);
    event_log_free(&cases->log);
    idmap_close(cases->users);
    idmap_close(cases->items);
    memset(cases, 0, sizeof(*cases));
}
