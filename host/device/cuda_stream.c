/*
 * Streams of the CUDA device.
 *
 * A held stream waits in a kernel that looks at a flag of the host. CUDA's queue has room for about
 * a thousand launches, and a launch that finds it full waits until there is room, which never comes
 * behind such a kernel: so launches are counted, and in good time all holds of the device end.
 *
 * Host calls stand in a list in the order of their stream; the oldest is used again once it is
 * done, so that a queue that is drained now and then allocates nothing.
 */
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/cuda_kernels.h"
#include "clustermark/memory.h"
#include "host/device/cuda_api.h"

/* Launches behind held streams of a device, all of them together: streams may share a queue. */
#define HELD_LAUNCHES 512
/* What a call of another library on the native stream (a collective, say) may launch. */
#define FOREIGN_LAUNCHES 4
/* A hold ends by itself after this time, so that no mistake can hang a GPU. */
#define HOLD_NS UINT64_C(10000000000)
/* A wait begins by yielding the core, and then sleeps. */
#define YIELD_NS      UINT64_C(200000)
#define SLEEP_NS      5000
#define SLEEP_MOST_NS 50000

struct cm_cuda_call {
    struct cm_cuda_call *next;
    struct cm_cuda_stream *stream;
    cm_call_fn function;
    const char *what;
    _Atomic bool done;
    _Alignas(16) unsigned char args[CM_CALL_ARGS_MAX];
};

/* ---- holding ---- */

static void start_stream(struct cm_cuda_stream *stream)
{
    if (!stream->waiting)
        return;
    stream->waiting = false;
    stream->device->holding--;
    atomic_store_explicit(&stream->pinned->released, stream->ticket, memory_order_release);
}

void cm_cuda_start_held(struct cm_cuda_device *device)
{
    for (struct cm_cuda_stream *stream = device->streams; stream != NULL; stream = stream->next)
        start_stream(stream);
    device->queued = 0;
}

enum cm_status cm_cuda_count(struct cm_stream *base, unsigned launches, const char *what)
{
    struct cm_cuda_stream *stream = (struct cm_cuda_stream *)base;
    struct cm_cuda_device *device = stream->device;
    stream->last = what;
    if (device->holding > 0) {
        device->queued += launches;
        if (device->queued > HELD_LAUNCHES)
            cm_cuda_start_held(device);
    }
    return cm_cuda_enter(device);
}

bool cm_cuda_ready(struct cm_stream *base, unsigned launches, const char *what,
                   enum cm_status *status)
{
    struct cm_cuda_stream *stream = (struct cm_cuda_stream *)base;
    *status = CM_OK;
    if (atomic_load_explicit(&stream->failure, memory_order_relaxed) != CM_OK)
        return false;
    *status = cm_cuda_count(base, launches, what);
    return *status == CM_OK;
}

enum cm_status cm_cuda_stream_hold(struct cm_stream *base)
{
    struct cm_cuda_stream *stream = (struct cm_cuda_stream *)base;
    struct cm_cuda_device *device = stream->device;
    if (stream->held)
        return cm_error(CM_USAGE, "stream_hold: the stream is held already; release it first");
    enum cm_status status = cm_cuda_count(base, 1, "hold");
    if (status == CM_OK)
        status =
            CUDA(device, cm_cuda_spin(stream->native,
                                      (const uint32_t *)(const void *)&stream->pinned->released,
                                      ++stream->ticket, HOLD_NS, &stream->pinned->expired));
    if (status != CM_OK)
        return status;
    stream->held = stream->waiting = true;
    if (device->holding++ == 0)
        device->queued = 0;
    return CM_OK;
}

enum cm_status cm_cuda_stream_release(struct cm_stream *base)
{
    struct cm_cuda_stream *stream = (struct cm_cuda_stream *)base;
    if (!stream->held)
        return cm_error(CM_USAGE, "stream_release: the stream is not held; hold it first");
    stream->held = false;
    start_stream(stream);
    return CM_OK;
}

bool cm_cuda_stream_waits(const struct cm_stream *base)
{
    const struct cm_cuda_stream *stream = (const struct cm_cuda_stream *)base;
    return stream->waiting && stream->pinned->expired == 0;
}

/* ---- host calls ---- */

