/* Search of training settings under a budget of time.
 *
 * Successive halving (K. Jamieson, A. Talwalkar, "Non-stochastic Best Arm Identification and
 * Hyperparameter Optimization", AISTATS 2016, section 3) with a third kept instead of a half: n
 * candidates are trained for r epochs, the best third of them for 3 r in all, and so on, each going
 * on from its own checkpoint. A rung costs about the same as the one before it, so that nearly all
 * time but the first rung's goes to candidates that proved themselves. Models of the settings
 * (Gaussian processes, trees) were rejected: with the some ten to sixty trainings that a budget
 * allows they gain little over random ones, and their choices are hard to retrace.
 *
 * Departures: base takes part in every rung, first, whatever its place: what is better than base
 * has been better after as many epochs. Candidates are compared by the best epoch so far, as early
 * stopping would keep that one; all use the seed of base, so that they differ by their settings
 * alone; a variation changes only about half of the settings, as base is a sensible point already
 * and one far from it in all settings at once is rarely better. The rate's schedule is as long as
 * the last rung, so that the finalists are compared with their rates run down as at the end of a
 * training. Where there is no time for a last rung of a tenth of base's epochs there is no search:
 * the first epochs tell little of the last ones (made-up walks over 400 items, 2 cores: the winner
 * of three candidates after 3 of 60 epochs ended at an nDCG@10 of 0.43, base at 0.55).
 *
 * The plan follows from the time of one epoch of base. Larger variations take longer than base:
 * COST_OF_VARIATION is the mean over the distribution below, and no further candidate is begun when
 * the measured times say that the later rungs would suffer. */
#include "core/train_search.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"

#define FOLDER_NAME ".aisle-search"

enum {
    KEEP = TRAIN_SEARCH_KEEP_ONE_OF,
    DIM_STEP = 8,
    BLOCKS_MAX = 3,
    FINGERPRINT_BYTES = 40,
    SHORTEST_OF = 10, /* the last rung is this part of base's epochs at least */
};
static const double COST_OF_VARIATION = 1.3;
static const double NEVER_SECONDS = 1e30;

struct search {
    const struct train_search_config *config;
    struct train_search_report *report;
    char folder[PATH_BYTES_MAX];
    int64_t start_us;
    double seconds_max; /* of the search */
    size_t n_epochs;    /* of the last rung */
    bool is_given;      /* the plan, not by the budget */
};

/* ---- candidates ---- */

static bool changes(struct rng *rng)
{
    return rng_double(rng) < 0.5;
}

static double between(struct rng *rng, double from, double to)
{
    return from + (to - from) * rng_double(rng);
}

static size_t heads_of(const struct trainer_settings *settings)
{
    return settings->architecture == &network_sasrec ? settings->network.sasrec.n_heads : 1;
}

/* value × ½, 1 or 2. */
static size_t half_or_twice(struct rng *rng, size_t value)
{
    static const double FACTORS[] = {0.5, 1.0, 2.0};
    return (size_t)((double)value * FACTORS[rng_below(rng, 3)]);
}

static void vary_dim(struct rng *rng, struct trainer_settings *settings)
{
    size_t unit = heads_of(settings) * DIM_STEP;
    size_t before = settings->dim;
    size_t wanted = half_or_twice(rng, before);
    size_t dim = (wanted + unit / 2) / unit * unit;
    dim = dim < unit ? unit : dim;
    if (wanted == before || dim > SASREC_DIM_MAX) {
        return;
    }
    settings->dim = dim;
    double growth = (double)dim / (double)before;
    if (settings->architecture == &network_sasrec) {
        size_t ffn = (size_t)llround((double)settings->network.sasrec.ffn_dim * growth);
        settings->network.sasrec.ffn_dim = ffn > SASREC_FFN_DIM_MAX ? SASREC_FFN_DIM_MAX
                                           : ffn < 1                ? 1
                                                                    : ffn;
    } else if (settings->architecture == &network_gru4rec && settings->network.gru4rec.has_output) {
        size_t hidden = (size_t)llround((double)settings->network.gru4rec.hidden_dim * growth);
        settings->network.gru4rec.hidden_dim = hidden > GRU4REC_DIM_MAX ? GRU4REC_DIM_MAX
                                               : hidden < 1             ? 1
                                                                        : hidden;
    }
}

