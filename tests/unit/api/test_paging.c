#include "api/paging.h"

#include <stdio.h>
#include <string.h>

#include "api_test.h"
#include "base/alloc.h"

static uint32_t rows[PAGING_CHAIN_ROWS_MAX];

static void put(struct paging *paging, const char *id, const uint32_t *page, size_t n, int64_t now)
{
    paging_put(paging,
               &(struct paging_page){.request_id = id, .release = 7, .page = page, .n_page = n},
               now);
}

static void paging_get_gives_what_the_chain_has_shown(void **state)
{
    struct paging *paging = NULL;
    const uint32_t first[] = {3, 1};
    const uint32_t second[] = {9};
    size_t n = 0;
    (void)state;
    assert_int_equal(paging_open(&paging, NULL), STATUS_OK);
    put(paging, "P1", first, 2, 0);
    paging_put(paging, &(struct paging_page){"P2", 7, "P1", second, 1}, 0);
    assert_int_equal(paging_get(paging, "P2", 7, PAGING_LIFE_US, rows, &n), STATUS_OK);
    assert_int_equal(n, 3);
    assert_int_equal(rows[0], 9);
    assert_int_equal(rows[1], 3);
    assert_int_equal(rows[2], 1);
    assert_int_equal(paging_get(paging, "P1", 7, 0, rows, &n), STATUS_OK);
    assert_int_equal(n, 2);
    paging_close(paging);
}

static void paging_get_unknown_expired_or_other_release_is_not_found(void **state)
{
    struct paging *paging = NULL;
    const uint32_t page[] = {1};
    size_t n = 5;
    (void)state;
    assert_int_equal(paging_open(&paging, NULL), STATUS_OK);
    put(paging, "P", page, 1, 0);
    assert_int_equal(paging_get(paging, "Q", 7, 0, rows, &n), STATUS_NOT_FOUND);
    assert_int_equal(n, 0);
    assert_int_equal(paging_get(paging, "P", 8, 0, rows, &n), STATUS_NOT_FOUND);
    assert_int_equal(paging_get(paging, "P", 7, PAGING_LIFE_US + 1, rows, &n), STATUS_NOT_FOUND);
    assert_int_equal(paging_get(paging, "P", 7, PAGING_LIFE_US, rows, &n), STATUS_OK);
    paging_close(paging);
}

static void paging_get_chain_at_its_limit_is_ok_and_past_it_has_ended(void **state)
{
    struct paging *paging = NULL;
    uint32_t page[PAGING_CHAIN_ROWS_MAX + 1] = {0};
    size_t n = 0;
    (void)state;
    assert_int_equal(paging_open(&paging, NULL), STATUS_OK);
    put(paging, "A", page, PAGING_CHAIN_ROWS_MAX, 0);
    put(paging, "B", page, PAGING_CHAIN_ROWS_MAX + 1, 0);
    assert_int_equal(paging_get(paging, "A", 7, 0, rows, &n), STATUS_OK);
    assert_int_equal(n, PAGING_CHAIN_ROWS_MAX);
    assert_int_equal(paging_get(paging, "B", 7, 0, rows, &n), STATUS_LIMIT);
    assert_int_equal(n, 0);
    paging_close(paging);
}

