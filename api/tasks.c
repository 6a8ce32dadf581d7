/* A recommendation's way through a worker: the pages before it, begin, history, and then the list
 * of ready ones, which is emptied once a turn of the loop in batches.
 *
 * The batch is run from a timer of zero: libevent looks at timers after it has read the sockets, so
 * all requests and histories that arrived up to then are in the list, and an idle worker waits for
 * nothing. Rejected: an event of lower priority (libevent runs it only in a turn without any more
 * important event, so steady traffic could put it off for ever) and event_active (it runs in the
 * same turn, before the sockets are looked at again, so a batch request would keep everybody else
 * waiting). */
#include "api/api_internal.h"

#include <event2/event.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"

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
    task->shown = NULL;
    task->n_shown = 0;
    task->position = 0;
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
    task->next = NULL;
    if (worker->ready_last == NULL) {
        worker->ready_first = task;
        tasks_schedule(worker);
    } else {
        worker->ready_last->next = task;
    }
    worker->ready_last = task;
    worker->n_ready++;
}

static struct task *take_ready(struct worker *worker)
{
    struct task *task = worker->ready_first;
    worker->ready_first = task->next;
    if (worker->ready_first == NULL) {
        worker->ready_last = NULL;
    }
    worker->n_ready--;
    return task;
}

/* `after`: what the pages before have shown joins the exclusions. */
static enum status leave_out_shown(struct task *task)
{
    struct server *server = task->worker->server;
    struct recommend_request *request = &task->decoded.request;
    const char *after = task->decoded.after;
    if (after == NULL) {
        return STATUS_OK;
    }
    task->shown = arena_alloc_array(&task->arena, PAGING_CHAIN_ROWS_MAX, sizeof(*task->shown));
    const char **exclude = arena_alloc_array(
        &task->arena, request->n_exclude + PAGING_CHAIN_ROWS_MAX, sizeof(*exclude));
    if (task->shown == NULL || exclude == NULL) {
        return error_set(&task->error, STATUS_NOMEM, "memory of one request");
    }
    enum status status = paging_get(server->paging, after, server->release_hash,
                                    clock_monotonic_us(), task->shown, &task->n_shown);
    if (status == STATUS_LIMIT) {
        return error_set_field(&task->error, STATUS_INVALID, "after",
                               "the pages of one answer end after %d items", PAGING_CHAIN_ROWS_MAX);
    }
    if (status != STATUS_OK) {
        return error_set_field(&task->error, STATUS_INVALID, "after",
                               "no answer with this request_id is known, or not any more");
    }
    if (request->n_exclude + task->n_shown > REQUEST_EXCLUDE_MAX) {
        return error_set_field(&task->error, STATUS_INVALID, "exclude",
                               "with the pages before more than %d items would be excluded",
                               REQUEST_EXCLUDE_MAX);
    }
    for (size_t i = 0; i < request->n_exclude; i++) {
        exclude[i] = request->exclude[i];
    }
    for (size_t i = 0; i < task->n_shown; i++) {
        exclude[request->n_exclude + i] =
            catalog_id(server->config.engine->catalog, task->shown[i], NULL);
    }
    request->exclude = exclude;
    request->n_exclude += task->n_shown;
    return STATUS_OK;
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
    if (status != STATUS_OK) {
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

static void run_batch(struct worker *worker, size_t n)
{
    struct task *tasks[RECOMMEND_BATCH_MAX];
    struct recommend_job *jobs[RECOMMEND_BATCH_MAX] = {NULL};
    for (size_t i = 0; i < n; i++) {
        tasks[i] = take_ready(worker);
        jobs[i] = &tasks[i]->job;
    }
    recommend_run(worker->recommender, jobs, n);
    metrics_count_batch(&worker->metrics, n);
    for (size_t i = 0; i < n; i++) {
        tasks[i]->status = tasks[i]->job.status;
        tasks[i]->error = tasks[i]->job.error;
        tasks[i]->error.code = tasks[i]->status;
        tasks[i]->done(tasks[i]);
    }
}

void tasks_run(struct worker *worker)
{
    size_t left = worker->n_ready; /* what becomes ready meanwhile is for the next turn */
    while (left > 0) {
        size_t n = left < RECOMMEND_BATCH_MAX ? left : RECOMMEND_BATCH_MAX;
        run_batch(worker, n);
        left -= n;
    }
    batches_continue(worker);
    if (worker->n_ready > 0) {
        tasks_schedule(worker);
    }
}

void tasks_cancel(struct worker *worker)
{
    while (worker->ready_first != NULL) {
        struct task *task = take_ready(worker);
        (void)error_set(&task->error, STATUS_UNAVAILABLE, "the service ends");
        fail_task(task, STATUS_UNAVAILABLE);
    }
}

void task_answered(struct task *task)
{
    struct server *server = task->worker->server;
    const struct recommend_answer *answer = &task->job.answer;
    metrics_count_answer(&task->worker->metrics, answer);
    if (task->decoded.request.candidates != NULL) {
        return; /* scored candidates have no next page */
    }
    uint32_t rows[LIMIT_MAX];
    size_t n = answer->n_items < LIMIT_MAX ? answer->n_items : LIMIT_MAX;
    for (size_t i = 0; i < n; i++) {
        rows[i] = answer->items[i].row;
    }
    paging_put(server->paging,
               &(struct paging_page){.request_id = answer->request_id,
                                     .release = server->release_hash,
                                     .shown = task->shown,
                                     .n_shown = task->n_shown,
                                     .page = rows,
                                     .n_page = n},
               clock_monotonic_us());
}
