/* The check of gemm: every element of every set that was used, and a few against the random
 * sequence. */
#include "host/workload/gemm.h"

#include <math.h>
#include <stdio.h>

#include "clustermark/product.h"

enum { SAMPLES = 4 };
/* Multiply-adds that one check may take: 0.1 s on a core of 2020. */
#define CHECK_BUDGET 0x1p28

static double generated(enum cm_dtype dtype, uint64_t seed, uint64_t index)
{
    char element[8];
    double scale = cm_dtype_step(dtype) > 0 ? 1 : 32;
    cm_dtype_store(dtype, scale * (double)cm_random_normal(seed, index), element);
    return cm_dtype_load(dtype, element);
}

/* A few elements from the random sequence itself: were the inputs what they should be? */
static void check_samples(const struct cm_gemm_state *state, const struct cm_gemm_shape *shape,
                          const struct cm_product *product, uint64_t a_first, uint64_t b_first,
                          struct cm_check *check)
{
    enum cm_dtype dtype = cm_gemm_stored(&state->params);
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

static enum cm_status check_matrix(struct cm_gemm_state *state, const struct cm_gemm_shape *shape,
                                   uint64_t set, uint64_t batch, double budget,
                                   struct cm_check *check)
{
    struct cm_context *context = state->context;
    const struct cm_gemm_params *p = &state->params;
    const struct cm_product product = {
        .dtype = (enum cm_dtype)p->dtype,
        .out_dtype = cm_gemm_out(p),
        .m = shape->m,
        .n = shape->n,
        .k = shape->k,
        .trans_a = p->trans >= 2,
        .trans_b = p->trans % 2 == 1,
    };
    enum cm_dtype in = cm_gemm_stored(p), out = cm_gemm_out(p);
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

enum cm_status cm_gemm_check(void *memory, unsigned part, uint64_t iterations,
                             struct cm_check *check)
{
    struct cm_gemm_state *state = memory;
    const struct cm_gemm_shape *shape = cm_gemm_shape_of(state, part);
    uint64_t used = iterations < shape->sets ? iterations : shape->sets;
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
