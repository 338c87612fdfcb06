/*
 * attention_mma.cuh: what the attention kernels on tensor cores share: tiles in shared memory, and
 * the ways between fragments, shared memory and memory.
 *
 * A tile has a row of D bf16 for each position; a head's elements beyond head_size, and rows beyond
 * the last position, are zeros. The 16-byte chunks of a row lie exchanged such that neither the
 * copies nor ldmatrix meet in a bank.
 */
#ifndef CLUSTERMARK_ATTENTION_MMA_CUH
#define CLUSTERMARK_ATTENTION_MMA_CUH

#include "kernels/attention.cuh"
#include "kernels/fragment.cuh"
#include "kernels/ptx.cuh"

/* Other architectures get kernels without a body, which are never launched there. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define TENSOR_CORES
#endif

template <int D> struct attention_tile {
    static const int CHUNKS = D / 8; /* of a row */
    static const int ROW_BYTES = D * 2;
    static const uint32_t EXCHANGED = D % 64 == 0 ? 8 : 4; /* chunks among which they lie so */
    static const uint32_t MASK = EXCHANGED * 16 - 1;

    static __device__ __forceinline__ uint32_t place(uint32_t row, uint32_t chunk)
    {
        uint32_t exchange = EXCHANGED == 8 ? row % 8 : row / 2 % 4;
        return row * ROW_BYTES + ((chunk ^ exchange) * 16);
    }

    /* Where this lane reads of each 16x16: of a first operand (rows are m), or of a second one that
     * is transposed (rows are k); else of a second one (rows are n). */
    static __device__ __forceinline__ uint32_t lane_first()
    {
        return place(threadIdx.x % 16, threadIdx.x % 32 / 16);
    }
    static __device__ __forceinline__ uint32_t lane_second()
    {
        return place(threadIdx.x % 32 / 16 * 8 + threadIdx.x % 8, threadIdx.x / 8 % 2);
    }

    /* The 16x16 that lies `row` rows, a multiple of 8, and 16 * column elements on from the one at
     * `from`, where this lane reads in a tile. */
    template <bool TRANSPOSED>
    static __device__ __forceinline__ void read(uint32_t (&words)[4], uint32_t from, int row,
                                                int column)
    {
        uint32_t along = (uint32_t)column * 32;
        ptx_load_matrix<TRANSPOSED>(words, (from ^ (along & MASK)) +
                                               ((along & ~MASK) + (uint32_t)row * ROW_BYTES));
    }
};

/* By way of a shuffle the compiler knows that it is the same in the whole warp. */
static __device__ __forceinline__ int attention_warp()
{
    return __shfl_sync(0xffffffff, (int)threadIdx.x / 32, 0);
}

/* Of one head of one sequence in memory, where a thread of a block of THREADS copies its part of
 * tiles from: EXCHANGED threads lie side by side along a row. */
template <int D, int THREADS> struct attention_source {
    typedef attention_tile<D> tile;
    static const int ACROSS = tile::EXCHANGED;
    static const int STEP = THREADS / ACROSS; /* rows from one of a thread to its next */
    size_t first;                             /* its first column's element at position 0 */
    uint32_t pitch;                           /* elements from position to position */
    int positions, columns;                   /* that there are */

    __device__ __forceinline__ attention_source(size_t head, size_t positions_apart, uint32_t count,
                                                uint32_t head_size)
    {
        first = head + threadIdx.x % ACROSS * 8;
        pitch = (uint32_t)positions_apart;
        positions = (int)count;
        columns = (int)head_size;
    }

    /* ROWS positions from `position` on into a tile. */
    template <int ROWS>
    __device__ __forceinline__ void fetch(uint32_t to, const void *matrix, int position) const
    {
        if (STEP > ROWS && threadIdx.x >= ROWS * ACROSS)
            return;
        const uint16_t *from = (const uint16_t *)matrix + first;
        int column = (int)threadIdx.x % ACROSS * 8;
        position += (int)threadIdx.x / ACROSS;
        to += tile::place(threadIdx.x / ACROSS, threadIdx.x % ACROSS);
#pragma unroll
        for (int row = 0; row < ROWS; row += STEP) {
            /* One multiplication each; sums of the pitch would take many registers. */
            const uint16_t *from_row = from + (uint64_t)(uint32_t)(position + row) * pitch;
#pragma unroll
            for (int chunk = 0; chunk < D / 8; chunk += ACROSS)
                ptx_copy_async(to + row * tile::ROW_BYTES + chunk * 16, from_row + chunk * 8,
                               position + row < positions && column + chunk * 8 < columns);
        }
    }
};