static void vary_loss(struct rng *rng, struct loss_settings *loss)
{
    static const double SMOOTHING[] = {0.0, 0.05, 0.1, 0.2};
    if (loss->kind == LOSS_FULL) {
        loss->label_smoothing = SMOOTHING[rng_below(rng, 4)];
    } else if (!loss->in_batch) {
        size_t n = half_or_twice(rng, loss->n_negatives);
        loss->n_negatives = n < 1 ? 1 : n > LOSS_NEGATIVES_MAX ? LOSS_NEGATIVES_MAX : n;
    }
}

/* Candidate i of a seed is the same however many there are. */
static void make_candidate(const struct train_search_config *config, size_t i,
                           struct trainer_settings *out)
{
    *out = *config->base;
    if (i == 0) {
        return;
    }
    struct rng rng;
    const uint64_t parts[] = {config->seed, i};
    rng_init(&rng, hash_bytes(parts, sizeof(parts), 0));
    /* The rate is the setting that matters most: always varied. */
    double rate = out->learning_rate * pow(4.0, between(&rng, -1.0, 1.0));
    out->learning_rate = fmin(fmax(rate, 1e-8), 10.0);
    if (changes(&rng)) {
        out->dropout = between(&rng, 0.0, 0.6);
    }
    if (changes(&rng)) {
        out->input_dropout = between(&rng, 0.0, 0.6);
    }
    if (changes(&rng)) {
        vary_dim(&rng, out);
    }
    if (changes(&rng) && out->architecture == &network_sasrec) {
        out->network.sasrec.n_blocks = 1 + (size_t)rng_below(&rng, BLOCKS_MAX);
    }
    if (changes(&rng)) {
        size_t n = half_or_twice(&rng, out->batch_events);
        out->batch_events = n < out->history_max ? out->history_max : n > (1 << 20) ? 1 << 20 : n;
    }
    if (changes(&rng)) {
        out->normalised_scale = rng_below(&rng, 3) == 0 ? 0.0 : between(&rng, 8.0, 24.0);
    }
    if (changes(&rng)) {
        vary_loss(&rng, &out->loss);
    }
    if (changes(&rng)) {
        out->average = rng_below(&rng, 2) == 0 ? 0.0 : 0.999;
    }
}

/* ---- the clock ---- */

static double seconds_since(int64_t start_us)
{
    return (double)(clock_monotonic_us() - start_us) / 1e6;
}

static double seconds_left(const struct search *search)
{
    return search->seconds_max - seconds_since(search->start_us);
}

static bool is_interrupted(const struct search *search)
{
    const volatile sig_atomic_t *interrupted = search->config->base->interrupted;
    return interrupted != NULL && *interrupted != 0;
}

static enum status say_interrupted(struct error *err)
{
    return error_set(err, STATUS_UNAVAILABLE, "interrupted while searching for settings");
}

/* ---- one training of a candidate ---- */

static enum status checkpoint_path(const struct search *search, size_t i, char out[PATH_BYTES_MAX],
                                   struct error *err)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "candidate-%zu", i);
    return path_join(out, search->folder, name, err);
}

static double best_of(const struct trainer_curve *curve)
{
    double best = (double)NAN;
    for (size_t i = 0; i < curve->n; i++) {
        best = fmax(best, (double)curve->points[i].ndcg10); /* fmax passes over NAN */
    }
    return best;
}

/* Trains row i until it has `epochs`, or until time is up: then OK as well, with fewer epochs. What
 * makes a candidate useless is no error but a row that failed. */
