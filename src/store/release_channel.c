#include "store/release.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/release_internal.h"

/* Channels: names that lead to releases. A channel is a symlink with a relative target, so that the
 * whole folder can be moved or mounted elsewhere. It is replaced by making a new link under a
 * temporary name and renaming it over the old one: there is no moment without a channel. Reading
 * accepts only targets of exactly the form that channel_set writes; a link that somebody made by
 * hand to another place is refused rather than followed. */

#define CHANNEL_TARGET_PREFIX "../" RELEASE_FOLDER_RELEASES "/"

enum { CHANNELS_NAMED_MAX_BYTES = 160 };

enum status channel_set(const char *releases, const char *channel, const char *version,
                        struct error *err)
{
    char folder[PATH_BYTES_MAX];
    char path[PATH_BYTES_MAX];
    char temporary[PATH_BYTES_MAX];
    char target[sizeof CHANNEL_TARGET_PREFIX + RELEASE_VERSION_BYTES];
    enum status status = release_check_name("channel", channel, err);
    if (status == STATUS_OK) {
        status = release_dir(releases, version, path, err);
    }
    if (status == STATUS_OK) {
        status = release_make_root(releases, err);
    }
    if (status == STATUS_OK) {
        status = path_join(folder, releases, RELEASE_FOLDER_CHANNELS, err);
    }
    if (status == STATUS_OK) {
        status = path_join(path, folder, channel, err);
    }
    if (status == STATUS_OK) {
        status = release_temporary_name(folder, temporary, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    release_remove_stale(folder);
    (void)snprintf(target, sizeof target, CHANNEL_TARGET_PREFIX "%s", version);
    (void)unlink(temporary); /* of a dead process that had our id */
    if (symlink(target, temporary) != 0) {
        return error_set_errno(err, "making %s", temporary);
    }
    if (rename(temporary, path) != 0) {
        status = error_set_errno(err, "renaming %s to %s", temporary, path);
        (void)unlink(temporary);
        return status;
    }
    return file_fsync(folder, err);
}

static enum status name_channel(void *context, const char *folder, const char *name,
                                struct error *err)
{
    struct buf *names = context;
    (void)folder;
    (void)err;
    if (release_name_valid(name)) {
        buf_printf(names, "%s%s", names->len > 0 ? ", " : "", name);
    }
    return STATUS_OK;
}

static enum status no_channel(const char *releases, const char *channel, struct error *err)
{
    struct buf names;
    char folder[PATH_BYTES_MAX];
    buf_init(&names, CHANNELS_NAMED_MAX_BYTES);
    enum status status = path_join(folder, releases, RELEASE_FOLDER_CHANNELS, err);
    if (status == STATUS_OK &&
        release_for_each_entry(folder, name_channel, &names, NULL) != STATUS_OK) {
        buf_reset(&names);
    }
    status = error_set(err, STATUS_NOT_FOUND, "no channel \"%s\"; there %s %s", channel,
                       names.len > 0 ? "are:" : "is", names.len > 0 ? buf_text(&names) : "none");
    buf_free(&names);
    return status;
}

enum status channel_resolve(const char *releases, const char *channel, char out[PATH_BYTES_MAX],
                            struct error *err)
{
    char path[PATH_BYTES_MAX];
    char target[PATH_BYTES_MAX];
    size_t prefix_len = strlen(CHANNEL_TARGET_PREFIX);
    out[0] = '\0';
    enum status status = release_check_name("channel", channel, err);
    if (status == STATUS_OK) {
        status = release_join(path, releases, RELEASE_FOLDER_CHANNELS, channel, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    ssize_t len = readlink(path, target, sizeof target - 1);
    if (len < 0 && errno == ENOENT) {
        return no_channel(releases, channel, err);
    }
    if (len < 0 && errno == EINVAL) {
        return error_set(err, STATUS_FORMAT, "channel \"%s\" is not a symlink", channel);
    }
    if (len < 0) {
        return error_set_errno(err, "reading %s", path);
    }
    target[len] = '\0';
    if (strncmp(target, CHANNEL_TARGET_PREFIX, prefix_len) != 0 ||
        !release_name_valid(target + prefix_len)) {
        return error_set(err, STATUS_FORMAT, "channel \"%s\" leads outside the releases: %.100s",
                         channel, target);
    }
    status = release_join(path, releases, RELEASE_FOLDER_RELEASES, target + prefix_len, err);
    if (status != STATUS_OK) {
        return status;
    }
    if (!release_is_folder(path)) {
        return error_set(err, STATUS_FORMAT,
                         "channel \"%s\" leads to release %s, which is not there", channel,
                         target + prefix_len);
    }
    memcpy(out, path, strlen(path) + 1);
    return STATUS_OK;
}
