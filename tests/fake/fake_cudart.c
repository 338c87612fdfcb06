/* The CUDA runtime: devices, errors, memory. */
#include <stdio.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "fake/fake.h"

/* ---- errors ---- */

static _Thread_local cudaError_t last;
static int lost; /* what every call fails with once the device is gone */
static bool enabled[FAKE_GPUS_MAX];

static const struct {
    cudaError_t error;
    const char *name, *text;
    bool stays;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error", false},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument", false},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory", false},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error", false},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version", false},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected", false},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal", false},
    {cudaErrorMapBufferObjectFailed, "cudaErrorMapBufferObjectFailed",
     "mapping of buffer object failed", false},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered",
     true},
    {cudaErrorPeerAccessUnsupported, "cudaErrorPeerAccessUnsupported",
     "peer access is not supported between these two devices", false},
    {cudaErrorPeerAccessAlreadyEnabled, "cudaErrorPeerAccessAlreadyEnabled",
     "peer access is already enabled", false},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle",
     false},
    {cudaErrorSymbolNotFound, "cudaErrorSymbolNotFound", "named symbol not found", false},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready", false},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered",
     true},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch", false},
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped", false},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure", true},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported", false},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error", false},
};

static size_t row_of(cudaError_t error)
{
    size_t row = 0;
    while (row + 1 < sizeof errors / sizeof *errors && errors[row].error != error)
        row++;
    return row;
}

int fake_cuda_enter(const char *call)
{
    int error = fake_enter(call, cudaErrorInvalidValue);
    if (error != 0 && errors[row_of((cudaError_t)error)].stays)
        lost = error;
    if (lost != 0)
        error = lost;
    if (error == 0 && fake_machine()->driver < 12000)
        error = cudaErrorInsufficientDriver;
    return error == 0 && fake_machine()->count == 0 ? cudaErrorNoDevice : error;
}

int fake_cuda_leave(int error)
{
    if (error != cudaSuccess)
        last = (cudaError_t)error;
    fake_leave();
    return error;
}

#define ENTER()       fake_cuda_enter(__func__)
#define LEAVE(status) return (cudaError_t)fake_cuda_leave(status)

/* These two take no part in failing: they tell of it. */
cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last;
    last = (cudaError_t)lost;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last;
}

const char *cudaGetErrorName(cudaError_t error)
{
    return errors[row_of(error)].name;
}

const char *cudaGetErrorString(cudaError_t error)
{
    return errors[row_of(error)].text;
}

/* ---- devices ---- */

cudaError_t cudaGetDeviceCount(int *count)
{
    int error = ENTER();
    *count = error == 0 ? (int)fake_machine()->count : 0;
    LEAVE(error);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    int error = fake_enter(__func__, cudaErrorInvalidValue);
    if (error == 0)
        *version = fake_machine()->driver;
    LEAVE(error);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    int error = fake_enter(__func__, cudaErrorInvalidValue);
    if (error == 0)
        *version = CUDART_VERSION;
    LEAVE(error);
}

static bool is_device(int device)
{
    return device >= 0 && (unsigned)device < fake_machine()->count;
}

cudaError_t cudaSetDevice(int device)
{
    int error = ENTER();
    if (error == 0 && !is_device(device))
        error = cudaErrorInvalidDevice;
    if (error == 0 && (unsigned)device != fake_device() &&
        fake_memory_left() + ((size_t)16 << 20) < fake_machine()->memory_bytes)
        fake_die("%s: a process has one GPU, and memory of %u is in use", __func__, fake_device());
    if (error == 0)
        fake_choose_device((unsigned)device);
    LEAVE(error);
}

cudaError_t cudaGetDevice(int *device)
{
    int error = ENTER();
    if (error == 0)
        *device = (int)fake_device();
    LEAVE(error);
}

cudaError_t cudaDeviceReset(void)
{
    int error = ENTER();
    LEAVE(error);
}

cudaError_t cudaDeviceSynchronize(void)
{
    int error = ENTER();
    if (error == 0)
        fake_finish(NULL, __func__);
    LEAVE(error);
}

