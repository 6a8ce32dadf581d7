/* POST /v1/recommendations/batch: many requests, one answer, in order. The body is looked over once
 * to find where its elements are; then slices of RECOMMEND_BATCH_MAX are decoded, answered and
 * written. A worker has one slice of one batch under way at a time, and its batches take turns, so
 * that a mail-out's thousand users neither need a thousand requests' memory nor keep a visitor
 * waiting: starting a slice, running and writing it all end a turn of the loop when its budget is
 * used up. A faulty element gets a problem in its place.
 *
 * An answer is much larger than its request, and a client that does not read leaves it in memory,
 * so what counts is bytes: a bill goes with the answer until it is written or its connection
 * closed. */
#include "api/api_internal.h"

#include <event2/buffer.h>
#include <string.h>

#include "api/encode.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/json_scan.h"

struct batch {
    struct json_span *spans; /* [n], of the exchange's body */
    size_t n;
    size_t next; /* the first that no slice has had */
    struct task *slice[RECOMMEND_BATCH_MAX];
    size_t n_slice;
    size_t n_encoded;        /* of the slice */
    size_t n_pending;        /* of the slice; one more while it is being started */
    struct evbuffer *answer; /* NULL: given up, see failure */
    struct batch_bill *bill; /* NULL once the reply has it */
    int failure;             /* HTTP status */
};

void batch_bill_free(struct batch_bill *bill)
{
    if (bill != NULL) {
        bill->worker->batch_bytes -= bill->n_bytes;
        mem_free(bill);
    }
}

struct batch_bill *batch_take_bill(struct batch *batch)
{
    struct batch_bill *bill = batch->bill;
    batch->bill = NULL;
    return bill;
}

static void give_up(struct batch *batch, int http_status)
{
    evbuffer_free(batch->answer);
    batch->answer = NULL;
    batch->failure = http_status;
    batch->bill->worker->batch_bytes -= batch->bill->n_bytes;
    batch->bill->n_bytes = 0;
}

void batch_free(struct batch *batch)
{
    for (size_t i = batch->n_encoded; i < batch->n_slice; i++) {
        task_free(batch->slice[i]);
    }
    if (batch->answer != NULL) {
        evbuffer_free(batch->answer);
    }
    batch_bill_free(batch->bill);
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

static void add_text(struct batch *batch, const struct buf *out)
{
    struct batch_bill *bill = batch->bill;
    if (batch->answer == NULL) {
        return;
    }
    if (out->status == STATUS_LIMIT || bill->n_bytes + out->len > BATCH_ANSWER_MAX_BYTES) {
        give_up(batch, 413);
    } else if (out->status != STATUS_OK || bill->worker->batch_bytes + out->len > BATCH_BYTES_MAX ||
               evbuffer_add(batch->answer, out->data, out->len) != 0) {
        give_up(batch, 503);
    } else {
        bill->n_bytes += out->len;
        bill->worker->batch_bytes += out->len;
    }
}

static void encode_element(struct exchange *exchange, struct task *task, char separator)
{
    struct buf *out = &exchange->worker->out;
    struct json_writer json;
    buf_reset(out);
    buf_append_char(out, separator);
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
    add_text(exchange->batch, out);
}

/* A portion of the slice; true: all of it is written. */
static bool encode_slice(struct exchange *exchange)
{
    struct batch *batch = exchange->batch;
    int64_t end_us = clock_monotonic_us() + TURN_BUDGET_US;
    while (batch->n_encoded < batch->n_slice) {
        struct task *task = batch->slice[batch->n_encoded];
        bool is_first = batch->next == batch->n_slice && batch->n_encoded == 0;
        encode_element(exchange, task, is_first ? '[' : ',');
        task_free(task);
        batch->n_encoded++;
        if (clock_monotonic_us() > end_us) {
            break;
        }
    }
    return batch->n_encoded == batch->n_slice;
}

static void slice_part_done(struct exchange *exchange)
{
    if (--exchange->batch->n_pending == 0) {
        exchange->worker->encoding = exchange;
        tasks_schedule(exchange->worker);
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
    int64_t end_us = clock_monotonic_us() + TURN_BUDGET_US;
    batch->n_slice = 0;
    batch->n_encoded = 0;
    batch->n_pending = 1;
    exchange->worker->slice_is_running = true;
    while (batch->next < batch->n && batch->n_slice < RECOMMEND_BATCH_MAX) {
        struct task *task = task_new(exchange, task_done);
        if (task == NULL) {
            break;
        }
        batch->slice[batch->n_slice++] = task;
        batch->n_pending++;
        start_element(exchange, task, batch->next++);
        if (clock_monotonic_us() > end_us) {
            break;
        }
    }
    if (batch->n_slice == 0) {
        exchange->worker->slice_is_running = false;
        reply_problem(exchange, 503, NULL, "out of memory");
        return;
    }
    slice_part_done(exchange);
}

static void reply_given_up(struct exchange *exchange)
{
    if (exchange->batch->failure == 413) {
        reply_problem(exchange, 413, NULL,
                      "the answer would be larger than %d bytes: ask for fewer at once, or fewer "
                      "fields",
                      BATCH_ANSWER_MAX_BYTES);
    } else {
        reply_problem(exchange, 503, NULL, "too much is waiting to be read, try again");
    }
}

static void continue_batch(struct exchange *exchange)
{
    struct batch *batch = exchange->batch;
    if (!exchange_is_waited(exchange)) {
        exchange_drop(exchange);
    } else if (batch->answer == NULL) {
        reply_given_up(exchange);
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
    struct exchange *exchange = worker->encoding;
    if (exchange != NULL) {
        if (encode_slice(exchange)) {
            worker->encoding = NULL;
            worker->slice_is_running = false;
            wait_for_turn(exchange);
        } else {
            tasks_schedule(worker);
        }
        return;
    }
    exchange = worker->waiting_first;
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
    if (worker->n_batches >= BATCHES_MAX || worker->batch_bytes > BATCH_BYTES_REFUSE) {
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
    batch->bill = mem_calloc(1, sizeof(*batch->bill));
    batch->answer = batch->bill != NULL ? evbuffer_new() : NULL;
    if (batch->answer == NULL) {
        mem_free(batch->bill);
        reply_problem(exchange, 503, NULL, "out of memory");
        return;
    }
    batch->bill->worker = worker;
    exchange->batch = batch;
    worker->n_batches++;
    wait_for_turn(exchange);
}
