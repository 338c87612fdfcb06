/* The launch table of the CUDA device: kernels of kernels/, products of cuda_gemm.c. */

#include "clustermark/cuda_kernels.h"
#include "host/device/cuda_api.h"

static struct cm_cuda_device *device_of(struct cm_stream *stream)
{
    return (struct cm_cuda_device *)stream->device;
}

static enum cm_status kernel_copy(struct cm_stream *stream, void *to, const void *from,
                                  uint64_t count, enum cm_dtype dtype)
{
    enum cm_status status;
    if (!cm_cuda_ready(stream, 1, "copy", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_copy(cm_cuda_native(stream), to, from, count * cm_dtype_size(dtype)));
}

/* Whether scale, add and triad have that type. */
static bool is_plain(enum cm_dtype dtype, const char *kernel, enum cm_status *status)
{
    if (dtype == CM_F32 || dtype == CM_F64)
        return true;
    *status = cm_error(CM_UNSUPPORTED, "%s of %s: only f32 and f64", kernel, cm_dtype_name(dtype));
    return false;
}

static enum cm_status kernel_scale(struct cm_stream *stream, void *to, const void *from,
                                   double factor, uint64_t count, enum cm_dtype dtype)
{
    enum cm_status status;
    if (!is_plain(dtype, "scale", &status) || !cm_cuda_ready(stream, 1, "scale", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_scale(cm_cuda_native(stream), to, from, factor, count, dtype));
}

static enum cm_status kernel_add(struct cm_stream *stream, void *to, const void *a, const void *b,
                                 uint64_t count, enum cm_dtype dtype)
{
    enum cm_status status;
    if (!is_plain(dtype, "add", &status) || !cm_cuda_ready(stream, 1, "add", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_add(cm_cuda_native(stream), to, a, b, count, dtype));
}

static enum cm_status kernel_triad(struct cm_stream *stream, void *to, const void *a, const void *b,
                                   double factor, uint64_t count, enum cm_dtype dtype)
{
    enum cm_status status;
    if (!is_plain(dtype, "triad", &status) || !cm_cuda_ready(stream, 1, "triad", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_triad(cm_cuda_native(stream), to, a, b, factor, count, dtype));
}

/* Some kernels clear their result by a launch of its own. */
static enum cm_status kernel_read(struct cm_stream *stream, uint64_t *result, const void *from,
                                  uint64_t size_bytes)
{
    enum cm_status status;
    if (!cm_cuda_ready(stream, 2, "read", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_read(cm_cuda_native(stream), result, from, size_bytes));
}

static enum cm_status kernel_write(struct cm_stream *stream, void *to, uint64_t word,
                                   uint64_t size_bytes)
{
    enum cm_status status;
    if (!cm_cuda_ready(stream, 1, "write", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_write(cm_cuda_native(stream), to, word, size_bytes));
}

static enum cm_status fill_normal(struct cm_stream *stream, void *to, uint64_t count,
                                  enum cm_dtype dtype, uint64_t seed, uint64_t first)
{
    enum cm_status status;
    if (!cm_cuda_ready(stream, 1, "fill_normal", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_fill_normal(cm_cuda_native(stream), to, count, dtype, seed, first,
                                    device_of(stream)->normal_table));
}

struct delivery {
    const struct cm_verify_result *from;
    struct cm_verify_result *to;
};

static enum cm_status deliver(const void *args)
{
    const struct delivery *delivery = args;
    *delivery->to = *delivery->from;
    return CM_OK;
}

/* A result that the device cannot write goes through the stream's own memory. One place is enough:
 * the stream's order keeps one verification from the next. */
static enum cm_status verify(struct cm_stream *base, const void *x, const void *y, uint64_t count,
                             enum cm_dtype dtype, double absolute, double relative,
                             struct cm_verify_result *result)
{
    struct cm_cuda_stream *stream = (struct cm_cuda_stream *)base;
    enum cm_status status;
    if (!cm_cuda_ready(base, 3, "verify", &status))
        return status;
    bool pageable = cm_cuda_is_pageable(result);
    struct cm_verify_result *target = pageable ? &stream->slot->result : result;
    status = CUDA(stream->device,
                  cm_cuda_verify(stream->native, x, y, count, dtype, absolute, relative, target));
    if (status != CM_OK || !pageable)
        return status;
    status = CUDA(stream->device, cudaMemcpyAsync(&stream->pinned->result, target, sizeof *target,
                                                  cudaMemcpyDeviceToHost, stream->native));
    struct delivery delivery = {&stream->pinned->result, result};
    return status == CM_OK ? cm_cuda_call(base, deliver, &delivery, sizeof delivery, "verify")
                           : status;
}

static enum cm_status empty(struct cm_stream *stream)
{
    enum cm_status status;
    if (!cm_cuda_ready(stream, 1, "empty kernel", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_empty(cm_cuda_native(stream)));
}

const struct cm_kernels cm_kernels_cuda = {
    .train = &cm_train_kernels_cuda,
    .copy = kernel_copy,
    .scale = kernel_scale,
    .add = kernel_add,
    .triad = kernel_triad,
    .read = kernel_read,
    .write = kernel_write,
    .fill_normal = fill_normal,
    .verify = verify,
    .empty = empty,
    .gemm_plan = cm_cuda_gemm_plan,
    .gemm = cm_cuda_gemm,
    .gemm_with = cm_cuda_gemm_with,
    .gemm_free = cm_cuda_gemm_free,
};
