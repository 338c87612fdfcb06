/*
 * run_cluster.h: what `run` tells of the nodes before it measures.
 */
#ifndef HOST_CLI_RUN_CLUSTER_H
#define HOST_CLI_RUN_CLUSTER_H

#include "clustermark/cluster.h"
#include "clustermark/measure.h"
#include "clustermark/result.h"

/* The map, and which groups of a training step stay within a node: into the result, and on stderr
 * unless `quiet`. */
enum cm_status cm_cli_cluster(const struct cm_cluster_map *cluster, const struct cm_plan *plan,
                              const struct cm_device_ops *device, bool quiet,
                              struct cm_result *result);

#endif
