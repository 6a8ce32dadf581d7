#include "core/build_internal.h"

#include <string.h>

#include "base/alloc.h"

/* Items of the release. The item file is read twice: once for ids and categories, which decide what
 * vectors and popularity a row gets, and once to write the catalogue, so that the texts of a
 * million items are never in memory.
 *
 * An item without a vector (the model has never met it, or met it without an event: a zero vector)
 * gets half the mean of its category's vectors, the nearest ancestor's that has any. Sums are
 * kept per path in double. The half keeps new items reachable behind those that are known to fit;
 * giving them the vector of the nearest text would need a text model, which a shop may bring as its
 * own vectors. */

static const char CATEGORY_SEPARATOR[] = " > ";
static const float MEAN_FACTOR = 0.5F;
static const double COVERAGE_MIN = 0.01;
static const float HALF_MAX = 65504.0F;

/* ---- first pass: ids and categories ---- */

static enum status add_path(struct categories *categories, const char *path, size_t len,
                            uint32_t parent, uint32_t *out, struct error *err)
{
    enum status status = idmap_add(categories->paths, path, len, out);
    if (status == STATUS_EXISTS) {
        return STATUS_OK;
    }
    if (status != STATUS_OK) {
        return error_set(err, status, "categories: %s", status_text(status));
    }
    if (*out >= categories->cap) {
        size_t cap = categories->cap == 0 ? 256 : 2 * categories->cap;
        uint32_t *parents = mem_realloc_array(categories->parents, cap, sizeof(*parents));
        if (parents == NULL) {
            return error_set(err, STATUS_NOMEM, "categories: no memory");
        }
        categories->parents = parents;
        categories->cap = cap;
    }
    categories->parents[*out] = parent;
    return STATUS_OK;
}

/* "A > B > C" → the number of that path; its ancestors are added before it. */
static enum status add_category(struct categories *categories, const char *path, uint32_t *out,
                                struct error *err)
{
    uint32_t parent = IDMAP_NONE;
    const char *from = path;
    for (;;) {
        const char *separator = strstr(from, CATEGORY_SEPARATOR);
        size_t len = separator != NULL ? (size_t)(separator - path) : strlen(path);
        enum status status = add_path(categories, path, len, parent, out, err);
        if (status != STATUS_OK || separator == NULL) {
            return status;
        }
        parent = *out;
        from = separator + sizeof(CATEGORY_SEPARATOR) - 1;
    }
}

static enum status add_item(struct build *build, const struct item *item, size_t *cap,
                            struct error *err)
{
    uint32_t row = 0;
    enum status status = idmap_add(build->rows, item->id, strlen(item->id), &row);
    if (status == STATUS_EXISTS) {
        return error_set(err, STATUS_INVALID, "%s: item %.64s is there twice",
                         build->config->items_path, item->id);
    }
    if (status != STATUS_OK) {
        return error_set(err, status, "%s: %s", build->config->items_path, status_text(status));
    }
    if (row >= *cap) {
        size_t larger = *cap == 0 ? 4096 : 2 * *cap;
        uint32_t *grown = mem_realloc_array(build->category_of, larger, sizeof(*grown));
        if (grown == NULL) {
            return error_set(err, STATUS_NOMEM, "reading %s: no memory", build->config->items_path);
        }
        build->category_of = grown;
        *cap = larger;
    }
    build->category_of[row] = IDMAP_NONE;
    if (item->category == NULL || item->category[0] == '\0') {
        return STATUS_OK;
    }
    return add_category(&build->categories, item->category, &build->category_of[row], err);
}

enum status build_read_items(struct build *build, struct error *err)
{
    struct item_reader *reader = NULL;
    struct item item;
    size_t cap = 0;
    enum status status = idmap_open(0, &build->rows, err);
    if (status == STATUS_OK) {
        status = idmap_open(0, &build->categories.paths, err);
    }
    if (status == STATUS_OK) {
        status = item_reader_open(build->config->items_path, &reader, err);
    }
    while (status == STATUS_OK) {
        status = item_reader_next(reader, &item, err);
        if (status == STATUS_NOT_FOUND) {
            status = STATUS_OK;
            break;
        }
        if (status == STATUS_OK) {
            status = add_item(build, &item, &cap, err);
        }
    }
    item_reader_close(reader);
    if (status == STATUS_OK && idmap_size(build->rows) == 0) {
        status = error_set(err, STATUS_INVALID, "%s has no items", build->config->items_path);
    }
    build->result->n_items = status == STATUS_OK ? idmap_size(build->rows) : 0;
    return status;
}

/* ---- second pass: the catalogue ---- */

