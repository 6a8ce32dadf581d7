#include "base/options.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/options_internal.h"
#include "base/parse.h"

/* One table, four sources. Every value, wherever it comes from, goes through set_value(), so that
 * a flag, a variable and a line of the file accept and refuse the same things; what differs is the
 * name under which a fault is reported (struct source). The sources are applied from the weakest to
 * the strongest, each overwriting. A list is replaced as a whole by a stronger source and grows
 * within one. The command line is taken apart first and applied last, as the file's path may stand
 * on it.
 *
 * Rejected: getopt_long (global state, prints by itself, knows neither types nor files) and a
 * general format such as TOML for the file: its keys are the flags, so lines of `name = value` say
 * everything. A name given twice is a fault in the file, where it is a mistake, but not on the
 * command line, where scripts append to override. An empty environment variable counts as not set,
 * since container tools pass those on for variables nobody gave. */

enum { CONFIG_BYTES_MAX = 1 << 20, LABEL_BYTES = 160, SUGGESTION_DISTANCE_MAX = 2 };

enum level { LEVEL_DEFAULT, LEVEL_FILE, LEVEL_ENVIRONMENT, LEVEL_COMMAND };

/* Where a value stands: `name` is the file's for LEVEL_FILE, otherwise unused. */
struct source {
    enum level level;
    const char *name;
    size_t line;
};

struct row_state {
    enum level level;    /* of the source the slot's value is from */
    const char **values; /* LIST only */
    size_t n;
};

struct text {
    struct text *next;
    char bytes[];
};

struct owned {
    struct row_state *states; /* one a row */
    size_t n_rows;
    struct text *texts;
};

struct assignment {
    const struct option_row *row;
    const char *value;
};

/* What a run over a table needs; passed instead of six parameters. */
struct run {
    const struct option_table *table;
    unsigned char *target;
    struct owned *owned;
    struct error *err;
};

