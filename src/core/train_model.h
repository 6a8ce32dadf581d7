#ifndef AISLE_CORE_TRAIN_MODEL_H
#define AISLE_CORE_TRAIN_MODEL_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* `aisle train`: item file + event file → model folder (see core/build_release.h), written to a
 * temporary folder and renamed. Models:
 *  - decay: item2vec vectors, a weighted mean of the history;
 *  - sasrec, gru4rec, attention: trained sequence models with their own item vectors;
 *  - vmis, vsknn, vstan, sr, ar: session neighbours as the model, item2vec vectors to fill up with.
 * Sequence models can carry neighbours too (overrides.neighbors); how much these count is then
 * tuned on the held-out events. */

/* Settings that are given; negative or NULL: the model's default. Meaning: struct trainer_settings,
 * struct sasrec_settings, struct gru4rec_settings, struct loss_settings, struct neighbors_settings.
 */
struct train_overrides {
    double history_max, learning_rate, batch_events, warmup, final_rate, weight_decay;
    double item_weight_decay, dropout, input_dropout, drop_events, clip_norm, average;
    double cosine_scale, item_bias, initial_deviation, patience;
    double negatives, in_batch, negative_exponent, log_q, gbce_t, label_smoothing;
    double validation_share, validation_cases, exclude_history, refit;
    double blocks, heads, ffn_dim, post_norm, embedding_norm, event_types, gap_buckets;
    double layers, hidden_dim;
    double neighbors_sampled, neighbors_k, neighbors_last, neighbors_idf;
    double lambda_query, lambda_age_days, lambda_distance;
    const char *loss;       /* full | sampled | gbce */
    const char *validation; /* none | leave-last | time-split */
    const char *sequences;  /* user | session: what a sequence is; default user */
    const char *neighbors;  /* none | vmis | vsknn | vstan | sr | ar */
};

struct train_config {
    const char *items_path;
    const char *events_path;
    const char *out_dir;
    const char *model; /* default "decay" */
    size_t dim;        /* default 64 */
    size_t n_epochs;   /* 0: the model's default */
    size_t n_threads;  /* 0: all */
    uint64_t seed;
    double budget_seconds; /* 0: no search of settings */
    bool begin_anew;       /* an interrupted training's checkpoint is removed first */
    struct train_overrides overrides;
    const volatile sig_atomic_t *interrupted; /* not zero: checkpoint and stop; or NULL */
};
struct train_result {
    uint64_t n_items, n_items_with_events, n_events, n_unknown_item, n_sequences;
    uint64_t n_validation;            /* held-out events */
    size_t dim;                       /* of the written vectors */
    size_t best_epoch;                /* 0: not a sequence model */
    double ndcg10, hr10, hr20, mrr20; /* on the held-out events; NAN without */
    double blend_weight;              /* of neighbours beside a sequence model */
    double seconds;
};
void train_config_default(struct train_config *config);
/* INVALID (field: the flag at fault), EXISTS, LIMIT, IO, NOMEM; UNAVAILABLE: interrupted, the same
 * call goes on from the checkpoint; MISMATCH: the checkpoint is of other settings or data. Whatever
 * fails, the old model folder stays as it is. */
enum status train_model(const struct train_config *config, struct train_result *result,
                        struct error *err) STATUS_CHECKED;

#endif
