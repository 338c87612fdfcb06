/*
 * cuda.h: what the files of the CUDA backend share. CUDA's own header is in cuda_api.h, so
 * codes are int and streams struct CUstream_st *, as cudaError_t and cudaStream_t are.
 */
#ifndef HOST_DEVICE_CUDA_H
#define HOST_DEVICE_CUDA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "clustermark/device.h"
#include "clustermark/error.h"
#include "clustermark/kernels.h"

struct CUstream_st;
struct cm_cuda_block;
struct cm_cuda_call;
struct cm_cuda_products;
struct cm_cudnn;
struct cm_nvml;

/* Streams of one device at a time. */
#define CM_CUDA_STREAMS 256

/* What a stream has in pinned memory; the device reads and writes it. */
struct cm_cuda_pinned {
    _Alignas(64) _Atomic uint32_t released; /* ticket of the hold that is over */
    uint32_t expired;                       /* set by a hold that ended by its own deadline */
    struct cm_verify_result result;
};

/* And in the device's. */
struct cm_cuda_slot {
    _Alignas(64) struct cm_verify_result result;
};

struct cm_cuda_device {
    struct cm_device device;
    unsigned rank;  /* of this process, for messages */
    int ordinal;    /* CUDA's */
    int capability; /* 10 * major + minor */
    int far_node;
    bool instance;                /* of MIG: a part of a GPU */
    char lost[CM_ERROR_TEXT_MAX]; /* the error after which nothing works any more, else "" */
    bool abandoned;               /* a stream was given up while it hung: it still uses all this */

    struct cm_cuda_block *blocks; /* what alloc gave out and import brought in */
    uint64_t used_bytes;
    struct cm_comm_memory comm_memory; /* alloc NULL: there is none */

    float *normal_table;
    float *one; /* 1.0: the scale of 8-bit products */
    struct cm_cuda_pinned *pinned;
    struct cm_cuda_slot *slots;
    bool slot_used[CM_CUDA_STREAMS];

    struct cm_cuda_stream *streams;
    unsigned holding; /* streams whose hold has not begun to end */
    unsigned queued;  /* since the first of them was held */

    struct cm_cuda_products *products;
    struct cm_cudnn *cudnn; /* NULL until attention is asked of it */
    struct cm_nvml *nvml;   /* NULL where there is no telemetry */
    bool nvml_tried;
    bool window; /* of telemetry, open */
};

struct cm_cuda_stream {
    struct cm_stream stream;
    struct cm_cuda_device *device;
    struct cm_cuda_stream *next; /* of the device */
    struct CUstream_st *native;
    unsigned place; /* of what follows among the device's */
    struct cm_cuda_pinned *pinned;
    struct cm_cuda_slot *slot;

    uint32_t ticket; /* of the latest hold */
    bool held;       /* as the caller sees it */
    bool waiting;    /* its kernel still waits; false while held: the queue was full */
    bool timed_out;
    const char *last; /* what was queued last, for messages */

    struct cm_cuda_call *oldest, *newest; /* host calls, done ones first */
    const char *_Atomic running;          /* the call that runs */
    _Atomic int failure;                  /* enum cm_status of the first call that failed */
    char failure_text[CM_ERROR_TEXT_MAX]; /* written before `failure` */
};

static inline uint64_t cm_cuda_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* "rank 1, cuda device 0 0000:1b:00.0": who speaks, in every message of a call that failed. */
#define CM_CUDA_WHO_MAX 64
void cm_cuda_who(const struct cm_cuda_device *device, char text[CM_CUDA_WHO_MAX]);

/* Yields the status of a CUDA call or of a kernel's launch, recorded with its text, the place and
 * who calls (device NULL: nobody yet, the caller then says for which device). */
#define CUDA(device, call) cm_cuda_status(device, (int)(call), #call, __FILE__, __LINE__)
enum cm_status cm_cuda_status(struct cm_cuda_device *device, int code, const char *call,
                              const char *file, int line);

/* cuda_describe.c */
enum cm_status cm_cuda_probe(struct cm_device_probe *probe);
enum cm_status cm_cuda_locate(unsigned index, char *bus_id, size_t size);
/* CUDA's ordinal of a device of the probe. */
enum cm_status cm_cuda_ordinal(unsigned index, int *ordinal);
/* All of device.info but memory_bytes; the device is current. */
enum cm_status cm_cuda_describe(struct cm_cuda_device *device);
/* "0000:1b:00.0" */
enum cm_status cm_cuda_bus_id(int ordinal, char *bus_id, size_t size);

/* cuda.c: makes the device the calling thread's; an error when it is lost. */
enum cm_status cm_cuda_enter(struct cm_cuda_device *device);

