/* Where a training step's time goes: its phases and its classes of operations, stacked. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/units.h"
#include "host/result/chart.h"
#include "host/result/report.h"

#define WIDTH     860.0
#define LEFT      150.0
#define RIGHT     780.0
#define TOP       30.0
#define BAR       26.0
#define PARTS_MAX 24

/* Figures that make up a whole, by the name before the dot. */
static const struct group {
    const char *base, *title;
} groups[] = {
    {"phase_time", "phases"},
    {"op_time", "operations"},
    {"comm_time", "communication"},
    {"exposed_comm_time", "waiting for it"},
};
#define GROUPS (sizeof groups / sizeof groups[0])

struct part {
    const char *label; /* borrowed */
    double value;
};

static size_t read_parts(const json_t *item, const char *base, struct part *parts, double *sum)
{
    const char *name;
    json_t *metric;
    size_t length = strlen(base), count = 0;
    *sum = 0;
    json_object_foreach(json_object_get(item, "metrics"), name, metric)
    {
        double value = cm_get_number(metric, "value");
        if (strncmp(name, base, length) != 0 || name[length] != '.' || !(value > 0) ||
            !isfinite(value) || strcmp(name + length, ".waits") == 0 || count == PARTS_MAX)
            continue;
        parts[count++] = (struct part){name + length + 1, value};
        *sum += value;
    }
    return count;
}

static void draw_bar(const struct part *parts, size_t count, const struct cm_scale *scale, double y,
                     struct cm_str *svg)
{
    double at = 0;
    for (size_t i = 0; i < count; i++) {
        char class[16], tip[CM_SVG_CUT_MAX + 80], label[CM_SVG_CUT_MAX], value[CM_UNITS_TEXT_MAX];
        double left = cm_scale_at(scale, at);
        at += parts[i].value;
        double right = cm_scale_at(scale, at);
        snprintf(class, sizeof class, "s%zu c-cell", i % CM_SVG_SERIES);
        cm_svg_cut(parts[i].label, 40, label);
        snprintf(tip, sizeof tip, "%s: %s", label, cm_format_value(parts[i].value, "s", value));
        cm_str_add(svg, "<g fill-opacity=\"0.55\">");
        cm_svg_rect(svg, left, y, right - left, BAR - 6, class, tip);
        cm_str_add(svg, "</g>");
        if (right - left > 7.2 * (double)strlen(parts[i].label) + 8)
            cm_svg_text(svg, (left + right) / 2, y + 14, "t-mid", label);
    }
}

static enum cm_status draw(const json_t *item, double longest, size_t bars,
                           struct cm_chart_sink *sink)
{
    struct cm_str svg = CM_STR_INIT;
    struct part parts[PARTS_MAX];
    struct cm_scale scale = {0, longest, LEFT, RIGHT, false};
    char name[CM_SVG_CUT_MAX], title[CM_SVG_CUT_MAX + 60], value[CM_UNITS_TEXT_MAX];
    double y = TOP, sum, bottom = TOP + BAR * (double)bars;
    double step =
        cm_get_number(json_object_get(json_object_get(item, "metrics"), "step_time"), "value");
    cm_svg_cut(cm_get_text(item, "name"), 60, name);
    snprintf(title, sizeof title, "%s: where a step's time goes", name);
    cm_svg_begin(&svg, WIDTH, bottom + 44, title, "bars of phases and of kinds of operations");
    cm_svg_axis_x(&svg, &scale, TOP - 6, bottom, "s", "time of one step");
    for (size_t i = 0; i < GROUPS; i++) {
        size_t count = read_parts(item, groups[i].base, parts, &sum);
        if (count == 0)
            continue;
        cm_svg_text(&svg, LEFT - 8, y + 14, "t-end", groups[i].title);
        draw_bar(parts, count, &scale, y, &svg);
        y += BAR;
    }
    if (isfinite(step) && step > 0) {
        double x = cm_scale_at(&scale, step);
        cm_svg_line(&svg, x, TOP - 6, x, bottom, "c-axis c-dash");
        cm_svg_textf(&svg, x, TOP - 12, "t-mid t-dim", "step %s",
                     cm_format_value(step, "s", value));
    }
    cm_svg_end(&svg);
    return cm_chart_give(sink, "steps", name, title,
                         "Of the ranks' profiled steps. Operations that run side by side add up to "
                         "more than the step.",
                         CM_OK, &svg);
}

static enum cm_status draw_case(const json_t *item, struct cm_chart_sink *sink)
{
    struct part parts[PARTS_MAX];
    double sum,
        longest =
            cm_get_number(json_object_get(json_object_get(item, "metrics"), "step_time"), "value");
    size_t bars = 0;
    longest = isfinite(longest) && longest > 0 ? longest : 0;
    for (size_t i = 0; i < GROUPS; i++) {
        bars += read_parts(item, groups[i].base, parts, &sum) > 0;
        longest = fmax(longest, sum);
    }
    return bars > 0 && longest > 0 && longest < 1e12 ? draw(item, longest, bars, sink) : CM_OK;
}

enum cm_status cm_chart_steps(const struct cm_book *book, struct cm_chart_sink *sink)
{
    enum cm_status status = CM_OK;
    for (size_t side = 0; side < book->count; side++) {
        size_t index;
        const json_t *item;
        json_array_foreach(json_object_get(cm_side_last(&book->sides[side]), "cases"), index, item)
        {
            if (status == CM_OK && strcmp(cm_get_text(item, "workload"), "trainstep") == 0)
                status = draw_case(item, sink);
        }
    }
    return status;
}
