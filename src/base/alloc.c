#include "base/alloc.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* The one door to the malloc family. Every request passes allowed(), which counts it and lets a
 * test make the n-th one fail; outside tests that costs two relaxed atomic operations. Aligned
 * blocks come from aligned_alloc, so free() takes them like the others and no header has to be kept
 * before a block. A size of zero becomes one byte: malloc(0) may be NULL, which callers would read
 * as out of memory. */

enum { VECTOR_ALIGNMENT = 64 };

static atomic_uint_least64_t n_requests;
static atomic_int_least64_t fail_in; /* 0: never */

static bool allowed(void)
{
    atomic_fetch_add_explicit(&n_requests, 1, memory_order_relaxed);
    int_least64_t left = atomic_load_explicit(&fail_in, memory_order_relaxed);
    while (left > 0) {
        if (atomic_compare_exchange_weak_explicit(&fail_in, &left, left - 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return left != 1;
    }
    return true;
}

/* Large blocks are tables that requests read at random: with huge pages such a read misses one
 * translation less. A hint; where the kernel has none to give, nothing changes. */
enum { HUGE_PAGE_BYTES = 2 << 20, HUGE_BLOCK_MIN_BYTES = 2 * HUGE_PAGE_BYTES };

static void *alloc_block(size_t n_bytes)
{
    if (n_bytes < HUGE_BLOCK_MIN_BYTES || n_bytes > PTRDIFF_MAX - HUGE_PAGE_BYTES)
        return malloc(n_bytes);
    size_t rounded = (n_bytes + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    void *block = aligned_alloc(HUGE_PAGE_BYTES, rounded);
    if (block != NULL)
        (void)madvise(block, rounded, MADV_HUGEPAGE);
    return block;
}

static bool product(size_t n, size_t size, size_t *out)
{
    if (__builtin_mul_overflow(n, size, out) || *out > PTRDIFF_MAX)
        return false;
    if (*out == 0)
        *out = 1;
    return true;
}

void *mem_alloc(size_t n_bytes)
{
    return mem_alloc_array(n_bytes, 1);
}

void *mem_calloc(size_t n, size_t size)
{
    size_t n_bytes = 0;
    if (!allowed() || !product(n, size, &n_bytes))
        return NULL;
    if (n_bytes < HUGE_BLOCK_MIN_BYTES)
        return calloc(n_bytes, 1);
    void *block = alloc_block(n_bytes);
    if (block != NULL)
        memset(block, 0, n_bytes);
    return block;
}

void *mem_alloc_array(size_t n, size_t size)
{
    size_t n_bytes = 0;
    if (!allowed() || !product(n, size, &n_bytes))
        return NULL;
    return alloc_block(n_bytes);
}

void *mem_realloc_array(void *block, size_t n, size_t size)
{
    size_t n_bytes = 0;
    if (!allowed() || !product(n, size, &n_bytes))
        return NULL;
    return realloc(block, n_bytes);
}

void *mem_alloc_vectors(size_t n, size_t size)
{
    size_t n_bytes = 0;
    if (!allowed() || !product(n, size, &n_bytes) || n_bytes > PTRDIFF_MAX - VECTOR_ALIGNMENT)
        return NULL;
    if (n_bytes >= HUGE_BLOCK_MIN_BYTES)
        return alloc_block(n_bytes);
    /* C11 wants the size to be a multiple of the alignment. */
    n_bytes = (n_bytes + VECTOR_ALIGNMENT - 1) / VECTOR_ALIGNMENT * VECTOR_ALIGNMENT;
    return aligned_alloc(VECTOR_ALIGNMENT, n_bytes);
}

char *mem_strdup(const char *text)
{
    return mem_strndup(text, strlen(text));
}

char *mem_strndup(const char *text, size_t len)
{
    if (len >= PTRDIFF_MAX)
        return NULL;
    char *copy = mem_alloc(len + 1);
    if (copy == NULL)
        return NULL;
    if (len > 0)
        memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

void mem_free(void *block)
{
    free(block);
}

void mem_fail_nth(int64_t n)
{
    atomic_store_explicit(&fail_in, n > 0 ? n : 0, memory_order_relaxed);
}

uint64_t mem_count(void)
{
    return atomic_load_explicit(&n_requests, memory_order_relaxed);
}
