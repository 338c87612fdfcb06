/* The check of gemm: every element of every set that was used, and a few against the random
 * sequence. */
#include "host/workload/gemm.h"

#include <math.h>
#include <stdio.h>

#include "clustermark/error.h"
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

/* A block from the random sequence, as a matrix of its own; `first` is a multiple of its size. */
static void generate_block(enum cm_dtype dtype, uint64_t seed, uint64_t first,
                           double values[CM_BLOCK_MAX])
{
    const struct cm_block_matrix one = {dtype, 1, cm_block_size(dtype)};
    unsigned char memory[CM_BLOCK_ALIGN + 512];
    float numbers[CM_BLOCK_MAX];
    for (uint64_t i = 0; i < one.columns; i++)
        numbers[i] = cm_random_normal(seed, first + i);
    cm_block_quantise(&one, 0, 1, numbers, memory);
    cm_block_load(&one, memory, 0, 0, one.columns, values);
}

/* C[i][j] of the random sequence. Blocks lie along k, and every set begins the sequence. */
static double expected_element(const struct cm_gemm_state *state, const struct cm_product *p,
                               const uint64_t first[2], uint64_t i, uint64_t j)
{
    enum cm_dtype dtype = cm_gemm_stored(&state->params);
    uint64_t size = cm_block_size(dtype);
    double expected = 0, a_block[CM_BLOCK_MAX] = {0}, b_block[CM_BLOCK_MAX] = {0};
    for (uint64_t l = 0; l < p->k; l++) {
        if (size > 0) {
            if (l % size == 0) {
                generate_block(dtype, state->a_seed, i * p->k + l, a_block);
                generate_block(dtype, state->b_seed, j * p->k + l, b_block);
            }
            expected += a_block[l % size] * b_block[l % size];
            continue;
        }
        uint64_t a = p->trans_a ? l * p->m + i : i * p->k + l;
        uint64_t b = p->trans_b ? j * p->k + l : l * p->n + j;
        expected += generated(dtype, state->a_seed, first[0] + a) *
                    generated(dtype, state->b_seed, first[1] + b);
    }
    return expected;
}

/* A few elements from the random sequence itself: were the inputs what they should be? */
static void check_samples(const struct cm_gemm_state *state, const struct cm_gemm_shape *shape,
                          const struct cm_product *product, const uint64_t first[2],
                          struct cm_check *check)
{
    size_t size = cm_dtype_size(product->out_dtype);
    for (unsigned sample = 0; sample < SAMPLES; sample++) {
        uint64_t place = cm_random_seed(state->a_seed, "gemm.sample", sample, first[0]);
        uint64_t i = place % shape->m, j = (place >> 20) % shape->n;
        double expected = expected_element(state, product, first, i, j);
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

/* The matrices of one product to the host; `first` gets the elements before A and B in their slabs,
 * 0 for those of blocks. */
static enum cm_status fetch(struct cm_gemm_state *state, const struct cm_gemm_shape *shape,
                            uint64_t set, uint64_t batch, uint64_t first[2])
{
    struct cm_context *context = state->context;
    const struct cm_gemm_params *p = &state->params;
    struct cm_block_matrix matrices[3] = {[2] = {cm_gemm_out(p), shape->m, shape->n}};
    cm_gemm_operands(p, shape, &matrices[0], &matrices[1]);
    const struct {
        void *to;
        const char *from;
        uint64_t set_bytes;
    } copies[] = {{state->host_a, state->a, shape->a_bytes},
                  {state->host_b, state->b, shape->b_bytes},
                  {state->host_c, state->c, shape->c_bytes}};
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < 3 && status == CM_OK; i++) {
        uint64_t bytes = 0;
        enum cm_dtype dtype = matrices[i].dtype;
        if (!cm_matrix_bytes(dtype, matrices[i].rows, matrices[i].columns, &bytes))
            return cm_error(CM_INTERNAL, "gemm: a matrix that was made cannot be counted");
        uint64_t place = set * copies[i].set_bytes + batch * bytes;
        if (i < 2)
            first[i] = cm_block_size(dtype) > 0 ? 0 : place / cm_dtype_size(dtype);
        status = context->device->ops->copy(context->stream, copies[i].to, copies[i].from + place,
                                            bytes);
    }
    return status == CM_OK ? cm_context_sync(context) : status;
}

static enum cm_status check_matrix(struct cm_gemm_state *state, const struct cm_gemm_shape *shape,
                                   uint64_t set, uint64_t batch, double budget,
                                   struct cm_check *check)
{
    const struct cm_context *context = state->context;
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
    uint64_t first[2] = {0, 0};
    enum cm_status status = fetch(state, shape, set, batch, first);
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
    check_samples(state, shape, &product, first, check);
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
