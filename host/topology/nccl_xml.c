/* NCCL topology XML: what NCCL_TOPO_DUMP_FILE writes and clouds give out as NCCL_TOPO_FILE.
 *
 * A `pci` element stands for a device or for a whole switch; `cpu` is a NUMA node with its host
 * bridge. Hint files leave out whatever NCCL would find by itself, down to the class. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/model.h"
#include "host/topology/internal.h"
#include "host/topology/xml.h"

#define NUMA_MAX    1024
#define DEVICES_MAX 1024

enum frame_kind { FRAME_OTHER, FRAME_SYSTEM, FRAME_CPU, FRAME_PCI, FRAME_GPU, FRAME_NIC };

/* An open element. */
struct frame {
    enum frame_kind kind;
    uint32_t serial; /* unique among pci and cpu elements */
    bool has_class, has_children, has_gpu, has_net, has_link;
    struct cm_pci_device device;
};

struct pending_link {
    char gpu[24], target[24];
    unsigned count, target_class;
    double bytes_per_s;
    bool to_cpu;
};

struct reader {
    struct cm_xml *xml;
    struct cm_topology *topology;
    struct frame *frames; /* CM_XML_DEPTH_MAX, by depth */
    uint32_t serial;
    struct pending_link *links;
    size_t link_count, device_count;
};

static struct frame *frame_at(const struct reader *reader, unsigned up)
{
    unsigned depth = reader->xml->depth;
    return depth > up ? &reader->frames[depth - 1 - up] : NULL;
}

/* A whole number in an attribute; `fallback` when it is not there. */
static enum cm_status read_number(const struct cm_xml *xml, const char *name, int base, long least,
                                  long most, long fallback, long *number)
{
    const char *text = cm_xml_attribute(xml, name);
    char shown[CM_XML_SHOWN_MAX], *end;
    if (text == NULL) {
        *number = fallback;
        return CM_OK;
    }
    errno = 0;
    long value = strtol(text, &end, base);
    if (end == text || *end != '\0' || errno != 0 || value < least || value > most)
        return cm_xml_error(xml, "%s=\"%s\" of <%s> must be a whole number from %ld to %ld", name,
                            cm_xml_shown(text, shown), cm_xml_element(xml), least, most);
    *number = value;
    return CM_OK;
}

static enum cm_status read_bus_id(const struct cm_xml *xml, const char *name, char bus_id[24])
{
    const char *text = cm_xml_attribute(xml, name);
    char shown[CM_XML_SHOWN_MAX];
    if (text == NULL)
        return cm_xml_error(xml, "<%s> has no %s", cm_xml_element(xml), name);
    if (!cm_bus_id_normal(text, bus_id))
        return cm_xml_error(xml, "%s=\"%s\" is no PCI bus id like 0000:10:1c.0", name,
                            cm_xml_shown(text, shown));
    return CM_OK;
}

/* Comma-separated groups of 32 bits, the highest first. */
static enum cm_status read_affinity(const struct cm_xml *xml, struct cm_cpuset *cpus)
{
    const char *text = cm_xml_attribute(xml, "affinity");
    char shown[CM_XML_SHOWN_MAX];
    if (text == NULL)
        return CM_OK;
    unsigned groups = 1, digits = 0;
    for (const char *c = text; *c != '\0'; c++)
        groups += *c == ',';
    unsigned long value = 0;
    for (const char *c = text;; c++) {
        if (*c == ',' || *c == '\0') {
            groups--;
            if (digits == 0 || digits > 8 || (groups + 1) * 32 > CM_CPUS_MAX)
                break;
            for (unsigned bit = 0; bit < 32; bit++) {
                if ((value >> bit & 1) != 0)
                    cm_cpuset_add(cpus, groups * 32 + bit);
            }
            if (*c == '\0')
                return CM_OK;
            value = digits = 0;
        } else {
            const char *hex = "0123456789abcdef";
            const char *digit = strchr(hex, *c >= 'A' && *c <= 'F' ? *c - 'A' + 'a' : *c);
            if (digit == NULL || ++digits > 8)
                break;
            value = value << 4 | (unsigned long)(digit - hex);
        }
    }
    return cm_xml_error(xml, "affinity=\"%s\" is no processor mask like 00000000,00ffffff",
                        cm_xml_shown(text, shown));
}

