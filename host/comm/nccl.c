/*
 * nccl: communication among GPUs. Operations go straight onto the device's streams.
 *
 * Communicators do not block: every call that NCCL finishes in the background is waited for against
 * a deadline, so that a rank that is missing is an error here and not the end of this process.
 *
 * What that costs: of a communicator that does not block, NCCL 2.28.9 puts each operation on its
 * stream from a thread that it starts for it (ncclGroupEndInternal in its group.cc): a thread's
 * start and its waiting, of the host's time. A batch is queued whole before it starts, so its
 * figures do not see that; a live part's do. A communicator that blocks would be cheaper, be it one
 * split from one that does not, and is not used: the first operation of a kind then connects the
 * ranks within the call, and waits for them there. No deadline ends that; ncclCommAbort from
 * another thread frees what the call still uses, and ncclCommRevoke, which does not, is missing in
 * older libraries.
 *
 * This file opens and closes communicators; nccl_execute.c queues, nccl_memory.c allocates.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/deadline.h"
#include "clustermark/memory.h"
#include "clustermark/module.h"
#include "host/comm/nccl_private.h"

#define LEAST_VERSION 21900 /* buffers can be registered */
#define SOUND_VERSION 22809 /* without known wrong results and hangs */
/* What a call that ignores its deadline gets in addition before the process ends. */
#define LAST_NET_S 15.0

struct cm_nccl_process cm_nccl = {.log = CM_NCCL_LOG_INIT, .device = "no device yet"};

static void use_memory(const struct cm_nccl_comm *comm, const struct cm_comm_memory *memory)
{
    struct cm_device *device = comm->queue.comm.device;
    if (comm->world && device->ops->use_comm_memory != NULL)
        device->ops->use_comm_memory(device, memory);
}

static const struct cm_comm_ops nccl_ops;

static enum cm_status read_version(void)
{
    int version = 0;
    enum cm_status status = NCCL(ncclGetVersion(&version));
    if (status != CM_OK)
        return status;
    if (version < LEAST_VERSION || version / 10000 != NCCL_MAJOR)
        return cm_error(CM_UNSUPPORTED,
                        "NCCL %d.%d.%d is loaded, and this program was built with %d.%d.%d: it "
                        "takes %d.19 or a later %d.x",
                        version / 10000, version / 100 % 100, version % 100, NCCL_MAJOR, NCCL_MINOR,
                        NCCL_PATCH, NCCL_MAJOR, NCCL_MAJOR);
    cm_nccl.version = version;
    return CM_OK;
}

static void implementation_name(char *name, size_t size)
{
    snprintf(name, size, "NCCL %d.%d.%d", cm_nccl.version / 10000, cm_nccl.version / 100 % 100,
             cm_nccl.version % 100);
}

static bool nccl_available(char *reason, size_t size)
{
    if (read_version() != CM_OK) {
        snprintf(reason, size, "%s", cm_error_text());
        return false;
    }
    implementation_name(reason, size);
    return true;
}

/* Nobody is alone in knowing where to meet: all have the number of rank 0, or all have the address
 * from the environment. */
static enum cm_status meet(const struct cm_world *world, const struct cm_meeting *meeting,
                           double timeout_s, ncclUniqueId *id)
{
    _Static_assert(sizeof *id <= CM_MEETING_MAX, "a meeting carries the number");
    bool named = getenv("NCCL_COMM_ID") != NULL;
    if (meeting == NULL && !named && world->size > 1)
        return cm_error(CM_USAGE, "NCCL's ranks do not know where to meet; set NCCL_COMM_ID to "
                                  "host:port of rank 0 on all of them");
    enum cm_status status = CM_OK;
    if (world->rank == 0 || meeting == NULL)
        status = NCCL(ncclGetUniqueId(id));
    if (status == CM_OK && meeting != NULL && world->size > 1)
        status = meeting->share(meeting->impl, id, sizeof *id, timeout_s);
    return status;
}

