/* clustermark export, clustermark import: the formats of other tools. */
#include <stddef.h>
#include <stdio.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/publish.h"
#include "host/cli/args.h"
#include "host/cli/cli.h"

struct export_args {
    const char *output;
    int format;
};

static const struct cm_arg export_table[] = {
    {.kind = CM_ARG_VALUE,
     .letter = 'f',
     .value = "FORMAT",
     .option = {.name = "format",
                .type = CM_OPTION_CHOICE,
                .offset = offsetof(struct export_args, format),
                .choices = cm_export_names,
                .help = "see below"}},
    {.kind = CM_ARG_WORD,
     .letter = 'o',
     .value = "FILE",
     .option = {.name = "output",
                .offset = offsetof(struct export_args, output),
                .help = "replace FILE as a whole; stdout without it"}},
    {.option = {.name = NULL}},
};

static const struct cm_arg_spec export_spec = {
    .command = "export",
    .operands = "--format FORMAT FILE...",
    .summary = "Writes results in a format of other tools; all FILEs are runs of one machine.",
    .details = "junit             JUnit XML: GitLab, Jenkins\n"
               "markdown          a GitHub step summary, below its limit of 1 MiB\n"
               "annotations       workflow commands of GitHub, at most 10 of a kind\n"
               "bmf               Bencher Metric Format, with intervals\n"
               "go                Go's benchmark text with units: benchstat\n"
               "google-benchmark  Google Benchmark's JSON\n"
               "openmetrics       for node_exporter's textfile collector (name it *.prom)\n"
               "csv               a line per result",
    .table = export_table,
    .max_operands = 10000,
};

static enum cm_status run_export(const void *fields, const struct cm_words *files)
{
    const struct export_args *args = fields;
    struct cm_str out = CM_STR_INIT;
    if (files->count == 0 || args->format < 0)
        return cm_error(CM_USAGE, "export: give a format and a result: clustermark export --format "
                                  "junit FILE");
    enum cm_status status =
        cm_export(cm_export_names[args->format], files->items, files->count, &out);
    if (status == CM_OK)
        status = cm_cli_output(args->output, &out);
    cm_str_release(&out);
    return status;
}

int cm_cmd_export(int argc, char **argv)
{
    struct export_args args = {.format = -1};
    return cm_cli_command(&export_spec, argc, argv, &args, run_export);
}

struct import_args {
    const char *output, *like;
};

static const struct cm_arg import_table[] = {
    {.kind = CM_ARG_WORD,
     .value = "RESULT",
     .option = {.name = "like",
                .offset = offsetof(struct import_args, like),
                .help = "name cases as RESULT does those that measure the same"}},
    {.kind = CM_ARG_WORD,
     .letter = 'o',
     .value = "FILE",
     .option = {.name = "output",
                .offset = offsetof(struct import_args, output),
                .help = "the result file; stdout without it"}},
    {.option = {.name = NULL}},
};

static const struct cm_arg_spec import_spec = {
    .command = "import",
    .operands = "FILE",
    .summary = "Makes a result of the JSON of nccl-tests (-J FILE, version 3) or nvbandwidth (-j).",
    .details = "Of nccl-tests' environment only the variables are taken that 'run' records too.",
    .table = import_table,
    .max_operands = 1,
};

static enum cm_status run_import(const void *fields, const struct cm_words *files)
{
    const struct import_args *args = fields;
    struct cm_str out = CM_STR_INIT;
    json_t *like = NULL, *result = NULL;
    enum cm_status status = CM_OK;
    if (files->count == 0)
        return cm_error(CM_USAGE, "import: no file given; usage: clustermark import FILE");
    if (args->like != NULL)
        status = cm_result_load(args->like, &like);
    if (status == CM_OK)
        status = cm_import(files->items[0], like, &result);
    if (status == CM_OK)
        status = cm_cli_add_document(result, &out);
    if (status == CM_OK)
        status = cm_cli_output(args->output, &out);
    cm_str_release(&out);
    json_decref(like);
    json_decref(result);
    return status;
}

int cm_cmd_import(int argc, char **argv)
{
    struct import_args args = {.output = NULL};
    return cm_cli_command(&import_spec, argc, argv, &args, run_import);
}