static enum cm_status open_cpu(struct reader *reader, struct frame *frame)
{
    struct cm_topology *topology = reader->topology;
    long number = -1, family = 0, model = 0;
    char text[96] = "";
    enum cm_status status = read_number(reader->xml, "numaid", 10, -1, 65535, -1, &number);
    if (status == CM_OK)
        status = read_number(reader->xml, "familyid", 10, 0, 65535, 0, &family);
    if (status == CM_OK)
        status = read_number(reader->xml, "modelid", 10, 0, 65535, 0, &model);
    if (status != CM_OK)
        return status;
    if (number < 0) /* a machine with one node, which has no number */
        number = 0;
    for (size_t i = 0; i < topology->numa_count; i++) {
        if (topology->numa[i].os_index == (unsigned)number)
            return cm_xml_error(reader->xml,
                                "numaid %ld appears twice; files of several hosts are not read",
                                number);
    }
    if (topology->numa_count == NUMA_MAX)
        return cm_xml_error(reader->xml, "more than %d cpu elements", NUMA_MAX);
    struct cm_numa_node *node =
        cm_topology_push(&topology->numa, &topology->numa_count, sizeof *node);
    if (node == NULL)
        return CM_NO_MEMORY;
    node->os_index = (unsigned)number;
    node->package = -1;
    const char *vendor = cm_xml_attribute(reader->xml, "vendor");
    const char *arch = cm_xml_attribute(reader->xml, "arch");
    if (vendor != NULL && family > 0)
        snprintf(text, sizeof text, "%.40s family %ld model %ld", vendor, family, model);
    else if (vendor != NULL || arch != NULL)
        snprintf(text, sizeof text, "%.80s", vendor != NULL ? vendor : arch);
    cm_topology_copy(node->model, sizeof node->model, text);
    status = read_affinity(reader->xml, &node->cpus);
    cm_cpuset_or(&topology->allowed, &node->cpus);
    frame->device.numa = (int)topology->numa_count - 1;
    frame->device.local_cpus = node->cpus;
    return status;
}

static void read_link(const struct cm_xml *xml, struct frame *frame)
{
    /* NCCL writes and reads the maximum here; what the link does now is not in the file. */
    struct cm_pci_link *link = &frame->device.link;
    const char *speed = cm_xml_attribute(xml, "link_speed");
    const char *width = cm_xml_attribute(xml, "link_width");
    unsigned long lanes = width != NULL ? strtoul(width, NULL, 10) : 0;
    link->max_gts = speed != NULL ? cm_link_parse_gts(speed) : 0;
    link->max_width = lanes <= 32 ? (unsigned)lanes : 0;
    link->maximum = cm_link_rate(link->max_gts, link->max_width);
    frame->has_link = link->maximum > 0;
}

static enum cm_status open_pci(struct reader *reader, struct frame *parent, struct frame *frame)
{
    long class_id = 0, vendor = 0, device = 0;
    struct cm_xml *xml = reader->xml;
    enum cm_status status = read_bus_id(xml, "busid", frame->device.bus_id);
    if (status == CM_OK)
        status = read_number(xml, "class", 16, 0, 0xffffff, -1, &class_id);
    if (status == CM_OK)
        status = read_number(xml, "vendor", 16, 0, 0xffff, 0, &vendor);
    if (status == CM_OK)
        status = read_number(xml, "device", 16, 0, 0xffff, 0, &device);
    if (status != CM_OK)
        return status;
    if (reader->device_count++ == DEVICES_MAX)
        return cm_xml_error(xml, "more than %d pci elements", DEVICES_MAX);
    frame->has_class = class_id >= 0;
    frame->device.class_id = (uint16_t)(class_id >= 0 ? class_id >> 8 : 0);
    frame->device.vendor_id = (uint16_t)vendor;
    frame->device.device_id = (uint16_t)device;
    frame->device.numa = parent->device.numa;
    frame->device.local_cpus = parent->device.local_cpus;
    parent->has_children = true;
    read_link(xml, frame);
    return CM_OK;
}

