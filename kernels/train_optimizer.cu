/*
 * The gradient's norm, the factor that clips it, and AdamW.
 *
 * A sum has a number of parts that its count alone decides, and the block that is the last to be
 * done adds them up in order, so that the bits do not depend on the device.
 */
#include <math.h>

#include "clustermark/cuda_train.h"
#include "kernels/philox.cuh"
#include "kernels/train.cuh"

/* ---- sum ---- */

/* Blocks at most; no more than cm_sum_scratch_bytes has room for. */
#define SUM_PARTS 1024
#define SUM_TURN  4 /* vectors that a thread asks for at once */

struct sum_job {
    const float *x;
    uint64_t count;
    float factor;
    bool accumulate;
    float *sum, *parts;
    unsigned slot;
};

/* Blocks of a launch that are done; zero between launches. */
static __device__ unsigned sum_arrived[CM_SLOTS];

template <bool SQUARES> static __device__ __forceinline__ float sum_of(float4 x)
{
    if (SQUARES)
        return x.x * x.x + x.y * x.y + (x.z * x.z + x.w * x.w);
    return x.x + x.y + (x.z + x.w);
}

template <bool SQUARES> static __device__ float sum_thread(const struct sum_job &job)
{
    const float4 *from = (const float4 *)job.x;
    uint64_t i = cm_grid_thread(), step = cm_grid_threads(), vectors = job.count / 4;
    float sums[SUM_TURN] = {};
    if (i < job.count % 4) {
        float x = job.x[vectors * 4 + i];
        sums[0] = SQUARES ? x * x : x;
    }
    for (; i + (SUM_TURN - 1) * step < vectors; i += SUM_TURN * step) {
        float4 got[SUM_TURN];
#pragma unroll
        for (int k = 0; k < SUM_TURN; k++)
            got[k] = from[i + k * step];
#pragma unroll
        for (int k = 0; k < SUM_TURN; k++)
            sums[k] += sum_of<SQUARES>(got[k]);
    }
    for (; i < vectors; i += step)
        sums[0] += sum_of<SQUARES>(from[i]);
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

template <bool SQUARES>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT) sum_kernel(struct sum_job job)
{
    __shared__ float warps[2][1][CM_WARP];
    __shared__ bool last;
    float sum[1] = {sum_thread<SQUARES>(job)};
    cm_block_sum(sum, warps[0]);
    if (threadIdx.x == 0) {
        job.parts[blockIdx.x] = sum[0];
        __threadfence();
        last = atomicInc(&sum_arrived[job.slot], gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last)
        return;
    __threadfence();
    sum[0] = 0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += CM_THREADS)
        sum[0] += __ldcg(&job.parts[i]);
    cm_block_sum(sum, warps[1]);
    if (threadIdx.x == 0)
        *job.sum = (job.accumulate ? *job.sum : 0) + job.factor * sum[0];
}

/* ---- clip_factor ---- */

static __global__ void clip_kernel(const float *sum_of_squares, float limit, float *factor)
{
    float norm = sqrtf(*sum_of_squares);
    *factor = limit > 0 && norm > limit ? limit / norm : 1;
}

/* ---- AdamW ---- */

/* What all elements share; see cm_adamw. */
struct adamw_job {
    const float *gradient, *factor;
    float *master, *m, *v;
    void *weights;
    uint64_t count, seed, first;
    float beta1, beta2, rest1, rest2, rate, root, epsilon, decay;
};

enum rounding { ROUND_NONE, ROUND_NEAREST, ROUND_STOCHASTIC };

/* One element; returns its weight. */
static __device__ __forceinline__ float step_of(const struct adamw_job &job, float factor,
                                                float gradient, float master, float *m, float *v)
{
    float g = gradient * factor;
    *m = job.beta1 * *m + job.rest1 * g;
    *v = job.beta2 * *v + job.rest2 * (g * g);
    float move = job.rate * *m / (sqrtf(*v * job.root) + job.epsilon);
    return master - (move + job.decay * master);
}

/* The random halves of elements index ... index + W - 1. */
template <int W>
static __device__ __forceinline__ void halves_of(uint64_t seed, uint64_t index, unsigned (&half)[W])
{
    uint32_t words[4];
    unsigned place = (unsigned)(index % PHILOX_HALVES);
    cm_philox(seed, index / PHILOX_HALVES, words);
#pragma unroll
    for (int w = 0; w < W; w++, place++) {
        if (place == PHILOX_HALVES) {
            place = 0;
            cm_philox(seed, (index + w) / PHILOX_HALVES, words);
        }
        unsigned low = place < 4 ? words[0] : words[2], high = place < 4 ? words[1] : words[3];
        half[w] = ((place & 2) == 0 ? low : high) >> 16 * (place & 1) & 0xffff;
    }
}

/* Up with the probability of what is cut off. */
static __device__ __forceinline__ unsigned round_by(float value, unsigned half)
{
    unsigned bits = __float_as_uint(value);
    return (bits & 0x7f800000) == 0x7f800000 ? cm_to_bf16(value) : (bits + half) >> 16;
}

