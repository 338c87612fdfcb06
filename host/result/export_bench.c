/* For tools that track benchmarks: Bencher's format, Go's text, Google Benchmark's JSON. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/export.h"

static enum cm_status put_measure(json_t *measures, const char *name, const json_t *metric,
                                  const struct cm_samples *values)
{
    enum cm_status status = CM_OK;
    struct cm_interval interval = cm_median_interval(values->values, values->count, 0.95);
    const json_t *own = json_object_get(metric, "interval");
    bool known = interval.coverage > 0 || isfinite(cm_get_number(own, "low"));
    if (!(interval.coverage > 0)) /* too few runs here: what the result itself says */
        interval = (struct cm_interval){.low = cm_get_number(own, "low"),
                                        .high = cm_get_number(own, "high")};
    json_t *measure = cm_put_object(&status, measures, name);
    cm_put(&status, measure, "value", cm_json_real(cm_median(values->values, values->count)));
    if (known) {
        cm_put(&status, measure, "lower_value", cm_json_real(interval.low));
        cm_put(&status, measure, "upper_value", cm_json_real(interval.high));
    }
    return status;
}

/* {case: {figure: {value, lower_value, upper_value}}}, from the runs of all results. */
enum cm_status cm_export_bmf(const struct cm_side *side, struct cm_str *out)
{
    json_t *root = json_object();
    struct cm_samples values = {.values = NULL};
    enum cm_status status = root != NULL ? CM_OK : CM_NO_MEMORY;
    size_t index;
    const json_t *entry;
    json_array_foreach(side->order, index, entry)
    {
        const char *name = json_string_value(entry), *figure;
        const json_t *item = cm_side_case(side, name);
        json_t *metric, *measures = NULL;
        if (strcmp(cm_get_text(item, "status"), "ok") != 0)
            continue;
        json_object_foreach(json_object_get(item, "metrics"), figure, metric)
        {
            if (status != CM_OK || !cm_is_told(figure, metric))
                continue;
            if (measures == NULL)
                measures = cm_put_object(&status, root, name);
            if (status == CM_OK)
                status = cm_side_values(side, name, figure, &values);
            if (status == CM_OK)
                status = put_measure(measures, figure, metric, &values);
        }
    }
    if (status == CM_OK)
        status = cm_export_json(root, out);
    cm_samples_release(&values);
    json_decref(root);
    return status;
}

/* A name without spaces; "reduce:size=64KiB,dtype=f32" is "reduce/size=64KiB/dtype=f32". */
static void add_go_name(struct cm_str *out, const char *name)
{
    bool keys = false;
    for (; *name != '\0'; name++) {
        unsigned char letter = (unsigned char)*name;
        bool separates = (letter == ':' && !keys) || (letter == ',' && keys);
        keys = keys || letter == ':';
        if (separates)
            cm_str_add(out, "/");
        else if (letter <= 0x20 || letter >= 0x7f)
            cm_str_add(out, "_");
        else
            cm_str_add_bytes(out, name, 1);
    }
}

/* A figure of its own unit, so that lines have several: "busbw-B/s", "time-sec". */
static void add_go_unit(struct cm_str *out, const char *figure, const char *unit)
{
    add_go_name(out, figure);
    cm_str_add(out, "-");
    if (strcmp(unit, "s") == 0)
        cm_str_add(out, "sec");
    else if (strcmp(unit, "1") == 0)
        cm_str_add(out, "ratio");
    else
        add_go_name(out, unit);
}

static void add_go_config(struct cm_str *out, const char *key, const char *value)
{
    if (value[0] == '\0')
        return;
    cm_str_addf(out, "%s: ", key);
    for (; *value != '\0'; value++)
        cm_str_add_bytes(out, (unsigned char)*value < 0x20 ? " " : value, 1);
    cm_str_add(out, "\n");
}

