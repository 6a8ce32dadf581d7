#include "embeddings/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/json_write.h"
#include "embeddings/embeddings_internal.h"

/* The header is built in memory and padded with blanks so that the data begin at a multiple of 64
 * bytes of the file: a mapping is page-aligned, so vectors can be used in place. */

enum { DATA_ALIGNMENT = 64 };

static int compare_texts(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;
    return strcmp(*left, *right);
}

static enum status refuse_equal(const char **names, size_t n, const char *what, struct error *err)
{
    qsort(names, n, sizeof(*names), compare_texts);
    for (size_t i = 1; i < n; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            return error_set(err, STATUS_INVALID, "%s \"%.96s\" is given twice", what, names[i]);
        }
    }
    return STATUS_OK;
}

static enum status check_input(const struct tensor_to_write *tensors, size_t n_tensors,
                               const struct metadata_entry *metadata, size_t n_metadata,
                               struct error *err)
{
    if (n_tensors > SAFETENSORS_TENSORS_MAX || n_metadata > SAFETENSORS_METADATA_MAX) {
        return error_set(err, STATUS_INVALID, "more tensors or metadata than a file may have");
    }
    const size_t n_names = n_tensors > n_metadata ? n_tensors : n_metadata;
    const char **names = mem_alloc_array(n_names, sizeof(*names));
    if (names == NULL) {
        return error_set(err, STATUS_NOMEM, "out of memory for %zu names", n_names);
    }
    enum status status = STATUS_OK;
    for (size_t i = 0; i < n_tensors && status == STATUS_OK; i++) {
        names[i] = tensors[i].name;
        if (tensors[i].rank > SAFETENSORS_RANK_MAX ||
            strcmp(tensors[i].name, SAFETENSORS_METADATA_NAME) == 0) {
            status = error_set(err, STATUS_INVALID, "tensor \"%.96s\": name or rank not allowed",
                               tensors[i].name);
        }
    }
    if (status == STATUS_OK) {
        status = refuse_equal(names, n_tensors, "tensor", err);
    }
    for (size_t i = 0; i < n_metadata && status == STATUS_OK; i++) {
        names[i] = metadata[i].key;
    }
    if (status == STATUS_OK) {
        status = refuse_equal(names, n_metadata, "metadata key", err);
    }
    mem_free(names);
    return status;
}

/* One tensor's member; *offset is where its data begin and moves behind them. False on overflow. */
static bool write_tensor_entry(struct json_writer *json, const struct tensor_to_write *tensor,
                               size_t *offset)
{
    size_t n_values = 0;
    size_t n_bytes = 0;
    size_t end = 0;
    if (!tensor_size(tensor->shape, tensor->rank, tensor->type, &n_values, &n_bytes) ||
        __builtin_add_overflow(*offset, n_bytes, &end) || end > INT64_MAX) {
        return false;
    }
    json_begin_object(json, tensor->name);
    json_string(json, "dtype", tensor_type_name(tensor->type));
    json_begin_array(json, "shape");
    for (size_t i = 0; i < tensor->rank; i++) {
        json_int(json, NULL, (int64_t)tensor->shape[i]);
    }
    json_end_array(json);
    json_begin_array(json, "data_offsets");
    json_int(json, NULL, (int64_t)*offset);
    json_int(json, NULL, (int64_t)end);
    json_end_array(json);
    json_end_object(json);
    *offset = end;
    return true;
}

/* Length field, JSON and padding to out. */
static enum status make_header(const struct tensor_to_write *tensors, size_t n_tensors,
                               const struct metadata_entry *metadata, size_t n_metadata,
                               struct buf *out, struct error *err)
{
    struct json_writer json;
    uint64_t length = 0;
    size_t offset = 0;
    buf_append(out, &length, sizeof(length));
    json_writer_init(&json, out);
    json_begin_object(&json, NULL);
    if (n_metadata > 0) {
        json_begin_object(&json, SAFETENSORS_METADATA_NAME);
        for (size_t i = 0; i < n_metadata; i++) {
            json_string(&json, metadata[i].key, metadata[i].text);
        }
        json_end_object(&json);
    }
    for (size_t i = 0; i < n_tensors; i++) {
        if (!write_tensor_entry(&json, &tensors[i], &offset)) {
            return error_set(err, STATUS_INVALID, "tensor \"%.96s\" is too large", tensors[i].name);
        }
    }
    json_end_object(&json);
    while (out->status == STATUS_OK && out->len % DATA_ALIGNMENT != 0) {
        buf_append_char(out, ' ');
    }
    if (out->status != STATUS_OK) {
        return error_set(err, out->status, "header of the tensor file: %s",
                         status_text(out->status));
    }
    length = out->len - SAFETENSORS_LENGTH_BYTES;
    memcpy(out->data, &length, sizeof(length));
    return STATUS_OK;
}

static enum status write_file(const char *path, const struct buf *header,
                              const struct tensor_to_write *tensors, size_t n_tensors,
                              struct error *err)
{
    struct file_writer file;
    enum status status = file_writer_open(&file, path, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = file_writer_write(&file, header->data, header->len, err);
    for (size_t i = 0; i < n_tensors && status == STATUS_OK; i++) {
        size_t n_values = 0;
        size_t n_bytes = 0;
        (void)tensor_size(tensors[i].shape, tensors[i].rank, tensors[i].type, &n_values, &n_bytes);
        status = file_writer_write(&file, tensors[i].data, n_bytes, err);
    }
    if (status == STATUS_OK) {
        return file_writer_commit(&file, err);
    }
    file_writer_abandon(&file);
    return status;
}

enum status safetensors_write(const char *path, const struct tensor_to_write *tensors,
                              size_t n_tensors, const struct metadata_entry *metadata,
                              size_t n_metadata, struct error *err)
{
    enum status status = check_input(tensors, n_tensors, metadata, n_metadata, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct buf header;
    buf_init(&header, SAFETENSORS_HEADER_BYTES_MAX);
    status = make_header(tensors, n_tensors, metadata, n_metadata, &header, err);
    if (status == STATUS_OK) {
        status = write_file(path, &header, tensors, n_tensors, err);
    }
    buf_free(&header);
    return status;
}
