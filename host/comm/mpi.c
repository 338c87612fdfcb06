/*
 * mpi: communication among CPU ranks. Queued operations run on the stream's thread as the plain
 * blocking MPI calls, so what is measured is MPI's own cost.
 *
 * This file is a module (clustermark-mpi.so) that the program opens when ranks are asked for.
 */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/deadline.h"
#include "clustermark/memory.h"
#include "clustermark/module.h"
#include "host/comm/half.h"
#include "host/comm/module.h"
#include "host/comm/queue.h"

/* MPI counts elements in an int; longer messages go in pieces. The tests build this file with a
 * small number, so that they reach them. */
#ifndef CM_MPI_COUNT_MAX
#define CM_MPI_COUNT_MAX INT_MAX
#endif

struct mpi_comm {
    struct cm_queue queue;
    MPI_Comm data;    /* for the streams' threads */
    MPI_Comm control; /* for split, beside what is queued */
};

/* The process's one MPI, used by the thread that opens and closes. */
static struct {
    bool started_here;
    bool running; /* begun and not ended: not every call is allowed before */
    bool ready;   /* the operations below exist */
    unsigned open_comms;
    int rank; /* in the world, for messages */
    MPI_Op half[2][CM_REDUCE_MIN + 1];
} mpi;

/* The one way to call MPI: yields a status and records what failed, and where. */
#define MPI(call) mpi_status((call), #call, __FILE__, __LINE__)