/* cuda_memory.c */
enum cm_status cm_cuda_alloc(struct cm_device *device, enum cm_memory_kind kind, size_t size_bytes,
                             void **memory);
void cm_cuda_free(struct cm_device *device, enum cm_memory_kind kind, void *memory);
enum cm_status cm_cuda_export(struct cm_device *device, void *memory,
                              struct cm_memory_handle *handle);
enum cm_status cm_cuda_import(struct cm_device *device, const struct cm_memory_handle *handle,
                              void **memory);
void cm_cuda_unimport(struct cm_device *device, void *memory);
void cm_cuda_use_comm_memory(struct cm_device *device, const struct cm_comm_memory *memory);
/* Whether it is the host's and CUDA does not know it. */
bool cm_cuda_is_pageable(const void *memory);

/* cuda_stream.c: the stream hooks of cm_device_ops. */
enum cm_status cm_cuda_stream_create(struct cm_device *device, int priority,
                                     struct cm_stream **stream);
void cm_cuda_stream_destroy(struct cm_stream *stream);
enum cm_status cm_cuda_stream_hold(struct cm_stream *stream);
enum cm_status cm_cuda_stream_release(struct cm_stream *stream);
bool cm_cuda_stream_waits(const struct cm_stream *stream);
enum cm_status cm_cuda_stream_sync(struct cm_stream *stream, double timeout_s);
enum cm_status cm_cuda_call(struct cm_stream *stream, cm_call_fn function, const void *args,
                            size_t size_bytes, const char *what);
void *cm_cuda_native_stream(struct cm_stream *stream);

/* Comes before whatever is queued: makes the device current and counts `launches` places in CUDA's
 * queue, which a held stream must not fill. */
enum cm_status cm_cuda_count(struct cm_stream *stream, unsigned launches, const char *what);
/* The same for work that a failed call before it makes pointless. False when there is nothing to
 * queue: *status then says whether that is an error. */
bool cm_cuda_ready(struct cm_stream *stream, unsigned launches, const char *what,
                   enum cm_status *status);
/* Starts what is held: before a call that waits for the device. */
void cm_cuda_start_held(struct cm_cuda_device *device);
/* Polls until all that is queued has passed, with cudaSuccess, or there is an error, or the time is
 * up: cudaErrorNotReady. */
int cm_cuda_await(struct CUstream_st *native, double timeout_s);

static inline struct CUstream_st *cm_cuda_native(struct cm_stream *stream)
{
    return ((struct cm_cuda_stream *)stream)->native;
}

/* cuda_kernels.c */
extern const struct cm_kernels cm_kernels_cuda;

/* cuda_train.c: its `train`. */
extern const struct cm_train_kernels cm_train_kernels_cuda;

/* cuda_cudnn.c; cuda_no_cudnn.c where this is built without cuDNN: its `library`. */
extern const struct cm_attention_library cm_attention_cudnn;
/* The plans and the library; nothing of theirs is queued. Accepts NULL. */
void cm_cudnn_close(struct cm_cudnn *cudnn);

/* cuda_gemm.c: as in struct cm_kernels. */
enum cm_status cm_cuda_gemm_plan(struct cm_device *device, const struct cm_gemm_desc *desc,
                                 struct cm_gemm **gemm);
enum cm_status cm_cuda_gemm(struct cm_stream *stream, struct cm_gemm *gemm, const void *a,
                            const void *b, void *c);
enum cm_status cm_cuda_gemm_with(struct cm_stream *stream, struct cm_gemm *gemm, const void *a,
                                 const void *b, void *c, const struct cm_gemm_extras *extras);
void cm_cuda_gemm_free(struct cm_gemm *gemm);
/* What plans share; accepts NULL. */
void cm_cuda_products_free(struct cm_cuda_products *products);

/* cuda_peak.c: what the matrix units of such a GPU give at that clock, by its architecture. */
struct cm_cuda_gpu {
    const char *name; /* some are slower by their name alone */
    int capability;
    unsigned units;
    double clock_hz;
};
void cm_cuda_peak(const struct cm_cuda_gpu *gpu, enum cm_dtype dtype, struct cm_peak *peak);

/* nvml.c: opened with the first window. */
void cm_nvml_close(struct cm_nvml *nvml); /* accepts NULL */
void cm_nvml_survey(struct cm_device *device);
/* The device's telemetry hooks. */
enum cm_status cm_nvml_telemetry_begin(struct cm_device *device);
enum cm_status cm_nvml_telemetry_end(struct cm_device *device, struct cm_telemetry *telemetry);

#endif
