/* The list of a cluster's nodes, equal ones folded, and what follows from it. */
#include "host/topology/cluster.h"

#include <stdlib.h>
#include <string.h>

#include "clustermark/memory.h"

#define MEMORY_TOLERANCE 0.03 /* what firmware and kernel keep differs from node to node */

/* ---- the list ---- */

static enum cm_status find_kind(struct cm_cluster_map *cluster, const struct cm_node *node,
                                uint32_t *kind)
{
    *kind = CM_KIND_UNKNOWN;
    for (size_t i = 0; node != NULL && i < cluster->kind_count; i++) {
        if (memcmp(&cluster->kinds[i].node, node, sizeof *node) == 0)
            *kind = (uint32_t)i;
    }
    if (node == NULL || *kind != CM_KIND_UNKNOWN || cluster->kind_count == CM_KINDS_MAX)
        return CM_OK;
    struct cm_cluster_kind *kinds =
        cm_resize(cluster->kinds, cluster->kind_count + 1, sizeof *kinds);
    if (kinds == NULL)
        return CM_NO_MEMORY;
    cluster->kinds = kinds;
    *kind = (uint32_t)cluster->kind_count++;
    memset(&kinds[*kind], 0, sizeof *kinds);
    memcpy(&kinds[*kind].node, node, sizeof *node);
    return CM_OK;
}

enum cm_status cm_cluster_add(struct cm_cluster_map *cluster, const struct cm_cluster_node *place,
                              const struct cm_node *node)
{
    uint32_t kind;
    if (cm_grow(&cluster->nodes, &cluster->capacity, cluster->count + 1, sizeof *cluster->nodes) !=
        0)
        return CM_NO_MEMORY;
    enum cm_status status = find_kind(cluster, node, &kind);
    if (status != CM_OK)
        return status;
    struct cm_cluster_node *added = &cluster->nodes[cluster->count++];
    *added = *place;
    added->kind = kind;
    cluster->ranks += place->ranks;
    if (kind != CM_KIND_UNKNOWN)
        cluster->kinds[kind].count++;
    return CM_OK;
}

void cm_cluster_release(struct cm_cluster_map *cluster)
{
    cm_free(cluster->nodes);
    cm_free(cluster->kinds);
    cm_free(cluster->node_of);
    *cluster = (struct cm_cluster_map){0};
}

/* ---- what is usual ---- */

uint32_t cm_cluster_usual(const struct cm_cluster_map *cluster)
{
    for (size_t i = 0; i < cluster->kind_count; i++) {
        if (2 * (size_t)cluster->kinds[i].count > cluster->count)
            return (uint32_t)i;
    }
    return CM_KIND_UNKNOWN;
}

uint32_t cm_cluster_measure(const struct cm_cluster_map *cluster)
{
    uint32_t usual = cm_cluster_usual(cluster);
    return usual != CM_KIND_UNKNOWN || cluster->kind_count == 0 ? usual : 0;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;
    return one < other ? -1 : one > other;
}

enum cm_status cm_cluster_memory(const struct cm_cluster_map *cluster, uint64_t *bytes)
{
    size_t known = 0;
    uint64_t *all = cm_alloc(cluster->count + 1, sizeof *all);
    if (all == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < cluster->count; i++) {
        if (cluster->nodes[i].memory_bytes > 0)
            all[known++] = cluster->nodes[i].memory_bytes;
    }
    qsort(all, known, sizeof *all, compare_numbers);
    *bytes = known > 0 ? all[known / 2] : 0;
    cm_free(all);
    return CM_OK;
}

bool cm_cluster_memory_odd(const struct cm_cluster_node *node, uint64_t usual)
{
    double own = (double)node->memory_bytes, other = (double)usual;
    return own > 0 && other > 0 &&
           (own < other * (1 - MEMORY_TOLERANCE) || own > other * (1 + MEMORY_TOLERANCE));
}

/* ---- rails and domains ---- */

static void add_rail(const struct cm_node_nic *nic, unsigned nodes, struct cm_rail *rail)
{
    rail->nodes += nodes;
    if (rail->name == NULL)
        rail->name = nic->name;
    if (nic->rate > 0 && (rail->slowest <= 0 || nic->rate < rail->slowest))
        rail->slowest = nic->rate;
    if (nic->rate > rail->fastest)
        rail->fastest = nic->rate;
}

unsigned cm_cluster_rails(const struct cm_cluster_map *cluster,
                          struct cm_rail rails[CM_NODE_NICS_MAX])
{
    unsigned count = 0;
    uint32_t first = cm_cluster_measure(cluster);
    memset(rails, 0, CM_NODE_NICS_MAX * sizeof *rails);
    for (size_t i = 0; i < cluster->kind_count; i++) {
        /* The usual kind gives the names, so it comes first. */
        size_t at = i == 0 ? first : i <= first ? i - 1 : i;
        const struct cm_cluster_kind *kind = &cluster->kinds[at];
        for (unsigned k = 0; k < kind->node.nic_count && k < CM_NODE_NICS_MAX; k++) {
            add_rail(&kind->node.nics[k], kind->count, &rails[k]);
            count = k + 1 > count ? k + 1 : count;
        }
    }
    return count;
}

enum cm_status cm_cluster_domains(const struct cm_cluster_map *cluster, struct cm_domains *domains)
{
    uint64_t *all = cm_alloc(cluster->count + 1, sizeof *all);
    if (all == NULL)
        return CM_NO_MEMORY;
    *domains = (struct cm_domains){0};
    size_t inside = 0;
    for (size_t i = 0; i < cluster->count; i++) {
        if (cluster->nodes[i].fabric != 0)
            all[inside++] = cluster->nodes[i].fabric;
    }
    domains->outside = (unsigned)(cluster->count - inside);
    qsort(all, inside, sizeof *all, compare_numbers);
    for (size_t i = 0, next; i < inside; i = next) {
        for (next = i + 1; next < inside && all[next] == all[i];)
            next++;
        unsigned size = (unsigned)(next - i);
        if (domains->count == 0 || size < domains->smallest)
            domains->smallest = size;
        if (size > domains->largest)
            domains->largest = size;
        domains->count++;
    }
    cm_free(all);
    return CM_OK;
}
