/* POST /v1/recommendations/batch: many requests, one answer, in order. The body is looked over once
 * to find where its elements are; then slices of RECOMMEND_BATCH_MAX are decoded, answered and
 * written. A worker has one slice of one batch under way at a time, and its batches take turns, so
 * that a mail-out's thousand users neither need a thousand requests' memory nor keep a visitor
 * waiting for more than a slice. A faulty element gets a problem in its place. Each slice's time
 * counts from its own beginning. */
#include "api/api_internal.h"

#include <event2/buffer.h>
#include <string.h>

#include "api/encode.h"
#include "api/json_scan.h"
#include "base/clock.h"

enum { BATCH_ANSWER_MAX_BYTES = 256 << 20 };

struct batch {
    struct json_span *spans; /* [n], of the exchange's body */
    size_t n;
    size_t next; /* the first that no slice has had */
    struct task *slice[RECOMMEND_BATCH_MAX];
    size_t n_slice;
    size_t n_pending; /* of the slice; one more while it is being started */
    struct evbuffer *answer;
};

void batch_free(struct batch *batch)
{
    if (batch != NULL && batch->answer != NULL) {
        evbuffer_free(batch->answer);
    }
}

static void wait_for_turn(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    exchange->next_waiting = NULL;
    if (worker->waiting_last == NULL) {
        worker->waiting_first = exchange;
    } else {
        worker->waiting_last->next_waiting = exchange;
    }
    worker->waiting_last = exchange;
    tasks_schedule(worker);
}

static void encode_slice(struct exchange *exchange)
{
    struct batch *batch = exchange->batch;
    struct buf *out = &exchange->worker->out;
    struct json_writer json;
    for (size_t i = 0; i < batch->n_slice; i++) {
        struct task *task = batch->slice[i];
        buf_reset(out);
        buf_append_char(out, batch->next == batch->n_slice && i == 0 ? '[' : ',');
        json_writer_init(&json, out);
        if (task->status == STATUS_OK) {
            int64_t start_ns = clock_monotonic_ns();
            encode_answer(&json, NULL, &task->decoded.request, &task->job.answer);
            task->job.answer.stage_ns[STAGE_ANSWER] = clock_monotonic_ns() - start_ns;
            task_answered(task);
        } else {
            encode_problem(&json, NULL,
                           &(struct problem){http_status_of(task->status), task->error.message,
                                             task->error.field});
        }
        task_free(task);
        if (batch->answer != NULL &&
            (out->status != STATUS_OK ||
             evbuffer_get_length(batch->answer) + out->len > BATCH_ANSWER_MAX_BYTES ||
             evbuffer_add(batch->answer, out->data, out->len) != 0)) {
            evbuffer_free(batch->answer);
            batch->answer = NULL; /* too large, or no memory */
        }
    }
    batch->n_slice = 0;
}

static void slice_part_done(struct exchange *exchange)
{
    if (--exchange->batch->n_pending == 0) {
        exchange->worker->slice_is_running = false;
        encode_slice(exchange);
        wait_for_turn(exchange);
    }
}

static void task_done(struct task *task)
{
    slice_part_done(task->exchange);
}

static void start_element(struct exchange *exchange, struct task *task, size_t position)
{
    const struct json_span *span = &exchange->batch->spans[position];
    int64_t start_ns = clock_monotonic_ns();
    struct decode_input input = {exchange->body + span->offset, span->len, BODY_RECOMMEND,
                                 exchange->worker->server->config.default_timeout_ms};
    task->status = decode_request(&input, &task->arena, &task->decoded, &task->error);
    if (task->status != STATUS_OK) {
        task->done(task);
        return;
    }
    task->job.answer.stage_ns[STAGE_PARSE] = clock_monotonic_ns() - start_ns;
    task_start(task, clock_monotonic_us());
}

static void start_slice(struct exchange *exchange)
{
    struct batch *batch = exchange->batch;
    size_t left = batch->n - batch->next;
    size_t n = left < RECOMMEND_BATCH_MAX ? left : RECOMMEND_BATCH_MAX;
    for (size_t i = 0; i < n; i++) {
        batch->slice[i] = task_new(exchange, task_done);
        if (batch->slice[i] == NULL) {
            while (i > 0) {
                task_free(batch->slice[--i]);
            }
            reply_problem(exchange, 503, NULL, "out of memory");
            return;
        }
    }
    size_t first = batch->next;
    batch->next += n;
    batch->n_slice = n;
    batch->n_pending = n + 1;
    exchange->worker->slice_is_running = true;
    for (size_t i = 0; i < n; i++) {
        start_element(exchange, batch->slice[i], first + i);
    }
    slice_part_done(exchange);
}

static void continue_batch(struct exchange *exchange)
{
    struct batch *batch = exchange->batch;
    if (!exchange_is_waited(exchange)) {
        exchange_drop(exchange);
    } else if (batch->answer == NULL) {
        reply_problem(exchange, 503, NULL, "the answer is too large, ask for less at once");
    } else if (batch->next < batch->n) {
        start_slice(exchange);
    } else if (evbuffer_add(batch->answer, "]", 1) != 0) {
        reply_problem(exchange, 503, NULL, "out of memory");
    } else {
        reply_send(exchange, &(struct reply){.http_status = 200, .buffer = batch->answer});
    }
}

void batches_continue(struct worker *worker)
{
    struct exchange *exchange = worker->waiting_first;
    if (exchange == NULL || worker->slice_is_running) {
        return;
    }
    worker->waiting_first = exchange->next_waiting;
    if (worker->waiting_first == NULL) {
        worker->waiting_last = NULL;
    } else {
        tasks_schedule(worker);
    }
    continue_batch(exchange);
}

static enum status find_elements(struct exchange *exchange, struct batch *batch, struct error *err)
{
    struct json_scan scan = {.text = exchange->body,
                             .len = exchange->body_len,
                             .depth_max = JSON_DEPTH_MAX + 1,
                             .values_max = (size_t)JSON_VALUES_MAX * 4,
                             .spans = batch->spans,
                             .spans_max = BATCH_REQUESTS_MAX};
    enum status status = json_scan(&scan, err);
    if (status == STATUS_OK && scan.shape != JSON_SHAPE_ARRAY) {
        status = error_set(err, STATUS_INVALID, "a batch is an array of requests");
    }
    if (status == STATUS_OK && scan.n_spans == 0) {
        status = error_set(err, STATUS_INVALID, "a batch needs at least one request");
    }
    batch->n = scan.n_spans;
    return status;
}

void route_batch(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    struct error err = {0};
    if (worker->n_batches >= BATCHES_MAX) {
        metric_add(&worker->metrics.requests_refused, 1);
        reply_problem(exchange, 503, NULL, "too many batches under way, try again");
        return;
    }
    struct batch *batch = arena_calloc(&exchange->arena, 1, sizeof(*batch));
    if (batch != NULL) {
        batch->spans =
            arena_alloc_array(&exchange->arena, BATCH_REQUESTS_MAX, sizeof(*batch->spans));
    }
    if (batch == NULL || batch->spans == NULL) {
        reply_problem(exchange, 503, NULL, "out of memory");
        return;
    }
    if (find_elements(exchange, batch, &err) != STATUS_OK) {
        reply_error(exchange, &err);
        return;
    }
    batch->answer = evbuffer_new();
    exchange->batch = batch;
    worker->n_batches++;
    wait_for_turn(exchange);
}
