/* The topology back from its JSON, which may come from a stranger: whatever is out of range counts
 * as not known. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/topology/internal.h"

#define DEVICES_MAX 4096
#define BRIDGES_MAX 64

static void get_text(const json_t *object, const char *key, char *to, size_t size)
{
    const char *text = json_string_value(json_object_get(object, key));
    cm_topology_copy(to, size, text != NULL ? text : "");
}

static double get_number(const json_t *object, const char *key)
{
    double value = json_number_value(json_object_get(object, key));
    return isfinite(value) && value > 0 ? value : 0;
}

static unsigned get_count(const json_t *object, const char *key)
{
    double value = get_number(object, key);
    return value < 1e9 ? (unsigned)value : 0;
}

/* An index below `count`, -1 for none. */
static int get_index(const json_t *object, const char *key, size_t count)
{
    const json_t *value = json_object_get(object, key);
    json_int_t index = json_is_integer(value) ? json_integer_value(value) : -1;
    return index >= 0 && (size_t)index < count ? (int)index : -1;
}

static uint64_t get_bytes(const json_t *object, const char *key)
{
    double value = get_number(object, key);
    return value < 0x1p62 ? (uint64_t)value : 0;
}

static enum cm_status read_packages(const json_t *root, struct cm_topology *topology)
{
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(root, "packages"), index, row)
    {
        struct cm_package *package = cm_topology_push(&topology->packages, &topology->package_count,
                                                      sizeof *topology->packages);
        if (package == NULL)
            return CM_NO_MEMORY;
        package->os_index = get_count(row, "os_index");
        package->cores = get_count(row, "cores");
        package->pus = get_count(row, "processors");
        get_text(row, "model", package->model, sizeof package->model);
        get_text(row, "vendor", package->vendor, sizeof package->vendor);
    }
    return CM_OK;
}

static enum cm_status read_nodes(const json_t *root, struct cm_topology *topology)
{
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(root, "numa_nodes"), index, row)
    {
        struct cm_numa_node *node =
            cm_topology_push(&topology->numa, &topology->numa_count, sizeof *topology->numa);
        const char *cpus = json_string_value(json_object_get(row, "cpus"));
        if (node == NULL)
            return CM_NO_MEMORY;
        node->os_index = get_count(row, "os_index");
        node->package = get_index(row, "package", topology->package_count);
        node->memory_bytes = get_bytes(row, "memory_bytes");
        node->gpu_memory = json_is_true(json_object_get(row, "gpu_memory"));
        get_text(row, "gpu", node->gpu, sizeof node->gpu);
        get_text(row, "model", node->model, sizeof node->model);
        if (cpus != NULL && !cm_cpuset_parse(cpus, &node->cpus))
            node->cpus = (struct cm_cpuset){.bits = {0}};
    }
    return CM_OK;
}

static enum cm_status read_bridges(const json_t *row, struct cm_pci_device *device)
{
    const json_t *bridges = json_object_get(row, "bridges");
    size_t count = json_array_size(bridges);
    if (!json_is_array(bridges) || count > BRIDGES_MAX)
        return cm_error(CM_UNSUPPORTED, "the machine's bridges are not in this file");
    device->bridges = cm_alloc(count, sizeof *device->bridges);
    if (device->bridges == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        device->bridges[i] = (uint32_t)json_integer_value(json_array_get(bridges, i));
    device->bridge_count = (unsigned)count;
    return CM_OK;
}

static enum cm_status read_device(const json_t *row, enum cm_pci_kind kind, size_t switches,
                                  const struct cm_topology *topology, struct cm_pci_device *device)
{
    const json_t *link = json_object_get(row, "link");
    device->kind = kind;
    get_text(row, "bus_id", device->bus_id, sizeof device->bus_id);
    get_text(row, "name", device->name, sizeof device->name);
    get_text(row, "os_name", device->os_name, sizeof device->os_name);
    device->numa = get_index(row, "numa", topology->numa_count);
    device->parent_switch = get_index(row, "switch", switches);
    device->management = json_is_true(json_object_get(row, "management"));
    device->net_bytes_per_s = get_number(row, "rate_bytes_per_s");
    device->link = (struct cm_pci_link){.current = get_number(link, "current_bytes_per_s"),
                                        .maximum = get_number(link, "maximum_bytes_per_s"),
                                        .width = get_count(link, "current_width"),
                                        .max_width = get_count(link, "maximum_width"),
                                        .gts = get_number(link, "current_gts"),
                                        .max_gts = get_number(link, "maximum_gts")};
    return read_bridges(row, device);
}

static enum cm_status read_devices(const json_t *root, struct cm_topology *topology)
{
    struct {
        const char *key;
        enum cm_pci_kind kind;
        struct cm_pci_device **devices;
        size_t *count;
    } lists[] = {
        {"gpus", CM_PCI_GPU, &topology->gpus, &topology->gpu_count},
        {"nics", CM_PCI_NIC, &topology->nics, &topology->nic_count},
        {"nvswitches", CM_PCI_NVSWITCH, &topology->nvswitches, &topology->nvswitch_count},
        {"switches", CM_PCI_SWITCH, &topology->switches, &topology->switch_count},
        {"other_devices", CM_PCI_OTHER, &topology->others, &topology->other_count},
    };
    enum cm_status status = CM_OK;
    size_t switches = json_array_size(json_object_get(root, "switches"));
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        size_t index;
        const json_t *row, *rows = json_object_get(root, lists[i].key);
        if (json_array_size(rows) > DEVICES_MAX)
            return cm_error(CM_UNSUPPORTED, "over %d %s", DEVICES_MAX, lists[i].key);
        json_array_foreach(rows, index, row)
        {
            struct cm_pci_device *device =
                status == CM_OK ? cm_topology_push(lists[i].devices, lists[i].count, sizeof *device)
                                : NULL;
            if (device == NULL)
                return status != CM_OK ? status : CM_NO_MEMORY;
            status = read_device(row, lists[i].kind, switches, topology, device);
        }
    }
    return status;
}

