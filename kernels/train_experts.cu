/*
 * Mixture of experts: which expert gets which token, and the tokens' way there and back.
 *
 * Places in an expert's queue are counts of the rows before: each tile of rows counts by expert, a
 * scan over the tiles gives each its start, and then each tile numbers its own. Rows move by the
 * inverse of the slots, so that each row that is written is written once.
 */
#include "clustermark/cuda_train.h"
#include "kernels/train.cuh"

#define EXPERTS_MAX 256
#define TOP_K_MAX   8
#define TILE        128 /* rows; cm_route_scratch_bytes knows it */
#define SHARE       (EXPERTS_MAX / CM_WARP)

struct route_job {
    const float *logits;
    int32_t *slot, *expert;
    float *weight;
    uint32_t *counts, *tile_counts; /* tile_counts: [expert][tile], then the counts before */
    uint64_t rows, capacity;
    uint32_t experts, top_k, tiles;
};

/* ---- Choice ---- */

/* The best of a warp's values: the larger, or of equal ones the one before. Every lane gets it. */
static __device__ __forceinline__ void best_of_warp(float *value, uint32_t *index)
{
#pragma unroll
    for (int lanes = CM_WARP / 2; lanes > 0; lanes /= 2) {
        float other = __shfl_xor_sync(CM_LANES, *value, lanes);
        uint32_t at = __shfl_xor_sync(CM_LANES, *index, lanes);
        if (other > *value || (other == *value && at < *index)) {
            *value = other;
            *index = at;
        }
    }
}

/* A warp's row: lane j gets choice j. A NAN counts as -inf, so that all lanes agree. */
static __device__ __forceinline__ void choose(const struct route_job &job, uint64_t row,
                                              uint32_t *expert, float *logit)
{
    unsigned lane = threadIdx.x % CM_WARP;
    const float none = __uint_as_float(0xff800000u);
    float left[SHARE];
#pragma unroll
    for (int s = 0; s < SHARE; s++) {
        uint32_t e = s * CM_WARP + lane;
        left[s] = e < job.experts ? fmaxf(job.logits[row * job.experts + e], none) : none;
    }
    uint32_t taken = 0; /* bit s: left[s] has been chosen, or is none */
    for (uint32_t j = 0; j < job.top_k; j++) {
        float value = none;
        uint32_t index = UINT32_MAX;
#pragma unroll
        for (int s = 0; s < SHARE; s++) {
            uint32_t e = s * CM_WARP + lane;
            if (e < job.experts && !(taken >> s & 1) && (index == UINT32_MAX || left[s] > value)) {
                value = left[s];
                index = e;
            }
        }
        best_of_warp(&value, &index);
        if (index % CM_WARP == lane)
            taken |= 1u << index / CM_WARP;
        if (lane == j) {
            *expert = index;
            *logit = value;
        }
    }
}

static __global__ void __launch_bounds__(CM_THREADS) choose_kernel(struct route_job job)
{
    __shared__ uint32_t counts[EXPERTS_MAX];
    unsigned lane = threadIdx.x % CM_WARP;
    counts[threadIdx.x] = 0;
    __syncthreads();
    uint64_t first = (uint64_t)blockIdx.x * TILE;
    for (unsigned i = threadIdx.x / CM_WARP; i < TILE && first + i < job.rows; i += CM_WARPS) {
        uint64_t at = (first + i) * job.top_k + lane;
        uint32_t expert = 0;
        float logit = 0;
        choose(job, first + i, &expert, &logit);
        float best = __shfl_sync(CM_LANES, logit, 0);
        float part = lane < job.top_k ? cm_exp2(CM_LOG2_E * (logit - best)) : 0;
        float sum = cm_warp_sum(part);
        if (lane < job.top_k) {
            job.expert[at] = (int32_t)expert;
            job.weight[at] = part / sum;
            atomicAdd(&counts[expert], 1u);
        }
    }
    __syncthreads();
    if (threadIdx.x < job.experts)
        job.tile_counts[(uint64_t)threadIdx.x * job.tiles + blockIdx.x] = counts[threadIdx.x];
}

/* ---- Places ---- */

/* A warp has an expert: each tile's count becomes the sum of those before. */
static __global__ void __launch_bounds__(CM_THREADS) scan_kernel(struct route_job job)
{
    unsigned lane = threadIdx.x % CM_WARP;
    uint32_t expert = blockIdx.x * CM_WARPS + threadIdx.x / CM_WARP, before = 0;
    if (expert >= job.experts)
        return;
    uint32_t *counts = job.tile_counts + (uint64_t)expert * job.tiles;
    for (uint32_t first = 0; first < job.tiles; first += CM_WARP) {
        uint32_t own = first + lane < job.tiles ? counts[first + lane] : 0, sum = own;
#pragma unroll
        for (unsigned lanes = 1; lanes < CM_WARP; lanes *= 2) {
            uint32_t other = __shfl_up_sync(CM_LANES, sum, lanes);
            sum += lane >= lanes ? other : 0;
        }
        if (first + lane < job.tiles)
            counts[first + lane] = before + sum - own;
        before += __shfl_sync(CM_LANES, sum, CM_WARP - 1);
    }
    if (lane == 0)
        job.counts[expert] = before;
}

