/*
 * attention_mma.cu: attention on the tensor cores of compute capability 8.0 and later.
 *
 * A block makes the outputs of a tile of queries of one head and goes over the keys that any of
 * them sees, a tile at a time. Each warp has 16 or 32 queries for itself: their scores, weights and
 * sums stay in registers. The next keys are copied while the weights multiply the values, and the
 * values while the queries multiply the keys.
 */
#include "kernels/attention_mma.cuh"

static const int WARPS = 4;
static const int THREADS = WARPS * 32;

/* KEYS of a tile. */
template <int D, int M, int KEYS>
static __global__ __launch_bounds__(THREADS, 2) void attention_mma(const struct attention_args args)
{
#ifdef TENSOR_CORES
    CM_DYNAMIC_SHARED(shared);
    typedef attention_tile<D> tile;
    const int queries = WARPS * 16 * M;
    const struct cm_attention &shape = args.shape;
    struct attention_place place = attention_place_of(
        shape, attention_ceil((int)shape.q_length, queries), (int)shape.heads, true);
    int kv_head = place.head / (int)(shape.heads / shape.kv_heads);
    uint32_t q = ptx_shared_address(shared), k = q + queries * tile::ROW_BYTES;
    uint32_t v = k + KEYS * tile::ROW_BYTES;
    attention_source<D, THREADS> from_q(
        attention_head(shape, place.sequence, shape.q_stride, place.head), args.q_pitch,
        shape.q_length, shape.head_size);
    attention_source<D, THREADS> source(
        attention_head(shape, place.sequence, shape.kv_stride, kv_head), args.kv_pitch,
        shape.k_length, shape.head_size);
    int query = place.tile * queries, warp_row = attention_warp() * (16 * M);
    from_q.template fetch<queries>(q, args.q, query);
    source.template fetch<KEYS>(k, args.k, 0);
    ptx_copy_commit();

    int most = attention_span_of(shape, query, queries).most;
    struct attention_span own = attention_span_of(shape, query + warp_row, 16 * M);
    int lane_query = query + warp_row + (int)(threadIdx.x % 32 / 4);
    float sums[M][D / 8][4] = {};
    struct attention_softmax<M> softmax;
    softmax.init();
    for (int key = 0; key <= most; key += KEYS) {
        float scores[M][KEYS / 8][4] = {};
        bool seen = key <= own.most; /* by this warp */
        ptx_copy_wait<0>();
        __syncthreads(); /* the keys are there, and the last values no longer needed */
        source.template fetch<KEYS>(v, args.v, key);
        ptx_copy_commit();
        if (seen)
            attention_multiply<D>(scores, q, warp_row, k);
        ptx_copy_wait<0>();
        __syncthreads(); /* the other way round */
        if (key + KEYS <= most)
            source.template fetch<KEYS>(k, args.k, key + KEYS);
        ptx_copy_commit();
        if (!seen)
            continue;
        if (key + KEYS - 1 > own.least)
            attention_mask(scores, shape, lane_query, key);
        float factors[M][2];
        attention_weigh(scores, softmax, factors, args.scale);
        attention_rescale(sums, factors);
        attention_accumulate<D>(sums, scores, v);
    }
    ptx_copy_wait<0>();
    attention_finish<D>(args, place, lane_query, sums, softmax);
#endif
}

#define KERNEL(d, m, keys)                                                                         \
    {                                                                                              \
        d, m, keys, attention_mma<d, m, keys>                                                      \
    }

int attention_mma_forward(struct CUstream_st *stream, const struct attention_args *args)
{
    static const struct {
        int head_size, fragments, keys;
        void (*kernel)(const struct attention_args);
    } kernels[] = {
        KERNEL(64, 2, 64),  KERNEL(96, 2, 64),  KERNEL(128, 2, 48),
        KERNEL(192, 1, 64), KERNEL(256, 1, 64),
    };
    const struct cm_attention *shape = &args->shape;
    int i = 0;
    while (kernels[i].head_size < (int)shape->head_size)
        i++;
    int queries = WARPS * 16 * kernels[i].fragments;
    int shared_bytes = (queries + 2 * kernels[i].keys) * kernels[i].head_size * 2;
    unsigned blocks =
        (unsigned)attention_ceil((int)shape->q_length, queries) * shape->heads * shape->batch;
    int error = cudaFuncSetAttribute((const void *)kernels[i].kernel,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH(kernels[i].kernel, blocks, THREADS, shared_bytes, stream, *args);
}
