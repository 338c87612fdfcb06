/*
 * Element by element: activation functions and their gradients, sums, conversions, and blocks that
 * change places.
 *
 * As in memory.cu, a thread asks for 64 bytes or more before it waits for any; with half the
 * threads that a multiprocessor holds that is still 64 KB in flight, beyond what any GPU needs.
 */
#include "clustermark/cuda_train.h"
#include "kernels/train.cuh"

/* ---- Activation functions ---- */

template <typename T> struct activation_job {
    const T *in, *dout; /* dout: backward only */
    T *out;             /* backward: din */
    uint64_t rows, columns;
};

#define GELU_CUBIC  0.044715f
#define GELU_FACTOR 1.5957691216057308f /* 2 sqrt(2 / pi): tanh(z) is 2 sigmoid(2z) - 1 */

static __device__ __forceinline__ float gelu(float x)
{
    return x * cm_sigmoid(GELU_FACTOR * (x + GELU_CUBIC * x * x * x));
}

static __device__ __forceinline__ float gelu_slope(float x)
{
    float square = GELU_CUBIC * x * x, part = cm_sigmoid(GELU_FACTOR * x * (1 + square));
    return part + x * part * (1 - part) * GELU_FACTOR * (1 + 3 * square);
}

template <typename T, int W, bool GATED>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    activation_kernel(struct activation_job<T> job)
{
    typedef cm_elements<T, W> elements;
    const int INPUTS = GATED ? 2 : 1, TURN = 4 / INPUTS;
    struct cm_walk walk = cm_walk_begin((uint32_t)(job.columns / W));
    while (walk.row < job.rows) {
        typename elements::raw got[TURN][INPUTS];
        T *to[TURN];
#pragma unroll
        for (int k = 0; k < TURN; k++, cm_walk_on(&walk)) {
            to[k] = walk.row < job.rows ? job.out + walk.row * job.columns + walk.column * W : NULL;
            const T *from = job.in + walk.row * INPUTS * job.columns + walk.column * W;
#pragma unroll
            for (int i = 0; i < INPUTS && walk.row < job.rows; i++)
                got[k][i] = cm_load_raw<T, W>(from + i * job.columns);
        }
#pragma unroll
        for (int k = 0; k < TURN; k++) {
            if (to[k] == NULL)
                continue;
            float x[W], values[W];
            elements::open(got[k][0], x);
            elements::open(got[k][INPUTS - 1], values);
#pragma unroll
            for (int w = 0; w < W; w++)
                x[w] = GATED ? x[w] * cm_sigmoid(x[w]) * values[w] : gelu(x[w]);
            cm_store<W>(to[k], x);
        }
    }
}

/* din may be in: a thread has read what it overwrites. */
template <typename T, int W, bool GATED>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    activation_backward_kernel(struct activation_job<T> job)
{
    typedef cm_elements<T, W> elements;
    const int INPUTS = GATED ? 2 : 1, TURN = 2;
    struct cm_walk walk = cm_walk_begin((uint32_t)(job.columns / W));
    while (walk.row < job.rows) {
        typename elements::raw got[TURN][INPUTS], dout[TURN];
        T *to[TURN];
#pragma unroll
        for (int k = 0; k < TURN; k++, cm_walk_on(&walk)) {
            uint64_t at = walk.row * INPUTS * job.columns + walk.column * W;
            to[k] = walk.row < job.rows ? job.out + at : NULL;
            if (walk.row >= job.rows)
                continue;
            dout[k] = cm_load_raw<T, W>(job.dout + walk.row * job.columns + walk.column * W);
#pragma unroll
            for (int i = 0; i < INPUTS; i++)
                got[k][i] = cm_load_raw<T, W>(job.in + at + i * job.columns);
        }
#pragma unroll
        for (int k = 0; k < TURN; k++) {
            if (to[k] == NULL)
                continue;
            float x[W], values[W], d[W];
            elements::open(got[k][0], x);
            elements::open(got[k][INPUTS - 1], values);
            elements::open(dout[k], d);
#pragma unroll
            for (int w = 0; w < W; w++) {
                float part = cm_sigmoid(x[w]), dvalue = d[w] * x[w] * part;
                x[w] = GATED ? d[w] * values[w] * part * (1 + x[w] * (1 - part))
                             : d[w] * gelu_slope(x[w]);
                values[w] = dvalue;
            }
            cm_store<W>(to[k], x);
            if (GATED)
                cm_store<W>(to[k] + job.columns, values);
        }
    }
}

