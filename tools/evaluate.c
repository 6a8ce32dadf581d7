#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/json_write.h"
#include "base/options.h"
#include "base/parse.h"
#include "commands.h"
#include "common.h"
#include "core/engine.h"
#include "core/evaluate_offline.h"

/* `aisle evaluate KIND …`: how good a release is. KIND is the second word. */

enum { REPORT_MAX_BYTES = 1 << 16, THREADS_MAX = 256 };
static const char COMMAND[] = "aisle evaluate";

struct offline_options {
    const char *release, *events, *protocol, *pairs, *k, *per_user;
    int64_t threads;
    bool exclude_history, json;
};

#define AT(field) offsetof(struct offline_options, field)
static const struct option_row ROWS[] = {
    {"release", OPTION_TEXT, AT(release), NULL, 0, 0, "", "folder of the release (required)",
     false},
    {"events", OPTION_TEXT, AT(events), NULL, 0, 0, "", "event file, with --protocol", false},
    {"protocol", OPTION_TEXT, AT(protocol), NULL, 0, 0, "", "leave-last-out or every-position",
     false},
    {"pairs", OPTION_TEXT, AT(pairs), NULL, 0, 0, "",
     "file of lines: item ids oldest first, blank-separated, a tab, the next item", false},
    {"k", OPTION_TEXT, AT(k), "5,10,20", 0, 0, "", "lengths of the lists, rising", false},
    {"exclude-history", OPTION_BOOL, AT(exclude_history), NULL, 0, 0, "",
     "do not rank the items of the prefix", false},
    {"per-user", OPTION_TEXT, AT(per_user), NULL, 0, 0, "", "write each case's ranks to this file",
     false},
    {"threads", OPTION_INT, AT(threads), "0", 0, THREADS_MAX, "", "0: all processors", false},
    {"json", OPTION_BOOL, AT(json), NULL, 0, 0, "", "print JSON", false},
};
#undef AT

static const struct option_table OFFLINE = {
    .command = "aisle evaluate offline",
    .synopsis = "aisle evaluate offline --release DIR (--events FILE --protocol "
                "leave-last-out|every-position | --pairs FILE) [--k 5,10,20] [--exclude-history] "
                "[--per-user FILE] [--json]",
    .about = "Ranks the next item of each case among the whole catalogue: hit rate, nDCG, MRR and "
             "coverage, beside those of plain popularity.",
    .examples = "  aisle evaluate offline --release shop/channels/stable --events later.csv \\\n"
                "      --protocol leave-last-out\n"
                "  aisle evaluate offline --release R --pairs test.tsv --k 10,50 --json\n",
    .rows = ROWS,
    .n_rows = sizeof ROWS / sizeof ROWS[0],
};

static bool read_cutoffs(const char *text, struct evaluate_config *config)
{
    config->n_cutoffs = 0;
    for (const char *at = text; at != NULL;) {
        uint64_t k;
        const char *comma = strchr(at, ',');
        size_t len = comma != NULL ? (size_t)(comma - at) : strlen(at);
        if (config->n_cutoffs == EVALUATE_CUTOFFS_MAX || !parse_uint64(at, len, &k) || k < 1 ||
            k > EVALUATE_CUTOFF_MAX ||
            (config->n_cutoffs > 0 && k <= config->cutoffs[config->n_cutoffs - 1])) {
            return false;
        }
        config->cutoffs[config->n_cutoffs++] = (size_t)k;
        at = comma != NULL ? comma + 1 : NULL;
    }
    return true;
}

/* False after a usage fault, which is then on stderr. */
static bool read_options(const struct offline_options *options, struct evaluate_config *config)
{
    const char *fault = NULL;
    evaluate_config_default(config);
    if (options->release == NULL) {
        fault = "--release DIR is needed";
    } else if ((options->events != NULL) == (options->pairs != NULL)) {
        fault = "either --events FILE --protocol P or --pairs FILE is needed";
    } else if ((options->events != NULL) != (options->protocol != NULL)) {
        fault = "--events and --protocol go together";
    } else if (options->protocol != NULL &&
               (!evaluate_protocol_parse(options->protocol, &config->protocol) ||
                config->protocol == PROTOCOL_PAIRS)) {
        fault = "--protocol: must be leave-last-out or every-position";
    } else if (!read_cutoffs(options->k, config)) {
        fault = "--k: up to 8 rising numbers from 1 to 1000, comma-separated";
    }
    if (fault != NULL) {
        (void)command_usage(OFFLINE.command, "%s", fault);
        return false;
    }
    if (options->pairs != NULL) {
        config->protocol = PROTOCOL_PAIRS;
    }
    config->events_path = options->events;
    config->pairs_path = options->pairs;
    config->exclude_history = options->exclude_history;
    config->per_user_path = options->per_user;
    config->n_threads = (size_t)options->threads;
    config->show_progress = true;
    return true;
}

