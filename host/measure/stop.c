/* The stopping rule. */
#include "host/measure/stop.h"

#include <math.h>

#include "clustermark/stats.h"

#define BATCH_TARGET_S 0.03

const char *const cm_stop_names[] = {
    [CM_STOP_NOT_YET] = "",          [CM_STOP_STEADY] = "steady",
    [CM_STOP_MAX_TIME] = "max_time", [CM_STOP_MAX_ITERATIONS] = "max_iterations",
    [CM_STOP_BUDGET] = "budget",     [CM_STOP_FIXED_TIME] = "fixed_time",
};

struct cm_stop_rule cm_stop_rule_of(const struct cm_run_settings *settings,
                                    const struct cm_part *part)
{
    struct cm_stop_rule rule = {
        .min_time_s = settings->min_time_s,
        .max_time_s = settings->max_time_s,
        .min_iterations = settings->min_iterations,
        .max_iterations = settings->max_iterations,
        .precision = settings->precision,
        .drift = settings->drift,
        .fixed_time = part->fixed_time,
    };
    if (part->min_time_s > 0) {
        /* A soak is as long as the workload says; the limits of short cases do not cut it. */
        if (part->fixed_time || part->min_time_s > rule.min_time_s)
            rule.min_time_s = part->min_time_s;
        rule.max_time_s = fmax(rule.max_time_s, rule.min_time_s);
        rule.max_iterations = CM_ITERATIONS_MAX;
    }
    if (rule.max_iterations > CM_ITERATIONS_MAX)
        rule.max_iterations = CM_ITERATIONS_MAX;
    return rule;
}

enum cm_stop cm_stop_limit(const struct cm_stop_rule *rule, double time_s, uint64_t iterations,
                           bool over_budget)
{
    if (over_budget)
        return CM_STOP_BUDGET;
    if (rule->fixed_time && time_s >= rule->min_time_s)
        return CM_STOP_FIXED_TIME;
    if (iterations >= rule->max_iterations)
        return CM_STOP_MAX_ITERATIONS;
    return time_s >= rule->max_time_s ? CM_STOP_MAX_TIME : CM_STOP_NOT_YET;
}

bool cm_stop_due(const struct cm_stop_rule *rule, double time_s, uint64_t iterations,
                 uint64_t evaluated)
{
    return !rule->fixed_time && time_s >= rule->min_time_s && iterations >= rule->min_iterations &&
           iterations >= evaluated + evaluated / 10;
}

enum cm_status cm_stop_steady(const struct cm_stop_rule *rule, const double *values, size_t count,
                              bool *steady)
{
    if (!(cm_median_precision(values, count) <= rule->precision)) {
        *steady = false;
        return CM_OK;
    }
    struct cm_steadiness result;
    enum cm_status status = cm_steadiness(values, count, rule->drift, &result);
    if (status == CM_OK)
        *steady = result.steady;
    return status;
}

size_t cm_batch_size(double pace_s, double time_left_s, uint64_t iterations_left, size_t previous)
{
    double target_s = fmin(BATCH_TARGET_S, time_left_s);
    double wanted = pace_s > 0 ? ceil(target_s / pace_s) : CM_BATCH_MAX;
    if (previous > 0)
        wanted = fmin(wanted, 4.0 * (double)previous);
    wanted = fmin(wanted, CM_BATCH_MAX);
    wanted = fmin(wanted, (double)iterations_left);
    return wanted >= 1 ? (size_t)wanted : 1;
}
