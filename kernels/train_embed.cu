/*
 * Embedding and its gradient.
 *
 * The gradient of a row of the table is the sum of the rows of its token, in their order, without
 * atomics: (token, row) pairs are sorted, in tiles by one block each and then by merging runs; then
 * a warp adds up CM_WARP pairs that follow one another, for a part of the columns. What it has of a
 * token that also stands in other warps' pairs goes to scratch, from where a last kernel collects
 * it in order. So a token that is everywhere takes no longer than any other.
 */
#include "clustermark/cuda_train.h"
#include "kernels/train.cuh"

#define TILE    1024 /* pairs that a block sorts */
#define CHUNK   CM_WARP
#define NOBODY  UINT32_MAX /* the token of rows that have no place in this table */
#define NO_PAIR UINT64_MAX

template <typename T> struct embed_job {
    struct cm_embed embed;
    const int32_t *tokens;
    const T *table, *learned, *dout;
    T *out;
    float *dtable, *dlearned;
    uint64_t *pairs[2]; /* token << 32 | row */
    float *parts;       /* [chunk][continues, is continued][columns] */
};

/* Row of the table, or NOBODY. */
static __device__ __forceinline__ uint32_t place_of(const struct cm_embed &embed, int32_t token)
{
    uint32_t place = (uint32_t)token - embed.vocabulary_first;
    return token >= 0 && place < embed.vocabulary_count ? place : NOBODY;
}

static __device__ __forceinline__ uint64_t position_of(const struct cm_positions &positions,
                                                       uint64_t local)
{
    return local < positions.chunk ? positions.first[0] + local
                                   : positions.first[1] + (local - positions.chunk);
}

/* ---- Forward ---- */

template <typename T, int W, bool LEARNED>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    embed_kernel(struct embed_job<T> job)
{
    typedef cm_elements<T, W> elements;
    const int TURN = LEARNED ? 2 : 4;
    struct cm_walk walk = cm_walk_begin((uint32_t)(job.embed.columns / W));
    while (walk.row < job.embed.rows) {
        typename elements::raw got[TURN], more[TURN];
        T *to[TURN];
#pragma unroll
        for (int k = 0; k < TURN; k++, cm_walk_on(&walk)) {
            to[k] = NULL;
            got[k] = typename elements::raw();
            if (walk.row >= job.embed.rows)
                continue;
            uint64_t column = (uint64_t)walk.column * W;
            uint32_t place = place_of(job.embed, job.tokens[walk.row]);
            to[k] = job.out + walk.row * job.embed.columns + column;
            if (place != NOBODY)
                got[k] = cm_load_raw<T, W>(job.table + place * job.embed.columns + column);
            if (!LEARNED)
                continue;
            uint64_t local = (uint32_t)walk.row / job.embed.positions.batch;
            more[k] = cm_load_raw<T, W>(
                job.learned + position_of(job.embed.positions, local) * job.embed.columns + column);
        }
#pragma unroll
        for (int k = 0; k < TURN; k++) {
            if (to[k] == NULL)
                continue;
            float x[W], y[W] = {};
            elements::open(got[k], x);
            if (LEARNED)
                elements::open(more[k], y);
#pragma unroll
            for (int w = 0; w < W; w++)
                x[w] += y[w];
            cm_store<W>(to[k], x);
        }
    }
}

/* ---- Sorting ---- */

/* Bitonic: `size` is that of the sequences which get an order, each thread compares one pair of
 * places a turn. */
template <typename T>
static __global__ void __launch_bounds__(TILE / 2) sort_kernel(struct embed_job<T> job)
{
    __shared__ uint64_t pairs[TILE];
    uint64_t first = (uint64_t)blockIdx.x * TILE;
    for (unsigned i = threadIdx.x; i < TILE; i += TILE / 2) {
        uint64_t row = first + i;
        pairs[i] = row < job.embed.rows ? (uint64_t)place_of(job.embed, job.tokens[row]) << 32 | row
                                        : NO_PAIR;
    }
    for (unsigned size = 2; size <= TILE; size *= 2) {
        for (unsigned apart = size / 2; apart > 0; apart /= 2) {
            __syncthreads();
            unsigned low = threadIdx.x / apart * 2 * apart + threadIdx.x % apart;
            uint64_t a = pairs[low], b = pairs[low + apart];
            bool descends = (low & size) != 0;
            if ((a > b) != descends) {
                pairs[low] = b;
                pairs[low + apart] = a;
            }
        }
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < TILE; i += TILE / 2) {
        if (first + i < job.embed.rows)
            job.pairs[0][first + i] = pairs[i];
    }
}