static void paging_put_pages_of_one_chain_add_up_to_the_limit_and_then_end(void **state)
{
    enum { PAGE = 200, PAGES = PAGING_CHAIN_ROWS_MAX / PAGE };
    struct paging *paging = NULL;
    uint32_t page[PAGE] = {0};
    char ids[PAGES + 1][16];
    size_t n = 0;
    (void)state;
    assert_int_equal(paging_open(&paging, NULL), STATUS_OK);
    for (int i = 0; i <= PAGES; i++) {
        (void)snprintf(ids[i], sizeof(ids[i]), "P%d", i);
        page[0] = (uint32_t)i;
        paging_put(paging, &(struct paging_page){ids[i], 7, i > 0 ? ids[i - 1] : NULL, page, PAGE},
                   0);
    }
    assert_int_equal(paging_get(paging, ids[PAGES - 1], 7, 0, rows, &n), STATUS_OK);
    assert_int_equal(n, PAGING_CHAIN_ROWS_MAX);
    assert_int_equal(rows[0], PAGES - 1);
    assert_int_equal(rows[PAGING_CHAIN_ROWS_MAX - PAGE], 0);
    assert_int_equal(paging_get(paging, ids[PAGES], 7, 0, rows, &n), STATUS_LIMIT);
    paging_put(paging, &(struct paging_page){"E", 7, ids[1], NULL, 0}, 0);
    assert_int_equal(paging_get(paging, "E", 7, 0, rows, &n), STATUS_OK);
    assert_int_equal(n, 2 * PAGE);
    paging_put(paging, &(struct paging_page){"X", 7, "unknown", page, PAGE}, 0);
    assert_int_equal(paging_get(paging, "X", 7, 0, rows, &n), STATUS_NOT_FOUND);
    paging_close(paging);
}

static void paging_put_forgets_the_oldest_entries(void **state)
{
    struct paging *paging = NULL;
    const uint32_t page[] = {1};
    size_t n = 0;
    char id[16];
    (void)state;
    assert_int_equal(paging_open(&paging, NULL), STATUS_OK);
    for (int i = 0; i <= PAGING_ENTRIES; i++) {
        (void)snprintf(id, sizeof(id), "P%d", i);
        put(paging, id, page, 1, 0);
    }
    assert_int_equal(paging_get(paging, "P0", 7, 0, rows, &n), STATUS_NOT_FOUND);
    assert_int_equal(paging_get(paging, "P1", 7, 0, rows, &n), STATUS_OK);
    assert_int_equal(paging_get(paging, id, 7, 0, rows, &n), STATUS_OK);
    paging_close(paging);
}

static void paging_put_forgets_entries_whose_rows_are_overwritten(void **state)
{
    struct paging *paging = NULL;
    uint32_t page[512] = {0};
    size_t n = 0;
    char id[16];
    (void)state;
    assert_int_equal(paging_open(&paging, NULL), STATUS_OK);
    for (int i = 0; i <= PAGING_ROWS / 512; i++) {
        page[0] = (uint32_t)i;
        (void)snprintf(id, sizeof(id), "P%d", i);
        put(paging, id, page, 512, 0);
    }
    assert_int_equal(paging_get(paging, "P0", 7, 0, rows, &n), STATUS_NOT_FOUND);
    assert_int_equal(paging_get(paging, "P1", 7, 0, rows, &n), STATUS_OK);
    assert_int_equal(rows[0], 1);
    paging_close(paging);
}

static void paging_open_out_of_memory_is_nomem_until_it_fits(void **state)
{
    int64_t n = 0;
    enum status status = STATUS_NOMEM;
    struct paging *paging = NULL;
    (void)state;
    while (status == STATUS_NOMEM) {
        mem_fail_nth(++n);
        status = paging_open(&paging, NULL);
        mem_fail_nth(0);
        assert_true((status == STATUS_OK) == (paging != NULL));
    }
    assert_int_equal(n, 5);
    paging_close(paging);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paging_get_gives_what_the_chain_has_shown),
        cmocka_unit_test(paging_get_unknown_expired_or_other_release_is_not_found),
        cmocka_unit_test(paging_get_chain_at_its_limit_is_ok_and_past_it_has_ended),
        cmocka_unit_test(paging_put_pages_of_one_chain_add_up_to_the_limit_and_then_end),
        cmocka_unit_test(paging_put_forgets_the_oldest_entries),
        cmocka_unit_test(paging_put_forgets_entries_whose_rows_are_overwritten),
        cmocka_unit_test(paging_open_out_of_memory_is_nomem_until_it_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
