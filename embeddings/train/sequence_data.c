/* Windows and held-out cases of an event log, and batches of them.
 *
 * A window is trained on at all its positions at once (a causal network's outputs depend on nothing
 * after them), so that a sequence of n events costs one pass and not n. Sequences longer than the
 * network's history are cut from the newest end: the newest events, which serving sees, always have
 * full context. */
#include "embeddings/train/sequence_data.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"

static const char *const VALIDATION_NAMES[N_SEQUENCE_VALIDATIONS] = {"none", "leave-last",
                                                                     "time-split"};

const char *sequence_validation_name(enum sequence_validation kind)
{
    return VALIDATION_NAMES[kind];
}

bool sequence_validation_parse(const char *text, enum sequence_validation *out)
{
    for (int i = 0; i < N_SEQUENCE_VALIDATIONS; i++) {
        if (strcmp(text, VALIDATION_NAMES[i]) == 0) {
            *out = (enum sequence_validation)i;
            return true;
        }
    }
    return false;
}

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The time before which (1 - share) of the events lie. */
static enum status split_time(const struct event_log *log, double share, int64_t *out,
                              struct error *err)
{
    int64_t *times = mem_alloc_array(log->n_events, sizeof(*times));
    if (times == NULL) {
        return error_set(err, STATUS_NOMEM, "times of %zu events: no memory", log->n_events);
    }
    for (size_t e = 0; e < log->n_events; e++) {
        times[e] = log->events[e].time_ms;
    }
    qsort(times, log->n_events, sizeof(*times), compare_times);
    size_t at = (size_t)((double)log->n_events * (1.0 - share));
    *out = times[at < log->n_events ? at : log->n_events - 1];
    mem_free(times);
    return STATUS_OK;
}

/* First event of a sequence that is held out. */
static uint64_t training_end(const struct event_log *log,
                             const struct sequence_data_settings *settings, size_t sequence,
                             int64_t split_ms)
{
    uint64_t first = log->offsets[sequence];
    uint64_t end = log->offsets[sequence + 1];
    if (settings->validation == VALIDATE_LEAVE_LAST) {
        return end - first >= 3 ? end - 1 : end; /* two events at least are left to learn from */
    }
    while (settings->validation == VALIDATE_TIME_SPLIT && end > first &&
           log->events[end - 1].time_ms >= split_ms) {
        end--;
    }
    return end;
}

struct growing {
    size_t n_windows, n_cases;
    bool counting;
};

static void add_windows(struct sequence_data *data, struct growing *growing, uint64_t first,
                        uint64_t end, size_t inputs_max)
{
    while (end - first >= 2) {
        uint64_t n = end - first < inputs_max + 1 ? end - first : inputs_max + 1;
        if (!growing->counting) {
            data->windows[growing->n_windows] =
                (struct sequence_window){.first = end - n, .n = (uint32_t)n};
            data->n_targets += n - 1;
        }
        growing->n_windows++;
        end -= n - 1;
    }
}

static void add_cases(struct sequence_data *data, struct growing *growing, uint64_t first,
                      uint64_t begin, uint64_t end, size_t inputs_max)
{
    for (uint64_t next = begin > first ? begin : first + 1; next < end; next++) {
        if (!growing->counting) {
            uint64_t from = next - first > inputs_max ? next - inputs_max : first;
            data->cases[growing->n_cases] = (struct sequence_case){from, next};
        }
        growing->n_cases++;
    }
}

static void scan(struct sequence_data *data, struct growing *growing,
                 const struct sequence_data_settings *settings, int64_t split_ms)
{
    const struct event_log *log = data->log;
    for (size_t s = 0; s < log->n_sequences; s++) {
        uint64_t first = log->offsets[s];
        uint64_t end = training_end(log, settings, s, split_ms);
        add_windows(data, growing, first, end, settings->inputs_max);
        add_cases(data, growing, first, end, log->offsets[s + 1], settings->inputs_max);
        for (uint64_t e = first; !growing->counting && e < end; e++) {
            data->counts[log->events[e].row] += 1.0;
        }
    }
}

/* Keeps cases_max of the cases, in their order. */
static void sample_cases(struct sequence_data *data, const struct sequence_data_settings *settings)
{
    size_t wanted = settings->cases_max;
    if (wanted == 0 || data->n_cases <= wanted) {
        return;
    }
    struct rng rng;
    rng_init(&rng, settings->seed);
    size_t n = 0;
    for (size_t i = 0; i < data->n_cases; i++) {
        if (rng_below(&rng, data->n_cases - i) < wanted - n) {
            data->cases[n++] = data->cases[i];
        }
    }
    data->n_cases = n;
}

