/* Charts as SVG text.
 *
 * A reader should get every number and line without a legend being in the way, hence the layout:
 * the name of the y axis stands level above its panel, where it can be read without turning the
 * head; the legend stands beside it, outside the plot; only horizontal grid lines are drawn, so
 * that the series are the darkest ink. Two quantities of different units are two panels over one x
 * axis, not two y axes in one panel, whose crossings mean nothing.
 *
 * Ticks are multiples of 1, 2 or 5 times a power of ten (P. S. Heckbert, "Nice numbers for graph
 * labels", Graphics Gems, 1990); the y axis ends at ticks, the x axis at the data. Widths of texts
 * are estimates, as there are no font metrics here: they only decide where a text may begin, and
 * err on the wide side.
 *
 * Legend: x, y in the data's units; px, py in pixels from the top left. */
#include "base/chart.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/parse.h"

#define INK "#1f2328"
#define SOFT "#57606a"
#define GRID "#e4e7ea"
#define AXIS "#8c959f"

static const double LEFT = 68.0, RIGHT = 28.0;       /* margins beside the plots */
static const double TOP = 58.0, BOTTOM = 62.0;       /* above the first panel, below the last */
static const double HEADER = 34.0, ROW = 20.0;       /* of a panel; a further row of the legend */
static const double BETWEEN = 20.0;                  /* two panels */
static const double ONE_PANEL = 320.0, MANY = 190.0; /* heights of a plot */
static const double TEXT = 13.0, SMALL = 12.0, HEADING = 18.0; /* font sizes */
static const double MARKER = 4.0;
/* Numbers beyond are gaps: sums and differences of those within stay finite. */
static const double NUMBER_MAX = 1e100;

enum { TICKS_MAX = 24, MARKED_POINTS_MAX = 25, SEGMENT_SAMPLES = 8, LOG_LABEL_DECADES = 3 };

static const char *const COLOURS[CHART_SERIES_MAX] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                      "#e69f00", "#56b4e9", "#000000"};

struct axis {
    double min, max; /* of the data or, for y, of the ticks; log10 where logarithmic */
    double from, to; /* pixels of min and max */
    double ticks[TICKS_MAX];
    size_t n_ticks;
    double step;
    bool is_log;
};

#define EMPTY_AXIS                                                                                 \
    {                                                                                              \
        .min = (double)INFINITY, .max = -(double)INFINITY                                          \
    }

struct drawing {
    const struct chart *chart;
    struct buf *out;
    struct axis x;
};

/* ---- text ---- */

static bool is_xml_byte(unsigned char c)
{
    return c >= 0x20 || c == '\t' || c == '\n' || c == '\r';
}

