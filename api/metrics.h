#ifndef AISLE_API_METRICS_H
#define AISLE_API_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "core/recommend.h"

/* One worker's counters. Only its own thread writes, the scrape of any worker reads and sums:
 * relaxed atomics, and a plain load and store to add, so that counting costs no locked instruction.
 */
enum {
    METRIC_ENDPOINTS_MAX = 40,
    METRIC_STATUSES = 16,
    METRIC_BUCKETS = 16, /* finite ones, plus the one that is endless */
    METRIC_BATCH_BUCKETS = 7,
    METRIC_DEGRADED = 3,
};

typedef _Atomic uint64_t metric_counter;

struct metric_histogram {
    metric_counter buckets[METRIC_BUCKETS + 1]; /* not cumulative */
    metric_counter sum_ns;
};

struct metrics {
    metric_counter requests[METRIC_ENDPOINTS_MAX][METRIC_STATUSES];
    struct metric_histogram request_seconds[METRIC_ENDPOINTS_MAX];
    struct metric_histogram stage_seconds[N_STAGES];
    metric_counter degraded[METRIC_DEGRADED];
    metric_counter batch_size[METRIC_BATCH_BUCKETS + 1];
    metric_counter batch_jobs;
    metric_counter connections; /* open now */
    metric_counter connections_refused;
    metric_counter requests_refused; /* 503 for too many under way */
    metric_counter in_flight;        /* under way now */
    metric_counter events_accepted;
    metric_counter events_duplicate;
    metric_counter history_garbage;
    metric_counter history_unknown; /* events of items that the release does not know */
};

static inline void metric_add(metric_counter *counter, uint64_t n)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + n, memory_order_relaxed);
}

static inline void metric_set(metric_counter *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

void metric_observe(struct metric_histogram *histogram, int64_t ns);
void metrics_count_request(struct metrics *metrics, size_t endpoint, int http_status, int64_t ns);
void metrics_count_answer(struct metrics *metrics, const struct recommend_answer *answer);
void metrics_count_batch(struct metrics *metrics, size_t n_jobs);

/* Prometheus text format 0.0.4 of all workers' sums and of the process. */
struct metrics_scrape {
    const struct metrics *const *workers;
    size_t n_workers;
    const char *const *endpoints; /* names, by number */
    size_t n_endpoints;
    const char *release;
};
void metrics_write(struct buf *out, const struct metrics_scrape *scrape);

#endif
