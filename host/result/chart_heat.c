/* Heat maps: figures device by device, and between pairs of ranks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/result/chart.h"
#include "host/result/report.h"

#define RANKS_MAX 256
#define ROWS_MAX  48
#define ROW       24.0
#define LEFT      300.0
#define TOP       44.0

/* Cells written out only where there is room. */
static double cell_width(size_t columns)
{
    return columns <= 16 ? 54 : columns <= 64 ? 14 : 6;
}

/* A colour of its own per cell cannot be a class: the share of a class's colour is. */
static void cell(double x, double y, double width, double height, const char *class,
                 double strength, const char *tip, struct cm_str *svg)
{
    cm_svg_rect(svg, x, y, width, height, "hollow c-cell", NULL);
    cm_str_addf(svg, "<g fill-opacity=\"%.2f\">", fmin(fmax(strength, 0), 1) * 0.75);
    char text[40];
    snprintf(text, sizeof text, "%s c-cell", class);
    cm_svg_rect(svg, x, y, width, height, text, tip);
    cm_str_add(svg, "</g>");
}

/* The rank at the end of "bandwidth.rank3"; -1 for another name. */
static int rank_of(const char *name, size_t *base)
{
    const char *dot = strrchr(name, '.');
    if (dot == NULL || strncmp(dot, ".rank", 5) != 0 || dot[5] < '0' || dot[5] > '9')
        return -1;
    char *end;
    unsigned long rank = strtoul(dot + 5, &end, 10);
    *base = (size_t)(dot - name);
    return *end == '\0' && rank < RANKS_MAX ? (int)rank : -1;
}

struct heat_row {
    char name[CM_SVG_CUT_MAX], unit[24];
    bool lower;
    size_t count; /* of ranks */
    double values[RANKS_MAX], median;
};

/* All ranks of the metric whose name has `length` letters of `base`. */
static void read_row(const json_t *item, const char *base, size_t length, struct heat_row *row)
{
    const char *name;
    json_t *metric;
    double known[RANKS_MAX];
    size_t count = 0, own;
    char cut[CM_SVG_CUT_MAX];
    row->count = 0;
    for (size_t i = 0; i < RANKS_MAX; i++)
        row->values[i] = NAN;
    json_object_foreach(json_object_get(item, "metrics"), name, metric)
    {
        int rank = rank_of(name, &own);
        double value = cm_get_number(metric, "value");
        if (rank < 0 || own != length || strncmp(name, base, length) != 0 || !isfinite(value))
            continue;
        if (!isfinite(row->values[rank]) && count < RANKS_MAX)
            known[count++] = value;
        row->values[rank] = value;
        row->count = (size_t)rank + 1 > row->count ? (size_t)rank + 1 : row->count;
        row->lower = strcmp(cm_get_text(metric, "better"), "lower") == 0;
        snprintf(row->unit, sizeof row->unit, "%s", cm_get_text(metric, "unit"));
    }
    row->median = cm_median(known, count);
    snprintf(row->name, sizeof row->name, "%s %.*s", cm_svg_cut(cm_get_text(item, "name"), 28, cut),
             (int)(length < 40 ? length : 40), base);
}

struct heat {
    struct heat_row *rows;
    size_t count, ranks;
};

/* The rows of a case: one per metric that has ranks. */
static enum cm_status add_rows(const json_t *item, struct heat *heat)
{
    const char *name;
    json_t *metric;
    char last[96] = "";
    json_object_foreach(json_object_get(item, "metrics"), name, metric)
    {
        size_t length;
        if (rank_of(name, &length) < 0 || length >= sizeof last || heat->count == ROWS_MAX ||
            (strncmp(last, name, length) == 0 && last[length] == '\0'))
            continue;
        snprintf(last, sizeof last, "%.*s", (int)length, name);
        struct heat_row *row = &heat->rows[heat->count];
        read_row(item, name, length, row);
        if (row->count < 2 || !(row->median > 0))
            continue;
        heat->ranks = row->count > heat->ranks ? row->count : heat->ranks;
        heat->count++;
    }
    return CM_OK;
}

static void draw_row(const struct heat_row *row, double y, double width, struct cm_str *svg)
{
    char tip[CM_SVG_CUT_MAX + 96], value[CM_UNITS_TEXT_MAX];
    cm_svg_text(svg, LEFT - 8, y + 16, "t-end", row->name);
    for (size_t rank = 0; rank < row->count; rank++) {
        double share = row->values[rank] / row->median - 1;
        if (!isfinite(share))
            continue;
        bool better = (share > 0) != row->lower;
        double x = LEFT + width * (double)rank;
        snprintf(tip, sizeof tip, "rank %zu, %s: %s, %+.1f %% of the median", rank, row->name,
                 cm_format_value(row->values[rank], row->unit, value), share * 100);
        /* A tenth is full colour: devices that are fine differ by a few percent. */
        cell(x, y, width, ROW - 2, better ? "s0" : "s1", fabs(share) / 0.1, tip, svg);
        if (width > 40)
            cm_svg_textf(svg, x + width / 2, y + 15, "t-mid t-small", "%+.1f %%", share * 100);
    }
}

