/*
 * p2p: from one device's memory to another's, each pair after the other: the copy engine's copies
 * (engine = copy) or those of a kernel (engine = kernel), by the device that has the data (op =
 * write) or by the one that wants it (op = read).
 *
 * A pair a-b has two parts, latency (the time of a small copy that follows another on the stream)
 * and bandwidth; both are of data that goes from a to b. With `both`, data goes both ways at once:
 * pairs are then a < b, the rate counts one direction's bytes, as sendrecv's does, and the time is
 * the slower end's. Headline: the median over pairs.
 *
 * Devices that cannot reach each other's memory have no figure; `unreachable` counts such pairs and
 * `unreachable.<a>-<b>` names them.
 */
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "host/workload/pair_parts.h"

enum { RANKS_MAX = 32, ALIGNMENT = 4096 };

enum { ENGINE_COPY, ENGINE_KERNEL };
static const char *const engine_choices[] = {"copy", "kernel", NULL};
enum { OP_WRITE, OP_READ };
static const char *const op_choices[] = {"write", "read", NULL};

struct p2p_params {
    int engine, op;
    uint64_t size_bytes, latency_bytes;
    bool both, rotate;
};

struct p2p_state {
    struct cm_context *context;
    struct p2p_params params;
    uint64_t stride; /* bytes from set to set */
    unsigned sets;
    char *block;            /* sets to send, then sets received: what peers see */
    char *peers[RANKS_MAX]; /* their blocks; NULL out of reach */
    char *scratch;          /* what should have come */
    struct cm_verify_result *verdict;
    struct pair {
        unsigned char from, to;
    } pairs[RANKS_MAX * RANKS_MAX]; /* within reach */
    unsigned pair_count;
};

#define FIELD(name) offsetof(struct p2p_params, name)
/* name, type, field, least, most, default, help, choices, capacity, no_list */
static const struct cm_option p2p_options[] = {
    {"engine", CM_OPTION_CHOICE, FIELD(engine), 0, 0, "copy",
     "what moves the data: the copy engine, or a kernel", engine_choices, 0, false},
    {"op", CM_OPTION_CHOICE, FIELD(op), 0, 0, "write",
     "who moves it: the device that has the data writes, or the one that wants it reads",
     op_choices, 0, false},
    {"both", CM_OPTION_BOOL, FIELD(both), 0, 0, "no", "in both directions at once", NULL, 0, false},
    {"size", CM_OPTION_SIZE, FIELD(size_bytes), 4, 0, "256MiB", "bytes of a copy for bandwidth",
     NULL, 0, false},
    {"latency_size", CM_OPTION_SIZE, FIELD(latency_bytes), 4, 0, "8", "bytes of a copy for latency",
     NULL, 0, false},
    {"rotate", CM_OPTION_BOOL, FIELD(rotate), 0, 0, "yes",
     "use further buffers in turn until caches cannot hold them", NULL, 0, false},
    {0},
};

static enum cm_status p2p_validate(const void *memory, const char *where)
{
    const struct p2p_params *params = memory;
    return cm_two_sizes_check(params->size_bytes, params->latency_bytes, where);
}

static enum cm_status allocate(struct p2p_state *state)
{
    uint64_t slab = state->stride * state->sets;
    void *block, *scratch, *verdict;
    enum cm_status status = cm_context_alloc(state->context, CM_MEMORY_DEVICE, 2 * slab, &block);
    if (status != CM_OK)
        return status;
    state->block = block;
    status = cm_context_output(state->context, state->block + slab, slab);
    if (status == CM_OK)
        status = cm_context_alloc(state->context, CM_MEMORY_DEVICE, state->stride, &scratch);
    if (status != CM_OK)
        return status;
    state->scratch = scratch;
    status = cm_context_alloc(state->context, CM_MEMORY_HOST, sizeof *state->verdict, &verdict);
    if (status == CM_OK)
        state->verdict = verdict;
    return status;
}

/* Everyone's block to everyone who can reach it; `reached` tells whom this rank does. */
static enum cm_status import_blocks(struct p2p_state *state, bool reached[RANKS_MAX])
{
    struct cm_context *context = state->context;
    struct cm_device *device = context->device;
    struct cm_memory_handle own, all[RANKS_MAX];
    const void *gathered;
    enum cm_status status = device->ops->memory_export(device, state->block, &own);
    if (status == CM_OK)
        status = cm_context_gather(context, &own, sizeof own, &gathered);
    if (status != CM_OK)
        return status;
    memcpy(all, gathered, context->comm->size * sizeof *all);
    for (unsigned rank = 0; rank < context->comm->size; rank++) {
        void *memory;
        if (rank == context->comm->rank)
            continue;
        status = device->ops->memory_import(device, &all[rank], &memory);
        if (status != CM_OK && status != CM_UNSUPPORTED)
            return status;
        reached[rank] = status == CM_OK;
        if (reached[rank])
            state->peers[rank] = memory;
        else
            cm_warn("p2p: rank %u does not reach the memory of rank %u: %s", context->comm->rank,
                    rank, cm_error_text());
    }
    return CM_OK;
}