static void put_text(struct buf *out, const char *text)
{
    static const struct {
        char c;
        const char *entity;
    } ENTITIES[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
    size_t len = strlen(text);
    for (size_t at = 0; at < len;) {
        size_t n = utf8_sequence(text + at, len - at);
        /* U+FFFE and U+FFFF are UTF-8 but not XML. */
        bool is_barred =
            n == 3 && memcmp(text + at, "\xef\xbf", 2) == 0 && (unsigned char)text[at + 2] >= 0xbe;
        const char *instead = NULL;
        if (n == 0 || is_barred || !is_xml_byte((unsigned char)text[at])) {
            instead = "\xef\xbf\xbd";
        }
        for (size_t e = 0; e < sizeof(ENTITIES) / sizeof(ENTITIES[0]); e++) {
            instead = text[at] == ENTITIES[e].c ? ENTITIES[e].entity : instead;
        }
        n = n == 0 ? 1 : n;
        if (instead != NULL) {
            buf_append_text(out, instead);
        } else {
            buf_append(out, text + at, n);
        }
        at += n;
    }
}

/* Estimated from classes of letters, on the wide side of what common sans serif fonts have. */
static double text_width(const char *text, double size)
{
    double ems = 0.0;
    for (const char *at = text; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;
        if ((c & 0xc0) == 0x80) {
            continue; /* not the first byte of its character */
        }
        if (c >= 0x80) {
            ems +=
                c >= 0xe0 ? 1.0 : 0.65; /* Chinese, Japanese, Korean letters are as wide as high */
        } else if (strchr("iljtfrI.,:;|!'()[] -/", c) != NULL) {
            ems += 0.38;
        } else if (strchr("mwMW@%", c) != NULL) {
            ems += 0.95;
        } else {
            ems += c >= 'A' && c <= 'Z' ? 0.7 : 0.62;
        }
    }
    return ems * size;
}

/* A smaller font for a text that would not fit. */
static double fitting_size(const char *text, double size, double width)
{
    double wanted = text_width(text, size);
    return wanted <= width ? size : fmax(size * width / wanted, 7.0);
}

/* A tick's label: as many decimals as its step needs, and k, M or G instead of many zeros. */
static void put_number(struct buf *out, double value, double step, double largest)
{
    static const struct {
        double from, factor;
        const char *unit;
    } UNITS[] = {{1e9, 1e9, "G"}, {1e6, 1e6, "M"}, {1e4, 1e3, "k"}};
    if (largest >= 1e13 || step < 1e-6) {
        buf_printf(out, "%.6g", value);
        return;
    }
    double factor = 1.0;
    const char *unit = "";
    for (size_t i = sizeof(UNITS) / sizeof(UNITS[0]); i-- > 0;) {
        if (largest >= UNITS[i].from) {
            factor = UNITS[i].factor;
            unit = UNITS[i].unit;
        }
    }
    int decimals = (int)fmax(0.0, -floor(log10(step / factor) + 1e-9));
    if (value == 0.0) {
        buf_append_char(out, '0');
    } else {
        /* A minus sign, not a hyphen. */
        buf_printf(out, "%s%.*f%s", value < 0.0 ? "\xe2\x88\x92" : "", decimals,
                   fabs(value) / factor, unit);
    }
}

/* ---- axes ---- */

static bool is_usable(double value)
{
    return isfinite(value) && fabs(value) <= NUMBER_MAX;
}

static bool point_at(const struct drawing *d, const struct chart_series *series, size_t i,
                     double *x, double *y)
{
    if (!is_usable(series->x[i]) || !is_usable(series->y[i]) ||
        (d->x.is_log && series->x[i] <= 0.0)) {
        return false;
    }
    *x = d->x.is_log ? log10(series->x[i]) : series->x[i];
    *y = series->y[i];
    return true;
}

static double to_pixel(const struct axis *axis, double value)
{
    return axis->from + (axis->to - axis->from) * (value - axis->min) / (axis->max - axis->min);
}

/* Of one value, or of values that differ by rounding alone, an axis is made around it. */
static void widen(struct axis *axis)
{
    double size = fmax(fabs(axis->min), fabs(axis->max));
    if (axis->max - axis->min <= 1e-9 * size || axis->max <= axis->min) {
        double by = axis->is_log ? 0.3 : size > 0.0 ? size * 0.1 : 0.5;
        axis->min -= by;
        axis->max += by;
    }
}

static double nice_step(double range, double n_wanted)
{
    double raw = range / n_wanted;
    double power = pow(10.0, floor(log10(raw)));
    double share = raw / power;
    return power * (share <= 1.0 + 1e-9 ? 1.0 : share <= 2.0 ? 2.0 : share <= 5.0 ? 5.0 : 10.0);
}

static void set_ticks(struct axis *axis, double n_wanted, bool is_whole)
{
    axis->step = nice_step(axis->max - axis->min, n_wanted);
    axis->step = is_whole ? fmax(axis->step, 1.0) : axis->step;
    double first = ceil(axis->min / axis->step - 1e-9);
    double last = floor(axis->max / axis->step + 1e-9);
    axis->n_ticks = 0;
    size_t n = (size_t)fmin(fmax(last - first + 1.0, 0.0), TICKS_MAX);
    for (size_t i = 0; i < n; i++) {
        axis->ticks[axis->n_ticks++] = (first + (double)i) * axis->step;
    }
}

/* Decades, and 2 and 5 between them where there are few. Ticks are logarithms here. */
static void set_log_ticks(struct axis *axis)
{
    static const double PARTS[] = {1.0, 2.0, 5.0};
    double range = axis->max - axis->min;
    size_t n_parts = range <= LOG_LABEL_DECADES ? 3 : 1;
    int every = (int)fmax(1.0, ceil(range / 12.0));
    axis->n_ticks = 0;
    for (int decade = (int)floor(axis->min); decade <= (int)floor(axis->max); decade += every) {
        for (size_t p = 0; p < n_parts && axis->n_ticks < TICKS_MAX; p++) {
            double tick = decade + log10(PARTS[p]);
            if (tick >= axis->min - 1e-9 && tick <= axis->max + 1e-9) {
                axis->ticks[axis->n_ticks++] = tick;
            }
        }
    }
}

/* Epochs begin at 1, where no multiple of a step lies. */
static void add_first_whole(struct axis *axis)
{
    bool has_room = axis->n_ticks > 0 && axis->n_ticks < TICKS_MAX &&
                    axis->ticks[0] - axis->min >= 0.7 * axis->step;
    if (has_room && floor(axis->min) == axis->min) {
        memmove(axis->ticks + 1, axis->ticks, axis->n_ticks * sizeof(axis->ticks[0]));
        axis->ticks[0] = axis->min;
        axis->n_ticks++;
    }
}

static void include(struct axis *axis, double value)
{
    axis->min = fmin(axis->min, value);
    axis->max = fmax(axis->max, value);
}

static void include_points(const struct drawing *d, const struct chart_panel *panel,
                           struct axis *x_axis, struct axis *y_axis)
{
    for (size_t s = 0; s < panel->n_series; s++) {
        for (size_t i = 0; i < panel->series[s].n; i++) {
            double x = 0.0;
            double y = 0.0;
            if (point_at(d, &panel->series[s], i, &x, &y)) {
                include(x_axis, x);
                include(y_axis, y);
            }
        }
    }
}

static void set_linear_x_ticks(struct axis *x, bool is_whole, double min, double max)
{
    set_ticks(x, 8.0, is_whole);
    if (is_whole) {
        add_first_whole(x);
    }
    if (min == max) {
        x->ticks[0] = min;
        x->n_ticks = 1;
    }
}

static void set_x_axis(struct drawing *d)
{
    const struct chart *chart = d->chart;
    struct axis y = EMPTY_AXIS;
    struct axis x = EMPTY_AXIS;
    d->x.is_log = x.is_log = chart->x_is_log;
    for (size_t p = 0; p < chart->n_panels; p++) {
        include_points(d, &chart->panels[p], &x, &y);
    }
    x.from = LEFT;
    x.to = CHART_WIDTH - RIGHT;
    double min = x.min;
    double max = x.max;
    if (min > max) { /* no point at all: no ticks */
        x.min = 0.0;
        x.max = 1.0;
    } else if (x.is_log) {
        /* Points of a front stand apart from the edges. */
        widen(&x);
        double by = 0.04 * (x.max - x.min);
        x.min -= by;
        x.max += by;
        set_log_ticks(&x);
    } else {
        widen(&x);
        set_linear_x_ticks(&x, chart->x_is_whole, min, max);
    }
    d->x = x;
}

/* false: the panel has no point. */
static bool set_y_axis(const struct drawing *d, const struct chart_panel *panel, struct axis *axis)
{
    struct axis x = EMPTY_AXIS;
    include_points(d, panel, &x, axis);
    if (axis->min > axis->max) {
        return false;
    }
    widen(axis);
    double step = nice_step(axis->max - axis->min, 5.0);
    axis->min = floor(axis->min / step + 1e-9) * step;
    axis->max = ceil(axis->max / step - 1e-9) * step;
    set_ticks(axis, (axis->max - axis->min) / step, false);
    return true;
}

/* ---- parts of a panel ---- */

static void put_marker(struct buf *out, size_t s, double px, double py)
{
    const char *colour = COLOURS[s];
    double r = MARKER;
    switch (s % 4) {
    case 0:
        buf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"%s\"/>", px, py, r,
                   colour);
        break;
    case 1:
        buf_printf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>",
                   px - r * 0.9, py - r * 0.9, r * 1.8, r * 1.8, colour);
        break;
    case 2:
        buf_printf(out, "<path d=\"M%.1f %.1fl%.1f %.1fh%.1fz\" fill=\"%s\"/>", px, py - r * 1.2,
                   r * 1.2, r * 2.1, -r * 2.4, colour);
        break;
    default:
        buf_printf(out, "<path d=\"M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz\" fill=\"%s\"/>", px,
                   py - r * 1.3, r * 1.3, r * 1.3, -r * 1.3, r * 1.3, -r * 1.3, -r * 1.3, colour);
        break;
    }
}

