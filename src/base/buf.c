#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

enum { BUF_FIRST_BYTES = 256 };

void buf_init(struct buf *buf, size_t max_bytes)
{
    *buf = (struct buf){.max_bytes = max_bytes};
}

void buf_free(struct buf *buf)
{
    mem_free(buf->data);
    buf_init(buf, buf->max_bytes);
}

void buf_reset(struct buf *buf)
{
    buf->len = 0;
    buf->status = STATUS_OK;
}

/* Room for n more bytes and the NUL; doubles, so that n appends cost O(n). */
static bool make_room(struct buf *buf, size_t n)
{
    if (buf->status != STATUS_OK)
        return false;
    if (n < buf->cap - buf->len)
        return true;
    if (n > buf->max_bytes - buf->len || buf->len + n == SIZE_MAX) {
        buf->status = STATUS_LIMIT;
        return false;
    }
    size_t need = buf->len + n + 1;
    size_t ceiling = buf->max_bytes == SIZE_MAX ? SIZE_MAX : buf->max_bytes + 1;
    size_t cap = buf->cap < BUF_FIRST_BYTES ? BUF_FIRST_BYTES : buf->cap;
    while (cap < need && cap <= SIZE_MAX / 2)
        cap *= 2;
    if (cap < need)
        cap = need;
    if (cap > ceiling)
        cap = ceiling;
    char *data = mem_realloc_array(buf->data, cap, 1);
    if (data == NULL) {
        buf->status = STATUS_NOMEM;
        return false;
    }
    buf->data = data;
    buf->cap = cap;
    return true;
}

void buf_append(struct buf *buf, const void *bytes, size_t n)
{
    if (!make_room(buf, n))
        return;
    if (n > 0)
        memcpy(buf->data + buf->len, bytes, n);
    buf->len += n;
    buf->data[buf->len] = '\0';
}

void buf_append_text(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

void buf_append_char(struct buf *buf, char c)
{
    if (!make_room(buf, 1))
        return;
    buf->data[buf->len++] = c;
    buf->data[buf->len] = '\0';
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    if (!make_room(buf, 0))
        return;
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    size_t room = buf->cap - buf->len;
    int n = vsnprintf(buf->data + buf->len, room, format, args);
    va_end(args);
    if (n < 0) {
        buf->data[buf->len] = '\0';
        buf->status = STATUS_LIMIT;
    } else if ((size_t)n < room) {
        buf->len += (size_t)n;
    } else {
        buf->data[buf->len] = '\0';
        if (make_room(buf, (size_t)n)) {
            (void)vsnprintf(buf->data + buf->len, (size_t)n + 1, format, again);
            buf->len += (size_t)n;
        }
    }
    va_end(again);
}

char *buf_reserve(struct buf *buf, size_t n)
{
    return make_room(buf, n) ? buf->data + buf->len : NULL;
}

const char *buf_text(struct buf *buf)
{
    if (buf->status != STATUS_OK || buf->data == NULL)
        return "";
    /* A writer through buf_reserve leaves no NUL; make_room always keeps a byte for it. */
    buf->data[buf->len] = '\0';
    return buf->data;
}
