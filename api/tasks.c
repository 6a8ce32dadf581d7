/* A recommendation's way through a worker: the pages before it, begin, history, and then the list
 * of ready ones, which is emptied once a turn of the loop in batches.
 *
 * The batch is run from a timer of zero: libevent looks at timers after it has read the sockets, so
 * all requests and histories that arrived up to then are in the list, and an idle worker waits for
 * nothing. Rejected: an event of lower priority (libevent runs it only in a turn without any more
 * important event, so steady traffic could put it off for ever) and event_active (it runs in the
 * same turn, before the sockets are looked at again, so a batch request would keep everybody else
 * waiting).
 *
 * A turn's work has a budget of time, and the size of a run follows what runs have cost: a job may
 * take 0.1 ms or, with a rare filter over a large catalogue, 40 ms, so no fixed number is right. */
#include "api/api_internal.h"

#include <event2/event.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"

enum { RUN_MAX = RECOMMEND_BATCH_MAX };

struct task *task_new(struct exchange *exchange, task_done_fn *done)
{
    struct worker *worker = exchange->worker;
    struct task *task = worker->free_tasks;
    if (task != NULL) {
        worker->free_tasks = task->next;
    } else {
        task = mem_calloc(1, sizeof(*task));
        if (task == NULL) {
            return NULL;
        }
        arena_init(&task->arena, ARENA_BLOCK_BYTES, ARENA_MAX_BYTES);
    }
    task->next = NULL;
    task->worker = worker;
    task->exchange = exchange;
    task->done = done;
    task->is_element = exchange->batch != NULL;
    task->status = STATUS_OK;
    memset(&task->job, 0, sizeof(task->job));
    memset(&task->error, 0, sizeof(task->error));
    return task;
}

void task_free(struct task *task)
{
    arena_reset(&task->arena);
    task->next = task->worker->free_tasks;
    task->worker->free_tasks = task;
}

void tasks_free(struct worker *worker)
{
    while (worker->free_tasks != NULL) {
        struct task *task = worker->free_tasks;
        worker->free_tasks = task->next;
        arena_free(&task->arena);
        mem_free(task);
    }
}

void tasks_schedule(struct worker *worker)
{
    static const struct timeval now = {0, 0};
    if (event_add(worker->run_event, &now) != 0) {
        event_active(worker->run_event, EV_TIMEOUT, 0);
    }
}

static void make_ready(struct task *task)
{
    struct worker *worker = task->worker;
    struct task_list *list = task->is_element ? &worker->ready_elements : &worker->ready;
    task->next = NULL;
    if (list->last == NULL) {
        list->first = task;
        tasks_schedule(worker);
    } else {
        list->last->next = task;
    }
    list->last = task;
    list->n++;
}

static struct task *take_ready(struct task_list *list)
{
    struct task *task = list->first;
    list->first = task->next;
    if (list->first == NULL) {
        list->last = NULL;
    }
    list->n--;
    return task;
}

/* `after`: what the pages before have shown joins the exclusions. LIMIT: they have all been. */
static enum status leave_out_shown(struct task *task)
{
    struct server *server = task->worker->server;
    const char *after = task->decoded.after;
    if (after == NULL) {
        return STATUS_OK;
    }
    uint32_t *shown = arena_alloc_array(&task->arena, PAGING_CHAIN_ROWS_MAX, sizeof(*shown));
    if (shown == NULL) {
        return error_set(&task->error, STATUS_NOMEM, "memory of one request");
    }
    enum status status =
        paging_get(server->paging, after, server->release_hash, clock_monotonic_us(), shown,
                   &task->decoded.request.n_exclude_rows);
    task->decoded.request.exclude_rows = shown;
    if (status == STATUS_NOT_FOUND) {
        return error_set_field(&task->error, STATUS_INVALID, "after",
                               "no answer with this request_id is known, or not any more");
    }
    return status;
}

static void on_history(void *context, const struct history_result *result)
{
    struct task *task = context;
    struct worker *worker = task->worker;
    task->job.answer.stage_ns[STAGE_HISTORY] = clock_monotonic_ns() - task->history_start_ns;
    metric_add(&worker->metrics.history_garbage, result->n_garbage);
    recommend_set_history(worker->recommender, &task->job, result);
    make_ready(task);
}

static void fail_task(struct task *task, enum status status)
{
    task->status = status;
    task->error.code = status;
    task->done(task);
}

