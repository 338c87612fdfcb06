/*
 * gemm_mma.cu: the matrix product on the tensor cores of compute capability 8.0 and later.
 *
 * A block makes a tile of C, each of its warps 64x64 of it by mma.sync. Slices of A and B, 32 deep,
 * come into shared memory several ahead of their use, 16 bytes at a time by cp.async where rows are
 * 16-byte aligned, else element by element. Fragments of the next 16 in k are read while the
 * products of these 16 run. The 16-byte chunks of shared memory lie exchanged such that neither the
 * copies nor ldmatrix meet in a bank.
 */
#include "kernels/gemm.cuh"

static const int TILE_N = 128;
static const int TILE_K = 32;
static const int WARP_TILE = 64;
static const int CHUNK = 8; /* elements of 16 bytes */
static const int STAGES = 4;

/* A warp for each 64x64 of a tile that is TILE_N wide. */
#define THREADS(tile_m) ((tile_m) / WARP_TILE * (TILE_N / WARP_TILE) * 32)

struct gemm_mma_args {
    const uint16_t *a, *b;
    struct gemm_out out;
    int k;
    int tiles_m, tiles_n;
};

/* One operand, of which a block of COUNT threads reads OUTER rows (of A) or columns (of B), TILE_K
 * deep at a time. MN: m or n is what is contiguous in memory, and in shared memory, else k is. */
template <bool IS_A, bool MN, int OUTER, int COUNT> struct operand {
    static const int SLICE_BYTES = OUTER * TILE_K * 2;
    static const int ROW_CHUNKS = (MN ? OUTER : TILE_K) / CHUNK;
    static const int STEP = COUNT / ROW_CHUNKS; /* rows from one chunk of a thread to its next */
    static const int CHUNKS = OUTER * TILE_K / CHUNK / COUNT;
    const uint16_t *from; /* this thread's first chunk of the next slice */
    uint32_t leading;     /* elements from row to row in memory */
    int row, column;      /* of that chunk in the slice, the column in elements */
    int outer_left;       /* of the matrix from the tile on */
    uint32_t to;          /* the chunk's place in a stage */
    uint32_t fragment;    /* where this lane reads in a slice */

    __device__ void init(const uint16_t *matrix, int outer, int first, int k, int warp_outer)
    {
        leading = MN ? outer : k;
        row = threadIdx.x / ROW_CHUNKS;
        column = threadIdx.x % ROW_CHUNKS * CHUNK;
        outer_left = outer - first;
        from = matrix + (size_t)leading * (MN ? row : first + row) + (MN ? first : 0) + column;
        uint32_t exchange = MN ? row % 8 : row / 2 % 4;
        to = row * (ROW_CHUNKS * 16) + ((column / CHUNK ^ exchange) * 16);

        /* The 8x8 that this lane gives an address of. mma wants those of an 8 of B side by side. */
        uint32_t lane = threadIdx.x % 32, in_row = lane % 8;
        uint32_t outer_8 = IS_A ? lane / 8 % 2 : lane / 16;
        uint32_t k_8 = IS_A ? lane / 16 : lane / 8 % 2;
        if (MN)
            fragment =
                (k_8 * 8 + in_row) * (OUTER * 2) + warp_outer * 2 + ((outer_8 ^ in_row) * 16);
        else
            fragment =
                (warp_outer + outer_8 * 8 + in_row) * (TILE_K * 2) + ((k_8 ^ in_row / 2) * 16);
    }

    /* How many elements of the chunk that lies `step` steps further are in the matrix. */
    __device__ int count_of(int step, int k_left) const
    {
        int r = row + step * STEP;
        int rows_left = MN ? k_left : outer_left, columns_left = MN ? outer_left : k_left;
        return r < rows_left ? min(columns_left - column, CHUNK) : 0;
    }

    /* Fetches the slice at `from`, which has k_left of k left, into a stage, and goes on. */
    template <bool ALIGNED> __device__ void fetch(uint32_t stage, int k_left)
    {
#pragma unroll(ALIGNED ? CHUNKS : 1)
        for (int step = 0; step < CHUNKS; step++) {
            const uint16_t *chunk = from + (size_t)leading * (step * STEP);
            uint32_t place = stage + to + step * (STEP * ROW_CHUNKS * 16);
            int count = count_of(step, k_left);
            if (ALIGNED) {
                ptx_copy_async(place, chunk, count > 0);
                continue;
            }
            uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
            for (int i = 0; i < CHUNK; i++) {
                if (i < count)
                    words[i / 2] |= (uint32_t)chunk[i] << i % 2 * 16;
            }
            ptx_store_shared(place, words);
        }
        from += MN ? (size_t)leading * TILE_K : TILE_K;
    }

    /* The warp's 64 by 16 of a stage, from 16 * part of k on. */
    __device__ void read(uint32_t stage, int part, uint32_t (&words)[WARP_TILE / 16][4]) const
    {
#pragma unroll
        for (int i = 0; i < WARP_TILE / 16; i++) {
            if (MN)
                ptx_load_matrix<true>(words[i],
                                      stage + part * (16 * OUTER * 2) + (fragment ^ (i * 32)));
            else
                ptx_load_matrix<false>(words[i],
                                       stage + i * (16 * TILE_K * 2) + (fragment ^ (part * 32)));
        }
    }
};

