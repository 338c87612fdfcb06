/*
 * attention_hopper_backward.cu: the gradients of attention on Hopper's own instructions, for heads
 * of 64 and of 128, as attention_backward.cuh says it.
 */
#include "kernels/attention_backward.cuh"
#include "kernels/attention_hopper.cuh"

/* By the names of attention_backward.cuh. */
struct backward_args {
    CUtensorMap x, y, u, w, stats;
    struct attention_args attention;
};

/* Addresses in shared memory, for heads of D and tiles of so many columns. */
template <bool QUERIES, int D, int COLUMNS> struct places {
    static const int OWN_BYTES = OWN_ROWS * D * 2;
    static const int ROWS_BYTES = CONSUMERS * OWN_BYTES;
    static const int COLUMNS_BYTES = COLUMNS * D * 2;
    static const int STATS_BYTES = QUERIES ? 0 : COLUMNS * 8;
    static const int BARRIERS = 1 + 2 * STAGES;
    static const int BYTES =
        ATOM_BYTES + 2 * ROWS_BYTES + STAGES * (2 * COLUMNS_BYTES + STATS_BYTES) + BARRIERS * 8;
    uint32_t x;

    __device__ __forceinline__ uint32_t y() const
    {
        return x + ROWS_BYTES;
    }
    __device__ __forceinline__ uint32_t u(uint32_t stage) const
    {
        return x + 2 * ROWS_BYTES + stage * (2 * COLUMNS_BYTES);
    }
    __device__ __forceinline__ uint32_t w(uint32_t stage) const
    {
        return u(stage) + COLUMNS_BYTES;
    }
    /* Of the columns, where those are queries. */
    __device__ __forceinline__ uint32_t stats(uint32_t stage) const
    {
        return u(STAGES) + stage * STATS_BYTES;
    }
    __device__ __forceinline__ uint32_t rows_full() const
    {
        return stats(STAGES);
    }
    /* All bytes of the stage have come; all warps that multiply have read it. */
    __device__ __forceinline__ uint32_t full(uint32_t stage) const
    {
        return rows_full() + 8 + stage * 16;
    }
    __device__ __forceinline__ uint32_t empty(uint32_t stage) const
    {
        return full(stage) + 8;
    }
};

#ifdef HOPPER

/* A block's rows, and the columns that they have to do with. */
template <int COLUMNS> struct task {
    struct attention_place place;
    int first, count; /* rows: of the tile, and that there are */
    attention_walk<COLUMNS> tiles;
};

template <bool QUERIES, int COLUMNS>
static __device__ __forceinline__ struct task<COLUMNS> task_of(const struct cm_attention &shape) {
    struct task<COLUMNS> task;
    task.count = (int)(QUERIES ? shape.q_length : shape.k_length);
    task.place = attention_place_of(shape, attention_ceil(task.count, ROWS),
                                    (int)(QUERIES ? shape.heads : shape.kv_heads), QUERIES);
    task.first = task.place.tile * ROWS;
    if (QUERIES)
        task.tiles.init_keys(task.place.head / (int)(shape.heads / shape.kv_heads),
                             attention_span_of(shape, task.first, ROWS).most);
    else
        task.tiles.init_queries(shape, task.place.head, task.first);
    return task;
}

template <bool QUERIES, int D, int COLUMNS>
static __device__ void produce(const struct places<QUERIES, D, COLUMNS> &places,
                               const struct backward_args &args)
{
    struct task<COLUMNS> task = task_of<QUERIES, COLUMNS>(args.attention.shape);
    uint32_t sequence = task.place.sequence, rows_full = places.rows_full();
    struct attention_turn turn = {0, 1}; /* the phase before the first counts as over */
    ptx_barrier_expect(rows_full, 2 * places.ROWS_BYTES);
    for (int i = 0; i < CONSUMERS; i++) {
        int row = task.first + i * OWN_ROWS;
        attention_load<D, OWN_ROWS>(places.x + i * places.OWN_BYTES, &args.x, task.place.head,
                                    sequence, row, rows_full);
        attention_load<D, OWN_ROWS>(places.y() + i * places.OWN_BYTES, &args.y, task.place.head,
                                    sequence, row, rows_full);
    }
    for (; !task.tiles.over(); task.tiles.next(), turn.next()) {
        int column = task.tiles.column, head = task.tiles.head;
        uint32_t full = places.full(turn.stage);
        ptx_barrier_wait(places.empty(turn.stage), turn.parity);
        ptx_barrier_expect(full, 2 * places.COLUMNS_BYTES + places.STATS_BYTES);
        attention_load<D, COLUMNS>(places.u(turn.stage), &args.u, head, sequence, column, full);
        attention_load<D, COLUMNS>(places.w(turn.stage), &args.w, head, sequence, column, full);
        if (!QUERIES)
            ptx_load_box(places.stats(turn.stage), &args.stats, column * 4, head, (int)sequence,
                         full);
    }
}

