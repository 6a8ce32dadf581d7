#include "base/idmap.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"

/* Open addressing with linear probing over a power of two of slots. A slot is row + 1, 0 for an
 * empty one, so a fresh table is plain zeroed memory. Nothing is ever removed, hence no tombstones.
 *
 * Ids lie NUL-terminated one after another in `blob`; offsets[row] is where a row's id starts and
 * offsets[row + 1] - 1 where it ends, so lengths need no memory of their own. 4-byte offsets bound
 * the blob to 4 GiB, which is LIMIT rather than a silent doubling of every offset.
 *
 * Rejected: stored hashes or one-byte tags beside the slots. They save comparisons in a probe run,
 * but 1–8 bytes an id, and with XXH3 and a load of at most 3/4 a hit compares 2.5 ids on average.
 * Growing therefore hashes all ids anew, which reads the blob once, in order. */

enum { SLOTS_MIN = 16, ROWS_MIN = 16, BLOB_MIN = 256 };

struct idmap {
    uint32_t *slots;
    size_t n_slots; /* power of two */
    uint32_t *offsets;
    size_t offsets_cap; /* entries; n + 1 are used */
    char *blob;
    size_t blob_cap;
    size_t n;
};

static size_t slots_for(size_t n_rows)
{
    size_t n_slots = SLOTS_MIN;
    while (n_slots - n_slots / 4 < n_rows) {
        n_slots *= 2;
    }
    return n_slots;
}

static size_t home_of(const struct idmap *map, const char *id, size_t len)
{
    return (size_t)hash_bytes(id, len, 0) & (map->n_slots - 1);
}

/* The slot that holds id, or the empty one where it belongs. */
static size_t probe_from(const struct idmap *map, size_t slot, const char *id, size_t len)
{
    while (map->slots[slot] != 0) {
        uint32_t row = map->slots[slot] - 1;
        size_t start = map->offsets[row];
        size_t row_len = map->offsets[row + 1] - start - 1;
        if (row_len == len && memcmp(map->blob + start, id, len) == 0) {
            return slot;
        }
        slot = (slot + 1) & (map->n_slots - 1);
    }
    return slot;
}

static size_t probe(const struct idmap *map, const char *id, size_t len)
{
    return probe_from(map, home_of(map, id, len), id, len);
}

enum status idmap_open(size_t n_expected, struct idmap **out, struct error *err)
{
    *out = NULL;
    if (n_expected >= IDMAP_NONE) {
        return error_set(err, STATUS_LIMIT, "%zu ids are more than an id map holds", n_expected);
    }
    struct idmap *map = mem_calloc(1, sizeof *map);
    if (map == NULL) {
        goto fail;
    }
    map->n_slots = slots_for(n_expected);
    map->offsets_cap = (n_expected < ROWS_MIN ? ROWS_MIN : n_expected) + 1;
    map->blob_cap = BLOB_MIN;
    map->slots = mem_calloc(map->n_slots, sizeof *map->slots);
    map->offsets = mem_alloc_array(map->offsets_cap, sizeof *map->offsets);
    map->blob = mem_alloc(map->blob_cap);
    if (map->slots == NULL || map->offsets == NULL || map->blob == NULL) {
        goto fail;
    }
    map->offsets[0] = 0;
    *out = map;
    return STATUS_OK;

fail:
    idmap_close(map);
    return error_set(err, STATUS_NOMEM, "no memory for an id map of %zu ids", n_expected);
}

void idmap_close(struct idmap *map)
{
    if (map == NULL) {
        return;
    }
    mem_free(map->slots);
    mem_free(map->offsets);
    mem_free(map->blob);
    mem_free(map);
}

static enum status grow_slots(struct idmap *map)
{
    size_t n_slots = map->n_slots * 2;
    uint32_t *slots = mem_calloc(n_slots, sizeof *slots);
    if (slots == NULL) {
        return STATUS_NOMEM;
    }
    mem_free(map->slots);
    map->slots = slots;
    map->n_slots = n_slots;
    for (size_t row = 0; row < map->n; row++) {
        size_t start = map->offsets[row];
        size_t slot = home_of(map, map->blob + start, map->offsets[row + 1] - start - 1);
        while (slots[slot] != 0) {
            slot = (slot + 1) & (n_slots - 1);
        }
        slots[slot] = (uint32_t)row + 1;
    }
    return STATUS_OK;
}

