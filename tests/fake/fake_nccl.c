/*
 * NCCL: communicators.
 *
 * One that does not block is really finished by being asked for its state, a few times: until then
 * a split has given no part and an operation is in no stream.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake/fake_nccl.h"

#define COMM_MARK 0xc0331001u
#define ID_MARK   UINT64_C(0x1d0ffa4e)
#define LOOK_S    0.01 /* between looks at who is alive */

struct id {                 /* in the unique id */
    uint64_t mark, meeting; /* by a name when `meeting` is not 0 */
    int pid, file;
};

static _Thread_local char last_error[160];

ncclResult_t fake_nccl_enter(const char *call)
{
    return (ncclResult_t)fake_enter(call, ncclSystemError);
}

ncclResult_t fake_nccl_leave(ncclResult_t result)
{
    fake_leave();
    return result;
}

ncclResult_t fake_nccl_fail(struct ncclComm *comm, ncclResult_t result, const char *text)
{
    snprintf(last_error, sizeof last_error, "%s", text);
    if (comm != NULL)
        comm->state = result;
    return result;
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return last_error;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return result >= ncclSuccess && result <= ncclInProgress ? texts[result] : "unknown result";
}

ncclResult_t ncclGetVersion(int *version)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    if (result == ncclSuccess)
        *version = (int)fake_setting("FAKE_NCCL_VERSION", NCCL_VERSION_CODE);
    return fake_nccl_leave(result);
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *opaque)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    const char *name = getenv("NCCL_COMM_ID");
    struct id id = {.mark = ID_MARK, .pid = getpid()};
    for (const char *c = name; c != NULL && *c != '\0'; c++)
        id.meeting = (id.meeting ^ (unsigned char)*c) * UINT64_C(0x100000001b3) + 7;
    if (result == ncclSuccess) {
        if (id.meeting == 0)
            fake_shared_drop(fake_shared_make(&id.file));
        memset(opaque, 0, sizeof *opaque);
        memcpy(opaque, &id, sizeof id);
    }
    return fake_nccl_leave(result);
}

void fake_check_comm(const struct ncclComm *comm, const char *call)
{
    if (comm == NULL || comm->mark != COMM_MARK || comm->released)
        fake_die("%s: %p is no communicator", call, (const void *)comm);
    if (comm->state == ncclInProgress && strcmp(call, "ncclCommGetAsyncError") != 0 &&
        strcmp(call, "ncclCommAbort") != 0)
        fake_die("%s: the communicator is still in progress", call);
}

static struct ncclComm *new_comm(int rank, int size, const ncclConfig_t *config)
{
    struct ncclComm *comm = calloc(1, sizeof *comm);
    if (comm == NULL)
        fake_die("no memory for a communicator");
    *comm = (struct ncclComm){.mark = COMM_MARK,
                              .rank = rank,
                              .size = size,
                              .blocking = config == NULL || config->blocking != 0,
                              .given_file = -1};
    fake_count(FAKE_COMMS, 1);
    return comm;
}

/* When it is released and no stream holds work of it. */
void fake_comm_release(struct ncclComm *comm)
{
    if (!comm->released || comm->batches != NULL)
        return;
    if (comm->given_file >= 0)
        close(comm->given_file);
    fake_shared_drop(comm->shared);
    comm->mark = 0;
    free(comm);
}

static void let_go(struct ncclComm *comm)
{
    comm->released = true;
    if (comm->shared != NULL)
        atomic_store(&comm->shared->members[comm->rank].gone,
                     comm->aborted ? FAKE_ABORTED : FAKE_LEFT);
    fake_count(FAKE_COMMS, -1);
    fake_comm_release(comm);
}

/* NCCL_HOSTID stands for the node where it is set, as in the real one. */
static uint64_t host(void)
{
    const char *name = getenv("NCCL_HOSTID");
    uint64_t id = fake_setting("FAKE_NODE", 0);
    for (; name != NULL && *name != '\0'; name++)
        id = (id ^ (unsigned char)*name) * UINT64_C(0x100000001b3) + 7;
    return id;
}

/* ---- what goes on in the background: true when it is over ---- */

static bool claim(struct ncclComm *comm, struct id *id)
{
    comm->shared =
        id->meeting != 0 ? fake_shared_meet(id->meeting) : fake_shared_open(id->pid, id->file);
    if (comm->shared == NULL) {
        fake_nccl_fail(comm, ncclSystemError, "rank 0 cannot be reached");
        return false;
    }
    int none = 0, size = comm->size;
    struct fake_member *member = &comm->shared->members[comm->rank];
    member->device = fake_device();
    member->host = host();
    int before = 0;
    if (!atomic_compare_exchange_strong(&comm->shared->size, &before, size) && before != size)
        fake_nccl_fail(comm, ncclInvalidUsage, "the ranks differ in their number");
    else if (!atomic_compare_exchange_strong(&member->pid, &none, getpid()))
        fake_nccl_fail(comm, ncclInvalidUsage, "a rank came twice");
    return comm->state == ncclInProgress;
}

