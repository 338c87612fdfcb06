/*
 * gemm: matrix products on every rank at once, each rank its own.
 *
 * Headline `flop_rate`: 2mnk (times batch) over the median time of the slowest rank, since the
 * slowest device sets the pace of a training job; `flop_rate.rank<r>` names each. With `soak` a
 * second part runs that long, and `flop_rate_sustained` is the rate over its last third: what is
 * left when the device is warm. With `search`, parts are shapes, and `flop_rate` is the best one's.
 *
 * A, B and C lie in slabs that a shape cuts into as many sets as fit, so that caches do not serve
 * the operands; all inputs are random normal. The check covers every element of every set that was
 * used (product.h), and a few elements against the random sequence itself.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/model.h"
#include "clustermark/product.h"
#include "clustermark/workload.h"

enum { SHAPES_MAX = 64, SETS_MAX = 64, SAMPLES = 4, ALIGNMENT = 256 };
/* Multiply-adds that one check may take: 0.1 s on a core of 2020. */
#define CHECK_BUDGET 0x1p28

enum search { SEARCH_NONE, SEARCH_QUICK, SEARCH_FULL };

struct gemm_params {
    int dtype, trans, out, search;
    uint64_t m, n, k, batch;
    double soak_s;
};

struct shape {
    uint64_t m, n, k;
    uint64_t a_bytes, b_bytes, c_bytes; /* of a set, rounded up to the alignment */
    unsigned sets;
    struct cm_gemm *gemm;
};

struct gemm_state {
    struct cm_context *context;
    struct gemm_params params;
    struct shape shapes[SHAPES_MAX];
    unsigned shape_count;
    char *a, *b, *c;                /* slabs */
    char *host_a, *host_b, *host_c; /* one matrix each, for the check */
    uint64_t a_seed, b_seed;
};

/* In the order of enum cm_dtype, up to the last type that a product may have. */
static const char *const dtype_choices[] = {"f64", "f32",    "tf32",   "bf16",
                                            "f16", "f8e4m3", "f8e5m2", NULL};
_Static_assert(CM_F64 == 0 && CM_F8E5M2 == 6, "dtype_choices follows enum cm_dtype");
static const char *const trans_choices[] = {"nn", "nt", "tn", "tt", NULL};
static const char *const out_choices[] = {"same", "f32", NULL};
static const char *const search_choices[] = {"none", "quick", "full", NULL};

