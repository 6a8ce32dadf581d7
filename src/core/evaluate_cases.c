/* Files → cases of an offline evaluation: a prefix and the item that came next.
 *
 * Items that a catalogue does not know must not vanish: a next item that no release could have
 * shown is a miss, and leaving such cases out would flatter a stale release. Therefore the items
 * are numbered by the file, of no release, before the events are loaded: that costs a second
 * reading of the file, spares a second loader, and gives all releases the same cases. A user (or
 * session) with a single event makes no case: nothing came before it. A time split is different:
 * there the moment decides what is a case, and a newcomer's first event is one of an empty prefix.
 * Events of one moment are in the file's order, within a user. */
#include "core/evaluate_internal.h"

#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/parse.h"
#include "store/event_file.h"

enum { PAIRS_LINE_MAX_BYTES = 1 << 20, PAIRS_GROWTH_MIN = 1024 };

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
        .user = log->users[sequence],
        .time_ms = next->time_ms,
    };
}

static void add_cases(const struct evaluate_config *config, struct evaluate_cases *out,
                      size_t sequence)
{
    uint64_t first = out->log.offsets[sequence];
    uint64_t end = out->log.offsets[sequence + 1];
    if (config->protocol == PROTOCOL_TIME_SPLIT) {
        for (uint64_t position = first; position < end; position++) {
            if (out->log.events[position].time_ms > config->since_ms) {
                add_case(out, sequence, position);
            }
        }
    } else if (config->protocol == PROTOCOL_EVERY_POSITION) {
        for (uint64_t position = first + 1; position < end; position++) {
            add_case(out, sequence, position);
        }
    } else if (end - first > 1) {
        add_case(out, sequence, end - 1);
    }
}

/* Sequences are ordered by user, so that a user's events stand together. */
static enum status find_users(struct evaluate_cases *out, struct error *err)
{
    const struct event_log *log = &out->log;
    size_t user = 0;
    out->user_offsets = mem_alloc_array(log->n_users + 1, sizeof(*out->user_offsets));
    if (out->user_offsets == NULL) {
        return error_set(err, STATUS_NOMEM, "users of the evaluation");
    }
    for (size_t s = 0; s < log->n_sequences; s++) {
        for (; user <= log->users[s]; user++) {
            out->user_offsets[user] = log->offsets[s];
        }
    }
    for (; user <= log->n_users; user++) {
        out->user_offsets[user] = log->n_events;
    }
    return STATUS_OK;
}

