/* A few bytes from rank to rank. */
#include "host/measure/exchange.h"

#include <string.h>

#include "host/measure/sync.h"

struct buffers {
    void *host, *shared;
};

static void release(const struct cm_exchange *exchange, struct buffers *buffers)
{
    struct cm_device *device = exchange->device;
    if (buffers->host != NULL)
        device->ops->free(device, CM_MEMORY_HOST, buffers->host);
    if (buffers->shared != NULL)
        device->ops->free(device, CM_MEMORY_COMM, buffers->shared);
}

static enum cm_status allocate(const struct cm_exchange *exchange, size_t size,
                               struct buffers *buffers)
{
    struct cm_device *device = exchange->device;
    *buffers = (struct buffers){NULL, NULL};
    enum cm_status status = device->ops->alloc(device, CM_MEMORY_HOST, size, &buffers->host);
    if (status == CM_OK)
        status = device->ops->alloc(device, CM_MEMORY_COMM, size, &buffers->shared);
    if (status != CM_OK)
        release(exchange, buffers);
    return status;
}

/* The whole of `size` bytes is there and back, what happens in between is `move`'s. What is queued
 * and never done keeps its memory. */
static enum cm_status finish(const struct cm_exchange *exchange, enum cm_status status,
                             struct buffers *buffers, void *to, size_t size)
{
    const struct cm_device_ops *device = exchange->device->ops;
    if (status == CM_OK)
        status = device->copy(exchange->stream, buffers->host, buffers->shared, size);
    if (status == CM_OK)
        status = cm_sync(exchange->comm, exchange->stream, exchange->timeout_s);
    if (status == CM_OK)
        memcpy(to, buffers->host, size);
    if (status == CM_OK)
        release(exchange, buffers);
    return status;
}

enum cm_status cm_exchange_gather(const struct cm_exchange *exchange, const void *own, size_t size,
                                  void *all)
{
    struct cm_comm *comm = exchange->comm;
    struct buffers buffers;
    size_t whole = (size_t)comm->size * size, place = (size_t)comm->rank * size;
    enum cm_status status = allocate(exchange, whole, &buffers);
    if (status != CM_OK)
        return status;
    char *host = (char *)buffers.host + place, *shared = (char *)buffers.shared + place;
    memcpy(host, own, size);
    status = exchange->device->ops->copy(exchange->stream, shared, host, size);
    if (status == CM_OK)
        status = comm->ops->all_gather(comm, exchange->stream, shared, buffers.shared, size, CM_I8);
    return finish(exchange, status, &buffers, all, whole);
}

enum cm_status cm_exchange_broadcast(const struct cm_exchange *exchange, unsigned root, void *bytes,
                                     size_t size)
{
    struct cm_comm *comm = exchange->comm;
    struct buffers buffers;
    enum cm_status status = allocate(exchange, size, &buffers);
    if (status != CM_OK)
        return status;
    memcpy(buffers.host, bytes, size);
    status = exchange->device->ops->copy(exchange->stream, buffers.shared, buffers.host, size);
    if (status == CM_OK)
        status = comm->ops->broadcast(comm, exchange->stream, buffers.shared, size, CM_I8, root);
    return finish(exchange, status, &buffers, bytes, size);
}
