#include "index/index_internal.h"

#include <string.h>

/* Walks through the files of FAISS' write_index (versions 1.7.3 to 1.10; little endian, unpadded).
 *
 * FAISS reads a length and allocates it before it knows whether the file has as much, trusts the
 * lengths of one part to fit the next, leaks what it has read when it throws, and knows kinds that
 * run code we never test. So the whole structure is walked here first; data between lengths is
 * skipped, hence only a few pages of a mapped file are touched. Values inside (neighbours, ids) are
 * not looked at: the caller has verified the file's checksum. Rejected: checking only the first
 * bytes, which leaves all lengths behind them to trust.
 *
 * An index:
 *   0  u32  kind: four characters (below)
 *   4  i32  d, components a vector
 *   8  i64  ntotal, vectors
 *  16  i64  unused (1 << 20), twice
 *  32  u8   is_trained
 *  33  i32  metric: 0 is inner product; above 1 an f32 argument follows
 *  37  …    by kind:
 * "IxFI" flat           array of f32 [ntotal × d]
 * "IxSQ" scalar codes   scalar quantizer, array of u8 [ntotal × code_size]
 * "IHNf" HNSW           array of f64 (level probabilities), i32 (neighbours up to each level, from
 * "IHNs"                0), i32 (level of each vector), u64 (where its neighbours begin, and one
 *                       more), i32 (neighbours); i32 entry point, max level, efConstruction,
 *                       efSearch, upper_beam; then the index of the vectors: flat or scalar codes
 * "IwFl" IVF            u64 nlist, u64 nprobe; the index of the centroids: flat or HNSW over flat;
 * "IwSq"                u8 kind of direct map (0), array of i64 (empty); then
 * "IwPQ"                  IwSq: scalar quantizer, u64 code_size, u8 by_residual
 * "IwPf"                  IwPQ: u8 by_residual, u64 code_size, product quantizer
 *                         IwPf: u8 by_residual, u64 code_size, i32 bbs, u64 M2, i32 implem,
 *                               u64 qbs2, product quantizer
 *                       then inverted lists
 * "IxRF" refinement     the index of the codes (IVF), the index of the vectors (flat), f32 k_factor
 * Array: u64 count, then the elements. (A flat index counts f32, though it holds bytes.)
 * Scalar quantizer: i32 type, i32 range statistic, f32 its argument, u64 d, u64 code_size, array of
 * f32. Product quantizer: u64 d, u64 M, u64 bits, array of f32 [d × 2^bits].
 * Inverted lists "ilar": u64 nlist, u64 code_size, "full" and array of u64 (sizes) or "sprs" and
 * array of u64 (list, size, list, size, …); then each list's codes and i64 ids.
 * Inverted lists "ilbl": u64 nlist, u64 code_size, u64 vectors a block, u64 bytes a block; for each
 * list an array of i64 (ids) and one of u8 (codes, whole blocks). */

enum { FAISS_METRIC_INNER_PRODUCT = 0, HNSW_LEVELS_MAX = 64 };

#define FOURCC(a, b, c, d)                                                                         \
    ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
#define KIND_FLAT FOURCC('I', 'x', 'F', 'I')
#define KIND_SCALAR FOURCC('I', 'x', 'S', 'Q')
#define KIND_HNSW_FLAT FOURCC('I', 'H', 'N', 'f')
#define KIND_HNSW_SCALAR FOURCC('I', 'H', 'N', 's')
#define KIND_IVF_FLAT FOURCC('I', 'w', 'F', 'l')
#define KIND_IVF_SCALAR FOURCC('I', 'w', 'S', 'q')
#define KIND_IVF_PQ FOURCC('I', 'w', 'P', 'Q')
#define KIND_IVF_PQ_FAST FOURCC('I', 'w', 'P', 'f')
#define KIND_REFINE FOURCC('I', 'x', 'R', 'F')
#define LISTS_ARRAY FOURCC('i', 'l', 'a', 'r')
#define LISTS_BLOCK FOURCC('i', 'l', 'b', 'l')
#define SIZES_FULL FOURCC('f', 'u', 'l', 'l')
#define SIZES_SPARSE FOURCC('s', 'p', 'r', 's')

/* The rest of the file. A read past its end gives 0 and sets `failed`, which is looked at after
 * each part; no count read is used before. */
struct cursor {
    const uint8_t *at;
    size_t left;
    bool failed;
    struct error *err;
};

struct header {
    uint32_t kind;
    size_t dim;
    size_t n;
};

