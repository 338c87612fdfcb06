/*
 * Memory kernels: copy, scale, add and triad, as plain streams through global memory.
 *
 * What they need is bytes in flight: bandwidth times latency is about 17 KB per multiprocessor on
 * H100 (3.35 TB/s, 0.7 us, 132 of them), 10 KB on A100, 25 KB on H200 and 43 KB on B200. All 2048
 * threads of a multiprocessor with 64 bytes each ask for 128 KB, so that none of these waits for
 * want of requests, and a thread still gets by with its 32 registers: 16 hold what was asked for.
 * Loads and stores are ordinary ones, so that the caches do as they do for any code.
 */
#include "clustermark/cuda_kernels.h"
#include "kernels/launch.cuh"

#define VECTOR_BYTES    16 /* the widest access of one thread before sm_100 */
#define BYTES_IN_FLIGHT 64

/* ---- What is done with an element of each input ---- */

struct copy_op {
    static const int inputs = 1;
    __device__ unsigned char operator()(unsigned char a, unsigned char) const
    {
        return a;
    }
};

template <typename T> struct scale_op {
    static const int inputs = 1;
    T factor;
    __device__ T operator()(T a, T) const
    {
        return factor * a;
    }
};

template <typename T> struct add_op {
    static const int inputs = 2;
    __device__ T operator()(T a, T b) const
    {
        return a + b;
    }
};

template <typename T> struct triad_op {
    static const int inputs = 2;
    T factor;
    __device__ T operator()(T a, T b) const
    {
        return a + factor * b;
    }
};

/* The same with all of a vector. */
template <class OP, class VECTOR>
static __device__ inline VECTOR apply(OP op, const VECTOR &a, const VECTOR &b)
{
    VECTOR to;
    for (unsigned i = 0; i < sizeof a.v / sizeof a.v[0]; i++)
        to.v[i] = op(a.v[i], OP::inputs == 2 ? b.v[i] : a.v[i]);
    return to;
}

template <class VECTOR>
static __device__ inline VECTOR apply(copy_op, const VECTOR &a, const VECTOR &)
{
    return a;
}

/* ---- Kernel ---- */

template <typename T> struct stream_job {
    T *to;
    const T *a, *b;   /* b is a where there is one input */
    unsigned head;    /* elements before the first whole vector */
    unsigned tail;    /* elements after the last */
    uint64_t vectors; /* between them */
};

/* All loads of a turn come before its first store: `to` may be an input. The loads of a thread lie
 * as far apart as the grid is wide, so that at any time all threads together work on a few
 * unbroken stretches of memory. */
template <typename T, int W, class OP>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT)
    stream_kernel(struct stream_job<T> job, OP op)
{
    typedef cm_vector<T, W> vector;
    const int turn = BYTES_IN_FLIGHT / VECTOR_BYTES / OP::inputs;
    const vector *from_a = (const vector *)(job.a + job.head);
    const vector *from_b = (const vector *)(job.b + job.head);
    vector *to = (vector *)(job.to + job.head);
    uint64_t i = cm_grid_thread(), step = cm_grid_threads();
    if (i < job.head)
        job.to[i] = op(job.a[i], job.b[i]);
    if (i < job.tail) {
        uint64_t at = job.head + job.vectors * W + i;
        job.to[at] = op(job.a[at], job.b[at]);
    }
    for (; i + (turn - 1) * step < job.vectors; i += turn * step) {
        vector a[turn], b[turn];
#pragma unroll
        for (int k = 0; k < turn; k++) {
            a[k] = from_a[i + k * step];
            if (OP::inputs == 2)
                b[k] = from_b[i + k * step];
        }
#pragma unroll
        for (int k = 0; k < turn; k++)
            to[i + k * step] = apply(op, a[k], OP::inputs == 2 ? b[k] : a[k]);
    }
    for (; i < job.vectors; i += step) {
        vector a = from_a[i], b = OP::inputs == 2 ? from_b[i] : a;
        to[i] = apply(op, a, b);
    }
}

/* ---- Kernel launchers ---- */

template <typename T, int W, class OP>
static int launch_wide(cudaStream_t stream, T *to, const T *a, const T *b, OP op, uint64_t count)
{
    struct stream_job<T> job = {
        to, a, b, 0, 0, 0
    };
    uint64_t head = cm_bytes_to(to, W * sizeof(T)) / sizeof(T);
    job.head = (unsigned)(head < count ? head : count);
    job.vectors = (count - job.head) / W;
    job.tail = (unsigned)((count - job.head) % W);
    unsigned blocks;
    int error = cm_stream_grid(job.vectors, &blocks);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH((stream_kernel<T, W, OP>), blocks, CM_THREADS, 0, stream, job, op);
}

/* Whether all pointers have the same place in units of `bytes`. */
static bool alike(const void *to, const void *a, const void *b, unsigned bytes)
{
    return cm_bytes_to(to, bytes) == cm_bytes_to(a, bytes) &&
           cm_bytes_to(to, bytes) == cm_bytes_to(b, bytes);
}

template <typename T, class OP>
static int launch(cudaStream_t stream, void *to, const void *a, const void *b, OP op,
                  uint64_t count)
{
    if (count == 0)
        return cudaSuccess;
    if (alike(to, a, b, VECTOR_BYTES))
        return launch_wide<T, VECTOR_BYTES / sizeof(T)>(stream, (T *)to, (const T *)a, (const T *)b,
                                                        op, count);
    return launch_wide<T, 1>(stream, (T *)to, (const T *)a, (const T *)b, op, count);
}

int cm_cuda_copy(cudaStream_t stream, void *to, const void *from, uint64_t size_bytes)
{
    struct copy_op op;
    if (!alike(to, from, from, VECTOR_BYTES) && alike(to, from, from, sizeof(uint32_t)) &&
        size_bytes > 0)
        return launch_wide<unsigned char, sizeof(uint32_t)>(
            stream, (unsigned char *)to, (const unsigned char *)from, (const unsigned char *)from,
            op, size_bytes);
    return launch<unsigned char>(stream, to, from, from, op, size_bytes);
}

int cm_cuda_scale(cudaStream_t stream, void *to, const void *from, double factor, uint64_t count,
                  enum cm_dtype dtype)
{
    if (dtype == CM_F32)
        return launch<float>(stream, to, from, from, scale_op<float>{(float)factor}, count);
    if (dtype == CM_F64)
        return launch<double>(stream, to, from, from, scale_op<double>{factor}, count);
    return cudaErrorInvalidValue;
}

int cm_cuda_add(cudaStream_t stream, void *to, const void *a, const void *b, uint64_t count,
                enum cm_dtype dtype)
{
    if (dtype == CM_F32)
        return launch<float>(stream, to, a, b, add_op<float>{}, count);
    if (dtype == CM_F64)
        return launch<double>(stream, to, a, b, add_op<double>{}, count);
    return cudaErrorInvalidValue;
}

int cm_cuda_triad(cudaStream_t stream, void *to, const void *a, const void *b, double factor,
                  uint64_t count, enum cm_dtype dtype)
{
    if (dtype == CM_F32)
        return launch<float>(stream, to, a, b, triad_op<float>{(float)factor}, count);
    if (dtype == CM_F64)
        return launch<double>(stream, to, a, b, triad_op<double>{factor}, count);
    return cudaErrorInvalidValue;
}