static enum status load_events(const struct evaluate_config *config, struct evaluate_cases *out,
                               struct error *err)
{
    enum status status = number_event_items(config->events_path, out, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct event_log_config log_config = {
        .path = config->events_path,
        .items = out->items,
        .grouping =
            config->protocol == PROTOCOL_EVERY_POSITION ? EVENTS_BY_SESSION : EVENTS_BY_USER,
        .session_gap_ms = (int64_t)30 * 60 * 1000,
    };
    struct event_log_counts counts;
    status = event_log_load(&log_config, &out->log, &counts, &out->users, err);
    if (status == STATUS_OK) {
        status = find_users(out, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    out->cases = mem_alloc_array(out->log.n_events + 1, sizeof(*out->cases));
    if (out->cases == NULL) {
        return error_set(err, STATUS_NOMEM, "cases of the evaluation");
    }
    for (size_t s = 0; s < out->log.n_sequences; s++) {
        add_cases(config, out, s);
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

static enum status nothing_in_it(const struct evaluate_config *config, const char *path,
                                 struct error *err)
{
    static const char *const reasons[] = {
        [PROTOCOL_LEAVE_LAST_OUT] = "no user has two events",
        [PROTOCOL_EVERY_POSITION] = "no session has two events",
        [PROTOCOL_PAIRS] = "no line in it",
    };
    if (config->protocol == PROTOCOL_TIME_SPLIT) {
        char time[TIME_TEXT_BYTES];
        time_format_rfc3339(config->since_ms, time);
        return error_set(err, STATUS_INVALID, "%s: there is nothing to evaluate: no event after %s",
                         path, time);
    }
    return error_set(err, STATUS_INVALID, "%s: there is nothing to evaluate: %s", path,
                     reasons[config->protocol]);
}

enum status evaluate_cases_load(const struct evaluate_config *config, struct evaluate_cases *out,
                                struct error *err)
{
    bool from_pairs = config->protocol == PROTOCOL_PAIRS;
    const char *path = from_pairs ? config->pairs_path : config->events_path;
    memset(out, 0, sizeof(*out));
    if (path == NULL) {
        return error_set(err, STATUS_INVALID, "protocol %s needs %s",
                         evaluate_protocol_name(config->protocol),
                         from_pairs ? "a file of pairs" : "an event file");
    }
    enum status status = idmap_open(0, &out->items, err);
    if (status == STATUS_OK) {
        status = from_pairs ? load_pairs(config, out, err) : load_events(config, out, err);
    }
    if (status == STATUS_OK && out->n == 0) {
        status = nothing_in_it(config, path, err);
    }
    return status;
}

void evaluate_cases_free(struct evaluate_cases *cases)
{
    mem_free(cases->cases);
    mem_free(cases->user_offsets);
    event_log_free(&cases->log);
    idmap_close(cases->users);
    idmap_close(cases->items);
    memset(cases, 0, sizeof(*cases));
}

/* ---- popularity of the last days ---- */

static enum status last_time(const char *path, int64_t *last_ms, struct error *err)
{
    struct event_reader *reader;
    struct event_record event;
    enum status status = event_reader_open(path, &reader, err);
    if (status != STATUS_OK) {
        return status;
    }
    *last_ms = INT64_MIN;
    for (;;) {
        status = event_reader_next(reader, &event, err);
        if (status != STATUS_OK) {
            break;
        }
        *last_ms = event.time_ms > *last_ms ? event.time_ms : *last_ms;
    }
    event_reader_close(reader);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static enum status count_item(struct evaluate_counts *out, const char *id, struct error *err)
{
    uint32_t item;
    void *counts = out->counts;
    enum status status = grow(&counts, idmap_size(out->items), &out->cap, sizeof(double), err);
    out->counts = counts;
    if (status != STATUS_OK) {
        return status;
    }
    status = idmap_add(out->items, id, strlen(id), &item);
    if (status == STATUS_OK) {
        out->counts[item] = 0.0;
    } else if (status != STATUS_EXISTS) {
        return error_set(err, status, "numbering the items of the file");
    }
    out->counts[item] += 1.0;
    return STATUS_OK;
}

enum status evaluate_counts_load(const char *path, size_t n_days, struct evaluate_counts *out,
                                 struct error *err)
{
    static const int64_t day_ms = INT64_C(86400000);
    struct event_reader *reader;
    struct event_record event;
    int64_t last_ms;
    memset(out, 0, sizeof(*out));
    enum status status = last_time(path, &last_ms, err);
    if (status == STATUS_OK) {
        status = idmap_open(0, &out->items, err);
    }
    if (status == STATUS_OK) {
        status = event_reader_open(path, &reader, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    for (;;) {
        int64_t age_ms;
        status = event_reader_next(reader, &event, err);
        if (status == STATUS_OK && !__builtin_sub_overflow(last_ms, event.time_ms, &age_ms) &&
            age_ms < (int64_t)n_days * day_ms) {
            status = count_item(out, event.item_id, err);
        }
        if (status != STATUS_OK) {
            break;
        }
    }
    event_reader_close(reader);
    if (status == STATUS_NOT_FOUND) {
        status = idmap_size(out->items) > 0
                     ? STATUS_OK
                     : error_set(err, STATUS_INVALID, "%s: no event in it", path);
    }
    return status;
}

void evaluate_counts_free(struct evaluate_counts *counts)
{
    mem_free(counts->counts);
    idmap_close(counts->items);
    memset(counts, 0, sizeof(*counts));
}
