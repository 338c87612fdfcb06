/* Very many ranks, a row per figure: how they are distributed, and those that stand out. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/units.h"
#include "host/result/chart.h"
#include "host/result/report.h"

#define ROWS_MAX 48
#define ROW      26.0
#define LEFT     300.0
#define RIGHT    860.0
#define TOP      30.0
#define HALF     6.0 /* of a box's height */
/* Widest scale, in percent of the median. */
#define WIDEST 100.0

struct folded_row {
    const char *name, *metric, *unit; /* borrowed */
    const json_t *spread;
    bool lower;
};

static size_t read_rows(const json_t *cases, struct folded_row rows[ROWS_MAX])
{
    size_t count = 0, index;
    const json_t *item;
    json_array_foreach(cases, index, item)
    {
        const char *metric;
        json_t *spread;
        const json_t *metrics = json_object_get(item, "metrics");
        json_object_foreach(json_object_get(item, "spread_ranks"), metric, spread)
        {
            const json_t *figure = json_object_get(metrics, metric);
            if (count < ROWS_MAX && json_object_get(spread, "outliers_total") != NULL &&
                cm_get_number(spread, "median") > 0)
                rows[count++] = (struct folded_row){
                    cm_get_text(item, "name"), metric, cm_get_text(figure, "unit"), spread,
                    strcmp(cm_get_text(figure, "better"), "lower") == 0};
        }
    }
    return count;
}

static double percent(const struct folded_row *row, double value)
{
    double share = (value / cm_get_number(row->spread, "median") - 1) * 100;
    return fmin(fmax(share, -WIDEST), WIDEST);
}

static void cover(const struct folded_row *row, struct cm_scale *scale)
{
    static const char *const ends[] = {"worst", "best"};
    for (size_t i = 0; i < 2; i++)
        cm_scale_cover(scale,
                       percent(row, cm_get_number(json_object_get(row->spread, ends[i]), "value")));
}

static void draw_rank(const struct folded_row *row, const json_t *rank,
                      const struct cm_scale *scale, double y, struct cm_str *svg)
{
    char tip[160], text[CM_UNITS_TEXT_MAX];
    double value = cm_get_number(rank, "value"), share = percent(row, value);
    if (!isfinite(share))
        return;
    snprintf(tip, sizeof tip, "rank %.0f %.30s: %s, %+.1f %% of the median",
             cm_get_number(rank, "rank"), cm_get_text(rank, "bus_id"),
             cm_format_value(value, row->unit, text), share);
    cm_svg_mark(svg, cm_scale_at(scale, share), y, (share > 0) != row->lower ? 0 : 1, true, tip);
}

static void draw_row(const struct folded_row *row, const struct cm_scale *scale, double y,
                     struct cm_str *svg)
{
    char name[CM_SVG_CUT_MAX], cut[CM_SVG_CUT_MAX + 60], tip[160], text[CM_UNITS_TEXT_MAX];
    double at[4];
    static const char *const keys[4] = {"p01", "p25", "p75", "p99"};
    snprintf(cut, sizeof cut, "%s %.40s", cm_svg_cut(row->name, 28, name), row->metric);
    cm_svg_text(svg, LEFT - 8, y + 4, "t-end", cut);
    for (int i = 0; i < 4; i++)
        at[i] = cm_scale_at(scale, percent(row, cm_get_number(row->spread, keys[i])));
    if (isfinite(at[0] + at[1] + at[2] + at[3])) {
        snprintf(tip, sizeof tip, "median of %.0f ranks %s; box: half of them, line: 98 %%",
                 cm_get_number(row->spread, "ranks"),
                 cm_format_value(cm_get_number(row->spread, "median"), row->unit, text));
        cm_svg_line(svg, at[0], y, at[3], y, "c-axis");
        cm_svg_rect(svg, at[1], y - HALF, fmax(at[2] - at[1], 1), 2 * HALF, "s0 c-cell", tip);
    }
    size_t index;
    const json_t *outlier;
    json_array_foreach(json_object_get(row->spread, "outliers"), index, outlier)
        draw_rank(row, outlier, scale, y, svg);
    draw_rank(row, json_object_get(row->spread, "worst"), scale, y, svg);
    draw_rank(row, json_object_get(row->spread, "best"), scale, y, svg);
}

enum cm_status cm_chart_many_ranks(const struct cm_side *side, struct cm_chart_sink *sink)
{
    struct folded_row rows[ROWS_MAX];
    struct cm_str svg = CM_STR_INIT;
    struct cm_scale scale = {1, 0, LEFT, RIGHT, false};
    char title[CM_SVG_CUT_MAX + 60], label[CM_SVG_CUT_MAX];
    size_t count = read_rows(json_object_get(cm_side_last(side), "cases"), rows);
    if (count == 0)
        return CM_OK;
    for (size_t i = 0; i < count; i++)
        cover(&rows[i], &scale);
    cm_scale_round(&scale);
    double bottom = TOP + ROW * (double)count;
    snprintf(title, sizeof title, "All ranks against their median, %s",
             cm_svg_cut(side->label, 60, label));
    cm_svg_begin(&svg, RIGHT + 40, bottom + 40, title,
                 "a row per figure: half of the ranks, 98 % of them, and those that stand out");
    cm_svg_axis_x(&svg, &scale, TOP - 14, bottom, "%", "of the median");
    for (size_t i = 0; i < count; i++)
        draw_row(&rows[i], &scale, TOP + ROW * (double)i, &svg);
    cm_svg_end(&svg);
    return cm_chart_give(
        sink, "ranks", label, title,
        "Box: the middle half of the ranks; line: from 1 to 99 % of them. Marks: the "
        "worst, the best, and at most 32 that stand out; orange is worse.",
        CM_OK, &svg);
}
