/*
 * launch: what it costs to give the device work that does nothing.
 *
 * An iteration queues 1,000 empty operations, since a single one is shorter than the events that
 * would time it; figures are a thousandth of the iteration on the slowest rank. `time` is the whole
 * way, host and device: the operations are queued while the stream runs. `time.device` is the
 * device's part alone: the batch is queued before its clock starts.
 */
#include <math.h>
#include <stdio.h>

#include "clustermark/workload.h"

struct launch_params {
    uint64_t operations;
};

struct launch_state {
    struct cm_context *context;
    uint64_t operations;
};

/* name, type, field, least, most, default, help, choices, capacity, no_list */
static const struct cm_option launch_options[] = {
    {"operations", CM_OPTION_COUNT, offsetof(struct launch_params, operations), 1, 1e6, "1000",
     "empty operations of one iteration", NULL, 0, false},
    {0},
};

static enum cm_status launch_setup(struct cm_context *context, const void *params, void *memory)
{
    struct launch_state *state = memory;
    state->context = context;
    state->operations = ((const struct launch_params *)params)->operations;
    return CM_OK;
}

enum { LAUNCH_LIVE, LAUNCH_DEVICE, LAUNCH_PARTS };

static unsigned launch_part_count(const void *memory)
{
    (void)memory;
    return LAUNCH_PARTS;
}

static void launch_part(const void *memory, unsigned index, struct cm_part *part)
{
    (void)memory;
    part->live = index == LAUNCH_LIVE;
    snprintf(part->name, sizeof part->name, "%s", part->live ? "live" : "device");
}

static enum cm_status launch_enqueue(void *memory, unsigned part, uint64_t iteration)
{
    (void)part;
    (void)iteration;
    const struct launch_state *state = memory;
    const struct cm_kernels *kernels = state->context->device->kernels;
    enum cm_status status = CM_OK;
    for (uint64_t i = 0; i < state->operations && status == CM_OK; i++)
        status = kernels->empty(state->context->stream);
    return status;
}

static void launch_work(const void *memory, unsigned part, struct cm_work *work)
{
    (void)part;
    work->operations = (double)((const struct launch_state *)memory)->operations;
}

static enum cm_status launch_check(void *memory, unsigned part, uint64_t iterations,
                                   struct cm_check *check)
{
    (void)memory;
    (void)part;
    (void)iterations;
    snprintf(check->nothing, sizeof check->nothing, "no data moves in launch");
    return CM_OK;
}

/* Nothing beyond context memory. */
static void launch_teardown(void *memory)
{
    (void)memory;
}

static enum cm_status launch_metrics(const struct cm_metric_input *input,
                                     struct cm_metrics *metrics)
{
    static const char *const names[LAUNCH_PARTS] = {"time", "time.device"};
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i < LAUNCH_PARTS && status == CM_OK; i++) {
        const struct cm_part_samples *part = &input->parts[i];
        double slowest_s = 0;
        for (unsigned rank = 0; rank < part->rank_count; rank++)
            slowest_s = fmax(slowest_s, part->rank_median_s[rank]);
        status = cm_metrics_add(metrics, names[i], slowest_s / part->work.operations, "s", CM_LOWER,
                                NULL);
    }
    return status;
}

const struct cm_workload cm_workload_launch = {
    .name = "launch",
    .summary = "the cost of one empty operation on a stream",
    .options = launch_options,
    .params_size = sizeof(struct launch_params),
    .state_size = sizeof(struct launch_state),
    .headline = "time",
    .setup = launch_setup,
    .part_count = launch_part_count,
    .part = launch_part,
    .enqueue = launch_enqueue,
    .work = launch_work,
    .check = launch_check,
    .teardown = launch_teardown,
    .metrics = launch_metrics,
};