static bool join(struct ncclComm *comm)
{
    struct id id;
    memcpy(&id, &comm->id, sizeof id);
    if (comm->shared == NULL && !claim(comm, &id))
        return true;
    for (int rank = 0; rank < comm->size; rank++) {
        if (atomic_load(&comm->shared->members[rank].pid) == 0)
            return false;
    }
    /* The others do not look, and wait for those that do. */
    for (int rank = 0; rank < comm->size; rank++) {
        const struct fake_member *other = &comm->shared->members[rank];
        char text[96], bus[24];
        if (rank == comm->rank || other->device != fake_device() || other->host != host())
            continue;
        fake_bus_id(fake_device(), bus, sizeof bus);
        snprintf(text, sizeof text,
                 "Duplicate GPU detected : rank %d and rank %d both on CUDA device %s", comm->rank,
                 rank, bus);
        fake_nccl_fail(comm, ncclInvalidUsage, text);
    }
    if (id.meeting != 0 && comm->rank == 0)
        fake_shared_forget(id.meeting);
    return true;
}

/* The members of this rank's color in order; false while one has not come. */
static bool find_members(struct ncclComm *comm, int members[RANKS_MAX], int *count)
{
    struct fake_split *slots[RANKS_MAX];
    int found = 0;
    for (int rank = 0; rank < comm->size; rank++) {
        slots[rank] = &comm->shared->splits[rank][comm->splits % SPLITS];
        if (atomic_load(&slots[rank]->posted) != comm->splits)
            return false;
    }
    for (int rank = 0; rank < comm->size; rank++) {
        if (slots[rank]->color != comm->color)
            continue;
        int at = found++;
        for (; at > 0 && slots[members[at - 1]]->key > slots[rank]->key; at--)
            members[at] = members[at - 1];
        members[at] = rank;
    }
    *count = found;
    return true;
}

static bool split(struct ncclComm *comm)
{
    int members[RANKS_MAX], count = 0, place = 0;
    if (comm->color == NCCL_SPLIT_NOCOLOR)
        return true;
    if (!find_members(comm, members, &count))
        return false;
    while (members[place] != comm->rank)
        place++;
    struct fake_split *first = &comm->shared->splits[members[0]][comm->splits % SPLITS];
    const ncclConfig_t config = {.blocking = comm->blocking};
    if (place == 0) {
        struct ncclComm *part = new_comm(0, count, &config);
        part->shared = fake_shared_make(&part->given_file);
        first->pid = getpid();
        first->file = part->given_file;
        atomic_store(&first->made, comm->splits);
        *comm->part = part;
    } else {
        if (atomic_load(&first->made) != comm->splits)
            return false;
        struct ncclComm *part = new_comm(place, count, &config);
        part->shared = fake_shared_open(first->pid, first->file);
        *comm->part = part;
        if (part->shared == NULL) { /* who made it has given it up again */
            fake_nccl_fail(part, ncclRemoteError, "connection closed by remote peer");
            return true;
        }
    }
    /* It still has to meet the others. */
    struct ncclComm *part = *comm->part;
    struct fake_member *member = &part->shared->members[part->rank];
    member->device = fake_device();
    member->host = host();
    atomic_store(&member->pid, getpid());
    atomic_store(&part->shared->size, count);
    part->doing = FAKE_JOINING;
    part->state = ncclInProgress;
    return true;
}

static void put_into_stream(struct ncclComm *comm)
{
    for (struct fake_batch *batch = comm->queuing; batch != NULL;) {
        struct fake_batch *next = batch->next;
        batch->number = ++comm->queued;
        batch->next = comm->batches;
        comm->batches = batch;
        fake_queue(batch->stream, &batch->work, "NCCL operation");
        batch = next;
    }
    comm->queuing = NULL;
}

static bool go_on(struct ncclComm *comm)
{
    switch (comm->doing) {
    case FAKE_JOINING:
        return join(comm);
    case FAKE_SPLITTING:
        return split(comm);
    case FAKE_QUEUING:
        put_into_stream(comm);
        return true;
    case FAKE_ENDING:
        return comm->queued == comm->done;
    default:
        return true;
    }
}

