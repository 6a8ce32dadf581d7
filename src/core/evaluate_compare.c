/* What is told of an evaluation beyond each release's metrics: differences between releases, and
 * the ranks of each case for whoever wants to look further. Both go by the ranks that
 * evaluation_add left, so that no release has to be open. */
#include "core/evaluate_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"

enum { COMPARED_METRICS = 3 };
static const size_t RANKS_MAX_BYTES = (size_t)1 << 32;

/* ---- two releases ---- */

static void add_values(uint32_t rank, size_t cutoff, double sign, double values[COMPARED_METRICS])
{
    if (rank > 0 && rank <= cutoff) {
        values[0] += sign;
        values[1] += sign / (double)rank;
        values[2] += sign / log2(1.0 + (double)rank);
    }
}

/* Differences and number of cases of each user; returns how many users there are. */
static size_t sum_by_user(const struct evaluation *evaluation, enum evaluate_seen seen, size_t base,
                          size_t other, double *sums, uint32_t *counts)
{
    const struct evaluate_config *config = evaluation->config;
    const struct evaluate_cases *cases = &evaluation->cases;
    const struct evaluate_ranks *bases = &evaluation->releases[base];
    const struct evaluate_ranks *others = &evaluation->releases[other];
    size_t cutoff = config->cutoffs[config->n_cutoffs - 1];
    size_t user = 0;
    for (size_t i = 0; i < cases->n; i++) {
        if (i > 0 && cases->cases[i].user != cases->cases[i - 1].user) {
            user++;
        }
        double *values = sums + user * COMPARED_METRICS;
        counts[user]++;
        add_values(others->ranks[seen][others->served][i], cutoff, 1.0, values);
        add_values(bases->ranks[seen][bases->served][i], cutoff, -1.0, values);
    }
    return user + 1;
}

enum status evaluation_compare(const struct evaluation *evaluation, enum evaluate_seen seen,
                               size_t base, size_t other, struct evaluate_comparison *out,
                               struct error *err)
{
    const struct evaluate_config *config = evaluation->config;
    size_t n = evaluation->cases.n;
    if (base >= evaluation->n_releases || other >= evaluation->n_releases || !config->seen[seen]) {
        return error_set(err, STATUS_INVALID, "nothing was measured of releases %zu and %zu", base,
                         other);
    }
    struct evaluate_difference differences[COMPARED_METRICS];
    struct bootstrap_sample sample = {.n_metrics = COMPARED_METRICS};
    enum status status = STATUS_NOMEM;
    double *sums = mem_calloc(n * COMPARED_METRICS, sizeof(*sums));
    uint32_t *counts = mem_calloc(n, sizeof(*counts));
    if (sums == NULL || counts == NULL) {
        (void)error_set(err, status, "memory of a comparison");
        goto out;
    }
    sample.n_groups = sum_by_user(evaluation, seen, base, other, sums, counts);
    sample.sums = sums;
    sample.counts = counts;
    status = bootstrap_intervals(&sample, EVALUATE_RESAMPLES, config->seed, evaluation->n_threads,
                                 differences, err);
    if (status == STATUS_OK) {
        *out = (struct evaluate_comparison){.base = base,
                                            .other = other,
                                            .cutoff = config->cutoffs[config->n_cutoffs - 1],
                                            .n_users = sample.n_groups,
                                            .n_resamples = EVALUATE_RESAMPLES,
                                            .hr = differences[0],
                                            .mrr = differences[1],
                                            .ndcg = differences[2]};
    }
out:
    mem_free(sums);
    mem_free(counts);
    return status;
}

/* ---- ranks of each case ---- */

struct rank_column {
    const uint32_t *ranks;
    char name[64];
};
enum { RANK_COLUMNS_MAX = EVALUATE_RELEASES_MAX * N_EVALUATE_SEEN * (N_EVALUATE_ROWS + 1) };

static size_t add_columns(const struct evaluation *evaluation, size_t release, size_t seen,
                          struct rank_column *columns)
{
    const struct evaluate_ranks *ranks = &evaluation->releases[release];
    bool both = evaluation->config->seen[EVALUATE_SEEN_RANKED];
    const char *variant = both && seen == EVALUATE_SEEN_EXCLUDED ? "_without_seen" : "";
    /* The vector alone is worth a column where it is not what serves. */
    bool in_parts = ranks->ranks[seen][EVALUATE_NEIGHBORS] != NULL;
    const struct {
        const char *name;
        const uint32_t *ranks;
    } all[] = {
        {"rank", ranks->ranks[seen][ranks->served]},
        {"popularity_rank", ranks->ranks[seen][EVALUATE_POPULARITY]},
        {"vector_rank", in_parts ? ranks->ranks[seen][EVALUATE_VECTOR] : NULL},
        {"neighbors_rank", ranks->ranks[seen][EVALUATE_NEIGHBORS]},
        {"recent_popularity_rank", ranks->ranks[seen][EVALUATE_RECENT]},
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i].ranks == NULL) {
            continue;
        }
        struct rank_column *column = &columns[n++];
        column->ranks = all[i].ranks;
        (void)snprintf(column->name, sizeof(column->name), "%s%s", all[i].name, variant);
        if (release > 0) {
            size_t len = strlen(column->name);
            (void)snprintf(column->name + len, sizeof(column->name) - len, "_%zu", release + 1);
        }
    }
    return n;
}

static void print_ranks(const struct evaluation *evaluation, struct buf *text)
{
    static const size_t n_columns_max = RANK_COLUMNS_MAX;
    const struct evaluate_cases *cases = &evaluation->cases;
    struct rank_column columns[RANK_COLUMNS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < evaluation->n_releases * N_EVALUATE_SEEN && n < n_columns_max; i++) {
        if (evaluation->config->seen[i % N_EVALUATE_SEEN]) {
            n += add_columns(evaluation, i / N_EVALUATE_SEEN, i % N_EVALUATE_SEEN, columns + n);
        }
    }
    buf_append_text(text, "user\tn_prefix\tnext_item");
    for (size_t c = 0; c < n; c++) {
        buf_printf(text, "\t%s", columns[c].name);
    }
    buf_append_char(text, '\n');
    for (size_t i = 0; i < cases->n; i++) {
        const struct evaluate_case *one = &cases->cases[i];
        if (cases->users != NULL) {
            buf_append_text(text, idmap_id(cases->users, one->user, NULL));
        } else {
            buf_printf(text, "%u", one->user);
        }
        buf_printf(text, "\t%u\t%s", one->n_prefix, idmap_id(cases->items, one->next, NULL));
        for (size_t c = 0; c < n; c++) {
            buf_append_char(text, '\t');
            if (columns[c].ranks[i] > 0) {
                buf_printf(text, "%u", columns[c].ranks[i]);
            }
        }
        buf_append_char(text, '\n');
    }
}

enum status evaluation_write_ranks(const struct evaluation *evaluation, const char *path,
                                   struct error *err)
{
    struct buf text;
    buf_init(&text, RANKS_MAX_BYTES);
    print_ranks(evaluation, &text);
    enum status status = text.status;
    if (status != STATUS_OK) {
        status = error_set(err, status, "text of %s", path);
    } else {
        status = file_write_atomic(path, text.data, text.len, err);
    }
    buf_free(&text);
    return status;
}
