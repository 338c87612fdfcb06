/*
 * attention_hopper.cu: attention on Hopper's own instructions, for heads of 64 and of 128.
 *
 * A block makes the outputs of 128 queries of one head. A consumer's scores, weights and sums stay
 * in its registers. While it turns scores into weights, its products of the last weights with their
 * values run, and those of the other consumer.
 */
#include "kernels/attention_hopper.cuh"

static const int KEYS = 128; /* of a tile */

struct attention_hopper_args {
    CUtensorMap q, k, v;
    struct attention_args attention;
};

/* Addresses in shared memory, for heads of D. */
template <int D> struct places {
    static const int KEYS_BYTES = KEYS * D * 2;
    static const int OWN_BYTES = OWN_ROWS * D * 2;
    static const int QUERIES_BYTES = CONSUMERS * OWN_BYTES;
    static const int BARRIERS = 1 + 4 * STAGES;
    static const int BYTES = ATOM_BYTES + QUERIES_BYTES + STAGES * 2 * KEYS_BYTES + BARRIERS * 8;
    uint32_t queries;

    __device__ __forceinline__ uint32_t keys(uint32_t stage) const
    {
        return queries + QUERIES_BYTES + stage * (2 * KEYS_BYTES);
    }
    __device__ __forceinline__ uint32_t values(uint32_t stage) const
    {
        return keys(stage) + KEYS_BYTES;
    }
    __device__ __forceinline__ uint32_t queries_full() const
    {
        return keys(STAGES);
    }
    /* All bytes of the stage's keys have come; all warps that multiply have read them. */
    __device__ __forceinline__ uint32_t keys_full(uint32_t stage) const
    {
        return keys(STAGES) + 8 + stage * 32;
    }
    __device__ __forceinline__ uint32_t keys_empty(uint32_t stage) const
    {
        return keys_full(stage) + 8;
    }
    __device__ __forceinline__ uint32_t values_full(uint32_t stage) const
    {
        return keys_full(stage) + 16;
    }
    __device__ __forceinline__ uint32_t values_empty(uint32_t stage) const
    {
        return keys_full(stage) + 24;
    }
};

#ifdef HOPPER

template <int D> static __device__ void init_barriers(const struct places<D> &places)
{
    ptx_barrier_init(places.queries_full(), 1);
    for (uint32_t i = 0; i < STAGES; i++) {
        ptx_barrier_init(places.keys_full(i), 1);
        ptx_barrier_init(places.values_full(i), 1);
        ptx_barrier_init(places.keys_empty(i), CONSUMERS * 4);
        ptx_barrier_init(places.values_empty(i), CONSUMERS * 4);
    }
    ptx_barrier_init_fence();
}

template <int D>
static __device__ void produce(const struct places<D> &places,
                               const struct attention_hopper_args &args,
                               const struct attention_place &place, int query, int most)
{
    const struct cm_attention &shape = args.attention.shape;
    int kv_head = place.head / (int)(shape.heads / shape.kv_heads);
    struct attention_turn turn = {0, 1}; /* the phase before the first counts as over */
    ptx_barrier_expect(places.queries_full(), places.QUERIES_BYTES);
    for (int i = 0; i < CONSUMERS; i++)
        attention_load<D, OWN_ROWS>(places.queries + i * places.OWN_BYTES, &args.q, place.head,
                                    place.sequence, query + i * OWN_ROWS, places.queries_full());
    for (int key = 0; key <= most; key += KEYS, turn.next()) {
        uint32_t keys_full = places.keys_full(turn.stage);
        uint32_t values_full = places.values_full(turn.stage);
        ptx_barrier_wait(places.keys_empty(turn.stage), turn.parity);
        ptx_barrier_expect(keys_full, places.KEYS_BYTES);
        attention_load<D, KEYS>(places.keys(turn.stage), &args.k, kv_head, place.sequence, key,
                                keys_full);
        ptx_barrier_wait(places.values_empty(turn.stage), turn.parity);
        ptx_barrier_expect(values_full, places.KEYS_BYTES);
        attention_load<D, KEYS>(places.values(turn.stage), &args.v, kv_head, place.sequence, key,
                                values_full);
    }
}

