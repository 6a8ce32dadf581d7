/* Two rings: one of entries, one of rows. An entry is found through a table of chains by the hash
 * of its request_id, and is unlinked when the ring comes round to it. Its rows are valid as long as
 * the ring of rows has not come round to them, which positions that only grow tell. So nothing is
 * allocated or freed after opening, and memory that is never used is never touched.
 *
 * Rejected: a token that carries the rows itself (a thousand rows are 4 kB in every URL, and a
 * client could forge it), all rows so far in each entry (a chain of pages would fill the ring with
 * its square), and paging by rank (what is shown changes between two pages). */
#include "api/paging.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/ulid.h"

enum { NO_ENTRY = -1 };
#define NO_PARENT UINT64_MAX

struct entry {
    char request_id[ULID_TEXT_BYTES];
    bool used;
    uint32_t n_rows;  /* its own */
    uint32_t n_total; /* with those of the pages before */
    int32_t next;     /* in its chain */
    uint64_t number;  /* among all entries ever */
    uint64_t parent;  /* number of the page before, or NO_PARENT */
    uint64_t release;
    uint64_t rows_at; /* position in the endless sequence of rows */
    int64_t time_us;
};

struct paging {
    pthread_mutex_t mutex;
    struct entry *entries; /* [PAGING_ENTRIES] */
    uint32_t *rows;        /* [PAGING_ROWS] */
    int32_t *heads;        /* [PAGING_ENTRIES], first of each chain */
    uint64_t n_put;        /* entries ever */
    uint64_t rows_end;     /* rows ever */
};

enum status paging_open(struct paging **out, struct error *err)
{
    *out = NULL;
    struct paging *paging = mem_calloc(1, sizeof(*paging));
    if (paging == NULL) {
        return error_set(err, STATUS_NOMEM, "memory of the pages shown");
    }
    paging->entries = mem_calloc(PAGING_ENTRIES, sizeof(*paging->entries));
    paging->rows = mem_calloc(PAGING_ROWS, sizeof(*paging->rows));
    paging->heads = mem_alloc_array(PAGING_ENTRIES, sizeof(*paging->heads));
    if (paging->entries == NULL || paging->rows == NULL || paging->heads == NULL ||
        pthread_mutex_init(&paging->mutex, NULL) != 0) {
        mem_free(paging->heads);
        mem_free(paging->rows);
        mem_free(paging->entries);
        mem_free(paging);
        return error_set(err, STATUS_NOMEM, "memory of the pages shown");
    }
    memset(paging->heads, 0xFF, PAGING_ENTRIES * sizeof(*paging->heads)); /* NO_ENTRY */
    *out = paging;
    return STATUS_OK;
}

void paging_close(struct paging *paging)
{
    if (paging == NULL) {
        return;
    }
    (void)pthread_mutex_destroy(&paging->mutex);
    mem_free(paging->heads);
    mem_free(paging->rows);
    mem_free(paging->entries);
    mem_free(paging);
}

static int32_t *chain_of(struct paging *paging, const char *request_id)
{
    return &paging->heads[hash_bytes(request_id, strlen(request_id), 0) % PAGING_ENTRIES];
}

static void unlink_entry(struct paging *paging, int32_t number)
{
    struct entry *entry = &paging->entries[number];
    int32_t *link = chain_of(paging, entry->request_id);
    while (*link != number) {
        link = &paging->entries[*link].next;
    }
    *link = entry->next;
    entry->used = false;
}

static void push_rows(struct paging *paging, const uint32_t *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        paging->rows[paging->rows_end++ % PAGING_ROWS] = rows[i];
    }
}

static const struct entry *find_entry(struct paging *paging, const char *request_id)
{
    int32_t number = *chain_of(paging, request_id);
    while (number != NO_ENTRY && strcmp(paging->entries[number].request_id, request_id) != 0) {
        number = paging->entries[number].next;
    }
    return number == NO_ENTRY ? NULL : &paging->entries[number];
}

