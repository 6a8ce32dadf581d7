#ifndef AISLE_STORE_SYNTH_INTERNAL_H
#define AISLE_STORE_SYNTH_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/status.h"
#include "store/synth.h"

/* Shared by synth*.c: vocabulary → shop (items) → events. */

enum { SYNTH_GOES_WITH_MAX = 4, SYNTH_CODE_BYTES = 4 };

/* ---- vocabulary ---- */

struct word_list {
    const char **words; /* may be empty */
    size_t n;
};

struct vocabulary_category {
    char code[SYNTH_CODE_BYTES];
    char *path; /* "Home > Lighting > Table Lamps" */
    size_t department;
    double price_median, price_sigma;
    double weight;
    struct word_list nouns, materials, colours, sizes; /* materials, colours: own or borrowed */
    const char *goes_with_codes[SYNTH_GOES_WITH_MAX];
    size_t goes_with[SYNTH_GOES_WITH_MAX]; /* numbers of categories */
    size_t n_goes_with;
};

struct vocabulary_department {
    const char *name;
    struct word_list adjectives, materials, colours, brands;
    size_t first_category, n_categories;
};

struct vocabulary {
    void *tree; /* the JSON that texts are borrowed from */
    const char *currency;
    struct word_list collections;
    struct vocabulary_department *departments;
    size_t n_departments;
    struct vocabulary_category *categories; /* grouped by department */
    size_t n_categories;
    const char ***owned; /* arrays of the word lists */
    size_t n_owned;
};

/* Reads DIR/shop.json. FORMAT names the member at fault. On failure the struct is empty. */
enum status vocabulary_load(const char *dir, struct vocabulary *out,
                            struct error *err) STATUS_CHECKED;
void vocabulary_free(struct vocabulary *vocabulary);

/* ---- the shop ---- */

/* A product line: one style over all categories of its department. */
struct synth_collection {
    uint32_t adjective, brand;
    uint32_t material, colour; /* taken modulo the category's own lists */
    float level;               /* how expensive; standard normal */
};

struct synth_item {
    uint32_t category;
    uint32_t collection;                   /* number over all departments */
    uint32_t noun, material, colour, size; /* indices; 0 also where the list is empty */
    uint32_t stock;
    float price;
    float rating;
    int64_t created_at_ms;
};

struct synth_shop {
    const struct vocabulary *vocabulary;
    struct synth_item *items; /* grouped by category */
    size_t n_items;
    size_t *category_first; /* n_categories + 1 */
    struct synth_collection *collections;
    size_t *collection_first; /* of each department; n_departments + 1 */
    uint32_t
        *collection_shift; /* of each category: collection of its first item, see synth_items.c */
    struct alias_table *popularity; /* of each category, over its items; unset for empty ones */
    struct alias_table by_category;
};

enum status synth_shop_make(const struct synth_config *config, const struct vocabulary *vocabulary,
                            struct synth_shop *out, struct error *err) STATUS_CHECKED;
void synth_shop_free(struct synth_shop *shop);
enum status synth_shop_write(const struct synth_shop *shop, const char *path,
                             struct error *err) STATUS_CHECKED;

enum { SYNTH_ID_BYTES = 24 };
void synth_item_id(const struct synth_shop *shop, size_t item, char out[SYNTH_ID_BYTES]);
/* The item of a category that belongs to item's collection (the variant-th, if there are several),
 * or, where the collection has none, always the same other one. The category is not empty. */
size_t synth_companion(const struct synth_shop *shop, size_t item, size_t category, size_t variant);

/* ---- events ---- */

enum status synth_events_write(const struct synth_config *config, const struct synth_shop *shop,
                               const char *path, struct error *err) STATUS_CHECKED;

#endif