enum status sequence_data_open(const struct event_log *log, size_t n_items,
                               const struct sequence_data_settings *settings,
                               struct sequence_data *out, struct error *err)
{
    *out = (struct sequence_data){.log = log};
    int64_t split_ms = 0;
    if (settings->validation == VALIDATE_TIME_SPLIT && log->n_events > 0) {
        enum status status = split_time(log, settings->share, &split_ms, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    out->split_ms = split_ms;
    struct growing growing = {.counting = true};
    scan(out, &growing, settings, split_ms);
    if (growing.n_windows == 0) {
        return error_set(err, STATUS_INVALID,
                         "no visitor with two events of known items to learn from");
    }
    out->windows = mem_alloc_array(growing.n_windows, sizeof(*out->windows));
    out->cases = mem_alloc_array(growing.n_cases + 1, sizeof(*out->cases));
    out->counts = mem_calloc(n_items, sizeof(*out->counts));
    if (out->windows == NULL || out->cases == NULL || out->counts == NULL) {
        return error_set(err, STATUS_NOMEM, "windows of %zu events: no memory", log->n_events);
    }
    out->n_windows = growing.n_windows;
    out->n_cases = growing.n_cases;
    growing = (struct growing){.counting = false};
    scan(out, &growing, settings, split_ms);
    sample_cases(out, settings);
    return STATUS_OK;
}

void sequence_data_free(struct sequence_data *data)
{
    mem_free(data->windows);
    mem_free(data->cases);
    mem_free(data->counts);
    *data = (struct sequence_data){.log = NULL};
}

/* ---- batches ---- */

enum status sequence_batch_open(size_t tokens_max, struct sequence_batch *out, struct error *err)
{
    *out = (struct sequence_batch){.tokens_max = tokens_max, .sequences_max = tokens_max};
    out->offsets = mem_alloc_array(tokens_max + 1, sizeof(*out->offsets));
    out->events = mem_alloc_array(tokens_max, sizeof(*out->events));
    out->targets = mem_alloc_array(tokens_max, sizeof(*out->targets));
    if (out->offsets == NULL || out->events == NULL || out->targets == NULL) {
        return error_set(err, STATUS_NOMEM, "a batch of %zu events: no memory", tokens_max);
    }
    return STATUS_OK;
}

void sequence_batch_free(struct sequence_batch *batch)
{
    mem_free(batch->offsets);
    mem_free(batch->events);
    mem_free(batch->targets);
    *batch = (struct sequence_batch){.tokens_max = 0};
}

size_t sequence_batch_fill(struct sequence_batch *batch, const struct sequence_data *data,
                           const uint32_t *order, size_t at, double drop_events, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    batch->n_sequences = 0;
    batch->n_tokens = 0;
    batch->offsets[0] = 0;
    for (; at < data->n_windows; at++) {
        const struct sequence_window *window = &data->windows[order[at]];
        if (batch->n_tokens + window->n - 1 > batch->tokens_max) {
            break;
        }
        const struct history_event *events = data->log->events + window->first;
        size_t last = window->n - 2;
        for (size_t i = 0; i <= last; i++) {
            if (drop_events > 0.0 && i != last && rng_double(&rng) < drop_events) {
                continue;
            }
            batch->events[batch->n_tokens] = events[i];
            batch->targets[batch->n_tokens++] = events[i + 1].row;
        }
        batch->offsets[++batch->n_sequences] = (uint32_t)batch->n_tokens;
    }
    /* What was dropped is not a target either: a target is the next event that was kept. */
    for (size_t s = 0; drop_events > 0.0 && s < batch->n_sequences; s++) {
        for (size_t i = batch->offsets[s]; i + 1 < batch->offsets[s + 1]; i++) {
            batch->targets[i] = batch->events[i + 1].row;
        }
    }
    return at;
}

size_t sequence_batch_fill_cases(struct sequence_batch *batch, const struct sequence_data *data,
                                 size_t at)
{
    batch->n_sequences = 0;
    batch->n_tokens = 0;
    batch->offsets[0] = 0;
    for (; at < data->n_cases; at++) {
        const struct sequence_case *c = &data->cases[at];
        size_t n = (size_t)(c->next - c->first);
        if (batch->n_tokens + n > batch->tokens_max) {
            break;
        }
        memcpy(batch->events + batch->n_tokens, data->log->events + c->first,
               n * sizeof(*batch->events));
        batch->n_tokens += n;
        batch->targets[batch->n_sequences++] = data->log->events[c->next].row;
        batch->offsets[batch->n_sequences] = (uint32_t)batch->n_tokens;
    }
    return at;
}
