/*
 * train.cuh: what the kernels of a training step share: the types of the step as 16-byte vectors,
 * exponentials, sums over a block, and the way of a grid through a matrix.
 *
 * A bf16 is a uint16_t here, the upper half of an f32.
 */
#ifndef KERNELS_TRAIN_CUH
#define KERNELS_TRAIN_CUH

#include "kernels/launch.cuh"

typedef uint16_t cm_bf16;

#define CM_WARP   32
#define CM_WARPS  (CM_THREADS / CM_WARP)
#define CM_LANES  0xffffffffu
#define CM_LOG2_E 1.4426950408889634f
/* Blocks of a multiprocessor where a thread needs twice the registers. */
#define CM_RESIDENT_HALF (CM_RESIDENT / 2)

/* ---- Arithmetic ---- */

#ifdef CM_SIMT

static __device__ inline float cm_exp2(float x)
{
    return exp2f(x);
}
static __device__ inline float cm_reciprocal(float x)
{
    return 1 / x;
}

#else

/* One instruction each; off by an ulp or two. Subnormal results are zeros. */
static __device__ __forceinline__ float cm_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
static __device__ __forceinline__ float cm_reciprocal(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif

static __device__ __forceinline__ float cm_sigmoid(float x)
{
    return cm_reciprocal(1 + cm_exp2(-CM_LOG2_E * x));
}

/* To nearest even; what is not a number stays so. */
static __device__ __forceinline__ unsigned cm_to_bf16(float value)
{
    unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* Two, of which `low` lies first in memory. */
static __device__ __forceinline__ unsigned cm_to_bf16s(float low, float high)
{
#if !defined(CM_SIMT) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#else
    return cm_to_bf16(low) | cm_to_bf16(high) << 16;
#endif
}

static __device__ __forceinline__ float cm_bf16_low(unsigned word)
{
    return __uint_as_float(word << 16);
}
static __device__ __forceinline__ float cm_bf16_high(unsigned word)
{
    return __uint_as_float(word & 0xffff0000u);
}

/* ---- Elements ---- */

/* W elements of type T: `raw` is what one instruction loads or stores. */
template <typename T, int W> struct cm_elements;

template <> struct cm_elements<float, 1> {
    typedef float raw;
    static __device__ __forceinline__ void open(const raw &from, float (&x)[1])
    {
        x[0] = from;
    }
    static __device__ __forceinline__ raw close(const float (&x)[1])
    {
        return x[0];
    }
};

template <> struct cm_elements<cm_bf16, 1> {
    typedef cm_bf16 raw;
    static __device__ __forceinline__ void open(const raw &from, float (&x)[1])
    {
        x[0] = cm_bf16_low(from);
    }
    static __device__ __forceinline__ raw close(const float (&x)[1])
    {
        return (cm_bf16)cm_to_bf16s(x[0], 0);
    }
};

template <> struct cm_elements<float, 4> {
    typedef float4 raw;
    static __device__ __forceinline__ void open(const raw &from, float (&x)[4])
    {
        x[0] = from.x;
        x[1] = from.y;
        x[2] = from.z;
        x[3] = from.w;
    }
    static __device__ __forceinline__ raw close(const float (&x)[4])
    {
        return make_float4(x[0], x[1], x[2], x[3]);
    }
};

template <> struct cm_elements<cm_bf16, 4> {
    typedef uint2 raw;
    static __device__ __forceinline__ void open(const raw &from, float (&x)[4])
    {
        x[0] = cm_bf16_low(from.x);
        x[1] = cm_bf16_high(from.x);
        x[2] = cm_bf16_low(from.y);
        x[3] = cm_bf16_high(from.y);
    }
    static __device__ __forceinline__ raw close(const float (&x)[4])
    {
        return make_uint2(cm_to_bf16s(x[0], x[1]), cm_to_bf16s(x[2], x[3]));
    }
};

template <> struct cm_elements<cm_bf16, 8> {
    typedef uint4 raw;
    static __device__ __forceinline__ void open(const raw &from, float (&x)[8])
    {
        const unsigned words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[2 * i] = cm_bf16_low(words[i]);
            x[2 * i + 1] = cm_bf16_high(words[i]);
        }
    }
    static __device__ __forceinline__ raw close(const float (&x)[8])
    {
        return make_uint4(cm_to_bf16s(x[0], x[1]), cm_to_bf16s(x[2], x[3]), cm_to_bf16s(x[4], x[5]),
                          cm_to_bf16s(x[6], x[7]));
    }
};

/* Elements in 16 bytes. */
template <typename T> struct cm_wide {
    static const int value = 16 / sizeof(T);
};

template <typename T, int W>
static __device__ __forceinline__ typename cm_elements<T, W>::raw cm_load_raw(const T *from)
{
    return *(const typename cm_elements<T, W>::raw *)from;
}

template <int W, typename T>
static __device__ __forceinline__ void cm_load(const T *from, float (&x)[W])
{
    cm_elements<T, W>::open(cm_load_raw<T, W>(from), x);
}

template <int W, typename T>
static __device__ __forceinline__ void cm_store(T *to, const float (&x)[W])
{
    *(typename cm_elements<T, W>::raw *)to = cm_elements<T, W>::close(x);
}

/* W floats that belong to W elements of another type: one, or whole vectors. */
template <int W>
static __device__ __forceinline__ void cm_load_floats(const float *from, float (&x)[W])
{
    const int V = W == 1 ? 1 : 4;
#pragma unroll
    for (int i = 0; i < W; i += V) {
        float some[V];
        cm_load<V>(from + i, some);
#pragma unroll
        for (int k = 0; k < V; k++)
            x[i + k] = some[k];
    }
}
template <int W>
static __device__ __forceinline__ void cm_store_floats(float *to, const float (&x)[W])
{
    const int V = W == 1 ? 1 : 4;
#pragma unroll
    for (int i = 0; i < W; i += V) {
        float some[V];
#pragma unroll
        for (int k = 0; k < V; k++)
            some[k] = x[i + k];
        cm_store<V>(to + i, some);
    }
}

/* ---- Sums ---- */

/* Every lane gets the sum of all, the same bits. */
static __device__ __forceinline__ float cm_warp_sum(float x)
{
#pragma unroll
    for (int lanes = CM_WARP / 2; lanes > 0; lanes /= 2)
        x += __shfl_xor_sync(CM_LANES, x, lanes);
    return x;
}

/* The same of each of N numbers, over a block of whole warps. `parts` is shared memory that nobody
 * still reads from a call before: callers in a loop take two in turn. */
template <int N>
static __device__ __forceinline__ void cm_block_sum(float (&x)[N], float (*parts)[CM_WARP])
{
    unsigned warp = threadIdx.x / CM_WARP, lane = threadIdx.x % CM_WARP;
#pragma unroll
    for (int n = 0; n < N; n++) {
        x[n] = cm_warp_sum(x[n]);
        if (lane == 0)
            parts[n][warp] = x[n];
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < N; n++)
        x[n] = cm_warp_sum(lane < blockDim.x / CM_WARP ? parts[n][lane] : 0.0f);
}

/* ---- The way through a matrix ---- */

/* A thread's place in a matrix that the grid goes through row by row, and its next ones without a
 * division each. */
struct cm_walk {
    uint64_t row, step_rows;
    uint32_t column, step_columns, columns;
};

static __device__ __forceinline__ struct cm_walk cm_walk_begin(uint32_t columns)
{
    struct cm_walk walk;
    walk.row = cm_grid_thread() / columns;
    walk.column = (uint32_t)(cm_grid_thread() % columns);
    walk.step_rows = cm_grid_threads() / columns;
    walk.step_columns = (uint32_t)(cm_grid_threads() % columns);
    walk.columns = columns;
    return walk;
}

static __device__ __forceinline__ void cm_walk_on(struct cm_walk *walk)
{
    uint32_t left = walk->columns - walk->column;
    bool wraps = walk->step_columns >= left;
    walk->column = wraps ? walk->step_columns - left : walk->column + walk->step_columns;
    walk->row += walk->step_rows + (wraps ? 1 : 0);
}

#endif