static int attribute_of(const struct fake_model *model, enum cudaDeviceAttr name, int device)
{
    char bus[24];
    unsigned domain, number;
    fake_bus_id((unsigned)device, bus, sizeof bus);
    sscanf(bus, "%x:%x", &domain, &number);
    switch (name) {
    case cudaDevAttrComputeCapabilityMajor:
        return model->major;
    case cudaDevAttrComputeCapabilityMinor:
        return model->minor;
    case cudaDevAttrMultiProcessorCount:
        return model->multiprocessors;
    case cudaDevAttrClockRate:
        return model->clock_khz;
    case cudaDevAttrMemoryClockRate:
        return model->memory_clock_khz;
    case cudaDevAttrGlobalMemoryBusWidth:
        return model->bus_bits;
    case cudaDevAttrL2CacheSize:
        return (int)model->l2_bytes;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        return (int)model->shared_bytes;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        return (int)model->shared_bytes + 1024;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        return 49152;
    case cudaDevAttrMaxThreadsPerBlock:
        return 1024;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        return 2048;
    case cudaDevAttrWarpSize:
        return 32;
    case cudaDevAttrPciDomainId:
        return (int)domain;
    case cudaDevAttrPciBusId:
        return (int)number;
    case cudaDevAttrPciDeviceId:
        return 0;
    case cudaDevAttrEccEnabled:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrHostRegisterSupported:
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
    case cudaDevAttrCanMapHostMemory:
        return 1;
    case cudaDevAttrAsyncEngineCount:
        return 3;
    case cudaDevAttrIntegrated:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrMpsEnabled:
    case cudaDevAttrComputeMode:
        return 0;
    case cudaDevAttrClusterLaunch:
        return model->major >= 9;
    case cudaDevAttrHostNumaId:
        return -1;
    default:
        fake_die("attribute %d of a device is not faked", (int)name);
    }
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr name, int device)
{
    int error = ENTER();
    if (error == 0 && !is_device(device))
        error = cudaErrorInvalidDevice;
    if (error == 0)
        *value = attribute_of(fake_machine()->models[device], name, device);
    LEAVE(error);
}

/* What is not set here is poison, so that nobody relies on it. */
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    int error = ENTER();
    if (error == 0 && !is_device(device))
        error = cudaErrorInvalidDevice;
    if (error == 0) {
        const struct fake_model *model = fake_machine()->models[device];
        memset(p, 0xbd, sizeof *p);
        snprintf(p->name, sizeof p->name, "%s", model->full_name);
        unsigned char uuid[16];
        fake_uuid((unsigned)device, uuid);
        memcpy(p->uuid.bytes, uuid, sizeof uuid);
        p->totalGlobalMem = fake_machine()->memory_bytes;
        p->major = model->major;
        p->minor = model->minor;
        p->multiProcessorCount = model->multiprocessors;
        p->l2CacheSize = (int)model->l2_bytes;
        p->memoryBusWidth = model->bus_bits;
        p->sharedMemPerBlockOptin = model->shared_bytes;
        p->maxThreadsPerMultiProcessor = 2048;
        p->ECCEnabled = 1;
        p->integrated = p->mpsEnabled = 0;
        p->pciDomainID = attribute_of(model, cudaDevAttrPciDomainId, device);
        p->pciBusID = attribute_of(model, cudaDevAttrPciBusId, device);
        p->pciDeviceID = 0;
    }
    LEAVE(error);
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device)
{
    int error = ENTER();
    if (error == 0 && !is_device(device))
        error = cudaErrorInvalidDevice;
    if (error == 0)
        fake_bus_id((unsigned)device, text, (size_t)size);
    LEAVE(error);
}

cudaError_t cudaDeviceGetByPCIBusId(int *device, const char *text)
{
    int error = ENTER();
    char bus[24] = "";
    unsigned index = 0;
    for (; error == 0 && index < fake_machine()->count; index++) {
        fake_bus_id(index, bus, sizeof bus);
        if (strcmp(bus, text) == 0)
            break;
    }
    if (error == 0 && strcmp(bus, text) != 0)
        error = cudaErrorInvalidValue;
    if (error == 0)
        *device = (int)index;
    LEAVE(error);
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    int error = ENTER();
    if (error == 0 && (!is_device(device) || !is_device(peer)))
        error = cudaErrorInvalidDevice;
    if (error == 0)
        *can = device != peer && fake_machine()->peers;
    LEAVE(error);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    int error = ENTER();
    if (error == 0 && (!is_device(peer) || flags != 0 || (unsigned)peer == fake_device()))
        error = cudaErrorInvalidDevice;
    if (error == 0 && !fake_machine()->peers)
        error = cudaErrorPeerAccessUnsupported;
    if (error == 0 && enabled[peer])
        error = cudaErrorPeerAccessAlreadyEnabled;
    if (error == 0)
        enabled[peer] = true;
    LEAVE(error);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    int error = ENTER();
    if (error == 0) {
        *least = 0;
        *greatest = -5;
    }
    LEAVE(error);
}

/* ---- memory ---- */

cudaError_t cudaMemGetInfo(size_t *left, size_t *total)
{
    int error = ENTER();
    if (error == 0) {
        *left = fake_memory_left();
        *total = fake_machine()->memory_bytes;
    }
    LEAVE(error);
}

