#include "embeddings/train/sequence_data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"

enum { SEQUENCES = 40, EVENTS_MAX = 40 * 30, ITEMS = 50 };
static struct history_event events[EVENTS_MAX];
static uint64_t offsets[SEQUENCES + 1];

/* Sequences of 0 … 29 events; times count the events of the whole log, in its order. */
static struct event_log make_log(void)
{
    struct rng rng;
    rng_init(&rng, 7);
    size_t n = 0;
    for (size_t s = 0; s < SEQUENCES; s++) {
        const size_t length = s < 4 ? s : rng_below(&rng, 30);
        for (size_t i = 0; i < length; i++) {
            events[n] = (struct history_event){(uint32_t)rng_below(&rng, ITEMS), EVENT_VIEW,
                                               (int64_t)n * 10};
            n++;
        }
        offsets[s + 1] = n;
    }
    return (struct event_log){
        .events = events, .offsets = offsets, .n_sequences = SEQUENCES, .n_events = n};
}

static struct sequence_data open_data(const struct event_log *log,
                                      const struct sequence_data_settings *settings)
{
    struct sequence_data data;
    assert_int_equal(sequence_data_open(log, ITEMS, settings, &data, NULL), STATUS_OK);
    return data;
}

static size_t sequence_of(const struct event_log *log, uint64_t event)
{
    size_t s = 0;
    while (log->offsets[s + 1] <= event) {
        s++;
    }
    return s;
}

static void open_every_target_is_covered_once(void **state)
{
    (void)state;
    const struct event_log log = make_log();
    for (size_t inputs_max = 1; inputs_max < 40; inputs_max += 3) {
        const struct sequence_data_settings settings = {.validation = VALIDATE_NONE,
                                                        .inputs_max = inputs_max};
        struct sequence_data data = open_data(&log, &settings);
        unsigned char covered[EVENTS_MAX] = {0};
        size_t n_targets = 0;
        for (size_t w = 0; w < data.n_windows; w++) {
            const struct sequence_window *window = &data.windows[w];
            assert_true(window->n >= 2 && window->n <= inputs_max + 1);
            assert_int_equal(sequence_of(&log, window->first),
                             sequence_of(&log, window->first + window->n - 1));
            for (size_t i = 1; i < window->n; i++) {
                covered[window->first + i]++;
                n_targets++;
            }
        }
        for (size_t s = 0; s < SEQUENCES; s++) {
            for (uint64_t e = offsets[s]; e < offsets[s + 1]; e++) {
                assert_int_equal(covered[e], e > offsets[s] ? 1 : 0);
            }
        }
        assert_int_equal(data.n_targets, n_targets);
        assert_int_equal(data.n_cases, 0);
        sequence_data_free(&data);
    }
}

/* The newest window of a long sequence is full: that is where serving looks. */
static void open_long_sequence_newest_window_is_full(void **state)
{
    (void)state;
    const struct event_log log = make_log();
    const struct sequence_data_settings settings = {.validation = VALIDATE_NONE, .inputs_max = 4};
    struct sequence_data data = open_data(&log, &settings);
    size_t n_full = 0;
    for (size_t w = 0; w < data.n_windows; w++) {
        const uint64_t end = data.windows[w].first + data.windows[w].n;
        const size_t s = sequence_of(&log, data.windows[w].first);
        if (end == offsets[s + 1] && offsets[s + 1] - offsets[s] > 5) {
            assert_int_equal(data.windows[w].n, 5);
            n_full++;
        }
    }
    assert_true(n_full > 20);
    sequence_data_free(&data);
}

static double count_of(const struct event_log *log, uint32_t row, const unsigned char *held_out)
{
    double n = 0.0;
    for (size_t e = 0; e < log->n_events; e++) {
        n += log->events[e].row == row && held_out[e] == 0 ? 1.0 : 0.0;
    }
    return n;
}

