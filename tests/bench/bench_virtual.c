/*
 * A training step of 131,072 GPUs on the virtual clock: how long it takes to build the schedules,
 * to execute them, and what memory that needs.
 *
 *   bench_virtual [MICRO_BATCHES [PLAN [MODEL]]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "clustermark/error.h"
#include "clustermark/roofline.h"
#include "clustermark/units.h"
#include "clustermark/virtual_clock.h"

static double clock_s(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    struct cm_step step;
    struct cm_machine machine;
    struct cm_virtual *program = NULL;
    struct cm_virtual_result result = {.stages = NULL};
    struct cm_str text = CM_STR_INIT;
    struct rusage usage;
    cm_step_defaults(&step);
    step.micro_batches = argc > 1 ? strtoull(argv[1], NULL, 10) : 32;
    const struct cm_virtual_times times = {.time_s = cm_roofline_time, .impl = &machine};
    double begun_s = clock_s(CLOCK_MONOTONIC), built_s = begun_s;
    if (cm_transformer_load(argc > 3 ? argv[3] : "llama3-405b", 0, &step.model) == CM_OK &&
        cm_parallel_parse(argc > 2 ? argv[2] : "dp=1024,tp=8,pp=16,sp=1,zero=1", "plan",
                          &step.parallel) == CM_OK &&
        cm_machine_load("h100", &machine) == CM_OK && cm_virtual_open(&step, &program) == CM_OK) {
        built_s = clock_s(CLOCK_MONOTONIC);
        if (cm_virtual_execute(program, &times, NULL, &result) == CM_OK) {
            double done_s = clock_s(CLOCK_MONOTONIC);
            getrusage(RUSAGE_SELF, &usage);
            cm_virtual_write(program, &result, &text);
            printf("%s", cm_str_text(&text));
            printf("%u ranks, %llu operations: built in %.3f s, executed in %.3f s, both %.3f s "
                   "(%.3f s of a core); %.0f MB at most\n",
                   cm_parallel_ranks(&step.parallel), (unsigned long long)result.operations,
                   built_s - begun_s, done_s - built_s, done_s - begun_s,
                   clock_s(CLOCK_PROCESS_CPUTIME_ID), (double)usage.ru_maxrss * 1024e-6);
            cm_str_release(&text);
            cm_virtual_result_release(&result);
            cm_virtual_close(program);
            return 0;
        }
    }
    fprintf(stderr, "bench_virtual: %s\n", cm_error_text());
    return 1;
}