/* A thread has an expert and goes through the tile's choices. */
static __global__ void __launch_bounds__(CM_THREADS) place_kernel(struct route_job job)
{
    __shared__ int32_t choices[TILE * TOP_K_MAX];
    uint64_t first = (uint64_t)blockIdx.x * TILE;
    uint64_t rows = job.rows - first < TILE ? job.rows - first : TILE;
    unsigned count = (unsigned)rows * job.top_k;
    for (unsigned i = threadIdx.x; i < count; i += CM_THREADS)
        choices[i] = job.expert[first * job.top_k + i];
    __syncthreads();
    if (threadIdx.x >= job.experts)
        return;
    uint64_t place = job.tile_counts[(uint64_t)threadIdx.x * job.tiles + blockIdx.x];
#pragma unroll 8
    for (unsigned i = 0; i < count; i++) {
        if (choices[i] != (int32_t)threadIdx.x)
            continue;
        bool fits = place < job.capacity;
        job.slot[first * job.top_k + i] = fits ? (int32_t)(threadIdx.x * job.capacity + place) : -1;
        place++;
    }
}

/* ---- Gradient of the choice ---- */

struct route_backward_job {
    const int32_t *expert;
    const float *weight, *dweight;
    float *dlogits;
    uint64_t rows;
    uint32_t experts, top_k;
};

static __global__ void __launch_bounds__(CM_THREADS)
    route_backward_kernel(struct route_backward_job job)
{
    struct cm_walk walk = cm_walk_begin(job.experts);
    for (; walk.row < job.rows; cm_walk_on(&walk)) {
        uint64_t first = walk.row * job.top_k;
        float mean = 0, weight = 0, own = 0;
        for (uint32_t j = 0; j < job.top_k; j++) {
            float part = job.weight[first + j], slope = job.dweight[first + j];
            mean += part * slope;
            if (job.expert[first + j] == (int32_t)walk.column) {
                weight = part;
                own = slope;
            }
        }
        job.dlogits[walk.row * job.experts + walk.column] = weight * (own - mean);
    }
}

/* ---- Moving rows ---- */

template <typename T> struct move_job {
    const T *rows_in, *slots_in; /* in the order of rows, of slots */
    T *out;
    const int32_t *slot;
    const float *weight;
    float *dweight;
    int32_t *choice_of; /* of each slot: row * top_k + rank, or -1 */
    uint64_t rows, columns, slots;
    uint32_t top_k;
};

static __global__ void __launch_bounds__(CM_THREADS)
    clear_kernel(int32_t *choice_of, uint64_t slots)
{
    for (uint64_t i = cm_grid_thread(); i < slots; i += cm_grid_threads())
        choice_of[i] = -1;
}

/* dweight NULL: not wanted. */
static __global__ void __launch_bounds__(CM_THREADS)
    invert_kernel(const int32_t *slot, uint64_t choices, int32_t *choice_of, float *dweight)
{
    for (uint64_t i = cm_grid_thread(); i < choices; i += cm_grid_threads()) {
        if (slot[i] >= 0)
            choice_of[slot[i]] = (int32_t)i;
        else if (dweight != NULL)
            dweight[i] = 0;
    }
}

template <typename T, int W>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    permute_kernel(struct move_job<T> job)
{
    typedef typename cm_elements<T, W>::raw raw;
    const int TURN = 4;
    struct cm_walk walk = cm_walk_begin((uint32_t)(job.columns / W));
    while (walk.row < job.slots) {
        raw got[TURN];
        raw *to[TURN];
#pragma unroll
        for (int k = 0; k < TURN; k++, cm_walk_on(&walk)) {
            to[k] = NULL;
            got[k] = raw();
            if (walk.row >= job.slots)
                continue;
            int32_t choice = job.choice_of[walk.row];
            to[k] = (raw *)(job.out + walk.row * job.columns + walk.column * W);
            if (choice >= 0)
                got[k] = cm_load_raw<T, W>(
                    job.rows_in + (uint32_t)choice / job.top_k * job.columns + walk.column * W);
        }
#pragma unroll
        for (int k = 0; k < TURN; k++) {
            if (to[k] != NULL)
                *to[k] = got[k];
        }
    }
}

