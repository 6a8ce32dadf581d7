#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json_write.h"
#include "base/log.h"
#include "base/options.h"
#include "commands.h"
#include "common.h"
#include "core/import_model.h"

struct import_model_options {
    const char *layout;
    const char *item_ids;
    const char *out;
    const char *vectors;
    const char *activation;
    int64_t heads, history_max;
    bool json;
};

#define ROW(name, field, type, fallback, max, help)                                                \
    {                                                                                              \
        name, (type), offsetof(struct import_model_options, field), (fallback), 0, (max), "",      \
            (help), false                                                                          \
    }
static const struct option_row ROWS[] = {
    ROW("layout", layout, OPTION_TEXT, NULL, 0, LAYOUT_NAMES " (required)"),
    ROW("item-ids", item_ids, OPTION_TEXT, NULL, 0,
        "an item id a line, in the order of the weights' rows, without padding (required)"),
    ROW("out", out, OPTION_TEXT, NULL, 0, "model folder to write (required)"),
    ROW("heads", heads, OPTION_INT, "0", SASREC_DIM_MAX,
        "attention heads, which weights do not tell; 0: the layout's default (1, s3rec and recbole "
        "2)"),
    ROW("activation", activation, OPTION_TEXT, NULL, 0,
        "of the feed-forward layer, relu or gelu; default: the layout's"),
    ROW("history-max", history_max, OPTION_INT, "0", GRU4REC_HISTORY_MAX,
        "recbole-gru4rec: events of a history that count; 0: 50"),
    ROW("vectors", vectors, OPTION_TEXT, NULL, 0,
        "aisle: item vectors in a file of their own, .npy or safetensors with item_vectors"),
    ROW("json", json, OPTION_BOOL, NULL, 0, "print the result as JSON"),
};

static const struct option_table TABLE = {
    .command = "aisle import-model",
    .synopsis = "aisle import-model --layout LAYOUT --item-ids FILE --out DIR WEIGHTS.safetensors",
    .about = "Turns weights that another program trained into a model folder, from which `aisle "
             "build` makes a release. Every tensor's name, shape and values are checked.",
    .examples = "  aisle import-model --layout recbole-sasrec --item-ids ids.txt --out model "
                "sasrec.safetensors\n"
                "  aisle import-model --layout sasrec-pytorch --heads 2 --item-ids ids.txt --out "
                "model weights.safetensors\n"
                "  aisle import-model --layout aisle --vectors vectors.npy --item-ids ids.txt "
                "--out model model.safetensors\n",
    .rows = ROWS,
    .n_rows = sizeof ROWS / sizeof ROWS[0],
    .n_positional_max = 1,
};

static int print_result(const struct import_model_options *options,
                        const struct import_model_result *result)
{
    struct buf text;
    struct json_writer json;
    buf_init(&text, 1 << 16);
    if (options->json) {
        json_writer_init(&json, &text);
        json_begin_object(&json, NULL);
        json_string(&json, "out", options->out);
        json_string(&json, "layout", options->layout);
        json_string(&json, "architecture", result->architecture);
        json_int(&json, "items", (int64_t)result->n_items);
        json_int(&json, "dim", (int64_t)result->dim);
        json_int(&json, "history_max", (int64_t)result->history_max);
        json_int(&json, "unused_tensors", (int64_t)result->n_unused);
        json_string(&json, "notes", result->notes);
        json_end_object(&json);
    } else {
        buf_printf(&text, "%s: %s of %llu items, %zu dimensions, histories of %zu events\n",
                   options->out, result->architecture, (unsigned long long)result->n_items,
                   result->dim, result->history_max);
    }
    int code = command_print(TABLE.command, &text);
    buf_free(&text);
    return code;
}

static int run(const struct import_model_options *options, const char *weights)
{
    const struct import_model_config config = {
        .layout = options->layout,
        .weights_path = weights,
        .item_ids_path = options->item_ids,
        .out_dir = options->out,
        .vectors_path = options->vectors,
        .activation = options->activation,
        .n_heads = (size_t)options->heads,
        .history_max = (size_t)options->history_max,
    };
    struct import_model_result result;
    struct error err = {0};
    if (import_model(&config, &result, &err) != STATUS_OK) {
        return command_failed(TABLE.command, &err);
    }
    if (result.notes[0] != '\0') {
        LOG_WARN("weights", LOG_S("note", result.notes));
    }
    return print_result(options, &result);
}

int command_import_model(int argc, const char *const *argv)
{
    struct import_model_options target = {0};
    struct options options;
    int code = EXIT_CODE_DONE;
    if (!command_parse(&TABLE, argc, argv, &target, &options, &code)) {
        return code;
    }
    const struct required_option required[] = {
        {"--layout", target.layout}, {"--item-ids", target.item_ids}, {"--out", target.out}};
    if (options.n_positional != 1) {
        code = command_usage(TABLE.command, "WEIGHTS.safetensors is needed");
    } else if (!command_has_all(TABLE.command, required, sizeof required / sizeof required[0])) {
        code = EXIT_CODE_USAGE;
    } else {
        code = run(&target, options.positional[0]);
    }
    options_free(&options);
    return code;
}