static enum cm_status draw_ranks(const struct cm_side *side, const struct heat *heat,
                                 struct cm_chart_sink *sink)
{
    struct cm_str svg = CM_STR_INIT;
    char title[CM_SVG_CUT_MAX + 60], label[CM_SVG_CUT_MAX];
    double width = cell_width(heat->ranks);
    cm_svg_cut(side->label, 60, label);
    snprintf(title, sizeof title, "Each rank against the median of all, %s", label);
    cm_svg_begin(&svg, LEFT + width * (double)heat->ranks + 20,
                 TOP + ROW * (double)heat->count + 10, title,
                 "a row per figure, a column per rank, in percent of the row's median");
    for (size_t rank = 0; rank<heat->ranks; rank += width> 10 ? 1 : 16)
        cm_svg_textf(&svg, LEFT + width * ((double)rank + 0.5), TOP - 8, "t-mid t-dim t-small",
                     "%zu", rank);
    for (size_t i = 0; i < heat->count; i++)
        draw_row(&heat->rows[i], TOP + ROW * (double)i, width, &svg);
    cm_svg_end(&svg);
    return cm_chart_give(sink, "ranks", label, title,
                         "Orange: worse than the median of the ranks; blue: better. Full colour at "
                         "10 %.",
                         CM_OK, &svg);
}

enum cm_status cm_chart_ranks(const struct cm_book *book, struct cm_chart_sink *sink)
{
    enum cm_status status = CM_OK;
    struct heat heat = {.rows = cm_alloc(ROWS_MAX, sizeof *heat.rows)};
    if (heat.rows == NULL)
        return CM_NO_MEMORY;
    for (size_t side = 0; side < book->count && status == CM_OK; side++) {
        size_t index;
        const json_t *item;
        heat.count = heat.ranks = 0;
        json_array_foreach(json_object_get(cm_side_last(&book->sides[side]), "cases"), index, item)
        {
            if (status == CM_OK)
                status = add_rows(item, &heat);
        }
        if (status == CM_OK && heat.count > 0)
            status = draw_ranks(&book->sides[side], &heat, sink);
        if (status == CM_OK)
            status = cm_chart_many_ranks(&book->sides[side], sink);
    }
    cm_free(heat.rows);
    return status;
}

/* "bandwidth.0-1": from and to. */
static bool pair_of(const char *name, size_t *base, unsigned *from, unsigned *to)
{
    const char *dot = strchr(name, '.');
    int used = 0;
    if (dot == NULL || dot[1] < '0' || dot[1] > '9' ||
        sscanf(dot + 1, "%5u-%5u%n", from, to, &used) != 2 || dot[1 + used] != '\0')
        return false;
    *base = (size_t)(dot - name);
    return *from < RANKS_MAX && *to < RANKS_MAX;
}

struct pairs {
    char base[64], unit[24];
    bool lower;
    unsigned size;
    double least, most, values[RANKS_MAX][RANKS_MAX];
};

static void read_pairs(const json_t *metrics, const char *base, size_t length, struct pairs *pairs)
{
    const char *name;
    json_t *metric;
    memset(pairs, 0, sizeof *pairs);
    pairs->least = INFINITY;
    pairs->most = -INFINITY;
    for (size_t i = 0; i < (size_t)RANKS_MAX * RANKS_MAX; i++)
        pairs->values[i / RANKS_MAX][i % RANKS_MAX] = NAN;
    snprintf(pairs->base, sizeof pairs->base, "%.*s", (int)(length < 60 ? length : 60), base);
    json_object_foreach((json_t *)metrics, name, metric)
    {
        unsigned from, to, larger;
        size_t own;
        double value = cm_get_number(metric, "value");
        if (!pair_of(name, &own, &from, &to) || own != length || strncmp(name, base, length) != 0 ||
            !isfinite(value))
            continue;
        pairs->values[from][to] = value;
        larger = from > to ? from : to;
        pairs->size = larger + 1 > pairs->size ? larger + 1 : pairs->size;
        pairs->least = fmin(pairs->least, value);
        pairs->most = fmax(pairs->most, value);
        pairs->lower = strcmp(cm_get_text(metric, "better"), "lower") == 0;
        snprintf(pairs->unit, sizeof pairs->unit, "%s", cm_get_text(metric, "unit"));
    }
}

