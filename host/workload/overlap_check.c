/* The check of overlap: every product and every message, element by element. */
#include "host/workload/overlap.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/product.h"

#define CHECK_BUDGET 0x1p27

static enum cm_status check_product(struct cm_overlap_state *state, uint64_t set, double budget,
                                    struct cm_check *check)
{
    struct cm_context *context = state->context;
    const struct cm_overlap_params *p = &state->params;
    const struct cm_product product = {
        .dtype = state->dtype, .out_dtype = state->dtype, .m = p->m, .n = p->n, .k = p->k};
    const struct {
        char *to, *from;
        uint64_t bytes;
    } copies[] = {{state->host_a, state->a + set * state->a_bytes, state->a_bytes},
                  {state->host_b, state->b + set * state->b_bytes, state->b_bytes},
                  {state->host_c, state->c + set * state->c_bytes, state->c_bytes}};
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < 3 && status == CM_OK; i++)
        status = context->device->ops->copy(context->stream, copies[i].to, copies[i].from,
                                            copies[i].bytes);
    if (status == CM_OK)
        status = cm_context_sync(context);
    struct cm_product_verdict verdict = {0};
    if (status == CM_OK)
        status = cm_product_check(&product, state->host_a, state->host_b, state->host_c,
                                  cm_random_seed(context->seed, "overlap.check", set, 0), budget,
                                  &verdict);
    if (status != CM_OK)
        return status;
    if (check->mismatches == 0 && verdict.mismatches > 0)
        snprintf(check->detail, sizeof check->detail, "set %u: %.140s", (unsigned)set,
                 verdict.detail);
    check->checked += verdict.checked;
    check->mismatches += verdict.mismatches;
    check->worst = fmax(check->worst, verdict.worst);
    return CM_OK;
}

/* A chunk of the reduced message against the sum of all ranks' inputs, element by element. */
static enum cm_status check_chunk(struct cm_overlap_state *state, uint64_t set, uint64_t first,
                                  uint64_t count, struct cm_check *check)
{
    struct cm_context *context = state->context;
    const struct cm_device *device = context->device;
    size_t size = cm_dtype_size(state->dtype);
    double expected[CM_OVERLAP_REDUCE_CHUNK] = {0}, weight[CM_OVERLAP_REDUCE_CHUNK] = {0},
           values[CM_OVERLAP_REDUCE_CHUNK];
    uint64_t at = set * state->message_stride / size + first;
    enum cm_status status = CM_OK;
    for (unsigned rank = 0; rank < context->comm->size && status == CM_OK; rank++) {
        status = device->kernels->fill_normal(context->stream, state->scratch, count, state->dtype,
                                              cm_overlap_seed(state, rank), at);
        if (status == CM_OK)
            status =
                device->ops->copy(context->stream, state->host_a, state->scratch, count * size);
        if (status == CM_OK)
            status = cm_context_sync(context);
        cm_dtype_load_all(state->dtype, state->host_a, status == CM_OK ? count : 0, values);
        for (uint64_t i = 0; status == CM_OK && i < count; i++) {
            expected[i] += values[i];
            weight[i] += fabs(values[i]);
        }
    }
    if (status == CM_OK)
        status = device->ops->copy(context->stream, state->host_a, state->recv + at * size,
                                   count * size);
    if (status == CM_OK)
        status = cm_context_sync(context);
    if (status != CM_OK)
        return status;
    cm_dtype_load_all(state->dtype, state->host_a, count, values);
    /* n - 1 additions in any order, as in collective.c. */
    double units = (context->comm->size - 1) * cm_dtype_step(state->dtype) / 2;
    double growth = units / (1 - fmin(units, 0.5));
    check->checked += count;
    for (uint64_t i = 0; i < count; i++) {
        if (fabs(values[i] - expected[i]) <= growth * weight[i])
            continue;
        check->worst = (double)INFINITY;
        if (check->mismatches++ == 0)
            snprintf(check->detail, sizeof check->detail,
                     "rank %u set %u: element %llu of the all_reduce is %.9g, should be %.9g",
                     context->comm->rank, (unsigned)set, (unsigned long long)(first + i), values[i],
                     expected[i]);
    }
    return CM_OK;
}

/* The slowest rank's medians of the two, each on its own stream, in the last iterations of both. */
static enum cm_status read_laps(struct cm_overlap_state *state, uint64_t iterations)
{
    struct cm_context *context = state->context;
    const struct cm_device_ops *device = context->device->ops;
    uint64_t count = iterations < CM_OVERLAP_LAPS_MAX ? iterations : CM_OVERLAP_LAPS_MAX;
    double times[CM_LAP_COUNT][CM_OVERLAP_LAPS_MAX], medians[CM_LAP_COUNT];
    enum cm_status status = CM_OK;
    for (uint64_t i = 0; i < count && status == CM_OK; i++) {
        const struct cm_lap *lap = &state->laps[i];
        status = device->elapsed(lap->fork, lap->computed, &times[CM_LAP_COMPUTE][i]);
        if (status == CM_OK)
            status = device->elapsed(lap->fork, lap->join, &times[CM_LAP_COMM][i]);
        if (status == CM_OK && times[CM_LAP_COMM][i] < 0)
            status = cm_error(CM_INTERNAL, "overlap: an all_reduce did not wait for its iteration");
    }
    for (unsigned i = 0; i < CM_LAP_COUNT; i++)
        medians[i] = status == CM_OK ? cm_median(times[i], (size_t)count) : 0;
    memcpy(state->host_a, medians, sizeof medians);
    /* A rank that could not read its events takes part all the same. */
    enum cm_status shared =
        device->copy(context->stream, state->shared, state->host_a, sizeof medians);
    if (shared == CM_OK)
        shared = context->comm->ops->all_reduce(context->comm, context->stream, state->shared,
                                                state->shared, CM_LAP_COUNT, CM_F64, CM_REDUCE_MAX);
    if (shared == CM_OK)
        shared = device->copy(context->stream, state->host_a, state->shared, sizeof medians);
    if (shared == CM_OK)
        shared = cm_context_sync(context);
    if (shared == CM_OK)
        memcpy(state->observed, state->host_a, sizeof state->observed);
    return status != CM_OK ? status : shared;
}

enum cm_status cm_overlap_check(void *memory, unsigned part, uint64_t iterations,
                                struct cm_check *check)
{
    struct cm_overlap_state *state = memory;
    uint64_t messages = iterations < state->sets ? iterations : state->sets;
    uint64_t products = iterations * state->params.products;
    products = products < state->sets ? products : state->sets;
    enum cm_status status = CM_OK;
    for (uint64_t set = 0; part != CM_PART_COMM && set < products && status == CM_OK; set++)
        status = check_product(state, set, CHECK_BUDGET / (double)products, check);
    for (uint64_t set = 0; part != CM_PART_COMPUTE && set < messages; set++) {
        for (uint64_t first = 0; first < state->count && status == CM_OK;
             first += CM_OVERLAP_REDUCE_CHUNK) {
            uint64_t left = state->count - first;
            status =
                check_chunk(state, set, first,
                            left < CM_OVERLAP_REDUCE_CHUNK ? left : CM_OVERLAP_REDUCE_CHUNK, check);
        }
    }
    if (part != CM_PART_BOTH)
        return status;
    enum cm_status laps = read_laps(state, iterations);
    return status != CM_OK ? status : laps;
}
