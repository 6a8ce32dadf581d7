#include "base/idmap.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"

/* Open addressing with linear probing over a power of two of slots. A slot is row + 1, 0 for an
 * empty one, so a fresh table is plain zeroed memory. Nothing is ever removed, hence no tombstones.
 * The bits of a slot that no row needs (row + 1 < n_slots) hold bits of the id's hash: a probe
 * passes other ids' slots without reading their ids, which in a large map are two cache misses
 * each.
 *
 * Ids lie NUL-terminated one after another in `blob`; offsets[row] is where a row's id starts and
 * offsets[row + 1] - 1 where it ends, so lengths need no memory of their own. 4-byte offsets bound
 * the blob to 4 GiB, which is LIMIT rather than a silent doubling of every offset.
 *
 * Rejected: hashes stored beside the slots, which cost 4 to 8 bytes an id. Growing therefore hashes
 * all ids anew, which reads the blob once, in order. */

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

/* Where the search for an id begins, and the hash bits that its slot holds. */
struct place {
    size_t slot;
    uint32_t tag;
};

/* The bits of a slot that hold row + 1. */
static uint32_t row_mask(size_t n_slots)
{
    return n_slots > UINT32_MAX ? UINT32_MAX : (uint32_t)(n_slots - 1);
}

static struct place place_of(size_t n_slots, const char *id, size_t len)
{
    uint64_t hash = hash_bytes(id, len, 0);
    return (struct place){(size_t)hash & (n_slots - 1),
                          (uint32_t)(hash >> 32) & ~row_mask(n_slots)};
}

/* The next slot from `slot` on that is empty or has the tag. */
static size_t skip_others(const struct idmap *map, size_t slot, uint32_t tag)
{
    uint32_t mask = row_mask(map->n_slots);
    while (map->slots[slot] != 0 && (map->slots[slot] & ~mask) != tag) {
        slot = (slot + 1) & (map->n_slots - 1);
    }
    return slot;
}

static uint32_t row_in(const struct idmap *map, size_t slot)
{
    return (map->slots[slot] & row_mask(map->n_slots)) - 1;
}

/* The slot that holds id, or the empty one where it belongs. */
static size_t probe_from(const struct idmap *map, struct place place, const char *id, size_t len)
{
    size_t slot = skip_others(map, place.slot, place.tag);
    while (map->slots[slot] != 0) {
        uint32_t row = row_in(map, slot);
        size_t start = map->offsets[row];
        size_t row_len = map->offsets[row + 1] - start - 1;
        if (row_len == len && memcmp(map->blob + start, id, len) == 0) {
            return slot;
        }
        slot = skip_others(map, (slot + 1) & (map->n_slots - 1), place.tag);
    }
    return slot;
}

static size_t probe(const struct idmap *map, const char *id, size_t len)
{
    return probe_from(map, place_of(map->n_slots, id, len), id, len);
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
        struct place place =
            place_of(n_slots, map->blob + start, map->offsets[row + 1] - start - 1);
        while (slots[place.slot] != 0) {
            place.slot = (place.slot + 1) & (n_slots - 1);
        }
        slots[place.slot] = ((uint32_t)row + 1) | place.tag;
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
        *row = row_in(map, slot);
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
    map->slots[slot] = (*row + 1) | place_of(map->n_slots, id, len).tag;
    return STATUS_OK;
}

uint32_t idmap_find(const struct idmap *map, const char *id, size_t len)
{
    size_t slot = probe(map, id, len);
    return map->slots[slot] != 0 ? row_in(map, slot) : IDMAP_NONE;
}

enum { FIND_GROUP = 32 };

static void find_group(const struct idmap *map, const char *const *ids, const size_t *lens,
                       size_t n, uint32_t *rows)
{
    struct place places[FIND_GROUP];
    for (size_t i = 0; i < n; i++) {
        places[i] = place_of(map->n_slots, ids[i], lens[i]);
        __builtin_prefetch(&map->slots[places[i].slot]);
    }
    for (size_t i = 0; i < n; i++) {
        places[i].slot = skip_others(map, places[i].slot, places[i].tag);
        bool maybe = map->slots[places[i].slot] != 0;
        rows[i] = maybe ? row_in(map, places[i].slot) : 0;
        __builtin_prefetch(&map->offsets[rows[i]]);
    }
    for (size_t i = 0; i < n; i++) {
        __builtin_prefetch(map->blob + map->offsets[rows[i]]);
    }
    for (size_t i = 0; i < n; i++) {
        size_t slot = probe_from(map, places[i], ids[i], lens[i]);
        rows[i] = map->slots[slot] != 0 ? row_in(map, slot) : IDMAP_NONE;
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
