/*
 * exchange.h: a few bytes from rank to rank before anything is measured, through the communicator.
 *
 * Memory of the device is made and freed within a call. Every rank calls it.
 */
#ifndef HOST_MEASURE_EXCHANGE_H
#define HOST_MEASURE_EXCHANGE_H

#include <stddef.h>

#include "clustermark/comm.h"

struct cm_exchange {
    struct cm_device *device;
    struct cm_comm *comm;
    struct cm_stream *stream;
    double timeout_s;
};

/* `size` bytes of each rank, in order, into `all` (comm->size * size bytes) on every rank. */
enum cm_status cm_exchange_gather(const struct cm_exchange *exchange, const void *own, size_t size,
                                  void *all);
/* What `bytes` holds on `root`, on every rank. */
enum cm_status cm_exchange_broadcast(const struct cm_exchange *exchange, unsigned root, void *bytes,
                                     size_t size);

#endif