static double legend_width(const char *name)
{
    return 28.0 + text_width(name, SMALL) + 18.0;
}

static size_t rows_of_legend(const struct chart_panel *panel, double from)
{
    double px = from;
    size_t n_rows = 1;
    for (size_t s = 0; s < panel->n_series; s++) {
        if (panel->series[s].name == NULL) {
            continue;
        }
        double width = legend_width(panel->series[s].name);
        if (px > from && px + width > CHART_WIDTH - RIGHT) {
            n_rows++;
            from = LEFT;
            px = LEFT;
        }
        px += width;
    }
    return n_rows;
}

static double legend_begin(const struct chart_panel *panel)
{
    return LEFT + text_width(panel->y_label, TEXT) + 24.0;
}

static double header_height(const struct chart_panel *panel)
{
    return HEADER + ROW * (double)(rows_of_legend(panel, legend_begin(panel)) - 1);
}

/* The name of the y axis, then the legend, at the height of its first row. */
static void put_header(struct buf *out, const struct chart_panel *panel, double top)
{
    double px = legend_begin(panel);
    double from = px;
    double py = top + 14.0;
    double size = fitting_size(panel->y_label, TEXT, CHART_WIDTH - LEFT - RIGHT);
    buf_printf(out,
               "<text class=\"y-label\" x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\" "
               "font-weight=\"600\">",
               LEFT, py, size);
    put_text(out, panel->y_label);
    buf_append_text(out, "</text>\n");
    for (size_t s = 0; s < panel->n_series; s++) {
        const char *name = panel->series[s].name;
        if (name == NULL) {
            continue;
        }
        double width = legend_width(name);
        if (px > from && px + width > CHART_WIDTH - RIGHT) {
            px = LEFT;
            from = LEFT;
            py += ROW;
        }
        buf_printf(out,
                   "<g class=\"legend\"><path d=\"M%.1f %.1fh22\" stroke=\"%s\" "
                   "stroke-width=\"2\"/>",
                   px, py - 4.0, COLOURS[s]);
        put_marker(out, s, px + 11.0, py - 4.0);
        buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\">", px + 28.0, py,
                   fitting_size(name, SMALL, CHART_WIDTH - RIGHT - px - 28.0));
        put_text(out, name);
        buf_append_text(out, "</text></g>\n");
        px += width;
    }
}