static enum cm_status read_nvlinks(const json_t *root, struct cm_topology *topology)
{
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(root, "nvlinks"), index, row)
    {
        const char *to = json_string_value(json_object_get(row, "to"));
        int gpu = get_index(row, "gpu", topology->gpu_count);
        if (gpu < 0 || to == NULL)
            continue;
        struct cm_nvlink *link = cm_topology_push(&topology->nvlinks, &topology->nvlink_count,
                                                  sizeof *topology->nvlinks);
        if (link == NULL)
            return CM_NO_MEMORY;
        link->gpu = gpu;
        link->peer_gpu = get_index(row, "peer_gpu", topology->gpu_count);
        link->to_switch = strcmp(to, "switch") == 0;
        link->to_cpu = strcmp(to, "cpu") == 0;
        link->count = get_count(row, "count") % 100000;
        link->bytes_per_s = get_number(row, "bytes_per_s");
    }
    return CM_OK;
}

static enum cm_status read_findings(const json_t *root, struct cm_topology *topology)
{
    static const char *const levels[] = {"info", "warning", "bad"};
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(root, "findings"), index, row)
    {
        struct cm_finding *finding = cm_topology_push(&topology->findings, &topology->finding_count,
                                                      sizeof *topology->findings);
        const char *level = json_string_value(json_object_get(row, "level"));
        if (finding == NULL)
            return CM_NO_MEMORY;
        for (int i = 0; i < 3; i++) {
            if (level != NULL && strcmp(level, levels[i]) == 0)
                finding->level = (enum cm_finding_level)i;
        }
        get_text(row, "code", finding->code, sizeof finding->code);
        get_text(row, "device", finding->device, sizeof finding->device);
        get_text(row, "text", finding->text, sizeof finding->text);
    }
    return CM_OK;
}

static bool is_whole(const json_t *value)
{
    static const char *const lists[] = {"packages",      "numa_nodes", "gpus",
                                        "nics",          "nvswitches", "switches",
                                        "other_devices", "nvlinks",    "findings"};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        const json_t *list = json_object_get(value, lists[i]);
        if (!json_is_array(list) || json_array_size(list) > DEVICES_MAX)
            return false;
    }
    return true;
}

enum cm_status cm_topology_from_json(const json_t *value, struct cm_topology *topology)
{
    static enum cm_status (*const parts[])(const json_t *, struct cm_topology *) = {
        read_packages, read_nodes, read_devices, read_nvlinks, read_findings};
    struct cm_topology made;
    enum cm_status status = CM_OK;
    memset(&made, 0, sizeof made);
    if (!is_whole(value))
        return cm_error(CM_UNSUPPORTED, "the machine is not in this file as a whole");
    get_text(value, "source", made.source, sizeof made.source);
    get_text(value, "format", made.format, sizeof made.format);
    get_text(value, "digest", made.digest, sizeof made.digest);
    made.live = json_is_true(json_object_get(value, "live"));
    made.memory_bytes = get_bytes(value, "memory_bytes");
    const char *allowed = json_string_value(json_object_get(value, "allowed_cpus"));
    if (allowed != NULL && !cm_cpuset_parse(allowed, &made.allowed))
        made.allowed = (struct cm_cpuset){.bits = {0}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && status == CM_OK; i++)
        status = parts[i](value, &made);
    if (status == CM_OK)
        *topology = made;
    else
        cm_topology_release(&made);
    return status;
}
