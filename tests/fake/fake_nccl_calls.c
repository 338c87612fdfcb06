/* NCCL: operations, groups, memory, and what it writes about itself. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake/fake_nccl.h"

/* The operations of the group that is open, one batch per communicator. */
static struct {
    unsigned depth;
    ncclResult_t failed;
    struct fake_batch *batches;
} group;

static enum fake_outcome run_batch(struct fake_work *work, double start_s, double *end_s)
{
    struct fake_batch *batch = (struct fake_batch *)work;
    struct ncclComm *comm = batch->comm;
    *end_s = start_s;
    if (comm->aborted)
        return FAKE_DONE;
    if (comm->state != ncclSuccess && comm->state != ncclInProgress)
        return FAKE_LATER; /* until it is aborted */
    if (comm->done + 1 != batch->number ||
        !fake_batch_progress(batch, start_s > comm->time_s ? start_s : comm->time_s)) {
        fake_comm_look(comm);
        return FAKE_LATER;
    }
    comm->done = batch->number;
    *end_s = comm->time_s = batch->end_s;
    return FAKE_DONE;
}

static void drop_batch(struct fake_work *work)
{
    struct fake_batch *batch = (struct fake_batch *)work;
    struct fake_batch **link = &batch->comm->batches;
    while (*link != batch)
        link = &(*link)->next;
    *link = batch->next;
    for (size_t i = 0; i < batch->count; i++)
        free(batch->ops[i].result);
    free(batch->ops);
    fake_comm_release(batch->comm);
    free(batch);
}

/* ---- what NCCL_DEBUG_FILE gets ---- */

static void tell(const struct ncclComm *comm, const struct fake_op *op)
{
    static const char *const names[] = {"AllReduce", "ReduceScatter", "AllGather", "AlltoAll",
                                        "Broadcast"};
    const char *path = getenv("NCCL_DEBUG_FILE");
    if (path == NULL || op->kind >= FAKE_SEND)
        return;
    int file = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (file < 0)
        return;
    size_t bytes = op->count * fake_type_size(op->type);
    if (op->kind == FAKE_REDUCE_SCATTER || op->kind == FAKE_ALL_GATHER)
        bytes *= (size_t)comm->size;
    dprintf(
        file,
        "fake:%d:%d [%u] NCCL INFO %s: %zu Bytes -> Algo RING proto %s channel{Lo..Hi}={0..%d}\n",
        getpid(), getpid(), fake_device(), names[op->kind], bytes, bytes < 65536 ? "LL" : "SIMPLE",
        bytes < 65536 ? 0 : 15);
    close(file);
}

/* ---- groups ---- */

static struct fake_batch *batch_of(struct ncclComm *comm, struct CUstream_st *stream)
{
    struct fake_batch **link = &group.batches;
    while (*link != NULL && (*link)->comm != comm)
        link = &(*link)->next;
    if (*link == NULL) {
        *link = calloc(1, sizeof **link);
        if (*link == NULL)
            fake_die("NCCL: no memory for a group");
        **link = (struct fake_batch){
            .work = {.run = run_batch, .drop = drop_batch}, .comm = comm, .stream = stream};
    }
    if ((*link)->stream != stream)
        fake_die("NCCL: a group on several streams is not faked");
    return *link;
}

static void add(struct fake_batch *batch, const struct fake_op *op)
{
    if (batch->count == batch->capacity) {
        batch->capacity = 2 * batch->capacity + 4;
        batch->ops = realloc(batch->ops, batch->capacity * sizeof *batch->ops);
        if (batch->ops == NULL)
            fake_die("NCCL: no memory for a group");
    }
    batch->ops[batch->count++] = *op;
    tell(batch->comm, op);
}

static void forget_group(void)
{
    while (group.batches != NULL) {
        struct fake_batch *batch = group.batches;
        group.batches = batch->next;
        free(batch->ops);
        free(batch);
    }
}

