#ifndef AISLE_EMBEDDINGS_USER_MODEL_H
#define AISLE_EMBEDDINGS_USER_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/status.h"
#include "base/vectors.h"

/* User models: browsing histories in, one vector a user out, in the space of the item vectors, so
 * that scoring is one inner product. The model is one read-only parameter block shared by all
 * threads; each thread has a workspace, sized once for the largest batch, and a forward pass
 * allocates nothing.
 * Legend: B users in a batch, H events of one history, D dimension of item and user vectors. */

struct user_model;           /* read-only, thread-safe */
struct user_model_workspace; /* one thread's scratch memory */

/* B ragged histories, newest first: those of user b are events[offsets[b] .. offsets[b+1]). Rows
 * are rows of the item vector table. An empty history gives the zero vector. Events over the
 * model's history_max are ignored (the oldest). */
struct history_batch {
    size_t n_users;          /* B */
    const uint32_t *offsets; /* [B + 1] */
    const struct history_event *events;
    int64_t now_ms; /* the time of the request; ages count from it */
};

struct user_model_info {
    const char *architecture;  /* "decay", "sasrec", … */
    size_t dim;                /* D */
    size_t history_max;        /* events used of a history */
    const char *settings_json; /* for people and the manifest; borrowed from the model */
};

/* Opens model.safetensors (architecture and settings in its metadata) over the item vectors
 * (borrowed: they stay mapped as long as the model is open). MISMATCH when dimensions differ,
 * UNSUPPORTED for an unknown architecture or a newer settings version, FORMAT, IO, NOMEM. */
enum status user_model_open(const char *path, const struct vectors *items, struct user_model **out,
                            struct error *err) STATUS_CHECKED;
void user_model_close(struct user_model *model);
struct user_model_info user_model_info(const struct user_model *model);

/* Scratch for batches up to n_users_max; borrows the model. */
enum status user_model_workspace_open(const struct user_model *model, size_t n_users_max,
                                      struct user_model_workspace **out,
                                      struct error *err) STATUS_CHECKED;
void user_model_workspace_close(struct user_model_workspace *workspace);

/* out[B × D], row-major. B ≤ the workspace's n_users_max; rows < items.n (asserted: callers drop
 * unknown ids before). Allocates nothing. Deterministic: the same batch gives the same bits on the
 * same machine. Of a user whose batch holds other users the vector is equal within 1e-5 of its
 * largest component: BLAS may sum in another order for another number of rows (OpenBLAS 0.3.21 was
 * seen to do so for transposed factors, which `sasrec` avoids; `decay` has the same bits always).
 */
void user_model_embed(const struct user_model *model, struct user_model_workspace *workspace,
                      const struct history_batch *batch, float *out);

/* Models that can go on from a kept state (gru4rec): floats of a state, 0 for the others. */
size_t user_model_state_floats(const struct user_model *model);
/* One event more: state [floats as above] (caller's, zero before a user's first event) is updated,
 * out [D] is the user vector after it. Only for models with a state (asserted). Equals a full pass
 * over the same events within 1e-5 relative, as long as these are not more than history_max. */
void user_model_advance(const struct user_model *model, struct user_model_workspace *workspace,
                        const struct history_event *event, float *state, float *out);

/* Settings of the `decay` model: the user vector is the weighted mean of the history's item
 * vectors, weight = type_weight[type] × 0.5^(age / half_life) × position_decay^(position), scaled
 * to unit length. Events of unknown time count by position alone. */
struct decay_settings {
    size_t history_max;                 /* 1 … 1000 */
    double half_life_ms;                /* > 0; HUGE_VAL: no decay by age */
    double position_decay;              /* (0, 1] */
    double type_weights[N_EVENT_TYPES]; /* ≥ 0 */
};
/* 50 events, 7 days, position_decay 0.7 (best of 0.5 … 1 on held-out sessions), view 1, cart 3,
 * purchase 2, click 1. */
void decay_settings_default(struct decay_settings *settings);
/* Writes a model.safetensors of architecture "decay". INVALID names the setting in err's field. */
enum status decay_model_write(const char *path, size_t dim, const struct decay_settings *settings,
                              struct error *err) STATUS_CHECKED;

#endif
