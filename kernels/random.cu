/*
 * Random inputs: Philox 4x32-10 and a table of quantiles, bit for bit as kernels/cpu/random.c makes
 * them.
 *
 * A thread makes whole blocks of eight elements, so that what it stores is 16 bytes wide. Its eight
 * looks into the table are independent of one another. The table's lower half is its upper half
 * with the other sign; only the upper is read, 128 KB, of which the L1 cache holds most.
 */
#include <string.h>

#include "clustermark/cuda_kernels.h"
#include "kernels/launch.cuh"
#include "kernels/philox.cuh"
#include "kernels/round.cuh"

/* ---- One element ---- */

template <enum cm_dtype D> struct element;

#define DEFINE_ELEMENT(name, stored, expression)                                                   \
    template <> struct element<CM_##name> {                                                        \
        typedef stored type;                                                                       \
        static __device__ inline stored of(float value)                                            \
        {                                                                                          \
            return (stored)(expression);                                                           \
        }                                                                                          \
    };
DEFINE_ELEMENT(F64, double, value)
DEFINE_ELEMENT(F32, float, value)
DEFINE_ELEMENT(BF16, uint16_t, (cm_round_to<7, 127, 0x7f80>(value, 0x8000)))
DEFINE_ELEMENT(F16, uint16_t, (cm_round_to<10, 15, 0x7c00>(value, 0x8000)))
DEFINE_ELEMENT(F8E4M3, uint8_t, (cm_round_to<3, 7, 0x7e>(value, 0x80)))
DEFINE_ELEMENT(F8E5M2, uint8_t, (cm_round_to<2, 15, 0x7b>(value, 0x80)))
DEFINE_ELEMENT(I32, int32_t, __float2int_rn(32 * value))
DEFINE_ELEMENT(I8, int8_t, max(-128, min(127, __float2int_rn(32 * value))))

/* Entry `place` of the table. */
static __device__ inline float quantile(const float *table, unsigned place)
{
    bool upper = place & 0x8000;
    float value = __ldg(&table[upper ? place : place ^ 0xffff]);
    return upper ? value : -value;
}

/* ---- Kernel ---- */

struct fill_job {
    void *to;
    const float *table;
    uint64_t count, seed, first;
    bool wide; /* blocks begin at multiples of 16 bytes */
};

/* Units first / UNIT ... of UNIT elements each: a block, or two where elements are single bytes. */
template <enum cm_dtype D>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT / 2)
    fill_kernel(struct fill_job job)
{
    typedef typename element<D>::type type;
    const int UNIT = sizeof(type) == 1 ? 2 * PHILOX_HALVES : PHILOX_HALVES,
              WIDTH = 16 / sizeof(type);
    typedef cm_vector<type, WIDTH> vector;
    uint64_t end = job.first + job.count, units = (end + UNIT - 1) / UNIT;
    for (uint64_t unit = job.first / UNIT + cm_grid_thread(); unit < units;
         unit += cm_grid_threads()) {
        vector out[UNIT / WIDTH];
#pragma unroll
        for (int i = 0; i < UNIT; i += PHILOX_HALVES) {
            uint32_t words[4];
            cm_philox(job.seed, unit * (UNIT / PHILOX_HALVES) + i / PHILOX_HALVES, words);
#pragma unroll
            for (int k = 0; k < PHILOX_HALVES; k++) {
                unsigned place = words[k / 2] >> 16 * (k % 2) & 0xffff;
                out[(i + k) / WIDTH].v[(i + k) % WIDTH] =
                    element<D>::of(quantile(job.table, place));
            }
        }
        uint64_t index = unit * UNIT;
        type *to = (type *)job.to + (index - job.first);
        if (job.wide && index >= job.first && index + UNIT <= end) {
#pragma unroll
            for (int i = 0; i < UNIT / WIDTH; i++) {
                uint4 bits;
                memcpy(&bits, &out[i], sizeof bits);
                __stwb((uint4 *)to + i, bits); /* compilers split an ordinary store */
            }
            continue;
        }
#pragma unroll
        for (int i = 0; i < UNIT; i++) {
            if (index + i >= job.first && index + i < end)
                to[i] = out[i / WIDTH].v[i % WIDTH];
        }
    }
}

/* ---- Kernel launcher ---- */

template <enum cm_dtype D> static int launch(cudaStream_t stream, struct fill_job job)
{
    const uint64_t size = sizeof(typename element<D>::type);
    job.wide = ((uintptr_t)job.to - job.first * size) % 16 == 0;
    unsigned blocks;
    int error = cm_stream_grid(job.count / PHILOX_HALVES + 2, &blocks);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH(fill_kernel<D>, blocks, CM_THREADS, 0, stream, job);
}

int cm_cuda_fill_normal(cudaStream_t stream, void *to, uint64_t count, enum cm_dtype dtype,
                        uint64_t seed, uint64_t first, const float *table)
{
    struct fill_job job = {to, table, count, seed, first, false};
    if (count == 0)
        return cudaSuccess;
    switch (dtype) {
    case CM_F64:
        return launch<CM_F64>(stream, job);
    case CM_F32:
    case CM_TF32:
        return launch<CM_F32>(stream, job);
    case CM_BF16:
        return launch<CM_BF16>(stream, job);
    case CM_F16:
        return launch<CM_F16>(stream, job);
    case CM_F8E4M3:
        return launch<CM_F8E4M3>(stream, job);
    case CM_F8E5M2:
        return launch<CM_F8E5M2>(stream, job);
    case CM_I32:
        return launch<CM_I32>(stream, job);
    case CM_I8:
        return launch<CM_I8>(stream, job);
    case CM_MXFP8:
    case CM_NVFP4:
    case CM_DTYPE_COUNT:
        break;
    }
    return cudaErrorInvalidValue;
}
