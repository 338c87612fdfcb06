/*
 * gemm.cuh: what the files of this project's own matrix product share: the arguments of its
 * kernels, the order of tiles and the way of a finished tile to memory.
 */
#ifndef CLUSTERMARK_GEMM_CUH
#define CLUSTERMARK_GEMM_CUH

#include <stddef.h>
#include <stdint.h>

#include "clustermark/cuda_kernels.h"
#include "kernels/fragment.cuh"
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

/* Two columns of each of four tiles become eight columns of one, 16 bytes. */
static __device__ __forceinline__ void gemm_store_bf16(const struct gemm_out &out, int row, int col,
                                                       const float (&low)[4],
                                                       const float (&high)[4])
{
    uint32_t words[4];
    bool inside = row < out.m && col < out.n;
    uint4 *c = (uint4 *)((uint16_t *)out.c + (size_t)row * out.n + col);
    if (out.accumulate) {
        uint4 old = inside ? *c : uint4{0, 0, 0, 0};
        words[0] = old.x;
        words[1] = old.y;
        words[2] = old.z;
        words[3] = old.w;
        cm_quad_transpose(words);
#pragma unroll
        for (int t = 0; t < 4; t++)
            words[t] =
                ptx_pack_bf16(low[t] + cm_bf16_low(words[t]), high[t] + cm_bf16_high(words[t]));
    } else {
#pragma unroll
        for (int t = 0; t < 4; t++)
            words[t] = ptx_pack_bf16(low[t], high[t]);
    }
    cm_quad_transpose(words);
    if (inside)
        *c = uint4{words[0], words[1], words[2], words[3]};
}

static __device__ __forceinline__ void gemm_store_four(const struct gemm_out &out, int row, int col,
                                                       float4 sum)
{
    if (row >= out.m || col >= out.n)
        return;
    float4 *c = (float4 *)((float *)out.c + (size_t)row * out.n + col);
    if (out.accumulate) {
        float4 old = *c;
        sum.x += old.x;
        sum.y += old.y;
        sum.z += old.z;
        sum.w += old.w;
    }
    *c = sum;
}

static __device__ __forceinline__ void gemm_store_one(const struct gemm_out &out, int row, int col,
                                                      float sum)
{
    if (row >= out.m || col >= out.n)
        return;
    size_t at = (size_t)row * out.n + col;
    if (out.f32) {
        float *c = (float *)out.c + at;
        *c = out.accumulate ? *c + sum : sum;
    } else {
        uint16_t *c = (uint16_t *)out.c + at;
        *c = (uint16_t)ptx_pack_bf16(out.accumulate ? sum + cm_bf16_low(*c) : sum, 0);
    }
}

/* Shared memory of a warp in which 16x32 of C can lie, rows PITCH apart so that rows of a fragment
 * meet in no bank. */
static const int GEMM_PITCH = 40;
static const int GEMM_SCRATCH = 16 * GEMM_PITCH; /* floats */

/* By way of shared memory: f32, and rows that are not aligned. */
static __device__ __forceinline__ void gemm_store_rows(const struct gemm_out &out, int row, int col,
                                                       const float (&sums)[4][4], float *scratch)
{
    int lane = threadIdx.x % 32;
    __syncwarp(); /* the last 16x32 have been read */
#pragma unroll
    for (int i = 0; i < 8; i++)
        *(float2 *)&scratch[(lane / 4 + i % 2 * 8) * GEMM_PITCH + i / 2 * 8 + lane % 4 * 2] =
            float2{sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]};
    __syncwarp();
    if (out.f32 && out.wide) {
#pragma unroll 1
        for (int r = lane / 8; r < 16; r += 4)
            gemm_store_four(out, row + r, col + lane % 8 * 4,
                            *(float4 *)&scratch[r * GEMM_PITCH + lane % 8 * 4]);
    } else {
#pragma unroll 1
        for (int r = 0; r < 16; r++)
            gemm_store_one(out, row + r, col + lane, scratch[r * GEMM_PITCH + lane]);
    }
}

/* A warp's 16x32 of C from `row` and `col` on, as mma and wgmma leave it in registers: tile t of 8
 * columns has its row lane / 4 in words 0 and 1 and the eighth below in words 2 and 3. */
static __device__ __forceinline__ void gemm_store(const struct gemm_out &out, int row, int col,
                                                  const float (&sums)[4][4], float *scratch)
{
    if (out.f32 || !out.wide) {
        gemm_store_rows(out, row, col, sums, scratch);
        return;
    }
    row += threadIdx.x % 32 / 4;
    col += threadIdx.x % 4 * 8;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float low[4], high[4];
#pragma unroll
        for (int t = 0; t < 4; t++) {
            low[t] = sums[t][2 * half];
            high[t] = sums[t][2 * half + 1];
        }
        gemm_store_bf16(out, row + 8 * half, col, low, high);
    }
}

#endif