static void put_y_axis(struct buf *out, const struct axis *y)
{
    double largest = fmax(fabs(y->min), fabs(y->max));
    for (size_t i = 0; i < y->n_ticks; i++) {
        double py = to_pixel(y, y->ticks[i]);
        buf_printf(out,
                   "<path d=\"M%.1f %.1fH%.1f\" stroke=\"%s\"/><text class=\"y-tick\" x=\"%.1f\" "
                   "y=\"%.1f\" font-size=\"%.0f\" fill=\"%s\" text-anchor=\"end\">",
                   LEFT, py, CHART_WIDTH - RIGHT, i == 0 ? AXIS : GRID, LEFT - 10.0, py + 4.0,
                   SMALL, SOFT);
        put_number(out, y->ticks[i], y->step, largest);
        buf_append_text(out, "</text>\n");
    }
}

/* Labels stand below the last panel only; the others have the small strokes. */
static void put_x_axis(const struct drawing *d, double py, bool with_labels)
{
    const struct axis *x = &d->x;
    double largest = fmax(fabs(x->min), fabs(x->max));
    for (size_t i = 0; i < x->n_ticks; i++) {
        double px = to_pixel(x, x->ticks[i]);
        buf_printf(d->out, "<path d=\"M%.1f %.1fv5\" stroke=\"%s\"/>", px, py, AXIS);
        if (with_labels) {
            double value = x->is_log ? pow(10.0, x->ticks[i]) : x->ticks[i];
            buf_printf(d->out,
                       "<text class=\"x-tick\" x=\"%.1f\" y=\"%.1f\" font-size=\"%.0f\" "
                       "fill=\"%s\" text-anchor=\"middle\">",
                       px, py + 20.0, SMALL, SOFT);
            put_number(d->out, value, x->is_log ? pow(10.0, floor(x->ticks[i] + 1e-9)) : x->step,
                       x->is_log ? value : largest);
            buf_append_text(d->out, "</text>");
        }
        buf_append_char(d->out, '\n');
    }
    if (with_labels) {
        double width = CHART_WIDTH - LEFT - RIGHT;
        buf_printf(d->out,
                   "<text class=\"x-label\" x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\" "
                   "font-weight=\"600\" text-anchor=\"middle\">",
                   LEFT + width / 2.0, py + 44.0, fitting_size(d->chart->x_label, TEXT, width));
        put_text(d->out, d->chart->x_label);
        buf_append_text(d->out, "</text>\n");
    }
}

