#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/options.h"
#include "base/parse.h"
#include "commands.h"
#include "common.h"
#include "core/engine.h"
#include "core/evaluate_offline.h"
#include "core/evaluate_report.h"

/* `aisle evaluate KIND …`: how good a release is. KIND is the second word. */

enum { REPORT_MAX_BYTES = 1 << 20, THREADS_MAX = 256 };
static const char COMMAND[] = "aisle evaluate";

struct offline_options {
    struct option_list releases;
    const char *events, *protocol, *since, *pairs, *k, *per_user, *popularity_events;
    int64_t negatives, seed, popularity_days, threads;
    bool exclude_history, both, json;
};

#define AT(field) offsetof(struct offline_options, field)
static const struct option_row ROWS[] = {
    {"release", OPTION_LIST, AT(releases), NULL, 0, 0, "",
     "folder of the release (required); repeated: others are compared with the first", false},
    {"events", OPTION_TEXT, AT(events), NULL, 0, 0, "", "event file, with --protocol", false},
    {"protocol", OPTION_TEXT, AT(protocol), NULL, 0, 0, "",
     "leave-last-out (of a user), every-position (of a session) or time-split", false},
    {"since", OPTION_TEXT, AT(since), NULL, 0, 0, "",
     "time-split: events after this time are the cases (RFC 3339 or Unix milliseconds)", false},
    {"pairs", OPTION_TEXT, AT(pairs), NULL, 0, 0, "",
     "file of lines: item ids oldest first, blank-separated, a tab, the next item", false},
    {"k", OPTION_TEXT, AT(k), "5,10,20", 0, 0, "", "lengths of the lists, rising", false},
    {"exclude-history", OPTION_BOOL, AT(exclude_history), NULL, 0, 0, "",
     "do not rank the items of the prefix", false},
    {"both", OPTION_BOOL, AT(both), NULL, 0, 0, "", "with and without the items of the prefix",
     false},
    {"negatives", OPTION_INT, AT(negatives), "0", 0, EVALUATE_NEGATIVES_MAX, "items",
     "rank among so many random items only, as older papers did (0: the whole catalogue)", false},
    {"seed", OPTION_INT, AT(seed), "1", 0, 9007199254740991.0, "",
     "of the negatives and of the intervals", false},
    {"popularity-events", OPTION_TEXT, AT(popularity_events), NULL, 0, 0, "",
     "event file of before: adds a row of what was popular in its last days", false},
    {"popularity-days", OPTION_INT, AT(popularity_days), "7", 1, EVALUATE_DAYS_MAX, "days",
     "how many days those are", false},
    {"per-user", OPTION_TEXT, AT(per_user), NULL, 0, 0, "", "write each case's ranks to this file",
     false},
    {"threads", OPTION_INT, AT(threads), "0", 0, THREADS_MAX, "", "0: all processors", false},
    {"json", OPTION_BOOL, AT(json), NULL, 0, 0, "", "print JSON", false},
};
#undef AT

