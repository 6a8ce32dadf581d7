#include "index/index_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"

/* Factory strings and search parameters, read by a small grammar of our own before FAISS sees them.
 *
 * FAISS' factory is a list of regular expressions over std::stoi: a number too large throws, some
 * strings ("IVF8(Index7),Flat") end the process by an assertion, and many name kinds whose files we
 * do not serve. So a string is parsed here into struct index_kind, its numbers bounded, and FAISS
 * gets the canonical text made from the struct. Rejected: passing the user's text on and catching
 * what is thrown, because assertions cannot be caught. */

/* Text still to be read. */
struct reader {
    const char *at;
};

static bool take(struct reader *reader, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(reader->at, word, n) != 0) {
        return false;
    }
    reader->at += n;
    return true;
}

/* A decimal number without sign or leading zero, within [min, max]. */
static bool take_number(struct reader *reader, size_t min, size_t max, size_t *out)
{
    size_t n = strspn(reader->at, "0123456789");
    uint64_t value = 0;
    if (n == 0 || reader->at[0] == '0' || !parse_uint64(reader->at, n, &value) || value < min ||
        value > max) {
        return false;
    }
    reader->at += n;
    *out = (size_t)value;
    return true;
}

static const struct {
    enum index_codes codes;
    const char *name;
} scalar_codes[] = {
    {INDEX_CODES_SQ4, "SQ4"},
    {INDEX_CODES_SQ6, "SQ6"},
    {INDEX_CODES_SQ8, "SQ8"},
    {INDEX_CODES_SQFP16, "SQfp16"},
};
enum { N_SCALAR_CODES = sizeof scalar_codes / sizeof scalar_codes[0] };

static bool take_plain_codes(struct reader *reader, struct index_kind *kind)
{
    if (take(reader, "Flat")) {
        kind->codes = INDEX_CODES_FLAT;
        return true;
    }
    for (size_t i = 0; i < N_SCALAR_CODES; i++) {
        if (take(reader, scalar_codes[i].name)) {
            kind->codes = scalar_codes[i].codes;
            return true;
        }
    }
    return false;
}

static bool take_list_codes(struct reader *reader, struct index_kind *kind)
{
    if (take_plain_codes(reader, kind)) {
        return true;
    }
    if (!take(reader, "PQ") || !take_number(reader, 1, INDEX_PQ_PARTS_MAX, &kind->pq_parts)) {
        return false;
    }
    if (take(reader, "x4fs")) {
        kind->codes = INDEX_CODES_PQ_FAST;
        kind->pq_bits = 4;
        kind->by_residual = take(reader, "r");
        return true;
    }
    kind->codes = INDEX_CODES_PQ;
    kind->pq_bits = 8;
    return !take(reader, "x") || take_number(reader, 1, INDEX_PQ_BITS_MAX, &kind->pq_bits);
}

static bool take_kind(struct reader *reader, struct index_kind *kind)
{
    if (take(reader, "HNSW")) {
        kind->family = INDEX_HNSW;
        return take_number(reader, INDEX_LINKS_MIN, INDEX_LINKS_MAX, &kind->links) &&
               (!take(reader, ",") || take_plain_codes(reader, kind));
    }
    if (take(reader, "IVF")) {
        kind->family = INDEX_IVF;
        if (!take_number(reader, INDEX_LISTS_MIN, INDEX_LISTS_MAX, &kind->n_lists)) {
            return false;
        }
        if (take(reader, "_HNSW") &&
            !take_number(reader, INDEX_LINKS_MIN, INDEX_LINKS_MAX, &kind->links)) {
            return false;
        }
        if (!take(reader, ",") || !take_list_codes(reader, kind)) {
            return false;
        }
        kind->refine = take(reader, ",RFlat");
        return true;
    }
    kind->family = INDEX_FLAT;
    return take(reader, "Flat");
}

enum status index_kind_parse(const char *factory, struct index_kind *out, struct error *err)
{
    struct index_kind kind = {.family = INDEX_FLAT};
    struct reader reader = {.at = factory};
    if (!take_kind(&reader, &kind) || reader.at[0] != '\0') {
        return error_set(err, STATUS_INVALID,
                         "unknown index \"%.64s\": known are auto, Flat, HNSWm[,Flat|,SQx] and "
                         "IVFn[_HNSWm],(Flat|SQx|PQm|PQmx4fs)[,RFlat]",
                         factory);
    }
    *out = kind;
    return STATUS_OK;
}

static const char *scalar_name(enum index_codes codes)
{
    for (size_t i = 0; i < N_SCALAR_CODES; i++) {
        if (scalar_codes[i].codes == codes) {
            return scalar_codes[i].name;
        }
    }
    return "Flat";
}

static void codes_name(const struct index_kind *kind, const char *pq_suffix, char out[32])
{
    switch (kind->codes) {
    case INDEX_CODES_PQ:
        if (kind->pq_bits == 8) {
            (void)snprintf(out, 32, "PQ%zu%s", kind->pq_parts, pq_suffix);
        } else {
            (void)snprintf(out, 32, "PQ%zux%zu%s", kind->pq_parts, kind->pq_bits, pq_suffix);
        }
        break;
    case INDEX_CODES_PQ_FAST:
        (void)snprintf(out, 32, "PQ%zux4fs%s", kind->pq_parts, kind->by_residual ? "r" : "");
        break;
    case INDEX_CODES_FLAT:
    case INDEX_CODES_SQ4:
    case INDEX_CODES_SQ6:
    case INDEX_CODES_SQ8:
    case INDEX_CODES_SQFP16:
        (void)snprintf(out, 32, "%s", scalar_name(kind->codes));
        break;
    }
}

