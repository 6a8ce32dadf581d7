/* One recommendation: POST /v1/recommendations and /v1/score, and the GET forms, whose query string
 * becomes the body that would have been posted. */
#include "api/api_internal.h"

#include "api/encode.h"
#include "api/query.h"
#include "base/clock.h"

static void answer_one(struct task *task)
{
    struct exchange *exchange = task->exchange;
    struct worker *worker = task->worker;
    if (task->status != STATUS_OK) {
        reply_error(exchange, &task->error);
        task_free(task);
        return;
    }
    struct recommend_answer *answer = &task->job.answer;
    struct json_writer json;
    int64_t start_ns = clock_monotonic_ns();
    buf_reset(&worker->out);
    json_writer_init(&json, &worker->out);
    encode_answer(&json, NULL, &task->decoded.request, answer);
    answer->stage_ns[STAGE_ANSWER] = clock_monotonic_ns() - start_ns;
    task_answered(task);
    buf_reset(&worker->timing);
    encode_server_timing(&worker->timing, answer->stage_ns);
    reply_header(exchange, "Server-Timing", buf_text(&worker->timing));
    reply_out(exchange, 200);
    task_free(task);
}

static void recommend_text(struct exchange *exchange, const char *text, size_t len,
                           enum body_kind kind)
{
    int64_t start_ns = clock_monotonic_ns();
    struct task *task = task_new(exchange, answer_one);
    if (task == NULL) {
        reply_problem(exchange, 503, NULL, "out of memory");
        return;
    }
    struct decode_input input = {text, len, kind,
                                 exchange->worker->server->config.default_timeout_ms};
    enum status status = decode_request(&input, &task->arena, &task->decoded, &task->error);
    if (status != STATUS_OK) {
        reply_error(exchange, &task->error);
        task_free(task);
        return;
    }
    task->job.answer.stage_ns[STAGE_PARSE] = clock_monotonic_ns() - start_ns;
    task_start(task, exchange->start_us);
}

static void recommend_query(struct exchange *exchange, const struct query_subject *subject)
{
    struct buf *out = &exchange->worker->out;
    struct error err = {0};
    buf_reset(out);
    if (query_to_json(exchange->query, subject, out, &err) != STATUS_OK) {
        reply_error(exchange, &err);
        return;
    }
    recommend_text(exchange, out->data, out->len, BODY_RECOMMEND);
}

void route_recommend(struct exchange *exchange)
{
    recommend_text(exchange, exchange->body, exchange->body_len, BODY_RECOMMEND);
}

void route_score(struct exchange *exchange)
{
    recommend_text(exchange, exchange->body, exchange->body_len, BODY_SCORE);
}

void route_related(struct exchange *exchange)
{
    recommend_query(exchange,
                    &(struct query_subject){.scenario = "related", .item_id = exchange->id});
}

void route_user_recommendations(struct exchange *exchange)
{
    recommend_query(exchange,
                    &(struct query_subject){.scenario = "for_you", .user_id = exchange->id});
}
