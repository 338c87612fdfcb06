/* Where the ranks of an outside launcher meet. */
#include "host/measure/meet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "host/measure/roster.h"

#define MEMORY_BYTES (1 << 20)

enum cm_meeting_place cm_meeting_place(const struct cm_world *world)
{
    struct cm_address address;
    bool known = false;
    if (getenv("NCCL_COMM_ID") != NULL)
        return CM_MEET_BY_NCCL;
    /* srun can do without MPI where this build has none; mpirun tells of no address. */
    if (cm_world_has_mpi(world) &&
        (strcmp(world->launcher, "srun") != 0 || cm_comm_find("mpi") != NULL))
        return CM_MEET_BY_MPI;
    if (cm_address_find(world, &address, &known) != CM_OK)
        return CM_MEET_BY_TCP; /* which fails with that reason */
    return known ? CM_MEET_BY_TCP : CM_MEET_NOWHERE;
}

/* A meeting's bytes as text, two digits each. */
static void write_hex(const unsigned char *bytes, size_t size, char text[2 * CM_MEETING_MAX + 1])
{
    for (size_t i = 0; i < size; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static enum cm_status read_hex(const struct cm_message *message, unsigned char *bytes, size_t size)
{
    if (strcmp(message->kind, "bytes") != 0 || message->length != 2 * size)
        return cm_error(CM_COMM, "rank 0 is another program, or another version of this one");
    for (size_t i = 0; i < size; i++) {
        const char digits[3] = {message->payload[2 * i], message->payload[2 * i + 1], '\0'};
        bytes[i] = (unsigned char)strtoul(digits, NULL, 16);
    }
    return CM_OK;
}

/* Rank 0 gives its bytes to all when all have come. */
static enum cm_status give(const struct cm_world *world, const struct cm_address *address,
                           const void *bytes, size_t size, double timeout_s)
{
    char text[2 * CM_MEETING_MAX + 1];
    struct cm_roster roster;
    enum cm_status status = cm_roster_gather(world, address, timeout_s, &roster);
    if (status != CM_OK)
        return status;
    write_hex(bytes, size, text);
    for (unsigned i = 1; i < roster.size && status == CM_OK; i++) {
        status = cm_channel_send(&roster.members[i].channel, "bytes", text);
        if (status != CM_OK)
            cm_error(CM_LOST, "rank %u on %s went while the ranks met", i, roster.members[i].host);
    }
    cm_roster_release(&roster);
    return status;
}

static enum cm_status take(const struct cm_world *world, const struct cm_address *address,
                           void *bytes, size_t size, double timeout_s)
{
    struct cm_channel channel = CM_CHANNEL_INIT;
    struct cm_message message;
    enum cm_status status = cm_roster_join(world, address, timeout_s, &channel);
    if (status != CM_OK)
        return status;
    status = cm_roster_hear(&channel, timeout_s + CM_ROSTER_GRACE_S, &message);
    if (status == CM_OK)
        status = read_hex(&message, bytes, size);
    else if (status == CM_LOST)
        cm_error(CM_LOST, "rank 0 went before all ranks had come");
    cm_channel_close(&channel);
    return status;
}

static enum cm_status share_by_tcp(void *impl, void *bytes, size_t size, double timeout_s)
{
    const struct cm_world *world = impl;
    struct cm_address address;
    bool known;
    enum cm_status status = cm_address_find(world, &address, &known);
    if (status != CM_OK)
        return status;
    return world->rank == 0 ? give(world, &address, bytes, size, timeout_s)
                            : take(world, &address, bytes, size, timeout_s);
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
static enum cm_status share_by_mpi(void *impl, void *bytes, size_t size, double timeout_s)
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
    case CM_MEET_BY_TCP:
        *meeting = (struct cm_meeting){.impl = (void *)world, .share = share_by_tcp};
        *needed = true;
        return CM_OK;
    case CM_MEET_BY_MPI:
        *meeting = (struct cm_meeting){.impl = (void *)world, .share = share_by_mpi};
        *needed = true;
        return CM_OK;
    case CM_MEET_BY_NCCL:
        return CM_OK;
    case CM_MEET_NOWHERE:
        break;
    }
    return cm_error(CM_USAGE,
                    "the %u ranks that %s started do not know where to meet; set MASTER_ADDR to "
                    "the node of rank 0, or NCCL_COMM_ID to its host:port, on all of them",
                    world->size, world->launcher);
}