static enum status train_row(struct search *search, size_t i, size_t epochs, struct error *err)
{
    struct train_search_row *row = &search->report->rows[i];
    char path[PATH_BYTES_MAX];
    char fingerprint[FINGERPRINT_BYTES];
    struct trainer *trainer = NULL;
    int64_t start_us = clock_monotonic_us();
    enum status status = checkpoint_path(search, i, path, err);
    if (status != STATUS_OK) {
        return status;
    }
    (void)snprintf(fingerprint, sizeof(fingerprint), "search %016llx %zu",
                   (unsigned long long)search->config->seed, i);
    struct trainer_settings settings = row->settings;
    settings.n_epochs = search->n_epochs;
    settings.patience = 0;
    settings.show_progress = false;
    settings.checkpoint_path = path;
    settings.fingerprint = fingerprint;
    settings.checkpoint_seconds = NEVER_SECONDS;
    settings.stop_after_steps = 0;
    settings.stop_after_epochs = epochs;
    settings.stop_after_seconds = fmax(seconds_left(search), 1e-3);
    status = trainer_open(&settings, search->config->log, search->config->n_items, &trainer, err);
    if (status == STATUS_OK) {
        status = trainer_run(trainer, err);
        row->ndcg10 = best_of(trainer_curve(trainer));
        row->n_epochs = trainer_curve(trainer)->n;
    }
    trainer_close(trainer);
    row->seconds += seconds_since(start_us);
    if (status == STATUS_UNAVAILABLE) {
        status = is_interrupted(search) ? say_interrupted(err) : STATUS_OK;
    } else if (status == STATUS_INVALID && i > 0) {
        row->failed = true;
        status = STATUS_OK;
    }
    return status;
}

/* ---- the plan ---- */

static size_t power(size_t n)
{
    size_t value = 1;
    while (n-- > 0) {
        value *= KEEP;
    }
    return value;
}

/* Epochs of n candidates through all rungs and of base beside them, if the first rung is of one
 * epoch: a later one only adds the two thirds of its epochs that its candidates do not have yet. */
static double plan_epochs(size_t n_rungs, size_t n)
{
    return (double)n * (1.0 + (double)(n_rungs - 1) * (KEEP - 1) / KEEP) +
           (double)(power(n_rungs - 1) - 1);
}

/* As many rungs as the epochs that there is time for allow, with one candidate left at the end;
 * what remains makes the first rung longer, then wider. false: there is no time even for two rungs.
 */
static bool make_plan(double n_affordable, size_t n_epochs_max, struct train_search_report *report)
{
    size_t shortest = (n_epochs_max + SHORTEST_OF - 1) / SHORTEST_OF;
    for (size_t rungs = TRAIN_SEARCH_RUNGS_MAX; rungs >= 2; rungs--) {
        size_t widest = power(rungs - 1);
        size_t least = (shortest + widest - 1) / widest;
        size_t longest = n_epochs_max / widest;
        double first = floor(fmin(n_affordable / plan_epochs(rungs, widest), (double)longest));
        if (first < (double)least || first < 1.0) {
            continue;
        }
        double beside = plan_epochs(rungs, 0);
        double wide = (n_affordable / first - beside) / (plan_epochs(rungs, 1) - beside);
        report->n = (size_t)fmin(wide, TRAIN_SEARCH_CANDIDATES_MAX);
        report->n_rungs = rungs;
        report->first_epochs = (size_t)first;
        return true;
    }
    return false;
}

/* Time of one epoch of base with its validation. What it learns is thrown away, as its rates belong
 * to a schedule of one epoch. */
