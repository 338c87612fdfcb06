/* self: the communicator of one rank. Data moves as it would with more: what is sent arrives. On
 * the host it is copied on the stream's thread, on other devices by the device. */
#include <string.h>

#include "clustermark/memory.h"
#include "host/comm/module.h"
#include "host/comm/queue.h"

struct self_comm {
    struct cm_queue queue;
    /* Not on the host: after the last operation and its stream. */
    struct cm_event *last;
    struct cm_stream *last_stream; /* only compared */
};

static enum cm_status move(struct cm_stream *stream, void *to, const void *from, size_t bytes)
{
    if (to == from)
        return CM_OK;
    if (stream != NULL)
        return stream->device->ops->copy(stream, to, from, bytes);
    memmove(to, from, bytes);
    return CM_OK;
}

static enum cm_status self_execute(struct cm_queue *queue, struct cm_stream *stream,
                                   const struct cm_comm_op *op)
{
    (void)queue;
    if (op->kind == CM_COMM_BROADCAST)
        return CM_OK;
    return move(stream, op->recv, op->send, op->count * cm_dtype_size(op->dtype));
}

/* Sends and recvs pair up in their order; group_end saw that they match. */
static enum cm_status self_execute_group(struct cm_queue *queue, struct cm_stream *stream,
                                         const struct cm_comm_group *group)
{
    size_t recv = 0;
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < group->count && status == CM_OK; i++) {
        const struct cm_comm_op *op = &group->ops[i];
        if (op->kind == CM_COMM_RECV)
            continue;
        if (op->kind != CM_COMM_SEND) {
            status = self_execute(queue, stream, op);
            continue;
        }
        while (group->ops[recv].kind != CM_COMM_RECV)
            recv += 1;
        status =
            move(stream, group->ops[recv++].recv, op->send, op->count * cm_dtype_size(op->dtype));
    }
    return status;
}

/* On another stream than the operation before it an operation waits for that one. */
static enum cm_status begin(struct self_comm *comm, struct cm_stream *stream)
{
    if (comm->last_stream == NULL || comm->last_stream == stream)
        return CM_OK;
    return stream->device->ops->stream_wait(stream, comm->last);
}

static enum cm_status end(struct self_comm *comm, struct cm_stream *stream, enum cm_status status)
{
    if (status == CM_OK)
        status = stream->device->ops->event_record(comm->last, stream);
    if (status == CM_OK)
        comm->last_stream = stream;
    return status;
}

static enum cm_status device_execute(struct cm_queue *queue, struct cm_stream *stream,
                                     const struct cm_comm_op *op)
{
    struct self_comm *comm = (struct self_comm *)queue;
    enum cm_status status = begin(comm, stream);
    if (status == CM_OK)
        status = self_execute(queue, stream, op);
    return end(comm, stream, status);
}

static enum cm_status device_execute_group(struct cm_queue *queue, struct cm_stream *stream,
                                           const struct cm_comm_group *group)
{
    struct self_comm *comm = (struct self_comm *)queue;
    enum cm_status status = begin(comm, stream);
    if (status == CM_OK)
        status = self_execute_group(queue, stream, group);
    return end(comm, stream, status);
}

static const struct cm_queue_backend host_backend = {
    .execute = self_execute,
    .execute_group = self_execute_group,
};

static const struct cm_queue_backend device_backend = {
    .execute = device_execute,
    .execute_group = device_execute_group,
    .direct = true,
};

static bool self_available(char *reason, size_t size)
{
    strncpy(reason, "always there, for one rank", size - 1);
    reason[size - 1] = '\0';
    return true;
}

static enum cm_status self_create(struct cm_device *device, struct cm_comm **comm)
{
    bool host = device->ops->is_host;
    struct self_comm *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = host ? CM_OK : device->ops->event_create(device, &made->last);
    if (status == CM_OK)
        status = cm_queue_init(&made->queue, &cm_comm_self, host ? &host_backend : &device_backend,
                               device, 0, 1);
    if (status != CM_OK) {
        if (made->last != NULL)
            device->ops->event_destroy(made->last);
        cm_free(made);
        return status;
    }
    strcpy(made->queue.comm.implementation, "none");
    *comm = &made->queue.comm;
    return CM_OK;
}

static enum cm_status self_open(struct cm_device *device, const struct cm_world *world,
                                const struct cm_meeting *meeting, double timeout_s,
                                struct cm_comm **comm)
{
    (void)meeting;
    (void)timeout_s;
    if (world->size != 1 || world->rank != 0)
        return cm_error(CM_USAGE, "told rank %u of %u ranks, but self serves one; use mpi or nccl",
                        world->rank, world->size);
    return self_create(device, comm);
}

static void self_close(struct cm_comm *comm)
{
    struct self_comm *self = (struct self_comm *)comm;
    if (self == NULL || !cm_queue_release(&self->queue))
        return;
    if (self->last != NULL)
        comm->device->ops->event_destroy(self->last);
    cm_free(self);
}

static enum cm_status self_split(struct cm_comm *comm, int color, int key, struct cm_comm **part)
{
    (void)key;
    if (color != CM_SPLIT_NONE)
        return self_create(comm->device, part);
    *part = NULL;
    return CM_OK;
}

const struct cm_comm_ops cm_comm_self = {
    .name = "self",
    .summary = "one rank, no library",
    .available = self_available,
    .open = self_open,
    .close = self_close,
    .split = self_split,
    CM_QUEUE_HOOKS,
};
