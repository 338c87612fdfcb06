/*
 * hwloc_private.h: what the hwloc*.c files share. hwloc.h is included by them alone.
 */
#ifndef CM_TOPOLOGY_HWLOC_PRIVATE_H
#define CM_TOPOLOGY_HWLOC_PRIVATE_H

#include <hwloc.h>

#include "host/topology/internal.h"
#include "host/topology/xml.h"

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

/* hwloc_check.c: the objects of a file. */
enum cm_hwloc_class {
    CM_HWLOC_NONE,
    CM_HWLOC_MACHINE,
    CM_HWLOC_NORMAL,
    CM_HWLOC_PU,
    CM_HWLOC_MEMCACHE,
    CM_HWLOC_NUMANODE,
    CM_HWLOC_BRIDGE, /* from here on without sets */
    CM_HWLOC_PCIDEV,
    CM_HWLOC_OSDEV
};
#define CM_HWLOC_SETS 4
struct cm_hwloc_level {
    enum cm_hwloc_class class;
    struct cm_cpuset sets[CM_HWLOC_SETS];
};
struct cm_hwloc_checker {
    bool machine;                       /* was seen */
    struct cm_cpuset processors, nodes; /* seen so far, by number */
    struct cm_hwloc_level levels[CM_XML_DEPTH_MAX];
};
/* The <object> just opened. Objects are inside objects alone, the first one at depth 2. */
enum cm_status cm_hwloc_check_object(const struct cm_xml *xml, struct cm_hwloc_checker *checker);
bool cm_hwloc_parse_set(const char *text, struct cm_cpuset *set);

/* hwloc_clean.c: the file checked and written anew with nothing but what is used, so that hwloc's
 * own parsers see no surprises. */
enum cm_status cm_hwloc_clean(const char *name, const char *text, size_t length,
                              struct cm_str *clean);

#endif
