#ifndef AISLE_EMBEDDINGS_TRAIN_TRAINER_INTERNAL_H
#define AISLE_EMBEDDINGS_TRAIN_TRAINER_INTERNAL_H

#include "base/log.h"
#include "embeddings/train/adamw.h"
#include "embeddings/train/trainer.h"

/* Shared by trainer.c (the loop), trainer_step.c (one step), trainer_validate.c and
 * trainer_checkpoint.c. */

/* A set of weights: item vectors, item biases, the network's, one after another. */
struct weights {
    float *items;   /* [N × d] */
    float *bias;    /* [N] or NULL */
    float *network; /* [n_network] */
};

struct trainer {
    struct trainer_settings settings;
    const struct event_log *log;
    size_t n_items, dim, n_network; /* N, d, weights of the network */
    struct network *network;
    struct loss *loss;
    struct sequence_data data;
    struct sequence_batch batch;
    bool refitting;

    float *memory; /* of all tables below, one block: what a checkpoint holds */
    size_t n_memory;
    struct weights now;          /* network: NULL, the network has them */
    struct weights mean, square; /* AdamW's moments */
    struct weights average;      /* or all NULL */
    struct weights best;
    float *rows;            /* [N × d] items as the network sees them: unit length, or `now` */
    float *item_gradient;   /* [N × d], zero between steps */
    float *bias_gradient;   /* [N] or NULL */
    unsigned char *touched; /* [N], losses that touch few rows; or NULL */
    uint32_t *touched_rows; /* [N] */
    float *inputs, *input_gradient;  /* [T × d] */
    float *hidden, *hidden_gradient; /* [T × d] normalised */
    float *inverse;                  /* [T] 1 / |h| */
    uint32_t *order;                 /* [windows] of this epoch */

    uint64_t step, n_steps; /* done; expected in all, for the rate */
    size_t epoch;           /* under way, from 0 */
    size_t at;              /* windows done of it */
    double epoch_loss;      /* Σ loss × events */
    uint64_t epoch_targets;
    double best_ndcg;
    size_t epochs_since_best;
    double notes[TRAINER_NOTES];
    double seconds_before; /* of earlier runs */
    int64_t start_us, checkpoint_us;
    struct trainer_curve curve;
    struct progress progress;
};

/* trainer_step.c: trains on the batch; returns its mean loss. */
double trainer_step(struct trainer *trainer, double rate);
/* Rows as the network sees them from `now`. */
void trainer_refresh_rows(struct trainer *trainer);
/* inputs[T × d] of the batch's events, without dropout. */
void trainer_embed(struct trainer *trainer);
/* Exchanges the weights in use with others (the average, the best). */
void trainer_swap(struct trainer *trainer, struct weights *other);
/* Copies the weights in use. */
void trainer_copy(struct trainer *trainer, struct weights *out);

/* trainer_validate.c: metrics over the held-out cases with the weights in use. */
enum status trainer_validate(struct trainer *trainer, struct trainer_point *point,
                             struct error *err) STATUS_CHECKED;

/* trainer.c: goes over to training anew on all events (after curve.best is known). */
enum status trainer_begin_refit(struct trainer *trainer, struct error *err) STATUS_CHECKED;

/* trainer_checkpoint.c */
enum status trainer_checkpoint_write(struct trainer *trainer, struct error *err) STATUS_CHECKED;
/* NOT_FOUND: none there (err untouched). */
enum status trainer_checkpoint_read(struct trainer *trainer, struct error *err) STATUS_CHECKED;

/* A seed for one use of randomness at one step. */
uint64_t trainer_seed(const struct trainer *trainer, uint64_t use, uint64_t step);
enum trainer_seed_use {
    SEED_ITEMS,
    SEED_NETWORK,
    SEED_ORDER,
    SEED_BATCH,
    SEED_DROPOUT,
    SEED_INPUT_DROPOUT,
    SEED_NEGATIVES
};

#endif
