#ifndef AISLE_API_PAGING_H
#define AISLE_API_PAGING_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Which rows the pages of an answer have shown so far, by the last page's request_id: the next page
 * (`after`) leaves them out. One table a process, shared by the workers (a visitor's next page may
 * reach another one); a mutex held for some copying. Bounded: the newest PAGING_ENTRIES answers and
 * PAGING_ROWS rows are known, for PAGING_LIFE_US. */
enum {
    PAGING_ENTRIES = 1 << 16,
    PAGING_ROWS = 1 << 22,       /* 16 MiB; 64 rows an entry if all are there */
    PAGING_CHAIN_ROWS_MAX = 900, /* of all pages together; REQUEST_EXCLUDE_MAX is 1000 */
};
#define PAGING_LIFE_US INT64_C(600000000)

struct paging;
enum status paging_open(struct paging **out, struct error *err) STATUS_CHECKED;
void paging_close(struct paging *paging);

/* Remembers that after request_id the rows shown[n_shown] and then page[n_page] have been seen.
 * release is a hash of its version: rows mean nothing in another. More than PAGING_CHAIN_ROWS_MAX
 * rows: the chain is remembered as ended. Thread-safe. */
struct paging_page {
    const char *request_id;
    uint64_t release;
    const uint32_t *shown;
    size_t n_shown;
    const uint32_t *page;
    size_t n_page;
};
void paging_put(struct paging *paging, const struct paging_page *page, int64_t now_us);

/* Rows seen after request_id → rows[PAGING_CHAIN_ROWS_MAX]. NOT_FOUND: unknown, expired or of
 * another release; LIMIT: the chain has ended. Thread-safe. */
enum status paging_get(struct paging *paging, const char *request_id, uint64_t release,
                       int64_t now_us, uint32_t *rows, size_t *n_rows) STATUS_CHECKED;

#endif
