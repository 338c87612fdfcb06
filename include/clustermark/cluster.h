/*
 * cluster.h: the map of a cluster: its nodes, equal ones folded, odd ones named, rails and NVLink
 * domains.
 *
 * Nodes come one after another, each with what it is; of those that are equal one description is
 * kept, so that a cluster of thousands takes as much memory as its kinds do. What the texts say is
 * a function of that list.
 */
#ifndef CLUSTERMARK_CLUSTER_H
#define CLUSTERMARK_CLUSTER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "clustermark/device.h"
#include "clustermark/status.h"
#include "clustermark/strbuf.h"
#include "clustermark/topology.h"

#define CM_NODE_NICS_MAX 32
#define CM_NODE_GPUS_MAX 4 /* models of GPUs in one node */

struct cm_node_nic {
    char name[24]; /* "mlx5_0"; "" where the system gives none */
    char model[40];
    double rate;    /* B/s of the line, 0 not known */
    uint32_t width; /* PCIe lanes, 0 not known */
    uint32_t spare;
};

/* What a node is, and nothing in which equal nodes differ: no serials, addresses or bus numbers.
 * Plain bytes that travel as they are; what is not used is zero, so that equal nodes are equal in
 * all bytes. */
struct cm_node {
    char processor[64], kernel[64], driver[32];
    char digest[24]; /* of its topology; "" not known */
    uint32_t packages, cores, numa_nodes;
    uint32_t gpu_models, nic_count; /* nics may be more than are described */
    uint32_t nvswitches;
    uint32_t nvlinks;   /* of the GPU that has the fewest */
    uint32_t gpu_width; /* PCIe lanes of the GPU that has the fewest */
    struct {
        char model[64];
        uint32_t count;
    } gpus[CM_NODE_GPUS_MAX];
    struct cm_node_nic nics[CM_NODE_NICS_MAX];
};

/* From the machine's topology (NULL: not known) and one of the devices that its ranks use, which
 * there are `devices` of; what the topology does not see of them is taken from there. */
void cm_node_describe(const struct cm_topology *topology, const struct cm_device_info *info,
                      unsigned devices, struct cm_node *node);

/* A node's place in the cluster, and in what equal nodes may differ. */
struct cm_cluster_node {
    char name[64];
    uint32_t first_rank, ranks;
    uint64_t memory_bytes; /* 0 not known */
    uint64_t fabric;       /* NVLink domain of its GPUs, equal for nodes of one; 0: none */
    uint32_t kind;         /* cm_cluster_add sets it; CM_KIND_UNKNOWN: not described */
};

#define CM_KIND_UNKNOWN UINT32_MAX
#define CM_KINDS_MAX    64 /* that are described; a cluster with more has other troubles */

struct cm_cluster_kind {
    struct cm_node node;
    uint32_t count; /* nodes of this kind */
};

struct cm_cluster_map {
    struct cm_cluster_node *nodes;
    size_t count, capacity;
    struct cm_cluster_kind *kinds;
    size_t kind_count;
    uint32_t ranks;
    unsigned *node_of; /* per rank, an index of nodes; the cluster's own; NULL not known */
};

/* `node` NULL: what it is, is not known. */
enum cm_status cm_cluster_add(struct cm_cluster_map *cluster, const struct cm_cluster_node *place,
                              const struct cm_node *node);
void cm_cluster_release(struct cm_cluster_map *cluster);

/* The kind that more than half of the nodes are of; CM_KIND_UNKNOWN when there is none. */
uint32_t cm_cluster_usual(const struct cm_cluster_map *cluster);
/* "7 GPUs, the other 63 have 8; NIC mlx5_3 at 100 of 400 Gb/s; driver 580.1 against 580.2": what
 * `node` has otherwise than `usual`, of which there are `others` nodes. "" when they are equal. */
void cm_node_differences(const struct cm_node *node, const struct cm_node *usual, unsigned others,
                         struct cm_str *out);
/* What a node is, in one line. */
void cm_node_text(const struct cm_node *node, struct cm_str *out);

/* The map, some lines with ends. Names of nodes are hashed unless `show_hosts`. */
void cm_cluster_text(const struct cm_cluster_map *cluster, bool show_hosts, struct cm_str *out);
/* The object `cluster` of a result. */
enum cm_status cm_cluster_json(const struct cm_cluster_map *cluster, bool show_hosts,
                               json_t **value);

#endif
