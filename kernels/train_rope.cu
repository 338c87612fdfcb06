/*
 * Rotary positions, in place.
 *
 * A thread has the same few pairs of four heads of a row, so that it works out their angles once.
 * Angles are counted in turns, in double: what is left after the whole turns is exact for any
 * position.
 */
#include <math.h>

#include "clustermark/cuda_train.h"
#include "kernels/train.cuh"

#define PAIRS_MAX 256 /* of a head */
#define HEADS     4   /* of a thread */

template <typename T> struct rope_job {
    T *rows;
    uint64_t row_count, stride;
    uint32_t heads, half; /* half: elements of half a head */
    struct cm_positions positions;
    double turns[PAIRS_MAX]; /* of pair i from one position to the next; negative: backward */
};

/* Cosines and sines of the pairs from `pair` on. */
template <typename T, int W>
static __device__ __forceinline__ void angles(const struct rope_job<T> &job, uint64_t row,
                                              uint32_t pair, float (&cosine)[W], float (&sine)[W])
{
    uint32_t place = (uint32_t)row / job.positions.batch;
    double position = place < job.positions.chunk
                          ? job.positions.first[0] + place
                          : job.positions.first[1] + (place - job.positions.chunk);
#pragma unroll
    for (int w = 0; w < W; w++) {
        double turns = position * job.turns[pair + w];
        sincospif(2 * (float)(turns - rint(turns)), &sine[w], &cosine[w]);
    }
}

template <typename T, int W>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF / 2)
    rope_kernel(const __grid_constant__ struct rope_job<T> job)
{
    typedef cm_elements<T, W> elements;
    const int TURN = 2;
    uint32_t pairs = job.half / W, groups = (job.heads + HEADS - 1) / HEADS;
    struct cm_walk walk = cm_walk_begin(groups * pairs);
    for (; walk.row < job.row_count; cm_walk_on(&walk)) {
        uint32_t head = walk.column / pairs * HEADS, pair = walk.column % pairs * W;
        int heads = (int)min((uint32_t)HEADS, job.heads - head);
        T *at = job.rows + walk.row * job.stride + (uint64_t)head * 2 * job.half + pair;
        float cosine[W], sine[W];
        angles<T, W>(job, walk.row, pair, cosine, sine);
#pragma unroll
        for (int h = 0; h < HEADS; h += TURN) {
            typename elements::raw got[TURN][2];
#pragma unroll
            for (int k = 0; k < TURN; k++) {
                if (h + k >= heads)
                    continue;
                got[k][0] = cm_load_raw<T, W>(at + (h + k) * 2 * job.half);
                got[k][1] = cm_load_raw<T, W>(at + (h + k) * 2 * job.half + job.half);
            }
#pragma unroll
            for (int k = 0; k < TURN; k++) {
                if (h + k >= heads)
                    continue;
                float x[W], y[W];
                elements::open(got[k][0], x);
                elements::open(got[k][1], y);
#pragma unroll
                for (int w = 0; w < W; w++) {
                    float turned = x[w] * cosine[w] - y[w] * sine[w];
                    y[w] = x[w] * sine[w] + y[w] * cosine[w];
                    x[w] = turned;
                }
                cm_store<W>(at + (h + k) * 2 * job.half, x);
                cm_store<W>(at + (h + k) * 2 * job.half + job.half, y);
            }
        }
    }
}

/* ---- Kernel launcher ---- */

template <typename T, int W> static int launch(cudaStream_t stream, const struct rope_job<T> &job)
{
    unsigned blocks;
    uint64_t groups = (job.heads + HEADS - 1) / HEADS;
    int error = cm_stream_grid(job.row_count * groups * (job.half / W), &blocks);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH((rope_kernel<T, W>), blocks, CM_THREADS, 0, stream, job);
}

template <typename T> static int any(cudaStream_t stream, const struct cm_rope *rope, void *rows)
{
    const double turn = 6.283185307179586477;
    struct rope_job<T> job = {
    };
    job.rows = (T *)rows;
    job.row_count = rope->rows;
    job.stride = rope->stride;
    job.heads = rope->heads;
    job.half = rope->head_size / 2;
    job.positions = rope->positions;
    for (uint32_t i = 0; i < job.half; i++) {
        double turns = pow((double)rope->base, -2.0 * i / rope->head_size) / turn;
        job.turns[i] = rope->backward ? -turns : turns;
    }
    if (job.half % cm_wide<T>::value == 0 && job.stride % cm_wide<T>::value == 0)
        return launch<T, cm_wide<T>::value>(stream, job);
    return launch<T, 1>(stream, job);
}

int cm_cuda_rope(cudaStream_t stream, const struct cm_rope *rope, void *rows)
{
    if (rope->head_size == 0 || rope->head_size % 2 != 0 || rope->head_size > 2 * PAIRS_MAX ||
        rope->rows > UINT32_MAX)
        return cudaErrorInvalidValue;
    if (rope->rows == 0 || rope->heads == 0)
        return cudaSuccess;
    if (rope->dtype == CM_F32)
        return any<float>(stream, rope, rows);
    if (rope->dtype == CM_BF16)
        return any<cm_bf16>(stream, rope, rows);
    return cudaErrorInvalidValue;
}
