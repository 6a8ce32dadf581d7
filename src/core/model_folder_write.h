#ifndef AISLE_CORE_MODEL_FOLDER_WRITE_H
#define AISLE_CORE_MODEL_FOLDER_WRITE_H

#include "base/buf.h"
#include "base/file.h"
#include "base/idmap.h"
#include "base/status.h"
#include "base/vectors.h"

/* Writing a model folder (core/model_folder.h) beside its place and renaming it, so that whatever
 * happens the old folder or the new one is there, whole. One thread.
 *   check → begin → files by _path, _text, _ids, _vectors → commit, or abandon at any time */
struct model_folder_writer {
    char out[PATH_BYTES_MAX];       /* without slashes at its end */
    char temporary[PATH_BYTES_MAX]; /* "" unless begun */
};

/* Whether dir may be written: absent, empty, or a model folder (EXISTS otherwise; LIMIT: its path
 * is too long). Fills *writer; to be called before long work. */
enum status model_folder_writer_check(struct model_folder_writer *writer, const char *dir,
                                      struct error *err) STATUS_CHECKED;
/* Makes the temporary folder. */
enum status model_folder_writer_begin(struct model_folder_writer *writer,
                                      struct error *err) STATUS_CHECKED;
/* Path of a file in it. */
enum status model_folder_writer_path(const struct model_folder_writer *writer, const char *name,
                                     char out[PATH_BYTES_MAX], struct error *err) STATUS_CHECKED;
/* text, whose own failure is reported, as file `name`. */
enum status model_folder_writer_text(const struct model_folder_writer *writer, const char *name,
                                     struct buf *text, struct error *err) STATUS_CHECKED;
/* item_ids.txt. */
enum status model_folder_writer_ids(const struct model_folder_writer *writer,
                                    const struct idmap *ids, struct error *err) STATUS_CHECKED;
/* vectors.safetensors; counts[vectors->n] or NULL. */
enum status model_folder_writer_vectors(const struct model_folder_writer *writer,
                                        const struct vectors *vectors, const float *counts,
                                        struct error *err) STATUS_CHECKED;
/* The temporary folder takes its place; an old model comes back if that fails. */
enum status model_folder_writer_commit(struct model_folder_writer *writer,
                                       struct error *err) STATUS_CHECKED;
/* Removes the temporary folder. Legal on a zeroed struct and after a commit. */
void model_folder_writer_abandon(struct model_folder_writer *writer);

#endif
