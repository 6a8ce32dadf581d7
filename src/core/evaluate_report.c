/* Figures of an offline evaluation as a table or as JSON. A figure without its protocol, its
 * candidates and what became of seen items is worth nothing, so that these stand beside each. */
#include "core/evaluate_report.h"

#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/json_write.h"

enum { NAME_BYTES = 64 };

/* By enum evaluate_row. */
static const char *const ROW_KEYS[] = {"vector", "neighbors", "blend", "popularity",
                                       "popularity_recent"};

static bool with_both(const struct evaluate_config *config)
{
    return config->seen[EVALUATE_SEEN_RANKED] && config->seen[EVALUATE_SEEN_EXCLUDED];
}

static enum evaluate_seen first_seen(const struct evaluate_config *config)
{
    return config->seen[EVALUATE_SEEN_RANKED] ? EVALUATE_SEEN_RANKED : EVALUATE_SEEN_EXCLUDED;
}

static void ranking_name(const struct evaluate_config *config, char name[NAME_BYTES])
{
    if (config->n_negatives > 0) {
        (void)snprintf(name, NAME_BYTES, "%zu sampled negatives", config->n_negatives);
    } else {
        (void)snprintf(name, NAME_BYTES, "full catalogue");
    }
}

/* Whether row has a line of its own below what serves. */
static bool is_listed(const struct evaluate_result *result, int row)
{
    if (row == EVALUATE_BLEND || !result->has_row[row]) {
        return false;
    }
    return row != EVALUATE_VECTOR || result->has_row[EVALUATE_NEIGHBORS];
}

/* ---- JSON ---- */

static void metric(struct json_writer *json, const char *name, size_t cutoff, double value)
{
    char key[NAME_BYTES];
    (void)snprintf(key, sizeof(key), "%s@%zu", name, cutoff);
    json_double(json, key, value);
}

static void write_metrics(struct json_writer *json, const struct evaluate_config *config,
                          const struct evaluate_metrics *metrics)
{
    json_begin_object(json, "metrics");
    for (size_t i = 0; i < config->n_cutoffs; i++) {
        metric(json, "hr", config->cutoffs[i], metrics->hr[i]);
        metric(json, "recall", config->cutoffs[i], metrics->hr[i]);
        metric(json, "ndcg", config->cutoffs[i], metrics->ndcg[i]);
        metric(json, "mrr", config->cutoffs[i], metrics->mrr[i]);
    }
    json_end_object(json);
    for (size_t i = 0; i < config->n_cutoffs; i++) {
        metric(json, "coverage", config->cutoffs[i], metrics->coverage[i]);
    }
}

static void write_variant(struct json_writer *json, const struct evaluate_config *config,
                          const struct evaluate_result *result, enum evaluate_seen seen)
{
    json_string(json, "seen_items", seen == EVALUATE_SEEN_RANKED ? "ranked" : "excluded");
    write_metrics(json, config, &result->metrics[seen][result->served]);
    json_begin_object(json, "rows");
    for (int row = 0; row < N_EVALUATE_ROWS; row++) {
        if (is_listed(result, row)) {
            json_begin_object(json, ROW_KEYS[row]);
            write_metrics(json, config, &result->metrics[seen][row]);
            json_end_object(json);
        }
    }
    json_end_object(json);
}

static void write_release(struct json_writer *json, const struct evaluate_report *report, size_t i)
{
    const struct evaluate_result *result = &report->results[i];
    json_string(json, "release", result->version);
    json_string(json, "path", report->paths[i]);
    json_string(json, "model", result->architecture);
    json_string(json, "served", ROW_KEYS[result->served]);
    json_int(json, "n_items", (int64_t)result->n_items);
    json_int(json, "n_unknown", (int64_t)result->n_unknown);
    json_int(json, "n_empty", (int64_t)result->n_empty);
    write_variant(json, report->config, result, first_seen(report->config));
    if (with_both(report->config)) {
        json_begin_object(json, "without_seen");
        write_variant(json, report->config, result, EVALUATE_SEEN_EXCLUDED);
        json_end_object(json);
    }
    json_begin_object(json, "user_us");
    json_double(json, "p50", result->user_p50_us);
    json_double(json, "p90", result->user_p90_us);
    json_int(json, "n", (int64_t)result->n_timed);
    json_end_object(json);
    json_double(json, "seconds", result->seconds);
}