static void kind_name(const struct index_kind *kind, const char *pq_suffix,
                      char out[INDEX_NAME_BYTES])
{
    char codes[32];
    char coarse[32] = "";
    codes_name(kind, pq_suffix, codes);
    switch (kind->family) {
    case INDEX_FLAT:
        (void)snprintf(out, INDEX_NAME_BYTES, "Flat");
        break;
    case INDEX_HNSW:
        (void)snprintf(out, INDEX_NAME_BYTES, "HNSW%zu%s%s", kind->links,
                       kind->codes == INDEX_CODES_FLAT ? "" : ",",
                       kind->codes == INDEX_CODES_FLAT ? "" : codes);
        break;
    case INDEX_IVF:
        if (kind->links != 0) {
            (void)snprintf(coarse, sizeof coarse, "_HNSW%zu", kind->links);
        }
        (void)snprintf(out, INDEX_NAME_BYTES, "IVF%zu%s,%s%s", kind->n_lists, coarse, codes,
                       kind->refine ? ",RFlat" : "");
        break;
    }
}

void index_kind_name(const struct index_kind *kind, char out[INDEX_NAME_BYTES])
{
    kind_name(kind, "", out);
}

void index_kind_recipe(const struct index_kind *kind, char out[INDEX_NAME_BYTES])
{
    kind_name(kind, "np", out);
}

/* Lists by size: 4 √n is what FAISS' authors advise for a flat scan of centroids; fewer than 39
 * points a centroid make poor ones. From 16,384 lists on, finding the nearest centroids costs more
 * than scanning the lists, so the centroids get a graph of their own. */
enum { AUTO_LISTS_MIN = 64, AUTO_LISTS_MAX = 65536, AUTO_POINTS_PER_LIST = 39 };
enum { AUTO_GRAPH_LISTS = 16384, AUTO_GRAPH_LINKS = 32 };

struct index_kind index_kind_auto(size_t n)
{
    struct index_kind kind = {.family = INDEX_FLAT};
    if (n < EXACT_MAX_ITEMS) {
        return kind;
    }
    double wanted = 4.0 * sqrt((double)n);
    size_t n_lists = AUTO_LISTS_MIN;
    /* to the nearest power of two: up while the geometric middle lies below */
    while (n_lists < AUTO_LISTS_MAX && (double)n_lists * sqrt(2.0) < wanted &&
           2 * n_lists * AUTO_POINTS_PER_LIST <= n) {
        n_lists *= 2;
    }
    kind.family = INDEX_IVF;
    kind.codes = INDEX_CODES_SQFP16;
    kind.n_lists = n_lists;
    kind.links = n_lists >= AUTO_GRAPH_LISTS ? AUTO_GRAPH_LINKS : 0;
    return kind;
}

/* One "name=value" of the effort that this kind has, or NULL. */
static size_t *effort_slot(struct reader *reader, const struct index_kind *kind,
                           struct index_effort *effort, size_t *min, size_t *max)
{
    if (kind->family == INDEX_IVF && take(reader, "nprobe=")) {
        *min = INDEX_PROBES_MIN;
        *max = kind->n_lists < INDEX_PROBES_MAX ? kind->n_lists : INDEX_PROBES_MAX;
        return &effort->n_probes;
    }
    if (kind->links != 0 && take(reader, "efSearch=")) {
        *min = INDEX_EF_SEARCH_MIN;
        *max = INDEX_EF_SEARCH_MAX;
        return &effort->ef_search;
    }
    if (kind->refine && take(reader, "k_factor_rf=")) {
        *min = INDEX_REFINE_FACTOR_MIN;
        *max = INDEX_REFINE_FACTOR_MAX;
        return &effort->refine_factor;
    }
    return NULL;
}

enum status index_effort_parse(const char *text, const struct index_kind *kind,
                               struct index_effort *out, struct error *err)
{
    struct index_effort effort = {0};
    struct reader reader = {.at = text};
    bool more = text[0] != '\0';
    while (more) {
        size_t min = 0;
        size_t max = 0;
        size_t *slot = effort_slot(&reader, kind, &effort, &min, &max);
        if (slot == NULL || *slot != 0) {
            char name[INDEX_NAME_BYTES];
            index_kind_name(kind, name);
            return error_set(err, STATUS_INVALID, "search parameters \"%.64s\" do not fit %s", text,
                             name);
        }
        if (!take_number(&reader, min, max, slot)) {
            return error_set(err, STATUS_INVALID,
                             "search parameters \"%.64s\": a value is not within %zu..%zu", text,
                             min, max);
        }
        more = take(&reader, ",");
    }
    if (reader.at[0] != '\0') {
        return error_set(err, STATUS_INVALID, "search parameters \"%.64s\" cannot be read", text);
    }
    *out = effort;
    return STATUS_OK;
}

void index_effort_name(const struct index_effort *effort, char out[INDEX_NAME_BYTES])
{
    const struct {
        const char *name;
        size_t value;
    } parts[] = {{"k_factor_rf", effort->refine_factor},
                 {"nprobe", effort->n_probes},
                 {"efSearch", effort->ef_search}};
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].value != 0) {
            int n = snprintf(out + len, INDEX_NAME_BYTES - len, "%s%s=%zu", len == 0 ? "" : ",",
                             parts[i].name, parts[i].value);
            len += (size_t)n; /* three short names and numbers always fit */
        }
    }
}
