#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "store/csv_write.h"
#include "store/synth_internal.h"

/* The made-up catalogue. Items are grouped by category; each department has collections (product
 * lines: brand, adjective, material, colour, price level), and the collection of a category's j-th
 * item is (shift + j) mod the department's number of collections. So "the bulb of this lamp's line"
 * is arithmetic, not a search, and each line has about one item in each of its department's
 * categories. Prices are log-normal around the category's median; two thirds of the spread are the
 * line's. Popularity is Zipf within a category, in an order that has nothing to do with ids. */

enum {
    COLLECTION_ITEMS = 14, /* mean size of a product line */
    OUT_OF_STOCK_PERCENT = 4,
    NEW_ITEM_PERCENT = 5, /* created within the events' time span */
    NEW_ITEMS_FROM = 200, /* smaller shops have no new items */
    STOCK_TYPICAL = 60,
    TEXT_MAX_BYTES = 4096, /* of a title or address */
    AGE_DAYS_MAX = 900,    /* of items that are not new */
};
static const int64_t DAY_MS = 86400000;
static const double ZIPF_EXPONENT = 0.9;
static const double ZIPF_OFFSET = 3.0;
static const double LINE_SHARE = 0.8; /* 0.8² + 0.6² = 1: variance of line and item together */
static const double ITEM_SHARE = 0.6;

static enum status no_memory(struct error *err)
{
    return error_set(err, STATUS_NOMEM, "making up the shop: no memory");
}

/* Shares n items by weight: the whole parts, then the rest to the largest remainders. */
static enum status share_items(const struct vocabulary *vocabulary, size_t n_items,
                               size_t *category_first, struct error *err)
{
    size_t n = vocabulary->n_categories;
    double *remainder = mem_alloc_array(n, sizeof *remainder);
    double total = 0.0;
    size_t given = 0;
    if (remainder == NULL) {
        return no_memory(err);
    }
    for (size_t c = 0; c < n; c++) {
        total += vocabulary->categories[c].weight;
    }
    for (size_t c = 0; c < n; c++) {
        double share = (double)n_items * vocabulary->categories[c].weight / total;
        size_t whole = (size_t)share;
        category_first[c + 1] = whole;
        remainder[c] = share - (double)whole;
        given += whole;
    }
    while (given < n_items) {
        size_t best = 0;
        for (size_t c = 1; c < n; c++) {
            best = remainder[c] > remainder[best] ? c : best;
        }
        category_first[best + 1]++;
        remainder[best] -= 1.0;
        given++;
    }
    category_first[0] = 0;
    for (size_t c = 0; c < n; c++) {
        category_first[c + 1] += category_first[c];
    }
    mem_free(remainder);
    return STATUS_OK;
}

static enum status make_collections(struct synth_shop *shop, struct rng *rng, struct error *err)
{
    const struct vocabulary *vocabulary = shop->vocabulary;
    size_t total = 0;
    for (size_t d = 0; d < vocabulary->n_departments; d++) {
        const struct vocabulary_department *department = &vocabulary->departments[d];
        size_t last = department->first_category + department->n_categories;
        size_t n = shop->category_first[last] - shop->category_first[department->first_category];
        shop->collection_first[d] = total;
        total += n / COLLECTION_ITEMS + 1;
    }
    shop->collection_first[vocabulary->n_departments] = total;
    shop->collections = mem_alloc_array(total, sizeof *shop->collections);
    if (shop->collections == NULL) {
        return no_memory(err);
    }
    for (size_t d = 0; d < vocabulary->n_departments; d++) {
        const struct vocabulary_department *department = &vocabulary->departments[d];
        for (size_t k = shop->collection_first[d]; k < shop->collection_first[d + 1]; k++) {
            struct synth_collection *collection = &shop->collections[k];
            collection->adjective = (uint32_t)rng_below(rng, department->adjectives.n);
            collection->brand = (uint32_t)rng_below(rng, department->brands.n);
            collection->material = (uint32_t)rng_below(rng, UINT32_MAX);
            collection->colour = (uint32_t)rng_below(rng, UINT32_MAX);
            collection->level = (float)rng_normal(rng);
        }
    }
    return STATUS_OK;
}

