/*
 * meet.h: how ranks that an outside launcher started find each other, where their library leaves
 * that to others.
 */
#ifndef HOST_MEASURE_MEET_H
#define HOST_MEASURE_MEET_H

#include "clustermark/comm.h"
#include "host/measure/world_check.h"

/* What the environment says about where NCCL's ranks meet. */
enum cm_meeting_place {
    CM_MEET_BY_NCCL, /* NCCL_COMM_ID names it */
    CM_MEET_BY_MPI,  /* the launcher brings it */
    CM_MEET_BY_TCP,  /* MASTER_ADDR names rank 0's node, or Slurm does */
    CM_MEET_NOWHERE,
};
enum cm_meeting_place cm_meeting_place(const struct cm_world *world);

/* The meeting of an outside launcher's ranks for the communicator `comm`, where its library does
 * not bring them together: *needed is set then. CM_USAGE when there is no way. `world` must stay.
 */
enum cm_status cm_meeting_outside(const struct cm_world *world, const char *comm,
                                  struct cm_meeting *meeting, bool *needed);

/* What this rank is: ranks that meet from now on compare it first (cm_world_compare), when their
 * own library has not seen them yet. `own` must stay; NULL ends it. *refused is set when they are
 * not one world: all of them know then, and rank 0 says why. */
void cm_meeting_compare(const struct cm_world_record *own, bool *refused);

#endif
