#ifndef AISLE_BASE_CHART_H
#define AISLE_BASE_CHART_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/status.h"

/* Line charts as SVG text: one or more panels above each other over one x axis, each with its own
 * y axis and series. The text is a whole XML document without scripts, links or fonts of its own,
 * readable to screen readers (role, title, desc with the range of each series). Colours are those
 * of Okabe and Ito ("Color Universal Design", 2008) without the yellow; series differ by their
 * markers' shape too. */
enum { CHART_WIDTH = 720, CHART_PANELS_MAX = 4, CHART_SERIES_MAX = 7 };

/* A polyline through n points in the given order. A point that is not finite (or not positive on a
 * logarithmic axis) is a gap. */
struct chart_series {
    const char *name; /* for the legend; NULL: not in it */
    const double *x, *y;
    size_t n;
};
/* A point made conspicuous, with a few words beside it. */
struct chart_mark {
    double x, y;
    const char *label; /* NULL: no mark */
};
struct chart_panel {
    const char *y_label;
    const struct chart_series *series; /* [n_series] */
    size_t n_series;                   /* up to CHART_SERIES_MAX */
    struct chart_mark mark;
};
struct chart {
    const char *title;
    const char *description; /* a sentence for who cannot see it; NULL: only the ranges */
    const char *x_label;
    bool x_is_log;                    /* log10 */
    bool x_is_whole;                  /* ticks only at whole numbers, as of epochs */
    const struct chart_panel *panels; /* [n_panels], the first on top */
    size_t n_panels;                  /* 1 … CHART_PANELS_MAX */
};

/* Appends the document to out. Everything is borrowed for the call. Texts are UTF-8; what XML does
 * not allow becomes U+FFFD. A panel without any point says "no data". Same input, same bytes.
 * INVALID: too many panels or series, or none (out untouched); NOMEM or LIMIT of out. */
enum status chart_svg(const struct chart *chart, struct buf *out, struct error *err) STATUS_CHECKED;

#endif