/* The first words of NCCL are for the log; rank 0 alone is asked, as it alone tells. */
static enum cm_status open_log(const struct cm_world *world, int *topology)
{
    if (world->rank != 0 || cm_nccl.log_tried)
        return CM_OK;
    cm_nccl.log_tried = true;
    if (cm_nccl.version < SOUND_VERSION)
        cm_warn("NCCL %d.%d.%d: before 2.28.9 small messages may arrive corrupted and many ranks "
                "may hang, and NVLink SHARP may be left out without a word; use a newer one",
                cm_nccl.version / 10000, cm_nccl.version / 100 % 100, cm_nccl.version % 100);
    enum cm_status status = cm_nccl_log_open(&cm_nccl.log);
    return status == CM_OK ? cm_nccl_topology_open(topology) : status;
}

/* A communicator around `handle`, which it takes over, also when this fails. */
static enum cm_status wrap(struct cm_nccl_comm *comm, struct cm_device *device, ncclComm_t handle,
                           double timeout_s)
{
    int rank = 0, size = 0;
    comm->handle = handle;
    comm->timeout_s = timeout_s;
    enum cm_status status = NCCL(ncclCommUserRank(handle, &rank));
    if (status == CM_OK)
        status = NCCL(ncclCommCount(handle, &size));
    if (status == CM_OK)
        status = cm_queue_init(&comm->queue, &nccl_ops, &cm_nccl_backend, device, (unsigned)rank,
                               (unsigned)size);
    if (status != CM_OK) {
        ncclCommAbort(handle);
        cm_free(comm);
        return status;
    }
    implementation_name(comm->queue.comm.implementation, sizeof comm->queue.comm.implementation);
    comm->next = cm_nccl.comms;
    cm_nccl.comms = comm;
    status = cm_nccl_register_all(comm);
    if (status != CM_OK)
        nccl_ops.close(&comm->queue.comm);
    return status;
}

/* Two ranks of one node on one GPU: it is those two that NCCL tells. */
static enum cm_status explain_join(enum cm_status status)
{
    unsigned one, other;
    const char *found = strstr(cm_error_text(), "Duplicate GPU detected");
    if (found == NULL ||
        sscanf(found, "Duplicate GPU detected : rank %u and rank %u", &one, &other) != 2)
        return status;
    return cm_error(CM_USAGE,
                    "ranks %u and %u have one device between them, %.60s; start as many ranks on a "
                    "node as it has devices, and let each see its own (CUDA_VISIBLE_DEVICES)",
                    one < other ? one : other, one < other ? other : one, cm_nccl.device);
}

static enum cm_status join(const struct cm_world *world, ncclUniqueId id, double timeout_s,
                           ncclComm_t *handle)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclComm_t made = NULL;
    config.blocking = 0;
    enum cm_status status =
        NCCL(ncclCommInitRankConfig(&made, (int)world->size, id, (int)world->rank, &config));
    if (status == CM_OK)
        status = cm_nccl_settle(made, timeout_s, "ncclCommInitRankConfig",
                                "the ranks did not all come together");
    if (status == CM_OK)
        *handle = made;
    else if (made != NULL)
        ncclCommAbort(made);
    return status == CM_OK ? CM_OK : explain_join(status);
}

static enum cm_status take_topology(int file)
{
    char *text = NULL;
    if (file < 0)
        return CM_OK;
    enum cm_status status = cm_nccl_topology_take(file, &text);
    if (status != CM_OK)
        return status;
    cm_free(cm_nccl.topology);
    cm_nccl.topology = text;
    return CM_OK;
}

static enum cm_status join_world(struct cm_device *device, const struct cm_world *world,
                                 const struct cm_meeting *meeting, double timeout_s,
                                 struct cm_comm **comm)
{
    double end_s = cm_nccl_now_s() + timeout_s;
    int topology = -1;
    ncclUniqueId id;
    ncclComm_t handle = NULL;
    memset(&id, 0, sizeof id);
    struct cm_nccl_comm *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = open_log(world, &topology);
    if (status == CM_OK)
        status = meet(world, meeting, timeout_s, &id);
    if (status == CM_OK)
        status = join(world, id, fmax(0, end_s - cm_nccl_now_s()), &handle);
    enum cm_status taken = take_topology(topology);
    if (status == CM_OK)
        status = taken;
    if (status != CM_OK) {
        if (handle != NULL)
            ncclCommAbort(handle);
        cm_free(made);
        return status;
    }
    made->world = true;
    status = wrap(made, device, handle, timeout_s);
    if (status != CM_OK)
        return status;
    use_memory(made, &cm_nccl_memory);
    *comm = &made->queue.comm;
    return CM_OK;
}

