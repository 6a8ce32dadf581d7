#ifndef AISLE_BASE_FILE_H
#define AISLE_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

enum { PATH_BYTES_MAX = 4096 };

/* "dir/name" into out; LIMIT when it does not fit. */
enum status path_join(char out[PATH_BYTES_MAX], const char *dir, const char *name,
                      struct error *err) STATUS_CHECKED;
/* Whole file into buf (initialised by the caller with its ceiling; LIMIT names the size). */
enum status file_read(const char *path, struct buf *out, struct error *err) STATUS_CHECKED;
/* Writes path atomically: temporary file beside it, fsync, rename, fsync of the folder. */
enum status file_write_atomic(const char *path, const void *bytes, size_t n,
                              struct error *err) STATUS_CHECKED;

/* The same in pieces, for what does not fit into memory. After open either commit or abandon ends
 * it; until commit has returned OK the old file stands, and a failed commit leaves no trace. One
 * thread. */
struct file_writer {
    char path[PATH_BYTES_MAX];
    char temporary[PATH_BYTES_MAX];
    int fd; /* -1 when closed */
};
enum status file_writer_open(struct file_writer *writer, const char *path,
                             struct error *err) STATUS_CHECKED;
enum status file_writer_write(struct file_writer *writer, const void *bytes, size_t n,
                              struct error *err) STATUS_CHECKED;
enum status file_writer_commit(struct file_writer *writer, struct error *err) STATUS_CHECKED;
/* Legal after commit, then without effect. */
void file_writer_abandon(struct file_writer *writer);
/* Gives a finished file its name durably: fsync, rename, fsync of the folder. */
enum status file_rename_durable(const char *from, const char *to, struct error *err) STATUS_CHECKED;

enum status file_fsync(const char *path, struct error *err) STATUS_CHECKED; /* file or folder */
/* mkdir -p, mode 0777 & ~umask. */
enum status dir_make(const char *path, struct error *err) STATUS_CHECKED;
/* rm -r of a folder of ours; absent is good. Never follows symlinks. */
enum status dir_remove(const char *path, struct error *err) STATUS_CHECKED;
bool file_exists(const char *path);

/* Read-only mapping of a whole regular file; an empty file maps to data NULL, size 0. */
struct file_map {
    const void *data;
    size_t n_bytes;
};
enum status file_map_open(const char *path, struct file_map *out, struct error *err) STATUS_CHECKED;
void file_map_close(struct file_map *map);

/* Line-oriented text reading, for item and event files: "-" is standard input. Handles a final
 * line without newline and CRLF; a line over max_line_bytes is LIMIT with its number. */
struct line_reader;
enum status line_reader_open(const char *path, size_t max_line_bytes, struct line_reader **out,
                             struct error *err) STATUS_CHECKED;
/* OK with *line (borrowed until the next call, NUL-terminated, without the newline), or NOT_FOUND
 * at the end (err untouched). */
enum status line_reader_next(struct line_reader *reader, const char **line, size_t *len,
                             struct error *err) STATUS_CHECKED;
uint64_t line_reader_number(const struct line_reader *reader); /* from 1 */
void line_reader_close(struct line_reader *reader);

#endif
