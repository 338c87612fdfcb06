/*
 * attention_backward.cuh: what the kernels of attention's gradients on tensor cores share.
 *
 * One kernel serves both ways round. A block holds a tile of `rows` and goes over tiles of
 * `columns`: for dk and dv its rows are keys and its columns the queries that see them, of all
 * heads that read the key's head; for dq it is the other way round. From weights p = 2^(score -
 * lse) and their gradients ds = p * (dout v - shift) it sums dv = p^T dout, dk = ds^T q    over
 * queries,    dq = ds k    over keys, each warp for rows of its own, with all of that in its
 * registers. Nothing is added by two blocks; dq costs a second look at the scores instead.
 *
 * Names: x and y are the rows' tiles (k and v, or q and dout), u and w those of the columns (q and
 * dout, or k and v), so that scores are x u^T and gradients of weights y w^T. QUERIES: the rows are
 * queries.
 */
#ifndef CLUSTERMARK_ATTENTION_BACKWARD_CUH
#define CLUSTERMARK_ATTENTION_BACKWARD_CUH

#include "kernels/attention_mma.cuh"

/* Walks over the tiles of columns that any of a block's rows has to do with. */
template <int COLUMNS> struct attention_walk {
    int column, head; /* the tile's first column, and its head */
    int end, end_head;
    int chunk, seen[2]; /* columns count from seen[0] to `chunk`, and from seen[1] to the end */

    /* The first tile from `column` on that counts, of this head or the next ones. */
    __device__ __forceinline__ void find()
    {
        for (; head < end_head; head++, column = 0) {
            int first = max(column, seen[0]) < chunk ? seen[0] : seen[1];
            column = max(column, first / COLUMNS * COLUMNS);
            if (first < end && column < end)
                return;
        }
    }

    /* Keys up to `last`, of one head. */
    __device__ __forceinline__ void init_keys(int kv_head, int last)
    {
        column = seen[0] = 0;
        head = kv_head;
        end_head = head + 1;
        end = chunk = seen[1] = last + 1;
    }

    /* Queries that see `key`, of all heads that read its head. */
    __device__ __forceinline__ void init_queries(const struct cm_attention &shape, int kv_head,
                                                 int key)
    {
        int group = (int)(shape.heads / shape.kv_heads);
        head = kv_head * group;
        end_head = head + group;
        end = (int)shape.q_length;
        chunk = (int)min(shape.positions.chunk, shape.q_length);
        seen[0] = min(chunk, max(key - (int)shape.positions.first[0], 0));
        seen[1] = min(end, chunk + max(key - (int)shape.positions.first[1], 0));
        column = 0;
        find();
    }

    __device__ __forceinline__ void next()
    {
        column += COLUMNS;
        find();
    }

    __device__ __forceinline__ bool over() const
    {
        return head >= end_head;
    }
};

/* What of a tile is not seen becomes -inf. `row` is this lane's first row, `column` the tile's
 * first. */
template <bool QUERIES, int M, int N>
static __device__ __forceinline__ void
attention_mask_tile(float (&scores)[M][N][4], const struct cm_attention &shape, int row, int column)
{
    column += threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2 * N; i++) {
        int at = column + i / 2 * 8 + i % 2;
        int last = QUERIES ? 0 : attention_last_key(shape, at);
#pragma unroll
        for (int j = 0; j < 2 * M; j++) {
            bool seen =
                QUERIES ? at <= attention_last_key(shape, row + 8 * j) : row + 8 * j <= last;
            if (!seen)
                scores[j / 2][i / 2][j % 2 * 2 + i % 2] = -INFINITY;
        }
    }
}

/* The lse and shift of an element, from those of its row or those of its two columns. */
template <bool QUERIES>
static __device__ __forceinline__ float2 attention_stats_of(const float2 (&rows)[2], float4 columns,
                                                            int i)
{
    if (QUERIES)
        return rows[i / 2];
    return i % 2 == 0 ? float2{columns.x, columns.y} : float2{columns.z, columns.w};
}

/* Scores become weights. */
template <bool QUERIES, int M, int N>
static __device__ __forceinline__ void
attention_weights(float (&p)[M][N][4], const float4 *column_stats, const float2 (&row_stats)[M][2],
                  float scale)
{
#pragma unroll
    for (int j = 0; j < N; j++) {
        float4 stats = QUERIES ? float4{} : column_stats[j * 4 + threadIdx.x % 4];
#pragma unroll
        for (int i = 0; i < 4 * M; i++) {
            float lse = attention_stats_of<QUERIES>(row_stats[i / 4], stats, i % 4).x;
            p[i / 4][j][i % 4] = ptx_exp2(p[i / 4][j][i % 4] * scale - lse);
        }
    }
}

/* Gradients of weights become those of scores. */
template <bool QUERIES, int M, int N>
static __device__ __forceinline__ void
attention_differentiate(float (&ds)[M][N][4], const float (&p)[M][N][4], const float4 *column_stats,
                        const float2 (&row_stats)[M][2])
{
#pragma unroll
    for (int j = 0; j < N; j++) {
        float4 stats = QUERIES ? float4{} : column_stats[j * 4 + threadIdx.x % 4];
#pragma unroll
        for (int i = 0; i < 4 * M; i++) {
            float shift = attention_stats_of<QUERIES>(row_stats[i / 4], stats, i % 4).y;
            ds[i / 4][j][i % 4] = p[i / 4][j][i % 4] * (ds[i / 4][j][i % 4] - shift);
        }
    }
}

/* Those of this lane's rows; where there is no query, such that its weights are 0. */
template <int M>
static __device__ __forceinline__ void
attention_row_stats(float2 (&row_stats)[M][2], const struct attention_args &args,
                    const struct attention_place &place, int row)
{
    const struct cm_attention &shape = args.shape;
    const float2 *from = args.stats + (size_t)(place.sequence * shape.heads + place.head) *
                                          attention_stats_pitch(shape);
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        float2 stats = {INFINITY, 0};
        if (row + 8 * i < (int)shape.q_length)
            stats = from[row + 8 * i];
        row_stats[i / 2][i % 2] = stats;
    }
}

/* This warp's sums to a gradient's rows from `row` on, that of the lane; `count` rows there are. */
template <int D, int M>
static __device__ __forceinline__ void
attention_store_gradient(void *gradient, size_t head, size_t pitch, int row, int count,
                         uint32_t head_size, const float (&sums)[M][D / 8][4], float factor)
{
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        int at = row + 8 * i;
        attention_store<D>((uint16_t *)gradient + (head + (size_t)at * pitch), at < count,
                           (int)head_size, sums[i / 2], i % 2, factor);
    }
}

#endif
