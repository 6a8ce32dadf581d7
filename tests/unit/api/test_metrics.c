#include "api/metrics.h"

#include <stdlib.h>
#include <string.h>

#include "api_test.h"

static void assert_has(struct buf *text, const char *line)
{
    if (strstr(buf_text(text), line) == NULL) {
        fail_msg("no line %s in:\n%s", line, buf_text(text));
    }
}

static void metrics_write_sums_the_workers(void **state)
{
    static struct metrics workers[2];
    const struct metrics *const both[] = {&workers[0], &workers[1]};
    static const char *const endpoints[] = {"recommendations", "none"};
    struct recommend_answer answer = {.degraded = DEGRADED_HISTORY};
    struct buf text;
    (void)state;
    memset(workers, 0, sizeof(workers));
    metrics_count_request(&workers[0], 0, 200, 40000);
    metrics_count_request(&workers[1], 0, 200, 2000000000);
    metrics_count_request(&workers[1], 1, 404, 1000);
    metrics_count_request(&workers[1], 1, 599, 1000);
    answer.stage_ns[STAGE_EMBED] = 10000;
    metrics_count_answer(&workers[0], &answer);
    metrics_count_batch(&workers[0], 3);
    metrics_count_batch(&workers[1], 64);
    metric_add(&workers[0].events_accepted, 5);
    metric_add(&workers[1].events_accepted, 7);
    metric_set(&workers[0].connections, 2);
    metric_set(&workers[1].connections, 3);
    buf_init(&text, 1 << 20);
    metrics_write(&text, &(struct metrics_scrape){both, 2, endpoints, 2, "V1"});
    assert_has(&text, "aisle_requests_total{endpoint=\"recommendations\",status=\"200\"} 2\n");
    assert_has(&text, "aisle_requests_total{endpoint=\"none\",status=\"404\"} 1\n");
    assert_has(&text,
               "aisle_request_seconds_bucket{endpoint=\"recommendations\",le=\"2.5e-05\"} 0");
    assert_has(&text, "aisle_request_seconds_bucket{endpoint=\"recommendations\",le=\"5e-05\"} 1");
    assert_has(&text, "aisle_request_seconds_bucket{endpoint=\"recommendations\",le=\"1\"} 1");
    assert_has(&text, "aisle_request_seconds_bucket{endpoint=\"recommendations\",le=\"+Inf\"} 2");
    assert_has(&text, "aisle_request_seconds_sum{endpoint=\"recommendations\"} 2.000040000");
    assert_has(&text, "aisle_stage_seconds_bucket{stage=\"embed\",le=\"1e-05\"} 1");
    assert_has(&text, "aisle_degraded_total{reason=\"history\"} 1");
    assert_has(&text, "aisle_degraded_total{reason=\"metadata\"} 0");
    assert_has(&text, "aisle_batch_size_bucket{le=\"2\"} 0");
    assert_has(&text, "aisle_batch_size_bucket{le=\"4\"} 1");
    assert_has(&text, "aisle_batch_size_sum 67");
    assert_has(&text, "aisle_batch_size_count 2");
    assert_has(&text, "aisle_events_accepted_total 12");
    assert_has(&text, "aisle_connections 5");
    assert_has(&text, "aisle_release_info{version=\"V1\"} 1");
    const char *resident = strstr(buf_text(&text), "\nprocess_resident_memory_bytes ");
    assert_non_null(resident);
    assert_true(strtoll(resident + 31, NULL, 10) > 100000);
    assert_has(&text, "process_cpu_seconds_total ");
    buf_free(&text);
}

static void metrics_write_every_line_is_comment_or_sample(void **state)
{
    static struct metrics worker;
    const struct metrics *const one[] = {&worker};
    static const char *const endpoints[] = {"a"};
    struct buf text;
    (void)state;
    buf_init(&text, 1 << 20);
    metrics_write(&text, &(struct metrics_scrape){one, 1, endpoints, 1, "V"});
    assert_int_equal(text.status, STATUS_OK);
    assert_int_equal(text.data[text.len - 1], '\n');
    for (const char *line = buf_text(&text); *line != '\0'; line = strchr(line, '\n') + 1) {
        bool is_comment = strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# TYPE ", 7) == 0;
        bool is_ours = strncmp(line, "aisle_", 6) == 0 || strncmp(line, "process_", 8) == 0;
        assert_true(is_comment || is_ours);
    }
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_write_sums_the_workers),
        cmocka_unit_test(metrics_write_every_line_is_comment_or_sample),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
