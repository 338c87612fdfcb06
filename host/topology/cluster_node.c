/* What a node of a cluster is, from its topology and its devices. */
#include <stdio.h>
#include <string.h>

#include "clustermark/cluster.h"
#include "host/topology/internal.h"

#define COPY(to, from) snprintf(to, sizeof(to), "%.*s", (int)sizeof(to) - 1, from)

static void add_gpu(const char *model, unsigned count, struct cm_node *node)
{
    unsigned at = 0;
    while (at < node->gpu_models &&
           strncmp(node->gpus[at].model, model, sizeof node->gpus[at].model - 1) != 0)
        at++;
    if (at == CM_NODE_GPUS_MAX)
        at--; /* a fifth model counts as the fourth */
    if (at == node->gpu_models) {
        node->gpu_models++;
        COPY(node->gpus[at].model, model);
    }
    node->gpus[at].count += count;
}

static void add_gpus(const struct cm_topology *topology, struct cm_node *node)
{
    for (size_t i = 0; i < topology->gpu_count; i++) {
        const struct cm_pci_device *gpu = &topology->gpus[i];
        unsigned links = cm_nvlink_count(topology, i);
        add_gpu(gpu->name, 1, node);
        if (i == 0 || links < node->nvlinks)
            node->nvlinks = links;
        /* Not the generation: it falls while a GPU is idle. */
        if (i == 0 || gpu->link.width < node->gpu_width)
            node->gpu_width = gpu->link.width;
    }
}

static void add_nics(const struct cm_topology *topology, struct cm_node *node)
{
    node->nic_count = (uint32_t)topology->nic_count;
    for (size_t i = 0; i < topology->nic_count && i < CM_NODE_NICS_MAX; i++) {
        const struct cm_pci_device *from = &topology->nics[i];
        struct cm_node_nic *nic = &node->nics[i];
        COPY(nic->name, from->os_name);
        COPY(nic->model, from->name);
        nic->rate = from->net_bytes_per_s;
        nic->width = from->link.width;
    }
}

static void add_topology(const struct cm_topology *topology, struct cm_node *node)
{
    node->packages = (uint32_t)topology->package_count;
    node->cores = (uint32_t)topology->core_count;
    node->nvswitches = (uint32_t)topology->nvswitch_count;
    if (topology->package_count > 0)
        COPY(node->processor, topology->packages[0].model);
    for (size_t i = 0; i < topology->numa_count; i++)
        node->numa_nodes += !topology->numa[i].gpu_memory;
    COPY(node->digest, topology->digest);
    add_gpus(topology, node);
    add_nics(topology, node);
}

void cm_node_describe(const struct cm_topology *topology, const struct cm_device_info *info,
                      unsigned devices, struct cm_node *node)
{
    memset(node, 0, sizeof *node);
    if (topology != NULL)
        add_topology(topology, node);
    if (info == NULL || info->bus_id[0] == '\0')
        return;
    COPY(node->driver, info->driver);
    if (node->gpu_models == 0)
        add_gpu(info->name, devices, node);
    if (node->nvlinks == 0)
        node->nvlinks = info->nvlinks;
}
