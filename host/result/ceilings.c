/*
 * What a figure is held against. Theoretical: what the workload computed from the device.
 * Attainable: what other cases of the same run reached. A ceiling always names its source.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/stats.h"
#include "host/result/record.h"

/* A product by a kernel of ours against the library's. */
#define PRODUCT(metric, library, ours)                                                             \
    {                                                                                              \
        "gemm", metric, NULL, "gemm", metric, "impl", library, 1, "the library in ", ours          \
    }

/* Figure `metric` of `workload` cannot be above `factor` times the best `from_metric` that a case
 * of `from_workload` (with parameter key = value, where given) reached. */
static const struct rule {
    const char *workload, *metric;
    const char *device; /* NULL: any */
    const char *from_workload, *from_metric, *from_key, *from_value;
    double factor;
    const char *text; /* before the name of the best case */
    const char *twin; /* the case has this value of from_key, and all other parameters alike */
} rules[] = {
    {"membw", "bandwidth", NULL, "membw", "bandwidth", NULL, NULL, 1,
     "the best bandwidth of this run, ", NULL},
    /* CPU ranks exchange messages through memory: each byte is read once and written once, which
     * the rate of a copy counts as two. */
    {"collective", "busbw", "cpu", "membw", "bandwidth_per_rank", "op", "copy", 0.5,
     "half of a rank's bandwidth in ", NULL},
    {"sendrecv", "bandwidth", "cpu", "membw", "bandwidth_per_rank", "op", "copy", 0.5,
     "half of a rank's bandwidth in ", NULL},
    PRODUCT("flop_rate", "library", "own"),
    PRODUCT("flop_rate", "library", "portable"),
    PRODUCT("flop_rate", "cublaslt", "own"),
    PRODUCT("flop_rate", "cublaslt", "portable"),
    PRODUCT("flop_rate_sustained", "library", "own"),
    PRODUCT("flop_rate_sustained", "library", "portable"),
    PRODUCT("flop_rate_sustained", "cublaslt", "own"),
    PRODUCT("flop_rate_sustained", "cublaslt", "portable"),
    {"hostlink", "bandwidth", NULL, "hostlink", "bandwidth", "memory", "pinned", 1,
     "near pinned memory in ", "far"},
    {"hostlink", "bandwidth", NULL, "hostlink", "bandwidth", "memory", "pinned", 1,
     "near pinned memory in ", "pageable"},
};

static bool is(const json_t *object, const char *key, const char *value)
{
    return value == NULL || strcmp(cm_get_text(object, key), value) == 0;
}

/* Figures of the caches are no measure of memory, and are not measured by it. */
static bool from_caches(const json_t *item)
{
    return json_is_false(json_object_get(json_object_get(item, "params"), "rotate"));
}

static bool case_is_ok(const json_t *item)
{
    return is(item, "status", cm_case_status_names[CM_CASE_OK]);
}

static double metric_value(const json_t *item, const char *name)
{
    return cm_get_number(json_object_get(json_object_get(item, "metrics"), name), "value");
}

/* Two cases that differ in one parameter alone. */
static bool are_twins(const json_t *item, const json_t *other, const char *key)
{
    const char *name;
    json_t *value;
    const json_t *params = json_object_get(item, "params");
    const json_t *others = json_object_get(other, "params");
    json_object_foreach((json_t *)params, name, value)
    {
        if (strcmp(name, key) != 0 && !json_equal(value, json_object_get(others, name)))
            return false;
    }
    return json_object_size(params) == json_object_size(others);
}

static const json_t *best_case(const json_t *cases, const json_t *of, const struct rule *rule)
{
    const json_t *best = NULL, *item;
    size_t index;
    json_array_foreach(cases, index, item)
    {
        if (!case_is_ok(item) || from_caches(item) || !is(item, "workload", rule->from_workload) ||
            (rule->from_key != NULL &&
             !is(json_object_get(item, "params"), rule->from_key, rule->from_value)) ||
            (rule->twin != NULL && rule->from_key != NULL && !are_twins(of, item, rule->from_key)))
            continue;
        double value = metric_value(item, rule->from_metric);
        if (value > 0 && (best == NULL || value > metric_value(best, rule->from_metric)))
            best = item;
    }
    return best;
}

