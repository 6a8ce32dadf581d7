#ifndef AISLE_CORE_TRAIN_SEARCH_H
#define AISLE_CORE_TRAIN_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/json_write.h"
#include "base/status.h"
#include "embeddings/train/trainer.h"

/* Search of a trainer's settings by successive halving: many candidates are trained a little, the
 * best third three times as long, and so on (see train_search.c). Candidates are `base` itself,
 * which takes part to the end, and random variations of it. They are compared by the best
 * validation nDCG@10 so far. */
enum {
    TRAIN_SEARCH_CANDIDATES_MAX = 64,
    TRAIN_SEARCH_RUNGS_MAX = 4,
    TRAIN_SEARCH_KEEP_ONE_OF = 3, /* candidates from rung to rung; epochs grow by as much */
};
/* Share of the budget that the search takes; the rest is for the training with what it found. */
#define TRAIN_SEARCH_SHARE 0.6

struct train_search_config {
    const struct trainer_settings *base; /* with validation; its `interrupted` ends the search */
    const struct event_log *log;
    size_t n_items;
    double budget_seconds; /* of the search and of the final training, > 0 */
    const char *folder;    /* exists; checkpoints are put in a folder in it, which is removed */
    uint64_t seed;         /* of the variations */
    /* Instead of by the budget (which still ends the search); 0: by the budget. All or none. */
    size_t n_candidates, n_rungs, first_epochs;
};

struct train_search_row {
    struct trainer_settings settings; /* to train with: epochs, checkpoints as in base */
    size_t n_epochs;                  /* done and validated */
    size_t n_rungs;                   /* done */
    double ndcg10;                    /* best of these epochs; NAN before the first */
    double seconds;
    bool failed; /* its loss became infinite, or the trainer refused the settings */
};
/* Some 40 kB: better not on a thread's stack. */
struct train_search_report {
    struct train_search_row rows[TRAIN_SEARCH_CANDIDATES_MAX]; /* base is the first */
    size_t n;                                                  /* of rows */
    size_t best;                                               /* of rows */
    size_t n_rungs;                                            /* planned; 0: no search */
    size_t first_epochs;                                       /* of the first rung */
    double epoch_seconds; /* of base, measured; NAN with a given plan */
    double seconds;       /* of the search */
    bool too_short;       /* no time for a comparison that would tell anything: base it is */
    bool out_of_time;     /* the budget ended before the plan did */
};

/* Writes into *best the settings to train with: base's unless another was better (equal: the
 * first); epochs, patience, checkpoints and the rest as in base. Takes TRAIN_SEARCH_SHARE of the
 * budget at most, but for a step, a validation and a checkpoint. The same seed and plan give the
 * same answer. report: rows so far in any case; *best is only written with OK. One thread calls; it
 * trains with base's threads. A line per candidate and rung at level info. OK also when the budget
 * is too short (report->too_short). INVALID (field): budget, plan, no validation or no held-out
 * event, settings of base; UNAVAILABLE: interrupted; PERMISSION, NOT_FOUND, IO: the folder; NOMEM.
 */
enum status train_search(const struct train_search_config *config, struct trainer_settings *best,
                         struct train_search_report *report, struct error *err) STATUS_CHECKED;

/* A member "search" of the object that is open: the plan, and of each candidate its settings,
 * epochs, nDCG@10 and seconds. */
void train_search_json(const struct train_search_report *report, struct json_writer *json);

#endif