__attribute__((format(printf, 4, 5))) static enum status fail_value(const struct run *run,
                                                                    const struct source *source,
                                                                    const struct option_row *row,
                                                                    const char *format, ...)
{
    char label[LABEL_BYTES];
    char variable[OPTION_NAME_BYTES_MAX];
    char reason[LABEL_BYTES];
    switch (source->level) {
    case LEVEL_COMMAND:
        (void)snprintf(label, sizeof label, "flag --%s", row->name);
        break;
    case LEVEL_ENVIRONMENT:
        option_environment_name(row, variable);
        (void)snprintf(label, sizeof label, "variable %s", variable);
        break;
    case LEVEL_FILE:
        (void)snprintf(label, sizeof label, "%.80s:%zu: %s", source->name, source->line, row->name);
        break;
    case LEVEL_DEFAULT:
        (void)snprintf(label, sizeof label, "default of %s", row->name);
        break;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    return error_set(run->err, STATUS_INVALID, "%s: %s", label, reason);
}

static enum status no_memory(const struct run *run)
{
    return error_set(run->err, STATUS_NOMEM, "no memory for options");
}

/* A copy that lives until options_free; NULL without memory. */
static const char *keep_text(struct owned *owned, const char *text, size_t len)
{
    struct text *copy = mem_alloc(sizeof *copy + len + 1);
    if (copy == NULL) {
        return NULL;
    }
    if (len > 0) {
        memcpy(copy->bytes, text, len);
    }
    copy->bytes[len] = '\0';
    copy->next = owned->texts;
    owned->texts = copy;
    return copy->bytes;
}

static struct row_state *state_of(const struct run *run, const struct option_row *row)
{
    return &run->owned->states[row - run->table->rows];
}

static enum status append_item(const struct run *run, const struct option_row *row,
                               const char *text, size_t len)
{
    struct row_state *state = state_of(run, row);
    const char **values = mem_realloc_array(state->values, state->n + 1, sizeof *values);
    if (values == NULL) {
        return no_memory(run);
    }
    state->values = values;
    struct option_list list = {values, state->n};
    values[list.n] = keep_text(run->owned, text, len);
    if (values[list.n] == NULL) {
        memcpy(run->target + row->offset, &list, sizeof list); /* the array may have moved */
        return no_memory(run);
    }
    state->n = ++list.n;
    memcpy(run->target + row->offset, &list, sizeof list);
    return STATUS_OK;
}

/* Flags and lines hold one item each, variables and defaults hold items between commas. */
static enum status set_list(const struct run *run, const struct source *source,
                            const struct option_row *row, const char *text, size_t len)
{
    if (source->level == LEVEL_COMMAND || source->level == LEVEL_FILE) {
        return append_item(run, row, text, len);
    }
    size_t start = 0;
    for (size_t i = 0; i <= len; i++) {
        if (i < len && text[i] != ',') {
            continue;
        }
        if (i > start) {
            enum status status = append_item(run, row, text + start, i - start);
            if (status != STATUS_OK) {
                return status;
            }
        }
        start = i + 1;
    }
    return STATUS_OK;
}

static enum status check_range(const struct run *run, const struct source *source,
                               const struct option_row *row, double value, const char *text)
{
    bool is_bounded = row->min != 0.0 || row->max != 0.0;
    if (is_bounded && (value < row->min || value > row->max)) {
        const char *unit = row->unit != NULL ? row->unit : "";
        return fail_value(run, source, row, "%.40s is out of range (%.15g to %.15g%s%s)",
                          option_shown(row, text), row->min, row->max, unit[0] != '\0' ? " " : "",
                          unit);
    }
    return STATUS_OK;
}

/* text[len] is NUL; len is passed since a file's value may not contain NUL but is cut out of it. */
static enum status set_value(const struct run *run, const struct source *source,
                             const struct option_row *row, const char *text, size_t len)
{
    unsigned char *slot = run->target + row->offset;
    struct row_state *state = state_of(run, row);
    enum status status = STATUS_OK;
    int64_t integer = 0;
    double number = 0.0;
    bool flag = false;
    if (state->level != source->level) {
        state->n = 0;
        state->level = source->level;
        if (row->type == OPTION_LIST) {
            memset(slot, 0, sizeof(struct option_list));
        }
    }
    switch (row->type) {
    case OPTION_TEXT: {
        const char *copy = keep_text(run->owned, text, len);
        if (copy == NULL) {
            return no_memory(run);
        }
        memcpy(slot, &copy, sizeof copy);
        return STATUS_OK;
    }
    case OPTION_INT:
        if (!parse_int64(text, len, &integer)) {
            return fail_value(run, source, row, "\"%.40s\" is not a whole number",
                              option_shown(row, text));
        }
        status = check_range(run, source, row, (double)integer, text);
        if (status == STATUS_OK) {
            memcpy(slot, &integer, sizeof integer);
        }
        return status;
    case OPTION_NUMBER:
        if (!parse_double(text, len, &number)) {
            return fail_value(run, source, row, "\"%.40s\" is not a number",
                              option_shown(row, text));
        }
        status = check_range(run, source, row, number, text);
        if (status == STATUS_OK) {
            memcpy(slot, &number, sizeof number);
        }
        return status;
    case OPTION_BOOL:
        if (!parse_bool(text, len, &flag)) {
            return fail_value(run, source, row, "\"%.40s\" is not true or false",
                              option_shown(row, text));
        }
        memcpy(slot, &flag, sizeof flag);
        return STATUS_OK;
    case OPTION_LIST:
        return set_list(run, source, row, text, len);
    }
    return STATUS_INTERNAL;
}

static const struct option_row *find_row(const struct option_table *table, const char *name,
                                         size_t len)
{
    for (size_t i = 0; i < table->n_rows; i++) {
        if (strlen(table->rows[i].name) == len && memcmp(table->rows[i].name, name, len) == 0) {
            return &table->rows[i];
        }
    }
    return NULL;
}

/* Levenshtein distance; a large value for names too long to be a slip. */
static size_t edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t line[OPTION_NAME_BYTES_MAX + 1];
    if (a_len > OPTION_NAME_BYTES_MAX || b_len > OPTION_NAME_BYTES_MAX) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= b_len; j++) {
        line[j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = line[0];
        line[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
            diagonal = line[j];
            best = line[j] + 1 < best ? line[j] + 1 : best;
            line[j] = line[j - 1] + 1 < best ? line[j - 1] + 1 : best;
        }
    }
    return line[b_len];
}

/* The name of the table closest to a mistyped one; NULL when none is close. */
static const char *suggestion(const struct option_table *table, const char *name, size_t len)
{
    const char *best = NULL;
    size_t best_distance = SUGGESTION_DISTANCE_MAX + 1;
    for (size_t i = 0; i < table->n_rows; i++) {
        const char *known = table->rows[i].name;
        size_t distance = edit_distance(name, len, known, strlen(known));
        if (distance < best_distance && distance < len) {
            best = known;
            best_distance = distance;
        }
    }
    return best;
}

