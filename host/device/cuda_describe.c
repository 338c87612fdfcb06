/* Which GPUs there are, and what a GPU says of itself. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/hash.h"
#include "host/device/cuda_api.h"
#include "host/device/cuda_gemm.h"

/* What CUDA reads once, at its first call. */
static void prepare_environment(void)
{
    /* The order in which nvidia-smi and everything else number GPUs. */
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);
}

static void explain_driver(char *reason, size_t size)
{
    int driver = 0, runtime = 0;
    cudaRuntimeGetVersion(&runtime);
    cudaDriverGetVersion(&driver);
    if (driver == 0)
        snprintf(reason, size,
                 "no NVIDIA driver is installed (this program was built with CUDA %d.%d)",
                 runtime / 1000, runtime % 1000 / 10);
    else
        snprintf(reason, size,
                 "the NVIDIA driver is too old: it serves CUDA %d.%d, and this program needs "
                 "%d.%d; update it",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
}

/* Why CUDA shows no device. */
static void explain(cudaError_t code, char *reason, size_t size)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (code == cudaErrorInsufficientDriver)
        explain_driver(reason, size);
    else if (code == cudaErrorNoDevice && visible != NULL)
        snprintf(reason, size,
                 "no GPU is visible: CUDA_VISIBLE_DEVICES is \"%.40s\", which hides what there is",
                 visible);
    else if (code == cudaErrorNoDevice)
        snprintf(reason, size, "there is an NVIDIA driver, but no GPU that it serves");
    else if (code == cudaErrorSystemNotReady)
        snprintf(reason, size, "%s: %.60s; is nvidia-fabricmanager running?",
                 cudaGetErrorName(code), cudaGetErrorString(code));
    else
        snprintf(reason, size, "cudaGetDeviceCount: %s: %.80s", cudaGetErrorName(code),
                 cudaGetErrorString(code));
}

static bool prohibited(int ordinal)
{
    int mode = cudaComputeModeDefault;
    if (cudaDeviceGetAttribute(&mode, cudaDevAttrComputeMode, ordinal) != cudaSuccess)
        cudaGetLastError();
    return mode == cudaComputeModeProhibited;
}

static cudaError_t count_visible(int *count)
{
    prepare_environment();
    cudaError_t code = cudaGetDeviceCount(count);
    if (code != cudaSuccess) {
        cudaGetLastError();
        *count = 0;
    }
    return code;
}

enum cm_status cm_cuda_probe(struct cm_device_probe *probe)
{
    int visible = 0, first = -1, driver = 0;
    struct cudaDeviceProp properties;
    cudaError_t code = count_visible(&visible);
    probe->count = 0;
    for (int i = 0; i < visible; i++) {
        if (prohibited(i))
            continue;
        probe->count++;
        first = first < 0 ? i : first;
    }
    if (code != cudaSuccess || visible == 0) {
        explain(code == cudaSuccess ? cudaErrorNoDevice : code, probe->reason,
                sizeof probe->reason);
        return CM_OK;
    }
    if (first < 0) {
        snprintf(probe->reason, sizeof probe->reason,
                 "all %d GPUs are in compute mode \"prohibited\"; `nvidia-smi -c DEFAULT` opens "
                 "them",
                 visible);
        return CM_OK;
    }
    enum cm_status status = CUDA(NULL, cudaGetDeviceProperties(&properties, first));
    if (status != CM_OK)
        return status;
    cudaDriverGetVersion(&driver);
    int length = snprintf(probe->reason, sizeof probe->reason, "%u x %.64s, driver for CUDA %d.%d",
                          probe->count, properties.name, driver / 1000, driver % 1000 / 10);
    if ((unsigned)visible > probe->count)
        snprintf(probe->reason + length, sizeof probe->reason - (size_t)length,
                 "; %u more in compute mode \"prohibited\"", (unsigned)visible - probe->count);
    return CM_OK;
}

