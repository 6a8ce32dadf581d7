#include "core/engine.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "core/histories.h"

/* Probes: writing them and replaying them take the same path as a request does, the user model one
 * user at a time and the release's own index at its tuned effort, so that a replay tells whether
 * what is about to serve is what was measured. An exact scan was rejected: it would not notice a
 * wrong index. Session neighbours are asked as serving asks them, and compared by the same rules.
 *
 * Machines differ in the order of float sums, so vectors and scores are compared with a tolerance,
 * relative to magnitudes over 1 (vectors of a trained model need not have unit length). Items of
 * equal score, within the tolerance, may stand in any order, and at the end of the list be other
 * ones: position by position the scores must agree, and where the item differs it must have that
 * score, too. To find it the search goes PROBE_SEARCH_K deep, at the build as well, since the k of
 * a search has an influence on what approximate indexes find. */

enum { PROBE_SEARCH_K = 100 };
#define PROBES_FILE_MAX_BYTES ((size_t)1 << 30)

/* What a search or the neighbours found, best first. */
struct found_list {
    const char *name; /* the probe's member */
    float scores[PROBE_SEARCH_K];
    int64_t rows[PROBE_SEARCH_K];
    size_t n;
};

struct prober {
    const struct engine *engine;
    struct row_names names;
    struct user_model_workspace *workspace;
    struct neighbors_workspace *neighbors; /* NULL: the release has none */
    size_t dim;
    float *vector; /* [D] */
    struct found_list top;
    struct found_list by_neighbors;
};

static void prober_free(struct prober *prober)
{
    neighbors_workspace_close(prober->neighbors);
    user_model_workspace_close(prober->workspace);
    mem_free(prober->vector);
}

static enum status prober_init(struct prober *prober, const struct engine *engine,
                               struct error *err)
{
    *prober = (struct prober){.engine = engine, .dim = engine->vectors.dim};
    prober->names.catalog = engine->catalog;
    prober->top.name = "top";
    prober->by_neighbors.name = "neighbors";
    prober->vector = mem_alloc_vectors(prober->dim, sizeof(float));
    if (prober->vector == NULL) {
        return error_set(err, STATUS_NOMEM, "probes: no memory");
    }
    enum status status = user_model_workspace_open(engine->model, 1, &prober->workspace, err);
    if (status == STATUS_OK && engine->neighbors != NULL) {
        status = neighbors_workspace_open(engine->neighbors, &prober->neighbors, err);
    }
    if (status != STATUS_OK) {
        prober_free(prober);
    }
    return status;
}

static void ask_neighbors(struct prober *prober, const struct probe_history *history)
{
    uint32_t rows[PROBE_SEARCH_K];
    double total = 0.0;
    struct found_list *found = &prober->by_neighbors;
    found->n = neighbors_query(prober->engine->neighbors, prober->neighbors, history->events,
                               history->n_events, history->now_ms, PROBE_SEARCH_K, rows,
                               found->scores, &total);
    for (size_t i = 0; i < found->n; i++) {
        found->rows[i] = (int64_t)rows[i];
    }
}

/* History → vector, rows and scores, of the search and of the neighbours. */
static enum status probe(struct prober *prober, const struct probe_history *history,
                         struct error *err)
{
    uint32_t offsets[2] = {0, (uint32_t)history->n_events};
    struct history_batch batch = {1, offsets, history->events, history->now_ms};
    user_model_embed(prober->engine->model, prober->workspace, &batch, prober->vector);
    struct vector_query query = {prober->vector, 1, PROBE_SEARCH_K};
    struct found_list *top = &prober->top;
    struct vector_hits hits = {top->scores, top->rows};
    enum status status = vector_index_search(prober->engine->index, &query, &hits, err);
    top->n = 0;
    while (status == STATUS_OK && top->n < PROBE_SEARCH_K &&
           top->rows[top->n] != VECTOR_INDEX_NO_ROW) {
        top->n++;
    }
    if (status == STATUS_OK && prober->neighbors != NULL) {
        ask_neighbors(prober, history);
    }
    return status;
}

static size_t n_shown(const struct found_list *found)
{
    return found->n < PROBE_TOP ? found->n : PROBE_TOP;
}

/* ---- writing ---- */

static void encode_found(const struct prober *prober, const struct found_list *found,
                         struct json_writer *json)
{
    json_begin_array(json, found->name);
    for (size_t i = 0; i < n_shown(found); i++) {
        size_t len = 0;
        const char *id = row_name(&prober->names, (uint32_t)found->rows[i], &len);
        json_begin_array(json, NULL);
        json_string_n(json, NULL, id, len);
        json_float(json, NULL, found->scores[i]);
        json_end_array(json);
    }
    json_end_array(json);
}