static enum cm_status add_link(struct reader *reader, const struct frame *pci, bool to_cpu)
{
    long count = 1, class_id = 0, bandwidth = 0;
    struct pending_link link;
    memset(&link, 0, sizeof link);
    enum cm_status status = read_number(reader->xml, "count", 10, 1, 1024, 1, &count);
    if (status == CM_OK && to_cpu)
        status = read_number(reader->xml, "bw", 10, 0, 10000000, 0, &bandwidth);
    if (status == CM_OK && !to_cpu)
        status = read_number(reader->xml, "tclass", 16, 0, 0xffffff, 0, &class_id);
    if (status == CM_OK && !to_cpu)
        status = read_bus_id(reader->xml, "target", link.target);
    if (status != CM_OK)
        return status;
    if (reader->link_count == DEVICES_MAX)
        return cm_xml_error(reader->xml, "more than %d NVLinks", DEVICES_MAX);
    memcpy(link.gpu, pci->device.bus_id, sizeof link.gpu);
    link.count = (unsigned)count;
    link.target_class = (unsigned)class_id >> 8;
    /* NVLink to a POWER processor has the class of a bridge. */
    link.to_cpu = to_cpu || class_id == 0x068001;
    link.bytes_per_s = (double)bandwidth * 1e6 * (double)count;
    struct pending_link *slot = cm_topology_push(&reader->links, &reader->link_count, sizeof *slot);
    if (slot == NULL)
        return CM_NO_MEMORY;
    *slot = link;
    return CM_OK;
}

static enum cm_status open_net(struct reader *reader)
{
    const struct frame *nic = frame_at(reader, 1);
    struct frame *pci = frame_at(reader, 2);
    long speed = 0;
    enum cm_status status = read_number(reader->xml, "speed", 10, 0, 100000000, 0, &speed);
    if (status != CM_OK)
        return status;
    const char *name = cm_xml_attribute(reader->xml, "name");
    if (nic == NULL || nic->kind != FRAME_NIC || pci == NULL || pci->kind != FRAME_PCI) {
        char shown[CM_XML_SHOWN_MAX];
        return cm_finding_add(reader->topology, CM_FINDING_INFO, "net-without-device", "",
                              "The file has a network %s without a PCI device, as for a plain "
                              "network socket; it is not counted as a fabric NIC.",
                              cm_xml_shown(name != NULL ? name : "", shown));
    }
    pci->has_net = true;
    pci->device.net_bytes_per_s = (double)speed * 1e6 / 8;
    if (name != NULL)
        cm_topology_copy(pci->device.os_name, sizeof pci->device.os_name, name);
    return CM_OK;
}

static enum cm_status open_gpu(struct reader *reader, struct frame *pci)
{
    long sm = 0;
    enum cm_status status = read_number(reader->xml, "sm", 10, 0, 1000, 0, &sm);
    if (status != CM_OK)
        return status;
    pci->has_gpu = true;
    pci->device.sm = (unsigned)sm;
    return CM_OK;
}

static enum cm_status open_element(struct reader *reader)
{
    const char *name = cm_xml_element(reader->xml);
    struct frame *frame = frame_at(reader, 0), *parent = frame_at(reader, 1);
    enum frame_kind above = parent != NULL ? parent->kind : FRAME_OTHER;
    memset(frame, 0, sizeof *frame);
    frame->device.numa = -1;
    if (parent == NULL) {
        frame->kind = FRAME_SYSTEM;
        return CM_OK;
    }
    if (strcmp(name, "cpu") == 0 && above == FRAME_SYSTEM) {
        frame->kind = FRAME_CPU;
        frame->serial = reader->serial++;
        return open_cpu(reader, frame);
    }
    if (strcmp(name, "pci") == 0 && (above == FRAME_CPU || above == FRAME_PCI)) {
        frame->kind = FRAME_PCI;
        frame->serial = reader->serial++;
        return open_pci(reader, parent, frame);
    }
    if (strcmp(name, "gpu") == 0 && above == FRAME_PCI) {
        frame->kind = FRAME_GPU;
        return open_gpu(reader, parent);
    }
    if (strcmp(name, "nic") == 0 && (above == FRAME_PCI || above == FRAME_CPU)) {
        frame->kind = FRAME_NIC;
        return CM_OK;
    }
    if (strcmp(name, "net") == 0)
        return open_net(reader);
    const struct frame *pci = above == FRAME_GPU ? frame_at(reader, 2) : NULL;
    if ((strcmp(name, "nvlink") == 0 || strcmp(name, "c2c") == 0) && pci != NULL)
        return add_link(reader, pci, name[0] == 'c');
    if (strcmp(name, "cpu") == 0 || strcmp(name, "pci") == 0 || strcmp(name, "gpu") == 0)
        return cm_xml_error(reader->xml, "<%s> inside <%s> is not NCCL's topology format", name,
                            reader->xml->names[reader->xml->depth - 2]);
    return CM_OK; /* what a newer NCCL may add is left alone */
}

