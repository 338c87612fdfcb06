/*
 * launch.cuh: what kernels share: how they are launched, and what has one form on a device and
 * another in tests/simt, which runs the same files on the CPU.
 */
#ifndef KERNELS_LAUNCH_CUH
#define KERNELS_LAUNCH_CUH

#include <cuda_runtime.h>

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#ifdef CM_SIMT

#define CM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                  \
    simt_launch(#kernel, (kernel), (grid), (block), (shared_bytes), (stream), ##__VA_ARGS__)
#define CM_LAUNCH_CLUSTER(kernel, cluster, grid, block, shared_bytes, stream, ...)                 \
    simt_launch_cluster(#kernel, (kernel), (cluster), (grid), (block), (shared_bytes), (stream),   \
                        ##__VA_ARGS__)
#define CM_DYNAMIC_SHARED(name) unsigned char *const name = simt_dynamic_shared()

static __device__ inline uint64_t cm_clock_ns()
{
    return (uint64_t)clock64();
}

#else

/* Queues kernel(...) on the stream; the error of the launch (a cudaError_t, as int). A template's
 * name with commas goes in parentheses. */
// clang-format off
#define CM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                  \
    ((kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__), (int)cudaGetLastError())
// clang-format on
/* Of a kernel that has __cluster_dims__(cluster, 1, 1). */
#define CM_LAUNCH_CLUSTER(kernel, cluster, grid, block, shared_bytes, stream, ...)                 \
    CM_LAUNCH(kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)
/* Declares `name`, the block's dynamic shared memory. */
#define CM_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

/* Time that goes on while a kernel runs. Its steps are about a microsecond. */
static __device__ inline uint64_t cm_clock_ns()
{
    uint64_t ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
}

#endif

/* ---- For launchers ---- */

/* Threads of a block in every kernel that streams through memory, and how many such blocks make all
 * the threads that a multiprocessor holds: with __launch_bounds__(CM_THREADS, CM_RESIDENT) a thread
 * gets no more registers than that leaves. */
#define CM_THREADS 256
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 750
#define CM_RESIDENT 4
#elif defined(__CUDA_ARCH__) &&                                                                    \
    ((__CUDA_ARCH__ > 800 && __CUDA_ARCH__ < 900) || __CUDA_ARCH__ >= 1100)
#define CM_RESIDENT 6
#else
#define CM_RESIDENT 8
#endif

#define CM_DEVICES_MAX 64

/* Blocks of CM_THREADS that work on `items` items, one per thread and turn: no more than the
 * current device holds at once, so that none begins when the others are done; at least one. */
static inline int cm_stream_grid(uint64_t items, unsigned *blocks)
{
    static int held[CM_DEVICES_MAX]; /* by device; 0: not asked yet */
    int device, units, threads;
    int error = cudaGetDevice(&device);
    if (error != cudaSuccess)
        return error;
    if (device >= CM_DEVICES_MAX)
        return cudaErrorInvalidDevice;
    int fit = __atomic_load_n(&held[device], __ATOMIC_RELAXED);
    if (fit == 0) {
        error = cudaDeviceGetAttribute(&units, cudaDevAttrMultiProcessorCount, device);
        if (error == cudaSuccess)
            error =
                cudaDeviceGetAttribute(&threads, cudaDevAttrMaxThreadsPerMultiProcessor, device);
        if (error != cudaSuccess)
            return error;
        fit = units * (threads / CM_THREADS);
        __atomic_store_n(&held[device], fit, __ATOMIC_RELAXED);
    }
    uint64_t wanted = (items + CM_THREADS - 1) / CM_THREADS;
    *blocks = wanted == 0 ? 1 : wanted < (uint64_t)fit ? (unsigned)wanted : (unsigned)fit;
    return cudaSuccess;
}

/* A number below CM_SLOTS for each stream. Kernels on one stream follow one another, so that what
 * has a place for every number needs no memory of its own for each launch. When there have been
 * more streams than numbers, the one that came first shares its own. */
#define CM_SLOTS 256
static inline unsigned cm_stream_slot(cudaStream_t stream)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static cudaStream_t owners[CM_SLOTS];
    static unsigned count;
    pthread_mutex_lock(&lock);
    unsigned slot = 0, taken = count < CM_SLOTS ? count : CM_SLOTS;
    while (slot < taken && owners[slot] != stream)
        slot++;
    if (slot == taken) {
        slot = count++ % CM_SLOTS;
        owners[slot] = stream;
    }
    pthread_mutex_unlock(&lock);
    return slot;
}

/* ---- For kernels ---- */

/* `W` elements that are loaded and stored by one instruction. */
template <typename T, int W> struct __align__(W * sizeof(T)) cm_vector
{
    T v[W];
};

/* This thread's number in the grid, and how many there are. */
static __device__ inline uint64_t cm_grid_thread()
{
    return (uint64_t)blockIdx.x * CM_THREADS + threadIdx.x;
}
static __device__ inline uint64_t cm_grid_threads()
{
    return (uint64_t)gridDim.x * CM_THREADS;
}

/* Bytes from `at` to the next multiple of `alignment` (a power of two). */
static __host__ __device__ inline unsigned cm_bytes_to(const void *at, unsigned alignment)
{
    return (unsigned)(-(uintptr_t)at & (alignment - 1));
}

#endif
