/* One metric of two sets of runs: scale, shift, verdict. */
#include "host/result/pair.h"

#include <math.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/record.h"

static bool all_positive(const struct cm_series *series)
{
    for (size_t i = 0; i < series->count; i++) {
        if (!(series->points[i].value > 0))
            return false;
    }
    return true;
}

static double *scaled(const struct cm_series *series, bool logarithmic, double sign)
{
    double *values = cm_series_values(series);
    for (size_t i = 0; values != NULL && i < series->count; i++)
        values[i] = sign * (logarithmic ? log(values[i]) : values[i]);
    return values;
}

static double squares(const double *values, size_t count)
{
    double mean = cm_mean(values, count), sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (values[i] - mean) * (values[i] - mean);
    return sum;
}

static size_t *sessions_of(const struct cm_series *series)
{
    size_t *sessions = cm_alloc(series->count, sizeof *sessions);
    for (size_t i = 0; sessions != NULL && i < series->count; i++)
        sessions[i] = series->points[i].file;
    return sessions;
}

enum cm_status cm_pair_make(const struct cm_series *base, const struct cm_series *other,
                            struct cm_pair *pair)
{
    const struct cm_series *const both[] = {base, other};
    struct cm_pair made = {.base = base,
                           .other = other,
                           .logarithmic = all_positive(base) && all_positive(other),
                           .sign = base->better == CM_HIGHER ? -1 : 1};
    struct cm_runs *const runs[] = {&made.x, &made.y};
    for (size_t i = 0; i < 2; i++) {
        made.values[i] = scaled(both[i], made.logarithmic, made.sign);
        made.sessions[i] = sessions_of(both[i]);
        if (made.values[i] == NULL || made.sessions[i] == NULL) {
            cm_pair_release(&made);
            return CM_NO_MEMORY;
        }
        *runs[i] = (struct cm_runs){made.values[i], made.sessions[i], both[i]->count};
    }
    size_t count = made.x.count + made.y.count;
    double sum = squares(made.x.values, made.x.count) + squares(made.y.values, made.y.count);
    made.deviation = count > 2 ? sqrt(sum / (double)(count - 2)) : (double)NAN;
    *pair = made;
    return CM_OK;
}

void cm_pair_release(struct cm_pair *pair)
{
    for (size_t i = 0; i < 2; i++) {
        cm_free(pair->values[i]);
        cm_free(pair->sessions[i]);
        pair->values[i] = NULL;
        pair->sessions[i] = NULL;
    }
}

double cm_pair_margin(const struct cm_pair *pair, double margin)
{
    return pair->logarithmic ? log1p(margin) : margin;
}

double cm_pair_change(const struct cm_pair *pair, double shift)
{
    return pair->logarithmic ? expm1(pair->sign * shift) : pair->sign * shift;
}

double cm_pair_size(const struct cm_pair *pair, double distance)
{
    return pair->logarithmic ? expm1(distance) : distance;
}

struct cm_interval cm_pair_changes(const struct cm_pair *pair, const struct cm_interval *shifts)
{
    double a = cm_pair_change(pair, shifts->low), b = cm_pair_change(pair, shifts->high);
    return (struct cm_interval){
        .low = fmin(a, b), .high = fmax(a, b), .coverage = shifts->coverage};
}

enum cm_pair_verdict cm_pair_judge(const struct cm_pair *pair, const struct cm_shift *shift,
                                   double margin)
{
    double own = cm_pair_margin(pair, margin);
    const struct cm_interval *interval = &shift->interval;
    if (pair->base->better == CM_NEITHER)
        return CM_PAIR_NONE;
    if (interval->coverage <= 0)
        return CM_PAIR_UNKNOWN;
    if (interval->low >= -own && interval->high <= own)
        return CM_PAIR_SAME;
    return interval->low > 0    ? CM_PAIR_WORSE
           : interval->high < 0 ? CM_PAIR_BETTER
                                : CM_PAIR_UNKNOWN;
}

/* Files of one host are runs of one node. */
static size_t node_of(const struct cm_set *set, size_t file)
{
    const char *host = cm_get_text(set->files[file].facts, "machine.host");
    size_t first = 0;
    while (strcmp(cm_get_text(set->files[first].facts, "machine.host"), host) != 0)
        first++;
    return first;
}

enum cm_status cm_series_variances(const struct cm_set *set, const struct cm_series *series,
                                   struct cm_variances *variances)
{
    size_t count = series->count > set->file_count ? series->count : set->file_count;
    struct cm_variance_run *runs = cm_alloc(count, sizeof *runs);
    size_t *nodes = cm_alloc(set->file_count, sizeof *nodes);
    bool logarithmic = all_positive(series);
    enum cm_status status = runs != NULL && nodes != NULL ? CM_OK : CM_NO_MEMORY;
    for (size_t i = 0; status == CM_OK && i < set->file_count; i++)
        nodes[i] = node_of(set, i);
    /* Numbers below the count of runs, though hosts are numbered by files. */
    for (size_t i = 0; status == CM_OK && i < series->count; i++) {
        const struct cm_point *point = &series->points[i];
        size_t node = 0, session = 0;
        while (nodes[series->points[node].file] != nodes[point->file])
            node++;
        while (series->points[session].file != point->file)
            session++;
        runs[i] = (struct cm_variance_run){
            .node = node,
            .session = session,
            .value = logarithmic ? log(point->value) : point->value,
            .iteration_variance = logarithmic ? point->iteration_variance : (double)NAN,
            .iterations = point->iterations};
    }
    if (status == CM_OK)
        status = cm_variance_components(runs, series->count, variances);
    cm_free(nodes);
    cm_free(runs);
    return status;
}

double cm_series_run_s(const struct cm_series *series)
{
    double sum = 0;
    for (size_t i = 0; i < series->count; i++)
        sum += series->points[i].wall_s;
    return sum / (double)series->count;
}

const char *cm_pair_word(enum cm_pair_verdict verdict, const char *unit)
{
    size_t length = strlen(unit);
    bool rate = strcmp(unit, "s") == 0 || (length > 2 && strcmp(unit + length - 2, "/s") == 0);
    switch (verdict) {
    case CM_PAIR_BETTER:
        return rate ? "faster" : "better";
    case CM_PAIR_WORSE:
        return rate ? "slower" : "worse";
    case CM_PAIR_SAME:
        return "same within the margin";
    case CM_PAIR_UNKNOWN:
        return "cannot tell";
    case CM_PAIR_NONE:
        break;
    }
    return "";
}
