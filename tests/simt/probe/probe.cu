/* Kernels for the test of the emulator. */
#include "tests/simt/probe/probe.h"

#include "kernels/launch.cuh"

template <bool BARRIER> static __global__ void sum_kernel(const uint32_t *values, uint32_t *sum)
{
    __shared__ uint32_t parts[8];
    uint32_t value = values[threadIdx.x];
    for (int lanes = 16; lanes > 0; lanes /= 2)
        value += __shfl_down_sync(0xffffffffu, value, lanes);
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = value;
    if (BARRIER)
        __syncthreads();
    if (threadIdx.x == 0) {
        *sum = 0;
        for (int i = 0; i < 8; i++)
            *sum += parts[i];
    }
}

static __global__ void lost_update_kernel(uint32_t *count)
{
    uint32_t old = *count;
    __syncwarp();
    *count = old + 1;
}

static __global__ void stale_shared_kernel(float *value)
{
    __shared__ float shared;
    *value = shared;
    shared = 1;
}

static __global__ void divergent_barrier_kernel()
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

static __global__ void deadlock_kernel()
{
    if (threadIdx.x < 32)
        __syncthreads();
    else if (threadIdx.x < 40)
        __syncwarp(0x1ff);
}

static __global__ void absent_lane_kernel(uint32_t *value)
{
    if (threadIdx.x < 16)
        *value = __shfl_sync(0x0000ffffu, 1u, 20);
}

static __global__ void shared_overrun_kernel()
{
    CM_DYNAMIC_SHARED(bytes);
    bytes[threadIdx.x] = 1;
}

static __global__ void misaligned_kernel(unsigned char *bytes)
{
    *(volatile uint32_t *)(bytes + 1) = 1;
}

static __global__ void crash_kernel(volatile uint32_t *at)
{
    *at = 1;
}

static __global__ void order_kernel(uint32_t *first)
{
    atomicCAS(first, UINT32_MAX, blockIdx.x);
}

/* ---- Launchers ---- */

int probe_sum(const uint32_t *values, uint32_t *sum)
{
    return CM_LAUNCH(sum_kernel<true>, 1, 256, 0, 0, values, sum);
}

int probe_missing_barrier(const uint32_t *values, uint32_t *sum)
{
    return CM_LAUNCH(sum_kernel<false>, 1, 256, 0, 0, values, sum);
}

int probe_lost_update(uint32_t *count)
{
    return CM_LAUNCH(lost_update_kernel, 1, 64, 0, 0, count);
}

int probe_stale_shared(float *value)
{
    return CM_LAUNCH(stale_shared_kernel, 2, 1, 0, 0, value);
}

int probe_divergent_barrier()
{
    return CM_LAUNCH(divergent_barrier_kernel, 1, 64, 0, 0);
}

int probe_deadlock()
{
    return CM_LAUNCH(deadlock_kernel, 1, 64, 0, 0);
}

int probe_absent_lane()
{
    uint32_t value;
    return CM_LAUNCH(absent_lane_kernel, 1, 32, 0, 0, &value);
}

int probe_shared_overrun()
{
    return CM_LAUNCH(shared_overrun_kernel, 1, 65, 64, 0);
}

int probe_misaligned()
{
    uint64_t words[2];
    return CM_LAUNCH(misaligned_kernel, 1, 1, 0, 0, (unsigned char *)words);
}

int probe_crash()
{
    return CM_LAUNCH(crash_kernel, 1, 1, 0, 0, (uint32_t *)64);
}

int probe_too_large()
{
    return CM_LAUNCH(crash_kernel, 1, 1025, 0, 0, (uint32_t *)64);
}

int probe_order(uint32_t *first)
{
    return CM_LAUNCH(order_kernel, 64, 32, 0, 0, first);
}

unsigned probe_slot(uintptr_t stream)
{
    return cm_stream_slot((cudaStream_t)stream);
}
