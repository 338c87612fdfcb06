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
#include <stdint.h>

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
double cm_mean(const double *values, size_t count);
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

/* A bound at one side with risk a is the end of that side of the interval of level 1 - 2a: exact,
 * and on the safe side with ties. */

/* Mann and Whitney's test, exact, at one side: the chance of values at least as far above when y is
 * not above x by more than `offset`. Ties count against it, so that p <= a where, and only where,
 * the lower bound of the shift with risk a lies above `offset`. Sizes as above. */
enum cm_status cm_mann_whitney(const double *x, size_t x_count, const double *y, size_t y_count,
                               double offset, double *p);
/* The smallest p that these sizes can give: 1 / C(x + y, y). */
double cm_mann_whitney_least(size_t x_count, size_t y_count);

/* Runs in pairs (interleaved, each with its neighbour): the distribution of the mean difference
 * when the sign of every difference is a coin's. The interval inverts that test: its ends are order
 * statistics of the means of all subsets of the differences, and the estimate is their median. p is
 * for a mean of at most `offset`. 2 to 20 differences (CM_USAGE otherwise); 8 MiB for 20. */
enum cm_status cm_sign_flip(const double *differences, size_t count, double offset, double level,
                            struct cm_shift *shift, double *p);

/* Several tests at once. `adjusted` gets, in the order of `p`, the smallest level at which each is
 * rejected: Holm's bounds the chance of any false rejection, Benjamini and Hochberg's the expected
 * share of false ones among the rejected (for independent or positively dependent tests). */
enum cm_status cm_holm(const double *p, size_t count, double *adjusted);
enum cm_status cm_benjamini_hochberg(const double *p, size_t count, double *adjusted);

/* Where the variance of a run's value comes from. */
struct cm_variance_run {
    size_t node;               /* 0, 1, ...: which machine of its kind */
    size_t session;            /* 0, 1, ...: which session, numbered over all nodes */
    double value;              /* the median of its iterations, as a logarithm say */
    double iteration_variance; /* NAN where not known */
    double iterations;         /* effective */
};
struct cm_variances {
    /* Between nodes; between sessions on a node; between runs of a session. NAN where not known:
     * one node, one session on each, or a run in each session (which then counts as that run's). */
    double node, session, run;
    double iteration; /* what the iterations within a run add to its median, 1.57 var / n */
    size_t nodes, sessions, runs;
};
/* Nested analysis of variance, groups of different sizes allowed; a negative estimate is 0. Less
 * than 2 runs of a node: no variance is known. Nodes and sessions are numbered below `count`. */
enum cm_status cm_variance_components(const struct cm_variance_run *runs, size_t count,
                                      struct cm_variances *variances);

/* The value below which a standard normal variable lies with chance p; and one with Student's t. */
double cm_normal_quantile(double p);
double cm_t_quantile(double p, double freedom);

/* Fresh-process runs, each with the session that it was made in (any numbers). The runs of a
 * session share its luck: clocks, neighbours, where memory came to lie. */
struct cm_runs {
    const double *values;
    const size_t *sessions;
    size_t count;
};
/* The exact interval takes all runs as independent. `widening` is by how much further out each end
 * of the one with `risk` at a side has to lie because they are not: to the end's distance from the
 * estimate is added, in squares, Student's quantile for the shift between sessions, whose variance
 * comes from x (nested analysis of variance). */
struct cm_sessions {
    size_t count;     /* of x */
    double deviation; /* between them; NAN where x cannot tell: one session, or a run in each */
    double widening;  /* 0 where that is not known */
};
enum cm_status cm_session_widening(const struct cm_runs *x, const struct cm_runs *y, double risk,
                                   struct cm_sessions *sessions);

/* What a comparison of x_count with y_count runs can see. */
struct cm_power {
    double deviation; /* between runs */
    double risk;      /* of a false alarm, one-sided */
    double power;     /* wanted chance to see it: 0.8 */
    double margin;    /* what is tolerated */
};
/* The smallest shift, margin included, that a bound of the shift then finds with that power;
 * INFINITY when these sizes can never reach the risk. For noise near normal. */
enum cm_status cm_detectable_shift(const struct cm_power *power, size_t x_count, size_t y_count,
                                   double *shift);
/* The same without assuming normal noise, sessions included: from samples that are drawn again from
 * x, which is of the baseline. Of y, only how its runs lie in sessions counts. `deviation` is not
 * used. NAN with fewer than 3 runs of x. */
enum cm_status cm_resampled_shift(const struct cm_runs *x, const struct cm_runs *y,
                                  const struct cm_power *power, double *shift);
/* A whole number below `limit`, each alike: the next of splitmix64. */
uint64_t cm_draw(uint64_t *seed, uint64_t limit);
/* The fewest runs with which `shift` is found. `x_count` runs are there and stay as they are; 0:
 * both grow alike. 0 when 1,000 are not enough. */
enum cm_status cm_runs_needed(const struct cm_power *power, size_t x_count, double shift,
                              size_t *runs);

/* Of a probability, after `hits` in `trials`: Clopper and Pearson's, never too narrow. */
struct cm_interval cm_binomial_interval(size_t hits, size_t trials, double level);

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
