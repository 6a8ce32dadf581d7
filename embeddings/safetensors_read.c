#include "embeddings/safetensors.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/vectors.h"
#include "embeddings/embeddings_internal.h"
#include "embeddings/json_read.h"

/* Reads a safetensors file without copying its data: the JSON header is parsed once into a sorted
 * table, tensors point into the mapping. The file may come from anywhere, so nothing in it is
 * believed: each range is compared with the file's size before it becomes a pointer, products are
 * checked for overflow, and overlaps and holes are found by sorting the ranges and asking that each
 * begins where the last one ended (n log n; comparing pairs would let a file of 65,536 tensors cost
 * seconds). Lookup by name is a binary search. Types that no model here uses (8-bit floats,
 * booleans) are refused when the file is opened, because a tensor without a type could not be
 * checked. */

enum { DEPTH_MAX = 3 /* file, tensor, shape */, HALVES_BATCH = 256 };

struct safetensors {
    struct file_map map; /* data NULL when the bytes are the caller's */
    struct json_doc *header;
    const struct json_value *metadata; /* object or NULL */
    struct tensor *tensors;            /* in the order of their data */
    const struct tensor **by_name;
    size_t n;
};

struct data_section {
    const unsigned char *bytes;
    size_t n_bytes;
};

static enum status read_shape(const struct json_value *value, struct tensor *tensor)
{
    if (json_kind(value) != JSON_ARRAY) {
        return STATUS_FORMAT;
    }
    tensor->rank = 0;
    for (const struct json_value *v = json_first(value); v != NULL; v = json_next(v)) {
        if (tensor->rank == SAFETENSORS_RANK_MAX ||
            !json_whole_number(v, &tensor->shape[tensor->rank])) {
            return STATUS_FORMAT;
        }
        tensor->rank++;
    }
    return STATUS_OK;
}

/* data_offsets as [begin, end] with begin ≤ end ≤ size of the data. */
static enum status read_range(const struct json_value *value, const struct data_section *section,
                              struct tensor *tensor)
{
    uint64_t range[2] = {0, 0};
    size_t n = 0;
    if (json_kind(value) != JSON_ARRAY) {
        return STATUS_FORMAT;
    }
    for (const struct json_value *v = json_first(value); v != NULL; v = json_next(v)) {
        if (n == 2 || !json_whole_number(v, &range[n])) {
            return STATUS_FORMAT;
        }
        n++;
    }
    if (n != 2 || range[0] > range[1] || range[1] > section->n_bytes) {
        return STATUS_FORMAT;
    }
    tensor->data = section->bytes + range[0];
    tensor->n_bytes = (size_t)(range[1] - range[0]);
    return STATUS_OK;
}

static enum status tensor_fault(const struct tensor *tensor, const char *what, struct error *err)
{
    return error_set(err, STATUS_FORMAT, "tensor \"%.96s\": %s", tensor->name, what);
}

static enum status read_tensor(const struct json_value *value, const struct data_section *section,
                               struct tensor *tensor, struct error *err)
{
    *tensor = (struct tensor){.name = json_name(value)};
    if (json_kind(value) != JSON_OBJECT) {
        return tensor_fault(tensor, "not an object", err);
    }
    size_t n_members = 0;
    for (const struct json_value *v = json_first(value); v != NULL; v = json_next(v)) {
        n_members++;
    }
    const struct json_value *dtype = json_member(value, "dtype");
    const struct json_value *shape = json_member(value, "shape");
    const struct json_value *range = json_member(value, "data_offsets");
    if (n_members != 3 || dtype == NULL || shape == NULL || range == NULL) {
        return tensor_fault(tensor, "must have dtype, shape, data_offsets and nothing else", err);
    }
    if (json_kind(dtype) != JSON_STRING || !tensor_type_parse(json_text(dtype), &tensor->type)) {
        return tensor_fault(tensor, "unknown dtype", err);
    }
    if (read_shape(shape, tensor) != STATUS_OK) {
        return tensor_fault(tensor, "shape is not a list of at most 8 whole numbers", err);
    }
    if (read_range(range, section, tensor) != STATUS_OK) {
        return tensor_fault(tensor, "data_offsets are not a range of the file's data", err);
    }
    size_t n_bytes = 0;
    if (!tensor_size(tensor->shape, tensor->rank, tensor->type, &tensor->n_values, &n_bytes) ||
        n_bytes != tensor->n_bytes) {
        return tensor_fault(tensor, "shape and dtype do not fill data_offsets", err);
    }
    return STATUS_OK;
}

