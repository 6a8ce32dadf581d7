#ifndef AISLE_STORE_SYNTH_H
#define AISLE_STORE_SYNTH_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* A believable shop: items.csv and events.csv. Taxonomy, nouns, adjectives, materials, colours,
 * brands and price ranges come from data/vocabulary; popularity is Zipf; visitors have tastes (a few
 * categories, a price level, colours or materials they like) and sessions follow sequences (accessory
 * after main product, same collection, cheaper alternative, back to an earlier one), so that a
 * sequence model has something to learn that popularity has not. Times span n_days before
 * end_time_ms; the same seed gives the same bytes. */
struct synth_config {
    const char *out_dir;
    const char *vocabulary_dir;
    size_t n_items;  /* default 5,000 */
    size_t n_users;  /* default 20,000 */
    size_t n_events; /* default 400,000 */
    uint64_t seed;   /* default 1 */
    size_t n_days;   /* default 60 */
    int64_t end_time_ms;
};
void synth_config_default(struct synth_config *config);
enum status synth_run(const struct synth_config *config, struct error *err) STATUS_CHECKED;

#endif