static void CUDART_CB run_call(void *arg)
{
    struct cm_cuda_call *call = arg;
    struct cm_cuda_stream *stream = call->stream;
    if (atomic_load_explicit(&stream->failure, memory_order_relaxed) == CM_OK) {
        atomic_store_explicit(&stream->running, call->what, memory_order_relaxed);
        enum cm_status status = call->function(call->args);
        atomic_store_explicit(&stream->running, NULL, memory_order_relaxed);
        if (status != CM_OK) {
            const char *text = cm_error_text();
            snprintf(stream->failure_text, sizeof stream->failure_text, "%s: %s", call->what,
                     text[0] ? text : cm_status_text(status));
            cm_error_clear();
            atomic_store_explicit(&stream->failure, (int)status, memory_order_release);
        }
    }
    atomic_store_explicit(&call->done, true, memory_order_release);
}

/* The oldest call once it is done, or a new one, at the end of the list. */
static struct cm_cuda_call *new_call(struct cm_cuda_stream *stream)
{
    struct cm_cuda_call *call = stream->oldest;
    if (call != NULL && atomic_load_explicit(&call->done, memory_order_acquire))
        stream->oldest = call->next;
    else if ((call = cm_alloc(1, sizeof *call)) == NULL)
        return NULL;
    call->next = NULL;
    if (stream->oldest == NULL)
        stream->oldest = call;
    else
        stream->newest->next = call;
    stream->newest = call;
    call->stream = stream;
    return call;
}

enum cm_status cm_cuda_call(struct cm_stream *base, cm_call_fn function, const void *args,
                            size_t size_bytes, const char *what)
{
    struct cm_cuda_stream *stream = (struct cm_cuda_stream *)base;
    if (size_bytes > CM_CALL_ARGS_MAX)
        return cm_error(CM_USAGE, "call %s: %zu bytes of arguments; at most %d fit", what,
                        size_bytes, CM_CALL_ARGS_MAX);
    enum cm_status status;
    if (!cm_cuda_ready(base, 2, what, &status))
        return status;
    struct cm_cuda_call *call = new_call(stream);
    if (call == NULL)
        return CM_NO_MEMORY;
    call->function = function;
    call->what = what;
    if (size_bytes > 0)
        memcpy(call->args, args, size_bytes);
    atomic_store_explicit(&call->done, false, memory_order_relaxed);
    status = CUDA(stream->device, cudaLaunchHostFunc(stream->native, run_call, call));
    if (status != CM_OK)
        atomic_store_explicit(&call->done, true, memory_order_relaxed);
    return status;
}

void *cm_cuda_native_stream(struct cm_stream *base)
{
    struct cm_cuda_stream *stream = (struct cm_cuda_stream *)base;
    /* An error shows in the work that the caller is about to queue. */
    cm_cuda_count(base, FOREIGN_LAUNCHES, "work of another library");
    return stream->native;
}

/* ---- waiting ---- */

int cm_cuda_await(struct CUstream_st *native, double timeout_s)
{
    uint64_t start_ns = cm_cuda_now_ns();
    struct timespec pause = {0, SLEEP_NS};
    cudaError_t code;
    while ((code = cudaStreamQuery(native)) == cudaErrorNotReady) {
        uint64_t waited_ns = cm_cuda_now_ns() - start_ns;
        if (!((double)waited_ns * 1e-9 < timeout_s)) /* NAN is no time at all */
            break;
        if (waited_ns < YIELD_NS) {
            sched_yield();
            continue;
        }
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < SLEEP_MOST_NS)
            pause.tv_nsec += SLEEP_NS;
    }
    if (code != cudaSuccess)
        cudaGetLastError();
    return (int)code;
}

/* The failure of a host call, once. */
static enum cm_status take_failure(struct cm_cuda_stream *stream)
{
    int failure = atomic_load_explicit(&stream->failure, memory_order_acquire);
    if (failure == CM_OK)
        return CM_OK;
    enum cm_status status = cm_error((enum cm_status)failure, "%s", stream->failure_text);
    atomic_store_explicit(&stream->failure, CM_OK, memory_order_relaxed);
    return status;
}

