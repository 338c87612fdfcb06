/*
 * attention_mma_backward.cu: the gradients of attention on the tensor cores of compute capability
 * 8.0 and later, as attention_backward.cuh says it. Each warp has 16 or 32 rows.
 */
#include "kernels/attention_backward.cuh"

enum way {
    WAY_DQ, /* rows are queries */
    WAY_DKV,
    WAY_DV, /* for head sizes with which a warp cannot hold both */
    WAY_DK
};

static const int STAGES = 2;

/* What is fixed for a kernel: its way, D, fragments of 16 rows in a warp, warps, and columns of a
 * tile. */
template <enum way WAY, int D, int M, int WARPS, int COLUMNS> struct backward {
    static const bool QUERIES = WAY == WAY_DQ; /* rows are queries */
    static const bool SUMS_P = WAY == WAY_DKV || WAY == WAY_DV;
    static const bool SUMS_DS = WAY != WAY_DV;
    static const int WIDTH = COLUMNS;
    static const int THREADS = WARPS * 32;
    static const int ROWS = WARPS * 16 * M;
    static const int ROWS_BYTES = ROWS * D * 2;
    static const int COLUMNS_BYTES = COLUMNS * D * 2;
    static const int STATS_BYTES = QUERIES ? 0 : COLUMNS * 8;
    static const int STAGE_BYTES = 2 * COLUMNS_BYTES + STATS_BYTES;
    /* y is needed for ds alone, the stages of w then too. */
    static const int SHARED_BYTES = (SUMS_DS ? 2 : 1) * ROWS_BYTES + STAGES * STAGE_BYTES;
};

#ifdef TENSOR_CORES

/* Has a tile of columns copied into a stage. */
template <typename B, typename W, typename S>
static __device__ __forceinline__ void
fetch_columns(uint32_t stage, const W &tiles, const S &source_u, const S &source_w,
              const struct attention_args &args, uint32_t sequence)
{
    const struct cm_attention &shape = args.shape;
    const void *u = args.k, *w = args.v;
    if (!B::QUERIES) {
        size_t head = (size_t)tiles.head * shape.head_size;
        u = (const uint16_t *)args.q + head;
        w = (const uint16_t *)args.dout + head;
        size_t first =
            (size_t)(sequence * shape.heads + (uint32_t)tiles.head) * attention_stats_pitch(shape) +
            tiles.column;
        if (threadIdx.x < B::WIDTH / 2)
            ptx_copy_async(stage + 2 * B::COLUMNS_BYTES + threadIdx.x * 16,
                           args.stats + first + threadIdx.x * 2,
                           tiles.column + (int)threadIdx.x * 2 < (int)shape.q_length);
    }
    source_u.template fetch<B::WIDTH>(stage, u, tiles.column);
    source_w.template fetch<B::WIDTH>(stage + B::COLUMNS_BYTES, w, tiles.column);
    ptx_copy_commit();
}

/* A block's tile of rows, and this thread's part of it. */
struct part {
    struct attention_place place;
    int kv_head;
    int count;    /* rows that there are */
    int first;    /* of the tile */
    int warp_row; /* of the warp, in the tile */
    int row;      /* of the lane: its first */
};

template <typename B>
static __device__ __forceinline__ struct part part_of(const struct cm_attention &shape)
{
    struct part part;
    part.count = (int)(B::QUERIES ? shape.q_length : shape.k_length);
    part.place = attention_place_of(shape, attention_ceil(part.count, B::ROWS),
                                    (int)(B::QUERIES ? shape.heads : shape.kv_heads), B::QUERIES);
    part.kv_head = part.place.head;
    if (B::QUERIES)
        part.kv_head /= (int)(shape.heads / shape.kv_heads);
    part.first = part.place.tile * B::ROWS;
    part.warp_row = attention_warp() * (B::ROWS / (B::THREADS / 32));
    part.row = part.first + part.warp_row + (int)(threadIdx.x % 32 / 4);
    return part;
}

