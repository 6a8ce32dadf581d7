#ifndef AISLE_TESTS_INDEX_FIXTURE_H
#define AISLE_TESTS_INDEX_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/rng.h"
#include "index/index_internal.h"

/* Vectors in clusters, as item vectors are: unit vectors around n_clusters centres; queries lie
 * around centres too, a little wider. */
struct fixture {
    char dir[64];
    float *data;
    float *queries;
    struct vectors vectors;
    size_t n_queries;
};

static inline void fixture_unit(float *vector, size_t dim)
{
    float norm = vector_norm(vector, dim);
    for (size_t d = 0; d < dim; d++) {
        vector[d] /= norm;
    }
}

static inline void fixture_points(struct rng *rng, const float *centres, size_t n_centres,
                                  double spread, float *out, size_t n, size_t dim)
{
    for (size_t i = 0; i < n; i++) {
        const float *centre = centres + rng_below(rng, n_centres) * dim;
        for (size_t d = 0; d < dim; d++) {
            out[i * dim + d] = centre[d] + (float)(spread * rng_normal(rng));
        }
        fixture_unit(out + i * dim, dim);
    }
}

static inline void fixture_init(struct fixture *fixture, size_t n, size_t dim, size_t n_queries)
{
    enum { CENTRES = 50 };
    struct rng rng;
    rng_init(&rng, 20261124);
    snprintf(fixture->dir, sizeof fixture->dir, "/tmp/aisle-index-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    float *centres = mem_alloc_array(CENTRES * dim, sizeof *centres);
    fixture->data = mem_alloc_array(n * dim, sizeof *fixture->data);
    fixture->queries = mem_alloc_array(n_queries * dim, sizeof *fixture->queries);
    assert_true(centres != NULL && fixture->data != NULL && fixture->queries != NULL);
    for (size_t i = 0; i < CENTRES * dim; i++) {
        centres[i] = (float)rng_normal(&rng);
    }
    for (size_t i = 0; i < CENTRES; i++) {
        fixture_unit(centres + i * dim, dim);
    }
    fixture_points(&rng, centres, CENTRES, 0.15, fixture->data, n, dim);
    fixture_points(&rng, centres, CENTRES, 0.20, fixture->queries, n_queries, dim);
    fixture->vectors = (struct vectors){fixture->data, n, dim, VECTOR_F32};
    fixture->n_queries = n_queries;
    mem_free(centres);
}

static inline void fixture_free(struct fixture *fixture)
{
    struct error err;
    mem_free(fixture->data);
    mem_free(fixture->queries);
    assert_int_equal(dir_remove(fixture->dir, &err), STATUS_OK);
}

static inline const char *fixture_path(const struct fixture *fixture, const char *name, char *out)
{
    struct error err;
    assert_int_equal(path_join(out, fixture->dir, name, &err), STATUS_OK);
    return out;
}

/* Reads a file into buf; the caller frees it. */
static inline void fixture_read(const char *path, struct buf *buf)
{
    struct error err;
    buf_init(buf, (size_t)1 << 30);
    assert_int_equal(file_read(path, buf, &err), STATUS_OK);
}

static inline struct vector_index_build_config fixture_config(const struct fixture *fixture,
                                                              const char *factory)
{
    return (struct vector_index_build_config){
        .vectors = &fixture->vectors,
        .factory = factory,
        .queries = fixture->queries,
        .n_queries = fixture->n_queries,
        .recall_k = 20,
        .target_recall = 0.9,
        .n_threads = 1,
        .seed = 7,
    };
}

/* Builds and opens; fails the test if either does. */
static inline struct vector_index *fixture_index(const struct fixture *fixture, const char *factory,
                                                 struct vector_index_measured *measured,
                                                 bool memory_map)
{
    char path[PATH_BYTES_MAX];
    struct error err = {.message = ""};
    struct vector_index *index = NULL;
    struct vector_index_build_config config = fixture_config(fixture, factory);
    fixture_path(fixture, "index.faiss", path);
    enum status status = vector_index_build(&config, path, measured, &err);
    if (status != STATUS_OK) {
        fail_msg("building %s: %s", factory, err.message);
    }
    struct vector_index_config open_config = {.path = path,
                                              .vectors = &fixture->vectors,
                                              .search_parameters = measured->search_parameters,
                                              .memory_map = memory_map};
    status = vector_index_open(&open_config, &index, &err);
    if (status != STATUS_OK) {
        fail_msg("opening %s: %s", factory, err.message);
    }
    return index;
}

#endif
