/* Distributions over ranks. */
#include "host/result/fold.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/record.h"

struct place {
    double value;
    unsigned rank;
};

bool cm_folds(unsigned ranks)
{
    return ranks > CM_FOLD_ABOVE;
}

static int by_value(const void *left, const void *right)
{
    const struct place *a = left, *b = right;
    if (a->value != b->value)
        return a->value < b->value ? -1 : 1;
    return a->rank < b->rank ? -1 : a->rank > b->rank;
}

/* Linear between order statistics, as cm_quantile; these are in order already. */
static double quantile(const struct place *sorted, size_t count, double q)
{
    double at = q * (double)(count - 1);
    size_t below = (size_t)at, above = below + 1 < count ? below + 1 : below;
    return sorted[below].value + (at - (double)below) * (sorted[above].value - sorted[below].value);
}

/* The median of |value - middle|: what is nearest to the middle is taken from both sides. */
static double deviation(const struct place *sorted, size_t count, double middle)
{
    size_t above = 0;
    while (above < count && sorted[above].value < middle)
        above++;
    size_t below = above;
    double nearest[2] = {0, 0};
    for (size_t taken = 0; taken <= count / 2; taken++) {
        double down = below > 0 ? middle - sorted[below - 1].value : (double)INFINITY;
        double up = above < count ? sorted[above].value - middle : (double)INFINITY;
        nearest[0] = nearest[1];
        nearest[1] = down < up ? down : up;
        if (down < up)
            below--;
        else
            above++;
    }
    return count % 2 == 1 ? nearest[1] : (nearest[0] + nearest[1]) / 2;
}

/* How many stand out at each end. */
static void count_outliers(const struct place *sorted, size_t count, double middle, double reach,
                           size_t *low, size_t *high)
{
    *low = *high = 0;
    while (*low < count && middle - sorted[*low].value > reach)
        ++*low;
    while (*high < count && sorted[count - 1 - *high].value - middle > reach)
        ++*high;
}

static void put_outlier(enum cm_status *status, json_t *list, const struct place *place)
{
    json_t *row = json_object();
    cm_push(status, list, row);
    cm_put(status, row, "rank", json_integer(place->rank));
    cm_put(status, row, "value", cm_json_real(place->value));
}

static void put_outliers(enum cm_status *status, json_t *object, const struct place *sorted,
                         size_t count, enum cm_better better)
{
    size_t low, high, from_low = 0, from_high = 0;
    double middle = quantile(sorted, count, 0.5);
    double reach = CM_FOLD_DEVIATIONS * 1.4826 * deviation(sorted, count, middle);
    count_outliers(sorted, count, middle, reach, &low, &high);
    json_t *list = cm_put_array(status, object, "outliers");
    while (from_low + from_high < low + high && from_low + from_high < CM_FOLD_OUTLIERS) {
        const struct place *least = &sorted[from_low], *most = &sorted[count - 1 - from_high];
        bool lowest = from_high == high ||
                      (from_low < low &&
                       (better == CM_HIGHER ||
                        (better == CM_NEITHER && middle - least->value > most->value - middle)));
        put_outlier(status, list, lowest ? least : most);
        from_low += lowest ? 1 : 0;
        from_high += lowest ? 0 : 1;
    }
    cm_put(status, object, "outliers_total", json_integer((json_int_t)(low + high)));
}

void cm_fold_put(enum cm_status *status, json_t *object, const double *values, unsigned ranks,
                 enum cm_better better)
{
    static const struct {
        const char *name;
        double q;
    } quantiles[] = {{"minimum", 0}, {"p01", 0.01}, {"p25", 0.25}, {"median", 0.5},
                     {"p75", 0.75},  {"p99", 0.99}, {"maximum", 1}};
    struct place *sorted = cm_alloc(ranks, sizeof *sorted);
    size_t count = 0;
    if (sorted == NULL) {
        *status = CM_NO_MEMORY;
        return;
    }
    for (unsigned rank = 0; rank < ranks; rank++) {
        if (isfinite(values[rank]))
            sorted[count++] = (struct place){values[rank], rank};
    }
    qsort(sorted, count, sizeof *sorted, by_value);
    cm_put(status, object, "ranks", json_integer((json_int_t)count));
    for (size_t i = 0; count > 0 && i < sizeof quantiles / sizeof *quantiles; i++)
        cm_put(status, object, quantiles[i].name,
               cm_json_real(quantile(sorted, count, quantiles[i].q)));
    if (count > 0)
        put_outliers(status, object, sorted, count, better);
    cm_free(sorted);
}

