#ifndef AISLE_STORE_HISTORY_INTERNAL_H
#define AISLE_STORE_HISTORY_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "store/history.h"

/* What history.c asks of an implementation. Arguments are checked already (ids valid, counts in
 * their limits, callbacks present). The rule of history.h holds for each: OK means exactly one
 * callback, anything else none. */

struct history_fetch_call {
    struct history_query query;
    history_fetch_fn *callback;
    void *context;
};

struct history_append_call {
    const struct history_event_in *events;
    size_t n_events;
    history_append_fn *callback;
    void *context;
};

struct history_erase_call {
    const char *user_id;
    history_erase_fn *callback;
    void *context;
};

struct history_backend {
    const char *kind;
    void (*store_close)(struct history_store *store);
    enum status (*open)(struct history_store *store, struct event_base *base, struct history **out,
                        struct error *err);
    void (*close)(struct history *history);
    bool (*ready)(const struct history *history);
    enum status (*fetch)(struct history *history, const struct history_fetch_call *call,
                         struct error *err);
    enum status (*append)(struct history *history, const struct history_append_call *call,
                          struct error *err);
    enum status (*erase)(struct history *history, const struct history_erase_call *call,
                         struct error *err);
};

/* First member of each implementation's own struct. */
struct history_store {
    const struct history_backend *backend;
};
struct history {
    const struct history_backend *backend;
};

enum status history_redis_store_open(const struct history_config *config,
                                     struct history_store **out, struct error *err) STATUS_CHECKED;
enum status history_sqlite_store_open(const struct history_config *config,
                                      struct history_store **out, struct error *err) STATUS_CHECKED;

/* The events and their texts in one block, which the caller frees with mem_free; NULL out of
 * memory. */
struct history_event_in *history_events_copy(const struct history_event_in *events, size_t n);

/* Data definition of the embedded file; equal to data/schema/history.sql (a test compares). */
extern const char HISTORY_SQLITE_SCHEMA[];

#endif