enum cm_status cm_cuda_ordinal(unsigned index, int *ordinal)
{
    int visible = 0;
    unsigned usable = 0;
    cudaError_t code = count_visible(&visible);
    for (int i = 0; i < visible; i++) {
        if (prohibited(i))
            continue;
        if (usable++ == index) {
            *ordinal = i;
            return CM_OK;
        }
    }
    char reason[160];
    if (usable > 0)
        snprintf(reason, sizeof reason, "there are %u", usable);
    else
        explain(code == cudaSuccess ? cudaErrorNoDevice : code, reason, sizeof reason);
    return cm_error(CM_NO_DEVICE, "cuda device %u: %s", index, reason);
}

enum cm_status cm_cuda_bus_id(int ordinal, char *bus_id, size_t size)
{
    char text[32] = "";
    enum cm_status status = CUDA(NULL, cudaDeviceGetPCIBusId(text, (int)sizeof text, ordinal));
    if (status != CM_OK)
        return cm_error_at(status, "cuda device %d", ordinal);
    for (char *at = text; *at != '\0'; at++)
        *at = (char)tolower((unsigned char)*at);
    snprintf(bus_id, size, "%s", text);
    return CM_OK;
}

enum cm_status cm_cuda_locate(unsigned index, char *bus_id, size_t size)
{
    int ordinal = 0;
    enum cm_status status = cm_cuda_ordinal(index, &ordinal);
    return status == CM_OK ? cm_cuda_bus_id(ordinal, bus_id, size) : status;
}

/* 0 where this version or device does not tell. */
static int attribute(const struct cm_cuda_device *device, enum cudaDeviceAttr which)
{
    int value = 0;
    if (cudaDeviceGetAttribute(&value, which, device->ordinal) == cudaSuccess)
        return value;
    cudaGetLastError();
    return 0;
}

static void describe_software(struct cm_device_info *info)
{
    int runtime = 0;
    char library[48] = "";
    cudaRuntimeGetVersion(&runtime);
    cm_cuda_lt_version(library, sizeof library);
    snprintf(info->software, sizeof info->software, "CUDA %d.%d, %s", runtime / 1000,
             runtime % 1000 / 10, library);
}

static void describe_memory_rate(const struct cm_cuda_device *device, struct cm_peak *rate)
{
    int khz = attribute(device, cudaDevAttrMemoryClockRate);
    int bits = attribute(device, cudaDevAttrGlobalMemoryBusWidth);
    rate->value = 0;
    if (device->instance) {
        snprintf(rate->source, sizeof rate->source, "not known: a MIG instance has a share of it");
    } else if (khz <= 0 || bits <= 0) {
        snprintf(rate->source, sizeof rate->source,
                 "not known: CUDA does not tell the memory's clock and width");
    } else {
        /* Two transfers per clock, as CUDA counts it for HBM and GDDR alike. */
        rate->value = 2.0 * khz * 1e3 * bits / 8;
        snprintf(rate->source, sizeof rate->source, "%d bits x 2 x %.4g GHz memory clock", bits,
                 khz * 1e-6);
    }
}

enum cm_status cm_cuda_describe(struct cm_cuda_device *device)
{
    struct cm_device_info *info = &device->device.info;
    struct cudaDeviceProp properties;
    enum cm_status status = CUDA(device, cudaGetDeviceProperties(&properties, device->ordinal));
    if (status != CM_OK)
        return status;
    device->capability = 10 * properties.major + properties.minor;
    device->instance = strstr(properties.name, " MIG ") != NULL;
    snprintf(info->name, sizeof info->name, "%.90s", properties.name);
    snprintf(info->kind, sizeof info->kind, "cuda");
    snprintf(info->features, sizeof info->features, "sm_%d", device->capability);
    cm_hash_text(cm_hash(0, &properties.uuid, sizeof properties.uuid), info->uuid);
    describe_software(info);
    info->units = (unsigned)properties.multiProcessorCount;
    info->clock_hz = attribute(device, cudaDevAttrClockRate) * 1e3;
    info->cache_bytes = (uint64_t)properties.l2CacheSize;
    describe_memory_rate(device, &info->memory_rate);
    struct cm_cuda_gpu gpu = {info->name, device->capability, info->units, info->clock_hz};
    for (int dtype = 0; dtype < CM_DTYPE_COUNT; dtype++)
        cm_cuda_peak(&gpu, (enum cm_dtype)dtype, &info->flop_rate[dtype]);
    return CM_OK;
}
