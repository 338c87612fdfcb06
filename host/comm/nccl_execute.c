/* Operations of NCCL, put on streams by the thread that queues them. */
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "host/comm/nccl_private.h"

#define LOG_OPERATIONS 4096 /* a line each */

/* Absent from older libraries than the header that this was built with; the loaded one's version
 * says so, and the symbol has the last word. */
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 0)
#pragma weak ncclAlltoAll
#define HAS_ALL_TO_ALL (cm_nccl.version >= NCCL_VERSION(2, 28, 0) && ncclAlltoAll != NULL)
#else
#define HAS_ALL_TO_ALL                                      false
#define ncclAlltoAll(send, recv, count, type, comm, stream) ncclInvalidUsage
#endif

enum cm_status cm_nccl_status(ncclResult_t result, const char *call, const char *file, int line)
{
    if (result == ncclSuccess || result == ncclInProgress)
        return CM_OK;
    const char *base = strrchr(file, '/');
    const char *detail = ncclGetLastError(NULL);
    int length = detail != NULL ? (int)strcspn(detail, "\r\n") : 0;
    /* A rank that only notices another one's end must not be taken for the cause. */
    return cm_error(result == ncclRemoteError ? CM_LOST : CM_COMM,
                    "%.120s: %.80s%s%.*s (rank %u, %s, %s:%d)", call, ncclGetErrorString(result),
                    length > 0 ? ": " : "", length < 160 ? length : 160, length > 0 ? detail : "",
                    cm_nccl.rank, cm_nccl.device, base != NULL ? base + 1 : file, line);
}

double cm_nccl_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Most waits are short; long ones must not keep a core busy. */
static void pause_between(double waited_s)
{
    if (waited_s < 1e-3)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = waited_s < 0.1 ? 50000 : 1000000}, NULL);
}

/* Wait until NCCL has finished what it does in the background. `late` is the message for
 * CM_TIMEOUT. */
enum cm_status cm_nccl_settle(ncclComm_t handle, double timeout_s, const char *what,
                              const char *late)
{
    ncclResult_t result = ncclSuccess;
    enum cm_status status = NCCL(ncclCommGetAsyncError(handle, &result));
    for (double begin = 0; status == CM_OK && result == ncclInProgress;) {
        double now = cm_nccl_now_s();
        begin = begin > 0 ? begin : now;
        if (now - begin >= timeout_s)
            return cm_error(CM_TIMEOUT, "%s: %s within %g s (rank %u)", what, late, timeout_s,
                            cm_nccl.rank);
        pause_between(now - begin);
        status = NCCL(ncclCommGetAsyncError(handle, &result));
    }
    return status == CM_OK ? cm_nccl_status(result, what, __FILE__, __LINE__) : status;
}

/* Execution, on the thread that queues. */

static ncclDataType_t number_type(enum cm_dtype dtype)
{
    return dtype == CM_F64    ? ncclFloat64
           : dtype == CM_F32  ? ncclFloat32
           : dtype == CM_BF16 ? ncclBfloat16
           : dtype == CM_F16  ? ncclFloat16
           : dtype == CM_I32  ? ncclInt32
                              : ncclInt8;
}

static ncclRedOp_t number_op(enum cm_reduce reduce)
{
    return reduce == CM_REDUCE_SUM ? ncclSum : reduce == CM_REDUCE_MAX ? ncclMax : ncclMin;
}

/* Where the library has no call of its own. */
static enum cm_status exchange_all(struct cm_nccl_comm *comm, cudaStream_t stream,
                                   const struct cm_comm_op *op, size_t bytes)
{
    unsigned size = comm->queue.comm.size;
    enum cm_status status = NCCL(ncclGroupStart());
    if (status != CM_OK)
        return status;
    for (unsigned peer = 0; peer < size && status == CM_OK; peer++) {
        const char *send = (const char *)op->send + peer * bytes;
        char *recv = (char *)op->recv + peer * bytes;
        status = NCCL(ncclSend(send, bytes, ncclInt8, (int)peer, comm->handle, stream));
        if (status == CM_OK)
            status = NCCL(ncclRecv(recv, bytes, ncclInt8, (int)peer, comm->handle, stream));
    }
    enum cm_status ended = NCCL(ncclGroupEnd());
    return status != CM_OK ? status : ended;
}