static void encode(const struct prober *prober, const struct probe_history *history,
                   struct buf *text)
{
    struct json_writer json;
    json_writer_init(&json, text);
    json_begin_object(&json, NULL);
    history_encode(&json, history, &prober->names);
    json_begin_array(&json, "vector");
    for (size_t d = 0; d < prober->dim; d++) {
        json_float(&json, NULL, prober->vector[d]);
    }
    json_end_array(&json);
    encode_found(prober, &prober->top, &json);
    if (prober->neighbors != NULL) {
        encode_found(prober, &prober->by_neighbors, &json);
    }
    json_end_object(&json);
    buf_append_char(text, '\n');
}

enum status probes_write(const struct engine *engine, const char *path,
                         const struct probe_history *histories, size_t n, struct error *err)
{
    struct prober prober;
    struct buf text;
    enum status status = prober_init(&prober, engine, err);
    if (status != STATUS_OK) {
        return status;
    }
    buf_init(&text, PROBES_FILE_MAX_BYTES);
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        status = probe(&prober, &histories[i], err);
        if (status == STATUS_OK) {
            encode(&prober, &histories[i], &text);
        }
    }
    if (status == STATUS_OK && text.status != STATUS_OK) {
        status = error_set(err, text.status, "writing %s: %s", path, status_text(text.status));
    }
    if (status == STATUS_OK) {
        status = file_write_atomic(path, buf_text(&text), text.len, err);
    }
    buf_free(&text);
    prober_free(&prober);
    return status;
}

/* ---- replaying ---- */

static bool agrees(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * fmax(1.0, fmax(fabs(a), fabs(b)));
}

static enum status compare_vector(const struct prober *prober, const struct json_value *vector,
                                  struct error *err)
{
    size_t d = 0;
    if (vector == NULL || json_kind(vector) != JSON_ARRAY) {
        return error_set(err, STATUS_FORMAT, "\"vector\" is no array");
    }
    for (const struct json_value *v = json_first(vector); v != NULL; v = json_next(v)) {
        if (json_kind(v) != JSON_NUMBER) {
            return error_set(err, STATUS_FORMAT, "component %zu of \"vector\" is no number", d);
        }
        if (d < prober->dim &&
            !agrees((double)prober->vector[d], json_number(v), PROBE_VECTOR_TOLERANCE)) {
            return error_set(err, STATUS_MISMATCH,
                             "component %zu of the user vector is %.7g, the build computed %.7g", d,
                             (double)prober->vector[d], json_number(v));
        }
        d++;
    }
    if (d != prober->dim) {
        return error_set(err, STATUS_MISMATCH, "\"vector\" has %zu components, the model's has %zu",
                         d, prober->dim);
    }
    return STATUS_OK;
}

/* Whether row may stand at position i: it was found with that score, or ties with the last found,
 * behind which are more. */
static bool ties(const struct found_list *found, uint32_t row, size_t i)
{
    double score = (double)found->scores[i];
    for (size_t j = 0; j < found->n; j++) {
        if (found->rows[j] == (int64_t)row) {
            return agrees((double)found->scores[j], score, PROBE_SCORE_TOLERANCE);
        }
    }
    return found->n == PROBE_SEARCH_K &&
           agrees((double)found->scores[found->n - 1], score, PROBE_SCORE_TOLERANCE);
}

static enum status compare_item(const struct prober *prober, const struct found_list *found,
                                const struct json_value *value, size_t i, struct error *err)
{
    const struct json_value *id = json_first(value);
    const struct json_value *score = id != NULL ? json_next(id) : NULL;
    if (json_kind(value) != JSON_ARRAY || score == NULL || json_next(score) != NULL ||
        json_kind(id) != JSON_STRING || json_kind(score) != JSON_NUMBER) {
        return error_set(err, STATUS_FORMAT, "entry %zu of \"%s\" is not [item, score]", i + 1,
                         found->name);
    }
    const char *expected = json_text(id);
    if (i >= n_shown(found)) {
        return error_set(err, STATUS_MISMATCH, "%zu %s items, the build found more", n_shown(found),
                         found->name);
    }
    if (!agrees((double)found->scores[i], json_number(score), PROBE_SCORE_TOLERANCE)) {
        return error_set(err, STATUS_MISMATCH,
                         "score %zu of the %s items is %.7g, the build computed %.7g", i + 1,
                         found->name, (double)found->scores[i], json_number(score));
    }
    uint32_t row = catalog_row(prober->engine->catalog, expected, strlen(expected));
    if (row == IDMAP_NONE) {
        return error_set(err, STATUS_MISMATCH, "%s item %.64s is not in the catalogue", found->name,
                         expected);
    }
    if (found->rows[i] != (int64_t)row && !ties(found, row, i)) {
        return error_set(err, STATUS_MISMATCH, "%s item %zu is %.64s, the build found %.64s",
                         found->name, i + 1,
                         row_name(&prober->names, (uint32_t)found->rows[i], NULL), expected);
    }
    return STATUS_OK;
}

