#include "embeddings/npy.h"

#include <stdbool.h>
#include <string.h>

#include "embeddings/embeddings_internal.h"

/* NumPy's array file (numpy.lib.format): magic, version, header length, and a Python dictionary
 * with exactly the keys descr, fortran_order and shape; the data follow. The dictionary is read by
 * a cursor that knows this one shape of it: a general reader of Python literals would be more code
 * and accept more than NumPy writes. Versions differ in the width of the length field (1: 16 bits,
 * 2 and 3: 32) and in the header's encoding, which makes no difference for these three keys. */

static const unsigned char magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
enum { VERSION_BYTES = 2, HEADER_BYTES_MAX = 65535 /* enough for one array of rank 2 */ };

struct cursor {
    const char *next;
    const char *end;
};

struct dictionary {
    bool has_descr, has_order, has_shape;
    enum vector_type type;
    uint64_t n, dim;
};

static void skip_blanks(struct cursor *cursor)
{
    while (cursor->next < cursor->end && (*cursor->next == ' ' || *cursor->next == '\n')) {
        cursor->next++;
    }
}

/* Steps over blanks and text, if text stands there. */
static bool take(struct cursor *cursor, const char *text)
{
    skip_blanks(cursor);
    const size_t len = strlen(text);
    if ((size_t)(cursor->end - cursor->next) < len || memcmp(cursor->next, text, len) != 0) {
        return false;
    }
    cursor->next += len;
    return true;
}

/* A Python text 'word' or "word". */
static bool take_text(struct cursor *cursor, const char *word)
{
    const struct cursor before = *cursor;
    for (int i = 0; i < 2; i++) {
        const char *quote = i == 0 ? "'" : "\"";
        const size_t len = strlen(word);
        *cursor = before;
        if (take(cursor, quote) && (size_t)(cursor->end - cursor->next) > len &&
            memcmp(cursor->next, word, len) == 0 && cursor->next[len] == *quote) {
            cursor->next += len + 1;
            return true;
        }
    }
    *cursor = before;
    return false;
}

static bool take_whole_number(struct cursor *cursor, uint64_t *out)
{
    uint64_t value = 0;
    skip_blanks(cursor);
    const char *first = cursor->next;
    for (; cursor->next < cursor->end && *cursor->next >= '0' && *cursor->next <= '9';
         cursor->next++) {
        if (__builtin_mul_overflow(value, 10U, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*cursor->next - '0'), &value)) {
            return false;
        }
    }
    *out = value;
    return cursor->next > first;
}

static const char *take_descr(struct cursor *cursor, struct dictionary *dictionary)
{
    if (dictionary->has_descr) {
        return "key descr stands twice";
    }
    dictionary->has_descr = true;
    if (take_text(cursor, "<f4")) {
        dictionary->type = VECTOR_F32;
    } else if (take_text(cursor, "<f2")) {
        dictionary->type = VECTOR_F16;
    } else {
        return "values are not little-endian float32 or float16";
    }
    return NULL;
}

static const char *take_order(struct cursor *cursor, struct dictionary *dictionary)
{
    if (dictionary->has_order) {
        return "key fortran_order stands twice";
    }
    dictionary->has_order = true;
    return take(cursor, "False") ? NULL : "rows are not in C order";
}

static const char *take_shape(struct cursor *cursor, struct dictionary *dictionary)
{
    if (dictionary->has_shape) {
        return "key shape stands twice";
    }
    dictionary->has_shape = true;
    if (!take(cursor, "(") || !take_whole_number(cursor, &dictionary->n) || !take(cursor, ",") ||
        !take_whole_number(cursor, &dictionary->dim)) {
        return "shape is not rows × dimension";
    }
    (void)take(cursor, ",");
    return take(cursor, ")") ? NULL : "shape is not rows × dimension";
}

