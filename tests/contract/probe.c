/* A workload for testing the harness. */
#include "probe.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

#include "clustermark/error.h"

#define COUNT     1000
#define SET_BYTES 4096

struct probe_state {
    struct cm_context *context;
    const struct probe_params *params;
    struct cm_stream *lane;
    unsigned extended; /* parts that came later */
    bool faulty;       /* this rank */
    float *input, *output, *sum;
    double *host;
    char algorithm[32];
};

struct probe_calls probe_calls;

static bool has(const struct probe_state *state, enum probe_fault fault)
{
    return state->faulty && state->params->fault == fault;
}

static bool last_rank(const struct probe_state *state)
{
    return state->context->comm->rank + 1 == state->context->comm->size;
}

static enum cm_status take_memory(struct probe_state *state)
{
    struct cm_context *context = state->context;
    size_t bytes = COUNT * sizeof(float);
    void *memory[4];
    /* Ranks with less left than others: the smallest wins. */
    uint64_t more = 4096 * (context->comm->rank + 1);
    enum cm_status status = cm_context_alloc(context, CM_MEMORY_DEVICE, bytes, &memory[0]);
    if (status == CM_OK)
        status = cm_context_alloc(context, CM_MEMORY_COMM, bytes, &memory[1]);
    if (status == CM_OK)
        status = cm_context_alloc(context, CM_MEMORY_HOST, bytes, &memory[2]);
    if (status == CM_OK)
        status = cm_context_alloc(context, CM_MEMORY_COMM, bytes + more, &memory[3]);
    if (status == CM_OK)
        status = cm_context_output(context, memory[1], bytes);
    if (status != CM_OK)
        return status;
    state->input = memory[0];
    state->output = memory[1];
    state->host = memory[2];
    state->sum = memory[3];
    return CM_OK;
}

static enum cm_status faulty_setup(struct probe_state *state)
{
    void *memory;
    int other;
    switch (state->params->fault) {
    case PROBE_SETUP:
        return cm_error(CM_DEVICE, "the probe breaks in setup");
    case PROBE_SKIP:
        return cm_error(CM_UNSUPPORTED, "the probe is not possible here");
    case PROBE_HUGE:
        return cm_context_alloc(state->context, CM_MEMORY_DEVICE, UINT64_C(1) << 60, &memory);
    case PROBE_FOREIGN:
        return cm_context_output(state->context, &other, sizeof other);
    default:
        return CM_OK;
    }
}

static enum cm_status probe_setup(struct cm_context *context, const void *params, void *memory)
{
    struct probe_state *state = memory;
    state->context = context;
    state->params = params;
    state->faulty = context->comm->rank == state->params->fault_rank;
    probe_calls.setups++;
    probe_calls.in_order = true;
    probe_calls.seed = context->seed;
    snprintf(state->algorithm, sizeof state->algorithm, "probing");
    enum cm_status status = take_memory(state);
    if (status == CM_OK)
        status = cm_context_stream(context, 1, &state->lane);
    if (status == CM_OK && state->faulty)
        status = faulty_setup(state);
    if (status == CM_OK && !has(state, PROBE_LEAVES))
        status = cm_context_rotation(context, SET_BYTES, &probe_calls.rotation);
    if (status == CM_OK && !has(state, PROBE_LEAVES))
        status = cm_context_memory_left(context, &probe_calls.memory_left);
    if (status == CM_OK)
        status = context->device->kernels->fill_normal(context->stream, state->input, COUNT, CM_F32,
                                                       context->seed, 0);
    return status;
}

static unsigned probe_part_count(const void *memory)
{
    const struct probe_state *state = memory;
    unsigned parts = state->params->parts > 0 ? state->params->parts : 1;
    return parts + (has(state, PROBE_PARTS) ? 1 : 0) + state->extended;
}

static void probe_part(const void *memory, unsigned index, struct cm_part *part)
{
    const struct probe_state *state = memory;
    *part = state->params->part;
    if (state->params->parts > 0)
        snprintf(part->name, sizeof part->name, "part%u", index);
    part->idle = state->params->last_idle && index + 1 == state->params->parts && last_rank(state);
}

