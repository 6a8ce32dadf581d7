#include "store/csv_write.h"

#include <csv.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

enum { FLUSH_BYTES = 1 << 18, PENDING_MAX_BYTES = 1 << 24 };

static void flush(struct csv_writer *writer)
{
    if (writer->status == STATUS_OK && writer->pending.status != STATUS_OK) {
        writer->status = error_set(&writer->err, writer->pending.status, "writing %s: %s",
                                   writer->file.path, status_text(writer->pending.status));
    }
    if (writer->status == STATUS_OK) {
        writer->status = file_writer_write(&writer->file, writer->pending.data, writer->pending.len,
                                           &writer->err);
    }
    buf_reset(&writer->pending);
}

enum status csv_writer_open(struct csv_writer *writer, const char *path, const char *header,
                            struct error *err)
{
    memset(writer, 0, sizeof *writer);
    buf_init(&writer->pending, PENDING_MAX_BYTES);
    enum status status = file_writer_open(&writer->file, path, err);
    if (status == STATUS_OK) {
        buf_append_text(&writer->pending, header);
        buf_append_char(&writer->pending, '\n');
    }
    return status;
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

enum status csv_writer_finish(struct csv_writer *writer, struct error *err)
{
    flush(writer);
    buf_free(&writer->pending);
    if (writer->status == STATUS_OK) {
        return file_writer_commit(&writer->file, err);
    }
    file_writer_abandon(&writer->file);
    if (err != NULL) {
        *err = writer->err;
    }
    return writer->status;
}

void csv_writer_abandon(struct csv_writer *writer)
{
    file_writer_abandon(&writer->file);
    buf_free(&writer->pending);
}
