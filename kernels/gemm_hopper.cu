/*
 * gemm_hopper.cu: the matrix product on Hopper's (compute capability 9.0) own instructions.
 *
 * Each block stays and makes one tile of C, 128x256, after the other. One of its warpgroups has
 * slices of A and B, 64 deep, copied into shared memory by the copy engine (TMA), several ahead of
 * their use and on into the next tile; two others multiply, each 64 rows of the tile, by wgmma, and
 * write their part of C from registers. Two blocks make a cluster: their tiles lie side by side
 * along m, and each has one half of their common slice of B copied to both.
 *
 * A slice lies in shared memory in rows of 128 bytes (64 elements), in groups of 8 whose 16-byte
 * chunks the copy engine exchanges (its 128-byte swizzle), where wgmma expects them. Where k is
 * contiguous in memory, a row is 64 of k and there is one for each m or n; else a row is 64 of m or
 * n, there is one for each k, and the next 64 of m or n follow as a box of their own.
 */
#include "kernels/gemm.cuh"
#include "kernels/tensor_map.cuh"

static const int TILE_M = 128;
static const int TILE_N = 256;
static const int TILE_K = 64;
static const int CLUSTER = 2;
static const int STAGES = 4;
static const int CONSUMERS = 2; /* warpgroups */
static const int THREADS = (1 + CONSUMERS) * 128;
static const int ROW_BYTES = 128; /* of a box in shared memory */
static const int ATOM_BYTES = 8 * ROW_BYTES;
static const int A_BYTES = TILE_M * TILE_K * 2;
static const int B_BYTES = TILE_N * TILE_K * 2;
static const int STAGE_BYTES = A_BYTES + B_BYTES;
static const int SCRATCH_BYTES = CONSUMERS * 4 * GEMM_SCRATCH * 4;
static const int SHARED_BYTES = SCRATCH_BYTES + ATOM_BYTES + STAGES * STAGE_BYTES + 2 * STAGES * 8;

struct gemm_hopper_args {
    CUtensorMap a, b;
    struct gemm_out out;
    int k;
    int tiles_m, tiles_n; /* m in tiles of a cluster */
    int tiles;            /* of a cluster, in all */
};

/* Other architectures get a kernel without a body, which is never launched there. */
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTERED
#endif

#ifdef HOPPER

static const int BOX = 64; /* where m or n is contiguous, its extent in a box */
static const int BOX_BYTES = TILE_K * ROW_BYTES;

/* Which stage is next, and the parity of its barriers' phase. */
struct turn {
    uint32_t stage, parity;

