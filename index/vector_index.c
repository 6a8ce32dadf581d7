#include "index/vector_index.h"

#include <assert.h>
#include <math.h>

#include <cblas.h>
#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/index_io_c.h>
#include <omp.h>

#include "base/alloc.h"
#include "base/file.h"
#include "index/faiss_status.h"
#include "index/index_internal.h"

/* An opened index. Three ways to answer, chosen by kind at open:
 *
 * - Flat: our own scan of the release's vectors: no second copy of them in memory, ties by row, and
 *   the same scores for a query alone or in a batch (FAISS multiplies matrices from 20 queries on).
 *   At 20,000 × 64, k = 200 a query takes 210 µs; FAISS' flat index takes 165 µs (EPYC, 1 thread).
 * - In memory: FAISS' search.
 * - Mapped inverted lists: the nearest lists are found here and handed to FAISS' search of given
 *   lists. Its plain search would first start up to 32 threads per query to touch the lists' pages
 *   (OnDiskInvertedLists::prefetch_lists): at 100,000 × 64 with 3 probes 115 µs instead of 21 µs.
 *
 * The C API of FAISS 1.7.3 has no per-search parameters, so the effort is set once, before anybody
 * searches; after that search only reads the index, and any number of threads may call it. (FAISS'
 * global counters indexIVF_stats are incremented without a lock; nothing reads them.) What would
 * make FAISS throw is checked before each call: a throw that reaches one of its worker threads ends
 * the process. */

struct vector_index {
    struct vectors vectors;
    FaissIndex *faiss;         /* NULL: Flat */
    FaissIndex *mapped_lists;  /* the same index, when its lists are mapped; else NULL */
    FaissIndex *mapped_coarse; /* and its centroids; borrowed */
    struct index_kind kind;
    struct index_effort effort;
    char factory[INDEX_NAME_BYTES];
    char search_parameters[INDEX_NAME_BYTES];
};

/* IO_FLAG_MMAP of FAISS' index_io.h: IO_FLAG_SKIP_IVF_DATA and "do", the on-disk lists. The C API's
 * macro of that name has another value, which maps nothing. */
enum { READ_FLAG_MAP_LISTS = 8 | 0x646f0000 };

static enum status set_parameter(const FaissParameterSpace *space, FaissIndex *index,
                                 const char *name, size_t value, struct error *err)
{
    if (value == 0) {
        return STATUS_OK;
    }
    return faiss_status(faiss_ParameterSpace_set_index_parameter(space, index, name, (double)value),
                        STATUS_INTERNAL, name, err);
}

static enum status set_parameters(FaissIndex *index, const struct index_kind *kind,
                                  const struct index_effort *effort, struct error *err)
{
    FaissParameterSpace *space = NULL;
    enum status status =
        faiss_status(faiss_ParameterSpace_new(&space), STATUS_INTERNAL, "search parameters", err);
    if (status != STATUS_OK) {
        return status;
    }
    status = set_parameter(space, index, "nprobe", effort->n_probes, err);
    if (status == STATUS_OK) {
        const char *name = kind->family == INDEX_IVF ? "quantizer_efSearch" : "efSearch";
        status = set_parameter(space, index, name, effort->ef_search, err);
    }
    if (status == STATUS_OK) {
        status = set_parameter(space, index, "k_factor_rf", effort->refine_factor, err);
    }
    faiss_ParameterSpace_free(space);
    return status;
}

