/*
 * world_map.h: the cluster that the ranks of a world are on.
 */
#ifndef HOST_MEASURE_WORLD_MAP_H
#define HOST_MEASURE_WORLD_MAP_H

#include "clustermark/cluster.h"
#include "host/measure/exchange.h"
#include "host/measure/world_check.h"

/* Every rank calls it, with the records of all (cm_world_check). One rank of each node looks at its
 * machine; a description travels once for each kind of node. The map is filled on rank 0. */
enum cm_status cm_world_map(const struct cm_exchange *exchange,
                            const struct cm_world_record *records, struct cm_cluster_map *cluster);

#endif
