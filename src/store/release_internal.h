#ifndef AISLE_STORE_RELEASE_INTERNAL_H
#define AISLE_STORE_RELEASE_INTERNAL_H

#include <stdbool.h>

#include "base/file.h"
#include "base/status.h"

/* Shared by release.c and release_channel.c. */

#define RELEASE_FOLDER_RELEASES "releases"
#define RELEASE_FOLDER_CHANNELS "channels"

/* INVALID with the rule for names; what is "release" or "channel". */
enum status release_check_name(const char *what, const char *name,
                               struct error *err) STATUS_CHECKED;

typedef enum status release_entry_fn(void *context, const char *folder, const char *name,
                                     struct error *err);
/* Calls visit for each entry but "." and "..", in the file system's order, until it fails. */
enum status release_for_each_entry(const char *folder, release_entry_fn *visit, void *context,
                                   struct error *err) STATUS_CHECKED;
bool release_is_folder(const char *path);
/* Removes temporary entries that nobody has touched for a day. */
void release_remove_stale(const char *folder);
/* "FOLDER/.tmp-PID-NUMBER", unlike any other of this process. */
enum status release_temporary_name(const char *folder, char out[PATH_BYTES_MAX],
                                   struct error *err) STATUS_CHECKED;
/* "a/b/c". */
enum status release_join(char out[PATH_BYTES_MAX], const char *a, const char *b, const char *c,
                         struct error *err) STATUS_CHECKED;
/* Makes the root and its folders where absent. */
enum status release_make_root(const char *releases, struct error *err) STATUS_CHECKED;

#endif
