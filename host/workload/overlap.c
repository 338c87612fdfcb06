/*
 * overlap: matrix products beside an all-reduce: does communication hide behind compute?
 *
 * Three parts, timed for themselves: compute (the products on the timed stream), comm (an
 * all_reduce on the side stream, forked from and joined to the timed one) and both (the two at
 * once, begun together). T is the median over iterations of the slowest rank's time:
 *
 *   hidden_fraction   1 - (T_both - T_compute) / T_comm: the share of the communication that does
 *                     not lengthen the iteration. 1 is perfect; 0 is no better than one after the
 *                     other; below 0 they hinder each other so much that this would be faster.
 *                     Contention for cores and memory counts as exposed communication. Not clipped.
 *   compute_slowdown  how much longer the products take with the all_reduce beside them than alone,
 *   comm_slowdown     and the other way round: each by events on its own stream, over the last
 *                     iterations of both, against the part of its own; the slowest rank's median.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/model.h"
#include "host/workload/auto_size.h"
#include "host/workload/overlap.h"

enum { ALIGNMENT = 256 };

static const char *const part_names[] = {"compute", "comm", "both"};

static const enum cm_dtype dtypes[] = {CM_F32, CM_BF16, CM_F16, CM_F64};
static const char *const dtype_choices[] = {"f32", "bf16", "f16", "f64", NULL};

#define FIELD(name) offsetof(struct cm_overlap_params, name)
/* name, type, field, least, most, default, help, choices, capacity, no_list */
static const struct cm_option overlap_options[] = {
    {"dtype", CM_OPTION_CHOICE, FIELD(dtype), 0, 0, "f32", "type of the matrices and the message",
     dtype_choices, 0, false},
    {"m", CM_OPTION_COUNT, FIELD(m), 0, 1e7, "0",
     "rows of A and C; 0 for a size that suits the device", NULL, 0, false},
    {"n", CM_OPTION_COUNT, FIELD(n), 0, 1e7, "0",
     "columns of B and C; 0 for a size that suits the device", NULL, 0, false},
    {"k", CM_OPTION_COUNT, FIELD(k), 0, 1e7, "0",
     "columns of A, rows of B; 0 for a size that suits the device", NULL, 0, false},
    {"products", CM_OPTION_COUNT, FIELD(products), 1, 1000, "1", "products of one iteration", NULL,
     0, false},
    {"size", CM_OPTION_SIZE, FIELD(size_bytes), 0, 0, "0",
     "bytes of the all_reduce; 0 for four times those of C", NULL, 0, false},
    {0},
};