/* ---- Sum of two, conversion ---- */

template <typename TO, typename FROM> struct elements_job {
    TO *to;
    const FROM *a, *b; /* b NULL: conversion */
    uint64_t count;
};

template <typename TO, typename FROM, int W, bool ADD>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    elements_kernel(struct elements_job<TO, FROM> job)
{
    typedef cm_elements<FROM, W> elements;
    const int TURN = ADD ? 2 : 4;
    uint64_t i = cm_grid_thread(), step = cm_grid_threads(), vectors = job.count / W;
    if (i < job.count % W) {
        uint64_t at = vectors * W + i;
        float a[1], b[1] = {0};
        cm_load<1>(job.a + at, a);
        if (ADD)
            cm_load<1>(job.b + at, b);
        a[0] += b[0];
        cm_store<1>(job.to + at, a);
    }
    for (; i < vectors; i += TURN * step) {
        typename elements::raw got[TURN][2];
#pragma unroll
        for (int k = 0; k < TURN; k++) {
            if (i + k * step >= vectors)
                continue;
            got[k][0] = cm_load_raw<FROM, W>(job.a + (i + k * step) * W);
            if (ADD)
                got[k][1] = cm_load_raw<FROM, W>(job.b + (i + k * step) * W);
        }
#pragma unroll
        for (int k = 0; k < TURN; k++) {
            if (i + k * step >= vectors)
                continue;
            float a[W], b[W];
            elements::open(got[k][0], a);
            elements::open(got[k][ADD ? 1 : 0], b);
#pragma unroll
            for (int w = 0; w < W; w++)
                a[w] = ADD ? a[w] + b[w] : a[w];
            cm_store<W>(job.to + (i + k * step) * W, a);
        }
    }
}

/* ---- Blocks change places ---- */

struct reorder_job {
    const uint4 *from;
    uint4 *to;
    enum cm_reorder_kind kind;
    uint32_t rows, columns, vectors; /* of a block */
};

/* Where block `from` goes. */
static __device__ inline uint64_t new_place(const struct reorder_job &job, uint32_t from)
{
    if (job.kind == CM_REORDER_TRANSPOSE)
        return (uint64_t)(from % job.columns) * job.rows + from / job.columns;
    uint32_t last = 2 * job.rows - 1;
    if (job.kind == CM_REORDER_ZIGZAG) /* from: rank-major */
        return from % 2 == 0 ? from / 2 : last - from / 2;
    return from < job.rows ? 2 * from : 2 * (last - from) + 1;
}

static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    reorder_kernel(struct reorder_job job)
{
    const int TURN = 4;
    uint64_t blocks = (uint64_t)job.rows * job.columns;
    struct cm_walk walk = cm_walk_begin(job.vectors);
    while (walk.row < blocks) {
        uint4 got[TURN], *to[TURN];
#pragma unroll
        for (int k = 0; k < TURN; k++, cm_walk_on(&walk)) {
            to[k] = NULL;
            if (walk.row >= blocks)
                continue;
            got[k] = job.from[walk.row * job.vectors + walk.column];
            to[k] = job.to + new_place(job, (uint32_t)walk.row) * job.vectors + walk.column;
        }
#pragma unroll
        for (int k = 0; k < TURN; k++) {
            if (to[k] != NULL)
                *to[k] = got[k];
        }
    }
}

/* ---- Kernel launchers ---- */

template <typename T, int W>
static int launch_activation(cudaStream_t stream, const struct activation_job<T> &job, bool gated)
{
    unsigned blocks;
    int error = cm_stream_grid(job.rows * (job.columns / W), &blocks);
    if (error != cudaSuccess)
        return error;
    if (job.dout == NULL)
        return gated
                   ? CM_LAUNCH((activation_kernel<T, W, true>), blocks, CM_THREADS, 0, stream, job)
                   : CM_LAUNCH((activation_kernel<T, W, false>), blocks, CM_THREADS, 0, stream,
                               job);
    return gated ? CM_LAUNCH((activation_backward_kernel<T, W, true>), blocks, CM_THREADS, 0,
                             stream, job)
                 : CM_LAUNCH((activation_backward_kernel<T, W, false>), blocks, CM_THREADS, 0,
                             stream, job);
}

