/*
 * Element by element comparison with a tolerance, in double as kernels/cpu/verify.c does it: the
 * same products and sums, each rounded by itself, so that the result is the same to the last bit.
 */
#include "clustermark/cuda_kernels.h"
#include "kernels/launch.cuh"

/* ---- Elements as double ---- */

/* A number of 1 + 5 + 10 bits: moved to where f32 has them, then the exponent is mended by a
 * product, which is right for subnormals too. */
static __device__ inline double from_f16(unsigned half)
{
    unsigned bits = (half & 0x7fff) << 13;
    if (bits >= 0x7c00u << 13) /* infinite or not a number */
        bits |= 0x7f800000u;
    float value = __uint_as_float(bits) * 0x1p112f;
    return half & 0x8000 ? -value : value;
}

/* 1 + 4 + 3 bits, without infinity. Its bias is 8 less. */
static __device__ inline double from_e4m3(unsigned byte)
{
    unsigned half = (byte & 0x7f) == 0x7f ? 0x7fff : (byte & 0x7f) << 7;
    return from_f16((byte & 0x80) << 8 | half) * 256;
}

template <enum cm_dtype D> struct element;

#define DEFINE_ELEMENT(name, stored, expression)                                                   \
    template <> struct element<CM_##name> {                                                        \
        typedef stored type;                                                                       \
        static __device__ inline double value(stored x)                                            \
        {                                                                                          \
            return expression;                                                                     \
        }                                                                                          \
    };
DEFINE_ELEMENT(F64, double, x)
DEFINE_ELEMENT(F32, float, x)
DEFINE_ELEMENT(BF16, uint16_t, __uint_as_float((unsigned)x << 16))
DEFINE_ELEMENT(F16, uint16_t, from_f16(x))
DEFINE_ELEMENT(F8E4M3, uint8_t, from_e4m3(x))
DEFINE_ELEMENT(F8E5M2, uint8_t, from_f16((unsigned)x << 8))
DEFINE_ELEMENT(I32, int32_t, x)
DEFINE_ELEMENT(I8, int8_t, x)

/* ---- What is found ---- */

/* By a thread, and by all blocks of a launch so far. Integers throughout, whose sums and maxima do
 * not depend on the order: a double that is not negative compares as its bits do. Zero is "nothing
 * found", and what the last block to come leaves for the next launch. */
struct finding {
    unsigned long long mismatches;
    unsigned long long before_last; /* UINT64_MAX - first_index */
    unsigned long long worst;       /* bits of a double */
};

static __device__ struct finding findings[CM_SLOTS];
static __device__ unsigned arrived[CM_SLOTS];

static __device__ inline void look(struct finding *found, double x, double y, uint64_t index,
                                   double absolute, double relative)
{
    double difference = fabs(x - y);
    double tolerance = __dadd_rn(absolute, __dmul_rn(relative, fabs(y)));
    if (!(difference <= tolerance)) {
        found->mismatches++;
        found->before_last = max(found->before_last, (unsigned long long)(UINT64_MAX - index));
    }
    if (difference != 0) {
        double error = difference / tolerance;
        if (error > __longlong_as_double((long long)found->worst))
            found->worst = (unsigned long long)__double_as_longlong(error);
    }
}

static __device__ inline void combine(struct finding *found, const struct finding &other)
{
    found->mismatches += other.mismatches;
    found->before_last = max(found->before_last, other.before_last);
    found->worst = max(found->worst, other.worst);
}

/* All threads of a block come here; thread 0's `found` is then that of all. */
static __device__ void combine_block(struct finding *found)
{
    __shared__ struct finding parts[CM_THREADS / 32];
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        struct finding other;
        other.mismatches = __shfl_xor_sync(0xffffffffu, found->mismatches, lanes);
        other.before_last = __shfl_xor_sync(0xffffffffu, found->before_last, lanes);
        other.worst = __shfl_xor_sync(0xffffffffu, found->worst, lanes);
        combine(found, other);
    }
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = *found;
    __syncthreads();
    for (int i = 1; i < CM_THREADS / 32 && threadIdx.x == 0; i++)
        combine(found, parts[i]);
}

/* ---- Kernel ---- */

template <typename T> struct verify_job {
    const T *x, *y;
    unsigned head;           /* elements before the first whole vector */
    uint64_t vectors, count; /* vectors from there on; elements in all */
    double absolute, relative;
    struct cm_verify_result *result;
    unsigned slot;
};

