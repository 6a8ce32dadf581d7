#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/parse.h"
#include "store/import_internal.h"
#include "store/table.h"

/* UCI Online Retail (Chen, Sain, Guo: Data mining for the online retail industry, 2012): invoice
 * lines of a gift shop. An invoice is a session, its lines are purchases. Dropped, in this order:
 * cancellations (invoice number begins with C), lines without a positive price or quantity (stock
 * corrections, bad debt), and codes that stand for no product (postage, discounts, fees, vouchers).
 *
 * A code's description varies (typing, and notes such as "damaged"), and so does its price (large
 * orders are cheaper): the most frequent one of either is taken, at a tie the first. */

enum { USER_BYTES = ID_BYTES_MAX + 16, TALLY_MAX_BYTES = 4096, DATE_BYTES = 40 };

/* Counts of (item, text) pairs. */
struct tally {
    struct idmap *pairs; /* "<row> <text>" */
    uint32_t *counts;    /* by pair */
    size_t cap;
};

struct online_retail {
    struct import_sink *sink;
    struct tally titles;
    struct tally prices;
};

static enum status tally_add(struct tally *tally, uint32_t row, const char *text, struct error *err)
{
    struct buf key;
    uint32_t pair = IDMAP_NONE;
    if (text[0] == '\0') {
        return STATUS_OK;
    }
    buf_init(&key, TALLY_MAX_BYTES);
    buf_printf(&key, "%lu %s", (unsigned long)row, text);
    enum status status = key.status;
    if (status == STATUS_OK) {
        status = idmap_add(tally->pairs, buf_text(&key), key.len, &pair);
    }
    buf_free(&key);
    if (status == STATUS_OK && pair >= tally->cap) {
        size_t cap = tally->cap * 2 + 1024;
        uint32_t *grown = mem_realloc_array(tally->counts, cap, sizeof *grown);
        if (grown == NULL) {
            status = STATUS_NOMEM;
        } else {
            tally->counts = grown;
            tally->cap = cap;
        }
    }
    if (status == STATUS_OK) {
        tally->counts[pair] = 0;
    }
    if (status != STATUS_OK && status != STATUS_EXISTS) {
        return error_set(err, status, "counting descriptions: %s", status_text(status));
    }
    tally->counts[pair]++;
    return STATUS_OK;
}

/* best[row] = text with the highest count, borrowed from the tally; NULL where there is none. */
static enum status tally_best(const struct tally *tally, size_t n_rows, const char **best,
                              struct error *err)
{
    uint32_t *highest = mem_calloc(n_rows, sizeof *highest);
    if (highest == NULL) {
        return error_set(err, STATUS_NOMEM, "counting descriptions: no memory");
    }
    for (uint32_t pair = 0; pair < idmap_size(tally->pairs); pair++) {
        size_t len = 0;
        const char *key = idmap_id(tally->pairs, pair, &len);
        const char *blank = strchr(key, ' ');
        uint64_t row = 0;
        if (blank != NULL && parse_uint64(key, (size_t)(blank - key), &row) && row < n_rows &&
            tally->counts[pair] > highest[row]) {
            highest[row] = tally->counts[pair];
            best[row] = blank + 1;
        }
    }
    mem_free(highest);
    return STATUS_OK;
}

/* Products have five digits first; DCGS… are the shop's few others. */
static bool is_product(const char *code)
{
    size_t n_digits = strspn(code, "0123456789");
    return n_digits >= 5 || strncmp(code, "DCGS", 4) == 0;
}

/* "2010-12-01 08:26:00", and "12/1/2010 8:26" (month first), as the original spreadsheet exports.
 */
static bool parse_invoice_date(const char *text, int64_t *out_ms)
{
    char iso[DATE_BYTES];
    int64_t parts[5];
    if (parse_time_ms(text, strlen(text), out_ms)) {
        return true;
    }
    const char *at = text;
    for (size_t i = 0; i < 5; i++) {
        size_t len = strspn(at, "0123456789");
        if (len == 0 || len > 4 || !parse_int64(at, len, &parts[i])) {
            return false;
        }
        at += len;
        char separator = "// :"[i < 4 ? i : 0];
        if (i < 4 && *at++ != separator) {
            return false;
        }
    }
    (void)snprintf(iso, sizeof iso, "%04lld-%02lld-%02lldT%02lld:%02lld:00Z", (long long)parts[2],
                   (long long)parts[0], (long long)parts[1], (long long)parts[3],
                   (long long)parts[4]);
    return *at == '\0' && parse_time_ms(iso, strlen(iso), out_ms);
}

/* The customer's number, without the ".0" that spreadsheets add; else the invoice. */
static void make_user(const char *customer, const char *invoice, char out[USER_BYTES])
{
    size_t len = customer != NULL ? strlen(customer) : 0;
    if (len > 2 && strcmp(customer + len - 2, ".0") == 0) {
        len -= 2;
    }
    if (len > 0) {
        (void)snprintf(out, USER_BYTES, "%.*s", (int)len, customer);
    } else {
        (void)snprintf(out, USER_BYTES, "invoice-%s", invoice);
    }
}

