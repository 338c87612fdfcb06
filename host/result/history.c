/* Series of figures over time: which results belong together, and where something changed. */
#include "host/result/history.h"

#include <fnmatch.h>
#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/hash.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/book.h"
#include "host/result/facts.h"
#include "host/result/report.h"

#define P_MAX      0.001
#define POINTS_MAX 4000 /* of a series: what the search for changes takes */

enum cm_status cm_machine_text(const json_t *result, struct cm_str *out)
{
    const json_t *machine = json_object_get(result, "machine");
    const json_t *devices = json_object_get(result, "devices");
    const char *digest = cm_get_text(machine, "digest");
    const char *last = "";
    size_t index, alike = 0;
    const json_t *device;
    cm_str_addf(out, "%s, %.0f ranks, machine %s", cm_get_text(result, "device"),
                cm_get_number(result, "ranks"), digest[0] != '\0' ? digest : "not known");
    json_array_foreach(devices, index, device)
    {
        const char *name = cm_get_text(device, "name");
        if (index > 0 && strcmp(name, last) != 0) {
            cm_str_addf(out, ", %zu x %s", alike, last);
            alike = 0;
        }
        last = name;
        alike += cm_device_count(device);
    }
    if (alike > 0)
        cm_str_addf(out, ", %zu x %s", alike, last);
    return cm_str_status(out);
}

/* A hash of the facts that must match in a gate, whose key begins with one of `prefixes`; of all
 * that are no case's with NULL. */
static uint64_t hash_facts(const json_t *facts, const char *const *prefixes)
{
    uint64_t hash = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)facts, key, value)
    {
        bool counts = prefixes == NULL && strchr(key, ':') == NULL;
        for (size_t i = 0; prefixes != NULL && prefixes[i] != NULL; i++)
            counts = counts || strncmp(key, prefixes[i], strlen(prefixes[i])) == 0;
        if (!counts || cm_fact_rule(key)->roles[CM_USE_GATE] != CM_MUST_MATCH)
            continue;
        uint64_t own = cm_hash(0, key, strlen(key) + 1);
        const char *text = json_string_value(value);
        hash ^= cm_hash(own, text, strlen(text)); /* in whatever order they come */
    }
    return hash;
}

/* The number of a result's machine among those seen before. */
static enum cm_status machine_of(const json_t *result, const json_t *facts, json_t *machines,
                                 json_int_t *number)
{
    struct cm_str text = CM_STR_INIT;
    char hash[CM_HASH_TEXT_MAX];
    enum cm_status status = cm_machine_text(result, &text);
    cm_str_addf(&text, ", surroundings %.8s", cm_hash_text(hash_facts(facts, NULL), hash));
    size_t count = json_array_size(machines);
    *number = (json_int_t)count;
    for (size_t i = 0; i < count && status == CM_OK; i++) {
        if (strcmp(json_string_value(json_array_get(machines, i)), cm_str_text(&text)) == 0)
            *number = (json_int_t)i;
    }
    if (status == CM_OK)
        status = cm_str_status(&text);
    if (status == CM_OK && *number == (json_int_t)count)
        status = cm_json_append(machines, json_string(cm_str_text(&text)));
    cm_str_release(&text);
    return status;
}

/* What a case measured and how: another one begins another stretch of its series. */
static enum cm_status setup_of(const json_t *item, char *setup)
{
    const char *name = cm_get_text(item, "name");
    json_t *one = json_pack("{s:[O]}", "cases", item), *facts = one != NULL ? cm_facts(one) : NULL;
    char *params = cm_strf("params:%s.", name), *settings = cm_strf("settings:%s.", name),
         *size = cm_strf("size:%s", name);
    const char *prefixes[] = {params, settings, size, NULL};
    enum cm_status status = CM_NO_MEMORY;
    if (facts != NULL && params != NULL && settings != NULL && size != NULL) {
        cm_hash_text(hash_facts(facts, prefixes), setup);
        status = CM_OK;
    }
    cm_free(params);
    cm_free(settings);
    cm_free(size);
    json_decref(facts);
    json_decref(one);
    return status;
}

static bool wanted(const struct cm_history_options *options, const json_t *item, const char *metric)
{
    if (options->case_pattern != NULL &&
        fnmatch(options->case_pattern, cm_get_text(item, "name"), 0) != 0)
        return false;
    if (options->metric_pattern != NULL)
        return fnmatch(options->metric_pattern, metric, 0) == 0;
    const char *headline = cm_headline_metric(item);
    return headline != NULL && strcmp(metric, headline) == 0;
}