/* Which way each unit is better, each once. */
static enum cm_status add_go_units(const struct cm_side *side, struct cm_str *out)
{
    enum cm_status status = CM_OK;
    json_t *seen = json_object();
    size_t index;
    const json_t *entry;
    json_array_foreach(side->order, index, entry)
    {
        const json_t *item = cm_side_case(side, json_string_value(entry));
        const char *figure;
        json_t *metric;
        json_object_foreach(json_object_get(item, "metrics"), figure, metric)
        {
            struct cm_str unit = CM_STR_INIT;
            add_go_unit(&unit, figure, cm_get_text(metric, "unit"));
            if (cm_is_told(figure, metric) && json_object_get(seen, cm_str_text(&unit)) == NULL) {
                cm_put(&status, seen, cm_str_text(&unit), json_true());
                cm_str_addf(out, "Unit %s better=%s\n", cm_str_text(&unit),
                            strcmp(cm_get_text(metric, "better"), "lower") == 0 ? "lower"
                                                                                : "higher");
            }
            out->failed = out->failed || unit.failed;
            cm_str_release(&unit);
        }
    }
    json_decref(seen);
    return status;
}

static void add_go_run(struct cm_str *out, const char *name, const json_t *item, const json_t *run)
{
    const char *figure;
    json_t *metric;
    size_t told = 0, iterations = json_array_size(json_object_get(run, "samples_s"));
    json_object_foreach(json_object_get(item, "metrics"), figure, metric)
    {
        double value =
            cm_get_number(json_object_get(json_object_get(run, "metrics"), figure), "value");
        if (!cm_is_told(figure, metric) || !isfinite(value))
            continue;
        if (told++ == 0) {
            cm_str_add(out, "Benchmark");
            add_go_name(out, name);
            cm_str_addf(out, " %zu", iterations > 0 ? iterations : 1);
        }
        cm_str_addf(out, " %.9g ", value);
        add_go_unit(out, figure, cm_get_text(metric, "unit"));
    }
    if (told > 0)
        cm_str_add(out, "\n");
}

/* A line per run. */
enum cm_status cm_export_go(const struct cm_side *side, struct cm_str *out)
{
    const json_t *result = cm_side_last(side);
    size_t index, which, inner;
    const json_t *entry, *item, *run;
    add_go_config(out, "pkg", "clustermark");
    add_go_config(out, "suite", cm_get_text(json_object_get(result, "suite"), "name"));
    add_go_config(out, "device", cm_get_text(result, "device"));
    add_go_config(out, "machine", cm_get_text(json_object_get(result, "machine"), "digest"));
    add_go_config(out, "revision", cm_get_text(json_object_get(result, "tool"), "revision"));
    enum cm_status status = add_go_units(side, out);
    json_array_foreach(side->order, index, entry)
    {
        const char *name = json_string_value(entry);
        json_array_foreach(json_object_get(side->cases, name), which, item)
        {
            json_array_foreach(json_object_get(item, "runs"), inner, run)
            {
                if (strcmp(cm_get_text(run, "status"), "ok") == 0)
                    add_go_run(out, name, item, run);
            }
        }
    }
    return status;
}

/* The time of an iteration: the figure "time" or "step_time", else the median of the samples. */
static double time_of(const json_t *run)
{
    static const char *const names[] = {"time", "step_time"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *metric = json_object_get(json_object_get(run, "metrics"), names[i]);
        if (isfinite(cm_get_number(metric, "value")) &&
            strcmp(cm_get_text(metric, "unit"), "s") == 0)
            return cm_get_number(metric, "value");
    }
    const json_t *samples = json_object_get(run, "samples_s");
    size_t count = json_array_size(samples);
    double *values = cm_alloc(count, sizeof *values), median;
    if (values == NULL)
        return NAN;
    for (size_t i = 0; i < count; i++)
        values[i] = json_number_value(json_array_get(samples, i));
    median = cm_median(values, count);
    cm_free(values);
    return median;
}

struct google {
    json_t *rows;
    size_t family, repetitions, repetition;
};

