/* Student's t: its test and its quantiles, by the incomplete beta function. */
#include <float.h>
#include <math.h>

#include "clustermark/stats.h"
#include "host/stats/tail.h"

/* The continued fraction of the incomplete beta function (modified Lentz). */
static double beta_fraction(double a, double b, double x)
{
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < DBL_MIN ? DBL_MIN : d);
    double result = d;
    for (int m = 1; m < 500; m++) {
        double step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        for (int half = 0; half < 2; half++) {
            d = 1 + step * d;
            c = 1 + step / c;
            d = 1 / (fabs(d) < DBL_MIN ? DBL_MIN : d);
            c = fabs(c) < DBL_MIN ? DBL_MIN : c;
            result *= d * c;
            if (half == 1 && fabs(d * c - 1) < 1e-15)
                return result;
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        }
    }
    return result;
}

static double incomplete_beta(double a, double b, double x)
{
    if (x <= 0 || x >= 1)
        return x <= 0 ? 0 : 1;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2))
        return front * beta_fraction(a, b, x) / a;
    return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

static double squares_of(const double *values, size_t count, double mean)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (values[i] - mean) * (values[i] - mean);
    return sum;
}

double cm_t_test(const double *x, size_t x_count, const double *y, size_t y_count)
{
    if (x_count + y_count < 3 || x_count == 0 || y_count == 0)
        return 1;
    double n = (double)x_count, m = (double)y_count, freedom = n + m - 2;
    double mean_x = cm_mean(x, x_count), mean_y = cm_mean(y, y_count);
    double variance = (squares_of(x, x_count, mean_x) + squares_of(y, y_count, mean_y)) / freedom;
    double difference = mean_x - mean_y;
    if (!(variance > 0))
        return difference == 0 ? 1 : 0;
    double square = difference * difference / (variance * (1 / n + 1 / m));
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square));
}

/* The chance of a value above t >= 0. */
static double above(double t, double freedom)
{
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2;
}

double cm_t_above(double t, double freedom)
{
    return t >= 0 ? above(t, freedom) : 1 - above(-t, freedom);
}

double cm_t_quantile(double p, double freedom)
{
    if (!(p > 0 && p < 1 && freedom > 0))
        return (double)NAN;
    if (p < 0.5)
        return -cm_t_quantile(1 - p, freedom);
    double low = 0, high = 1;
    while (above(high, freedom) > 1 - p && high < DBL_MAX / 4)
        high *= 2;
    for (int i = 0; i < 100 && high - low > 1e-14 * high; i++) {
        double middle = (low + high) / 2;
        if (above(middle, freedom) > 1 - p)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}