static enum cm_status fail_call(const void *args)
{
    (void)args;
    return cm_error(CM_DEVICE, "the probe's queued work broke");
}

static enum cm_status sleep_call(const void *args)
{
    unsigned us = *(const unsigned *)args;
    struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000L};
    nanosleep(&pause, NULL);
    return CM_OK;
}

/* Longer than a wait looks at a time. */
static enum cm_status fail_late(const void *args)
{
    (void)args;
    nanosleep(&(struct timespec){.tv_nsec = 400000000}, NULL);
    return cm_error(CM_DEVICE, "the probe's late work broke too");
}

static enum cm_status queue_fault(struct probe_state *state, uint64_t iteration)
{
    struct cm_context *context = state->context;
    const struct cm_device_ops *device = context->device->ops;
    unsigned us = has(state, PROBE_HANGS) ? 2000000 : last_rank(state) ? state->params->slow_us : 0;
    if (has(state, PROBE_ENQUEUE) && iteration == 2)
        return cm_error(CM_DEVICE, "the probe cannot queue");
    if (has(state, PROBE_ASYNC) && iteration == 2)
        return device->call(context->stream, fail_call, "", 0, "probe");
    if (has(state, PROBE_LATE) && iteration == 2) {
        enum cm_status status = device->call(state->lane, fail_late, "", 0, "probe");
        return status == CM_OK ? device->call(context->stream, fail_call, "", 0, "probe") : status;
    }
    if (has(state, PROBE_LANE) && iteration == 2)
        return device->call(state->lane, fail_call, "", 0, "probe");
    return us > 0 ? device->call(context->stream, sleep_call, &us, sizeof us, "probe") : CM_OK;
}

/* Counts where the outputs are poisoned by then. */
static enum cm_status probe_begin(void *memory, unsigned part)
{
    struct probe_state *state = memory;
    struct cm_context *context = state->context;
    float first = 0, *host = (float *)(void *)state->host;
    uint64_t unused;
    (void)part;
    if (has(state, PROBE_BEGIN))
        return cm_error(CM_DEVICE, "the probe cannot begin");
    enum cm_status status =
        context->device->ops->copy(context->stream, host, state->output, sizeof first);
    if (status == CM_OK)
        status = cm_context_sync(context);
    if (status == CM_OK)
        first = host[0];
    probe_calls.begins += isnan(first) ? 1 : 0;
    return status == CM_OK ? cm_context_memory_left(context, &unused) : status;
}

static enum cm_status probe_enqueue(void *memory, unsigned part, uint64_t iteration)
{
    struct probe_state *state = memory;
    struct cm_context *context = state->context;
    struct cm_comm *comm = context->comm;
    if (iteration == 0) {
        probe_calls.timed[part] = 0;
        probe_calls.series[part]++;
    }
    probe_calls.in_order = probe_calls.in_order && iteration == probe_calls.timed[part];
    probe_calls.timed[part]++;
    probe_calls.enqueued[part]++;
    enum cm_status status = queue_fault(state, iteration);
    if (status == CM_OK && (!has(state, PROBE_IDLES) || probe_calls.series[part] == 1))
        status = context->device->kernels->copy(context->stream, state->output, state->input, COUNT,
                                                CM_F32);
    if (status == CM_OK && state->params->collective)
        status = comm->ops->all_reduce(comm, context->stream, state->input, state->sum, COUNT,
                                       CM_F32, CM_REDUCE_SUM);
    return status;
}

static void probe_work(const void *memory, unsigned part, struct cm_work *work)
{
    (void)memory;
    *work = (struct cm_work){.bytes = 2.0 * COUNT * sizeof(float), .operations = part == 0 ? 0 : 2};
}