/* Cases are exactly the held-out events that have a prefix; training sees none of them. */
static void assert_split(const struct event_log *log, const struct sequence_data *data,
                         const unsigned char *held_out, size_t inputs_max)
{
    size_t n_cases = 0;
    for (size_t w = 0; w < data->n_windows; w++) {
        for (size_t i = 0; i < data->windows[w].n; i++) {
            assert_int_equal(held_out[data->windows[w].first + i], 0);
        }
    }
    for (size_t s = 0; s < SEQUENCES; s++) {
        for (uint64_t e = offsets[s] + 1; e < offsets[s + 1]; e++) {
            if (held_out[e] == 0) {
                continue;
            }
            assert_true(n_cases < data->n_cases);
            const struct sequence_case *c = &data->cases[n_cases++];
            assert_int_equal(c->next, e);
            assert_int_equal(c->first, e - offsets[s] > inputs_max ? e - inputs_max : offsets[s]);
        }
    }
    assert_int_equal(data->n_cases, n_cases);
    for (uint32_t row = 0; row < ITEMS; row++) {
        assert_true(data->counts[row] == count_of(log, row, held_out));
    }
}

static void open_leave_last_holds_out_last_of_three_or_more(void **state)
{
    (void)state;
    const struct event_log log = make_log();
    const struct sequence_data_settings settings = {.validation = VALIDATE_LEAVE_LAST,
                                                    .inputs_max = 6};
    unsigned char held_out[EVENTS_MAX] = {0};
    size_t n = 0;
    for (size_t s = 0; s < SEQUENCES; s++) {
        if (offsets[s + 1] - offsets[s] >= 3) {
            held_out[offsets[s + 1] - 1] = 1;
            n++;
        }
    }
    struct sequence_data data = open_data(&log, &settings);
    assert_split(&log, &data, held_out, 6);
    assert_int_equal(data.n_cases, n);
    sequence_data_free(&data);
}

static void open_time_split_holds_out_newest_share(void **state)
{
    (void)state;
    const struct event_log log = make_log();
    const struct sequence_data_settings settings = {
        .validation = VALIDATE_TIME_SPLIT, .share = 0.25, .inputs_max = 6};
    unsigned char held_out[EVENTS_MAX] = {0};
    const size_t split = (size_t)((double)log.n_events * 0.75);
    memset(held_out + split, 1, log.n_events - split);
    struct sequence_data data = open_data(&log, &settings);
    assert_split(&log, &data, held_out, 6);
    assert_true(data.n_cases > 0);
    sequence_data_free(&data);
}

static void open_cases_max_keeps_some_in_order(void **state)
{
    (void)state;
    const struct event_log log = make_log();
    struct sequence_data_settings settings = {
        .validation = VALIDATE_LEAVE_LAST, .inputs_max = 6, .cases_max = 9, .seed = 4};
    struct sequence_data data = open_data(&log, &settings);
    struct sequence_data again = open_data(&log, &settings);
    settings.seed = 5;
    struct sequence_data other = open_data(&log, &settings);
    assert_int_equal(data.n_cases, 9);
    assert_memory_equal(data.cases, again.cases, 9 * sizeof(*data.cases));
    assert_memory_not_equal(data.cases, other.cases, 9 * sizeof(*data.cases));
    for (size_t i = 1; i < 9; i++) {
        assert_true(data.cases[i - 1].next < data.cases[i].next);
    }
    sequence_data_free(&data);
    sequence_data_free(&again);
    sequence_data_free(&other);
}

