/*
 * attention_plain.cu: attention and its gradients by ordinary arithmetic, in f32: for F32, and for
 * bf16 on devices without tensor cores for it or with rows that are not aligned.
 *
 * The plan is that of the kernels on tensor cores: a block has a tile of rows and goes over tiles
 * of columns. LANES threads share a row: each makes the products with its own of a tile's columns,
 * and sums its own elements of the results. Tiles lie in shared memory as f32, rows PAD apart from
 * the next multiple of the banks.
 */
#include "kernels/attention.cuh"

static const int LANES = 8; /* that share a row */
static const int PAD = 4;   /* floats */

/* One head of one sequence in memory. */
template <typename T> struct head_rows {
    T *first;
    size_t pitch; /* elements from position to position */
    int count;
};

template <typename T>
static __device__ struct head_rows<T> rows_of(T *matrix, const struct cm_attention &shape,
                                              uint32_t sequence, uint64_t stride, int head,
                                              uint32_t count) {
    return {matrix + attention_head(shape, sequence, stride, head), shape.batch *stride,
            (int)count};
}

/* ROWS positions from `position` on; zeros where there are none. */
template <int ROWS, typename T>
static __device__ void fetch(float *tile, const struct head_rows<const T> &rows, int position,
                             int head_size)
{
    for (int row = (int)threadIdx.x / 32; row < ROWS; row += (int)blockDim.x / 32) {
        const T *from = rows.first + (size_t)(position + row) * rows.pitch;
        for (int i = (int)threadIdx.x % 32; i < head_size; i += 32)
            tile[row * (head_size + PAD) + i] =
                position + row < rows.count ? attention_float(from[i]) : 0;
    }
}

/* products[i] = row . column LANES * i + lane of the tile. */
template <int N>
static __device__ __forceinline__ void multiply(float (&products)[N], const float *row,
                                                const float *tile, int head_size)
{
    const float *columns = tile + (int)threadIdx.x % LANES * (head_size + PAD);
#pragma unroll
    for (int i = 0; i < N; i++)
        products[i] = 0;
    for (int k = 0; k < head_size; k += 4) {
        float4 x = *(const float4 *)(row + k);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float4 y = *(const float4 *)(columns + i * LANES * (head_size + PAD) + k);
            products[i] += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
        }
    }
}

/* Lane's elements i * 4 * LANES + 4 * lane and the three after it of a row's sums, += weights times
 * the tile's columns; weights[i] is that of column LANES * i + lane. */
template <int N, int FOURS>
static __device__ __forceinline__ void accumulate(float4 (&sums)[FOURS], const float (&weights)[N],
                                                  const float *tile, int head_size)
{
    int first = (int)threadIdx.x % LANES * 4;
#pragma unroll
    for (int column = 0; column < N * LANES; column++) {
        float weight = __shfl_sync(0xffffffff, weights[column / LANES], column % LANES, LANES);
        const float *from = tile + column * (head_size + PAD) + first;
#pragma unroll
        for (int i = 0; i < FOURS; i++) {
            if (first + i * 4 * LANES >= head_size)
                break;
            float4 x = *(const float4 *)(from + i * 4 * LANES);
            sums[i].x += weight * x.x;
            sums[i].y += weight * x.y;
            sums[i].z += weight * x.z;
            sums[i].w += weight * x.w;
        }
    }
}

static __device__ __forceinline__ void put(float *to, float value)
{
    *to = value;
}
static __device__ __forceinline__ void put(uint16_t *to, float value)
{
    uint32_t bits = __float_as_uint(value);
    *to = (uint16_t)(value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <typename T, int FOURS>
static __device__ __forceinline__ void store(const struct head_rows<T> &rows, int position,
                                             const float4 (&sums)[FOURS], int head_size,
                                             float factor)
{
    int first = (int)threadIdx.x % LANES * 4;
    T *to = rows.first + (size_t)position * rows.pitch;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        int at = first + i * 4 * LANES;
        if (position >= rows.count || at >= head_size)
            break;
        put(to + at, sums[i].x * factor);
        put(to + at + 1, sums[i].y * factor);
        put(to + at + 2, sums[i].z * factor);
        put(to + at + 3, sums[i].w * factor);
    }
}

/* A row's greatest or its sum, from what each of its lanes has. */
static __device__ __forceinline__ float most_of_row(float value)
{
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, distance));
    return value;
}
static __device__ __forceinline__ float sum_of_row(float value)
{
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffff, value, distance);
    return value;
}

/* ---- Forward ---- */

