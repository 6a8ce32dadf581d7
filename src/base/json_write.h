#ifndef AISLE_BASE_JSON_WRITE_H
#define AISLE_BASE_JSON_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* Streaming JSON writer into a buf: places commas and escapes, allocates nothing itself. `key` is
 * NULL inside an array and at the top. Failures stick in the buf. At most JSON_WRITE_DEPTH_MAX
 * nested levels (an assert: it is our own mistake). */
enum { JSON_WRITE_DEPTH_MAX = 32 };

struct json_writer {
    struct buf *out; /* borrowed */
    unsigned depth;
    bool has_member[JSON_WRITE_DEPTH_MAX + 1];
};

void json_writer_init(struct json_writer *json, struct buf *out);
void json_begin_object(struct json_writer *json, const char *key);
void json_end_object(struct json_writer *json);
void json_begin_array(struct json_writer *json, const char *key);
void json_end_array(struct json_writer *json);
void json_string(struct json_writer *json, const char *key, const char *text);
/* Invalid UTF-8 is written as U+FFFD. */
void json_string_n(struct json_writer *json, const char *key, const char *text, size_t len);
void json_int(struct json_writer *json, const char *key, int64_t value);
/* Shortest text that reads back to the same double; NaN and infinities become null. */
void json_double(struct json_writer *json, const char *key, double value);
/* Shortest text that reads back to the same float. */
void json_float(struct json_writer *json, const char *key, float value);
void json_bool(struct json_writer *json, const char *key, bool value);
void json_null(struct json_writer *json, const char *key);
/* text is JSON already. */
void json_raw(struct json_writer *json, const char *key, const char *text, size_t len);

#endif
