/* The gate's verdict on each metric. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "host/result/gate.h"
#include "host/result/record.h"

const char *const cm_gate_verdict_names[] = {"pass",         "improved",  "regression",
                                             "inconclusive", "missing",   "no baseline",
                                             "wrong",        "throttled", "unit changed"};

const enum cm_status cm_gate_verdict_statuses[] = {CM_OK,           CM_OK,      CM_REGRESSION,
                                                   CM_INCONCLUSIVE, CM_MISSING, CM_MISSING,
                                                   CM_WRONG,        CM_WRONG,   CM_NOT_COMPARABLE};

/* ---- figures that are not judged ---- */

/* A share of the time of which the hardware's own brakes spoil a figure. A power cap is how large
 * products run, and is no reason. */
#define THROTTLED 0.01
static const char *const brakes[] = {"hardware", "thermal", "power brake"};

static bool is_braked(const json_t *telemetry)
{
    const char *reasons = cm_get_text(telemetry, "throttle_reasons");
    if (!(cm_get_number(telemetry, "throttled_fraction") > THROTTLED))
        return false;
    for (size_t i = 0; i < sizeof brakes / sizeof *brakes; i++) {
        if (strstr(reasons, brakes[i]) != NULL)
            return true;
    }
    return false;
}

bool cm_gate_is_subject(const json_t *result, const struct cm_series *series, const char *name)
{
    size_t index, place;
    const json_t *sweep, *point;
    if (!series->of_sweep)
        return strcmp(series->subject, name) == 0;
    json_array_foreach(json_object_get(result, "sweeps"), index, sweep)
    {
        if (strcmp(cm_get_text(sweep, "name"), series->subject) != 0)
            continue;
        json_array_foreach(json_object_get(sweep, "points"), place, point)
        {
            if (strcmp(json_string_value(point), name) == 0)
                return true;
        }
    }
    return false;
}

static bool invalid_case(const json_t *item, const char *path, enum cm_gate_verdict *verdict,
                         char *reason, size_t size)
{
    const char *status = cm_get_text(item, "status");
    const json_t *telemetry = json_object_get(item, "telemetry");
    if (strcmp(status, cm_case_status_names[CM_CASE_WRONG]) == 0 ||
        strcmp(status, cm_case_status_names[CM_CASE_FAILED]) == 0) {
        *verdict = CM_GATE_WRONG;
        snprintf(reason, size, "%s in %.80s: %.100s", status, path, cm_get_text(item, "reason"));
        return true;
    }
    if (is_braked(telemetry)) {
        *verdict = CM_GATE_THROTTLED;
        snprintf(reason, size, "%.0f %% of the time in %.80s: %.80s",
                 100 * cm_get_number(telemetry, "throttled_fraction"), path,
                 cm_get_text(telemetry, "throttle_reasons"));
        return true;
    }
    return false;
}

bool cm_gate_invalid(const struct cm_set *set, const struct cm_series *series,
                     enum cm_gate_verdict *verdict, char *reason, size_t size)
{
    for (size_t f = 0; f < set->file_count; f++) {
        const json_t *result = set->files[f].result, *item;
        size_t index;
        json_array_foreach(json_object_get(result, "cases"), index, item)
        {
            if (cm_gate_is_subject(result, series, cm_get_text(item, "name")) &&
                invalid_case(item, set->files[f].path, verdict, reason, size))
                return true;
        }
    }
    return false;
}

/* ---- figures that are ---- */

double cm_gate_margin(const struct cm_gate_metric *metric, const struct cm_pair *pair)
{
    double margin = cm_pair_margin(pair, metric->margin), floor = metric->floor;
    double median = cm_median(pair->x.values, pair->x.count);
    if (floor > 0 && pair->logarithmic)
        floor = log1p(floor / exp(pair->sign * median));
    return fmax(margin, floor);
}

/* `risk` is that of Holm's first step, whose widening of the bounds is good for all. */
static enum cm_status test(struct cm_gate_row *row, double risk)
{
    struct cm_pair *pair = &row->pair;
    enum cm_status status = cm_pair_make(row->base, row->fresh, pair);
    if (status != CM_OK)
        return status;
    row->tested = true;
    row->margin = cm_gate_margin(row->metric, pair);
    status = cm_session_widening(&pair->x, &pair->y, risk, &row->sessions);
    if (status != CM_OK)
        return status;
    return cm_mann_whitney(pair->x.values, pair->x.count, pair->y.values, pair->y.count,
                           row->margin + row->sessions.widening, &row->p);
}

/* Holm's step of a row: how many tests have yet to be rejected when it is its turn. */
static size_t still_open(const struct cm_gate_row *rows, size_t count, size_t at)
{
    size_t open = count;
    for (size_t i = 0; i < count; i++)
        open -= rows[i].p < rows[at].p || (rows[i].p == rows[at].p && i < at);
    return open;
}

/* The verdict from the test and from the bounds at the risk of the row's step. */
static void decide(struct cm_gate_row *row, double whole)
{
    const struct cm_interval *bounds = &row->shift.interval;
    double least = cm_mann_whitney_least(row->pair.x.count, row->pair.y.count);
    if (row->adjusted <= whole + 1e-12) {
        row->verdict = CM_GATE_REGRESSION;
    } else if (bounds->coverage <= 0) {
        row->verdict = CM_GATE_INCONCLUSIVE;
        snprintf(row->reason, sizeof row->reason,
                 "%zu runs against %zu can at best reach a risk of %.2g, and %.2g is asked for",
                 row->pair.y.count, row->pair.x.count, least, row->risk);
    } else if (bounds->high < -row->margin) {
        row->verdict = CM_GATE_IMPROVED;
        snprintf(row->reason, sizeof row->reason,
                 "better by more than the margin: refresh the baseline, or look why");
    } else if (bounds->high < row->margin) {
        row->verdict = CM_GATE_PASS;
    } else {
        row->verdict = CM_GATE_INCONCLUSIVE;
        snprintf(row->reason, sizeof row->reason, "the bounds reach beyond the margin");
    }
}

enum cm_status cm_gate_judge(struct cm_gate_row *rows, size_t count, double risk)
{
    double p[CM_GATED_MAX] = {0}, adjusted[CM_GATED_MAX] = {0};
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < count; i++) {
        rows[i].p = 1;
        if (rows[i].base != NULL && rows[i].fresh != NULL && rows[i].verdict == CM_GATE_PASS)
            status = test(&rows[i], risk / (double)count);
        p[i] = rows[i].p;
    }
    if (status == CM_OK)
        status = cm_holm(p, count, adjusted);
    for (size_t i = 0; status == CM_OK && i < count; i++) {
        struct cm_gate_row *row = &rows[i];
        if (!row->tested)
            continue;
        row->adjusted = adjusted[i];
        row->risk = risk / (double)still_open(rows, count, i);
        status = cm_hodges_lehmann(row->pair.x.values, row->pair.x.count, row->pair.y.values,
                                   row->pair.y.count, 1 - 2 * row->risk, &row->shift);
        row->shift.interval.low -= row->sessions.widening;
        row->shift.interval.high += row->sessions.widening;
        if (status == CM_OK)
            decide(row, risk);
    }
    return status;
}
