#include "embeddings/embeddings_internal.h"

#include <assert.h>
#include <string.h>

static const struct {
    const char *name;
    size_t n_bytes;
} types[N_TENSOR_TYPES] = {
    [TENSOR_F32] = {"F32", 4}, [TENSOR_F16] = {"F16", 2}, [TENSOR_BF16] = {"BF16", 2},
    [TENSOR_I32] = {"I32", 4}, [TENSOR_I64] = {"I64", 8}, [TENSOR_U8] = {"U8", 1},
    [TENSOR_F64] = {"F64", 8},
};

const char *tensor_type_name(enum tensor_type type)
{
    assert((unsigned)type < N_TENSOR_TYPES);
    return types[type].name;
}

size_t tensor_type_bytes(enum tensor_type type)
{
    assert((unsigned)type < N_TENSOR_TYPES);
    return types[type].n_bytes;
}

bool tensor_type_parse(const char *name, enum tensor_type *out)
{
    for (unsigned i = 0; i < N_TENSOR_TYPES; i++) {
        if (strcmp(types[i].name, name) == 0) {
            *out = (enum tensor_type)i;
            return true;
        }
    }
    return false;
}

bool tensor_size(const uint64_t *shape, size_t rank, enum tensor_type type, size_t *n_values,
                 size_t *n_bytes)
{
    size_t product = 1;
    for (size_t i = 0; i < rank; i++) {
        if (__builtin_mul_overflow(product, shape[i], &product)) {
            return false;
        }
    }
    *n_values = product;
    return !__builtin_mul_overflow(product, tensor_type_bytes(type), n_bytes);
}

/* Halves with all exponent bits set are infinities and NaNs. */
static size_t halves_first_not_finite(const uint16_t *halves, size_t n)
{
    const unsigned exponent = 0x7c00;
    for (size_t i = 0; i < n; i++) {
        if ((halves[i] & exponent) == exponent) {
            return i;
        }
    }
    return n;
}

enum status vectors_view(const char *what, const struct vectors *table, struct vectors *out,
                         struct error *err)
{
    const bool is_half = table->type == VECTOR_F16;
    if (table->dim < VECTOR_DIM_MIN || table->dim > VECTOR_DIM_MAX) {
        return error_set(err, STATUS_FORMAT, "%.96s: dimension %zu, must be within %d and %d", what,
                         table->dim, VECTOR_DIM_MIN, VECTOR_DIM_MAX);
    }
    const size_t value_bytes = is_half ? sizeof(uint16_t) : sizeof(float);
    if ((uintptr_t)table->data % value_bytes != 0) {
        return error_set(err, STATUS_FORMAT, "%.96s: values are not aligned to %zu bytes", what,
                         value_bytes);
    }
    const size_t n_values = table->n * table->dim;
    const size_t bad = is_half ? halves_first_not_finite(table->data, n_values)
                               : floats_first_not_finite(table->data, n_values);
    if (bad < n_values) {
        return error_set(err, STATUS_INVALID, "%.96s: row %zu holds a NaN or an infinity", what,
                         bad / table->dim);
    }
    *out = *table;
    return STATUS_OK;
}
