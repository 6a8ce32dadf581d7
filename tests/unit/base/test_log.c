#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 16384 };
static char text[TEXT_BYTES];
static int pipe_ends[2];

static int set_up(void **state)
{
    (void)state;
    return pipe(pipe_ends);
}

static int tear_down(void **state)
{
    (void)state;
    log_init(LOG_LEVEL_INFO, LOG_FORMAT_TEXT, STDERR_FILENO);
    (void)close(pipe_ends[0]);
    return close(pipe_ends[1]);
}

/* What was written since the last call; "" if nothing. */
static const char *written(void)
{
    assert_int_equal(fcntl(pipe_ends[0], F_SETFL, O_NONBLOCK), 0);
    ssize_t n = read(pipe_ends[0], text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void log_write_text_quotes_what_is_not_plain(void **state)
{
    (void)state;
    log_init(LOG_LEVEL_INFO, LOG_FORMAT_TEXT, pipe_ends[1]);
    errno = EDOM;
    LOG_INFO("listening", LOG_S("addr", "127.0.0.1:80"), LOG_I("n", -2), LOG_F("x", 0.5),
             LOG_S("forged", "a\nlevel=error \"q\""), LOG_S("empty", ""), LOG_S("eq", "a=b"),
             LOG_S("none", NULL));
    assert_int_equal(errno, EDOM);
    const char *line = written();
    assert_memory_equal(line, "ts=2", 4);
    assert_int_equal(line[26], 'Z');
    assert_string_equal(line + 27,
                        " level=info msg=\"listening\" addr=127.0.0.1:80 n=-2 x=0.5 "
                        "forged=\"a\\nlevel=error \\\"q\\\"\" empty=\"\" eq=\"a=b\" none=null\n");
}

static void log_write_json_is_one_object(void **state)
{
    (void)state;
    log_init(LOG_LEVEL_DEBUG, LOG_FORMAT_JSON, pipe_ends[1]);
    LOG_DEBUG("a \"b\"", LOG_S("k", "v\n"), LOG_I("n", 7));
    const char *line = written();
    assert_memory_equal(line, "{\"ts\":\"2", 8);
    assert_string_equal(strstr(line, ",\"level\""),
                        ",\"level\":\"debug\",\"msg\":\"a \\\"b\\\"\",\"k\":\"v\\n\",\"n\":7}\n");
}

static int count_call(int *n_calls)
{
    return ++*n_calls;
}

static void log_at_below_the_level_evaluates_nothing(void **state)
{
    (void)state;
    int n_calls = 0;
    log_init(LOG_LEVEL_WARN, LOG_FORMAT_TEXT, pipe_ends[1]);
    LOG_INFO("quiet", LOG_I("n", count_call(&n_calls)));
    assert_int_equal(n_calls, 0);
    assert_string_equal(written(), "");
    LOG_WARN("loud", LOG_I("n", count_call(&n_calls)));
    assert_int_equal(n_calls, 1);
    assert_non_null(strstr(written(), "level=warn msg=\"loud\" n=1\n"));
    log_init(LOG_LEVEL_OFF, LOG_FORMAT_TEXT, pipe_ends[1]);
    LOG_ERROR("off", LOG_I("n", count_call(&n_calls)));
    assert_false(log_enabled(LOG_LEVEL_OFF));
    assert_int_equal(n_calls, 1);
    assert_string_equal(written(), "");
}

static void check_long_line(enum log_format format, const char *end)
{
    char many[5000];
    memset(many, 1, sizeof(many) - 1);
    many[sizeof(many) - 1] = '\0';
    struct log_field fields[100];
    for (size_t i = 0; i < 100; i++)
        fields[i] = LOG_S("key", i % 2 == 0 ? many : "short");
    log_init(LOG_LEVEL_INFO, format, pipe_ends[1]);
    log_write(LOG_LEVEL_INFO, many, fields, 100);
    const char *line = written();
    size_t len = strlen(line);
    assert_true(len <= 4096);
    assert_ptr_equal(strchr(line, '\n'), line + len - 1);
    assert_true(len > strlen(end));
    assert_string_equal(line + len - strlen(end), end);
}

static void log_write_too_long_line_is_cut_at_a_field(void **state)
{
    (void)state;
    check_long_line(LOG_FORMAT_TEXT, "\" truncated=true\n");
    check_long_line(LOG_FORMAT_JSON, "\",\"truncated\":true}\n");
}

static void log_write_long_value_is_cut_between_characters(void **state)
{
    (void)state;
    char value[1200];
    for (size_t i = 0; i < sizeof(value) - 1; i++)
        value[i] = i % 2 == 1 ? '\xc3' : '\xa4';
    value[0] = 'x';
    value[sizeof(value) - 1] = '\0';
    log_init(LOG_LEVEL_INFO, LOG_FORMAT_TEXT, pipe_ends[1]);
    LOG_INFO("m", LOG_S("k", value));
    const char *at = strstr(written(), "k=\"x");
    assert_non_null(at);
    assert_int_equal(strlen(at), 3 + 511 + 2);
    assert_null(strstr(at, "\xef\xbf\xbd"));
}

static void log_level_parse_unknown_word_changes_nothing(void **state)
{
    (void)state;
    enum log_level level = LOG_LEVEL_ERROR;
    assert_false(log_level_parse("Info", &level));
    assert_false(log_level_parse("", &level));
    assert_int_equal(level, LOG_LEVEL_ERROR);
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_true(log_level_parse("off", &level));
    assert_int_equal(level, LOG_LEVEL_OFF);
    enum log_format format = LOG_FORMAT_JSON;
    assert_false(log_format_parse("xml", &format));
    assert_int_equal(format, LOG_FORMAT_JSON);
    assert_true(log_format_parse("text", &format));
    assert_int_equal(format, LOG_FORMAT_TEXT);
}

/* Sends the standard error output to descriptor; gives what restore_stderr needs. */
static int swap_stderr(int descriptor)
{
    int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0);
    assert_true(dup2(descriptor, STDERR_FILENO) >= 0);
    return saved;
}

static void restore_stderr(int saved)
{
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    assert_int_equal(close(saved), 0);
}

static void progress_show_plain_output_waits_five_seconds(void **state)
{
    (void)state;
    struct progress progress = {0};
    int saved = swap_stderr(pipe_ends[1]);
    progress_show(&progress, "train", 0, 100, NULL);
    progress_show(&progress, "train", 10, 100, NULL);
    progress.start_us -= 10000000;
    progress.last_us -= 1000000;
    progress_show(&progress, "train", 20, 100, NULL);
    restore_stderr(saved);
    assert_string_equal(written(), "");
    saved = swap_stderr(pipe_ends[1]);
    progress.last_us -= 5000000;
    progress_show(&progress, "train", 50, 100, "loss=0.31");
    progress_show(&progress, "train", 51, 100, "loss=0.31");
    restore_stderr(saved);
    const char *line = written();
    assert_memory_equal(line, "train: 50/100 (50.0%) ", 22);
    assert_non_null(strstr(line, "/s eta=10s loss=0.31\n"));
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

static void progress_end_always_writes_a_line(void **state)
{
    (void)state;
    struct progress progress = {0};
    int saved = swap_stderr(pipe_ends[1]);
    progress_end(&progress, "import", 7, NULL);
    restore_stderr(saved);
    assert_string_equal(written(), "import: 7 0/s in 0.0s\n");
}

static void progress_show_terminal_rewrites_one_line(void **state)
{
    (void)state;
    int primary = posix_openpt(O_RDWR | O_NOCTTY);
    char name[64];
    if (primary < 0 || grantpt(primary) != 0 || unlockpt(primary) != 0 ||
        ptsname_r(primary, name, sizeof(name)) != 0)
        skip();
    int secondary = open(name, O_RDWR | O_NOCTTY);
    assert_true(secondary >= 0);
    struct progress progress = {0};
    int saved = swap_stderr(secondary);
    progress_show(&progress, "w", 0, 0, NULL);
    progress.last_us -= 100000;
    progress_show(&progress, "w", 5, 0, NULL);
    progress_end(&progress, "w", 6, NULL);
    restore_stderr(saved);
    ssize_t n = read(primary, text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_memory_equal(text, "\r\033[Kw: 5 ", 9);
    assert_non_null(strstr(text, "s\r\033[Kw: 6 "));
    assert_int_equal(text[n - 1], '\n');
    assert_int_equal(close(secondary), 0);
    assert_int_equal(close(primary), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(log_write_text_quotes_what_is_not_plain, set_up, tear_down),
        cmocka_unit_test_setup_teardown(log_write_json_is_one_object, set_up, tear_down),
        cmocka_unit_test_setup_teardown(log_at_below_the_level_evaluates_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(log_write_too_long_line_is_cut_at_a_field, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(log_write_long_value_is_cut_between_characters, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(log_level_parse_unknown_word_changes_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(progress_show_plain_output_waits_five_seconds, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(progress_end_always_writes_a_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(progress_show_terminal_rewrites_one_line, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
