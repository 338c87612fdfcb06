/*
 * attention_hopper.cu: attention on Hopper's (compute capability 9.0) own instructions, for heads
 * of 64 and of 128.
 *
 * A block makes the outputs of 128 queries of one head. One of its warpgroups has tiles of 128 keys
 * and of their values copied into shared memory by the copy engine (TMA), ahead of their use; two
 * others have 64 queries each, whose scores, weights and sums stay in their registers: while one
 * turns scores into weights the other multiplies.
 *
 * A tile lies in shared memory as boxes of 64 elements of each row, 128 bytes, in groups of 8 rows
 * whose 16-byte chunks the copy engine exchanges (its 128-byte swizzle), where wgmma expects them.
 */
#include "kernels/attention_mma.cuh"
#include "kernels/tensor_map.cuh"

static const int CONSUMERS = 2; /* warpgroups */
static const int THREADS = (1 + CONSUMERS) * 128;
static const int QUERIES = 64; /* of a consumer */
static const int KEYS = 128;   /* of a tile */
static const int STAGES = 2;
static const int BOX = 64; /* elements of a row in a box */
static const int ROW_BYTES = BOX * 2;
static const int ATOM_BYTES = 8 * ROW_BYTES;
static const int QUERIES_BOX_BYTES = QUERIES * ROW_BYTES;
static const int KEYS_BOX_BYTES = KEYS * ROW_BYTES;

/* The maps have an element of a row, the sequence and the position as their dimensions. */
struct attention_hopper_args {
    CUtensorMap q, k, v;
    struct attention_args attention;
};

/* Other architectures get a kernel without a body, which is never launched there. */
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER

/* Addresses in shared memory, for heads of D. */
template <int D> struct places {
    static const int KEYS_BYTES = KEYS * D * 2;
    static const int QUERIES_BYTES = CONSUMERS * QUERIES * D * 2;
    uint32_t queries; /* of the first consumer, then of the second */

    __device__ uint32_t keys(uint32_t stage) const
    {
        return queries + QUERIES_BYTES + stage * (2 * KEYS_BYTES);
    }
    __device__ uint32_t values(uint32_t stage) const
    {
        return keys(stage) + KEYS_BYTES;
    }
    __device__ uint32_t barriers() const
    {
        return keys(STAGES);
    }
    __device__ uint32_t queries_full() const
    {
        return barriers();
    }
    /* All bytes of the stage's keys, or values, have come. */
    __device__ uint32_t keys_full(uint32_t stage) const
    {
        return barriers() + 8 + stage * 8;
    }
    __device__ uint32_t values_full(uint32_t stage) const
    {
        return barriers() + 8 + (STAGES + stage) * 8;
    }
    /* All warps that multiply have read them. */
    __device__ uint32_t keys_empty(uint32_t stage) const
    {
        return barriers() + 8 + (2 * STAGES + stage) * 8;
    }
    __device__ uint32_t values_empty(uint32_t stage) const
    {
        return barriers() + 8 + (3 * STAGES + stage) * 8;
    }
};

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

/* Has a tile of `rows` positions copied, which counts at `barrier`. */
template <int D>
static __device__ void load(uint32_t to, const CUtensorMap *map, int rows, int head,
                            const struct attention_place &place, int position, uint32_t barrier)
{
    for (int i = 0; i < D / BOX; i++)
        ptx_load_box(to + i * rows * ROW_BYTES, map, head * D + i * BOX, (int)place.sequence,
                     position, barrier);
}

template <int D>
static __device__ void produce(const struct places<D> &places,
                               const struct attention_hopper_args &args,
                               const struct attention_place &place, int query, int most)
{
    const struct cm_attention &shape = args.attention.shape;
    int kv_head = place.head / (int)(shape.heads / shape.kv_heads);
    struct turn turn = {0, 1}; /* the phase before the first counts as over */
    ptx_barrier_expect(places.queries_full(), places.QUERIES_BYTES);
    for (int i = 0; i < CONSUMERS; i++)
        load<D>(places.queries + i * (QUERIES * D * 2), &args.q, QUERIES, place.head, place,
                query + i * QUERIES, places.queries_full());
    for (int key = 0; key <= most; key += KEYS, turn.next()) {
        ptx_barrier_wait(places.keys_empty(turn.stage), turn.parity);
        ptx_barrier_expect(places.keys_full(turn.stage), places.KEYS_BYTES);
        load<D>(places.keys(turn.stage), &args.k, KEYS, kv_head, place, key,
                places.keys_full(turn.stage));
        ptx_barrier_wait(places.values_empty(turn.stage), turn.parity);
        ptx_barrier_expect(places.values_full(turn.stage), places.KEYS_BYTES);
        load<D>(places.values(turn.stage), &args.v, KEYS, kv_head, place, key,
                places.values_full(turn.stage));
    }
}

