/* Arguments of communication, checked when they are queued: a mistake found later would be a rank
 * that never comes. */
#include <inttypes.h>

#include "host/comm/queue.h"

static const char *const kind_names[] = {"all_reduce", "reduce_scatter", "all_gather", "all_to_all",
                                         "broadcast",  "send",           "recv"};

const char *cm_comm_kind_name(enum cm_comm_kind kind)
{
    return kind_names[kind];
}

static bool reduces(enum cm_comm_kind kind)
{
    return kind == CM_COMM_ALL_REDUCE || kind == CM_COMM_REDUCE_SCATTER;
}

static bool has_reduction(enum cm_dtype dtype)
{
    return dtype == CM_F32 || dtype == CM_F64 || dtype == CM_BF16 || dtype == CM_F16 ||
           dtype == CM_I32 || dtype == CM_I8;
}

static enum cm_status check_values(const struct cm_comm *comm, const struct cm_comm_op *op,
                                   bool grouped)
{
    const char *name = kind_names[op->kind];
    if ((unsigned)op->dtype >= CM_ELEMENT_COUNT)
        return cm_error(CM_USAGE, "%s: there is no element type %d", name, (int)op->dtype);
    if (reduces(op->kind) && !has_reduction(op->dtype))
        return cm_error(CM_USAGE, "%s: %s has no reduction; give f32, f64, bf16, f16, i32 or i8",
                        name, cm_dtype_name(op->dtype));
    if (reduces(op->kind) && (unsigned)op->reduce > CM_REDUCE_MIN)
        return cm_error(CM_USAGE, "%s: there is no reduction %d", name, (int)op->reduce);
    if (op->peer >= comm->size)
        return cm_error(CM_USAGE, "%s: rank %u is outside the communicator's %u ranks", name,
                        op->peer, comm->size);
    bool pair = op->kind == CM_COMM_SEND || op->kind == CM_COMM_RECV;
    if (pair && !grouped && op->peer == comm->rank)
        return cm_error(CM_USAGE,
                        "%s: rank %u alone cannot exchange with itself; put its send and its recv "
                        "in one group",
                        name, comm->rank);
    uint64_t largest = PTRDIFF_MAX / cm_dtype_size(op->dtype) / comm->size;
    if (op->count > largest)
        return cm_error(CM_USAGE, "%s: %" PRIu64 " elements do not fit into memory", name,
                        op->count);
    return CM_OK;
}

static bool overlap(uintptr_t a, size_t a_bytes, uintptr_t b, size_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

/* send and recv must be apart, but for the in-place forms that the contract names. */
static enum cm_status check_buffers(const struct cm_comm *comm, const struct cm_comm_op *op)
{
    const char *name = kind_names[op->kind];
    size_t bytes = op->count * cm_dtype_size(op->dtype);
    size_t send_bytes = bytes, recv_bytes = bytes;
    uintptr_t send = (uintptr_t)op->send, recv = (uintptr_t)op->recv;
    bool in_place = false;
    if (op->kind == CM_COMM_SEND || op->kind == CM_COMM_RECV || op->kind == CM_COMM_BROADCAST) {
        if (send == 0 && recv == 0)
            return cm_error(CM_USAGE, "%s: the buffer is NULL", name);
        return CM_OK;
    }
    if (send == 0 || recv == 0)
        return cm_error(CM_USAGE, "%s: a buffer is NULL", name);
    if (op->kind == CM_COMM_ALL_REDUCE)
        in_place = send == recv;
    if (op->kind == CM_COMM_ALL_GATHER)
        in_place = send == recv + comm->rank * bytes;
    if (op->kind == CM_COMM_REDUCE_SCATTER || op->kind == CM_COMM_ALL_TO_ALL)
        send_bytes *= comm->size;
    if (op->kind == CM_COMM_ALL_GATHER || op->kind == CM_COMM_ALL_TO_ALL)
        recv_bytes *= comm->size;
    if (!in_place && overlap(send, send_bytes, recv, recv_bytes))
        return cm_error(CM_USAGE, "%s: send and recv overlap; give buffers of their own", name);
    return CM_OK;
}

enum cm_status cm_comm_check(const struct cm_comm *comm, const struct cm_stream *stream,
                             const struct cm_comm_op *op, bool grouped)
{
    if (stream == NULL || stream->device != comm->device)
        return cm_error(CM_USAGE, "%s: the stream is not one of the communicator's device",
                        kind_names[op->kind]);
    enum cm_status status = check_values(comm, op, grouped);
    if (status != CM_OK || op->count == 0)
        return status;
    return check_buffers(comm, op);
}

/* The index of the next operation of that kind with the own rank, or the group's count. */
static size_t next_own(const struct cm_comm *comm, const struct cm_comm_group *group, size_t index,
                       enum cm_comm_kind kind)
{
    while (index < group->count &&
           (group->ops[index].kind != kind || group->ops[index].peer != comm->rank))
        index += 1;
    return index;
}

enum cm_status cm_comm_check_group(const struct cm_comm *comm, const struct cm_comm_group *group)
{
    size_t send = 0, recv = 0;
    for (;; send++, recv++) {
        send = next_own(comm, group, send, CM_COMM_SEND);
        recv = next_own(comm, group, recv, CM_COMM_RECV);
        if (send == group->count && recv == group->count)
            return CM_OK;
        if (send == group->count || recv == group->count)
            return cm_error(CM_USAGE,
                            "group_end: a %s of rank %u with itself has no %s in the group",
                            send == group->count ? "recv" : "send", comm->rank,
                            send == group->count ? "send" : "recv");
        const struct cm_comm_op *from = &group->ops[send], *to = &group->ops[recv];
        if (from->count * cm_dtype_size(from->dtype) != to->count * cm_dtype_size(to->dtype))
            return cm_error(CM_USAGE,
                            "group_end: rank %u sends itself another size than it receives",
                            comm->rank);
    }
}