static void write_difference(struct json_writer *json, const char *name, size_t cutoff,
                             const struct evaluate_difference *difference)
{
    char key[NAME_BYTES];
    (void)snprintf(key, sizeof(key), "%s@%zu", name, cutoff);
    json_begin_object(json, key);
    json_double(json, "difference", difference->estimate);
    json_begin_array(json, "ci");
    json_double(json, NULL, difference->low);
    json_double(json, NULL, difference->high);
    json_end_array(json);
    json_end_object(json);
}

static void write_comparison(struct json_writer *json, const struct evaluate_report *report,
                             const struct evaluate_comparison *c, enum evaluate_seen seen)
{
    json_begin_object(json, NULL);
    json_string(json, "base", report->results[c->base].version);
    json_string(json, "release", report->results[c->other].version);
    json_string(json, "path", report->paths[c->other]);
    json_string(json, "seen_items", seen == EVALUATE_SEEN_RANKED ? "ranked" : "excluded");
    json_begin_object(json, "metrics");
    write_difference(json, "hr", c->cutoff, &c->hr);
    write_difference(json, "recall", c->cutoff, &c->hr);
    write_difference(json, "ndcg", c->cutoff, &c->ndcg);
    write_difference(json, "mrr", c->cutoff, &c->mrr);
    json_end_object(json);
    json_int(json, "n_users", (int64_t)c->n_users);
    json_int(json, "n_resamples", (int64_t)c->n_resamples);
    json_end_object(json);
}

void evaluate_report_json(const struct evaluate_report *report, struct buf *out)
{
    const struct evaluate_config *config = report->config;
    char text[NAME_BYTES];
    struct json_writer json;
    json_writer_init(&json, out);
    json_begin_object(&json, NULL);
    json_string(&json, "protocol", evaluate_protocol_name(config->protocol));
    if (config->protocol == PROTOCOL_TIME_SPLIT) {
        time_format_rfc3339(config->since_ms, text);
        json_string(&json, "since", text);
    }
    ranking_name(config, text);
    json_string(&json, "ranking", text);
    json_int(&json, "seed", (int64_t)config->seed);
    json_int(&json, "n", (int64_t)report->results[0].n);
    write_release(&json, report, 0);
    if (report->n_releases > 1) {
        json_begin_array(&json, "releases");
        for (size_t i = 0; i < report->n_releases; i++) {
            json_begin_object(&json, NULL);
            write_release(&json, report, i);
            json_end_object(&json);
        }
        json_end_array(&json);
        json_begin_array(&json, "comparisons");
        for (size_t i = 0; i < (report->n_releases - 1) * N_EVALUATE_SEEN; i++) {
            enum evaluate_seen seen = (enum evaluate_seen)(i % N_EVALUATE_SEEN);
            if (config->seen[seen]) {
                write_comparison(&json, report, &report->comparisons[i], seen);
            }
        }
        json_end_array(&json);
    }
    json_end_object(&json);
}

/* ---- tables ---- */

static void table_head(const struct evaluate_config *config, size_t name_width, struct buf *out)
{
    static const char *const names[] = {"ndcg", "mrr", "cover"};
    buf_printf(out, "%-*s", (int)name_width, "");
    for (size_t i = 0; i < config->n_cutoffs; i++) {
        char title[NAME_BYTES];
        (void)snprintf(title, sizeof(title), "hr=recall@%zu", config->cutoffs[i]);
        buf_printf(out, "  %13s", title);
        for (size_t m = 0; m < sizeof(names) / sizeof(names[0]); m++) {
            (void)snprintf(title, sizeof(title), "%s@%zu", names[m], config->cutoffs[i]);
            buf_printf(out, " %9s", title);
        }
    }
    buf_append_char(out, '\n');
}

static void table_row(const char *name, size_t name_width, const struct evaluate_config *config,
                      const struct evaluate_metrics *metrics, struct buf *out)
{
    buf_printf(out, "%-*s", (int)name_width, name);
    for (size_t i = 0; i < config->n_cutoffs; i++) {
        buf_printf(out, "  %13.4f %9.4f %9.4f ", metrics->hr[i], metrics->ndcg[i], metrics->mrr[i]);
        if (isnan(metrics->coverage[i])) {
            buf_printf(out, "%9s", "-");
        } else {
            buf_printf(out, "%9.4f", metrics->coverage[i]);
        }
    }
    buf_append_char(out, '\n');
}

