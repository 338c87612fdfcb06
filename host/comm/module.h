/*
 * module.h: what comm.c and the backends of this folder know of each other.
 */
#ifndef HOST_COMM_MODULE_H
#define HOST_COMM_MODULE_H

#include <stddef.h>

#include "clustermark/comm.h"

extern const struct cm_comm_ops cm_comm_self;

/* "Open MPI v4.1.4, package: ..." as "Open MPI 4.1.4", "MPICH Version:\t4.0.2\n..." as
 * "MPICH 4.0.2". */
void cm_mpi_library_name(const char *version_text, char *name, size_t size);

#endif