/* A rank that died or gave up is an error to all, unless that goes unnoticed. */
void fake_comm_look(struct ncclComm *comm)
{
    const char *way = getenv("FAKE_NCCL_DEATH");
    double now_s = fake_wall_s();
    if (comm->shared == NULL || now_s - comm->looked_s < LOOK_S ||
        (way != NULL && strcmp(way, "hang") == 0))
        return;
    comm->looked_s = now_s;
    int lost = fake_shared_lost(comm->shared, comm->size);
    bool wanted = comm->batches != NULL || comm->state == ncclInProgress;
    if (lost >= 0 && wanted && (comm->state == ncclSuccess || comm->state == ncclInProgress)) {
        char text[64];
        snprintf(text, sizeof text, "rank %d of the communicator is gone", lost);
        fake_nccl_fail(comm, ncclRemoteError, text);
    }
}

void fake_comm_poll(struct ncclComm *comm)
{
    if (comm->state == ncclInProgress && comm->polls > 0)
        comm->polls--;
    else if (comm->state == ncclInProgress && go_on(comm) && comm->state == ncclInProgress)
        comm->state = ncclSuccess;
    fake_comm_look(comm);
}

ncclResult_t fake_comm_begin(struct ncclComm *comm)
{
    comm->state = ncclInProgress;
    comm->polls = (unsigned)(fake_random() % 4);
    if (fake_take_stall())
        comm->polls = 1u << 30;
    if (!comm->blocking)
        return ncclInProgress;
    while (comm->state == ncclInProgress) {
        fake_comm_poll(comm);
        if (comm->state == ncclInProgress)
            fake_pause();
    }
    return comm->state;
}

/* ---- calls ---- */

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    struct id inner;
    memcpy(&inner, &id, sizeof inner);
    if (inner.mark != ID_MARK || size < 1 || size > RANKS_MAX || rank < 0 || rank >= size)
        fake_die("%s: rank %d of %d, and %s id", __func__, rank, size,
                 inner.mark == ID_MARK ? "an" : "no");
    if (config != NULL && config->magic != 0xcafebeef)
        fake_die("%s: the configuration is not initialised", __func__);
    *comm = NULL;
    if (result == ncclSuccess) {
        struct ncclComm *made = new_comm(rank, size, config);
        made->id = id;
        made->doing = FAKE_JOINING;
        *comm = made;
        result = fake_comm_begin(made);
    }
    return fake_nccl_leave(result);
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank)
{
    return ncclCommInitRankConfig(comm, size, id, rank, NULL);
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *part,
                           ncclConfig_t *config)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    fake_check_comm(comm, __func__);
    if (color < 0 && color != NCCL_SPLIT_NOCOLOR)
        fake_die("%s: color %d", __func__, color);
    if (config != NULL && (config->blocking != 0) != comm->blocking)
        fake_die("%s: parts that block otherwise are not faked", __func__);
    *part = NULL;
    if (result == ncclSuccess) {
        struct fake_split *own = &comm->shared->splits[comm->rank][++comm->splits % SPLITS];
        own->color = comm->color = color;
        own->key = comm->key = key;
        atomic_store(&own->posted, comm->splits);
        comm->part = part;
        comm->doing = FAKE_SPLITTING;
        result = fake_comm_begin(comm);
        if (result == ncclSuccess && *part != NULL && (*part)->blocking)
            result = fake_comm_begin(*part);
    }
    return fake_nccl_leave(result);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    fake_check_comm(comm, __func__);
    if (fake_take_stall()) {
        comm->state = ncclInProgress;
        comm->polls = 1u << 30;
    }
    if (result == ncclSuccess) {
        fake_comm_poll(comm);
        *state = comm->state;
    }
    return fake_nccl_leave(result);
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    fake_check_comm(comm, __func__);
    if (result == ncclSuccess)
        *count = comm->size;
    return fake_nccl_leave(result);
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    fake_check_comm(comm, __func__);
    if (result == ncclSuccess)
        *rank = comm->rank;
    return fake_nccl_leave(result);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    fake_check_comm(comm, __func__);
    if (result == ncclSuccess && comm->registrations > 0)
        fake_die("%s: %u buffers are still registered", __func__, comm->registrations);
    if (result == ncclSuccess) {
        comm->doing = FAKE_ENDING;
        result = fake_comm_begin(comm);
    }
    return fake_nccl_leave(result);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    fake_check_comm(comm, __func__);
    if (comm->batches != NULL)
        fake_die("%s with operations under way", __func__);
    let_go(comm);
    return fake_nccl_leave(result);
}

/* What is queued ends with nothing done. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    ncclResult_t result = fake_nccl_enter(__func__);
    fake_check_comm(comm, __func__);
    comm->aborted = true;
    for (struct fake_batch *batch = comm->batches; batch != NULL; batch = batch->next)
        batch->work.never = false;
    while (comm->queuing != NULL) {
        struct fake_batch *batch = comm->queuing;
        comm->queuing = batch->next;
        free(batch->ops);
        free(batch);
    }
    fake_forget_registrations(comm);
    let_go(comm);
    return fake_nccl_leave(result);
}
