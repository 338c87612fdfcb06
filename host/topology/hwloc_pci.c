/* GPUs, NICs, switches and NVLinks among hwloc's I/O objects.
 *
 * hwloc_get_common_ancestor_obj crashes on I/O objects at unequal depth, and the transformations of
 * the NVLink matrix lose entries on machines without NVSwitch; so parents and matrix are walked
 * here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/model.h"
#include "host/topology/hwloc_private.h"

enum osdev { OSDEV_VERBS, OSDEV_NETWORK, OSDEV_GPU };

static bool osdev_is(hwloc_obj_t object, enum osdev what)
{
    if (object->type != HWLOC_OBJ_OS_DEVICE)
        return false;
#if HWLOC_API_VERSION >= 0x00030000
    unsigned long types = object->attr->osdev.types;
    switch (what) {
    case OSDEV_VERBS:
        return (types & HWLOC_OBJ_OSDEV_OPENFABRICS) != 0;
    case OSDEV_NETWORK:
        return (types & HWLOC_OBJ_OSDEV_NETWORK) != 0;
    case OSDEV_GPU:
        return (types & (HWLOC_OBJ_OSDEV_GPU | HWLOC_OBJ_OSDEV_COPROC)) != 0;
    }
#else
    hwloc_obj_osdev_type_t type = object->attr->osdev.type;
    switch (what) {
    case OSDEV_VERBS:
        return type == HWLOC_OBJ_OSDEV_OPENFABRICS;
    case OSDEV_NETWORK:
        return type == HWLOC_OBJ_OSDEV_NETWORK;
    case OSDEV_GPU:
        return type == HWLOC_OBJ_OSDEV_GPU || type == HWLOC_OBJ_OSDEV_COPROC;
    }
#endif
    return false;
}

static hwloc_obj_t find_osdev(hwloc_obj_t pci, enum osdev what)
{
    for (hwloc_obj_t child = pci->io_first_child; child != NULL; child = child->next_sibling) {
        if (osdev_is(child, what) && child->name != NULL)
            return child;
    }
    return NULL;
}

static bool is_pci_bridge(hwloc_obj_t object)
{
    return object != NULL && object->type == HWLOC_OBJ_BRIDGE &&
           object->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_PCI;
}

static bool is_io(hwloc_obj_t object)
{
    return object->type == HWLOC_OBJ_BRIDGE || object->type == HWLOC_OBJ_PCI_DEVICE ||
           object->type == HWLOC_OBJ_OS_DEVICE;
}

static void bus_id_of(const struct hwloc_pcidev_attr_s *pci, char bus_id[24])
{
    snprintf(bus_id, 24, "%04x:%02x:%02x.%x", (unsigned)pci->domain, pci->bus, pci->dev, pci->func);
}

/* The memory-and-processor side of a device. */
static void read_locality(hwloc_obj_t object, struct cm_topology *topology,
                          struct cm_pci_device *device)
{
    size_t with_cpus = 0, last = 0, local = 0, found = 0;
    while (object != NULL && is_io(object))
        object = object->parent;
    device->numa = -1;
    for (size_t i = 0; i < topology->numa_count; i++) {
        if (topology->numa[i].gpu_memory)
            continue;
        with_cpus++;
        last = i;
        if (object != NULL && object->nodeset != NULL &&
            hwloc_bitmap_isset(object->nodeset, topology->numa[i].os_index)) {
            local++;
            found = i;
        }
    }
    if (with_cpus == 1)
        device->numa = (int)last;
    else if (local == 1)
        device->numa = (int)found;
    /* Attached to the whole of a machine with several nodes: nothing is known. */
    if (object != NULL && (with_cpus == 1 || local < with_cpus))
        cm_hwloc_cpuset(object->cpuset, &device->local_cpus);
}

/* Ids are the bridges' numbers in hwloc, which count all bridges of the machine. */
static enum cm_status read_bridges(hwloc_obj_t object, struct cm_pci_device *device)
{
    unsigned count = 0;
    for (hwloc_obj_t up = object; up != NULL && is_io(up); up = up->parent)
        count += up->type == HWLOC_OBJ_BRIDGE;
    device->bridges = cm_alloc(count, sizeof *device->bridges);
    if (device->bridges == NULL)
        return CM_NO_MEMORY;
    for (hwloc_obj_t up = object; up != NULL && is_io(up); up = up->parent) {
        if (up->type == HWLOC_OBJ_BRIDGE)
            device->bridges[device->bridge_count++] = up->logical_index;
    }
    return CM_OK;
}