static enum cm_status probe_check(void *memory, unsigned part, uint64_t iterations,
                                  struct cm_check *check)
{
    struct probe_state *state = memory;
    struct cm_context *context = state->context;
    struct cm_verify_result result = {0};
    probe_calls.checks++;
    if (has(state, PROBE_CHECK))
        return cm_error(CM_SYSTEM, "the probe cannot check");
    if (has(state, PROBE_BREAKS)) {
        unsigned us = 2000000;
        enum cm_status status =
            context->device->ops->call(context->stream, sleep_call, &us, sizeof us, "probe");
        return status != CM_OK
                   ? status
                   : cm_context_finish(context, cm_error(CM_SYSTEM, "the probe broke off"));
    }
    if (has(state, PROBE_UNSEEN))
        return CM_OK;
    if (has(state, PROBE_UNNEEDED)) {
        snprintf(check->nothing, sizeof check->nothing, "the probe moves nothing");
        return CM_OK;
    }
    struct cm_part described;
    probe_part(state, part, &described);
    if (described.idle)
        return CM_OK;
    if (iterations != probe_calls.timed[part])
        return cm_error(CM_INTERNAL, "the harness counts otherwise");
    enum cm_status status = context->device->kernels->verify(
        context->stream, state->output, state->input, COUNT, CM_F32, 0, 0, &result);
    if (status == CM_OK)
        status = cm_context_sync(context);
    check->checked = result.checked;
    check->mismatches = has(state, PROBE_WRONG) ? 3 : result.mismatches;
    check->worst = result.worst;
    if (check->mismatches > 0)
        snprintf(check->detail, sizeof check->detail, "the probe's first value");
    return status;
}

static const char *probe_algorithm(const void *memory)
{
    return ((const struct probe_state *)memory)->algorithm;
}

static void probe_teardown(void *memory)
{
    (void)memory;
    probe_calls.teardowns++;
}

static enum cm_status probe_metrics(const struct cm_metric_input *input, struct cm_metrics *metrics)
{
    const struct probe_params *params = input->params;
    enum cm_status status =
        cm_metrics_add(metrics, "time", input->parts[0].median_s, "s", CM_LOWER, NULL);
    if (params->fault == PROBE_METRICS)
        return cm_error(CM_INTERNAL, "the probe cannot compute");
    return status;
}

static const struct cm_option no_options[] = {{.name = NULL}};

static enum cm_status probe_extend(void *memory, const struct cm_part_samples *parts,
                                   unsigned *part_count)
{
    struct probe_state *state = memory;
    const void *all;
    unsigned known = parts[*part_count - 1].rank_median_s != NULL;
    probe_calls.extends++;
    if (has(state, PROBE_EXTEND))
        return cm_error(CM_DEVICE, "the probe does not know how to go on");
    /* The reporting rank knows the times, and all may speak. */
    enum cm_status status = cm_context_gather(state->context, &known, sizeof known, &all);
    if (status != CM_OK || state->params->more == 0)
        return status;
    if (*(const unsigned *)all != 1)
        return cm_error(CM_INTERNAL, "the reporting rank has no times");
    state->extended += probe_calls.extends <= state->params->more ? 1 : 0;
    *part_count = probe_part_count(state);
    return CM_OK;
}

static enum cm_status probe_find(const void *memory, const struct cm_part_samples *parts,
                                 unsigned part_count, struct cm_suspects *suspects,
                                 struct cm_metrics *metrics)
{
    const struct probe_state *state = memory;
    struct cm_suspect suspect = {.what = "probing",
                                 .rank = state->context->comm->size - 1,
                                 .peer = CM_NO_PEER,
                                 .effect = -0.5};
    (void)parts;
    if (has(state, PROBE_FIND))
        return cm_error(CM_DEVICE, "the probe cannot tell");
    enum cm_status status = cm_suspects_add(suspects, &suspect);
    if (status != CM_OK || state->params->more == 0)
        return status;
    return cm_metrics_add(metrics, "parts", part_count, "1", CM_NEITHER, NULL);
}

#define PROBE                                                                                      \
    .name = "probe", .summary = "for the tests", .options = no_options,                            \
    .params_size = sizeof(struct probe_params), .state_size = sizeof(struct probe_state),          \
    .headline = "time", .setup = probe_setup, .part_count = probe_part_count, .part = probe_part,  \
    .begin = probe_begin, .enqueue = probe_enqueue, .work = probe_work, .check = probe_check,      \
    .extend = probe_extend, .find = probe_find, .algorithm = probe_algorithm,                      \
    .teardown = probe_teardown, .metrics = probe_metrics

const struct cm_workload probe_workload = {PROBE};
const struct cm_workload probe_pair = {PROBE, .needs = CM_NEEDS_PEERS};