/* The bridges above a device. Each pci element stands for a device behind its own port (an even
 * id) or a whole switch (an odd one), so that paths come out as on the machine itself. */
static enum cm_status add_bridges(struct reader *reader, struct frame *frame, bool is_switch)
{
    unsigned levels = 0;
    struct frame *up;
    while ((up = frame_at(reader, levels)) != NULL && up->kind == FRAME_PCI)
        levels++;
    uint32_t *bridges = cm_alloc((size_t)levels * 2 + 2, sizeof *bridges);
    if (bridges == NULL)
        return CM_NO_MEMORY;
    unsigned count = 0;
    for (unsigned i = 0; i < levels; i++) {
        up = frame_at(reader, i);
        if (i > 0 || is_switch)
            bridges[count++] = up->serial * 2 + 1;
        bridges[count++] = up->serial * 2;
    }
    up = frame_at(reader, levels);
    if (up != NULL && up->kind == FRAME_CPU)
        bridges[count++] = up->serial * 2 + 1;
    frame->device.bridges = bridges;
    frame->device.bridge_count = count;
    return CM_OK;
}

static enum cm_pci_kind kind_of(const struct frame *frame)
{
    const struct cm_pci_device *device = &frame->device;
    if (frame->has_gpu || device->class_id >> 8 == 0x03)
        return CM_PCI_GPU;
    if (frame->has_net || device->class_id >> 8 == 0x02)
        return CM_PCI_NIC;
    if (frame->has_children || device->class_id == 0x0604)
        return CM_PCI_SWITCH;
    if (cm_is_nvswitch(device->vendor_id, device->class_id))
        return CM_PCI_NVSWITCH;
    return CM_PCI_OTHER;
}

static enum cm_status close_pci(struct reader *reader)
{
    struct cm_topology *topology = reader->topology;
    struct frame *frame = frame_at(reader, 0);
    struct frame *parent = frame_at(reader, 1);
    frame->device.kind = kind_of(frame);
    if (frame->device.kind == CM_PCI_OTHER && frame->has_class)
        return CM_OK; /* a disk or the like */
    enum cm_status status = add_bridges(reader, frame, frame->device.kind == CM_PCI_SWITCH);
    if (status != CM_OK)
        return status;
    cm_pci_name(&frame->device);
    if (frame->device.kind == CM_PCI_OTHER) {
        /* What hint files with links but without classes list behind a switch are the NICs: NCCL
         * finds the GPUs by itself. */
        bool nic = frame->has_link && parent->kind == FRAME_PCI;
        snprintf(frame->device.name, sizeof frame->device.name, "%s",
                 nic ? "NIC (assumed)" : "PCI device without class");
    }
    struct {
        struct cm_pci_device **devices;
        size_t *count;
    } lists[] = {
        [CM_PCI_GPU] = {&topology->gpus, &topology->gpu_count},
        [CM_PCI_NIC] = {&topology->nics, &topology->nic_count},
        [CM_PCI_NVSWITCH] = {&topology->nvswitches, &topology->nvswitch_count},
        [CM_PCI_SWITCH] = {&topology->switches, &topology->switch_count},
        [CM_PCI_OTHER] = {&topology->others, &topology->other_count},
    };
    struct cm_pci_device *slot = cm_topology_push(lists[frame->device.kind].devices,
                                                  lists[frame->device.kind].count, sizeof *slot);
    if (slot == NULL) {
        cm_free(frame->device.bridges);
        return CM_NO_MEMORY;
    }
    *slot = frame->device;
    return CM_OK;
}