/* 3.4871 → 3.49, 27.3 → 27.50 or 26.99: as price tags look. */
static double price_tag(double price, struct rng *rng)
{
    if (price < 10.0) {
        return fmax(floor(price * 10.0) / 10.0 + 0.09, 0.99);
    }
    return floor(price) + (rng_below(rng, 3) == 0 ? 0.5 : 0.99);
}

static uint32_t pick(struct rng *rng, size_t n)
{
    return n > 0 ? (uint32_t)rng_below(rng, n) : 0;
}

/* The line's choice four times of five, else any. */
static uint32_t pick_of_line(struct rng *rng, size_t n, uint32_t of_line)
{
    return n > 0 && rng_below(rng, 5) != 0 ? of_line % (uint32_t)n : pick(rng, n);
}

static void make_item(const struct synth_config *config, struct synth_shop *shop, size_t i,
                      struct rng *rng)
{
    struct synth_item *item = &shop->items[i];
    const struct vocabulary_category *category = &shop->vocabulary->categories[item->category];
    const struct synth_collection *line = &shop->collections[item->collection];
    bool may_be_new =
        config->n_items >= NEW_ITEMS_FROM && i != shop->category_first[item->category];
    double z = LINE_SHARE * (double)line->level + ITEM_SHARE * rng_normal(rng);
    double price = category->price_median * exp(category->price_sigma * z);
    int64_t span_ms = (int64_t)config->n_days * DAY_MS;
    int64_t age_ms = 0;
    item->noun = pick(rng, category->nouns.n);
    item->material = pick_of_line(rng, category->materials.n, line->material);
    item->colour = pick_of_line(rng, category->colours.n, line->colour);
    item->size = pick(rng, category->sizes.n);
    item->price = (float)price_tag(price, rng);
    item->stock = 0;
    if (rng_below(rng, 100) >= OUT_OF_STOCK_PERCENT) {
        item->stock = 1 + (uint32_t)(-log(1.0 - rng_double(rng)) * STOCK_TYPICAL);
    }
    item->rating = (float)fmin(5.0, fmax(2.5, 4.2 + 0.4 * rng_normal(rng)));
    if (may_be_new && rng_below(rng, 100) < NEW_ITEM_PERCENT) {
        age_ms = (int64_t)(rng_double(rng) * (double)span_ms);
    } else {
        age_ms = span_ms + (int64_t)(rng_double(rng) * AGE_DAYS_MAX * (double)DAY_MS);
    }
    item->created_at_ms = (config->end_time_ms - age_ms) / 1000 * 1000;
}

static void make_items(const struct synth_config *config, struct synth_shop *shop, struct rng *rng)
{
    const struct vocabulary *vocabulary = shop->vocabulary;
    for (size_t c = 0; c < vocabulary->n_categories; c++) {
        size_t department = vocabulary->categories[c].department;
        size_t first_line = shop->collection_first[department];
        size_t n_lines = shop->collection_first[department + 1] - first_line;
        uint32_t shift = (uint32_t)rng_below(rng, n_lines);
        shop->collection_shift[c] = shift;
        for (size_t i = shop->category_first[c]; i < shop->category_first[c + 1]; i++) {
            size_t j = i - shop->category_first[c];
            shop->items[i].category = (uint32_t)c;
            shop->items[i].collection = (uint32_t)(first_line + (shift + j) % n_lines);
            make_item(config, shop, i, rng);
        }
    }
}

/* weights[0..n): Zipf over a random order. order is scratch of the same length. */
static void zipf_weights(struct rng *rng, size_t n, uint32_t *order, double *weights)
{
    for (size_t i = 0; i < n; i++) {
        size_t k = (size_t)rng_below(rng, i + 1); /* Fisher-Yates, inside out */
        order[i] = order[k];
        order[k] = (uint32_t)i;
    }
    for (size_t i = 0; i < n; i++) {
        weights[i] = pow((double)order[i] + ZIPF_OFFSET, -ZIPF_EXPONENT);
    }
}

