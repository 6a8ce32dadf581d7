/* Sequential rules and association rules (M. Ludewig, D. Jannach, "Evaluation of session-based
 * recommendation algorithms", UMUAI 2018, section 3.1).
 *
 * sr: an item that follows another after d steps (d ≤ n_steps) adds 1 / d² to the rule from the
 * earlier to the later; ar: every pair of different items of a session adds 1 both ways, once for
 * each pair of events. An item keeps its n_pruned heaviest rules, the earlier found first among
 * equals, divided by the heaviest. Pairs are written out and sorted by antecedent: that needs 24
 * bytes a pair, and no hash table whose order could show.
 *
 * Pairs are merged whenever PAIRS_MAX have gathered, so that memory stays bounded by the distinct
 * ones. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/neighbors_internal.h"

enum { PAIRS_GROWTH = 1 << 20, AR_SESSION_MAX = 2000 };

struct pair {
    uint32_t from, to;
    double weight;
    uint64_t found; /* when, for the order of equals */
};

struct pairs {
    struct pair *items;
    size_t n, cap, n_merged;
    uint64_t n_found;
};

static int by_rule(const void *a, const void *b)
{
    const struct pair *x = a;
    const struct pair *y = b;
    if (x->from != y->from) {
        return x->from < y->from ? -1 : 1;
    }
    if (x->to != y->to) {
        return x->to < y->to ? -1 : 1;
    }
    return (x->found > y->found) - (x->found < y->found);
}

static int by_weight(const void *a, const void *b)
{
    const struct pair *x = a;
    const struct pair *y = b;
    if (x->weight != y->weight) {
        return x->weight > y->weight ? -1 : 1;
    }
    return (x->found > y->found) - (x->found < y->found);
}

static void merge(struct pairs *pairs)
{
    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker) status is not OK then */
    qsort(pairs->items, pairs->n, sizeof(*pairs->items), by_rule);
    size_t n = 0;
    for (size_t i = 0; i < pairs->n; i++) {
        struct pair *last = n > 0 ? &pairs->items[n - 1] : NULL;
        if (last != NULL && last->from == pairs->items[i].from && last->to == pairs->items[i].to) {
            last->weight += pairs->items[i].weight;
        } else {
            pairs->items[n++] = pairs->items[i];
        }
    }
    pairs->n = n;
    pairs->n_merged = n;
}

static enum status add_pair(struct pairs *pairs, uint32_t from, uint32_t to, double weight,
                            struct error *err)
{
    if (pairs->n == pairs->cap) {
        if (pairs->n > 2 * pairs->n_merged) {
            merge(pairs);
        }
        if (pairs->n * 2 > pairs->cap || pairs->cap == 0) {
            size_t cap = pairs->cap * 2 + PAIRS_GROWTH;
            struct pair *items = mem_realloc_array(pairs->items, cap, sizeof(*items));
            if (items == NULL) {
                return error_set(err, STATUS_NOMEM, "%zu rules: no memory", cap);
            }
            pairs->items = items;
            pairs->cap = cap;
        }
    }
    pairs->items[pairs->n++] = (struct pair){from, to, weight, pairs->n_found++};
    return STATUS_OK;
}

/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static enum status add_session(struct pairs *pairs, const struct history_event *events, size_t n,
                               const struct neighbors_settings *settings, struct error *err)
{
    bool sequential = settings->kind == NEIGHBORS_SR;
    size_t reach = sequential ? settings->n_steps : AR_SESSION_MAX;
    enum status status = STATUS_OK;
    for (size_t i = 1; i < n; i++) {
        uint32_t to = events[i].row;
        for (size_t d = 1; d <= reach && d <= i && status == STATUS_OK; d++) {
            uint32_t from = events[sequential ? i - d : d - 1].row;
            if (sequential) {
                status = add_pair(pairs, from, to, 1.0 / (double)(d * d), err);
            } else {
                status = add_pair(pairs, to, from, 1.0, err);
                if (status == STATUS_OK) {
                    status = add_pair(pairs, from, to, 1.0, err);
                }
            }
        }
    }
    return status;
}

static enum status write_rules(struct pairs *pairs, const struct neighbors_info *info,
                               const char *path, struct error *err)
{
    size_t n_items = info->n_items;
    int64_t *offsets = mem_calloc(n_items + 1, sizeof(*offsets));
    int32_t *items = mem_alloc_array(pairs->n + 1, sizeof(*items));
    float *scores = mem_alloc_array(pairs->n + 1, sizeof(*scores));
    enum status status = STATUS_OK;
    if (offsets == NULL || items == NULL || scores == NULL) {
        status = error_set(err, STATUS_NOMEM, "%zu rules: no memory", pairs->n);
        goto out;
    }
    size_t n = 0;
    size_t at = 0;
    for (size_t from = 0; from < n_items; from++) {
        size_t first = at;
        while (at < pairs->n && pairs->items[at].from == from) {
            at++;
        }
        qsort(pairs->items + first, at - first, sizeof(struct pair), by_weight);
        for (size_t i = first; i < at && i - first < info->settings.n_pruned; i++) {
            items[n] = (int32_t)pairs->items[i].to;
            scores[n++] = (float)(pairs->items[i].weight / pairs->items[first].weight);
        }
        offsets[from + 1] = (int64_t)n;
    }
    const struct neighbors_tables tables = {
        .n_items = n_items, .rule_offsets = offsets, .rule_items = items, .rule_scores = scores};
    status = neighbors_file_write(path, info, &tables, err);
out:
    mem_free(offsets);
    mem_free(items);
    mem_free(scores);
    return status;
}

enum status neighbors_build_rules(const struct event_log *sessions, size_t n_items,
                                  const struct neighbors_info *info, const char *path,
                                  struct error *err)
{
    struct pairs pairs = {NULL, 0, 0, 0, 0};
    struct neighbors_info written = *info;
    enum status status = n_items < INT32_MAX
                             ? STATUS_OK
                             : error_set(err, STATUS_LIMIT, "too many items for neighbours");
    written.n_sessions = 0;
    for (size_t s = 0; s < sessions->n_sequences && status == STATUS_OK; s++) {
        size_t n = (size_t)(sessions->offsets[s + 1] - sessions->offsets[s]);
        written.n_sessions += n > 1 ? 1 : 0;
        status =
            add_session(&pairs, sessions->events + sessions->offsets[s], n, &info->settings, err);
    }
    if (status == STATUS_OK && pairs.n == 0) {
        status = error_set(err, STATUS_INVALID, "no session with two different items");
    }
    if (status == STATUS_OK) {
        merge(&pairs);
        status = write_rules(&pairs, &written, path, err);
    }
    mem_free(pairs.items);
    return status;
}
