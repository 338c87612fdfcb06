/* clustermark history: series over time and where they changed. */
#include <stddef.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/publish.h"
#include "host/cli/args.h"
#include "host/cli/cli.h"

struct history_args {
    const char *output, *cases, *metrics;
    double margin;
    bool json, csv;
    int color;
};

#define AT(field) .offset = offsetof(struct history_args, field)

static const struct cm_arg history_table[] = {
    {.kind = CM_ARG_WORD,
     .value = "PATTERN",
     .option = {.name = "case", AT(cases), .help = "only cases whose name matches"}},
    {.kind = CM_ARG_WORD,
     .value = "PATTERN",
     .option = {.name = "metric",
                AT(metrics),
                .help = "these figures instead of each case's first"}},
    {.kind = CM_ARG_VALUE,
     .value = "SHARE",
     .option = {.name = "margin",
                .type = CM_OPTION_REAL,
                AT(margin),
                .min = 1e-6,
                .max = 1,
                .help = "changes up to it count as none; 2% without it"}},
    {.kind = CM_ARG_FLAG, .option = {.name = "json", AT(json), .help = "as JSON"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "csv", AT(csv), .help = "a line per result, a column per series"}},
    {.kind = CM_ARG_WORD,
     .letter = 'o',
     .value = "FILE",
     .option = {.name = "output", AT(output), .help = "write there instead of stdout"}},
    CM_COLOR_ARG(AT(color)),
    {.option = {.name = NULL}},
};

static const struct cm_arg_spec history_spec = {
    .command = "history",
    .operands = "FOLDER|FILE...",
    .summary = "Shows figures over time: a folder of results, or files; .jsonl has a result per "
               "line.\nSeries are cut where the machine changed.",
    .details = "A change is told when p of a t-test is at most 0.001 and it is above the margin.",
    .table = history_table,
    .max_operands = 10000,
};

static enum cm_status show(const struct history_args *args, const json_t *history,
                           struct cm_str *out)
{
    struct cm_report_style style =
        cm_cli_style(args->output == NULL ? args->color : CM_COLOR_NEVER);
    return args->csv    ? cm_history_csv(history, out)
           : args->json ? cm_cli_add_document(history, out)
                        : cm_history_text(history, &style, out);
}

static enum cm_status run_history(const void *fields, const struct cm_words *files)
{
    const struct history_args *args = fields;
    struct cm_history_options options = {
        .case_pattern = args->cases, .metric_pattern = args->metrics, .margin = args->margin};
    struct cm_str out = CM_STR_INIT;
    json_t *history = NULL;
    if (files->count == 0)
        return cm_error(CM_USAGE, "history: no folder given; usage: clustermark history FOLDER");
    if (args->json && args->csv)
        return cm_error(CM_USAGE, "history: --json and --csv; choose one");
    enum cm_status status = cm_history_load(files->items, files->count, &options, &history);
    if (status == CM_OK)
        status = show(args, history, &out);
    if (status == CM_OK)
        status = cm_cli_output(args->output, &out);
    cm_str_release(&out);
    json_decref(history);
    return status;
}

int cm_cmd_history(int argc, char **argv)
{
    struct history_args args = {.margin = CM_MARGIN_DEFAULT};
    return cm_cli_command(&history_spec, argc, argv, &args, run_history);
}
