#ifndef AISLE_EMBEDDINGS_LAYOUTS_INTERNAL_H
#define AISLE_EMBEDDINGS_LAYOUTS_INTERNAL_H

#include "embeddings/layouts.h"

/* What layout_tables.c knows of the programs and layouts.c follows. */

/* A length that shapes are made of. Read from the file's shapes but for the first and the items. */
enum layout_size {
    SIZE_NONE, /* ends a shape */
    SIZE_ONE,
    SIZE_ITEMS, /* rows of the item table, with padding */
    SIZE_DIM,   /* d */
    SIZE_DIM_3, /* 3d */
    SIZE_FFN,
    SIZE_POSITIONS, /* rows of the position table, with padding */
    SIZE_HIDDEN,    /* h */
    SIZE_HIDDEN_3,  /* 3h */
    SIZE_INPUT,     /* of a recurrent layer: d for the first, else h */
    N_LAYOUT_SIZES,
};
enum { LAYOUT_RANK_MAX = 3, LAYOUT_SLOTS_MAX = 3 };

/* One tensor and where in struct layout_model pointers to its parts go: it is cut along its first
 * axis into n_slots equal parts, after n_skipped rows. '#' in a name is the number of the block or
 * layer, whose slots are `stride` of the layout further each. */
struct layout_tensor {
    const char *name;
    unsigned char shape[LAYOUT_RANK_MAX + 1]; /* of enum layout_size */
    unsigned char n_skipped;
    unsigned char n_slots;
    bool is_optional; /* zeros if it is not there */
    size_t slots[LAYOUT_SLOTS_MAX];
};

/* Length `size` is that of axis `axis` of tensor `name`. */
struct layout_source {
    enum layout_size size;
    const char *name;
    unsigned axis;
};

struct layout {
    const char *name;
    enum layout_architecture architecture;
    const struct layout_tensor *tensors; /* the first is the item table */
    size_t n_tensors;
    const struct layout_tensor *block_tensors;
    size_t n_block_tensors;
    size_t stride;
    size_t n_blocks_max;
    const struct layout_source *sources;
    size_t n_sources;
    size_t n_special_rows;         /* rows of the item table that are no items: padding, mask */
    size_t n_padding_positions;    /* first rows of the position table */
    bool scales_by_root;           /* input_scale is √d */
    bool is_padding_zero;          /* the skipped first rows are inputs: they should be zero */
    struct sasrec_settings sasrec; /* what the layout fixes; sizes are filled in */
    struct gru4rec_settings gru4rec;
};

/* By name, or NULL. */
const struct layout *layout_find(const char *name);

#endif
