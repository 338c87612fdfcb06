/* clustermark list: workloads, devices, suites, models and clusters, for people or as JSON. */
#include <string.h>

#include "clustermark/comm.h"
#include "clustermark/device.h"
#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "clustermark/workload.h"
#include "host/cli/args.h"
#include "host/cli/cli.h"
#include "host/cli/suites.h"

struct list_args {
    bool json, verbose;
};

static const struct cm_arg list_table[] = {
    {.kind = CM_ARG_FLAG,
     .option = {.name = "json", .offset = offsetof(struct list_args, json), .help = "as JSON"}},
    {.kind = CM_ARG_FLAG,
     .letter = 'v',
     .option = {.name = "verbose",
                .offset = offsetof(struct list_args, verbose),
                .help = "workloads with their options"}},
    {.option = {.name = NULL}},
};

static const struct cm_arg_spec list_spec = {
    .command = "list",
    .operands = "[workloads|devices|suites|models|clusters]",
    .summary =
        "What this build can measure, on what, and which suites, models and clusters there are.",
    .table = list_table,
    .max_operands = 1,
};

static const char *const option_types[] = {
    [CM_OPTION_BOOL] = "bool", [CM_OPTION_COUNT] = "count", [CM_OPTION_SIZE] = "size",
    [CM_OPTION_TIME] = "time", [CM_OPTION_REAL] = "real",   [CM_OPTION_CHOICE] = "choice",
    [CM_OPTION_TEXT] = "text",
};

/* Each list is made once, as JSON; the text is a view of it. */
static enum cm_status option_json(const struct cm_option *option, json_t *array)
{
    json_t *row =
        json_pack("{s:s, s:s, s:s, s:s}", "name", option->name, "type", option_types[option->type],
                  "default", option->fallback, "help", option->help);
    if (row != NULL && option->type == CM_OPTION_CHOICE) {
        json_t *choices = json_array();
        enum cm_status status = cm_json_set(row, "choices", choices);
        for (size_t i = 0; status == CM_OK && option->choices[i] != NULL; i++)
            status = cm_json_append(choices, json_string(option->choices[i]));
        if (status != CM_OK) {
            json_decref(row);
            return status;
        }
    }
    return cm_json_append(array, row);
}

static enum cm_status workloads_json(json_t *array)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && cm_workloads[i] != NULL; i++) {
        const struct cm_workload *workload = cm_workloads[i];
        json_t *options = json_array();
        status = cm_json_append(array, json_pack("{s:s, s:s, s:b, s:O}", "name", workload->name,
                                                 "summary", workload->summary, "needs_peers",
                                                 (workload->needs & CM_NEEDS_PEERS) != 0, "options",
                                                 options));
        for (const struct cm_option *row = workload->options; status == CM_OK && row->name != NULL;
             row++)
            status = option_json(row, options);
        json_decref(options);
    }
    return status;
}

static enum cm_status devices_json(json_t *array)
{
    enum cm_status status = CM_OK;
    for (const struct cm_device_row *row = cm_device_rows; status == CM_OK && row->name != NULL;
         row++) {
        const struct cm_device_ops *ops = cm_device_find(row->name);
        struct cm_device_probe probe = {.count = 0};
        if (ops == NULL)
            snprintf(probe.reason, sizeof probe.reason, "%s", cm_device_missing(row->name));
        else if (cm_device_ask(ops, &probe) != CM_OK)
            snprintf(probe.reason, sizeof probe.reason, "%s", cm_error_text());
        status = cm_json_append(
            array, json_pack("{s:s, s:s, s:b, s:b, s:i, s:s}", "name", row->name, "summary",
                             ops != NULL ? ops->summary : "", "built", ops != NULL, "usable",
                             probe.count > 0, "count", (int)probe.count, "reason", probe.reason));
    }
    if (status == CM_OK)
        status = cm_json_append(
            array, json_pack("{s:s, s:s, s:b, s:b, s:i, s:s}", "name", cm_device_sim.name,
                             "summary", cm_device_sim.summary, "built", true, "usable", true,
                             "count", 0, "reason", cm_device_sim.summary));
    return status;
}

