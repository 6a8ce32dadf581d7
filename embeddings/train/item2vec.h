#ifndef AISLE_EMBEDDINGS_TRAIN_ITEM2VEC_H
#define AISLE_EMBEDDINGS_TRAIN_ITEM2VEC_H

#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/status.h"

/* Item vectors from sequences of events: skip-gram with negative sampling (O. Barkan, N.
 * Koenigstein, "Item2vec: Neural Item Embedding for Collaborative Filtering", MLSP 2016; negative
 * sampling after T. Mikolov et al., NIPS 2013). A window of 0 means the whole sequence, as in the
 * paper's set variant. The hyper-parameters that matter most for recommendations (H. Caselles-Dupré
 * et al., RecSys 2018) are settings: negative-sampling exponent, sub-sampling, window, epochs. */
struct item2vec_settings {
    size_t dim;               /* D, 1 … 1024; default 64 */
    size_t n_epochs;          /* default 20 */
    size_t window;            /* events to each side; 0: whole sequence; default 5 */
    size_t n_negatives;       /* default 10 */
    double negative_exponent; /* popularity^x of the negatives' distribution; default 0.5 */
    double subsample;         /* Mikolov's t; 0: off; default 1e-3 */
    double learning_rate;     /* default 0.3, falls linearly to 1e-4 of it */
    size_t n_threads;         /* 0: all cores; 1 → same seed gives the same bytes */
    uint64_t seed;
    int show_progress;
};
void item2vec_settings_default(struct item2vec_settings *settings);

/* Trains vectors[n_items × D] (caller's memory, filled on success; rows of items that never had
 * another item beside them stay zero, others have unit length). log: borrowed, rows < n_items. Runs
 * of one item count once; sequences over 8,192 events are trained in pieces; with window 0 at most
 * 40 contexts an event are drawn, so that time is linear in events. INVALID: no sequence with two
 * events, settings out of range (named in err's field). NOMEM. Threads update the tables without
 * locks (Niu et al., Hogwild!, 2011). Shows a progress line with events a second if wanted. */
enum status item2vec_train(const struct event_log *log, size_t n_items,
                           const struct item2vec_settings *settings, float *vectors,
                           struct error *err) STATUS_CHECKED;

#endif
