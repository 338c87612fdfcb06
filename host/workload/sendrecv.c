/*
 * sendrecv: messages between every pair of ranks, one pair after the other, so that a slow link
 * shows by the names of its ends.
 *
 * A pair a-b (a < b) has two parts. latency: an iteration is one small message from a to b and one
 * back; half its time is the latency. bandwidth: an iteration is one message of `size` from a to b,
 * or with `both` one in each direction at once; the rate counts one direction's bytes, as
 * nccl-tests' sendrecv does, and the time is the slower end's. Headline: the median over pairs.
 *
 * Pairs grow with the square of the ranks, so more than 64 are refused.
 */
#include <stdio.h>

#include "clustermark/error.h"
#include "host/workload/auto_size.h"
#include "host/workload/pair_parts.h"

enum { RANKS_MAX = 64, ALIGNMENT = 256 };

struct sendrecv_params {
    uint64_t size_bytes, latency_bytes;
    bool both, rotate;
};

struct sendrecv_state {
    struct cm_context *context;
    struct sendrecv_params params;
    uint64_t stride; /* bytes from one set's large message to the next */
    unsigned sets;
    char *send, *recv;             /* slabs of large messages */
    char *small_send, *small_recv; /* one small message each */
    char *scratch;                 /* what should have come */
    struct cm_verify_result *verdict;
};

#define FIELD(name) offsetof(struct sendrecv_params, name)
/* name, type, field, least, most, default, help, choices, capacity, no_list */
static const struct cm_option sendrecv_options[] = {
    {"size", CM_OPTION_SIZE, FIELD(size_bytes), 0, 0, "0",
     "bytes of a message for bandwidth; 0 for a size that suits the device", NULL, 0, false},
    {"latency_size", CM_OPTION_SIZE, FIELD(latency_bytes), 4, 0, "8",
     "bytes of a message for latency", NULL, 0, false},
    {"both", CM_OPTION_BOOL, FIELD(both), 0, 0, "no",
     "send in both directions at once for bandwidth", NULL, 0, false},
    {"rotate", CM_OPTION_BOOL, FIELD(rotate), 0, 0, "yes",
     "use further buffers in turn until caches cannot hold them", NULL, 0, false},
    {0},
};

static enum cm_status sendrecv_validate(const void *memory, const char *where)
{
    const struct sendrecv_params *params = memory;
    return cm_two_sizes_check(params->size_bytes, params->latency_bytes, where);
}

/* Two parts for each pair: 2 * pair is latency, the next one bandwidth. */
static unsigned pair_count(unsigned ranks)
{
    return ranks * (ranks - 1) / 2;
}

static void pair_of(unsigned ranks, unsigned part, unsigned *low, unsigned *high)
{
    unsigned pair = part / 2, a = 0;
    while (pair >= ranks - 1 - a) {
        pair -= ranks - 1 - a;
        a++;
    }
    *low = a;
    *high = a + 1 + pair;
}

static enum cm_status allocate(struct sendrecv_state *state)
{
    uint64_t slab = state->stride * state->sets, small = state->params.latency_bytes;
    uint64_t largest = state->stride > small ? state->stride : small;
    char *verdict = NULL;
    const struct {
        enum cm_memory_kind kind;
        uint64_t bytes;
        char **memory;
    } rows[] = {
        {CM_MEMORY_COMM, slab, &state->send},
        {CM_MEMORY_COMM, slab, &state->recv},
        {CM_MEMORY_COMM, small, &state->small_send},
        {CM_MEMORY_COMM, small, &state->small_recv},
        {CM_MEMORY_DEVICE, largest, &state->scratch},
        {CM_MEMORY_HOST, sizeof *state->verdict, &verdict},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum cm_status status =
            cm_take_bytes(state->context, rows[i].kind, rows[i].bytes, rows[i].memory);
        if (status != CM_OK)
            return status;
    }
    state->verdict = (struct cm_verify_result *)(void *)verdict;
    enum cm_status status = cm_context_output(state->context, state->recv, slab);
    if (status == CM_OK)
        status = cm_context_output(state->context, state->small_recv, small);
    return status;
}

static uint64_t message_seed(const struct sendrecv_state *state, unsigned sender, bool large)
{
    return cm_random_seed(state->context->seed, "sendrecv", sender, large);
}