/* The line with its gaps; markers where they help: at few points, at the newest of many, and where
 * a point between gaps would not show. */
static void put_series(const struct drawing *d, const struct axis *y,
                       const struct chart_series *series, size_t s)
{
    struct buf *out = d->out;
    bool pen_down = false;
    size_t last = series->n;
    double px = 0.0;
    double py = 0.0;
    buf_printf(out,
               "<path class=\"series\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\" "
               "stroke-linejoin=\"round\" stroke-linecap=\"round\" d=\"",
               COLOURS[s]);
    for (size_t i = 0; i < series->n; i++) {
        bool there = point_at(d, series, i, &px, &py);
        if (there) {
            buf_printf(out, "%c%.1f %.1f", pen_down ? 'L' : 'M', to_pixel(&d->x, px),
                       to_pixel(y, py));
            last = i;
        }
        pen_down = there;
    }
    buf_append_text(out, "\"/>\n");
    for (size_t i = 0; i < series->n; i++) {
        double other_x = 0.0;
        double other_y = 0.0;
        bool alone = (i == 0 || !point_at(d, series, i - 1, &other_x, &other_y)) &&
                     (i + 1 == series->n || !point_at(d, series, i + 1, &other_x, &other_y));
        if ((alone || i == last || series->n <= MARKED_POINTS_MAX) &&
            point_at(d, series, i, &px, &py)) {
            put_marker(out, s, to_pixel(&d->x, px), to_pixel(y, py));
        }
    }
    buf_append_char(out, '\n');
}

/* ---- the mark ---- */

struct box {
    double left, top, right, bottom;
};

/* How much ink of the series lies under a box, in samples. */
static size_t count_covered(const struct drawing *d, const struct axis *y,
                            const struct chart_panel *panel, const struct box *box)
{
    size_t n = 0;
    for (size_t s = 0; s < panel->n_series; s++) {
        double x0 = 0.0;
        double y0 = 0.0;
        bool has_before = false;
        for (size_t i = 0; i < panel->series[s].n; i++) {
            double px = 0.0;
            double py = 0.0;
            if (!point_at(d, &panel->series[s], i, &px, &py)) {
                has_before = false;
                continue;
            }
            px = to_pixel(&d->x, px);
            py = to_pixel(y, py);
            for (int k = has_before ? 1 : SEGMENT_SAMPLES; k <= SEGMENT_SAMPLES; k++) {
                double share = (double)k / SEGMENT_SAMPLES;
                double sx = has_before ? x0 + (px - x0) * share : px;
                double sy = has_before ? y0 + (py - y0) * share : py;
                n += sx >= box->left && sx <= box->right && sy >= box->top && sy <= box->bottom;
            }
            x0 = px;
            y0 = py;
            has_before = true;
        }
    }
    return n;
}

/* Where the label hides least: beside the guide line, at any height of the panel, the nearest to
 * the point of equals. */
