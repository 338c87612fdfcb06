/* Repeated runs of one machine, from one file or many, as a value per run and metric. */
#include "host/result/set.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/hash.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/result.h"
#include "clustermark/stats.h"
#include "host/result/facts.h"
#include "host/result/record.h"

static enum cm_better better_of(const json_t *metric)
{
    const char *word = cm_get_text(metric, "better");
    return strcmp(word, "lower") == 0    ? CM_LOWER
           : strcmp(word, "higher") == 0 ? CM_HIGHER
                                         : CM_NEITHER;
}

const struct cm_series *cm_set_find(const struct cm_set *set, const char *key)
{
    const json_t *place = json_object_get(set->index, key);
    return place != NULL ? &set->series[json_integer_value(place)] : NULL;
}

/* The series of a metric, made when it is the first of its name. */
static enum cm_status series_for(struct cm_set *set, const json_t *subject, const char *metric,
                                 const json_t *row, bool of_sweep, struct cm_series **series)
{
    const char *name = cm_get_text(subject, "name");
    char *key = cm_strf("%s/%s", name, metric);
    if (key == NULL)
        return CM_NO_MEMORY;
    const json_t *place = json_object_get(set->index, key);
    if (place != NULL) {
        *series = &set->series[json_integer_value(place)];
        cm_free(key);
        if (strcmp((*series)->unit, cm_get_text(row, "unit")) != 0 ||
            (*series)->better != better_of(row))
            (*series)->conflict = true;
        return CM_OK;
    }
    enum cm_status status = CM_NO_MEMORY;
    char *copy = cm_strdup(name), *unit = cm_strdup(cm_get_text(row, "unit"));
    if (copy != NULL && unit != NULL &&
        cm_grow(&set->series, &set->series_capacity, set->series_count + 1, sizeof *set->series) ==
            0)
        status = cm_json_set(set->index, key, json_integer((json_int_t)set->series_count));
    if (status != CM_OK) {
        cm_free(copy);
        cm_free(unit);
        cm_free(key);
        return status;
    }
    *series = &set->series[set->series_count++];
    **series = (struct cm_series){.key = key,
                                  .subject = copy,
                                  .metric = key + strlen(name) + 1,
                                  .workload = cm_get_text(subject, "workload"),
                                  .unit = unit,
                                  .better = better_of(row),
                                  .of_sweep = of_sweep};
    return CM_OK;
}

static enum cm_status add_point(struct cm_series *series, const struct cm_point *point)
{
    if (!isfinite(point->value))
        return CM_OK;
    if (cm_grow(&series->points, &series->capacity, series->count + 1, sizeof *point) != 0)
        return CM_NO_MEMORY;
    series->points[series->count++] = *point;
    return CM_OK;
}

/* Iterations that are looked at for the variance within a run. */
#define ITERATIONS_MAX 1000

/* Variance of the logarithms of a run's iterations, and how many independent ones they are worth:
 * n (1 - r) / (1 + r) for a correlation r of neighbours. */
static void look_within(const json_t *run, struct cm_point *point)
{
    const json_t *samples = json_object_get(run, "samples_s");
    size_t size = json_array_size(samples), count = 0;
    double left_out = cm_get_number(run, "samples_left_out");
    double logs[ITERATIONS_MAX], mean = 0, square = 0, neighbours = 0;
    point->iteration_variance = point->iterations = NAN;
    if (json_object_get(run, "parts") != NULL)
        return;
    for (size_t i = 0; i < size && count < ITERATIONS_MAX; i++) {
        double value = json_number_value(json_array_get(samples, i));
        if (value > 0 && isfinite(value))
            logs[count++] = log(value);
    }
    if (count < 3)
        return;
    for (size_t i = 0; i < count; i++)
        mean += logs[i] / (double)count;
    for (size_t i = 0; i < count; i++) {
        square += (logs[i] - mean) * (logs[i] - mean);
        neighbours += i > 0 ? (logs[i] - mean) * (logs[i - 1] - mean) : 0;
    }
    double alike = square > 0 ? fmin(fmax(neighbours / square, 0), 0.99) : 0;
    double all = (double)size + (left_out > 0 ? left_out : 0);
    /* As wide as their middle half: what the median of a run feels; a few iterations that were
     * stopped by something else it does not. */
    double deviation = (cm_quantile(logs, count, 0.75) - cm_quantile(logs, count, 0.25)) / 1.349;
    point->iteration_variance = deviation * deviation;
    point->iterations = fmax(all * (1 - alike) / (1 + alike), 1);
}

