#ifndef AISLE_BASE_JSON_SCAN_H
#define AISLE_BASE_JSON_SCAN_H

#include <stddef.h>

#include "base/status.h"

/* A strict look over JSON text (RFC 8259) before a tree is made of it: grammar, UTF-8, depth and
 * number of values are bounded, so that what is parsed afterwards cannot use more than a small
 * multiple of its own size. Also finds where the elements of a list begin and end, so that a batch
 * is decoded piece by piece. What passed, cJSON parses as it stands, or is out of memory. */
enum json_shape {
    JSON_SHAPE_OBJECT, /* one object */
    JSON_SHAPE_ARRAY,  /* one array; the spans are its elements */
    JSON_SHAPE_LINES,  /* several objects after each other (NDJSON); the spans are these */
};

struct json_span {
    size_t offset;
    size_t len;
};

enum {
    JSON_VALUES_MAX = 1 << 18, /* in one text; each costs about 64 bytes in a tree */
};

struct json_scan {
    /* in */
    const char *text;
    size_t len;
    size_t depth_max; /* at most 64 */
    size_t values_max;
    struct json_span *spans; /* [spans_max], the caller's; may be NULL with spans_max 0 */
    size_t spans_max;        /* LIMIT beyond; with 0 elements are not collected */
    /* out */
    enum json_shape shape;
    size_t n_spans; /* elements collected; an object counts as one */
};

/* Fills shape, spans and n_spans. INVALID says what is wrong and at which byte; LIMIT: too deep,
 * too many values or elements. Anything but an object or array at the top is INVALID. Pure; fuzzed.
 */
enum status json_scan(struct json_scan *scan, struct error *err) STATUS_CHECKED;

#endif
