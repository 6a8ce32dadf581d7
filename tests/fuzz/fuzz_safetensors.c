/* Danger: a model or vector file from elsewhere whose header lies: lengths, shapes and offsets that
 *   overflow or lead out of the mapping, names given twice, deep or endless JSON.
 * Inputs: a whole safetensors file; corpus/safetensors holds small ones, good and damaged.
 * Code path: safetensors_open_bytes (header length, strict JSON, ranges), then every tensor is
 *   found by its name, read as float32 and, where it may be one, viewed as a vector table. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "embeddings/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads whatever is readable; every byte of the data is touched on the way. */
static void read_tensor(const struct safetensors *file, const struct tensor *tensor)
{
    if (safetensors_find(file, tensor->name) != tensor) {
        abort();
    }
    float *values = mem_alloc_array(tensor->n_values, sizeof(*values));
    if (values == NULL) {
        return;
    }
    const enum status status =
        safetensors_read_f32(file, tensor->name, tensor->shape, tensor->rank, values, NULL);
    struct vectors vectors;
    if (safetensors_vectors(file, tensor->name, &vectors, NULL) == STATUS_OK) {
        if (status != STATUS_OK || vectors.n * vectors.dim != tensor->n_values) {
            abort();
        }
        vectors_rows(&vectors, 0, vectors.n, values);
    }
    mem_free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors *file = NULL;
    struct error err;
    if (safetensors_open_bytes(data, size, &file, &err) != STATUS_OK) {
        if (file != NULL) {
            abort();
        }
        return 0;
    }
    for (size_t i = 0; i < safetensors_count(file); i++) {
        read_tensor(file, safetensors_at(file, i));
    }
    (void)safetensors_metadata(file, "aisle.settings");
    safetensors_close(file);
    return 0;
}
