#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

/* Files as a release needs them: read whole, written so that a crash leaves the old file or the new
 * one, mapped, read by lines.
 *
 * Atomic writing is temporary file beside the target (rename does not cross file systems), fsync,
 * rename, fsync of the folder; without the last a power cut may bring the old name back. Folders
 * are removed through file descriptors with O_NOFOLLOW, so that a symlink slipped in meanwhile is
 * deleted rather than followed; nftw() with FTW_PHYS was rejected, as it resolves paths anew.
 * Lines come from read(2) into one buffer of our own: getline() grows without a ceiling. */

enum {
    READ_CHUNK_BYTES = 16384,
    LINE_BUFFER_BYTES = 1 << 20,
    REMOVE_DEPTH_MAX = 64,
    TEMPORARY_TRIES_MAX = 100
};

enum status path_join(char out[PATH_BYTES_MAX], const char *dir, const char *name,
                      struct error *err)
{
    size_t dir_len = strlen(dir);
    size_t name_len = strlen(name);
    size_t slash = dir_len > 0 && dir[dir_len - 1] != '/' ? 1 : 0;
    if (dir_len >= PATH_BYTES_MAX || name_len >= PATH_BYTES_MAX - dir_len - slash) {
        return error_set(err, STATUS_LIMIT, "path over %d bytes: %.60s…/%.60s", PATH_BYTES_MAX - 1,
                         dir, name);
    }
    (void)snprintf(out, PATH_BYTES_MAX, "%s%s%s", dir, slash != 0 ? "/" : "", name);
    return STATUS_OK;
}

static ssize_t read_some(int fd, void *out, size_t n)
{
    ssize_t got = 0;
    do {
        got = read(fd, out, n);
    } while (got < 0 && errno == EINTR);
    return got;
}

static enum status buffer_failure(const struct buf *buf, const char *path, struct error *err)
{
    if (buf->status == STATUS_LIMIT) {
        return error_set(err, STATUS_LIMIT, "%s is over its limit of %zu bytes", path,
                         buf->max_bytes);
    }
    return error_set(err, buf->status, "reading %s: %s", path, status_text(buf->status));
}

enum status file_read(const char *path, struct buf *out, struct error *err)
{
    struct stat info;
    char chunk[READ_CHUNK_BYTES];
    enum status status = STATUS_OK;
    size_t len_before = out->len;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return error_set_errno(err, "opening %s", path);
    }
    if (fstat(fd, &info) != 0) {
        status = error_set_errno(err, "reading %s", path);
        goto out;
    }
    /* The size is a hint only: files of /proc say 0, others may grow meanwhile. */
    bool has_size = S_ISREG(info.st_mode) && info.st_size > 0;
    if (has_size && (uintmax_t)info.st_size > out->max_bytes) {
        status = error_set(err, STATUS_LIMIT, "%s has %jd bytes, over its limit of %zu", path,
                           (intmax_t)info.st_size, out->max_bytes);
        goto out;
    }
    if (has_size) {
        (void)buf_reserve(out, (size_t)info.st_size);
    }
    while (out->status == STATUS_OK) {
        ssize_t n = read_some(fd, chunk, sizeof chunk);
        if (n < 0) {
            status = error_set_errno(err, "reading %s", path);
            out->len = len_before;
            goto out;
        }
        if (n == 0) {
            break;
        }
        buf_append(out, chunk, (size_t)n);
    }
    if (out->status != STATUS_OK) {
        status = buffer_failure(out, path, err);
    }

out:
    (void)close(fd);
    return status;
}

static enum status sync_and_close(int fd, const char *path, struct error *err)
{
    enum status status = STATUS_OK;
    /* EINVAL: the file system cannot sync this kind of file, which nobody can do better. */
    if (fsync(fd) != 0 && errno != EINVAL) {
        status = error_set_errno(err, "syncing %s", path);
    }
    if (close(fd) != 0 && status == STATUS_OK) {
        status = error_set_errno(err, "closing %s", path);
    }
    return status;
}

enum status file_fsync(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return error_set_errno(err, "opening %s", path);
    }
    return sync_and_close(fd, path, err);
}

static enum status write_all(int fd, const char *path, const void *bytes, size_t n,
                             struct error *err)
{
    const unsigned char *at = bytes;
    while (n > 0) {
        ssize_t written = write(fd, at, n);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return error_set_errno(err, "writing %s", path);
        }
        at += written;
        n -= (size_t)written;
    }
    return STATUS_OK;
}