/* NCCL refuses two ranks of one node on one GPU. Ranks that pretend to be nodes of their own meet
 * by sockets; with one or two blocks each, all of them find room on the GPU. */
static void pretend_nodes(unsigned rank)
{
    static const char *const settings[][2] = {
        {"NCCL_NET", "Socket"},     {"NCCL_IB_DISABLE", "1"},  {"NCCL_NVLS_ENABLE", "0"},
        {"NCCL_MNNVL_ENABLE", "0"}, {"NCCL_P2P_DISABLE", "1"}, {"NCCL_SHM_DISABLE", "1"},
        {"NCCL_MAX_CTAS", "2"},
    };
    char host[32];
    snprintf(host, sizeof host, "simulated-%u", rank);
    setenv("NCCL_HOSTID", host, 1);
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        setenv(settings[i][0], settings[i][1], 0);
}

static enum cm_status nccl_open(struct cm_device *device, const struct cm_world *world,
                                const struct cm_meeting *meeting, double timeout_s,
                                struct cm_comm **comm)
{
    char late[160];
    struct cm_deadline *deadline;
    cm_nccl.rank = world->rank;
    snprintf(cm_nccl.device, sizeof cm_nccl.device, "%s device %s", device->ops->name,
             device->info.bus_id);
    if (world->simulated)
        pretend_nodes(world->rank);
    enum cm_status status = read_version();
    if (status == CM_OK && device->ops->native_stream == NULL)
        status = cm_error(CM_UNSUPPORTED, "NCCL needs CUDA streams, and the device %s has none",
                          device->ops->name);
    if (status != CM_OK)
        return status;
    snprintf(late, sizeof late,
             "NCCL did not come back within %g s from bringing %u ranks together (rank %u)",
             timeout_s + LAST_NET_S, world->size, world->rank);
    status = cm_deadline_begin(timeout_s + LAST_NET_S, late, &deadline);
    if (status != CM_OK)
        return status;
    status = join_world(device, world, meeting, timeout_s, comm);
    cm_deadline_end(deadline);
    return status;
}

static void give_up(struct cm_nccl_comm *comm)
{
    ncclComm_t handle = comm->handle;
    comm->handle = NULL;
    if (handle != NULL)
        ncclCommAbort(handle);
}

/* In order only where nothing went wrong: else it would wait for ranks that may be gone. */
static void leave(struct cm_nccl_comm *comm)
{
    enum cm_status status = cm_queue_async_error(&comm->queue.comm);
    cm_nccl_forget_all(comm);
    if (comm->handle == NULL) /* it took no more calls */
        return;
    if (status == CM_OK)
        status = NCCL(ncclCommFinalize(comm->handle));
    if (status == CM_OK)
        status =
            cm_nccl_settle(comm->handle, comm->timeout_s, "ncclCommFinalize", "NCCL did not end");
    if (status != CM_OK) {
        give_up(comm);
        return;
    }
    ncclCommDestroy(comm->handle);
    comm->handle = NULL;
}

static void nccl_close(struct cm_comm *base)
{
    struct cm_nccl_comm *comm = (struct cm_nccl_comm *)base;
    if (comm == NULL)
        return;
    use_memory(comm, NULL);
    if (comm->handle != NULL)
        leave(comm);
    cm_nccl_forget_all(comm);
    struct cm_nccl_comm **link = &cm_nccl.comms;
    while (*link != comm)
        link = &(*link)->next;
    *link = comm->next;
    cm_queue_release(&comm->queue);
    cm_free(comm);
}

