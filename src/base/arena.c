#include "base/arena.h"

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"

/* Blocks form one list. Small requests (at most block_bytes) are cut from `current`, which only
 * moves forward; a larger one gets a block of its own behind `current` and leaves it in place. Over
 * a reset blocks stay, and a large request takes the tightest free large block, so the same
 * requests find the same blocks again and a warmed-up arena asks for nothing. Requests
 * that differ each time would fill the ceiling with large blocks that fit nobody; therefore, before
 * a request is refused, unused blocks are given back. */

enum { ARENA_ALIGNMENT = 16 };

struct arena_block {
    struct arena_block *next;
    size_t cap;
    size_t used;
    alignas(ARENA_ALIGNMENT) unsigned char data[];
};

static void *cut(struct arena_block *block, size_t n_bytes)
{
    void *at = block->data + block->used;
    block->used += n_bytes;
    return at;
}

static bool is_large(const struct arena *arena, const struct arena_block *block)
{
    return block->cap > arena->block_bytes;
}

static void drop_unused(struct arena *arena)
{
    struct arena_block **link = &arena->first;
    while (*link != NULL) {
        struct arena_block *block = *link;
        if (block->used > 0 || block == arena->current) {
            link = &block->next;
            continue;
        }
        *link = block->next;
        arena->total_bytes -= block->cap;
        mem_free(block);
    }
}

/* A fresh block behind `current`. */
static struct arena_block *add_block(struct arena *arena, size_t n_bytes)
{
    if (n_bytes > arena->max_bytes - arena->total_bytes)
        drop_unused(arena);
    size_t room = arena->max_bytes - arena->total_bytes;
    if (n_bytes > room)
        return NULL;
    size_t cap = n_bytes;
    if (cap < arena->block_bytes)
        cap = arena->block_bytes < room ? arena->block_bytes : room;
    if (cap > SIZE_MAX - sizeof(struct arena_block))
        return NULL;
    struct arena_block *block = mem_alloc(sizeof(*block) + cap);
    if (block == NULL)
        return NULL;
    block->cap = cap;
    block->used = 0;
    struct arena_block **link = arena->current == NULL ? &arena->first : &arena->current->next;
    block->next = *link;
    *link = block;
    arena->total_bytes += cap;
    return block;
}

static struct arena_block *find_large(struct arena *arena, size_t n_bytes)
{
    struct arena_block *best = NULL;
    for (struct arena_block *block = arena->first; block != NULL; block = block->next) {
        if (block->used == 0 && block->cap >= n_bytes && is_large(arena, block) &&
            (best == NULL || block->cap < best->cap))
            best = block;
    }
    return best != NULL ? best : add_block(arena, n_bytes);
}

static struct arena_block *find_small(struct arena *arena, size_t n_bytes)
{
    struct arena_block *block = arena->current != NULL ? arena->current : arena->first;
    while (block != NULL && (is_large(arena, block) || block->cap - block->used < n_bytes))
        block = block->next;
    if (block == NULL)
        block = add_block(arena, n_bytes);
    if (block != NULL)
        arena->current = block;
    return block;
}

void arena_init(struct arena *arena, size_t block_bytes, size_t max_bytes)
{
    *arena = (struct arena){.block_bytes = block_bytes, .max_bytes = max_bytes};
}

void *arena_alloc(struct arena *arena, size_t n_bytes)
{
    if (n_bytes > arena->max_bytes || n_bytes > SIZE_MAX - ARENA_ALIGNMENT)
        return NULL;
    size_t rounded = (n_bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    if (rounded == 0)
        rounded = ARENA_ALIGNMENT;
    struct arena_block *block =
        rounded > arena->block_bytes ? find_large(arena, rounded) : find_small(arena, rounded);
    if (block == NULL)
        return NULL;
    return cut(block, rounded);
}

void *arena_alloc_array(struct arena *arena, size_t n, size_t size)
{
    size_t n_bytes = 0;
    if (__builtin_mul_overflow(n, size, &n_bytes))
        return NULL;
    return arena_alloc(arena, n_bytes);
}

void *arena_calloc(struct arena *arena, size_t n, size_t size)
{
    void *at = arena_alloc_array(arena, n, size);
    if (at != NULL)
        memset(at, 0, n * size);
    return at;
}

char *arena_strndup(struct arena *arena, const char *text, size_t len)
{
    if (len == SIZE_MAX)
        return NULL;
    char *copy = arena_alloc(arena, len + 1);
    if (copy == NULL)
        return NULL;
    if (len > 0)
        memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

void arena_reset(struct arena *arena)
{
    for (struct arena_block *block = arena->first; block != NULL; block = block->next)
        block->used = 0;
    arena->current = NULL;
}

void arena_free(struct arena *arena)
{
    struct arena_block *block = arena->first;
    while (block != NULL) {
        struct arena_block *next = block->next;
        mem_free(block);
        block = next;
    }
    arena_init(arena, arena->block_bytes, arena->max_bytes);
}
