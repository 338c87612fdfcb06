/*
 * trainstep_execute.h: a schedule made to run on a device: memory, streams, events, communicators
 * and prepared products, and the walk over its operations.
 */
#ifndef HOST_WORKLOAD_TRAINSTEP_EXECUTE_H
#define HOST_WORKLOAD_TRAINSTEP_EXECUTE_H

#include "clustermark/schedule.h"
#include "clustermark/workload.h"

/* What of a schedule is queued. */
enum cm_extent {
    CM_EXTENT_STEP,
    CM_EXTENT_NO_COMM,   /* communication left out: times are right, numbers are not */
    CM_EXTENT_GRADIENTS, /* all but the update of the weights: gradients stay as the optimizer
                            would read them, before clipping */
};

/* What differs from step to step. */
struct cm_moment {
    uint32_t step; /* from 1 */
    uint64_t seed; /* of stochastic rounding */
};

struct cm_attention_library;
struct cm_bound_op;
typedef enum cm_status (*cm_op_fn)(const struct cm_bound_op *bound, const struct cm_moment *moment);

/* An operation with all that it touches. */
struct cm_bound_op {
    const struct cm_op *op;
    cm_op_fn queue;
    struct cm_stream *stream;
    const struct cm_kernels *kernels;
    void *at[CM_OP_SLICES];
    union {
        struct cm_gemm *gemm;
        struct cm_comm *comm;
        struct cm_event *event;
        uint64_t purpose;                      /* ADAMW: tells units apart */
        const struct cm_attention_library *by; /* ATTENTION and its gradient; NULL: own */
    } u;
};

struct cm_executor {
    struct cm_context *context;
    const struct cm_schedule *schedule;
    uint64_t seed;
    char **buffers;                           /* by index; NULL where the size is 0 */
    struct cm_stream *streams[CM_LANE_COUNT]; /* NULL where nothing runs */
    struct cm_event **events;
    struct cm_comm *comms[CM_GROUP_COUNT]; /* NULL for a group of one rank */
    struct cm_gemm **gemms;                /* one for each product of the schedule */
    size_t gemm_count, gemm_capacity;
    struct cm_bound_op *ops; /* as in the schedule */
};

/* Every rank opens its own. `schedule` must stay. What fails on one rank before the ranks meet for
 * their communicators fails on all. cm_executor_close gives back what there is, also of one that
 * could not be opened; all streams must be synced. */
enum cm_status cm_executor_open(struct cm_context *context, const struct cm_schedule *schedule,
                                uint64_t seed, struct cm_executor *executor);
void cm_executor_close(struct cm_executor *executor);

/* Queue a step; `step` counts from 1. */
enum cm_status cm_executor_enqueue(struct cm_executor *executor, uint32_t step,
                                   enum cm_extent extent);
/* Queue one operation, number `index` of the schedule. */
enum cm_status cm_executor_enqueue_op(struct cm_executor *executor, uint32_t index, uint32_t step);

/* The memory of a slice; NULL for an empty one. */
void *cm_executor_at(const struct cm_executor *executor, struct cm_slice slice);

/* ---- trainstep_ops.c ---- */

/* How an operation of that kind is queued. */
cm_op_fn cm_op_function(enum cm_op_kind kind);

#endif
