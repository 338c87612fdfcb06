/* A plan on a virtual clock: the place of supervisor, ranks and harness where nothing runs. */
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "clustermark/roofline.h"
#include "host/measure/clock.h"

const struct cm_device_ops cm_device_sim = {
    .name = "sim",
    .summary = "a virtual clock: training steps of any number of ranks, times by a machine's rates",
};

/* One device stands for all. */
static enum cm_status describe(const struct cm_machine *machine, struct cm_device_info **info)
{
    const struct {
        enum cm_dtype dtype;
        double value;
    } rates[] = {{CM_BF16, machine->bf16_rate}, {CM_F32, machine->f32_rate}};
    struct cm_device_info *made = *info = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->virtual_clock = true;
    made->memory_bytes = made->memory_total_bytes = machine->memory_bytes;
    made->memory_rate.value = machine->memory_rate;
    snprintf(made->name, sizeof made->name, "%s", machine->name);
    snprintf(made->kind, sizeof made->kind, "%s", cm_device_sim.name);
    snprintf(made->memory_rate.source, sizeof made->memory_rate.source, "memory_rate of machine %s",
             machine->name);
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        struct cm_peak *peak = &made->flop_rate[rates[i].dtype];
        peak->value = rates[i].value;
        snprintf(peak->source, sizeof peak->source, "%s_rate of machine %s",
                 cm_dtype_name(rates[i].dtype), machine->name);
    }
    return CM_OK;
}

static enum cm_status keep_parts(const struct cm_simulated *simulated, struct cm_case_run *run)
{
    enum cm_status status = CM_OK;
    run->parts = cm_alloc(simulated->part_count, sizeof *run->parts);
    if (run->parts == NULL)
        return CM_NO_MEMORY;
    run->part_count = simulated->part_count;
    for (unsigned i = 0; i < run->part_count && status == CM_OK; i++) {
        struct cm_part_samples *part = &run->parts[i];
        part->part = simulated->parts[i];
        part->median_s = simulated->part_s[i];
        if (i == 0)
            part->work = simulated->work;
        status = cm_samples_add(&part->slowest, part->median_s);
    }
    return status;
}

static enum cm_status simulate_case(const struct cm_case *item,
                                    const struct cm_run_request *request, struct cm_case_run *run)
{
    struct cm_simulated simulated = {.explanation = NULL};
    if (item->workload->simulate == NULL)
        return cm_error(CM_UNSUPPORTED, "a virtual clock executes training steps alone");
    enum cm_status status =
        item->workload->simulate(item->params, request->ranks, request->machine, &simulated);
    if (status == CM_OK)
        status = describe(request->machine, &run->devices);
    if (status != CM_OK)
        return status;
    run->rank_count = 1;
    status = keep_parts(&simulated, run);
    if (status != CM_OK)
        return status;
    struct cm_metric_input input = {.params = item->params,
                                    .device = run->devices,
                                    .ranks = request->ranks,
                                    .parts = run->parts,
                                    .part_count = run->part_count};
    memcpy(input.observed, simulated.observed, sizeof input.observed);
    snprintf(run->algorithm, sizeof run->algorithm, "%s", simulated.label);
    snprintf(run->check.nothing, sizeof run->check.nothing, "nothing is computed");
    return item->workload->metrics(&input, &run->metrics);
}

enum cm_status cm_simulate(const struct cm_plan *plan, const struct cm_run_request *request,
                           struct cm_sink *sink)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < plan->count && status == CM_OK; i++) {
        double started_s = cm_clock_s();
        struct cm_case_run run = {.case_index = i, .started_unix_s = cm_clock_unix_s()};
        snprintf(run.stop_reason, sizeof run.stop_reason, "virtual");
        status = simulate_case(&plan->cases[i], request, &run);
        if (status != CM_OK) {
            run.status = status == CM_UNSUPPORTED ? CM_CASE_SKIPPED : CM_CASE_FAILED;
            snprintf(run.reason, sizeof run.reason, "%s", cm_error_text());
        }
        run.wall_s = cm_clock_s() - started_s;
        status = sink->done(sink->impl, plan, &run);
        cm_case_run_release(&run);
    }
    return status;
}
