/*
 * attention.cuh: what the files of attention share: the arguments of its kernels, which keys a
 * query sees, and the order of blocks.
 */
#ifndef CLUSTERMARK_ATTENTION_CUH
#define CLUSTERMARK_ATTENTION_CUH

#include <stddef.h>
#include <stdint.h>

#include "clustermark/cuda_train.h"
#include "kernels/launch.cuh"

#define ATTENTION_LOG2_E 1.44269504f /* of lse and powers of two: log2(e) and its inverse */
#define ATTENTION_LN_2   0.69314718f

struct attention_args {
    struct cm_attention shape;
    const void *q, *k, *v;
    void *o;
    float *lse;
    size_t q_pitch, kv_pitch, o_pitch, dq_pitch, dkv_pitch; /* elements from position to position */
    float scale; /* exp(score / sqrt(head_size)) = 2^(score * scale) */
    /* Of the backward pass. */
    const void *dout;
    void *dq, *dk, *dv;
    float2 *stats; /* of each query, [sequence][head][attention_stats_pitch]: lse as a power of two,
                      and the sum of dout * o, by which a softmax's gradient is shifted */
};

/* attention_mma.cu, attention_mma_backward.cu: bf16, compute capability 8.0 and later, rows that
 * are 16-byte aligned. */
int attention_mma_forward(struct CUstream_st *stream, const struct attention_args *args);
int attention_mma_backward(struct CUstream_st *stream, const struct attention_args *args);

/* attention_hopper.cu, attention_hopper_backward.cu: those of them that its copy engine and
 * multipliers suit. */
bool attention_hopper_fits(const struct attention_args *args, int capability);
int attention_hopper_forward(struct CUstream_st *stream, const struct attention_args *args);
int attention_hopper_backward(struct CUstream_st *stream, const struct attention_args *args);

/* attention_plain.cu: everything else. */
int attention_plain_forward(struct CUstream_st *stream, const struct attention_args *args);
int attention_plain_backward(struct CUstream_st *stream, const struct attention_args *args);

static __host__ __device__ inline int attention_ceil(int count, int per)
{
    return (count + per - 1) / per;
}

/* Even, so that pairs of float2 are aligned. */
static __host__ __device__ inline int attention_stats_pitch(const struct cm_attention &shape)
{
    return (int)(shape.q_length + shape.q_length % 2);
}

static __device__ __forceinline__ float attention_float(float value)
{
    return value;
}
static __device__ __forceinline__ float attention_float(uint16_t bf16)
{
    return __uint_as_float((uint32_t)bf16 << 16);
}

/* The last key that the query at this local position sees. */
static __device__ __forceinline__ int attention_last_key(const struct cm_attention &shape,
                                                         int query)
{
    const struct cm_positions &positions = shape.positions;
    uint32_t local = (uint32_t)query;
    uint32_t position = local < positions.chunk ? positions.first[0] + local
                                                : positions.first[1] + (local - positions.chunk);
    return (int)min(position, shape.k_length - 1);
}

/* The least and the greatest of several queries' last keys. */
struct attention_span {
    int least, most;
};

/* Of `count` queries from `query` on, those that there are; of the last one when there is none. */
static __device__ __forceinline__ struct attention_span
attention_span_of(const struct cm_attention &shape, int query, int count)
{
    int length = (int)shape.q_length;
    int first = min(query, length - 1), last = max(min(query + count, length) - 1, first);
    struct attention_span span;
    int a = attention_last_key(shape, first), b = attention_last_key(shape, last);
    span.least = min(a, b);
    span.most = max(a, b);
    if ((uint32_t)first < shape.positions.chunk && (uint32_t)last >= shape.positions.chunk) {
        int chunk = (int)shape.positions.chunk;
        span.most = max(span.most, attention_last_key(shape, chunk - 1));
        span.least = min(span.least, attention_last_key(shape, chunk));
    }
    return span;
}

/* What a block works on: a tile of positions, of a head of a sequence. */
struct attention_place {
    int tile, head;
    uint32_t sequence;
};

/* Tiles that have many keys or queries to see come first, so that none of them ends alone: the last
 * queries, the first keys. All heads have their turn with a tile before the next one. */
static __device__ __forceinline__ struct attention_place
attention_place_of(const struct cm_attention &shape, int tiles, int heads, bool last_first)
{
    struct attention_place place;
    int together = heads * (int)shape.batch;
    place.tile = (int)blockIdx.x / together;
    int rest = (int)blockIdx.x - place.tile * together;
    if (last_first)
        place.tile = tiles - 1 - place.tile;
    place.sequence = (uint32_t)(rest / heads);
    place.head = rest - (int)place.sequence * heads;
    return place;
}

/* Where element 0 of a head lies at position 0. */
static __device__ __forceinline__ size_t attention_head(const struct cm_attention &shape,
                                                        uint32_t sequence, uint64_t stride,
                                                        int head)
{
    return sequence * stride + (size_t)head * shape.head_size;
}

#endif
