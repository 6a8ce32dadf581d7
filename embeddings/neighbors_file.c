/* The file of session neighbours: writing, opening with all checks, renumbering.
 *
 * Queries index without looking, so that every number in the file is held against its bounds here,
 * once, when it is opened: offsets rise from 0 to the array's end, items and sessions are within
 * theirs. Nothing is copied; the arrays are used where they are mapped. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "embeddings/neighbors_internal.h"

/* ---- writing ---- */

enum status neighbors_file_write(const char *path, const struct neighbors_info *info,
                                 const struct neighbors_tables *t, struct error *err)
{
    struct buf settings;
    buf_init(&settings, NEIGHBORS_SETTINGS_BYTES_MAX);
    neighbors_settings_encode(info, &settings);
    const struct metadata_entry metadata = {NEIGHBORS_METADATA, buf_text(&settings)};
    size_t n = t->n_items;
    size_t s = t->n_sessions;
    enum status status = settings.status;
    if (status != STATUS_OK) {
        (void)error_set(err, status, "neighbours' settings: %s", status_text(status));
    } else if (neighbors_has_rules(info->settings.kind)) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) status is not OK then */
        size_t n_rules = (size_t)t->rule_offsets[n];
        const struct tensor_to_write tensors[] = {
            {"rules.offsets", TENSOR_I64, 1, {n + 1}, t->rule_offsets},
            {"rules.items", TENSOR_I32, 1, {n_rules}, t->rule_items},
            {"rules.scores", TENSOR_F32, 1, {n_rules}, t->rule_scores},
        };
        status = safetensors_write(path, tensors, 3, &metadata, 1, err);
    } else {
        const struct tensor_to_write tensors[] = {
            {"postings.offsets", TENSOR_I64, 1, {n + 1}, t->posting_offsets},
            {"sessions.offsets", TENSOR_I64, 1, {s + 1}, t->session_offsets},
            {"sessions.times", TENSOR_I64, 1, {s}, t->session_times},
            /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) status is not OK then */
            {"postings.sessions", TENSOR_I32, 1, {(size_t)t->posting_offsets[n]}, t->postings},
            {"sessions.items", TENSOR_I32, 1, {(size_t)t->session_offsets[s]}, t->session_items},
            {"sessions.lengths", TENSOR_I32, 1, {s}, t->session_lengths},
            {"counts", TENSOR_I32, 1, {n}, t->counts},
        };
        status = safetensors_write(path, tensors, sizeof(tensors) / sizeof(tensors[0]), &metadata,
                                   1, err);
    }
    buf_free(&settings);
    return status;
}

/* ---- opening ---- */

static enum status take(const struct safetensors *file, const char *name, enum tensor_type type,
                        const void **out, size_t *n, struct error *err)
{
    const struct tensor *tensor = safetensors_find(file, name);
    size_t size = type == TENSOR_I64 ? sizeof(int64_t) : sizeof(int32_t);
    if (tensor == NULL || tensor->type != type || tensor->rank != 1 ||
        (uintptr_t)tensor->data % size != 0) {
        return error_set(err, STATUS_FORMAT, "neighbours: tensor %s is missing or malformed", name);
    }
    *out = tensor->data;
    *n = tensor->n_values;
    return STATUS_OK;
}

static enum status check_offsets(const char *name, const int64_t *offsets, size_t n, size_t end,
                                 struct error *err)
{
    bool good = offsets[0] == 0 && offsets[n] >= 0 && (uint64_t)offsets[n] == end;
    for (size_t i = 0; good && i < n; i++) {
        good = offsets[i] <= offsets[i + 1];
    }
    return good ? STATUS_OK
                : error_set(err, STATUS_FORMAT, "neighbours: %s do not rise to their end", name);
}

static enum status check_below(const char *name, const int32_t *values, size_t n, size_t limit,
                               struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (values[i] < 0 || (size_t)values[i] >= limit) {
            return error_set(err, STATUS_FORMAT, "neighbours: %s has %d at %zu, out of bounds",
                             name, values[i], i);
        }
    }
    return STATUS_OK;
}