/* Into the streams; one in four goes there later, when the communicator is asked. */
static ncclResult_t submit(void)
{
    ncclResult_t result = ncclSuccess;
    while (group.batches != NULL) {
        struct fake_batch *batch = group.batches;
        struct ncclComm *comm = batch->comm;
        group.batches = batch->next;
        batch->next = comm->queuing;
        comm->queuing = batch;
        comm->doing = FAKE_QUEUING;
        ncclResult_t begun;
        if (fake_random() % 4 == 0 && !comm->blocking) {
            begun = fake_comm_begin(comm);
        } else {
            comm->state = ncclInProgress;
            comm->polls = 0;
            fake_comm_poll(comm);
            begun = comm->state;
        }
        result = begun != ncclSuccess ? begun : result;
    }
    return result;
}

ncclResult_t ncclGroupStart(void)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    if (result == ncclSuccess)
        group.depth++;
    return fake_nccl_leave(result);
}

ncclResult_t ncclGroupEnd(void)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    if (group.depth == 0)
        fake_die("%s without a begin", __func__);
    group.depth--;
    if (group.depth == 0) {
        if (result == ncclSuccess)
            result = group.failed;
        group.failed = ncclSuccess;
        if (result == ncclSuccess)
            result = submit();
        else
            forget_group();
    }
    return fake_nccl_leave(result);
}

/* ---- operations ---- */

static void check_buffer(const void *at, size_t count, ncclDataType_t type, const char *call)
{
    if (count > 0 && fake_place_of(at, count * fake_type_size(type), call) != FAKE_DEVICE)
        fake_die("%s: %p is not this GPU's memory", call, at);
}

static size_t parts(const struct ncclComm *comm, const struct fake_op *op, bool send)
{
    bool whole =
        op->kind == FAKE_ALL_TO_ALL || op->kind == (send ? FAKE_REDUCE_SCATTER : FAKE_ALL_GATHER);
    return whole ? (size_t)comm->size : 1;
}

static ncclResult_t operate(struct fake_op op, ncclComm_t comm, cudaStream_t stream,
                            const char *call)
{
    ncclResult_t result = fake_nccl_enter(call);
    fake_check_comm(comm, call);
    fake_check_stream(stream, call);
    if (op.peer < 0 || op.peer >= comm->size || op.reduce < ncclSum || op.reduce > ncclMin)
        fake_die("%s: rank %d of %d, reduction %d", call, op.peer, comm->size, (int)op.reduce);
    if (op.send != NULL)
        check_buffer(op.send, op.count * parts(comm, &op, true), op.type, call);
    if (op.recv != NULL)
        check_buffer(op.recv, op.count * parts(comm, &op, false), op.type, call);
    if ((op.kind == FAKE_SEND || op.kind == FAKE_RECV) && op.peer == comm->rank && group.depth == 0)
        fake_die("%s: to itself, not in a group", call);
    if (comm->state != ncclSuccess && result == ncclSuccess)
        result = comm->state;
    if (result == ncclSuccess)
        add(batch_of(comm, stream), &op);
    else if (group.depth > 0)
        group.failed = result;
    if (result == ncclSuccess && group.depth == 0)
        result = submit();
    return fake_nccl_leave(result);
}

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclRedOp_t reduce, ncclComm_t comm, cudaStream_t stream)
{
    return operate((struct fake_op){.kind = FAKE_ALL_REDUCE,
                                    .type = type,
                                    .reduce = reduce,
                                    .count = count,
                                    .send = send,
                                    .recv = recv},
                   comm, stream, __func__);
}

ncclResult_t ncclReduceScatter(const void *send, void *recv, size_t count, ncclDataType_t type,
                               ncclRedOp_t reduce, ncclComm_t comm, cudaStream_t stream)
{
    return operate((struct fake_op){.kind = FAKE_REDUCE_SCATTER,
                                    .type = type,
                                    .reduce = reduce,
                                    .count = count,
                                    .send = send,
                                    .recv = recv},
                   comm, stream, __func__);
}

