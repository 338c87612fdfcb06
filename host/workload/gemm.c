/*
 * gemm: matrix products on every rank at once, each rank its own.
 *
 * Headline `flop_rate`: 2mnk (times batch) over the median time of the slowest rank, since the
 * slowest device sets the pace of a training job; `flop_rate.rank<r>` names each. With `soak` a
 * second part runs that long, and `flop_rate_sustained` is the rate over its last third: what is
 * left when the device is warm. With `search`, parts are shapes, and `flop_rate` is the best one's.
 *
 * Sizes of 0 are the device's to decide (auto_size.h). `impl = own` takes this project's own kernel
 * in place of the library's.
 *
 * A, B and C lie in slabs that a shape cuts into as many sets as fit: twice the last-level cache in
 * all, however small the shape, so that nothing has to be flushed between iterations; all inputs
 * are random normal. Those of blocks (blocks.h) are quantised by the host, the same in every set.
 * The check covers every element of every set that was used (product.h), and a few elements against
 * the random sequence itself.
 */
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/model.h"
#include "host/workload/auto_size.h"
#include "host/workload/gemm.h"
#include "host/workload/slow_ranks.h"

enum { ALIGNMENT = 256 };
/* cm_context_rotation's sets are few; so many of them make twice a cache when each is this part. */
#define CACHE_PARTS 32

enum search { SEARCH_NONE, SEARCH_QUICK, SEARCH_FULL };
enum { OUT_AUTO, OUT_F32, OUT_BF16 };

static const char *const trans_choices[] = {"nn", "nt", "tn", "tt", NULL};
static const char *const out_choices[] = {"auto", "f32", "bf16", NULL};
/* In the order of enum cm_gemm_impl; the last is another name of the first, for those who look for
 * it by the library's. */
static const char *const impl_choices[] = {"library", "own", "portable", "cublaslt", NULL};
static const char *const search_choices[] = {"none", "quick", "full", NULL};

#define FIELD(name) offsetof(struct cm_gemm_params, name)
/* name, type, field, least, most, default, help, choices, capacity, no_list */
static const struct cm_option gemm_options[] = {
    {"dtype", CM_OPTION_CHOICE, FIELD(dtype), 0, 0, "f32", "type of A and B", cm_dtype_names, 0,
     false},
    {"m", CM_OPTION_COUNT, FIELD(m), 0, 1e7, "0",
     "rows of A and C; 0 for a size that suits the device", NULL, 0, false},
    {"n", CM_OPTION_COUNT, FIELD(n), 0, 1e7, "0",
     "columns of B and C; 0 for a size that suits the device", NULL, 0, false},
    {"k", CM_OPTION_COUNT, FIELD(k), 0, 1e7, "0",
     "columns of A, rows of B; 0 for a size that suits the device", NULL, 0, false},
    {"trans", CM_OPTION_CHOICE, FIELD(trans), 0, 0, "nn",
     "which of A and B are stored transposed (t)", trans_choices, 0, false},
    {"batch", CM_OPTION_COUNT, FIELD(batch), 1, 1e6, "1", "products of one iteration", NULL, 0,
     false},
    {"out", CM_OPTION_CHOICE, FIELD(out), 0, 0, "auto",
     "type of C: auto is that of A and B, f32 for floats of 8 bits or less, i32 for i8; bf16 is "
     "for "
     "bf16 and those",
     out_choices, 0, false},
    {"impl", CM_OPTION_CHOICE, FIELD(impl), 0, 0, "library",
     "whose product: the device's library (cublaslt is another name for it), this project's own, "
     "or "
     "its portable one, without what only some devices have",
     impl_choices, 0, false},
    {"soak", CM_OPTION_TIME, FIELD(soak_s), 0, 86400, "0",
     "then run this long, and report the rate of the last third as sustained", NULL, 0, false},
    {"search", CM_OPTION_CHOICE, FIELD(search), 0, 0, "none",
     "try smaller shapes too: quick 8 values of m, full 64 of m, n and k; the best counts",
     search_choices, 0, false},
    {0},
};

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

enum cm_dtype cm_gemm_stored(const struct cm_gemm_params *params)
{
    return params->dtype == CM_TF32 ? CM_F32 : (enum cm_dtype)params->dtype;
}

/* A float of 8 bits or less. */
static bool is_narrow(const struct cm_gemm_params *params)
{
    enum cm_dtype dtype = (enum cm_dtype)params->dtype;
    return cm_dtype_bits(dtype) <= 8 && dtype != CM_I8;
}

