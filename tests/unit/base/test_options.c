#include "base/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"

struct settings {
    const char *listen;
    const char *token;
    const char *config;
    int64_t workers;
    double half_life_days;
    bool verbose;
    struct option_list alias;
};

static const struct option_row rows[] = {
    {.name = "listen",
     .type = OPTION_TEXT,
     .offset = offsetof(struct settings, listen),
     .default_text = "127.0.0.1:8080",
     .help = "where to listen"},
    {.name = "admin-token",
     .type = OPTION_TEXT,
     .offset = offsetof(struct settings, token),
     .help = "secret of the administrator",
     .secret = true},
    {.name = "config",
     .type = OPTION_TEXT,
     .offset = offsetof(struct settings, config),
     .help = "configuration file"},
    {.name = "workers",
     .type = OPTION_INT,
     .offset = offsetof(struct settings, workers),
     .default_text = "2",
     .min = 1,
     .max = 64,
     .unit = "threads",
     .help = "worker threads"},
    {.name = "half-life-days",
     .type = OPTION_NUMBER,
     .offset = offsetof(struct settings, half_life_days),
     .unit = "days",
     .help = "decay of old events"},
    {.name = "verbose",
     .type = OPTION_BOOL,
     .offset = offsetof(struct settings, verbose),
     .help = "say more"},
    {.name = "alias",
     .type = OPTION_LIST,
     .offset = offsetof(struct settings, alias),
     .default_text = "one,two",
     .help = "other names"},
};

static const struct option_table table = {
    .command = "aisle serve",
    .synopsis = "aisle serve --releases DIR [options]",
    .about = "Answers requests.",
    .examples = "  aisle serve --workers 4",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
    .n_positional_max = 2,
    .with_environment = true,
};

static struct settings settings;
static struct options options;
static struct error err;

#define PARSE(...) parse((const char *const[]){"aisle", __VA_ARGS__, NULL})

static enum status parse(const char *const *argv)
{
    int argc = 0;
    while (argv[argc] != NULL) {
        argc++;
    }
    err = (struct error){0};
    options_free(&options);
    return options_parse(&table, argc, argv, &settings, &options, &err);
}

static enum status parse_config(const char *text)
{
    err = (struct error){0};
    options_free(&options);
    return options_parse_config(&table, &(struct options_text){"aisle.conf", text, strlen(text)},
                                &settings, &options, &err);
}

/* The variables of the process are set by one thread, before anything reads them. */
static void set_variable(const char *name, const char *value)
{
    assert_int_equal(setenv(name, value, 1), 0); /* NOLINT(concurrency-mt-unsafe) */
}

static int clear_variables(void **state)
{
    static const char *const names[] = {"AISLE_LISTEN",  "AISLE_ADMIN_TOKEN",    "AISLE_CONFIG",
                                        "AISLE_WORKERS", "AISLE_HALF_LIFE_DAYS", "AISLE_VERBOSE",
                                        "AISLE_ALIAS",   "AISLE_UNRELATED"};
    (void)state;
    options_free(&options);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (unsetenv(names[i]) != 0) { /* NOLINT(concurrency-mt-unsafe) */
            return -1;
        }
    }
    return 0;
}

static void assert_message(const char *expected_start)
{
    if (strncmp(err.message, expected_start, strlen(expected_start)) != 0) {
        fail_msg("\"%s\" does not start with \"%s\"", err.message, expected_start);
    }
}

static void assert_list(const char *a, const char *b)
{
    size_t n = (a != NULL ? 1U : 0U) + (b != NULL ? 1U : 0U);
    assert_int_equal(settings.alias.n, n);
    if (a != NULL) {
        assert_string_equal(settings.alias.values[0], a);
    }
    if (b != NULL) {
        assert_string_equal(settings.alias.values[1], b);
    }
}

static void options_parse_nothing_gives_defaults(void **state)
{
    (void)state;
    memset(&settings, 0x5a, sizeof settings);
    assert_int_equal(parse((const char *const[]){"aisle", NULL}), STATUS_OK);
    assert_string_equal(settings.listen, "127.0.0.1:8080");
    assert_null(settings.token);
    assert_null(settings.config);
    assert_int_equal(settings.workers, 2);
    assert_true(settings.half_life_days == 0.0);
    assert_false(settings.verbose);
    assert_list("one", "two");
    assert_int_equal(options.n_positional, 0);
    assert_false(options.help_wanted);
    assert_ptr_equal(options.target, &settings);
}

