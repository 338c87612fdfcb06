/* The exact interval of a probability. */
#include <math.h>

#include "clustermark/stats.h"

/* P(X <= hits) of `trials` with probability p, summed from the logarithms. */
static double at_most(double hits, double trials, double p)
{
    double sum = 0;
    if (p <= 0)
        return 1;
    if (p >= 1)
        return hits >= trials ? 1 : 0;
    for (unsigned long i = 0; (double)i <= hits; i++) {
        double k = (double)i;
        sum += exp(lgamma(trials + 1) - lgamma(k + 1) - lgamma(trials - k + 1) + k * log(p) +
                   (trials - k) * log1p(-p));
    }
    return fmin(sum, 1);
}

/* The p at which P(X <= hits) falls to `chance`. */
static double falls_to(double hits, double trials, double chance)
{
    double low = 0, high = 1;
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        if (at_most(hits, trials, middle) > chance)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

struct cm_interval cm_binomial_interval(size_t hits, size_t trials, double level)
{
    double tail = (1 - level) / 2;
    struct cm_interval interval = {.low = 0, .high = 1, .coverage = level};
    if (hits < trials)
        interval.high = falls_to((double)hits, (double)trials, tail);
    if (hits > 0)
        interval.low = falls_to((double)hits - 1, (double)trials, 1 - tail);
    return interval;
}
