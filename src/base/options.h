#ifndef AISLE_BASE_OPTIONS_H
#define AISLE_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/status.h"

/* One table serves a command's flags, its environment variables, its configuration file and its
 * help text. Row "listen" is flag --listen VALUE (or --listen=VALUE), variable AISLE_LISTEN and
 * file line `listen = VALUE` (dashes in names become underscores in the variable only). Precedence:
 * default < file < environment < command line. Unknown flags, unknown file keys, malformed and
 * out-of-range values are INVALID and name the flag, the variable, or file and line. */
enum option_type {
    OPTION_TEXT,   /* const char *, stored into a text slot; owned by struct options */
    OPTION_INT,    /* int64_t */
    OPTION_NUMBER, /* double */
    OPTION_BOOL,   /* bool; on the command line a bare --flag means true */
    OPTION_LIST,   /* struct option_list; a repeatable flag */
};

struct option_list {
    const char **values; /* owned by struct options */
    size_t n;
};

struct option_row {
    const char *name;
    enum option_type type;
    size_t offset;            /* of the slot inside the target struct */
    const char *default_text; /* NULL: slot is NULL, 0 or false unless given */
    double min, max;          /* for INT and NUMBER; both 0: unbounded */
    const char *unit;         /* "ms", "items", "" */
    const char *help;         /* one line */
    bool secret;              /* value not shown by options_print */
};

struct option_table {
    const char *command;  /* "aisle serve" */
    const char *synopsis; /* "aisle serve --releases DIR [options]" */
    const char *about;    /* one paragraph */
    const char *examples; /* lines, indented */
    const struct option_row *rows;
    size_t n_rows;
    size_t n_positional_max;
    bool with_environment; /* read AISLE_* and a --config file (which must be a row of its own) */
};

struct options {
    void *target;            /* the caller's struct, filled */
    const char **positional; /* borrowed from argv */
    size_t n_positional;
    bool help_wanted; /* --help or -h was given: nothing else is checked */
    void *owned;      /* internal */
};

/* Fills *target by the table. argv[0] is skipped. INVALID for usage faults. Free in both cases. */
enum status options_parse(const struct option_table *table, int argc, const char *const *argv,
                          void *target, struct options *out, struct error *err) STATUS_CHECKED;
void options_free(struct options *options);
void options_print_help(const struct option_table *table, FILE *out);
/* The effective table, one `name = value` a line (secrets as ***), in the file's format. */
void options_print(const struct option_table *table, const void *target, FILE *out);

/* A configuration file's content. Borrows; text needs no NUL. */
struct options_text {
    const char *name; /* of the file, for messages */
    const char *text;
    size_t len;
};

/* For the fuzzer and the tests: options_parse with a configuration text as the only source. */
enum status options_parse_config(const struct option_table *table, const struct options_text *text,
                                 void *target, struct options *out,
                                 struct error *err) STATUS_CHECKED;

#endif
