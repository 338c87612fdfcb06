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
 * ranks, which the seeds give anywhere: exactly where data only moves, for sums within the rounding
 * of n - 1 additions in any order.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/model.h"
#include "clustermark/workload.h"
#include "host/workload/auto_size.h"

/* Elements looked at together by the check; alignment of buffers in bytes; the root of broadcast;
 * the largest message whose time counts as latency. */
enum { CHUNK = 65536, ALIGNMENT = 256, ROOT = 0, SMALL_BYTES = 1024 };

static const enum cm_dtype dtypes[] = {CM_F32, CM_BF16, CM_F16, CM_F64, CM_I32, CM_I8};
static const char *const dtype_choices[] = {"f32", "bf16", "f16", "f64", "i32", "i8", NULL};

struct collective_params {
    int op, dtype;
    uint64_t size_bytes;
    bool in_place, rotate;
};

/* One chunk in the check: what an element should be, and the sum of what went into it without
 * signs, which bounds the rounding. */
struct chunk {
    double expected[CHUNK], weight[CHUNK], values[CHUNK];
};

struct collective_state {
    struct cm_context *context;
    enum cm_collective op;
    enum cm_dtype dtype;
    bool in_place;
    uint64_t part; /* elements of one rank's part, or of all where there is none */
    uint64_t send_count, recv_count;   /* elements of a rank's buffers */
    uint64_t send_stride, recv_stride; /* bytes from set to set */
    unsigned sets;
    char *send, *recv; /* slabs; the same where in place */
    char *scratch;     /* device: a chunk */
    char *raw;         /* host: a chunk */
    struct chunk *chunk;
};

#define FIELD(name) offsetof(struct collective_params, name)
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

static bool sums(enum cm_collective op, bool in_place)
{
    return (op == CM_ALL_REDUCE && !in_place) || op == CM_REDUCE_SCATTER;
}

static enum cm_status collective_validate(const void *memory, const char *where)
{
    const struct collective_params *params = memory;
    enum cm_collective op = (enum cm_collective)params->op;
    size_t element = cm_dtype_size(dtypes[params->dtype]);
    if (params->size_bytes > 0 && params->size_bytes < element)
        return cm_error(CM_USAGE, "%s: size is less than one element of %zu bytes", where, element);
    if (params->size_bytes > (uint64_t)1 << 56)
        return cm_error(CM_USAGE, "%s: size is over 2^56 bytes", where);
    if (dtypes[params->dtype] == CM_I8 && sums(op, params->in_place))
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

static enum cm_status choose_counts(struct collective_state *state, uint64_t size_bytes)
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

static enum cm_status take(struct collective_state *state, enum cm_memory_kind kind, uint64_t bytes,
                           char **memory)
{
    void *block;
    enum cm_status status = cm_context_alloc(state->context, kind, bytes, &block);
    if (status == CM_OK)
        *memory = block;
    return status;
}

static enum cm_status allocate(struct collective_state *state)
{
    uint64_t chunk = CHUNK * cm_dtype_size(state->dtype);
    enum cm_status status =
        take(state, CM_MEMORY_COMM, state->recv_stride * state->sets, &state->recv);
    if (status == CM_OK && !state->in_place)
        status = take(state, CM_MEMORY_COMM, state->send_stride * state->sets, &state->send);
    if (status == CM_OK)
        status = take(state, CM_MEMORY_DEVICE, chunk, &state->scratch);
    if (status == CM_OK)
        status = take(state, CM_MEMORY_HOST, chunk, &state->raw);
    if (status != CM_OK)
        return status;
    state->chunk = cm_alloc(1, sizeof *state->chunk);
    if (state->chunk == NULL)
        return CM_NO_MEMORY;
    bool holds_input = state->in_place;
    if (state->op == CM_BROADCAST)
        holds_input = state->context->comm->rank == ROOT;
    if (state->in_place)
        state->send = state->recv;
    if (holds_input)
        return CM_OK;
    return cm_context_output(state->context, state->recv, state->recv_stride * state->sets);
}

static uint64_t input_seed(const struct collective_state *state, unsigned rank, uint64_t set)
{
    return cm_random_seed(state->context->seed, "collective", rank, set);
}

static enum cm_status collective_setup(struct cm_context *context, const void *memory, void *space)
{
    struct collective_state *state = space;
    const struct collective_params *params = memory;
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
    bool has_input = state->op != CM_BROADCAST || context->comm->rank == ROOT;
    for (unsigned set = 0; set < state->sets && has_input && status == CM_OK; set++)
        status = context->device->kernels->fill_normal(
            context->stream, state->send + set * state->send_stride, state->send_count,
            state->dtype, input_seed(state, context->comm->rank, set), 0);
    return status == CM_OK ? cm_context_sync(context) : status;
}

static enum cm_status collective_enqueue(void *memory, unsigned index, uint64_t iteration)
{
    (void)index;
    const struct collective_state *state = memory;
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
        return comm->ops->broadcast(comm, stream, recv, state->part, state->dtype, ROOT);
    case CM_COLLECTIVE_COUNT:
        break;
    }
    return cm_error(CM_INTERNAL, "collective: operation %d", (int)state->op);
}

