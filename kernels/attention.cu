/*
 * attention.cu: which attention kernels there are for a shape, their launch, and what a query's
 * gradients need to know of it besides.
 */
#include "kernels/attention.cuh"

/* Positions and blocks are counted in int, up to a tile beyond the edge. */
#define COUNT_MAX (UINT64_C(1) << 30)

static bool shape_valid(const struct cm_attention *shape)
{
    if (shape->dtype != CM_F32 && shape->dtype != CM_BF16)
        return false;
    if (shape->batch == 0 || shape->heads == 0 || shape->kv_heads == 0 ||
        shape->heads % shape->kv_heads != 0)
        return false;
    if (shape->head_size == 0 || shape->head_size % 8 != 0 || shape->head_size > 256)
        return false;
    return shape->q_length > 0 && shape->k_length > 0 && shape->k_length <= COUNT_MAX &&
           shape->q_length <= COUNT_MAX / shape->batch / shape->heads &&
           shape->k_length <= COUNT_MAX / shape->batch / shape->kv_heads;
}

static struct attention_args make_args(const struct cm_attention *shape, const void *q,
                                       const void *k, const void *v)
{
    struct attention_args args = {};
    args.shape = *shape;
    args.q = q;
    args.k = k;
    args.v = v;
    args.q_pitch = shape->batch * shape->q_stride;
    args.kv_pitch = shape->batch * shape->kv_stride;
    args.o_pitch = shape->batch * shape->o_stride;
    args.dq_pitch = shape->batch * shape->dq_stride;
    args.dkv_pitch = shape->batch * shape->dkv_stride;
    args.scale = ATTENTION_LOG2_E / sqrtf((float)shape->head_size);
    return args;
}

/* Each row begins at a multiple of 16 bytes. */
static bool rows_aligned(const struct attention_args *args)
{
    const struct cm_attention *shape = &args->shape;
    uintptr_t addresses = (uintptr_t)args->q | (uintptr_t)args->k | (uintptr_t)args->v |
                          (uintptr_t)args->o | (uintptr_t)args->dout | (uintptr_t)args->dq |
                          (uintptr_t)args->dk | (uintptr_t)args->dv | (uintptr_t)args->stats;
    uint64_t strides = shape->q_stride | shape->kv_stride | shape->o_stride;
    if (args->dq != NULL)
        strides |= shape->dq_stride | shape->dkv_stride;
    return addresses % 16 == 0 && strides % 8 == 0;
}

static bool mma_fits(const struct attention_args *args, int capability)
{
    const size_t pitch_max = UINT32_MAX;
    return args->shape.dtype == CM_BF16 && capability >= 80 && rows_aligned(args) &&
           args->q_pitch <= pitch_max && args->kv_pitch <= pitch_max && args->o_pitch <= pitch_max;
}

int cm_cuda_attention(struct CUstream_st *stream, const struct cm_attention *attention,
                      const void *q, const void *k, const void *v, void *o, float *lse,
                      int capability)
{
    if (!shape_valid(attention))
        return cudaErrorInvalidValue;
    struct attention_args args = make_args(attention, q, k, v);
    args.o = o;
    args.lse = lse;
    if (!mma_fits(&args, capability))
        return attention_plain_forward(stream, &args);
    return attention_hopper_fits(&args, capability) ? attention_hopper_forward(stream, &args)
                                                    : attention_mma_forward(stream, &args);
}

/* ---- args.stats ---- */

#define LANES 8 /* that share a query of a head */

/* W elements of a row at a time. */
template <typename T, int W>
static __global__
__launch_bounds__(CM_THREADS) void attention_stats(const struct attention_args args)
{
    typedef cm_vector<T, W> vector;
    const struct cm_attention &shape = args.shape;
    int pitch = attention_stats_pitch(shape), lane = (int)threadIdx.x % LANES;
    int query = (int)(cm_grid_thread() / LANES);
    int column = query / pitch;
    query -= column * pitch;
    if (column >= (int)(shape.batch * shape.heads))
        return;
    uint32_t sequence = (uint32_t)column / shape.heads;
    int head = column - (int)(sequence * shape.heads);
    float sum = 0;
    bool inside = query < (int)shape.q_length;
    size_t at = query * args.o_pitch + attention_head(shape, sequence, shape.o_stride, head);
    for (int i = lane * W; inside && i < (int)shape.head_size; i += LANES * W) {
        vector o = *(const vector *)((const T *)args.o + at + i);
        vector dout = *(const vector *)((const T *)args.dout + at + i);
#pragma unroll
        for (int j = 0; j < W; j++)
            sum += attention_float(o.v[j]) * attention_float(dout.v[j]);
    }
    unsigned lanes = 0xffu << (threadIdx.x % 32 / LANES * LANES);
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(lanes, sum, distance);
    if (lane != 0)
        return;
    float2 stats = {0, 0}; /* where the row is longer than the queries */
    if (inside) {
        size_t row = (size_t)query * shape.batch + sequence;
        stats = float2{args.lse[row * shape.heads + head] * ATTENTION_LOG2_E, sum};
    }
    args.stats[(size_t)column * pitch + query] = stats;
}

static int launch_stats(struct CUstream_st *stream, const struct attention_args *args)
{
    typedef void (*kernel)(const struct attention_args);
    static const kernel kernels[2][2] = {
        {attention_stats<float, 1>, attention_stats<float, 4>},
        {attention_stats<uint16_t, 1>, attention_stats<uint16_t, 8>},
    };
    const struct cm_attention *shape = &args->shape;
    uint64_t rows = (uint64_t)attention_stats_pitch(*shape) * shape->batch * shape->heads;
    unsigned blocks = (unsigned)((rows * LANES + CM_THREADS - 1) / CM_THREADS);
    return CM_LAUNCH(kernels[shape->dtype == CM_BF16][rows_aligned(args)], blocks, CM_THREADS, 0,
                     stream, *args);
}

int cm_cuda_attention_backward(struct CUstream_st *stream, const struct cm_attention *attention,
                               const void *q, const void *k, const void *v, const void *o,
                               const float *lse, const void *dout, void *dq, void *dk, void *dv,
                               void *scratch, int capability)
{
    if (!shape_valid(attention))
        return cudaErrorInvalidValue;
    struct attention_args args = make_args(attention, q, k, v);
    args.o = (void *)o;
    args.lse = (float *)lse;
    args.dout = dout;
    args.dq = dq;
    args.dk = dk;
    args.dv = dv;
    args.stats = (float2 *)scratch;
    int error = launch_stats(stream, &args);
    if (error != cudaSuccess)
        return error;
    if (!mma_fits(&args, capability))
        return attention_plain_backward(stream, &args);
    return attention_hopper_fits(&args, capability) ? attention_hopper_backward(stream, &args)
                                                    : attention_mma_backward(stream, &args);
}
