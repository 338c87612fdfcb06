/* Change points of a series: energy statistics find the places, a t-test judges them. */
#include <float.h>
#include <math.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"

#define LEAST     3    /* values on each side of a change */
#define COUNT_MAX 4000 /* the search is quadratic */
/* Places are looked for ten times more willingly than they are kept: a short episode within a
 * segment shows only when both of its ends are known. */
#define WILLING 10

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

static double mean_of(const double *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    return sum / (double)count;
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
    double mean_x = mean_of(x, x_count), mean_y = mean_of(y, y_count);
    double variance = (squares_of(x, x_count, mean_x) + squares_of(y, y_count, mean_y)) / freedom;
    double difference = mean_x - mean_y;
    if (!(variance > 0))
        return difference == 0 ? 1 : 0;
    double square = difference * difference / (variance * (1 / n + 1 / m));
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square));
}

/* Where the two parts of a segment differ most: Q = nm/(n+m) (2 E|x-y| - E|x-x'| - E|y-y'|), by
 * moving one value after the other from the right part to the left. 0 when it is too short. */
static size_t best_split(const double *values, size_t count)
{
    double left = 0, right = 0, total = 0, most = -INFINITY;
    size_t best = 0;
    if (count < (size_t)2 * LEAST)
        return 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = i + 1; j < count; j++)
            total += fabs(values[i] - values[j]);
    }
    right = total;
    for (size_t k = 0; k < count - LEAST; k++) {
        for (size_t i = 0; i < k; i++)
            left += fabs(values[k] - values[i]);
        for (size_t j = k + 1; j < count; j++)
            right -= fabs(values[k] - values[j]);
        double n = (double)(k + 1), m = (double)(count - k - 1);
        if (k + 1 < LEAST)
            continue;
        double q = n * m / (n + m) *
                   (2 * (total - left - right) / (n * m) - left / (n * (n - 1) / 2) -
                    right / (m * (m - 1) / 2));
        if (q > most) {
            most = q;
            best = k + 1;
        }
    }
    return best;
}

/* All places that may be one, ascending: splits of splits. `todo` has room for a segment per
 * value. */
static size_t find_places(const double *values, size_t count, double willing, size_t *todo,
                          bool *marked)
{
    size_t waiting = 0, found = 0;
    todo[waiting++] = 0; /* segments by their beginning; they end at the next mark */
    while (waiting > 0) {
        size_t begin = todo[--waiting], end = begin + 1;
        while (end < count && !marked[end])
            end++;
        size_t split = best_split(values + begin, end - begin);
        if (split == 0 ||
            cm_t_test(values + begin, split, values + begin + split, end - begin - split) > willing)
            continue;
        marked[begin + split] = true;
        found++;
        todo[waiting++] = begin;
        todo[waiting++] = begin + split;
    }
    return found;
}

/* What a change between two neighbouring segments amounts to. */
static void judge(const double *values, size_t begin, size_t at, size_t end,
                  struct cm_change_point *point)
{
    *point =
        (struct cm_change_point){.index = at,
                                 .before = mean_of(values + begin, at - begin),
                                 .after = mean_of(values + at, end - at),
                                 .p = cm_t_test(values + begin, at - begin, values + at, end - at)};
}

static void judge_all(const double *values, size_t count, struct cm_change_point *points,
                      size_t found)
{
    for (size_t i = 0; i < found; i++)
        judge(values, i > 0 ? points[i - 1].index : 0, points[i].index,
              i + 1 < found ? points[i + 1].index : count, &points[i]);
}

/* The place that is to go first: the least significant of those that fail; `found` when none does.
 */
static size_t weakest(const struct cm_change_point *points, size_t found, double p, double least)
{
    size_t worst = found;
    for (size_t i = 0; i < found; i++) {
        bool fails = points[i].p > p || !(fabs(points[i].after - points[i].before) > least);
        if (fails && (worst == found || points[i].p > points[worst].p))
            worst = i;
    }
    return worst;
}

enum cm_status cm_divisive(const double *values, size_t count, double p, double least,
                           struct cm_change_point *points, size_t *found)
{
    if (count > COUNT_MAX)
        return cm_error(CM_USAGE, "change points of %zu values; give at most %d", count, COUNT_MAX);
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i]))
            return cm_error(CM_USAGE, "change points: value %zu is not finite", i);
    }
    size_t *todo = cm_alloc(count + 2, sizeof *todo);
    bool *marked = cm_alloc(count + 1, sizeof *marked);
    enum cm_status status = todo != NULL && marked != NULL ? CM_OK : CM_NO_MEMORY;
    size_t kept = 0;
    if (status == CM_OK && count > 0)
        find_places(values, count, p * WILLING, todo, marked);
    for (size_t i = 1; status == CM_OK && i < count; i++) {
        if (marked[i])
            points[kept++].index = i;
    }
    while (status == CM_OK) {
        judge_all(values, count, points, kept);
        size_t out = weakest(points, kept, p, least);
        if (out == kept)
            break;
        for (size_t i = out; i + 1 < kept; i++)
            points[i] = points[i + 1];
        kept--;
    }
    cm_free(todo);
    cm_free(marked);
    if (status == CM_OK)
        *found = kept;
    return status;
}