static void collective_work(const void *memory, unsigned index, struct cm_work *work)
{
    (void)index;
    const struct collective_state *state = memory;
    uint64_t whole = has_parts(state->op) ? state->part * state->context->comm->size : state->part;
    work->message_bytes = (double)cm_collective_bytes(whole, cm_dtype_size(state->dtype));
}

/* Adds what `rank` gives to elements of the output, from its element `first`. */
static enum cm_status add_input(struct collective_state *state, unsigned rank, uint64_t set,
                                uint64_t first, uint64_t count)
{
    struct cm_context *context = state->context;
    struct chunk *chunk = state->chunk;
    enum cm_status status = context->device->kernels->fill_normal(
        context->stream, state->scratch, count, state->dtype, input_seed(state, rank, set), first);
    if (status == CM_OK)
        status = context->device->ops->copy(context->stream, state->raw, state->scratch,
                                            count * cm_dtype_size(state->dtype));
    if (status == CM_OK)
        status = cm_context_sync(context);
    if (status != CM_OK)
        return status;
    cm_dtype_load_all(state->dtype, state->raw, count, chunk->values);
    for (uint64_t i = 0; state->in_place && i < count; i++)
        chunk->expected[i] = fmax(chunk->expected[i], chunk->values[i]);
    for (uint64_t i = 0; !state->in_place && i < count; i++) {
        chunk->expected[i] += chunk->values[i];
        chunk->weight[i] += fabs(chunk->values[i]);
    }
    return CM_OK;
}

/* What elements first .. first + count of this rank's output should be. They are all of one rank's
 * part. */
static enum cm_status expect(struct collective_state *state, uint64_t set, uint64_t first,
                             uint64_t count)
{
    const struct cm_comm *comm = state->context->comm;
    for (uint64_t i = 0; i < count; i++) {
        state->chunk->expected[i] = state->in_place ? -(double)INFINITY : 0;
        state->chunk->weight[i] = 0;
    }
    unsigned owner = (unsigned)(first / state->part);
    uint64_t within = first % state->part;
    if (state->op == CM_ALL_GATHER)
        return add_input(state, owner, set, within, count);
    if (state->op == CM_ALL_TO_ALL)
        return add_input(state, owner, set, comm->rank * state->part + within, count);
    if (state->op == CM_BROADCAST)
        return add_input(state, ROOT, set, first, count);
    if (state->op == CM_REDUCE_SCATTER)
        first += comm->rank * state->part;
    enum cm_status status = CM_OK;
    for (unsigned rank = 0; rank < comm->size && status == CM_OK; rank++)
        status = add_input(state, rank, set, first, count);
    return status;
}