/* All that a kernel adds for the tile of columns from `column` on, which lies at `u`. */
template <typename B, int D, int M, int COLUMNS>
static __device__ __forceinline__ void
add_tile(float (&sums_p)[M][D / 8][4], float (&sums_ds)[M][D / 8][4], uint32_t x, uint32_t y,
         uint32_t u, const float4 *column_stats, const float2 (&row_stats)[M][2],
         const struct attention_args &args, const struct part &part, int column)
{
    /* Queries of the warp's rows and keys of the columns, or the other way round. */
    const int rows = 16 * M;
    int row = part.first + part.warp_row;
    struct attention_span span =
        attention_span_of(args.shape, B::QUERIES ? row : column, B::QUERIES ? rows : COLUMNS);
    if ((B::QUERIES ? column : row) > span.most)
        return;
    float p[M][COLUMNS / 8][4] = {}, ds[M][COLUMNS / 8][4] = {};
    attention_multiply<D>(p, x, part.warp_row, u);
    if ((B::QUERIES ? column + COLUMNS : row + rows) - 1 > span.least)
        attention_mask_tile<B::QUERIES>(p, args.shape, part.row, column);
    attention_weights<B::QUERIES>(p, column_stats, row_stats, args.scale);
    if (B::SUMS_P)
        attention_accumulate<D>(sums_p, p, u + B::COLUMNS_BYTES);
    if (!B::SUMS_DS)
        return;
    attention_multiply<D>(ds, y, part.warp_row, u + B::COLUMNS_BYTES);
    attention_differentiate<B::QUERIES>(ds, p, column_stats, row_stats);
    attention_accumulate<D>(sums_ds, ds, u);
}

/* The gradients from this warp's sums. */
template <typename B, int D, int M>
static __device__ __forceinline__ void
finish(const struct attention_args &args, const struct part &part,
       const float (&sums_p)[M][D / 8][4], const float (&sums_ds)[M][D / 8][4])
{
    const struct cm_attention &shape = args.shape;
    size_t head = attention_head(shape, part.place.sequence,
                                 B::QUERIES ? shape.dq_stride : shape.dkv_stride, part.place.head);
    size_t pitch = B::QUERIES ? args.dq_pitch : args.dkv_pitch;
    if (B::SUMS_P)
        attention_store_gradient<D>(args.dv, head, pitch, part.row, part.count, shape.head_size,
                                    sums_p, 1);
    if (B::SUMS_DS)
        attention_store_gradient<D>(B::QUERIES ? args.dq : args.dk, head, pitch, part.row,
                                    part.count, shape.head_size, sums_ds,
                                    args.scale * ATTENTION_LN_2);
}

#endif

template <enum way WAY, int D, int M, int WARPS, int COLUMNS>
static __global__
__launch_bounds__(WARPS * 32) void attention_mma_backward_kernel(const struct attention_args args)
{
#ifdef TENSOR_CORES
    CM_DYNAMIC_SHARED(shared);
    typedef backward<WAY, D, M, WARPS, COLUMNS> b;
    typedef attention_source<D, b::THREADS> source;
    const struct cm_attention &shape = args.shape;
    struct part part = part_of<b>(shape);
    uint32_t sequence = part.place.sequence;
    int query_head = b::QUERIES ? part.place.head : 0; /* else that of the tile of columns */
    source from_q(attention_head(shape, sequence, shape.q_stride, query_head), args.q_pitch,
                  shape.q_length, shape.head_size);
    source from_dout(attention_head(shape, sequence, shape.o_stride, query_head), args.o_pitch,
                     shape.q_length, shape.head_size);
    source from_kv(attention_head(shape, sequence, shape.kv_stride, part.kv_head), args.kv_pitch,
                   shape.k_length, shape.head_size);
    const source &from_x = b::QUERIES ? from_q : from_kv,
                 &from_y = b::QUERIES ? from_dout : from_kv;
    const source &from_u = b::QUERIES ? from_kv : from_q,
                 &from_w = b::QUERIES ? from_kv : from_dout;

    uint32_t x = ptx_shared_address(shared), y = x + b::ROWS_BYTES;
    uint32_t stages = b::SUMS_DS ? y + b::ROWS_BYTES : y, used = 0;
    from_x.template fetch<b::ROWS>(x, b::QUERIES ? args.q : args.k, part.first);
    if (b::SUMS_DS)
        from_y.template fetch<b::ROWS>(y, b::QUERIES ? args.dout : args.v, part.first);
    attention_walk<COLUMNS> tiles;
    float2 row_stats[M][2];
    if (b::QUERIES) {
        tiles.init_keys(part.kv_head, attention_span_of(shape, part.first, b::ROWS).most);
        attention_row_stats(row_stats, args, part.place, part.row);
    } else {
        tiles.init_queries(shape, part.kv_head, part.first);
    }
    if (!tiles.over())
        fetch_columns<b>(stages, tiles, from_u, from_w, args, sequence);
    float sums_p[M][D / 8][4] = {}, sums_ds[M][D / 8][4] = {};
    while (!tiles.over()) {
        int column = tiles.column;
        uint32_t u = stages + used * b::STAGE_BYTES;
        used ^= 1;
        tiles.next();
        ptx_copy_wait<0>();
        __syncthreads(); /* the tile is there, and the last one no longer needed */
        if (!tiles.over())
            fetch_columns<b>(stages + used * b::STAGE_BYTES, tiles, from_u, from_w, args, sequence);
        const float4 *stats = (const float4 *)(shared + (u + 2 * b::COLUMNS_BYTES - x));
        add_tile<b, D, M, COLUMNS>(sums_p, sums_ds, x, y, u, stats, row_stats, args, part, column);
    }
    ptx_copy_wait<0>();
    finish<b, D>(args, part_of<b>(shape), sums_p, sums_ds);
#endif
}

