#include "store/csv_write.h"

#include <csv.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { FLUSH_BYTES = 1 << 18, PENDING_MAX_BYTES = 1 << 24 };

static void fail(struct csv_writer *writer)
{
    if (writer->status == STATUS_OK) {
        writer->status = error_set_errno(&writer->err, "writing %s", writer->path);
    }
}

static void flush(struct csv_writer *writer)
{
    if (writer->status == STATUS_OK && writer->pending.status != STATUS_OK) {
        writer->status = error_set(&writer->err, writer->pending.status, "writing %s: %s",
                                   writer->path, status_text(writer->pending.status));
    }
    const char *at = writer->pending.data;
    size_t left = writer->status == STATUS_OK ? writer->pending.len : 0;
    while (left > 0) {
        ssize_t n = write(writer->fd, at, left);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            fail(writer);
            break;
        }
        at += n;
        left -= (size_t)n;
    }
    buf_reset(&writer->pending);
}

enum status csv_writer_open(struct csv_writer *writer, const char *path, const char *header,
                            struct error *err)
{
    memset(writer, 0, sizeof *writer);
    writer->fd = -1;
    buf_init(&writer->pending, PENDING_MAX_BYTES);
    int path_len = snprintf(writer->path, sizeof writer->path, "%s", path);
    int len =
        snprintf(writer->temporary, sizeof writer->temporary, "%s.tmp.%ld", path, (long)getpid());
    if (path_len < 0 || len < 0 || (size_t)len >= sizeof writer->temporary) {
        return error_set(err, STATUS_LIMIT, "path over %d bytes: %.100s…", PATH_BYTES_MAX - 1,
                         path);
    }
    (void)unlink(writer->temporary); /* of a dead process that had our id */
    writer->fd =
        open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (writer->fd < 0) {
        return error_set_errno(err, "creating %s", writer->temporary);
    }
    buf_append_text(&writer->pending, header);
    buf_append_char(&writer->pending, '\n');
    return STATUS_OK;
}

static void begin_cell(struct csv_writer *writer)
{
    if (writer->n_cells > 0) {
        buf_append_char(&writer->pending, ',');
    }
    writer->n_cells++;
}

void csv_text_n(struct csv_writer *writer, const char *text, size_t len)
{
    bool plain = true;
    begin_cell(writer);
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        plain = plain && c != '"' && c != ',' && c != '\n' && c != '\r';
    }
    /* Readers may strip blanks around an unquoted cell. */
    plain = plain && (len == 0 || (text[0] != ' ' && text[len - 1] != ' '));
    if (plain) {
        buf_append(&writer->pending, text, len);
        return;
    }
    size_t room = 2 * len + 2;
    char *at = buf_reserve(&writer->pending, room);
    if (at != NULL) {
        writer->pending.len += csv_write2(at, room, text, len, '"');
    }
}

void csv_text(struct csv_writer *writer, const char *text)
{
    csv_text_n(writer, text != NULL ? text : "", text != NULL ? strlen(text) : 0);
}

void csv_int(struct csv_writer *writer, int64_t value)
{
    begin_cell(writer);
    buf_printf(&writer->pending, "%lld", (long long)value);
}

void csv_fixed(struct csv_writer *writer, double value, int decimals)
{
    begin_cell(writer);
    if (!isnan(value)) {
        buf_printf(&writer->pending, "%.*f", decimals, value);
    }
}

void csv_time(struct csv_writer *writer, int64_t unix_ms)
{
    char text[TIME_TEXT_BYTES];
    time_format_rfc3339(unix_ms, text);
    begin_cell(writer);
    buf_append_text(&writer->pending, text);
}

void csv_end_row(struct csv_writer *writer)
{
    buf_append_char(&writer->pending, '\n');
    writer->n_cells = 0;
    if (writer->pending.len >= FLUSH_BYTES || writer->pending.status != STATUS_OK) {
        flush(writer);
    }
}

static enum status sync_folder(const char *path, struct error *err)
{
    char folder[PATH_BYTES_MAX];
    (void)snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL) {
        return file_fsync(".", err);
    }
    slash[slash == folder ? 1 : 0] = '\0';
    return file_fsync(folder, err);
}

enum status csv_writer_finish(struct csv_writer *writer, struct error *err)
{
    flush(writer);
    if (writer->status == STATUS_OK && fsync(writer->fd) != 0) {
        fail(writer);
    }
    int fd = writer->fd;
    writer->fd = -1;
    if (close(fd) != 0) {
        fail(writer);
    }
    if (writer->status == STATUS_OK && rename(writer->temporary, writer->path) != 0) {
        fail(writer);
    }
    buf_free(&writer->pending);
    if (writer->status != STATUS_OK) {
        (void)unlink(writer->temporary);
        if (err != NULL) {
            *err = writer->err;
        }
        return writer->status;
    }
    return sync_folder(writer->path, err);
}

void csv_writer_abandon(struct csv_writer *writer)
{
    if (writer->fd >= 0) {
        (void)close(writer->fd);
        writer->fd = -1;
        (void)unlink(writer->temporary);
    }
    buf_free(&writer->pending);
}
