#include "store/release.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "store/release_internal.h"

/* Releases on disk. All files of a release are written into a hidden folder beside their final
 * place, synced, and become visible by one rename(2); a channel is a symlink that is replaced by
 * one rename(2). So whoever looks sees the old state or the new one, at any instant and after any
 * crash. A lock file was rejected: it would outlive a killed builder, and two builders do not
 * disturb each other anyway, as their folders' names differ. Channels: release_channel.c.
 *
 * A version is the time to the second and four digits of the content's hash, so that names sort by
 * age and say whether two builds gave the same. If the second is taken (two builds at once), the
 * next free one is used: the order of versions then still is the order of their commits. */

#define TEMPORARY_PREFIX ".tmp-"

enum {
    RELEASE_NAME_MAX = RELEASE_VERSION_BYTES - 1,
    STALE_SECONDS = 24 * 3600,
    NAME_TRIES_MAX = 1000,
    CONTENT_DIGITS = 4,
};

static const char *const REQUIRED_FILES[] = {
    RELEASE_FILE_ITEMS, RELEASE_FILE_VECTORS, RELEASE_FILE_MODEL,
    RELEASE_FILE_INDEX, RELEASE_FILE_PROBES,
};

bool release_name_valid(const char *name)
{
    size_t len = strlen(name);
    return len >= 1 && len <= RELEASE_NAME_MAX && name[0] != '.' &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

enum status release_check_name(const char *what, const char *name, struct error *err)
{
    if (release_name_valid(name)) {
        return STATUS_OK;
    }
    return error_set(err, STATUS_INVALID,
                     "%s \"%.80s\": a name is 1 to %d of A-Z a-z 0-9 . _ -, not beginning with a "
                     "dot",
                     what, name, RELEASE_NAME_MAX);
}

/* ---- folders ---- */

/* Calls visit for each entry but "." and "..", in the file system's order, until it fails. */
enum status release_for_each_entry(const char *folder, release_entry_fn *visit, void *context,
                                   struct error *err)
{
    enum status status = STATUS_OK;
    DIR *stream = opendir(folder);
    if (stream == NULL) {
        return error_set_errno(err, "opening folder %s", folder);
    }
    while (status == STATUS_OK) {
        errno = 0;
        /* The stream is this thread's own, for which glibc's readdir() is safe. */
        const struct dirent *entry = readdir(stream); /* NOLINT(concurrency-mt-unsafe) */
        if (entry == NULL) {
            status = errno == 0 ? STATUS_OK : error_set_errno(err, "reading folder %s", folder);
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            status = visit(context, folder, entry->d_name, err);
        }
    }
    (void)closedir(stream);
    return status;
}

bool release_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* Time of the newest change: of the entry itself, or of something directly in it. */
static enum status newest_change(void *context, const char *folder, const char *name,
                                 struct error *err)
{
    time_t *newest = context;
    char path[PATH_BYTES_MAX];
    struct stat info;
    enum status status = path_join(path, folder, name, err);
    if (status == STATUS_OK && lstat(path, &info) == 0 && info.st_mtime > *newest) {
        *newest = info.st_mtime;
    }
    return status;
}

/* Removes what a killed process left long ago. Another builder's folder is in use as long as
 * something in it changes. Failures are no reason not to build: the next one tries again. */
static enum status remove_if_stale(void *context, const char *folder, const char *name,
                                   struct error *err)
{
    const time_t *now = context;
    char path[PATH_BYTES_MAX];
    struct stat info;
    if (strncmp(name, TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX)) != 0) {
        return STATUS_OK;
    }
    enum status status = path_join(path, folder, name, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (lstat(path, &info) != 0) {
        return STATUS_OK;
    }
    time_t newest = info.st_mtime;
    if (S_ISDIR(info.st_mode)) {
        status = release_for_each_entry(path, newest_change, &newest, NULL);
    }
    if (status != STATUS_OK || *now - newest <= STALE_SECONDS) {
        return STATUS_OK;
    }
    if (!S_ISDIR(info.st_mode)) {
        (void)unlink(path);
        return STATUS_OK;
    }
    enum status removed = dir_remove(path, NULL);
    (void)removed;
    return STATUS_OK;
}

void release_remove_stale(const char *folder)
{
    time_t now = time(NULL);
    enum status swept = release_for_each_entry(folder, remove_if_stale, &now, NULL);
    (void)swept;
}

/* "FOLDER/.tmp-PID-NUMBER", unlike any other of this process. */
enum status release_temporary_name(const char *folder, char out[PATH_BYTES_MAX], struct error *err)
{
    static atomic_uint counter;
    char name[RELEASE_VERSION_BYTES];
    unsigned number = atomic_fetch_add_explicit(&counter, 1, memory_order_relaxed);
    (void)snprintf(name, sizeof name, TEMPORARY_PREFIX "%ld-%u", (long)getpid(), number);
    return path_join(out, folder, name, err);
}

enum status release_join(char out[PATH_BYTES_MAX], const char *a, const char *b, const char *c,
                         struct error *err)
{
    char folder[PATH_BYTES_MAX];
    enum status status = path_join(folder, a, b, err);
    return status == STATUS_OK ? path_join(out, folder, c, err) : status;
}

/* ---- drafts ---- */

enum status release_make_root(const char *releases, struct error *err)
{
    static const char *const folders[] = {RELEASE_FOLDER_RELEASES, RELEASE_FOLDER_CHANNELS};
    char path[PATH_BYTES_MAX];
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        enum status status = path_join(path, releases, folders[i], err);
        if (status == STATUS_OK) {
            status = dir_make(path, err);
        }
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

enum status release_draft_open(const char *releases, struct release_draft *out, struct error *err)
{
    char dir[PATH_BYTES_MAX];
    memset(out, 0, sizeof *out);
    enum status status = release_make_root(releases, err);
    if (status != STATUS_OK) {
        return status;
    }
    release_remove_stale(releases);
    for (int i = 0; i < NAME_TRIES_MAX; i++) {
        status = release_temporary_name(releases, dir, err);
        if (status != STATUS_OK) {
            return status;
        }
        if (mkdir(dir, 0777) == 0) {
            memcpy(out->dir, dir, sizeof dir);
            return path_join(out->releases, releases, "", err);
        }
        if (errno != EEXIST) {
            break;
        }
    }
    return error_set_errno(err, "making folder %s", dir);
}

void release_draft_abandon(struct release_draft *draft)
{
    /* What cannot be removed now is swept as stale by a later build. */
    if (draft->dir[0] != '\0' && dir_remove(draft->dir, NULL) == STATUS_OK) {
        draft->dir[0] = '\0';
    }
}

static enum status add_file(void *context, const char *folder, const char *name, struct error *err)
{
    struct manifest *manifest = context;
    char path[PATH_BYTES_MAX];
    struct stat info;
    if (strcmp(name, RELEASE_FILE_MANIFEST) == 0) {
        return STATUS_OK;
    }
    if (manifest->n_files == MANIFEST_FILES_MAX) {
        return error_set(err, STATUS_LIMIT, "%s: over %d files", folder, MANIFEST_FILES_MAX);
    }
    enum status status = path_join(path, folder, name, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (lstat(path, &info) != 0) {
        return error_set_errno(err, "looking at %s", path);
    }
    if (!S_ISREG(info.st_mode) || name[0] == '.' || strlen(name) >= MANIFEST_NAME_BYTES) {
        return error_set(err, STATUS_INVALID, "%s has no place in a release", path);
    }
    struct manifest_file *file = &manifest->files[manifest->n_files++];
    memcpy(file->name, name, strlen(name) + 1);
    return STATUS_OK;
}

static int compare_files(const void *a, const void *b)
{
    const struct manifest_file *x = a;
    const struct manifest_file *y = b;
    return strcmp(x->name, y->name);
}

/* Fills manifest->files, syncs them, and hashes names and hashes into content[]. */
static enum status collect_files(const struct release_draft *draft, struct manifest *manifest,
                                 char content[SHA256_HEX_BYTES], struct error *err)
{
    struct buf listing;
    char path[PATH_BYTES_MAX];
    manifest->n_files = 0;
    enum status status = release_for_each_entry(draft->dir, add_file, manifest, err);
    if (status != STATUS_OK) {
        return status;
    }
    qsort(manifest->files, manifest->n_files, sizeof manifest->files[0], compare_files);
    buf_init(&listing, MANIFEST_MAX_BYTES);
    for (size_t i = 0; status == STATUS_OK && i < manifest->n_files; i++) {
        struct manifest_file *file = &manifest->files[i];
        status = path_join(path, draft->dir, file->name, err);
        if (status == STATUS_OK) {
            status = file_fsync(path, err);
        }
        if (status == STATUS_OK) {
            status = hash_file_sha256(path, file->sha256, &file->n_bytes, err);
        }
        buf_printf(&listing, "%s %s\n", file->sha256, file->name);
    }
    if (status == STATUS_OK && listing.status != STATUS_OK) {
        status = error_set(err, listing.status, "listing %s: %s", draft->dir,
                           status_text(listing.status));
    }
    if (status == STATUS_OK) {
        hash_sha256_hex(buf_text(&listing), listing.len, content);
    }
    buf_free(&listing);
    return status;
}

static bool second_taken(const struct release_list *list, const char *second)
{
    for (size_t i = 0; i < list->n; i++) {
        if (strncmp(list->versions[i], second, strlen(second)) == 0) {
            return true;
        }
    }
    return false;
}

/* Sets version and created_at_ms: now, or the first free second after. */
static enum status choose_version(const char *releases, const char *content, int64_t not_before_ms,
                                  struct manifest *manifest, struct error *err)
{
    struct release_list list;
    char second[TIME_TEXT_BYTES];
    enum status status = release_list(releases, &list, err);
    if (status != STATUS_OK) {
        return status;
    }
    manifest->created_at_ms = clock_unix_ms();
    if (manifest->created_at_ms < not_before_ms) {
        manifest->created_at_ms = not_before_ms;
    }
    time_format_compact(manifest->created_at_ms, second);
    while (second_taken(&list, second)) {
        manifest->created_at_ms += 1000;
        time_format_compact(manifest->created_at_ms, second);
    }
    (void)snprintf(manifest->version, sizeof manifest->version, "%s-%.*s", second, CONTENT_DIGITS,
                   content);
    release_list_free(&list);
    return STATUS_OK;
}

/* One try: manifest, sync, rename. EXISTS: somebody took the name meanwhile. */
static enum status place(const struct release_draft *draft, const struct manifest *manifest,
                         struct error *err)
{
    char path[PATH_BYTES_MAX];
    char target[PATH_BYTES_MAX];
    enum status status = path_join(path, draft->dir, RELEASE_FILE_MANIFEST, err);
    if (status == STATUS_OK) {
        status = manifest_write(path, manifest, err);
    }
    if (status == STATUS_OK) {
        status = file_fsync(draft->dir, err);
    }
    if (status == STATUS_OK) {
        status =
            release_join(target, draft->releases, RELEASE_FOLDER_RELEASES, manifest->version, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (rename(draft->dir, target) != 0) {
        if (errno == ENOTEMPTY || errno == EEXIST) {
            return error_set(err, STATUS_EXISTS, "release %s exists already", manifest->version);
        }
        return error_set_errno(err, "renaming %s to %s", draft->dir, target);
    }
    return STATUS_OK;
}

enum status release_draft_commit(struct release_draft *draft, struct manifest *manifest,
                                 struct error *err)
{
    char content[SHA256_HEX_BYTES];
    char folder[PATH_BYTES_MAX];
    int64_t not_before_ms = 0;
    enum status status = collect_files(draft, manifest, content, err);
    if (status != STATUS_OK) {
        return status;
    }
    for (int i = 0; i < NAME_TRIES_MAX; i++) {
        status = choose_version(draft->releases, content, not_before_ms, manifest, err);
        if (status != STATUS_OK) {
            return status;
        }
        status = place(draft, manifest, err);
        if (status != STATUS_EXISTS) {
            break;
        }
        not_before_ms = manifest->created_at_ms + 1000;
    }
    if (status != STATUS_OK) {
        return status;
    }
    draft->dir[0] = '\0'; /* moved: nothing is left to abandon */
    status = path_join(folder, draft->releases, RELEASE_FOLDER_RELEASES, err);
    if (status == STATUS_OK) {
        status = file_fsync(folder, err);
    }
    return status == STATUS_OK ? file_fsync(draft->releases, err) : status;
}

/* ---- verifying and listing ---- */

enum status release_dir(const char *releases, const char *version, char out[PATH_BYTES_MAX],
                        struct error *err)
{
    enum status status = release_check_name("release", version, err);
    if (status == STATUS_OK) {
        status = release_join(out, releases, RELEASE_FOLDER_RELEASES, version, err);
    }
    if (status == STATUS_OK && !release_is_folder(out)) {
        status = error_set(err, STATUS_NOT_FOUND, "no release %s in %s", version, releases);
    }
    return status;
}

static enum status verify_file(const char *dir, const struct manifest_file *file, struct error *err)
{
    char path[PATH_BYTES_MAX];
    char sha256[SHA256_HEX_BYTES];
    struct stat info;
    uint64_t n_bytes = 0;
    enum status status = path_join(path, dir, file->name, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (lstat(path, &info) != 0) {
        return errno == ENOENT ? error_set(err, STATUS_MISMATCH, "%s: missing", file->name)
                               : error_set_errno(err, "looking at %s", path);
    }
    if (!S_ISREG(info.st_mode)) {
        return error_set(err, STATUS_MISMATCH, "%s: not a regular file", file->name);
    }
    if ((uint64_t)info.st_size != file->n_bytes) {
        return error_set(err, STATUS_MISMATCH, "%s: %llu bytes, the manifest says %llu%s",
                         file->name, (unsigned long long)info.st_size,
                         (unsigned long long)file->n_bytes,
                         (uint64_t)info.st_size < file->n_bytes ? " (truncated)" : "");
    }
    status = hash_file_sha256(path, sha256, &n_bytes, err);
    if (status == STATUS_OK && strcmp(sha256, file->sha256) != 0) {
        status = error_set(err, STATUS_MISMATCH,
                           "%s: SHA-256 differs from the manifest's (damaged)", file->name);
    }
    return status;
}

static enum status check_required(const struct manifest *manifest, struct error *err)
{
    for (size_t i = 0; i < sizeof REQUIRED_FILES / sizeof REQUIRED_FILES[0]; i++) {
        bool found = false;
        for (size_t k = 0; k < manifest->n_files; k++) {
            found = found || strcmp(manifest->files[k].name, REQUIRED_FILES[i]) == 0;
        }
        if (!found) {
            return error_set(err, STATUS_FORMAT, "%s does not list %s", RELEASE_FILE_MANIFEST,
                             REQUIRED_FILES[i]);
        }
    }
    return STATUS_OK;
}

enum status release_verify(const char *dir, struct manifest *out, struct error *err)
{
    char path[PATH_BYTES_MAX];
    manifest_init(out);
    enum status status = path_join(path, dir, RELEASE_FILE_MANIFEST, err);
    if (status == STATUS_OK) {
        status = manifest_read(path, out, err);
    }
    if (status == STATUS_OK) {
        status = check_required(out, err);
    }
    for (size_t i = 0; status == STATUS_OK && i < out->n_files; i++) {
        status = verify_file(dir, &out->files[i], err);
    }
    if (status != STATUS_OK) {
        manifest_free(out);
    }
    return status;
}

static enum status add_version(void *context, const char *folder, const char *name,
                               struct error *err)
{
    struct release_list *list = context;
    char path[PATH_BYTES_MAX];
    enum status status = release_join(path, folder, name, RELEASE_FILE_MANIFEST, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (!release_name_valid(name) || !file_exists(path)) {
        return STATUS_OK;
    }
    char(*grown)[RELEASE_VERSION_BYTES] =
        mem_realloc_array(list->versions, list->n + 1, sizeof *list->versions);
    if (grown == NULL) {
        return error_set(err, STATUS_NOMEM, "listing %s: no memory", folder);
    }
    list->versions = grown;
    (void)snprintf(list->versions[list->n], RELEASE_VERSION_BYTES, "%s", name);
    list->n++;
    return STATUS_OK;
}

static int compare_newest_first(const void *a, const void *b)
{
    return strcmp(b, a);
}

enum status release_list(const char *releases, struct release_list *out, struct error *err)
{
    char folder[PATH_BYTES_MAX];
    memset(out, 0, sizeof *out);
    enum status status = path_join(folder, releases, RELEASE_FOLDER_RELEASES, err);
    if (status == STATUS_OK) {
        status = release_for_each_entry(folder, add_version, out, err);
    }
    if (status != STATUS_OK) {
        release_list_free(out);
        return status;
    }
    if (out->n > 1) {
        qsort(out->versions, out->n, sizeof *out->versions, compare_newest_first);
    }
    return STATUS_OK;
}

void release_list_free(struct release_list *list)
{
    mem_free(list->versions);
    memset(list, 0, sizeof *list);
}
