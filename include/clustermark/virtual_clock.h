/*
 * virtual_clock.h: a training step executed on a virtual clock: the schedules that devices execute,
 * with lanes as streams, records and waits as events, and for each operation a time that the caller
 * gives. Nothing is computed and nothing moves; pure.
 *
 * One rank of each pipeline stage stands for all of its stage: (dp, cp, tp) = (0, 0, 0), which does
 * at least what any other rank of the stage does. A collective of a group within a stage begins
 * when this rank comes to it, for the others come then too; groups that join stages (a pipeline's
 * edges, the tied embedding, the world) wait for their members. Sends wait for their receives.
 */
#ifndef CLUSTERMARK_VIRTUAL_CLOCK_H
#define CLUSTERMARK_VIRTUAL_CLOCK_H

#include <stdint.h>

#include "clustermark/schedule.h"
#include "clustermark/status.h"
#include "clustermark/strbuf.h"

/* ---- programs: schedules made ready ---- */

/* Small: some 16 bytes for each operation, and each distinct operation once. Good for any number of
 * executions with other times; not changed by them. */
struct cm_virtual;

/* Builds the schedule of each stage in turn. CM_USAGE as cm_schedule_build; CM_NO_MEMORY. */
enum cm_status cm_virtual_open(const struct cm_step *step, struct cm_virtual **program);
/* From schedules that are there: those of stages 0 to pp - 1 of one step. They may go afterwards.
 * CM_INTERNAL for a wait without a record before it, or what no stage's schedule can have. */
enum cm_status cm_virtual_open_schedules(const struct cm_schedule *schedules, unsigned count,
                                         struct cm_virtual **program);
void cm_virtual_close(struct cm_virtual *program); /* accepts NULL */

/* ---- times ---- */

/* Seconds of an operation alone on rank `rank` (of stage `op` stands on), from when all members of
 * its group are there; at least 0 and finite. It may depend on the operation's kind, shape, flops
 * and bytes, but not on event, slices, layer, micro or chunk: it is asked once for each distinct
 * operation of a stage, where those are unset. Members of a group that joins stages may answer
 * differently: the longest counts. */
typedef double (*cm_op_time_fn)(const void *impl, const struct cm_step *step, unsigned rank,
                                const struct cm_op *op);

struct cm_virtual_times {
    cm_op_time_fn time_s;
    const void *impl;
    /* Stragglers: by what share the slowest other member of a group within a stage computes longer
     * than this rank. It comes to each collective later by that share of the compute time since the
     * group's last one. 0: all come together. */
    double late[CM_GROUP_COUNT];
};

/* ---- results ---- */

/* The lanes for which COMPUTE waits, as the step's report tells them apart. */
enum cm_virtual_wait {
    CM_VIRTUAL_WAIT_LAYER,
    CM_VIRTUAL_WAIT_DATA,
    CM_VIRTUAL_WAIT_PIPELINE,
    CM_VIRTUAL_WAIT_COUNT
};
/* Groups, the four edges of a pipeline as one. */
#define CM_VIRTUAL_GROUPS (CM_GROUP_FORWARD_OUT + 1)
extern const char *const cm_virtual_group_names[CM_VIRTUAL_GROUPS]; /* the last is "pipeline" */

struct cm_virtual_lane {
    double busy_s; /* operations alone */
    double wait_s; /* for events, and for the other members of a group */
    double end_s;  /* of the last operation; 0 where there is none */
};

/* One rank of a stage. Idle is step_s - lanes[CM_LANE_COMPUTE].busy_s. */
struct cm_virtual_stage {
    struct cm_virtual_lane lanes[CM_LANE_COUNT];
    double wait_s[CM_VIRTUAL_WAIT_COUNT]; /* of COMPUTE; PIPELINE is the bubble */
    double comm_s[CM_VIRTUAL_GROUPS];     /* on their own lanes, waiting for members included */
    double transfer_s[CM_VIRTUAL_GROUPS]; /* and without */
    double phase_s[CM_PHASE_COUNT];       /* of COMPUTE, waits apart */
    double class_s[CM_CLASS_COUNT];       /* of COMPUTE, waits apart */
    uint64_t memory_bytes;                /* of its schedule's buffers */
    double flops, bytes, message_bytes;   /* summed over its operations, as struct cm_op has them */
};

/* What the longest chain of operations consists of: no part of it could take less without the step
 * taking less, but for a chain beside it. All parts together are the step. */
struct cm_virtual_path {
    double class_s[CM_CLASS_COUNT]; /* COMM: 0, by group instead */
    double group_s[CM_VIRTUAL_GROUPS];
    double late_s; /* stragglers */
};

struct cm_virtual_result {
    double step_s;
    double no_comm_s; /* without communication: the stage that computes longest */
    struct cm_virtual_stage *stages;
    unsigned stage_count;
    struct cm_virtual_path path;
    uint64_t operations; /* executed, over all stages; records and waits counted */
};

/* ---- execution ---- */

/* For a trace: an operation, or a wait of COMPUTE (kind WAIT; `lane_for` is whose event). */
struct cm_virtual_interval {
    unsigned stage;
    enum cm_lane lane, lane_for;
    const struct cm_op *op;      /* as the time function saw it; NULL for a wait */
    int32_t layer, micro, chunk; /* -1 outside */
    double start_s, end_s;       /* communication: from when all members are there */
};
struct cm_virtual_observer {
    void (*interval)(void *impl, const struct cm_virtual_interval *interval);
    void *impl;
};

/* One step. `observer` may be NULL; it is called lane by lane, not in order of time. *result is the
 * caller's to release. CM_INTERNAL where the schedules do not fit together (members of a group that
 * differ, lanes that wait for ever: the message tells which for what) or a time is no time. */
enum cm_status cm_virtual_execute(const struct cm_virtual *program,
                                  const struct cm_virtual_times *times,
                                  const struct cm_virtual_observer *observer,
                                  struct cm_virtual_result *result);
void cm_virtual_result_release(struct cm_virtual_result *result);

/* For people: step, stages, communication, critical path. */
void cm_virtual_write(const struct cm_virtual *program, const struct cm_virtual_result *result,
                      struct cm_str *out);
/* Executes, and writes what happened when in the format of chrome://tracing and Perfetto: a process
 * for each stage, a thread for each lane. */
enum cm_status cm_virtual_trace(const struct cm_virtual *program,
                                const struct cm_virtual_times *times, struct cm_str *out);

#endif
