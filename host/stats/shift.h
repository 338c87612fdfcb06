/*
 * shift.h: the shift between two samples, its tail and memory given. Private to host/stats.
 */
#ifndef HOST_STATS_SHIFT_H
#define HOST_STATS_SHIFT_H

#include "clustermark/stats.h"
#include "host/stats/rank_sum.h"

/* `differences` has room for x_count * y_count. */
void cm_shift_find(const double *x, size_t x_count, const double *y, size_t y_count,
                   const struct cm_rank_tail *tail, double *differences, struct cm_shift *shift);

#endif
