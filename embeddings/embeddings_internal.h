#ifndef AISLE_EMBEDDINGS_EMBEDDINGS_INTERNAL_H
#define AISLE_EMBEDDINGS_EMBEDDINGS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/vectors.h"
#include "embeddings/safetensors.h"

/* Shared by the files of this folder only. */

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor files are little-endian and read without swapping"
#endif

enum {
    N_TENSOR_TYPES = TENSOR_F64 + 1,
    SAFETENSORS_HEADER_BYTES_MAX = 100000000, /* the format's own ceiling */
    SAFETENSORS_LENGTH_BYTES = 8,
    SAFETENSORS_METADATA_MAX = 65536, /* entries */
};
#define SAFETENSORS_METADATA_NAME "__metadata__"

/* Name as it stands in a header ("F32") and bytes of one value. */
const char *tensor_type_name(enum tensor_type type);
size_t tensor_type_bytes(enum tensor_type type);
bool tensor_type_parse(const char *name, enum tensor_type *out);
/* Product of a shape (1 for rank 0) and its bytes in type; false when either overflows. */
bool tensor_size(const uint64_t *shape, size_t rank, enum tensor_type type, size_t *n_values,
                 size_t *n_bytes);

/* *table, as it lies in a file and whose size is known to be there, to *out after checking what
 * every reader of one needs: dimension in VECTOR_DIM_MIN … MAX and alignment (FORMAT), no NaN or
 * infinity (INVALID, naming the row). what names the table in messages. */
enum status vectors_view(const char *what, const struct vectors *table, struct vectors *out,
                         struct error *err) STATUS_CHECKED;

#endif
