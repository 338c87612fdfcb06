/* Change points of a series: energy statistics find the places, a t-test judges them. */
#include <math.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"

#define LEAST     3    /* values on each side of a change */
#define COUNT_MAX 4000 /* the search is quadratic */
/* Places are looked for ten times more willingly than they are kept: a short episode within a
 * segment shows only when both of its ends are known. */
#define WILLING 10

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
                                 .before = cm_mean(values + begin, at - begin),
                                 .after = cm_mean(values + at, end - at),
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
