/*
 * Numbers in 8 bits with one scale for all of them. Three launches: the largest magnitude is set to
 * 0; every thread finds that of what it reads, and blocks meet by atomicMax, whose result no order
 * changes; then each number is multiplied and rounded.
 *
 * Transposed, a block takes tiles of 64 rows and columns: it reads 8 numbers in a row at once and
 * writes 16 bytes of a column, over shared memory whose lines are a word longer than a tile.
 */
#include "clustermark/cuda_train.h"
#include "kernels/round.cuh"
#include "kernels/train.cuh"

#define LEAST 0x1p-100f /* below it, all counts as 0 */
#define WIDTH 8         /* numbers that a thread reads at once */
#define TILE  64
#define LINE  (TILE + 4)

struct quantise_job {
    const void *from;
    uint8_t *to;
    struct cm_quantised *known;
    uint64_t rows, columns, batch;
};

static __device__ __forceinline__ void load_8(const float *from, float (&x)[WIDTH])
{
    cm_load_floats<WIDTH>(from, x);
}
static __device__ __forceinline__ void load_8(const cm_bf16 *from, float (&x)[WIDTH])
{
    cm_load<WIDTH>(from, x);
}
static __device__ __forceinline__ float load_1(const float *from)
{
    return *from;
}
static __device__ __forceinline__ float load_1(const cm_bf16 *from)
{
    return cm_bf16_low(*from);
}

static __global__ void clear_kernel(struct cm_quantised *known)
{
    known->largest = 0;
}

/* As bits: those of larger magnitudes are larger, and those of a NAN larger than all. */
template <typename T>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    largest_kernel(struct quantise_job job)
{
    __shared__ unsigned most;
    const T *from = (const T *)job.from;
    uint64_t count = job.rows * job.columns * job.batch, step = cm_grid_threads();
    unsigned own = 0;
    if (threadIdx.x == 0)
        most = 0;
    __syncthreads();
    for (uint64_t i = cm_grid_thread(); i < count / WIDTH; i += 2 * step) {
        float x[WIDTH], y[WIDTH];
        uint64_t other = i + step < count / WIDTH ? i + step : i;
        load_8(from + i * WIDTH, x);
        load_8(from + other * WIDTH, y);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
            own = max(own, __float_as_uint(x[k]) & 0x7fffffff);
            own = max(own, __float_as_uint(y[k]) & 0x7fffffff);
        }
    }
    for (uint64_t i = count / WIDTH * WIDTH + cm_grid_thread(); i < count; i += step)
        own = max(own, __float_as_uint(load_1(from + i)) & 0x7fffffff);
    atomicMax(&most, own);
    __syncthreads();
    if (threadIdx.x == 0)
        atomicMax((unsigned *)&job.known->largest, most);
}

/* ---- one number, and neighbours ---- */

struct e4m3 {
    static const int MOST = 448;
    static __device__ __forceinline__ unsigned of(float x)
    {
        return cm_round_to<3, 7, 0x7e>(x, 0x80);
    }
};
struct e5m2 {
    static const int MOST = 57344;
    static __device__ __forceinline__ unsigned of(float x)
    {
        return cm_round_to<2, 15, 0x7b>(x, 0x80);
    }
};

/* Two, of which `low` lies first in memory. */
template <typename F> static __device__ __forceinline__ unsigned pair(float low, float high)
{
    return F::of(low) | F::of(high) << 8;
}
#if !defined(CM_SIMT) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
template <> __device__ __forceinline__ unsigned pair<e4m3>(float low, float high)
{
    uint16_t both;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(both) : "f"(high), "f"(low));
    return both;
}
template <> __device__ __forceinline__ unsigned pair<e5m2>(float low, float high)
{
    uint16_t both;
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(both) : "f"(high), "f"(low));
    return both;
}
#endif

/* What to multiply by; the first thread leaves what to multiply by to come back. */
template <typename F>
static __device__ __forceinline__ float take_factor(struct cm_quantised *known)
{
    float largest = known->largest;
    bool none = largest < LEAST;
    if (cm_grid_thread() == 0)
        known->scale = none ? 1 : largest / F::MOST;
    return none ? 1 : F::MOST / largest;
}

template <typename T, typename F>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    straight_kernel(struct quantise_job job)
{
    const T *from = (const T *)job.from;
    uint64_t count = job.rows * job.columns * job.batch, step = cm_grid_threads();
    float factor = take_factor<F>(job.known);
    for (uint64_t i = cm_grid_thread(); i < count / WIDTH; i += step) {
        float x[WIDTH];
        load_8(from + i * WIDTH, x);
#pragma unroll
        for (int k = 0; k < WIDTH; k++)
            x[k] *= factor;
        uint2 all = make_uint2(pair<F>(x[0], x[1]) | pair<F>(x[2], x[3]) << 16,
                               pair<F>(x[4], x[5]) | pair<F>(x[6], x[7]) << 16);
        *(uint2 *)(job.to + i * WIDTH) = all;
    }
    for (uint64_t i = count / WIDTH * WIDTH + cm_grid_thread(); i < count; i += step)
        job.to[i] = (uint8_t)F::of(load_1(from + i) * factor);
}

/* ---- transposed ---- */

/* A tile's place: the matrix, and its first row and column. */
struct tile {
    uint64_t matrix, row, column;
};

