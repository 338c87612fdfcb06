/* Whether the ranks that a launcher started have any way to one another. */
#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "host/measure/meet.h"

enum cm_status cm_world_reach(const struct cm_device_ops *device, const struct cm_world *world)
{
    const char *name = cm_comm_default(device, world->size);
    const char *means = name;
    struct cm_meeting meeting;
    bool needed = false;
    enum cm_status status = CM_OK;
    if (world->size == 1)
        return CM_OK;
    if (cm_comm_find(name) != NULL)
        status = cm_meeting_outside(world, name, &meeting, &needed);
    if (status == CM_OK && needed && cm_meeting_place(world) == CM_MEET_BY_MPI)
        means = "mpi";
    if (status != CM_OK || cm_comm_find(means) != NULL)
        return status;
    return cm_error(CM_USAGE,
                    "%s started %u ranks, and this program cannot make one world of them without "
                    "%s: %s; %u runs of one rank each are refused",
                    world->launcher, world->size, means, cm_comm_missing(means), world->size);
}
