/*
 * pair.h: one metric of two sets of runs held against each other. Private to host/result.
 */
#ifndef CM_RESULT_PAIR_H
#define CM_RESULT_PAIR_H

#include <stdbool.h>
#include <stddef.h>

#include "clustermark/stats.h"
#include "host/result/set.h"

enum cm_pair_verdict {
    CM_PAIR_BETTER,
    CM_PAIR_WORSE,
    CM_PAIR_SAME,    /* within the margin */
    CM_PAIR_UNKNOWN, /* cannot tell */
    CM_PAIR_NONE     /* no better and no worse: a size, say */
};

/* Both samples as they are compared: logarithms, or plain values where one is not positive, turned
 * so that larger is worse. */
struct cm_pair {
    const struct cm_series *base, *other;
    double *values[2];   /* of base, of other */
    size_t *sessions[2]; /* the file of each */
    struct cm_runs x, y; /* both, as statistics take them */
    bool logarithmic;
    double sign;      /* -1: higher is better, and the values are turned */
    double deviation; /* between runs, pooled over both; NAN with too few */
};
/* CM_USAGE with over 2,000 runs of one. */
enum cm_status cm_pair_make(const struct cm_series *base, const struct cm_series *other,
                            struct cm_pair *pair);
void cm_pair_release(struct cm_pair *pair);

/* A margin of 2 % on the pair's scale. */
double cm_pair_margin(const struct cm_pair *pair, double margin);
/* From the pair's scale to the metric's own: a relative change, or a difference of values. */
double cm_pair_change(const struct cm_pair *pair, double shift);
/* The same of a distance, which has no direction. */
double cm_pair_size(const struct cm_pair *pair, double distance);
/* An interval turned with it, so that low is the lower change of the metric. */
struct cm_interval cm_pair_changes(const struct cm_pair *pair, const struct cm_interval *shifts);

/* What an interval (coverage 0: none) says against a margin. */
enum cm_pair_verdict cm_pair_judge(const struct cm_pair *pair, const struct cm_shift *shift,
                                   double margin);

/* Of the base's runs on its scale (or of the other's). */
enum cm_status cm_series_variances(const struct cm_set *set, const struct cm_series *series,
                                   struct cm_variances *variances);

/* Seconds that a run of the series' case takes: the mean; NAN where not known. */
double cm_series_run_s(const struct cm_series *series);

/* "faster", "slower" for times and rates, "better", "worse" for others. */
const char *cm_pair_word(enum cm_pair_verdict verdict, const char *unit);

#endif
