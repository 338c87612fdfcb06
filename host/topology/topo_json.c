/* The topology as JSON. Indices are positions in the arrays of the same value. */
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "host/topology/internal.h"

/* A missing element is a failed allocation, which cm_json_append reports. */
static enum cm_status append(json_t *array, json_t *value)
{
    return cm_json_append(array, value);
}

static json_t *cpus_json(const struct cm_cpuset *cpus)
{
    struct cm_str text = CM_STR_INIT;
    cm_cpuset_write(cpus, &text);
    json_t *value = cm_str_status(&text) == CM_OK ? json_string(cm_str_text(&text)) : NULL;
    cm_str_release(&text);
    return value;
}

static json_t *index_json(int index)
{
    return index >= 0 ? json_integer(index) : json_null();
}

static json_t *known_json(double value)
{
    return value > 0 ? cm_json_real(value) : json_null();
}

static json_t *count_json(unsigned count)
{
    return count > 0 ? json_integer(count) : json_null();
}

static json_t *link_json(const struct cm_pci_link *link)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "current_bytes_per_s",
                     known_json(link->current), "maximum_bytes_per_s", known_json(link->maximum),
                     "current_gts", known_json(link->gts), "maximum_gts", known_json(link->max_gts),
                     "current_width", count_json(link->width), "maximum_width",
                     count_json(link->max_width));
}

static json_t *hex_json(uint16_t number)
{
    char text[8];
    snprintf(text, sizeof text, "%04x", number);
    return json_string(text);
}