static const char *cell(const struct table_record *record, const char *name)
{
    const struct table_field *field = table_find(record, name);
    return field != NULL ? field->text : NULL;
}

/* Why a line is no purchase of a product, or NULL. */
static const char *reason_to_drop(const char *invoice, const char *code, double quantity,
                                  double price)
{
    if (invoice == NULL || code == NULL) {
        return "missing invoice or code";
    }
    if (invoice[0] == 'C' || invoice[0] == 'c') {
        return "cancelled";
    }
    if (!(price > 0.0)) {
        return "no price";
    }
    if (!(quantity > 0.0)) {
        return "no quantity";
    }
    return is_product(code) ? NULL : "not a product";
}

static enum status add_description(struct online_retail *retail, uint32_t row, const char *text,
                                   struct error *err)
{
    char trimmed[TALLY_MAX_BYTES / 2];
    size_t len = text != NULL ? strlen(text) : 0;
    while (len > 0 && isspace((unsigned char)text[len - 1])) {
        len--;
    }
    while (len > 0 && isspace((unsigned char)*text)) {
        text++;
        len--;
    }
    if (len >= sizeof trimmed) {
        return STATUS_OK; /* no title is that long */
    }
    if (len > 0) {
        memcpy(trimmed, text, len);
    }
    trimmed[len] = '\0';
    return tally_add(&retail->titles, row, trimmed, err);
}

static enum status add_line(void *context, const struct table_record *record, struct error *err)
{
    struct online_retail *retail = context;
    const char *invoice = cell(record, "InvoiceNo");
    const char *code = cell(record, "StockCode");
    const char *quantity_text = cell(record, "Quantity");
    const char *price_text = cell(record, "UnitPrice");
    const char *date = cell(record, "InvoiceDate");
    double quantity = 0.0;
    double price = 0.0;
    char user[USER_BYTES];
    struct import_event event = {.item = code, .session = invoice, .type = EVENT_PURCHASE};
    uint32_t row = IDMAP_NONE;
    import_count_row(retail->sink);
    if (quantity_text == NULL || !parse_double(quantity_text, strlen(quantity_text), &quantity) ||
        price_text == NULL || !parse_double(price_text, strlen(price_text), &price)) {
        import_drop(retail->sink, "not a number");
        return STATUS_OK;
    }
    const char *reason = reason_to_drop(invoice, code, quantity, price);
    if (reason == NULL && (date == NULL || !parse_invoice_date(date, &event.time_ms))) {
        reason = "not a time";
    }
    if (reason != NULL) {
        import_drop(retail->sink, reason);
        return STATUS_OK;
    }
    make_user(cell(record, "CustomerID"), invoice, user);
    event.user = user;
    event.value = quantity * price;
    enum status status = import_add_event(retail->sink, &event, &row, err);
    if (status != STATUS_OK || row == IDMAP_NONE) {
        return status;
    }
    status = add_description(retail, row, cell(record, "Description"), err);
    return status == STATUS_OK ? tally_add(&retail->prices, row, price_text, err) : status;
}

static enum status set_items(struct online_retail *retail, struct error *err)
{
    struct import_sink *sink = retail->sink;
    size_t n = idmap_size(sink->item_ids);
    const char **titles = mem_calloc(n, sizeof *titles);
    const char **prices = mem_calloc(n, sizeof *prices);
    enum status status = STATUS_OK;
    if (titles == NULL || prices == NULL) {
        (void)error_set(err, STATUS_NOMEM, "importing: no memory");
        status = STATUS_NOMEM;
    }
    if (status == STATUS_OK) {
        status = tally_best(&retail->titles, n, titles, err);
    }
    if (status == STATUS_OK) {
        status = tally_best(&retail->prices, n, prices, err);
    }
    for (size_t row = 0; status == STATUS_OK && row < n; row++) {
        struct import_item *item = &sink->items[row];
        status = import_set_text(&item->title, titles[row], err);
        if (status == STATUS_OK) {
            status = import_set_text(&item->currency, "GBP", err);
        }
        if (status == STATUS_OK && prices[row] != NULL &&
            !parse_double(prices[row], strlen(prices[row]), &item->price)) {
            status = error_set(err, STATUS_INTERNAL, "a price that was read is none");
        }
    }
    mem_free(prices);
    mem_free(titles);
    return status;
}

enum status import_online_retail(struct import_sink *sink, const struct import_config *config,
                                 struct error *err)
{
    struct online_retail retail = {.sink = sink};
    enum status status = idmap_open(0, &retail.titles.pairs, err);
    if (status == STATUS_OK) {
        status = idmap_open(0, &retail.prices.pairs, err);
    }
    for (size_t i = 0; status == STATUS_OK && i < config->n_paths; i++) {
        status = table_each(config->paths[i], ',', add_line, &retail, err);
    }
    if (status == STATUS_OK) {
        status = set_items(&retail, err);
    }
    mem_free(retail.prices.counts);
    mem_free(retail.titles.counts);
    idmap_close(retail.prices.pairs);
    idmap_close(retail.titles.pairs);
    return status;
}