static enum status measure_epoch(struct search *search, struct error *err)
{
    struct train_search_report *report = search->report;
    struct trainer_settings settings = *search->config->base;
    struct trainer *trainer = NULL;
    int64_t start_us = clock_monotonic_us();
    settings.n_epochs = 1;
    settings.show_progress = false;
    settings.checkpoint_path = NULL;
    settings.stop_after_steps = 0;
    settings.stop_after_epochs = 0;
    settings.stop_after_seconds = search->seconds_max;
    enum status status =
        trainer_open(&settings, search->config->log, search->config->n_items, &trainer, err);
    if (status == STATUS_OK) {
        status = trainer_run(trainer, err);
    }
    if (status == STATUS_OK && trainer_curve(trainer)->n_cases == 0) {
        status = error_set_field(err, STATUS_INVALID, "validation",
                                 "no held-out event to compare settings by");
    }
    trainer_close(trainer);
    if (status == STATUS_UNAVAILABLE) {
        report->too_short = true;
        return is_interrupted(search) ? say_interrupted(err) : STATUS_OK;
    }
    report->epoch_seconds = seconds_since(start_us);
    return status;
}

static enum status plan_by_budget(struct search *search, struct error *err)
{
    struct train_search_report *report = search->report;
    enum status status = measure_epoch(search, err);
    if (status != STATUS_OK) {
        return status;
    }
    double epoch_seconds = fmax(report->epoch_seconds, 1e-6) * COST_OF_VARIATION;
    if (report->too_short ||
        !make_plan(seconds_left(search) / epoch_seconds, search->config->base->n_epochs, report)) {
        report->too_short = true;
        report->n = 1;
        LOG_WARN("the budget is too short for a search: settings stay as they are",
                 LOG_F("budget_seconds", search->config->budget_seconds),
                 LOG_F("epoch_seconds", report->epoch_seconds));
    }
    return STATUS_OK;
}

