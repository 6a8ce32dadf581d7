#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file.h"
#include "base/json_write.h"
#include "base/options.h"
#include "commands.h"
#include "common.h"
#include "store/synth.h"

struct synth_options {
    const char *out;
    const char *vocabulary;
    int64_t items, users, events, days, seed;
    bool json;
};

enum { REPORT_MAX_BYTES = 1 << 16 };

#define AT(field) offsetof(struct synth_options, field)
static const struct option_row ROWS[] = {
    {"out", OPTION_TEXT, AT(out), NULL, 0, 0, "", "folder for items.csv and events.csv (required)",
     false},
    {"items", OPTION_INT, AT(items), "5000", 1, SYNTH_ITEMS_MAX, "items", "size of the catalogue",
     false},
    {"users", OPTION_INT, AT(users), "20000", 1, SYNTH_USERS_MAX, "users", "how many visitors",
     false},
    {"events", OPTION_INT, AT(events), "400000", 0, SYNTH_EVENTS_MAX, "events",
     "views, carts and purchases together", false},
    {"days", OPTION_INT, AT(days), "60", 1, SYNTH_DAYS_MAX, "days", "time span of the events",
     false},
    {"seed", OPTION_INT, AT(seed), "1", 0, 9e15, "", "the same seed gives the same files", false},
    {"vocabulary", OPTION_TEXT, AT(vocabulary), NULL, 0, 0, "",
     "folder of shop.json (default: Aisle's own)", false},
    {"json", OPTION_BOOL, AT(json), NULL, 0, 0, "", "print what was made as JSON", false},
};
#undef AT

static const struct option_table TABLE = {
    .command = "aisle synth",
    .synopsis = "aisle synth --out DIR [--items N] [--users N] [--events N] [--seed N]",
    .about = "Makes up a believable shop: a catalogue (items.csv) and what its visitors do "
             "(events.csv), with tastes and habits that a model can learn.",
    .examples = "  aisle synth --out build/shop\n"
                "  aisle synth --out /tmp/big --items 1000000 --events 20000000 --seed 7\n",
    .rows = ROWS,
    .n_rows = sizeof ROWS / sizeof ROWS[0],
};

static int print_result(const struct synth_options *options)
{
    struct buf text;
    struct json_writer json;
    buf_init(&text, REPORT_MAX_BYTES);
    if (options->json) {
        json_writer_init(&json, &text);
        json_begin_object(&json, NULL);
        json_string(&json, "out", options->out);
        json_int(&json, "items", options->items);
        json_int(&json, "users", options->users);
        json_int(&json, "events", options->events);
        json_int(&json, "seed", options->seed);
        json_end_object(&json);
    } else {
        buf_printf(&text, "%s: items.csv with %lld items, events.csv with %lld events\n",
                   options->out, (long long)options->items, (long long)options->events);
    }
    int code = command_print(TABLE.command, &text);
    buf_free(&text);
    return code;
}

static int run(const struct synth_options *options)
{
    struct synth_config config;
    struct error err;
    if (options->out == NULL) {
        return command_usage(TABLE.command, "--out DIR is needed");
    }
    synth_config_default(&config);
    config.out_dir = options->out;
    config.vocabulary_dir = options->vocabulary;
    if (config.vocabulary_dir == NULL) {
        config.vocabulary_dir = file_exists(AISLE_VOCABULARY_SOURCE) ? AISLE_VOCABULARY_SOURCE
                                                                     : AISLE_VOCABULARY_INSTALLED;
    }
    config.n_items = (size_t)options->items;
    config.n_users = (size_t)options->users;
    config.n_events = (size_t)options->events;
    config.n_days = (size_t)options->days;
    config.seed = (uint64_t)options->seed;
    if (synth_run(&config, &err) != STATUS_OK) {
        return command_failed(TABLE.command, &err);
    }
    return print_result(options);
}

int command_synth(int argc, const char *const *argv)
{
    struct synth_options synth = {0};
    struct options options;
    int code = EXIT_CODE_DONE;
    if (!command_parse(&TABLE, argc, argv, &synth, &options, &code)) {
        return code;
    }
    code = run(&synth);
    options_free(&options);
    return code;
}
