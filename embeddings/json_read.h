#ifndef AISLE_EMBEDDINGS_JSON_READ_H
#define AISLE_EMBEDDINGS_JSON_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Strict reading of small JSON documents from files nobody vouches for: headers of tensor files,
 * settings of models. Wrapper around the JSON library, whose types stay in json_read.c. */
struct json_doc;
struct json_value; /* borrowed from its document; siblings are walked with json_next */

enum json_kind { JSON_OBJECT, JSON_ARRAY, JSON_STRING, JSON_NUMBER, JSON_BOOL, JSON_NULL };

struct json_limits {
    size_t n_values_max; /* members and elements together */
    size_t depth_max;    /* nested objects and arrays, at most 64 */
};

/* Parses text[0..len), which must be one JSON value, blanks around it allowed. FORMAT, with the
 * reason, for what the grammar does not allow (also what the library would let pass: control
 * characters, leading zeros, text after the value), for invalid UTF-8, for NUL characters even when
 * escaped, and for two equal names in one object. LIMIT over the limits, NOMEM. text may go away
 * after the call. The document is read-only and thread-safe. */
enum status json_doc_open(const char *text, size_t len, const struct json_limits *limits,
                          struct json_doc **out, struct error *err) STATUS_CHECKED;
void json_doc_close(struct json_doc *doc);

const struct json_value *json_root(const struct json_doc *doc);
enum json_kind json_kind(const struct json_value *value);
/* First member or element of an object or array, NULL when empty or another kind. */
const struct json_value *json_first(const struct json_value *value);
const struct json_value *json_next(const struct json_value *value);
/* Name of an object's member, "" for array elements. */
const char *json_name(const struct json_value *value);
/* Member of an object by exact name, or NULL; walks the members. */
const struct json_value *json_member(const struct json_value *object, const char *name);
/* NUL-terminated text of a JSON_STRING. */
const char *json_text(const struct json_value *value);
/* The number of a JSON_NUMBER, finite. */
double json_number(const struct json_value *value);
/* True and *out when value is a whole number in 0 … 2^53 - 1, which a double holds exactly. */
bool json_whole_number(const struct json_value *value, uint64_t *out);
/* True and *out when value is a JSON_BOOL. */
bool json_bool_value(const struct json_value *value, bool *out);

#endif
