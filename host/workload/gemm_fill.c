/*
 * Inputs of gemm. What shares scales is made by the host: the device draws the numbers as f32, in
 * pieces that fit where C will be, and the host quantises them, so that the bits are the same on
 * every device. Every set has the same.
 */
#include "host/workload/gemm.h"

static enum cm_status quantise(struct cm_gemm_state *state, const struct cm_block_matrix *matrix,
                               uint64_t seed, char *host)
{
    struct cm_context *context = state->context;
    const struct cm_device *device = context->device;
    uint64_t size = cm_block_size(matrix->dtype);
    uint64_t blocks = matrix->rows * matrix->columns / size;
    /* C has 256 bytes at least. */
    uint64_t most = state->shapes[0].c_bytes / state->params.batch / sizeof(float) / size;
    enum cm_status status = CM_OK;
    for (uint64_t first = 0; first < blocks && status == CM_OK; first += most) {
        uint64_t count = blocks - first < most ? blocks - first : most;
        status = device->kernels->fill_normal(context->stream, state->c, count * size, CM_F32, seed,
                                              first * size);
        if (status == CM_OK)
            status = device->ops->copy(context->stream, state->host_c, state->c,
                                       count * size * sizeof(float));
        if (status == CM_OK)
            status = cm_context_sync(context);
        if (status == CM_OK)
            cm_block_quantise(matrix, first, count, (const float *)(const void *)state->host_c,
                              host);
    }
    return status;
}

static enum cm_status fill_blocks(struct cm_gemm_state *state, const struct cm_block_matrix *matrix,
                                  uint64_t seed, char *host, char *slab, uint64_t set_bytes)
{
    struct cm_context *context = state->context;
    uint64_t bytes = cm_block_scales(matrix) + cm_block_scale_bytes(matrix);
    enum cm_status status = quantise(state, matrix, seed, host);
    for (unsigned set = 0; set < state->sets && status == CM_OK; set++)
        status = context->device->ops->copy(context->stream, slab + set * set_bytes, host, bytes);
    return status;
}

enum cm_status cm_gemm_fill(struct cm_gemm_state *state)
{
    struct cm_context *context = state->context;
    const struct cm_kernels *kernels = context->device->kernels;
    const struct cm_gemm_shape *largest = &state->shapes[0];
    enum cm_dtype dtype = cm_gemm_stored(&state->params);
    enum cm_status status;
    if (cm_block_size(dtype) > 0) {
        struct cm_block_matrix a, b;
        cm_gemm_operands(&state->params, largest, &a, &b);
        status = fill_blocks(state, &a, state->a_seed, state->host_a, state->a, largest->a_bytes);
        return status == CM_OK ? fill_blocks(state, &b, state->b_seed, state->host_b, state->b,
                                             largest->b_bytes)
                               : status;
    }
    uint64_t size = cm_dtype_size(dtype);
    status = kernels->fill_normal(context->stream, state->a, largest->a_bytes * state->sets / size,
                                  dtype, state->a_seed, 0);
    if (status == CM_OK)
        status =
            kernels->fill_normal(context->stream, state->b, largest->b_bytes * state->sets / size,
                                 dtype, state->b_seed, 0);
    return status;
}