/* Ordered pairs, or with `both` those with from < to. */
static bool wanted(const struct p2p_params *params, unsigned from, unsigned to)
{
    return params->both ? from < to : from != to;
}

/* reach[a * ranks + b]: a can access b's memory. */
static void list_pairs(struct p2p_state *state, const bool *reach)
{
    const struct p2p_params *params = &state->params;
    unsigned ranks = state->context->comm->size;
    for (unsigned i = 0; i < ranks * ranks; i++) {
        unsigned from = i / ranks, to = i % ranks;
        bool pushes = reach[from * ranks + to], pulls = reach[to * ranks + from];
        bool possible = params->both ? pushes && pulls : params->op == OP_WRITE ? pushes : pulls;
        if (wanted(params, from, to) && possible)
            state->pairs[state->pair_count++] =
                (struct pair){(unsigned char)from, (unsigned char)to};
    }
}

static enum cm_status meet(struct p2p_state *state)
{
    struct cm_context *context = state->context;
    bool reached[RANKS_MAX] = {false};
    const void *reach;
    enum cm_status status = import_blocks(state, reached);
    if (status == CM_OK)
        status = cm_context_gather(context, reached, context->comm->size * sizeof *reached, &reach);
    if (status != CM_OK)
        return status;
    list_pairs(state, reach);
    if (state->pair_count == 0)
        return cm_error(CM_UNSUPPORTED,
                        "p2p: none of the %u devices can reach the memory of another",
                        context->comm->size);
    return CM_OK;
}

static uint64_t sender_seed(const struct p2p_state *state, unsigned sender)
{
    return cm_random_seed(state->context->seed, "p2p", sender, 0);
}