static void options_parse_flags_in_both_forms(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--listen", "0.0.0.0:1", "in.jsonl", "--workers=64", "--half-life-days",
                           "-2.5", "--verbose", "--alias", "x", "--alias=y=z", "-"),
                     STATUS_OK);
    assert_string_equal(settings.listen, "0.0.0.0:1");
    assert_int_equal(settings.workers, 64);
    assert_true(settings.half_life_days == -2.5);
    assert_true(settings.verbose);
    assert_list("x", "y=z");
    assert_int_equal(options.n_positional, 2);
    assert_string_equal(options.positional[0], "in.jsonl");
    assert_string_equal(options.positional[1], "-");
    assert_int_equal(PARSE("--verbose=false", "--listen=", "--workers=3", "--workers=5"),
                     STATUS_OK);
    assert_false(settings.verbose);
    assert_string_equal(settings.listen, "");
    assert_int_equal(settings.workers, 5);
}

static void options_parse_double_dash_ends_flags(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--workers", "3", "--", "--listen", "--help"), STATUS_OK);
    assert_int_equal(settings.workers, 3);
    assert_false(options.help_wanted);
    assert_int_equal(options.n_positional, 2);
    assert_string_equal(options.positional[0], "--listen");
}

static void options_parse_help_checks_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--nonsense", "--help"), STATUS_OK);
    assert_true(options.help_wanted);
    assert_int_equal(PARSE("--workers", "0", "-h"), STATUS_OK);
    assert_true(options.help_wanted);
}

static void options_parse_bad_command_lines_are_invalid(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--workers", "0"), STATUS_INVALID);
    assert_string_equal(err.message, "flag --workers: 0 is out of range (1 to 64 threads)");
    assert_int_equal(settings.workers, 2);
    assert_int_equal(PARSE("--workers", "65"), STATUS_INVALID);
    assert_int_equal(PARSE("--workers=two"), STATUS_INVALID);
    assert_message("flag --workers: \"two\" is not a whole number");
    assert_int_equal(PARSE("--workers="), STATUS_INVALID);
    assert_int_equal(PARSE("--half-life-days", "nan"), STATUS_INVALID);
    assert_message("flag --half-life-days: ");
    assert_int_equal(PARSE("--verbose=maybe"), STATUS_INVALID);
    assert_message("flag --verbose: ");
    assert_int_equal(PARSE("--listen"), STATUS_INVALID);
    assert_message("flag --listen: needs a value");
    assert_int_equal(PARSE("--listen", "--verbose"), STATUS_INVALID);
    assert_message("flag --listen: needs a value");
    assert_int_equal(PARSE("a", "b", "c"), STATUS_INVALID);
    assert_message("argument \"c\": ");
    assert_int_equal(PARSE("-x"), STATUS_INVALID);
    assert_message("flag -x: unknown");
    assert_int_equal(err.code, STATUS_INVALID);
}

static void options_parse_unknown_flag_suggests_the_nearest(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--wokers=3"), STATUS_INVALID);
    assert_string_equal(err.message, "flag --wokers: unknown, did you mean --workers?");
    assert_int_equal(PARSE("--something-else"), STATUS_INVALID);
    assert_message("flag --something-else: unknown, see aisle serve --help");
    assert_int_equal(PARSE("--=3"), STATUS_INVALID);
}

static void options_parse_environment_is_under_the_command_line(void **state)
{
    (void)state;
    set_variable("AISLE_WORKERS", "7");
    set_variable("AISLE_HALF_LIFE_DAYS", "30");
    set_variable("AISLE_VERBOSE", "1");
    set_variable("AISLE_ALIAS", "a,,b");
    set_variable("AISLE_LISTEN", ""); /* counts as not set */
    set_variable("AISLE_UNRELATED", "x");
    assert_int_equal(PARSE("--workers=9"), STATUS_OK);
    assert_int_equal(settings.workers, 9);
    assert_true(settings.half_life_days == 30.0);
    assert_true(settings.verbose);
    assert_list("a", "b");
    assert_string_equal(settings.listen, "127.0.0.1:8080");
    assert_int_equal(PARSE("--alias=c"), STATUS_OK);
    assert_list("c", NULL);
    set_variable("AISLE_WORKERS", "many");
    assert_int_equal(PARSE("--verbose"), STATUS_INVALID);
    assert_message("variable AISLE_WORKERS: \"many\" is not a whole number");
}

