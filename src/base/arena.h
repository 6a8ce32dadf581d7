#ifndef AISLE_BASE_ARENA_H
#define AISLE_BASE_ARENA_H

#include <stddef.h>

struct arena_block;

/* Memory of one request: many allocations, freed together. Blocks are kept over a reset, so a
 * warmed-up arena allocates nothing. Not thread-safe. */
struct arena {
    struct arena_block *first;
    struct arena_block *current;
    size_t block_bytes; /* size of a fresh block; larger requests get a block of their own */
    size_t max_bytes;   /* ceiling over all blocks */
    size_t total_bytes; /* held by blocks now */
};

void arena_init(struct arena *arena, size_t block_bytes, size_t max_bytes);
/* 16-byte aligned, not zeroed; NULL when the ceiling or memory is reached. Lives to the reset. */
void *arena_alloc(struct arena *arena, size_t n_bytes);
void *arena_alloc_array(struct arena *arena, size_t n, size_t size);
void *arena_calloc(struct arena *arena, size_t n, size_t size);
/* Copies len bytes and adds a NUL. */
char *arena_strndup(struct arena *arena, const char *text, size_t len);
void arena_reset(struct arena *arena);
void arena_free(struct arena *arena);

#endif
