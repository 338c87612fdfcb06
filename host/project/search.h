/*
 * search.h: the quickest plan that fits.
 */
#ifndef HOST_PROJECT_SEARCH_H
#define HOST_PROJECT_SEARCH_H

#include "clustermark/cost.h"

struct cm_search {
    const struct cm_transformer *model;
    struct cm_cost_job base; /* GPU, network and precision; the rest is set by the search */
    const double *value;     /* of the calibration */
    uint64_t gpus, batch;
    double memory; /* bytes that a GPU has for it */
};
struct cm_found_plan {
    struct cm_parallel plan;
    uint64_t micro_batch;
    enum cm_recompute recompute;
    uint64_t tried, fitting; /* plans that divide, and those of them that fit */
};
/* CM_USAGE: no plan divides, or none fits. */
enum cm_status cm_plan_search(const struct cm_search *search, struct cm_found_plan *found);

#endif
