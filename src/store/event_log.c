#include "store/event_file.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"

/* An event file → sequences of known items, in memory.
 *
 * The file is streamed once into an array of 24-byte entries. They are brought into user order by a
 * counting sort (user numbers are dense, and it is stable), then each user's run into time order by
 * a stable merge sort that first looks whether it is in order already, as most files are. Walking
 * the sorted entries, each gets its sequence's number; numbers are given at a sequence's first
 * event, so sequences come out ordered by user, then by the time of their first event. A second
 * counting sort puts the events into place; sessions of one user may overlap in time.
 *
 * Session ids are numbered through a map of (user, session id), because two visitors may have a
 * session "1" each. Rejected: qsort over (user, time, index), which compares where counting
 * places, and needs an index in each entry to be stable.
 *
 * Peak: two arrays of entries, or one and the result: 48 bytes an event, and the id maps. Counts'
 * first_ms and last_ms are of the events that were kept. */

enum { ENTRIES_MIN = 4096, RUN_SHORT = 12 };
static const int64_t SESSION_GAP_DEFAULT_MS = INT64_C(30) * 60 * 1000;
static const uint32_t NO_SESSION = UINT32_MAX;

struct entry {
    int64_t time_ms;
    uint32_t user;
    uint32_t group; /* session number or NO_SESSION, later the sequence's number */
    uint32_t row;
    uint32_t type;
};
static_assert(sizeof(struct entry) == 24, "24 bytes an event");

struct loading {
    const struct event_log_config *config;
    struct idmap *users;
    struct idmap *sessions; /* key: user number, session id */
    struct entry *entries;
    size_t n;
    size_t cap;
    struct event_log_counts counts;
    struct error *err;
};

static enum status fail_nomem(struct error *err)
{
    return error_set(err, STATUS_NOMEM, "no memory for the events");
}

/* ---- reading ---- */

static enum status session_number(struct loading *loading, uint32_t user, const char *session_id,
                                  uint32_t *number)
{
    *number = NO_SESSION;
    if (session_id == NULL || loading->config->grouping != EVENTS_BY_SESSION)
        return STATUS_OK;
    char key[sizeof(user) + 128 + 1];
    size_t len = strlen(session_id);
    assert(len < sizeof(key) - sizeof(user)); /* the reader lets no longer id pass */
    memcpy(key, &user, sizeof(user));
    memcpy(key + sizeof(user), session_id, len + 1); /* the NUL is no part of the key */
    enum status status = idmap_add(loading->sessions, key, sizeof(user) + len, number);
    return status == STATUS_EXISTS ? STATUS_OK : status;
}

static enum status add_entry(struct loading *loading, const struct event_record *event)
{
    uint32_t row = idmap_find(loading->config->items, event->item_id, strlen(event->item_id));
    loading->counts.n_read++;
    if (row == IDMAP_NONE) {
        loading->counts.n_unknown_item++;
        return STATUS_OK;
    }
    if (loading->n == loading->cap) {
        size_t cap = loading->cap == 0 ? ENTRIES_MIN : loading->cap + loading->cap / 2;
        struct entry *entries = mem_realloc_array(loading->entries, cap, sizeof(*entries));
        if (entries == NULL)
            return fail_nomem(loading->err);
        loading->entries = entries;
        loading->cap = cap;
    }
    struct entry entry = {.time_ms = event->time_ms, .row = row, .type = (uint32_t)event->type};
    enum status status =
        idmap_add(loading->users, event->user_id, strlen(event->user_id), &entry.user);
    if (status == STATUS_OK || status == STATUS_EXISTS)
        status = session_number(loading, entry.user, event->session_id, &entry.group);
    if (status != STATUS_OK)
        return error_set(loading->err, status, "numbering users and sessions: %s",
                         status_text(status));
    loading->entries[loading->n++] = entry;
    if (loading->n == 1 || entry.time_ms < loading->counts.first_ms)
        loading->counts.first_ms = entry.time_ms;
    if (loading->n == 1 || entry.time_ms > loading->counts.last_ms)
        loading->counts.last_ms = entry.time_ms;
    return STATUS_OK;
}

