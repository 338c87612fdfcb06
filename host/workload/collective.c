/*
 * collective: one collective operation among all ranks.
 *
 * `size` is the S of nccl-tests: the whole buffer, which for reduce_scatter, all_gather and
 * all_to_all is n times a rank's part. It is rounded down to whole elements per rank, and what is
 * left is what algbw counts; less than one element per rank is skipped. The time is the slowest
 * rank's; busbw is algbw times nccl-tests' factor.
 *
 * In place, all_reduce takes the maximum: a sum would grow with each iteration until it overflows,
 * and nothing could be checked. All elements on all ranks are checked against the inputs of all
 * ranks, which the seeds give anywhere (collective_check.c).
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/model.h"
#include "host/workload/auto_size.h"
#include "host/workload/collective.h"

/* Alignment of buffers in bytes; the largest message whose time counts as latency. */
enum { ALIGNMENT = 256, SMALL_BYTES = 1024 };

static const enum cm_dtype dtypes[] = {CM_F32, CM_BF16, CM_F16, CM_F64, CM_I32, CM_I8};
static const char *const dtype_choices[] = {"f32", "bf16", "f16", "f64", "i32", "i8", NULL};

#define FIELD(name) offsetof(struct cm_collective_params, name)
/* name, type, field, least, most, default, help, choices, capacity, no_list */
static const struct cm_option collective_options[] = {
    {"op", CM_OPTION_CHOICE, FIELD(op), 0, 0, "all_reduce", "which collective", cm_collective_names,
     0, false},
    {"size", CM_OPTION_SIZE, FIELD(size_bytes), 0, 0, "0",
     "bytes of the whole buffer, as nccl-tests counts; 0 for a size that suits the device", NULL, 0,
     false},
    {"dtype", CM_OPTION_CHOICE, FIELD(dtype), 0, 0, "f32", "type of the elements", dtype_choices, 0,
     false},
    {"in_place", CM_OPTION_BOOL, FIELD(in_place), 0, 0, "no",
     "one buffer for input and output (all_reduce: then of the maximum; broadcast: always)", NULL,
     0, false},
    {"rotate", CM_OPTION_BOOL, FIELD(rotate), 0, 0, "yes",
     "use further buffers in turn until caches cannot hold them", NULL, 0, false},
    {0},
};

static bool has_parts(enum cm_collective op)
{
    return op == CM_REDUCE_SCATTER || op == CM_ALL_GATHER || op == CM_ALL_TO_ALL;
}

bool cm_collective_sums(enum cm_collective op, bool in_place)
{
    return (op == CM_ALL_REDUCE && !in_place) || op == CM_REDUCE_SCATTER;
}

static enum cm_status collective_validate(const void *memory, const char *where)
{
    const struct cm_collective_params *params = memory;
    enum cm_collective op = (enum cm_collective)params->op;
    size_t element = cm_dtype_size(dtypes[params->dtype]);
    if (params->size_bytes > 0 && params->size_bytes < element)
        return cm_error(CM_USAGE, "%s: size is less than one element of %zu bytes", where, element);
    if (params->size_bytes > (uint64_t)1 << 56)
        return cm_error(CM_USAGE, "%s: size is over 2^56 bytes", where);
    if (dtypes[params->dtype] == CM_I8 && cm_collective_sums(op, params->in_place))
        return cm_error(CM_USAGE,
                        "%s: a sum of 8-bit integers overflows, and libraries differ in what comes "
                        "then; use dtype = i32",
                        where);
    if (params->in_place && has_parts(op))
        return cm_error(CM_USAGE,
                        "%s: %s has no in-place form here; in_place serves all_reduce "
                        "and broadcast",
                        where, cm_collective_names[op]);
    return CM_OK;
}

