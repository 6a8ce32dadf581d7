#ifndef AISLE_STORE_IMPORT_H
#define AISLE_STORE_IMPORT_H

#include <stddef.h>
#include <stdint.h>

#include "base/options.h"
#include "base/status.h"

/* Turns public data sets and other shops' files into items.csv and events.csv. Formats:
 *   online-retail  UCI Online Retail: invoices are sessions, the description (the code's most
 *                  frequent one) is the title, cancellations, zero prices and non-product codes
 *                  (POST, D, M, BANK CHARGES, AMAZONFEE, gift vouchers, …) dropped and counted;
 *                  events are purchases; lines without a customer get their invoice as the user
 *   retailrocket   events.csv of the data set (timestamp,visitorid,event,itemid,transactionid), or
 *                  the session files below by their shape; item properties optional
 *   sequences      a line per user: user id, then item ids in time order, blank-separated
 *   sessions       a line per session: item ids only
 *   clicks         SessionId ItemId Time, tab-separated with a header
 *   generic        CSV with a column mapping
 * Titles that a source lacks are "Item <id>". Made-up times count up from a fixed day, so that the
 * order stands. Items are written in the order of first appearance; output is the same bytes for
 * the same input. */
struct import_config {
    const char *format;
    const char *out_dir; /* created; files are written atomically */
    const char *const *paths;
    size_t n_paths;
    const struct option_list *map; /* generic: "user_id=COLUMN", … */
};

enum { IMPORT_DROPS_MAX = 16 };
struct import_counts {
    uint64_t n_rows, n_items, n_events, n_users, n_sessions;
    struct {
        const char *reason; /* "cancelled", "not a product", … */
        uint64_t n;
    } dropped[IMPORT_DROPS_MAX];
    size_t n_drop_reasons;
};

enum status import_run(const struct import_config *config, struct import_counts *counts,
                       struct error *err) STATUS_CHECKED;

#endif
