/*
 * hostlink: between the host's memory and the device's: to the device (h2d), from it (d2h), or both
 * at once; from memory that is pinned near the device, pinned on the far NUMA node, or pageable.
 *
 * With ranks = all every device is busy at once, and `bandwidth` is the slowest one's,
 * `bandwidth_sum` that of all; with ranks = one each is measured while the others are idle, and
 * `bandwidth` is the slowest one's as well. With both, a rate counts one direction's bytes, as it
 * does for each direction alone, and the time is that until both have ended. `latency` is the time
 * of a small copy that follows another on the stream. `bandwidth.rank<r>`, `latency.rank<r>` are
 * each rank's.
 *
 * The check compares every byte of what was copied with the random sequence.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/model.h"
#include "host/workload/pair_parts.h"

/* Elements looked at together by the check; alignment in bytes. */
enum { CHUNK = 1 << 20, ALIGNMENT = 4096 };

enum direction { H2D, D2H, BOTH };
static const char *const direction_choices[] = {"h2d", "d2h", "both", NULL};
enum memory { PINNED, FAR, PAGEABLE };
static const char *const memory_choices[] = {"pinned", "far", "pageable", NULL};
static const enum cm_memory_kind memory_kinds[] = {CM_MEMORY_HOST, CM_MEMORY_HOST_FAR,
                                                   CM_MEMORY_PAGEABLE};
enum { RANKS_ALL, RANKS_ONE };
static const char *const ranks_choices[] = {"all", "one", NULL};

struct hostlink_params {
    int direction, memory, ranks;
    uint64_t size_bytes, latency_bytes;
};

/* One direction's slabs. */
struct way {
    char *from, *to;
};

struct hostlink_state {
    struct cm_context *context;
    struct hostlink_params params;
    uint64_t stride; /* bytes from set to set */
    unsigned sets;
    struct way ways[BOTH]; /* by direction; NULL where it is not measured */
    struct cm_event *fork, *join;
    char *device_scratch, *host_scratch; /* a chunk each */
    struct cm_verify_result *verdict;
};

#define FIELD(name) offsetof(struct hostlink_params, name)
/* name, type, field, least, most, default, help, choices, capacity, no_list */
static const struct cm_option hostlink_options[] = {
    {"direction", CM_OPTION_CHOICE, FIELD(direction), 0, 0, "h2d",
     "to the device, from it, or both at once", direction_choices, 0, false},
    {"memory", CM_OPTION_CHOICE, FIELD(memory), 0, 0, "pinned",
     "the host's: pinned near the device, pinned on the NUMA node farthest from it, or pageable",
     memory_choices, 0, false},
    {"ranks", CM_OPTION_CHOICE, FIELD(ranks), 0, 0, "all",
     "all devices at once, or one while the others are idle", ranks_choices, 0, false},
    {"size", CM_OPTION_SIZE, FIELD(size_bytes), 4, 0, "256MiB", "bytes of a copy for bandwidth",
     NULL, 0, false},
    {"latency_size", CM_OPTION_SIZE, FIELD(latency_bytes), 4, 0, "8", "bytes of a copy for latency",
     NULL, 0, false},
    {0},
};

static enum cm_status hostlink_validate(const void *memory, const char *where)
{
    const struct hostlink_params *params = memory;
    enum cm_status status = cm_two_sizes_check(params->size_bytes, params->latency_bytes, where);
    if (status != CM_OK)
        return status;
    if (params->direction == BOTH && params->memory == PAGEABLE)
        return cm_error(CM_USAGE,
                        "%s: pageable memory has no both at once: a copy of it keeps the host "
                        "waiting; use memory = pinned or far",
                        where);
    return CM_OK;
}

static bool measures(const struct hostlink_state *state, int way)
{
    return state->params.direction == BOTH || state->params.direction == way;
}

