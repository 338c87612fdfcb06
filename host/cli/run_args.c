/* The command line of `clustermark run`, as tables. */
#include "host/cli/run_args.h"

#include <stddef.h>

#include "host/cli/cli.h"

#define AT(field) .offset = offsetof(struct cm_run_args, field)

static const struct cm_arg run_table[] = {
    {.kind = CM_ARG_WORD,
     .value = "NAME",
     .option = {.name = "device",
                AT(device),
                .help = "what to measure: cuda, cpu, or sim, a virtual clock"}},
    {.kind = CM_ARG_VALUE,
     .value = "N",
     .option = {.name = "ranks",
                .type = CM_OPTION_COUNT,
                AT(ranks),
                .min = 1,
                .max = 1 << 20,
                .help = "processes; without it one per device, 2 on a CPU"}},
    {.kind = CM_ARG_VALUE,
     .value = "K",
     .option = {.name = "runs",
                .type = CM_OPTION_COUNT,
                AT(runs),
                .min = 1,
                .max = 1000,
                .help = "fresh-process runs of each case; 6 give an interval"}},
    {.kind = CM_ARG_WORD,
     .value = "CASE",
     .option = {.name = "only", AT(only), .help = "a section's name, or a pattern of case names"}},
    {.kind = CM_ARG_WORDS,
     .value = "CASE.KEY=VALUE",
     .option = {.name = "set", AT(set), .help = "change a setting; * and global as CASE"}},
    {.kind = CM_ARG_VALUE,
     .value = "TIME",
     .option = {.name = "budget",
                .type = CM_OPTION_TIME,
                AT(budget_s),
                .min = 1,
                .max = 1e9,
                .help = "be done by then: 30s, 5m, 2h"}},
    {.kind = CM_ARG_VALUE,
     .value = "TIME",
     .option = {.name = "wait",
                .type = CM_OPTION_TIME,
                AT(wait_s),
                .min = 1,
                .max = 1e6,
                .help = "how long ranks that a launcher started wait for each other; 1m"}},
    {.kind = CM_ARG_WORD,
     .letter = 'o',
     .value = "FILE",
     .option = {.name = "output", AT(output), .help = "the result file"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "json", AT(json), .help = "the result on stdout instead of the report"}},
    {.kind = CM_ARG_FLAG,
     .letter = 'q',
     .option = {.name = "quiet", AT(quiet), .help = "no progress, and of the report the verdict"}},
    CM_COLOR_ARG(AT(color)),
    {.kind = CM_ARG_FLAG,
     .option = {.name = "simulate",
                AT(simulate),
                .help =
                    "more ranks than GPUs share them: results are checked, times mean nothing"}},
    {.kind = CM_ARG_MAYBE,
     .value = "[=RANK]",
     .option = {.name = "explain",
                AT(explain),
                .help = "print what rank 0 (or RANK) of each training step does, and run nothing"}},
    {.kind = CM_ARG_WORD,
     .value = "NAME",
     .option = {.name = "machine",
                AT(machine),
                .help = "sim: whose rates, a file of configs/machines or a result (.json) of this "
                        "program; h100 without it"}},
    {.kind = CM_ARG_WORD,
     .value = "FILE",
     .option = {.name = "trace",
                AT(trace),
                .help = "sim: when what happens in the step, for chrome://tracing"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "cloud",
                AT(cloud),
                .help = "record instance type, zone, image, container, Slurm, Kubernetes"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "show-hosts", AT(show_hosts), .help = "record host names, not hashes"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "fail-on-suspects",
                AT(fail_slow),
                .help = "exit with 5 when a host, rank or link is found slow"}},
    {.option = {.name = NULL}},
};

const struct cm_arg_spec cm_run_spec = {
    .command = "run",
    .operands = "[SUITE]",
    .summary =
        "Measures a suite on every rank, reports on stdout and writes a result file. SUITE is "
        "a\nfile or the name of one of 'clustermark list suites'; \"quick\" without it.",
    .details =
        "Without -o the result is results/<UTC time>-<suite>.json; its path is the last line "
        "on\nstderr. Under mpirun, srun, torchrun or in an Indexed Job of Kubernetes the program "
        "is one\nrank of that world; what does not bring its ranks together needs MASTER_ADDR, "
        "rank 0's node\n(README, Many machines).",
    .table = run_table,
    .max_operands = 1,
};
