/* Figures over sweeps: points that differ in one option alone, summarised run by run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/strbuf.h"
#include "host/result/record.h"

/* The points of one sweep, ascending in the swept option. */
struct group {
    const struct cm_plan *plan;
    json_t *const *slots;
    const struct cm_option *swept;
    size_t *members; /* indices of cases */
    size_t count;
};

static double option_number(const struct cm_option *option, const void *params)
{
    const char *field = (const char *)params + option->offset;
    switch (option->type) {
    case CM_OPTION_COUNT:
    case CM_OPTION_SIZE:
        return (double)*(const uint64_t *)(const void *)field;
    case CM_OPTION_TIME:
    case CM_OPTION_REAL:
        return *(const double *)(const void *)field;
    case CM_OPTION_BOOL:
    case CM_OPTION_CHOICE:
    case CM_OPTION_TEXT:
        break;
    }
    return 0;
}

/* Whether two cases are points of one sweep: every option but the swept one is written alike. */
static bool same_but(const struct cm_case *a, const struct cm_case *b,
                     const struct cm_option *swept, struct cm_str *left, struct cm_str *right)
{
    if (a->workload != b->workload || strcmp(a->section, b->section) != 0)
        return false;
    for (const struct cm_option *row = a->workload->options; row->name != NULL; row++) {
        if (row == swept)
            continue;
        cm_str_reset(left);
        cm_str_reset(right);
        cm_option_write(row, a->params, left);
        cm_option_write(row, b->params, right);
        if (strcmp(cm_str_text(left), cm_str_text(right)) != 0)
            return false;
    }
    return true;
}

/* Fills `members` from `first` on and marks them as taken, sorted by the swept option. */
static enum cm_status gather(struct group *group, size_t first, bool *taken)
{
    const struct cm_plan *plan = group->plan;
    struct cm_str left = CM_STR_INIT, right = CM_STR_INIT;
    group->count = 0;
    for (size_t i = first; i < plan->count; i++) {
        if (taken[i] ||
            !same_but(&plan->cases[first], &plan->cases[i], group->swept, &left, &right))
            continue;
        taken[i] = true;
        if (group->slots[i] == NULL)
            continue;
        double value = option_number(group->swept, plan->cases[i].params);
        size_t at = group->count++;
        for (; at > 0 &&
               option_number(group->swept, plan->cases[group->members[at - 1]].params) > value;
             at--)
            group->members[at] = group->members[at - 1];
        group->members[at] = i;
    }
    enum cm_status status = cm_str_status(&left);
    if (status == CM_OK)
        status = cm_str_status(&right);
    cm_str_release(&left);
    cm_str_release(&right);
    return status;
}

static enum cm_status metrics_from_json(const json_t *object, struct cm_metrics *metrics)
{
    const char *name;
    json_t *row;
    enum cm_status status = CM_OK;
    json_object_foreach((json_t *)object, name, row)
    {
        const char *better = cm_get_text(row, "better");
        if (status == CM_OK)
            status =
                cm_metrics_add(metrics, name, cm_get_number(row, "value"), cm_get_text(row, "unit"),
                               strcmp(better, "lower") == 0    ? CM_LOWER
                               : strcmp(better, "higher") == 0 ? CM_HIGHER
                                                               : CM_NEITHER,
                               NULL);
    }
    return status;
}

/* The metrics of run `number` of a case, NULL when that run is not there or was not ok. */
static const json_t *metrics_of_run(const json_t *item, uint64_t number)
{
    size_t index;
    const json_t *run;
    json_array_foreach(json_object_get(item, "runs"), index, run)
    {
        json_int_t value = json_integer_value(json_object_get(run, "run"));
        if (value >= 0 && (uint64_t)value == number &&
            strcmp(cm_get_text(run, "status"), cm_case_status_names[CM_CASE_OK]) == 0)
            return json_object_get(run, "metrics");
    }
    return NULL;
}

