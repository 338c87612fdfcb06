/*
 * philox.cuh: Philox 4x32-10, counted by block as kernels/cpu/random.c does: four words, whose
 * halves belong to eight elements, word 0's low half first.
 */
#ifndef KERNELS_PHILOX_CUH
#define KERNELS_PHILOX_CUH

#include "kernels/launch.cuh"

#define MULTIPLIER_0  0xD2511F53u
#define MULTIPLIER_1  0xCD9E8D57u
#define KEY_STEP_0    0x9E3779B9u
#define KEY_STEP_1    0xBB67AE85u
#define PHILOX_ROUNDS 10
#define PHILOX_HALVES 8

static __device__ inline void cm_philox(uint64_t seed, uint64_t block, uint32_t x[4])
{
    uint32_t key_0 = (uint32_t)seed, key_1 = (uint32_t)(seed >> 32);
    x[0] = (uint32_t)block;
    x[1] = (uint32_t)(block >> 32);
    x[2] = x[3] = 0;
#pragma unroll
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t product_0 = (uint64_t)MULTIPLIER_0 * x[0];
        uint64_t product_1 = (uint64_t)MULTIPLIER_1 * x[2];
        x[0] = (uint32_t)(product_1 >> 32) ^ x[1] ^ key_0;
        x[2] = (uint32_t)(product_0 >> 32) ^ x[3] ^ key_1;
        x[1] = (uint32_t)product_1;
        x[3] = (uint32_t)product_0;
        key_0 += KEY_STEP_0;
        key_1 += KEY_STEP_1;
    }
}

#endif