static enum status fail_unknown_flag(const struct run *run, const char *name, size_t len)
{
    int shown_len = len < OPTION_NAME_BYTES_MAX ? (int)len : OPTION_NAME_BYTES_MAX;
    const char *near = suggestion(run->table, name, len);
    if (near != NULL) {
        return error_set(run->err, STATUS_INVALID, "flag --%.*s: unknown, did you mean --%s?",
                         shown_len, name, near);
    }
    return error_set(run->err, STATUS_INVALID, "flag --%.*s: unknown, see %s --help", shown_len,
                     name, run->table->command);
}

/* Takes argv[*i] "--name=value", "--name value" or "--name" apart and moves *i to its last part. */
static enum status take_flag(const struct run *run, int argc, const char *const *argv, int *i,
                             struct assignment *out)
{
    static const struct source source = {.level = LEVEL_COMMAND};
    const char *name = argv[*i] + 2;
    const char *equals = strchr(name, '=');
    size_t len = equals != NULL ? (size_t)(equals - name) : strlen(name);
    out->row = find_row(run->table, name, len);
    if (out->row == NULL) {
        return fail_unknown_flag(run, name, len);
    }
    if (equals != NULL) {
        out->value = equals + 1;
        return STATUS_OK;
    }
    if (out->row->type == OPTION_BOOL) {
        out->value = "true";
        return STATUS_OK;
    }
    if (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0) {
        return fail_value(run, &source, out->row, "needs a value");
    }
    ++*i;
    out->value = argv[*i];
    return STATUS_OK;
}

static enum status split_command_line(const struct run *run, int argc, const char *const *argv,
                                      struct options *out, struct assignment *assignments,
                                      size_t *n_assignments)
{
    bool flags_ended = false;
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        if (!flags_ended && strcmp(argument, "--") == 0) {
            flags_ended = true;
            continue;
        }
        if (!flags_ended && strncmp(argument, "--", 2) == 0) {
            enum status status = take_flag(run, argc, argv, &i, &assignments[*n_assignments]);
            if (status != STATUS_OK) {
                return status;
            }
            ++*n_assignments;
            continue;
        }
        if (!flags_ended && argument[0] == '-' && argument[1] != '\0') {
            return error_set(run->err, STATUS_INVALID, "flag %.40s: unknown, see %s --help",
                             argument, run->table->command);
        }
        if (out->n_positional >= run->table->n_positional_max) {
            return error_set(run->err, STATUS_INVALID,
                             "argument \"%.80s\": not expected, see %s "
                             "--help",
                             argument, run->table->command);
        }
        out->positional[out->n_positional++] = argument;
    }
    return STATUS_OK;
}

static bool wants_help(int argc, const char *const *argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            return true;
        }
    }
    return false;
}

