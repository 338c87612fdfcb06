/* Kernels that compute nothing: empty, and spin, which holds a stream up. */
#include "clustermark/cuda_kernels.h"
#include "kernels/launch.cuh"

/* Between two looks at the host's memory, each of which takes about a microsecond over the bus. */
#define PAUSE_NS 200

static __global__ void empty_kernel()
{
}

static __global__ void spin_kernel(const volatile uint32_t *flag, uint32_t until,
                                   uint64_t timeout_ns, volatile uint32_t *expired)
{
    uint64_t start = cm_clock_ns();
    while ((int32_t)(*flag - until) < 0) {
        if (cm_clock_ns() - start >= timeout_ns) {
            *expired = 1;
            break;
        }
        __nanosleep(PAUSE_NS);
    }
    __threadfence_system();
}

/* ---- Kernel launchers ---- */

int cm_cuda_empty(cudaStream_t stream)
{
    return CM_LAUNCH(empty_kernel, 1, 1, 0, stream);
}

int cm_cuda_spin(cudaStream_t stream, const uint32_t *flag, uint32_t until, uint64_t timeout_ns,
                 uint32_t *expired)
{
    return CM_LAUNCH(spin_kernel, 1, 1, 0, stream, flag, until, timeout_ns, expired);
}