/* products[i][j] (16 rows of x each, 8 rows of y) += x y^T. Rows of x begin at x_row. */
template <int D, int M, int N>
static __device__ __forceinline__ void attention_multiply(float (&products)[M][N][4], uint32_t x,
                                                          int x_row, uint32_t y)
{
    typedef attention_tile<D> tile;
    x += (uint32_t)x_row * tile::ROW_BYTES + tile::lane_first();
    y += tile::lane_second();
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        uint32_t a[M][4];
#pragma unroll
        for (int i = 0; i < M; i++)
            tile::template read<false>(a[i], x, 16 * i, step);
#pragma unroll
        for (int j = 0; j < N; j += 2) {
            uint32_t b[4];
            tile::template read<false>(b, y, 8 * j, step);
#pragma unroll
            for (int i = 0; i < M; i++) {
                ptx_mma(products[i][j], a[i], b[0], b[1]);
                ptx_mma(products[i][j + 1], a[i], b[2], b[3]);
            }
        }
    }
}

/* sums (16 rows, D columns each) += weights y, where `weights` are the fragments of a product, two
 * of 8 columns for 16 rows of y, rounded to bf16. */
template <int D, int M, int N>
static __device__ __forceinline__ void
attention_accumulate(float (&sums)[M][D / 8][4], const float (&weights)[M][N][4], uint32_t y)
{
    typedef attention_tile<D> tile;
    y += tile::lane_first();
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        uint32_t a[M][4];
#pragma unroll
        for (int i = 0; i < M; i++) {
#pragma unroll
            for (int word = 0; word < 4; word++) {
                const float(&from)[4] = weights[i][2 * k + word / 2];
                a[i][word] = ptx_pack_bf16(from[word % 2 * 2], from[word % 2 * 2 + 1]);
            }
        }
#pragma unroll
        for (int column = 0; column < D / 16; column++) {
            uint32_t b[4];
            tile::template read<true>(b, y, 16 * k, column);
#pragma unroll
            for (int i = 0; i < M; i++) {
                ptx_mma(sums[i][2 * column], a[i], b[0], b[1]);
                ptx_mma(sums[i][2 * column + 1], a[i], b[2], b[3]);
            }
        }
    }
}

/* This lane's part of one of the two rows (`half`) of a fragment's D columns, times `factor`, to
 * `row` in memory when it is `valid`. All lanes of the warp come. */
template <int D>
static __device__ __forceinline__ void attention_store(uint16_t *row, bool valid, int head_size,
                                                       const float (&sums)[D / 8][4], int half,
                                                       float factor)
{
#pragma unroll
    for (int j = 0; j < D / 8; j += 4) {
        uint32_t words[4];
#pragma unroll
        for (int t = 0; t < 4; t++)
            words[t] =
                ptx_pack_bf16(sums[j + t][2 * half] * factor, sums[j + t][2 * half + 1] * factor);
        cm_quad_transpose(words);
        int column = j * 8 + (int)(threadIdx.x % 4) * 8;
        if (valid && column < head_size)
            *(uint4 *)(row + column) = uint4{words[0], words[1], words[2], words[3]};
    }
}

/* ---- Forward ---- */

