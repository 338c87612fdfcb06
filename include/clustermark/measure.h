/*
 * measure.h: from a suite to samples: the plan, the harness on each rank, the supervisor.
 *
 *   plan        suite + overrides -> cases, sweeps expanded, every value checked
 *   supervisor  for each run, for each section: starts fresh rank processes, follows them, gives
 *               each finished case run to a sink; bounds the time; names who died
 *   rank        one process per device: binds itself, opens device and communicator, measures
 */
#ifndef CLUSTERMARK_MEASURE_H
#define CLUSTERMARK_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/cluster.h"
#include "clustermark/device.h"
#include "clustermark/stats.h"
#include "clustermark/suite.h"
#include "clustermark/workload.h"

/* How a case is measured: keys of [global] and of every section. */
struct cm_run_settings {
    uint64_t runs;              /* fresh-process runs */
    double warmup_time_s;       /* warm-up: at least this long ... */
    uint64_t warmup_iterations; /* ... and at least this often */
    double min_time_s;          /* measure at least this long ... */
    uint64_t min_iterations;    /* ... and at least this often */
    double max_time_s;          /* stop then, steady or not */
    uint64_t max_iterations;
    double precision; /* steady: relative half-width of the median's 95 % interval ... */
    double drift;     /* ... and last third against first third within this */
    double timeout_s; /* deadline of one phase: setup, warm-up, a batch, check, teardown */
    double silence_s; /* under a launcher: a rank that is not heard of for so long is lost */
    uint64_t seed;
    double inject; /* a spin of this share of an iteration after each: to test what finds it */
    char gate[64]; /* the figure that the gate watches; "": none */
    double gate_margin;
};
extern const struct cm_option cm_run_options[];

/* A point of a section's sweep. */
struct cm_case {
    char *name; /* "gemm" or "allreduce:size=64KiB": section, then the swept keys */
    char *section;
    const struct cm_workload *workload;
    struct cm_run_settings settings;
    void *params; /* workload->params_size bytes */
    char *where;  /* of the section, for messages */
};

struct cm_plan {
    char *suite_name, *suite_text;
    struct cm_case *cases; /* sections together, in the suite's order */
    size_t count;
    uint64_t runs; /* the largest of the cases' */
    uint64_t seed;
};

/* Interpret a suite. Every key and value is checked: unknown workload or key (with the nearest
 * name), value out of range, a sweep over 100,000 points, no case left after `only` (a section name
 * or a shell pattern; NULL for all). `runs` overrides where > 0. */
enum cm_status cm_plan_build(const struct cm_suite *suite, const char *only, uint64_t runs,
                             struct cm_plan *plan);
void cm_plan_release(struct cm_plan *plan);

enum cm_case_status { CM_CASE_OK, CM_CASE_FAILED, CM_CASE_WRONG, CM_CASE_SKIPPED };
extern const char *const cm_case_status_names[]; /* "ok", "failed", "wrong", "skipped" */

/* One run of one case, as the reporting rank saw it. */
struct cm_case_run {
    size_t case_index;
    uint64_t run;
    enum cm_case_status status;
    char reason[512];     /* of any status but ok */
    char stop_reason[64]; /* "steady", "max_time", "max_iterations", "budget", "fixed_time"; of
                             several parts, the first that is neither steady nor fixed */
    uint64_t warmup_iterations;
    double warmup_s, wall_s;
    double started_unix_s;
    struct cm_part_samples *parts;
    unsigned part_count;
    struct cm_metrics metrics;
    struct cm_suspects suspects;    /* with the names of their hosts */
    struct cm_check check;          /* summed over parts and ranks */
    struct cm_telemetry *telemetry; /* per rank */
    struct cm_device_info *devices; /* per rank */
    char **bindings;                /* per rank: cores and NUMA nodes, as read back */
    unsigned rank_count;
    char comm[16], comm_library[64];
    char algorithm[224]; /* what the library chose for this case; "" when nothing */
};
void cm_case_run_release(struct cm_case_run *run);

/* As one line of JSON and back; the line crosses process borders. The reader trusts nothing. */
enum cm_status cm_case_run_write(const struct cm_case_run *run, char **text);
enum cm_status cm_case_run_read(const char *text, size_t length, struct cm_case_run *run);

/* Where finished case runs go. `done` is called in the order they finish; a failure of it ends the
 * whole run. */
struct cm_sink {
    void *impl;
    enum cm_status (*done)(void *impl, const struct cm_plan *plan, const struct cm_case_run *run);
    /* Optional: the machine as the communication library sees it, a file's text; at most once,
     * before the first run is done. */
    enum cm_status (*topology)(void *impl, const char *text);
    /* Of cm_measure_inside. A rank was lost, this is another process than the one that called
     * `done` so far, and that one writes nothing any more: go on with what it has written. The user
     * was told of the loss. */
    enum cm_status (*resume)(void *impl);
    /* Whether this run of a case was done. */
    bool (*has)(void *impl, size_t case_index, uint64_t run);
    /* Optional: the nodes that the ranks are on, before the first run is done; ranks of an outside
     * launcher alone. */
    enum cm_status (*cluster)(void *impl, const struct cm_cluster_map *cluster);
};

