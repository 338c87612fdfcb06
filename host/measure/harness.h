/*
 * harness.h: what the pieces of the harness share: one rank's view of one case.
 */
#ifndef HOST_MEASURE_HARNESS_H
#define HOST_MEASURE_HARNESS_H

#include "clustermark/measure.h"
#include "host/measure/stop.h"
#include "host/measure/vote.h"

/* Memory of the case, in the order it was taken. */
struct cm_block {
    enum cm_memory_kind kind;
    char *memory;
    uint64_t size_bytes;
};

struct cm_output {
    enum cm_memory_kind kind;
    void *memory;
    uint64_t size_bytes;
};

struct cm_context_private {
    struct cm_vote *vote;
    uint64_t limit_bytes, used_bytes;
    struct cm_block *blocks;
    size_t block_count, block_capacity;
    struct cm_output *outputs;
    size_t output_count, output_capacity;
    struct cm_stream **streams; /* besides the timed one and `side` */
    size_t stream_count, stream_capacity;
    struct cm_comm **parts; /* of the world */
    size_t part_count, part_capacity;
};

/* Fill the declared outputs with ones, NAN in every floating type. */
enum cm_status cm_context_poison(struct cm_context *context);
/* Wait for the timed stream alone, looking at all communicators of the case. */
enum cm_status cm_context_wait(struct cm_context *context);
/* Give the world and its parts up. */
void cm_context_abort(struct cm_context *context);
/* Close the parts, destroy the streams and give all memory back; the streams must be synced. */
void cm_context_release(struct cm_context *context);

/* Around the iterations of a batch, and one on the side stream behind them all. */
enum { CM_SIDE_EVENT = CM_BATCH_MAX + 1, CM_EVENTS };

struct cm_harness {
    struct cm_bench *bench;
    const struct cm_case *item;
    struct cm_context context;
    struct cm_context_private hidden;
    struct cm_vote vote;
    void *state;
    bool set_up; /* setup was called: teardown is due */
    struct cm_event *events[CM_EVENTS];
    unsigned *nodes;            /* context.node_of */
    char (*hosts)[CM_HOST_MAX]; /* per rank, on the reporting one */
    double *pace_s;             /* per part: of one iteration, from the warm-up */
    double *rank_measured_s; /* per rank, on the reporting one: time of the parts that it took part
                                in so far */
    size_t batch_most;       /* iterations that the device's queue takes at once; 0: not met yet */
    enum cm_stop stop;
    double observed[CM_OBSERVED_MAX]; /* by the workload */
    bool telemetry;                   /* a window is open */
    bool telemetry_failed;            /* it cannot be had: said once */
    double started_s;
    double began_s; /* an iteration that is slowed down on purpose */
    const char *phase;
    struct cm_case_run run;
};

/* Both series return like the functions of vote.h: look at harness->vote.agreed. */
enum cm_status cm_warm_up(struct cm_harness *harness, unsigned part);
/* Fills run.parts[part].slowest and `own` (this rank's times), and sets harness->stop. */
enum cm_status cm_time_part(struct cm_harness *harness, unsigned part, struct cm_samples *own);

/* All ranks' medians to rank 0's run.parts[part], and of few ranks all their own times. */
enum cm_status cm_gather_samples(struct cm_harness *harness, unsigned part,
                                 const struct cm_samples *own);
/* All ranks' findings, added to run.check. Mismatches make the case wrong, on every rank. */
enum cm_status cm_gather_check(struct cm_harness *harness, unsigned part,
                               const struct cm_check *own);
/* Devices and bindings at the start; telemetry (NULL: not known) after each part, once its times
 * are gathered. */
enum cm_status cm_gather_devices(struct cm_harness *harness);
enum cm_status cm_gather_telemetry(struct cm_harness *harness, unsigned part,
                                   const struct cm_telemetry *own);

#endif