static enum cm_status p2p_setup(struct cm_context *context, const void *params, void *memory)
{
    struct p2p_state *state = memory;
    const struct cm_device *device = context->device;
    unsigned ranks = context->comm->size;
    state->context = context;
    state->params = *(const struct p2p_params *)params;
    if (device->ops->is_host)
        return cm_error(CM_UNSUPPORTED, "%s ranks share the host's memory: there is no peer's",
                        device->ops->name);
    if (device->ops->memory_export == NULL || device->ops->memory_import == NULL)
        return cm_error(CM_UNSUPPORTED, "the %s device does not share its memory with others",
                        device->ops->name);
    if (ranks > RANKS_MAX)
        return cm_error(CM_UNSUPPORTED, "p2p: %u ranks; at most %d are measured pair by pair",
                        ranks, RANKS_MAX);
    uint64_t largest = state->params.size_bytes > state->params.latency_bytes
                           ? state->params.size_bytes
                           : state->params.latency_bytes;
    state->stride = (largest + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    state->sets = 1;
    enum cm_status status = CM_OK;
    if (state->params.rotate)
        status = cm_context_rotation(context, 2 * state->stride, &state->sets);
    if (status == CM_OK)
        status = allocate(state);
    if (status == CM_OK)
        status = meet(state);
    if (status == CM_OK)
        status = device->kernels->fill_normal(context->stream, state->block,
                                              state->stride * state->sets / sizeof(float), CM_F32,
                                              sender_seed(state, context->comm->rank), 0);
    return status == CM_OK ? cm_context_sync(context) : status;
}

/* Two parts for each pair: 2 * pair is latency, the next one bandwidth. */
static unsigned p2p_part_count(const void *memory)
{
    const struct p2p_state *state = memory;
    return 2 * state->pair_count;
}

/* Whether this rank moves data in the part, and with whom. */
static bool acts(const struct p2p_state *state, unsigned part, unsigned *peer)
{
    const struct pair *pair = &state->pairs[part / 2];
    unsigned rank = state->context->comm->rank;
    *peer = rank == pair->from ? pair->to : pair->from;
    if (state->params.both)
        return rank == pair->from || rank == pair->to;
    return rank == (state->params.op == OP_WRITE ? pair->from : pair->to);
}

static void p2p_part(const void *memory, unsigned index, struct cm_part *part)
{
    const struct p2p_state *state = memory;
    const struct pair *pair = &state->pairs[index / 2];
    unsigned peer;
    snprintf(part->name, sizeof part->name, "%s.%u-%u",
             cm_part_is_bandwidth(index) ? "bandwidth" : "latency", pair->from, pair->to);
    part->idle = !acts(state, index, &peer);
}

static uint64_t bytes_of(const struct p2p_state *state, unsigned part)
{
    return cm_part_is_bandwidth(part) ? state->params.size_bytes : state->params.latency_bytes;
}

static uint64_t sets_of(const struct p2p_state *state, unsigned part)
{
    return cm_part_is_bandwidth(part) ? state->sets : 1;
}

static enum cm_status p2p_enqueue(void *memory, unsigned part, uint64_t iteration)
{
    struct p2p_state *state = memory;
    const struct cm_device *device = state->context->device;
    struct cm_stream *stream = state->context->stream;
    unsigned peer;
    if (!acts(state, part, &peer))
        return CM_OK;
    bool writes = state->params.op == OP_WRITE;
    uint64_t bytes = bytes_of(state, part), slab = state->stride * state->sets;
    uint64_t offset = iteration % sets_of(state, part) * state->stride;
    const char *from = (writes ? state->block : state->peers[peer]) + offset;
    char *to = (writes ? state->peers[peer] : state->block) + slab + offset;
    if (state->params.engine == ENGINE_COPY)
        return device->ops->copy(stream, to, from, bytes);
    return device->kernels->copy(stream, to, from, bytes / sizeof(float), CM_F32);
}

static void p2p_work(const void *memory, unsigned part, struct cm_work *work)
{
    work->message_bytes = (double)bytes_of(memory, part);
}

/* What came, against the sender's random sequence. */
static enum cm_status check_set(struct p2p_state *state, unsigned sender, uint64_t bytes,
                                uint64_t set, struct cm_check *check)
{
    uint64_t at = set * state->stride;
    const struct cm_arrival arrival = {
        .memory = state->block + state->stride * state->sets + at,
        .seed = sender_seed(state, sender),
        .first = at / sizeof(float),
        .count = bytes / sizeof(float),
        .sender = sender,
        .set = (unsigned)set,
        .did = "has",
        .scratch = state->scratch,
        .verdict = state->verdict,
    };
    return cm_arrival_check(state->context, &arrival, check);
}

static enum cm_status p2p_check(void *memory, unsigned part, uint64_t iterations,
                                struct cm_check *check)
{
    struct p2p_state *state = memory;
    const struct pair *pair = &state->pairs[part / 2];
    unsigned rank = state->context->comm->rank;
    bool receives = rank == pair->to || (rank == pair->from && state->params.both);
    if (!receives) {
        snprintf(check->nothing, sizeof check->nothing, "rank %u received nothing", rank);
        return CM_OK;
    }
    uint64_t sets = sets_of(state, part), used = iterations < sets ? iterations : sets;
    enum cm_status status = CM_OK;
    for (uint64_t set = 0; set < used && status == CM_OK; set++)
        status = check_set(state, rank == pair->to ? pair->from : pair->to, bytes_of(state, part),
                           set, check);
    return status;
}

static void p2p_teardown(void *memory)
{
    struct p2p_state *state = memory;
    for (unsigned rank = 0; rank < RANKS_MAX; rank++) {
        if (state->peers[rank] == NULL)
            continue;
        state->context->device->ops->memory_unimport(state->context->device, state->peers[rank]);
    }
}

/* Pairs that no part stands for. Parts are in the order of the pairs. */
static enum cm_status add_unreachable(const struct cm_metric_input *input,
                                      struct cm_metrics *metrics)
{
    unsigned missing = 0, next = 0;
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i < input->ranks * input->ranks && status == CM_OK; i++) {
        char name[CM_METRIC_NAME_MAX], part[CM_METRIC_NAME_MAX];
        unsigned from = i / input->ranks, to = i % input->ranks;
        if (!wanted(input->params, from, to))
            continue;
        snprintf(part, sizeof part, "latency.%u-%u", from, to);
        if (next < input->part_count && strcmp(input->parts[next].part.name, part) == 0) {
            next += 2;
            continue;
        }
        missing++;
        snprintf(name, sizeof name, "unreachable.%u-%u", from, to);
        status = cm_metrics_add(metrics, name, 1, "1", CM_LOWER, NULL);
    }
    if (status == CM_OK && missing > 0)
        status = cm_metrics_add(metrics, "unreachable", missing, "1", CM_LOWER, NULL);
    return status;
}

static enum cm_status p2p_metrics(const struct cm_metric_input *input, struct cm_metrics *metrics)
{
    enum cm_status status = cm_pair_figures(input, "the devices", metrics);
    return status == CM_OK ? add_unreachable(input, metrics) : status;
}

const struct cm_workload cm_workload_p2p = {
    .name = "p2p",
    .summary = "copies between the memories of every pair of devices",
    .options = p2p_options,
    .params_size = sizeof(struct p2p_params),
    .state_size = sizeof(struct p2p_state),
    .needs = CM_NEEDS_PEERS,
    .headline = "bandwidth",
    .validate = p2p_validate,
    .setup = p2p_setup,
    .part_count = p2p_part_count,
    .part = p2p_part,
    .enqueue = p2p_enqueue,
    .work = p2p_work,
    .check = p2p_check,
    .teardown = p2p_teardown,
    .metrics = p2p_metrics,
};
