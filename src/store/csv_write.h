#ifndef AISLE_STORE_CSV_WRITE_H
#define AISLE_STORE_CSV_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/status.h"

/* A CSV file (RFC 4180, '\n' line ends, quoted only where needed) written atomically. A failure
 * sticks: cells after it do nothing, and csv_writer_finish tells. One thread. */
struct csv_writer {
    struct file_writer file;
    size_t n_cells; /* in the present row */
    struct buf pending;
    enum status status;
    struct error err; /* of the first failure */
};

/* header: cells separated by commas, written as the first row. On failure the writer is closed. */
enum status csv_writer_open(struct csv_writer *writer, const char *path, const char *header,
                            struct error *err) STATUS_CHECKED;
/* NULL is an empty cell. */
void csv_text(struct csv_writer *writer, const char *text);
void csv_text_n(struct csv_writer *writer, const char *text, size_t len);
void csv_int(struct csv_writer *writer, int64_t value);
/* Fixed decimals; an empty cell for NaN. */
void csv_fixed(struct csv_writer *writer, double value, int decimals);
/* RFC 3339 in UTC. */
void csv_time(struct csv_writer *writer, int64_t unix_ms);
void csv_end_row(struct csv_writer *writer);
/* Syncs, renames and closes; after a failure nothing is left on disk. */
enum status csv_writer_finish(struct csv_writer *writer, struct error *err) STATUS_CHECKED;
/* Closes and deletes. Legal after finish. */
void csv_writer_abandon(struct csv_writer *writer);

#endif