static enum status plan(struct search *search, struct error *err)
{
    const struct train_search_config *config = search->config;
    struct train_search_report *report = search->report;
    enum status status = STATUS_OK;
    if (search->is_given) {
        report->n = config->n_candidates;
        report->n_rungs = config->n_rungs;
        report->first_epochs = config->first_epochs;
    } else {
        status = plan_by_budget(search, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    search->n_epochs = report->first_epochs * power(report->n_rungs > 0 ? report->n_rungs - 1 : 0);
    for (size_t i = 0; i < report->n; i++) {
        report->rows[i] = (struct train_search_row){.ndcg10 = (double)NAN};
        make_candidate(config, i, &report->rows[i].settings);
    }
    return STATUS_OK;
}

/* ---- the rungs ---- */

static size_t keep_of(size_t n)
{
    return n / KEEP > 0 ? n / KEEP : 1;
}

static bool is_better(const struct train_search_row *a, const struct train_search_row *b)
{
    if (a->failed != b->failed) {
        return b->failed;
    }
    return isnan(b->ndcg10) ? !isnan(a->ndcg10) : a->ndcg10 > b->ndcg10;
}

/* The best first; equal ones stay in their order, so that base goes before its equals. */
static void sort_rows(const struct train_search_report *report, size_t *order, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        size_t row = order[i];
        size_t at = i;
        while (at > 0 && is_better(&report->rows[row], &report->rows[order[at - 1]])) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = row;
    }
}

/* The best third of order[0..n), and base before them; returns how many. */
static size_t keep_best(const struct train_search_report *report, size_t *order, size_t n)
{
    sort_rows(report, order, n);
    n = keep_of(n);
    size_t at = 0;
    while (at < n && order[at] != 0) {
        at++;
    }
    n += at == n ? 1 : 0; /* there is room: base was in order before */
    memmove(order + 1, order, at * sizeof(*order));
    order[0] = 0;
    return n;
}

static void log_row(const struct search *search, size_t i, size_t rung)
{
    const struct train_search_row *row = &search->report->rows[i];
    LOG_INFO("search candidate", LOG_I("candidate", i), LOG_I("of", search->report->n),
             LOG_I("rung", rung + 1), LOG_I("rungs", search->report->n_rungs),
             LOG_I("epochs", row->n_epochs), LOG_F("ndcg10", row->ndcg10),
             LOG_F("seconds", row->seconds), LOG_F("learning_rate", row->settings.learning_rate),
             LOG_I("dim", row->settings.dim), LOG_S("state", row->failed ? "failed" : "ok"));
}

/* Whether one more first-rung candidate, number n + 1, would leave too little time for the rungs to
 * come, by the mean time of an epoch so far. */
static bool is_full(const struct search *search, size_t n)
{
    const struct train_search_report *report = search->report;
    double seconds = 0.0;
    double epochs = 0.0;
    for (size_t i = 0; i < n; i++) {
        seconds += report->rows[i].seconds;
        epochs += (double)report->rows[i].n_epochs;
    }
    if (search->is_given || n < KEEP || epochs <= 0.0) {
        return false;
    }
    double to_come = (double)report->first_epochs;
    size_t kept = n + 1;
    for (size_t rung = 1; rung < report->n_rungs; rung++) {
        kept = keep_of(kept);
        size_t more = report->first_epochs * (power(rung) - power(rung - 1));
        to_come += (double)((kept + 1) * more); /* base beside them */
    }
    return to_come * seconds / epochs > seconds_left(search);
}

/* One rung over the candidates order[0..*n); *n falls when no more are begun. */
static enum status run_rung(struct search *search, size_t rung, const size_t *order, size_t *n,
                            struct error *err)
{
    struct train_search_report *report = search->report;
    size_t epochs = report->first_epochs * power(rung);
    for (size_t i = 0; i < *n; i++) {
        struct train_search_row *row = &report->rows[order[i]];
        if (rung == 0 && is_full(search, i)) {
            *n = i;
            report->n = i;
            break;
        }
        if (is_interrupted(search)) {
            return say_interrupted(err);
        }
        if (seconds_left(search) <= 0.0) {
            report->out_of_time = true;
            break;
        }
        enum status status = row->failed ? STATUS_OK : train_row(search, order[i], epochs, err);
        if (status != STATUS_OK) {
            return status;
        }
        report->out_of_time = !row->failed && row->n_epochs < epochs;
        row->n_rungs += row->failed || report->out_of_time ? 0 : 1;
        log_row(search, order[i], rung);
        if (report->out_of_time) {
            break;
        }
    }
    return STATUS_OK;
}

static enum status run_rungs(struct search *search, struct error *err)
{
    struct train_search_report *report = search->report;
    size_t order[TRAIN_SEARCH_CANDIDATES_MAX] = {0};
    size_t n = report->n;
    for (size_t i = 0; i < n; i++) {
        order[i] = i;
    }
    for (size_t rung = 0; rung < report->n_rungs && !report->out_of_time; rung++) {
        enum status status = run_rung(search, rung, order, &n, err);
        if (status != STATUS_OK) {
            return status;
        }
        n = keep_best(report, order, n);
    }
    /* The best of all is one of the last rung, as a candidate's best epoch can only gain; when time
     * ran out it is the best that was seen, never after more epochs than base. */
    for (size_t i = 1; i < report->n; i++) {
        report->best = is_better(&report->rows[i], &report->rows[report->best]) ? i : report->best;
    }
    return STATUS_OK;
}

/* ---- the search ---- */

static enum status check_config(const struct train_search_config *config, struct error *err)
{
    const size_t given[] = {config->n_candidates, config->n_rungs, config->first_epochs};
    size_t n_given = 0;
    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
        n_given += given[i] != 0 ? 1 : 0;
    }
    if (!(config->budget_seconds > 0.0) || !isfinite(config->budget_seconds)) {
        return error_set_field(err, STATUS_INVALID, "budget", "the budget must be above 0 seconds");
    }
    if (config->base->data.validation == VALIDATE_NONE) {
        return error_set_field(err, STATUS_INVALID, "validation",
                               "settings can only be compared with a validation");
    }
    if ((n_given != 0 && n_given != 3) || config->n_candidates > TRAIN_SEARCH_CANDIDATES_MAX ||
        config->n_rungs > TRAIN_SEARCH_RUNGS_MAX || config->first_epochs > TRAINER_CURVE_MAX) {
        return error_set_field(
            err, STATUS_INVALID, "plan",
            "candidates (up to %d), rungs (up to %d) and epochs together, or none",
            TRAIN_SEARCH_CANDIDATES_MAX, TRAIN_SEARCH_RUNGS_MAX);
    }
    return STATUS_OK;
}