/* Whether its rows are still in their ring. */
static bool has_rows(const struct paging *paging, const struct entry *entry)
{
    return paging->rows_end - entry->rows_at <= PAGING_ROWS;
}

static const struct entry *parent_of(const struct paging *paging, const struct entry *entry)
{
    const struct entry *parent = &paging->entries[entry->parent % PAGING_ENTRIES];
    return parent->used && parent->number == entry->parent ? parent : NULL;
}

/* A page without items shows what its parent shows, so that chains are no longer than their rows.
 */
static void fill_entry(struct paging *paging, struct entry *entry, const struct paging_page *page,
                       const struct entry *parent)
{
    if (page->n_page == 0 && parent != NULL) {
        entry->n_rows = parent->n_rows;
        entry->n_total = parent->n_total;
        entry->rows_at = parent->rows_at;
        entry->parent = parent->parent;
        return;
    }
    entry->rows_at = paging->rows_end;
    entry->n_rows = (uint32_t)page->n_page;
    entry->n_total = (uint32_t)page->n_page + (parent != NULL ? parent->n_total : 0);
    entry->parent = parent != NULL ? parent->number : NO_PARENT;
    if (entry->n_total <= PAGING_CHAIN_ROWS_MAX) {
        push_rows(paging, page->page, page->n_page);
    }
}

static void put_entry(struct paging *paging, const struct paging_page *page,
                      const struct entry *parent, int64_t now_us)
{
    uint64_t number = paging->n_put++;
    int32_t place = (int32_t)(number % PAGING_ENTRIES);
    struct entry *entry = &paging->entries[place];
    struct entry copy;
    if (parent == entry) { /* the ring has come round to it just now */
        copy = *entry;
        parent = &copy;
    }
    if (entry->used) {
        unlink_entry(paging, place);
    }
    size_t len = strnlen(page->request_id, sizeof(entry->request_id) - 1);
    memcpy(entry->request_id, page->request_id, len);
    entry->request_id[len] = '\0';
    entry->used = true;
    entry->number = number;
    entry->release = page->release;
    entry->time_us = now_us;
    fill_entry(paging, entry, page, parent);
    int32_t *head = chain_of(paging, entry->request_id);
    entry->next = *head;
    *head = place;
}

void paging_put(struct paging *paging, const struct paging_page *page, int64_t now_us)
{
    (void)pthread_mutex_lock(&paging->mutex);
    const struct entry *parent = page->after != NULL ? find_entry(paging, page->after) : NULL;
    if (page->after == NULL || parent != NULL) {
        put_entry(paging, page, parent, now_us);
    }
    (void)pthread_mutex_unlock(&paging->mutex);
}

static enum status copy_rows(const struct paging *paging, const struct entry *entry, uint32_t *rows,
                             size_t *n_rows)
{
    size_t n = 0;
    while (entry != NULL && has_rows(paging, entry)) {
        for (size_t i = 0; i < entry->n_rows; i++) {
            rows[n++] = paging->rows[(entry->rows_at + i) % PAGING_ROWS];
        }
        if (entry->parent == NO_PARENT) {
            *n_rows = n;
            return STATUS_OK;
        }
        entry = parent_of(paging, entry);
    }
    return STATUS_NOT_FOUND; /* a page before is gone */
}

enum status paging_get(struct paging *paging, const char *request_id, uint64_t release,
                       int64_t now_us, uint32_t *rows, size_t *n_rows)
{
    enum status status;
    *n_rows = 0;
    (void)pthread_mutex_lock(&paging->mutex);
    const struct entry *entry = find_entry(paging, request_id);
    if (entry == NULL || entry->release != release || now_us - entry->time_us > PAGING_LIFE_US) {
        status = STATUS_NOT_FOUND;
    } else if (entry->n_total > PAGING_CHAIN_ROWS_MAX) {
        status = STATUS_LIMIT;
    } else {
        status = copy_rows(paging, entry, rows, n_rows);
    }
    (void)pthread_mutex_unlock(&paging->mutex);
    return status;
}
