#include "embeddings/layouts_internal.h"

#include <string.h>

/* What is known of the programs whose models come in. Tensor names and shapes are their file
 * formats; what the names do not say was read off published figures where weights with figures
 * exist (tests/unit/core/test_import_model.c holds them):
 *   - sasrec-pytorch has no padding mask. The sequence is padded on the left, and the padding, zero
 *     vectors at the input, passes through all blocks as any other position and takes part as keys
 *     and values. Queries are normalised, keys and values are not, and both residuals start at the
 *     normalised input. Position rows count from 1, row 0 belongs to the padding.
 *   - s3rec masks the padding; sequences end at the last position row. Row 0 of the items is
 *     padding, the last one the mask token of its pre-training.
 *   - RecBole pads on the right, so that positions count from the oldest event, and masks. */

#define SLOT(member) offsetof(struct layout_model, member)
#define BLOCK(member) SLOT(sasrec_weights.blocks[0].member)
#define LAYER(member) SLOT(gru4rec_weights.layers[0].member)

#define VECTOR(tensor, size, slot)                                                                 \
    {                                                                                              \
        .name = (tensor), .shape = {size}, .n_slots = 1, .slots = { slot }                         \
    }
#define MATRIX(tensor, rows, columns, slot)                                                        \
    {                                                                                              \
        .name = (tensor), .shape = {rows, columns}, .n_slots = 1, .slots = { slot }                \
    }
/* NOLINTBEGIN(bugprone-macro-parentheses) member names */
#define LINEAR(tensor, rows, columns, member)                                                      \
    MATRIX(tensor ".weight", rows, columns, BLOCK(member.weight)),                                 \
        VECTOR(tensor ".bias", rows, BLOCK(member.bias))
#define BLOCK_NORM(tensor, member)                                                                 \
    VECTOR(tensor ".weight", SIZE_DIM, BLOCK(member.weight)),                                      \
        VECTOR(tensor ".bias", SIZE_DIM, BLOCK(member.bias))
#define NORM(tensor, member)                                                                       \
    VECTOR(tensor ".weight", SIZE_DIM, SLOT(sasrec_weights.member.weight)),                        \
        VECTOR(tensor ".bias", SIZE_DIM, SLOT(sasrec_weights.member.bias))
/* NOLINTEND(bugprone-macro-parentheses) */
#define ITEMS(tensor)                                                                              \
    {                                                                                              \
        .name = (tensor), .shape = {SIZE_ITEMS, SIZE_DIM}, .n_skipped = 1, .n_slots = 1,           \
        .slots = {                                                                                 \
            SLOT(items)                                                                            \
        }                                                                                          \
    }
#define POSITIONS(tensor, n_padding)                                                               \
    {                                                                                              \
        .name = (tensor), .shape = {SIZE_POSITIONS, SIZE_DIM}, .n_skipped = (n_padding),           \
        .n_slots = 1, .slots = {                                                                   \
            SLOT(sasrec_weights.positions)                                                         \
        }                                                                                          \
    }

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- sasrec-pytorch ---- */

static const struct layout_tensor pytorch_tensors[] = {
    ITEMS("item_emb.weight"),
    POSITIONS("pos_emb.weight", 1),
    NORM("last_layernorm", final_norm),
};
static const struct layout_tensor pytorch_block[] = {
    BLOCK_NORM("attention_layernorms.#", attention_norm),
    {.name = "attention_layers.#.in_proj_weight",
     .shape = {SIZE_DIM_3, SIZE_DIM},
     .n_slots = 3,
     .slots = {BLOCK(query.weight), BLOCK(key.weight), BLOCK(value.weight)}},
    {.name = "attention_layers.#.in_proj_bias",
     .shape = {SIZE_DIM_3},
     .n_slots = 3,
     .slots = {BLOCK(query.bias), BLOCK(key.bias), BLOCK(value.bias)}},
    LINEAR("attention_layers.#.out_proj", SIZE_DIM, SIZE_DIM, output),
    BLOCK_NORM("forward_layernorms.#", ffn_norm),
    {.name = "forward_layers.#.conv1.weight",
     .shape = {SIZE_FFN, SIZE_DIM, SIZE_ONE},
     .n_slots = 1,
     .slots = {BLOCK(up.weight)}},
    VECTOR("forward_layers.#.conv1.bias", SIZE_FFN, BLOCK(up.bias)),
    {.name = "forward_layers.#.conv2.weight",
     .shape = {SIZE_DIM, SIZE_FFN, SIZE_ONE},
     .n_slots = 1,
     .slots = {BLOCK(down.weight)}},
    VECTOR("forward_layers.#.conv2.bias", SIZE_DIM, BLOCK(down.bias)),
};
static const struct layout_source pytorch_sources[] = {
    {SIZE_DIM, "item_emb.weight", 1},
    {SIZE_POSITIONS, "pos_emb.weight", 0},
    {SIZE_FFN, "forward_layers.0.conv1.weight", 0},
};