/* Elements beside the vectors, then the vectors. */
template <enum cm_dtype D, int W, typename T>
static __device__ struct finding look_at_all(const struct verify_job<T> &job)
{
    typedef cm_vector<T, W> vector;
    const vector *from_x = (const vector *)(job.x + job.head);
    const vector *from_y = (const vector *)(job.y + job.head);
    uint64_t i = cm_grid_thread(), step = cm_grid_threads(), body = job.vectors * W;
    struct finding found = {0, 0, 0};
    if (i < job.count - body) {
        uint64_t at = i < job.head ? i : i + body;
        look(&found, element<D>::value(job.x[at]), element<D>::value(job.y[at]), at, job.absolute,
             job.relative);
    }
    for (; i < job.vectors; i += step) {
        vector x = from_x[i], y = from_y[i];
#pragma unroll
        for (int w = 0; w < W; w++)
            look(&found, element<D>::value(x.v[w]), element<D>::value(y.v[w]), job.head + i * W + w,
                 job.absolute, job.relative);
    }
    return found;
}

template <enum cm_dtype D, int W, typename T>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT / 4)
    verify_kernel(struct verify_job<T> job)
{
    struct finding found = look_at_all<D, W>(job);
    combine_block(&found);
    if (threadIdx.x > 0)
        return;
    struct finding *total = &findings[job.slot];
    atomicAdd(&total->mismatches, found.mismatches);
    atomicMax(&total->before_last, found.before_last);
    atomicMax(&total->worst, found.worst);
    __threadfence();
    if (atomicInc(&arrived[job.slot], gridDim.x - 1) < gridDim.x - 1)
        return;
    __threadfence();
    struct cm_verify_result result;
    result.checked = job.count;
    result.mismatches = atomicExch(&total->mismatches, 0ull);
    result.first_index = UINT64_MAX - atomicExch(&total->before_last, 0ull);
    result.worst = __longlong_as_double((long long)atomicExch(&total->worst, 0ull));
    *job.result = result;
}

/* ---- Kernel launchers ---- */

struct request {
    const void *x, *y;
    uint64_t count;
    double absolute, relative;
    struct cm_verify_result *result;
};

template <enum cm_dtype D, int W>
static int launch(cudaStream_t stream, const struct request *request)
{
    typedef typename element<D>::type type;
    uint64_t head = cm_bytes_to(request->x, W * sizeof(type)) / sizeof(type),
             count = request->count;
    head = head < count ? head : count;
    struct verify_job<type> job = {
        (const type *)request->x, (const type *)request->y, (unsigned)head,
            (count - head) / W, count, request->absolute, request->relative, request->result,
            cm_stream_slot(stream)
    };
    unsigned blocks;
    int error = cm_stream_grid(job.vectors, &blocks);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH((verify_kernel<D, W, type>), blocks, CM_THREADS, 0, stream, job);
}

/* Vectors where both inputs have the same place in 16 bytes, else single elements. */
template <enum cm_dtype D> static int launch(cudaStream_t stream, const struct request *request)
{
    if (cm_bytes_to(request->x, 16) == cm_bytes_to(request->y, 16))
        return launch<D, 16 / sizeof(typename element<D>::type)>(stream, request);
    return launch<D, 1>(stream, request);
}

int cm_cuda_verify(cudaStream_t stream, const void *x, const void *y, uint64_t count,
                   enum cm_dtype dtype, double absolute, double relative,
                   struct cm_verify_result *result)
{
    struct request request = {x, y, count, absolute, relative, result};
    switch (dtype) {
    case CM_F64:
        return launch<CM_F64>(stream, &request);
    case CM_F32:
    case CM_TF32:
        return launch<CM_F32>(stream, &request);
    case CM_BF16:
        return launch<CM_BF16>(stream, &request);
    case CM_F16:
        return launch<CM_F16>(stream, &request);
    case CM_F8E4M3:
        return launch<CM_F8E4M3>(stream, &request);
    case CM_F8E5M2:
        return launch<CM_F8E5M2>(stream, &request);
    case CM_I32:
        return launch<CM_I32>(stream, &request);
    case CM_I8:
        return launch<CM_I8>(stream, &request);
    case CM_MXFP8:
    case CM_NVFP4:
    case CM_DTYPE_COUNT:
        break;
    }
    return cudaErrorInvalidValue;
}
