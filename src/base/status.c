#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *status_text(enum status status)
{
    switch (status) {
#define STATUS_CASE(name, value, text)                                                             \
    case STATUS_##name:                                                                            \
        return text;
        STATUS_MAP(STATUS_CASE)
#undef STATUS_CASE
    }
    return "unknown status";
}

/* An argument may be err->message itself, so the text is made aside and then copied. */
__attribute__((format(printf, 2, 0))) static void set_message(struct error *err, const char *format,
                                                              va_list args)
{
    char text[ERROR_MESSAGE_BYTES];
    if (vsnprintf(text, sizeof(text), format, args) < 0)
        text[0] = '\0';
    memcpy(err->message, text, strlen(text) + 1);
}

enum status error_set(struct error *err, enum status code, const char *format, ...)
{
    if (err == NULL)
        return code;
    va_list args;
    va_start(args, format);
    set_message(err, format, args);
    va_end(args);
    err->code = code;
    err->field[0] = '\0';
    return code;
}

enum status error_set_field(struct error *err, enum status code, const char *field,
                            const char *format, ...)
{
    if (err == NULL)
        return code;
    va_list args;
    va_start(args, format);
    set_message(err, format, args);
    va_end(args);
    err->code = code;
    size_t len = field == NULL ? 0 : strnlen(field, ERROR_FIELD_BYTES - 1);
    if (len > 0)
        memmove(err->field, field, len);
    err->field[len] = '\0';
    return code;
}

static enum status status_from_errno(int number)
{
    switch (number) {
    case ENOENT:
        return STATUS_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return STATUS_PERMISSION;
    case ENOMEM:
        return STATUS_NOMEM;
    case EEXIST:
        return STATUS_EXISTS;
    default:
        return STATUS_IO;
    }
}

enum status error_set_errno(struct error *err, const char *format, ...)
{
    int number = errno;
    enum status code = status_from_errno(number);
    if (err == NULL)
        return code;
    va_list args;
    va_start(args, format);
    set_message(err, format, args);
    va_end(args);
    /* GNU strerror_r: thread-safe, unlike strerror, and may return a constant instead of reason. */
    char reason[128];
    const char *text = strerror_r(number, reason, sizeof(reason));
    size_t len = strlen(err->message);
    (void)snprintf(err->message + len, sizeof(err->message) - len, ": %s", text);
    err->code = code;
    err->field[0] = '\0';
    return code;
}

void error_prefix(struct error *err, const char *format, ...)
{
    if (err == NULL)
        return;
    char old[ERROR_MESSAGE_BYTES];
    memcpy(old, err->message, sizeof(old));
    va_list args;
    va_start(args, format);
    set_message(err, format, args);
    va_end(args);
    size_t len = strlen(err->message);
    (void)snprintf(err->message + len, sizeof(err->message) - len, "%s", old);
}
