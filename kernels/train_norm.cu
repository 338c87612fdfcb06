/*
 * LayerNorm and RMSNorm, with the residual added before.
 *
 * A row is read once and kept in registers, as it lies in memory; a block has one row, or each of
 * its warps has one where rows are short. Rows that no block can hold, or that are not made of
 * whole vectors, are read again for each pass: the caches serve that.
 */
#include "clustermark/cuda_train.h"
#include "kernels/train.cuh"

#define FORWARD_VECTORS 4 /* of a thread */
#define THREADS_MAX     1024

template <typename T> struct norm_job {
    const T *x, *delta, *weight, *bias;
    T *sum, *out;
    float *stats;
    uint64_t rows;
    uint32_t columns;
    float epsilon;
};

/* ---- Forward, the row in registers ---- */

/* Sum of the row's numbers, or of their squares about `mean`. `parts` as in cm_block_sum. */
template <typename T, int W, bool SQUARES, bool WARP>
static __device__ __forceinline__ float
row_sum(const typename cm_elements<T, W>::raw (&row)[FORWARD_VECTORS], unsigned vectors, float mean,
        float (*parts)[CM_WARP])
{
    unsigned thread = WARP ? threadIdx.x % CM_WARP : threadIdx.x;
    unsigned threads = WARP ? CM_WARP : blockDim.x;
    float sum[1] = {0};
#pragma unroll
    for (int k = 0; k < FORWARD_VECTORS; k++) {
        if (thread + k * threads >= vectors)
            continue;
        float x[W];
        cm_elements<T, W>::open(row[k], x);
#pragma unroll
        for (int w = 0; w < W; w++)
            sum[0] += SQUARES ? (x[w] - mean) * (x[w] - mean) : x[w];
    }
    if (WARP)
        return cm_warp_sum(sum[0]);
    cm_block_sum(sum, parts);
    return sum[0];
}

/* x + delta as it will be stored; stores it. */
template <typename T, int W>
static __device__ __forceinline__ void
load_row(const struct norm_job<T> &job, uint64_t start, unsigned thread, unsigned threads,
         typename cm_elements<T, W>::raw (&row)[FORWARD_VECTORS])
{
    typedef cm_elements<T, W> elements;
    typename elements::raw delta[FORWARD_VECTORS];
    unsigned vectors = job.columns / W;
#pragma unroll
    for (int k = 0; k < FORWARD_VECTORS; k++) {
        unsigned at = thread + k * threads;
        if (at >= vectors)
            continue;
        row[k] = cm_load_raw<T, W>(job.x + start + at * W);
        if (job.delta != NULL)
            delta[k] = cm_load_raw<T, W>(job.delta + start + at * W);
    }
#pragma unroll
    for (int k = 0; k < FORWARD_VECTORS; k++) {
        unsigned at = thread + k * threads;
        if (at >= vectors)
            continue;
        if (job.delta != NULL) {
            float x[W], more[W];
            elements::open(row[k], x);
            elements::open(delta[k], more);
#pragma unroll
            for (int w = 0; w < W; w++)
                x[w] += more[w];
            row[k] = elements::close(x);
        }
        if (job.sum != NULL)
            *(typename elements::raw *)(job.sum + start + at * W) = row[k];
    }
}

template <typename T, int W, bool LAYER, bool WARP>
static __global__ void __launch_bounds__(THREADS_MAX) norm_kernel(struct norm_job<T> job)
{
    typedef cm_elements<T, W> elements;
    __shared__ float parts[2][1][CM_WARP];
    unsigned thread = WARP ? threadIdx.x % CM_WARP : threadIdx.x;
    unsigned threads = WARP ? CM_WARP : blockDim.x, vectors = job.columns / W;
    uint64_t row = WARP ? (uint64_t)blockIdx.x * CM_WARPS + threadIdx.x / CM_WARP : blockIdx.x;
    if (WARP && row >= job.rows)
        return;
    typename elements::raw kept[FORWARD_VECTORS];
    load_row<T, W>(job, row * job.columns, thread, threads, kept);
    float mean = 0, factor = 1.0f / job.columns;
    if (LAYER)
        mean = row_sum<T, W, false, WARP>(kept, vectors, 0, parts[0]) * factor;
    float squares = row_sum<T, W, true, WARP>(kept, vectors, mean, parts[1]);
    float scale = 1 / sqrtf(squares * factor + job.epsilon);
    if (thread == 0) {
        job.stats[row] = mean;
        job.stats[job.rows + row] = scale;
    }
#pragma unroll
    for (int k = 0; k < FORWARD_VECTORS; k++) {
        unsigned at = thread + k * threads;
        if (at >= vectors)
            continue;
        float x[W], weight[W], bias[W] = {0};
        elements::open(kept[k], x);
        cm_load<W>(job.weight + at * W, weight);
        if (LAYER && job.bias != NULL)
            cm_load<W>(job.bias + at * W, bias);
#pragma unroll
        for (int w = 0; w < W; w++)
            x[w] = (x[w] - mean) * scale * weight[w] + bias[w];
        cm_store<W>(job.out + row * job.columns + at * W, x);
    }
}