/* The descriptor of what wgmma reads from `address` on, whose boxes lie so far apart (without a
 * meaning where k is contiguous, and 16 then). */
static __device__ __forceinline__ uint64_t matrix_at(uint32_t address, uint64_t between_boxes)
{
    const uint64_t between_atoms = ATOM_BYTES >> 4;
    const uint64_t swizzle_128 = 1;
    return (address & 0x3ffff) >> 4 | between_boxes >> 4 << 16 | between_atoms << 32 |
           swizzle_128 << 62;
}

/* scores = queries keys^T */
template <int D>
static __device__ __forceinline__ void multiply(float (&scores)[KEYS / 8][4], uint32_t queries,
                                                uint32_t keys)
{
    ptx_wgmma_fence();
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        int box = step / (BOX / 16), in_box = step % (BOX / 16) * 32;
        ptx_wgmma_rows(scores, matrix_at(queries + box * QUERIES_BOX_BYTES + in_box, 16),
                       matrix_at(keys + box * KEYS_BOX_BYTES + in_box, 16), step > 0);
    }
    ptx_wgmma_commit();
    ptx_wgmma_finish(scores);
}

/* sums += weights values, the weights rounded to bf16. */
template <int D>
static __device__ __forceinline__ void
accumulate(float (&sums)[D / 8][4], const uint32_t (&weights)[KEYS / 16][4], uint32_t values)
{
    ptx_wgmma_fence();
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++)
        ptx_wgmma_registers(sums, weights[step],
                            matrix_at(values + step * (16 * ROW_BYTES), KEYS_BOX_BYTES));
    ptx_wgmma_commit();
    ptx_wgmma_finish(sums);
}

/* This warp has read what `barrier` guards. */
static __device__ __forceinline__ void release(uint32_t barrier)
{
    if (threadIdx.x % 32 == 0)
        ptx_barrier_arrive(barrier, ptx_cluster_rank());
}

static __device__ __forceinline__ void pack(uint32_t (&words)[KEYS / 16][4],
                                            const float (&weights)[KEYS / 8][4])
{
#pragma unroll
    for (int i = 0; i < KEYS / 16 * 4; i++) {
        const float(&from)[4] = weights[i / 4 * 2 + i % 4 / 2];
        words[i / 4][i % 4] = ptx_pack_bf16(from[i % 2 * 2], from[i % 2 * 2 + 1]);
    }
}

template <int D>
static __device__ __forceinline__ void
consume(const struct places<D> &places, const struct attention_args &args,
        const struct attention_place &place, int query, int most)
{
    const struct cm_attention &shape = args.shape;
    int warp = attention_warp() - 4, group = warp / 4;
    uint32_t queries = places.queries + group * (QUERIES * D * 2);
    struct attention_span own = attention_span_of(shape, query + group * QUERIES, QUERIES);
    struct turn turn = {0, 0};
    float sums[1][D / 8][4] = {};
    struct attention_softmax<1> softmax;
    softmax.init();
    query += warp * 16 + (int)(threadIdx.x % 32 / 4);
    ptx_barrier_wait(places.queries_full(), 0);
    for (int key = 0; key <= most; key += KEYS, turn.next()) {
        float scores[1][KEYS / 8][4];
        uint32_t weights[KEYS / 16][4];
        bool seen = key <= own.most; /* by this warpgroup */
        ptx_barrier_wait(places.keys_full(turn.stage), turn.parity);
        if (seen)
            multiply<D>(scores[0], queries, places.keys(turn.stage));
        release(places.keys_empty(turn.stage));
        if (seen) {
            if (key + KEYS - 1 > own.least)
                attention_mask(scores, shape, query, key);
            attention_weigh<D>(scores, sums, softmax, args.scale);
            pack(weights, scores[0]);
        }
        ptx_barrier_wait(places.values_full(turn.stage), turn.parity);
        if (seen)
            accumulate<D>(sums[0], weights, places.values(turn.stage));
        release(places.values_empty(turn.stage));
    }
    attention_finish<D>(args, place, query, sums, softmax);
}