/* In a file without a single GPU or NIC, the devices that look like NICs are taken for NICs. */
static enum cm_status assume_nics(struct cm_topology *topology)
{
    size_t kept = 0;
    if (topology->gpu_count > 0 || topology->nic_count > 0)
        return CM_OK;
    for (size_t i = 0; i < topology->other_count; i++) {
        struct cm_pci_device *other = &topology->others[i];
        struct cm_pci_device *nic = NULL;
        if (strncmp(other->name, "NIC ", 4) == 0) {
            nic = cm_topology_push(&topology->nics, &topology->nic_count, sizeof *nic);
            if (nic == NULL) {
                /* Keep every device owned once. */
                memmove(&topology->others[kept], other,
                        (topology->other_count - i) * sizeof *other);
                topology->other_count -= i - kept;
                return CM_NO_MEMORY;
            }
            *nic = *other;
            nic->kind = CM_PCI_NIC;
        } else {
            topology->others[kept++] = *other;
        }
    }
    topology->other_count = kept;
    return CM_OK;
}

static enum cm_status resolve_links(struct reader *reader)
{
    struct cm_topology *topology = reader->topology;
    for (size_t i = 0; i < reader->link_count; i++) {
        const struct pending_link *link = &reader->links[i];
        struct cm_nvlink *slot =
            cm_topology_push(&topology->nvlinks, &topology->nvlink_count, sizeof *slot);
        if (slot == NULL)
            return CM_NO_MEMORY;
        slot->gpu = cm_topology_gpu(topology, link->gpu);
        slot->to_cpu = link->to_cpu;
        slot->to_switch = !link->to_cpu && link->target_class == 0x0680;
        slot->peer_gpu =
            slot->to_cpu || slot->to_switch ? -1 : cm_topology_gpu(topology, link->target);
        slot->count = link->count;
        slot->bytes_per_s = link->bytes_per_s;
        const struct cm_pci_device *gpu = &topology->gpus[slot->gpu];
        const struct cm_gpu_model *model = cm_gpu_model(gpu->vendor_id, gpu->device_id);
        if (slot->bytes_per_s <= 0 && model != NULL)
            slot->bytes_per_s = model->nvlink_bytes_per_s * link->count;
    }
    return CM_OK;
}

static enum cm_status check_unique(const struct reader *reader)
{
    const struct cm_topology *topology = reader->topology;
    for (size_t i = 1; i < topology->gpu_count; i++) {
        if (strcmp(topology->gpus[i].bus_id, topology->gpus[i - 1].bus_id) == 0)
            return cm_error(CM_USAGE, "%.200s: the GPU %s appears twice", reader->xml->file,
                            topology->gpus[i].bus_id);
    }
    return CM_OK;
}

static enum cm_status read_all(struct reader *reader)
{
    enum cm_xml_event event = CM_XML_OPEN;
    enum cm_status status = CM_OK;
    while (status == CM_OK && event != CM_XML_END) {
        status = cm_xml_next(reader->xml, &event);
        if (status != CM_OK)
            return status;
        if (event == CM_XML_OPEN)
            status = open_element(reader);
        else if (event == CM_XML_TEXT)
            status = cm_xml_error(reader->xml, "text inside <%s>; NCCL's format has none",
                                  cm_xml_element(reader->xml));
        else if (event == CM_XML_CLOSE && frame_at(reader, 0)->kind == FRAME_PCI)
            status = close_pci(reader);
    }
    if (status == CM_OK && reader->topology->numa_count == 0)
        status = cm_error(CM_USAGE, "%.200s: <system> has no <cpu>; this is no NCCL topology",
                          reader->xml->file);
    return status;
}

enum cm_status cm_nccl_read(const char *name, const char *text, size_t length,
                            struct cm_topology *topology)
{
    struct reader reader = {.topology = topology};
    enum cm_status status = CM_NO_MEMORY;
    snprintf(topology->format, sizeof topology->format, "nccl");
    reader.xml = cm_alloc(1, sizeof *reader.xml);
    if (reader.xml == NULL)
        return CM_NO_MEMORY;
    cm_xml_init(name, text, length, reader.xml);
    reader.frames = cm_alloc(CM_XML_DEPTH_MAX, sizeof *reader.frames);
    if (reader.frames == NULL)
        goto release_xml;
    status = read_all(&reader);
    if (status == CM_OK)
        status = assume_nics(topology);
    if (status == CM_OK)
        status = cm_topology_arrange(topology);
    if (status == CM_OK)
        status = check_unique(&reader);
    if (status == CM_OK)
        status = resolve_links(&reader);
    cm_free(reader.links);
    cm_free(reader.frames);
release_xml:
    cm_xml_release(reader.xml);
    cm_free(reader.xml);
    return status;
}
