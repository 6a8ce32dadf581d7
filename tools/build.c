#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/json_write.h"
#include "base/options.h"
#include "commands.h"
#include "common.h"
#include "core/build_release.h"

struct build_options {
    const char *items;
    const char *model_dir;
    const char *releases;
    const char *events;
    const char *index;
    const char *channel;
    const char *vector_type;
    double target_recall;
    int64_t threads, seed;
    bool force, json;
};

#define ROW(name, field, type, fallback, min, max, help)                                           \
    {                                                                                              \
        name, (type), offsetof(struct build_options, field), (fallback), (min), (max), "", (help), \
            false                                                                                  \
    }
static const struct option_row ROWS[] = {
    ROW("items", items, OPTION_TEXT, NULL, 0, 0, "item file, CSV or JSON Lines (required)"),
    ROW("model-dir", model_dir, OPTION_TEXT, NULL, 0, 0,
        "folder that `aisle train` or `aisle import-model` wrote (required)"),
    ROW("releases", releases, OPTION_TEXT, NULL, 0, 0, "folder of releases (required)"),
    ROW("events", events, OPTION_TEXT, NULL, 0, 0,
        "event file: popularity and the histories to measure with (default: the model folder's)"),
    ROW("index", index, OPTION_TEXT, "auto", 0, 0, "auto, or a FAISS factory string"),
    ROW("target-recall", target_recall, OPTION_NUMBER, "0.95", 0.01, 1,
        "recall@100 that the index is tuned to"),
    ROW("channel", channel, OPTION_TEXT, "stable", 0, 0, "channel to publish to; none: to none"),
    ROW("force", force, OPTION_BOOL, NULL, 0, 0, "publish in spite of missed gates"),
    ROW("threads", threads, OPTION_INT, "0", 0, 1024, "0: all cores; 1: the same index for a seed"),
    ROW("seed", seed, OPTION_INT, "1", 0, 9e15, "of all that is random"),
    ROW("vector-type", vector_type, OPTION_TEXT, "auto", 0, 0,
        "auto, f32, f16; auto: f16 over 200,000 items"),
    ROW("json", json, OPTION_BOOL, NULL, 0, 0, "print the result as JSON"),
};

static const struct option_table TABLE = {
    .command = "aisle build",
    .synopsis = "aisle build --items FILE --model-dir DIR --releases DIR [--events FILE] "
                "[--index auto|FACTORY] [--target-recall R] [--channel NAME] [--force]",
    .about = "Makes a release of items and a model: catalogue, vectors, tuned index and self-test, "
             "measured on this machine, and publishes it to a channel.",
    .examples = "  aisle build --items items.csv --model-dir model --releases releases\n"
                "  aisle build --items items.csv --model-dir model --releases releases "
                "--channel candidate --index IVF1024,SQfp16 --target-recall 0.98\n",
    .rows = ROWS,
    .n_rows = sizeof ROWS / sizeof ROWS[0],
};

static void encode(const struct build_options *options, const struct build_result *result,
                   struct buf *text)
{
    const struct vector_index_measured *index = &result->index;
    struct json_writer json;
    json_writer_init(&json, text);
    json_begin_object(&json, NULL);
    json_string(&json, "version", result->version);
    json_string(&json, "dir", result->dir);
    json_string(&json, "channel", options->channel);
    json_int(&json, "n_items", (int64_t)result->n_items);
    json_int(&json, "n_without_vector", (int64_t)result->n_without_vector);
    json_int(&json, "n_vectors_dropped", (int64_t)result->n_vectors_dropped);
    json_string(&json, "index", index->factory);
    json_string(&json, "search_parameters", index->search_parameters);
    json_double(&json, "recall", index->recall);
    json_double(&json, "recall_worst", index->recall_worst);
    json_int(&json, "recall_k", (int64_t)index->recall_k);
    json_int(&json, "n_queries", (int64_t)index->n_queries);
    json_int(&json, "index_bytes", (int64_t)index->file_bytes);
    json_double(&json, "search_p50_us", index->search_p50_us);
    json_double(&json, "search_p99_us", index->search_p99_us);
    json_double(&json, "embed_p50_us", result->embed_p50_us);
    json_double(&json, "embed_p99_us", result->embed_p99_us);
    json_double(&json, "request_p50_us", result->request_p50_us);
    json_double(&json, "request_p99_us", result->request_p99_us);
    json_double(&json, "seconds", result->seconds);
    json_end_object(&json);
}

static void tabulate(const struct build_options *options, const struct build_result *result,
                     struct buf *text)
{
    const struct vector_index_measured *index = &result->index;
    buf_printf(text, "release     %s\n", result->version);
    buf_printf(text, "channel     %s\n", options->channel);
    buf_printf(text, "items       %llu (%llu without a vector of their own)\n",
               (unsigned long long)result->n_items, (unsigned long long)result->n_without_vector);
    if (result->n_vectors_dropped > 0) {
        buf_printf(text, "dropped     %llu vectors of items that are gone\n",
                   (unsigned long long)result->n_vectors_dropped);
    }
    buf_printf(text, "index       %s %s\n", index->factory, index->search_parameters);
    buf_printf(text, "recall@%zu  %.4f (worst %.4f, %zu queries)\n", index->recall_k, index->recall,
               index->recall_worst, index->n_queries);
    buf_printf(text, "            p50 us    p99 us\n");
    buf_printf(text, "search    %8.1f  %8.1f\n", index->search_p50_us, index->search_p99_us);
    buf_printf(text, "embed     %8.1f  %8.1f\n", result->embed_p50_us, result->embed_p99_us);
    buf_printf(text, "request   %8.1f  %8.1f\n", result->request_p50_us, result->request_p99_us);
    buf_printf(text, "took        %.1f s\n", result->seconds);
    buf_printf(text, "folder      %s\n", result->dir);
}

static int print_result(const struct build_options *options, const struct build_result *result)
{
    struct buf text;
    buf_init(&text, 1 << 16);
    if (options->json) {
        encode(options, result, &text);
    } else {
        tabulate(options, result, &text);
    }
    int code = command_print(TABLE.command, &text);
    buf_free(&text);
    return code;
}

static int run(const struct build_options *options)
{
    const struct required_option required[] = {{"--items", options->items},
                                               {"--model-dir", options->model_dir},
                                               {"--releases", options->releases}};
    struct build_config config;
    struct build_result result;
    struct error err = {0};
    if (!command_has_all(TABLE.command, required, sizeof required / sizeof required[0])) {
        return EXIT_CODE_USAGE;
    }
    build_config_default(&config);
    config.items_path = options->items;
    config.model_dir = options->model_dir;
    config.releases = options->releases;
    config.events_path = options->events;
    config.index = options->index;
    config.target_recall = options->target_recall;
    config.channel = strcmp(options->channel, "none") == 0 ? NULL : options->channel;
    config.force = options->force;
    config.n_threads = (size_t)options->threads;
    config.seed = (uint64_t)options->seed;
    config.vector_type = options->vector_type;
    enum status status = build_release(&config, &result, &err);
    if (status == STATUS_LIMIT && !options->force) {
        error_prefix(&err, "not published (--force does): ");
    }
    if (status != STATUS_OK) {
        return command_failed(TABLE.command, &err);
    }
    return print_result(options, &result);
}

int command_build(int argc, const char *const *argv)
{
    struct build_options target = {0};
    struct options options;
    int code = EXIT_CODE_DONE;
    if (!command_parse(&TABLE, argc, argv, &target, &options, &code)) {
        return code;
    }
    code = run(&target);
    options_free(&options);
    return code;
}
