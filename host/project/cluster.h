/*
 * cluster.h: a cluster given by numbers, from configs/clusters/<name>.ini, section [cluster]: the
 * keys of cm_cluster_options and of cm_assumption_infos. Others are errors.
 */
#ifndef HOST_PROJECT_CLUSTER_H
#define HOST_PROJECT_CLUSTER_H

#include "clustermark/cost.h"
#include "host/project/assume.h"

struct cm_cluster {
    char name[64];
    char gpu[40];               /* of configs/gpus.ini */
    uint64_t gpus;              /* that it has; 0: as many as are asked for */
    uint64_t domain;            /* GPUs that NVLink joins; 0: the GPU's usual */
    double network_rate;        /* B/s of a GPU's share of its node's cards; 0: the GPU's usual */
    double host_spread;         /* standard deviation between hosts; 0: the calibration's */
    double slow_by, slow_share; /* how much longer a slow host takes, and which share of them are */
    char source[200];
    char model[48];    /* that it is asked about where no other is named */
    uint64_t job_gpus; /* of one of several jobs; 0: the whole cluster is one job */
    char sizes[80];    /* GPUs that are answered where none are asked for: a list with commas */
    double run_tokens; /* of a training run that is timed; 0: none */
    double deal_usd, deal_years; /* money for all of its GPUs; 0: there is a price, or none */
    double delay_months;         /* of the deal's time, in which no GPU is there */
    struct cm_assumption assumptions[CM_ASSUME_COUNT];
    const struct cm_gpu_spec *spec;
};
extern const struct cm_option cm_cluster_options[];

/* By name or path, or a GPU's name for a cluster of its usual systems; then each of `sets`, which
 * read KEY=VALUE. *cluster points into *catalogue. CM_USAGE: no such cluster or GPU, an unknown
 * key, a value that cannot be. */
enum cm_status cm_cluster_load(const char *name, const char *const *sets, size_t set_count,
                               const struct cm_gpu_catalogue *catalogue,
                               struct cm_cluster *cluster);
/* The next number of cluster->sizes from *at on, which begins NULL and moves; 0: no more. CM_USAGE:
 * no number. */
enum cm_status cm_cluster_next_size(const struct cm_cluster *cluster, const char **at,
                                    uint64_t *gpus);

#endif