json_t *cm_fold_json(const double *values, unsigned ranks, enum cm_better better)
{
    enum cm_status status = CM_OK;
    unsigned known = 0;
    for (unsigned rank = 0; rank < ranks; rank++)
        known += isfinite(values[rank]) ? 1 : 0;
    if (known == 0)
        return json_null();
    json_t *object = json_object();
    cm_fold_put(&status, object, values, ranks, better);
    if (status == CM_OK)
        return object;
    json_decref(object);
    return NULL;
}

/* Ends the open range. */
static void close_range(struct cm_ranges *ranges)
{
    char one[40];
    size_t length = strlen(ranges->text);
    if (!ranges->open || ranges->full)
        return;
    if (ranges->first == ranges->last)
        snprintf(one, sizeof one, "%s%u", length > 0 ? "," : "", ranges->first);
    else
        snprintf(one, sizeof one, "%s%u-%u", length > 0 ? "," : "", ranges->first, ranges->last);
    ranges->full = length + strlen(one) + sizeof ",..." > sizeof ranges->text;
    snprintf(ranges->text + length, sizeof ranges->text - length, "%s",
             ranges->full ? ",..." : one);
}

void cm_ranges_add(struct cm_ranges *ranges, unsigned rank)
{
    if (ranges->open && rank == ranges->last + 1) {
        ranges->last = rank;
        return;
    }
    close_range(ranges);
    ranges->open = true;
    ranges->first = ranges->last = rank;
}

const char *cm_ranges_end(struct cm_ranges *ranges)
{
    close_range(ranges);
    ranges->open = false;
    return ranges->text;
}

struct same {
    const char *text;
    size_t count;
    unsigned first;
    struct cm_ranges ranges;
};

static int by_count(const void *left, const void *right)
{
    const struct same *a = left, *b = right;
    if (a->count != b->count)
        return a->count > b->count ? -1 : 1;
    return a->first < b->first ? -1 : a->first > b->first;
}

/* Most different texts that are told apart. */
#define TEXTS_MAX 256

/* The group of a text: neighbours are often alike, and ranks of a node repeat those of another. */
static struct same *group_of(struct same *groups, size_t *count, const char *text, unsigned rank)
{
    for (size_t i = 0; i < *count; i++) {
        if (strcmp(groups[i].text, text) == 0)
            return &groups[i];
    }
    if (*count == TEXTS_MAX)
        return NULL;
    groups[*count] = (struct same){.text = text, .first = rank};
    return &groups[(*count)++];
}

static json_t *groups_json(struct same *groups, size_t count, size_t others)
{
    enum cm_status status = CM_OK;
    json_t *array = json_array();
    qsort(groups, count, sizeof *groups, by_count);
    for (size_t i = 0; i < count; i++) {
        if (i >= CM_FOLD_TEXTS) {
            others += groups[i].count;
            continue;
        }
        json_t *row = json_object();
        cm_push(&status, array, row);
        cm_put(&status, row, "text", cm_result_string(groups[i].text));
        cm_put(&status, row, "count", json_integer((json_int_t)groups[i].count));
        cm_put(&status, row, "ranks", json_string(cm_ranges_end(&groups[i].ranges)));
    }
    if (others > 0) {
        json_t *row = json_object();
        cm_push(&status, array, row);
        cm_put(&status, row, "text", json_null());
        cm_put(&status, row, "count", json_integer((json_int_t)others));
    }
    if (status == CM_OK)
        return array;
    json_decref(array);
    return NULL;
}

json_t *cm_fold_texts_json(const char *(*text)(const void *items, unsigned rank), const void *items,
                           unsigned ranks)
{
    struct same *groups = cm_alloc(TEXTS_MAX, sizeof *groups);
    size_t count = 0, others = 0;
    if (groups == NULL)
        return NULL;
    for (unsigned rank = 0; rank < ranks; rank++) {
        const char *own = text(items, rank);
        if (own == NULL || own[0] == '\0')
            continue;
        struct same *group = group_of(groups, &count, own, rank);
        if (group == NULL) {
            others++;
            continue;
        }
        group->count++;
        cm_ranges_add(&group->ranges, rank);
    }
    json_t *array = groups_json(groups, count, others);
    cm_free(groups);
    return array;
}