static enum status read_entries(struct loading *loading)
{
    struct event_reader *reader = NULL;
    enum status status = event_reader_open(loading->config->path, &reader, loading->err);
    while (status == STATUS_OK) {
        struct event_record event;
        status = event_reader_next(reader, &event, loading->err);
        if (status == STATUS_OK)
            status = add_entry(loading, &event);
    }
    event_reader_close(reader);
    return status == STATUS_NOT_FOUND && reader != NULL ? STATUS_OK : status;
}

/* ---- order ---- */

/* Turns counts[1 .. n] (of the groups 0 .. n-1) into starts[0 .. n]. */
static void sum_up(uint64_t *counts, size_t n)
{
    counts[0] = 0;
    for (size_t i = 0; i < n; i++)
        counts[i + 1] += counts[i];
}

/* After each start was moved to its group's end, which is the next one's start. */
static void move_back(uint64_t *starts, size_t n)
{
    memmove(starts + 1, starts, n * sizeof(*starts));
    starts[0] = 0;
}

static bool in_time_order(const struct entry *entries, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        if (entries[i].time_ms < entries[i - 1].time_ms)
            return false;
    }
    return true;
}

static void insertion_sort(struct entry *entries, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct entry moving = entries[i];
        size_t at = i;
        for (; at > 0 && entries[at - 1].time_ms > moving.time_ms; at--)
            entries[at] = entries[at - 1];
        entries[at] = moving;
    }
}

/* Stable; scratch[n]. Recursion is as deep as log2(n). */
static void sort_by_time(struct entry *entries, size_t n, struct entry *scratch)
{
    if (in_time_order(entries, n))
        return;
    if (n <= RUN_SHORT) {
        insertion_sort(entries, n);
        return;
    }
    size_t half = n / 2;
    sort_by_time(entries, half, scratch);
    sort_by_time(entries + half, n - half, scratch);
    memcpy(scratch, entries, half * sizeof(*entries));
    size_t left = 0;
    size_t right = half;
    for (size_t at = 0; left < half; at++) {
        if (right < n && entries[right].time_ms < scratch[left].time_ms)
            entries[at] = entries[right++];
        else
            entries[at] = scratch[left++];
    }
}

static enum status sort_entries(struct loading *loading)
{
    size_t n_users = idmap_size(loading->users);
    uint64_t *starts = mem_calloc(n_users + 1, sizeof(*starts));
    struct entry *sorted = mem_alloc_array(loading->n, sizeof(*sorted));
    if (starts == NULL || sorted == NULL) {
        mem_free(starts);
        mem_free(sorted);
        return fail_nomem(loading->err);
    }
    for (size_t i = 0; i < loading->n; i++)
        starts[loading->entries[i].user + 1]++;
    sum_up(starts, n_users);
    for (size_t i = 0; i < loading->n; i++)
        sorted[starts[loading->entries[i].user]++] = loading->entries[i];
    move_back(starts, n_users);
    for (size_t user = 0; user < n_users; user++)
        sort_by_time(sorted + starts[user], (size_t)(starts[user + 1] - starts[user]),
                     loading->entries);
    mem_free(starts);
    mem_free(loading->entries);
    loading->entries = sorted;
    return STATUS_OK;
}

/* ---- sequences ---- */

/* The walk over the sorted entries: what is needed to tell the sequence of the next one. */
struct walk {
    uint32_t *sequence_of_session; /* NO_SESSION: not met yet; NULL when there are no sessions */
    int64_t gap_ms;
    uint32_t n_sequences;
    uint32_t loose; /* the user's sequence of events without a session, NO_SESSION: none yet */
    int64_t loose_ms;
    bool by_session;
};

static uint32_t sequence_of(struct walk *walk, const struct entry *entry)
{
    if (entry->group != NO_SESSION) {
        uint32_t *sequence = &walk->sequence_of_session[entry->group];
        if (*sequence == NO_SESSION)
            *sequence = walk->n_sequences++;
        return *sequence;
    }
    bool is_gap = walk->by_session && entry->time_ms - walk->loose_ms > walk->gap_ms;
    if (walk->loose == NO_SESSION || is_gap)
        walk->loose = walk->n_sequences++;
    walk->loose_ms = entry->time_ms;
    return walk->loose;
}

