/*
 * fragment.cuh: what tensor core kernels do with the fragments of a result that mma and wgmma leave
 * in registers, and with pairs of bf16.
 */
#ifndef CLUSTERMARK_FRAGMENT_CUH
#define CLUSTERMARK_FRAGMENT_CUH

#include <stdint.h>

#include "kernels/launch.cuh"

/* Word j of lane i of each four lanes goes to word i of lane j. */
static __device__ __forceinline__ void cm_quad_transpose(uint32_t (&words)[4])
{
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2) {
        bool upper = (threadIdx.x & bit) != 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (j & bit)
                continue;
            uint32_t got = __shfl_xor_sync(0xffffffff, upper ? words[j] : words[j + bit], bit);
            words[j] = upper ? got : words[j];
            words[j + bit] = upper ? words[j + bit] : got;
        }
    }
}

static __device__ __forceinline__ float cm_bf16_low(uint32_t word)
{
    return __uint_as_float(word << 16);
}

static __device__ __forceinline__ float cm_bf16_high(uint32_t word)
{
    return __uint_as_float(word & 0xffff0000);
}

#endif
