#ifndef AISLE_EMBEDDINGS_LAYOUTS_H
#define AISLE_EMBEDDINGS_LAYOUTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "base/vectors.h"
#include "embeddings/gru4rec.h"
#include "embeddings/safetensors.h"
#include "embeddings/sasrec.h"

/* Models trained elsewhere: from the tensor names and shapes of a known program to this project's
 * user models. A layout fixes what the weights alone do not say (where the norms are, from which
 * end positions count, what padding does); sizes are read from the shapes.
 *   aisle           this project's own file (what *_model_write makes) and the item vectors
 *   sasrec-pytorch  the widespread PyTorch version of SASRec
 *   s3rec           S3-Rec's encoder, which ICLRec, CoSeRec, DuoRec and others took over
 *   recbole-sasrec  RecBole's SASRec
 *   recbole-gru4rec RecBole's GRU4Rec
 * If all tensors of a file begin with "model." or "module.", that is passed over. */
struct layout_config {
    const char *layout;
    size_t n_items;         /* real items; the table must have as many rows beside the padding */
    size_t n_heads;         /* of attention; 0: the layout's default */
    const char *activation; /* "relu" or "gelu"; NULL: the layout's default */
    size_t history_max;     /* recbole-gru4rec only, its weights do not say; 0: 50 */
    const struct vectors *vectors; /* aisle only: item vectors kept elsewhere; borrowed, or NULL */
};

enum layout_architecture { LAYOUT_NATIVE, LAYOUT_SASREC, LAYOUT_GRU4REC };
enum { LAYOUT_NOTES_BYTES = 512 };

struct layout_model {
    enum layout_architecture architecture;
    struct vectors vectors; /* [N × D]; borrowed from values, the file or the configuration */
    struct sasrec_settings sasrec;
    struct sasrec_weights sasrec_weights;
    struct gru4rec_settings gru4rec;
    struct gru4rec_weights gru4rec_weights;
    const float *items; /* of the other layouts: first real row of the item table */
    size_t n_unused;    /* tensors of the file that the layout has no place for */
    /* For people: which these are, and what of the weights cannot be followed exactly; "" if
     * nothing. */
    char notes[LAYOUT_NOTES_BYTES];
    float *values; /* all weights; internal */
    const struct safetensors *file;
    size_t prefix_bytes;
};

/* "aisle, sasrec-pytorch, …" for messages and help. */
#define LAYOUT_NAMES "aisle, sasrec-pytorch, s3rec, recbole-sasrec, recbole-gru4rec"

/* Fills *out, which borrows file; on failure it is zeroed. INVALID: unknown layout, an option that
 * does not fit (its flag in err's field: "--layout", "--heads", "--activation", "--history-max"), a
 * NaN or an infinity (tensor and index); NOT_FOUND: a tensor is missing; MISMATCH: a shape (both
 * named) or the number of items (both named); UNSUPPORTED: more blocks or layers than models have
 * here; NOMEM. */
enum status layout_read(const struct safetensors *file, const struct layout_config *config,
                        struct layout_model *out, struct error *err) STATUS_CHECKED;
/* A zeroed struct is legal. */
void layout_model_free(struct layout_model *model);

/* Writes the user model's file (model.safetensors), atomically: as sasrec_model_write or
 * gru4rec_model_write; of layout aisle everything but the item vectors, as it stands. */
enum status layout_model_write(const char *path, const struct layout_model *model,
                               struct error *err) STATUS_CHECKED;

#endif
