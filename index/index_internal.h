#ifndef AISLE_INDEX_INDEX_INTERNAL_H
#define AISLE_INDEX_INDEX_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "index/vector_index.h"

/* Shared inside index/. No FAISS type appears here, so that tests and fuzz targets can use it. */

/* --- kinds of index (kind.c) --- */

enum index_family { INDEX_FLAT, INDEX_IVF, INDEX_HNSW };
enum index_codes {
    INDEX_CODES_FLAT,
    INDEX_CODES_SQ4,
    INDEX_CODES_SQ6,
    INDEX_CODES_SQ8,
    INDEX_CODES_SQFP16,
    INDEX_CODES_PQ,      /* inverted lists only */
    INDEX_CODES_PQ_FAST, /* 4-bit codes in SIMD registers; inverted lists only */
};

/* What we build and serve, in words of FAISS' factory:
 *   Flat | HNSWm[,Flat|,SQx] | IVFn[_HNSWm],(Flat|SQx|PQm|PQmxb|PQmx4fs[r])[,RFlat]
 * with SQx one of SQ4 SQ6 SQ8 SQfp16. */
struct index_kind {
    enum index_family family;
    enum index_codes codes;
    size_t n_lists;   /* IVF */
    size_t links;     /* HNSW: M, of the index or of IVF's coarse quantizer (0: flat) */
    size_t pq_parts;  /* PQ: M */
    size_t pq_bits;   /* PQ: bits a part */
    bool by_residual; /* PQ_FAST: the final "r" */
    bool refine;      /* exact vectors beside the codes, for a second look */
};

enum { INDEX_NAME_BYTES = 128 };
enum { INDEX_LISTS_MIN = 1, INDEX_LISTS_MAX = 1 << 20 };
enum { INDEX_LINKS_MIN = 2, INDEX_LINKS_MAX = 256 };
enum { INDEX_PQ_PARTS_MAX = 512, INDEX_PQ_BITS_MAX = 8 };

/* Reads a factory string. FAISS' own parser sees only what passed here: it aborts the process on
 * some strings, and knows many kinds we do not serve. INVALID. */
enum status index_kind_parse(const char *factory, struct index_kind *out,
                             struct error *err) STATUS_CHECKED;
/* Writes the canonical factory string ("HNSW32,Flat" is "HNSW32", "PQ16x8" is "PQ16"). */
void index_kind_name(const struct index_kind *kind, char out[INDEX_NAME_BYTES]);
/* Writes the string that FAISS' factory is given: as above, and "np" behind PQ codes: no training
 * of polysemous codes, which takes most of the time and serves a search that we never ask for. */
void index_kind_recipe(const struct index_kind *kind, char out[INDEX_NAME_BYTES]);
/* What "auto" means for n items: see vector_index_build_config. */
struct index_kind index_kind_auto(size_t n);

/* --- search parameters (kind.c) --- */

/* Bounds of the searching effort. Probes: each mapped search keeps its list numbers on the stack;
 * 4,096 lists are the whole index up to a million items and a sixteenth of the largest. */
enum { INDEX_PROBES_MIN = 1, INDEX_PROBES_MAX = 4096 };
enum { INDEX_EF_SEARCH_MIN = 1, INDEX_EF_SEARCH_MAX = 2048 };
enum { INDEX_REFINE_FACTOR_MIN = 1, INDEX_REFINE_FACTOR_MAX = 64 };

struct index_effort {
    size_t n_probes;      /* nprobe; 0: as in the file */
    size_t ef_search;     /* efSearch; 0: as in the file */
    size_t refine_factor; /* k_factor_rf; 0: as in the file */
};

/* Reads "nprobe=32", "efSearch=100", "nprobe=32,k_factor_rf=4", "". INVALID: a name this kind does
 * not have, given twice, a value out of bounds. */
enum status index_effort_parse(const char *text, const struct index_kind *kind,
                               struct index_effort *out, struct error *err) STATUS_CHECKED;
/* The inverse; parameters at 0 are left out. */
void index_effort_name(const struct index_effort *effort, char out[INDEX_NAME_BYTES]);

/* --- files (faiss_file.c) --- */

struct index_file_info {
    struct index_kind kind;
    size_t n;   /* vectors */
    size_t dim; /* components */
};

/* Walks through an index file in memory: every length is compared with what is left of the file and
 * with n and dim, so that FAISS neither runs out of the file nor allocates what is not there. Pure:
 * no allocation, nothing kept. FORMAT: damaged, cut short, too long, untrained; UNSUPPORTED: a kind
 * or metric we do not serve, by name. */
enum status index_file_check(const uint8_t *bytes, size_t n_bytes, struct index_file_info *out,
                             struct error *err) STATUS_CHECKED;

/* --- exact scans (scan.c) --- */

/* The bounds of vector_index_search, for every search. INVALID. */
enum status index_query_check(const struct vector_query *query, size_t dim,
                              struct error *err) STATUS_CHECKED;

/* vector_scan_all without the checks: rows of a block are compared with every query while they are
 * in the cache. */
void index_scan_queries(const struct vectors *vectors, const struct vector_query *query,
                        const struct vector_hits *hits);

/* --- opened indexes (vector_index.c) --- */

/* Changes the effort of an index that nobody else searches now. */
enum status vector_index_set_effort(struct vector_index *index, const struct index_effort *effort,
                                    struct error *err) STATUS_CHECKED;

/* --- measuring (measure.c) --- */

/* Exact answers to compare with: for each query the K-th best score. A row counts as found when it
 * scores at least that, so that items with equal vectors may stand for each other. */
struct index_reference {
    const struct vectors *vectors; /* borrowed */
    const float *queries;          /* [Q × D], borrowed */
    size_t n_queries;
    size_t k;          /* at most n */
    float *kth_scores; /* [Q]; NULL when init failed */
};

/* Parallel over queries. NOMEM. */
enum status index_reference_init(struct index_reference *reference, const struct vectors *vectors,
                                 const struct vector_query *query,
                                 struct error *err) STATUS_CHECKED;
void index_reference_free(struct index_reference *reference);

/* Mean and worst recall over the queries, parallel over queries. */
enum status index_measure_recall(const struct vector_index *index,
                                 const struct index_reference *reference, double *mean,
                                 double *worst, struct error *err) STATUS_CHECKED;
/* One query at a time in the calling thread, after one pass that is not counted; µs. */
enum status index_measure_time(const struct vector_index *index,
                               const struct index_reference *reference, double *p50_us,
                               double *p99_us, struct error *err) STATUS_CHECKED;

/* --- tuning (tune.c) --- */

/* Sets the cheapest effort found that reaches the target and fills effort, recall, times and counts
 * of *measured. LIMIT: none reaches it; *measured then has the best one's figures. */
enum status index_tune(struct vector_index *index, const struct index_kind *kind,
                       const struct index_reference *reference, double target_recall,
                       struct vector_index_measured *measured, struct error *err) STATUS_CHECKED;

#endif
