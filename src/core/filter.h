#ifndef AISLE_CORE_FILTER_H
#define AISLE_CORE_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "store/catalog.h"

/* Filters of the contract: one condition or `all` / `any` / `not` of filters. A condition is
 * {"field": F, OP: V}, OP one of eq ne in lt lte gt gte exists under; fields are id, price, stock,
 * category, brand, created_at, popularity and attributes.NAME.
 *
 * A filter is compiled against a catalogue into one bit a row by whole-column passes, and kept in a
 * small cache keyed by its text: shops send the same few filters over and over. A condition on a
 * field that no item has matches nothing (`ne` and `exists: false` match all); ordering compares
 * numbers and times only; missing values fail every condition but `ne` and `exists: false`. */
enum {
    FILTER_DEPTH_MAX = 16,
    FILTER_CONDITIONS_MAX = 1000,
    FILTER_VALUES_MAX = 10000, /* of all `in` lists together */
    FILTER_TEXT_MAX_BYTES = 1 << 18,
};

struct filter_rows {
    uint64_t *bits;    /* row r matches: bits[r / 64] >> (r % 64) & 1 */
    size_t n_rows;     /* of the catalogue */
    size_t n_matching; /* how many match */
};

static inline bool filter_match(const struct filter_rows *filter, uint32_t row)
{
    return (filter->bits[row / 64] >> (row % 64) & 1) != 0;
}

/* Checks a filter's text without a catalogue: INVALID names the path at fault in err->field
 * ("filter.all[1].price"), LIMIT for the limits above. Pure; fuzzed. */
enum status filter_check(const char *json, size_t len, struct error *err) STATUS_CHECKED;

/* Compiles; *out gives (filter_rows_free). Errors of filter_check, NOMEM. */
enum status filter_compile(const char *json, size_t len, const struct catalog *catalog,
                           struct filter_rows *out, struct error *err) STATUS_CHECKED;
void filter_rows_free(struct filter_rows *filter);

/* Bounded cache of compiled filters, one a worker, least recently used out first. */
struct filter_cache;
enum status filter_cache_open(const struct catalog *catalog, size_t max_bytes,
                              struct filter_cache **out, struct error *err) STATUS_CHECKED;
void filter_cache_close(struct filter_cache *cache);
/* Compiles or finds. *out is borrowed until filter_cache_next_epoch: what was asked for since the
 * last epoch is never evicted. */
enum status filter_cache_get(struct filter_cache *cache, const char *json, size_t len,
                             const struct filter_rows **out, struct error *err) STATUS_CHECKED;
/* Whether a text would compile: known to the cache, else filter_check. */
enum status filter_cache_check(const struct filter_cache *cache, const char *json, size_t len,
                               struct error *err) STATUS_CHECKED;
void filter_cache_next_epoch(struct filter_cache *cache);

#endif