static enum status reserve_row(struct idmap *map, size_t blob_end)
{
    if (blob_end > map->blob_cap) {
        size_t cap = map->blob_cap + map->blob_cap / 2;
        cap = cap < blob_end ? blob_end : cap;
        char *blob = mem_realloc_array(map->blob, cap, 1);
        if (blob == NULL) {
            return STATUS_NOMEM;
        }
        map->blob = blob;
        map->blob_cap = cap;
    }
    if (map->n + 2 > map->offsets_cap) {
        size_t cap = map->offsets_cap + map->offsets_cap / 2;
        uint32_t *offsets = mem_realloc_array(map->offsets, cap, sizeof *offsets);
        if (offsets == NULL) {
            return STATUS_NOMEM;
        }
        map->offsets = offsets;
        map->offsets_cap = cap;
    }
    return map->n + 1 > map->n_slots - map->n_slots / 4 ? grow_slots(map) : STATUS_OK;
}

enum status idmap_add(struct idmap *map, const char *id, size_t len, uint32_t *row)
{
    size_t slot = probe(map, id, len);
    if (map->slots[slot] != 0) {
        *row = map->slots[slot] - 1;
        return STATUS_EXISTS;
    }
    size_t start = map->offsets[map->n];
    if (map->n >= IDMAP_NONE - 1 || len >= UINT32_MAX - start) {
        return STATUS_LIMIT;
    }
    size_t n_slots_before = map->n_slots;
    enum status status = reserve_row(map, start + len + 1);
    if (status != STATUS_OK) {
        return status;
    }
    if (map->n_slots != n_slots_before) {
        slot = probe(map, id, len);
    }
    if (len > 0) {
        memcpy(map->blob + start, id, len);
    }
    map->blob[start + len] = '\0';
    *row = (uint32_t)map->n;
    map->n++;
    map->offsets[map->n] = (uint32_t)(start + len + 1);
    map->slots[slot] = *row + 1;
    return STATUS_OK;
}

uint32_t idmap_find(const struct idmap *map, const char *id, size_t len)
{
    uint32_t held = map->slots[probe(map, id, len)];
    return held != 0 ? held - 1 : IDMAP_NONE;
}

enum { FIND_GROUP = 32 };

static void find_group(const struct idmap *map, const char *const *ids, const size_t *lens,
                       size_t n, uint32_t *rows)
{
    size_t homes[FIND_GROUP];
    for (size_t i = 0; i < n; i++) {
        homes[i] = home_of(map, ids[i], lens[i]);
        __builtin_prefetch(&map->slots[homes[i]]);
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t slot = map->slots[homes[i]];
        __builtin_prefetch(&map->offsets[slot != 0 ? slot - 1 : 0]);
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t slot = map->slots[homes[i]];
        __builtin_prefetch(map->blob + (slot != 0 ? map->offsets[slot - 1] : 0));
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t slot = map->slots[probe_from(map, homes[i], ids[i], lens[i])];
        rows[i] = slot == 0 ? IDMAP_NONE : slot - 1;
    }
}

void idmap_find_many(const struct idmap *map, const char *const *ids, const size_t *lens, size_t n,
                     uint32_t *rows)
{
    for (size_t first = 0; first < n; first += FIND_GROUP) {
        size_t n_group = n - first < FIND_GROUP ? n - first : FIND_GROUP;
        find_group(map, ids + first, lens + first, n_group, rows + first);
    }
}

const char *idmap_id(const struct idmap *map, uint32_t row, size_t *len)
{
    assert(row < map->n);
    size_t start = map->offsets[row];
    if (len != NULL) {
        *len = map->offsets[row + 1] - start - 1;
    }
    return map->blob + start;
}

size_t idmap_size(const struct idmap *map)
{
    return map->n;
}

size_t idmap_bytes(const struct idmap *map)
{
    return sizeof *map + map->n_slots * sizeof *map->slots +
           map->offsets_cap * sizeof *map->offsets + map->blob_cap;
}
