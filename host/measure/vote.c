/* Rounds of agreement among the ranks of a case, through the communicator. */
#include "host/measure/vote.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "host/measure/sync.h"

/* The header of a round; all are maxima over the ranks. */
enum header {
    HEADER_FAILURE, /* gravity * 2^32 + (2^32 - 1 - rank): the gravest, then the lowest rank */
    HEADER_STAYS,   /* 1: a rank is still inside the phase */
    HEADER_LEAVES,  /* 1: a rank has ended the phase */
    HEADER_COUNT
};

#define ROUND_BYTES ((HEADER_COUNT + CM_VOTE_VALUES_MAX) * sizeof(double))

bool cm_status_fatal(enum cm_status status)
{
    return status == CM_TIMEOUT || status == CM_COMM || status == CM_LOST ||
           status == CM_INTERRUPTED;
}

int cm_status_doubt(enum cm_status status)
{
    return status == CM_TIMEOUT || status == CM_LOST ? 2 : status == CM_COMM ? 1 : 0;
}

uint64_t cm_vote_bytes(unsigned ranks)
{
    uint64_t bytes =
        2 * (ROUND_BYTES + sizeof(struct cm_failure) + (uint64_t)ranks * CM_GATHER_MAX) +
        CM_GATHER_MAX;
    /* Devices round allocations up. */
    return bytes + 7 * 4096;
}

static enum cm_status open_buffers(struct cm_vote *vote)
{
    struct cm_device *device = vote->device;
    size_t all = (size_t)vote->comm->size * CM_GATHER_MAX;
    const struct {
        enum cm_memory_kind kind;
        size_t size_bytes;
        void **memory;
    } buffers[] = {
        {CM_MEMORY_HOST, ROUND_BYTES, (void **)&vote->host},
        {CM_MEMORY_COMM, ROUND_BYTES, &vote->shared},
        {CM_MEMORY_HOST, sizeof(struct cm_failure), &vote->note_host},
        {CM_MEMORY_COMM, sizeof(struct cm_failure), &vote->note_shared},
        {CM_MEMORY_HOST, all, (void **)&vote->gather_host},
        {CM_MEMORY_COMM, CM_GATHER_MAX, &vote->gather_send},
        {CM_MEMORY_COMM, all, &vote->gather_receive},
    };
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0] && status == CM_OK; i++)
        status =
            device->ops->alloc(device, buffers[i].kind, buffers[i].size_bytes, buffers[i].memory);
    return status;
}

static void free_buffer(struct cm_vote *vote, enum cm_memory_kind kind, void *memory)
{
    if (memory != NULL)
        vote->device->ops->free(vote->device, kind, memory);
}

void cm_vote_close(struct cm_vote *vote)
{
    if (vote->device == NULL)
        return;
    free_buffer(vote, CM_MEMORY_HOST, vote->host);
    free_buffer(vote, CM_MEMORY_COMM, vote->shared);
    free_buffer(vote, CM_MEMORY_HOST, vote->note_host);
    free_buffer(vote, CM_MEMORY_COMM, vote->note_shared);
    free_buffer(vote, CM_MEMORY_HOST, vote->gather_host);
    free_buffer(vote, CM_MEMORY_COMM, vote->gather_send);
    free_buffer(vote, CM_MEMORY_COMM, vote->gather_receive);
    *vote = (struct cm_vote){0};
}

enum cm_status cm_vote_open(struct cm_device *device, struct cm_comm *comm,
                            struct cm_stream *stream, double timeout_s, struct cm_vote *vote)
{
    *vote =
        (struct cm_vote){.device = device, .comm = comm, .stream = stream, .timeout_s = timeout_s};
    enum cm_status status = open_buffers(vote);
    if (status != CM_OK)
        cm_vote_close(vote);
    return status;
}

enum cm_status cm_failure_status(enum cm_status status)
{
    return status == CM_TIMEOUT && cm_error_cause() != CM_OK ? cm_error_cause() : status;
}

void cm_vote_note(struct cm_vote *vote, enum cm_status status)
{
    vote->stuck = vote->stuck || status == CM_TIMEOUT;
    if (status == CM_OK || vote->own.status != CM_OK || vote->agreed.status != CM_OK)
        return;
    vote->own.status = cm_failure_status(status);
    const char *text = cm_error_text();
    snprintf(vote->own.text, sizeof vote->own.text, "%s",
             text[0] != '\0' ? text : cm_status_text(status));
}

double *cm_vote_values(struct cm_vote *vote)
{
    return vote->host + HEADER_COUNT;
}

static double failure_key(const struct cm_vote *vote)
{
    if (vote->own.status == CM_OK)
        return 0;
    double gravity = vote->own.status == CM_UNSUPPORTED ? 1 : 2;
    return gravity * 0x1p32 + (double)(UINT32_MAX - vote->comm->rank);
}

