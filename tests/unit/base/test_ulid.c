#include "base/ulid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static void ulid_make_known_time_matches(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 1);
    char text[ULID_TEXT_BYTES];
    ulid_make(1469918176385, &rng, text);
    assert_memory_equal(text, "01ARYZ6S41", 10);
    assert_int_equal(strlen(text), 26);
    assert_int_equal(strspn(text, "0123456789ABCDEFGHJKMNPQRSTVWXYZ"), 26);
    ulid_make((INT64_C(1) << 48) - 1, &rng, text);
    assert_memory_equal(text, "7ZZZZZZZZZ", 10);
    ulid_make(-5, &rng, text);
    assert_memory_equal(text, "0000000000", 10);
}

static void ulid_make_later_time_sorts_later(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 2);
    char before[ULID_TEXT_BYTES];
    ulid_make(1700000000000, &rng, before);
    for (int64_t i = 1; i < 2000; i++) {
        char text[ULID_TEXT_BYTES];
        ulid_make(1700000000000 + i, &rng, text);
        assert_true(strcmp(before, text) < 0);
        memcpy(before, text, sizeof(text));
    }
}

static void ulid_make_same_time_differs(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 3);
    char a[ULID_TEXT_BYTES];
    char b[ULID_TEXT_BYTES];
    ulid_make(1, &rng, a);
    ulid_make(1, &rng, b);
    assert_memory_equal(a, b, 10);
    assert_memory_not_equal(a + 10, b + 10, 8);
    assert_memory_not_equal(a + 18, b + 18, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ulid_make_known_time_matches),
        cmocka_unit_test(ulid_make_later_time_sorts_later),
        cmocka_unit_test(ulid_make_same_time_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
