#include "base/chart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/parse.h"

enum { DEPTH_MAX = 16, NAME_BYTES = 32, MANY_POINTS = 1000 };

static struct buf out;
static struct error err;

static int set_up(void **state)
{
    (void)state;
    buf_init(&out, 1 << 20);
    memset(&err, 0, sizeof(err));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    buf_free(&out);
    return 0;
}

/* ---- a small reader of XML: elements nest, attributes are quoted, text has no bare signs ---- */

static const char *skip_entity(const char *at)
{
    static const char *const KNOWN[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    for (size_t i = 0; i < sizeof(KNOWN) / sizeof(KNOWN[0]); i++) {
        if (strncmp(at, KNOWN[i], strlen(KNOWN[i])) == 0) {
            return at + strlen(KNOWN[i]);
        }
    }
    fail_msg("bare & at: %.40s", at);
    return at;
}

static const char *skip_attributes(const char *at)
{
    while (*at == ' ') {
        at += 1 + strspn(at + 1, "abcdefghijklmnopqrstuvwxyzB0123456789-");
        assert_memory_equal(at, "=\"", 2);
        for (at += 2; *at != '"';) {
            assert_true(*at != '\0' && *at != '<');
            at = *at == '&' ? skip_entity(at) : at + 1;
        }
        at++;
    }
    return at;
}

static void assert_well_formed(const char *text)
{
    char open[DEPTH_MAX][NAME_BYTES];
    size_t depth = 0;
    size_t n_roots = 0;
    assert_true(utf8_valid(text, strlen(text)));
    for (const char *at = text; *at != '\0';) {
        assert_true((unsigned char)*at >= 0x20 || *at == '\n' || *at == '\t' || *at == '\r');
        if (*at == '&') {
            at = skip_entity(at);
        } else if (*at != '<') {
            assert_true(depth > 0 || *at == '\n');
            at++;
        } else {
            bool is_end = at[1] == '/';
            at += is_end ? 2 : 1;
            size_t n = strspn(at, "abcdefghijklmnopqrstuvwxyz");
            assert_true(n > 0 && n < NAME_BYTES);
            if (is_end) {
                assert_true(depth > 0 && strlen(open[depth - 1]) == n);
                assert_memory_equal(open[--depth], at, n);
                at += n;
            } else {
                assert_true(depth < DEPTH_MAX);
                memcpy(open[depth], at, n);
                open[depth++][n] = '\0';
                n_roots += depth == 1 ? 1 : 0;
                at = skip_attributes(at + n);
                depth -= *at == '/' ? 1 : 0;
                at += *at == '/' ? 1 : 0;
            }
            assert_int_equal(*at, '>');
            at++;
        }
    }
    assert_int_equal(depth, 0);
    assert_int_equal(n_roots, 1);
}

/* ---- what is in it ---- */

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what)) {
        n++;
    }
    return n;
}

/* Contents of <text class="CLASS" …>, each followed by a blank. */
static void texts_of(const char *svg, const char *class, char *into, size_t room)
{
    char begin[64];
    (void)snprintf(begin, sizeof(begin), "<text class=\"%s\"", class);
    into[0] = '\0';
    size_t used = 0;
    for (const char *at = strstr(svg, begin); at != NULL; at = strstr(at + 1, begin)) {
        const char *from = strchr(at, '>') + 1;
        int n = snprintf(into + used, room - used, "%.*s ", (int)strcspn(from, "<"), from);
        assert_true(n > 0 && (size_t)n < room - used);
        used += (size_t)n;
    }
}

static const char *draw(const struct chart *chart)
{
    buf_reset(&out);
    assert_int_equal(chart_svg(chart, &out, &err), STATUS_OK);
    assert_well_formed(buf_text(&out));
    return buf_text(&out);
}

static const char *draw_one(struct chart chart, const double *x, const double *y, size_t n)
{
    const struct chart_series series = {"name", x, y, n};
    const struct chart_panel panel = {.y_label = "height", .series = &series, .n_series = 1};
    chart.title = chart.title != NULL ? chart.title : "A title";
    chart.x_label = "length";
    chart.panels = &panel;
    chart.n_panels = 1;
    return draw(&chart);
}