static void open_nothing_to_learn_is_invalid(void **state)
{
    (void)state;
    static struct history_event lonely[3];
    static uint64_t ends[] = {0, 1, 1, 2, 3};
    const struct event_log log = {
        .events = lonely, .offsets = ends, .n_sequences = 4, .n_events = 3};
    for (int kind = 0; kind < N_SEQUENCE_VALIDATIONS; kind++) {
        const struct sequence_data_settings settings = {
            .validation = (enum sequence_validation)kind, .share = 0.5, .inputs_max = 6};
        struct sequence_data data;
        assert_int_equal(sequence_data_open(&log, ITEMS, &settings, &data, NULL), STATUS_INVALID);
        assert_int_equal(data.n_windows, 0);
        sequence_data_free(&data);
    }
    const struct event_log empty = {.offsets = ends, .n_sequences = 0};
    const struct sequence_data_settings settings = {
        .validation = VALIDATE_TIME_SPLIT, .share = 0.5, .inputs_max = 6};
    struct sequence_data data;
    assert_int_equal(sequence_data_open(&empty, ITEMS, &settings, &data, NULL), STATUS_INVALID);
    sequence_data_free(&data);
}

static void open_out_of_memory_fails_cleanly(void **state)
{
    (void)state;
    const struct event_log log = make_log();
    const struct sequence_data_settings settings = {
        .validation = VALIDATE_TIME_SPLIT, .share = 0.5, .inputs_max = 6};
    enum status status = STATUS_NOMEM;
    int64_t nth = 1;
    for (; status != STATUS_OK; nth++) {
        struct sequence_data data;
        mem_fail_nth(nth);
        status = sequence_data_open(&log, ITEMS, &settings, &data, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || status == STATUS_NOMEM);
        sequence_data_free(&data);
    }
    assert_int_equal(nth, 6); /* four allocations fail, the fifth call does not */
}

/* ---- batches ---- */

static void fill_all_windows_come_in_order_once(void **state)
{
    (void)state;
    const struct event_log log = make_log();
    const struct sequence_data_settings settings = {.validation = VALIDATE_NONE, .inputs_max = 8};
    struct sequence_data data = open_data(&log, &settings);
    struct sequence_batch batch;
    uint32_t order[EVENTS_MAX];
    size_t n_tokens = 0;
    assert_int_equal(sequence_batch_open(20, &batch, NULL), STATUS_OK);
    for (size_t w = 0; w < data.n_windows; w++) {
        order[w] = (uint32_t)(data.n_windows - 1 - w);
    }
    for (size_t at = 0; at < data.n_windows;) {
        const size_t next = sequence_batch_fill(&batch, &data, order, at, 0.0, 1);
        assert_true(next > at && batch.n_tokens <= 20);
        assert_int_equal(batch.n_sequences, next - at);
        for (size_t s = 0; s < batch.n_sequences; s++) {
            const struct sequence_window *window = &data.windows[order[at + s]];
            assert_int_equal(batch.offsets[s + 1] - batch.offsets[s], window->n - 1);
            for (size_t i = 0; i + 1 < window->n; i++) {
                const struct history_event *event = &events[window->first + i];
                assert_memory_equal(&batch.events[batch.offsets[s] + i], event, sizeof(*event));
                assert_int_equal(batch.targets[batch.offsets[s] + i], event[1].row);
            }
        }
        n_tokens += batch.n_tokens;
        at = next;
    }
    assert_int_equal(n_tokens, data.n_targets);
    sequence_batch_free(&batch);
    sequence_data_free(&data);
}

