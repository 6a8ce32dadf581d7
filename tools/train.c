#include <math.h>
#include <signal.h>
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
    const char *budget;
    int64_t dim, epochs, threads, seed;
    bool json, anew;
    struct train_overrides set;
};

#define ROW(field, type, fallback, min, max, unit, help)                                           \
    {                                                                                              \
#field, (type), offsetof(struct train_options, field), (fallback), (min), (max), (unit),   \
            (help), false                                                                          \
    }
/* A setting of the model: -1, the default, leaves the model's own. */
#define SETTING(name, field, max, help)                                                            \
    {                                                                                              \
        name, OPTION_NUMBER, offsetof(struct train_options, set.field), "-1", -1, (max), "",       \
            (help), false                                                                          \
    }
#define CHOICE(field, help)                                                                        \
    {                                                                                              \
#field, OPTION_TEXT, offsetof(struct train_options, set.field), NULL, 0, 0, "", (help),    \
            false                                                                                  \
    }
static const struct option_row ROWS[] = {
    ROW(items, OPTION_TEXT, NULL, 0, 0, "", "item file, CSV or JSON Lines (required)"),
    ROW(events, OPTION_TEXT, NULL, 0, 0, "", "event file, CSV or JSON Lines (required)"),
    ROW(out, OPTION_TEXT, NULL, 0, 0, "", "model folder to write (required)"),
    ROW(model, OPTION_TEXT, "decay", 0, 0, "",
        "decay, sasrec, gru4rec, attention; or neighbours: vmis, vsknn, vstan, sr, ar"),
    ROW(dim, OPTION_INT, "64", 1, 1024, "", "components of a vector"),
    ROW(epochs, OPTION_INT, "0", 0, 1000, "", "passes over the events at most; 0: the model's"),
    ROW(threads, OPTION_INT, "0", 0, 1024, "", "0: all cores; 1: the same bytes for a seed"),
    ROW(seed, OPTION_INT, "1", 0, 9e15, "", "of all that is random"),
    ROW(budget, OPTION_TEXT, NULL, 0, 0, "",
        "search settings by successive halving in this time, e.g. 30m, 2h"),
    ROW(anew, OPTION_BOOL, NULL, 0, 0, "", "drop the checkpoint of an interrupted training"),
    ROW(json, OPTION_BOOL, NULL, 0, 0, "", "print the result as JSON"),
    CHOICE(neighbors,
           "beside the model: none, vmis, vsknn, vstan, sr, ar; sequence models tune their weight"),
    CHOICE(sequences, "what a sequence is: user (all of a visitor's events) or session"),
    CHOICE(validation, "held-out events: leave-last, time-split or none"),
    CHOICE(loss, "full, sampled or gbce"),
    SETTING("refit", refit, 1, "1: afterwards train on all events for as many epochs"),
    SETTING("history-max", history_max, 1000, "events of a history that count"),
    SETTING("blocks", blocks, 8, "sasrec: transformer blocks"),
    SETTING("heads", heads, 1024, "sasrec: attention heads"),
    SETTING("ffn-dim", ffn_dim, 4096, "sasrec: width of the feed-forward part"),
    SETTING("post-norm", post_norm, 1, "sasrec: 1: BERT-style blocks"),
    SETTING("embedding-norm", embedding_norm, 1, "sasrec: layer norm of the embedded events"),
    SETTING("event-types", event_types, 1, "sasrec: 1: an embedding per event type"),
    SETTING("gap-buckets", gap_buckets, 64, "sasrec: buckets of the time between events; 0: none"),
    SETTING("layers", layers, 4, "gru4rec: layers"),
    SETTING("hidden-dim", hidden_dim, 1024, "gru4rec: size of the state"),
    SETTING("learning-rate", learning_rate, 10, "AdamW's highest rate"),
    SETTING("batch-events", batch_events, 1 << 20, "events of a step"),
    SETTING("warmup", warmup, 1, "share of the steps with a rising rate"),
    SETTING("final-rate", final_rate, 1, "share of the rate that is left at the end"),
    SETTING("weight-decay", weight_decay, 100, "of the network's matrices"),
    SETTING("item-weight-decay", item_weight_decay, 100, "of item vectors"),
    SETTING("dropout", dropout, 0.95, "inside the network"),
    SETTING("input-dropout", input_dropout, 0.95, "of embedded events"),
    SETTING("drop-events", drop_events, 0.95, "augmentation: events left out at random"),
    SETTING("clip-norm", clip_norm, 1e9, "largest norm of the gradient; 0: off"),
    SETTING("average", average, 0.999999, "decay a step of the average of weights; 0: off"),
    SETTING("cosine-scale", cosine_scale, 1000, "cosine scores times this; 0: inner products"),
    SETTING("item-bias", item_bias, 1, "1: a bias an item"),
    SETTING("initial-deviation", initial_deviation, 10, "of item vectors at the start"),
    SETTING("patience", patience, 1000, "epochs without a better nDCG@10; 0: never stop early"),
    SETTING("negatives", negatives, 65536, "sampled, gbce: negatives shared by 256 events"),
    SETTING("in-batch", in_batch, 1, "sampled: 1: the batch's own items are the negatives"),
    SETTING("negative-exponent", negative_exponent, 2, "0: uniform, 1: by popularity"),
    SETTING("log-q", log_q, 1, "sampled: correct for how often a negative is drawn"),
    SETTING("gbce-t", gbce_t, 1, "gbce: calibration"),
    SETTING("label-smoothing", label_smoothing, 0.99, "full: share spread over all items"),
    SETTING("validation-share", validation_share, 0.9, "time-split: newest share held out"),
    SETTING("validation-cases", validation_cases, 1e9, "held-out events looked at; 0: all"),
    SETTING("exclude-history", exclude_history, 1, "1: validation does not rank seen items"),
    SETTING("neighbors-sampled", neighbors_sampled, 50000, "newest sessions considered (m)"),
    SETTING("neighbors-k", neighbors_k, 5000, "neighbouring sessions that score"),
    SETTING("neighbors-last", neighbors_last, 64, "newest events that count; 0: all"),
    SETTING("neighbors-idf", neighbors_idf, 100, "weight of rare items"),
    SETTING("lambda-query", lambda_query, 1e6, "vstan: decay over the visitor's events"),
    SETTING("lambda-age-days", lambda_age_days, 1e6, "vstan: decay over the sessions' age"),
    SETTING("lambda-distance", lambda_distance, 1e6, "vstan: decay from the matched event"),
};