static enum status make_popularity(struct synth_shop *shop, struct rng *rng, struct error *err)
{
    size_t n_categories = shop->vocabulary->n_categories;
    enum status status = STATUS_OK;
    double *shares = mem_calloc(n_categories, sizeof *shares);
    double *weights = mem_alloc_array(shop->n_items, sizeof *weights);
    uint32_t *order = mem_alloc_array(shop->n_items, sizeof *order);
    if (shares == NULL || weights == NULL || order == NULL) {
        (void)no_memory(err);
        status = STATUS_NOMEM;
    }
    for (size_t c = 0; status == STATUS_OK && c < n_categories; c++) {
        size_t n = shop->category_first[c + 1] - shop->category_first[c];
        if (n == 0) {
            continue;
        }
        shares[c] = shop->vocabulary->categories[c].weight * exp(0.5 * rng_normal(rng));
        zipf_weights(rng, n, order, weights);
        status = alias_table_init(&shop->popularity[c], weights, n, err);
    }
    if (status == STATUS_OK) {
        status = alias_table_init(&shop->by_category, shares, n_categories, err);
    }
    mem_free(order);
    mem_free(weights);
    mem_free(shares);
    return status;
}

enum status synth_shop_make(const struct synth_config *config, const struct vocabulary *vocabulary,
                            struct synth_shop *out, struct error *err)
{
    size_t n = vocabulary->n_categories;
    struct rng rng;
    rng_init(&rng, config->seed);
    memset(out, 0, sizeof *out);
    out->vocabulary = vocabulary;
    out->n_items = config->n_items;
    out->items = mem_calloc(config->n_items, sizeof *out->items);
    out->category_first = mem_calloc(n + 1, sizeof *out->category_first);
    out->collection_first =
        mem_calloc(vocabulary->n_departments + 1, sizeof *out->collection_first);
    out->collection_shift = mem_calloc(n, sizeof *out->collection_shift);
    out->popularity = mem_calloc(n, sizeof *out->popularity);
    enum status status = STATUS_OK;
    if (out->items == NULL || out->category_first == NULL || out->collection_first == NULL ||
        out->collection_shift == NULL || out->popularity == NULL) {
        status = no_memory(err);
    }
    if (status == STATUS_OK) {
        status = share_items(vocabulary, config->n_items, out->category_first, err);
    }
    if (status == STATUS_OK) {
        status = make_collections(out, &rng, err);
    }
    if (status == STATUS_OK) {
        make_items(config, out, &rng);
        status = make_popularity(out, &rng, err);
    }
    if (status != STATUS_OK) {
        synth_shop_free(out);
    }
    return status;
}

void synth_shop_free(struct synth_shop *shop)
{
    for (size_t c = 0; shop->popularity != NULL && c < shop->vocabulary->n_categories; c++) {
        alias_table_free(&shop->popularity[c]);
    }
    alias_table_free(&shop->by_category);
    mem_free(shop->popularity);
    mem_free(shop->collection_shift);
    mem_free(shop->collection_first);
    mem_free(shop->collections);
    mem_free(shop->category_first);
    mem_free(shop->items);
    memset(shop, 0, sizeof *shop);
}

size_t synth_companion(const struct synth_shop *shop, size_t item, size_t category, size_t variant)
{
    size_t first = shop->category_first[category];
    size_t n = shop->category_first[category + 1] - first;
    size_t department = shop->vocabulary->categories[category].department;
    size_t first_line = shop->collection_first[department];
    size_t n_lines = shop->collection_first[department + 1] - first_line;
    /* A line of another department has no items here: its number serves all the same. */
    size_t line = ((size_t)shop->items[item].collection + n_lines - first_line % n_lines) % n_lines;
    size_t j = (line + n_lines - shop->collection_shift[category]) % n_lines;
    if (j >= n) {
        return first + j % n;
    }
    size_t n_variants = (n - j - 1) / n_lines + 1;
    return first + j + variant % n_variants * n_lines;
}

void synth_item_id(const struct synth_shop *shop, size_t item, char out[SYNTH_ID_BYTES])
{
    size_t c = shop->items[item].category;
    (void)snprintf(out, SYNTH_ID_BYTES, "%s-%05zu", shop->vocabulary->categories[c].code,
                   item - shop->category_first[c] + 1);
}

static const char *word(const struct word_list *list, uint32_t i)
{
    return list->n > 0 ? list->words[i] : NULL;
}

