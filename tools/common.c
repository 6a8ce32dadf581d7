#include "common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool command_parse(const struct option_table *table, int argc, const char *const *argv,
                   void *target, struct options *options, int *exit_code)
{
    struct error err = {0};
    enum status status = options_parse(table, argc, argv, target, options, &err);
    if (status == STATUS_OK && !options->help_wanted) {
        return true;
    }
    if (status == STATUS_OK) {
        options_print_help(table, stdout);
        *exit_code = EXIT_CODE_DONE;
    } else if (status == STATUS_INVALID) {
        *exit_code = command_usage(table->command, "%s", err.message);
    } else {
        *exit_code = command_failed(table->command, &err);
    }
    options_free(options);
    return false;
}

int command_failed(const char *command, const struct error *err)
{
    (void)fprintf(stderr, "%s: %s\n", command,
                  err->message[0] != '\0' ? err->message : status_text(err->code));
    return strncmp(err->field, "--", 2) == 0 ? EXIT_CODE_USAGE : EXIT_CODE_FAILED;
}

int command_usage(const char *command, const char *format, ...)
{
    char message[ERROR_MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    (void)fprintf(stderr, "%s: %s (see %s --help)\n", command, message, command);
    return EXIT_CODE_USAGE;
}

bool command_has_all(const char *command, const struct required_option *required, size_t n)
{
    char missing[ERROR_MESSAGE_BYTES] = "";
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        if (required[i].value == NULL && len < sizeof missing) {
            len += (size_t)snprintf(missing + len, sizeof missing - len, "%s%s",
                                    len > 0 ? ", " : "", required[i].flag);
        }
    }
    if (len > 0) {
        (void)command_usage(command, "missing: %s", missing);
    }
    return len == 0;
}

bool command_parse_seconds(const char *text, double *seconds)
{
    static const struct {
        char letter;
        double seconds;
    } units[] = {{'\0', 1.0}, {'s', 1.0}, {'m', 60.0}, {'h', 3600.0}};
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || errno != 0 || !(value > 0.0) || (end[0] != '\0' && end[1] != '\0')) {
        return false;
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (end[0] == units[i].letter && value * units[i].seconds < 1e9) {
            *seconds = value * units[i].seconds;
            return true;
        }
    }
    return false;
}

int command_print(const char *command, struct buf *text)
{
    struct error err;
    if (text->status != STATUS_OK) {
        (void)error_set(&err, text->status, "printing: %s", status_text(text->status));
        return command_failed(command, &err);
    }
    bool complete = text->len > 0 && text->data[text->len - 1] == '\n';
    if (fwrite(buf_text(text), 1, text->len, stdout) != text->len ||
        (!complete && fputc('\n', stdout) == EOF) || fflush(stdout) != 0) {
        (void)error_set_errno(&err, "writing to standard output");
        return command_failed(command, &err);
    }
    return EXIT_CODE_DONE;
}
