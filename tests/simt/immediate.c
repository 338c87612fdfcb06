/*
 * The few calls of the CUDA runtime that launchers make, for tests of kernels alone: a launch runs
 * at once, in the caller's thread. tests/fake has streams.
 */
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <stdbool.h>
#include <string.h>

int fake_cuda_launch(struct CUstream_st *stream, void (*run)(void *arg), void *arg,
                     void (*drop)(void *arg));

int fake_cuda_launch(struct CUstream_st *stream, void (*run)(void *arg), void *arg,
                     void (*drop)(void *arg))
{
    (void)stream;
    run(arg);
    drop(arg);
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = 0;
    return cudaSuccess;
}

/* A device as small as will do: four blocks of 256 threads, so that grids go round many times. */
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    (void)device;
    switch ((int)attribute) {
    case cudaDevAttrMultiProcessorCount:
        *value = 2;
        return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = 512;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = 227 << 10;
        return cudaSuccess;
    default:
        return cudaErrorInvalidValue;
    }
}

cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value)
{
    (void)function;
    (void)attribute;
    (void)value;
    return cudaSuccess;
}

extern __typeof__(cuTensorMapEncodeTiled) simt_encode_tiled;

/* The one function of the driver that kernels/gemm_hopper.cu asks for. */
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function,
                                             unsigned int version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result)
{
    (void)version;
    (void)flags;
    bool known = strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
    *function = known ? (void *)simt_encode_tiled : NULL;
    *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