    __device__ void next()
    {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

/* Addresses in shared memory. */
struct stages {
    uint32_t data, barriers;

    __device__ uint32_t a(uint32_t stage) const
    {
        return data + stage * STAGE_BYTES;
    }
    __device__ uint32_t b(uint32_t stage) const
    {
        return data + stage * STAGE_BYTES + A_BYTES;
    }
    /* All bytes of the stage have come. */
    __device__ uint32_t full(uint32_t stage) const
    {
        return barriers + stage * 8;
    }
    /* All warps of the cluster that multiply have read the stage. */
    __device__ uint32_t empty(uint32_t stage) const
    {
        return barriers + (STAGES + stage) * 8;
    }
};

/* Has the stage's slice copied: this block's of A, and for the cluster this block's half of B. */
template <bool A_MN, bool B_MN>
static __device__ void load_slice(const struct stages &stages, uint32_t stage,
                                  const struct gemm_hopper_args &args, const struct gemm_tile &tile,
                                  uint32_t rank, int k)
{
    int m = (tile.m * CLUSTER + (int)rank) * TILE_M, n = tile.n * TILE_N;
    uint32_t full = stages.full(stage), a = stages.a(stage), b = stages.b(stage);
    ptx_barrier_expect(full, STAGE_BYTES);
    if (A_MN) {
        for (int i = 0; i < TILE_M / BOX; i++)
            ptx_load_box(a + i * BOX_BYTES, &args.a, m + i * BOX, k, tile.batch, full);
    } else {
        ptx_load_box(a, &args.a, k, m, tile.batch, full);
    }
    const int half = TILE_N / CLUSTER;
    const uint16_t all = (1 << CLUSTER) - 1;
    n += (int)rank * half;
    b += rank * (B_BYTES / CLUSTER);
    if (B_MN) {
        for (int i = 0; i < half / BOX; i++)
            ptx_load_box_multicast(b + i * BOX_BYTES, &args.b, n + i * BOX, k, tile.batch, full,
                                   all);
    } else {
        ptx_load_box_multicast(b, &args.b, k, n, tile.batch, full, all);
    }
}

template <bool A_MN, bool B_MN>
static __device__ void produce(const struct stages &stages, const struct gemm_hopper_args &args,
                               uint32_t rank)
{
    struct turn turn = {0, 1}; /* the phase before the first counts as over */
    ptx_prefetch_map(&args.a);
    ptx_prefetch_map(&args.b);
    for (int i = blockIdx.x / CLUSTER; i < args.tiles; i += gridDim.x / CLUSTER) {
        struct gemm_tile tile = gemm_tile_of(i, args.tiles_m, args.tiles_n);
        for (int k = 0; k < args.k; k += TILE_K, turn.next()) {
            ptx_barrier_wait(stages.empty(turn.stage), turn.parity);
            load_slice<A_MN, B_MN>(stages, turn.stage, args, tile, rank, k);
        }
    }
}

/* The descriptor of what wgmma reads from `address` on: how far apart lie the boxes of 64 of m or n
 * (without a meaning where k is contiguous, and 1 then) and the groups of 8 rows. */
template <bool MN> static __device__ uint64_t matrix_at(uint32_t address)
{
    const uint64_t between_boxes = MN ? BOX_BYTES >> 4 : 1;
    const uint64_t between_atoms = ATOM_BYTES >> 4;
    const uint64_t swizzle_128 = 1;
    return (address & 0x3ffff) >> 4 | between_boxes << 16 | between_atoms << 32 | swizzle_128 << 62;
}

/* From one 16 of k to the next, in the descriptors' units of 16 bytes: within the rows, or 16 rows
 * on. */
#define K_STEP(mn) (((mn) ? 16 * ROW_BYTES : 16 * 2) >> 4)

/* All that a slice adds, begun. */
template <bool A_MN, bool B_MN>
static __device__ __forceinline__ void multiply(float (&sums)[128], uint64_t a, uint64_t b,
                                                bool add)
{
    ptx_wgmma_fence();
#pragma unroll
    for (int i = 0; i < TILE_K / 16; i++)
        ptx_wgmma<A_MN, B_MN>(sums, a + i * K_STEP(A_MN), b + i * K_STEP(B_MN), add || i > 0);
    ptx_wgmma_commit();
}

/* This warp has read the stage: each block of the cluster is told. */
static __device__ __forceinline__ void release(const struct stages &stages, uint32_t stage)
{
    if (threadIdx.x % 32 < CLUSTER)
        ptx_barrier_arrive(stages.empty(stage), threadIdx.x % 32);
}

static __device__ __forceinline__ void store(struct gemm_out out, const struct gemm_tile &tile,
                                             int m, const float (&sums)[128], float *scratch)
{
    int n = tile.n * TILE_N;
    out.c = gemm_matrix_of(out, tile.batch);
#pragma unroll
    for (int i = 0; i < TILE_N / 32; i++) {
        float part[4][4];
#pragma unroll
        for (int t = 0; t < 16; t++)
            part[t / 4][t % 4] = sums[16 * i + t];
        gemm_store(out, m, n + 32 * i, part, scratch);
    }
}

template <bool A_MN, bool B_MN>
static __device__ __forceinline__ void consume(const struct stages &stages,
                                               const struct gemm_hopper_args &args, uint32_t rank,
                                               float *scratch)
{
    /* By way of a shuffle the compiler knows that it is the same in the whole warp. */
    uint32_t group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0) - 1;
    uint32_t warp = threadIdx.x / 32 % 4;
    struct turn turn = {0, 0};
    for (int i = blockIdx.x / CLUSTER; i < args.tiles; i += gridDim.x / CLUSTER) {
        struct gemm_tile tile = gemm_tile_of(i, args.tiles_m, args.tiles_n);
        int m = (tile.m * CLUSTER + (int)rank) * TILE_M + (int)(group * 64 + warp * 16);
        float sums[128];
        uint32_t last = 0;
        for (int k = 0; k < args.k; k += TILE_K, turn.next()) {
            ptx_barrier_wait(stages.full(turn.stage), turn.parity);
            multiply<A_MN, B_MN>(
                sums, matrix_at<A_MN>(stages.a(turn.stage) + group * (A_BYTES / CONSUMERS)),
                matrix_at<B_MN>(stages.b(turn.stage)), k > 0);
            ptx_wgmma_wait<1>();
            if (k > 0)
                release(stages, last);
            last = turn.stage;
        }
        ptx_wgmma_finish(sums);
        release(stages, last);
        store(args.out, tile, m, sums, scratch + (group * 4 + warp) * GEMM_SCRATCH);
    }
}

#endif

template <bool A_MN, bool B_MN>
static __global__ CLUSTERED
__launch_bounds__(THREADS, 1) void gemm_hopper(const __grid_constant__ struct gemm_hopper_args args)
{
#ifdef HOPPER
    CM_DYNAMIC_SHARED(shared);
    struct stages stages;
    stages.data =
        (ptx_shared_address(shared) + SCRATCH_BYTES + ATOM_BYTES - 1) / ATOM_BYTES * ATOM_BYTES;
    stages.barriers = stages.data + STAGES * STAGE_BYTES;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            ptx_barrier_init(stages.full(i), 1);
            ptx_barrier_init(stages.empty(i), CLUSTER * CONSUMERS * 4);
        }
        ptx_barrier_init_fence();
    }
    ptx_cluster_sync();
    uint32_t rank = ptx_cluster_rank();
    if (threadIdx.x < 128) {
        ptx_registers_less<40>();
        if (threadIdx.x == 0)
            produce<A_MN, B_MN>(stages, args, rank);
    } else {
        ptx_registers_more<232>();
        consume<A_MN, B_MN>(stages, args, rank, (float *)shared);
    }
    /* No block may leave while another still arrives at its barriers. */
    __syncwarp();
    ptx_cluster_sync();
