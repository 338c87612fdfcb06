/* clustermark topo: a map of this machine, or of a recorded one. */
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/topology.h"
#include "host/cli/args.h"
#include "host/cli/cli.h"

struct topo_args {
    const char *xml, *svg;
    bool json;
    int color;
};

static const struct cm_arg topo_table[] = {
    {.kind = CM_ARG_WORD,
     .value = "FILE",
     .option = {.name = "xml",
                .offset = offsetof(struct topo_args, xml),
                .help = "a recorded machine: hwloc v2 XML or NCCL topology XML"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "json",
                .offset = offsetof(struct topo_args, json),
                .help = "everything as JSON"}},
    {.kind = CM_ARG_WORD,
     .value = "FILE",
     .option = {.name = "svg",
                .offset = offsetof(struct topo_args, svg),
                .help = "draw it into FILE, - for standard output"}},
    {.kind = CM_ARG_VALUE,
     .value = "WHEN",
     .option = {.name = "color",
                .type = CM_OPTION_CHOICE,
                .offset = offsetof(struct topo_args, color),
                .fallback = "auto",
                .choices = cm_color_names,
                .help = "colours: auto, always or never"}},
    {.option = {.name = NULL}},
};

static const struct cm_arg_spec topo_spec = {
    .command = "topo",
    .operands = "",
    .summary = "Map packages, NUMA nodes, GPUs, NICs and their links, and say what is odd.",
    .details = "Paths are in NCCL's words: NVn (n NVLinks), PIX (one PCIe switch), PXB (several),\n"
               "PHB (host bridge), NODE (one NUMA node), SYS (between NUMA nodes).",
    .table = topo_table,
    .max_operands = 0,
};

static enum cm_status write_json(const struct cm_topology *topology)
{
    json_t *value = NULL;
    enum cm_status status = cm_topology_json(topology, &value);
    if (status == CM_OK)
        status = cm_cli_write_document(value);
    json_decref(value);
    return status;
}

static enum cm_status write_svg(const struct cm_topology *topology, const char *path)
{
    struct cm_str out = CM_STR_INIT;
    enum cm_status status = cm_topology_svg(topology, &out);
    if (status == CM_OK)
        status = cm_cli_output(path, &out);
    cm_str_release(&out);
    return status;
}

static enum cm_status write_map(const struct cm_topology *topology, int color)
{
    struct cm_str out = CM_STR_INIT;
    enum cm_status status = cm_topology_text(topology, cm_cli_color(color, stdout), &out);
    if (status == CM_OK)
        status = cm_cli_write_str(&out);
    cm_str_release(&out);
    return status;
}

/* With --svg FILE the map still goes to stdout; with --svg - there is only the drawing. */
static enum cm_status show(const struct cm_topology *topology, const struct topo_args *args)
{
    bool drawn = args->svg != NULL && strcmp(args->svg, "-") == 0;
    enum cm_status status = CM_OK;
    if (args->svg != NULL)
        status = write_svg(topology, args->svg);
    if (status == CM_OK && !drawn)
        status = args->json ? write_json(topology) : write_map(topology, args->color);
    return status;
}

static enum cm_status topo(const void *fields, const struct cm_words *operands)
{
    const struct topo_args *args = fields;
    struct cm_topology topology;
    (void)operands;
    if (args->json && args->svg != NULL && strcmp(args->svg, "-") == 0)
        return cm_error(CM_USAGE, "topo: --json and --svg - both write to standard output; give "
                                  "--svg a file");
    memset(&topology, 0, sizeof topology);
    enum cm_status status =
        args->xml != NULL ? cm_topology_load(args->xml, &topology) : cm_topology_live(&topology);
    if (status != CM_OK)
        return cm_error_at(status, "topo: ");
    status = show(&topology, args);
    cm_topology_release(&topology);
    return status;
}

int cm_cmd_topo(int argc, char **argv)
{
    struct topo_args args = {.color = CM_COLOR_AUTO};
    return cm_cli_command(&topo_spec, argc, argv, &args, topo);
}
