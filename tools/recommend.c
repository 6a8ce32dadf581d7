#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "aisle.h"
#include "base/alloc.h"
#include "base/json_write.h"
#include "base/options.h"
#include "commands.h"
#include "common.h"
#include "store/event_file.h"

/* One answer from a release, without a server: the public library, a table or JSON of what it says.
 */

enum { HISTORY_MAX = 200, PAGE_ITEMS_MAX = 200, ANSWER_MAX_BYTES = 16 << 20, TITLE_SHOWN = 60 };

struct recommend_options {
    const char *release, *history, *user, *events, *filter, *scenario, *items, *exclude_seen;
    int64_t limit;
    bool explain, json;
};

#define AT(field) offsetof(struct recommend_options, field)
static const struct option_row ROWS[] = {
    {"release", OPTION_TEXT, AT(release), NULL, 0, 0, "", "folder of the release (required)",
     false},
    {"history", OPTION_TEXT, AT(history), NULL, 0, 0, "",
     "ids of the items viewed, newest first, comma-separated", false},
    {"user", OPTION_TEXT, AT(user), NULL, 0, 0, "", "whose history to take from --events", false},
    {"events", OPTION_TEXT, AT(events), NULL, 0, 0, "", "event file (CSV or JSON Lines)", false},
    {"limit", OPTION_INT, AT(limit), "20", 1, 200, "items", "how many items", false},
    {"filter", OPTION_TEXT, AT(filter), NULL, 0, 0, "", "filter as JSON, as the server takes it",
     false},
    {"scenario", OPTION_TEXT, AT(scenario), "for_you", 0, 0, "",
     "for_you, related, cart or popular", false},
    {"items", OPTION_TEXT, AT(items), NULL, 0, 0, "",
     "the page's item or the cart's, comma-separated", false},
    {"exclude-seen", OPTION_TEXT, AT(exclude_seen), "purchased", 0, 0, "",
     "none, viewed or purchased", false},
    {"explain", OPTION_BOOL, AT(explain), NULL, 0, 0, "", "say why", false},
    {"json", OPTION_BOOL, AT(json), NULL, 0, 0, "", "print JSON", false},
};
#undef AT

static const struct option_table TABLE = {
    .command = "aisle recommend",
    .synopsis = "aisle recommend --release DIR (--history ID,ID,... | --user ID --events FILE) "
                "[--limit N] [--filter JSON] [--json]",
    .about = "Ranks items for one visitor with a release, without a server.",
    .examples =
        "  aisle recommend --release shop/channels/stable --history SKU1,SKU7\n"
        "  aisle recommend --release shop/channels/stable --user u42 --events events.csv\n"
        "  aisle recommend --release shop/channels/stable --scenario related --items SKU1 \\\n"
        "      --filter '{\"field\": \"stock\", \"gt\": 0}' --explain\n",
    .rows = ROWS,
    .n_rows = sizeof ROWS / sizeof ROWS[0],
};

struct query {
    struct aisle_event history[HISTORY_MAX]; /* newest first */
    size_t n_history;
    const char *items[PAGE_ITEMS_MAX];
    size_t n_items;
    char *history_text, *items_text; /* what --history's and --items' ids lie in */
    char *owned[HISTORY_MAX];        /* ids of --events */
};

static void query_free(struct query *query)
{
    for (size_t i = 0; i < HISTORY_MAX; i++) {
        mem_free(query->owned[i]);
    }
    mem_free(query->history_text);
    mem_free(query->items_text);
}

/* Splits "A,B,C" in a copy of text. */
static enum status split(const char *text, char **copy, const char **ids, size_t n_max, size_t *n,
                         struct error *err)
{
    *copy = mem_strdup(text);
    if (*copy == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of a request");
    }
    for (char *id = *copy; id != NULL;) {
        char *comma = strchr(id, ',');
        if (comma != NULL) {
            *comma = '\0';
        }
        if (*n == n_max) {
            return error_set(err, STATUS_LIMIT, "more than %zu ids in %.40s...", n_max, text);
        }
        ids[(*n)++] = id;
        id = comma != NULL ? comma + 1 : NULL;
    }
    return STATUS_OK;
}

/* ---- history from an event file ---- */

