/* From runs to a case's figures, and from cases to figures over sweeps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/result/record.h"

void cm_put_figures(enum cm_status *status, json_t *metric, const double *values, size_t count)
{
    struct cm_interval interval = cm_median_interval(values, count, 0.95);
    cm_put(status, metric, "value", cm_json_real(cm_median(values, count)));
    cm_put(status, metric, "runs", json_integer((json_int_t)count));
    cm_put(status, metric, "minimum", cm_json_real(cm_quantile(values, count, 0)));
    cm_put(status, metric, "maximum", cm_json_real(cm_quantile(values, count, 1)));
    if (interval.coverage <= 0)
        return;
    json_t *object = cm_put_object(status, metric, "interval");
    cm_put(status, object, "low", cm_json_real(interval.low));
    cm_put(status, object, "high", cm_json_real(interval.high));
    cm_put(status, object, "coverage", cm_json_real(interval.coverage));
}

static bool run_is_ok(const json_t *run)
{
    return strcmp(cm_get_text(run, "status"), cm_case_status_names[CM_CASE_OK]) == 0;
}

/* One number per ok run: run.<group>.<name>.value, or run.<name> without a group. Numbers that are
 * missing are left out. */
static enum cm_status collect(const json_t *runs, const char *group, const char *name,
                              struct cm_samples *values)
{
    size_t index;
    const json_t *run;
    enum cm_status status = CM_OK;
    cm_samples_clear(values);
    json_array_foreach(runs, index, run)
    {
        if (!run_is_ok(run) || status != CM_OK)
            continue;
        double value =
            group != NULL
                ? cm_get_number(json_object_get(json_object_get(run, group), name), "value")
                : cm_get_number(run, name);
        if (isfinite(value))
            status = cm_samples_add(values, value);
    }
    return status;
}

static enum cm_status add_metric(json_t *metrics, const json_t *runs, const char *name,
                                 const json_t *of_run, struct cm_samples *values)
{
    enum cm_status status = collect(runs, "metrics", name, values);
    if (status != CM_OK || values->count == 0)
        return status;
    json_t *metric = cm_put_object(&status, metrics, name);
    cm_put_figures(&status, metric, values->values, values->count);
    cm_put(&status, metric, "unit", json_string(cm_get_text(of_run, "unit")));
    cm_put(&status, metric, "better", json_string(cm_get_text(of_run, "better")));
    return status;
}

/* Metrics in the order in which the runs first name them. */
static enum cm_status summarise_metrics(json_t *item, const json_t *runs)
{
    size_t index;
    json_t *run, *of_run;
    const char *name;
    struct cm_samples values = {.values = NULL};
    enum cm_status status = CM_OK;
    json_t *metrics = cm_put_object(&status, item, "metrics");
    json_array_foreach(runs, index, run)
    {
        if (!run_is_ok(run))
            continue;
        json_object_foreach(json_object_get(run, "metrics"), name, of_run)
        {
            if (status == CM_OK && json_object_get(metrics, name) == NULL)
                status = add_metric(metrics, runs, name, of_run, &values);
        }
    }
    if (status == CM_OK)
        status = collect(runs, NULL, "spread", &values);
    cm_put(&status, item, "spread",
           values.count > 0 ? cm_json_real(cm_median(values.values, values.count)) : json_null());
    cm_samples_release(&values);
    return status;
}

static enum cm_status summarise_check(json_t *item, const json_t *runs)
{
    enum cm_status status = CM_OK;
    json_int_t checked = 0, mismatches = 0;
    double worst = 0;
    const char *nothing = "", *detail = "";
    size_t index;
    const json_t *run;
    json_array_foreach(runs, index, run)
    {
        const json_t *check = json_object_get(run, "check");
        checked += json_integer_value(json_object_get(check, "checked"));
        mismatches += json_integer_value(json_object_get(check, "mismatches"));
        worst = fmax(worst, cm_get_number(check, "worst"));
        if (nothing[0] == '\0')
            nothing = cm_get_text(check, "nothing");
        if (detail[0] == '\0')
            detail = cm_get_text(check, "detail");
    }
    json_t *check = cm_put_object(&status, item, "check");
    cm_put(&status, check, "checked", json_integer(checked));
    cm_put(&status, check, "mismatches", json_integer(mismatches));
    cm_put(&status, check, "worst", cm_json_real(worst));
    if (nothing[0] != '\0')
        cm_put(&status, check, "nothing", json_string(nothing));
    if (detail[0] != '\0')
        cm_put(&status, check, "detail", json_string(detail));
    return status;
}

/* The status of the whole, and the reason of the first run that has it. Skipped runs beside good
 * ones leave the case ok; the reason then says how many are missing. */
static enum cm_status summarise_status(json_t *item, const json_t *runs)
{
    static const enum cm_case_status by_weight[] = {CM_CASE_WRONG, CM_CASE_FAILED, CM_CASE_OK,
                                                    CM_CASE_SKIPPED};
    size_t counts[4] = {0}, index;
    const char *reasons[4] = {"", "", "", ""};
    const json_t *run;
    json_array_foreach(runs, index, run)
    {
        for (size_t i = 0; i < 4; i++) {
            if (strcmp(cm_get_text(run, "status"), cm_case_status_names[by_weight[i]]) == 0 &&
                counts[i]++ == 0)
                reasons[i] = cm_get_text(run, "reason");
        }
    }
    size_t chosen = 0;
    while (chosen < 3 && counts[chosen] == 0)
        chosen++;
    enum cm_status status = CM_OK;
    cm_put(&status, item, "status", json_string(cm_case_status_names[by_weight[chosen]]));
    if (by_weight[chosen] == CM_CASE_OK && counts[3] > 0)
        cm_put(&status, item, "reason",
               json_sprintf("%zu of %zu runs skipped: %s", counts[3], counts[2] + counts[3],
                            reasons[3]));
    else
        cm_put(&status, item, "reason", json_string(reasons[chosen]));
    return status;
}

enum cm_status cm_case_summarise(json_t *item)
{
    const json_t *runs = json_object_get(item, "runs");
    enum cm_status status = summarise_status(item, runs);
    if (status == CM_OK)
        status = summarise_metrics(item, runs);
    if (status == CM_OK)
        status = summarise_check(item, runs);
    return status;
}
