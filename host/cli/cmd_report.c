/* clustermark report: one HTML page about results, or a single chart. */
#include <stddef.h>

#include "clustermark/error.h"
#include "clustermark/publish.h"
#include "host/cli/args.h"
#include "host/cli/cli.h"

struct report_args {
    const char *output, *svg;
    double margin;
};

#define AT(field) .offset = offsetof(struct report_args, field)

static const struct cm_arg report_table[] = {
    {.kind = CM_ARG_WORD,
     .letter = 'o',
     .value = "FILE",
     .option = {.name = "output", AT(output), .help = "the page, report.html without it"}},
    {.kind = CM_ARG_WORD,
     .value = "CHART",
     .option = {.name = "svg", AT(svg), .help = "one chart as SVG instead of the page"}},
    {.kind = CM_ARG_VALUE,
     .value = "SHARE",
     .option = {.name = "margin",
                .type = CM_OPTION_REAL,
                AT(margin),
                .min = 1e-6,
                .max = 1,
                .help = "differences up to it count as none; 2% without it"}},
    {.option = {.name = NULL}},
};

static const struct cm_arg_spec report_spec = {
    .command = "report",
    .operands = "FILE...",
    .summary = "Writes one self-contained HTML page about results; it needs no network. Each FILE "
               "is a\nresult, or a folder of repeated runs; the first is what the others are held "
               "against.",
    .details =
        "CHART is one of machine, forest, sweep, ranks, pairs, steps, strip, history,\n"
        "telemetry; sweep:NAME is the first whose name contains NAME. - as output is stdout.",
    .table = report_table,
    .max_operands = 100,
};

static enum cm_status report(const void *fields, const struct cm_words *files)
{
    const struct report_args *args = fields;
    struct cm_str out = CM_STR_INIT;
    enum cm_status status;
    if (files->count == 0)
        return cm_error(CM_USAGE, "report: no result given; usage: clustermark report FILE...");
    if (args->svg != NULL)
        status = cm_page_chart(files->items, files->count, args->margin, args->svg, &out);
    else
        status = cm_page_write(files->items, files->count, args->margin, &out);
    const char *path = args->output != NULL ? args->output
                       : args->svg != NULL  ? "-"
                                            : "report.html";
    if (status == CM_OK)
        status = cm_cli_output(path, &out);
    cm_str_release(&out);
    return status;
}

int cm_cmd_report(int argc, char **argv)
{
    struct report_args args = {.margin = CM_MARGIN_DEFAULT};
    return cm_cli_command(&report_spec, argc, argv, &args, report);
}
