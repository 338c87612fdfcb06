/* Waiting for streams and communicators at once. */
#include "host/measure/sync.h"

#include <math.h>

#include "clustermark/error.h"
#include "host/measure/clock.h"

/* How often the communicator is asked; each time the device says that it is late. */
#define SLICE_S 0.25

/* Why something that a communicator has queued will never be done; CM_OK while it may. */
static enum cm_status look(struct cm_comm *comm, struct cm_comm *const *parts, size_t part_count)
{
    enum cm_status status = comm->ops->async_error(comm);
    for (size_t i = 0; i < part_count && status == CM_OK; i++)
        status = parts[i]->ops->async_error(parts[i]);
    return status;
}

enum cm_status cm_sync_parts(struct cm_comm *comm, struct cm_comm *const *parts, size_t part_count,
                             struct cm_stream *stream, double timeout_s)
{
    const struct cm_device_ops *device = stream->device->ops;
    const char *place = stream->device->info.bus_id;
    double end_s = cm_clock_s() + timeout_s;
    struct cm_error_record before;
    cm_error_save(&before);
    for (;;) {
        double left_s = end_s - cm_clock_s();
        enum cm_status status = device->stream_sync(stream, fmin(fmax(left_s, 0), SLICE_S));
        if (status == CM_OK) /* that a slice was not enough says nothing any more */
            cm_error_restore(&before);
        if (status != CM_TIMEOUT)
            return status;
        if (left_s <= SLICE_S)
            return cm_error_at(CM_TIMEOUT,
                               "%s%s%s: what was queued is not done after %g s: ", device->name,
                               place[0] ? " " : "", place, timeout_s);
        if (look(comm, parts, part_count) != CM_OK)
            return cm_error_at(CM_TIMEOUT, "%s%s%s: what was queued is not done: ", device->name,
                               place[0] ? " " : "", place);
    }
}

enum cm_status cm_sync(struct cm_comm *comm, struct cm_stream *stream, double timeout_s)
{
    return cm_sync_parts(comm, NULL, 0, stream, timeout_s);
}
