#include "base/options.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "base/options_internal.h"
#include "base/parse.h"

/* What a table shows of itself: the help text, and the effective values in the file's own format,
 * so that what is printed reads back to the same values (but for secrets and the file's own path).
 * Failures to write are left to the stream's error flag, which the caller looks at once. */

enum { HELP_COLUMN_MAX = 30 };

void option_environment_name(const struct option_row *row, char out[OPTION_NAME_BYTES_MAX])
{
    static const char prefix[] = "AISLE_";
    size_t at = strlen(prefix);
    assert(at + strlen(row->name) < OPTION_NAME_BYTES_MAX);
    memcpy(out, prefix, at);
    for (const char *c = row->name; *c != '\0'; c++) {
        char upper = *c;
        if (upper >= 'a' && upper <= 'z') {
            upper = (char)(upper - 'a' + 'A');
        } else if (upper == '-') {
            upper = '_';
        }
        out[at++] = upper;
    }
    out[at] = '\0';
}

const char *option_shown(const struct option_row *row, const char *text)
{
    return row->secret ? "***" : text;
}

static size_t flag_text(const struct option_row *row, char *out, size_t out_bytes)
{
    static const char *const metavariables[] = {
        [OPTION_TEXT] = " VALUE", [OPTION_INT] = " N",      [OPTION_NUMBER] = " X",
        [OPTION_BOOL] = "",       [OPTION_LIST] = " VALUE",
    };
    int len = snprintf(out, out_bytes, "--%s%s", row->name, metavariables[row->type]);
    return len > 0 ? (size_t)len : 0;
}

/* "(1 to 64 threads; default 2; repeatable; AISLE_WORKERS)", as far as there is something to say.
 */
static void print_row_facts(const struct option_table *table, const struct option_row *row,
                            FILE *out)
{
    const char *before = " (";
    bool has_unit = row->unit != NULL && row->unit[0] != '\0';
    if (row->min != 0.0 || row->max != 0.0) {
        (void)fprintf(out, "%s%.15g to %.15g%s%s", before, row->min, row->max, has_unit ? " " : "",
                      has_unit ? row->unit : "");
        before = "; ";
    } else if (has_unit) {
        (void)fprintf(out, "%sin %s", before, row->unit);
        before = "; ";
    }
    if (row->default_text != NULL && row->default_text[0] != '\0') {
        (void)fprintf(out, "%sdefault %s", before, option_shown(row, row->default_text));
        before = "; ";
    }
    if (row->type == OPTION_LIST) {
        (void)fprintf(out, "%srepeatable", before);
        before = "; ";
    }
    if (table->with_environment) {
        char variable[OPTION_NAME_BYTES_MAX];
        option_environment_name(row, variable);
        (void)fprintf(out, "%s%s", before, variable);
        before = "; ";
    }
    (void)fputs(before[0] == ';' ? ")\n" : "\n", out);
}

void options_print_help(const struct option_table *table, FILE *out)
{
    char flag[2 * OPTION_NAME_BYTES_MAX];
    size_t column = strlen("-h, --help");
    for (size_t i = 0; i < table->n_rows; i++) {
        size_t len = flag_text(&table->rows[i], flag, sizeof flag);
        column = len > column && len <= HELP_COLUMN_MAX ? len : column;
    }
    (void)fprintf(out, "usage: %s\n", table->synopsis);
    if (table->about != NULL && table->about[0] != '\0') {
        (void)fprintf(out, "\n%s\n", table->about);
    }
    (void)fputs("\noptions:\n", out);
    for (size_t i = 0; i < table->n_rows; i++) {
        (void)flag_text(&table->rows[i], flag, sizeof flag);
        (void)fprintf(out, "  %-*s  %s", (int)column, flag, table->rows[i].help);
        print_row_facts(table, &table->rows[i], out);
    }
    (void)fprintf(out, "  %-*s  show this text\n", (int)column, "-h, --help");
    if (table->examples != NULL && table->examples[0] != '\0') {
        size_t len = strlen(table->examples);
        (void)fprintf(out, "\nexamples:\n%s%s", table->examples,
                      table->examples[len - 1] == '\n' ? "" : "\n");
    }
}

/* A comment, since no line of a file can say "not set". */
static void print_absent(const struct option_row *row, FILE *out)
{
    bool is_comment = strcmp(row->name, OPTION_CONFIG_ROW) == 0;
    (void)fprintf(out, "%s%s =\n", is_comment ? "" : "# ", row->name);
}

static void print_text(const struct option_row *row, const char *text, FILE *out)
{
    (void)fprintf(out, "%s = \"", row->name);
    for (const char *c = option_shown(row, text); *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            (void)fputc('\\', out);
        }
        if (*c == '\n') {
            (void)fputs("\\n", out);
        } else {
            (void)fputc(*c, out);
        }
    }
    (void)fputs("\"\n", out);
}

/* The shorter of the two forms that reads back as the same number. */
static void print_number(const struct option_row *row, double number, FILE *out)
{
    char text[40];
    double again = 0.0;
    int len = snprintf(text, sizeof text, "%.15g", number);
    if (len < 0 || !parse_double(text, (size_t)len, &again) || again != number) {
        (void)snprintf(text, sizeof text, "%.17g", number);
    }
    (void)fprintf(out, "%s = %s\n", row->name, row->secret ? "***" : text);
}

static void print_list(const struct option_row *row, const struct option_list *list, FILE *out)
{
    if (list->n == 0) {
        print_absent(row, out);
    }
    for (size_t i = 0; i < list->n; i++) {
        print_text(row, list->values[i], out);
    }
}

void options_print(const struct option_table *table, const void *target, FILE *out)
{
    for (size_t i = 0; i < table->n_rows; i++) {
        const struct option_row *row = &table->rows[i];
        const void *slot = (const unsigned char *)target + row->offset;
        const char *text = NULL;
        struct option_list list = {0};
        int64_t integer = 0;
        double number = 0.0;
        bool flag = false;
        if (strcmp(row->name, OPTION_CONFIG_ROW) == 0) {
            (void)fputs("# ", out); /* a file does not name another */
        }
        switch (row->type) {
        case OPTION_TEXT:
            memcpy(&text, slot, sizeof text);
            if (text != NULL) {
                print_text(row, text, out);
            } else {
                print_absent(row, out);
            }
            break;
        case OPTION_INT:
            memcpy(&integer, slot, sizeof integer);
            (void)fprintf(out, "%s = %jd\n", row->name, (intmax_t)integer);
            break;
        case OPTION_NUMBER:
            memcpy(&number, slot, sizeof number);
            print_number(row, number, out);
            break;
        case OPTION_BOOL:
            memcpy(&flag, slot, sizeof flag);
            (void)fprintf(out, "%s = %s\n", row->name, flag ? "true" : "false");
            break;
        case OPTION_LIST:
            memcpy(&list, slot, sizeof list);
            print_list(row, &list, out);
            break;
        }
    }
}
