/*
 * The CPU as a device: the cores of one rank.
 *
 * Streams are real queues with a worker each (cpu_stream.c), so a missing dependency shows here as
 * it would on a GPU. Kernels are the reference ones, products oneDNN's.
 */
#include "host/device/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/device/onednn.h"

/* Each buffer begins one cache line further within a page than the one before. A CPU at first takes
 * addresses that agree in their lowest 12 bits for the same; of the distances tried, this one
 * served loops over several arrays best at all sizes. */
#define PAGE_BYTES    4096
#define STAGGER_BYTES 64

struct cm_cpu_block {
    void *base;   /* from the system */
    void *memory; /* as given out */
    size_t size_bytes;
    struct cm_cpu_block *next;
};

static enum cm_status cpu_probe(struct cm_device_probe *probe)
{
    char name[64];
    probe->count = 1;
    cm_cpu_name(name, sizeof name);
    snprintf(probe->reason, sizeof probe->reason, "%s, %u cores for this process",
             name[0] ? name : "a CPU", cm_cpu_affinity_count());
    return CM_OK;
}

static void cpu_close(struct cm_device *base)
{
    struct cm_cpu_device *device = (struct cm_cpu_device *)base;
    /* A stream that was given up still uses what is here. */
    if (device == NULL || device->abandoned)
        return;
    while (device->retired != NULL) {
        struct cm_cpu_event *event = device->retired;
        device->retired = event->next_retired;
        cm_free(event);
    }
    cm_team_free(device->team);
    pthread_cond_destroy(&device->changed);
    pthread_mutex_destroy(&device->lock);
    cm_free(device);
}

extern const struct cm_device_ops cm_device_cpu;

static enum cm_status cpu_open(const struct cm_device_config *config, struct cm_device **device)
{
    if (config->index != 0)
        return cm_error(CM_NO_DEVICE, "cpu device %u: there is only device 0", config->index);
    struct cm_cpu_device *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    unsigned available = cm_cpu_affinity_count();
    made->threads = config->threads > 0 ? config->threads : available;
    made->spin = available >= 2 && made->threads <= available;
    made->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    made->changed = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    made->kernels = cm_kernels_cpu;
    made->kernels.gemm_plan = cm_onednn_gemm_plan;
    made->kernels.gemm = cm_onednn_gemm;
    made->kernels.gemm_with = cm_onednn_gemm_with;
    made->kernels.gemm_free = cm_onednn_gemm_free;
    made->device.ops = &cm_device_cpu;
    made->device.kernels = &made->kernels;
    enum cm_status status = cm_team_create(made->threads, made->spin, &made->team);
    if (status != CM_OK) {
        cpu_close(&made->device);
        return status;
    }
    cm_onednn_use_threads(made->threads);
    made->device.info.units = made->threads;
    cm_cpu_describe(config, &made->device.info);
    *device = &made->device;
    return CM_OK;
}

static enum cm_status cpu_alloc(struct cm_device *base, enum cm_memory_kind kind, size_t size_bytes,
                                void **memory)
{
    struct cm_cpu_device *device = (struct cm_cpu_device *)base;
    if (size_bytes == 0)
        return cm_error(CM_USAGE, "cpu alloc: size is 0; ask for at least 1 byte");
    uint64_t limit = device->device.info.memory_bytes;
    if (limit > 0 && (size_bytes > limit || device->used_bytes > limit - size_bytes))
        return cm_error(CM_NO_MEMORY, "cpu alloc: asked for %zu bytes; %llu of %llu are in use",
                        size_bytes, (unsigned long long)device->used_bytes,
                        (unsigned long long)limit);
    struct cm_cpu_block *block = cm_alloc(1, sizeof *block);
    if (block == NULL)
        return CM_NO_MEMORY;
    /* Messages are whole pages: the kernel copies them from process to process page by page, which
     * takes twice as long between buffers that lie differently in their pages. */
    size_t place = 0;
    if (kind != CM_MEMORY_COMM)
        place = (size_t)(device->allocations++ * STAGGER_BYTES % PAGE_BYTES);
    if (size_bytes > SIZE_MAX - place ||
        posix_memalign(&block->base, PAGE_BYTES, place + size_bytes) != 0) {
        cm_free(block);
        return cm_error(CM_NO_MEMORY, "cpu alloc: the system has no %zu bytes left", size_bytes);
    }
    block->memory = (char *)block->base + place;
    block->size_bytes = size_bytes;
    block->next = device->blocks;
    device->blocks = block;
    device->used_bytes += size_bytes;
    *memory = block->memory;
    return CM_OK;
}

