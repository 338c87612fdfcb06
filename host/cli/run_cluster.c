/* What `run` tells of the nodes before it measures. */
#include "host/cli/run_cluster.h"

#include <stdio.h>
#include <string.h>

#include "clustermark/memory.h"

/* "8b: tensor groups of 8 within a node; ...", a line for each training step; one alone for cases
 * that follow each other and are spread alike. */
static enum cm_status write_placement(const struct cm_cluster_map *cluster,
                                      const struct cm_plan *plan,
                                      const struct cm_device_ops *device, struct cm_str *out)
{
    struct cm_str line = CM_STR_INIT, last = CM_STR_INIT;
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < plan->count && status == CM_OK; i++) {
        const struct cm_case *item = &plan->cases[i];
        if (item->workload->spread == NULL || cluster->node_of == NULL)
            continue;
        cm_str_reset(&line);
        status = item->workload->spread(item->params, device->is_host, cluster->ranks,
                                        cluster->node_of, &line);
        if (line.length == 0 || strcmp(cm_str_text(&last), cm_str_text(&line)) == 0)
            continue;
        cm_str_addf(out, "%s: %s\n", item->name, cm_str_text(&line));
        cm_str_reset(&last);
        cm_str_add(&last, cm_str_text(&line));
    }
    cm_str_release(&line);
    cm_str_release(&last);
    return status;
}

/* The lines after the first are indented by `indent`. */
static void print(const char *text, unsigned indent)
{
    for (unsigned number = 0; *text != '\0'; number++) {
        size_t length = strcspn(text, "\n");
        fprintf(stderr, "%*s%.*s\n", number > 0 ? (int)indent : 0, "", (int)length, text);
        text += length + (text[length] == '\n');
    }
}

enum cm_status cm_cli_cluster(const struct cm_cluster_map *cluster, const struct cm_plan *plan,
                              const struct cm_device_ops *device, bool quiet,
                              struct cm_result *result)
{
    struct cm_str text = CM_STR_INIT, placement = CM_STR_INIT;
    cm_cluster_text(cluster, true, &text);
    enum cm_status status = write_placement(cluster, plan, device, &placement);
    cm_str_add(&text, cm_str_text(&placement));
    if (status == CM_OK)
        status = cm_str_status(&text);
    if (status == CM_OK && !quiet)
        print(cm_str_text(&text), 2);
    if (status == CM_OK)
        status = cm_result_cluster(result, cluster, cm_str_text(&placement));
    cm_str_release(&placement);
    cm_str_release(&text);
    return status;
}
