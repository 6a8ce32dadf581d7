#include <stdbool.h>
#include <stddef.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/options.h"
#include "commands.h"
#include "common.h"
#include "json_lines.h"
#include "store/manifest.h"
#include "store/release.h"

struct inspect_options {
    bool json;
};

static const struct option_row ROWS[] = {
    {"json", OPTION_BOOL, offsetof(struct inspect_options, json), NULL, 0, 0, "",
     "print manifest.json as it is", false},
};

static const struct option_table TABLE = {
    .command = "aisle inspect",
    .synopsis = "aisle inspect RELEASE_DIR [--json]",
    .about =
        "Shows what a release is made of (model, session neighbours, index), how it was trained "
        "and what its build measured. Reads its manifest only; `aisle verify` checks the "
        "files.",
    .examples = "  aisle inspect releases/channels/stable\n"
                "  aisle inspect releases/channels/stable --json | jq .measured\n",
    .rows = ROWS,
    .n_rows = sizeof ROWS / sizeof ROWS[0],
    .n_positional_max = 1,
};

/* The free-form parts, each under its name. The trainer's quality stands in its report, too: once
 * is enough. */
static enum status append_reports(const struct manifest *manifest, struct buf *text,
                                  struct error *err)
{
    const struct {
        const char *name;
        const char *json;
        const char *skip;
    } reports[] = {
        {"model settings", manifest->model_settings_json, NULL},
        {"measured by the build", manifest->measured_json, NULL},
        {"training", manifest->training_json, manifest->quality_json != NULL ? "quality" : NULL},
        {"quality on held-out events", manifest->quality_json, NULL},
        {"drift baseline", manifest->drift_baseline_json, NULL},
    };
    enum status status = STATUS_OK;
    for (size_t i = 0; i < sizeof reports / sizeof reports[0] && status == STATUS_OK; i++) {
        if (reports[i].json != NULL) {
            buf_printf(text, "\n%s\n", reports[i].name);
            status = json_lines(reports[i].json, reports[i].skip, text, err);
        }
        if (status != STATUS_OK) {
            error_prefix(err, "%s: ", reports[i].name);
        }
    }
    return status;
}

static enum status tabulate(const struct manifest *manifest, struct buf *text, struct error *err)
{
    char created[TIME_TEXT_BYTES];
    time_format_rfc3339(manifest->created_at_ms, created);
    buf_printf(text, "release   %s\ncreated   %s\n", manifest->version, created);
    buf_printf(text, "items     %llu\n", (unsigned long long)manifest->n_items);
    buf_printf(text, "vectors   %llu components, %s\n", (unsigned long long)manifest->dim,
               manifest->vector_type);
    buf_printf(text, "model     %s\n", manifest->architecture);
    buf_printf(text, "index     %s %s\n", manifest->index_factory, manifest->index_parameters);
    for (size_t i = 0; i < manifest->n_files; i++) {
        buf_printf(text, "file      %-22s %14llu bytes  sha256 %.16s…\n", manifest->files[i].name,
                   (unsigned long long)manifest->files[i].n_bytes, manifest->files[i].sha256);
    }
    return append_reports(manifest, text, err);
}

static int run(const char *dir, bool as_json)
{
    char path[PATH_BYTES_MAX];
    struct manifest manifest;
    struct buf text;
    struct error err = {0};
    int code = EXIT_CODE_DONE;
    manifest_init(&manifest);
    buf_init(&text, 2 * (size_t)MANIFEST_MAX_BYTES);
    enum status status = path_join(path, dir, RELEASE_FILE_MANIFEST, &err);
    if (status == STATUS_OK) {
        status = manifest_read(path, &manifest, &err);
    }
    if (status == STATUS_OK && as_json) {
        status = file_read(path, &text, &err);
    } else if (status == STATUS_OK) {
        status = tabulate(&manifest, &text, &err);
    }
    code = status == STATUS_OK ? command_print(TABLE.command, &text)
                               : command_failed(TABLE.command, &err);
    buf_free(&text);
    manifest_free(&manifest);
    return code;
}

int command_inspect(int argc, const char *const *argv)
{
    struct inspect_options target = {0};
    struct options options;
    int code = EXIT_CODE_DONE;
    if (!command_parse(&TABLE, argc, argv, &target, &options, &code)) {
        return code;
    }
    if (options.n_positional == 1) {
        code = run(options.positional[0], target.json);
    } else {
        code = command_usage(TABLE.command, "RELEASE_DIR is needed");
    }
    options_free(&options);
    return code;
}
