/* Reading result files, which may come from anyone: every field that is used is checked first. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/result.h"
#include "host/result/record.h"
#include "host/result/shape.h"

static const struct cm_shape_rule interval_rules[] = {
    {.key = "low", .shapes = CM_IS_NUMBER, .required = true},
    {.key = "high", .shapes = CM_IS_NUMBER, .required = true},
    {.key = "coverage", .shapes = CM_IS_NUMBER, .required = true},
    {.key = NULL},
};

static const struct cm_shape_rule metric_rules[] = {
    {.key = "value", .shapes = CM_IS_NUMBER | CM_IS_NOTHING, .required = true},
    {.key = "unit", .shapes = CM_IS_TEXT, .required = true},
    {.key = "better", .shapes = CM_IS_TEXT, .required = true},
    {.key = "runs", .shapes = CM_IS_WHOLE},
    {.key = "minimum", .shapes = CM_IS_NUMBER | CM_IS_NOTHING},
    {.key = "maximum", .shapes = CM_IS_NUMBER | CM_IS_NOTHING},
    {.key = "interval", .shapes = CM_IS_OBJECT | CM_IS_NOTHING, .inside = interval_rules},
    {.key = "values", .shapes = CM_IS_ARRAY, .each = true, .each_shapes = CM_IS_NUMBER},
    {.key = "ceiling", .shapes = CM_IS_NUMBER | CM_IS_NOTHING},
    {.key = "ceiling_source", .shapes = CM_IS_TEXT},
    {.key = NULL},
};

static const struct cm_shape_rule ceiling_rules[] = {
    {.key = "value", .shapes = CM_IS_NUMBER | CM_IS_NOTHING, .required = true},
    {.key = "fraction", .shapes = CM_IS_NUMBER | CM_IS_NOTHING},
    {.key = "source", .shapes = CM_IS_TEXT, .required = true},
    {.key = NULL},
};

static const struct cm_shape_rule ceilings_rules[] = {
    {.key = "theoretical", .shapes = CM_IS_OBJECT, .inside = ceiling_rules},
    {.key = "attainable", .shapes = CM_IS_OBJECT, .inside = ceiling_rules},
    {.key = NULL},
};

static const struct cm_shape_rule rank_rules[] = {
    {.key = "rank", .shapes = CM_IS_WHOLE, .required = true},
    {.key = "value", .shapes = CM_IS_NUMBER, .required = true},
    {.key = "bus_id", .shapes = CM_IS_TEXT},
    {.key = "uuid_hash", .shapes = CM_IS_TEXT},
    {.key = NULL},
};

static const struct cm_shape_rule spread_rules[] = {
    {.key = "worst", .shapes = CM_IS_OBJECT, .required = true, .inside = rank_rules},
    {.key = "median", .shapes = CM_IS_NUMBER, .required = true},
    {.key = "best", .shapes = CM_IS_OBJECT, .required = true, .inside = rank_rules},
    {.key = "ranks", .shapes = CM_IS_WHOLE},
    {.key = "p01", .shapes = CM_IS_NUMBER},
    {.key = "p25", .shapes = CM_IS_NUMBER},
    {.key = "p75", .shapes = CM_IS_NUMBER},
    {.key = "p99", .shapes = CM_IS_NUMBER},
    {.key = "outliers",
     .shapes = CM_IS_ARRAY,
     .each = true,
     .each_shapes = CM_IS_OBJECT,
     .inside = rank_rules},
    {.key = "outliers_total", .shapes = CM_IS_WHOLE},
    {.key = NULL},
};

static const struct cm_shape_rule telemetry_rules[] = {
    {.key = "clock", .shapes = CM_IS_NUMBER},
    {.key = "lowest_clock", .shapes = CM_IS_NUMBER},
    {.key = "power", .shapes = CM_IS_NUMBER},
    {.key = "temperature_c", .shapes = CM_IS_NUMBER},
    {.key = "ecc_uncorrected", .shapes = CM_IS_NUMBER},
    {.key = "throttled_fraction", .shapes = CM_IS_NUMBER},
    {.key = "throttle_reasons", .shapes = CM_IS_TEXT},
    {.key = NULL},
};

static const struct cm_shape_rule check_rules[] = {
    {.key = "checked", .shapes = CM_IS_WHOLE},
    {.key = "mismatches", .shapes = CM_IS_WHOLE},
    {.key = "worst", .shapes = CM_IS_NUMBER | CM_IS_NOTHING},
    {.key = "nothing", .shapes = CM_IS_TEXT},
    {.key = "detail", .shapes = CM_IS_TEXT},
    {.key = NULL},
};

static const struct cm_shape_rule folded_rules[] = {
    {.key = "ranks", .shapes = CM_IS_WHOLE},
    {.key = "telemetry",
     .shapes = CM_IS_OBJECT,
     .each = true,
     .each_shapes = CM_IS_OBJECT | CM_IS_ARRAY},
    {.key = NULL},
};

static const struct cm_shape_rule run_rules[] = {
    {.key = "run", .shapes = CM_IS_WHOLE, .required = true},
    {.key = "status", .shapes = CM_IS_TEXT, .required = true},
    {.key = "reason", .shapes = CM_IS_TEXT},
    {.key = "stop_reason", .shapes = CM_IS_TEXT},
    {.key = "samples_s",
     .shapes = CM_IS_ARRAY,
     .each = true,
     .each_shapes = CM_IS_NUMBER | CM_IS_NOTHING},
    {.key = "spread", .shapes = CM_IS_NUMBER | CM_IS_NOTHING},
    {.key = "metrics",
     .shapes = CM_IS_OBJECT,
     .each = true,
     .each_shapes = CM_IS_OBJECT,
     .inside = metric_rules},
    {.key = "check", .shapes = CM_IS_OBJECT, .inside = check_rules},
    {.key = "folded", .shapes = CM_IS_OBJECT, .inside = folded_rules},
    {.key = NULL},
};

static const struct cm_shape_rule case_rules[] = {
    {.key = "name", .shapes = CM_IS_TEXT, .required = true},
    {.key = "section", .shapes = CM_IS_TEXT},
    {.key = "workload", .shapes = CM_IS_TEXT, .required = true},
    {.key = "device", .shapes = CM_IS_TEXT},
    {.key = "ranks", .shapes = CM_IS_WHOLE},
    {.key = "params",
     .shapes = CM_IS_OBJECT,
     .required = true,
     .each = true,
     .each_shapes = CM_IS_TEXT | CM_IS_NUMBER | CM_IS_TRUTH | CM_IS_NOTHING},
    {.key = "status", .shapes = CM_IS_TEXT, .required = true},
    {.key = "reason", .shapes = CM_IS_TEXT},
    {.key = "spread", .shapes = CM_IS_NUMBER | CM_IS_NOTHING},
    {.key = "metrics",
     .shapes = CM_IS_OBJECT,
     .required = true,
     .each = true,
     .each_shapes = CM_IS_OBJECT,
     .inside = metric_rules},
    {.key = "ceilings",
     .shapes = CM_IS_OBJECT | CM_IS_NOTHING,
     .each = true,
     .each_shapes = CM_IS_OBJECT,
     .inside = ceilings_rules},
    {.key = "spread_ranks",
     .shapes = CM_IS_OBJECT | CM_IS_NOTHING,
     .each = true,
     .each_shapes = CM_IS_OBJECT,
     .inside = spread_rules},
    {.key = "telemetry", .shapes = CM_IS_OBJECT | CM_IS_NOTHING, .inside = telemetry_rules},
    {.key = "check", .shapes = CM_IS_OBJECT, .inside = check_rules},
    {.key = "runs",
     .shapes = CM_IS_ARRAY,
     .required = true,
     .each = true,
     .each_shapes = CM_IS_OBJECT,
     .inside = run_rules},
    {.key = NULL},
};

static const struct cm_shape_rule suspect_rules[] = {
    {.key = "case", .shapes = CM_IS_TEXT, .required = true},
    {.key = "host", .shapes = CM_IS_TEXT, .required = true},
    {.key = "ranks",
     .shapes = CM_IS_ARRAY,
     .required = true,
     .each = true,
     .each_shapes = CM_IS_WHOLE},
    {.key = "what", .shapes = CM_IS_TEXT, .required = true},
    {.key = "effect", .shapes = CM_IS_NUMBER, .required = true},
    {.key = "peer", .shapes = CM_IS_WHOLE},
    {.key = "peer_host", .shapes = CM_IS_TEXT},
    {.key = "partners", .shapes = CM_IS_TEXT},
    {.key = NULL},
};

static const struct cm_shape_rule sweep_rules[] = {
    {.key = "name", .shapes = CM_IS_TEXT, .required = true},
    {.key = "workload", .shapes = CM_IS_TEXT, .required = true},
    {.key = "key", .shapes = CM_IS_TEXT, .required = true},
    {.key = "unit", .shapes = CM_IS_TEXT, .required = true},
    {.key = "points",
     .shapes = CM_IS_ARRAY,
     .required = true,
     .each = true,
     .each_shapes = CM_IS_TEXT},
    {.key = "metrics",
     .shapes = CM_IS_OBJECT,
     .required = true,
     .each = true,
     .each_shapes = CM_IS_OBJECT,
     .inside = metric_rules},
    {.key = NULL},
};

static const struct cm_shape_rule tool_rules[] = {
    {.key = "name", .shapes = CM_IS_TEXT},
    {.key = "version", .shapes = CM_IS_TEXT},
    {.key = "revision", .shapes = CM_IS_TEXT | CM_IS_NOTHING},
    {.key = NULL},
};

static const struct cm_shape_rule suite_rules[] = {
    {.key = "name", .shapes = CM_IS_TEXT, .required = true},
    {.key = "text", .shapes = CM_IS_TEXT},
    {.key = "runs", .shapes = CM_IS_WHOLE},
    {.key = "seed", .shapes = CM_IS_WHOLE},
    {.key = NULL},
};

static const struct cm_shape_rule machine_rules[] = {
    {.key = "digest", .shapes = CM_IS_TEXT | CM_IS_NOTHING},
    {.key = "host", .shapes = CM_IS_TEXT},
    {.key = NULL},
};

static const struct cm_shape_rule device_rules[] = {
    {.key = "name", .shapes = CM_IS_TEXT},
    {.key = "units", .shapes = CM_IS_WHOLE},
    {.key = "memory", .shapes = CM_IS_WHOLE},
    {.key = "count", .shapes = CM_IS_WHOLE},
    {.key = NULL},
};

static const struct cm_shape_rule root_rules[] = {
    {.key = "schema", .shapes = CM_IS_TEXT, .required = true},
    {.key = "version", .shapes = CM_IS_TEXT, .required = true},
    {.key = "ending", .shapes = CM_IS_TEXT, .required = true},
    {.key = "started", .shapes = CM_IS_TEXT},
    {.key = "device", .shapes = CM_IS_TEXT, .required = true},
    {.key = "ranks", .shapes = CM_IS_WHOLE, .required = true},
    {.key = "tool", .shapes = CM_IS_OBJECT, .required = true, .inside = tool_rules},
    {.key = "machine", .shapes = CM_IS_OBJECT, .required = true, .inside = machine_rules},
    {.key = "stack",
     .shapes = CM_IS_OBJECT,
     .required = true,
     .each = true,
     .each_shapes = CM_IS_TEXT | CM_IS_NUMBER | CM_IS_NOTHING},
    {.key = "environment",
     .shapes = CM_IS_OBJECT,
     .required = true,
     .each = true,
     .each_shapes = CM_IS_TEXT},
    {.key = "suite", .shapes = CM_IS_OBJECT, .required = true, .inside = suite_rules},
    {.key = "devices",
     .shapes = CM_IS_ARRAY,
     .required = true,
     .each = true,
     .each_shapes = CM_IS_OBJECT,
     .inside = device_rules},
    {.key = "cases",
     .shapes = CM_IS_ARRAY,
     .required = true,
     .each = true,
     .each_shapes = CM_IS_OBJECT,
     .inside = case_rules},
    {.key = "sweeps",
     .shapes = CM_IS_ARRAY,
     .each = true,
     .each_shapes = CM_IS_OBJECT,
     .inside = sweep_rules},
    {.key = "suspects",
     .shapes = CM_IS_ARRAY,
     .each = true,
     .each_shapes = CM_IS_OBJECT,
     .inside = suspect_rules},
    {.key = NULL},
};

static enum cm_status check_version(const char *name, const json_t *value)
{
    const char *schema = cm_get_text(value, "schema");
    const char *version = cm_get_text(value, "version");
    if (strcmp(schema, CM_RESULT_SCHEMA) != 0)
        return cm_error(CM_USAGE, "%s: not a result file: schema is \"%.40s\"; it must be \"%s\"",
                        name, schema, CM_RESULT_SCHEMA);
    char *end = NULL;
    errno = 0;
    unsigned long major = strtoul(version, &end, 10);
    if (version[0] < '0' || version[0] > '9' || errno != 0 || *end != '.')
        return cm_error(CM_USAGE, "%s: version \"%.40s\" is not like \"%s\"", name, version,
                        CM_RESULT_VERSION);
    if (major != strtoul(CM_RESULT_VERSION, NULL, 10))
        return cm_error(CM_USAGE,
                        "%s: version %.40s cannot be read; this program reads %s and the "
                        "later ones with the same first number",
                        name, version, CM_RESULT_VERSION);
    return CM_OK;
}

static enum cm_status check_status(const char *name, const char *what, size_t index,
                                   const json_t *item)
{
    const char *status = cm_get_text(item, "status");
    for (size_t i = 0; i <= CM_CASE_SKIPPED; i++) {
        if (strcmp(cm_case_status_names[i], status) == 0)
            return CM_OK;
    }
    return cm_error(CM_USAGE,
                    "%s: not a result file: %s[%zu].status is \"%.40s\"; it must be ok, failed, "
                    "wrong or skipped",
                    name, what, index, status);
}

static enum cm_status check_statuses(const char *name, const json_t *cases)
{
    enum cm_status status = CM_OK;
    size_t index, run_index;
    const json_t *item, *run;
    json_array_foreach(cases, index, item)
    {
        if (status == CM_OK)
            status = check_status(name, "cases", index, item);
        json_array_foreach(json_object_get(item, "runs"), run_index, run)
        {
            if (status == CM_OK)
                status = check_status(name, "runs", run_index, run);
        }
    }
    return status;
}

/* Messages quote the file, which may hold anything. */
static void keep_one_line(enum cm_status status)
{
    char text[CM_ERROR_TEXT_MAX];
    snprintf(text, sizeof text, "%s", cm_error_text());
    for (char *letter = text; *letter != '\0'; letter++) {
        if ((unsigned char)*letter < 0x20 || *letter == 0x7f)
            *letter = '?';
    }
    cm_error(status, "%s", text);
}

