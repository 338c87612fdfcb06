/* What is odd about a machine, in plain words: what, why it matters, what to do. */
#include <stdio.h>
#include <string.h>

#include "clustermark/units.h"
#include "host/topology/internal.h"

static const char *shown_name(const struct cm_pci_device *device)
{
    return device->os_name[0] != '\0' ? device->os_name : device->bus_id;
}

static enum cm_status link_finding(struct cm_topology *topology, const char *what, size_t index,
                                   const struct cm_pci_device *device)
{
    char text[CM_LINK_TEXT_MAX];
    const struct cm_pci_link *link = &device->link;
    if (!cm_link_below_maximum(link))
        return CM_OK;
    cm_link_text(link, text);
    if (link->width > 0 && link->max_width > 0 && link->width < link->max_width)
        return cm_finding_add(topology, CM_FINDING_BAD, "link-below-maximum", device->bus_id,
                              "%s %zu (%s) has trained %u of its %u PCIe lanes: %s. Copies over it "
                              "are slow; reseat the card or riser, or return the machine.",
                              what, index, device->bus_id, link->width, link->max_width, text);
    return cm_finding_add(topology, CM_FINDING_WARN, "link-below-maximum", device->bus_id,
                          "The PCIe link of %s %zu (%s) is below its maximum: %s. An idle device "
                          "may slow its link down, so look again under load; if it stays, check "
                          "slot, riser and BIOS.",
                          what, index, device->bus_id, text);
}

static enum cm_status links(struct cm_topology *topology)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < topology->gpu_count && status == CM_OK; i++)
        status = link_finding(topology, "GPU", i, &topology->gpus[i]);
    for (size_t i = 0; i < topology->nic_count && status == CM_OK; i++)
        status = link_finding(topology, "NIC", i, &topology->nics[i]);
    return status;
}

/* GPUs that hang on no NUMA node, or on one without processors or memory. */
static enum cm_status gpu_memory(struct cm_topology *topology)
{
    enum cm_status status = CM_OK;
    bool sized = topology->memory_bytes > 0;
    for (size_t i = 0; i < topology->gpu_count && status == CM_OK; i++) {
        const struct cm_pci_device *gpu = &topology->gpus[i];
        if (gpu->numa < 0)
            status = cm_finding_add(
                topology, CM_FINDING_WARN, "gpu-without-local-memory", gpu->bus_id,
                "The NUMA node of GPU %zu (%s) is not known (a virtual machine may hide it), so "
                "its rank cannot be bound to nearby memory; host copies may cross the sockets.",
                i, gpu->bus_id);
        else if (sized && topology->numa[gpu->numa].memory_bytes == 0)
            status = cm_finding_add(
                topology, CM_FINDING_WARN, "gpu-without-local-memory", gpu->bus_id,
                "NUMA node %u of GPU %zu (%s) has no memory: all its host memory is remote. Fit "
                "memory to that socket.",
                topology->numa[gpu->numa].os_index, i, gpu->bus_id);
    }
    return status;
}

static enum cm_path_kind nearest(const struct cm_topology *topology,
                                 const struct cm_pci_device *device,
                                 const struct cm_pci_device *others, size_t count)
{
    enum cm_path_kind best = CM_PATH_UNKNOWN;
    for (size_t i = 0; i < count; i++) {
        enum cm_path_kind kind = cm_path_between(topology, device, &others[i]).kind;
        if (kind < best)
            best = kind;
    }
    return best;
}

static void add_names(const struct cm_topology *topology, const bool *far, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < topology->nic_count && used + 40 < size; i++) {
        if (far[i])
            used += (size_t)snprintf(text + used, size - used, "%s%.20s", used > 0 ? ", " : "",
                                     shown_name(&topology->nics[i]));
    }
}

#define FAR_MAX 256
/* NICs with no GPU on their NUMA node, and NICs behind another switch than any GPU where other NICs
 * do better. */