static enum cm_status add_device(hwloc_obj_t object, const struct hwloc_pcidev_attr_s *pci,
                                 enum cm_pci_kind kind, struct cm_topology *topology)
{
    struct cm_pci_device device;
    memset(&device, 0, sizeof device);
    device.kind = kind;
    device.vendor_id = pci->vendor_id;
    device.device_id = pci->device_id;
    device.class_id = pci->class_id;
    device.link.current = (double)pci->linkspeed * 1e9;
    if (!(device.link.current > 0 && device.link.current < 1e13))
        device.link.current = 0;
    bus_id_of(pci, device.bus_id);
    read_locality(object, topology, &device);
    cm_pci_name(&device);
    struct {
        struct cm_pci_device **devices;
        size_t *count;
    } lists[] = {
        [CM_PCI_GPU] = {&topology->gpus, &topology->gpu_count},
        [CM_PCI_NIC] = {&topology->nics, &topology->nic_count},
        [CM_PCI_NVSWITCH] = {&topology->nvswitches, &topology->nvswitch_count},
        [CM_PCI_SWITCH] = {&topology->switches, &topology->switch_count},
    };
    if (*lists[kind].count == CM_HWLOC_DEVICES_MAX)
        return cm_error(CM_USAGE, "%.200s: more than %d devices of one kind", topology->source,
                        CM_HWLOC_DEVICES_MAX);
    enum cm_status status = read_bridges(object, &device);
    if (status != CM_OK)
        return status;
    struct cm_pci_device *slot =
        cm_topology_push(lists[kind].devices, lists[kind].count, sizeof *slot);
    if (slot == NULL) {
        cm_free(device.bridges);
        return CM_NO_MEMORY;
    }
    *slot = device;
    return CM_OK;
}

static struct cm_pci_device *last_of(struct cm_pci_device *devices, size_t count)
{
    return &devices[count - 1];
}

/* The driver's or CUDA's name of the model, if it was there when the file was made. */
static void name_gpu(hwloc_obj_t object, struct cm_pci_device *gpu)
{
    const char *model = NULL;
    for (hwloc_obj_t child = object->io_first_child; child != NULL; child = child->next_sibling) {
        if (!osdev_is(child, OSDEV_GPU) || child->name == NULL)
            continue;
        bool cuda = strncmp(child->name, "cuda", 4) == 0;
        if (!cuda && strncmp(child->name, "nvml", 4) != 0)
            continue;
        if (cuda || gpu->os_name[0] == '\0')
            cm_topology_copy(gpu->os_name, sizeof gpu->os_name, child->name);
        if (model == NULL)
            model = cm_hwloc_info(child, "GPUModel");
    }
    char copy[80];
    if (model != NULL) {
        cm_topology_copy(copy, sizeof copy, model);
        snprintf(gpu->name, sizeof gpu->name, "%s%s",
                 strncmp(copy, "NVIDIA", 6) == 0 ? "" : "NVIDIA ", copy);
    } else if (cm_gpu_model(gpu->vendor_id, gpu->device_id) == NULL &&
               (model = cm_hwloc_info(object, "PCIDevice")) != NULL) {
        cm_topology_copy(copy, sizeof copy, model);
        snprintf(gpu->name, sizeof gpu->name, "NVIDIA %s", copy);
    } else if (gpu->vendor_id == 0 || gpu->vendor_id == 0xffff) {
        snprintf(gpu->name, sizeof gpu->name, "NVIDIA GPU");
    }
}

static void name_nic(hwloc_obj_t object, struct cm_pci_device *nic)
{
    hwloc_obj_t osdev = find_osdev(object, OSDEV_VERBS);
    if (osdev == NULL)
        osdev = find_osdev(object, OSDEV_NETWORK);
    if (osdev != NULL)
        cm_topology_copy(nic->os_name, sizeof nic->os_name, osdev->name);
}