static const char *environment_value(const struct option_row *row)
{
    char variable[OPTION_NAME_BYTES_MAX];
    option_environment_name(row, variable);
    /* Options are read while the process has one thread, and nothing of ours sets variables. */
    const char *value = getenv(variable); /* NOLINT(concurrency-mt-unsafe) */
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static enum status apply_environment(const struct run *run)
{
    static const struct source source = {.level = LEVEL_ENVIRONMENT};
    for (size_t i = 0; i < run->table->n_rows; i++) {
        const struct option_row *row = &run->table->rows[i];
        const char *value = environment_value(row);
        if (value == NULL) {
            continue;
        }
        enum status status = set_value(run, &source, row, value, strlen(value));
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Undoes "…" in place: text[0] is the opening quote. False when it does not end, goes on behind its
 * end with anything but a comment, or holds an unknown escape. */
static bool unquote(char *text, size_t len, size_t *out_len)
{
    size_t n = 0;
    size_t i = 1;
    for (; i < len && text[i] != '"'; i++) {
        char c = text[i];
        if (c == '\\') {
            i++;
            if (i >= len || (text[i] != '"' && text[i] != '\\' && text[i] != 'n')) {
                return false;
            }
            c = text[i];
            if (c == 'n') {
                c = '\n';
            }
        }
        text[n++] = c;
    }
    if (i >= len) {
        return false;
    }
    i++;
    while (i < len && is_blank(text[i])) {
        i++;
    }
    *out_len = n;
    return i == len || text[i] == '#';
}

/* Length of an unquoted value without the comment (a # after a blank) and the blanks behind it. */
static size_t plain_length(const char *text, size_t len)
{
    size_t n = 0;
    while (n < len && !(text[n] == '#' && (n == 0 || is_blank(text[n - 1])))) {
        n++;
    }
    while (n > 0 && is_blank(text[n - 1])) {
        n--;
    }
    return n;
}

static enum status fail_line(const struct run *run, const struct source *source, const char *what)
{
    return error_set(run->err, STATUS_INVALID, "%.100s:%zu: %s", source->name, source->line, what);
}

static enum status find_key(const struct run *run, const struct source *source, const char *name,
                            size_t len, const struct option_row **out)
{
    *out = find_row(run->table, name, len);
    if (*out == NULL) {
        const char *near = suggestion(run->table, name, len);
        return error_set(run->err, STATUS_INVALID, "%.100s:%zu: unknown name \"%.*s\"%s%s%s",
                         source->name, source->line,
                         len < OPTION_NAME_BYTES_MAX ? (int)len : OPTION_NAME_BYTES_MAX, name,
                         near != NULL ? ", did you mean " : "", near != NULL ? near : "",
                         near != NULL ? "?" : "");
    }
    if (strcmp((*out)->name, OPTION_CONFIG_ROW) == 0) {
        return fail_value(run, source, *out, "cannot stand in a file");
    }
    if ((*out)->type != OPTION_LIST && state_of(run, *out)->level == LEVEL_FILE) {
        return fail_value(run, source, *out, "given twice");
    }
    return STATUS_OK;
}

/* One line, without its newline; line[len] may be written. */
static enum status apply_line(const struct run *run, const struct source *source, char *line,
                              size_t len)
{
    const struct option_row *row = NULL;
    size_t start = 0;
    if (len > 0 && line[len - 1] == '\r') {
        len--;
    }
    while (start < len && is_blank(line[start])) {
        start++;
    }
    if (start == len || line[start] == '#') {
        return STATUS_OK;
    }
    const char *equals = memchr(line + start, '=', len - start);
    if (equals == NULL) {
        return fail_line(run, source, "not `name = value`");
    }
    size_t equals_at = (size_t)(equals - line);
    size_t name_end = equals_at;
    while (name_end > start && is_blank(line[name_end - 1])) {
        name_end--;
    }
    enum status status = find_key(run, source, line + start, name_end - start, &row);
    if (status != STATUS_OK) {
        return status;
    }
    size_t value_at = equals_at + 1;
    while (value_at < len && is_blank(line[value_at])) {
        value_at++;
    }
    char *value = line + value_at;
    size_t value_len = plain_length(value, len - value_at);
    if (value_at < len && value[0] == '"' && !unquote(value, len - value_at, &value_len)) {
        return fail_value(run, source, row, "value with a quote or escape that is not right");
    }
    value[value_len] = '\0';
    return set_value(run, source, row, value, value_len);
}

/* text[len] is writable; lines are cut up in place. */
static enum status apply_config(const struct run *run, char *text, size_t len, const char *name)
{
    struct source source = {LEVEL_FILE, name, 0};
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        len -= 3;
    }
    size_t start = 0;
    while (start < len) {
        const char *newline = memchr(text + start, '\n', len - start);
        size_t end = newline != NULL ? (size_t)(newline - text) : len;
        source.line++;
        if (memchr(text + start, '\0', end - start) != NULL) {
            return fail_line(run, &source, "NUL byte");
        }
        enum status status = apply_line(run, &source, text + start, end - start);
        if (status != STATUS_OK) {
            return status;
        }
        start = end + 1;
    }
    return STATUS_OK;
}

static enum status apply_config_file(const struct run *run, const char *path)
{
    struct buf content;
    buf_init(&content, CONFIG_BYTES_MAX);
    enum status status = file_read(path, &content, run->err);
    if (status == STATUS_OK && content.len > 0) {
        status = apply_config(run, content.data, content.len, path);
    }
    buf_free(&content);
    return status;
}

/* Empty slots, then the defaults. Every row's state is LEVEL_DEFAULT after it. */
static enum status start_run(struct run *run, struct options *out)
{
    static const struct source source = {.level = LEVEL_DEFAULT};
    const struct option_table *table = run->table;
    run->owned = mem_calloc(1, sizeof *run->owned);
    if (run->owned == NULL) {
        return no_memory(run);
    }
    out->owned = run->owned;
    run->owned->states = mem_calloc(table->n_rows + 1, sizeof *run->owned->states);
    if (run->owned->states == NULL) {
        return no_memory(run);
    }
    run->owned->n_rows = table->n_rows;
    for (size_t i = 0; i < table->n_rows; i++) {
        static const size_t slot_bytes[] = {
            [OPTION_TEXT] = sizeof(const char *),       [OPTION_INT] = sizeof(int64_t),
            [OPTION_NUMBER] = sizeof(double),           [OPTION_BOOL] = sizeof(bool),
            [OPTION_LIST] = sizeof(struct option_list),
        };
        const struct option_row *row = &table->rows[i];
        memset(run->target + row->offset, 0, slot_bytes[row->type]);
        if (row->default_text == NULL) {
            continue;
        }
        enum status status =
            set_value(run, &source, row, row->default_text, strlen(row->default_text));
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

/* The last --config, or AISLE_CONFIG, or the row's default; NULL without a file. */
static const char *config_path(const struct option_table *table,
                               const struct assignment *assignments, size_t n)
{
    const struct option_row *row = find_row(table, OPTION_CONFIG_ROW, strlen(OPTION_CONFIG_ROW));
    if (row == NULL) {
        return NULL;
    }
    for (size_t i = n; i > 0; i--) {
        if (assignments[i - 1].row == row) {
            return assignments[i - 1].value;
        }
    }
    const char *value = environment_value(row);
    return value != NULL ? value : row->default_text;
}

static enum status apply_sources(const struct run *run, const struct assignment *assignments,
                                 size_t n)
{
    static const struct source source = {.level = LEVEL_COMMAND};
    enum status status = STATUS_OK;
    if (run->table->with_environment) {
        const char *path = config_path(run->table, assignments, n);
        if (path != NULL) {
            status = apply_config_file(run, path);
        }
        if (status == STATUS_OK) {
            status = apply_environment(run);
        }
    }
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        status = set_value(run, &source, assignments[i].row, assignments[i].value,
                           strlen(assignments[i].value));
    }
    return status;
}

enum status options_parse(const struct option_table *table, int argc, const char *const *argv,
                          void *target, struct options *out, struct error *err)
{
    struct run run = {.table = table, .target = target, .err = err};
    size_t n_assignments = 0;
    size_t n_slots = argc > 0 ? (size_t)argc : 1;
    *out = (struct options){.target = target};
    enum status status = start_run(&run, out);
    if (status != STATUS_OK) {
        return status;
    }
    if (wants_help(argc, argv)) {
        out->help_wanted = true;
        return STATUS_OK;
    }
    out->positional = mem_calloc(n_slots, sizeof *out->positional);
    struct assignment *assignments = mem_calloc(n_slots, sizeof *assignments);
    if (out->positional == NULL || assignments == NULL) {
        status = no_memory(&run);
        goto out;
    }
    status = split_command_line(&run, argc, argv, out, assignments, &n_assignments);
    if (status == STATUS_OK) {
        status = apply_sources(&run, assignments, n_assignments);
    }

out:
    mem_free(assignments);
    return status;
}

enum status options_parse_config(const struct option_table *table, const struct options_text *text,
                                 void *target, struct options *out, struct error *err)
{
    struct run run = {.table = table, .target = target, .err = err};
    *out = (struct options){.target = target};
    enum status status = start_run(&run, out);
    if (status != STATUS_OK) {
        return status;
    }
    if (text->len > CONFIG_BYTES_MAX) {
        return error_set(err, STATUS_LIMIT, "%.100s is over its limit of %d bytes", text->name,
                         CONFIG_BYTES_MAX);
    }
    char *copy = mem_alloc(text->len + 1);
    if (copy == NULL) {
        return no_memory(&run);
    }
    if (text->len > 0) {
        memcpy(copy, text->text, text->len);
        status = apply_config(&run, copy, text->len, text->name);
    }
    mem_free(copy);
    return status;
}

void options_free(struct options *options)
{
    if (options == NULL) {
        return;
    }
    struct owned *owned = options->owned;
    if (owned != NULL) {
        for (size_t i = 0; i < owned->n_rows; i++) {
            mem_free(owned->states[i].values);
        }
        while (owned->texts != NULL) {
            struct text *next = owned->texts->next;
            mem_free(owned->texts);
            owned->texts = next;
        }
        mem_free(owned->states);
        mem_free(owned);
    }
    mem_free(options->positional);
    *options = (struct options){0};
}