enum cm_status cm_cuda_stream_sync(struct cm_stream *base, double timeout_s)
{
    struct cm_cuda_stream *stream = (struct cm_cuda_stream *)base;
    struct cm_cuda_device *device = stream->device;
    if (stream->held)
        return cm_error(CM_USAGE, "stream_sync: the stream is held, so it would never be done; "
                                  "release it first");
    enum cm_status status = cm_cuda_enter(device);
    if (status != CM_OK)
        return status;
    int code = cm_cuda_await(stream->native, timeout_s);
    stream->timed_out = code == cudaErrorNotReady;
    if (stream->timed_out) {
        const char *running = atomic_load_explicit(&stream->running, memory_order_relaxed);
        return cm_error(CM_TIMEOUT, "stream_sync: not done in time on cuda device %d %s; %s %s",
                        device->ordinal, device->device.info.bus_id,
                        running != NULL ? "in" : "last queued:",
                        running != NULL        ? running
                        : stream->last != NULL ? stream->last
                                               : "nothing");
    }
    status = cm_cuda_status(device, code, "queued work", __FILE__, __LINE__);
    if (status == CM_OK)
        status = take_failure(stream);
    if (stream->pinned->expired != 0) {
        stream->pinned->expired = 0;
        cm_warn("cuda device %d: a batch that was still being queued after %.0f s began early",
                device->ordinal, (double)HOLD_NS * 1e-9);
    }
    return status;
}

/* ---- making and ending ---- */

static enum cm_status take_place(struct cm_cuda_device *device, struct cm_cuda_stream *stream)
{
    unsigned place = 0;
    while (place < CM_CUDA_STREAMS && device->slot_used[place])
        place++;
    if (place == CM_CUDA_STREAMS)
        return cm_error(CM_NO_MEMORY, "stream_create: cuda device %d has its %d streams already",
                        device->ordinal, CM_CUDA_STREAMS);
    device->slot_used[place] = true;
    stream->place = place;
    stream->pinned = &device->pinned[place];
    stream->slot = &device->slots[place];
    stream->pinned->expired = 0;
    stream->ticket = atomic_load_explicit(&stream->pinned->released, memory_order_relaxed);
    stream->next = device->streams;
    device->streams = stream;
    return CM_OK;
}

enum cm_status cm_cuda_stream_create(struct cm_device *base, int priority,
                                     struct cm_stream **stream)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    enum cm_status status = cm_cuda_enter(device);
    if (status != CM_OK)
        return status;
    struct cm_cuda_stream *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->stream.device = base;
    made->stream.priority = priority;
    made->device = device;
    int lowest = 0, highest = 0;
    status = CUDA(device, cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    if (status == CM_OK)
        status = CUDA(device, cudaStreamCreateWithPriority(&made->native, cudaStreamNonBlocking,
                                                           priority > 0 ? highest : lowest));
    if (status == CM_OK)
        status = take_place(device, made);
    if (status != CM_OK) {
        if (made->native != NULL && cudaStreamDestroy(made->native) != cudaSuccess)
            cudaGetLastError();
        cm_free(made);
        return status;
    }
    *stream = &made->stream;
    return CM_OK;
}

void cm_cuda_stream_destroy(struct cm_stream *base)
{
    struct cm_cuda_stream *stream = (struct cm_cuda_stream *)base;
    if (stream == NULL)
        return;
    struct cm_cuda_device *device = stream->device;
    start_stream(stream);
    for (struct cm_cuda_stream **link = &device->streams; *link != NULL; link = &(*link)->next) {
        if (*link == stream) {
            *link = stream->next;
            break;
        }
    }
    bool lost = cm_cuda_enter(device) != CM_OK;
    if (lost ||
        cm_cuda_await(stream->native, stream->timed_out ? 0 : (double)INFINITY) != cudaSuccess) {
        /* Its work hangs, perhaps for ever, or will never be told to have ended. What it uses goes
         * with the process. */
        device->abandoned = true;
        return;
    }
    while (stream->oldest != NULL) {
        struct cm_cuda_call *call = stream->oldest;
        stream->oldest = call->next;
        cm_free(call);
    }
    if (cudaStreamDestroy(stream->native) != cudaSuccess)
        cudaGetLastError();
    device->slot_used[stream->place] = false;
    cm_free(stream);
}
