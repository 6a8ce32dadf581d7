#ifndef AISLE_STORE_ITEMS_H
#define AISLE_STORE_ITEMS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* An item as a shop's item file describes it. Absent texts are NULL, absent numbers NAN. */
enum { ITEM_ATTRIBUTES_MAX = 256, ITEM_TEXT_MAX_BYTES = 65536 };

enum attribute_type { ATTRIBUTE_TEXT, ATTRIBUTE_NUMBER, ATTRIBUTE_BOOL };

struct item_attribute {
    const char *name; /* without the "attributes." prefix */
    enum attribute_type type;
    const char *text; /* as written */
    double number;    /* NUMBER; BOOL: 0 or 1 */
};

struct item {
    const char *id;
    const char *title;
    const char *category; /* "Home > Lighting > Lanterns", single blanks around '>' */
    const char *brand;
    const char *currency;
    const char *image_url;
    const char *url;
    double price;
    double stock;
    double created_at_ms; /* Unix ms */
    const struct item_attribute *attributes;
    size_t n_attributes;
};

struct item_reader;

/* Reads item files (contract "Item files"): CSV or JSON Lines; id and title required; other columns
 * become attributes, typed per value here (number if it parses strictly, bool for true/false, else
 * text; a JSON string is always text) and per column by the catalogue. INVALID names file, line
 * and column: missing or over-long id, missing title, NaN or negative price, malformed number or
 * time. Duplicate ids are refused by name and both lines. */
enum status item_reader_open(const char *path, struct item_reader **out,
                             struct error *err) STATUS_CHECKED;
/* OK and *item (borrowed until the next call), or NOT_FOUND at the end (err untouched). */
enum status item_reader_next(struct item_reader *reader, struct item *item,
                             struct error *err) STATUS_CHECKED;
void item_reader_close(struct item_reader *reader);

#endif