/* ---- s3rec ---- */

static const struct layout_tensor s3rec_tensors[] = {
    ITEMS("item_embeddings.weight"),
    POSITIONS("position_embeddings.weight", 0),
    NORM("LayerNorm", embedding_norm),
};
static const struct layout_tensor s3rec_block[] = {
    LINEAR("item_encoder.layer.#.attention.query", SIZE_DIM, SIZE_DIM, query),
    LINEAR("item_encoder.layer.#.attention.key", SIZE_DIM, SIZE_DIM, key),
    LINEAR("item_encoder.layer.#.attention.value", SIZE_DIM, SIZE_DIM, value),
    LINEAR("item_encoder.layer.#.attention.dense", SIZE_DIM, SIZE_DIM, output),
    BLOCK_NORM("item_encoder.layer.#.attention.LayerNorm", attention_norm),
    LINEAR("item_encoder.layer.#.intermediate.dense_1", SIZE_FFN, SIZE_DIM, up),
    LINEAR("item_encoder.layer.#.intermediate.dense_2", SIZE_DIM, SIZE_FFN, down),
    BLOCK_NORM("item_encoder.layer.#.intermediate.LayerNorm", ffn_norm),
};
static const struct layout_source s3rec_sources[] = {
    {SIZE_DIM, "item_embeddings.weight", 1},
    {SIZE_POSITIONS, "position_embeddings.weight", 0},
    {SIZE_FFN, "item_encoder.layer.0.intermediate.dense_1.weight", 0},
};

/* ---- RecBole ---- */

static const struct layout_tensor recbole_tensors[] = {
    ITEMS("item_embedding.weight"),
    POSITIONS("position_embedding.weight", 0),
    NORM("LayerNorm", embedding_norm),
};
static const struct layout_tensor recbole_block[] = {
    LINEAR("trm_encoder.layer.#.multi_head_attention.query", SIZE_DIM, SIZE_DIM, query),
    LINEAR("trm_encoder.layer.#.multi_head_attention.key", SIZE_DIM, SIZE_DIM, key),
    LINEAR("trm_encoder.layer.#.multi_head_attention.value", SIZE_DIM, SIZE_DIM, value),
    LINEAR("trm_encoder.layer.#.multi_head_attention.dense", SIZE_DIM, SIZE_DIM, output),
    BLOCK_NORM("trm_encoder.layer.#.multi_head_attention.LayerNorm", attention_norm),
    LINEAR("trm_encoder.layer.#.feed_forward.dense_1", SIZE_FFN, SIZE_DIM, up),
    LINEAR("trm_encoder.layer.#.feed_forward.dense_2", SIZE_DIM, SIZE_FFN, down),
    BLOCK_NORM("trm_encoder.layer.#.feed_forward.LayerNorm", ffn_norm),
};
static const struct layout_source recbole_sources[] = {
    {SIZE_DIM, "item_embedding.weight", 1},
    {SIZE_POSITIONS, "position_embedding.weight", 0},
    {SIZE_FFN, "trm_encoder.layer.0.feed_forward.dense_1.weight", 0},
};