/* The bridges above, as numbers that mean something within one machine only. */
static json_t *bridges_json(const struct cm_pci_device *device)
{
    json_t *array = json_array();
    for (unsigned i = 0; array != NULL && i < device->bridge_count; i++) {
        if (json_array_append_new(array, json_integer(device->bridges[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *device_json(const struct cm_topology *topology, const struct cm_pci_device *device,
                           size_t index)
{
    json_t *value = json_pack(
        "{s:i, s:s, s:o, s:o, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "index", (int)index,
        "bus_id", device->bus_id, "vendor_id", hex_json(device->vendor_id), "device_id",
        hex_json(device->device_id), "class_id", hex_json(device->class_id), "name", device->name,
        "os_name", device->os_name, "numa", index_json(device->numa), "switch",
        index_json(device->parent_switch), "local_cpus", cpus_json(&device->local_cpus), "link",
        link_json(&device->link), "bridges", bridges_json(device));
    if (value == NULL)
        return NULL;
    enum cm_status status = CM_OK;
    if (device->kind == CM_PCI_GPU) {
        status = cm_json_set(value, "compute_capability", known_json(device->sm / 10.0));
        if (status == CM_OK)
            status = cm_json_set(value, "nvlinks",
                                 json_integer((json_int_t)cm_nvlink_count(topology, index)));
    } else if (device->kind == CM_PCI_NIC) {
        status = cm_json_set(value, "rate_bytes_per_s", known_json(device->net_bytes_per_s));
    } else if (device->kind == CM_PCI_OTHER) {
        status = cm_json_set(value, "management", json_boolean(device->management));
    }
    if (status == CM_OK)
        return value;
    json_decref(value);
    return NULL;
}

static enum cm_status devices_json(const struct cm_topology *topology, const char *key,
                                   const struct cm_pci_device *devices, size_t count, json_t *root)
{
    json_t *array = json_array();
    enum cm_status status = cm_json_set(root, key, array);
    for (size_t i = 0; i < count && status == CM_OK; i++)
        status = append(array, device_json(topology, &devices[i], i));
    return status;
}

static enum cm_status packages_json(const struct cm_topology *topology, json_t *root)
{
    json_t *array = json_array();
    enum cm_status status = cm_json_set(root, "packages", array);
    for (size_t i = 0; i < topology->package_count && status == CM_OK; i++) {
        const struct cm_package *package = &topology->packages[i];
        status =
            append(array, json_pack("{s:i, s:s, s:s, s:i, s:i, s:o}", "os_index",
                                    (int)package->os_index, "model", package->model, "vendor",
                                    package->vendor, "cores", (int)package->cores, "processors",
                                    (int)package->pus, "cpus", cpus_json(&package->cpus)));
    }
    return status;
}

static enum cm_status nodes_json(const struct cm_topology *topology, json_t *root)
{
    json_t *array = json_array();
    enum cm_status status = cm_json_set(root, "numa_nodes", array);
    for (size_t i = 0; i < topology->numa_count && status == CM_OK; i++) {
        const struct cm_numa_node *node = &topology->numa[i];
        status = append(
            array, json_pack("{s:i, s:o, s:s, s:o, s:o, s:b, s:s}", "os_index", (int)node->os_index,
                             "package", index_json(node->package), "model", node->model, "cpus",
                             cpus_json(&node->cpus), "memory_bytes",
                             node->memory_bytes > 0 ? json_integer((json_int_t)node->memory_bytes)
                                                    : json_null(),
                             "gpu_memory", node->gpu_memory, "gpu", node->gpu));
    }
    return status;
}

static enum cm_status cores_json(const struct cm_topology *topology, json_t *root)
{
    json_t *array = json_array();
    enum cm_status status = cm_json_set(root, "cores", array);
    for (size_t i = 0; i < topology->core_count && status == CM_OK; i++) {
        const struct cm_core *core = &topology->cores[i];
        status =
            append(array, json_pack("{s:o, s:o, s:o}", "package", index_json(core->package), "numa",
                                    index_json(core->numa), "cpus", cpus_json(&core->pus)));
    }
    return status;
}

static enum cm_status nvlinks_json(const struct cm_topology *topology, json_t *root)
{
    json_t *array = json_array();
    enum cm_status status = cm_json_set(root, "nvlinks", array);
    for (size_t i = 0; i < topology->nvlink_count && status == CM_OK; i++) {
        const struct cm_nvlink *link = &topology->nvlinks[i];
        const char *to = link->to_switch ? "switch" : link->to_cpu ? "cpu" : "gpu";
        status = append(array,
                        json_pack("{s:i, s:s, s:o, s:i, s:o}", "gpu", link->gpu, "to", to,
                                  "peer_gpu", index_json(link->peer_gpu), "count", (int)link->count,
                                  "bytes_per_s", known_json(link->bytes_per_s)));
    }
    return status;
}

/* GPUs and NICs right below each switch, for all that have both. */
static enum cm_status shared_json(const struct cm_topology *topology, json_t *root)
{
    json_t *array = json_array();
    enum cm_status status = cm_json_set(root, "shared_switches", array);
    for (size_t i = 0; i < topology->switch_count && status == CM_OK; i++) {
        json_t *gpus = json_array(), *nics = json_array();
        for (size_t j = 0; j < topology->gpu_count && status == CM_OK; j++) {
            if (topology->gpus[j].parent_switch == (int)i)
                status = append(gpus, json_integer((json_int_t)j));
        }
        for (size_t j = 0; j < topology->nic_count && status == CM_OK; j++) {
            if (topology->nics[j].parent_switch == (int)i)
                status = append(nics, json_integer((json_int_t)j));
        }
        if (status == CM_OK && json_array_size(gpus) > 0 && json_array_size(nics) > 0)
            status =
                append(array, json_pack("{s:i, s:s, s:O, s:O}", "switch", (int)i, "bus_id",
                                        topology->switches[i].bus_id, "gpus", gpus, "nics", nics));
        json_decref(gpus);
        json_decref(nics);
    }
    return status;
}

static json_t *word_json(struct cm_path path)
{
    char word[8];
    cm_path_word(path, word);
    return json_string(word);
}

/* A row per GPU, a column per GPU, NIC or NUMA node. */
static enum cm_status table_json(const struct cm_topology *topology, const char *key,
                                 const struct cm_pci_device *devices, size_t count, json_t *paths)
{
    json_t *rows = json_array();
    enum cm_status status = cm_json_set(paths, key, rows);
    for (size_t i = 0; i < topology->gpu_count && status == CM_OK; i++) {
        json_t *row = json_array();
        status = append(rows, row);
        for (size_t j = 0; j < count && status == CM_OK; j++) {
            struct cm_path path = devices != NULL
                                      ? cm_path_between(topology, &topology->gpus[i], &devices[j])
                                      : cm_path_to_numa(topology, &topology->gpus[i], j);
            status = append(row, word_json(path));
        }
    }
    return status;
}

static enum cm_status paths_json(const struct cm_topology *topology, json_t *root)
{
    json_t *paths = json_object();
    enum cm_status status = cm_json_set(root, "paths", paths);
    if (status == CM_OK)
        status = table_json(topology, "gpu_gpu", topology->gpus, topology->gpu_count, paths);
    if (status == CM_OK)
        status = table_json(topology, "gpu_nic", topology->nics, topology->nic_count, paths);
    if (status == CM_OK)
        status = table_json(topology, "gpu_numa", NULL, topology->numa_count, paths);
    return status;
}

static enum cm_status findings_json(const struct cm_topology *topology, json_t *root)
{
    static const char *const levels[] = {
        [CM_FINDING_INFO] = "info",
        [CM_FINDING_WARN] = "warning",
        [CM_FINDING_BAD] = "bad",
    };
    json_t *array = json_array();
    enum cm_status status = cm_json_set(root, "findings", array);
    for (size_t i = 0; i < topology->finding_count && status == CM_OK; i++) {
        const struct cm_finding *finding = &topology->findings[i];
        status = append(array,
                        json_pack("{s:s, s:s, s:s, s:s}", "level", levels[finding->level], "code",
                                  finding->code, "device", finding->device, "text", finding->text));
    }
    return status;
}

static enum cm_status limits_json(const struct cm_topology *topology, json_t *root)
{
    const struct cm_limits *limits = &topology->limits;
    if (!limits->known)
        return cm_json_set(root, "limits", json_null());
    return cm_json_set(
        root, "limits",
        json_pack(
            "{s:i, s:i, s:o, s:o, s:b}", "cpus_online", (int)limits->cpus_online, "cpus_allowed",
            (int)limits->cpus_allowed, "cpu_quota", known_json(limits->cpu_quota), "memory_bytes",
            limits->memory_limit_bytes > 0 ? json_integer((json_int_t)limits->memory_limit_bytes)
                                           : json_null(),
            "container", limits->container));
}

static enum cm_status head_json(const struct cm_topology *topology, json_t *root)
{
    char source[sizeof topology->source];
    json_t *name = json_string(topology->source);
    if (name == NULL) { /* a file name that is not UTF-8 */
        cm_topology_copy(source, sizeof source, topology->source);
        name = json_string(source);
    }
    enum cm_status status = cm_json_set(root, "source", name);
    if (status == CM_OK)
        status = cm_json_set(root, "format", json_string(topology->format));
    if (status == CM_OK)
        status = cm_json_set(root, "live", json_boolean(topology->live));
    if (status == CM_OK)
        status = cm_json_set(root, "digest", json_string(topology->digest));
    if (status == CM_OK)
        status = cm_json_set(root, "memory_bytes",
                             topology->memory_bytes > 0
                                 ? json_integer((json_int_t)topology->memory_bytes)
                                 : json_null());
    if (status == CM_OK)
        status = cm_json_set(root, "allowed_cpus", cpus_json(&topology->allowed));
    return status;
}

static enum cm_status fill(const struct cm_topology *topology, json_t *root)
{
    static enum cm_status (*const parts[])(const struct cm_topology *, json_t *) = {
        head_json,   packages_json, nodes_json,    cores_json,  nvlinks_json,
        shared_json, paths_json,    findings_json, limits_json,
    };
    struct {
        const char *key;
        const struct cm_pci_device *devices;
        size_t count;
    } lists[] = {
        {"gpus", topology->gpus, topology->gpu_count},
        {"nics", topology->nics, topology->nic_count},
        {"nvswitches", topology->nvswitches, topology->nvswitch_count},
        {"switches", topology->switches, topology->switch_count},
        {"other_devices", topology->others, topology->other_count},
    };
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < 4 && status == CM_OK; i++)
        status = parts[i](topology, root);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0] && status == CM_OK; i++)
        status = devices_json(topology, lists[i].key, lists[i].devices, lists[i].count, root);
    for (size_t i = 4; i < sizeof parts / sizeof parts[0] && status == CM_OK; i++)
        status = parts[i](topology, root);
    return status;
}

enum cm_status cm_topology_json(const struct cm_topology *topology, json_t **value)
{
    json_t *root = json_object();
    if (root == NULL)
        return cm_error(CM_NO_MEMORY, "out of memory in jansson");
    enum cm_status status = fill(topology, root);
    if (status == CM_OK)
        *value = root;
    else
        json_decref(root);
    return status;
}
