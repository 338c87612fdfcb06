/*
 * Cross-entropy: what each part of the vocabulary knows of a row, in one read of the logits, and
 * then the loss and the gradient, which takes their place, in one more read and one write.
 *
 * A block has a row. The sum of exponentials goes on beside the largest logit so far: a thread
 * takes 64 bytes at a time and changes its scale at most once for all of them, so that an element
 * costs one exponential.
 */
#include "clustermark/cuda_train.h"
#include "kernels/train.cuh"

#define TURN 4 /* vectors that a thread asks for at once */
/* Below any logit, and finite: differences from it are numbers. */
#define LOWEST    -1e30f
#define MINUS_INF __uint_as_float(0xff800000u)

template <typename T> struct loss_job {
    T *logits;
    const int32_t *targets;
    const struct cm_softmax_part *parts; /* read by the gradient */
    struct cm_softmax_part *part;        /* written by the other */
    float *loss;
    struct cm_cross_entropy cross;
};

/* ---- What a part knows ---- */

/* sum of exp(x - max) */
struct running {
    float max, sum;
};

static __device__ __forceinline__ float shift(float x, float by)
{
    return cm_exp2(CM_LOG2_E * (x - by));
}

/* In either order the same bits. */
static __device__ __forceinline__ struct running join(struct running a, struct running b)
{
    struct running both;
    both.max = fmaxf(a.max, b.max);
    both.sum = a.sum * shift(a.max, both.max) + b.sum * shift(b.max, both.max);
    return both;
}

/* Adds N vectors of numbers. */
template <typename T, int W, int N>
static __device__ __forceinline__ void take(struct running *so_far,
                                            const typename cm_elements<T, W>::raw (&got)[N])
{
    float x[N][W], max = so_far->max;
#pragma unroll
    for (int k = 0; k < N; k++) {
        cm_elements<T, W>::open(got[k], x[k]);
#pragma unroll
        for (int w = 0; w < W; w++)
            max = fmaxf(max, x[k][w]);
    }
    if (max > so_far->max) {
        so_far->sum *= shift(so_far->max, max);
        so_far->max = max;
    }
    float scaled = CM_LOG2_E * max, sums[2] = {0, 0};
#pragma unroll
    for (int k = 0; k < N; k++) {
#pragma unroll
        for (int w = 0; w < W; w++)
            sums[w % 2] += cm_exp2(fmaf(x[k][w], CM_LOG2_E, -scaled));
    }
    so_far->sum += sums[0] + sums[1];
}

/* All of a row that this thread has. */
template <typename T, int W>
static __device__ __forceinline__ struct running take_row(const T *row, uint32_t count)
{
    typedef typename cm_elements<T, W>::raw raw;
    struct running so_far = {LOWEST, 0};
    uint32_t vectors = count / W, i = threadIdx.x;
    for (; i + (TURN - 1) * CM_THREADS < vectors; i += TURN * CM_THREADS) {
        raw got[TURN];
#pragma unroll
        for (int k = 0; k < TURN; k++)
            got[k] = cm_load_raw<T, W>(row + (i + k * CM_THREADS) * (uint64_t)W);
        take<T, W, TURN>(&so_far, got);
    }
    for (; i < vectors; i += CM_THREADS) {
        raw got[1] = {cm_load_raw<T, W>(row + i * (uint64_t)W)};
        take<T, W, 1>(&so_far, got);
    }
    if (threadIdx.x < count % W) {
        typename cm_elements<T, 1>::raw got[1] = {row[vectors * (uint64_t)W + threadIdx.x]};
        take<T, 1, 1>(&so_far, got);
    }
    return so_far;
}

template <typename T, int W>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    parts_kernel(struct loss_job<T> job)
{
    __shared__ struct running warps[CM_WARPS];
    const T *row = job.logits + (uint64_t)blockIdx.x * job.cross.columns;
    struct running found = take_row<T, W>(row, job.cross.vocabulary_count);
#pragma unroll
    for (int lanes = CM_WARP / 2; lanes > 0; lanes /= 2) {
        struct running other;
        other.max = __shfl_xor_sync(CM_LANES, found.max, lanes);
        other.sum = __shfl_xor_sync(CM_LANES, found.sum, lanes);
        found = join(found, other);
    }
    if (threadIdx.x % CM_WARP == 0)
        warps[threadIdx.x / CM_WARP] = found;
    __syncthreads();
    if (threadIdx.x > 0)
        return;
    for (int i = 1; i < CM_WARPS; i++)
        found = join(found, warps[i]);
    float target[1] = {0};
    uint32_t place = (uint32_t)job.targets[blockIdx.x] - job.cross.vocabulary_first;
    if (job.targets[blockIdx.x] >= 0 && place < job.cross.vocabulary_count)
        cm_load<1>(row + place, target);
    struct cm_softmax_part part = {found.max, found.sum, target[0]};
    job.part[blockIdx.x] = part;
}