static enum cm_status allocate(struct hostlink_state *state)
{
    enum cm_memory_kind host = memory_kinds[state->params.memory];
    uint64_t slab = state->stride * state->sets;
    enum cm_status status = CM_OK;
    for (int i = H2D; i < BOTH && status == CM_OK; i++) {
        struct way *way = &state->ways[i];
        if (!measures(state, i))
            continue;
        status =
            cm_take_bytes(state->context, i == H2D ? host : CM_MEMORY_DEVICE, slab, &way->from);
        if (status == CM_OK)
            status =
                cm_take_bytes(state->context, i == H2D ? CM_MEMORY_DEVICE : host, slab, &way->to);
        if (status == CM_OK)
            status = cm_context_output(state->context, way->to, slab);
    }
    char *verdict = NULL;
    if (status == CM_OK)
        status = cm_take_bytes(state->context, CM_MEMORY_DEVICE, CHUNK * sizeof(float),
                               &state->device_scratch);
    if (status == CM_OK)
        status = cm_take_bytes(state->context, CM_MEMORY_HOST, CHUNK * sizeof(float),
                               &state->host_scratch);
    if (status == CM_OK)
        status = cm_take_bytes(state->context, CM_MEMORY_HOST, sizeof *state->verdict, &verdict);
    state->verdict = (struct cm_verify_result *)(void *)verdict;
    return status;
}

/* Elements of a slab, from its element `first`, as the device generates them. */
static enum cm_status generate(struct hostlink_state *state, int way, uint64_t first,
                               uint64_t count)
{
    struct cm_context *context = state->context;
    uint64_t seed = cm_random_seed(context->seed, "hostlink", context->comm->rank, (uint64_t)way);
    return context->device->kernels->fill_normal(context->stream, state->device_scratch, count,
                                                 CM_F32, seed, first);
}

static enum cm_status fill(struct hostlink_state *state)
{
    struct cm_context *context = state->context;
    uint64_t all = state->stride * state->sets / sizeof(float);
    enum cm_status status = CM_OK;
    for (int way = H2D; way < BOTH; way++) {
        for (uint64_t first = 0; measures(state, way) && first < all && status == CM_OK;
             first += CHUNK) {
            uint64_t count = all - first < CHUNK ? all - first : CHUNK;
            status = generate(state, way, first, count);
            if (status == CM_OK)
                status = context->device->ops->copy(context->stream,
                                                    state->ways[way].from + first * sizeof(float),
                                                    state->device_scratch, count * sizeof(float));
        }
    }
    return status == CM_OK ? cm_context_sync(context) : status;
}

