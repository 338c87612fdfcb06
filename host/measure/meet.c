/* Where the ranks of an outside launcher meet. */
#include "host/measure/meet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"

#define MEMORY_BYTES (1 << 20)

enum cm_meeting_place cm_meeting_place(const struct cm_world *world)
{
    static const char *const by_mpi[] = {"mpirun", "mpiexec", "srun"};
    if (getenv("NCCL_COMM_ID") != NULL)
        return CM_MEET_BY_ADDRESS;
    for (size_t i = 0; i < sizeof by_mpi / sizeof by_mpi[0]; i++) {
        if (strcmp(world->launcher, by_mpi[i]) == 0)
            return CM_MEET_BY_MPI;
    }
    bool master = getenv("MASTER_ADDR") != NULL && getenv("MASTER_PORT") != NULL;
    return master ? CM_MEET_BY_MASTER : CM_MEET_NOWHERE;
}

/* torchrun's own store listens at the master's port; NCCL takes the next one. */
static enum cm_status set_address(const char *host, const char *port)
{
    char text[300], *end;
    if (host == NULL || port == NULL)
        return cm_error(CM_USAGE, "MASTER_ADDR and MASTER_PORT must both be set");
    unsigned long number = strtoul(port, &end, 10);
    if (port[0] < '0' || port[0] > '9' || *end != '\0' || number == 0 || number > 65534)
        return cm_error(CM_USAGE,
                        "MASTER_PORT is \"%.20s\" in the environment; it must be a port "
                        "whose successor is free for NCCL",
                        port);
    bool bare_v6 = strchr(host, ':') != NULL && host[0] != '[';
    if (snprintf(text, sizeof text, bare_v6 ? "[%s]:%lu" : "%s:%lu", host, number + 1) >=
        (int)sizeof text)
        return cm_error(CM_USAGE, "MASTER_ADDR is too long");
    return setenv("NCCL_COMM_ID", text, 1) == 0
               ? CM_OK
               : cm_error(CM_NO_MEMORY, "no memory for NCCL_COMM_ID");
}

/* One broadcast of what stands in `memory`. */
static enum cm_status broadcast(struct cm_device *device, struct cm_comm *comm, void *memory,
                                size_t size, double timeout_s)
{
    struct cm_stream *stream = NULL;
    enum cm_status status = device->ops->stream_create(device, 0, &stream);
    if (status != CM_OK)
        return status;
    status = comm->ops->broadcast(comm, stream, memory, size, CM_I8, 0);
    if (status == CM_OK)
        status = device->ops->stream_sync(stream, timeout_s);
    device->ops->stream_destroy(stream);
    return status;
}

static enum cm_status share_on(struct cm_device *device, const struct cm_world *world, void *bytes,
                               size_t size, double timeout_s)
{
    const struct cm_comm_ops *mpi = cm_comm_find("mpi");
    struct cm_comm *comm = NULL;
    void *memory = NULL;
    if (mpi == NULL)
        return cm_error(CM_USAGE,
                        "the ranks that %s started need MPI to meet: %s; or set NCCL_COMM_ID to "
                        "host:port of rank 0 on all of them",
                        world->launcher, cm_comm_missing("mpi"));
    enum cm_status status = mpi->open(device, world, NULL, timeout_s, &comm);
    if (status != CM_OK)
        return cm_error_at(status, "the ranks meet by MPI, as NCCL_COMM_ID is not set: ");
    status = device->ops->alloc(device, CM_MEMORY_HOST, size, &memory);
    if (status == CM_OK) {
        memcpy(memory, bytes, size);
        status = broadcast(device, comm, memory, size, timeout_s);
    }
    if (status == CM_OK)
        memcpy(bytes, memory, size);
    else
        comm->ops->abort(comm);
    if (memory != NULL && status != CM_TIMEOUT)
        device->ops->free(device, CM_MEMORY_HOST, memory);
    mpi->close(comm);
    return status;
}

/* MPI needs a device of the host; it is there for this alone. */
static enum cm_status share(void *impl, void *bytes, size_t size, double timeout_s)
{
    const struct cm_world *world = impl;
    const struct cm_device_ops *cpu = cm_device_find("cpu");
    const struct cm_device_config config = {
        .rank = world->rank, .threads = 1, .memory_bytes = MEMORY_BYTES, .far_node = -1};
    struct cm_device *device = NULL;
    if (cpu == NULL)
        return cm_error(CM_NO_DEVICE, "no cpu device: %s", cm_device_missing("cpu"));
    enum cm_status status = cpu->open(&config, &device);
    if (status != CM_OK)
        return status;
    status = share_on(device, world, bytes, size, timeout_s);
    cpu->close(device);
    return status;
}

enum cm_status cm_meeting_outside(const struct cm_world *world, const char *comm,
                                  struct cm_meeting *meeting, bool *needed)
{
    *needed = false;
    if (strcmp(comm, "nccl") != 0)
        return CM_OK;
    switch (cm_meeting_place(world)) {
    case CM_MEET_BY_MASTER:
        return set_address(getenv("MASTER_ADDR"), getenv("MASTER_PORT"));
    case CM_MEET_BY_MPI:
        *meeting = (struct cm_meeting){.impl = (void *)world, .share = share};
        *needed = true;
        return CM_OK;
    case CM_MEET_BY_ADDRESS:
        return CM_OK;
    case CM_MEET_NOWHERE:
        break;
    }
    return cm_error(CM_USAGE,
                    "the %u ranks that %s started do not know where to meet; set NCCL_COMM_ID to "
                    "host:port of rank 0 on all of them",
                    world->size, world->launcher);
}
