/* What surrounds a result, as keys and texts; which of it must match before figures are compared.
 */
#include "host/result/facts.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/record.h"

/* compare holds machines against each other, so the machine and its software are its subject; gate
 * holds a machine's class against itself, so there the machine must match and only the software,
 * which it watches, may change. */
const struct cm_fact_rule cm_fact_rules[] = {
    {"device", {CM_MUST_MATCH, CM_MUST_MATCH}, "another kind of device"},
    {"ranks", {CM_MUST_MATCH, CM_MUST_MATCH}, "another number of processes"},
    {"simulated", {CM_MUST_MATCH, CM_MUST_MATCH}, "times of shared devices mean nothing"},
    {"fresh_processes", {CM_MUST_MATCH, CM_MUST_MATCH}, "runs of one process are not independent"},
    {"tool.version", {CM_MUST_MATCH, CM_MUST_MATCH}, "another way of measuring"},
    {"tool.*", {CM_RECORD, CM_RECORD}, ""},
    {"params:*", {CM_MUST_MATCH, CM_MUST_MATCH}, "another work"},
    {"settings:*", {CM_MUST_MATCH, CM_MUST_MATCH}, "measured in another way"},
    {"unit:*", {CM_MUST_MATCH, CM_MUST_MATCH}, "another figure of that name"},
    {"injected", {CM_RECORD, CM_RECORD}, "slowed down on purpose"},
    {"size:*", {CM_SUBJECT, CM_MUST_MATCH}, "a size that suits the device"},
    {"environment.*", {CM_MUST_MATCH, CM_MUST_MATCH}, "steers the measured libraries"},
    {"machine.digest", {CM_SUBJECT, CM_MUST_MATCH}, "another machine"},
    {"machine:nodes", {CM_SUBJECT, CM_MUST_MATCH}, "spread over another number of nodes"},
    {"machine.host", {CM_RECORD, CM_RECORD}, ""},
    {"placement:instance_type", {CM_SUBJECT, CM_MUST_MATCH}, "another kind of instance"},
    {"devices.*", {CM_SUBJECT, CM_MUST_MATCH}, "other devices"},
    {"telemetry.*", {CM_SUBJECT, CM_MUST_MATCH}, "devices in another mode"},
    {"stack.kernel", {CM_SUBJECT, CM_RECORD}, ""},
    {"stack.*", {CM_SUBJECT, CM_SUBJECT}, "other software"},
    {"*", {CM_RECORD, CM_RECORD}, ""},
};

const struct cm_fact_rule *cm_fact_rule(const char *key)
{
    const struct cm_fact_rule *rule = cm_fact_rules;
    while (fnmatch(rule->key, key, 0) != 0)
        rule++;
    return rule;
}

/* A fact of a scalar; nothing for null and for what is missing. */
static void put_fact(enum cm_status *status, json_t *facts, const char *key, const json_t *value)
{
    char number[32];
    const char *text = json_string_value(value);
    if (json_is_integer(value))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(number, sizeof number, "%.6g", json_real_value(value));
    else if (json_is_boolean(value))
        snprintf(number, sizeof number, "%s", json_is_true(value) ? "yes" : "no");
    else if (text == NULL)
        return;
    cm_put(status, facts, key, json_string(text != NULL ? text : number));
}

/* Each field of an object: "<prefix><field>". */
static void put_fields(enum cm_status *status, json_t *facts, const char *prefix,
                       const json_t *object)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value)
    {
        char *key = cm_strf("%s%s", prefix, name);
        if (key == NULL)
            *status = CM_NO_MEMORY;
        else
            put_fact(status, facts, key, value);
        cm_free(key);
    }
}

/* Settings that do not change what a run is: how many there are, their limit, what was injected,
 * who watches it. */
static bool counts_as_setting(const char *name)
{
    static const char *const free_ones[] = {"runs", "seed",        "timeout", "inject",
                                            "gate", "gate_margin", "silence"};
    for (size_t i = 0; i < sizeof free_ones / sizeof *free_ones; i++) {
        if (strcmp(name, free_ones[i]) == 0)
            return false;
    }
    return true;
}

static void put_case(enum cm_status *status, json_t *facts, const json_t *item)
{
    const char *case_name = cm_get_text(item, "name"), *name;
    json_t *value, *counted = json_object();
    json_object_foreach(json_object_get(item, "settings"), name, value)
    {
        if (counts_as_setting(name))
            cm_put(status, counted, name, json_incref(value));
    }
    char *params = cm_strf("params:%s.", case_name), *settings = cm_strf("settings:%s.", case_name);
    char *size = cm_strf("size:%s", case_name);
    const json_t *chosen = json_object_get(json_object_get(item, "metrics"), "size");
    if (params == NULL || settings == NULL || size == NULL || counted == NULL) {
        *status = CM_NO_MEMORY;
    } else {
        put_fields(status, facts, params, json_object_get(item, "params"));
        put_fields(status, facts, settings, counted);
        put_fact(status, facts, size, json_object_get(chosen, "value"));
    }
    cm_free(size);
    cm_free(settings);
    cm_free(params);
    json_decref(counted);
}

