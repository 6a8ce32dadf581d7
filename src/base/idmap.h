#ifndef AISLE_BASE_IDMAP_H
#define AISLE_BASE_IDMAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Id ↔ row, O(1) both ways: ids are numbered 0, 1, 2 … in the order they are added. Open addressing
 * over XXH3 hashes, 4-byte slots with at most 3/4 load; the ids' bytes lie one after another in a
 * blob. Costs about 15 bytes an id beside the id itself. Reading is thread-safe, adding is not. */
#define IDMAP_NONE UINT32_MAX

struct idmap;

enum status idmap_open(size_t n_expected, struct idmap **out, struct error *err) STATUS_CHECKED;
void idmap_close(struct idmap *map);
/* Adds id (copied). EXISTS when it is there already (*row is then its row); LIMIT over 2^32-2. */
enum status idmap_add(struct idmap *map, const char *id, size_t len, uint32_t *row) STATUS_CHECKED;
/* Row of id or IDMAP_NONE. */
uint32_t idmap_find(const struct idmap *map, const char *id, size_t len);
/* rows[i] = idmap_find(map, ids[i], lens[i]) for n ids, with the memory that each step needs
 * fetched ahead for a group of ids: in a large map an id costs three cache misses, which then
 * overlap. */
void idmap_find_many(const struct idmap *map, const char *const *ids, const size_t *lens, size_t n,
                     uint32_t *rows);
/* NUL-terminated id of a row < size; borrowed from the map, valid until the next add. */
const char *idmap_id(const struct idmap *map, uint32_t row, size_t *len);
size_t idmap_size(const struct idmap *map);
size_t idmap_bytes(const struct idmap *map);

#endif