/* All that a kernel adds for the tile of columns from `column` on, which lies in a stage. */
template <bool QUERIES, int D, int COLUMNS>
static __device__ __forceinline__ void
add_tile(float (&sums_p)[1][D / 8][4], float (&sums_ds)[1][D / 8][4],
         const struct places<QUERIES, D, COLUMNS> &places, uint32_t own, uint32_t stage,
         const float4 *column_stats, const float2 (&row_stats)[1][2],
         const struct attention_args &args, int row, int column, bool masked)
{
    float p[1][COLUMNS / 8][4], ds[1][COLUMNS / 8][4];
    uint32_t words_p[COLUMNS / 16][4], words_ds[COLUMNS / 16][4];
    attention_begin_multiply<D>(p[0], places.x + own, places.u(stage));
    attention_begin_multiply<D>(ds[0], places.y() + own, places.w(stage));
    ptx_wgmma_finish<1>(p[0]);
    if (masked)
        attention_mask_tile<QUERIES>(p, args.shape, row, column);
    attention_weights<QUERIES>(p, column_stats, row_stats, args.scale);
    if (!QUERIES) {
        attention_pack(words_p, p[0]);
        attention_begin_accumulate(sums_p[0], words_p, places.w(stage));
        ptx_wgmma_finish<1>(ds[0]);
    } else {
        ptx_wgmma_finish<0>(ds[0]);
    }
    attention_differentiate<QUERIES>(ds, p, column_stats, row_stats);
    attention_pack(words_ds, ds[0]);
    attention_begin_accumulate(sums_ds[0], words_ds, places.u(stage));
    if (!QUERIES)
        ptx_wgmma_finish<1>(sums_p[0]);
    ptx_wgmma_finish<0>(sums_ds[0]);
}

/* The gradients from this warp's sums. */
template <bool QUERIES, int D>
static __device__ __forceinline__ void
finish(const struct attention_args &args, const struct attention_place &place, int row, int count,
       const float (&sums_p)[1][D / 8][4], const float (&sums_ds)[1][D / 8][4])
{
    const struct cm_attention &shape = args.shape;
    size_t pitch = QUERIES ? args.dq_pitch : args.dkv_pitch;
    size_t head = attention_head(shape, place.sequence,
                                 QUERIES ? shape.dq_stride : shape.dkv_stride, place.head);
    attention_store_gradient<D>(QUERIES ? args.dq : args.dk, head, pitch, row, count,
                                shape.head_size, sums_ds, args.scale * ATTENTION_LN_2);
    if (!QUERIES)
        attention_store_gradient<D>(args.dv, head, pitch, row, count, shape.head_size, sums_p, 1);
}

template <bool QUERIES, int D, int COLUMNS>
static __device__ __forceinline__ void consume(const struct places<QUERIES, D, COLUMNS> &places,
                                               const struct attention_args &args,
                                               const unsigned char *shared)
{
    const struct cm_attention &shape = args.shape;
    struct task<COLUMNS> task = task_of<QUERIES, COLUMNS>(shape);
    int warp = attention_warp() - 4, group_row = task.first + warp / 4 * OWN_ROWS;
    int row = task.first + warp * 16 + (int)(threadIdx.x % 32 / 4);
    uint32_t own = warp / 4 * places.OWN_BYTES;
    float sums_p[1][D / 8][4] = {}, sums_ds[1][D / 8][4] = {};
    float2 row_stats[1][2];
    if (QUERIES)
        attention_row_stats(row_stats, args, task.place, row);
    struct attention_turn turn = {0, 0};
    ptx_barrier_wait(places.rows_full(), 0);
    for (; !task.tiles.over(); task.tiles.next(), turn.next()) {
        int column = task.tiles.column;
        /* Queries of the warpgroup's rows and keys of the columns, or the other way round. */
        struct attention_span span =
            attention_span_of(shape, QUERIES ? group_row : column, QUERIES ? OWN_ROWS : COLUMNS);
        bool masked = (QUERIES ? column + COLUMNS : group_row + OWN_ROWS) - 1 > span.least;
        const float4 *stats =
            (const float4 *)(shared + (places.stats(turn.stage) - ptx_shared_address(shared)));
        ptx_barrier_wait(places.full(turn.stage), turn.parity);
        if ((QUERIES ? column : group_row) <= span.most)
            add_tile(sums_p, sums_ds, places, own, turn.stage, stats, row_stats, args, row, column,
                     masked);
        attention_release(places.empty(turn.stage));
    }
    finish<QUERIES, D>(args, task.place, row, task.count, sums_p, sums_ds);
}

