/* trainstep: a step on a virtual clock, as figures that a measured one has too. */
#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/roofline.h"
#include "clustermark/stats.h"
#include "clustermark/units.h"
#include "clustermark/virtual_clock.h"
#include "host/workload/trainstep.h"

_Static_assert((int)CM_VIRTUAL_WAIT_COUNT == (int)CM_WAIT_COUNT, "both tell the same waits apart");

/* As where a step is measured: no memory, no step. */
static enum cm_status check_memory(const struct cm_virtual_result *result,
                                   const struct cm_machine *machine)
{
    char need[CM_UNITS_TEXT_MAX], have[CM_UNITS_TEXT_MAX];
    for (unsigned i = 0; i < result->stage_count && machine->memory_bytes > 0; i++) {
        uint64_t bytes = result->stages[i].memory_bytes;
        if (bytes > machine->memory_bytes)
            return cm_error(CM_NO_MEMORY,
                            "a step needs %s on ranks of stage %u, and a device of %s has %s",
                            cm_format_value((double)bytes, "B", need), i, machine->name,
                            cm_format_value((double)machine->memory_bytes, "B", have));
    }
    return CM_OK;
}

/* Means over the stages, which have as many ranks each. */
static void add_stage(const struct cm_virtual_stage *stage, double share, double *seen)
{
    seen[CM_SEEN_BUSY_S] += share * stage->lanes[CM_LANE_COMPUTE].busy_s;
    for (unsigned i = 0; i < CM_WAIT_COUNT; i++)
        seen[CM_SEEN_WAIT_S + i] += share * stage->wait_s[i];
    for (unsigned i = 0; i < CM_TRAIN_GROUPS; i++)
        seen[CM_SEEN_COMM_S + i] += share * stage->comm_s[i];
    for (unsigned i = 0; i < CM_PHASE_COUNT; i++)
        seen[CM_SEEN_PHASE_S + i] += share * stage->phase_s[i];
    for (unsigned i = 0; i < CM_CLASS_COUNT; i++)
        seen[CM_SEEN_CLASS_S + i] += share * stage->class_s[i];
    if ((double)stage->memory_bytes > seen[CM_SEEN_PREDICTED])
        seen[CM_SEEN_PREDICTED] = (double)stage->memory_bytes;
}

static enum cm_status observe(const struct cm_step *step, const struct cm_virtual_result *result,
                              double *seen)
{
    unsigned count = result->stage_count, worst = 0;
    double *busy_s = cm_alloc(count, sizeof *busy_s);
    if (busy_s == NULL)
        return CM_NO_MEMORY;
    cm_trainstep_count(step, seen);
    seen[CM_SEEN_PROFILE_S] = result->step_s;
    for (unsigned i = 0; i < count; i++) {
        add_stage(&result->stages[i], 1.0 / count, seen);
        busy_s[i] = result->stages[i].lanes[CM_LANE_COMPUTE].busy_s;
        worst = busy_s[i] > busy_s[worst] ? i : worst;
    }
    const struct cm_coordinates place = {.pp = worst};
    seen[CM_SEEN_BUSY_WORST_S] = busy_s[worst];
    seen[CM_SEEN_BUSY_MEDIAN_S] = cm_median(busy_s, count);
    seen[CM_SEEN_BUSY_RANK] = cm_parallel_rank(&step->parallel, &place);
    cm_free(busy_s);
    return CM_OK;
}

static enum cm_status conclude(const struct cm_step *step, const struct cm_virtual *program,
                               const struct cm_virtual_times *times,
                               const struct cm_virtual_result *result,
                               struct cm_simulated *simulated)
{
    const struct cm_virtual_stage *first = &result->stages[0];
    bool several = cm_parallel_ranks(&step->parallel) > 1;
    simulated->part_count = several ? 2 : 1;
    simulated->part_s[CM_TRAIN_STEP] = result->step_s;
    simulated->part_s[CM_TRAIN_NO_COMM] = result->no_comm_s;
    for (unsigned i = 0; i < 2 && several; i++)
        cm_trainstep_name_part(i, &simulated->parts[i]);
    simulated->work = (struct cm_work){
        .flops = first->flops, .bytes = first->bytes, .message_bytes = first->message_bytes};
    cm_trainstep_label(step, simulated->label, sizeof simulated->label);
    enum cm_status status = observe(step, result, simulated->observed);
    if (status == CM_OK && simulated->explanation != NULL) {
        cm_virtual_write(program, result, simulated->explanation);
        status = cm_str_status(simulated->explanation);
    }
    if (status == CM_OK && simulated->trace != NULL)
        status = cm_virtual_trace(program, times, simulated->trace);
    return status;
}

/* By how much the slowest of its domains is expected to take longer. */
static double slowest_of(unsigned ranks, const struct cm_machine *machine)
{
    double domains = (double)ranks / (double)machine->domain;
    return domains > 1 ? machine->host_spread * sqrt(2 * log(domains)) : 0;
}

enum cm_status cm_trainstep_simulate(const void *memory, unsigned ranks,
                                     const struct cm_machine *machine,
                                     struct cm_simulated *simulated)
{
    const struct cm_trainstep_params *params = memory;
    struct cm_virtual_times times = {.time_s = cm_roofline_time, .impl = machine};
    struct cm_step step;
    struct cm_virtual *program = NULL;
    struct cm_virtual_result result;
    if (cm_trainstep_fits(params))
        return cm_error(CM_UNSUPPORTED, "layers = fit asks a device for its memory, and here is "
                                        "none; give their number");
    enum cm_status status = cm_trainstep_step(params, ranks, "trainstep", &step);
    if (status == CM_OK && cm_parallel_ranks(&step.parallel) != ranks)
        status = cm_error(CM_UNSUPPORTED, "plan %s is for %u ranks, and there are %u", params->plan,
                          cm_parallel_ranks(&step.parallel), ranks);
    double rate = step.dtype == CM_F32 ? machine->f32_rate : machine->bf16_rate;
    if (status == CM_OK && !(rate > 0))
        status = cm_error(CM_UNSUPPORTED, "no rate of %s products is known of machine %s",
                          cm_dtype_name(step.dtype), machine->name);
    if (status == CM_OK)
        status = cm_virtual_open(&step, &program);
    if (status != CM_OK)
        return status;
    /* All meet for the gradients' norm, once they have computed. */
    times.late[CM_GROUP_WORLD] = slowest_of(ranks, machine);
    status = cm_virtual_execute(program, &times, NULL, &result);
    if (status == CM_OK) {
        status = check_memory(&result, machine);
        if (status == CM_OK)
            status = conclude(&step, program, &times, &result, simulated);
        cm_virtual_result_release(&result);
    }
    cm_virtual_close(program);
    return status;
}
