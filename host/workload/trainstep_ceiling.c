/*
 * trainstep: how fast a step could be on this machine, from what its pieces take alone, on all
 * ranks at once: each distinct product and attention; all other kernels' least bytes at the rate of
 * a copy; the collectives inside blocks, which nothing can hide; and the filling of a pipeline.
 * Messages of gradients and weights, and between stages, count as hidden.
 */
#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/kernels.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/workload/trainstep.h"

enum { REPEATS = 3 };

struct stopwatch {
    struct cm_trainstep_state *state;
    struct cm_event *start, *end;
};

/* Median of a few runs of what `queue` queues on the context's stream, after one that does not
 * count. */
static enum cm_status time_alone(struct stopwatch *watch,
                                 enum cm_status (*queue)(struct stopwatch *watch, uint32_t index),
                                 uint32_t index, double *seconds)
{
    struct cm_context *context = watch->state->context;
    const struct cm_device_ops *device = context->device->ops;
    double times[REPEATS];
    enum cm_status status = CM_OK;
    for (int i = -1; i < REPEATS && status == CM_OK; i++) {
        /* The device begins when all is queued: the host's time is none of the piece's. */
        status = device->stream_hold(context->stream);
        if (status != CM_OK)
            return status;
        status = device->event_record(watch->start, context->stream);
        if (status == CM_OK)
            status = queue(watch, index);
        if (status == CM_OK)
            status = device->event_record(watch->end, context->stream);
        enum cm_status released = device->stream_release(context->stream);
        status = status != CM_OK ? status : released;
        if (status == CM_OK)
            status = cm_context_sync(context);
        if (status == CM_OK && i >= 0)
            status = device->elapsed(watch->start, watch->end, &times[i]);
    }
    if (status == CM_OK)
        *seconds = cm_median(times, REPEATS);
    return status;
}

static enum cm_status queue_op(struct stopwatch *watch, uint32_t index)
{
    return cm_executor_enqueue_op(&watch->state->executor, index, 1);
}

static uint32_t largest_buffer(const struct cm_schedule *schedule)
{
    uint32_t largest = 0;
    for (uint32_t i = 1; i < schedule->buffer_count; i++)
        if (schedule->buffers[i].size_bytes > schedule->buffers[largest].size_bytes)
            largest = i;
    return largest;
}

/* One half of a buffer to the other. */
static enum cm_status queue_copy(struct stopwatch *watch, uint32_t buffer)
{
    const struct cm_trainstep_state *state = watch->state;
    char *memory = state->executor.buffers[buffer];
    uint64_t half = state->schedule.buffers[buffer].size_bytes / 128 * 64;
    return state->context->device->kernels->copy(state->context->stream, memory + half, memory,
                                                 half / sizeof(float), CM_F32);
}

static bool counts_alone(const struct cm_op *op)
{
    enum cm_op_class class = cm_op_infos[op->kind].class;
    return class == CM_CLASS_GEMM || class == CM_CLASS_ATTENTION;
}

/* The same work; products of one plan have one shape. */
static bool alike(const struct cm_bound_op *a, const struct cm_bound_op *b)
{
    return a->op->kind == b->op->kind && a->op->flops == b->op->flops &&
           (cm_op_infos[a->op->kind].class != CM_CLASS_GEMM || a->u.gemm == b->u.gemm);
}

/* Each distinct one is timed where it first stands, and counts as often as there are. */
static enum cm_status time_products(struct stopwatch *watch, double *seconds)
{
    const struct cm_executor *executor = &watch->state->executor;
    uint32_t count = executor->schedule->op_count;
    bool *counted = cm_alloc(count, sizeof *counted);
    enum cm_status status = counted != NULL ? CM_OK : CM_NO_MEMORY;
    for (uint32_t i = 0; i < count && status == CM_OK; i++) {
        double times = 0, alone_s = 0;
        if (counted[i] || !counts_alone(executor->ops[i].op))
            continue;
        for (uint32_t k = i; k < count; k++) {
            if (!alike(&executor->ops[i], &executor->ops[k]))
                continue;
            counted[k] = true;
            times++;
        }
        status = time_alone(watch, queue_op, i, &alone_s);
        *seconds += times * alone_s;
    }
    cm_free(counted);
    return status;
}

static enum cm_status time_bytes(struct stopwatch *watch, double *seconds)
{
    const struct cm_schedule *schedule = &watch->state->schedule;
    uint32_t buffer = largest_buffer(schedule);
    double bytes = 0, copy_s = 0;
    for (uint32_t i = 0; i < schedule->op_count; i++) {
        const struct cm_op *op = &schedule->ops[i];
        if (op->lane == CM_LANE_COMPUTE && !counts_alone(op))
            bytes += op->bytes;
    }
    enum cm_status status = time_alone(watch, queue_copy, buffer, &copy_s);
    double moved = 2 * (double)(schedule->buffers[buffer].size_bytes / 128 * 64);
    if (status == CM_OK && moved > 0)
        *seconds += bytes / moved * copy_s;
    return status;
}

/* Every collective inside blocks, one after the other. */
static enum cm_status queue_layer_comm(struct stopwatch *watch)
{
    struct cm_executor *executor = &watch->state->executor;
    const struct cm_device_ops *device = watch->state->context->device->ops;
    struct cm_stream *lane = executor->streams[CM_LANE_LAYER];
    enum cm_status status = device->event_record(watch->start, lane);
    for (uint32_t i = 0; i < executor->schedule->op_count && status == CM_OK; i++) {
        const struct cm_op *op = executor->ops[i].op;
        if (op->lane == CM_LANE_LAYER && cm_op_infos[op->kind].class == CM_CLASS_COMM)
            status = cm_executor_enqueue_op(executor, i, 1);
    }
    return status == CM_OK ? device->event_record(watch->end, lane) : status;
}

static enum cm_status time_layer_comm(struct stopwatch *watch, double *seconds)
{
    struct cm_trainstep_state *state = watch->state;
    uint64_t unused;
    double alone_s = 0;
    if (state->executor.streams[CM_LANE_LAYER] == NULL)
        return CM_OK;
    /* The ranks meet, so that nobody's time holds another's lateness. */
    enum cm_status status = cm_context_memory_left(state->context, &unused);
    for (int i = 0; i < 2 && status == CM_OK; i++) {
        status = queue_layer_comm(watch);
        if (status == CM_OK)
            status = cm_context_sync(state->executor.context);
    }
    if (status == CM_OK)
        status = state->context->device->ops->elapsed(watch->start, watch->end, &alone_s);
    *seconds += alone_s;
    return status;
}

enum cm_status cm_trainstep_ceiling(struct cm_trainstep_state *state, double *seconds)
{
    struct cm_device *device = state->context->device;
    const struct cm_parallel *parallel = &state->step.parallel;
    struct stopwatch watch = {.state = state};
    double time_s = 0;
    enum cm_status status = device->ops->event_create(device, &watch.start);
    if (status == CM_OK)
        status = device->ops->event_create(device, &watch.end);
    if (status == CM_OK)
        status = time_products(&watch, &time_s);
    if (status == CM_OK)
        status = time_bytes(&watch, &time_s);
    if (status == CM_OK)
        status = time_layer_comm(&watch, &time_s);
    device->ops->event_destroy(watch.end);
    device->ops->event_destroy(watch.start);
    if (status != CM_OK)
        return status;
    double filling =
        (double)(parallel->pp - 1) / ((double)state->step.micro_batches * (double)parallel->vpp);
    *seconds = time_s * (1 + filling);
    return CM_OK;
}
