/* A schedule made to run: what its operations need is made once, and queueing is a walk. */
#include "host/workload/trainstep_execute.h"

#include <string.h>

#include "clustermark/error.h"
#include "clustermark/hash.h"
#include "clustermark/kernels.h"
#include "clustermark/memory.h"
#include "clustermark/ops.h"

void *cm_executor_at(const struct cm_executor *executor, struct cm_slice slice)
{
    if (slice.buffer == CM_NO_BUFFER || executor->buffers[slice.buffer] == NULL)
        return NULL;
    return executor->buffers[slice.buffer] + slice.offset_bytes;
}

static enum cm_status make_buffers(struct cm_executor *executor)
{
    const struct cm_schedule *schedule = executor->schedule;
    executor->buffers = cm_alloc(schedule->buffer_count, sizeof *executor->buffers);
    if (executor->buffers == NULL)
        return CM_NO_MEMORY;
    for (uint32_t i = 0; i < schedule->buffer_count; i++) {
        const struct cm_buffer *buffer = &schedule->buffers[i];
        void *memory = NULL;
        if (buffer->size_bytes == 0)
            continue;
        enum cm_status status =
            cm_context_alloc(executor->context, buffer->comm ? CM_MEMORY_COMM : CM_MEMORY_DEVICE,
                             buffer->size_bytes, &memory);
        if (status != CM_OK)
            return cm_error_at(status, "%s: ", buffer->name);
        executor->buffers[i] = memory;
    }
    return CM_OK;
}

static enum cm_status make_streams(struct cm_executor *executor)
{
    const struct cm_schedule *schedule = executor->schedule;
    enum cm_status status = CM_OK;
    executor->streams[CM_LANE_COMPUTE] = executor->context->stream;
    for (uint32_t i = 0; i < schedule->op_count && status == CM_OK; i++) {
        enum cm_lane lane = schedule->ops[i].lane;
        if (executor->streams[lane] == NULL)
            status = cm_context_stream(executor->context, 1, &executor->streams[lane]);
    }
    return status;
}

static enum cm_status make_events(struct cm_executor *executor)
{
    struct cm_device *device = executor->context->device;
    executor->events = cm_alloc(executor->schedule->event_count, sizeof(struct cm_event *));
    enum cm_status status = executor->events != NULL ? CM_OK : CM_NO_MEMORY;
    for (uint32_t i = 0; i < executor->schedule->event_count && status == CM_OK; i++)
        status = device->ops->event_create(device, &executor->events[i]);
    return status;
}

static bool same_product(const struct cm_gemm_desc *a, const struct cm_gemm_desc *b)
{
    return a->dtype == b->dtype && a->out_dtype == b->out_dtype && a->m == b->m && a->n == b->n &&
           a->k == b->k && a->batch == b->batch && a->trans_a == b->trans_a &&
           a->trans_b == b->trans_b && a->accumulate == b->accumulate && a->impl == b->impl &&
           a->epilogue == b->epilogue && a->scaled == b->scaled && a->wide_a == b->wide_a &&
           a->wide_b == b->wide_b;
}

/* The plan of that product, made when it is first met. */
static enum cm_status find_gemm(struct cm_executor *executor, const struct cm_gemm_desc *desc,
                                struct cm_gemm **gemm)
{
    struct cm_device *device = executor->context->device;
    for (size_t i = 0; i < executor->gemm_count; i++) {
        if (same_product(&executor->gemms[i]->desc, desc)) {
            *gemm = executor->gemms[i];
            return CM_OK;
        }
    }
    if (cm_grow(&executor->gemms, &executor->gemm_capacity, executor->gemm_count + 1,
                sizeof(struct cm_gemm *)) != 0)
        return CM_NO_MEMORY;
    enum cm_status status = device->kernels->gemm_plan(device, desc, gemm);
    if (status == CM_OK)
        executor->gemms[executor->gemm_count++] = *gemm;
    return status;
}

/* What the update of a unit is told apart by: the same on all ranks that have it. */
static uint64_t purpose_of(const struct cm_schedule *schedule, struct cm_slice master)
{
    for (uint32_t i = 0; i < schedule->unit_count; i++) {
        const struct cm_unit *unit = &schedule->units[i];
        if (unit->master.buffer == master.buffer &&
            unit->master.offset_bytes == master.offset_bytes)
            return cm_hash(0, unit->name, strlen(unit->name));
    }
    return 0;
}