/* By first byte, empty tensors before the one that starts at the same byte. */
static int compare_data(const void *a, const void *b)
{
    const struct tensor *left = a;
    const struct tensor *right = b;
    const uintptr_t left_data = (uintptr_t)left->data;
    const uintptr_t right_data = (uintptr_t)right->data;
    if (left_data != right_data) {
        return left_data < right_data ? -1 : 1;
    }
    if (left->n_bytes != right->n_bytes) {
        return left->n_bytes < right->n_bytes ? -1 : 1;
    }
    return strcmp(left->name, right->name);
}

static int compare_names(const void *a, const void *b)
{
    const struct tensor *const *left = a;
    const struct tensor *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static int compare_name(const void *key, const void *element)
{
    const struct tensor *const *tensor = element;
    return strcmp(key, (*tensor)->name);
}

static enum status check_ranges(const struct safetensors *file, const struct data_section *section,
                                struct error *err)
{
    const unsigned char *next = section->bytes;
    for (size_t i = 0; i < file->n; i++) {
        const struct tensor *tensor = &file->tensors[i];
        if (tensor->data != next) {
            return tensor_fault(tensor,
                                (uintptr_t)tensor->data < (uintptr_t)next
                                    ? "data overlap another tensor's"
                                    : "hole in the data before it",
                                err);
        }
        next += tensor->n_bytes;
    }
    if (next != section->bytes + section->n_bytes) {
        return error_set(err, STATUS_FORMAT, "%zu bytes of data belong to no tensor",
                         (size_t)(section->bytes + section->n_bytes - next));
    }
    return STATUS_OK;
}

static enum status check_metadata(const struct json_value *metadata, struct error *err)
{
    if (json_kind(metadata) != JSON_OBJECT) {
        return error_set(err, STATUS_FORMAT, "%s is not an object", SAFETENSORS_METADATA_NAME);
    }
    size_t n = 0;
    for (const struct json_value *v = json_first(metadata); v != NULL; v = json_next(v)) {
        if (json_kind(v) != JSON_STRING) {
            return error_set(err, STATUS_FORMAT, "metadata \"%.96s\" is not a text", json_name(v));
        }
        if (++n > SAFETENSORS_METADATA_MAX) {
            return error_set(err, STATUS_FORMAT, "more than %d metadata entries",
                             SAFETENSORS_METADATA_MAX);
        }
    }
    return STATUS_OK;
}

/* The header's members to file's tables. */
static enum status read_members(struct safetensors *file, const struct data_section *section,
                                struct error *err)
{
    const struct json_value *root = json_root(file->header);
    size_t n = 0;
    for (const struct json_value *v = json_first(root); v != NULL; v = json_next(v)) {
        n++;
    }
    if (n > SAFETENSORS_TENSORS_MAX + 1) {
        return error_set(err, STATUS_FORMAT, "more than %d tensors", SAFETENSORS_TENSORS_MAX);
    }
    file->tensors = mem_alloc_array(n, sizeof(*file->tensors));
    file->by_name = mem_alloc_array(n, sizeof(struct tensor *));
    if (file->tensors == NULL || file->by_name == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for %zu tensors", n);
    }
    for (const struct json_value *v = json_first(root); v != NULL; v = json_next(v)) {
        const bool is_metadata = strcmp(json_name(v), SAFETENSORS_METADATA_NAME) == 0;
        const enum status status = is_metadata
                                       ? check_metadata(v, err)
                                       : read_tensor(v, section, &file->tensors[file->n], err);
        if (status != STATUS_OK) {
            return status;
        }
        if (is_metadata) {
            file->metadata = v;
        } else if (++file->n > SAFETENSORS_TENSORS_MAX) {
            return error_set(err, STATUS_FORMAT, "more than %d tensors", SAFETENSORS_TENSORS_MAX);
        }
    }
    qsort(file->tensors, file->n, sizeof(*file->tensors), compare_data);
    for (size_t i = 0; i < file->n; i++) {
        file->by_name[i] = &file->tensors[i];
    }
    qsort(file->by_name, file->n, sizeof(struct tensor *), compare_names);
    return check_ranges(file, section, err);
}

static enum status read_header(struct safetensors *file, const unsigned char *bytes, size_t n_bytes,
                               struct error *err)
{
    uint64_t length = 0;
    if (n_bytes < SAFETENSORS_LENGTH_BYTES) {
        return error_set(err, STATUS_FORMAT, "%zu bytes are too few for a tensor file", n_bytes);
    }
    memcpy(&length, bytes, sizeof(length));
    const size_t left = n_bytes - SAFETENSORS_LENGTH_BYTES;
    if (length > SAFETENSORS_HEADER_BYTES_MAX || length > left) {
        return error_set(err, STATUS_FORMAT, "header of %llu bytes in a file of %zu",
                         (unsigned long long)length, n_bytes);
    }
    const unsigned char *text = bytes + SAFETENSORS_LENGTH_BYTES;
    if (length == 0 || text[0] != '{') {
        return error_set(err, STATUS_FORMAT, "header does not begin with '{'");
    }
    /* A tensor is one member with three of its own, a list of two and one of at most rank. */
    const struct json_limits limits = {
        .n_values_max = (size_t)SAFETENSORS_TENSORS_MAX * (4 + 2 + SAFETENSORS_RANK_MAX) +
                        SAFETENSORS_METADATA_MAX + 1,
        .depth_max = DEPTH_MAX,
    };
    const enum status status =
        json_doc_open((const char *)text, (size_t)length, &limits, &file->header, err);
    if (status != STATUS_OK) {
        /* Too deep or too many: for a file that is not a limit of ours but a wrong format. */
        return status == STATUS_LIMIT ? error_set(err, STATUS_FORMAT, "header has too many values")
                                      : status;
    }
    const struct data_section section = {.bytes = text + length, .n_bytes = left - (size_t)length};
    return read_members(file, &section, err);
}

enum status safetensors_open_bytes(const void *bytes, size_t n_bytes, struct safetensors **out,
                                   struct error *err)
{
    *out = NULL;
    struct safetensors *file = mem_calloc(1, sizeof(*file));
    if (file == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for a tensor file");
    }
    const enum status status = read_header(file, bytes, n_bytes, err);
    if (status != STATUS_OK) {
        safetensors_close(file);
        return status;
    }
    *out = file;
    return STATUS_OK;
}

enum status safetensors_open(const char *path, struct safetensors **out, struct error *err)
{
    *out = NULL;
    struct file_map map;
    enum status status = file_map_open(path, &map, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = safetensors_open_bytes(map.data, map.n_bytes, out, err);
    if (status != STATUS_OK) {
        file_map_close(&map);
        error_prefix(err, "%s: ", path);
        return status;
    }
    assert(*out != NULL);
    (*out)->map = map;
    return STATUS_OK;
}

void safetensors_close(struct safetensors *file)
{
    if (file == NULL) {
        return;
    }
    mem_free(file->by_name);
    mem_free(file->tensors);
    json_doc_close(file->header);
    if (file->map.data != NULL) {
        file_map_close(&file->map);
    }
    mem_free(file);
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->n;
}

const struct tensor *safetensors_at(const struct safetensors *file, size_t i)
{
    assert(i < file->n);
    return &file->tensors[i];
}

const struct tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    const struct tensor *const *found =
        bsearch(name, file->by_name, file->n, sizeof(struct tensor *), compare_name);
    return found != NULL ? *found : NULL;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key)
{
    const struct json_value *value =
        file->metadata != NULL ? json_member(file->metadata, key) : NULL;
    return value != NULL ? json_text(value) : NULL;
}

static void convert_halves(const unsigned char *bytes, size_t n, float *out)
{
    uint16_t halves[HALVES_BATCH]; /* the file's may be unaligned */
    for (size_t first = 0; first < n; first += HALVES_BATCH) {
        const size_t count = n - first < HALVES_BATCH ? n - first : HALVES_BATCH;
        memcpy(halves, bytes + first * sizeof(uint16_t), count * sizeof(uint16_t));
        half_to_floats(halves, count, out + first);
    }
}

/* bfloat16 is the upper half of a float32. */
static void convert_bfloats(const unsigned char *bytes, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t upper = 0;
        memcpy(&upper, bytes + i * sizeof(upper), sizeof(upper));
        const uint32_t bits = (uint32_t)upper << 16;
        memcpy(&out[i], &bits, sizeof(bits));
    }
}

