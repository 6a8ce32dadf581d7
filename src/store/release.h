#ifndef AISLE_STORE_RELEASE_H
#define AISLE_STORE_RELEASE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/file.h"
#include "base/status.h"
#include "store/manifest.h"

/* The folder of releases:
 *   RELEASES/releases/VERSION/…           immutable; manifest.json is its last file
 *   RELEASES/channels/NAME → ../releases/VERSION   symlink, replaced by rename
 *   RELEASES/.tmp-…                       unfinished; removed by the next build when older than a
 * day A crash at any point leaves the old state or the new one. */

#define RELEASE_FILE_MANIFEST "manifest.json"
#define RELEASE_FILE_ITEMS "items.db"
#define RELEASE_FILE_VECTORS "vectors.safetensors"
#define RELEASE_FILE_MODEL "model.safetensors"
#define RELEASE_FILE_INDEX "index.faiss"
#define RELEASE_FILE_PROBES "probes.jsonl"
#define RELEASE_FILE_NEIGHBORS "neighbors.safetensors" /* optional */

/* Names of channels and versions: 1–63 of [A-Za-z0-9._-], not beginning with a dot. */
bool release_name_valid(const char *name);

/* A release being written. */
struct release_draft {
    char dir[PATH_BYTES_MAX];      /* write the files here */
    char releases[PATH_BYTES_MAX]; /* the root */
};
/* Creates the root's folders if absent and a temporary folder in it. */
enum status release_draft_open(const char *releases, struct release_draft *out,
                               struct error *err) STATUS_CHECKED;
/* Hashes the files, fills version (time + 4 hex digits of the content's hash), created_at_ms and
 * files of *manifest, writes it, fsyncs everything, renames the folder into place. INVALID: a
 * subfolder, symlink or hidden file in the draft. After a failure the draft is still there, to be
 * abandoned; after success nothing is left to abandon. */
enum status release_draft_commit(struct release_draft *draft, struct manifest *manifest,
                                 struct error *err) STATUS_CHECKED;
/* Removes the folder. Legal after a commit and on a zeroed struct: nothing happens. */
void release_draft_abandon(struct release_draft *draft);

/* Folder of a version: NOT_FOUND when it is not there, INVALID for no valid name. */
enum status release_dir(const char *releases, const char *version, char out[PATH_BYTES_MAX],
                        struct error *err) STATUS_CHECKED;

/* Points a channel at a version (which must be there). */
enum status channel_set(const char *releases, const char *channel, const char *version,
                        struct error *err) STATUS_CHECKED;
/* Real folder of a channel's release: NOT_FOUND with the channels that exist, FORMAT for a link
 * that leads to nothing or outside. */
enum status channel_resolve(const char *releases, const char *channel, char out[PATH_BYTES_MAX],
                            struct error *err) STATUS_CHECKED;

/* Reads the manifest and checks every file's size and SHA-256 (MISMATCH names the file), and that
 * the files this version needs are listed. */
enum status release_verify(const char *dir, struct manifest *out, struct error *err) STATUS_CHECKED;

struct release_list {
    char (*versions)[RELEASE_VERSION_BYTES]; /* sorted, newest first */
    size_t n;
};
enum status release_list(const char *releases, struct release_list *out,
                         struct error *err) STATUS_CHECKED;
void release_list_free(struct release_list *list);

#endif
