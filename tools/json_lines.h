#ifndef AISLE_TOOLS_JSON_LINES_H
#define AISLE_TOOLS_JSON_LINES_H

#include "base/buf.h"
#include "base/status.h"

/* JSON text as lines for people: "name: value" a member, members of objects indented below their
 * name, an object of number arrays of one length (a training curve) as a table with a column each,
 * other arrays of numbers by length, first, last and range. skip: a member of the top object that
 * is left out, or NULL. FORMAT: not an object. */
enum status json_lines(const char *text, const char *skip, struct buf *out,
                       struct error *err) STATUS_CHECKED;

#endif
