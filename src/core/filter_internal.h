#ifndef AISLE_CORE_FILTER_INTERNAL_H
#define AISLE_CORE_FILTER_INTERNAL_H

#include "base/arena.h"
#include "core/filter.h"

/* A filter's parse tree, shared by filter_parse.c (text → tree) and filter.c (tree → rows). */

enum filter_kind { FILTER_ALL, FILTER_ANY, FILTER_NOT, FILTER_CONDITION };
enum filter_op {
    FILTER_EQ,
    FILTER_NE,
    FILTER_IN,
    FILTER_LT,
    FILTER_LTE,
    FILTER_GT,
    FILTER_GTE,
    FILTER_EXISTS,
    FILTER_UNDER,
    N_FILTER_OPS
};
enum filter_value_type { FILTER_TEXT, FILTER_NUMBER, FILTER_BOOL };

struct filter_value {
    enum filter_value_type type;
    const char *text;
    double number; /* NUMBER; BOOL: 0 or 1 */
};

struct filter_node {
    enum filter_kind kind;
    struct filter_node **children; /* ALL, ANY, NOT (one) */
    size_t n_children;
    const char *field; /* CONDITION */
    enum filter_op op;
    struct filter_value *values;
    size_t n_values;
};

/* The tree lives in the arena. Errors as filter_check. */
enum status filter_parse(const char *json, size_t len, struct arena *arena,
                         struct filter_node **out, struct error *err) STATUS_CHECKED;

#endif
