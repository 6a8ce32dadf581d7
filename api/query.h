#ifndef AISLE_API_QUERY_H
#define AISLE_API_QUERY_H

#include <stddef.h>

#include "base/buf.h"
#include "base/status.h"

/* Percent-decoding of a path segment or query part into out[out_size], NUL-terminated; '+' means a
 * blank in queries only. INVALID: a bad escape, NUL or invalid UTF-8; LIMIT: too long. */
enum percent_kind { PERCENT_PATH, PERCENT_QUERY };
enum status percent_decode(const char *text, size_t len, enum percent_kind kind, char *out,
                           size_t out_size, size_t *out_len) STATUS_CHECKED;

/* Who asks: which path parameters stand in the request besides the query's. */
struct query_subject {
    const char *scenario;
    const char *user_id; /* of the path, or NULL: user_id may stand in the query */
    const char *item_id; /* of the path, or NULL: becomes the request's `items` */
};
enum { QUERY_VALUE_MAX_BYTES = 4096 };

/* The query string of the GET forms → the same request as a JSON object in *out, to be decoded like
 * a posted one: category, price_max and in_stock become its filter, the others keep their names.
 * A text or condition without value counts as not given. INVALID names an unknown, repeated or
 * malformed parameter in err->field. query may be NULL. */
enum status query_to_json(const char *query, const struct query_subject *subject, struct buf *out,
                          struct error *err) STATUS_CHECKED;

#endif
