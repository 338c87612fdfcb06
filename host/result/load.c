/* Reading result files, which may come from anyone: every field that is used is checked first. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/result.h"
#include "host/result/record.h"

enum shape { TEXT = 1, NUMBER = 2, WHOLE = 4, OBJECT = 8, ARRAY = 16, NOTHING = 32, TRUTH = 64 };

/* What a field must be, and what is checked inside it: a table for an object, for each element of
 * an array (`each`), or for each value of an object whose keys are free (`each` too). */
struct rule {
    const char *key;
    unsigned shapes;
    bool required;
    const struct rule *inside;
    bool each;
    unsigned each_shapes;
};

/* Cases, runs, sweeps, points: twice the largest plan. */
#define ROWS_MAX 200000

struct checker {
    const char *name;
    char where[240]; /* "cases[3].runs[0].status" */
};

static const struct rule interval_rules[] = {
    {.key = "low", .shapes = NUMBER, .required = true},
    {.key = "high", .shapes = NUMBER, .required = true},
    {.key = "coverage", .shapes = NUMBER, .required = true},
    {.key = NULL},
};

static const struct rule metric_rules[] = {
    {.key = "value", .shapes = NUMBER | NOTHING, .required = true},
    {.key = "unit", .shapes = TEXT, .required = true},
    {.key = "better", .shapes = TEXT, .required = true},
    {.key = "runs", .shapes = WHOLE},
    {.key = "minimum", .shapes = NUMBER | NOTHING},
    {.key = "maximum", .shapes = NUMBER | NOTHING},
    {.key = "interval", .shapes = OBJECT | NOTHING, .inside = interval_rules},
    {.key = "values", .shapes = ARRAY, .each = true, .each_shapes = NUMBER},
    {.key = "ceiling", .shapes = NUMBER | NOTHING},
    {.key = "ceiling_source", .shapes = TEXT},
    {.key = NULL},
};

static const struct rule ceiling_rules[] = {
    {.key = "value", .shapes = NUMBER | NOTHING, .required = true},
    {.key = "fraction", .shapes = NUMBER | NOTHING},
    {.key = "source", .shapes = TEXT, .required = true},
    {.key = NULL},
};

static const struct rule ceilings_rules[] = {
    {.key = "theoretical", .shapes = OBJECT, .inside = ceiling_rules},
    {.key = "attainable", .shapes = OBJECT, .inside = ceiling_rules},
    {.key = NULL},
};

static const struct rule rank_rules[] = {
    {.key = "rank", .shapes = WHOLE, .required = true},
    {.key = "value", .shapes = NUMBER, .required = true},
    {.key = "bus_id", .shapes = TEXT},
    {.key = "uuid_hash", .shapes = TEXT},
    {.key = NULL},
};

static const struct rule spread_rules[] = {
    {.key = "worst", .shapes = OBJECT, .required = true, .inside = rank_rules},
    {.key = "median", .shapes = NUMBER, .required = true},
    {.key = "best", .shapes = OBJECT, .required = true, .inside = rank_rules},
    {.key = "ranks", .shapes = WHOLE},
    {.key = "p01", .shapes = NUMBER},
    {.key = "p25", .shapes = NUMBER},
    {.key = "p75", .shapes = NUMBER},
    {.key = "p99", .shapes = NUMBER},
    {.key = "outliers", .shapes = ARRAY, .each = true, .each_shapes = OBJECT, .inside = rank_rules},
    {.key = "outliers_total", .shapes = WHOLE},
    {.key = NULL},
};

static const struct rule telemetry_rules[] = {
    {.key = "clock", .shapes = NUMBER},           {.key = "lowest_clock", .shapes = NUMBER},
    {.key = "power", .shapes = NUMBER},           {.key = "temperature_c", .shapes = NUMBER},
    {.key = "ecc_uncorrected", .shapes = NUMBER}, {.key = "throttled_fraction", .shapes = NUMBER},
    {.key = "throttle_reasons", .shapes = TEXT},  {.key = NULL},
};

static const struct rule check_rules[] = {
    {.key = "checked", .shapes = WHOLE},
    {.key = "mismatches", .shapes = WHOLE},
    {.key = "worst", .shapes = NUMBER | NOTHING},
    {.key = "nothing", .shapes = TEXT},
    {.key = "detail", .shapes = TEXT},
    {.key = NULL},
};

static const struct rule folded_rules[] = {
    {.key = "ranks", .shapes = WHOLE},
    {.key = "telemetry", .shapes = OBJECT, .each = true, .each_shapes = OBJECT | ARRAY},
    {.key = NULL},
};

static const struct rule run_rules[] = {
    {.key = "run", .shapes = WHOLE, .required = true},
    {.key = "status", .shapes = TEXT, .required = true},
    {.key = "reason", .shapes = TEXT},
    {.key = "stop_reason", .shapes = TEXT},
    {.key = "samples_s", .shapes = ARRAY, .each = true, .each_shapes = NUMBER | NOTHING},
    {.key = "spread", .shapes = NUMBER | NOTHING},
    {.key = "metrics",
     .shapes = OBJECT,
     .each = true,
     .each_shapes = OBJECT,
     .inside = metric_rules},
    {.key = "check", .shapes = OBJECT, .inside = check_rules},
    {.key = "folded", .shapes = OBJECT, .inside = folded_rules},
    {.key = NULL},
};