static enum status write_items(const struct build *build, struct item_reader *reader,
                               struct catalog_writer *writer, struct error *err)
{
    struct item item;
    size_t n = 0;
    for (;;) {
        enum status status = item_reader_next(reader, &item, err);
        if (status == STATUS_NOT_FOUND) {
            break;
        }
        if (status != STATUS_OK) {
            return status;
        }
        if (idmap_find(build->rows, item.id, strlen(item.id)) != n) {
            break;
        }
        status = catalog_writer_add(writer, &item, build->popularity[n], err);
        if (status != STATUS_OK) {
            return status;
        }
        n++;
    }
    if (n != idmap_size(build->rows)) {
        return error_set(err, STATUS_MISMATCH, "%s changed while it was read",
                         build->config->items_path);
    }
    return STATUS_OK;
}

enum status build_write_catalog(struct build *build, struct error *err)
{
    char path[PATH_BYTES_MAX];
    struct item_reader *reader = NULL;
    struct catalog_writer *writer = NULL;
    enum status status = build_path(build, RELEASE_FILE_ITEMS, path, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = item_reader_open(build->config->items_path, &reader, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = catalog_writer_open(path, &writer, err);
    if (status == STATUS_OK) {
        status = write_items(build, reader, writer, err);
        if (status == STATUS_OK) {
            status = catalog_writer_finish(writer, err);
        } else {
            catalog_writer_abandon(writer);
        }
    }
    item_reader_close(reader);
    return status;
}

/* ---- vectors ---- */

static bool is_zero(const float *vector, size_t dim)
{
    for (size_t d = 0; d < dim; d++) {
        if (vector[d] != 0.0F) {
            return false;
        }
    }
    return true;
}

/* The model's vectors at their rows; the others stay zero. Returns how many are known. */
static size_t place_known(struct build *build, float *vectors)
{
    const struct model_folder *folder = &build->folder;
    size_t dim = folder->vectors.dim;
    size_t n_known = 0;
    size_t n_met = 0;
    for (uint32_t row = 0; row < idmap_size(build->rows); row++) {
        size_t len = 0;
        const char *id = idmap_id(build->rows, row, &len);
        uint32_t from = idmap_find(folder->ids, id, len);
        if (from != IDMAP_NONE) {
            vectors_row(&folder->vectors, from, vectors + (size_t)row * dim);
            n_met++;
            n_known += is_zero(vectors + (size_t)row * dim, dim) ? 0 : 1;
        }
    }
    build->result->n_without_vector = idmap_size(build->rows) - n_known;
    build->result->n_vectors_dropped = folder->vectors.n - n_met;
    return n_known;
}

static enum status check_coverage(const struct build *build, size_t n_known, struct error *err)
{
    size_t n = idmap_size(build->rows);
    if (n_known == 0) {
        return error_set(err, STATUS_MISMATCH,
                         "the model knows none of the %zu items: is it another shop's?", n);
    }
    if ((double)n_known < COVERAGE_MIN * (double)n && !build->config->force) {
        return error_set(err, STATUS_MISMATCH,
                         "the model knows only %zu of the %zu items: is it another shop's?",
                         n_known, n);
    }
    return STATUS_OK;
}

struct category_means {
    double *sums; /* [paths × D], with all below */
    uint64_t *counts;
};

static void sum_up(const struct build *build, const float *vectors, struct category_means *means)
{
    size_t dim = build->folder.vectors.dim;
    for (size_t row = 0; row < idmap_size(build->rows); row++) {
        const float *vector = vectors + row * dim;
        if (is_zero(vector, dim)) {
            continue;
        }
        uint32_t category = build->category_of[row];
        while (category != IDMAP_NONE) {
            double *sum = means->sums + (size_t)category * dim;
            for (size_t d = 0; d < dim; d++) {
                sum[d] += (double)vector[d];
            }
            means->counts[category]++;
            category = build->categories.parents[category];
        }
    }
}

static void fill_unknown(const struct build *build, float *vectors,
                         const struct category_means *means)
{
    size_t dim = build->folder.vectors.dim;
    for (size_t row = 0; row < idmap_size(build->rows); row++) {
        float *vector = vectors + row * dim;
        uint32_t category = build->category_of[row];
        while (category != IDMAP_NONE && means->counts[category] == 0) {
            category = build->categories.parents[category];
        }
        if (category == IDMAP_NONE || !is_zero(vector, dim)) {
            continue;
        }
        const double *sum = means->sums + (size_t)category * dim;
        for (size_t d = 0; d < dim; d++) {
            vector[d] = MEAN_FACTOR * (float)(sum[d] / (double)means->counts[category]);
        }
    }
}

static enum status fill_from_categories(const struct build *build, float *vectors,
                                        struct error *err)
{
    size_t n_paths = idmap_size(build->categories.paths);
    size_t dim = build->folder.vectors.dim;
    struct category_means means = {
        .sums = mem_calloc(n_paths * dim, sizeof(double)),
        .counts = mem_calloc(n_paths, sizeof(uint64_t)),
    };
    enum status status = STATUS_OK;
    if (means.sums == NULL || means.counts == NULL) {
        status = error_set(err, STATUS_NOMEM, "means of %zu categories: no memory", n_paths);
    } else {
        sum_up(build, vectors, &means);
        fill_unknown(build, vectors, &means);
    }
    mem_free(means.sums);
    mem_free(means.counts);
    return status;
}

static bool wants_half(const struct build *build)
{
    const char *type = build->config->vector_type;
    return strcmp(type, "f16") == 0 ||
           (strcmp(type, "auto") == 0 && idmap_size(build->rows) > F16_MIN_ITEMS);
}

/* Whether all fit into a half without becoming infinite. */
static bool fits_half(const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (values[i] > HALF_MAX || values[i] < -HALF_MAX) {
            return false;
        }
    }
    return true;
}

static enum status write_vectors(const struct build *build, const char *path, const float *vectors,
                                 struct error *err)
{
    size_t n = idmap_size(build->rows);
    size_t dim = build->folder.vectors.dim;
    struct tensor_to_write tensor = {
        .name = MODEL_TENSOR_VECTORS, .type = TENSOR_F32, .rank = 2, .shape = {n, dim}};
    uint16_t *halves = NULL;
    tensor.data = vectors;
    if (wants_half(build)) {
        if (!fits_half(vectors, n * dim)) {
            return error_set(err, STATUS_INVALID, "vectors have values over %g: store them as f32",
                             (double)HALF_MAX);
        }
        halves = mem_alloc_array(n * dim, sizeof(*halves));
        if (halves == NULL) {
            return error_set(err, STATUS_NOMEM, "vectors of %zu items", n);
        }
        half_from_floats(vectors, n * dim, halves);
        tensor.type = TENSOR_F16;
        tensor.data = halves;
    }
    enum status status = safetensors_write(path, &tensor, 1, NULL, 0, err);
    mem_free(halves);
    return status;
}

static enum status align_vectors(struct build *build, const char *path, struct error *err)
{
    size_t n = idmap_size(build->rows);
    size_t dim = build->folder.vectors.dim;
    if (n > SIZE_MAX / sizeof(double) / dim) {
        return error_set(err, STATUS_LIMIT, "%zu items of dimension %zu", n, dim);
    }
    float *vectors = mem_calloc(n * dim, sizeof(*vectors));
    if (vectors == NULL) {
        return error_set(err, STATUS_NOMEM, "vectors of %zu items: no memory", n);
    }
    enum status status = check_coverage(build, place_known(build, vectors), err);
    if (status == STATUS_OK && build->result->n_without_vector > 0) {
        status = fill_from_categories(build, vectors, err);
    }
    if (status == STATUS_OK) {
        status = write_vectors(build, path, vectors, err);
    }
    mem_free(vectors);
    return status;
}

static enum status copy_model(const struct build *build, const char *to, struct error *err)
{
    char from[PATH_BYTES_MAX];
    struct file_map map;
    enum status status = path_join(from, build->config->model_dir, MODEL_FILE_WEIGHTS, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = file_map_open(from, &map, err);
    if (status == STATUS_OK) {
        status = file_write_atomic(to, map.data, map.n_bytes, err);
        file_map_close(&map);
    }
    return status;
}

enum status build_write_vectors(struct build *build, struct error *err)
{
    char vectors_path[PATH_BYTES_MAX];
    char model_path[PATH_BYTES_MAX];
    enum status status = build_path(build, RELEASE_FILE_VECTORS, vectors_path, err);
    if (status == STATUS_OK) {
        status = build_path(build, RELEASE_FILE_MODEL, model_path, err);
    }
    if (status == STATUS_OK) {
        status = align_vectors(build, vectors_path, err);
    }
    if (status == STATUS_OK) {
        status = copy_model(build, model_path, err);
    }
    if (status == STATUS_OK) {
        status = safetensors_open(vectors_path, &build->vector_file, err);
    }
    if (status == STATUS_OK) {
        status =
            safetensors_vectors(build->vector_file, MODEL_TENSOR_VECTORS, &build->vectors, err);
    }
    if (status == STATUS_OK) {
        status = user_model_open(model_path, &build->vectors, &build->model, err);
    }
    return status;
}

void build_free_items(struct build *build)
{
    idmap_close(build->rows);
    idmap_close(build->categories.paths);
    mem_free(build->categories.parents);
    mem_free(build->category_of);
    mem_free(build->popularity);
}