static enum cm_status comms_json(json_t *array)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && cm_comm_names[i] != NULL; i++) {
        char reason[160];
        const struct cm_comm_ops *ops = cm_comm_find(cm_comm_names[i]);
        bool usable = ops != NULL && ops->available(reason, sizeof reason);
        status = cm_json_append(
            array,
            json_pack("{s:s, s:s, s:b, s:b, s:s}", "name", cm_comm_names[i], "summary",
                      ops != NULL ? ops->summary : "", "built", ops != NULL, "usable", usable,
                      "reason", ops != NULL ? reason : cm_comm_missing(cm_comm_names[i])));
    }
    return status;
}

static enum cm_status lists_json(const char *what, json_t *root)
{
    static const struct {
        const char *what, *key;
        enum cm_status (*fill)(json_t *array);
    } lists[] = {
        {"workloads", "workloads", workloads_json}, {"devices", "devices", devices_json},
        {"devices", "communicators", comms_json},   {"suites", "suites", cm_suites_json},
        {"models", "models", cm_models_json},       {"clusters", "clusters", cm_clusters_json},
    };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        if (what != NULL && strcmp(what, lists[i].what) != 0)
            continue;
        json_t *array = json_array();
        enum cm_status status = cm_json_set(root, lists[i].key, array);
        if (status == CM_OK)
            status = lists[i].fill(array);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

static const char *text_of(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text != NULL ? text : "";
}

static void workload_options(const json_t *row, struct cm_str *out)
{
    const struct cm_workload *workload = cm_workload_find(text_of(row, "name"));
    if (workload != NULL)
        cm_option_help(workload->options, out);
    cm_str_add(out, "\n");
}

static void list_text(const char *key, const json_t *rows, bool verbose, struct cm_str *out)
{
    size_t index;
    const json_t *row;
    cm_str_addf(out, "%s%s\n", out->length > 0 ? "\n" : "", key);
    if (json_array_size(rows) == 0)
        cm_str_add(out, "  none\n");
    json_array_foreach(rows, index, row)
    {
        const json_t *usable = json_object_get(row, "usable");
        const char *reason = text_of(row, "reason");
        cm_str_addf(out, "  %-15s ", text_of(row, "name"));
        if (usable != NULL)
            cm_str_addf(out, "%-4s", json_is_true(usable) ? "yes" : "no");
        cm_str_addf(out, "%s%s%s\n", reason[0] != '\0' ? reason : text_of(row, "summary"),
                    text_of(row, "path")[0] != '\0' ? "  " : "", text_of(row, "path"));
        if (verbose && strcmp(key, "workloads") == 0)
            workload_options(row, out);
    }
}

static enum cm_status write_lists(const json_t *root, const struct list_args *args)
{
    struct cm_str out = CM_STR_INIT;
    const char *key;
    json_t *rows;
    if (args->json)
        return cm_cli_write_document(root);
    json_object_foreach((json_t *)root, key, rows)
    {
        list_text(key, rows, args->verbose, &out);
    }
    enum cm_status status = cm_cli_write_str(&out);
    cm_str_release(&out);
    return status;
}

static enum cm_status list(const void *fields, const struct cm_words *operands)
{
    static const char *const kinds[] = {"workloads", "devices",  "suites",
                                        "models",    "clusters", NULL};
    const char *what = operands->count > 0 ? operands->items[0] : NULL;
    bool known = what == NULL;
    for (size_t i = 0; kinds[i] != NULL && !known; i++)
        known = strcmp(what, kinds[i]) == 0;
    if (!known)
        return cm_error(
            CM_USAGE, "list: no such list '%.60s'; workloads, devices, suites, models or clusters",
            what);
    json_t *root = json_object();
    enum cm_status status =
        root != NULL ? lists_json(what, root) : cm_error(CM_NO_MEMORY, "out of memory");
    if (status == CM_OK)
        status = write_lists(root, fields);
    json_decref(root);
    return status;
}

int cm_cmd_list(int argc, char **argv)
{
    struct list_args args = {.json = false};
    return cm_cli_command(&list_spec, argc, argv, &args, list);
}
