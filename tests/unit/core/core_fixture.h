#ifndef AISLE_TESTS_CORE_FIXTURE_H
#define AISLE_TESTS_CORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/rng.h"
#include "core/engine.h"
#include "core/filter.h"
#include "core/profile.h"
#include "core/recommend.h"

/* A small shop made up from a seed and published as a release in a temporary folder, by the same
 * parts that `aisle build` uses; what was written is kept here as plain values to compare with. */
struct shop_item {
    char id[24];
    char title[40];
    const char *category; /* NULL where missing; normalised */
    const char *brand;
    const char *color; /* attributes.color, text */
    double price;      /* NAN where missing */
    double stock;
    double created_at_ms;
    double size; /* attributes.size, number */
    double eco;  /* attributes.eco, bool: 0, 1 or NAN */
    double popularity;
};

struct core_fixture {
    char dir[64];
    char release_dir[PATH_BYTES_MAX];
    struct shop_item *items;
    float *vectors; /* [n × dim], unit length unless asked for otherwise */
    size_t n, dim;
    struct engine *engine;
    struct profile_set profiles; /* the built-in one; "plain" (the model alone), "all" and "few" of
                                    its candidates, "alone" without neighbours; "mixed" */
    struct recommender *recommender;
    struct arena arena;
    struct rng rng;
};

enum { SHOP_DIM = 16, SHOP_BATCH = 8 };
#define SHOP_START_MS INT64_C(1700000000000)
#define SHOP_DAY_MS INT64_C(86400000)

/* Fails the test when anything does. */
void core_fixture_open(struct core_fixture *shop, size_t n_items, const char *index_factory,
                       uint64_t seed);

/* A shop that is less plain. */
struct core_fixture_config {
    size_t n_items;
    const char *index_factory;
    uint64_t seed;
    double length_max;                   /* lengths of item vectors are from 1 to this; 0: all 1 */
    size_t n_zero;                       /* the last items have no vector */
    const struct neighbors_blend *blend; /* session neighbours (vmis); NULL: none */
};
void core_fixture_open_with(struct core_fixture *shop, const struct core_fixture_config *config);
void core_fixture_close(struct core_fixture *shop);

/* Empties *shop->arena and makes *job a job for request. */
void core_fixture_job(struct core_fixture *shop, struct recommend_job *job,
                      const struct recommend_request *request);
/* History of rows, newest first, as the store would bring it; items[n] is the caller's. */
struct history_result core_fixture_history(const struct core_fixture *shop, const uint32_t *rows,
                                           size_t n, enum event_type type,
                                           struct history_item *items);
/* Runs the request with that history; fails the test when it fails. */
void core_fixture_recommend(struct core_fixture *shop, struct recommend_job *job,
                            const struct recommend_request *request,
                            const struct history_result *history);
/* A random filter: its text appended to json, and what it matches by a walk over shop->items. */
void core_fixture_random_filter(struct core_fixture *shop, struct buf *json, bool *matches);

#endif
