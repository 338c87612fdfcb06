/* Where the ranks of an outside launcher meet. */
#include "host/measure/meet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/measure/roster.h"

#define MEMORY_BYTES (1 << 20)

/* What the ranks that meet compare. */
static struct {
    const struct cm_world_record *own; /* NULL: nothing */
    bool *refused;
} comparison;

void cm_meeting_compare(const struct cm_world_record *own, bool *refused)
{
    comparison.own = own;
    comparison.refused = refused;
}

/* With the records of all ranks. */
static enum cm_status compare(const struct cm_world_record *records, unsigned count)
{
    enum cm_status status = cm_world_compare(records, count);
    *comparison.refused = status == CM_USAGE;
    return status;
}

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

#define TEXT_MAX (2 * sizeof(struct cm_world_record) + 1)
_Static_assert(sizeof(struct cm_world_record) >= CM_MEETING_MAX, "a text has room for both");

/* A meeting's bytes as text, two digits each. */
static void write_hex(const unsigned char *bytes, size_t size, char text[TEXT_MAX])
{
    for (size_t i = 0; i < size; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static enum cm_status read_hex(const struct cm_message *message, const char *kind,
                               unsigned char *bytes, size_t size)
{
    if (strcmp(message->kind, kind) != 0 || message->length != 2 * size)
        return cm_error(CM_COMM, "another rank is another program, or another version of this one");
    for (size_t i = 0; i < size; i++) {
        const char digits[3] = {message->payload[2 * i], message->payload[2 * i + 1], '\0'};
        bytes[i] = (unsigned char)strtoul(digits, NULL, 16);
    }
    return CM_OK;
}

/* What the others say they are; when that does not fit together, they are turned away. */
static enum cm_status compare_roster(const struct cm_roster *roster, double timeout_s)
{
    struct cm_world_record *records;
    struct cm_message message;
    char text[CM_ERROR_TEXT_MAX];
    if (comparison.own == NULL)
        return CM_OK;
    records = cm_alloc(roster->size, sizeof *records);
    enum cm_status status = records != NULL ? CM_OK : CM_NO_MEMORY;
    if (status == CM_OK)
        records[0] = *comparison.own;
    for (unsigned i = 1; i < roster->size && status == CM_OK; i++) {
        status = cm_roster_hear(&roster->members[i].channel, timeout_s, &message);
        if (status == CM_OK)
            status = read_hex(&message, "record", (unsigned char *)&records[i], sizeof *records);
        if (status != CM_OK)
            cm_error_at(status, "rank %u on %s: ", i, roster->members[i].host);
    }
    if (status == CM_OK)
        status = compare(records, roster->size);
    cm_free(records);
    if (status == CM_OK)
        return CM_OK;
    snprintf(text, sizeof text, "%s", cm_error_text());
    for (unsigned i = 1; i < roster->size; i++)
        cm_channel_send(&roster->members[i].channel, "refused", "");
    return cm_error(status, "%s", text);
}

/* Rank 0 gives its bytes to all when all have come. */
static enum cm_status give(const struct cm_world *world, const struct cm_address *address,
                           const void *bytes, size_t size, double timeout_s)
{
    char text[TEXT_MAX];
    struct cm_roster roster;
    enum cm_status status = cm_roster_gather(world, address, timeout_s, &roster);
    if (status != CM_OK)
        return status;
    status = compare_roster(&roster, timeout_s);
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
    char text[TEXT_MAX];
    enum cm_status status = cm_roster_join(world, address, timeout_s, &channel);
    if (status != CM_OK)
        return status;
    if (comparison.own != NULL) {
        write_hex((const unsigned char *)comparison.own, sizeof *comparison.own, text);
        status = cm_channel_send(&channel, "record", text);
    }
    if (status == CM_OK)
        status = cm_roster_hear(&channel, timeout_s + CM_ROSTER_GRACE_S, &message);
    if (status == CM_OK)
        status = read_hex(&message, "bytes", bytes, size);
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

/* Each rank compares, and all find the same. */
static enum cm_status compare_on(const struct cm_exchange *exchange)
{
    if (comparison.own == NULL)
        return CM_OK;
    struct cm_world_record *records = cm_alloc(exchange->comm->size, sizeof *records);
    if (records == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = cm_exchange_gather(exchange, comparison.own, sizeof *records, records);
    if (status == CM_OK)
        status = compare(records, exchange->comm->size);
    cm_free(records);
    return status;
}

static enum cm_status talk(const struct cm_exchange *exchange, void *bytes, size_t size,
                           bool *agreed)
{
    enum cm_status status = compare_on(exchange);
    *agreed = status == CM_USAGE;
    return status == CM_OK ? cm_exchange_broadcast(exchange, 0, bytes, size) : status;
}

static enum cm_status share_on(struct cm_device *device, const struct cm_world *world, void *bytes,
                               size_t size, double timeout_s)
{
    const struct cm_comm_ops *mpi = cm_comm_find("mpi");
    struct cm_comm *comm = NULL;
    if (mpi == NULL)
        return cm_error(CM_USAGE,
                        "the ranks that %s started need MPI to meet: %s; or set NCCL_COMM_ID to "
                        "host:port of rank 0 on all of them",
                        world->launcher, cm_comm_missing("mpi"));
    enum cm_status status = mpi->open(device, world, NULL, timeout_s, &comm);
    if (status != CM_OK)
        return cm_error_at(status, "the ranks meet by MPI, as NCCL_COMM_ID is not set: ");
    struct cm_exchange exchange = {.device = device, .comm = comm, .timeout_s = timeout_s};
    bool agreed = false;
    status = device->ops->stream_create(device, 0, &exchange.stream);
    if (status == CM_OK)
        status = talk(&exchange, bytes, size, &agreed);
    if (status != CM_OK && !agreed)
        comm->ops->abort(comm);
    device->ops->stream_destroy(exchange.stream);
    mpi->close(comm);
    return status;
}

/* MPI needs a device of the host; it is there for this alone. */
static enum cm_status share_by_mpi(void *impl, void *bytes, size_t size, double timeout_s)
{
    const struct cm_world *world = impl;
    const struct cm_device_ops *cpu = cm_device_find("cpu");
    const struct cm_device_config config = {
        .rank = world->rank,
        .threads = 1,
        .memory_bytes = MEMORY_BYTES + 4 * world->size * sizeof(struct cm_world_record),
        .far_node = -1};
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
