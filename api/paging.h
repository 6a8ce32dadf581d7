#ifndef AISLE_API_PAGING_H
#define AISLE_API_PAGING_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Which rows the pages of an answer have shown so far, by the last page's request_id: the next page
 * (`after`) leaves them out. One table a process, shared by the workers (a visitor's next page may
 * reach another one); a mutex held for some copying. Each page
 * holds its own rows and knows the page before. Bounded: the newest PAGING_ENTRIES answers and
 * PAGING_ROWS rows are known, for PAGING_LIFE_US. */
enum {
    PAGING_ENTRIES = 1 << 16,
    PAGING_ROWS = 1 << 22,         /* 16 MiB; 64 rows an entry if all are there */
    PAGING_CHAIN_ROWS_MAX = 10000, /* of all pages together; REQUEST_EXCLUDE_ROWS_MAX is 20000 */
};
#define PAGING_LIFE_US INT64_C(600000000)

struct paging;
enum status paging_open(struct paging **out, struct error *err) STATUS_CHECKED;
void paging_close(struct paging *paging);

/* Remembers that after request_id the rows page[n_page] have been seen, besides those of the page
 * `after`; if that one is not known any more, this one is not remembered.
 * release is a hash of its version: rows mean nothing in another. More than PAGING_CHAIN_ROWS_MAX
 * rows: the chain is remembered as ended. Thread-safe. */
struct paging_page {
    const char *request_id;
    uint64_t release;
    const char *after; /* request_id of the page before, or NULL */
    const uint32_t *page;
    size_t n_page;
};
void paging_put(struct paging *paging, const struct paging_page *page, int64_t now_us);

/* Rows seen after request_id, the newest page's first → rows[PAGING_CHAIN_ROWS_MAX]. NOT_FOUND:
 * unknown, expired or of another release; LIMIT: the chain has ended. Thread-safe. */
enum status paging_get(struct paging *paging, const char *request_id, uint64_t release,
                       int64_t now_us, uint32_t *rows, size_t *n_rows) STATUS_CHECKED;

#endif