static void compare(struct collective_state *state, uint64_t set, uint64_t first, uint64_t count,
                    struct cm_check *check)
{
    struct chunk *chunk = state->chunk;
    /* n - 1 additions in any order: |error| <= g sum |x|, g = (n-1)u / (1 - (n-1)u). */
    double units = (state->context->comm->size - 1) * cm_dtype_step(state->dtype) / 2;
    double growth = sums(state->op, state->in_place) ? units / (1 - fmin(units, 0.5)) : 0;
    cm_dtype_load_all(state->dtype, state->raw, count, chunk->values);
    check->checked += count;
    for (uint64_t i = 0; i < count; i++) {
        double expected = chunk->expected[i];
        double error = fabs(chunk->values[i] - expected), tolerance = growth * chunk->weight[i];
        if (error <= tolerance) {
            if (error > check->worst * tolerance)
                check->worst = error / tolerance;
            continue;
        }
        check->worst = (double)INFINITY;
        if (check->mismatches++ == 0)
            snprintf(check->detail, sizeof check->detail,
                     "rank %u set %u element %llu is %.9g, should be %.9g",
                     state->context->comm->rank, (unsigned)set, (unsigned long long)(first + i),
                     chunk->values[i], expected);
    }
}

static enum cm_status collective_check(void *memory, unsigned index, uint64_t iterations,
                                       struct cm_check *check)
{
    (void)index;
    struct collective_state *state = memory;
    struct cm_context *context = state->context;
    size_t element = cm_dtype_size(state->dtype);
    uint64_t used = iterations < state->sets ? iterations : state->sets;
    for (uint64_t set = 0; set < used; set++) {
        for (uint64_t first = 0, count; first < state->recv_count; first += count) {
            count = state->part - first % state->part; /* to the end of this rank's part */
            count = count < CHUNK ? count : CHUNK;
            enum cm_status status = expect(state, set, first, count);
            if (status == CM_OK)
                status = context->device->ops->copy(
                    context->stream, state->raw,
                    state->recv + set * state->recv_stride + first * element, count * element);
            if (status == CM_OK)
                status = cm_context_sync(context);
            if (status != CM_OK)
                return status;
            compare(state, set, first, count, check);
        }
    }
    return CM_OK;
}

static const char *collective_algorithm(const void *memory)
{
    const struct collective_state *state = memory;
    struct cm_comm *comm = state->context->comm;
    if (comm->ops->algorithm == NULL)
        return "";
    return comm->ops->algorithm(comm, cm_collective_names[state->op],
                                state->part * cm_dtype_size(state->dtype));
}

static void collective_teardown(void *memory)
{
    struct collective_state *state = memory;
    cm_free(state->chunk);
    state->chunk = NULL;
}

static enum cm_status collective_metrics(const struct cm_metric_input *input,
                                         struct cm_metrics *metrics)
{
    const struct collective_params *params = input->params;
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
    const struct collective_params *first = points[0].params;
    double *sizes = cm_alloc(count, sizeof *sizes), *rates = cm_alloc(count, sizeof *rates);
    enum cm_status status = sizes != NULL && rates != NULL ? CM_OK : CM_NO_MEMORY;
    double peak = 0;
    for (size_t i = 0; i < count && status == CM_OK; i++) {
        const struct collective_params *params = points[i].params;
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
    .params_size = sizeof(struct collective_params),
    .state_size = sizeof(struct collective_state),
    .needs = CM_NEEDS_PEERS,
    .headline = "busbw",
    .validate = collective_validate,
    .setup = collective_setup,
    .enqueue = collective_enqueue,
    .work = collective_work,
    .check = collective_check,
    .algorithm = collective_algorithm,
    .teardown = collective_teardown,
    .metrics = collective_metrics,
    .sweep = "size",
    .summarise = collective_summarise,
};