/* Bytes of a matrix, rounded up to the alignment. False on overflow. */
static bool matrix_bytes(uint64_t rows, uint64_t columns, enum cm_dtype dtype, uint64_t *bytes)
{
    uint64_t product;
    if (cm_multiply_size(rows, columns, &product) ||
        cm_multiply_size(product, cm_dtype_size(dtype), &product) || product > (uint64_t)1 << 56)
        return false;
    *bytes = (product + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return true;
}

static enum cm_status overlap_validate(const void *memory, const char *where)
{
    const struct cm_overlap_params *p = memory;
    enum cm_dtype dtype = dtypes[p->dtype];
    uint64_t bytes;
    if (!matrix_bytes(p->m, p->k, dtype, &bytes) || !matrix_bytes(p->k, p->n, dtype, &bytes) ||
        !matrix_bytes(p->m, p->n, dtype, &bytes))
        return cm_error(CM_USAGE, "%s: matrices of this shape have over 2^56 bytes", where);
    if ((p->size_bytes > 0 && p->size_bytes < cm_dtype_size(dtype)) || p->size_bytes > (uint64_t)1
                                                                                           << 56)
        return cm_error(CM_USAGE, "%s: size is not between one element and 2^56 bytes", where);
    return CM_OK;
}

static enum cm_status allocate(struct cm_overlap_state *state)
{
    struct cm_context *context = state->context;
    uint64_t sets = state->sets, message = state->message_stride;
    uint64_t host_c = state->c_bytes;
    uint64_t chunk = CM_OVERLAP_REDUCE_CHUNK * cm_dtype_size(state->dtype);
    const struct {
        enum cm_memory_kind kind;
        uint64_t bytes;
        char **memory;
        bool output;
    } rows[] = {
        {CM_MEMORY_DEVICE, state->a_bytes * sets, &state->a, false},
        {CM_MEMORY_DEVICE, state->b_bytes * sets, &state->b, false},
        {CM_MEMORY_DEVICE, state->c_bytes * sets, &state->c, true},
        {CM_MEMORY_COMM, message * sets, &state->send, false},
        {CM_MEMORY_COMM, message * sets, &state->recv, true},
        {CM_MEMORY_DEVICE, chunk, &state->scratch, false},
        {CM_MEMORY_COMM, CM_LAP_COUNT * sizeof(double), &state->shared, false},
        {CM_MEMORY_HOST, state->a_bytes > chunk ? state->a_bytes : chunk, &state->host_a, false},
        {CM_MEMORY_HOST, state->b_bytes > chunk ? state->b_bytes : chunk, &state->host_b, false},
        {CM_MEMORY_HOST, host_c > chunk ? host_c : chunk, &state->host_c, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        void *memory;
        enum cm_status status = cm_context_alloc(context, rows[i].kind, rows[i].bytes, &memory);
        if (status == CM_OK && rows[i].output)
            status = cm_context_output(context, memory, rows[i].bytes);
        if (status != CM_OK)
            return status;
        *rows[i].memory = memory;
    }
    return CM_OK;
}

uint64_t cm_overlap_seed(const struct cm_overlap_state *state, unsigned rank)
{
    return cm_random_seed(state->context->seed, "overlap.message", rank, 0);
}

static enum cm_status fill(struct cm_overlap_state *state)
{
    struct cm_context *context = state->context;
    size_t size = cm_dtype_size(state->dtype);
    unsigned rank = context->comm->rank;
    const struct {
        char *memory;
        uint64_t bytes, seed;
    } rows[] = {
        {state->a, state->a_bytes, cm_random_seed(context->seed, "overlap.a", rank, 0)},
        {state->b, state->b_bytes, cm_random_seed(context->seed, "overlap.b", rank, 0)},
        {state->send, state->message_stride, cm_overlap_seed(state, rank)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum cm_status status = context->device->kernels->fill_normal(
            context->stream, rows[i].memory, rows[i].bytes * state->sets / size, state->dtype,
            rows[i].seed, 0);
        if (status != CM_OK)
            return status;
    }
    return cm_context_sync(context);
}

static enum cm_status create_events(struct cm_overlap_state *state)
{
    struct cm_device *device = state->context->device;
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i < CM_OVERLAP_LAPS_MAX && status == CM_OK; i++) {
        status = device->ops->event_create(device, &state->laps[i].fork);
        if (status == CM_OK)
            status = device->ops->event_create(device, &state->laps[i].computed);
        if (status == CM_OK)
            status = device->ops->event_create(device, &state->laps[i].join);
    }
    return status;
}

/* Sizes of 0. */
static enum cm_status choose_sizes(struct cm_overlap_state *state)
{
    struct cm_context *context = state->context;
    struct cm_overlap_params *p = &state->params;
    const struct cm_device *device = context->device;
    uint64_t left, side;
    enum cm_status status = CM_OK;
    if (p->m == 0 || p->n == 0 || p->k == 0) {
        status = cm_context_memory_left(context, &left);
        side = cm_auto_side(device->ops->is_host, &device->info.flop_rate[state->dtype],
                            status == CM_OK ? left : 0);
        if (status == CM_OK)
            status = cm_auto_agree(context, &side);
        p->m = p->m > 0 ? p->m : side;
        p->n = p->n > 0 ? p->n : side;
        p->k = p->k > 0 ? p->k : side;
    }
    if (p->size_bytes == 0)
        p->size_bytes = 4 * p->m * p->n * cm_dtype_size(state->dtype);
    return status;
}

static enum cm_status overlap_setup(struct cm_context *context, const void *memory, void *space)
{
    struct cm_overlap_state *state = space;
    struct cm_device *device = context->device;
    state->context = context;
    state->params = *(const struct cm_overlap_params *)memory;
    const struct cm_overlap_params *p = &state->params;
    state->dtype = dtypes[p->dtype];
    enum cm_status status = choose_sizes(state);
    if (status != CM_OK)
        return status;
    if (!matrix_bytes(p->m, p->k, state->dtype, &state->a_bytes) ||
        !matrix_bytes(p->k, p->n, state->dtype, &state->b_bytes) ||
        !matrix_bytes(p->m, p->n, state->dtype, &state->c_bytes))
        return cm_error(CM_USAGE, "overlap: the shape overflows");
    state->count = p->size_bytes / cm_dtype_size(state->dtype);
    state->message_stride = (p->size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    const struct cm_gemm_desc desc = {.dtype = state->dtype,
                                      .out_dtype = state->dtype,
                                      .m = p->m,
                                      .n = p->n,
                                      .k = p->k,
                                      .batch = 1};
    status = device->kernels->gemm_plan(device, &desc, &state->gemm);
    if (status == CM_OK)
        status = create_events(state);
    uint64_t set_bytes =
        state->a_bytes + state->b_bytes + state->c_bytes + 2 * state->message_stride;
    if (status == CM_OK)
        status = cm_context_rotation(context, set_bytes, &state->sets);
    if (status == CM_OK)
        status = allocate(state);
    return status == CM_OK ? fill(state) : status;
}

static unsigned overlap_part_count(const void *memory)
{
    (void)memory;
    return CM_PART_COUNT;
}

static void overlap_part(const void *memory, unsigned index, struct cm_part *part)
{
    (void)memory;
    snprintf(part->name, sizeof part->name, "%s", part_names[index]);
}

/* The set of buffers that product number `product` of an iteration uses. */
static uint64_t product_set(const struct cm_overlap_state *state, uint64_t iteration,
                            uint64_t product)
{
    return (iteration * state->params.products + product) % state->sets;
}

static enum cm_status enqueue_comm(struct cm_overlap_state *state, uint64_t iteration)
{
    struct cm_context *context = state->context;
    const struct cm_lap *lap = &state->laps[iteration % CM_OVERLAP_LAPS_MAX];
    const struct cm_device_ops *device = context->device->ops;
    uint64_t offset = iteration % state->sets * state->message_stride;
    enum cm_status status = device->event_record(lap->fork, context->stream);
    if (status == CM_OK)
        status = device->stream_wait(context->side, lap->fork);
    if (status == CM_OK)
        status = context->comm->ops->all_reduce(context->comm, context->side, state->send + offset,
                                                state->recv + offset, state->count, state->dtype,
                                                CM_REDUCE_SUM);
    return status == CM_OK ? device->event_record(lap->join, context->side) : status;
}

static enum cm_status overlap_enqueue(void *memory, unsigned part, uint64_t iteration)
{
    struct cm_overlap_state *state = memory;
    struct cm_context *context = state->context;
    const struct cm_lap *lap = &state->laps[iteration % CM_OVERLAP_LAPS_MAX];
    enum cm_status status = CM_OK;
    if (part != CM_PART_COMPUTE)
        status = enqueue_comm(state, iteration);
    for (uint64_t i = 0; part != CM_PART_COMM && i < state->params.products && status == CM_OK;
         i++) {
        uint64_t set = product_set(state, iteration, i);
        status = context->device->kernels->gemm(
            context->stream, state->gemm, state->a + set * state->a_bytes,
            state->b + set * state->b_bytes, state->c + set * state->c_bytes);
    }
    if (part == CM_PART_BOTH && status == CM_OK)
        status = context->device->ops->event_record(lap->computed, context->stream);
    if (part != CM_PART_COMPUTE && status == CM_OK)
        status = context->device->ops->stream_wait(context->stream, lap->join);
    return status;
}

static void overlap_work(const void *memory, unsigned part, struct cm_work *work)
{
    const struct cm_overlap_state *state = memory;
    const struct cm_overlap_params *p = &state->params;
    if (part != CM_PART_COMM)
        work->flops = cm_gemm_flops(p->m, p->n, p->k, p->products);
    if (part != CM_PART_COMPUTE)
        work->message_bytes = (double)(state->count * cm_dtype_size(state->dtype));
}

static void overlap_observe(const void *memory, double observed[CM_OBSERVED_MAX])
{
    const struct cm_overlap_state *state = memory;
    memcpy(observed, state->observed, sizeof state->observed);
}

static const char *overlap_algorithm(const void *memory)
{
    const struct cm_overlap_state *state = memory;
    return state->gemm != NULL ? state->gemm->algorithm : "";
}

static void overlap_teardown(void *memory)
{
    struct cm_overlap_state *state = memory;
    if (state->context == NULL)
        return;
    const struct cm_device *device = state->context->device;
    for (unsigned i = 0; i < CM_OVERLAP_LAPS_MAX; i++) {
        device->ops->event_destroy(state->laps[i].join);
        device->ops->event_destroy(state->laps[i].computed);
        device->ops->event_destroy(state->laps[i].fork);
    }
    if (state->gemm != NULL)
        device->kernels->gemm_free(state->gemm);
}

/* Of the part alone, in the same statistic as what is observed. */
static double slowest_rank_s(const struct cm_part_samples *part)
{
    double slowest_s = 0;
    for (unsigned rank = 0; rank < part->rank_count; rank++)
        slowest_s = fmax(slowest_s, part->rank_median_s[rank]);
    return slowest_s;
}

static enum cm_status overlap_metrics(const struct cm_metric_input *input,
                                      struct cm_metrics *metrics)
{
    double compute_s = input->parts[CM_PART_COMPUTE].median_s;
    double comm_s = input->parts[CM_PART_COMM].median_s,
           both_s = input->parts[CM_PART_BOTH].median_s;
    const struct {
        const char *name;
        double value;
        const char *unit;
        enum cm_better better;
    } rows[] = {
        {"hidden_fraction", 1 - (both_s - compute_s) / comm_s, "1", CM_HIGHER},
        {"compute_slowdown",
         input->observed[CM_LAP_COMPUTE] / slowest_rank_s(&input->parts[CM_PART_COMPUTE]), "1",
         CM_LOWER},
        {"comm_slowdown",
         input->observed[CM_LAP_COMM] / slowest_rank_s(&input->parts[CM_PART_COMM]), "1", CM_LOWER},
        {"time.compute", compute_s, "s", CM_LOWER},
        {"time.comm", comm_s, "s", CM_LOWER},
        {"time.both", both_s, "s", CM_LOWER},
    };
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && status == CM_OK; i++)
        status = cm_metrics_add(metrics, rows[i].name, rows[i].value, rows[i].unit, rows[i].better,
                                NULL);
    const struct cm_overlap_params *p = input->params;
    if (status == CM_OK && p->size_bytes == 0)
        status = cm_metrics_add(metrics, "size", input->parts[CM_PART_COMM].work.message_bytes, "B",
                                CM_NEITHER, NULL);
    return status;
}

const struct cm_workload cm_workload_overlap = {
    .name = "overlap",
    .summary = "matrix products beside an all_reduce: how much communication hides",
    .options = overlap_options,
    .params_size = sizeof(struct cm_overlap_params),
    .state_size = sizeof(struct cm_overlap_state),
    .needs = CM_NEEDS_PEERS,
    .headline = "hidden_fraction",
    .validate = overlap_validate,
    .setup = overlap_setup,
    .part_count = overlap_part_count,
    .part = overlap_part,
    .enqueue = overlap_enqueue,
    .work = overlap_work,
    .check = cm_overlap_check,
    .algorithm = overlap_algorithm,
    .observe = overlap_observe,
    .teardown = overlap_teardown,
    .metrics = overlap_metrics,
};
