/* Candidates of one job: the batched search's results that pass filter and exclusions, more where
 * too few pass, popular items where there is no vector to search with.
 *
 * A promise of the API is that `limit` items come back if that many pass. FAISS 1.7's C API has no
 * selector in search, so a filter works on results: a selective one is scanned exactly (few rows,
 * cheaper than any search), a broad one is searched with k growing fourfold until enough pass, and
 * when the largest k does not do, the whole filter is scanned exactly. A post-filter alone (what
 * most services do) would return short lists for rare combinations; a scan alone would cost a
 * whole pass over a million vectors for the common "in stock".
 *
 * Session neighbours are merged afterwards, so that what the vector search brings does not depend
 * on them. All that they score is asked for, not only as many items as may join: a candidate found
 * by its vector gets its evidence wherever it stands in the neighbours' list, and its score is the
 * one that offline evaluation gives it. */
#include "core/recommend_internal.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

static bool is_marked(const struct recommender *recommender, uint32_t row)
{
    return (recommender->marks[row / 64] >> (row % 64) & 1) != 0;
}

static void mark(struct recommender *recommender, uint32_t row)
{
    recommender->marks[row / 64] |= (uint64_t)1 << (row % 64);
}

static void unmark(struct recommender *recommender, uint32_t row)
{
    recommender->marks[row / 64] &= ~((uint64_t)1 << (row % 64));
}

void candidates_mark_excluded(struct recommender *recommender, const struct recommend_job *job)
{
    for (size_t i = 0; i < job->n_excluded; i++) {
        mark(recommender, job->excluded[i]);
    }
    recommender->n_candidates = 0;
}

