/*
 * A CUDA GPU as a device: opening it, events, copies. One per rank, in its primary context.
 *
 * Nothing here waits for the device but stream_sync and, while nothing is measured, the calls that
 * allocate and free.
 */
#include <stdio.h>
#include <string.h>

#include "clustermark/memory.h"
#include "host/device/cuda_api.h"

/* Errors after which every call of the process fails: the context is gone. */
static bool is_final(int code)
{
    switch (code) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

static enum cm_status status_of(int code)
{
    switch (code) {
    case cudaErrorMemoryAllocation:
        return CM_NO_MEMORY;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorDevicesUnavailable:
        return CM_NO_DEVICE;
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorPeerAccessUnsupported:
    case cudaErrorTooManyPeers:
    case cudaErrorMapBufferObjectFailed: /* memory of a process that shares too little with us */
    case cudaErrorNotSupported:
        return CM_UNSUPPORTED;
    default:
        return CM_DEVICE;
    }
}

void cm_cuda_who(const struct cm_cuda_device *device, char text[CM_CUDA_WHO_MAX])
{
    snprintf(text, CM_CUDA_WHO_MAX, "rank %u, cuda device %d %s", device->rank, device->ordinal,
             device->device.info.bus_id);
}

enum cm_status cm_cuda_status(struct cm_cuda_device *device, int code, const char *call,
                              const char *file, int line)
{
    if (code == cudaSuccess)
        return CM_OK;
    cudaGetLastError(); /* or a later launch would report this one */
    const char *base = strrchr(file, '/');
    char who[CM_CUDA_WHO_MAX] = "";
    if (device != NULL)
        cm_cuda_who(device, who);
    enum cm_status status =
        cm_error(status_of(code), "%.120s: %s: %.120s (%s%s%s:%d)", call,
                 cudaGetErrorName((cudaError_t)code), cudaGetErrorString((cudaError_t)code), who,
                 device != NULL ? ", " : "", base != NULL ? base + 1 : file, line);
    if (device != NULL && is_final(code) && device->lost[0] == '\0')
        snprintf(device->lost, sizeof device->lost, "%s", cm_error_text());
    return status;
}

enum cm_status cm_cuda_enter(struct cm_cuda_device *device)
{
    static _Thread_local int current = -1;
    if (device->lost[0] != '\0')
        return cm_error(CM_DEVICE, "cuda device %d is lost to this process since %s",
                        device->ordinal, device->lost);
    if (current == device->ordinal)
        return CM_OK;
    enum cm_status status = CUDA(device, cudaSetDevice(device->ordinal));
    if (status == CM_OK)
        current = device->ordinal;
    return status;
}

static void cuda_close(struct cm_device *base)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    /* A stream that was given up still uses what is here. */
    if (device == NULL || device->abandoned)
        return;
    cm_nvml_close(device->nvml);
    cm_cudnn_close(device->cudnn);
    cm_cuda_products_free(device->products);
    if (device->lost[0] == '\0') {
        cudaFree(device->normal_table);
        cudaFree(device->one);
        cudaFree(device->slots);
        cudaFreeHost(device->pinned);
        cudaGetLastError();
    }
    cm_free(device);
}

/* The first call that needs the GPU itself. */
static enum cm_status make_current(struct cm_cuda_device *device)
{
    int mode = cudaComputeModeDefault;
    cudaError_t code = cudaSetDevice(device->ordinal);
    if (code == cudaSuccess)
        code = cudaFree(NULL); /* the context is made now at the latest */
    if (code == cudaErrorDevicesUnavailable &&
        cudaDeviceGetAttribute(&mode, cudaDevAttrComputeMode, device->ordinal) == cudaSuccess &&
        mode == cudaComputeModeExclusiveProcess) {
        cudaGetLastError();
        return cm_error(CM_NO_DEVICE,
                        "cuda device %d %s belongs to another process: its compute mode is "
                        "exclusive; end that process, or `nvidia-smi -c DEFAULT`",
                        device->ordinal, device->device.info.bus_id);
    }
    enum cm_status status =
        cm_cuda_status(device, (int)code, "cudaSetDevice and first use", __FILE__, __LINE__);
    return status == CM_OK ? cm_cuda_enter(device) : status;
}

