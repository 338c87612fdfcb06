/* The shift between two samples, with an interval from the distribution of Mann and Whitney's U. */
#include <math.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/stats/order.h"

#define SIZE_LIMIT 2000
/* Up to this many values in the smaller sample the exact distribution is right to 13 digits; far
 * beyond, the differences in its recursion lose them. U is normal enough by then. */
#define EXACT_MAX 200

/* How many of u = 0, 1, ... have P(U <= u) <= tail. */
struct tail {
    size_t ranks;
    double probability; /* P(U <= ranks - 1), 0 for no ranks */
};

/* The exact distribution for samples of m and n <= m values, up to its middle. The number of ways
 * to get u is the coefficient of q^u in the product over i = 1 ... n of (1 - q^(m+i)) / (1 - q^i);
 * the factor i / (m + i) makes probabilities of them. */
static enum cm_status exact_tail(size_t m, size_t n, double level, struct tail *tail)
{
    size_t count = m * n / 2 + 1;
    double *chance = cm_alloc(count, sizeof *chance);
    if (chance == NULL)
        return CM_NO_MEMORY;
    chance[0] = 1;
    for (size_t i = 1; i <= n; i++) {
        double scale = (double)i / (double)(m + i);
        for (size_t u = count; u-- > m + i;)
            chance[u] -= chance[u - m - i];
        for (size_t u = i; u < count; u++)
            chance[u] += chance[u - i];
        for (size_t u = 0; u < count; u++)
            chance[u] *= scale;
    }
    *tail = (struct tail){0};
    double sum = 0;
    /* A level that is met exactly must not fail by rounding. */
    while (tail->ranks < count && sum + chance[tail->ranks] <= level + 1e-12) {
        sum += chance[tail->ranks];
        tail->ranks++;
    }
    tail->probability = sum;
    cm_free(chance);
    return CM_OK;
}

/* P(U <= u) with U's mean and variance and the correction for whole numbers. */
static double normal_chance(double m, double n, double u)
{
    double deviation = sqrt(m * n * (m + n + 1) / 12);
    return erfc((m * n / 2 - u - 0.5) / deviation * M_SQRT1_2) / 2;
}

static struct tail normal_tail(size_t m, size_t n, double level)
{
    size_t low = 0, high = m * n / 2; /* ranks: low are fine, high + 1 too many */
    while (low < high) {
        size_t middle = high - (high - low) / 2;
        if (normal_chance((double)m, (double)n, (double)middle - 1) <= level)
            low = middle;
        else
            high = middle - 1;
    }
    return (struct tail){low, low > 0 ? normal_chance((double)m, (double)n, (double)low - 1) : 0};
}

static enum cm_status find_tail(size_t x_count, size_t y_count, double level, struct tail *tail)
{
    size_t m = x_count > y_count ? x_count : y_count;
    size_t n = x_count > y_count ? y_count : x_count;
    if (n <= EXACT_MAX)
        return exact_tail(m, n, level, tail);
    *tail = normal_tail(m, n, level);
    return CM_OK;
}

enum cm_status cm_hodges_lehmann(const double *x, size_t x_count, const double *y, size_t y_count,
                                 double level, struct cm_shift *shift)
{
    if (x_count == 0 || y_count == 0 || x_count > SIZE_LIMIT || y_count > SIZE_LIMIT)
        return cm_error(CM_USAGE, "shift of %zu against %zu values; give 1 to %d of each", y_count,
                        x_count, SIZE_LIMIT);
    struct tail tail;
    enum cm_status status = find_tail(x_count, y_count, (1 - level) / 2, &tail);
    if (status != CM_OK)
        return status;
    size_t count = x_count * y_count;
    double *differences = cm_alloc(count, sizeof *differences);
    if (differences == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < x_count; i++) {
        for (size_t j = 0; j < y_count; j++)
            differences[i * y_count + j] = y[j] - x[i];
    }
    struct cm_order order;
    cm_order_begin(differences, count, &order);
    size_t rank = tail.ranks > 0 ? tail.ranks : 1;
    shift->estimate = cm_order_quantile(&order, 0.5);
    shift->interval.low = cm_order_statistic(&order, rank - 1);
    shift->interval.high = cm_order_statistic(&order, count - rank);
    shift->interval.coverage = tail.ranks > 0 ? 1 - 2 * tail.probability : 0;
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
