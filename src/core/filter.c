/* Filters over the catalogue's columns: a parse tree becomes one bit a row.
 *
 * Each condition is one pass over one column into 64-bit words, without branches on the values: a
 * comparison of numbers is an interval test, one of texts a look-up in a table over the
 * dictionary's codes. Evaluating the tree row by row was the alternative; it touches only the rows
 * that a search brings, but costs a walk of the tree for each of them at every request, while the
 * bits are made once and kept in the cache. */
#include "core/filter_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"

enum { ARENA_BLOCK_BYTES = 8 << 10, ARENA_MAX_BYTES = 16 << 20 };

struct compiler {
    const struct catalog *catalog;
    size_t n_rows;
    size_t n_words;
    struct arena *arena;
    struct error *err;
};

static enum status fail_nomem(struct compiler *compiler)
{
    return error_set(compiler->err, STATUS_NOMEM, "memory of a filter");
}

static void fill(struct compiler *compiler, uint64_t *bits, bool value)
{
    memset(bits, value ? 0xff : 0, compiler->n_words * sizeof(*bits));
}

static void invert(struct compiler *compiler, uint64_t *bits)
{
    for (size_t w = 0; w < compiler->n_words; w++) {
        bits[w] = ~bits[w];
    }
}

/* ---- numbers ---- */

struct interval {
    double low, high; /* both included */
};

static struct interval interval_of(enum filter_op op, double value)
{
    switch (op) {
    case FILTER_LT:
        return (struct interval){-HUGE_VAL, nextafter(value, -HUGE_VAL)};
    case FILTER_LTE:
        return (struct interval){-HUGE_VAL, value};
    case FILTER_GT:
        return (struct interval){nextafter(value, HUGE_VAL), HUGE_VAL};
    case FILTER_GTE:
        return (struct interval){value, HUGE_VAL};
    default:
        return (struct interval){value, value};
    }
}