/* POWER9 firmware may hide a GPU's ids; that its memory is a NUMA node gives it away. */
static bool has_memory_node(const struct cm_topology *topology,
                            const struct hwloc_pcidev_attr_s *pci)
{
    char bus_id[24];
    bus_id_of(pci, bus_id);
    for (size_t i = 0; i < topology->numa_count; i++) {
        if (strcmp(topology->numa[i].gpu, bus_id) == 0)
            return true;
    }
    return false;
}

static void complete_link(const struct cm_topology *topology, hwloc_obj_t object,
                          struct cm_pci_device *device)
{
    char port[24];
    const struct cm_gpu_model *model = cm_gpu_model(device->vendor_id, device->device_id);
    if (topology->live) {
        bool bridged = is_pci_bridge(object->parent);
        if (bridged)
            bus_id_of(&object->parent->attr->bridge.upstream.pci, port);
        cm_link_read("/sys", bridged ? port : NULL, device);
    } else if (model != NULL) {
        /* hwloc's files have only what the link did at the time. */
        device->link.max_gts = cm_link_generation_gts(model->pcie_generation);
        device->link.max_width = 16;
        device->link.maximum = cm_link_rate(device->link.max_gts, 16);
    }
}

static enum cm_status read_device(hwloc_obj_t object, struct cm_topology *topology)
{
    const struct hwloc_pcidev_attr_s *pci = &object->attr->pcidev;
    struct cm_pci_device *device = NULL;
    enum cm_status status = CM_OK;
    bool verbs = find_osdev(object, OSDEV_VERBS) != NULL;
    bool named = object->subtype != NULL && strcmp(object->subtype, "NVSwitch") == 0;
    if (cm_is_nvidia_gpu(pci->vendor_id, pci->class_id) || has_memory_node(topology, pci)) {
        status = add_device(object, pci, CM_PCI_GPU, topology);
        if (status == CM_OK) {
            device = last_of(topology->gpus, topology->gpu_count);
            name_gpu(object, device);
        }
    } else if (cm_is_nvswitch(pci->vendor_id, pci->class_id) || named) {
        status = add_device(object, pci, CM_PCI_NVSWITCH, topology);
    } else if (cm_is_fabric_nic(pci->vendor_id, pci->device_id, pci->class_id, verbs)) {
        status = add_device(object, pci, CM_PCI_NIC, topology);
        if (status == CM_OK) {
            device = last_of(topology->nics, topology->nic_count);
            name_nic(object, device);
        }
    }
    if (device != NULL)
        complete_link(topology, object, device);
    return status;
}

/* A switch is its upstream port, with ports as children. Bridges right below the host bridge are
 * root ports, below which levels of ports alternate: upstream, downstream. Some virtual machines
 * leave the root port out. */
static bool is_switch(hwloc_obj_t object)
{
    unsigned ports = 0, level = 0;
    if (!is_pci_bridge(object))
        return false;
    for (hwloc_obj_t child = object->io_first_child; child != NULL; child = child->next_sibling)
        ports += is_pci_bridge(child);
    for (hwloc_obj_t up = object->parent; is_pci_bridge(up); up = up->parent)
        level++;
    return ports >= 2 || (ports == 1 && level % 2 == 1);
}

static double matrix_at(const struct hwloc_distances_s *matrix, unsigned row, unsigned column)
{
    return (double)matrix->values[(size_t)row * matrix->nbobjs + column];
}

static int gpu_of(const struct cm_topology *topology, hwloc_obj_t object)
{
    char bus_id[24];
    while (object != NULL && object->type == HWLOC_OBJ_OS_DEVICE)
        object = object->parent;
    if (object == NULL || object->type != HWLOC_OBJ_PCI_DEVICE)
        return -1;
    bus_id_of(&object->attr->pcidev, bus_id);
    return cm_topology_gpu(topology, bus_id);
}

/* From MB/s to links. What one link is depends on the GPU; hwloc before 2.11 counted both
 * directions from A100 on, which shows as more links than the GPU has. */