static const struct layout_tensor gru_tensors[] = {
    ITEMS("item_embedding.weight"),
    MATRIX("dense.weight", SIZE_DIM, SIZE_HIDDEN, SLOT(gru4rec_weights.output_weight)),
    VECTOR("dense.bias", SIZE_DIM, SLOT(gru4rec_weights.output_bias)),
};
static const struct layout_tensor gru_layer[] = {
    MATRIX("gru_layers.weight_ih_l#", SIZE_HIDDEN_3, SIZE_INPUT, LAYER(input_weight)),
    MATRIX("gru_layers.weight_hh_l#", SIZE_HIDDEN_3, SIZE_HIDDEN, LAYER(hidden_weight)),
    {.name = "gru_layers.bias_ih_l#",
     .shape = {SIZE_HIDDEN_3},
     .is_optional = true,
     .n_slots = 1,
     .slots = {LAYER(input_bias)}},
    {.name = "gru_layers.bias_hh_l#",
     .shape = {SIZE_HIDDEN_3},
     .is_optional = true,
     .n_slots = 1,
     .slots = {LAYER(hidden_bias)}},
};
static const struct layout_source gru_sources[] = {
    {SIZE_DIM, "item_embedding.weight", 1},
    {SIZE_HIDDEN, "gru_layers.weight_hh_l0", 1},
};

#define SASREC_TABLES(prefix)                                                                      \
    .architecture = LAYOUT_SASREC, .tensors = prefix##_tensors,                                    \
    .n_tensors = COUNT(prefix##_tensors), .block_tensors = prefix##_block,                         \
    .n_block_tensors = COUNT(prefix##_block), .stride = sizeof(struct sasrec_block),               \
    .n_blocks_max = SASREC_BLOCKS_MAX, .sources = prefix##_sources,                                \
    .n_sources = COUNT(prefix##_sources)

static const struct layout layouts[] = {
    {.name = "aisle", .architecture = LAYOUT_NATIVE},
    {
        .name = "sasrec-pytorch",
        SASREC_TABLES(pytorch),
        .n_special_rows = 1,
        .n_padding_positions = 1,
        .scales_by_root = true,
        .is_padding_zero = true,
        .sasrec = {.n_heads = 1,
                   .activation = SASREC_RELU,
                   .norm_epsilon = 1e-8,
                   .residual_normed = true,
                   .positions_right = true,
                   .attend_padding = true,
                   .has_final_norm = true},
    },
    {
        .name = "s3rec",
        SASREC_TABLES(s3rec),
        .n_special_rows = 2,
        .sasrec = {.n_heads = 2,
                   .activation = SASREC_GELU,
                   .norm_epsilon = 1e-12,
                   .input_scale = 1.0,
                   .post_norm = true,
                   .positions_right = true,
                   .has_embedding_norm = true},
    },
    {
        .name = "recbole-sasrec",
        SASREC_TABLES(recbole),
        .n_special_rows = 1,
        .sasrec = {.n_heads = 2,
                   .activation = SASREC_GELU,
                   .norm_epsilon = 1e-12,
                   .input_scale = 1.0,
                   .post_norm = true,
                   .has_embedding_norm = true},
    },
    {
        .name = "recbole-gru4rec",
        .architecture = LAYOUT_GRU4REC,
        .tensors = gru_tensors,
        .n_tensors = COUNT(gru_tensors),
        .block_tensors = gru_layer,
        .n_block_tensors = COUNT(gru_layer),
        .stride = sizeof(struct gru4rec_layer),
        .n_blocks_max = GRU4REC_LAYERS_MAX,
        .sources = gru_sources,
        .n_sources = COUNT(gru_sources),
        .n_special_rows = 1,
        .gru4rec = {.history_max = 50, .input_scale = 1.0, .has_output = true},
    },
};

const struct layout *layout_find(const char *name)
{
    for (size_t i = 0; i < COUNT(layouts); i++) {
        if (strcmp(layouts[i].name, name) == 0) {
            return &layouts[i];
        }
    }
    return NULL;
}
