#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json_write.h"
#include "base/options.h"
#include "commands.h"
#include "common.h"
#include "core/train_model.h"

struct train_options {
    const char *items;
    const char *events;
    const char *out;
    const char *model;
    int64_t dim, epochs, threads, seed;
    bool json;
};

#define ROW(field, type, fallback, min, max, unit, help)                                           \
    {                                                                                              \
#field, (type), offsetof(struct train_options, field), (fallback), (min), (max), (unit),   \
            (help), false                                                                          \
    }
static const struct option_row ROWS[] = {
    ROW(items, OPTION_TEXT, NULL, 0, 0, "", "item file, CSV or JSON Lines (required)"),
    ROW(events, OPTION_TEXT, NULL, 0, 0, "", "event file, CSV or JSON Lines (required)"),
    ROW(out, OPTION_TEXT, NULL, 0, 0, "", "model folder to write (required)"),
    ROW(model, OPTION_TEXT, "decay", 0, 0, "", "user model: decay"),
    ROW(dim, OPTION_INT, "64", 1, 1024, "", "components of a vector"),
    ROW(epochs, OPTION_INT, "0", 0, 10000, "", "passes over the events; 0: the model's default"),
    ROW(threads, OPTION_INT, "0", 0, 1024, "", "0: all cores; 1: the same bytes for a seed"),
    ROW(seed, OPTION_INT, "1", 0, 9e15, "", "of all that is random"),
    ROW(json, OPTION_BOOL, NULL, 0, 0, "", "print the result as JSON"),
};

static const struct option_table TABLE = {
    .command = "aisle train",
    .synopsis = "aisle train --items FILE --events FILE --out DIR [--dim N] [--epochs N] "
                "[--threads N] [--seed N]",
    .about = "Learns item vectors from what visitors did and writes a model folder, from which "
             "`aisle build` makes a release.",
    .examples = "  aisle train --items items.csv --events events.csv --out model\n"
                "  aisle train --items items.csv --events events.csv --out model --dim 128 "
                "--threads 1\n",
    .rows = ROWS,
    .n_rows = sizeof ROWS / sizeof ROWS[0],
};

static int print_result(const struct train_options *options, const struct train_result *result)
{
    struct buf text;
    struct json_writer json;
    buf_init(&text, 1 << 16);
    if (options->json) {
        json_writer_init(&json, &text);
        json_begin_object(&json, NULL);
        json_string(&json, "out", options->out);
        json_int(&json, "items", (int64_t)result->n_items);
        json_int(&json, "items_with_events", (int64_t)result->n_items_with_events);
        json_int(&json, "events", (int64_t)result->n_events);
        json_int(&json, "unknown_item_events", (int64_t)result->n_unknown_item);
        json_int(&json, "sessions", (int64_t)result->n_sequences);
        json_double(&json, "seconds", result->seconds);
        json_end_object(&json);
    } else {
        buf_printf(&text,
                   "%s: vectors of %llu items (%llu with events) from %llu events in %llu "
                   "sessions, %.1f s\n",
                   options->out, (unsigned long long)result->n_items,
                   (unsigned long long)result->n_items_with_events,
                   (unsigned long long)result->n_events, (unsigned long long)result->n_sequences,
                   result->seconds);
        if (result->n_unknown_item > 0) {
            buf_printf(&text, "%llu events of items that the item file does not have: dropped\n",
                       (unsigned long long)result->n_unknown_item);
        }
    }
    int code = command_print(TABLE.command, &text);
    buf_free(&text);
    return code;
}

static int run(const struct train_options *options)
{
    const struct required_option required[] = {
        {"--items", options->items}, {"--events", options->events}, {"--out", options->out}};
    struct train_config config;
    struct train_result result;
    struct error err = {0};
    if (!command_has_all(TABLE.command, required, sizeof required / sizeof required[0])) {
        return EXIT_CODE_USAGE;
    }
    train_config_default(&config);
    config.items_path = options->items;
    config.events_path = options->events;
    config.out_dir = options->out;
    config.model = options->model;
    config.dim = (size_t)options->dim;
    config.n_epochs = (size_t)options->epochs;
    config.n_threads = (size_t)options->threads;
    config.seed = (uint64_t)options->seed;
    if (train_model(&config, &result, &err) != STATUS_OK) {
        return command_failed(TABLE.command, &err);
    }
    return print_result(options, &result);
}

int command_train(int argc, const char *const *argv)
{
    struct train_options target = {0};
    struct options options;
    int code = EXIT_CODE_DONE;
    if (!command_parse(&TABLE, argc, argv, &target, &options, &code)) {
        return code;
    }
    code = run(&target);
    options_free(&options);
    return code;
}