static const struct option_table TABLE = {
    .command = "aisle train",
    .synopsis = "aisle train --items FILE --events FILE --out DIR [--model NAME] [--dim N] "
                "[--epochs N] [--threads N] [--seed N]",
    .about = "Learns item vectors and a user model from what visitors did and writes a model "
             "folder, from which `aisle build` makes a release. Ctrl-C writes a checkpoint beside "
             "DIR; the same command goes on from it.",
    .examples = "  aisle train --items items.csv --events events.csv --out model --model sasrec\n"
                "  aisle train --items items.csv --events events.csv --out model --model sasrec "
                "--neighbors vmis --refit 1\n"
                "  aisle train --items items.csv --events events.csv --out model --model vmis\n"
                "  aisle train --items items.csv --events events.csv --out model --model gru4rec "
                "--budget 30m\n",
    .rows = ROWS,
    .n_rows = sizeof ROWS / sizeof ROWS[0],
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

static void encode(const struct train_options *options, const struct train_result *result,
                   struct buf *text)
{
    struct json_writer json;
    json_writer_init(&json, text);
    json_begin_object(&json, NULL);
    json_string(&json, "out", options->out);
    json_string(&json, "model", options->model);
    json_int(&json, "dim", (int64_t)result->dim);
    json_int(&json, "items", (int64_t)result->n_items);
    json_int(&json, "items_with_events", (int64_t)result->n_items_with_events);
    json_int(&json, "events", (int64_t)result->n_events);
    json_int(&json, "unknown_item_events", (int64_t)result->n_unknown_item);
    json_int(&json, "sequences", (int64_t)result->n_sequences);
    if (result->best_epoch > 0) {
        json_int(&json, "best_epoch", (int64_t)result->best_epoch);
        json_begin_object(&json, "validation");
        json_int(&json, "n", (int64_t)result->n_validation);
        json_double(&json, "ndcg@10", result->ndcg10);
        json_double(&json, "hr@10", result->hr10);
        json_double(&json, "hr@20", result->hr20);
        json_double(&json, "mrr@20", result->mrr20);
        json_end_object(&json);
        json_double(&json, "neighbors_weight", result->blend_weight);
    }
    json_double(&json, "seconds", result->seconds);
    json_end_object(&json);
}

static void describe(const struct train_options *options, const struct train_result *result,
                     struct buf *text)
{
    buf_printf(text,
               "%s: %s, vectors of %llu items (%llu with events) from %llu events in %llu "
               "sequences, %.1f s\n",
               options->out, options->model, (unsigned long long)result->n_items,
               (unsigned long long)result->n_items_with_events,
               (unsigned long long)result->n_events, (unsigned long long)result->n_sequences,
               result->seconds);
    if (result->best_epoch > 0 && !isnan(result->ndcg10)) {
        buf_printf(text,
                   "held-out events, %llu, full catalogue: nDCG@10 %.4f, HR@10 %.4f, HR@20 %.4f, "
                   "MRR@20 %.4f (epoch %zu)\n",
                   (unsigned long long)result->n_validation, result->ndcg10, result->hr10,
                   result->hr20, result->mrr20, result->best_epoch);
    }
    if (result->blend_weight > 0.0) {
        buf_printf(text, "session neighbours count with weight %g\n", result->blend_weight);
    }
    if (result->n_unknown_item > 0) {
        buf_printf(text, "%llu events of items that the item file does not have: dropped\n",
                   (unsigned long long)result->n_unknown_item);
    }
}

static int print_result(const struct train_options *options, const struct train_result *result)
{
    struct buf text;
    buf_init(&text, 1 << 16);
    if (options->json) {
        encode(options, result, &text);
    } else {
        describe(options, result, &text);
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
    config.begin_anew = options->anew;
    config.overrides = options->set;
    config.interrupted = &interrupted;
    if (options->budget != NULL &&
        !command_parse_seconds(options->budget, &config.budget_seconds)) {
        (void)error_set_field(&err, STATUS_INVALID, "--budget",
                              "--budget: a time such as 90s, 30m or 2h, not %.32s",
                              options->budget);
        return command_failed(TABLE.command, &err);
    }
    catch_signals();
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