/* COLUMNS keys of a tile; FOURS times 4 * LANES elements of a head at most. */
template <typename T, int THREADS, int COLUMNS, int FOURS>
static __global__ __launch_bounds__(THREADS) void attention_plain(const struct attention_args args)
{
    CM_DYNAMIC_SHARED(shared);
    const int rows = THREADS / LANES, n = COLUMNS / LANES;
    const struct cm_attention &shape = args.shape;
    int head_size = (int)shape.head_size, pitch = head_size + PAD;
    int tiles = attention_ceil((int)shape.q_length, rows);
    struct attention_place at = attention_place_of(shape, tiles, (int)shape.heads, true);
    int kv_head = at.head / (int)(shape.heads / shape.kv_heads);
    auto q =
        rows_of((const T *)args.q, shape, at.sequence, shape.q_stride, at.head, shape.q_length);
    auto k =
        rows_of((const T *)args.k, shape, at.sequence, shape.kv_stride, kv_head, shape.k_length);
    auto v =
        rows_of((const T *)args.v, shape, at.sequence, shape.kv_stride, kv_head, shape.k_length);
    float *x = (float *)shared, *tile_k = x + rows * pitch, *tile_v = tile_k + COLUMNS * pitch;
    int first = at.tile * rows, row = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    int most_key = attention_span_of(shape, first, rows).most;
    int last_key = attention_last_key(shape, first + row);
    fetch<rows>(x, q, first, head_size);

    float4 sums[FOURS] = {};
    float most = -INFINITY, sum = 0;
    for (int key = 0; key <= most_key; key += COLUMNS) {
        float scores[n], greatest = most;
        __syncthreads();
        fetch<COLUMNS>(tile_k, k, key, head_size);
        fetch<COLUMNS>(tile_v, v, key, head_size);
        __syncthreads();
        multiply(scores, x + row * pitch, tile_k, head_size);
#pragma unroll
        for (int i = 0; i < n; i++) {
            scores[i] = key + i * LANES + lane > last_key ? -INFINITY : scores[i] * args.scale;
            greatest = fmaxf(greatest, scores[i]);
        }
        greatest = most_of_row(greatest);
        float factor = exp2f(most - greatest);
        most = greatest;
        sum *= factor;
#pragma unroll
        for (int i = 0; i < n; i++) {
            scores[i] = exp2f(scores[i] - most);
            sum += scores[i];
        }
#pragma unroll
        for (int i = 0; i < FOURS; i++)
            sums[i] = float4{sums[i].x * factor, sums[i].y * factor, sums[i].z * factor,
                             sums[i].w * factor};
        accumulate(sums, scores, tile_v, head_size);
    }
    sum = sum_of_row(sum);
    store(rows_of((T *)args.o, shape, at.sequence, shape.o_stride, at.head, shape.q_length),
          first + row, sums, head_size, 1 / sum);
    size_t out = (size_t)(first + row) * shape.batch + at.sequence;
    if (lane == 0 && first + row < (int)shape.q_length)
        args.lse[out * shape.heads + at.head] = (most + log2f(sum)) * ATTENTION_LN_2;
}

/* ---- Backward ---- */

/* What a row's weights and their gradients are for one tile of columns, as
 * attention_mma_backward.cu says it. */
template <bool QUERIES, int N>
static __device__ __forceinline__ void differentiate(float (&p)[N], float (&ds)[N],
                                                     const struct attention_args &args, int row,
                                                     int column, const float2 *stats)
{
    const struct cm_attention &shape = args.shape;
    column += (int)threadIdx.x % LANES;
#pragma unroll
    for (int i = 0; i < N; i++, column += LANES) {
        int query = QUERIES ? row : column, key = QUERIES ? column : row;
        bool seen = query < (int)shape.q_length && key <= attention_last_key(shape, query);
        float2 of_query = seen ? stats[query] : float2{0, 0};
        p[i] = seen ? exp2f(p[i] * args.scale - of_query.x) : 0;
        ds[i] = p[i] * (ds[i] - of_query.y);
    }
}