static enum cm_status far_nics(struct cm_topology *topology)
{
    bool far[FAR_MAX] = {false};
    size_t far_count = 0;
    enum cm_path_kind best = CM_PATH_UNKNOWN;
    enum cm_status status = CM_OK;
    if (topology->gpu_count == 0 || topology->nic_count > FAR_MAX)
        return CM_OK;
    for (size_t i = 0; i < topology->nic_count; i++) {
        enum cm_path_kind kind =
            nearest(topology, &topology->nics[i], topology->gpus, topology->gpu_count);
        best = kind < best ? kind : best;
    }
    for (size_t i = 0; i < topology->nic_count && status == CM_OK; i++) {
        const struct cm_pci_device *nic = &topology->nics[i];
        enum cm_path_kind kind = nearest(topology, nic, topology->gpus, topology->gpu_count);
        if (kind == CM_PATH_SYS)
            status = cm_finding_add(topology, CM_FINDING_WARN, "nic-far-from-gpus", nic->bus_id,
                                    "NIC %zu (%s) has no GPU on its NUMA node: every transfer "
                                    "crosses the link between sockets. Leave it out of NCCL "
                                    "(NCCL_IB_HCA) or move it.",
                                    i, shown_name(nic));
        far[i] = kind == CM_PATH_NODE && best < CM_PATH_PHB;
        far_count += far[i];
    }
    char names[160];
    add_names(topology, far, names, sizeof names);
    if (status == CM_OK && far_count > 0)
        status = cm_finding_add(topology, CM_FINDING_INFO, "nic-far-from-gpus", "",
                                "%zu of %zu NICs share no PCIe switch with a GPU and reach one "
                                "through the processor only (NODE): %s.",
                                far_count, topology->nic_count, names);
    return status;
}

static bool shares_bridge(const struct cm_pci_device *a, const struct cm_pci_device *b)
{
    for (unsigned i = 0; i < a->bridge_count; i++) {
        for (unsigned j = 0; j < b->bridge_count; j++) {
            if (a->bridges[i] == b->bridges[j])
                return true;
        }
    }
    return false;
}

/* Virtual machines that put every device into its own PCI domain. */
static enum cm_status only_numa(struct cm_topology *topology)
{
    size_t gpus = topology->gpu_count, total = gpus + topology->nic_count;
    if (gpus == 0 || total < 3 || strcmp(topology->format, "hwloc") != 0)
        return CM_OK;
    for (size_t i = 0; i < gpus; i++) {
        for (size_t j = i + 1; j < total; j++) {
            const struct cm_pci_device *other =
                j < gpus ? &topology->gpus[j] : &topology->nics[j - gpus];
            if (shares_bridge(&topology->gpus[i], other))
                return CM_OK;
        }
    }
    return cm_finding_add(topology, CM_FINDING_INFO, "only-numa-known", "",
                          "No GPU shares a PCIe bridge with another GPU or a NIC, so near and far "
                          "mean NUMA nodes only. A virtual machine may hide the real switches; "
                          "then the provider's NCCL_TOPO_FILE knows more.");
}

/* GPUs whose NVLinks are fewer than their siblings', or not in the file at all. */
static enum cm_status nvlinks(struct cm_topology *topology)
{
    unsigned most = 0;
    size_t unpaired = 0;
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < topology->gpu_count; i++)
        most = cm_nvlink_count(topology, i) > most ? cm_nvlink_count(topology, i) : most;
    if (most == 0 && topology->nvswitch_count > 0 && topology->gpu_count > 1)
        return cm_finding_add(topology, CM_FINDING_INFO, "nvlink-not-recorded", "",
                              "There are %zu NVSwitches, but nothing here says how many NVLinks "
                              "each GPU has, so the table shows PCIe paths. A run, or NCCL's "
                              "NCCL_TOPO_DUMP_FILE, tells more.",
                              topology->nvswitch_count);
    for (size_t i = 0; i < topology->gpu_count && status == CM_OK; i++) {
        unsigned count = cm_nvlink_count(topology, i);
        if (count < most)
            status =
                cm_finding_add(topology, CM_FINDING_BAD, "nvlink-missing", topology->gpus[i].bus_id,
                               "GPU %zu (%s) has %u NVLinks where others have %u: "
                               "collectives run at the speed of the weakest. Check the "
                               "fabric manager and the GPU's links (nvidia-smi nvlink -s).",
                               i, topology->gpus[i].bus_id, count, most);
    }
    for (size_t i = 0; i < topology->nvlink_count; i++)
        unpaired += topology->nvlinks[i].peer_gpu == topology->nvlinks[i].gpu;
    if (status == CM_OK && unpaired > 0)
        status = cm_finding_add(topology, CM_FINDING_INFO, "nvlink-partner-unknown", "",
                                "The file gives %zu GPUs NVLinks (NV%u) that end at the GPU "
                                "itself: how many there are is known, which GPU is the partner is "
                                "not, so the table shows PCIe paths.",
                                unpaired, most);
    return status;
}

