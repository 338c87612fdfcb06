/* The nodes of a world, gathered at rank 0. */
#include "host/measure/world_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "clustermark/deadline.h"
#include "clustermark/error.h"
#include "clustermark/hash.h"
#include "clustermark/memory.h"

/* What a node's first rank tells of it to all; zero from the others. */
struct summary {
    uint64_t kind; /* hash of its description */
    uint64_t memory_bytes, fabric;
};

struct rank_of {
    uint64_t host;
    uint32_t rank;
};

/* The ranks by host, each host's together and in order; the hosts by their first rank. */
struct hosts {
    struct rank_of *ranks;
    uint32_t *first;     /* per rank: the first of its host */
    uint32_t *how_many;  /* per rank that is the first of its host: ranks there; else 0 */
    struct summary *all; /* per rank */
};

static int by_host(const void *a, const void *b)
{
    const struct rank_of *one = a, *other = b;
    if (one->host != other->host)
        return one->host < other->host ? -1 : 1;
    return one->rank < other->rank ? -1 : 1;
}

static void release(struct hosts *hosts)
{
    cm_free(hosts->ranks);
    cm_free(hosts->first);
    cm_free(hosts->how_many);
    cm_free(hosts->all);
}

static enum cm_status find_hosts(const struct cm_world_record *records, unsigned size,
                                 struct hosts *hosts)
{
    *hosts =
        (struct hosts){cm_alloc(size, sizeof *hosts->ranks), cm_alloc(size, sizeof *hosts->first),
                       cm_alloc(size, sizeof *hosts->how_many), cm_alloc(size, sizeof *hosts->all)};
    if (hosts->ranks == NULL || hosts->first == NULL || hosts->how_many == NULL ||
        hosts->all == NULL) {
        release(hosts);
        return CM_NO_MEMORY;
    }
    for (uint32_t rank = 0; rank < size; rank++)
        hosts->ranks[rank] = (struct rank_of){records[rank].host, rank};
    qsort(hosts->ranks, size, sizeof *hosts->ranks, by_host);
    uint32_t first = 0;
    for (uint32_t i = 0; i < size; i++) {
        const struct rank_of *at = &hosts->ranks[i];
        if (i == 0 || at->host != at[-1].host)
            first = at->rank;
        hosts->first[at->rank] = first;
        hosts->how_many[first]++;
    }
    return CM_OK;
}

/* A machine that cannot be looked at is a kind of its own. */
static void look(const struct cm_exchange *exchange, unsigned ranks_here, struct summary *summary,
                 struct cm_node *node)
{
    struct cm_device *device = exchange->device;
    const struct cm_device_info *info = &device->info;
    struct cm_deadline *deadline = NULL;
    if (device->ops->survey != NULL &&
        cm_deadline_begin(CM_DRIVER_S, CM_DRIVER_HANGS, &deadline) == CM_OK)
        device->ops->survey(device);
    cm_deadline_end(deadline);
    struct cm_topology topology;
    struct utsname name;
    bool known = cm_topology_live(&topology) == CM_OK;
    if (!known)
        cm_warn("this node is not described: %s", cm_error_text());
    cm_node_describe(known ? &topology : NULL, info, ranks_here, node);
    if (uname(&name) == 0)
        snprintf(node->kernel, sizeof node->kernel, "%.63s", name.release);
    summary->kind = cm_hash(1, node, sizeof *node);
    summary->memory_bytes = known ? topology.memory_bytes : 0;
    if (info->fabric[0] != '\0')
        summary->fabric = cm_hash(1, info->fabric, strlen(info->fabric));
    if (known)
        cm_topology_release(&topology);
}

static enum cm_status add_nodes(const struct cm_world_record *records, const struct hosts *hosts,
                                const uint64_t *kinds, const struct cm_node *nodes, size_t count,
                                unsigned size, struct cm_cluster_map *cluster)
{
    enum cm_status status = CM_OK;
    cluster->node_of = cm_alloc(size, sizeof *cluster->node_of);
    if (cluster->node_of == NULL)
        return CM_NO_MEMORY;
    for (uint32_t rank = 0; rank < size && status == CM_OK; rank++) {
        const struct summary *summary = &hosts->all[rank];
        struct cm_cluster_node place = {.first_rank = rank,
                                        .ranks = hosts->how_many[rank],
                                        .memory_bytes = summary->memory_bytes,
                                        .fabric = summary->fabric};
        size_t kind = 0;
        if (place.ranks == 0) { /* of a node that is in the list */
            cluster->node_of[rank] = cluster->node_of[hosts->first[rank]];
            continue;
        }
        cluster->node_of[rank] = (unsigned)cluster->count;
        while (kind < count && kinds[kind] != summary->kind)
            kind++;
        snprintf(place.name, sizeof place.name, "%.63s", records[rank].host_name);
        status = cm_cluster_add(cluster, &place, kind < count ? &nodes[kind] : NULL);
    }
    return status;
}

/* The first rank that has a description of a kind gives it to all. */
static enum cm_status share_kinds(const struct cm_exchange *exchange,
                                  const struct cm_world_record *records, const struct hosts *hosts,
                                  const struct cm_node *own, struct cm_cluster_map *cluster)
{
    unsigned size = exchange->comm->size, rank = exchange->comm->rank;
    uint64_t kinds[CM_KINDS_MAX];
    size_t count = 0;
    struct cm_node *nodes = cm_alloc(CM_KINDS_MAX, sizeof *nodes);
    enum cm_status status = nodes != NULL ? CM_OK : CM_NO_MEMORY;
    for (uint32_t root = 0; root < size && count < CM_KINDS_MAX && status == CM_OK; root++) {
        size_t at = 0;
        while (at < count && kinds[at] != hosts->all[root].kind)
            at++;
        if (hosts->how_many[root] == 0 || at < count)
            continue;
        kinds[count] = hosts->all[root].kind;
        if (root == rank)
            nodes[count] = *own;
        status = cm_exchange_broadcast(exchange, root, &nodes[count++], sizeof *nodes);
    }
    if (status == CM_OK && rank == 0)
        status = add_nodes(records, hosts, kinds, nodes, count, size, cluster);
    cm_free(nodes);
    return status;
}

enum cm_status cm_world_map(const struct cm_exchange *exchange,
                            const struct cm_world_record *records, struct cm_cluster_map *cluster)
{
    unsigned rank = exchange->comm->rank;
    struct summary own = {0};
    struct hosts hosts;
    struct cm_node *node = cm_alloc(1, sizeof *node);
    enum cm_status status = node != NULL ? CM_OK : CM_NO_MEMORY;
    *cluster = (struct cm_cluster_map){0};
    if (status == CM_OK)
        status = find_hosts(records, exchange->comm->size, &hosts);
    if (status != CM_OK) {
        cm_free(node);
        return status;
    }
    if (hosts.how_many[rank] > 0)
        look(exchange, hosts.how_many[rank], &own, node);
    status = cm_exchange_gather(exchange, &own, sizeof own, hosts.all);
    if (status == CM_OK)
        status = share_kinds(exchange, records, &hosts, node, cluster);
    release(&hosts);
    cm_free(node);
    return status == CM_OK ? CM_OK : cm_error_at(status, "the cluster's map: ");
}
