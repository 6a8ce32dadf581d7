#ifndef AISLE_EMBEDDINGS_TRAIN_SEQUENCE_DATA_H
#define AISLE_EMBEDDINGS_TRAIN_SEQUENCE_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/status.h"

/* An event log as training and validation data of next-item prediction. */
enum sequence_validation {
    VALIDATE_NONE,
    VALIDATE_LEAVE_LAST, /* each sequence's last event is held out */
    VALIDATE_TIME_SPLIT, /* the events after a time are held out, the newest `share` of all */
    N_SEQUENCE_VALIDATIONS
};
const char *
sequence_validation_name(enum sequence_validation kind); /* none, leave-last, time-split */
bool sequence_validation_parse(const char *text, enum sequence_validation *out);

struct sequence_data_settings {
    enum sequence_validation validation;
    double share;      /* of time-split */
    size_t cases_max;  /* held-out events that are kept, drawn by seed; 0: all */
    size_t inputs_max; /* events of a window (history_max of the network) */
    uint64_t seed;
};

/* A held-out event: what came before it in its sequence, newest inputs_max events. */
struct sequence_case {
    uint64_t first; /* prefix: log events [first, next) */
    uint64_t next;  /* the event to be found */
};
/* Events [first, end) of the log, at most inputs_max + 1; the first is only an input, the last only
 * a target. Long sequences are cut from their end, each piece sharing one event with the next. */
struct sequence_window {
    uint64_t first;
    uint32_t n;
};

struct sequence_data {
    const struct event_log *log; /* borrowed */
    struct sequence_window *windows;
    size_t n_windows;
    uint64_t n_targets;
    struct sequence_case *cases;
    size_t n_cases;
    double *counts;   /* [n_items] events of training an item */
    int64_t split_ms; /* time-split: held out are the events from then on */
};
/* Free in any case. INVALID: no sequence with two events of training. NOMEM. */
enum status sequence_data_open(const struct event_log *log, size_t n_items,
                               const struct sequence_data_settings *settings,
                               struct sequence_data *out, struct error *err) STATUS_CHECKED;
void sequence_data_free(struct sequence_data *data);

/* A batch of windows, packed. */
struct sequence_batch {
    size_t tokens_max, sequences_max;
    uint32_t *offsets;            /* [n_sequences + 1] */
    struct history_event *events; /* [T] inputs, oldest first */
    uint32_t *targets;            /* [T] row of the event after each */
    size_t n_sequences, n_tokens;
};
enum status sequence_batch_open(size_t tokens_max, struct sequence_batch *out,
                                struct error *err) STATUS_CHECKED;
void sequence_batch_free(struct sequence_batch *batch);
/* Fills the batch with windows order[at …], each input dropped with probability drop_events (but
 * never the last one); returns the place after the last window taken (> at). */
size_t sequence_batch_fill(struct sequence_batch *batch, const struct sequence_data *data,
                           const uint32_t *order, size_t at, double drop_events, uint64_t seed);
/* Fills it with the prefixes of cases at …; targets are those of the cases, one a sequence. */
size_t sequence_batch_fill_cases(struct sequence_batch *batch, const struct sequence_data *data,
                                 size_t at);

#endif