static enum cm_status sendrecv_setup(struct cm_context *context, const void *params, void *memory)
{
    struct sendrecv_state *state = memory;
    unsigned rank = context->comm->rank;
    state->context = context;
    state->params = *(const struct sendrecv_params *)params;
    if (context->comm->size > RANKS_MAX)
        return cm_error(CM_UNSUPPORTED,
                        "sendrecv: %u ranks have %u pairs; at most %d ranks are measured pair by "
                        "pair",
                        context->comm->size, pair_count(context->comm->size), RANKS_MAX);
    uint64_t left;
    enum cm_status status = CM_OK;
    if (state->params.size_bytes == 0) {
        status = cm_context_memory_left(context, &left);
        state->params.size_bytes =
            cm_auto_message(context->device->ops->is_host, status == CM_OK ? left : 0);
    }
    state->stride = (state->params.size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    state->sets = 1;
    if (status == CM_OK && state->params.rotate)
        status = cm_context_rotation(context, 2 * state->stride, &state->sets);
    if (status == CM_OK)
        status = allocate(state);
    const struct cm_kernels *kernels = context->device->kernels;
    if (status == CM_OK)
        status = kernels->fill_normal(context->stream, state->send, state->stride * state->sets / 4,
                                      CM_F32, message_seed(state, rank, true), 0);
    if (status == CM_OK)
        status = kernels->fill_normal(context->stream, state->small_send,
                                      state->params.latency_bytes / 4, CM_F32,
                                      message_seed(state, rank, false), 0);
    return status == CM_OK ? cm_context_sync(context) : status;
}

static unsigned sendrecv_part_count(const void *memory)
{
    const struct sendrecv_state *state = memory;
    return 2 * pair_count(state->context->comm->size);
}

static void sendrecv_part(const void *memory, unsigned index, struct cm_part *part)
{
    const struct sendrecv_state *state = memory;
    unsigned low, high;
    pair_of(state->context->comm->size, index, &low, &high);
    snprintf(part->name, sizeof part->name, "%s.%u-%u",
             cm_part_is_bandwidth(index) ? "bandwidth" : "latency", low, high);
    part->idle = state->context->comm->rank != low && state->context->comm->rank != high;
}

static enum cm_status enqueue_ping_pong(struct sendrecv_state *state, bool first, unsigned peer)
{
    struct cm_comm *comm = state->context->comm;
    struct cm_stream *stream = state->context->stream;
    uint64_t count = state->params.latency_bytes / 4;
    enum cm_status status = CM_OK;
    if (first)
        status = comm->ops->send(comm, stream, state->small_send, count, CM_F32, peer);
    if (status == CM_OK)
        status = comm->ops->recv(comm, stream, state->small_recv, count, CM_F32, peer);
    if (status == CM_OK && !first)
        status = comm->ops->send(comm, stream, state->small_send, count, CM_F32, peer);
    return status;
}

static enum cm_status sendrecv_enqueue(void *memory, unsigned part, uint64_t iteration)
{
    struct sendrecv_state *state = memory;
    struct cm_comm *comm = state->context->comm;
    struct cm_stream *stream = state->context->stream;
    unsigned low, high;
    pair_of(comm->size, part, &low, &high);
    if (comm->rank != low && comm->rank != high)
        return CM_OK;
    bool first = comm->rank == low;
    unsigned peer = first ? high : low;
    if (!cm_part_is_bandwidth(part))
        return enqueue_ping_pong(state, first, peer);
    uint64_t offset = iteration % state->sets * state->stride;
    uint64_t count = state->params.size_bytes / 4;
    if (!state->params.both && first)
        return comm->ops->send(comm, stream, state->send + offset, count, CM_F32, peer);
    if (!state->params.both)
        return comm->ops->recv(comm, stream, state->recv + offset, count, CM_F32, peer);
    return cm_pair_exchange(comm, stream, state->send + offset, state->recv + offset, count, peer);
}

static void sendrecv_work(const void *memory, unsigned part, struct cm_work *work)
{
    const struct sendrecv_state *state = memory;
    bool large = cm_part_is_bandwidth(part);
    work->message_bytes = (double)(large ? state->params.size_bytes : state->params.latency_bytes);
    work->operations = large ? 1 : 2;
}

/* One received message against the sender's random sequence. */
static enum cm_status check_message(struct sendrecv_state *state, unsigned sender, bool large,
                                    uint64_t set, struct cm_check *check)
{
    const struct cm_arrival arrival = {
        .memory = large ? state->recv + set * state->stride : state->small_recv,
        .seed = message_seed(state, sender, large),
        .first = set * state->stride / 4,
        .count = (large ? state->params.size_bytes : state->params.latency_bytes) / 4,
        .sender = sender,
        .set = (unsigned)set,
        .did = "sent",
        .scratch = state->scratch,
        .verdict = state->verdict,
    };
    return cm_arrival_check(state->context, &arrival, check);
}

static enum cm_status sendrecv_check(void *memory, unsigned part, uint64_t iterations,
                                     struct cm_check *check)
{
    struct sendrecv_state *state = memory;
    unsigned rank = state->context->comm->rank, low, high;
    pair_of(state->context->comm->size, part, &low, &high);
    bool large = cm_part_is_bandwidth(part), both = !large || state->params.both;
    if (rank != high && !(rank == low && both)) {
        snprintf(check->nothing, sizeof check->nothing, "rank %u received nothing", rank);
        return CM_OK;
    }
    uint64_t sets = large ? state->sets : 1;
    uint64_t used = iterations < sets ? iterations : sets;
    enum cm_status status = CM_OK;
    for (uint64_t set = 0; set < used && status == CM_OK; set++)
        status = check_message(state, rank == low ? high : low, large, set, check);
    return status;
}

/* Nothing beyond context memory. */
static void sendrecv_teardown(void *memory)
{
    (void)memory;
}

static enum cm_status sendrecv_metrics(const struct cm_metric_input *input,
                                       struct cm_metrics *metrics)
{
    enum cm_status status = cm_pair_figures(input, "the ranks", metrics);
    if (status == CM_OK && ((const struct sendrecv_params *)input->params)->size_bytes == 0)
        status = cm_metrics_add(metrics, "size", input->parts[1].work.message_bytes, "B",
                                CM_NEITHER, NULL);
    return status;
}

const struct cm_workload cm_workload_sendrecv = {
    .name = "sendrecv",
    .summary = "latency and bandwidth between every pair of ranks",
    .options = sendrecv_options,
    .params_size = sizeof(struct sendrecv_params),
    .state_size = sizeof(struct sendrecv_state),
    .needs = CM_NEEDS_PEERS,
    .headline = "bandwidth",
    .validate = sendrecv_validate,
    .setup = sendrecv_setup,
    .part_count = sendrecv_part_count,
    .part = sendrecv_part,
    .enqueue = sendrecv_enqueue,
    .work = sendrecv_work,
    .check = sendrecv_check,
    .teardown = sendrecv_teardown,
    .metrics = sendrecv_metrics,
};