template <int D>
static __device__ __forceinline__ void
consume(const struct places<D> &places, const struct attention_args &args,
        const struct attention_place &place, int query, int most)
{
    const struct cm_attention &shape = args.shape;
    int warp = attention_warp() - 4, group = warp / 4;
    uint32_t queries = places.queries + group * places.OWN_BYTES;
    struct attention_span own = attention_span_of(shape, query + group * OWN_ROWS, OWN_ROWS);
    float sums[1][D / 8][4] = {}, scores[1][KEYS / 8][4], factors[1][2];
    uint32_t weights[KEYS / 16][4];
    struct attention_softmax<1> softmax;
    softmax.init();
    query += warp * 16 + (int)(threadIdx.x % 32 / 4);

    struct attention_turn turn = {0, 0}, last = {0, 0};
    int key = 0;
    ptx_barrier_wait(places.queries_full(), 0);
    for (; key <= own.most; key += KEYS, turn.next()) {
        ptx_barrier_wait(places.keys_full(turn.stage), turn.parity);
        attention_begin_multiply<D>(scores[0], queries, places.keys(turn.stage));
        if (key > 0) {
            ptx_barrier_wait(places.values_full(last.stage), last.parity);
            attention_begin_accumulate(sums[0], weights, places.values(last.stage));
            ptx_wgmma_finish<1>(scores[0]);
        } else {
            ptx_wgmma_finish<0>(scores[0]);
        }
        attention_release(places.keys_empty(turn.stage));
        if (key + KEYS - 1 > own.least)
            attention_mask(scores, shape, query, key);
        attention_weigh(scores, softmax, factors, args.scale);
        if (key > 0) {
            ptx_wgmma_finish<0>(sums[0]);
            attention_release(places.values_empty(last.stage));
            attention_rescale(sums, factors);
        }
        attention_pack(weights, scores[0]);
        last = turn;
    }
    ptx_barrier_wait(places.values_full(last.stage), last.parity);
    attention_begin_accumulate(sums[0], weights, places.values(last.stage));
    ptx_wgmma_finish<0>(sums[0]);
    attention_release(places.values_empty(last.stage));
    /* What the other consumer alone needs. */
    for (; key <= most; key += KEYS, turn.next()) {
        ptx_barrier_wait(places.keys_full(turn.stage), turn.parity);
        attention_release(places.keys_empty(turn.stage));
        ptx_barrier_wait(places.values_full(turn.stage), turn.parity);
        attention_release(places.values_empty(turn.stage));
    }
    attention_finish<D>(args, place, query, sums, softmax);
}

#endif

template <int D>
static __global__ __launch_bounds__(THREADS, 1) void attention_hopper(
    const __grid_constant__ struct attention_hopper_args args)
{
#ifdef HOPPER
    CM_DYNAMIC_SHARED(shared);
    const struct cm_attention &shape = args.attention.shape;
    struct places<D> places;
    places.queries = (ptx_shared_address(shared) + ATOM_BYTES - 1) / ATOM_BYTES * ATOM_BYTES;
    if (threadIdx.x == 0)
        init_barriers(places);
    __syncthreads();
    struct attention_place place = attention_place_of(
        shape, attention_ceil((int)shape.q_length, ROWS), (int)shape.heads, true);
    int query = place.tile * ROWS, most = attention_span_of(shape, query, ROWS).most;
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

bool attention_hopper_fits(const struct attention_args *args, int capability)
{
    const struct cm_attention *shape = &args->shape;
    const uint64_t stride_max = UINT64_C(1) << 40; /* bytes, in a tensor map */
    return capability == 90 && (shape->head_size == 64 || shape->head_size == 128) &&
           args->q_pitch * 2 < stride_max && args->kv_pitch * 2 < stride_max &&
           args->o_pitch * 2 < stride_max;
}

int attention_hopper_forward(struct CUstream_st *stream, const struct attention_args *args)
{
    const struct cm_attention *shape = &args->shape;
    struct attention_hopper_args all;
    all.attention = *args;
    int error = attention_map(args->q, shape->heads, shape->q_length, shape->q_stride, shape,
                              OWN_ROWS, &all.q);
    if (error == cudaSuccess)
        error = attention_map(args->k, shape->kv_heads, shape->k_length, shape->kv_stride, shape,
                              KEYS, &all.k);
    if (error == cudaSuccess)
        error = attention_map(args->v, shape->kv_heads, shape->k_length, shape->kv_stride, shape,
                              KEYS, &all.v);
    bool small = shape->head_size == 64;
    void (*kernel)(const struct attention_hopper_args) =
        small ? attention_hopper<64> : attention_hopper<128>;
    int shared_bytes = small ? places<64>::BYTES : places<128>::BYTES;
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute((const void *)kernel,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess)
        return error;
    unsigned blocks =
        (unsigned)attention_ceil((int)shape->q_length, ROWS) * shape->heads * shape->batch;
    return CM_LAUNCH(kernel, blocks, THREADS, shared_bytes, stream, all);
}
