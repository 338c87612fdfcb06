/* Loading a topology: the file, which format it is, and what is the same for all sources. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/topology/internal.h"
#include "host/topology/xml.h"

void *cm_topology_push(void *array, size_t *count, size_t size)
{
    void *block;
    memcpy(&block, array, sizeof block);
    /* Grown whenever the count reaches a power of two, so no capacity has to be kept. */
    if (*count == 0 || (*count >= 8 && (*count & (*count - 1)) == 0)) {
        void *grown = cm_resize(block, *count == 0 ? 8 : *count * 2, size);
        if (grown == NULL)
            return NULL;
        memcpy(array, &grown, sizeof grown);
        block = grown;
    }
    void *element = (char *)block + *count * size;
    memset(element, 0, size);
    ++*count;
    return element;
}

void cm_topology_copy(char *to, size_t size, const char *from)
{
    size_t used = 0;
    for (; from[used] != '\0' && used < size - 1; used++)
        to[used] = from[used] >= ' ' && from[used] < 127 ? from[used] : '?';
    while (used > 0 && to[used - 1] == ' ')
        used--;
    to[used] = '\0';
}

enum cm_status cm_finding_add(struct cm_topology *topology, enum cm_finding_level level,
                              const char *code, const char *device, const char *format, ...)
{
    struct cm_finding *finding =
        cm_topology_push(&topology->findings, &topology->finding_count, sizeof *finding);
    if (finding == NULL)
        return CM_NO_MEMORY;
    finding->level = level;
    snprintf(finding->code, sizeof finding->code, "%s", code);
    snprintf(finding->device, sizeof finding->device, "%s", device);
    va_list args;
    va_start(args, format);
    vsnprintf(finding->text, sizeof finding->text, format, args);
    va_end(args);
    return CM_OK;
}

static void release_devices(struct cm_pci_device *devices, size_t count)
{
    for (size_t i = 0; i < count; i++)
        cm_free(devices[i].bridges);
    cm_free(devices);
}

void cm_topology_release(struct cm_topology *topology)
{
    release_devices(topology->gpus, topology->gpu_count);
    release_devices(topology->nics, topology->nic_count);
    release_devices(topology->nvswitches, topology->nvswitch_count);
    release_devices(topology->switches, topology->switch_count);
    release_devices(topology->others, topology->other_count);
    cm_free(topology->packages);
    cm_free(topology->numa);
    cm_free(topology->cores);
    cm_free(topology->nvlinks);
    cm_free(topology->findings);
    memset(topology, 0, sizeof *topology);
}

static int by_bus_id(const void *a, const void *b)
{
    const struct cm_pci_device *x = a, *y = b;
    return cm_bus_id_compare(x->bus_id, y->bus_id);
}

static void sort_devices(struct cm_pci_device *devices, size_t count)
{
    if (count > 1)
        qsort(devices, count, sizeof *devices, by_bus_id);
}

static double best_rate(const struct cm_pci_device *device)
{
    return device->link.maximum > device->link.current ? device->link.maximum
                                                       : device->link.current;
}

/* Ports that manage NVLink (ConnectX-7 on B200 machines) look like fabric NICs. They are told by a
 * link that is a fraction of the other NICs'. */
static enum cm_status set_management_aside(struct cm_topology *topology)
{
    double fastest = 0;
    for (size_t i = 0; i < topology->nic_count; i++) {
        if (best_rate(&topology->nics[i]) > fastest)
            fastest = best_rate(&topology->nics[i]);
    }
    for (size_t i = 0; i < topology->nic_count;) {
        struct cm_pci_device *nic = &topology->nics[i];
        double rate = best_rate(nic);
        bool azure_front = strstr(nic->os_name, "_an") != NULL; /* accelerated networking */
        if (!azure_front && (rate <= 0 || rate > 4e9 || rate > fastest / 7)) {
            i++;
            continue;
        }
        struct cm_pci_device *other =
            cm_topology_push(&topology->others, &topology->other_count, sizeof *other);
        if (other == NULL)
            return CM_NO_MEMORY;
        *other = *nic;
        other->kind = CM_PCI_OTHER;
        other->management = true;
        topology->nic_count--;
        memmove(nic, nic + 1, (topology->nic_count - i) * sizeof *nic);
    }
    return CM_OK;
}

static void find_switch(const struct cm_topology *topology, struct cm_pci_device *device)
{
    device->parent_switch = -1;
    for (unsigned at = device->kind == CM_PCI_SWITCH ? 1 : 0; at < device->bridge_count; at++) {
        for (size_t i = 0; i < topology->switch_count; i++) {
            if (topology->switches[i].bridges[0] == device->bridges[at]) {
                device->parent_switch = (int)i;
                return;
            }
        }
    }
}

