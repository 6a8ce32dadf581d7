#include "api/server.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "api/api_internal.h"
#include "base/alloc.h"
#include "base/log.h"
#include "core_fixture.h"

/* A whole server in this process, over a made-up shop, spoken to through raw sockets. */
enum { ITEMS = 400, REPLY_MAX_BYTES = 8 << 20 };

static struct core_fixture shop;
static struct history_store *store;
static struct server *server;

static int open_shop(void **state)
{
    char address[PATH_BYTES_MAX];
    struct history_config config;
    (void)state;
    core_fixture_open(&shop, ITEMS, "Flat", 11);
    history_config_default(&config);
    (void)snprintf(address, sizeof(address), "sqlite:%s/history.db", shop.dir);
    config.address = address;
    return history_store_open(&config, &store, NULL) == STATUS_OK ? 0 : -1;
}

static int close_shop(void **state)
{
    (void)state;
    history_store_close(store);
    core_fixture_close(&shop);
    return 0;
}

static void config_fill(struct server_config *config)
{
    server_config_default(config);
    config->listen = "127.0.0.1:0";
    config->n_workers = 2;
    config->engine = shop.engine;
    config->profiles = &shop.profiles;
    config->history = store;
    config->default_timeout_ms = 5000;
}

static void start(const struct server_config *config)
{
    struct error err = {0};
    if (server_start(config, &server, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static int start_default(void **state)
{
    struct server_config config;
    (void)state;
    config_fill(&config);
    start(&config);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    server_stop(server, 2000);
    server = NULL;
    return 0;
}

static int connect_client(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    const struct timeval limit = {10, 0};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)strtol(strrchr(server_url(server), ':') + 1, NULL, 10));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)),
                     0);
    return fd;
}

static void put(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        assert_true(n > 0);
        text += n;
        len -= (size_t)n;
    }
}

/* Reads until the server closes; NUL-terminated. */
static void read_all(int fd, struct buf *reply)
{
    char chunk[4096];
    ssize_t n = recv(fd, chunk, sizeof(chunk), 0);
    buf_init(reply, REPLY_MAX_BYTES);
    while (n > 0) {
        buf_append(reply, chunk, (size_t)n);
        n = recv(fd, chunk, sizeof(chunk), 0);
    }
    (void)buf_text(reply);
}

struct answer {
    struct buf bytes;
    int http_status;
    const char *body;
    cJSON *json; /* NULL: no JSON */
};

static void answer_free(struct answer *answer)
{
    cJSON_Delete(answer->json);
    buf_free(&answer->bytes);
}

static void receive(int fd, struct answer *answer)
{
    read_all(fd, &answer->bytes);
    const char *text = buf_text(&answer->bytes);
    assert_memory_equal(text, "HTTP/1.1 ", 9);
    answer->http_status = (int)strtol(text + 9, NULL, 10);
    const char *end = strstr(text, "\r\n\r\n");
    assert_non_null(end);
    answer->body = end + 4;
    answer->json = cJSON_Parse(answer->body);
}

/* One request on a connection of its own. head_more: further header lines or "". */
static struct answer ask(const char *line, const char *head_more, const char *body)
{
    struct answer answer = {0};
    struct buf text;
    int fd = connect_client();
    buf_init(&text, REPLY_MAX_BYTES);
    buf_printf(&text, "%s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n%s", line, head_more);
    if (body != NULL) {
        buf_printf(&text, "Content-Length: %zu\r\n\r\n", strlen(body));
        buf_append_text(&text, body);
    } else {
        buf_append_text(&text, "\r\n");
    }
    put(fd, buf_text(&text));
    receive(fd, &answer);
    assert_int_equal(close(fd), 0);
    buf_free(&text);
    return answer;
}

static const cJSON *member(const struct answer *answer, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(answer->json, name);
}

