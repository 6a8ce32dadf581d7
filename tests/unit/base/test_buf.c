#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/alloc.h"

static void buf_text_empty_is_an_empty_string(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 10);
    assert_string_equal(buf_text(&buf), "");
    buf_append(&buf, NULL, 0);
    assert_string_equal(buf_text(&buf), "");
    assert_int_equal(buf.status, STATUS_OK);
    buf_free(&buf);
    buf_free(&buf);
}

static void buf_append_grows_and_terminates(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 100000);
    for (int i = 0; i < 5000; i++) {
        buf_append_char(&buf, 'a');
        buf_append_text(&buf, "bc");
        buf_printf(&buf, "%d", i % 10);
    }
    assert_int_equal(buf.status, STATUS_OK);
    assert_int_equal(buf.len, 20000);
    assert_int_equal(strlen(buf.data), 20000);
    assert_memory_equal(buf.data + 20000 - 8, "abc8abc9", 8);
    buf_free(&buf);
}

static void buf_append_doubling_allocates_few_times(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, SIZE_MAX);
    uint64_t before = mem_count();
    for (int i = 0; i < 1 << 20; i++)
        buf_append_char(&buf, 'x');
    assert_int_equal(buf.status, STATUS_OK);
    assert_true(mem_count() - before <= 14);
    buf_append(&buf, "", SIZE_MAX - 5);
    assert_int_equal(buf.status, STATUS_LIMIT);
    assert_int_equal(buf.len, 1 << 20);
    buf_free(&buf);
}

static void buf_append_past_the_ceiling_sticks(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 5);
    buf_append_text(&buf, "12345");
    assert_int_equal(buf.status, STATUS_OK);
    assert_string_equal(buf_text(&buf), "12345");
    buf_append_char(&buf, '6');
    assert_int_equal(buf.status, STATUS_LIMIT);
    assert_int_equal(buf.len, 5);
    buf_append(&buf, "", 0);
    assert_int_equal(buf.status, STATUS_LIMIT);
    assert_null(buf_reserve(&buf, 0));
    assert_string_equal(buf_text(&buf), "");
    buf_reset(&buf);
    uint64_t before = mem_count();
    buf_append_text(&buf, "1234");
    buf_printf(&buf, "%d", 56);
    assert_int_equal(buf.status, STATUS_LIMIT);
    assert_int_equal(buf.len, 4);
    assert_int_equal(mem_count(), before);
    buf_free(&buf);
}

static void buf_printf_longer_than_the_room_is_whole(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 10000);
    buf_printf(&buf, "%0500d|", 7);
    buf_printf(&buf, "%s", "end");
    assert_int_equal(buf.len, 504);
    assert_string_equal(buf_text(&buf) + 498, "07|end");
    buf_free(&buf);
}

static void buf_reserve_written_bytes_are_kept(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 1000);
    char *at = buf_reserve(&buf, 1000);
    assert_non_null(at);
    memset(at, 'z', 1000);
    buf.len += 1000;
    assert_int_equal(strlen(buf_text(&buf)), 1000);
    assert_null(buf_reserve(&buf, 1));
    assert_int_equal(buf.status, STATUS_LIMIT);
    buf_free(&buf);
}

static void buf_append_out_of_memory_keeps_the_content(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 100000);
    buf_append_text(&buf, "kept");
    char many[1000];
    memset(many, 'm', sizeof(many));
    mem_fail_nth(1);
    buf_append(&buf, many, sizeof(many));
    assert_int_equal(buf.status, STATUS_NOMEM);
    assert_int_equal(buf.len, 4);
    assert_memory_equal(buf.data, "kept", 5);
    buf_append_char(&buf, 'x');
    assert_int_equal(buf.len, 4);
    buf_reset(&buf);
    buf_append(&buf, many, sizeof(many));
    assert_int_equal(buf.status, STATUS_OK);
    buf_free(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_text_empty_is_an_empty_string),
        cmocka_unit_test(buf_append_grows_and_terminates),
        cmocka_unit_test(buf_append_doubling_allocates_few_times),
        cmocka_unit_test(buf_append_past_the_ceiling_sticks),
        cmocka_unit_test(buf_printf_longer_than_the_room_is_whole),
        cmocka_unit_test(buf_reserve_written_bytes_are_kept),
        cmocka_unit_test(buf_append_out_of_memory_keeps_the_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