template <int W, enum rounding ROUNDING>
static __device__ __forceinline__ void store_weights(const struct adamw_job &job, uint64_t at,
                                                     const float (&weight)[W])
{
    if (ROUNDING == ROUND_NONE) {
        if (job.weights != job.master)
            cm_store<W>((float *)job.weights + at, weight);
    } else if (ROUNDING == ROUND_NEAREST) {
        cm_store<W>((cm_bf16 *)job.weights + at, weight);
    } else {
        unsigned half[W];
        float rounded[W];
        halves_of<W>(job.seed, job.first + at, half);
#pragma unroll
        for (int w = 0; w < W; w++)
            rounded[w] = cm_bf16_low(round_by(weight[w], half[w]));
        cm_store<W>((cm_bf16 *)job.weights + at, rounded);
    }
}

template <int W, enum rounding ROUNDING>
static __device__ __forceinline__ void update(const struct adamw_job &job, float factor,
                                              uint64_t at, const float (&gradient)[W],
                                              float (&master)[W], float (&m)[W], float (&v)[W])
{
#pragma unroll
    for (int w = 0; w < W; w++)
        master[w] = step_of(job, factor, gradient[w], master[w], &m[w], &v[w]);
    cm_store<W>(job.master + at, master);
    cm_store<W>(job.m + at, m);
    cm_store<W>(job.v + at, v);
    store_weights<W, ROUNDING>(job, at, master);
}

template <int W, enum rounding ROUNDING>
static __device__ __forceinline__ void update_one(const struct adamw_job &job, float factor,
                                                  uint64_t at)
{
    float gradient[W], master[W], m[W], v[W];
    cm_load<W>(job.gradient + at, gradient);
    cm_load<W>(job.master + at, master);
    cm_load<W>(job.m + at, m);
    cm_load<W>(job.v + at, v);
    update<W, ROUNDING>(job, factor, at, gradient, master, m, v);
}

template <enum rounding ROUNDING>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    adamw_kernel(struct adamw_job job)
{
    const int W = 4;
    uint64_t i = cm_grid_thread(), step = cm_grid_threads(), vectors = job.count / W;
    float factor = *job.factor;
    if (i < job.count % W)
        update_one<1, ROUNDING>(job, factor, vectors * W + i);
    for (; i < vectors; i += step)
        update_one<W, ROUNDING>(job, factor, i * W);
}

/* ---- Kernel launchers ---- */

int cm_cuda_sum(cudaStream_t stream, const float *x, uint64_t count, bool squares, float factor,
                bool accumulate, float *sum, void *scratch)
{
    struct sum_job job = {
        x, count, factor, accumulate, sum, (float *)scratch, cm_stream_slot(stream)};
    uint64_t parts = count / (CM_THREADS * 4 * SUM_TURN) + 1;
    unsigned blocks = parts < SUM_PARTS ? (unsigned)parts : SUM_PARTS;
    if (squares)
        return CM_LAUNCH(sum_kernel<true>, blocks, CM_THREADS, 0, stream, job);
    return CM_LAUNCH(sum_kernel<false>, blocks, CM_THREADS, 0, stream, job);
}

int cm_cuda_clip_factor(cudaStream_t stream, const float *sum_of_squares, float limit,
                        float *factor)
{
    return CM_LAUNCH(clip_kernel, 1, 1, 0, stream, sum_of_squares, limit, factor);
}

int cm_cuda_adamw(cudaStream_t stream, const struct cm_adamw *adamw, const float *gradient,
                  const float *factor, float *master, float *m, float *v, void *weights)
{
    double rate = adamw->learning_rate, beta1 = adamw->beta1, beta2 = adamw->beta2;
    struct adamw_job job = {};
    job.gradient = gradient;
    job.factor = factor;
    job.master = master;
    job.m = m;
    job.v = v;
    job.weights = weights;
    job.count = adamw->count;
    job.seed = adamw->seed;
    job.first = adamw->first;
    job.beta1 = adamw->beta1;
    job.beta2 = adamw->beta2;
    job.rest1 = (float)(1 - beta1);
    job.rest2 = (float)(1 - beta2);
    job.rate = (float)(rate / (1 - pow(beta1, adamw->step)));
    job.root = (float)(1 / (1 - pow(beta2, adamw->step)));
    job.epsilon = adamw->epsilon;
    job.decay = (float)(rate * adamw->weight_decay);
    unsigned blocks;
    if (job.count == 0)
        return cudaSuccess;
    int error = cm_stream_grid(job.count / 4, &blocks);
    if (error != cudaSuccess)
        return error;
    if (adamw->dtype == CM_F32)
        return CM_LAUNCH(adamw_kernel<ROUND_NONE>, blocks, CM_THREADS, 0, stream, job);
    if (adamw->dtype != CM_BF16)
        return cudaErrorInvalidValue;
    if (adamw->stochastic)
        return CM_LAUNCH(adamw_kernel<ROUND_STOCHASTIC>, blocks, CM_THREADS, 0, stream, job);
    return CM_LAUNCH(adamw_kernel<ROUND_NEAREST>, blocks, CM_THREADS, 0, stream, job);
}
