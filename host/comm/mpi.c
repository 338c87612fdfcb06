/*
 * mpi: communication among CPU ranks. This file opens and closes communicators, mpi_execute.c has
 * their operations.
 */
#include <stdio.h>

#include "clustermark/deadline.h"
#include "clustermark/memory.h"
#include "clustermark/module.h"
#include "host/comm/module.h"
#include "host/comm/mpi_private.h"

struct cm_mpi_process cm_mpi;

static const struct cm_comm_ops mpi_ops;

static void implementation_name(char *name, size_t size)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(text, &length);
    cm_mpi_library_name(text, name, size);
}

static bool mpi_available(char *reason, size_t size)
{
    implementation_name(reason, size);
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
        cm_mpi.started_here = status == CM_OK;
    }
    if (status != CM_OK)
        return status;
    cm_mpi.running = true;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (level < MPI_THREAD_MULTIPLE)
        return cm_error(CM_UNSUPPORTED, "this MPI does not allow calls from several threads "
                                        "(MPI_THREAD_MULTIPLE); use one that is built for it");
    return MPI(MPI_Comm_rank(MPI_COMM_WORLD, &cm_mpi.rank));
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
    if ((unsigned)cm_mpi.rank != world->rank)
        return cm_error(CM_USAGE, "told rank %u of %u, but MPI sees rank %d", world->rank,
                        world->size, cm_mpi.rank);
    return CM_OK;
}

/* Takes over `data`. */
static enum cm_status fill_comm(struct cm_mpi_comm *comm, struct cm_device *device, MPI_Comm data)
{
    int rank = 0, size = 0;
    comm->data = data;
    enum cm_status status = MPI(MPI_Comm_dup(data, &comm->control));
    if (status == CM_OK)
        status = MPI(MPI_Comm_rank(data, &rank));
    if (status == CM_OK)
        status = MPI(MPI_Comm_size(data, &size));
    if (status == CM_OK)
        status = cm_queue_init(&comm->queue, &mpi_ops, &cm_mpi_backend, device, (unsigned)rank,
                               (unsigned)size);
    if (status != CM_OK)
        return status;
    implementation_name(comm->queue.comm.implementation, sizeof comm->queue.comm.implementation);
    cm_mpi.open_comms += 1;
    return CM_OK;
}

/* Frees a communicator that fill_comm did not finish. */
static void drop_comm(struct cm_mpi_comm *comm)
{
    if (comm == NULL)
        return;
    if (comm->control != MPI_COMM_NULL)
        MPI_Comm_free(&comm->control);
    if (comm->data != MPI_COMM_NULL)
        MPI_Comm_free(&comm->data);
    cm_free(comm);
}

static struct cm_mpi_comm *allocate_comm(void)
{
    struct cm_mpi_comm *comm = cm_alloc(1, sizeof *comm);
    if (comm != NULL) {
        comm->data = MPI_COMM_NULL;
        comm->control = MPI_COMM_NULL;
    }
    return comm;
}

static enum cm_status join_world(struct cm_device *device, const struct cm_world *world,
                                 struct cm_comm **comm)
{
    if (!cm_mpi.running)
        cm_mpi.rank =
            (int)world->rank; /* what fails before MPI knows it has its rank all the same */
    enum cm_status status = start_mpi();
    if (status == CM_OK)
        status = check_world(world);
    if (status == CM_OK && !cm_mpi.ready) {
        status = cm_mpi_create_ops();
        cm_mpi.ready = status == CM_OK;
    }
    if (status != CM_OK)
        return status;
    struct cm_mpi_comm *made = allocate_comm();
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
    struct cm_mpi_comm *comm = (struct cm_mpi_comm *)base;
    if (comm == NULL)
        return;
    bool aborted = comm->queue.aborted;
    if (!cm_queue_release(&comm->queue)) {
        comm->next_left = cm_mpi.left;
        cm_mpi.left = comm;
        return;
    }
    if (aborted) { /* other ranks may be gone, and these calls wait for them */
        cm_free(comm);
        return;
    }
    drop_comm(comm);
    cm_mpi.open_comms -= 1;
    if (cm_mpi.open_comms > 0 || !cm_mpi.started_here)
        return;
    for (unsigned type = 0; type < 2; type++)
        for (unsigned reduce = 0; reduce <= CM_REDUCE_MIN; reduce++)
            MPI_Op_free(&cm_mpi.half[type][reduce]);
    cm_mpi.ready = cm_mpi.running = false;
    MPI_Finalize();
}

/* All ranks take every step, whatever befell one of them, and agree on the outcome. */
static enum cm_status mpi_split(struct cm_comm *base, int color, int key, struct cm_comm **part)
{
    struct cm_mpi_comm *comm = (struct cm_mpi_comm *)base;
    enum cm_status status = cm_queue_async_error(base);
    if (status != CM_OK)
        return status;
    struct cm_mpi_comm *made = allocate_comm();
    MPI_Comm data = MPI_COMM_NULL;
    status = MPI(MPI_Comm_split(comm->control, color < 0 ? MPI_UNDEFINED : color, key, &data));
    if (status == CM_OK) {
        int fine = made != NULL, all_fine = 0;
        status = MPI(MPI_Allreduce(&fine, &all_fine, 1, MPI_INT, MPI_MIN, comm->control));
        if (status == CM_OK && !all_fine) /* less grave than what that rank itself says */
            status = fine ? cm_error(CM_UNSUPPORTED, "split: another rank is out of memory")
                          : CM_NO_MEMORY;
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