/* QUERIES: the rows are queries, and the result is dq; else they are keys. */
template <bool QUERIES, typename T, int THREADS, int COLUMNS, int FOURS>
static __global__
__launch_bounds__(THREADS) void attention_plain_gradients(const struct attention_args args)
{
    CM_DYNAMIC_SHARED(shared);
    const int rows = THREADS / LANES, n = COLUMNS / LANES;
    const struct cm_attention &shape = args.shape;
    int head_size = (int)shape.head_size, pitch = head_size + PAD;
    int group = (int)(shape.heads / shape.kv_heads);
    int tiles = attention_ceil((int)(QUERIES ? shape.q_length : shape.k_length), rows);
    struct attention_place at =
        attention_place_of(shape, tiles, (int)(QUERIES ? shape.heads : shape.kv_heads), QUERIES);
    int kv_head = QUERIES ? at.head / group : at.head;
    int head = QUERIES ? at.head : at.head * group;
    auto k =
        rows_of((const T *)args.k, shape, at.sequence, shape.kv_stride, kv_head, shape.k_length);
    auto v =
        rows_of((const T *)args.v, shape, at.sequence, shape.kv_stride, kv_head, shape.k_length);
    float *x = (float *)shared, *y = x + rows * pitch, *u = y + rows * pitch;
    float *w = u + COLUMNS * pitch;
    int first = at.tile * rows, row = (int)threadIdx.x / LANES;
    float4 sums_p[FOURS] = {}, sums_ds[FOURS] = {};
    for (int end_head = QUERIES ? head + 1 : head + group; head < end_head; head++) {
        auto q =
            rows_of((const T *)args.q, shape, at.sequence, shape.q_stride, head, shape.q_length);
        auto dout =
            rows_of((const T *)args.dout, shape, at.sequence, shape.o_stride, head, shape.q_length);
        const float2 *stats = args.stats + (size_t)(at.sequence * shape.heads + (uint32_t)head) *
                                               attention_stats_pitch(shape);
        int end = (int)shape.q_length;
        if (QUERIES)
            end = attention_span_of(shape, first, rows).most + 1;
        __syncthreads(); /* for the rows of one head, where there is another */
        fetch<rows>(x, QUERIES ? q : k, first, head_size);
        fetch<rows>(y, QUERIES ? dout : v, first, head_size);
        for (int column = 0; column < end; column += COLUMNS) {
            if (!QUERIES && attention_span_of(shape, column, COLUMNS).most < first)
                continue;
            float p[n], ds[n];
            __syncthreads();
            fetch<COLUMNS>(u, QUERIES ? k : q, column, head_size);
            fetch<COLUMNS>(w, QUERIES ? v : dout, column, head_size);
            __syncthreads();
            multiply(p, x + row * pitch, u, head_size);
            multiply(ds, y + row * pitch, w, head_size);
            differentiate<QUERIES>(p, ds, args, first + row, column, stats);
            if (!QUERIES)
                accumulate(sums_p, p, w, head_size);
            accumulate(sums_ds, ds, u, head_size);
        }
    }
    float factor = args.scale * ATTENTION_LN_2;
    if (QUERIES) {
        store(rows_of((T *)args.dq, shape, at.sequence, shape.dq_stride, at.head, shape.q_length),
              first + row, sums_ds, head_size, factor);
    } else {
        store(rows_of((T *)args.dk, shape, at.sequence, shape.dkv_stride, kv_head, shape.k_length),
              first + row, sums_ds, head_size, factor);
        store(rows_of((T *)args.dv, shape, at.sequence, shape.dkv_stride, kv_head, shape.k_length),
              first + row, sums_p, head_size, 1);
    }
}

/* ---- Launch ---- */

enum way { FORWARD, DQ, DKV };

/* Up to 128 elements of a head; up to 256. Their tiles are within the 64 KiB of shared memory that
 * every device since 7.0 has. */
static const struct {
    int threads, columns;
} shapes[] = {{256, 16}, {128, 8}};

#define KERNELS(type, threads, columns, fours)                                                     \
    {                                                                                              \
        attention_plain<type, threads, columns, fours>,                                            \
            attention_plain_gradients<true, type, threads, columns, fours>,                        \
            attention_plain_gradients<false, type, threads, columns, fours>                        \
    }

static int launch(struct CUstream_st *stream, const struct attention_args *args, enum way way)
{
    static void (*const kernels[2][2][3])(const struct attention_args) = {
        {KERNELS(float, 256, 16, 4), KERNELS(float, 128, 8, 8)},
        {KERNELS(uint16_t, 256, 16, 4), KERNELS(uint16_t, 128, 8, 8)},
    };
    const struct cm_attention *shape = &args->shape;
    int large = shape->head_size > 128, rows = shapes[large].threads / LANES;
    int row_tiles = way == FORWARD ? 1 : 2, columns = 2 * shapes[large].columns;
    int shared_bytes = (row_tiles * rows + columns) * ((int)shape->head_size + PAD) * 4;
    void (*kernel)(const struct attention_args) = kernels[shape->dtype == CM_BF16][large][way];
    int count = (int)(way == DKV ? shape->k_length : shape->q_length);
    unsigned blocks = (unsigned)attention_ceil(count, rows) * shape->batch *
                      (way == DKV ? shape->kv_heads : shape->heads);
    int error = cudaFuncSetAttribute((const void *)kernel,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH(kernel, blocks, (unsigned)shapes[large].threads, shared_bytes, stream, *args);
}

int attention_plain_forward(struct CUstream_st *stream, const struct attention_args *args)
{
    return launch(stream, args, FORWARD);
}

int attention_plain_backward(struct CUstream_st *stream, const struct attention_args *args)
{
    int error = launch(stream, args, DQ);
    return error == cudaSuccess ? launch(stream, args, DKV) : error;
}
