#ifndef AISLE_BASE_STATUS_H
#define AISLE_BASE_STATUS_H

#include <stddef.h>

/* Result of everything that can fail: 0 good, negative bad. One X-macro makes the enumeration
 * and its texts, so that they cannot drift apart. */
#define STATUS_MAP(X)                                                                              \
    X(OK, 0, "ok")                                                                                 \
    X(INVALID, -1, "invalid input")                                                                \
    X(NOMEM, -2, "out of memory")                                                                  \
    X(IO, -3, "input/output error")                                                                \
    X(NOT_FOUND, -4, "not found")                                                                  \
    X(FORMAT, -5, "damaged or unknown format")                                                     \
    X(MISMATCH, -6, "parts do not belong together")                                                \
    X(LIMIT, -7, "limit exceeded")                                                                 \
    X(TIMEOUT, -8, "timed out")                                                                    \
    X(UNAVAILABLE, -9, "unavailable")                                                              \
    X(EXISTS, -10, "exists already")                                                               \
    X(UNSUPPORTED, -11, "not supported")                                                           \
    X(PERMISSION, -12, "permission denied")                                                        \
    X(INTERNAL, -13, "internal error")

enum status {
#define STATUS_ENUMERATOR(name, value, text) STATUS_##name = (value),
    STATUS_MAP(STATUS_ENUMERATOR)
#undef STATUS_ENUMERATOR
};

#define STATUS_CHECKED __attribute__((warn_unused_result))

enum { ERROR_MESSAGE_BYTES = 256, ERROR_FIELD_BYTES = 64 };

/* Detail of a failure, written once where the fault is found. `field` names the JSON field or the
 * column at fault, empty if none. Always an optional last argument: NULL is legal everywhere. */
struct error {
    enum status code;
    char message[ERROR_MESSAGE_BYTES];
    char field[ERROR_FIELD_BYTES];
};

/* Fixed English text of a status; "unknown status" for a value outside the enumeration. */
const char *status_text(enum status status);

/* Writes code and message, clears field, returns code: `return error_set(err, STATUS_IO, …)`. */
enum status error_set(struct error *err, enum status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Like error_set and names the field at fault. */
enum status error_set_field(struct error *err, enum status code, const char *field,
                            const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Message and ": <strerror(errno)>"; the code follows errno (ENOENT → NOT_FOUND, EACCES/EPERM/EROFS
 * → PERMISSION, ENOMEM → NOMEM, EEXIST → EXISTS, else IO). errno is captured on entry. */
enum status error_set_errno(struct error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Puts context before the message that is there ("reading x: " + message). */
void error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