static enum status compare_found(const struct prober *prober, const struct found_list *found,
                                 const struct json_value *expected, struct error *err)
{
    size_t n = 0;
    if (expected == NULL || json_kind(expected) != JSON_ARRAY) {
        return error_set(err, STATUS_FORMAT, "\"%s\" is no array", found->name);
    }
    for (const struct json_value *v = json_first(expected); v != NULL; v = json_next(v)) {
        enum status status = compare_item(prober, found, v, n, err);
        if (status != STATUS_OK) {
            return status;
        }
        n++;
    }
    if (n != n_shown(found)) {
        return error_set(err, STATUS_MISMATCH, "%zu %s items, the build found %zu", n_shown(found),
                         found->name, n);
    }
    return STATUS_OK;
}

/* Both or neither: neighbours that the probes do not know are another release's. */
static enum status compare_neighbors(const struct prober *prober, const struct json_value *root,
                                     struct error *err)
{
    const struct json_value *expected = json_member(root, prober->by_neighbors.name);
    if (prober->neighbors != NULL) {
        return compare_found(prober, &prober->by_neighbors, expected, err);
    }
    return expected == NULL ? STATUS_OK
                            : error_set(err, STATUS_MISMATCH,
                                        "the build had session neighbours, the release has none");
}

static enum status replay_line(struct prober *prober, const char *line, size_t len,
                               struct history_set *scratch, struct error *err)
{
    struct json_doc *doc = NULL;
    struct history_counts counts = {0, 0};
    history_set_clear(scratch);
    enum status status = history_line_open(line, len, &doc, err);
    if (status != STATUS_OK) {
        return status;
    }
    const struct json_value *root = json_root(doc);
    status = history_decode(root, &prober->names, scratch, &counts, err);
    if (status == STATUS_OK && counts.n_unknown_item > 0) {
        status = error_set(err, STATUS_MISMATCH,
                           "the history has items that are not in the "
                           "catalogue");
    }
    if (status == STATUS_OK) {
        struct probe_history history = history_set_at(scratch, 0);
        status = probe(prober, &history, err);
    }
    if (status == STATUS_OK) {
        status = compare_vector(prober, json_member(root, "vector"), err);
    }
    if (status == STATUS_OK) {
        status = compare_found(prober, &prober->top, json_member(root, "top"), err);
    }
    if (status == STATUS_OK) {
        status = compare_neighbors(prober, root, err);
    }
    json_doc_close(doc);
    return status;
}

static enum status replay_lines(struct prober *prober, struct line_reader *reader,
                                struct error *err)
{
    struct history_set scratch = {.n = 0};
    const char *line = NULL;
    size_t len = 0;
    enum status status = STATUS_OK;
    for (;;) {
        status = line_reader_next(reader, &line, &len, err);
        if (status != STATUS_OK) {
            break;
        }
        status = replay_line(prober, line, len, &scratch, err);
        if (status != STATUS_OK) {
            error_prefix(err, "line %llu: ", (unsigned long long)line_reader_number(reader));
            break;
        }
    }
    history_set_free(&scratch);
    if (status != STATUS_NOT_FOUND) {
        return status;
    }
    if (line_reader_number(reader) == 0) {
        return error_set(err, STATUS_FORMAT, "no probes");
    }
    return STATUS_OK;
}

enum status probes_replay(const struct engine *engine, const char *path, struct error *err)
{
    struct prober prober;
    struct line_reader *reader = NULL;
    enum status status = prober_init(&prober, engine, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = line_reader_open(path, PROBE_LINE_MAX_BYTES, &reader, err);
    if (status == STATUS_OK) {
        status = replay_lines(&prober, reader, err);
    }
    line_reader_close(reader);
    prober_free(&prober);
    return status;
}
