/*
 * sync.h: waiting for a stream that may wait for other ranks.
 */
#ifndef HOST_MEASURE_SYNC_H
#define HOST_MEASURE_SYNC_H

#include "clustermark/comm.h"

/* Wait for all that was queued, as the device's stream_sync. A communicator that fails meanwhile,
 * on whatever stream, ends the wait with CM_TIMEOUT and its message: what is queued may never be
 * done, and is not done yet. With CM_OK the recorded message is what it was before. */
enum cm_status cm_sync(struct cm_comm *comm, struct cm_stream *stream, double timeout_s);
/* The same with parts of that communicator, each of which may fail for itself. */
enum cm_status cm_sync_parts(struct cm_comm *comm, struct cm_comm *const *parts, size_t part_count,
                             struct cm_stream *stream, double timeout_s);

#endif
