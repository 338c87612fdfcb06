/*
 * stats.h: statistics of samples. Pure: no I/O, no allocation beyond what is stated.
 *
 * The unit of inference is a fresh-process run; iterations inside a run only sharpen that run's
 * median.
 */
#ifndef CLUSTERMARK_STATS_H
#define CLUSTERMARK_STATS_H

#include <stdbool.h>
#include <stddef.h>

#include "clustermark/status.h"

/* Samples in the order they were taken. Owns its values. */
struct cm_samples {
    double *values;
    size_t count, capacity;
};

enum cm_status cm_samples_add(struct cm_samples *samples, double value);
void cm_samples_clear(struct cm_samples *samples);
void cm_samples_release(struct cm_samples *samples);

/* Quantile by linear interpolation between order statistics (Hyndman and Fan's type 7). q in
 * [0, 1]; NAN for no values. Leaves `values` in their order; allocates nothing. */
double cm_quantile(const double *values, size_t count, double q);
double cm_median(const double *values, size_t count);
/* Median absolute deviation from the median, not scaled. */
double cm_mad(const double *values, size_t count);

struct cm_interval {
    double low, high;
    double coverage; /* the exact coverage reached; 0 when the count is too small for the level */
};

/* Distribution-free interval of the median from order statistics: the narrowest symmetric pair
 * (l, n+1-l) whose coverage sum_{i=l}^{n-l} C(n,i) / 2^n is at least `level`. With fewer values
 * than the level needs (6 for 95 %) low and high are the extremes and coverage is 0. */
struct cm_interval cm_median_interval(const double *values, size_t count, double level);

/* Hodges-Lehmann shift of y against x (median of all y_j - x_i) with the exact Mann-Whitney
 * interval of at least `level`; coverage 0 and the extremes when the counts are too small for it.
 * 1 to 2,000 values of each (CM_USAGE otherwise); with more than 200 of both the normal
 * approximation stands in for the exact distribution. Allocates the differences. */
struct cm_shift {
    double estimate;
    struct cm_interval interval;
};
enum cm_status cm_hodges_lehmann(const double *x, size_t x_count, const double *y, size_t y_count,
                                 double level, struct cm_shift *shift);

/* Whether a series still drifts: the last third against the first third, as the Hodges-Lehmann
 * shift of the logarithms with its 95 % interval. Steady when the interval lies within
 * +-tolerance; below 12 values, where there is no such interval, all differences must. Values that
 * are not positive do not count; fewer than 9: not steady. Long series are thinned to 300 values.
 */
struct cm_steadiness {
    bool steady;
    double drift; /* relative, last against first */
};
enum cm_status cm_steadiness(const double *values, size_t count, double tolerance,
                             struct cm_steadiness *result);

/* Relative half-width of the 95 % order-statistic interval of the median: what the stopping rule
 * looks at. INFINITY with fewer than 6 values. */
double cm_median_precision(const double *values, size_t count);

/* Two-sided p of Student's t-test with a common variance; 1 when there are too few values. */
double cm_t_test(const double *x, size_t x_count, const double *y, size_t y_count);

/* Change points of a series. Places come from E-divisive (where the energy statistic of the two
 * parts of a segment is largest, then within the parts; at least 3 values on each side); a place is
 * kept when the t-test between the segments beside it has at most `p`, and their means differ by
 * more than `least`. Places that fail go one by one, the weakest first, and the rest is judged
 * anew. Deterministic. `points` has room for `count`; at most 4,000 values, all finite (CM_USAGE
 * otherwise). */
struct cm_change_point {
    size_t index;         /* of the first value of the new level */
    double before, after; /* means of the segments beside it */
    double p;
};
enum cm_status cm_divisive(const double *values, size_t count, double p, double least,
                           struct cm_change_point *points, size_t *found);

#endif
