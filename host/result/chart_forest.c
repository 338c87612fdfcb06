/* The comparison as a forest plot: each case's change with its interval, and the margin. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/memory.h"
#include "host/result/chart.h"

#define ROWS_MAX 60
#define ROW      20.0
#define LEFT     330.0
#define RIGHT    760.0
#define WIDTH    940.0
#define TOP      34.0

static const char *const classes[] = {"v-good", "v-bad", "v-same", "v-doubt"};

static void cover(const struct cm_change *changes, size_t count, double margin,
                  struct cm_scale *scale)
{
    cm_scale_cover(scale, -2 * margin * 100);
    cm_scale_cover(scale, 2 * margin * 100);
    for (size_t i = 0; i < count; i++) {
        cm_scale_cover(scale, changes[i].estimate * 100);
        cm_scale_cover(scale, fmin(changes[i].low, 4 * fabs(changes[i].estimate) + 0.5) * 100);
        cm_scale_cover(scale, fmin(changes[i].high, 4 * fabs(changes[i].estimate) + 0.5) * 100);
    }
    cm_scale_round(scale);
}

static void change_text(const struct cm_change *change, char *text, size_t size)
{
    if (isfinite(change->low))
        snprintf(text, size, "%+.1f %% (%+.1f to %+.1f)", change->estimate * 100, change->low * 100,
                 change->high * 100);
    else
        snprintf(text, size, "%+.1f %%, no interval", change->estimate * 100);
}

static void row(const struct cm_change *change, const struct cm_scale *scale, double y,
                struct cm_str *svg)
{
    char name[CM_SVG_CUT_MAX], figures[96], tip[CM_SVG_CUT_MAX + 200];
    change_text(change, figures, sizeof figures);
    cm_svg_cut(change->name, 42, name);
    snprintf(tip, sizeof tip, "%s %.60s: %s, %s", name, change->metric, figures,
             cm_change_words[change->verdict]);
    cm_svg_text(svg, LEFT - 8, y + 4, "t-end", name);
    const char *class = classes[change->verdict];
    if (isfinite(change->low)) {
        double low = fmax(cm_scale_at(scale, change->low * 100), LEFT);
        double high = fmin(cm_scale_at(scale, change->high * 100), RIGHT);
        char line[32];
        snprintf(line, sizeof line, "line %s", class);
        cm_svg_line(svg, low, y, high, y, line);
        cm_svg_line(svg, low, y - 4, low, y + 4, line);
        cm_svg_line(svg, high, y - 4, high, y + 4, line);
    }
    char mark[32];
    snprintf(mark, sizeof mark, "%s%s", class, isfinite(change->low) ? "" : " hollow");
    cm_svg_rect(svg, cm_scale_at(scale, change->estimate * 100) - 4, y - 4, 8, 8, mark, tip);
    cm_svg_text(svg, RIGHT + 10, y + 4, "t-small", figures);
}

static enum cm_status draw(const struct cm_book *book, const struct cm_change *changes,
                           size_t count, struct cm_chart_sink *sink)
{
    struct cm_str svg = CM_STR_INIT;
    struct cm_scale scale = {.low = 1, .high = 0, .from = LEFT, .to = RIGHT};
    size_t shown = count < ROWS_MAX ? count : ROWS_MAX, counts[4] = {0};
    for (size_t i = 0; i < count; i++)
        counts[changes[i].verdict]++;
    cover(changes, shown, book->margin, &scale);
    double bottom = TOP + ROW * (double)shown + 6;
    char text[240], note[600], first[CM_SVG_CUT_MAX], second[CM_SVG_CUT_MAX];
    snprintf(text, sizeof text, "%zu better, %zu worse, %zu the same, %zu cannot be told",
             counts[CM_CHANGE_BETTER], counts[CM_CHANGE_WORSE], counts[CM_CHANGE_SAME],
             counts[CM_CHANGE_UNKNOWN]);
    cm_svg_begin(&svg, WIDTH, bottom + 40, "Change of each case", text);
    double left = cm_scale_at(&scale, -book->margin * 100);
    double right = cm_scale_at(&scale, book->margin * 100);
    cm_svg_rect(&svg, left, TOP - 10, right - left, bottom - TOP + 10, "c-margin", "the margin");
    cm_svg_axis_x(&svg, &scale, TOP - 10, bottom, "%", "better to the right");
    cm_svg_line(&svg, cm_scale_at(&scale, 0), TOP - 10, cm_scale_at(&scale, 0), bottom, "c-axis");
    cm_svg_textf(&svg, LEFT, 16, "t-dim", "%s against %s",
                 cm_svg_cut(book->sides[changes[0].side].label, 50, second),
                 cm_svg_cut(book->sides[0].label, 50, first));
    for (size_t i = 0; i < shown; i++)
        row(&changes[i], &scale, TOP + ROW * ((double)i + 0.5), &svg);
    cm_svg_end(&svg);
    snprintf(
        note, sizeof note,
        "%s. Shift of the runs' logarithms (Hodges-Lehmann) with its exact 95 %% interval; the "
        "band is the margin of ±%.3g %%. A hollow mark has no interval: too few runs.%s",
        text, book->margin * 100, count > shown ? " The 60 that matter most." : "");
    snprintf(first, sizeof first, "side %zu", changes[0].side + 1);
    return cm_chart_give(sink, "forest", first, "Change of each case", note, CM_OK, &svg);
}

enum cm_status cm_chart_forest(const struct cm_book *book, struct cm_chart_sink *sink)
{
    struct cm_change *changes = NULL;
    size_t count = 0;
    enum cm_status status = cm_changes(book, &changes, &count);
    for (size_t side = 1; side < book->count && status == CM_OK; side++) {
        struct cm_change *own = cm_alloc(count, sizeof *own);
        size_t found = 0;
        if (own == NULL)
            status = CM_NO_MEMORY;
        for (size_t i = 0; i < count && status == CM_OK; i++) {
            if (changes[i].side == side)
                own[found++] = changes[i];
        }
        if (status == CM_OK && found > 0)
            status = draw(book, own, found, sink);
        cm_free(own);
    }
    cm_free(changes);
    return status;
}