static enum cm_status mpi_status(int code, const char *call, const char *file, int line)
{
    if (code == MPI_SUCCESS)
        return CM_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (!mpi.running || MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        snprintf(text, sizeof text, "error %d", code);
    const char *base = strrchr(file, '/');
    return cm_error(CM_COMM, "%.160s: %.200s (rank %d, %s:%d)", call, text, mpi.rank,
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
        return mpi.half[dtype == CM_F16][reduce];
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

static enum cm_status create_half_ops(void)
{
    enum cm_status status = CM_OK;
    for (unsigned type = 0; type < 2; type++)
        for (unsigned reduce = 0; status == CM_OK && reduce <= CM_REDUCE_MIN; reduce++)
            status = MPI(MPI_Op_create(half_functions[type][reduce], 1, &mpi.half[type][reduce]));
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

static enum cm_status all_reduce(const struct mpi_comm *comm, const struct cm_comm_op *op)
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
static enum cm_status reduce_scatter(const struct mpi_comm *comm, const struct cm_comm_op *op)
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

static enum cm_status all_gather(const struct mpi_comm *comm, const struct cm_comm_op *op,
                                 const struct message *message)
{
    size_t bytes = op->count * cm_dtype_size(op->dtype);
    bool in_place = op->send == (const char *)op->recv + comm->queue.comm.rank * bytes;
    return MPI(MPI_Allgather(in_place ? MPI_IN_PLACE : op->send, message->count, message->type,
                             op->recv, message->count, message->type, comm->data));
}

static enum cm_status move(const struct mpi_comm *comm, const struct cm_comm_op *op,
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
    const struct mpi_comm *comm = (const struct mpi_comm *)queue;
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

static enum cm_status start_pair(const struct mpi_comm *comm, const struct cm_comm_op *op,
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
    const struct mpi_comm *comm = (const struct mpi_comm *)queue;
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

static const struct cm_queue_backend mpi_backend = {
    .execute = mpi_execute,
    .execute_group = mpi_execute_group,
    .scratch_size = sizeof(MPI_Request),
};

/* Communicators. */

static const struct cm_comm_ops mpi_ops;

static void library_name(char *name, size_t size)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(text, &length);
    cm_mpi_library_name(text, name, size);
}

static bool mpi_available(char *reason, size_t size)
{
    library_name(reason, size);
    return true;
}

static enum cm_status start_mpi(void)
{
    int initialized = 0, finalized = 0, level = MPI_THREAD_SINGLE;
    enum cm_status status = MPI(MPI_Finalized(&finalized));
    if (status == CM_OK && finalized)
        return cm_error(CM_USAGE, "MPI has ended in this process and cannot start again; open one "
                                  "communicator more before the last one is closed");
    if (status == CM_OK)
        status = MPI(MPI_Initialized(&initialized));
    if (status != CM_OK)
        return status;
    if (initialized) {
        status = MPI(MPI_Query_thread(&level));
    } else {
        status = MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level));
        mpi.started_here = status == CM_OK;
    }
    if (status != CM_OK)
        return status;
    mpi.running = true;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (level < MPI_THREAD_MULTIPLE)
        return cm_error(CM_UNSUPPORTED, "this MPI does not allow calls from several threads "
                                        "(MPI_THREAD_MULTIPLE); use one that is built for it");
    return MPI(MPI_Comm_rank(MPI_COMM_WORLD, &mpi.rank));
}

/* N single-rank worlds must not pass as one of N ranks. */
static enum cm_status check_world(const struct cm_world *world)
{
    int size = 0;
    enum cm_status status = MPI(MPI_Comm_size(MPI_COMM_WORLD, &size));
    if (status != CM_OK)
        return status;
    if ((unsigned)size != world->size)
        return cm_error(
            CM_USAGE,
            "told %u ranks, but MPI sees %d: mpirun and the library belong to different "
            "MPI installations, or the program was not started by mpirun",
            world->size, size);
    if ((unsigned)mpi.rank != world->rank)
        return cm_error(CM_USAGE, "told rank %u of %u, but MPI sees rank %d", world->rank,
                        world->size, mpi.rank);
    return CM_OK;
}

/* Takes over `data`. */
static enum cm_status fill_comm(struct mpi_comm *comm, struct cm_device *device, MPI_Comm data)
{
    int rank = 0, size = 0;
    comm->data = data;
    enum cm_status status = MPI(MPI_Comm_dup(data, &comm->control));
    if (status == CM_OK)
        status = MPI(MPI_Comm_rank(data, &rank));
    if (status == CM_OK)
        status = MPI(MPI_Comm_size(data, &size));
    if (status == CM_OK)
        status = cm_queue_init(&comm->queue, &mpi_ops, &mpi_backend, device, (unsigned)rank,
                               (unsigned)size);
    if (status != CM_OK)
        return status;
    library_name(comm->queue.comm.library, sizeof comm->queue.comm.library);
    mpi.open_comms += 1;
    return CM_OK;
}

/* Frees a communicator that fill_comm did not finish. */
static void drop_comm(struct mpi_comm *comm)
{
    if (comm == NULL)
        return;
    if (comm->control != MPI_COMM_NULL)
        MPI_Comm_free(&comm->control);
    if (comm->data != MPI_COMM_NULL)
        MPI_Comm_free(&comm->data);
    cm_free(comm);
}

static struct mpi_comm *allocate_comm(void)
{
    struct mpi_comm *comm = cm_alloc(1, sizeof *comm);
    if (comm != NULL) {
        comm->data = MPI_COMM_NULL;
        comm->control = MPI_COMM_NULL;
    }
    return comm;
}

static enum cm_status join_world(struct cm_device *device, const struct cm_world *world,
                                 struct cm_comm **comm)
{
    if (!mpi.running)
        mpi.rank = (int)world->rank; /* what fails before MPI knows it has its rank all the same */
    enum cm_status status = start_mpi();
    if (status == CM_OK)
        status = check_world(world);
    if (status == CM_OK && !mpi.ready) {
        status = create_half_ops();
        mpi.ready = status == CM_OK;
    }
    if (status != CM_OK)
        return status;
    struct mpi_comm *made = allocate_comm();
    if (made == NULL)
        return CM_NO_MEMORY;
    MPI_Comm data = MPI_COMM_NULL;
    status = MPI(MPI_Comm_dup(MPI_COMM_WORLD, &data));
    if (status == CM_OK)
        status = fill_comm(made, device, data);
    if (status != CM_OK) {
        drop_comm(made);
        return status;
    }
    *comm = &made->queue.comm;
    return CM_OK;
}

/* MPI stays initialised when this fails: to finalize it would wait for ranks that fare better. */
static enum cm_status mpi_open(struct cm_device *device, const struct cm_world *world,
                               const struct cm_meeting *meeting, double timeout_s,
                               struct cm_comm **comm)
{
    (void)meeting; /* the launcher brings MPI's ranks together */
    char late[160];
    struct cm_deadline *deadline;
    snprintf(late, sizeof late,
             "MPI did not bring the %u ranks together within %g s (rank %u); is one missing?",
             world->size, timeout_s, world->rank);
    enum cm_status status = cm_deadline_begin(timeout_s, late, &deadline);
    if (status != CM_OK)
        return status;
    status = join_world(device, world, comm);
    cm_deadline_end(deadline);
    return status;
}

/* The last communicator that closes ends MPI, if this file began it; that waits for all ranks. */
static void mpi_close(struct cm_comm *base)
{
    struct mpi_comm *comm = (struct mpi_comm *)base;
    if (comm == NULL)
        return;
    bool aborted = comm->queue.aborted;
    if (!cm_queue_release(&comm->queue))
        return;
    if (aborted) { /* other ranks may be gone, and these calls wait for them */
        cm_free(comm);
        return;
    }
    drop_comm(comm);
    mpi.open_comms -= 1;
    if (mpi.open_comms > 0 || !mpi.started_here)
        return;
    for (unsigned type = 0; type < 2; type++)
        for (unsigned reduce = 0; reduce <= CM_REDUCE_MIN; reduce++)
            MPI_Op_free(&mpi.half[type][reduce]);
    mpi.ready = mpi.running = false;
    MPI_Finalize();
}

/* All ranks take every step, whatever befell one of them, and agree on the outcome. */
static enum cm_status mpi_split(struct cm_comm *base, int color, int key, struct cm_comm **part)
{
    struct mpi_comm *comm = (struct mpi_comm *)base;
    enum cm_status status = cm_queue_async_error(base);
    if (status != CM_OK)
        return status;
    struct mpi_comm *made = allocate_comm();
    MPI_Comm data = MPI_COMM_NULL;
    status = MPI(MPI_Comm_split(comm->control, color < 0 ? MPI_UNDEFINED : color, key, &data));
    if (status == CM_OK) {
        int fine = made != NULL, all_fine = 0;
        status = MPI(MPI_Allreduce(&fine, &all_fine, 1, MPI_INT, MPI_MIN, comm->control));
        if (status == CM_OK && !all_fine)
            status =
                fine ? cm_error(CM_COMM, "split: another rank is out of memory") : CM_NO_MEMORY;
    }
    if (status != CM_OK || data == MPI_COMM_NULL) {
        if (data != MPI_COMM_NULL)
            MPI_Comm_free(&data);
        cm_free(made);
        if (status == CM_OK)
            *part = NULL;
        return status;
    }
    status = fill_comm(made, base->device, data);
    if (status != CM_OK) {
        drop_comm(made);
        return status;
    }
    *part = &made->queue.comm;
    return CM_OK;
}

static const struct cm_comm_ops mpi_ops = {
    .name = "mpi",
    .summary = "CPU ranks over MPI",
    .available = mpi_available,
    .open = mpi_open,
    .close = mpi_close,
    .split = mpi_split,
    CM_QUEUE_HOOKS,
};

__attribute__((visibility("default"))) const struct cm_module cm_module_mpi = {
    .version = CM_VERSION,
    .comm = &mpi_ops,
};