static struct box place_label(const struct drawing *d, const struct axis *y,
                              const struct chart_panel *panel, double px, double py)
{
    double width = text_width(panel->mark.label, SMALL) + 8.0;
    struct box best = {LEFT, y->to, LEFT + width, y->to + 18.0};
    double least = (double)INFINITY;
    for (int side = 0; side < 2; side++) {
        double left = side == 0 ? px + 8.0 : px - 8.0 - width;
        if (left < LEFT || left + width > CHART_WIDTH - RIGHT + 8.0) {
            continue;
        }
        for (size_t i = 0; y->to + 2.0 + (double)i * 4.0 + 18.0 <= y->from - 2.0; i++) {
            double top = y->to + 2.0 + (double)i * 4.0;
            struct box box = {left, top, left + width, top + 18.0};
            const struct box grown = {left - 4.0, top - 5.0, left + width + 4.0, top + 23.0};
            double cost =
                (double)count_covered(d, y, panel, &grown) * 1000.0 + fabs(top + 9.0 - py);
            if (cost < least) {
                least = cost;
                best = box;
            }
        }
    }
    return best;
}

static void put_mark(const struct drawing *d, const struct axis *y, const struct chart_panel *panel)
{
    const struct chart_mark *mark = &panel->mark;
    const struct chart_series series = {NULL, &mark->x, &mark->y, 1};
    double x = 0.0;
    double value = 0.0;
    if (mark->label == NULL || !point_at(d, &series, 0, &x, &value) || x < d->x.min ||
        x > d->x.max || value < y->min || value > y->max) {
        return;
    }
    double px = to_pixel(&d->x, x);
    double py = to_pixel(y, value);
    struct box box = place_label(d, y, panel, px, py);
    buf_printf(d->out,
               "<g class=\"mark\"><path d=\"M%.1f %.1fV%.1f\" stroke=\"%s\" "
               "stroke-dasharray=\"2 4\"/><circle cx=\"%.1f\" cy=\"%.1f\" r=\"6.5\" fill=\"none\" "
               "stroke=\"%s\" stroke-width=\"2\"/>",
               px, y->to, y->from, SOFT, px, py, INK);
    /* A white edge around the letters keeps them apart from grid and lines. */
    bool is_left = box.left < px;
    buf_printf(d->out,
               "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\" font-weight=\"600\" "
               "text-anchor=\"%s\" stroke=\"#fff\" stroke-width=\"4\" stroke-linejoin=\"round\" "
               "paint-order=\"stroke\">",
               is_left ? box.right - 4.0 : box.left + 4.0, box.top + 13.0,
               fitting_size(mark->label, SMALL, CHART_WIDTH - LEFT - RIGHT),
               is_left ? "end" : "start");
    put_text(d->out, mark->label);
    buf_append_text(d->out, "</text></g>\n");
}

/* ---- the document ---- */

static void put_panel(const struct drawing *d, const struct chart_panel *panel, double top,
                      double plot_height)
{
    struct axis y = EMPTY_AXIS;
    y.to = top + header_height(panel);
    y.from = y.to + plot_height;
    bool is_last = panel == &d->chart->panels[d->chart->n_panels - 1];
    put_header(d->out, panel, top);
    if (set_y_axis(d, panel, &y)) {
        put_y_axis(d->out, &y);
        put_x_axis(d, y.from, is_last);
        for (size_t s = 0; s < panel->n_series; s++) {
            put_series(d, &y, &panel->series[s], s);
        }
        put_mark(d, &y, panel);
        return;
    }
    buf_printf(d->out,
               "<path d=\"M%.1f %.1fH%.1f\" stroke=\"%s\"/><text class=\"no-data\" x=\"%.1f\" "
               "y=\"%.1f\" font-size=\"%.0f\" fill=\"%s\" text-anchor=\"middle\">no data</text>\n",
               LEFT, y.from, CHART_WIDTH - RIGHT, AXIS, (LEFT + CHART_WIDTH - RIGHT) / 2.0,
               y.to + plot_height / 2.0, TEXT, SOFT);
    put_x_axis(d, y.from, is_last);
}

