/* Danger: a configuration file decides ports, paths and limits before anything runs; a value that
 *   slips past its bounds, or text that is kept without its end, shows much later.
 * Inputs: a whole configuration text; corpus/config holds good and damaged ones.
 * Code path: options_parse_config over a table with every type of option, bounds and a secret. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct target {
    const char *listen, *token;
    struct option_list releases;
    int64_t workers, any;
    double ratio;
    bool verbose;
};

#define DEFAULT_LISTEN "127.0.0.1:8080"
#define AT(field) offsetof(struct target, field)
static const struct option_row ROWS[] = {
    {"config", OPTION_TEXT, 0, NULL, 0, 0, "", "file", false},
    {"listen", OPTION_TEXT, AT(listen), DEFAULT_LISTEN, 0, 0, "", "address", false},
    {"token", OPTION_TEXT, AT(token), NULL, 0, 0, "", "secret", true},
    {"releases", OPTION_LIST, AT(releases), NULL, 0, 0, "", "folders", false},
    {"workers", OPTION_INT, AT(workers), "2", 1, 64, "threads", "workers", false},
    {"any-number", OPTION_INT, AT(any), "0", 0, 0, "", "unbounded", false},
    {"ratio", OPTION_NUMBER, AT(ratio), "0.5", 0, 1, "", "share", false},
    {"verbose", OPTION_BOOL, AT(verbose), NULL, 0, 0, "", "more", false},
};
#undef AT

static const struct option_table TABLE = {
    .command = "aisle fuzz",
    .synopsis = "aisle fuzz",
    .about = "",
    .examples = "",
    .rows = ROWS,
    .n_rows = sizeof ROWS / sizeof ROWS[0],
    .with_environment = true,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct target target = {.workers = 2, .ratio = 0.5};
    struct options options = {.target = &target};
    struct error err = {.message = ""};
    enum status status = options_parse_config(
        &TABLE, &(struct options_text){"fuzz", (const char *)data, size}, &target, &options, &err);
    if (target.workers < 1 || target.workers > 64 ||
        !(target.ratio >= 0.0 && target.ratio <= 1.0)) {
        abort();
    }
    if (status != STATUS_OK && (err.message[0] == '\0' || err.code != status)) {
        abort();
    }
    size_t n_bytes = (target.listen != NULL ? strlen(target.listen) : 0) +
                     (target.token != NULL ? strlen(target.token) : 0);
    for (size_t i = 0; i < target.releases.n; i++) {
        n_bytes += strlen(target.releases.values[i]);
    }
    if (n_bytes > size + strlen(DEFAULT_LISTEN)) { /* nothing but the text's own bytes */
        abort();
    }
    options_free(&options);
    return 0;
}