/* Other architectures get a kernel without a body, which is never launched there. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define TENSOR_CORES
static __device__ __forceinline__ void multiply(float (&sums)[4][8][4], const uint32_t (&a)[4][4],
                                                const uint32_t (&b)[4][4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++)
            ptx_mma(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
}

static __device__ __forceinline__ void store(const struct gemm_out &out, int m, int n,
                                             const float (&sums)[4][8][4], float *scratch)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float part[4][4];
#pragma unroll
            for (int t = 0; t < 16; t++)
                part[t / 4][t % 4] = sums[i][4 * j + t / 4][t % 4];
            gemm_store(out, m + i * 16, n + j * 32, part, scratch);
        }
    }
}
#endif

template <bool A_MN, bool B_MN, int TILE_M, bool ALIGNED>
static __global__
__launch_bounds__(THREADS(TILE_M),
                  256 / THREADS(TILE_M)) void gemm_mma(const struct gemm_mma_args args)
{
#ifdef TENSOR_CORES
    CM_DYNAMIC_SHARED(shared);
    operand<true, A_MN, TILE_M, THREADS(TILE_M)> a;
    operand<false, B_MN, TILE_N, THREADS(TILE_M)> b;
    const uint32_t stage_bytes = a.SLICE_BYTES + b.SLICE_BYTES;
    struct gemm_tile tile = gemm_tile_of(blockIdx.x, args.tiles_m, args.tiles_n);
    int m = tile.m * TILE_M, n = tile.n * TILE_N, warp = threadIdx.x / 32;
    int warp_m = warp / (TILE_N / WARP_TILE) * WARP_TILE;
    int warp_n = warp % (TILE_N / WARP_TILE) * WARP_TILE;
    struct gemm_out out = args.out;
    a.init(args.a + (size_t)tile.batch * out.m * args.k, out.m, m, args.k, warp_m);
    b.init(args.b + (size_t)tile.batch * out.n * args.k, out.n, n, args.k, warp_n);

    uint32_t base = ptx_shared_address(shared);
    int k_left = args.k;
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        a.template fetch<ALIGNED>(base + stage * stage_bytes, k_left);
        b.template fetch<ALIGNED>(base + stage * stage_bytes + a.SLICE_BYTES, k_left);
        ptx_copy_commit();
        k_left -= TILE_K;
    }

    float sums[4][8][4] = {};
    uint32_t part_a[2][4][4], part_b[2][4][4];
    ptx_copy_wait<STAGES - 2>();
    __syncthreads();
    a.read(base, 0, part_a[0]);
    b.read(base + a.SLICE_BYTES, 0, part_b[0]);
    uint32_t used = 0, fetched = (STAGES - 1) * stage_bytes;
    for (int k = 0; k < args.k; k += TILE_K) {
        a.read(base + used, 1, part_a[1]);
        b.read(base + used + a.SLICE_BYTES, 1, part_b[1]);
        /* Its last readers were done before the barrier below. */
        a.template fetch<ALIGNED>(base + fetched, k_left);
        b.template fetch<ALIGNED>(base + fetched + a.SLICE_BYTES, k_left);
        ptx_copy_commit();
        k_left -= TILE_K;
        multiply(sums, part_a[0], part_b[0]);

        fetched = used;
        used = used == (STAGES - 1) * stage_bytes ? 0 : used + stage_bytes;
        ptx_copy_wait<STAGES - 2>();
        __syncthreads();
        a.read(base + used, 0, part_a[0]);
        b.read(base + used + a.SLICE_BYTES, 0, part_b[0]);
        multiply(sums, part_a[1], part_b[1]);
    }

    ptx_copy_wait<0>();
    __syncthreads(); /* the stages are scratch now */
    out.c = gemm_matrix_of(out, tile.batch);
    store(out, m + warp_m, n + warp_n, sums, (float *)shared + warp * GEMM_SCRATCH);
