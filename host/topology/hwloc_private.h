/*
 * hwloc_private.h: what the hwloc*.c files share. hwloc.h is included by them alone.
 */
#ifndef CM_TOPOLOGY_HWLOC_PRIVATE_H
#define CM_TOPOLOGY_HWLOC_PRIVATE_H

#include <hwloc.h>

#include "host/topology/internal.h"

/* Machines have fewer; a file that claims more is not read. */
#define CM_HWLOC_DEVICES_MAX 4096

/* hwloc prints on its own and, with CUDA, OpenCL or GL plugins, starts vendor libraries: keep it
 * quiet and away from them. */
enum cm_status cm_hwloc_open(hwloc_topology_t *machine);

void cm_hwloc_cpuset(hwloc_const_bitmap_t bitmap, struct cm_cpuset *set);
/* An info's value, or NULL. */
const char *cm_hwloc_info(hwloc_obj_t object, const char *name);

/* hwloc_pci.c: GPUs, NICs, switches, NVLinks. */
enum cm_status cm_hwloc_devices(hwloc_topology_t machine, struct cm_topology *topology);

/* hwloc_clean.c: the file checked and written anew with nothing but what is used, so that hwloc's
 * own parsers see no surprises. */
enum cm_status cm_hwloc_clean(const char *name, const char *text, size_t length,
                              struct cm_str *clean);

#endif
