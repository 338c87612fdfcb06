/* What a number of runs can tell, and how many it takes. */
#include <math.h>

#include "clustermark/stats.h"
#include "host/stats/rank_sum.h"

#define RUNS_MAX 1000
/* Newton's method on the logarithm of the distribution, which is concave: it climbs to the root
 * from below, where exp(-x x / 2), which is larger than the tail, puts the first guess. */
double cm_normal_quantile(double p)
{
    if (!(p > 0 && p < 1))
        return p == 0 ? (double)-INFINITY : p == 1 ? (double)INFINITY : (double)NAN;
    if (p > 0.5)
        return -cm_normal_quantile(1 - p);
    double x = -sqrt(-2 * log(p));
    for (int i = 0; i < 200; i++) {
        double below = erfc(-x * M_SQRT1_2) / 2;
        double density = exp(-x * x / 2) / sqrt(2 * M_PI);
        double step = (log(below) - log(p)) * below / density;
        x -= step;
        if (fabs(step) <= 1e-15 * fmax(fabs(x), 1))
            break;
    }
    return x;
}

static double normal_below(double x)
{
    return erfc(-x * M_SQRT1_2) / 2;
}

/* The chance that two values of one sample both lie below (or above) the same value of the other,
 * which is `shift` deviations away: the integral of phi(x) Phi(x - shift)^2. */
static double both_below(double shift)
{
    double sum = 0, step = 0.1;
    for (int i = -80; i <= 80; i++) {
        double x = i * step;
        double below = normal_below(x - shift);
        sum += exp(-x * x / 2) / sqrt(2 * M_PI) * below * below * step;
    }
    return sum;
}

/* The chance that U, the count of pairs that speak against a shift of so many deviations, is at
 * most `ranks` - 1, by U's mean and variance under that shift. */
static double chance_to_find(double m, double n, double ranks, double shift)
{
    double one = normal_below(-shift * M_SQRT1_2), two = both_below(shift);
    double mean = m * n * one;
    double variance = m * n * (one * (1 - one) + (m + n - 2) * (two - one * one));
    return normal_below((ranks - 0.5 - mean) / sqrt(fmax(variance, 1e-12)));
}

enum cm_status cm_detectable_shift(const struct cm_power *power, size_t x_count, size_t y_count,
                                   double *shift)
{
    struct cm_rank_tail tail;
    enum cm_status status = cm_rank_sum_tail(x_count, y_count, power->risk, &tail);
    if (status != CM_OK)
        return status;
    if (tail.ranks == 0) {
        *shift = (double)INFINITY;
        return CM_OK;
    }
    double low = 0, high = 20;
    for (int i = 0; i < 24; i++) {
        double middle = (low + high) / 2;
        if (chance_to_find((double)x_count, (double)y_count, (double)tail.ranks, middle) <
            power->power)
            low = middle;
        else
            high = middle;
    }
    *shift = power->margin + high * power->deviation;
    return CM_OK;
}

enum cm_status cm_runs_needed(const struct cm_power *power, size_t x_count, double shift,
                              size_t *runs)
{
    size_t low = 0, high = RUNS_MAX; /* low is too few */
    double seen;
    enum cm_status status = cm_detectable_shift(power, x_count > 0 ? x_count : high, high, &seen);
    if (status != CM_OK)
        return status;
    *runs = 0;
    if (!(seen <= shift))
        return CM_OK;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        status = cm_detectable_shift(power, x_count > 0 ? x_count : middle, middle, &seen);
        if (status != CM_OK)
            return status;
        if (seen <= shift)
            high = middle;
        else
            low = middle;
    }
    *runs = high;
    return CM_OK;
}
