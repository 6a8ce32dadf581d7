#include "index/index_internal.h"

#include <stdio.h>
#include <string.h>

/* Finds the cheapest search effort that reaches a recall.
 *
 * Recall grows with the effort and the time with it, so the effort climbs a ladder (1, 2, 4, 8, 16,
 * 24, 32, 48, 64, 96, …) until it is enough, then halves the gap to the rung before. Climbing costs
 * little more than its last rung; starting at the top would search every list. With refinement
 * there are two numbers, of which more of one saves of the other: for each factor the probes are
 * tuned, both are timed, and when a larger factor no longer helps the search ends. Rejected: FAISS'
 * OperatingPoints, which tries random settings and prints. */

enum { GAP_SHARE = 16 }; /* the value found is at most a sixteenth too high */
enum { COARSE_EF_SEARCH = 128, EF_SEARCH_FIRST = 16, EF_SEARCH_LAST = 1024 };

struct tuning {
    struct vector_index *index;
    const struct index_reference *reference;
    double target;
    struct index_effort best; /* of those that reach the target, else the one of best recall */
    double best_recall;
    double best_worst;
    struct error *err;
};

static size_t next_rung(size_t value)
{
    if (value < 16) {
        return 2 * value;
    }
    return (value & (value - 1)) == 0 ? value / 2 * 3 : value / 3 * 4;
}

static enum status try_effort(struct tuning *tuning, const struct index_effort *effort,
                              double *recall)
{
    double worst = 0.0;
    enum status status = vector_index_set_effort(tuning->index, effort, tuning->err);
    if (status == STATUS_OK) {
        status =
            index_measure_recall(tuning->index, tuning->reference, recall, &worst, tuning->err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (tuning->best_recall < tuning->target ? *recall > tuning->best_recall
                                             : *recall >= tuning->target) {
        tuning->best = *effort;
        tuning->best_recall = *recall;
        tuning->best_worst = worst;
    }
    return STATUS_OK;
}

/* Lowers *value, a member of *effort, to the least within [min, max] that reaches the target. What
 * reaches it later replaces what did before, so tries go downwards once it is reached. *reached is
 * false when max does not. */
static enum status climb(struct tuning *tuning, struct index_effort *effort, size_t *value,
                         size_t min, size_t max, bool *reached)
{
    size_t failed = min - 1; /* the highest value known to be too low */
    double recall = 0.0;
    *reached = false;
    for (size_t rung = min; !*reached; rung = next_rung(rung)) {
        *value = rung < max ? rung : max;
        enum status status = try_effort(tuning, effort, &recall);
        if (status != STATUS_OK) {
            return status;
        }
        *reached = recall >= tuning->target;
        if (!*reached) {
            failed = *value;
            if (*value == max) {
                return STATUS_OK;
            }
        }
    }
    size_t good = *value;
    while (good - failed > 1 && (good - failed) * GAP_SHARE > good) {
        *value = failed + (good - failed) / 2;
        enum status status = try_effort(tuning, effort, &recall);
        if (status != STATUS_OK) {
            return status;
        }
        if (recall >= tuning->target) {
            good = *value;
        } else {
            failed = *value;
        }
    }
    *value = good;
    return STATUS_OK;
}

static size_t probes_max(const struct index_kind *kind)
{
    return kind->n_lists < INDEX_PROBES_MAX ? kind->n_lists : INDEX_PROBES_MAX;
}

/* A graph of centroids is searched as widely as lists are probed, and at least this widely. */
static size_t coarse_effort(const struct index_kind *kind)
{
    return kind->family == INDEX_IVF && kind->links != 0 ? COARSE_EF_SEARCH : 0;
}

/* Whatever is tried next is better than nothing. */
static void forget(struct tuning *tuning)
{
    tuning->best_recall = -1.0;
}

static enum status tune_refinement(struct tuning *tuning, const struct index_kind *kind)
{
    struct tuning winner = *tuning;
    double winner_us = 0.0;
    bool any = false;
    for (size_t factor = 1; factor <= INDEX_REFINE_FACTOR_MAX; factor *= 2) {
        struct index_effort effort = {.n_probes = probes_max(kind),
                                      .ef_search = coarse_effort(kind),
                                      .refine_factor = factor};
        double recall = 0.0;
        bool reached = false;
        forget(tuning);
        enum status status = try_effort(tuning, &effort, &recall);
        if (status == STATUS_OK && recall >= tuning->target) { /* can it be reached at all? */
            status = climb(tuning, &effort, &effort.n_probes, INDEX_PROBES_MIN, probes_max(kind),
                           &reached);
        }
        double p50_us = 0.0;
        double p99_us = 0.0;
        if (status == STATUS_OK && reached) {
            status = vector_index_set_effort(tuning->index, &tuning->best, tuning->err);
        }
        if (status == STATUS_OK && reached) {
            status =
                index_measure_time(tuning->index, tuning->reference, &p50_us, &p99_us, tuning->err);
        }
        if (status != STATUS_OK) {
            return status;
        }
        if (any && p50_us >= winner_us) {
            break;
        }
        if (reached || tuning->best_recall > winner.best_recall) {
            winner = *tuning;
            winner_us = p50_us;
            any = reached;
        }
    }
    *tuning = winner;
    return STATUS_OK;
}

static enum status tune_kind(struct tuning *tuning, const struct index_kind *kind)
{
    struct index_effort effort = {.ef_search = coarse_effort(kind)};
    double recall = 0.0;
    bool reached = false;
    switch (kind->family) {
    case INDEX_FLAT:
        return try_effort(tuning, &effort, &recall);
    case INDEX_HNSW:
        return climb(tuning, &effort, &effort.ef_search, EF_SEARCH_FIRST, EF_SEARCH_LAST, &reached);
    case INDEX_IVF:
        break;
    }
    if (kind->refine) {
        return tune_refinement(tuning, kind);
    }
    return climb(tuning, &effort, &effort.n_probes, INDEX_PROBES_MIN, probes_max(kind), &reached);
}

enum status index_tune(struct vector_index *index, const struct index_kind *kind,
                       const struct index_reference *reference, double target_recall,
                       struct vector_index_measured *measured, struct error *err)
{
    struct tuning tuning = {
        .index = index, .reference = reference, .target = target_recall, .err = err};
    forget(&tuning);
    enum status status = tune_kind(&tuning, kind);
    if (status == STATUS_OK) {
        status = vector_index_set_effort(index, &tuning.best, err);
    }
    if (status == STATUS_OK) {
        status = index_measure_time(index, reference, &measured->search_p50_us,
                                    &measured->search_p99_us, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    struct vector_index_info info = vector_index_info(index);
    (void)snprintf(measured->search_parameters, sizeof measured->search_parameters, "%s",
                   info.search_parameters);
    measured->recall = tuning.best_recall;
    measured->recall_worst = tuning.best_worst;
    measured->recall_k = reference->k;
    measured->n_queries = reference->n_queries;
    if (tuning.best_recall < target_recall) {
        return error_set(
            err, STATUS_LIMIT, "%s reaches a recall@%zu of %.4f (with %s), not the wanted %.4f",
            info.factory, reference->k, tuning.best_recall,
            info.search_parameters[0] != '\0' ? info.search_parameters : "no parameters",
            target_recall);
    }
    return STATUS_OK;
}
