/* self: the communicator of one rank. Data moves as it would with more: what is sent arrives. */
#include <string.h>

#include "clustermark/memory.h"
#include "host/comm/module.h"
#include "host/comm/queue.h"

static enum cm_status self_execute(struct cm_queue *queue, const struct cm_comm_op *op)
{
    (void)queue;
    size_t bytes = op->count * cm_dtype_size(op->dtype);
    if (op->kind != CM_COMM_BROADCAST && op->send != op->recv)
        memcpy(op->recv, op->send, bytes);
    return CM_OK;
}

/* Sends and recvs pair up in their order; group_end saw that they match. */
static enum cm_status self_execute_group(struct cm_queue *queue, const struct cm_comm_group *group)
{
    size_t recv = 0;
    for (size_t i = 0; i < group->count; i++) {
        const struct cm_comm_op *op = &group->ops[i];
        if (op->kind == CM_COMM_RECV)
            continue;
        if (op->kind != CM_COMM_SEND) {
            self_execute(queue, op);
            continue;
        }
        while (group->ops[recv].kind != CM_COMM_RECV)
            recv += 1;
        memmove(group->ops[recv++].recv, op->send, op->count * cm_dtype_size(op->dtype));
    }
    return CM_OK;
}

static const struct cm_queue_backend self_backend = {
    .execute = self_execute,
    .execute_group = self_execute_group,
};

static bool self_available(char *reason, size_t size)
{
    strncpy(reason, "always there, for one rank", size - 1);
    reason[size - 1] = '\0';
    return true;
}

static enum cm_status self_create(struct cm_device *device, struct cm_comm **comm)
{
    struct cm_queue *queue = cm_alloc(1, sizeof *queue);
    if (queue == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = cm_queue_init(queue, &cm_comm_self, &self_backend, device, 0, 1);
    if (status != CM_OK) {
        cm_free(queue);
        return status;
    }
    strcpy(queue->comm.library, "none");
    *comm = &queue->comm;
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
    struct cm_queue *queue = (struct cm_queue *)comm;
    if (queue != NULL && cm_queue_release(queue))
        cm_free(queue);
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