/* A missing number is NAN, which lies in no interval. */
static void match_interval(struct compiler *compiler, const double *numbers,
                           struct interval interval, uint64_t *bits)
{
    for (size_t w = 0; w < compiler->n_words; w++) {
        size_t first = w * 64;
        size_t n = compiler->n_rows - first < 64 ? compiler->n_rows - first : 64;
        uint64_t word = 0;
        for (size_t i = 0; i < n; i++) {
            double value = numbers[first + i];
            word |= (uint64_t)(value >= interval.low && value <= interval.high) << i;
        }
        bits[w] = word;
    }
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum status match_numbers(struct compiler *compiler, const struct filter_node *node,
                                 const double *numbers, uint64_t *bits)
{
    double *wanted = arena_alloc_array(compiler->arena, node->n_values + 1, sizeof(*wanted));
    if (wanted == NULL) {
        return fail_nomem(compiler);
    }
    size_t n = 0;
    for (size_t i = 0; i < node->n_values; i++) {
        if (node->values[i].type != FILTER_TEXT) {
            wanted[n++] = node->values[i].number;
        }
    }
    qsort(wanted, n, sizeof(*wanted), compare_doubles);
    fill(compiler, bits, false);
    for (size_t row = 0; n > 0 && row < compiler->n_rows; row++) {
        if (bsearch(&numbers[row], wanted, n, sizeof(*wanted), compare_doubles) != NULL &&
            !isnan(numbers[row])) {
            bits[row / 64] |= (uint64_t)1 << (row % 64);
        }
    }
    return STATUS_OK;
}

static enum status match_number_column(struct compiler *compiler, const struct filter_node *node,
                                       const double *numbers, uint64_t *bits)
{
    if (node->op == FILTER_EXISTS) {
        match_interval(compiler, numbers, (struct interval){-HUGE_VAL, HUGE_VAL}, bits);
        return STATUS_OK;
    }
    if (node->op == FILTER_IN) {
        return match_numbers(compiler, node, numbers, bits);
    }
    if (node->values[0].type == FILTER_TEXT) {
        fill(compiler, bits, false);
        return STATUS_OK;
    }
    match_interval(compiler, numbers, interval_of(node->op, node->values[0].number), bits);
    return STATUS_OK;
}

/* ---- texts ---- */

/* "A>B" and " A > B " alike → "A > B", as the catalogue writes category paths. */
static char *normalise_path(struct compiler *compiler, const char *path)
{
    size_t len = strlen(path);
    char *out = arena_alloc(compiler->arena, 3 * len + 1);
    size_t n = 0;
    for (size_t i = 0; out != NULL && i < len;) {
        size_t end = i + strcspn(path + i, ">");
        size_t first = i + strspn(path + i, " ");
        size_t last = end;
        while (last > first && path[last - 1] == ' ') {
            last--;
        }
        if (n > 0) {
            memcpy(out + n, " > ", 3);
            n += 3;
        }
        if (first < last) {
            memcpy(out + n, path + first, last - first);
            n += last - first;
        }
        i = end + 1;
    }
    if (out != NULL) {
        out[n] = '\0';
    }
    return out;
}

static enum status wanted_under(struct compiler *compiler, const struct filter_node *node,
                                const struct idmap *dictionary, unsigned char *wanted)
{
    const char *top = normalise_path(compiler, node->values[0].text);
    if (top == NULL) {
        return fail_nomem(compiler);
    }
    size_t top_len = strlen(top);
    for (uint32_t code = 1; code <= idmap_size(dictionary); code++) {
        const char *path = idmap_id(dictionary, code - 1, NULL);
        bool inside = strncmp(path, top, top_len) == 0;
        wanted[code] = inside && (path[top_len] == '\0' || strncmp(path + top_len, " > ", 3) == 0);
    }
    return STATUS_OK;
}

/* wanted[code] says whether rows of this code match; code 0 is "missing". */
static enum status wanted_codes(struct compiler *compiler, const struct filter_node *node,
                                const struct catalog_column *column, unsigned char *wanted)
{
    if (node->op == FILTER_EXISTS) {
        memset(wanted + 1, 1, idmap_size(column->dictionary));
        return STATUS_OK;
    }
    if (node->op == FILTER_UNDER) {
        return wanted_under(compiler, node, column->dictionary, wanted);
    }
    if (node->op >= FILTER_LT && node->op <= FILTER_GTE) {
        return STATUS_OK;
    }
    for (size_t i = 0; i < node->n_values; i++) {
        const char *text = node->values[i].text;
        if (node->values[i].type != FILTER_TEXT) {
            continue;
        }
        if (column->type == COLUMN_CATEGORY) {
            text = normalise_path(compiler, text);
            if (text == NULL) {
                return fail_nomem(compiler);
            }
        }
        uint32_t entry = idmap_find(column->dictionary, text, strlen(text));
        if (entry != IDMAP_NONE) {
            wanted[entry + 1] = 1;
        }
    }
    return STATUS_OK;
}

static enum status match_text_column(struct compiler *compiler, const struct filter_node *node,
                                     const struct catalog_column *column, uint64_t *bits)
{
    unsigned char *wanted = mem_calloc(idmap_size(column->dictionary) + 1, 1);
    if (wanted == NULL) {
        return fail_nomem(compiler);
    }
    enum status status = wanted_codes(compiler, node, column, wanted);
    for (size_t w = 0; status == STATUS_OK && w < compiler->n_words; w++) {
        size_t first = w * 64;
        size_t n = compiler->n_rows - first < 64 ? compiler->n_rows - first : 64;
        uint64_t word = 0;
        for (size_t i = 0; i < n; i++) {
            word |= (uint64_t)wanted[column->codes[first + i]] << i;
        }
        bits[w] = word;
    }
    mem_free(wanted);
    return status;
}

static void match_ids(struct compiler *compiler, const struct filter_node *node, uint64_t *bits)
{
    fill(compiler, bits, false);
    for (size_t i = 0; i < node->n_values; i++) {
        const char *id = node->values[i].text;
        uint32_t row = catalog_row(compiler->catalog, id, strlen(id));
        if (row != IDMAP_NONE) {
            bits[row / 64] |= (uint64_t)1 << (row % 64);
        }
    }
}

/* ---- the tree ---- */

static enum status match_condition(struct compiler *compiler, const struct filter_node *node,
                                   uint64_t *bits)
{
    const struct catalog_column *column = catalog_column(compiler->catalog, node->field);
    enum status status = STATUS_OK;
    if (strcmp(node->field, "id") == 0) {
        match_ids(compiler, node, bits);
    } else if (column == NULL) {
        fill(compiler, bits, false);
    } else if (column->numbers != NULL) {
        status = match_number_column(compiler, node, column->numbers, bits);
    } else {
        status = match_text_column(compiler, node, column, bits);
    }
    if (node->op == FILTER_NE || (node->op == FILTER_EXISTS && node->values[0].number == 0.0)) {
        invert(compiler, bits);
    }
    return status;
}

static enum status match_node(struct compiler *compiler, const struct filter_node *node,
                              uint64_t *bits)
{
    if (node->kind == FILTER_CONDITION) {
        return match_condition(compiler, node, bits);
    }
    bool conjunction = node->kind == FILTER_ALL;
    uint64_t *child = mem_alloc_array(compiler->n_words, sizeof(*child));
    if (child == NULL) {
        return fail_nomem(compiler);
    }
    enum status status = STATUS_OK;
    fill(compiler, bits, conjunction);
    for (size_t c = 0; status == STATUS_OK && c < node->n_children; c++) {
        status = match_node(compiler, node->children[c], child);
        for (size_t w = 0; status == STATUS_OK && w < compiler->n_words; w++) {
            bits[w] = conjunction ? bits[w] & child[w] : bits[w] | child[w];
        }
    }
    if (node->kind == FILTER_NOT) {
        invert(compiler, bits);
    }
    mem_free(child);
    return status;
}

enum status filter_check(const char *json, size_t len, struct error *err)
{
    struct arena arena;
    struct filter_node *root;
    arena_init(&arena, ARENA_BLOCK_BYTES, ARENA_MAX_BYTES);
    enum status status = filter_parse(json, len, &arena, &root, err);
    arena_free(&arena);
    return status;
}

/* The bits behind the last row are cleared, so that words can be counted and joined as they are. */
static size_t clear_tail_and_count(struct compiler *compiler, uint64_t *bits)
{
    if (compiler->n_rows % 64 != 0) {
        bits[compiler->n_words - 1] &= ((uint64_t)1 << (compiler->n_rows % 64)) - 1;
    }
    size_t n = 0;
    for (size_t w = 0; w < compiler->n_words; w++) {
        n += (size_t)__builtin_popcountll(bits[w]);
    }
    return n;
}

enum status filter_compile(const char *json, size_t len, const struct catalog *catalog,
                           struct filter_rows *out, struct error *err)
{
    struct arena arena;
    struct filter_node *root;
    *out = (struct filter_rows){NULL, 0, 0};
    arena_init(&arena, ARENA_BLOCK_BYTES, ARENA_MAX_BYTES);
    size_t n_rows = catalog_size(catalog);
    struct compiler compiler = {catalog, n_rows, (n_rows + 63) / 64, &arena, err};
    enum status status = filter_parse(json, len, &arena, &root, err);
    uint64_t *bits = NULL;
    if (status == STATUS_OK) {
        bits = mem_alloc_array(compiler.n_words, sizeof(*bits));
        status = bits != NULL ? match_node(&compiler, root, bits) : fail_nomem(&compiler);
    }
    if (status == STATUS_OK && bits != NULL) {
        *out = (struct filter_rows){bits, n_rows, clear_tail_and_count(&compiler, bits)};
    } else {
        mem_free(bits);
    }
    arena_free(&arena);
    return status;
}

void filter_rows_free(struct filter_rows *filter)
{
    mem_free(filter->bits);
    *filter = (struct filter_rows){NULL, 0, 0};
}

/* ---- cache ---- */

enum { CACHE_ENTRIES_MAX = 256 };

struct cache_entry {
    uint64_t hash;
    char *text;
    size_t len;
    struct filter_rows rows;
    uint64_t last_used;
    uint64_t epoch;
};

struct filter_cache {
    const struct catalog *catalog;
    size_t entry_max; /* entries that keep within the bytes given */
    struct cache_entry entries[CACHE_ENTRIES_MAX];
    size_t n;
    uint64_t clock;
    uint64_t epoch;
};

enum status filter_cache_open(const struct catalog *catalog, size_t max_bytes,
                              struct filter_cache **out, struct error *err)
{
    *out = mem_calloc(1, sizeof(**out));
    if (*out == NULL) {
        return error_set(err, STATUS_NOMEM, "cache of filters");
    }
    size_t entry_bytes = catalog_size(catalog) / 8 + 512;
    (*out)->catalog = catalog;
    (*out)->entry_max = max_bytes / entry_bytes;
    if ((*out)->entry_max < 1) {
        (*out)->entry_max = 1;
    } else if ((*out)->entry_max > CACHE_ENTRIES_MAX) {
        (*out)->entry_max = CACHE_ENTRIES_MAX;
    }
    return STATUS_OK;
}

static void entry_free(struct cache_entry *entry)
{
    mem_free(entry->text);
    filter_rows_free(&entry->rows);
}

void filter_cache_close(struct filter_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    for (size_t i = 0; i < cache->n; i++) {
        entry_free(&cache->entries[i]);
    }
    mem_free(cache);
}

static size_t cache_find(const struct filter_cache *cache, uint64_t hash, const char *json,
                         size_t len)
{
    for (size_t i = 0; i < cache->n; i++) {
        const struct cache_entry *entry = &cache->entries[i];
        if (entry->hash == hash && entry->len == len && memcmp(entry->text, json, len) == 0) {
            return i;
        }
    }
    return CACHE_ENTRIES_MAX;
}

/* The entry longest unused that no caller of this epoch holds, or CACHE_ENTRIES_MAX. */
static size_t cache_oldest(const struct filter_cache *cache)
{
    size_t oldest = CACHE_ENTRIES_MAX;
    for (size_t i = 0; i < cache->n; i++) {
        const struct cache_entry *entry = &cache->entries[i];
        if (entry->epoch != cache->epoch &&
            (oldest == CACHE_ENTRIES_MAX || entry->last_used < cache->entries[oldest].last_used)) {
            oldest = i;
        }
    }
    return oldest;
}

/* A place for one more entry. What this epoch's callers hold neither goes nor moves: a full cache
 * grows for them beyond its bytes, until the next epoch. */
static size_t cache_place(struct filter_cache *cache)
{
    size_t oldest = cache->n >= cache->entry_max ? cache_oldest(cache) : CACHE_ENTRIES_MAX;
    if (oldest != CACHE_ENTRIES_MAX) {
        entry_free(&cache->entries[oldest]);
        return oldest;
    }
    return cache->n < CACHE_ENTRIES_MAX ? cache->n++ : CACHE_ENTRIES_MAX;
}

enum status filter_cache_get(struct filter_cache *cache, const char *json, size_t len,
                             const struct filter_rows **out, struct error *err)
{
    *out = NULL;
    uint64_t hash = hash_bytes(json, len, 0);
    size_t i = cache_find(cache, hash, json, len);
    if (i == CACHE_ENTRIES_MAX) {
        struct cache_entry entry = {.hash = hash, .len = len};
        entry.text = mem_strndup(json, len);
        if (entry.text == NULL) {
            return error_set(err, STATUS_NOMEM, "cache of filters");
        }
        enum status status = filter_compile(json, len, cache->catalog, &entry.rows, err);
        if (status != STATUS_OK) {
            mem_free(entry.text);
            return status;
        }
        i = cache_place(cache);
        if (i == CACHE_ENTRIES_MAX) {
            entry_free(&entry);
            return error_set(err, STATUS_LIMIT, "more than %d filters in one batch",
                             CACHE_ENTRIES_MAX);
        }
        cache->entries[i] = entry;
    }
    cache->entries[i].last_used = ++cache->clock;
    cache->entries[i].epoch = cache->epoch;
    *out = &cache->entries[i].rows;
    return STATUS_OK;
}

enum status filter_cache_check(const struct filter_cache *cache, const char *json, size_t len,
                               struct error *err)
{
    bool known = cache_find(cache, hash_bytes(json, len, 0), json, len) != CACHE_ENTRIES_MAX;
    return known ? STATUS_OK : filter_check(json, len, err);
}

void filter_cache_next_epoch(struct filter_cache *cache)
{
    cache->epoch++;
    while (cache->n > cache->entry_max) {
        size_t oldest = cache_oldest(cache);
        entry_free(&cache->entries[oldest]);
        cache->entries[oldest] = cache->entries[--cache->n];
    }
}