/* Of the rows of M fragments that a lane has a part of, two in each. */
template <int M> struct attention_softmax {
    float most[M][2]; /* greatest score so far, unscaled */
    float sum[M][2];  /* of the weights in this lane's columns */

    __device__ __forceinline__ void init()
    {
#pragma unroll
        for (int row = 0; row < 2 * M; row++) {
            most[row / 2][row % 2] = -INFINITY;
            sum[row / 2][row % 2] = 0;
        }
    }
};

/* Keys that a query does not see. `key` is the tile's first; `query` is that of the lane's first
 * row. */
template <int M, int N>
static __device__ __forceinline__ void
attention_mask(float (&scores)[M][N][4], const struct cm_attention &shape, int query, int key)
{
    key += threadIdx.x % 4 * 2;
#pragma unroll
    for (int row = 0; row < 2 * M; row++) {
        int last = attention_last_key(shape, query + 8 * row);
#pragma unroll
        for (int j = 0; j < 2 * N; j++) {
            if (key + j / 2 * 8 + j % 2 > last)
                scores[row / 2][j / 2][row % 2 * 2 + j % 2] = -INFINITY;
        }
    }
}

/* Scores become weights relative to the greatest score so far, which every row has. What was summed
 * relative to the one before must be multiplied by `factors`. */
template <int M, int N>
static __device__ __forceinline__ void attention_weigh(float (&scores)[M][N][4],
                                                       struct attention_softmax<M> &softmax,
                                                       float (&factors)[M][2], float scale)
{
#pragma unroll
    for (int row = 0; row < 2 * M; row++) {
        const int i = row / 2, half = row % 2;
        float before = softmax.most[i][half], most = before;
#pragma unroll
        for (int j = 0; j < N; j++)
            most = fmaxf(most, fmaxf(scores[i][j][2 * half], scores[i][j][2 * half + 1]));
        most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, 2));
        float shift = most * scale, sum = 0;
        factors[i][half] = ptx_exp2(before * scale - shift);
#pragma unroll
        for (int j = 0; j < 2 * N; j++) {
            float &score = scores[i][j / 2][2 * half + j % 2];
            score = ptx_exp2(score * scale - shift);
            sum += score;
        }
        softmax.most[i][half] = most;
        softmax.sum[i][half] = softmax.sum[i][half] * factors[i][half] + sum;
    }
}

template <int M, int N>
static __device__ __forceinline__ void attention_rescale(float (&sums)[M][N][4],
                                                         const float (&factors)[M][2])
{
#pragma unroll
    for (int i = 0; i < 4 * M * N; i++)
        sums[i / 4 / N][i / 4 % N][i % 4] *= factors[i / 4 / N][i % 4 / 2];
}

/* The outputs of this warp's queries, and the logarithms of their sums. */
template <int D, int M>
static __device__ __forceinline__ void
attention_finish(const struct attention_args &args, const struct attention_place &place, int query,
                 const float (&sums)[M][D / 8][4], const struct attention_softmax<M> &softmax)
{
    const struct cm_attention &shape = args.shape;
    uint16_t *o =
        (uint16_t *)args.o + attention_head(shape, place.sequence, shape.o_stride, place.head);
#pragma unroll
    for (int row = 0; row < 2 * M; row++) {
        int position = query + 8 * row;
        bool valid = position < (int)shape.q_length;
        float sum = softmax.sum[row / 2][row % 2];
        sum += __shfl_xor_sync(0xffffffff, sum, 1);
        sum += __shfl_xor_sync(0xffffffff, sum, 2);
        size_t at = (size_t)position * shape.batch;
        attention_store<D>(o + at * shape.o_stride, valid, (int)shape.head_size, sums[row / 2],
                           row % 2, 1 / sum);
        if (valid && threadIdx.x % 4 == 0)
            args.lse[(at + place.sequence) * shape.heads + place.head] =
                (softmax.most[row / 2][row % 2] * args.scale + log2f(sum)) * ATTENTION_LN_2;
    }
}

#endif