static void options_parse_without_environment_ignores_variables(void **state)
{
    (void)state;
    struct option_table bare = table;
    bare.with_environment = false;
    set_variable("AISLE_WORKERS", "7");
    set_variable("AISLE_CONFIG", "/nonexistent");
    const char *const argv[] = {"aisle"};
    options_free(&options);
    assert_int_equal(options_parse(&bare, 1, argv, &settings, &options, &err), STATUS_OK);
    assert_int_equal(settings.workers, 2);
}

static void options_parse_file_is_under_the_environment(void **state)
{
    (void)state;
    char dir[] = "/tmp/aisle-test-options-XXXXXX";
    char path[PATH_BYTES_MAX];
    static const char text[] = "workers = 11\nlisten = file:1\nverbose = yes\nalias = f\n";
    assert_non_null(mkdtemp(dir));
    assert_int_equal(path_join(path, dir, "aisle.conf", NULL), STATUS_OK);
    assert_int_equal(file_write_atomic(path, text, strlen(text), NULL), STATUS_OK);
    set_variable("AISLE_CONFIG", path);
    set_variable("AISLE_WORKERS", "12");
    assert_int_equal(PARSE("--verbose=no"), STATUS_OK);
    assert_int_equal(settings.workers, 12);
    assert_string_equal(settings.listen, "file:1");
    assert_false(settings.verbose);
    assert_list("f", NULL);
    assert_string_equal(settings.config, path);
    set_variable("AISLE_CONFIG", "/nonexistent/a");
    assert_int_equal(PARSE("--config", path), STATUS_OK);
    assert_string_equal(settings.listen, "file:1");
    assert_int_equal(PARSE("--config", "/nonexistent/b"), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nonexistent/b"));
    char *large = mem_calloc((1 << 20) + 1, 1);
    assert_non_null(large);
    memset(large, '\n', (1 << 20) + 1);
    assert_int_equal(file_write_atomic(path, large, 1 << 20, NULL), STATUS_OK);
    assert_int_equal(PARSE("--config", path), STATUS_OK);
    assert_int_equal(file_write_atomic(path, large, (1 << 20) + 1, NULL), STATUS_OK);
    assert_int_equal(PARSE("--config", path), STATUS_LIMIT);
    mem_free(large);
    assert_int_equal(dir_remove(dir, NULL), STATUS_OK);
}

static void options_parse_config_reads_every_line_form(void **state)
{
    (void)state;
    assert_int_equal(parse_config("\xef\xbb\xbf# a comment\r\n\n"
                                  "  listen=redis://h/#1  # behind a blank\n"
                                  "\tworkers = 3\r\n"
                                  "admin-token = \"a # \\\"b\\\" \\\\ c\\n\" # comment\n"
                                  "alias = first\nalias = \"\"\n"
                                  "half-life-days = 1e-3"),
                     STATUS_OK);
    assert_string_equal(settings.listen, "redis://h/#1");
    assert_int_equal(settings.workers, 3);
    assert_string_equal(settings.token, "a # \"b\" \\ c\n");
    assert_list("first", "");
    assert_true(settings.half_life_days == 1e-3);
    assert_int_equal(parse_config(""), STATUS_OK);
    assert_int_equal(settings.workers, 2);
    assert_int_equal(parse_config("listen ="), STATUS_OK);
    assert_string_equal(settings.listen, "");
    assert_int_equal(parse_config("listen = # nothing"), STATUS_OK);
    assert_string_equal(settings.listen, "");
}

static void options_parse_config_bad_lines_name_the_line(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"\n\nworkers = 0\n", "aisle.conf:3: workers: 0 is out of range"},
        {"worker = 3", "aisle.conf:1: unknown name \"worker\", did you mean workers?"},
        {"xyzzy = 3", "aisle.conf:1: unknown name \"xyzzy\""},
        {"= 3", "aisle.conf:1: unknown name \"\""},
        {"# c\nworkers 3\n", "aisle.conf:2: not `name = value`"},
        {"workers = 3\nworkers = 3\n", "aisle.conf:2: workers: given twice"},
        {"config = other.conf\n", "aisle.conf:1: config: cannot stand in a file"},
        {"listen = \"open\n", "aisle.conf:1: listen: value with a quote"},
        {"listen = \"a\" b\n", "aisle.conf:1: listen: value with a quote"},
        {"listen = \"\\q\"\n", "aisle.conf:1: listen: value with a quote"},
        {"listen = \"\\", "aisle.conf:1: listen: value with a quote"},
        {"verbose =", "aisle.conf:1: verbose: \"\" is not true or false"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(parse_config(cases[i].text), STATUS_INVALID);
        assert_message(cases[i].message);
    }
    options_free(&options);
    assert_int_equal(
        options_parse_config(&table, &(struct options_text){"aisle.conf", "listen = a\0b\n", 13},
                             &settings, &options, &err),
        STATUS_INVALID);
    assert_message("aisle.conf:1: NUL byte");
}