/* Makes "path.tmp.<pid>.<counter>"; names left by a crashed process of the same id are passed. */
static enum status create_temporary(const char *path, char name[PATH_BYTES_MAX], int *fd,
                                    struct error *err)
{
    static atomic_uint counter;
    for (int i = 0; i < TEMPORARY_TRIES_MAX; i++) {
        unsigned number = atomic_fetch_add_explicit(&counter, 1, memory_order_relaxed);
        int len = snprintf(name, PATH_BYTES_MAX, "%s.tmp.%ld.%u", path, (long)getpid(), number);
        if (len < 0 || len >= PATH_BYTES_MAX) {
            return error_set(err, STATUS_LIMIT, "path over %d bytes: %.100s…", PATH_BYTES_MAX - 1,
                             path);
        }
        *fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (*fd >= 0) {
            return STATUS_OK;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    return error_set_errno(err, "creating %s", name);
}

static enum status sync_parent(const char *path, struct error *err)
{
    char folder[PATH_BYTES_MAX];
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return file_fsync(".", err);
    }
    size_t len = slash == path ? 1 : (size_t)(slash - path);
    memcpy(folder, path, len); /* shorter than the temporary name, which did fit */
    folder[len] = '\0';
    return file_fsync(folder, err);
}

static enum status rename_and_sync(const char *from, const char *to, struct error *err)
{
    if (rename(from, to) != 0) {
        return error_set_errno(err, "renaming %s to %s", from, to);
    }
    return sync_parent(to, err);
}

enum status file_rename_durable(const char *from, const char *to, struct error *err)
{
    enum status status = file_fsync(from, err);
    return status == STATUS_OK ? rename_and_sync(from, to, err) : status;
}

enum status file_writer_open(struct file_writer *writer, const char *path, struct error *err)
{
    writer->fd = -1;
    size_t len = strlen(path);
    if (len >= sizeof writer->path) {
        return error_set(err, STATUS_LIMIT, "path over %d bytes: %.100s…", PATH_BYTES_MAX - 1,
                         path);
    }
    memcpy(writer->path, path, len + 1);
    return create_temporary(path, writer->temporary, &writer->fd, err);
}

enum status file_writer_write(struct file_writer *writer, const void *bytes, size_t n,
                              struct error *err)
{
    return write_all(writer->fd, writer->temporary, bytes, n, err);
}

enum status file_writer_commit(struct file_writer *writer, struct error *err)
{
    enum status status = sync_and_close(writer->fd, writer->temporary, err);
    writer->fd = -1;
    if (status == STATUS_OK) {
        status = rename_and_sync(writer->temporary, writer->path, err);
    }
    if (status != STATUS_OK) {
        (void)unlink(writer->temporary);
    }
    return status;
}

void file_writer_abandon(struct file_writer *writer)
{
    if (writer->fd >= 0) {
        (void)close(writer->fd);
        writer->fd = -1;
        (void)unlink(writer->temporary);
    }
}

enum status file_write_atomic(const char *path, const void *bytes, size_t n, struct error *err)
{
    struct file_writer writer;
    enum status status = file_writer_open(&writer, path, err);
    if (status == STATUS_OK) {
        status = file_writer_write(&writer, bytes, n, err);
    }
    if (status == STATUS_OK) {
        return file_writer_commit(&writer, err);
    }
    file_writer_abandon(&writer);
    return status;
}

static enum status make_one(const char *path, struct error *err)
{
    struct stat info;
    if (mkdir(path, 0777) == 0) {
        return STATUS_OK;
    }
    int cause = errno;
    if (cause == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        return STATUS_OK;
    }
    errno = cause;
    return error_set_errno(err, "making folder %s", path);
}

enum status dir_make(const char *path, struct error *err)
{
    char part[PATH_BYTES_MAX];
    size_t len = strlen(path);
    if (len == 0) {
        return error_set(err, STATUS_INVALID, "empty folder name");
    }
    if (len >= PATH_BYTES_MAX) {
        return error_set(err, STATUS_LIMIT, "path over %d bytes: %.100s…", PATH_BYTES_MAX - 1,
                         path);
    }
    for (size_t i = 1; i <= len; i++) {
        bool is_end = (path[i] == '/' || path[i] == '\0') && path[i - 1] != '/';
        if (!is_end) {
            continue;
        }
        memcpy(part, path, i);
        part[i] = '\0';
        enum status status = make_one(part, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

static enum status remove_entries(int parent, const char *name, int depth, struct error *err);

static enum status remove_entry(int folder, const char *name, int depth, struct error *err)
{
    struct stat info;
    if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? STATUS_OK : error_set_errno(err, "looking at %s", name);
    }
    int flags = 0;
    if (S_ISDIR(info.st_mode)) {
        enum status status = remove_entries(folder, name, depth + 1, err);
        if (status != STATUS_OK) {
            return status;
        }
        flags = AT_REMOVEDIR;
    }
    if (unlinkat(folder, name, flags) != 0 && errno != ENOENT) {
        return error_set_errno(err, "removing %s", name);
    }
    return STATUS_OK;
}

/* Empties the folder `name` of folder `parent`. */
static enum status remove_entries(int parent, const char *name, int depth, struct error *err)
{
    if (depth > REMOVE_DEPTH_MAX) {
        return error_set(err, STATUS_LIMIT, "removing %s: over %d folders deep", name,
                         REMOVE_DEPTH_MAX);
    }
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return error_set_errno(err, "opening folder %s", name);
    }
    DIR *folder = fdopendir(fd);
    if (folder == NULL) {
        enum status failure = error_set_errno(err, "opening folder %s", name);
        (void)close(fd);
        return failure;
    }
    enum status status = STATUS_OK;
    while (status == STATUS_OK) {
        errno = 0;
        /* Each stream is read by one thread, for which glibc's readdir() is safe. */
        const struct dirent *entry = readdir(folder); /* NOLINT(concurrency-mt-unsafe) */
        if (entry == NULL) {
            status = errno == 0 ? STATUS_OK : error_set_errno(err, "reading folder %s", name);
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            status = remove_entry(fd, entry->d_name, depth, err);
        }
    }
    (void)closedir(folder);
    return status;
}

enum status dir_remove(const char *path, struct error *err)
{
    char plain[PATH_BYTES_MAX];
    struct stat info;
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') {
        len--; /* a slash at the end would make the kernel follow a symlink */
    }
    if (len == 0 || len >= PATH_BYTES_MAX) {
        return error_set(err, len == 0 ? STATUS_INVALID : STATUS_LIMIT,
                         "folder to remove: empty path or one over %d bytes", PATH_BYTES_MAX - 1);
    }
    memcpy(plain, path, len);
    plain[len] = '\0';
    if (lstat(plain, &info) != 0) {
        return errno == ENOENT ? STATUS_OK : error_set_errno(err, "looking at %s", plain);
    }
    if (!S_ISDIR(info.st_mode)) {
        return error_set(err, STATUS_INVALID, "%s is not a folder", plain);
    }
    enum status status = remove_entry(AT_FDCWD, plain, 0, err);
    if (status != STATUS_OK) {
        error_prefix(err, "removing %.100s: ", plain);
    }
    return status;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

enum status file_map_open(const char *path, struct file_map *out, struct error *err)
{
    struct stat info;
    enum status status = STATUS_OK;
    *out = (struct file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return error_set_errno(err, "opening %s", path);
    }
    if (fstat(fd, &info) != 0) {
        status = error_set_errno(err, "mapping %s", path);
        goto out;
    }
    if (!S_ISREG(info.st_mode)) {
        status = error_set(err, STATUS_INVALID, "%s is not a regular file", path);
        goto out;
    }
    if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) {
            status = error_set_errno(err, "mapping %s", path);
            goto out;
        }
        out->data = data;
        out->n_bytes = (size_t)info.st_size;
    }

out:
    (void)close(fd); /* the mapping stays */
    return status;
}