#define FIELD(name) offsetof(struct gemm_params, name)
/* name, type, field, least, most, default, help, choices, capacity, no_list */
static const struct cm_option gemm_options[] = {
    {"dtype", CM_OPTION_CHOICE, FIELD(dtype), 0, 0, "f32", "type of A and B", dtype_choices, 0,
     false},
    {"m", CM_OPTION_COUNT, FIELD(m), 1, 1e7, "2048", "rows of A and C", NULL, 0, false},
    {"n", CM_OPTION_COUNT, FIELD(n), 1, 1e7, "2048", "columns of B and C", NULL, 0, false},
    {"k", CM_OPTION_COUNT, FIELD(k), 1, 1e7, "2048", "columns of A, rows of B", NULL, 0, false},
    {"trans", CM_OPTION_CHOICE, FIELD(trans), 0, 0, "nn",
     "which of A and B are stored transposed (t)", trans_choices, 0, false},
    {"batch", CM_OPTION_COUNT, FIELD(batch), 1, 1e6, "1", "products of one iteration", NULL, 0,
     false},
    {"out", CM_OPTION_CHOICE, FIELD(out), 0, 0, "same", "type of C: that of A and B, or f32",
     out_choices, 0, false},
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

static enum cm_dtype in_type(const struct gemm_params *params)
{
    return (enum cm_dtype)params->dtype;
}

/* What the elements in memory are: tf32 is stored as f32. */
static enum cm_dtype stored_type(const struct gemm_params *params)
{
    return in_type(params) == CM_TF32 ? CM_F32 : in_type(params);
}

static enum cm_dtype out_type(const struct gemm_params *params)
{
    return params->out == 1 ? CM_F32 : stored_type(params);
}

/* Bytes of `batch` matrices, rounded up so that the next set is aligned. False on overflow. */
static bool set_bytes(uint64_t rows, uint64_t columns, uint64_t batch, enum cm_dtype dtype,
                      uint64_t *bytes)
{
    uint64_t product;
    if (cm_multiply_size(rows, columns, &product) || cm_multiply_size(product, batch, &product) ||
        cm_multiply_size(product, cm_dtype_size(dtype), &product) || product > (uint64_t)1 << 56)
        return false;
    *bytes = (product + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return true;
}

static bool shape_bytes(const struct gemm_params *params, struct shape *shape)
{
    enum cm_dtype in = stored_type(params);
    return set_bytes(shape->m, shape->k, params->batch, in, &shape->a_bytes) &&
           set_bytes(shape->k, shape->n, params->batch, in, &shape->b_bytes) &&
           set_bytes(shape->m, shape->n, params->batch, out_type(params), &shape->c_bytes);
}

static enum cm_status gemm_validate(const void *memory, const char *where)
{
    const struct gemm_params *params = memory;
    struct shape shape = {.m = params->m, .n = params->n, .k = params->k};
    if (!shape_bytes(params, &shape))
        return cm_error(CM_USAGE, "%s: matrices of this shape and batch have over 2^56 bytes",
                        where);
    if (in_type(params) >= CM_F8E4M3 && params->out == 0)
        return cm_error(CM_USAGE, "%s: a product of 8-bit floats overflows them; set out = f32",
                        where);
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
static void list_shapes(struct gemm_state *state)
{
    const struct gemm_params *p = &state->params;
    uint64_t steps = p->search == SEARCH_QUICK ? 8 : p->search == SEARCH_FULL ? 4 : 1;
    uint64_t others = p->search == SEARCH_FULL ? 4 : 1;
    uint64_t m = least(p->m, steps), n = least(p->n, others), k = least(p->k, others);
    for (uint64_t place = m * n * k; place-- > 0;) {
        struct shape *shape = &state->shapes[state->shape_count++];
        shape->m = step_to(p->m, place % m + 1, m);
        shape->n = step_to(p->n, place / m % n + 1, n);
        shape->k = step_to(p->k, place / m / n + 1, k);
    }
}

static enum cm_status plan_shapes(struct gemm_state *state)
{
    struct cm_device *device = state->context->device;
    const struct gemm_params *p = &state->params;
    for (unsigned i = 0; i < state->shape_count; i++) {
        struct shape *shape = &state->shapes[i];
        struct cm_gemm_desc desc = {
            .dtype = in_type(p),
            .out_dtype = p->out == 1 ? CM_F32 : in_type(p),
            .m = shape->m,
            .n = shape->n,
            .k = shape->k,
            .batch = p->batch,
            .trans_a = p->trans >= 2,
            .trans_b = p->trans % 2 == 1,
        };
        if (!shape_bytes(p, shape))
            return cm_error(CM_USAGE, "gemm: the shape overflows");
        enum cm_status status = device->kernels->gemm_plan(device, &desc, &shape->gemm);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

static enum cm_status allocate(struct gemm_state *state, unsigned sets)
{
    struct cm_context *context = state->context;
    const struct shape *largest = &state->shapes[0];
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
        struct shape *shape = &state->shapes[i];
        uint64_t fit = least(least(a / shape->a_bytes, b / shape->b_bytes), c / shape->c_bytes);
        shape->sets = (unsigned)least(fit, SETS_MAX);
    }
    return cm_context_output(context, state->c, c);
}

static enum cm_status gemm_setup(struct cm_context *context, const void *params, void *memory)
{
    struct gemm_state *state = memory;
    const struct cm_kernels *kernels = context->device->kernels;
    state->context = context;
    state->params = *(const struct gemm_params *)params;
    list_shapes(state);
    enum cm_status status = plan_shapes(state);
    if (status != CM_OK)
        return status;
    const struct shape *largest = &state->shapes[0];
    unsigned sets;
    status =
        cm_context_rotation(context, largest->a_bytes + largest->b_bytes + largest->c_bytes, &sets);
    if (status != CM_OK)
        return status;
    status = allocate(state, sets);
    if (status != CM_OK)
        return status;
    enum cm_dtype dtype = stored_type(&state->params);
    uint64_t size = cm_dtype_size(dtype);
    state->a_seed = cm_random_seed(context->seed, "gemm.a", context->comm->rank, 0);
    state->b_seed = cm_random_seed(context->seed, "gemm.b", context->comm->rank, 0);
    status = kernels->fill_normal(context->stream, state->a, largest->a_bytes * sets / size, dtype,
                                  state->a_seed, 0);
    if (status == CM_OK)
        status = kernels->fill_normal(context->stream, state->b, largest->b_bytes * sets / size,
                                      dtype, state->b_seed, 0);
    return status == CM_OK ? cm_context_sync(context) : status;
}

static unsigned gemm_part_count(const void *memory)
{
    const struct gemm_state *state = memory;
    return state->params.soak_s > 0 ? 2 : state->shape_count;
}

static const struct shape *shape_of(const struct gemm_state *state, unsigned part)
{
    return &state->shapes[state->params.soak_s > 0 ? 0 : part];
}

static void gemm_part(const void *memory, unsigned index, struct cm_part *part)
{
    const struct gemm_state *state = memory;
    const struct shape *shape = shape_of(state, index);
    if (state->params.soak_s > 0) {
        snprintf(part->name, sizeof part->name, "%s", index == 0 ? "burst" : "sustained");
        part->min_time_s = index == 0 ? 0 : state->params.soak_s;
        part->fixed_time = index == 1;
    } else if (state->shape_count > 1) {
        snprintf(part->name, sizeof part->name, "%llux%llux%llu", (unsigned long long)shape->m,
                 (unsigned long long)shape->n, (unsigned long long)shape->k);
    }
}

static enum cm_status gemm_enqueue(void *memory, unsigned part, uint64_t iteration)
{
    struct gemm_state *state = memory;
    struct cm_context *context = state->context;
    const struct shape *shape = shape_of(state, part);
    uint64_t set = iteration % shape->sets;
    return context->device->kernels->gemm(
        context->stream, shape->gemm, state->a + set * shape->a_bytes,
        state->b + set * shape->b_bytes, state->c + set * shape->c_bytes);
}

static void gemm_work(const void *memory, unsigned part, struct cm_work *work)
{
    const struct gemm_state *state = memory;
    const struct shape *shape = shape_of(state, part);
    double m = (double)shape->m, n = (double)shape->n, k = (double)shape->k;
    work->flops = cm_gemm_flops(shape->m, shape->n, shape->k, state->params.batch);
    work->bytes = (double)state->params.batch *
                  ((m * k + k * n) * (double)cm_dtype_size(stored_type(&state->params)) +
                   m * n * (double)cm_dtype_size(out_type(&state->params)));
}

static double generated(enum cm_dtype dtype, uint64_t seed, uint64_t index)
{
    char element[8];
    cm_dtype_store(dtype, (double)cm_random_normal(seed, index), element);
    return cm_dtype_load(dtype, element);
}

/* A few elements from the random sequence itself: were the inputs what they should be? */
static void check_samples(const struct gemm_state *state, const struct shape *shape,
                          const struct cm_product *product, uint64_t a_first, uint64_t b_first,
                          struct cm_check *check)
{
    enum cm_dtype dtype = stored_type(&state->params);
    size_t size = cm_dtype_size(product->out_dtype);
    for (unsigned sample = 0; sample < SAMPLES; sample++) {
        uint64_t place = cm_random_seed(state->a_seed, "gemm.sample", sample, a_first);
        uint64_t i = place % shape->m, j = (place >> 20) % shape->n;
        double expected = 0;
        for (uint64_t l = 0; l < shape->k; l++) {
            uint64_t a = product->trans_a ? l * shape->m + i : i * shape->k + l;
            uint64_t b = product->trans_b ? j * shape->k + l : l * shape->n + j;
            expected += generated(dtype, state->a_seed, a_first + a) *
                        generated(dtype, state->b_seed, b_first + b);
        }
        double found = cm_dtype_load(product->out_dtype, state->host_c + (i * shape->n + j) * size);
        double error = fabs(found - expected) / cm_product_tolerance(product, expected);
        if (error <= 1)
            continue;
        if (check->mismatches++ == 0)
            snprintf(check->detail, sizeof check->detail,
                     "C[%llu][%llu] is %.9g, should be %.9g for the generated inputs",
                     (unsigned long long)i, (unsigned long long)j, found, expected);
        check->worst = (double)INFINITY;
    }
}

static enum cm_status check_matrix(struct gemm_state *state, const struct shape *shape,
                                   uint64_t set, uint64_t batch, double budget,
                                   struct cm_check *check)
{
    struct cm_context *context = state->context;
    const struct gemm_params *p = &state->params;
    const struct cm_product product = {
        .dtype = in_type(p),
        .out_dtype = out_type(p),
        .m = shape->m,
        .n = shape->n,
        .k = shape->k,
        .trans_a = p->trans >= 2,
        .trans_b = p->trans % 2 == 1,
    };
    enum cm_dtype in = stored_type(p), out = out_type(p);
    uint64_t mk = shape->m * shape->k, kn = shape->k * shape->n, mn = shape->m * shape->n;
    /* Where the matrices begin in their slabs, in elements. */
    uint64_t a = set * shape->a_bytes / cm_dtype_size(in) + batch * mk;
    uint64_t b = set * shape->b_bytes / cm_dtype_size(in) + batch * kn;
    uint64_t c = set * shape->c_bytes / cm_dtype_size(out) + batch * mn;
    const struct {
        void *to;
        const char *from;
        uint64_t first, count;
        enum cm_dtype dtype;
    } copies[] = {{state->host_a, state->a, a, mk, in},
                  {state->host_b, state->b, b, kn, in},
                  {state->host_c, state->c, c, mn, out}};
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < 3 && status == CM_OK; i++) {
        size_t size = cm_dtype_size(copies[i].dtype);
        status = context->device->ops->copy(context->stream, copies[i].to,
                                            copies[i].from + copies[i].first * size,
                                            copies[i].count * size);
    }
    if (status == CM_OK)
        status = cm_context_sync(context);
    struct cm_product_verdict verdict = {0};
    if (status == CM_OK)
        status = cm_product_check(&product, state->host_a, state->host_b, state->host_c,
                                  cm_random_seed(context->seed, "gemm.check", set, batch), budget,
                                  &verdict);
    if (status != CM_OK)
        return status;
    if (check->mismatches == 0 && verdict.mismatches > 0)
        snprintf(check->detail, sizeof check->detail, "set %u: %.140s", (unsigned)set,
                 verdict.detail);
    check->checked += verdict.checked;
    check->mismatches += verdict.mismatches;
    check->worst = verdict.worst > check->worst ? verdict.worst : check->worst;
    check_samples(state, shape, &product, a, b, check);
    return CM_OK;
}

static enum cm_status gemm_check(void *memory, unsigned part, uint64_t iterations,
                                 struct cm_check *check)
{
    struct gemm_state *state = memory;
    const struct shape *shape = shape_of(state, part);
    uint64_t used = least(iterations, shape->sets);
    double budget = CHECK_BUDGET / ((double)used * (double)state->params.batch);
    for (uint64_t set = 0; set < used; set++) {
        for (uint64_t batch = 0; batch < state->params.batch; batch++) {
            enum cm_status status = check_matrix(state, shape, set, batch, budget, check);
            if (status != CM_OK)
                return status;
        }
    }
    return CM_OK;
}

static const char *gemm_algorithm(const void *memory)
{
    const struct gemm_state *state = memory;
    return state->shapes[0].gemm != NULL ? state->shapes[0].gemm->algorithm : "";
}

static void gemm_teardown(void *memory)
{
    struct gemm_state *state = memory;
    for (unsigned i = 0; i < state->shape_count; i++)
        state->context->device->kernels->gemm_free(state->shapes[i].gemm);
}

/* The median time of the slowest rank, over all its samples or the last third of them. */
static enum cm_status slowest_median(const struct cm_part_samples *part, bool last_third,
                                     double *median_s)
{
    double slowest = 0;
    for (unsigned rank = 0; rank < part->rank_count; rank++) {
        const struct cm_samples *samples = &part->ranks[rank];
        size_t first = last_third ? samples->count * 2 / 3 : 0;
        double median = cm_median(samples->values + first, samples->count - first);
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

static enum cm_status gemm_metrics(const struct cm_metric_input *input, struct cm_metrics *metrics)
{
    const struct gemm_params *params = input->params;
    const struct cm_peak *peak = &input->device->flop_rate[params->dtype];
    unsigned shapes = params->soak_s > 0 ? 1 : input->part_count, best = 0;
    double rates[SHAPES_MAX] = {0}, times[SHAPES_MAX] = {0}, sustained_s = 0;
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
    for (unsigned i = 0; i < shapes && shapes > 1 && status == CM_OK; i++) {
        snprintf(name, sizeof name, "flop_rate.%s", input->parts[i].part.name);
        status = add_rate(metrics, name, rates[i], peak);
    }
    if (status != CM_OK || !(params->soak_s > 0))
        return status;
    status = slowest_median(&input->parts[1], true, &sustained_s);
    if (status != CM_OK)
        return status;
    return add_rate(metrics, "flop_rate_sustained", input->parts[1].work.flops / sustained_s, peak);
}

const struct cm_workload cm_workload_gemm = {
    .name = "gemm",
    .summary = "matrix products on every rank at once",
    .options = gemm_options,
    .params_size = sizeof(struct gemm_params),
    .state_size = sizeof(struct gemm_state),
    .headline = "flop_rate",
    .validate = gemm_validate,
    .setup = gemm_setup,
    .part_count = gemm_part_count,
    .part = gemm_part,
    .enqueue = gemm_enqueue,
    .work = gemm_work,
    .check = gemm_check,
    .algorithm = gemm_algorithm,
    .teardown = gemm_teardown,
    .metrics = gemm_metrics,
};
