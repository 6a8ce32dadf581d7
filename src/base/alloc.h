#ifndef AISLE_BASE_ALLOC_H
#define AISLE_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

/* The only place that calls the malloc family. Out of memory is NULL (callers return
 * STATUS_NOMEM), never abort. Products are checked for overflow. mem_alloc(0) gives a unique
 * pointer. Thread-safe. */
void *mem_alloc(size_t n_bytes) __attribute__((malloc, warn_unused_result));
void *mem_calloc(size_t n, size_t size) __attribute__((warn_unused_result));
void *mem_alloc_array(size_t n, size_t size) __attribute__((warn_unused_result));
/* On failure the old block stays valid. */
void *mem_realloc_array(void *block, size_t n, size_t size) __attribute__((warn_unused_result));
/* 64-byte aligned, for vectors; freed with mem_free like the others. */
void *mem_alloc_vectors(size_t n, size_t size) __attribute__((warn_unused_result));
char *mem_strdup(const char *text) __attribute__((warn_unused_result));
char *mem_strndup(const char *text, size_t len) __attribute__((warn_unused_result));
void mem_free(void *block);

/* Test hooks. The n-th allocation from now (1 = the next) fails once, process-wide; 0 = never. */
void mem_fail_nth(int64_t n);
/* How many allocations were asked of this module since start; for allocation budgets. */
uint64_t mem_count(void);

#endif