static enum cm_status hostlink_setup(struct cm_context *context, const void *params, void *memory)
{
    struct hostlink_state *state = memory;
    struct cm_device *device = context->device;
    state->context = context;
    state->params = *(const struct hostlink_params *)params;
    if (device->ops->is_host)
        return cm_error(CM_UNSUPPORTED,
                        "the %s device is the host: there is no link between the two",
                        device->ops->name);
    uint64_t largest = state->params.size_bytes > state->params.latency_bytes
                           ? state->params.size_bytes
                           : state->params.latency_bytes;
    state->stride = (largest + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    unsigned slabs = state->params.direction == BOTH ? 4 : 2;
    enum cm_status status = cm_context_rotation(context, slabs * state->stride, &state->sets);
    if (status == CM_OK)
        status = allocate(state);
    if (status == CM_OK)
        status = device->ops->event_create(device, &state->fork);
    if (status == CM_OK)
        status = device->ops->event_create(device, &state->join);
    return status == CM_OK ? fill(state) : status;
}

/* Part 2r is rank r's latency and the next its bandwidth; with all at once r is 0. */
static unsigned hostlink_part_count(const void *memory)
{
    const struct hostlink_state *state = memory;
    return state->params.ranks == RANKS_ONE ? 2 * state->context->comm->size : 2;
}

static void hostlink_part(const void *memory, unsigned index, struct cm_part *part)
{
    const struct hostlink_state *state = memory;
    const char *name = cm_part_is_bandwidth(index) ? "bandwidth" : "latency";
    /* The host waits for a copy of pageable memory: it cannot be queued ahead. */
    part->live = state->params.memory == PAGEABLE;
    if (state->params.ranks == RANKS_ONE) {
        snprintf(part->name, sizeof part->name, "%s.rank%u", name, index / 2);
        part->idle = state->context->comm->rank != index / 2;
    } else {
        snprintf(part->name, sizeof part->name, "%s", name);
    }
}

static uint64_t bytes_of(const struct hostlink_state *state, unsigned part)
{
    return cm_part_is_bandwidth(part) ? state->params.size_bytes : state->params.latency_bytes;
}

static uint64_t sets_of(const struct hostlink_state *state, unsigned part)
{
    return cm_part_is_bandwidth(part) ? state->sets : 1;
}

static enum cm_status hostlink_enqueue(void *memory, unsigned part, uint64_t iteration)
{
    struct hostlink_state *state = memory;
    struct cm_context *context = state->context;
    const struct cm_device_ops *device = context->device->ops;
    uint64_t offset = iteration % sets_of(state, part) * state->stride;
    uint64_t bytes = bytes_of(state, part);
    const struct way *main = &state->ways[state->params.direction == D2H ? D2H : H2D];
    if (state->params.direction != BOTH)
        return device->copy(context->stream, main->to + offset, main->from + offset, bytes);
    const struct way *other = &state->ways[D2H];
    enum cm_status status = device->event_record(state->fork, context->stream);
    if (status == CM_OK)
        status = device->stream_wait(context->side, state->fork);
    if (status == CM_OK)
        status = device->copy(context->side, other->to + offset, other->from + offset, bytes);
    if (status == CM_OK)
        status = device->event_record(state->join, context->side);
    if (status == CM_OK)
        status = device->copy(context->stream, main->to + offset, main->from + offset, bytes);
    return status == CM_OK ? device->stream_wait(context->stream, state->join) : status;
}

static void hostlink_work(const void *memory, unsigned part, struct cm_work *work)
{
    work->message_bytes = (double)bytes_of(memory, part);
}

/* A chunk that came, against what was generated in `device_scratch`. */
static enum cm_status check_chunk(struct hostlink_state *state, int way, uint64_t first,
                                  uint64_t count, struct cm_check *check)
{
    struct cm_context *context = state->context;
    const struct cm_device *device = context->device;
    const char *found = state->ways[way].to + first * sizeof(float);
    struct cm_verify_result *verdict = state->verdict;
    enum cm_status status =
        way == H2D ? device->kernels->verify(context->stream, found, state->device_scratch, count,
                                             CM_F32, 0, 0, verdict)
                   : device->ops->copy(context->stream, state->host_scratch, state->device_scratch,
                                       count * sizeof(float));
    if (status == CM_OK)
        status = cm_context_sync(context);
    if (status != CM_OK)
        return status;
    if (way == D2H) {
        *verdict = (struct cm_verify_result){.checked = count};
        for (uint64_t i = 0; i < count; i++) {
            bool same = memcmp(found + i * sizeof(float), state->host_scratch + i * sizeof(float),
                               sizeof(float)) == 0;
            if (!same && verdict->mismatches++ == 0)
                verdict->first_index = i;
        }
    }
    check->checked += verdict->checked;
    if (verdict->mismatches > 0 && check->mismatches == 0)
        snprintf(check->detail, sizeof check->detail, "%s: element %llu is not what was sent",
                 direction_choices[way], (unsigned long long)(first + verdict->first_index));
    check->mismatches += verdict->mismatches;
    if (verdict->mismatches > 0)
        check->worst = (double)INFINITY;
    return CM_OK;
}

static enum cm_status hostlink_check(void *memory, unsigned part, uint64_t iterations,
                                     struct cm_check *check)
{
    struct hostlink_state *state = memory;
    uint64_t sets = sets_of(state, part), used = iterations < sets ? iterations : sets;
    uint64_t count = bytes_of(state, part) / sizeof(float);
    enum cm_status status = CM_OK;
    if (state->params.ranks == RANKS_ONE && state->context->comm->rank != part / 2)
        return CM_OK;
    for (int way = H2D; way < BOTH; way++) {
        for (uint64_t set = 0; measures(state, way) && set < used; set++) {
            for (uint64_t at = 0; at < count && status == CM_OK; at += CHUNK) {
                uint64_t left = count - at, some = left < CHUNK ? left : CHUNK;
                uint64_t first = set * state->stride / sizeof(float) + at;
                status = generate(state, way, first, some);
                if (status == CM_OK)
                    status = check_chunk(state, way, first, some, check);
            }
        }
    }
    return status;
}

static void hostlink_teardown(void *memory)
{
    struct hostlink_state *state = memory;
    if (state->context == NULL)
        return;
    state->context->device->ops->event_destroy(state->join);
    state->context->device->ops->event_destroy(state->fork);
}

/* What a rank's link carries, as its telemetry saw it under load; 0 not known. */
static double link_rate(const struct cm_metric_input *input, unsigned rank, char *source,
                        size_t size)
{
    double generation = 0, width = 0;
    if (input->telemetry != NULL) {
        generation = input->telemetry[rank].pcie_generation;
        width = input->telemetry[rank].pcie_width;
    }
    bool known = generation >= 1 && generation <= 99 && width >= 1 && width <= 99;
    double rate =
        known ? cm_link_rate(cm_link_generation_gts((unsigned)generation), (unsigned)width) : 0;
    if (rate > 0)
        snprintf(source, size, "PCIe Gen%.0f x%.0f, one direction, packet headers included",
                 generation, width);
    else
        snprintf(source, size, "not known: generation and width of the PCIe link");
    return rate;
}

static enum cm_status add_rate(struct cm_metrics *metrics, const char *name, double rate,
                               double ceiling, const char *source)
{
    struct cm_metric *metric;
    enum cm_status status = cm_metrics_add(metrics, name, rate, "B/s", CM_HIGHER, &metric);
    if (status != CM_OK)
        return status;
    metric->ceiling = ceiling;
    snprintf(metric->ceiling_source, sizeof metric->ceiling_source, "%s", source);
    return CM_OK;
}

/* Time of one copy on a rank. */
static double copy_s(const struct cm_metric_input *input, unsigned rank, unsigned kind)
{
    const struct hostlink_params *params = input->params;
    unsigned first = params->ranks == RANKS_ONE ? 2 * rank : 0;
    return input->parts[first + kind].rank_median_s[rank];
}

static enum cm_status add_ranks(const struct cm_metric_input *input, struct cm_metrics *metrics)
{
    enum cm_status status = CM_OK;
    for (unsigned rank = 0; rank < input->ranks && status == CM_OK; rank++) {
        char name[CM_METRIC_NAME_MAX], source[96];
        double ceiling = link_rate(input, rank, source, sizeof source);
        snprintf(name, sizeof name, "bandwidth.rank%u", rank);
        status =
            add_rate(metrics, name, input->parts[1].work.message_bytes / copy_s(input, rank, 1),
                     ceiling, source);
        snprintf(name, sizeof name, "latency.rank%u", rank);
        if (status == CM_OK)
            status = cm_metrics_add(metrics, name, copy_s(input, rank, 0), "s", CM_LOWER, NULL);
    }
    return status;
}

static enum cm_status hostlink_metrics(const struct cm_metric_input *input,
                                       struct cm_metrics *metrics)
{
    const struct hostlink_params *params = input->params;
    double bytes = input->parts[1].work.message_bytes, sum = 0, all_links = 0, latency_s = 0;
    unsigned slowest = 0;
    char source[96];
    for (unsigned rank = 0; rank < input->ranks; rank++) {
        double rate = link_rate(input, rank, source, sizeof source);
        sum += bytes / copy_s(input, rank, 1);
        all_links = rate > 0 && all_links >= 0 ? all_links + rate : -1;
        latency_s = fmax(latency_s, copy_s(input, rank, 0));
        if (copy_s(input, rank, 1) > copy_s(input, slowest, 1))
            slowest = rank;
    }
    double ceiling = link_rate(input, slowest, source, sizeof source);
    enum cm_status status =
        add_rate(metrics, "bandwidth", bytes / copy_s(input, slowest, 1), ceiling, source);
    if (status == CM_OK)
        status = cm_metrics_add(metrics, "latency", latency_s, "s", CM_LOWER, NULL);
    if (input->ranks == 1 || status != CM_OK)
        return status;
    if (params->ranks == RANKS_ALL)
        status = add_rate(metrics, "bandwidth_sum", sum, all_links > 0 ? all_links : 0,
                          all_links > 0 ? "the PCIe links of all devices"
                                        : "not known: the PCIe link of some device");
    return status == CM_OK ? add_ranks(input, metrics) : status;
}

const struct cm_workload cm_workload_hostlink = {
    .name = "hostlink",
    .summary = "copies between the host's memory and the device's",
    .options = hostlink_options,
    .params_size = sizeof(struct hostlink_params),
    .state_size = sizeof(struct hostlink_state),
    .headline = "bandwidth",
    .validate = hostlink_validate,
    .setup = hostlink_setup,
    .part_count = hostlink_part_count,
    .part = hostlink_part,
    .enqueue = hostlink_enqueue,
    .work = hostlink_work,
    .check = hostlink_check,
    .teardown = hostlink_teardown,
    .metrics = hostlink_metrics,
};
