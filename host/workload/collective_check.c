/*
 * The check of collective. Where data only moves, and for sums of f32 and f64, the device makes
 * what should be there and compares it itself: the first exactly, the second within the rounding of
 * n - 1 additions in any order, twice (what it makes is rounded as well), of the largest inputs
 * there can be. The rest, and what the device finds wrong, is compared on the host, element by
 * element, each sum within what its own inputs allow.
 */
#include "host/workload/collective.h"

#include <math.h>
#include <stdio.h>

/* No random normal number is larger. */
#define LARGEST 4.5

/* Where elements of the output come from: those from `first` of each of `count` ranks' inputs. */
struct source {
    unsigned rank, count;
    uint64_t first;
};

/* Of the output's elements from `first`, all of one rank's part. */
static struct source source_of(const struct cm_collective_state *state, uint64_t first)
{
    const struct cm_comm *comm = state->context->comm;
    unsigned owner = (unsigned)(first / state->part);
    uint64_t within = first % state->part;
    switch (state->op) {
    case CM_ALL_GATHER:
        return (struct source){owner, 1, within};
    case CM_ALL_TO_ALL:
        return (struct source){owner, 1, comm->rank * state->part + within};
    case CM_BROADCAST:
        return (struct source){CM_COLLECTIVE_ROOT, 1, first};
    case CM_REDUCE_SCATTER:
        return (struct source){0, comm->size, comm->rank * state->part + first};
    default:
        return (struct source){0, comm->size, first};
    }
}

/* n - 1 additions in any order: |error| <= g sum |x|, g = (n-1)u / (1 - (n-1)u). */
static double growth_of(const struct cm_collective_state *state)
{
    double units = (state->context->comm->size - 1) * cm_dtype_step(state->dtype) / 2;
    return cm_collective_sums(state->op, state->in_place) ? units / (1 - fmin(units, 0.5)) : 0;
}

/* Adds what `rank` gives to elements of the output, from its element `first`. */
static enum cm_status add_input(struct cm_collective_state *state, unsigned rank, uint64_t set,
                                uint64_t first, uint64_t count)
{
    struct cm_context *context = state->context;
    struct cm_collective_chunk *chunk = state->chunk;
    enum cm_status status =
        context->device->kernels->fill_normal(context->stream, state->scratch, count, state->dtype,
                                              cm_collective_seed(state, rank, set), first);
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

/* What elements first .. first + count of this rank's output should be. */
static enum cm_status expect(struct cm_collective_state *state, uint64_t set, uint64_t first,
                             uint64_t count)
{
    struct source source = source_of(state, first);
    for (uint64_t i = 0; i < count; i++) {
        state->chunk->expected[i] = state->in_place ? -(double)INFINITY : 0;
        state->chunk->weight[i] = 0;
    }
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i < source.count && status == CM_OK; i++)
        status = add_input(state, source.rank + i, set, source.first, count);
    return status;
}

static void compare(struct cm_collective_state *state, uint64_t set, uint64_t first, uint64_t count,
                    struct cm_check *check)
{
    struct cm_collective_chunk *chunk = state->chunk;
    double growth = growth_of(state);
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

static const char *output_at(const struct cm_collective_state *state, uint64_t set, uint64_t first)
{
    return state->recv + set * state->recv_stride + first * cm_dtype_size(state->dtype);
}

static enum cm_status check_on_host(struct cm_collective_state *state, uint64_t set, uint64_t first,
                                    uint64_t count, struct cm_check *check)
{
    struct cm_context *context = state->context;
    enum cm_status status = CM_OK;
    for (uint64_t end = first + count; first < end && status == CM_OK;
         first += CM_COLLECTIVE_CHUNK) {
        uint64_t some = end - first < CM_COLLECTIVE_CHUNK ? end - first : CM_COLLECTIVE_CHUNK;
        status = expect(state, set, first, some);
        if (status == CM_OK)
            status = context->device->ops->copy(context->stream, state->raw,
                                                output_at(state, set, first),
                                                some * cm_dtype_size(state->dtype));
        if (status == CM_OK)
            status = cm_context_sync(context);
        if (status == CM_OK)
            compare(state, set, first, some, check);
    }
    return status;
}

/* Whether the device can make what should be there. */
static bool on_device(const struct cm_collective_state *state)
{
    bool wide = state->dtype == CM_F32 || state->dtype == CM_F64;
    return cm_collective_sums(state->op, state->in_place) ? wide : source_of(state, 0).count == 1;
}

static enum cm_status check_on_device(struct cm_collective_state *state, uint64_t set,
                                      uint64_t first, uint64_t count)
{
    struct cm_context *context = state->context;
    const struct cm_kernels *kernels = context->device->kernels;
    struct source source = source_of(state, first);
    char *sum = state->scratch;
    char *next = sum + CM_COLLECTIVE_PIECE * cm_dtype_size(state->dtype);
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i < source.count && status == CM_OK; i++) {
        status =
            kernels->fill_normal(context->stream, i == 0 ? sum : next, count, state->dtype,
                                 cm_collective_seed(state, source.rank + i, set), source.first);
        if (status == CM_OK && i > 0)
            status = kernels->add(context->stream, sum, sum, next, count, state->dtype);
    }
    if (status == CM_OK)
        status =
            kernels->verify(context->stream, output_at(state, set, first), sum, count, state->dtype,
                            2 * growth_of(state) * source.count * LARGEST, 0, state->verdict);
    return status == CM_OK ? cm_context_sync(context) : status;
}

/* Elements of one part, a piece at most. */
static enum cm_status check_piece(struct cm_collective_state *state, uint64_t set, uint64_t first,
                                  uint64_t count, struct cm_check *check)
{
    if (!on_device(state))
        return check_on_host(state, set, first, count, check);
    enum cm_status status = check_on_device(state, set, first, count);
    if (status != CM_OK)
        return status;
    const struct cm_verify_result *verdict = state->verdict;
    if (verdict->mismatches == 0) {
        check->checked += verdict->checked;
        check->worst = fmax(check->worst, verdict->worst);
        return CM_OK;
    }
    uint64_t before = check->mismatches;
    status = check_on_host(state, set, first, count, check);
    if (status != CM_OK || check->mismatches > before)
        return status;
    /* The device sees what the host does not. */
    check->mismatches += verdict->mismatches;
    check->worst = (double)INFINITY;
    snprintf(check->detail, sizeof check->detail,
             "rank %u set %u: element %llu differs for the device that has it",
             state->context->comm->rank, (unsigned)set,
             (unsigned long long)(first + verdict->first_index));
    return CM_OK;
}

enum cm_status cm_collective_check(void *memory, unsigned index, uint64_t iterations,
                                   struct cm_check *check)
{
    (void)index;
    struct cm_collective_state *state = memory;
    uint64_t used = iterations < state->sets ? iterations : state->sets;
    enum cm_status status = CM_OK;
    for (uint64_t set = 0; set < used; set++) {
        for (uint64_t first = 0, count; first < state->recv_count && status == CM_OK;
             first += count) {
            count = state->part - first % state->part; /* to the end of this rank's part */
            count = count < CM_COLLECTIVE_PIECE ? count : CM_COLLECTIVE_PIECE;
            status = check_piece(state, set, first, count, check);
        }
    }
    return status;
}