void task_start(struct task *task, int64_t start_us)
{
    struct worker *worker = task->worker;
    enum status status = leave_out_shown(task);
    bool has_ended = status == STATUS_LIMIT; /* an answer without items then */
    if (status != STATUS_OK && !has_ended) {
        fail_task(task, status);
        return;
    }
    task->job.request = &task->decoded.request;
    task->job.arena = &task->arena;
    status = recommend_begin(worker->recommender, &task->job, start_us, &task->error);
    if (status != STATUS_OK) {
        fail_task(task, status);
        return;
    }
    if (has_ended) {
        task->done(task);
        return;
    }
    if (!task->job.wants_history) {
        make_ready(task);
        return;
    }
    task->history_start_ns = clock_monotonic_ns();
    struct history_query query = {task->decoded.request.user_id, HISTORY_FETCH_MAX,
                                  task->job.history_deadline_us};
    status = history_fetch(worker->history, &query, on_history, task, NULL);
    if (status != STATUS_OK) {
        on_history(task, &(struct history_result){.status = status});
    }
}

/* One run: visitors' requests first, and always something of the batches', so that neither waits
 * for ever. An element's time counts from here: a batch's elements arrive together, and the first
 * ones' work is not the last ones' lateness. */
static void run_some(struct worker *worker)
{
    struct task *tasks[RECOMMEND_BATCH_MAX] = {NULL};
    struct recommend_job *jobs[RECOMMEND_BATCH_MAX] = {NULL};
    size_t n = 0;
    int64_t start_us = clock_monotonic_us();
    while (worker->ready.n > 0 && n < worker->run_max) {
        tasks[n++] = take_ready(&worker->ready);
    }
    size_t n_max = n < worker->run_max ? worker->run_max : n + 1;
    n_max = n_max < RECOMMEND_BATCH_MAX ? n_max : RECOMMEND_BATCH_MAX;
    for (size_t e = 0; worker->ready_elements.n > 0 && n < n_max && e < BATCH_RUN_MAX; e++) {
        struct task *task = take_ready(&worker->ready_elements);
        task->job.deadline_us = start_us + task->decoded.request.timeout_ms * 1000;
        tasks[n++] = task;
    }
    for (size_t i = 0; i < n; i++) {
        jobs[i] = &tasks[i]->job;
    }
    recommend_run(worker->recommender, jobs, n);
    metrics_count_batch(&worker->metrics, n);
    int64_t us = clock_monotonic_us() - start_us;
    if (us > TURN_BUDGET_US && worker->run_max > 1) {
        worker->run_max = n > 1 ? (n + 1) / 2 : 1;
    } else if (us < TURN_BUDGET_US / 4 && worker->run_max < RUN_MAX) {
        worker->run_max *= 2;
    }
    worker->run_max = worker->run_max < RUN_MAX ? worker->run_max : RUN_MAX;
    for (size_t i = 0; i < n; i++) {
        tasks[i]->status = tasks[i]->job.status;
        tasks[i]->error = tasks[i]->job.error;
        tasks[i]->error.code = tasks[i]->status;
        tasks[i]->done(tasks[i]);
    }
}

void tasks_run(struct worker *worker)
{
    /* What becomes ready meanwhile is for the next turn, and what exceeds the budget, too. */
    size_t left = worker->ready.n + worker->ready_elements.n;
    int64_t end_us = clock_monotonic_us() + TURN_BUDGET_US;
    while (left > 0 && clock_monotonic_us() < end_us) {
        size_t before = worker->ready.n + worker->ready_elements.n;
        run_some(worker);
        size_t n_run = before - (worker->ready.n + worker->ready_elements.n);
        left -= n_run < left ? n_run : left;
    }
    batches_continue(worker);
    if (worker->ready.n + worker->ready_elements.n > 0) {
        tasks_schedule(worker);
    }
}

static void cancel(struct task_list *list)
{
    while (list->first != NULL) {
        struct task *task = take_ready(list);
        (void)error_set(&task->error, STATUS_UNAVAILABLE, "the service ends");
        fail_task(task, STATUS_UNAVAILABLE);
    }
}

void tasks_cancel(struct worker *worker)
{
    cancel(&worker->ready);
    cancel(&worker->ready_elements);
}

void task_answered(struct task *task)
{
    struct server *server = task->worker->server;
    const struct recommend_answer *answer = &task->job.answer;
    metrics_count_answer(&task->worker->metrics, answer);
    if (task->decoded.request.candidates != NULL || task->is_element) {
        return; /* neither scored candidates nor a mail-out's answers have a next page */
    }
    uint32_t rows[LIMIT_MAX];
    size_t n = answer->n_items < LIMIT_MAX ? answer->n_items : LIMIT_MAX;
    for (size_t i = 0; i < n; i++) {
        rows[i] = answer->items[i].row;
    }
    paging_put(server->paging,
               &(struct paging_page){.request_id = answer->request_id,
                                     .release = server->release_hash,
                                     .after = task->decoded.after,
                                     .page = rows,
                                     .n_page = n},
               clock_monotonic_us());
}