/* What kernels and streams find on the device from the start; later allocations could wait for a
 * stream that is held. */
static enum cm_status place_tables(struct cm_cuda_device *device)
{
    const float one = 1;
    size_t table_bytes = 65536 * sizeof *device->normal_table;
    enum cm_status status = CUDA(device, cudaMalloc((void **)&device->normal_table, table_bytes));
    if (status == CM_OK)
        status = CUDA(device, cudaMemcpy(device->normal_table, cm_random_table(), table_bytes,
                                         cudaMemcpyHostToDevice));
    if (status == CM_OK)
        status = CUDA(device, cudaMalloc((void **)&device->one, sizeof one));
    if (status == CM_OK)
        status = CUDA(device, cudaMemcpy(device->one, &one, sizeof one, cudaMemcpyHostToDevice));
    if (status == CM_OK)
        status = CUDA(device,
                      cudaMalloc((void **)&device->slots, CM_CUDA_STREAMS * sizeof *device->slots));
    if (status == CM_OK)
        status = CUDA(device, cudaHostAlloc((void **)&device->pinned,
                                            CM_CUDA_STREAMS * sizeof *device->pinned,
                                            cudaHostAllocPortable));
    if (status == CM_OK)
        memset(device->pinned, 0, CM_CUDA_STREAMS * sizeof *device->pinned);
    return status;
}

static enum cm_status limit_memory(struct cm_cuda_device *device, uint64_t limit_bytes)
{
    size_t free_bytes = 0, total_bytes = 0;
    enum cm_status status = CUDA(device, cudaMemGetInfo(&free_bytes, &total_bytes));
    if (status != CM_OK)
        return status;
    device->device.info.memory_total_bytes = total_bytes;
    device->device.info.memory_bytes =
        limit_bytes > 0 && limit_bytes < free_bytes ? limit_bytes : free_bytes;
    return CM_OK;
}

extern const struct cm_device_ops cm_device_cuda;

static enum cm_status cuda_open(const struct cm_device_config *config, struct cm_device **device)
{
    int ordinal;
    enum cm_status status = cm_cuda_ordinal(config->index, &ordinal);
    if (status != CM_OK)
        return cm_error_at(status, "rank %u", config->rank);
    struct cm_cuda_device *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->rank = config->rank;
    made->device.ops = &cm_device_cuda;
    made->device.kernels = &cm_kernels_cuda;
    made->ordinal = ordinal;
    made->far_node = config->far_node;
    status = cm_cuda_bus_id(ordinal, made->device.info.bus_id, sizeof made->device.info.bus_id);
    if (status != CM_OK)
        cm_error_at(status, "rank %u", made->rank);
    else
        status = make_current(made);
    if (status == CM_OK)
        status = cm_cuda_describe(made);
    if (status == CM_OK)
        status = place_tables(made);
    if (status == CM_OK)
        status = limit_memory(made, config->memory_bytes);
    if (status != CM_OK) {
        cuda_close(&made->device);
        return status;
    }
    *device = &made->device;
    return CM_OK;
}

/* ---- events ---- */

struct cuda_event {
    struct cm_event event;
    cudaEvent_t native;
    struct cm_stream *stream; /* of the latest record, NULL before */
};

static enum cm_status event_create(struct cm_device *base, struct cm_event **event)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    struct cuda_event *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->event.device = base;
    enum cm_status status = cm_cuda_enter(device);
    if (status == CM_OK)
        status = CUDA(device, cudaEventCreate(&made->native));
    if (status != CM_OK) {
        cm_free(made);
        return status;
    }
    *event = &made->event;
    return CM_OK;
}

/* CUDA keeps an event for the work that still names it. */
static void event_destroy(struct cm_event *base)
{
    struct cuda_event *event = (struct cuda_event *)base;
    if (event == NULL)
        return;
    if (cudaEventDestroy(event->native) != cudaSuccess)
        cudaGetLastError();
    cm_free(event);
}