void file_map_close(struct file_map *map)
{
    if (map == NULL) {
        return;
    }
    if (map->data != NULL) {
        (void)munmap((void *)(uintptr_t)map->data, map->n_bytes);
    }
    *map = (struct file_map){0};
}

struct line_reader {
    char *path; /* for messages */
    char *bytes;
    size_t cap;     /* room for the longest line, CR, LF and more */
    size_t start;   /* of the next line in bytes */
    size_t scanned; /* bytes[start .. scanned) hold no newline */
    size_t end;
    size_t max_line_bytes;
    uint64_t number;
    int fd;
    bool is_stdin;
    bool is_started;
    bool at_eof;
};

enum status line_reader_open(const char *path, size_t max_line_bytes, struct line_reader **out,
                             struct error *err)
{
    *out = NULL;
    if (max_line_bytes > SIZE_MAX - LINE_BUFFER_BYTES) {
        return error_set(err, STATUS_LIMIT, "line limit of %zu bytes", max_line_bytes);
    }
    struct line_reader *reader = mem_calloc(1, sizeof *reader);
    if (reader == NULL) {
        return error_set(err, STATUS_NOMEM, "no memory to read %s", path);
    }
    enum status status = STATUS_OK;
    reader->is_stdin = strcmp(path, "-") == 0;
    reader->fd = -1;
    reader->max_line_bytes = max_line_bytes;
    reader->cap = LINE_BUFFER_BYTES + max_line_bytes;
    reader->bytes = mem_alloc(reader->cap);
    reader->path = mem_strdup(reader->is_stdin ? "standard input" : path);
    if (reader->bytes == NULL || reader->path == NULL) {
        status = error_set(err, STATUS_NOMEM, "no memory to read %s", path);
        goto close_reader;
    }
    reader->fd = reader->is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (reader->fd < 0) {
        status = error_set_errno(err, "opening %s", path);
        goto close_reader;
    }
    *out = reader;
    return STATUS_OK;

close_reader:
    line_reader_close(reader);
    return status;
}