/* ---- tests ---- */

static void chart_svg_two_panels_draws_all_and_describes_them(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3, 4};
    const double a[] = {9, 7, 6, 5.5};
    const double b[] = {0.1, 0.2, 0.25, 0.24};
    const double c[] = {0.3, 0.4, 0.45, 0.44};
    const struct chart_series upper[] = {{NULL, x, a, 4}};
    const struct chart_series lower[] = {{"first", x, b, 4}, {"second", x, c, 4}};
    const struct chart_panel panels[] = {
        {.y_label = "loss", .series = upper, .n_series = 1},
        {.y_label = "quality", .series = lower, .n_series = 2, .mark = {3, 0.25, "best: 3"}}};
    const struct chart chart = {"Training", "How it went.", "epoch", false, true, panels, 2};
    const char *svg = draw(&chart);
    assert_int_equal(count(svg, "class=\"series\""), 3);
    assert_int_equal(count(svg, "class=\"legend\""), 2);
    assert_int_equal(count(svg, "class=\"mark\""), 1);
    assert_int_equal(count(svg, "class=\"x-label\""), 1);
    assert_non_null(strstr(svg, "role=\"img\""));
    assert_non_null(strstr(svg, ">Training</title>"));
    assert_non_null(strstr(svg, ">How it went. loss: 4 points from 5.5 to 9. quality, first: 4 "
                                "points from 0.1 to 0.25. quality, second: 4 points from 0.3 to "
                                "0.45. Marked: best: 3.</desc>"));
    /* Nothing is fetched from elsewhere and nothing runs. */
    assert_null(strstr(svg, "href"));
    assert_null(strstr(svg, "url("));
    assert_null(strstr(svg, "script"));
    assert_null(strstr(svg, "@import"));
}

static void chart_svg_same_input_gives_same_bytes(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3};
    const double y[] = {5, 3, 4};
    struct chart chart = {.x_is_whole = true};
    char *first = mem_strdup(draw_one(chart, x, y, 3));
    assert_non_null(first);
    assert_string_equal(draw_one(chart, x, y, 3), first);
    mem_free(first);
}

static void chart_svg_ticks_are_nice_numbers(void **state)
{
    (void)state;
    static const struct {
        double x[2], y[2];
        bool is_log, is_whole;
        const char *x_ticks, *y_ticks;
    } CASES[] = {
        {{1, 40}, {5.55, 8.4}, false, true, "1 5 10 15 20 25 30 35 40 ", "5 6 7 8 9 "},
        {{1, 3}, {0.011, 0.234}, false, true, "1 2 3 ", "0 0.05 0.10 0.15 0.20 0.25 "},
        {{1, 1000}, {0, 1}, false, true, "1 200 400 600 800 1000 ", "0 0.2 0.4 0.6 0.8 1.0 "},
        {{0, 1},
         {-5, 5},
         false,
         false,
         "0 0.2 0.4 0.6 0.8 1.0 ",
         "\xe2\x88\x92"
         "4 \xe2\x88\x92"
         "2 0 2 4 "},
        {{0.1, 10}, {10000, 50000}, true, false, "0.1 0.2 0.5 1 2 5 10 ", "10k 20k 30k 40k 50k "},
        {{1, 1e6},
         {1e6, 3e6},
         true,
         false,
         "1 10 100 1000 10k 100k 1M ",
         "1.0M 1.5M 2.0M 2.5M 3.0M "},
        {{1e-8, 3e-8},
         {0.9, 1.0},
         false,
         false,
         "1e-08 1.5e-08 2e-08 2.5e-08 3e-08 ",
         "0.90 0.92 0.94 0.96 0.98 1.00 "},
    };
    char text[512];
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct chart chart = {.x_is_log = CASES[i].is_log, .x_is_whole = CASES[i].is_whole};
        const char *svg = draw_one(chart, CASES[i].x, CASES[i].y, 2);
        texts_of(svg, "x-tick", text, sizeof(text));
        assert_string_equal(text, CASES[i].x_ticks);
        texts_of(svg, "y-tick", text, sizeof(text));
        assert_non_null(strstr(text, CASES[i].y_ticks));
    }
}