/* "unit:gemm/time" -> "s, lower is better". */
static void put_units(enum cm_status *status, json_t *facts, const json_t *subject)
{
    const char *name;
    json_t *metric;
    json_object_foreach(json_object_get(subject, "metrics"), name, metric)
    {
        char *key = cm_strf("unit:%s/%s", cm_get_text(subject, "name"), name);
        char *text =
            cm_strf("%s, %s is better", cm_get_text(metric, "unit"), cm_get_text(metric, "better"));
        if (key == NULL || text == NULL)
            *status = CM_NO_MEMORY;
        else
            cm_put(status, facts, key, json_string(text));
        cm_free(text);
        cm_free(key);
    }
}

/* Kernels keep some MiB to themselves, each as many as it likes: memory is whole GiB here. */
static void put_device(const json_t *device, const char *field, char own[200])
{
    const json_t *value = json_object_get(device, field);
    if (json_is_integer(value))
        snprintf(own, 200, "%.0f GiB", (double)json_integer_value(value) / 0x1p30);
    else
        snprintf(own, 200, "%s", json_is_string(value) ? json_string_value(value) : "");
}

/* "8 x NVIDIA H100", or each kind in turn, in the order of the ranks. */
static void put_devices(enum cm_status *status, json_t *facts, const json_t *devices)
{
    static const char *const fields[] = {"name", "kind", "memory", "features"};
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
        char key[40], last[200] = "";
        struct cm_str text = CM_STR_INIT;
        size_t same = 0, all = json_array_size(devices);
        for (size_t i = 0; i <= all && i <= 100000; i++) {
            char own[200];
            put_device(json_array_get(devices, i), fields[f], own);
            if (i > 0 && (i == all || strcmp(own, last) != 0)) {
                cm_str_addf(&text, "%s%zu x %s", text.length > 0 ? ", " : "", same, last);
                same = 0;
            }
            memcpy(last, own, sizeof last);
            same += cm_device_count(json_array_get(devices, i));
        }
        snprintf(key, sizeof key, "devices.%s", fields[f]);
        if (text.length > 0 && cm_str_status(&text) == CM_OK)
            cm_put(status, facts, key, cm_result_string(cm_str_text(&text)));
        cm_str_release(&text);
    }
}

/* What the telemetry of the runs says of the devices' modes: the first that says it. */
static void put_telemetry(enum cm_status *status, json_t *facts, const json_t *run)
{
    static const char *const fields[] = {"power_limit", "modes", "pcie_generation", "pcie_width",
                                         "nvlinks_active"};
    size_t index;
    const json_t *rank;
    const json_t *folded = json_object_get(json_object_get(run, "folded"), "telemetry");
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
        char key[40];
        const json_t *field = json_object_get(folded, fields[f]);
        const json_t *value = json_is_array(field)
                                  ? json_object_get(json_array_get(field, 0), "text")
                                  : json_object_get(field, "median");
        snprintf(key, sizeof key, "telemetry.%s", fields[f]);
        if (value != NULL && json_object_get(facts, key) == NULL)
            put_fact(status, facts, key, value);
    }
    json_array_foreach(json_object_get(run, "telemetry"), index, rank)
    {
        for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
            char key[40];
            snprintf(key, sizeof key, "telemetry.%s", fields[f]);
            if (json_object_get(facts, key) == NULL)
                put_fact(status, facts, key, json_object_get(rank, fields[f]));
        }
    }
}

static void put_suite(enum cm_status *status, json_t *facts, const json_t *suite)
{
    put_fact(status, facts, "suite.name", json_object_get(suite, "name"));
    static const char *const fields[] = {"fresh_processes", "simulated", "injected"};
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
        put_fact(status, facts, fields[f], json_object_get(suite, fields[f]));
}

json_t *cm_facts(const json_t *result)
{
    enum cm_status status = CM_OK;
    json_t *facts = json_object();
    const json_t *machine = json_object_get(result, "machine"), *item, *run;
    size_t index, place;
    put_fact(&status, facts, "device", json_object_get(result, "device"));
    put_fact(&status, facts, "ranks", json_object_get(result, "ranks"));
    put_fact(&status, facts, "started", json_object_get(result, "started"));
    put_fact(&status, facts, "machine.digest", json_object_get(machine, "digest"));
    put_fact(&status, facts, "machine.host", json_object_get(machine, "host"));
    /* Known only to those who asked for it: with ':', what one side lacks is no difference. */
    put_fact(&status, facts, "machine:nodes",
             json_object_get(json_object_get(machine, "cluster"), "nodes"));
    put_fields(&status, facts,
               "placement:", json_object_get(json_object_get(result, "placement"), "cloud"));
    put_fields(&status, facts, "tool.", json_object_get(result, "tool"));
    put_fields(&status, facts, "stack.", json_object_get(result, "stack"));
    put_fields(&status, facts, "environment.", json_object_get(result, "environment"));
    put_suite(&status, facts, json_object_get(result, "suite"));
    put_devices(&status, facts, json_object_get(result, "devices"));
    json_array_foreach(json_object_get(result, "cases"), index, item)
    {
        put_case(&status, facts, item);
        put_units(&status, facts, item);
        json_array_foreach(json_object_get(item, "runs"), place, run)
            put_telemetry(&status, facts, run);
    }
    json_array_foreach(json_object_get(result, "sweeps"), index, item)
        put_units(&status, facts, item);
    if (status == CM_OK && facts != NULL)
        return facts;
    json_decref(facts);
    return NULL;
}
