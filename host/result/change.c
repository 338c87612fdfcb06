/* The figures of one side against those of the first: shifts of the logarithms of the runs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/memory.h"
#include "host/result/chart.h"
#include "host/result/report.h"

#define LEVEL    0.95
#define RUNS_MAX 150 /* of each side; the newest. As compare does */

const char *const cm_change_words[] = {"better", "worse", "same within the margin", "cannot tell"};

/* Logarithms of the newest positive values; how many. */
static size_t take_logs(const struct cm_samples *values, double *logs)
{
    size_t count = 0;
    size_t first = values->count > RUNS_MAX ? values->count - RUNS_MAX : 0;
    for (size_t i = first; i < values->count; i++) {
        if (values->values[i] > 0)
            logs[count++] = log(values->values[i]);
    }
    return count;
}

static void judge(struct cm_change *change, double margin)
{
    change->verdict = CM_CHANGE_UNKNOWN;
    if (!isfinite(change->low))
        return;
    double limit = log1p(margin);
    double low = log1p(change->low), high = log1p(change->high);
    if (low > limit)
        change->verdict = CM_CHANGE_BETTER;
    else if (high < -limit)
        change->verdict = CM_CHANGE_WORSE;
    else if (low >= -limit && high <= limit)
        change->verdict = CM_CHANGE_SAME;
}

static enum cm_status compare(const struct cm_samples *old, const struct cm_samples *new,
                              bool lower, double margin, struct cm_change *change)
{
    double logs[2][RUNS_MAX];
    struct cm_shift shift;
    change->runs[0] = take_logs(old, logs[0]);
    change->runs[1] = take_logs(new, logs[1]);
    change->estimate = change->low = change->high = NAN;
    change->verdict = CM_CHANGE_UNKNOWN;
    if (change->runs[0] == 0 || change->runs[1] == 0)
        return CM_OK;
    enum cm_status status =
        cm_hodges_lehmann(logs[0], change->runs[0], logs[1], change->runs[1], LEVEL, &shift);
    if (status != CM_OK)
        return status;
    change->estimate = expm1(lower ? -shift.estimate : shift.estimate);
    if (shift.interval.coverage > 0) {
        change->low = expm1(lower ? -shift.interval.high : shift.interval.low);
        change->high = expm1(lower ? -shift.interval.low : shift.interval.high);
    }
    judge(change, margin);
    return CM_OK;
}

/* Worse first, then better, then what is open; within each the largest first. */
static int by_weight(const void *a, const void *b)
{
    static const int weights[] = {1, 0, 3, 2};
    const struct cm_change *left = a, *right = b;
    int order = weights[left->verdict] - weights[right->verdict];
    double x = fabs(left->estimate), y = fabs(right->estimate);
    if (order == 0)
        order = (x < y) - (x > y);
    return order != 0 ? order : strcmp(left->name, right->name);
}

struct work {
    struct cm_samples old, new;
    struct cm_change *changes;
    size_t count, capacity;
};

static enum cm_status add_case(const struct cm_book *book, size_t side, const char *name,
                               struct work *work)
{
    const json_t *item = cm_side_case(&book->sides[0], name);
    const char *metric = item != NULL ? cm_headline_metric(item) : NULL;
    if (metric == NULL)
        return CM_OK;
    const json_t *new = cm_side_metric(&book->sides[side], name, metric);
    const json_t *old = cm_side_metric(&book->sides[0], name, metric);
    const char *better = cm_get_text(old, "better");
    if (new == NULL || strcmp(better, "neither") == 0 ||
        strcmp(better, cm_get_text(new, "better")) != 0 ||
        strcmp(cm_get_text(old, "unit"), cm_get_text(new, "unit")) != 0)
        return CM_OK;
    enum cm_status status = cm_side_values(&book->sides[0], name, metric, &work->old);
    if (status == CM_OK)
        status = cm_side_values(&book->sides[side], name, metric, &work->new);
    if (status == CM_OK &&
        cm_grow(&work->changes, &work->capacity, work->count + 1, sizeof *work->changes) != 0)
        status = CM_NO_MEMORY;
    if (status != CM_OK)
        return status;
    struct cm_change *change = &work->changes[work->count];
    *change = (struct cm_change){.name = name, .metric = metric, .side = side};
    status = compare(&work->old, &work->new, strcmp(better, "lower") == 0, book->margin, change);
    if (status == CM_OK && isfinite(change->estimate))
        work->count++;
    return status;
}

enum cm_status cm_changes(const struct cm_book *book, struct cm_change **changes, size_t *count)
{
    struct work work = {.changes = NULL};
    enum cm_status status = CM_OK;
    size_t index;
    const json_t *name;
    for (size_t side = 1; side < book->count; side++) {
        json_array_foreach(book->sides[0].order, index, name)
        {
            if (status == CM_OK)
                status = add_case(book, side, json_string_value(name), &work);
        }
    }
    cm_samples_release(&work.old);
    cm_samples_release(&work.new);
    if (status != CM_OK) {
        cm_free(work.changes);
        return status;
    }
    if (work.count > 0)
        qsort(work.changes, work.count, sizeof *work.changes, by_weight);
    *changes = work.changes;
    *count = work.count;
    return CM_OK;
}