/* Whether a metric is a time of an iteration, or a rate of it: only then do the samples tell of it.
 * A label after a dot stands for a part or a rank. */
static bool follows_samples(const char *name, const json_t *metric)
{
    static const char *const units[] = {"s", "B/s", "FLOP/s"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(cm_get_text(metric, "unit"), units[i]) == 0)
            return strchr(name, '.') == NULL;
    }
    return false;
}

static enum cm_status add_run(struct cm_set *set, const json_t *item, const json_t *run)
{
    enum cm_status status = CM_OK;
    const char *name;
    json_t *metric;
    struct cm_point within, point = {.file = set->file_count - 1};
    point.run = (uint64_t)json_integer_value(json_object_get(run, "run"));
    point.wall_s = cm_get_number(run, "wall_s");
    if (strcmp(cm_get_text(run, "status"), cm_case_status_names[CM_CASE_OK]) != 0)
        return CM_OK;
    look_within(run, &within);
    json_object_foreach(json_object_get(run, "metrics"), name, metric)
    {
        struct cm_series *series;
        if (status != CM_OK)
            break;
        status = series_for(set, item, name, metric, false, &series);
        bool follows = follows_samples(name, metric);
        point.value = cm_get_number(metric, "value");
        point.iteration_variance = follows ? within.iteration_variance : NAN;
        point.iterations = follows ? within.iterations : NAN;
        if (status == CM_OK)
            status = add_point(series, &point);
    }
    return status;
}

/* Sweeps tell their metrics run by run in `values`; older files have the median alone. */
static enum cm_status add_sweep_metric(struct cm_set *set, const json_t *sweep, const char *name,
                                       const json_t *metric)
{
    struct cm_series *series;
    const json_t *values = json_object_get(metric, "values");
    struct cm_point point = {.file = set->file_count - 1,
                             .wall_s = set->files[set->file_count - 1].run_s,
                             .iteration_variance = NAN,
                             .iterations = NAN};
    enum cm_status status = series_for(set, sweep, name, metric, true, &series);
    size_t index;
    const json_t *value;
    json_array_foreach(values, index, value)
    {
        point.run = index;
        point.value = json_is_number(value) ? json_number_value(value) : NAN;
        if (status == CM_OK)
            status = add_point(series, &point);
    }
    if (json_array_size(values) > 0 || status != CM_OK)
        return status;
    point.value = cm_get_number(metric, "value");
    return add_point(series, &point);
}

static enum cm_status add_sweep(struct cm_set *set, const json_t *sweep)
{
    enum cm_status status = CM_OK;
    const char *name;
    json_t *metric;
    json_object_foreach(json_object_get(sweep, "metrics"), name, metric)
    {
        if (status == CM_OK)
            status = add_sweep_metric(set, sweep, name, metric);
    }
    return status;
}

/* What tells two results apart, cheaply: when each run began and how long it took, and the first
 * figures of it. */
static uint64_t digest_of(const json_t *result)
{
    const char *started = cm_get_text(result, "started");
    uint64_t hash = cm_hash(0, started, strlen(started));
    size_t index, place, sample;
    const json_t *item, *run, *value;
    json_array_foreach(json_object_get(result, "cases"), index, item)
    {
        const char *name = cm_get_text(item, "name");
        hash = cm_hash(hash, name, strlen(name));
        json_array_foreach(json_object_get(item, "runs"), place, run)
        {
            double wall_s = cm_get_number(run, "wall_s");
            hash = cm_hash(hash, &wall_s, sizeof wall_s);
            json_array_foreach(json_object_get(run, "samples_s"), sample, value)
            {
                double number = json_number_value(value);
                if (sample < 8)
                    hash = cm_hash(hash, &number, sizeof number);
            }
        }
        const char *key;
        json_t *metric;
        json_object_foreach(json_object_get(item, "metrics"), key, metric)
        {
            double number = cm_get_number(metric, "value");
            hash = cm_hash(hash, &number, sizeof number);
        }
    }
    return hash;
}