template <typename T, int W>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    unpermute_kernel(struct move_job<T> job)
{
    typedef cm_elements<T, W> elements;
    const int TURN = 4;
    struct cm_walk walk = cm_walk_begin((uint32_t)(job.columns / W));
    for (; walk.row < job.rows; cm_walk_on(&walk)) {
        float sum[W] = {};
        for (uint32_t j = 0; j < job.top_k; j += TURN) {
            typename elements::raw got[TURN];
            float weight[TURN];
#pragma unroll
            for (int k = 0; k < TURN; k++) {
                uint64_t choice = walk.row * job.top_k + j + k;
                int32_t slot = j + k < job.top_k ? job.slot[choice] : -1;
                weight[k] = 0;
                got[k] = typename elements::raw();
                if (slot < 0)
                    continue;
                weight[k] = job.weight == NULL ? 1 : job.weight[choice];
                got[k] = cm_load_raw<T, W>(job.slots_in + slot * job.columns + walk.column * W);
            }
#pragma unroll
            for (int k = 0; k < TURN; k++) {
                float x[W];
                elements::open(got[k], x);
#pragma unroll
                for (int w = 0; w < W; w++)
                    sum[w] += weight[k] * x[w];
            }
        }
        cm_store<W>(job.out + walk.row * job.columns + walk.column * W, sum);
    }
}

/* A warp has a slot. */
template <typename T, int W>
static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT_HALF)
    unpermute_backward_kernel(struct move_job<T> job)
{
    typedef cm_elements<T, W> elements;
    const int TURN = 2;
    uint32_t vectors = (uint32_t)(job.columns / W), lane = threadIdx.x % CM_WARP;
    uint64_t warps = cm_grid_threads() / CM_WARP;
    for (uint64_t slot = cm_grid_thread() / CM_WARP; slot < job.slots; slot += warps) {
        int32_t choice = job.choice_of[slot];
        float sum = 0, weight = choice >= 0 ? job.weight[choice] : 0;
        const T *from = job.rows_in;
        if (choice >= 0)
            from += (uint32_t)choice / job.top_k * job.columns;
        for (uint32_t i = lane; i < vectors; i += TURN * CM_WARP) {
            typename elements::raw dout[TURN], x[TURN];
#pragma unroll
            for (int k = 0; k < TURN; k++) {
                uint64_t at = (i + k * CM_WARP) * (uint64_t)W;
                dout[k] = x[k] = typename elements::raw();
                if (choice < 0 || i + k * CM_WARP >= vectors)
                    continue;
                dout[k] = cm_load_raw<T, W>(from + at);
                x[k] = cm_load_raw<T, W>(job.slots_in + slot * job.columns + at);
            }
#pragma unroll
            for (int k = 0; k < TURN; k++) {
                float d[W], y[W];
                elements::open(dout[k], d);
                elements::open(x[k], y);
#pragma unroll
                for (int w = 0; w < W; w++) {
                    sum += d[w] * y[w];
                    d[w] *= weight;
                }
                if (i + k * CM_WARP < vectors)
                    cm_store<W>(job.out + slot * job.columns + (i + k * CM_WARP) * (uint64_t)W, d);
            }
        }
        sum = cm_warp_sum(sum);
        if (lane == 0 && choice >= 0)
            job.dweight[choice] = sum;
    }
}

/* ---- Kernel launchers ---- */

static bool has_kernel(const struct cm_route *route)
{
    return route->experts > 0 && route->experts <= EXPERTS_MAX && route->top_k > 0 &&
           route->top_k <= TOP_K_MAX && route->top_k <= route->experts &&
           route->rows * route->top_k <= INT32_MAX &&
           route->experts * route->capacity <= INT32_MAX && route->columns <= INT32_MAX;
}

int cm_cuda_route(cudaStream_t stream, const struct cm_route *route, const float *logits,
                  int32_t *slot, int32_t *expert, float *weight, uint32_t *counts, void *scratch)
{
    if (!has_kernel(route))
        return cudaErrorInvalidValue;
    struct route_job job = {logits,
                            slot,
                            expert,
                            weight,
                            counts,
                            (uint32_t *)scratch,
                            route->rows,
                            route->capacity,
                            route->experts,
                            route->top_k,
                            (uint32_t)((route->rows + TILE - 1) / TILE)};
    int error = cudaSuccess;
    if (job.tiles > 0)
        error = CM_LAUNCH(choose_kernel, job.tiles, CM_THREADS, 0, stream, job);
    if (error == cudaSuccess)
        error = CM_LAUNCH(scan_kernel, (job.experts + CM_WARPS - 1) / CM_WARPS, CM_THREADS, 0,
                          stream, job);
    if (error == cudaSuccess && job.tiles > 0)
        error = CM_LAUNCH(place_kernel, job.tiles, CM_THREADS, 0, stream, job);
    return error;
}

