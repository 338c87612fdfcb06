/*
 * mixtures.h: mixtures of experts by name, from configs/mixtures.ini.
 */
#ifndef HOST_PROJECT_MIXTURES_H
#define HOST_PROJECT_MIXTURES_H

#include "clustermark/cost.h"

struct cm_mixture {
    char name[64];
    double experts, top_k, shared, ffn, kv_heads, head_size, projection;
    char source[240];
};
struct cm_mixtures {
    struct cm_mixture *items;
    size_t count, capacity;
};

/* CM_USAGE with file and line. */
enum cm_status cm_mixtures_load(struct cm_mixtures *mixtures);
void cm_mixtures_release(struct cm_mixtures *mixtures);
/* NULL when it is not there. */
const struct cm_mixture *cm_mixture_find(const struct cm_mixtures *mixtures, const char *name);

#endif
