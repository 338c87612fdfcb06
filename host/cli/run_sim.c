/* clustermark run --device sim: training steps on a virtual clock. */
#include "host/cli/run_sim.h"

#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/project.h"
#include "host/cli/cli.h"

enum cm_status cm_sim_request(const char *machine_name, uint64_t ranks, uint64_t runs,
                              struct cm_machine *machine, struct cm_run_request *request)
{
    if (ranks == 0)
        return cm_error(CM_USAGE, "--device sim: of how many ranks? --ranks 1024; nothing is there "
                                  "to count");
    if (runs > 1)
        return cm_error(CM_USAGE, "--device sim: every run is the same; leave --runs out");
    const char *name = machine_name != NULL ? machine_name : "h100", *end = strrchr(name, '.');
    enum cm_status status = end != NULL && strcmp(end, ".json") == 0
                                ? cm_project_machine(name, machine)
                                : cm_machine_load(name, machine);
    if (status != CM_OK)
        return status;
    request->device = &cm_device_sim;
    request->machine = machine;
    request->ranks = (unsigned)ranks;
    return CM_OK;
}

enum cm_status cm_sim_explain(const struct cm_plan *plan, const struct cm_run_request *request)
{
    struct cm_str out = CM_STR_INIT;
    enum cm_status status = CM_OK;
    bool any = false;
    for (size_t i = 0; i < plan->count && status == CM_OK; i++) {
        const struct cm_case *item = &plan->cases[i];
        struct cm_simulated simulated = {.explanation = &out};
        if (item->workload->simulate == NULL)
            continue;
        any = true;
        cm_str_addf(&out, "%s, machine %s\n", item->name, request->machine->name);
        status =
            item->workload->simulate(item->params, request->ranks, request->machine, &simulated);
        if (status != CM_UNSUPPORTED)
            continue;
        cm_str_addf(&out, "skipped: %s\n", cm_error_text());
        status = CM_OK;
    }
    if (status == CM_OK && !any)
        status = cm_error(CM_USAGE, "--explain: the suite has no case of trainstep");
    if (status == CM_OK)
        status = cm_cli_write_str(&out);
    cm_str_release(&out);
    return status;
}

enum cm_status cm_sim_trace(const struct cm_plan *plan, const struct cm_run_request *request,
                            const char *path)
{
    struct cm_str trace = CM_STR_INIT;
    struct cm_simulated simulated = {.trace = &trace};
    const struct cm_case *item = NULL;
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->cases[i].workload->simulate == NULL)
            continue;
        if (item != NULL)
            return cm_error(CM_USAGE,
                            "--trace is of one step, and the suite has several (%s, %s); "
                            "choose with --only",
                            item->name, plan->cases[i].name);
        item = &plan->cases[i];
    }
    if (item == NULL)
        return cm_error(CM_USAGE, "--trace: the suite has no case of trainstep");
    enum cm_status status =
        item->workload->simulate(item->params, request->ranks, request->machine, &simulated);
    if (status == CM_OK)
        status = cm_file_replace(path, cm_str_text(&trace), trace.length);
    cm_str_release(&trace);
    return status;
}
