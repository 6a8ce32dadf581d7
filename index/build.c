#include "index/vector_index.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cblas.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>
#include <omp.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "index/faiss_status.h"
#include "index/index_internal.h"

/* Trains, fills, writes, opens again and tunes an index. What is tuned and measured is the file as
 * a server will open it, not the object in memory; it gets its name only when it reached the
 * target.
 *
 * Centroids are learned from a sample of 64 vectors a list, drawn here with the caller's seed.
 * FAISS would take up to 256, which is four times the work, most of a build; what coarser centroids
 * lose, the tuning makes up for in probes. Vectors are given in blocks, so that half-precision
 * tables never exist in memory as floats.
 *
 * With one thread the file's bytes depend on the vectors and the seed alone; with more, sums inside
 * BLAS and the order of insertion into HNSW graphs vary. */

enum { TRAIN_POINTS_PER_LIST = 64, TRAIN_POINTS_MIN = 20000, ADD_BLOCK = 65536 };
enum { RECALL_K_DEFAULT = 100, ITEM_QUERIES = 1000 };

/* Threads of OpenMP (this thread's setting) and BLAS (the process's), put back at the end. */
struct threads_before {
    int omp;
    int blas;
};

static struct threads_before threads_set(size_t n)
{
    struct threads_before before = {omp_get_max_threads(), openblas_get_num_threads()};
    int n_threads = n == 0 ? omp_get_num_procs() : (int)n;
    omp_set_num_threads(n_threads);
    openblas_set_num_threads(n_threads);
    return before;
}

static void threads_restore(const struct threads_before *before)
{
    omp_set_num_threads(before->omp);
    openblas_set_num_threads(before->blas);
}

/* Progress in three steps on one line; the detail is the step's name. */
struct report {
    struct progress progress;
    bool enabled;
    uint64_t n; /* vectors */
};

static void report(struct report *report, const char *what, uint64_t done)
{
    if (report->enabled) {
        progress_show(&report->progress, "index", done, report->n, what);
    }
}

/* n rows of the table as floats, drawn without replacement, in order (Knuth, The Art of Computer
 * Programming 2, section 3.4.2, algorithm S). NULL: out of memory. */
static float *sample_rows(const struct vectors *vectors, size_t n, uint64_t seed)
{
    float *sample = mem_alloc_array(n * vectors->dim, sizeof *sample);
    if (sample == NULL) {
        return NULL;
    }
    struct rng rng;
    rng_init(&rng, seed);
    size_t taken = 0;
    for (size_t row = 0; row < vectors->n && taken < n; row++) {
        if (rng_below(&rng, vectors->n - row) < n - taken) {
            vectors_row(vectors, row, sample + taken * vectors->dim);
            taken++;
        }
    }
    return sample;
}

static enum status check_kind(const struct index_kind *kind, const struct vectors *vectors,
                              struct error *err)
{
    char name[INDEX_NAME_BYTES];
    index_kind_name(kind, name);
    size_t n_min = kind->n_lists;
    if (kind->pq_bits != 0 && n_min < (size_t)1 << kind->pq_bits) {
        n_min = (size_t)1 << kind->pq_bits;
    }
    if (vectors->n < n_min) {
        return error_set(err, STATUS_INVALID, "index %s needs at least %zu items, there are %zu",
                         name, n_min, vectors->n);
    }
    if (kind->pq_parts != 0 && vectors->dim % kind->pq_parts != 0) {
        return error_set(err, STATUS_INVALID, "index %s cannot cut dimension %zu into %zu parts",
                         name, vectors->dim, kind->pq_parts);
    }
    return STATUS_OK;
}