/* The share of the ceiling that was reached: for a time, how much of it the ceiling explains. */
static void put_ceiling(enum cm_status *status, json_t *ceilings, const char *kind, double ceiling,
                        json_t *source, const json_t *metric)
{
    double value = cm_get_number(metric, "value");
    bool lower = strcmp(cm_get_text(metric, "better"), "lower") == 0;
    bool known = ceiling > 0;
    json_t *object = cm_put_object(status, ceilings, kind);
    cm_put(status, object, "value", known ? cm_json_real(ceiling) : json_null());
    cm_put(status, object, "fraction",
           known && value > 0 ? cm_json_real(lower ? ceiling / value : value / ceiling)
                              : json_null());
    cm_put(status, object, "source", source);
}

/* The median over the ok runs of what the workload gave, with the first source. */
static enum cm_status put_theoretical(json_t *ceilings, const json_t *item, const char *name,
                                      const json_t *metric)
{
    struct cm_samples values = {.values = NULL};
    const char *source = "";
    enum cm_status status = CM_OK;
    size_t index;
    const json_t *run;
    json_array_foreach(json_object_get(item, "runs"), index, run)
    {
        const json_t *of_run = json_object_get(json_object_get(run, "metrics"), name);
        double ceiling = cm_get_number(of_run, "ceiling");
        if (!case_is_ok(run) || status != CM_OK)
            continue;
        if (ceiling > 0)
            status = cm_samples_add(&values, ceiling);
        if (source[0] == '\0')
            source = cm_get_text(of_run, "ceiling_source");
    }
    if (values.count > 0 || source[0] != '\0')
        put_ceiling(&status, ceilings, "theoretical",
                    values.count > 0 ? cm_median(values.values, values.count) : 0,
                    json_string(source), metric);
    cm_samples_release(&values);
    return status;
}

static enum cm_status put_attainable(json_t *ceilings, const json_t *cases, const json_t *item,
                                     const char *name, const json_t *metric)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const struct rule *rule = &rules[i];
        if (!is(item, "workload", rule->workload) || strcmp(rule->metric, name) != 0 ||
            !is(item, "device", rule->device) || from_caches(item) ||
            (rule->twin != NULL &&
             !is(json_object_get(item, "params"), rule->from_key, rule->twin)))
            continue;
        const json_t *best = best_case(cases, item, rule);
        if (best != NULL)
            put_ceiling(&status, ceilings, "attainable",
                        rule->factor * metric_value(best, rule->from_metric),
                        json_sprintf("%s%s", rule->text, cm_get_text(best, "name")), metric);
    }
    return status;
}

static enum cm_status fill_case(const json_t *cases, json_t *item)
{
    enum cm_status status = CM_OK;
    const char *name;
    json_t *metric;
    json_t *all = cm_put_object(&status, item, "ceilings");
    json_object_foreach(json_object_get(item, "metrics"), name, metric)
    {
        if (status != CM_OK || strchr(name, '.') != NULL)
            continue;
        json_t *ceilings = cm_put_object(&status, all, name);
        if (status == CM_OK)
            status = put_theoretical(ceilings, item, name, metric);
        if (status == CM_OK)
            status = put_attainable(ceilings, cases, item, name, metric);
        if (status == CM_OK && json_object_size(ceilings) == 0)
            json_object_del(all, name);
    }
    return status;
}

enum cm_status cm_ceilings_fill(json_t *cases)
{
    enum cm_status status = CM_OK;
    size_t index;
    json_t *item;
    json_array_foreach(cases, index, item)
    {
        if (status == CM_OK)
            status = fill_case(cases, item);
    }
    return status;
}