static enum cm_status left_out(struct cm_topology *topology)
{
    size_t unknown = 0, assumed = 0;
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < topology->other_count && status == CM_OK; i++) {
        const struct cm_pci_device *other = &topology->others[i];
        unknown += !other->management;
        if (!other->management)
            continue;
        char link[CM_LINK_TEXT_MAX];
        status = cm_finding_add(topology, CM_FINDING_INFO, "management-port", other->bus_id,
                                "%.40s %s (%s, %s) has a fraction of the other NICs' link: taken "
                                "for a management port and not counted as a fabric NIC.",
                                other->name, shown_name(other), other->bus_id,
                                cm_link_text(&other->link, link));
    }
    for (size_t i = 0; i < topology->nic_count; i++)
        assumed += strstr(topology->nics[i].name, "assumed") != NULL;
    if (status == CM_OK && assumed > 0)
        status = cm_finding_add(topology, CM_FINDING_INFO, "class-missing", "",
                                "The file gives %zu devices a link but no class, as hint files do "
                                "for NICs (NCCL finds the GPUs by itself); they are taken for "
                                "NICs.",
                                assumed);
    if (status == CM_OK && unknown > 0)
        status = cm_finding_add(topology, CM_FINDING_INFO, "class-missing", "",
                                "The file has %zu PCI devices without class: hints about the NUMA "
                                "node, from which GPUs and NICs cannot be told apart.",
                                unknown);
    return status;
}

static enum cm_status limits(struct cm_topology *topology)
{
    const struct cm_limits *limit = &topology->limits;
    const char *where = limit->container ? "This container" : "This process's control group";
    char size[CM_UNITS_TEXT_MAX];
    enum cm_status status = CM_OK;
    if (!topology->live)
        return CM_OK;
    if (limit->cpus_online > limit->cpus_allowed && limit->cpus_allowed > 0)
        status = cm_finding_add(topology, CM_FINDING_WARN, "cpus-limited", "",
                                "%s may use %u of the machine's %u processors; ranks are bound "
                                "within them. Give it all of them to measure the whole machine.",
                                where, limit->cpus_allowed, limit->cpus_online);
    if (status == CM_OK && limit->cpu_quota > 0 && limit->cpu_quota < limit->cpus_allowed)
        status = cm_finding_add(topology, CM_FINDING_WARN, "cpu-quota", "",
                                "%s gets the time of %.2f processors although it sees %u: threads "
                                "are stopped when it is used up, which shows as outliers. Lift "
                                "the quota (cpu.max).",
                                where, limit->cpu_quota, limit->cpus_allowed);
    if (status == CM_OK && limit->memory_limit_bytes > 0 &&
        limit->memory_limit_bytes < topology->memory_bytes) {
        snprintf(size, sizeof size, "%.1f GiB", (double)limit->memory_limit_bytes / 0x1p30);
        status = cm_finding_add(topology, CM_FINDING_WARN, "memory-limited", "",
                                "%s may use %s of the machine's %.1f GiB; larger cases are killed.",
                                where, size, (double)topology->memory_bytes / 0x1p30);
    }
    if (status == CM_OK && limit->container)
        status = cm_finding_add(topology, CM_FINDING_INFO, "container", "",
                                "This is a container: PCI shows all devices of the host, also "
                                "those that CUDA cannot use here.");
    return status;
}

static enum cm_status uneven(struct cm_topology *topology)
{
    size_t least = SIZE_MAX, most = 0, nodes = 0;
    for (size_t i = 0; i < topology->numa_count; i++) {
        size_t here = 0;
        for (size_t j = 0; j < topology->gpu_count; j++)
            here += topology->gpus[j].numa == (int)i;
        if (topology->numa[i].gpu_memory || here == 0)
            continue;
        nodes++;
        least = here < least ? here : least;
        most = here > most ? here : most;
    }
    if (nodes < 2 || least == most)
        return CM_OK;
    return cm_finding_add(topology, CM_FINDING_INFO, "gpus-uneven", "",
                          "GPUs are spread unevenly over the NUMA nodes, from %zu to %zu each: "
                          "ranks on the fuller nodes get fewer cores and share more host "
                          "bandwidth.",
                          least, most);
}

enum cm_status cm_topology_findings(struct cm_topology *topology)
{
    static enum cm_status (*const all[])(struct cm_topology *) = {
        links, nvlinks, gpu_memory, far_nics, uneven, only_numa, left_out, limits,
    };
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && status == CM_OK; i++)
        status = all[i](topology);
    return status;
}
