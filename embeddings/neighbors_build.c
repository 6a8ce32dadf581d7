/* Builds session neighbours from an event log: sessions in the order of their last event, items of
 * a session once each, postings of an item from the newest session back. Counting sorts throughout:
 * time and memory are linear in events (8 bytes an event beside the log).
 *
 * Legend: N items, S sessions with two different items, E their distinct items. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/neighbors_internal.h"

struct order {
    int64_t time_ms;
    uint32_t sequence;
};

static int compare_orders(const void *a, const void *b)
{
    const struct order *x = a;
    const struct order *y = b;
    if (x->time_ms != y->time_ms) {
        return x->time_ms < y->time_ms ? -1 : 1;
    }
    return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

struct builder {
    const struct event_log *log;
    size_t n_items;
    struct order *orders; /* [S] */
    size_t n_sessions, n_distinct;
    uint32_t *seen; /* [N] 1 + the session that saw the item last */
    int64_t *session_offsets, *session_times, *posting_offsets;
    int32_t *session_items, *session_lengths, *postings, *counts;
};

static void builder_free(struct builder *b)
{
    void *const blocks[] = {
        b->orders,          b->seen,          b->session_offsets, b->session_times,
        b->posting_offsets, b->session_items, b->session_lengths, b->postings,
        b->counts};
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        mem_free(blocks[i]);
    }
}

static bool is_session(const struct event_log *log, size_t s)
{
    for (uint64_t e = log->offsets[s] + 1; e < log->offsets[s + 1]; e++) {
        if (log->events[e].row != log->events[log->offsets[s]].row) {
            return true;
        }
    }
    return false;
}

static enum status order_sessions(struct builder *b, struct error *err)
{
    const struct event_log *log = b->log;
    b->orders = mem_alloc_array(log->n_sequences + 1, sizeof(*b->orders));
    if (b->orders == NULL) {
        return error_set(err, STATUS_NOMEM, "%zu sessions: no memory", log->n_sequences);
    }
    for (size_t s = 0; s < log->n_sequences; s++) {
        if (is_session(log, s)) {
            b->orders[b->n_sessions++] =
                (struct order){log->events[log->offsets[s + 1] - 1].time_ms, (uint32_t)s};
        }
    }
    if (b->n_sessions == 0) {
        return error_set(err, STATUS_INVALID, "no session with two different items");
    }
    if (b->n_sessions >= INT32_MAX || b->n_items >= INT32_MAX) {
        return error_set(err, STATUS_LIMIT, "too many sessions or items for neighbours");
    }
    qsort(b->orders, b->n_sessions, sizeof(*b->orders), compare_orders);
    return STATUS_OK;
}

static enum status allocate(struct builder *b, struct error *err)
{
    size_t s = b->n_sessions;
    b->seen = mem_calloc(b->n_items + 1, sizeof(*b->seen));
    b->session_offsets = mem_calloc(s + 1, sizeof(*b->session_offsets));
    b->session_times = mem_alloc_array(s, sizeof(*b->session_times));
    b->session_lengths = mem_alloc_array(s, sizeof(*b->session_lengths));
    b->session_items = mem_alloc_array(b->log->n_events + 1, sizeof(*b->session_items));
    b->posting_offsets = mem_calloc(b->n_items + 1, sizeof(*b->posting_offsets));
    b->counts = mem_calloc(b->n_items + 1, sizeof(*b->counts));
    if (b->seen == NULL || b->session_offsets == NULL || b->session_times == NULL ||
        b->session_lengths == NULL || b->session_items == NULL || b->posting_offsets == NULL ||
        b->counts == NULL) {
        return error_set(err, STATUS_NOMEM, "%zu sessions: no memory", s);
    }
    return STATUS_OK;
}

static void fill_sessions(struct builder *b)
{
    const struct event_log *log = b->log;
    for (size_t s = 0; s < b->n_sessions; s++) {
        uint64_t first = log->offsets[b->orders[s].sequence];
        uint64_t end = log->offsets[b->orders[s].sequence + 1];
        for (uint64_t e = first; e < end; e++) {
            uint32_t row = log->events[e].row;
            if (b->seen[row] != s + 1) {
                b->seen[row] = (uint32_t)s + 1;
                b->session_items[b->n_distinct++] = (int32_t)row;
                b->counts[row]++;
            }
        }
        uint64_t n = end - first;
        b->session_lengths[s] = n < INT32_MAX ? (int32_t)n : INT32_MAX;
        b->session_times[s] = b->orders[s].time_ms;
        b->session_offsets[s + 1] = (int64_t)b->n_distinct;
    }
}

static enum status fill_postings(struct builder *b, size_t n_sampled, struct error *err)
{
    int64_t total = 0;
    for (size_t i = 0; i < b->n_items; i++) {
        size_t n = (size_t)b->counts[i] < n_sampled ? (size_t)b->counts[i] : n_sampled;
        total += (int64_t)n;
        b->posting_offsets[i + 1] = total;
        b->seen[i] = 0; /* from now on: postings written */
    }
    b->postings = mem_alloc_array((size_t)total + 1, sizeof(*b->postings));
    if (b->postings == NULL) {
        return error_set(err, STATUS_NOMEM, "postings of %zu items: no memory", b->n_items);
    }
    for (size_t s = b->n_sessions; s-- > 0;) {
        for (int64_t e = b->session_offsets[s]; e < b->session_offsets[s + 1]; e++) {
            size_t row = (size_t)b->session_items[e];
            int64_t at = b->posting_offsets[row] + (int64_t)b->seen[row];
            if (at < b->posting_offsets[row + 1]) {
                b->postings[at] = (int32_t)s;
                b->seen[row]++;
            }
        }
    }
    return STATUS_OK;
}

static enum status build_sessions(struct builder *b, struct neighbors_info *info, const char *path,
                                  struct error *err)
{
    enum status status = order_sessions(b, err);
    if (status == STATUS_OK) {
        status = allocate(b, err);
    }
    if (status == STATUS_OK) {
        fill_sessions(b);
        status = fill_postings(b, info->settings.n_sampled, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    info->n_sessions = b->n_sessions;
    const struct neighbors_tables tables = {
        .n_items = b->n_items,
        .n_sessions = b->n_sessions,
        .posting_offsets = b->posting_offsets,
        .postings = b->postings,
        .session_offsets = b->session_offsets,
        .session_items = b->session_items,
        .session_times = b->session_times,
        .session_lengths = b->session_lengths,
        .counts = b->counts,
    };
    return neighbors_file_write(path, info, &tables, err);
}

enum status neighbors_build(const struct event_log *sessions, size_t n_items,
                            const struct neighbors_settings *settings,
                            const struct neighbors_blend *blend, const char *path,
                            struct error *err)
{
    enum status status = neighbors_settings_check(settings, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct neighbors_info info = {.settings = *settings, .blend = *blend, .n_items = n_items};
    if (neighbors_has_rules(settings->kind)) {
        return neighbors_build_rules(sessions, n_items, &info, path, err);
    }
    struct builder builder = {.log = sessions, .n_items = n_items};
    status = build_sessions(&builder, &info, path, err);
    builder_free(&builder);
    return status;
}
