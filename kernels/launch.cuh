/*
 * launch.cuh: what kernels share: how they are launched, and what has one form on a device and
 * another in tests/simt, which runs the same files on the CPU.
 */
#ifndef KERNELS_LAUNCH_CUH
#define KERNELS_LAUNCH_CUH

#include <cuda_runtime.h>

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
/* clang-format off */
#define CM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                  \
    ((kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__),                         \
     (int)cudaGetLastError())
/* clang-format on */
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

#endif
