#ifndef AISLE_BASE_OPTIONS_INTERNAL_H
#define AISLE_BASE_OPTIONS_INTERNAL_H

#include "base/options.h"

/* Shared by options.c (reading) and options_print.c (help and the effective table). */

enum { OPTION_NAME_BYTES_MAX = 48 };

/* The row that names the configuration file; it cannot stand in that file. */
#define OPTION_CONFIG_ROW "config"

/* "AISLE_" and the row's name in upper case, dashes as underscores. */
void option_environment_name(const struct option_row *row, char out[OPTION_NAME_BYTES_MAX]);
/* text, or "***" for a secret row. */
const char *option_shown(const struct option_row *row, const char *text);

#endif
