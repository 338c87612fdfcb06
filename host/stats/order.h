/*
 * order.h: order statistics, without sorting and without memory.
 */
#ifndef HOST_STATS_ORDER_H
#define HOST_STATS_ORDER_H

#include <stdbool.h>
#include <stddef.h>

/* Values as they are, or their distances from a centre. */
struct cm_series {
    const double *values;
    size_t count;
    bool distances;
    double center;
};

/* The value of which exactly `rank` others are smaller or stand equal before it; rank < count. */
double cm_order_statistic(const struct cm_series *series, size_t rank);

/* Type 7, as cm_quantile. */
double cm_series_quantile(const struct cm_series *series, double q);

#endif
