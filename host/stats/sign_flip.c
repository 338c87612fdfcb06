/* The sign-flip test of paired differences, and the interval that it inverts to. */
#include <math.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/stats/order.h"

#define PAIRS_MIN 2
#define PAIRS_MAX 20

/* Means of all subsets but the empty one: subset s has the differences whose bits are set in s. */
static void subset_means(const double *differences, size_t count, double *means)
{
    size_t subsets = (size_t)1 << count;
    /* means[s - 1] begins as the sum, built from the subset without its highest difference. */
    for (size_t i = 0; i < count; i++) {
        size_t bit = (size_t)1 << i;
        means[bit - 1] = differences[i];
        for (size_t rest = 1; rest < bit; rest++)
            means[(bit | rest) - 1] = means[rest - 1] + differences[i];
    }
    for (size_t subset = 1; subset < subsets; subset++)
        means[subset - 1] /= __builtin_popcountl(subset);
}

enum cm_status cm_sign_flip(const double *differences, size_t count, double offset, double level,
                            struct cm_shift *shift, double *p)
{
    if (count < PAIRS_MIN || count > PAIRS_MAX)
        return cm_error(CM_USAGE, "sign-flip test of %zu pairs; give %d to %d", count, PAIRS_MIN,
                        PAIRS_MAX);
    size_t subsets = (size_t)1 << count, not_above = 0;
    double *means = cm_alloc(subsets, sizeof *means);
    if (means == NULL)
        return CM_NO_MEMORY;
    subset_means(differences, count, means);
    /* Flipping the signs of a subset leaves the sum at least as large where the subset's mean is
     * at most the offset; flipping none always does. A mean that equals it but for rounding
     * counts. */
    double largest = fabs(offset);
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(differences[i]));
    for (size_t i = 0; i + 1 < subsets; i++)
        not_above += means[i] <= offset + 1e-14 * largest;
    *p = (double)(not_above + 1) / (double)subsets;
    /* The tail of the test has `ranks` of the 2^n flips. */
    size_t ranks = (size_t)floor((1 - level) / 2 * (double)subsets + 1e-9);
    size_t rank = ranks > 0 ? ranks : 1;
    struct cm_order order;
    cm_order_begin(means, subsets - 1, &order);
    shift->estimate = cm_order_quantile(&order, 0.5);
    shift->interval.low = cm_order_statistic(&order, rank - 1);
    shift->interval.high = cm_order_statistic(&order, subsets - 1 - rank);
    shift->interval.coverage = ranks > 0 ? 1 - 2 * (double)ranks / (double)subsets : 0;
    cm_free(means);
    return CM_OK;
}