enum cm_status cm_result_check(const json_t *value, const char *name)
{
    if (!json_is_object(value))
        return cm_error(CM_USAGE, "%s: not a result file: no object", name);
    enum cm_status status = check_version(name, value);
    if (status == CM_OK)
        status = cm_shape_check(name, root_rules, value);
    if (status == CM_OK)
        status = check_statuses(name, json_object_get(value, "cases"));
    if (status != CM_OK)
        keep_one_line(status);
    return status;
}

static enum cm_status checked(json_t *loaded, const char *name, json_t **value)
{
    enum cm_status status = cm_result_check(loaded, name);
    if (status != CM_OK) {
        json_decref(loaded);
        return status;
    }
    *value = loaded;
    return CM_OK;
}

enum cm_status cm_result_load(const char *path, json_t **value)
{
    json_t *loaded = NULL;
    enum cm_status status = cm_json_load(path, &loaded);
    return status == CM_OK ? checked(loaded, path, value) : status;
}

enum cm_status cm_result_load_short(const char *path, json_t **value)
{
    json_t *loaded = NULL;
    enum cm_status status = cm_json_load_edited(path, cm_samples_shorten, &loaded);
    return status == CM_OK ? checked(loaded, path, value) : status;
}

enum cm_status cm_result_parse(const char *text, size_t length, const char *name, json_t **value)
{
    json_t *loaded = NULL;
    enum cm_status status = cm_json_parse(text, length, name, &loaded);
    return status == CM_OK ? checked(loaded, name, value) : status;
}
