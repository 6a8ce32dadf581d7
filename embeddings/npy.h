#ifndef AISLE_EMBEDDINGS_NPY_H
#define AISLE_EMBEDDINGS_NPY_H

#include "base/file.h"
#include "base/vectors.h"

/* Rank-2, C-order, little-endian float32 or float16 arrays in NumPy's .npy format (versions 1–3),
 * mapped. FORMAT for anything else, with the reason; INVALID for a NaN or an infinity. On failure
 * *out is zeroed, and npy_close on it is legal. */
struct npy {
    struct file_map map;
    struct vectors vectors; /* borrowed from map */
};
enum status npy_open(const char *path, struct npy *out, struct error *err) STATUS_CHECKED;
enum status npy_parse(const void *bytes, size_t n_bytes, struct vectors *out,
                      struct error *err) STATUS_CHECKED;
void npy_close(struct npy *npy);

#endif