ncclResult_t ncclAllGather(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    return operate(
        (struct fake_op){
            .kind = FAKE_ALL_GATHER, .type = type, .count = count, .send = send, .recv = recv},
        comm, stream, __func__);
}

ncclResult_t ncclAlltoAll(const void *send, void *recv, size_t count, ncclDataType_t type,
                          ncclComm_t comm, cudaStream_t stream)
{
    if (fake_setting("FAKE_NCCL_VERSION", NCCL_VERSION_CODE) < NCCL_VERSION(2, 28, 0))
        fake_die("%s: NCCL has it from 2.28 on", __func__);
    return operate(
        (struct fake_op){
            .kind = FAKE_ALL_TO_ALL, .type = type, .count = count, .send = send, .recv = recv},
        comm, stream, __func__);
}

ncclResult_t ncclBroadcast(const void *send, void *recv, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream)
{
    return operate((struct fake_op){.kind = FAKE_BROADCAST,
                                    .type = type,
                                    .peer = root,
                                    .count = count,
                                    .send = send,
                                    .recv = recv},
                   comm, stream, __func__);
}

ncclResult_t ncclSend(const void *send, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return operate(
        (struct fake_op){
            .kind = FAKE_SEND, .type = type, .peer = peer, .count = count, .send = send},
        comm, stream, __func__);
}

ncclResult_t ncclRecv(void *recv, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return operate(
        (struct fake_op){
            .kind = FAKE_RECV, .type = type, .peer = peer, .count = count, .recv = recv},
        comm, stream, __func__);
}

/* ---- memory ---- */

struct registration {
    struct ncclComm *comm;
    void *memory;
    struct registration *next;
};
static struct registration *registrations;

void fake_forget_registrations(struct ncclComm *comm)
{
    for (struct registration **link = &registrations; *link != NULL;) {
        struct registration *found = *link;
        if (found->comm != comm) {
            link = &found->next;
            continue;
        }
        *link = found->next;
        free(found);
        fake_count(FAKE_REGISTRATIONS, -1);
    }
}

ncclResult_t ncclMemAlloc(void **memory, size_t size)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    void *block = result == ncclSuccess && size > 0 ? fake_device_alloc(size) : NULL;
    if (result == ncclSuccess && block == NULL)
        result = fake_nccl_fail(NULL, ncclUnhandledCudaError, "Cuda failure 2 'out of memory'");
    if (result == ncclSuccess)
        *memory = block;
    return fake_nccl_leave(result);
}

ncclResult_t ncclMemFree(void *memory)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    for (const struct registration *each = registrations; each != NULL; each = each->next) {
        if (each->memory == memory)
            fake_die("%s: %p is still registered", __func__, memory);
    }
    fake_finish(NULL, __func__);
    fake_device_free(memory, __func__);
    return fake_nccl_leave(result);
}

ncclResult_t ncclCommRegister(const ncclComm_t comm, void *memory, size_t size, void **handle)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    fake_check_comm(comm, __func__);
    check_buffer(memory, size, ncclInt8, __func__);
    struct registration *made = result == ncclSuccess ? calloc(1, sizeof *made) : NULL;
    if (result == ncclSuccess && made == NULL)
        result = ncclSystemError;
    if (result == ncclSuccess) {
        *made = (struct registration){.comm = comm, .memory = memory, .next = registrations};
        registrations = made;
        comm->registrations++;
        fake_count(FAKE_REGISTRATIONS, 1);
        *handle = made;
    }
    return fake_nccl_leave(result);
}

ncclResult_t ncclCommDeregister(const ncclComm_t comm, void *handle)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    fake_check_comm(comm, __func__);
    struct registration **link = &registrations;
    while (*link != NULL && *link != handle)
        link = &(*link)->next;
    if (*link == NULL || (*link)->comm != comm)
        fake_die("%s: %p is not registered here", __func__, handle);
    struct registration *found = *link;
    *link = found->next;
    free(found);
    comm->registrations--;
    fake_count(FAKE_REGISTRATIONS, -1);
    return fake_nccl_leave(result);
}