static void draw_cells(const struct pairs *pairs, double width, double left, struct cm_str *svg)
{
    char tip[160], value[CM_UNITS_TEXT_MAX];
    double height = width > 40 ? ROW : width;
    for (unsigned from = 0; from < pairs->size; from++) {
        double y = TOP + height * from;
        if (width > 10 || from % 16 == 0)
            cm_svg_textf(svg, left - 6, y + height * 0.7, "t-end t-dim t-small", "%u", from);
        for (unsigned to = 0; to < pairs->size; to++) {
            double own = pairs->values[from][to], range = pairs->most - pairs->least;
            if (!isfinite(own))
                continue;
            double share = range > 0 ? (own - pairs->least) / range : 1;
            cm_format_value(own, pairs->unit, value);
            snprintf(tip, sizeof tip, "%s from %u to %u: %s", pairs->base, from, to, value);
            double x = left + width * to;
            cell(x, y, width, height, "s0", 0.08 + 0.92 * (pairs->lower ? 1 - share : share), tip,
                 svg);
            if (width > 40)
                cm_svg_text(svg, x + width / 2, y + 15, "t-mid t-small", value);
        }
    }
}

static enum cm_status draw_pairs(const char *case_name, const struct pairs *pairs,
                                 struct cm_chart_sink *sink)
{
    struct cm_str svg = CM_STR_INIT;
    char title[CM_SVG_CUT_MAX + 120], name[CM_SVG_CUT_MAX], id[CM_SVG_CUT_MAX + 80], text[160],
        low[CM_UNITS_TEXT_MAX], high[CM_UNITS_TEXT_MAX];
    double width = pairs->size <= 16 ? 66 : cell_width(pairs->size), left = 60;
    double height = width > 40 ? ROW : width;
    cm_svg_cut(case_name, 60, name);
    snprintf(title, sizeof title, "%s: %s from the rank of a row to that of a column", name,
             pairs->base);
    snprintf(text, sizeof text, "least %s, most %s",
             cm_format_value(pairs->least, pairs->unit, low),
             cm_format_value(pairs->most, pairs->unit, high));
    cm_svg_begin(&svg, fmax(left + width * pairs->size + 20, 300), TOP + height * pairs->size + 16,
                 title, text);
    cm_svg_text(&svg, left, 14, "t-dim", "to rank");
    for (unsigned to = 0; to<pairs->size; to += width> 10 ? 1 : 16)
        cm_svg_textf(&svg, left + width * (to + 0.5), TOP - 8, "t-mid t-dim t-small", "%u", to);
    draw_cells(pairs, width, left, &svg);
    cm_svg_end(&svg);
    snprintf(id, sizeof id, "%s %.60s", name, pairs->base);
    char note[260];
    snprintf(note, sizeof note, "%s; the fuller, the better.", text);
    return cm_chart_give(sink, "pairs", id, title, note, CM_OK, &svg);
}

static enum cm_status case_pairs(const json_t *item, struct pairs *pairs,
                                 struct cm_chart_sink *sink)
{
    enum cm_status status = CM_OK;
    const char *name;
    json_t *metric;
    const json_t *metrics = json_object_get(item, "metrics");
    char last[64] = "";
    json_object_foreach((json_t *)metrics, name, metric)
    {
        size_t length;
        unsigned from, to;
        if (!pair_of(name, &length, &from, &to) || length >= sizeof last || status != CM_OK ||
            (strncmp(last, name, length) == 0 && last[length] == '\0'))
            continue;
        snprintf(last, sizeof last, "%.*s", (int)length, name);
        read_pairs(metrics, name, length, pairs);
        if (pairs->size >= 2 && strcmp(pairs->unit, "1") != 0) /* no list of flags */
            status = draw_pairs(cm_get_text(item, "name"), pairs, sink);
    }
    return status;
}

enum cm_status cm_chart_pairs(const struct cm_book *book, struct cm_chart_sink *sink)
{
    enum cm_status status = CM_OK;
    struct pairs *pairs = cm_alloc(1, sizeof *pairs);
    if (pairs == NULL)
        return CM_NO_MEMORY;
    for (size_t side = 0; side < book->count; side++) {
        size_t index;
        const json_t *item;
        json_array_foreach(json_object_get(cm_side_last(&book->sides[side]), "cases"), index, item)
        {
            if (status == CM_OK)
                status = case_pairs(item, pairs, sink);
        }
    }
    cm_free(pairs);
    return status;
}