/* ---- Forward, any row ---- */

template <typename T, bool LAYER>
static __global__ void __launch_bounds__(CM_THREADS) norm_any_kernel(struct norm_job<T> job)
{
    __shared__ float parts[2][1][CM_WARP];
    uint64_t start = (uint64_t)blockIdx.x * job.columns;
    const T *row = (job.sum == NULL ? job.x : job.sum) + start;
    float sum[1] = {0}, squares[1] = {0}, mean = 0;
    for (unsigned at = threadIdx.x; at < job.columns; at += CM_THREADS) {
        float x[1], more[1] = {0};
        cm_load<1>(job.x + start + at, x);
        if (job.delta != NULL)
            cm_load<1>(job.delta + start + at, more);
        x[0] += more[0];
        if (job.sum != NULL) {
            cm_store<1>(job.sum + start + at, x);
            cm_load<1>(row + at, x);
        }
        sum[0] += LAYER ? x[0] : 0;
    }
    if (LAYER) {
        cm_block_sum(sum, parts[0]);
        mean = sum[0] / job.columns;
    }
    for (unsigned at = threadIdx.x; at < job.columns; at += CM_THREADS) {
        float x[1];
        cm_load<1>(row + at, x);
        squares[0] += (x[0] - mean) * (x[0] - mean);
    }
    cm_block_sum(squares, parts[1]);
    float scale = 1 / sqrtf(squares[0] / job.columns + job.epsilon);
    if (threadIdx.x == 0) {
        job.stats[blockIdx.x] = mean;
        job.stats[job.rows + blockIdx.x] = scale;
    }
    for (unsigned at = threadIdx.x; at < job.columns; at += CM_THREADS) {
        float x[1], weight[1], bias[1] = {0};
        cm_load<1>(row + at, x);
        cm_load<1>(job.weight + at, weight);
        if (LAYER && job.bias != NULL)
            cm_load<1>(job.bias + at, bias);
        x[0] = (x[0] - mean) * scale * weight[0] + bias[0];
        cm_store<1>(job.out + start + at, x);
    }
}

/* ---- Kernel launchers ---- */

/* Threads, in whole warps, of which each has `share` elements of a row. */
static unsigned threads_for(uint64_t columns, unsigned share)
{
    return (unsigned)((columns + share - 1) / share + CM_WARP - 1) / CM_WARP * CM_WARP;
}

template <typename T, bool LAYER>
static int launch_norm(cudaStream_t stream, const struct norm_job<T> &job)
{
    const int W = cm_wide<T>::value;
    unsigned rows = (unsigned)job.rows;
    if (job.columns % W != 0 || job.columns > THREADS_MAX * FORWARD_VECTORS * W)
        return CM_LAUNCH((norm_any_kernel<T, LAYER>), rows, CM_THREADS, 0, stream, job);
    unsigned threads = threads_for(job.columns, FORWARD_VECTORS * W);
    if (threads == CM_WARP)
        return CM_LAUNCH((norm_kernel<T, W, LAYER, true>), (rows + CM_WARPS - 1) / CM_WARPS,
                         CM_THREADS, 0, stream, job);
    return CM_LAUNCH((norm_kernel<T, W, LAYER, false>), rows, threads, 0, stream, job);
}

template <typename T>
static int any_norm(cudaStream_t stream, const struct cm_norm *norm,
                    const struct norm_job<void> &in)
{
    struct norm_job<T> job = {
        (const T *)in.x, (const T *)in.delta, (const T *)in.weight, (const T *)in.bias, (T *)in.sum,
            (T *)in.out, in.stats, norm->rows, (uint32_t)norm->columns, norm->epsilon
    };
    if (job.sum == job.x && job.delta == NULL)
        job.sum = NULL; /* there it lies already */
    return norm->layer ? launch_norm<T, true>(stream, job) : launch_norm<T, false>(stream, job);
}

int cm_cuda_norm(cudaStream_t stream, const struct cm_norm *norm, const void *x, const void *delta,
                 const void *weight, const void *bias, void *sum, void *out, float *stats)
{
    struct norm_job<void> job = {
        x, delta, weight, bias, sum, out, stats, 0, 0, 0
    };
    if (norm->rows > INT32_MAX || norm->columns > INT32_MAX)
        return cudaErrorInvalidValue;
    if (norm->rows == 0 || norm->columns == 0)
        return cudaSuccess;
    if (norm->dtype == CM_F32)
        return any_norm<float>(stream, norm, job);
    if (norm->dtype == CM_BF16)
        return any_norm<cm_bf16>(stream, norm, job);
    return cudaErrorInvalidValue;
}