int cm_cuda_route_backward(cudaStream_t stream, const struct cm_route *route, const int32_t *expert,
                           const float *weight, const float *dweight, float *dlogits)
{
    struct route_backward_job job = {expert,      weight,         dweight,     dlogits,
                                     route->rows, route->experts, route->top_k};
    unsigned blocks;
    if (!has_kernel(route))
        return cudaErrorInvalidValue;
    if (job.rows == 0)
        return cudaSuccess;
    int error = cm_stream_grid(job.rows * job.experts, &blocks);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH(route_backward_kernel, blocks, CM_THREADS, 0, stream, job);
}

/* choice_of, and zeros in the dweight of what was dropped. */
static int invert(cudaStream_t stream, const struct cm_route *route, const int32_t *slot,
                  int32_t *choice_of, float *dweight)
{
    uint64_t slots = route->experts * route->capacity, choices = route->rows * route->top_k;
    unsigned blocks;
    int error = cm_stream_grid(slots, &blocks);
    if (error == cudaSuccess)
        error = CM_LAUNCH(clear_kernel, blocks, CM_THREADS, 0, stream, choice_of, slots);
    if (error == cudaSuccess)
        error = cm_stream_grid(choices, &blocks);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH(invert_kernel, blocks, CM_THREADS, 0, stream, slot, choices, choice_of,
                     dweight);
}

enum move { PERMUTE, UNPERMUTE, UNPERMUTE_BACKWARD };

template <typename T, int W>
static int launch_move(cudaStream_t stream, const struct move_job<T> &job, enum move move)
{
    uint64_t vectors = job.columns / W, warps = (vectors + CM_WARP - 1) / CM_WARP * CM_WARP;
    unsigned blocks;
    int error = cm_stream_grid(move == PERMUTE     ? job.slots * vectors
                               : move == UNPERMUTE ? job.rows * vectors
                                                   : job.slots * (warps < 64 ? warps : 64),
                               &blocks);
    if (error != cudaSuccess)
        return error;
    if (move == PERMUTE)
        return CM_LAUNCH((permute_kernel<T, W>), blocks, CM_THREADS, 0, stream, job);
    if (move == UNPERMUTE)
        return CM_LAUNCH((unpermute_kernel<T, W>), blocks, CM_THREADS, 0, stream, job);
    return CM_LAUNCH((unpermute_backward_kernel<T, W>), blocks, CM_THREADS, 0, stream, job);
}

template <typename T>
static int any_move(cudaStream_t stream, const struct cm_route *route,
                    const struct move_job<void> &in, enum move move)
{
    struct move_job<T> job = {
        (const T *)in.rows_in, (const T *)in.slots_in,
            (T *)in.out, in.slot, in.weight, in.dweight, in.choice_of, route->rows, route->columns,
            route->experts * route->capacity, route->top_k
    };
    if (job.columns % cm_wide<T>::value == 0)
        return launch_move<T, cm_wide<T>::value>(stream, job, move);
    return launch_move<T, 1>(stream, job, move);
}

static int move_rows(cudaStream_t stream, const struct cm_route *route,
                     const struct move_job<void> &job, enum move move)
{
    bool has_type = route->dtype == CM_F32 || route->dtype == CM_BF16;
    if (!has_kernel(route) || !has_type)
        return cudaErrorInvalidValue;
    if (route->columns == 0)
        return cudaSuccess;
    if (job.choice_of != NULL) {
        int error = invert(stream, route, job.slot, job.choice_of, job.dweight);
        if (error != cudaSuccess)
            return error;
    }
    return route->dtype == CM_F32 ? any_move<float>(stream, route, job, move)
                                  : any_move<cm_bf16>(stream, route, job, move);
}

int cm_cuda_permute(cudaStream_t stream, const struct cm_route *route, const void *x,
                    const int32_t *slot, void *out, void *scratch)
{
    struct move_job<void> job = {
        x, NULL, out, slot, NULL, NULL, (int32_t *)scratch, 0, 0, 0, 0
    };
    return move_rows(stream, route, job, PERMUTE);
}

int cm_cuda_unpermute(cudaStream_t stream, const struct cm_route *route, const void *slots,
                      const int32_t *slot, const float *weight, void *out)
{
    struct move_job<void> job = {
        NULL, slots, out, slot, weight, NULL, NULL, 0, 0, 0, 0
    };
    return move_rows(stream, route, job, UNPERMUTE);
}

int cm_cuda_unpermute_backward(cudaStream_t stream, const struct cm_route *route, const void *dout,
                               const void *slots, const int32_t *slot, const float *weight,
                               void *dslots, float *dweight, void *scratch)
{
    struct move_job<void> job = {
        dout, slots, dslots, slot, weight, dweight, (int32_t *)scratch, 0, 0, 0, 0
    };
    return move_rows(stream, route, job, UNPERMUTE_BACKWARD);
}
