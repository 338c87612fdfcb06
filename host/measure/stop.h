/*
 * stop.h: when a part has been measured enough, and how much to queue at once. Pure: every rank
 * that sees the same numbers comes to the same answer.
 */
#ifndef HOST_MEASURE_STOP_H
#define HOST_MEASURE_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/measure.h"
#include "clustermark/status.h"

/* Most iterations between two synchronisations: a device's queue is not endless. */
#define CM_BATCH_MAX 512
/* Kept samples of a part, whatever the settings say. */
#define CM_ITERATIONS_MAX 1000000

enum cm_stop {
    CM_STOP_NOT_YET,
    CM_STOP_STEADY,
    CM_STOP_MAX_TIME,
    CM_STOP_MAX_ITERATIONS,
    CM_STOP_BUDGET,
    CM_STOP_FIXED_TIME
};
extern const char *const cm_stop_names[];

struct cm_stop_rule {
    double min_time_s, max_time_s;
    uint64_t min_iterations, max_iterations;
    double precision, drift;
    bool fixed_time; /* min_time_s decides alone */
};

/* The settings as a part modifies them. */
struct cm_stop_rule cm_stop_rule_of(const struct cm_run_settings *settings,
                                    const struct cm_part *part);

/* What needs no statistics: budget, limits, a fixed time that is over. */
enum cm_stop cm_stop_limit(const struct cm_stop_rule *rule, double time_s, uint64_t iterations,
                           bool over_budget);

/* Whether to look at the samples: the minimum is reached, and there are a tenth more than when they
 * were last looked at (`evaluated`, 0 for never). */
bool cm_stop_due(const struct cm_stop_rule *rule, double time_s, uint64_t iterations,
                 uint64_t evaluated);

/* Whether the median is precise enough and the series does not drift. */
enum cm_status cm_stop_steady(const struct cm_stop_rule *rule, const double *values, size_t count,
                              bool *steady);

/* Iterations of the next batch: about 30 ms of work, at most `time_left_s`, growing at most
 * fourfold; 1 to CM_BATCH_MAX and at most `iterations_left`. pace_s is the time of one iteration
 * (0 when it is too short to be seen), `previous` the last batch (0 for none: pace_s decides). */
size_t cm_batch_size(double pace_s, double time_left_s, uint64_t iterations_left, size_t previous);

#endif