struct kernel {
    void (*kernel)(const struct attention_args);
    int rows, threads, shared_bytes;
    bool queries;
};

#define KERNEL(...)                                                                                \
    {                                                                                              \
        attention_mma_backward_kernel<__VA_ARGS__>, backward<__VA_ARGS__>::ROWS,                   \
            backward<__VA_ARGS__>::THREADS, backward<__VA_ARGS__>::SHARED_BYTES,                   \
            backward<__VA_ARGS__>::QUERIES                                                         \
    }

/* Every multiprocessor since 8.0 has the 99 KiB of shared memory that the largest ones take. */
static const struct {
    int head_size;
    struct kernel kernels[3];
} kernels[] = {
    {64, {KERNEL(WAY_DQ, 64, 2, 4, 32), KERNEL(WAY_DKV, 64, 2, 4, 32)}},
    {96, {KERNEL(WAY_DQ, 96, 2, 4, 32), KERNEL(WAY_DKV, 96, 1, 8, 32)}},
    {128, {KERNEL(WAY_DQ, 128, 2, 4, 32), KERNEL(WAY_DKV, 128, 1, 8, 32)}},
    {192,
     {KERNEL(WAY_DQ, 192, 1, 4, 32), KERNEL(WAY_DV, 192, 1, 4, 32), KERNEL(WAY_DK, 192, 1, 4, 32)}},
    {256,
     {KERNEL(WAY_DQ, 256, 1, 4, 16), KERNEL(WAY_DV, 256, 1, 4, 16), KERNEL(WAY_DK, 256, 1, 4, 16)}},
};

int attention_mma_backward(struct CUstream_st *stream, const struct attention_args *args)
{
    const struct cm_attention *shape = &args->shape;
    int size = 0;
    while (kernels[size].head_size < (int)shape->head_size)
        size++;
    for (int i = 0; i < 3 && kernels[size].kernels[i].kernel != NULL; i++) {
        const struct kernel *kernel = &kernels[size].kernels[i];
        int rows = (int)(kernel->queries ? shape->q_length : shape->k_length);
        unsigned blocks = (unsigned)attention_ceil(rows, kernel->rows) * shape->batch *
                          (kernel->queries ? shape->heads : shape->kv_heads);
        int error =
            cudaFuncSetAttribute((const void *)kernel->kernel,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, kernel->shared_bytes);
        if (error == cudaSuccess)
            error = CM_LAUNCH(kernel->kernel, blocks, (unsigned)kernel->threads,
                              kernel->shared_bytes, stream, *args);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}
