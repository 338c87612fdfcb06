/* Series over time, with their changes and where the machine changed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/result/chart.h"
#include "host/result/history.h"
#include "host/result/record.h"

#define SERIES_MAX 16
#define POINTS_MAX 500
#define WIDTH      900.0
#define LEFT       90.0
#define RIGHT      870.0
#define TOP        30.0
#define BOTTOM     190.0

static void draw_levels(const json_t *series, const struct cm_scale *x, const struct cm_scale *y,
                        size_t first, struct cm_str *svg)
{
    size_t index;
    const json_t *change;
    json_array_foreach(json_object_get(series, "changes"), index, change)
    {
        double at = cm_get_number(change, "index") - (double)first;
        char tip[160], after[CM_UNITS_TEXT_MAX];
        bool worse = strcmp(cm_get_text(change, "verdict"), "worse") == 0;
        if (!(at > 0))
            continue;
        double place = cm_scale_at(x, at - 0.5);
        cm_svg_line(svg, place, TOP, place, BOTTOM, worse ? "v-bad c-dash" : "v-good c-dash");
        snprintf(
            tip, sizeof tip, "%+.1f %%, %s: %s since then", cm_get_number(change, "change") * 100,
            worse ? "worse" : "better",
            cm_format_value(cm_get_number(change, "after"), cm_get_text(series, "unit"), after));
        cm_svg_rect(svg, place - 5, TOP - 6, 10, 10, worse ? "v-bad" : "v-good", tip);
        cm_svg_textf(svg, place + 8, TOP + 3, "t-small", "%+.1f %%",
                     cm_get_number(change, "change") * 100);
    }
    (void)y;
}

static void draw_points(const json_t *points, size_t first, const struct cm_scale *x,
                        const struct cm_scale *y, const char *unit, struct cm_str *svg)
{
    double xs[POINTS_MAX], ys[POINTS_MAX];
    size_t count = json_array_size(points) - first;
    for (size_t i = 0; i < count; i++) {
        const json_t *point = json_array_get(points, first + i);
        xs[i] = cm_scale_at(x, (double)i);
        ys[i] = cm_scale_at(y, cm_get_number(point, "value"));
        if (i > 0 && !cm_history_continues(json_array_get(points, first + i - 1), point))
            cm_svg_line(svg, (xs[i] + xs[i - 1]) / 2, TOP, (xs[i] + xs[i - 1]) / 2, BOTTOM,
                        "c-axis");
    }
    cm_svg_path(svg, xs, ys, count, "s0 line");
    for (size_t i = 0; i < count; i++) {
        const json_t *point = json_array_get(points, first + i);
        char tip[200], value[CM_UNITS_TEXT_MAX];
        snprintf(tip, sizeof tip, "%.40s: %s, machine %.0f", cm_get_text(point, "time"),
                 cm_format_value(cm_get_number(point, "value"), unit, value),
                 cm_get_number(point, "machine"));
        cm_svg_mark(svg, xs[i], ys[i], (unsigned)cm_get_number(point, "machine") % CM_SVG_SERIES,
                    false, tip);
    }
}

static enum cm_status draw(const json_t *series, struct cm_chart_sink *sink)
{
    struct cm_str svg = CM_STR_INIT;
    const json_t *points = json_object_get(series, "points");
    const char *unit = cm_get_text(series, "unit");
    size_t count = json_array_size(points), first = count > POINTS_MAX ? count - POINTS_MAX : 0;
    struct cm_scale x = {-0.5, (double)(count - first) - 0.5, LEFT, RIGHT, false};
    struct cm_scale y = {1, 0, BOTTOM, TOP + 12, false};
    char name[CM_SVG_CUT_MAX], title[CM_SVG_CUT_MAX + 120], text[160];
    for (size_t i = first; i < count; i++)
        cm_scale_cover(&y, cm_get_number(json_array_get(points, i), "value"));
    cm_scale_round(&y);
    cm_svg_cut(cm_get_text(series, "case"), 60, name);
    snprintf(title, sizeof title, "%s: %.60s over time", name, cm_get_text(series, "metric"));
    snprintf(text, sizeof text, "%zu results, %zu changes", count,
             json_array_size(json_object_get(series, "changes")));
    cm_svg_begin(&svg, WIDTH, BOTTOM + 30, title, text);
    cm_svg_axis_y(&svg, &y, LEFT, RIGHT, unit, "");
    draw_points(points, first, &x, &y, unit, &svg);
    draw_levels(series, &x, &y, first, &svg);
    cm_svg_text(&svg, LEFT, BOTTOM + 16, "t-dim t-small",
                cm_get_text(json_array_get(points, first), "time"));
    cm_svg_text(&svg, RIGHT, BOTTOM + 16, "t-dim t-small t-end",
                cm_get_text(json_array_get(points, count - 1), "time"));
    cm_svg_end(&svg);
    return cm_chart_give(sink, "history", name, title,
                         "Results in their order. Dashed: a change point; a full line: another "
                         "machine, surroundings or settings from there on.",
                         CM_OK, &svg);
}

/* Series with changes before those without, at most SERIES_MAX. */
static enum cm_status draw_all(const json_t *all, struct cm_chart_sink *sink)
{
    enum cm_status status = CM_OK;
    size_t drawn = 0;
    for (int pass = 0; pass < 2; pass++) {
        size_t index;
        const json_t *series;
        json_array_foreach(all, index, series)
        {
            bool changed = json_array_size(json_object_get(series, "changes")) > 0;
            if (status != CM_OK || drawn == SERIES_MAX || changed != (pass == 0) ||
                json_array_size(json_object_get(series, "points")) < 3)
                continue;
            status = draw(series, sink);
            drawn++;
        }
    }
    return status;
}

enum cm_status cm_chart_history(const struct cm_book *book, struct cm_chart_sink *sink)
{
    struct cm_history_options options = {.margin = book->margin};
    json_t *results = json_array(), *history = NULL;
    enum cm_status status = results != NULL ? CM_OK : CM_NO_MEMORY;
    for (size_t side = 0; side < book->count && status == CM_OK; side++) {
        if (json_array_extend(results, book->sides[side].results) != 0)
            status = CM_NO_MEMORY;
    }
    if (status == CM_OK)
        status = cm_results_sort(results);
    if (status == CM_OK && json_array_size(results) >= 3)
        status = cm_history_build(results, &options, &history);
    if (status == CM_OK && history != NULL)
        status = draw_all(json_object_get(history, "series"), sink);
    json_decref(results);
    json_decref(history);
    return status;
}