static __device__ __forceinline__ struct tile tile_of(const struct quantise_job &job,
                                                      uint64_t index)
{
    uint64_t across = (job.columns + TILE - 1) / TILE, down = (job.rows + TILE - 1) / TILE;
    struct tile tile;
    tile.matrix = index / (across * down) * job.rows * job.columns;
    tile.row = index / across % down * TILE;
    tile.column = index % across * TILE;
    return tile;
}

template <typename T, typename F>
static __device__ __forceinline__ void read_tile(const struct quantise_job &job,
                                                 const struct tile &tile, float factor,
                                                 uint8_t (&bytes)[TILE][LINE])
{
    const int PER_ROW = TILE / WIDTH;
    const T *from = (const T *)job.from + tile.matrix;
#pragma unroll
    for (int turn = 0; turn < TILE * PER_ROW / CM_THREADS; turn++) {
        unsigned at = turn * CM_THREADS + threadIdx.x;
        unsigned r = at / PER_ROW, c = at % PER_ROW * WIDTH;
        uint64_t row = tile.row + r, column = tile.column + c;
        float x[WIDTH] = {};
        if (row < job.rows && column + WIDTH <= job.columns && job.columns % WIDTH == 0) {
            load_8(from + row * job.columns + column, x);
        } else if (row < job.rows) {
            for (int k = 0; k < WIDTH; k++)
                if (column + k < job.columns)
                    x[k] = load_1(from + row * job.columns + column + k);
        }
#pragma unroll
        for (int k = 0; k < WIDTH; k += 2) {
            unsigned both = pair<F>(x[k] * factor, x[k + 1] * factor);
            bytes[c + k][r] = (uint8_t)both;
            bytes[c + k + 1][r] = (uint8_t)(both >> 8);
        }
    }
}

static __device__ __forceinline__ void write_tile(const struct quantise_job &job,
                                                  const struct tile &tile,
                                                  const uint8_t (&bytes)[TILE][LINE])
{
    const int PER_LINE = TILE / 16;
    unsigned c = threadIdx.x / PER_LINE, r = threadIdx.x % PER_LINE * 16;
    uint64_t row = tile.row + r, column = tile.column + c;
    if (column >= job.columns || row >= job.rows)
        return;
    uint8_t *to = job.to + tile.matrix + column * job.rows + row;
    const unsigned *words = (const unsigned *)&bytes[c][r];
    if (job.rows % 16 == 0) {
        *(uint4 *)to = make_uint4(words[0], words[1], words[2], words[3]);
        return;
    }
    for (unsigned k = 0; k < 16 && row + k < job.rows; k++)
        to[k] = bytes[c][r + k];
}

template <typename T, typename F>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    transpose_kernel(struct quantise_job job)
{
    __shared__ __align__(16) uint8_t bytes[TILE][LINE];
    uint64_t tiles = (job.columns + TILE - 1) / TILE * ((job.rows + TILE - 1) / TILE) * job.batch;
    float factor = take_factor<F>(job.known);
    for (uint64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
        struct tile tile = tile_of(job, index);
        read_tile<T, F>(job, tile, factor, bytes);
        __syncthreads();
        write_tile(job, tile, bytes);
        __syncthreads();
    }
}

/* ---- launchers ---- */

template <typename T, typename F>
static int launch(cudaStream_t stream, const struct quantise_job &job, bool transpose)
{
    uint64_t count = job.rows * job.columns * job.batch;
    uint64_t tiles = (job.columns + TILE - 1) / TILE * ((job.rows + TILE - 1) / TILE) * job.batch;
    unsigned read_blocks, write_blocks;
    int error = cm_stream_grid(count / WIDTH, &read_blocks);
    if (error == cudaSuccess)
        error = cm_stream_grid(transpose ? tiles * CM_THREADS : count / WIDTH, &write_blocks);
    if (error == cudaSuccess)
        error = CM_LAUNCH(clear_kernel, 1, 1, 0, stream, job.known);
    if (error == cudaSuccess)
        error = CM_LAUNCH(largest_kernel<T>, read_blocks, CM_THREADS, 0, stream, job);
    if (error != cudaSuccess)
        return error;
    if (transpose)
        return CM_LAUNCH((transpose_kernel<T, F>), write_blocks, CM_THREADS, 0, stream, job);
    return CM_LAUNCH((straight_kernel<T, F>), write_blocks, CM_THREADS, 0, stream, job);
}

template <typename T>
static int launch_from(cudaStream_t stream, const struct quantise_job &job,
                       const struct cm_quantise *quantise)
{
    if (quantise->to == CM_F8E4M3)
        return launch<T, e4m3>(stream, job, quantise->transpose);
    if (quantise->to == CM_F8E5M2)
        return launch<T, e5m2>(stream, job, quantise->transpose);
    return cudaErrorInvalidValue;
}

int cm_cuda_quantise(cudaStream_t stream, const struct cm_quantise *quantise, const void *from,
                     void *to, struct cm_quantised *known)
{
    struct quantise_job job = {};
    job.from = from;
    job.to = (uint8_t *)to;
    job.known = known;
    job.rows = quantise->rows;
    job.columns = quantise->columns;
    job.batch = quantise->batch;
    if (quantise->from == CM_F32)
        return launch_from<float>(stream, job, quantise);
    if (quantise->from == CM_BF16)
        return launch_from<cm_bf16>(stream, job, quantise);
    return cudaErrorInvalidValue;
}
