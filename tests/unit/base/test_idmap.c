#include "base/idmap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

enum { N_MANY = 20000 };

static size_t make_id(char out[32], unsigned i)
{
    return (size_t)snprintf(out, 32, "item-%u", i * 7919U);
}

static void idmap_add_many_numbers_in_order(void **state)
{
    (void)state;
    struct idmap *map = NULL;
    char id[32];
    assert_int_equal(idmap_open(10, &map, NULL), STATUS_OK);
    for (unsigned i = 0; i < N_MANY; i++) {
        uint32_t row = IDMAP_NONE;
        size_t len = make_id(id, i);
        assert_int_equal(idmap_add(map, id, len, &row), STATUS_OK);
        assert_int_equal(row, i);
    }
    assert_int_equal(idmap_size(map), N_MANY);
    for (unsigned i = 0; i < N_MANY; i++) {
        size_t len = make_id(id, i);
        size_t held_len = 0;
        assert_int_equal(idmap_find(map, id, len), i);
        assert_string_equal(idmap_id(map, i, &held_len), id);
        assert_int_equal(held_len, len);
    }
    idmap_close(map);
}

static void idmap_add_known_id_is_exists(void **state)
{
    (void)state;
    struct idmap *map = NULL;
    uint32_t row = IDMAP_NONE;
    assert_int_equal(idmap_open(0, &map, NULL), STATUS_OK);
    assert_int_equal(idmap_add(map, "a", 1, &row), STATUS_OK);
    assert_int_equal(idmap_add(map, "b", 1, &row), STATUS_OK);
    assert_int_equal(idmap_add(map, "a", 1, &row), STATUS_EXISTS);
    assert_int_equal(row, 0);
    assert_int_equal(idmap_size(map), 2);
    idmap_close(map);
}

static void idmap_find_unknown_or_prefix_is_none(void **state)
{
    (void)state;
    struct idmap *map = NULL;
    uint32_t row = IDMAP_NONE;
    assert_int_equal(idmap_open(0, &map, NULL), STATUS_OK);
    assert_int_equal(idmap_find(map, "abc", 3), IDMAP_NONE);
    assert_int_equal(idmap_add(map, "abc", 3, &row), STATUS_OK);
    assert_int_equal(idmap_find(map, "ab", 2), IDMAP_NONE);
    assert_int_equal(idmap_find(map, "abcd", 4), IDMAP_NONE);
    assert_int_equal(idmap_find(map, "abc", 3), 0);
    idmap_close(map);
}

static void idmap_open_too_many_is_limit(void **state)
{
    (void)state;
    struct idmap *map = (struct idmap *)&map;
    struct error err = {0};
    assert_int_equal(idmap_open(IDMAP_NONE, &map, &err), STATUS_LIMIT);
    assert_null(map);
    assert_int_equal(err.code, STATUS_LIMIT);
}

static void idmap_bytes_per_id_stays_in_budget(void **state)
{
    (void)state;
    struct idmap *map = NULL;
    char id[32];
    size_t id_bytes = 0;
    assert_int_equal(idmap_open(N_MANY, &map, NULL), STATUS_OK);
    for (unsigned i = 0; i < N_MANY; i++) {
        uint32_t row = 0;
        size_t len = make_id(id, i);
        assert_int_equal(idmap_add(map, id, len, &row), STATUS_OK);
        id_bytes += len;
    }
    /* 4 to 10.7 of slots, 4 of offset, the NUL, and a blob grown by halves. */
    assert_true(idmap_bytes(map) < id_bytes + id_bytes / 2 + N_MANY * (size_t)17 + 4096);
    idmap_close(map);
}

static void idmap_open_without_memory_is_nomem(void **state)
{
    (void)state;
    struct idmap *map = NULL;
    enum status status = STATUS_NOMEM;
    int64_t n = 0;
    while (status == STATUS_NOMEM) {
        mem_fail_nth(++n);
        status = idmap_open(100, &map, NULL);
        mem_fail_nth(0);
        assert_true(status == STATUS_OK || map == NULL);
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(n > 4);
    idmap_close(map);
}

static void idmap_add_without_memory_changes_nothing(void **state)
{
    (void)state;
    struct idmap *map = NULL;
    char id[32];
    unsigned n_refused = 0;
    assert_int_equal(idmap_open(0, &map, NULL), STATUS_OK);
    for (unsigned i = 0; i < 2000; i++) {
        size_t len = make_id(id, i);
        uint32_t row = IDMAP_NONE;
        mem_fail_nth(1);
        enum status status = idmap_add(map, id, len, &row);
        mem_fail_nth(0);
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_NOMEM);
            assert_int_equal(idmap_size(map), i);
            assert_int_equal(idmap_find(map, id, len), IDMAP_NONE);
            assert_int_equal(idmap_add(map, id, len, &row), STATUS_OK);
            n_refused++;
        }
        assert_int_equal(row, i);
    }
    assert_true(n_refused > 10);
    for (unsigned i = 0; i < 2000; i++) {
        size_t len = make_id(id, i);
        assert_int_equal(idmap_find(map, id, len), i);
    }
    idmap_close(map);
    idmap_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idmap_add_many_numbers_in_order),
        cmocka_unit_test(idmap_add_known_id_is_exists),
        cmocka_unit_test(idmap_find_unknown_or_prefix_is_none),
        cmocka_unit_test(idmap_open_too_many_is_limit),
        cmocka_unit_test(idmap_bytes_per_id_stays_in_budget),
        cmocka_unit_test(idmap_open_without_memory_is_nomem),
        cmocka_unit_test(idmap_add_without_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