static const struct option_table OFFLINE = {
    .command = "aisle evaluate offline",
    .synopsis = "aisle evaluate offline --release DIR (--events FILE --protocol "
                "leave-last-out|every-position|time-split | --pairs FILE) [--k 5,10,20] "
                "[--exclude-history] [--per-user FILE] [--json]",
    .about = "Ranks the next item of each case among the whole catalogue: hit rate (which is "
             "recall, as one item is right), nDCG, MRR and coverage, beside those of plain "
             "popularity, and what a user costs. Several releases are compared case by case, with "
             "bootstrap intervals.",
    .examples = "  aisle evaluate offline --release shop/channels/stable --events later.csv \\\n"
                "      --protocol leave-last-out --both\n"
                "  aisle evaluate offline --release R --events all.csv --protocol time-split \\\n"
                "      --since 2011-11-09T00:00:00Z --popularity-events train.csv\n"
                "  aisle evaluate offline --release OLD --release NEW --pairs test.tsv --k 10,50\n"
                "  aisle evaluate offline --release R --pairs test.tsv --negatives 100 --json\n",
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

/* What is wrong about the cases, or NULL. */
static const char *read_protocol(const struct offline_options *options,
                                 struct evaluate_config *config)
{
    if ((options->events != NULL) == (options->pairs != NULL)) {
        return "either --events FILE --protocol P or --pairs FILE is needed";
    }
    if ((options->events != NULL) != (options->protocol != NULL)) {
        return "--events and --protocol go together";
    }
    if (options->pairs != NULL) {
        config->protocol = PROTOCOL_PAIRS;
    } else if (!evaluate_protocol_parse(options->protocol, &config->protocol) ||
               config->protocol == PROTOCOL_PAIRS) {
        return "--protocol: must be leave-last-out, every-position or time-split";
    }
    if ((config->protocol == PROTOCOL_TIME_SPLIT) != (options->since != NULL)) {
        return "--protocol time-split and --since TIME go together";
    }
    if (options->since != NULL &&
        !parse_time_ms(options->since, strlen(options->since), &config->since_ms)) {
        return "--since: must be a time, RFC 3339 or Unix milliseconds";
    }
    return NULL;
}

/* False after a usage fault, which is then on stderr. */
static bool read_options(const struct offline_options *options, struct evaluate_config *config)
{
    evaluate_config_default(config);
    const char *fault = read_protocol(options, config);
    if (options->releases.n == 0) {
        fault = "--release DIR is needed";
    } else if (options->releases.n > EVALUATE_RELEASES_MAX) {
        fault = "--release: at most 16";
    } else if (fault == NULL && !read_cutoffs(options->k, config)) {
        fault = "--k: up to 8 rising numbers from 1 to 1000, comma-separated";
    } else if (fault == NULL && options->both && options->exclude_history) {
        fault = "--both includes what --exclude-history asks for: give one of them";
    }
    if (fault != NULL) {
        (void)command_usage(OFFLINE.command, "%s", fault);
        return false;
    }
    config->events_path = options->events;
    config->pairs_path = options->pairs;
    config->seen[EVALUATE_SEEN_RANKED] = !options->exclude_history;
    config->seen[EVALUATE_SEEN_EXCLUDED] = options->exclude_history || options->both;
    config->n_negatives = (size_t)options->negatives;
    config->seed = (uint64_t)options->seed;
    config->popularity_events_path = options->popularity_events;
    config->popularity_days = (size_t)options->popularity_days;
    config->n_threads = (size_t)options->threads;
    config->show_progress = true;
    return true;
}

static enum status evaluate_one(struct evaluation *evaluation, const char *dir,
                                struct evaluate_result *result, struct error *err)
{
    struct engine *engine = NULL;
    struct engine_config config = {.release_dir = dir};
    enum status status = engine_open(&config, &engine, err);
    if (status == STATUS_OK) {
        status = evaluation_add(evaluation, engine, result, err);
    }
    engine_close(engine);
    return status;
}

static int print_report(const struct offline_options *options, const struct evaluate_report *report)
{
    struct buf text;
    buf_init(&text, REPORT_MAX_BYTES);
    if (options->json) {
        evaluate_report_json(report, &text);
    } else {
        evaluate_report_table(report, &text);
    }
    int code = command_print(OFFLINE.command, &text);
    buf_free(&text);
    return code;
}

static int run_offline(const struct offline_options *options, const struct evaluate_config *config)
{
    struct error err = {0};
    struct evaluate_result results[EVALUATE_RELEASES_MAX];
    struct evaluate_comparison comparisons[EVALUATE_RELEASES_MAX][N_EVALUATE_SEEN];
    struct evaluation *evaluation = NULL;
    size_t n = options->releases.n;
    enum status status = evaluation_open(config, &evaluation, &err);
    for (size_t i = 0; status == STATUS_OK && i < n; i++) {
        status = evaluate_one(evaluation, options->releases.values[i], &results[i], &err);
    }
    for (size_t i = 0; status == STATUS_OK && i < (n - 1) * N_EVALUATE_SEEN; i++) {
        size_t other = 1 + i / N_EVALUATE_SEEN;
        enum evaluate_seen seen = (enum evaluate_seen)(i % N_EVALUATE_SEEN);
        if (config->seen[seen]) {
            status =
                evaluation_compare(evaluation, seen, 0, other, &comparisons[other - 1][seen], &err);
        }
    }
    if (status == STATUS_OK && options->per_user != NULL) {
        status = evaluation_write_ranks(evaluation, options->per_user, &err);
    }
    evaluation_close(evaluation);
    if (status != STATUS_OK) {
        return command_failed(OFFLINE.command, &err);
    }
    struct evaluate_report report = {config, results, options->releases.values, n,
                                     &comparisons[0][0]};
    return print_report(options, &report);
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