/* Rows of a log that tell where an event lies. */
static void fill_drop_events_skips_inputs_and_targets_alike(void **state)
{
    (void)state;
    enum { LENGTH = 30, COPIES = 40 };
    static struct history_event own[LENGTH * COPIES];
    static uint64_t ends[COPIES + 1];
    for (size_t e = 0; e < (size_t)LENGTH * COPIES; e++) {
        own[e] = (struct history_event){(uint32_t)(e % LENGTH), EVENT_VIEW, (int64_t)e};
        ends[e / LENGTH + 1] = e + 1;
    }
    const struct event_log log = {
        .events = own, .offsets = ends, .n_sequences = COPIES, .n_events = LENGTH * COPIES};
    const struct sequence_data_settings settings = {.validation = VALIDATE_NONE, .inputs_max = 50};
    struct sequence_data data = open_data(&log, &settings);
    struct sequence_batch batch;
    uint32_t order[COPIES];
    for (size_t w = 0; w < COPIES; w++) {
        order[w] = (uint32_t)w;
    }
    assert_int_equal(sequence_batch_open(LENGTH * COPIES, &batch, NULL), STATUS_OK);
    assert_int_equal(sequence_batch_fill(&batch, &data, order, 0, 0.3, 9), COPIES);
    assert_int_equal(batch.n_sequences, COPIES);
    for (size_t s = 0; s < COPIES; s++) {
        const size_t end = batch.offsets[s + 1];
        assert_true(end > batch.offsets[s]);
        for (size_t i = batch.offsets[s]; i + 1 < end; i++) {
            assert_true(batch.events[i].row < batch.events[i + 1].row);
            assert_int_equal(batch.targets[i], batch.events[i + 1].row);
        }
        assert_int_equal(batch.events[end - 1].row, LENGTH - 2); /* the last input stays */
        assert_int_equal(batch.targets[end - 1], LENGTH - 1);
    }
    const double kept = (double)batch.n_tokens / ((LENGTH - 1.0) * COPIES);
    assert_true(kept > 0.65 && kept < 0.77);
    sequence_batch_free(&batch);
    sequence_data_free(&data);
}

static void fill_cases_gives_prefixes_and_targets(void **state)
{
    (void)state;
    const struct event_log log = make_log();
    const struct sequence_data_settings settings = {.validation = VALIDATE_LEAVE_LAST,
                                                    .inputs_max = 8};
    struct sequence_data data = open_data(&log, &settings);
    struct sequence_batch batch;
    assert_int_equal(sequence_batch_open(17, &batch, NULL), STATUS_OK);
    size_t n_cases = 0;
    for (size_t at = 0; at < data.n_cases;) {
        const size_t next = sequence_batch_fill_cases(&batch, &data, at);
        assert_true(next > at);
        for (size_t s = 0; s < batch.n_sequences; s++) {
            const struct sequence_case *c = &data.cases[at + s];
            const size_t n = (size_t)(c->next - c->first);
            assert_int_equal(batch.offsets[s + 1] - batch.offsets[s], n);
            assert_memory_equal(batch.events + batch.offsets[s], events + c->first,
                                n * sizeof(*events));
            assert_int_equal(batch.targets[s], events[c->next].row);
        }
        n_cases += batch.n_sequences;
        at = next;
    }
    assert_int_equal(n_cases, data.n_cases);
    sequence_batch_free(&batch);
    sequence_data_free(&data);
}

static void validation_parse_every_name_round_trips(void **state)
{
    (void)state;
    enum sequence_validation kind;
    for (int i = 0; i < N_SEQUENCE_VALIDATIONS; i++) {
        const char *name = sequence_validation_name((enum sequence_validation)i);
        assert_true(sequence_validation_parse(name, &kind));
        assert_int_equal(kind, i);
    }
    assert_false(sequence_validation_parse("last", &kind));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_every_target_is_covered_once),
        cmocka_unit_test(open_long_sequence_newest_window_is_full),
        cmocka_unit_test(open_leave_last_holds_out_last_of_three_or_more),
        cmocka_unit_test(open_time_split_holds_out_newest_share),
        cmocka_unit_test(open_cases_max_keeps_some_in_order),
        cmocka_unit_test(open_nothing_to_learn_is_invalid),
        cmocka_unit_test(open_out_of_memory_fails_cleanly),
        cmocka_unit_test(fill_all_windows_come_in_order_once),
        cmocka_unit_test(fill_drop_events_skips_inputs_and_targets_alike),
        cmocka_unit_test(fill_cases_gives_prefixes_and_targets),
        cmocka_unit_test(validation_parse_every_name_round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
