/* How two devices reach each other, in the words of NCCL and nvidia-smi. */
#include <stdio.h>
#include <string.h>

#include "host/topology/internal.h"

static const char *const words[CM_PATH_COUNT] = {
#define PATH_WORD(name, word, text) [CM_PATH_##name] = word,
    CM_PATH_LIST(PATH_WORD)
#undef PATH_WORD
};

void cm_path_word(struct cm_path path, char *word)
{
    if (path.kind == CM_PATH_NVLINK)
        snprintf(word, 8, "NV%u", path.links < 10000 ? path.links : 9999);
    else
        snprintf(word, 8, "%s", path.kind < CM_PATH_COUNT ? words[path.kind] : "?");
}

unsigned cm_nvlink_count(const struct cm_topology *topology, size_t gpu)
{
    unsigned count = 0;
    for (size_t i = 0; i < topology->nvlink_count; i++) {
        if (topology->nvlinks[i].gpu == (int)gpu)
            count += topology->nvlinks[i].count;
    }
    return count;
}

static unsigned links_to_switch(const struct cm_topology *topology, int gpu)
{
    unsigned count = 0;
    for (size_t i = 0; i < topology->nvlink_count; i++) {
        if (topology->nvlinks[i].gpu == gpu && topology->nvlinks[i].to_switch)
            count += topology->nvlinks[i].count;
    }
    return count;
}

static unsigned links_between(const struct cm_topology *topology, int a, int b)
{
    unsigned forth = 0, back = 0;
    for (size_t i = 0; i < topology->nvlink_count; i++) {
        const struct cm_nvlink *link = &topology->nvlinks[i];
        if (link->gpu == a && link->peer_gpu == b)
            forth += link->count;
        if (link->gpu == b && link->peer_gpu == a)
            back += link->count;
    }
    if (forth > 0 || back > 0)
        return forth > back ? forth : back; /* some files have one direction only */
    unsigned from_a = links_to_switch(topology, a), from_b = links_to_switch(topology, b);
    return from_a < from_b ? from_a : from_b;
}

/* Index of the nearest bridge that both have above them; false when there is none. */
static bool common_bridge(const struct cm_pci_device *a, const struct cm_pci_device *b,
                          unsigned *at_a, unsigned *at_b)
{
    for (unsigned i = 0; i < a->bridge_count; i++) {
        for (unsigned j = 0; j < b->bridge_count; j++) {
            if (a->bridges[i] == b->bridges[j]) {
                *at_a = i;
                *at_b = j;
                return true;
            }
        }
    }
    return false;
}

struct cm_path cm_path_between(const struct cm_topology *topology, const struct cm_pci_device *a,
                               const struct cm_pci_device *b)
{
    struct cm_path path = {.kind = CM_PATH_UNKNOWN};
    unsigned at_a, at_b;
    if (strcmp(a->bus_id, b->bus_id) == 0) {
        path.kind = CM_PATH_SELF;
        return path;
    }
    if (a->kind == CM_PCI_GPU && b->kind == CM_PCI_GPU) {
        path.links = links_between(topology, cm_topology_gpu(topology, a->bus_id),
                                   cm_topology_gpu(topology, b->bus_id));
        if (path.links > 0) {
            path.kind = CM_PATH_NVLINK;
            return path;
        }
    }
    if (common_bridge(a, b, &at_a, &at_b)) {
        /* A device's first bridge is the port it is plugged into, its second the switch with that
         * port: up to there it is one switch. */
        if (at_a + 1 == a->bridge_count)
            path.kind = CM_PATH_PHB;
        else
            path.kind = at_a <= 1 && at_b <= 1 ? CM_PATH_PIX : CM_PATH_PXB;
    } else if (a->numa >= 0 && b->numa >= 0) {
        path.kind = a->numa == b->numa ? CM_PATH_NODE : CM_PATH_SYS;
    }
    return path;
}

struct cm_path cm_path_to_numa(const struct cm_topology *topology,
                               const struct cm_pci_device *device, size_t numa)
{
    struct cm_path path = {.kind = CM_PATH_UNKNOWN};
    if (device->numa < 0)
        return path;
    path.kind = (size_t)device->numa == numa ? CM_PATH_PHB : CM_PATH_SYS;
    if (path.kind != CM_PATH_PHB || device->kind != CM_PCI_GPU)
        return path;
    int gpu = cm_topology_gpu(topology, device->bus_id);
    for (size_t i = 0; i < topology->nvlink_count; i++) {
        if (topology->nvlinks[i].gpu == gpu && topology->nvlinks[i].to_cpu)
            path.links += topology->nvlinks[i].count;
    }
    if (path.links > 0)
        path.kind = CM_PATH_NVLINK;
    return path;
}