/* What is only moved is moved as bytes. */
static enum cm_status put(struct cm_nccl_comm *comm, cudaStream_t stream,
                          const struct cm_comm_op *op)
{
    ncclComm_t handle = comm->handle;
    ncclDataType_t type = number_type(op->dtype);
    ncclRedOp_t reduce = number_op(op->reduce);
    size_t bytes = op->count * cm_dtype_size(op->dtype);
    int peer = (int)op->peer;
    switch (op->kind) {
    case CM_COMM_ALL_REDUCE:
        return NCCL(ncclAllReduce(op->send, op->recv, op->count, type, reduce, handle, stream));
    case CM_COMM_REDUCE_SCATTER:
        return NCCL(ncclReduceScatter(op->send, op->recv, op->count, type, reduce, handle, stream));
    case CM_COMM_ALL_GATHER:
        return NCCL(ncclAllGather(op->send, op->recv, bytes, ncclInt8, handle, stream));
    case CM_COMM_ALL_TO_ALL:
        if (!HAS_ALL_TO_ALL)
            return exchange_all(comm, stream, op, bytes);
        return NCCL(ncclAlltoAll(op->send, op->recv, bytes, ncclInt8, handle, stream));
    case CM_COMM_BROADCAST:
        return NCCL(ncclBroadcast(op->recv, op->recv, bytes, ncclInt8, peer, handle, stream));
    case CM_COMM_SEND:
        return NCCL(ncclSend(op->send, bytes, ncclInt8, peer, handle, stream));
    default:
        return NCCL(ncclRecv(op->recv, bytes, ncclInt8, peer, handle, stream));
    }
}

/* Also lets no more than some hundred KiB of the log come together. What cannot be read of it is an
 * algorithm's name that is not known. */
static enum cm_status queued(struct cm_nccl_comm *comm, const char *what)
{
    if (++cm_nccl.operations % LOG_OPERATIONS == 0)
        (void)cm_nccl_log_read(&cm_nccl.log);
    return cm_nccl_settle(comm->handle, comm->timeout_s, what, "NCCL did not queue it");
}

static cudaStream_t native(struct cm_stream *stream)
{
    return stream->device->ops->native_stream(stream);
}

static enum cm_status nccl_execute(struct cm_queue *queue, struct cm_stream *stream,
                                   const struct cm_comm_op *op)
{
    struct cm_nccl_comm *comm = (struct cm_nccl_comm *)queue;
    enum cm_status status = put(comm, native(stream), op);
    return status == CM_OK ? queued(comm, cm_comm_kind_name(op->kind)) : status;
}

static enum cm_status nccl_execute_group(struct cm_queue *queue, struct cm_stream *stream,
                                         const struct cm_comm_group *group)
{
    struct cm_nccl_comm *comm = (struct cm_nccl_comm *)queue;
    cudaStream_t target = native(stream);
    enum cm_status status = NCCL(ncclGroupStart());
    if (status != CM_OK)
        return status;
    for (size_t i = 0; i < group->count && status == CM_OK; i++)
        status = put(comm, target, &group->ops[i]);
    char text[CM_ERROR_TEXT_MAX];
    snprintf(text, sizeof text, "%s", cm_error_text());
    enum cm_status ended = NCCL(ncclGroupEnd());
    if (status != CM_OK) /* the group's end only repeats it */
        return cm_error(status, "%s", text);
    return ended == CM_OK ? queued(comm, "group") : ended;
}

const struct cm_queue_backend cm_nccl_backend = {
    .execute = nccl_execute,
    .execute_group = nccl_execute_group,
    .direct = true,
};
