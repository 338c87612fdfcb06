/* The machine as hwloc sees it, live or from an hwloc v2 XML file: packages, NUMA nodes, cores. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "host/topology/hwloc_private.h"

enum cm_status cm_hwloc_open(hwloc_topology_t *machine)
{
    /* What starts vendor libraries, and "pci": without it hwloc reads the same from sysfs, with it
     * a library stays that never frees its tables. */
    static const char *const unwanted[] = {"opencl", "gl", "cuda", "rsmi", "levelzero", "pci"};
    /* 2 hides everything; a setting of the user's stands. */
    setenv("HWLOC_HIDE_ERRORS", "2", 0);
    if (hwloc_topology_init(machine) != 0)
        return cm_error_errno(CM_SYSTEM, "hwloc_topology_init failed");
    for (size_t i = 0; i < sizeof unwanted / sizeof unwanted[0]; i++)
        hwloc_topology_set_components(*machine, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
                                      unwanted[i]);
    return CM_OK;
}

void cm_hwloc_cpuset(hwloc_const_bitmap_t bitmap, struct cm_cpuset *set)
{
    memset(set, 0, sizeof *set);
    if (bitmap == NULL)
        return;
    for (int cpu = hwloc_bitmap_first(bitmap); cpu >= 0 && cpu < CM_CPUS_MAX;
         cpu = hwloc_bitmap_next(bitmap, cpu))
        cm_cpuset_add(set, (unsigned)cpu);
}

const char *cm_hwloc_info(hwloc_obj_t object, const char *name)
{
    return hwloc_obj_get_info_by_name(object, name);
}

static hwloc_obj_t ancestor(hwloc_obj_t object, hwloc_obj_type_t type)
{
    while (object != NULL && object->type != type)
        object = object->parent;
    return object;
}

static enum cm_status read_packages(hwloc_topology_t machine, struct cm_topology *topology)
{
    hwloc_obj_t object = NULL;
    while ((object = hwloc_get_next_obj_by_type(machine, HWLOC_OBJ_PACKAGE, object)) != NULL) {
        struct cm_package *package =
            cm_topology_push(&topology->packages, &topology->package_count, sizeof *package);
        if (package == NULL)
            return CM_NO_MEMORY;
        package->os_index = object->os_index == HWLOC_UNKNOWN_INDEX
                                ? (unsigned)topology->package_count - 1
                                : object->os_index;
        const char *model = cm_hwloc_info(object, "CPUModel");
        const char *vendor = cm_hwloc_info(object, "CPUVendor");
        if (model == NULL)
            model = cm_hwloc_info(hwloc_get_root_obj(machine), "Architecture");
        cm_topology_copy(package->model, sizeof package->model, model != NULL ? model : "");
        cm_topology_copy(package->vendor, sizeof package->vendor, vendor != NULL ? vendor : "");
        cm_hwloc_cpuset(object->cpuset, &package->cpus);
        package->pus = cm_cpuset_count(&package->cpus);
    }
    return CM_OK;
}

static enum cm_status read_nodes(hwloc_topology_t machine, struct cm_topology *topology)
{
    hwloc_obj_t object = NULL;
    while ((object = hwloc_get_next_obj_by_type(machine, HWLOC_OBJ_NUMANODE, object)) != NULL) {
        struct cm_numa_node *node =
            cm_topology_push(&topology->numa, &topology->numa_count, sizeof *node);
        if (node == NULL)
            return CM_NO_MEMORY;
        hwloc_obj_t package = ancestor(object, HWLOC_OBJ_PACKAGE);
        const char *gpu = cm_hwloc_info(object, "PCIBusID");
        node->os_index = object->os_index == HWLOC_UNKNOWN_INDEX ? 0 : object->os_index;
        node->package = package != NULL ? (int)package->logical_index : -1;
        node->memory_bytes = object->attr->numanode.local_memory;
        node->gpu_memory = object->subtype != NULL && strcmp(object->subtype, "GPUMemory") == 0;
        if (node->gpu_memory && gpu != NULL && !cm_bus_id_normal(gpu, node->gpu))
            node->gpu[0] = '\0';
        if (!node->gpu_memory)
            cm_hwloc_cpuset(object->cpuset, &node->cpus);
    }
    return CM_OK;
}