void candidates_clear_marks(struct recommender *recommender, const struct recommend_job *job)
{
    for (size_t i = 0; i < job->n_excluded; i++) {
        unmark(recommender, job->excluded[i]);
    }
    for (size_t i = 0; i < recommender->n_candidates; i++) {
        unmark(recommender, recommender->candidates[i].row);
    }
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static bool is_selective(const struct recommender *recommender, const struct filter_rows *filter)
{
    if (filter == NULL) {
        return false;
    }
    size_t share = recommender->engine->vectors.n / SCAN_SHARE;
    return filter->n_matching <= (share > SCAN_ROWS_MIN ? share : SCAN_ROWS_MIN);
}

/* Candidates a job ranks: the profile's number, but never fewer than it shows. */
static size_t wanted_candidates(const struct recommend_job *job)
{
    size_t wanted = job->profile->candidates;
    size_t shown = job->request->limit * 2;
    return min_size(wanted > shown ? wanted : shown, VECTOR_CANDIDATES_MAX);
}

size_t candidates_search_k(const struct recommender *recommender, const struct recommend_job *job,
                           const struct filter_rows *filter)
{
    if (!job->has_vector || job->request->candidates != NULL || is_selective(recommender, filter)) {
        return 0;
    }
    size_t k = wanted_candidates(job) + job->n_excluded;
    return min_size(k, BATCH_SEARCH_K_MAX);
}

static void add(struct recommender *recommender, uint32_t row, float similarity, unsigned source)
{
    struct candidate *candidate = &recommender->candidates[recommender->n_candidates++];
    candidate->row = row;
    candidate->similarity = similarity;
    candidate->neighbors = 0.0F;
    candidate->sources = source;
    mark(recommender, row);
}

/* Takes what passes, up to `wanted` candidates in all. */
static void take(struct recommender *recommender, const struct filter_rows *filter,
                 const struct found_rows *found, size_t wanted)
{
    for (size_t i = 0; i < found->k && recommender->n_candidates < wanted; i++) {
        if (found->rows[i] == VECTOR_INDEX_NO_ROW) {
            break;
        }
        uint32_t row = (uint32_t)found->rows[i];
        if (!is_marked(recommender, row) && (filter == NULL || filter_match(filter, row))) {
            add(recommender, row, found->scores[i], SOURCE_VECTOR);
        }
    }
}

/* Rows of the filter (or all) that are neither excluded nor candidates yet. */
static size_t gather_rows(struct recommender *recommender, const struct filter_rows *filter)
{
    size_t n_rows = recommender->engine->vectors.n;
    size_t n = 0;
    for (size_t word = 0; word < (n_rows + 63) / 64; word++) {
        uint64_t bits = filter != NULL ? filter->bits[word] : UINT64_MAX;
        bits &= ~recommender->marks[word];
        for (; bits != 0; bits &= bits - 1) {
            size_t row = word * 64 + (size_t)__builtin_ctzll(bits);
            if (row < n_rows) {
                recommender->scan_rows[n++] = (uint32_t)row;
            }
        }
    }
    return n;
}

static enum status scan_exactly(struct recommender *recommender, const struct filter_rows *filter,
                                const float *user_vector, size_t wanted, struct error *err)
{
    if (recommender->scan_rows == NULL) {
        recommender->scan_rows =
            mem_alloc_array(recommender->engine->vectors.n, sizeof(*recommender->scan_rows));
        if (recommender->scan_rows == NULL) {
            return error_set(err, STATUS_NOMEM, "rows of an exact scan");
        }
    }
    size_t n = gather_rows(recommender, filter);
    size_t k = min_size(wanted - recommender->n_candidates, n);
    if (k == 0) {
        return STATUS_OK;
    }
    struct vector_query query = {user_vector, 1, k};
    struct vector_hits hits = {recommender->scores, recommender->rows};
    enum status status = vector_scan_rows(&recommender->engine->vectors, recommender->scan_rows, n,
                                          &query, &hits, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct found_rows found = {recommender->rows, recommender->scores, k};
    take(recommender, NULL, &found, wanted);
    return STATUS_OK;
}

/* The batched search brought too few: larger k, then everything. */
static enum status search_further(struct recommender *recommender, const struct recommend_job *job,
                                  const struct filter_rows *filter, const float *user_vector,
                                  size_t k_before, struct error *err)
{
    size_t n = recommender->engine->vectors.n;
    size_t wanted = wanted_candidates(job);
    for (size_t k = k_before * 4; k_before < n; k *= 4) {
        k = min_size(min_size(k, SEARCH_K_MAX), n);
        struct vector_query query = {user_vector, 1, k};
        struct vector_hits hits = {recommender->scores, recommender->rows};
        enum status status = vector_index_search(recommender->engine->index, &query, &hits, err);
        if (status != STATUS_OK) {
            return status;
        }
        struct found_rows found = {recommender->rows, recommender->scores, k};
        take(recommender, filter, &found, wanted);
        if (recommender->n_candidates >= job->request->limit) {
            return STATUS_OK;
        }
        if (k == SEARCH_K_MAX || k == n || found.rows[k - 1] == VECTOR_INDEX_NO_ROW) {
            break;
        }
    }
    return scan_exactly(recommender, filter, user_vector, wanted, err);
}

static void fill_up_with_popular(struct recommender *recommender, const struct recommend_job *job,
                                 const struct filter_rows *filter)
{
    const struct engine *engine = recommender->engine;
    const uint32_t *by_popularity = catalog_by_popularity(engine->catalog);
    size_t wanted = wanted_candidates(job);
    for (size_t i = 0; i < engine->vectors.n && recommender->n_candidates < wanted; i++) {
        uint32_t row = by_popularity[i];
        if (!is_marked(recommender, row) && (filter == NULL || filter_match(filter, row))) {
            add(recommender, row, 0.0F, SOURCE_POPULAR);
        }
    }
}

/* ---- session neighbours ---- */

static size_t slot_of(uint32_t row)
{
    return (row * 2654435769U) >> (32 - NEIGHBOR_SLOTS_LOG2); /* Fibonacci hashing */
}

/* What neighbours say of a row: their feature, 0 where they do not know it. */
static float neighbors_of(const struct recommender *recommender, uint32_t row)
{
    size_t slot = slot_of(row);
    while (recommender->neighbor_slots[slot] != 0) {
        size_t place = recommender->neighbor_slots[slot] - 1U;
        if (recommender->neighbor_rows[place] == row) {
            return recommender->neighbor_scores[place];
        }
        slot = (slot + 1) % NEIGHBOR_SLOTS;
    }
    return 0.0F;
}

/* Scores → the feature that ranking adds (neighbors.h), and row → place. Where there is no user
 * vector and the release gives neighbours no weight beside one, their evidence counts as it is: it
 * is all there is. */
static void take_neighbor_scores(struct recommender *recommender, bool has_vector, double total)
{
    const struct neighbors_blend *blend = &recommender->blend;
    double weight = blend->weight > 0.0 || has_vector ? blend->weight : 1.0;
    memset(recommender->neighbor_slots, 0, NEIGHBOR_SLOTS * sizeof(*recommender->neighbor_slots));
    for (size_t i = 0; i < recommender->n_neighbors; i++) {
        size_t slot = slot_of(recommender->neighbor_rows[i]);
        while (recommender->neighbor_slots[slot] != 0) {
            slot = (slot + 1) % NEIGHBOR_SLOTS;
        }
        recommender->neighbor_slots[slot] = (uint16_t)(i + 1);
        if (!blend->is_primary) {
            double share = total > 0.0 ? (double)recommender->neighbor_scores[i] / total : 0.0;
            recommender->neighbor_scores[i] = (float)(weight * log1p(share / blend->floor));
        }
    }
}

void candidates_ask_neighbors(struct recommender *recommender, const struct recommend_job *job)
{
    double total = 0.0;
    recommender->n_neighbors = 0;
    if (recommender->neighbors == NULL || job->answer.n_history == 0 ||
        job->profile->neighbor_candidates == 0) {
        return;
    }
    recommender->n_neighbors =
        neighbors_query(recommender->engine->neighbors, recommender->neighbors, job->events,
                        job->answer.n_history, job->now_ms, NEIGHBORS_HITS_MAX,
                        recommender->neighbor_rows, recommender->neighbor_scores, &total);
    if (recommender->n_neighbors > 0) {
        take_neighbor_scores(recommender, job->has_vector, total);
    }
}

/* Candidates that are there get their neighbours' evidence. */
static void note_neighbors(struct recommender *recommender)
{
    for (size_t i = 0; i < recommender->n_candidates && recommender->n_neighbors > 0; i++) {
        struct candidate *candidate = &recommender->candidates[i];
        candidate->neighbors = neighbors_of(recommender, candidate->row);
        if (candidate->neighbors > 0.0F && (candidate->sources & SOURCE_REQUEST) == 0) {
            candidate->sources |= SOURCE_NEIGHBORS;
        }
    }
}

/* The neighbours' best that pass and are not there yet join, up to the profile's number. */
static void join_neighbors(struct recommender *recommender, const struct recommend_job *job,
                           const struct filter_rows *filter, const float *user_vector)
{
    size_t first = recommender->n_candidates;
    size_t end = min_size(first + job->profile->neighbor_candidates, CANDIDATES_MAX);
    for (size_t i = 0; i < recommender->n_neighbors && recommender->n_candidates < end; i++) {
        uint32_t row = recommender->neighbor_rows[i];
        if (!is_marked(recommender, row) && (filter == NULL || filter_match(filter, row))) {
            recommender->candidate_rows[recommender->n_candidates - first] = row;
            add(recommender, row, 0.0F, SOURCE_NEIGHBORS);
            recommender->candidates[recommender->n_candidates - 1].neighbors =
                recommender->neighbor_scores[i];
        }
    }
    if (job->has_vector && recommender->n_candidates > first) {
        vectors_dot(&recommender->engine->vectors, user_vector, recommender->candidate_rows,
                    recommender->n_candidates - first, recommender->similarities);
        for (size_t i = first; i < recommender->n_candidates; i++) {
            recommender->candidates[i].similarity = recommender->similarities[i - first];
        }
    }
}

static enum status collect_by_vector(struct recommender *recommender,
                                     const struct recommend_job *job,
                                     const struct filter_rows *filter, const float *user_vector,
                                     const struct found_rows *found, struct error *err)
{
    size_t wanted = wanted_candidates(job);
    if (is_selective(recommender, filter)) {
        return scan_exactly(recommender, filter, user_vector, wanted, err);
    }
    take(recommender, filter, found, wanted);
    if (recommender->n_candidates >= job->request->limit) {
        return STATUS_OK;
    }
    return search_further(recommender, job, filter, user_vector, found->k, err);
}

enum status candidates_collect(struct recommender *recommender, const struct recommend_job *job,
                               const struct filter_rows *filter, const float *user_vector,
                               const struct found_rows *found, struct error *err)
{
    enum status status = STATUS_OK;
    if (job->has_vector) {
        status = collect_by_vector(recommender, job, filter, user_vector, found, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    note_neighbors(recommender);
    join_neighbors(recommender, job, filter, user_vector);
    if (!job->has_vector) {
        fill_up_with_popular(recommender, job, filter);
    }
    return STATUS_OK;
}

void candidates_collect_given(struct recommender *recommender, const struct recommend_job *job,
                              const struct filter_rows *filter, const float *user_vector)
{
    size_t n = 0;
    for (size_t i = 0; i < job->n_candidate_rows; i++) {
        uint32_t row = job->candidate_rows[i];
        if (!is_marked(recommender, row) && (filter == NULL || filter_match(filter, row))) {
            add(recommender, row, 0.0F, SOURCE_REQUEST);
            recommender->candidate_rows[n++] = row;
        }
    }
    if (job->has_vector && n > 0) {
        vectors_dot(&recommender->engine->vectors, user_vector, recommender->candidate_rows, n,
                    recommender->similarities);
        for (size_t i = 0; i < n; i++) {
            recommender->candidates[i].similarity = recommender->similarities[i];
        }
    }
    note_neighbors(recommender);
}
