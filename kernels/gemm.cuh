/*
 * gemm.cuh: what the files of this project's own matrix product share: the arguments of its
 * kernels, the order of tiles and the way of a finished tile to memory.
 */
#ifndef CLUSTERMARK_GEMM_CUH
#define CLUSTERMARK_GEMM_CUH

#include <stddef.h>
#include <stdint.h>

#include "clustermark/cuda_kernels.h"
#include "kernels/launch.cuh"
#include "kernels/ptx.cuh"

/* Where C goes. */
struct gemm_out {
    void *c;
    int m, n;
    bool f32;
    bool accumulate;
    bool wide; /* each 8 elements of a row, from a multiple of 8 on, are 16-byte aligned */
};

struct gemm_tile {
    int batch, m, n; /* in tiles */
};

struct gemm_out gemm_out_of(const struct cm_own_gemm *gemm, void *c);
/* Each row of A and B, as it lies in memory, begins at a multiple of 16 bytes from the first. */
bool gemm_rows_aligned(const struct cm_own_gemm *gemm);

static inline uint64_t gemm_ceil(uint64_t count, uint64_t per)
{
    return (count + per - 1) / per;
}

/* gemm_mma.cu: any shape, compute capability 8.0 and later. */
const char *gemm_mma_name(const struct cm_own_gemm *gemm);
int gemm_mma_launch(struct CUstream_st *stream, const struct cm_own_gemm *gemm, const void *a,
                    const void *b, void *c);

/* gemm_hopper.cu: compute capability 9.0, and shapes that its copy engine can address; a and b
 * 16-byte aligned. */
bool gemm_hopper_fits(const struct cm_own_gemm *gemm);
const char *gemm_hopper_name(void);
int gemm_hopper_launch(struct CUstream_st *stream, const struct cm_own_gemm *gemm, const void *a,
                       const void *b, void *c);

#define GEMM_GROUP 8 /* tiles along m that are visited before the next ones along n */

/* The order of tiles: those that run at the same time share rows of A and columns of B in L2. */
static __device__ __forceinline__ struct gemm_tile gemm_tile_of(int index, int tiles_m, int tiles_n)
{
    struct gemm_tile tile;
    tile.batch = index / (tiles_m * tiles_n);
    index -= tile.batch * (tiles_m * tiles_n);
    int group = index / (GEMM_GROUP * tiles_n);
    index -= group * (GEMM_GROUP * tiles_n);
    int rows = min(tiles_m - group * GEMM_GROUP, GEMM_GROUP);
    tile.n = index / rows;
    tile.m = group * GEMM_GROUP + index - tile.n * rows;
    return tile;
}

static __device__ __forceinline__ void *gemm_matrix_of(const struct gemm_out &out, int batch)
{
    return (char *)out.c + (size_t)batch * out.m * out.n * (out.f32 ? 4 : 2);
}

/* Word j of lane i of each four lanes goes to word i of lane j. */
static __device__ __forceinline__ void gemm_transpose(uint32_t (&words)[4])
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

static __device__ __forceinline__ float gemm_bf16_low(uint32_t word)
{
    return __uint_as_float(word << 16);
}

static __device__ __forceinline__ float gemm_bf16_high(uint32_t word)
{
    return __uint_as_float(word & 0xffff0000);
}

static __device__ __forceinline__ void gemm_store_one(const struct gemm_out &out, int row, int col,
                                                      float value)
{
    if (row >= out.m || col >= out.n)
        return;
    size_t at = (size_t)row * out.n + col;
    if (out.f32) {
        float *c = (float *)out.c + at;
        *c = out.accumulate ? *c + value : value;
    } else {
        uint16_t *c = (uint16_t *)out.c + at;
        float sum = out.accumulate ? value + gemm_bf16_low(*c) : value;
        *c = (uint16_t)ptx_pack_bf16(sum, 0);
    }
}

/* Two columns of each of four tiles become eight columns of one. */
static __device__ __forceinline__ void gemm_store_f32(const struct gemm_out &out, float *c,
                                                      bool inside, const float (&low)[4],
                                                      const float (&high)[4])
{
    uint32_t even[4], odd[4];
#pragma unroll
    for (int t = 0; t < 4; t++) {
        even[t] = __float_as_uint(low[t]);
        odd[t] = __float_as_uint(high[t]);
    }
    gemm_transpose(even);
    gemm_transpose(odd);
    if (!inside)
        return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float4 sum = {__uint_as_float(even[2 * half]), __uint_as_float(odd[2 * half]),
                      __uint_as_float(even[2 * half + 1]), __uint_as_float(odd[2 * half + 1])};
        if (out.accumulate) {
            float4 old = ((float4 *)c)[half];
            sum.x += old.x;
            sum.y += old.y;
            sum.z += old.z;
            sum.w += old.w;
        }
        ((float4 *)c)[half] = sum;
    }
}

static __device__ __forceinline__ void gemm_store_bf16(const struct gemm_out &out, uint16_t *c,
                                                       bool inside, const float (&low)[4],
                                                       const float (&high)[4])
{
    uint32_t words[4];
    if (out.accumulate) {
        uint4 old = inside ? *(uint4 *)c : uint4{0, 0, 0, 0};
        words[0] = old.x;
        words[1] = old.y;
        words[2] = old.z;
        words[3] = old.w;
        gemm_transpose(words);
#pragma unroll
        for (int t = 0; t < 4; t++)
            words[t] =
                ptx_pack_bf16(low[t] + gemm_bf16_low(words[t]), high[t] + gemm_bf16_high(words[t]));
    } else {
#pragma unroll
        for (int t = 0; t < 4; t++)
            words[t] = ptx_pack_bf16(low[t], high[t]);
    }
    gemm_transpose(words);
    if (inside)
        *(uint4 *)c = uint4{words[0], words[1], words[2], words[3]};
}

/* A warp's 16x32 of C from `row` and `col` on, as mma and wgmma leave it in registers: tile t of 8
 * columns has its row lane / 4 in words 0 and 1 and the eighth below in words 2 and 3. */
static __device__ __forceinline__ void gemm_store(const struct gemm_out &out, int row, int col,
                                                  const float (&sums)[4][4])
{
    int quad = threadIdx.x % 4;
    row += threadIdx.x % 32 / 4;
#pragma unroll
    for (int half = 0; half < 2; half++, row += 8) {
        float low[4], high[4];
#pragma unroll
        for (int t = 0; t < 4; t++) {
            low[t] = sums[t][2 * half];
            high[t] = sums[t][2 * half + 1];
        }
        if (!out.wide) {
#pragma unroll
            for (int t = 0; t < 4; t++) {
                gemm_store_one(out, row, col + 8 * t + 2 * quad, low[t]);
                gemm_store_one(out, row, col + 8 * t + 2 * quad + 1, high[t]);
            }
            continue;
        }
        bool inside = row < out.m && col + 8 * quad < out.n;
        size_t at = (size_t)row * out.n + col + 8 * quad;
        if (out.f32)
            gemm_store_f32(out, (float *)out.c + at, inside, low, high);
        else
            gemm_store_bf16(out, (uint16_t *)out.c + at, inside, low, high);
    }
}

#endif
