#ifndef AISLE_TOOLS_COMMON_H
#define AISLE_TOOLS_COMMON_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/options.h"
#include "base/status.h"

/* What every subcommand does the same way. */
enum { EXIT_CODE_DONE = 0, EXIT_CODE_FAILED = 1, EXIT_CODE_USAGE = 2 };

/* Parses argv into target. True: go on, with *options to be freed. False: return *exit_code at
 * once, nothing to free (help was printed on stdout, or the usage fault on stderr). */
bool command_parse(const struct option_table *table, int argc, const char *const *argv,
                   void *target, struct options *options, int *exit_code);

/* "aisle synth: reason" on stderr; returns EXIT_CODE_FAILED, or EXIT_CODE_USAGE when the field at
 * fault is a flag ("--listen"). An empty message is replaced by the status' text. */
int command_failed(const char *command, const struct error *err);
/* "aisle synth: reason" and where help is; returns EXIT_CODE_USAGE. */
int command_usage(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Whether all flags that a command cannot do without were given; else names the missing ones on
 * stderr, as command_usage does. */
struct required_option {
    const char *flag;  /* "--items" */
    const char *value; /* NULL: not given */
};
bool command_has_all(const char *command, const struct required_option *required, size_t n);

/* "90s", "30m", "2h" or plain seconds, above zero; false and *seconds unchanged for another text.
 */
bool command_parse_seconds(const char *text, double *seconds);

/* Writes text (JSON, a report) and, where it lacks one, a newline to stdout; a failed write or a
 * buf in failure is reported. Returns the exit code. */
int command_print(const char *command, struct buf *text);

#endif
