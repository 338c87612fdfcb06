/*
 * order.h: order statistics, without sorting and without memory.
 */
#ifndef HOST_STATS_ORDER_H
#define HOST_STATS_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CM_ORDER_BUCKETS 2048

/* Values, as they are or their distances from a centre, looked through once so that several order
 * statistics can be had quickly. */
struct cm_order {
    const double *values;
    size_t count;
    bool distances;
    double center;
    /* The keys all begin with `prefix` under `mask`; below come `shift` bits, the highest of which
     * are counted in `buckets`. */
    uint64_t prefix, mask;
    unsigned shift;
    size_t buckets[CM_ORDER_BUCKETS];
};

/* `values` must stay as they are while `order` is in use. */
void cm_order_begin(const double *values, size_t count, struct cm_order *order);
void cm_order_begin_distances(const double *values, size_t count, double center,
                              struct cm_order *order);

/* The value at place `rank` of the sorted values; rank < count. */
double cm_order_statistic(const struct cm_order *order, size_t rank);

/* Type 7, as cm_quantile. */
double cm_order_quantile(const struct cm_order *order, double q);

#endif