static void expect(const char *line, const char *head_more, const char *body, int http_status,
                   const char *field)
{
    struct answer answer = ask(line, head_more, body);
    const char *got = cJSON_GetStringValue(member(&answer, "field"));
    if (answer.http_status != http_status ||
        (field != NULL && (got == NULL || strcmp(got, field) != 0))) {
        fail_msg("%s %s: %s", line, body != NULL ? body : "", buf_text(&answer.bytes));
    }
    if (http_status >= 400) {
        assert_non_null(strstr(buf_text(&answer.bytes), "application/problem+json"));
        assert_int_equal((int)cJSON_GetNumberValue(member(&answer, "status")), http_status);
    }
    answer_free(&answer);
}

static const char POST[] = "POST /v1/recommendations";

static void recommend_answers_limit_items_with_their_metadata(void **state)
{
    struct answer answer = ask(POST, "", "{\"user_id\":\"u1\",\"limit\":7,\"explain\":true}");
    (void)state;
    assert_int_equal(answer.http_status, 200);
    assert_non_null(strstr(buf_text(&answer.bytes), "Server-Timing: parse;dur="));
    const cJSON *items = member(&answer, "items");
    assert_int_equal(cJSON_GetArraySize(items), 7);
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, items) {
        double sum = 0.0;
        const cJSON *part = NULL;
        const cJSON *explanation = cJSON_GetObjectItem(item, "explanation");
        cJSON_ArrayForEach (part, cJSON_GetObjectItem(explanation, "features")) {
            sum += part->valuedouble;
        }
        assert_true(cJSON_IsString(cJSON_GetObjectItem(item, "title")));
        double score = cJSON_GetNumberValue(cJSON_GetObjectItem(item, "score"));
        assert_true(sum - score < 1e-4 && score - sum < 1e-4);
    }
    answer_free(&answer);
}

static void recommend_pages_show_no_item_twice(void **state)
{
    bool seen[ITEMS] = {false};
    char body[256] = "{\"user_id\":\"pager\",\"limit\":60}";
    size_t n_seen = 0;
    (void)state;
    for (int page = 0; page < 8; page++) {
        struct answer answer = ask(POST, "", body);
        assert_int_equal(answer.http_status, 200);
        const cJSON *item = NULL;
        cJSON_ArrayForEach (item, member(&answer, "items")) {
            const char *id = cJSON_GetStringValue(cJSON_GetObjectItem(item, "id"));
            uint32_t row = catalog_row(shop.engine->catalog, id, strlen(id));
            assert_true(row < ITEMS);
            assert_false(seen[row]);
            seen[row] = true;
            n_seen++;
        }
        (void)snprintf(body, sizeof(body), "{\"user_id\":\"pager\",\"limit\":60,\"after\":\"%s\"}",
                       cJSON_GetStringValue(member(&answer, "request_id")));
        answer_free(&answer);
    }
    assert_int_equal(n_seen, ITEMS); /* and then a page without any */
    expect(POST, "", "{\"after\":\"01J0000000000000000000000\"}", 400, "after");
}

static void event_is_in_the_next_requests_history_until_erased(void **state)
{
    char body[256];
    (void)state;
    (void)snprintf(body, sizeof(body),
                   "[{\"user_id\":\"visitor\",\"item_id\":\"%s\",\"type\":\"purchase\","
                   "\"event_id\":\"e1\"}]",
                   shop.items[5].id);
    expect("POST /v1/events", "", body, 202, NULL);
    struct answer answer = ask("POST /v1/events", "", body);
    assert_string_equal(answer.body, "{\"accepted\":1,\"duplicates\":1}");
    answer_free(&answer);
    answer = ask("GET /v1/users/visitor/history", "", NULL);
    const cJSON *events = member(&answer, "events");
    assert_int_equal(cJSON_GetArraySize(events), 1);
    assert_string_equal(
        cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetArrayItem(events, 0), "item_id")),
        shop.items[5].id);
    answer_free(&answer);
    answer = ask("GET /v1/users/visitor/recommendations?limit=200", "", NULL);
    assert_null(strstr(answer.body, "\"degraded\":[\""));
    (void)snprintf(body, sizeof(body), "{\"id\":\"%s\"", shop.items[5].id);
    assert_null(strstr(answer.body, body)); /* bought already */
    assert_non_null(strstr(answer.body, "\"vector\""));
    answer_free(&answer);
    answer = ask("DELETE /v1/users/visitor", "", NULL);
    assert_int_equal(answer.http_status, 200);
    assert_true(cJSON_GetNumberValue(member(&answer, "erased")) > 0);
    answer_free(&answer);
    answer = ask("GET /v1/users/visitor/history", "", NULL);
    assert_int_equal(cJSON_GetArraySize(member(&answer, "events")), 0);
    answer_free(&answer);
}