#endif
}

typedef void (*mma_kernel)(const struct gemm_mma_args);

/* By A_MN, then B_MN. */
#define ORDERS(tile_m, aligned)                                                                    \
    {                                                                                              \
        {gemm_mma<false, false, tile_m, aligned>, gemm_mma<false, true, tile_m, aligned>},         \
            {gemm_mma<true, false, tile_m, aligned>, gemm_mma<true, true, tile_m, aligned>},       \
    }

static const struct shape {
    int tile_m;
    bool aligned;
    const char *name;
    mma_kernel kernels[2][2];
} shapes[] = {
    {256, true, "own mma.sync 256x128x32", ORDERS(256, true)},
    {128, true, "own mma.sync 128x128x32", ORDERS(128, true)},
    {128, false, "own mma.sync 128x128x32, rows not 16-byte aligned", ORDERS(128, false)},
};

static uint64_t tiles_of(const struct cm_own_gemm *gemm, int tile_m)
{
    const struct cm_gemm_desc *desc = &gemm->desc;
    return gemm_ceil(desc->m, tile_m) * gemm_ceil(desc->n, TILE_N) * desc->batch;
}

static const struct shape *choose_shape(const struct cm_own_gemm *gemm, bool aligned)
{
    if (!aligned)
        return &shapes[2];
    /* A multiprocessor has room for one block of the large tiles or two of the small ones. */
    uint64_t multiprocessors = gemm->multiprocessors > 0 ? (uint64_t)gemm->multiprocessors : 1;
    uint64_t small = tiles_of(gemm, 128);
    bool fewer_rounds =
        gemm_ceil(small, 2 * multiprocessors) < gemm_ceil(tiles_of(gemm, 256), multiprocessors);
    return small <= multiprocessors || fewer_rounds ? &shapes[1] : &shapes[0];
}

const char *gemm_mma_name(const struct cm_own_gemm *gemm)
{
    return choose_shape(gemm, gemm_rows_aligned(gemm))->name;
}

int gemm_mma_launch(struct CUstream_st *stream, const struct cm_own_gemm *gemm, const void *a,
                    const void *b, void *c)
{
    const struct cm_gemm_desc *desc = &gemm->desc;
    bool aligned = gemm_rows_aligned(gemm) && ((uintptr_t)a | (uintptr_t)b) % 16 == 0;
    const struct shape *shape = choose_shape(gemm, aligned);
    mma_kernel kernel = shape->kernels[desc->trans_a][!desc->trans_b];
    struct gemm_mma_args args;
    args.a = (const uint16_t *)a;
    args.b = (const uint16_t *)b;
    args.out = gemm_out_of(gemm, c);
    args.k = (int)desc->k;
    args.tiles_m = (int)gemm_ceil(desc->m, shape->tile_m);
    args.tiles_n = (int)gemm_ceil(desc->n, TILE_N);
    int shared_bytes = STAGES * (shape->tile_m + TILE_N) * TILE_K * 2;
    int error = cudaFuncSetAttribute((const void *)kernel,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH(kernel, (unsigned)tiles_of(gemm, shape->tile_m), THREADS(shape->tile_m),
                     shared_bytes, stream, args);
}