static void chart_svg_lines_stay_within_the_plot(void **state)
{
    (void)state;
    double x[MANY_POINTS];
    double y[MANY_POINTS];
    for (int i = 0; i < MANY_POINTS; i++) {
        x[i] = i + 1;
        y[i] = sin(i / 50.0) * exp(i / 300.0);
    }
    for (int is_log = 0; is_log < 2; is_log++) {
        struct chart chart = {.x_is_log = is_log == 1};
        const char *at = strstr(draw_one(chart, x, y, MANY_POINTS), "class=\"series\"");
        at = strstr(at, " d=\"") + 4;
        size_t n = 0;
        double before = 0.0;
        while (*at != '"') {
            char *end = NULL;
            double px = strtod(at + 1, &end);
            double py = strtod(end, &end);
            assert_true(px >= before && px >= 60.0 && px <= CHART_WIDTH);
            assert_true(py >= 40.0 && py <= 460.0);
            before = px;
            at = end;
            n++;
        }
        assert_int_equal(n, MANY_POINTS);
    }
}

static void chart_svg_special_characters_are_escaped(void **state)
{
    (void)state;
    const double x[] = {1, 2};
    const double y[] = {1, 2};
    struct chart chart = {.title = "<b>\"A\" & 'B'</b>\x01\xff \xc3\xa9 \xef\xbf\xbf"};
    const char *svg = draw_one(chart, x, y, 2);
    assert_non_null(strstr(svg, ">&lt;b&gt;&quot;A&quot; &amp; &#39;B&#39;&lt;/b&gt;"
                                "\xef\xbf\xbd\xef\xbf\xbd \xc3\xa9 \xef\xbf\xbd</title>"));
}

static void chart_svg_missing_values_leave_gaps(void **state)
{
    (void)state;
    const double nan = (double)NAN;
    const double x[] = {1, 2, 3, 4, 5, nan, 7};
    const double y[] = {1, 2, nan, 4, (double)INFINITY, 6, 1e200};
    struct chart chart = {0};
    const char *svg = draw_one(chart, x, y, 7);
    char *line = strstr(svg, "class=\"series\"");
    size_t moves = 0;
    size_t lines = 0;
    for (const char *at = strstr(line, " d=\"") + 4; *at != '"'; at++) {
        moves += *at == 'M' ? 1 : 0;
        lines += *at == 'L' ? 1 : 0;
    }
    assert_int_equal(moves, 2);
    assert_int_equal(lines, 1);
    assert_non_null(strstr(svg, "height, name: 3 points from 1 to 4."));
    assert_null(strstr(svg, "nan"));
    assert_null(strstr(svg, "inf"));
}

static void chart_svg_not_positive_on_log_axis_is_left_out(void **state)
{
    (void)state;
    const double x[] = {-1, 0, 1, 10};
    const double y[] = {1, 2, 3, 4};
    struct chart chart = {.x_is_log = true};
    assert_non_null(strstr(draw_one(chart, x, y, 4), ": 2 points from 3 to 4."));
}

static void chart_svg_one_point_is_shown(void **state)
{
    (void)state;
    const double values[][2] = {{1, 0.5}, {0, 0}, {-3, -1e90}, {1e90, 1e90}, {1e-90, 1e-90}};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        for (int kind = 0; kind < 3; kind++) {
            struct chart chart = {.x_is_log = kind == 1, .x_is_whole = kind == 2};
            const char *svg = draw_one(chart, &values[i][0], &values[i][1], 1);
            bool is_left_out = kind == 1 && values[i][0] <= 0.0;
            /* one in the legend, one in the plot */
            assert_int_equal(count(svg, "<circle"), is_left_out ? 1 : 2);
            assert_null(strstr(svg, "nan"));
            assert_null(strstr(svg, "inf"));
        }
    }
    const double x = 1;
    const double y = 2;
    char ticks[64];
    struct chart chart = {.x_is_whole = true};
    texts_of(draw_one(chart, &x, &y, 1), "x-tick", ticks, sizeof(ticks));
    assert_string_equal(ticks, "1 ");
}

