#ifndef AISLE_CORE_EVALUATE_REPORT_H
#define AISLE_CORE_EVALUATE_REPORT_H

#include "base/buf.h"
#include "core/evaluate_offline.h"

/* An evaluation's figures as text. Borrows; the first release is the one that others are compared
 * with. comparisons[(n_releases - 1) × N_EVALUATE_SEEN] are of
 * releases 2 … n, each by variant. Failures stick in *out. */
struct evaluate_report {
    const struct evaluate_config *config;
    const struct evaluate_result *results; /* [n_releases] */
    const char *const *paths;              /* [n_releases] as given */
    size_t n_releases;
    const struct evaluate_comparison *comparisons;
};
/* For people: tables. */
void evaluate_report_table(const struct evaluate_report *report, struct buf *out);
/* One object: "metrics", "coverage@k" and "rows" of the first
 * release, "without_seen" with the same members where both variants were asked for; "releases" and
 * "comparisons" where there are several. */
void evaluate_report_json(const struct evaluate_report *report, struct buf *out);

#endif
