/* Counters of the workers → Prometheus' text format. Histograms keep plain buckets and are summed
 * up to cumulative ones when somebody asks, which is a few times a minute; counting happens
 * thousands of times a second. Rows whose counter is 0 in every worker are left out where a label
 * would otherwise multiply them (endpoint × status). */
#include "api/metrics.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/parse.h"

static const int64_t BUCKET_NS[METRIC_BUCKETS] = {
    10000,   25000,    50000,    100000,   250000,    500000,    1000000,   2500000,
    5000000, 10000000, 25000000, 50000000, 100000000, 250000000, 500000000, 1000000000,
};
static const size_t BATCH_BUCKETS[METRIC_BATCH_BUCKETS] = {1, 2, 4, 8, 16, 32, 64};
static const int STATUSES[METRIC_STATUSES] = {200, 202, 204, 304, 400, 401, 403, 404,
                                              405, 409, 413, 500, 501, 503, 504, 0};
static const enum degraded DEGRADED_PARTS[METRIC_DEGRADED] = {DEGRADED_HISTORY, DEGRADED_METADATA,
                                                              DEGRADED_DEADLINE};
static const double NS_PER_S = 1e9;

void metric_observe(struct metric_histogram *histogram, int64_t ns)
{
    size_t i = 0;
    while (i < METRIC_BUCKETS && ns > BUCKET_NS[i]) {
        i++;
    }
    metric_add(&histogram->buckets[i], 1);
    metric_add(&histogram->sum_ns, (uint64_t)(ns > 0 ? ns : 0));
}

void metrics_count_request(struct metrics *metrics, size_t endpoint, int http_status, int64_t ns)
{
    size_t i = 0;
    while (i < METRIC_STATUSES - 1 && STATUSES[i] != http_status) {
        i++;
    }
    metric_add(&metrics->requests[endpoint][i], 1);
    metric_observe(&metrics->request_seconds[endpoint], ns);
}

void metrics_count_answer(struct metrics *metrics, const struct recommend_answer *answer)
{
    for (size_t i = 0; i < METRIC_DEGRADED; i++) {
        if ((answer->degraded & (unsigned)DEGRADED_PARTS[i]) != 0) {
            metric_add(&metrics->degraded[i], 1);
        }
    }
    for (int s = 0; s < N_STAGES; s++) {
        metric_observe(&metrics->stage_seconds[s], answer->stage_ns[s]);
    }
    metric_add(&metrics->history_unknown, answer->n_history_unknown);
}

void metrics_count_batch(struct metrics *metrics, size_t n_jobs)
{
    size_t i = 0;
    while (i < METRIC_BATCH_BUCKETS && n_jobs > BATCH_BUCKETS[i]) {
        i++;
    }
    metric_add(&metrics->batch_size[i], 1);
    metric_add(&metrics->batch_jobs, n_jobs);
}

/* The sum over workers of the counter at this offset of struct metrics. */
static uint64_t sum(const struct metrics_scrape *scrape, const metric_counter *of_first)
{
    size_t offset = (size_t)((uintptr_t)of_first - (uintptr_t)scrape->workers[0]);
    uint64_t total = 0;
    for (size_t w = 0; w < scrape->n_workers; w++) {
        const void *at = (const char *)scrape->workers[w] + offset;
        total += atomic_load_explicit((const metric_counter *)at, memory_order_relaxed);
    }
    return total;
}

static void write_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_histogram(struct buf *out, const struct metrics_scrape *scrape, const char *name,
                            const char *label, const char *value,
                            const struct metric_histogram *histogram)
{
    uint64_t cumulative = 0;
    for (size_t i = 0; i <= METRIC_BUCKETS; i++) {
        cumulative += sum(scrape, &histogram->buckets[i]);
        if (i < METRIC_BUCKETS) {
            buf_printf(out, "%s_bucket{%s=\"%s\",le=\"%g\"} %" PRIu64 "\n", name, label, value,
                       (double)BUCKET_NS[i] / NS_PER_S, cumulative);
        } else {
            buf_printf(out, "%s_bucket{%s=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, label, value,
                       cumulative);
        }
    }
    buf_printf(out, "%s_sum{%s=\"%s\"} %.9f\n", name, label, value,
               (double)sum(scrape, &histogram->sum_ns) / NS_PER_S);
    buf_printf(out, "%s_count{%s=\"%s\"} %" PRIu64 "\n", name, label, value, cumulative);
}