/* Pairs of a run of `count` that come before `pair`. */
static __device__ __forceinline__ uint64_t rank_in(const uint64_t *run, uint64_t count,
                                                   uint64_t pair)
{
    uint64_t low = 0, high = count;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (run[middle] < pair)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Two runs of `run` pairs each, the last ones maybe shorter or absent, become one. */
static __global__ void __launch_bounds__(CM_THREADS)
    merge_kernel(const uint64_t *from, uint64_t *to, uint64_t count, uint64_t run)
{
    for (uint64_t i = cm_grid_thread(); i < count; i += cm_grid_threads()) {
        uint64_t own = i / run, start = (own ^ 1) * run, both = own / 2 * 2 * run;
        uint64_t others = start >= count ? 0 : count - start < run ? count - start : run;
        uint64_t pair = from[i];
        to[both + (i - own * run) + rank_in(from + start, others, pair)] = pair;
    }
}

/* ---- Gradient of the table ---- */

/* The token of pair `at`, NOBODY beyond the last. */
template <typename T>
static __device__ __forceinline__ uint32_t token_at(const struct embed_job<T> &job, uint64_t at)
{
    return at < job.embed.rows ? (uint32_t)(job.pairs[0][at] >> 32) : NOBODY;
}

/* Puts what a chunk has of a token where it belongs, and zero into `sum`. */
template <typename T, int W>
static __device__ __forceinline__ void settle(const struct embed_job<T> &job, uint64_t chunk,
                                              uint32_t column, uint32_t token, bool continues,
                                              bool is_continued, float (&sum)[W])
{
    uint64_t columns = job.embed.columns;
    float *part = job.parts + (2 * chunk + (continues ? 0 : 1)) * columns + column;
    float *row = job.dtable + token * columns + column;
    if (continues || is_continued) {
        cm_store_floats<W>(part, sum);
    } else {
        float before[W];
        cm_load_floats<W>(row, before);
#pragma unroll
        for (int w = 0; w < W; w++)
            sum[w] += before[w];
        cm_store_floats<W>(row, sum);
    }
#pragma unroll
    for (int w = 0; w < W; w++)
        sum[w] = 0;
}

/* A warp has a chunk of pairs and 32 vectors of columns. */
template <typename T, int W>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    chunk_kernel(struct embed_job<T> job)
{
    typedef cm_elements<T, W> elements;
    const int TURN = 4;
    uint32_t strips = (uint32_t)((job.embed.columns / W + CM_WARP - 1) / CM_WARP);
    uint64_t item = cm_grid_thread() / CM_WARP, chunk = item / strips, first = chunk * CHUNK;
    uint32_t column = ((uint32_t)(item % strips) * CM_WARP + threadIdx.x % CM_WARP) * W;
    if (first >= job.embed.rows || column >= job.embed.columns)
        return;
    uint32_t token = token_at(job, first);
    bool continues = first > 0 && token_at(job, first - 1) == token;
    float sum[W] = {};
    for (unsigned p = 0; p < CHUNK && token != NOBODY; p += TURN) {
        typename elements::raw got[TURN];
        uint32_t next[TURN];
#pragma unroll
        for (unsigned k = 0; k < TURN; k++) {
            uint64_t at = first + p + k;
            next[k] = token_at(job, at + 1);
            got[k] = typename elements::raw();
            if (token_at(job, at) == NOBODY)
                continue;
            uint64_t row = (uint32_t)job.pairs[0][at];
            got[k] = cm_load_raw<T, W>(job.dout + row * job.embed.columns + column);
        }
#pragma unroll
        for (unsigned k = 0; k < TURN; k++) {
            float x[W];
            elements::open(got[k], x);
#pragma unroll
            for (int w = 0; w < W; w++)
                sum[w] += x[w];
            bool ends = p + k + 1 == CHUNK;
            if (token == NOBODY || (next[k] == token && !ends))
                continue;
            settle<T, W>(job, chunk, column, token, continues, next[k] == token, sum);
            continues = false;
            token = next[k];
        }
    }
}

/* Tokens that begin in a chunk and go on in the next. */
template <typename T, int W>
static __global__ void __launch_bounds__(CM_THREADS) collect_kernel(struct embed_job<T> job)
{
    uint64_t columns = job.embed.columns;
    uint64_t chunks = (job.embed.rows + CHUNK - 1) / CHUNK;
    struct cm_walk walk = cm_walk_begin((uint32_t)(columns / W));
    for (; walk.row < chunks; cm_walk_on(&walk)) {
        uint64_t chunk = walk.row, first = chunk * CHUNK;
        uint32_t token = token_at(job, first + CHUNK - 1);
        bool begins =
            token_at(job, first) != token || first == 0 || token_at(job, first - 1) != token;
        if (token == NOBODY || !begins || token_at(job, first + CHUNK) != token)
            continue;
        uint64_t column = (uint64_t)walk.column * W;
        float sum[W], part[W];
        cm_load_floats<W>(job.parts + (2 * chunk + 1) * columns + column, sum);
        while (token_at(job, ++chunk * CHUNK) == token) {
            cm_load_floats<W>(job.parts + 2 * chunk * columns + column, part);
#pragma unroll
            for (int w = 0; w < W; w++)
                sum[w] += part[w];
        }
        cm_load_floats<W>(job.dtable + token * columns + column, part);
#pragma unroll
        for (int w = 0; w < W; w++)
            sum[w] += part[w];
        cm_store_floats<W>(job.dtable + token * columns + column, sum);
    }
}

/* ---- Gradient of learned positions ---- */

template <typename T, int W>
static __global__ void __launch_bounds__(CM_THREADS) learned_kernel(struct embed_job<T> job)
{
    uint64_t columns = job.embed.columns;
    uint32_t batch = job.embed.positions.batch;
    struct cm_walk walk = cm_walk_begin((uint32_t)(columns / W));
    for (; walk.row < job.embed.rows / batch; cm_walk_on(&walk)) {
        uint64_t column = (uint64_t)walk.column * W;
        float *to = job.dlearned + position_of(job.embed.positions, walk.row) * columns + column;
        const T *from = job.dout + walk.row * batch * columns + column;
        float sum[W] = {}, x[W];
#pragma unroll 4
        for (uint32_t b = 0; b < batch; b++) {
            cm_load<W>(from + b * columns, x);
#pragma unroll
            for (int w = 0; w < W; w++)
                sum[w] += x[w];
        }
        cm_load_floats<W>(to, x);
#pragma unroll
        for (int w = 0; w < W; w++)
            sum[w] += x[w];
        cm_store_floats<W>(to, sum);
    }
}

/* ---- Kernel launchers ---- */

template <typename T>
static struct embed_job<T> job_of(const struct cm_embed *embed, const int32_t *tokens) {
    struct embed_job<T> job = {
    };
    job.embed = *embed;
    job.tokens = tokens;
    return job;
}

/* job->pairs[0] is then in order. */
template <typename T>
static int sort(cudaStream_t stream, struct embed_job<T> *job)
{
    uint64_t rows = job->embed.rows;
    unsigned blocks;
    int error = cm_stream_grid(rows, &blocks);
    if (error == cudaSuccess)
        error = CM_LAUNCH(sort_kernel<T>, (unsigned)((rows + TILE - 1) / TILE), TILE / 2, 0, stream,
                          *job);
    for (uint64_t run = TILE; run < rows && error == cudaSuccess; run *= 2) {
        error = CM_LAUNCH(merge_kernel, blocks, CM_THREADS, 0, stream, job->pairs[0], job->pairs[1],
                          rows, run);
        uint64_t *sorted = job->pairs[1];
        job->pairs[1] = job->pairs[0];
        job->pairs[0] = sorted;
    }
    return error;
}

template <typename T, int W>
static int launch_backward(cudaStream_t stream, struct embed_job<T> job)
{
    uint64_t rows = job.embed.rows, chunks = (rows + CHUNK - 1) / CHUNK;
    uint64_t vectors = job.embed.columns / W, strips = (vectors + CM_WARP - 1) / CM_WARP;
    unsigned blocks;
    int error = sort(stream, &job);
    if (error == cudaSuccess)
        error =
            CM_LAUNCH((chunk_kernel<T, W>), (unsigned)((chunks * strips + CM_WARPS - 1) / CM_WARPS),
                      CM_THREADS, 0, stream, job);
    if (error == cudaSuccess)
        error = cm_stream_grid(chunks * vectors, &blocks);
    if (error == cudaSuccess)
        error = CM_LAUNCH((collect_kernel<T, W>), blocks, CM_THREADS, 0, stream, job);
    if (job.dlearned == NULL || error != cudaSuccess)
        return error;
    error = cm_stream_grid(rows / job.embed.positions.batch * vectors, &blocks);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH((learned_kernel<T, W>), blocks, CM_THREADS, 0, stream, job);
}

template <typename T, int W>
static int launch_forward(cudaStream_t stream, const struct embed_job<T> &job)
{
    unsigned blocks;
    int error = cm_stream_grid(job.embed.rows * (job.embed.columns / W), &blocks);
    if (error != cudaSuccess)
        return error;
    if (job.learned != NULL)
        return CM_LAUNCH((embed_kernel<T, W, true>), blocks, CM_THREADS, 0, stream, job);
    return CM_LAUNCH((embed_kernel<T, W, false>), blocks, CM_THREADS, 0, stream, job);
}

static bool has_kernel(const struct cm_embed *embed)
{
    return embed->rows <= INT32_MAX && embed->columns <= INT32_MAX &&
           embed->rows / CHUNK * embed->columns <= INT32_MAX * (uint64_t)CM_THREADS;
}

template <typename T>
static int any_forward(cudaStream_t stream, const struct cm_embed *embed, const int32_t *tokens,
                       const void *table, const void *learned, void *out)
{
    struct embed_job<T> job = job_of<T>(embed, tokens);
    job.table = (const T *)table;
    job.learned = (const T *)learned;
    job.out = (T *)out;
    if (embed->columns % cm_wide<T>::value == 0)
        return launch_forward<T, cm_wide<T>::value>(stream, job);
    return launch_forward<T, 1>(stream, job);
}

int cm_cuda_embed(cudaStream_t stream, const struct cm_embed *embed, const int32_t *tokens,
                  const void *table, const void *learned, void *out)
{
    if (!has_kernel(embed))
        return cudaErrorInvalidValue;
    if (embed->rows == 0 || embed->columns == 0)
        return cudaSuccess;
    if (embed->dtype == CM_F32)
        return any_forward<float>(stream, embed, tokens, table, learned, out);
    if (embed->dtype == CM_BF16)
        return any_forward<cm_bf16>(stream, embed, tokens, table, learned, out);
    return cudaErrorInvalidValue;
}

template <typename T>
static int any_backward(cudaStream_t stream, const struct cm_embed *embed, const int32_t *tokens,
                        const void *dout, float *dtable, float *dlearned, void *scratch)
{
    struct embed_job<T> job = job_of<T>(embed, tokens);
    uint64_t places = (embed->rows + 1) / 2 * 2; /* so that parts are aligned */
    job.dout = (const T *)dout;
    job.dtable = dtable;
    job.dlearned = dlearned;
    job.pairs[0] = (uint64_t *)scratch;
    job.pairs[1] = job.pairs[0] + places;
    job.parts = (float *)(job.pairs[1] + places);
    if (embed->columns % cm_wide<T>::value == 0)
        return launch_backward<T, cm_wide<T>::value>(stream, job);
    return launch_backward<T, 1>(stream, job);
}

int cm_cuda_embed_backward(cudaStream_t stream, const struct cm_embed *embed, const int32_t *tokens,
                           const void *dout, float *dtable, float *dlearned, void *scratch)
{
    if (!has_kernel(embed))
        return cudaErrorInvalidValue;
    if (embed->rows == 0 || embed->columns == 0)
        return cudaSuccess;
    if (embed->dtype == CM_F32)
        return any_backward<float>(stream, embed, tokens, dout, dtable, dlearned, scratch);
    if (embed->dtype == CM_BF16)
        return any_backward<cm_bf16>(stream, embed, tokens, dout, dtable, dlearned, scratch);
    return cudaErrorInvalidValue;
}