/* A failed run has no row: readers of the format take its time for a good one. */
static enum cm_status put_google_run(struct google *google, const json_t *item, const json_t *run)
{
    enum cm_status status = CM_OK;
    double time_s = time_of(run);
    const char *name = cm_get_text(item, "name"), *figure;
    json_t *metric;
    if (!isfinite(time_s) || strcmp(cm_get_text(run, "status"), "ok") != 0)
        return CM_OK;
    json_t *row = json_object();
    size_t iterations = json_array_size(json_object_get(run, "samples_s"));
    cm_put(&status, row, "name", json_string(name));
    cm_put(&status, row, "family_index", json_integer((json_int_t)google->family));
    cm_put(&status, row, "per_family_instance_index", json_integer(0));
    cm_put(&status, row, "run_name", json_string(name));
    cm_put(&status, row, "run_type", json_string("iteration"));
    cm_put(&status, row, "repetitions", json_integer((json_int_t)google->repetitions));
    cm_put(&status, row, "repetition_index", json_integer((json_int_t)google->repetition++));
    cm_put(&status, row, "threads", json_integer(1));
    cm_put(&status, row, "iterations", json_integer((json_int_t)(iterations ? iterations : 1)));
    cm_put(&status, row, "real_time", cm_json_real(time_s * 1e9));
    cm_put(&status, row, "cpu_time", cm_json_real(time_s * 1e9));
    cm_put(&status, row, "time_unit", json_string("ns"));
    json_object_foreach(json_object_get(run, "metrics"), figure, metric)
    {
        if (cm_is_told(figure, metric) && json_object_get(row, figure) == NULL)
            cm_put(&status, row, figure, cm_json_real(cm_get_number(metric, "value")));
    }
    cm_push(&status, google->rows, row);
    return status;
}

static void put_google_context(enum cm_status *status, json_t *root, const json_t *result)
{
    const json_t *machine = json_object_get(result, "machine");
    double cpus = 0;
    size_t index;
    const json_t *package;
    json_array_foreach(json_object_get(machine, "packages"), index, package)
    {
        double own = cm_get_number(package, "processors");
        cpus += isfinite(own) && own > 0 && own < 1e6 ? own : 0;
    }
    json_t *context = cm_put_object(status, root, "context");
    cm_put(status, context, "date", json_string(cm_get_text(result, "started")));
    cm_put(status, context, "host_name", json_string(cm_get_text(machine, "host")));
    cm_put(status, context, "executable", json_string("clustermark"));
    cm_put(status, context, "num_cpus", json_integer((json_int_t)cpus));
    cm_put(status, context, "mhz_per_cpu", json_integer(0));
    cm_put(status, context, "cpu_scaling_enabled", json_false());
    cm_put(status, context, "caches", json_array());
    cm_put(status, context, "load_avg", json_array());
    cm_put(status, context, "library_build_type", json_string("release"));
}

enum cm_status cm_export_google(const struct cm_side *side, struct cm_str *out)
{
    enum cm_status status = CM_OK;
    json_t *root = json_object();
    size_t index, which, inner;
    const json_t *entry, *item, *run;
    put_google_context(&status, root, cm_side_last(side));
    struct google google = {.rows = cm_put_array(&status, root, "benchmarks")};
    json_array_foreach(side->order, index, entry)
    {
        const json_t *items = json_object_get(side->cases, json_string_value(entry));
        google.family = index;
        google.repetitions = google.repetition = 0;
        json_array_foreach(items, which, item) google.repetitions +=
            json_array_size(json_object_get(item, "runs"));
        json_array_foreach(items, which, item)
        {
            json_array_foreach(json_object_get(item, "runs"), inner, run)
            {
                if (status == CM_OK)
                    status = put_google_run(&google, item, run);
            }
        }
    }
    if (status == CM_OK)
        status = cm_export_json(root, out);
    json_decref(root);
    return status;
}