static void faulty_events_write_nothing(void **state)
{
    (void)state;
    expect("POST /v1/events", "",
           "{\"user_id\":\"w\",\"item_id\":\"i\",\"type\":\"view\"}\n{\"user_id\":\"w\"}", 400,
           "[1].item_id");
    struct answer answer = ask("GET /v1/users/w/history", "", NULL);
    assert_int_equal(cJSON_GetArraySize(member(&answer, "events")), 0);
    answer_free(&answer);
}

static void batch_answers_in_order_with_problems_in_place(void **state)
{
    struct buf body;
    (void)state;
    buf_init(&body, 1 << 20);
    buf_append_char(&body, '[');
    for (int i = 0; i < BATCH_REQUESTS_MAX; i++) {
        buf_printf(&body, "%s{\"user_id\":\"u%d\",\"limit\":%d,\"fields\":[]}", i > 0 ? "," : "", i,
                   i % 10);
    }
    buf_append_char(&body, ']');
    struct answer answer = ask("POST /v1/recommendations/batch", "", buf_text(&body));
    assert_int_equal(answer.http_status, 200);
    assert_int_equal(cJSON_GetArraySize(answer.json), BATCH_REQUESTS_MAX);
    int i = 0;
    const cJSON *element = NULL;
    cJSON_ArrayForEach (element, answer.json) {
        if (i % 10 == 0) {
            assert_int_equal((int)cJSON_GetNumberValue(cJSON_GetObjectItem(element, "status")),
                             400);
        } else {
            assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(element, "items")), i % 10);
        }
        i++;
    }
    answer_free(&answer);
    body.len--;
    buf_append_text(&body, ",{}]");
    expect("POST /v1/recommendations/batch", "", buf_text(&body), 400, NULL);
    expect("POST /v1/recommendations/batch", "", "{}", 400, NULL);
    expect("POST /v1/recommendations/batch", "", "[]", 400, NULL);
    buf_free(&body);
}

static void score_ranks_what_it_is_given(void **state)
{
    char body[256];
    (void)state;
    (void)snprintf(body, sizeof(body), "{\"user_id\":\"u\",\"items\":[\"%s\",\"nope\",\"%s\"]}",
                   shop.items[3].id, shop.items[4].id);
    struct answer answer = ask("POST /v1/score", "", body);
    assert_int_equal(answer.http_status, 200);
    assert_int_equal(cJSON_GetArraySize(member(&answer, "items")), 2);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(member(&answer, "ignored"), 0)),
                        "nope");
    answer_free(&answer);
}

static void item_answers_not_modified_to_its_own_etag(void **state)
{
    char line[128];
    char header[128];
    (void)state;
    (void)snprintf(line, sizeof(line), "GET /v1/items/%s", shop.items[0].id);
    struct answer answer = ask(line, "", NULL);
    assert_int_equal(answer.http_status, 200);
    const char *etag = strstr(buf_text(&answer.bytes), "ETag: ");
    assert_non_null(etag);
    (void)snprintf(header, sizeof(header), "If-None-Match: W/%.18s\r\n", etag + 6);
    answer_free(&answer);
    expect(line, header, NULL, 304, NULL);
    expect(line, "If-None-Match: \"other\"\r\n", NULL, 200, NULL);
    expect("GET /v1/items/nope", "", NULL, 404, "id");
}

