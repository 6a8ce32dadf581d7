#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

static void status_text_every_status_is_named(void **state)
{
    (void)state;
#define CHECK_TEXT(name, value, text) assert_string_equal(status_text(STATUS_##name), text);
    STATUS_MAP(CHECK_TEXT)
#undef CHECK_TEXT
    assert_string_equal(status_text((enum status)1), "unknown status");
    assert_string_equal(status_text((enum status)(-99)), "unknown status");
}

static void error_set_null_error_returns_the_code(void **state)
{
    (void)state;
    assert_int_equal(error_set(NULL, STATUS_IO, "x"), STATUS_IO);
    assert_int_equal(error_set_field(NULL, STATUS_LIMIT, "k", "x"), STATUS_LIMIT);
    errno = ENOENT;
    assert_int_equal(error_set_errno(NULL, "x"), STATUS_NOT_FOUND);
    error_prefix(NULL, "x");
}

static void error_set_clears_the_field(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(error_set_field(&err, STATUS_INVALID, "limit", "must be %d", 7),
                     STATUS_INVALID);
    assert_string_equal(err.field, "limit");
    assert_string_equal(err.message, "must be 7");
    assert_int_equal(error_set(&err, STATUS_FORMAT, "bad"), STATUS_FORMAT);
    assert_int_equal(err.code, STATUS_FORMAT);
    assert_string_equal(err.field, "");
    assert_string_equal(err.message, "bad");
}

static void error_set_own_message_as_argument_is_kept(void **state)
{
    (void)state;
    struct error err;
    (void)error_set(&err, STATUS_IO, "inner");
    (void)error_set(&err, STATUS_IO, "outer: %s", err.message);
    assert_string_equal(err.message, "outer: inner");
}

static void error_set_long_texts_are_cut(void **state)
{
    (void)state;
    char text[2 * ERROR_MESSAGE_BYTES];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    struct error err;
    (void)error_set_field(&err, STATUS_IO, text, "%s", text);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES - 1);
    assert_int_equal(strlen(err.field), ERROR_FIELD_BYTES - 1);
    error_prefix(&err, "%s", text);
    assert_int_equal(strlen(err.message), ERROR_MESSAGE_BYTES - 1);
}

static void error_set_errno_maps_numbers(void **state)
{
    (void)state;
    static const struct {
        int number;
        enum status code;
    } CASES[] = {
        {ENOENT, STATUS_NOT_FOUND}, {EACCES, STATUS_PERMISSION}, {EPERM, STATUS_PERMISSION},
        {EROFS, STATUS_PERMISSION}, {ENOMEM, STATUS_NOMEM},      {EEXIST, STATUS_EXISTS},
        {EIO, STATUS_IO},           {ENOSPC, STATUS_IO},
    };
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct error err;
        errno = CASES[i].number;
        assert_int_equal(error_set_errno(&err, "open %s", "f"), CASES[i].code);
        assert_int_equal(err.code, CASES[i].code);
        assert_memory_equal(err.message, "open f: ", 8);
        assert_true(strlen(err.message) > 8);
    }
}

static void error_prefix_puts_context_first(void **state)
{
    (void)state;
    struct error err;
    (void)error_set_field(&err, STATUS_FORMAT, "f", "bad line");
    error_prefix(&err, "reading %s: ", "x");
    assert_string_equal(err.message, "reading x: bad line");
    assert_int_equal(err.code, STATUS_FORMAT);
    assert_string_equal(err.field, "f");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_text_every_status_is_named),
        cmocka_unit_test(error_set_null_error_returns_the_code),
        cmocka_unit_test(error_set_clears_the_field),
        cmocka_unit_test(error_set_own_message_as_argument_is_kept),
        cmocka_unit_test(error_set_long_texts_are_cut),
        cmocka_unit_test(error_set_errno_maps_numbers),
        cmocka_unit_test(error_prefix_puts_context_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