/* The sum over the cases of the mean over their runs. */
static double run_time(const json_t *result)
{
    double sum = 0;
    size_t index, place;
    const json_t *item, *run;
    json_array_foreach(json_object_get(result, "cases"), index, item)
    {
        const json_t *runs = json_object_get(item, "runs");
        json_array_foreach(runs, place, run)
        {
            double wall_s = cm_get_number(run, "wall_s");
            sum += isfinite(wall_s) ? wall_s / (double)json_array_size(runs) : 0;
        }
    }
    return sum > 0 ? sum : (double)NAN;
}

static enum cm_status add_file(struct cm_set *set, const char *path, json_t *result)
{
    char *copy = cm_strdup(path);
    uint64_t digest = digest_of(result);
    if (set->index == NULL)
        set->index = json_object();
    if (copy == NULL || set->index == NULL ||
        cm_grow(&set->files, &set->file_capacity, set->file_count + 1, sizeof *set->files) != 0) {
        cm_free(copy);
        json_decref(result);
        return cm_error(CM_NO_MEMORY, "out of memory: the results of %s", path);
    }
    for (size_t i = 0; i < set->file_count; i++) {
        if (set->files[i].digest != digest)
            continue;
        cm_free(copy);
        json_decref(result);
        return cm_error(CM_USAGE, "%s and %s hold the same result; runs count once",
                        set->files[i].path, path);
    }
    struct cm_set_file *file = &set->files[set->file_count++];
    *file = (struct cm_set_file){.path = copy,
                                 .result = result,
                                 .facts = cm_facts(result),
                                 .run_s = run_time(result),
                                 .digest = digest};
    return file->facts != NULL ? CM_OK : cm_error(CM_NO_MEMORY, "out of memory: %s", path);
}

enum cm_status cm_set_add_result(struct cm_set *set, const char *path, json_t *result)
{
    enum cm_status status = add_file(set, path, result);
    size_t index, place;
    json_t *item, *run;
    if (status != CM_OK)
        return status;
    json_array_foreach(json_object_get(result, "cases"), index, item)
    {
        json_array_foreach(json_object_get(item, "runs"), place, run)
        {
            if (status == CM_OK)
                status = add_run(set, item, run);
        }
        json_object_del(item, "runs");
    }
    json_array_foreach(json_object_get(result, "sweeps"), index, item)
    {
        if (status == CM_OK)
            status = add_sweep(set, item);
    }
    return status;
}

double *cm_series_values(const struct cm_series *series)
{
    double *values = cm_alloc(series->count, sizeof *values);
    for (size_t i = 0; values != NULL && i < series->count; i++)
        values[i] = series->points[i].value;
    return values;
}

enum cm_status cm_set_derive(struct cm_set *set, size_t series, const char *metric,
                             const char *unit, double scale)
{
    struct cm_series *made;
    json_t *row = json_pack("{s:s, s:s}", "unit", unit, "better", "lower");
    json_t *subject = json_pack("{s:s, s:s}", "name", set->series[series].subject, "workload", "");
    enum cm_status status = row != NULL && subject != NULL
                                ? series_for(set, subject, metric, row, false, &made)
                                : cm_error(CM_NO_MEMORY, "out of memory: %s", metric);
    json_decref(row);
    json_decref(subject);
    if (status != CM_OK)
        return status;
    const struct cm_series *from = &set->series[series]; /* it may have moved */
    made->workload = from->workload;
    for (size_t i = 0; status == CM_OK && i < from->count; i++) {
        struct cm_point point = from->points[i];
        point.value = scale / point.value;
        status = add_point(made, &point);
    }
    return status;
}

void cm_set_trim(struct cm_set *set, size_t runs)
{
    for (size_t i = 0; i < set->series_count; i++) {
        struct cm_series *series = &set->series[i];
        if (series->count <= runs)
            continue;
        set->trimmed = true;
        memmove(series->points, series->points + (series->count - runs),
                runs * sizeof *series->points);
        series->count = runs;
    }
}

void cm_set_release(struct cm_set *set)
{
    for (size_t i = 0; i < set->series_count; i++) {
        cm_free(set->series[i].key);
        cm_free(set->series[i].subject);
        cm_free(set->series[i].unit);
        cm_free(set->series[i].points);
    }
    for (size_t i = 0; i < set->file_count; i++) {
        cm_free(set->files[i].path);
        json_decref(set->files[i].result);
        json_decref(set->files[i].facts);
    }
    cm_free(set->series);
    cm_free(set->files);
    json_decref(set->index);
    cm_free(set->name);
    *set = (struct cm_set){.name = NULL};
}
