#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json_write.h"
#include "base/options.h"
#include "commands.h"
#include "common.h"
#include "store/import.h"

struct import_options {
    const char *from;
    const char *out;
    struct option_list map;
    bool json;
};

enum { FILES_MAX = 1024, REPORT_MAX_BYTES = 1 << 16 };

#define AT(field) offsetof(struct import_options, field)
static const struct option_row ROWS[] = {
    {"from", OPTION_TEXT, AT(from), NULL, 0, 0, "",
     "format: online-retail, retailrocket, sequences, sessions, clicks, generic (required)", false},
    {"out", OPTION_TEXT, AT(out), NULL, 0, 0, "", "folder for items.csv and events.csv (required)",
     false},
    {"map", OPTION_LIST, AT(map), NULL, 0, 0, "",
     "generic: FIELD=COLUMN,…; fields: user_id, item_id, timestamp, type, session_id, value, "
     "title, "
     "category, brand, price, currency",
     false},
    {"json", OPTION_BOOL, AT(json), NULL, 0, 0, "", "print the counts as JSON", false},
};
#undef AT

static const struct option_table TABLE = {
    .command = "aisle import",
    .synopsis = "aisle import --from FORMAT --out DIR FILE…",
    .about =
        "Turns public data sets and other shops' files into items.csv and events.csv. Rows that "
        "are of no use are dropped and counted by reason.",
    .examples = "  aisle import --from online-retail --out build/retail online_retail.csv\n"
                "  aisle import --from clicks --out build/clicks clicks.txt\n"
                "  aisle import --from generic --out build/shop --map user_id=customer,item_id=sku,"
                "timestamp=at,type=event log.csv\n",
    .rows = ROWS,
    .n_rows = sizeof ROWS / sizeof ROWS[0],
    .n_positional_max = FILES_MAX,
};

static void write_json(const struct import_counts *counts, struct buf *out)
{
    struct json_writer json;
    json_writer_init(&json, out);
    json_begin_object(&json, NULL);
    json_int(&json, "rows", (int64_t)counts->n_rows);
    json_int(&json, "items", (int64_t)counts->n_items);
    json_int(&json, "events", (int64_t)counts->n_events);
    json_int(&json, "users", (int64_t)counts->n_users);
    json_int(&json, "sessions", (int64_t)counts->n_sessions);
    json_begin_object(&json, "dropped");
    for (size_t i = 0; i < counts->n_drop_reasons; i++) {
        json_int(&json, counts->dropped[i].reason, (int64_t)counts->dropped[i].n);
    }
    json_end_object(&json);
    json_end_object(&json);
}

static void write_text(const struct import_counts *counts, struct buf *out)
{
    buf_printf(out, "rows      %llu\n", (unsigned long long)counts->n_rows);
    buf_printf(out, "events    %llu\n", (unsigned long long)counts->n_events);
    buf_printf(out, "items     %llu\n", (unsigned long long)counts->n_items);
    buf_printf(out, "users     %llu\n", (unsigned long long)counts->n_users);
    buf_printf(out, "sessions  %llu\n", (unsigned long long)counts->n_sessions);
    for (size_t i = 0; i < counts->n_drop_reasons; i++) {
        buf_printf(out, "dropped   %llu: %s\n", (unsigned long long)counts->dropped[i].n,
                   counts->dropped[i].reason);
    }
}

static int run(const struct import_options *import, const struct options *options)
{
    const struct import_config config = {
        .format = import->from,
        .out_dir = import->out,
        .paths = options->positional,
        .n_paths = options->n_positional,
        .map = &import->map,
    };
    struct import_counts counts;
    struct error err;
    struct buf text;
    if (import->from == NULL || import->out == NULL || options->n_positional == 0) {
        return command_usage(TABLE.command, "--from FORMAT, --out DIR and a file are needed");
    }
    if (import_run(&config, &counts, &err) != STATUS_OK) {
        return command_failed(TABLE.command, &err);
    }
    buf_init(&text, REPORT_MAX_BYTES);
    if (import->json) {
        write_json(&counts, &text);
    } else {
        write_text(&counts, &text);
    }
    int code = command_print(TABLE.command, &text);
    buf_free(&text);
    return code;
}

int command_import(int argc, const char *const *argv)
{
    struct import_options import = {0};
    struct options options;
    int code = EXIT_CODE_DONE;
    if (!command_parse(&TABLE, argc, argv, &import, &options, &code)) {
        return code;
    }
    code = run(&import, &options);
    options_free(&options);
    return code;
}
