/* A figure against the key of its sweep, mostly bandwidth against size: a line per side, a band of
 * its runs, and the ceilings. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/result/chart.h"
#include "host/result/report.h"

#define WIDTH      760.0
#define HEIGHT     380.0
#define LEFT       90.0
#define RIGHT      740.0
#define TOP        60.0
#define BOTTOM     330.0
#define POINTS_MAX 512

/* What one side has of a sweep. */
struct series {
    size_t count;
    double key[POINTS_MAX], value[POINTS_MAX], low[POINTS_MAX], high[POINTS_MAX];
    double theoretical[POINTS_MAX], attainable[POINTS_MAX];
};

struct plot {
    const struct cm_book *book;
    const json_t *sweep;
    const char *metric, *unit, *key_unit;
    struct series *series; /* per side */
    struct cm_scale x, y;
};

static double ceiling_of(const json_t *item, const char *metric, const char *kind)
{
    const json_t *ceilings = json_object_get(json_object_get(item, "ceilings"), metric);
    return cm_get_number(json_object_get(ceilings, kind), "value");
}

static void read_side(const struct plot *plot, size_t side, struct series *series)
{
    size_t index;
    const json_t *point;
    json_array_foreach(json_object_get(plot->sweep, "points"), index, point)
    {
        const json_t *item = cm_side_case(&plot->book->sides[side], json_string_value(point));
        const json_t *metric = json_object_get(json_object_get(item, "metrics"), plot->metric);
        const char *key = cm_get_text(plot->sweep, "key");
        double at = cm_get_number(json_object_get(item, "params"), key);
        double value = cm_get_number(metric, "value");
        size_t i = series->count;
        if (!isfinite(at) || !isfinite(value) || i == POINTS_MAX)
            continue;
        const json_t *interval = json_object_get(metric, "interval");
        bool known = isfinite(cm_get_number(interval, "low"));
        series->key[i] = at;
        series->value[i] = value;
        series->low[i] = known ? cm_get_number(interval, "low") : cm_get_number(metric, "minimum");
        series->high[i] =
            known ? cm_get_number(interval, "high") : cm_get_number(metric, "maximum");
        series->theoretical[i] = ceiling_of(item, plot->metric, "theoretical");
        series->attainable[i] = ceiling_of(item, plot->metric, "attainable");
        series->count++;
    }
}

static void set_scales(struct plot *plot)
{
    double least = INFINITY, most = 0;
    bool time = strcmp(plot->unit, "s") == 0;
    for (size_t side = 0; side < plot->book->count; side++) {
        for (size_t i = 0; i < plot->series[side].count; i++) {
            least = fmin(least, plot->series[side].key[i]);
            most = fmax(most, plot->series[side].key[i]);
        }
    }
    plot->x = (struct cm_scale){1, 0, LEFT, RIGHT, least > 0 && most / least > 8};
    plot->y = (struct cm_scale){1, 0, BOTTOM, TOP, time};
    for (size_t side = 0; side < plot->book->count; side++) {
        const struct series *series = &plot->series[side];
        for (size_t i = 0; i < series->count; i++) {
            cm_scale_cover(&plot->x, series->key[i]);
            cm_scale_cover(&plot->y, series->value[i]);
            cm_scale_cover(&plot->y, series->high[i]);
            cm_scale_cover(&plot->y, series->low[i]);
            cm_scale_cover(&plot->y, series->theoretical[i]);
            cm_scale_cover(&plot->y, series->attainable[i]);
        }
    }
    if (!time)
        cm_scale_cover(&plot->y, 0);
    cm_scale_round(&plot->x);
    cm_scale_round(&plot->y);
}

static void to_places(const struct cm_scale *scale, const double *values, size_t count,
                      double *places)
{
    for (size_t i = 0; i < count; i++)
        places[i] = cm_scale_at(scale, values[i]);
}

static void draw_side(const struct plot *plot, size_t side, struct cm_str *svg)
{
    const struct series *series = &plot->series[side];
    double x[POINTS_MAX], y[POINTS_MAX], low[POINTS_MAX];
    char class[40], tip[CM_SVG_CUT_MAX + 160], value[CM_UNITS_TEXT_MAX], key[CM_UNITS_TEXT_MAX];
    unsigned color = (unsigned)(side % CM_SVG_SERIES);
    to_places(&plot->x, series->key, series->count, x);
    to_places(&plot->y, series->low, series->count, low);
    to_places(&plot->y, series->high, series->count, y);
    snprintf(class, sizeof class, "s%u area", color);
    cm_svg_band(svg, x, low, y, series->count, class);
    static const char *const dashes[] = {"c-dash", "c-dot"};
    const double *const ceilings[] = {series->theoretical, series->attainable};
    for (size_t i = 0; i < 2; i++) {
        to_places(&plot->y, ceilings[i], series->count, y);
        snprintf(class, sizeof class, "s%u line %s", color, dashes[i]);
        cm_svg_path(svg, x, y, series->count, class);
    }
    to_places(&plot->y, series->value, series->count, y);
    snprintf(class, sizeof class, "s%u line", color);
    cm_svg_path(svg, x, y, series->count, class);
    for (size_t i = 0; i < series->count; i++) {
        char label[CM_SVG_CUT_MAX];
        snprintf(tip, sizeof tip, "%s: %s at %s",
                 cm_svg_cut(plot->book->sides[side].label, 60, label),
                 cm_format_value(series->value[i], plot->unit, value),
                 cm_format_value(series->key[i], plot->key_unit, key));
        cm_svg_mark(svg, x[i], y[i], color, false, tip);
    }
}