static void malformed_requests_get_problems(void **state)
{
    (void)state;
    expect(POST, "", "", 400, NULL);
    expect(POST, "", "limit=3", 400, NULL);
    expect(POST, "", "{\"limit\":0}", 400, "limit");
    expect(POST, "", "{\"scenario\":\"related\"}", 400, "items");
    expect(POST, "", "{\"profile\":\"nope\"}", 400, "profile");
    expect(POST, "", "{\"fields\":[\"id\",\"attributes.colour\"]}", 200, NULL);
    expect(POST, "", "{\"fields\":[\"attributes.\"]}", 400, "fields");
    expect(POST, "", "{\"filter\":{\"field\":\"price\",\"foo\":1}}", 400, "filter.foo");
    expect("PUT /v1/recommendations", "", "{}", 405, NULL);
    expect("GET /nothing", "", NULL, 404, NULL);
    expect("GET /", "", NULL, 404, NULL);
    expect("GET /v1/users/u/recommendations?limt=1", "", NULL, 400, "limt");
    expect("GET /v1/users/%ff/history", "", NULL, 400, "id");
    expect("OPTIONS /v1/score", "", NULL, 204, NULL);
    expect("GET /healthz", "", NULL, 200, NULL);
    expect("GET /readyz", "", NULL, 200, NULL);
    expect("GET /v1/release", "", NULL, 200, NULL);
    expect("GET /openapi.json", "", NULL, 200, NULL);
    expect("GET /metrics", "", NULL, 200, NULL);
}

static void head_has_the_length_and_no_body(void **state)
{
    struct answer answer = ask("HEAD /v1/release", "", NULL);
    (void)state;
    assert_int_equal(answer.http_status, 200);
    const char *length = strstr(buf_text(&answer.bytes), "Content-Length: ");
    assert_non_null(length);
    assert_true(strtol(length + 16, NULL, 10) > 100);
    assert_int_equal(strlen(answer.body), 0);
    answer_free(&answer);
}