/* "Brushed Brass Table Lamp in Sage", "Ribbed Linen Cushion, 45 cm". */
static void make_title(const struct synth_shop *shop, const struct synth_item *item,
                       struct buf *out)
{
    const struct vocabulary_category *category = &shop->vocabulary->categories[item->category];
    const struct vocabulary_department *department =
        &shop->vocabulary->departments[category->department];
    const struct synth_collection *line = &shop->collections[item->collection];
    const char *adjective = department->adjectives.words[line->adjective];
    const char *material = word(&category->materials, item->material);
    const char *colour = word(&category->colours, item->colour);
    const char *size = word(&category->sizes, item->size);
    buf_reset(out);
    /* "Recycled Recycled Paper …" */
    if (material == NULL || strncmp(material, adjective, strlen(adjective)) != 0) {
        buf_printf(out, "%s ", adjective);
    }
    if (material != NULL) {
        buf_printf(out, "%s ", material);
    }
    buf_append_text(out, category->nouns.words[item->noun]);
    if (colour != NULL && (material == NULL || strcmp(colour, material) != 0)) {
        buf_printf(out, " in %s", colour);
    }
    if (size != NULL) {
        buf_printf(out, ", %s", size);
    }
}

/* Names of lines: a word, and a second one once the words are used up. */
static void make_collection_name(const struct synth_shop *shop, uint32_t collection,
                                 struct buf *out)
{
    const struct word_list *names = &shop->vocabulary->collections;
    buf_reset(out);
    buf_append_text(out, names->words[collection % names->n]);
    size_t round = collection / names->n;
    if (round > 0) {
        buf_printf(out, " %s", names->words[(collection + round) % names->n]);
    }
    if (round >= names->n) {
        buf_printf(out, " %zu", round / names->n + 1);
    }
}

static void write_item(const struct synth_shop *shop, size_t i, struct buf *scratch,
                       struct csv_writer *csv)
{
    const struct synth_item *item = &shop->items[i];
    const struct vocabulary_category *category = &shop->vocabulary->categories[item->category];
    const struct vocabulary_department *department =
        &shop->vocabulary->departments[category->department];
    const struct synth_collection *line = &shop->collections[item->collection];
    char id[SYNTH_ID_BYTES];
    synth_item_id(shop, i, id);
    csv_text(csv, id);
    make_title(shop, item, scratch);
    csv_text(csv, buf_text(scratch));
    csv_text(csv, category->path);
    csv_text(csv, department->brands.words[line->brand]);
    csv_fixed(csv, (double)item->price, 2);
    csv_text(csv, shop->vocabulary->currency);
    csv_int(csv, item->stock);
    buf_reset(scratch);
    buf_printf(scratch, "https://shop.example/images/%s.jpg", id);
    csv_text(csv, buf_text(scratch));
    buf_reset(scratch);
    buf_printf(scratch, "https://shop.example/items/%s", id);
    csv_text(csv, buf_text(scratch));
    csv_time(csv, item->created_at_ms);
    csv_text(csv, word(&category->colours, item->colour));
    csv_text(csv, word(&category->materials, item->material));
    csv_text(csv, word(&category->sizes, item->size));
    make_collection_name(shop, item->collection, scratch);
    csv_text(csv, buf_text(scratch));
    csv_fixed(csv, (double)item->rating, 1);
    csv_end_row(csv);
}

enum status synth_shop_write(const struct synth_shop *shop, const char *path, struct error *err)
{
    struct csv_writer csv;
    struct buf scratch;
    enum status status = csv_writer_open(&csv, path,
                                         "id,title,category,brand,price,currency,stock,image_url,"
                                         "url,created_at,colour,material,size,collection,rating",
                                         err);
    if (status != STATUS_OK) {
        return status;
    }
    buf_init(&scratch, TEXT_MAX_BYTES);
    for (size_t i = 0; i < shop->n_items; i++) {
        write_item(shop, i, &scratch, &csv);
    }
    status = scratch.status;
    buf_free(&scratch);
    if (status != STATUS_OK) {
        csv_writer_abandon(&csv);
        return error_set(err, status, "writing %s: %s", path, status_text(status));
    }
    return csv_writer_finish(&csv, err);
}