/* What the lines say, in words. */
static void put_ranges(const struct drawing *d, const struct chart_panel *panel)
{
    for (size_t s = 0; s < panel->n_series; s++) {
        const struct chart_series *series = &panel->series[s];
        double min = (double)INFINITY;
        double max = -(double)INFINITY;
        size_t n = 0;
        for (size_t i = 0; i < series->n; i++) {
            double x = 0.0;
            double y = 0.0;
            if (point_at(d, series, i, &x, &y)) {
                min = fmin(min, y);
                max = fmax(max, y);
                n++;
            }
        }
        buf_append_char(d->out, ' ');
        put_text(d->out, panel->y_label);
        if (series->name != NULL) {
            buf_append_text(d->out, ", ");
            put_text(d->out, series->name);
        }
        if (n == 0) {
            buf_append_text(d->out, ": no data.");
        } else {
            buf_printf(d->out, ": %zu point%s from %.4g to %.4g.", n, n == 1 ? "" : "s", min, max);
        }
    }
    if (panel->mark.label != NULL) {
        buf_append_text(d->out, " Marked: ");
        put_text(d->out, panel->mark.label);
        buf_append_char(d->out, '.');
    }
}

static void put_opening(const struct drawing *d, double height)
{
    const struct chart *chart = d->chart;
    struct buf *out = d->out;
    /* Ids of their own, as several charts may stand in one page. */
    unsigned long long id = hash_bytes(chart->title, strlen(chart->title), 0) & 0xffffffffU;
    buf_printf(out,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" "
               "aria-labelledby=\"t%08llx d%08llx\" width=\"%d\" height=\"%.0f\" "
               "viewBox=\"0 0 %d %.0f\" font-family=\"system-ui, -apple-system, 'Segoe UI', "
               "Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif\" fill=\"" INK
               "\">\n<title id=\"t%08llx\">",
               id, id, CHART_WIDTH, height, CHART_WIDTH, height, id);
    put_text(out, chart->title);
    buf_printf(out, "</title>\n<desc id=\"d%08llx\">", id);
    if (chart->description != NULL) {
        put_text(out, chart->description);
    }
    for (size_t p = 0; p < chart->n_panels; p++) {
        put_ranges(d, &chart->panels[p]);
    }
    buf_printf(out,
               "</desc>\n<rect width=\"%d\" height=\"%.0f\" fill=\"#fff\"/>\n<text class=\"title\" "
               "x=\"%.1f\" y=\"32\" font-size=\"%.1f\" font-weight=\"600\">",
               CHART_WIDTH, height, LEFT,
               fitting_size(chart->title, HEADING, CHART_WIDTH - LEFT - RIGHT));
    put_text(out, chart->title);
    buf_append_text(out, "</text>\n");
}

static enum status check_chart(const struct chart *chart, struct error *err)
{
    if (chart->n_panels == 0 || chart->n_panels > CHART_PANELS_MAX) {
        return error_set(err, STATUS_INVALID, "a chart has 1 to %d panels, not %zu",
                         CHART_PANELS_MAX, chart->n_panels);
    }
    for (size_t p = 0; p < chart->n_panels; p++) {
        if (chart->panels[p].n_series > CHART_SERIES_MAX) {
            return error_set(err, STATUS_INVALID, "a panel has up to %d series, not %zu",
                             CHART_SERIES_MAX, chart->panels[p].n_series);
        }
    }
    return STATUS_OK;
}

enum status chart_svg(const struct chart *chart, struct buf *out, struct error *err)
{
    enum status status = check_chart(chart, err);
    if (status != STATUS_OK) {
        return status;
    }
    struct drawing d = {.chart = chart, .out = out};
    double plot_height = chart->n_panels == 1 ? ONE_PANEL : MANY;
    double height = TOP + BOTTOM - BETWEEN;
    for (size_t p = 0; p < chart->n_panels; p++) {
        height += header_height(&chart->panels[p]) + plot_height + BETWEEN;
    }
    set_x_axis(&d);
    put_opening(&d, height);
    double top = TOP;
    for (size_t p = 0; p < chart->n_panels; p++) {
        put_panel(&d, &chart->panels[p], top, plot_height);
        top += header_height(&chart->panels[p]) + plot_height + BETWEEN;
    }
    buf_append_text(out, "</svg>\n");
    if (out->status != STATUS_OK) {
        return error_set(err, out->status, "a chart: %s", status_text(out->status));
    }
    return STATUS_OK;
}
