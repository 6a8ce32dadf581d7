#ifndef AISLE_EMBEDDINGS_SAFETENSORS_H
#define AISLE_EMBEDDINGS_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/vectors.h"

/* safetensors files: tensors by name, read from a mapping of the file.
 * Format (the safetensors project's own description):
 *   1. 8 bytes, little-endian unsigned: length N of the header, here at most 100,000,000;
 *   2. N bytes of JSON: {"name": {"dtype", "shape", "data_offsets": [begin, end]}, …,
 *      "__metadata__": {"key": "text", …}}; begins with '{', may be padded with blanks;
 *   3. the data; offsets count from its first byte, do not overlap and leave no hole.
 * Hostile files are refused with a reason: header length against file size, JSON depth and size,
 * duplicate names, unknown dtypes, shape × dtype against the byte range (with overflow checks),
 * overlaps, holes, ranges outside the file, more than SAFETENSORS_TENSORS_MAX tensors. */
enum { SAFETENSORS_RANK_MAX = 8, SAFETENSORS_TENSORS_MAX = 65536 };

enum tensor_type {
    TENSOR_F32,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_I32,
    TENSOR_I64,
    TENSOR_U8,
    TENSOR_F64
};

struct tensor {
    const char *name; /* borrowed from the file */
    enum tensor_type type;
    size_t rank;
    uint64_t shape[SAFETENSORS_RANK_MAX];
    const void *data; /* borrowed from the mapping; may be unaligned for its type */
    size_t n_bytes;
    size_t n_values;
};

struct safetensors;

/* Maps and checks path. Errors: NOT_FOUND, IO, FORMAT (reason and tensor in the message), NOMEM.
 * The handle is read-only and thread-safe. */
enum status safetensors_open(const char *path, struct safetensors **out,
                             struct error *err) STATUS_CHECKED;
/* The same over bytes in memory (borrowed while open); what the fuzzer calls. */
enum status safetensors_open_bytes(const void *bytes, size_t n_bytes, struct safetensors **out,
                                   struct error *err) STATUS_CHECKED;
void safetensors_close(struct safetensors *file);

/* Tensors in the order of their data. */
size_t safetensors_count(const struct safetensors *file);
const struct tensor *safetensors_at(const struct safetensors *file, size_t i);
const struct tensor *safetensors_find(const struct safetensors *file,
                                      const char *name); /* or NULL */
/* Text of a metadata key or NULL. */
const char *safetensors_metadata(const struct safetensors *file, const char *key);

/* Copies a floating tensor of exactly this shape, converted to float32, to out[product of shape];
 * refuses NaN and infinities. NOT_FOUND, MISMATCH (wrong type or shape, both named), INVALID. */
enum status safetensors_read_f32(const struct safetensors *file, const char *name,
                                 const uint64_t *shape, size_t rank, float *out,
                                 struct error *err) STATUS_CHECKED;
/* View of a rank-2 F32 or F16 tensor as a vector table, without copying. Valid while the file is
 * open. NOT_FOUND, MISMATCH (type or rank), FORMAT (dimension outside VECTOR_DIM_MIN … MAX, values
 * not aligned), INVALID (a NaN or an infinity, with its row); *out is unchanged on failure. */
enum status safetensors_vectors(const struct safetensors *file, const char *name,
                                struct vectors *out, struct error *err) STATUS_CHECKED;

struct tensor_to_write {
    const char *name;
    enum tensor_type type;
    size_t rank;
    uint64_t shape[SAFETENSORS_RANK_MAX];
    const void *data; /* borrowed; already in `type` */
};
struct metadata_entry {
    const char *key;
    const char *text;
};
/* Writes a file atomically (base/file.h): a failure leaves what was there. Data are aligned to 64
 * bytes by padding the header with blanks; tensors in the given order, each padded nowhere (order
 * big tensors of 4-byte types first). Same input → same bytes. INVALID: a name twice, rank or shape
 * out of range; PERMISSION, IO, NOMEM. A file that could not be finished is removed. */
enum status safetensors_write(const char *path, const struct tensor_to_write *tensors,
                              size_t n_tensors, const struct metadata_entry *metadata,
                              size_t n_metadata, struct error *err) STATUS_CHECKED;

#endif