enum cm_status cm_topology_arrange(struct cm_topology *topology)
{
    enum cm_status status = set_management_aside(topology);
    if (status != CM_OK)
        return status;
    struct {
        struct cm_pci_device *devices;
        size_t count;
    } lists[] = {
        {topology->switches, topology->switch_count},
        {topology->gpus, topology->gpu_count},
        {topology->nics, topology->nic_count},
        {topology->nvswitches, topology->nvswitch_count},
        {topology->others, topology->other_count},
    };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        sort_devices(lists[i].devices, lists[i].count);
        for (size_t j = 0; j < lists[i].count; j++)
            find_switch(topology, &lists[i].devices[j]);
    }
    return CM_OK;
}

int cm_topology_gpu(const struct cm_topology *topology, const char *bus_id)
{
    for (size_t i = 0; i < topology->gpu_count; i++) {
        if (strcmp(topology->gpus[i].bus_id, bus_id) == 0)
            return (int)i;
    }
    return -1;
}

static enum cm_status finish(struct cm_topology *topology)
{
    if (topology->memory_bytes == 0) {
        for (size_t i = 0; i < topology->numa_count; i++)
            topology->memory_bytes +=
                topology->numa[i].gpu_memory ? 0 : topology->numa[i].memory_bytes;
    }
    cm_topology_digest(topology);
    return cm_topology_findings(topology);
}

enum cm_status cm_topology_live(struct cm_topology *topology)
{
    struct cm_topology fresh;
    memset(&fresh, 0, sizeof fresh);
    enum cm_status status = cm_hwloc_read_live(&fresh);
    if (status == CM_OK)
        status = finish(&fresh);
    if (status == CM_OK)
        *topology = fresh;
    else
        cm_topology_release(&fresh);
    return status;
}

/* The whole file, zero-terminated. Pipes are read too, up to the limit. */
static enum cm_status read_file(const char *path, char **text, size_t *length)
{
    struct stat info;
    size_t used = 0, capacity = 0;
    char *buffer = NULL;
    ssize_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cm_error_errno(CM_USAGE, "cannot open '%.200s'", path);
    enum cm_status status = CM_OK;
    if (fstat(fd, &info) == 0 && S_ISDIR(info.st_mode))
        status = cm_error(CM_USAGE, "'%.200s' is a folder; give a topology XML file", path);
    do {
        if (status == CM_OK && cm_grow(&buffer, &capacity, used + 65536, 1) != 0)
            status = CM_NO_MEMORY;
        if (status != CM_OK)
            break;
        got = read(fd, buffer + used, 65535);
        if (got < 0 && errno != EINTR)
            status = cm_error_errno(CM_USAGE, "cannot read '%.200s'", path);
        used += got > 0 ? (size_t)got : 0;
        if (used > CM_TOPOLOGY_FILE_MAX)
            status = cm_error(CM_USAGE, "'%.200s' has more than %zu MiB; a topology is smaller",
                              path, CM_TOPOLOGY_FILE_MAX >> 20);
    } while (status == CM_OK && got != 0);
    close(fd);
    if (status == CM_OK && used == 0)
        status = cm_error(CM_USAGE, "'%.200s' is empty; give a topology XML file", path);
    if (status != CM_OK) {
        cm_free(buffer);
        return status;
    }
    buffer[used] = '\0';
    *text = buffer;
    *length = used;
    return CM_OK;
}

/* By the root element: <topology> is hwloc's, <system> NCCL's. */
static enum cm_status read_by_format(const char *path, const char *text, size_t length,
                                     struct cm_topology *topology)
{
    enum cm_xml_event event = CM_XML_END;
    char shown[CM_XML_SHOWN_MAX];
    struct cm_xml *xml = cm_alloc(1, sizeof *xml);
    if (xml == NULL)
        return CM_NO_MEMORY;
    cm_xml_init(path, text, length, xml);
    enum cm_status status = cm_xml_next(xml, &event);
    if (status == CM_OK && strcmp(cm_xml_element(xml), "topology") == 0)
        status = cm_hwloc_read_xml(path, text, length, topology);
    else if (status == CM_OK && strcmp(cm_xml_element(xml), "system") == 0)
        status = cm_nccl_read(path, text, length, topology);
    else if (status == CM_OK)
        status = cm_xml_error(xml,
                              "the root element is <%s>, neither <topology> (hwloc) nor <system> "
                              "(NCCL)",
                              cm_xml_shown(cm_xml_element(xml), shown));
    cm_xml_release(xml);
    cm_free(xml);
    return status;
}

enum cm_status cm_topology_load(const char *path, struct cm_topology *topology)
{
    struct cm_topology fresh;
    char *text = NULL;
    size_t length = 0;
    memset(&fresh, 0, sizeof fresh);
    enum cm_status status = read_file(path, &text, &length);
    if (status != CM_OK)
        return status;
    snprintf(fresh.source, sizeof fresh.source, "%s", path);
    status = read_by_format(path, text, length, &fresh);
    if (status == CM_OK)
        status = finish(&fresh);
    cm_free(text);
    if (status == CM_OK)
        *topology = fresh;
    else
        cm_topology_release(&fresh);
    return status;
}
