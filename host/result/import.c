/* Results of other programs as results of ours: which program it was, and what all share. */
#include "host/result/import.h"

#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/publish.h"

static json_t *run_of(const json_t *item)
{
    return json_array_get(json_object_get(item, "runs"), 0);
}

json_t *cm_import_case(enum cm_status *status, json_t *result, const char *name,
                       const char *workload, json_t *params)
{
    json_t *item = json_object();
    cm_put(status, item, "name", json_string(name));
    cm_put(status, item, "workload", json_string(workload));
    cm_put(status, item, "device", json_string("cuda"));
    cm_put(status, item, "ranks", json_incref(json_object_get(result, "ranks")));
    cm_put(status, item, "params", params);
    static const char *const later[] = {"status", "reason", "spread", "metrics", "check"};
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++)
        cm_put(status, item, later[i], json_null());
    json_t *runs = cm_put_array(status, item, "runs");
    json_t *run = json_object();
    cm_put(status, run, "run", json_integer(0));
    cm_put(status, run, "status", json_string("ok"));
    cm_put(status, run, "reason", json_string(""));
    cm_put(status, run, "samples_s", json_array());
    cm_put(status, run, "metrics", json_object());
    cm_put(status, run, "check", json_object());
    cm_push(status, runs, run);
    json_t *cases = json_object_get(result, "cases");
    cm_push(status, cases, item);
    return *status == CM_OK ? item : NULL;
}

void cm_import_outcome(enum cm_status *status, json_t *item, const char *word, const char *reason)
{
    json_t *run = run_of(item);
    cm_put(status, run, "status", json_string(word));
    cm_put(status, run, "reason", cm_result_string(reason));
}

void cm_import_metric(enum cm_status *status, json_t *item, const char *name, double value,
                      const char *unit, bool lower)
{
    json_t *metrics = json_object_get(run_of(item), "metrics");
    if (!isfinite(value) || *status != CM_OK)
        return;
    json_t *metric = cm_put_object(status, metrics, name);
    cm_put(status, metric, "value", cm_json_real(value));
    cm_put(status, metric, "unit", json_string(unit));
    cm_put(status, metric, "better", json_string(lower ? "lower" : "higher"));
}

/* Whether a case of ours measured what a foreign one did: every parameter of the foreign one is
 * there and equal. */
static bool measures_same(const json_t *own, const json_t *foreign)
{
    const json_t *params = json_object_get(own, "params");
    const char *key;
    json_t *value;
    if (strcmp(cm_get_text(own, "workload"), cm_get_text(foreign, "workload")) != 0)
        return false;
    json_object_foreach(json_object_get(foreign, "params"), key, value)
    {
        if (!json_equal(json_object_get(params, key), value))
            return false;
    }
    return json_object_size(json_object_get(foreign, "params")) > 0;
}

/* The first of ours that fits gives its name; each name is given once. */
static void take_names(enum cm_status *status, const json_t *like, json_t *result)
{
    json_t *given = json_object();
    size_t index, inner;
    json_t *item;
    const json_t *own;
    json_array_foreach(json_object_get(result, "cases"), index, item)
    {
        json_array_foreach(json_object_get(like, "cases"), inner, own)
        {
            const char *name = cm_get_text(own, "name");
            if (*status != CM_OK || json_object_get(given, name) != NULL ||
                !measures_same(own, item))
                continue;
            cm_put(status, given, name, json_true());
            cm_put(status, item, "name", json_string(name));
            break;
        }
    }
    json_decref(given);
}

static void put_empty(enum cm_status *status, json_t *result, const char *name)
{
    cm_put(status, result, "schema", json_string(CM_RESULT_SCHEMA));
    cm_put(status, result, "version", json_string(CM_RESULT_VERSION));
    cm_put(status, result, "ending", json_string("complete"));
    cm_put(status, result, "device", json_string("cuda"));
    cm_put(status, result, "ranks", json_integer(0));
    cm_put(status, result, "tool", json_object());
    json_t *machine = cm_put_object(status, result, "machine");
    cm_put(status, machine, "digest", json_null());
    cm_put(status, result, "stack", json_object());
    cm_put(status, result, "environment", json_object());
    json_t *suite = cm_put_object(status, result, "suite");
    cm_put(status, suite, "name", json_string("imported"));
    cm_put(status, suite, "imported_from", cm_result_string(name));
    cm_put(status, suite, "runs", json_integer(1));
    cm_put(status, result, "devices", json_array());
    cm_put(status, result, "cases", json_array());
    cm_put(status, result, "sweeps", json_array());
}

static enum cm_status fill(const json_t *root, const char *name, const json_t *like, json_t *result)
{
    enum cm_status status = CM_OK;
    size_t index;
    json_t *item;
    put_empty(&status, result, name);
    if (status != CM_OK)
        return status;
    if (json_is_object(json_object_get(root, "nvbandwidth")))
        status = cm_import_nvbandwidth(root, name, result);
    else if (json_is_array(json_object_get(root, "results")) &&
             json_is_object(json_object_get(root, "config")))
        status = cm_import_nccl(root, name, result);
    else
        return cm_error(
            CM_USAGE,
            "%s: neither JSON of nccl-tests (-J) nor of nvbandwidth (-j): no \"results\" "
            "with \"config\", no \"nvbandwidth\"",
            name);
    if (status == CM_OK && json_array_size(json_object_get(result, "cases")) == 0)
        status = cm_error(CM_USAGE, "%s: no measurement in it", name);
    if (status == CM_OK && like != NULL)
        take_names(&status, like, result);
    json_array_foreach(json_object_get(result, "cases"), index, item)
    {
        if (status == CM_OK)
            status = cm_case_summarise(item);
    }
    return status == CM_OK ? cm_result_check(result, name) : status;
}

static enum cm_status convert(const json_t *root, const char *name, const json_t *like,
                              json_t **result)
{
    json_t *made = json_object();
    enum cm_status status =
        made != NULL ? fill(root, name, like, made) : cm_error(CM_NO_MEMORY, "out of memory");
    if (status == CM_OK)
        *result = made;
    else
        json_decref(made);
    return status;
}

enum cm_status cm_import(const char *path, const json_t *like, json_t **result)
{
    json_t *root = NULL;
    enum cm_status status = cm_json_load(path, &root);
    if (status == CM_OK)
        status = convert(root, path, like, result);
    json_decref(root);
    return status;
}

enum cm_status cm_import_text(const char *text, size_t length, const char *name, const json_t *like,
                              json_t **result)
{
    json_t *root = NULL;
    enum cm_status status = cm_json_parse(text, length, name, &root);
    if (status == CM_OK)
        status = convert(root, name, like, result);
    json_decref(root);
    return status;
}
