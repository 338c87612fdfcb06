/* The shift between two samples, with an interval from the distribution of Mann and Whitney's U. */
#include "host/stats/shift.h"

#include <math.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/stats/order.h"

void cm_shift_find(const double *x, size_t x_count, const double *y, size_t y_count,
                   const struct cm_rank_tail *tail, double *differences, struct cm_shift *shift)
{
    for (size_t i = 0; i < x_count; i++) {
        for (size_t j = 0; j < y_count; j++)
            differences[i * y_count + j] = y[j] - x[i];
    }
    size_t count = x_count * y_count;
    struct cm_order order;
    cm_order_begin(differences, count, &order);
    size_t rank = tail->ranks > 0 ? tail->ranks : 1;
    shift->estimate = cm_order_quantile(&order, 0.5);
    shift->interval.low = cm_order_statistic(&order, rank - 1);
    shift->interval.high = cm_order_statistic(&order, count - rank);
    shift->interval.coverage = tail->ranks > 0 ? 1 - 2 * tail->probability : 0;
}

enum cm_status cm_hodges_lehmann(const double *x, size_t x_count, const double *y, size_t y_count,
                                 double level, struct cm_shift *shift)
{
    if (x_count == 0 || y_count == 0 || x_count > CM_RANK_SUM_MAX || y_count > CM_RANK_SUM_MAX)
        return cm_error(CM_USAGE, "shift of %zu against %zu values; give 1 to %d of each", y_count,
                        x_count, CM_RANK_SUM_MAX);
    struct cm_rank_tail tail;
    enum cm_status status = cm_rank_sum_tail(x_count, y_count, (1 - level) / 2, &tail);
    if (status != CM_OK)
        return status;
    double *differences = cm_alloc(x_count * y_count, sizeof *differences);
    if (differences == NULL)
        return CM_NO_MEMORY;
    cm_shift_find(x, x_count, y, y_count, &tail, differences, shift);
    cm_free(differences);
    return CM_OK;
}

#define STEADY_MIN 9
#define STEADY_MAX 300

enum cm_status cm_steadiness(const double *values, size_t count, double tolerance,
                             struct cm_steadiness *result)
{
    size_t positive = 0;
    for (size_t i = 0; i < count; i++)
        positive += values[i] > 0;
    if (positive < STEADY_MIN) {
        *result = (struct cm_steadiness){.steady = false, .drift = 0};
        return CM_OK;
    }
    double logs[STEADY_MAX];
    size_t wanted = positive < STEADY_MAX ? positive : STEADY_MAX;
    size_t taken = 0, seen = 0;
    for (size_t i = 0; i < count && taken < wanted; i++) {
        if (!(values[i] > 0))
            continue;
        if (seen++ == taken * positive / wanted)
            logs[taken++] = log(values[i]);
    }
    size_t third = taken / 3;
    struct cm_shift shift = {.estimate = 0};
    enum cm_status status =
        cm_hodges_lehmann(logs, third, logs + taken - third, third, 0.95, &shift);
    if (status != CM_OK)
        return status;
    result->drift = expm1(shift.estimate);
    result->steady =
        expm1(shift.interval.low) >= -tolerance && expm1(shift.interval.high) <= tolerance;
    return CM_OK;
}
