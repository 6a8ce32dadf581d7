/* Danger: a vector file from elsewhere whose header lies about its own length or the array's shape,
 *   so that rows would be read beyond the mapping.
 * Inputs: a whole .npy file; corpus/npy holds small ones, good and damaged.
 * Code path: npy_parse (version, header, dictionary, size, finiteness), then every row is read. */
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "embeddings/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vectors vectors;
    struct error err;
    if (npy_parse(data, size, &vectors, &err) != STATUS_OK) {
        return 0;
    }
    float *row = mem_alloc_array(vectors.dim, sizeof(*row));
    for (size_t i = 0; row != NULL && i < vectors.n; i++) {
        vectors_row(&vectors, i, row);
    }
    mem_free(row);
    return 0;
}