#endif

/* QUERIES: makes dq, else dk and dv. */
template <bool QUERIES, int D, int COLUMNS>
static __global__ __launch_bounds__(THREADS, 1) void attention_hopper_gradients(
    const __grid_constant__ struct backward_args args)
{
#ifdef HOPPER
    CM_DYNAMIC_SHARED(shared);
    struct places<QUERIES, D, COLUMNS> places;
    places.x = (ptx_shared_address(shared) + ATOM_BYTES - 1) / ATOM_BYTES * ATOM_BYTES;
    if (threadIdx.x == 0) {
        ptx_barrier_init(places.rows_full(), 1);
        for (uint32_t i = 0; i < STAGES; i++) {
            ptx_barrier_init(places.full(i), 1);
            ptx_barrier_init(places.empty(i), CONSUMERS * 4);
        }
        ptx_barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx_registers_less<24>();
        if (threadIdx.x == 0)
            produce(places, args);
    } else {
        ptx_registers_more<240>();
        consume(places, args.attention, shared);
    }
#else
    __trap();
#endif
}

/* ---- Launch ---- */

/* Rows of float2, as 16-bit elements; a box is that of so many columns. */
static int stats_map(const struct attention_args *args, uint32_t columns, CUtensorMap *map)
{
    const struct cm_attention *shape = &args->shape;
    uint64_t pitch = (uint64_t)attention_stats_pitch(*shape);
    uint64_t sizes[3] = {pitch * 4, shape->heads, shape->batch};
    uint64_t strides[2] = {pitch * 8, pitch * 8 * shape->heads};
    uint32_t box[3] = {columns * 4, 1, 1};
    return cm_tensor_map(args->stats, sizes, strides, box, false, map);
}

template <bool QUERIES, int D, int COLUMNS>
static int launch(struct CUstream_st *stream, const struct attention_args *args)
{
    const struct cm_attention *shape = &args->shape;
    struct backward_args all;
    all.attention = *args;
    uint32_t q_rows = QUERIES ? OWN_ROWS : COLUMNS, kv_rows = QUERIES ? COLUMNS : OWN_ROWS;
    int error = attention_map(args->q, shape->heads, shape->q_length, shape->q_stride, shape,
                              q_rows, QUERIES ? &all.x : &all.u);
    if (error == cudaSuccess)
        error = attention_map(args->dout, shape->heads, shape->q_length, shape->o_stride, shape,
                              q_rows, QUERIES ? &all.y : &all.w);
    if (error == cudaSuccess)
        error = attention_map(args->k, shape->kv_heads, shape->k_length, shape->kv_stride, shape,
                              kv_rows, QUERIES ? &all.u : &all.x);
    if (error == cudaSuccess)
        error = attention_map(args->v, shape->kv_heads, shape->k_length, shape->kv_stride, shape,
                              kv_rows, QUERIES ? &all.w : &all.y);
    if (error == cudaSuccess && !QUERIES)
        error = stats_map(args, COLUMNS, &all.stats);
    int shared_bytes = places<QUERIES, D, COLUMNS>::BYTES;
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute((const void *)attention_hopper_gradients<QUERIES, D, COLUMNS>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess)
        return error;
    int rows = (int)(QUERIES ? shape->q_length : shape->k_length);
    unsigned blocks = (unsigned)attention_ceil(rows, ROWS) * shape->batch *
                      (QUERIES ? shape->heads : shape->kv_heads);
    return CM_LAUNCH((attention_hopper_gradients<QUERIES, D, COLUMNS>), blocks, THREADS,
                     shared_bytes, stream, all);
}

int attention_hopper_backward(struct CUstream_st *stream, const struct attention_args *args)
{
    bool small = args->shape.head_size == 64;
    int error = small ? launch<true, 64, 128>(stream, args) : launch<true, 128, 128>(stream, args);
    if (error != cudaSuccess)
        return error;
    return small ? launch<false, 64, 64>(stream, args) : launch<false, 128, 64>(stream, args);
}
