#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/alloc.h"

static void arena_alloc_is_aligned_and_disjoint(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 1000, 1 << 20);
    unsigned char *parts[200];
    for (size_t i = 0; i < 200; i++) {
        parts[i] = arena_alloc(&arena, i * 11);
        assert_non_null(parts[i]);
        assert_int_equal((uintptr_t)parts[i] % 16, 0);
        memset(parts[i], (int)i, i * 11);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t j = 0; j < i * 11; j++)
            assert_int_equal(parts[i][j], i);
    }
    arena_free(&arena);
    assert_int_equal(arena.total_bytes, 0);
}

static void use(struct arena *arena)
{
    static const size_t SIZES[] = {10, 5000, 900, 2000, 300, 3000, 0, 1024, 1025, 7};
    for (size_t i = 0; i < sizeof(SIZES) / sizeof(SIZES[0]); i++)
        assert_non_null(arena_alloc(arena, SIZES[i]));
}

static void arena_reset_warmed_up_allocates_nothing(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 1024, 1 << 20);
    use(&arena);
    uint64_t before = mem_count();
    size_t held = arena.total_bytes;
    for (int i = 0; i < 5; i++) {
        arena_reset(&arena);
        use(&arena);
    }
    assert_int_equal(mem_count(), before);
    assert_int_equal(arena.total_bytes, held);
    arena_free(&arena);
}

static void arena_alloc_at_the_ceiling_works_and_past_it_is_null(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 64, 256);
    assert_null(arena_alloc(&arena, 257));
    assert_non_null(arena_alloc(&arena, 256));
    assert_null(arena_alloc(&arena, 1));
    assert_int_equal(arena.total_bytes, 256);
    arena_reset(&arena);
    for (int i = 0; i < 4; i++)
        assert_non_null(arena_alloc(&arena, 64));
    assert_null(arena_alloc(&arena, 1));
    assert_true(arena.total_bytes <= 256);
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_alloc_array(&arena, SIZE_MAX / 2, 3));
    assert_null(arena_calloc(&arena, SIZE_MAX / 2, 3));
    assert_null(arena_strndup(&arena, "", SIZE_MAX));
    arena_free(&arena);
}

static void arena_alloc_growing_large_requests_give_old_blocks_back(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 64, 4096);
    for (size_t n = 128; n <= 4096 - 64; n += 64) {
        assert_non_null(arena_alloc(&arena, 16));
        unsigned char *block = arena_alloc(&arena, n);
        assert_non_null(block);
        memset(block, 1, n);
        assert_true(arena.total_bytes <= 4096);
        arena_reset(&arena);
    }
    arena_free(&arena);
}

static void arena_calloc_after_reset_is_zeroed(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 256, 1024);
    memset(arena_alloc(&arena, 256), 0xff, 256);
    arena_reset(&arena);
    unsigned char *block = arena_calloc(&arena, 64, 4);
    assert_non_null(block);
    for (size_t i = 0; i < 256; i++)
        assert_int_equal(block[i], 0);
    arena_free(&arena);
}

static void arena_strndup_copies_and_terminates(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 256, 1024);
    assert_string_equal(arena_strndup(&arena, "abcdef", 3), "abc");
    assert_string_equal(arena_strndup(&arena, NULL, 0), "");
    arena_free(&arena);
}

static void arena_alloc_out_of_memory_is_null_and_recovers(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 256, 1024);
    mem_fail_nth(1);
    assert_null(arena_alloc(&arena, 10));
    assert_int_equal(arena.total_bytes, 0);
    assert_non_null(arena_alloc(&arena, 10));
    mem_fail_nth(1);
    assert_null(arena_alloc(&arena, 300));
    assert_int_equal(arena.total_bytes, 256);
    assert_non_null(arena_alloc(&arena, 300));
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_alloc_is_aligned_and_disjoint),
        cmocka_unit_test(arena_reset_warmed_up_allocates_nothing),
        cmocka_unit_test(arena_alloc_at_the_ceiling_works_and_past_it_is_null),
        cmocka_unit_test(arena_alloc_growing_large_requests_give_old_blocks_back),
        cmocka_unit_test(arena_calloc_after_reset_is_zeroed),
        cmocka_unit_test(arena_strndup_copies_and_terminates),
        cmocka_unit_test(arena_alloc_out_of_memory_is_null_and_recovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
