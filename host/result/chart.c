/* The kinds of charts, and what they share. */
#include "host/result/chart.h"

#include <string.h>

const struct cm_chart_kind cm_chart_kinds[] = {
    {"machine", "The machine", cm_chart_machine},
    {"forest", "Comparison", cm_chart_forest},
    {"sweep", "Against size", cm_chart_sweep},
    {"ranks", "Device by device", cm_chart_ranks},
    {"pairs", "Between pairs of ranks", cm_chart_pairs},
    {"steps", "Where a training step's time goes", cm_chart_steps},
    {"strip", "Runs", cm_chart_strip},
    {"history", "History", cm_chart_history},
    {"telemetry", "Clocks, power and temperature over time", cm_chart_telemetry},
    {NULL, NULL, NULL},
};

enum cm_status cm_chart_give(struct cm_chart_sink *sink, const char *kind, const char *name,
                             const char *title, const char *note, enum cm_status status,
                             struct cm_str *svg)
{
    struct cm_chart chart = {kind, name, title, note, svg};
    if (status == CM_OK)
        status = cm_str_status(svg);
    if (status == CM_OK)
        status = sink->take(sink->impl, &chart);
    if (status == CM_OK)
        sink->taken++;
    cm_str_release(svg);
    return status;
}

void cm_chart_legend(const struct cm_book *book, double x, double y, struct cm_str *svg)
{
    char text[CM_SVG_CUT_MAX];
    for (size_t i = 0; i < book->count && i < CM_SVG_SERIES; i++) {
        const char *slash = strrchr(book->sides[i].label, '/');
        const char *label = slash != NULL && slash[1] != '\0' ? slash + 1 : book->sides[i].label;
        cm_svg_mark(svg, x, y - 4, (unsigned)i, false, NULL);
        cm_svg_text(svg, x + 9, y, "t-dim", cm_svg_cut(label, 24, text));
        x += 200;
    }
}
