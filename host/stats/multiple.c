/* Several tests at once: adjusted p-values. */
#include <math.h>
#include <stdlib.h>

#include "clustermark/memory.h"
#include "clustermark/stats.h"

struct ranked {
    double p;
    size_t place;
};

static int by_p(const void *left, const void *right)
{
    const struct ranked *a = left, *b = right;
    if (a->p != b->p)
        return a->p < b->p ? -1 : 1;
    return a->place < b->place ? -1 : a->place > b->place;
}

static struct ranked *rank(const double *p, size_t count)
{
    struct ranked *rows = cm_alloc(count, sizeof *rows);
    for (size_t i = 0; rows != NULL && i < count; i++)
        rows[i] = (struct ranked){p[i], i};
    if (rows != NULL)
        qsort(rows, count, sizeof *rows, by_p);
    return rows;
}

enum cm_status cm_holm(const double *p, size_t count, double *adjusted)
{
    struct ranked *rows = rank(p, count);
    double highest = 0;
    if (rows == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        highest = fmax(highest, rows[i].p * (double)(count - i));
        adjusted[rows[i].place] = fmin(highest, 1);
    }
    cm_free(rows);
    return CM_OK;
}

enum cm_status cm_benjamini_hochberg(const double *p, size_t count, double *adjusted)
{
    struct ranked *rows = rank(p, count);
    double lowest = 1;
    if (rows == NULL)
        return CM_NO_MEMORY;
    for (size_t i = count; i-- > 0;) {
        lowest = fmin(lowest, rows[i].p * (double)count / (double)(i + 1));
        adjusted[rows[i].place] = lowest;
    }
    cm_free(rows);
    return CM_OK;
}