template <typename T>
static int any_activation(cudaStream_t stream, const struct cm_activation *activation,
                          const void *in, const void *dout, void *out)
{
    struct activation_job<T> job = {
        (const T *)in, (const T *)dout, (T *)out, activation->rows, activation->columns
    };
    if (job.rows == 0 || job.columns == 0)
        return cudaSuccess;
    if (job.columns > UINT32_MAX)
        return cudaErrorInvalidValue;
    if (job.columns % cm_wide<T>::value == 0)
        return launch_activation<T, cm_wide<T>::value>(stream, job, activation->gated);
    return launch_activation<T, 1>(stream, job, activation->gated);
}

int cm_cuda_activation(cudaStream_t stream, const struct cm_activation *activation, const void *in,
                       void *out)
{
    if (activation->dtype == CM_F32)
        return any_activation<float>(stream, activation, in, NULL, out);
    if (activation->dtype == CM_BF16)
        return any_activation<cm_bf16>(stream, activation, in, NULL, out);
    return cudaErrorInvalidValue;
}

int cm_cuda_activation_backward(cudaStream_t stream, const struct cm_activation *activation,
                                const void *in, const void *dout, void *din)
{
    if (activation->dtype == CM_F32)
        return any_activation<float>(stream, activation, in, dout, din);
    if (activation->dtype == CM_BF16)
        return any_activation<cm_bf16>(stream, activation, in, dout, din);
    return cudaErrorInvalidValue;
}

/* Of the narrower type no access is wider than its elements that make 16 bytes of the other. */
template <typename TO, typename FROM, int W, bool ADD>
static int launch_elements(cudaStream_t stream, void *to, const void *a, const void *b,
                           uint64_t count)
{
    struct elements_job<TO, FROM> job = {
        (TO *)to, (const FROM *)a, (const FROM *)b, count
    };
    unsigned blocks;
    if (count == 0)
        return cudaSuccess;
    int error = cm_stream_grid(count / W, &blocks);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH((elements_kernel<TO, FROM, W, ADD>), blocks, CM_THREADS, 0, stream, job);
}

int cm_cuda_add_to(cudaStream_t stream, void *out, const void *a, const void *b, uint64_t count,
                   enum cm_dtype dtype)
{
    if (dtype == CM_F32)
        return launch_elements<float, float, 4, true>(stream, out, a, b, count);
    if (dtype == CM_BF16)
        return launch_elements<cm_bf16, cm_bf16, 8, true>(stream, out, a, b, count);
    return cudaErrorInvalidValue;
}

int cm_cuda_convert(cudaStream_t stream, void *to, enum cm_dtype to_dtype, const void *from,
                    enum cm_dtype from_dtype, uint64_t count)
{
    if (to_dtype == CM_F32 && from_dtype == CM_F32)
        return launch_elements<float, float, 4, false>(stream, to, from, NULL, count);
    if (to_dtype == CM_BF16 && from_dtype == CM_BF16)
        return launch_elements<cm_bf16, cm_bf16, 8, false>(stream, to, from, NULL, count);
    if (to_dtype == CM_BF16 && from_dtype == CM_F32)
        return launch_elements<cm_bf16, float, 4, false>(stream, to, from, NULL, count);
    if (to_dtype == CM_F32 && from_dtype == CM_BF16)
        return launch_elements<float, cm_bf16, 4, false>(stream, to, from, NULL, count);
    return cudaErrorInvalidValue;
}

int cm_cuda_reorder(cudaStream_t stream, const struct cm_reorder *reorder, const void *from,
                    void *to)
{
    bool zigzag = reorder->kind != CM_REORDER_TRANSPOSE;
    if (reorder->block_bytes % 16 != 0 || reorder->block_bytes / 16 > UINT32_MAX ||
        (uint64_t)reorder->rows * reorder->columns > UINT32_MAX ||
        (zigzag && reorder->columns != 2))
        return cudaErrorInvalidValue;
    struct reorder_job job = {(const uint4 *)from, (uint4 *)to,      reorder->kind,
                              reorder->rows,       reorder->columns, 0};
    job.vectors = (uint32_t)(reorder->block_bytes / 16);
    uint64_t items = (uint64_t)job.rows * job.columns * job.vectors;
    unsigned blocks;
    if (items == 0)
        return cudaSuccess;
    int error = cm_stream_grid(items, &blocks);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH(reorder_kernel, blocks, CM_THREADS, 0, stream, job);
}
