/*
 * Gradients of LayerNorm and RMSNorm.
 *
 * A row is read once and kept in registers, as it lies in memory. A block adds up its rows' part of
 * the gradients of weight and bias, each thread its columns, in registers and at the end into
 * scratch; a second kernel adds up the blocks in order. Rows that no block can hold, or that are
 * not made of whole vectors, are read again for each pass.
 */
#include "clustermark/cuda_train.h"
#include "kernels/train.cuh"

#define BACKWARD_VECTORS 2 /* of a thread */
#define THREADS_MAX      1024
/* Up to this many threads have 128 registers each. */
#define THREADS_RICH 512
/* Blocks at most: what cm_norm_scratch_bytes has room for. */
#define NORM_PARTS     1024
#define FINISH_COLUMNS CM_WARP

/* ---- Gradient, the row in registers ---- */

template <typename T> struct gradient_job {
    const T *dout, *x, *weight, *dresidual;
    const float *stats;
    T *dx;
    float *parts; /* [block][columns] of weights, then of biases */
    uint64_t rows;
    uint32_t columns;
};

/* What a thread has of a row. */
template <typename T, int W> struct gradient_row {
    typename cm_elements<T, W>::raw dout[BACKWARD_VECTORS], x[BACKWARD_VECTORS];
    float mean, scale;
};

template <typename T, int W, bool LAYER>
static __device__ __forceinline__ void load_gradient(const struct gradient_job<T> &job,
                                                     uint64_t row, struct gradient_row<T, W> *to)
{
    if (row >= job.rows)
        return;
    to->mean = LAYER ? job.stats[row] : 0;
    to->scale = job.stats[job.rows + row];
#pragma unroll
    for (int k = 0; k < BACKWARD_VECTORS; k++) {
        unsigned at = (threadIdx.x + k * blockDim.x) * W;
        if (at < job.columns) {
            to->dout[k] = cm_load_raw<T, W>(job.dout + row * job.columns + at);
            to->x[k] = cm_load_raw<T, W>(job.x + row * job.columns + at);
        }
    }
}

/* Vector k of a row: its x without mean and deviation, and its gradient. */
template <typename T, int W>
static __device__ __forceinline__ void open_gradient(const struct gradient_row<T, W> &row, int k,
                                                     float (&x)[W], float (&dout)[W])
{
    cm_elements<T, W>::open(row.x[k], x);
    cm_elements<T, W>::open(row.dout[k], dout);
#pragma unroll
    for (int w = 0; w < W; w++)
        x[w] = (x[w] - row.mean) * row.scale;
}

/* RICH: with registers for `weights` and `residual`; else they are read when they are needed. */
template <typename T, int W, bool LAYER, bool RICH>
static __device__ __forceinline__ void
store_gradient(const struct gradient_job<T> &job, uint64_t row,
               const struct gradient_row<T, W> &kept,
               const typename cm_elements<T, W>::raw (&weights)[BACKWARD_VECTORS],
               const typename cm_elements<T, W>::raw (&residual)[BACKWARD_VECTORS],
               float mean_slope, float mean_g)
{
#pragma unroll
    for (int k = 0; k < BACKWARD_VECTORS; k++) {
        unsigned at = (threadIdx.x + k * blockDim.x) * W;
        if (at >= job.columns)
            continue;
        float x[W], g[W], weight[W], more[W] = {0};
        open_gradient<T, W>(kept, k, x, g);
        if (RICH)
            cm_elements<T, W>::open(weights[k], weight);
        else
            cm_load<W>(job.weight + at, weight);
        if (job.dresidual != NULL && RICH)
            cm_elements<T, W>::open(residual[k], more);
        else if (job.dresidual != NULL)
            cm_load<W>(job.dresidual + row * job.columns + at, more);
#pragma unroll
        for (int w = 0; w < W; w++) {
            float slope = g[w] * weight[w] - x[w] * mean_slope - (LAYER ? mean_g : 0);
            x[w] = more[w] + kept.scale * slope;
        }
        cm_store<W>(job.dx + row * job.columns + at, x);
    }
}

/* With registers enough, the next row is under way while the threads wait for the sums of one, and
 * the weights stay. */
