#ifndef AISLE_BENCH_SHOP_H
#define AISLE_BENCH_SHOP_H

#include <stddef.h>
#include <stdint.h>

#include "base/events.h"
#include "base/rng.h"
#include "base/status.h"

/* A large shop for measurements: N items in soft clusters (vectors: centre plus more noise than
 * centre, with a falling spectrum, unit length: about as hard to search as what skip-gram gives,
 * and much harder than tight clusters, which an inverted file finds with two probes), visitors
 * whose histories come from a few clusters each. Written as an item file and a model folder, so
 * that `aisle build` makes the release. */
enum { BENCH_HISTORY = 50, BENCH_CLUSTERS = 1024 };

/* Item file DIR/items.csv and model folder DIR/model. */
enum status bench_shop_write(const char *dir, size_t n_items, size_t dim, uint64_t seed,
                             struct error *err) STATUS_CHECKED;
/* History of visitor `user`: BENCH_HISTORY events, newest first, ending at now_ms. */
void bench_shop_history(size_t n_items, uint64_t user, int64_t now_ms,
                        struct history_event events[BENCH_HISTORY]);
/* "SKU0000042" */
enum { BENCH_ID_BYTES = 32 };
void bench_shop_id(size_t item, char out[BENCH_ID_BYTES]);

/* {"commit": …, "cpu": …} members of a bench's JSON line; text is borrowed from static memory. */
const char *bench_machine(void);

#endif