static enum status number_sequences(struct loading *loading, size_t *n_sequences)
{
    size_t n_sessions = idmap_size(loading->sessions);
    struct walk walk = {
        .gap_ms = loading->config->session_gap_ms > 0 ? loading->config->session_gap_ms
                                                      : SESSION_GAP_DEFAULT_MS,
        .by_session = loading->config->grouping == EVENTS_BY_SESSION,
    };
    walk.sequence_of_session = mem_alloc_array(n_sessions, sizeof(*walk.sequence_of_session));
    if (walk.sequence_of_session == NULL)
        return fail_nomem(loading->err);
    memset(walk.sequence_of_session, 0xff, n_sessions * sizeof(*walk.sequence_of_session));
    for (size_t i = 0; i < loading->n; i++) {
        struct entry *entry = &loading->entries[i];
        if (i == 0 || entry->user != loading->entries[i - 1].user)
            walk.loose = NO_SESSION;
        entry->group = sequence_of(&walk, entry);
    }
    mem_free(walk.sequence_of_session);
    *n_sequences = walk.n_sequences;
    return STATUS_OK;
}

static enum status place_events(struct loading *loading, size_t n_sequences, struct event_log *log)
{
    log->offsets = mem_calloc(n_sequences + 1, sizeof(*log->offsets));
    log->users = mem_alloc_array(n_sequences, sizeof(*log->users));
    log->events = mem_alloc_array(loading->n, sizeof(*log->events));
    if (log->offsets == NULL || log->users == NULL || log->events == NULL) {
        event_log_free(log);
        return fail_nomem(loading->err);
    }
    for (size_t i = 0; i < loading->n; i++)
        log->offsets[loading->entries[i].group + 1]++;
    sum_up(log->offsets, n_sequences);
    for (size_t i = 0; i < loading->n; i++) {
        const struct entry *entry = &loading->entries[i];
        log->users[entry->group] = entry->user;
        log->events[log->offsets[entry->group]++] = (struct history_event){
            .row = entry->row, .type = (enum event_type)entry->type, .time_ms = entry->time_ms};
    }
    move_back(log->offsets, n_sequences);
    log->n_sequences = n_sequences;
    log->n_events = loading->n;
    log->n_users = idmap_size(loading->users);
    return STATUS_OK;
}

static enum status load(struct loading *loading, struct event_log *out)
{
    size_t n_sequences = 0;
    enum status status = idmap_open(0, &loading->users, loading->err);
    if (status == STATUS_OK)
        status = idmap_open(0, &loading->sessions, loading->err);
    if (status == STATUS_OK)
        status = read_entries(loading);
    if (status == STATUS_OK && loading->n >= UINT32_MAX)
        status = error_set(loading->err, STATUS_LIMIT, "%zu events are more than fit", loading->n);
    if (status == STATUS_OK)
        status = sort_entries(loading);
    if (status == STATUS_OK)
        status = number_sequences(loading, &n_sequences);
    if (status == STATUS_OK)
        status = place_events(loading, n_sequences, out);
    return status;
}

enum status event_log_load(const struct event_log_config *config, struct event_log *out,
                           struct event_log_counts *counts, struct idmap **users, struct error *err)
{
    *out = (struct event_log){.n_events = 0};
    if (users != NULL)
        *users = NULL;
    struct loading loading = {
        .config = config,
        .counts = {.first_ms = EVENT_TIME_UNKNOWN, .last_ms = EVENT_TIME_UNKNOWN},
        .err = err,
    };
    enum status status = load(&loading, out);
    if (status == STATUS_OK) {
        if (counts != NULL)
            *counts = loading.counts;
        if (users != NULL) {
            *users = loading.users;
            loading.users = NULL;
        }
    }
    mem_free(loading.entries);
    idmap_close(loading.sessions);
    idmap_close(loading.users);
    return status;
}