static void count_links(const struct cm_topology *topology, double mega_bytes, double total,
                        struct cm_nvlink *link)
{
    const struct cm_pci_device *gpu = &topology->gpus[link->gpu];
    const struct cm_gpu_model *model = cm_gpu_model(gpu->vendor_id, gpu->device_id);
    double unit = 25e9;
    if (model != NULL && model->nvlink_bytes_per_s > 0)
        unit = model->nvlink_bytes_per_s;
    else if ((uint64_t)mega_bytes % 25000 != 0)
        unit = 20e9;
    double bytes_per_s = mega_bytes * 1e6;
    if (model != NULL && model->nvlinks > 0 && total * 1e6 / unit > model->nvlinks * 1.5)
        bytes_per_s /= 2;
    double links = bytes_per_s / unit + 0.5;
    link->count = links < 1 ? 1 : links > 1000 ? 1000 : (unsigned)links;
    link->bytes_per_s = bytes_per_s;
}

static enum cm_status add_link(struct cm_topology *topology, const struct cm_nvlink *link,
                               double mega_bytes, double total)
{
    if (mega_bytes <= 0 || mega_bytes > 1e9)
        return CM_OK;
    struct cm_nvlink *slot =
        cm_topology_push(&topology->nvlinks, &topology->nvlink_count, sizeof *slot);
    if (slot == NULL)
        return CM_NO_MEMORY;
    *slot = *link;
    count_links(topology, mega_bytes, total, slot);
    return CM_OK;
}

/* One GPU's row: direct links one by one, all switch ports in one sum, the processor's. */
static enum cm_status read_row(const struct hwloc_distances_s *matrix, unsigned row, int gpu,
                               struct cm_topology *topology)
{
    double to_switch = 0, to_cpu = 0, total = 0;
    enum cm_status status = CM_OK;
    for (unsigned column = 0; column < matrix->nbobjs; column++)
        total += column != row ? matrix_at(matrix, row, column) : 0;
    for (unsigned column = 0; column < matrix->nbobjs && status == CM_OK; column++) {
        hwloc_obj_t peer = matrix->objs[column];
        double mega_bytes = matrix_at(matrix, row, column);
        int peer_gpu = gpu_of(topology, peer);
        if (column == row || peer == NULL || mega_bytes <= 0)
            continue;
        struct cm_nvlink link = {.gpu = gpu, .peer_gpu = peer_gpu};
        if (peer_gpu >= 0 && peer_gpu != gpu)
            status = add_link(topology, &link, mega_bytes, total);
        else if (peer->type == HWLOC_OBJ_PCI_DEVICE)
            to_switch += mega_bytes;
        else if (!is_io(peer))
            to_cpu += mega_bytes;
    }
    struct cm_nvlink up = {.gpu = gpu, .peer_gpu = -1, .to_switch = true};
    struct cm_nvlink cpu = {.gpu = gpu, .peer_gpu = -1, .to_cpu = true};
    if (status == CM_OK)
        status = add_link(topology, &up, to_switch, total);
    if (status == CM_OK)
        status = add_link(topology, &cpu, to_cpu, total);
    return status;
}

static enum cm_status read_nvlinks(hwloc_topology_t machine, struct cm_topology *topology)
{
    struct hwloc_distances_s *matrix = NULL;
    unsigned count = 1;
    if (hwloc_distances_get_by_name(machine, "NVLinkBandwidth", &count, &matrix, 0) != 0 ||
        count == 0 || matrix == NULL)
        return CM_OK;
    enum cm_status status = CM_OK;
    for (unsigned row = 0; row < matrix->nbobjs && status == CM_OK; row++) {
        int gpu = matrix->objs[row] != NULL ? gpu_of(topology, matrix->objs[row]) : -1;
        if (gpu >= 0)
            status = read_row(matrix, row, gpu, topology);
    }
    hwloc_distances_release(machine, matrix);
    return status;
}

enum cm_status cm_hwloc_devices(hwloc_topology_t machine, struct cm_topology *topology)
{
    enum cm_status status = CM_OK;
    hwloc_obj_t object = NULL;
    while (status == CM_OK && (object = hwloc_get_next_bridge(machine, object)) != NULL) {
        if (!is_switch(object))
            continue;
        status = add_device(object, &object->attr->bridge.upstream.pci, CM_PCI_SWITCH, topology);
    }
    object = NULL;
    while (status == CM_OK && (object = hwloc_get_next_pcidev(machine, object)) != NULL)
        status = read_device(object, topology);
    if (status == CM_OK)
        status = cm_topology_arrange(topology);
    if (status == CM_OK)
        status = read_nvlinks(machine, topology);
    return status;
}
