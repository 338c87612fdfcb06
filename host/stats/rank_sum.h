/*
 * rank_sum.h: the distribution of Mann and Whitney's U for two samples of the same kind.
 */
#ifndef HOST_STATS_RANK_SUM_H
#define HOST_STATS_RANK_SUM_H

#include <stddef.h>

#include "clustermark/status.h"

/* The most values of a sample. */
#define CM_RANK_SUM_MAX 2000

/* How many of u = 0, 1, ... have P(U <= u) <= level. */
struct cm_rank_tail {
    size_t ranks;
    double probability; /* P(U <= ranks - 1), 0 for no ranks */
};
enum cm_status cm_rank_sum_tail(size_t x_count, size_t y_count, double level,
                                struct cm_rank_tail *tail);

/* P(U <= u). */
enum cm_status cm_rank_sum_below(size_t x_count, size_t y_count, size_t u, double *chance);

#endif