static void options_parse_without_memory_is_nomem(void **state)
{
    (void)state;
    enum status status = STATUS_NOMEM;
    int64_t n = 0;
    set_variable("AISLE_ALIAS", "a,b,c");
    while (status == STATUS_NOMEM) {
        mem_fail_nth(++n);
        status = PARSE("--listen", "x", "--alias", "p", "--alias", "q", "positional");
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || err.code == STATUS_NOMEM);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 10);
    assert_list("p", "q");
    status = STATUS_NOMEM;
    for (n = 1; status == STATUS_NOMEM; n++) {
        mem_fail_nth(n);
        status = parse_config("listen = x\nalias = p\nalias = q\n");
        mem_fail_nth(0);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 10);
    assert_list("p", "q");
}

static char *printed(void (*print)(FILE *))
{
    static char text[8192];
    FILE *out = fmemopen(text, sizeof text, "w");
    assert_non_null(out);
    print(out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void print_help(FILE *out)
{
    options_print_help(&table, out);
}

static void print_values(FILE *out)
{
    options_print(&table, &settings, out);
}

static void options_print_help_lists_every_row(void **state)
{
    (void)state;
    const char *text = printed(print_help);
    assert_int_equal(strncmp(text, "usage: aisle serve --releases DIR [options]\n", 44), 0);
    assert_non_null(strstr(text, "\nAnswers requests.\n"));
    assert_non_null(strstr(text,
                           "  --workers N          worker threads (1 to 64 threads; default 2; "
                           "AISLE_WORKERS)\n"));
    assert_non_null(strstr(text, "  --half-life-days X   decay of old events (in days; "
                                 "AISLE_HALF_LIFE_DAYS)\n"));
    assert_non_null(strstr(text, "  --verbose            say more (AISLE_VERBOSE)\n"));
    assert_non_null(strstr(text, "(default one,two; repeatable; AISLE_ALIAS)"));
    assert_non_null(strstr(text, "\nexamples:\n  aisle serve --workers 4\n"));
}

static void options_print_reads_back_to_the_same_values(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--listen", "a \"b\" \\ # \n", "--half-life-days", "0.1", "--alias", "p",
                           "--alias", "q, r", "--verbose", "--workers=5"),
                     STATUS_OK);
    const char *text = printed(print_values);
    assert_non_null(strstr(text, "half-life-days = 0.1\n"));
    assert_non_null(strstr(text, "# admin-token =\n"));
    assert_non_null(strstr(text, "# config =\n"));
    assert_int_equal(parse_config(text), STATUS_OK);
    assert_string_equal(settings.listen, "a \"b\" \\ # \n");
    assert_true(settings.half_life_days == 0.1);
    assert_int_equal(settings.workers, 5);
    assert_true(settings.verbose);
    assert_list("p", "q, r");
}

static void options_print_hides_secrets(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--admin-token", "hush"), STATUS_OK);
    assert_string_equal(settings.token, "hush");
    const char *text = printed(print_values);
    assert_non_null(strstr(text, "admin-token = \"***\"\n"));
    assert_null(strstr(text, "hush"));
}

#define CLEAN(test) cmocka_unit_test_setup_teardown(test, clear_variables, clear_variables)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLEAN(options_parse_nothing_gives_defaults),
        CLEAN(options_parse_flags_in_both_forms),
        CLEAN(options_parse_double_dash_ends_flags),
        CLEAN(options_parse_help_checks_nothing_else),
        CLEAN(options_parse_bad_command_lines_are_invalid),
        CLEAN(options_parse_unknown_flag_suggests_the_nearest),
        CLEAN(options_parse_environment_is_under_the_command_line),
        CLEAN(options_parse_without_environment_ignores_variables),
        CLEAN(options_parse_file_is_under_the_environment),
        CLEAN(options_parse_config_reads_every_line_form),
        CLEAN(options_parse_config_bad_lines_name_the_line),
        CLEAN(options_parse_without_memory_is_nomem),
        CLEAN(options_print_help_lists_every_row),
        CLEAN(options_print_reads_back_to_the_same_values),
        CLEAN(options_print_hides_secrets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
