#ifndef AISLE_CORE_EVALUATE_INTERNAL_H
#define AISLE_CORE_EVALUATE_INTERNAL_H

#include "base/events.h"
#include "base/idmap.h"
#include "core/evaluate_offline.h"

/* Cases of an evaluation, shared by evaluate_cases.c (files → cases) and evaluate_offline.c. */

struct evaluate_case {
    uint64_t first;    /* the prefix is events[first .. first + n_prefix), oldest first */
    uint32_t n_prefix; /* events before the next one, of known and unknown items */
    uint32_t next;     /* the item to be found */
    uint32_t user;     /* number in `users`; pairs: line of the file */
    int64_t time_ms;   /* of the next event, or EVENT_TIME_UNKNOWN */
};

struct evaluate_cases {
    struct idmap *items; /* rows below n_items are the catalogue's; the others it does not know */
    uint32_t n_items;
    struct idmap *users; /* NULL for pairs */
    struct event_log log;
    struct evaluate_case *cases;
    size_t n;
};

/* INVALID: no case in the file, or file, line and what is wrong there. Free in every case. */
enum status evaluate_cases_load(const struct engine *engine, const struct evaluate_config *config,
                                struct evaluate_cases *out, struct error *err) STATUS_CHECKED;
void evaluate_cases_free(struct evaluate_cases *cases);

#endif
