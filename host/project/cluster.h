/*
 * cluster.h: a cluster given by numbers, from configs/clusters/<name>.ini, section [cluster]. Other
 * keys than those of cm_cluster_options are errors.
 */
#ifndef HOST_PROJECT_CLUSTER_H
#define HOST_PROJECT_CLUSTER_H

#include "clustermark/cost.h"

struct cm_cluster {
    char name[64];
    char gpu[40];        /* of configs/gpus.ini */
    uint64_t gpus;       /* that it has; 0: as many as are asked for */
    uint64_t domain;     /* GPUs that NVLink joins; 0: the GPU's usual */
    double network_rate; /* B/s of a GPU's share of its node's cards; 0: the GPU's usual */
    char source[240];
    const struct cm_gpu_spec *spec;
};
extern const struct cm_option cm_cluster_options[];

/* By name or path, or a GPU's name for a cluster of its usual systems. *cluster points into
 * *catalogue. CM_USAGE: no such cluster or GPU, an unknown key. */
enum cm_status cm_cluster_load(const char *name, const struct cm_gpu_catalogue *catalogue,
                               struct cm_cluster *cluster);

#endif