/* Puts an event among the newest, kept newest first; of equal times the later line is newer. */
static enum status keep_newest(struct query *query, const struct event_record *event,
                               struct error *err)
{
    size_t at = query->n_history;
    while (at > 0 && query->history[at - 1].time_ms <= event->time_ms) {
        at--;
    }
    if (at == HISTORY_MAX) {
        return STATUS_OK;
    }
    char *id = mem_strdup(event->item_id);
    if (id == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of a history");
    }
    if (query->n_history == HISTORY_MAX) {
        mem_free(query->owned[--query->n_history]);
    }
    size_t n_older = query->n_history - at;
    memmove(&query->history[at + 1], &query->history[at], n_older * sizeof query->history[0]);
    memmove(&query->owned[at + 1], &query->owned[at], n_older * sizeof query->owned[0]);
    query->owned[at] = id;
    query->history[at] = (struct aisle_event){id, event_type_name(event->type), event->time_ms};
    query->n_history++;
    return STATUS_OK;
}

static enum status read_history(struct query *query, const struct recommend_options *options,
                                struct error *err)
{
    struct event_reader *reader;
    enum status status = event_reader_open(options->events, &reader, err);
    if (status != STATUS_OK) {
        return status;
    }
    while (status == STATUS_OK) {
        struct event_record event;
        status = event_reader_next(reader, &event, err);
        if (status == STATUS_OK && strcmp(event.user_id, options->user) == 0) {
            status = keep_newest(query, &event, err);
        }
    }
    event_reader_close(reader);
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

static enum status make_query(struct query *query, const struct recommend_options *options,
                              struct error *err)
{
    enum status status = STATUS_OK;
    if (options->items != NULL) {
        status = split(options->items, &query->items_text, query->items, PAGE_ITEMS_MAX,
                       &query->n_items, err);
    }
    if (status == STATUS_OK && options->history != NULL) {
        const char *ids[HISTORY_MAX];
        status =
            split(options->history, &query->history_text, ids, HISTORY_MAX, &query->n_history, err);
        for (size_t i = 0; status == STATUS_OK && i < query->n_history; i++) {
            query->history[i] = (struct aisle_event){ids[i], NULL, -1};
        }
    } else if (status == STATUS_OK && options->user != NULL) {
        status = read_history(query, options, err);
    }
    return status;
}

/* ---- printing ---- */

static void optional_text(struct json_writer *json, const char *key, const char *text)
{
    if (text != NULL) {
        json_string(json, key, text);
    }
}

static void optional_number(struct json_writer *json, const char *key, double number)
{
    if (!isnan(number)) {
        json_double(json, key, number);
    }
}

static void write_json(const struct aisle_answer *answer, struct buf *out)
{
    struct json_writer json;
    json_writer_init(&json, out);
    json_begin_object(&json, NULL);
    json_string(&json, "request_id", answer->request_id);
    json_string(&json, "release", answer->release);
    json_int(&json, "n_history_used", (int64_t)answer->n_history_used);
    json_int(&json, "n_history_unknown", (int64_t)answer->n_history_unknown);
    json_begin_array(&json, "items");
    for (size_t i = 0; i < answer->n_items; i++) {
        const struct aisle_item *item = &answer->items[i];
        json_begin_object(&json, NULL);
        json_string(&json, "id", item->id);
        json_float(&json, "score", (float)item->score);
        optional_text(&json, "title", item->title);
        optional_text(&json, "category", item->category);
        optional_text(&json, "brand", item->brand);
        optional_number(&json, "price", item->price);
        optional_text(&json, "currency", item->currency);
        optional_number(&json, "stock", item->stock);
        optional_text(&json, "url", item->url);
        optional_text(&json, "image_url", item->image_url);
        if (item->attributes_json != NULL) {
            json_raw(&json, "attributes", item->attributes_json, strlen(item->attributes_json));
        }
        json_string(&json, "source", item->source);
        optional_number(&json, "similarity", item->similarity);
        optional_text(&json, "because", item->because);
        json_end_object(&json);
    }
    json_end_array(&json);
    json_end_object(&json);
}

static int id_width(const struct aisle_answer *answer)
{
    size_t width = strlen("id");
    for (size_t i = 0; i < answer->n_items; i++) {
        size_t len = strlen(answer->items[i].id);
        width = len > width ? len : width;
    }
    return (int)width;
}

static void write_table(const struct aisle_answer *answer, bool explain, struct buf *out)
{
    int width = id_width(answer);
    buf_printf(out, "%4s  %-*s  %8s  %10s  %-7s  %s\n", "rank", width, "id", "score", "price",
               "source", explain ? "title (because)" : "title");
    for (size_t i = 0; i < answer->n_items; i++) {
        const struct aisle_item *item = &answer->items[i];
        buf_printf(out, "%4zu  %-*s  %8.4f  ", i + 1, width, item->id, item->score);
        if (isnan(item->price)) {
            buf_printf(out, "%10s", "-");
        } else {
            buf_printf(out, "%10.2f", item->price);
        }
        buf_printf(out, "  %-7s  %.*s", item->source, TITLE_SHOWN,
                   item->title != NULL ? item->title : "");
        if (item->because != NULL) {
            buf_printf(out, " (%s)", item->because);
        }
        buf_append_char(out, '\n');
    }
    buf_printf(out, "release %s, %zu events of history used, %zu of unknown items\n",
               answer->release, answer->n_history_used, answer->n_history_unknown);
}

/* ---- the command ---- */

/* The field at fault comes first, where the message does not begin with it. */
static int failed(const struct aisle_error *error)
{
    struct error err;
    bool named = strncmp(error->message, error->field, strlen(error->field)) == 0;
    (void)error_set(&err, (enum status)error->code, "%s%s%s", named ? "" : error->field,
                    named ? "" : ": ", error->message);
    return command_failed(TABLE.command, &err);
}

static int answer_query(const struct recommend_options *options, const struct query *query,
                        struct aisle_session *session)
{
    const struct aisle_request request = {
        .scenario = options->scenario,
        .history = query->history,
        .n_history = query->n_history,
        .items = query->items,
        .n_items = query->n_items,
        .filter_json = options->filter,
        .limit = (size_t)options->limit,
        .exclude_seen = options->exclude_seen,
        .explain = options->explain,
    };
    struct aisle_error error = {0};
    const struct aisle_answer *answer;
    if (aisle_recommend(session, &request, &answer, &error) != AISLE_OK) {
        return failed(&error);
    }
    struct buf text;
    buf_init(&text, ANSWER_MAX_BYTES);
    if (options->json) {
        write_json(answer, &text);
    } else {
        write_table(answer, options->explain, &text);
    }
    int code = command_print(TABLE.command, &text);
    buf_free(&text);
    return code;
}

static int run(const struct recommend_options *options, struct query *query)
{
    struct error err = {0};
    struct aisle_error error = {0};
    struct aisle *aisle = NULL;
    struct aisle_session *session = NULL;
    if (make_query(query, options, &err) != STATUS_OK) {
        return command_failed(TABLE.command, &err);
    }
    int code;
    if (aisle_open(options->release, &aisle, &error) != AISLE_OK ||
        aisle_session_open(aisle, &session, &error) != AISLE_OK) {
        code = failed(&error);
    } else {
        code = answer_query(options, query, session);
    }
    aisle_session_close(session);
    aisle_close(aisle);
    return code;
}

int command_recommend(int argc, const char *const *argv)
{
    struct recommend_options options;
    struct options parsed;
    int code = EXIT_CODE_DONE;
    if (!command_parse(&TABLE, argc, argv, &options, &parsed, &code)) {
        return code;
    }
    struct query *query = mem_calloc(1, sizeof *query);
    if (options.release == NULL) {
        code = command_usage(TABLE.command, "--release DIR is needed");
    } else if ((options.user != NULL) != (options.events != NULL)) {
        code = command_usage(TABLE.command, "--user ID and --events FILE go together");
    } else if (options.user != NULL && options.history != NULL) {
        code = command_usage(TABLE.command, "either --history or --user");
    } else if (query == NULL) {
        code = command_failed(TABLE.command, &(struct error){STATUS_NOMEM, "", ""});
    } else {
        code = run(&options, query);
    }
    if (query != NULL) {
        query_free(query);
    }
    mem_free(query);
    options_free(&parsed);
    return code;
}
