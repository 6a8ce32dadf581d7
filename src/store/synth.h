#ifndef AISLE_STORE_SYNTH_H
#define AISLE_STORE_SYNTH_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* A believable shop: items.csv and events.csv. Taxonomy, nouns, adjectives, materials, colours,
 * brands and price ranges come from data/vocabulary; popularity is Zipf; visitors have tastes (a
 * few categories, a price level, colours or materials they like) and sessions follow sequences
 * (accessory after main product, same collection, cheaper alternative, back to an earlier one), so
 * that a sequence model has something to learn that popularity has not. Times span n_days before
 * end_time_ms; the same seed gives the same bytes. */
enum {
    SYNTH_ITEMS_DEFAULT = 5000,
    SYNTH_ITEMS_MAX = 10000000,
    SYNTH_USERS_DEFAULT = 20000,
    SYNTH_USERS_MAX = 100000000,
    SYNTH_EVENTS_DEFAULT = 400000,
    SYNTH_EVENTS_MAX = 1000000000,
    SYNTH_DAYS_DEFAULT = 60,
    SYNTH_DAYS_MAX = 3650,
};
struct synth_config {
    const char *out_dir;
    const char *vocabulary_dir;
    size_t n_items;      /* default 5,000 */
    size_t n_users;      /* default 20,000 */
    size_t n_events;     /* default 400,000 */
    uint64_t seed;       /* default 1 */
    size_t n_days;       /* default 60 */
    int64_t end_time_ms; /* default 2026-11-24T00:00:00Z */
};
void synth_config_default(struct synth_config *config);
/* Creates out_dir; files are replaced atomically, items first. INVALID names the field out of
 * range; NOT_FOUND, FORMAT: the vocabulary. Memory: about 60 bytes an item, 24 an event, 12 a user.
 */
enum status synth_run(const struct synth_config *config, struct error *err) STATUS_CHECKED;

#endif