/* What the workload makes of one run; nothing when a point of it is missing or not ok, since the
 * peak of a part of a sweep is not the sweep's. */
static enum cm_status summarise_run(const struct group *group, uint64_t number, unsigned ranks,
                                    struct cm_metrics *summary)
{
    struct cm_sweep_point *points = cm_alloc(group->count, sizeof *points);
    struct cm_metrics *metrics = cm_alloc(group->count, sizeof *metrics);
    const struct cm_workload *workload = group->plan->cases[group->members[0]].workload;
    enum cm_status status = points != NULL && metrics != NULL ? CM_OK : CM_NO_MEMORY;
    bool whole = true;
    for (size_t i = 0; status == CM_OK && whole && i < group->count; i++) {
        const json_t *of_run = metrics_of_run(group->slots[group->members[i]], number);
        whole = of_run != NULL;
        if (whole)
            status = metrics_from_json(of_run, &metrics[i]);
        points[i] = (struct cm_sweep_point){.params = group->plan->cases[group->members[i]].params,
                                            .metrics = &metrics[i]};
    }
    if (status == CM_OK && whole)
        status = workload->summarise(points, group->count, ranks, summary);
    for (size_t i = 0; metrics != NULL && i < group->count; i++)
        cm_metrics_release(&metrics[i]);
    cm_free(metrics);
    cm_free(points);
    return status;
}

/* A row per summary metric; its values over the runs collect in `values`. */
struct over_runs {
    struct cm_metrics first;   /* names and units */
    struct cm_samples *values; /* per metric of `first` */
};