/* offsets [n + 1] and the values [offsets[n]] < limit that they point into. */
/* NOLINTNEXTLINE(readability-function-size) shapes are arguments */
static enum status take_lists(const struct safetensors *file, const char *const names[2], size_t n,
                              size_t limit, const int64_t **offsets, const int32_t **values,
                              struct error *err)
{
    size_t n_offsets = 0;
    size_t n_values = 0;
    const void *found = NULL;
    enum status status = take(file, names[0], TENSOR_I64, &found, &n_offsets, err);
    *offsets = found;
    if (status == STATUS_OK) {
        status = take(file, names[1], TENSOR_I32, &found, &n_values, err);
        *values = found;
    }
    if (status == STATUS_OK && n_offsets != n + 1) {
        status = error_set(err, STATUS_FORMAT, "neighbours: %s has %zu values, not %zu", names[0],
                           n_offsets, n + 1);
    }
    if (status == STATUS_OK) {
        status = check_offsets(names[0], *offsets, n, n_values, err);
    }
    if (status == STATUS_OK) {
        status = check_below(names[1], *values, n_values, limit, err);
    }
    return status;
}

static enum status take_column(const struct safetensors *file, const char *name,
                               enum tensor_type type, size_t n, const void **out, struct error *err)
{
    size_t n_values = 0;
    enum status status = take(file, name, type, out, &n_values, err);
    if (status == STATUS_OK && n_values != n) {
        status = error_set(err, STATUS_FORMAT, "neighbours: %s has %zu values, not %zu", name,
                           n_values, n);
    }
    return status;
}

static enum status take_rules(struct neighbors *neighbors, struct error *err)
{
    struct neighbors_tables *t = &neighbors->tables;
    const void *scores = NULL;
    static const char *const names[2] = {"rules.offsets", "rules.items"};
    enum status status = take_lists(neighbors->file, names, t->n_items, t->n_items,
                                    &t->rule_offsets, &t->rule_items, err);
    if (status != STATUS_OK) {
        return status;
    }
    size_t n = (size_t)t->rule_offsets[t->n_items];
    status = take_column(neighbors->file, "rules.scores", TENSOR_F32, n, &scores, err);
    t->rule_scores = scores;
    for (size_t i = 0; status == STATUS_OK && i < n; i++) {
        if (!(t->rule_scores[i] >= 0.0F && isfinite(t->rule_scores[i]))) {
            status = error_set(err, STATUS_FORMAT, "neighbours: score %zu is not a weight", i);
        }
    }
    for (size_t i = 0; status == STATUS_OK && i < t->n_items; i++) {
        if (t->rule_offsets[i + 1] - t->rule_offsets[i] > NEIGHBORS_HITS_MAX) {
            status = error_set(err, STATUS_FORMAT, "neighbours: item %zu has too many rules", i);
        }
    }
    return status;
}

static enum status take_sessions(struct neighbors *neighbors, struct error *err)
{
    struct neighbors_tables *t = &neighbors->tables;
    const struct safetensors *file = neighbors->file;
    static const char *const postings[2] = {"postings.offsets", "postings.sessions"};
    static const char *const sessions[2] = {"sessions.offsets", "sessions.items"};
    const void *found = NULL;
    enum status status = take_lists(file, postings, t->n_items, t->n_sessions, &t->posting_offsets,
                                    &t->postings, err);
    if (status == STATUS_OK) {
        status = take_lists(file, sessions, t->n_sessions, t->n_items, &t->session_offsets,
                            &t->session_items, err);
    }
    if (status == STATUS_OK) {
        status = take_column(file, "sessions.times", TENSOR_I64, t->n_sessions, &found, err);
        t->session_times = found;
    }
    if (status == STATUS_OK) {
        status = take_column(file, "sessions.lengths", TENSOR_I32, t->n_sessions, &found, err);
        t->session_lengths = found;
    }
    if (status == STATUS_OK) {
        status = take_column(file, "counts", TENSOR_I32, t->n_items, &found, err);
        t->counts = found;
    }
    for (size_t i = 0; status == STATUS_OK && i < t->n_items; i++) {
        for (int64_t p = t->posting_offsets[i]; p + 1 < t->posting_offsets[i + 1]; p++) {
            if (t->postings[p] <= t->postings[p + 1]) {
                return error_set(err, STATUS_FORMAT, "neighbours: postings of item %zu do not fall",
                                 i);
            }
        }
        if (t->counts[i] < 0) {
            return error_set(err, STATUS_FORMAT, "neighbours: count of item %zu is negative", i);
        }
    }
    return status;
}