static enum cm_status nccl_split(struct cm_comm *base, int color, int key, struct cm_comm **part)
{
    struct cm_nccl_comm *comm = (struct cm_nccl_comm *)base;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    enum cm_status status = cm_queue_async_error(base);
    if (status != CM_OK)
        return status;
    struct cm_nccl_comm *made = cm_alloc(1, sizeof *made);
    /* Without memory too: the others wait for this rank. */
    comm->pending = NULL;
    status = NCCL(ncclCommSplit(comm->handle, color < 0 ? NCCL_SPLIT_NOCOLOR : color, key,
                                &comm->pending, &config));
    if (status == CM_OK)
        status = cm_nccl_settle(comm->handle, comm->timeout_s, "ncclCommSplit",
                                "not all ranks took part");
    ncclComm_t handle = status == CM_OK ? comm->pending : NULL;
    if (handle != NULL)
        status =
            cm_nccl_settle(handle, comm->timeout_s, "ncclCommSplit", "not all ranks took part");
    if (status == CM_OK && made == NULL)
        status = CM_NO_MEMORY;
    if (status != CM_OK || handle == NULL) {
        if (handle != NULL)
            ncclCommAbort(handle);
        cm_free(made);
        if (status == CM_OK)
            *part = NULL;
        return status;
    }
    status = wrap(made, base->device, handle, comm->timeout_s);
    if (status == CM_OK)
        *part = &made->queue.comm;
    return status;
}

static enum cm_status nccl_async_error(struct cm_comm *base)
{
    const struct cm_nccl_comm *comm = (const struct cm_nccl_comm *)base;
    enum cm_status status = cm_queue_async_error(base);
    if (status != CM_OK || comm->handle == NULL)
        return status;
    ncclResult_t result = ncclSuccess;
    status = NCCL(ncclCommGetAsyncError(comm->handle, &result));
    return status == CM_OK ? cm_nccl_status(result, "asynchronously", __FILE__, __LINE__) : status;
}

static void nccl_abort(struct cm_comm *base)
{
    char late[160];
    struct cm_deadline *deadline;
    cm_queue_abort(base);
    snprintf(late, sizeof late, "NCCL did not give up within %g s (rank %u): %.80s", LAST_NET_S,
             cm_nccl.rank, cm_error_text());
    if (cm_deadline_begin(LAST_NET_S, late, &deadline) != CM_OK)
        return;
    give_up((struct cm_nccl_comm *)base);
    cm_deadline_end(deadline);
}

static const char *nccl_algorithm(struct cm_comm *base, const char *operation, uint64_t bytes)
{
    struct cm_nccl_comm *comm = (struct cm_nccl_comm *)base;
    if (cm_nccl_log_read(&cm_nccl.log) != CM_OK)
        return "";
    const struct cm_nccl_choice *choice = cm_nccl_log_find(&cm_nccl.log, operation, bytes);
    if (choice == NULL)
        return "";
    snprintf(comm->chosen, sizeof comm->chosen, "%s %s, %u channel%s%s%s", choice->algorithm,
             choice->protocol, choice->channels, choice->channels == 1 ? "" : "s",
             cm_nccl_registered(comm) ? ", registered" : "",
             cm_nccl.log.no_nvls ? ", no NVLS here" : "");
    return comm->chosen;
}

static const char *nccl_topology_dump(struct cm_comm *comm)
{
    (void)comm;
    return cm_nccl.topology != NULL && cm_nccl.topology[0] != '\0' ? cm_nccl.topology : NULL;
}

static const struct cm_comm_ops nccl_ops = {
    .name = "nccl",
    .summary = "GPU ranks over NCCL",
    .available = nccl_available,
    .open = nccl_open,
    .close = nccl_close,
    CM_QUEUE_OPERATIONS,
    .split = nccl_split,
    .async_error = nccl_async_error,
    .abort = nccl_abort,
    .algorithm = nccl_algorithm,
    .topology_dump = nccl_topology_dump,
};

__attribute__((visibility("default"))) const struct cm_module cm_module_nccl = {
    .version = CM_VERSION,
    .comm = &nccl_ops,
};
