/*
 * Operations of MPI. What is queued runs on the stream's thread as the plain blocking calls, so
 * what is measured is MPI's own cost.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "host/comm/half.h"
#include "host/comm/mpi_private.h"

/* MPI counts elements in an int; longer messages go in pieces. The tests build this file with a
 * small number, so that they reach them. */
#ifndef CM_MPI_COUNT_MAX
#define CM_MPI_COUNT_MAX INT_MAX
#endif

enum cm_status cm_mpi_status(int code, const char *call, const char *file, int line)
{
    if (code == MPI_SUCCESS)
        return CM_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (!cm_mpi.running || MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        snprintf(text, sizeof text, "error %d", code);
    const char *base = strrchr(file, '/');
    return cm_error(CM_COMM, "%.160s: %.200s (rank %d, %s:%d)", call, text, cm_mpi.rank,
                    base != NULL ? base + 1 : file, line);
}

/* Element types. */

static MPI_Datatype bytes_type(enum cm_dtype dtype)
{
    size_t size = cm_dtype_size(dtype);
    return size == 8   ? MPI_UINT64_T
           : size == 4 ? MPI_UINT32_T
           : size == 2 ? MPI_UINT16_T
                       : MPI_BYTE;
}

/* bf16 and f16 have operations of their own. */
static MPI_Datatype number_type(enum cm_dtype dtype)
{
    return dtype == CM_F64   ? MPI_DOUBLE
           : dtype == CM_F32 ? MPI_FLOAT
           : dtype == CM_I32 ? MPI_INT32_T
           : dtype == CM_I8  ? MPI_INT8_T
                             : MPI_UINT16_T;
}

static MPI_Op number_op(enum cm_dtype dtype, enum cm_reduce reduce)
{
    if (dtype == CM_BF16 || dtype == CM_F16)
        return cm_mpi.half[dtype == CM_F16][reduce];
    return reduce == CM_REDUCE_SUM ? MPI_SUM : reduce == CM_REDUCE_MAX ? MPI_MAX : MPI_MIN;
}

#define HALF_OP(name, dtype, reduce)                                                               \
    static void name(void *in, void *inout, int *count, MPI_Datatype *type)                        \
    {                                                                                              \
        (void)type;                                                                                \
        cm_half_reduce(dtype, reduce, in, inout, (size_t)*count);                                  \
    }
HALF_OP(bf16_sum, CM_BF16, CM_REDUCE_SUM)
HALF_OP(bf16_max, CM_BF16, CM_REDUCE_MAX)
HALF_OP(bf16_min, CM_BF16, CM_REDUCE_MIN)
HALF_OP(f16_sum, CM_F16, CM_REDUCE_SUM)
HALF_OP(f16_max, CM_F16, CM_REDUCE_MAX)
HALF_OP(f16_min, CM_F16, CM_REDUCE_MIN)

static MPI_User_function *const half_functions[2][CM_REDUCE_MIN + 1] = {
    {bf16_sum, bf16_max, bf16_min},
    {f16_sum, f16_max, f16_min},
};

enum cm_status cm_mpi_create_ops(void)
{
    enum cm_status status = CM_OK;
    for (unsigned type = 0; type < 2; type++)
        for (unsigned reduce = 0; status == CM_OK && reduce <= CM_REDUCE_MIN; reduce++)
            status =
                MPI(MPI_Op_create(half_functions[type][reduce], 1, &cm_mpi.half[type][reduce]));
    return status;
}

/* `count` elements as MPI wants them: one element of a type of its own when an int is too small. */
struct message {
    int count;
    MPI_Datatype type;
    bool derived;
};

/* Whole pieces of CM_MPI_COUNT_MAX elements and a rest. */
static enum cm_status derive_type(uint64_t count, enum cm_dtype dtype, MPI_Datatype *type)
{
    MPI_Datatype base = bytes_type(dtype);
    MPI_Datatype piece = MPI_DATATYPE_NULL, pieces = MPI_DATATYPE_NULL;
    uint64_t whole = count / CM_MPI_COUNT_MAX, rest = count % CM_MPI_COUNT_MAX;
    int lengths[2] = {1, (int)rest};
    MPI_Aint places[2] = {0, (MPI_Aint)((count - rest) * cm_dtype_size(dtype))};
    enum cm_status status = MPI(MPI_Type_contiguous(CM_MPI_COUNT_MAX, base, &piece));
    if (status == CM_OK)
        status = MPI(MPI_Type_contiguous((int)whole, piece, &pieces));
    if (status == CM_OK)
        status =
            MPI(MPI_Type_create_struct(2, lengths, places, (MPI_Datatype[]){pieces, base}, type));
    if (status == CM_OK)
        status = MPI(MPI_Type_commit(type));
    if (pieces != MPI_DATATYPE_NULL)
        MPI_Type_free(&pieces);
    if (piece != MPI_DATATYPE_NULL)
        MPI_Type_free(&piece);
    return status;
}

static enum cm_status message_of(const struct cm_comm_op *op, struct message *message)
{
    *message = (struct message){(int)op->count, bytes_type(op->dtype), false};
    if (op->count <= CM_MPI_COUNT_MAX)
        return CM_OK;
    message->count = 1;
    message->derived = true;
    return derive_type(op->count, op->dtype, &message->type);
}

static void message_release(struct message *message)
{
    if (message->derived)
        MPI_Type_free(&message->type); /* what is under way keeps it */
}

/* Execution, on the streams' threads. */

static int piece(uint64_t left)
{
    return left < CM_MPI_COUNT_MAX ? (int)left : CM_MPI_COUNT_MAX;
}

static enum cm_status all_reduce(const struct cm_mpi_comm *comm, const struct cm_comm_op *op)
{
    MPI_Datatype type = number_type(op->dtype);
    MPI_Op reduce = number_op(op->dtype, op->reduce);
    size_t size = cm_dtype_size(op->dtype);
    enum cm_status status = CM_OK;
    for (uint64_t done = 0; status == CM_OK && done < op->count; done += CM_MPI_COUNT_MAX) {
        int count = piece(op->count - done);
        const void *send =
            op->send == op->recv ? MPI_IN_PLACE : (const char *)op->send + done * size;
        status = MPI(
            MPI_Allreduce(send, (char *)op->recv + done * size, count, type, reduce, comm->data));
    }
    return status;
}

/* Long parts are not next to each other once they are cut, so each goes to its rank by itself. */
static enum cm_status reduce_scatter(const struct cm_mpi_comm *comm, const struct cm_comm_op *op)
{
    MPI_Datatype type = number_type(op->dtype);
    MPI_Op reduce = number_op(op->dtype, op->reduce);
    size_t size = cm_dtype_size(op->dtype);
    if (op->count <= CM_MPI_COUNT_MAX)
        return MPI(
            MPI_Reduce_scatter_block(op->send, op->recv, (int)op->count, type, reduce, comm->data));
    enum cm_status status = CM_OK;
    for (unsigned root = 0; root < comm->queue.comm.size; root++) {
        const char *send = (const char *)op->send + root * op->count * size;
        for (uint64_t done = 0; status == CM_OK && done < op->count; done += CM_MPI_COUNT_MAX) {
            int count = piece(op->count - done);
            status = MPI(MPI_Reduce(send + done * size, (char *)op->recv + done * size, count, type,
                                    reduce, (int)root, comm->data));
        }
    }
    return status;
}

static enum cm_status all_gather(const struct cm_mpi_comm *comm, const struct cm_comm_op *op,
                                 const struct message *message)
{
    size_t bytes = op->count * cm_dtype_size(op->dtype);
    bool in_place = op->send == (const char *)op->recv + comm->queue.comm.rank * bytes;
    return MPI(MPI_Allgather(in_place ? MPI_IN_PLACE : op->send, message->count, message->type,
                             op->recv, message->count, message->type, comm->data));
}

static enum cm_status move(const struct cm_mpi_comm *comm, const struct cm_comm_op *op,
                           const struct message *message)
{
    int count = message->count, peer = (int)op->peer;
    MPI_Datatype type = message->type;
    switch (op->kind) {
    case CM_COMM_ALL_GATHER:
        return all_gather(comm, op, message);
    case CM_COMM_ALL_TO_ALL:
        return MPI(MPI_Alltoall(op->send, count, type, op->recv, count, type, comm->data));
    case CM_COMM_BROADCAST:
        return MPI(MPI_Bcast(op->recv, count, type, peer, comm->data));
    case CM_COMM_SEND:
        return MPI(MPI_Send(op->send, count, type, peer, 0, comm->data));
    default:
        return MPI(MPI_Recv(op->recv, count, type, peer, 0, comm->data, MPI_STATUS_IGNORE));
    }
}

static enum cm_status mpi_execute(struct cm_queue *queue, struct cm_stream *stream,
                                  const struct cm_comm_op *op)
{
    (void)stream;
    const struct cm_mpi_comm *comm = (const struct cm_mpi_comm *)queue;
    if (op->kind == CM_COMM_ALL_REDUCE)
        return all_reduce(comm, op);
    if (op->kind == CM_COMM_REDUCE_SCATTER)
        return reduce_scatter(comm, op);
    struct message message;
    enum cm_status status = message_of(op, &message);
    if (status != CM_OK)
        return status;
    status = move(comm, op, &message);
    message_release(&message);
    return status;
}

static enum cm_status start_pair(const struct cm_mpi_comm *comm, const struct cm_comm_op *op,
                                 MPI_Request *request)
{
    struct message message;
    enum cm_status status = message_of(op, &message);
    if (status != CM_OK)
        return status;
    int count = message.count, peer = (int)op->peer;
    if (op->kind == CM_COMM_SEND)
        status = MPI(MPI_Isend(op->send, count, message.type, peer, 0, comm->data, request));
    else
        status = MPI(MPI_Irecv(op->recv, count, message.type, peer, 0, comm->data, request));
    message_release(&message);
    return status;
}

/* All sends and recvs are started, then the collectives run, which lets the former progress. */
static enum cm_status mpi_execute_group(struct cm_queue *queue, struct cm_stream *stream,
                                        const struct cm_comm_group *group)
{
    const struct cm_mpi_comm *comm = (const struct cm_mpi_comm *)queue;
    MPI_Request *requests = group->scratch;
    enum cm_status status = CM_OK;
    int started = 0;
    for (size_t i = 0; status == CM_OK && i < group->count; i++) {
        const struct cm_comm_op *op = &group->ops[i];
        if (op->kind == CM_COMM_SEND || op->kind == CM_COMM_RECV)
            status = start_pair(comm, op, &requests[started++]);
    }
    for (size_t i = 0; status == CM_OK && i < group->count; i++) {
        const struct cm_comm_op *op = &group->ops[i];
        if (op->kind != CM_COMM_SEND && op->kind != CM_COMM_RECV)
            status = mpi_execute(queue, stream, op);
    }
    /* Not MPI_Waitall: Open MPI 4 may hang in it when a message has failed already. */
    for (int i = 0; status == CM_OK && i < started; i++)
        status = MPI(MPI_Wait(&requests[i], MPI_STATUS_IGNORE));
    return status;
}

const struct cm_queue_backend cm_mpi_backend = {
    .execute = mpi_execute,
    .execute_group = mpi_execute_group,
    .scratch_size = sizeof(MPI_Request),
};
