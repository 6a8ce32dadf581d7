#include "api/decode_internal.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/parse.h"

/* What both decoders have in common. Text has passed json_scan before, so a tree's strings are
 * valid UTF-8 without NUL, and its numbers follow JSON's grammar (but may overflow to infinity). */

static void *json_alloc(size_t n_bytes)
{
    return mem_alloc(n_bytes);
}

void decode_init(void)
{
    cJSON_Hooks hooks = {.malloc_fn = json_alloc, .free_fn = mem_free};
    cJSON_InitHooks(&hooks);
}

/* Names of a client's members go into messages and err->field shortened. */
static enum status member_fault(struct decoder *decoder, const char *name, const char *what)
{
    char field[ERROR_FIELD_BYTES];
    size_t n = strlen(name) < sizeof(field) ? strlen(name) : sizeof(field) - 1;
    while (n > 0 && ((unsigned char)name[n] & 0xC0) == 0x80) {
        n--; /* not in the middle of a character */
    }
    memcpy(field, name, n);
    field[n] = '\0';
    return error_set_field(decoder->err, STATUS_INVALID, field, "%s \"%s\"", what, field);
}

enum status decode_object(struct decoder *decoder, const cJSON *object,
                          const struct decoder_member *members, size_t n_members)
{
    uint32_t seen = 0;
    const cJSON *value = NULL;
    if (!cJSON_IsObject(object)) {
        return error_set(decoder->err, STATUS_INVALID, "not a JSON object");
    }
    cJSON_ArrayForEach (value, object) {
        size_t i = 0;
        while (i < n_members && strcmp(members[i].name, value->string) != 0) {
            i++;
        }
        if (i == n_members ||
            (members[i].kinds != 0 && (members[i].kinds & (unsigned)decoder->kind) == 0)) {
            return member_fault(decoder, value->string, "unknown field");
        }
        if ((seen >> i & 1) != 0) {
            return member_fault(decoder, value->string, "repeated field");
        }
        seen |= UINT32_C(1) << i;
        enum status status = members[i].read(decoder, members[i].name, value);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

enum status decode_text(struct decoder *decoder, const char *name, const cJSON *value,
                        const char **out)
{
    if (!cJSON_IsString(value)) {
        return error_set_field(decoder->err, STATUS_INVALID, name, "%s must be a string", name);
    }
    const char *copy =
        arena_strndup(decoder->arena, value->valuestring, strlen(value->valuestring));
    if (copy == NULL) {
        return error_set(decoder->err, STATUS_NOMEM, "memory of one request");
    }
    *out = copy;
    return STATUS_OK;
}

enum status decode_id(struct decoder *decoder, const char *name, const cJSON *value,
                      const char **out)
{
    if (!cJSON_IsString(value)) {
        return error_set_field(decoder->err, STATUS_INVALID, name, "%s must be a string", name);
    }
    if (!id_valid(value->valuestring, strnlen(value->valuestring, ID_BYTES_MAX + 1))) {
        return error_set_field(decoder->err, STATUS_INVALID, name,
                               "%s must be 1 to %d bytes without control characters", name,
                               ID_BYTES_MAX);
    }
    return decode_text(decoder, name, value, out);
}

enum status decode_bool(struct decoder *decoder, const char *name, const cJSON *value, bool *out)
{
    if (!cJSON_IsBool(value)) {
        return error_set_field(decoder->err, STATUS_INVALID, name, "%s must be true or false",
                               name);
    }
    *out = cJSON_IsTrue(value) != 0;
    return STATUS_OK;
}

enum status decode_number(struct decoder *decoder, const char *name, const cJSON *value,
                          struct decode_range range, double *out)
{
    if (!cJSON_IsNumber(value)) {
        return error_set_field(decoder->err, STATUS_INVALID, name, "%s must be a number", name);
    }
    double number = value->valuedouble;
    if (!(number >= range.min && number <= range.max)) {
        return error_set_field(decoder->err, STATUS_INVALID, name, "%s must be %.15g to %.15g",
                               name, range.min, range.max);
    }
    *out = number;
    return STATUS_OK;
}

enum status decode_integer(struct decoder *decoder, const char *name, const cJSON *value,
                           struct decode_range range, int64_t *out)
{
    double number = 0.0;
    enum status status = decode_number(decoder, name, value, range, &number);
    if (status != STATUS_OK) {
        return status;
    }
    if (trunc(number) < number || trunc(number) > number) {
        return error_set_field(decoder->err, STATUS_INVALID, name, "%s must be a whole number",
                               name);
    }
    *out = (int64_t)number;
    return STATUS_OK;
}