static enum status read_file(struct neighbors *neighbors, size_t n_items, struct error *err)
{
    const char *settings = safetensors_metadata(neighbors->file, NEIGHBORS_METADATA);
    if (settings == NULL) {
        return error_set(err, STATUS_FORMAT, "not a file of session neighbours");
    }
    enum status status = neighbors_settings_decode(settings, &neighbors->info, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (neighbors->info.n_items != n_items) {
        return error_set(err, STATUS_MISMATCH, "neighbours of %zu items beside %zu items",
                         neighbors->info.n_items, n_items);
    }
    if (n_items >= INT32_MAX || neighbors->info.n_sessions >= INT32_MAX) {
        return error_set(err, STATUS_FORMAT, "neighbours: numbers out of range");
    }
    neighbors->tables.n_items = n_items;
    neighbors->tables.n_sessions = neighbors->info.n_sessions;
    return neighbors_has_rules(neighbors->info.settings.kind) ? take_rules(neighbors, err)
                                                              : take_sessions(neighbors, err);
}

enum status neighbors_open(const char *path, size_t n_items, struct neighbors **out,
                           struct error *err)
{
    *out = NULL;
    struct neighbors *neighbors = mem_calloc(1, sizeof(*neighbors));
    if (neighbors == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for neighbours");
    }
    enum status status = safetensors_open(path, &neighbors->file, err);
    if (status == STATUS_OK) {
        status = read_file(neighbors, n_items, err);
    }
    if (status != STATUS_OK) {
        error_prefix(err, "%.100s: ", path);
        neighbors_close(neighbors);
        return status;
    }
    *out = neighbors;
    return STATUS_OK;
}

enum status neighbors_open_bytes(const void *bytes, size_t n_bytes, size_t n_items,
                                 struct neighbors **out, struct error *err)
{
    *out = NULL;
    struct neighbors *neighbors = mem_calloc(1, sizeof(*neighbors));
    if (neighbors == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for neighbours");
    }
    enum status status = safetensors_open_bytes(bytes, n_bytes, &neighbors->file, err);
    if (status == STATUS_OK) {
        status = read_file(neighbors, n_items, err);
    }
    if (status != STATUS_OK) {
        neighbors_close(neighbors);
        return status;
    }
    *out = neighbors;
    return STATUS_OK;
}

void neighbors_close(struct neighbors *neighbors)
{
    if (neighbors != NULL) {
        safetensors_close(neighbors->file);
        mem_free(neighbors);
    }
}

struct neighbors_info neighbors_info(const struct neighbors *neighbors)
{
    return neighbors->info;
}

/* ---- renumbering ---- */

/* New lists of the items in their new order: list of r goes to to[r]; with by_value the values are
 * items too, and are renumbered or dropped. */
struct lists {
    int64_t *offsets;
    int32_t *values;
    float *scores; /* beside values, or NULL */
};

static enum status lists_init(struct lists *lists, size_t n, size_t n_values, bool with_scores,
                              struct error *err)
{
    lists->offsets = mem_calloc(n + 1, sizeof(*lists->offsets));
    lists->values = mem_alloc_array(n_values + 1, sizeof(*lists->values));
    lists->scores = with_scores ? mem_alloc_array(n_values + 1, sizeof(float)) : NULL;
    if (lists->offsets == NULL || lists->values == NULL || (with_scores && lists->scores == NULL)) {
        return error_set(err, STATUS_NOMEM, "renumbering neighbours: no memory");
    }
    return STATUS_OK;
}

static void lists_free(struct lists *lists)
{
    mem_free(lists->offsets);
    mem_free(lists->values);
    mem_free(lists->scores);
}

static uint32_t *invert(const uint32_t *to, size_t n_from, size_t n_to)
{
    uint32_t *from = mem_alloc_array(n_to + 1, sizeof(*from));
    for (size_t i = 0; from != NULL && i < n_to; i++) {
        from[i] = UINT32_MAX;
    }
    for (size_t i = 0; from != NULL && i < n_from; i++) {
        if (to[i] < n_to) {
            from[to[i]] = (uint32_t)i;
        }
    }
    return from;
}

static enum status renumber_rules(const struct neighbors *old, const uint32_t *to,
                                  const uint32_t *from, struct neighbors_info *info,
                                  const char *path, struct error *err)
{
    const struct neighbors_tables *t = &old->tables;
    struct lists lists = {NULL, NULL, NULL};
    enum status status =
        lists_init(&lists, info->n_items, (size_t)t->rule_offsets[t->n_items], true, err);
    size_t n = 0;
    for (size_t i = 0; status == STATUS_OK && i < info->n_items; i++) {
        int64_t begin = from[i] != UINT32_MAX ? t->rule_offsets[from[i]] : 0;
        int64_t end = from[i] != UINT32_MAX ? t->rule_offsets[from[i] + 1] : 0;
        for (int64_t r = begin; r < end; r++) {
            uint32_t item = to[t->rule_items[r]];
            if (item < info->n_items) {
                lists.values[n] = (int32_t)item;
                lists.scores[n++] = t->rule_scores[r];
            }
        }
        lists.offsets[i + 1] = (int64_t)n;
    }
    if (status == STATUS_OK) {
        const struct neighbors_tables tables = {.n_items = info->n_items,
                                                .rule_offsets = lists.offsets,
                                                .rule_items = lists.values,
                                                .rule_scores = lists.scores};
        status = neighbors_file_write(path, info, &tables, err);
    }
    lists_free(&lists);
    return status;
}

static enum status renumber_sessions(const struct neighbors *old, const uint32_t *to,
                                     const uint32_t *from, const struct neighbors_info *info,
                                     const char *path, struct error *err)
{
    const struct neighbors_tables *t = &old->tables;
    struct lists postings = {NULL, NULL, NULL};
    struct lists sessions = {NULL, NULL, NULL};
    int32_t *counts = mem_calloc(info->n_items + 1, sizeof(*counts));
    enum status status =
        lists_init(&postings, info->n_items, (size_t)t->posting_offsets[t->n_items], false, err);
    if (status == STATUS_OK) {
        status = lists_init(&sessions, t->n_sessions, (size_t)t->session_offsets[t->n_sessions],
                            false, err);
    }
    if (status == STATUS_OK && counts == NULL) {
        status = error_set(err, STATUS_NOMEM, "renumbering neighbours: no memory");
    }
    size_t n = 0;
    for (size_t i = 0; status == STATUS_OK && i < info->n_items; i++) {
        if (from[i] != UINT32_MAX) {
            int64_t begin = t->posting_offsets[from[i]];
            size_t size = (size_t)(t->posting_offsets[from[i] + 1] - begin);
            memcpy(postings.values + n, t->postings + begin, size * sizeof(int32_t));
            /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) status is not OK then */
            counts[i] = t->counts[from[i]];
            n += size;
        }
        postings.offsets[i + 1] = (int64_t)n;
    }
    n = 0;
    for (size_t s = 0; status == STATUS_OK && s < t->n_sessions; s++) {
        for (int64_t e = t->session_offsets[s]; e < t->session_offsets[s + 1]; e++) {
            uint32_t item = to[t->session_items[e]];
            if (item < info->n_items) {
                sessions.values[n++] = (int32_t)item;
            }
        }
        sessions.offsets[s + 1] = (int64_t)n;
    }
    if (status == STATUS_OK) {
        struct neighbors_tables tables = *t;
        tables.n_items = info->n_items;
        tables.posting_offsets = postings.offsets;
        tables.postings = postings.values;
        tables.session_offsets = sessions.offsets;
        tables.session_items = sessions.values;
        tables.counts = counts;
        status = neighbors_file_write(path, info, &tables, err);
    }
    lists_free(&postings);
    lists_free(&sessions);
    mem_free(counts);
    return status;
}

enum status neighbors_renumber(const char *from_path, const uint32_t *to, size_t n_from,
                               size_t n_to, const char *path, struct error *err)
{
    struct neighbors *old = NULL;
    enum status status = neighbors_open(from_path, n_from, &old, err);
    if (status != STATUS_OK) {
        return status;
    }
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) status is not OK then */
    struct neighbors_info info = old->info;
    info.n_items = n_to;
    uint32_t *from = invert(to, n_from, n_to);
    if (from == NULL) {
        status = error_set(err, STATUS_NOMEM, "renumbering neighbours: no memory");
    } else if (neighbors_has_rules(info.settings.kind)) {
        status = renumber_rules(old, to, from, &info, path, err);
    } else {
        status = renumber_sessions(old, to, from, &info, path, err);
    }
    mem_free(from);
    neighbors_close(old);
    return status;
}
