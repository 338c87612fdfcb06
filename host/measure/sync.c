/* Waiting for streams and communicators at once. */
#include "host/measure/sync.h"

#include <math.h>

#include "clustermark/error.h"
#include "host/measure/clock.h"

/* How often the communicator is asked; each time the device says that it is late. */
#define SLICE_S 0.25

enum cm_status cm_sync(struct cm_comm *comm, struct cm_stream *stream, double timeout_s)
{
    const struct cm_device_ops *device = stream->device->ops;
    if (device->is_host) /* the communicator's failure is the stream's */
        return device->stream_sync(stream, timeout_s);
    double end_s = cm_clock_s() + timeout_s;
    for (;;) {
        double left_s = end_s - cm_clock_s();
        enum cm_status status = device->stream_sync(stream, fmin(fmax(left_s, 0), SLICE_S));
        if (status != CM_TIMEOUT)
            return status;
        if (comm->ops->async_error(comm) != CM_OK)
            return cm_error_at(CM_TIMEOUT, "%s %s: what was queued is not done: ", device->name,
                               stream->device->info.bus_id);
        if (left_s <= SLICE_S)
            return cm_error(CM_TIMEOUT, "%s %s: what was queued is not done after %g s",
                            device->name, stream->device->info.bus_id, timeout_s);
    }
}