enum status vector_index_set_effort(struct vector_index *index, const struct index_effort *effort,
                                    struct error *err)
{
    if (index->faiss != NULL) {
        enum status status = set_parameters(index->faiss, &index->kind, effort, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    index->effort = *effort;
    index_effort_name(effort, index->search_parameters);
    return STATUS_OK;
}

/* Checks the file against the vectors before FAISS reads it. */
static enum status check_file(const struct vector_index_config *config, struct index_kind *kind,
                              struct error *err)
{
    struct file_map map;
    struct index_file_info info;
    enum status status = file_map_open(config->path, &map, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = index_file_check(map.data, map.n_bytes, &info, err);
    file_map_close(&map);
    if (status != STATUS_OK) {
        error_prefix(err, "%s: ", config->path);
        return status;
    }
    if (info.dim != config->vectors->dim || info.n != config->vectors->n) {
        return error_set(err, STATUS_MISMATCH,
                         "%s holds %zu vectors of dimension %zu; the release has %zu of %zu",
                         config->path, info.n, info.dim, config->vectors->n, config->vectors->dim);
    }
    *kind = info.kind;
    return STATUS_OK;
}

static enum status read_faiss(struct vector_index *index, const char *path, bool memory_map,
                              struct error *err)
{
    bool map = memory_map && index->kind.family == INDEX_IVF && !index->kind.refine &&
               index->kind.codes != INDEX_CODES_PQ_FAST;
    enum status status =
        faiss_status(faiss_read_index_fname(path, map ? READ_FLAG_MAP_LISTS : 0, &index->faiss),
                     STATUS_FORMAT, path, err);
    if (status != STATUS_OK) {
        return status;
    }
    if ((size_t)faiss_Index_d(index->faiss) != index->vectors.dim ||
        (size_t)faiss_Index_ntotal(index->faiss) != index->vectors.n ||
        faiss_Index_metric_type(index->faiss) != METRIC_INNER_PRODUCT) {
        return error_set(err, STATUS_MISMATCH, "%s changed while it was read", path);
    }
    if (map) {
        index->mapped_lists = faiss_IndexIVF_cast(index->faiss);
        if (index->mapped_lists == NULL) {
            return error_set(err, STATUS_INTERNAL, "%s: not inverted lists", path);
        }
        index->mapped_coarse = faiss_IndexIVF_quantizer(index->mapped_lists);
    }
    return STATUS_OK;
}

enum status vector_index_open(const struct vector_index_config *config, struct vector_index **out,
                              struct error *err)
{
    struct index_kind kind = {.family = INDEX_FLAT};
    struct index_effort effort = {.n_probes = 0};
    *out = NULL;
    enum status status = check_file(config, &kind, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = index_effort_parse(config->search_parameters, &kind, &effort, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct vector_index *index = mem_calloc(1, sizeof *index);
    if (index == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory opening %s", config->path);
    }
    index->vectors = *config->vectors;
    index->kind = kind;
    index_kind_name(&kind, index->factory);
    if (kind.family != INDEX_FLAT) {
        status = read_faiss(index, config->path, config->memory_map, err);
    }
    if (status == STATUS_OK) {
        status = vector_index_set_effort(index, &effort, err);
    }
    if (status != STATUS_OK) {
        vector_index_close(index);
        return status;
    }
    *out = index;
    return STATUS_OK;
}

void vector_index_close(struct vector_index *index)
{
    if (index == NULL) {
        return;
    }
    if (index->faiss != NULL) {
        faiss_Index_free(index->faiss);
    }
    mem_free(index);
}

struct vector_index_info vector_index_info(const struct vector_index *index)
{
    return (struct vector_index_info){
        .factory = index->factory,
        .search_parameters = index->search_parameters,
        .n = index->vectors.n,
        .dim = index->vectors.dim,
        .exact = index->kind.family == INDEX_FLAT,
    };
}

/* Mapped lists, one query at a time. */
static enum status search_mapped(const struct vector_index *index, const struct vector_query *query,
                                 const struct vector_hits *hits, struct error *err)
{
    idx_t lists[INDEX_PROBES_MAX];
    float list_scores[INDEX_PROBES_MAX];
    idx_t n_probes = (idx_t)faiss_IndexIVF_nprobe(index->mapped_lists);
    assert(n_probes >= 1 && n_probes <= INDEX_PROBES_MAX);
    for (size_t q = 0; q < query->n; q++) {
        const float *vector = query->vectors + q * index->vectors.dim;
        enum status status = faiss_status(
            faiss_Index_search(index->mapped_coarse, 1, vector, n_probes, list_scores, lists),
            STATUS_INTERNAL, "search of centroids", err);
        if (status == STATUS_OK) {
            status = faiss_status(
                faiss_IndexIVF_search_preassigned(index->mapped_lists, 1, vector, (idx_t)query->k,
                                                  lists, list_scores, hits->scores + q * query->k,
                                                  hits->rows + q * query->k, 0),
                STATUS_INTERNAL, "search of lists", err);
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

/* FAISS pads with row -1 and scores of several kinds; ours is -inf, and behind all rows. */
static void pad(size_t k, float *scores, int64_t *rows)
{
    size_t n = 0;
    for (size_t i = 0; i < k; i++) {
        if (rows[i] >= 0) {
            scores[n] = scores[i];
            rows[n++] = rows[i];
        }
    }
    for (; n < k; n++) {
        scores[n] = -INFINITY;
        rows[n] = VECTOR_INDEX_NO_ROW;
    }
}

enum status vector_index_search(const struct vector_index *index, const struct vector_query *query,
                                const struct vector_hits *hits, struct error *err)
{
    enum status status = index_query_check(query, index->vectors.dim, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (index->faiss == NULL) {
        index_scan_queries(&index->vectors, query, hits);
        return STATUS_OK;
    }
    if (index->mapped_lists != NULL) {
        status = search_mapped(index, query, hits, err);
    } else {
        status = faiss_status(faiss_Index_search(index->faiss, (idx_t)query->n, query->vectors,
                                                 (idx_t)query->k, hits->scores, hits->rows),
                              STATUS_INTERNAL, "search", err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t q = 0; q < query->n; q++) {
        pad(query->k, hits->scores + q * query->k, hits->rows + q * query->k);
    }
    return STATUS_OK;
}

void vector_index_single_thread(void)
{
    omp_set_num_threads(1);
    openblas_set_num_threads(1);
}