/* Values beyond float32 become infinities, which the caller refuses. */
static void convert_doubles(const unsigned char *bytes, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        double value = 0.0;
        memcpy(&value, bytes + i * sizeof(value), sizeof(value));
        out[i] = (float)value;
    }
}

static bool convert(const struct tensor *tensor, float *out)
{
    switch (tensor->type) {
    case TENSOR_F32:
        if (tensor->n_bytes > 0) {
            memcpy(out, tensor->data, tensor->n_bytes);
        }
        return true;
    case TENSOR_F16:
        convert_halves(tensor->data, tensor->n_values, out);
        return true;
    case TENSOR_BF16:
        convert_bfloats(tensor->data, tensor->n_values, out);
        return true;
    case TENSOR_F64:
        convert_doubles(tensor->data, tensor->n_values, out);
        return true;
    case TENSOR_I32:
    case TENSOR_I64:
    case TENSOR_U8:
        break;
    }
    return false;
}

enum { SHAPE_TEXT_BYTES = 80 };

/* "3×64", cut when it does not fit. */
static void shape_text(const uint64_t *shape, size_t rank, char out[SHAPE_TEXT_BYTES])
{
    size_t len = 0;
    (void)snprintf(out, SHAPE_TEXT_BYTES, "scalar");
    for (size_t i = 0; i < rank && len < SHAPE_TEXT_BYTES; i++) {
        const int n = snprintf(out + len, SHAPE_TEXT_BYTES - len, i == 0 ? "%llu" : "×%llu",
                               (unsigned long long)shape[i]);
        len += n > 0 ? (size_t)n : 0;
    }
}