/* One key with its value; the reason of a failure or NULL. */
static const char *take_member(struct cursor *cursor, struct dictionary *out)
{
    static const struct {
        const char *key;
        const char *(*take_value)(struct cursor *, struct dictionary *);
    } members[] = {{"descr", take_descr}, {"fortran_order", take_order}, {"shape", take_shape}};
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        if (take_text(cursor, members[i].key)) {
            return take(cursor, ":") ? members[i].take_value(cursor, out) : "no colon after a key";
        }
    }
    return "unknown key in the header";
}

/* Reason of the failure or NULL. */
static const char *read_dictionary(struct cursor cursor, struct dictionary *out)
{
    *out = (struct dictionary){.has_descr = false};
    if (!take(&cursor, "{")) {
        return "header is not a dictionary";
    }
    while (!take(&cursor, "}")) {
        const char *fault = take_member(&cursor, out);
        if (fault != NULL) {
            return fault;
        }
        if (!take(&cursor, ",")) {
            if (!take(&cursor, "}")) {
                return "unfinished header";
            }
            break;
        }
    }
    skip_blanks(&cursor);
    if (cursor.next != cursor.end) {
        return "text after the header's dictionary";
    }
    return out->has_descr && out->has_order && out->has_shape ? NULL : "a key is missing";
}

enum status npy_parse(const void *bytes, size_t n_bytes, struct vectors *out, struct error *err)
{
    const unsigned char *file = bytes;
    const size_t prefix = sizeof(magic) + VERSION_BYTES;
    *out = (struct vectors){.data = NULL};
    if (n_bytes < prefix || memcmp(file, magic, sizeof(magic)) != 0) {
        return error_set(err, STATUS_FORMAT, "not a .npy file");
    }
    const unsigned version = file[sizeof(magic)];
    if (version < 1 || version > 3) {
        return error_set(err, STATUS_FORMAT, ".npy: unknown version %u", version);
    }
    const size_t width = version == 1 ? sizeof(uint16_t) : sizeof(uint32_t);
    uint32_t length = 0;
    if (n_bytes - prefix < width) {
        return error_set(err, STATUS_FORMAT, ".npy: file ends within the header");
    }
    memcpy(&length, file + prefix, width);
    const size_t left = n_bytes - prefix - width;
    if (length > HEADER_BYTES_MAX || length > left) {
        return error_set(err, STATUS_FORMAT, ".npy: header of %u bytes in a file of %zu", length,
                         n_bytes);
    }
    const char *header = (const char *)file + prefix + width;
    struct dictionary dictionary;
    const char *fault =
        read_dictionary((struct cursor){.next = header, .end = header + length}, &dictionary);
    if (fault != NULL) {
        return error_set(err, STATUS_FORMAT, ".npy: %s", fault);
    }
    size_t n_values = 0;
    size_t n_data = 0;
    const uint64_t shape[2] = {dictionary.n, dictionary.dim};
    if (!tensor_size(shape, 2, dictionary.type == VECTOR_F16 ? TENSOR_F16 : TENSOR_F32, &n_values,
                     &n_data) ||
        n_data != left - length) {
        return error_set(err, STATUS_FORMAT, ".npy: shape %llu × %llu does not fit %zu bytes",
                         (unsigned long long)shape[0], (unsigned long long)shape[1], left - length);
    }
    const struct vectors table = {.data = header + length,
                                  .n = (size_t)dictionary.n,
                                  .dim = (size_t)dictionary.dim,
                                  .type = dictionary.type};
    return vectors_view(".npy", &table, out, err);
}

enum status npy_open(const char *path, struct npy *out, struct error *err)
{
    *out = (struct npy){.map = {.data = NULL}};
    struct file_map map;
    enum status status = file_map_open(path, &map, err);
    if (status != STATUS_OK) {
        return status;
    }
    status = npy_parse(map.data, map.n_bytes, &out->vectors, err);
    if (status != STATUS_OK) {
        file_map_close(&map);
        error_prefix(err, "%s: ", path);
        return status;
    }
    out->map = map;
    return STATUS_OK;
}

void npy_close(struct npy *npy)
{
    if (npy != NULL && npy->map.data != NULL) {
        file_map_close(&npy->map);
        *npy = (struct npy){.map = {.data = NULL}};
    }
}