#endif

template <int D> struct size {
    static const int BARRIERS = 1 + 4 * STAGES;
    static const int BYTES =
        ATOM_BYTES + (CONSUMERS * QUERIES + STAGES * 2 * KEYS) * D * 2 + BARRIERS * 8;
};

template <int D>
static __global__ __launch_bounds__(THREADS, 1) void attention_hopper(
    const __grid_constant__ struct attention_hopper_args args)
{
#ifdef HOPPER
    CM_DYNAMIC_SHARED(shared);
    const struct cm_attention &shape = args.attention.shape;
    const int queries = CONSUMERS * QUERIES;
    struct places<D> places;
    places.queries = (ptx_shared_address(shared) + ATOM_BYTES - 1) / ATOM_BYTES * ATOM_BYTES;
    if (threadIdx.x == 0) {
        ptx_barrier_init(places.queries_full(), 1);
        for (uint32_t i = 0; i < STAGES; i++) {
            ptx_barrier_init(places.keys_full(i), 1);
            ptx_barrier_init(places.values_full(i), 1);
            ptx_barrier_init(places.keys_empty(i), CONSUMERS * 4);
            ptx_barrier_init(places.values_empty(i), CONSUMERS * 4);
        }
        ptx_barrier_init_fence();
    }
    __syncthreads();
    struct attention_place place = attention_place_of(
        shape, attention_ceil((int)shape.q_length, queries), (int)shape.heads, true);
    int query = place.tile * queries;
    int most = attention_span_of(shape, query, queries).most;
    if (threadIdx.x < 128) {
        ptx_registers_less<24>();
        if (threadIdx.x == 0)
            produce<D>(places, args, place, query, most);
    } else {
        ptx_registers_more<240>();
        consume<D>(places, args.attention, place, query, most);
    }
#else
    __trap();
#endif
}

/* ---- Launch ---- */

bool attention_hopper_fits(const struct attention_args *args, int capability)
{
    const struct cm_attention *shape = &args->shape;
    const uint64_t stride_max = UINT64_C(1) << 40; /* bytes, in a tensor map */
    return capability == 90 && (shape->head_size == 64 || shape->head_size == 128) &&
           args->q_pitch * 2 < stride_max && args->kv_pitch * 2 < stride_max;
}

/* Read in boxes of `rows` positions. */
static int make_map(const void *matrix, uint64_t columns, uint32_t length, uint64_t stride,
                    uint32_t batch, uint32_t rows, CUtensorMap *map)
{
    uint64_t sizes[3] = {columns, batch, length};
    uint64_t strides[2] = {stride * 2, stride * batch * 2};
    uint32_t box[3] = {BOX, 1, rows};
    return cm_tensor_map(matrix, sizes, strides, box, map);
}

int attention_hopper_forward(struct CUstream_st *stream, const struct attention_args *args)
{
    const struct cm_attention *shape = &args->shape;
    struct attention_hopper_args all;
    uint64_t columns = (uint64_t)shape->heads * shape->head_size;
    uint64_t kv_columns = (uint64_t)shape->kv_heads * shape->head_size;
    all.attention = *args;
    int error =
        make_map(args->q, columns, shape->q_length, shape->q_stride, shape->batch, QUERIES, &all.q);
    if (error == cudaSuccess)
        error = make_map(args->k, kv_columns, shape->k_length, shape->kv_stride, shape->batch, KEYS,
                         &all.k);
    if (error == cudaSuccess)
        error = make_map(args->v, kv_columns, shape->k_length, shape->kv_stride, shape->batch, KEYS,
                         &all.v);
    bool small = shape->head_size == 64;
    void (*kernel)(const struct attention_hopper_args) =
        small ? attention_hopper<64> : attention_hopper<128>;
    int shared_bytes = small ? size<64>::BYTES : size<128>::BYTES;
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute((const void *)kernel,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess)
        return error;
    unsigned blocks = (unsigned)attention_ceil((int)shape->q_length, CONSUMERS * QUERIES) *
                      shape->heads * shape->batch;
    return CM_LAUNCH(kernel, blocks, THREADS, shared_bytes, stream, all);
}