/* The series of a case's metric in a unit; a changed unit or direction is another series. */
static json_t *series_of(enum cm_status *status, json_t *by_key, json_t *all, const json_t *item,
                         const char *metric, const json_t *figure)
{
    const char *unit = cm_get_text(figure, "unit"), *better = cm_get_text(figure, "better");
    struct cm_str key = CM_STR_INIT;
    cm_str_addf(&key, "%s\n%s\n%s\n%s", cm_get_text(item, "name"), metric, unit, better);
    if (*status == CM_OK)
        *status = cm_str_status(&key);
    json_t *series = json_object_get(by_key, cm_str_text(&key));
    if (series == NULL && *status == CM_OK) {
        series = json_object();
        cm_put(status, series, "case", json_incref(json_object_get(item, "name")));
        cm_put(status, series, "metric", json_string(metric));
        cm_put(status, series, "unit", json_string(unit));
        cm_put(status, series, "better", json_string(better));
        cm_put(status, series, "points", json_array());
        cm_put(status, series, "changes", json_array());
        cm_push(status, all, json_incref(series));
        cm_put(status, by_key, cm_str_text(&key), series);
        series = *status == CM_OK ? series : NULL;
    }
    cm_str_release(&key);
    return series;
}

/* Where a result stands in its history. */
struct place {
    size_t number;
    json_int_t machine;
};

static void add_point(enum cm_status *status, json_t *series, const json_t *result,
                      const struct place *place, const char *setup, double value)
{
    json_t *point = json_object();
    cm_put(status, point, "time", json_string(cm_get_text(result, "started")));
    cm_put(status, point, "value", cm_json_real(value));
    cm_put(status, point, "result", json_integer((json_int_t)place->number));
    cm_put(status, point, "machine", json_integer(place->machine));
    cm_put(status, point, "setup", json_string(setup));
    cm_push(status, json_object_get(series, "points"), point);
}

static enum cm_status add_result(const json_t *result, const struct place *place,
                                 const struct cm_history_options *options, json_t *by_key,
                                 json_t *all)
{
    enum cm_status status = CM_OK;
    size_t index;
    const json_t *item;
    const char *metric;
    json_t *figure;
    json_array_foreach(json_object_get(result, "cases"), index, item)
    {
        char setup[CM_HASH_TEXT_MAX] = "";
        json_object_foreach(json_object_get(item, "metrics"), metric, figure)
        {
            double value = cm_get_number(figure, "value");
            if (status != CM_OK || !isfinite(value) || !wanted(options, item, metric) ||
                strcmp(cm_get_text(figure, "better"), "neither") == 0)
                continue;
            if (setup[0] == '\0')
                status = setup_of(item, setup);
            json_t *series = series_of(&status, by_key, all, item, metric, figure);
            if (series != NULL)
                add_point(&status, series, result, place, setup, value);
        }
    }
    return status;
}

static enum cm_status put_change(json_t *series, size_t begin, const struct cm_change_point *found,
                                 bool logs)
{
    enum cm_status status = CM_OK;
    size_t index = begin + found->index;
    const json_t *point = json_array_get(json_object_get(series, "points"), index);
    double before = logs ? exp(found->before) : found->before;
    double after = logs ? exp(found->after) : found->after;
    bool lower = strcmp(cm_get_text(series, "better"), "lower") == 0;
    json_t *change = json_object();
    cm_put(&status, change, "index", json_integer((json_int_t)index));
    cm_put(&status, change, "time", json_string(cm_get_text(point, "time")));
    cm_put(&status, change, "before", cm_json_real(before));
    cm_put(&status, change, "after", cm_json_real(after));
    cm_put(&status, change, "change", cm_json_real(after / before - 1));
    cm_put(&status, change, "p", cm_json_real(found->p));
    cm_put(&status, change, "verdict", json_string((after < before) == lower ? "better" : "worse"));
    cm_push(&status, json_object_get(series, "changes"), change);
    return status;
}

/* Changes within the points [begin, end), which come from one machine. Of positive figures the
 * logarithms are looked at, so that the margin is relative. */