static enum status check_config(const struct vector_index_build_config *config, struct error *err)
{
    const struct vectors *vectors = config->vectors;
    if (vectors->n == 0 || vectors->n > UINT32_MAX - 1 || vectors->dim < VECTOR_DIM_MIN ||
        vectors->dim > VECTOR_DIM_MAX) {
        return error_set(err, STATUS_INVALID, "cannot index %zu vectors of dimension %zu",
                         vectors->n, vectors->dim);
    }
    if (!(config->target_recall > 0.0 && config->target_recall <= 1.0)) {
        return error_set(err, STATUS_INVALID, "target recall %g is not within (0, 1]",
                         config->target_recall);
    }
    if (config->recall_k > SEARCH_K_MAX) {
        return error_set(err, STATUS_INVALID, "recall@%zu: k is at most %d", config->recall_k,
                         (int)SEARCH_K_MAX);
    }
    if (config->n_threads > 4096) {
        return error_set(err, STATUS_INVALID, "%zu threads", config->n_threads);
    }
    if (config->queries == NULL) {
        return STATUS_OK;
    }
    if (config->n_queries == 0) {
        return error_set(err, STATUS_INVALID, "no queries to measure with");
    }
    size_t bad = floats_first_not_finite(config->queries, config->n_queries * vectors->dim);
    if (bad != config->n_queries * vectors->dim) {
        return error_set(err, STATUS_INVALID, "query %zu is not finite", bad / vectors->dim);
    }
    return STATUS_OK;
}

static enum status check_finite(const float *block, size_t n, size_t dim, size_t first,
                                struct error *err)
{
    size_t bad = floats_first_not_finite(block, n * dim);
    if (bad != n * dim) {
        return error_set(err, STATUS_INVALID, "item vector %zu is not finite", first + bad / dim);
    }
    return STATUS_OK;
}

static enum status train(FaissIndex *index, const struct index_kind *kind,
                         const struct vectors *vectors, uint64_t seed, struct error *err)
{
    if (faiss_Index_is_trained(index) != 0) {
        return STATUS_OK;
    }
    size_t n = kind->n_lists * TRAIN_POINTS_PER_LIST;
    n = n < TRAIN_POINTS_MIN ? TRAIN_POINTS_MIN : n;
    n = n < vectors->n ? n : vectors->n;
    float *sample = sample_rows(vectors, n, seed);
    if (sample == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory training the index");
    }
    enum status status = STATUS_OK;
    if (floats_first_not_finite(sample, n * vectors->dim) != n * vectors->dim) {
        status = error_set(err, STATUS_INVALID, "an item vector is not finite");
    }
    if (status == STATUS_OK) {
        status = faiss_status(faiss_Index_train(index, (idx_t)n, sample), STATUS_INVALID,
                              "training the index", err);
    }
    mem_free(sample);
    return status;
}

static enum status add(FaissIndex *index, const struct vectors *vectors, struct report *progress,
                       struct error *err)
{
    size_t step = vectors->n < ADD_BLOCK ? vectors->n : ADD_BLOCK;
    float *block = mem_alloc_array(step * vectors->dim, sizeof *block);
    if (block == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory filling the index");
    }
    enum status status = STATUS_OK;
    for (size_t first = 0; first < vectors->n && status == STATUS_OK; first += step) {
        size_t n = vectors->n - first < step ? vectors->n - first : step;
        report(progress, "filling", first);
        vectors_rows(vectors, first, n, block);
        status = check_finite(block, n, vectors->dim, first, err);
        if (status == STATUS_OK) {
            status = faiss_status(faiss_Index_add(index, (idx_t)n, block), STATUS_INTERNAL,
                                  "filling the index", err);
        }
    }
    mem_free(block);
    return status;
}

static enum status make_file(const struct vector_index_build_config *config,
                             const struct index_kind *kind, const char *path,
                             struct report *progress, struct error *err)
{
    char recipe[INDEX_NAME_BYTES];
    FaissIndex *index = NULL;
    index_kind_recipe(kind, recipe);
    enum status status = faiss_status(
        faiss_index_factory(&index, (int)config->vectors->dim, recipe, METRIC_INNER_PRODUCT),
        STATUS_INVALID, recipe, err);
    if (status != STATUS_OK) {
        return status;
    }
    report(progress, "training", 0);
    status = train(index, kind, config->vectors, config->seed, err);
    if (status == STATUS_OK) {
        status = add(index, config->vectors, progress, err);
    }
    if (status == STATUS_OK) {
        status =
            faiss_status(faiss_write_index_fname(index, path), STATUS_IO, "writing the index", err);
    }
    faiss_Index_free(index);
    return status;
}

