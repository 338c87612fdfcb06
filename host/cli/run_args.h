/*
 * run_args.h: the command line of `clustermark run`.
 */
#ifndef CM_CLI_RUN_ARGS_H
#define CM_CLI_RUN_ARGS_H

#include <stdbool.h>
#include <stdint.h>

#include "host/cli/args.h"

struct cm_run_args {
    const char *device, *only, *output, *explain, *machine, *trace;
    struct cm_words set;
    uint64_t ranks, runs; /* 0: not given */
    double budget_s;      /* 0: none */
    double wait_s;        /* 0: not given */
    bool json, quiet, show_hosts, simulate, cloud, fail_slow;
    int color;
};

extern const struct cm_arg_spec cm_run_spec;

#endif
