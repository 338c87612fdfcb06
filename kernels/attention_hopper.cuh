/*
 * attention_hopper.cuh: what the attention kernels on Hopper's (compute capability 9.0) own
 * instructions share: tiles that the copy engine (TMA) brings, and products of a warpgroup.
 *
 * A block has two warpgroups that compute, with 64 rows each, and one that has tiles of columns
 * copied for them, STAGES ahead. A tile lies in shared memory as boxes of 64 elements of each row,
 * 128 bytes, in groups of 8 rows whose 16-byte chunks the copy engine exchanges (its 128-byte
 * swizzle), where wgmma expects them.
 */
#ifndef CLUSTERMARK_ATTENTION_HOPPER_CUH
#define CLUSTERMARK_ATTENTION_HOPPER_CUH

#include "kernels/attention_mma.cuh"
#include "kernels/tensor_map.cuh"

/* Other architectures get kernels without a body, which are never launched there. */
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER
#endif

static const int CONSUMERS = 2;
static const int THREADS = (1 + CONSUMERS) * 128;
static const int OWN_ROWS = 64; /* of a consumer */
static const int ROWS = CONSUMERS * OWN_ROWS;
static const int STAGES = 2;
static const int BOX = 64; /* elements of a row in a box */
static const int BOX_ROW_BYTES = BOX * 2;
static const int ATOM_BYTES = 8 * BOX_ROW_BYTES;

/* Of all heads of a matrix, read in boxes of `rows` positions: an element of a row, a sequence and
 * a position are the dimensions. */
static inline int attention_map(const void *matrix, uint32_t heads, uint32_t length,
                                uint64_t stride, const struct cm_attention *shape, uint32_t rows,
                                CUtensorMap *map)
{
    uint64_t sizes[3] = {(uint64_t)heads * shape->head_size, shape->batch, length};
    uint64_t strides[2] = {stride * 2, stride * shape->batch * 2};
    uint32_t box[3] = {BOX, 1, rows};
    return cm_tensor_map(matrix, sizes, strides, box, true, map);
}

#ifdef HOPPER

/* Which stage is next, and the parity of its barriers' phase. */
struct attention_turn {
    uint32_t stage, parity;

    __device__ __forceinline__ void next()
    {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

/* Has a tile of so many rows of a head copied, which counts at `barrier`. */
template <int D, int COUNT>
static __device__ __forceinline__ void attention_load(uint32_t to, const CUtensorMap *map, int head,
                                                      uint32_t sequence, int position,
                                                      uint32_t barrier)
{
    for (int i = 0; i < D / BOX; i++)
        ptx_load_box(to + i * (COUNT * BOX_ROW_BYTES), map, head * D + i * BOX, (int)sequence,
                     position, barrier);
}

/* This warp has read what `barrier` guards; all its lanes have waited for it, too. */
static __device__ __forceinline__ void attention_release(uint32_t barrier)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        ptx_barrier_arrive(barrier, ptx_cluster_rank());
}

/* The descriptor of what wgmma reads from `address` on, whose boxes lie so far apart (without a
 * meaning where k is contiguous, and 16 then). */
static __device__ __forceinline__ uint64_t attention_matrix(uint32_t address,
                                                            uint64_t between_boxes)
{
    const uint64_t between_atoms = ATOM_BYTES >> 4;
    const uint64_t swizzle_128 = 1;
    return (address & 0x3ffff) >> 4 | between_boxes >> 4 << 16 | between_atoms << 32 |
           swizzle_128 << 62;
}

/* Begins products = x y^T: of OWN_ROWS and of 8 * N columns. */
template <int D, int N>
static __device__ __forceinline__ void attention_begin_multiply(float (&products)[N][4], uint32_t x,
                                                                uint32_t y)
{
    const int x_box_bytes = OWN_ROWS * BOX_ROW_BYTES, y_box_bytes = 8 * N * BOX_ROW_BYTES;
    ptx_wgmma_fence();
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        int box = step / (BOX / 16), in_box = step % (BOX / 16) * 32;
        ptx_wgmma_rows(products, attention_matrix(x + box * x_box_bytes + in_box, 16),
                       attention_matrix(y + box * y_box_bytes + in_box, 16), step > 0);
    }
    ptx_wgmma_commit();
}

/* Begins sums += weights y, the weights as attention_pack makes them, for 16 * N rows of y. */
template <int N, int TILES>
static __device__ __forceinline__ void
attention_begin_accumulate(float (&sums)[TILES][4], const uint32_t (&weights)[N][4], uint32_t y)
{
    ptx_wgmma_fence();
#pragma unroll
    for (int step = 0; step < N; step++)
        ptx_wgmma_registers(
            sums, weights[step],
            attention_matrix(y + step * (16 * BOX_ROW_BYTES), 16 * N * BOX_ROW_BYTES));
    ptx_wgmma_commit();
}

/* Rounds to bf16. */
template <int N>
static __device__ __forceinline__ void attention_pack(uint32_t (&words)[N][4],
                                                      const float (&weights)[2 * N][4])
{
#pragma unroll
    for (int i = 0; i < 4 * N; i++) {
        const float(&from)[4] = weights[i / 4 * 2 + i % 4 / 2];
        words[i / 4][i % 4] = ptx_pack_bf16(from[i % 2 * 2], from[i % 2 * 2 + 1]);
    }
}

#endif

#endif
