/*
 * cluster.h: what the files of the cluster's map share.
 */
#ifndef CM_TOPOLOGY_CLUSTER_H
#define CM_TOPOLOGY_CLUSTER_H

#include "clustermark/cluster.h"

/* NIC number k of every node that has one: what collectives over many nodes go along. */
struct cm_rail {
    const char *name; /* the usual kind's, else the first's */
    unsigned nodes;
    double slowest, fastest; /* B/s; 0 not known */
};
/* Into `rails`, how many there are. */
unsigned cm_cluster_rails(const struct cm_cluster_map *cluster,
                          struct cm_rail rails[CM_NODE_NICS_MAX]);

/* Domains of NVLink over several nodes; count 0 when no node tells of one. */
struct cm_domains {
    unsigned count, smallest, largest; /* nodes of each */
    unsigned outside;                  /* nodes that are in none */
};
enum cm_status cm_cluster_domains(const struct cm_cluster_map *cluster, struct cm_domains *domains);

/* The middle one of the nodes' memories; 0 not known. */
enum cm_status cm_cluster_memory(const struct cm_cluster_map *cluster, uint64_t *bytes);
/* Whether a node's memory is another size, and not just another machine's use of it. */
bool cm_cluster_memory_odd(const struct cm_cluster_node *node, uint64_t usual);

void cm_cluster_write_memory(uint64_t bytes, struct cm_str *out); /* "2 TiB" */
/* "1 TiB of memory against 2 TiB" */
void cm_cluster_write_memories(uint64_t bytes, uint64_t usual, struct cm_str *out);

/* What the nodes of a kind are held against: the usual one, else the first. */
uint32_t cm_cluster_measure(const struct cm_cluster_map *cluster);

#define CM_NAMES_MAX 200
/* "node01 to node07, node09 and 3 more": names of the nodes of a kind. */
void cm_cluster_names(const struct cm_cluster_map *cluster, uint32_t kind, bool show_hosts,
                      struct cm_str *out);
/* The name, or its hash; at least 64 bytes. */
const char *cm_cluster_name(const struct cm_cluster_node *node, bool show_hosts, char *buffer);

#endif