static enum cm_status choose_counts(struct cm_collective_state *state, uint64_t size_bytes)
{
    unsigned ranks = state->context->comm->size;
    size_t element = cm_dtype_size(state->dtype);
    uint64_t whole = size_bytes / element;
    state->part = has_parts(state->op) ? whole / ranks : whole;
    if (state->part == 0)
        return cm_error(CM_UNSUPPORTED,
                        "collective: %llu bytes are less than one %s for each of %u ranks",
                        (unsigned long long)size_bytes, cm_dtype_name(state->dtype), ranks);
    whole = has_parts(state->op) ? state->part * ranks : whole;
    state->send_count = state->op == CM_ALL_GATHER ? state->part : whole;
    state->recv_count = state->op == CM_REDUCE_SCATTER ? state->part : whole;
    state->send_stride = (state->send_count * element + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    state->recv_stride = (state->recv_count * element + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return CM_OK;
}

static enum cm_status take(struct cm_collective_state *state, enum cm_memory_kind kind,
                           uint64_t bytes, char **memory)
{
    void *block;
    enum cm_status status = cm_context_alloc(state->context, kind, bytes, &block);
    if (status == CM_OK)
        *memory = block;
    return status;
}

static enum cm_status allocate(struct cm_collective_state *state)
{
    size_t element = cm_dtype_size(state->dtype);
    char *verdict = NULL;
    enum cm_status status =
        take(state, CM_MEMORY_COMM, state->recv_stride * state->sets, &state->recv);
    if (status == CM_OK && !state->in_place)
        status = take(state, CM_MEMORY_COMM, state->send_stride * state->sets, &state->send);
    if (status == CM_OK)
        status = take(state, CM_MEMORY_DEVICE, 2 * CM_COLLECTIVE_PIECE * element, &state->scratch);
    if (status == CM_OK)
        status = take(state, CM_MEMORY_HOST, CM_COLLECTIVE_CHUNK * element, &state->raw);
    if (status == CM_OK)
        status = take(state, CM_MEMORY_HOST, sizeof *state->verdict, &verdict);
    if (status != CM_OK)
        return status;
    state->verdict = (struct cm_verify_result *)(void *)verdict;
    state->chunk = cm_alloc(1, sizeof *state->chunk);
    if (state->chunk == NULL)
        return CM_NO_MEMORY;
    bool holds_input = state->in_place;
    if (state->op == CM_BROADCAST)
        holds_input = state->context->comm->rank == CM_COLLECTIVE_ROOT;
    if (state->in_place)
        state->send = state->recv;
    if (holds_input)
        return CM_OK;
    return cm_context_output(state->context, state->recv, state->recv_stride * state->sets);
}

uint64_t cm_collective_seed(const struct cm_collective_state *state, unsigned rank, uint64_t set)
{
    return cm_random_seed(state->context->seed, "collective", rank, set);
}

static enum cm_status collective_setup(struct cm_context *context, const void *memory, void *space)
{
    struct cm_collective_state *state = space;
    const struct cm_collective_params *params = memory;
    state->context = context;
    state->op = (enum cm_collective)params->op;
    state->dtype = dtypes[params->dtype];
    state->in_place = params->in_place || state->op == CM_BROADCAST;
    uint64_t size_bytes = params->size_bytes, left;
    enum cm_status status = CM_OK;
    if (size_bytes == 0) {
        status = cm_context_memory_left(context, &left);
        size_bytes = cm_auto_message(context->device->ops->is_host, status == CM_OK ? left : 0);
    }
    if (status == CM_OK)
        status = choose_counts(state, size_bytes);
    if (status != CM_OK)
        return status;
    state->sets = 1;
    uint64_t set_bytes = state->recv_stride + (state->in_place ? 0 : state->send_stride);
    if (params->rotate)
        status = cm_context_rotation(context, set_bytes, &state->sets);
    if (status == CM_OK)
        status = allocate(state);
    bool has_input = state->op != CM_BROADCAST || context->comm->rank == CM_COLLECTIVE_ROOT;
    for (unsigned set = 0; set < state->sets && has_input && status == CM_OK; set++)
        status = context->device->kernels->fill_normal(
            context->stream, state->send + set * state->send_stride, state->send_count,
            state->dtype, cm_collective_seed(state, context->comm->rank, set), 0);
    return status == CM_OK ? cm_context_sync(context) : status;
}

static enum cm_status collective_enqueue(void *memory, unsigned index, uint64_t iteration)
{
    (void)index;
    const struct cm_collective_state *state = memory;
    struct cm_comm *comm = state->context->comm;
    struct cm_stream *stream = state->context->stream;
    uint64_t set = iteration % state->sets;
    const char *send = state->send + set * state->send_stride;
    char *recv = state->recv + set * state->recv_stride;
    switch (state->op) {
    case CM_ALL_REDUCE:
        return comm->ops->all_reduce(comm, stream, send, recv, state->part, state->dtype,
                                     state->in_place ? CM_REDUCE_MAX : CM_REDUCE_SUM);
    case CM_REDUCE_SCATTER:
        return comm->ops->reduce_scatter(comm, stream, send, recv, state->part, state->dtype,
                                         CM_REDUCE_SUM);
    case CM_ALL_GATHER:
        return comm->ops->all_gather(comm, stream, send, recv, state->part, state->dtype);
    case CM_ALL_TO_ALL:
        return comm->ops->all_to_all(comm, stream, send, recv, state->part, state->dtype);
    case CM_BROADCAST:
        return comm->ops->broadcast(comm, stream, recv, state->part, state->dtype,
                                    CM_COLLECTIVE_ROOT);
    case CM_COLLECTIVE_COUNT:
        break;
    }
    return cm_error(CM_INTERNAL, "collective: operation %d", (int)state->op);
}

static void collective_work(const void *memory, unsigned index, struct cm_work *work)
{
    (void)index;
    const struct cm_collective_state *state = memory;
    uint64_t whole = has_parts(state->op) ? state->part * state->context->comm->size : state->part;
    work->message_bytes = (double)cm_collective_bytes(whole, cm_dtype_size(state->dtype));
}

static const char *collective_algorithm(const void *memory)
{
    const struct cm_collective_state *state = memory;
    struct cm_comm *comm = state->context->comm;
    if (comm->ops->algorithm == NULL)
        return "";
    return comm->ops->algorithm(comm, cm_collective_names[state->op],
                                state->part * cm_dtype_size(state->dtype));
}

static void collective_teardown(void *memory)
{
    struct cm_collective_state *state = memory;
    cm_free(state->chunk);
    state->chunk = NULL;
}

static enum cm_status collective_metrics(const struct cm_metric_input *input,
                                         struct cm_metrics *metrics)
{
    const struct cm_collective_params *params = input->params;
    const struct cm_part_samples *part = &input->parts[0];
    double algbw = part->work.message_bytes / part->median_s;
    struct cm_metric *metric;
    enum cm_status status = cm_metrics_add(metrics, "time", part->median_s, "s", CM_LOWER, NULL);
    if (status == CM_OK)
        status = cm_metrics_add(metrics, "algbw", algbw, "B/s", CM_HIGHER, NULL);
    if (status == CM_OK)
        status = cm_metrics_add(metrics, "busbw",
                                algbw * cm_bus_factor((enum cm_collective)params->op, input->ranks),
                                "B/s", CM_HIGHER, &metric);
    if (status == CM_OK)
        snprintf(metric->ceiling_source, sizeof metric->ceiling_source,
                 "not known: the rate of the links between the ranks");
    if (status == CM_OK && params->size_bytes == 0)
        status = cm_metrics_add(metrics, "size", part->work.message_bytes, "B", CM_NEITHER, NULL);
    return status;
}

static double metric_value(const struct cm_metrics *metrics, const char *name)
{
    const struct cm_metric *metric = cm_metrics_find(metrics, name);
    return metric != NULL ? metric->value : (double)NAN;
}

static enum cm_status collective_summarise(const struct cm_sweep_point *points, size_t count,
                                           unsigned ranks, struct cm_metrics *metrics)
{
    (void)ranks;
    const struct cm_collective_params *first = points[0].params;
    double *sizes = cm_alloc(count, sizeof *sizes), *rates = cm_alloc(count, sizeof *rates);
    enum cm_status status = sizes != NULL && rates != NULL ? CM_OK : CM_NO_MEMORY;
    double peak = 0;
    for (size_t i = 0; i < count && status == CM_OK; i++) {
        const struct cm_collective_params *params = points[i].params;
        sizes[i] = (double)params->size_bytes;
        rates[i] = metric_value(points[i].metrics, "busbw");
        peak = rates[i] > peak ? rates[i] : peak;
    }
    if (status == CM_OK && first->size_bytes <= SMALL_BYTES)
        status = cm_metrics_add(metrics, "latency_small", metric_value(points[0].metrics, "time"),
                                "s", CM_LOWER, NULL);
    if (status == CM_OK)
        status = cm_metrics_add(metrics, "busbw_peak", peak, "B/s", CM_HIGHER, NULL);
    if (status == CM_OK) {
        double half = cm_half_peak_size(sizes, rates, (unsigned)count);
        if (isfinite(half))
            status = cm_metrics_add(metrics, "half_peak_size", half, "B", CM_LOWER, NULL);
    }
    cm_free(rates);
    cm_free(sizes);
    return status;
}

const struct cm_workload cm_workload_collective = {
    .name = "collective",
    .summary = "one collective operation among all ranks",
    .options = collective_options,
    .params_size = sizeof(struct cm_collective_params),
    .state_size = sizeof(struct cm_collective_state),
    .needs = CM_NEEDS_PEERS,
    .headline = "busbw",
    .validate = collective_validate,
    .setup = collective_setup,
    .enqueue = collective_enqueue,
    .work = collective_work,
    .check = cm_collective_check,
    .algorithm = collective_algorithm,
    .teardown = collective_teardown,
    .metrics = collective_metrics,
    .sweep = "size",
    .summarise = collective_summarise,
};