static enum cm_status find_changes(json_t *series, size_t begin, size_t end, double margin)
{
    size_t count = end - begin, found = 0;
    if (count > POINTS_MAX) {
        begin = end - POINTS_MAX;
        count = POINTS_MAX;
    }
    double *values = cm_alloc(count, sizeof *values);
    struct cm_change_point *points = cm_alloc(count, sizeof *points);
    enum cm_status status = values != NULL && points != NULL ? CM_OK : CM_NO_MEMORY;
    bool logs = true;
    for (size_t i = 0; i < count && status == CM_OK; i++) {
        values[i] =
            cm_get_number(json_array_get(json_object_get(series, "points"), begin + i), "value");
        logs = logs && values[i] > 0;
    }
    for (size_t i = 0; i < count && status == CM_OK && logs; i++)
        values[i] = log(values[i]);
    if (status == CM_OK)
        status = cm_divisive(values, count, P_MAX, logs ? log1p(margin) : margin, points, &found);
    for (size_t i = 0; i < found && status == CM_OK; i++)
        status = put_change(series, begin, &points[i], logs);
    cm_free(values);
    cm_free(points);
    return status;
}

bool cm_history_continues(const json_t *before, const json_t *after)
{
    return cm_get_number(before, "machine") == cm_get_number(after, "machine") &&
           strcmp(cm_get_text(before, "setup"), cm_get_text(after, "setup")) == 0;
}

/* Split where the machine changes, or what is measured. */
static enum cm_status finish_series(json_t *series, double margin)
{
    const json_t *points = json_object_get(series, "points");
    enum cm_status status = CM_OK;
    size_t begin = 0, count = json_array_size(points);
    for (size_t i = 1; i <= count && status == CM_OK; i++) {
        if (i < count &&
            cm_history_continues(json_array_get(points, begin), json_array_get(points, i)))
            continue;
        status = find_changes(series, begin, i, margin);
        begin = i;
    }
    return status;
}

/* What each result is: when, of which revision, on which machine. */
static void put_result(enum cm_status *status, json_t *rows, const json_t *result,
                       json_int_t machine)
{
    const char *revision = cm_get_text(json_object_get(result, "tool"), "revision");
    json_t *row = json_object();
    cm_put(status, row, "time", json_string(cm_get_text(result, "started")));
    cm_put(status, row, "revision", json_string(revision));
    cm_put(status, row, "machine", json_integer(machine));
    cm_push(status, rows, row);
}

static enum cm_status build(const json_t *results, const struct cm_history_options *options,
                            json_t *by_key, json_t *root)
{
    enum cm_status status = CM_OK;
    size_t index;
    const json_t *result;
    json_t *series;
    cm_put(&status, root, "schema", json_string("clustermark.history"));
    cm_put(&status, root, "version", json_string("1.0"));
    cm_put(&status, root, "margin", cm_json_real(options->margin));
    json_t *machines = cm_put_array(&status, root, "machines");
    json_t *rows = cm_put_array(&status, root, "results");
    json_t *all = cm_put_array(&status, root, "series");
    json_array_foreach(results, index, result)
    {
        struct place place = {.number = index};
        json_t *facts = status == CM_OK ? cm_facts(result) : NULL;
        if (status == CM_OK)
            status =
                facts != NULL ? machine_of(result, facts, machines, &place.machine) : CM_NO_MEMORY;
        json_decref(facts);
        if (status == CM_OK)
            put_result(&status, rows, result, place.machine);
        if (status == CM_OK)
            status = add_result(result, &place, options, by_key, all);
    }
    json_array_foreach(all, index, series)
    {
        if (status == CM_OK)
            status = finish_series(series, options->margin);
    }
    return status;
}

enum cm_status cm_history_build(const json_t *results, const struct cm_history_options *options,
                                json_t **history)
{
    json_t *root = json_object(), *by_key = json_object();
    enum cm_status status = root != NULL && by_key != NULL
                                ? build(results, options, by_key, root)
                                : cm_error(CM_NO_MEMORY, "out of memory for a history");
    json_decref(by_key);
    if (status == CM_OK)
        *history = root;
    else
        json_decref(root);
    return status;
}

enum cm_status cm_history_load(const char *const *paths, size_t count,
                               const struct cm_history_options *options, json_t **history)
{
    json_t *results = json_array();
    enum cm_status status =
        results != NULL ? CM_OK : cm_error(CM_NO_MEMORY, "out of memory for results");
    for (size_t i = 0; i < count && status == CM_OK; i++)
        status = cm_results_load(paths[i], results);
    if (status == CM_OK)
        status = cm_results_sort(results);
    if (status == CM_OK)
        status = cm_history_build(results, options, history);
    json_decref(results);
    return status;
}