static void cpu_free(struct cm_device *base, enum cm_memory_kind kind, void *memory)
{
    struct cm_cpu_device *device = (struct cm_cpu_device *)base;
    (void)kind;
    for (struct cm_cpu_block **link = &device->blocks; *link != NULL; link = &(*link)->next) {
        struct cm_cpu_block *block = *link;
        if (block->memory != memory)
            continue;
        *link = block->next;
        device->used_bytes -= block->size_bytes;
        free(block->base);
        cm_free(block);
        return;
    }
}

static enum cm_status event_create(struct cm_device *device, struct cm_event **event)
{
    struct cm_cpu_event *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->event.device = device;
    *event = &made->event;
    return CM_OK;
}

static bool event_idle(struct cm_cpu_event *event)
{
    return atomic_load_explicit(&event->pending, memory_order_acquire) == 0;
}

/* Queued work may still name the event; then it is freed later. */
static void event_destroy(struct cm_event *base)
{
    struct cm_cpu_event *event = (struct cm_cpu_event *)base;
    if (event == NULL)
        return;
    struct cm_cpu_device *device = (struct cm_cpu_device *)base->device;
    event->next_retired = device->retired;
    device->retired = event;
    for (struct cm_cpu_event **link = &device->retired; *link != NULL;) {
        struct cm_cpu_event *item = *link;
        if (event_idle(item)) {
            *link = item->next_retired;
            cm_free(item);
        } else {
            link = &item->next_retired;
        }
    }
}

static enum cm_status elapsed(struct cm_event *base_start, struct cm_event *base_end,
                              double *seconds)
{
    struct cm_cpu_event *start = (struct cm_cpu_event *)base_start;
    struct cm_cpu_event *end = (struct cm_cpu_event *)base_end;
    const struct cm_cpu_mark *both[] = {start->latest, end->latest};
    for (int i = 0; i < 2; i++) {
        if (both[i] == NULL || atomic_load(&both[i]->done) != both[i]->queued)
            return cm_error(CM_USAGE, "elapsed: the %s event %s; record it and sync its stream",
                            i == 0 ? "start" : "end",
                            both[i] == NULL ? "was never recorded" : "has not happened yet");
    }
    int64_t ns = (int64_t)(atomic_load(&both[1]->time_ns) - atomic_load(&both[0]->time_ns));
    *seconds = (double)ns * 1e-9;
    return CM_OK;
}

struct copy_args {
    void *to;
    const void *from;
    size_t size_bytes;
};

static enum cm_status run_copy(const void *args)
{
    const struct copy_args *copy = args;
    memmove(copy->to, copy->from, copy->size_bytes);
    return CM_OK;
}

static enum cm_status cpu_copy(struct cm_stream *stream, void *to, const void *from,
                               size_t size_bytes)
{
    struct copy_args args = {to, from, size_bytes};
    return cm_cpu_call(stream, run_copy, &args, sizeof args, "copy");
}

const struct cm_device_ops cm_device_cpu = {
    .name = "cpu",
    .summary = "the cores of this machine: oneDNN products, reference kernels",
    .comm = "mpi",
    .is_host = true,
    .probe = cpu_probe,
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .stream_create = cm_cpu_stream_create,
    .stream_destroy = cm_cpu_stream_destroy,
    .stream_hold = cm_cpu_stream_hold,
    .stream_release = cm_cpu_stream_release,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = cm_cpu_event_record,
    .stream_wait = cm_cpu_stream_wait,
    .elapsed = elapsed,
    .stream_sync = cm_cpu_stream_sync,
    .copy = cpu_copy,
    .call = cm_cpu_call,
    .telemetry_begin = cm_cpu_telemetry_begin,
    .telemetry_end = cm_cpu_telemetry_end,
};