static const struct rule case_rules[] = {
    {.key = "name", .shapes = TEXT, .required = true},
    {.key = "section", .shapes = TEXT},
    {.key = "workload", .shapes = TEXT, .required = true},
    {.key = "device", .shapes = TEXT},
    {.key = "ranks", .shapes = WHOLE},
    {.key = "params",
     .shapes = OBJECT,
     .required = true,
     .each = true,
     .each_shapes = TEXT | NUMBER | TRUTH | NOTHING},
    {.key = "status", .shapes = TEXT, .required = true},
    {.key = "reason", .shapes = TEXT},
    {.key = "spread", .shapes = NUMBER | NOTHING},
    {.key = "metrics",
     .shapes = OBJECT,
     .required = true,
     .each = true,
     .each_shapes = OBJECT,
     .inside = metric_rules},
    {.key = "ceilings",
     .shapes = OBJECT | NOTHING,
     .each = true,
     .each_shapes = OBJECT,
     .inside = ceilings_rules},
    {.key = "spread_ranks",
     .shapes = OBJECT | NOTHING,
     .each = true,
     .each_shapes = OBJECT,
     .inside = spread_rules},
    {.key = "telemetry", .shapes = OBJECT | NOTHING, .inside = telemetry_rules},
    {.key = "check", .shapes = OBJECT, .inside = check_rules},
    {.key = "runs",
     .shapes = ARRAY,
     .required = true,
     .each = true,
     .each_shapes = OBJECT,
     .inside = run_rules},
    {.key = NULL},
};

static const struct rule suspect_rules[] = {
    {.key = "case", .shapes = TEXT, .required = true},
    {.key = "host", .shapes = TEXT, .required = true},
    {.key = "ranks", .shapes = ARRAY, .required = true, .each = true, .each_shapes = WHOLE},
    {.key = "what", .shapes = TEXT, .required = true},
    {.key = "effect", .shapes = NUMBER, .required = true},
    {.key = "peer", .shapes = WHOLE},
    {.key = "peer_host", .shapes = TEXT},
    {.key = "partners", .shapes = TEXT},
    {.key = NULL},
};

static const struct rule sweep_rules[] = {
    {.key = "name", .shapes = TEXT, .required = true},
    {.key = "workload", .shapes = TEXT, .required = true},
    {.key = "key", .shapes = TEXT, .required = true},
    {.key = "unit", .shapes = TEXT, .required = true},
    {.key = "points", .shapes = ARRAY, .required = true, .each = true, .each_shapes = TEXT},
    {.key = "metrics",
     .shapes = OBJECT,
     .required = true,
     .each = true,
     .each_shapes = OBJECT,
     .inside = metric_rules},
    {.key = NULL},
};

static const struct rule tool_rules[] = {
    {.key = "name", .shapes = TEXT},
    {.key = "version", .shapes = TEXT},
    {.key = "revision", .shapes = TEXT | NOTHING},
    {.key = NULL},
};

static const struct rule suite_rules[] = {
    {.key = "name", .shapes = TEXT, .required = true},
    {.key = "text", .shapes = TEXT},
    {.key = "runs", .shapes = WHOLE},
    {.key = "seed", .shapes = WHOLE},
    {.key = NULL},
};

static const struct rule machine_rules[] = {
    {.key = "digest", .shapes = TEXT | NOTHING},
    {.key = "host", .shapes = TEXT},
    {.key = NULL},
};

static const struct rule device_rules[] = {
    {.key = "name", .shapes = TEXT},
    {.key = "units", .shapes = WHOLE},
    {.key = "memory", .shapes = WHOLE},
    {.key = "count", .shapes = WHOLE},
    {.key = NULL},
};

static const struct rule root_rules[] = {
    {.key = "schema", .shapes = TEXT, .required = true},
    {.key = "version", .shapes = TEXT, .required = true},
    {.key = "ending", .shapes = TEXT, .required = true},
    {.key = "started", .shapes = TEXT},
    {.key = "device", .shapes = TEXT, .required = true},
    {.key = "ranks", .shapes = WHOLE, .required = true},
    {.key = "tool", .shapes = OBJECT, .required = true, .inside = tool_rules},
    {.key = "machine", .shapes = OBJECT, .required = true, .inside = machine_rules},
    {.key = "stack",
     .shapes = OBJECT,
     .required = true,
     .each = true,
     .each_shapes = TEXT | NUMBER | NOTHING},
    {.key = "environment", .shapes = OBJECT, .required = true, .each = true, .each_shapes = TEXT},
    {.key = "suite", .shapes = OBJECT, .required = true, .inside = suite_rules},
    {.key = "devices",
     .shapes = ARRAY,
     .required = true,
     .each = true,
     .each_shapes = OBJECT,
     .inside = device_rules},
    {.key = "cases",
     .shapes = ARRAY,
     .required = true,
     .each = true,
     .each_shapes = OBJECT,
     .inside = case_rules},
    {.key = "sweeps", .shapes = ARRAY, .each = true, .each_shapes = OBJECT, .inside = sweep_rules},
    {.key = "suspects",
     .shapes = ARRAY,
     .each = true,
     .each_shapes = OBJECT,
     .inside = suspect_rules},
    {.key = NULL},
};