/* What went wrong on the rank that the key names, told to all. */
static enum cm_status share_failure(struct cm_vote *vote, double key)
{
    struct cm_comm *comm = vote->comm;
    const struct cm_device_ops *device = vote->device->ops;
    unsigned rank = UINT32_MAX - (unsigned)fmod(key, 0x1p32);
    size_t size = sizeof vote->own;
    memcpy(vote->note_host, &vote->own, size);
    enum cm_status status = device->copy(vote->stream, vote->note_shared, vote->note_host, size);
    if (status == CM_OK)
        status = comm->ops->broadcast(comm, vote->stream, vote->note_shared, size, CM_I8, rank);
    if (status == CM_OK)
        status = device->copy(vote->stream, vote->note_host, vote->note_shared, size);
    if (status == CM_OK)
        status = cm_sync(comm, vote->stream, vote->timeout_s);
    if (status != CM_OK)
        return status;
    memcpy(&vote->agreed, vote->note_host, size);
    vote->agreed.text[sizeof vote->agreed.text - 1] = '\0';
    /* Where no data moves, a rank cannot learn more than that something failed. */
    if (vote->agreed.status <= CM_OK || vote->agreed.status >= CM_STATUS_COUNT)
        vote->agreed.status = CM_LOST;
    vote->agreed_rank = rank;
    return CM_OK;
}

static enum cm_status exchange(struct cm_vote *vote, bool leaves, size_t count)
{
    struct cm_comm *comm = vote->comm;
    const struct cm_device_ops *device = vote->device->ops;
    if (cm_status_fatal(vote->own.status) || (vote->stuck && vote->own.status != CM_OK))
        return cm_error(vote->own.status, "%s", vote->own.text);
    vote->host[HEADER_FAILURE] = failure_key(vote);
    vote->host[HEADER_STAYS] = leaves ? 0 : 1;
    vote->host[HEADER_LEAVES] = leaves ? 1 : 0;
    size_t numbers = HEADER_COUNT + count;
    size_t size = numbers * sizeof(double);
    enum cm_status status = device->copy(vote->stream, vote->shared, vote->host, size);
    if (status == CM_OK)
        status = comm->ops->all_reduce(comm, vote->stream, vote->shared, vote->shared, numbers,
                                       CM_F64, CM_REDUCE_MAX);
    if (status == CM_OK)
        status = device->copy(vote->stream, vote->host, vote->shared, size);
    if (status == CM_OK)
        status = cm_sync(comm, vote->stream, vote->timeout_s);
    if (status == CM_OK && vote->host[HEADER_FAILURE] > 0)
        status = share_failure(vote, vote->host[HEADER_FAILURE]);
    return status;
}

enum cm_status cm_vote_round(struct cm_vote *vote, size_t count)
{
    if (count > CM_VOTE_VALUES_MAX)
        return cm_error(CM_INTERNAL, "a round of %zu values; %d are the most", count,
                        CM_VOTE_VALUES_MAX);
    enum cm_status status = exchange(vote, false, count);
    if (status == CM_OK && vote->host[HEADER_LEAVES] > 0 && vote->agreed.status == CM_OK)
        cm_vote_note(vote, cm_error(CM_INTERNAL, "not every rank made the same collective call of "
                                                 "its context"));
    return status;
}

enum cm_status cm_vote_phase(struct cm_vote *vote)
{
    enum cm_status status;
    do {
        /* As many values as a round of a context call, which another rank may still be in. */
        cm_vote_values(vote)[0] = 0;
        status = exchange(vote, true, 1);
    } while (status == CM_OK && vote->host[HEADER_STAYS] > 0);
    return status;
}

enum cm_status cm_vote_gather(struct cm_vote *vote, const void *own, size_t size, const void **all)
{
    struct cm_comm *comm = vote->comm;
    const struct cm_device_ops *device = vote->device->ops;
    if (size > CM_GATHER_MAX)
        return cm_error(CM_INTERNAL, "gathering %zu bytes of a rank; %d are the most", size,
                        CM_GATHER_MAX);
    char *slot = vote->gather_host + (size_t)comm->rank * size;
    memset(vote->gather_host, 0, (size_t)comm->size * size);
    memcpy(slot, own, size);
    enum cm_status status = device->copy(vote->stream, vote->gather_send, slot, size);
    if (status == CM_OK)
        status = comm->ops->all_gather(comm, vote->stream, vote->gather_send, vote->gather_receive,
                                       size, CM_I8);
    if (status == CM_OK)
        status = device->copy(vote->stream, vote->gather_host, vote->gather_receive,
                              (size_t)comm->size * size);
    if (status == CM_OK)
        status = cm_sync(comm, vote->stream, vote->timeout_s);
    if (status == CM_OK)
        *all = vote->gather_host;
    return status;
}
