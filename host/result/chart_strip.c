/* The runs of each case as a strip: every run a mark, relative to the median of them all. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/result/chart.h"
#include "host/result/report.h"

#define ROWS_MAX 50
#define RUNS_MAX 60 /* of a side, the newest */
#define ROW      22.0
#define LEFT     330.0
#define RIGHT    830.0
#define TOP      44.0

struct strip_row {
    const char *name, *metric, *unit; /* borrowed */
    double median, range;
};

static int by_range(const void *a, const void *b)
{
    const struct strip_row *left = a, *right = b;
    return (left->range < right->range) - (left->range > right->range);
}

/* The row of a case, of the runs of all sides; false when they are too few. */
static enum cm_status read_row(const struct cm_book *book, const char *name, struct strip_row *row,
                               bool *good)
{
    struct cm_samples all = {.values = NULL}, own = {.values = NULL};
    enum cm_status status = CM_OK;
    const json_t *item = cm_side_case(&book->sides[0], name);
    const char *metric = item != NULL ? cm_headline_metric(item) : NULL;
    *good = false;
    for (size_t side = 0; metric != NULL && side < book->count && status == CM_OK; side++) {
        status = cm_side_values(&book->sides[side], name, metric, &own);
        for (size_t i = 0; i < own.count && status == CM_OK; i++)
            status = cm_samples_add(&all, own.values[i]);
    }
    double median = cm_median(all.values, all.count);
    if (status == CM_OK && all.count >= 2 && median > 0 && isfinite(median)) {
        *row = (struct strip_row){
            .name = name,
            .metric = metric,
            .unit = cm_get_text(cm_side_metric(&book->sides[0], name, metric), "unit"),
            .median = median,
            .range =
                (cm_quantile(all.values, all.count, 1) - cm_quantile(all.values, all.count, 0)) /
                median};
        *good = true;
    }
    cm_samples_release(&all);
    cm_samples_release(&own);
    return status;
}

static enum cm_status draw_row(const struct cm_book *book, const struct strip_row *row,
                               const struct cm_scale *scale, double y, struct cm_str *svg)
{
    struct cm_samples values = {.values = NULL};
    enum cm_status status = CM_OK;
    char name[CM_SVG_CUT_MAX], tip[120], text[CM_UNITS_TEXT_MAX];
    cm_svg_text(svg, LEFT - 8, y + 4, "t-end", cm_svg_cut(row->name, 42, name));
    cm_svg_line(svg, LEFT, y, RIGHT, y, "c-grid");
    for (size_t side = 0; side < book->count && status == CM_OK; side++) {
        double lift =
            ((double)side - ((double)book->count - 1) / 2) * fmin(4, 14 / (double)book->count);
        status = cm_side_values(&book->sides[side], row->name, row->metric, &values);
        size_t first = values.count > RUNS_MAX ? values.count - RUNS_MAX : 0;
        for (size_t i = first; i < values.count && status == CM_OK; i++) {
            double change = (values.values[i] / row->median - 1) * 100;
            double x = fmin(fmax(cm_scale_at(scale, change), LEFT), RIGHT);
            snprintf(tip, sizeof tip, "run %zu: %s, %+.1f %%", i + 1,
                     cm_format_value(values.values[i], row->unit, text), change);
            cm_svg_mark(svg, x, y + lift, (unsigned)side, true, tip);
        }
    }
    cm_svg_textf(svg, RIGHT + 10, y + 4, "t-small", "%s %s",
                 cm_format_value(row->median, row->unit, text), cm_svg_cut(row->metric, 20, name));
    cm_samples_release(&values);
    return status;
}

static enum cm_status draw(const struct cm_book *book, struct strip_row *rows, size_t count,
                           struct cm_chart_sink *sink)
{
    struct cm_str svg = CM_STR_INIT;
    size_t shown = count < ROWS_MAX ? count : ROWS_MAX;
    struct cm_scale scale = {1, 0, LEFT, RIGHT, false};
    enum cm_status status = CM_OK;
    double most = fmin(rows[0].range, 1) * 100;
    cm_scale_cover(&scale, -fmax(most * 0.6, 1));
    cm_scale_cover(&scale, fmax(most * 0.6, 1));
    cm_scale_round(&scale);
    double bottom = TOP + ROW * (double)shown;
    cm_svg_begin(&svg, 1000, bottom + 40, "Every run of every case",
                 "a mark per run, as the difference from the median of the case's runs");
    cm_chart_legend(book, LEFT, 18, &svg);
    cm_svg_axis_x(&svg, &scale, TOP - 8, bottom, "%", "difference from the case's median");
    for (size_t i = 0; i < shown && status == CM_OK; i++)
        status = draw_row(book, &rows[i], &scale, TOP + ROW * ((double)i + 0.5), &svg);
    cm_svg_end(&svg);
    return cm_chart_give(sink, "strip", "all", "Every run of every case",
                         count > shown ? "The 50 cases whose runs differ most. Runs beyond the "
                                         "scale stand at its ends."
                                       : "Those whose runs differ most come first. Runs beyond the "
                                         "scale stand at its ends.",
                         status, &svg);
}

enum cm_status cm_chart_strip(const struct cm_book *book, struct cm_chart_sink *sink)
{
    enum cm_status status = CM_OK;
    size_t index, count = 0;
    const json_t *name;
    if (book->count == 0)
        return CM_OK;
    struct strip_row *rows = cm_alloc(json_array_size(book->sides[0].order), sizeof *rows);
    if (rows == NULL)
        return CM_NO_MEMORY;
    json_array_foreach(book->sides[0].order, index, name)
    {
        bool good = false;
        if (status == CM_OK)
            status = read_row(book, json_string_value(name), &rows[count], &good);
        count += good;
    }
    if (count > 0)
        qsort(rows, count, sizeof *rows, by_range);
    if (status == CM_OK && count > 0)
        status = draw(book, rows, count, sink);
    cm_free(rows);
    return status;
}