struct cm_run_request {
    const struct cm_device_ops *device;
    unsigned ranks;  /* 0: one per device; for the CPU 2, or 1 on a single core or without MPI */
    double budget_s; /* 0: none. Bounds the whole run, start-up and reports included */
    double wait_s;   /* for the meeting of ranks of an outside launcher */
    bool progress;   /* draw on stderr (a terminal) */
    bool simulate;   /* more ranks than devices share them */
    bool show_hosts; /* results name hosts */
    const struct cm_machine *machine; /* cm_simulate: whose times */
    const char *program;              /* argv[0], for starting ranks; NULL for /proc/self/exe */
};

/* Runs a plan with supervised fresh rank processes. Returns CM_OK when every case run was handed to
 * the sink, whatever its status; CM_INTERRUPTED after SIGINT or SIGTERM, with all rank processes
 * gone; another status when the run as a whole could not go on. */
enum cm_status cm_supervise(const struct cm_plan *plan, const struct cm_run_request *request,
                            struct cm_sink *sink);

/* The device of cm_simulate, for results: a name without functions. Streams and kernels are those
 * of one rank, and when it may go on depends on the other stages, so that no device of one process
 * can tell the time of a pipeline's step. */
extern const struct cm_device_ops cm_device_sim;
/* Executes a plan on a virtual clock, in this process: each case that has an iteration there
 * (cm_workload.simulate), once, and the rest is skipped. request->ranks and ->machine are set. */
enum cm_status cm_simulate(const struct cm_plan *plan, const struct cm_run_request *request,
                           struct cm_sink *sink);

/* The ranks that a request means on this machine: more than there are cores are fine. CM_USAGE or
 * CM_NO_DEVICE when it cannot be. */
enum cm_status cm_request_ranks(const struct cm_run_request *request, unsigned *ranks);
/* Devices that ranks have each for itself, or share when they are more; 0: the host's cores. */
unsigned cm_request_devices(const struct cm_run_request *request);

/* The body of a rank process that cm_supervise started: `clustermark rank ...` (not for users). */
int cm_rank_main(int argc, char **argv);

/* Whether the ranks of that world have a way to one another: the library that brings them together
 * is there, and they know where to meet. CM_USAGE when not, as each would be a run of its own. */
enum cm_status cm_world_reach(const struct cm_device_ops *device, const struct cm_world *world);

/* Measure a whole plan inside this process, which an outside launcher started as one rank of
 * `world`. Rank 0 feeds the sink; the others need none. Runs after the first are not fresh
 * processes, and the results say so. CM_USAGE when the ranks are not one world: another program,
 * suite or library on one of them, a device that two have. *agreed is set whatever happens: a
 * failure that all ranks know and have the same message of, so that one may tell it for all.
 *
 * Rank 0 forks a watcher: when a rank dies, stops or is cut off, all others end, and this returns
 * in the watcher's process instead, once, with CM_LOST or CM_INTERRUPTED and the sink resumed; that
 * process should finish the result and _exit. */
enum cm_status cm_measure_inside(const struct cm_plan *plan, const struct cm_run_request *request,
                                 const struct cm_world *world, struct cm_sink *sink, bool *agreed);

/* Where an outside launcher gives CPU ranks no MPI (torchrun's variables, an Indexed Job, plain
 * srun), its processes carry an MPI job instead of being its ranks: see host/measure/carry.h. */
bool cm_carry_needed(const struct cm_world *world, const struct cm_device_ops *device);
/* Carries `argv` (this program's arguments without its name, NULL-terminated). All processes of the
 * world call it, and wait up to wait_s for each other. The exit code of the job; messages are
 * printed. */
int cm_carry(const struct cm_world *world, double wait_s, char **argv);
/* `clustermark carry-start ...`: mpirun's remote shell (not for users). */
int cm_carry_start_main(int argc, char **argv);

/* Measure one case with what is open: every rank calls it. On the reporting rank (0) *run is filled
 * whatever the outcome; CM_OK unless the ranks can no longer agree (then the process must end). */
struct cm_bench {
    struct cm_device *device;
    struct cm_comm *comm;
    uint64_t memory_bytes; /* this rank's share */
    double time_limit_s;   /* of the budget, for this case; INFINITY for none */
    const char *binding;   /* of this rank, as read back by cm_binding_apply; NULL not known */
    /* Called at the start of each phase ("setup", "warm-up", "measure", "check") and again at every
     * batch of it, to show that the rank lives; may be NULL. */
    void (*phase)(void *arg, const char *phase);
    void *phase_arg;
};
/* case_index of *run is the caller's to set. */
enum cm_status cm_measure_case(struct cm_bench *bench, const struct cm_case *item,
                               uint64_t run_index, struct cm_case_run *run);

#endif
