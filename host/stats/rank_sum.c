/* The distribution of Mann and Whitney's U, and the test by it. */
#include "host/stats/rank_sum.h"

#include <math.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"

/* Up to this many values in the smaller sample the exact distribution is right to 13 digits; far
 * beyond, the differences in its recursion lose them. U is normal enough by then. */
#define EXACT_MAX 200

/* The exact distribution for samples of m and n <= m values, up to its middle. The number of ways
 * to get u is the coefficient of q^u in the product over i = 1 ... n of (1 - q^(m+i)) / (1 - q^i);
 * the factor i / (m + i) makes probabilities of them. */
static double *exact_chances(size_t m, size_t n, size_t *count)
{
    *count = m * n / 2 + 1;
    double *chance = cm_alloc(*count, sizeof *chance);
    if (chance == NULL)
        return NULL;
    chance[0] = 1;
    for (size_t i = 1; i <= n; i++) {
        double scale = (double)i / (double)(m + i);
        for (size_t u = *count; u-- > m + i;)
            chance[u] -= chance[u - m - i];
        for (size_t u = i; u < *count; u++)
            chance[u] += chance[u - i];
        for (size_t u = 0; u < *count; u++)
            chance[u] *= scale;
    }
    return chance;
}

static enum cm_status exact_tail(size_t m, size_t n, double level, struct cm_rank_tail *tail)
{
    size_t count;
    double *chance = exact_chances(m, n, &count), sum = 0;
    if (chance == NULL)
        return CM_NO_MEMORY;
    *tail = (struct cm_rank_tail){0};
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

static struct cm_rank_tail normal_tail(size_t m, size_t n, double level)
{
    size_t low = 0, high = m * n / 2; /* ranks: low are fine, high + 1 too many */
    while (low < high) {
        size_t middle = high - (high - low) / 2;
        if (normal_chance((double)m, (double)n, (double)middle - 1) <= level)
            low = middle;
        else
            high = middle - 1;
    }
    return (struct cm_rank_tail){low, low > 0 ? normal_chance((double)m, (double)n, (double)low - 1)
                                              : 0};
}

enum cm_status cm_rank_sum_tail(size_t x_count, size_t y_count, double level,
                                struct cm_rank_tail *tail)
{
    size_t m = x_count > y_count ? x_count : y_count;
    size_t n = x_count > y_count ? y_count : x_count;
    if (n <= EXACT_MAX)
        return exact_tail(m, n, level, tail);
    *tail = normal_tail(m, n, level);
    return CM_OK;
}

enum cm_status cm_rank_sum_below(size_t x_count, size_t y_count, size_t u, double *chance)
{
    size_t m = x_count > y_count ? x_count : y_count;
    size_t n = x_count > y_count ? y_count : x_count;
    if (u >= m * n) {
        *chance = 1;
        return CM_OK;
    }
    if (n > EXACT_MAX) {
        *chance = normal_chance((double)m, (double)n, (double)u);
        return CM_OK;
    }
    /* Symmetric: P(U <= u) = 1 - P(U <= mn - 1 - u). */
    bool upper = u >= m * n / 2 + 1;
    size_t last = upper ? m * n - 1 - u : u, count;
    double *chances = exact_chances(m, n, &count), sum = 0;
    if (chances == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i <= last && i < count; i++)
        sum += chances[i];
    cm_free(chances);
    *chance = fmin(upper ? 1 - sum : sum, 1);
    return CM_OK;
}

enum cm_status cm_mann_whitney(const double *x, size_t x_count, const double *y, size_t y_count,
                               double offset, double *p)
{
    if (x_count == 0 || y_count == 0 || x_count > CM_RANK_SUM_MAX || y_count > CM_RANK_SUM_MAX)
        return cm_error(CM_USAGE, "test of %zu against %zu values; give 1 to %d of each", y_count,
                        x_count, CM_RANK_SUM_MAX);
    size_t against = 0;
    for (size_t i = 0; i < x_count; i++) {
        for (size_t j = 0; j < y_count; j++)
            against += !(y[j] - x[i] > offset);
    }
    return cm_rank_sum_below(x_count, y_count, against, p);
}

double cm_mann_whitney_least(size_t x_count, size_t y_count)
{
    double chance = 1;
    for (size_t i = 1; i <= y_count; i++)
        chance *= (double)i / (double)(x_count + i);
    return chance;
}