static void write_metrics(struct json_writer *json, const struct evaluate_config *config,
                          const struct evaluate_metrics *metrics)
{
    char key[32];
    json_begin_object(json, "metrics");
    for (size_t i = 0; i < config->n_cutoffs; i++) {
        (void)snprintf(key, sizeof key, "hr@%zu", config->cutoffs[i]);
        json_double(json, key, metrics->hr[i]);
        (void)snprintf(key, sizeof key, "ndcg@%zu", config->cutoffs[i]);
        json_double(json, key, metrics->ndcg[i]);
        (void)snprintf(key, sizeof key, "mrr@%zu", config->cutoffs[i]);
        json_double(json, key, metrics->mrr[i]);
    }
    json_end_object(json);
    for (size_t i = 0; i < config->n_cutoffs; i++) {
        (void)snprintf(key, sizeof key, "coverage@%zu", config->cutoffs[i]);
        json_double(json, key, metrics->coverage[i]);
    }
}

static void write_json(const struct engine *engine, const struct evaluate_config *config,
                       const struct evaluate_result *result, struct buf *out)
{
    struct json_writer json;
    json_writer_init(&json, out);
    json_begin_object(&json, NULL);
    json_string(&json, "protocol", evaluate_protocol_name(config->protocol));
    json_int(&json, "n", (int64_t)result->n);
    write_metrics(&json, config, &result->model);
    json_begin_object(&json, "popularity");
    write_metrics(&json, config, &result->popularity);
    json_end_object(&json);
    if (result->has_parts) {
        json_begin_object(&json, "vector");
        write_metrics(&json, config, &result->vector);
        json_end_object(&json);
        json_begin_object(&json, "neighbors");
        write_metrics(&json, config, &result->neighbors);
        json_end_object(&json);
    }
    json_int(&json, "n_unknown", (int64_t)result->n_unknown);
    json_int(&json, "n_empty", (int64_t)result->n_empty);
    json_double(&json, "seconds", result->seconds);
    json_string(&json, "release", engine->manifest.version);
    json_end_object(&json);
}

static void write_row(const char *name, const struct evaluate_config *config,
                      const struct evaluate_metrics *metrics, struct buf *out)
{
    buf_printf(out, "%-10s", name);
    for (size_t i = 0; i < config->n_cutoffs; i++) {
        buf_printf(out, "  %9.4f %9.4f %9.4f %9.4f", metrics->hr[i], metrics->ndcg[i],
                   metrics->mrr[i], metrics->coverage[i]);
    }
    buf_append_char(out, '\n');
}

static void write_table(const struct engine *engine, const struct evaluate_config *config,
                        const struct evaluate_result *result, struct buf *out)
{
    static const char *const names[] = {"hr", "ndcg", "mrr", "cover"};
    buf_printf(out,
               "release %s, %s, %llu cases (%llu of unknown items, %llu without a vector), "
               "%.1f s\n\n%-10s",
               engine->manifest.version, evaluate_protocol_name(config->protocol),
               (unsigned long long)result->n, (unsigned long long)result->n_unknown,
               (unsigned long long)result->n_empty, result->seconds, "");
    for (size_t i = 0; i < config->n_cutoffs; i++) {
        buf_append_char(out, ' ');
        for (size_t m = 0; m < 4; m++) {
            char title[32];
            (void)snprintf(title, sizeof title, "%s@%zu", names[m], config->cutoffs[i]);
            buf_printf(out, " %9s", title);
        }
    }
    buf_append_char(out, '\n');
    write_row(user_model_info(engine->model).architecture, config, &result->model, out);
    if (result->has_parts) {
        write_row("vector", config, &result->vector, out);
        write_row("neighbors", config, &result->neighbors, out);
    }
    write_row("popularity", config, &result->popularity, out);
}

static int run_offline(const struct offline_options *options, const struct evaluate_config *config)
{
    struct error err = {0};
    struct evaluate_result result;
    struct engine *engine = NULL;
    struct engine_config engine_config = {.release_dir = options->release};
    enum status status = engine_open(&engine_config, &engine, &err);
    if (status == STATUS_OK) {
        status = evaluate_offline(engine, config, &result, &err);
    }
    int code;
    if (status != STATUS_OK) {
        code = command_failed(OFFLINE.command, &err);
    } else {
        struct buf text;
        buf_init(&text, REPORT_MAX_BYTES);
        if (options->json) {
            write_json(engine, config, &result, &text);
        } else {
            write_table(engine, config, &result, &text);
        }
        code = command_print(OFFLINE.command, &text);
        buf_free(&text);
    }
    engine_close(engine);
    return code;
}

static int command_offline(int argc, const char *const *argv)
{
    struct offline_options options;
    struct evaluate_config config;
    struct options parsed;
    int code = EXIT_CODE_USAGE;
    if (!command_parse(&OFFLINE, argc, argv, &options, &parsed, &code)) {
        return code;
    }
    code = read_options(&options, &config) ? run_offline(&options, &config) : EXIT_CODE_USAGE;
    options_free(&parsed);
    return code;
}

int command_evaluate(int argc, const char *const *argv)
{
    if (argc >= 2 && strcmp(argv[1], "offline") == 0) {
        return command_offline(argc - 1, argv + 1);
    }
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        (void)fputs("aisle evaluate KIND [options]\n\nKinds:\n"
                    "  offline   rank held-out items among the whole catalogue\n\n"
                    "Examples:\n  aisle evaluate offline --help\n",
                    stdout);
        return EXIT_CODE_DONE;
    }
    if (argc < 2) {
        return command_usage(COMMAND, "the kind of evaluation is missing; there is: offline");
    }
    return command_usage(COMMAND, "unknown kind of evaluation %.40s; there is: offline", argv[1]);
}
