#include "base/alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static void mem_alloc_zero_bytes_gives_a_unique_pointer(void **state)
{
    (void)state;
    void *blocks[] = {mem_alloc(0), mem_alloc(0), mem_calloc(0, 8), mem_alloc_array(8, 0),
                      mem_alloc_vectors(0, 4)};
    size_t n = sizeof(blocks) / sizeof(blocks[0]);
    for (size_t i = 0; i < n; i++) {
        assert_non_null(blocks[i]);
        for (size_t j = 0; j < i; j++)
            assert_ptr_not_equal(blocks[i], blocks[j]);
    }
    for (size_t i = 0; i < n; i++)
        mem_free(blocks[i]);
    mem_free(NULL);
}

static void mem_alloc_array_overflow_is_null(void **state)
{
    (void)state;
    volatile size_t huge = SIZE_MAX / 2;
    assert_null(mem_alloc_array(huge, 3));
    assert_null(mem_calloc(huge, 3));
    assert_null(mem_alloc_vectors(huge, 3));
    assert_null(mem_alloc(huge + 1));
    char *block = mem_strdup("kept");
    assert_non_null(block);
    assert_null(mem_realloc_array(block, huge, 3));
    assert_string_equal(block, "kept");
    mem_free(block);
}

static void mem_calloc_is_zeroed(void **state)
{
    (void)state;
    unsigned char *block = mem_calloc(100, 3);
    assert_non_null(block);
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(block[i], 0);
    mem_free(block);
}

static void mem_alloc_vectors_odd_sizes_are_aligned(void **state)
{
    (void)state;
    for (size_t n = 0; n < 200; n++) {
        float *block = mem_alloc_vectors(n, sizeof(float));
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        memset(block, 1, n * sizeof(float));
        mem_free(block);
    }
}

static void mem_strndup_copies_and_terminates(void **state)
{
    (void)state;
    char *copy = mem_strndup("abcdef", 3);
    assert_string_equal(copy, "abc");
    mem_free(copy);
    copy = mem_strndup(NULL, 0);
    assert_string_equal(copy, "");
    mem_free(copy);
}

static void mem_fail_nth_fails_that_one_only(void **state)
{
    (void)state;
    mem_fail_nth(3);
    void *blocks[4];
    for (size_t i = 0; i < 4; i++)
        blocks[i] = mem_alloc(8);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(blocks[i] == NULL, i == 2);
    for (size_t i = 0; i < 4; i++)
        mem_free(blocks[i]);
    char *text = mem_strdup("old");
    mem_fail_nth(1);
    assert_null(mem_realloc_array(text, 100, 1));
    assert_string_equal(text, "old");
    mem_fail_nth(1);
    mem_fail_nth(0);
    char *other = mem_strdup("x");
    assert_non_null(other);
    mem_free(other);
    mem_free(text);
}

static void mem_count_counts_requests(void **state)
{
    (void)state;
    uint64_t before = mem_count();
    mem_free(mem_alloc(1));
    mem_free(mem_calloc(1, 1));
    mem_free(mem_alloc_vectors(1, 1));
    mem_free(mem_strdup("a"));
    mem_free(mem_realloc_array(NULL, 1, 1));
    assert_int_equal(mem_count() - before, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mem_alloc_zero_bytes_gives_a_unique_pointer),
        cmocka_unit_test(mem_alloc_array_overflow_is_null),
        cmocka_unit_test(mem_calloc_is_zeroed),
        cmocka_unit_test(mem_alloc_vectors_odd_sizes_are_aligned),
        cmocka_unit_test(mem_strndup_copies_and_terminates),
        cmocka_unit_test(mem_fail_nth_fails_that_one_only),
        cmocka_unit_test(mem_count_counts_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