static enum cm_status add_run(struct over_runs *over, const struct cm_metrics *summary)
{
    if (summary->count == 0)
        return CM_OK;
    if (over->first.count == 0) {
        over->values = cm_alloc(summary->count, sizeof *over->values);
        if (over->values == NULL)
            return CM_NO_MEMORY;
        for (size_t i = 0; i < summary->count; i++) {
            const struct cm_metric *row = &summary->items[i];
            enum cm_status status =
                cm_metrics_add(&over->first, row->name, row->value, row->unit, row->better, NULL);
            if (status != CM_OK)
                return status;
        }
    }
    for (size_t i = 0; i < over->first.count; i++) {
        const struct cm_metric *row = cm_metrics_find(summary, over->first.items[i].name);
        enum cm_status status = CM_OK;
        if (row != NULL && isfinite(row->value))
            status = cm_samples_add(&over->values[i], row->value);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

static void release_over_runs(struct over_runs *over)
{
    for (size_t i = 0; over->values != NULL && i < over->first.count; i++)
        cm_samples_release(&over->values[i]);
    cm_free(over->values);
    cm_metrics_release(&over->first);
}

static enum cm_status put_summary(const struct group *group, json_t *sweep)
{
    struct over_runs over = {.values = NULL};
    const json_t *ranks = json_object_get(group->slots[group->members[0]], "ranks");
    enum cm_status status = CM_OK;
    for (uint64_t run = 0; status == CM_OK && run < group->plan->runs; run++) {
        struct cm_metrics summary = {.items = NULL};
        status = summarise_run(group, run, (unsigned)json_integer_value(ranks), &summary);
        if (status == CM_OK)
            status = add_run(&over, &summary);
        cm_metrics_release(&summary);
    }
    json_t *metrics = cm_put_object(&status, sweep, "metrics");
    for (size_t i = 0; status == CM_OK && i < over.first.count; i++) {
        const struct cm_metric *row = &over.first.items[i];
        if (over.values[i].count == 0)
            continue;
        json_t *metric = cm_put_object(&status, metrics, row->name);
        cm_put_figures(&status, metric, over.values[i].values, over.values[i].count);
        cm_put(&status, metric, "unit", cm_result_string(row->unit));
        cm_put(&status, metric, "better", json_string(cm_better_name(row->better)));
        json_t *values = cm_put_array(&status, metric, "values");
        for (size_t k = 0; k < over.values[i].count; k++)
            cm_push(&status, values, cm_json_real(over.values[i].values[k]));
    }
    release_over_runs(&over);
    return status;
}

/* "allreduce:dtype=f32,size=4KiB" without "size=4KiB". */
static char *name_without(const char *name, const char *key)
{
    struct cm_str out = CM_STR_INIT;
    const char *colon = strchr(name, ':');
    size_t head = colon != NULL ? (size_t)(colon - name) : strlen(name);
    size_t key_length = strlen(key);
    const char *separator = ":";
    cm_str_add_bytes(&out, name, head);
    for (const char *at = name + head; *at != '\0';) {
        const char *piece = at + 1;
        size_t length = strcspn(piece, ",");
        if (strncmp(piece, key, key_length) != 0 || piece[key_length] != '=') {
            cm_str_add(&out, separator);
            cm_str_add_bytes(&out, piece, length);
            separator = ",";
        }
        at = piece + length;
    }
    char *text = cm_str_status(&out) == CM_OK ? cm_strdup(cm_str_text(&out)) : NULL;
    cm_str_release(&out);
    return text;
}

static enum cm_status add_sweep(const struct group *group, json_t *sweeps)
{
    const struct cm_case *first = &group->plan->cases[group->members[0]];
    const json_t *item = group->slots[group->members[0]];
    enum cm_status status = CM_OK;
    json_t *sweep = json_object();
    char *name = name_without(first->name, group->swept->name);
    cm_put(&status, sweep, "name", name != NULL ? json_string(name) : NULL);
    cm_free(name);
    cm_put(&status, sweep, "section", json_string(first->section));
    cm_put(&status, sweep, "workload", json_string(first->workload->name));
    cm_put(&status, sweep, "device", json_incref(json_object_get(item, "device")));
    cm_put(&status, sweep, "ranks", json_incref(json_object_get(item, "ranks")));
    cm_put(&status, sweep, "key", json_string(group->swept->name));
    cm_put(&status, sweep, "unit",
           json_string(group->swept->type == CM_OPTION_SIZE   ? "B"
                       : group->swept->type == CM_OPTION_TIME ? "s"
                                                              : "1"));
    json_t *params = cm_params_json(first->workload->options, first->params);
    cm_put(&status, sweep, "params", params);
    if (status == CM_OK)
        json_object_del(params, group->swept->name);
    json_t *points = cm_put_array(&status, sweep, "points");
    for (size_t i = 0; i < group->count; i++)
        cm_push(&status, points, json_string(group->plan->cases[group->members[i]].name));
    if (status == CM_OK)
        status = put_summary(group, sweep);
    if (status == CM_OK)
        return cm_json_append(sweeps, sweep);
    json_decref(sweep);
    return status;
}

enum cm_status cm_sweeps_fill(const struct cm_plan *plan, json_t *const *slots, json_t *sweeps)
{
    struct group group = {.plan = plan, .slots = slots};
    bool *taken = cm_alloc(plan->count, sizeof *taken);
    group.members = cm_alloc(plan->count, sizeof *group.members);
    enum cm_status status = taken != NULL && group.members != NULL ? CM_OK : CM_NO_MEMORY;
    json_array_clear(sweeps);
    for (size_t i = 0; status == CM_OK && i < plan->count; i++) {
        const struct cm_workload *workload = plan->cases[i].workload;
        if (taken[i] || workload->sweep == NULL || workload->summarise == NULL)
            continue;
        group.swept = cm_option_find(workload->options, workload->sweep);
        if (group.swept == NULL)
            status = cm_error(CM_INTERNAL, "workload %s: no option %s to sweep", workload->name,
                              workload->sweep);
        else
            status = gather(&group, i, taken);
        if (status == CM_OK && group.count >= 2)
            status = add_sweep(&group, sweeps);
    }
    cm_free(group.members);
    cm_free(taken);
    return status;
}