static unsigned shape_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        return TEXT;
    case JSON_INTEGER:
        return WHOLE;
    case JSON_REAL:
        return NUMBER;
    case JSON_OBJECT:
        return OBJECT;
    case JSON_ARRAY:
        return ARRAY;
    case JSON_NULL:
        return NOTHING;
    case JSON_TRUE:
    case JSON_FALSE:
        return TRUTH;
    }
    return 0;
}

static const char *shape_name(unsigned shapes)
{
    static const struct {
        unsigned shape;
        const char *name;
    } names[] = {{TEXT, "a text"},     {OBJECT, "an object"},     {ARRAY, "an array"},
                 {NUMBER, "a number"}, {WHOLE, "a whole number"}, {TRUTH, "true or false"},
                 {NOTHING, "null"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (shapes & names[i].shape)
            return names[i].name;
    }
    return "something else";
}

/* Extends `where` for the time of a call; the caller cuts it again. */
static size_t enter(struct checker *checker, const char *key, size_t index)
{
    size_t before = strlen(checker->where);
    if (key != NULL)
        snprintf(checker->where + before, sizeof checker->where - before, "%s%.60s",
                 before > 0 ? "." : "", key);
    else
        snprintf(checker->where + before, sizeof checker->where - before, "[%zu]", index);
    return before;
}

static enum cm_status check_shape(const struct checker *checker, const json_t *value,
                                  unsigned shapes)
{
    unsigned shape = shape_of(value);
    if (shape & shapes || (shape == WHOLE && shapes & NUMBER))
        return CM_OK;
    return cm_error(CM_USAGE, "%s: not a result file: %s is %s; it must be %s", checker->name,
                    checker->where, shape_name(shape), shape_name(shapes));
}

/* The rules are a tree of constants, five levels deep, and the recursion follows them, not the
 * file. */
/* NOLINTBEGIN(misc-no-recursion) */
static enum cm_status check_object(struct checker *checker, const struct rule *rules,
                                   const json_t *object);

static enum cm_status check_value(struct checker *checker, const struct rule *rule,
                                  const json_t *value)
{
    enum cm_status status = check_shape(checker, value, rule->each_shapes);
    if (status == CM_OK && rule->inside != NULL && json_is_object(value))
        status = check_object(checker, rule->inside, value);
    return status;
}

static enum cm_status check_each(struct checker *checker, const struct rule *rule,
                                 const json_t *value)
{
    enum cm_status status = CM_OK;
    size_t index, before;
    const char *key;
    json_t *element;
    if (!(rule->each_shapes & NUMBER) && json_array_size(value) > ROWS_MAX)
        return cm_error(CM_USAGE, "%s: not a result file: %s has over %d rows", checker->name,
                        checker->where, ROWS_MAX);
    json_array_foreach(value, index, element)
    {
        /* Samples are many, and nothing is inside them: no path until one is wrong. */
        if (rule->inside == NULL && shape_of(element) & rule->each_shapes)
            continue;
        before = enter(checker, NULL, index);
        status = check_value(checker, rule, element);
        checker->where[before] = '\0';
        if (status != CM_OK)
            return status;
    }
    json_object_foreach((json_t *)value, key, element)
    {
        if (rule->inside == NULL && shape_of(element) & rule->each_shapes)
            continue;
        before = enter(checker, key, 0);
        status = check_value(checker, rule, element);
        checker->where[before] = '\0';
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

static enum cm_status check_field(struct checker *checker, const struct rule *rule,
                                  const json_t *object)
{
    const json_t *value = json_object_get(object, rule->key);
    if (value == NULL && !rule->required)
        return CM_OK;
    size_t before = enter(checker, rule->key, 0);
    enum cm_status status = value == NULL
                                ? cm_error(CM_USAGE, "%s: not a result file: %s is missing",
                                           checker->name, checker->where)
                                : check_shape(checker, value, rule->shapes);
    if (status == CM_OK && rule->each)
        status = check_each(checker, rule, value);
    else if (status == CM_OK && rule->inside != NULL && json_is_object(value))
        status = check_object(checker, rule->inside, value);
    checker->where[before] = '\0';
    return status;
}

static enum cm_status check_object(struct checker *checker, const struct rule *rules,
                                   const json_t *object)
{
    for (; rules->key != NULL; rules++) {
        enum cm_status status = check_field(checker, rules, object);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

/* NOLINTEND(misc-no-recursion) */

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
    struct checker checker = {.name = name};
    enum cm_status status = check_version(name, value);
    if (status == CM_OK)
        status = check_object(&checker, root_rules, value);
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