static enum cm_status bind_op(struct cm_executor *executor, uint32_t index)
{
    const struct cm_op *op = &executor->schedule->ops[index];
    struct cm_bound_op *bound = &executor->ops[index];
    bound->op = op;
    bound->queue = cm_op_function(op->kind);
    bound->stream = executor->streams[op->lane];
    bound->kernels = executor->context->device->kernels;
    for (unsigned i = 0; i < CM_OP_SLICES; i++)
        bound->at[i] = cm_executor_at(executor, op->slices[i]);
    if (op->kind == CM_OP_RECORD || op->kind == CM_OP_WAIT)
        bound->u.event = executor->events[op->event];
    else if (op->kind == CM_OP_ADAMW)
        bound->u.purpose = purpose_of(executor->schedule, op->slices[2]);
    else if (cm_op_infos[op->kind].class == CM_CLASS_GEMM)
        return find_gemm(executor, &op->u.gemm, &bound->u.gemm);
    return CM_OK;
}

static enum cm_status bind_ops(struct cm_executor *executor)
{
    executor->ops = cm_alloc(executor->schedule->op_count, sizeof *executor->ops);
    enum cm_status status = executor->ops != NULL ? CM_OK : CM_NO_MEMORY;
    for (uint32_t i = 0; i < executor->schedule->op_count && status == CM_OK; i++)
        status = bind_op(executor, i);
    return status;
}

/* Every rank does all splits, whether it is in a group or not. */
static enum cm_status make_comms(struct cm_executor *executor)
{
    const struct cm_step *step = &executor->schedule->step;
    unsigned splits = cm_parallel_splits(&step->parallel);
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i < splits && status == CM_OK; i++) {
        enum cm_group group = CM_GROUP_WORLD;
        struct cm_comm *comm = NULL;
        int color, key;
        cm_parallel_split(&step->parallel, &step->model, executor->schedule->rank, i, &group,
                          &color, &key);
        status = cm_context_split(executor->context, color < 0 ? CM_SPLIT_NONE : color, key, &comm);
        if (comm != NULL)
            executor->comms[group] = comm;
    }
    return status;
}

static enum cm_status bind_comms(struct cm_executor *executor)
{
    for (uint32_t i = 0; i < executor->schedule->op_count; i++) {
        struct cm_bound_op *bound = &executor->ops[i];
        if (cm_op_infos[bound->op->kind].class != CM_CLASS_COMM)
            continue;
        enum cm_group group = bound->op->u.comm.group;
        bound->u.comm = group == CM_GROUP_WORLD ? executor->context->comm : executor->comms[group];
        if (bound->u.comm == NULL)
            return cm_error(CM_INTERNAL, "rank %u: %s of group %s, which has one rank",
                            executor->schedule->rank, cm_op_infos[bound->op->kind].name,
                            cm_group_names[group]);
    }
    return CM_OK;
}

enum cm_status cm_executor_open(struct cm_context *context, const struct cm_schedule *schedule,
                                uint64_t seed, struct cm_executor *executor)
{
    *executor = (struct cm_executor){.context = context, .schedule = schedule, .seed = seed};
    enum cm_status status = make_buffers(executor);
    if (status == CM_OK)
        status = make_streams(executor);
    if (status == CM_OK)
        status = make_events(executor);
    if (status == CM_OK)
        status = bind_ops(executor);
    if (status == CM_OK)
        status = make_comms(executor);
    return status == CM_OK ? bind_comms(executor) : status;
}

void cm_executor_close(struct cm_executor *executor)
{
    struct cm_context *context = executor->context;
    if (context == NULL)
        return;
    const struct cm_device *device = context->device;
    for (size_t i = 0; i < executor->gemm_count; i++)
        device->kernels->gemm_free(executor->gemms[i]);
    for (uint32_t i = 0; executor->events != NULL && i < executor->schedule->event_count; i++)
        device->ops->event_destroy(executor->events[i]);
    cm_free(executor->gemms);
    cm_free(executor->events);
    cm_free(executor->buffers);
    cm_free(executor->ops);
    *executor = (struct cm_executor){0};
}

static bool left_out(const struct cm_op *op, enum cm_extent extent)
{
    if (extent == CM_EXTENT_NO_COMM)
        return cm_op_infos[op->kind].class == CM_CLASS_COMM;
    return extent == CM_EXTENT_GRADIENTS && op->kind == CM_OP_ADAMW;
}

enum cm_status cm_executor_enqueue(struct cm_executor *executor, uint32_t step,
                                   enum cm_extent extent)
{
    const struct cm_moment moment = {step, executor->seed};
    enum cm_status status = CM_OK;
    for (uint32_t i = 0; i < executor->schedule->op_count && status == CM_OK; i++) {
        const struct cm_bound_op *bound = &executor->ops[i];
        if (!left_out(bound->op, extent))
            status = bound->queue(bound, &moment);
    }
    return status;
}

enum cm_status cm_executor_enqueue_op(struct cm_executor *executor, uint32_t index, uint32_t step)
{
    const struct cm_moment moment = {step, executor->seed};
    return executor->ops[index].queue(&executor->ops[index], &moment);
}