static enum cm_status draw(struct plot *plot, const char *name, struct cm_chart_sink *sink)
{
    struct cm_str svg = CM_STR_INIT;
    char title[CM_SVG_CUT_MAX + 120], shown[CM_SVG_CUT_MAX], id[CM_SVG_CUT_MAX + 120];
    const char *key = cm_get_text(plot->sweep, "key");
    set_scales(plot);
    cm_svg_cut(name, 60, shown);
    snprintf(title, sizeof title, "%s: %.40s against %.30s", shown, plot->metric, key);
    cm_svg_begin(&svg, WIDTH, HEIGHT, title,
                 "a line per side with the band of its runs; its points are in the tables");
    cm_svg_axis_x(&svg, &plot->x, TOP, BOTTOM, plot->key_unit, key);
    cm_svg_axis_y(&svg, &plot->y, LEFT, RIGHT, plot->unit, plot->metric);
    cm_chart_legend(plot->book, LEFT + 10, 24, &svg);
    for (size_t side = 0; side < plot->book->count; side++)
        draw_side(plot, side, &svg);
    cm_svg_end(&svg);
    snprintf(id, sizeof id, "%s %.40s", shown, plot->metric);
    return cm_chart_give(
        sink, "sweep", id, title,
        "Band: the 95 % interval, or from the least run to the largest where there "
        "are too few. Dashed: theoretical ceiling; dotted: attainable.",
        CM_OK, &svg);
}

/* One metric of a sweep, of all sides that have it. */
static enum cm_status plot_metric(const struct cm_book *book, const json_t *sweep,
                                  const char *metric, const char *unit, struct cm_chart_sink *sink)
{
    size_t points = 0;
    struct plot plot = {.book = book,
                        .sweep = sweep,
                        .metric = metric,
                        .unit = unit,
                        .key_unit = cm_get_text(sweep, "unit")};
    plot.series = cm_alloc(book->count, sizeof *plot.series);
    if (plot.series == NULL)
        return CM_NO_MEMORY;
    for (size_t side = 0; side < book->count; side++) {
        read_side(&plot, side, &plot.series[side]);
        points = plot.series[side].count > points ? plot.series[side].count : points;
    }
    enum cm_status status = points >= 2 ? draw(&plot, cm_get_text(sweep, "name"), sink) : CM_OK;
    cm_free(plot.series);
    return status;
}

static enum cm_status plot_sweep(const struct cm_book *book, const json_t *sweep,
                                 struct cm_chart_sink *sink)
{
    const json_t *item = NULL;
    size_t index;
    const json_t *point;
    json_array_foreach(json_object_get(sweep, "points"), index, point)
    {
        for (size_t side = 0; side < book->count && item == NULL; side++) {
            const json_t *found = cm_side_case(&book->sides[side], json_string_value(point));
            item = found != NULL && cm_headline_metric(found) != NULL ? found : NULL;
        }
    }
    if (item == NULL)
        return CM_OK;
    const json_t *metrics = json_object_get(item, "metrics");
    const char *headline = cm_headline_metric(item);
    enum cm_status status = plot_metric(
        book, sweep, headline, cm_get_text(json_object_get(metrics, headline), "unit"), sink);
    if (status == CM_OK && strcmp(headline, "time") != 0 &&
        json_object_get(metrics, "time") != NULL)
        status = plot_metric(book, sweep, "time", "s", sink);
    return status;
}

/* Sweeps by name, each once, from the newest result of each side. */
enum cm_status cm_chart_sweep(const struct cm_book *book, struct cm_chart_sink *sink)
{
    enum cm_status status = CM_OK;
    json_t *seen = json_object();
    size_t index;
    const json_t *sweep;
    for (size_t side = 0; side < book->count; side++) {
        json_array_foreach(json_object_get(cm_side_last(&book->sides[side]), "sweeps"), index,
                           sweep)
        {
            const char *name = cm_get_text(sweep, "name");
            if (status != CM_OK || json_object_get(seen, name) != NULL)
                continue;
            cm_put(&status, seen, name, json_true());
            if (status == CM_OK)
                status = plot_sweep(book, sweep, sink);
        }
    }
    json_decref(seen);
    return status;
}