template <typename T, int W, bool LAYER, int THREADS>
static __global__ void __launch_bounds__(THREADS) norm_backward_kernel(struct gradient_job<T> job)
{
    __shared__ float parts[2][2][CM_WARP];
    const bool RICH = THREADS <= THREADS_RICH;
    float dweight[BACKWARD_VECTORS][W] = {}, dbias[BACKWARD_VECTORS][W] = {},
          factor = 1.0f / job.columns;
    typename cm_elements<T, W>::raw weights[BACKWARD_VECTORS];
#pragma unroll
    for (int k = 0; k < BACKWARD_VECTORS; k++) {
        unsigned at = (threadIdx.x + k * blockDim.x) * W;
        if (RICH && at < job.columns)
            weights[k] = cm_load_raw<T, W>(job.weight + at);
    }
    struct gradient_row<T, W> next;
    if (RICH)
        load_gradient<T, W, LAYER>(job, blockIdx.x, &next);
    unsigned turn = 0;
    for (uint64_t row = blockIdx.x; row < job.rows; row += gridDim.x, turn ^= 1) {
        struct gradient_row<T, W> kept;
        typename cm_elements<T, W>::raw residual[BACKWARD_VECTORS];
        float sums[LAYER ? 2 : 1] = {};
        if (RICH) {
            kept = next;
            load_gradient<T, W, LAYER>(job, row + gridDim.x, &next);
        } else {
            load_gradient<T, W, LAYER>(job, row, &kept);
        }
#pragma unroll
        for (int k = 0; k < BACKWARD_VECTORS; k++) {
            unsigned at = (threadIdx.x + k * blockDim.x) * W;
            if (at >= job.columns)
                continue;
            if (RICH && job.dresidual != NULL)
                residual[k] = cm_load_raw<T, W>(job.dresidual + row * job.columns + at);
            float x[W], g[W], weight[W];
            open_gradient<T, W>(kept, k, x, g);
            if (RICH)
                cm_elements<T, W>::open(weights[k], weight);
            else
                cm_load<W>(job.weight + at, weight);
#pragma unroll
            for (int w = 0; w < W; w++) {
                dweight[k][w] += g[w] * x[w];
                dbias[k][w] += LAYER ? g[w] : 0;
                sums[0] += g[w] * weight[w] * x[w];
                sums[LAYER ? 1 : 0] += LAYER ? g[w] * weight[w] : 0;
            }
        }
        cm_block_sum(sums, parts[turn]);
        store_gradient<T, W, LAYER, RICH>(job, row, kept, weights, residual, sums[0] * factor,
                                          sums[LAYER ? 1 : 0] * factor);
    }
    float *to = job.parts + (uint64_t)blockIdx.x * job.columns;
#pragma unroll
    for (int k = 0; k < BACKWARD_VECTORS; k++) {
        unsigned at = (threadIdx.x + k * blockDim.x) * W;
        if (at >= job.columns)
            continue;
        cm_store_floats<W>(to + at, dweight[k]);
        if (LAYER)
            cm_store_floats<W>(to + (uint64_t)gridDim.x * job.columns + at, dbias[k]);
    }
}

/* ---- Gradient, any row ---- */

/* A block's sums are in its own part of the scratch, where each thread has its columns. */
template <typename T, bool LAYER>
static __global__ void __launch_bounds__(CM_THREADS)
    norm_backward_any_kernel(struct gradient_job<T> job)
{
    __shared__ float parts[2][2][CM_WARP];
    float *dweight = job.parts + (uint64_t)blockIdx.x * job.columns;
    float *dbias = dweight + (uint64_t)gridDim.x * job.columns;
    unsigned turn = 0;
    for (uint64_t row = blockIdx.x; row < job.rows; row += gridDim.x, turn ^= 1) {
        uint64_t start = row * job.columns;
        float mean = LAYER ? job.stats[row] : 0, scale = job.stats[job.rows + row];
        float sums[2] = {0, 0};
        for (unsigned at = threadIdx.x; at < job.columns; at += CM_THREADS) {
            float x[1], g[1], weight[1];
            cm_load<1>(job.x + start + at, x);
            cm_load<1>(job.dout + start + at, g);
            cm_load<1>(job.weight + at, weight);
            x[0] = (x[0] - mean) * scale;
            bool first = row == blockIdx.x;
            dweight[at] = (first ? 0 : dweight[at]) + g[0] * x[0];
            if (LAYER)
                dbias[at] = (first ? 0 : dbias[at]) + g[0];
            sums[0] += g[0] * weight[0] * x[0];
            sums[1] += g[0] * weight[0];
        }
        cm_block_sum(sums, parts[turn]);
        for (unsigned at = threadIdx.x; at < job.columns; at += CM_THREADS) {
            float x[1], g[1], weight[1], more[1] = {0};
            cm_load<1>(job.x + start + at, x);
            cm_load<1>(job.dout + start + at, g);
            cm_load<1>(job.weight + at, weight);
            if (job.dresidual != NULL)
                cm_load<1>(job.dresidual + start + at, more);
            float slope = g[0] * weight[0] - (x[0] - mean) * scale * sums[0] / job.columns -
                          (LAYER ? sums[1] / job.columns : 0);
            x[0] = more[0] + scale * slope;
            cm_store<1>(job.dx + start + at, x);
        }
    }
}

/* ---- Gradient, the sum of the blocks ---- */

struct finish_job {
    const float *parts;
    float *weights, *biases;
    uint64_t blocks;
    uint32_t columns;
};

