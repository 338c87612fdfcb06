/* cpu.h: what the files of the CPU backend share. */
#ifndef HOST_DEVICE_CPU_H
#define HOST_DEVICE_CPU_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "clustermark/device.h"
#include "clustermark/kernels.h"
#include "clustermark/team.h"

/* What telemetry_begin saw. */
struct cm_cpu_window {
    bool open;
    uint64_t start_ns;
    uint64_t steal_ticks, total_ticks;
    long switches;
    double clock_hz;
};

struct cm_cpu_block;

struct cm_cpu_device {
    struct cm_device device;
    struct cm_kernels kernels; /* the reference and oneDNN's products */
    unsigned threads;
    bool spin; /* this rank has at least two cores: a short busy wait is free */
    struct cm_team *team;
    struct cm_cpu_block *blocks; /* what alloc gave out */
    uint64_t used_bytes;
    uint64_t allocations;         /* ever */
    struct cm_cpu_event *retired; /* destroyed while queued work still names them */
    struct cm_cpu_window window;

    /* Workers that wait for an event of another stream. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    _Atomic unsigned waiting;
    bool abandoned; /* a stream was given up while it hung: its worker may still use the device */
};

/* A record on one stream is a ticket: `queued` counts those of the caller, `done` is the latest
 * that happened. Those of one stream happen in order; an event that is recorded on several streams
 * has a mark for each, so that a later record elsewhere does not end a wait for an earlier one. */
struct cm_cpu_mark {
    struct cm_cpu_event *event;
    struct cm_stream *stream; /* only compared */
    uint64_t queued;
    _Atomic uint64_t done;
    _Atomic uint64_t time_ns;
};

#define CM_CPU_EVENT_STREAMS 8

struct cm_cpu_event {
    struct cm_event event;
    struct cm_cpu_mark marks[CM_CPU_EVENT_STREAMS];
    struct cm_cpu_mark *latest; /* of the latest record; NULL: never recorded */
    _Atomic unsigned pending;   /* queued commands that name this event */
    struct cm_cpu_event *next_retired;
};

static inline uint64_t cm_cpu_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* cpu_stream.c: the stream hooks of cm_device_ops. */
enum cm_status cm_cpu_stream_create(struct cm_device *device, int priority,
                                    struct cm_stream **stream);
void cm_cpu_stream_destroy(struct cm_stream *stream);
enum cm_status cm_cpu_stream_hold(struct cm_stream *stream);
enum cm_status cm_cpu_stream_release(struct cm_stream *stream);
enum cm_status cm_cpu_stream_sync(struct cm_stream *stream, double timeout_s);
enum cm_status cm_cpu_stream_wait(struct cm_stream *stream, struct cm_event *event);
enum cm_status cm_cpu_event_record(struct cm_event *event, struct cm_stream *stream);
enum cm_status cm_cpu_call(struct cm_stream *stream, cm_call_fn function, const void *args,
                           size_t size_bytes, const char *what);

/* cpu_info.c: name, cores, caches, memory and ceilings. */
void cm_cpu_describe(const struct cm_device_config *config, struct cm_device_info *info);
unsigned cm_cpu_affinity_count(void);
/* "" when it is not known. */
void cm_cpu_name(char *name, size_t size);

/* cpu_peak.c: FLOP/s of one core in a loop of fused multiply-adds on registers; 0 where this CPU
 * has no such instructions. A few milliseconds. */
double cm_cpu_peak_f32(void);
double cm_cpu_peak_f64(void);

/* cpu_telemetry.c */
enum cm_status cm_cpu_telemetry_begin(struct cm_device *device);
enum cm_status cm_cpu_telemetry_end(struct cm_device *device, struct cm_telemetry *telemetry);
/* Mean of what the kernel says the cores of this rank run at now; NAN when it does not say. */
double cm_cpu_clock_hz(void);

#endif