cudaError_t cudaMalloc(void **memory, size_t size)
{
    int error = ENTER();
    void *block = error == 0 && size > 0 ? fake_device_alloc(size) : NULL;
    if (error == 0 && size == 0)
        fake_die("%s of 0 bytes", __func__);
    if (error == 0 && block == NULL)
        error = cudaErrorMemoryAllocation;
    if (error == 0)
        *memory = block;
    LEAVE(error);
}

/* Waits for all that runs, as the real one does in practice. What releases something releases it
 * also when it fails: nobody would try again. */
static void finish_before_release(const char *call)
{
    if (lost == 0)
        fake_finish(NULL, call);
}

cudaError_t cudaFree(void *memory)
{
    int error = ENTER();
    finish_before_release(__func__);
    if (memory != NULL)
        fake_device_free(memory, __func__);
    LEAVE(error);
}

cudaError_t cudaHostAlloc(void **memory, size_t size, unsigned flags)
{
    int error = ENTER();
    if (error == 0 && (size == 0 || (flags & ~7u) != 0))
        fake_die("%s: %zu bytes, flags %#x", __func__, size, flags);
    void *block = error == 0 ? fake_host_alloc(size) : NULL;
    if (error == 0 && block == NULL)
        error = cudaErrorMemoryAllocation;
    if (error == 0)
        *memory = block;
    LEAVE(error);
}

cudaError_t cudaMallocHost(void **memory, size_t size)
{
    return cudaHostAlloc(memory, size, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *memory)
{
    int error = ENTER();
    finish_before_release(__func__);
    if (memory != NULL)
        fake_host_free(memory, __func__);
    LEAVE(error);
}

cudaError_t cudaHostRegister(void *memory, size_t size, unsigned flags)
{
    int error = ENTER();
    if (error == 0 && (memory == NULL || size == 0 || (flags & ~15u) != 0))
        error = cudaErrorInvalidValue;
    if (error == 0 && !fake_host_register(memory, size))
        error = cudaErrorHostMemoryAlreadyRegistered;
    LEAVE(error);
}

cudaError_t cudaHostUnregister(void *memory)
{
    int error = ENTER();
    finish_before_release(__func__);
    fake_host_unregister(memory, __func__);
    LEAVE(error);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *memory)
{
    int error = ENTER();
    if (error == 0) {
        enum fake_place place = fake_place_of(memory, 0, __func__);
        void *host = (void *)(uintptr_t)memory;
        memset(attributes, 0, sizeof *attributes);
        attributes->type = place == FAKE_PAGEABLE ? cudaMemoryTypeUnregistered
                           : place == FAKE_PINNED ? cudaMemoryTypeHost
                                                  : cudaMemoryTypeDevice;
        attributes->device = place == FAKE_PAGEABLE ? -1 : (int)fake_device();
        attributes->devicePointer = place == FAKE_PAGEABLE ? NULL : host;
        attributes->hostPointer = place == FAKE_PINNED ? host : NULL;
    }
    LEAVE(error);
}

/* ---- memory of other processes ---- */

struct handle {
    uint64_t mark;
    struct fake_export export;
};
_Static_assert(sizeof(struct handle) <= sizeof(cudaIpcMemHandle_t), "a handle holds an export");
#define HANDLE_MARK UINT64_C(0x1bc0ffee1bc0ffee)

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *handle, void *memory)
{
    int error = ENTER();
    struct handle inner = {.mark = HANDLE_MARK};
    if (error == 0 && !fake_export(memory, &inner.export))
        error = cudaErrorInvalidValue;
    memset(handle, 0, sizeof *handle);
    if (error == 0)
        memcpy(handle, &inner, sizeof inner);
    LEAVE(error);
}

cudaError_t cudaIpcOpenMemHandle(void **memory, cudaIpcMemHandle_t handle, unsigned flags)
{
    int error = ENTER();
    struct handle inner;
    memcpy(&inner, &handle, sizeof inner);
    if (error == 0 && (inner.mark != HANDLE_MARK || flags != cudaIpcMemLazyEnablePeerAccess))
        error = cudaErrorInvalidValue;
    if (error == 0 && inner.export.device != fake_device() && !fake_machine()->peers)
        error = cudaErrorPeerAccessUnsupported;
    void *block = error == 0 ? fake_import(&inner.export) : NULL;
    if (error == 0 && block == NULL)
        error = cudaErrorMapBufferObjectFailed;
    if (error == 0)
        fake_count(FAKE_IMPORTS, 1);
    if (error == 0)
        *memory = block;
    LEAVE(error);
}

cudaError_t cudaIpcCloseMemHandle(void *memory)
{
    int error = ENTER();
    finish_before_release(__func__);
    if (!fake_unimport(memory))
        fake_die("%s: %p is no import", __func__, memory);
    fake_count(FAKE_IMPORTS, -1);
    LEAVE(error);
}