/* A fixed name: what a killed search left behind is removed by the next one. */
static enum status make_folder(struct search *search, struct error *err)
{
    enum status status = path_join(search->folder, search->config->folder, FOLDER_NAME, err);
    if (status == STATUS_OK) {
        status = dir_remove(search->folder, err);
    }
    return status == STATUS_OK ? dir_make(search->folder, err) : status;
}

enum status train_search(const struct train_search_config *config, struct trainer_settings *best,
                         struct train_search_report *report, struct error *err)
{
    struct error own; /* the trainer wants one */
    struct search search = {.config = config,
                            .report = report,
                            .start_us = clock_monotonic_us(),
                            .seconds_max = config->budget_seconds * TRAIN_SEARCH_SHARE,
                            .is_given = config->n_candidates != 0};
    err = err != NULL ? err : &own;
    memset(report, 0, sizeof(*report));
    report->epoch_seconds = (double)NAN;
    enum status status = check_config(config, err);
    if (status == STATUS_OK) {
        status = make_folder(&search, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = plan(&search, err);
    if (status == STATUS_OK) {
        status = run_rungs(&search, err);
    }
    struct error removing;
    enum status removed = dir_remove(search.folder, &removing);
    if (status == STATUS_OK && removed != STATUS_OK) {
        *err = removing;
        status = removed;
    }
    report->seconds = seconds_since(search.start_us);
    if (status == STATUS_OK) {
        *best = report->rows[report->best].settings;
    }
    return status;
}

/* ---- the report ---- */

static void encode_row(const struct train_search_row *row, struct json_writer *json)
{
    const struct trainer_settings *s = &row->settings;
    json_begin_object(json, NULL);
    json_double(json, "learning_rate", s->learning_rate);
    json_double(json, "dropout", s->dropout);
    json_double(json, "input_dropout", s->input_dropout);
    json_int(json, "dim", (int64_t)s->dim);
    if (s->architecture == &network_sasrec) {
        json_int(json, "blocks", (int64_t)s->network.sasrec.n_blocks);
    }
    json_int(json, "batch_events", (int64_t)s->batch_events);
    json_double(json, "cosine_scale", s->normalised_scale);
    if (s->loss.kind == LOSS_FULL) {
        json_double(json, "label_smoothing", s->loss.label_smoothing);
    } else {
        json_int(json, "negatives", (int64_t)s->loss.n_negatives);
    }
    json_double(json, "average", s->average);
    json_int(json, "rungs", (int64_t)row->n_rungs);
    json_int(json, "epochs", (int64_t)row->n_epochs);
    json_float(json, "ndcg@10", (float)row->ndcg10);
    json_double(json, "seconds", row->seconds);
    json_bool(json, "failed", row->failed);
    json_end_object(json);
}

void train_search_json(const struct train_search_report *report, struct json_writer *json)
{
    json_begin_object(json, "search");
    json_int(json, "rungs", (int64_t)report->n_rungs);
    json_int(json, "first_epochs", (int64_t)report->first_epochs);
    json_double(json, "epoch_seconds", report->epoch_seconds);
    json_double(json, "seconds", report->seconds);
    json_bool(json, "too_short", report->too_short);
    json_bool(json, "out_of_time", report->out_of_time);
    json_int(json, "best", (int64_t)report->best);
    json_begin_array(json, "candidates");
    for (size_t i = 0; i < report->n; i++) {
        encode_row(&report->rows[i], json);
    }
    json_end_array(json);
    json_end_object(json);
}