static __global__ void __launch_bounds__(CM_THREADS) norm_finish_kernel(struct finish_job job)
{
    __shared__ float sums[CM_WARPS][FINISH_COLUMNS];
    unsigned lane = threadIdx.x % FINISH_COLUMNS, warp = threadIdx.x / FINISH_COLUMNS;
    uint64_t column = (uint64_t)blockIdx.x * FINISH_COLUMNS + lane;
    const float *from = job.parts + blockIdx.y * job.blocks * job.columns + column;
    float sum = 0;
    if (column < job.columns) {
#pragma unroll 8
        for (uint64_t block = warp; block < job.blocks; block += CM_WARPS)
            sum += from[block * job.columns];
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= job.columns)
        return;
    for (int i = 1; i < CM_WARPS; i++)
        sum += sums[i][lane];
    float *to = blockIdx.y == 0 ? job.weights : job.biases;
    to[column] += sum;
}

/* ---- Kernel launchers ---- */

/* Threads, in whole warps, of which each has `share` elements of a row. */
static unsigned threads_for(uint64_t columns, unsigned share)
{
    return (unsigned)((columns + share - 1) / share + CM_WARP - 1) / CM_WARP * CM_WARP;
}

/* As many blocks as the device holds, at most one for each row. */
static int gradient_grid(uint64_t rows, unsigned threads, unsigned *blocks)
{
    int error = cm_stream_grid(UINT64_MAX / 2, blocks);
    if (error != cudaSuccess)
        return error;
    unsigned part = threads <= THREADS_RICH ? 4 : 2; /* of all threads: registers are for as many */
    uint64_t fit = (uint64_t)*blocks * CM_THREADS / part / threads;
    fit = fit < NORM_PARTS ? fit : NORM_PARTS;
    fit = fit < rows ? fit : rows;
    *blocks = fit == 0 ? 1 : (unsigned)fit;
    return cudaSuccess;
}

template <typename T, bool LAYER>
static int launch_backward(cudaStream_t stream, const struct gradient_job<T> &job, float *dweight,
                           float *dbias)
{
    const int W = cm_wide<T>::value, MOST = LAYER ? 768 : THREADS_MAX;
    unsigned blocks, threads = threads_for(job.columns, BACKWARD_VECTORS * W);
    bool fits = job.columns % W == 0 && threads <= MOST;
    int error = gradient_grid(job.rows, fits ? threads : THREADS_MAX, &blocks);
    if (error != cudaSuccess)
        return error;
    if (fits && threads <= THREADS_RICH)
        error = CM_LAUNCH((norm_backward_kernel<T, W, LAYER, THREADS_RICH>), blocks, threads, 0,
                          stream, job);
    else if (fits)
        error =
            CM_LAUNCH((norm_backward_kernel<T, W, LAYER, MOST>), blocks, threads, 0, stream, job);
    else
        error = CM_LAUNCH((norm_backward_any_kernel<T, LAYER>), blocks, CM_THREADS, 0, stream, job);
    if (error != cudaSuccess)
        return error;
    struct finish_job finish = {job.parts, dweight, dbias, blocks, job.columns};
    dim3 grid((job.columns + FINISH_COLUMNS - 1) / FINISH_COLUMNS, LAYER ? 2 : 1);
    return CM_LAUNCH(norm_finish_kernel, grid, CM_THREADS, 0, stream, finish);
}

template <typename T>
static int any_backward(cudaStream_t stream, const struct cm_norm *norm,
                        const struct gradient_job<void> &in, float *dweight, float *dbias)
{
    struct gradient_job<T> job = {
        (const T *)in.dout, (const T *)in.x, (const T *)in.weight,
            (const T *)in.dresidual, in.stats, (T *)in.dx, in.parts, norm->rows,
            (uint32_t)norm->columns
    };
    return norm->layer ? launch_backward<T, true>(stream, job, dweight, dbias)
                       : launch_backward<T, false>(stream, job, dweight, dbias);
}

int cm_cuda_norm_backward(cudaStream_t stream, const struct cm_norm *norm, const void *dout,
                          const void *x, const void *weight, const float *stats,
                          const void *dresidual, void *dx, float *dweight, float *dbias,
                          void *scratch)
{
    struct gradient_job<void> job = {
        dout, x, weight, dresidual, stats, dx, (float *)scratch, 0, 0
    };
    if (norm->rows > INT32_MAX || norm->columns > INT32_MAX)
        return cudaErrorInvalidValue;
    if (norm->rows == 0 || norm->columns == 0)
        return cudaSuccess;
    if (norm->dtype == CM_F32)
        return any_backward<float>(stream, norm, job, dweight, dbias);
    if (norm->dtype == CM_BF16)
        return any_backward<cm_bf16>(stream, norm, job, dweight, dbias);
    return cudaErrorInvalidValue;
}