void line_reader_close(struct line_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    if (reader->fd >= 0 && !reader->is_stdin) {
        (void)close(reader->fd);
    }
    mem_free(reader->bytes);
    mem_free(reader->path);
    mem_free(reader);
}

uint64_t line_reader_number(const struct line_reader *reader)
{
    return reader->number;
}

/* Reads more behind end; one byte stays free for the NUL of a last line without newline. */
static enum status fill(struct line_reader *reader, struct error *err)
{
    if (reader->cap - reader->end < READ_CHUNK_BYTES) {
        memmove(reader->bytes, reader->bytes + reader->start, reader->end - reader->start);
        reader->end -= reader->start;
        reader->scanned -= reader->start;
        reader->start = 0;
    }
    ssize_t n = read_some(reader->fd, reader->bytes + reader->end, reader->cap - reader->end - 1);
    if (n < 0) {
        return error_set_errno(err, "reading %s", reader->path);
    }
    reader->at_eof = n == 0;
    reader->end += (size_t)n;
    return STATUS_OK;
}

/* Passes a UTF-8 byte order mark, as spreadsheet exports have it. */
static enum status skip_mark(struct line_reader *reader, struct error *err)
{
    while (reader->end < 3 && !reader->at_eof) {
        enum status status = fill(reader, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    if (reader->end >= 3 && memcmp(reader->bytes, "\xef\xbb\xbf", 3) == 0) {
        reader->start = 3;
        reader->scanned = 3;
    }
    reader->is_started = true;
    return STATUS_OK;
}

/* Finds where the next line ends (its newline, or the end of the file). */
static enum status find_line_end(struct line_reader *reader, size_t *line_end, struct error *err)
{
    for (;;) {
        const char *newline =
            memchr(reader->bytes + reader->scanned, '\n', reader->end - reader->scanned);
        if (newline != NULL) {
            *line_end = (size_t)(newline - reader->bytes);
            return STATUS_OK;
        }
        reader->scanned = reader->end;
        *line_end = reader->end;
        /* One byte more than the limit may still be the CR of a line at the limit. */
        if (reader->at_eof || reader->end - reader->start > reader->max_line_bytes + 1) {
            return STATUS_OK;
        }
        enum status status = fill(reader, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
}

enum status line_reader_next(struct line_reader *reader, const char **line, size_t *len,
                             struct error *err)
{
    size_t line_end = 0;
    enum status status = reader->is_started ? STATUS_OK : skip_mark(reader, err);
    if (status == STATUS_OK) {
        status = find_line_end(reader, &line_end, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (line_end == reader->end && reader->start == reader->end) {
        return STATUS_NOT_FOUND;
    }
    size_t n = line_end - reader->start;
    if (n > 0 && reader->bytes[line_end - 1] == '\r') {
        n--;
    }
    if (n > reader->max_line_bytes) {
        return error_set(err, STATUS_LIMIT, "%s:%ju: line over %zu bytes", reader->path,
                         (uintmax_t)reader->number + 1, reader->max_line_bytes);
    }
    *line = reader->bytes + reader->start;
    *len = n;
    reader->bytes[reader->start + n] = '\0';
    reader->start = line_end < reader->end ? line_end + 1 : line_end;
    reader->scanned = reader->start;
    reader->number++;
    return STATUS_OK;
}
