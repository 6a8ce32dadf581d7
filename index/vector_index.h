#ifndef AISLE_INDEX_VECTOR_INDEX_H
#define AISLE_INDEX_VECTOR_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/vectors.h"

/* Maximum inner product search over item vectors: FAISS behind one small interface, and exact scans
 * of our own. Legend: B queries, D dimension, K results; scores are inner products, higher is
 * better. All handles are read-only after open and thread-safe; a search runs in the calling thread
 * (FAISS and BLAS are told to use one thread inside it). */
struct vector_index;

/* DEFAULT/MIN/MAX of what a caller may ask. */
enum { SEARCH_K_MAX = 16384, SEARCH_BATCH_MAX = 1024 };
enum { VECTOR_INDEX_NO_ROW = -1 };

struct vector_index_config {
    const char *path;              /* index.faiss */
    const struct vectors *vectors; /* the release's vectors: n and dim must match; borrowed */
    const char *search_parameters; /* "nprobe=32", "efSearch=100", "" (from the manifest) */
    bool memory_map;               /* map inverted lists instead of reading them, where FAISS can */
};

/* Opens an index file whose checksum the caller has verified. Header (magic number, d, ntotal,
 * metric) is read with bounds before FAISS sees the file. MISMATCH: not these vectors. FORMAT, IO,
 * UNSUPPORTED (a kind we do not serve), NOMEM. */
enum status vector_index_open(const struct vector_index_config *config, struct vector_index **out,
                              struct error *err) STATUS_CHECKED;
void vector_index_close(struct vector_index *index);

struct vector_index_info {
    const char *factory;           /* what answers: "Flat", "IVF4096,SQfp16", "HNSW32", … */
    const char *search_parameters; /* as set */
    size_t n;
    size_t dim;
    bool exact;
};
struct vector_index_info vector_index_info(const struct vector_index *index);

/* What is asked: the K best rows of each of B queries. Borrows. */
struct vector_query {
    const float *vectors; /* [B × D], finite, row-major */
    size_t n;             /* B */
    size_t k;             /* K; over the number of rows is legal */
};

/* Where the answer goes, in the caller's memory. Best first; each query's list is padded at its end
 * with -INFINITY and VECTOR_INDEX_NO_ROW. */
struct vector_hits {
    float *scores; /* [B × K] */
    int64_t *rows; /* [B × K] */
};

/* 1 ≤ K ≤ SEARCH_K_MAX, 1 ≤ B ≤ SEARCH_BATCH_MAX. INVALID for bounds or non-finite queries: then
 * hits are as before; INTERNAL with FAISS' message. */
enum status vector_index_search(const struct vector_index *index, const struct vector_query *query,
                                const struct vector_hits *hits, struct error *err) STATUS_CHECKED;

/* Exact search of all rows (reference, "exact" kind) and of a subset: candidates[n_candidates] are
 * rows < n, each at most once. Bounds and results as above; ties by smaller row. Scratch-free;
 * O(B × n × D). */
enum status vector_scan_all(const struct vectors *vectors, const struct vector_query *query,
                            const struct vector_hits *hits, struct error *err) STATUS_CHECKED;
enum status vector_scan_rows(const struct vectors *vectors, const uint32_t *candidates,
                             size_t n_candidates, const struct vector_query *query,
                             const struct vector_hits *hits, struct error *err) STATUS_CHECKED;

/* Building, offline, on all cores. */
struct vector_index_build_config {
    const struct vectors *vectors; /* [N × D], finite */
    const char *factory;  /* FAISS factory string, or "auto": Flat under EXACT_MAX_ITEMS items, else
                             IVF with SQfp16 lists, nlist by size */
    const float *queries; /* [Q × D] made by the user model; NULL: vectors of items are used */
    size_t n_queries;
    size_t recall_k;      /* K of recall@K; default 100 */
    double target_recall; /* e.g. 0.95 */
    size_t n_threads;     /* 0: all */
    uint64_t seed;
    bool show_progress;
};
enum { EXACT_MAX_ITEMS = 20000 };

struct vector_index_measured {
    char factory[128];
    char search_parameters[128]; /* the cheapest setting that reached the target */
    double recall;               /* mean recall@recall_k against exact search on the queries */
    double recall_worst;         /* the worst query's */
    size_t recall_k;
    size_t n_queries;
    double search_p50_us, search_p99_us; /* one query at a time, one thread, k = recall_k */
    double build_seconds;
    uint64_t file_bytes;
};

/* Trains, adds, tunes, writes config.path. INVALID: unknown factory string, too few items for it;
 * LIMIT: the target cannot be reached (the best recall stands in the message; *measured is filled);
 * on failure no file is left. One thread and one seed → same bytes. */
enum status vector_index_build(const struct vector_index_build_config *config, const char *path,
                               struct vector_index_measured *measured,
                               struct error *err) STATUS_CHECKED;

/* Mean recall@K of an open index against vector_scan_all over query->n ≥ 1 queries (each is
 * searched alone, so SEARCH_BATCH_MAX is no bound), and the worst query's. MISMATCH: not the index'
 * vectors; INVALID, NOMEM, INTERNAL; then *mean and *worst are as before. */
enum status vector_index_recall(const struct vector_index *index, const struct vectors *vectors,
                                const struct vector_query *query, double *mean, double *worst,
                                struct error *err) STATUS_CHECKED;

/* Makes FAISS' OpenMP and BLAS use one thread in the calling thread; each worker calls it once. */
void vector_index_single_thread(void);

#endif
