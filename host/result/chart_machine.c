/* The machine as its result describes it. */
#include <stdio.h>
#include <string.h>

#include "clustermark/topology.h"
#include "host/result/chart.h"
#include "host/result/record.h"

static enum cm_status draw(const struct cm_side *side, struct cm_chart_sink *sink)
{
    struct cm_topology topology;
    struct cm_str svg = CM_STR_INIT;
    char label[CM_SVG_CUT_MAX], title[CM_SVG_CUT_MAX + 40];
    enum cm_status status =
        cm_topology_from_json(json_object_get(cm_side_last(side), "machine"), &topology);
    if (status == CM_UNSUPPORTED) /* the tables tell what there is */
        return CM_OK;
    if (status != CM_OK)
        return status;
    status = cm_topology_svg(&topology, &svg);
    cm_topology_release(&topology);
    cm_svg_cut(side->label, 60, label);
    snprintf(title, sizeof title, "The machine of %s", label);
    return cm_chart_give(sink, "machine", label, title, "", status, &svg);
}

/* Each machine once, however many sides ran on it. */
enum cm_status cm_chart_machine(const struct cm_book *book, struct cm_chart_sink *sink)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < book->count && status == CM_OK; i++) {
        const json_t *machine = json_object_get(cm_side_last(&book->sides[i]), "machine");
        bool drawn = false;
        for (size_t k = 0; k < i; k++)
            drawn = drawn ||
                    json_equal(machine, json_object_get(cm_side_last(&book->sides[k]), "machine"));
        if (!drawn)
            status = draw(&book->sides[i], sink);
    }
    return status;
}