#else
    __trap();
#endif
}

/* Tensor maps. */

/* Of an operand with `outer` of m or n, read in boxes of 64 of what is contiguous by `rows`. */
static int make_map(const struct cm_gemm_desc *desc, const void *matrix, uint64_t outer, bool mn,
                    uint32_t rows, CUtensorMap *map)
{
    uint64_t sizes[3] = {mn ? outer : desc->k, mn ? desc->k : outer, desc->batch};
    uint64_t strides[2] = {sizes[0] * 2, sizes[0] * sizes[1] * 2};
    uint32_t box[3] = {ROW_BYTES / 2, rows, 1};
    return cm_tensor_map(matrix, sizes, strides, box, true, map);
}

/* Launch. */

bool gemm_hopper_fits(const struct cm_own_gemm *gemm)
{
    const struct cm_gemm_desc *desc = &gemm->desc;
    const uint64_t stride_max = UINT64_C(1) << 40; /* bytes, in a tensor map */
    return gemm->capability == 90 && gemm_rows_aligned(gemm) &&
           desc->m * desc->k * 2 < stride_max && desc->n * desc->k * 2 < stride_max;
}

const char *gemm_hopper_name(void)
{
    return "own wgmma 128x256x64";
}

int gemm_hopper_launch(struct CUstream_st *stream, const struct cm_own_gemm *gemm, const void *a,
                       const void *b, void *c)
{
    typedef void (*hopper_kernel)(const struct gemm_hopper_args);
    static const hopper_kernel kernels[2][2] = {
        {gemm_hopper<false, false>, gemm_hopper<false, true>},
        {gemm_hopper<true, false>, gemm_hopper<true, true>},
    };
    const struct cm_gemm_desc *desc = &gemm->desc;
    bool a_mn = desc->trans_a, b_mn = !desc->trans_b;
    hopper_kernel kernel = kernels[a_mn][b_mn];
    struct gemm_hopper_args args;
    int error = make_map(desc, a, desc->m, a_mn, a_mn ? TILE_K : TILE_M, &args.a);
    if (error == cudaSuccess)
        error = make_map(desc, b, desc->n, b_mn, b_mn ? TILE_K : TILE_N / CLUSTER, &args.b);
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute((const void *)kernel,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED_BYTES);
    if (error != cudaSuccess)
        return error;
    args.out = gemm_out_of(gemm, c);
    args.k = (int)desc->k;
    args.tiles_m = (int)gemm_ceil(desc->m, CLUSTER * TILE_M);
    args.tiles_n = (int)gemm_ceil(desc->n, TILE_N);
    args.tiles = args.tiles_m * args.tiles_n * (int)desc->batch;
    int clusters = max(min(gemm->multiprocessors / CLUSTER, args.tiles), 1);
    return CM_LAUNCH_CLUSTER(kernel, CLUSTER, clusters * CLUSTER, THREADS, SHARED_BYTES, stream,
                             args);
}