/* Opens the file as a server does, tunes it and fills *measured. */
static enum status tune_file(const struct vector_index_build_config *config,
                             const struct index_kind *kind, const char *path,
                             struct vector_index_measured *measured, struct error *err)
{
    struct vector_index_config open_config = {
        .path = path, .vectors = config->vectors, .search_parameters = ""};
    struct vector_index *index = NULL;
    float *sample = NULL;
    const float *queries = config->queries;
    size_t n_queries = config->n_queries;
    size_t recall_k = config->recall_k == 0 ? RECALL_K_DEFAULT : config->recall_k;
    enum status status = vector_index_open(&open_config, &index, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (queries == NULL) {
        n_queries = config->vectors->n < ITEM_QUERIES ? config->vectors->n : ITEM_QUERIES;
        sample = sample_rows(config->vectors, n_queries, config->seed + 1);
        queries = sample;
        if (sample == NULL) {
            status = error_set(err, STATUS_NOMEM, "out of memory tuning the index");
            goto close_index;
        }
    }
    struct index_reference reference;
    status = index_reference_init(&reference, config->vectors,
                                  &(struct vector_query){queries, n_queries, recall_k}, err);
    if (status != STATUS_OK) {
        goto free_sample;
    }
    status = index_tune(index, kind, &reference, config->target_recall, measured, err);
    index_reference_free(&reference);
free_sample:
    mem_free(sample);
close_index:
    vector_index_close(index);
    return status;
}

static enum status publish(const char *partial, const char *path,
                           struct vector_index_measured *measured, struct error *err)
{
    struct stat info;
    if (stat(partial, &info) != 0) {
        return error_set_errno(err, "%s", partial);
    }
    measured->file_bytes = (uint64_t)info.st_size;
    return file_rename_durable(partial, path, err);
}

enum status vector_index_build(const struct vector_index_build_config *config, const char *path,
                               struct vector_index_measured *measured, struct error *err)
{
    struct index_kind kind;
    char partial[PATH_BYTES_MAX];
    int64_t start_us = clock_monotonic_us();
    memset(measured, 0, sizeof *measured);
    enum status status = check_config(config, err);
    if (status == STATUS_OK && strcmp(config->factory, "auto") == 0) {
        kind = index_kind_auto(config->vectors->n);
    } else if (status == STATUS_OK) {
        status = index_kind_parse(config->factory, &kind, err);
    }
    if (status == STATUS_OK) {
        status = check_kind(&kind, config->vectors, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if ((size_t)snprintf(partial, sizeof partial, "%s.partial", path) >= sizeof partial) {
        return error_set(err, STATUS_LIMIT, "path of the index is too long");
    }
    index_kind_name(&kind, measured->factory);
    struct report progress = {.enabled = config->show_progress, .n = config->vectors->n};
    struct threads_before before = threads_set(config->n_threads);
    status = make_file(config, &kind, partial, &progress, err);
    if (status == STATUS_OK) {
        report(&progress, "tuning", config->vectors->n);
        status = tune_file(config, &kind, partial, measured, err);
    }
    threads_restore(&before);
    if (status == STATUS_OK) {
        status = publish(partial, path, measured, err);
    }
    if (status != STATUS_OK) {
        (void)unlink(partial);
    }
    measured->build_seconds = (double)(clock_monotonic_us() - start_us) / 1e6;
    if (progress.enabled) {
        progress_end(&progress.progress, "index", config->vectors->n, measured->factory);
    }
    return status;
}
