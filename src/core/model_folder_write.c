#include "core/model_folder_write.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "core/model_folder.h"
#include "embeddings/safetensors.h"

/* A folder cannot replace another one in one step everywhere, so the old one is renamed away first
 * and back again if the second rename fails; a kill between the two leaves both under names that
 * say what they are. */

#define IDS_MAX_BYTES ((size_t)1 << 32)

static enum status refuse_other_folders(const struct model_folder_writer *writer, struct error *err)
{
    /* An empty folder is fine: removing it proves that it is one. */
    if (file_exists(writer->out) && !model_folder_is_one(writer->out) && rmdir(writer->out) != 0) {
        return error_set(err, STATUS_EXISTS, "%.150s is there and is no model folder: not replaced",
                         writer->out);
    }
    return STATUS_OK;
}

enum status model_folder_writer_check(struct model_folder_writer *writer, const char *dir,
                                      struct error *err)
{
    *writer = (struct model_folder_writer){.out = ""};
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') {
        len--;
    }
    if (len == 0) {
        return error_set(err, STATUS_INVALID, "no output folder is given");
    }
    if (len >= sizeof(writer->out)) {
        return error_set(err, STATUS_LIMIT, "the path of the output folder is too long");
    }
    memcpy(writer->out, dir, len);
    return refuse_other_folders(writer, err);
}

enum status model_folder_writer_begin(struct model_folder_writer *writer, struct error *err)
{
    char path[PATH_BYTES_MAX];
    int n = snprintf(path, sizeof(path), "%s.tmp-%ld", writer->out, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof(path)) {
        return error_set(err, STATUS_LIMIT, "the path of the output folder is too long");
    }
    enum status status = dir_remove(path, err); /* of an earlier process with this number */
    if (status == STATUS_OK) {
        status = dir_make(path, err);
    }
    if (status == STATUS_OK) {
        memcpy(writer->temporary, path, sizeof(path));
    }
    return status;
}

enum status model_folder_writer_path(const struct model_folder_writer *writer, const char *name,
                                     char out[PATH_BYTES_MAX], struct error *err)
{
    return path_join(out, writer->temporary, name, err);
}

enum status model_folder_writer_text(const struct model_folder_writer *writer, const char *name,
                                     struct buf *text, struct error *err)
{
    char path[PATH_BYTES_MAX];
    enum status status = model_folder_writer_path(writer, name, path, err);
    if (status == STATUS_OK && text->status != STATUS_OK) {
        status = error_set(err, text->status, "writing %s: %s", name, status_text(text->status));
    }
    return status == STATUS_OK ? file_write_atomic(path, buf_text(text), text->len, err) : status;
}

enum status model_folder_writer_ids(const struct model_folder_writer *writer,
                                    const struct idmap *ids, struct error *err)
{
    struct buf text;
    buf_init(&text, IDS_MAX_BYTES);
    for (uint32_t row = 0; row < idmap_size(ids); row++) {
        size_t len = 0;
        const char *id = idmap_id(ids, row, &len);
        buf_append(&text, id, len);
        buf_append_char(&text, '\n');
    }
    const enum status status = model_folder_writer_text(writer, MODEL_FILE_ITEM_IDS, &text, err);
    buf_free(&text);
    return status;
}

enum status model_folder_writer_vectors(const struct model_folder_writer *writer,
                                        const struct vectors *vectors, const float *counts,
                                        struct error *err)
{
    char path[PATH_BYTES_MAX];
    const struct tensor_to_write tensors[] = {
        {MODEL_TENSOR_VECTORS,
         vectors->type == VECTOR_F16 ? TENSOR_F16 : TENSOR_F32,
         2,
         {vectors->n, vectors->dim},
         vectors->data},
        {MODEL_TENSOR_COUNTS, TENSOR_F32, 1, {vectors->n}, counts},
    };
    const enum status status = model_folder_writer_path(writer, MODEL_FILE_VECTORS, path, err);
    return status == STATUS_OK
               ? safetensors_write(path, tensors, counts != NULL ? 2 : 1, NULL, 0, err)
               : status;
}

enum status model_folder_writer_commit(struct model_folder_writer *writer, struct error *err)
{
    char old[PATH_BYTES_MAX];
    int n = snprintf(old, sizeof(old), "%s.old-%ld", writer->out, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof(old)) {
        return error_set(err, STATUS_LIMIT, "the path of the output folder is too long");
    }
    enum status status = file_fsync(writer->temporary, err);
    if (status == STATUS_OK) {
        status = refuse_other_folders(writer, err); /* again: hours may have passed */
    }
    if (status != STATUS_OK) {
        return status;
    }
    const bool replaces = file_exists(writer->out);
    if (replaces && rename(writer->out, old) != 0) {
        return error_set_errno(err, "renaming %s", writer->out);
    }
    if (rename(writer->temporary, writer->out) != 0) {
        status = error_set_errno(err, "naming %s", writer->out);
        if (replaces && rename(old, writer->out) != 0) {
            error_prefix(err, "the old model is now %.100s; ", old);
        }
        return status;
    }
    writer->temporary[0] = '\0';
    if (replaces && dir_remove(old, NULL) != STATUS_OK) {
        LOG_WARN("the replaced model stays", LOG_S("dir", old));
    }
    return STATUS_OK;
}

void model_folder_writer_abandon(struct model_folder_writer *writer)
{
    if (writer->temporary[0] != '\0' && dir_remove(writer->temporary, NULL) != STATUS_OK) {
        LOG_WARN("temporary folder stays", LOG_S("dir", writer->temporary));
    }
    writer->temporary[0] = '\0';
}