static void bodies_over_the_limit_get_413_chunked_or_not(void **state)
{
    struct buf body;
    struct buf text;
    struct answer answer = {0};
    (void)state;
    buf_init(&body, 4 << 20);
    while (body.len <= BODY_MAX_BYTES_DEFAULT) {
        buf_append_text(&body, "                                                                ");
    }
    expect(POST, "", buf_text(&body), 413, NULL);
    buf_init(&text, 8 << 20);
    buf_printf(&text,
               "%s HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
               "%zx\r\n%s\r\n0\r\n\r\n",
               POST, body.len, buf_text(&body));
    int fd = connect_client();
    put(fd, buf_text(&text));
    receive(fd, &answer);
    assert_int_equal(answer.http_status, 413);
    answer_free(&answer);
    assert_int_equal(close(fd), 0);
    buf_free(&text);
    buf_free(&body);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct buf reply;
    (void)state;
    int fd = connect_client();
    put(fd,
        "POST /v1/recommendations HTTP/1.1\r\nHost: t\r\nContent-Length: 11\r\n\r\n{\"limit\":1}"
        "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"
        "GET /nothing HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    read_all(fd, &reply);
    const char *first = strstr(buf_text(&reply), "request_id");
    const char *second = strstr(buf_text(&reply), "alive");
    const char *third = strstr(buf_text(&reply), "404");
    assert_true(first != NULL && second > first && third > second);
    buf_free(&reply);
    assert_int_equal(close(fd), 0);
}

static void reply_of_evhttp_is_a_problem(const char *text, int http_status)
{
    struct answer answer = {0};
    int fd = connect_client();
    put(fd, text);
    receive(fd, &answer);
    if (answer.http_status != http_status ||
        strstr(buf_text(&answer.bytes), "application/problem+json") == NULL) {
        fail_msg("%s: %s", text, buf_text(&answer.bytes));
    }
    assert_int_equal((int)cJSON_GetNumberValue(member(&answer, "status")), http_status);
    answer_free(&answer);
    assert_int_equal(close(fd), 0);
}

static void announced_bodies_over_the_limit_and_bad_lines_get_problems_at_once(void **state)
{
    (void)state;
    reply_of_evhttp_is_a_problem(
        "POST /v1/score HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999\r\n\r\n", 413);
    reply_of_evhttp_is_a_problem("POST /v1/score HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
                                 "Content-Length: 99999999\r\n\r\n",
                                 413);
    reply_of_evhttp_is_a_problem("GET /healthz HTTP\r\n\r\n", 400);
    reply_of_evhttp_is_a_problem("BREW /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 501);
    expect("TRACE /healthz", "", NULL, 405, NULL);
}

/* Answers that nobody reads are counted until their connections close, and no longer. */
static void batch_answers_that_nobody_reads_are_bounded(void **state)
{
    enum { CLIENTS = 40, ELEMENTS = 300 };
    struct server_config config;
    struct buf text;
    struct buf body;
    int clients[CLIENTS];
    int n_refused = 0;
    (void)state;
    config_fill(&config);
    config.n_workers = 1;
    start(&config);
    buf_init(&body, 1 << 20);
    for (int i = 0; i < ELEMENTS; i++) {
        buf_append_text(&body, i == 0 ? "[{\"limit\":200}" : ",{\"limit\":200}");
    }
    buf_append_char(&body, ']');
    buf_init(&text, 1 << 20);
    buf_printf(&text,
               "POST /v1/recommendations/batch HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
               "Content-Length: %zu\r\n\r\n%s",
               body.len, buf_text(&body));
    for (int i = 0; i < CLIENTS; i++) {
        char first[16] = {0};
        clients[i] = connect_client();
        put(clients[i], buf_text(&text));
        assert_int_equal(recv(clients[i], first, 12, MSG_WAITALL), 12); /* it is answered */
        n_refused += strcmp(first, "HTTP/1.1 503") == 0 ? 1 : 0;
    }
    assert_in_range(n_refused, 1, CLIENTS - 1);
    for (int i = 0; i < CLIENTS; i++) {
        assert_int_equal(close(clients[i]), 0);
    }
    bool answered = false;
    for (int i = 0; i < 1000 && !answered; i++) {
        struct answer answer = ask("POST /v1/recommendations/batch", "", "[{}]");
        answered = answer.http_status == 200;
        answer_free(&answer);
    }
    assert_true(answered);
    buf_free(&text);
    buf_free(&body);
    server_stop(server, 2000);
}

static void batch_elements_are_late_by_their_own_time_only(void **state)
{
    struct buf body;
    (void)state;
    buf_init(&body, 1 << 20);
    for (int i = 0; i < BATCH_REQUESTS_MAX; i++) {
        buf_printf(&body, "%s{\"limit\":20,\"timeout_ms\":200,\"fields\":[]}", i > 0 ? "," : "[");
    }
    buf_append_char(&body, ']');
    struct answer answer = ask("POST /v1/recommendations/batch", "", buf_text(&body));
    assert_int_equal(answer.http_status, 200);
    assert_null(strstr(answer.body, "\"deadline\""));
    const cJSON *id = cJSON_GetObjectItem(cJSON_GetArrayItem(answer.json, 0), "request_id");
    char next[128];
    (void)snprintf(next, sizeof(next), "{\"after\":\"%s\"}", cJSON_GetStringValue(id));
    expect(POST, "", next, 400, "after"); /* elements have no next page */
    answer_free(&answer);
    buf_free(&body);
}

/* Clients that go away at every point of a request: the server must neither fall nor leak. */
static void clients_that_hang_up_leave_the_server_well(void **state)
{
    static const char request[] =
        "POST /v1/recommendations HTTP/1.1\r\nHost: t\r\nContent-Length: 15\r\n\r\n"
        "{\"user_id\":\"h\"}";
    static const char event[] = "POST /v1/events HTTP/1.1\r\nHost: t\r\nContent-Length: 45\r\n\r\n"
                                "{\"user_id\":\"h\",\"item_id\":\"i\",\"type\":\"view\"} ";
    static const char batch[] =
        "POST /v1/recommendations/batch HTTP/1.1\r\nHost: t\r\nContent-Length: 8\r\n\r\n[{},{}] ";
    static const char *const texts[] = {request, event, batch};
    const struct linger reset = {1, 0};
    (void)state;
    for (int i = 0; i < 300; i++) {
        const char *text = texts[i % 3];
        size_t n = i % 4 == 0 ? strlen(text) * (size_t)(i % 10) / 10 : strlen(text);
        int fd = connect_client();
        (void)!send(fd, text, n, MSG_NOSIGNAL);
        if (i % 2 == 0) {
            (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        }
        assert_int_equal(close(fd), 0);
    }
    expect(POST, "", "{}", 200, NULL);
}

static void token_guards_writing_on_loopback(void **state)
{
    struct server_config config;
    static const char event[] = "{\"user_id\":\"t\",\"item_id\":\"i\",\"type\":\"view\"}";
    (void)state;
    config_fill(&config);
    config.token = "secret";
    config.demo = true;
    start(&config);
    expect("POST /v1/events", "", event, 401, NULL);
    expect("POST /v1/events", "Authorization: Bearer wrong\r\n", event, 401, NULL);
    expect("POST /v1/events", "Authorization: Basic secret\r\n", event, 401, NULL);
    expect("POST /v1/events", "Authorization: bearer secret\r\n", event, 202, NULL);
    expect("GET /v1/users/t/history", "", NULL, 401, NULL);
    expect("DELETE /v1/users/t", "", NULL, 401, NULL);
    expect(POST, "", "{}", 200, NULL);
    expect("GET /", "", NULL, 200, NULL);
    server_stop(server, 2000);
}

static void server_start_beyond_loopback_without_token_is_refused(void **state)
{
    struct server_config config;
    struct error err = {0};
    (void)state;
    config_fill(&config);
    config.listen = "0.0.0.0:0";
    server = (struct server *)&config;
    assert_int_equal(server_start(&config, &server, &err), STATUS_PERMISSION);
    assert_null(server);
    config.token = "";
    assert_int_equal(server_start(&config, &server, &err), STATUS_INVALID);
    assert_null(server);
}

static void beyond_loopback_all_but_health_and_the_page_needs_the_token(void **state)
{
    struct server_config config;
    (void)state;
    config_fill(&config);
    config.token = "secret";
    config.listen = "0.0.0.0:0";
    config.demo = true;
    start(&config);
    expect("GET /", "", NULL, 200, NULL); /* a page without data, which asks for the token */
    expect("GET /shop.js", "", NULL, 200, NULL);
    expect(POST, "", "{}", 401, NULL);
    expect("GET /metrics", "", NULL, 401, NULL);
    expect("GET /healthz", "", NULL, 200, NULL);
    expect("GET /readyz", "", NULL, 200, NULL);
    expect(POST, "Authorization: Bearer secret\r\n", "{}", 200, NULL);
    server_stop(server, 2000);
}

static void connections_over_the_limit_are_closed_and_come_back(void **state)
{
    enum { MAX = 5, MANY = 12 };
    struct server_config config;
    int clients[MANY];
    int n_open = 0;
    (void)state;
    config_fill(&config);
    config.n_workers = 1;
    config.connections_max = MAX;
    start(&config);
    for (int i = 0; i < MANY; i++) {
        char byte = 0;
        clients[i] = connect_client();
        (void)!send(clients[i], "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 34, MSG_NOSIGNAL);
        n_open += recv(clients[i], &byte, 1, 0) == 1 ? 1 : 0;
    }
    assert_int_equal(n_open, MAX);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(close(clients[i]), 0);
    }
    /* The closed ones are noticed by the loop: until then a new one may be refused, too. */
    bool answered = false;
    for (int i = 0; i < 1000 && !answered; i++) {
        char byte = 0;
        int fd = connect_client();
        (void)!send(fd, "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 34, MSG_NOSIGNAL);
        answered = recv(fd, &byte, 1, 0) == 1;
        assert_int_equal(close(fd), 0);
    }
    assert_true(answered);
    server_stop(server, 2000);
}

static void server_stop_finishes_what_is_under_way(void **state)
{
    struct server_config config;
    int clients[20];
    (void)state;
    config_fill(&config);
    start(&config);
    for (int i = 0; i < 20; i++) {
        char byte = 0;
        clients[i] = connect_client();
        put(clients[i], "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"); /* accepted for sure */
        assert_int_equal(recv(clients[i], &byte, 1, MSG_PEEK), 1);
        put(clients[i], "POST /v1/recommendations HTTP/1.1\r\nHost: t\r\nContent-Length: 15\r\n\r\n"
                        "{\"user_id\":\"s\"}");
    }
    server_stop(server, 5000);
    for (int i = 0; i < 20; i++) {
        struct buf reply;
        read_all(clients[i], &reply);
        assert_non_null(strstr(buf_text(&reply), "request_id"));
        buf_free(&reply);
        assert_int_equal(close(clients[i]), 0);
    }
}

static void server_start_out_of_memory_is_an_error_until_it_fits(void **state)
{
    struct server_config config;
    int64_t n = 0;
    enum status status = STATUS_NOMEM;
    (void)state;
    config_fill(&config);
    config.n_workers = 1;
    while (status != STATUS_OK) {
        struct error err = {0};
        mem_fail_nth(++n);
        status = server_start(&config, &server, &err);
        mem_fail_nth(0);
        assert_true((status == STATUS_OK) == (server != NULL));
        assert_int_equal(err.code, status);
    }
    assert_true(n > 20);
    server_stop(server, 0);
}

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN); /* as `aisle serve` does */
    log_init(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT, 2);
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, start_default, stop)
    const struct CMUnitTest tests[] = {
        WITH_SERVER(recommend_answers_limit_items_with_their_metadata),
        WITH_SERVER(recommend_pages_show_no_item_twice),
        WITH_SERVER(event_is_in_the_next_requests_history_until_erased),
        WITH_SERVER(faulty_events_write_nothing),
        WITH_SERVER(batch_answers_in_order_with_problems_in_place),
        WITH_SERVER(score_ranks_what_it_is_given),
        WITH_SERVER(item_answers_not_modified_to_its_own_etag),
        WITH_SERVER(malformed_requests_get_problems),
        WITH_SERVER(head_has_the_length_and_no_body),
        WITH_SERVER(bodies_over_the_limit_get_413_chunked_or_not),
        WITH_SERVER(pipelined_requests_are_answered_in_order),
        WITH_SERVER(announced_bodies_over_the_limit_and_bad_lines_get_problems_at_once),
        WITH_SERVER(batch_elements_are_late_by_their_own_time_only),
        cmocka_unit_test(batch_answers_that_nobody_reads_are_bounded),
        WITH_SERVER(clients_that_hang_up_leave_the_server_well),
        cmocka_unit_test(token_guards_writing_on_loopback),
        cmocka_unit_test(server_start_beyond_loopback_without_token_is_refused),
        cmocka_unit_test(beyond_loopback_all_but_health_and_the_page_needs_the_token),
        cmocka_unit_test(connections_over_the_limit_are_closed_and_come_back),
        cmocka_unit_test(server_stop_finishes_what_is_under_way),
        cmocka_unit_test(server_start_out_of_memory_is_an_error_until_it_fits),
    };
    return cmocka_run_group_tests(tests, open_shop, close_shop);
}