/* ---- Loss and gradient ---- */

/* The log of the row's sum of exponentials, and the target's logit. */
template <typename T>
static __device__ __forceinline__ float log_sum(const struct loss_job<T> &job, float *target)
{
    const struct cm_softmax_part *part = job.parts + blockIdx.x;
    struct running all = {LOWEST, 0};
    *target = 0;
    for (uint32_t p = 0; p < job.cross.parts; p++, part += job.cross.rows) {
        struct running one = {part->max, part->sum};
        all = join(all, one);
        *target += part->target;
    }
    return all.max + logf(all.sum);
}

/* Elements `at` ... of a row, in place. `place` is where the target stands. */
template <typename T, int W>
static __device__ __forceinline__ void gradient(const struct loss_job<T> &job, uint32_t at,
                                                float scaled, uint32_t place, float (&x)[W])
{
#pragma unroll
    for (int w = 0; w < W; w++)
        x[w] = job.cross.scale * cm_exp2(fmaf(x[w], CM_LOG2_E, -scaled));
    if (place - at < W || at + W > job.cross.vocabulary_count) {
#pragma unroll
        for (int w = 0; w < W; w++) {
            x[w] -= at + w == place ? job.cross.scale : 0;
            x[w] = at + w < job.cross.vocabulary_count ? x[w] : 0;
        }
    }
}

template <typename T, int W>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    loss_kernel(struct loss_job<T> job)
{
    typedef cm_elements<T, W> elements;
    T *row = job.logits + (uint64_t)blockIdx.x * job.cross.columns;
    int32_t token = job.targets[blockIdx.x];
    uint32_t place = (uint32_t)token - job.cross.vocabulary_first;
    uint32_t vectors = job.cross.columns / W;
    bool counts = token >= 0;
    float target, sum = counts ? log_sum(job, &target) : 0, scaled = CM_LOG2_E * sum;
    if (threadIdx.x == 0)
        job.loss[blockIdx.x] = counts ? sum - target : 0;
    for (uint32_t i = threadIdx.x; i < vectors; i += TURN * CM_THREADS) {
        typename elements::raw got[TURN];
#pragma unroll
        for (int k = 0; k < TURN; k++) {
            if (counts && i + k * CM_THREADS < vectors)
                got[k] = cm_load_raw<T, W>(row + (i + k * CM_THREADS) * (uint64_t)W);
        }
#pragma unroll
        for (int k = 0; k < TURN; k++) {
            uint32_t at = (i + k * CM_THREADS) * W;
            if (i + k * CM_THREADS >= vectors)
                continue;
            float x[W] = {};
            if (counts) {
                elements::open(got[k], x);
                gradient<T, W>(job, at, scaled, place, x);
            }
            cm_store<W>(row + at, x);
        }
    }
}

/* ---- Kernel launchers ---- */

template <typename T, int W>
static int launch_wide(cudaStream_t stream, const struct loss_job<T> &job)
{
    unsigned rows = (unsigned)job.cross.rows;
    if (job.part != NULL)
        return CM_LAUNCH((parts_kernel<T, W>), rows, CM_THREADS, 0, stream, job);
    return CM_LAUNCH((loss_kernel<T, W>), rows, CM_THREADS, 0, stream, job);
}

template <typename T>
static int launch(cudaStream_t stream, const struct cm_cross_entropy *cross,
                  const struct loss_job<void> &in)
{
    struct loss_job<T> job = {
        (T *)in.logits, in.targets, in.parts, in.part, in.loss, *cross
    };
    if (cross->columns % cm_wide<T>::value == 0)
        return launch_wide<T, cm_wide<T>::value>(stream, job);
    return launch_wide<T, 1>(stream, job);
}

static int any(cudaStream_t stream, const struct cm_cross_entropy *cross,
               const struct loss_job<void> &job)
{
    if (cross->rows > INT32_MAX || cross->columns > INT32_MAX ||
        cross->vocabulary_count > cross->columns)
        return cudaErrorInvalidValue;
    if (cross->rows == 0)
        return cudaSuccess;
    if (cross->dtype == CM_F32)
        return launch<float>(stream, cross, job);
    if (cross->dtype == CM_BF16)
        return launch<cm_bf16>(stream, cross, job);
    return cudaErrorInvalidValue;
}

int cm_cuda_softmax_parts(cudaStream_t stream, const struct cm_cross_entropy *cross,
                          const void *logits, const int32_t *targets, struct cm_softmax_part *parts)
{
    struct loss_job<void> job = {
        (void *)logits, targets, NULL, parts, NULL, *cross
    };
    return any(stream, cross, job);
}

int cm_cuda_cross_entropy(cudaStream_t stream, const struct cm_cross_entropy *cross, void *logits,
                          const int32_t *targets, const struct cm_softmax_part *parts, float *loss)
{
    struct loss_job<void> job = {
        logits, targets, parts, NULL, loss, *cross
    };
    return any(stream, cross, job);
}
