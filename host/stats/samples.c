/* Samples, their quantiles and the interval of their median. */
#include <math.h>

#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/stats/order.h"

enum cm_status cm_samples_add(struct cm_samples *samples, double value)
{
    if (cm_grow(&samples->values, &samples->capacity, samples->count + 1, sizeof value) != 0)
        return CM_NO_MEMORY;
    samples->values[samples->count++] = value;
    return CM_OK;
}

void cm_samples_clear(struct cm_samples *samples)
{
    samples->count = 0;
}

void cm_samples_release(struct cm_samples *samples)
{
    cm_free(samples->values);
    *samples = (struct cm_samples){0};
}

double cm_quantile(const double *values, size_t count, double q)
{
    struct cm_order order;
    cm_order_begin(values, count, &order);
    return cm_order_quantile(&order, q);
}

double cm_mean(const double *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    return sum / (double)count;
}

double cm_median(const double *values, size_t count)
{
    return cm_quantile(values, count, 0.5);
}

double cm_mad(const double *values, size_t count)
{
    struct cm_order order;
    cm_order_begin_distances(values, count, cm_median(values, count), &order);
    return cm_order_quantile(&order, 0.5);
}

/* The binomial weights C(n, k) around the middle, relative to the largest, fall off so fast that
 * what follows a weight of this size is beyond a double's digits. */
#define WEIGHT_MIN 1e-25

/* Sum of C(n, i) for i = l ... n-l relative to C(n, n/2), for falling l. */
struct middle {
    double n, k;   /* k = l */
    double weight; /* of k */
    double sum;
};

static struct middle middle_begin(size_t count)
{
    struct middle middle = {.n = (double)count, .k = (double)(count / 2), .weight = 1};
    middle.sum = count % 2 == 0 ? 1 : 2;
    return middle;
}

static void middle_widen(struct middle *middle)
{
    middle->weight *= middle->k / (middle->n - middle->k + 1);
    middle->k--;
    middle->sum += 2 * middle->weight;
}

/* The largest l for which order statistics l and n+1-l cover at least `level`, 0 for none. */
static size_t interval_rank(size_t count, double level, double *coverage)
{
    struct middle all = middle_begin(count);
    while (all.k > 0 && all.weight > WEIGHT_MIN)
        middle_widen(&all);
    struct middle part = middle_begin(count);
    /* A level that is met exactly, like 31/32 with 6 values, must not fail by rounding. */
    while (part.k > 0 && part.sum / all.sum < level - 1e-12)
        middle_widen(&part);
    *coverage = part.sum / all.sum;
    return (size_t)part.k;
}

static struct cm_interval median_interval(const struct cm_order *order, double level)
{
    struct cm_interval interval = {(double)NAN, (double)NAN, 0};
    if (order->count == 0)
        return interval;
    double coverage;
    size_t rank = interval_rank(order->count, level, &coverage);
    if (rank > 0)
        interval.coverage = coverage;
    else
        rank = 1;
    interval.low = cm_order_statistic(order, rank - 1);
    interval.high = cm_order_statistic(order, order->count - rank);
    return interval;
}

struct cm_interval cm_median_interval(const double *values, size_t count, double level)
{
    struct cm_order order;
    cm_order_begin(values, count, &order);
    return median_interval(&order, level);
}

double cm_median_precision(const double *values, size_t count)
{
    struct cm_order order;
    cm_order_begin(values, count, &order);
    struct cm_interval interval = median_interval(&order, 0.95);
    double median = cm_order_quantile(&order, 0.5);
    if (interval.coverage == 0 || median == 0)
        return (double)INFINITY;
    return (interval.high - interval.low) / 2 / fabs(median);
}