static enum status damaged(const struct cursor *cursor, const char *what)
{
    return error_set(cursor->err, STATUS_FORMAT, "index file is damaged: %s%s", what,
                     cursor->failed ? " (cut short)" : "");
}

static bool skip(struct cursor *cursor, uint64_t n, uint64_t size)
{
    uint64_t n_bytes = 0;
    if (cursor->failed || __builtin_mul_overflow(n, size, &n_bytes) || n_bytes > cursor->left) {
        cursor->failed = true;
        return false;
    }
    cursor->at += n_bytes;
    cursor->left -= (size_t)n_bytes;
    return true;
}

static uint64_t read_bytes(struct cursor *cursor, size_t n)
{
    const uint8_t *at = cursor->at;
    uint64_t value = 0;
    if (!skip(cursor, n, 1)) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

static uint32_t read_u32(struct cursor *cursor)
{
    return (uint32_t)read_bytes(cursor, 4);
}

static uint64_t read_u64(struct cursor *cursor)
{
    return read_bytes(cursor, 8);
}

static uint64_t peek_u64(const uint8_t *at)
{
    uint64_t value = 0;
    for (size_t i = 0; i < 8; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

/* An array that must hold exactly n elements. */
static bool skip_array(struct cursor *cursor, uint64_t n, uint64_t size)
{
    uint64_t count = read_u64(cursor);
    return !cursor->failed && count == n && skip(cursor, n, size);
}

/* An array of at most max elements; *at is its first byte. */
static bool read_array(struct cursor *cursor, uint64_t max, uint64_t size, const uint8_t **at,
                       uint64_t *n)
{
    *n = read_u64(cursor);
    *at = cursor->at;
    return !cursor->failed && *n <= max && skip(cursor, *n, size);
}

static enum status unsupported_kind(const struct cursor *cursor, uint32_t kind)
{
    char name[5];
    for (size_t i = 0; i < 4; i++) {
        unsigned char c = (unsigned char)(kind >> (8 * i));
        name[i] = (char)(c >= 0x20 && c < 0x7f ? c : '?');
    }
    name[4] = '\0';
    return error_set(cursor->err, STATUS_UNSUPPORTED, "index file of kind \"%s\" (0x%08x)", name,
                     (unsigned)kind);
}

static enum status read_header(struct cursor *cursor, struct header *out)
{
    out->kind = read_u32(cursor);
    uint32_t dim = read_u32(cursor);
    uint64_t n = read_u64(cursor);
    (void)skip(cursor, 2, sizeof(int64_t));
    uint64_t is_trained = read_bytes(cursor, 1);
    uint32_t metric = read_u32(cursor);
    if (cursor->failed) {
        return damaged(cursor, "header");
    }
    if (metric != FAISS_METRIC_INNER_PRODUCT) {
        return error_set(
            cursor->err, STATUS_UNSUPPORTED,
            "index file of kind 0x%08x has metric %u; only inner product (0) is served",
            (unsigned)out->kind, (unsigned)metric);
    }
    if (dim < VECTOR_DIM_MIN || dim > VECTOR_DIM_MAX || n > UINT32_MAX || is_trained != 1) {
        return damaged(cursor, "header");
    }
    out->dim = dim;
    out->n = (size_t)n;
    return STATUS_OK;
}

/* The header of an index inside another. */
static enum status read_inner_header(struct cursor *cursor, size_t n, size_t dim, uint32_t *kind)
{
    struct header header = {0};
    enum status status = read_header(cursor, &header);
    if (status == STATUS_OK && (header.n != n || header.dim != dim)) {
        return damaged(cursor, "its parts differ in size");
    }
    *kind = header.kind;
    return status;
}

static enum status walk_scalar_quantizer(struct cursor *cursor, size_t dim, enum index_codes *codes,
                                         uint64_t *code_size)
{
    static const struct {
        uint32_t type; /* FAISS' ScalarQuantizer::QuantizerType */
        enum index_codes codes;
        uint64_t bits;
    } known[] = {{0, INDEX_CODES_SQ8, 8},
                 {1, INDEX_CODES_SQ4, 4},
                 {4, INDEX_CODES_SQFP16, 16},
                 {6, INDEX_CODES_SQ6, 6}};
    uint32_t type = read_u32(cursor);
    (void)skip(cursor, 2, 4);
    uint64_t d = read_u64(cursor);
    *code_size = read_u64(cursor);
    const uint8_t *trained = NULL;
    uint64_t n_trained = 0;
    if (!read_array(cursor, 2 * (uint64_t)dim, sizeof(float), &trained, &n_trained) || d != dim) {
        return damaged(cursor, "scalar quantizer");
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint64_t n_wanted = known[i].codes == INDEX_CODES_SQFP16 ? 0 : 2 * (uint64_t)dim;
        if (known[i].type == type) {
            *codes = known[i].codes;
            return *code_size == (dim * known[i].bits + 7) / 8 && n_trained == n_wanted
                       ? STATUS_OK
                       : damaged(cursor, "scalar quantizer");
        }
    }
    return error_set(cursor->err, STATUS_UNSUPPORTED, "scalar quantizer of type %u",
                     (unsigned)type);
}

static enum status walk_product_quantizer(struct cursor *cursor, size_t dim,
                                          struct index_kind *kind)
{
    uint64_t d = read_u64(cursor);
    uint64_t parts = read_u64(cursor);
    uint64_t bits = read_u64(cursor);
    if (cursor->failed || d != dim || parts < 1 || parts > INDEX_PQ_PARTS_MAX || dim % parts != 0 ||
        bits < 1 || bits > INDEX_PQ_BITS_MAX ||
        !skip_array(cursor, dim * (uint64_t)(1U << bits), sizeof(float))) {
        return damaged(cursor, "product quantizer");
    }
    kind->pq_parts = (size_t)parts;
    kind->pq_bits = (size_t)bits;
    return STATUS_OK;
}

static enum status walk_vectors(struct cursor *cursor, size_t n, size_t dim,
                                enum index_codes *codes)
{
    uint32_t kind = 0;
    enum status status = read_inner_header(cursor, n, dim, &kind);
    if (status != STATUS_OK) {
        return status;
    }
    uint64_t code_size = 0;
    if (kind == KIND_FLAT) {
        *codes = INDEX_CODES_FLAT;
        return skip_array(cursor, (uint64_t)n * dim, sizeof(float)) ? STATUS_OK
                                                                    : damaged(cursor, "vectors");
    }
    if (kind != KIND_SCALAR) {
        return unsupported_kind(cursor, kind);
    }
    status = walk_scalar_quantizer(cursor, dim, codes, &code_size);
    if (status != STATUS_OK) {
        return status;
    }
    return skip_array(cursor, (uint64_t)n * code_size, 1) ? STATUS_OK : damaged(cursor, "codes");
}

/* What follows the header of an HNSW index; *links is M. */
static enum status walk_hnsw(struct cursor *cursor, size_t n, size_t dim, size_t *links,
                             enum index_codes *codes)
{
    const uint8_t *at = NULL;
    uint64_t n_probabilities = 0;
    uint64_t n_levels = 0;
    if (!read_array(cursor, HNSW_LEVELS_MAX, 8, &at, &n_probabilities) ||
        !read_array(cursor, HNSW_LEVELS_MAX, 4, &at, &n_levels) || n_levels < 2) {
        return damaged(cursor, "levels of the graph");
    }
    uint64_t at_level_0 = peek_u64(at) >> 32; /* element 1: neighbours at level 0, which is 2 M */
    *links = (size_t)(at_level_0 / 2);
    if (*links < INDEX_LINKS_MIN || *links > INDEX_LINKS_MAX || at_level_0 % 2 != 0) {
        return damaged(cursor, "links of the graph");
    }
    uint64_t n_offsets = 0;
    if (!skip_array(cursor, n, 4) || !read_array(cursor, (uint64_t)n + 1, 8, &at, &n_offsets) ||
        n_offsets != (uint64_t)n + 1 || peek_u64(at) != 0 ||
        !skip_array(cursor, peek_u64(at + 8 * n), 4) || !skip(cursor, 5, 4)) {
        return damaged(cursor, "neighbours of the graph");
    }
    return walk_vectors(cursor, n, dim, codes);
}

/* The centroids: flat, or an HNSW graph over flat vectors. */
static enum status walk_centroids(struct cursor *cursor, size_t n, size_t dim, size_t *links)
{
    struct cursor start = *cursor;
    uint32_t kind = 0;
    enum index_codes codes = INDEX_CODES_FLAT;
    enum status status = read_inner_header(cursor, n, dim, &kind);
    if (status != STATUS_OK) {
        return status;
    }
    if (kind == KIND_HNSW_FLAT) {
        status = walk_hnsw(cursor, n, dim, links, &codes);
    } else {
        *links = 0;
        *cursor = start;
        status = walk_vectors(cursor, n, dim, &codes);
    }
    if (status == STATUS_OK && codes != INDEX_CODES_FLAT) {
        return error_set(cursor->err, STATUS_UNSUPPORTED, "centroids that are not flat vectors");
    }
    return status;
}

static enum status walk_array_lists(struct cursor *cursor, size_t n, uint64_t n_lists,
                                    uint64_t code_size)
{
    uint32_t form = read_u32(cursor);
    const uint8_t *sizes = NULL;
    uint64_t count = 0;
    uint64_t total = 0;
    bool good = read_array(cursor, 2 * n_lists, 8, &sizes, &count);
    if (good && form == SIZES_FULL) {
        good = count == n_lists;
        for (uint64_t i = 0; good && i < count; i++) {
            uint64_t size = peek_u64(sizes + 8 * i);
            good = size <= n - total;
            total += good ? size : 0;
        }
    } else if (good && form == SIZES_SPARSE) {
        uint64_t next = 0; /* lists stand in order, each at most once */
        good = count % 2 == 0;
        for (uint64_t i = 0; good && i < count; i += 2) {
            uint64_t list = peek_u64(sizes + 8 * i);
            uint64_t size = peek_u64(sizes + 8 * (i + 1));
            good = list >= next && list < n_lists && size <= n - total;
            next = list + 1;
            total += good ? size : 0;
        }
    } else {
        good = false;
    }
    if (!good || total != n || !skip(cursor, n, code_size + sizeof(int64_t))) {
        return damaged(cursor, "inverted lists");
    }
    return STATUS_OK;
}

static enum status walk_block_lists(struct cursor *cursor, size_t n, uint64_t n_lists)
{
    uint64_t per_block = read_u64(cursor);
    uint64_t block_bytes = read_u64(cursor);
    uint64_t total = 0;
    if (cursor->failed || per_block < 1 || per_block > UINT32_MAX || block_bytes > UINT32_MAX) {
        return damaged(cursor, "inverted lists");
    }
    for (uint64_t i = 0; i < n_lists; i++) {
        const uint8_t *at = NULL;
        uint64_t n_ids = 0;
        if (!read_array(cursor, n - total, 8, &at, &n_ids) ||
            !skip_array(cursor, (n_ids + per_block - 1) / per_block * block_bytes, 1)) {
            return damaged(cursor, "inverted lists");
        }
        total += n_ids;
    }
    return total == n ? STATUS_OK : damaged(cursor, "inverted lists");
}

static enum status walk_lists(struct cursor *cursor, const struct header *header,
                              const struct index_kind *kind, uint64_t code_size)
{
    uint32_t form = read_u32(cursor);
    uint64_t n_lists = read_u64(cursor);
    uint64_t list_code_size = read_u64(cursor);
    uint32_t wanted = kind->codes == INDEX_CODES_PQ_FAST ? LISTS_BLOCK : LISTS_ARRAY;
    if (cursor->failed || form != wanted || n_lists != kind->n_lists) {
        return damaged(cursor, "inverted lists");
    }
    if (form == LISTS_BLOCK) { /* its blocks have a size of their own */
        return walk_block_lists(cursor, header->n, n_lists);
    }
    if (list_code_size != code_size) {
        return damaged(cursor, "inverted lists");
    }
    return walk_array_lists(cursor, header->n, n_lists, code_size);
}

/* How an IVF index codes its vectors, which stands before the lists. */
static enum status walk_ivf_codes(struct cursor *cursor, const struct header *header,
                                  struct index_kind *kind, uint64_t *code_size)
{
    if (header->kind == KIND_IVF_FLAT) {
        kind->codes = INDEX_CODES_FLAT;
        *code_size = header->dim * sizeof(float);
        return STATUS_OK;
    }
    if (header->kind == KIND_IVF_SCALAR) {
        enum status status = walk_scalar_quantizer(cursor, header->dim, &kind->codes, code_size);
        if (status != STATUS_OK) {
            return status;
        }
        uint64_t again = read_u64(cursor);
        (void)skip(cursor, 1, 1);
        return !cursor->failed && again == *code_size ? STATUS_OK : damaged(cursor, "code size");
    }
    bool fast = header->kind == KIND_IVF_PQ_FAST;
    kind->codes = fast ? INDEX_CODES_PQ_FAST : INDEX_CODES_PQ;
    kind->by_residual = read_bytes(cursor, 1) != 0 && fast;
    *code_size = read_u64(cursor);
    if (fast) {
        (void)skip(cursor, 1, 4 + 8 + 4 + 8);
    }
    enum status status = walk_product_quantizer(cursor, header->dim, kind);
    if (status != STATUS_OK) {
        return status;
    }
    bool good =
        *code_size == (kind->pq_parts * kind->pq_bits + 7) / 8 && (!fast || kind->pq_bits == 4);
    return good ? STATUS_OK : damaged(cursor, "code size");
}

static enum status walk_ivf(struct cursor *cursor, const struct header *header,
                            struct index_kind *kind)
{
    kind->family = INDEX_IVF;
    uint64_t n_lists = read_u64(cursor);
    uint64_t n_probes = read_u64(cursor);
    if (cursor->failed || n_lists < INDEX_LISTS_MIN || n_lists > INDEX_LISTS_MAX ||
        n_probes < INDEX_PROBES_MIN || n_probes > INDEX_PROBES_MAX) {
        return damaged(cursor, "inverted lists");
    }
    kind->n_lists = (size_t)n_lists;
    enum status status = walk_centroids(cursor, kind->n_lists, header->dim, &kind->links);
    if (status != STATUS_OK) {
        return status;
    }
    uint64_t direct_map = read_bytes(cursor, 1);
    if (!skip_array(cursor, 0, 8) || direct_map != 0) {
        return damaged(cursor, "direct map");
    }
    uint64_t code_size = 0;
    status = walk_ivf_codes(cursor, header, kind, &code_size);
    if (status != STATUS_OK) {
        return status;
    }
    return walk_lists(cursor, header, kind, code_size);
}

static bool is_ivf(uint32_t kind)
{
    return kind == KIND_IVF_FLAT || kind == KIND_IVF_SCALAR || kind == KIND_IVF_PQ ||
           kind == KIND_IVF_PQ_FAST;
}

static enum status walk_refine(struct cursor *cursor, const struct header *header,
                               struct index_kind *kind)
{
    struct header base = *header;
    enum index_codes codes = INDEX_CODES_FLAT;
    enum status status = read_inner_header(cursor, header->n, header->dim, &base.kind);
    if (status != STATUS_OK) {
        return status;
    }
    if (!is_ivf(base.kind)) {
        return unsupported_kind(cursor, base.kind);
    }
    status = walk_ivf(cursor, &base, kind);
    if (status != STATUS_OK) {
        return status;
    }
    kind->refine = true;
    status = walk_vectors(cursor, header->n, header->dim, &codes);
    if (status == STATUS_OK && codes != INDEX_CODES_FLAT) {
        return error_set(cursor->err, STATUS_UNSUPPORTED, "refinement by other than flat vectors");
    }
    if (status == STATUS_OK && !skip(cursor, 1, sizeof(float))) {
        return damaged(cursor, "refinement");
    }
    return status;
}

static enum status walk_flat(struct cursor *cursor, const struct header *header)
{
    return skip_array(cursor, (uint64_t)header->n * header->dim, sizeof(float))
               ? STATUS_OK
               : damaged(cursor, "vectors");
}

enum status index_file_check(const uint8_t *bytes, size_t n_bytes, struct index_file_info *out,
                             struct error *err)
{
    struct cursor cursor = {.at = bytes, .left = n_bytes, .err = err};
    struct header header = {0};
    struct index_kind kind = {.family = INDEX_FLAT};
    uint32_t fourcc = n_bytes >= 4 ? (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 |
                                         (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24
                                   : 0;
    bool hnsw = fourcc == KIND_HNSW_FLAT || fourcc == KIND_HNSW_SCALAR;
    if (n_bytes >= 4 && fourcc != KIND_FLAT && fourcc != KIND_REFINE && !hnsw && !is_ivf(fourcc)) {
        return unsupported_kind(&cursor, fourcc);
    }
    enum status status = read_header(&cursor, &header);
    if (status != STATUS_OK) {
        return status;
    }
    if (hnsw) {
        kind.family = INDEX_HNSW;
        status = walk_hnsw(&cursor, header.n, header.dim, &kind.links, &kind.codes);
    } else if (fourcc == KIND_FLAT) {
        status = walk_flat(&cursor, &header);
    } else if (fourcc == KIND_REFINE) {
        status = walk_refine(&cursor, &header, &kind);
    } else {
        status = walk_ivf(&cursor, &header, &kind);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (hnsw && (fourcc == KIND_HNSW_FLAT) != (kind.codes == INDEX_CODES_FLAT)) {
        return damaged(&cursor, "vectors of the graph");
    }
    if (cursor.left != 0) {
        return damaged(&cursor, "bytes behind its end");
    }
    *out = (struct index_file_info){.kind = kind, .n = header.n, .dim = header.dim};
    return STATUS_OK;
}