static void write_requests(struct buf *out, const struct metrics_scrape *scrape)
{
    const struct metrics *first = scrape->workers[0];
    write_head(out, "aisle_requests_total", "counter", "Answered requests.");
    for (size_t e = 0; e < scrape->n_endpoints; e++) {
        for (size_t s = 0; s < METRIC_STATUSES; s++) {
            uint64_t n = sum(scrape, &first->requests[e][s]);
            if (n > 0) {
                buf_printf(out, "aisle_requests_total{endpoint=\"%s\",status=\"%d\"} %" PRIu64 "\n",
                           scrape->endpoints[e], STATUSES[s], n);
            }
        }
    }
    write_head(out, "aisle_request_seconds", "histogram",
               "Time from the request's last byte to its answer.");
    for (size_t e = 0; e < scrape->n_endpoints; e++) {
        uint64_t n = 0;
        for (size_t i = 0; i <= METRIC_BUCKETS; i++) {
            n += sum(scrape, &first->request_seconds[e].buckets[i]);
        }
        if (n > 0) {
            write_histogram(out, scrape, "aisle_request_seconds", "endpoint", scrape->endpoints[e],
                            &first->request_seconds[e]);
        }
    }
}

static void write_pipeline(struct buf *out, const struct metrics_scrape *scrape)
{
    const struct metrics *first = scrape->workers[0];
    write_head(out, "aisle_stage_seconds", "histogram", "Time of a recommendation's stages.");
    for (int s = 0; s < N_STAGES; s++) {
        write_histogram(out, scrape, "aisle_stage_seconds", "stage", stage_name((enum stage)s),
                        &first->stage_seconds[s]);
    }
    write_head(out, "aisle_degraded_total", "counter", "Answers of which a part was degraded.");
    for (size_t i = 0; i < METRIC_DEGRADED; i++) {
        buf_printf(out, "aisle_degraded_total{reason=\"%s\"} %" PRIu64 "\n",
                   degraded_name(DEGRADED_PARTS[i]), sum(scrape, &first->degraded[i]));
    }
    write_head(out, "aisle_batch_size", "histogram", "Recommendations scored together.");
    uint64_t cumulative = 0;
    for (size_t i = 0; i < METRIC_BATCH_BUCKETS; i++) {
        cumulative += sum(scrape, &first->batch_size[i]);
        buf_printf(out, "aisle_batch_size_bucket{le=\"%zu\"} %" PRIu64 "\n", BATCH_BUCKETS[i],
                   cumulative);
    }
    cumulative += sum(scrape, &first->batch_size[METRIC_BATCH_BUCKETS]);
    buf_printf(out,
               "aisle_batch_size_bucket{le=\"+Inf\"} %" PRIu64 "\naisle_batch_size_sum %" PRIu64
               "\naisle_batch_size_count %" PRIu64 "\n",
               cumulative, sum(scrape, &first->batch_jobs), cumulative);
}

static void write_single(struct buf *out, const char *name, const char *type, const char *help,
                         uint64_t value)
{
    write_head(out, name, type, help);
    buf_printf(out, "%s %" PRIu64 "\n", name, value);
}

/* The second number of /proc/self/statm: resident pages. */
static uint64_t resident_bytes(void)
{
    char line[128];
    uint64_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) {
        return 0;
    }
    const char *text = fgets(line, sizeof(line), file);
    (void)fclose(file);
    const char *second = text != NULL ? strchr(text, ' ') : NULL;
    if (second == NULL || !parse_uint64(second + 1, strcspn(second + 1, " \n"), &pages)) {
        return 0;
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void write_process(struct buf *out)
{
    struct rusage usage;
    memset(&usage, 0, sizeof(usage));
    (void)getrusage(RUSAGE_SELF, &usage);
    const double US_PER_S = 1e6;
    double seconds = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                     (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / US_PER_S;
    write_single(out, "process_resident_memory_bytes", "gauge", "Memory in use.", resident_bytes());
    write_head(out, "process_cpu_seconds_total", "counter", "Processor time used.");
    buf_printf(out, "process_cpu_seconds_total %.6f\n", seconds);
}

void metrics_write(struct buf *out, const struct metrics_scrape *scrape)
{
    const struct metrics *first = scrape->workers[0];
    write_requests(out, scrape);
    write_pipeline(out, scrape);
    write_single(out, "aisle_connections", "gauge", "Open connections.",
                 sum(scrape, &first->connections));
    write_single(out, "aisle_connections_refused_total", "counter",
                 "Connections closed because too many were open.",
                 sum(scrape, &first->connections_refused));
    write_single(out, "aisle_requests_in_flight", "gauge", "Requests under way.",
                 sum(scrape, &first->in_flight));
    write_single(out, "aisle_requests_refused_total", "counter",
                 "Requests refused because too many were under way.",
                 sum(scrape, &first->requests_refused));
    write_single(out, "aisle_events_accepted_total", "counter", "Events stored.",
                 sum(scrape, &first->events_accepted));
    write_single(out, "aisle_events_duplicate_total", "counter",
                 "Events whose event_id was there already.", sum(scrape, &first->events_duplicate));
    write_single(out, "aisle_history_garbage_total", "counter",
                 "History elements that could not be read.", sum(scrape, &first->history_garbage));
    write_single(out, "aisle_history_unknown_total", "counter",
                 "History events of items that the release does not know.",
                 sum(scrape, &first->history_unknown));
    write_head(out, "aisle_release_info", "gauge", "The release that serves.");
    buf_printf(out, "aisle_release_info{version=\"%s\"} 1\n", scrape->release);
    write_process(out);
}