static enum status find(const struct safetensors *file, const char *name, const struct tensor **out,
                        struct error *err)
{
    *out = safetensors_find(file, name);
    return *out != NULL ? STATUS_OK
                        : error_set(err, STATUS_NOT_FOUND, "no tensor \"%.96s\" in the file", name);
}

enum status safetensors_read_f32(const struct safetensors *file, const char *name,
                                 const uint64_t *shape, size_t rank, float *out, struct error *err)
{
    const struct tensor *tensor = NULL;
    const enum status status = find(file, name, &tensor, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (rank != tensor->rank ||
        (rank > 0 && memcmp(shape, tensor->shape, rank * sizeof(*shape)) != 0)) {
        char is[SHAPE_TEXT_BYTES];
        char wanted[SHAPE_TEXT_BYTES];
        shape_text(tensor->shape, tensor->rank, is);
        shape_text(shape, rank, wanted);
        return error_set(err, STATUS_MISMATCH, "tensor \"%.48s\" has shape %s, wanted %s", name, is,
                         wanted);
    }
    if (!convert(tensor, out)) {
        return error_set(err, STATUS_MISMATCH, "tensor \"%.96s\" is %s, wanted a floating type",
                         name, tensor_type_name(tensor->type));
    }
    const size_t bad = floats_first_not_finite(out, tensor->n_values);
    if (bad < tensor->n_values) {
        return error_set(err, STATUS_INVALID,
                         "tensor \"%.96s\": value %zu is a NaN or beyond float32", name, bad);
    }
    return STATUS_OK;
}

enum status safetensors_vectors(const struct safetensors *file, const char *name,
                                struct vectors *out, struct error *err)
{
    const struct tensor *tensor = NULL;
    const enum status status = find(file, name, &tensor, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (tensor->rank != 2 || (tensor->type != TENSOR_F32 && tensor->type != TENSOR_F16)) {
        return error_set(err, STATUS_MISMATCH,
                         "tensor \"%.96s\" is %s of rank %zu, wanted F32 or F16 of rank 2", name,
                         tensor_type_name(tensor->type), tensor->rank);
    }
    const struct vectors table = {.data = tensor->data,
                                  .n = (size_t)tensor->shape[0],
                                  .dim = (size_t)tensor->shape[1],
                                  .type = tensor->type == TENSOR_F16 ? VECTOR_F16 : VECTOR_F32};
    return vectors_view(name, &table, out, err);
}
