/* The table of subcommands. */
#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "host/cli/cli.h"

const struct cm_command cm_commands[] = {
    {"run", "measure a suite on every rank and write a result file", cm_cmd_run},
    {"report", "one HTML page about results, or a chart", cm_cmd_report},
    {"history", "figures over time, and where they changed", cm_cmd_history},
    {"export", "results in the formats of other tools", cm_cmd_export},
    {"import", "results of nccl-tests and nvbandwidth as results", cm_cmd_import},
    {"topo", "map this machine, or a recorded one", cm_cmd_topo},
    {"compare", "hold machines or revisions against each other", cm_cmd_compare},
    {"gate", "say by the exit code whether new results got worse", cm_cmd_gate},
    {"project", "predict what clusters that are not here train, draw and cost", cm_cmd_project},
    {"list", "workloads, devices, suites and models", cm_cmd_list},
    {"help", "how to use a command, or what a workload's options are", cm_cmd_help},
    {"rank", NULL, cm_rank_main},
    {"carry-start", NULL, cm_carry_start_main},
    {NULL, NULL, NULL},
};

enum cm_status cm_unknown_command(const char *word)
{
    const char *names[32] = {NULL};
    size_t count = 0;
    for (const struct cm_command *row = cm_commands; row->name != NULL && count < 31; row++) {
        if (row->summary != NULL)
            names[count++] = row->name;
    }
    const char *nearest = cm_cli_nearest(names, word);
    if (nearest != NULL)
        return cm_error(CM_USAGE, "unknown command '%.60s'; did you mean %s?", word, nearest);
    return cm_error(CM_USAGE, "unknown command '%.60s'; 'clustermark --help' lists them", word);
}