static int node_of_cpu(const struct cm_topology *topology, unsigned cpu)
{
    for (size_t i = 0; i < topology->numa_count; i++) {
        if (cm_cpuset_has(&topology->numa[i].cpus, cpu))
            return (int)i;
    }
    return -1;
}

/* Cores, or processors where the machine tells of no cores. */
static enum cm_status read_cores(hwloc_topology_t machine, struct cm_topology *topology)
{
    hwloc_obj_type_t type =
        hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    hwloc_obj_t object = NULL;
    while ((object = hwloc_get_next_obj_by_type(machine, type, object)) != NULL) {
        int first = hwloc_bitmap_first(object->cpuset);
        if (first < 0 || first >= CM_CPUS_MAX)
            continue;
        struct cm_core *core =
            cm_topology_push(&topology->cores, &topology->core_count, sizeof *core);
        if (core == NULL)
            return CM_NO_MEMORY;
        hwloc_obj_t package = ancestor(object, HWLOC_OBJ_PACKAGE);
        cm_hwloc_cpuset(object->cpuset, &core->pus);
        core->package = package != NULL ? (int)package->logical_index : -1;
        core->numa = node_of_cpu(topology, (unsigned)first);
        if (package != NULL && package->logical_index < topology->package_count)
            topology->packages[package->logical_index].cores++;
    }
    return CM_OK;
}

static enum cm_status read_machine(hwloc_topology_t machine, struct cm_topology *topology)
{
    snprintf(topology->format, sizeof topology->format, "hwloc");
    hwloc_bitmap_t usable = hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(machine));
    if (usable == NULL)
        return cm_error(CM_NO_MEMORY, "out of memory in hwloc");
    hwloc_bitmap_and(usable, usable, hwloc_topology_get_topology_cpuset(machine));
    cm_hwloc_cpuset(usable, &topology->allowed);
    hwloc_bitmap_free(usable);
    enum cm_status status = read_packages(machine, topology);
    if (status == CM_OK)
        status = read_nodes(machine, topology);
    if (status == CM_OK)
        status = read_cores(machine, topology);
    if (status == CM_OK)
        status = cm_hwloc_devices(machine, topology);
    return status;
}

/* All I/O objects: the filter for "important" ones drops NVSwitches. Caches are not used. */
static int load(hwloc_topology_t machine)
{
    if (hwloc_topology_set_io_types_filter(machine, HWLOC_TYPE_FILTER_KEEP_ALL) != 0 ||
        hwloc_topology_set_cache_types_filter(machine, HWLOC_TYPE_FILTER_KEEP_NONE) != 0)
        return -1;
    return hwloc_topology_load(machine);
}

enum cm_status cm_hwloc_read_live(struct cm_topology *topology)
{
    hwloc_topology_t machine = NULL;
    enum cm_status status = cm_hwloc_open(&machine);
    if (status != CM_OK)
        return status;
    if (load(machine) != 0)
        status = cm_error_errno(CM_SYSTEM, "hwloc cannot read this machine's topology");
    if (status == CM_OK) {
        /* HWLOC_XMLFILE and the like put another machine in place of this one. */
        topology->live = hwloc_topology_is_thissystem(machine) != 0;
        snprintf(topology->source, sizeof topology->source, "%s",
                 topology->live ? "live" : "hwloc's environment variables");
        status = read_machine(machine, topology);
    }
    if (status == CM_OK && topology->live) {
        cm_limits_read("", &topology->limits);
        topology->limits.cpus_allowed = cm_cpuset_count(&topology->allowed);
    }
    hwloc_topology_destroy(machine);
    return status;
}

enum cm_status cm_hwloc_read_xml(const char *name, const char *text, size_t length,
                                 struct cm_topology *topology)
{
    struct cm_str clean = CM_STR_INIT;
    hwloc_topology_t machine = NULL;
    enum cm_status status = cm_hwloc_clean(name, text, length, &clean);
    if (status != CM_OK)
        goto release_clean;
    status = cm_hwloc_open(&machine);
    if (status != CM_OK)
        goto release_clean;
    if (hwloc_topology_set_xmlbuffer(machine, clean.text, (int)clean.length + 1) != 0 ||
        load(machine) != 0)
        status =
            cm_error(CM_USAGE, "%.200s: hwloc cannot read it; is it whole and from lstopo?", name);
    if (status == CM_OK)
        status = read_machine(machine, topology);
    hwloc_topology_destroy(machine);
release_clean:
    cm_str_release(&clean);
    return status;
}
