#ifndef AISLE_BASE_BUF_H
#define AISLE_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

#include "base/status.h"

/* Growable byte buffer with a ceiling. Appends after a failure do nothing: the failure sticks in
 * `status`, so a writer checks once at its end. data is NUL-terminated while status is OK and
 * something was appended or buf_text() is used. Not thread-safe. */
struct buf {
    char *data;
    size_t len;
    size_t cap;
    size_t max_bytes;
    enum status status; /* OK, NOMEM or LIMIT */
};

void buf_init(struct buf *buf, size_t max_bytes);
void buf_free(struct buf *buf);
/* Empties it and clears the status; keeps the memory. */
void buf_reset(struct buf *buf);
void buf_append(struct buf *buf, const void *bytes, size_t n);
void buf_append_text(struct buf *buf, const char *text);
void buf_append_char(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Makes room for n more bytes and returns where they go (then add to len); NULL on failure. */
char *buf_reserve(struct buf *buf, size_t n);
/* NUL-terminated content, "" when empty or failed. */
const char *buf_text(struct buf *buf);

#endif