static enum cm_status event_record(struct cm_event *base, struct cm_stream *stream)
{
    struct cuda_event *event = (struct cuda_event *)base;
    struct cm_cuda_device *device = (struct cm_cuda_device *)stream->device;
    enum cm_status status = cm_cuda_count(stream, 1, "event record");
    if (status == CM_OK)
        status = CUDA(device, cudaEventRecord(event->native, cm_cuda_native(stream)));
    if (status == CM_OK)
        event->stream = stream;
    return status;
}

static enum cm_status stream_wait(struct cm_stream *stream, struct cm_event *base)
{
    struct cuda_event *event = (struct cuda_event *)base;
    struct cm_cuda_device *device = (struct cm_cuda_device *)stream->device;
    /* The stream's own order already keeps a record of its own. */
    if (event->stream == NULL || event->stream == stream)
        return CM_OK;
    enum cm_status status = cm_cuda_count(stream, 1, "waiting for an event of another stream");
    if (status == CM_OK)
        status = CUDA(device, cudaStreamWaitEvent(cm_cuda_native(stream), event->native, 0));
    return status;
}

static enum cm_status elapsed(struct cm_event *base_start, struct cm_event *base_end,
                              double *seconds)
{
    struct cuda_event *start = (struct cuda_event *)base_start;
    struct cuda_event *end = (struct cuda_event *)base_end;
    struct cm_cuda_device *device = (struct cm_cuda_device *)base_start->device;
    struct cuda_event *both[] = {start, end};
    for (int i = 0; i < 2; i++) {
        cudaError_t code = cudaErrorNotReady;
        if (both[i]->stream != NULL)
            code = cudaEventQuery(both[i]->native);
        if (code != cudaErrorNotReady && code != cudaSuccess)
            return cm_cuda_status(device, (int)code, "cudaEventQuery", __FILE__, __LINE__);
        if (code == cudaSuccess)
            continue;
        cudaGetLastError();
        return cm_error(CM_USAGE, "elapsed: the %s event %s; record it and sync its stream",
                        i == 0 ? "start" : "end",
                        both[i]->stream == NULL ? "was never recorded" : "has not happened yet");
    }
    float milliseconds = 0;
    enum cm_status status =
        CUDA(device, cudaEventElapsedTime(&milliseconds, start->native, end->native));
    if (status == CM_OK)
        *seconds = (double)milliseconds * 1e-3;
    return status;
}

/* ---- copies ---- */

static enum cm_status cuda_copy(struct cm_stream *stream, void *to, const void *from,
                                size_t size_bytes)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)stream->device;
    enum cm_status status;
    if (size_bytes == 0 || !cm_cuda_ready(stream, 1, "copy", &status))
        return size_bytes == 0 ? CM_OK : status;
    /* CUDA copies such memory in steps of its own and waits for them. */
    if (device->holding > 0 && (cm_cuda_is_pageable(to) || cm_cuda_is_pageable(from)))
        cm_cuda_start_held(device);
    return CUDA(device,
                cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDefault, cm_cuda_native(stream)));
}

const struct cm_device_ops cm_device_cuda = {
    .name = "cuda",
    .summary = "NVIDIA GPUs: cuBLASLt products, kernels of this project",
    .comm = "nccl",
    .probe = cm_cuda_probe,
    .open = cuda_open,
    .close = cuda_close,
    .locate = cm_cuda_locate,
    .alloc = cm_cuda_alloc,
    .free = cm_cuda_free,
    .stream_create = cm_cuda_stream_create,
    .stream_destroy = cm_cuda_stream_destroy,
    .stream_hold = cm_cuda_stream_hold,
    .stream_release = cm_cuda_stream_release,
    .stream_waits = cm_cuda_stream_waits,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = event_record,
    .stream_wait = stream_wait,
    .elapsed = elapsed,
    .stream_sync = cm_cuda_stream_sync,
    .copy = cuda_copy,
    .call = cm_cuda_call,
    .native_stream = cm_cuda_native_stream,
    .memory_export = cm_cuda_export,
    .memory_import = cm_cuda_import,
    .memory_unimport = cm_cuda_unimport,
    .use_comm_memory = cm_cuda_use_comm_memory,
    .survey = cm_nvml_survey,
    .telemetry_begin = cm_nvml_telemetry_begin,
    .telemetry_end = cm_nvml_telemetry_end,
};
