#ifndef AISLE_EMBEDDINGS_TRAIN_TRAINER_H
#define AISLE_EMBEDDINGS_TRAIN_TRAINER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/status.h"
#include "embeddings/attention.h"
#include "embeddings/gru4rec.h"
#include "embeddings/sasrec.h"
#include "embeddings/train/loss.h"
#include "embeddings/train/network.h"
#include "embeddings/train/sequence_data.h"

/* Trains a sequence model and its item vectors from events alone: next-item prediction with AdamW,
 * a held-out part of the events for early stopping, checkpoints. All that is random comes from
 * counters (seed, epoch, step), so that a stopped training goes on as if it had not been stopped,
 * and the same seed gives the same bytes for any number of threads.
 * Legend: N items, d dimension of the network, D of the written item vectors. */
struct trainer_settings {
    const struct network_architecture *architecture;
    union {
        struct sasrec_settings sasrec;
        struct gru4rec_settings gru4rec;
        struct attention_settings attention;
    } network;  /* dim, item_dim, input_scale, output_scale and has_bias are set by the trainer */
    size_t dim; /* d */
    size_t history_max; /* events a network sees */
    struct loss_settings loss;
    struct sequence_data_settings data; /* inputs_max is set by the trainer */
    double normalised_scale; /* 0: off; else cosine scores times this (P. Gupta et al., "NISER",
                                2019): item vectors of unit length, user vectors of this length */
    bool item_bias;          /* folded in as an extra component */
    size_t n_epochs;         /* at most */
    size_t patience;         /* epochs without a better nDCG@10 before it stops; 0: never */
    size_t batch_events;
    double learning_rate;
    double warmup;     /* share of all steps with a rising rate */
    double final_rate; /* the rate falls by a cosine to this share */
    double weight_decay;
    double item_weight_decay;
    double dropout;       /* in the network */
    double input_dropout; /* of embedded items */
    double drop_events;   /* augmentation: inputs left out */
    double clip_norm;     /* of all gradients; 0: off */
    double average;       /* decay a step of an exponential moving average of all weights, which is
                             what is validated and written; 0: off */
    double initial_deviation; /* of item vectors */
    bool exclude_history;     /* validation: items of the prefix are not ranked */
    size_t n_threads;         /* 0: all */
    uint64_t seed;
    bool show_progress;
    const char *checkpoint_path; /* NULL: none */
    const char *fingerprint;     /* of data and settings: a checkpoint of another one is refused */
    double checkpoint_seconds;   /* time between two */
    const volatile sig_atomic_t *interrupted; /* not zero: write a checkpoint, stop; or NULL */
    double seconds_max;                       /* no epoch begins later than this; 0: no limit */
    uint64_t stop_after_steps;                /* as if interrupted then; 0: never */
    size_t stop_after_epochs;                 /* the same, when so many are done and validated */
    double stop_after_seconds; /* the same, when this run has lasted so long, but for a step */
};
/* Sensible values for an architecture ("sasrec", "gru4rec", "attention"); false: unknown name. */
bool trainer_settings_default(const char *architecture, struct trainer_settings *settings);

enum { TRAINER_CURVE_MAX = 1000 };
struct trainer_point {
    uint32_t epoch; /* from 1 */
    float loss, learning_rate;
    float ndcg10, hr10, hr20, mrr20; /* NAN without validation */
    float seconds;
};
struct trainer_curve {
    struct trainer_point points[TRAINER_CURVE_MAX];
    size_t n;
    size_t best; /* of points; n without validation */
    size_t n_cases;
    uint64_t n_targets, n_steps;
    double seconds; /* of training alone */
};

struct trainer;
/* Bytes that training will hold, without the events (a double: nothing overflows). */
double trainer_bytes(const struct trainer_settings *settings, size_t n_items);
/* log: borrowed while open, rows < n_items. INVALID names the setting in err's field. */
enum status trainer_open(const struct trainer_settings *settings, const struct event_log *log,
                         size_t n_items, struct trainer **out, struct error *err) STATUS_CHECKED;
void trainer_close(struct trainer *trainer);
/* Trains until it stops improving or has done its epochs, from the checkpoint if there is one
 * (MISMATCH: of other settings or data); then the best weights are the ones in use. UNAVAILABLE:
 * interrupted; the checkpoint is written. INVALID: the loss is not finite any more. Does nothing
 * when the checkpoint is of a refit. */
enum status trainer_run(struct trainer *trainer, struct error *err) STATUS_CHECKED;
/* After trainer_run: trains anew on all events, held-out ones too, for as many epochs as were best.
 * Does nothing where none was held out. */
enum status trainer_refit(struct trainer *trainer, struct error *err) STATUS_CHECKED;
bool trainer_is_refitting(const struct trainer *trainer);
/* Numbers of the caller that checkpoints keep. */
enum { TRAINER_NOTES = 2 };
double *trainer_notes(struct trainer *trainer);
/* The held-out cases, and the user vectors [n × D] before cases first … first + n - 1, by the
 * weights in use. n ≤ batch_events / history_max. */
const struct sequence_data *trainer_data(const struct trainer *trainer);
void trainer_users(struct trainer *trainer, size_t first, size_t n, float *users);
const struct trainer_curve *trainer_curve(const struct trainer *trainer);
/* D. */
size_t trainer_item_dim(const struct trainer *trainer);
/* The best item vectors [N × D]; rows of items without an event are zero. */
void trainer_item_vectors(const struct trainer *trainer, float *out);
/* Writes model.safetensors. */
enum status trainer_write_model(const struct trainer *trainer, const char *path,
                                struct error *err) STATUS_CHECKED;

#endif