enum cm_dtype cm_gemm_out(const struct cm_gemm_params *params)
{
    if (params->dtype == CM_I8)
        return CM_I32;
    if (params->out == OUT_BF16)
        return CM_BF16;
    return params->out == OUT_F32 || is_narrow(params) ? CM_F32 : cm_gemm_stored(params);
}

void cm_gemm_operands(const struct cm_gemm_params *params, const struct cm_gemm_shape *shape,
                      struct cm_block_matrix *a, struct cm_block_matrix *b)
{
    bool trans_a = params->trans >= 2, trans_b = params->trans % 2 == 1;
    *a = (struct cm_block_matrix){cm_gemm_stored(params), trans_a ? shape->k : shape->m,
                                  trans_a ? shape->m : shape->k};
    *b = (struct cm_block_matrix){cm_gemm_stored(params), trans_b ? shape->n : shape->k,
                                  trans_b ? shape->k : shape->n};
}

/* Bytes of `batch` matrices, rounded up so that the next set is aligned. False on overflow. */
static bool set_bytes(const struct cm_block_matrix *matrix, uint64_t batch, uint64_t *bytes)
{
    uint64_t product;
    if (!cm_matrix_bytes(matrix->dtype, matrix->rows, matrix->columns, &product) ||
        cm_multiply_size(product, batch, &product) || product > (uint64_t)1 << 56)
        return false;
    *bytes = (product + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return true;
}

static bool shape_bytes(const struct cm_gemm_params *params, struct cm_gemm_shape *shape)
{
    struct cm_block_matrix a, b;
    const struct cm_block_matrix c = {cm_gemm_out(params), shape->m, shape->n};
    cm_gemm_operands(params, shape, &a, &b);
    return set_bytes(&a, params->batch, &shape->a_bytes) &&
           set_bytes(&b, params->batch, &shape->b_bytes) &&
           set_bytes(&c, params->batch, &shape->c_bytes);
}

static enum cm_status gemm_validate(const void *memory, const char *where)
{
    const struct cm_gemm_params *params = memory;
    struct cm_gemm_shape shape = {.m = params->m, .n = params->n, .k = params->k};
    if (params->out == OUT_BF16 && params->dtype != CM_BF16 && !is_narrow(params))
        return cm_error(CM_USAGE, "%s: out = bf16 is for bf16 and floats of 8 bits or less, not %s",
                        where, cm_dtype_name((enum cm_dtype)params->dtype));
    if (!shape_bytes(params, &shape))
        return cm_error(CM_USAGE, "%s: matrices of this shape and batch have over 2^56 bytes",
                        where);
    if (params->dtype == CM_I32)
        return cm_error(CM_USAGE, "%s: no device has a product of i32; use i8, which sums to it",
                        where);
    if (params->dtype == CM_I8 && params->out == OUT_F32)
        return cm_error(CM_USAGE, "%s: a product of i8 is i32; leave out = auto", where);
    if (params->search != SEARCH_NONE && cm_block_size((enum cm_dtype)params->dtype) > 0)
        return cm_error(CM_USAGE,
                        "%s: there is no search with %s, whose scales lie where one shape has "
                        "them; give m, n and k",
                        where, cm_dtype_name((enum cm_dtype)params->dtype));
    if (params->search != SEARCH_NONE && params->soak_s > 0)
        return cm_error(CM_USAGE, "%s: search and soak exclude each other; use two sections",
                        where);
    return CM_OK;
}

/* Step i of `steps` equal ones up to `most`; a short rest belongs to the last. */
static uint64_t step_to(uint64_t most, uint64_t i, uint64_t steps)
{
    return i == steps ? most : most / steps * i;
}

/* The largest shape comes first: it decides the size of the slabs. */
static void list_shapes(struct cm_gemm_state *state)
{
    const struct cm_gemm_params *p = &state->params;
    uint64_t steps = p->search == SEARCH_QUICK ? 8 : p->search == SEARCH_FULL ? 4 : 1;
    uint64_t others = p->search == SEARCH_FULL ? 4 : 1;
    uint64_t m = least(p->m, steps), n = least(p->n, others), k = least(p->k, others);
    for (uint64_t place = m * n * k; place-- > 0;) {
        struct cm_gemm_shape *shape = &state->shapes[state->shape_count++];
        shape->m = step_to(p->m, place % m + 1, m);
        shape->n = step_to(p->n, place / m % n + 1, n);
        shape->k = step_to(p->k, place / m / n + 1, k);
    }
}

static enum cm_status plan_shapes(struct cm_gemm_state *state)
{
    struct cm_device *device = state->context->device;
    const struct cm_gemm_params *p = &state->params;
    for (unsigned i = 0; i < state->shape_count; i++) {
        struct cm_gemm_shape *shape = &state->shapes[i];
        struct cm_gemm_desc desc = {
            .dtype = (enum cm_dtype)p->dtype,
            .out_dtype = cm_gemm_out(p),
            .m = shape->m,
            .n = shape->n,
            .k = shape->k,
            .batch = p->batch,
            .trans_a = p->trans >= 2,
            .trans_b = p->trans % 2 == 1,
            .impl = p->impl <= CM_GEMM_PORTABLE ? (enum cm_gemm_impl)p->impl : CM_GEMM_LIBRARY,
        };
        if (!shape_bytes(p, shape))
            return cm_error(CM_USAGE, "gemm: the shape overflows");
        enum cm_status status = device->kernels->gemm_plan(device, &desc, &shape->gemm);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

static enum cm_status allocate(struct cm_gemm_state *state, unsigned sets)
{
    struct cm_context *context = state->context;
    const struct cm_gemm_shape *largest = &state->shapes[0];
    uint64_t a = largest->a_bytes * sets, b = largest->b_bytes * sets, c = largest->c_bytes * sets;
    const struct {
        enum cm_memory_kind kind;
        uint64_t bytes;
        char **memory;
    } rows[] = {
        {CM_MEMORY_DEVICE, a, &state->a},
        {CM_MEMORY_DEVICE, b, &state->b},
        {CM_MEMORY_DEVICE, c, &state->c},
        {CM_MEMORY_HOST, largest->a_bytes / state->params.batch + ALIGNMENT, &state->host_a},
        {CM_MEMORY_HOST, largest->b_bytes / state->params.batch + ALIGNMENT, &state->host_b},
        {CM_MEMORY_HOST, largest->c_bytes / state->params.batch + ALIGNMENT, &state->host_c},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        void *memory;
        enum cm_status status = cm_context_alloc(context, rows[i].kind, rows[i].bytes, &memory);
        if (status != CM_OK)
            return status;
        *rows[i].memory = memory;
    }
    for (unsigned i = 0; i < state->shape_count; i++) {
        struct cm_gemm_shape *shape = &state->shapes[i];
        uint64_t fit = least(least(a / shape->a_bytes, b / shape->b_bytes), c / shape->c_bytes);
        shape->sets = (unsigned)least(fit, UINT32_MAX);
    }
    return cm_context_output(context, state->c, c);
}

/* Small matrices rotate several sets at a time. */
static enum cm_status choose_sets(struct cm_gemm_state *state)
{
    struct cm_context *context = state->context;
    const struct cm_gemm_shape *largest = &state->shapes[0];
    uint64_t set_bytes = largest->a_bytes + largest->b_bytes + largest->c_bytes;
    uint64_t part_bytes = context->device->info.cache_bytes / CACHE_PARTS;
    unsigned together = part_bytes > set_bytes ? (unsigned)(part_bytes / set_bytes) + 1 : 1, rounds;
    enum cm_status status = cm_context_rotation(context, together * set_bytes, &rounds);
    state->sets = rounds * together;
    return status;
}

/* Sizes of 0. */
static enum cm_status choose_sizes(struct cm_gemm_state *state)
{
    struct cm_context *context = state->context;
    struct cm_gemm_params *p = &state->params;
    const struct cm_device *device = context->device;
    uint64_t left, side;
    if (p->m > 0 && p->n > 0 && p->k > 0)
        return CM_OK;
    enum cm_status status = cm_context_memory_left(context, &left);
    if (status != CM_OK)
        return status;
    side = cm_auto_side(device->ops->is_host, &device->info.flop_rate[p->dtype], left);
    status = cm_auto_agree(context, &side);
    if (status != CM_OK)
        return status;
    p->m = p->m > 0 ? p->m : side;
    p->n = p->n > 0 ? p->n : side;
    p->k = p->k > 0 ? p->k : side;
    return CM_OK;
}

static enum cm_status gemm_setup(struct cm_context *context, const void *params, void *memory)
{
    struct cm_gemm_state *state = memory;
    state->context = context;
    state->params = *(const struct cm_gemm_params *)params;
    enum cm_status status = choose_sizes(state);
    if (status != CM_OK)
        return status;
    list_shapes(state);
    status = plan_shapes(state);
    if (status != CM_OK)
        return status;
    status = choose_sets(state);
    if (status != CM_OK)
        return status;
    status = allocate(state, state->sets);
    if (status != CM_OK)
        return status;
    state->a_seed = cm_random_seed(context->seed, "gemm.a", context->comm->rank, 0);
    state->b_seed = cm_random_seed(context->seed, "gemm.b", context->comm->rank, 0);
    status = cm_gemm_fill(state);
    return status == CM_OK ? cm_context_sync(context) : status;
}

static unsigned gemm_part_count(const void *memory)
{
    const struct cm_gemm_state *state = memory;
    return state->params.soak_s > 0 ? 2 : state->shape_count;
}

const struct cm_gemm_shape *cm_gemm_shape_of(const struct cm_gemm_state *state, unsigned part)
{
    return &state->shapes[state->params.soak_s > 0 ? 0 : part];
}

static void gemm_part(const void *memory, unsigned index, struct cm_part *part)
{
    const struct cm_gemm_state *state = memory;
    const struct cm_gemm_shape *shape = cm_gemm_shape_of(state, index);
    if (state->params.soak_s > 0) {
        snprintf(part->name, sizeof part->name, "%s", index == 0 ? "burst" : "sustained");
        part->min_time_s = index == 0 ? 0 : state->params.soak_s;
        part->fixed_time = index == 1;
    } else if (state->shape_count > 1) {
        snprintf(part->name, sizeof part->name, "%llux%llux%llu", (unsigned long long)shape->m,
                 (unsigned long long)shape->n, (unsigned long long)shape->k);
    }
}

/* The shape, for figures of one that the device decided. */
static void gemm_observe(const void *memory, double observed[CM_OBSERVED_MAX])
{
    const struct cm_gemm_state *state = memory;
    observed[0] = (double)state->shapes[0].m;
    observed[1] = (double)state->shapes[0].n;
    observed[2] = (double)state->shapes[0].k;
}

static enum cm_status gemm_enqueue(void *memory, unsigned part, uint64_t iteration)
{
    struct cm_gemm_state *state = memory;
    struct cm_context *context = state->context;
    const struct cm_gemm_shape *shape = cm_gemm_shape_of(state, part);
    uint64_t set = iteration % shape->sets;
    return context->device->kernels->gemm(
        context->stream, shape->gemm, state->a + set * shape->a_bytes,
        state->b + set * shape->b_bytes, state->c + set * shape->c_bytes);
}

static void gemm_work(const void *memory, unsigned part, struct cm_work *work)
{
    const struct cm_gemm_state *state = memory;
    const struct cm_gemm_shape *shape = cm_gemm_shape_of(state, part);
    const struct cm_gemm_params *params = &state->params;
    struct cm_block_matrix a, b;
    uint64_t a_bytes = 0, b_bytes = 0, c_bytes = 0;
    cm_gemm_operands(params, shape, &a, &b);
    work->flops = cm_gemm_flops(shape->m, shape->n, shape->k, params->batch);
    /* That they can be counted was seen in setup. */
    (void)(cm_matrix_bytes(a.dtype, a.rows, a.columns, &a_bytes) &&
           cm_matrix_bytes(b.dtype, b.rows, b.columns, &b_bytes) &&
           cm_matrix_bytes(cm_gemm_out(params), shape->m, shape->n, &c_bytes));
    work->bytes = (double)params->batch * ((double)a_bytes + (double)b_bytes + (double)c_bytes);
}

static const char *gemm_algorithm(const void *memory)
{
    const struct cm_gemm_state *state = memory;
    return state->shapes[0].gemm != NULL ? state->shapes[0].gemm->algorithm : "";
}

static void gemm_teardown(void *memory)
{
    struct cm_gemm_state *state = memory;
    for (unsigned i = 0; i < state->shape_count; i++)
        state->context->device->kernels->gemm_free(state->shapes[i].gemm);
}

/* The median time of the slowest rank, over all its samples or the last third of them. */
static enum cm_status slowest_median(const struct cm_part_samples *part, bool last_third,
                                     double *median_s)
{
    double slowest = 0;
    for (unsigned rank = 0; rank < part->rank_count; rank++) {
        double median = last_third ? part->rank_last_s[rank] : part->rank_median_s[rank];
        if (!(median > 0))
            return cm_error(CM_INTERNAL, "gemm: rank %u has no samples", rank);
        slowest = median > slowest ? median : slowest;
    }
    *median_s = slowest;
    return CM_OK;
}

static enum cm_status add_rate(struct cm_metrics *metrics, const char *name, double rate,
                               const struct cm_peak *peak)
{
    struct cm_metric *metric;
    enum cm_status status = cm_metrics_add(metrics, name, rate, "FLOP/s", CM_HIGHER, &metric);
    if (status != CM_OK)
        return status;
    metric->ceiling = peak->value;
    snprintf(metric->ceiling_source, sizeof metric->ceiling_source, "%s", peak->source);
    return CM_OK;
}

/* The rates of the shapes by their names: all that were searched, or the one that was not given. */
static enum cm_status add_shapes(const struct cm_metric_input *input, const double *rates,
                                 unsigned shapes, struct cm_metrics *metrics)
{
    const struct cm_gemm_params *params = input->params;
    const struct cm_peak *peak = &input->device->flop_rate[params->dtype];
    char name[CM_METRIC_NAME_MAX];
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i < shapes && shapes > 1 && status == CM_OK; i++) {
        snprintf(name, sizeof name, "flop_rate.%s", input->parts[i].part.name);
        status = add_rate(metrics, name, rates[i], peak);
    }
    if (shapes > 1 || (params->m > 0 && params->n > 0 && params->k > 0))
        return status;
    snprintf(name, sizeof name, "flop_rate.%.0fx%.0fx%.0f", input->observed[0], input->observed[1],
             input->observed[2]);
    return add_rate(metrics, name, rates[0], peak);
}

static enum cm_status gemm_metrics(const struct cm_metric_input *input, struct cm_metrics *metrics)
{
    const struct cm_gemm_params *params = input->params;
    const struct cm_peak *peak = &input->device->flop_rate[params->dtype];
    unsigned shapes = params->soak_s > 0 ? 1 : input->part_count, best = 0;
    double rates[CM_GEMM_SHAPES_MAX] = {0}, times[CM_GEMM_SHAPES_MAX] = {0}, sustained_s = 0;
    for (unsigned i = 0; i < shapes; i++) {
        enum cm_status status = slowest_median(&input->parts[i], false, &times[i]);
        if (status != CM_OK)
            return status;
        rates[i] = input->parts[i].work.flops / times[i];
        best = rates[i] > rates[best] ? i : best;
    }
    enum cm_status status = add_rate(metrics, "flop_rate", rates[best], peak);
    if (status == CM_OK)
        status = cm_metrics_add(metrics, "time", times[best], "s", CM_LOWER, NULL);
    char name[CM_METRIC_NAME_MAX];
    for (unsigned rank = 0; rank < input->ranks && input->ranks > 1 && status == CM_OK; rank++) {
        const struct cm_part_samples *part = &input->parts[best];
        snprintf(name, sizeof name, "flop_rate.rank%u", rank);
        status = add_rate(metrics, name, part->work.flops / part->rank_median_s[rank], peak);
    }
    if (status == CM_OK)
        status = add_shapes(input, rates, shapes, metrics);
    /* With several parts: of the best shape, or of the device when it is warm. */
    if (status == CM_OK && input->part_count > 1)
        status = cm_metrics_add_energy(metrics, "energy_per_operation",
                                       &input->parts[params->soak_s > 0 ? 1 : best]);
    if (status != CM_OK || !(params->soak_s > 0))
        return status;
    status = slowest_median(&input->parts[1], true, &sustained_s);
    if (status != CM_OK)
        return status;
    return add_rate(metrics, "flop_rate_sustained", input->parts[1].work.flops / sustained_s, peak);
}

/* Of the first shape, or of the device when it is warm. */
static enum cm_status gemm_find(const void *memory, const struct cm_part_samples *parts,
                                unsigned part_count, struct cm_suspects *suspects,
                                struct cm_metrics *metrics)
{
    const struct cm_gemm_state *state = memory;
    (void)metrics;
    return cm_slow_ranks_find(&parts[state->params.soak_s > 0 && part_count > 1 ? 1 : 0],
                              "matrix products", suspects);
}

const struct cm_workload cm_workload_gemm = {
    .name = "gemm",
    .summary = "matrix products on every rank at once",
    .options = gemm_options,
    .params_size = sizeof(struct cm_gemm_params),
    .state_size = sizeof(struct cm_gemm_state),
    .headline = "flop_rate",
    .validate = gemm_validate,
    .setup = gemm_setup,
    .part_count = gemm_part_count,
    .part = gemm_part,
    .enqueue = gemm_enqueue,
    .work = gemm_work,
    .check = cm_gemm_check,
    .algorithm = gemm_algorithm,
    .observe = gemm_observe,
    .find = gemm_find,
    .teardown = gemm_teardown,
    .metrics = gemm_metrics,
};