static void chart_svg_no_points_says_so(void **state)
{
    (void)state;
    const double nan = (double)NAN;
    struct chart chart = {0};
    const char *svg = draw_one(chart, NULL, NULL, 0);
    assert_int_equal(count(svg, ">no data<"), 1);
    assert_non_null(strstr(svg, "height, name: no data."));
    svg = draw_one(chart, &nan, &nan, 1);
    assert_int_equal(count(svg, ">no data<"), 1);
    const struct chart_panel none = {.y_label = "y"};
    const struct chart empty = {.title = "t", .x_label = "x", .panels = &none, .n_panels = 1};
    assert_int_equal(count(draw(&empty), ">no data<"), 1);
}

static void chart_svg_long_legend_wraps_above_the_plot(void **state)
{
    (void)state;
    const double x[] = {1, 2};
    const double y[] = {1, 2};
    struct chart_series series[CHART_SERIES_MAX];
    for (size_t s = 0; s < CHART_SERIES_MAX; s++) {
        series[s] = (struct chart_series){"a rather long name of a series", x, y, 2};
    }
    const struct chart_panel panel = {
        .y_label = "y", .series = series, .n_series = CHART_SERIES_MAX};
    const struct chart chart = {.title = "t", .x_label = "x", .panels = &panel, .n_panels = 1};
    const char *svg = draw(&chart);
    double plot_top = 1e9;
    for (const char *at = strstr(svg, "class=\"y-tick\""); at != NULL;
         at = strstr(at + 1, "class=\"y-tick\"")) {
        plot_top = fmin(plot_top, strtod(strstr(at, " y=\"") + 4, NULL));
    }
    size_t n = 0;
    for (const char *at = strstr(svg, "class=\"legend\""); at != NULL;
         at = strstr(at + 1, "class=\"legend\"")) {
        const char *text = strstr(at, "<text x=\"");
        assert_true(strtod(text + 9, NULL) < CHART_WIDTH - 150.0);
        assert_true(strtod(strstr(text, " y=\"") + 4, NULL) < plot_top - 8.0);
        n++;
    }
    assert_int_equal(n, CHART_SERIES_MAX);
}

static void chart_svg_too_much_is_refused(void **state)
{
    (void)state;
    struct chart_panel panels[CHART_PANELS_MAX + 1] = {{.y_label = "y"}};
    struct chart chart = {.title = "t", .x_label = "x", .panels = panels, .n_panels = 0};
    assert_int_equal(chart_svg(&chart, &out, &err), STATUS_INVALID);
    chart.n_panels = CHART_PANELS_MAX + 1;
    assert_int_equal(chart_svg(&chart, &out, &err), STATUS_INVALID);
    chart.n_panels = 1;
    panels[0].n_series = CHART_SERIES_MAX + 1;
    assert_int_equal(chart_svg(&chart, &out, NULL), STATUS_INVALID);
    assert_int_equal(out.len, 0);
    assert_int_equal(out.status, STATUS_OK);
}

static void chart_svg_without_room_or_memory_fails(void **state)
{
    (void)state;
    const struct chart_panel panel = {.y_label = "y"};
    const struct chart chart = {.title = "t", .x_label = "x", .panels = &panel, .n_panels = 1};
    struct buf small;
    buf_init(&small, 300);
    assert_int_equal(chart_svg(&chart, &small, &err), STATUS_LIMIT);
    buf_free(&small);
    mem_fail_nth(1);
    assert_int_equal(chart_svg(&chart, &out, &err), STATUS_NOMEM);
    mem_fail_nth(0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(chart_svg_two_panels_draws_all_and_describes_them),
        TEST(chart_svg_same_input_gives_same_bytes),
        TEST(chart_svg_ticks_are_nice_numbers),
        TEST(chart_svg_lines_stay_within_the_plot),
        TEST(chart_svg_special_characters_are_escaped),
        TEST(chart_svg_missing_values_leave_gaps),
        TEST(chart_svg_not_positive_on_log_axis_is_left_out),
        TEST(chart_svg_one_point_is_shown),
        TEST(chart_svg_no_points_says_so),
        TEST(chart_svg_long_legend_wraps_above_the_plot),
        TEST(chart_svg_too_much_is_refused),
        TEST(chart_svg_without_room_or_memory_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
