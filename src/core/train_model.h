#ifndef AISLE_CORE_TRAIN_MODEL_H
#define AISLE_CORE_TRAIN_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* `aisle train`: item file + event file → model folder (see core/build_release.h), written to a
 * temporary folder and renamed. Only `decay` over item2vec vectors yet. */
struct train_config {
    const char *items_path;
    const char *events_path;
    const char *out_dir;
    const char *model; /* "decay" */
    size_t dim;        /* default 64 */
    size_t n_epochs;   /* 0: the model's default */
    size_t n_threads;  /* 0: all */
    uint64_t seed;
};
struct train_result {
    uint64_t n_items, n_items_with_events, n_events, n_unknown_item, n_sequences;
    double seconds;
};
void train_config_default(struct train_config *config);
enum status train_model(const struct train_config *config, struct train_result *result,
                        struct error *err) STATUS_CHECKED;

#endif