static void row_name(const struct evaluate_report *report, size_t i, int row, char name[NAME_BYTES])
{
    size_t days = report->config->popularity_days;
    int n = 0;
    if (report->n_releases > 1) {
        n = snprintf(name, NAME_BYTES, "%zu. ", i + 1);
    }
    char *at = name + n;
    size_t size = NAME_BYTES - (size_t)n;
    if (row < 0) {
        (void)snprintf(at, size, "model");
    } else if (row == EVALUATE_RECENT) {
        (void)snprintf(at, size, "popularity, last %zu days", days);
    } else {
        (void)snprintf(at, size, "%s", ROW_KEYS[row]);
    }
}

static void write_tables(const struct evaluate_report *report, enum evaluate_seen seen,
                         struct buf *out)
{
    enum { WIDTH = 29 };
    char ranking[NAME_BYTES];
    char name[NAME_BYTES];
    ranking_name(report->config, ranking);
    buf_printf(out, "\n%s, %s, items already seen %s\n",
               evaluate_protocol_name(report->config->protocol), ranking,
               seen == EVALUATE_SEEN_RANKED ? "ranked like others" : "not ranked");
    table_head(report->config, WIDTH, out);
    for (size_t i = 0; i < report->n_releases; i++) {
        const struct evaluate_result *result = &report->results[i];
        row_name(report, i, -1, name);
        table_row(name, WIDTH, report->config, &result->metrics[seen][result->served], out);
        for (int row = 0; row < N_EVALUATE_ROWS; row++) {
            if (is_listed(result, row)) {
                row_name(report, i, row, name);
                table_row(name, WIDTH, report->config, &result->metrics[seen][row], out);
            }
        }
    }
}

static void write_differences(const struct evaluate_report *report, enum evaluate_seen seen,
                              struct buf *out)
{
    for (size_t i = 0; i + 1 < report->n_releases; i++) {
        const struct evaluate_comparison *c = &report->comparisons[i * N_EVALUATE_SEEN + seen];
        const struct {
            const char *name;
            const struct evaluate_difference *difference;
        } metrics[] = {{"hr=recall", &c->hr}, {"ndcg", &c->ndcg}, {"mrr", &c->mrr}};
        buf_printf(out, "\n%zu minus %zu, 95 %% interval of %zu bootstrap resamples of %zu %s\n",
                   c->other + 1, c->base + 1, c->n_resamples, c->n_users,
                   report->config->protocol == PROTOCOL_PAIRS ? "pairs" : "users");
        for (size_t m = 0; m < sizeof(metrics) / sizeof(metrics[0]); m++) {
            char name[NAME_BYTES];
            (void)snprintf(name, sizeof(name), "%s@%zu", metrics[m].name, c->cutoff);
            buf_printf(out, "%-15s %+9.4f  (%+.4f to %+.4f)\n", name,
                       metrics[m].difference->estimate, metrics[m].difference->low,
                       metrics[m].difference->high);
        }
    }
}

void evaluate_report_table(const struct evaluate_report *report, struct buf *out)
{
    const struct evaluate_config *config = report->config;
    buf_printf(out, "%llu cases", (unsigned long long)report->results[0].n);
    if (config->protocol == PROTOCOL_TIME_SPLIT) {
        char time[TIME_TEXT_BYTES];
        time_format_rfc3339(config->since_ms, time);
        buf_printf(out, " after %s", time);
    }
    buf_append_text(out, ", one right item each: recall is hr; ties count against the model\n");
    if (config->n_negatives > 0) {
        buf_printf(out,
                   "ranked among %zu sampled negatives (seed %llu): for comparison with figures "
                   "made the same way only\n",
                   config->n_negatives, (unsigned long long)config->seed);
    }
    for (size_t i = 0; i < report->n_releases; i++) {
        const struct evaluate_result *result = &report->results[i];
        if (report->n_releases > 1) {
            buf_printf(out, "%zu. ", i + 1);
        }
        buf_printf(out,
                   "release %s (%s, serves %s, %zu items): %llu cases of items that it does not "
                   "know, missed; %llu with nothing to go by, answered by popularity; a user takes "
                   "%.1f µs (p90 %.1f); %.1f s\n",
                   result->version, result->architecture, ROW_KEYS[result->served], result->n_items,
                   (unsigned long long)result->n_unknown, (unsigned long long)result->n_empty,
                   result->user_p50_us, result->user_p90_us, result->seconds);
    }
    for (int seen = 0; seen < N_EVALUATE_SEEN; seen++) {
        if (config->seen[seen]) {
            write_tables(report, (enum evaluate_seen)seen, out);
            write_differences(report, (enum evaluate_seen)seen, out);
        }
    }
}
